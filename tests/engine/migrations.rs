//! What a release did to its database, on a real PostgreSQL: taken back with the image, left alone when that fails, and
//! never passed over in silence.

use std::fs;

use tempfile::TempDir;

use crate::support::postgres::Postgres;
use crate::support::story::{
    WATCHED, decision, good_release, images, is_back, journal, newest_rollback, nothing_is_left,
    rollback_over,
};
use crate::support::{Bed, Daemon, Image, eventually, http, seconds};

/// Up to here the good release came.
const GOOD: &str = "CREATE TABLE schema_migrations (version text PRIMARY KEY); INSERT INTO schema_migrations VALUES ('0014');
     CREATE TABLE important_table (id int, name text); INSERT INTO important_table VALUES (1, 'one');";
/// What the bad release's migration does: queries of the good one break.
const MIGRATION: &str =
    "ALTER TABLE important_table RENAME COLUMN name TO title; INSERT INTO schema_migrations VALUES ('0015');";

/// A database, and the files that were prepared for the day on which it has to go back.
struct Prepared {
    database: Postgres,
    files: TempDir,
}

impl Prepared {
    fn new(rollback: &str) -> Self {
        let (database, files) = (Postgres::start(), tempfile::tempdir().unwrap());
        database.sql(GOOD);
        fs::write(files.path().join("0015_rollback.sql"), rollback).unwrap();
        Self { database, files }
    }

    /// As an operator writes it down.
    fn settings(&self) -> String {
        let (files, url, url_file) =
            (self.files.path().display(), self.database.url(), self.database.url_file());
        format!(
            r#"
            [services.web.migrations]
            query = "SELECT max(version) FROM schema_migrations"
            url_file = "{}"
            [services.web.migrations.backup]
            command = ["pg_dump", "--file", "{files}/backup.sql", "{url}"]
            [services.web.migrations.downgrade]
            sql_file = "{files}/{{{{from_schema}}}}_rollback.sql"
            [services.web.hooks.look]
            phase = "before_rollback"
            run = {{ image = "bad", command = ["--help"] }}
            [services.web.hooks.note]
            phase = "after_rollback"
            command = ["sh", "-c", "echo \"$BACKSTOP_SERVICE $BACKSTOP_FROM to $BACKSTOP_TO: $BACKSTOP_REASON\" > {files}/note"]
            "#,
            url_file.display()
        )
    }

    /// What the good release asks for.
    fn good_query(&self) -> Result<String, String> {
        self.database.try_sql("SELECT name FROM important_table")
    }

    fn version(&self) -> String {
        self.database.sql("SELECT max(version) FROM schema_migrations")
    }
}

/// The pipeline migrates the database and deploys the bad release.
fn deploy_bad(bed: &Bed, prepared: &Prepared) {
    prepared.database.sql(MIGRATION);
    assert!(prepared.good_query().is_err(), "the migration breaks the good release's queries");
    bed.deploy("web", "web:v2", &WATCHED);
}

/// The runbook's scenario "Bad Migration".
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn bad_migration() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    // "Apply rollback script (must be pre-prepared)"
    let prepared = Prepared::new(
        "-- Takes 0015 back.\nALTER TABLE important_table RENAME COLUMN title TO name;\n\
         DELETE FROM schema_migrations WHERE version = '0015';\n",
    );
    let daemon = Daemon::start(&bed, None, &prepared.settings());
    let good = good_release(&bed, &daemon, &WATCHED);

    // "If migration breaks queries"
    deploy_bad(&bed, &prepared);
    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");

    // "1. Rollback container"
    is_back(&bed, &daemon, &good);
    // "2. Rollback migration: DELETE FROM schema_migrations WHERE version = '0015'; psql -f rollback/0015_rollback.sql"
    // "View migration history", "Verify schema state"
    assert_eq!(prepared.version(), "0014");
    assert_eq!(prepared.good_query(), Ok("one".to_owned()));
    // "Database backup from before": of the state that the downgrade found.
    let backup = fs::read_to_string(prepared.files.path().join("backup.sql")).unwrap();
    assert!(backup.contains("0015") && backup.contains("title"), "{backup}");
    // In this order, and each with what it said.
    let told = journal(&daemon, &record);
    let order = [
        "done: run the hook look",
        "done: make the backup",
        "done: stop web",
        "done: downgrade the database",
        "done: check that the schema of the database is the target's",
        "done: start web",
    ];
    let places: Vec<_> = order.iter().map(|step| told.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{told}");
    assert!(told.contains("the schema is at 0014"), "{told}");
    // "Document": a hook after the proof.
    let note = eventually(seconds(60), "the hook after the rollback has run", || {
        fs::read_to_string(prepared.files.path().join("note")).map_err(|error| error.to_string())
    });
    assert!(note.starts_with("web web:v2 to web:v1: health check failed"), "{note}");
    nothing_is_left(&bed);
}

