//! The story that nearly every test tells: a good release proves itself, a bad one is deployed, the good one is back.

use std::time::Duration;

use serde_json::Value;

use super::inspect::differences;
use super::{Bed, Daemon, Image, eventually, seconds};

/// As a person enrols a service: Backstop asks /healthz of the container twice a second.
pub(crate) const WATCHED: [&str; 10] = [
    "--label",
    "backstop.enable=true",
    "--label",
    "backstop.health.path=/healthz",
    "--label",
    "backstop.health.port=8080",
    "--label",
    "backstop.health.interval=500ms",
    "--label",
    "backstop.health.timeout=500ms",
];

/// Enrolled, but without an HTTP health check.
pub(crate) const ENROLLED: [&str; 2] = ["--label", "backstop.enable=true"];

/// Whoever has hardly any memory left answers late: a test that is about memory does not ask how it is.
pub(crate) const NOT_HEALTH: &str =
    "[defaults.rules.health]\naction = \"off\"\n[defaults.rules.health_flapping]\naction = \"off\"\n";

/// Makes `web:v1`, a good image, and `web:v2`, a bad one.
pub(crate) fn images(bed: &Bed, bad: &Image) {
    bed.image("web:v1", &Image::demo("v1"));
    bed.image("web:v2", bad);
}

/// `web:v1` runs as `web` and has proved itself. Gives how it was.
#[track_caller]
pub(crate) fn good_release(bed: &Bed, daemon: &Daemon, arguments: &[&str]) -> Value {
    good_service(bed, daemon, "web", arguments)
}

/// The same as `name`: for a test with several services.
#[track_caller]
pub(crate) fn good_service(bed: &Bed, daemon: &Daemon, name: &str, arguments: &[&str]) -> Value {
    bed.deploy(name, "web:v1", arguments);
    bed.serves(seconds(60), name, "v1");
    daemon.proved(name);
    bed.inspect(name)
}

/// The good release is back as it was, the rollback is verified and on record, and no helper container is left.
/// Gives the record.
#[track_caller]
pub(crate) fn is_back(bed: &Bed, daemon: &Daemon, good: &Value) -> Value {
    let record = service_is_back(bed, daemon, "web", good);
    nothing_is_left(bed);
    record
}

/// The same of one of several services.
#[track_caller]
pub(crate) fn service_is_back(bed: &Bed, daemon: &Daemon, name: &str, good: &Value) -> Value {
    let record = rollback_over(daemon, name);
    assert_eq!(record["outcome"], "verified", "{record:#}");
    bed.serves(seconds(60), name, "v1");
    let now = bed.inspect(name);
    assert_eq!(now["Image"], good["Image"]);
    assert_eq!(differences(good, &now), Vec::<String>::new());
    nothing_is_left_of(bed, name);
    record
}

/// Waits until the newest rollback of the service is over.
#[track_caller]
pub(crate) fn rollback_over(daemon: &Daemon, name: &str) -> Value {
    eventually(seconds(240), &format!("a rollback of {name} is over"), || {
        let record = newest_rollback(daemon, name)?;
        if record["over"] == true {
            Ok(record)
        } else {
            Err(format!("{}: {}", record["outcome"], record["detail"]))
        }
    })
}

/// Waits until a rollback newer than `first` has begun.
#[track_caller]
pub(crate) fn another_rollback_begins(daemon: &Daemon, first: &Value) {
    eventually(seconds(90), "a second rollback begins", || {
        let newest = daemon.api("/api/v1/rollbacks")?["rollbacks"][0]["id"].clone();
        if newest == first["id"] { Err(newest.to_string()) } else { Ok(()) }
    });
}

/// Waits for a decision about the service.
#[track_caller]
pub(crate) fn decision(deadline: Duration, daemon: &Daemon, name: &str, verdict: &str) -> Value {
    eventually(deadline, &format!("a decision to {verdict} {name}"), || {
        let service = daemon.service(name)?;
        let decisions = service["decisions"].as_array().cloned().unwrap_or_default();
        let wanted = decisions.into_iter().find(|one| one["verdict"] == verdict);
        wanted.ok_or_else(|| format!("{}: {}", service["sentence"], service["rows"]))
    })
}

/// This row of the matrix, and no other, led to it, for this reason and in a sentence with these words.
#[track_caller]
pub(crate) fn was_due_to(row: &str, decision: &Value, reason: &str, words: &[&str]) {
    assert_eq!(decision["rule"], row, "{decision:#}");
    assert_eq!(decision["reason"], reason, "{decision:#}");
    let text = decision["text"].as_str().unwrap_or_default();
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// The decision to roll `web` back.
#[track_caller]
pub(crate) fn rollback_of(daemon: &Daemon) -> Value {
    decision(seconds(60), daemon, "web", "rollback")
}

pub(crate) fn newest_rollback(daemon: &Daemon, name: &str) -> Result<Value, String> {
    let all = daemon.api("/api/v1/rollbacks")?;
    let rollbacks = all["rollbacks"].as_array().cloned().unwrap_or_default();
    rollbacks
        .into_iter()
        .find(|one| one["service"] == name)
        .ok_or_else(|| format!("no rollback: {}", status(daemon)))
}

/// The journal of a rollback, one sentence a line.
#[track_caller]
pub(crate) fn journal(daemon: &Daemon, record: &Value) -> String {
    let id = record["id"].as_str().unwrap();
    let whole = daemon.api(&format!("/api/v1/rollbacks/{id}")).unwrap();
    let lines = whole["journal"].as_array().unwrap().iter();
    lines.filter_map(|line| line["what"].as_str()).collect::<Vec<_>>().join("\n")
}

/// Every container on the engine has the name of a service: nothing is left under a temporary one.
#[track_caller]
pub(crate) fn nothing_is_left(bed: &Bed) {
    nothing_is_left_of(bed, "");
}

/// The same of the service whose name begins like this, while others may be being rolled back.
#[track_caller]
pub(crate) fn nothing_is_left_of(bed: &Bed, start: &str) {
    eventually(seconds(60), "no container is left under a temporary name", || {
        let names = bed.try_docker(&["ps", "-a", "--format", "{{.Names}}"])?;
        let left = |name: &str| name.starts_with(start) && name.contains(".rb");
        if names.lines().any(left) { Err(names) } else { Ok(()) }
    });
}

fn status(daemon: &Daemon) -> String {
    daemon.api("/api/v1/status").map_or_else(|error| error, |status| status["services"].to_string())
}
