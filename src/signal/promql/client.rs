//! The client of a Prometheus server's query API.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::core::Timestamp;
use crate::core::settings::{PromqlSource, Tls};
use crate::signal::fetch::{Answer, Fetch, parse_url, shown, status_line};
use crate::signal::tls;

/// Prometheus refuses more than 11,000 points a series (`web/api/v1`); both ends count, so this leaves room.
const POINTS_MAX: u64 = 10_000;

/// The most points of one [`PrometheusClient::query_range`]: a month of 50 series every 30 s, some 70 MB.
const POINTS_KEPT_MAX: usize = 5_000_000;

/// The most bytes of one answer: a full chunk of 200 series is 60 MB.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// Series that are listed at most: which labels they have is told by far fewer.
const LISTED_MAX: usize = 20_000;

/// Of an answer that is no answer, this many characters are shown.
const SHOWN_MAX: usize = 200;

/// Asks one Prometheus server, or whatever speaks its API: Thanos, Mimir, VictoriaMetrics.
#[derive(Debug, Clone)]
pub struct PrometheusClient {
    base: Url,
    fetch: Fetch,
}

/// One series of a query's result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Its labels, `__name__` among them if the query kept it.
    pub labels: BTreeMap<String, String>,
    /// Its values in order of time. They may be NaN or infinite.
    pub points: Vec<(Timestamp, f64)>,
}

