//! From settings as typed to settings that hold: fills in what nobody said, and judges what depends on more than
//! one key. Reads nothing and knows no files: a clash names its keys, and the caller knows where they stand.

use std::time::Duration;

use super::file::{Health, RuleRow, Service};
use super::problem::Wrong;
use super::schema::Setting;
use super::values::time;
use crate::core::settings::{CheckKind, Condition, HealthCheck, HttpStep, Rule, ServiceSettings, Target};

/// Settings that cannot hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clash {
    /// The keys, dotted, below the service; the first is the one to change.
    pub(super) keys: Vec<String>,
    pub(super) what: Wrong,
}

impl Clash {
    pub(super) fn new(keys: &[&str], wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self { keys: keys.iter().map(|key| (*key).to_owned()).collect(), what: Wrong::new(wrong, right) }
    }
}

/// The settings of a service by its layers, the lowest (`[defaults]`) first, and what cannot be about them.
pub(super) fn resolve(layers: &[&Service]) -> (ServiceSettings, Vec<Clash>) {
    let mut clashes = Vec::new();
    for layer in layers {
        clashes.extend(two_endpoints(layer));
    }
    let typed = layers.iter().fold(Service::default(), |lower, layer| lower.under((*layer).clone()));
    clashes.extend(half_an_endpoint(&typed, layers));
    let base = ServiceSettings::default();
    let trial = typed.trial.map_or(base.trial, |span| span.0);
    // Whoever makes the trial longer wants it watched: what is on trial can always be rolled back.
    let watch = typed.watch.map_or(base.watch, |span| span.0).max(trial);
    let settings = ServiceSettings {
        mode: typed.mode.unwrap_or(base.mode),
        checks: typed
            .health
            .as_ref()
            .and_then(health)
            .map(|check| ("health".to_owned(), check))
            .into_iter()
            .collect(),
        dependencies: base.dependencies,
        metrics: base.metrics,
        prometheus: base.prometheus,
        logs: base.logs,
        alert_labels: base.alert_labels,
        profile: base.profile,
        baseline: base.baseline,
        memory_interval: typed.memory_interval.map_or(base.memory_interval, |span| span.0),
        host_memory: typed.host_memory.unwrap_or(base.host_memory),
        trial,
        watch,
        watch_slow: typed.watch_slow.map_or(base.watch_slow, |span| span.0).max(watch),
        grace: typed.grace.map_or(base.grace, |span| span.0),
        cooldown: typed.cooldown.map_or(base.cooldown, |span| span.0),
        attempts: typed.attempts.map_or(base.attempts, |count| count.0),
        attempts_window: typed.attempts_window.map_or(base.attempts_window, |span| span.0),
        verify: typed.verify.map_or(base.verify, |span| span.0),
        verify_timeout: typed.verify_timeout.map_or(base.verify_timeout, |span| span.0),
        keep: typed.keep.map_or(base.keep, |count| count.0),
        redeploy: typed.redeploy.unwrap_or(base.redeploy),
        stop_grace: typed.stop_grace.map_or(base.stop_grace, |span| span.0),
        prepare: typed.prepare.unwrap_or(base.prepare),
        rules: base.rules.into_iter().map(|row| rule(row, &typed)).collect(),
    };
    times(&settings, typed.health.as_ref(), &mut clashes);
    for row in &settings.rules {
        thresholds(row, &typed, &mut clashes);
    }
    (settings, clashes)
}

/// Five seconds: two failures in ten seconds are the runbooks' two in a row.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// Two seconds: whoever waits longer for a health answer is not healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

fn health(typed: &Health) -> Option<HealthCheck> {
    let target = match (&typed.url, &typed.port, &typed.path) {
        (Some(url), ..) => Target::Url(url.0.clone()),
        (None, Some(port), Some(path)) => Target::Replica {
            // The key's bounds are those of a port.
            port: u16::try_from(port.0).ok()?,
            path: path.0.clone(),
        },
        (None, ..) => return None,
    };
    let mut step = HttpStep::get(target);
    if let Some(statuses) = &typed.status {
        step.status.clone_from(&statuses.0);
    }
    Some(HealthCheck {
        kind: CheckKind::Http(vec![step]),
        interval: typed.interval.map_or(HEALTH_INTERVAL, |span| span.0),
        timeout: typed.timeout.map_or(HEALTH_TIMEOUT, |span| span.0),
        required: true,
    })
}

fn row_of<'a>(typed: &'a Service, name: &str) -> Option<&'a RuleRow> {
    typed.rules.as_ref()?.get(name)
}

