//! An engine of a test's own, leased from those that tests/run started.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Answer};
use super::image::root_file_system;
use super::{Image, eventually, handed_over};

/// The file system of every image, which an engine keeps from test to test.
const BASE: &str = "backstop-demo:base";

/// Engines that no test has now; none before the first lease.
static FREE: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// One private engine, empty at first and again afterwards. A whole engine for each test, because every Backstop looks
/// at all containers of its engine, and because a test may restart it.
#[derive(Debug)]
pub(crate) struct Bed {
    engine: String,
    socket: String,
    client: String,
    /// It was started for one test alone, and goes with it.
    own: Option<Own>,
}

/// An engine of another kind than those that tests/run started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// Of this version.
    Version(&'static str),
    /// Of the version that all have, in a network namespace: as on a machine of its own.
    Machine,
}

/// Engines that tests started for themselves, so that each has a name of its own.
static OWN: AtomicU8 = AtomicU8::new(0);

impl Bed {
    /// Starts an engine for this test alone. tests/run ends those of a test that was killed, by their names.
    #[track_caller]
    pub(crate) fn start(own: Own) -> Self {
        let letter = char::from(b'i' + OWN.fetch_add(1, Ordering::SeqCst));
        assert!(letter.is_ascii_lowercase(), "more engines than letters");
        Self::of(format!("e{}{letter}", std::process::id()), Some(own))
    }

    /// As many engines as test threads were started, so one is free, or will be when its last test has cleaned up.
    #[track_caller]
    pub(crate) fn lease() -> Self {
        let engine = eventually(Duration::from_secs(120), "a free engine", || {
            let mut free = FREE.lock().unwrap();
            let all = || handed_over("BACKSTOP_BED_ENGINES").split(' ').map(str::to_owned).collect();
            free.get_or_insert_with(all).pop().ok_or_else(|| "all are taken".to_owned())
        });
        let bed = Self::of(engine, None);
        bed.clear();
        bed
    }

    #[track_caller]
    fn of(engine: String, own: Option<Own>) -> Self {
        let up = match own {
            None => bed(&["up", &engine]),
            Some(Own::Machine) => bed(&["up", &engine, "--netns"]),
            Some(Own::Version(version)) => bed_of(version, &["up", &engine]),
        };
        let socket =
            up.trim().strip_prefix("DOCKER_HOST=unix://").unwrap_or_else(|| panic!("{up}")).to_owned();
        let path = bed(&["env", &engine]);
        let client = path
            .lines()
            .find_map(|line| line.strip_prefix("export PATH=")?.split(':').next())
            .map_or_else(|| "docker".to_owned(), |directory| format!("{directory}/docker"));
        Self { engine, socket, client, own }
    }

    /// The address of an engine in a network namespace.
    #[track_caller]
    pub(crate) fn machine(&self) -> String {
        bed(&["address", &self.engine]).trim().to_owned()
    }

    /// From now on it listens at port 2376 of its machine too, for whom the CA in `directory` vouches.
    pub(crate) fn serve_tls(&self, directory: &Path) {
        bed(&["restart", &self.engine, "--tls", directory.to_str().unwrap()]);
    }

    /// Its machine loses power.
    #[track_caller]
    pub(crate) fn lose_power(&self) {
        bed(&["kill", &self.engine]);
    }

