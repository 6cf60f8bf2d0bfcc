//! `backstop check-config`: is the configuration right, what did it change, and what follows for each service?

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::run::{SourceArgs, wrong};
use super::table::bold;
use super::{Output, write_out};
use crate::config::{Changed, Problems, Settings};
use crate::core::release::ServiceName;
use crate::core::settings::{
    AccessLog, Against, CheckKind, Condition, Dependency, HealthCheck, HttpStep, Mode, Profile, Rule,
    ServiceSettings, Target,
};
use crate::core::time::human;
use crate::notify::plan::{Audience, Channel};

#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Show what follows for this service alone, whether or not the configuration names it; labels are not known here
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Show every setting that is in force, and not only what differs from the shipped defaults
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: CheckConfigArgs, out: &Output) -> anyhow::Result<()> {
    let settings = match crate::config::load(&args.sources.sources()) {
        Ok(settings) => settings,
        Err(problems) => {
            if out.json {
                write_out(&format!("{}\n", serde_json::to_string_pretty(&list(&problems))?))?;
            }
            return Err(wrong(&problems).into());
        }
    };
    let services = match &args.service {
        Some(name) => vec![(name.clone(), one(&settings, name)?)],
        None => all(&settings)?,
    };
    out.show(&right(&settings), |_| summary(&settings, &services, args.all))
}

/// The settings of a service that has no labels.
fn one(settings: &Settings, name: &str) -> anyhow::Result<ServiceSettings> {
    settings.service(&ServiceName::new(name), &BTreeMap::new()).map_err(|problems| {
        let what = format!("the settings of {name} are wrong: {}", problems.join("; "));
        Failure::new(Code::Config, what).hint("correct them, then try again").into()
    })
}

/// Every service that the configuration names, and what holds for others if it is not what is shipped.
fn all(settings: &Settings) -> anyhow::Result<Vec<(String, ServiceSettings)>> {
    let mut found = Vec::new();
    for name in settings.named() {
        found.push((name.to_string(), one(settings, name.as_str())?));
    }
    // Under this name, what stands for a service's name stays as it was typed.
    let others = one(settings, "$service")?;
    let ours = ServiceSettings { mode: others.mode, ..ServiceSettings::default() };
    if others != ours {
        found.push(("(every other)".to_owned(), others));
    }
    Ok(found)
}

fn right(settings: &Settings) -> Value {
    let changed =
        |changed: &Changed| json!({"key": changed.key, "value": changed.value, "place": changed.place});
    json!({
        "ok": true,
        "files": settings.files(),
        "services": settings.named().map(|name| name.to_string()).collect::<Vec<_>>(),
        "warnings": settings.warnings(),
        "changed": settings.changed().iter().map(changed).collect::<Vec<_>>(),
        "effective": settings.effective(),
    })
}

fn list(problems: &Problems) -> Value {
    let problems: Vec<Value> = problems
        .iter()
        .map(
            |problem| json!({"place": problem.place(), "key": problem.key(), "problem": problem.to_string()}),
        )
        .collect();
    json!({"ok": false, "problems": problems})
}

fn summary(settings: &Settings, services: &[(String, ServiceSettings)], all: bool) -> String {
    let mut text = String::from("The configuration is right.\n\n");
    for (name, value) in whole(settings) {
        text.push_str(&format!("{name:<12}{value}\n"));
    }
    for (name, service) in services {
        text.push_str(&format!("\n{}\n", bold(&format!("SERVICE {name}"))));
        for (name, value) in described(service) {
            text.push_str(&format!("  {name:<12}{value}\n"));
        }
    }
    if all {
        text.push_str(&format!("\n{}\n", bold("SETTINGS IN FORCE")));
        flatten("", &settings.effective(), &mut text);
    } else {
        text.push_str(&format!("\n{}\n", bold("CHANGED SETTINGS")));
        if settings.changed().is_empty() {
            text.push_str("none: everything is as shipped\n");
        }
        for changed in settings.changed() {
            text.push_str(&format!("{} = {}\n    {}\n", changed.key, changed.value, changed.place));
        }
    }
    let warnings = settings.warnings();
    if !warnings.is_empty() {
        text.push_str(&format!("\n{}\n", bold("WARNINGS")));
        for warning in warnings {
            text.push_str(&format!("{warning}\n"));
        }
    }
    text
}

