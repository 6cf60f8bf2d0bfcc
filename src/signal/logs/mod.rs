//! Logs as a source: error lines are counted, and requests where the log is an access log.
//!
//! | part | what it knows |
//! | --- | --- |
//! | [`frames`] | an engine's answer, as lines |
//! | `follow` | following one replica's log, through every loss of the connection, counting no line twice |
//! | `tally` | what is counted between two measurements: lines, requests, latencies, routes |
//! | [`errors`] | which line tells of an error |
//! | [`access`] | which line is a request: common and combined log format, JSON, logfmt |
//! | `fields` | names and units that loggers use in JSON and logfmt |
//! | `excerpt` | a line for people: short, without colours, without secrets |
//!
//! A log is written by strangers: the service, and through it whoever sends it requests. It must cost a bounded amount
//! of time and memory whatever it says, nothing in it may be able to imitate an error by being part of a request, and
//! no secret in it may leave this module.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Probe;
use crate::clock::Clock;
use crate::core::release::ReplicaId;
use crate::core::sample::{Measurement, Signal};
use crate::core::settings::{AccessLog, LatencyUnit, LogSource};

pub mod frames;
mod follow;
mod tally;
pub mod errors;
pub mod access;
mod fields;
mod excerpt;

use errors::ErrorPattern;
use follow::{Link, State};
use tally::Reader;

/// What is kept of a line, in bytes: as long as one message of the engine. Longer lines are dumps.
pub const LINE_MAX: usize = 16 * 1024;

/// How long a first measurement waits to hear whether the log can be followed. The engine answers within milliseconds.
const FIRST: Duration = Duration::from_secs(2);

/// Whoever can follow a replica's log.
#[async_trait]
pub trait LogStreams: fmt::Debug + Send + Sync {
    /// The lines of the log as they are written: from now on, or from `since` on (that moment included).
    ///
    /// # Errors
    /// Why it cannot be followed, now or ever.
    async fn follow(&self, replica: &ReplicaId, since: Option<EngineTime>) -> Result<Following, Unfollowed>;
}

/// A log that is being followed.
pub struct Following {
    /// When this began, by the engine's clock: where to go on if the connection breaks before there is any line.
    pub opened: Option<EngineTime>,
    /// The lines. It ends with the container or the connection; an `Err` says why it broke, and is the last.
    pub lines: BoxStream<'static, Result<LogLine, String>>,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, by the engine's clock.
    pub at: Option<EngineTime>,
    /// The line without its end, at most [`LINE_MAX`] bytes of it; what was no UTF-8 has been replaced.
    pub text: String,
    /// It was longer than that.
    pub cut: bool,
}

/// Why a log is not followed, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfollowed {
    /// It cannot be: a fact about the container, not a failure. With what to change.
    Never(String),
    /// Not at this time.
    NotNow(String),
}

/// A moment by the engine's clock, to the nanosecond, as the engine's API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineTime(u64);

impl EngineTime {
    /// The moment `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Reads `2006-01-02T15:04:05.999999999Z`.
    pub fn parse(text: &str) -> Option<Self> {
        // Cheaper than trying: most of what is not a time does not even begin like one.
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let at: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(at.as_nanosecond()).ok().map(Self)
    }

    /// How long before `later` this is; zero if it is not before it.
    fn behind(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for EngineTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Measures one replica's log. It follows it in a task of its own, which ends with the probe.
#[derive(Debug)]
pub struct LogProbe {
    shared: Arc<Shared>,
    /// Whether requests are counted.
    access: bool,
    /// Whether anything was heard yet.
    heard: watch::Receiver<bool>,
    clock: Clock,
    _following: Option<AbortOnDropHandle<()>>,
}

/// What the task and the probe both know.
#[derive(Debug)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogProbe {
    /// A probe for `replica`, which begins to follow its log at once: lines written before are not counted. Must be
    /// called on a tokio runtime.
    ///
    /// A pattern that is no regular expression makes all its measurements `Unavailable`.
    pub fn new(streams: Arc<dyn LogStreams>, replica: ReplicaId, source: &LogSource, clock: Clock) -> Self {
        let access = source.access != AccessLog::Off;
        let (tell, heard) = watch::channel(false);
        match Reader::new(source) {
            Ok(reader) => {
                let shared = Arc::new(Shared(Mutex::new(State::new(reader))));
                let task = follow::keep_following(Arc::clone(&shared), streams, replica, clock, tell);
                let following = Some(AbortOnDropHandle::new(tokio::spawn(task)));
                Self { shared, access, heard, clock, _following: following }
            }
            Err(why) => {
                let state = State::unusable(format!("lines cannot be told apart: {why}"));
                let shared = Arc::new(Shared(Mutex::new(state)));
                Self { shared, access, heard, clock, _following: None }
            }
        }
    }

    /// The same answer for all that is measured here.
    fn both(&self, answer: &Measurement) -> Vec<(Signal, Measurement)> {
        let mut all = vec![(Signal::Logs, answer.clone())];
        if self.access {
            all.push((Signal::Requests, answer.clone()));
        }
        all
    }
}

#[async_trait]
impl Probe for LogProbe {
    /// What came in since it was last asked; nothing at all if that was just now.
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        let mut heard = self.heard.clone();
        // An error: nobody will ever tell, because the pattern is of no use.
        let _ = tokio::time::timeout(FIRST, heard.wait_for(|heard| *heard)).await;
        let now = self.clock.now();
        let mut state = self.shared.lock();
        if let Some((window, tally)) = state.drain(now) {
            return tally.tell(window, self.access);
        }
        match state.link() {
            Link::Up => Vec::new(),
            Link::Down { why, .. } => self.both(&Measurement::Unavailable { why: why.clone() }),
            Link::Never { why } => self.both(&Measurement::NotApplicable { why: why.clone() }),
        }
    }
}

/// Everything that happens to a line, for fuzzing: reads `bytes` as if a service had written them. Gives what is found,
/// so that it cannot be left out.
pub fn examine(bytes: &[u8]) -> Vec<(Signal, Measurement)> {
    // Compiling the pattern takes longer than reading the lines.
    static SHIPPED: LazyLock<Option<ErrorPattern>> =
        LazyLock::new(|| ErrorPattern::new(&LogSource::default().error).ok());
    let Some(errors) = &*SHIPPED else { return Vec::new() };
    let mut reader = Reader::with(errors.clone(), AccessLog::Auto, LatencyUnit::Auto);
    for line in bytes.split(|b| *b == b'\n') {
        let (kept, cut) = line.get(..LINE_MAX).map_or((line, false), |kept| (kept, line.len() > LINE_MAX));
        reader.read(&String::from_utf8_lossy(kept), cut);
    }
    reader.drain().tell(Duration::from_secs(10), true)
}
