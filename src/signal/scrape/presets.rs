//! Which names tell of requests, errors and latency: what the usual libraries and proxies call them, as data.

use std::collections::{BTreeMap, BTreeSet};

/// The names of one library or proxy.
///
/// Names are given without what the text format appends: `http_requests` is `http_requests_total`, and
/// `http_server_requests_seconds` is counted by its `_count`.
#[derive(Debug)]
pub struct Preset {
    /// What it is called in the configuration.
    pub name: &'static str,
    /// Counters of requests, or histograms whose `_count` is one: the first that is there and has a status.
    pub requests: &'static [&'static str],
    /// Counters of errors, for requests without a status.
    pub errors: &'static [&'static str],
    /// Histograms of latency: the first that is there.
    pub latency: &'static [&'static str],
    /// The unit of the histogram in seconds, where its name does not tell.
    pub unit: Option<f64>,
    /// Series that are no requests, or count them twice, by label and value.
    pub not: &'static [(&'static str, &'static str)],
    /// Of series that count the same requests, those with the first value that is there: a label and its values.
    pub layers: Option<(&'static str, &'static [&'static str])>,
}

const PLAIN: Preset =
    Preset { name: "", requests: &[], errors: &[], latency: &[], unit: None, not: &[], layers: None };

/// All presets, in the order in which `auto` looks for them: what is most particular comes first, a proxy's names
/// after those of an application that happens to export both.
pub const PRESETS: &[Preset] = &[
    // Micrometer: Spring Boot 2 and 3, Quarkus, Micronaut. A histogram only if percentiles-histogram is switched on.
    Preset {
        name: "micrometer",
        requests: &["http_server_requests_seconds"],
        latency: &["http_server_requests_seconds"],
        ..PLAIN
    },
    // OpenTelemetry: the stable semantic conventions, then the older ones, with and without the unit in the name.
    Preset {
        name: "opentelemetry",
        requests: &[
            "http_server_request_duration_seconds",
            "http_server_duration_milliseconds",
            "http_server_duration_seconds",
            "http_server_duration",
        ],
        latency: &[
            "http_server_request_duration_seconds",
            "http_server_duration_milliseconds",
            "http_server_duration_seconds",
            "http_server_duration",
        ],
        ..PLAIN
    },
    // prometheus-fastapi-instrumentator: the histogram by handler has three bounds, too few for a 99th percentile; the
    // one without labels has 21, but counts health checks, too.
    Preset {
        name: "fastapi",
        requests: &["http_requests"],
        latency: &["http_request_duration_highr_seconds"],
        ..PLAIN
    },
    // starlette_exporter and starlette-prometheus.
    Preset {
        name: "starlette",
        requests: &["starlette_requests", "starlette_responses"],
        errors: &["starlette_exceptions"],
        latency: &["starlette_request_duration_seconds", "starlette_requests_processing_time_seconds"],
        ..PLAIN
    },
    // prometheus-flask-exporter: only the histogram knows paths.
    Preset {
        name: "flask",
        requests: &["flask_http_request_duration_seconds", "flask_http_request"],
        errors: &["flask_http_request_exceptions"],
        latency: &["flask_http_request_duration_seconds"],
        ..PLAIN
    },
    // django-prometheus.
    Preset {
        name: "django",
        requests: &[
            "django_http_responses_total_by_status_view_method",
            "django_http_responses_total_by_status",
        ],
        latency: &[
            "django_http_requests_latency_seconds_by_view_method",
            "django_http_requests_latency_including_middlewares_seconds",
        ],
        ..PLAIN
    },
    // prometheus-net, and the Rack collector of the Ruby client.
    Preset {
        name: "aspnet",
        requests: &["http_requests_received"],
        latency: &["http_request_duration_seconds"],
        ..PLAIN
    },
    Preset {
        name: "rack",
        requests: &["http_server_requests"],
        errors: &["http_server_exceptions"],
        latency: &["http_server_request_duration_seconds"],
        ..PLAIN
    },
    // Express with express-prom-bundle: one histogram with the status among its labels.
    Preset {
        name: "express",
        requests: &["http_request_duration_seconds"],
        latency: &["http_request_duration_seconds"],
        ..PLAIN
    },
    // What the documentation of every client library uses, Go's promhttp among them.
    Preset {
        name: "prometheus",
        requests: &[
            "http_requests",
            "http_request",
            "http_request_duration_seconds",
            "http_requests_duration_seconds",
            "http_request_duration_milliseconds",
            "http_request_duration_ms",
        ],
        errors: &[
            "http_request_errors",
            "http_requests_errors",
            "http_errors",
            "http_requests_failed",
            "http_exceptions",
        ],
        latency: &[
            "http_request_duration_seconds",
            "http_requests_duration_seconds",
            "http_request_duration_milliseconds",
            "http_request_duration_ms",
            "http_request_latency_seconds",
            "http_response_time_seconds",
            "request_duration_seconds",
        ],
        ..PLAIN
    },
    // gRPC servers: go-grpc-middleware and its likes in other languages.
    Preset {
        name: "grpc",
        requests: &["grpc_server_handled"],
        latency: &["grpc_server_handling_seconds"],
        ..PLAIN
    },
    Preset {
        name: "traefik",
        requests: &["traefik_service_requests", "traefik_entrypoint_requests"],
        latency: &["traefik_service_request_duration_seconds", "traefik_entrypoint_request_duration_seconds"],
        not: &[
            ("entrypoint", "traefik"),
            ("entrypoint", "metrics"),
            ("service", "prometheus@internal"),
            ("service", "ping@internal"),
            ("service", "api@internal"),
            ("service", "dashboard@internal"),
        ],
        ..PLAIN
    },
    Preset {
        name: "envoy",
        requests: &["envoy_cluster_upstream_rq_xx", "envoy_http_downstream_rq_xx"],
        latency: &["envoy_cluster_upstream_rq_time", "envoy_http_downstream_rq_time"],
        unit: Some(0.001),
        not: &[("envoy_http_conn_manager_prefix", "admin")],
        ..PLAIN
    },
    // HAProxy's own exporter. Its times are averages of the last 1024 requests: no latency.
    Preset {
        name: "haproxy",
        requests: &["haproxy_backend_http_responses", "haproxy_frontend_http_responses"],
        not: &[("proxy", "stats"), ("backend", "stats"), ("frontend", "stats")],
        ..PLAIN
    },
    // Every handler that a request passes counts it: the outermost one knows all.
    Preset {
        name: "caddy",
        requests: &["caddy_http_request_duration_seconds"],
        latency: &["caddy_http_request_duration_seconds"],
        layers: Some(("handler", &["subroute", "encode", "reverse_proxy", "file_server", "static_response"])),
        ..PLAIN
    },
    // nginx-module-vts: the host `*` and the code `total` are sums of the others.
    Preset {
        name: "nginx-vts",
        requests: &["nginx_vts_server_requests"],
        latency: &["nginx_vts_server_request_duration_seconds"],
        not: &[("host", "*"), ("code", "total")],
        ..PLAIN
    },
    // nginx-prometheus-exporter knows only how many (stub_status); with nginx-lua-prometheus there is a status.
    Preset {
        name: "nginx",
        requests: &["nginx_http_requests"],
        latency: &["nginx_http_request_duration_seconds"],
        ..PLAIN
    },
];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

/// Labels that hold a status, the most particular first.
pub const STATUS_LABELS: &[&str] = &[
    "http_response_status_code",
    "http_status_code",
    "status_code",
    "http_status",
    "response_code",
    "http_code",
    "response_status",
    "envoy_response_code_class",
    "grpc_code",
    "code",
    "status",
    "outcome",
];

/// Labels that hold a route, the most particular first: a template (`/users/{id}`) rather than what was asked for.
pub const ROUTE_LABELS: &[&str] =
    &["http_route", "route", "handler", "uri", "endpoint", "view", "grpc_method", "path", "url"];

/// Whether a status tells of a failure of the server; nothing if the value is no status.
///
/// Codes (`503`), classes (`5xx`, Envoy's `5`), words (Micrometer's `SERVER_ERROR`) and gRPC's names are understood.
/// Of the latter those are failures that OpenTelemetry calls errors of the server.
pub fn failed(status: &str) -> Option<bool> {
    let word: String =
        status.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let digits = word.trim_end_matches('x');
    if !digits.is_empty() && digits.len() < 4 && digits.bytes().all(|b| b.is_ascii_digit()) {
        // `0` and `000`: the client went away before there was a status.
        return Some(digits.starts_with('5'));
    }
    match word.as_str() {
        "servererror" | "error" | "failure" | "failed" | "exception" => Some(true),
        "unknown" | "deadlineexceeded" | "unimplemented" | "internal" | "unavailable" | "dataloss" => {
            Some(true)
        }
        "success" | "ok" | "clienterror" | "informational" | "redirection" | "redirect" | "other" => {
            Some(false)
        }
        "canceled" | "cancelled" | "invalidargument" | "notfound" | "alreadyexists" | "permissiondenied"
        | "resourceexhausted" | "failedprecondition" | "aborted" | "outofrange" | "unauthenticated" => {
            Some(false)
        }
        _ => None,
    }
}

/// What matches the failures among the values of a status label, as a regular expression that is anchored at both ends:
/// in the shapes in which the label was seen.
pub fn failures<'a>(label: &str, seen: impl Iterator<Item = &'a str>) -> String {
    /// The words that [`failed`] takes for failures.
    const WORDS: &str = "(?i:server.?error|error|failure|failed|exception|unknown|deadline.?exceeded|unimplemented|internal|unavailable|data.?loss)";
    const GRPC: &str = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss";
    let shape = |value: &str| {
        failed(value)?;
        let digits = value.chars().all(|c| c.is_ascii_digit());
        Some(match value.len() {
            1 if digits => "5",
            3 if digits => "5..",
            3 if value.ends_with("xx") => "5xx",
            3 if value.ends_with("XX") => "5XX",
            _ if label == "grpc_code" => GRPC,
            _ => WORDS,
        })
    };
    let shapes: BTreeSet<&str> = seen.filter_map(shape).collect();
    shapes.into_iter().collect::<Vec<_>>().join("|")
}

