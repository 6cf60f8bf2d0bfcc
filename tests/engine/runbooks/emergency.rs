//! "Runbook: Emergency Rollback": a backend in a Compose project whose `.env` says which release runs.

use super::{Project, answer, measured, reminders, report, step, watched, within_minutes};
use crate::support::port::free_port_of;
use crate::support::story::{NOT_HEALTH, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, seconds};

const API: &str = "production-api-1";
/// Whoever watches a login as well: it is a flow of several requests.
const LOGIN: &str = r#"
    [services.production-api.logs]
    enabled = true
    interval = "1s"
    [services.production-api.checks.login]
    interval = "500ms"
    timeout = "500ms"
    steps = [
        { port = 8080, path = "/login", method = "POST", headers = { Content-Type = "application/json" }, body = '{"user": "demo", "password": "demo"}', capture = { token = ".token" } },
        { port = 8080, path = "/me", headers = { Authorization = "Bearer {{token}}" } },
    ]
"#;
/// What a person types after a rollback.
const SMOKE: &str = r#"
    [services.production-api.hooks.smoke]
    phase = "before_verify"
    timeout = "90s"
    steps = [
        { url = "http://127.0.0.1:@PORT@/", json = { ".version" = "{{to_tag}}" } },
        { url = "http://127.0.0.1:@PORT@/login", method = "POST", headers = { Content-Type = "application/json" }, body = '{"user": "demo", "password": "demo"}' },
    ]
"#;

