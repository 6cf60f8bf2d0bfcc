//! The demo's own daemon: the real one, in this process, with a directory, a port and a log of its own, and with times
//! for a person who watches. It is configured to know one service by name, and so touches no other container.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::shop::{APP_PORT, NAME};
use crate::api::views::StatusView;
use crate::cli::client::Client;
use crate::config::Sources;

/// Ports that are tried from the wanted one on; a host where all are taken has another problem.
const PORTS: u16 = 200;
/// Directories that are tried: an older one is only there if a process with the same number was killed.
const DIRECTORIES: u32 = 100;
/// Opening a new database and looking at the engine once take below a second.
const READY: Duration = Duration::from_secs(30);
/// Longer than the daemon's own limits for its orderly end.
const END: Duration = Duration::from_secs(60);
/// Between two looks at whether it is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// A daemon in this process.
pub(super) struct Daemon {
    home: PathBuf,
    url: String,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("home", &self.home).field("url", &self.url).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Starts it; `engine` is where the engine listens, `port` where the daemon is to.
    pub(super) fn start(engine: &str, port: u16) -> anyhow::Result<Self> {
        let home = directory()?;
        let file = home.join("backstop.toml");
        std::fs::write(&file, configuration(&home, engine, port)).context("the configuration")?;
        // Nothing of a configuration that this host has for a Backstop of its own.
        let sources = Sources { file: Some(file), ..Sources::default() };
        let settings = crate::config::load(&sources).map_err(|problems| crate::cli::run::wrong(&problems))?;
        crate::telemetry::init_file(File::create(home.join("log"))?, "info,backstop=debug")?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(crate::app::run(sources, settings, None, stop.clone()));
        Ok(Self { home, url: format!("http://127.0.0.1:{port}"), stop, task })
    }

    /// Where it is asked.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Its configuration.
    pub(super) fn configuration(&self) -> PathBuf {
        self.home.join("backstop.toml")
    }

    /// Waits until it has looked at the engine.
    pub(super) async fn ready(&mut self, client: &Client) -> anyhow::Result<()> {
        let asking = async {
            loop {
                let status = client.get::<StatusView>(&["api", "v1", "status"], &[]).await;
                if status.is_ok_and(|answer| answer.view.ready) {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            // First: were the port taken by then, another daemon would answer for ours.
            biased;
            why = ended(&mut self.task) => Err(why),
            waited = tokio::time::timeout(READY, asking) => waited.context("the daemon does not get ready"),
        }
    }

    /// Waits for an end that nobody asked for, and says why it came.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        ended(&mut self.task).await
    }

    /// Stops it in order. Its directory goes, too, unless the log is still to be read.
    pub(super) async fn stop(mut self, keep_log: bool) -> anyhow::Result<()> {
        self.stop.cancel();
        let stopped = match self.task.is_finished() {
            true => Ok(()),
            false => tokio::time::timeout(END, &mut self.task).await.map(drop),
        };
        if !keep_log {
            std::fs::remove_dir_all(&self.home)
                .with_context(|| format!("{} could not be removed", self.home.display()))?;
        }
        stopped.context("the daemon did not stop in time")
    }
}

async fn ended(task: &mut JoinHandle<anyhow::Result<()>>) -> anyhow::Error {
    match task.await {
        Ok(Ok(())) => anyhow::anyhow!("the daemon ended by itself"),
        Ok(Err(error)) => error.context("the daemon ended"),
        Err(error) => anyhow::Error::new(error).context("the daemon ended"),
    }
}

/// A port of this host that nobody listens on, the wanted one if possible.
pub(super) fn free_port(wanted: u16) -> anyhow::Result<u16> {
    let mut ports = wanted..wanted.saturating_add(PORTS);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.with_context(|| format!("no port from {wanted} on is free on 127.0.0.1"))
}

/// A directory that only we can read.
fn directory() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir();
    for number in 0..DIRECTORIES {
        let path = base.join(format!("backstop-demo-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{} cannot be made", path.display())),
        }
    }
    bail!("no directory could be made in {}", base.display())
}

/// Production times are minutes; here a person watches.
fn configuration(home: &Path, engine: &str, port: u16) -> String {
    let state = home.join("state");
    format!(
        r#"# The demo's Backstop. It watches this one service and no other container of the host.
environment = "demo"
enroll = "named"
state_dir = {state:?}
[engine]
host = {engine:?}
[api]
listen = "127.0.0.1:{port}"
[fleet]
engine_settle = "0s"
[services.{NAME}]
trial = "5s"
grace = "1s"
verify = "4s"
health = {{ port = {APP_PORT}, path = "/healthz", interval = "1s", timeout = "1s" }}
[services.{NAME}.rules.health]
sustained = "1s"
"#
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::release::ServiceName;

    #[test]
    fn the_configuration_holds_and_names_one_service_only() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("backstop.toml");
        std::fs::write(&file, configuration(home.path(), "unix:///var/run/docker.sock", 9797)).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let settings = crate::config::load(&sources).unwrap();
        let asks = BTreeMap::from([("backstop.enable".to_owned(), "true".to_owned())]);
        let refuses = BTreeMap::from([("backstop.enable".to_owned(), "false".to_owned())]);
        assert!(settings.enrolled(&ServiceName::new(NAME), &refuses));
        assert!(!settings.enrolled(&ServiceName::new("web"), &asks), "a neighbour is never touched");
        assert_eq!(
            settings.service(&ServiceName::new(NAME), &refuses).unwrap().trial,
            Duration::from_secs(5)
        );
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().min(u16::MAX - 1);
        assert!(free_port(port).unwrap() > port);
    }
}
