//! The command line, run as a program against a real port. What a terminal shows is tested next to the tables.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop::api::Tokens;
use backstop::core::Command as Asked;
use backstop::core::approval::{Approval, Ask, Said, Via, Word};
use backstop::core::ledger::{RollbackOutcome, RollbackRecord, Standing};
use backstop::core::mitigation::Mitigated;
use backstop::core::release::{ApprovalId, MitigationId, ServiceName};
use backstop::core::settings::{Mitigation, Remedy};
use backstop::core::snapshot::{FleetSnapshot, State};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::picture::{HOOK_TOKEN, NEW_YEAR, Surface, TOKEN, decision, fleet, record, release, service};

async fn up() -> Surface {
    Surface::start(fleet(NEW_YEAR)).await
}

/// The program in an environment of its own, reading nothing.
pub(crate) fn backstop(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command
        .env_clear()
        .env("TZ", "UTC")
        .env("USER", "anna")
        .stdin(Stdio::null())
        .args(args)
        .kill_on_drop(true);
    command
}

impl Surface {
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        backstop(args).env("BACKSTOP_ENDPOINT", &self.url).output().await.unwrap()
    }

    pub(crate) async fn run_with_token(&self, args: &[&str]) -> Output {
        let file = token_file(TOKEN);
        let with = backstop(args)
            .env("BACKSTOP_ENDPOINT", &self.url)
            .env("BACKSTOP_TOKEN_FILE", file.path())
            .output();
        with.await.unwrap()
    }
}

