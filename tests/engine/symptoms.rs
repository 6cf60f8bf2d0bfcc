//! Each way in which a release can be bad, seen on a real engine, leads to a rollback for the right reason.

use crate::support::story::{
    ENROLLED, WATCHED, good_release, images, is_back, journal, rollback_of, was_due_to,
};
use crate::support::{Bed, Daemon, Image, Webhook, seconds};

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_fails() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);

    is_back(&bed, &daemon, &good);
    was_due_to(
        "health",
        &rollback_of(&daemon),
        "health_failing",
        &["health check failed", "times in a row", "500"],
    );
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "web:v1", "web:v2"]);
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "web"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_turns_bad_after_a_while() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "5s"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);

    assert_eq!(is_back(&bed, &daemon, &good)["reason"], "health_failing");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn docker_healthcheck_fails() {
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1").healthcheck());
    bed.image("web:v2", &Image::demo("v2").healthcheck().env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &ENROLLED);

    bed.deploy("web", "web:v2", &ENROLLED);

    is_back(&bed, &daemon, &good);
    was_due_to(
        "container_health",
        &rollback_of(&daemon),
        "container_unhealthy",
        &["its HEALTHCHECK says unhealthy", "last: "],
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn crash_loop_without_a_healthcheck() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_EXIT_AFTER", "300ms").env("DEMO_EXIT_CODE", "3"));
    let daemon = Daemon::start(&bed, None, "");
    let arguments = [&ENROLLED[..], &["--restart", "always"]].concat();
    let good = good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);

    is_back(&bed, &daemon, &good);
    was_due_to(
        "crash_loop",
        &rollback_of(&daemon),
        "crash_loop",
        &["it exited", "times in 5m (limit: 3)", "exit code 3"],
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn exits_and_stays_down() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_EXIT_AFTER", "1s"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &ENROLLED);

    bed.deploy("web", "web:v2", &ENROLLED);

    is_back(&bed, &daemon, &good);
    was_due_to("down", &rollback_of(&daemon), "down", &["it has been down for", "it exited with code 1"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn image_that_does_not_start() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").that_cannot_start());
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.try_deploy("web", "web:v2", &WATCHED).unwrap_err();

    is_back(&bed, &daemon, &good);
    was_due_to("down", &rollback_of(&daemon), "down", &["it has been down for", "no such file"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn killed_by_the_kernel_for_want_of_memory() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_LEAK", "60MiB"));
    // One row at a time: a container that is killed for memory also restarts, and was over the line before.
    let only_oom = "[defaults.rules.crash_loop]\naction = \"off\"\n[defaults.rules.health_prolonged]\naction = \"off\"\n";
    let daemon = Daemon::start(&bed, None, only_oom);
    let arguments = [&ENROLLED[..], &["--restart", "always", "-m", "64m"]].concat();
    let good = good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);

    is_back(&bed, &daemon, &good);
    was_due_to(
        "oom",
        &rollback_of(&daemon),
        "out_of_memory",
        &["the kernel killed it", "for want of memory", "in 15m"],
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn memory_over_ninety_percent() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_USE_MEMORY", "59MiB"));
    let daemon = Daemon::start(&bed, None, "");
    let arguments = [&ENROLLED[..], &["-m", "64m"]].concat();
    let good = good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);

    is_back(&bed, &daemon, &good);
    was_due_to(
        "memory",
        &rollback_of(&daemon),
        "memory_high",
        &["memory has been above 90 % of its limit", "of 64.0 MiB"],
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn wrong_environment_variable_brings_the_old_specification_back() {
    let bed = Bed::lease();
    bed.image("web:v1", &Image::demo("v1").env("DEMO_REQUIRE", "GREETING=hello"));
    let daemon = Daemon::start(&bed, None, "");
    let with = |greeting: &'static str| [&WATCHED[..], &["-e", greeting]].concat();
    let good = good_release(&bed, &daemon, &with("GREETING=hello"));

    bed.deploy("web", "web:v1", &with("GREETING=goodbye"));

    is_back(&bed, &daemon, &good);
    assert_eq!(bed.ask("web").unwrap()["env"]["GREETING"], "hello");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn bad_release_that_ignores_sigterm_is_not_waited_for() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1").env("DEMO_IGNORE_SIGTERM", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);

    let record = is_back(&bed, &daemon, &good);
    // `stop_grace` of these tests is 1 s; Docker's own default would be 10 s. What is known by then to be deaf gets none.
    let told = journal(&daemon, &record);
    let ways =
        ["killed at once: its main process does not react", "stopped, with 1s at most to end by itself"];
    assert!(ways.iter().any(|way| told.contains(way)), "{told}");
}

/// Whatever the endpoint does instead of answering, the daemon survives it and knows what it means.
#[track_caller]
fn health_endpoint_does(mode: &str) {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_HEALTH", mode));
    let daemon = Daemon::start(&bed, None, "");
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);

    assert_eq!(is_back(&bed, &daemon, &good)["reason"], "health_failing");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_hangs() {
    health_endpoint_does("hang");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_redirects_in_a_loop() {
    health_endpoint_does("redirect-loop");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_streams_for_ever() {
    health_endpoint_does("endless");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn health_endpoint_breaks_off() {
    health_endpoint_does("drop");
}
