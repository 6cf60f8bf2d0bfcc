//! The shipped file against the list of keys and against the core's defaults.

use std::collections::BTreeMap;

use super::*;
use crate::core::release::ServiceName;
use crate::core::settings::ServiceSettings;
use crate::core::settings::{Against, Rule};
use schema::{Setting, Shape, leaves};
use syntax::Format;

fn loaded(text: &str) -> Settings {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backstop.toml");
    std::fs::write(&file, text).unwrap();
    load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What the shipped file says, as if a person had said it.
fn shipped() -> Settings {
    loaded(layers::SHIPPED)
}

/// What settings are where nobody says anything.
fn built_in() -> Settings {
    loaded("")
}

fn web() -> ServiceName {
    ServiceName::new("web")
}

#[test]
fn the_shipped_file_says_what_is_built_in() {
    let (shipped, built_in) = (shipped(), built_in());
    assert_eq!(shipped.fleet, FleetSettings::default());
    assert_eq!(shipped.fleet, built_in.fleet);
    assert_eq!(shipped.mode, built_in.mode);
    assert_eq!(shipped.state_dir, built_in.state_dir);
    assert_eq!(shipped.log, built_in.log);
    assert_eq!(shipped.engine, built_in.engine);
    assert_eq!(shipped.api.listen, built_in.api.listen);
    assert_eq!(shipped.enroll, built_in.enroll);
    assert!(shipped.api.token.is_none() && shipped.notify.plan.channels.is_empty());

    assert_eq!(shipped.flight, built_in.flight);
    assert_eq!(shipped.report, built_in.report);
    assert_eq!(shipped.report, ReportSettings::default());
    assert!(shipped.api.hook_token.is_none());
    assert_eq!(shipped.notify.plan, built_in.notify.plan);
    assert_eq!(shipped.changed(), [], "what is shipped is not a change");
    assert_eq!(shipped.effective(), built_in.effective());

    assert_eq!(shipped.service(&web(), &BTreeMap::new()), Ok(ServiceSettings::default()));
    assert_eq!(built_in.service(&web(), &BTreeMap::new()), Ok(ServiceSettings::default()));
    // What stands in sections that say not yet what to ask.
    let labels = [
        ("backstop.health.url", "http://web/"),
        ("backstop.metrics.port", "9000"),
        ("backstop.prometheus.url", "http://prometheus:9090"),
        ("backstop.prometheus.requests", "sum(increase(a[$window]))"),
        ("backstop.prometheus.errors", "sum(increase(b[$window]))"),
        ("backstop.dependencies.db.tcp", "db:5432"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let complete = shipped.service(&web(), &labels).unwrap();
    assert!(!complete.checks.is_empty() && complete.metrics.is_some() && complete.prometheus.is_some());
    assert_eq!(Ok(complete), built_in.service(&web(), &labels));
}

/// The shipped file with its commented settings in force.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let lines = layers::SHIPPED.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_in_the_shipped_file_and_valid() {
    let node =
        syntax::parse(Format::Toml, "backstop.toml", &uncommented()).unwrap_or_else(|p| panic!("{p:?}"));
    let mut findings = Findings::default();
    let node = schema::walk(node, File::SHAPE, &mut findings);
    assert_eq!(findings.problems, []);
    let mut present = Vec::new();
    node.each_key(&mut Vec::new(), &mut |path, _| present.push(path.to_vec()));

    let mut keys = Vec::new();
    leaves(File::SHAPE, &mut Vec::new(), &mut keys);
    assert!(keys.len() > 50, "the list of keys is lost");
    let text = uncommented();
    for (key, _) in keys {
        let last = key.last().unwrap().as_str();
        let shown = match key.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            // A service has the keys of `[defaults]`, shown there; so have checks and dependencies those of `health`.
            ["services", ..] | ["defaults", "checks", ..] => true,
            ["defaults", "dependencies", _, first, ..] if first != "service" => true,
            // So has an engine with a name those of `[engine]`; the text there tells of the rest.
            ["engines", ..] => text.contains("\n#   [engines.east]\n") && text.contains("`insecure = true`"),
            // Channels, routes and levels are shown in the text, which a test of their own reads.
            ["notify", "channels" | "routes", ..] | ["notify", "escalation", "levels", ..] => {
                text.contains(last)
            }
            // Steps are one line, whose keys are those of a request.
            ["defaults", "health", "steps", "capture", ..] => text.contains(" capture = {"),
            ["defaults", "health", "steps", ..] => true,
            ["defaults", "hooks", _, "http" | "steps", _, ..] => true,
            ["defaults", "migrations", "backup" | "downgrade", ..] => {
                text.contains("\n# A backup and a downgrade have the keys of a hook")
            }
            // Only rows that people add have these; the table above the rows tells of them.
            ["defaults", "rules", _, "condition"] => text.contains("\n# Rows of your own have a `condition`"),
            ["defaults", "rules", _, last @ ("only" | "mitigations")] => {
                text.contains(&format!("\n# {last} "))
            }
            ["defaults", "rules", _, _] => Rule::matrix().iter().all(|row| {
                let needless = match last {
                    "within" => row.within.is_zero(),
                    "against" | "floor" => row.against == Against::Absolute,
                    _ => false,
                };
                needless || is_present(&present, &["defaults", "rules", &row.name, last])
            }),
            ref path => is_present(&present, path),
        };
        assert!(shown, "config/backstop.toml lacks {}", tree::dotted(&key));
    }
}

/// Whether a path is there; a name in capital letters stands for any.
fn is_present(present: &[Vec<String>], path: &[&str]) -> bool {
    present.iter().any(|there| {
        let any = |name: &str| name.chars().all(|c| c.is_ascii_uppercase());
        there.len() == path.len() && there.iter().zip(path).all(|(there, name)| any(name) || there == name)
    })
}

/// The indented lines of the shipped file's comments, between two of its lines, as settings.
fn shown_between(from: &str, to: &str) -> String {
    let text = layers::SHIPPED.split_once(from).expect("the text is lost").1.split_once(to).unwrap().0;
    let shown = text.lines().filter_map(|line| line.strip_prefix("#     "));
    shown.filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_channels_and_routes_that_are_shown_are_right() {
    let directory = tempfile::tempdir().unwrap();
    let shown = shown_between("# Channels have names of your own", "# Escalation: who is told");
    let mut text = String::new();
    for line in shown.lines() {
        let line = line.split("      #").next().unwrap().trim_end();
        let Some((key, file)) = line.split_once(" = \"/run/secrets/") else {
            text.push_str(&format!("{line}\n"));
            continue;
        };
        let path = directory.path().join(file.trim_matches('"'));
        let secret = if key.starts_with("url") {
            "https://hooks.example/T000"
        } else if key.starts_with("routing") {
            "0123456789abcdef0123456789abcdef"
        } else {
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        };
        std::fs::write(&path, secret).unwrap();
        text.push_str(&format!("{key} = {path:?}\n"));
    }
    text.push_str("[notify.escalation.levels.boss]\nafter = \"1h\"\nchannels = [\"mail\"]\n");
    let plan = loaded(&text).notify.plan;
    let names: Vec<&str> = plan.channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(names, ["alerts", "hook", "mail", "ops", "pager", "status"]);
    assert_eq!((plan.routes.len(), plan.escalation.levels.len()), (2, 1));
    assert!(!format!("{plan:?}").contains("whsec_"), "a secret is shown");
}

#[test]
fn every_key_has_a_comment_before_it() {
    let mut commented = false;
    let mut in_rows = false;
    for line in layers::SHIPPED.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let is_key = bare.starts_with(|c: char| c.is_ascii_lowercase()) && bare.contains(" = ");
        if line.starts_with('[') {
            in_rows = line.starts_with("[defaults.rules.");
        }
        if is_key {
            // Rows are explained in one table above them; alternatives share a comment.
            assert!(commented || in_rows, "no comment above: {line}");
        }
        commented = line.starts_with("# ") || (commented && is_key && line.starts_with('#'));
    }
}

#[test]
fn exactly_what_is_secret_is_marked_secret() {
    let mut keys = Vec::new();
    leaves(File::SHAPE, &mut Vec::new(), &mut keys);
    let secret: Vec<_> =
        keys.iter().filter(|(_, secret)| *secret).map(|(key, _)| tree::dotted(key)).collect();
    let bodies: Vec<_> = secret.iter().filter(|key| key.ends_with(".body")).collect();
    assert_eq!(
        bodies.len(),
        24,
        "of checks, dependencies, hooks, backups and downgrades, of their steps, of defaults and of services: {bodies:?}"
    );
    let others: Vec<_> = secret.iter().filter(|key| !key.ends_with(".body")).collect();
    let channel = ["url", "token", "routing_key", "secret", "password"];
    let channel = channel.map(|key| format!("notify.channels.CHANNEL.{key}"));
    let others: Vec<&str> = others.iter().map(|key| key.as_str()).collect();
    assert_eq!(
        others[..4],
        ["api.operators.OPERATOR.token", "api.token", "api.hook_token", "notify.webhook.url"]
    );
    assert_eq!(others[4..9], channel);
    assert_eq!(others[9..], ["report.github.token"]);
}

#[test]
fn a_services_section_takes_what_defaults_take() {
    let Shape::Table { keys, .. } = File::SHAPE else { panic!("no table") };
    let shape = |name: &str| keys.iter().find(|key| key.name == name).unwrap().shape;
    let Shape::Map { of, .. } = shape("services") else { panic!("no map") };
    assert_eq!(below(shape("defaults")), below(of));
}

fn below(shape: &'static Shape) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    leaves(shape, &mut Vec::new(), &mut found);
    found
}

#[test]
fn checks_and_dependencies_take_what_health_takes() {
    let check = below(file::Check::SHAPE);
    let mut dependency = below(file::Dependency::SHAPE);
    let service = dependency.iter().position(|(key, _)| key == &["service"]).unwrap();
    dependency.remove(service);
    let required = check.iter().filter(|(key, _)| key != &["required"]).cloned().collect::<Vec<_>>();
    assert_eq!(dependency, required);
}

#[test]
fn a_label_does_not_choose_where_a_secret_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let settings = loaded(&format!(
        "[defaults.metrics]\nport = 9100\ntoken_file = {token:?}\n[defaults.health]\nport = 8080\npath = \"/healthz\"\n\
         headers = {{ X-Api-Key = \"secret\" }}\n[defaults.dependencies.stock]\nurl = \"https://stock.example/\"\n\
         headers = {{ X-Api-Key = \"secret\" }}\n"
    ));
    let with = |name: &str, value: &str| {
        settings.service(&web(), &BTreeMap::from([(name.to_owned(), value.to_owned())]))
    };
    let elsewhere = "http://elsewhere.example/";
    for (label, value) in [
        ("backstop.metrics.url", elsewhere),
        ("backstop.health.url", elsewhere),
        ("backstop.dependencies.stock.url", elsewhere),
        ("backstop.dependencies.stock.insecure", "true"),
        ("backstop.health.insecure", "true"),
    ] {
        let refused = with(label, value).unwrap_err().join("\n");
        assert!(refused.contains(label) && refused.contains("[services.web]"), "{refused}");
    }
    // On the container itself it is where the operator wants it.
    assert!(with("backstop.metrics.port", "9200").is_ok());
    assert!(with("backstop.health.path", "/ready").is_ok());
}

