//! The decision matrix as data: what a row is, and the rows that are shipped.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Mitigation, mins, secs};
use crate::sample::Signal;

/// One row of the decision matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The row's name: `health`, `memory`, ...
    pub name: String,
    /// What it judges, and how.
    pub condition: Condition,
    /// The line that must be crossed. What it is depends on the condition: failures in a row, a count of events, a
    /// share, seconds; or a multiple, if it is relative to the baseline.
    pub threshold: f64,
    /// What the threshold is measured against.
    pub against: Against,
    /// Relative to the baseline: below this, the line is not crossed however good the baseline was.
    pub floor: f64,
    /// Only this health check, or alert, by name; all if none.
    pub only: Option<String>,
    /// For counted events: the time within which they are counted.
    pub within: Duration,
    /// How long the line must be crossed without a break. For errors and latency: the longest window; the worse it
    /// is, the shorter the one that suffices.
    pub sustained: Duration,
    /// Below this many samples there is no verdict.
    pub min_samples: u32,
    /// How urgent it is, for the announcement.
    pub severity: Severity,
    /// What is tried before a rollback, in order; each once for a release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitigations: Vec<Mitigation>,
    /// What follows.
    pub action: Action,
}

/// What a row judges, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// A required check fails so many times in a row.
    Health,
    /// Required checks fail so many times within a time, on and off.
    HealthFlapping,
    /// An advisory check fails so many times in a row.
    AdvisoryHealth,
    /// Docker's HEALTHCHECK says unhealthy.
    ContainerHealth,
    /// So many exits within a time.
    Exits,
    /// It ended, or never started, and stays down.
    Down,
    /// So many kills for want of memory within a time.
    OomKills,
    /// Memory is above a share of its limit.
    Memory,
    /// Memory grows so that it would reach a share of its limit within a time.
    MemoryLeak,
    /// The CPU limit held it back for a share of the time.
    CpuThrottling,
    /// More than a share of the requests fail.
    ErrorRate,
    /// The 99th percentile of the latency is above a multiple of the baseline's, or above so many seconds.
    Latency,
    /// More than so many error lines a minute in the log.
    LogErrors,
    /// So many different people reported a problem within a time.
    UserReports,
    /// So many alerts of somebody else's monitoring are firing.
    Alerts,
}

impl Condition {
    /// All conditions.
    pub const ALL: [Self; 15] = [
        Self::Health,
        Self::HealthFlapping,
        Self::AdvisoryHealth,
        Self::ContainerHealth,
        Self::Exits,
        Self::Down,
        Self::OomKills,
        Self::Memory,
        Self::MemoryLeak,
        Self::CpuThrottling,
        Self::ErrorRate,
        Self::Latency,
        Self::LogErrors,
        Self::UserReports,
        Self::Alerts,
    ];

    /// The name used in configuration and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::HealthFlapping => "health_flapping",
            Self::AdvisoryHealth => "advisory_health",
            Self::ContainerHealth => "container_health",
            Self::Exits => "exits",
            Self::Down => "down",
            Self::OomKills => "oom_kills",
            Self::Memory => "memory",
            Self::MemoryLeak => "memory_leak",
            Self::CpuThrottling => "cpu_throttling",
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency",
            Self::LogErrors => "log_errors",
            Self::UserReports => "user_reports",
            Self::Alerts => "alerts",
        }
    }

    /// What is measured for it.
    pub const fn signal(self) -> Signal {
        match self {
            Self::Health | Self::HealthFlapping | Self::AdvisoryHealth => Signal::Health,
            Self::ContainerHealth => Signal::ContainerHealth,
            Self::Exits | Self::Down => Signal::Exits,
            Self::OomKills => Signal::OomKills,
            Self::Memory | Self::MemoryLeak => Signal::Memory,
            Self::CpuThrottling => Signal::Cpu,
            Self::ErrorRate | Self::Latency => Signal::Requests,
            Self::LogErrors => Signal::Logs,
            Self::UserReports => Signal::Reports,
            Self::Alerts => Signal::Alerts,
        }
    }

    /// Whether it counts events within a time (`within`).
    pub const fn counts(self) -> bool {
        matches!(
            self,
            Self::HealthFlapping | Self::Exits | Self::OomKills | Self::MemoryLeak | Self::UserReports
        )
    }

    /// Whether its threshold can be relative to the baseline.
    pub const fn compares(self) -> bool {
        matches!(self, Self::ErrorRate | Self::Latency | Self::LogErrors)
    }
}

/// What a threshold is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Nothing: it is what it says.
    Absolute,
    /// It is a multiple of what was measured before the deployment.
    Baseline,
}

/// How urgent a breach is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Cosmetic.
    Low,
    /// Some users.
    Medium,
    /// A major feature.
    High,
    /// Everybody.
    Critical,
}

/// What a breached rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Roll back, if the gates allow it.
    Rollback,
    /// Tell a person, with the evidence and the command.
    Evaluate,
    /// Show it, and nothing else.
    Monitor,
    /// The row is switched off.
    Off,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rollback => "rollback",
            Self::Evaluate => "evaluate",
            Self::Monitor => "monitor",
            Self::Off => "off",
        })
    }
}

