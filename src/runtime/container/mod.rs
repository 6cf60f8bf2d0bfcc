//! Plain containers on a Docker Engine: observed, recorded, and put back as they were.
//!
//! In reading order: who is watched ([`enrol`]), what a container is ([`fingerprint`], [`observe`]), noticing
//! deployments ([`watch`]), recording ([`snapshot`]), and going back ([`plan`], [`apply`], [`create`], [`replay`],
//! [`copied`], [`readiness`], [`stop`]).
//!
//! It must never act on anything that a plan does not name by its id, never remove a volume, and never take memory for
//! the engine's word: every answer here was asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::engine::{Engine, permanent};
use super::swarm::role::{Role, Standing};
use super::{
    Checks, Enrolment, OnceEnded, OneOff, Runtime, RuntimeError, Snapshot, Varied, compose, registry,
    set_environment,
};
use crate::clock::Clock;
use crate::core::availability::Availability;
use crate::core::io::{Input, RollbackRequest};
use crate::core::observation::{Look, Observation, Refusal, Replica};
use crate::core::plan::{ComposeProject, Pin, Plan, Step, StepOutput};
use crate::core::release::{Release, ReplicaId, RollbackId, ServiceName};
use crate::core::settings::{Dependency, Mode, ServiceSettings};
use crate::core::time::Timestamp;
use dependants::AllTies;
use enrol::{Labels, Ourselves};
use projects::{Listed, Projects};

mod apply;
mod by_compose;
mod changed;
mod copied;
mod create;
mod dependants;
pub(super) mod enrol;
mod exclusive;
pub(super) mod fingerprint;
mod observe;
mod one_off;
mod plan;
mod podman;
mod projects;
pub(super) mod protect;
mod readiness;
mod replay;
mod snapshot;
mod stop;
pub(super) mod verbs;
mod watch;

/// How often everything is looked at, whatever events say: events can be lost. A look at 50 containers takes the
/// engine about a tenth of a second.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Inspects at a time: more would only queue in the engine.
const INSPECTS: usize = 8;
/// A service whose containers are replaced while they are looked at is listed again so often: replacing all of them
/// takes seconds, and a listing milliseconds.
const AFRESH: u32 = 5;
/// Containers and services remembered between looks; a host with more of them is not one that we are made for.
const KNOWN_MAX: usize = 8192;

/// The runtime for plain containers.
#[derive(Debug)]
pub struct ContainerRuntime {
    engine: Arc<Engine>,
    enrolment: Arc<dyn Enrolment>,
    checks: Arc<dyn Checks>,
    /// What the engine is to a Swarm.
    standing: Arc<Standing>,
    ourselves: Ourselves,
    look_interval: Duration,
    clock: Clock,
    known: Mutex<Known>,
    ours: Ours,
    /// Held while a tag is moved.
    tagging: tokio::sync::Mutex<()>,
}

/// What an event needs to know of a container that may be gone by then.
#[derive(Debug, Default)]
struct Known {
    containers: HashMap<String, Seen>,
    settings: HashMap<ServiceName, Arc<ServiceSettings>>,
    projects: Arc<Projects>,
    /// What each listed container is tied to.
    ties: AllTies,
    /// Where the files of services are that Compose made, and that may be pinned.
    composed: BTreeMap<ServiceName, ComposeProject>,
    /// Rollbacks of which a replica did not come to serve beside the old one.
    unready: BTreeSet<RollbackId>,
    /// Whether `docker compose` can be run here, if somebody needs it: when that was found out, and why not.
    compose: Option<(Timestamp, Result<(), String>)>,
}

#[derive(Debug, Clone)]
struct Seen {
    service: ServiceName,
    stop_signal: Option<u32>,
    stop_timeout: Option<u64>,
    /// Which of a service's replicas Compose says that it is.
    number: Option<String>,
}

/// Containers that a plan of ours is stopping or starting: their ends are no news.
#[derive(Debug, Default)]
struct Ours(Mutex<HashSet<String>>);

