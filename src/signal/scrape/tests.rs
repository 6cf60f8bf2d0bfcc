//! Pages and what is made of them.

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;

use super::text::{Sought, sample, scan};
use super::*;

fn source(preset: &str) -> MetricsSource {
    MetricsSource {
        target: Target::Replica { port: 80, path: "/metrics".into() },
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(5),
        token_file: None,
        tls: Tls::default(),
        preset: preset.into(),
        requests: None,
        errors: None,
        latency: None,
        labels: Vec::new(),
    }
}

/// Reads pages 15 seconds apart; what the last one gives.
fn timeline(source: &MetricsSource, pages: &[&str]) -> Result<Option<Requests>, String> {
    let mut reader = Reader::new(source);
    let mut last = Ok(None);
    for (i, page) in (0..).zip(pages) {
        last = reader.read(Timestamp::from_secs(1_700_000_000 + 15 * i), page.as_bytes(), "text/plain");
    }
    last
}

fn counted(source: &MetricsSource, pages: &[&str]) -> Requests {
    timeline(source, pages).unwrap().unwrap()
}

/// Total and errors of pages with the usual names.
fn auto(pages: &[&str]) -> (u64, u64) {
    let found = counted(&source("auto"), pages);
    (found.total, found.errors)
}

fn refused(pages: &[&str]) -> String {
    timeline(&source("auto"), pages).unwrap_err()
}

/// A page before any request was served.
const BEFORE: &str = "up 1\n";

fn page(good: u64, bad: u64) -> String {
    format!("http_requests_total{{code=\"200\"}} {good}\nhttp_requests_total{{code=\"500\"}} {bad}\n")
}

