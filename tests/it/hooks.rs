//! Alerts and reports of users, sent over a real port. The notifications in `fixtures/alertmanager` are what Alertmanager
//! 0.25 sent: captured, not composed.

use std::time::Duration;

use backstop::api::{NotTaken, Tokens};
use backstop::core::Input;
use backstop::core::sample::{Measurement, Signal};
use backstop::core::snapshot::{FleetSnapshot, RowAnswer, SampleCounts};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::picture::{HOOK_TOKEN, NEW_YEAR, Surface, TOKEN, fleet, row};

const FIRING: &str = include_str!("../fixtures/alertmanager/firing.json");
const ONE_RESOLVED: &str = include_str!("../fixtures/alertmanager/one-resolved.json");
const RESOLVED: &str = include_str!("../fixtures/alertmanager/resolved.json");
const TRUNCATED: &str = include_str!("../fixtures/alertmanager/truncated.json");

async fn up() -> Surface {
    Surface::start(fleet(NEW_YEAR)).await
}

fn post(surface: &Surface, path: &str) -> RequestBuilder {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.post(format!("{}{path}", surface.url))
}

async fn read(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// Sends a notification as Alertmanager does.
async fn notify(surface: &Surface, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
    let request = post(surface, "/hooks/alertmanager").header("content-type", "application/json");
    read(request.bearer_auth(HOOK_TOKEN).body(body)).await
}

async fn report(surface: &Surface, service: &str, body: Value) -> (StatusCode, Value) {
    let path = format!("/api/v1/services/{service}/reports");
    read(post(surface, &path).bearer_auth(HOOK_TOKEN).json(&body)).await
}

/// One alert with these labels.
fn alert(labels: Value) -> String {
    json!({"version": "4", "alerts": [{"status": "firing", "labels": labels, "annotations": {}}]}).to_string()
}

/// What reached the core: service, name, firing and summary of each alert, in order.
fn alerts(surface: &Surface) -> Vec<(String, String, bool, String)> {
    let samples = surface.core.samples.lock().unwrap();
    let alert = |input: &Input| match input {
        Input::Sampled {
            service,
            replica: None,
            signal: Signal::Alerts,
            name,
            measurement: Measurement::Alert { firing, summary, .. },
        } => (service.to_string(), name.clone(), *firing, summary.clone()),
        other => panic!("{other:?}"),
    };
    samples.iter().map(alert).collect()
}

fn counted(surface: &Surface, series: &str) -> f64 {
    let text = surface.metrics.render();
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn alerts_begin_and_end_each_for_itself() {
    let surface = up().await;
    let (status, answer) = notify(&surface, FIRING).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        answer,
        json!({"accepted": 2, "services": ["shop"], "unmatched": [], "left_out": 0, "truncated": 0})
    );
    notify(&surface, ONE_RESOLVED).await;
    notify(&surface, RESOLVED).await;
    let one = r#"HighErrorRate{instance="shop-1:8080",severity="critical"}"#;
    let two = r#"HighErrorRate{instance="shop-2:8080",severity="critical"}"#;
    let seen =
        |name: &str, firing, summary: &str| ("shop".to_owned(), name.to_owned(), firing, summary.to_owned());
    assert_eq!(
        alerts(&surface),
        [
            seen(one, true, "5xx rate of shop is 7.3 %"),
            seen(two, true, "5xx rate of shop is 9.1 %"),
            seen(one, false, "5xx rate of shop is 7.3 %"),
            seen(two, true, "5xx rate of shop is 9.1 %"),
            seen(two, false, "5xx rate of shop is 7.3 %"),
        ]
    );
    assert_eq!(counted(&surface, r#"backstop_alerts_received_total{outcome="matched"}"#), 5.0);
    let (_, answer) = notify(&surface, TRUNCATED).await;
    assert_eq!((&answer["accepted"], &answer["truncated"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_labels_say_whose_alert_it_is() {
    let mut picture = fleet(NEW_YEAR);
    let settings = |picture: &mut FleetSnapshot, service: usize, labels: &[(&str, &str)]| {
        let mut settings = picture.services[service].settings.as_ref().clone();
        settings.alert_labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        picture.services[service].settings = settings.into();
    };
    settings(&mut picture, 0, &[("team", "money"), ("tier", "1")]);
    settings(&mut picture, 1, &[("team", "money")]);
    let mut compose = picture.services[3].clone();
    compose.name = backstop::core::release::ServiceName::new("store-api");
    compose.replicas[0].name = "store-api-1".to_owned();
    picture.services.push(compose);
    let surface = Surface::start(picture).await;
    for (labels, services) in [
        (json!({"backstop_service": "shop"}), vec!["shop"]),
        (json!({"backstop_service": "nobody", "service": "shop"}), vec![]),
        (json!({"service": "nobody", "job": "shop"}), vec!["shop"]),
        (json!({"service": "shop", "job": "web"}), vec!["shop"]),
        (json!({"container": "web"}), vec!["web"]),
        (json!({"container_name": "web"}), vec!["web"]),
        (json!({"name": "store-api-1"}), vec!["store-api"]),
        (
            json!({"com_docker_compose_service": "api", "com_docker_compose_project": "store"}),
            vec!["store-api"],
        ),
        (
            json!({
                "container_label_com_docker_compose_service": "api",
                "container_label_com_docker_compose_project": "store"
            }),
            vec!["store-api"],
        ),
        (json!({"com_docker_compose_service": "api", "com_docker_compose_project": "other"}), vec![]),
        (json!({"com_docker_compose_service": "web"}), vec!["web"]),
        (json!({"team": "money", "tier": "1"}), vec!["billing", "search"]),
        (json!({"team": "money", "tier": "2", "service": "shop"}), vec!["search", "shop"]),
        // Whoever says which alerts are its own is found by nothing else.
        (json!({"service": "billing"}), vec![]),
        (json!({"instance": "shop"}), vec![]),
        (json!({"service": "SHOP"}), vec![]),
        (json!({"service": ""}), vec![]),
        (json!({}), vec![]),
    ] {
        let (status, answer) = notify(&surface, alert(labels.clone())).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["services"], json!(services), "{labels}");
        assert_eq!(answer["accepted"], json!(usize::from(!services.is_empty())), "{labels}");
    }
}

#[tokio::test]
async fn an_alert_of_nobody_is_no_error_and_says_what_would_fit() {
    let surface = up().await;
    let (status, answer) = notify(&surface, alert(json!({"alertname": "Slow", "service": "shpo"}))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["accepted"], 0);
    assert_eq!(
        answer["unmatched"],
        json!([{
            "alert": "Slow{service=\"shpo\"}",
            "why": "no watched service is named by service=\"shpo\"; is it `shop`?"
        }])
    );
    let (_, answer) = notify(&surface, alert(json!({"alertname": "DiskFull", "instance": "db"}))).await;
    let why = answer["unmatched"][0]["why"].as_str().unwrap();
    assert!(why.contains("backstop_service, service, container"), "{why}");
    assert!(alerts(&surface).is_empty());
    assert_eq!(counted(&surface, r#"backstop_alerts_received_total{outcome="unmatched"}"#), 2.0);
}

#[tokio::test]
async fn what_is_no_notification_is_refused_once() {
    let surface = up().await;
    let bad: [(&[u8], &str); 11] = [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"<html>hello</html>", "expected value"),
        (b"\xff\xfe", "expected value"),
        (b"{}", "missing field `alerts`"),
        (b"null", "invalid type: null"),
        (br#"{"alerts": {}}"#, "`alerts`"),
        (br#"{"alerts": [{"status": "firing"}]}"#, "`alerts[0]`: missing field `labels`"),
        (br#"{"alerts": [{"status": "maybe", "labels": {}}]}"#, "`alerts[0].status`"),
        (br#"{"alerts": [{"status": "firing", "labels": {"a": 1}}]}"#, "`alerts[0].labels.a`"),
        (br#"{"alerts": []} and more"#, "trailing characters"),
    ];
    for (body, said) in bad {
        let (status, answer) = notify(&surface, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
        assert!(answer["next"].as_str().unwrap().contains("webhook_configs"));
    }
    let deep = format!("{{\"alerts\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(notify(&surface, deep).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(counted(&surface, "backstop_alert_notifications_malformed_total"), 12.0);
    assert_eq!(notify(&surface, vec![b' '; (1 << 20) + 1]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    // Nothing to say is nothing wrong; annotations may be missing, and there may be more fields than we know.
    for fine in [
        r#"{"alerts": []}"#,
        r#"{"alerts": [{"status": "firing", "labels": {"service": "shop"}, "annotations": null, "values": {"B": 1}}]}"#,
        r#"{"alerts": [{"status": "resolved", "labels": {"service": "shop"}}], "orgId": 1, "version": "1"}"#,
    ] {
        assert_eq!(notify(&surface, fine).await.0, StatusCode::OK, "{fine}");
    }
    assert_eq!(alerts(&surface).len(), 2);
}

#[tokio::test]
async fn too_many_alerts_are_taken_in_part_and_that_is_said() {
    let surface = up().await;
    let one =
        |n: usize| json!({"status": "firing", "labels": {"alertname": format!("A{n}"), "service": "shop"}});
    let body = json!({"alerts": (0..300).map(one).collect::<Vec<_>>()}).to_string();
    let (status, answer) = notify(&surface, body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&answer["accepted"], &answer["left_out"]), (&json!(256), &json!(44)));
    assert_eq!(alerts(&surface).len(), 256);
    assert_eq!(counted(&surface, r#"backstop_alerts_received_total{outcome="left_out"}"#), 44.0);
}

#[tokio::test]
async fn what_alerts_say_can_harm_no_terminal_and_is_bounded() {
    let surface = up().await;
    let labels = json!({
        "alertname": "<script>alert(1)</script>\u{1b}[2J",
        "service": "shop",
        "where": "x".repeat(100_000),
        "Ünïcödé": "\u{202e}kaputt 🔥",
    });
    let body = json!({"alerts": [{
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": format!("line one\nline\u{7} two {}", "ü".repeat(5000))}
    }]});
    notify(&surface, body.to_string()).await;
    let (_, name, _, summary) = alerts(&surface).remove(0);
    assert_eq!(name.chars().count(), 200);
    assert!(name.starts_with("<script>alert(1)</script> [2J{"), "{name}");
    assert!(summary.starts_with("line one line  two ü") && summary.chars().count() == 500, "{summary}");
    for text in [&name, &summary] {
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}

#[tokio::test]
async fn a_busy_core_makes_the_sender_try_again() {
    let surface = up().await;
    for (why, seconds) in [(NotTaken::Full, "5"), (NotTaken::Stopping, "15")] {
        *surface.core.full.lock().unwrap() = Some(why);
        let response =
            post(&surface, "/hooks/alertmanager").bearer_auth(HOOK_TOKEN).body(FIRING).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], seconds);
    }
    assert_eq!(
        report(&surface, "shop", json!({"reporter": "alice"})).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(counted(&surface, r#"backstop_alerts_received_total{outcome="refused"}"#), 4.0);
    assert_eq!(counted(&surface, r#"backstop_alerts_received_total{outcome="matched"}"#), 0.0);
    assert_eq!(counted(&surface, r#"backstop_reports_received_total{outcome="busy"}"#), 1.0);
}

#[tokio::test]
async fn alerts_and_reports_need_one_of_two_tokens() {
    let surface = up().await;
    let paths = ["/hooks/alertmanager", "/api/v1/services/shop/reports"];
    for path in paths {
        let send = || post(&surface, path).json(&json!({"alerts": [], "reporter": "a"}));
        assert_eq!(send().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let (status, answer) = read(send().bearer_auth("wrong")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(answer["next"].as_str().unwrap().contains("`api.hook_token_file` or `api.token_file`"));
        let (wrong, half) =
            (send().basic_auth("alertmanager", Some("wrong")), send().basic_auth(HOOK_TOKEN, Some("")));
        for bad in [wrong, half] {
            assert_eq!(bad.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
        for good in [
            send().bearer_auth(HOOK_TOKEN),
            send().bearer_auth(TOKEN),
            send().basic_auth("alertmanager", Some(HOOK_TOKEN)),
            send().basic_auth("", Some(TOKEN)),
        ] {
            let status = good.send().await.unwrap().status();
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert_ne!(status, StatusCode::TOO_MANY_REQUESTS, "{path}: what is right costs no attempt");
        }
    }
    let basic = post(&surface, "/api/v1/pause").basic_auth("anna", Some(TOKEN)).json(&json!({}));
    assert_eq!(
        basic.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED,
        "browsers send it by themselves"
    );

    surface.tokens.send_replace(Tokens::default());
    for path in paths {
        let (status, answer) = read(post(&surface, path).bearer_auth(HOOK_TOKEN)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(answer["next"].as_str().unwrap().contains("api.hook_token_file = "), "{answer}");
    }
    surface.tokens.send_modify(|tokens| tokens.hooks = Some("another-hook-token".to_owned().into()));
    let (status, _) = read(post(&surface, paths[0]).bearer_auth("another-hook-token").body(FIRING)).await;
    assert_eq!(status, StatusCode::OK, "a reload takes effect, and operators need no token for this");
}

#[tokio::test]
async fn nobody_without_a_token_makes_us_read() {
    let surface = up().await;
    let mut stream = TcpStream::connect(surface.url.strip_prefix("http://").unwrap()).await.unwrap();
    // The answer comes though the body never does.
    let head = "POST /hooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn reports_count_people_not_reports() {
    let surface = up().await;
    for (reporter, counted) in [("alice@example.com", 1), ("  Alice@Example.COM\n", 1), ("Bob   Smith", 2)] {
        let (status, answer) =
            report(&surface, "shop", json!({"reporter": reporter, "text": "checkout fails"})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(answer["counted"], json!(counted), "{answer}");
        assert_eq!((&answer["needed"], &answer["within_seconds"]), (&json!(3.0), &json!(900.0)));
        assert_eq!(answer["answer"], json!(format!("counted: {counted} of 3 reporters within 15m")));
    }
    let samples = surface.core.samples.lock().unwrap().clone();
    let reports: Vec<(&str, &str)> = samples
        .iter()
        .map(|input| match input {
            Input::Sampled {
                service,
                replica: None,
                signal: Signal::Reports,
                name,
                measurement: Measurement::Report { reporter, text },
            } if service.as_str() == "shop" && name.is_empty() => (reporter.as_str(), text.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    let fails = "checkout fails";
    assert_eq!(reports, [("alice@example.com", fails), ("alice@example.com", fails), ("bob smith", fails)]);
    assert_eq!(counted(&surface, r#"backstop_reports_received_total{outcome="accepted"}"#), 3.0);
}

#[tokio::test]
async fn what_users_write_is_kept_as_text() {
    let surface = up().await;
    let text = "<img src=x onerror=alert(1)>\r\n\u{1b}[31m\"; DROP TABLE releases; -- 🔥 ошибка";
    let path = "/api/v1/services/shop/reports";
    let body = json!({"reporter": "<b>Eve</b>\u{200b}", "text": text});
    let response = post(&surface, path).bearer_auth(HOOK_TOKEN).json(&body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.json::<Value>().await.unwrap()["reporter"], "<b>eve</b>");
    let samples = surface.core.samples.lock().unwrap();
    let Input::Sampled { measurement: Measurement::Report { text, .. }, .. } = &samples[0] else { panic!() };
    assert_eq!(text, "<img src=x onerror=alert(1)>   [31m\"; DROP TABLE releases; -- 🔥 ошибка");
}

#[tokio::test]
async fn reports_that_make_no_sense_never_reach_the_core() {
    let surface = up().await;
    let long = |n: usize| "ß".repeat(n);
    for (service, body, status, said) in [
        ("shpo", json!({"reporter": "alice"}), 404, "there is no service `shpo`"),
        ("cron", json!({"reporter": "alice"}), 404, "refused"),
        ("shop", json!({}), 422, "missing field `reporter`"),
        ("shop", json!({"reporter": " \u{200b}\t"}), 400, "`reporter` is empty"),
        ("shop", json!({"reporter": long(129)}), 400, "128 characters"),
        ("shop", json!({"reporter": "alice", "text": long(2001)}), 400, "2000 characters"),
        ("shop", json!({"reporter": ["alice"]}), 422, "reporter"),
        ("shop", json!({"reporter": "alice", "severity": "critical"}), 422, "severity"),
        ("shop", json!(["alice", "text"]), 422, "not a JSON object"),
        ("shop", json!({"reporter": "alice", "text": "x".repeat(66_000)}), 413, ""),
    ] {
        let (got, answer) = report(&surface, service, body).await;
        assert_eq!(got.as_u16(), status, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    assert!(surface.core.samples.lock().unwrap().is_empty());
    assert_eq!(counted(&surface, r#"backstop_reports_received_total{outcome="invalid"}"#), 10.0);
    // The longest that are right, escaped as far as JSON allows.
    let escaped = format!(
        "{{\"reporter\": \"{}\", \"text\": \"{}\"}}",
        "\\u00df".repeat(128),
        "\\ud83d\\udd25".repeat(2000)
    );
    let request = post(&surface, "/api/v1/services/shop/reports").bearer_auth(HOOK_TOKEN);
    let request = request.header("content-type", "application/json").body(escaped);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn one_who_floods_is_stopped_and_others_are_heard() {
    let surface = up().await;
    let path = "/api/v1/services/shop/reports";
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |reporter: &str| {
        let request = http.post(format!("{}{path}", surface.url)).bearer_auth(HOOK_TOKEN);
        request.json(&json!({"reporter": reporter})).send()
    };
    let answers = futures_util::future::join_all((0..20).map(|_| send("eve"))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let limited: Vec<_> = answers.iter().filter(|a| a.status() == StatusCode::TOO_MANY_REQUESTS).collect();
    // One comes back each minute, so this holds on a slow machine too.
    assert_eq!(limited.len(), 15);
    let wait: u64 = limited[0].headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(send("alice").await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(surface.core.samples.lock().unwrap().len(), 6);
    assert_eq!(counted(&surface, r#"backstop_reports_received_total{outcome="limited"}"#), 15.0);
}

#[tokio::test]
async fn a_service_without_the_row_says_that_nobody_counts() {
    let mut picture = fleet(NEW_YEAR);
    let shop = row(&mut picture.services[2], "user_reports");
    (shop.answer, shop.value) = (RowAnswer::Off, "switched off".to_owned());
    let surface = Surface::start(picture).await;
    let (status, answer) = report(&surface, "shop", json!({"reporter": "alice"})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(answer["counted"], Value::Null);
    assert_eq!(answer["answer"], "recorded; no row of the matrix judges this service by reports");
}

#[tokio::test]
async fn rows_signals_and_their_series_come_and_go_together() {
    let surface = up().await;
    let mut picture = fleet(NEW_YEAR);
    surface.metrics.observe(&picture);
    let answer = |rule: &str| {
        counted(&surface, &format!("backstop_service_row_answer{{row=\"{rule}\",service=\"shop\"}}"))
    };
    let has = |text: &str| surface.metrics.render().contains(text);
    assert_eq!((answer("error_rate"), answer("health"), answer("latency_drift")), (0.0, 1.0, -1.0));
    assert_eq!(answer("memory"), -2.0);
    assert!(!has("row=\"log_errors\",service=\"shop\""), "a row that is off has none");
    assert!(!has("service=\"shop\",signal=\"logs\""), "nor a signal that nobody judges");
    row(&mut picture.services[2], "health").answer = RowAnswer::Breached;
    row(&mut picture.services[2], "error_rate").answer = RowAnswer::Off;
    picture.services[2].samples.push((Signal::Logs, SampleCounts { healthy: 3, ..SampleCounts::default() }));
    surface.metrics.observe(&picture);
    assert_eq!(answer("health"), 2.0);
    assert!(!has("row=\"error_rate\",service=\"shop\""));
    assert_eq!(
        counted(&surface, r#"backstop_samples_total{outcome="healthy",service="shop",signal="logs"}"#),
        3.0
    );
    picture.services.clear();
    surface.metrics.observe(&picture);
    assert!(!has("service=\""), "{}", surface.metrics.render());
}
