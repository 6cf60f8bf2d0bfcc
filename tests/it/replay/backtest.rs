//! Backtest: a server with a history, what is asked of it, and how near each row was.

use std::collections::BTreeMap;
use std::time::Duration;

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
            assert_eq!(url.path(), "/api/v1/query_range");
            let asked: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
            let number = |key: &str| asked[key].parse::<f64>().unwrap();
            let (mut t, end, step) = (number("start"), number("end"), number("step"));
            let mut series: Vec<(Value, Vec<Value>)> = Vec::new();
            while t <= end {
                for (labels, value) in history(&asked["query"], t) {
                    let point = json!([t, value.to_string()]);
                    match series.iter_mut().find(|(l, _)| *l == labels) {
                        Some((_, points)) => points.push(point),
                        None => series.push((labels, vec![point])),
                    }
                }
                t += step;
            }
            let result: Vec<Value> = series
                .into_iter()
                .map(|(metric, values)| json!({"metric": metric, "values": values}))
                .collect();
            let body =
                json!({"status": "success", "data": {"resultType": "matrix", "result": result}}).to_string();
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
