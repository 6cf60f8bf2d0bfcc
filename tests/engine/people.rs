//! People: asked before a rollback, by command, by token and by link; and what they can find out beforehand.

use serde_json::Value;

use crate::support::story::{WATCHED, good_release, images, is_back};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, http, seconds};

/// Health is of high severity, with so much time to say no.
fn high(deadline: &str, more: &str) -> String {
    format!(
        "[api]\npublic_url = \"http://PUBLIC\"\n{more}\n[defaults]\ndeadline = \"{deadline}\"\n\
         [defaults.rules.health]\nseverity = \"high\"\n[defaults.rules.health_prolonged]\naction = \"off\"\n\
         [defaults.rules.health_flapping]\naction = \"off\"\n"
    )
}

fn bad() -> Image {
    Image::demo("v2").env("DEMO_BAD", "1")
}

/// The path of the link in an announcement.
fn link(announced: &Value) -> String {
    let text = announced.to_string();
    let at = text.find("/answer/").unwrap_or_else(|| panic!("no link in {text}"));
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c)).collect()
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_is_high_goes_ahead_when_nobody_says_no() {
    let bed = Bed::lease();
    images(&bed, &bad());
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &high("6s", ""));
    let good = good_release(&bed, &daemon, &WATCHED);

    bed.deploy("web", "web:v2", &WATCHED);

    webhook.announced(seconds(60), &["ROLLBACK IN 6S UNLESS SOMEBODY SAYS NO", "backstop cancel web"]);
    let record = is_back(&bed, &daemon, &good);
    assert_eq!(record["decided_by"], "backstop");
    let waited = record["gates"].to_string();
    assert!(waited.contains("nobody said no"), "{waited}");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_no_by_link_holds_until_somebody_says_yes() {
    let bed = Bed::lease();
    images(&bed, &bad());
    let webhook = Webhook::start();
    let mut daemon = Daemon::start(&bed, Some(&webhook.url()), &high("10m", ""));
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    let asked = webhook.announced(seconds(60), &["UNLESS SOMEBODY SAYS NO"]);
    let path = link(&asked);

    // Opening it answers nothing, also after a restart: the key is kept.
    daemon.kill();
    daemon.again();
    daemon.ready(seconds(60));
    let page = http::get(daemon.address(), &path).unwrap();
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("Roll web back?"), "{}", page.body);
    let form = "answer=cancel&name=dora&why=known";
    let said = http::form(daemon.address(), &path, form).unwrap();
    assert_eq!(said.status, 200, "{}", said.body);
    webhook.announced(seconds(60), &["ROLLBACK CANCELLED BY dora (by link)", "known"]);
    assert_eq!(http::form(daemon.address(), &path, form).unwrap().status, 410, "it is good for one answer");
    eventually(seconds(60), "it is said that somebody said no", || {
        let sentence = daemon.service("web")?["sentence"].to_string();
        if sentence.contains("no, said dora") { Ok(()) } else { Err(sentence) }
    });

    let (code, said) = daemon.command(&["approve", "web", "--why", "it is worse than I thought"]);
    assert_eq!(code, Some(0), "{said}");
    let record = is_back(&bed, &daemon, &good);
    assert!(record["decided_by"].as_str().is_some_and(|by| by != "backstop"), "{record:#}");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn two_people_each_with_a_token_of_their_own() {
    let bed = Bed::lease();
    images(&bed, &bad());
    let people =
        "operators.ann.token = \"ann-ann-ann-ann-ann\"\noperators.ben.token = \"ben-ben-ben-ben-ben\"";
    let more = high("10m", people).replace("deadline", "approvals = 2\ndeadline");
    let daemon = Daemon::start(&bed, None, &more);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    daemon.in_state(seconds(60), "web", &["awaiting_approval"]);

    let say = |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::tcp(daemon.address(), "POST", "/api/v1/services/web/approve", &headers, "{}").unwrap()
    };
    assert!(say("ann-ann-ann-ann-ann").body.contains("1 of 2"));
    assert_eq!(say("ann-ann-ann-ann-ann").status, 409);
    assert_eq!(say("ben-ben-ben-ben-ben").status, 200);

    let record = is_back(&bed, &daemon, &good);
    assert_eq!(record["decided_by"], "ann and ben");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_drill_touches_nothing_and_says_what_is_missing() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let mut daemon = Daemon::start(&bed, None, "");
    good_release(&bed, &daemon, &WATCHED);
    let (code, said) = daemon.command(&["drill", "web"]);
    assert_eq!(code, Some(1), "nothing to go back to yet, and nobody would hear of it: {said}");
    assert!(
        said.contains("no other known-good release") && said.contains("no channel is configured"),
        "{said}"
    );
    let score = |daemon: &Daemon| daemon.service("web").unwrap()["drill"]["score"].as_f64();
    let first = score(&daemon);
    let (_, said) = daemon.command(&["status"]);
    assert!(said.contains("found missing: ") && said.contains("next: backstop drill web"), "{said}");

    bed.deploy("web", "web:v2", &WATCHED);
    bed.serves(seconds(60), "web", "v2");
    daemon.proved_as("web", "web:v2");
    daemon.kill();
    daemon.again();
    daemon.ready(seconds(60));
    assert_eq!(score(&daemon), first, "a restart forgets nothing of it");
    let told = |daemon: &Daemon| daemon.get("/metrics").unwrap().body;
    assert!(
        told(&daemon).contains("backstop_drill_readiness_ratio{service=\"web\"} 0."),
        "nor does the metric"
    );
    let before = bed.inspect("web");
    let answered = bed.answered("web").unwrap();
    let (_, said) = daemon.command(&["drill", "web"]);
    assert!(said.contains("it was created as it would be, and removed again"), "{said}");
    assert!(score(&daemon) > first, "there is a target now");
    let after = bed.inspect("web");
    assert_eq!((&before["Id"], &before["State"]["StartedAt"]), (&after["Id"], &after["State"]["StartedAt"]));
    assert!(bed.answered("web").unwrap() >= answered, "it went on serving");
    let all = bed.docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(all.trim(), "web", "nothing is left of the drill");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_freeze_asks_and_a_maintenance_looks_away() {
    let bed = Bed::lease();
    images(&bed, &bad());
    // Every day, all day but one minute of the night that these tests are not run in.
    let window = |kind: &str| {
        format!("[windows.always]\nkind = \"{kind}\"\nfrom = \"03:33\"\nto = \"03:32\"\nwhy = \"a test\"\n")
    };
    let frozen = format!("{}\n[defaults.rules.health_prolonged]\naction = \"off\"\n", window("freeze"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), &frozen);
    let good = good_release(&bed, &daemon, &WATCHED);
    bed.deploy("web", "web:v2", &WATCHED);
    let waits = daemon.in_state(seconds(60), "web", &["awaiting_approval"]);
    assert!(waits["sentence"].as_str().unwrap().contains("backstop approve web"), "{waits:#}");
    assert_eq!(waits["window"]["name"], "always");

    // The window is taken out of the configuration: what is critical waits for nobody.
    std::fs::write(daemon.configuration().parent().unwrap().join("conf.d/test.toml"), "").unwrap();
    daemon.reload();
    is_back(&bed, &daemon, &good);

    std::fs::write(daemon.configuration().parent().unwrap().join("conf.d/test.toml"), window("maintenance"))
        .unwrap();
    daemon.reload();
    let paused = daemon.in_state(seconds(60), "web", &["paused"]);
    assert!(paused["sentence"].as_str().unwrap().contains("the maintenance always"), "{paused:#}");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn exhausted_memory_is_restarted_first_and_rolled_back_if_it_persists() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    // The other rows about memory and ends would be quicker.
    let more = "[defaults.rules.memory]\nmitigations = [\"restart\"]\n[defaults.rules.oom]\naction = \"off\"\n\
                [defaults.rules.crash_loop]\naction = \"off\"\n";
    let daemon = Daemon::start(&bed, Some(&webhook.url()), more);
    // Whoever has hardly any memory left answers late; that is not what this is about.
    let patient = ["--label", "backstop.health.interval=3s", "--label", "backstop.health.timeout=3s"];
    let arguments = [&WATCHED[..], &["-m", "128m"], &patient].concat();
    let good = good_release(&bed, &daemon, &arguments);
    bed.deploy("web", "web:v2", &arguments);
    bed.serves(seconds(60), "web", "v2");
    let first = bed.inspect("web");

    bed.turn("web", "memory_percent", "93");
    webhook.announced(seconds(60), &["SOMETHING ELSE BEFORE A ROLLBACK", "restart it"]);
    webhook.announced(seconds(60), &["IT HELPED"]);
    let now = bed.inspect("web");
    assert_eq!(now["Id"], first["Id"], "the same container");
    assert_ne!(now["State"]["StartedAt"], first["State"]["StartedAt"], "started again");

    bed.serves(seconds(60), "web", "v2");
    bed.turn("web", "memory_percent", "93");
    let record = is_back(&bed, &daemon, &good);
    assert_eq!(record["reason"], "memory_high");
    webhook.announced(seconds(60), &["ROLLBACK IN PROGRESS", "Tried before"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_drill_for_real_goes_back_and_forward_again() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "environment = \"staging\"\n");
    good_release(&bed, &daemon, &WATCHED);
    // Its trial lasts until somebody has asked for a drill in it.
    bed.deploy("web", "web:v2", &[&WATCHED[..], &["--label", "backstop.trial=20s"]].concat());
    eventually(seconds(60), "the release v2 is what runs", || {
        let current = daemon.service("web")?["current"]["reference"].clone();
        if current == "web:v2" { Ok(()) } else { Err(current.to_string()) }
    });
    let (code, said) = daemon.command(&["drill", "web", "--for-real", "--yes"]);
    assert_eq!(code, Some(1), "v2 has not proved itself yet: {said}");
    assert!(said.contains("no way forward again"), "{said}");
    daemon.proved_as("web", "web:v2");
    let before = bed.inspect("web");

    let (code, said) = daemon.command(&["drill", "web", "--for-real", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("back") && said.contains("forward") && said.contains("verified"), "{said}");
    let after = bed.serves(seconds(60), "web", "v2");
    assert_eq!(after["version"], "v2");
    assert_eq!(bed.inspect("web")["Image"], before["Image"]);
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "drills: nothing is wrong"]);
    let (_, said) = daemon.command(&["quarantine"]);
    assert!(!said.contains("web:v2"), "nothing was condemned: {said}");
}