/// "Do not attempt database schema rollback without backup", and if it fails: nothing is half done, and what ran runs.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn bad_migration_whose_downgrade_fails() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let prepared = Prepared::new(
        "ALTER TABLE important_table RENAME COLUMN title TO name;\nDELETE FROM migrations WHERE version = '0015';\n",
    );
    let daemon = Daemon::start(&bed, None, &prepared.settings());
    good_release(&bed, &daemon, &WATCHED);
    deploy_bad(&bed, &prepared);

    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "unwound", "{record:#}");
    let detail = record["detail"].as_str().unwrap();
    for words in [
        "relation \"migrations\" does not exist",
        "nothing of",
        "stays done: look, backup",
        "done in part: downgrade",
    ] {
        assert!(detail.contains(words), "no `{words}` in: {detail}");
    }
    // The transaction was taken back as a whole, the first statement with the second.
    assert_eq!(prepared.version(), "0015");
    assert_eq!(prepared.database.sql("SELECT title FROM important_table"), "one");
    bed.serves(seconds(60), "web", "v2");
    daemon.in_state(seconds(60), "web", &["stuck"]);
    assert!(!prepared.files.path().join("note").exists(), "nothing was proved");
    nothing_is_left(&bed);
}

/// Without a prepared downgrade nothing goes back by itself past a breaking change, and a person has to say it.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_breaking_change_is_gone_past_only_by_somebody_who_says_so() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1").line("LABEL backstop.schema=breaking"));
    let manual = "[services.web.migrations]\nmanual = \"psql -f rollback/0015_rollback.sql\"\n";
    let daemon = Daemon::start(&bed, None, manual);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);

    let asked = decision(seconds(60), &daemon, "web", "evaluate");
    let gates = asked["gates"].to_string();
    assert!(gates.contains("changed the schema so that web:v1"), "{asked:#}");
    assert!(newest_rollback(&daemon, "web").is_err(), "nothing goes back by itself");
    let (code, said) = daemon.command(&["rollback", "web", "--yes"]);
    assert!(code != Some(0) && said.contains("psql -f rollback/0015_rollback.sql"), "{said}");
    assert!(said.contains("--accept-schema"), "{said}");
    // A drill knows it as well, and does not say that a rollback would go.
    let (code, said) = daemon.command(&["drill", "web"]);
    assert!(
        code != Some(0) && said.contains("the schema") && said.contains("no downgrade is configured"),
        "{said}"
    );

    let (code, said) = daemon.command(&["rollback", "web", "--yes", "--accept-schema", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    is_back(&bed, &daemon, &good);
}

/// The daemon dies while a one-off container runs: afterwards that is waited for, and not run again.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_one_off_container_outlives_the_daemon() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let hook = "[services.web.hooks.slow]\nphase = \"after_stop\"\n\
                run = { image = \"good\", command = [\"--listen\", \"0.0.0.0:8080\"] }\n";
    let mut daemon = Daemon::start(&bed, None, hook);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    let id = eventually(seconds(60), "the one-off container runs", || {
        let filter = ["ps", "-q", "--no-trunc", "--filter", "label=backstop.hook"];
        let id = bed.try_docker(&filter)?;
        if id.is_empty() { Err("none".to_owned()) } else { Ok(id) }
    });
    daemon.kill();
    assert!(bed.try_inspect("web").unwrap()["State"]["Running"] == false, "nothing runs meanwhile");
    daemon.again();
    // It ends when it is told to, and so neither before the daemon was gone nor before it is there again; it is not ready
    // before what it had begun is over.
    eventually(seconds(60), "the daemon is there", || daemon.get("/readyz"));
    eventually(seconds(60), "the one-off container ends", || {
        if let Ok(address) = bed.address(&id) {
            let _ = http::tcp(&address, "POST", "/demo/exit/0", &[], "");
        }
        let runs = bed.try_inspect(&id).is_ok_and(|inspect| inspect["State"]["Running"] == true);
        if runs { Err("it runs".to_owned()) } else { Ok(()) }
    });
    let record = is_back(&bed, &daemon, &good);
    let told = journal(&daemon, &record);
    assert_eq!(told.matches("begun: run the hook slow").count(), 1, "{told}");
    assert!(told.contains("done: run the hook slow") && told.contains("exiting with code 0"), "{told}");
    assert!(bed.try_inspect(&id).is_err(), "it is removed");
}
