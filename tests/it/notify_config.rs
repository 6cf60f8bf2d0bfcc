//! `[notify]` as people get it wrong, and `backstop notify test`.

use std::path::PathBuf;
use std::process::Output;

use backstop::config::{Sources, load};

use super::cli::backstop;
use super::receiver::{Answer, Receiver, against};

/// A configuration in a directory of its own.
struct Case(tempfile::TempDir);

impl Case {
    fn new(text: &str) -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        std::fs::write(case.path("backstop.toml"), text).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn problems(&self) -> Vec<String> {
        let sources = Sources { file: Some(self.path("backstop.toml")), ..Sources::default() };
        let problems = load(&sources).expect_err("this has mistakes");
        let directory = format!("{}/", self.0.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&directory, "")).collect()
    }

    async fn run(&self, args: &[&str]) -> Output {
        let config = self.path("backstop.toml");
        let args: Vec<&str> = args.iter().copied().chain(["--config", config.to_str().unwrap()]).collect();
        backstop(&args).output().await.unwrap()
    }
}

fn out(output: &Output) -> (String, String, i32) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

#[test]
fn every_mistake_is_one_sentence_with_its_place_and_none_shows_a_secret() {
    let case = Case::new(
        r#"[notify.channels.a]
type = "slak"
url = "https://hooks.example/hunter2hunter2"
[notify.channels.b]
url = "https://hooks.example/hunter2hunter2"
[notify.channels.c]
type = "slack"
smtp = "mail:25"
[notify.channels.d]
type = "pagerduty"
routing_key = "hunter2"
audience = "users"
[notify.channels.e]
type = "email"
smtp = "mail:25"
tls = "none"
user = "u"
password = "hunter2hunter2"
from = "nobody"
[notify.channels.f]
type = "webhook"
url = "https://hooks.example/hunter2hunter2"
secret = "hunter2"
template = "discrod"
colour = "red"
[notify.channels.g]
type = "slack"
url = "https://hooks.example/hunter2hunter2"
text = "{{ titel }}"
[notify.routes.r]
channels = ["g", "ghost"]
kinds = ["stuk"]
[notify.routes.s]
severity = "high"
[notify.escalation]
channels = ["g"]
levels = { boss = { after = "1h", channels = ["bos"] } }
"#,
    );
    let found = case.problems();
    let all = found.join("\n");
    for said in [
        "backstop.toml:2:8: notify.channels.a.type: \"slak\" is not one of its words; did you mean \"slack\"?",
        "backstop.toml:4:18: notify.channels.b: says no `type`; type = \"slack\"",
        "backstop.toml:8:1: notify.channels.c.smtp: does not go with type = \"slack\"; remove it",
        "backstop.toml:6:18: notify.channels.c: says no `url`; `url_file` would be right, or `url`",
        "notify.channels.d.routing_key: is not an integration key (not shown: it is a secret)",
        "notify.channels.d.audience: users have no pagers",
        "notify.channels.e.tls: with \"none\" the password would be sent in the open",
        "notify.channels.e.from: \"nobody\" is not a mail address",
        "notify.channels.e: says no `to`",
        "notify.channels.f.secret: is not a secret of Standard Webhooks",
        "notify.channels.f.template: \"discrod\" is not a template that is ready; did you mean \"discord\"?",
        "notify.channels.f.colour: there is no such setting",
        "notify.channels.g.text: the template is wrong at line 1, column 4: undefined value",
        "notify.routes.r.channels: no channel is called ghost; there are: a, b, c, d, e, f, g",
        "notify.routes.r.kinds: \"stuk\" is not a kind of announcement; did you mean \"stuck\"?",
        "notify.routes.s: names no channel",
        "notify.escalation: says no `after`",
        "notify.escalation.levels.boss.channels: no channel is called bos",
    ] {
        assert!(found.iter().any(|problem| problem.contains(said)), "{said}\n\nis not in\n\n{all}");
    }
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn a_mistake_in_a_template_file_has_the_files_line_and_column() {
    let case = Case::new("");
    let file = case.path("body.json");
    std::fs::write(&file, "{\n  \"a\": {{ title }},\n  \"b\": {{ values.ETA }}\n}").unwrap();
    let text = format!(
        "[notify.channels.x]\ntype = \"webhook\"\nurl = \"http://x/\"\ntemplate_file = {file:?}\n\
         [notify.webhook]\nurl = \"http://y/\"\n[notify.channels.webhook]\ntype = \"slack\"\nurl = \"http://z/\"\n"
    );
    std::fs::write(case.path("backstop.toml"), text).unwrap();
    let found = case.problems();
    assert!(
        found[0].starts_with(
            "backstop.toml:7:18: notify.channels.webhook: [notify.webhook] is a channel of this name"
        ) || found[1]
            .starts_with("backstop.toml:7:18: notify.channels.webhook: [notify.webhook] is a channel"),
        "{found:?}"
    );
    let said = "body.json:3:11: notify.channels.x.template_file: the template is wrong: undefined value";
    assert!(found.iter().any(|problem| problem.starts_with(said)), "{found:?}");
    std::fs::write(&file, "{\n  \"a\": {{ title }},\n}").unwrap();
    assert!(case.problems().iter().any(|problem| problem.contains("what it makes is no JSON")));
}

#[test]
fn secrets_come_from_variables_and_are_not_in_the_effective_settings() {
    let case = Case::new("[notify.channels.ops]\ntype = \"slack\"\n");
    let variable =
        ("BACKSTOP_NOTIFY__CHANNELS__OPS__URL".to_owned(), "https://hooks.example/hunter2hunter2".to_owned());
    let sources =
        Sources { file: Some(case.path("backstop.toml")), environment: vec![variable], ..Sources::default() };
    let settings = load(&sources).unwrap();
    assert_eq!(settings.notify.plan.channels.len(), 1);
    for shown in [format!("{settings:?}"), settings.effective().to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(settings.effective()["notify"]["channels"]["ops"]["url"], "(hidden)");
}

#[tokio::test]
async fn a_test_says_for_each_channel_what_came_of_it() {
    let mut well = Receiver::start(&[Answer::Status(202)]).await;
    let gone = Receiver::start(&[Answer::Status(410)]).await;
    let text = format!(
        "environment = \"staging\"\n[notify.channels.ops]\ntype = \"slack\"\nurl = \"{}/T0PSECRET\"\n\
         [notify.channels.pager]\ntype = \"pagerduty\"\nurl = \"{}/v2/enqueue\"\nrouting_key = \"0123456789abcdef0123456789abcdef\"\n",
        gone.url, well.url
    );
    let case = Case::new(&text);
    let (stdout, stderr, code) = out(&case.run(&["notify", "test"]).await);
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(
        stdout,
        "ops (slack): not delivered: it answered 410 Gone: ok\npager (pagerduty): delivered\n"
    );
    assert!(stderr.contains("1 of 2 channels did not take the test"), "{stderr}");
    assert!(!format!("{stdout}{stderr}").contains("T0PSECRET"));
    let [trigger, resolve] = [well.next().await.json(), well.next().await.json()];
    assert_eq!(against("pagerduty", &trigger), [""; 0]);
    assert!(trigger["payload"]["summary"].as_str().unwrap().starts_with("[staging] TEST: nothing happened"));
    assert_eq!((&resolve["event_action"], &resolve["dedup_key"]), (&"resolve".into(), &trigger["dedup_key"]));

    let (stdout, _, code) = out(&case.run(&["notify", "test", "pager"]).await);
    assert_eq!((stdout.as_str(), code), ("pager (pagerduty): delivered\n", 0));
    let (_, stderr, code) = out(&case.run(&["notify", "test", "pagr"]).await);
    assert!(
        code == 1
            && stderr.contains("no channel is called `pagr`")
            && stderr.contains("there are: ops, pager")
    );

    while well.got.try_recv().is_ok() {}
    let (stdout, _, code) = out(&case.run(&["notify", "test", "--show", "--kind", "all"]).await);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("ops (slack): rollback_complete")
            && stdout.contains("RCA will be conducted within 24 hours")
    );
    assert!(!stdout.contains("T0PSECRET") && !stdout.contains("0123456789abcdef"), "{stdout}");
    assert!(well.got.try_recv().is_err(), "nothing is sent");
    let (_, stderr, code) = out(&Case::new("").run(&["notify", "test"]).await);
    assert!(code == 1 && stderr.contains("no channel is configured"), "{stderr}");
}