    /// Run `podman` itself, on an engine that is one.
    #[track_caller]
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        run(Command::new(SCRIPT).args(["podman", &self.engine]).args(arguments))
    }

    /// The path of its `docker` command.
    pub(crate) fn client(&self) -> &str {
        &self.client
    }

    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// Run a `docker` command that has to succeed; gives what it prints.
    #[track_caller]
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        self.try_docker(arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
    }

    pub(crate) fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        // A command that is over in a moment has no garbage worth collecting.
        command.env("DOCKER_HOST", format!("unix://{}", self.socket)).env("GOGC", "off").args(arguments);
        command
    }

    /// Make `image` known as `tag`; gives its id. The file system is brought to an engine once, and stays: to import it
    /// for every image would be a quarter of all that the engines of a run have to do.
    #[track_caller]
    pub(crate) fn image(&self, tag: &str, image: &Image) -> String {
        if matches!(self.own, Some(Own::Version(version)) if version.starts_with("podman")) {
            // Its `commit` takes fewer lines.
            let changes: Vec<String> = image.lines().map(|line| format!("--change={line}")).collect();
            let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
            return self.docker(&[&["import"], &changes[..], &[root_file_system(), tag]].concat());
        }
        let mold = self.mold();
        let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, "latest"));
        let changes: String = image.lines().map(|line| format!("&changes={}", http::escape(&line))).collect();
        let commit = format!("/commit?container={mold}&repo={repository}&tag={tag}{changes}");
        let made = self.engine_does("POST", &commit);
        self.engine_does("DELETE", &format!("/containers/{mold}"));
        made.json()["Id"].as_str().unwrap().to_owned()
    }

    /// A container that never starts, of the file system of every image.
    #[track_caller]
    fn mold(&self) -> String {
        let create =
            || self.api("POST", "/containers/create", &format!(r#"{{"Image": "{BASE}", "Cmd": ["/none"]}}"#));
        let mut mold = create().unwrap();
        if mold.status == 404 {
            self.docker(&["import", root_file_system(), BASE]);
            mold = create().unwrap();
        }
        assert_eq!(mold.status, 201, "{}", mold.body);
        mold.json()["Id"].as_str().unwrap().to_owned()
    }

    /// For lines of a Dockerfile that `docker import` does not take: another image on top of `from`.
    #[track_caller]
    pub(crate) fn build(&self, tag: &str, from: &str, line: &str) {
        let mut build = self
            .command(&["build", "-q", "-t", tag, "-"])
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        build.stdin.take().unwrap().write_all(format!("FROM {from}\n{line}\n").as_bytes()).unwrap();
        assert!(build.wait().unwrap().success(), "building {tag}");
    }

    /// What a person types, to be typed some time by somebody else.
    pub(crate) fn by_hand(&self, arguments: &[&str]) -> impl FnOnce() + Send + use<> {
        let (client, socket) = (self.client().to_owned(), self.socket().to_owned());
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        move || succeeds(&socket, Command::new(client).args(arguments))
    }

    /// Runs a Compose in a project's folder, as a person does. Gives what it prints.
    #[track_caller]
    pub(crate) fn compose(&self, program: &str, project: &str, folder: &Path, words: &[&str]) -> String {
        let output = Command::new(program)
            .args(["-p", project])
            .args(words)
            .current_dir(folder)
            .env("DOCKER_HOST", format!("unix://{}", self.socket()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docker compose {words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Deploy: what is called `name` goes, and a container of `image` takes its place. Gives its id.
    #[track_caller]
    pub(crate) fn deploy(&self, name: &str, image: &str, arguments: &[&str]) -> String {
        self.try_deploy(name, image, arguments).unwrap_or_else(|error| panic!("deploying {name}: {error}"))
    }

    /// The same for an image that may not start.
    pub(crate) fn try_deploy(&self, name: &str, image: &str, arguments: &[&str]) -> Result<String, String> {
        let _ = self.api("DELETE", &format!("/containers/{name}?force=1"), "");
        let before = ["run", "-d", "--name", name];
        self.try_docker(&[&before[..], arguments, &[image]].concat())
    }

    /// The whole specification and state, as the engine tells it.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str) -> Value {
        self.try_inspect(container).unwrap_or_else(|error| panic!("inspecting {container}: {error}"))
    }

    pub(crate) fn try_inspect(&self, container: &str) -> Result<Value, String> {
        let answer = self.api("GET", &format!("/containers/{container}/json"), "")?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.body) }
    }

    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        http::unix(&self.socket, method, path, body).map_err(|error| error.to_string())
    }

    /// Asks the engine itself for something that it has to do. The command takes more of the machine than what it asks
    /// for: it is left for what a person would type in a test.
    #[track_caller]
    fn engine_does(&self, method: &str, path: &str) -> Answer {
        let answer = self.api(method, path, "").unwrap();
        assert!(answer.status < 300, "{method} {path}: {}", answer.body);
        answer
    }

    /// What the engine lists; nothing if it does not answer.
    fn listed(&self, path: &str) -> Vec<Value> {
        let listed = self.api("GET", path, "").ok().filter(|answer| answer.status == 200);
        listed.and_then(|answer| answer.json().as_array().cloned()).unwrap_or_default()
    }

    /// `address:8080` of a running container, on whichever network it has.
    pub(crate) fn address(&self, container: &str) -> Result<String, String> {
        let inspect = self.try_inspect(container)?;
        let networks = inspect["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
        networks
            .values()
            .filter_map(|network| network["IPAddress"].as_str())
            .find(|address| !address.is_empty())
            .map(|address| format!("{address}:8080"))
            .ok_or_else(|| format!("{container} has no address: {}", inspect["State"]))
    }

    /// Turn a dial of a running demo app.
    #[track_caller]
    pub(crate) fn turn(&self, container: &str, dial: &str, value: &str) {
        let path = format!("/demo/{dial}/{value}");
        let answer = http::tcp(&self.address(container).unwrap(), "POST", &path, &[], "").unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }

    /// How many requests a demo app has answered so far, by its own count.
    pub(crate) fn answered(&self, container: &str) -> Result<u64, String> {
        let metrics =
            http::get(&self.address(container)?, "/metrics").map_err(|error| error.to_string())?.body;
        let counts = metrics.lines().filter(|line| line.starts_with("http_requests_total{"));
        let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// What a user of the service sees: its `/`.
    pub(crate) fn ask(&self, container: &str) -> Result<Value, String> {
        let answer = http::get(&self.address(container)?, "/").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.body) }
    }

    /// Waits until the service answers as `version`.
    #[track_caller]
    pub(crate) fn serves(&self, deadline: Duration, container: &str, version: &str) -> Value {
        eventually(deadline, &format!("{container} serves {version}"), || {
            let answer = self.ask(container)?;
            if answer["version"] == version { Ok(answer) } else { Err(answer.to_string()) }
        })
    }

    /// The engine's name, which no other has.
    pub(crate) fn engine(&self) -> &str {
        &self.engine
    }

    /// Restart the engine, as an upgrade does.
    pub(crate) fn restart_engine(&self) {
        bed(&["restart", &self.engine]);
    }

    /// Kill the engine with SIGKILL and start it again.
    pub(crate) fn crash_engine(&self) {
        bed(&["restart", &self.engine, "--kill"]);
    }

    pub(crate) fn stop_engine(&self) {
        bed(&["stop", &self.engine]);
    }

    pub(crate) fn start_engine(&self) {
        bed(&["up", &self.engine]);
    }

    fn clear(&self) {
        let ask = |method: &str, path: &str| drop(self.api(method, path, ""));
        let id = |one: &Value| one["Id"].as_str().unwrap_or_default().to_owned();
        // A test that was killed may have left it in a Swarm, which would start its containers again.
        ask("POST", "/swarm/leave?force=1");
        for container in self.listed("/containers/json?all=1") {
            ask("DELETE", &format!("/containers/{}?force=1&v=1", id(&container)));
        }
        ask("POST", "/networks/prune");
        ask("POST", "/volumes/prune");
        for image in self.listed("/images/json") {
            let tags = image["RepoTags"].as_array();
            if !tags.is_some_and(|tags| tags.iter().any(|tag| tag == BASE)) {
                ask("DELETE", &format!("/images/{}?force=1", id(&image)));
            }
        }
    }

    /// For a person who reads why a test failed.
    fn tell(&self) {
        eprintln!("---- containers\n{}", self.try_docker(&["ps", "-a", "--no-trunc"]).unwrap_or_else(|e| e));
        for id in self.try_docker(&["ps", "-aq"]).unwrap_or_default().lines() {
            // The demo app speaks on standard error, which goes where this test's does.
            eprintln!("---- log of {id}");
            let _ = self.command(&["logs", "--tail", "20", id]).status();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        if self.own.is_some() {
            let down = Command::new(SCRIPT).args(["down", &self.engine]).output();
            if !down.is_ok_and(|output| output.status.success()) {
                eprintln!("{SCRIPT} down {} failed", self.engine);
            }
            return;
        }
        if let Ok(mut free) = FREE.lock()
            && let Some(free) = free.as_mut()
        {
            free.push(self.engine.clone());
        }
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed");

/// Run tests/bed; gives what it prints.
#[track_caller]
fn bed(arguments: &[&str]) -> String {
    bed_of(&std::env::var("ENGINE_VERSION").unwrap_or_else(|_| "20.10".to_owned()), arguments)
}

#[track_caller]
fn bed_of(version: &str, arguments: &[&str]) -> String {
    run(Command::new(SCRIPT).args(arguments).args(["--engine", version]))
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a client of the engine at this socket, which has to succeed.
#[track_caller]
pub(crate) fn succeeds(socket: &str, command: &mut Command) {
    let output = command.env("DOCKER_HOST", format!("unix://{socket}")).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
