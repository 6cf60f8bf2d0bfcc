//! Swarm services, on an engine that is a manager: rolled back through their specification, and never against Swarm or
//! a person.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::story::{WATCHED, another_rollback_begins, newest_rollback, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

/// How services of these tests are replaced: as quickly as Swarm can.
const QUICK: [&str; 6] = ["--restart-delay", "500ms", "--stop-grace-period", "1s", "--update-monitor", "1s"];
/// No ipvs is needed for a port of the node's own, and its container has an address that is reached from here.
const PORT: [&str; 2] = ["--publish", "mode=host,target=8080"];

/// A leased engine as the only node of a Swarm, which it leaves with the test.
pub(crate) struct Cluster {
    bed: Bed,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let bed = Bed::lease();
        // All Swarms of a host would share one bridge, and the same ports.
        let bridge = format!("com.docker.network.bridge.name=gw-{}", bed.engine());
        let _ = bed.try_docker(&["network", "create", "-o", &bridge, "docker_gwbridge"]);
        let nth = bed.engine().bytes().last().map_or(0, |letter| letter % 32);
        let (address, listens) = (format!("127.0.1.{nth}"), format!("127.0.1.{nth}:2377"));
        bed.docker(&["swarm", "init", "--advertise-addr", &address, "--listen-addr", &listens]);
        Self { bed }
    }

    /// Its engine.
    pub(crate) const fn bed(&self) -> &Bed {
        &self.bed
    }

    /// The container of one of the tasks of a service that run.
    #[track_caller]
    pub(crate) fn task(&self, service: &str) -> String {
        let of = format!("label=com.docker.swarm.service.name={service}");
        let all = self.bed.docker(&["ps", "-q", "--filter", &of]);
        all.lines().next().expect("no task runs").to_owned()
    }

    /// As a person creates a service.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, image: &str, arguments: &[&str]) {
        let before = ["service", "create", "-d", "--no-resolve-image", "--name", name];
        self.bed.docker(&[&before[..], &QUICK, &PORT, &WATCHED, arguments, &[image]].concat());
    }

    /// As a person deploys.
    #[track_caller]
    pub(crate) fn update(&self, name: &str, arguments: &[&str]) {
        let before = ["service", "update", "-d", "--no-resolve-image"];
        self.bed.docker(&[&before[..], arguments, &[name]].concat());
    }

    /// `web:v1` runs as `web`, and has proved itself. Gives its specification.
    #[track_caller]
    pub(crate) fn good(&self, daemon: &Daemon, arguments: &[&str]) -> Value {
        self.create("web", "web:v1", arguments);
        daemon.proved("web");
        self.spec("web")
    }

    #[track_caller]
    pub(crate) fn service(&self, name: &str) -> Value {
        self.bed.api("GET", &format!("/services/{name}"), "").unwrap().json()
    }

    #[track_caller]
    pub(crate) fn spec(&self, name: &str) -> Value {
        self.service(name)["Spec"].clone()
    }

    /// The images of the tasks that run.
    pub(crate) fn runs(&self, name: &str) -> Vec<String> {
        let filter = format!(r#"{{"service":["{name}"],"desired-state":["running"]}}"#);
        let encoded: String = filter.bytes().map(|b| format!("%{b:02X}")).collect();
        let tasks = self.bed.api("GET", &format!("/tasks?filters={encoded}"), "").unwrap().json();
        let running = tasks.as_array().into_iter().flatten().filter(|t| t["Status"]["State"] == "running");
        running.map(|t| t["Spec"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The good specification is back, but for the mark that says which rollback did it.
    #[track_caller]
    pub(crate) fn is_back(&self, daemon: &Daemon, name: &str, good: &Value, replicas: usize) -> Value {
        let record = rollback_over(daemon, name);
        assert_eq!(record["outcome"], "verified", "{record:#}");
        let mut now = self.spec(name);
        let mark = now["Labels"].as_object_mut().unwrap().remove("backstop.rollback");
        assert_eq!(mark, Some(record["id"].clone()));
        let mut expected = good.clone();
        expected["Labels"].as_object_mut().unwrap().remove("backstop.rollback");
        expected["Mode"]["Replicated"]["Replicas"] = replicas.into();
        assert_eq!(now, expected);
        assert_eq!(self.runs(name), vec!["web:v1"; replicas]);
        record
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [&["service", "ps", "--no-trunc", "web"][..], &["service", "inspect", "web"]] {
                eprintln!("---- {arguments:?}\n{}", self.bed.try_docker(arguments).unwrap_or_else(|e| e));
            }
        }
        let _ = self.bed.try_docker(&["swarm", "leave", "--force"]);
        let _ = self.bed.try_docker(&["network", "rm", "docker_gwbridge"]);
    }
}

/// Makes `web:v1`, a good image, `web:v2`, a bad one, and `web:v3`, the fix.
fn images(cluster: &Cluster, bad: &Image) {
    cluster.bed.image("web:v1", &Image::demo("v1"));
    cluster.bed.image("web:v2", bad);
    cluster.bed.image("web:v3", &Image::demo("v3"));
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarm_service_that_fails_its_health_check() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    cluster.bed.docker(&["network", "create", "-d", "overlay", "backend"]);
    let webhook = Webhook::start();
    let daemon = Daemon::start(&cluster.bed, Some(&webhook.url()), "");
    let good = cluster.good(
        &daemon,
        &["--replicas", "2", "--env", "A=1", "--container-label", "team=shop", "--limit-memory", "256M"],
    );

    cluster.update("web", &["--image", "web:v2", "--env-add", "A=2", "--label-add", "team=shop"]);
    cluster.update("web", &["--replicas", "3"]);
    // It turns bad when all that was deployed is there, and not before.
    eventually(seconds(60), "three replicas run", || {
        let runs = cluster.runs("web");
        if runs == ["web:v2"; 3] { Ok(()) } else { Err(format!("{runs:?}")) }
    });
    let task = cluster.task("web");
    cluster.bed.serves(seconds(60), &task, "v2");
    cluster.bed.turn(&task, "health", "error");

    let record = cluster.is_back(&daemon, "web", &good, 3);
    assert_eq!(record["from"]["reference"], "web:v2", "{record:#}");
    assert_eq!(record["to"]["reference"], "web:v1", "{record:#}");
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "web:v1"]);
    assert!(daemon.api("/api/v1/status").unwrap()["refused"].as_array().is_none_or(Vec::is_empty));
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarm_service_that_crashes_while_swarm_paused_its_update() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").that_cannot_start());
    let daemon = Daemon::start(&cluster.bed, None, "");
    let good = cluster.good(&daemon, &["--replicas", "2"]);

    cluster.update("web", &["--image", "web:v2"]);

    let record = cluster.is_back(&daemon, "web", &good, 2);
    assert!(record.to_string().contains("crash_loop"), "{record:#}");
}

