//! Configuration from the outside: layers, messages, labels, secrets, and the files that are shipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop::config::{Problems, Settings, Sources, load};
use backstop::core::release::ServiceName;
use backstop::core::settings::{Action, CheckKind, HttpStep, Mode, Rule, ServiceSettings, Target};
use backstop::telemetry::LogFormat;
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
    assert!(files.len() >= 40, "the fixtures are lost");
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
    assert_eq!(settings.notify.webhook.unwrap().url.expose_secret(), HOOK);
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
