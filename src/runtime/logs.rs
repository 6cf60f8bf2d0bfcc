//! Follows the log of a container, or of a Swarm task on another node, through the engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use reqwest::Method;

use super::engine::Engine;
use super::swarm::places::{self, Places};
use super::{ErrorClass, RuntimeError};
use crate::core::release::ReplicaId;
use crate::signal::logs::frames::Decoder;
use crate::signal::logs::{EngineTime, Following, LogLine, LogStreams, Unfollowed};

/// What is made up for at most after the connection was lost: the engine then reads its file from the end, however
/// large the file is. Ten thousand lines are many minutes of most services, and a second's work.
const CATCH_UP_LINES: u32 = 10_000;
/// What is read for evidence is read within this; what came until then is evidence enough.
const TAIL: Duration = Duration::from_secs(5);

/// Follows the logs of one engine's containers.
#[derive(Debug)]
pub struct EngineLogs {
    engine: Arc<Engine>,
    places: Arc<Places>,
}

impl EngineLogs {
    /// Logs of the containers of `engine`, and of the tasks in `places`. Nothing is asked of it yet.
    pub const fn new(engine: Arc<Engine>, places: Arc<Places>) -> Self {
        Self { engine, places }
    }

    /// Where a replica's log is read, and whether it is plain bytes, and what keeps it.
    async fn source(&self, replica: &ReplicaId) -> Result<(String, bool, String), Unfollowed> {
        let id = match self.places.of(replica.as_str()) {
            // A manager passes the logs of all nodes on.
            places::Place::Elsewhere { tty, .. } => {
                return Ok((format!("/tasks/{replica}"), tty, "of its service".to_owned()));
            }
            places::Place::Container(id) => id,
        };
        let path = format!("/containers/{id}");
        let inspect = self.engine.json(&format!("{path}/json")).await.map_err(sorted)?;
        let driver = inspect["HostConfig"]["LogConfig"]["Type"].as_str().unwrap_or_default();
        // Engines differ in what they answer for it, and some would log an error of their own each time.
        if driver == "none" {
            return Err(Unfollowed::Never(unreadable(driver)));
        }
        Ok((path, inspect["Config"]["Tty"].as_bool().unwrap_or_default(), driver.to_owned()))
    }
}

/// The last lines of a log, as far as it can be read soon. `path` is that of a container or a task.
pub(crate) async fn tail(engine: &Engine, path: &str, tty: bool, lines: u32) -> Vec<String> {
    let path = format!("{path}/logs?stdout=1&stderr=1&timestamps=1&tail={lines}");
    let Ok(mut answer) = engine.open(Method::GET, &path, None).await else { return Vec::new() };
    let (mut decoder, mut ready) = (Decoder::new(tty), VecDeque::new());
    let read = async {
        while let Ok(Some(bytes)) = answer.chunk().await {
            decoder.feed(&bytes, &mut ready);
            if ready.len() >= lines as usize {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(TAIL, read).await;
    decoder.finish(&mut ready);
    ready.into_iter().flatten().map(|line| line.text).collect()
}

#[async_trait]
impl LogStreams for EngineLogs {
    async fn follow(&self, replica: &ReplicaId, since: Option<EngineTime>) -> Result<Following, Unfollowed> {
        let (path, tty, driver) = self.source(replica).await?;
        let from = match since {
            None => "tail=0".to_owned(),
            Some(at) => format!("since={at}&tail={CATCH_UP_LINES}"),
        };
        let path = format!("{path}/logs?follow=1&stdout=1&stderr=1&timestamps=1&{from}");
        let answer = match self.engine.open(Method::GET, &path, None).await {
            Err(e) if is_unreadable(&e) => return Err(Unfollowed::Never(unreadable(&driver))),
            answer => answer.map_err(sorted)?,
        };
        let opened = answer.headers().get("date").and_then(|date| date.to_str().ok()).and_then(date);
        Ok(Following { opened, lines: lines(answer, Decoder::new(tty)) })
    }
}

/// Whether the engine says that it will never hand this log out. The code is younger than the text.
fn is_unreadable(error: &RuntimeError) -> bool {
    error.class == ErrorClass::Permanent
        && (error.message.contains("does not support reading") || error.message.ends_with("(501)"))
}

fn unreadable(driver: &str) -> String {
    format!(
        "its log driver `{driver}` keeps nothing that could be read: start it with `--log-driver local` (Compose: \
         `logging: {{driver: local}}`), or switch its logs off in the configuration"
    )
}

fn sorted(error: RuntimeError) -> Unfollowed {
    let hint = if error.message.ends_with("(403)") {
        "; the socket proxy must allow GET /containers/ID/json and GET /containers/ID/logs"
    } else {
        ""
    };
    Unfollowed::NotNow(format!("its log cannot be followed: {error}{hint}"))
}

/// The engine's clock when it answered, to the second: `Mon, 02 Jan 2006 15:04:05 GMT`.
fn date(header: &str) -> Option<EngineTime> {
    let at = jiff::fmt::rfc2822::parse(header).ok()?.timestamp();
    u64::try_from(at.as_nanosecond()).ok().map(EngineTime::from_nanos)
}

/// The lines of an answer as they come; ends with it.
fn lines(answer: reqwest::Response, decoder: Decoder) -> BoxStream<'static, Result<LogLine, String>> {
    struct Reading {
        /// None after its end.
        answer: Option<reqwest::Response>,
        decoder: Decoder,
        ready: VecDeque<Result<LogLine, String>>,
    }
    let reading = Reading { answer: Some(answer), decoder, ready: VecDeque::new() };
    unfold(reading, async |mut reading| {
        loop {
            if let Some(line) = reading.ready.pop_front() {
                return Some((line, reading));
            }
            match reading.answer.as_mut()?.chunk().await {
                Ok(Some(bytes)) => reading.decoder.feed(&bytes, &mut reading.ready),
                Ok(None) => {
                    reading.answer = None;
                    reading.decoder.finish(&mut reading.ready);
                }
                Err(e) => {
                    reading.answer = None;
                    reading.decoder.finish(&mut reading.ready);
                    reading.ready.push_back(Err(format!("the engine broke its log off: {e}")));
                }
            }
        }
    })
    .boxed()
}
