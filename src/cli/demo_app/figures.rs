//! The demo app's own metrics, named and bucketed as the Prometheus client libraries do by default.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::traffic::{Fate, ROUTES};

/// The client libraries' default buckets, in seconds.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counters since the start: every series is there from the beginning, at zero.
#[derive(Debug, Default)]
pub(super) struct Figures([Route; ROUTES.len()]);

#[derive(Debug, Default)]
struct Route {
    ok: AtomicU64,
    failed: AtomicU64,
    /// How many fell into each bucket and no lower one; the last is for those above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Figures {
    pub(super) fn count(&self, fate: Fate) {
        let Some(route) = self.0.get(fate.route) else { return };
        let seconds = fate.takes.as_secs_f64();
        let at = BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        let buckets = route.buckets.get(at);
        let result = if fate.fails { &route.failed } else { &route.ok };
        for counter in buckets.into_iter().chain([result]) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(fate.takes.as_micros()).unwrap_or(u64::MAX);
        route.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// In the Prometheus text format.
    pub(super) fn text(&self) -> String {
        let mut out = String::from(
            "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter\n",
        );
        for (handler, route) in ROUTES.iter().zip(&self.0) {
            for (status, count) in [(200, &route.ok), (500, &route.failed)] {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    r#"http_requests_total{{method="GET",handler="{handler}",status="{status}"}} {count}"#
                );
            }
        }
        out.push_str(
            "# HELP http_request_duration_seconds Time taken.\n# TYPE http_request_duration_seconds histogram\n",
        );
        for (handler, route) in ROUTES.iter().zip(&self.0) {
            route.histogram(handler, &mut out);
        }
        out
    }
}

impl Route {
    fn histogram(&self, handler: &str, out: &mut String) {
        let name = "http_request_duration_seconds";
        let labels = format!(r#"method="GET",handler="{handler}""#);
        let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut sum = 0;
        for (bound, bucket) in bounds.zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, r#"{name}_bucket{{{labels},le="{bound}"}} {sum}"#);
        }
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {sum}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_counted_by_route_status_and_time() {
        let figures = Figures::default();
        let before = figures.text();
        assert!(before.lines().filter(|line| !line.starts_with('#')).all(|line| line.ends_with(" 0")));
        for (millis, fails) in [(50, false), (51, true), (20_000, false)] {
            figures.count(Fate { route: 1, fails, takes: Duration::from_millis(millis) });
        }
        let text = figures.text();
        for line in [
            r#"http_requests_total{method="GET",handler="/api/search",status="200"} 2"#,
            r#"http_requests_total{method="GET",handler="/api/search",status="500"} 1"#,
            r#"http_requests_total{method="GET",handler="/",status="200"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",handler="/api/search",le="0.025"} 0"#,
            r#"http_request_duration_seconds_bucket{method="GET",handler="/api/search",le="0.05"} 1"#,
            r#"http_request_duration_seconds_bucket{method="GET",handler="/api/search",le="10"} 2"#,
            r#"http_request_duration_seconds_bucket{method="GET",handler="/api/search",le="+Inf"} 3"#,
            r#"http_request_duration_seconds_sum{method="GET",handler="/api/search"} 20.101"#,
            r#"http_request_duration_seconds_count{method="GET",handler="/api/search"} 3"#,
        ] {
            assert!(text.lines().any(|one| one == line), "no {line} in:\n{text}");
        }
    }
}
