//! Assessing: each row of the matrix against the evidence. A row answers, with numbers; it never acts.

mod containers;
mod health;
mod people;
mod requests;

use super::baseline::History;
use super::decision::{Reason, percent_of as percent, seconds};
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
}

/// A row's answer together with why, if the line is crossed.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) row: RowSnapshot,
    /// The reason, if the row is pending or breached.
    pub(crate) reason: Option<Reason>,
}

impl Finding {
    /// Whether the line is crossed, long enough or not. A row that is only shown crosses nothing.
    pub(crate) fn crossed(&self) -> bool {
        self.row.action != Action::Monitor
            && matches!(self.row.answer, RowAnswer::Pending | RowAnswer::Breached)
    }
}

/// Judges every row.
pub(crate) fn assess(scene: Scene<'_>) -> Vec<Finding> {
    scene.settings.rules.iter().map(|rule| judge(rule, scene)).collect()
}

fn judge(rule: &Rule, scene: Scene<'_>) -> Finding {
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
    fn finding(&self, answer: RowAnswer, value: impl Into<String>) -> Finding {
        let row = RowSnapshot {
            rule: self.name.clone(),
            signal: self.signal(),
            condition: self.condition,
            value: value.into(),
            threshold: self.threshold_text(),
            baseline: None,
            samples: 0,
            since: None,
            answer,
            action: self.action,
            severity: self.severity,
        };
        Finding { row, reason: None }
    }

    fn crossed(&self, breached: bool, value: impl Into<String>, since: Timestamp, reason: Reason) -> Finding {
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

impl Finding {
    fn since(mut self, since: Timestamp) -> Self {
        self.row.since = Some(since);
        self
    }

    fn baseline(mut self, baseline: Option<String>) -> Self {
        self.row.baseline = baseline;
        self
    }

    fn samples(mut self, samples: u32) -> Self {
        self.row.samples = samples;
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
