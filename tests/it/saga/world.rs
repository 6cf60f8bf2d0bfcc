//! A tiny world of containers that can fail, hang on to an effect, or take the whole process down at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use backstop::core::availability::Availability;
use backstop::core::observation::{Look, Observation, Phase, Replica};
use backstop::core::plan::{ComposeProject, Dependant, Pin, Plan, Specification, Step, StepOutput};
use backstop::core::release::{ImageId, Release, ReleaseId, ReplicaId, RollbackId, ServiceName};
use backstop::core::settings::{Hook, Migrations, Order, ServiceSettings};
use backstop::core::{Input, RollbackRequest, Timestamp};
use backstop::rollback::hooks::{Failed, HookCall, HookRunner, Ran};
use backstop::rollback::{JournalEvent, SagaStore};
use backstop::runtime::{ErrorClass, Runtime, RuntimeError, Snapshot, Varied};

pub(crate) fn release(name: &str) -> Release {
    Release {
        id: ReleaseId::new(name),
        image: ImageId::new(format!("sha256:{name}")),
        reference: format!("shop:{name}"),
        digests: Vec::new(),
        fingerprint: name.into(),
        version: None,
    }
}

fn snapshot(name: String) -> Snapshot {
    Snapshot { inspect: json!({"Name": name}), image: Value::Null, context: Value::Null, name }
}

pub(crate) fn request(from: Option<&str>) -> RollbackRequest {
    RollbackRequest {
        id: RollbackId::new("rb1"),
        service: ServiceName::new("shop"),
        from: from.map(ReleaseId::new),
        to: release("good"),
        stop_grace: Duration::from_secs(3),
        decided: None,
        vanished: from.is_none(),
        why: String::new(),
        downgrade: None,
        mitigation: false,
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) running: bool,
    /// It has its restart policy.
    pub(crate) armed: bool,
    /// Only one running container can have it.
    pub(crate) port: Option<String>,
}

/// What runs when the rollback is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) replicas: usize,
    /// They share nothing that only one of two can have: the replacement runs before the old one stops.
    pub(crate) beside: bool,
}

impl Setup {
    pub(crate) const fn of(replicas: usize) -> Self {
        Self { replicas, beside: false }
    }
}

impl From<usize> for Setup {
    fn from(replicas: usize) -> Self {
        Self::of(replicas)
    }
}

/// The process dies here: nothing after this happens.
#[derive(Debug, Default)]
pub(crate) struct Crash(Notify);

impl Crash {
    async fn now<T>(&self) -> T {
        self.0.notify_one();
        pending().await
    }

    /// Runs a piece of the program until it ends or the process dies.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.0.notified() => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Apply(usize),
    Undo(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It fails; with or without having taken effect.
    Fail { class: ErrorClass, effect: bool, times: u32 },
    /// Somebody removes all of whose name is this (all of them, if it is empty), and the step finds that out.
    Remove { whose: &'static str },
    /// The process dies before or after the effect.
    Crash { effect: bool },
}

#[derive(Debug, Default)]
struct World {
    containers: Vec<Container>,
    faults: BTreeMap<Op, Fault>,
    created: u32,
    observed: u32,
    /// So many looks fail.
    deaf: u32,
    calls: Vec<Op>,
    /// The stop timeout that a deployer set: each stop takes all of it.
    stop_timeout: Option<u64>,
    beside: bool,
    /// A project's files say the good release.
    pinned: bool,
    /// Hooks that took effect, in their order, and how many containers of each release ran then.
    ran: Vec<Effect>,
}

/// A hook took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) hook: String,
    pub(crate) bad: usize,
    pub(crate) good: usize,
}

/// Who replaces the replicas, under ids of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Orchestrator {
    Swarm,
    Compose,
}

#[derive(Debug, Default)]
pub(crate) struct FakeRuntime {
    world: Mutex<World>,
    pub(crate) crash: Arc<Crash>,
    /// Every step and every undo is carried out twice.
    pub(crate) twice: bool,
    /// Its services are an orchestrator's.
    pub(crate) orchestrated: Option<Orchestrator>,
    /// If set, an application waits for it.
    pub(crate) gate: Option<Arc<Notify>>,
    /// What else is done when it goes back.
    pub(crate) hooks: Vec<Hook>,
    /// How its database goes back.
    pub(crate) migrations: Migrations,
    /// Whoever runs hooks knows after a crash what became of one.
    pub(crate) hooks_remember: bool,
}

