//! Backtest: a server with a history, what is asked of it, and how near each row was.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use backstop::clock::Clock;
use backstop::core::Timestamp;
use backstop::core::release::ServiceName;
use backstop::core::settings::{FleetSettings, PromqlSource, ServiceSettings, Tls};
use backstop::replay::backtest::Backtest;
use backstop::replay::history::{Deployment, deployments, listed};
use backstop::signal::promql::{PrometheusClient, Series};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::cli::{backstop, err, succeeded};

const DEPLOYED: f64 = 1_700_000_000.0;
const STEP: Duration = Duration::from_secs(15);

/// A Prometheus server that knows `history`: query and time in, labels and values out.
async fn server(history: fn(&str, f64) -> Vec<(Value, f64)>) -> String {
    server_with(history, |_| Vec::new()).await
}

/// And that lists series, by selector.
async fn server_with(history: fn(&str, f64) -> Vec<(Value, f64)>, listed: fn(&str) -> Vec<Value>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let line = String::from_utf8(request).unwrap();
            let url = reqwest::Url::parse(&format!("http://x{}", line.split(' ').nth(1).unwrap())).unwrap();
            let asked: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let data = answer(url.path(), &asked, history, listed);
            let body = json!({"status": "success", "data": data}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
        }
    });
    url
}

/// What the server answers.
fn answer(
    path: &str,
    asked: &[(String, String)],
    history: fn(&str, f64) -> Vec<(Value, f64)>,
    listed: fn(&str) -> Vec<Value>,
) -> Value {
    let text = |key: &str| &asked.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("no {key}")).1;
    let number = |key: &str| text(key).parse::<f64>().unwrap();
    let selectors = asked.iter().filter(|(key, _)| key == "match[]").flat_map(|(_, value)| listed(value));
    match path {
        "/api/v1/series" => return selectors.collect(),
        "/api/v1/label/job/values" => return selectors.map(|series| series["job"].clone()).collect(),
        "/api/v1/query" => {
            let t = number("time");
            if text("query").ends_with("[600s]") {
                // Raw samples: it scrapes every 30 s, and has begun a few minutes ago.
                let values: Vec<Value> =
                    (0..5).map(|i| json!([t - f64::from(i) * 30.0, "1"])).rev().collect();
                return json!({"resultType": "matrix", "result": [{"metric": {}, "values": values}]});
            }
            let found = history(text("query"), t).into_iter();
            let result: Vec<Value> =
                found.map(|(labels, v)| json!({"metric": labels, "value": [t, v.to_string()]})).collect();
            return json!({"resultType": "vector", "result": result});
        }
        other if other.starts_with("/api/v1/label/") => return json!([]),
        other => assert_eq!(other, "/api/v1/query_range"),
    }
    let (mut t, end, step) = (number("start"), number("end"), number("step"));
    let mut series: Vec<(Value, Vec<Value>)> = Vec::new();
    while t <= end {
        for (labels, value) in history(text("query"), t) {
            let point = json!([t, value.to_string()]);
            match series.iter_mut().find(|(l, _)| *l == labels) {
                Some((_, points)) => points.push(point),
                None => series.push((labels, vec![point])),
            }
        }
        t += step;
    }
    let result: Vec<Value> =
        series.into_iter().map(|(metric, values)| json!({"metric": metric, "values": values})).collect();
    json!({"resultType": "matrix", "result": result})
}

fn backtest(url: &str) -> Backtest {
    let source = PromqlSource {
        url: url.to_owned(),
        interval: STEP,
        timeout: Duration::from_secs(10),
        token_file: None,
        tls: Tls::default(),
        requests: "requests[$window]".into(),
        errors: "errors[$window]".into(),
        latency: Some("latency[$window]".into()),
    };
    Backtest {
        service: ServiceName::new("api"),
        settings: ServiceSettings::default(),
        fleet: FleetSettings::default(),
        client: PrometheusClient::of(&source).unwrap(),
        source,
        step: STEP,
    }
}

