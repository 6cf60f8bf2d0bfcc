//! A service's settings for the outside: what is asked where, without what lets one in there.

use super::render::{mode, seconds};
use super::views::{
    CheckView, DependencyView, HookView, LadderView, MigrationsView, SettingsView, SourceView,
};
use crate::core::settings::{
    AccessLog, CheckKind, Dependency, Executor, HealthCheck, Hook, HttpStep, Mitigation, Order, Profile,
    Redeploy, Rule, ServiceSettings, Target,
};

impl From<&ServiceSettings> for SettingsView {
    fn from(settings: &ServiceSettings) -> Self {
        Self {
            mode: mode(settings.mode).to_owned(),
            health: settings.checks.get("health").map(|check| place_of_check(&check.kind)),
            health_interval_seconds: settings.checks.get("health").map(|check| seconds(check.interval)),
            checks: settings.checks.iter().map(|(name, check)| CheckView::new(name, check)).collect(),
            dependencies: settings
                .dependencies
                .iter()
                .map(|(name, on)| DependencyView::new(name, on))
                .collect(),
            sources: sources(settings),
            logs: settings.logs.enabled,
            alert_labels: settings.alert_labels.clone(),
            profile: match settings.profile {
                Profile::Fast => "fast",
                Profile::Cautious => "cautious",
            }
            .to_owned(),
            baseline_seconds: seconds(settings.baseline),
            memory_interval_seconds: seconds(settings.memory_interval),
            trial_seconds: seconds(settings.trial),
            watch_seconds: seconds(settings.watch),
            watch_slow_seconds: seconds(settings.watch_slow),
            grace_seconds: seconds(settings.grace),
            cooldown_seconds: seconds(settings.cooldown),
            attempts: settings.attempts,
            attempts_window_seconds: seconds(settings.attempts_window),
            verify_seconds: seconds(settings.verify),
            verify_timeout_seconds: seconds(settings.verify_timeout),
            keep: settings.keep,
            redeploy: match settings.redeploy {
                Redeploy::Watch => "watch",
                Redeploy::Refuse => "refuse",
            }
            .to_owned(),
            stop_grace_seconds: seconds(settings.stop_grace),
            prepare: settings.prepare,
            deadline_seconds: seconds(settings.deadline),
            approvals: settings.approvals,
            order: match settings.order {
                Order::Auto => "auto",
                Order::StopFirst => "stop-first",
                Order::StartFirst => "start-first",
            }
            .to_owned(),
            pin: settings.pin,
            executor: match settings.executor {
                Executor::Auto => "auto",
                Executor::Api => "api",
                Executor::Compose => "compose",
            }
            .to_owned(),
            hooks: hooks(settings),
            migrations: MigrationsView::from(settings),
            mitigations: settings.rules.iter().filter_map(ladder).collect(),
        }
    }
}

fn hooks(settings: &ServiceSettings) -> Vec<HookView> {
    let mut hooks: Vec<&Hook> = settings.hooks.iter().collect();
    hooks.sort_by_key(|hook| hook.phase);
    let view = |hook: &Hook| HookView {
        name: hook.name.clone(),
        phase: hook.phase.name().to_owned(),
        does: hook.kind.to_string(),
        timeout_seconds: seconds(hook.timeout),
    };
    hooks.into_iter().map(view).collect()
}

impl From<&ServiceSettings> for MigrationsView {
    fn from(settings: &ServiceSettings) -> Self {
        let migrations = &settings.migrations;
        let told = |hook: &Option<Hook>| hook.as_ref().map(|hook| hook.kind.to_string());
        Self {
            schema: settings.schema.map(|schema| schema.name().to_owned()),
            asked: migrations.query.is_some(),
            backup: told(&migrations.backup),
            downgrade: told(&migrations.downgrade),
            manual: migrations.manual.clone(),
        }
    }
}

/// What a row tries before a rollback, if anything.
fn ladder(rule: &Rule) -> Option<LadderView> {
    let tries: Vec<String> = rule.mitigations.iter().map(Mitigation::intent).collect();
    (!tries.is_empty()).then(|| LadderView { rule: rule.name.clone(), tries })
}

impl CheckView {
    fn new(name: &str, check: &HealthCheck) -> Self {
        let kind = match &check.kind {
            CheckKind::Http(_) => "http",
            CheckKind::Tcp(_) => "tcp",
            CheckKind::Grpc { .. } => "grpc",
            CheckKind::Command(_) => "command",
        };
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            place: place_of_check(&check.kind),
            interval_seconds: seconds(check.interval),
            timeout_seconds: seconds(check.timeout),
            required: check.required,
        }
    }
}

impl DependencyView {
    fn new(name: &str, dependency: &Dependency) -> Self {
        let (service, check) = match dependency {
            Dependency::Service(service) => (Some(service.to_string()), None),
            Dependency::Check(check) => (None, Some(CheckView::new(name, check))),
        };
        Self { name: name.to_owned(), service, check }
    }
}

fn sources(settings: &ServiceSettings) -> Vec<SourceView> {
    let source = |kind: &str, place: String, interval| SourceView {
        kind: kind.to_owned(),
        place,
        interval_seconds: seconds(interval),
    };
    let metrics = settings.metrics.as_ref().map(|from| source("metrics", place(&from.target), from.interval));
    let server =
        settings.prometheus.as_ref().map(|from| source("prometheus", harmless_url(&from.url), from.interval));
    let format = match settings.logs.access {
        AccessLog::Off => None,
        AccessLog::Auto => Some("any format"),
        AccessLog::Common => Some("common"),
        AccessLog::Json => Some("json"),
        AccessLog::Logfmt => Some("logfmt"),
    };
    let log = format
        .filter(|_| settings.logs.enabled)
        .map(|format| source("access_log", format.to_owned(), settings.logs.interval));
    metrics.into_iter().chain(server).chain(log).collect()
}

