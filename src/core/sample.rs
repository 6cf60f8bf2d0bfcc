//! Signals and their samples. A measurement is never an error: not measuring is a result.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is measured of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The HTTP health endpoint, asked from outside.
    Health,
    /// Docker's own HEALTHCHECK.
    ContainerHealth,
    /// Exits of the main process that nobody asked for.
    Exits,
    /// Kills by the kernel for want of memory.
    OomKills,
    /// Working set over the memory limit.
    Memory,
}

impl Signal {
    /// All signals, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Health, Self::ContainerHealth, Self::Exits, Self::OomKills, Self::Memory];

    /// The name used in configuration, metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::ContainerHealth => "container_health",
            Self::Exits => "exits",
            Self::OomKills => "oom_kills",
            Self::Memory => "memory",
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
    /// A check passed or failed, with what was seen ("503 Service Unavailable after 12ms").
    Check {
        /// Whether it passed.
        ok: bool,
        /// What was seen, for people.
        detail: String,
        /// How long it took.
        latency: Duration,
    },
    /// A level against its limit, in bytes.
    Level {
        /// In use.
        used: u64,
        /// The most that may be used.
        limit: u64,
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
