//! Each channel: what it sends is what its service takes, whatever is said; routes; and nobody waits for anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use backstop::core::announcement::{Announcement, AnnouncementKind as Kind};
use backstop::core::release::ServiceName;
use backstop::core::settings::Severity;
use backstop::notify::plan::{Audience, Channel, Endpoint, Medium, Plan, Route};
use backstop::notify::{Shape, Template, every_kind};
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::receiver::{Answer, Bench, QUICK, Receiver, against, now};

/// The kinds that begin or end a matter, or go on with it, in an order in which they could come.
const MATTER: [Kind; 6] = [
    Kind::Evaluate,
    Kind::RollbackInProgress,
    Kind::RollbackFailed,
    Kind::Stuck,
    Kind::Acknowledged,
    Kind::Over,
];

fn webhook(receiver: &Receiver, shape: Shape) -> Channel {
    let endpoint = Endpoint::at(&format!("{}/hook/t0pic", receiver.url));
    Channel::new("hook", Medium::Webhook { endpoint, key: None, shape })
}

/// Every kind as it usually is, and with more than any service takes.
fn all_sizes() -> Vec<Announcement> {
    let mut all = Vec::new();
    // What is escalated goes where levels of escalation say, and nowhere else.
    let kinds = every_kind().into_iter().filter(|a| a.kind != Kind::Escalated);
    for (n, a) in kinds.enumerate() {
        let mut a = now(a.kind, &format!("usual {n}"));
        all.push(a.clone());
        a.key = format!("huge {n}");
        a.title = format!("{} {}", a.title, "<T&>".repeat(300));
        a.fields.extend((0..80).map(|n| (format!("Note <{n}>"), "ü&\"\\\n".repeat(2000))));
        all.push(a);
    }
    all
}

/// Sends everything over a channel of a kind and gives what came out.
async fn posted(make: impl Fn(&Receiver) -> Channel, said: &[Announcement]) -> Vec<super::receiver::Request> {
    let mut receiver = Receiver::start(&[Answer::Status(500), Answer::Status(202)]).await;
    let mut channel = make(&receiver);
    // So that notes reach pagers too.
    let route = Route { channels: vec![channel.name.clone()], kinds: Kind::ALL.to_vec(), ..Route::default() };
    channel.timeout = Duration::from_secs(5);
    let plan = Plan { routes: vec![route], ..Plan::of(vec![channel]) };
    let bench = Bench::start(plan).await;
    for a in said {
        bench.say(a).await;
    }
    bench.handle.drain(super::receiver::PATIENCE).await;
    // The one that failed first may wait for its second attempt.
    let waiting = || bench.sql("SELECT title FROM announcements WHERE state = 'waiting'");
    while !waiting().is_empty() {
        bench.handle.drain(super::receiver::PATIENCE).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.sql("SELECT last_error FROM announcements WHERE state = 'abandoned'"), [""; 0]);
    std::iter::from_fn(|| receiver.got.try_recv().ok()).collect()
}

#[tokio::test]
async fn slack_takes_what_is_sent_whatever_is_said() {
    let said = all_sizes();
    let requests = posted(|r| r.slack("ops"), &said).await;
    assert_eq!(requests.len(), said.len() + 1, "the first was sent twice");
    for request in &requests {
        assert_eq!(against("slack", &request.json()), [""; 0], "{}", request.body);
    }
    assert_eq!(requests[0].body, requests.iter().rfind(|r| r.body == requests[0].body).unwrap().body);
    let began = requests.iter().map(super::receiver::Request::json).find(|body| {
        body["text"]
            .as_str()
            .unwrap()
            .starts_with("<!channel> ROLLBACK IN PROGRESS: shop\nEnvironment: production")
    });
    let began = began.expect("the runbook's words, with everybody called");
    assert_eq!(began["blocks"][0]["text"]["text"], "ROLLBACK IN PROGRESS: shop");
    assert_eq!(began["blocks"][1]["text"]["text"], "<!channel>");
    for request in requests.iter().filter(|r| r.body.contains("Note ")) {
        let text = request.json()["text"].as_str().unwrap().to_owned();
        assert!(text.contains("Reason: error_rate: 12.5 %"), "the reason is lost: {text}");
    }
}

