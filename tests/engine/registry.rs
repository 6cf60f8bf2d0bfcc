//! Targets whose images are in a registry: found missing, fetched ahead of need, passed over when they are nowhere.

use std::fs;

use serde_json::Value;

use crate::support::story::{WATCHED, rollback_over};
use crate::support::{Bed, Daemon, Image, Registry, Webhook, eventually, seconds};
use crate::swarm::Cluster;

/// A daemon that shows a registry what this file holds, and looks after its targets every second.
fn settings(config: &std::path::Path) -> String {
    format!("[registry]\ndocker_config = \"{}\"\ncheck_interval = \"1s\"\n", config.display())
}

/// Makes, pushes and deploys a good release, and waits until it has proved itself. Gives its reference and digest.
#[track_caller]
fn release(bed: &Bed, registry: &Registry, daemon: &Daemon, version: &str) -> (String, String) {
    let pushed = push(bed, registry, version);
    bed.deploy("web", &pushed.0, &WATCHED);
    bed.serves(seconds(60), "web", version);
    has_proved_itself(daemon, &pushed.0);
    pushed
}

/// That release, and not the one before it.
#[track_caller]
fn has_proved_itself(daemon: &Daemon, reference: &str) {
    eventually(seconds(60), &format!("{reference} has proved itself"), || {
        let service = daemon.service("web")?;
        let is = service["state"] == "steady" && service["current"]["reference"] == reference;
        if is { Ok(()) } else { Err(format!("{}: {}", service["current"]["reference"], service["sentence"])) }
    });
}

#[track_caller]
fn push(bed: &Bed, registry: &Registry, version: &str) -> (String, String) {
    let image = format!("web:{version}");
    bed.image(&image, &Image::demo(version));
    registry.push(bed, &image)
}

/// What the daemon says of the image of a release.
fn availability(daemon: &Daemon, reference: &str) -> Result<Value, String> {
    let service = daemon.service("web")?;
    let releases = service["releases"].as_array().cloned().unwrap_or_default();
    let found = releases.into_iter().find(|one| one["reference"] == reference);
    found.ok_or_else(|| format!("no release {reference}: {}", service["releases"]))
}

#[track_caller]
fn is(daemon: &Daemon, reference: &str, wanted: &str) -> Value {
    eventually(seconds(60), &format!("the image of {reference} is {wanted}"), || {
        let entry = availability(daemon, reference)?;
        if entry["availability"] == wanted { Ok(entry) } else { Err(entry.to_string()) }
    })
}