impl FakeRuntime {
    pub(crate) fn new(setup: Setup, crash: Arc<Crash>) -> Self {
        let runtime = Self { crash, ..Self::default() };
        runtime.world().beside = setup.beside;
        for name in names(setup.replicas) {
            runtime.deploy(&name, "bad");
        }
        runtime
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn fault(&self, op: Op, fault: Fault) {
        self.world().faults.insert(op, fault);
    }

    pub(crate) fn stop_timeout(&self, seconds: u64) {
        self.world().stop_timeout = Some(seconds);
    }

    pub(crate) fn heal(&self) {
        self.world().faults.clear();
    }

    pub(crate) fn containers(&self) -> Vec<Container> {
        self.world().containers.clone()
    }

    pub(crate) fn deaf(&self, looks: u32) {
        self.world().deaf = looks;
    }

    /// What a project's files say is what runs.
    pub(crate) fn files_agree(&self) -> bool {
        let world = self.world();
        world.containers.iter().all(|c| (c.release == "good") == world.pinned)
    }

    /// Hooks that took effect, in their order.
    pub(crate) fn ran(&self) -> Vec<Effect> {
        self.world().ran.clone()
    }

    /// How often a hook took effect.
    pub(crate) fn times(&self, hook: &str) -> usize {
        self.world().ran.iter().filter(|effect| effect.hook == hook).count()
    }

    pub(crate) fn observed(&self) -> u32 {
        self.world().observed
    }

    pub(crate) fn calls(&self) -> Vec<Op> {
        self.world().calls.clone()
    }

    /// What a deployer does: remove what has the name, run the new one.
    pub(crate) fn deploy(&self, name: &str, release: &str) {
        let mut world = self.world();
        world.containers.retain(|c| c.name != name);
        let rest = world.containers.iter_mut();
        rest.filter(|c| c.port.as_deref() == Some(name)).for_each(|c| c.running = false);
        let id = world.fresh();
        let port = (!world.beside).then(|| name.to_owned());
        world.containers.push(Container {
            id,
            name: name.into(),
            release: release.into(),
            running: true,
            armed: true,
            port,
        });
    }

    /// What a person does who wants it gone.
    pub(crate) fn remove(&self, name: &str) {
        self.world().containers.retain(|c| !name.is_empty() && c.name != name);
    }

    async fn perform(&self, op: Op, act: impl Fn(&mut World) -> Result<StepOutput, RuntimeError>) -> Done {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        let fault = {
            let mut world = self.world();
            world.calls.push(op);
            let fault = world.faults.get(&op).copied();
            if let Some(Fault::Fail { times, .. }) = world.faults.get_mut(&op) {
                if *times <= 1 {
                    world.faults.remove(&op);
                } else {
                    *times -= 1;
                }
            }
            fault
        };
        let effect = |world: &mut World| {
            let first = act(world)?;
            if self.twice {
                assert_eq!(act(world)?, first, "{op:?} is not idempotent");
            }
            Ok(first)
        };
        match fault {
            None => effect(&mut self.world()),
            Some(Fault::Fail { class, effect: took, .. }) => {
                if took {
                    let _ = effect(&mut self.world());
                }
                Err(RuntimeError { class, message: format!("{op:?} was made to fail") })
            }
            Some(Fault::Remove { whose }) => {
                self.remove(whose);
                Err(error(ErrorClass::Removed, format!("somebody removed {whose} meanwhile")))
            }
            Some(Fault::Crash { effect: took }) => {
                if took {
                    let _ = effect(&mut self.world());
                }
                self.world().faults.remove(&op);
                self.crash.now().await
            }
        }
    }
}

type Done = Result<StepOutput, RuntimeError>;

pub(crate) fn names(n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("shop-{i}")).collect()
}

fn error(class: ErrorClass, message: impl Into<String>) -> RuntimeError {
    RuntimeError { class, message: message.into() }
}

impl World {
    fn fresh(&mut self) -> String {
        self.created += 1;
        format!("id{}", self.created)
    }

    fn find(&mut self, id: &str) -> Result<&mut Container, RuntimeError> {
        let found = self.containers.iter_mut().find(|c| c.id == id);
        found.ok_or_else(|| error(ErrorClass::NotFound, format!("no container {id}")))
    }