/// Preset, fixture, total, errors, the latencies that are not where the cumulative count stands still, and routes.
type Case = (&'static str, &'static str, u64, u64, &'static [(f64, u64)], &'static [(&'static str, u64)]);

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/metrics/", $name, ".prom"))
    };
}

const INF: f64 = f64::INFINITY;

const CASES: &[Case] = &[
    (
        "prometheus",
        fixture!("prometheus"),
        102,
        5,
        &[(0.05, 90), (0.25, 102)],
        &[("/orders", 90), ("/pay", 12)],
    ),
    ("prometheus", fixture!("openmetrics"), 45, 5, &[(0.1, 30), (1.0, 44), (INF, 45)], &[("/a", 45)]),
    (
        "opentelemetry",
        fixture!("opentelemetry"),
        100,
        30,
        &[(0.025, 70), (0.25, 100)],
        &[("/cart/{id}", 100)],
    ),
    ("opentelemetry", fixture!("opentelemetry-older"), 10, 2, &[(0.025, 8), (0.75, 10)], &[("/items", 10)]),
    (
        "micrometer",
        fixture!("micrometer"),
        55,
        5,
        &[(0.01, 10), (0.1, 49), (1.0, 54), (INF, 55)],
        &[("/owners/{id}", 55)],
    ),
    ("micrometer", fixture!("micrometer-summary"), 24, 4, &[], &[("/", 21), ("/**", 3)]),
    (
        "fastapi",
        fixture!("fastapi"),
        71,
        4,
        &[(0.075, 75), (INF, 80)],
        &[("/items/{item_id}", 70), ("none", 1)],
    ),
    ("starlette", fixture!("starlette"), 23, 2, &[(0.1, 20), (1.0, 22), (INF, 23)], &[("/users", 23)]),
    ("flask", fixture!("flask"), 34, 1, &[(0.1, 31), (0.5, 32), (1.0, 33), (INF, 34)], &[("/", 34)]),
    ("django", fixture!("django"), 100, 7, &[(0.1, 90), (1.0, 99), (10.0, 100)], &[("shop:cart", 100)]),
    (
        "aspnet",
        fixture!("aspnet"),
        15,
        3,
        &[(0.001, 1), (0.002, 2), (0.004, 13), (INF, 15)],
        &[("Cart/Index", 15)],
    ),
    ("rack", fixture!("rack"), 30, 5, &[(0.05, 20), (0.5, 29), (INF, 30)], &[("/posts/:id", 30)]),
    (
        "express",
        fixture!("express"),
        50,
        10,
        &[(0.03, 30), (0.1, 38), (0.3, 39), (1.5, 50)],
        &[("/api/cart", 50)],
    ),
    ("grpc", fixture!("grpc"), 100, 10, &[(0.025, 100)], &[("GetCart", 100)]),
    ("traefik", fixture!("traefik"), 240, 20, &[(0.1, 200), (0.3, 210), (1.2, 218), (5.0, 240)], &[]),
    ("envoy", fixture!("envoy"), 66, 6, &[(0.025, 60), (0.25, 66)], &[]),
    ("haproxy", fixture!("haproxy"), 200, 9, &[], &[]),
    ("caddy", fixture!("caddy"), 50, 5, &[(0.1, 45), (0.5, 50)], &[("subroute", 50)]),
    ("prometheus", fixture!("express-millis"), 42, 2, &[(0.05, 36), (0.5, 42)], &[("/checkout", 42)]),
    ("nginx", fixture!("nginx-lua"), 63, 3, &[(0.005, 20), (0.05, 57), (0.5, 62), (INF, 63)], &[]),
    ("nginx-vts", fixture!("nginx-vts"), 80, 5, &[(0.005, 10), (0.05, 60), (1.0, 79), (INF, 80)], &[]),
];

/// Where the cumulative count rises, and to what.
fn steps(latency: &crate::core::sample::Latencies) -> Vec<(f64, u64)> {
    let mut before = 0;
    let bounds = latency.bounds.iter().copied().chain([INF]);
    let rises = |(_, n): &(f64, u64)| std::mem::replace(&mut before, *n) < *n;
    bounds.zip(latency.counts.iter().copied()).filter(rises).collect()
}

#[test]
fn every_preset_is_found_by_itself_and_by_its_name() {
    for (preset, fixture, total, errors, latency, routes) in CASES {
        for how in ["auto", preset] {
            let found = counted(&source(how), &[BEFORE, fixture]);
            assert_eq!((found.total, found.errors), (*total, *errors), "{preset} by {how}");
            let close =
                |(a, b): (&(f64, u64), &(f64, u64))| (a.0 == b.0 || (a.0 - b.0).abs() < 1e-9) && a.1 == b.1;
            let steps = steps(&found.latency);
            assert!(
                steps.len() == latency.len() && steps.iter().zip(*latency).all(close),
                "{preset}: {steps:?}"
            );
            let parts: Vec<_> = found.parts.iter().map(|p| (p.route.as_str(), p.total)).collect();
            assert_eq!(parts, *routes, "{preset} by {how}");
            assert_eq!(found.window, Duration::from_secs(15));
            // The same page again: nothing was counted, and nobody made up a number.
            let still = counted(&source(how), &[BEFORE, fixture, fixture]);
            assert_eq!((still.total, still.errors, still.latency.is_empty()), (0, 0, true), "{preset}");
        }
    }
    for preset in presets::PRESETS {
        assert!(CASES.iter().any(|case| case.0 == preset.name), "{} has no page", preset.name);
    }
}

#[test]
fn requests_alone_are_no_verdict() {
    let why = timeline(&source("auto"), &[BEFORE, fixture!("nginx")]).unwrap_err();
    assert!(
        why.starts_with("`nginx_http_requests` (nginx) counts requests but does not tell which failed"),
        "{why}"
    );
}

#[test]
fn a_latency_that_is_named_must_be_a_histogram_or_a_summary_with_a_unit() {
    let named = |name: &str| MetricsSource { latency: Some(name.into()), ..source("auto") };
    let of = |name: &str, page: &str| timeline(&named(name), &[BEFORE, page]);
    let summary = fixture!("micrometer-summary");
    // Whether somebody named it or not, sum and count are taken, and no quantile.
    let by_name = of("http_server_requests_seconds", summary).unwrap().unwrap();
    assert_eq!(auto(&[BEFORE, summary]), (24, 4));
    let found = counted(&source("auto"), &[BEFORE, summary]);
    assert_eq!(found.took, by_name.took);
    assert_eq!(found.took.requests, 24);
    assert!((found.took.seconds - 1.8).abs() < 1e-9 && found.latency.is_empty(), "{found:?}");
    let fast = found.parts.iter().find(|part| part.route == "/**").unwrap();
    assert!((fast.took.mean() - 0.1 / 3.0).abs() < 1e-9, "{fast:?}");
    let unknown = "# TYPE shop_latency summary\nshop_latency_count 4\nshop_latency_sum 2\n";
    let why = of("shop_latency", &(summary.to_owned() + unknown)).unwrap_err();
    assert!(why.starts_with("`shop_latency` is a summary and does not tell its unit"), "{why}");
    let why = of("shop_duration_seconds", &page(5, 1)).unwrap_err();
    assert!(why.ends_with("or metrics.latency is wrong"), "{why}");
    let why = of("http_requests_total", &page(5, 1)).unwrap_err();
    assert!(why.starts_with("`http_requests_total` has neither buckets nor a sum"), "{why}");
    // A histogram that is announced and has no series yet.
    let soon = format!("# TYPE shop_duration_seconds histogram\n{}", page(5, 1));
    assert_eq!(of("shop_duration_seconds", &soon).unwrap().unwrap().total, 6);
}

#[test]
fn increments_are_what_was_counted_in_between() {
    assert!(timeline(&source("auto"), &[&page(5, 1)]).unwrap().is_none(), "the first page gives nothing");
    assert_eq!(auto(&[&page(5, 1), &page(25, 3)]), (22, 2));
    // The counters began anew.
    assert_eq!(auto(&[&page(100, 10), &page(30, 2)]), (32, 2));
    // A series that was not there before.
    assert_eq!(auto(&["http_requests_total{code=\"200\"} 5\n", &page(6, 4)]), (5, 4));
    // One that was away for a while has not begun anew.
    assert_eq!(auto(&[&page(5, 400), "http_requests_total{code=\"200\"} 5\n", &page(6, 401)]), (2, 1));
    // A page without any request, then the first one.
    let first = timeline(&source("auto"), &[BEFORE, BEFORE]).unwrap_err();
    assert!(
        first.contains("no metrics of requests by any usual name: either no request was served yet"),
        "{first}"
    );
    assert_eq!(auto(&[BEFORE, BEFORE, &page(0, 1)]), (1, 1));
    // Errors by a counter of their own, which says that there were none yet.
    let own = "http_requests_total{endpoint=\"/a\"} 9\n# TYPE http_errors_total counter\n";
    assert_eq!(auto(&[BEFORE, own]), (9, 0));
    let bad = "http_errors_total{status_code=\"404\"} 3\nhttp_errors_total{status_code=\"500\"} 2\n";
    assert_eq!(auto(&[BEFORE, &format!("{own}{bad}")]), (9, 2));
}

#[test]
fn what_could_not_be_read_is_made_up_for() {
    let mut reader = Reader::new(&source("auto"));
    let mut read = |secs, page: &str| reader.read(Timestamp::from_secs(secs), page.as_bytes(), "");
    assert!(read(100, &page(5, 1)).unwrap().is_none());
    assert!(read(110, "<html>502 Bad Gateway</html>").is_err());
    assert!(read(120, "http_requests_total{code=\"200\"} NaN\n").is_err());
    let found = read(160, &page(25, 3)).unwrap().unwrap();
    assert_eq!((found.window, found.total, found.errors), (Duration::from_secs(60), 22, 2));
    // Twice within the same moment: nothing, and nothing is lost.
    assert!(read(160, &page(26, 3)).unwrap().is_none());
    assert_eq!(read(170, &page(26, 4)).unwrap().unwrap().total, 2);
}

#[test]
fn a_newer_beginning_is_a_beginning() {
    let page = |n, created| {
        format!("http_requests_total{{code=\"500\"}} {n}\nhttp_requests_created{{code=\"500\"}} {created}\n")
    };
    assert_eq!(auto(&[&page(10, 1_700_000_000), &page(12, 1_700_000_000)]), (2, 2));
    assert_eq!(auto(&[&page(10, 1_700_000_000), &page(12, 1_700_000_010)]), (12, 12));
}

#[test]
fn processes_are_told_apart() {
    let of = |started: u64, good, bad| format!("{}process_start_time_seconds {started}\n", page(good, bad));
    // It restarted since the page before, and one of its counters has overtaken its old value.
    assert_eq!(auto(&[&of(1_000, 50, 2), &of(1_700_000_005, 20, 9)]), (29, 9));
    // Only the exporter restarted: the counters went on.
    assert_eq!(auto(&[&of(1_000, 50, 2), &of(1_700_000_005, 52, 2)]), (2, 0));
    // Two workers answer in turn.
    let why = refused(&[&of(1_000, 50, 2), &of(2_000, 60, 7)]);
    assert!(why.starts_with("another process than before answered"), "{why}");
    assert!(
        refused(&[&of(1_000, 50, 2), &of(2_000, 60, 7), &of(1_000, 51, 2)]).starts_with("another process")
    );
    assert_eq!(
        auto(&[&of(1_000, 50, 2), &of(2_000, 60, 7), &of(2_001, 61, 7)]),
        (1, 0),
        "start times wobble"
    );
    // The same without start times.
    let why = refused(&[&page(50, 2), &page(9, 0), &page(52, 2), &page(8, 0), &page(53, 3), &page(7, 0)]);
    assert!(why.starts_with("counters began anew on 3 of the last 8 pages"), "{why}");
}

#[test]
fn a_page_that_broke_off_is_not_believed() {
    let whole = page(100, 10);
    assert!(refused(&[&whole, &whole[..whole.len() - 2]]).contains("broke off"));
    assert!(refused(&[&whole, &whole[..whole.len() - 10]]).contains("broke off in the middle of a line"));
    // The first page broke off: what it lacks has not begun since.
    assert!(timeline(&source("auto"), &[&whole[..40], &page(120, 10)]).unwrap().is_none());
    assert_eq!(auto(&[&whole[..40], &page(120, 10), &page(121, 11)]), (2, 1));
    // Some never end their last line.
    assert_eq!(auto(&[whole.trim_end(), page(101, 11).trim_end()]), (2, 1));
    let read = |body: &str| {
        let sought = Sought::new(["http_requests"], &[]);
        scan(body.as_bytes(), &sought, "application/openmetrics-text; version=1.0.0; charset=utf-8")
            .map(|_| ())
    };
    assert!(read(&whole).unwrap_err().contains("OpenMetrics ends with `# EOF`"));
    read(&format!("{whole}# EOF\n")).unwrap();
    read(&format!("{whole}# EOF")).unwrap();
}

#[test]
fn bad_input_is_named() {
    let second = |page: &str| refused(&[BEFORE, page]);
    for (page, why) in [
        ("<!doctype html>\n<title>Welcome</title>\n", "the page is HTML, not metrics: is the path right?"),
        ("{\"status\":\"ok\"}\n", "the page holds no metrics"),
        ("", "the page is empty"),
        ("\u{0}\u{1}\u{2}\n", "the page holds no metrics"),
        (
            "http_requests_total{code=\"500\"} NaN\n",
            "line 1: http_requests{code=\"500\"} is NaN, which is no count",
        ),
        ("x 1\nhttp_requests_total{code=\"500\"} -4\n", "line 2: http_requests{code=\"500\"} is -4"),
        ("http_requests_total{code=\"500\"} +Inf\n", "is inf, which is no count"),
        ("http_requests_total{code=\"500\" 4\n", "line 1: this is no sample: http_requests_total{"),
        ("http_requests_total{code=\"500\"} 4 now\n", "line 1: this is no sample"),
        ("http_requests_total{code=\"500\"}\n", "line 1: this is no sample"),
        (
            "http_requests_total{code=\"5\"} 4\nhttp_requests_total{code=\"5\"} 5\n",
            "line 2: http_requests{code=\"5\"} is there twice",
        ),
        ("http_request_duration_seconds_bucket{code=\"500\"} 4\n", "has no bound `le`"),
        ("http_requests_total 4\n", "does not tell which failed: set metrics.errors"),
    ] {
        let said = second(page);
        assert!(said.contains(why), "{page:?}: {said}");
    }
    // Twice the same is only untidy; of what nobody looks for, anything may be wrong.
    let untidy = "http_requests_total{code=\"500\"} 4\nhttp_requests_total{code=\"500\"} 4\nother{ NaN\nother -1\n\u{7f}\n";
    assert_eq!(auto(&[BEFORE, untidy]), (4, 4));
    let not_utf8 = [b"other{a=\"\xff\"} 1\n".as_slice(), page(1, 1).as_bytes()].concat();
    assert!(scan(&not_utf8, &Sought::new(["http_requests"], &[]), "").is_ok());
    assert!(scan(&not_utf8, &Sought::new(["other"], &[]), "").unwrap_err().contains("not UTF-8"));
    let why = timeline(&source("sprng"), &[BEFORE]).unwrap_err();
    assert!(why.starts_with("there is no preset \"sprng\": use auto, micrometer, opentelemetry"), "{why}");
}

#[test]
fn too_many_series_are_refused_unless_nobody_looks_for_them() {
    let mut many = String::new();
    for i in 0..=text::SERIES_MAX {
        writeln!(many, "http_requests_total{{code=\"200\",user=\"{i}\"}} 1").unwrap();
    }
    assert!(
        refused(&[BEFORE, &many]).contains("has more than 20000 series"),
        "{}",
        refused(&[BEFORE, &many])
    );
    let others = format!("{}{}", many.replace("http_requests", "cache_hits"), page(3, 1));
    assert_eq!(auto(&[BEFORE, &others]), (4, 1));
    // With labels, those that are wanted are few.
    let mut one = source("auto");
    one.labels = vec![("user".into(), "7".into())];
    assert_eq!(counted(&one, &[BEFORE, &many]).total, 1);
}

#[test]
fn what_the_operator_names_counts() {
    let pages = [
        "calls_total 10\nfaults_total{kind=\"a\"} 1\ntook_bucket{le=\"50\"} 5\ntook_bucket{le=\"5000\"} 9\ntook_bucket{le=\"+Inf\"} 10\n",
        "calls_total 30\nfaults_total{kind=\"a\"} 3\nfaults_total{kind=\"b\"} 2\ntook_bucket{le=\"50\"} 15\ntook_bucket{le=\"5000\"} 29\ntook_bucket{le=\"+Inf\"} 30\n",
    ];
    let mut own = source("auto");
    own.requests = Some("calls_total".into());
    assert!(timeline(&own, &pages).unwrap_err().contains("it has no status label; set metrics.errors"));
    own.errors = Some("faults_total".into());
    own.latency = Some("took".into());
    let found = counted(&own, &pages);
    assert_eq!((found.total, found.errors), (20, 4));
    // Nothing says what the unit is; a bound of 5000 can only be milliseconds.
    assert_eq!(steps(&found.latency), [(0.05, 10), (5.0, 20)]);
    own.requests = Some("wrong_total".into());
    assert!(timeline(&own, &pages).unwrap_err().contains("no series of `wrong_total`"));
    own.requests = Some("level".into());
    let gauge = "# TYPE level gauge\nlevel 4\n";
    assert!(timeline(&own, &[gauge]).unwrap_err().contains("is a gauge, which does not count"));
}

#[test]
fn histograms_with_other_bounds_agree_on_those_they_share() {
    let page = "http_request_duration_seconds_bucket{code=\"200\",le=\"0.1\"} 4\n\
                http_request_duration_seconds_bucket{code=\"200\",le=\"1\"} 6\n\
                http_request_duration_seconds_bucket{code=\"200\",le=\"+Inf\"} 8\n\
                http_request_duration_seconds_bucket{code=\"500\",le=\"0.5\"} 1\n\
                http_request_duration_seconds_bucket{code=\"500\",le=\"1\"} 2\n\
                http_request_duration_seconds_bucket{code=\"500\",le=\"+Inf\"} 2\n";
    let found = counted(&source("auto"), &[BEFORE, page]);
    assert_eq!((found.total, found.errors), (10, 2));
    assert_eq!(found.latency.bounds, [1.0]);
    assert_eq!(found.latency.counts, [8, 10]);
    // Without +Inf nobody knows how many were slower still.
    let cut =
        page.replace("le=\"+Inf\"", "le=\"2\"").replace("} 8", "} 8\nhttp_requests_total{code=\"200\"} 8");
    assert!(counted(&source("prometheus"), &[BEFORE, &cut]).latency.is_empty());
}

#[test]
fn of_too_many_bounds_some_are_kept() {
    let mut page = String::new();
    for i in 1..=200 {
        writeln!(page, "http_request_duration_seconds_bucket{{code=\"200\",le=\"{i}\"}} {i}").unwrap();
    }
    writeln!(page, "http_request_duration_seconds_bucket{{code=\"200\",le=\"+Inf\"}} 250").unwrap();
    let latency = counted(&source("auto"), &[BEFORE, &page]).latency;
    assert!(latency.bounds.len() <= crate::core::sample::Latencies::BOUNDS_MAX && latency.bounds.len() > 32);
    assert_eq!((latency.bounds.last(), latency.counts.last()), (Some(&200.0), Some(&250)));
    assert!(latency.bounds.iter().zip(&latency.counts).all(|(b, n)| *b == *n as f64));
}

/// A valid line, written down.
fn render(name: &str, labels: &[(String, String)], value: f64) -> String {
    let escaped = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
    let value = match value {
        v if v.is_nan() => "NaN".into(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.into(),
        v => format!("{v:?}"),
    };
    format!("{name}{{{}}} {value}", labels.join(","))
}

/// Pieces that pages are made of.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("http_requests_total{code=\"500\"} 7\n".to_owned()),
        Just("http_requests_total{code=\"200\"} 7".to_owned()),
        Just("http_request_duration_seconds_bucket{le=\"0.5\",code=\"200\"} 1\n".to_owned()),
        Just("http_request_duration_seconds_bucket{le=\"+Inf\"} 1e3\n".to_owned()),
        Just("http_request_duration_seconds_count 1\n# EOF\n".to_owned()),
        Just("# TYPE http_requests gauge\n# UNIT x\n#\n".to_owned()),
        Just("process_start_time_seconds NaN\n".to_owned()),
        "\\PC{0,20}",
        "[a-z_]{1,6}[{}=\",\\\\ ]{0,6}[0-9eE+.-]{0,5}\n",
    ]
}