/// What concerns all services together.
fn whole(settings: &Settings) -> Vec<(&'static str, String)> {
    let effective = settings.effective();
    let files: Vec<String> = settings.files().iter().map(|path| path.display().to_string()).collect();
    let named: Vec<String> = settings.named().map(|name| name.to_string()).collect();
    let watched = match effective["enroll"].as_str() {
        Some("all") => "every container, but Backstop's own and those labelled `backstop.enable=false`",
        Some("named") => "no container but those named below",
        _ => "containers labelled `backstop.enable=true`",
    };
    let also = if named.is_empty() { String::new() } else { format!("; and by name: {}", named.join(", ")) };
    let mode = match settings.mode {
        Mode::Act => "act: decides, announces and rolls back",
        Mode::DryRun => "dry-run: decides and announces, and never touches a service",
    };
    let token =
        if settings.api.token.is_some() { "with the token" } else { "switched off: no `api.token_file`" };
    let hook = match (&settings.api.hook_token, &settings.api.token) {
        (Some(_), _) => "taken with the hook's token",
        (None, Some(_)) => "taken with the operators' token; `api.hook_token_file` would be one of their own",
        (None, None) => "not taken: no `api.hook_token_file`",
    };
    let channels: Vec<String> = settings.notify.plan.channels.iter().map(described_channel).collect();
    let announces = if channels.is_empty() {
        "nowhere but the log: no [notify.channels]".to_owned()
    } else {
        format!("to {}", channels.join(", "))
    };
    let flight = &settings.flight;
    let record = if flight.enabled {
        let (size, age) = (flight.max_bytes >> 20, human(flight.max_age));
        format!("up to {size} MiB and {age} in {}", flight.directory.display())
    } else {
        "switched off: `flight.enabled`".to_owned()
    };
    vec![
        ("files", if files.is_empty() { "none; the shipped defaults".to_owned() } else { files.join(", ") }),
        ("watches", format!("{watched}{also}")),
        ("mode", mode.to_owned()),
        ("environment", settings.fleet.environment.clone()),
        ("engine", settings.engine.host.clone()),
        ("state", settings.state_dir.display().to_string()),
        ("record", record),
        ("listens", settings.api.listen.to_string()),
        ("operators", token.to_owned()),
        ("alerts", hook.to_owned()),
        ("announces", announces),
    ]
}

fn described_channel(channel: &Channel) -> String {
    let readers = match channel.audience {
        Audience::Internal => "",
        Audience::Users => ", for users",
    };
    format!("{} ({}{readers})", channel.name, channel.medium.name())
}

/// What is asked of a service, and where its matrix is not the shipped one.
fn described(service: &ServiceSettings) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if service.mode == Mode::DryRun {
        lines.push(("mode", "dry-run".to_owned()));
    }
    for (name, of) in &service.checks {
        let required = if of.required { "" } else { "; advisory" };
        lines.push(("check", format!("{name}: {}{required}", check(of))));
    }
    if service.checks.is_empty() {
        lines.push(("check", "none but Docker's HEALTHCHECK".to_owned()));
    }
    for (name, of) in &service.dependencies {
        let what = match of {
            Dependency::Service(service) => format!("the service {service}"),
            Dependency::Check(of) => check(of),
        };
        lines.push(("depends on", format!("{name}: {what}")));
    }
    lines.extend(requests(service));
    if !service.alert_labels.is_empty() {
        lines.push(("alerts", format!("with {}", pairs(&service.alert_labels))));
    }
    let profile = match service.profile {
        Profile::Fast => None,
        Profile::Cautious => Some(("profile", "cautious".to_owned())),
    };
    lines.extend(profile);
    let shipped = Rule::matrix();
    for rule in &service.rules {
        match shipped.iter().find(|row| row.name == rule.name) {
            Some(row) if row == rule => {}
            Some(row) => lines.push(("row", format!("{}: {}", rule.name, differences(row, rule)))),
            None => lines.push(("row", format!("{}: {}", rule.name, added(rule)))),
        }
    }
    lines
}

