//! From pages to requests: what was counted between one page and the next.
//!
//! - A value smaller than before began anew: what it shows is the increment. So does one whose `_created` is newer.
//! - A series that was not on the page before counts from zero: the page before shows that it was not there.
//! - Between a page of one process and a page of another there is no increment. `process_start_time_seconds` tells
//!   them apart: workers of one server that keep their own books, or replicas behind one URL.
//! - Histograms of several series are added up where their bounds agree: a bound that one of them lacks is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::choice::{Choice, Errors, label_of, route, status_label};
use super::presets::{failed, seconds_per_unit};
use super::text::{Labels, Metric, Page};
use crate::core::Timestamp;
use crate::core::sample::{Latencies, Part, Requests, Took};

/// A process that is said to have started no longer than this before the last page has started since: its clock may
/// be another host's.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Start times of one process may differ by this: some libraries work them out anew each time.
const START_WOBBLE: f64 = 1.5;

/// If counters began anew on so many of the last eight pages, they are not believed: two processes that answer in turn
/// look like this, and one that restarts so often is known by its exits.
const RESETS_MAX: u32 = 3;

/// A histogram that does not tell its unit is in milliseconds if its highest bound is at least this: nobody waits a
/// quarter of an hour for an answer.
const SECONDS_MAX: f64 = 1_000.0;

/// The last page, and when it was asked for.
#[derive(Debug, Default)]
pub(super) struct Books {
    last: Option<(Timestamp, Page)>,
    /// On which of the last eight pages counters began anew: the lowest bit is the last page.
    resets: u8,
}

impl Books {
    /// Takes in a page; gives what was counted since the page before, or nothing if there is none.
    ///
    /// # Errors
    /// Why the pages tell nothing together; in words.
    pub(super) fn turn(
        &mut self,
        at: Timestamp,
        mut page: Page,
        choice: Result<Choice, String>,
    ) -> Result<Option<Requests>, String> {
        let Some((before, last)) = self.last.take() else {
            self.last = Some((at, page));
            return choice.map(|_| None);
        };
        let window = at.since(before);
        if page.open_ended && !last.open_ended {
            self.last = Some((before, last));
            return Err("the page broke off: it does not end with a line feed, as the one before did".into());
        }
        if last.open_ended && !page.open_ended {
            // It was the page before that broke off: what it lacks has not begun since.
            self.last = Some((at, page));
            return choice.map(|_| None);
        }
        let restarted = match process(&last, &page, before) {
            Process::Same => false,
            Process::Restarted => true,
            Process::Another => {
                self.last = Some((at, page));
                return Err("another process than before answered (process_start_time_seconds): give every replica's \
                            own port, or have the workers of one server share their metrics"
                    .into());
            }
        };
        if window.is_zero() {
            self.last = Some((before, last));
            return choice.map(|_| None);
        }
        let counted =
            choice.map(|choice| Count { last: &last, page: &page, choice: &choice, restarted }.requests());
        // Another process' series say nothing about this one's.
        if !restarted {
            page.remember(last);
        }
        self.last = Some((at, page));
        let (requests, reset) = counted?;
        self.resets = self.resets << 1 | u8::from(reset);
        if self.resets.count_ones() >= RESETS_MAX {
            return Err(format!(
                "counters began anew on {} of the last 8 pages: either the process restarts all the time, or several \
                 processes answer in turn; then give every replica's own port, or have the workers of one server share \
                 their metrics",
                self.resets.count_ones()
            ));
        }
        Ok(Some(Requests { window, ..requests }))
    }
}

enum Process {
    Same,
    Restarted,
    Another,
}

/// Which process wrote the page, seen from the page before.
fn process(last: &Page, page: &Page, before: Timestamp) -> Process {
    let (Some(old), Some(new)) = (last.started, page.started) else { return Process::Same };
    if (new - old).abs() <= START_WOBBLE || !new.is_finite() || !old.is_finite() {
        return Process::Same;
    }
    let earliest = before.before(CLOCK_SKEW).as_millis() as f64 / 1000.0;
    if new > old && new >= earliest { Process::Restarted } else { Process::Another }
}

/// What is counted between two pages.
struct Count<'a> {
    last: &'a Page,
    page: &'a Page,
    choice: &'a Choice,
    restarted: bool,
}

