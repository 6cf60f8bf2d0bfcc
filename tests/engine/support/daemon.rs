//! Backstop itself, as a program: started, killed, stopped and asked.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Answer};
use super::port::free_address;
use super::{Bed, eventually, handed_over, seconds};

/// Settings that let a test see in seconds what takes minutes in production; a test's own come after them.
const QUICK: &str = r#"
[log]
level = "debug"
[fleet]
engine_settle = "2s"
one_at_a_time = "0s"
breaker_rollbacks = 1000
[defaults]
trial = "5s"
grace = "1s"
verify = "2s"
verify_timeout = "150s"
cooldown = "0s"
attempts = 100
memory_interval = "1s"
stop_grace = "1s"
[defaults.rules.health]
sustained = "0s"
[defaults.rules.down]
sustained = "2s"
[defaults.rules.memory]
sustained = "2s"
min_samples = 3
"#;

/// A daemon with a directory and a port of its own, watching one bed. It dies with the test.
#[derive(Debug)]
pub(crate) struct Daemon {
    home: TempDir,
    address: String,
    environment: Vec<(String, String)>,
    process: Child,
}

impl Daemon {
    /// What operators show it.
    pub(crate) const TOKEN: &str = "a-token-of-the-tests";

    /// Watches `bed` and is ready; `webhook` is where it announces, `more` is added to its configuration.
    #[track_caller]
    pub(crate) fn start(bed: &Bed, webhook: Option<&str>, more: &str) -> Self {
        let daemon = Self::start_unready(bed.socket(), webhook, more);
        daemon.ready(seconds(60));
        daemon
    }

