//! "Emergency Rollback Procedures": a person starts a workflow, names the target, types ROLLBACK and waits for an approval.
//! The workflow is a command here.

use serde_json::Value;

use super::{answer, reminders, report, step, within_minutes};
use crate::support::story::{WATCHED, good_release, images, is_back, newest_rollback, nothing_is_left};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// Two people for production.
const PEOPLE: &str = r#"
    environment = "prod"
    [api.operators.alice]
    token = "alice-alice-alice-alice"
    [api.operators.bob]
    token = "bob-bob-bob-bob-bob-bob"
    [defaults]
    approvals = 2
"#;

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn emergency_rollback_by_a_person() {
    let bed = Bed::lease();
    // "Specific functionality not working": nothing that is measured.
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), PEOPLE);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    bed.serves(seconds(60), "web", "v2");
    daemon.proved_as("web", "web:v2");

    step("Rollback Simulation Checklist: test workflow execution; time is under 10 minutes");
    let (code, said) = daemon.command(&["drill", "web"]);
    assert_eq!(code, Some(0), "{said}");
    nothing_is_left(&bed);

    step(
        "2. Identify Rollback Target: find last known working; verify target image exists; confirm it was deployed before",
    );
    let (code, said) = daemon.command(&["plan", "web"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("web:v1"), "{said}");

    step("Confirm Rollback: ROLLBACK");
    let (code, said) = daemon.command(&["rollback", "web", "--to", "web:v1", "--why", "checkout is broken"]);
    assert_eq!(code, Some(2), "nobody can be asked here: {said}");
    let order = ["rollback", "web", "--to", "web:v1", "--why", "checkout is broken"];
    let alice = "alice-alice-alice-alice";
    let (code, said) = daemon.command_typed(alice, &order, "rollback");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Type ROLLBACK to go ahead") && said.contains("not confirmed"), "{said}");
    assert!(newest_rollback(&daemon, "web").is_err(), "nothing was changed");
    let (code, said) = daemon.command_typed(alice, &order, "ROLLBACK");
    assert_eq!(code, Some(0), "{said}");

    step("3. Approve Rollback (for Production): add rollback justification in approval");
    webhook.announced(seconds(60), &["SECOND PERSON", "web"]);
    assert!(newest_rollback(&daemon, "web").is_err(), "one person is not enough");
    let approve = ["approve", "web", "--why", "seen it too"];
    let (code, said) = daemon.command_as("bob-bob-bob-bob-bob-bob", &approve);
    assert_eq!(code, Some(0), "{said}");

    step("4. Monitor Rollback Progress; verify each step completes successfully");
    let record = is_back(&bed, &daemon, &good);
    let by = record["decided_by"].as_str().unwrap();
    assert!(by.contains("alice") && by.contains("bob"), "{by}");
    let (_, journal) = daemon.command(&["history", "--rollback", record["id"].as_str().unwrap()]);
    for words in ["checkout is broken", "start the replacement of web"] {
        assert!(journal.contains(words), "no `{words}` in:\n{journal}");
    }

    step("Step 4: Verify Rollback Success: health check; check response times");
    answer(&bed, "web", "/healthz", 200);
    within_minutes(&record, 10.0);

    step("Internal Communication: issue, rollback target, estimated time, status");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "web:v1", "checkout is broken", "ETA"]);
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "web:v1"]);

    afterwards(&daemon, &record);
}

/// What is ticked, and what is left to whom.
#[track_caller]
fn afterwards(daemon: &Daemon, record: &Value) {
    step("Post-Rollback Actions");
    let boxes = [
        "Issue confirmed",
        "Previous stable version identified, and that it was deployed before",
        "Rollback executed",
        "Health checks passing",
        "documented in the log",
        "Incident report created",
        "Rollback took less than 10 minutes",
    ];
    let said = report(daemon, record, &boxes);
    reminders(
        &said,
        &[
            // Nobody counts its requests, so nobody knows.
            ("Error rates and response times", "on-call"),
            ("Scope of impact", "on-call"),
            ("Root cause", "service owner"),
            ("Fix developed", "service owner"),
            ("Deployment of the fix planned", "service owner"),
            ("Post-mortem", "team lead"),
            ("runbooks and deployment checklist updated", "team lead"),
            ("lessons learned shared", "team lead"),
        ],
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn still_unhealthy_after_the_rollback() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    bed.image("web:v3", &Image::demo("v3").env("DEMO_BAD", "1"));
    // Long enough for the target to turn bad before it is proved.
    let daemon = Daemon::start(&bed, None, "[defaults]\nverify = \"20s\"\n");
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    bed.serves(seconds(60), "web", "v2");
    daemon.proved_as("web", "web:v2");

    step("Service Still Unhealthy After Rollback: consider rolling back further to known stable version");
    bed.deploy("web", "web:v3", &WATCHED);
    let first = eventually(seconds(60), "a rollback has begun", || newest_rollback(&daemon, "web"));
    assert_eq!(first["to"]["reference"], "web:v2", "{first:#}");
    eventually(seconds(60), "its target is made bad before it is proved", || {
        let served = bed.ask("web")?;
        if served["version"] == "v2" { Ok(()) } else { Err(served.to_string()) }
    });
    bed.turn("web", "health", "error");
    let record = is_back(&bed, &daemon, &good);
    assert_eq!(record["to"]["reference"], "web:v1", "{record:#}");
    assert_eq!(record["reason"], "target_failed", "{record:#}");
}