/// `docker build -t web:latest .` and `docker service update --force web`: nothing of the specification tells.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarm_image_that_was_built_under_the_same_name() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let (bed, webhook) = (&cluster.bed, Webhook::start());
    let image = |name: &str| bed.docker(&["image", "inspect", "--format", "{{.Id}}", name]);
    let daemon = Daemon::start(bed, Some(&webhook.url()), "");
    bed.docker(&["tag", "web:v1", "web:latest"]);
    cluster.create("web", "web:latest", &["--replicas", "2"]);
    daemon.proved("web");
    let good = cluster.spec("web");

    // That the name shows something else by now is no deployment.
    bed.docker(&["tag", "web:v2", "web:latest"]);
    cluster.update("web", &["--force"]);
    // One replica after the other is made anew: before that, whoever moves the name decides what the other one is.
    let both_run_v2 = || {
        eventually(seconds(60), "both run the new image", || {
            let made_of = [
                "ps",
                "--no-trunc",
                "--format",
                "{{.ID}} {{.Image}}",
                "--filter",
                "label=com.docker.swarm.service.name=web",
            ];
            let all = bed.docker(&made_of);
            let new: Vec<&str> =
                all.lines().filter_map(|line| line.split_once(' ')).map(|(id, _)| id).collect();
            let of_v2 = |id: &&&str| bed.inspect(id)["Image"] == image("web:v2").as_str();
            if new.len() == 2 && new.iter().filter(of_v2).count() == 2 {
                Ok(new[0].to_owned())
            } else {
                Err(all)
            }
        })
    };
    let task = both_run_v2();
    bed.serves(seconds(60), &task, "v2");
    bed.turn(&task, "health", "error");

    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(
        (&record["from"]["reference"], &record["to"]["reference"]),
        (&"web:latest".into(), &"web:latest".into())
    );
    assert_eq!(image("web:latest"), image("web:v1"), "as people do it");
    let mut now = cluster.spec("web");
    assert_eq!(now["TaskTemplate"]["ForceUpdate"], 2, "{now:#}");
    now["TaskTemplate"]["ForceUpdate"] = good["TaskTemplate"]["ForceUpdate"].clone();
    assert_eq!(now["TaskTemplate"], good["TaskTemplate"]);
    bed.serves(seconds(60), &cluster.task("web"), "v1");
    webhook.announced(seconds(60), &["web:latest is pointed at", "again on this node"]);
    webhook.announced(seconds(60), &["ROLLBACK COMPLETE", "the tag web:latest was the same for both"]);

    // And again, while somebody has built the next one under that name: that is theirs to deploy.
    let (v1, first) = (image("web:v1"), record);
    bed.docker(&["tag", "web:v2", "web:latest"]);
    cluster.update("web", &["--force"]);
    let task = both_run_v2();
    bed.serves(seconds(60), &task, "v2");
    bed.docker(&["tag", "web:v3", "web:latest"]);
    bed.turn(&task, "health", "error");
    another_rollback_begins(&daemon, &first);
    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(image("web:latest"), image("web:v3"));
    assert_eq!(cluster.spec("web")["TaskTemplate"]["ContainerSpec"]["Image"], v1.as_str());
    bed.serves(seconds(60), &cluster.task("web"), "v1");
    webhook.announced(seconds(60), &["by its id", "docker service update --image web:latest web"]);
}

