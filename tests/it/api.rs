//! The HTTP surface, asked over a real port.

use std::sync::Arc;
use std::time::Duration;

use backstop::clock::Clock;
use backstop::core::approval::Via;
use backstop::core::decision::Gate;
use backstop::core::ledger::RollbackOutcome;
use backstop::core::release::ServiceName;
use backstop::core::settings::{Action, Mitigation, Mode, Remedy, ServiceSettings, Severity};
use backstop::core::snapshot::{EngineSnapshot, RowAnswer, State};
use backstop::core::{Command, EngineState, Timestamp};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::picture::{HOOK_TOKEN, NEW_YEAR, Surface, TOKEN, fleet, gates, record, row, service};

async fn up() -> Surface {
    Surface::start(fleet(NEW_YEAR)).await
}

impl Surface {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(Method::POST, path).bearer_auth(TOKEN).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    pub(crate) fn commands(&self) -> Vec<(Command, String)> {
        self.core.commands.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_status_shows_the_whole_fleet() {
    let surface = up().await;
    let (status, body) = surface.get("/api/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    insta::with_settings!({filters => vec![(env!("CARGO_PKG_VERSION"), "VERSION")]}, {
        insta::assert_json_snapshot!("status", body);
    });
}

#[tokio::test]
async fn what_keeps_the_daemon_from_acting_comes_before_what_can_wait() {
    let mut picture = fleet(NEW_YEAR);
    picture.engine = Some(EngineState::Unreachable { why: "connection refused".to_owned() });
    picture.store_error = Some("no space left on device".to_owned());
    picture.flags.stuck = Some("5 rollbacks within 1h".to_owned());
    picture.services.retain(|service| service.name.as_str() == "web");
    let surface = Surface::start(picture).await;
    surface.config.send_modify(|config| {
        config.last_reload_ok = false;
        config.error = Some("backstop.toml:3: unknown key `tial`".to_owned());
    });
    let (_, body) = surface.get("/api/v1/status").await;
    assert_eq!((&body["ready"], &body["config"]["last_reload_ok"]), (&json!(false), &json!(false)));
    let wanted: Vec<&str> =
        body["attention"].as_array().unwrap().iter().map(|item| item["what"].as_str().unwrap()).collect();
    assert_eq!(
        wanted,
        [
            "5 rollbacks within 1h",
            "the store takes no writes, so no service is changed: no space left on device",
            "the engine does not answer: connection refused",
            "the new configuration is not in force, the one before it is: backstop.toml:3: unknown key `tial`",
            "not watched: label `backstop.trail=5m` is not known; did you mean `backstop.trial`?",
        ]
    );
}

#[tokio::test]
async fn what_is_wrong_and_not_acted_on_comes_before_what_can_wait() {
    let at = NEW_YEAR;
    let ago = |secs| at.before(Duration::from_secs(secs));
    let breached = |name: &str, rule: &str, value: &str| {
        let mut service = service(name, at);
        service.state = State::Suspect;
        (row(&mut service, rule).answer, row(&mut service, rule).value) =
            (RowAnswer::Breached, value.to_owned());
        service
    };
    let mut picture = fleet(at);
    picture.services.iter_mut().find(|s| s.name.as_str() == "billing").unwrap().state = State::Steady;
    let mut first = breached("first", "health", "2 failures in a row, last: 503");
    first.target = None;
    first.gates = gates(Some((Gate::Target, "no other release has passed its trial yet")));
    let mut leaking = breached("leaking", "error_rate", "9.0 % of 800 requests failed");
    leaking.gates = gates(Some((Gate::Cooldown, "the last rollback ended 10s ago")));
    row(&mut leaking, "error_rate").severity = Severity::High;
    let mut dry = breached("dry", "health", "2 failures in a row, last: 503");
    dry.settings = Arc::new(ServiceSettings { mode: Mode::DryRun, ..ServiceSettings::default() });
    let about_to_go = breached("about-to-go", "health", "2 failures in a row, last: 503");
    let asked = breached("asked", "user_reports", "3 in 15m");
    let mut endless = service("endless", at);
    (endless.state, endless.deployed) = (State::Trial, Some(ago(15 * 60 + 301)));
    endless.sentence = "endless:v2 stays on trial: its requests cannot be measured: 404".to_owned();
    picture.services.extend([asked, endless, leaking, first, dry, about_to_go]);
    let surface = Surface::start(picture).await;
    let (_, body) = surface.get("/api/v1/status").await;
    let items = body["attention"].as_array().unwrap();
    let wanted: Vec<String> = items
        .iter()
        .map(|item| format!("{}: {}", item["service"].as_str().unwrap(), item["what"].as_str().unwrap()))
        .collect();
    let failing = "`health` is breached: 2 failures in a row, last: 503; not rolled back:";
    assert_eq!(
        wanted,
        [
            "search: the rollback r0007 could not be undone: the name is taken by another container",
            &format!("first: {failing} no other release has passed its trial yet (gate `target`)"),
            &format!("dry: {failing} dry-run mode, so a rollback is only announced"),
            "leaking: `error_rate` is breached: 9.0 % of 800 requests failed; not rolled back: \
             the last rollback ended 10s ago (gate `cooldown`)",
            "asked: a person should judge it, `user_reports` is breached: 3 in 15m",
            "endless: endless:v2 stays on trial: its requests cannot be measured: 404",
            "cron: not watched: label `backstop.trail=5m` is not known; did you mean `backstop.trial`?",
            "billing: paused until somebody resumes it (by anna@web1: database migration)",
        ]
    );
    assert!(items.iter().all(|item| item["next"].is_string()), "each line has its next command: {items:?}");
}

#[tokio::test]
async fn what_helps_follows_from_what_is_wrong() {
    let surface = up().await;
    let mut picture = fleet(NEW_YEAR);
    for (problem, helps) in [
        (
            "label `backstop.trail=5m` is not known",
            "correct the labels of the container `cron-1` and deploy it again",
        ),
        (
            "it was started in the foreground (`docker run` without -d): start it with `docker run -d`",
            "remove the container `cron-1` and start it again with `docker run -d`",
        ),
        (
            "/srv/b.toml:3:1: services.cron.trial: no",
            "correct the configuration, try it with `backstop check-config`",
        ),
        (
            "it is a one-off of `docker compose run`",
            "deploy `cron-1` again with the label `backstop.enable=false`",
        ),
    ] {
        picture.refused[0].problems = vec![problem.to_owned()];
        surface.fleet.send_replace(Arc::new(picture.clone()));
        let (_, body) = surface.get("/api/v1/services/cron").await;
        assert!(body["next"].as_str().unwrap().starts_with(helps), "{problem}: {body}");
    }
    let (_, body) = surface.get("/api/v1/status").await;
    let refused =
        body["attention"].as_array().unwrap().iter().find(|item| item["service"] == "cron").unwrap();
    assert_eq!(refused["next"], "backstop explain cron", "its labels are not the fault");
}

#[tokio::test]
async fn a_service_shows_everything_about_it() {
    let surface = up().await;
    let (status, body) = surface.get("/api/v1/services/shop").await;
    assert_eq!(status, StatusCode::OK);
    insta::assert_json_snapshot!("service", body);
    let (_, list) = surface.get("/api/v1/services").await;
    let names: Vec<&str> =
        list["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["billing", "search", "shop", "web"]);
}

#[tokio::test]
async fn what_would_happen_next_is_what_the_rows_lead_to() {
    let mut picture = fleet(NEW_YEAR);
    let shop = &mut picture.services[2];
    for rule in ["health", "latency_degraded", "latency_drift", "user_reports"] {
        let row = row(shop, rule);
        row.answer = RowAnswer::Pending;
        row.since = Some(NEW_YEAR.before(Duration::from_secs(60)));
    }
    row(shop, "health").answer = RowAnswer::Ok;
    let surface = Surface::start(picture.clone()).await;
    let (_, body) = surface.get("/api/v1/services/shop").await;
    assert_eq!(
        body["outlook"],
        json!([
            "`latency_degraded` is breached if it stays crossed for another 4m to 9m, the worse the sooner (its action is `evaluate`).",
            "`user_reports` is breached when more people report a problem (its action is `evaluate`).",
            "Then a person is told, with the numbers; nothing is rolled back by that.",
            "If a row with the action `rollback` is breached, it is rolled back to shop:v1 [aaaaaaaaaaaa].",
        ]),
        "a row that only shows leads to nothing"
    );

    let shop = &mut picture.services[2];
    row(shop, "error_rate").answer = RowAnswer::Pending;
    row(shop, "error_rate").since = Some(NEW_YEAR.before(Duration::from_secs(50)));
    row(shop, "user_reports").answer = RowAnswer::Breached;
    row(shop, "user_reports").value = "3 reporters in 15m".to_owned();
    surface.fleet.send_replace(Arc::new(picture.clone()));
    let (_, body) = surface.get("/api/v1/services/shop").await;
    let lines = body["outlook"].as_array().unwrap();
    assert_eq!(lines.last().unwrap(), "Then it is rolled back to shop:v1 [aaaaaaaaaaaa].", "{lines:?}");
    assert_eq!(lines.len(), 4, "{lines:?}");

    // A ladder comes first, as long as it is not at its end.
    let mut laddered = picture.clone();
    let settings = Arc::make_mut(&mut laddered.services[2].settings);
    let rule = settings.rules.iter_mut().find(|rule| rule.name == "error_rate").unwrap();
    rule.mitigations = vec![Mitigation::of(Remedy::Restart), Mitigation::of(Remedy::Scale(3))];
    surface.fleet.send_replace(Arc::new(laddered));
    let (_, ladder) = surface.get("/api/v1/services/shop").await;
    assert_eq!(
        ladder["outlook"].as_array().unwrap().last().unwrap(),
        "Then something else is tried first (`error_rate`: restart it, one replica after the other); if that does not help, it \
         is rolled back to shop:v1 [aaaaaaaaaaaa]."
    );
    assert_eq!(
        lines[0],
        "`error_rate` is breached after another 9m 10s above 5.0 %, or 2m 10s above 7.0 %, or 10s above 10 %, \
         or sooner if it gets worse."
    );
    let (_, body) = surface.get("/api/v1/status").await;
    let wanted: Vec<&Value> =
        body["attention"].as_array().unwrap().iter().map(|item| &item["what"]).collect();
    let asked = json!("a person should judge it, `user_reports` is breached: 3 reporters in 15m");
    assert!(wanted.contains(&&asked), "{wanted:?}");

    let shop = &mut picture.services[2];
    for row in shop.rows.iter_mut().filter(|row| row.action == Action::Rollback) {
        row.answer = RowAnswer::Off;
    }
    row(shop, "user_reports").answer = RowAnswer::Ok;
    row(shop, "latency_degraded").answer = RowAnswer::Ok;
    surface.fleet.send_replace(Arc::new(picture));
    let (_, body) = surface.get("/api/v1/services/shop").await;
    assert_eq!(
        body["outlook"],
        json!(["No row leads to a rollback: all of them are off, or only tell a person."])
    );
}

#[tokio::test]
async fn a_store_that_fails_hides_nothing_of_the_core() {
    let surface = up().await;
    *surface.past.failure.lock().unwrap() = Some("disk I/O error".to_owned());
    let (status, body) = surface.get("/api/v1/services/shop").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["rows"].as_array().unwrap().len(), 18);
    assert_eq!(body["decisions_error"], "disk I/O error");
    let (status, body) = surface.get("/api/v1/rollbacks").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().contains("disk I/O error"));
}

