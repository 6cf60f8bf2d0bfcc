//! The requests of the demo app's users: how long each takes, whether it fails, and what is counted and logged of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::App;
use super::args::AccessLog;
use crate::core::Timestamp;

/// What users ask for, each with its share of the app's own traffic: half of it, a third, the rest.
pub(super) const ROUTES: [&str; 3] = ["/", "/api/search", "/api/checkout"];
const SHARES: [f64; 2] = [0.5, 0.83];
/// The app's own traffic is made in steps this far apart.
const STEP: Duration = Duration::from_millis(50);
/// The app's own requests that are under way at once; more are not made.
const IN_FLIGHT_MAX: usize = 2000;
/// How wide latencies spread: the 99th percentile is 99 to the power of this, or twice, the median.
const SPREAD: f64 = 0.15;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fate {
    pub(super) route: usize,
    pub(super) fails: bool,
    pub(super) takes: Duration,
}

/// Fates, one after the other. Not by chance: each fraction of a multiple of an irrational number is as far from the
/// ones before it as can be, so that of any hundred requests at an error rate of 4 % four fail, or nearly so.
#[derive(Debug)]
pub(super) struct Fates(AtomicU64);

impl Fates {
    pub(super) fn new(seed: u32) -> Self {
        Self(AtomicU64::new(u64::from(seed)))
    }

    pub(super) fn next(&self, error_rate: f64, median_ms: f64) -> Fate {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        // Different irrational numbers: what fails is neither always slow nor always on the same route.
        let dice = |irrational: f64| (number as f64 * irrational).fract();
        let chance = dice(0.618_033_988_749_895).clamp(1e-6, 1.0 - 1e-6);
        let route = SHARES.iter().filter(|share| dice(0.732_050_807_568_877) >= **share).count();
        // The log-logistic distribution: much like a log-normal one, and its inverse needs no tables.
        let millis = median_ms * (chance / (1.0 - chance)).powf(SPREAD);
        Fate {
            route,
            fails: dice(0.414_213_562_373_095) < error_rate,
            takes: Duration::from_secs_f64(millis / 1000.0),
        }
    }
}

/// Serve one request to `route`, or to whichever is next; gives whether it went well.
pub(super) async fn serve(app: &App, route: Option<usize>) -> bool {
    let dials = app.dials();
    let mut fate = app.fates.next(dials.error_rate, dials.latency_ms * dials.latency_factor);
    fate.route = route.unwrap_or(fate.route);
    if !fate.takes.is_zero() {
        tokio::time::sleep(fate.takes).await;
    }
    // What it was to take, not what it took: a busy machine must not make a good version look slow.
    app.figures.count(fate);
    if let Some(line) = line(dials.access_log, fate, app.clock.now()) {
        app.print(&line);
    }
    !fate.fails
}

/// Makes as many requests as the dial says, for ever.
pub(super) async fn make(app: Arc<App>) {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut steps = tokio::time::interval(STEP);
    let mut owed = 0.0;
    loop {
        steps.tick().await;
        owed += app.dials().self_traffic * STEP.as_secs_f64();
        while owed >= 1.0 {
            owed -= 1.0;
            if in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT_MAX {
                in_flight.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (app, in_flight) = (Arc::clone(&app), Arc::clone(&in_flight));
            tokio::spawn(async move {
                serve(&app, None).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

/// Complains as often as the dial says, for ever: on standard error, as most loggers do.
pub(super) async fn complain(app: Arc<App>) {
    const STEP: Duration = Duration::from_millis(200);
    let mut steps = tokio::time::interval(STEP);
    let mut owed = 0.0;
    loop {
        steps.tick().await;
        owed += app.dials().log_errors / 60.0 * STEP.as_secs_f64();
        while owed >= 1.0 {
            owed -= 1.0;
            let at = time(app.clock.now());
            anstream::eprintln!("{at} ERROR checkout failed: no connection to payments");
        }
    }
}

fn line(format: AccessLog, fate: Fate, at: Timestamp) -> Option<String> {
    let path = ROUTES.get(fate.route).copied().unwrap_or("/");
    let (status, seconds) = (if fate.fails { 500 } else { 200 }, fate.takes.as_secs_f64());
    let millis = fate.takes.as_micros() as f64 / 1000.0;
    Some(match format {
        AccessLog::Off => return None,
        AccessLog::Combined => {
            let at = moment(at).strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            format!(
                "127.0.0.1 - - [{at}] \"GET {path} HTTP/1.1\" {status} 17 \"-\" \"demo/1.0\" {seconds:.3}"
            )
        }
        AccessLog::Json => serde_json::json!({
            "time": time(at), "method": "GET", "path": path, "status": status, "duration_ms": millis,
        })
        .to_string(),
        AccessLog::Logfmt => {
            let at = time(at);
            format!(
                "time={at} level=info msg=request method=GET path={path} status={status} duration={millis:.1}ms"
            )
        }
    })
}

fn moment(at: Timestamp) -> jiff::Timestamp {
    let millis = i64::try_from(at.as_millis()).unwrap_or_default();
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}

fn time(at: Timestamp) -> String {
    format!("{:.3}", moment(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(error_rate: f64, median_ms: f64, count: usize) -> Vec<Fate> {
        let fates = Fates::new(1);
        (0..count).map(|_| fates.next(error_rate, median_ms)).collect()
    }

    #[test]
    fn every_hundred_requests_fail_as_often_as_was_asked_for() {
        let fates = fates(0.04, 50.0, 10_000);
        for hundred in fates.chunks(100) {
            let failed = hundred.iter().filter(|fate| fate.fails).count();
            assert!((3..=5).contains(&failed), "{failed} of 100");
        }
        let failed_checkouts = fates.iter().filter(|fate| fate.fails && fate.route == 2).count();
        assert!((50..=90).contains(&failed_checkouts), "{failed_checkouts} of 400 in a share of 17 %");
    }

    #[test]
    fn latencies_spread_around_their_median() {
        let mut millis: Vec<_> =
            fates(0.0, 50.0, 10_000).iter().map(|fate| fate.takes.as_secs_f64() * 1000.0).collect();
        millis.sort_by(f64::total_cmp);
        assert!((millis[5000] - 50.0).abs() < 0.1, "median {}", millis[5000]);
        assert!((millis[9900] - 99.6).abs() < 1.0, "p99 {}", millis[9900]);
        assert!(millis[9999] < 500.0, "slowest {}", millis[9999]);
    }

    #[test]
    fn requests_are_logged_as_the_usual_servers_do() {
        let fate = Fate { route: 2, fails: true, takes: Duration::from_micros(53_400) };
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(line(AccessLog::Off, fate, at), None);
        assert_eq!(
            line(AccessLog::Combined, fate, at).unwrap(),
            r#"127.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /api/checkout HTTP/1.1" 500 17 "-" "demo/1.0" 0.053"#
        );
        assert_eq!(
            line(AccessLog::Json, fate, at).unwrap(),
            r#"{"time":"2023-11-14T22:13:20.123Z","method":"GET","path":"/api/checkout","status":500,"duration_ms":53.4}"#
        );
        assert_eq!(
            line(AccessLog::Logfmt, fate, at).unwrap(),
            "time=2023-11-14T22:13:20.123Z level=info msg=request method=GET path=/api/checkout status=500 duration=53.4ms"
        );
    }
}
