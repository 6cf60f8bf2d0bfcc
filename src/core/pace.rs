//! Pace: how long requests take on average, for sources that tell no more: the sum and the count of a summary, or the
//! time that each of our own checks took.
//!
//! Each measurement has one mean, and a measurement is slow if its mean is. So "the mean doubled" is judged like a share
//! of bad requests: how many of the measurements were slow, in all parts of a window, beyond chance. One minute that is
//! terrible makes twelve measurements slow and no more, where a mean over ten minutes would remember nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chance::upper95;
use super::sample::{Requests, Took};
use super::time::Timestamp;
use super::traffic::{BIN, ROUTES_MAX, Share};

/// Kept for the longest usual baseline, half an hour ...
const KEPT: Duration = Duration::from_secs(30 * 60);
/// ... of which one measurement every five seconds is this many.
const BEATS_MAX: usize = 362;
/// Less than that is no baseline (decision.md, section 3).
const SHORTEST: Duration = Duration::from_secs(4 * 60);
/// A median of fewer measurements is a matter of chance.
const BEATS_MIN: usize = 20;
/// Deciles, with both ends.
const DECILES: usize = 11;

/// How long requests took, measurement by measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Newest last.
    beats: VecDeque<Beat>,
    /// How long the requests to each route took, as far as the source tells routes apart.
    routes: BTreeMap<String, Took>,
}

/// What came in within one bin, replicas added up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Beat {
    end: Timestamp,
    took: Took,
}

impl Pace {
    /// Takes in how long some requests took.
    pub(crate) fn add(&mut self, now: Timestamp, took: Took) {
        if took.requests == 0 || !took.seconds.is_finite() || took.seconds < 0.0 {
            return;
        }
        let end = Timestamp::from_millis(now.as_millis().div_ceil(BIN) * BIN);
        match self.beats.back_mut().filter(|beat| beat.end >= end) {
            Some(beat) => beat.took.add(took),
            None => {
                let old = |beat: &Beat| now.since(beat.end) > KEPT;
                while self.beats.len() >= BEATS_MAX || self.beats.front().is_some_and(old) {
                    self.beats.pop_front();
                }
                self.beats.push_back(Beat { end, took });
            }
        }
    }

    /// Takes in how long the requests of a measurement took, as far as it tells.
    pub(crate) fn add_requests(&mut self, now: Timestamp, requests: &Requests) {
        self.add(now, requests.took);
        for part in requests.parts.iter().take(Requests::PARTS_MAX).filter(|part| part.took.requests > 0) {
            if self.routes.len() < ROUTES_MAX || self.routes.contains_key(&part.route) {
                self.routes.entry(part.route.clone()).or_default().add(part.took);
            }
        }
    }

    /// The end of the newest measurement: windows are counted back from it.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        self.beats.back().map(|beat| beat.end)
    }

    /// The measurements in `(from, to]`, and how many of them had a mean above `limit` seconds.
    pub(crate) fn share(&self, limit: f64, from: Timestamp, to: Timestamp) -> Share {
        let slow = |(n, k): (u64, u64), beat: &Beat| (n + 1, k + u64::from(beat.took.mean() > limit));
        let (n, k) = self.within(from, to).fold((0, 0), slow);
        Share { n, k: k as f64, beyond: None }
    }

    /// How long everything in `(from, to]` took.
    pub(crate) fn between(&self, from: Timestamp, to: Timestamp) -> Took {
        let mut all = Took::default();
        self.within(from, to).for_each(|beat| all.add(beat.took));
        all
    }

    fn within(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Beat> {
        let start = self.beats.partition_point(|beat| beat.end <= from);
        self.beats.range(start..).take_while(move |beat| beat.end <= to)
    }
}

/// What was a normal pace in the time before a deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rhythm {
    /// How long it was measured.
    pub(crate) span: Duration,
    /// Measurements.
    beats: u64,
    /// The least mean, nine deciles and the greatest, in seconds.
    deciles: Vec<f64>,
    /// The mean of each route, in seconds.
    routes: BTreeMap<String, f64>,
}

impl Rhythm {
    /// What was normal in the time `within` before `now`; none if too little is known.
    pub(crate) fn of(pace: &Pace, now: Timestamp, within: Duration) -> Option<Self> {
        let from = now.before(within);
        let beats: Vec<Beat> = pace.within(from, now + Duration::from_millis(BIN)).copied().collect();
        let span = now.since(beats.first()?.end);
        let mut means: Vec<f64> = beats.iter().map(|beat| beat.took.mean()).collect();
        if span < SHORTEST || means.len() < BEATS_MIN {
            return None;
        }
        means.sort_by(f64::total_cmp);
        let last = means.len() - 1;
        let deciles = (0..DECILES).map(|i| means[i * last / (DECILES - 1)]).collect();
        let routes = pace.routes.iter().map(|(route, took)| (route.clone(), took.mean())).collect();
        Some(Self { span, beats: means.len() as u64, deciles, routes })
    }