impl PrometheusClient {
    /// A client of the server at `url` (`http://prometheus:9090`, or with a path in front of `/api/v1`). User and
    /// password may stand in the URL; a bearer token is read from `token_file` at every query.
    ///
    /// # Errors
    /// The URL or the TLS files cannot be used; in words.
    pub fn new(url: &str, tls: &Tls, token_file: Option<PathBuf>, timeout: Duration) -> Result<Self, String> {
        let mut base = parse_url(url, "the Prometheus URL")?;
        base.set_query(None);
        base.set_fragment(None);
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&format!("{path}/api/v1/"));
        let client = tls::client(tls, false)?;
        Ok(Self { base, fetch: Fetch { client, token_file, timeout, limit: BODY_MAX } })
    }

    /// A client for a configured source.
    ///
    /// # Errors
    /// As [`PrometheusClient::new`].
    pub fn of(source: &PromqlSource) -> Result<Self, String> {
        Self::new(&source.url, &source.tls, source.token_file.clone(), source.timeout)
    }

    /// What `query` gives at `time`, or now: each series has one point. A scalar is a series without labels.
    ///
    /// # Errors
    /// Why there is no result, in words and with the next command where there is one.
    pub async fn query(&self, query: &str, time: Option<Timestamp>) -> Result<Vec<Series>, String> {
        let mut parameters = vec![("query", query.to_owned())];
        parameters.extend(time.map(|t| ("time", seconds(t))));
        self.ask::<Data>("query", &parameters, query).await?.series()
    }

    /// What `query` gives from `start` to `end`, both included, every `step`. Long ranges are asked for in parts, so
    /// that each stays below the 11,000 points that Prometheus allows; a series has gaps where it had no value.
    ///
    /// # Errors
    /// As [`PrometheusClient::query`]; and a range that ends before it starts, a step below a millisecond, or more
    /// than five million points.
    pub async fn query_range(
        &self,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<Vec<Series>, String> {
        let mut all: Vec<Series> = Vec::new();
        let mut places: HashMap<BTreeMap<String, String>, usize> = HashMap::new();
        let mut points = 0;
        for (from, to) in chunks(start, end, step)? {
            let parameters = [
                ("query", query.to_owned()),
                ("start", seconds(from)),
                ("end", seconds(to)),
                ("step", format!("{}", step.as_secs_f64())),
            ];
            for series in self.ask::<Data>("query_range", &parameters, query).await?.series()? {
                points += series.points.len();
                if points > POINTS_KEPT_MAX {
                    return Err(format!(
                        "the query `{query}` gives more than {POINTS_KEPT_MAX} points: aggregate it with sum by (...), \
                         or take a shorter range or a longer step"
                    ));
                }
                let place = *places.entry(series.labels.clone()).or_insert(all.len());
                match all.get_mut(place) {
                    Some(known) => known.points.extend(series.points),
                    None => all.push(series),
                }
            }
        }
        Ok(all)
    }

    /// The labels of every series that one of `selectors` chooses and that had a value between `start` and `end`; their
    /// names are among them, as `__name__`. `about` is what is said to have been asked, if the server refuses.
    ///
    /// # Errors
    /// As [`PrometheusClient::query`].
    pub async fn listed(
        &self,
        selectors: &[String],
        (start, end): (Timestamp, Timestamp),
        about: &str,
    ) -> Result<Vec<BTreeMap<String, String>>, String> {
        self.ask("series", &matching(selectors, start, end), about).await
    }

    /// The values of `label` among these series.
    ///
    /// # Errors
    /// As [`PrometheusClient::query`].
    pub async fn values(
        &self,
        label: &str,
        selectors: &[String],
        (start, end): (Timestamp, Timestamp),
    ) -> Result<Vec<String>, String> {
        self.ask(&format!("label/{label}/values"), &matching(selectors, start, end), label).await
    }

    /// The server for people, without credentials.
    pub fn server(&self) -> String {
        shown(&self.base).trim_end_matches("/api/v1/").to_owned()
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        parameters: &[(&str, String)],
        query: &str,
    ) -> Result<T, String> {
        let mut url = self.base.join(what).map_err(|e| format!("the Prometheus URL cannot be used: {e}"))?;
        url.query_pairs_mut().extend_pairs(parameters);
        let answer = self.fetch.get(url, "application/json").await;
        let answer = answer.map_err(|why| format!("Prometheus at {}: {why}", self.server()))?;
        self.understand(&answer, query)
    }

    /// What an answer would have been read as.
    pub(super) fn examine(&self, body: &[u8], query: &str) -> Result<Vec<Series>, String> {
        let content_type = "application/json".to_owned();
        let answer = Answer { status: StatusCode::OK, content_type, body: body.to_vec() };
        self.understand::<Data>(&answer, query)?.series()
    }

    /// Errors come as JSON too, whatever the status: 400 and 422 for the query, 503 for one that took too long.
    fn understand<T: DeserializeOwned>(&self, answer: &Answer, query: &str) -> Result<T, String> {
        let server = self.server();
        match serde_json::from_slice::<Envelope<T>>(&answer.body) {
            Ok(Envelope { status, data: Some(data), .. }) if status == "success" => Ok(data),
            Ok(Envelope { error: Some(error), error_type, .. }) => Err(format!(
                "Prometheus at {server} refused the query `{query}`: {}: {}; try it with: promtool query instant \
                 {server} '{query}'",
                error_type.as_deref().unwrap_or("error"),
                one_line(&error)
            )),
            _ if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(format!(
                "Prometheus at {server} answered {}: configure a token_file whose token it accepts",
                status_line(answer.status)
            )),
            _ => Err(format!(
                "what answers at {server} is no Prometheus: {}, {}, beginning with \"{}\"",
                status_line(answer.status),
                if answer.content_type.is_empty() { "no content type" } else { &answer.content_type },
                one_line(&String::from_utf8_lossy(&answer.body))
            )),
        }
    }
}

/// The parts of a range, each of at most [`POINTS_MAX`] points; none is asked for twice.
fn chunks(start: Timestamp, end: Timestamp, step: Duration) -> Result<Vec<(Timestamp, Timestamp)>, String> {
    let step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
    let (first, last) = (start.as_millis(), end.as_millis());
    if step == 0 {
        return Err("the step of a query must be a millisecond at least".into());
    }
    if last < first {
        return Err("the range of a query ends before it starts".into());
    }
    let length = step.saturating_mul(POINTS_MAX - 1);
    let parts = (last - first) / length.saturating_add(step) + 1;
    if parts > POINTS_KEPT_MAX as u64 / POINTS_MAX {
        return Err(format!(
            "a range of {} steps is too long: take a shorter range or a longer step",
            (last - first) / step
        ));
    }
    let mut found = Vec::new();
    let mut from = first;
    while from <= last {
        let to = from.saturating_add(length).min(last);
        found.push((Timestamp::from_millis(from), Timestamp::from_millis(to)));
        let Some(next) = from.checked_add(length).and_then(|t| t.checked_add(step)) else { break };
        from = next;
    }
    Ok(found)
}

