//! Requests, errors and latency by PromQL from a Prometheus server.
//!
//! **The window.** `increase(x[W])` sees only what lies between the first and the last scrape within `W`, and
//! extrapolates that to `W`. If each answer were about the time since the last one only, what happened between two
//! neighbouring windows would be seen by nobody. So `$window` is the time since the last answer *plus one interval*,
//! at least two intervals, and the numbers are taken for the share that is new. As long as the server scrapes no less
//! often than it is asked here, every increase is counted, and once in total; a sudden rise is spread over one
//! interval. What rounding cuts off is carried over to the next answer, so that one error in a minute is not lost.
//!
//! **No result.** A query for requests that gives nothing is not zero requests: nobody knows. With requests, a query
//! for errors that gives nothing is zero errors, for series of errors often appear with the first one.

mod client;
pub mod discover;

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use client::{PrometheusClient, Series};

use super::Probe;
use super::scrape::latencies;
use super::scrape::presets::{PRESETS, is_housekeeping, route_of, seconds_per_unit};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::sample::{Measurement, Part, Requests, Signal};
use crate::core::settings::{PromqlSource, Tls};
use crate::core::time::human;

/// After a gap longer than this, only the last interval is asked about: what is older has no bearing on now, and
/// Prometheus itself calls a series stale after five minutes.
const GAP_MAX: Duration = Duration::from_secs(300);

/// Series of one result that are looked at: `sum by (le)` gives a few dozen.
const SERIES_MAX: usize = 10_000;

/// A count above this is none: floats are no longer whole numbers there.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

/// Asks a Prometheus server for one service's requests, errors and latency.
#[derive(Debug)]
pub struct PromqlProbe {
    client: Result<PrometheusClient, String>,
    source: PromqlSource,
    clock: Clock,
    state: Mutex<State>,
}

/// What is carried from one answer to the next.
#[derive(Debug, Clone, Default)]
struct State {
    answered: Option<Timestamp>,
    /// What rounding cut off.
    rest: BTreeMap<Counted, f64>,
}

/// What is rounded: each kind has a rest of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    Total,
    Errors,
    Route(String),
    /// By the bits of the bound, which is above zero.
    Bucket(u64),
}

impl PromqlProbe {
    /// A probe for `source`.
    ///
    /// The process must have installed a rustls crypto provider before, or the one that is built in is installed.
    pub fn new(source: &PromqlSource, clock: Clock) -> Self {
        Self {
            client: PrometheusClient::of(source),
            source: source.clone(),
            clock,
            state: Mutex::new(State::default()),
        }
    }

    async fn ask(&self) -> Result<Requests, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.clock.now();
        let (elapsed, window) = windows(&state, now, self.source.interval);
        let share = elapsed.as_secs_f64() / window.as_secs_f64();
        let fill = |query: &str| query.replace("$window", &format!("{}s", window.as_secs()));

        let query = fill(&self.source.requests);
        let requests = vector(client.query(&query, None).await?, &query, "requests")?;
        // All questions are about the same moment, by the server's clock.
        let Some(at) = requests.first().and_then(|s| s.points.first()).map(|(at, _)| *at) else {
            return Err(format!(
                "the query for requests finds nothing within {}: either there were none yet, or the server scrapes \
                 less often than every {} (then raise the interval), or a name in it is wrong; try it with: promtool \
                 query instant {} '{query}'",
                human(window),
                human(self.source.interval),
                client.server()
            ));
        };
        let query = fill(&self.source.errors);
        let errors = vector(client.query(&query, Some(at)).await?, &query, "errors")?;
        let latency = match &self.source.latency {
            None => Vec::new(),
            Some(query) => {
                let query = fill(query);
                let found = vector(client.query(&query, Some(at)).await?, &query, "latency")?;
                buckets(&found, &query)?
            }
        };
        let found = state.count(&requests, &errors, &latency, share, elapsed);
        state.answered = Some(now);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(found)
    }
}

#[async_trait]
impl Probe for PromqlProbe {
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        let measured = match self.ask().await {
            Ok(requests) => Measurement::Requests(requests),
            Err(why) => Measurement::Unavailable { why },
        };
        vec![(Signal::Requests, measured)]
    }
}

/// Everything that happens to what a server answers, for fuzzing: `answers` come in threes, to the queries for requests,
/// errors and latency.
pub fn examine(answers: &[&[u8]]) -> Vec<Result<Requests, String>> {
    static CLIENT: LazyLock<Result<PrometheusClient, String>> = LazyLock::new(|| {
        PrometheusClient::new("http://localhost:9090", &Tls::default(), None, Duration::from_secs(1))
    });
    let mut state = State::default();
    let rounds = answers.chunks(3).map(|round| {
        let client = CLIENT.as_ref().map_err(Clone::clone)?;
        let read = |place: usize, what: &str| {
            let found = round.get(place).map_or(Ok(Vec::new()), |answer| client.examine(answer, what))?;
            vector(found, what, what)
        };
        let (requests, errors, latency) = (read(0, "requests")?, read(1, "errors")?, read(2, "latency")?);
        let latency = buckets(&latency, "latency")?;
        Ok(state.count(&requests, &errors, &latency, 0.5, Duration::from_secs(15)))
    });
    rounds.collect()
}

