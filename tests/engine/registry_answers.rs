//! Registries that answer late, never, or nonsense, just when a rollback is wanted.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::story::{WATCHED, newest_rollback, rollback_over};
use crate::support::{Bed, Daemon, Image, Manner, Registry, StandIn, Webhook, eventually, seconds};

/// Targets are looked after every second.
const OFTEN: &str = "[registry]\ncheck_interval = \"1s\"\n";
/// What a rollback waits for a registry that says nothing: half a minute when it is prepared, and again when it is decided;
/// and what a busy machine needs beside it.
const BOUND: Duration = Duration::from_secs(2 * 30 + 240);

/// Makes, pushes and deploys a release, and waits until it has proved itself. Gives its reference.
#[track_caller]
fn release(bed: &Bed, registry: &Registry, daemon: &Daemon, version: &str) -> String {
    let image = format!("web:{version}");
    bed.image(&image, &Image::demo(version));
    let (reference, _) = registry.push(bed, &image);
    bed.deploy("web", &reference, &WATCHED);
    bed.serves(seconds(60), "web", version);
    daemon.proved_as("web", &reference);
    reference
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_that_hangs_is_not_asked_about_an_image_that_is_here() {
    let bed = Bed::lease();
    let mut registry = Registry::plain();
    let daemon = Daemon::start(&bed, None, OFTEN);
    let v1 = release(&bed, &registry, &daemon, "v1");
    release(&bed, &registry, &daemon, "v2");
    registry.stop();
    let hangs = StandIn::at(registry.address(), Manner::Silent);

    bed.turn("web", "health", "error");

    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(record["to"]["reference"], v1.as_str(), "{record:#}");
    bed.serves(seconds(60), "web", "v1");
    assert_eq!(hangs.asked(), 0, "it was asked");
}

/// The newest target was taken off the engine by somebody, and its registry is not itself; the one before it is here.
#[track_caller]
fn goes_to_what_is_here(manner: Manner, words: &[&str]) {
    let bed = Bed::lease();
    let mut registry = Registry::plain();
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), OFTEN);
    let v1 = release(&bed, &registry, &daemon, "v1");
    let v2 = release(&bed, &registry, &daemon, "v2");
    release(&bed, &registry, &daemon, "v3");
    registry.stop();
    let _stand_in = StandIn::at(registry.address(), manner);
    let image = bed.docker(&["image", "inspect", "-f", "{{.Id}}", &v2]);
    bed.docker(&["rmi", "-f", &image]);

    let said = webhook.announced(seconds(120), &[&["ROLLBACK TARGET IS NOT HERE", &v2], words].concat());
    assert!(said.to_string().contains(registry.address()), "{said:#}");
    bed.turn("web", "health", "error");
    let began = Instant::now();

    let failed = first_rollback(&daemon);
    assert!(began.elapsed() < BOUND, "it waited for {:?}", began.elapsed());
    assert_eq!((&failed["outcome"], &failed["to"]["reference"]), (&"unwound".into(), &v2.as_str().into()));
    let why = failed["detail"].to_string();
    assert!(why.contains(registry.address()) && words.iter().all(|word| why.contains(word)), "{why}");
    webhook.announced(seconds(60), &["ROLLBACK FAILED AND WAS UNDONE", registry.address()]);
    let record = eventually(seconds(60), "a rollback that is verified", || {
        let newest = newest_rollback(&daemon, "web")?;
        if newest["outcome"] == "verified" { Ok(newest) } else { Err(newest.to_string()) }
    });
    assert_eq!(record["to"]["reference"], v1.as_str(), "{record:#}");
    bed.serves(seconds(60), "web", "v1");
}

/// The one that went first, when it is over.
#[track_caller]
fn first_rollback(daemon: &Daemon) -> Value {
    eventually(seconds(700), "the first rollback is over", || {
        let all = daemon.api("/api/v1/rollbacks")?["rollbacks"].as_array().cloned().unwrap_or_default();
        let first = all.last().cloned().ok_or("no rollback")?;
        if first["over"] == true { Ok(first) } else { Err(first.to_string()) }
    })
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_that_hangs_is_given_up_on_and_an_older_image_that_is_here_is_used() {
    goes_to_what_is_here(Manner::SilentAboutImages, &["within"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_that_answers_with_a_page_is_found_out() {
    goes_to_what_is_here(Manner::Page, &[]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_that_answers_with_another_image_is_found_out() {
    goes_to_what_is_here(Manner::AnotherImage, &["digest"]);
}
