//! Traffic: the requests of one service under its current release, in small bins of time, replicas added up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::{Sketch, Slower};
use super::pace::Pace;
use super::sample::Requests;
use super::time::Timestamp;

/// The length of a bin, in milliseconds: a quarter of the shortest window (15 s) and a bit.
pub(crate) const BIN: u64 = 5_000;
/// The longest window of a shipped row is 10 min: bins are kept apart for a quarter of an hour ...
const FINE: Duration = Duration::from_secs(15 * 60);
/// ... and then as minutes, for the baseline of at most an hour that the next release is compared with.
const MINUTES_MAX: usize = 60;
const MINUTE: u64 = 60_000;
/// A measurement that is later than this, and twice its usual interval, is missing.
const STALE: Duration = Duration::from_secs(20);
/// Routes that are told apart over the life of a release; others are one.
pub(crate) const ROUTES_MAX: usize = 64;

/// The requests of one service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Newest last.
    bins: VecDeque<Bin>,
    /// What is older, minute by minute.
    minutes: VecDeque<Bin>,
    /// The latencies of each route, as far as the source tells routes apart.
    pub(crate) routes: BTreeMap<String, Sketch>,
    /// When it was last measured.
    pub(crate) last: Option<Timestamp>,
    /// The time that the last measurement spoke of: the next one is due about then.
    pub(crate) usual: Duration,
    /// Measurements so far.
    pub(crate) samples: u32,
}

/// What makes a request a bad one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bad {
    /// It failed.
    Failed,
    /// It took longer than so many seconds.
    Slower(f64),
}

/// Bad requests among all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Share {
    /// All of them.
    pub(crate) n: u64,
    /// The bad ones; between two bounds of a histogram they are an estimate.
    pub(crate) k: f64,
    /// The limit lies above the highest bound of the histogram, in seconds: then `k` is the most that there can be.
    pub(crate) beyond: Option<f64>,
}

impl Share {
    /// The share of the bad ones; zero if there are no requests.
    pub(crate) fn rate(self) -> f64 {
        if self.n == 0 { 0.0 } else { self.k / self.n as f64 }
    }

    /// The bad ones, as a count.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a count, not below zero"
    )]
    pub(crate) fn bad(self) -> u64 {
        self.k.round() as u64
    }
}

/// What is counted: requests, or measurements of how long they took on average. What is slow differs accordingly: a
/// request, or a measurement's mean.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted<'a> {
    Requests(&'a Traffic),
    Pace {
        pace: &'a Pace,
        /// A measurement is due about this often.
        usual: Duration,
    },
}

impl<'a> Counted<'a> {
    /// The end of the newest measurement: windows are counted back from it.
    pub(crate) fn end(self) -> Option<Timestamp> {
        match self {
            Self::Requests(traffic) => traffic.end(),
            Self::Pace { pace, .. } => pace.end(),
        }
    }

    /// When a window of such a length begins that ends with the newest measurement. Measurements that are shorter than a bin
    /// end anywhere in one, and are counted as if at its end: the bin in which the window begins is a part of it, or it
    /// would be shorter than it says by up to a bin.
    pub(crate) fn start_of(self, window: Duration) -> Option<Timestamp> {
        match self {
            Self::Requests(traffic) if traffic.usual < Duration::from_millis(BIN) => {
                let began = traffic.last?.before(window).as_millis();
                Some(Timestamp::from_millis(began / BIN * BIN))
            }
            Self::Requests(_) | Self::Pace { .. } => self.end().map(|end| end.before(window)),
        }
    }

    /// How often a measurement is due.
    pub(crate) const fn usual(self) -> Duration {
        match self {
            Self::Requests(traffic) => traffic.usual,
            Self::Pace { usual, .. } => usual,
        }
    }

    /// The bad ones in `(from, to]`. A measurement of an average cannot fail.
    pub(crate) fn share(self, bad: Bad, from: Timestamp, to: Timestamp) -> Share {
        match (self, bad) {
            (Self::Requests(traffic), _) => traffic.share(bad, from, to),
            (Self::Pace { pace, .. }, Bad::Slower(limit)) => pace.share(limit, from, to),
            (Self::Pace { .. }, Bad::Failed) => Share::default(),
        }
    }

    /// Back from the end, step by step: when each began, and its bad ones.
    pub(crate) fn steps_back(
        self,
        bad: Bad,
        step: Duration,
    ) -> impl Iterator<Item = (Timestamp, Share)> + use<'a> {
        let end = self.end().unwrap_or_default();
        (0..).map(move |i| {
            let from = end.before(step * (i + 1));
            (from, self.share(bad, from, end.before(step * i)))
        })
    }
}

