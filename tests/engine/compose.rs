//! Compose projects, with the real `docker compose`: rolled back, and still so after the next `up`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::crashes::is_closed;
use crate::support::bed::{Own, succeeds};
use crate::support::story::{decision, images, newest_rollback, nothing_is_left_of, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// A project called `shop` in a folder of its own, with one service called `web`.
pub(crate) struct Project<'a> {
    bed: &'a Bed,
    folder: TempDir,
    /// The program, and what it calls the container.
    compose: (&'static str, &'static str),
}

/// More events than the journal of a rollback by Compose has.
const EVENTS_MAX: u32 = 60;
const COMPOSE: (&str, &str) = ("docker-compose", "shop-web-1");
/// The one that is written in Python.
const COMPOSE_V1: (&str, &str) = ("docker-compose-v1", "shop_web_1");

impl<'a> Project<'a> {
    pub(crate) fn new(bed: &'a Bed, image: &str, environment: &str) -> Self {
        let project = Self { bed, folder: tempfile::tempdir().unwrap(), compose: COMPOSE };
        let compose = format!(
            "services:\n  web:\n    image: {image}\n    restart: unless-stopped\n    labels:\n      \
             backstop.enable: 'true'\n      backstop.health.path: /healthz\n      backstop.health.port: '8080'\n      \
             backstop.health.interval: 500ms\n      backstop.health.timeout: 500ms\n"
        );
        fs::write(project.path("compose.yaml"), compose).unwrap();
        project.environment(environment);
        project
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn environment(&self, text: &str) {
        fs::write(self.path(".env"), text).unwrap();
    }

    /// Runs `docker compose`, as a person does in the project's folder.
    #[track_caller]
    pub(crate) fn compose(&self, words: &[&str]) {
        self.ask_compose(words);
    }

    /// What a person does to deploy what this environment says, to be done some time by somebody else.
    pub(crate) fn up_by_hand(&self, environment: &str) -> impl FnOnce() + Send + use<> {
        let (program, folder, socket) =
            (self.compose.0, self.folder.path().to_owned(), self.bed.socket().to_owned());
        let environment = environment.to_owned();
        move || {
            fs::write(folder.join(".env"), environment).unwrap();
            succeeds(&socket, Command::new(program).args(["-p", "shop", "up", "-d"]).current_dir(folder));
        }
    }

    /// The same; gives what it prints.
    #[track_caller]
    fn ask_compose(&self, words: &[&str]) -> String {
        self.bed.compose(self.compose.0, "shop", self.folder.path(), words)
    }

    /// More services, and labels, of the project: `web` is the last one in the file.
    pub(crate) fn with(&self, more: &str) {
        let file = self.path("compose.yaml");
        fs::write(&file, read(&file) + more).unwrap();
    }

    pub(crate) fn container(&self) -> Value {
        self.bed.inspect(self.compose.1)
    }
}

/// The bad release is deployed and rolled back. Gives the container that runs then.
#[track_caller]
pub(crate) fn rolled_back(project: &Project<'_>, daemon: &Daemon) -> Value {
    project.compose(&["up", "-d"]);
    let record = rollback_over(daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    project.bed.serves(seconds(60), project.compose.1, "v1");
    nothing_is_left_of(project.bed, project.compose.1);
    project.container()
}

/// `docker compose up` finds nothing to do, and `ps` shows what runs, and only that.
#[track_caller]
pub(crate) fn up_changes_nothing(project: &Project<'_>, runs: &Value) {
    project.compose(&["up", "-d"]);
    assert_eq!(project.container()["Id"], runs["Id"], "`up` replaced what runs");
    project.bed.serves(seconds(60), project.compose.1, "v1");
    assert_eq!(project.ask_compose(&["ps", "-a", "-q"]).trim(), runs["Id"].as_str().unwrap());
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_rollback_lasts_beyond_the_next_up() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.image("web:v3", &Image::demo("v3"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let good = "# what CI writes\nOTHER=x\nTAG=v1 # the release\n";
    let project = Project::new(&bed, "web:${TAG:?}", good);
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    let bad = good.replace("v1", "v2");
    project.environment(&bad);
    let runs = rolled_back(&project, &daemon);

    assert_eq!(read(&project.path(".env")), good, "comments and order are as they were");
    assert_eq!(read(&project.path(".env.backstop-backup")), bad);
    webhook.announced(seconds(60), &["pinned: TAG=v1", "shop-web"]);
    up_changes_nothing(&project, &runs);

    // Whoever wants the bad one back all the same, because its surroundings are repaired, can have it.
    let (code, said) = daemon.command(&["unpin", "shop-web"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("TAG is v2 again"), "{said}");
    assert_eq!(read(&project.path(".env")), bad);
    assert_ne!(daemon.command(&["unpin", "shop-web"]).0, Some(0), "once");

    // The fix ships: a new tag is a new deployment.
    project.environment(&good.replace("v1", "v3"));
    project.compose(&["up", "-d"]);
    bed.serves(seconds(60), "shop-web-1", "v3");
    eventually(seconds(60), "the fix has proved itself", || {
        let service = daemon.service("shop-web")?;
        let (state, release) = (&service["state"], &service["current"]["reference"]);
        if state == "steady" && release == "web:v3" { Ok(()) } else { Err(format!("{state} {release}")) }
    });
    assert_eq!(read(&project.path(".env")), good.replace("v1", "v3"));
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_literal_image_line_is_kept_by_an_override_file() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.image("web:v3", &Image::demo("v3"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let project = Project::new(&bed, "web:v1", "");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    let file = project.path("compose.yaml");
    let bad = read(&file).replace("web:v1", "web:v2");
    fs::write(&file, &bad).unwrap();
    let runs = rolled_back(&project, &daemon);

    let over = project.path("compose.override.yaml");
    webhook.announced(seconds(60), &["pinned", &over.display().to_string(), "backstop unpin shop-web"]);
    assert!(read(&over).contains("web:v1"), "{}", read(&over));
    assert_eq!(read(&file), bad, "nobody's compose file is edited");
    up_changes_nothing(&project, &runs);

    // Whoever ships the fix need not know of it.
    fs::write(&file, bad.replace("web:v2", "web:v3")).unwrap();
    webhook.announced(seconds(60), &["PIN TAKEN BACK", "say web:v3 for web by now", "docker compose up -d"]);
    assert!(!over.exists());
    project.compose(&["up", "-d"]);
    bed.serves(seconds(60), "shop-web-1", "v3");
    assert_ne!(daemon.command(&["unpin", "shop-web"]).0, Some(0), "it is taken back already");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn files_that_compose_copies_into_a_container_come_back_with_it() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\nKEY=hunter2\n");
    let file = project.path("compose.yaml");
    let more = "    profiles: [front]\n    configs: [{source: banner, target: /etc/shop/banner.txt}]\n    secrets: [key]\n\
                configs: {banner: {content: hello}}\nsecrets: {key: {environment: KEY}}\n";
    fs::write(&file, read(&file) + more).unwrap();
    // The service is in a profile: without it, `up` would pass it over.
    project.compose(&["--profile", "front", "up", "-d"]);
    daemon.proved("shop-web");

    project.environment("TAG=v2\nKEY=hunter2\n");
    project.compose(&["--profile", "front", "up", "-d"]);
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");

    let copied = |path: &str| {
        let to = project.path("copied");
        bed.docker(&["cp", &format!("shop-web-1:{path}"), &to.display().to_string()]);
        read(&to)
    };
    assert_eq!(copied("/etc/shop/banner.txt"), "hello");
    assert_eq!(copied("/run/secrets/key"), "hunter2");
    assert_eq!(read(&project.path(".env")), "TAG=v1\nKEY=hunter2\n");
    let runs = project.container();
    project.compose(&["--profile", "front", "up", "-d"]);
    assert_eq!(project.container()["Id"], runs["Id"], "`up` replaced what runs");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_cannot_be_pinned_is_rolled_back_and_said() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let project = Project::new(&bed, "web:v1", "");
    let own = project.path("compose.override.yaml");
    fs::write(&own, "services:\n  web:\n    environment: {A: b}\n").unwrap();
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    let file = project.path("compose.yaml");
    let bad = read(&file).replace("web:v1", "web:v2");
    fs::write(&file, &bad).unwrap();
    rolled_back(&project, &daemon);

    let folder = file.display().to_string();
    webhook.announced(seconds(60), &["not pinned", "deploys what those files say", &folder, "to web:v1"]);
    assert_eq!(read(&file), bad, "nobody's compose file is edited");
    assert!(!read(&own).contains("image"), "nor the override file of somebody else");
    assert_eq!(read(&project.path(".env")), "");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_mutable_tag_shows_the_good_image_again() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.docker(&["tag", "web:v1", "web:latest"]);
    let daemon = Daemon::start(&bed, None, "");
    let project = Project::new(&bed, "web:latest", "");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    bed.docker(&["tag", "web:v2", "web:latest"]);
    let runs = rolled_back(&project, &daemon);

    up_changes_nothing(&project, &runs);
    // Whoever force-recreates gets the good one as well.
    project.compose(&["up", "-d", "--force-recreate"]);
    bed.serves(seconds(60), "shop-web-1", "v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn an_up_in_the_middle_takes_nothing_down() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    // It is suspected until somebody says otherwise, and proved for longer than an `up` takes.
    let slow = "[defaults]\nverify = \"30s\"\n[defaults.rules.health]\nsustained = \"10m\"\n";
    let daemon = Daemon::start(&bed, None, slow);
    let project = Project::new(&bed, "web:${TAG:?}", "TAG=v1\n");
    project.compose(&["up", "-d"]);
    daemon.in_state(seconds(60), "shop-web", &["steady"]);

    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    // Whatever carries Compose's labels counts as a replica for it: nothing of ours may lie about meanwhile.
    for state in ["suspect", "verifying"] {
        daemon.in_state(seconds(60), "shop-web", &[state]);
        let runs = project.container();
        project.compose(&["up", "-d"]);
        let now = project.container();
        assert_eq!(now["Id"], runs["Id"], "{state}: `up` replaced what runs");
        assert_eq!(now["State"]["Running"], true, "{state}");
        if state == "suspect" {
            let (code, said) = daemon.command(&["rollback", "shop-web", "--yes"]);
            assert_eq!(code, Some(0), "{said}");
        }
    }
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    nothing_is_left_of(&bed, "shop-web-1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_rollback_lasts_beyond_the_next_up_of_compose_v1() {
    // By itself it fails to replace any container of an engine from 25 on (KeyError: ContainerConfig).
    let bed = Bed::start(Own::Version("20.10"));
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let mut project = Project::new(&bed, "web:${TAG}", "OTHER=x\nTAG=v1\n");
    project.compose = COMPOSE_V1;
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    project.environment("OTHER=x\nTAG=v2\n");
    let runs = rolled_back(&project, &daemon);

    assert_eq!(read(&project.path(".env")), "OTHER=x\nTAG=v1\n");
    up_changes_nothing(&project, &runs);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_shares_its_network_is_made_anew_with_it_by_compose_itself() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    let side = "  side:\n    image: web:v1\n    network_mode: service:web\n    environment: {DEMO_LISTEN: '0.0.0.0:9000'}\n";
    let reader =
        "  reader:\n    image: web:v1\n    depends_on: {web: {condition: service_started, restart: true}}\n";
    project.with(&format!("{side}{reader}"));
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    let before = bed.inspect("shop-reader-1");
    eventually(seconds(60), "the plan says what Compose is asked for", || {
        let (code, planned) = daemon.command(&["plan", "shop-web"]);
        let says = planned.contains("run `docker compose up --no-start web side`");
        if code == Some(0) && says { Ok(()) } else { Err(planned) }
    });
    bed.serves(seconds(60), "shop-web-1", "v2");
    bed.turn("shop-web-1", "health", "error");
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");

    bed.serves(seconds(60), "shop-web-1", "v1");
    let (runs, shares) = (project.container(), bed.inspect("shop-side-1"));
    let mode = format!("container:{}", runs["Id"].as_str().unwrap());
    assert_eq!(shares["HostConfig"]["NetworkMode"], mode.as_str(), "it is in the network of what runs");
    assert_eq!(shares["State"]["Running"], true);
    let started = |of: &Value| of["State"]["StartedAt"].as_str().unwrap().to_owned();
    let reader = bed.inspect("shop-reader-1");
    assert_eq!(reader["Id"], before["Id"]);
    assert!(started(&reader) > started(&runs), "it was restarted, as it asks for");
    assert_eq!(read(&project.path(".env")), "TAG=v1\n");
    project.compose(&["up", "-d"]);
    assert_eq!(project.container()["Id"], runs["Id"], "`up` replaced what runs");
    assert_eq!(bed.inspect("shop-side-1")["Id"], shares["Id"], "`up` replaced what shares its network");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn compose_is_not_let_bring_back_something_else() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "[defaults]\nexecutor = \"compose\"\n");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.with("    environment: {GREETING: hello}\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    // The bad release came with another configuration: the files with the good tag are not what ran.
    let file = project.path("compose.yaml");
    let good = read(&file);
    fs::write(&file, good.replace("hello", "goodbye")).unwrap();
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "unwound", "{record:#}");
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("say more than another image for web"), "{detail}");
    bed.serves(seconds(60), "shop-web-1", "v2");
    assert_eq!(read(&project.path(".env")), "TAG=v2\n", "what was pinned for it is taken back");

    // With the files of the good release it can.
    fs::write(&file, good).unwrap();
    let (code, said) = daemon.command(&["rollback", "shop-web", "--to", "web:v1", "--yes", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    bed.serves(seconds(60), "shop-web-1", "v1");
    assert_eq!(read(&project.path(".env")), "TAG=v1\n");
    nothing_is_left_of(&bed, "shop-web-1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_depends_on_says_counts_as_a_dependency() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&bed, None, "");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    let file = project.path("compose.yaml");
    let labels =
        read(&file).split_once("    labels:").map(|(_, labels)| format!("    labels:{labels}")).unwrap();
    project.with(&format!("    depends_on: [db]\n  db:\n    image: web:v1\n{labels}"));
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");
    daemon.proved("shop-db");

    bed.turn("shop-db-1", "health", "error");
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d", "web"]);
    eventually(seconds(60), "the database is to blame", || {
        let said = daemon.service("shop-web")?["sentence"].to_string();
        if said.contains("what it depends on is degraded: shop-db") { Ok(()) } else { Err(said) }
    });
    bed.serves(seconds(60), "shop-web-1", "v2");
    assert!(newest_rollback(&daemon, "shop-web").is_err(), "nothing was rolled back");
}

/// Compose would first wait for what the service depends on, and scale it to what the files say.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn compose_waits_for_nobody_and_leaves_others_as_they_are() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    bed.image("web:db", &Image::demo("db").healthcheck());
    let daemon = Daemon::start(&bed, None, "[defaults]\nexecutor = \"compose\"\n");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    let conditions = "{db: {condition: service_healthy}, mq: {condition: service_started}}";
    let others = "  db:\n    image: web:db\n  mq:\n    image: web:db\n";
    project.with(&format!("    depends_on: {conditions}\n{others}"));
    project.compose(&["up", "-d", "--scale", "mq=3"]);
    daemon.proved("shop-web");
    let mq = || bed.docker(&["ps", "-q", "--no-trunc", "--filter", "label=com.docker.compose.service=mq"]);
    let before = mq();
    assert_eq!(before.split_whitespace().count(), 3);

    project.environment("TAG=v2\n");
    project.compose(&["up", "-d", "--no-deps", "--scale", "web=1", "web"]);
    bed.turn("shop-db-1", "health", "error");
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    bed.serves(seconds(60), "shop-web-1", "v1");
    assert_eq!(mq(), before, "what it depends on is what it was, and as many");
}

/// Killed after every event of the journal in turn: Compose may be at work just then, and goes on without us.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn killed_at_every_journal_step_of_a_rollback_by_compose() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut daemon = Daemon::start(&bed, None, "[defaults]\nexecutor = \"compose\"\n");
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");
    for event in 1..EVENTS_MAX {
        if !survives_a_crash_after(&project, &mut daemon, event) {
            assert!(event > 8, "only {event} journal events: is BACKSTOP_CRASH_AT heeded?");
            return;
        }
    }
    panic!("the journal has more than {EVENTS_MAX} events");
}

/// False if the rollback was over before `event`, so that there was no crash.
#[track_caller]
fn survives_a_crash_after(project: &Project<'_>, daemon: &mut Daemon, event: u32) -> bool {
    daemon.terminate();
    daemon.set("BACKSTOP_CRASH_AT", &event.to_string());
    daemon.again();
    daemon.ready(seconds(60));
    let before = newest_rollback(daemon, "shop-web").map_or(Value::Null, |record| record["id"].clone());
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    let crashed = eventually(seconds(240), &format!("a crash after event {event}, or the end"), || {
        if daemon.has_ended() {
            return Ok(true);
        }
        let newest = newest_rollback(daemon, "shop-web")?;
        let over = newest["over"] == true && newest["id"] != before;
        // Its journal is closed after the verdict, and that is an event to crash at as well.
        let id = newest["id"].as_str().unwrap_or_default();
        let closed = over && is_closed(&daemon.api(&format!("/api/v1/rollbacks/{id}"))?);
        if closed { Ok(false) } else { Err(newest.to_string()) }
    });
    daemon.set("BACKSTOP_CRASH_AT", "");
    if crashed {
        daemon.again();
        daemon.ready(seconds(60));
    }
    eventually(seconds(240), &format!("the good release after a crash at event {event}"), || {
        let newest = newest_rollback(daemon, "shop-web")?;
        let verified = newest["over"] == true && newest["id"] != before && newest["outcome"] == "verified";
        let state = daemon.service("shop-web")?["state"].clone();
        if verified && state != "verifying" { Ok(()) } else { Err(format!("{state}: {newest}")) }
    });
    project.bed.serves(seconds(60), "shop-web-1", "v1");
    nothing_is_left_of(project.bed, "shop-web-1");
    assert_eq!(read(&project.path(".env")), "TAG=v1\n", "event {event}");
    crashed
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_missing_docker_compose_is_known_before_it_is_needed() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut daemon = Daemon::start(&bed, None, "[defaults]\nexecutor = \"compose\"\n");
    daemon.set("PATH", "/nowhere");
    daemon.again();
    let project = Project::new(&bed, "web:${TAG}", "TAG=v1\n");
    project.with("  side:\n    image: web:v1\n    network_mode: service:web\n    environment: {DEMO_LISTEN: '0.0.0.0:9000'}\n");
    project.compose(&["up", "-d"]);
    daemon.proved("shop-web");

    // Asked for by name: said, held, and no attempt.
    project.environment("TAG=v2\n");
    project.compose(&["up", "-d"]);
    let held = decision(seconds(60), &daemon, "shop-web", "hold");
    let text = held.to_string();
    assert!(text.contains("no `docker compose` can be run"), "{text}");
    let (_, said) = daemon.command(&["explain", "shop-web"]);
    assert!(said.contains("no `docker compose` can be run"), "{said}");
    assert_eq!(daemon.api("/api/v1/rollbacks").unwrap()["rollbacks"].as_array().map(Vec::len), Some(0));

    // Left to Backstop, it is done without.
    let more = daemon.configuration().with_file_name("conf.d").join("test.toml");
    fs::write(more, "[defaults]\nexecutor = \"auto\"\n").unwrap();
    daemon.again();
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    bed.serves(seconds(60), "shop-web-1", "v1");
    let (runs, shares) = (project.container(), bed.inspect("shop-side-1"));
    let mode = format!("container:{}", runs["Id"].as_str().unwrap());
    assert_eq!(shares["HostConfig"]["NetworkMode"], mode.as_str(), "it is in the network of what runs");
    assert_eq!(shares["State"]["Running"], true);
}
