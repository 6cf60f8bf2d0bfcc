//! After a rollback: reminders of what it left to people, and its ticket, through restarts and outages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use backstop::app::follow_up::FollowUp;
use backstop::config::{ReportSettings, Sources, load};
use backstop::core::Timestamp;
use backstop::core::announcement::Announcement;
use backstop::core::ledger::{LedgerChange, Proof, RollbackOutcome, RollbackRecord, Witness};
use backstop::core::release::{RollbackId, ServiceName};
use backstop::core::settings::{Condition, Severity};
use backstop::notify::plan::{Endpoint, Plan};
use backstop::notify::{Outcomes, Tracker};
use backstop::store::{Store, Ticked, TicketState};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::cli::backstop;
use super::picture::{NEW_YEAR, record};
use super::receiver::{Answer, Bench, PATIENCE, Receiver, against};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const SECRET: &str = "github_pat_11AAAAAAA0123456789";

/// So long after the end of what [`ended`] gives.
fn after(secs: u64) -> Timestamp {
    NEW_YEAR + Duration::from_secs(33 + secs)
}

fn ended(number: u32, outcome: RollbackOutcome) -> RollbackRecord {
    record(number, NEW_YEAR, outcome)
}

fn verified(number: u32) -> RollbackRecord {
    let row = |condition| Witness { condition, rule: condition.name().into(), samples: 412 };
    let requests = vec![row(Condition::ErrorRate), row(Condition::Latency)];
    RollbackRecord {
        proof: Some(Proof { checks: 6, healthy: 0, requests }),
        ..ended(number, RollbackOutcome::Verified("shop:v1 passed every rule for 30s".into()))
    }
}

async fn keep(store: &Store, record: &RollbackRecord) {
    store.remember(vec![LedgerChange::RollbackOpened(Box::new(record.clone()))]).await.unwrap();
}

/// What looks after the rollbacks in the store of a bench, and what it counts.
fn follow_up(bench: &Bench) -> (FollowUp, Arc<Mutex<Vec<&'static str>>>) {
    let counted: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let count = Arc::clone(&counted);
    let outcomes: Outcomes = Arc::new(move |tracker: &str, outcome| {
        assert_eq!(tracker, "report.github");
        count.lock().unwrap().push(outcome);
    });
    (FollowUp::new(bench.store.clone(), bench.handle.clone(), outcomes), counted)
}

impl Bench {
    /// The reminders that were ever said, by their keys.
    fn reminders(&self) -> Vec<String> {
        self.sql("SELECT key FROM outbox WHERE kind = 'reminder' ORDER BY id")
    }
}

