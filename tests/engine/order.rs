//! Where old and new can run side by side, nobody notices that one takes the place of the other: an ordinary client asks
//! without a pause, by a name, before, during and after a rollback, and every request is answered. Where they cannot, it is
//! said why, and of several replicas only one is away at a time.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::escape;
use crate::support::story::{ENROLLED, WATCHED, good_release, images, is_back, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// Asks again and again, each time by a new lookup of the name: a line a request, with its answer, status and time.
const ASK: &str = r#"
mount --bind "$1" /etc/resolv.conf
while :; do curl -s -m 60 -w ' | %{http_code} | %{time_total} | %{errormsg}\n' "http://$2:8080/"; done
"#;

/// Whoever has come in by the time that a container is stopped is answered: it gets the time for that, however busy the
/// machine is.
const AT_LEISURE: &str = "[defaults]\nstop_grace = \"10s\"\n";

/// `curl` on the network of a container: it finds others as that one does, by the engine's own DNS.
struct Client {
    home: TempDir,
    process: Child,
}

impl Client {
    fn start(bed: &Bed, container: &str) -> Self {
        Self::asking(bed, container, "shop")
    }

    fn asking(bed: &Bed, container: &str, name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("backstop-client-").tempdir().unwrap();
        let resolver = home.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.11\n").unwrap();
        let process = bed.inspect(container)["State"]["Pid"].to_string();
        let process = Command::new("nsenter")
            .args(["-t", &process, "-n", "unshare", "-m", "sh", "-c", ASK, "sh"])
            .args([resolver.as_os_str(), name.as_ref()])
            .stdin(Stdio::null())
            .stdout(File::create(home.path().join("answers")).unwrap())
            .spawn()
            .unwrap();
        Self { home, process }
    }

    /// Whole lines only: the last one may be on its way.
    fn answers(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.path().join("answers")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits for another few requests, and gives all so far.
    #[track_caller]
    fn more(&self) -> Vec<String> {
        let before = self.answers().len();
        eventually(seconds(60), "the client asks", || {
            let answers = self.answers();
            if answers.len() >= before + 10 { Ok(answers) } else { Err(format!("{:?}", answers.last())) }
        })
    }

    /// Every request was answered, by `v2` before the first `before`, and by `v1` from `after` on.
    #[track_caller]
    fn was_always_served(&self, before: usize, after: usize) {
        let all = self.more();
        let unanswered: Vec<&String> = all.iter().filter(|line| version(line).is_none()).collect();
        assert!(unanswered.is_empty(), "of {} requests: {unanswered:#?}", all.len());
        assert!(all[..before].iter().all(|line| version(line) == Some("v2")), "{:?}", &all[..before]);
        assert!(all[after..].iter().all(|line| version(line) == Some("v1")), "{:?}", &all[after..]);
        let took = all.iter().filter_map(|line| line.split(" | ").nth(2)?.parse::<f64>().ok());
        let slowest = took.fold(0.0, f64::max);
        eprintln!("{} requests, all of them answered, the slowest within {slowest:.3} s", all.len());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The version that answered, if one did and well.
fn version(line: &str) -> Option<&str> {
    let answer = line.split(" | 200 | ").next().filter(|answer| *answer != line)?;
    ["v1", "v2"].into_iter().find(|version| answer.contains(&format!("\"{version}\"")))
}

/// `/healthz` is bad from now on; users are served all the time.
fn turns_bad(bed: &Bed, container: &str) {
    bed.turn(container, "health", "error");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn no_request_goes_unanswered_where_both_can_run() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    bed.docker(&["network", "create", "shop-net"]);
    bed.docker(&["run", "-d", "--name", "client", "--network", "shop-net", "web:v1"]);
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), AT_LEISURE);
    let arguments = [&WATCHED[..], &["--network", "shop-net", "--network-alias", "shop"]].concat();
    let good = good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);
    bed.serves(seconds(60), "web", "v2");
    let client = Client::start(&bed, "client");
    let before = client.more().len();
    turns_bad(&bed, "web");
    let record = is_back(&bed, &daemon, &good);
    client.was_always_served(before, client.answers().len());
    assert!(record["order"].as_str().unwrap_or_default().starts_with("start-first: "), "{record:#}");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "start-first: "]);
}

/// A program that is up at once and serves only later: whatever tells that it does is waited for, and by default that is
/// whether it accepts connections.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn no_request_goes_unanswered_while_a_slow_starter_warms_up() {
    let bed = Bed::lease();
    let slow = |version: &str| Image::demo(version).env("DEMO_SLOW_START", "7s");
    images(&bed, &Image::demo("v2"));
    let healthcheck = r#"HEALTHCHECK --interval=15s CMD ["/backstop","demo-app","--probe","http://127.0.0.1:8080/healthz"]"#;
    bed.image("slow:v1", &slow("v1"));
    bed.image("slow-checked:v1", &slow("v1").line(healthcheck));
    bed.docker(&["network", "create", "shop-net"]);
    bed.docker(&["run", "-d", "--name", "client", "--network", "shop-net", "web:v1"]);
    let daemon = Daemon::start(&bed, None, AT_LEISURE);
    let ways = [
        ("by-check", "slow:v1", &WATCHED[..]),
        ("by-port", "slow:v1", &ENROLLED[..]),
        ("by-healthcheck", "slow-checked:v1", &ENROLLED[..]),
    ];
    let arguments = |name: &'static str, labels: &[&'static str]| {
        let alias = ["--network", "shop-net", "--network-alias", name];
        [labels, &alias].concat()
    };
    for (name, good, labels) in ways {
        bed.deploy(&format!("web-{name}"), good, &arguments(name, labels));
    }
    for (name, ..) in ways {
        daemon.proved(&format!("web-{name}"));
    }
    let (webs, clients): (Vec<String>, Vec<(Client, usize)>) = ways
        .into_iter()
        .map(|(name, _, labels)| {
            let web = format!("web-{name}");
            bed.deploy(&web, "web:v2", &arguments(name, labels));
            bed.serves(seconds(60), &web, "v2");
            let client = Client::asking(&bed, "client", name);
            let before = client.more().len();
            (web, (client, before))
        })
        .unzip();
    for web in &webs {
        eventually(seconds(60), "the deployment is seen", || {
            let (code, said) = daemon.command(&["rollback", web, "--yes"]);
            if code == Some(0) { Ok(()) } else { Err(said) }
        });
    }
    for (web, (client, before)) in webs.iter().zip(&clients) {
        let record = rollback_over(&daemon, web);
        assert_eq!(record["outcome"], "verified", "{record:#}");
        client.was_always_served(*before, client.answers().len());
    }
}

