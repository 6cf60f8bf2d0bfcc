//! Runtimes: how one kind of service is observed and changed. Everything the executor does goes through
//! [`Runtime`]; runtimes differ in the length of the plan, not in the shape of the code.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::core::availability::Availability;
use crate::core::io::{Input, RollbackRequest};
use crate::core::ledger::Pause;
use crate::core::observation::{Look, Observation};
use crate::core::plan::{Pin, Plan, Specification, Step, StepOutput};
use crate::core::release::{Release, ReplicaId, ServiceName};
use crate::core::settings::{HealthCheck, RunImage, ServiceSettings};
use crate::core::time::Timestamp;

pub mod compose;
pub mod container;
pub mod engine;
pub mod engines;
pub mod exec;
pub mod logs;
pub mod registry;
pub mod several;
mod ssh;
pub mod swarm;

/// The one seam to whatever runs services.
#[async_trait]
pub trait Runtime: std::fmt::Debug + Send + Sync {
    /// Watches until the receiver is dropped: sends looks, observations, exits and the engine's state as [`Input`]s.
    /// Survives every engine failure; never returns before the receiver is gone.
    async fn watch(&self, inputs: mpsc::Sender<Input>);

    /// A full look, now.
    async fn look(&self) -> Result<Look, RuntimeError>;

    /// The names of its engines; the default one has an empty name.
    fn engines(&self) -> Vec<String> {
        vec![String::new()]
    }

    /// [`Self::watch`], of one of its engines.
    async fn watch_at(&self, _engine: &str, inputs: mpsc::Sender<Input>) {
        self.watch(inputs).await;
    }

    /// [`Self::look`], at one of its engines.
    async fn look_at(&self, _engine: &str) -> Result<Look, RuntimeError> {
        self.look().await
    }

    /// What runs of one service now. Always asks the engine.
    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError>;

    /// The specifications of what runs now, to be kept with a release that is known-good.
    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError>;

    /// Releases that are kept elsewhere than in our own store, oldest first: for services that it does not know.
    async fn recorded(&self) -> Result<Vec<Recorded>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Keeps that a release was rolled back, and why, where another Backstop finds it; with none, that it is no longer held against
    /// it.
    async fn keep_quarantine(
        &self,
        _: &ServiceName,
        _: &Release,
        _why: Option<&str>,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Keeps what people said last of pausing a service, or the fleet, where another Backstop finds it.
    async fn keep_word(&self, _: Option<&ServiceName>, _: &Word) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// What was kept like that.
    async fn words(&self) -> Result<Vec<(Option<ServiceName>, Word)>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Points a protecting tag at the release's image (generation 1 is the newest), so that pruning leaves it alone.
    async fn protect(
        &self,
        service: &ServiceName,
        release: &Release,
        generation: u32,
    ) -> Result<(), RuntimeError>;

    /// Takes the release's protecting tags away.
    async fn unprotect(&self, service: &ServiceName, release: &Release) -> Result<(), RuntimeError>;

    /// Whether the image of a release can be had. With `fetch`, one that is here no more is fetched now, while times are
    /// good. What cannot be found out is an answer too.
    async fn availability(&self, service: &ServiceName, release: &Release, fetch: bool) -> Availability;

    /// Restarts its replicas, one after the other.
    async fn restart(&self, _service: &ServiceName) -> Result<(), RuntimeError> {
        let message = "services of this kind are not restarted by Backstop".to_owned();
        Err(RuntimeError { class: ErrorClass::Permanent, message })
    }

    /// Gives it so many replicas. Yields what is to be known about it, if anything.
    async fn scale(&self, service: &ServiceName, _replicas: u32) -> Result<String, RuntimeError> {
        Err(engine::permanent(format!(
            "{service} is made of containers that somebody started one by one: there is nothing to scale it by"
        )))
    }

    /// What runs now, as it would be with environment variables set. Touches nothing.
    async fn vary(&self, now: &Observation, set: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        let _ = set;
        Err(engine::permanent(format!("{} cannot be made anew with another environment", now.service)))
    }

    /// Makes what was set last beyond the next deployment, where that is ours to do. Yields what was done, or what a person
    /// would do; none if there are no files that could say it.
    async fn keep_set(
        &self,
        _service: &ServiceName,
        _set: &BTreeMap<String, String>,
    ) -> Result<Option<String>, RuntimeError> {
        Ok(None)
    }

    /// Takes back what a rollback changed in a project's files, unless somebody changed it since. Yields what was done.
    async fn unpin(&self, service: &ServiceName, pin: &Pin) -> Result<String, RuntimeError>;

    /// Whether a plan is of this runtime's making, so that after a crash, with nothing looked at yet, the right one takes
    /// it up.
    fn is_mine(&self, plan: &Plan) -> bool;

    /// What to do to get from `now` to the snapshots of `request.to`. Pure: touches nothing.
    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError>;

    /// Carries a step out. Idempotent: a step that ran, or half ran, is finished and its output is the same.
    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError>;

    /// Makes a container out of the service's own specification, runs it to its end, and gives its exit code and the end of
    /// its log. With `begun`, one that an earlier call made is waited for instead of being run; none if there is none.
    async fn run_once(
        &self,
        plan: &Plan,
        once: &OneOff,
        done: &[Option<StepOutput>],
        begun: bool,
    ) -> Result<Option<OnceEnded>, RuntimeError> {
        let _ = (once, done, begun);
        Err(engine::permanent(format!("no container of its own can be made for {}", plan.service)))
    }

    /// Removes what [`Self::run_once`] made under this name. It may be gone.
    async fn drop_once(&self, plan: &Plan, name: &str) -> Result<(), RuntimeError> {
        let _ = (plan, name);
        Ok(())
    }

    /// Takes a step back. Idempotent, and right too for a step that failed or never ran (`output` is none then).
    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError>;
}

/// Who is watched, and how: answered by the configuration.
pub trait Enrolment: std::fmt::Debug + Send + Sync {
    /// Whether the service is watched: its container says so by label, or the configuration does.
    fn enrolled(&self, service: &ServiceName, labels: &BTreeMap<String, String>) -> bool;

