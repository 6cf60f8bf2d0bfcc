//! Creating a replacement: what must be there is checked first, because the engine checks little of it before the
//! start, and a missing named volume it would silently replace by an empty one. Nothing that runs is touched.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::replay::{self, Carried, Facts};
use super::{ContainerRuntime, copied, dependants, enrol, fingerprint, plan, verbs};
use crate::core::plan::{Plan, StepOutput};
use crate::core::release::{ImageId, ReplicaId};
use crate::runtime::engine::{Engine, permanent};
use crate::runtime::{ErrorClass, RuntimeError, Snapshot};

/// Creating copies nothing, but waits its turn on a busy engine.
const CREATE: Duration = Duration::from_secs(60);
/// Where a tag pointed is noted as a tag of this repository, on the engine itself, while it is moved.
const MOVED: &str = "backstop/moved";
/// A report of differences is for a person; more of them say no more.
const DIFFERENCES_SHOWN: usize = 8;

/// One container to create.
#[derive(Debug)]
pub(super) struct Creation<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) image: &'a ImageId,
    /// The name it will have.
    pub(super) name: &'a str,
    /// The name it is created under.
    pub(super) temp_name: &'a str,
    /// The container it replaces.
    pub(super) old: Option<&'a str>,
    pub(super) plan: &'a Plan,
}

