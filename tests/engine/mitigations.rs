//! Something less than a rollback, tried first, where other hands than ours make the containers: Swarm's and Compose's.

use std::fs;

use serde_json::Value;

use crate::compose::{Project, read};
use crate::support::story::{NOT_HEALTH, images, newest_rollback, nothing_is_left_of, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};
use crate::swarm::Cluster;

/// How often Swarm was told to replace its tasks, and how many there are to be.
#[track_caller]
fn told(cluster: &Cluster) -> (u64, u64) {
    let spec = cluster.spec("web");
    (
        spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or_default(),
        spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap(),
    )
}

/// How many announcements there are that it helped.
fn helped(webhook: &Webhook) -> usize {
    webhook.announcements(&["IT HELPED"])
}

#[track_caller]
fn helped_times(webhook: &Webhook, times: usize) {
    eventually(seconds(90), &format!("it is said {times} times that it helped"), || {
        let said = helped(webhook);
        if said == times { Ok(()) } else { Err(format!("{said}: {:#?}", webhook.bodies())) }
    });
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarm_service_is_restarted_then_scaled_and_rolled_back_when_it_persists() {
    let cluster = Cluster::start();
    let bed = cluster.bed();
    images(bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let ladder = "[defaults.rules.memory]\nmitigations = [\"restart\", \"scale 3\"]\n[defaults.rules.oom]\n\
                  action = \"off\"\n[defaults.rules.crash_loop]\naction = \"off\"\n";
    let daemon = Daemon::start(bed, Some(&webhook.url()), &format!("{ladder}{NOT_HEALTH}"));
    let good = cluster.good(&daemon, &["--limit-memory", "128M"]);
    cluster.update("web", &["--image", "web:v2"]);
    daemon.proved_as("web", "web:v2");
    let first = cluster.task("web");

    bed.turn(&first, "memory_percent", "93");
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "restart it"]);
    helped_times(&webhook, 1);
    assert_eq!((told(&cluster), cluster.runs("web")), ((1, 1), vec!["web:v2".to_owned()]));
    let second = cluster.task("web");
    assert_ne!(second, first, "Swarm replaces a task, and restarts none");

    bed.turn(&second, "memory_percent", "93");
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "scale it to 3 replicas"]);
    // Each has less to do with every one that comes. At once: what is still full when it is looked at again was not helped.
    bed.turn(&second, "memory_percent", "0");
    eventually(seconds(60), "Swarm is told of three replicas", || {
        let told = told(&cluster);
        if told == (1, 3) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    eventually(seconds(60), "three replicas run", || {
        let runs = cluster.runs("web");
        if runs == ["web:v2"; 3] { Ok(()) } else { Err(format!("{runs:?}")) }
    });
    helped_times(&webhook, 2);
    webhook.announced(seconds(60), &["IT HELPED", "it had 1 replicas: docker service scale web=1"]);
    assert_eq!(told(&cluster), (1, 3));
    assert!(newest_rollback(&daemon, "web").is_err(), "nothing was rolled back");

    bed.turn(&second, "memory_percent", "93");
    let record = cluster.is_back(&daemon, "web", &with_force(&good, 1), 3);
    assert_eq!(record["reason"], "memory_high");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "Tried before"]);
}

/// A count that only ever grows, and no part of a release.
fn with_force(good: &Value, times: u64) -> Value {
    let mut good = good.clone();
    good["TaskTemplate"]["ForceUpdate"] = times.into();
    good
}

/// The containers of `web`, the names of those that run `image`.
fn running(bed: &Bed, image: &str) -> Vec<String> {
    let listed = bed.docker(&[
        "ps",
        "--format",
        "{{.Names}} {{.Image}}",
        "--filter",
        "label=com.docker.compose.service=web",
    ]);
    let mut names: Vec<String> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(&format!(" {image}")).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// The volume without a name.
fn volume(inspect: Value) -> Value {
    inspect["Mounts"][0]["Name"].clone()
}

/// What it depends on is left alone, and the new replica is one of the same release, also in Compose's eyes.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn compose_service_is_scaled_and_rolled_back_when_it_persists() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let ladder = "[defaults.rules.health]\nmitigations = [\"scale 2\"]\n";
    let daemon = Daemon::start(&bed, Some(&webhook.url()), ladder);
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.with("    depends_on: [db]\n    volumes: [/data]\n  db:\n    image: web:v1\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    daemon.proved_as("shop-web", "web:v2");
    let (first, database) = (project.container(), bed.inspect("shop-db-1"));

    bed.turn("shop-web-1", "health", "error");
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "scale it to 2 replicas"]);
    // At once: what is still bad when it is looked at again was not helped.
    bed.turn("shop-web-1", "health", "ok");
    bed.serves(seconds(60), "shop-web-2", "v2");
    let said = webhook.announced(seconds(60), &["IT HELPED", "without `--scale web=2`"]);
    assert_eq!(project.container()["Id"], first["Id"], "what runs is left alone: {said:#}");
    let service = daemon.service("shop-web").unwrap();
    assert_eq!(service["replicas"].as_array().map(Vec::len), Some(2), "{service:#}");
    project.compose(&["up", "-d", "--scale", "web=2"]);
    let second = bed.inspect("shop-web-2");
    assert_eq!(
        second["Config"]["Labels"]["com.docker.compose.config-hash"],
        first["Config"]["Labels"]["com.docker.compose.config-hash"]
    );
    assert!(newest_rollback(&daemon, "shop-web").is_err(), "nothing was rolled back");

    bed.turn("shop-web-1", "health", "error");
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    // One was recorded. How many run is no part of a release.
    assert_eq!(running(&bed, "web:v1"), ["shop-web-1", "shop-web-2"]);
    assert_eq!(running(&bed, "web:v2"), Vec::<String>::new());
    nothing_is_left_of(&bed, "shop-web");
    assert_eq!(read(&project.path(".env")), "TAG=v1\n");
    assert_eq!(bed.inspect("shop-db-1")["State"], database["State"], "the database went on");
    let of_both = |what: fn(Value) -> Value| ["shop-web-1", "shop-web-2"].map(|name| what(bed.inspect(name)));
    assert_eq!(of_both(volume), [volume(first), volume(second)], "each has its own data");
    let before = of_both(|inspect| inspect["Id"].clone());
    project.compose(&["up", "-d", "--scale", "web=2"]);
    assert_eq!(of_both(|inspect| inspect["Id"].clone()), before, "to Compose they are what it would make");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "Tried before"]);
}

/// Compose would make the new replicas by what the files say, which is another release by now.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn compose_service_is_not_scaled_by_files_that_say_something_else() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    bed.image("web:v3", &Image::demo("v3"));
    let webhook = Webhook::start();
    let ladder = "[defaults.rules.health]\nmitigations = [\"scale 2\"]\n";
    let daemon = Daemon::start(&bed, Some(&webhook.url()), ladder);
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    daemon.proved_as("shop-web", "web:v2");

    fs::write(project.path(".env"), "TAG=v3\n").unwrap();
    bed.turn("shop-web-1", "health", "error");
    webhook.announced(seconds(60), &["MITIGATION FAILED", "say something else than what runs"]);

    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(running(&bed, "web:v1"), ["shop-web-1"]);
    assert_eq!(running(&bed, "web:v3"), Vec::<String>::new());
}
