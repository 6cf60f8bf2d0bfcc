//! What lives with a container: in its network, among its processes, in its shared memory, or by a link of the old kind.
//! All of it refers to the very container, by its id. Once that is replaced it cannot even be started any more, so it is
//! made anew, exactly as it was, tied to what took the place.
//!
//! It must never be stopped before what replaces it is there: a dependant that cannot be made anew is left as it is, and
//! that is said.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use super::create::Creation;
use super::{ContainerRuntime, INSPECTS, observe, plan as planning, replay, snapshot, stop, verbs};
use crate::core::observation::Observation;
use crate::core::plan::{Dependant, Part, Plan, Step, StepOutput};
use crate::core::release::{ImageId, ReplicaId};
use crate::runtime::engine::permanent;
use crate::runtime::{RuntimeError, Snapshot};

/// What a container gets to stop where nobody said: what the engine gives it.
const STOPS: Duration = Duration::from_secs(10);

/// What a container is tied to, and what must be known of it when that is replaced. None of it changes while it lives, but
/// for the restart policy, of which it only matters whether there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ties {
    /// The containers, by id, whose network, processes or memory it shares.
    pub(super) shares: Vec<String>,
    /// The names that it is linked to.
    pub(super) links: Vec<String>,
    /// The engine starts it by itself, some day.
    pub(super) restarts: bool,
    /// How long it may take to stop, if its deployer said.
    pub(super) stops: Option<Duration>,
}

/// Ties of containers, by their id.
pub(super) type AllTies = HashMap<String, Ties>;

impl Ties {
    pub(super) fn of(inspect: &Value) -> Self {
        let host = &inspect["HostConfig"];
        let mode = |key: &&str| host[*key].as_str()?.strip_prefix("container:").map(str::to_owned);
        let policy = host["RestartPolicy"]["Name"].as_str().unwrap_or_default();
        Self {
            shares: replay::MODES.iter().filter_map(mode).collect(),
            links: linked(inspect).map(|(target, _)| target.to_owned()).collect(),
            restarts: !matches!(policy, "" | "no"),
            stops: inspect["Config"]["StopTimeout"].as_u64().map(Duration::from_secs),
        }
    }
}

/// Targets of links of the old kind, and the rest of each.
fn linked(inspect: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = inspect["HostConfig"]["Links"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.map(|link| {
        let (target, rest) = link.split_once(':').unwrap_or((link, link));
        (target.trim_start_matches('/'), rest)
    })
}

/// The step that makes anew what lives with these containers; none if nothing does.
pub(super) fn step(replaced: Vec<(ReplicaId, String)>, tied: &[Tied]) -> Option<Step> {
    if tied.is_empty() {
        return None;
    }
    let more = tied.iter().map(|one| (ReplicaId::new(&one.id), one.name.clone()));
    Some(Step::RemakeDependants {
        replaced: replaced.into_iter().chain(more).collect(),
        dependants: tied
            .iter()
            .map(|one| Dependant {
                container: ReplicaId::new(&one.id),
                name: one.name.clone(),
                runs: one.runs,
            })
            .collect(),
        stops: tied
            .iter()
            .map(|one| one.stops.unwrap_or(STOPS))
            .fold(Duration::ZERO, Duration::saturating_add),
    })
}

/// A container that lives with another one, as a look found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tied {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) runs: bool,
    pub(super) stops: Option<Duration>,
    /// It is ours: Backstop itself, or the proxy that it talks through.
    pub(super) ours: bool,
    /// Its Compose project and service.
    pub(super) of: Option<(String, String)>,
}

fn of_plan(plan: &Plan) -> Option<(&BTreeMap<ReplicaId, String>, &[Dependant])> {
    plan.steps.iter().find_map(|step| match step {
        Step::RemakeDependants { replaced, dependants, .. } => Some((replaced, dependants.as_slice())),
        _ => None,
    })
}

/// Whether a plan takes care of what has this id.
pub(super) fn is_planned(plan: &Plan, id: &str) -> bool {
    of_plan(plan).is_some_and(|(_, all)| all.iter().any(|one| one.container.as_str() == id))
}

