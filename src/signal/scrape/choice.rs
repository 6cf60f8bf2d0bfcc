//! Which metrics of a page are taken for requests, errors and latency: those that the operator named, else those of
//! the first preset that fits. The same page always gives the same choice.

use super::presets::{
    PRESETS, Preset, ROUTE_LABELS, STATUS_LABELS, failed, is_housekeeping, preset, seconds_per_unit,
};
use super::text::{Labels, Metric, Page, Sought};
use crate::core::settings::MetricsSource;

/// Where the numbers come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    /// The metric that counts requests.
    pub(super) requests: String,
    pub(super) errors: Errors,
    /// The histogram of latencies.
    pub(super) latency: Option<String>,
    /// Where there is none: the summary of latencies, of which only sums and counts can be added up.
    pub(super) means: Option<String>,
    /// Its unit in seconds, where the preset knows it.
    pub(super) unit: Option<f64>,
    /// No series with one of these labels.
    pub(super) not: &'static [(&'static str, &'static str)],
    /// Only series with this label.
    pub(super) layer: Option<(&'static str, &'static str)>,
}

/// How errors are told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Errors {
    /// By this label of the requests.
    Status(&'static str),
    /// By a metric of their own. That it is not on the page yet means that there were none.
    Metric(String),
}

/// Everything that the source may need to know of a page.
pub(super) fn sought(source: &MetricsSource) -> Sought {
    let named = [&source.requests, &source.errors, &source.latency];
    let named = named.into_iter().flatten().map(|name| bare(name));
    let of = |p: &'static Preset| p.requests.iter().chain(p.errors).chain(p.latency).copied();
    Sought::new(named.chain(candidates(source).into_iter().flatten().flat_map(of)), &source.labels)
}

/// The presets that may fit, or that there is none of that name.
fn candidates(source: &MetricsSource) -> Result<Vec<&'static Preset>, String> {
    match source.preset.as_str() {
        // Whoever names the requests does not want them found elsewhere.
        "auto" if source.requests.is_some() => Ok(Vec::new()),
        "auto" => Ok(PRESETS.iter().collect()),
        name => preset(name).map(|p| vec![p]).ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|p| p.name).collect();
            format!("there is no preset {name:?}: use auto, {}", names.join(", "))
        }),
    }
}

/// The choice for a page.
///
/// # Errors
/// Nothing fits; in words, with what to configure.
pub(super) fn choose(source: &MetricsSource, page: &Page) -> Result<Choice, String> {
    let candidates = candidates(source)?;
    if let Some(name) = &source.requests {
        return named(source, page, name, candidates.first().copied());
    }
    // A preset whose latency is there too fits better than one that shares only the name of the requests.
    let mut whole = None;
    let mut with_means = None;
    let mut without_latency = None;
    let mut counted_only = None;
    for preset in &candidates {
        match fitting(source, page, preset) {
            Some(Ok(choice)) if choice.latency.is_some() || preset.latency.is_empty() => {
                whole = Some(choice);
                break;
            }
            Some(Ok(choice)) if choice.means.is_some() => with_means = with_means.or(Some(choice)),
            Some(Ok(choice)) => without_latency = without_latency.or(Some(choice)),
            Some(Err(why)) => counted_only = counted_only.or(Some(why)),
            None => {}
        }
    }
    whole
        .or(with_means)
        .or(without_latency)
        .ok_or_else(|| counted_only.unwrap_or_else(|| nothing(source, &candidates)))
}

/// What is not on the page, and what to do.
fn nothing(source: &MetricsSource, candidates: &[&Preset]) -> String {
    let names = match candidates {
        [one] => {
            let names: Vec<_> = one.requests.iter().map(|name| format!("`{name}`")).collect();
            format!("{} ({})", names.join(" nor "), one.name)
        }
        _ => "metrics of requests by any usual name".into(),
    };
    let labels: Vec<_> = source.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) };
    format!(
        "the page has no {names}{labels}: either no request was served yet, or metrics.requests must say what counts \
         them"
    )
}

/// The choice for requests that the operator named; the preset, if one was named too, fills the gaps.
fn named(
    source: &MetricsSource,
    page: &Page,
    name: &str,
    preset: Option<&'static Preset>,
) -> Result<Choice, String> {
    let requests = bare(name).to_owned();
    let metric = page.metric(&requests).filter(|m| m.has_series()).ok_or_else(|| {
        format!("the page has no series of `{name}`: either no request was served yet, or metrics.requests is wrong")
    })?;
    if metric.kind.as_deref() == Some("gauge") && bare(name) == name {
        return Err(format!("`{name}` is a gauge, which does not count: metrics.requests needs a counter"));
    }
    let errors = errors(source, page, metric, preset).ok_or_else(|| {
        format!("`{name}` does not tell which requests failed: it has no status label; set metrics.errors")
    })?;
    let own = (!metric.buckets.is_empty() || !metric.sums.is_empty()).then_some(requests.as_str());
    let (latency, means) = latency(
        source,
        page,
        own.into_iter().chain(preset.into_iter().flat_map(|p| p.latency.iter().copied())),
    )?;
    let unit = preset.and_then(|p| p.unit.filter(|_| source.latency.is_none()));
    let not = preset.map_or(&[][..], |p| p.not);
    Ok(Choice { requests, errors, latency, means, unit, not, layer: None })
}