    /// The same without waiting: for an engine that is not there.
    pub(crate) fn start_unready(socket: &str, webhook: Option<&str>, more: &str) -> Self {
        let home = tempfile::Builder::new().prefix("backstop-test-").tempdir().unwrap();
        let address = free_address();
        fs::write(home.path().join("token"), Self::TOKEN).unwrap();
        fs::set_permissions(home.path().join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        let configuration = configuration(&home, &address, socket, webhook);
        fs::write(home.path().join("backstop.toml"), configuration).unwrap();
        // A layer of its own, so that it may say again what is said above.
        fs::create_dir(home.path().join("conf.d")).unwrap();
        fs::write(home.path().join("conf.d/test.toml"), more).unwrap();
        let process = spawn(&home, &[]);
        Self { home, address, environment: Vec::new(), process }
    }

    #[track_caller]
    pub(crate) fn ready(&self, deadline: Duration) {
        eventually(deadline, "the daemon is ready", || {
            let answer = self.get("/readyz")?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, String> {
        http::get(&self.address, path).map_err(|error| error.to_string())
    }

    /// The JSON at `path`, which has to be there.
    pub(crate) fn api(&self, path: &str) -> Result<Value, String> {
        let answer = self.get(path)?;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(format!("{}: {}", answer.status, answer.body))
        }
    }

    pub(crate) fn service(&self, name: &str) -> Result<Value, String> {
        self.api(&format!("/api/v1/services/{}", name.replace('/', "%2F")))
    }

    /// A row of the service's matrix.
    pub(crate) fn row(&self, service: &str, rule: &str) -> Result<Value, String> {
        let service = self.service(service)?;
        let rows = service["rows"].as_array().cloned().unwrap_or_default();
        rows.into_iter()
            .find(|row| row["rule"] == rule)
            .ok_or_else(|| format!("no row {rule}: {}", service["rows"]))
    }

    /// `host:port` of its API.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the service is in one of `states`.
    #[track_caller]
    pub(crate) fn in_state(&self, deadline: Duration, name: &str, states: &[&str]) -> Value {
        eventually(deadline, &format!("{name} is {}", states.join(" or ")), || {
            let service = self.service(name)?;
            let fits = states.iter().any(|state| service["state"] == *state);
            if fits { Ok(service) } else { Err(format!("{}: {}", service["state"], service["sentence"])) }
        })
    }

    /// Waits until the release that runs has proved itself, so that there is something to go back to.
    #[track_caller]
    pub(crate) fn proved(&self, name: &str) -> Value {
        self.in_state(seconds(120), name, &["steady"])
    }

    /// The same of a release that is not the first: until it is seen, the one before it is steady.
    #[track_caller]
    pub(crate) fn proved_as(&self, name: &str, reference: &str) {
        eventually(seconds(120), &format!("{reference} has proved itself as {name}"), || {
            let service = self.service(name)?;
            let is = service["current"]["reference"] == reference && service["state"] == "steady";
            if is { Ok(()) } else { Err(format!("{}: {}", service["state"], service["sentence"])) }
        });
    }

    /// An operator's action.
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Answer, String> {
        let headers =
            [("Authorization", &*format!("Bearer {}", Self::TOKEN)), ("Content-Type", "application/json")];
        http::tcp(&self.address, "POST", path, &headers, body).map_err(|error| error.to_string())
    }

    /// What somebody without the token gets.
    pub(crate) fn post_without_token(&self, path: &str, body: &str) -> Result<Answer, String> {
        let headers = [("Content-Type", "application/json")];
        http::tcp(&self.address, "POST", path, &headers, body).map_err(|error| error.to_string())
    }

    /// A subcommand of the command line, talking to this daemon.
    pub(crate) fn command(&self, words: &[&str]) -> (Option<i32>, String) {
        self.command_as(Self::TOKEN, words)
    }

    /// The same by somebody who has a token of their own.
    pub(crate) fn command_as(&self, token: &str, words: &[&str]) -> (Option<i32>, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), token).unwrap();
        let output = Command::new(handed_over("BACKSTOP_BIN"))
            .args(words)
            .env("BACKSTOP_ENDPOINT", format!("http://{}", self.address))
            .env("BACKSTOP_TOKEN_FILE", file.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same by somebody at a terminal, who types `answer` when asked.
    pub(crate) fn command_typed(&self, token: &str, words: &[&str], answer: &str) -> (Option<i32>, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), token).unwrap();
        let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let command = format!("'{}' {quoted}", handed_over("BACKSTOP_BIN"));
        let mut typing = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("BACKSTOP_ENDPOINT", format!("http://{}", self.address))
            .env("BACKSTOP_TOKEN_FILE", file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its end is the end of what is typed: it stays open until the command has ended.
        let mut keyboard = typing.stdin.take().unwrap();
        writeln!(keyboard, "{answer}").unwrap();
        let output = typing.wait_with_output().unwrap();
        drop(keyboard);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGKILL: nothing is written, closed or finished.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM, and the end that follows.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.ended(seconds(90))
    }

    /// Waits for an end that it comes to by itself.
    #[track_caller]
    pub(crate) fn ended(&mut self, deadline: Duration) -> ExitStatus {
        eventually(deadline, "the daemon ends", || {
            self.process.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        })
    }

    /// An environment variable for the next start; an empty value takes it away.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Start it again on the same state, after `kill`, `terminate` or an end of its own.
    pub(crate) fn again(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(&self.home, &self.environment);
    }

    /// Has it read its configuration again, and waits until that is in force.
    #[track_caller]
    pub(crate) fn reload(&self) {
        let loaded = || self.api("/api/v1/status").map(|status| status["config"].clone());
        let before = loaded().unwrap()["loaded_at"].clone();
        let hup = Command::new("kill").args(["-HUP", &self.process.id().to_string()]).status().unwrap();
        assert!(hup.success());
        eventually(seconds(60), "the configuration is loaded again", || {
            let now = loaded()?;
            let good = now["last_reload_ok"] == true && now["loaded_at"] != before;
            if good { Ok(()) } else { Err(now.to_string()) }
        });
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// What it was configured by.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.home.path().join("backstop.toml")
    }

    /// Its state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.get("/api/v1/status").map_or_else(|e| e, |answer| answer.body);
            eprintln!("---- status\n{status}\n---- log of the daemon\n{}", self.log());
            let all = self.api("/api/v1/services").unwrap_or_default();
            for name in
                all["services"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str())
            {
                eprintln!("---- {name}: {:#}", self.service(name).unwrap_or_default());
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(home: &TempDir, address: &str, socket: &str, webhook: Option<&str>) -> String {
    let home = home.path().display();
    let hook = webhook.map(|url| format!("[notify.webhook]\nurl = \"{url}\"\n")).unwrap_or_default();
    format!(
        "state_dir = \"{home}/state\"\n\
         [engine]\nhost = \"unix://{socket}\"\nlook_interval = \"2s\"\n\
         [api]\nlisten = \"{address}\"\ntoken_file = \"{home}/token\"\n\
         {hook}{QUICK}"
    )
}

fn spawn(home: &TempDir, environment: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(home.path().join("log")).unwrap();
    Command::new(handed_over("BACKSTOP_BIN"))
        .args(["run", "--config"])
        .arg(home.path().join("backstop.toml"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env_remove("DOCKER_HOST")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