/// The route that a series is about.
pub(in crate::signal) fn route_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    ROUTE_LABELS.iter().find_map(|name| labels.get(*name)).map(String::as_str)
}

/// Whether a route serves machines that ask how the service is, not its users: `/metrics`, `/health` and what lies
/// below it, `/healthz`, `/ready`, `/readyz`, `/live`, `/livez`, `/actuator/...`, `/-/...`, and Django's views of them.
/// `/livestream` and `/healthcare` are for users.
pub fn is_housekeeping(route: &str) -> bool {
    let path = route.rsplit(' ').next().unwrap_or_default();
    let path = path.strip_prefix('^').unwrap_or(path).trim_matches('/').to_ascii_lowercase();
    let (first, rest) = path.split_once('/').unwrap_or((&path, ""));
    match first.trim_start_matches('_').trim_end_matches('$') {
        "metrics" | "prometheus" | "prometheus-django-metrics" | "actuator" | "-" => true,
        "health" | "healthz" | "healthy" | "healthcheck" | "health-check" | "health_check" => true,
        "ready" | "readyz" | "readiness" | "live" | "livez" | "liveness" => rest.is_empty(),
        _ => false,
    }
}

/// How many seconds the unit in a metric's name is; nothing if it names none.
pub fn seconds_per_unit(name: &str) -> Option<f64> {
    name.rsplit('_').find_map(|word| match word {
        "seconds" | "second" | "sec" | "secs" => Some(1.0),
        "milliseconds" | "millisecond" | "millis" | "msec" | "ms" => Some(1e-3),
        "microseconds" | "micros" | "usec" | "us" => Some(1e-6),
        "nanoseconds" | "nanos" | "ns" => Some(1e-9),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_given_without_what_the_format_appends() {
        for (i, one) in PRESETS.iter().enumerate() {
            assert!(PRESETS[..i].iter().all(|other| other.name != one.name), "{}", one.name);
            assert_ne!(one.name, "auto");
            for name in one.requests.iter().chain(one.errors).chain(one.latency) {
                let bare =
                    ["_total", "_count", "_bucket", "_sum", "_created"].iter().all(|s| !name.ends_with(s));
                assert!(bare, "{name}");
            }
        }
    }

    #[test]
    fn a_status_is_a_failure_a_success_or_no_status() {
        for status in
            ["500", "503", "5xx", "5XX", "5", "Server Error", "SERVER_ERROR", "Internal", "DataLoss"]
        {
            assert_eq!(failed(status), Some(true), "{status}");
        }
        for status in
            ["200", "404", "499", "4xx", "2", "SUCCESS", "Client Error", "OK", "NotFound", "0", "000"]
        {
            assert_eq!(failed(status), Some(false), "{status}");
        }
        for status in ["", "5000", "GET", "v5", "x", "-"] {
            assert_eq!(failed(status), None, "{status}");
        }
    }

    #[test]
    fn failures_are_matched_in_the_shape_in_which_the_status_was_seen() {
        let of = |label, seen: &[&'static str]| failures(label, seen.iter().copied());
        assert_eq!(of("code", &["200", "404"]), "5..");
        assert_eq!(of("status", &["2xx", "GET"]), "5xx");
        assert_eq!(of("envoy_response_code_class", &["2", "4"]), "5");
        assert!(of("grpc_code", &["OK"]).starts_with("Unknown|DeadlineExceeded|"));
        for status in
            ["500", "503", "5xx", "5XX", "5", "Server Error", "SERVER_ERROR", "Internal", "DataLoss"]
        {
            let pattern = regex::Regex::new(&format!("^(?:{})$", of("outcome", &[status]))).unwrap();
            assert!(pattern.is_match(status), "{status}: {pattern}");
            for fine in ["200", "404", "4xx", "2", "SUCCESS", "OK", "NotFound"] {
                assert!(!pattern.is_match(fine), "{fine}: {pattern}");
            }
        }
    }

    #[test]
    fn only_what_machines_ask_for_is_housekeeping() {
        for route in [
            "/metrics",
            "/health",
            "/health/live",
            "/healthz",
            "/HEALTHZ/",
            "/ready",
            "/readyz",
            "/live",
            "GET /livez",
            "/actuator/prometheus",
            "/-/healthy",
            "prometheus-django-metrics",
            "^metrics$",
            "/_health",
            "health",
        ] {
            assert!(is_housekeeping(route), "{route}");
        }
        for route in
            ["/", "", "/livestream", "/live/42", "/healthcare", "/api/health", "/orders", "*", "/ready/meals"]
        {
            assert!(!is_housekeeping(route), "{route}");
        }
    }

    #[test]
    fn units_are_read_from_names() {
        assert_eq!(seconds_per_unit("http_server_duration_milliseconds"), Some(1e-3));
        assert_eq!(seconds_per_unit("kong_request_latency_ms"), Some(1e-3));
        assert_eq!(seconds_per_unit("django_http_requests_latency_seconds_by_view_method"), Some(1.0));
        assert_eq!(seconds_per_unit("http_server_duration"), None);
    }
}
