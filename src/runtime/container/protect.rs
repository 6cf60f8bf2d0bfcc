//! Keeping good images from being pruned: an image without a tag and without a container is gone seconds after the next
//! deployment took its tag.
//!
//! Two tags each. `backstop/keep:<release>` belongs to one release alone and is what protects: nobody else has a reason
//! to move it. `<repo>:rollback`, `rollback-2`, ... are for people and scripts, newest first; when two services share a
//! repository, they show the last one that asked. A person who uses that very name for something of their own loses it:
//! the tag is documented, and moving it back changes nothing for us.

use super::verbs;
use crate::core::release::Release;
use crate::runtime::engine::Engine;
use crate::runtime::{ErrorClass, RuntimeError};

/// The repository of the tags that protect.
const KEEP: &str = "backstop/keep";
/// At most so many generations are ever kept: higher numbers cannot be there.
const GENERATIONS_MAX: u32 = 16;

/// Points both tags at the release's image.
pub(in crate::runtime) async fn protect(
    engine: &Engine,
    release: &Release,
    generation: u32,
) -> Result<(), RuntimeError> {
    verbs::tag(engine, release.image.as_str(), &keep(release)).await?;
    verbs::tag(engine, release.image.as_str(), &shown(release, generation)).await
}

/// Protects an image that was fetched ahead of need: the tag for people comes when the tags are renewed.
pub(in crate::runtime) async fn guard(engine: &Engine, release: &Release) -> Result<(), RuntimeError> {
    verbs::tag(engine, release.image.as_str(), &keep(release)).await
}

/// Takes them away; the second one only where it still shows this release's image.
pub(in crate::runtime) async fn unprotect(engine: &Engine, release: &Release) -> Result<(), RuntimeError> {
    for generation in 1..=GENERATIONS_MAX {
        let tag = shown(release, generation);
        match verbs::image_id(engine, &tag).await {
            Ok(Some(image)) if image == release.image => verbs::untag(engine, &tag).await?,
            Ok(_) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    verbs::untag(engine, &keep(release)).await
}

fn keep(release: &Release) -> String {
    format!("{KEEP}:{}", release.id)
}

fn shown(release: &Release, generation: u32) -> String {
    let repo = repository(release);
    if generation <= 1 { format!("{repo}:rollback") } else { format!("{repo}:rollback-{generation}") }
}

/// The repository that the image came from. A release that was started by a bare id has none of its own.
fn repository(release: &Release) -> String {
    let of_digest = || release.digests.first().and_then(|d| d.split('@').next()).filter(|r| !r.is_empty());
    let bare = release.reference.starts_with("sha256:")
        || !verbs::is_tag(&release.reference) && !release.reference.contains('@');
    if !bare {
        return verbs::split(&release.reference).0.to_owned();
    }
    of_digest().map_or_else(|| format!("backstop/{}", release.id), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::release::{ImageId, ReleaseId};

    fn release(reference: &str, digests: &[&str]) -> Release {
        Release {
            id: ReleaseId::new("3fa9c1d2e4b7"),
            image: ImageId::new("sha256:ab"),
            reference: reference.into(),
            digests: digests.iter().map(|d| (*d).to_owned()).collect(),
            fingerprint: String::new(),
            version: None,
        }
    }

    #[test]
    fn tags_are_made_from_the_repository() {
        assert_eq!(shown(&release("shop:v1", &[]), 1), "shop:rollback");
        assert_eq!(shown(&release("localhost:5000/a/shop", &[]), 2), "localhost:5000/a/shop:rollback-2");
        assert_eq!(shown(&release("shop:v1@sha256:00", &[]), 3), "shop:rollback-3");
        assert_eq!(shown(&release("shop@sha256:00", &[]), 1), "shop:rollback");
    }

    #[test]
    fn an_image_without_a_repository_gets_one() {
        assert_eq!(shown(&release("sha256:6d0fe1f4563b", &[]), 1), "backstop/3fa9c1d2e4b7:rollback");
        assert_eq!(shown(&release("6d0fe1f4563b", &["r.io/shop@sha256:00"]), 1), "r.io/shop:rollback");
    }
}
