//! Mistakes of others: they are named, and cost nobody else anything.

use crate::support::story::{WATCHED, good_release, images, is_back};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn nonsense_in_labels_refuses_that_service_only() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let nonsense =
        ["--label", "backstop.enable=true", "--label", "backstop.trail=5m", "--label", "backstop.grace=soon"];
    bed.deploy("other", "web:v1", &nonsense);
    let good = good_release(&bed, &daemon, &WATCHED);

    let refused = eventually(seconds(60), "`other` is refused", || {
        let status = daemon.api("/api/v1/status")?;
        let refused = status["refused"].as_array().cloned().unwrap_or_default();
        refused.into_iter().find(|one| one["service"] == "other").ok_or_else(|| status.to_string())
    });
    let problems = refused["problems"].to_string();
    assert!(problems.contains("trial") && problems.contains("grace"), "{problems}");

    bed.deploy("web", "web:v2", &WATCHED);
    is_back(&bed, &daemon, &good);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn huge_answer_is_not_read_to_its_end() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_HEALTH", "huge"));
    let daemon = Daemon::start(&bed, None, "");
    good_release(&bed, &daemon, &WATCHED);

    // What it is taken for changes nothing: it is there for as long as it is looked at.
    bed.deploy("web", "web:v2", &[&WATCHED[..], &["--label", "backstop.mode=dry-run"]].concat());

    bed.serves(seconds(60), "web", "v2");
    // Healthy or not is the endpoint's own affair: the daemon must go on answering, without the 10 MB in its memory.
    daemon.in_state(
        seconds(60),
        "web",
        &["trial", "steady", "suspect", "rolling_back", "verifying", "cooling_down"],
    );
    daemon.ready(seconds(60));
}
