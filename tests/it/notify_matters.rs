//! Matters: one incident from its beginning to its end; who takes it on; who is told when nobody does.

use std::time::Duration;

use backstop::core::announcement::{AnnouncementKind as Kind, Closed};
use backstop::core::release::ServiceName;
use backstop::notify::plan::{Audience, Channel, Escalation, Level, Plan, Route};
use serde_json::Value;

use super::receiver::{Answer, Bench, PATIENCE, QUICK, Receiver, now};

fn shop() -> ServiceName {
    ServiceName::new("shop")
}

/// Everything to `ops`; what nobody takes on, to the pager and then to the boss.
fn plan(ops: &Receiver, pager: &Receiver, boss: &Receiver, after: Duration) -> Plan {
    let level =
        |name: &str, after, channel: &str| Level { name: name.into(), after, channels: vec![channel.into()] };
    Plan {
        channels: vec![ops.slack("ops"), pager.pagerduty("pager"), boss.slack("boss")],
        routes: vec![Route { channels: vec!["ops".into()], ..Route::default() }],
        escalation: Escalation {
            kinds: vec![Kind::Stuck, Kind::Evaluate],
            levels: vec![level("first", after, "pager"), level("boss", after * 2, "boss")],
        },
    }
}

#[tokio::test]
async fn what_nobody_takes_on_goes_to_the_next_level_once_each_and_over_restarts() {
    let [mut ops, mut pager, mut boss] = [
        Receiver::start(&[Answer::Status(200)]).await,
        Receiver::start(&[Answer::Status(202)]).await,
        Receiver::start(&[Answer::Status(200)]).await,
    ];
    let made = || plan(&ops, &pager, &boss, Duration::from_millis(300));
    let (first, second, third) = (made(), made(), made());
    let bench = Bench::start(first).await;
    let asked = now(Kind::Stuck, "asked");
    bench.say(&asked).await;
    assert!(ops.next().await.body.contains("A PERSON IS NEEDED: shop"));
    bench.recorded("ops", 1).await;
    // The time goes on while nobody runs.
    let bench = bench.restart(second).await;
    let paged = pager.next().await.json();
    assert_eq!(paged["event_action"], "trigger");
    let summary = paged["payload"]["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("[production] NOT ACKNOWLEDGED AFTER 300ms: A PERSON IS NEEDED: shop"),
        "{summary}"
    );
    let next = paged["payload"]["custom_details"]["Next"].as_str().unwrap();
    assert_eq!(next, "backstop ack shop; backstop explain shop");
    assert!(boss.next().await.body.contains("NOT ACKNOWLEDGED AFTER 600ms"));
    bench.recorded("boss", 1).await;
    bench.recorded("pager", 1).await;
    let bench = bench.kill(third, |_| {}).await;
    bench.handle.drain(PATIENCE).await;
    tokio::time::timeout(QUICK.look * 4, pager.next()).await.expect_err("a level is told once");
    assert!(boss.got.try_recv().is_err());
    let told = bench.sql("SELECT kind FROM outbox ORDER BY id");
    assert_eq!(told, ["stuck", "escalated", "escalated"]);
}

#[tokio::test]
async fn what_somebody_takes_on_goes_no_further_and_the_pager_hears_of_it() {
    let [mut ops, mut pager, mut boss] = [
        Receiver::start(&[Answer::Status(200)]).await,
        Receiver::start(&[Answer::Status(202)]).await,
        Receiver::start(&[Answer::Status(200)]).await,
    ];
    let bench = Bench::start(plan(&ops, &pager, &boss, Duration::from_millis(300))).await;
    let nothing = bench.handle.acknowledge(&shop(), "anna".into(), String::new()).await.unwrap_err();
    assert_eq!(nothing, "nothing is the matter with shop that could be taken on; next: backstop status");
    bench.say(&now(Kind::Evaluate, "asked")).await;
    let key = pager.next().await.json()["dedup_key"].clone();
    let said = bench.handle.acknowledge(&shop(), "anna@web1".into(), "on it".into()).await.unwrap();
    assert_eq!(said, "anna@web1 took on what is the matter with shop; nobody else is called for it");
    let ack = pager.next().await.json();
    assert_eq!((&ack["event_action"], &ack["dedup_key"]), (&Value::from("acknowledge"), &key));
    let ops_heard = ops.until(|body| body["text"].as_str().unwrap().starts_with("ACKNOWLEDGED: shop")).await;
    assert!(ops_heard.body.contains("anna@web1") && ops_heard.body.contains("on it"));
    let again = bench.handle.acknowledge(&shop(), "bert".into(), String::new()).await.unwrap_err();
    assert!(again.starts_with("anna@web1 took it on "), "{again}");
    assert_eq!(bench.sql("SELECT acknowledged_by FROM matters"), ["anna@web1"]);
    tokio::time::timeout(Duration::from_millis(700), boss.next()).await.expect_err("the boss was called");
    // What ends it ends it there too, though no route leads there.
    bench.say(&now(Kind::RollbackComplete, "complete")).await;
    let over = pager.next().await.json();
    assert_eq!((&over["event_action"], &over["dedup_key"]), (&Value::from("resolve"), &key));
    bench.handle.drain(PATIENCE).await;
    assert!(bench.store.matters().await.unwrap().is_empty());
    // The next time is another matter.
    bench.say(&now(Kind::Evaluate, "once more")).await;
    assert_ne!(pager.next().await.json()["dedup_key"], key);
}

