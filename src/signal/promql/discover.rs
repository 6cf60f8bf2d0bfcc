//! Which queries tell of a service, where nobody says: the server is asked which of the presets' metrics it has with a
//! label that says the service.

use std::time::Duration;

use super::PrometheusClient;
use crate::core::Timestamp;
use crate::core::release::ServiceName;
use crate::signal::scrape::presets::PRESETS;
use crate::signal::scrape::queries::{Missing, Queries, queries, quoted, selectors};

/// Labels that say which service a series is of, the most particular first.
pub const SERVICE_LABELS: [&str; 12] = [
    "service",
    "service_name",
    "job",
    "app",
    "application",
    "container",
    "container_name",
    "com_docker_compose_service",
    "container_label_com_docker_compose_service",
    "name",
    "exported_service",
    "exported_job",
];
/// Labels by which proxies say it. Traefik writes where it knows a service from behind an `@`.
const PROXY_LABELS: [&str; 3] = ["backend", "proxy", "envoy_cluster_name"];
const TRAEFIK_LABELS: [&str; 2] = ["service", "exported_service"];
/// When its process started, which is not when it was deployed, but close to it.
const STARTED: [&str; 2] = ["process_start_time_seconds", "container_start_time_seconds"];
/// How far back it is looked how often the server scrapes.
const SCRAPES_WITHIN: Duration = Duration::from_secs(600);
/// Values that are shown of what there is instead.
const SHOWN_MAX: usize = 8;

/// What was chosen for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What chooses its series, as in `job="api"`.
    pub matcher: String,
    /// The queries.
    pub queries: Queries,
}

impl Found {
    /// Queries that may tell when it was deployed, the better first.
    pub fn deployments(&self) -> impl Iterator<Item = String> {
        STARTED.iter().map(|name| format!("max({name}{{{}}})", self.matcher))
    }
}

/// Why nothing was chosen, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// What is missing.
    pub what: String,
    /// What was looked for, and what to set instead; nothing if the server did not answer.
    pub hint: Option<String>,
}

/// The queries for `service`, by what the server had between `range.0` and `range.1`. Those with latencies are preferred
/// to those without, whatever the label.
///
/// # Errors
/// The server does not answer, or has nothing that fits.
pub async fn discover(
    client: &PrometheusClient,
    service: &ServiceName,
    range: (Timestamp, Timestamp),
) -> Result<Found, Unknown> {
    let mut without_latency = None;
    let mut counted_only = None;
    for matcher in matchers(service) {
        let listed = client.listed(&selectors(&matcher), range, &format!("{{{matcher}}}")).await;
        let listed = listed.map_err(|what| Unknown { what, hint: None })?;
        match queries(&listed, &matcher) {
            Ok(queries) if queries.latency.is_some() => return Ok(Found { matcher, queries }),
            Ok(queries) => _ = without_latency.get_or_insert(Found { matcher, queries }),
            Err(Missing::Errors(name)) => _ = counted_only.get_or_insert((name, matcher)),
            Err(Missing::Requests) => {}
        }
    }
    match without_latency {
        Some(found) => Ok(found),
        None => Err(unknown(client, service, range, counted_only).await),
    }
}

/// How often the server scrapes the series that `queries` count, as it was shortly before `now`: the usual time between
/// two of its samples.
pub async fn scraped_every(client: &PrometheusClient, queries: &Queries, now: Timestamp) -> Option<Duration> {
    let query = format!("{}[{}s]", queries.counted, SCRAPES_WITHIN.as_secs());
    let found = client.query(&query, Some(now)).await.ok()?;
    let times = found.iter().map(|series| &series.points).max_by_key(|points| points.len())?;
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    gaps.sort_unstable();
    let usual = gaps.get(gaps.len() / 2)?;
    Some(Duration::from_secs(usual.as_secs_f64().round() as u64)).filter(|usual| !usual.is_zero())
}

/// What may choose the series of a service, the most particular first.
fn matchers(service: &ServiceName) -> Vec<String> {
    let service = service.on_its_engine();
    let is = |label: &&str| format!("{label}={}", quoted(service.as_str()));
    let at =
        |label: &&str| format!("{label}=~{}", quoted(&format!("{}@.+", regex::escape(service.as_str()))));
    SERVICE_LABELS
        .iter()
        .map(is)
        .chain(TRAEFIK_LABELS.iter().map(at))
        .chain(PROXY_LABELS.iter().map(is))
        .collect()
}

/// What to say where nothing fits: what was looked for, and which services the server knows instead.
async fn unknown(
    client: &PrometheusClient,
    service: &ServiceName,
    range: (Timestamp, Timestamp),
    counted_only: Option<(String, String)>,
) -> Unknown {
    let server = client.server();
    let keys = format!("`services.{}.prometheus`", key(service));
    if let Some((name, matcher)) = counted_only {
        return Unknown {
            what: format!(
                "{server} has `{name}` with {matcher}, and nothing that tells which requests failed"
            ),
            hint: Some(format!(
                "set `requests` and `errors` (and `latency`, if it is to be judged) in {keys}"
            )),
        };
    }
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let labels = SERVICE_LABELS.iter().chain(&PROXY_LABELS).copied().collect::<Vec<_>>().join(", ");
    let mut there = String::new();
    for label in SERVICE_LABELS {
        // Only to be helpful: a server that does not answer this has answered the questions before.
        let values = client.values(label, &selectors(""), range).await.unwrap_or_default();
        if !values.is_empty() {
            let more = if values.len() > SHOWN_MAX { ", ..." } else { "" };
            let values: Vec<String> = values.iter().take(SHOWN_MAX).map(|value| quoted(value)).collect();
            there.push_str(&format!("; what it has is of {label} {}{more}", values.join(", ")));
            break;
        }
    }
    Unknown {
        what: format!(
            "{server} has no counter of requests of {service} that any preset knows ({}){there}",
            names.join(", ")
        ),
        hint: Some(format!(
            "a series counts as {service}'s if one of these labels is {}: {labels}. Else set `requests` and `errors` \
             (and `latency`, if it is to be judged) in {keys}",
            quoted(service.on_its_engine().as_str())
        )),
    }
}

/// A service's name as a key of the configuration.
pub fn key(service: &ServiceName) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if service.as_str().chars().all(plain) { service.to_string() } else { quoted(service.as_str()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_looked_for_by_the_name_that_others_know() {
        let of = |name: &str| matchers(&ServiceName::new(name));
        assert_eq!(of("api")[0], "service=\"api\"");
        assert!(of("east/api").contains(&"job=\"api\"".to_owned()), "Prometheus knows no engines of ours");
        assert!(of("a.b").contains(&"service=~\"a\\\\.b@.+\"".to_owned()), "{:?}", of("a.b"));
        assert_eq!(key(&ServiceName::new("shop-1")), "shop-1");
        assert_eq!(key(&ServiceName::new("east/api")), "\"east/api\"");
    }
}