fn project<'a>(bed: &'a Bed, environment: &str, more: &str) -> Project<'a> {
    let file = format!("services:\n{}", watched("api", "ignition-api:${IMAGE_TAG:?}", more));
    Project::new(bed, "production", &[], &[("docker-compose.yml", &file), (".env", environment)])
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn emergency_rollback() {
    let bed = Bed::lease();
    bed.image("ignition-api:v1.2.2", &Image::demo("v1.2.2"));
    // "Auth flow broken (users cannot login)": its health is well.
    bed.image("ignition-api:v1.2.3", &Image::demo("v1.2.3").env("DEMO_LOGIN", "refuse"));
    let webhook = Webhook::start();
    let port = free_port_of("127.0.0.1").to_string();
    let daemon =
        Daemon::start(&bed, Some(&webhook.url()), &(LOGIN.to_owned() + &SMOKE.replace("@PORT@", &port)));
    let ports = format!("    ports: ['127.0.0.1:{port}:8080']\n");
    let project = project(&bed, "# production\nIMAGE_TAG=v1.2.2\nOTHER=kept\n", &ports);
    project.compose(&["up", "-d"]);
    daemon.proved("production-api");
    project.edit(".env", "v1.2.2", "v1.2.3");
    project.compose(&["up", "-d"]);

    step("1. Confirm Decision: verify current health; confirm with on-call lead");
    let record = rollback_over(&daemon, "production-api");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    let why = record["text"].as_str().unwrap();
    assert!(why.contains("login"), "{why}");
    step("Check error rate in logs");
    measured(&daemon, "production-api", "log_errors");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "production-api"]);

    step("2. Identify Target Version: v1.2.2 (before v1.2.3)");
    assert!(record["from"]["reference"].as_str().unwrap().ends_with(":v1.2.3"), "{record:#}");
    assert!(record["to"]["reference"].as_str().unwrap().ends_with(":v1.2.2"), "{record:#}");

    step("3. Execute Rollback: update image tag in .env; verify container started");
    assert_eq!(project.read(".env"), "# production\nIMAGE_TAG=v1.2.2\nOTHER=kept\n");
    let runs = bed.inspect(API);
    assert_eq!(runs["State"]["Running"], true);
    project.compose(&["up", "-d"]);
    assert_eq!(bed.inspect(API)["Id"], runs["Id"], "`up` has nothing to do");

    step("4. Verify Rollback: health check; version check (should show old version); auth flow test");
    answer(&bed, API, "/healthz", 200);
    assert_eq!(bed.ask(API).unwrap()["version"], "v1.2.2");
    // The login is a required check.
    measured(&daemon, "production-api", "health");

    step("Post-Rollback");
    let boxes = [
        "Smoke tests and login flow confirmed",
        "Health checks passing",
        "Team notified",
        "documented in the log",
    ];
    let said = report(&daemon, &record, &boxes);
    reminders(
        &said,
        &[
            ("Root cause found", "service owner"),
            // Nobody counts its requests, so nobody knows.
            ("Error rates and response times back", "on-call"),
            ("ticket", "on-call"),
            ("Post-mortem", "team lead"),
            ("Fix developed", "service owner"),
            ("Deployment of the fix planned", "service owner"),
        ],
    );

    step("Rollback Log: Date, From, To, Reason, Duration");
    let (code, log) = daemon.command(&["history", "--format", "markdown"]);
    assert_eq!(code, Some(0), "{log}");
    for word in ["v1.2.3", "v1.2.2", "login"] {
        assert!(log.contains(word), "no {word} in:\n{log}");
    }
    within_minutes(&record, 5.0);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn emergency_configuration_error() {
    let bed = Bed::lease();
    bed.image("ignition-api:v1.2.2", &Image::demo("v1.2.2").env("DEMO_REQUIRE", "GREETING=hello"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let more = "    environment:\n      GREETING: ${GREETING}\n";
    let project = project(&bed, "IMAGE_TAG=v1.2.2\nGREETING=hello\n", more);
    project.compose(&["up", "-d"]);
    daemon.proved("production-api");

    step("Scenario: Configuration Error: if env var caused issue");
    project.edit(".env", "GREETING=hello", "GREETING=oops");
    project.compose(&["up", "-d"]);

    step("Restart with corrected config: what was right before");
    let record = rollback_over(&daemon, "production-api");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(bed.ask(API).unwrap()["env"]["GREETING"], "hello");
    assert_eq!(
        record["from"]["image"], record["to"]["image"],
        "the image is the same, the configuration is not"
    );
    let said = webhook.announced(
        seconds(60),
        &["ROLLBACK APPLIED, WITH NOTES", "brings the bad one back: put right GREETING in "],
    );
    assert!(!said.to_string().contains("nothing to pin"), "{said:#}");

    step("1. Fix configuration: vim deploy/production/.env; 2. docker compose up -d --force-recreate api");
    project.edit(".env", "GREETING=oops", "GREETING=hello");
    project.compose(&["up", "-d", "--force-recreate", "api"]);
    answer(&bed, API, "/healthz", 200);
    daemon.proved_as("production-api", "ignition-api:v1.2.2");
    assert_eq!(
        rollback_over(&daemon, "production-api")["id"],
        record["id"],
        "nothing is rolled back any more"
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn emergency_resource_exhaustion() {
    let bed = Bed::lease();
    bed.image("ignition-api:v1.2.2", &Image::demo("v1.2.2"));
    bed.image("ignition-api:v1.2.3", &Image::demo("v1.2.3").env("DEMO_MEMORY_PERCENT", "93"));
    let webhook = Webhook::start();
    let more = "[defaults.rules.memory]\nmitigations = [\"restart\"]\n[defaults.rules.oom]\naction = \"off\"\n\
                [defaults.rules.crash_loop]\naction = \"off\"\n";
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &format!("{more}{NOT_HEALTH}"));
    let project = project(&bed, "IMAGE_TAG=v1.2.2\n", "    mem_limit: 128m\n");
    project.compose(&["up", "-d"]);
    daemon.proved("production-api");
    project.edit(".env", "v1.2.2", "v1.2.3");
    project.compose(&["up", "-d"]);

    step("Scenario: Resource Exhaustion: 1. docker compose up -d api  # restart");
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "restart it"]);

    step("2. If persists, rollback to previous version");
    let record = rollback_over(&daemon, "production-api");
    assert_eq!(
        (&record["outcome"], &record["reason"]),
        (&"verified".into(), &"memory_high".into()),
        "{record:#}"
    );
    assert_eq!(project.read(".env"), "IMAGE_TAG=v1.2.2\n");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "Tried before"]);
}
