//! A real PostgreSQL with a directory and a port of its own, ended with the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::port::free_address;
use super::{eventually, seconds};

/// PostgreSQL does not run as root: these are nobody's.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

#[derive(Debug)]
pub(crate) struct Postgres {
    home: TempDir,
    address: String,
    process: Child,
}

impl Postgres {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let home = tempfile::Builder::new().prefix("backstop-postgres-").tempdir().unwrap();
        assert!(Command::new("chown").arg("65534:65534").arg(home.path()).status().unwrap().success());
        let data = home.path().join("data").display().to_string();
        let made = as_nobody("initdb")
            .args(["-D", &data, "-U", "shop", "-A", "trust", "--locale=C", "-E", "UTF8", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let address = free_address();
        let (host, port) = address.split_once(':').unwrap();
        let log = File::create(home.path().join("log")).unwrap();
        let process = as_nobody("postgres")
            .args(["-D", &data, "-p", port, "-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", &format!("listen_addresses={host}")])
            .current_dir(home.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { home, address, process };
        eventually(seconds(60), "PostgreSQL answers", || server.try_sql("SELECT 1").map(drop));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://shop@{}/postgres", self.address)
    }

    /// The file that holds its URL.
    pub(crate) fn url_file(&self) -> PathBuf {
        let file = self.home.path().join("url");
        fs::write(&file, self.url() + "\n").unwrap();
        file
    }

    /// Runs SQL as `psql` does; gives what it answers, without headings.
    #[track_caller]
    pub(crate) fn sql(&self, text: &str) -> String {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub(crate) fn try_sql(&self, text: &str) -> Result<String, String> {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", &self.url(), "-c", text])
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(program).stdin(Stdio::null());
    command
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("---- log of PostgreSQL\n{log}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
