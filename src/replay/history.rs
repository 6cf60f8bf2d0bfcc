//! A trace made of a Prometheus server's history: what a service's own queries said around each deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::trace::{Event, Trace, What};
use crate::core::Timestamp;
use crate::core::release::ServiceName;
use crate::core::sample::{Latencies, Requests};
use crate::signal::promql::Series;

/// A series that was away for so many steps and came back began anew.
const AWAY: u32 = 5;
/// Labels that may tell what a release is called, the best first.
const VERSION_LABELS: [&str; 6] = ["version", "release", "revision", "tag", "image_tag", "image"];
/// More deployments than these are not deployments.
pub const DEPLOYMENTS_MAX: usize = 2_000;

/// A deployment of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// When.
    pub at: Timestamp,
    /// What it is called, if that is known.
    pub version: Option<String>,
}

impl Deployment {
    /// When, in Unix seconds.
    pub fn unix(&self) -> f64 {
        self.at.since(Timestamp::default()).as_secs_f64()
    }
}

/// Deployments as a query tells them: another series takes over (an info metric with the version as a label), or a
/// value rises (a counter of deployments, a start time).
pub fn deployments(series: &[Series], from: Timestamp, step: Duration) -> Vec<Deployment> {
    // Time, whether the series begins there, the series, its value.
    let mut events = Vec::new();
    for (i, one) in series.iter().enumerate() {
        let mut last: Option<(Timestamp, f64)> = None;
        for (at, value) in one.points.iter().filter(|(_, value)| value.is_finite()) {
            match last {
                Some((before, _)) if at.since(before) > step * AWAY => events.push((*at, true, i, *value)),
                Some((_, before)) if *value > before => events.push((*at, false, i, *value)),
                Some(_) => {}
                None => events.push((*at, true, i, *value)),
            }
            last = Some((*at, *value));
        }
    }
    events.sort_by_key(|(at, _, i, _)| (*at, *i));
    let mut current = None;
    let mut found: Vec<Deployment> = Vec::new();
    for (at, begins, i, value) in events {
        let other = current != Some(i);
        current = Some(i);
        // What is there from the first was there before; a counter at zero has counted nothing.
        if begins && (!other || value == 0.0 || at.since(from) < step) {
            continue;
        }
        let labels = series.get(i).map(|s| &s.labels);
        let version = VERSION_LABELS.iter().find_map(|name| labels?.get(*name).cloned());
        found.push(Deployment { at, version });
    }
    found.dedup_by(|a, b| a.at == b.at);
    found
}

/// Deployments as a file lists them: a time a line (RFC 3339, or Unix seconds), and what was deployed if one likes.
///
/// # Errors
/// Every line that is not one.
pub fn listed(text: &str) -> Result<Vec<Deployment>, Vec<String>> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (time, version) = line.split_once(|c: char| c == ',' || c.is_whitespace()).unwrap_or((line, ""));
        let millis = match (time.parse::<jiff::Timestamp>(), time.parse::<f64>()) {
            (Ok(time), _) => u64::try_from(time.as_millisecond()).ok(),
            (Err(_), Ok(unix)) => {
                Duration::try_from_secs_f64(unix).ok().and_then(|d| u64::try_from(d.as_millis()).ok())
            }
            (Err(_), Err(_)) => None,
        };
        let version = version.trim_matches(|c: char| c == ',' || c.is_whitespace());
        match millis {
            Some(millis) => {
                let version = (!version.is_empty()).then(|| version.to_owned());
                found.push(Deployment { at: Timestamp::from_millis(millis), version });
            }
            None => wrong.push(format!(
                "line {number}: {time:?} is no time; right would be 2026-03-01T14:30:00Z or 1772375400, and then the version"
            )),
        }
    }
    found.sort_by_key(|d| d.at);
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

/// What the service's queries gave for one stretch of time; each value is about `window` before its point.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Requests.
    pub requests: Vec<Series>,
    /// Errors: where there are requests and no errors, there were none.
    pub errors: Vec<Series>,
    /// Buckets, by the label `le`.
    pub latency: Vec<Series>,
    /// What their bounds are in, in seconds.
    pub unit: f64,
    /// The time between two points.
    pub step: Duration,
    /// The time that each value is about; neighbours overlap, so that nothing falls between them.
    pub window: Duration,
}

/// The trace of one stretch of time, in Unix time.
pub fn trace(service: &ServiceName, answers: &Answers, deployments: &[Deployment]) -> Trace {
    let seconds = |at: Timestamp| at.since(Timestamp::default()).as_secs_f64();
    let mut events: Vec<Event> = deployments
        .iter()
        .map(|d| Event {
            t: seconds(d.at),
            service: service.clone(),
            what: What::Deploy { version: d.version.clone() },
        })
        .collect();
    let share = answers.step.as_secs_f64() / answers.window.as_secs_f64().max(f64::MIN_POSITIVE);
    let errors = added(&answers.errors);
    let mut bounds: Vec<(f64, BTreeMap<Timestamp, f64>)> = answers
        .latency
        .iter()
        .filter_map(|s| {
            let bound = s.labels.get("le")?.parse::<f64>().ok().filter(|b| b.is_finite() && *b > 0.0)?;
            Some((bound * answers.unit, s.points.iter().copied().collect()))
        })
        .collect();
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    bounds.truncate(Latencies::BOUNDS_MAX);
    let mut rest = vec![0.0; bounds.len() + 2];
    for (at, total) in added(&answers.requests) {
        let mut whole = |i: usize, value: f64| rest.get_mut(i).map_or(0, |rest| round(value * share, rest));
        let total = whole(0, total);
        let failed = whole(1, errors.get(&at).copied().unwrap_or(0.0)).min(total);
        let mut latency = Latencies::default();
        let mut below = 0;
        for (i, (bound, points)) in bounds.iter().enumerate() {
            let Some(value) = points.get(&at) else { continue };
            below = whole(i + 2, *value).max(below).min(total);
            latency.bounds.push(*bound);
            latency.counts.push(below);
        }
        if !latency.bounds.is_empty() {
            latency.counts.push(total);
        }
        let requests =
            Requests { window: answers.step, total, errors: failed, latency, ..Requests::default() };
        events.push(Event { t: seconds(at), service: service.clone(), what: What::Requests(requests) });
    }
    events.sort_by(|a, b| a.t.total_cmp(&b.t));
    Trace::of(events)
}

/// Several series as one; points that are no numbers are not there.
fn added(series: &[Series]) -> BTreeMap<Timestamp, f64> {
    let mut sum = BTreeMap::new();
    for (at, value) in series.iter().flat_map(|s| &s.points).filter(|(_, v)| v.is_finite() && *v >= 0.0) {
        *sum.entry(*at).or_insert(0.0) += value;
    }
    sum
}

/// A whole number of events; what rounding cuts off is carried over, so that one error in a minute is not lost.
fn round(value: f64, rest: &mut f64) -> u64 {
    let exact = value + *rest;
    let whole = exact.round().max(0.0);
    *rest = exact - whole;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are far below 2^64")]
    let whole = whole as u64;
    whole
}