#[tokio::test]
async fn people_are_reminded_once_a_day_until_everything_is_ticked() {
    let mut receiver = Receiver::start(&[Answer::Status(200)]).await;
    let mut pager = Receiver::start(&[Answer::Status(202)]).await;
    let bench = Bench::start(Plan::of(vec![receiver.slack("ops"), pager.pagerduty("pager")])).await;
    keep(&bench.store, &verified(1)).await;
    let settings = ReportSettings::default();
    let (mut follow_up, _) = follow_up(&bench);
    for early in [0, HOUR, DAY - 601] {
        follow_up.look(after(early), &settings).await;
    }
    assert_eq!(bench.reminders(), [""; 0]);
    for same_day in [DAY, DAY + 1, 2 * DAY - 1] {
        follow_up.look(after(same_day), &settings).await;
    }
    assert_eq!(bench.reminders(), ["reminder/r0001/0"]);
    let text = receiver.next().await.json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("STILL TO DO AFTER A ROLLBACK: shop\nEnvironment: production\n"), "{text}");
    for said in [
        "root_cause: Root cause found: service owner, overdue by 0s (since 2030-01-02 00:00:33 UTC)",
        "post_mortem: Post-mortem held: team lead, by 2030-01-03 00:00:33 UTC",
        "Next: backstop incident tick r0001 impact --note \"...\"",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }

    // Another process knows what was said, by its store alone; and the day that nobody looked is not made up for.
    let (mut anew, _) = self::follow_up(&bench);
    anew.look(after(DAY + HOUR), &settings).await;
    assert_eq!(bench.reminders().len(), 1);
    anew.look(after(3 * DAY), &settings).await;
    assert_eq!(bench.reminders(), ["reminder/r0001/0", "reminder/r0001/2"]);

    let open = "impact notified resolution smoke_tests ticket stakeholders root_cause fix deployment_plan post_mortem";
    for item in open.split(' ') {
        let tick = Ticked { item: item.into(), at: after(3 * DAY), by: "anna".into(), note: String::new() };
        bench.store.tick(&RollbackId::new("r0001"), &tick).await.unwrap();
    }
    anew.look(after(4 * DAY), &settings).await;
    assert_eq!(bench.reminders().len(), 2, "what is left has a week");
    anew.look(after(8 * DAY), &settings).await;
    assert_eq!(bench.reminders().len(), 3);
    for item in ["prevention", "lessons"] {
        let tick = Ticked { item: item.into(), at: after(8 * DAY), by: "anna".into(), note: "done".into() };
        bench.store.tick(&RollbackId::new("r0001"), &tick).await.unwrap();
    }
    anew.look(after(9 * DAY), &settings).await;
    assert_eq!(bench.reminders().len(), 3, "nothing is left to do");
    bench.store.untick(&RollbackId::new("r0001"), "prevention", "ben", after(9 * DAY)).await.unwrap();
    anew.look(after(10 * DAY), &settings).await;
    assert_eq!(bench.reminders().len(), 4, "it is open again");
    anew.look(after(15 * DAY), &settings).await;
    assert_eq!(bench.reminders().len(), 4, "two weeks are over");

    bench.handle.drain(PATIENCE).await;
    bench.recorded("ops", 4).await;
    assert!(pager.got.try_recv().is_err(), "a pager was told");
    let kept = bench.sql("SELECT announcement FROM outbox WHERE kind = 'reminder' LIMIT 1");
    let kept: Announcement = serde_json::from_str(&kept[0]).unwrap();
    assert_eq!((kept.severity, kept.service), (Some(Severity::Low), Some(ServiceName::new("shop"))));
    assert_eq!(bench.sql("SELECT subject FROM matters"), [""; 0], "a reminder is no matter");
}

#[tokio::test]
async fn nobody_is_reminded_of_what_did_not_happen_or_goes_on() {
    let bench = Bench::start(Plan::default()).await;
    let outcomes = [
        RollbackOutcome::Executing,
        RollbackOutcome::Verifying,
        RollbackOutcome::Void("a new deployment came first".into()),
        RollbackOutcome::Unwound("the image is gone".into()),
        RollbackOutcome::Stuck("the name is taken".into()),
        RollbackOutcome::NotVerified("health: 3 failures".into()),
    ];
    for (number, outcome) in (1..).zip(outcomes) {
        keep(&bench.store, &ended(number, outcome)).await;
    }
    // The last one was followed by the next older release, in the same turn.
    keep(&bench.store, &record(7, after(0), RollbackOutcome::Verified("it passed".into()))).await;
    let (mut follow_up, _) = follow_up(&bench);
    let now = after(DAY + HOUR);
    follow_up.look(now, &ReportSettings::default()).await;
    assert_eq!(bench.reminders(), ["reminder/r0007/0", "reminder/r0005/0"]);

    let mut off = ReportSettings::default();
    off.reminders.enabled = false;
    follow_up.look(after(3 * DAY), &off).await;
    assert_eq!(bench.reminders().len(), 2);
}

