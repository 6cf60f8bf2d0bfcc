//! `set`: how the services of a timeline are configured.

use std::collections::BTreeMap;
use std::time::Duration;

use backstop::core::io::Input;
use backstop::core::migration::SchemaChange;
use backstop::core::release::ServiceName;
use backstop::core::settings::{
    AccessLog, Action, Against, CheckLatency, Dependency, HealthCheck, Hook, HookKind, HookPhase, Mitigation,
    Mode, OnFailure, Profile, Redeploy, Remedy, Rule, SchemaQuery, ServiceSettings, Severity, Target, Text,
};

use super::World;

/// Short trials keep timelines short; the shipped numbers have timelines of their own (`set shipped`).
pub(super) fn short() -> ServiceSettings {
    ServiceSettings {
        checks: BTreeMap::from([("health".into(), check(true))]),
        trial: Duration::from_secs(60),
        grace: Duration::from_secs(5),
        ..ServiceSettings::default()
    }
}

fn check(required: bool) -> HealthCheck {
    let target = Target::Replica { port: 8080, path: "/healthz".into() };
    HealthCheck { required, ..HealthCheck::get(target, Duration::from_secs(5), Duration::from_secs(2)) }
}

impl World {
    /// What a person did to a service without deploying.
    pub(super) fn by_hand(&mut self, what: &str, service: &str) {
        let service = ServiceName::new(service);
        if what == "withdrawn" {
            // Another release was written into the files of its project.
            let result = Ok("the pin is gone".to_owned());
            self.input(Input::Unpinned { request: None, service, result });
        } else {
            // `docker update`, `docker network connect`; from here on it is shown when a specification is kept.
            self.shows_keeping = true;
            self.input(Input::Respecified { service });
        }
    }

    /// `set trial=20s memory.action=off` for all services, `set api: depends=db` for one.
    pub(super) fn set(&mut self, words: &[&str]) {
        let one = words.split_first().and_then(|(name, pairs)| Some((name.strip_suffix(':')?, pairs)));
        let Some((name, pairs)) = one else {
            let all = std::iter::once(&mut self.settings).chain(self.own.values_mut());
            return all.for_each(|settings| configure(settings, words));
        };
        configure(self.own.entry(name.to_owned()).or_insert_with(|| self.settings.clone()), pairs);
    }
}

fn configure(s: &mut ServiceSettings, pairs: &[&str]) {
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let span = || humantime::parse_duration(value).unwrap();
        match key {
            "mode" => s.mode = if value == "dry-run" { Mode::DryRun } else { Mode::Act },
            "trial" => s.trial = span(),
            "grace" => s.grace = span(),
            "watch" => s.watch = span(),
            "cooldown" => s.cooldown = span(),
            "baseline" => s.baseline = span(),
            "verify_timeout" => s.verify_timeout = span(),
            "deadline" => s.deadline = span(),
            "approvals" => s.approvals = value.parse().unwrap(),
            "attempts" => s.attempts = value.parse().unwrap(),
            "redeploy" => s.redeploy = if value == "refuse" { Redeploy::Refuse } else { Redeploy::Watch },
            "profile" => s.profile = if value == "cautious" { Profile::Cautious } else { Profile::Fast },
            "schema" => {
                s.schema = match value {
                    "none" => Some(SchemaChange::None),
                    "additive" => Some(SchemaChange::Additive),
                    "breaking" => Some(SchemaChange::Breaking),
                    _ => None,
                }
            }
            "changed" => s.migrations.changed = Some(SchemaChange::Additive).filter(|_| value == "additive"),
            "query" => {
                let database = Text::File("/run/secrets/db".into());
                s.migrations.query =
                    Some(SchemaQuery { database, query: value.into(), interval: span_of("10s") });
            }
            "manual" => s.migrations.manual = Some(value.replace('_', " ")),
            "downgrade" => {
                s.migrations.downgrade = Some(Hook {
                    name: "downgrade".into(),
                    phase: HookPhase::Downgrade,
                    kind: HookKind::Command(vec![value.into()]),
                    timeout: span_of("5m"),
                    on_failure: OnFailure::Stop,
                    repeatable: false,
                });
            }
            "health" => s.checks.retain(|_, _| value != "none"),
            "check_latency" => s.check_latency = CheckLatency::Off,
            "advisory" => {
                s.checks.insert(value.into(), check(false));
            }
            // The world counts requests whenever a line says so; this says that something should.
            "access_log" => s.logs.access = if value == "off" { AccessLog::Off } else { AccessLog::Auto },
            "depends" => s.dependencies.extend(value.split(',').map(dependency)),
            "add" => s.rules.push(another(&s.rules, value)),
            "shipped" => *s = ServiceSettings { checks: s.checks.clone(), ..ServiceSettings::default() },
            _ => {
                let (name, field) = key.split_once('.').unwrap_or_else(|| panic!("no setting {key}"));
                let rule = s.rules.iter_mut().find(|r| r.name == name);
                change(rule.unwrap_or_else(|| panic!("no row {name}")), field, value);
            }
        }
    }
}

fn span_of(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap()
}

/// `db` is checked like a service; `service:auth` is another watched service.
fn dependency(named: &str) -> (String, Dependency) {
    match named.strip_prefix("service:") {
        Some(service) => (service.into(), Dependency::Service(ServiceName::new(service))),
        None => (named.into(), Dependency::Check(check(true))),
    }
}

/// `slow:latency_p99` is a row called `slow` that is like `latency_p99` until its fields are set.
fn another(rules: &[Rule], named: &str) -> Rule {
    let (name, like) = named.split_once(':').unwrap();
    let rule = rules.iter().find(|r| r.name == like).unwrap_or_else(|| panic!("no row {like}"));
    Rule { name: name.into(), ..rule.clone() }
}

fn change(rule: &mut Rule, field: &str, value: &str) {
    match field {
        "sustained" => rule.sustained = humantime::parse_duration(value).unwrap(),
        "within" => rule.within = humantime::parse_duration(value).unwrap(),
        "threshold" => rule.threshold = value.parse().unwrap(),
        "severity" => {
            rule.severity = match value {
                "low" => Severity::Low,
                "medium" => Severity::Medium,
                "high" => Severity::High,
                "critical" => Severity::Critical,
                other => panic!("no severity {other}"),
            }
        }
        "mitigations" => rule.mitigations = value.split(',').map(mitigation).collect(),
        "only" => rule.only = Some(value.into()),
        "against" => {
            rule.against = if value == "absolute" { Against::Absolute } else { Against::Baseline };
        }
        "action" => {
            rule.action = match value {
                "off" => Action::Off,
                "monitor" => Action::Monitor,
                "evaluate" => Action::Evaluate,
                "rollback" => Action::Rollback,
                other => panic!("no action {other}"),
            }
        }
        other => panic!("no field {other}"),
    }
}

/// `restart`, `hook` or `EXPORT_MODE:off`.
fn mitigation(word: &str) -> Mitigation {
    Mitigation::of(match word.split_once(':') {
        Some((name, value)) => Remedy::Set(BTreeMap::from([(name.into(), value.into())])),
        None if word == "restart" => Remedy::Restart,
        None => panic!("no mitigation {word}"),
    })
}
