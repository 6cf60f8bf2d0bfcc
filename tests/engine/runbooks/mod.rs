//! The five runbooks that are the specification, each played step by step on a real engine: what a person did by hand there
//! is done here by Backstop. Their words stand where what they ask for is checked.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Bed, Daemon, eventually, http, seconds};

mod actions;
mod emergency;
mod matrix;
mod production;
mod tags;

/// Says which step is played: the output of a test that failed ends with it.
fn step(words: &str) {
    eprintln!("-- {words}");
}

/// A Compose project in a folder of its own, called with the files that its runbook names.
struct Project<'a> {
    bed: &'a Bed,
    name: &'static str,
    folder: TempDir,
    options: &'static [&'static str],
}

impl<'a> Project<'a> {
    fn new(
        bed: &'a Bed,
        name: &'static str,
        options: &'static [&'static str],
        files: &[(&str, &str)],
    ) -> Self {
        let project = Self { bed, name, folder: tempfile::tempdir().unwrap(), options };
        for (file, text) in files {
            fs::write(project.path(file), text).unwrap();
        }
        project
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// Changes a line of a file, as its runbook does in an editor.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{file}: {text}");
        fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    /// Runs `docker compose`, as a person does in the project's folder.
    #[track_caller]
    fn compose(&self, words: &[&str]) -> String {
        let words = [self.options, words].concat();
        self.bed.compose("docker-compose", self.name, self.folder.path(), &words)
    }
}

/// The lines of a service in a Compose file that make Backstop watch it, with whatever else it has.
fn watched(service: &str, image: &str, more: &str) -> String {
    format!(
        "  {service}:\n    image: {image}\n    restart: unless-stopped\n{more}    labels:\n      backstop.enable: 'true'\n      \
         backstop.health.path: /healthz\n      backstop.health.port: '8080'\n      backstop.health.interval: 500ms\n      \
         backstop.health.timeout: 500ms\n"
    )
}

/// What the incident report says, as Markdown, when every one of these boxes is ticked, each with its proof: that a message
/// has arrived is known here a moment later than there.
#[track_caller]
fn report(daemon: &Daemon, record: &Value, boxes: &[&str]) -> String {
    let id = record["id"].as_str().unwrap();
    eventually(seconds(60), "every box is ticked", || {
        let (code, said) = daemon.command(&["incident", id, "--format", "markdown"]);
        assert_eq!(code, Some(0), "{said}");
        let is_ticked = |wanted: &&&str| {
            let line = said.lines().find(|line| line.contains(**wanted));
            line.is_some_and(|line| line.starts_with("- [x] ") && line.contains(": "))
        };
        match boxes.iter().find(|wanted| !is_ticked(wanted)) {
            Some(open) => Err(format!("no ticked box `{open}` in:\n{said}")),
            None => Ok(said),
        }
    })
}

/// Every one of these boxes is left to a person: it has an owner.
#[track_caller]
fn reminders(report: &str, boxes: &[(&str, &str)]) {
    for (wanted, owner) in boxes {
        let line = report.lines().find(|line| line.contains(wanted));
        let line = line.unwrap_or_else(|| panic!("no box `{wanted}` in:\n{report}"));
        assert!(line.starts_with("- [ ] ") && line.contains(&format!("({owner})")), "{line}");
    }
}

/// What a container answers.
#[track_caller]
fn answer(bed: &Bed, container: &str, path: &str, status: u16) -> String {
    eventually(seconds(60), &format!("{container} answers {status} to {path}"), || {
        let answer = http::get(&bed.address(container)?, path).map_err(|error| error.to_string())?;
        if answer.status == status { Ok(answer.body) } else { Err(answer.body) }
    })
}

/// A row has measured what runs, and finds nothing.
#[track_caller]
fn measured(daemon: &Daemon, service: &str, row: &str) {
    eventually(seconds(60), &format!("{row} of {service} is measured"), || {
        let row = daemon.row(service, row)?;
        if row["answer"] == "ok" { Ok(()) } else { Err(format!("{row:#}")) }
    });
}

/// A rollback is on record with its duration, within what the runbooks allow.
#[track_caller]
fn within_minutes(record: &Value, minutes: f64) {
    let took = record["duration_seconds"].as_f64().unwrap_or_else(|| panic!("{record:#}"));
    assert!(took <= minutes * 60.0, "it took {took} s");
}
