//! Replay: the core once more, over what was written down, thousands of times faster than it happened.
//!
//! A plain trace ([`trace`]) is JSON Lines that anybody can write; it is played to a fleet of its own ([`world`])
//! in which nothing is ever touched. What the core decides comes back as [`Line`]s. The daemon's own record
//! ([`record`], written by [`crate::flight`]) is played from its checkpoints, and must give what it gave then; or it is
//! judged [`anew`], by other settings.
//! A Prometheus server's [`history`] becomes a trace as well, with [`near_miss`]es beside the decisions.

pub mod trace;
mod bare;
mod world;
#[cfg(not(fuzzing))]
pub mod record;
#[cfg(not(fuzzing))]
pub mod anew;
pub mod history;
pub mod near_miss;
pub mod backtest;

use serde::Serialize;

use crate::core::decision::{Decision, Gate, Verdict};

pub use trace::{Trace, Wrong};
pub use world::{run_trace, watch_trace};

/// One decision, as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When, in seconds, in the trace's own time.
    #[serde(serialize_with = "seconds")]
    pub t: f64,
    /// About which service.
    pub service: String,
    /// `rollback`, `evaluate` or `hold`.
    pub decision: &'static str,
    /// What it was decided by: the row's name, where rows that judge one signal share one.
    pub signal: String,
    /// Why, and what stood against it, as people read it.
    pub reason: String,
}

impl Line {
    /// The line for `decision`, made at `t`.
    pub fn new(t: f64, decision: &Decision) -> Self {
        Self::without_deployment(t, decision, None)
    }

    /// The same; `instead` is said in place of how long ago the deployment was, where there was none that anybody knows.
    pub fn without_deployment(t: f64, decision: &Decision, instead: Option<&str>) -> Self {
        let mut reason = decision.reason.to_string();
        if let Some(instead) = instead {
            let onset = decision.reason.onset();
            let said = onset.and_then(|onset| Some(reason.strip_suffix(&onset)?.to_owned()));
            reason = format!("{}{instead}", said.unwrap_or_else(|| format!("{reason}; ")));
        }
        if let Some(denied) = decision.gates.last().filter(|answer| !answer.allow) {
            let what = match decision.verdict {
                Verdict::Hold => "held",
                Verdict::Rollback | Verdict::Evaluate => "a person decides",
            };
            let made_up = instead.is_some() && denied.gate == Gate::NewEnough;
            let why = if made_up { "only a new release is blamed without asking" } else { &denied.why };
            reason.push_str(&format!("; {what}: {why} ({})", denied.gate));
        }
        Self {
            t,
            service: decision.service.to_string(),
            decision: decision.verdict.name(),
            signal: signal(decision),
            reason,
        }
    }
}

/// What the decision was made by. Rows that judge one thing in different ways go by one name.
fn signal(decision: &Decision) -> String {
    match decision.rule.as_deref() {
        Some("health" | "health_prolonged" | "health_flapping" | "health_advisory" | "container_health") => {
            "health".into()
        }
        Some("crash_loop" | "down") => "crash_loop".into(),
        Some(row) => row.into(),
        None => decision.reason.kind().into(),
    }
}

/// Whole seconds as people write them, without a point.
fn seconds<S: serde::Serializer>(t: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if t.fract() == 0.0 && t.abs() < EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "a whole number that fits was just asked for")]
        return serializer.serialize_i64(*t as i64);
    }
    serializer.serialize_f64(*t)
}