/// The registry digests of images that a look met, by id.
type Digests = HashMap<String, Vec<String>>;

/// A container found by a look.
struct Found {
    replica: Replica,
    labels: Labels,
    inspect: Value,
}

impl ContainerRuntime {
    /// A runtime on `engine`, which need not answer yet. What is started beside what serves is asked by `checks`. `standing` is shared with whoever watches Swarm services on the
    /// same engine: their containers are left to it. `look_interval`: see [`LOOK_INTERVAL`].
    pub fn new(
        engine: Arc<Engine>,
        (enrolment, checks): (Arc<dyn Enrolment>, Arc<dyn Checks>),
        standing: Arc<Standing>,
        look_interval: Duration,
        clock: Clock,
    ) -> Self {
        let ourselves = Ourselves::find(engine.tcp_name().map(str::to_owned));
        Self {
            engine,
            enrolment,
            checks,
            standing,
            ourselves,
            look_interval,
            clock,
            known: Mutex::default(),
            ours: Ours::default(),
            tagging: tokio::sync::Mutex::default(),
        }
    }

    async fn version(&self) -> Result<Value, RuntimeError> {
        self.engine.json("/version").await
    }

    /// Looks at all services, or at one.
    async fn survey(&self, only: Option<&ServiceName>) -> Result<Look, RuntimeError> {
        let asked = self.clock.now();
        self.engine.find_out_where(self.ourselves.id.as_deref()).await?;
        let listed = self.engine.json("/containers/json?all=1").await?;
        let mut refused = Vec::new();
        let mut ids: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
        let mut projects = Projects::default();
        self.ties(&listed).await;
        for listed in listed.as_array().into_iter().flatten() {
            let enrolled = self.enrol(listed);
            let watched = enrolled.as_ref().and_then(|one| one.as_ref().ok());
            self.note(&mut projects, listed, watched);
            match enrolled {
                Some(Ok(service)) if only.is_none_or(|only| *only == service) => {
                    let id = listed["Id"].as_str().unwrap_or_default().to_owned();
                    ids.entry(service).or_default().push(id);
                }
                Some(Err(refusal)) if only.is_none_or(|only| *only == refusal.service) => {
                    refused.push(refusal)
                }
                Some(_) | None => {}
            }
        }
        self.known().projects = Arc::new(projects);
        let mut services = Vec::new();
        let mut digests = HashMap::new();
        for (service, ids) in ids {
            let mut found = self.inspect_all(&ids, &mut digests).await?;
            let (mut asked, mut listed) = (asked, ids.len());
            for _ in 0..AFRESH {
                let moved = found.iter().any(|f| observe::is_temporary(&f.replica.name));
                if found.len() == listed && !moved {
                    break;
                }
                asked = self.clock.now();
                let ids = self.list(&service).await?;
                listed = ids.len();
                found = self.inspect_all(&ids, &mut digests).await?;
            }
            match self.service(&service, asked, found) {
                Some(Ok(observation)) => services.push(self.with_hindrance(observation).await),
                Some(Err(refusal)) => refused.push(refusal),
                None => {}
            }
        }
        Ok(Look { asked, services, refused, ..Look::default() })
    }

    /// Takes a listed container in.
    fn note(&self, projects: &mut Projects, listed: &Value, watched: Option<&ServiceName>) {
        if observe::is_temporary(enrol::listed_name(listed)) {
            return;
        }
        let labels = enrol::labels(listed);
        let ties =
            listed["Id"].as_str().and_then(|id| self.known().ties.get(id).cloned()).unwrap_or_default();
        let ours = self.ourselves.is(listed, &labels);
        projects.note(&Listed { listed, labels: &labels, ties: &ties, ours }, watched);
    }

    /// The containers of one service that are listed now.
    async fn list(&self, service: &ServiceName) -> Result<Vec<String>, RuntimeError> {
        let listed = self.engine.json("/containers/json?all=1").await?;
        let all = listed.as_array().into_iter().flatten();
        let its = all.filter(|listed| self.enrol(listed).is_some_and(|one| one.is_ok_and(|s| s == *service)));
        Ok(its.filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect())
    }

