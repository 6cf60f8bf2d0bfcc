//! What the demo makes in the engine: two images and one container at a time, as any CI job would make them, without
//! a word to Backstop. Everything carries a label of the demo's own, and only what carries it is ever taken away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::cli::failure::{Code, Failure};
use crate::runtime::engine::Engine;
use crate::runtime::{ErrorClass, RuntimeError};

/// The container, and so the service.
pub(super) const NAME: &str = "backstop-demo-shop";
/// The images' repository.
const REPOSITORY: &str = "backstop-demo";
/// The good image.
pub(super) const GOOD: &str = "backstop-demo:v1";
/// The image that is healthy for a while and then answers with errors.
pub(super) const BAD: &str = "backstop-demo:v2";
/// Where the demo app listens in its container.
pub(super) const APP_PORT: u16 = 8080;

/// On every container of the demo; its value is the demo's process id. The ones that Backstop makes have it too.
const OF_CONTAINER: &str = "backstop-demo.container";
/// On every image of the demo. Not the same: a container inherits its image's labels.
const OF_IMAGE: &str = "backstop-demo.image";
/// Tags that Backstop sets to protect a good release, and to know its own tags for people again.
const KEPT: [&str; 2] = ["backstop/keep", "backstop/shown"];

/// Removing a container or an image, and starting one, end within seconds even on a busy disk.
const SLOW: Duration = Duration::from_secs(60);
/// Calls under way when the demo is interrupted are awaited, so that nothing appears after the cleaning up.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// The demo's things in the engine.
#[derive(Debug)]
pub(super) struct Shop {
    engine: Arc<Engine>,
    /// Where users reach it on this host.
    pub(super) port: u16,
    /// Every call that makes something is a task, so that an interruption never leaves one half-way.
    tasks: TaskTracker,
}

impl Shop {
    /// Nothing is asked of the engine yet.
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine: Arc::new(engine), port: 0, tasks: TaskTracker::new() }
    }

    /// Finds out whether the engine answers and the names are free, or left by a demo that did not end well.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        if let Err(error) = self.engine.json("/_ping").await {
            return Err(Failure::new(Code::Failure, error.message)
                .hint(
                    "the demo needs a Docker Engine 20.10 or newer on this host: `apt-get install docker.io` on Debian or \
                     Ubuntu, else https://docs.docker.com/engine/install/; run it as root or in the group `docker`; if the \
                     engine listens elsewhere, say so with DOCKER_HOST=unix:///path/docker.sock",
                )
                .into());
        }
        // By label, not by name: in the middle of a rollback nothing has the name for a moment.
        let containers = list(&self.engine, "/containers/json?all=1&", OF_CONTAINER).await?;
        let images = list(&self.engine, "/images/json?", OF_IMAGE).await?;
        for (thing, label) in
            containers.iter().map(|c| (c, OF_CONTAINER)).chain(images.iter().map(|i| (i, OF_IMAGE)))
        {
            if let Some(pid) = thing["Labels"][label].as_str().filter(|pid| demo_runs(pid)) {
                return Err(Failure::new(Code::Failure, format!("another demo runs (process {pid})"))
                    .hint("end it with Ctrl-C where it was started, or wait for its end")
                    .into());
            }
        }
        let container = found(self.engine.json(&format!("/containers/{NAME}/json")).await)?;
        if container.is_some_and(|container| container["Config"]["Labels"][OF_CONTAINER].is_null()) {
            return Err(taken(&format!("a container called {NAME} exists that no demo made")));
        }
        for image in [GOOD, BAD] {
            let image_found = found(self.engine.json(&format!("/images/{image}/json")).await)?;
            if image_found.is_some_and(|image| image["Config"]["Labels"][OF_IMAGE].is_null()) {
                return Err(taken(&format!("an image called {image} exists that no demo made")));
            }
        }
        Ok(())
    }

    /// Makes both images.
    pub(super) async fn make_images(&self, root: Vec<u8>, bad_after: &str) -> anyhow::Result<()> {
        let engine = Arc::clone(&self.engine);
        let bad_after = format!("ENV DEMO_BAD_AFTER={bad_after}");
        let made = self.tasks.spawn(async move {
            let label = format!("LABEL {OF_IMAGE}={}", std::process::id());
            let common = [r#"ENTRYPOINT ["/backstop","demo-app"]"#, "EXPOSE 8080", &label];
            let good = [&common[..], &["ENV DEMO_VERSION=v1"]].concat();
            let bad = [&common[..], &["ENV DEMO_VERSION=v2", &bad_after]].concat();
            engine.import(root.clone(), (REPOSITORY, "v1"), &good).await?;
            engine.import(root, (REPOSITORY, "v2"), &bad).await
        });
        Ok(made.await??)
    }

    /// Deploys: the old container goes, one of `image` takes its name.
    pub(super) async fn deploy(&self, image: &'static str) -> anyhow::Result<()> {
        let (engine, port) = (Arc::clone(&self.engine), self.port);
        let deployed = self.tasks.spawn(async move {
            remove_containers(&engine).await?;
            let path = format!("/containers/create?name={NAME}");
            let made = engine.post(&path, Some(&specification(image, port))).await?;
            let id = made["Id"].as_str().unwrap_or(NAME);
            engine.call(Method::POST, &format!("/containers/{id}/start"), None, SLOW).await
        });
        deployed.await?.map(drop).with_context(|| format!("{image} could not be deployed"))
    }

    /// The `docker` command that does the same, on two lines.
    pub(super) fn command(&self, image: &str) -> String {
        format!(
            "docker run -d --name {NAME} -p 127.0.0.1:{}:{APP_PORT} \\\n    --restart unless-stopped {image}",
            self.port
        )
    }

    /// Takes everything away that a demo made, this one or one that did not end well.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        self.tasks.close();
        let quiet = tokio::time::timeout(UNDER_WAY, self.tasks.wait()).await;
        self.tasks.reopen();
        quiet.context("the engine still works on something that the demo asked for")?;
        remove_containers(&self.engine).await?;
        remove_images(&self.engine).await?;
        Ok(())
    }
}

