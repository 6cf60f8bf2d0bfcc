//! The baseline: what was normal before the release that is judged now.
//!
//! It is made of the last half hour of the release before it, and of the same hour of earlier days, which has a say
//! only while today's traffic is not what it was (decision.md, section 3).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chance::upper95;
use super::latency::{Sketch, Slower};
use super::pace::Rhythm;
use super::sample::{Requests, Took};
use super::spells::Spells;
use super::time::Timestamp;
use super::traffic::{Tally, Traffic};
use super::window::Before;

/// Less than that is no baseline (decision.md, section 3).
const SHORTEST: Duration = Duration::from_secs(4 * 60);
/// From so many requests on, the 99th percentile can be told (a distribution-free upper bound needs 459).
const P99_REQUESTS: u64 = 500;
/// A piece of the baseline with so many requests has a p99 that differs 1.5-fold by chance in 3 of 1000 cases.
const PIECE_REQUESTS: u64 = 300;
/// With fewer pieces a median is no better than all of them together.
const PIECES_MIN: usize = 3;
/// While the old release stops and the new one starts, requests fail: a stop takes ten seconds.
const SWITCH: Duration = Duration::from_secs(20);
/// What was wrong right up to then was wrong in this time.
const AT_LAST: Duration = Duration::from_secs(30);
/// What was "just before" the deployment.
const JUST_BEFORE: Duration = Duration::from_secs(3 * 60);
/// An hour in milliseconds.
const HOUR: u64 = 3_600_000;
/// Hours that are remembered: a week.
const HOURS_MAX: usize = 7 * 24;
/// Traffic that differs by more than this factor is not what the baseline speaks of.
const REPRESENTATIVE: f64 = 2.0;

/// What was normal in the time before a deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// How long it was measured.
    pub(crate) span: Duration,
    pub(crate) total: u64,
    pub(crate) errors: u64,
    /// Requests and failures of the last three minutes.
    pub(crate) just_before: (u64, u64),
    /// Those of the half minute before the old release began to make room for the new one.
    #[serde(default)]
    pub(crate) at_last: (u64, u64),
    /// The latencies of the last three minutes.
    pub(crate) latency_just_before: Sketch,
    /// The 99th percentile in seconds: the median of those of its pieces.
    pub(crate) p99: Option<f64>,
    pub(crate) latency: Sketch,
    /// The latencies of each route, if the source tells routes apart.
    pub(crate) routes: BTreeMap<String, Sketch>,
    /// Error lines a minute in the log.
    pub(crate) log_errors: Option<f64>,
    /// How long requests took on average, where the source tells no more.
    #[serde(default)]
    pub(crate) pace: Option<Rhythm>,
    /// How long our own checks took, by name.
    #[serde(default)]
    pub(crate) checks: BTreeMap<String, Rhythm>,
}

impl Norm {
    /// What was normal in the time `within` before `now`; none if too little is known.
    pub(crate) fn of(traffic: &Traffic, now: Timestamp, within: Duration) -> Self {
        let from = now.before(within);
        let end = now + Duration::from_secs(5);
        let recent = traffic.between(now.before(JUST_BEFORE), end);
        let just_before = (recent.total, recent.errors);
        let mut at_last = traffic.between(now.before(SWITCH + AT_LAST), now.before(SWITCH));
        if at_last.total == 0 {
            at_last = traffic.between(now.before(JUST_BEFORE), now.before(SWITCH));
        }
        let at_last = (at_last.total, at_last.errors);
        let latency_just_before = recent.latency;
        let span = traffic.begins(from).map_or(Duration::ZERO, |begin| now.since(begin));
        if span < SHORTEST {
            return Self { just_before, at_last, latency_just_before, ..Self::default() };
        }
        let all = traffic.between(from, end);
        Self {
            span,
            just_before,
            at_last,
            latency_just_before,
            p99: p99(&all.latency, &traffic.pieces(from, end, PIECE_REQUESTS)),
            total: all.total,
            errors: all.errors,
            latency: all.latency,
            routes: traffic.routes.clone(),
            ..Self::default()
        }
    }

    /// What is known here; of what is not, what was known `before`.
    pub(crate) fn or(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        let checks = if self.checks.is_empty() { before.checks.clone() } else { self.checks.clone() };
        let log_errors = self.log_errors.or(before.log_errors);
        let requests = if self.total > 0 { self } else { before };
        Self { checks, log_errors, ..requests }
    }

    /// The share of failed requests; none if there were none to fail.
    pub(crate) fn error_rate(&self) -> Option<f64> {
        (self.total > 0).then(|| self.errors as f64 / self.total as f64)
    }

    /// The most that the share of failed requests can have been.
    pub(crate) fn errors_at_most(&self) -> f64 {
        if self.total == 0 { 0.0 } else { upper95(self.errors as f64, self.total as f64) }
    }