/// Where requests, errors and latency come from.
fn requests(service: &ServiceSettings) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(metrics) = &service.metrics {
        let labels = if metrics.labels.is_empty() {
            String::new()
        } else {
            format!(" with {}", pairs(&metrics.labels))
        };
        let (page, every) = (place(&metrics.target), human(metrics.interval));
        lines.push((
            "requests",
            format!("metrics of {page} every {every}, preset {}{labels}", metrics.preset),
        ));
    }
    if let Some(source) = &service.prometheus {
        let latency = if source.latency.is_some() { "" } else { ", without latency" };
        lines.push((
            "requests",
            format!("Prometheus at {} every {}{latency}", source.url, human(source.interval)),
        ));
    }
    if !service.logs.enabled {
        lines.push(("logs", "not read".to_owned()));
    } else if service.logs.access != AccessLog::Off {
        lines.push(("requests", "access lines of the logs".to_owned()));
    }
    if lines.is_empty() {
        lines
            .push(("requests", "nothing tells of them: no metrics, no Prometheus, no access log".to_owned()));
    }
    lines
}

fn check(check: &HealthCheck) -> String {
    let what = match &check.kind {
        CheckKind::Http(steps) => {
            let steps: Vec<String> = steps.iter().map(request).collect();
            steps.join(", then ")
        }
        CheckKind::Tcp(target) => format!("TCP {}", place(target)),
        CheckKind::Grpc { target, service, .. } if service.is_empty() => format!("gRPC {}", place(target)),
        CheckKind::Grpc { target, service, .. } => format!("gRPC {service} at {}", place(target)),
        CheckKind::Command(words) => format!("runs `{}`", words.join(" ")),
    };
    format!("{what}, every {}", human(check.interval))
}

fn request(step: &HttpStep) -> String {
    let mut text = format!("{} {}", step.method, place(&step.target));
    for (path, value) in &step.json {
        text.push_str(&format!(" with {path} = {value}"));
    }
    text
}

fn place(target: &Target) -> String {
    match target {
        Target::Url(url) => url.clone(),
        Target::Replica { port, path } => format!(":{port}{path} of every replica"),
    }
}

fn pairs(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(", ")
}

/// What a row's line is, in its unit.
fn line(rule: &Rule) -> String {
    match (rule.against, rule.condition) {
        (Against::Baseline, _) => format!("{}x baseline", rule.threshold),
        (Against::Absolute, Condition::Latency) => format!("{}s", rule.threshold),
        (Against::Absolute, _) => rule.threshold.to_string(),
    }
}

fn differences(shipped: &Rule, rule: &Rule) -> String {
    let mut parts = Vec::new();
    let mut differs = |name: &str, now: String, was: String| {
        if now != was {
            parts.push(format!("{name} {now} instead of {was}"));
        }
    };
    differs("threshold", line(rule), line(shipped));
    differs("floor", rule.floor.to_string(), shipped.floor.to_string());
    differs("within", human(rule.within).to_string(), human(shipped.within).to_string());
    differs("sustained", human(rule.sustained).to_string(), human(shipped.sustained).to_string());
    differs("min_samples", rule.min_samples.to_string(), shipped.min_samples.to_string());
    differs("severity", rule.severity.to_string(), shipped.severity.to_string());
    differs("action", rule.action.to_string(), shipped.action.to_string());
    if let Some(only) = &rule.only {
        parts.push(format!("only {only}"));
    }
    parts.join(", ")
}