/// The time that is new, and the whole seconds that are asked about.
fn windows(state: &State, now: Timestamp, interval: Duration) -> (Duration, Duration) {
    let interval = interval.max(Duration::from_secs(1));
    let since = state.answered.map(|at| now.since(at)).filter(|since| *since <= GAP_MAX.max(interval));
    let elapsed = since.unwrap_or(interval).max(Duration::from_secs(1));
    let window = elapsed.max(interval) + interval;
    (elapsed, Duration::from_secs(window.as_secs() + u64::from(window.subsec_nanos() > 0)))
}

/// A result that is made of counts.
fn vector(found: Vec<Series>, query: &str, what: &str) -> Result<Vec<Series>, String> {
    if found.len() > SERIES_MAX {
        return Err(format!(
            "the query for {what} `{query}` gives {} series: put sum(...) around it",
            found.len()
        ));
    }
    for series in &found {
        if series.points.len() > 1 {
            return Err(format!(
                "the query for {what} `{query}` gives a range, not numbers: put increase(...) around it"
            ));
        }
        let value = series.points.first().map_or(f64::NAN, |(_, v)| *v);
        if !(0.0..=COUNT_MAX).contains(&value) {
            return Err(format!("the query for {what} `{query}` gives {value}, which is no count"));
        }
    }
    Ok(found)
}

/// Cumulative counts by bound in seconds, added up over all other labels.
fn buckets(found: &[Series], query: &str) -> Result<Vec<(f64, f64)>, String> {
    let unit = unit_of(query);
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for series in found {
        let bound = series.labels.get("le").and_then(|le| le.parse::<f64>().ok()).ok_or_else(|| {
            format!("the query for latency `{query}` gives no label `le`: write sum by (le) (increase(..._bucket[$window]))")
        })?;
        let value = series.points.first().map_or(0.0, |(_, v)| *v);
        if bound > 0.0 {
            *sums.entry((bound * unit).to_bits()).or_default() += value;
        }
    }
    // Above zero, floats are in the order of their bits.
    Ok(sums.into_iter().map(|(bits, sum)| (f64::from_bits(bits), sum)).collect())
}

/// The unit of the histogram that a query names: `..._milliseconds_bucket` is in milliseconds, and so is what a preset
/// knows to be; others are in seconds.
pub fn unit_of(query: &str) -> f64 {
    let known = |name: &str| PRESETS.iter().find(|preset| preset.latency.contains(&name))?.unit;
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter_map(|word| word.strip_suffix("_bucket"))
        .find_map(|name| seconds_per_unit(name).or_else(|| known(name)))
        .unwrap_or(1.0)
}

