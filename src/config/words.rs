//! Settings that are one of a closed list of words.

use serde::{Deserialize, Deserializer};

use super::announce::MediumWord;
use super::nearest::nearest;
use super::problem::Wrong;
use super::schema::{Setting, Shape};
use super::tree::{Node, Value};
use super::values::{quoted, shown};
use crate::core::migration::SchemaChange;
use crate::core::settings::{
    AccessLog, Action, Against, CheckLatency, Condition, Executor, HookPhase, LatencyUnit, Mode, OnFailure,
    Order, Profile, Redeploy, Severity, WindowKind,
};
use crate::notify::MailTls;
use crate::notify::plan::Audience;
use crate::telemetry::LogFormat;

/// A closed list of words.
pub(super) trait Words: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn read_word<T: Words>(node: &Node) -> Result<Value, Wrong> {
    let words = || T::WORDS.iter().map(|(word, _)| *word);
    let (Value::Text(typed) | Value::Loose(typed)) = &node.value else {
        return Err(Wrong::new(format!("{} is not a word", shown(node)), one_of(words())));
    };
    if words().any(|word| word == typed) {
        return Ok(Value::Text(typed.clone()));
    }
    let right = match nearest(typed, words()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => one_of(words()),
    };
    Err(Wrong::new(format!("{} is not one of its words", quoted(typed)), right))
}

fn one_of(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last} would be right", rest.join(", ")),
        _ => words.concat(),
    }
}

macro_rules! words {
    ($($type:ty { $($word:literal => $variant:ident),* $(,)? })*) => {$(
        impl Words for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl Setting for $type {
            const SHAPE: &'static Shape = &Shape::Leaf {
                read: read_word::<Self>,
                secret: false,
            };
        }
    )*};
}

words! {
    Mode { "act" => Act, "dry-run" => DryRun }
    Redeploy { "watch" => Watch, "refuse" => Refuse }
    Severity { "critical" => Critical, "high" => High, "medium" => Medium, "low" => Low }
    Action { "rollback" => Rollback, "evaluate" => Evaluate, "monitor" => Monitor, "off" => Off }
    Against { "absolute" => Absolute, "baseline" => Baseline }
    Order { "auto" => Auto, "stop-first" => StopFirst, "start-first" => StartFirst }
    Executor { "auto" => Auto, "api" => Api, "compose" => Compose }
    WindowKind { "maintenance" => Maintenance, "freeze" => Freeze }
    SchemaChange { "none" => None, "additive" => Additive, "breaking" => Breaking }
    HookPhase {
        "before_rollback" => BeforeRollback,
        "after_stop" => AfterStop,
        "before_verify" => BeforeVerify,
        "after_rollback" => AfterRollback,
        "on_failure" => OnFailure,
        "mitigation" => Mitigation,
    }
    OnFailure { "stop" => Stop, "continue" => Continue }
    CheckLatency { "auto" => Auto, "off" => Off }
    Profile { "fast" => Fast, "cautious" => Cautious }
    AccessLog { "off" => Off, "auto" => Auto, "common" => Common, "json" => Json, "logfmt" => Logfmt }
    LatencyUnit { "auto" => Auto, "s" => Seconds, "ms" => Millis, "us" => Micros, "ns" => Nanos }
    Condition {
        "error_rate" => ErrorRate,
        "latency" => Latency,
        "health" => Health,
        "health_flapping" => HealthFlapping,
        "advisory_health" => AdvisoryHealth,
        "container_health" => ContainerHealth,
        "exits" => Exits,
        "down" => Down,
        "oom_kills" => OomKills,
        "memory" => Memory,
        "memory_leak" => MemoryLeak,
        "cpu_throttling" => CpuThrottling,
        "log_errors" => LogErrors,
        "user_reports" => UserReports,
        "alerts" => Alerts,
    }
    MediumWord {
        "slack" => Slack,
        "pagerduty" => PagerDuty,
        "email" => Email,
        "webhook" => Webhook,
        "alertmanager" => Alertmanager,
    }
    Audience { "internal" => Internal, "users" => Users }
    MailTls { "starttls" => Starttls, "implicit" => Implicit, "none" => None }
    Enroll { "labelled" => Labelled, "all" => All, "named" => Named }
    LogFormat { "auto" => Auto, "text" => Text, "json" => Json }
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let typed = String::deserialize(deserializer)?;
        let found = Self::WORDS.iter().find(|(word, _)| *word == typed);
        found.map(|(_, format)| *format).ok_or_else(|| serde::de::Error::custom("is not a log format"))
    }
}

/// Which containers are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Enroll {
    /// Those that ask for it by label, and those that the configuration names.
    Labelled,
    /// All, except those that refuse by label.
    All,
    /// Those that the configuration names, and no other.
    Named,
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn every_word_means_to_serde_what_it_means_here() {
        fn check<T: Words + PartialEq + fmt::Debug + serde::de::DeserializeOwned>() {
            for (word, meaning) in T::WORDS {
                let read: T = serde_json::from_value((*word).into()).unwrap();
                assert_eq!(read, *meaning);
            }
        }
        check::<Mode>();
        check::<Redeploy>();
        check::<Severity>();
        check::<Action>();
        check::<Against>();
        check::<Order>();
        check::<Executor>();
        check::<SchemaChange>();
        check::<HookPhase>();
        check::<OnFailure>();
        check::<CheckLatency>();
        check::<Profile>();
        check::<AccessLog>();
        check::<LatencyUnit>();
        check::<Condition>();
        check::<MediumWord>();
        check::<Audience>();
        check::<MailTls>();
        assert_eq!(Condition::WORDS.len(), Condition::ALL.len());
        check::<Enroll>();
        check::<LogFormat>();
    }
}