/// Where a check asks. Arguments of a command may be passwords: its name must do.
fn place_of_check(kind: &CheckKind) -> String {
    match kind {
        CheckKind::Http(steps) => {
            let told: Vec<String> = steps.iter().map(place_of_step).collect();
            told.join(", then ")
        }
        CheckKind::Tcp(target) | CheckKind::Grpc { target, .. } => place(target),
        CheckKind::Command(words) => {
            let rest = if words.len() > 1 { " ..." } else { "" };
            format!("the command {}{rest}", words.first().map_or("", String::as_str))
        }
    }
}

fn place_of_step(step: &HttpStep) -> String {
    let place = place(&step.target);
    if step.method == "GET" { place } else { format!("{} {place}", step.method) }
}

fn place(target: &Target) -> String {
    match target {
        Target::Replica { port, path } => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            if path.is_empty() { format!("port {port}") } else { format!("port {port}, {path}") }
        }
        Target::Url(url) => harmless_url(url),
    }
}

/// A URL may carry a password or a key: user information and query are not shown.
fn harmless_url(url: &str) -> String {
    let shown = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else {
        return "a URL".to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::release::ServiceName;
    use crate::core::settings::{
        HookKind, HookPhase, LogSource, MetricsSource, OnFailure, PromqlSource, Remedy, Text, Tls,
    };

    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        assert_eq!(harmless_url("http://shop:8080/healthz"), "http://shop:8080/healthz");
        assert_eq!(harmless_url("https://u:s3cret@shop/h?key=s3cret#s3cret"), "https://shop/h");
        assert_eq!(harmless_url("https://u:a@s3cret@shop"), "https://shop");
        assert_eq!(harmless_url("nonsense"), "a URL");
    }

    #[test]
    fn everything_that_is_asked_is_shown_and_nothing_that_opens_it() {
        let secret = || "s3cret".to_owned();
        let replica = |path: &str| Target::Replica { port: 8080, path: path.to_owned() };
        let mut login = HttpStep::get(replica("/login?key=s3cret"));
        login.method = "POST".to_owned();
        login.headers = vec![("authorization".to_owned(), Text::Plain(secret()))];
        login.body = Some(Text::Plain(secret()));
        let check = |kind| HealthCheck { kind, interval: FIVE, timeout: FIVE, required: false };
        let http = CheckKind::Http(vec![login, HttpStep::get(replica("/me"))]);
        let command = CheckKind::Command(vec!["redis-cli".to_owned(), "-a".to_owned(), secret()]);
        let metrics = MetricsSource {
            target: Target::Url("http://u:s3cret@shop:9090/metrics?token=s3cret".to_owned()),
            interval: FIVE,
            timeout: FIVE,
            token_file: Some("/run/s3cret".into()),
            tls: Tls::default(),
            preset: "auto".to_owned(),
            requests: None,
            errors: None,
            latency: None,
            labels: vec![],
        };
        let prometheus = PromqlSource {
            url: "http://u:s3cret@prometheus:9090".to_owned(),
            interval: FIVE,
            timeout: FIVE,
            token_file: None,
            tls: Tls::default(),
            requests: secret(),
            errors: secret(),
            latency: None,
        };
        let first = ServiceSettings::default().rules.swap_remove(0);
        let settings = ServiceSettings {
            checks: [("auth".to_owned(), check(http))].into(),
            dependencies: [
                ("cache".to_owned(), Dependency::Check(check(command))),
                ("db".to_owned(), Dependency::Service(ServiceName::new("postgres"))),
            ]
            .into(),
            metrics: Some(metrics),
            prometheus: Some(prometheus),
            logs: LogSource { access: AccessLog::Json, ..LogSource::default() },
            hooks: vec![Hook {
                name: "flush".to_owned(),
                phase: HookPhase::AfterRollback,
                kind: HookKind::Command(vec!["curl".to_owned(), secret()]),
                timeout: FIVE,
                on_failure: OnFailure::Continue,
                repeatable: true,
            }],
            rules: vec![Rule { mitigations: vec![Mitigation::of(Remedy::Restart)], ..first }],
            ..ServiceSettings::default()
        };
        let view = SettingsView::from(&settings);
        assert_eq!(view.checks[0].place, "POST port 8080, /login, then port 8080, /me");
        assert_eq!(view.dependencies[0].check.as_ref().unwrap().place, "the command redis-cli ...");
        assert_eq!(view.dependencies[1].service.as_deref(), Some("postgres"));
        let sources: Vec<(&str, &str)> =
            view.sources.iter().map(|source| (source.kind.as_str(), source.place.as_str())).collect();
        assert_eq!(
            sources,
            [
                ("metrics", "http://shop:9090/metrics"),
                ("prometheus", "http://prometheus:9090"),
                ("access_log", "json")
            ]
        );
        assert_eq!(view.hooks[0].does, "the command curl ...");
        assert_eq!(view.mitigations[0].tries, ["restart it, one replica after the other"]);
        assert!(!serde_json::to_string(&view).unwrap().contains("s3cret"));
    }
}