/// What GitHub does with a request to open an issue.
#[derive(Debug, Clone, Copy)]
enum Does {
    Opens,
    /// It opens it, and the answer never arrives.
    OpensAndHangs,
    Answers(u16, &'static [(&'static str, &'static str)]),
}

/// GitHub, as far as it is about the issues of one repository.
#[derive(Debug, Default)]
struct Hub {
    issues: Mutex<Vec<Value>>,
    posted: Mutex<Vec<Value>>,
    asked: Mutex<Vec<String>>,
    /// What it does with the next requests; it opens issues after that.
    script: Mutex<Vec<Does>>,
    repository: Mutex<Value>,
}

async fn list(State(hub): State<Arc<Hub>>, Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let say = |(name, value): (String, String)| format!("{name}={value}");
    hub.asked.lock().unwrap().push(query.into_iter().map(say).collect::<Vec<_>>().join("&"));
    let mut issues = hub.issues.lock().unwrap().clone();
    issues.reverse();
    Json(issues.into())
}

async fn create(State(hub): State<Arc<Hub>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(headers["accept"], "application/vnd.github+json");
    hub.posted.lock().unwrap().push(body.clone());
    let does = {
        let mut script = hub.script.lock().unwrap();
        if script.is_empty() { Does::Opens } else { script.remove(0) }
    };
    if let Does::Answers(status, headers) = does {
        let said = json!({"message": format!("no, {SECRET}")});
        let mut response = (StatusCode::from_u16(status).unwrap(), Json(said)).into_response();
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        return response;
    }
    let issue = {
        let mut issues = hub.issues.lock().unwrap();
        let number = issues.len() + 1;
        let url = format!("https://github.example/shop/shop/issues/{number}");
        issues.push(json!({"number": number, "html_url": url, "body": body["body"], "title": body["title"]}));
        issues[number - 1].clone()
    };
    if matches!(does, Does::OpensAndHangs) {
        std::future::pending::<()>().await;
    }
    (StatusCode::CREATED, Json(issue)).into_response()
}

async fn repository(State(hub): State<Arc<Hub>>) -> Response {
    let known = hub.repository.lock().unwrap().clone();
    if known.is_null() { StatusCode::NOT_FOUND.into_response() } else { Json(known).into_response() }
}

impl Hub {
    async fn start(script: &[Does]) -> (Arc<Self>, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hub = Arc::new(Self { script: Mutex::new(script.to_vec()), ..Self::default() });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}/api/v3/", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/api/v3/repos/shop/shop/issues", get(list).post(create))
            .route("/api/v3/repos/shop/shop", get(repository))
            .with_state(Arc::clone(&hub));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (hub, url)
    }

    fn opened(&self) -> usize {
        self.issues.lock().unwrap().len()
    }

    fn posted(&self) -> usize {
        self.posted.lock().unwrap().len()
    }
}

fn github(url: &str) -> ReportSettings {
    let endpoint = Endpoint { token: Some(SECRET.into()), ..Endpoint::at(url) };
    let labels = vec!["incident".to_owned(), "backstop".to_owned()];
    ReportSettings {
        github: Some(Tracker { repository: "shop/shop".into(), endpoint, labels }),
        ..ReportSettings::default()
    }
}

async fn ticket(bench: &Bench, id: &str) -> Option<TicketState> {
    bench.store.ticket(&RollbackId::new(id)).await.unwrap()
}

