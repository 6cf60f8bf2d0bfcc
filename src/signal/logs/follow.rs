//! Following one replica's log for as long as somebody listens.
//!
//! Where it goes on after a lost connection is a moment by the engine's clock, never by ours: that of the last line, of
//! which so many lines are known. A line is thus counted once, whatever breaks, except the first ones of a gap that is
//! longer than what the engine is asked for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use super::tally::{Drained, Reader};
use super::{EngineTime, Following, LogLine, LogStreams, Shared, Unfollowed};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::release::ReplicaId;

/// The first pause before the connection is tried again; it doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// A container that comes back is read at most so much later; nothing of it is lost by that.
const PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// A connection that held so long was none of a series of failures.
const STEADY: Duration = Duration::from_secs(30);
/// No engine takes longer to begin an answer.
const OPEN_LONGEST: Duration = Duration::from_secs(40);
/// Shorter windows make no rate.
const WINDOW_SHORTEST: Duration = Duration::from_secs(1);
/// Lines of both streams may come out of order by some milliseconds. Beyond this the engine's clock was put back.
const PUT_BACK: Duration = Duration::from_secs(60);

/// Whether the log is being followed.
#[derive(Debug)]
pub(super) enum Link {
    /// It is.
    Up,
    /// Not now, and since when all of it was last known, if ever.
    Down { why: String, known_until: Option<Timestamp> },
    /// It cannot be.
    Never { why: String },
}

/// What is known of the log.
#[derive(Debug)]
pub(super) struct State {
    link: Link,
    /// The beginning of what is counted: the last measurement, or the first connection.
    from: Option<Timestamp>,
    reader: Option<Reader>,
}

impl State {
    pub(super) fn new(reader: Reader) -> Self {
        let why = "its log is not followed yet: the engine has not answered".into();
        Self { link: Link::Down { why, known_until: None }, from: None, reader: Some(reader) }
    }

    /// Lines cannot be read, so none will be.
    pub(super) fn unusable(why: String) -> Self {
        Self { link: Link::Down { why, known_until: None }, from: None, reader: None }
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    /// What was counted until `now`, or until the connection was lost; none if that is too short to tell.
    pub(super) fn drain(&mut self, now: Timestamp) -> Option<(Duration, Drained)> {
        let until = match &self.link {
            Link::Up => now,
            Link::Down { known_until, .. } => (*known_until)?,
            Link::Never { .. } => return None,
        };
        let window = until.since(self.from?);
        if window < WINDOW_SHORTEST {
            return None;
        }
        self.from = Some(until);
        Some((window, self.reader.as_mut()?.drain()))
    }

    /// The log is followed from now on, `anew` if what was written meanwhile is not known.
    fn up(&mut self, now: Timestamp, anew: bool) {
        self.link = Link::Up;
        if anew {
            self.from = Some(now);
            if let Some(reader) = &mut self.reader {
                // What was counted belongs to a window whose end nobody knows.
                let _ = reader.drain();
            }
        }
    }

    fn down(&mut self, now: Timestamp, why: String) {
        let known_until = match &self.link {
            Link::Up => Some(now),
            Link::Down { known_until, .. } => *known_until,
            Link::Never { .. } => None,
        };
        self.link = Link::Down { why, known_until };
    }
}

/// Where to go on: after the first `seen` lines of the moment `at`.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    at: Option<EngineTime>,
    seen: usize,
    /// The engine's clock was put back to before `at`.
    put_back: bool,
}

impl Place {
    /// Where to go on now. After the clock was put back there is no such place: asking from the later moment on would
    /// hide all lines until it is reached again, asking from the earlier one on would count lines twice.
    fn resume(&mut self) -> Option<EngineTime> {
        if self.put_back {
            *self = Self::default();
        }
        self.at
    }

    fn passed(&mut self, at: EngineTime) {
        match self.at {
            Some(last) if last == at => self.seen += 1,
            // A little late, from the other stream: the engine hands out from `last` on, so it will not come again.
            Some(last) if at < last => self.put_back |= at.behind(last) >= PUT_BACK,
            _ => *self = Self { at: Some(at), seen: 1, put_back: false },
        }
    }
}

/// Follows the log until the task is dropped, or the log turns out to be none that can be followed.
pub(super) async fn keep_following(
    shared: Arc<Shared>,
    streams: Arc<dyn LogStreams>,
    replica: ReplicaId,
    clock: Clock,
    heard: watch::Sender<bool>,
) {
    let mut place = Place::default();
    let mut failures = 0;
    loop {
        let since = place.resume();
        let opening = tokio::time::timeout(OPEN_LONGEST, streams.follow(&replica, since));
        let why = match opening.await {
            Ok(Ok(following)) => {
                let began = clock.now();
                shared.lock().up(began, since.is_none());
                heard.send_replace(true);
                let why = read(&shared, following, &mut place).await;
                if clock.now().since(began) >= STEADY {
                    failures = 0;
                }
                why
            }
            Ok(Err(Unfollowed::NotNow(why))) => why,
            Ok(Err(Unfollowed::Never(why))) => {
                shared.lock().link = Link::Never { why };
                heard.send_replace(true);
                return;
            }
            Err(_) => {
                format!(
                    "its log is not followed: the engine did not answer within {}s",
                    OPEN_LONGEST.as_secs()
                )
            }
        };
        shared.lock().down(clock.now(), why);
        heard.send_replace(true);
        tokio::time::sleep(pause(failures, &replica)).await;
        failures += 1;
    }
}

/// Reads lines until there are no more, and says why.
async fn read(shared: &Shared, mut following: Following, place: &mut Place) -> String {
    if place.at.is_none() {
        place.at = following.opened;
    }
    let known = *place;
    let mut again = known.seen;
    while let Some(line) = following.lines.next().await {
        let LogLine { at, text, cut } = match line {
            Ok(line) => line,
            Err(why) => return format!("its log is not followed: {why}"),
        };
        // Of the moment that we go on from, the engine hands out all lines again.
        if again > 0 && at.is_some() && at == known.at {
            again -= 1;
        } else {
            if let Some(at) = at {
                place.passed(at);
            }
            if let Some(reader) = &mut shared.lock().reader {
                reader.read(&text, cut);
            }
        }
        // A flood of lines is no reason to let nobody else run.
        tokio::task::coop::consume_budget().await;
    }
    "its log ended: the container stopped, or the engine is going down".into()
}

/// How long to wait after so many failures in a row: longer each time, and not the same for everybody, because a
/// restarted engine is asked by all at once.
fn pause(failures: u32, replica: &ReplicaId) -> Duration {
    let mut hasher = DefaultHasher::new();
    replica.as_str().hash(&mut hasher);
    let share = 0.75 + (hasher.finish() % 1000) as f64 / 2000.0;
    PAUSE_FIRST.saturating_mul(1 << failures.min(8)).min(PAUSE_LONGEST).mul_f64(share)
}
