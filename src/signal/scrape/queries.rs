//! Queries to a Prometheus server for what it has scraped already: the choice that is made of a metrics page, made of the
//! names and labels that the server knows, and said in PromQL.

use std::collections::{BTreeMap, BTreeSet};

use super::choice::{self, Choice, Errors};
use super::presets::{PRESETS, Preset, ROUTE_LABELS, failures, is_housekeeping};
use super::text::{self, Page, SERIES_MAX};
use crate::core::settings::{MetricsSource, Target};

/// What may be appended to the name of what counts requests, the usual first. A histogram whose count was dropped is
/// counted by its last bucket.
const COUNTED_AS: [&str; 4] = ["_total", "", "_count", "_bucket"];
/// The bucket that everything is in.
const ALL: (&str, &str) = ("le", "+Inf");
/// Values of one label that are left out by name: a service has a handful of addresses for machines.
const LEFT_OUT_MAX: usize = 50;

/// A series as a server lists it: its labels, `__name__` among them.
pub type Listed = BTreeMap<String, String>;

/// The queries for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// How many requests ended within `$window`.
    pub requests: String,
    /// How many of them failed.
    pub errors: String,
    /// How many were not slower than each bound, if there is a histogram.
    pub latency: Option<String>,
    /// The series that count requests, without a range: what tells how often they are scraped.
    pub counted: String,
}

/// Why the series of a service give no queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// None of them counts requests.
    Requests,
    /// This one does, and nothing tells which requests failed.
    Errors(String),
}

/// Selectors of every series that any preset looks for, among those that `matcher` chooses. Of histograms one bucket is
/// enough.
pub fn selectors(matcher: &str) -> [String; 2] {
    let with = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join("|");
    let of = |list: fn(&Preset) -> &'static [&'static str]| -> BTreeSet<&'static str> {
        PRESETS.iter().flat_map(|preset| list(preset).iter().copied()).collect()
    };
    let (requests, errors, latency) = (of(|p| p.requests), of(|p| p.errors), of(|p| p.latency));
    let counters = with(&requests.union(&errors).copied().collect());
    let histograms = with(&requests.union(&latency).copied().collect());
    let matcher = if matcher.is_empty() { String::new() } else { format!(",{matcher}") };
    [
        format!("{{__name__=~\"(?:{counters})(?:_total|_count)?\"{matcher}}}"),
        format!("{{__name__=~\"(?:{histograms})_bucket\",{}={}{matcher}}}", ALL.0, quoted(ALL.1)),
    ]
}

/// The queries for the service whose series are `listed`, all of which have what `matcher` asks for.
///
/// # Errors
/// What is missing.
pub fn queries(listed: &[Listed], matcher: &str) -> Result<Queries, Missing> {
    let source = anything();
    let page = page(listed, &source).ok_or(Missing::Requests)?;
    let choice = choice::choose(&source, &page).map_err(|_| missing(&page))?;
    let full = |bare: &str| {
        let there = |name: &String| listed.iter().any(|series| series.get("__name__") == Some(name));
        COUNTED_AS.iter().map(|suffix| format!("{bare}{suffix}")).find(there)
    };
    let of = Of { listed, matcher, choice: &choice };
    let name = full(&choice.requests).ok_or(Missing::Requests)?;
    let all = name.ends_with("_bucket").then(|| format!("{}={}", ALL.0, quoted(ALL.1)));
    let counted = of.selector(&name, all.clone());
    let errors = match &choice.errors {
        Errors::Status(label) => {
            let values = of.series(&name).filter_map(|series| series.get(*label)).map(String::as_str);
            let failed = format!("{label}=~{}", quoted(&failures(label, values)));
            of.selector(&name, all.into_iter().chain([failed]))
        }
        Errors::Metric(bare) => of.selector(&full(bare).unwrap_or_else(|| format!("{bare}_total")), None),
    };
    let sum = |selector: &str| format!("sum(increase({selector}[$window]))");
    let latency = choice.latency.as_ref().map(|bare| {
        format!("sum by (le) (increase({}[$window]))", of.selector(&format!("{bare}_bucket"), None))
    });
    Ok(Queries { requests: sum(&counted), errors: sum(&errors), latency, counted })
}