/// What runs now turns bad, and the rollback goes to `reference`.
#[track_caller]
fn goes_back_to(bed: &Bed, daemon: &Daemon, reference: &str, version: &str) {
    bed.turn("web", "health", "error");
    let record = rollback_over(daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(record["to"]["reference"], reference, "{record:#}");
    bed.serves(seconds(60), "web", version);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_pruned_target_is_fetched_ahead_of_need_and_used_while_the_registry_is_down() {
    let bed = Bed::lease();
    let mut registry = Registry::start(&bed);
    let (path, config) = registry.helper();
    let mut daemon = Daemon::start(&bed, None, &settings(&config));
    let usual = std::env::var("PATH").unwrap_or_default();
    daemon.set("PATH", &format!("{}:{usual}", path.display()));
    daemon.again();
    daemon.ready(seconds(60));
    let (v1, _) = release(&bed, &registry, &daemon, "v1");
    let image = bed.inspect("web")["Image"].clone();
    release(&bed, &registry, &daemon, "v2");

    bed.docker(&["image", "prune", "-a", "-f"]);

    eventually(seconds(60), "the image of v1 is on the engine again", || {
        bed.try_docker(&["image", "inspect", image.as_str().unwrap()])
    });
    is(&daemon, &v1, "here");
    bed.docker(&["image", "prune", "-f"]);
    registry.stop();
    goes_back_to(&bed, &daemon, &v1, "v1");
    assert_eq!(bed.inspect("web")["Image"], image);
    assert_eq!(bed.inspect("web")["Config"]["Image"], v1.as_str());
    assert!(!registry.is_secret_in(&daemon.log()), "a secret is in the log");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_and_engine_have_lost_a_target_and_the_one_before_it_is_the_target() {
    let bed = Bed::lease();
    let registry = Registry::start(&bed);
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &settings(&registry.config()));
    let (v1, _) = release(&bed, &registry, &daemon, "v1");
    let (v2, digest) = release(&bed, &registry, &daemon, "v2");
    release(&bed, &registry, &daemon, "v3");

    registry.delete("web", &digest);
    is(&daemon, &v2, "here");
    bed.docker(&["image", "prune", "-a", "-f"]);

    let said = webhook.announced(seconds(60), &["ROLLBACK TARGET IS GONE", &v2]).to_string();
    assert!(said.contains(&format!("a rollback would go to {v1}")), "{said}");
    assert!(said.contains("has no such image any more"), "{said}");
    is(&daemon, &v2, "gone");
    is(&daemon, &v1, "here");
    assert_eq!(daemon.service("web").unwrap()["target"]["reference"], v1.as_str());
    goes_back_to(&bed, &daemon, &v1, "v1");
    assert_eq!(webhook.announcements(&["ROLLBACK TARGET IS GONE"]), 1, "{:#?}", webhook.bodies());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_refuses_credentials_that_expired_and_takes_new_ones() {
    let bed = Bed::lease();
    let registry = Registry::start(&bed);
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &settings(&registry.config()));
    let (v1, _) = release(&bed, &registry, &daemon, "v1");
    release(&bed, &registry, &daemon, "v2");

    registry.log_in_as("that-was-the-password-once");
    bed.docker(&["image", "prune", "-a", "-f"]);

    let login = format!("docker login {}", registry.address());
    let said = webhook.announced(seconds(60), &["ROLLBACK TARGET IS NOT HERE", &v1, &login]).to_string();
    assert!(said.contains("may have expired") && said.contains("config.json"), "{said}");
    assert!(!said.contains("that-was-the-password-once"), "{said}");
    is(&daemon, &v1, "missing");
    assert_eq!(
        daemon.service("web").unwrap()["target"]["reference"],
        v1.as_str(),
        "not knowing takes nothing away"
    );

    fs::remove_file(registry.config()).unwrap();
    let entry = eventually(seconds(60), "the file is missed", || {
        let entry = availability(&daemon, &v1)?;
        let why = entry["availability_why"].as_str().unwrap_or_default();
        if why.contains("registry.docker_config") { Ok(entry) } else { Err(entry.to_string()) }
    });
    assert_eq!(entry["availability"], "missing");

    registry.log_in();
    webhook.announced(seconds(60), &["ROLLBACK TARGET IS BACK", &v1]);
    is(&daemon, &v1, "here");
    goes_back_to(&bed, &daemon, &v1, "v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_that_is_down_is_doubt_and_a_rollback_fetches_when_it_is_back() {
    let bed = Bed::lease();
    let mut registry = Registry::start(&bed);
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &settings(&registry.config()));
    let (v1, _) = release(&bed, &registry, &daemon, "v1");
    release(&bed, &registry, &daemon, "v2");

    registry.stop();
    bed.docker(&["image", "prune", "-a", "-f"]);

    webhook.announced(seconds(60), &["ROLLBACK TARGET IS NOT HERE", &v1, "connection refused"]);
    let (code, explained) = daemon.command(&["explain", "web"]);
    assert_eq!(code, Some(0));
    assert!(explained.contains("its image is missing"), "{explained}");
    registry.start_again();
    webhook.announced(seconds(60), &["ROLLBACK TARGET IS BACK", &v1]);
    goes_back_to(&bed, &daemon, &v1, "v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn registry_of_the_good_image_is_shown_our_credentials_when_swarm_goes_back_to_it() {
    let cluster = Cluster::start();
    let bed = cluster.bed();
    let registry = Registry::start(bed);
    let daemon = Daemon::start(bed, None, &settings(&registry.config()));
    let (v1, digest) = push(bed, &registry, "v1");
    bed.image("web:v2", &Image::demo("v2"));
    let pinned = format!("{v1}@{digest}");
    // The image is here: nobody needs to be shown anything yet, and nothing is kept with the specification.
    cluster.create("web", &pinned, &[]);
    daemon.proved("web");
    cluster.update("web", &["--image", "web:v2"]);
    has_proved_itself(&daemon, "web:v2");

    bed.docker(&["image", "prune", "-a", "-f"]);

    is(&daemon, &v1, "registry");
    let task = bed.docker(&["ps", "-q", "--filter", "label=com.docker.swarm.service.name=web"]);
    bed.turn(&task, "health", "error");
    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(cluster.runs("web"), [pinned]);
}
