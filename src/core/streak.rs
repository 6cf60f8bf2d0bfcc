//! Streaks: results of one check in a row, and levels of one replica over time.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use super::window::bounded;

/// Attempts in a row that measure nothing before a check counts as not measurable (as in Argo Rollouts).
pub(crate) const ERRORS_IN_A_ROW: u32 = 4;
/// Results kept of a check: five minutes at one a second, for the flapping row.
const RESULTS_MAX: usize = 300;
/// Memory samples kept of a replica: half an hour at one every five seconds, with room.
const SAMPLES_MAX: usize = 512;
/// Without a sample for this long, a level is not "sustained": nobody looked. Longer if it is looked at seldom, ...
const LEVEL_GAP: Duration = Duration::from_secs(30);
/// ... but at most this.
const LEVEL_GAP_MAX: Duration = Duration::from_secs(150);
/// Two results of a check that are further apart than this, and than three times as far as usual, are not "in a row".
const ASKED_GAP: Duration = Duration::from_secs(90);
/// So many times between samples show what is usual.
const LATELY: usize = 5;

/// A run of equal results of one check.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Streak {
    /// Failures in a row up to now.
    pub(crate) failures: u32,
    /// The first and the last of them.
    pub(crate) failing: Option<(Timestamp, Timestamp)>,
    /// Successes in a row up to now.
    pub(crate) successes: u32,
    /// It has succeeded since the release appeared.
    pub(crate) succeeded: bool,
    /// All results so far.
    pub(crate) samples: u32,
    /// What the last result looked like.
    pub(crate) last: String,
    /// Attempts in a row that measured nothing, since when, and why.
    pub(crate) unavailable: Option<(u32, Timestamp, String)>,
    /// The last results, oldest first.
    pub(crate) results: VecDeque<(Timestamp, bool)>,
}

impl Streak {
    /// Takes in a result.
    pub(crate) fn check(&mut self, now: Timestamp, ok: bool, detail: String) {
        let unknown = self.unavailable.take().is_some_and(|(attempts, ..)| attempts >= ERRORS_IN_A_ROW);
        if unknown || !self.is_current(now) {
            // Nobody knows, or nobody asked, how it was meanwhile: what was seen before is not "in a row" with what is
            // seen now.
            (self.failures, self.failing, self.successes) = (0, None, 0);
        }
        self.samples = self.samples.saturating_add(1);
        self.last = detail;
        bounded(&mut self.results, (now, ok), RESULTS_MAX);
        if ok {
            self.failures = 0;
            self.failing = None;
            self.successes = self.successes.saturating_add(1);
            self.succeeded = true;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.failing = Some((self.failing.map_or(now, |(first, _)| first), now));
            self.successes = 0;
        }
    }

    /// Whether the last result is of now: it is asked about as often as the last few times.
    pub(crate) fn is_current(&self, now: Timestamp) -> bool {
        let times = self.results.iter().rev().map(|(at, _)| *at);
        let most = usual_gap(times).map_or(ASKED_GAP, |usual| (3 * usual).max(ASKED_GAP));
        self.results.back().is_none_or(|(last, _)| now.since(*last) <= most)
    }

    /// Takes in that nothing could be measured: neither failure nor success, the streaks stand.
    pub(crate) fn unavailable(&mut self, now: Timestamp, why: String) {
        let (attempts, since) = self.unavailable.take().map_or((0, now), |(n, since, _)| (n, since));
        self.unavailable = Some((attempts.saturating_add(1), since, why));
    }

    /// The results after `from`, counted.
    pub(crate) fn after(&self, from: Timestamp) -> Tried {
        let mut tried = Tried::default();
        let mut was_ok = true;
        for (at, ok) in self.results.iter().filter(|(at, _)| *at > from) {
            tried.all += 1;
            if !ok {
                tried.failures += 1;
                tried.runs += u32::from(was_ok);
                tried.pair |= !was_ok;
                tried.first = tried.first.or(Some(*at));
            }
            was_ok = *ok;
        }
        tried
    }
}

/// Results of a check, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) failures: u32,
    pub(crate) all: u32,
    /// Two failures came in a row.
    pub(crate) pair: bool,
    /// How often it began to fail.
    pub(crate) runs: u32,
    /// The first failure.
    pub(crate) first: Option<Timestamp>,
}

/// The usual time between two of these moments, the latest first; none if there is one at most.
fn usual_gap(lately: impl Iterator<Item = Timestamp> + Clone) -> Option<Duration> {
    let mut between: Vec<Duration> =
        lately.clone().zip(lately.skip(1)).take(LATELY).map(|(later, at)| later.since(at)).collect();
    between.sort_unstable();
    between.get(between.len() / 2).copied()
}

/// Memory samples of one replica.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Levels {
    /// When, bytes used, limit.
    pub(crate) samples: VecDeque<(Timestamp, u64, u64)>,
    /// Why the last attempt measured nothing.
    pub(crate) unavailable: Option<String>,
    /// Why there is nothing to measure.
    pub(crate) not_applicable: Option<String>,
}

impl Levels {
    /// Takes in a sample.
    pub(crate) fn add(&mut self, now: Timestamp, used: u64, limit: u64) {
        (self.unavailable, self.not_applicable) = (None, None);
        bounded(&mut self.samples, (now, used, limit), SAMPLES_MAX);
    }

    /// Without a sample for so long, nobody looked: twice the usual time between two, within bounds.
    fn gap(&self) -> Duration {
        let usual = usual_gap(self.samples.iter().rev().map(|(at, ..)| *at)).unwrap_or_default();
        (2 * usual).clamp(LEVEL_GAP, LEVEL_GAP_MAX)
    }

    /// Whether the last sample is of now: after a while without one, nobody knows.
    pub(crate) fn is_current(&self, now: Timestamp) -> bool {
        self.samples.back().is_some_and(|(last, ..)| now.since(*last) <= self.gap())
    }

    /// Since when, and over how many samples, every sample was above `threshold`, counting from `from`.
    pub(crate) fn above(&self, threshold: f64, from: Timestamp) -> Option<(Timestamp, u32)> {
        let mut since: Option<(Timestamp, u32)> = None;
        let mut later: Option<Timestamp> = None;
        let most = self.gap();
        for (at, used, limit) in self.samples.iter().rev() {
            let gap = later.is_some_and(|later| later.since(*at) > most);
            let over = *limit > 0 && *used as f64 > *limit as f64 * threshold;
            if *at < from || gap || !over {
                break;
            }
            since = Some((*at, since.map_or(1, |(_, n)| n + 1)));
            later = Some(*at);
        }
        since
    }

    /// The highest share of the limit within `within` before `now`.
    pub(crate) fn peak(&self, now: Timestamp, within: Duration) -> Option<f64> {
        self.shares(now, within).map(|(_, share)| share).max_by(f64::total_cmp)
    }

    /// The shares of the limit within `within` before `now`, oldest first.
    pub(crate) fn shares(
        &self,
        now: Timestamp,
        within: Duration,
    ) -> impl Iterator<Item = (Timestamp, f64)> + '_ {
        self.samples
            .iter()
            .filter(move |(at, _, limit)| now.since(*at) <= within && *limit > 0)
            .map(|(at, used, limit)| (*at, *used as f64 / *limit as f64))
    }
}
