//! A command run in the replica: it passes if it exits with 0 in time.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::fault::quoted;
use super::{Course, Late};
use crate::core::release::ReplicaId;
use crate::core::sample::Measurement;
use crate::core::time::human;

/// Whoever can run commands in a replica.
#[async_trait]
pub trait CommandRunner: std::fmt::Debug + Send + Sync {
    /// Makes ready to run the command in the replica, without starting it. Gives a number to speak of it by.
    ///
    /// # Errors
    /// Why that is not possible, for people. None of these says anything about the service.
    async fn prepare(&self, replica: &ReplicaId, command: &[String]) -> Result<String, String>;

    /// Starts it, and waits until it ended. Giving up on it does not end it.
    ///
    /// # Errors
    /// As [`Self::prepare`]. A command that is not there, or cannot be started, is no error: it ends with 126 or 127.
    async fn run(&self, id: &str) -> Result<Ran, String>;

    /// Whether it still runs. One that nobody knows any more does not.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    async fn runs(&self, id: &str) -> Result<bool, String>;
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: i64,
    /// The end of what it wrote, bounded.
    pub output: String,
}

/// Runs one command in one replica, at most once at a time.
#[derive(Debug)]
pub(super) struct Command {
    runner: Arc<dyn CommandRunner>,
    replica: ReplicaId,
    words: Vec<String>,
    /// The one that was not waited for to its end. An engine cannot end it, so no other is started beside it:
    /// a command that hangs would fill the replica with processes.
    unfinished: Mutex<Option<String>>,
}

impl Command {
    pub(super) fn new(
        runner: Arc<dyn CommandRunner>,
        replica: Option<&ReplicaId>,
        words: &[String],
    ) -> Result<Self, String> {
        let replica = replica.ok_or("a command needs a replica to run in: dependencies are asked by URL")?;
        if words.first().is_none_or(String::is_empty) {
            return Err("the check has no command: write it like [\"pg_isready\", \"-q\"]".into());
        }
        Ok(Self { runner, replica: replica.clone(), words: words.to_vec(), unfinished: Mutex::default() })
    }

    pub(super) async fn make(&self, course: &Course) -> Measurement {
        self.ask(course).await.unwrap_or_else(|why| course.unable(&why))
    }

    async fn ask(&self, course: &Course) -> Result<Measurement, String> {
        course.late(Late::Ours(
            "the engine did not answer in time when it was asked to run the command".into(),
        ));
        let before = self.unfinished().clone();
        if let Some(id) = before {
            if self.runner.runs(&id).await? {
                let since = human(course.timeout);
                return Ok(
                    course.failed(&format!("the command of an earlier check, given {since}, still runs"))
                );
            }
            *self.unfinished() = None;
        }
        let id = self.runner.prepare(&self.replica, &self.words).await?;
        *self.unfinished() = Some(id.clone());
        course.late(Late::Theirs(Some("the command did not end".into())));
        let ran = self.runner.run(&id).await?;
        *self.unfinished() = None;
        if ran.code == 0 {
            return Ok(course.passed(course.after("exit code 0")));
        }
        let ended = course.after(&format!("exit code {}", ran.code));
        let last = ran.output.lines().rev().map(str::trim).find(|line| !line.is_empty());
        Ok(course.failed(&last.map_or(ended.clone(), |line| format!("{ended}: {}", quoted(line)))))
    }

    fn unfinished(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
