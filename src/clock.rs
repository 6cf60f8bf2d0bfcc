//! The only reader of time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

// The same clock as the standard one's, except that a test may pause it.
use tokio::time::Instant;

use crate::core::Timestamp;

/// Tells the time: one reading of the wall clock at start, then monotonic time on top of it, so that a
/// corrected wall clock cannot make a deployment look older or younger than it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall_at_start: u64,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock, once.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_at_start: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), start: Instant::now() }
    }

    /// Starts measuring how long something takes, finer than a [`Timestamp`].
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_at_start) + self.start.elapsed()
    }
}

/// Measures how long something takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
