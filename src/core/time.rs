//! The core's notion of time: a plain number that somebody hands in.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch.
///
/// `clock.rs` makes these from one wall-clock reading at start plus monotonic time, so within one process
/// they never go back, and across a restart they can still be compared with what was persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any moment.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The moment `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` before this one, not before the epoch.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as people write it: `45s`, `5m 30s`, `1h`; below ten seconds with a tenth, `1.4s`.
pub fn human(span: Duration) -> impl fmt::Display {
    struct Human(Duration);
    impl fmt::Display for Human {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let secs = self.0.as_secs();
            let tenths = self.0.subsec_millis() / 100;
            if secs == 0 && self.0.subsec_millis() > 0 {
                return write!(f, "{}ms", self.0.subsec_millis());
            }
            if secs < 10 && tenths > 0 {
                return write!(f, "{secs}.{tenths}s");
            }
            let parts =
                [(secs / 86_400, "d"), (secs / 3600 % 24, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")];
            // Two units say enough: nobody reads the seconds of a day.
            let mut shown =
                parts.iter().skip_while(|(n, _)| *n == 0).take(2).filter(|(n, _)| *n > 0).peekable();
            if shown.peek().is_none() {
                return f.write_str("0s");
            }
            for (i, (n, unit)) in shown.enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{n}{unit}")?;
            }
            Ok(())
        }
    }
    Human(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let shown = |ms| human(Duration::from_millis(ms)).to_string();
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(340), "340ms");
        assert_eq!(shown(1_400), "1.4s");
        assert_eq!(shown(45_000), "45s");
        assert_eq!(shown(330_000), "5m 30s");
        assert_eq!(shown(3_600_000), "1h");
        assert_eq!(shown(90_061_000), "1d 1h");
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let t = Timestamp::from_secs(1);
        assert_eq!(t.since(Timestamp::from_secs(5)), Duration::ZERO);
        assert_eq!(t.before(Duration::from_secs(9)), Timestamp::from_millis(0));
        assert!(t + Duration::MAX > t);
    }
}
