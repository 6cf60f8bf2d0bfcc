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

#[cfg(test)]
mod tests {
    use super::*;

    /// Paused and moved by hand, monotonic time runs away from the wall clock, which is what a wall clock that is set
    /// back looks like from inside; and it stands still while the wall clock goes on.
    #[tokio::test(start_paused = true)]
    async fn it_goes_by_monotonic_time_whatever_the_wall_clock_does() {
        let clock = Clock::start();
        let begun = clock.now();
        let watch = clock.stopwatch();
        tokio::time::advance(Duration::from_secs(7 * 24 * 3600)).await;
        assert_eq!(clock.now().since(begun), Duration::from_secs(7 * 24 * 3600));
        assert_eq!(watch.elapsed(), Duration::from_secs(7 * 24 * 3600));
        let stood = clock.now();
        let wall = Duration::from_millis(3);
        tokio::task::spawn_blocking(move || std::thread::sleep(wall)).await.ok();
        assert!(clock.now().since(stood) < Duration::from_millis(1), "it looked at the wall clock");
    }
}
