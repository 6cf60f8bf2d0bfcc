//! What a look at the engine found: the services, their replicas, and who was refused.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::release::{Release, ReplicaId, ServiceName};
use super::settings::ServiceSettings;
use super::time::Timestamp;

/// A full look at one engine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Look {
    /// When it was begun: what is known from later is not overwritten by it.
    #[serde(default = "just_now")]
    pub asked: Timestamp,
    /// The name of the engine that was looked at; empty for the default one. It says nothing of services of others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// Every enrolled service that has at least one replica, running or not.
    pub services: Vec<Observation>,
    /// Those whose enrolment was refused, with the reason to show.
    pub refused: Vec<Refusal>,
    /// Events may have been lost before this look (first look, or the event stream broke):
    /// restart counts are then compared instead of trusted to events.
    pub after_gap: bool,
}

/// What runs of one service now, as the engine says it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Observation {
    /// The service.
    pub service: ServiceName,
    /// Its settings: defaults, labels and configuration file together.
    pub settings: Arc<ServiceSettings>,
    /// When the look at it was begun: it shows what was then, and may come in after a later one.
    #[serde(default = "just_now")]
    pub asked: Timestamp,
    /// Its replicas, oldest first. Leftovers (stopped containers of older releases) are not among them.
    pub replicas: Vec<Replica>,
}

/// Whoever did not write down when it was looked did so just then.
pub const fn just_now() -> Timestamp {
    Timestamp::MAX
}

/// A service that asked to be watched and cannot be, with what to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The name it would have had.
    pub service: ServiceName,
    /// The container that carries the mistake.
    pub container: String,
    /// What is wrong, one problem a line.
    pub problems: Vec<String>,
}

/// One copy of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// The container id.
    pub id: ReplicaId,
    /// The container's name.
    pub name: String,
    /// What it runs.
    pub release: Release,
    /// When the container was created.
    pub created: Timestamp,
    /// When its process was last started, if it ever was.
    pub started: Option<Timestamp>,
    /// What it is doing.
    pub phase: Phase,
    /// The engine's cumulative count of restarts by policy: only differences mean anything.
    pub restart_count: u64,
    /// Whether the engine will start it again when it exits.
    pub restarts: bool,
    /// What the image's or the deployer's HEALTHCHECK says; none if there is no HEALTHCHECK.
    pub health: Option<ContainerHealth>,
    /// Exit code of the last run, if it is not running.
    pub exit_code: Option<i64>,
    /// The engine's own error when the container could not be started.
    pub start_error: Option<String>,
    /// Where health endpoints are reached, if it has an address of its own.
    pub address: Option<IpAddr>,
}

/// What a container is doing. `Restarting` is not `Running`, although the engine sets `State.Running` for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Created and never started, or its start failed.
    Created,
    /// Its process runs.
    Running,
    /// It exited and waits for the restart policy.
    Restarting,
    /// Frozen by `docker pause`.
    Paused,
    /// Its process ended.
    Exited,
    /// Being removed, or dead.
    Gone,
}

/// The state of a container's own HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "output")]
pub enum ContainerHealth {
    /// Not decided yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// As many checks failed in a row as the HEALTHCHECK allows; with the last output.
    Unhealthy(String),
}
