//! Services that are one release: all of them go back, or none.

use serde_json::{Value, json};

use crate::support::port::free_address;
use crate::support::story::{WATCHED, good_service, images, newest_rollback, rollback_over, service_is_back};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

const GROUP: &str = "[groups]\nshop = [\"jobs\", \"api\"]\n";

/// Watched, with a trial that is long enough for the other service to be deployed in it, however busy the machine is: nobody
/// waits for its end.
fn on_trial() -> Vec<&'static str> {
    [&WATCHED[..], &["--label", "backstop.trial=120s"]].concat()
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn one_bad_service_takes_those_that_were_deployed_with_it_back() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "5s"));
    bed.image("web:v2-well", &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), GROUP);
    let [api, jobs, other] = ["api", "jobs", "other"].map(|name| good_service(&bed, &daemon, name, &WATCHED));

    bed.deploy("jobs", "web:v2-well", &on_trial());
    bed.deploy("other", "web:v2-well", &WATCHED);
    bed.deploy("api", "web:v2", &on_trial());

    let of_api = service_is_back(&bed, &daemon, "api", &api);
    let of_jobs = service_is_back(&bed, &daemon, "jobs", &jobs);
    assert_eq!((&of_api["along"], &of_jobs["along"]), (&json!(["jobs"]), &json!(["api"])));
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "jobs", "api is one release with it"]);
    assert_ne!(bed.inspect("other")["Image"], other["Image"], "it is in no group");
    assert!(newest_rollback(&daemon, "other").is_err());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn none_goes_back_if_one_cannot_start() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    bed.image("web:v2-well", &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), GROUP);
    let port = format!("{}:8080", free_address());
    let published = [&WATCHED[..], &["-p", &port]].concat();
    good_service(&bed, &daemon, "api", &published);
    good_service(&bed, &daemon, "jobs", &WATCHED);

    // The good api has a port that somebody else takes as soon as it is free.
    let jobs = bed.deploy("jobs", "web:v2-well", &on_trial());
    let api = bed.deploy("api", "web:v2", &on_trial());
    bed.deploy("thief", "web:v1", &["-p", &port]);
    bed.serves(seconds(60), "api", "v2");
    bed.turn("api", "health", "error");

    let record = rollback_over(&daemon, "api");
    assert_eq!(record["outcome"], "unwound", "{record:#}");
    let record = rollback_over(&daemon, "jobs");
    assert_eq!(record["outcome"], "unwound", "{record:#}");
    let why = record["detail"].as_str().unwrap_or_default();
    assert!(why.starts_with("all or none go back, and api cannot: "), "{why}");
    webhook.announced(seconds(60), &["ROLLBACK FAILED AND WAS UNDONE", "jobs", "all or none"]);
    for (name, id) in [("jobs", jobs), ("api", api)] {
        let now: Value = bed.inspect(name);
        assert_eq!((&now["Id"], &now["State"]["Running"]), (&id.as_str().into(), &true.into()), "{name}");
    }
    // Of what was carried out before, nothing is left.
    eventually(seconds(60), "no helper container is left", || {
        let all = bed.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        if all.contains(".rb") { Err(all) } else { Ok(()) }
    });
}