/// A text as PromQL writes it.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The settings of somebody who says nothing.
fn anything() -> MetricsSource {
    MetricsSource::auto(Target::Url(String::new()), std::time::Duration::ZERO, std::time::Duration::ZERO)
}

/// The series as if they stood on a metrics page, so that the same are chosen as there. None if there is nothing to read.
fn page(listed: &[Listed], source: &MetricsSource) -> Option<Page> {
    let mut body = String::new();
    for series in listed.iter().take(SERIES_MAX) {
        let Some(name) = series.get("__name__") else { continue };
        let labels = series.iter().filter(|(label, _)| *label != "__name__");
        let labels: Vec<String> = labels.map(|(label, value)| format!("{label}={}", quoted(value))).collect();
        body.push_str(&format!("{name}{{{}}} 0\n", labels.join(",")));
    }
    text::scan(body.as_bytes(), &choice::sought(source), "text/plain").ok()
}

/// What the series lack, of which nothing could be chosen.
fn missing(page: &Page) -> Missing {
    let counts = |name: &&&str| page.metric(name).is_some_and(text::Metric::has_series);
    let counted = PRESETS.iter().flat_map(|preset| preset.requests).find(counts);
    counted.map_or(Missing::Requests, |name| Missing::Errors((*name).to_owned()))
}

/// Selectors for one choice.
struct Of<'a> {
    listed: &'a [Listed],
    matcher: &'a str,
    choice: &'a Choice,
}