    /// The share of failed requests just before the deployment.
    pub(crate) fn just_before_rate(&self) -> f64 {
        let (total, errors) = self.just_before;
        if total == 0 { 0.0 } else { errors as f64 / total as f64 }
    }

    /// The share of failed requests before that: what was usual until then.
    pub(crate) fn earlier_rate(&self) -> f64 {
        let total = self.total.saturating_sub(self.just_before.0);
        let errors = self.errors.saturating_sub(self.just_before.1);
        if total == 0 { 0.0 } else { errors as f64 / total as f64 }
    }

    /// The share of failed requests right up to the deployment, without what failed because of the change itself.
    pub(crate) fn rate_at_last(&self) -> f64 {
        let (total, errors) = self.at_last;
        if total == 0 { 0.0 } else { errors as f64 / total as f64 }
    }

    /// The most that the share of requests slower than `limit` seconds can have been.
    pub(crate) fn slower_at_most(&self, limit: f64) -> f64 {
        share_slower(&self.latency, limit)
    }

    /// The share of requests slower than `limit` seconds just before the deployment, if they were more than a few.
    pub(crate) fn slower_just_before(&self, limit: f64) -> f64 {
        const FEW: f64 = 10.0;
        let slow = self.latency_just_before.slower(limit).at_most();
        if slow < FEW { 0.0 } else { slow / self.latency_just_before.total() as f64 }
    }

    /// The share of requests slower than `limit` that the mix of routes in `now` would have had before the deployment:
    /// a release to which slow routes are sent more often is not slower. What a new route is like nobody knows.
    pub(crate) fn slower_by_mix(&self, now: &Tally, limit: f64) -> f64 {
        let told = now.routes.values().fold(0_u64, |sum, n| sum.saturating_add(*n));
        if told == 0 || self.routes.is_empty() {
            return 0.0;
        }
        let expected: f64 = now
            .routes
            .iter()
            .map(|(route, n)| {
                let known = self.routes.get(route).filter(|sketch| sketch.total() > 0);
                *n as f64 * known.map_or(1.0, |sketch| sketch.slower(limit).at_most() / sketch.total() as f64)
            })
            .sum();
        expected / told as f64
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        let secs = self.span.as_secs_f64();
        if secs > 0.0 { self.total as f64 / secs } else { 0.0 }
    }

    /// Whether `total` requests in `span` are about as many as were normal.
    pub(crate) fn is_like(&self, total: u64, span: Duration) -> bool {
        let (usual, now) = (self.rate(), total as f64 / span.as_secs_f64().max(1.0));
        now <= usual * REPRESENTATIVE && now * REPRESENTATIVE >= usual
    }
}

fn p99(all: &Sketch, pieces: &[Sketch]) -> Option<f64> {
    if all.total() < P99_REQUESTS {
        return None;
    }
    let mut each: Vec<f64> = pieces.iter().filter_map(|piece| piece.exceeded_by(0.01)).collect();
    if each.len() < PIECES_MIN || each.len() < pieces.len() {
        return all.exceeded_by(0.01);
    }
    each.sort_by(f64::total_cmp);
    each.get(each.len() / 2).copied()
}

fn share_slower(latency: &Sketch, limit: f64) -> f64 {
    match (latency.total(), latency.slower(limit)) {
        (0, _) => 0.0,
        (n, Slower::Count(slow) | Slower::AtMost(slow, _)) => upper95(slow, n as f64),
    }
}

/// Hours of a known-good release, up to a week back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    hours: VecDeque<Hour>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Hour {
    start: Timestamp,
    total: u64,
    errors: u64,
    latency: Sketch,
    #[serde(default)]
    took: Took,
}

impl History {
    /// Adds requests of a release that is known-good.
    pub(crate) fn add(&mut self, now: Timestamp, requests: &Requests) {
        let start = Timestamp::from_millis(now.as_millis() / HOUR * HOUR);
        if self.hours.back().is_none_or(|hour| hour.start != start) {
            if self.hours.len() == HOURS_MAX {
                self.hours.pop_front();
            }
            self.hours.push_back(Hour { start, ..Hour::default() });
        }
        if let Some(hour) = self.hours.back_mut() {
            hour.total = hour.total.saturating_add(requests.total);
            hour.errors = hour.errors.saturating_add(requests.errors.min(requests.total));
            hour.latency.add(&requests.latency);
            hour.took.add(requests.took);
        }
    }

    /// How long requests took on average at this hour on earlier days, in seconds; none if nothing is known of it.
    pub(crate) fn mean_at(&self, now: Timestamp) -> Option<f64> {
        let mut took = Took::default();
        self.hours_like(now).for_each(|hour| took.add(hour.took));
        (!took.is_nothing()).then(|| took.mean())
    }

    /// The hours of earlier days at this time of the day.
    fn hours_like(&self, now: Timestamp) -> impl Iterator<Item = &Hour> {
        let of_day = |at: Timestamp| at.as_millis() / HOUR % 24;
        let today = now.as_millis() / HOUR;
        self.hours
            .iter()
            .filter(move |hour| of_day(hour.start) == of_day(now) && hour.start.as_millis() / HOUR != today)
    }