/// Twenty requests a second; 0.1 % of them fail, and from the deployment on 3.8 %. Latencies are exponential with a
/// p99 of 230 ms, and 1.7 times that after it.
fn history(query: &str, t: f64) -> Vec<(Value, f64)> {
    let after = t > DEPLOYED;
    // Each answer is about the 30 seconds before.
    let total = 20.0 * 30.0;
    let mean = if after { 0.085 } else { 0.05 };
    match query {
        "requests[30s]" => vec![(json!({}), total)],
        "errors[30s]" => vec![(json!({}), total * if after { 0.038 } else { 0.001 })],
        "latency[30s]" => ["0.05", "0.1", "0.2", "0.3", "0.4", "0.6", "1.0", "+Inf"]
            .map(|le| {
                let below = le.parse::<f64>().map_or(1.0, |le| 1.0 - (-le / mean).exp());
                (json!({ "le": le }), total * below)
            })
            .into(),
        "max(backstop_deployments_total{service=\"api\"})" => {
            vec![(json!({}), if t >= DEPLOYED { 3.0 } else { 2.0 })]
        }
        "nothing" => vec![(json!({}), 1.0)],
        other => panic!("asked {other}"),
    }
}

fn at(t: f64) -> Timestamp {
    Timestamp::default() + Duration::from_secs_f64(t)
}

#[tokio::test]
async fn a_month_is_asked_for_around_its_deployments_and_told_with_what_each_limit_would_have_had_to_be() {
    let backtest = backtest(&server(history).await);
    let now = at(DEPLOYED + 86_400.0);
    let found = backtest.deployments(None, (now.before(Duration::from_secs(7 * 86_400)), now)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!((found[0].unix() - DEPLOYED).abs() <= 60.0, "{found:?}");
    let known = vec![Deployment { at: at(DEPLOYED), version: Some("v2".into()) }];
    let tested = backtest.test(&known, now).await.unwrap();
    let [one] = tested.as_slice() else { panic!("{tested:?}") };
    assert!(one.lines.iter().all(|line| line.decision != "rollback"), "3.8 % is not 5 %: {:?}", one.lines);
    let row = |name: &str| {
        one.rows.iter().find(|row| row.rule == name).unwrap_or_else(|| panic!("no {name}: {:?}", one.rows))
    };
    let errors = row("error_rate");
    assert!((errors.worst - 0.038).abs() < 0.001 && errors.threshold == 0.05, "{errors:?}");
    let latency = row("latency_p99");
    // Counted as a share of slower requests, an exponential tail shows a little less than its factor.
    assert!((1.45..1.75).contains(&latency.worst) && latency.threshold == 2.0, "{latency:?}");
}

/// Forty requests a minute, of which from the deployment on a few more than one in twenty fail: as many may be chance.
fn sparse(query: &str, t: f64) -> Vec<(Value, f64)> {
    match query {
        "requests[30s]" => vec![(json!({}), 20.0)],
        "errors[30s]" => {
            vec![(json!({}), if t > DEPLOYED && (t / 15.0).rem_euclid(8.0) < 1.0 { 10.0 } else { 0.0 })]
        }
        other => history(other, t),
    }
}

#[tokio::test]
async fn a_near_miss_names_the_guard_that_held_it() {
    let mut backtest = backtest(&server(sparse).await);
    backtest.source.latency = None;
    let known = vec![Deployment { at: at(DEPLOYED), version: None }];
    let tested = backtest.test(&known, at(DEPLOYED + 86_400.0)).await.unwrap();
    let [one] = tested.as_slice() else { panic!("{tested:?}") };
    assert!(one.lines.is_empty(), "{:?}", one.lines);
    let [errors] = one.rows.as_slice() else { panic!("{:?}", one.rows) };
    assert!(errors.worst > 0.05, "{errors:?}");
    let held = errors.held.as_deref().unwrap_or_default();
    assert!(held.contains("may be chance (p = "), "{errors:?}");
}

/// The program itself: as many rows, once for people and once for programs.
#[tokio::test]
async fn the_command_tells_what_would_have_been_done() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let queries =
        "requests = 'requests[$window]'\nerrors = 'errors[$window]'\nlatency = 'latency[$window]'\n";
    let config =
        file("backstop.toml", &format!("[services.api.prometheus]\nurl = \"http://127.0.0.1:1\"\n{queries}"));
    let deploys = file("deploys", "2023-11-14T22:13:20Z v2\n");
    let url = server(history).await;
    let args =
        ["backtest", "--config", &config, "--service", "api", "--since", "9000d", "--deploys", &deploys];
    let on_the_server = [&args[..], &["--prometheus", &url]].concat();

    let text = succeeded(&backstop(&on_the_server).output().await.unwrap());
    assert!(text.starts_with("1 deployments of api in "), "{text}");
    assert!(text.contains("0 would have been rolled back, "), "{text}");
    let row = text.lines().find(|line| line.contains("error_rate")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("v2") && row.contains("3.8 %") && row.contains("5.0 %"), "{row}");
    assert!(row.contains("near, worst") && row.contains("would have been crossed"), "{row}");

    let json = succeeded(&backstop(&[&["--json"], &on_the_server[..]].concat()).output().await.unwrap());
    let json: Value = serde_json::from_str(&json).unwrap();
    let one = &json["deployments"][0];
    assert_eq!((&one["t"], &one["version"]), (&json!(DEPLOYED), &json!("v2")));
    assert_eq!(one["rows"][0]["row"], "error_rate", "{one:#}");
    assert_eq!(one["rows"][0]["held"], Value::Null, "the line itself held it: {one:#}");

    let nobody = backstop(&args).output().await.unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("http://127.0.0.1:1"), "{}", err(&nobody));
    let other = backstop(&["backtest", "--config", &config, "--service", "web"]).output().await.unwrap();
    assert_eq!(other.status.code(), Some(64));
    assert!(err(&other).contains("no queries are configured for web"), "{}", err(&other));
}