/// Swarm takes its time to go back: the decision falls while it is at it.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarms_own_rollback_is_not_fought_while_it_is_under_way() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").that_cannot_start());
    let daemon = Daemon::start(&cluster.bed, None, "");
    let slow = ["--replicas", "3", "--update-failure-action", "rollback", "--rollback-delay", "15s"];
    let good = cluster.good(&daemon, &slow);

    cluster.update("web", &["--image", "web:v2", "--update-parallelism", "3"]);
    let state = || cluster.service("web")["UpdateStatus"]["State"].clone();
    eventually(seconds(60), "Swarm goes back", || {
        let state = state();
        if state == "rollback_started" { Ok(()) } else { Err(state.to_string()) }
    });
    // Whoever orders it now is told, or it comes to nothing: there is no second update.
    let (_, said) = daemon.command(&["rollback", "web", "--to", "web:v1", "--yes"]);
    eprintln!("{said}");
    eventually(seconds(120), "Swarm has gone back", || {
        let state = state();
        if state == "rollback_completed" { Ok(()) } else { Err(state.to_string()) }
    });
    daemon.proved("web");
    assert_eq!(cluster.spec("web"), good, "it has no mark of ours either");
    assert_eq!(cluster.runs("web"), ["web:v1"; 3]);
}

/// What the Swarm keeps of what people said of `web`.
fn said(cluster: &Cluster) -> Result<Value, String> {
    let all = cluster.bed.api("GET", "/configs", "")?.json();
    let of_web = |config: &&Value| config["Spec"]["Labels"]["backstop.said"] == "web";
    let [config] = all.as_array().into_iter().flatten().filter(of_web).collect::<Vec<_>>()[..] else {
        return Err(format!("{all:#}"));
    };
    Ok(config["Spec"]["Data"].clone())
}