    /// What was normal at this hour on earlier days; none if nothing was measured then.
    pub(crate) fn same_hour(&self, now: Timestamp) -> Option<Norm> {
        let days: Vec<&Hour> = self.hours_like(now).collect();
        let (mut norm, mut pieces) = (Norm::default(), Vec::new());
        for day in &days {
            norm.span += Duration::from_millis(HOUR);
            norm.total = norm.total.saturating_add(day.total);
            norm.errors = norm.errors.saturating_add(day.errors);
            norm.latency.merge(&day.latency);
            if day.latency.total() >= PIECE_REQUESTS {
                pieces.push(day.latency.clone());
            }
        }
        norm.p99 = p99(&norm.latency, &pieces);
        (!days.is_empty()).then_some(norm)
    }
}

/// What is kept of a service's baseline across restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Norms {
    /// What the release that runs now is compared with, as it was when it was deployed.
    pub(crate) before: Before,
    /// What it is like itself, once it is known-good: what the next release will be compared with.
    pub(crate) now: Norm,
    /// Earlier days.
    pub(crate) history: History,
    /// What came and went by itself while it ran.
    #[serde(default)]
    pub(crate) spells: Spells,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Latencies;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    /// A hundred requests in five seconds: one of them slower than a second, three failed.
    fn usual() -> Requests {
        Requests {
            window: Duration::from_secs(5),
            total: 100,
            errors: 3,
            latency: Latencies { bounds: vec![0.1, 1.0, 10.0], counts: vec![50, 99, 100, 100] },
            ..Requests::default()
        }
    }

    #[test]
    fn half_an_hour_makes_a_norm_and_three_minutes_do_not() {
        let mut traffic = Traffic::default();
        for s in 1..=36 {
            traffic.add(at(s * 5), &usual());
        }
        let early = Norm::of(&traffic, at(180), Duration::from_secs(1800));
        assert_eq!((early.total, early.p99, early.just_before), (0, None, (3600, 108)));
        for s in 37..=360 {
            traffic.add(at(s * 5), &usual());
        }
        let norm = Norm::of(&traffic, at(1800), Duration::from_secs(1800));
        assert_eq!((norm.total, norm.errors), (36_000, 1_080));
        assert!((norm.p99.unwrap() - 1.0).abs() < 0.01, "{:?}", norm.p99);
        assert!((0.03..0.033).contains(&norm.errors_at_most()));
        assert!(norm.is_like(200, Duration::from_secs(10)) && !norm.is_like(500, Duration::from_secs(10)));
    }

    #[test]
    fn the_mix_of_routes_is_taken_into_account() {
        let sketch = |slow: u64| {
            let mut sketch = Sketch::default();
            sketch.add(&Latencies { bounds: vec![1.0], counts: vec![100 - slow, 100] });
            sketch
        };
        let routes = BTreeMap::from([("/fast".to_owned(), sketch(0)), ("/slow".to_owned(), sketch(50))]);
        let norm = Norm { routes, ..Norm::default() };
        let mix = |fast, slow, new| Tally {
            routes: BTreeMap::from([
                ("/fast".to_owned(), fast),
                ("/slow".to_owned(), slow),
                ("/new".to_owned(), new),
            ]),
            ..Tally::default()
        };
        assert!(norm.slower_by_mix(&mix(100, 0, 0), 1.0) < 0.001);
        assert!((norm.slower_by_mix(&mix(50, 50, 0), 1.0) - 0.25).abs() < 0.001);
        assert!((norm.slower_by_mix(&mix(80, 0, 20), 1.0) - 0.2).abs() < 0.001);
        assert!(Norm::default().slower_by_mix(&mix(1, 1, 1), 1.0) < f64::EPSILON);
    }

    #[test]
    fn the_same_hour_of_earlier_days_is_found() {
        let mut history = History::default();
        for day in 0..10 {
            for hour in 0..24 {
                history.add(Timestamp::from_secs((day * 24 + hour) * 3600 + 60), &usual());
            }
        }
        assert_eq!(history.hours.len(), HOURS_MAX);
        let norm = history.same_hour(Timestamp::from_secs((9 * 24 + 13) * 3600 + 100)).unwrap();
        assert_eq!(norm.total, 600);
        // The clock was set back by four days: what is remembered of days that are yet to come is still of other days.
        let earlier = Timestamp::from_secs((5 * 24 + 13) * 3600 + 100);
        assert_eq!(history.same_hour(earlier).unwrap().total, 600);
        history.add(earlier, &usual());
        assert_eq!((history.hours.len(), history.same_hour(earlier).unwrap().total), (HOURS_MAX, 600));
        assert_eq!(History::default().same_hour(at(0)), None);
    }
}
