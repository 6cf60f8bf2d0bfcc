//! Waiting for what has no event that a test could wait on.

use std::time::{Duration, Instant};

/// Short, so that a test is as quick as what it waits for; long enough not to load the machine.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// So many times is asked at least, as far as the deadline has room for them: where the machine stalls, a single ask can
/// take all of the time that there is, and says nothing about what comes next.
const ENOUGH: u128 = 100;
/// So many times the deadline is the end of it all the same.
const STALLED: u32 = 10;

/// Ask until the answer is `Ok`, at most for `deadline`; then fail with what was waited for and the last `Err`.
#[track_caller]
pub(crate) fn eventually<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    let enough = (deadline.as_millis() / PAUSE.as_millis()).min(ENOUGH);
    let mut asked = 0;
    let is_over =
        |asked| started.elapsed() > deadline && (asked >= enough || started.elapsed() > deadline * STALLED);
    loop {
        asked += 1;
        match ask() {
            Ok(answer) => return answer,
            Err(last) if is_over(asked) => {
                panic!("not within {deadline:?}: {what}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
