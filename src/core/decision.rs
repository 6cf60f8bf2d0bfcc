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
    /// The target runs on what the releases since did to the schema, or the database is downgraded too.
    Migrations,
    /// Whoever is one release with the service can go back as well.
    Group,
    /// The cooldown after the last rollback is over.
    Cooldown,
    /// There were not too many attempts on this service.
    Attempts,
    /// There were not too many rollbacks in the fleet.
    Breaker,
    /// Whoever has to be asked was.
    Approval,
}

impl Gate {
    /// All gates, in the order in which they are asked.
    pub const ALL: [Self; 14] = [
        Self::Store,
        Self::Engine,
        Self::Paused,
        Self::NewEnough,
        Self::Before,
        Self::OneAtATime,
        Self::Environment,
        Self::Target,
        Self::Migrations,
        Self::Group,
        Self::Cooldown,
        Self::Attempts,
        Self::Breaker,
        Self::Approval,
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
            Self::Migrations => "migrations",
            Self::Group => "group",
            Self::Cooldown => "cooldown",
            Self::Attempts => "attempts",
            Self::Breaker => "breaker",
            Self::Approval => "approval",
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
    /// Too many requests failed, or took too long.
    Requests {
        /// Bad requests in the window.
        bad: u64,
        /// All requests in the window.
        total: u64,
        /// The window that was breached.
        window: Duration,
        /// The share above which this window is breached.
        limit: f64,
        /// The share that is allowed for the row's whole time.
        allowed: f64,
        /// The probability of so many bad ones by chance, if the allowed share were the true one.
        by_chance: f64,
        /// How long after the deployment it began.
        after: Duration,
        /// What makes a request a bad one, and how it was before.
        compared: Compared,
    },
    /// A health check failed on and off.
    HealthFlapping {
        /// The check's name.
        check: String,
        /// Failures counted.
        failures: u32,
        /// Among so many checks.
        checks: u32,
        /// Within this time.
        within: Duration,
        /// The row's threshold.
        threshold: u32,
        /// What the last result looked like.
        last: String,
    },
    /// Memory grows towards the line.
    MemoryLeak {
        /// In use, bytes.
        used: u64,
        /// Limit, bytes.
        limit: u64,
        /// The row's threshold, a share.
        threshold: f64,
        /// How long until it is reached if it goes on like this.
        left: Duration,
        /// Over which time the growth was seen.
        over: Duration,
    },
    /// The CPU limit holds it back.
    CpuThrottled {
        /// The share of the time.
        share: f64,
        /// The row's threshold, a share.
        threshold: f64,
        /// Over which time.
        over: Duration,
    },
    /// The log is full of errors.
    LogErrors {
        /// Error lines a minute.
        per_minute: f64,
        /// Error lines counted.
        lines: u64,
        /// Within this time.
        over: Duration,
        /// The line, lines a minute.
        limit: f64,
        /// How many a minute there were before the deployment, if that is known.
        before: Option<f64>,
        /// The last of them.
        last: String,
    },
    /// Users report problems.
    UserReports {
        /// Different reporters.
        reporters: u32,
        /// Within this time.
        within: Duration,
        /// The row's threshold.
        threshold: u32,
        /// What the last one said.
        last: String,
    },
    /// Somebody else's monitoring raised an alert.
    AlertFiring {
        /// The first of them.
        alert: String,
        /// How many are firing.
        alerts: u32,
        /// For how long the first one has been.
        over: Duration,
        /// What it says.
        summary: String,
    },
    /// The health endpoint failed in a row.
    HealthFailing {
        /// The check's name.
        #[serde(default)]
        check: String,
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
    /// A person tries for real whether a rollback works, and goes forward again afterwards. Nothing is wrong.
    Drill {
        /// Who.
        by: String,
    },
    /// Another service of the same group is rolled back, or suffers from the release.
    Companion {
        /// Which.
        service: ServiceName,
        /// What is wrong with it.
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

/// Of what an average is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaged {
    /// The requests between two measurements, where the source tells no more than their sum.
    Requests,
    /// Our own health checks.
    Checks,
}

impl Averaged {
    /// What has such an average.
    pub(crate) const fn measurements(self) -> &'static str {
        match self {
            Self::Requests => "measurements",
            Self::Checks => "health checks",
        }
    }
}

/// What makes a request a bad one, and how many of those there were before the deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "compared")]
pub enum Compared {
    /// It failed.
    Errors {
        /// The row's threshold, a share.
        threshold: f64,
        /// The share before the deployment, if it is known.
        before: Option<f64>,
        /// How long that was measured.
        span: Option<Duration>,
    },
    /// It took too long.
    Latency {
        /// Longer than so many seconds.
        limit_seconds: f64,
        /// That is so many times the baseline's p99, if the row compares.
        times: Option<f64>,
        /// The p99 before the deployment in seconds, if it is known.
        before: Option<f64>,
        /// How long that was measured.
        span: Option<Duration>,
    },
    /// It took too long on average; what is counted are measurements and not requests.
    Average {
        /// Of what.
        of: Averaged,
        /// Longer than so many seconds.
        limit_seconds: f64,
        /// That is so many times what was usual, if the row compares.
        times: Option<f64>,
        /// What was usual before the deployment in seconds: the median.
        before: Option<f64>,
        /// How long that was measured.
        span: Option<Duration>,
    },
}

impl Compared {
    /// The same with a line that is so many times as far; only averages have such.
    pub(crate) fn farther(&self, far: f64) -> Self {
        match self {
            Self::Average { of, limit_seconds, times, before, span } => Self::Average {
                of: *of,
                limit_seconds: limit_seconds * far,
                times: times.map(|times| (times * far * 10.0).round() / 10.0),
                before: *before,
                span: *span,
            },
            Self::Errors { .. } | Self::Latency { .. } => self.clone(),
        }
    }

    /// How it was before the deployment, for people.
    pub(crate) fn baseline(&self) -> Option<String> {
        match self {
            Self::Errors { before, span, .. } => {
                before.zip(*span).map(|(rate, span)| format!("{} over {}", percent_of(rate), human(span)))
            }
            Self::Latency { before, span, .. } => {
                before.zip(*span).map(|(p99, span)| format!("p99 {} over {}", seconds(p99), human(span)))
            }
            Self::Average { before, span, .. } => {
                before.zip(*span).map(|(mean, span)| format!("mean {} over {}", seconds(mean), human(span)))
            }
        }
    }
}

impl Reason {
    /// The bare variant name: the metric label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Requests { compared: Compared::Errors { .. }, .. } => "error_rate",
            Self::Requests { compared: Compared::Latency { .. } | Compared::Average { .. }, .. } => "latency",
            Self::HealthFlapping { .. } => "health_flapping",
            Self::MemoryLeak { .. } => "memory_leak",
            Self::CpuThrottled { .. } => "cpu_throttled",
            Self::LogErrors { .. } => "log_errors",
            Self::UserReports { .. } => "user_reports",
            Self::AlertFiring { .. } => "alert_firing",
            Self::HealthFailing { .. } => "health_failing",
            Self::ContainerUnhealthy { .. } => "container_unhealthy",
            Self::CrashLoop { .. } => "crash_loop",
            Self::Down { .. } => "down",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::MemoryHigh { .. } => "memory_high",
            Self::Refused { .. } => "refused",
            Self::Operator { .. } => "operator",
            Self::Drill { .. } => "drill",
            Self::Companion { .. } => "companion",
            Self::TargetFailed { .. } => "target_failed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { .. } => self.about_requests(f),
            Self::HealthFlapping { .. }
            | Self::MemoryLeak { .. }
            | Self::CpuThrottled { .. }
            | Self::LogErrors { .. }
            | Self::UserReports { .. }
            | Self::AlertFiring { .. } => self.about_others(f),
            Self::HealthFailing { check, failures: 1, last, .. } => {
                write!(f, "{} failed once: {last}", the_check(check))
            }
            Self::HealthFailing { check, failures, over, threshold, sustained, last } => write!(
                f,
                "{} failed {failures} times in a row over {} (limit: {threshold} over {}); last: {last}",
                the_check(check),
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
            Self::Drill { by } => {
                write!(f, "{by} drills: nothing is wrong, and it goes forward again afterwards")
            }
            Self::Companion { service, why } => write!(f, "{service} is one release with it: {why}"),
            Self::TargetFailed { target, why } => write!(f, "the rollback to {target} did not help: {why}"),
        }
    }
}

impl Reason {
    /// When it began, seen from the deployment, in the words of the sentence; nothing where that does not say it.
    pub fn onset(&self) -> Option<String> {
        let Self::Requests { after, .. } = self else { return None };
        Some(format!("it began {} after the deployment", human(*after)))
    }

