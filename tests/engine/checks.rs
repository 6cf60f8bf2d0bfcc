//! Checks of a real container: over its own address, and by commands run in it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backstop::clock::Clock;
use backstop::core::release::ReplicaId;
use backstop::core::sample::{Measurement, Signal};
use backstop::core::settings::{CheckKind, HealthCheck, HttpStep, Target};
use backstop::runtime::engine::Engine;
use backstop::signal::Probe;
use backstop::signal::check::{CheckProbe, CheckTools, CommandRunner, Ran};

use crate::support::{Bed, Image, eventually, seconds};

/// The engine in the words of the checks, as the daemon puts it.
#[derive(Debug)]
struct Exec(Arc<Engine>);

#[async_trait]
impl CommandRunner for Exec {
    async fn prepare(&self, replica: &ReplicaId, command: &[String]) -> Result<String, String> {
        self.0.prepare_exec(replica.as_str(), command).await.map_err(|e| e.to_string())
    }

    async fn run(&self, id: &str) -> Result<Ran, String> {
        let ended = self.0.run_exec(id).await.map_err(|e| e.to_string())?;
        Ok(Ran { code: ended.code, output: ended.output })
    }

    async fn runs(&self, id: &str) -> Result<bool, String> {
        self.0.exec_runs(id).await.map_err(|e| e.to_string())
    }
}

/// `web`, a demo app that runs with half a CPU.
struct Web {
    bed: Bed,
    tokio: tokio::runtime::Runtime,
    engine: Arc<Engine>,
    tools: CheckTools,
}

impl Web {
    fn start() -> Self {
        let bed = Bed::lease();
        bed.image("web:v1", &Image::demo("v1"));
        bed.deploy("web", "web:v1", &["--cpus", "0.5"]);
        bed.serves(seconds(60), "web", "v1");
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let engine = Arc::new(Engine::connect(&format!("unix://{}", bed.socket())).unwrap());
        let commands = Arc::new(Exec(Arc::clone(&engine)));
        let tools = CheckTools { commands, clock: Clock::start() };
        Self { bed, tokio, engine, tools }
    }

    fn probe(&self, kind: CheckKind, timeout: Duration) -> CheckProbe {
        let check = HealthCheck { kind, interval: seconds(10), timeout, required: true };
        // A container that does not run has none.
        let address: Option<IpAddr> = self.bed.inspect("web")["NetworkSettings"]["IPAddress"]
            .as_str()
            .and_then(|address| address.parse().ok());
        let replica = ReplicaId::new("web");
        CheckProbe::new(&self.tools, Signal::Health, &check, Some((&replica, address)))
    }

    fn ask(&self, probe: &CheckProbe) -> Measurement {
        self.tokio.block_on(probe.measure()).remove(0).1
    }

    fn runs(&self, words: &[&str]) -> Measurement {
        let command = CheckKind::Command(words.iter().map(|word| (*word).to_owned()).collect());
        self.ask(&self.probe(command, seconds(60)))
    }
}

#[track_caller]
fn said(measurement: &Measurement, ok: bool) -> &str {
    match measurement {
        Measurement::Check { ok: found, detail, .. } if *found == ok => detail,
        other => panic!("expected a check that is {ok}: {other:?}"),
    }
}