    fn rename(&mut self, id: &str, to: &str) -> Done {
        if self.containers.iter().any(|c| c.name == to && c.id != id) {
            return Err(error(ErrorClass::Conflict, format!("{to} is taken")));
        }
        self.find(id)?.name = to.into();
        Ok(StepOutput::Done)
    }

    fn start(&mut self, id: &str) -> Done {
        let port = self.find(id)?.port.clone();
        let taken = |c: &Container| c.running && c.port.is_some() && c.port == port && c.id != id;
        if self.containers.iter().any(taken) {
            return Err(error(ErrorClass::Permanent, format!("port {port:?} is taken")));
        }
        self.find(id)?.running = true;
        Ok(StepOutput::Done)
    }

    fn create(&mut self, name: &str, temp_name: &str) -> StepOutput {
        let known = self.containers.iter().find(|c| c.name == temp_name).map(|c| c.id.clone());
        let id = known.unwrap_or_else(|| {
            let id = self.fresh();
            self.containers.push(Container {
                id: id.clone(),
                name: temp_name.into(),
                release: "good".into(),
                running: false,
                armed: true,
                port: (!self.beside).then(|| name.to_owned()),
            });
            id
        });
        StepOutput::Created { container: ReplicaId::new(id), notes: vec!["a note".into()] }
    }

    fn apply(&mut self, step: &Step, done: &[Option<StepOutput>]) -> Done {
        match step {
            Step::EnsureImage { image, .. } => Ok(StepOutput::Image { pulled: false, image: image.clone() }),
            Step::ProbeOld { container, .. } => {
                self.find(container.as_str())?;
                Ok(StepOutput::Old {
                    restart_policy: "always".into(),
                    auto_remove: false,
                    stop_timeout: self.stop_timeout,
                    reacts: Some(true),
                    specification: None,
                    log: Vec::new(),
                })
            }
            Step::CreateReplacement { name, temp_name, .. } => Ok(self.create(name, temp_name)),
            Step::DisarmOld { container, .. } => {
                self.find(container.as_str())?.armed = false;
                Ok(StepOutput::Disarmed { restart_policy: Some("always".into()) })
            }
            Step::StopOld { container, .. } => {
                self.find(container.as_str())?.running = false;
                Ok(StepOutput::Stopped { how: "asked".into() })
            }
            Step::SetAsideOld { container, aside, .. } => self.rename(container.as_str(), aside),
            Step::TakeName { created, name, .. } => self.rename(&id_of(done, *created)?, name),
            Step::StartNew { created, .. } => self.start(&id_of(done, *created)?),
            Step::AwaitRunning { created, .. } => {
                let id = id_of(done, *created)?;
                if self.find(&id)?.running {
                    Ok(StepOutput::Running { container: ReplicaId::new(id) })
                } else {
                    Err(error(ErrorClass::Permanent, "it exited"))
                }
            }
            Step::SaveEvidence { .. } => Ok(StepOutput::Evidence { log: vec!["last words".into()] }),
            Step::PointTag { .. } => Ok(StepOutput::Done),
            Step::PinProject { project, bad, good } => {
                self.pinned = true;
                let file = project.directory.join(".env");
                let (was, is) = (Some(bad.clone()), good.clone());
                let pin = Some(Pin::Variable { file, variable: "TAG".into(), was, is });
                Ok(StepOutput::Pinned { pin, notes: vec!["pinned".into()] })
            }
            Step::RemoveOld { container, .. } => {
                self.containers.retain(|c| c.id != container.as_str());
                Ok(StepOutput::Done)
            }
            Step::CheckService { .. } => {
                let before = self.containers.first().map(|c| c.release.clone()).unwrap_or_default();
                Ok(StepOutput::Service { before: Specification::new(before) })
            }
            Step::UpdateService { .. } => {
                self.orchestrate("good");
                Ok(StepOutput::Done)
            }
            Step::AwaitConverged { .. } => Ok(StepOutput::Done),
            Step::CheckCompose { .. } => Ok(StepOutput::Compose { command: vec!["docker-compose".into()] }),
            Step::UpProject { .. } => {
                self.orchestrate(if self.pinned { "good" } else { "bad" });
                Ok(StepOutput::Done)
            }
            Step::RemakeDependants { .. } => Ok(StepOutput::Told { notes: vec!["made anew".into()] }),
            Step::RestartDependants { .. } => Ok(StepOutput::Told { notes: vec!["restarted".into()] }),
            Step::RunHook { .. } => Err(error(ErrorClass::Permanent, "hooks are not the engine's")),
        }
    }