/// What asks for series by selectors. Servers that know no limit pass over it.
fn matching(selectors: &[String], start: Timestamp, end: Timestamp) -> Vec<(&'static str, String)> {
    let mut parameters: Vec<_> = selectors.iter().map(|selector| ("match[]", selector.clone())).collect();
    parameters.extend([("start", seconds(start)), ("end", seconds(end)), ("limit", LISTED_MAX.to_string())]);
    parameters
}

/// Seconds since the epoch, as Prometheus takes them.
fn seconds(t: Timestamp) -> String {
    format!("{}.{:03}", t.as_millis() / 1000, t.as_millis() % 1000)
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    status: String,
    data: Option<T>,
    error_type: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "resultType", content = "result")]
enum Data {
    Vector(Vec<Instant>),
    Matrix(Vec<Range>),
    Scalar(Point),
    String(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Instant {
    metric: BTreeMap<String, String>,
    value: Option<Point>,
}

#[derive(Debug, Deserialize)]
struct Range {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Point>,
}

/// A time in seconds and a value as text, which may be `NaN` or `+Inf`.
#[derive(Debug, Deserialize)]
struct Point(f64, String);

impl Point {
    fn read(&self) -> Result<(Timestamp, f64), String> {
        let value = self.1.parse().map_err(|_| format!("Prometheus gave {:?} for a number", self.1))?;
        // A float's whole milliseconds: saturating, so that nonsense stays a time.
        Ok((Timestamp::from_millis((self.0 * 1000.0).round() as u64), value))
    }
}

impl Data {
    fn series(self) -> Result<Vec<Series>, String> {
        match self {
            Self::Vector(found) => found
                .into_iter()
                // A native histogram has no `value`.
                .filter_map(|i| i.value.map(|v| (i.metric, v)))
                .map(|(labels, value)| Ok(Series { labels, points: vec![value.read()?] }))
                .collect(),
            Self::Matrix(found) => found
                .into_iter()
                .map(|r| {
                    let points = r.values.iter().map(Point::read).collect::<Result<_, _>>()?;
                    Ok(Series { labels: r.metric, points })
                })
                .collect(),
            Self::Scalar(value) => Ok(vec![Series { labels: BTreeMap::new(), points: vec![value.read()?] }]),
            Self::String(_) => Err("the query gives a text, not numbers".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_range_is_cut_into_parts_that_prometheus_takes() {
        let at = Timestamp::from_secs;
        let step = Duration::from_secs(15);
        assert_eq!(chunks(at(0), at(0), step).unwrap(), [(at(0), at(0))]);
        assert_eq!(chunks(at(0), at(100), step).unwrap(), [(at(0), at(100))]);
        let month = chunks(at(0), at(30 * 86_400), step).unwrap();
        assert_eq!(month.len(), 18);
        assert_eq!((month[0].0, month[17].1), (at(0), at(30 * 86_400)));
        for pair in month.windows(2) {
            assert_eq!(pair[0].1 + step, pair[1].0, "no point is missing and none is asked for twice");
        }
        for (from, to) in month {
            assert!(to.since(from).as_secs() / 15 < 11_000);
        }
        assert!(chunks(at(1), at(0), step).unwrap_err().contains("ends before it starts"));
        assert!(chunks(at(0), at(1), Duration::ZERO).unwrap_err().contains("a millisecond at least"));
        assert!(chunks(at(0), at(1 << 40), step).unwrap_err().contains("too long"));
    }
}
