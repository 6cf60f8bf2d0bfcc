//! The settings that the core decides by. `config/` makes them; every value here is already valid.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sample::Signal;

/// Settings of the whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSettings {
    /// Named in announcements and in the rollback log: `production`.
    pub environment: String,
    /// After the engine came back, verdicts wait this long: its restart stops and starts containers.
    pub engine_settle: Duration,
    /// After another service's rollback ended, a verdict that it may have caused or cured waits this long.
    pub one_at_a_time: Duration,
    /// The breaker: this many automatic rollbacks ...
    pub breaker_rollbacks: u32,
    /// ... within this time stop all automatic rollbacks until somebody resumes them.
    pub breaker_window: Duration,
}

/// Whether decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Decide, announce and act.
    Act,
    /// Decide and announce; never touch the service.
    DryRun,
}

/// What happens when a rolled-back release is deployed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redeploy {
    /// It is judged again: perhaps what it needed is there now.
    Watch,
    /// It is rolled back at once.
    Refuse,
}

/// Settings of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// Act or only say so.
    pub mode: Mode,
    /// The HTTP health check, if one is configured.
    pub health: Option<HealthCheck>,
    /// How often memory is measured.
    pub memory_interval: Duration,
    /// Judge containers without a memory limit against the host's memory.
    pub host_memory: bool,
    /// How long a new release is on trial before it is known-good.
    pub trial: Duration,
    /// How long after a deployment it can be rolled back without asking.
    pub watch: Duration,
    /// The same for memory, OOM kills and exits, which take longer to show.
    pub watch_slow: Duration,
    /// Failures before the first success after a deployment do not count for this long.
    pub grace: Duration,
    /// After a rollback ended, how long until the next automatic one.
    pub cooldown: Duration,
    /// At most this many automatic rollbacks ...
    pub attempts: u32,
    /// ... within this time.
    pub attempts_window: Duration,
    /// How long the target must pass every rule before the rollback counts as proved.
    pub verify: Duration,
    /// When proof has not come by then, a person is called.
    pub verify_timeout: Duration,
    /// How many known-good releases are kept, with their images.
    pub keep: u32,
    /// Policy for a quarantined release that is deployed again.
    pub redeploy: Redeploy,
    /// The most that a bad container gets between SIGTERM and SIGKILL, unless its deployer set a stop timeout.
    pub stop_grace: Duration,
    /// Create the replacement as soon as a rule is pending.
    pub prepare: bool,
    /// The decision matrix.
    pub rules: Vec<Rule>,
}

/// How the HTTP health endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Where it is.
    pub target: HealthTarget,
    /// How often it is asked.
    pub interval: Duration,
    /// How long an answer may take, body included.
    pub timeout: Duration,
    /// The statuses that pass, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
}

/// Where a health endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTarget {
    /// One URL for the whole service.
    Url(String),
    /// A path on every replica's own address.
    Replica {
        /// TCP port inside the container.
        port: u16,
        /// Path, beginning with `/`.
        path: String,
    },
}

/// One row of the decision matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The row's name: `health`, `memory`, ...
    pub name: String,
    /// What it looks at.
    pub signal: Signal,
    /// The line that must be crossed: failures in a row, a count of events, or a share of the limit.
    pub threshold: f64,
    /// For counted events: the time within which they are counted.
    pub within: Duration,
    /// How long the line must be crossed without a break.
    pub sustained: Duration,
    /// Below this many samples there is no verdict.
    pub min_samples: u32,
    /// How urgent it is, for the announcement.
    pub severity: Severity,
    /// What follows.
    pub action: Action,
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
            Self::Off => "off",
        })
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn mins(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            environment: "production".into(),
            // An engine restart stops every container: docker.md, section 5.
            engine_settle: mins(1),
            // decision.md, 4.3, rule 1.
            one_at_a_time: mins(3),
            // Five in an hour is a storm on any host that one person looks after.
            breaker_rollbacks: 5,
            breaker_window: mins(60),
        }
    }
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Act,
            health: None,
            memory_interval: secs(5),
            host_memory: false,
            trial: mins(15),
            watch: mins(60),
            watch_slow: mins(120),
            grace: secs(60),
            cooldown: mins(5),
            // docker.md, section 6: after two in half an hour, stop and call somebody.
            attempts: 2,
            attempts_window: mins(30),
            verify: secs(30),
            verify_timeout: mins(5),
            keep: 3,
            redeploy: Redeploy::Watch,
            stop_grace: secs(3),
            prepare: true,
            rules: Rule::matrix(),
        }
    }
}

impl Rule {
    /// The shipped decision matrix: the runbooks' rows, literally. Every number can be overridden by name.
    pub fn matrix() -> Vec<Self> {
        let row = |name: &str, signal, threshold, within, sustained, min_samples| Self {
            name: name.into(),
            signal,
            threshold,
            within,
            sustained,
            min_samples,
            severity: Severity::Critical,
            action: Action::Rollback,
        };
        let none = Duration::ZERO;
        vec![
            // "Health check failures: 2+ consecutive: immediate rollback"; ten seconds keep a blip from being two.
            row("health", Signal::Health, 2.0, none, secs(10), 2),
            // "Health checks failing > 5 minutes": the other runbook's row, for services whose first row is relaxed.
            row("health_prolonged", Signal::Health, 2.0, none, mins(5), 2),
            // The engine has already counted `retries` failures in a row.
            row("container_health", Signal::ContainerHealth, 1.0, none, none, 1),
            // "Application crashes or won't start": three exits that nobody asked for.
            row("crash_loop", Signal::Exits, 3.0, mins(5), none, 1),
            // The same without a restart policy: it exited, or never started, and stays down.
            row("down", Signal::Exits, 1.0, none, secs(10), 1),
            // Two kills; one is enough when memory had been over the `memory` row's line in the five minutes before.
            row("oom", Signal::OomKills, 2.0, mins(15), none, 1),
            // "Memory usage > 90 %": every sample of a minute.
            row("memory", Signal::Memory, 0.90, none, secs(60), 5),
        ]
    }
}
