//! Where requests, errors and latency come from, as typed, to sources that hold.

use std::time::Duration;

use super::checks::{kept, no_pile, on_replica, tls};
use super::file::{Metrics, Prometheus, Service};
use super::resolve::Resolving;
use crate::core::settings::{LogSource, MetricsSource, PromqlSource, Target};

/// Five seconds: each quarter of the shortest window that is judged, thirty seconds, has an answer of its own, and a
/// page of metrics costs its application far less than one request in five seconds.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// Three seconds: pages of metrics are large, and an application under load is slow.
const METRICS_TIMEOUT: Duration = Duration::from_secs(3);
/// Where client libraries put it.
const METRICS_PATH: &str = "/metrics";

/// Fifteen seconds: how often Prometheus servers scrape; asked more often they say the same again.
const PROMETHEUS_INTERVAL: Duration = Duration::from_secs(15);
/// Five seconds: a query that takes longer is about too many series.
const PROMETHEUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What stands in a query for the name of the service.
const SERVICE: &str = "$service";

/// The service's own metrics, if it is said where they are.
pub(super) fn metrics(
    typed: &Service,
    layers: &[&Service],
    resolving: &mut Resolving<'_>,
) -> Option<MetricsSource> {
    for layer in layers.iter().filter_map(|layer| layer.metrics.as_ref()) {
        two_addresses(layer, resolving);
    }
    let typed = typed.metrics.as_ref().filter(|metrics| metrics.enabled != Some(false))?;
    let interval = typed.interval.map_or(METRICS_INTERVAL, |span| span.0);
    let timeout = typed.timeout.map_or(METRICS_TIMEOUT, |span| span.0);
    no_pile("metrics", interval, timeout, resolving);
    let target = match (&typed.url, typed.port) {
        (Some(url), _) => Target::Url(url.0.clone()),
        (None, Some(port)) => {
            on_replica(port.0, typed.path.as_ref().map_or(METRICS_PATH, |path| path.0.as_str()))?
        }
        (None, None) => return None,
    };
    let context = resolving.context;
    let token_file = match &typed.token_file {
        Some(file) => Some(kept("metrics.token_file", file, context, resolving)?),
        None => None,
    };
    let name = |name: &Option<super::series::MetricName>| name.as_ref().map(|name| name.0.clone());
    Some(MetricsSource {
        target,
        interval,
        timeout,
        token_file,
        tls: tls(typed.ca_file.as_ref().map(|file| file.0.as_str()), typed.insecure),
        preset: typed.preset.as_ref().map_or_else(|| "auto".to_owned(), |preset| preset.0.clone()),
        requests: name(&typed.requests),
        errors: name(&typed.errors),
        latency: name(&typed.latency),
        labels: typed.labels.iter().flatten().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
    })
}

fn two_addresses(layer: &Metrics, resolving: &mut Resolving<'_>) {
    let second = match (&layer.url, layer.port, &layer.path) {
        (Some(_), Some(_), _) => "metrics.port",
        (Some(_), None, Some(_)) => "metrics.path",
        (Some(_), None, None) | (None, ..) => return,
    };
    resolving.clash(
        &["metrics.url", second],
        format!("{second} is set too"),
        "either the url (one address for the whole service) or port and path (on every replica) would be right",
    );
}

/// Queries to a Prometheus server, if there are any.
pub(super) fn prometheus(
    typed: &Service,
    layers: &[&Service],
    resolving: &mut Resolving<'_>,
) -> Option<PromqlSource> {
    let typed = typed.prometheus.as_ref().filter(|prometheus| prometheus.enabled != Some(false))?;
    let interval = typed.interval.map_or(PROMETHEUS_INTERVAL, |span| span.0);
    let timeout = typed.timeout.map_or(PROMETHEUS_TIMEOUT, |span| span.0);
    no_pile("prometheus", interval, timeout, resolving);
    missing_parts(typed, layers, resolving);
    let (url, requests, errors) = (typed.url.as_ref()?, typed.requests.as_ref()?, typed.errors.as_ref()?);
    let context = resolving.context;
    let token_file = match &typed.token_file {
        Some(file) => Some(kept("prometheus.token_file", file, context, resolving)?),
        None => None,
    };
    let query = |query: &super::series::Query| query.0.replace(SERVICE, context.service.unwrap_or(SERVICE));
    Some(PromqlSource {
        url: url.0.clone(),
        interval,
        timeout,
        token_file,
        tls: tls(typed.ca_file.as_ref().map(|file| file.0.as_str()), typed.insecure),
        requests: query(requests),
        errors: query(errors),
        latency: typed.latency.as_ref().map(query),
    })
}

/// What a source lacks. In `[defaults]` alone that is a part for others to complete.
fn missing_parts(typed: &Prometheus, layers: &[&Service], resolving: &mut Resolving<'_>) {
    let parts = ["url", "requests", "errors"];
    let asks = ["requests", "errors", "latency"];
    let above = || layers.iter().skip(1).filter_map(|layer| layer.prometheus.as_ref());
    let set_above = |key: &&&str| above().any(|layer| layer.has(key));
    let Some(first) = asks.iter().chain(&["url"]).find(set_above) else {
        return;
    };
    for part in parts.iter().filter(|part| !typed.has(part)) {
        let right = match *part {
            "url" => "set the server's address too, as in \"http://prometheus:9090\"".to_owned(),
            part => format!("set prometheus.{part} too: a share of failed requests needs both counts"),
        };
        resolving.clash(
            &[&format!("prometheus.{first}"), &format!("prometheus.{part}")],
            format!("is set without prometheus.{part}"),
            right,
        );
    }
}

/// What is read from the logs.
pub(super) fn logs(typed: &Service, base: LogSource) -> LogSource {
    let typed = typed.logs.clone().unwrap_or_default();
    LogSource {
        enabled: typed.enabled.unwrap_or(base.enabled),
        error: typed.error.map_or(base.error, |pattern| pattern.0),
        access: typed.access.unwrap_or(base.access),
        latency_unit: typed.latency_unit.unwrap_or(base.latency_unit),
        interval: typed.interval.map_or(base.interval, |span| span.0),
    }
}

/// The labels that an alert about this service has.
pub(super) fn alert_labels(
    typed: &Service,
    layers: &[&Service],
    resolving: &mut Resolving<'_>,
) -> Vec<(String, String)> {
    let named = |labels: &std::collections::BTreeMap<String, super::series::AlertLabel>| {
        labels.values().any(|value| value.0.contains(SERVICE))
    };
    let own =
        layers.iter().skip(1).any(|layer| layer.alert_labels.as_ref().is_some_and(|own| !own.is_empty()));
    if let Some(labels) =
        typed.alert_labels.as_ref().filter(|labels| !labels.is_empty() && !named(labels) && !own)
    {
        let first = labels.keys().next().map_or("", String::as_str);
        resolving.clash(
            &[&format!("alert_labels.{first}")],
            "every alert with these labels would be about every service",
            "one value with $service in it would be right, as in app = \"$service\", or labels in [services.NAME]",
        );
    }
    let name = resolving.context.service.unwrap_or(SERVICE);
    let labels = typed.alert_labels.iter().flatten();
    labels.map(|(label, value)| (label.clone(), value.0.replace(SERVICE, name))).collect()
}
