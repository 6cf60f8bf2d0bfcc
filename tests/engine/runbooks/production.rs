//! "Rollback runbook (production)": `api` and `jobs` by `--env-file .env -f docker-compose.yml`, their migrations, and a
//! feature that is switched off in an emergency.

use std::fs;

use super::{Project, answer, measured, reminders, report, step, watched};
use crate::support::port::free_port_of;
use crate::support::postgres::Postgres;
use crate::support::story::{NOT_HEALTH, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, seconds};

const OPTIONS: [&str; 4] = ["--env-file", ".env", "-f", "docker-compose.yml"];
const API: &str = "prod-api-1";
const JOBS: &str = "prod-jobs-1";
const RELEASE: &str = "[groups]\nrelease = [\"prod-jobs\", \"prod-api\"]\n";
/// "Check metrics scrape with the bearer token"; "verify recent logs for errors in `api` and `jobs`".
const MEASURED: &str = r#"
    [services.prod-api.metrics]
    port = 8080
    interval = "1s"
    timeout = "1s"
    token_file = "@TOKEN@"
    [defaults.logs]
    enabled = true
    interval = "1s"
"#;
const READY: &str = r#"
    [services.prod-api.checks.ready]
    port = 8080
    path = "/readyz"
    interval = "500ms"
    timeout = "500ms"
    json = { ".migrations_current" = true }
"#;