    /// `182 of 1204 requests failed (15.1 %) in the last 1m; limit 10 % over 1m (5 % over 10m)` ...
    fn about_requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Requests { bad, total, window, limit, allowed, by_chance, compared, after: _ } = self
        else {
            return Ok(());
        };
        let share = if *total == 0 { 0.0 } else { *bad as f64 / *total as f64 };
        let (share, window) = (percent_of(share), human(*window));
        match compared {
            Compared::Errors { .. } => {
                write!(f, "{bad} of {total} requests failed ({share}) in the last {window}")?
            }
            Compared::Latency { limit_seconds, times, before, .. } => {
                write!(
                    f,
                    "{bad} of {total} requests ({share}) took longer than {} in the last {window}",
                    seconds(*limit_seconds)
                )?;
                if let Some((times, before)) = times.zip(*before) {
                    write!(f, ", {times}x the baseline p99 of {}", seconds(before))?;
                }
            }
            Compared::Average { of, limit_seconds, times, before, .. } => {
                let limit = seconds(*limit_seconds);
                match of {
                    Averaged::Requests => {
                        write!(f, "requests took longer than {limit} on average in {bad} of {total} ")?;
                        write!(f, "measurements ({share}) in the last {window}")?;
                    }
                    Averaged::Checks => {
                        write!(f, "{bad} of {total} health checks ({share}) took longer than {limit} ")?;
                        write!(f, "in the last {window}")?;
                    }
                }
                if let Some((times, before)) = times.zip(*before) {
                    write!(f, ", {times}x the usual {}", seconds(before))?;
                }
            }
        }
        write!(f, " (limit: {}", percent_of(*limit))?;
        if (limit - allowed).abs() > 1e-9 {
            write!(f, ", {} if it lasts", percent_of(*allowed))?;
        }
        let p = if *by_chance < 1e-9 { "p < 1e-9".to_owned() } else { format!("p = {by_chance:.1e}") };
        write!(f, "; by chance {p})")?;
        if let Compared::Errors { before: Some(before), span: Some(span), .. } = compared {
            write!(f, "; before the deployment {} over {}", percent_of(*before), human(*span))?;
        }
        self.onset().map_or(Ok(()), |onset| write!(f, "; {onset}"))
    }

