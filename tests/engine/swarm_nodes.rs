//! A Swarm of three managers, each on a machine of its own: the one that Backstop runs on loses power in the middle of a
//! rollback, and another Backstop, with nothing but what the Swarm keeps, goes on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::bed::Own;
use crate::support::story::{WATCHED, newest_rollback, rollback_over};
use crate::support::{Bed, Daemon, Image, eventually, handed_over, seconds};

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

/// What the API of a Backstop that runs on this node answers.
fn asked(node: &Bed, path: &str) -> Result<Value, String> {
    let namespace = format!("--net=/run/netns/bsbed-{}", node.engine());
    let url = format!("http://127.0.0.1:9797/api/v1/{path}");
    let output = Command::new("nsenter").args([&namespace, "curl", "-sS", "-m", "3", &url]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// `deploy/swarm-stack.yaml` with times that a test can wait for. The nodes of these tests share a file system, so the
/// socket of each is found by the node's id.
fn stack(folder: &Path, nodes: &Nodes) -> PathBuf {
    for node in &nodes.0 {
        let own = folder.join(node.docker(&["info", "-f", "{{.Swarm.NodeID}}"]));
        fs::create_dir(&own).unwrap();
        symlink(node.socket(), own.join("docker.sock")).unwrap();
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/swarm-stack.yaml");
    let quick = [
        ("ENGINE__LOOK_INTERVAL", "2s"),
        ("FLEET__ENGINE_SETTLE", "2s"),
        ("FLEET__ONE_AT_A_TIME", "0s"),
        ("DEFAULTS__TRIAL", "5s"),
        ("DEFAULTS__GRACE", "1s"),
        ("DEFAULTS__VERIFY", "2s"),
        ("DEFAULTS__RULES__HEALTH__SUSTAINED", "0s"),
    ];
    let quick: String = quick.iter().map(|(key, value)| format!("\n      BACKSTOP_{key}: {value}")).collect();
    let mut text = fs::read_to_string(shipped).unwrap();
    for (is, becomes) in [
        ("- /var/run/docker.sock:", format!("- {}/{{{{.Node.ID}}}}/docker.sock:", folder.display())),
        ("BACKSTOP_ENVIRONMENT: production", format!("BACKSTOP_ENVIRONMENT: production{quick}")),
        ("file: ../config", concat!("file: ", env!("CARGO_MANIFEST_DIR"), "/config").to_owned()),
    ] {
        assert!(text.contains(is), "{is}");
        text = text.replace(is, &becomes);
    }
    let file = folder.join("swarm-stack.yaml");
    fs::write(&file, text).unwrap();
    file
}

/// The image that is shipped, on every node.
fn build_image(node: &Bed) {
    let path = format!(
        "{}:{}",
        Path::new(node.client()).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image"))
        .env("BACKSTOP_BIN", handed_over("BACKSTOP_BIN"))
        .env("DOCKER_HOST", format!("unix://{}", node.socket()))
        .env("DOCKER_BUILDKIT", "0")
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// The node, other than `but`, whose Backstop says that `web` has proved itself.
#[track_caller]
fn proved_on(nodes: &Nodes, but: Option<usize>) -> usize {
    eventually(seconds(240), "a Backstop finds the service steady", || {
        let mut said = Vec::new();
        for (n, node) in nodes.0.iter().enumerate().filter(|(n, _)| Some(*n) != but) {
            match asked(node, "services/web") {
                Ok(service) if service["state"] == "steady" => return Ok(n),
                Ok(service) => said.push(service["sentence"].to_string()),
                Err(why) => said.push(why),
            }
        }
        let left = nodes.0.iter().enumerate().find(|(n, _)| Some(*n) != but).unwrap().1;
        let tasks = left.try_docker(&["service", "ps", "--no-trunc", "backstop_backstop"]);
        Err(format!("{said:?}\n{}", tasks.unwrap_or_else(|e| e)))
    })
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn the_stack_that_is_shipped_goes_on_elsewhere_when_its_node_dies() {
    let nodes = Nodes::start();
    let folder = tempfile::tempdir().unwrap();
    nodes.0.iter().for_each(build_image);
    let file = stack(folder.path(), &nodes);
    let deploy = ["stack", "deploy", "--resolve-image", "never", "-c", file.to_str().unwrap(), "backstop"];
    nodes.0[0].docker(&deploy);
    create(&nodes.0[0]);
    let first = proved_on(&nodes, None);
    let good = nodes.spec(first).unwrap();

    nodes.0[first].lose_power();
    let second = proved_on(&nodes, Some(first));
    assert_ne!(first, second);

    nodes.0[second].docker(&["service", "update", "-d", "--no-resolve-image", "--image", "web:v2", "web"]);
    let record = eventually(seconds(240), "the rollback is over", || {
        let all = asked(&nodes.0[second], "rollbacks")?;
        let newest = all["rollbacks"][0].clone();
        if newest["over"] == true { Ok(newest) } else { Err(format!("{newest}; {:?}", nodes.runs(second))) }
    });
    assert_eq!(record["outcome"], "verified", "{record:#}");
    let mut now = nodes.spec(second).unwrap();
    assert_eq!(
        now["Labels"].as_object_mut().unwrap().remove("backstop.rollback"),
        Some(record["id"].clone())
    );
    assert_eq!(now, good);
}
