//! Backstop or the engine dies at the worst moment: afterwards there is exactly one `web`, it serves, and it is good.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::story::{
    WATCHED, good_release, good_service, images, is_back, newest_rollback, service_is_back,
};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// More events than any journal of one container has: the loop ends by itself when the journal does.
const EVENTS_MAX: u32 = 60;
/// Services that are crashed side by side, each watched by a daemon of its own: nearly all of the time is waiting.
const LANES: u32 = 6;

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn killed_at_every_journal_step() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let next = AtomicU32::new(1);
    // The first event after which there was no crash, because the journal has no such event: all before it are done.
    let end = AtomicU32::new(EVENTS_MAX);
    std::thread::scope(|scope| {
        for lane in 1..=LANES {
            let (bed, next, end) = (&bed, &next, &end);
            scope.spawn(move || {
                let mut lane = Lane::start(bed, lane);
                loop {
                    let event = next.fetch_add(1, Ordering::SeqCst);
                    if event >= end.load(Ordering::SeqCst) {
                        break;
                    }
                    if !lane.survives_a_crash_after(event) {
                        end.fetch_min(event, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let end = end.into_inner();
    assert!(end > 10, "only {end} journal events: is BACKSTOP_CRASH_AT heeded?");
    assert!(end < EVENTS_MAX, "the journal has more than {EVENTS_MAX} events");
}

/// One service, and the daemon that watches it and no other.
struct Lane<'a> {
    bed: &'a Bed,
    daemon: Daemon,
    name: String,
    good: Value,
}

impl<'a> Lane<'a> {
    fn start(bed: &'a Bed, number: u32) -> Self {
        let name = format!("web{number}");
        let only_this_one = format!("enroll = \"named\"\n[services.{name}]\n");
        let daemon = Daemon::start(bed, None, &only_this_one);
        let volume = format!("{name}-data:/data");
        let good = good_service(
            bed,
            &daemon,
            &name,
            &[&WATCHED[..], &["--restart", "always", "-v", &volume]].concat(),
        );
        Self { bed, daemon, name, good }
    }

    /// False if the rollback was over before `event`, so that there was no crash.
    #[track_caller]
    fn survives_a_crash_after(&mut self, event: u32) -> bool {
        let Self { bed, daemon, name, good } = self;
        daemon.terminate();
        daemon.set("BACKSTOP_CRASH_AT", &event.to_string());
        daemon.again();
        daemon.ready(seconds(60));
        let before = newest_rollback(daemon, name).map_or(Value::Null, |record| record["id"].clone());

        let volume = format!("{name}-data:/data");
        bed.deploy(name, "web:v2", &[&WATCHED[..], &["--restart", "always", "-v", &volume]].concat());
        let crashed = eventually(seconds(180), &format!("a crash after event {event}, or the end"), || {
            if daemon.has_ended() {
                return Ok(true);
            }
            let newest = newest_rollback(daemon, name)?;
            let over = newest["over"] == true && newest["id"] != before;
            // What is cleaned up after the verdict is journaled too.
            let id = newest["id"].as_str().unwrap_or_default();
            let closed = over && is_closed(&daemon.api(&format!("/api/v1/rollbacks/{id}"))?);
            if closed { Ok(false) } else { Err(newest.to_string()) }
        });
        daemon.set("BACKSTOP_CRASH_AT", "");
        if crashed {
            daemon.again();
            daemon.ready(seconds(60));
        }
        eventually(seconds(180), &format!("v1 serves after a crash after event {event}"), || {
            let newest = newest_rollback(daemon, name)?;
            let verified =
                newest["over"] == true && newest["id"] != before && newest["outcome"] == "verified";
            if verified { Ok(()) } else { Err(newest.to_string()) }
        });
        service_is_back(bed, daemon, name, good);
        crashed
    }
}

/// Whether a rollback's journal has come to its last word.
pub(crate) fn is_closed(record: &Value) -> bool {
    let last = record["journal"].as_array().and_then(|journal| journal.last());
    last.and_then(|line| line["what"].as_str()).is_some_and(|what| what.starts_with("closed"))
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn killed_while_a_bad_release_is_being_judged() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);
    daemon.kill();
    daemon.again();

    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn deployed_while_the_daemon_was_down() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    assert!(daemon.terminate().success());
    bed.deploy("web", "web:v2", &WATCHED);
    daemon.again();

    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn announcements_outlive_a_webhook_that_is_down_and_a_crash() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::refusing(2);
    let mut daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);
    is_back(&bed, &daemon, &good);
    daemon.kill();
    daemon.again();

    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "web"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn engine_restarted_while_all_is_well_is_no_bad_deployment() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    good_release(&bed, &daemon, &[&WATCHED[..], &["--restart", "always"]].concat());

    bed.restart_engine();

    bed.serves(seconds(60), "web", "v1");
    daemon.ready(seconds(60));
    daemon.proved("web");
    assert!(newest_rollback(&daemon, "web").is_err(), "nothing was rolled back");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn engine_crashes_in_the_middle_of_a_rollback() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1").env("DEMO_IGNORE_SIGTERM", "1"));
    let daemon = Daemon::start(&bed, None, "");
    // Its deployer gives it time to end, and it makes use of that: so long is the rollback in its middle.
    let slow = ["--restart", "always", "--stop-timeout", "15", "--label", "backstop.order=stop-first"];
    let arguments = [&WATCHED[..], &slow].concat();
    let good = good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);
    eventually(seconds(60), "a rollback is being carried out", || {
        let newest = newest_rollback(&daemon, "web")?;
        if newest["outcome"] == "executing" { Ok(()) } else { Err(newest.to_string()) }
    });
    bed.crash_engine();

    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn engine_that_is_not_there_yet() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.stop_engine();
    let daemon = Daemon::start_unready(bed.socket(), None, "");
    let answer = eventually(seconds(60), "the daemon says why it is not ready", || {
        let answer = daemon.get("/readyz")?;
        if answer.status == 503 && answer.body.contains("engine") { Ok(answer) } else { Err(answer.body) }
    });
    assert!(!answer.body.is_empty());

    bed.start_engine();

    daemon.ready(seconds(60));
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn damaged_store_stops_actions_but_not_the_watch() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let mut daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    good_release(&bed, &daemon, &WATCHED);
    daemon.kill();
    let state = daemon.state();
    for file in std::fs::read_dir(&state).unwrap().flatten() {
        if file.file_name().to_string_lossy().contains(".sqlite3") {
            std::fs::write(
                file.path(),
                "this is no database, and it is long enough to be looked at as one ".repeat(99),
            )
            .unwrap();
        }
    }
    daemon.again();

    eventually(seconds(60), "the status says that the store is not writable", || {
        let status = daemon.api("/api/v1/status")?;
        if status["store"]["writable"] == false { Ok(()) } else { Err(status.to_string()) }
    });
    let bad = bed.deploy("web", "web:v2", &WATCHED);
    daemon.in_state(seconds(60), "web", &["suspect", "trial"]);
    assert_eq!(bed.inspect("web")["Id"], bad.as_str());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn store_is_readable_with_the_sqlite3_shell() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    is_back(&bed, &daemon, &good);

    let database = std::fs::read_dir(daemon.state())
        .unwrap()
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "sqlite3"))
        .unwrap();
    let dump = Command::new("sqlite3").arg("-readonly").arg(database).arg(".dump").output().unwrap();
    assert!(dump.status.success());
    let dump = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.contains("health_failing") && dump.contains("web:v1"), "{dump}");
}
