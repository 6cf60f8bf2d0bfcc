//! A Swarm service's version is a compare-and-swap: who changes a service between Backstop's look and its update keeps
//! what they changed.

use serde_json::Value;

use crate::support::between::Between;
use crate::support::story::rollback_over;
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};
use crate::swarm::Cluster;

/// A request to change a service.
const UPDATE: &str = "/update?version=";

/// `web:v1` has proved itself, a daemon watches through somebody in between.
#[track_caller]
fn story(cluster: &Cluster, webhook: Option<&Webhook>, more: &str) -> (Between, Daemon, Value) {
    let bed = cluster.bed();
    bed.image("web:v1", &Image::demo("v1"));
    bed.image("web:v2", &Image::demo("v2"));
    bed.image("web:v3", &Image::demo("v3"));
    let between = Between::new(bed.socket());
    let url = webhook.map(Webhook::url);
    let daemon = Daemon::start_unready(between.socket().to_str().unwrap(), url.as_deref(), more);
    daemon.ready(seconds(60));
    let good = cluster.good(&daemon, &["--label", "page=ann"]);
    (between, daemon, good)
}

/// What a person does by hand at the engine itself.
fn by_hand(bed: &Bed, arguments: &[&str]) -> impl FnOnce() + Send + use<> {
    bed.by_hand(&[&["service", "update", "-d", "--no-resolve-image"], arguments, &["web"]].concat())
}

/// Turns what serves bad.
#[track_caller]
fn turns_bad(cluster: &Cluster) {
    cluster.bed().turn(&cluster.task("web"), "health", "error");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn label_that_somebody_sets_in_between_stays_and_the_rollback_goes_on() {
    let cluster = Cluster::start();
    let (between, daemon, good) = story(&cluster, None, "");
    cluster.update("web", &["--image", "web:v2", "--label-add", "of-v2=yes"]);
    daemon.proved_as("web", "web:v2");
    const LABELS: &[&str] = &["--label-add", "ticket=17", "--label-add", "page=ben"];
    between.before_the_next(UPDATE, by_hand(cluster.bed(), LABELS));

    turns_bad(&cluster);

    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert!(between.was_done(), "nobody came in between");
    let now = cluster.spec("web");
    assert_eq!(now["TaskTemplate"], good["TaskTemplate"]);
    assert_eq!((&now["Labels"]["ticket"], &now["Labels"]["page"]), (&"17".into(), &"ben".into()));
    assert_eq!(now["Labels"]["of-v2"], Value::Null, "what came with the bad release goes with it");
    assert_eq!(cluster.runs("web"), ["web:v1"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn deployment_in_between_wins_and_is_not_overwritten() {
    let cluster = Cluster::start();
    let (between, daemon, _) = story(&cluster, None, "");
    cluster.update("web", &["--image", "web:v2"]);
    daemon.proved_as("web", "web:v2");
    between.before_the_next(UPDATE, by_hand(cluster.bed(), &["--image", "web:v3"]));

    turns_bad(&cluster);

    let record = rollback_over(&daemon, "web");
    assert!(between.was_done(), "nobody came in between");
    assert_ne!(record["outcome"], "verified", "{record:#}");
    assert!(record["detail"].to_string().contains("web:v3"), "{record:#}");
    daemon.proved_as("web", "web:v3");
    assert_eq!(cluster.runs("web"), ["web:v3"]);
    assert_eq!(cluster.spec("web")["Labels"]["backstop.rollback"], Value::Null);
}

/// What is done instead of a rollback, too: restarted, and then scaled.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn mitigation_keeps_what_somebody_sets_in_between() {
    let cluster = Cluster::start();
    let webhook = Webhook::start();
    let ladder = "[defaults.rules.health]\nmitigations = [\"restart\", \"scale 2\"]\n";
    let (between, daemon, _) = story(&cluster, Some(&webhook), ladder);
    cluster.update("web", &["--image", "web:v2"]);
    daemon.proved_as("web", "web:v2");
    let is = |forced: u64, replicas: u64, ticket: &str| {
        eventually(seconds(60), "it is done, and what somebody did stays", || {
            let spec = cluster.spec("web");
            let now = (
                &spec["TaskTemplate"]["ForceUpdate"],
                &spec["Mode"]["Replicated"]["Replicas"],
                &spec["Labels"]["ticket"],
            );
            if now == (&forced.into(), &replicas.into(), &ticket.into()) {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
        assert!(between.was_done(), "nobody came in between");
    };

    between.before_the_next(UPDATE, by_hand(cluster.bed(), &["--label-add", "ticket=1"]));
    turns_bad(&cluster);
    is(1, 1, "1");
    webhook.announced(seconds(60), &["IT HELPED", "restarted"]);

    between.before_the_next(UPDATE, by_hand(cluster.bed(), &["--label-add", "ticket=2"]));
    turns_bad(&cluster);
    is(1, 2, "2");
    assert!(!webhook.bodies().iter().any(|body| body.to_string().contains("MITIGATION FAILED")));
}
