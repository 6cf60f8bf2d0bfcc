//! From settings as typed to settings that hold: fills in what nobody said, and judges what depends on more than
//! one key. Knows no files of settings: a clash names its keys, and the caller knows where they stand.

use std::collections::BTreeSet;
use std::path::Path;

use super::file::Service;
use super::problem::Wrong;
use super::schema::Setting;
use super::values::time;
use super::{checks, hooks, over, rules, sources};
use crate::core::settings::ServiceSettings;

/// Settings that cannot hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clash {
    /// The keys, dotted, below the service; the first is the one to change.
    pub(super) keys: Vec<String>,
    pub(super) what: Wrong,
}

impl Clash {
    pub(super) fn new(keys: &[&str], wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self { keys: keys.iter().map(|key| dotted(key)).collect(), what: Wrong::new(wrong, right) }
    }

    /// Whether one of its keys, or a section above it, was taken out for a mistake of its own. `removed` are paths
    /// below the service.
    pub(super) fn depends_on<'a>(&self, removed: impl IntoIterator<Item = &'a Vec<String>>) -> bool {
        let keys: Vec<Vec<String>> = self.keys.iter().filter_map(|key| super::tree::split(key)).collect();
        removed.into_iter().any(|removed| keys.iter().any(|key| key.starts_with(removed)))
    }
}

/// The key as TOML has it: names with other signs than letters, digits, `_` and `-` stand in quotes. Only the names
/// of headers have them here, and they come last.
fn dotted(key: &str) -> String {
    match key.split_once(".headers.") {
        Some((above, header)) => {
            format!("{above}.headers.{}", super::tree::dotted(&[header.to_owned()]))
        }
        None => key.to_owned(),
    }
}

/// What is known besides the layers of a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Whose settings these are; none for `[defaults]` by itself.
    pub(super) service: Option<&'a str>,
    /// Where systemd put credentials.
    pub(super) credentials: Option<&'a Path>,
    /// The names of checks that any service has.
    pub(super) checks: &'a BTreeSet<String>,
    /// How many people have a token of their own.
    pub(super) people: usize,
}

/// What is gathered while settings are made.
pub(super) struct Resolving<'a> {
    pub(super) context: Context<'a>,
    pub(super) clashes: Vec<Clash>,
}

impl Resolving<'_> {
    pub(super) fn clash(&mut self, keys: &[&str], wrong: impl Into<String>, right: impl Into<String>) {
        self.clashes.push(Clash::new(keys, wrong, right));
    }
}

/// The settings of a service by its layers, the lowest (`[defaults]`) first, and what cannot be about them. The
/// layers hold what people said, and `base` the rest: what is shipped, which is what settings are by default, as a test
/// compares; or what was in force once.
pub(super) fn resolve(
    base: &ServiceSettings,
    layers: &[&Service],
    context: Context<'_>,
) -> (ServiceSettings, Vec<Clash>) {
    let mut resolving = Resolving { context, clashes: Vec::new() };
    let typed = layers.iter().fold(Service::default(), |lower, layer| lower.under((*layer).clone()));
    let trial = typed.trial.map_or(base.trial, |span| span.0);
    // Whoever makes the trial longer wants it watched: what is on trial can always be rolled back.
    let watch = typed.watch.map_or(base.watch, |span| span.0).max(trial);
    let hooks = hooks::hooks(&typed, layers, &base.hooks, &mut resolving);
    let settings = ServiceSettings {
        mode: typed.mode.unwrap_or(base.mode),
        checks: over::checks(&base.checks, &typed, checks::checks(&typed, layers, &mut resolving)),
        dependencies: {
            let made = checks::dependencies(&typed, layers, &mut resolving);
            over::dependencies(&base.dependencies, &typed, made)
        },
        metrics: {
            let made = sources::metrics(&typed, layers, &mut resolving);
            over::metrics(base.metrics.as_ref(), &typed, made)
        },
        prometheus: {
            let made = sources::prometheus(&typed, layers, &mut resolving);
            over::prometheus(base.prometheus.as_ref(), &typed, made)
        },
        logs: sources::logs(&typed, base.logs.clone()),
        alert_labels: match &typed.alert_labels {
            Some(_) => sources::alert_labels(&typed, layers, &mut resolving),
            None => base.alert_labels.clone(),
        },
        memory_interval: typed.memory_interval.map_or(base.memory_interval, |span| span.0),
        host_memory: typed.host_memory.unwrap_or(base.host_memory),
        trial,
        watch,
        watch_slow: typed.watch_slow.map_or(base.watch_slow, |span| span.0).max(watch),
        grace: typed.grace.map_or(base.grace, |span| span.0),
        profile: typed.profile.unwrap_or(base.profile),
        baseline: typed.baseline.map_or(base.baseline, |span| span.0),
        deadline: typed.deadline.map_or(base.deadline, |span| span.0),
        approvals: typed.approvals.map_or(base.approvals, |count| count.0),
        cooldown: typed.cooldown.map_or(base.cooldown, |span| span.0),
        attempts: typed.attempts.map_or(base.attempts, |count| count.0),
        attempts_window: typed.attempts_window.map_or(base.attempts_window, |span| span.0),
        verify: typed.verify.map_or(base.verify, |span| span.0),
        verify_timeout: typed.verify_timeout.map_or(base.verify_timeout, |span| span.0),
        keep: typed.keep.map_or(base.keep, |count| count.0),
        redeploy: typed.redeploy.unwrap_or(base.redeploy),
        stop_grace: typed.stop_grace.map_or(base.stop_grace, |span| span.0),
        prepare: typed.prepare.unwrap_or(base.prepare),
        order: typed.order.unwrap_or(base.order),
        executor: typed.executor.unwrap_or(base.executor),
        hindrance: base.hindrance.clone(),
        check_latency: typed.check_latency.unwrap_or(base.check_latency),
        pin: typed.pin.unwrap_or(base.pin),
        schema: typed.schema.or(base.schema),
        migrations: hooks::migrations(&typed, layers, &base.migrations, &mut resolving),
        rules: rules::rules(base.rules.clone(), &hooks, &typed, &mut resolving),
        hooks,
    };
    people(&settings, &mut resolving);
    if settings.verify_timeout < settings.verify {
        let (timeout, verify) = (time(settings.verify_timeout), time(settings.verify));
        resolving.clash(
            &["verify_timeout", "verify"],
            format!(
                "verify_timeout = {timeout} is shorter than verify = {verify}, so no rollback could ever be proved"
            ),
            format!("at least {verify} would be right, or a shorter verify"),
        );
    }
    (settings, resolving.clashes)
}

/// Whoever wants different people to agree has to know them.
fn people(settings: &ServiceSettings, resolving: &mut Resolving<'_>) {
    let people = resolving.context.people;
    if settings.approvals > 1 && (settings.approvals as usize) > people {
        resolving.clash(
            &["approvals"],
            format!(
                "approvals = {} asks for different people, and {people} of them {} known",
                settings.approvals,
                if people == 1 { "is" } else { "are" }
            ),
            "an [api.operators.NAME] with a token of their own for each of them would be right, or approvals = 1",
        );
    }
}