/// The choice by a preset: nothing if it does not fit, an error if it fits but does not tell errors.
fn fitting(source: &MetricsSource, page: &Page, preset: &'static Preset) -> Option<Result<Choice, String>> {
    let mut there = preset.requests.iter().filter_map(|name| Some((*name, page.metric(name)?)));
    let mut counted_only = None;
    let found = there.find_map(|(name, metric)| {
        let layer = layer(metric, preset);
        if !metric.has_series() {
            return None;
        }
        let errors = errors(source, page, metric, Some(preset));
        if errors.is_none() {
            counted_only = Some(name);
        }
        errors.map(|errors| (name, errors, layer))
    });
    let Some((name, errors, layer)) = found else {
        return counted_only.map(|name| {
            Err(format!(
                "`{name}` ({}) counts requests but does not tell which failed: set metrics.errors, or read the access \
                 log instead",
                preset.name
            ))
        });
    };
    let unit = preset.unit.filter(|_| source.latency.is_none());
    let latency = latency(source, page, preset.latency.iter().copied());
    Some(latency.map(|(latency, means)| Choice {
        requests: name.to_owned(),
        errors,
        latency,
        means,
        unit,
        not: preset.not,
        layer,
    }))
}

fn layer(metric: &Metric, preset: &Preset) -> Option<(&'static str, &'static str)> {
    let (label, values) = preset.layers?;
    let is = |value: &str| keys(metric).any(|labels| label_of(labels, label) == Some(value));
    values.iter().find(|value| is(value)).map(|value| (label, *value))
}

fn errors(source: &MetricsSource, page: &Page, requests: &Metric, preset: Option<&Preset>) -> Option<Errors> {
    if let Some(name) = &source.errors {
        return Some(Errors::Metric(bare(name).to_owned()));
    }
    if let Some(label) = status_label(requests) {
        return Some(Errors::Status(label));
    }
    // A client library that writes the type before the first value says that there were none.
    let name = preset?.errors.iter().find(|name| page.metric(name).is_some())?;
    Some(Errors::Metric((*name).to_owned()))
}

/// The histogram of latencies, or else what tells their means; what the operator named must be one of both.
fn latency<'a>(
    source: &MetricsSource,
    page: &Page,
    names: impl Iterator<Item = &'a str>,
) -> Result<(Option<String>, Option<String>), String> {
    let there = |name: &str| page.metric(name).is_some_and(|m| !m.buckets.is_empty());
    let tells_means = |name: &str| page.metric(name).is_some_and(|m| !m.sums.is_empty());
    let Some(name) = &source.latency else {
        let names: Vec<&str> = names.collect();
        let found = names.iter().find(|name| there(name));
        let means = names.iter().find(|name| tells_means(name)).filter(|_| found.is_none());
        return Ok((found.map(|name| (*name).to_owned()), means.map(|name| (*name).to_owned())));
    };
    let kind = page.metric(bare(name)).and_then(|m| m.kind.as_deref());
    // Its type may be announced before the first request makes a series of it.
    if there(bare(name)) || kind == Some("histogram") {
        return Ok((Some(bare(name).to_owned()), None));
    }
    if tells_means(bare(name)) || kind == Some("summary") {
        return means(page, bare(name)).map(|name| (None, Some(name)));
    }
    Err(if page.metric(bare(name)).is_some_and(Metric::has_series) {
        format!("`{name}` has neither buckets nor a sum: metrics.latency needs a histogram or a summary")
    } else {
        format!(
            "the page has no series of `{name}`: either no request was served yet, or metrics.latency is wrong"
        )
    })
}

/// The summary that the operator named, if it tells in which unit it is.
fn means(page: &Page, name: &str) -> Result<String, String> {
    let unit = page.metric(name).and_then(|metric| metric.unit.as_deref()).unwrap_or(name);
    match seconds_per_unit(unit).or_else(|| seconds_per_unit(name)) {
        Some(_) => Ok(name.to_owned()),
        None => Err(format!(
            "`{name}` is a summary and does not tell its unit: metrics.latency needs one whose name ends in _seconds, \
             _milliseconds or the like, or a histogram"
        )),
    }
}

/// The label that holds the status: the first one of which any value is a status.
pub(super) fn status_label(metric: &Metric) -> Option<&'static str> {
    let holds = |label: &str| keys(metric).any(|labels| label_of(labels, label).and_then(failed).is_some());
    STATUS_LABELS.iter().copied().find(|label| holds(label))
}

fn keys(metric: &Metric) -> impl Iterator<Item = &Labels> {
    metric.values.keys().chain(metric.counts.keys()).chain(metric.buckets.keys())
}

/// The value of a label.
pub(super) fn label_of<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
}

/// The route of a series.
pub(super) fn route(labels: &Labels) -> Option<&str> {
    ROUTE_LABELS.iter().find_map(|name| label_of(labels, name))
}

impl Choice {
    /// Whether a series is about requests of users, and counts them once.
    pub(super) fn counts(&self, labels: &Labels) -> bool {
        let is = |(label, value): &(&str, &str)| label_of(labels, label) == Some(*value);
        self.layer.as_ref().is_none_or(is)
            && !self.not.iter().any(is)
            && !route(labels).is_some_and(is_housekeeping)
    }
}

/// A name without what the text format appends.
fn bare(name: &str) -> &str {
    ["_total", "_count", "_bucket", "_sum"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}
