//! Assessing: each row of the matrix against the evidence. A row answers, with numbers; it never acts.

use std::time::Duration;

use super::decision::Reason;
use super::observation::{ContainerHealth, Phase, Replica};
use super::settings::{Action, Condition, Rule, ServiceSettings};
use super::snapshot::{RowAnswer, RowSnapshot};
use super::time::{Timestamp, human};
use super::window::{ERRORS_IN_A_ROW, Evidence, Streak, count};

/// How far back a kill for want of memory looks for a level over the line (decision.md, 4.2).
const PEAK_WITHIN: Duration = Duration::from_secs(5 * 60);

/// What a row is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) now: Timestamp,
    pub(crate) settings: &'a ServiceSettings,
    pub(crate) evidence: &'a Evidence,
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
    /// Whether the line is crossed, long enough or not.
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
        Condition::Health => health(rule, scene),
        Condition::ContainerHealth => container_health(rule, scene),
        Condition::Down => down(rule, scene),
        Condition::Exits => crash_loop(rule, scene),
        Condition::OomKills => oom(rule, scene),
        Condition::Memory => memory(rule, scene),
        Condition::HealthFlapping
        | Condition::AdvisoryHealth
        | Condition::MemoryLeak
        | Condition::CpuThrottling
        | Condition::ErrorRate
        | Condition::Latency
        | Condition::LogErrors
        | Condition::UserReports
        | Condition::Alerts => rule.finding(RowAnswer::Off, "not configured"),
    }
}

/// Consecutive failures of the worst check, sustained from the first to the last of them.
fn health(rule: &Rule, scene: Scene<'_>) -> Finding {
    if scene.settings.checks.is_empty() {
        return rule.finding(RowAnswer::Off, "no health check configured");
    }
    let Some(worst) =
        scene.evidence.checks.values().max_by_key(|s| (s.failures, std::cmp::Reverse(s.samples)))
    else {
        return rule.finding(RowAnswer::NoData, "not asked yet");
    };
    if let Some((_, since, why)) = worst.unavailable.as_ref().filter(|(n, ..)| *n >= ERRORS_IN_A_ROW) {
        return rule.finding(RowAnswer::CannotMeasure, why).since(*since);
    }
    let Some((first, last)) = worst.failing else {
        let answer = if worst.samples == 0 { RowAnswer::NoData } else { RowAnswer::Ok };
        return rule
            .finding(answer, format!("0 failures; last: {}", or_nothing(&worst.last)))
            .samples(worst.samples);
    };
    let starting = !worst.succeeded && scene.now.since(scene.deployed) < scene.settings.grace;
    let value = format!(
        "{} failures in a row over {}; last: {}",
        worst.failures,
        human(last.since(first)),
        worst.last
    );
    if starting {
        let grace = human(scene.settings.grace);
        return rule
            .finding(RowAnswer::NoData, format!("starting (grace {grace}): {value}"))
            .samples(worst.samples);
    }
    let over = last.since(first);
    let breached = f64::from(worst.failures) >= rule.threshold
        && over >= rule.sustained
        && worst.samples >= rule.min_samples;
    let reason = health_reason(rule, worst, over);
    rule.crossed(breached, value, first, reason).samples(worst.samples)
}

fn health_reason(rule: &Rule, worst: &Streak, over: Duration) -> Reason {
    Reason::HealthFailing {
        failures: worst.failures,
        over,
        threshold: whole(rule.threshold),
        sustained: rule.sustained,
        last: worst.last.clone(),
    }
}

/// Docker's own HEALTHCHECK: it has already counted `retries` failures in a row.
fn container_health(rule: &Rule, scene: Scene<'_>) -> Finding {
    if scene.replicas.iter().all(|r| r.health.is_none()) {
        return rule.finding(RowAnswer::Off, "no HEALTHCHECK");
    }
    if let Some((since, output)) = scene.evidence.unhealthy.values().min_by_key(|(since, _)| *since) {
        let over = scene.now.since(*since);
        let reason = Reason::ContainerUnhealthy { over, output: output.clone() };
        return rule
            .crossed(over >= rule.sustained, format!("unhealthy for {}", human(over)), *since, reason)
            .samples(1);
    }
    let waiting = scene.replicas.iter().any(|r| r.health == Some(ContainerHealth::Starting));
    if waiting {
        rule.finding(RowAnswer::NoData, "starting")
    } else {
        rule.finding(RowAnswer::Ok, "healthy").samples(1)
    }
}

/// Exits within the window: differences, never the engine's cumulative count.
fn crash_loop(rule: &Rule, scene: Scene<'_>) -> Finding {
    let exits: Vec<_> = scene.evidence.exits_within(scene.now, rule.within).collect();
    let n = count(exits.len());
    let value = format!("{n} exits in {}", human(rule.within));
    let (Some((first, _)), Some((_, code))) = (exits.first(), exits.last()) else {
        return rule.finding(RowAnswer::Ok, value);
    };
    let reason =
        Reason::CrashLoop { exits: n, within: rule.within, threshold: whole(rule.threshold), code: *code };
    rule.crossed(f64::from(n) >= rule.threshold, value, *first, reason).samples(n)
}