impl Creation<'_> {
    /// Creates it, or finds it: an earlier attempt may have come as far.
    pub(super) async fn create(&self, runtime: &ContainerRuntime) -> Result<StepOutput, RuntimeError> {
        let engine = &runtime.engine;
        settle_tag(runtime, self.plan, self.snapshot, self.image).await?;
        let old = match self.old {
            Some(old) => verbs::inspect(engine, old).await?,
            None => None,
        };
        let facts = self.facts(engine, old.as_ref()).await?;
        let request = replay::request(self.snapshot, &facts);
        if let Some(found) = verbs::inspect(engine, self.temp_name).await? {
            if self.differences(&found).is_empty() && self.connected(&found, &request) {
                copied::put(engine, self.temp_name, &self.snapshot.context).await?;
                return created(&found, request.notes);
            }
            // Somebody else's, or half of ours: only what was never started may be thrown away.
            if found["State"]["Status"] != "created" {
                return Err(permanent(format!("the name {} is taken: `docker rm -f {0}`", self.temp_name)));
            }
            verbs::remove(engine, self.temp_name).await?;
        }
        self.preflight(engine, old.as_ref()).await?;
        let mut notes = request.notes.clone();
        let id = self.send(runtime, &request, &mut notes).await?;
        let finished = self.finish(engine, &id, &request).await;
        match finished {
            Ok(found) => created(&found, notes),
            Err(error) => {
                // An unfaithful replacement must not lie about; if this fails too, undoing finds it by its name.
                let _ = verbs::remove(engine, &id).await;
                Err(error)
            }
        }
    }

    /// Connects what create could not, and compares the result with the record.
    async fn finish(
        &self,
        engine: &Engine,
        id: &str,
        request: &replay::Request,
    ) -> Result<Value, RuntimeError> {
        for (network, endpoint) in &request.connect {
            let body = serde_json::json!({"Container": id, "EndpointConfig": endpoint});
            engine.post(&format!("/networks/{network}/connect"), Some(&body)).await?;
        }
        if let Some(network) = &request.disconnect {
            let body = serde_json::json!({"Container": id, "Force": true});
            engine.post(&format!("/networks/{network}/disconnect"), Some(&body)).await?;
        }
        copied::put(engine, id, &self.snapshot.context).await?;
        let found =
            verbs::inspect(engine, id).await?.ok_or_else(|| permanent(format!("{id} vanished at once")))?;
        let differences = self.differences(&found);
        if differences.is_empty() {
            return Ok(found);
        }
        let shown: Vec<&str> = differences.iter().take(DIFFERENCES_SHOWN).map(String::as_str).collect();
        Err(permanent(format!(
            "the replacement of {} would not be what was recorded; it differs in {}",
            self.name,
            shown.join(", ")
        )))
    }

    fn differences(&self, found: &Value) -> Vec<String> {
        let mut all = fingerprint::differences(&self.snapshot.inspect, found);
        if found["Image"] != self.image.as_str() {
            all.push("Image".into());
        }
        all
    }

    fn connected(&self, found: &Value, request: &replay::Request) -> bool {
        let has = |network: &str| found["NetworkSettings"]["Networks"].get(network).is_some();
        request.connect.iter().all(|(network, _)| has(network))
            && !request.disconnect.as_deref().is_some_and(has)
    }

    /// Asks for what the replay depends on.
    pub(super) async fn facts(&self, engine: &Engine, old: Option<&Value>) -> Result<Facts, RuntimeError> {
        let inspect = &self.snapshot.inspect;
        let (minor, arch, podman) = (engine.minor().await?, engine.arch().await?, engine.is_podman().await?);
        let mut facts = Facts { minor, arch, podman, ..Facts::default() };
        if inspect["HostConfig"]["NetworkMode"] == "host" {
            facts.host_name = engine.json("/info").await?["Name"].as_str().unwrap_or_default().to_owned();
        }
        for name in replay::references(self.snapshot).into_values() {
            let found = verbs::inspect(engine, &name).await?;
            if let Some(id) = found.as_ref().and_then(|f| f["Id"].as_str()) {
                facts.containers.insert(name, id.to_owned());
            }
        }
        let mode = inspect["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        if fingerprint::is_id(mode) && verbs::look_up(engine, &format!("/networks/{mode}")).await?.is_some() {
            facts.networks.push(mode.to_owned());
        }
        facts.volumes = carried(engine, self.snapshot, old).await?;
        Ok(facts)
    }

    /// Everything that would only be found out when it is too late.
    async fn preflight(&self, engine: &Engine, old: Option<&Value>) -> Result<(), RuntimeError> {
        let needs = replay::needs(self.snapshot);
        let mut missing = Vec::new();
        for name in &needs.networks {
            match verbs::look_up(engine, &format!("/networks/{name}")).await? {
                None => missing.push(format!("the network {name} is gone: `docker network create {name}`")),
                Some(network) => missing.extend(self.taken(&network, name, &needs.addresses, old)),
            }
        }
        for name in &needs.volumes {
            if verbs::look_up(engine, &format!("/volumes/{name}")).await?.is_none() {
                missing.push(format!(
                    "the volume {name} is gone, and an empty one in its place would hide that"
                ));
            }
        }
        for name in &needs.containers {
            if verbs::inspect(engine, name).await?.is_none() {
                missing.push(format!("the container {name}, which it shares something with, is gone"));
            }
        }
        if let Some(holder) = verbs::inspect(engine, self.name).await? {
            let id = holder["Id"].as_str().unwrap_or_default();
            if Some(id) != self.old && self.name != self.temp_name && !self.is_set_aside(id) {
                missing.push(format!("the name {} belongs to another container ({id})", self.name));
            }
        }
        missing.extend(self.dependents(engine, old).await?);
        if missing.is_empty() {
            return Ok(());
        }
        Err(permanent(format!("{} cannot be put back as it was: {}", self.name, missing.join("; "))))
    }

    /// Whether another step of the plan takes the name from this container.
    fn is_set_aside(&self, id: &str) -> bool {
        use crate::core::plan::Step;
        self.plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::SetAsideOld { container, .. } if container.as_str() == id))
    }

    fn taken(
        &self,
        network: &Value,
        name: &str,
        wanted: &[(String, String)],
        old: Option<&Value>,
    ) -> Vec<String> {
        let old = old.and_then(|o| o["Id"].as_str());
        let attached = network["Containers"].as_object().into_iter().flatten();
        let others = attached.filter(|(id, _)| Some(id.as_str()) != old && !self.is_set_aside(id));
        let mut found = Vec::new();
        for (_, other) in others {
            for (_, address) in wanted.iter().filter(|(network, _)| network == name) {
                let has = |key: &str| other[key].as_str().and_then(|a| a.split('/').next()) == Some(address);
                if has("IPv4Address") || has("IPv6Address") {
                    found.push(format!("its address {address} in {name} is taken by {}", other["Name"]));
                }
            }
        }
        found
    }

    /// Containers that live in the old one's network and of which the plan does not know: replacing it cuts them off.
    async fn dependents(&self, engine: &Engine, old: Option<&Value>) -> Result<Vec<String>, RuntimeError> {
        let Some(id) = old.and_then(|o| o["Id"].as_str()) else { return Ok(Vec::new()) };
        let all = engine.json("/containers/json?all=1").await?;
        let mode = format!("container:{id}");
        let mut found = Vec::new();
        for listed in all.as_array().into_iter().flatten() {
            let planned = dependants::is_planned(self.plan, listed["Id"].as_str().unwrap_or_default());
            if listed["HostConfig"]["NetworkMode"] == mode.as_str()
                && listed["State"] == "running"
                && !planned
            {
                found.push(format!(
                    "{} has come to share its network since the rollback was planned",
                    enrol::listed_name(listed)
                ));
            }
        }
        Ok(found)
    }

    /// Creates it by its reference, with the tag pointed at the good image for that moment: created by id, it would
    /// show a hexadecimal id for ever, and tools that update by tag would leave it alone.
    async fn send(
        &self,
        runtime: &ContainerRuntime,
        request: &replay::Request,
        notes: &mut Vec<String>,
    ) -> Result<String, RuntimeError> {
        let engine = &runtime.engine;
        let reference = self.snapshot.inspect["Config"]["Image"].as_str().unwrap_or_default();
        // Two replacements at a time would move one tag under each other's feet.
        let _moving = runtime.tagging.lock().await;
        let now = if reference.is_empty() { None } else { verbs::image_id(engine, reference).await? };
        let mut body = request.body.clone();
        let moved = now.as_ref() != Some(self.image) && verbs::is_tag(reference);
        if moved {
            self.note_tag(engine, reference, now.as_ref()).await?;
            verbs::tag(engine, self.image.as_str(), reference).await?;
        } else if now.as_ref() != Some(self.image) {
            body["Image"] = self.image.as_str().into();
            notes.push(format!(
                "it shows the image's id, because {reference} does not lead to the image any more"
            ));
        }
        let platform = request.platform.as_ref().map(|p| format!("&platform={p}")).unwrap_or_default();
        let path = format!("/containers/create?name={}{platform}", self.temp_name);
        let answer = engine.call(Method::POST, &path, Some(&body), CREATE).await;
        if moved {
            settle(engine, self.plan, reference, self.image).await?;
        }
        let answer = answer
            .map_err(|e| RuntimeError { message: format!("creating {}: {}", self.name, e.message), ..e })?;
        answer["Id"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| permanent("create answered without an id".into()))
    }

    /// Notes on the engine where the tag points, so that a crash between the two moves can be put right.
    async fn note_tag(
        &self,
        engine: &Engine,
        reference: &str,
        now: Option<&ImageId>,
    ) -> Result<(), RuntimeError> {
        // A tag that points nowhere is noted as pointing where it is about to point.
        let at = now.unwrap_or(self.image);
        verbs::tag(engine, at.as_str(), &note(self.plan, reference)).await
    }
}

