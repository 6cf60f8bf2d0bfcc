//! What the core shows of itself: an immutable picture, published after each turn. API, metrics and the command
//! line render this and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::availability::Availability;
use super::decision::{Decision, GateAnswer};
use super::io::EngineState;
use super::ledger::{Flags, LedgerEntry, RollbackRecord};
use super::migration::SchemaMove;
use super::observation::{Refusal, Replica};
use super::plan::Pin;
use super::release::{Release, ReleaseId, ServiceName};
use super::sample::Signal;
use super::settings::{Action, Condition, FleetSettings, OpenWindow, ServiceSettings, Severity};
use super::time::Timestamp;

pub use super::state::State;

/// The whole fleet at one moment.
#[derive(Debug, Clone)]
pub struct FleetSnapshot {
    /// When it was taken.
    pub at: Timestamp,
    /// Settings of the fleet.
    pub settings: FleetSettings,
    /// The default engine, as last heard of; none before the first answer.
    pub engine: Option<EngineState>,
    /// The first full look at it has been taken in: before it, nothing is known of its services.
    pub looked: bool,
    /// The other engines, by name.
    pub engines: Vec<EngineSnapshot>,
    /// Why the store does not take writes, if it does not.
    pub store_error: Option<String>,
    /// Pause and breaker of the whole fleet.
    pub flags: Flags,
    /// Services, by name.
    pub services: Vec<ServiceSnapshot>,
    /// Refused services, by name.
    pub refused: Vec<Refusal>,
}

/// An engine with a name at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSnapshot {
    /// Its name.
    pub name: String,
    /// As last heard of; none before the first answer.
    pub state: Option<EngineState>,
    /// The first full look at it has been taken in.
    pub looked: bool,
}

/// One service at one moment.
#[derive(Debug, Clone)]
pub struct ServiceSnapshot {
    /// Its name.
    pub name: ServiceName,
    /// Its settings in force.
    pub settings: Arc<ServiceSettings>,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// One sentence for people: what is going on, with the next command where one is needed.
    pub sentence: String,
    /// What runs now.
    pub current: Option<Release>,
    /// When it was deployed.
    pub deployed: Option<Timestamp>,
    /// Where a rollback would go now; none is `NoRollbackTarget`.
    pub target: Option<Release>,
    /// The downgrade of its database that a rollback there would take.
    pub downgrade: Option<SchemaMove>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// Its releases, newest deployment first.
    pub ledger: Vec<LedgerEntry>,
    /// Whether the images of its targets can be had, and when that was found out.
    pub availability: BTreeMap<ReleaseId, (Timestamp, Availability)>,
    /// The whole matrix, row by row.
    pub rows: Vec<RowSnapshot>,
    /// Every gate's answer, were a rollback decided now.
    pub gates: Vec<GateAnswer>,
    /// The last decision.
    pub last_decision: Option<Decision>,
    /// The rollback in flight.
    pub rollback: Option<RollbackRecord>,
    /// What a rollback changed in the project's files so that it lasts.
    pub pin: Option<Pin>,
    /// The window that it is in.
    pub window: Option<OpenWindow>,
    /// Pause and stuck.
    pub flags: Flags,
    /// Samples so far, by signal: good, bad, could not be measured.
    pub samples: Vec<(Signal, SampleCounts)>,
}

/// Counts of samples since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleCounts {
    /// On the good side of the line.
    pub healthy: u64,
    /// On the bad side.
    pub unhealthy: u64,
    /// Could not be measured: neither.
    pub error: u64,
}

/// One row of the matrix with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RowSnapshot {
    /// The row's name.
    pub rule: String,
    /// What it looks at.
    pub signal: Signal,
    /// How it judges it.
    pub condition: Condition,
    /// Its value now, for people.
    pub value: String,
    /// Its threshold, for people.
    pub threshold: String,
    /// What it is compared with, for people; none if it is compared with nothing, or nothing is known.
    pub baseline: Option<String>,
    /// How many samples it judged by.
    pub samples: u32,
    /// Since when the line is crossed.
    pub since: Option<Timestamp>,
    /// Its answer.
    pub answer: RowAnswer,
    /// What a breach leads to.
    pub action: Action,
    /// How urgent a breach is.
    pub severity: Severity,
}

/// A row's answer. `NoData` and `CannotMeasure` are neither success nor failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAnswer {
    /// Not crossed.
    Ok,
    /// Crossed, not yet long or often enough.
    Pending,
    /// Crossed as the row says.
    Breached,
    /// Too few samples, or none yet.
    NoData,
    /// The probe cannot measure.
    CannotMeasure,
    /// The row is switched off, or its signal is not configured.
    Off,
}

impl RowAnswer {
    /// The name used in the API and shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Breached => "breached",
            Self::NoData => "no data",
            Self::CannotMeasure => "cannot measure",
            Self::Off => "off",
        }
    }
}