#[test]
fn a_label_does_not_move_a_secret_from_its_url_to_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let here = "url = \"https://gate.example/\"\nheaders = { X-Api-Key = \"secret\" }\n";
    let settings = loaded(&format!(
        "[defaults.metrics]\nurl = \"https://gate.example/metrics\"\ntoken_file = {token:?}\n[defaults.health]\n{here}\
         [defaults.checks.deep]\n{here}[defaults.dependencies.stock]\n{here}\
         [services.own.metrics]\nport = 9100\n"
    ));
    let with = |service: &str, section: &str, keys: &[(&str, &str)]| {
        let label = |(key, value): &(&str, &str)| (format!("backstop.{section}.{key}"), (*value).to_owned());
        settings.service(&ServiceName::new(service), &keys.iter().map(label).collect())
    };
    for section in ["metrics", "health", "checks.deep", "dependencies.stock"] {
        let refused = with("web", section, &[("port", "8080"), ("path", "/steal")]).unwrap_err().join("\n");
        for key in ["port", "path"] {
            let label = format!("backstop.{section}.{key}");
            assert!(refused.contains(&label) && refused.contains("[services.web]"), "{label}: {refused}");
        }
    }
    // The operator wants this one's asked on the container itself, and a check without secrets may be asked anywhere.
    with("own", "metrics", &[("path", "/internal/metrics")]).unwrap();
    with("web", "checks.other", &[("port", "8080"), ("path", "/")]).unwrap();
}

