//! Keeping good images from being pruned: an image without a tag and without a container is gone seconds after the next
//! deployment took its tag.
//!
//! Two tags each. `backstop/keep:<release>` belongs to one release alone and is what protects: nobody else has a reason
//! to move it. `<repo>:rollback`, `rollback-2`, ... are for people and scripts, newest first; when two services share a
//! repository, they show the last one that asked. Runbooks write these very names by hand (`docker tag shop:latest
//! shop:rollback` before a deployment), and then it is a person's word to which image to go back: such a tag stays where it
//! is. Whose it is tells a third tag, `backstop/shown:<of the tag's name>`, which shows what we pointed it at last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::verbs;
use crate::core::release::{ImageId, Release};
use crate::runtime::engine::Engine;
use crate::runtime::{ErrorClass, RuntimeError};

/// The repository of the tags that protect.
const KEEP: &str = "backstop/keep";
/// The repository of the tags that remember what we pointed the tags for people at.
const SHOWN: &str = "backstop/shown";
/// At most so many generations are ever kept: higher numbers cannot be there.
const GENERATIONS_MAX: u32 = 16;
/// So many tags of others are remembered to have been told of.
const SAID_MAX: usize = 1024;

/// Points both tags at the release's image.
pub(in crate::runtime) async fn protect(
    engine: &Engine,
    release: &Release,
    generation: u32,
) -> Result<(), RuntimeError> {
    verbs::tag(engine, release.image.as_str(), &keep(release)).await?;
    let tag = shown(release, generation);
    match owner(engine, &tag).await? {
        Owner::Nobody | Owner::Us(_) => {
            verbs::tag(engine, release.image.as_str(), &tag).await?;
            verbs::tag(engine, release.image.as_str(), &marker(&tag)).await
        }
        Owner::Somebody(image) if image == release.image => Ok(()),
        Owner::Somebody(image) => {
            if is_news(&tag, &image) {
                tracing::info!(
                    "{tag} shows {image}, which Backstop did not point it at: it is left there; remove it with \
                     `docker rmi {tag}` to have it follow the known-good releases again"
                );
            }
            Ok(())
        }
    }
}

/// Who pointed a tag at what it shows.
enum Owner {
    Nobody,
    Us(ImageId),
    Somebody(ImageId),
}

async fn owner(engine: &Engine, tag: &str) -> Result<Owner, RuntimeError> {
    let Some(shows) = verbs::image_id(engine, tag).await? else { return Ok(Owner::Nobody) };
    let ours = verbs::image_id(engine, &marker(tag)).await?;
    Ok(if ours.as_ref() == Some(&shows) { Owner::Us(shows) } else { Owner::Somebody(shows) })
}

/// The tag that remembers what we pointed `tag` at. A repository's name can be longer than a tag may be.
fn marker(tag: &str) -> String {
    let digest = Sha256::digest(tag.as_bytes());
    let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{SHOWN}:{name}")
}

/// Whether this was not said before: tags are renewed every few minutes.
fn is_news(tag: &str, image: &ImageId) -> bool {
    static SAID: Mutex<BTreeMap<String, ImageId>> = Mutex::new(BTreeMap::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= SAID_MAX {
        said.clear();
    }
    said.insert(tag.to_owned(), image.clone()).as_ref() != Some(image)
}

/// Protects an image that was fetched ahead of need: the tag for people comes when the tags are renewed.
pub(in crate::runtime) async fn guard(engine: &Engine, release: &Release) -> Result<(), RuntimeError> {
    verbs::tag(engine, release.image.as_str(), &keep(release)).await
}

/// Takes them away; the second one only where it is ours and still shows this release's image.
pub(in crate::runtime) async fn unprotect(engine: &Engine, release: &Release) -> Result<(), RuntimeError> {
    for generation in 1..=GENERATIONS_MAX {
        let tag = shown(release, generation);
        match owner(engine, &tag).await {
            Ok(Owner::Us(image)) if image == release.image => {
                verbs::untag(engine, &tag).await?;
                verbs::untag(engine, &marker(&tag)).await?;
            }
            Ok(Owner::Us(_) | Owner::Somebody(_) | Owner::Nobody) => {}
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
    use crate::core::release::ReleaseId;

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
    fn what_we_pointed_a_tag_at_is_remembered_under_a_name_that_fits() {
        let long = format!("registry.example.com/{}/shop:rollback", "a".repeat(200));
        assert!(marker(&long).len() < 64 && marker(&long).starts_with("backstop/shown:"));
        assert_ne!(marker("shop:rollback"), marker("shop:rollback-2"));
    }

    #[test]
    fn an_image_without_a_repository_gets_one() {
        assert_eq!(shown(&release("sha256:6d0fe1f4563b", &[]), 1), "backstop/3fa9c1d2e4b7:rollback");
        assert_eq!(shown(&release("6d0fe1f4563b", &["r.io/shop@sha256:00"]), 1), "r.io/shop:rollback");
    }
}
