//! What is right and may yet not be meant: said by `backstop check-config`, and by nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::file::{ASKED, Service};
use super::settings::Settings;
use super::values::time;
use crate::core::release::ServiceName;
use crate::core::settings::{CheckKind, Dependency, HealthCheck, ServiceSettings, Text};

/// All warnings, each a sentence that begins with the setting it is about.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut found: Vec<String> = settings.open_secrets.iter().map(|(key, place)| {
        format!("{place}: {key}: this value is a secret by its name, and stands in the open; {{ file = \"/run/secrets/...\" }} would keep it out of this file and of the flight record")
    }).collect();
    found.extend(raised("defaults", &settings.defaults, &Service::default()));
    let mut depends: BTreeMap<ServiceName, BTreeSet<ServiceName>> = BTreeMap::new();
    for name in settings.named() {
        let typed = settings.services.get(name.as_str());
        found.extend(typed.into_iter().flat_map(|typed| unasked(&name, typed, settings)));
        found.extend(
            typed
                .into_iter()
                .flat_map(|typed| raised(&format!("services.{name}"), typed, &settings.defaults)),
        );
        // Labels may say more; what they say is judged when a container has them.
        let Ok(resolved) = settings.service(&name, &BTreeMap::new()) else {
            continue;
        };
        for (what, dependency) in &resolved.dependencies {
            if let Dependency::Service(other) = dependency {
                depends.entry(name.clone()).or_default().insert(other.clone());
                if !settings.services.contains_key(other.as_str()) {
                    found.push(format!(
                        "services.{name}.dependencies.{what}: no service called {other} is named here; it counts as soon as one of that name is watched"
                    ));
                }
            }
        }
        found.extend(files(&name, &resolved));
    }
    found.extend(circle(&depends));
    found
}

/// Times after a deployment that are shorter than they can be: what is on trial is always watched.
fn raised(section: &str, own: &Service, below: &Service) -> Vec<String> {
    let base = ServiceSettings::default();
    let trial = own.trial.or(below.trial).map_or(base.trial, |span| span.0);
    let typed = own.watch.or(below.watch).map(|span| span.0);
    let watch = typed.unwrap_or(base.watch).max(trial);
    let slow = own.watch_slow.or(below.watch_slow).map(|span| span.0);
    let sentence = |key: &str, typed: Duration, than: &str, least: Duration| {
        let (typed, least) = (time(typed), time(least));
        format!(
            "{section}.{key}: {typed} is shorter than `{than}`, and what is on trial can always be rolled back: {least} is in force"
        )
    };
    let own_watch = own.watch.is_some() || own.trial.is_some();
    let of_watch = typed.filter(|typed| own_watch && *typed < trial);
    let of_slow = slow.filter(|slow| (own_watch || own.watch_slow.is_some()) && *slow < watch);
    let of_watch = of_watch.map(|typed| sentence("watch", typed, "trial", trial));
    let of_slow = of_slow.map(|typed| sentence("watch_slow", typed, "watch", watch));
    of_watch.into_iter().chain(of_slow).collect()
}

/// Checks and sources that say not what to ask.
fn unasked(name: &ServiceName, own: &Service, settings: &Settings) -> Vec<String> {
    let keys = ASKED.iter().flat_map(|way| way.leads);
    let mut silent = Vec::new();
    let defaults = &settings.defaults;
    let says = |has: &dyn Fn(&str) -> bool| keys.clone().any(|key| has(key)) || has("enabled");
    if let Some(check) = &own.health {
        let below = defaults.health.clone().unwrap_or_default();
        if !says(&|key| check.has(key) || below.has(key)) {
            silent.push("health".to_owned());
        }
    }
    for (check, typed) in own.checks.iter().flatten() {
        let below = defaults.checks.iter().flatten().find(|(name, _)| *name == check);
        if !says(&|key| typed.has(key) || below.is_some_and(|(_, below)| below.has(key))) {
            silent.push(format!("checks.{check}"));
        }
    }
    for (dependency, typed) in own.dependencies.iter().flatten() {
        let below = defaults.dependencies.iter().flatten().find(|(name, _)| *name == dependency);
        if !says(&|key| typed.has(key) || below.is_some_and(|(_, below)| below.has(key))) {
            silent.push(format!("dependencies.{dependency}"));
        }
    }
    if let Some(metrics) = &own.metrics {
        let below = defaults.metrics.clone().unwrap_or_default();
        let has = |key: &str| metrics.has(key) || below.has(key);
        if !["url", "port", "enabled"].into_iter().any(has) {
            silent.push("metrics".to_owned());
        }
    }
    let sentence = |what: String| {
        format!("services.{name}.{what}: says not where to ask, so nothing is asked, unless labels say it")
    };
    silent.into_iter().map(sentence).collect()
}

/// Files that will be read later, and cannot be read now.
fn files(name: &ServiceName, settings: &ServiceSettings) -> Vec<String> {
    let mut paths: Vec<(String, &Path)> = Vec::new();
    for (check, of) in &settings.checks {
        paths.extend(files_of(of).into_iter().map(|path| (format!("the check {check}"), path)));
    }
    for (dependency, of) in &settings.dependencies {
        if let Dependency::Check(of) = of {
            paths.extend(files_of(of).into_iter().map(|path| (format!("the dependency {dependency}"), path)));
        }
    }
    if let Some(metrics) = &settings.metrics {
        let all = metrics.token_file.iter().chain(&metrics.tls.ca_file);
        paths.extend(all.map(|path| ("metrics".to_owned(), path.as_path())));
    }
    if let Some(prometheus) = &settings.prometheus {
        let all = prometheus.token_file.iter().chain(&prometheus.tls.ca_file);
        paths.extend(all.map(|path| ("prometheus".to_owned(), path.as_path())));
    }
    let unreadable = |(what, path): (String, &Path)| {
        let error = std::fs::File::open(path).err()?;
        let path = path.display();
        Some(format!("services.{name}: {what} needs {path}, which cannot be read now: {error}"))
    };
    paths.into_iter().filter_map(unreadable).collect()
}

fn files_of(check: &HealthCheck) -> Vec<&Path> {
    let mut paths: Vec<&Path> = Vec::new();
    match &check.kind {
        CheckKind::Http(steps) => {
            for step in steps {
                let texts = step.headers.iter().map(|(_, value)| value).chain(&step.body);
                paths.extend(texts.filter_map(|text| match text {
                    Text::File(path) => Some(path.as_path()),
                    Text::Plain(_) => None,
                }));
                paths.extend(step.tls.ca_file.as_deref());
            }
        }
        CheckKind::Grpc { tls, .. } => paths.extend(tls.ca_file.as_deref()),
        CheckKind::Tcp(_) | CheckKind::Command(_) => {}
    }
    paths
}

/// Services that depend on each other: each would excuse the other.
fn circle(depends: &BTreeMap<ServiceName, BTreeSet<ServiceName>>) -> Option<String> {
    for start in depends.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&ServiceName> = depends[start].iter().collect();
        while let Some(name) = next.pop() {
            if name == start {
                let all: Vec<&str> = seen.iter().map(|name: &&ServiceName| name.as_str()).collect();
                return Some(format!(
                    "services.{start}.dependencies: it depends on itself by way of {}; when both fail, each would be excused by the other",
                    all.join(", ")
                ));
            }
            if seen.insert(name) {
                next.extend(depends.get(name).into_iter().flatten());
            }
        }
    }
    None
}
