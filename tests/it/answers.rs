//! Answers to what the daemon asks: by token, by a token of one's own, and by the link in a message.

use std::sync::Arc;
use std::time::Duration;

use backstop::api::Links;
use backstop::core::Command;
use backstop::core::approval::{Approval, Ask, Said, Via, Word};
use backstop::core::decision::{Decision, Reason, Verdict};
use backstop::core::release::{ApprovalId, ServiceName};
use backstop::core::settings::Severity;
use reqwest::{StatusCode, redirect};
use serde_json::json;

use crate::picture::{CAROLS_TOKEN, LINK_KEY, NEW_YEAR, Surface, TOKEN, fleet, release};

/// A surface on which `shop` waits for an answer, and the link to give it.
async fn asked(said: Vec<Said>) -> (Surface, String) {
    let mut picture = fleet(NEW_YEAR);
    let shop = picture.services.iter_mut().find(|s| s.name.as_str() == "shop").unwrap();
    let id = ApprovalId::new("q1");
    let decision = Decision {
        at: NEW_YEAR,
        service: shop.name.clone(),
        verdict: Verdict::Evaluate,
        reason: Reason::Refused { earlier: "<script>alert(1)</script>".into() },
        rule: None,
        severity: Severity::High,
        from: shop.current.clone(),
        to: Some(release("shop:v1", 'a')),
        gates: Vec::new(),
        dry_run: false,
    };
    let until = NEW_YEAR + Duration::from_secs(900);
    shop.flags.approval = Some(Box::new(Approval {
        id: id.clone(),
        ask: Ask::Countdown { until },
        decision: Box::new(decision),
        asked: NEW_YEAR,
        needed: 1,
        said,
        reminded: None,
    }));
    let name = shop.name.clone();
    let surface = Surface::start(picture).await;
    let link = Links::with_key(LINK_KEY).url(&surface.url, &name, &id);
    (surface, link)
}

/// A form as a browser sends it.
fn form_to(url: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
    let body = pairs.collect::<Vec<_>>().join("&");
    client().post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none()).build().unwrap()
}

async fn post(surface: &Surface, path: &str, token: &str, body: serde_json::Value) -> StatusCode {
    let url = format!("{}/api/v1/services/shop/{path}", surface.url);
    client().post(url).bearer_auth(token).json(&body).send().await.unwrap().status()
}