impl Rule {
    /// A row that counts one sample, acts at once, and rolls back.
    fn row(name: &str, condition: Condition, threshold: f64) -> Self {
        Self {
            name: name.into(),
            condition,
            threshold,
            against: Against::Absolute,
            floor: 0.0,
            only: None,
            within: Duration::ZERO,
            sustained: Duration::ZERO,
            min_samples: 1,
            severity: Severity::Critical,
            mitigations: Vec::new(),
            action: Action::Rollback,
        }
    }

    const fn sustained(mut self, sustained: Duration, min_samples: u32) -> Self {
        self.sustained = sustained;
        self.min_samples = min_samples;
        self
    }

    const fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    const fn of_baseline(mut self, floor: f64) -> Self {
        self.against = Against::Baseline;
        self.floor = floor;
        self
    }

    const fn only_says(mut self, severity: Severity, action: Action) -> Self {
        self.severity = severity;
        self.action = action;
        self
    }

    /// What the row looks at.
    pub const fn signal(&self) -> Signal {
        self.condition.signal()
    }

    /// The shipped decision matrix: the runbooks' rows, literally. Every number can be overridden by name.
    pub fn matrix() -> Vec<Self> {
        use Action::{Evaluate, Monitor};
        use Severity::{High, Low, Medium};
        let row = Self::row;
        vec![
            // "Error rate: > 5 % sustained": ten minutes of it, or less of more (decision.md, 4.1).
            row("error_rate", Condition::ErrorRate, 0.05).sustained(mins(10), 5),
            // "p99 latency: > 2x baseline: immediate rollback"; a fast service that got twice as slow and stayed fast
            // troubles nobody: ten milliseconds.
            row("latency_p99", Condition::Latency, 2.0).of_baseline(0.010).sustained(mins(10), 5),
            // "Performance degradation > 50 %": high, a person decides.
            row("latency_degraded", Condition::Latency, 1.5)
                .of_baseline(0.010)
                .sustained(mins(10), 5)
                .only_says(High, Evaluate),
            // "Performance degradation < 20 %: monitor only"; what lies between is shown as well.
            row("latency_drift", Condition::Latency, 1.2)
                .of_baseline(0.010)
                .sustained(mins(10), 5)
                .only_says(Low, Monitor),
            // "Health check failures: 2+ consecutive: immediate rollback"; ten seconds keep a blip from being two.
            row("health", Condition::Health, 2.0).sustained(secs(10), 2),
            // "Health checks failing > 5 minutes": the other runbook's row. It holds even while the traffic is well.
            row("health_prolonged", Condition::Health, 2.0).sustained(mins(5), 2),
            // On and off: four failures in five minutes (decision.md, 4.2).
            row("health_flapping", Condition::HealthFlapping, 4.0).within(mins(5)),
            // A check that is not required: somebody should know.
            row("health_advisory", Condition::AdvisoryHealth, 2.0)
                .sustained(secs(60), 2)
                .only_says(Medium, Evaluate),
            // The engine has already counted `retries` failures in a row.
            row("container_health", Condition::ContainerHealth, 1.0),
            // "Application crashes or won't start": three exits that nobody asked for.
            row("crash_loop", Condition::Exits, 3.0).within(mins(5)),
            // The same without a restart policy: it exited, or never started, and stays down.
            row("down", Condition::Down, 1.0).sustained(secs(10), 1),
            // Two kills; one is enough when memory had been over the `memory` row's line in the five minutes before.
            row("oom", Condition::OomKills, 2.0).within(mins(15)),
            // "Memory usage > 90 %": every sample of a minute.
            row("memory", Condition::Memory, 0.90).sustained(secs(60), 5),
            // It will be there within half an hour, by the last ten minutes. Caches that fill look the same: a person. Eight
            // points are what a source that speaks once a minute gives in that time, if it misses two.
            row("memory_leak", Condition::MemoryLeak, 0.90)
                .within(mins(30))
                .sustained(mins(10), 8)
                .only_says(High, Evaluate),
            // Half of the time for five minutes: the limit is too tight, which is rarely the release's fault.
            row("cpu_throttling", Condition::CpuThrottling, 0.50)
                .sustained(mins(5), 10)
                .only_says(Low, Monitor),
            // "Check error rate in logs": three times as many lines as before, and at least ten a minute. What a log
            // calls an error is the programmer's choice: a person.
            row("log_errors", Condition::LogErrors, 3.0)
                .of_baseline(10.0)
                .sustained(mins(3), 3)
                .only_says(Medium, Evaluate),
            // "User-reported issues: 3+ unique reports: evaluate, likely rollback".
            row("user_reports", Condition::UserReports, 3.0).within(mins(15)).only_says(High, Evaluate),
            // Somebody else's monitoring already judged it; whether it is the release's fault it does not say.
            row("alerts", Condition::Alerts, 1.0).only_says(High, Evaluate),
        ]
    }
}