proptest! {
    #[test]
    fn whatever_comes_nothing_breaks(pages in prop::collection::vec(prop::collection::vec(piece(), 0..12), 1..5)) {
        let mut reader = Reader::new(&source("auto"));
        for (at, page) in (1..).zip(pages) {
            if let Ok(Some(found)) = reader.read(Timestamp::from_secs(at), page.concat().as_bytes(), "") {
                prop_assert!(found.errors <= found.total);
                let latency = found.latency;
                prop_assert!(latency.counts.is_empty() || latency.counts.len() == latency.bounds.len() + 1);
                prop_assert!(latency.counts.is_sorted() && latency.bounds.is_sorted());
                prop_assert!(latency.bounds.iter().all(|b| b.is_finite() && *b > 0.0));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}",
        labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,6}", "[\\PC\n\"\\\\{}=,# ]{0,12}"), 0..4),
        value in any::<f64>(),
        tail in prop_oneof![Just(""), Just(" 1700000000123"), Just(" # {id=\"a\"} 1.5 1.7e9"), Just(" 12.5 # {} 1")],
    ) {
        let line = render(&name, &labels, value) + tail;
        let read = sample(&line).unwrap();
        prop_assert_eq!(read.name, name);
        let found: Vec<_> = read.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        prop_assert_eq!(found, labels);
        prop_assert!(read.value == value || read.value.is_nan() && value.is_nan());
    }
}