#[tokio::test]
async fn answers_reach_the_core_in_the_name_of_whoever_gave_them() {
    let (surface, _) = asked(Vec::new()).await;
    assert_eq!(post(&surface, "approve", TOKEN, json!({"by": "anna"})).await, StatusCode::OK);
    // With a token of one's own there is no other name.
    assert_eq!(
        post(&surface, "cancel", CAROLS_TOKEN, json!({"by": "anna", "why": "no"})).await,
        StatusCode::OK
    );
    assert_eq!(post(&surface, "extend", CAROLS_TOKEN, json!({"for": "30m"})).await, StatusCode::OK);
    assert_eq!(post(&surface, "rollback", CAROLS_TOKEN, json!({})).await, StatusCode::OK);
    assert_eq!(post(&surface, "extend", TOKEN, json!({"for": "soon"})).await, StatusCode::BAD_REQUEST);
    assert_eq!(post(&surface, "extend", TOKEN, json!({})).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post(&surface, "approve", "wrong", json!({})).await, StatusCode::UNAUTHORIZED);
    let service = || ServiceName::new("shop");
    let answer = |word, why: &str, via| Command::Answer {
        service: service(),
        question: None,
        word,
        why: why.into(),
        via,
    };
    let span = Duration::from_secs(1800);
    assert_eq!(
        surface.commands(),
        [
            (answer(Word::Approved, "", Via::Token), "anna".to_owned()),
            (answer(Word::Refused, "no", Via::Person), "carol".to_owned()),
            (
                Command::Extend {
                    service: service(),
                    question: None,
                    span,
                    why: String::new(),
                    via: Via::Person
                },
                "carol".to_owned()
            ),
            (
                Command::Rollback {
                    service: service(),
                    to: None,
                    why: String::new(),
                    via: Via::Person,
                    accept_schema: false,
                    drill: false,
                },
                "carol".to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn opening_a_link_shows_the_question_and_changes_nothing() {
    let (surface, link) = asked(Vec::new()).await;
    let shown = client().get(&link).send().await.unwrap();
    assert_eq!(shown.status(), StatusCode::OK);
    let policy = shown.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("form-action 'self'") && !policy.contains("script"), "{policy}");
    let page = shown.text().await.unwrap();
    assert!(page.contains("Roll shop back?") && page.contains("Leave it as it is"), "{page}");
    assert!(
        page.contains("&lt;script&gt;") && !page.contains("<script"),
        "what others wrote is no markup: {page}"
    );
    assert!(surface.commands().is_empty());
}

#[tokio::test]
async fn a_form_answers_the_question_that_the_link_is_for() {
    let (surface, link) = asked(Vec::new()).await;
    let send = |form: &[(&str, &str)]| form_to(&link, form).send();
    let sent = send(&[("answer", "approve"), ("name", "dora"), ("why", "seen it")]).await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
    assert!(sent.text().await.unwrap().contains("Taken down"));
    for (form, said) in [
        (&[("answer", "approve"), ("name", " ")][..], "who you are"),
        (&[("answer", "perhaps"), ("name", "dora")][..], "no answer"),
        (&[("answer", "extend"), ("name", "dora"), ("span", "never")][..], "not a duration"),
        (&[("name", "dora")][..], "incomplete"),
    ] {
        let sent = send(form).await.unwrap();
        assert_eq!(sent.status(), StatusCode::BAD_REQUEST, "{form:?}");
        let page = sent.text().await.unwrap();
        assert!(page.contains(said), "{form:?}: {page}");
    }
    let command = Command::Answer {
        service: ServiceName::new("shop"),
        question: Some(ApprovalId::new("q1")),
        word: Word::Approved,
        why: "seen it".into(),
        via: Via::Link,
    };
    assert_eq!(surface.commands(), [(command, "dora".to_owned())]);
    *surface.core.answer.lock().unwrap() = Err("it is too late; next: backstop explain shop".into());
    let sent = send(&[("answer", "cancel"), ("name", "dora")]).await.unwrap();
    assert_eq!(sent.status(), StatusCode::CONFLICT);
    assert!(sent.text().await.unwrap().contains("it is too late"));
}

#[tokio::test]
async fn forged_used_and_late_links_say_so() {
    let said =
        Said { at: NEW_YEAR, by: "eve".into(), via: Via::Link, word: Word::Refused, why: String::new() };
    let (surface, link) = asked(vec![said]).await;
    for form in [false, true] {
        let go = |url: &str| {
            let client = client();
            let request =
                if form { form_to(url, &[("answer", "approve"), ("name", "eve")]) } else { client.get(url) };
            request.send()
        };
        let used = go(&link).await.unwrap();
        assert_eq!(used.status(), StatusCode::GONE);
        assert!(used.text().await.unwrap().contains("used already"));
        let forged =
            Links::with_key([8; 32]).url(&surface.url, &ServiceName::new("shop"), &ApprovalId::new("q1"));
        assert_eq!(go(&forged).await.unwrap().status(), StatusCode::FORBIDDEN);
        assert_eq!(go(&format!("{}/answer/x", surface.url)).await.unwrap().status(), StatusCode::FORBIDDEN);
        let late =
            Links::with_key(LINK_KEY).url(&surface.url, &ServiceName::new("shop"), &ApprovalId::new("q0"));
        let late = go(&late).await.unwrap();
        assert_eq!(late.status(), StatusCode::GONE);
        assert!(late.text().await.unwrap().contains("closed"));
    }
    assert!(surface.commands().is_empty());
    // What is closed while somebody looks at it is refused by the core; here the page knows by itself.
    let mut picture = (**surface.fleet.borrow()).clone();
    for service in &mut picture.services {
        service.flags.approval = None;
    }
    surface.fleet.send_replace(Arc::new(picture));
    assert_eq!(client().get(&link).send().await.unwrap().status(), StatusCode::GONE);
}

#[tokio::test]
async fn a_drill_says_what_is_missing_and_is_measured() {
    let surface = Surface::start(fleet(NEW_YEAR)).await;
    let url = format!("{}/api/v1/services/shop/drill", surface.url);
    let asked = client().post(&url).json(&json!({})).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
    let drilled = client().post(&url).bearer_auth(TOKEN).json(&json!({})).send().await.unwrap();
    assert_eq!(drilled.status(), StatusCode::OK);
    let body: serde_json::Value = drilled.json().await.unwrap();
    assert_eq!((&body["ready"], &body["score"]), (&json!(false), &json!(0.5)), "{body}");
    assert_eq!(body["points"][1]["verdict"], "missing");
    let metrics = surface.metrics.render();
    assert!(metrics.contains("backstop_drill_readiness_ratio{service=\"shop\"} 0.5"), "{metrics}");
}

#[tokio::test]
async fn whoever_deploys_may_say_so_with_the_hooks_token() {
    let surface = Surface::start(fleet(NEW_YEAR)).await;
    let send = |token: &'static str, body: serde_json::Value| {
        let url = format!("{}/hooks/deploy", surface.url);
        client().post(url).bearer_auth(token).json(&body).send()
    };
    let body = json!({"service": "shop", "release": "shop:v3", "commit": "3fa9c1d", "author": "dora"});
    assert_eq!(send(crate::picture::HOOK_TOKEN, body.clone()).await.unwrap().status(), StatusCode::OK);
    for (body, status) in [
        (json!({"service": "shop"}), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"service": "shop", "release": " "}), StatusCode::BAD_REQUEST),
        (json!({"service": "nobody", "release": "x:1"}), StatusCode::NOT_FOUND),
    ] {
        assert_eq!(send(TOKEN, body.clone()).await.unwrap().status(), status, "{body}");
    }
    assert_eq!(send("wrong", body).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let [(Command::Deploying { service, note }, by)] = &surface.commands()[..] else {
        panic!("{:?}", surface.commands());
    };
    assert_eq!((service.as_str(), note.release.as_str(), by.as_str()), ("shop", "shop:v3", "deploy hook"));
    assert_eq!(note.origin().as_deref(), Some("commit 3fa9c1d by dora"));
}

#[tokio::test]
async fn quarantine_is_listed_and_let_go() {
    let mut picture = fleet(NEW_YEAR);
    picture.services = vec![crate::picture::suspect(NEW_YEAR)];
    let surface = Surface::start(picture).await;
    let listed = client().get(format!("{}/api/v1/quarantine", surface.url)).send().await.unwrap();
    let listed: serde_json::Value = listed.json().await.unwrap();
    assert_eq!(listed["releases"][0]["release"]["reference"], "shop:v0-broken", "{listed}");
    let body = json!({"release": "shop:v0-broken", "why": "it was the database"});
    assert_eq!(post(&surface, "unquarantine", CAROLS_TOKEN, body).await, StatusCode::OK);
    let command = Command::Unquarantine {
        service: ServiceName::new("shop"),
        release: "shop:v0-broken".into(),
        why: "it was the database".into(),
    };
    assert_eq!(surface.commands(), [(command, "carol".to_owned())]);
}