/// What `docker run` would send.
fn specification(image: &str, port: u16) -> Value {
    let inside = format!("{APP_PORT}/tcp");
    json!({
        "Image": image,
        // A Backstop that guards this host is to leave the demo alone; the demo's own one watches it by its name.
        "Labels": { OF_CONTAINER: std::process::id().to_string(), "backstop.enable": "false" },
        "ExposedPorts": { &inside: {} },
        "HostConfig": {
            "PortBindings": { &inside: [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }] },
            "RestartPolicy": { "Name": "unless-stopped" },
        },
    })
}

async fn remove_containers(engine: &Engine) -> Result<(), RuntimeError> {
    for container in list(engine, "/containers/json?all=1&", OF_CONTAINER).await? {
        let path = format!("/containers/{}?force=1&v=1", container["Id"].as_str().unwrap_or_default());
        found(engine.call(Method::DELETE, &path, None, SLOW).await)?;
    }
    Ok(())
}

async fn remove_images(engine: &Engine) -> Result<(), RuntimeError> {
    for image in list(engine, "/images/json?", OF_IMAGE).await? {
        let mut tags = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // Images that somebody built on top of one of these inherit its label.
        let ours = |tag: &str| {
            let repository = tag.split(':').next().unwrap_or(tag);
            [REPOSITORY, "<none>"].contains(&repository) || KEPT.contains(&repository)
        };
        if tags.all(ours) {
            let path = format!("/images/{}?force=1", image["Id"].as_str().unwrap_or_default());
            found(engine.call(Method::DELETE, &path, None, SLOW).await)?;
        }
    }
    Ok(())
}

/// Everything that carries a label.
async fn list(engine: &Engine, path: &str, label: &str) -> Result<Vec<Value>, RuntimeError> {
    // {"label":["..."]}, ready for a URL.
    let filter = format!("filters=%7B%22label%22%3A%5B%22{label}%22%5D%7D");
    let listed = engine.json(&format!("{path}{filter}")).await?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// An answer, or none if there is no such thing.
fn found(answer: Result<Value, RuntimeError>) -> Result<Option<Value>, RuntimeError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process that made a container is a demo that still runs. A number that another program has by now is
/// not mistaken for one.
fn demo_runs(pid: &str) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pid != std::process::id().to_string() && command.split(|byte| *byte == 0).any(|word| word == b"demo")
}

fn taken(what: &str) -> anyhow::Error {
    Failure::new(Code::Failure, format!("{what}; nothing was touched"))
        .hint(format!(
            "if it can go: `docker rm -f {NAME}; docker rmi {GOOD} {BAD}`, then run the demo again"
        ))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_told_from_another_process_and_from_itself() {
        assert!(!demo_runs(&std::process::id().to_string()));
        assert!(!demo_runs("1"), "the first process is no demo");
        assert!(!demo_runs("none"));
    }

    #[test]
    fn the_specification_is_what_the_command_says() {
        let sent = specification(GOOD, 18080);
        assert_eq!(sent["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostPort"], "18080");
        assert_eq!(sent["Labels"]["backstop.enable"], "false", "no other Backstop is to touch it");
        assert_eq!(sent["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    }
}