fn added(rule: &Rule) -> String {
    let only = rule.only.as_ref().map_or_else(String::new, |only| format!(" of {only}"));
    let within =
        if rule.within.is_zero() { String::new() } else { format!(" within {}", human(rule.within)) };
    let sustained =
        if rule.sustained.is_zero() { String::new() } else { format!(" for {}", human(rule.sustained)) };
    format!(
        "added: {}{only}, {}{within}{sustained}: {}, {}",
        rule.condition.name(),
        line(rule),
        rule.action,
        rule.severity
    )
}

/// One `key = value` a line, as `--set` takes them.
fn flatten(path: &str, value: &Value, text: &mut String) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, text);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            text.push_str(&format!("{path} = {value}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn shown(text: &str, all_settings: bool) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("backstop.toml");
        std::fs::write(&file, text).unwrap();
        let settings = load(&Sources { file: Some(file), ..Sources::default() });
        let settings = settings.unwrap_or_else(|problems| panic!("{problems}"));
        let text = summary(&settings, &all(&settings).unwrap(), all_settings);
        text.replace(&format!("{}/", directory.path().display()), "")
            .replace("\x1b[1m", "")
            .replace("\x1b[0m", "")
    }

    #[test]
    fn a_service_is_what_is_asked_of_it_and_how_its_matrix_differs() {
        let text = shown(
            r#"
[services.web]
health = { port = 8080, path = "/readyz", json = { ".migrations_current" = true } }
checks = { db = { command = ["pg_isready"], required = false } }
metrics = { port = 9000, labels = { handler = "x" } }
profile = "cautious"
[services.web.dependencies]
cache = { tcp = "cache:6379" }
db = { service = "db" }
[services.web.rules]
error_rate = { threshold = 0.02, sustained = "5m" }
slow = { condition = "latency", threshold = "800ms", sustained = "5m" }
memory = { action = "off" }
"#,
            false,
        );
        let expected = [
            "SERVICE web",
            "  check       db: runs `pg_isready`, every 5s; advisory",
            "  check       health: GET :8080/readyz of every replica with .migrations_current = true, every 5s",
            "  depends on  cache: TCP tcp://cache:6379, every 5s",
            "  depends on  db: the service db",
            "  requests    metrics of :9000/metrics of every replica every 5s, preset auto with handler=x",
            "  profile     cautious",
            "  row         error_rate: threshold 0.02 instead of 0.05, sustained 5m instead of 10m",
            "  row         memory: action off instead of rollback",
            "  row         slow: added: latency, 0.8s for 5m: evaluate, high",
            "",
            "CHANGED SETTINGS",
            "services.web.profile = \"cautious\"",
            "    backstop.toml:6:1",
        ];
        let start = text.find("SERVICE web").unwrap();
        assert_eq!(text[start..].lines().take(expected.len()).collect::<Vec<_>>(), expected, "{text}");
        assert!(
            text.contains("\nWARNINGS\nservices.web.dependencies.db: no service called db is named here")
        );
        assert!(!text.contains("(every other)"), "what is as shipped is not repeated");
    }

    #[test]
    fn all_settings_are_shown_on_demand_and_none_if_none_was_changed() {
        assert!(shown("", false).ends_with("CHANGED SETTINGS\nnone: everything is as shipped\n"));
        let text = shown("[defaults.rules.memory]\nthreshold = 0.8\n", true);
        assert!(
            text.contains("\nSETTINGS IN FORCE\n") && text.contains("\ndefaults.trial = \"15m\"\n"),
            "{text}"
        );
        assert!(
            text.contains("SERVICE (every other)\n") && text.contains("threshold 0.8 instead of 0.9"),
            "{text}"
        );
    }
}