/// Somebody is asked something, and two levels are called if nobody answers.
async fn asked() -> (Bench, Receiver, Receiver, Receiver) {
    let ops = Receiver::start(&[Answer::Status(200)]).await;
    let pager = Receiver::start(&[Answer::Status(202)]).await;
    let boss = Receiver::start(&[Answer::Status(200)]).await;
    let bench = Bench::start(plan(&ops, &pager, &boss, Duration::from_millis(300))).await;
    bench.say(&now(Kind::Evaluate, "asked")).await;
    (bench, ops, pager, boss)
}

/// One of two that have to agree, whoever puts it off and whatever else is said of a question settle nothing.
#[tokio::test]
async fn only_an_answer_that_settles_the_question_ends_the_escalation() {
    for (closes, goes_on) in [(None, true), (Some(Closed::Answered), false), (Some(Closed::Withdrawn), false)]
    {
        let (bench, _ops, mut pager, mut boss) = asked().await;
        let mut answer = now(Kind::Approval, "said");
        answer.title = "APPROVED BY bob, 1 OF 2: shop".into();
        answer.closes = closes;
        bench.say(&answer).await;
        if goes_on {
            assert_eq!(pager.next().await.json()["event_action"], "trigger", "the second is called");
            boss.next().await;
        } else {
            tokio::time::timeout(Duration::from_millis(800), boss.next())
                .await
                .expect_err("the boss was called");
            pager.got.try_recv().expect_err("the pager was told of what is over before anybody was called");
        }
    }
}

/// Somebody said yes; five minutes later a person is needed: that is news to everybody.
#[tokio::test]
async fn what_gets_stuck_after_somebody_took_it_on_calls_everybody_anew() {
    let (bench, _ops, mut pager, mut boss) = asked().await;
    let first = pager.next().await.json();
    boss.next().await;
    let mut yes = now(Kind::Approval, "yes");
    (yes.closes, yes.fields) = (Some(Closed::Answered), vec![("Decided by".into(), "bob".into())]);
    bench.say(&yes).await;
    assert_eq!(pager.next().await.json()["event_action"], "acknowledge");
    assert_eq!(bench.sql("SELECT acknowledged_by FROM matters"), ["bob"]);
    bench.say(&now(Kind::RollbackInProgress, "r/in-progress")).await;
    // The pager is no way of the first message, and hears of the beginning as it heard of the matter.
    bench.say(&now(Kind::Stuck, "stuck")).await;
    let mut anew = pager.next().await.json();
    while anew["dedup_key"] == first["dedup_key"] {
        anew = pager.next().await.json();
    }
    assert_eq!(anew["event_action"], "trigger");
    let old = pager.next().await.json();
    assert_eq!((&old["event_action"], &old["dedup_key"]), (&Value::from("resolve"), &first["dedup_key"]));
    assert_ne!(anew["dedup_key"], first["dedup_key"], "nobody is called for what is acknowledged");
    assert!(anew["payload"]["summary"].as_str().unwrap().contains("A PERSON IS NEEDED"), "{anew}");
    assert!(boss.next().await.body.contains("A PERSON IS NEEDED"));
    let taken = bench.handle.acknowledge(&shop(), "anna".into(), String::new()).await.unwrap();
    assert!(taken.starts_with("anna took on "), "{taken}");
    bench.handle.drain(PATIENCE).await;
    assert_eq!(bench.sql("SELECT acknowledged_by FROM matters"), ["anna"]);
}

/// Nobody answered, and it went ahead by itself; whoever was told of the question hears of what became of it as well.
#[tokio::test]
async fn whoever_was_called_for_a_question_is_called_again_when_a_person_is_needed() {
    let (bench, _ops, mut pager, mut boss) = asked().await;
    pager.next().await;
    boss.next().await;
    bench.say(&now(Kind::RollbackInProgress, "r/in-progress")).await;
    bench.say(&now(Kind::Stuck, "stuck")).await;
    let escalated = |body: &Value| {
        let text = body["text"].as_str().unwrap();
        text.contains("NOT ACKNOWLEDGED") && text.contains("A PERSON IS NEEDED")
    };
    boss.until(escalated).await;
    let told = bench.sql("SELECT kind FROM outbox WHERE kind = 'escalated'");
    assert_eq!(told.len(), 4, "each level, for each");
}