    /// What an orchestrator does: other containers take the place of those that are not of the release.
    fn orchestrate(&mut self, release: &str) {
        for at in 0..self.containers.len() {
            if self.containers[at].release != release {
                let id = self.fresh();
                self.containers[at].id = id;
                self.containers[at].release = release.into();
            }
        }
    }

    fn undo(&mut self, step: &Step, done: &[Option<StepOutput>]) -> Result<(), RuntimeError> {
        match step {
            Step::EnsureImage { .. }
            | Step::ProbeOld { .. }
            | Step::AwaitRunning { .. }
            | Step::SaveEvidence { .. }
            | Step::PointTag { .. }
            | Step::RemoveOld { .. }
            | Step::CheckService { .. }
            | Step::CheckCompose { .. }
            | Step::RestartDependants { .. }
            | Step::RemakeDependants { .. }
            | Step::RunHook { .. }
            | Step::AwaitConverged { .. } => {}
            Step::PinProject { .. } => self.pinned = false,
            // Unless somebody deployed meanwhile.
            Step::UpProject { .. } if self.containers.iter().all(|c| c.release == "good") => {
                self.pinned = false;
                self.orchestrate("bad");
            }
            Step::UpProject { .. } => {}
            Step::UpdateService { checked, .. } => {
                if let Some(Some(StepOutput::Service { before })) = done.get(*checked)
                    && self.containers.iter().all(|c| c.release == "good")
                {
                    self.orchestrate(before.as_str());
                }
            }
            Step::CreateReplacement { temp_name, .. } => {
                self.containers.retain(|c| c.name != *temp_name);
            }
            Step::DisarmOld { container, .. } => {
                if let Ok(old) = self.find(container.as_str()) {
                    old.armed = true;
                }
            }
            Step::StopOld { container, was_running: true, .. } => {
                self.start(container.as_str())?;
            }
            Step::StopOld { .. } => {}
            Step::SetAsideOld { container, name, aside } => {
                if self.find(container.as_str())?.name == *aside {
                    self.rename(container.as_str(), name)?;
                }
            }
            Step::TakeName { created, name, temp_name } => {
                let id = id_of(done, *created)?;
                if self.find(&id).is_ok_and(|c| c.name == *name) {
                    self.rename(&id, temp_name)?;
                }
            }
            Step::StartNew { created, .. } => {
                if let Ok(new) = self.find(&id_of(done, *created)?) {
                    new.running = false;
                }
            }
        }
        Ok(())
    }
}