/// Puts back the tag that a crash left moved.
pub(super) async fn settle_tag(
    runtime: &ContainerRuntime,
    plan: &Plan,
    snapshot: &Snapshot,
    image: &ImageId,
) -> Result<(), RuntimeError> {
    let reference = snapshot.inspect["Config"]["Image"].as_str().unwrap_or_default();
    if !verbs::is_tag(reference) {
        return Ok(());
    }
    let _moving = runtime.tagging.lock().await;
    settle(&runtime.engine, plan, reference, image).await
}

async fn settle(engine: &Engine, plan: &Plan, reference: &str, image: &ImageId) -> Result<(), RuntimeError> {
    let note = note(plan, reference);
    let Some(was) = verbs::image_id(engine, &note).await? else { return Ok(()) };
    let shows = verbs::image_id(engine, reference).await?;
    match settling(shows.as_ref(), &was, image) {
        Settling::LeaveIt => {}
        Settling::Remove => verbs::untag(engine, reference).await?,
        Settling::PointAt(was) => verbs::tag(engine, was.as_str(), reference).await?,
    }
    verbs::untag(engine, &note).await
}

/// The tag that notes where another one pointed: one for each rollback and reference.
fn note(plan: &Plan, reference: &str) -> String {
    format!("{MOVED}:{}-{}", plan::transaction(&plan.id), fingerprint::short_hash(reference))
}

