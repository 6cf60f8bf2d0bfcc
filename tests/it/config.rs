//! Configuration from the outside: layers, messages, labels, secrets, and the files that are shipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop::config::{Problems, Settings, Sources, load};
use backstop::core::release::ServiceName;
use backstop::core::settings::{
    AccessLog, Action, Against, CheckKind, Condition, Dependency, HealthCheck, HttpStep, Mode, Profile, Rule,
    ServiceSettings, Severity, Target, Text, Tls,
};
use backstop::notify::plan::{Endpoint, Medium};
use backstop::telemetry::LogFormat;
use proptest::prelude::*;
use secrecy::ExposeSecret;

/// A configuration directory of its own, and what else goes into [`load`].
struct Case {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sources = Sources { file: Some(directory.path().join("backstop.toml")), ..Sources::default() };
        Self { directory, sources }.file("backstop.toml", text)
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.sources.overrides.push((key.into(), value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self) -> Result<Settings, Problems> {
        load(&self.sources)
    }

    fn good(&self) -> Settings {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The problems, with paths inside the case's directory.
    fn bad(&self) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        let problems = self.load().expect_err("this has mistakes");
        problems.to_string().replace(&directory, "").lines().map(str::to_owned).collect()
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text)
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn service(settings: &Settings, service: &str) -> ServiceSettings {
    settings.service(&name(service), &BTreeMap::new()).unwrap()
}

fn mins(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn row<'a>(settings: &'a ServiceSettings, name: &str) -> &'a Rule {
    settings.rules.iter().find(|row| row.name == name).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each file holds one mistake, and says in its first lines, after `# says: `, what must be said about it.
#[test]
fn each_mistake_is_said_as_pinned() {
    let directory = root().join("tests/fixtures/config/bad");
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 100, "the fixtures are lost");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let pinned: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# says: ")).collect();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let said = match load(&sources) {
            Ok(_) => "nothing".to_owned(),
            Err(problems) => problems.to_string().replace(&format!("{}/", directory.display()), ""),
        };
        if said != pinned.join("\n") {
            wrong.push(format!("{}\n{said}", file.file_name().unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "not as pinned:\n\n{}", wrong.join("\n\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_each_in_its_layer() {
    let case = Case::new("mode = \"ct\"\n[engine]\nlook_intervall = \"1m\"\n[defaults]\nkeep = 99\n")
        .file("conf.d/10-a.yaml", "services:\n  web:\n    trail: 5m\n")
        .file("conf.d/20-b.toml", "[api]\nlisten = 9797\n")
        .variable("BACKSTOP_API__LISTEN", "nowhere")
        .set("defaults.rules.memory.treshold", "0.8");
    let said = case.bad();
    let starts = [
        "backstop.toml:1:8: mode: \"ct\" is not one of its words; did you mean \"act\"?",
        "backstop.toml:3:1: engine.look_intervall: there is no such setting; did you mean engine.look_interval?",
        "backstop.toml:5:8: defaults.keep: 99 is out of range; a whole number from 1 to 20 would be right",
        "conf.d/10-a.yaml:3:5: services.web.trail: there is no such setting; did you mean services.web.trial?",
        "conf.d/20-b.toml:2:10: api.listen: 9797 is not a text in quotes",
        "environment variable BACKSTOP_API__LISTEN: api.listen: \"nowhere\" is not an address with a port",
        "--set defaults.rules.memory.treshold: defaults.rules.memory.treshold: there is no such setting; did you mean",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (line, start) in said.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn a_later_layer_wins_and_tables_are_merged() {
    let case = Case::new("environment = \"file\"\n[engine]\nlook_interval = \"11s\"\ntimeout = \"11s\"\n[services.Web]\nkeep = 5\ntrial = \"20m\"\n")
        .file("conf.d/20.toml", "environment = \"second\"\n[services.Web]\ntrial = \"30m\"\n")
        .file("conf.d/10.yml", "environment: first\nengine:\n  timeout: 12s\nservices:\n  \"db.primary\":\n    keep: 7\n")
        .file("conf.d/.30.toml.swp", "nonsense")
        .file("conf.d/README", "nonsense")
        .variable("BACKSTOP_ENGINE__TIMEOUT", "13s")
        .variable("BACKSTOP_DEFAULTS__RULES__MEMORY__THRESHOLD", "0.8")
        .variable("BACKSTOP_DEFAULTS__HEALTH__STATUS", "200-299,404")
        .variable("BACKSTOP_ENVIRONMENT", "1.10")
        .set("services.Web.keep", "6")
        .set("services.\"db.primary\".mode", "dry-run")
        .set("log.format", "json");
    let settings = case.good();
    assert_eq!(settings.fleet.environment, "1.10");
    assert_eq!(settings.engine.look_interval, Duration::from_secs(11));
    assert_eq!(settings.engine.timeout, Duration::from_secs(13));
    assert_eq!(settings.log.format, LogFormat::Json);
    let web = service(&settings, "Web");
    assert_eq!((web.keep, web.trial), (6, mins(30)));
    let db = service(&settings, "db.primary");
    assert_eq!((db.keep, db.mode), (7, Mode::DryRun));
    let other = service(&settings, "other");
    assert_eq!((other.keep, other.trial), (3, mins(15)));
    let memory = row(&other, "memory");
    assert!((memory.threshold - 0.8).abs() < f64::EPSILON);
    assert_eq!(memory.sustained, mins(1), "the rest of the row stays");
    let names: Vec<_> =
        settings.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["backstop.toml", "10.yml", "20.toml"]);
}

#[test]
fn variables_set_settings_and_not_services() {
    let case = Case::new("")
        .variable("BACKSTOP_SERVICES__WEB__TRIAL", "5m")
        .variable("BACKSTOP_API_LISTEN", "127.0.0.1:1")
        .variable("BACKSTOP_ENVIROMENT", "x")
        .variable("BACKSTOP_API", "x")
        .variable("BACKSTOP_API__LISTN", "x")
        // Not ours: what container links, orchestrators and test benches set.
        .variable("BACKSTOP_PORT_9797_TCP_ADDR", "10.0.0.1")
        .variable("BACKSTOP_BIN", "/usr/bin/backstop")
        .variable("OTHER_API__LISTEN", "x");
    let said = case.bad();
    let starts = [
        "environment variable BACKSTOP_API_LISTEN: sets nothing; did you mean BACKSTOP_API__LISTEN?",
        "environment variable BACKSTOP_API__LISTN: one setting makes this a section",
        "environment variable BACKSTOP_ENVIROMENT: sets nothing; did you mean BACKSTOP_ENVIRONMENT?",
        "environment variable BACKSTOP_SERVICES__WEB__TRIAL: services cannot be set by variables",
        "environment variable BACKSTOP_API: api: is a section and has no value itself; set what is in it, as in BACKSTOP_API__LISTEN",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    for (line, start) in said.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_and_a_missing_default_is_not() {
    let missing = Sources { file: Some("/nonexistent/backstop.toml".into()), ..Sources::default() };
    let said = load(&missing).unwrap_err().to_string();
    assert!(said.starts_with("/nonexistent/backstop.toml: cannot be read: No such file"), "{said}");

    let case = Case::new("");
    for (file, text, wrong) in [
        ("a.conf", "", "has an extension that says nothing about its format"),
        ("big.toml", &"#".repeat((1 << 20) + 1)[..], "is too large"),
    ] {
        std::fs::write(case.path(file), text).unwrap();
        let sources = Sources { file: Some(case.path(file)), ..Sources::default() };
        let said = load(&sources).unwrap_err().to_string();
        assert!(said.contains(wrong), "{said}");
    }
    std::fs::write(case.path("latin.toml"), b"environment = \"\xff\"").unwrap();
    let sources = Sources { file: Some(case.path("latin.toml")), ..Sources::default() };
    assert!(load(&sources).unwrap_err().to_string().contains("is not text; it must be UTF-8"));
}

#[test]
fn one_broken_file_does_not_hide_the_mistakes_of_another_nor_invent_any() {
    let case = Case::new("[services.web.health]\nport = 80\n[api]\nlisten = 1\n")
        .file("conf.d/a.toml", "[services.web.health\npath = \"/healthz\"\n");
    let said = case.bad().join("\n");
    assert!(said.contains("conf.d/a.toml:1:"), "{said}");
    assert!(said.contains("backstop.toml:4:10: api.listen"), "{said}");
    assert!(!said.contains("without health.path"), "{said}");
}

#[test]
fn a_bad_value_is_not_blamed_a_second_time_for_what_depends_on_it() {
    let said = Case::new("[defaults]\nverify = \"10m\"\nverify_timeout = \"long\"\n").bad();
    assert_eq!(said.len(), 1, "{said:#?}");
}

#[test]
fn labels_say_less_than_the_file_and_more_than_the_defaults() {
    let case = Case::new(
        "[defaults]\nkeep = 4\ntrial = \"16m\"\n[defaults.health]\npath = \"/up\"\n[services.web]\ntrial = \"17m\"\n",
    );
    let settings = case.good();
    let labels = labels([
        ("backstop.enable", "true"),
        ("backstop.trial", "18m"),
        ("backstop.keep", "5"),
        ("backstop.health.port", "8080"),
        ("backstop.health.status", "200,204"),
        ("backstop.prepare", "false"),
        ("backstop.rules.memory.threshold", "0.7"),
        ("backstop.rules.health.action", "evaluate"),
        ("com.docker.compose.project", "shop"),
    ]);
    let web = settings.service(&name("web"), &labels).unwrap();
    assert_eq!((web.trial, web.keep, web.prepare), (mins(17), 5, false));
    let other = settings.service(&name("other"), &labels).unwrap();
    assert_eq!(other.trial, mins(18));
    let health = http_step(&other);
    let expected = Target::Replica { port: 8080, path: "/up".into() };
    assert_eq!(health.target, expected);
    assert_eq!(health.status, [(200, 200), (204, 204)]);
    assert_eq!(row(&web, "health").action, Action::Evaluate);
    assert!((row(&web, "memory").threshold - 0.7).abs() < f64::EPSILON);
}

#[test]
fn nonsense_in_labels_is_refused_with_every_reason() {
    let settings = Case::new("").good();
    let labels = labels([
        ("backstop.enable", "yes"),
        ("backstop.service", "shop"),
        ("backstop.enabled", "true"),
        ("backstop.trail", "5m"),
        ("backstop.keep", "many"),
        ("backstop.verify", "1h"),
        ("backstop.health", "/healthz"),
        ("backstop.rules.memory.threshold", "80"),
        ("backstop.rules.latency.threshold", "2"),
        ("backstop.environment", "x"),
    ]);
    let said = settings.service(&name("web"), &labels).unwrap_err().join("\n");
    for expected in [
        "label backstop.enable: \"yes\" is neither true nor false; true or false would be right",
        "label backstop.enabled: there is no such label (value \"true\"); did you mean backstop.enable?",
        "label backstop.trail: there is no such setting; did you mean backstop.trial?",
        "label backstop.keep: \"many\" is not a whole number; a whole number from 1 to 20 would be right",
        "label backstop.verify: verify_timeout = 5m is shorter than verify = 1h",
        "label backstop.health: is a section and has no value itself; set what is in it, as in backstop.health.url",
        "label backstop.rules.memory.threshold: 80 is more than the whole memory; 0.8 would be right for 80 %",
        "label backstop.rules.latency.threshold: there is no such row in the decision matrix; the rows are error_rate, ",
        "label backstop.environment: there is no such setting",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
    assert_eq!(said.lines().count(), 9, "{said}");
}

/// The one request of the check called `health`.
fn http_step(settings: &ServiceSettings) -> HttpStep {
    match &settings.checks["health"].kind {
        CheckKind::Http(steps) => steps[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_release_chooses_what_is_run_on_the_host_or_done_to_a_database() {
    let settings = Case::new("").good();
    let labels = labels([
        ("backstop.hooks.note.command", "[\"rm\"]"),
        ("backstop.migrations.query", "DROP TABLE users"),
        ("backstop.schema", "additive"),
    ]);
    let said = settings.service(&name("web"), &labels).unwrap_err();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("label backstop.hooks.note.command: cannot be set by a label"), "{said:?}");
    assert!(said[1].starts_with("label backstop.migrations.query: cannot be set by a label"), "{said:?}");
}

#[test]
fn hooks_and_migrations_are_what_their_keys_say() {
    use backstop::core::settings::{HookKind, HookPhase, OnFailure, RunImage};
    let settings = Case::new(
        "[defaults.hooks.note]\nphase = \"after_rollback\"\ncommand = [\"note\", \"{{service}}\"]\n\
         [services.web.hooks.note]\ntimeout = \"7s\"\non_failure = \"continue\"\n\
         [services.web.migrations]\nmanual = \"see the wiki\"\n\
         [services.web.migrations.downgrade]\nrun = { image = \"bad\", command = [\"alembic\", \"downgrade\", \"-1\"] }\n\
         [services.other.hooks.note]\nenabled = false\n",
    )
    .good();
    let web = settings.service(&name("web"), &labels([])).unwrap();
    let [note] = &web.hooks[..] else { panic!("{:?}", web.hooks) };
    assert_eq!((note.phase, note.on_failure), (HookPhase::AfterRollback, OnFailure::Continue));
    assert_eq!(note.timeout, Duration::from_secs(7));
    assert!(!note.repeatable && matches!(&note.kind, HookKind::Command(words) if words.len() == 2));
    let downgrade = web.migrations.downgrade.unwrap();
    assert!(matches!(downgrade.kind, HookKind::Run { image: RunImage::Bad, .. }), "{downgrade:?}");
    assert_eq!(web.migrations.manual.as_deref(), Some("see the wiki"));
    assert_eq!(settings.service(&name("other"), &labels([])).unwrap().hooks, []);
}

#[test]
fn a_label_can_move_the_health_check_that_the_defaults_place() {
    let settings = Case::new("[defaults.health]\nport = 80\npath = \"/healthz\"\n").good();
    let of = |pairs| settings.service(&name("web"), &pairs).map(|settings| http_step(&settings).target);
    let url = Target::Url("http://web/".into());
    assert_eq!(of(labels([("backstop.health.url", "http://web/")])), Ok(url));
    let both = of(labels([("backstop.health.url", "http://web/"), ("backstop.health.port", "1")]));
    let said = both.unwrap_err().join("\n");
    assert!(said.starts_with("label backstop.health.url: health.port is set too"), "{said}");
}

#[test]
fn who_is_watched() {
    let labelled = Case::new("[services.named]\n").good();
    let all = Case::new("enroll = \"all\"\n[services.named]\n").good();
    let by_name = Case::new("enroll = \"named\"\n[services.named]\n").good();
    for (pairs, by_label, by_all, named) in [
        (labels([]), false, true, true),
        (labels([("backstop.enable", "true")]), true, true, true),
        (labels([("backstop.enable", "false")]), false, false, true),
        (labels([("backstop.enable", "maybe")]), true, true, true),
        (labels([("backstop.self", "true"), ("backstop.enable", "true")]), false, false, false),
        (labels([("backstop.self", "false")]), false, true, true),
    ] {
        assert_eq!(labelled.enrolled(&name("web"), &pairs), by_label, "{pairs:?}");
        assert_eq!(all.enrolled(&name("web"), &pairs), by_all, "{pairs:?}");
        assert_eq!(labelled.enrolled(&name("named"), &pairs), named, "{pairs:?}");
        assert_eq!(all.enrolled(&name("named"), &pairs), named, "{pairs:?}");
        assert!(!by_name.enrolled(&name("web"), &pairs), "{pairs:?}");
        assert_eq!(by_name.enrolled(&name("named"), &pairs), named, "{pairs:?}");
    }
}

#[test]
fn a_dry_run_of_all_is_a_dry_run_of_each() {
    let settings = Case::new("mode = \"dry-run\"\n[services.web]\nmode = \"act\"\n").good();
    assert_eq!(settings.mode, Mode::DryRun);
    assert_eq!(service(&settings, "web").mode, Mode::DryRun);
    let labels = labels([("backstop.mode", "act")]);
    assert_eq!(settings.service(&name("other"), &labels).unwrap().mode, Mode::DryRun);
}

const TOKEN: &str = "hunter2-hunter2-hunter2";
const HOOK: &str = "https://hooks.example.com/hunter2";

#[test]
fn secrets_come_from_files_and_credentials() {
    let case =
        Case::new("").file("credentials/token", &format!("{TOKEN}\n")).file("hook", &format!("{HOOK}\r\n"));
    let credentials = case.path("credentials").display().to_string();
    let hook = case.path("hook").display().to_string();
    let case = case
        .variable("CREDENTIALS_DIRECTORY", &credentials)
        .set("api.token_file", "token")
        .set("notify.webhook.url_file", &hook);
    let settings = case.good();
    assert_eq!(settings.api.token.unwrap().expose_secret(), TOKEN);
    let channel = settings.notify.plan.channel("webhook").expect("the short form is a channel");
    assert_eq!(channel.medium, Medium::Slack(Endpoint::at(HOOK)));
}

#[test]
fn a_secret_file_that_holds_none_is_a_problem() {
    let case =
        Case::new("").file("empty", "\n").file("two", &format!("{TOKEN}\n\n")).file("short", "letmein\n");
    for (file, wrong) in [
        ("empty", "is empty; write the secret into it"),
        ("two", "holds something that is not a token"),
        ("short", "holds something that is too short to be a secret"),
        ("none", "cannot be read: No such file or directory (os error 2); create it, or correct its name"),
        ("", "is not a file"),
    ] {
        let path = case.path(file);
        let mut sources = case.sources.clone();
        sources.overrides.push(("api.token_file".into(), path.display().to_string()));
        let said = load(&sources).unwrap_err().to_string();
        let expected = format!("--set api.token_file: api.token_file: the file {} {wrong}", path.display());
        assert!(said.starts_with(&expected), "{said}\n{expected}");
        assert!(!said.contains("hunter2") && !said.contains("letmein"), "{said}");
    }
    let case = Case::new("").variable("CREDENTIALS_DIRECTORY", "/nonexistent").set("api.token_file", "token");
    assert!(case.bad()[0].contains("there is no systemd credential \"token\"; LoadCredential=token:"));
}

#[test]
fn secrets_are_never_shown() {
    let text = format!("[api]\ntoken = \"{TOKEN}\"\n[notify.webhook]\nurl = \"{HOOK}\"\n");
    let settings = Case::new(&text).good();
    for shown in [format!("{settings:?}"), settings.effective().to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(settings.effective()["api"]["token"], "(hidden)");
    let twice = Case::new(&text).set("api.token_file", "/x").set("notify.webhook.timeout", "0s");
    assert!(!twice.bad().join("\n").contains("hunter2"));
    let bad = Case::new("[api]\ntoken = [\"hunter2\"]\n[notify.webhook]\nurl = \"hunter2\"\n")
        .set("api.token", "hunter2");
    assert!(!bad.bad().join("\n").contains("hunter2"));
}

#[test]
fn the_effective_settings_are_complete_and_in_the_shape_of_the_file() {
    let case = Case::new(
        "[services.web]\ntrial = \"20m\"\n[services.web.health]\nurl = \"http://web/\"\n[defaults.health]\nport = 80\npath = \"/\"\n",
    );
    let shown = case.good().effective();
    assert_eq!(shown["mode"], "act");
    assert_eq!(shown["services"]["web"]["trial"], "20m");
    assert_eq!(shown["services"]["web"]["verify"], "30s");
    assert_eq!(shown["services"]["web"]["health"]["url"], "http://web/");
    assert_eq!(shown["services"]["web"]["health"].get("port"), None);
    assert_eq!(shown["defaults"]["rules"]["memory"]["threshold"], 0.9);
    // It can be read back, as JSON is YAML, and says the same.
    let case = Case::new("").file("again.yaml", &shown.to_string());
    let sources = Sources { file: Some(case.path("again.yaml")), ..Sources::default() };
    assert_eq!(load(&sources).unwrap().effective(), shown);
}

#[test]
fn the_shipped_examples_hold() {
    let directory = root().join("config/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        // Their secrets are on other machines.
        let case = Case::new("").file("secret", "https://hooks.example.com/services/T/B/X\n");
        let secret = case.path("secret").display().to_string();
        let name = format!("example.{}", file.extension().unwrap().display());
        let text = text.replace("/etc/backstop/token", &secret).replace("/etc/backstop/webhook", &secret);
        let case = case.file(&name, &text);
        let sources = Sources { file: Some(case.path(&name)), ..Sources::default() };
        load(&sources).unwrap_or_else(|problems| panic!("{}:\n{problems}", file.display()));
        seen += 1;
    }
    assert!(seen >= 5, "the examples are lost");
}

#[test]
fn the_yaml_example_is_the_twin_of_the_toml_one() {
    let shown = |name: &str| {
        let sources = Sources { file: Some(root().join("config/examples").join(name)), ..Sources::default() };
        load(&sources).unwrap_or_else(|problems| panic!("{problems}")).effective()
    };
    assert_eq!(shown("shop.yaml"), shown("shop.toml"));
}

/// What is asked follows from the keys that are given.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_check_is_what_its_keys_say() {
    let case = Case::new(
        r#"
[services.web.health]
port = 8080
path = "/healthz"
[services.web.checks.ready]
url = "https://web/readyz"
method = "POST"
headers = { X-Probe = "1", Authorization = { file = "/run/secrets/a" } }
body = "{}"
status = ["200"]
contains = "yes"
json = { ".migrations_current" = true, ".version" = "2.3", ".jobs[0].lag" = 3, ".load" = 0.5 }
redirects = 2
ca_file = "/etc/ca.pem"
insecure = true
required = false
interval = "30s"
timeout = "10s"
[services.web.checks.db]
tcp = "db:5432"
[services.web.checks.own]
tcp_port = 9000
[services.web.checks.grpc]
grpc = "https://api:50051"
grpc_service = "shop.v1.Orders"
[services.web.checks.grpc-here]
grpc_port = 50051
[services.web.checks.inside]
command = ["pg_isready", "-q"]
[[services.web.checks.login.steps]]
port = 8080
path = "/login"
body_file = "/run/secrets/login"
capture = { token = ".access_token" }
[[services.web.checks.login.steps]]
url = "https://web/me?t={{token}}"
"#,
    );
    let web = service(&case.good(), "web");
    let second = Duration::from_secs(1);
    let get = |target| HttpStep::get(target);
    let here = |port, path: &str| Target::Replica { port, path: path.into() };
    let kind = |name: &str| web.checks[name].kind.clone();
    assert_eq!(web.checks["health"], HealthCheck::get(here(8080, "/healthz"), 5 * second, 2 * second));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let ready = HttpStep {
        method: "POST".into(),
        headers: vec![
            ("Authorization".into(), Text::File("/run/secrets/a".into())),
            ("X-Probe".into(), Text::Plain("1".into())),
        ],
        body: Some(Text::Plain("{}".into())),
        status: vec![(200, 200)],
        contains: Some("yes".into()),
        json: vec![
            pair(".jobs[0].lag", "3"),
            pair(".load", "0.5"),
            pair(".migrations_current", "true"),
            pair(".version", "\"2.3\""),
        ],
        redirects: 2,
        tls: Tls { ca_file: Some("/etc/ca.pem".into()), insecure: true },
        ..get(Target::Url("https://web/readyz".into()))
    };
    let expected = HealthCheck {
        kind: CheckKind::Http(vec![ready]),
        interval: 30 * second,
        timeout: 10 * second,
        required: false,
    };
    assert_eq!(web.checks["ready"], expected);
    assert_eq!(kind("db"), CheckKind::Tcp(Target::Url("tcp://db:5432".into())));
    assert_eq!(kind("own"), CheckKind::Tcp(here(9000, "")));
    let grpc =
        |target, service: &str| CheckKind::Grpc { target, service: service.into(), tls: Tls::default() };
    assert_eq!(kind("grpc"), grpc(Target::Url("https://api:50051".into()), "shop.v1.Orders"));
    assert_eq!(kind("grpc-here"), grpc(here(50051, ""), ""));
    assert_eq!(kind("inside"), CheckKind::Command(vec!["pg_isready".into(), "-q".into()]));
    let login = HttpStep {
        body: Some(Text::File("/run/secrets/login".into())),
        capture: vec![pair("token", ".access_token")],
        ..get(here(8080, "/login"))
    };
    let me = get(Target::Url("https://web/me?t={{token}}".into()));
    assert_eq!(kind("login"), CheckKind::Http(vec![login, me]));
}

#[test]
fn a_higher_layer_asks_in_its_own_way() {
    let text = r#"
[defaults.health]
port = 80
path = "/healthz"
status = ["200"]
headers = { X-Probe = "1" }
interval = "10s"
[defaults.checks.ready]
path = "/readyz"
[defaults.metrics]
port = 9000
[services.db.health]
tcp_port = 5432
[services.batch]
health = { enabled = false }
metrics = { enabled = false }
[services.api]
checks = { ready = { port = 81 } }
metrics = { url = "http://metrics/api" }
"#;
    let settings = Case::new(text).good();
    let db = service(&settings, "db");
    assert_eq!(db.checks["health"].kind, CheckKind::Tcp(Target::Replica { port: 5432, path: String::new() }));
    assert_eq!(db.checks["health"].interval, Duration::from_secs(10), "what goes with any way stays");
    assert_eq!(db.checks.len(), 1, "half a check of [defaults] is for others to complete");
    let batch = service(&settings, "batch");
    assert!(batch.checks.is_empty() && batch.metrics.is_none());
    let api = service(&settings, "api");
    assert_eq!(api.checks.keys().collect::<Vec<_>>(), ["health", "ready"]);
    assert_eq!(http_step(&api).headers.len(), 1);
    assert_eq!(api.metrics.unwrap().target, Target::Url("http://metrics/api".into()));
    // The picture says the same, and can be read back, as long as there are no halves.
    let whole = text.replace("path = \"/readyz\"", "port = 81\npath = \"/readyz\"");
    let settings = Case::new(&whole).good();
    let shown = settings.effective();
    assert_eq!(shown["services"]["db"]["health"].get("status"), None);
    assert_eq!(shown["services"]["api"]["metrics"].get("path"), None);
    let case = Case::new("").file("again.yaml", &shown.to_string());
    let again = load(&Sources { file: Some(case.path("again.yaml")), ..Sources::default() });
    let again = again.unwrap_or_else(|problems| panic!("{problems}"));
    for name in ["db", "batch", "api", "other"] {
        assert_eq!(service(&again, name), service(&settings, name), "{name}");
    }
}

#[test]
fn sources_of_requests() {
    let case = Case::new(
        r#"
[defaults.prometheus]
url = "http://prometheus:9090"
requests = 'sum(increase(r{job="$service"}[$window]))'
errors = 'sum(increase(e{job="$service"}[$window]))'
[defaults.alert_labels]
app = "$service"
[services.web]
alert_labels = { team = "a" }
profile = "cautious"
baseline = "1h"
[services.web.metrics]
port = 9000
labels = { handler = "x" }
requests = "shop_requests_total"
preset = "flask"
[services.web.logs]
error = 'E\d+'
access = "json"
[services.quiet]
prometheus = { enabled = false }
logs = { enabled = false }
"#,
    );
    let settings = case.good();
    let web = service(&settings, "web");
    let metrics = web.metrics.unwrap();
    assert_eq!(metrics.target, Target::Replica { port: 9000, path: "/metrics".into() });
    assert_eq!((metrics.interval, metrics.timeout), (Duration::from_secs(5), Duration::from_secs(3)));
    assert_eq!(
        (metrics.preset.as_str(), metrics.requests.as_deref()),
        ("flask", Some("shop_requests_total"))
    );
    assert_eq!(metrics.labels, [("handler".to_owned(), "x".to_owned())]);
    let prometheus = web.prometheus.unwrap();
    assert_eq!(prometheus.requests, "sum(increase(r{job=\"web\"}[$window]))");
    assert_eq!((prometheus.interval, prometheus.latency), (Duration::from_secs(15), None));
    assert_eq!((web.logs.error.as_str(), web.logs.access), ("E\\d+", AccessLog::Json));
    assert_eq!((web.profile, web.baseline), (Profile::Cautious, mins(60)));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(web.alert_labels, [pair("app", "web"), pair("team", "a")]);
    let quiet = service(&settings, "quiet");
    assert!(quiet.prometheus.is_none() && !quiet.logs.enabled);
    assert_eq!(service(&settings, "other").alert_labels, [pair("app", "other")]);
}

#[test]
fn rows_are_overridden_by_the_number_and_added_whole() {
    let case = Case::new(
        r#"
[defaults.rules]
error_rate = { threshold = 0.02 }
cpu_throttling = { action = "off" }
latency_p99 = { against = "absolute", threshold = "800ms" }
latency_drift = { floor = "50ms" }
[services.web]
health = { port = 80, path = "/" }
[services.web.rules]
error_rate = { sustained = "5m" }
health = { only = "health" }
checkout_slow = { condition = "latency", threshold = 0.8, sustained = "5m" }
disk_alert = { condition = "alerts", threshold = 1, only = "DiskFull", action = "rollback", severity = "critical" }
restarts = { condition = "exits", threshold = 10, within = "1h" }
"#,
    );
    let settings = case.good();
    let web = service(&settings, "web");
    let shipped = |name: &str| Rule::matrix().into_iter().find(|row| row.name == name).unwrap();
    let error_rate = Rule { threshold: 0.02, sustained: mins(5), ..shipped("error_rate") };
    assert_eq!(*row(&web, "error_rate"), error_rate);
    assert_eq!(row(&web, "cpu_throttling").action, Action::Off);
    let p99 = Rule { threshold: 0.8, against: Against::Absolute, floor: 0.0, ..shipped("latency_p99") };
    assert_eq!(*row(&web, "latency_p99"), p99);
    assert_eq!(*row(&web, "latency_drift"), Rule { floor: 0.05, ..shipped("latency_drift") });
    assert_eq!(row(&web, "health").only.as_deref(), Some("health"));
    let added = Rule {
        name: "checkout_slow".into(),
        sustained: mins(5),
        severity: Severity::High,
        action: Action::Evaluate,
        ..p99.clone()
    };
    assert_eq!(*row(&web, "checkout_slow"), added);
    let disk = row(&web, "disk_alert");
    assert_eq!((disk.only.as_deref(), disk.action), (Some("DiskFull"), Action::Rollback));
    assert_eq!((row(&web, "restarts").within, row(&web, "restarts").condition), (mins(60), Condition::Exits));
    assert_eq!(web.rules.len(), Rule::matrix().len() + 3);
    let other = service(&settings, "other");
    assert_eq!(other.rules.len(), Rule::matrix().len());
    assert_eq!(row(&other, "error_rate").sustained, mins(10));
    // By labels too.
    let labels = labels([
        ("backstop.rules.error_rate.threshold", "0.5"),
        ("backstop.rules.slow.condition", "latency"),
        ("backstop.rules.slow.threshold", "2s"),
    ]);
    let labelled = settings.service(&name("other"), &labels).unwrap();
    assert!((row(&labelled, "error_rate").threshold - 0.5).abs() < f64::EPSILON);
    assert!((row(&labelled, "slow").threshold - 2.0).abs() < f64::EPSILON);
}

#[test]
fn labels_say_what_is_flat_and_name_no_files_of_the_host() {
    let settings = Case::new("").good();
    let good = labels([
        ("backstop.metrics.port", "9000"),
        ("backstop.metrics.labels.handler", "checkout"),
        ("backstop.checks.ready.port", "8080"),
        ("backstop.checks.ready.path", "/readyz"),
        ("backstop.checks.ready.headers.X-Probe", "1"),
        ("backstop.checks.inside.command", "[\"pg_isready\", \"-q\"]"),
        ("backstop.dependencies.db.tcp", "db:5432"),
        ("backstop.dependencies.queue.service", "queue"),
        ("backstop.logs.error", "\\bOOPS\\b"),
        ("backstop.profile", "cautious"),
        ("backstop.alert_labels.team", "a"),
    ]);
    let web = settings.service(&name("web"), &good).unwrap();
    assert_eq!(web.checks.keys().collect::<Vec<_>>(), ["inside", "ready"]);
    assert_eq!(web.dependencies["queue"], Dependency::Service(name("queue")));
    assert_eq!(web.metrics.unwrap().labels.len(), 1);

    let bad = labels([
        ("backstop.checks.ready.json..migrations_current", "true"),
        ("backstop.checks.login.steps", "[]"),
        ("backstop.metrics.token_file", "/etc/shadow"),
        ("backstop.health.headers.x.file", "/etc/shadow"),
        ("backstop.health.ca_file", "/etc/shadow"),
    ]);
    let said = settings.service(&name("web"), &bad).unwrap_err();
    let flat = "cannot be said by a label or a variable, which are flat";
    let of_host = "cannot be set by a label, because no release may choose which file of this host is read";
    for (label, what) in [
        ("backstop.checks.ready.json..migrations_current", flat),
        ("backstop.checks.login.steps", flat),
        ("backstop.metrics.token_file", of_host),
        ("backstop.health.headers.x.file", of_host),
        ("backstop.health.ca_file", of_host),
    ] {
        let start = format!("label {label}: {what}");
        assert!(said.iter().any(|said| said.starts_with(&start)), "{start}\n{said:#?}");
    }
    assert_eq!(said.len(), 5, "{said:#?}");
}

#[test]
fn what_was_changed_is_told_with_its_place() {
    let case =
        Case::new("[defaults]\ntrial = \"15m\"\nkeep = 5\n[services.web.health]\nport = 80\npath = \"/\"\n")
            .file("conf.d/a.toml", "[services.web.rules.memory]\nthreshold = 0.8\nsustained = \"1m\"\n")
            .variable("BACKSTOP_ENVIRONMENT", "test")
            .set("defaults.keep", "6");
    let directory = format!("{}/", case.directory.path().display());
    let changed: Vec<String> = case
        .good()
        .changed()
        .iter()
        .map(|changed| {
            format!("{} = {} {}", changed.key, changed.value, changed.place.replace(&directory, ""))
        })
        .collect();
    assert_eq!(
        changed,
        [
            "environment = \"test\" environment variable BACKSTOP_ENVIRONMENT",
            "defaults.keep = 6 --set defaults.keep",
            "services.web.health.port = 80 backstop.toml:5:1",
            "services.web.health.path = \"/\" backstop.toml:6:1",
            "services.web.rules.memory.threshold = 0.8 conf.d/a.toml:2:1",
        ]
    );
}

#[test]
fn what_may_not_be_meant_is_a_warning() {
    let case = Case::new(
        r#"
[services.a.dependencies]
b = { service = "b" }
other = { service = "elsewhere" }
[services.b.dependencies]
a = { service = "a" }
[services.b]
health = { interval = "10s" }
metrics = { port = 1, token_file = "/nonexistent/token" }
[services.b.checks.ready]
url = "http://b/"
headers = { Authorization = "Bearer hunter2", X-Probe = "1" }
"#,
    );
    let settings = case.good();
    let warnings = settings.warnings();
    for part in [
        "services.b.checks.ready.headers.Authorization: this value is a secret by its name",
        "services.a.dependencies.other: no service called elsewhere is named here",
        "services.b.health: says not where to ask",
        "services.b: metrics needs /nonexistent/token, which cannot be read now: No such file",
        "services.a.dependencies: it depends on itself by way of b",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}\n{warnings:#?}");
    }
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(warnings[0].contains("backstop.toml:12:13: "), "{}", warnings[0]);
    assert!(Case::new("").good().warnings().is_empty());
    // Nor is the secret shown anywhere.
    let shown = format!("{}{:?}{warnings:?}", settings.effective(), settings.changed());
    assert!(!shown.contains("hunter2") && shown.contains("X-Probe"), "{shown}");
}

#[test]
fn what_an_earlier_step_captured_is_no_secret_in_the_open() {
    let warned = |value: &str| {
        let text = format!(
            "[[services.web.checks.login.steps]]\nport = 1\npath = \"/login\"\ncapture = {{ token = \".a\" }}\n\
             [[services.web.checks.login.steps]]\nport = 1\npath = \"/\"\nheaders = {{ Authorization = \"{value}\" }}\n"
        );
        Case::new(&text).good().warnings()
    };
    for carried in ["Bearer {{token}}", "{{token}}", "session={{token}}; other={{token}}"] {
        assert_eq!(warned(carried), Vec::<String>::new(), "{carried}");
    }
    for open in ["Bearer hunter2", "hunter2 {{token}}", "key=hunter2{{token}}", "{{token", "Bearer"] {
        let warnings = warned(open);
        assert_eq!(warnings.len(), 1, "{open}: {warnings:?}");
        assert!(
            warnings[0].contains("checks.login.steps.2.headers.Authorization: this value"),
            "{warnings:?}"
        );
    }
}

#[test]
fn a_watch_that_is_raised_is_shown_as_it_is_in_force() {
    let case = Case::new(
        "[defaults]\ntrial = \"15m\"\nwatch = \"5m\"\n[services.web]\nwatch_slow = \"10m\"\n[services.api]\ntrial = \"20m\"\n",
    );
    let settings = case.good();
    let changed: Vec<String> =
        settings.changed().iter().map(|changed| format!("{} = {}", changed.key, changed.value)).collect();
    let expected =
        ["defaults.watch = \"15m\"", "services.api.trial = \"20m\"", "services.web.watch_slow = \"15m\""];
    assert_eq!(changed, expected);
    assert_eq!(settings.effective()["services"]["api"]["watch"], "20m");
    let raised = "is shorter than `trial`, and what is on trial can always be rolled back";
    assert_eq!(
        settings.warnings(),
        [
            format!("defaults.watch: 5m {raised}: 15m is in force"),
            format!("services.api.watch: 5m {raised}: 20m is in force"),
            format!("services.web.watch_slow: 10m {}: 15m is in force", raised.replace("trial`", "watch`")),
        ]
    );
    let (web, api) = (service(&settings, "web"), service(&settings, "api"));
    assert_eq!((web.watch, web.watch_slow, api.watch), (mins(15), mins(15), mins(20)));
}

#[test]
fn the_engine_is_where_docker_host_says_if_no_setting_says_it() {
    let docker = |text: &str| Case::new(text).variable("DOCKER_HOST", "tcp://proxy:2375");
    let proxy = || docker("[engine]\ninsecure = true\n");
    assert_eq!(proxy().good().engine.host, "tcp://proxy:2375");
    let changed = proxy().good().changed().to_vec();
    assert!(changed.iter().any(|one| one.place == "environment variable DOCKER_HOST"), "{changed:?}");
    let open = docker("").bad();
    assert!(
        open.len() == 1 && open[0].starts_with("environment variable DOCKER_HOST: engine.host: is plain TCP"),
        "{open:?}"
    );
    assert_eq!(docker("[engine]\nhost = \"unix:///a.sock\"\n").good().engine.host, "unix:///a.sock");
    let variable = docker("").variable("BACKSTOP_ENGINE__HOST", "unix:///b.sock");
    assert_eq!(variable.good().engine.host, "unix:///b.sock");
    assert_eq!(docker("").set("engine.host", "unix:///c.sock").good().engine.host, "unix:///c.sock");
    assert_eq!(Case::new("").variable("DOCKER_HOST", "").good().engine.host, "unix:///var/run/docker.sock");
    let odd = || Case::new("").variable("DOCKER_HOST", "npipe://web1");
    let said = odd().bad();
    assert!(
        said[0].starts_with("environment variable DOCKER_HOST: engine.host: \"npipe://web1\""),
        "{said:?}"
    );
    assert_eq!(odd().set("engine.host", "unix:///c.sock").good().engine.host, "unix:///c.sock");
    let tls = docker("").variable("DOCKER_TLS_VERIFY", "1").variable("DOCKER_CERT_PATH", "/certs").good();
    assert_eq!(tls.engine.tls.unwrap().key, Path::new("/certs/key.pem"));
    assert_eq!(proxy().variable("DOCKER_CERT_PATH", "/certs").good().engine.tls, None);
}

#[test]
fn engines_have_names_and_each_its_own_way_there() {
    let text = "[engines.east]\nhost = \"ssh://ops@east:2222\"\n[engines.west]\nhost = \"tcp://west:2376\"\n\
        tls_ca = \"/t/ca\"\ntls_cert = \"/t/cert\"\ntls_key = \"/t/key\"\n[engines.lab]\nhost = \"tcp://lab:2375\"\n\
        insecure = true\n[services.\"east/web\"]\ntrial = \"2m\"\n";
    let settings = Case::new(text).good();
    let hosts: Vec<&str> = settings.engines.iter().map(|engine| engine.host.as_str()).collect();
    assert_eq!(hosts, ["ssh://ops@east:2222", "tcp://lab:2375", "tcp://west:2376"]);
    assert_eq!(settings.engines[2].tls.as_ref().unwrap().ca, Path::new("/t/ca"));
    assert_eq!(settings.fleet.engines, ["east", "lab", "west"]);
    assert_eq!(service(&settings, "east/web").trial, mins(2));
    assert_ne!(service(&settings, "web").trial, mins(2));
}

#[test]
fn what_is_wrong_with_engines_is_said_at_once() {
    let text = "[engine]\nhost = \"tcp://proxy:2375\"\n[engines.open]\nhost = \"tcp://open:2375\"\n[engines.half]\nhost = \"tcp://half:2376\"\n\
        tls_ca = \"/t/ca\"\n[engines.none]\ninsecure = true\n[engines.odd]\nhost = \"ssh://odd\"\n\
        cert_path = \"/t\"\n[engines.\"a/b\"]\nhost = \"ssh://ab\"\n[services.\"nowhere/web\"]\nmode = \"act\"\n\
        [groups]\nshop = [\"web\", \"half/web\"]\n";
    let said = Case::new(text).bad();
    for (key, wrong) in [
        ("engine.host", "is plain TCP"),
        ("engines.open.host", "is plain TCP"),
        ("engines.half.tls_ca", "tls_cert is not"),
        ("engines.none", "is missing"),
        ("engines.odd.cert_path", "is for tcp:// only"),
        ("engines.\"a/b\"", "cannot be the name of an engine"),
        ("services.\"nowhere/web\"", "no engine is called nowhere"),
        ("groups.shop", "several engines"),
    ] {
        assert!(said.iter().any(|line| line.contains(key) && line.contains(wrong)), "{key}: {said:#?}");
    }
    assert_eq!(said.len(), 8, "{said:#?}");
}

#[test]
fn a_slip_within_a_name_is_corrected_in_the_whole_of_it() {
    let settings = Case::new("").good();
    for (label, meant) in [
        ("backstop.heath.path", "did you mean backstop.health.path?"),
        ("backstop.rulez.memory.threshold", "did you mean backstop.rules.memory.threshold?"),
        ("backstop.health.paht", "did you mean backstop.health.path?"),
    ] {
        let said = settings.service(&name("web"), &labels([(label, "/healthz")])).unwrap_err();
        assert!(said.len() == 1 && said[0].ends_with(meant), "{label}: {said:?}");
    }
    let said = Case::new("").set("defaults.heath.path", "/").bad();
    assert!(said[0].ends_with("did you mean defaults.health.path?"), "{said:?}");
    let said = Case::new("").variable("BACKSTOP_DEFAULTS__HEATH__PATH", "/").bad();
    assert!(said[0].ends_with("did you mean BACKSTOP_DEFAULTS__HEALTH__PATH?"), "{said:?}");
}

#[test]
fn bodies_are_not_shown() {
    let case = Case::new(
        "[services.web.health]\nport = 1\npath = \"/\"\nbody = \"hunter2\"\n[services.web.checks.x]\nsteps = [{ url = \"http://x/\", body = \"hunter2\" }]\n",
    );
    let settings = case.good();
    let shown = format!("{}{:?}", settings.effective(), settings.changed());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(settings.effective()["services"]["web"]["checks"]["x"]["steps"][0]["body"], "(hidden)");
}

#[test]
fn credentials_for_registries_are_where_docker_has_them_unless_it_is_said() {
    let home = || Case::new("").variable("HOME", "/var/lib/backstop");
    let usual = |case: Case| case.good().registry.usual;
    assert_eq!(usual(home()).as_deref(), Some(Path::new("/var/lib/backstop/.docker/config.json")));
    let set = home().variable("DOCKER_CONFIG", "/docker");
    assert_eq!(usual(set).as_deref(), Some(Path::new("/docker/config.json")));
    assert_eq!(usual(home().variable("HOME", "")), None);

    let text = "[registry]\ndocker_config = \"/etc/backstop/docker.json\"\ncheck_interval = \"1h\"\n";
    let settings = Case::new(text).good();
    assert_eq!(settings.registry.docker_config.as_deref(), Some(Path::new("/etc/backstop/docker.json")));
    assert_eq!(settings.fleet.check_interval, mins(60));
    let said = Case::new("[registry]\ndocker_config = \"docker.json\"\ncheck_interval = \"1ms\"\n").bad();
    assert!(said[0].contains("registry.docker_config: \"docker.json\" is not an absolute path"), "{said:?}");
    assert!(said[1].contains("registry.check_interval"), "{said:?}");
}

#[test]
fn groups_name_services_once_and_in_order() {
    let settings =
        Case::new("[groups]\nshop = [\"frontend\", \"api\"]\nmail = [\"smtp\", \"imap\"]\n").good();
    let groups: Vec<_> = settings.fleet.groups.iter().map(|g| (g.name.as_str(), g.services.len())).collect();
    assert_eq!(groups, [("mail", 2), ("shop", 2)]);
    assert_eq!(settings.fleet.groups[1].services[0].as_str(), "frontend");

    let said =
        Case::new("[groups]\nsolo = [\"api\"]\ntwice = [\"a\", \"a\"]\nodd = [\"a b\", \"c\"]\nword = 5\n")
            .bad();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].contains("groups.solo: has 1 services; two or more services in the order"), "{said:?}");
    assert!(said[1].contains("groups.twice: a is in it twice"), "{said:?}");
    assert!(said[2].contains("\"a b\" cannot be the name of a service"), "{said:?}");
    let said = Case::new("[groups]\none = [\"api\", \"jobs\"]\ntwo = [\"api\", \"mail\"]\n").bad();
    assert!(
        said[0].contains(":3:") && said[0].contains("groups.two: api is in the group one already"),
        "{said:?}"
    );
}

#[test]
fn the_flight_record_and_the_tokens_of_others() {
    let case = Case::new("state_dir = \"/srv/backstop\"\n[flight]\nsize = \"2GiB\"\nage = \"30days\"\n[fleet]\nself_check = [\"tcp://1.1.1.1:53\"]\n")
        .file("hook", &format!("{TOKEN}\n"));
    let hook = case.path("hook").display().to_string();
    let settings = case.set("api.hook_token_file", &hook).good();
    let flight = &settings.flight;
    assert!(flight.enabled);
    assert_eq!((flight.max_bytes, flight.max_age), (2 << 30, mins(30 * 24 * 60)));
    assert_eq!(flight.directory, Path::new("/srv/backstop/flight"));
    assert_eq!(settings.fleet.self_check, ["tcp://1.1.1.1:53"]);
    assert_eq!(settings.api.hook_token.unwrap().expose_secret(), TOKEN);
    assert!(settings.api.token.is_none(), "who may send alerts may do nothing else");
}

/// Keys and values as somebody might mix them up.
#[allow(clippy::too_many_lines, reason = "a table")]
fn typed() -> impl Strategy<Value = String> {
    let section = prop::sample::select(vec![
        "defaults",
        "defaults.health",
        "defaults.checks.a",
        "defaults.checks.a.steps",
        "defaults.metrics",
        "defaults.prometheus",
        "defaults.logs",
        "defaults.dependencies.a",
        "defaults.rules.a",
        "defaults.rules.error_rate",
        "defaults.rules.health",
        "defaults.alert_labels",
        "services.a",
        "services.a.health",
        "services.a.health.headers",
        "services.a.health.json",
        "services.a.metrics.labels",
        "services.a.rules.latency_p99",
        "services.a.dependencies.a",
        "api",
        "fleet",
        "flight",
    ]);
    let key = prop::sample::select(vec![
        "url",
        "port",
        "path",
        "tcp",
        "tcp_port",
        "grpc",
        "grpc_port",
        "command",
        "steps",
        "service",
        "method",
        "headers",
        "body",
        "body_file",
        "status",
        "contains",
        "json",
        "capture",
        "redirects",
        "ca_file",
        "insecure",
        "required",
        "enabled",
        "interval",
        "timeout",
        "preset",
        "requests",
        "errors",
        "latency",
        "labels",
        "error",
        "access",
        "condition",
        "threshold",
        "against",
        "floor",
        "only",
        "within",
        "sustained",
        "action",
        "self_check",
        "size",
        "age",
        "hook_token",
        "profile",
        "baseline",
        "\".a[0]\"",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "0",
        "-1",
        "0.5",
        "nan",
        "1e300",
        "true",
        "\"\"",
        "\"x\"",
        "\"a:1\"",
        "\"http://a/{{t}}\"",
        "\"/a\"",
        "\"5s\"",
        "\"800ms\"",
        "\"latency\"",
        "\"health\"",
        "\"baseline\"",
        "\"absolute\"",
        "\"512MiB\"",
        "\"(\"",
        "'\\b\u{e9}('",
        "\"sum(x[$window])\"",
        "[]",
        "[1]",
        "[\"a\"]",
        "[{}]",
        "[{ url = \"http://a/\" }]",
        "[[{}]]",
        "{}",
        "{ a = 1 }",
        "{ file = \"/a\" }",
        "{ \".a\" = true }",
        "2026-11-01",
        "\"POST\"",
        "\"$service\"",
    ]);
    (section, key, value).prop_map(|(section, key, value)| format!("{section}.{key} = {value}"))
}

#[test]
fn a_number_that_json_does_not_have_is_refused() {
    let case = Case::new("services.a.health.json.lag = nan");
    let said = case.load().unwrap_err().to_string();
    assert!(said.contains("services.a.health.json.lag: NaN is no number that JSON has"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever is typed is settings or problems, never a panic; and what holds for the file holds for each service.
    #[test]
    fn whatever_is_typed_is_right_or_wrong(lines in prop::collection::vec(typed(), 1..5)) {
        let case = Case::new(&lines.join("\n"));
        if let Ok(settings) = case.load() {
            for service in ["a", "b"] {
                prop_assert!(settings.service(&name(service), &BTreeMap::new()).is_ok(), "{lines:?}");
            }
            settings.warnings();
            let again = Case::new("").file("again.yaml", &settings.effective().to_string());
            let again = load(&Sources { file: Some(again.path("again.yaml")), ..Sources::default() });
            // What is hidden cannot be read back, nor half an address that was left for services to complete.
            let shown = settings.effective().to_string();
            let halves = [".port", ".path", ".prometheus"];
            let half = lines.iter().any(|line| line.starts_with("defaults.") && halves.iter().any(|key| line.contains(key)));
            prop_assert!(shown.contains("(hidden)") || half || again.is_ok(), "{lines:?}\n{}", again.unwrap_err());
        }
    }
}