impl Of<'_> {
    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Listed> {
        self.listed.iter().filter(move |series| series.get("__name__").is_some_and(|is| is == name))
    }

    /// The series of this name that are about requests of users, and count them once. Only what was seen is left out by
    /// name, so that the query stays as short as people would write it.
    fn selector(&self, name: &str, more: impl IntoIterator<Item = String>) -> String {
        let mut left_out: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for series in self.series(name) {
            let route = ROUTE_LABELS
                .iter()
                .find_map(|label| Some((*label, series.get(*label)?)))
                .filter(|(_, route)| is_housekeeping(route));
            let twice = self
                .choice
                .not
                .iter()
                .filter(|(label, is)| series.get(*label).is_some_and(|value| value == is));
            let of = route.map(|(label, value)| (label, value.as_str())).into_iter().chain(twice.copied());
            of.for_each(|(label, value)| _ = left_out.entry(label).or_default().insert(value));
        }
        let mut matchers = vec![self.matcher.to_owned()];
        matchers.extend(self.choice.layer.map(|(label, is)| format!("{label}={}", quoted(is))));
        matchers.extend(left_out.iter().map(|(label, values)| {
            match values.iter().take(LEFT_OUT_MAX).collect::<Vec<_>>().as_slice() {
                [one] => format!("{label}!={}", quoted(one)),
                several => {
                    let several: Vec<String> = several.iter().map(|value| regex::escape(value)).collect();
                    format!("{label}!~{}", quoted(&several.join("|")))
                }
            }
        }));
        matchers.extend(more);
        format!("{name}{{{}}}", matchers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(series: &[(&str, &[(&str, &str)])]) -> Vec<Listed> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let of = |(name, labels): &(&str, &[(&str, &str)])| {
            labels.iter().chain(&[("__name__", *name), ("job", "api")]).map(owned).collect()
        };
        series.iter().map(of).collect()
    }

    fn chosen(series: &[(&str, &[(&str, &str)])]) -> Queries {
        queries(&listed(series), "job=\"api\"").unwrap()
    }

    #[test]
    fn a_counter_with_a_status_and_a_histogram_become_three_queries() {
        let found = chosen(&[
            ("http_requests_total", &[("code", "200"), ("handler", "/orders")]),
            ("http_requests_total", &[("code", "200"), ("handler", "/metrics")]),
            ("http_requests_total", &[("code", "200"), ("handler", "/healthz")]),
            ("http_request_duration_seconds_bucket", &[("le", "+Inf"), ("handler", "/healthz")]),
            ("http_request_duration_seconds_count", &[("handler", "/healthz")]),
        ]);
        let left = "{job=\"api\",handler!~\"/healthz|/metrics\"";
        assert_eq!(found.counted, format!("http_requests_total{left}}}"));
        assert_eq!(found.requests, format!("sum(increase(http_requests_total{left}}}[$window]))"));
        assert_eq!(
            found.errors,
            format!("sum(increase(http_requests_total{left},code=~\"5..\"}}[$window]))")
        );
        assert_eq!(
            found.latency.unwrap(),
            "sum by (le) (increase(http_request_duration_seconds_bucket{job=\"api\",handler!=\"/healthz\"}[$window]))"
        );
    }

    #[test]
    fn one_histogram_counts_by_its_count_or_else_by_its_last_bucket() {
        let status: &[(&str, &str)] = &[("status", "500"), ("outcome", "SERVER_ERROR")];
        let bucket: &[(&str, &str)] = &[("status", "500"), ("le", "+Inf")];
        let (count, buckets) = ("http_server_requests_seconds_count", "http_server_requests_seconds_bucket");
        let found = chosen(&[(count, status), (buckets, bucket)]);
        assert_eq!(found.counted, "http_server_requests_seconds_count{job=\"api\"}");
        assert!(found.errors.contains("_count{job=\"api\",status=~\"5..\"}"), "{found:?}");
        let found = chosen(&[(buckets, bucket)]);
        assert_eq!(found.counted, "http_server_requests_seconds_bucket{job=\"api\",le=\"+Inf\"}");
        assert!(found.errors.contains("{job=\"api\",le=\"+Inf\",status=~\"5..\"}"), "{found:?}");
        assert!(found.latency.unwrap().contains("_bucket{job=\"api\"}"));
    }

    #[test]
    fn what_counts_a_request_twice_is_left_out_and_layers_are_told_apart() {
        let found = chosen(&[
            ("nginx_vts_server_requests_total", &[("code", "2xx"), ("host", "shop.example")]),
            ("nginx_vts_server_requests_total", &[("code", "2xx"), ("host", "*")]),
            ("nginx_vts_server_requests_total", &[("code", "total"), ("host", "shop.example")]),
        ]);
        assert_eq!(
            found.errors,
            "sum(increase(nginx_vts_server_requests_total{job=\"api\",code!=\"total\",host!=\"*\",code=~\"5xx\"}[$window]))"
        );
        assert_eq!(found.latency, None);
        let caddy = "caddy_http_request_duration_seconds_bucket";
        let of = |handler| [("code", "200"), ("handler", handler), ("le", "+Inf")];
        let found = chosen(&[(caddy, &of("static_response")), (caddy, &of("subroute"))]);
        assert!(found.latency.unwrap().contains("{job=\"api\",handler=\"subroute\"}"));
    }

    #[test]
    fn requests_without_a_status_need_a_counter_of_errors() {
        let found = chosen(&[("http_requests_total", &[]), ("http_errors_total", &[])]);
        assert_eq!(found.errors, "sum(increase(http_errors_total{job=\"api\"}[$window]))");
        let of = |series: &[(&str, &[(&str, &str)])]| queries(&listed(series), "job=\"api\"").unwrap_err();
        assert_eq!(of(&[("nginx_http_requests_total", &[])]), Missing::Errors("nginx_http_requests".into()));
        assert_eq!(of(&[("go_goroutines", &[])]), Missing::Requests);
        assert_eq!(of(&[]), Missing::Requests);
    }

    #[test]
    fn every_preset_is_looked_for_and_values_are_quoted() {
        let [counters, histograms] = selectors("job=\"api\"");
        for preset in PRESETS {
            for name in preset.requests {
                assert!(counters.contains(name) && histograms.contains(name), "{name}");
            }
        }
        assert!(histograms.ends_with(",le=\"+Inf\",job=\"api\"}"), "{histograms}");
        assert!(counters.len() + histograms.len() < 6_000, "proxies refuse longer addresses");
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }
}