#[tokio::test]
async fn a_ticket_is_opened_through_outages_and_with_the_patience_that_is_asked_for() {
    let slow: &[(&str, &str)] = &[("retry-after", "90")];
    let (hub, url) = Hub::start(&[Does::Answers(500, &[]), Does::Answers(429, slow)]).await;
    let bench = Bench::start(Plan::default()).await;
    keep(&bench.store, &verified(1)).await;
    let (settings, (mut follow_up, counted)) = (github(&url), follow_up(&bench));
    follow_up.look(after(59), &settings).await;
    assert_eq!(hub.posted(), 0, "who was told is not known yet");
    follow_up.look(after(60), &settings).await;
    assert_eq!(hub.posted(), 1);
    follow_up.look(after(69), &settings).await;
    assert_eq!(hub.posted(), 1, "not so soon after a failure");
    follow_up.look(after(70), &settings).await;
    assert_eq!(hub.posted(), 2);
    // Another process has the same patience.
    let (mut anew, _) = self::follow_up(&bench);
    for early in [90, 159] {
        anew.look(after(early), &settings).await;
        follow_up.look(after(early), &settings).await;
    }
    assert_eq!(hub.posted(), 2, "it asked for a minute and a half");
    follow_up.look(after(160), &settings).await;
    follow_up.look(after(500), &settings).await;
    anew.look(after(600), &settings).await;
    assert_eq!((hub.posted(), hub.opened()), (3, 1));
    assert_eq!(*counted.lock().unwrap(), ["retried", "retried", "delivered"]);

    let open = ticket(&bench, "r0001").await.unwrap();
    assert_eq!(open.url.as_deref(), Some("https://github.example/shop/shop/issues/1"));
    assert_eq!((open.attempts, open.opened, open.last_error), (3, Some(after(160)), None));
    for payload in hub.posted.lock().unwrap().iter() {
        assert_eq!(against("github", payload), [""; 0], "{payload}");
        assert_eq!(payload["labels"], json!(["incident", "backstop"]));
        let body = payload["body"].as_str().unwrap();
        assert!(
            body.starts_with("<!-- backstop-rollback-r0001 -->\n# Incident: shop rolled back\n"),
            "{body}"
        );
        assert!(body.contains("- [ ] `root_cause` Root cause found (service owner), between"), "{body}");
    }
    let title = hub.posted.lock().unwrap()[0]["title"].as_str().unwrap().to_owned();
    assert!(title.starts_with("[production] shop was rolled back from shop:v2"), "{title}");
    let asked = hub.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("state=all&since=2029-12-31T23:00:00Z&sort=created"), "{asked}");

    // It is no reminder any more, and said where it is.
    follow_up.look(after(DAY), &settings).await;
    let said = bench.sql("SELECT announcement FROM outbox WHERE kind = 'reminder'").join("");
    assert!(
        said.contains("https://github.example/shop/shop/issues/1") && !said.contains("Incident ticket"),
        "{said}"
    );
}

/// A secret that is new in the bad release, and that it wrote into its log, is in no report and in no ticket.
#[tokio::test]
async fn what_only_the_bad_release_knew_is_in_no_ticket() {
    let bench = Bench::start(Plan::default()).await;
    let record = verified(1);
    keep(&bench.store, &record).await;
    let log = json!({"event": "succeeded", "step": 0, "output": {"output": "evidence", "log": ["charge with n3w-k3y-2 was refused"]}});
    bench.store.append_journal(&record.id, &log, false).await.unwrap();
    let secrets = json!(["n3w-k3y-2"]);
    bench.store.save_evidence(&record.id, "secrets", record.started, &secrets).await.unwrap();
    let (hub, url) = Hub::start(&[]).await;
    let (mut follow_up, _) = follow_up(&bench);
    follow_up.look(after(61), &github(&url)).await;
    let posted = hub.posted.lock().unwrap()[0]["body"].as_str().unwrap().to_owned();
    assert!(
        posted.contains("charge with \\[hidden\\] was refused")
            || posted.contains("charge with [hidden] was refused"),
        "{posted}"
    );
    assert!(!posted.contains("n3w-k3y-2"), "{posted}");
}