    /// The service of a listed container; none if it is not watched.
    fn enrol(&self, listed: &Value) -> Option<Result<ServiceName, Refusal>> {
        let labels = enrol::labels(listed);
        let name = enrol::listed_name(listed);
        if self.ourselves.is(listed, &labels) || observe::is_temporary(name) {
            return None;
        }
        let refusal = |service: ServiceName, problem: &str| {
            Some(Err(Refusal { service, container: name.to_owned(), problems: vec![problem.to_owned()] }))
        };
        let service = match enrol::service(name, &labels) {
            Ok(service) => service,
            Err((service, problem)) if self.enrolment.enrolled(&service, &labels) => {
                return refusal(service, &problem);
            }
            Err(_) => return None,
        };
        if !self.enrolment.enrolled(&service, &labels) {
            return None;
        }
        match enrol::belongs_to(&labels) {
            Some(_) if self.is_of_a_watched_swarm(&labels) => None,
            Some(problem) => refusal(service, problem),
            None => Some(Ok(service)),
        }
    }

    /// Whether a container is left to whoever watches the services of its Swarm. While nobody knows what this engine is
    /// to a Swarm, nothing is said yet.
    fn is_of_a_watched_swarm(&self, labels: &Labels) -> bool {
        enrol::is_swarm_task(labels) && matches!(self.standing.role(), Role::Manager | Role::Unknown)
    }

    /// One service out of its containers; none if nothing is left that counts as a replica.
    fn service(
        &self,
        service: &ServiceName,
        asked: Timestamp,
        mut found: Vec<Found>,
    ) -> Option<Result<Observation, Refusal>> {
        let replicas = observe::generation(found.iter().map(|f| f.replica.clone()).collect());
        let newest = replicas.last()?;
        found.retain(|f| replicas.iter().any(|r| r.id == f.replica.id));
        let refuse = |container: &str, problems| {
            Some(Err(Refusal { service: service.clone(), container: container.to_owned(), problems }))
        };
        for f in &found {
            if let Some(problem) = enrol::foreground(&f.inspect["Config"], &f.labels) {
                return refuse(&f.replica.name, vec![problem.to_owned()]);
            }
        }
        let labels =
            found.iter().find(|f| f.replica.id == newest.id).map(|f| f.labels.clone()).unwrap_or_default();
        let settings = match self.enrolment.settings(service, &labels) {
            Ok(settings) => Arc::new(self.with_dependencies(settings, &labels)),
            Err(problems) => return refuse(&newest.name, problems),
        };
        self.remember(service, &settings, &found);
        Some(Ok(Observation { service: service.clone(), settings, asked, replicas }))
    }

    /// What Compose says that it depends on counts as if it had been configured, where that is watched.
    fn with_dependencies(&self, mut settings: ServiceSettings, labels: &Labels) -> ServiceSettings {
        for (name, service) in self.known().projects.dependencies(labels) {
            settings.dependencies.entry(name).or_insert(Dependency::Service(service));
        }
        settings
    }

    async fn inspect_all(&self, ids: &[String], digests: &mut Digests) -> Result<Vec<Found>, RuntimeError> {
        let answers: Vec<_> = futures_util::stream::iter(ids.iter().cloned())
            .map(|id| async move { verbs::inspect(&self.engine, &id).await })
            .buffered(INSPECTS)
            .collect()
            .await;
        let mut found = Vec::new();
        for answer in answers {
            // Gone since it was listed.
            let Some(inspect) = answer? else { continue };
            let image = inspect["Image"].as_str().unwrap_or_default().to_owned();
            if !digests.contains_key(&image) {
                let of = self.digests(&image).await?;
                digests.insert(image.clone(), of);
            }
            let mut replica = observe::replica(&inspect, digests.get(&image).cloned().unwrap_or_default());
            // Its address means something else here, or nothing.
            replica.address = replica.address.filter(|_| !self.engine.is_remote());
            found.push(Found { replica, labels: enrol::labels(&inspect["Config"]), inspect });
        }
        Ok(found)
    }