    fn about_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HealthFlapping { check, failures, checks, within, threshold, last } => write!(
                f,
                "{} failed {failures} of {checks} times within {} (limit: {threshold}); last: {last}",
                the_check(check),
                human(*within)
            ),
            Self::MemoryLeak { used, limit, threshold, left, over } => write!(
                f,
                "memory has been growing for {} and will reach {} of its limit in {}; now {} of {}",
                human(*over),
                percent_of(*threshold),
                human(*left),
                mebibytes(*used),
                mebibytes(*limit)
            ),
            Self::CpuThrottled { share, threshold, over } => write!(
                f,
                "its CPU limit held it back {} of the time for {} (limit: {})",
                percent_of(*share),
                human(*over),
                percent_of(*threshold)
            ),
            Self::LogErrors { per_minute, lines, over, limit, before, last } => {
                write!(
                    f,
                    "{per_minute:.1} error lines a minute in the log ({lines} in {}; limit: {limit:.1}",
                    human(*over)
                )?;
                before.map_or(Ok(()), |before| write!(f, ", before the deployment {before:.1}"))?;
                f.write_str(")")?;
                if last.is_empty() { Ok(()) } else { write!(f, "; last: {last}") }
            }
            Self::UserReports { reporters, within, threshold, last } => {
                write!(
                    f,
                    "{reporters} people reported a problem within {} (limit: {threshold})",
                    human(*within)
                )?;
                if last.is_empty() { Ok(()) } else { write!(f, "; last: {last}") }
            }
            Self::AlertFiring { alert, alerts, over, summary } => {
                write!(f, "the alert {alert} has been firing for {}", human(*over))?;
                if *alerts > 1 {
                    write!(f, ", and {} more", alerts - 1)?;
                }
                if summary.is_empty() { Ok(()) } else { write!(f, ": {summary}") }
            }
            Self::Requests { .. }
            | Self::HealthFailing { .. }
            | Self::ContainerUnhealthy { .. }
            | Self::CrashLoop { .. }
            | Self::Down { .. }
            | Self::OutOfMemory { .. }
            | Self::MemoryHigh { .. }
            | Self::Refused { .. }
            | Self::Operator { .. }
            | Self::Drill { .. }
            | Self::Companion { .. }
            | Self::TargetFailed { .. } => Ok(()),
        }
    }
}

/// The check as people call it.
fn the_check(name: &str) -> String {
    if name.is_empty() || name == "health" { "health check".into() } else { format!("check {name}") }
}

/// A share in percent, with a digit where it matters.
pub fn percent_of(share: f64) -> String {
    if share > 0.0 && share < 0.1 {
        format!("{:.1} %", share * 100.0)
    } else {
        format!("{:.0} %", share * 100.0)
    }
}

/// A latency as people write it.
pub(crate) fn seconds(secs: f64) -> String {
    if secs < 1.0 { format!("{:.0}ms", secs * 1000.0) } else { format!("{secs:.2}s") }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// `used` as a percentage of `limit`; zero if there is no limit.
pub(crate) fn percent(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 }
}