/// It ended by itself, or never started, and nobody starts it again.
fn down(rule: &Rule, scene: Scene<'_>) -> Finding {
    let Some((since, how)) = scene.evidence.down.values().min_by_key(|(since, _)| *since) else {
        let running = scene.replicas.iter().filter(|r| r.phase == Phase::Running).count();
        return rule.finding(RowAnswer::Ok, format!("{running} of {} running", scene.replicas.len()));
    };
    let over = scene.now.since(*since);
    let reason = Reason::Down { over, how: how.clone() };
    rule.crossed(over >= rule.sustained, format!("down for {}: {how}", human(over)), *since, reason)
        .samples(1)
}

/// Kills for want of memory: as many as the row says, or one on top of a level over the memory row's line.
fn oom(rule: &Rule, scene: Scene<'_>) -> Finding {
    let kills: Vec<_> =
        scene.evidence.oom_kills.iter().filter(|at| scene.now.since(**at) <= rule.within).collect();
    let n = count(kills.len());
    let value = format!("{n} kills in {}", human(rule.within));
    let (Some(first), Some(last)) = (kills.first(), kills.last()) else {
        return rule.finding(RowAnswer::Ok, value);
    };
    let peak =
        scene.evidence.levels.values().filter_map(|l| l.peak(**last, PEAK_WITHIN)).max_by(f64::total_cmp);
    let line =
        scene.settings.rules.iter().find(|r| r.condition == Condition::Memory).map_or(1.0, |r| r.threshold);
    let over_the_line = peak.is_some_and(|peak| peak > line);
    let reason = Reason::OutOfMemory { kills: n, within: rule.within, peak_percent: peak.map(|p| p * 100.0) };
    rule.crossed(f64::from(n) >= rule.threshold || over_the_line, value, **first, reason).samples(n)
}

/// Every sample of the last while above the share, after the grace in which caches fill.
fn memory(rule: &Rule, scene: Scene<'_>) -> Finding {
    let levels = &scene.evidence.levels;
    let from = scene.deployed + scene.settings.grace;
    let above = levels.values().filter_map(|l| l.above(rule.threshold, from).map(|(since, n)| (since, n, l)));
    if let Some((since, n, l)) = above.min_by_key(|(since, ..)| *since) {
        let Some((last, used, limit)) = l.samples.back().copied() else {
            return rule.finding(RowAnswer::NoData, "not measured yet");
        };
        let over = last.since(since);
        let value = format!("{:.1} % for {}", super::decision::percent(used, limit), human(over));
        let reason = Reason::MemoryHigh { used, limit, threshold: rule.threshold, over, samples: n };
        return rule
            .crossed(over >= rule.sustained && n >= rule.min_samples, value, since, reason)
            .samples(n);
    }
    let last = levels.values().filter_map(|l| l.samples.back().map(|(_, used, limit)| (l, *used, *limit)));
    let highest =
        last.max_by(|a, b| super::decision::percent(a.1, a.2).total_cmp(&super::decision::percent(b.1, b.2)));
    match highest {
        Some((l, used, limit)) => rule
            .finding(RowAnswer::Ok, format!("{:.1} %", super::decision::percent(used, limit)))
            .samples(count(l.samples.len())),
        None => match levels.values().find_map(|l| l.unavailable.as_ref().or(l.not_applicable.as_ref())) {
            Some(why) if levels.values().any(|l| l.unavailable.is_some()) => {
                rule.finding(RowAnswer::CannotMeasure, why)
            }
            Some(why) => rule.finding(RowAnswer::Off, why),
            None => rule.finding(RowAnswer::NoData, "not measured yet"),
        },
    }
}

impl Rule {
    fn finding(&self, answer: RowAnswer, value: impl Into<String>) -> Finding {
        let row = RowSnapshot {
            rule: self.name.clone(),
            signal: self.signal(),
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
        match self.condition {
            Condition::Health | Condition::AdvisoryHealth => {
                format!("{}+ in a row over {}", whole(self.threshold), human(self.sustained))
            }
            Condition::ContainerHealth => "unhealthy".into(),
            Condition::Down => format!("down for {}", human(self.sustained)),
            Condition::Exits | Condition::OomKills | Condition::HealthFlapping | Condition::UserReports => {
                format!("{}+ in {}", whole(self.threshold), human(self.within))
            }
            Condition::Memory
            | Condition::MemoryLeak
            | Condition::CpuThrottling
            | Condition::ErrorRate
            | Condition::Latency
            | Condition::LogErrors
            | Condition::Alerts => {
                format!("> {:.0} % for {}", self.threshold * 100.0, human(self.sustained))
            }
        }
    }
}

impl Finding {
    fn since(mut self, since: Timestamp) -> Self {
        self.row.since = Some(since);
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
