//! Somebody deploys while a rollback is under way: what they deployed stays, nothing of the rollback is left, and their
//! release is judged afresh.

use crate::compose::Project;
use crate::support::between::Between;
use crate::support::story::{WATCHED, good_service, newest_rollback, nothing_is_left_of, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// A daemon that watches through somebody in between; `web:v2` is bad, `web:v3` can be turned so.
#[track_caller]
fn watched(bed: &Bed, webhook: &Webhook) -> (Between, Daemon) {
    bed.image("web:v1", &Image::demo("v1"));
    bed.image("web:v2", &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.image("web:v3", &Image::demo("v3"));
    let between = Between::new(bed.socket());
    let daemon = Daemon::start_unready(between.socket().to_str().unwrap(), Some(&webhook.url()), "");
    daemon.ready(seconds(60));
    (between, daemon)
}

/// `image` runs as `service`, alone and proved, and the rollback that it ended is on record as none.
#[track_caller]
fn has_the_last_word(bed: &Bed, daemon: &Daemon, service: &str, container: &str, moment: &str) {
    let image = "web:v3";
    daemon.proved_as(service, image);
    let record = rollback_over(daemon, service);
    // Once the good release serves under its name, the rollback is done and not yet proved.
    let (outcome, words) = match moment {
        "/stop?" => ("superseded", "somebody deployed web:v3"),
        _ => ("void", "deployed meanwhile"),
    };
    assert_eq!(record["outcome"], outcome, "{record:#}");
    assert!(record["detail"].to_string().contains(words), "{record:#}");
    assert_eq!(bed.inspect(container)["Config"]["Image"], image);
    nothing_is_left_of(bed, container);
    let of_it = format!("name={container}");
    assert_eq!(bed.docker(&["ps", "-a", "--filter", &of_it, "--format", "{{.Image}}"]).trim(), image);
}

/// It is a release like any other: when it turns bad, it goes back to the one that proved itself.
#[track_caller]
fn is_judged_afresh(bed: &Bed, daemon: &Daemon, service: &str, container: &str) {
    let void = newest_rollback(daemon, service).unwrap();
    bed.turn(container, "health", "error");
    eventually(seconds(60), "it is rolled back itself", || {
        let record = newest_rollback(daemon, service)?;
        let done = record["id"] != void["id"] && record["outcome"] == "verified";
        if done { Ok(()) } else { Err(record.to_string()) }
    });
    assert_eq!(bed.inspect(container)["Config"]["Image"], "web:v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_a_person_deploys_in_the_middle_of_a_rollback_stays() {
    let bed = Bed::lease();
    let webhook = Webhook::start();
    let (between, daemon) = watched(&bed, &webhook);
    let moments = [("at-stop", "/stop?"), ("at-rename", "/rename?"), ("at-start", "/start")];
    for (name, _) in moments {
        good_service(&bed, &daemon, name, &WATCHED);
    }
    for (name, request) in moments {
        let remove = bed.by_hand(&["rm", "-f", name]);
        let run = bed.by_hand(&[&["run", "-d", "--name", name], &WATCHED[..], &["web:v3"]].concat());
        between.before_the_next(request, || {
            remove();
            run();
        });
        bed.deploy(name, "web:v2", &WATCHED);

        has_the_last_word(&bed, &daemon, name, name, request);
        assert!(between.was_done(), "{request}");
    }
    is_judged_afresh(&bed, &daemon, "at-start", "at-start");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_compose_brings_up_in_the_middle_of_a_rollback_stays() {
    let bed = Bed::lease();
    let webhook = Webhook::start();
    let (between, daemon) = watched(&bed, &webhook);
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");
    between.before_the_next("/start", project.up_by_hand("TAG=v3\n"));
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);

    has_the_last_word(&bed, &daemon, "shop-web", "shop-web-1", "/start");
    assert!(between.was_done());
    assert_eq!(crate::compose::read(&project.path(".env")), "TAG=v3\n", "what the person set stays");
    is_judged_afresh(&bed, &daemon, "shop-web", "shop-web-1");
}
