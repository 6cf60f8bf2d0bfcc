//! What people and machines see of the daemon while a real rollback happens.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::story::{WATCHED, another_rollback_begins, good_release, images, is_back};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn metrics_satisfy_promtool() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    promtool_accepts(&daemon.get("/metrics").unwrap().body);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    is_back(&bed, &daemon, &good);
    promtool_accepts(&daemon.get("/metrics").unwrap().body);
}

#[track_caller]
fn promtool_accepts(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}\n{metrics}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn operator_rolls_back_pauses_and_resumes() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    bed.serves(seconds(60), "web", "v2");
    eventually(seconds(60), "the release v2 is what runs", || {
        let current = daemon.service("web")?["current"]["reference"].clone();
        if current == "web:v2" { Ok(()) } else { Err(current.to_string()) }
    });
    daemon.in_state(seconds(60), "web", &["trial", "steady"]);

    for words in [&["status"][..], &["explain", "web"], &["plan", "web"], &["history"]] {
        let (code, text) = daemon.command(words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        let (code, text) = daemon.command(&[words, &["--json"]].concat());
        assert_eq!(code, Some(0), "{words:?} --json: {text}");
    }
    let (code, text) = daemon.command(&["pause", "web"]);
    assert_eq!(code, Some(0), "{text}");
    daemon.in_state(seconds(60), "web", &["paused"]);
    let (code, text) = daemon.command(&["resume", "web"]);
    assert_eq!(code, Some(0), "{text}");

    let (code, text) = daemon.command(&["rollback", "web", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(is_back(&bed, &daemon, &good)["reason"], "operator");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn operator_actions_need_the_token() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    good_release(&bed, &daemon, &WATCHED);
    assert_eq!(daemon.post_without_token("/api/v1/services/web/rollback", "{}").unwrap().status, 401);
    assert_eq!(daemon.post("/api/v1/services/nobody/rollback", "{}").unwrap().status, 404);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_was_recorded_replays_to_what_was_done() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    let first = is_back(&bed, &daemon, &good);
    // Once it ends as it should, and once it is killed: the last block of the second part is torn.
    assert!(daemon.terminate().success());
    daemon.again();
    daemon.ready(seconds(60));
    bed.deploy("web", "web:v2", &WATCHED);
    another_rollback_begins(&daemon, &first);
    is_back(&bed, &daemon, &good);
    daemon.kill();

    let record = daemon.state().join("flight");
    let (code, text) = daemon.command(&["replay", &record.display().to_string(), "--json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("identical to what it did: "), "{text}");
    assert!(text.contains(r#""decision":"rollback","signal":"health""#), "{text}");
}