fn id_of(done: &[Option<StepOutput>], created: usize) -> Result<String, RuntimeError> {
    match &done[created] {
        Some(StepOutput::Created { container, .. }) => Ok(container.as_str().into()),
        other => Err(error(ErrorClass::Permanent, format!("nothing was created: {other:?}"))),
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn availability(&self, _: &ServiceName, _: &Release, _: bool) -> Availability {
        Availability::Here
    }

    async fn unpin(&self, _: &ServiceName, _: &Pin) -> Result<String, RuntimeError> {
        Err(error(ErrorClass::Permanent, "nobody asks"))
    }

    async fn watch(&self, _: mpsc::Sender<Input>) {}

    async fn look(&self) -> Result<Look, RuntimeError> {
        Ok(Look::default())
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        let mut world = self.world();
        world.observed += 1;
        if world.deaf > 0 {
            world.deaf -= 1;
            return Err(error(ErrorClass::Transient, "the engine does not answer"));
        }
        let here = world.containers.iter().filter(|c| c.running || !c.name.contains(".rb"));
        let replicas = here.map(|c| Replica {
            id: ReplicaId::new(&c.id),
            name: c.name.clone(),
            release: release(&c.release),
            created: Timestamp::default(),
            started: None,
            phase: if c.running { Phase::Running } else { Phase::Exited },
            restart_count: 0,
            restarts: c.armed,
            health: None,
            exit_code: None,
            start_error: None,
            address: None,
        });
        Ok(Observation {
            service: service.clone(),
            settings: Arc::new(ServiceSettings {
                hooks: self.hooks.clone(),
                migrations: self.migrations.clone(),
                ..ServiceSettings::default()
            }),
            asked: Timestamp::MAX,
            replicas: replicas.collect(),
        })
    }

    async fn snapshot(&self, _: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        Ok(Vec::new())
    }

    /// With something set, it is what is called good here.
    async fn vary(&self, now: &Observation, _: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        let snapshots = now.replicas.iter().map(|replica| snapshot(replica.name.clone())).collect();
        Ok(Varied { snapshots, release: Some(release("good")) })
    }

    async fn protect(&self, _: &ServiceName, _: &Release, _: u32) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn is_mine(&self, _: &Plan) -> bool {
        true
    }

    async fn unprotect(&self, _: &ServiceName, _: &Release) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        match self.orchestrated {
            Some(Orchestrator::Swarm) => return Ok(orchestrated(now, request)),
            Some(Orchestrator::Compose) => return Ok(composed(now, request)),
            None => {}
        }
        let beside = self.world().beside && now.settings.order != Order::StopFirst;
        Ok(plan(now, to, request, beside))
    }

    async fn apply(&self, plan: &Plan, step: &Step, done: &[Option<StepOutput>]) -> Done {
        let stops = self.world().stop_timeout.filter(|_| matches!(step, Step::StopOld { .. }));
        if let Some(seconds) = stops {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        self.perform(Op::Apply(index(plan, step)), |world| world.apply(step, done)).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        _: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        let undo = |world: &mut World| match (step, world.undo(step, done)) {
            // What was never created has no name to give back and nothing to stop.
            (Step::TakeName { created, .. } | Step::StartNew { created, .. }, Err(_))
                if done[*created].is_none() =>
            {
                Ok(StepOutput::Done)
            }
            (_, undone) => undone.map(|()| StepOutput::Done),
        };
        self.perform(Op::Undo(index(plan, step)), undo).await.map(|_| ())
    }
}

/// Runs hooks in the world of a runtime: what they do is that it is noted.
#[derive(Debug)]
pub(crate) struct FakeHooks(pub(crate) Arc<FakeRuntime>);

#[async_trait]
impl HookRunner for FakeHooks {
    async fn run(&self, call: &HookCall<'_>) -> Result<Ran, Failed> {
        let name = call.hook.name.clone();
        let step = (0..call.plan.steps.len()).find(|step| call.plan.hook(*step) == Some(call.hook)).unwrap();
        let effect = |world: &mut World| {
            let running =
                |release: &str| world.containers.iter().filter(|c| c.running && c.release == release).count();
            let effect = Effect { hook: name.clone(), bad: running("bad"), good: running("good") };
            world.ran.push(effect);
            Ok(StepOutput::Done)
        };
        let done = self.0.perform(Op::Apply(step), effect).await;
        done.map_err(|e| Failed { why: e.message, output: "its last words".into() })?;
        Ok(Ran { how: "exit code 0".into(), output: format!("about {}\n", call.fill("{{from}} and {{to}}")) })
    }

    async fn take_up(&self, call: &HookCall<'_>) -> Option<Result<Ran, Failed>> {
        if !self.0.hooks_remember {
            return None;
        }
        if self.0.times(&call.hook.name) > 0 {
            return Some(Ok(Ran { how: "it had ended".into(), output: String::new() }));
        }
        Some(self.run(call).await)
    }

    async fn forget(&self, _: &HookCall<'_>) {}
}

fn index(plan: &Plan, step: &Step) -> usize {
    plan.steps.iter().position(|s| s == step).unwrap()
}

/// One replica leaves and another takes its place.
fn replace(
    name: &str,
    old: Option<(ReplicaId, String)>,
    created: usize,
    request: &RollbackRequest,
    beside: bool,
) -> Vec<Step> {
    let id = &request.id;
    let name = name.to_owned();
    let mut leave = Vec::new();
    if let Some((container, name)) = old {
        let grace = request.stop_grace;
        leave.push(Step::DisarmOld { container: container.clone(), name: name.clone() });
        leave.push(Step::StopOld {
            container: container.clone(),
            name: name.clone(),
            grace,
            was_running: true,
            replaced: beside,
        });
        let aside = format!("{name}.rbold-{id}");
        leave.push(Step::SetAsideOld { container, name, aside });
    }
    let temp_name = format!("{name}.rbnew-{id}");
    let take = Step::TakeName { created, temp_name, name: name.clone() };
    let start = Step::StartNew { created, name: name.clone(), beside };
    let wait = Step::AwaitRunning { created, name, beside };
    if beside {
        [start, wait].into_iter().chain(leave).chain([take]).collect()
    } else {
        leave.into_iter().chain([take, start, wait]).collect()
    }
}

/// The same shape as a plan for a real Swarm service.
fn orchestrated(now: &Observation, request: &RollbackRequest) -> Plan {
    let (id, name) = (String::from("s1"), String::from("shop"));
    let specification = Specification::new("good");
    let mut steps = vec![
        Step::CheckService { id: id.clone(), name: name.clone(), specification },
        Step::UpdateService { checked: 0, id: id.clone(), name: name.clone() },
        Step::AwaitConverged { checked: 0, id, name, within: Duration::from_secs(60) },
    ];
    steps.extend(
        now.replicas.iter().map(|r| Step::SaveEvidence { container: r.id.clone(), name: r.name.clone() }),
    );
    Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from: now.replicas.first().map(|r| r.release.clone()),
        to: request.to.clone(),
        steps,
        prepare: 1,
        pivot: 3,
        close: 3,
        notes: Vec::new(),
        order: None,
    }
}

/// The same shape as a plan that `docker compose up` carries out.
fn composed(now: &Observation, request: &RollbackRequest) -> Plan {
    let project = project();
    let (bad, good) = ("web:bad".to_owned(), request.to.reference.clone());
    let up = Step::UpProject {
        checked: 0,
        project: project.clone(),
        hash: "good".into(),
        replicas: now.replicas.len(),
        sharing: Vec::new(),
        needs: Vec::new(),
        grace: request.stop_grace,
        stops: Duration::ZERO,
    };
    let mut steps = vec![Step::CheckCompose { project: project.clone() }];
    steps.extend(
        now.replicas.iter().map(|r| Step::SaveEvidence { container: r.id.clone(), name: r.name.clone() }),
    );
    steps.extend([Step::PinProject { project: project.clone(), bad, good }, up]);
    let pivot = steps.len();
    steps.push(Step::RemakeDependants {
        replaced: now.replicas.iter().map(|r| (r.id.clone(), r.name.clone())).collect(),
        dependants: vec![Dependant { container: ReplicaId::new("d1"), name: "side-1".into(), runs: true }],
        stops: Duration::ZERO,
    });
    steps.push(Step::RestartDependants { project, names: vec!["web-1".into()] });
    Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from: now.replicas.first().map(|r| r.release.clone()),
        to: request.to.clone(),
        prepare: 1,
        pivot,
        close: steps.len(),
        steps,
        notes: Vec::new(),
        order: None,
    }
}