#[tokio::test]
async fn what_is_unknown_is_told_with_the_nearest_names() {
    let surface = up().await;
    let (status, body) = surface.get("/api/v1/services/shpo").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body, json!({"error": "there is no service `shpo`", "next": "did you mean `shop`?"}));
    let (_, body) = surface.get("/api/v1/services/cron").await;
    assert!(body["error"].as_str().unwrap().contains("refused: label `backstop.trail=5m`"), "{body}");
    let (status, body) = surface.get("/api/v2/status").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body["error"].as_str().unwrap().contains("/api/v2/status"));
    let response = surface.request(Method::DELETE, "/api/v1/status").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("DELETE"));
}

#[tokio::test]
async fn alive_is_not_ready() {
    let surface = up().await;
    assert_eq!(surface.get("/healthz").await, (StatusCode::OK, json!({"ok": true, "reasons": []})));
    assert_eq!(surface.get("/readyz").await, (StatusCode::OK, json!({"ok": true, "reasons": []})));

    let mut picture = fleet(NEW_YEAR);
    picture.engine =
        Some(EngineState::Unreachable { why: "connection refused at /var/run/docker.sock".to_owned() });
    picture.store_error = Some("database disk image is malformed".to_owned());
    surface.fleet.send_replace(Arc::new(picture.clone()));
    assert_eq!(surface.get("/healthz").await.0, StatusCode::OK, "a restart would not help");
    let (status, body) = surface.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body["reasons"],
        json!([
            "the engine does not answer: connection refused at /var/run/docker.sock",
            "the store takes no writes, so no service is changed: database disk image is malformed"
        ])
    );

    picture.engine = None;
    picture.store_error = None;
    surface.fleet.send_replace(Arc::new(picture.clone()));
    assert_eq!(
        surface.get("/readyz").await.1["reasons"],
        json!(["the first look at the engine is not done"])
    );

    picture.at = Timestamp::from_secs(1);
    surface.fleet.send_replace(Arc::new(picture));
    let (status, body) = surface.get("/healthz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["reasons"][0].as_str().unwrap().starts_with("the core has not turned for "));
}