/// The requests of a short time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Bin {
    /// When it ends.
    end: Timestamp,
    /// When the first measurement in it began to count.
    from: Timestamp,
    tally: Tally,
}

/// Requests added up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) total: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Sketch,
    /// How many went to each route.
    pub(crate) routes: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, requests: &Requests) {
        self.total = self.total.saturating_add(requests.total);
        // More failures than requests is a fault of the source; a share above one would be a fault of ours.
        self.errors = self.errors.saturating_add(requests.errors.min(requests.total));
        self.latency.add(&requests.latency);
        for part in requests.parts.iter().take(Requests::PARTS_MAX) {
            self.count(&part.route, part.total);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
        for (route, n) in &other.routes {
            self.count(route, *n);
        }
    }

    fn count(&mut self, route: &str, n: u64) {
        if let Some(sum) = told_apart(&mut self.routes, route) {
            *sum = sum.saturating_add(n);
        }
    }
}

/// What is known of a route; none if too many others are told apart already.
fn told_apart<'a, T: Default>(routes: &'a mut BTreeMap<String, T>, route: &str) -> Option<&'a mut T> {
    let room = routes.len() < ROUTES_MAX || routes.contains_key(route);
    room.then(|| routes.entry(route.to_owned()).or_default())
}

impl Traffic {
    /// Takes in a measurement.
    pub(crate) fn add(&mut self, now: Timestamp, requests: &Requests) {
        self.last = Some(now);
        self.usual = requests.window;
        self.samples = self.samples.saturating_add(1);
        let end = Timestamp::from_millis(now.as_millis().div_ceil(BIN) * BIN);
        let from = now.before(requests.window);
        match self.bins.back_mut().filter(|bin| bin.end >= end) {
            Some(bin) => {
                bin.from = bin.from.min(from);
                bin.tally.add(requests);
            }
            None => {
                let mut bin = Bin { end, from, tally: Tally::default() };
                bin.tally.add(requests);
                if let Some(before) = self.bins.back() {
                    bin.tally.latency.share_bounds(&before.tally.latency);
                }
                self.bins.push_back(bin);
            }
        }
        for part in requests.parts.iter().take(Requests::PARTS_MAX) {
            if let Some(latency) = told_apart(&mut self.routes, &part.route) {
                latency.add(&part.latency);
            }
        }
        while self.bins.front().is_some_and(|bin| now.since(bin.end) > FINE) {
            if let Some(bin) = self.bins.pop_front() {
                self.age(bin);
            }
        }
    }

    fn age(&mut self, bin: Bin) {
        let end = Timestamp::from_millis(bin.end.as_millis().div_ceil(MINUTE) * MINUTE);
        match self.minutes.back_mut().filter(|minute| minute.end >= end) {
            Some(minute) => minute.tally.merge(&bin.tally),
            None => {
                if self.minutes.len() == MINUTES_MAX {
                    self.minutes.pop_front();
                }
                self.minutes.push_back(Bin { end, ..bin });
            }
        }
    }