impl ContainerRuntime {
    /// What the listed containers are tied to. Each is asked once.
    pub(super) async fn ties(&self, listed: &Value) {
        let all: Vec<&str> =
            listed.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str()).collect();
        let there: HashSet<&str> = all.iter().copied().collect();
        let unknown: Vec<String> = {
            let mut known = self.known();
            known.ties.retain(|id, _| there.contains(id.as_str()));
            all.into_iter().filter(|id| !known.ties.contains_key(*id)).map(str::to_owned).collect()
        };
        let asked = futures_util::stream::iter(unknown)
            .map(|id| async move { verbs::inspect(&self.engine, &id).await.map(|found| (id, found)) })
            .buffered(INSPECTS);
        let answers: Vec<_> = asked.collect().await;
        for answer in answers {
            match answer {
                Ok((id, Some(inspect))) => drop(self.known().ties.insert(id, Ties::of(&inspect))),
                // Gone since it was listed.
                Ok((_, None)) => {}
                // One container that cannot be looked at, half removed perhaps, hides no other; it is asked again.
                Err(why) => tracing::debug!(%why, "what a container is tied to is not known"),
            }
        }
    }

    /// What lives with the replicas of a service, but for services of its project that Compose makes anew.
    pub(super) fn living_with(
        &self,
        replaced: &[(ReplicaId, String)],
        but: &[(String, String)],
    ) -> Vec<Tied> {
        let roots = replaced.iter().map(|(id, name)| (id.as_str(), name.as_str()));
        self.known().projects.living_with(roots, but)
    }

    /// The plan, with what lives with the containers that it replaces.
    pub(super) fn with_dependants(&self, mut plan: Plan, now: &Observation) -> Plan {
        let mut but = Vec::new();
        let mut replaced = Vec::new();
        for step in &plan.steps {
            match step {
                Step::CreateReplacement { old: Some(old), name, .. } => {
                    replaced.push((old.clone(), name.clone()))
                }
                Step::UpProject { project, sharing, .. } => {
                    replaced.extend(now.replicas.iter().map(|r| (r.id.clone(), r.name.clone())));
                    but.extend(sharing.iter().map(|service| (project.name.clone(), service.clone())));
                }
                _ => {}
            }
        }
        let tied = self.living_with(&replaced, &but);
        if let Some(step) = step(replaced, &tied) {
            plan.insert(plan.pivot, Part::Applied, step);
        }
        plan
    }

    /// How long the replicas of a service and what lives with them may take to stop, one after the other.
    pub(super) fn stops(&self, now: &Observation, grace: Duration) -> Duration {
        let replicas = now.replicas.iter().map(|r| (r.id.clone(), r.name.clone())).collect::<Vec<_>>();
        let with_them = self.living_with(&replicas, &[]).into_iter().map(|one| one.stops.unwrap_or(STOPS));
        let known = self.known();
        let own =
            replicas.iter().map(|(id, _)| known.ties.get(id.as_str()).and_then(|t| t.stops).unwrap_or(grace));
        own.chain(with_them).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Why a service cannot be rolled back because of who lives with it.
    pub(super) fn lives_with_us(&self, seen: &Observation) -> Option<String> {
        let replicas = seen.replicas.iter().map(|r| (r.id.clone(), r.name.clone())).collect::<Vec<_>>();
        let ours = self.living_with(&replicas, &[]).into_iter().find(|one| one.ours)?;
        Some(format!(
            "{} is Backstop itself or its way to the engine, and shares a namespace with it or links to it: replacing it would \
             cut Backstop off in the middle. Give {0} a network of its own",
            ours.name
        ))
    }

    pub(super) async fn remake_dependants(&self, plan: &Plan) -> Result<StepOutput, RuntimeError> {
        self.rejoin(plan, false).await.map(|notes| StepOutput::Told { notes })
    }

    /// Ties what lived with the containers of a plan to those that have their names now; going back, only what lived with
    /// those that are gone. Yields what was done, and what could not be.
    async fn rejoin(&self, plan: &Plan, back: bool) -> Result<Vec<String>, RuntimeError> {
        let Some((replaced, dependants)) = of_plan(plan) else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        for dependant in dependants {
            let one = Rejoining { runtime: self, plan, replaced, dependant, back };
            match one.rejoin().await {
                Ok(note) => notes.extend(note),
                Err(error) if error.class == crate::runtime::ErrorClass::Transient => return Err(error),
                Err(error) => notes.push(one.failed(&error).await),
            }
        }
        Ok(notes)
    }

    /// The same where the old containers run again: that is what was asked for, so it is only noted what stays cut off.
    pub(super) async fn rejoin_the_old(&self, plan: &Plan) {
        match self.rejoin(plan, true).await {
            Ok(notes) => notes.iter().for_each(|note| tracing::info!(service = %plan.service, "{note}")),
            Err(why) => tracing::warn!(service = %plan.service, %why, "what lives with it may be cut off"),
        }
    }
}

