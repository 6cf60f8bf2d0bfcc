//! Runtimes: how one kind of service is observed and changed. Everything the executor does goes through
//! [`Runtime`]; runtimes differ in the length of the plan, not in the shape of the code.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::core::io::{Input, RollbackRequest};
use crate::core::observation::{Look, Observation};
use crate::core::plan::{Plan, Step, StepOutput};
use crate::core::release::{Release, ServiceName};
use crate::core::settings::ServiceSettings;

pub mod container;
pub mod engine;
pub mod exec;
pub mod logs;

/// The one seam to whatever runs services.
#[async_trait]
pub trait Runtime: std::fmt::Debug + Send + Sync {
    /// Watches until the receiver is dropped: sends looks, observations, exits and the engine's state as [`Input`]s.
    /// Survives every engine failure; never returns before the receiver is gone.
    async fn watch(&self, inputs: mpsc::Sender<Input>);

    /// A full look, now.
    async fn look(&self) -> Result<Look, RuntimeError>;

    /// What runs of one service now. Always asks the engine.
    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError>;

    /// The specifications of what runs now, to be kept with a release that is known-good.
    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError>;

    /// Points a protecting tag at the release's image (generation 1 is the newest), so that pruning leaves it alone.
    async fn protect(&self, release: &Release, generation: u32) -> Result<(), RuntimeError>;

    /// Takes the release's protecting tags away.
    async fn unprotect(&self, release: &Release) -> Result<(), RuntimeError>;

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

/// The whole specification of one replica of a release, recorded while it was good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The replica's name.
    pub name: String,
    /// The engine's answer to inspecting the container, byte for byte in meaning.
    pub inspect: Value,
    /// The engine's answer to inspecting its image.
    pub image: Value,
    /// What the two do not hold: names behind network and container ids, engine and API version.
    pub context: Value,
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
}