    /// The service's settings.
    ///
    /// # Errors
    /// Every problem with its labels, one a line, each saying what would be right.
    fn settings(
        &self,
        service: &ServiceName,
        labels: &BTreeMap<String, String>,
    ) -> Result<ServiceSettings, Vec<String>>;
}

/// Makes checks of single replicas: answered by whoever measures.
pub trait Checks: std::fmt::Debug + Send + Sync {
    /// A check of one replica. `address`: the replica's own, if it has one that means something here.
    fn of(&self, check: &HealthCheck, replica: &ReplicaId, address: Option<IpAddr>) -> Box<dyn Check>;
}

/// A check of one replica.
#[async_trait]
pub trait Check: std::fmt::Debug + Send + Sync {
    /// Whether it passes now; none if it cannot be made.
    async fn passes(&self) -> Option<bool>;
}

/// The whole specification of one replica of a release, recorded while it was good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The replica's name.
    pub name: String,
    /// The engine's answer to inspecting the container (of a Swarm service, the service), byte for byte in meaning.
    pub inspect: Value,
    /// The engine's answer to inspecting its image.
    pub image: Value,
    /// What the two do not hold: names behind network and container ids, engine and API version.
    pub context: Value,
}

/// What runs, with something changed about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Varied {
    /// The specifications, one a replica.
    pub snapshots: Vec<Snapshot>,
    /// The release that they are; none if there are none.
    pub release: Option<Release>,
}

/// A container that is made once, for one purpose, out of a service's own specification.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOff {
    /// The name it has while it is there: it is found again by it.
    pub name: String,
    /// Whose it is: kept as a label on it, and compared when it is found again.
    pub mark: String,
    /// Of which image.
    pub image: RunImage,
    /// What it runs.
    pub command: Vec<String>,
    /// Environment variables besides those of the specification.
    pub environment: Vec<(String, String)>,
    /// The containers of the bad release, newest last: it is made like one of them.
    pub like: Vec<ReplicaId>,
    /// The good release's specification.
    pub specification: Option<Specification>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a one-off container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceEnded {
    /// Its exit code; none if it was killed because its time was over.
    pub code: Option<i64>,
    /// The end of what it printed.
    pub output: String,
}

/// A release that others recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Whose it is.
    pub service: ServiceName,
    /// The release.
    pub release: Release,
    /// When it was known to be good, or was rolled back.
    pub since: Timestamp,
    /// Why it was rolled back; none if it is known to be good.
    pub quarantined: Option<String>,
    /// Its specifications, if it is good.
    pub snapshots: Vec<Snapshot>,
}

/// What people said last of pausing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// When.
    pub at: Timestamp,
    /// The pause; none if it is over.
    pub paused: Option<Pause>,
}

/// What went wrong with the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct RuntimeError {
    /// What kind of failure.
    pub class: ErrorClass,
    /// For people: what was tried, and what the engine said.
    pub message: String,
}

/// What can be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Try again: the engine did not answer. It may have done it all the same.
    Transient,
    /// It will fail again.
    Permanent,
    /// What was asked about is not there.
    NotFound,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// Somebody else removed it in the middle of a rollback: they want it gone.
    Removed,
}

/// What the kernel's killing looks like as an exit code: 128 and SIGKILL.
const KILLED: i64 = 137;
/// What is kept of the log of what was replaced: enough for a stack trace and what led to it.
const EVIDENCE_LINES: u32 = 200;

/// `Env` of a container's specification with variables set: each once, where it stood, or at the end.
fn set_environment(env: &mut Value, set: &BTreeMap<String, String>) {
    let mut all: Vec<String> =
        env.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect();
    for (name, value) in set {
        let assignment = format!("{name}={value}");
        let is_it = |one: &&mut String| one.split('=').next() == Some(name.as_str());
        match all.iter_mut().find(is_it) {
            Some(there) => *there = assignment,
            None => all.push(assignment),
        }
    }
    *env = all.into();
}

/// What a step was given to carry out.
fn read<T: DeserializeOwned>(specification: &Specification) -> Result<T, RuntimeError> {
    serde_json::from_str(specification.as_str())
        .map_err(|e| engine::permanent(format!("a recorded specification is damaged: {e}")))
}
