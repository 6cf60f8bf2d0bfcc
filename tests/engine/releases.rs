//! Which release is gone back to, and what happens when there is none, or none any more.

use crate::support::story::{WATCHED, another_rollback_begins, good_release, images, is_back, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn no_known_good_release() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");

    let only = bed.deploy("web", "web:v2", &WATCHED);

    webhook.announced(seconds(60), &["NO ROLLBACK TARGET", "web"]);
    let service = daemon.service("web").unwrap();
    assert!(service["target"].is_null(), "{service:#}");
    assert_eq!(bed.inspect("web")["Id"], only.as_str(), "what runs stays: something serving beats nothing");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn image_of_the_target_survives_a_prune() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "4s"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);
    bed.docker(&["rmi", "web:v1"]);
    bed.docker(&["image", "prune", "-f"]);

    is_back_under_any_tag(&bed, &daemon, &good);
}

/// The tag `web:v1` was taken away by the test: image and specification must be back all the same.
#[track_caller]
fn is_back_under_any_tag(bed: &Bed, daemon: &Daemon, good: &serde_json::Value) {
    let record = rollback_over(daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    bed.serves(seconds(60), "web", "v1");
    assert_eq!(bed.inspect("web")["Image"], good["Image"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn image_of_the_target_is_gone_for_good() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    good_release(&bed, &daemon, &WATCHED);

    let bad = bed.deploy("web", "web:v2", &WATCHED);
    bed.docker(&["image", "prune", "-a", "-f"]);
    bed.serves(seconds(60), "web", "v2");
    bed.turn("web", "health", "error");

    webhook.announced(seconds(60), &["web", "image"]);
    let now = bed.inspect("web");
    assert_eq!(now["Id"], bad.as_str(), "the bad release runs on: something serving beats nothing");
    assert_eq!(now["State"]["Running"], true);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn bad_release_deployed_a_second_time() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);
    let first = is_back(&bed, &daemon, &good);
    bed.deploy("web", "web:v2", &WATCHED);

    webhook.announced(seconds(60), &["web", "again"]);
    another_rollback_begins(&daemon, &first);
    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn same_tag_with_other_contents_is_a_deployment() {
    let bed = Bed::lease();
    bed.image("web:latest", &Image::demo("v1"));
    let daemon = Daemon::start(&bed, None, "");
    bed.deploy("web", "web:latest", &WATCHED);
    bed.serves(seconds(60), "web", "v1");
    daemon.proved("web");
    let good = bed.inspect("web");

    bed.image("web:latest", &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.deploy("web", "web:latest", &WATCHED);

    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn two_services_bad_at_once() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    for name in ["shop", "cart"] {
        bed.deploy(name, "web:v1", &WATCHED);
    }
    for name in ["shop", "cart"] {
        daemon.proved(name);
    }

    for name in ["shop", "cart"] {
        bed.deploy(name, "web:v2", &WATCHED);
    }

    for name in ["shop", "cart"] {
        assert_eq!(rollback_over(&daemon, name)["outcome"], "verified");
        bed.serves(seconds(60), name, "v1");
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn dry_run_decides_and_leaves_the_service_alone() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let arguments = [&WATCHED[..], &["--label", "backstop.mode=dry-run"]].concat();
    good_release(&bed, &daemon, &arguments);

    let bad = bed.deploy("web", "web:v2", &arguments);

    let decided = eventually(seconds(60), "a decision in dry-run mode", || {
        let decision = daemon.service("web")?["last_decision"].clone();
        if decision["dry_run"] == true { Ok(decision) } else { Err(decision.to_string()) }
    });
    assert_eq!(decided["verdict"], "rollback");
    webhook.announced(seconds(60), &["DRY RUN", "web:v1"]);
    assert_eq!(bed.inspect("web")["Id"], bad.as_str());
    assert_eq!(bed.docker(&["ps", "-aq"]).lines().count(), 1, "not even a replacement is prepared");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn service_without_the_label_is_left_alone() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);
    let other = bed.deploy("other", "web:v2", &[]);

    bed.deploy("web", "web:v2", &WATCHED);

    is_back(&bed, &daemon, &good);
    assert_eq!(bed.inspect("other")["Id"], other.as_str());
    assert!(daemon.service("other").is_err());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_tag_for_rollbacks_that_the_deployer_wrote_stays_where_it_is() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "4s"));
    bed.image("web:v0", &Image::demo("v0"));
    // The runbook: docker tag web:latest web:rollback, before the deployment.
    bed.docker(&["tag", "web:v0", "web:rollback"]);
    let id = |reference: &str| bed.docker(&["image", "inspect", "--format", "{{.Id}}", reference]);
    let (theirs, first) = (id("web:rollback"), id("web:v1"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    eventually(seconds(60), "the known-good image is protected all the same", || {
        let kept = bed.try_docker(&["images", "--format", "{{.ID}}", "backstop/keep"])?;
        if kept.is_empty() { Err("nothing is kept".to_owned()) } else { Ok(()) }
    });
    assert_eq!(id("web:rollback"), theirs, "it shows what the deployer chose");
    assert_ne!(theirs, first);

    bed.deploy("web", "web:v2", &WATCHED);
    bed.docker(&["rmi", "web:v1"]);
    bed.docker(&["image", "prune", "-f"]);
    is_back_under_any_tag(&bed, &daemon, &good);
    assert_eq!(id("web:rollback"), theirs, "nor does a rollback move it");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_tag_for_rollbacks_of_our_own_follows_until_somebody_takes_it() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    good_release(&bed, &daemon, &WATCHED);
    let id = |reference: &str| bed.try_docker(&["image", "inspect", "--format", "{{.Id}}", reference]);
    let shows = |tag: &str, image: &str| {
        eventually(seconds(60), &format!("{tag} shows {image}"), || {
            let (tag, image) = (id(tag)?, id(image)?);
            if tag == image { Ok(()) } else { Err(format!("{tag} is not {image}")) }
        });
    };
    shows("web:rollback", "web:v1");
    bed.deploy("web", "web:v2", &WATCHED);
    // Ours follow the known-good releases, newest first.
    shows("web:rollback", "web:v2");
    shows("web:rollback-2", "web:v1");

    // Both images are protected; the word of the person counts all the same.
    bed.docker(&["tag", "web:v1", "web:rollback"]);
    bed.image("web:v3", &Image::demo("v3"));
    bed.deploy("web", "web:v3", &WATCHED);
    shows("web:rollback-2", "web:v2");
    assert_eq!(id("web:rollback").unwrap(), id("web:v1").unwrap());
}