#[tokio::test]
async fn a_matter_that_nobody_said_the_end_of_ends_when_its_service_is_well() {
    let [mut ops, mut pager] =
        [Receiver::start(&[Answer::Status(200)]).await, Receiver::start(&[Answer::Status(202)]).await];
    let plan = || Plan::of(vec![ops.slack("ops"), pager.pagerduty("pager")]);
    let (first, second) = (plan(), plan());
    let bench = Bench::start(first).await;
    bench.say(&now(Kind::Stuck, "stuck")).await;
    let began = pager.next().await.json();
    bench.recorded("pager", 1).await;
    // Whoever mends it says nothing; and this is another process.
    let bench = bench.restart(second).await;
    bench.well.lock().unwrap().insert("shop".into(), now(Kind::Stuck, "").at);
    let ended = pager.next().await.json();
    assert_eq!((&ended["event_action"], &ended["dedup_key"]), (&Value::from("resolve"), &began["dedup_key"]));
    ops.until(|body| body["text"].as_str().unwrap().starts_with("WELL AGAIN: shop")).await;
    bench.handle.drain(PATIENCE).await;
    tokio::time::timeout(QUICK.look * 3, pager.next()).await.expect_err("it ends once");
    assert!(bench.store.matters().await.unwrap().is_empty());
}

#[tokio::test]
async fn users_hear_the_beginning_and_the_end_and_nothing_else() {
    let mut page = Receiver::start(&[Answer::Status(500), Answer::Status(200)]).await;
    let channel = Channel { audience: Audience::Users, ..page.slack("page") };
    let bench = Bench::start(Plan::of(vec![channel])).await;
    let mut notes = now(Kind::RollbackInProgress, "r/notes");
    notes.title = "ROLLBACK APPLIED, WITH NOTES: shop".into();
    for a in [
        now(Kind::Evaluate, "asks"),
        now(Kind::RollbackInProgress, "r/in-progress"),
        notes,
        now(Kind::Stuck, "stuck"),
        now(Kind::RollbackComplete, "r/complete"),
    ] {
        bench.say(&a).await;
    }
    let texts = [page.next().await, page.next().await, page.next().await]
        .map(|r| r.json()["text"].as_str().unwrap().to_owned());
    assert!(
        texts[0].starts_with("We're experiencing a technical issue and are working to resolve it quickly.\n")
    );
    assert_eq!(texts[1], texts[0], "after the failure");
    assert!(texts[2].starts_with("The technical issue has been resolved."));
    bench.handle.drain(PATIENCE).await;
    assert!(page.got.try_recv().is_err());
}

#[tokio::test]
async fn alertmanager_is_told_again_until_it_is_over_and_after_a_restart() {
    let mut server = Receiver::start(&[Answer::Status(200)]).await;
    let plan = || Plan::of(vec![server.alertmanager("alerts")]);
    let (first, second) = (plan(), plan());
    let bench = Bench::start(first).await;
    let began = now(Kind::RollbackInProgress, "began");
    bench.say(&began).await;
    let alerts = [server.next().await, server.next().await, server.next().await].map(|r| r.json()[0].clone());
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for alert in &alerts {
        assert_eq!(alert["labels"], alerts[0]["labels"], "by its labels it is known");
        assert_eq!(alert["startsAt"], alerts[0]["startsAt"]);
    }
    assert!(
        time(&alerts[2]["endsAt"]) > time(&alerts[0]["endsAt"]),
        "it does not end while it is said again"
    );
    assert_eq!(alerts[0]["labels"]["alertname"], "BackstopMatter");
    bench.recorded("alerts", 1).await;
    let bench = bench.restart(second).await;
    assert_eq!(server.next().await.json()[0]["labels"], alerts[0]["labels"]);
    let over = now(Kind::RollbackComplete, "over");
    bench.say(&over).await;
    let last = server
        .until(|body| time(&body[0]["endsAt"]).as_millisecond().cast_unsigned() == over.at.as_millis())
        .await;
    assert_eq!(last.json()[0]["labels"], alerts[0]["labels"]);
    bench.handle.drain(PATIENCE).await;
    while server.got.try_recv().is_ok() {}
    tokio::time::timeout(QUICK.again * 3, server.next()).await.expect_err("what is over is not said again");
}