    async fn digests(&self, image: &str) -> Result<Vec<String>, RuntimeError> {
        let image =
            verbs::look_up(&self.engine, &format!("/images/{image}/json")).await?.unwrap_or(Value::Null);
        let all = image["RepoDigests"].as_array().into_iter().flatten();
        Ok(all.filter_map(Value::as_str).filter(|d| !d.starts_with("<none>")).map(str::to_owned).collect())
    }

    fn remember(&self, service: &ServiceName, settings: &Arc<ServiceSettings>, found: &[Found]) {
        let mut known = self.known();
        if known.containers.len() > KNOWN_MAX || known.settings.len() > KNOWN_MAX {
            let (projects, compose) = (Arc::clone(&known.projects), known.compose.clone());
            let ties = std::mem::take(&mut known.ties);
            *known = Known { projects, compose, ties, ..Known::default() };
        }
        known.settings.insert(service.clone(), Arc::clone(settings));
        let labels = found.last().map(|f| &f.inspect["Config"]["Labels"]);
        let may = settings.pin && settings.mode == Mode::Act && !self.engine.is_remote();
        match labels.and_then(compose::project_of).filter(|_| may) {
            Some(project) => _ = known.composed.insert(service.clone(), project),
            None => _ = known.composed.remove(service),
        }
        for f in found {
            let config = &f.inspect["Config"];
            let seen = Seen {
                service: service.clone(),
                stop_signal: stop::signal(config["StopSignal"].as_str()),
                stop_timeout: config["StopTimeout"].as_u64(),
                number: f.labels.get(plan::NUMBER).cloned(),
            };
            known.containers.insert(f.replica.id.as_str().to_owned(), seen);
        }
    }

