//! A Swarm of three managers, each on a machine of its own: the one that Backstop runs on loses power in the middle of a
//! rollback, and Backstop goes on elsewhere, with nothing but what the Swarm keeps.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::bed::Own;
use crate::support::port::free_port_of;
use crate::support::story::WATCHED;
use crate::support::{Bed, Image, eventually, handed_over, seconds};

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

    /// Node and image of each task of `web` that is wanted and runs, as a manager tells it.
    fn runs(&self, node: usize) -> Result<Vec<(String, String)>, String> {
        let all = self.0[node].api("GET", "/tasks", "")?.json();
        let all = all.as_array().into_iter().flatten();
        let running = all.filter(|t| t["Status"]["State"] == "running" && t["DesiredState"] == "running");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = running.map(|t| (text(&t["NodeID"]), text(&t["Spec"]["ContainerSpec"]["Image"])));
        Ok(all.filter(|(_, image)| image.starts_with("web:")).collect())
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

/// What the API of a Backstop that runs on this node answers.
fn asked(node: &Bed, path: &str) -> Result<Value, String> {
    let namespace = format!("--net=/run/netns/bsbed-{}", node.engine());
    let url = format!("http://127.0.0.1:9797/api/v1/{path}");
    let output =
        Command::new("nsenter").args([&namespace, "curl", "-sS", "-m", "20", &url]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// `deploy/swarm-stack.yaml` with times that a test can wait for. The nodes of these tests share a file system, so the
/// socket of each is found by the node's id.
fn stack(folder: &Path, nodes: &Nodes, hook: &str) -> PathBuf {
    for node in &nodes.0 {
        let own = folder.join(node.docker(&["info", "-f", "{{.Swarm.NodeID}}"]));
        fs::create_dir(&own).unwrap();
        symlink(node.socket(), own.join("docker.sock")).unwrap();
    }
    let settings = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/backstop.toml")).unwrap();
    assert!(settings.contains("\n[defaults.hooks]\n"));
    fs::write(folder.join("backstop.toml"), settings.replace("[defaults.hooks]\n", hook)).unwrap();
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
        ("file: ../config", format!("file: {}", folder.display())),
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

/// The node whose Backstop says that `web` has proved itself.
#[track_caller]
fn proved_on(nodes: &Nodes) -> usize {
    eventually(seconds(240), "a Backstop finds the service steady", || {
        let mut said = Vec::new();
        for (n, node) in nodes.0.iter().enumerate() {
            match asked(node, "services/web") {
                Ok(service) if service["state"] == "steady" => return Ok(n),
                Ok(service) => said.push(service["sentence"].to_string()),
                Err(why) => said.push(why),
            }
        }
        let tasks = nodes.0[0].try_docker(&["service", "ps", "--no-trunc", "backstop_backstop"]);
        Err(format!("{said:?}\n{}", tasks.unwrap_or_else(|e| e)))
    })
}

/// What a rollback asks before it touches anything: the first time it gets no answer, later it may go on.
struct Gatekeeper {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Gatekeeper {
    /// At an address that does not go with the wire of any machine.
    #[track_caller]
    fn start() -> Self {
        let own = format!("10.211.{}.1", std::process::id() % 250);
        ip(&["addr", "replace", &format!("{own}/32"), "dev", "lo"]);
        let gatekeeper = Self { address: format!("{own}:{}", free_port_of(&own)), asked: Arc::default() };
        let listener = TcpListener::bind(&gatekeeper.address).unwrap();
        let asked = Arc::clone(&gatekeeper.asked);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let head = BufReader::new(&stream).lines().map_while(Result::ok).find(String::is_empty);
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    kept.push(stream);
                } else if head.is_some() {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            }
        });
        gatekeeper
    }

    /// Lines of a configuration that have it asked.
    fn hook(&self) -> String {
        format!(
            "[defaults.hooks]\nstory = {{ phase = \"before_rollback\", http = {{ url = \"http://{}/\", method = \"POST\" }}, \
             timeout = \"10m\" }}\n",
            self.address
        )
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        let own = self.address.split(':').next().unwrap_or_default();
        let _ = Command::new("ip").args(["addr", "del", &format!("{own}/32"), "dev", "lo"]).status();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// The worst moment to go: decided and journaled, and nothing changed yet.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn the_stack_that_is_shipped_finishes_a_rollback_elsewhere_when_its_node_dies_in_the_middle() {
    let nodes = Nodes::start();
    let folder = tempfile::tempdir().unwrap();
    let gatekeeper = Gatekeeper::start();
    nodes.0.iter().for_each(build_image);
    let file = stack(folder.path(), &nodes, &gatekeeper.hook());
    let deploy = ["stack", "deploy", "--resolve-image", "never", "-c", file.to_str().unwrap(), "backstop"];
    nodes.0[0].docker(&deploy);
    create(&nodes.0[0]);
    let first = proved_on(&nodes);
    let good = nodes.spec(first).unwrap();

    nodes.0[first].docker(&["service", "update", "-d", "--no-resolve-image", "--image", "web:v2", "web"]);
    eventually(seconds(120), "a rollback is about to change something", || {
        if gatekeeper.asked.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("nobody asked".to_owned()) }
    });
    let begun = eventually(seconds(60), "it says so", || newest(&nodes.0[first]));
    assert_eq!((&begun["over"], &begun["to"]["reference"]), (&false.into(), &"web:v1".into()), "{begun:#}");
    nodes.0[first].lose_power();

    // Swarm gives a node that does not answer time, and then the tasks that it had there.
    let (second, record) = eventually(seconds(300), "the rollback is over elsewhere", || {
        let mut said = Vec::new();
        for (n, node) in nodes.0.iter().enumerate().filter(|(n, _)| *n != first) {
            match newest(node) {
                Ok(record) if record["over"] == true => return Ok((n, record)),
                other => said.push(format!("{other:?}; {:?}", nodes.runs(n))),
            }
        }
        Err(said.join("\n"))
    });
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(record["to"]["reference"], "web:v1", "{record:#}");
    let mut now = nodes.spec(second).unwrap();
    assert_eq!(
        now["Labels"].as_object_mut().unwrap().remove("backstop.rollback"),
        Some(record["id"].clone())
    );
    assert_eq!(now, good);
    let runs = eventually(seconds(60), "two tasks run the good release", || {
        let runs = nodes.runs(second)?;
        let good = runs.iter().filter(|(_, image)| image == "web:v1").count();
        if good >= 2 { Ok(runs) } else { Err(format!("{runs:?}")) }
    });
    assert!(runs.iter().all(|(_, image)| image == "web:v1"), "{runs:?}");
}

/// The newest rollback that the Backstop on this node knows of.
fn newest(node: &Bed) -> Result<Value, String> {
    Ok(asked(node, "rollbacks")?["rollbacks"][0].clone())
}