/// A service that nobody has configured, of a client library's usual names, scraped every 30 s; its latencies are in
/// milliseconds. It started when it was deployed, and Backstop has counted nothing.
fn unnamed(query: &str, t: f64) -> Vec<(Value, f64)> {
    static A_WEEK_AGO: LazyLock<f64> =
        LazyLock::new(|| Clock::start().now().since(Timestamp::default()).as_secs_f64() - 7.0 * 86_400.0);
    let deployed = *A_WEEK_AGO;
    let shifted = t - deployed + DEPLOYED;
    // The windows are twice as long as those of the history, and the rest is the same.
    let twice = |of: &str| history(of, shifted).into_iter().map(|(labels, value)| (labels, value * 2.0));
    let counter = "http_requests_total{job=\"api\",path!=\"/healthz\"";
    if query == format!("sum(increase({counter}}}[60s]))") {
        twice("requests[30s]").collect()
    } else if query == format!("sum(increase({counter},status=~\"5..\"}}[60s]))") {
        twice("errors[30s]").collect()
    } else if query == "sum by (le) (increase(http_request_duration_milliseconds_bucket{job=\"api\"}[60s]))" {
        let milliseconds = |le: &str| le.parse::<f64>().map_or("+Inf".into(), |le| (le * 1e3).to_string());
        let in_ms = |labels: Value| json!({ "le": milliseconds(labels["le"].as_str().unwrap()) });
        twice("latency[30s]").map(|(labels, value)| (in_ms(labels), value)).collect()
    } else {
        match query {
            "max(backstop_deployments_total{service=\"api\"})" => Vec::new(),
            "max(process_start_time_seconds{job=\"api\"})" => {
                vec![(json!({}), if t < deployed { 1.0 } else { deployed })]
            }
            other => panic!("asked {other}"),
        }
    }
}

/// The series of its job. Other labels say nothing of it.
fn metrics(selector: &str) -> Vec<Value> {
    let by_job = selector.ends_with(",job=\"api\"}");
    let of_anybody = !selector.contains("\"api") && !selector.contains("nobody");
    if !by_job && !of_anybody {
        return Vec::new();
    }
    if selector.contains("_bucket") {
        let name = "http_request_duration_milliseconds_bucket";
        return vec![json!({"__name__": name, "job": "api", "le": "+Inf"})];
    }
    let of = |path: &str, status: &str| json!({"__name__": "http_requests_total", "job": "api", "path": path, "status": status});
    vec![of("/orders", "200"), of("/healthz", "200"), of("/orders", "404")]
}