/// A service of three replicas, of a project called `shop`.
struct Replicas<'a> {
    bed: &'a Bed,
    folder: TempDir,
}

const THREE: usize = 3;

impl Replicas<'_> {
    #[track_caller]
    fn deploy(&self, tag: &str, order: &str) {
        let compose = format!(
            "services:\n  web:\n    image: web:{tag}\n    networks: {{default: {{aliases: [shop]}}}}\n    labels:\n      \
             backstop.enable: 'true'\n      backstop.health.path: /healthz\n      backstop.health.port: '8080'\n      \
             backstop.health.interval: 500ms\n      backstop.health.timeout: 500ms\n      backstop.order: {order}\n"
        );
        fs::write(self.folder.path().join("compose.yaml"), compose).unwrap();
        self.up();
        for n in 1..=THREE {
            self.bed.serves(seconds(60), &format!("shop-web-{n}"), tag);
        }
    }

    #[track_caller]
    fn up(&self) {
        let up = Command::new("docker-compose")
            .args(["-p", "shop", "up", "-d", "--scale", &format!("web={THREE}")])
            .current_dir(self.folder.path())
            .env("DOCKER_HOST", format!("unix://{}", self.bed.socket()))
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    }

    /// How few of them ran at any time since a moment, by what the engine says it started and saw end.
    fn fewest(&self, since: &str) -> usize {
        let filters = escape(r#"{"event": ["start", "die"], "label": ["com.docker.compose.service=web"]}"#);
        let path = format!("/events?since={since}&until={}&filters={filters}", now());
        let told = self.bed.api("GET", &path, "").unwrap().body;
        let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let (mut runs, mut fewest) = (THREE, THREE);
        for event in events {
            runs = if event["Action"] == "start" { runs + 1 } else { runs - 1 };
            fewest = fewest.min(runs);
            eprintln!(
                "{} {} {}: {runs} run",
                event["timeNano"], event["Actor"]["Attributes"]["name"], event["Action"]
            );
        }
        assert_eq!(runs, THREE, "as many are started as end");
        fewest
    }
}

/// As the engine wants to be told of a moment.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// Rolls three replicas back under a client's eyes. Gives how few of them ran at any time.
#[track_caller]
fn fewest(order: &str) -> usize {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let replicas = Replicas { bed: &bed, folder: tempfile::tempdir().unwrap() };
    let daemon = Daemon::start(&bed, None, AT_LEISURE);
    replicas.deploy("v1", order);
    bed.docker(&["run", "-d", "--name", "client", "--network", "shop_default", "web:v1"]);
    daemon.proved("shop-web");
    replicas.deploy("v2", order);
    let client = Client::start(&bed, "client");
    let before = client.more().len();
    let since = now();
    // One of them is enough, and the others may be away by the time that somebody turns to them.
    turns_bad(&bed, "shop-web-1");
    let record = rollback_over(&daemon, "shop-web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    client.was_always_served(before, client.answers().len());
    let fewest = replicas.fewest(&since);
    // The files say the bad release still; what keeps the good one is the pin.
    let runs =
        || bed.docker(&["ps", "-a", "-q", "--no-trunc", "--filter", "label=com.docker.compose.service=web"]);
    let before = runs();
    replicas.up();
    assert_eq!(runs(), before, "`up` replaced what runs");
    fewest
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn replicas_that_can_run_beside_others_keep_their_number() {
    assert_eq!(fewest("auto"), THREE);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn of_replicas_that_cannot_one_is_away_at_a_time() {
    assert_eq!(fewest("stop-first"), THREE - 1);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_forbids_start_first_is_said() {
    let bed = Bed::lease();
    images(&bed, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let port = ["-p", "127.0.0.1:0:8080", "--label", "backstop.order=start-first"];
    let arguments = [&WATCHED[..], &port].concat();
    good_release(&bed, &daemon, &arguments);

    bed.deploy("web", "web:v2", &arguments);
    let why = "stop-first, although `order` says start-first: it publishes ports";
    let flat = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    eventually(seconds(60), "the plan says so", || {
        let said = flat(daemon.command(&["plan", "web"]).1);
        if said.contains(&format!("order {why}")) { Ok(()) } else { Err(said) }
    });
    let said = flat(daemon.command(&["explain", "web"]).1);
    assert!(said.contains(&format!("A rollback would go {why}.")), "{said}");

    turns_bad(&bed, "web");
    let record = rollback_over(&daemon, "web");
    assert_eq!((&record["outcome"], &record["order"]), (&"verified".into(), &why.into()), "{record:#}");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", why]);
}