impl Count<'_> {
    /// The requests, without their window, and whether a counter began anew.
    fn requests(&self) -> (Requests, bool) {
        let empty = Metric::default();
        let metric = self.page.metric(&self.choice.requests).unwrap_or(&empty);
        let old = self.last.metric(&self.choice.requests).unwrap_or(&empty);
        let reset = readings(metric).any(|(labels, new)| reading(old, labels).is_some_and(|old| new < old));
        // The process started since the page before, and shows it: what has overtaken its old value began anew, too.
        let anew = self.restarted && reset;
        let (mut total, mut errors) = (0.0, 0.0);
        let mut routes: BTreeMap<&str, f64> = BTreeMap::new();
        for (labels, new) in readings(metric).filter(|(labels, _)| self.choice.counts(labels)) {
            let more = increment(old, metric, labels, new, anew);
            total += more;
            if let Errors::Status(label) = self.choice.errors
                && label_of(labels, label).and_then(failed) == Some(true)
            {
                errors += more;
            }
            if let Some(route) = route(labels) {
                *routes.entry(route).or_default() += more;
            }
        }
        if let Errors::Metric(name) = &self.choice.errors {
            errors = self.errors_of(name, anew);
        }
        let mut busiest: Vec<_> = routes.into_iter().filter(|(_, n)| *n > 0.0).collect();
        busiest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        busiest.truncate(Requests::PARTS_MAX);
        let part = |(name, n): (&str, f64)| Part {
            route: name.to_owned(),
            total: whole(n),
            latency: self.latency(anew, |labels| route(labels) == Some(name)),
            took: self.took(anew, |labels| route(labels) == Some(name)),
        };
        let parts = busiest.into_iter().map(part).collect();
        let latency = self.latency(anew, |_| true);
        let total = whole(total);
        let (took, errors) = (self.took(anew, |_| true), whole(errors).min(total));
        let requests = Requests { window: Duration::ZERO, total, errors, latency, took, parts };
        (requests, reset)
    }

    /// Errors by a metric of their own; if it has a status, only failures of the server.
    fn errors_of(&self, name: &str, anew: bool) -> f64 {
        let empty = Metric::default();
        let metric = self.page.metric(name).unwrap_or(&empty);
        let old = self.last.metric(name).unwrap_or(&empty);
        let status = status_label(metric);
        readings(metric)
            .filter(|(labels, _)| self.choice.counts(labels))
            .filter(|(labels, _)| status.is_none_or(|s| label_of(labels, s).and_then(failed) != Some(false)))
            .map(|(labels, new)| increment(old, metric, labels, new, anew))
            .sum()
    }

    /// Latencies of the series that are wanted.
    fn latency(&self, anew: bool, wanted: impl Fn(&Labels) -> bool) -> Latencies {
        let Some((name, metric)) =
            self.choice.latency.as_ref().and_then(|name| Some((name, self.page.metric(name)?)))
        else {
            return Latencies::default();
        };
        let empty = Metric::default();
        let old = self.last.metric(name).unwrap_or(&empty);
        let mut sums: Option<BTreeMap<u64, f64>> = None;
        for (labels, buckets) in metric.buckets.iter().filter(|(l, _)| self.choice.counts(l) && wanted(l)) {
            let before = old.buckets.get(labels);
            let anew = anew || newer(old, metric, labels);
            let more = bucket_increments(before.filter(|_| !anew), buckets);
            match (&mut sums, more) {
                (_, None) => {}
                (None, Some(more)) => sums = Some(more),
                (Some(sums), Some(more)) => {
                    sums.retain(|bound, _| more.contains_key(bound));
                    sums.iter_mut()
                        .for_each(|(bound, sum)| *sum += more.get(bound).copied().unwrap_or_default());
                }
            }
        }
        latencies(sums.unwrap_or_default(), self.unit(name, metric))
    }

    /// How long the requests of the series that are wanted took together. Nothing if nobody says in which unit.
    fn took(&self, anew: bool, wanted: impl Fn(&Labels) -> bool) -> Took {
        let Some((name, metric)) =
            self.choice.means.as_ref().and_then(|name| Some((name, self.page.metric(name)?)))
        else {
            return Took::default();
        };
        let told = metric.unit.as_deref().and_then(seconds_per_unit);
        let Some(unit) = self.choice.unit.or(told).or_else(|| seconds_per_unit(name)) else {
            return Took::default();
        };
        let empty = Metric::default();
        let old = self.last.metric(name).unwrap_or(&empty);
        let (mut requests, mut seconds) = (0.0, 0.0);
        for (labels, count) in metric.counts.iter().filter(|(l, _)| self.choice.counts(l) && wanted(l)) {
            let Some(sum) = metric.sums.get(labels) else { continue };
            // The count and the sum are one: if either began anew, both did.
            let before = old.counts.get(labels).copied().zip(old.sums.get(labels).copied());
            let before =
                before.filter(|(n, s)| !anew && count >= n && sum >= s && !newer(old, metric, labels));
            let (n, s) = before.unwrap_or_default();
            requests += count - n;
            seconds += (sum - s) * unit;
        }
        Took { requests: whole(requests), seconds }
    }

    fn unit(&self, name: &str, metric: &Metric) -> f64 {
        let told = metric.unit.as_deref().and_then(seconds_per_unit);
        self.choice.unit.or(told).or_else(|| seconds_per_unit(name)).unwrap_or_else(|| {
            let finite = metric.buckets.values().flat_map(BTreeMap::keys).map(|b| f64::from_bits(*b));
            let highest = finite.filter(|b| b.is_finite()).fold(0.0, f64::max);
            if highest >= SECONDS_MAX { 1e-3 } else { 1.0 }
        })
    }
}