fn created(found: &Value, notes: Vec<String>) -> Result<StepOutput, RuntimeError> {
    let id =
        found["Id"].as_str().ok_or_else(|| permanent("the engine shows a container without an id".into()))?;
    Ok(StepOutput::Created { container: ReplicaId::new(id), notes })
}

/// For each anonymous volume of the record: the anonymous one that the current container has there, else the recorded one,
/// unless that is another replica's.
async fn carried(
    engine: &Engine,
    recorded: &Snapshot,
    old: Option<&Value>,
) -> Result<Vec<Carried>, RuntimeError> {
    let current: Vec<Carried> = old.into_iter().flat_map(replay::volume_mounts).collect();
    let is_copy = !recorded.context[plan::ANOTHER_OF].is_null();
    let mut all = Vec::new();
    for wanted in replay::anonymous(&recorded.inspect) {
        let name = successor(&wanted, &current).to_owned();
        if is_copy && name == wanted.name {
            continue;
        }
        match verbs::look_up(engine, &format!("/volumes/{name}")).await {
            Ok(Some(_)) => all.push(Carried { name, ..wanted }),
            Ok(None) => {}
            Err(error) if error.class == ErrorClass::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The name of the volume that takes an anonymous one's place. A named one at the same place came with the release that is
/// rolled back: the good one never had it.
fn successor<'a>(wanted: &'a Carried, current: &'a [Carried]) -> &'a str {
    let there = current.iter().find(|v| v.destination == wanted.destination && fingerprint::is_id(&v.name));
    &there.unwrap_or(wanted).name
}

/// What is done about a tag that was moved for a moment.
#[derive(Debug, PartialEq, Eq)]
enum Settling<'a> {
    /// It does not show what we pointed it at: somebody moved it since, or we never did.
    LeaveIt,
    /// It was not there before.
    Remove,
    /// It showed this.
    PointAt(&'a ImageId),
}

/// `shows` is what the tag points at now, `was` what it did before, `image` what we pointed it at.
fn settling<'a>(shows: Option<&ImageId>, was: &'a ImageId, image: &ImageId) -> Settling<'a> {
    if shows != Some(image) {
        Settling::LeaveIt
    } else if was == image {
        Settling::Remove
    } else {
        Settling::PointAt(was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_anonymous_volume_takes_the_place_of_one() {
        let volume = |destination: &str, name: &str| Carried {
            destination: destination.into(),
            name: name.into(),
            writable: true,
        };
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let wanted = volume("/data", &old);
        assert_eq!(successor(&wanted, &[volume("/else", &new), volume("/data", &new)]), new);
        assert_eq!(successor(&wanted, &[volume("/data", "shopdata")]), old, "that came with the bad release");
        assert_eq!(successor(&wanted, &[]), old);
    }

    #[test]
    fn a_tag_that_somebody_moved_meanwhile_stays_where_it_is() {
        let [good, was, newer] = ["sha256:good", "sha256:was", "sha256:newer"].map(ImageId::new);
        assert_eq!(settling(Some(&good), &was, &good), Settling::PointAt(&was));
        assert_eq!(settling(Some(&good), &good, &good), Settling::Remove);
        assert_eq!(settling(Some(&newer), &was, &good), Settling::LeaveIt);
        assert_eq!(settling(Some(&newer), &good, &good), Settling::LeaveIt);
        assert_eq!(
            settling(Some(&was), &was, &good),
            Settling::LeaveIt,
            "the crash came before it was moved"
        );
        assert_eq!(settling(None, &was, &good), Settling::LeaveIt, "somebody took it away");
    }
}