fn rule(row: Rule, typed: &Service) -> Rule {
    let Some(over) = row_of(typed, &row.name) else {
        return row;
    };
    Rule {
        threshold: over.threshold.map_or(row.threshold, |number| number.0),
        against: over.against.unwrap_or(row.against),
        floor: over.floor.map_or(row.floor, |number| number.0),
        within: over.within.map_or(row.within, |span| span.0),
        sustained: over.sustained.map_or(row.sustained, |span| span.0),
        min_samples: over.min_samples.map_or(row.min_samples, |count| count.0),
        severity: over.severity.unwrap_or(row.severity),
        action: over.action.unwrap_or(row.action),
        ..row
    }
}

fn two_endpoints(layer: &Service) -> Option<Clash> {
    let health = layer.health.as_ref()?;
    let second = match (&health.url, &health.port, &health.path) {
        (Some(_), Some(_), _) => "health.port",
        (Some(_), None, Some(_)) => "health.path",
        (Some(_), None, None) | (None, ..) => return None,
    };
    Some(Clash::new(
        &["health.url", second],
        format!("{second} is set too"),
        "either the url (one address for the whole service) or port and path (on every replica) would be right",
    ))
}

/// A port without a path, or a path without a port. In `[defaults]` alone that is a half for others to complete.
fn half_an_endpoint(typed: &Service, layers: &[&Service]) -> Option<Clash> {
    let health = typed.health.as_ref().filter(|health| health.url.is_none())?;
    let above = layers.iter().skip(1).filter_map(|layer| layer.health.as_ref());
    let (mut port, mut path) = (false, false);
    for health in above {
        port |= health.port.is_some();
        path |= health.path.is_some();
    }
    match (&health.port, &health.path) {
        (Some(_), None) if port => Some(Clash::new(
            &["health.port"],
            "is set without health.path",
            "set health.path too, as in \"/healthz\"",
        )),
        (None, Some(_)) if path => Some(Clash::new(
            &["health.path"],
            "is set without health.port",
            "set health.port too: the port inside the container",
        )),
        (Some(_), None) | (None, Some(_)) | (Some(_), Some(_)) | (None, None) => None,
    }
}

fn times(settings: &ServiceSettings, health: Option<&Health>, clashes: &mut Vec<Clash>) {
    let mut at_least = |key: &str, span: Duration, other: &str, least: Duration, why: &str| {
        if span < least {
            clashes.push(Clash::new(
                &[key, other],
                format!("{key} = {} is shorter than {other} = {}, {why}", time(span), time(least)),
                format!("at least {} would be right, or a shorter {other}", time(least)),
            ));
        }
    };
    // Whether or not anything is asked yet.
    let interval = health.and_then(|health| health.interval).map_or(HEALTH_INTERVAL, |span| span.0);
    let timeout = health.and_then(|health| health.timeout).map_or(HEALTH_TIMEOUT, |span| span.0);
    let why = "so questions would pile up";
    at_least("health.interval", interval, "health.timeout", timeout, why);
    let why = "so no rollback could ever be proved";
    at_least("verify_timeout", settings.verify_timeout, "verify", settings.verify, why);
}

fn thresholds(row: &Rule, typed: &Service, clashes: &mut Vec<Clash>) {
    let name = &row.name;
    let key = format!("rules.{name}.threshold");
    match row.condition {
        Condition::Memory | Condition::MemoryLeak | Condition::CpuThrottling | Condition::ErrorRate => {
            if row.threshold > 1.0 {
                let right = if row.threshold <= 100.0 {
                    format!("{} would be right for {} %", row.threshold / 100.0, row.threshold)
                } else {
                    "a number up to 1 would be right, as in 0.9 for 90 %".to_owned()
                };
                let wrong = format!("{} is more than the whole memory", row.threshold);
                clashes.push(Clash::new(&[&key], wrong, right));
            }
        }
        Condition::Latency | Condition::LogErrors => {}
        Condition::Health
        | Condition::HealthFlapping
        | Condition::AdvisoryHealth
        | Condition::ContainerHealth
        | Condition::Exits
        | Condition::Down
        | Condition::OomKills
        | Condition::UserReports
        | Condition::Alerts => {
            if row.threshold.fract() != 0.0 || row.threshold < 1.0 {
                clashes.push(Clash::new(
                    &[&key],
                    format!("{} is not a count", row.threshold),
                    "a whole number from 1 would be right: this row counts",
                ));
            }
        }
    }
    let counts = Rule::matrix().iter().any(|shipped| shipped.name == *name && !shipped.within.is_zero());
    if !counts && row_of(typed, name).is_some_and(|row| row.within.is_some()) {
        let key = format!("rules.{name}.within");
        clashes.push(Clash::new(
            &[&key],
            "this row does not count events in a time",
            "remove it; `sustained` is how long the line must be crossed",
        ));
    }
}