/// A summary of a process, as client libraries write it.
fn summary_page(count: u32, sum: f64) -> String {
    format!(
        "# TYPE http_requests_total counter\nhttp_requests_total{{code=\"200\"}} {count}\n# TYPE \
         http_request_duration_seconds summary\nhttp_request_duration_seconds{{code=\"200\",quantile=\"0.99\"}} \
         9\nhttp_request_duration_seconds_sum{{code=\"200\"}} {sum}\nhttp_request_duration_seconds_count{{code=\"200\"}} \
         {count}\n"
    )
}

#[test]
fn a_summary_that_began_anew_counts_what_it_shows() {
    let took = |pages: &[String]| {
        let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
        counted(&source("auto"), &pages).took
    };
    let near = |took: crate::core::sample::Took, n, secs: f64| {
        assert_eq!(took.requests, n, "{took:?}");
        assert!((took.seconds - secs).abs() < 1e-9, "{took:?}");
    };
    near(took(&[summary_page(100, 10.0), summary_page(150, 20.0)]), 50, 10.0);
    near(took(&[summary_page(100, 10.0), summary_page(20, 3.0)]), 20, 3.0);
    // The sum has overtaken its old value since, the count has not.
    near(took(&[summary_page(100, 10.0), summary_page(20, 12.0)]), 20, 12.0);
    // What is no sum is passed over, and is no reason to refuse the page.
    let broken = summary_page(150, 20.0).replace("} 20", "} NaN");
    assert!(broken.contains("NaN"));
    near(took(&[summary_page(100, 10.0), broken]), 0, 0.0);
}