#[tokio::test]
async fn a_process_that_is_killed_between_request_and_record_opens_no_second_ticket() {
    let (hub, url) = Hub::start(&[Does::OpensAndHangs]).await;
    let bench = Bench::start(Plan::default()).await;
    keep(&bench.store, &verified(1)).await;
    keep(&bench.store, &verified(12)).await;
    let settings = github(&url);
    let (mut follow_up, _) = follow_up(&bench);
    let cut_off = settings.clone();
    let killed = tokio::spawn(async move { follow_up.look(after(60), &cut_off).await });
    let opened = async {
        while hub.opened() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("no issue was opened");
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    let state = ticket(&bench, "r0012").await.expect("it is written down before anybody is asked");
    assert_eq!((state.attempts, state.url), (1, None));

    let (mut anew, counted) = self::follow_up(&bench);
    anew.look(after(120), &settings).await;
    assert_eq!((hub.opened(), hub.posted()), (2, 2), "one for each rollback");
    let url_of = async |id: &str| ticket(&bench, id).await.unwrap().url.unwrap();
    assert_eq!(url_of("r0012").await, "https://github.example/shop/shop/issues/1", "the one that was there");
    assert_eq!(url_of("r0001").await, "https://github.example/shop/shop/issues/2");
    assert_eq!(*counted.lock().unwrap(), ["delivered", "delivered"]);
}

#[tokio::test]
async fn what_cannot_be_opened_is_said_and_given_up_after_a_day() {
    let used_up: &[(&str, &str)] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1893456633")];
    let mut script = vec![Does::Answers(403, used_up)];
    script.extend([Does::Answers(401, &[]); 40]);
    let (hub, url) = Hub::start(&script).await;
    let bench = Bench::start(Plan::default()).await;
    keep(&bench.store, &ended(1, RollbackOutcome::Stuck("no space".into()))).await;
    let settings = github(&url);
    let (mut follow_up, counted) = follow_up(&bench);
    follow_up.look(after(60), &settings).await;
    // The hour's requests are used up until ten minutes and 33 seconds after the new year.
    assert_eq!(ticket(&bench, "r0001").await.unwrap().next, NEW_YEAR + Duration::from_secs(633));
    follow_up.look(after(599), &settings).await;
    assert_eq!(hub.posted(), 1);
    follow_up.look(after(600), &settings).await;
    let refused = ticket(&bench, "r0001").await.unwrap();
    assert_eq!(refused.next, after(600 + HOUR), "only a person can mend that");
    let why = refused.last_error.unwrap();
    assert!(why.contains("401") && !why.contains(SECRET), "{why}");
    let title = hub.posted.lock().unwrap()[0]["title"].as_str().unwrap().to_owned();
    assert!(title.starts_with("[production] shop needs a person: "), "{title}");
    for hour in 2..30 {
        follow_up.look(after(hour * HOUR), &settings).await;
    }
    assert!(ticket(&bench, "r0001").await.unwrap().abandoned.is_some());
    assert_eq!(counted.lock().unwrap().iter().filter(|what| **what == "abandoned").count(), 1);
    let posted = hub.posted();
    follow_up.look(after(2 * DAY), &settings).await;
    assert_eq!((hub.posted(), hub.opened()), (posted, 0));
    let said = bench.sql("SELECT announcement FROM outbox WHERE kind = 'reminder'").join("");
    assert!(said.contains("Incident ticket created, with this report: on-call, overdue"), "{said}");
}

#[tokio::test]
async fn whoever_configures_a_repository_is_not_sent_the_past() {
    let (hub, url) = Hub::start(&[]).await;
    let bench = Bench::start(Plan::default()).await;
    keep(&bench.store, &verified(1)).await;
    let (mut follow_up, _) = follow_up(&bench);
    follow_up.look(after(DAY + 1), &github(&url)).await;
    follow_up.look(after(60), &ReportSettings::default()).await;
    assert_eq!((hub.posted(), ticket(&bench, "r0001").await), (0, None));
}

#[tokio::test]
async fn notify_test_asks_whether_a_ticket_could_be_opened() {
    let (hub, url) = Hub::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backstop.toml");
    let config = file.to_str().unwrap();
    let text = format!("[report.github]\nrepository = \"shop/shop\"\ntoken = {SECRET:?}\napi = {url:?}\n");
    std::fs::write(&file, text).unwrap();
    let run = async |args: &[&str]| {
        let args = [&["notify", "test", "--config", config], args].concat();
        let output = backstop(&args).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
    };
    let (out, err, code) = run(&[]).await;
    assert!(
        code == 1
            && out.starts_with(
                "report.github (github): no ticket could be opened in shop/shop: it answered 404"
            ),
        "{out}"
    );
    assert!(err.contains("correct [report.github], then try again"), "{err}");
    *hub.repository.lock().unwrap() = json!({"has_issues": false});
    assert!(run(&["report.github"]).await.0.contains("issues are switched off in this repository"));
    *hub.repository.lock().unwrap() = json!({"has_issues": true});
    let (out, _, code) = run(&["report.github"]).await;
    assert_eq!(
        (out.as_str(), code),
        ("report.github (github): shop/shop answers and takes issues; none was opened\n", 0)
    );
    let (out, _, code) = run(&["--show"]).await;
    let shown: Value = serde_json::from_str(out.split_once('\n').unwrap().1).unwrap();
    assert_eq!((against("github", &shown), code), (Vec::new(), 0));
    assert!(!out.contains(SECRET) && hub.posted() == 0, "{out}");
}

#[test]
fn mistakes_in_it_are_sentences_and_show_no_secret() {
    let problems = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("backstop.toml");
        std::fs::write(&file, text).unwrap();
        let found = load(&Sources { file: Some(file), ..Sources::default() }).expect_err("this has mistakes");
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (text, said) in [
        (
            "[report.github]\nrepository = \"shop\"\ntoken = \"hunter2\"\n",
            "\"shop\" is not a repository; OWNER/NAME",
        ),
        (
            "[report.github]\nrepository = \"a/b\"\n",
            "report.github: says no `token`; `token_file` would be right, or `token`",
        ),
        (
            "[report.github]\ntoken = \"hunter2\"\n",
            "report.github: says no `repository`; repository = \"OWNER/NAME\"",
        ),
        (
            "[report.github]\nrepository = \"a/b\"\ntoken = \"hunter2 x\"\n",
            "report.github.token: is not a token (not shown",
        ),
        (
            "[report.github]\nrepository = \"a/b\"\ntoken = \"hunter2\"\nlabels = [\"a,b\"]\n",
            "\"a,b\" is not a label",
        ),
        (
            "[report.github]\nrepository = \"a/b\"\ntoken = \"hunter2\"\napi = \"ftp://x\"\n",
            "is not a URL that can be asked",
        ),
        (
            "[report.github]\nrepository = \"a/b\"\ntoken = \"hunter2\"\ntoken_file = \"/x\"\n",
            "report.github.token is set too",
        ),
        ("[report.reminders]\nevery = \"5m\"\n", "\"5m\" is too short"),
        (
            "[report.reminders]\nfor = \"6h\"\n",
            "report.reminders.for: is over before the first reminder; a time longer than",
        ),
        ("[report.reminders]\nuntil = \"5days\"\n", "report.reminders.until: there is no such setting"),
    ] {
        let found = problems(text);
        assert!(found.contains(said) && !found.contains("hunter2"), "{said}\nis not in\n{found}");
    }
}

#[test]
fn it_holds_as_it_is_typed() {
    let directory = tempfile::tempdir().unwrap();
    let (file, token) = (directory.path().join("backstop.toml"), directory.path().join("token"));
    std::fs::write(&token, format!("{SECRET}\n")).unwrap();
    let text = format!(
        "[report.reminders]\nafter = \"4h\"\nevery = \"2days\"\nfor = \"7days\"\n\
         [report.github]\nrepository = \"shop/shop\"\ntoken_file = {token:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    let settings = load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
    let reminders = &settings.report.reminders;
    let hours = [reminders.after, reminders.every, reminders.until].map(|span| span.as_secs() / HOUR);
    assert_eq!((reminders.enabled, hours), (true, [4, 48, 168]));
    let tracker = settings.report.github.as_ref().unwrap();
    assert_eq!(
        (tracker.endpoint.url.expose(), &tracker.labels[..]),
        ("https://api.github.com", &["incident".to_owned()][..])
    );
    assert_eq!(tracker.endpoint.token.as_ref().unwrap().expose(), SECRET);
    assert!(!format!("{settings:?}").contains(SECRET) && !settings.effective().to_string().contains(SECRET));
}