impl State {
    fn count(
        &mut self,
        requests: &[Series],
        errors: &[Series],
        buckets: &[(f64, f64)],
        share: f64,
        window: Duration,
    ) -> Requests {
        let value = |s: &Series| s.points.first().map_or(0.0, |(_, v)| *v) * share;
        let mut old = std::mem::take(&mut self.rest);
        let mut whole = |what: Counted, value: f64, rest: &mut BTreeMap<Counted, f64>| {
            let exact = value + old.remove(&what).unwrap_or_default();
            let rounded = exact.round().max(0.0);
            rest.insert(what, exact - rounded);
            rounded as u64
        };
        let user = |s: &&Series| !route_of(&s.labels).is_some_and(is_housekeeping);
        let mut routes: BTreeMap<&str, f64> = BTreeMap::new();
        for series in requests.iter().filter(user) {
            if let Some(route) = route_of(&series.labels) {
                *routes.entry(route).or_default() += value(series);
            }
        }
        let total = whole(Counted::Total, requests.iter().filter(user).map(value).sum(), &mut self.rest);
        let errors = whole(Counted::Errors, errors.iter().filter(user).map(value).sum(), &mut self.rest);
        let mut busiest: Vec<_> = routes.into_iter().collect();
        busiest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        busiest.truncate(Requests::PARTS_MAX);
        let parts = busiest.into_iter().map(|(route, value)| Part {
            route: route.to_owned(),
            total: whole(Counted::Route(route.to_owned()), value, &mut self.rest),
            ..Part::default()
        });
        let parts = parts.collect();
        let bucket = |(bound, value): &(f64, f64)| {
            let bits = bound.to_bits();
            (bits, whole(Counted::Bucket(bits), value * share, &mut self.rest) as f64)
        };
        let latency = latencies(buckets.iter().map(bucket).collect(), 1.0);
        if errors > total {
            // Rounding brought an error before its request: it waits for it.
            *self.rest.entry(Counted::Errors).or_default() += 1.0;
        }
        Requests { window, total, errors: errors.min(total), latency, parts, ..Requests::default() }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::sample::Latencies;

    use super::*;

    fn series(labels: &[(&str, &str)], value: f64) -> Series {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Series { labels, points: vec![(Timestamp::from_secs(1), value)] }
    }

    #[test]
    fn the_window_reaches_one_interval_further_back_than_the_last_answer() {
        let (interval, at) = (Duration::from_secs(15), Timestamp::from_secs);
        let secs = Duration::from_secs;
        let mut state = State::default();
        assert_eq!(windows(&state, at(100), interval), (secs(15), secs(30)), "the first");
        state.answered = Some(at(100));
        assert_eq!(windows(&state, at(115), interval), (secs(15), secs(30)));
        assert_eq!(windows(&state, at(160), interval), (secs(60), secs(75)), "after a gap");
        assert_eq!(windows(&state, at(3_000), interval), (secs(15), secs(30)), "after a long one");
        assert_eq!(windows(&state, at(105), interval), (secs(5), secs(30)), "too early");
        let late = at(100) + Duration::from_millis(15_200);
        assert_eq!(windows(&state, late, interval), (Duration::from_millis(15_200), secs(31)));
        assert_eq!(windows(&state, at(90), interval).0, secs(1), "before the last answer");
    }

    #[test]
    fn what_rounding_cuts_off_is_not_lost() {
        let mut state = State::default();
        let mut total = (0, 0);
        for _ in 0..8 {
            // A quarter of two requests is new each time, and a quarter of one error.
            let found =
                state.count(&[series(&[], 2.0)], &[series(&[], 1.0)], &[], 0.25, Duration::from_secs(15));
            total = (total.0 + found.total, total.1 + found.errors);
        }
        assert_eq!(total, (4, 2));
    }

    #[test]
    fn buckets_come_in_seconds_and_cumulative() {
        let query = "sum by (le) (increase(http_server_duration_milliseconds_bucket{job=\"a\"}[$window]))";
        let found =
            [series(&[("le", "100")], 3.0), series(&[("le", "+Inf")], 4.0), series(&[("le", "5.0")], 1.0)];
        let sums = buckets(&found, query).unwrap();
        assert_eq!(sums, [(0.005, 1.0), (0.1, 3.0), (f64::INFINITY, 4.0)]);
        let requests =
            [series(&[("handler", "/a"), ("code", "200")], 8.0), series(&[("handler", "/metrics")], 5.0)];
        let counted = State::default().count(&requests, &[], &sums, 1.0, Duration::from_secs(15));
        assert_eq!((counted.total, counted.errors), (8, 0));
        assert_eq!(counted.latency, Latencies { bounds: vec![0.005, 0.1], counts: vec![1, 3, 4] });
        assert_eq!(counted.parts.len(), 1);
        assert_eq!((counted.parts[0].route.as_str(), counted.parts[0].total), ("/a", 8));
        assert!(buckets(&[series(&[("code", "200")], 1.0)], query).unwrap_err().contains("no label `le`"));
        // Without +Inf nobody knows how many were slower than the last bound.
        let cut = State::default().count(&requests, &[], &sums[..2], 1.0, Duration::from_secs(15));
        assert!(cut.latency.is_empty());
    }

    #[test]
    fn a_unit_is_told_by_the_name_or_by_the_preset() {
        for (metric, unit) in [
            ("http_request_duration_seconds", 1.0),
            ("http_request_duration_ms", 1e-3),
            ("envoy_cluster_upstream_rq_time", 1e-3),
            ("somebody_s_latency", 1.0),
        ] {
            let query = format!("sum by (le) (increase({metric}_bucket{{job=\"a\"}}[$window]))");
            assert!((unit_of(&query) - unit).abs() < f64::EPSILON, "{metric}");
        }
    }

    #[test]
    fn what_is_no_count_is_said() {
        let refused = |value| vector(vec![series(&[], value)], "q", "errors").unwrap_err();
        assert_eq!(refused(f64::NAN), "the query for errors `q` gives NaN, which is no count");
        assert!(refused(-1.0).contains("gives -1"));
        assert!(refused(f64::INFINITY).contains("gives inf"));
        assert!(refused(1e300).contains("which is no count"), "two of them would be infinite");
        let mut range = series(&[], 1.0);
        range.points.push((Timestamp::from_secs(2), 2.0));
        assert!(vector(vec![range], "q", "errors").unwrap_err().contains("put increase(...) around it"));
        assert!(vector(vec![series(&[], 1.0); 20_000], "q", "errors").unwrap_err().contains("put sum(...)"));
    }
}