#[test]
fn what_was_in_force_holds_where_nothing_is_said_over_it() {
    let labels = [
        ("backstop.trial", "5m"),
        ("backstop.health.port", "80"),
        ("backstop.health.path", "/"),
        ("backstop.checks.db.tcp", "db:5432"),
        ("backstop.metrics.port", "9000"),
        ("backstop.rules.memory.threshold", "0.8"),
        ("backstop.alert_labels.team", "a"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let base = built_in().service(&web(), &labels).unwrap();
    let over = |text: &str| loaded(text).over(&web(), &base).unwrap();
    assert_eq!(over(""), base);
    let other = over(
        "[services.web]\ntrial = \"15m\"\nhealth = { required = false }\nchecks = { db = { enabled = false } }\n\
         rules = { memory = { sustained = \"2m\" } }\n[services.other]\ntrial = \"1m\"\n",
    );
    assert_eq!(other.trial.as_secs(), 15 * 60, "what is shipped, too, if it was said");
    assert!(!other.checks["health"].required && !other.checks.contains_key("db"));
    let memory = other.rules.iter().find(|rule| rule.name == "memory").unwrap();
    assert_eq!((memory.threshold, memory.sustained.as_secs()), (0.8, 120));
    assert_eq!((&other.metrics, &other.alert_labels), (&base.metrics, &base.alert_labels));
    assert_eq!(over("[services.web]\nmetrics = { enabled = false }\n").metrics, None);

    let short = ServiceSettings { verify_timeout: Duration::from_secs(40), ..base.clone() };
    let clash = loaded("[services.web]\nverify = \"1m\"\n").over(&web(), &short).unwrap_err();
    assert!(clash[0].contains("verify_timeout = 40s is shorter than verify = 1m"), "{clash:?}");
    let fleet = FleetSettings { breaker_rollbacks: 9, ..FleetSettings::default() };
    let said = loaded("[fleet]\none_at_a_time = \"1m\"\n").fleet_over(&fleet);
    assert_eq!((said.breaker_rollbacks, said.one_at_a_time.as_secs()), (9, 60));
}