const PROBE: [&str; 4] = ["/backstop", "demo-app", "--probe", "http://127.0.0.1:8080/healthz"];

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_command_runs_in_the_container() {
    let web = Web::start();
    assert!(said(&web.runs(&PROBE), true).starts_with("exit code 0 after "));

    let missing = web.runs(&["/nothing-is-here", "-q"]);
    let missing = said(&missing, false);
    assert!(
        missing.starts_with("exit code 12") && missing.contains("no such file or directory"),
        "{missing}"
    );

    let wrong = web.runs(&["/backstop", "no-such-subcommand"]);
    let wrong = said(&wrong, false);
    assert!(wrong.starts_with("exit code 2 after ") && wrong.contains("--help"), "{wrong}");

    let hangs = ["/backstop", "demo-app", "--listen", "127.0.0.1:9999"].map(str::to_owned);
    let hangs = web.probe(CheckKind::Command(hangs.to_vec()), seconds(3));
    assert!(said(&web.ask(&hangs), false).starts_with("the command did not end within 3s"));
    for _ in 0..2 {
        let again = web.ask(&hangs);
        assert!(said(&again, false).contains("of an earlier check, given 3s, still runs"), "{again:?}");
    }
    eventually(seconds(60), "it runs: one, not one for each check", || {
        let processes = web.bed.try_docker(&["top", "web"])?;
        if processes.matches("9999").count() == 1 { Ok(()) } else { Err(processes) }
    });

    web.bed.docker(&["restart", "-t", "1", "web"]);
    let fresh = web.ask(&hangs);
    assert!(said(&fresh, false).starts_with("the command did not end"), "it is started anew: {fresh:?}");
    web.bed.docker(&["stop", "-t", "1", "web"]);
    for words in [&PROBE[..], &["/nothing-is-here"]] {
        let stopped = web.runs(words);
        assert!(
            matches!(&stopped, Measurement::Unavailable { why } if why.contains("is not running")),
            "{stopped:?}"
        );
    }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn steps_over_the_containers_own_address() {
    let web = Web::start();
    let get = |path: &str| HttpStep::get(Target::Replica { port: 8080, path: path.into() });
    let first = HttpStep {
        json: vec![(".version".into(), "\"v1\"".into())],
        capture: vec![("host".into(), ".hostname".into())],
        ..get("/")
    };
    let second = HttpStep { contains: Some("ok".into()), ..get("/healthz?asked={{host}}") };
    let steps = |first: &HttpStep| CheckKind::Http(vec![first.clone(), second.clone()]);
    let good = web.probe(steps(&first), seconds(60));
    assert!(said(&web.ask(&good), true).starts_with("all 2 steps passed, the last with 200 OK after "));

    let older = HttpStep { json: vec![(".version".into(), "\"v0\"".into())], ..first.clone() };
    let wrong = web.ask(&web.probe(steps(&older), seconds(60)));
    let wrong = said(&wrong, false);
    assert!(wrong.starts_with("step 1 of 2 (GET /): 200 OK after "), "{wrong}");
    assert!(wrong.contains(".version is the string \"v1\", not the string \"v0\""), "{wrong}");

    let bad = HttpStep { method: "POST".into(), ..get("/demo/health/error") };
    said(&web.ask(&web.probe(CheckKind::Http(vec![bad]), seconds(60))), true);
    let now = web.ask(&good);
    let now = said(&now, false);
    assert!(now.starts_with("step 2 of 2 (GET /healthz): 500 Internal Server Error after "), "{now}");
    let exec = web.runs(&PROBE);
    let exec = said(&exec, false);
    assert!(exec.starts_with("exit code 1 after ") && exec.contains("500"), "{exec}");

    let port = |port| CheckKind::Tcp(Target::Replica { port, path: String::new() });
    assert!(said(&web.ask(&web.probe(port(8080), seconds(60))), true).starts_with("connected after "));
    assert!(
        said(&web.ask(&web.probe(port(8081), seconds(60))), false).starts_with("connection refused after ")
    );
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn the_engine_tells_how_the_cpu_limit_holds_it_back() {
    let web = Web::start();
    let periods = eventually(seconds(60), "periods under a CPU limit are counted", || {
        let usage = web.tokio.block_on(web.engine.usage("web")).map_err(|e| e.to_string())?;
        usage.periods.filter(|(periods, _)| *periods > 0).ok_or_else(|| format!("{usage:?}"))
    });
    assert!(periods.1 <= periods.0, "{periods:?}");
    web.bed.docker(&["run", "-d", "--name", "free", "web:v1"]);
    let free = web.tokio.block_on(web.engine.usage("free")).unwrap();
    assert_eq!(free.periods, Some((0, 0)), "no limit, no periods: {free:?}");
    assert!(!free.memory.limited && free.memory.used > 0, "{free:?}");
}
