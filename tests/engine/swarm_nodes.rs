//! A Swarm of three managers, each on a machine of its own: the one that Backstop runs on loses power in the middle of a
//! rollback, and another Backstop, with nothing but what the Swarm keeps, goes on.

use serde_json::Value;

use crate::support::bed::Own;
use crate::support::story::{WATCHED, newest_rollback, rollback_over};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

/// Three engines in network namespaces, all of them managers: one may go, and two still agree.
struct Nodes(Vec<Bed>);

impl Nodes {
    #[track_caller]
    fn start() -> Self {
        let nodes: Vec<Bed> = (0..3).map(|_| Bed::start(Own::Machine)).collect();
        let first = &nodes[0];
        let address = first.machine();
        first.docker(&["swarm", "init", "--advertise-addr", &address]);
        let token = first.docker(&["swarm", "join-token", "-q", "manager"]);
        for node in &nodes[1..] {
            let own = node.machine();
            node.docker(&[
                "swarm",
                "join",
                "--advertise-addr",
                &own,
                "--token",
                &token,
                &format!("{address}:2377"),
            ]);
        }
        for node in &nodes {
            node.image("web:v1", &Image::demo("v1"));
            node.image("web:v2", &Image::demo("v2").env("DEMO_BAD", "1"));
        }
        Self(nodes)
    }

    fn spec(&self, node: usize) -> Result<Value, String> {
        Ok(self.0[node].api("GET", "/services/web", "")?.json()["Spec"].clone())
    }

    /// Node and image of each task that is wanted and runs, as a manager tells it.
    fn runs(&self, node: usize) -> Result<Vec<(String, String)>, String> {
        let all = self.0[node].api("GET", "/tasks", "")?.json();
        let all = all.as_array().into_iter().flatten();
        let running = all.filter(|t| t["Status"]["State"] == "running" && t["DesiredState"] == "running");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(running.map(|t| (text(&t["NodeID"]), text(&t["Spec"]["ContainerSpec"]["Image"]))).collect())
    }
}

/// One task on each node, at a port of the node's own: reached from whichever node Backstop is on.
#[track_caller]
fn create(node: &Bed) {
    let before = ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2"];
    let how = [
        "--restart-delay",
        "500ms",
        "--stop-grace-period",
        "1s",
        "--update-monitor",
        "1s",
        "--publish",
        "mode=host,target=8080,published=8080",
    ];
    node.docker(&[&before[..], &how, &WATCHED, &["web:v1"]].concat());
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn the_node_that_backstop_runs_on_loses_power_and_another_goes_on() {
    let nodes = Nodes::start();
    let mut first = Daemon::start(&nodes.0[0], None, "");
    create(&nodes.0[0]);
    first.proved("web");
    let good = nodes.spec(0).unwrap();
    first.terminate();
    // Decided and journaled, and nothing changed yet: the worst moment to go.
    first.set("BACKSTOP_CRASH_AT", "4");
    first.again();
    first.ready(seconds(30));

    nodes.0[0].docker(&["service", "update", "-d", "--no-resolve-image", "--image", "web:v2", "web"]);
    eventually(seconds(90), "the first one ends in the middle of a rollback", || {
        if first.has_ended() { Ok(()) } else { Err("it runs".to_owned()) }
    });
    nodes.0[0].lose_power();
    eventually(seconds(60), "the other two have a leader", || {
        let spec = nodes.spec(1)?;
        let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].clone();
        if image == "web:v2" { Ok(()) } else { Err(spec.to_string()) }
    });

    let second = Daemon::start(&nodes.0[1], None, "");

    // Swarm gives a node that does not answer time, and then the tasks that it had there.
    eventually(seconds(240), "the rollback is over", || {
        let record = newest_rollback(&second, "web")?;
        if record["over"] == true { Ok(()) } else { Err(format!("{record}; {:?}", nodes.runs(1))) }
    });
    let record = rollback_over(&second, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(record["to"]["reference"], "web:v1", "{record:#}");
    let mut now = nodes.spec(1).unwrap();
    assert_eq!(
        now["Labels"].as_object_mut().unwrap().remove("backstop.rollback"),
        Some(record["id"].clone())
    );
    assert_eq!(now, good);
    let runs = eventually(seconds(60), "two tasks run the good release", || {
        let runs = nodes.runs(2)?;
        let good = runs.iter().filter(|(_, image)| image == "web:v1").count();
        if good >= 2 { Ok(runs) } else { Err(format!("{runs:?}")) }
    });
    assert!(runs.iter().all(|(_, image)| image == "web:v1"), "{runs:?}");
}