/// One dependant.
struct Rejoining<'a> {
    runtime: &'a ContainerRuntime,
    plan: &'a Plan,
    replaced: &'a BTreeMap<ReplicaId, String>,
    dependant: &'a Dependant,
    /// The old containers run again.
    back: bool,
}

impl Rejoining<'_> {
    async fn rejoin(&self) -> Result<Option<String>, RuntimeError> {
        let name = self.dependant.name.as_str();
        let (new, aside) = (self.named("rbnew"), self.named("rbold"));
        let engine = &self.runtime.engine;
        if let Some(found) = verbs::inspect(engine, name).await? {
            let Some(gone) = self.is_cut_off(&found).await? else {
                // Whatever a crash left of an attempt.
                verbs::remove(engine, &new).await?;
                return self.is_well(&found, &aside).await;
            };
            tracing::debug!(dependant = name, %gone, "it is tied to what was replaced");
            if found["State"]["Paused"] == true {
                return Err(permanent("it is paused".into()));
            }
            if found["Id"] != self.dependant.container.as_str() {
                return Err(permanent("somebody made it anew meanwhile, with its old ties".into()));
            }
            self.make(found).await?;
        } else if let Some(old) = verbs::inspect(engine, &aside).await? {
            self.make(old).await?;
        } else if verbs::inspect(engine, &new).await?.is_none() {
            // Somebody removed it.
            return Ok(None);
        }
        self.swap(&new, &aside).await?;
        Ok(Some(format!("{name} was made anew, tied to what runs now")))
    }

    /// For whoever has to see to it.
    async fn failed(&self, error: &RuntimeError) -> String {
        self.runtime.ours.unmark(self.dependant.container.as_str());
        let aside = self.named("rbold");
        let kept = verbs::inspect(&self.runtime.engine, &aside).await.is_ok_and(|found| found.is_some());
        let kept = if kept { format!(" (as it was it is kept, stopped, as {aside})") } else { String::new() };
        format!(
            "{} lived with what was replaced, and could not be made anew ({error}): until it is, it is cut off; \
             remove it and start it again{kept}",
            self.dependant.name
        )
    }

    fn named(&self, kind: &str) -> String {
        format!("{}.{kind}-{}", self.dependant.name, planning::transaction(&self.plan.id))
    }

    /// What it is tied to that was replaced, if it is.
    async fn is_cut_off(&self, found: &Value) -> Result<Option<String>, RuntimeError> {
        for id in self.ties(found).await? {
            if let Some(name) = self.replaced.get(&ReplicaId::new(&id)) {
                let engine = &self.runtime.engine;
                let gone = verbs::inspect(engine, if self.back { &id } else { name }).await?;
                if gone.is_none_or(|found| found["Id"] != id.as_str()) {
                    return Ok(Some(id));
                }
            }
        }
        Ok(None)
    }

    /// The ids of what it is tied to.
    async fn ties(&self, found: &Value) -> Result<Vec<String>, RuntimeError> {
        let ties = Ties::of(found);
        let mut ids = ties.shares;
        for target in ties.links {
            let target = verbs::inspect(&self.runtime.engine, &target).await?;
            ids.extend(target.and_then(|target| target["Id"].as_str().map(str::to_owned)));
        }
        Ok(ids)
    }

    /// It is tied to what runs: one that lost its network because that was stopped and started joins it by a restart.
    async fn is_well(&self, found: &Value, aside: &str) -> Result<Option<String>, RuntimeError> {
        let (engine, id) = (&self.runtime.engine, found["Id"].as_str().unwrap_or_default());
        let started = |of: &Value| observe::moment(&of["State"]["StartedAt"]);
        let mut since = None;
        for shared in Ties::of(found).shares {
            let target = verbs::inspect(engine, &shared).await?;
            since = since.max(target.as_ref().and_then(started));
        }
        let runs = found["State"]["Running"] == true;
        let mut note = None;
        if self.dependant.runs && !runs {
            verbs::start(engine, id).await?;
            note = Some(format!("{} was started again", self.dependant.name));
        } else if runs && found["State"]["Paused"] != true && started(found) < since {
            verbs::restart(engine, id, Ties::of(found).stops).await?;
            note = Some(format!("{} was restarted, to join what runs now", self.dependant.name));
        }
        if verbs::inspect(engine, aside).await?.is_some() {
            verbs::remove(engine, aside).await?;
        }
        Ok(note)
    }

    /// Creates what takes its place. It runs on meanwhile.
    async fn make(&self, old: Value) -> Result<(), RuntimeError> {
        let runtime = self.runtime;
        let id = old["Id"].as_str().unwrap_or_default().to_owned();
        let targets = self.targets(&old).await?;
        let image = ImageId::new(old["Image"].as_str().unwrap_or_default());
        let mut snapshot = snapshot::of(&runtime.engine, old, &runtime.version().await?).await?;
        self.retie(&mut snapshot, &targets);
        let creation = Creation {
            snapshot: &snapshot,
            image: &image,
            name: &self.dependant.name,
            temp_name: &self.named("rbnew"),
            old: Some(&id),
            plan: self.plan,
        };
        creation.create(runtime).await.map(drop)
    }

    /// Names of links, as they are now, and those that are to take their place.
    async fn targets(&self, old: &Value) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut all = BTreeMap::new();
        for target in Ties::of(old).links {
            let found = verbs::inspect(&self.runtime.engine, &target).await?;
            let id = found.as_ref().and_then(|found| found["Id"].as_str()).unwrap_or_default();
            if let Some(name) = self.replaced.get(&ReplicaId::new(id)) {
                all.insert(target, name.clone());
            }
        }
        Ok(all)
    }

    /// What it refers to is found by the names that were given up, or taken, meanwhile.
    fn retie(&self, snapshot: &mut Snapshot, targets: &BTreeMap<String, String>) {
        snapshot.name.clone_from(&self.dependant.name);
        for (id, name) in self.replaced {
            snapshot.context["containers"][id.as_str()] = name.as_str().into();
        }
        let links: Vec<String> = linked(&snapshot.inspect)
            .map(|(target, rest)| format!("/{}:{rest}", targets.get(target).map_or(target, String::as_str)))
            .collect();
        if !links.is_empty() {
            snapshot.inspect["HostConfig"]["Links"] = links.into();
        }
    }

    /// Puts what was created in its place.
    async fn swap(&self, new: &str, aside: &str) -> Result<(), RuntimeError> {
        let (runtime, old) = (self.runtime, &self.dependant.container);
        let engine = &runtime.engine;
        runtime.ours.mark(old.as_str());
        if let Some(found) = verbs::inspect(engine, old.as_str()).await? {
            let reacts = stop::reacts(engine, &found).await;
            let timeout = found["Config"]["StopTimeout"].as_u64();
            stop::stop(engine, old.as_str(), timeout, STOPS, reacts).await?;
            // The engine removes those by itself, and gives the name free.
            if found["HostConfig"]["AutoRemove"] != true {
                verbs::rename(engine, old.as_str(), aside).await?;
            }
        }
        let made = verbs::inspect(engine, new).await?;
        let made = made.as_ref().and_then(|made| made["Id"].as_str()).unwrap_or(new).to_owned();
        runtime.take_name(&ReplicaId::new(&made), &self.dependant.name).await?;
        if self.dependant.runs {
            verbs::start(engine, &made).await?;
        }
        verbs::remove(engine, old.as_str()).await?;
        runtime.ours.unmark(old.as_str());
        Ok(())
    }
}