#[tokio::test]
async fn rollbacks_come_page_by_page() {
    let surface = up().await;
    let outcomes = [
        RollbackOutcome::Verifying,
        RollbackOutcome::Verified("shop:v1 passed every rule for 30s".to_owned()),
        RollbackOutcome::Unwound("the image is gone".to_owned()),
    ];
    *surface.past.rollbacks.lock().unwrap() =
        (1..=3).rev().zip(outcomes).map(|(n, outcome)| record(n, NEW_YEAR, outcome)).collect();
    let (_, body) = surface.get("/api/v1/rollbacks?service=shop&limit=2").await;
    let ids = |body: &Value| -> Vec<String> {
        body["rollbacks"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (ids(&body), &body["next_before"]),
        (vec!["r0003".to_owned(), "r0002".to_owned()], &json!("r0002"))
    );
    let (_, body) = surface.get("/api/v1/rollbacks?service=shop&limit=2&before=r0002").await;
    assert_eq!((ids(&body), &body["next_before"]), (vec!["r0001".to_owned()], &Value::Null));
    let (_, body) = surface.get("/api/v1/rollbacks?service=nobody").await;
    assert_eq!(ids(&body), Vec::<String>::new());

    let (_, body) = surface.get("/api/v1/rollbacks/r0002").await;
    insta::assert_json_snapshot!("rollback", body);

    for (bad, said) in [
        ("limit=0", "between 1 and 200"),
        ("limit=201", "between 1 and 200"),
        ("limit=x", "limit"),
        ("servce=shop", "servce"),
    ] {
        let (status, body) = surface.get(&format!("/api/v1/rollbacks?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(body["error"].as_str().unwrap().contains(said), "{body}");
    }
    assert_eq!(surface.get("/api/v1/rollbacks/r9999").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_plan_is_open_to_readers() {
    let surface = up().await;
    let (status, body) = surface.get("/api/v1/services/shop/plan").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["to"]["reference"], "shop:v1");
    assert_eq!(body["steps"].as_array().unwrap().len(), 3);
    let (status, body) = surface.get("/api/v1/services/shop/plan?to=shop:v9").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body, json!({"error": "`shop` never ran `shop:v9`", "next": "backstop explain shop"}));
    assert!(surface.commands().is_empty());
}

#[tokio::test]
async fn operator_actions_reach_the_core() {
    let surface = up().await;
    let body = json!({"to": "shop:v1", "why": "users\ncomplain", "by": "anna@web1"});
    let (status, answer) = surface.post("/api/v1/services/shop/rollback", body).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"answer": "done"})));
    surface.post("/api/v1/pause", json!({"service": "shop", "duration": "30m"})).await;
    surface.post("/api/v1/pause", json!({})).await;
    surface.post("/api/v1/resume", json!({"service": "shop"})).await;
    let shop = || ServiceName::new("shop");
    assert_eq!(
        surface.commands(),
        [
            (
                Command::Rollback {
                    service: shop(),
                    to: Some("shop:v1".to_owned()),
                    why: "users complain".to_owned(),
                    via: Via::Token,
                    accept_schema: false,
                    drill: false,
                },
                "anna@web1".to_owned()
            ),
            (
                Command::Pause {
                    service: Some(shop()),
                    duration: Some(Duration::from_secs(1800)),
                    why: String::new()
                },
                "operator".to_owned()
            ),
            (Command::Pause { service: None, duration: None, why: String::new() }, "operator".to_owned()),
            (Command::Resume { service: Some(shop()) }, "operator".to_owned()),
        ]
    );
    for (said, error, next) in [
        ("a rollback is in flight", "a rollback is in flight", "backstop explain shop"),
        ("no target; next: backstop history shop", "no target", "backstop history shop"),
    ] {
        *surface.core.answer.lock().unwrap() = Err(said.to_owned());
        let (status, answer) = surface.post("/api/v1/services/shop/rollback", json!({})).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(answer, json!({"error": error, "next": next}));
    }
}