    /// What Compose calls the replicas of a service.
    fn numbers(&self, now: &Observation) -> BTreeMap<ReplicaId, String> {
        let known = self.known();
        let number = |id: &ReplicaId| known.containers.get(id.as_str())?.number.clone();
        now.replicas.iter().filter_map(|r| Some((r.id.clone(), number(&r.id)?))).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing that panics is done under this lock; what it holds can be asked for again anyway.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ours {
    fn mark(&self, container: &str) {
        self.all().insert(container.to_owned());
    }

    fn unmark(&self, container: &str) {
        self.all().remove(container);
    }

    fn has(&self, container: &str) -> bool {
        self.all().contains(container)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Runtime for ContainerRuntime {
    async fn watch(&self, inputs: mpsc::Sender<Input>) {
        watch::watch(self, &inputs).await;
    }

    async fn look(&self) -> Result<Look, RuntimeError> {
        self.survey(None).await
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        let mut look = self.survey(Some(service)).await?;
        let asked = look.asked;
        if let Some(observation) = look.services.pop() {
            return Ok(observation);
        }
        if let Some(refusal) = look.refused.first() {
            return Err(permanent(format!("{service} is refused: {}", refusal.problems.join("; "))));
        }
        // Nothing is left of it: what its labels said is only remembered.
        let remembered = self.known().settings.get(service).cloned();
        let settings = match remembered {
            Some(settings) => settings,
            None => Arc::new(
                self.enrolment
                    .settings(service, &Labels::new())
                    .map_err(|p| permanent(format!("{service} is refused: {}", p.join("; "))))?,
            ),
        };
        Ok(Observation { service: service.clone(), settings, asked, replicas: Vec::new() })
    }

    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        let version = self.version().await?;
        let mut all = Vec::new();
        for replica in &now.replicas {
            all.push(snapshot::take(&self.engine, replica, &version).await?);
        }
        Ok(all)
    }

    async fn protect(&self, _: &ServiceName, release: &Release, generation: u32) -> Result<(), RuntimeError> {
        protect::protect(&self.engine, release, generation).await
    }

    async fn unprotect(&self, _: &ServiceName, release: &Release) -> Result<(), RuntimeError> {
        protect::unprotect(&self.engine, release).await
    }

    async fn availability(&self, _: &ServiceName, release: &Release, fetch: bool) -> Availability {
        registry::of_container(&self.engine, release, fetch).await
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        for replica in self.observe(service).await?.replicas {
            let stops = self.known().ties.get(replica.id.as_str()).and_then(|ties| ties.stops);
            verbs::restart(&self.engine, replica.id.as_str(), stops).await?;
        }
        Ok(())
    }

    async fn scale(&self, service: &ServiceName, replicas: u32) -> Result<String, RuntimeError> {
        self.scale_by_compose(service, replicas).await
    }

    async fn vary(&self, now: &Observation, set: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        let mut snapshots = self.snapshot(now).await?;
        let project = by_compose::project(&snapshots);
        if let Some(sharing) = project.and_then(|(project, _)| self.sharing(now, &project).into_iter().next())
        {
            return Err(permanent(format!(
                "{sharing} shares its network, and would lose it if {} were made anew without Compose",
                now.service
            )));
        }
        for snapshot in &mut snapshots {
            set_environment(&mut snapshot.inspect["Config"]["Env"], set);
        }
        let digests = now.replicas.last().map(|r| r.release.digests.clone()).unwrap_or_default();
        let release = snapshots.last().map(|last| fingerprint::release(&last.inspect, digests));
        Ok(Varied { snapshots, release })
    }

    async fn keep_set(
        &self,
        service: &ServiceName,
        set: &BTreeMap<String, String>,
    ) -> Result<Option<String>, RuntimeError> {
        self.set_in_project(service, set).await
    }

    async fn unpin(&self, _: &ServiceName, pin: &Pin) -> Result<String, RuntimeError> {
        let pin = pin.clone();
        let done = tokio::task::spawn_blocking(move || compose::unpin(&pin)).await;
        done.map_err(|e| permanent(e.to_string()))?.map_err(permanent)
    }

    fn is_mine(&self, plan: &Plan) -> bool {
        !plan.is_of_swarm()
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        for good in to {
            plan::fits(good, request)?;
        }
        let restarted = self.restarted(to);
        if let Some(sharing) = self.by_compose(now, to)? {
            let stops = self.stops(now, request.stop_grace);
            let plan = by_compose::plan(now, to, request, by_compose::Around { sharing, restarted, stops })?;
            return Ok(self.with_dependants(plan, now));
        }
        let recorded = to;
        let to = &plan::as_many(now, recorded, &self.numbers(now));
        if !self.engine.is_remote() || !now.settings.pin {
            let mut plan = plan::plan(now, to, request, restarted)?;
            plan.notes.extend(plan::fewer(recorded, to));
            return Ok(self.with_dependants(plan, now));
        }
        // The project's files are on the engine's machine; what has their names here is somebody else's.
        let settings = Arc::new(ServiceSettings { pin: false, ..(*now.settings).clone() });
        let mut plan = plan::plan(&Observation { settings, ..now.clone() }, to, request, restarted)?;
        plan.notes.extend(plan::fewer(recorded, to));
        if to.first().is_some_and(|good| compose::project_of(&good.inspect["Config"]["Labels"]).is_some()) {
            plan.notes.push(
                "its Compose project is on another machine, so nothing is changed in the project's files: the next \
                 `docker compose up` there brings the bad release back unless its tag is changed by hand"
                    .to_owned(),
            );
        }
        Ok(self.with_dependants(plan, now))
    }

    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError> {
        self.carry_out(plan, step, done).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        self.take_back(plan, step, output, done).await
    }

    async fn run_once(
        &self,
        plan: &Plan,
        once: &OneOff,
        done: &[Option<StepOutput>],
        begun: bool,
    ) -> Result<Option<OnceEnded>, RuntimeError> {
        one_off::Making { runtime: self, plan, once, done }.run(begun).await
    }

    async fn drop_once(&self, _: &Plan, name: &str) -> Result<(), RuntimeError> {
        one_off::drop(&self.engine, name).await
    }
}
