//! One-off containers, as `docker compose run` makes them: of a service's own specification, with another command.
//!
//! What would make it count as the service is left away: ports, labels (proxies and Compose go by them), names and aliases
//! in networks, restart policy, HEALTHCHECK. It stays until whoever asked for it has recorded how it ended, so that a crash
//! in between loses nothing: it is found again by its name, and what it printed and its exit code with it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::create::Creation;
use super::{ContainerRuntime, apply, enrol, replay, snapshot, verbs};
use crate::core::plan::StepOutput;
use crate::core::release::{ImageId, ReplicaId};
use crate::core::settings::RunImage;
use crate::runtime::engine::{Engine, permanent};
use crate::runtime::{ErrorClass, OnceEnded, OneOff, RuntimeError, Snapshot, read};

/// What all of their names have in them.
pub(super) const NAMED: &str = ".rbhook-";
/// Says whose it is.
const MARK: &str = "backstop.hook";
/// As for a replacement.
const CREATE: Duration = Duration::from_secs(60);
/// One question for its end is held open so long; then it is asked anew.
const WAIT: Duration = Duration::from_secs(300);
/// Pause before an engine that broke off is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// What is kept of its log.
const LINES: u32 = 2000;
const LOG: Duration = Duration::from_secs(10);
const OUTPUT_MAX: usize = 64 << 10;

/// One to be made and run.
pub(super) struct Making<'a> {
    pub(super) runtime: &'a ContainerRuntime,
    pub(super) plan: &'a crate::core::plan::Plan,
    pub(super) once: &'a OneOff,
    pub(super) done: &'a [Option<StepOutput>],
}

