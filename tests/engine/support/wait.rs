//! Waiting for what has no event that a test could wait on.

use std::time::{Duration, Instant};

/// Short, so that a test is as quick as what it waits for; long enough not to load the machine.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Ask until the answer is `Ok`, at most for `deadline`; then fail with what was waited for and the last `Err`.
#[track_caller]
pub(crate) fn eventually<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if started.elapsed() > deadline => {
                panic!("not within {deadline:?}: {what}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