fn project() -> ComposeProject {
    ComposeProject {
        name: "shop".into(),
        service: "web".into(),
        directory: "/srv/web".into(),
        files: vec!["/srv/web/compose.yaml".into()],
        environment: Vec::new(),
    }
}

/// The same shape as a plan for real containers.
fn plan(now: &Observation, to: &[Snapshot], request: &RollbackRequest, beside: bool) -> Plan {
    let id = &request.id;
    let olds: BTreeMap<_, _> = now.replicas.iter().map(|r| (r.name.clone(), r)).collect();
    let old = |snapshot: &Snapshot| olds.get(&snapshot.name).map(|r| (r.id.clone(), r.name.clone()));
    let mut steps = vec![Step::EnsureImage {
        image: request.to.image.clone(),
        reference: request.to.reference.clone(),
        digests: Vec::new(),
    }];
    let mut created = Vec::new();
    for snapshot in to {
        if let Some((container, name)) = old(snapshot) {
            steps.push(Step::ProbeOld { container, name });
        }
        created.push(steps.len());
        steps.push(Step::CreateReplacement {
            name: snapshot.name.clone(),
            temp_name: format!("{}.rbnew-{id}", snapshot.name),
            old: old(snapshot).map(|(container, _)| container),
            specification: Specification::new(snapshot.inspect.to_string()),
        });
    }
    let prepare = steps.len();
    for (snapshot, created) in to.iter().zip(created) {
        steps.extend(replace(&snapshot.name, old(snapshot), created, request, beside));
    }
    let pivot = steps.len();
    steps.push(Step::PointTag { reference: request.to.reference.clone(), image: request.to.image.clone() });
    let (bad, good) = ("web:bad".to_owned(), request.to.reference.clone());
    steps.push(Step::PinProject { project: project(), bad, good });
    let close = steps.len();
    for (container, name) in to.iter().filter_map(old) {
        steps.push(Step::SaveEvidence { container: container.clone(), name: name.clone() });
        steps.push(Step::RemoveOld { container, name: format!("{name}.rbold-{id}") });
    }
    Plan {
        id: id.clone(),
        service: request.service.clone(),
        from: now.replicas.first().map(|r| r.release.clone()),
        to: request.to.clone(),
        steps,
        prepare,
        pivot,
        close,
        notes: Vec::new(),
        order: None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The process dies before the n-th append, or right after it became durable.
    Crash { at: usize, durable: bool },
    /// Appends fail from the n-th on; durable all the same, or not.
    Fail { from: usize, durable: bool },
}

/// Journals as they would be on disk: serialized.
#[derive(Debug)]
pub(crate) struct FakeStore {
    journals: Mutex<BTreeMap<RollbackId, Vec<Value>>>,
    closed: Mutex<BTreeSet<RollbackId>>,
    trouble: Mutex<Option<Trouble>>,
    appended: Mutex<usize>,
    crash: Arc<Crash>,
    replicas: usize,
}

impl FakeStore {
    pub(crate) fn new(replicas: usize, crash: Arc<Crash>) -> Self {
        Self {
            journals: Mutex::default(),
            closed: Mutex::default(),
            trouble: Mutex::default(),
            appended: Mutex::default(),
            crash,
            replicas,
        }
    }

    pub(crate) fn trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap() = trouble;
        *self.appended.lock().unwrap() = 0;
    }

    pub(crate) fn appended(&self) -> usize {
        *self.appended.lock().unwrap()
    }

    pub(crate) fn journal(&self) -> Vec<Value> {
        self.journals.lock().unwrap().values().next().cloned().unwrap_or_default()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.journal().iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn put(&self, journal: Vec<Value>) {
        self.journals.lock().unwrap().insert(RollbackId::new("rb1"), journal);
    }

    pub(crate) fn open(&self) -> usize {
        self.journals.lock().unwrap().len() - self.closed.lock().unwrap().len()
    }

    fn write(&self, rollback: &RollbackId, event: &JournalEvent) {
        let record = serde_json::to_value(event).unwrap();
        self.journals.lock().unwrap().entry(rollback.clone()).or_default().push(record);
        if event.closes() {
            self.closed.lock().unwrap().insert(rollback.clone());
        }
    }
}

#[async_trait]
impl SagaStore for FakeStore {
    async fn append(&self, rollback: &RollbackId, event: &JournalEvent) -> Result<(), String> {
        let n = {
            let mut appended = self.appended.lock().unwrap();
            *appended += 1;
            *appended
        };
        let trouble = *self.trouble.lock().unwrap();
        match trouble {
            Some(Trouble::Crash { at, durable }) if at == n => {
                if durable {
                    self.write(rollback, event);
                }
                self.crash.now().await
            }
            Some(Trouble::Fail { from, durable }) if n >= from => {
                if durable {
                    self.write(rollback, event);
                }
                Err("disk full".into())
            }
            Some(_) | None => {
                self.write(rollback, event);
                Ok(())
            }
        }
    }

    async fn unfinished(&self) -> Result<Vec<(RollbackId, Vec<Value>)>, String> {
        let closed = self.closed.lock().unwrap();
        let journals = self.journals.lock().unwrap();
        let open = journals.iter().filter(|(id, _)| !closed.contains(*id));
        Ok(open.map(|(id, journal)| (id.clone(), journal.clone())).collect())
    }

    async fn snapshots(&self, _: &ServiceName, release: &ReleaseId) -> Result<Vec<Snapshot>, String> {
        if release.as_str() != "good" {
            return Ok(Vec::new());
        }
        Ok(names(self.replicas.max(1)).into_iter().map(snapshot).collect())
    }
}
