//! Signals and their samples. A measurement is never an error: not measuring is a result.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// What is measured of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Health checks, asked from outside or run inside.
    Health,
    /// Docker's own HEALTHCHECK.
    ContainerHealth,
    /// Exits of the main process that nobody asked for.
    Exits,
    /// Kills by the kernel for want of memory.
    OomKills,
    /// Working set over the memory limit.
    Memory,
    /// The share of time in which the CPU limit held it back.
    Cpu,
    /// Requests served: how many, how many failed, how long they took.
    Requests,
    /// Lines of the container's log that tell of an error.
    Logs,
    /// What users reported.
    Reports,
    /// Alerts of somebody else's monitoring.
    Alerts,
    /// Checks of what the service depends on. No row judges it: it says what a release is not to blame for.
    Dependencies,
}

/// A reporter's name, always written the same way: one person is one, whatever the case and the spaces.
pub fn reporter(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

impl Signal {
    /// All signals, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Health,
        Self::ContainerHealth,
        Self::Exits,
        Self::OomKills,
        Self::Memory,
        Self::Cpu,
        Self::Requests,
        Self::Logs,
        Self::Reports,
        Self::Alerts,
        Self::Dependencies,
    ];

    /// The name used in metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::ContainerHealth => "container_health",
            Self::Exits => "exits",
            Self::OomKills => "oom_kills",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Requests => "requests",
            Self::Logs => "logs",
            Self::Reports => "reports",
            Self::Alerts => "alerts",
            Self::Dependencies => "dependencies",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Measurement {
    /// A check passed or failed, with what was seen ("503 Service Unavailable after 12ms"). For
    /// [`Signal::Health`] and [`Signal::Dependencies`].
    Check {
        /// Whether it passed.
        ok: bool,
        /// What was seen, for people.
        detail: String,
        /// How long it took.
        latency: Duration,
    },
    /// A level against its limit, in bytes. For [`Signal::Memory`].
    Level {
        /// In use.
        used: u64,
        /// The most that may be used.
        limit: u64,
    },
    /// A share of the time since the last measurement, from 0 to 1. For [`Signal::Cpu`].
    Share {
        /// The share.
        share: f64,
        /// The time it is a share of.
        window: Duration,
    },
    /// Requests that ended within `window` before the measurement. For [`Signal::Requests`].
    Requests(Requests),
    /// Events counted within `window` before the measurement. For [`Signal::Logs`].
    Count {
        /// How many.
        count: u64,
        /// The time in which they were counted.
        window: Duration,
        /// The last of them, for people; empty if none.
        last: String,
    },
    /// Somebody reported a problem. For [`Signal::Reports`].
    Report {
        /// Who: equal names are one reporter.
        reporter: String,
        /// What they said.
        text: String,
    },
    /// An alert of somebody else's monitoring began or ended. For [`Signal::Alerts`]; the sample's `name` is the
    /// alert's name.
    Alert {
        /// Whether it is firing now.
        firing: bool,
        /// When it began to, by the clock of whoever sends it.
        #[serde(default)]
        began: Option<Timestamp>,
        /// What it says, for people.
        summary: String,
    },
    /// There is nothing to measure: the signal does not apply.
    NotApplicable {
        /// Why not, for people.
        why: String,
    },
    /// It could not be measured: neither good nor bad.
    Unavailable {
        /// Why not, for people.
        why: String,
    },
}

/// Requests that ended within a time: increments, never counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// The time before the measurement in which they ended.
    pub window: Duration,
    /// How many.
    pub total: u64,
    /// How many of them failed (5xx, unless the source knows better).
    pub errors: u64,
    /// How long they took; empty if the source does not tell.
    #[serde(default, skip_serializing_if = "Latencies::is_empty")]
    pub latency: Latencies,
    /// How long they took together, where the source tells that and no more.
    #[serde(default, skip_serializing_if = "Took::is_nothing")]
    pub took: Took,
    /// The same by route, where the source tells routes apart: at most [`Requests::PARTS_MAX`], the busiest ones.
    /// They lie within the totals above. A release that changes the mix of its traffic is not blamed for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

impl Requests {
    /// The most routes that are told apart.
    pub const PARTS_MAX: usize = 16;
}

/// Requests to one route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The route's name, as the source has it.
    pub route: String,
    /// How many.
    pub total: u64,
    /// How long they took.
    #[serde(default, skip_serializing_if = "Latencies::is_empty")]
    pub latency: Latencies,
    /// How long they took together.
    #[serde(default, skip_serializing_if = "Took::is_nothing")]
    pub took: Took,
}

/// How long some requests took together: what the sum and the count of a summary tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// How many requests.
    pub requests: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
}

impl Took {
    /// Whether nothing is known.
    pub const fn is_nothing(&self) -> bool {
        self.requests == 0
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.seconds += other.seconds;
    }

    /// How long one took on average, in seconds; zero if there were none.
    pub fn mean(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.seconds / self.requests as f64 }
    }
}

/// A histogram of latencies: how many requests were not slower than each bound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Upper bounds in seconds, ascending, finite, above zero; at most [`Latencies::BOUNDS_MAX`].
    pub bounds: Vec<f64>,
    /// Cumulative counts, one for each bound, then one for all (`+Inf`): one more than there are bounds.
    pub counts: Vec<u64>,
}

impl Latencies {
    /// The most bounds that are kept: native client libraries use 10 to 20.
    pub const BOUNDS_MAX: usize = 64;

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}