/// Exactly what stands in the README, without any configuration.
#[tokio::test]
async fn without_configured_queries_the_server_is_asked_what_it_knows_of_the_service() {
    let url = server_with(unnamed, metrics).await;
    let args = ["backtest", "--prometheus", &url, "--since", "30d", "--service", "api"];
    let output = backstop(&args).output().await.unwrap();
    let text = succeeded(&output);
    assert!(text.starts_with("1 deployments of api in 30d"), "{text}");
    let row = text.lines().find(|line| line.contains("error_rate")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("3.8 %") && row.contains("near, worst"), "{row}");
    let latency = text.lines().find(|line| line.contains("latency_p99")).unwrap_or_else(|| panic!("{text}"));
    assert!(latency.contains("1.") && latency.contains("2.00x"), "{latency}");
    let said = err(&output);
    assert!(said.contains("a point every 30s"), "{said}");
    assert!(said.contains("every start of its process counts as one"), "{said}");

    // What is shown is a configuration, and gives the same.
    let shown: String = said
        .lines()
        .skip_while(|line| !line.starts_with('['))
        .take_while(|line| line.starts_with('[') || line.contains(" = '"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(shown.lines().count(), 6, "{said}");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backstop.toml");
    std::fs::write(&file, shown).unwrap();
    let config = file.to_str().unwrap();
    let query = "max(process_start_time_seconds{job=\"api\"})";
    let again =
        ["backtest", "--config", config, "--service", "api", "--step", "30s", "--deploy-query", query];
    let again = backstop(&again).output().await.unwrap();
    let text = succeeded(&again);
    assert!(text.starts_with("1 deployments of api in 30d") && text.contains("3.8 %"), "{text}");
    assert_eq!(err(&again), "", "configured queries win");
}

#[tokio::test]
async fn where_no_metric_fits_it_is_said_what_was_looked_for() {
    let url = server_with(unnamed, metrics).await;
    let args = ["backtest", "--prometheus", &url, "--since", "30d", "--service", "nobody"];
    let output = backstop(&args).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = err(&output);
    for part in [
        "no counter of requests of nobody that any preset knows (micrometer, opentelemetry, ",
        "what it has is of job \"api\"",
        "service, service_name, job, app, ",
        "`services.nobody.prometheus`",
        "`requests` and `errors` (and `latency`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let silent = ["backtest", "--prometheus", "http://127.0.0.1:1", "--service", "api"];
    let silent = backstop(&silent).output().await.unwrap();
    assert_eq!(silent.status.code(), Some(1));
    assert!(err(&silent).contains("Prometheus at http://127.0.0.1:1"), "{}", err(&silent));
}

#[tokio::test]
async fn what_is_missing_is_explained() {
    let backtest = backtest(&server(history).await);
    let range = (at(DEPLOYED - 3600.0), at(DEPLOYED - 1800.0));
    let own = backtest.deployments(None, range).await.unwrap_err();
    assert!(own.what.contains("does not know when api was deployed"), "{own:?}");
    assert!(own.hint.unwrap().contains("--deploys FILE"));
    let other = backtest.deployments(Some("nothing".into()), range).await.unwrap_err();
    assert!(other.what.starts_with("`nothing` tells of no deployment"), "{other:?}");
}

fn series(version: &str, points: &[(u64, f64)]) -> Series {
    Series {
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        points: points.iter().map(|(t, v)| (Timestamp::from_secs(*t), *v)).collect(),
    }
}

#[test]
fn deployments_are_told_by_counters_start_times_and_info_metrics() {
    let step = Duration::from_secs(60);
    let from = Timestamp::from_secs(0);
    let found = |series: &[Series]| {
        let found = deployments(series, from, step);
        found.into_iter().map(|d| (d.at.as_millis() / 1000, d.version.unwrap())).collect::<Vec<_>>()
    };
    let counter = [(0, 1.0), (60, 1.0), (120, 2.0), (180, 2.0), (1200, 2.0), (1260, 0.0), (1320, 1.0)];
    assert_eq!(
        found(&[series("x", &counter)]),
        [(120, "x".into()), (1320, "x".into())],
        "a restart of the counter is none"
    );
    let steady: Vec<(u64, f64)> = (0..10).map(|i| (i * 60, 1.0)).collect();
    let after: Vec<(u64, f64)> = (10..20).map(|i| (i * 60, 1.0)).collect();
    let back: Vec<(u64, f64)> = (0..10).chain(20..30).map(|i| (i * 60, 1.0)).collect();
    assert_eq!(found(&[series("v1", &steady), series("v2", &after)]), [(600, "v2".into())]);
    assert_eq!(
        found(&[series("v1", &back), series("v2", &after)]),
        [(600, "v2".into()), (1200, "v1".into())]
    );
    assert_eq!(found(&[series("v1", &back)]), [], "the server was away, and nothing else ran meanwhile");
}

#[test]
fn a_file_of_deployments_is_read_and_its_mistakes_are_named() {
    let found = listed("# ours\n2023-11-14T22:13:20Z v2\n\n1700003600.5,v3\n1700000100\n").unwrap();
    let short: Vec<_> = found.iter().map(|d| (d.unix(), d.version.as_deref())).collect();
    assert_eq!(
        short,
        [(1_700_000_000.0, Some("v2")), (1_700_000_100.0, None), (1_700_003_600.5, Some("v3"))]
    );
    let wrong = listed("yesterday v2\n-5\n").unwrap_err();
    assert_eq!(wrong.len(), 2);
    assert!(wrong[0].starts_with("line 1: \"yesterday\" is no time; right would be 2026-"), "{wrong:?}");
}
