//! What is asked of the engine, one call each, with the answers that mean "it is so already" told from failures.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::podman;
use crate::core::release::{self, ImageId};
use crate::runtime::engine::{CALL, Engine};
use crate::runtime::{ErrorClass, RuntimeError};

/// A start prepares mounts and networks; a busy disk makes it slow, and giving up on it early would be wrong.
const START: Duration = Duration::from_secs(60);
/// A stop with whatever time its deployer gave it, and a start.
const RESTART: Duration = Duration::from_secs(180);
/// A kill ends when the kernel has taken the process away.
const KILL: Duration = Duration::from_secs(30);

/// The engine may learn so much later than of an end that it was for want of memory.
const LEARNS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(350), Duration::from_millis(1_000)];

/// A container, image, network or volume as the engine states it; none if it is not there.
pub(in crate::runtime) async fn look_up(engine: &Engine, path: &str) -> Result<Option<Value>, RuntimeError> {
    match engine.json(path).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container by id or name.
pub(in crate::runtime) async fn inspect(
    engine: &Engine,
    container: &str,
) -> Result<Option<Value>, RuntimeError> {
    let mut found = look_up(engine, &format!("/containers/{container}/json")).await?;
    if let Some(inspect) = &mut found
        && engine.is_podman().await?
    {
        podman::in_docker_words(inspect);
    }
    Ok(found)
}

/// Whether the kernel killed a container's main process for want of memory, as its engine tells it: events of it may be
/// missing. The engine learns of the kill apart from the end, and on a busy machine later. One that is not here, or no
/// more, cannot be asked about.
pub(in crate::runtime) async fn was_out_of_memory(
    engine: &Engine,
    container: &str,
) -> Result<bool, RuntimeError> {
    for wait in LEARNS {
        tokio::time::sleep(wait).await;
        match inspect(engine, container).await? {
            Some(inspect) if inspect["State"]["OOMKilled"] == true => return Ok(true),
            Some(_) => {}
            None => break,
        }
    }
    Ok(false)
}

/// The id behind an image reference; none if it points nowhere.
pub(in crate::runtime) async fn image_id(
    engine: &Engine,
    reference: &str,
) -> Result<Option<ImageId>, RuntimeError> {
    let image = look_up(engine, &format!("/images/{reference}/json")).await?;
    Ok(image.and_then(|i| i["Id"].as_str().map(ImageId::new)))
}

/// Starts a container. It may run already.
pub(super) async fn start(engine: &Engine, container: &str) -> Result<(), RuntimeError> {
    let path = format!("/containers/{container}/start");
    engine.call(Method::POST, &path, None, START).await.map(drop).map_err(left_over)
}

/// An engine that was killed while it started a container finds what is left of that start, clears it away, and says so:
/// the next time it starts.
fn left_over(error: RuntimeError) -> RuntimeError {
    let of_before = error.message.contains(": task ") && error.message.contains(": already exists");
    let class = if of_before { ErrorClass::Transient } else { error.class };
    RuntimeError { class, ..error }
}

/// Stops a container as its deployer said it should be, `stops` being the time for it that they set, and starts it again.
pub(super) async fn restart(
    engine: &Engine,
    container: &str,
    stops: Option<Duration>,
) -> Result<(), RuntimeError> {
    let limit = RESTART.max(stops.unwrap_or_default().saturating_add(START));
    engine.call(Method::POST, &format!("/containers/{container}/restart"), None, limit).await.map(drop)
}

/// Stops a container, waiting `grace` seconds before SIGKILL (none: as its deployer set, `most` at most).
/// It may be stopped already, or gone.
pub(super) async fn stop(
    engine: &Engine,
    container: &str,
    grace: Option<u64>,
    most: u64,
) -> Result<(), RuntimeError> {
    let query = grace.map_or_else(String::new, |t| format!("?t={t}"));
    let limit = Duration::from_secs(grace.unwrap_or(most)) + KILL;
    gone_is_fine(
        engine.call(Method::POST, &format!("/containers/{container}/stop{query}"), None, limit).await,
    )
}

/// Kills a container's processes and waits for their end. It may be stopped already, or gone.
pub(super) async fn kill(engine: &Engine, container: &str) -> Result<(), RuntimeError> {
    let killed =
        engine.call(Method::POST, &format!("/containers/{container}/kill?signal=SIGKILL"), None, KILL).await;
    match killed {
        // Not running: that is what was wanted.
        Err(error) if error.class == ErrorClass::Conflict => Ok(()),
        // Podman says so in another way.
        Err(error) if error.class == ErrorClass::Permanent => match inspect(engine, container).await? {
            Some(found) if found["State"]["Running"] == true => Err(error),
            Some(_) | None => Ok(()),
        },
        other => gone_is_fine(other),
    }
}

/// Stops a container, one that waits to be started again among them, and waits for nothing.
pub(super) async fn stop_at_once(engine: &Engine, container: &str) -> Result<(), RuntimeError> {
    let path = format!("/containers/{container}/stop?t=0");
    gone_is_fine(engine.call(Method::POST, &path, None, KILL).await)
}

/// Renames a container, which may have the name already.
pub(super) async fn rename(engine: &Engine, container: &str, name: &str) -> Result<(), RuntimeError> {
    let renamed = engine.post(&format!("/containers/{container}/rename?name={name}"), None).await;
    let Err(error) = renamed else { return Ok(()) };
    if error.class == ErrorClass::Transient {
        return Err(error);
    }
    // Renaming to the own name is refused in different words: it is asked who has the name.
    match inspect(engine, container).await? {
        Some(found) if super::observe::name(&found) == name => Ok(()),
        // Podman says in its text only that another has the name.
        Some(_) if inspect(engine, name).await?.is_some() => {
            Err(RuntimeError { class: ErrorClass::Conflict, ..error })
        }
        Some(_) => Err(error),
        None => Err(RuntimeError { class: ErrorClass::NotFound, ..error }),
    }
}

/// Removes a container, running or not, and never its volumes. It may be gone already.
pub(super) async fn remove(engine: &Engine, container: &str) -> Result<(), RuntimeError> {
    let removed = engine.call(Method::DELETE, &format!("/containers/{container}?force=1"), None, KILL).await;
    match removed {
        // The engine is removing it.
        Err(error) if error.class == ErrorClass::Conflict => Ok(()),
        other => gone_is_fine(other),
    }
}

/// Points a tag at an image.
pub(in crate::runtime) async fn tag(
    engine: &Engine,
    image: &str,
    reference: &str,
) -> Result<(), RuntimeError> {
    let (repo, tag) = split(reference);
    engine.post(&format!("/images/{image}/tag?repo={repo}&tag={tag}"), None).await.map(drop)
}

/// Takes a tag away; not the image's layers below it. It may be gone, or be all that a container has of its image.
pub(super) async fn untag(engine: &Engine, reference: &str) -> Result<(), RuntimeError> {
    let removed = engine.call(Method::DELETE, &format!("/images/{reference}?noprune=1"), None, CALL).await;
    match removed {
        Err(error) if error.class == ErrorClass::Conflict => Ok(()),
        other => gone_is_fine(other),
    }
}

/// Repository and tag of a reference.
pub(in crate::runtime) fn split(reference: &str) -> (&str, &str) {
    let (repository, tag) = release::split(reference);
    (repository, tag.unwrap_or("latest"))
}

/// Whether a reference is a tag that can be moved: not an id, and not pinned by digest.
pub(super) fn is_tag(reference: &str) -> bool {
    let bare = reference.strip_prefix("sha256:").unwrap_or(reference);
    let id =
        reference.starts_with("sha256:") || (bare.len() >= 12 && bare.bytes().all(|b| b.is_ascii_hexdigit()));
    !reference.is_empty() && !reference.contains('@') && !id
}

fn gone_is_fine<T>(result: Result<T, RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.class != ErrorClass::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_engine_left_is_tried_again() {
        let class = |message: &str| {
            left_over(RuntimeError { class: ErrorClass::Permanent, message: message.to_owned() }).class
        };
        assert_eq!(
            class("POST /containers/ab/start: task 09d3: already exists (500)"),
            ErrorClass::Transient
        );
        assert_eq!(
            class("POST /containers/ab/start: port is already allocated (500)"),
            ErrorClass::Permanent
        );
    }

    #[test]
    fn references_are_split_and_told_apart() {
        assert_eq!(split("shop"), ("shop", "latest"));
        assert_eq!(split("localhost:5000/shop"), ("localhost:5000/shop", "latest"));
        assert_eq!(split("localhost:5000/shop:v1@sha256:ab"), ("localhost:5000/shop", "v1"));
        assert!(is_tag("shop:v1") && is_tag("localhost:5000/shop"));
        assert!(
            !is_tag("sha256:6d0f") && !is_tag("6d0fe1f4563b") && !is_tag("shop@sha256:6d0f") && !is_tag("")
        );
    }
}