    /// The median of the means, in seconds.
    pub(crate) fn median(&self) -> f64 {
        self.deciles.get(DECILES / 2).copied().unwrap_or(0.0)
    }

    /// The most that the share of measurements with a mean above `limit` seconds can have been.
    pub(crate) fn above_at_most(&self, limit: f64) -> f64 {
        let above = self.deciles.iter().filter(|decile| **decile > limit).count();
        // The greatest of all is above: that is one measurement, and not yet a tenth of them.
        let share = match above {
            0 => 0.0,
            1 => 1.0 / self.beats.max(1) as f64,
            more => (more - 1) as f64 / (DECILES - 1) as f64,
        };
        upper95(share * self.beats as f64, self.beats as f64)
    }

    /// The mean that requests to these routes would have had before the deployment; those to a route that nobody knows
    /// are taken to be as slow as `unknown` seconds. None if routes are not told apart.
    pub(crate) fn by_mix(&self, now: &BTreeMap<String, u64>, unknown: f64) -> Option<f64> {
        let told = now.values().fold(0_u64, |sum, n| sum.saturating_add(*n));
        if told == 0 || self.routes.is_empty() {
            return None;
        }
        let expected: f64 =
            now.iter().map(|(route, n)| *n as f64 * self.routes.get(route).copied().unwrap_or(unknown)).sum();
        Some(expected / told as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Part;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    const fn took(requests: u64, seconds: f64) -> Took {
        Took { requests, seconds }
    }

    #[test]
    fn replicas_are_one_measurement_and_nonsense_is_none() {
        let mut pace = Pace::default();
        pace.add(at(5), took(10, 1.0));
        pace.add(at(5), took(30, 9.0));
        for nonsense in [took(0, 1.0), took(1, f64::NAN), took(1, -1.0), took(1, f64::INFINITY)] {
            pace.add(at(10), nonsense);
        }
        assert_eq!(pace.share(0.2, at(0), at(60)), Share { n: 1, k: 1.0, beyond: None });
        assert_eq!(pace.share(0.25, at(0), at(60)).k, 0.0);
        assert_eq!(pace.between(at(0), at(60)), took(40, 10.0));
    }

    #[test]
    fn a_terrible_minute_is_twelve_measurements_and_no_more() {
        let mut pace = Pace::default();
        for s in 1..=360 {
            let slow = (100..112).contains(&s);
            pace.add(at(s * 5), took(100, if slow { 2_000.0 } else { 10.0 }));
        }
        let rhythm = Rhythm::of(&pace, at(1800), Duration::from_secs(1800)).unwrap();
        assert!((rhythm.median() - 0.1).abs() < 1e-9);
        assert!(rhythm.above_at_most(0.2) < 0.05, "{}", rhythm.above_at_most(0.2));
        assert_eq!(pace.share(0.2, at(0), at(1800)).k, 12.0);
        assert!(pace.between(at(0), at(1800)).mean() > 0.5, "the mean of all remembers nothing else");
    }

    #[test]
    fn it_is_bounded_and_too_little_is_no_baseline() {
        let mut pace = Pace::default();
        for s in 1..=48 {
            pace.add(at(s * 5), took(1, 0.1));
            let enough = Rhythm::of(&pace, at(s * 5), Duration::from_secs(1800)).is_some();
            assert!(!enough, "{} s are not four minutes", s * 5);
        }
        for s in 49..=2_000 {
            pace.add(at(s * 5), took(1, 0.1));
        }
        assert!(pace.beats.len() <= BEATS_MAX);
        assert!(Rhythm::of(&pace, at(10_000), Duration::from_secs(1800)).is_some());
    }

    #[test]
    fn the_mix_of_routes_is_taken_into_account() {
        let mut pace = Pace::default();
        for s in 1..=60 {
            let part = |route: &str, took| Part { route: route.into(), took, ..Part::default() };
            let parts = vec![part("/fast", took(90, 0.9)), part("/slow", took(10, 10.0))];
            pace.add_requests(at(s * 5), &Requests { took: took(100, 10.9), parts, ..Requests::default() });
        }
        let rhythm = Rhythm::of(&pace, at(300), Duration::from_secs(1800)).unwrap();
        let mix = |pairs: &[(&str, u64)]| {
            let routes = pairs.iter().map(|(route, n)| ((*route).to_owned(), *n)).collect();
            rhythm.by_mix(&routes, 3.0)
        };
        assert!((mix(&[("/fast", 1), ("/slow", 1)]).unwrap() - 0.505).abs() < 1e-9);
        assert!((mix(&[("/new", 5)]).unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(mix(&[]), None);
    }
}