    /// The end of the newest bin: windows are counted back from it.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        self.bins.back().map(|bin| bin.end)
    }

    /// Everything measured in `(from, to]`.
    pub(crate) fn between(&self, from: Timestamp, to: Timestamp) -> Tally {
        let mut tally = Tally::default();
        for bin in self.within(from, to) {
            tally.merge(&bin.tally);
        }
        tally
    }

    /// The bad requests in `(from, to]`.
    pub(crate) fn share(&self, bad: Bad, from: Timestamp, to: Timestamp) -> Share {
        match bad {
            Bad::Failed => {
                let sum = |(n, k): (u64, u64), bin: &Bin| {
                    (n.saturating_add(bin.tally.total), k.saturating_add(bin.tally.errors))
                };
                let (n, k) = self.within(from, to).fold((0, 0), sum);
                Share { n, k: k as f64, beyond: None }
            }
            Bad::Slower(limit) => {
                let mut latency = Sketch::default();
                for bin in self.within(from, to) {
                    latency.merge(&bin.tally.latency);
                }
                let n = latency.total();
                match latency.slower(limit) {
                    Slower::Count(k) => Share { n, k, beyond: None },
                    Slower::AtMost(k, highest) => Share { n, k, beyond: Some(highest) },
                }
            }
        }
    }

    /// How many requests in `(from, to]` have latencies; counted only until there are `enough`.
    pub(crate) fn timed(&self, from: Timestamp, to: Timestamp, enough: u64) -> u64 {
        let mut timed = 0_u64;
        for bin in self.within(from, to) {
            timed = timed.saturating_add(bin.tally.latency.total());
            if timed >= enough {
                break;
            }
        }
        timed
    }

    /// The latencies that were measured last, as they were sorted into buckets.
    pub(crate) fn latest_latencies(&self) -> Option<&Sketch> {
        self.bins.iter().rev().map(|bin| &bin.tally.latency).find(|latency| latency.total() > 0)
    }

    /// Whether a measurement is overdue: what was measured last says nothing about now.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        self.last.is_none_or(|last| now.since(last) > STALE + 2 * self.usual)
    }

    /// Bins that end in `(from, to]`.
    fn within(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Bin> {
        let range = |bins: &VecDeque<Bin>| {
            let (a, b) =
                (bins.partition_point(|bin| bin.end <= from), bins.partition_point(|bin| bin.end <= to));
            a.min(b)..b
        };
        self.minutes.range(range(&self.minutes)).chain(self.bins.range(range(&self.bins)))
    }

    /// When the oldest measurement began, not before `from`.
    pub(crate) fn begins(&self, from: Timestamp) -> Option<Timestamp> {
        self.within(from, Timestamp::from_millis(u64::MAX)).next().map(|bin| bin.from.max(from))
    }

    /// Everything in `(from, to]`, in pieces of at least `least` requests with latencies and at least a minute.
    pub(crate) fn pieces(&self, from: Timestamp, to: Timestamp, least: u64) -> Vec<Sketch> {
        let (mut pieces, mut piece, mut began) = (Vec::new(), Sketch::default(), None);
        for bin in self.within(from, to) {
            let since = *began.get_or_insert(bin.from);
            piece.merge(&bin.tally.latency);
            if piece.total() >= least && bin.end.since(since) >= Duration::from_millis(MINUTE) {
                pieces.push(std::mem::take(&mut piece));
                began = None;
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Latencies;
    use super::*;

    fn requests(total: u64, errors: u64) -> Requests {
        Requests { window: Duration::from_secs(5), total, errors, ..Requests::default() }
    }

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn replicas_are_added_up_and_windows_counted() {
        let mut traffic = Traffic::default();
        for s in 1..=12 {
            traffic.add(at(s * 5), &requests(10, 1));
            traffic.add(at(s * 5), &requests(30, 0));
        }
        assert_eq!(traffic.end(), Some(at(60)));
        let tally = traffic.between(at(30), at(60));
        assert_eq!((tally.total, tally.errors), (240, 6));
        assert_eq!(traffic.begins(at(0)), Some(at(0)));
        assert_eq!(traffic.share(Bad::Failed, at(50), at(60)), Share { n: 80, k: 2.0, beyond: None });
        assert!(!traffic.is_stale(at(80)) && traffic.is_stale(at(100)));
    }

    #[test]
    fn what_is_old_becomes_minutes_and_then_goes() {
        let mut traffic = Traffic::default();
        for s in 1..=2 * 60 * 12 {
            traffic.add(at(s * 5), &requests(1, 0));
        }
        assert!(traffic.bins.len() <= 182, "{}", traffic.bins.len());
        assert_eq!(traffic.minutes.len(), MINUTES_MAX);
        assert_eq!(traffic.between(at(6400), at(7200)).total, 160);
        // Minutes do not begin where the window does.
        assert!((719..=740).contains(&traffic.between(at(3600), at(7200)).total));
    }

    #[test]
    fn requests_with_latencies_are_counted_until_there_are_enough() {
        let mut traffic = Traffic::default();
        let latency = Latencies { bounds: vec![1.0], counts: vec![4, 4] };
        for s in 1..=10 {
            traffic.add(at(s * 5), &Requests { latency: latency.clone(), ..requests(10, 0) });
        }
        assert_eq!(traffic.timed(at(0), at(50), 1_000), 40);
        assert_eq!(traffic.timed(at(40), at(50), 1_000), 8);
        assert_eq!(traffic.timed(at(0), at(50), 6), 8, "enough");
    }

    #[test]
    fn more_failures_than_requests_are_not_believed() {
        let mut traffic = Traffic::default();
        traffic.add(at(5), &requests(3, 7));
        assert_eq!(traffic.between(at(0), at(5)).errors, 3);
    }
}