#[tokio::test]
async fn nonsense_never_reaches_the_core() {
    let surface = up().await;
    let long = "x".repeat(501);
    for (path, body, status, said) in [
        ("/api/v1/services/shpo/rollback", json!({}), 404, "there is no service `shpo`"),
        ("/api/v1/services/shop/rollback", json!({"too": "v1"}), 422, "too"),
        ("/api/v1/services/shop/rollback", json!({"why": long}), 400, "500 characters"),
        ("/api/v1/services/shop/rollback", json!([]), 422, ""),
        ("/api/v1/pause", json!({"service": "nobody-at-all"}), 404, "nobody-at-all"),
        ("/api/v1/pause", json!({"duration": "soon"}), 400, "`duration`"),
        ("/api/v1/resume", json!({"service": 7}), 422, "service"),
        ("/api/v1/pause", json!({"why": "x".repeat(20_000)}), 413, ""),
    ] {
        let (got, answer) = surface.post(path, body).await;
        assert_eq!(got.as_u16(), status, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{path}: {answer}");
    }
    let request = surface.request(Method::POST, "/api/v1/pause").bearer_auth(TOKEN).body("{");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(response.json::<Value>().await.unwrap()["next"].as_str().unwrap().contains("application/json"));
    assert!(surface.commands().is_empty());
}

#[tokio::test]
async fn a_matter_is_taken_on_with_the_token_and_by_name() {
    let surface = up().await;
    let path = "/api/v1/services/shop/ack";
    let (status, answer) = surface.post(path, json!({"by": "anna", "why": "on it"})).await;
    assert_eq!((status, answer["answer"].as_str()), (StatusCode::OK, Some("anna took on shop: on it")));
    let (status, answer) = surface.post(path, json!({"why": "nothing"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["error"], "nothing is the matter with shop");
    assert_eq!(answer["next"], "backstop status");
    let (status, answer) = surface.post("/api/v1/services/shpo/ack", json!({})).await;
    assert_eq!((status, answer["next"].as_str()), (StatusCode::NOT_FOUND, Some("did you mean `shop`?")));
    let open = surface.request(Method::POST, path).json(&json!({})).send().await.unwrap();
    assert_eq!(open.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn operator_actions_need_the_token() {
    let surface = up().await;
    let ask = |token: Option<&str>| {
        let request = surface.request(Method::POST, "/api/v1/pause").json(&json!({}));
        match token {
            Some(token) => request.bearer_auth(token).send(),
            None => request.send(),
        }
    };
    let response = ask(None).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"backstop\"");
    assert_eq!(ask(Some("wrong")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(surface.metrics.render().contains("backstop_api_tokens_refused_total 2"));

    surface.tokens.send_modify(|tokens| {
        tokens.operators = None;
        tokens.people.clear();
    });
    let response = ask(Some(TOKEN)).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let next = response.json::<Value>().await.unwrap()["next"].as_str().unwrap().to_owned();
    assert!(next.contains("api.token_file"), "{next}");
    assert!(next.contains("install -m 640 -g backstop"), "the daemon must be able to read it: {next}");
    surface.tokens.send_modify(|tokens| tokens.operators = Some(String::new().into()));
    assert_eq!(ask(Some("")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(surface.commands().is_empty());

    assert_eq!(ask(Some(HOOK_TOKEN)).await.unwrap().status(), StatusCode::UNAUTHORIZED, "it only tells");
    surface.tokens.send_modify(|tokens| tokens.operators = Some("another-token".to_owned().into()));
    assert_eq!(ask(Some("another-token")).await.unwrap().status(), StatusCode::OK, "a reload takes effect");
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let surface = up().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1/pause", surface.url);
    let clock = Clock::start();
    let begun = clock.now();
    let (mut wrong, mut slowed) = (0, None);
    // However slow this machine is just now: an attempt comes back every second, and these need less.
    while slowed.is_none() && wrong < 500 {
        let guess = || http.post(&url).bearer_auth("guess").json(&json!({})).send();
        for answer in futures_util::future::join_all((0..25).map(|_| guess())).await {
            let answer = answer.unwrap();
            match answer.status() {
                StatusCode::UNAUTHORIZED => wrong += 1,
                StatusCode::TOO_MANY_REQUESTS => slowed = Some(answer),
                other => panic!("{other}"),
            }
        }
    }
    // Ten at once, also when they come side by side, and one more for every second that has passed.
    let seconds = clock.now().since(begun).as_secs();
    assert!((10..=11 + seconds).contains(&wrong), "{wrong} attempts in {seconds} s");
    assert_eq!(slowed.expect("nobody was slowed down").headers()["retry-after"], "1");
    assert_eq!(surface.get("/api/v1/status").await.0, StatusCode::OK, "reading goes on");
    let alerts = http.post(format!("{}/hooks/alertmanager", surface.url)).bearer_auth("guess").body("{}");
    assert_eq!(alerts.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "one door at a time");
}

#[tokio::test]
async fn every_answer_carries_the_guards_headers() {
    let surface = up().await;
    for path in ["/", "/api/v1/status", "/nowhere", "/metrics"] {
        let response = surface.request(Method::GET, path).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(
            headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"),
            "{path}"
        );
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn another_host_is_not_answered() {
    let surface = up().await;
    let response = surface
        .request(Method::GET, "/api/v1/status")
        .header("host", "evil.example:9797")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(response.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("evil.example"));
    let address = surface.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The name in the request line counts as well as the header.
    let request = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[tokio::test]
async fn a_fault_in_one_request_stays_in_it() {
    let surface = up().await;
    let (status, body) = surface.get("/api/v1/services/shop/plan?to=panic").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!body.to_string().contains("as asked"), "what panicked is for the log, not for whoever asks");
    assert_eq!(surface.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn connections_are_bounded_and_come_back() {
    let surface = up().await;
    let address = surface.url.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..128 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let health = surface.get("/healthz");
    tokio::pin!(health);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut health).await.is_err(), "there is no room");
    drop(silent);
    assert_eq!(health.await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_index_lists_every_route() {
    let surface = up().await;
    let text = surface.request(Method::GET, "/").send().await.unwrap().text().await.unwrap();
    for line in text.lines().filter(|line| line.starts_with("GET") || line.starts_with("POST")) {
        let (method, rest) = line.split_once(' ').unwrap();
        let path = rest.split_whitespace().next().unwrap().split('?').next().unwrap();
        let path = path.replace("NAME", "shop").replace("ID", "r0001").replace("ITEM", "fix");
        let response = surface.request(method.parse().unwrap(), &path).send().await.unwrap();
        assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{line}");
        let body = response.text().await.unwrap();
        assert!(!body.contains("there is nothing at"), "{line}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("GET") || line.starts_with("POST")).count(), 26);
}

mod metrics {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use backstop::core::ledger::RollbackOutcome;
    use backstop::metrics::Metrics;

    use super::*;
    use crate::picture::decision;

    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render();
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
        line.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    #[tokio::test]
    async fn promtool_has_no_complaint() {
        let surface = up().await;
        surface.metrics.observe(&fleet(NEW_YEAR));
        surface.metrics.decided(&decision(NEW_YEAR));
        surface.metrics.rollback_ended(&record(1, NEW_YEAR, RollbackOutcome::Verified("proved".to_owned())));
        let response = surface.request(Method::GET, "/metrics").send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = response.text().await.unwrap();
        assert!(text.contains("backstop_build_info{version=\""));
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match promtool {
            Ok(promtool) => promtool,
            // `tests/run` installs it; without it the rest of the tests is still worth running.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        };
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }

    #[test]
    fn a_service_brings_its_series_at_zero_and_takes_them_with_it() {
        let metrics = Metrics::new();
        let names = |metrics: &Metrics| metrics.render().matches("service=\"").count();
        assert_eq!(names(&metrics), 0);
        let mut picture = fleet(NEW_YEAR);
        picture.services = vec![service("a\"b\\c", NEW_YEAR)];
        metrics.observe(&picture);
        let one = names(&metrics);
        assert_eq!(
            value(&metrics, r#"backstop_rollbacks_total{outcome="verified",service="a\"b\\c"}"#),
            Some(0.0)
        );
        assert_eq!(
            value(
                &metrics,
                r#"backstop_decisions_total{reason="crash_loop",service="a\"b\\c",verdict="hold"}"#
            ),
            Some(0.0)
        );
        picture.services.push(service("b", NEW_YEAR));
        metrics.observe(&picture);
        assert_eq!(names(&metrics), 2 * one);
        picture.services.clear();
        metrics.observe(&picture);
        assert_eq!(names(&metrics), 0, "{}", metrics.render());
    }

    #[test]
    fn exactly_one_state_is_one() {
        let metrics = Metrics::new();
        let mut picture = fleet(NEW_YEAR);
        metrics.observe(&picture);
        picture.services[2].state = State::RollingBack;
        metrics.observe(&picture);
        let states: Vec<&str> = State::ALL
            .into_iter()
            .map(State::name)
            .filter(|state| {
                value(&metrics, &format!("backstop_service_state{{service=\"shop\",state=\"{state}\"}}"))
                    == Some(1.0)
            })
            .collect();
        assert_eq!(states, ["rolling_back"]);
        assert_eq!(value(&metrics, "backstop_service_no_rollback_target{service=\"web\"}"), Some(1.0));
        assert_eq!(value(&metrics, "backstop_service_no_rollback_target{service=\"shop\"}"), Some(0.0));
        assert_eq!(value(&metrics, "backstop_services_refused"), Some(1.0));
    }

    #[test]
    fn deployments_are_counted_but_not_our_own_nor_those_before_us() {
        let metrics = Metrics::new();
        let deployments = || value(&metrics, "backstop_deployments_total{service=\"shop\"}");
        let mut picture = fleet(NEW_YEAR);
        metrics.observe(&picture);
        assert_eq!(deployments(), Some(0.0));
        picture.services[2].deployed = Some(NEW_YEAR);
        metrics.observe(&picture);
        metrics.observe(&picture);
        assert_eq!(deployments(), Some(1.0));
        picture.services[2].state = State::Verifying;
        picture.services[2].deployed = Some(NEW_YEAR + Duration::from_secs(60));
        metrics.observe(&picture);
        assert_eq!(deployments(), Some(1.0), "a rollback is no deployment");
        picture.services.push(service("young", NEW_YEAR));
        metrics.observe(&picture);
        assert_eq!(value(&metrics, "backstop_deployments_total{service=\"young\"}"), Some(1.0));
    }

    #[test]
    fn samples_follow_the_snapshot_and_survive_a_service_that_came_back() {
        let metrics = Metrics::new();
        let healthy =
            || value(&metrics, r#"backstop_samples_total{outcome="healthy",service="shop",signal="health"}"#);
        let mut picture = fleet(NEW_YEAR);
        metrics.observe(&picture);
        assert_eq!(healthy(), Some(18_000.0));
        picture.services[2].samples[0].1.healthy = 18_002;
        metrics.observe(&picture);
        assert_eq!(healthy(), Some(18_002.0));
        picture.services[2].samples[0].1.healthy = 5;
        metrics.observe(&picture);
        assert_eq!(healthy(), Some(5.0));
    }

    #[test]
    fn the_engines_returns_and_the_rollbacks_ends_are_counted_once() {
        let metrics = Metrics::new();
        let mut picture = fleet(NEW_YEAR);
        let up = picture.engine.clone();
        for engine in
            [None, up.clone(), Some(EngineState::Unreachable { why: "gone".to_owned() }), up.clone(), up]
        {
            picture.engine = engine;
            metrics.observe(&picture);
        }
        assert_eq!(value(&metrics, r#"backstop_engine_reconnects_total{engine=""}"#), Some(1.0));
        assert_eq!(value(&metrics, r#"backstop_engine_up{engine=""}"#), Some(1.0));
        let away = Some(EngineState::Unreachable { why: "gone".to_owned() });
        let east = |state| vec![EngineSnapshot { name: "east".to_owned(), state, looked: true }];
        for (state, up) in [(None, 0.0), (picture.engine.clone(), 1.0), (away, 0.0)] {
            picture.engines = east(state);
            metrics.observe(&picture);
            assert_eq!(value(&metrics, r#"backstop_engine_up{engine="east"}"#), Some(up));
            assert_eq!(value(&metrics, r#"backstop_engine_up{engine=""}"#), Some(1.0));
        }
        assert_eq!(value(&metrics, r#"backstop_engine_reconnects_total{engine="east"}"#), Some(0.0));
        metrics.rollback_ended(&record(1, NEW_YEAR, RollbackOutcome::Verifying));
        metrics.rollback_ended(&record(1, NEW_YEAR, RollbackOutcome::Verified(String::new())));
        assert_eq!(
            value(&metrics, r#"backstop_rollbacks_total{outcome="verified",service="shop"}"#),
            Some(1.0)
        );
        assert_eq!(value(&metrics, "backstop_rollback_onset_to_applied_seconds_sum"), Some(13.25));
        assert_eq!(value(&metrics, "backstop_rollback_decision_to_applied_seconds_count"), Some(1.0));
        metrics.config_loaded(true, NEW_YEAR);
        metrics.config_loaded(false, NEW_YEAR + Duration::from_secs(5));
        assert_eq!(value(&metrics, "backstop_config_last_reload_successful"), Some(0.0));
        assert_eq!(
            value(&metrics, "backstop_config_last_reload_success_timestamp_seconds"),
            Some(1_893_456_000.0)
        );
    }
}
