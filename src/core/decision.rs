//! Decisions: what was decided, why, with the numbers. Log, API, metrics and messages all render this one value.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::release::{Release, ServiceName};
use super::settings::Severity;
use super::time::{Timestamp, human};

/// What was decided about a service at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// About whom.
    pub service: ServiceName,
    /// What follows.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The row of the matrix that was breached; none if a person asked, or a release was refused.
    #[serde(default)]
    pub rule: Option<String>,
    /// How urgent.
    pub severity: Severity,
    /// The release that was judged.
    pub from: Option<Release>,
    /// The release to go to, if there is one.
    pub to: Option<Release>,
    /// Every gate's answer, in the order in which they were asked; the first denial is the last one here.
    pub gates: Vec<GateAnswer>,
    /// Decided in dry-run mode: announced, not carried out.
    pub dry_run: bool,
}

/// What follows from a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go back to `to`.
    Rollback,
    /// A person should look: the row says `evaluate`, or the release is too old to blame without asking.
    Evaluate,
    /// A symptom, not blamed on the release or not to be acted on now; the gate says why.
    Hold,
}

impl Verdict {
    /// The name used in metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Evaluate => "evaluate",
            Self::Hold => "hold",
        }
    }
}

/// A reason to wait or refuse, asked in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The store takes what we decide before we act.
    Store,
    /// The engine answers, and has for a while.
    Engine,
    /// Nobody paused the service or the fleet.
    Paused,
    /// The release is new enough to be blamed.
    NewEnough,
    /// The symptom was not there before the deployment.
    Before,
    /// No other service is being rolled back, or was just now: that may cure this one too.
    OneAtATime,
    /// The symptom is not everybody's.
    Environment,
    /// There is a known-good release that differs and is not quarantined.
    Target,
    /// The cooldown after the last rollback is over.
    Cooldown,
    /// There were not too many attempts on this service.
    Attempts,
    /// There were not too many rollbacks in the fleet.
    Breaker,
}

impl Gate {
    /// All gates, in the order in which they are asked.
    pub const ALL: [Self; 11] = [
        Self::Store,
        Self::Engine,
        Self::Paused,
        Self::NewEnough,
        Self::Before,
        Self::OneAtATime,
        Self::Environment,
        Self::Target,
        Self::Cooldown,
        Self::Attempts,
        Self::Breaker,
    ];

    /// The name used in metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Engine => "engine",
            Self::Paused => "paused",
            Self::NewEnough => "new_enough",
            Self::Before => "before",
            Self::OneAtATime => "one_at_a_time",
            Self::Environment => "environment",
            Self::Target => "target",
            Self::Cooldown => "cooldown",
            Self::Attempts => "attempts",
            Self::Breaker => "breaker",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One gate's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// Who was asked.
    pub gate: Gate,
    /// Whether it lets the rollback through.
    pub allow: bool,
    /// Why, or why not, for people.
    pub why: String,
}

/// Why: a closed set, each with its numbers. [`fmt::Display`] is the sentence that people read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// The health endpoint failed in a row.
    HealthFailing {
        /// Failures in a row.
        failures: u32,
        /// From the first of them until now.
        over: Duration,
        /// The row's threshold.
        threshold: u32,
        /// How long the row wants it sustained.
        sustained: Duration,
        /// What the last failure looked like.
        last: String,
    },
    /// Docker's HEALTHCHECK says unhealthy.
    ContainerUnhealthy {
        /// For how long.
        over: Duration,
        /// The check's last output.
        output: String,
    },
    /// It exits again and again.
    CrashLoop {
        /// Exits counted.
        exits: u32,
        /// Within this time.
        within: Duration,
        /// The row's threshold.
        threshold: u32,
        /// The last exit code, if known.
        code: Option<i64>,
    },
    /// It is down and stays down.
    Down {
        /// For how long.
        over: Duration,
        /// Its exit code, or the engine's error on starting it.
        how: String,
    },
    /// The kernel killed it for want of memory.
    OutOfMemory {
        /// Kills counted.
        kills: u32,
        /// Within this time.
        within: Duration,
        /// The highest share of the limit seen in the five minutes before, in percent.
        peak_percent: Option<f64>,
    },
    /// Memory is over the line.
    MemoryHigh {
        /// In use, bytes.
        used: u64,
        /// Limit, bytes.
        limit: u64,
        /// The row's threshold, a share.
        threshold: f64,
        /// For how long every sample was above it.
        over: Duration,
        /// How many samples that were.
        samples: u32,
    },
    /// A quarantined release came back and the policy is `refuse`.
    Refused {
        /// Why it was rolled back the first time.
        earlier: String,
    },
    /// A person asked for it.
    Operator {
        /// Who.
        by: String,
        /// What they said.
        why: String,
    },
    /// The target of the rollback before this one did not pass.
    TargetFailed {
        /// Which one.
        target: String,
        /// What was wrong with it.
        why: String,
    },
}

impl Reason {
    /// The bare variant name: the metric label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::HealthFailing { .. } => "health_failing",
            Self::ContainerUnhealthy { .. } => "container_unhealthy",
            Self::CrashLoop { .. } => "crash_loop",
            Self::Down { .. } => "down",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::MemoryHigh { .. } => "memory_high",
            Self::Refused { .. } => "refused",
            Self::Operator { .. } => "operator",
            Self::TargetFailed { .. } => "target_failed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HealthFailing { failures: 1, last, .. } => write!(f, "health check failed once: {last}"),
            Self::HealthFailing { failures, over, threshold, sustained, last } => write!(
                f,
                "health check failed {failures} times in a row over {} (limit: {threshold} over {}); last: {last}",
                human(*over),
                human(*sustained)
            ),
            Self::ContainerUnhealthy { over, output } => {
                f.write_str("its HEALTHCHECK says unhealthy")?;
                if !over.is_zero() {
                    write!(f, ", for {}", human(*over))?;
                }
                if output.is_empty() { Ok(()) } else { write!(f, "; last: {output}") }
            }
            Self::CrashLoop { exits, within, threshold, code } => {
                write!(f, "it exited {exits} times in {} (limit: {threshold})", human(*within))?;
                code.map_or(Ok(()), |code| write!(f, "; last exit code {code}"))
            }
            Self::Down { over, how } => write!(f, "it has been down for {}: {how}", human(*over)),
            Self::OutOfMemory { kills, within, peak_percent } => {
                let times = if *kills == 1 { "once" } else { "repeatedly" };
                write!(f, "the kernel killed it {times} for want of memory ({kills} in {})", human(*within))?;
                peak_percent.map_or(Ok(()), |p| write!(f, "; memory had reached {p:.0} % of its limit"))
            }
            Self::MemoryHigh { used, limit, threshold, over, samples } => write!(
                f,
                "memory has been above {:.0} % of its limit for {} ({samples} samples); now {} of {}, {:.0} %",
                threshold * 100.0,
                human(*over),
                mebibytes(*used),
                mebibytes(*limit),
                percent(*used, *limit)
            ),
            Self::Refused { earlier } => write!(f, "this release was rolled back before: {earlier}"),
            Self::Operator { by, why } if why.is_empty() => write!(f, "{by} asked for it"),
            Self::Operator { by, why } => write!(f, "{by} asked for it: {why}"),
            Self::TargetFailed { target, why } => write!(f, "the rollback to {target} did not help: {why}"),
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// `used` as a percentage of `limit`; zero if there is no limit.
pub(crate) fn percent(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 }
}