fn token_file(token: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{token}\n")).unwrap();
    file
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn succeeded(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", out(output), err(output));
    out(output)
}

#[tokio::test]
async fn status_is_plain_when_piped_and_ends_with_what_needs_a_person() {
    let surface = up().await;
    let text = succeeded(&surface.run(&["status"]).await);
    assert!(!text.contains('\x1b'), "no colours in a pipe");
    insta::with_settings!({filters => vec![(env!("CARGO_PKG_VERSION"), "VERSION")]}, {
        insta::assert_snapshot!("status_piped", text);
    });
    let json: Value = serde_json::from_str(&succeeded(&surface.run(&["--json", "status"]).await)).unwrap();
    assert_eq!(json["services"][0]["name"], "billing");
}

#[tokio::test]
async fn explain_prints_the_whole_matrix_and_every_gate() {
    let surface = up().await;
    insta::assert_snapshot!("explain_piped", succeeded(&surface.run(&["explain", "shop"]).await));
    let missing = surface.run(&["explain", "shpo"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(err(&missing), "error: there is no service `shpo`\nhint: did you mean `shop`?\n");
    assert!(missing.stdout.is_empty());
}

/// Two people that were asked, and what they said.
fn asked() -> Approval {
    let said = |secs, by: &str, word, why: &str| Said {
        at: NEW_YEAR.before(Duration::from_secs(secs)),
        by: by.to_owned(),
        via: Via::Person,
        word,
        why: why.to_owned(),
    };
    Approval {
        id: ApprovalId::new("a1"),
        ask: Ask::Consent,
        decision: Box::new(decision(NEW_YEAR)),
        asked: NEW_YEAR.before(Duration::from_secs(300)),
        needed: 2,
        said: vec![
            said(120, "bob", Word::Approved, "checkout is down"),
            said(60, "carol", Word::Approved, ""),
        ],
        reminded: None,
    }
}

#[tokio::test]
async fn history_lists_and_shows_one_with_its_journal() {
    let surface = up().await;
    assert_eq!(succeeded(&surface.run(&["history"]).await), "No rollback is on record.\n");
    assert_eq!(succeeded(&surface.run(&["history", "web"]).await), "No rollback of `web` is on record.\n");
    let nobody = surface.run(&["history", "shpo"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(err(&nobody), "error: there is no service `shpo`\nhint: did you mean `shop`?\n");
    *surface.past.rollbacks.lock().unwrap() = vec![
        RollbackRecord {
            along: vec![ServiceName::new("jobs")],
            order: Some("stop-first: it publishes ports".to_owned()),
            approval: Some(Box::new(asked())),
            ..record(2, NEW_YEAR, RollbackOutcome::Verified("shop:v1 passed every rule for 30s".to_owned()))
        },
        record(1, NEW_YEAR, RollbackOutcome::Unwound("the image is gone".to_owned())),
    ];
    insta::assert_snapshot!(
        "history_piped",
        succeeded(&surface.run(&["history", "shop", "--limit", "2"]).await)
    );
    insta::assert_snapshot!(
        "history_one",
        succeeded(&surface.run(&["history", "--rollback", "r0002"]).await)
    );
    assert_eq!(surface.run(&["history", "--limit", "0"]).await.status.code(), Some(2));
    insta::assert_snapshot!(
        "history_markdown",
        succeeded(&surface.run(&["history", "--format", "markdown"]).await)
    );
    insta::assert_snapshot!("history_csv", succeeded(&surface.run(&["history", "--format", "csv"]).await));
    surface.past.rollbacks.lock().unwrap().clear();
    let none = succeeded(&surface.run(&["history", "--format", "markdown"]).await);
    assert!(none.ends_with("| (none yet) |  |  |  |  |  |  |  |  |  |\n"), "{none}");
}

#[tokio::test]
async fn wait_says_by_its_exit_code_what_became_of_a_release() {
    let mut all = fleet(NEW_YEAR);
    all.services.push(service("well", NEW_YEAR));
    let surface = Surface::start(all).await;
    let wait = |words: &'static [&'static str]| {
        let words = [&["wait", "--timeout", "0s"], words].concat();
        let surface = &surface;
        async move {
            let output = surface.run(&words).await;
            (
                output.status.code(),
                out(&output) + err(&output).lines().rfind(|l| l.starts_with("error")).unwrap_or(""),
            )
        }
    };
    assert_eq!(
        wait(&["well", "--release", "v2"]).await,
        (Some(0), "well:v2 [bbbbbbbbbbbb] is known-good\n".to_owned())
    );
    assert_eq!(wait(&["well"]).await.0, Some(0), "what runs");

    let (code, said) = wait(&["web", "--release", "web:v2"]).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(2), "error: undecided: after 0s: trial: web:v2 [bbbbbbbbbbbb] is on trial for another 10m")
    );
    let (code, said) = wait(&["search"]).await;
    assert!(code == Some(2) && said.contains("a person is needed"), "{said}");

    let (code, said) = wait(&["well", "--release", "v3"]).await;
    assert!(code == Some(3) && said.contains("well has not run v3 yet"), "{said}");
    let (code, said) = wait(&["nobody"]).await;
    assert!(code == Some(3) && said.contains("there is no service nobody yet"), "{said}");
    let silent = backstop(&["wait", "well", "--timeout", "0s", "--endpoint", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    assert_eq!(silent.status.code(), Some(3), "{}", err(&silent));
    // A verdict is none of them, so that no pipeline takes a slip of the pen for one.
    for wrong in
        [&["wait", "well", "--timeout", "soon"][..], &["wait"], &["wait", "well", "--endpoint", "nowhere"]]
    {
        let output = backstop(wrong).output().await.unwrap();
        assert_eq!(output.status.code(), Some(3), "{wrong:?}: {}", err(&output));
    }
    assert_eq!(backstop(&["explain"]).output().await.unwrap().status.code(), Some(2), "elsewhere it is 2");
    for elsewhere in
        [&["--endpoint", "wait", "status", "--bogus"][..], &["--endpoint=wait", "status", "--bogus"]]
    {
        let output = backstop(elsewhere).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{elsewhere:?}: {}", err(&output));
    }
    let behind = backstop(&["--endpoint", "status", "wait", "--bogus"]).output().await.unwrap();
    assert_eq!(behind.status.code(), Some(3), "{}", err(&behind));
    assert_eq!(backstop(&["wait", "--help"]).output().await.unwrap().status.code(), Some(0));
}

/// What the examples for pipelines type is what the command takes: with nobody at home it says that it cannot tell.
#[tokio::test]
async fn pipelines_type_what_wait_takes() {
    for file in ["deploy/ci/github-actions.yaml", "deploy/ci/gitlab-ci.yaml"] {
        let text =
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let line = text.lines().find_map(|line| line.split_once("backstop wait ")).unwrap().1;
        let mut words = vec!["wait"];
        words.extend(line.split_whitespace().map(|word| if word == "20m" { "0s" } else { word }));
        let output = backstop(&words).env("BACKSTOP_ENDPOINT", "http://127.0.0.1:1").output().await.unwrap();
        assert_eq!(output.status.code(), Some(3), "{file}: {}", err(&output));
    }
}

#[tokio::test]
async fn wait_tells_why_a_release_was_rolled_back() {
    let mut shop = service("shop", NEW_YEAR);
    shop.current = Some(release("shop:v1", 'a'));
    shop.ledger.iter_mut().for_each(|entry| entry.deployed = NEW_YEAR.before(Duration::from_secs(60)));
    let surface = Surface::start(FleetSnapshot { services: vec![shop], ..fleet(NEW_YEAR) }).await;
    let wait = async |release: &str| {
        surface.run(&["wait", "shop", "--release", release, "--timeout", "2s", "--json"]).await
    };

    // Nobody rolled it back yet: somebody deployed the other one.
    let replaced = wait("v2").await;
    assert_eq!(replaced.status.code(), Some(3), "{}", err(&replaced));
    assert!(
        err(&replaced).contains("shop runs shop:v1 [aaaaaaaaaaaa] instead of shop:v2 [bbbbbbbbbbbb]"),
        "{}",
        err(&replaced)
    );

    // One that did not begin, or was taken back, rolled nothing back, whatever came in its place.
    for (outcome, code, said) in [
        (
            RollbackOutcome::Void("a newer deployment came first".into()),
            3,
            "did not begin: a newer deployment",
        ),
        (RollbackOutcome::Unwound("no space".into()), 3, "failed and was taken back: no space"),
        (RollbackOutcome::Stuck("the name is taken".into()), 2, "a person is needed: the name is taken"),
    ] {
        *surface.past.rollbacks.lock().unwrap() = vec![record(1, NEW_YEAR, outcome)];
        let cannot = wait("v2").await;
        assert_eq!(cannot.status.code(), Some(code), "{}", err(&cannot));
        assert!(
            err(&cannot).contains(said) && err(&cannot).contains("hint: backstop explain shop"),
            "{}",
            err(&cannot)
        );
    }

    *surface.past.rollbacks.lock().unwrap() =
        vec![record(1, NEW_YEAR, RollbackOutcome::Verified("all checks pass".to_owned()))];
    let rolled_back = wait("v2").await;
    assert_eq!(rolled_back.status.code(), Some(1), "{}", err(&rolled_back));
    let json: Value = serde_json::from_str(&out(&rolled_back)).unwrap();
    assert_eq!((&json["verdict"], &json["release"]), (&"rolled_back".into(), &"v2".into()));
    assert!(
        json["reason"].as_str().unwrap().starts_with(
            "shop:v2 [bbbbbbbbbbbb] was rolled back to shop:v1 [aaaaaaaaaaaa] (verified): health check"
        ),
        "{json}"
    );
}

/// What went wrong first is what is said, and nobody goes forward to what never went away.
#[tokio::test]
async fn a_drill_for_real_fails_with_its_first_way() {
    let surface = Surface::start(fleet(NEW_YEAR)).await;
    surface.core.ready.store(true, Ordering::Relaxed);
    let drill = async || surface.run_with_token(&["drill", "shop", "--for-real", "--yes"]).await;
    *surface.core.then.lock().unwrap() =
        vec![record(1, NEW_YEAR, RollbackOutcome::Unwound("no space".into()))];
    let failed = drill().await;
    assert_eq!(failed.status.code(), Some(1), "{}", err(&failed));
    assert!(err(&failed).contains("error: going back ended as `unwound`: no space"), "{}", err(&failed));
    assert_eq!(surface.core.commands.lock().unwrap().len(), 1, "it still runs");

    // An older release than the one that was asked for is not what was tried.
    let other = RollbackRecord {
        to: release("shop:v0", 'c'),
        ..record(2, NEW_YEAR, RollbackOutcome::Verified("all checks pass".into()))
    };
    *surface.core.then.lock().unwrap() = vec![other];
    let failed = drill().await;
    assert_eq!(failed.status.code(), Some(1), "{}", err(&failed));
    assert!(
        err(&failed).contains("going back did not end with shop:v1 [aaaaaaaaaaaa], but with shop:v0"),
        "{}",
        err(&failed)
    );
}

/// A mitigation made it anew with something set: another release by its id, and still the one that was deployed.
#[tokio::test]
async fn wait_follows_a_release_that_a_mitigation_made_anew() {
    let mut shop = service("shop", NEW_YEAR);
    let (was, anew) = (release("shop:v2", 'b'), release("shop:v2", 'd'));
    let mut entry = shop.ledger.iter().find(|entry| entry.release.id == was.id).unwrap().clone();
    entry.release = anew.clone();
    shop.ledger.insert(0, entry);
    shop.current = Some(anew.clone());
    shop.flags.mitigated = vec![Mitigated {
        id: MitigationId::new("m1"),
        what: Mitigation::of(Remedy::Set([("POOL".to_owned(), "8".to_owned())].into())),
        rule: "memory".into(),
        release: anew.id,
        at: NEW_YEAR,
        result: Some(Ok("made anew".into())),
        was: Some(Box::new(was.clone())),
        helped: true,
    }];
    let surface = Surface::start(FleetSnapshot { services: vec![shop], ..fleet(NEW_YEAR) }).await;
    let words = ["wait", "shop", "--release", was.id.as_str(), "--timeout", "0s"];
    let waited = surface.run(&words).await;
    assert_eq!(waited.status.code(), Some(0), "{}", err(&waited));
    assert_eq!(out(&waited), "shop:v2 [dddddddddddd] is known-good\n");
}

/// `latest` was deployed, rolled back to the `latest` before it, and that one is known-good: it is not what was waited for.
#[tokio::test]
async fn wait_is_not_taken_in_by_a_tag_that_is_put_back() {
    let (old, new) = (release("shop:latest", 'a'), release("shop:latest", 'b'));
    let mut shop = service("shop", NEW_YEAR);
    shop.ledger.truncate(2);
    (shop.ledger[0].release, shop.ledger[1].release) = (new.clone(), old.clone());
    (shop.ledger[0].deployed, shop.ledger[1].deployed) =
        (NEW_YEAR, NEW_YEAR.before(Duration::from_secs(600)));
    let mut before = shop.clone();
    (shop.state, shop.current) = (State::Trial, Some(new));
    shop.ledger[0].standing = Standing::Trial;
    before.current = Some(old);
    let surface = Surface::start(FleetSnapshot { services: vec![shop], ..fleet(NEW_YEAR) }).await;
    let mut waiting = backstop(&["wait", "shop", "--release", "latest", "--timeout", "20s"]);
    let waiting = waiting.env("BACKSTOP_ENDPOINT", &surface.url).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    *surface.past.rollbacks.lock().unwrap() =
        vec![record(1, NEW_YEAR, RollbackOutcome::Verified("all checks pass".to_owned()))];
    surface.fleet.send_replace(Arc::new(FleetSnapshot { services: vec![before], ..fleet(NEW_YEAR) }));
    let ended = waiting.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", err(&ended));
    assert!(err(&ended).contains("shop:latest [bbbbbbbbbbbb] was rolled back"), "{}", err(&ended));
}

#[tokio::test]
async fn a_plan_changes_nothing_and_says_how_to_carry_it_out() {
    let surface = up().await;
    insta::assert_snapshot!("plan", succeeded(&surface.run(&["plan", "shop", "--to", "shop:v1"]).await));
    let refused = surface.run(&["plan", "shop", "--to", "shop:v9"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(err(&refused), "error: `shop` never ran `shop:v9`\nhint: backstop explain shop\n");
    assert!(surface.core.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_terminal_a_rollback_needs_yes() {
    let surface = up().await;
    let refused = surface.run_with_token(&["rollback", "shop"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("backstop plan shop"), "{}", err(&refused));
    assert!(surface.core.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_rollback_shows_the_plan_and_says_who_asked() {
    let surface = up().await;
    *surface.core.answer.lock().unwrap() = Ok("rolling shop back to shop:v1".to_owned());
    let text =
        succeeded(&surface.run_with_token(&["rollback", "shop", "--yes", "--why", "users complain"]).await);
    assert!(text.contains("  2. stop shop-1 (SIGTERM, at most 3s)"), "{text}");
    assert!(text.contains("rolling shop back to shop:v1\n"), "{text}");
    let commands = surface.core.commands.lock().unwrap().clone();
    let service = ServiceName::new("shop");
    assert_eq!(
        commands[0].0,
        Asked::Rollback {
            service,
            to: None,
            why: "users complain".to_owned(),
            via: Via::Token,
            accept_schema: false,
            drill: false
        }
    );
    assert!(commands[0].1.starts_with("anna@"), "{}", commands[0].1);
}

#[tokio::test]
async fn waiting_ends_with_the_outcome_of_the_rollback_that_was_asked_for() {
    let surface = up().await;
    let old = record(1, NEW_YEAR, RollbackOutcome::Stuck("long ago".to_owned()));
    *surface.past.rollbacks.lock().unwrap() = vec![old];
    let good = record(2, NEW_YEAR, RollbackOutcome::Verified("shop:v1 passed every rule for 30s".to_owned()));
    *surface.core.then.lock().unwrap() = vec![good];
    let output = surface.run_with_token(&["--json", "rollback", "shop", "--yes", "--wait"]).await;
    let json: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!((&json["id"], &json["outcome"]), (&"r0002".into(), &"verified".into()));
    assert!(err(&output).contains("A rollback of shop would do this"), "the plan is told, but not as data");

    let bad = record(3, NEW_YEAR, RollbackOutcome::NotVerified("shop:v1 answers 500".to_owned()));
    *surface.core.then.lock().unwrap() = vec![bad];
    let output = surface.run_with_token(&["rollback", "shop", "--yes", "--wait"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("error: the rollback ended as `not_verified`: shop:v1 answers 500"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn waiting_follows_on_to_the_next_older_release() {
    let surface = up().await;
    let failed = record(1, NEW_YEAR, RollbackOutcome::NotVerified("shop:v1 answers 500".to_owned()));
    *surface.core.then.lock().unwrap() = vec![failed];
    let mut picture = fleet(NEW_YEAR);
    picture.services[2].rollback = Some(record(2, NEW_YEAR, RollbackOutcome::Executing));
    surface.fleet.send_replace(picture.into());
    let file = token_file(TOKEN);
    let mut waiting = backstop(&["rollback", "shop", "--yes", "--wait"])
        .env("BACKSTOP_ENDPOINT", &surface.url)
        .env("BACKSTOP_TOKEN_FILE", file.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(waiting.stderr.take().unwrap()));
    while !lines.next_line().await.unwrap().expect("it must not end yet").contains("r0001: not verified") {}
    let proved = record(2, NEW_YEAR, RollbackOutcome::Verified("proved".to_owned()));
    surface.past.rollbacks.lock().unwrap().insert(0, proved);
    assert_eq!(waiting.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn pause_and_resume_say_what_the_core_said() {
    let surface = up().await;
    *surface.core.answer.lock().unwrap() = Ok("shop is paused for 30m".to_owned());
    assert_eq!(
        succeeded(&surface.run_with_token(&["pause", "shop", "--for", "30m"]).await),
        "shop is paused for 30m\n"
    );
    succeeded(&surface.run_with_token(&["resume"]).await);
    assert_eq!(surface.core.commands.lock().unwrap()[1].0, Asked::Resume { service: None });
    let wrong = surface.run_with_token(&["pause", "--for", "soon"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("30m"));
}

#[tokio::test]
async fn a_report_says_who_and_what_and_how_many_there_are() {
    let surface = up().await;
    let mine = succeeded(&surface.run_with_token(&["report", "shop", "--text", "checkout fails"]).await);
    assert!(mine.starts_with("counted: 1 of 3 reporters within 15m (reported by anna@"), "{mine}");
    let file = token_file(HOOK_TOKEN);
    let hook = ["--token-file", file.path().to_str().unwrap()];
    let bobs = surface.run(&[&["report", "shop", "--reporter", "Bob"], &hook[..]].concat()).await;
    assert_eq!(succeeded(&bobs), "counted: 2 of 3 reporters within 15m (reported by bob)\n");
    let json = surface.run(&[&["--json", "report", "shop", "--reporter", "bob"], &hook[..]].concat()).await;
    let json: Value = serde_json::from_str(&succeeded(&json)).unwrap();
    assert_eq!((&json["counted"], &json["reporter"]), (&2.into(), &"bob".into()));
    let unknown = surface.run_with_token(&["report", "shpo"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(err(&unknown), "error: there is no service `shpo`\nhint: did you mean `shop`?\n");
    let without = surface.run(&["report", "shop", "--token-file", "/nowhere/token"]).await;
    assert_eq!(without.status.code(), Some(2));
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_explained() {
    let surface = up().await;
    let wrong = token_file("wrong");
    let output = surface.run(&["pause", "--token-file", wrong.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("error: the token is wrong\nhint: "), "{}", err(&output));
    let output = surface.run(&["pause", "--token-file", "/nowhere/token"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("/nowhere/token"), "{}", err(&output));
    surface.tokens.send_replace(Tokens::default());
    let output = surface.run_with_token(&["resume"]).await;
    assert!(err(&output).contains("api.token_file"), "{}", err(&output));
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_69_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = backstop(&["status", "--endpoint", &url]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = err(&output);
    assert!(said.contains(&format!("error: the daemon does not answer at {url}")), "{said}");
    assert!(said.contains("systemctl start backstop") && said.contains("BACKSTOP_ENDPOINT"), "{said}");
    let output = backstop(&["status", "--endpoint", "nonsense"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn something_else_on_the_port_is_recognised() {
    let router = axum::Router::new()
        .route("/api/v1/status", axum::routing::get(|| async { "<html>hello</html>" }))
        .fallback(|| async { (http::StatusCode::NOT_FOUND, "nope") });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    for args in [["status", "--endpoint", &url], ["history", "--endpoint", &url]] {
        let output = backstop(&args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("not as Backstop does"), "{}", err(&output));
    }
}

#[tokio::test]
async fn a_right_configuration_is_summed_up() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(
        file.path(),
        "mode = \"dry-run\"\n[services.shop.health]\nport = 8080\npath = \"/healthz\"\n",
    )
    .unwrap();
    let config = file.path().to_str().unwrap();
    let args = ["check-config", "--config", config, "--set", "defaults.trial=7m"];
    let text = succeeded(&backstop(&args).output().await.unwrap());
    assert!(text.starts_with("The configuration is right.\n\nfiles       /"), "{text}");
    for line in [
        "watches     containers labelled `backstop.enable=true`; and by name: shop",
        "mode        dry-run: decides and announces, and never touches a service",
        "operators   switched off: no `api.token_file`",
        "defaults.trial = \"7m\"",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    let json = backstop(&["--json", "check-config", "--config", config]).output().await.unwrap();
    let json: Value = serde_json::from_str(&succeeded(&json)).unwrap();
    assert_eq!((&json["ok"], &json["services"][0]), (&true.into(), &"shop".into()));
}

#[tokio::test]
async fn a_wrong_configuration_is_64_with_every_problem() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), "[api]\nlisten = \"nonsense\"\n[defaults]\ntrail = \"5m\"\n").unwrap();
    let config = file.path().to_str().unwrap();
    for command in ["check-config", "run"] {
        let output = backstop(&[command, "--config", config]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{command}");
        let said = err(&output);
        assert!(said.starts_with("error: the configuration is wrong in 2 places:\n"), "{said}");
        assert!(
            said.contains(&format!("{config}:2:10: api.listen: ")) && said.contains("defaults.trial"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
    let output = backstop(&["--json", "check-config", "--config", config]).output().await.unwrap();
    let json: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!((&json["ok"], &json["problems"][1]["key"]), (&false.into(), &"defaults.trail".into()));
}

#[tokio::test]
async fn the_daemon_waits_for_its_engine_says_so_and_stops_in_order() {
    let state = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let set = |key: &str, value: String| format!("--set={key}={value}");
    let mut daemon = backstop(&[
        "run",
        &set("state_dir", state.path().display().to_string()),
        &set("api.listen", address.to_string()),
        &set("engine.host", format!("unix://{}/no.sock", state.path().display())),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut log = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(daemon.stderr.take().unwrap()));
    // It listens before it says that it starts.
    assert!(log.next_line().await.unwrap().unwrap().contains("starts"));
    let status = backstop(&["status", "--endpoint", &url]).output().await.unwrap();
    assert!(succeeded(&status).contains("\nready    no"), "{}", out(&status));
    let pid = daemon.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(daemon.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn help_documents_the_exit_codes() {
    let text = succeeded(&backstop(&["--help"]).output().await.unwrap());
    for code in ["0 ", "1 ", "2 ", "64", "69"] {
        assert!(text.contains(&format!("\n  {code} ")), "{code}: {text}");
    }
    assert_eq!(backstop(&["stauts"]).output().await.unwrap().status.code(), Some(2));
}
