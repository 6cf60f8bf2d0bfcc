//! A service that somebody removes while it is judged or rolled back: they want it gone, and so it stays gone.

use std::fs;
use std::process::Command;

use crate::support::between::Between;
use crate::support::story::{WATCHED, good_release, images, newest_rollback, nothing_is_left, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// Its deployer gives it half a minute to end, and it makes use of that: so long a rollback of it is under way.
const SLOW_TO_STOP: [&str; 2] = ["--stop-timeout", "30"];

fn slow_to_stop() -> Image {
    Image::demo("v2").env("DEMO_BAD_AFTER", "2s").env("DEMO_IGNORE_SIGTERM", "1")
}

/// Waits until a rollback of the service has begun a step.
#[track_caller]
fn is_at(daemon: &Daemon, service: &str, step: &str) {
    eventually(seconds(60), &format!("the rollback of {service} is at: {step}"), || {
        let id = newest_rollback(daemon, service)?["id"].as_str().unwrap_or_default().to_owned();
        let journal =
            daemon.api(&format!("/api/v1/rollbacks/{}", id.replace('/', "%2F")))?["journal"].to_string();
        if journal.contains(&format!("begun: {step}")) { Ok(()) } else { Err(journal) }
    });
}

/// Nothing of it is there, and nothing comes: everything that Backstop had begun is over.
#[track_caller]
fn stays_gone(bed: &Bed, daemon: &Daemon, webhook: &Webhook, service: &str) {
    let record = rollback_over(daemon, service);
    assert_eq!(record["outcome"], "void", "{record:#}");
    let why = record["detail"].as_str().unwrap_or_default();
    assert!(why.contains("somebody removed"), "{why}");
    webhook.announced(seconds(60), &["ROLLBACK DID NOT BEGIN", "somebody removed", service]);
    let seen = daemon.in_state(seconds(60), service, &["steady", "trial"]);
    assert!(seen["sentence"].as_str().unwrap_or_default().contains("nothing runs"), "{seen:#}");
    assert_eq!(bed.docker(&["ps", "-aq"]), "");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_service_removed_while_it_is_suspected_is_not_rolled_back() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "2s"));
    let daemon = Daemon::start(&bed, None, "[defaults.rules.health]\nsustained = \"60s\"\n");
    good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    eventually(seconds(60), "a replacement is prepared", || {
        let names = bed.try_docker(&["ps", "-a", "--format", "{{.Names}}"])?;
        if names.contains("web.rbnew-") { Ok(()) } else { Err(names) }
    });

    bed.docker(&["rm", "-f", "web"]);
    nothing_is_left(&bed);
    let seen = daemon.in_state(seconds(60), "web", &["steady", "trial"]);
    assert!(seen["sentence"].as_str().unwrap_or_default().contains("nothing runs"), "{seen:#}");
    assert_eq!(bed.docker(&["ps", "-aq"]), "");
    assert!(newest_rollback(&daemon, "web").is_err());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_service_removed_while_it_is_stopped_for_a_rollback_is_not_started_again() {
    let bed = Bed::lease();
    images(&bed, &slow_to_stop());
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let arguments = [&WATCHED[..], &SLOW_TO_STOP, &["--label", "backstop.order=stop-first"]].concat();
    good_release(&bed, &daemon, &arguments);
    bed.deploy("web", "web:v2", &arguments);
    is_at(&daemon, "web", "stop web");

    bed.docker(&["rm", "-f", "web"]);
    stays_gone(&bed, &daemon, &webhook, "web");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_service_removed_while_its_replacement_warms_up_beside_it_is_gone_with_it() {
    let bed = Bed::lease();
    // Nobody is healthy at once: the replacement is waited for.
    let health =
        r#"HEALTHCHECK --interval=8s CMD ["/backstop","demo-app","--probe","http://127.0.0.1:8080/healthz"]"#;
    bed.image("web:v1", &Image::demo("v1").line(health));
    bed.image("web:v2", &Image::demo("v2").line(health).env("DEMO_BAD_AFTER", "2s"));
    let webhook = Webhook::start();
    let between = Between::new(bed.socket());
    let daemon = Daemon::start_unready(between.socket().to_str().unwrap(), Some(&webhook.url()), "");
    daemon.ready(seconds(60));
    good_release(&bed, &daemon, &WATCHED);
    between.before_the_next("/start", bed.by_hand(&["rm", "-f", "web"]));
    bed.deploy("web", "web:v2", &WATCHED);
    is_at(&daemon, "web", "start the replacement of web beside it");

    stays_gone(&bed, &daemon, &webhook, "web");
    assert!(between.was_done(), "it was not started");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_project_that_is_taken_down_in_the_middle_of_a_rollback_stays_down() {
    let bed = Bed::lease();
    images(&bed, &slow_to_stop());
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let folder = tempfile::tempdir().unwrap();
    let compose = |words: &[&str]| {
        let mut command = Command::new("docker-compose");
        command.args(["-p", "shop"]).args(words).current_dir(folder.path());
        command.env("DOCKER_HOST", format!("unix://{}", bed.socket())).output().unwrap()
    };
    let deploy = |tag: &str| {
        let text = format!(
            "services:\n  web:\n    image: web:{tag}\n    stop_grace_period: 30s\n    labels:\n      \
             backstop.enable: 'true'\n      backstop.health.path: /healthz\n      backstop.health.port: '8080'\n      \
             backstop.health.interval: 500ms\n      backstop.health.timeout: 500ms\n      backstop.order: stop-first\n"
        );
        fs::write(folder.path().join("compose.yaml"), text).unwrap();
        let up = compose(&["up", "-d"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    };
    deploy("v1");
    daemon.proved("shop-web");
    deploy("v2");
    is_at(&daemon, "shop-web", "stop shop-web-1");

    // Compose may say that the replacement is being removed already: both do, and what counts is that it goes.
    compose(&["down", "-t", "1"]);
    stays_gone(&bed, &daemon, &webhook, "shop-web");
}
