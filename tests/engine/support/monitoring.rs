//! A real Prometheus and a real Alertmanager, each with a directory and a port of its own, ended with the test.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::port::free_address;
use super::{eventually, http, seconds};

/// A program with a directory of its own, killed when the test is over.
#[derive(Debug)]
struct Server {
    name: &'static str,
    home: TempDir,
    address: String,
    process: Child,
}

impl Server {
    /// `arguments` are given the directory and the address.
    fn start(
        name: &'static str,
        files: &[(&str, String)],
        arguments: impl Fn(&Path, &str) -> Vec<String>,
    ) -> Self {
        let home = tempfile::Builder::new().prefix(&format!("backstop-{name}-")).tempdir().unwrap();
        for (file, text) in files {
            fs::write(home.path().join(file), text).unwrap();
        }
        let address = free_address();
        let log = File::create(home.path().join("log")).unwrap();
        let process = Command::new(name)
            .args(arguments(home.path(), &address))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start ({error}); get it with `tests/bed install`")
            });
        let server = Self { name, home, address, process };
        eventually(seconds(60), &format!("{name} is ready"), || {
            let answer = http::get(&server.address, "/-/ready").map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("---- log of {}\n{log}", self.name);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What is scraped, once a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    /// `host:port`.
    pub(crate) target: &'a str,
}

#[derive(Debug)]
pub(crate) struct Prometheus(Server);

impl Prometheus {
    /// `rules` is a rule file; what fires goes to `alertmanager`.
    pub(crate) fn start(jobs: &[Job<'_>], rules: &str, alertmanager: Option<&Alertmanager>) -> Self {
        let alertmanagers: Vec<_> = alertmanager
            .map(|one| format!("{{static_configs: [{{targets: ['{}']}}]}}", one.0.address))
            .into_iter()
            .collect();
        let jobs: Vec<_> = jobs
            .iter()
            .map(|job| {
                format!("{{job_name: '{}', static_configs: [{{targets: ['{}']}}]}}", job.name, job.target)
            })
            .collect();
        let configuration = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             alerting: {{alertmanagers: [{}]}}\n\
             scrape_configs: [{}]\n",
            alertmanagers.join(", "),
            jobs.join(", ")
        );
        let files = [("prometheus.yml", configuration), ("rules.yml", rules.to_owned())];
        Self(Server::start("prometheus", &files, |home, address| {
            vec![
                format!("--config.file={}/prometheus.yml", home.display()),
                format!("--storage.tsdb.path={}/data", home.display()),
                format!("--web.listen-address={address}"),
            ]
        }))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// The value of a query that gives one number.
    pub(crate) fn value(&self, query: &str) -> Result<f64, String> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer = http::get(&self.0.address, &path).map_err(|error| error.to_string())?;
        let answer = answer.json();
        let value: Option<f64> =
            answer["data"]["result"][0]["value"][1].as_str().and_then(|v| v.parse().ok());
        value.ok_or_else(|| format!("{query}: {answer}"))
    }

    /// Waits until the query gives `wanted`.
    #[track_caller]
    pub(crate) fn gives(&self, deadline: Duration, query: &str, wanted: f64) {
        eventually(deadline, &format!("{query} is {wanted}"), || {
            let value = self.value(query)?;
            if value == wanted { Ok(()) } else { Err(value.to_string()) }
        });
    }

    /// How the last scrape of a job went: empty if without an error.
    pub(crate) fn last_error(&self, job: &str) -> Result<String, String> {
        let answer = http::get(&self.0.address, "/api/v1/targets").map_err(|error| error.to_string())?.json();
        let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let target = targets.into_iter().find(|target| target["labels"]["job"] == job);
        let error = target.and_then(|target| target["lastError"].as_str().map(str::to_owned));
        error.ok_or_else(|| format!("no target of job {job}: {answer}"))
    }
}

#[derive(Debug)]
pub(crate) struct Alertmanager(Server);

impl Alertmanager {
    /// Sends every alert at once to the webhook at `url`, with a bearer `token`.
    pub(crate) fn start(url: &str, token: &str) -> Self {
        let configuration = format!(
            "route: {{receiver: backstop, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers:\n\
             - name: backstop\n\
             \x20 webhook_configs:\n\
             \x20 - url: '{url}'\n\
             \x20   http_config: {{authorization: {{credentials: '{token}'}}}}\n"
        );
        Self(Server::start("alertmanager", &[("alertmanager.yml", configuration)], |home, address| {
            vec![
                format!("--config.file={}/alertmanager.yml", home.display()),
                format!("--storage.path={}/data", home.display()),
                format!("--web.listen-address={address}"),
                "--cluster.listen-address=".to_owned(),
            ]
        }))
    }

    /// The alerts that it knows.
    pub(crate) fn alerts(&self) -> Result<Value, String> {
        let answer = http::get(&self.0.address, "/api/v2/alerts").map_err(|error| error.to_string())?;
        Ok(answer.json())
    }
}

/// Everything but letters and digits as `%XX`.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