fn project<'a>(bed: &'a Bed, tag: &str, api: &str) -> Project<'a> {
    let on_trial = "      backstop.trial: 30s\n";
    let jobs = watched("jobs", "app-jobs:${IMAGE_TAG:?}", "");
    let file =
        format!("services:\n{}{on_trial}{jobs}{on_trial}", watched("api", "app-api:${IMAGE_TAG:?}", api));
    let environment = format!("# see docs/deploy_production.md\nIMAGE_TAG={tag}\nEXPORT_MODE=on\n");
    Project::new(bed, "prod", &OPTIONS, &[("docker-compose.yml", &file), (".env", &environment)])
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn production_release_with_an_additive_migration() {
    let bed = Bed::lease();
    const TOKEN: &str = "metrics-metrics-metrics";
    let api = |version| Image::demo(version).env("DEMO_METRICS_TOKEN", TOKEN);
    bed.image("app-api:rc1", &api("rc1").env("DEMO_SELF_TRAFFIC", "20"));
    bed.image("app-api:rc2", &api("rc2"));
    for version in ["rc1", "rc2"] {
        bed.image(&format!("app-jobs:{version}"), &Image::demo(version));
    }
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), TOKEN).unwrap();
    let sources = MEASURED.replace("@TOKEN@", &token.path().display().to_string());
    let database = Postgres::start();
    database
        .sql("CREATE TABLE schema_migrations (version text); INSERT INTO schema_migrations VALUES ('14')");
    let webhook = Webhook::start();
    let more = format!(
        "{RELEASE}{READY}{sources}\n[services.prod-api.migrations]\nquery = \"SELECT max(version) FROM schema_migrations\"\nurl_file = \"{}\"\n\
         changed = \"additive\"\n",
        database.url_file().display()
    );
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &more);
    let project = project(&bed, "rc1", "");
    project.compose(&["up", "-d", "api", "jobs"]);
    for name in ["prod-api", "prod-jobs"] {
        daemon.proved(name);
    }

    step(
        "1) Identify rollback target: confirm the tag includes the migrations level that was previously in prod",
    );
    database.sql("CREATE TABLE added (id int); INSERT INTO schema_migrations VALUES ('15')");
    project.edit(".env", "IMAGE_TAG=rc1", "IMAGE_TAG=rc2");
    project.compose(&["up", "-d", "api", "jobs"]);
    bed.serves(seconds(60), API, "rc2");
    bed.turn(API, "health", "error");

    step("2) Roll back the application version: point Compose to the known-good tag; up -d api jobs");
    for name in ["prod-api", "prod-jobs"] {
        let record = rollback_over(&daemon, name);
        assert_eq!(record["outcome"], "verified", "{record:#}");
    }
    assert!(project.read(".env").contains("IMAGE_TAG=rc1\n"), "{}", project.read(".env"));

    step("Verify containers are running the expected hash");
    for (container, image) in [(API, "app-api:rc1"), (JOBS, "app-jobs:rc1")] {
        let wanted = bed.docker(&["image", "inspect", "--format", "{{.Id}}", image]);
        assert_eq!(bed.inspect(container)["Image"], wanted.trim());
    }

    step(
        "3) Handle migrations: if the schema change is additive, keep the migration and revert only the app image",
    );
    assert_eq!(database.sql("SELECT max(version) FROM schema_migrations"), "15");

    step("5) Post-rollback validation: /healthz and /readyz; announce rollback completion");
    answer(&bed, API, "/healthz", 200);
    assert!(answer(&bed, API, "/readyz", 200).contains("\"migrations_current\":true"));
    step("Check metrics scrape with the bearer token; verify recent logs for errors in api and jobs");
    answer(&bed, API, "/metrics", 401);
    measured(&daemon, "prod-api", "error_rate");
    measured(&daemon, "prod-api", "log_errors");
    measured(&daemon, "prod-jobs", "log_errors");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "app-api:rc1"]);
    let boxes = ["Resolution announced", "Health checks passing"];
    let said = report(&daemon, &rollback_over(&daemon, "prod-api"), &boxes);
    reminders(&said, &[("Incident ticket created", "on-call"), ("Fix developed", "service owner")]);
    let runs = [API, JOBS].map(|container| bed.inspect(container)["Id"].clone());
    project.compose(&["up", "-d", "api", "jobs"]);
    assert_eq!(
        [API, JOBS].map(|container| bed.inspect(container)["Id"].clone()),
        runs,
        "`up` has nothing to do"
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn production_release_with_a_breaking_migration() {
    let bed = Bed::lease();
    bed.image("app-api:rc1", &Image::demo("rc1"));
    bed.image("app-api:rc2", &Image::demo("rc2").env("DEMO_MIGRATIONS_PENDING", "1"));
    let (database, files) = (Postgres::start(), tempfile::tempdir().unwrap());
    database
        .sql("CREATE TABLE schema_migrations (version text); INSERT INTO schema_migrations VALUES ('14')");
    fs::write(files.path().join("down.sql"), "DELETE FROM schema_migrations WHERE version = '15';\n")
        .unwrap();
    let more = format!(
        "{READY}\n[services.prod-api.hooks.isolated]\nphase = \"after_stop\"\nrun = {{ image = \"bad\", command = [\"--help\"] }}\n\
         [services.prod-api.migrations]\nquery = \"SELECT max(version) FROM schema_migrations\"\nurl_file = \"{url_file}\"\n\
         [services.prod-api.migrations.backup]\ncommand = [\"pg_dump\", \"--file\", \"{files}/backup.sql\", \"{url}\"]\n\
         [services.prod-api.migrations.downgrade]\nsql_file = \"{files}/down.sql\"\n",
        url_file = database.url_file().display(),
        url = database.url(),
        files = files.path().display(),
    );
    let daemon = Daemon::start(&bed, None, &more);
    let file = format!("services:\n{}", watched("api", "app-api:${IMAGE_TAG:?}", ""));
    let project =
        Project::new(&bed, "prod", &OPTIONS, &[("docker-compose.yml", &file), (".env", "IMAGE_TAG=rc1\n")]);
    project.compose(&["up", "-d", "api"]);
    daemon.proved("prod-api");

    step("3) If the migration is breaking and must be undone");
    database.sql("INSERT INTO schema_migrations VALUES ('15')");
    project.edit(".env", "rc1", "rc2");
    project.compose(&["up", "-d", "api"]);

    step("Run the downgrade in isolation: docker compose run --rm api alembic downgrade -1");
    let record = rollback_over(&daemon, "prod-api");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert!(record["text"].as_str().unwrap().contains("ready"), "{record:#}");
    assert_eq!(database.sql("SELECT max(version) FROM schema_migrations"), "14");
    assert!(
        fs::read_to_string(files.path().join("backup.sql")).unwrap().contains("15"),
        "the backup is from before"
    );

    step("Re-run /readyz to ensure migrations_current=true after the downgrade");
    assert!(answer(&bed, API, "/readyz", 200).contains("\"migrations_current\":true"));

    step("Document the applied action in the incident log and schedule a forward-fix");
    let said = report(&daemon, &record, &["Rollback documented"]);
    for words in ["run the hook isolated", "downgrade the database", "the schema is at 14"] {
        assert!(said.contains(words), "no `{words}` in:\n{said}");
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn production_emergency_disablement_of_exports() {
    let bed = Bed::lease();
    bed.image("app-api:rc1", &Image::demo("rc1"));
    bed.image("app-api:rc2", &Image::demo("rc2").env("DEMO_MEMORY_PERCENT", "93"));
    bed.image("app-jobs:rc1", &Image::demo("rc1"));
    bed.image("app-jobs:rc2", &Image::demo("rc2"));
    let webhook = Webhook::start();
    let more = r#"
        [defaults.rules.memory]
        action = "rollback"
        [defaults.rules.oom]
        action = "off"
        [services.prod-api.rules.memory]
        mitigations = ["set EXPORT_MODE=off, confirm exports_off"]
        [services.prod-api.hooks.exports_off]
        phase = "mitigation"
        http = { url = "http://127.0.0.1:@PORT@/exports", status = ["404"] }
    "#;
    let port = free_port_of("127.0.0.1").to_string();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &(more.replace("@PORT@", &port) + NOT_HEALTH));
    let api = format!(
        "    mem_limit: 128m\n    environment:\n      EXPORT_MODE: ${{EXPORT_MODE}}\n    ports: ['127.0.0.1:{port}:8080']\n"
    );
    let project = project(&bed, "rc1", &api);
    project.compose(&["up", "-d", "api"]);
    daemon.proved("prod-api");
    answer(&bed, API, "/exports", 200);
    project.edit(".env", "IMAGE_TAG=rc1", "IMAGE_TAG=rc2");
    project.compose(&["up", "-d", "api"]);

    step(
        "4) Emergency disablement for exports/reports: set EXPORT_MODE=off, redeploy the API with the updated environment",
    );
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "EXPORT_MODE=off"]);

    step("Confirm the change took effect: /readyz, and that export endpoints return 404");
    answer(&bed, API, "/exports", 404);
    answer(&bed, API, "/readyz", 200);
    webhook
        .announced(seconds(60), &["IT HELPED", "EXPORT_MODE=off set", "change it back when the fix ships"]);
    assert_eq!(bed.ask(API).unwrap()["version"], "rc2", "the API is kept online");
    assert_eq!(project.read(".env"), "# see docs/deploy_production.md\nIMAGE_TAG=rc2\nEXPORT_MODE=off\n");
    let all = daemon.api("/api/v1/rollbacks").unwrap();
    assert_eq!(all["rollbacks"].as_array().map(Vec::len), Some(0), "nothing was rolled back: {all:#}");

    step("The next deployment keeps it");
    project.compose(&["up", "-d", "api"]);
    answer(&bed, API, "/exports", 404);
}
