//! Assessing: each row of the matrix against the evidence. A row answers, with numbers; it never acts.

mod containers;
mod health;
mod pace;
mod people;
mod requests;

use std::borrow::Cow;

pub(crate) use requests::slow_spells;
pub use requests::{Window, windows};

use super::baseline::History;
use super::decision::{Reason, percent_of as percent, seconds};
use super::gate::Symptom;
use super::observation::Replica;
use super::settings::{Action, Against, Condition, Rule, ServiceSettings};
use super::snapshot::{RowAnswer, RowSnapshot};
use super::time::{Timestamp, human};
use super::window::{Before, Evidence};

/// What a row is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) now: Timestamp,
    pub(crate) settings: &'a ServiceSettings,
    pub(crate) evidence: &'a Evidence,
    /// What it was like before the deployment.
    pub(crate) before: &'a Before,
    /// What it was like on earlier days.
    pub(crate) history: &'a History,
    pub(crate) replicas: &'a [Replica],
    /// When the current release appeared.
    pub(crate) deployed: Timestamp,
    /// Whether a person is going to read it: most of the time a verdict would be spent on putting numbers into words.
    pub(crate) aloud: bool,
}

impl Scene<'_> {
    /// What is worth saying only to a person.
    fn say(self, words: impl FnOnce() -> String) -> Cow<'static, str> {
        if self.aloud { words().into() } else { Cow::Borrowed("") }
    }
}

/// A row's answer together with why, if the line is crossed.
#[derive(Debug)]
pub(crate) struct Finding<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) answer: RowAnswer,
    /// The value now, in words; why, if there is none. Numbers only if a person asked.
    pub(crate) value: Cow<'static, str>,
    baseline: Option<String>,
    samples: u32,
    /// The share of requests that are bad now; zero for rows that count none.
    pub(crate) share: f64,
    /// Since when the line is crossed, or nothing can be measured.
    pub(crate) since: Option<Timestamp>,
    /// The reason, if the row is pending or breached.
    pub(crate) reason: Option<Reason>,
}

impl Finding<'_> {
    /// Whether the line is crossed, long enough or not. A row that is only shown crosses nothing.
    pub(crate) fn crossed(&self) -> bool {
        self.rule.action != Action::Monitor && matches!(self.answer, RowAnswer::Pending | RowAnswer::Breached)
    }

    /// The row for people and other programs.
    pub(crate) fn row(&self) -> RowSnapshot {
        RowSnapshot {
            rule: self.rule.name.clone(),
            signal: self.rule.signal(),
            condition: self.rule.condition,
            value: self.value.clone().into_owned(),
            threshold: self.rule.threshold_text(),
            baseline: self.baseline.clone(),
            samples: self.samples,
            since: self.since,
            answer: self.answer,
            action: self.rule.action,
            severity: self.rule.severity,
        }
    }
}

/// Judges every row.
pub(crate) fn assess<'a>(rules: &'a [Rule], scene: Scene<'_>) -> Vec<Finding<'a>> {
    rules.iter().map(|rule| judge(rule, scene)).collect()
}

fn judge<'a>(rule: &'a Rule, scene: Scene<'_>) -> Finding<'a> {
    if rule.action == Action::Off {
        return rule.finding(RowAnswer::Off, "switched off");
    }
    match rule.condition {
        Condition::Health => health::failing(rule, scene, true),
        Condition::AdvisoryHealth => health::failing(rule, scene, false),
        Condition::HealthFlapping => health::flapping(rule, scene),
        Condition::ContainerHealth => health::container(rule, scene),
        Condition::Alerts => health::alerts(rule, scene),
        Condition::Exits => containers::crash_loop(rule, scene),
        Condition::Down => containers::down(rule, scene),
        Condition::OomKills => containers::oom(rule, scene),
        Condition::Memory => containers::memory(rule, scene),
        Condition::MemoryLeak => containers::leak(rule, scene),
        Condition::CpuThrottling => containers::throttling(rule, scene),
        Condition::ErrorRate => requests::error_rate(rule, scene),
        Condition::Latency => requests::latency(rule, scene),
        Condition::LogErrors => people::log_errors(rule, scene),
        Condition::UserReports => people::user_reports(rule, scene),
    }
}

impl Rule {
    fn finding(&self, answer: RowAnswer, value: impl Into<Cow<'static, str>>) -> Finding<'_> {
        let (value, rule) = (value.into(), self);
        Finding { rule, answer, value, baseline: None, samples: 0, share: 0.0, since: None, reason: None }
    }

    fn crossed(
        &self,
        breached: bool,
        value: impl Into<Cow<'static, str>>,
        since: Timestamp,
        reason: Reason,
    ) -> Finding<'_> {
        let answer = if breached { RowAnswer::Breached } else { RowAnswer::Pending };
        Finding { reason: Some(reason), ..self.finding(answer, value).since(since) }
    }

    /// The row's condition as the runbooks write it.
    fn threshold_text(&self) -> String {
        let times = |unit: &str| match self.against {
            Against::Absolute => format!("> {}{unit}", self.threshold),
            Against::Baseline => format!("> {}x baseline", self.threshold),
        };
        match self.condition {
            Condition::Health | Condition::AdvisoryHealth => {
                format!("{}+ in a row over {}", whole(self.threshold), human(self.sustained))
            }
            Condition::ContainerHealth => "unhealthy".into(),
            Condition::Down => format!("down for {}", human(self.sustained)),
            Condition::Exits | Condition::OomKills | Condition::HealthFlapping | Condition::UserReports => {
                format!("{}+ in {}", whole(self.threshold), human(self.within))
            }
            Condition::Alerts => format!("{}+ firing", whole(self.threshold)),
            Condition::Memory | Condition::CpuThrottling => {
                format!("> {} for {}", percent(self.threshold), human(self.sustained))
            }
            Condition::MemoryLeak => format!("{} within {}", percent(self.threshold), human(self.within)),
            Condition::ErrorRate if self.against == Against::Absolute => {
                format!("> {} for {}", percent(self.threshold), human(self.sustained))
            }
            Condition::Latency if self.against == Against::Absolute => {
                format!("p99 > {} for {}", seconds(self.threshold), human(self.sustained))
            }
            Condition::Latency => format!("p99 {} for {}", times(""), human(self.sustained)),
            Condition::ErrorRate => format!("{} for {}", times(""), human(self.sustained)),
            Condition::LogErrors => format!("{} for {}", times(" a minute"), human(self.sustained)),
        }
    }
}

impl<'a> Finding<'a> {
    /// What the gates are asked about.
    pub(crate) fn symptom(&self) -> Symptom<'a> {
        let rule = self.rule;
        Symptom { rule: &rule.name, condition: rule.condition, onset: self.since, share: self.share }
    }
}

impl Finding<'_> {
    fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    fn baseline(mut self, baseline: Option<String>) -> Self {
        self.baseline = baseline;
        self
    }

    fn samples(mut self, samples: u32) -> Self {
        self.samples = samples;
        self
    }
}

/// A count threshold; `config/` lets only whole numbers through.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "validated: whole, positive, small"
)]
fn whole(threshold: f64) -> u32 {
    threshold as u32
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "none yet" } else { text }
}