#[tokio::test]
async fn pagerduty_takes_what_is_sent_and_hears_the_whole_matter_under_one_key() {
    let said: Vec<Announcement> =
        MATTER.iter().enumerate().map(|(n, kind)| now(*kind, &format!("{n}"))).collect();
    let requests = posted(|r| r.pagerduty("pager"), &said).await;
    let events: Vec<Value> = requests.iter().skip(1).map(super::receiver::Request::json).collect();
    let actions: Vec<&str> = events.iter().map(|e| e["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "trigger", "trigger", "trigger", "acknowledge", "resolve"]);
    let keys: BTreeSet<&str> = events.iter().map(|e| e["dedup_key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys.first().unwrap().starts_with("backstop/production/shop/"));
    let severities: Vec<&Value> = events.iter().map(|e| &e["payload"]["severity"]).collect();
    assert_eq!(
        severities[..4],
        [&json!("warning"), &json!("critical"), &json!("critical"), &json!("critical")]
    );
    for request in posted(|r| r.pagerduty("pager"), &all_sizes()).await {
        assert_eq!(against("pagerduty", &request.json()), [""; 0], "{}", request.body);
    }
}

#[tokio::test]
async fn alertmanager_takes_what_is_sent() {
    let said = all_sizes();
    let requests = posted(|r| r.alertmanager("alerts"), &said).await;
    assert!(requests.len() > 10);
    for request in &requests {
        assert_eq!(request.path, "/api/v2/alerts");
        assert_eq!(against("alertmanager", &request.json()), [""; 0], "{}", request.body);
    }
}

#[tokio::test]
async fn ready_templates_make_what_their_services_take() {
    for (schema, shape) in [
        ("discord", Shape::Discord),
        ("teams", Shape::Teams),
        ("mattermost", Shape::Mattermost),
        ("ntfy", Shape::Ntfy),
        ("standard-webhook", Shape::Plain),
    ] {
        let said = all_sizes();
        let requests = posted(|r| webhook(r, shape.clone()), &said).await;
        assert_eq!(requests.len(), said.len() + 1, "{schema}");
        for request in &requests {
            let body = request.json();
            assert_eq!(against(schema, &body), [""; 0], "{schema}: {}", request.body);
            assert_eq!(request.headers["content-type"], "application/json");
            assert!(schema != "teams" || request.body.len() <= 28 << 10, "{}", request.body.len());
            assert!(request.body.contains("error_rate: 12.5 %"), "{schema} loses the reason: {body}");
        }
        let path = if schema == "ntfy" { "/hook/" } else { "/hook/t0pic" };
        assert!(requests.iter().all(|r| r.path == path), "{schema}");
        if schema == "ntfy" {
            assert!(requests.iter().all(|r| r.json()["topic"] == "t0pic"));
        }
        // Users' templates are their own.
        let users =
            posted(|r| Channel { audience: Audience::Users, ..webhook(r, shape.clone()) }, &said).await;
        assert!(users.len() > 4, "{schema}");
        for request in &users {
            assert_eq!(against(schema, &request.json()), [""; 0], "{schema}: {}", request.body);
            for inner in ["shop", "registry", "sha256", "error_rate", "backstop history"] {
                assert!(!request.body.contains(inner), "{schema} tells users of {inner}: {}", request.body);
            }
        }
    }
}

#[tokio::test]
async fn a_webhook_is_signed_and_keeps_its_id_over_retries() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut receiver =
        Receiver::start(&[Answer::Status(503), Answer::Status(500), Answer::Status(200)]).await;
    let mut endpoint = Endpoint::at(&format!("{}/hook", receiver.url));
    endpoint.token = Some("t0k3n".into());
    let shape = Shape::Own(Template::new("{\"said\": {{ text }}, \"by\": {{ values.Reason }}}", true));
    let channel = Channel::new("hook", Medium::Webhook { endpoint, key: Some(secret.into()), shape });
    let mut bench = Bench::start(Plan::of(vec![channel])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    let three = [receiver.next().await, receiver.next().await, receiver.next().await];
    for request in &three {
        let header = |name: &str| request.headers[name].as_str();
        assert_eq!(header("webhook-id"), three[0].headers["webhook-id"]);
        assert_eq!(request.body, three[0].body);
        assert_eq!(header("authorization"), "Bearer t0k3n");
        let key = base64::engine::general_purpose::STANDARD.decode(&secret[6..]).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(
            format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), request.body).as_bytes(),
        );
        let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        assert_eq!(header("webhook-signature"), format!("v1,{expected}"));
    }
    assert!(three[0].json()["said"].as_str().unwrap().starts_with("@channel A PERSON IS NEEDED: shop\n"));
    bench.outcome("hook", "delivered").await;
}

#[tokio::test]
async fn a_crash_between_delivery_and_record_says_it_again_with_the_same_id_and_words() {
    let mut receiver = Receiver::start(&[Answer::Status(200)]).await;
    let plain = |text: &str| {
        let channel = webhook(&receiver, Shape::Plain);
        Plan::of(vec![Channel { text: Some(Template::new(text, false)), ..channel }])
    };
    let (before, after) = (plain("before: {{ title }}"), plain("after: {{ title }}"));
    let mut bench = Bench::start(before).await;
    // What is addressed is written down; that it was delivered is not.
    let c = rusqlite::Connection::open(bench.dir.path().join("backstop.sqlite3")).unwrap();
    c.execute_batch(
        "CREATE TRIGGER broken BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .unwrap();
    bench.say(&now(Kind::Stuck, "a")).await;
    let first = receiver.next().await;
    bench.outcome("hook", "delivered").await;
    let mut bench = bench.kill(after, |_| c.execute_batch("DROP TRIGGER broken").unwrap()).await;
    let second = receiver.next().await;
    assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
    assert_eq!(first.body, second.body, "other words");
    assert!(first.body.contains("before: A PERSON IS NEEDED: shop"));
    bench.outcome("hook", "delivered").await;
    bench.handle.drain(super::receiver::PATIENCE).await;
    assert!(receiver.got.try_recv().is_err());
}

#[tokio::test]
async fn a_channel_that_is_down_delays_no_other() {
    let mut hangs = Receiver::start(&[Answer::Hang]).await;
    let mut fails = Receiver::start(&[Answer::Status(500)]).await;
    let mut endless = Receiver::start(&[Answer::Endless(500), Answer::Status(200)]).await;
    let mut well = Receiver::start(&[Answer::Status(200)]).await;
    let plan = Plan::of(vec![
        hangs.slack("hangs"),
        fails.slack("fails"),
        endless.slack("endless"),
        well.slack("well"),
    ]);
    let mut bench = Bench::start(plan).await;
    for n in 0..5 {
        bench.say(&now(Kind::Blind, &format!("{n}"))).await;
    }
    let keys = async |receiver: &mut Receiver| {
        let request = receiver.next().await;
        let body = request.json();
        body["blocks"].as_array().unwrap().last().unwrap()["elements"][0]["text"].as_str().unwrap().to_owned()
    };
    for n in 0..5 {
        assert!(keys(&mut well).await.ends_with(&format!("· {n}")));
    }
    hangs.next().await;
    fails.next().await;
    endless.next().await;
    bench.outcome("endless", "retried").await;
    bench.outcome("endless", "delivered").await;
    bench.recorded("well", 5).await;
    assert!(
        bench.sql("SELECT state FROM delivery_log WHERE channel = 'hangs'").iter().all(|s| s == "waiting")
    );
    assert_eq!(bench.sql("SELECT DISTINCT state FROM announcements"), ["waiting"]);
}

#[tokio::test]
async fn what_goes_where_is_what_the_routes_say() {
    let mut server = Receiver::start(&[Answer::Status(200)]).await;
    let route = |channel: &str| Route { channels: vec![channel.into()], ..Route::default() };
    let names = ["all", "east", "urgent", "daemon", "nobody"];
    let plan = Plan {
        routes: vec![
            route("all"),
            Route { services: vec!["east/*".into(), "sh?p".into()], ..route("east") },
            Route { severity: Some(Severity::High), ..route("urgent") },
            Route { kinds: vec![Kind::Daemon], ..route("daemon") },
        ],
        ..Plan::of(names.iter().map(|name| server.slack(name)).collect())
    };
    let goes = |a: &Announcement| -> Vec<String> {
        plan.channels_for(a, None).iter().map(|channel| channel.name.clone()).collect()
    };
    let mut a = now(Kind::Evaluate, "a");
    assert_eq!(goes(&a), ["all", "east"]);
    a.severity = Some(Severity::Critical);
    a.service = Some(ServiceName::new("west/api"));
    assert_eq!(goes(&a), ["all", "urgent"]);
    a.service = Some(ServiceName::new("east/api"));
    assert_eq!(goes(&a), ["all", "east", "urgent"]);
    assert_eq!(goes(&now(Kind::Daemon, "d")), ["all", "daemon"]);
    assert_eq!(goes(&now(Kind::Stuck, "s")), ["all", "east", "urgent"], "urgent without a decision");

    let bench = Bench::start(Plan {
        routes: vec![Route { kinds: vec![Kind::Daemon], ..route("daemon") }],
        ..plan.clone()
    })
    .await;
    bench.say(&now(Kind::Blind, "b")).await;
    bench.say(&now(Kind::Daemon, "d")).await;
    assert!(server.next().await.body.contains("· daemon · d"));
    bench.handle.drain(QUICK.look * 100).await;
    assert!(server.got.try_recv().is_err(), "one channel, one message");
    assert_eq!(
        bench.sql("SELECT DISTINCT state FROM announcements"),
        ["delivered"],
        "what goes nowhere is done"
    );
}

#[tokio::test]
async fn what_waits_for_a_channel_that_is_gone_goes_where_such_things_go_now() {
    let mut old = Receiver::start(&[Answer::Status(500)]).await;
    let mut new = Receiver::start(&[Answer::Status(200)]).await;
    let mut bench = Bench::start(Plan::of(vec![old.slack("old")])).await;
    bench.say(&now(Kind::Stuck, "a")).await;
    old.next().await;
    bench.outcome("old", "retried").await;
    let mut bench = bench.restart(Plan::of(vec![new.pagerduty("new")])).await;
    assert_eq!(new.next().await.json()["event_action"], "trigger");
    bench.outcome("new", "delivered").await;
    // The same name for another kind of place: written anew, as that place takes it.
    let plan = |channel: Channel| std::sync::Arc::new(Plan::of(vec![channel]));
    bench.plan.send_replace(plan(old.slack("place")));
    bench.say(&now(Kind::Evaluate, "b")).await;
    bench.outcome("place", "retried").await;
    bench.plan.send_replace(plan(new.pagerduty("place")));
    assert_eq!(against("pagerduty", &new.next().await.json()), [""; 0]);
    bench.outcome("place", "delivered").await;
}