/// Removes one, with the volumes that only it had. It may be gone.
pub(super) async fn drop(engine: &Engine, name: &str) -> Result<(), RuntimeError> {
    let Some(found) = verbs::inspect(engine, name).await? else { return Ok(()) };
    if enrol::labels(&found["Config"]).contains_key(MARK) {
        let path = format!("/containers/{name}?force=1&v=1");
        match engine.call(Method::DELETE, &path, None, CREATE).await {
            Err(error) if !matches!(error.class, ErrorClass::NotFound | ErrorClass::Conflict) => {
                return Err(error);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

impl Making<'_> {
    fn engine(&self) -> &Engine {
        &self.runtime.engine
    }

    pub(super) async fn run(&self, begun: bool) -> Result<Option<OnceEnded>, RuntimeError> {
        let (engine, name) = (self.engine(), self.once.name.as_str());
        let found = verbs::inspect(engine, name).await?;
        if let Some(found) = &found
            && enrol::labels(&found["Config"]).get(MARK) != Some(&self.once.mark)
        {
            return Err(permanent(format!("the name {name} is taken: `docker rm -f {name}`")));
        }
        let state = found.map(|found| found["State"]["Status"].as_str().unwrap_or_default().to_owned());
        match state.as_deref() {
            None if begun => return Ok(None),
            // Created, and nothing of it ever ran: the crash came before its start.
            Some("created" | "initialized" | "configured") if begun => verbs::start(engine, name).await?,
            Some(_) if begun => {}
            None | Some(_) => {
                drop(engine, name).await?;
                self.create().await?;
                verbs::start(engine, name).await?;
            }
        }
        self.end().await.map(Some)
    }

    /// Waits for its end, and ends it when its time is over.
    async fn end(&self) -> Result<OnceEnded, RuntimeError> {
        let (engine, name) = (self.engine(), self.once.name.as_str());
        let path = format!("/containers/{name}/wait?condition=not-running");
        let waiting = async {
            loop {
                match engine.call(Method::POST, &path, None, WAIT).await {
                    Ok(_) => return Ok(()),
                    // It takes longer than one question, or the engine restarts.
                    Err(error) if error.class == ErrorClass::Transient => tokio::time::sleep(AGAIN).await,
                    Err(error) => return Err(error),
                }
            }
        };
        let in_time = match tokio::time::timeout(self.once.timeout, waiting).await {
            Ok(ended) => ended.map(|()| true)?,
            Err(_) => {
                verbs::kill(engine, name).await?;
                false
            }
        };
        let inspect = verbs::inspect(engine, name).await?;
        let inspect = inspect.ok_or_else(|| apply::removed(name))?;
        let log = engine.logs(name, LINES, LOG).await;
        let log = log.map_or_else(|error| format!("(no log: {error})"), |lines| lines.join("\n"));
        let begin = (log.len().saturating_sub(OUTPUT_MAX)..=log.len()).find(|at| log.is_char_boundary(*at));
        let error = inspect["State"]["Error"].as_str().filter(|error| !error.is_empty());
        let code = inspect["State"]["ExitCode"].as_i64().filter(|_| in_time);
        let output = log.get(begin.unwrap_or(0)..).unwrap_or_default();
        Ok(OnceEnded { code, output: error.map_or_else(|| output.to_owned(), |e| format!("{e}\n{output}")) })
    }

    async fn create(&self) -> Result<(), RuntimeError> {
        let engine = self.engine();
        let (snapshot, image) = self.source().await?;
        let name = self.once.name.as_str();
        let creation = Creation {
            snapshot: &snapshot,
            image: &image,
            name,
            temp_name: name,
            old: None,
            plan: self.plan,
        };
        let mut facts = creation.facts(engine, None).await?;
        facts.volumes.clear();
        let request = replay::request(&snapshot, &facts);
        let other = matches!(self.once.image, RunImage::Other(_));
        let body = body(&request.body, &snapshot, &image, self.once);
        let platform = request.platform.filter(|_| !other);
        let platform = platform.map(|p| format!("&platform={p}")).unwrap_or_default();
        let path = format!("/containers/create?name={name}{platform}");
        engine.call(Method::POST, &path, Some(&body), CREATE).await?;
        for (network, endpoint) in &request.connect {
            let body = json!({"Container": name, "EndpointConfig": anonymous(endpoint)});
            engine.post(&format!("/networks/{network}/connect"), Some(&body)).await?;
        }
        super::copied::put(engine, name, &snapshot.context).await
    }

    /// The specification that it is made of, and its image.
    async fn source(&self) -> Result<(Snapshot, ImageId), RuntimeError> {
        let good = || match &self.once.specification {
            Some(specification) => read::<Snapshot>(specification),
            None => Err(permanent("no specification of the good release is at hand".into())),
        };
        let to = apply::image_of(self.plan, self.done).unwrap_or(&self.plan.to.image).clone();
        let snapshot = match self.once.image {
            RunImage::Good => return Ok((good()?, to)),
            RunImage::Bad | RunImage::Other(_) => match self.bad().await? {
                Some(bad) => bad,
                // Nothing is left of it: its image with the target's specification is as near as it gets.
                None => good()?,
            },
        };
        let image = match &self.once.image {
            RunImage::Other(reference) => {
                verbs::image_id(self.engine(), reference).await?.ok_or_else(|| {
                    permanent(format!(
                        "the image {reference} is not on the engine: `docker pull {reference}`"
                    ))
                })?
            }
            RunImage::Bad | RunImage::Good => match &self.plan.from {
                Some(from) => from.image.clone(),
                None => return Err(permanent("nothing is known of a bad release".into())),
            },
        };
        Ok((snapshot, image))
    }

    /// The newest container of the bad release, as it is or was.
    async fn bad(&self) -> Result<Option<Snapshot>, RuntimeError> {
        for id in self.once.like.iter().rev().map(ReplicaId::as_str) {
            if let Some(inspect) = verbs::inspect(self.engine(), id).await? {
                let version = self.runtime.version().await?;
                return snapshot::of(self.engine(), inspect, &version).await.map(Some);
            }
        }
        let kept = self.done.iter().flatten().find_map(|output| match output {
            StepOutput::Old { specification, .. } => specification.as_ref(),
            _ => None,
        });
        kept.map(read).transpose()
    }
}

/// What is sent: the specification without what makes it the service.
fn body(specification: &Value, snapshot: &Snapshot, image: &ImageId, once: &OneOff) -> Value {
    let mut body = specification.as_object().cloned().unwrap_or_default();
    for key in [
        "Hostname",
        "MacAddress",
        "ExposedPorts",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "OpenStdin",
        "StdinOnce",
    ] {
        body.remove(key);
    }
    let mut environment = strings(&body, "Env");
    if matches!(once.image, RunImage::Other(_)) {
        for key in ["Entrypoint", "WorkingDir", "User", "Volumes", "StopSignal", "Shell"] {
            body.remove(key);
        }
        // What came with the one image is not the other's.
        let its: Vec<&Value> = snapshot.image["Config"]["Env"].as_array().into_iter().flatten().collect();
        environment.retain(|variable| !its.iter().any(|theirs| *theirs == variable));
    }
    environment.extend(once.environment.iter().map(|(name, value)| format!("{name}={value}")));
    body.insert("Env".into(), json!(environment));
    body.insert("Image".into(), image.as_str().into());
    body.insert("Cmd".into(), json!(once.command));
    body.insert("Labels".into(), json!({ MARK: once.mark }));
    body.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
    if let Some(host) = body.get_mut("HostConfig").and_then(Value::as_object_mut) {
        for key in ["PortBindings", "PublishAllPorts", "LogConfig", "ContainerIDFile"] {
            host.remove(key);
        }
        host.insert("RestartPolicy".into(), json!({"Name": "no"}));
        host.insert("AutoRemove".into(), false.into());
    }
    if let Some(networks) =
        body.get_mut("NetworkingConfig").and_then(|config| config["EndpointsConfig"].as_object_mut())
    {
        networks.values_mut().for_each(|endpoint| *endpoint = anonymous(endpoint));
    }
    Value::Object(body)
}

/// An endpoint without what only one container can have or is found by.
fn anonymous(endpoint: &Value) -> Value {
    let mut endpoint = endpoint.clone();
    if let Some(endpoint) = endpoint.as_object_mut() {
        for key in ["Aliases", "IPAMConfig", "MacAddress"] {
            endpoint.remove(key);
        }
    }
    endpoint
}

fn strings(body: &Map<String, Value>, key: &str) -> Vec<String> {
    let all = body.get(key).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(image: RunImage) -> OneOff {
        OneOff {
            name: "shop.rbhook-1-undo".into(),
            mark: "1/downgrade/undo".into(),
            image,
            command: vec!["alembic".into(), "downgrade".into(), "-1".into()],
            environment: vec![("BACKSTOP_TO".into(), "shop:v1".into())],
            like: Vec::new(),
            specification: None,
            timeout: Duration::from_secs(60),
        }
    }

    fn made(image: RunImage) -> Value {
        let inspect = json!({"Id": "abc"});
        let image_of = json!({"Config": {"Env": ["PATH=/opt/shop", "LANG=C"]}});
        let snapshot = Snapshot { name: "shop".into(), inspect, image: image_of, context: Value::Null };
        let specification = json!({
            "Image": "shop:v2", "Cmd": ["serve"], "Entrypoint": ["/entry"], "User": "1000", "WorkingDir": "/srv",
            "Env": ["PATH=/opt/shop", "LANG=C", "DATABASE_URL=postgres://db"], "Labels": {"traefik.enable": "true"},
            "ExposedPorts": {"80/tcp": {}}, "Hostname": "shop",
            "HostConfig": {"Binds": ["data:/data"], "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
                "RestartPolicy": {"Name": "always"}, "AutoRemove": true, "NetworkMode": "back"},
            "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["api"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}},
        });
        body(&specification, &snapshot, &ImageId::new("sha256:bad"), &once(image))
    }

    #[test]
    fn it_reaches_what_the_service_reaches_and_is_not_taken_for_it() {
        let made = made(RunImage::Bad);
        assert_eq!(made["Image"], "sha256:bad");
        assert_eq!(made["Cmd"], json!(["alembic", "downgrade", "-1"]));
        assert_eq!(made["Entrypoint"], json!(["/entry"]), "as `docker compose run` does");
        assert_eq!(made["Labels"], json!({"backstop.hook": "1/downgrade/undo"}));
        assert_eq!(made["HostConfig"]["Binds"], json!(["data:/data"]));
        assert_eq!(made["HostConfig"]["NetworkMode"], "back");
        assert_eq!(made["NetworkingConfig"]["EndpointsConfig"], json!({"back": {}}));
        let env = made["Env"].as_array().unwrap();
        assert!(
            env.contains(&"DATABASE_URL=postgres://db".into()) && env.contains(&"BACKSTOP_TO=shop:v1".into())
        );
        for gone in ["ExposedPorts", "Hostname"] {
            assert!(made.get(gone).is_none(), "{gone}");
        }
        assert!(made["HostConfig"].get("PortBindings").is_none());
        assert_eq!(made["HostConfig"]["RestartPolicy"]["Name"], "no");
        assert_eq!(made["HostConfig"]["AutoRemove"], false);
    }

    #[test]
    fn another_image_keeps_its_own_ways() {
        let made = made(RunImage::Other("postgres:16".into()));
        let env = made["Env"].as_array().unwrap();
        assert_eq!(env, &["DATABASE_URL=postgres://db".into(), Value::from("BACKSTOP_TO=shop:v1")]);
        for gone in ["Entrypoint", "User", "WorkingDir"] {
            assert!(made.get(gone).is_none(), "{gone}");
        }
    }
}