/// Backstop is moved to a manager whose state directory knows of nothing.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_pause_holds_for_a_backstop_on_another_node() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    cluster.good(&daemon, &[]);
    let answer = daemon.post("/api/v1/pause", r#"{"service": "web", "why": "a migration"}"#).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let kept = eventually(seconds(60), "the Swarm keeps it", || said(&cluster));
    drop(daemon);

    let next = Daemon::start(&cluster.bed, None, "");
    let paused = next.in_state(seconds(60), "web", &["paused"]);
    assert!(paused["sentence"].to_string().contains("a migration"), "{paused:#}");
    next.post("/api/v1/resume", r#"{"service": "web"}"#).unwrap();
    next.proved("web");
    eventually(seconds(60), "the Swarm knows that it is over", || {
        let now = said(&cluster)?;
        if now == kept { Err(now.to_string()) } else { Ok(()) }
    });
    drop(next);

    let last = Daemon::start(&cluster.bed, None, "");
    last.proved("web");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn global_service_goes_back_too() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    let good = cluster.good(&daemon, &["--mode", "global"]);

    cluster.update("web", &["--image", "web:v2"]);

    assert_eq!(rollback_over(&daemon, "web")["outcome"], "verified");
    assert_eq!(cluster.spec("web")["TaskTemplate"], good["TaskTemplate"]);
    assert_eq!(cluster.runs("web"), ["web:v1"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarms_own_rollback_is_not_fought() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").that_cannot_start());
    let daemon = Daemon::start(&cluster.bed, None, "");
    let good = cluster.good(&daemon, &["--update-failure-action", "rollback"]);

    cluster.update("web", &["--image", "web:v2"]);

    eventually(seconds(60), "Swarm has rolled back by itself", || {
        let state = cluster.service("web")["UpdateStatus"]["State"].clone();
        if state == "rollback_completed" { Ok(()) } else { Err(state.to_string()) }
    });
    eventually(seconds(60), "the good release has proved itself again", || {
        let service = daemon.service("web")?;
        let (state, release) = (&service["state"], &service["current"]["reference"]);
        if state == "steady" && release == "web:v1" { Ok(()) } else { Err(format!("{state} {release}")) }
    });
    assert!(newest_rollback(&daemon, "web").is_err(), "{:#}", newest_rollback(&daemon, "web").unwrap());
    assert_eq!(cluster.spec("web"), good);
}

/// A clean-up took the name of the good image away. The image is there, under the name that protects it.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn swarm_image_whose_name_is_gone() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    cluster.good(&daemon, &[]);
    cluster.update("web", &["--image", "web:v2"]);
    let task = eventually(seconds(60), "it runs", || {
        let runs = cluster.runs("web");
        if runs == ["web:v2"] { Ok(cluster.task("web")) } else { Err(format!("{runs:?}")) }
    });
    cluster.bed.serves(seconds(60), &task, "v2");
    cluster.bed.docker(&["rmi", "web:v1"]);
    cluster.bed.turn(&task, "health", "error");

    assert_eq!(rollback_over(&daemon, "web")["outcome"], "verified");
    cluster.bed.serves(seconds(60), &cluster.task("web"), "v1");
}

/// `docker stack rm` and `docker stack deploy`: the networks and secrets of before are gone, and others have their names.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_was_removed_with_all_that_it_had_and_made_anew_goes_back() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&cluster.bed, Some(&webhook.url()), "");
    let bed = &cluster.bed;
    let around = || {
        // An overlay network could not carry anything here.
        let create = ["network", "create", "--scope", "swarm", "-d", "bridge", "back"];
        // The node's own part of one of that name goes after it.
        let id = eventually(seconds(60), "the network is made", || bed.try_docker(&create));
        bed.docker(&["secret", "create", "password", "/etc/hostname"]);
        id
    };
    let arguments = ["--network", "back", "--secret", "password"];
    let first = around();
    cluster.good(&daemon, &arguments);

    bed.docker(&["service", "rm", "web"]);
    eventually(seconds(60), "nothing is left of it", || {
        for thing in [["network", "rm", "back"], ["secret", "rm", "password"]] {
            if let Err(why) = bed.try_docker(&thing)
                && !why.to_lowercase().contains("no such")
                && !why.contains("not found")
            {
                return Err(why);
            }
        }
        Ok(())
    });
    let second = around();
    assert_ne!(first, second);
    cluster.create("web", "web:v2", &arguments);
    let task = eventually(seconds(60), "it runs", || {
        let runs = cluster.runs("web");
        if runs == ["web:v2"] { Ok(cluster.task("web")) } else { Err(format!("{runs:?}")) }
    });
    bed.serves(seconds(60), &task, "v2");
    bed.turn(&task, "health", "error");

    let record = rollback_over(&daemon, "web");
    assert_eq!(record["outcome"], "verified", "{record:#}");
    assert_eq!(cluster.runs("web"), ["web:v1"]);
    assert_eq!(cluster.spec("web")["TaskTemplate"]["Networks"][0]["Target"], second.as_str());
    webhook.announced(seconds(60), &["the secret password was made anew"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn secret_that_is_gone_stops_a_rollback_before_anything_is_touched() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&cluster.bed, Some(&webhook.url()), "");
    cluster.bed.docker(&["secret", "create", "db-password", "/etc/hostname"]);
    cluster.good(&daemon, &["--secret", "db-password"]);

    cluster.update("web", &["--image", "web:v2", "--secret-rm", "db-password"]);
    cluster.bed.docker(&["secret", "rm", "db-password"]);
    let bad = cluster.spec("web");
    daemon.proved_as("web", "web:v2");
    cluster.bed.turn(&cluster.task("web"), "health", "error");

    webhook.announced(seconds(60), &["web", "the secret db-password of web:v1", "is gone"]);
    assert_eq!(cluster.spec("web"), bad);
    assert_eq!(cluster.runs("web"), ["web:v2"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn deployment_in_the_middle_of_a_swarm_rollback_wins() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    // Long enough for a person to come in between.
    cluster.good(&daemon, &["--update-monitor", "40s"]);

    cluster.update("web", &["--image", "web:v2"]);
    eventually(seconds(60), "the good release is told to run again", || {
        let spec = cluster.spec("web");
        let image = &spec["TaskTemplate"]["ContainerSpec"]["Image"];
        if image == "web:v1" { Ok(()) } else { Err(image.to_string()) }
    });
    cluster.update("web", &["--image", "web:v3"]);

    let record = rollback_over(&daemon, "web");
    assert_ne!(record["outcome"], "verified", "{record:#}");
    assert!(record["detail"].to_string().contains("web:v3"), "{record:#}");
    eventually(seconds(120), "the fix has proved itself", || {
        let service = daemon.service("web")?;
        let (state, release) = (&service["state"], &service["current"]["reference"]);
        if state == "steady" && release == "web:v3" { Ok(()) } else { Err(format!("{state} {release}")) }
    });
    assert_eq!(cluster.runs("web"), ["web:v3"]);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn bad_swarm_release_deployed_a_second_time() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    let good = cluster.good(&daemon, &[]);

    cluster.update("web", &["--image", "web:v2"]);
    let first = cluster.is_back(&daemon, "web", &good, 1);
    cluster.update("web", &["--image", "web:v2"]);

    another_rollback_begins(&daemon, &first);
    cluster.is_back(&daemon, "web", &good, 1);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn containers_beside_a_swarm_are_watched_as_ever() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    cluster.good(&daemon, &[]);
    cluster.bed.deploy("plain", "web:v1", &WATCHED);
    daemon.proved("plain");

    cluster.bed.deploy("plain", "web:v2", &WATCHED);

    assert_eq!(rollback_over(&daemon, "plain")["outcome"], "verified");
    cluster.bed.serves(seconds(60), "plain", "v1");
    assert!(newest_rollback(&daemon, "web").is_err());
    daemon.proved("web");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn jobs_are_refused_and_unlabelled_services_left_alone() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2"));
    let daemon = Daemon::start(&cluster.bed, None, "");
    let job = ["service", "create", "-d", "--no-resolve-image", "--mode", "replicated-job", "--name", "job"];
    cluster.bed.docker(&[&job[..], &["--label", "backstop.enable=true", "web:v1"]].concat());
    let other = ["service", "create", "-d", "--no-resolve-image", "--name", "other"];
    cluster.bed.docker(&[&other[..], &["web:v1"]].concat());

    let said = eventually(seconds(60), "the job is refused", || {
        let status = daemon.api("/api/v1/status")?;
        let refused = status["refused"].to_string();
        if refused.contains("job") { Ok(refused) } else { Err(status.to_string()) }
    });
    assert!(said.contains("it is a job"), "{said}");
    assert!(!said.contains("other"), "{said}");
    assert!(daemon.service("other").is_err());
}

/// More events than any journal of a Swarm service has: the loop ends by itself when the journal does.
const EVENTS_MAX: u32 = 40;
/// Services that are crashed side by side, each watched by a daemon of its own: nearly all of the time is waiting.
const LANES: u32 = 4;

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn killed_at_every_journal_step_of_a_swarm_rollback() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let next = AtomicU32::new(1);
    let end = AtomicU32::new(EVENTS_MAX);
    std::thread::scope(|scope| {
        for lane in 1..=LANES {
            let (cluster, next, end) = (&cluster, &next, &end);
            scope.spawn(move || {
                let name = format!("web{lane}");
                let only_this_one = format!("enroll = \"named\"\n[services.{name}]\n");
                let mut daemon = Daemon::start(&cluster.bed, None, &only_this_one);
                cluster.create(&name, "web:v1", &[]);
                daemon.proved(&name);
                let good = cluster.spec(&name);
                loop {
                    let event = next.fetch_add(1, Ordering::SeqCst);
                    if event >= end.load(Ordering::SeqCst) {
                        break;
                    }
                    if !survives_a_crash_after(cluster, &mut daemon, &name, &good, event) {
                        end.fetch_min(event, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let end = end.into_inner();
    assert!(end > 8, "only {end} journal events: is BACKSTOP_CRASH_AT heeded?");
    assert!(end < EVENTS_MAX, "the journal has more than {EVENTS_MAX} events");
}

/// False if the rollback was over before `event`, so that there was no crash.
#[track_caller]
fn survives_a_crash_after(
    cluster: &Cluster,
    daemon: &mut Daemon,
    name: &str,
    good: &Value,
    event: u32,
) -> bool {
    daemon.terminate();
    daemon.set("BACKSTOP_CRASH_AT", &event.to_string());
    daemon.again();
    daemon.ready(seconds(60));
    let before = newest_rollback(daemon, name).map_or(Value::Null, |record| record["id"].clone());

    cluster.update(name, &["--image", "web:v2"]);
    let crashed = eventually(seconds(240), &format!("a crash after event {event}, or the end"), || {
        if daemon.has_ended() {
            return Ok(true);
        }
        let newest = newest_rollback(daemon, name)?;
        let over = newest["over"] == true && newest["id"] != before;
        let id = newest["id"].as_str().unwrap_or_default();
        let record = daemon.api(&format!("/api/v1/rollbacks/{id}"))?;
        let last = record["journal"].as_array().and_then(|journal| journal.last());
        let closed = last.and_then(|l| l["what"].as_str()).is_some_and(|what| what.starts_with("closed"));
        if over && closed { Ok(false) } else { Err(newest.to_string()) }
    });
    daemon.set("BACKSTOP_CRASH_AT", "");
    if crashed {
        daemon.again();
        daemon.ready(seconds(60));
    }
    eventually(seconds(240), &format!("v1 serves after a crash after event {event}"), || {
        let newest = newest_rollback(daemon, name)?;
        let verified = newest["over"] == true && newest["id"] != before && newest["outcome"] == "verified";
        if verified { Ok(()) } else { Err(newest.to_string()) }
    });
    cluster.is_back(daemon, name, good, 1);
    crashed
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn another_backstop_with_nothing_of_its_own_goes_on() {
    let cluster = Cluster::start();
    images(&cluster, &Image::demo("v2").env("DEMO_BAD", "1"));
    let mut first = Daemon::start(&cluster.bed, None, "");
    let good = cluster.good(&first, &["--replicas", "2"]);
    first.terminate();
    // Decided, and nothing changed yet.
    first.set("BACKSTOP_CRASH_AT", "4");
    first.again();
    first.ready(seconds(60));
    cluster.update("web", &["--image", "web:v2"]);
    eventually(seconds(60), "the first one crashes in the middle of a rollback", || {
        if first.has_ended() { Ok(()) } else { Err("it runs".to_owned()) }
    });

    let second = Daemon::start(&cluster.bed, None, "");
    cluster.is_back(&second, "web", &good, 2);
    eventually(seconds(60), "the Swarm knows what was rolled back", || {
        let all = cluster.bed.api("GET", "/configs", "")?.json();
        let mut labels = all.as_array().into_iter().flatten().map(|config| &config["Spec"]["Labels"]);
        if labels.any(|labels| labels["backstop.rolled-back"] == "web") {
            Ok(())
        } else {
            Err(all.to_string())
        }
    });
    drop(second);

    // A third one, which saw none of it, knows the bad release when it is deployed again.
    let webhook = Webhook::start();
    let third = Daemon::start(&cluster.bed, Some(&webhook.url()), "");
    third.proved("web");
    cluster.update("web", &["--image", "web:v2"]);
    webhook.announced(seconds(60), &["ROLLED-BACK RELEASE IS BACK", "web:v2"]);
    rollback_over(&third, "web");
}