/// What a metric counts, by series: its values, else its counts, else its highest buckets.
fn readings(metric: &Metric) -> Box<dyn Iterator<Item = (&Labels, f64)> + '_> {
    let values = if metric.values.is_empty() { &metric.counts } else { &metric.values };
    if values.is_empty() {
        let highest = metric.buckets.iter().filter_map(|(k, b)| Some((k, *b.get(&f64::INFINITY.to_bits())?)));
        return Box::new(highest);
    }
    Box::new(values.iter().map(|(k, v)| (k, *v)))
}

fn reading(metric: &Metric, labels: &Labels) -> Option<f64> {
    let values = if metric.values.is_empty() { &metric.counts } else { &metric.values };
    if values.is_empty() {
        return metric.buckets.get(labels)?.get(&f64::INFINITY.to_bits()).copied();
    }
    values.get(labels).copied()
}

fn increment(old: &Metric, metric: &Metric, labels: &Labels, new: f64, anew: bool) -> f64 {
    match reading(old, labels) {
        Some(before) if !anew && new >= before && !newer(old, metric, labels) => new - before,
        _ => new,
    }
}

/// Whether a series says itself that it began anew.
fn newer(old: &Metric, metric: &Metric, labels: &Labels) -> bool {
    let (before, now) = (old.created.get(labels), metric.created.get(labels));
    before.zip(now).is_some_and(|(before, now)| now - before > START_WOBBLE)
}

/// The increments of one histogram, cumulative; nothing if there were none.
fn bucket_increments(
    before: Option<&BTreeMap<u64, f64>>,
    buckets: &BTreeMap<u64, f64>,
) -> Option<BTreeMap<u64, f64>> {
    // Other bounds, or one that fell: it began anew.
    let before = before.filter(|before| {
        before.len() == buckets.len()
            && buckets.iter().all(|(b, new)| before.get(b).is_some_and(|old| new >= old))
    });
    let old = |bound: &u64| before.and_then(|before| before.get(bound)).copied().unwrap_or_default();
    let more: BTreeMap<u64, f64> = buckets.iter().map(|(bound, new)| (*bound, new - old(bound))).collect();
    more.values().any(|n| *n > 0.0).then_some(more)
}

/// Latencies from cumulative counts by the bits of their bounds. Nothing without `+Inf`; of too many bounds some.
pub(in crate::signal) fn latencies(sums: BTreeMap<u64, f64>, unit: f64) -> Latencies {
    // Above zero, floats are in the order of their bits.
    let mut found: Vec<(f64, f64)> = sums.into_iter().map(|(b, n)| (f64::from_bits(b), n)).collect();
    let Some((_, all)) = found.pop().filter(|(bound, _)| bound.is_infinite()) else {
        // Without `+Inf` nobody knows how many there were above the last bound.
        return Latencies::default();
    };
    let step = found.len().div_ceil(Latencies::BOUNDS_MAX).max(1);
    let last = found.len().saturating_sub(1);
    // The last bound stays: above it nothing can be told.
    let kept = found.into_iter().enumerate().filter(|(i, _)| (last - i).is_multiple_of(step)).map(|(_, b)| b);
    let mut latency = Latencies::default();
    let mut below = 0;
    for (bound, n) in kept {
        below = whole(n).max(below);
        latency.bounds.push(bound * unit);
        latency.counts.push(below);
    }
    latency.counts.push(whole(all).max(below));
    latency
}

/// Counts are whole; libraries that keep them as floats may be off by a hair.
fn whole(n: f64) -> u64 {
    n.round().max(0.0) as u64
}
