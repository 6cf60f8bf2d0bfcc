//! What a rollback puts back is what was there: containers started in every way we know, replaced by a bad one, and
//! put back by the real steps; and every step, done twice or taken back twice, ends where it should.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use backstop::clock::Clock;
use backstop::core::io::RollbackRequest;
use backstop::core::observation::{Observation, Phase};
use backstop::core::plan::{Plan, Step, StepOutput};
use backstop::core::release::{ReplicaId, RollbackId, ServiceName};
use backstop::core::settings::{HealthCheck, ServiceSettings};
use backstop::runtime::container::{ContainerRuntime, LOOK_INTERVAL};
use backstop::runtime::engine::Engine;
use backstop::runtime::{Check, Checks, Enrolment, Runtime, Snapshot};
use serde_json::{Value, json};

use crate::support::inspect::differences;
use crate::support::{Bed, Image, eventually, seconds};

/// Enrolled by label, with the shipped settings.
#[derive(Debug)]
pub(crate) struct ByLabel;

/// Whatever is asked serves: what this is about is what is done.
#[derive(Debug)]
struct Serves;

impl Checks for ByLabel {
    fn of(&self, _: &HealthCheck, _: &ReplicaId, _: Option<IpAddr>) -> Box<dyn Check> {
        Box::new(Serves)
    }
}

#[async_trait]
impl Check for Serves {
    async fn passes(&self) -> Option<bool> {
        Some(true)
    }
}

impl Enrolment for ByLabel {
    fn enrolled(&self, _: &ServiceName, labels: &BTreeMap<String, String>) -> bool {
        labels.get("backstop.enable").is_some_and(|v| v == "true")
    }

    fn settings(
        &self,
        _: &ServiceName,
        _: &BTreeMap<String, String>,
    ) -> Result<ServiceSettings, Vec<String>> {
        Ok(ServiceSettings::default())
    }
}

struct Stage {
    bed: Bed,
    runtime: Arc<ContainerRuntime>,
    tokio: tokio::runtime::Runtime,
}

impl Stage {
    fn set() -> Self {
        let bed = Bed::lease();
        let good = Image::demo("v1")
            .line("VOLUME /image-volume")
            .line("ENV FROM_IMAGE=v1")
            .line("LABEL image.is=v1");
        bed.image("fid:v1", &good.line("EXPOSE 82/tcp"));
        let bad =
            Image::demo("v2").env("DEMO_BAD", "1").line("VOLUME /cache").line("ENV FROM_IMAGE=v2 MORE=2");
        bed.image("fid:v2", &bad.line("LABEL image.is=v2 only.v2=b").line("WORKDIR /tmp").line("EXPOSE 99"));
        let engine = Arc::new(Engine::connect(&format!("unix://{}", bed.socket())).unwrap());
        let watched = (Arc::new(ByLabel) as _, Arc::new(ByLabel) as _);
        let runtime = ContainerRuntime::new(engine, watched, Arc::default(), LOOK_INTERVAL, Clock::start());
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { bed, runtime: Arc::new(runtime), tokio }
    }

    fn run(&self, name: &str, options: &[&str], image: &str, command: &[&str]) {
        self.try_run(name, options, image, command).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    fn try_run(&self, name: &str, options: &[&str], image: &str, command: &[&str]) -> Result<String, String> {
        let start = ["run", "-d", "--name", name, "-l", "backstop.enable=true"];
        self.bed.try_docker(&[&start[..], options, &[image], command].concat())
    }

    fn observe(&self, name: &str) -> Observation {
        self.tokio.block_on(self.runtime.observe(&ServiceName::new(name))).unwrap()
    }

    fn record(&self, name: &str) -> (Observation, Vec<Snapshot>) {
        let now = self.observe(name);
        assert_eq!(now.replicas.len(), 1, "{name}: {now:?}");
        let good = self.tokio.block_on(self.runtime.snapshot(&now)).unwrap();
        (now, good)
    }

    fn plan(&self, good: &(Observation, Vec<Snapshot>), tx: &str) -> Plan {
        let service = good.0.service.clone();
        let now = self.observe(service.as_str());
        let request = RollbackRequest {
            id: RollbackId::new(tx),
            service,
            from: now.replicas.last().map(|r| r.release.id.clone()),
            to: good.0.replicas[0].release.clone(),
            stop_grace: Duration::from_secs(3),
            decided: None,
            vanished: false,
            why: String::new(),
            downgrade: None,
            mitigation: false,
        };
        self.runtime.plan(&now, &good.1, &request).unwrap()
    }

    /// Carries one step out and writes its output down, if it is to be remembered.
    fn apply(&self, plan: &Plan, index: usize, done: &[Option<StepOutput>]) -> StepOutput {
        let step = &plan.steps[index];
        self.tokio
            .block_on(self.runtime.apply(plan, step, done))
            .unwrap_or_else(|e| panic!("{}: {step}: {e}", plan.service))
    }

    fn undo(&self, plan: &Plan, index: usize, done: &[Option<StepOutput>]) {
        let step = &plan.steps[index];
        self.tokio
            .block_on(self.runtime.undo(plan, step, done[index].as_ref(), done))
            .unwrap_or_else(|e| panic!("{}: undoing {step}: {e}", plan.service));
    }

    /// Carries the whole plan out.
    fn carry_out(&self, plan: &Plan) -> Vec<StepOutput> {
        let mut done = vec![None; plan.steps.len()];
        for index in 0..plan.steps.len() {
            done[index] = Some(self.apply(plan, index, &done));
        }
        done.into_iter().flatten().collect()
    }

    /// Prepares until it fails, takes all back, and says why it failed.
    fn fails_to_prepare(&self, plan: &Plan) -> String {
        let mut done = vec![None; plan.steps.len()];
        for index in 0..plan.prepare {
            match self.tokio.block_on(self.runtime.apply(plan, &plan.steps[index], &done)) {
                Ok(output) => done[index] = Some(output),
                Err(error) => {
                    (0..=index).rev().for_each(|index| self.undo(plan, index, &done));
                    return error.message;
                }
            }
        }
        panic!("{}: it was prepared", plan.service)
    }

    fn helpers(&self) {
        self.bed.docker(&["network", "create", "--subnet", "10.99.0.0/24", "fid-net"]);
        self.bed.docker(&["network", "create", "fid-net2"]);
        for volume in ["fid-vol", "fid-vol2"] {
            self.bed.docker(&["volume", "create", volume]);
        }
        self.bed.docker(&["run", "-d", "--name", "helper", "--ipc", "shareable", "-v", "/helper", "fid:v1"]);
        self.bed.docker(&["run", "-d", "--name", "helper2", "fid:v1"]);
    }

    fn leftovers(&self) -> String {
        let names = self.bed.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        let names: Vec<&str> =
            names.lines().filter(|n| n.contains(".rbnew-") || n.contains(".rbold-")).collect();
        let tags = self.bed.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let tags = tags.lines().filter(|t| t.starts_with("backstop/moved"));
        names.into_iter().chain(tags).collect::<Vec<_>>().join(" ")
    }
}

/// Anonymous volumes are attached by name after a replay, and links come in any order: neither is a difference.
fn comparable(inspect: &Value) -> Value {
    let mut inspect = inspect.clone();
    let anonymous = |v: &Value| {
        v.as_str().is_some_and(|s| s.len() >= 64 && s.bytes().take(64).all(|b| b.is_ascii_hexdigit()))
    };
    if let Some(binds) = inspect["HostConfig"]["Binds"].as_array_mut() {
        binds.retain(|b| !anonymous(b));
    }
    if inspect["HostConfig"]["Binds"] == json!([]) {
        inspect["HostConfig"]["Binds"] = Value::Null;
    }
    for mount in inspect["HostConfig"]["Mounts"].as_array_mut().into_iter().flatten() {
        if anonymous(&mount["Source"]) {
            mount.as_object_mut().unwrap().remove("Source");
        }
    }
    for mount in inspect["Mounts"].as_array_mut().into_iter().flatten() {
        if anonymous(&mount["Name"]) {
            for key in ["Name", "Source", "Mode"] {
                mount[key] = "anonymous".into();
            }
        }
    }
    // Only a running container has these.
    for key in ["Bridge", "Gateway", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6PrefixLen", "NetworkID"] {
        let networks =
            inspect["NetworkSettings"]["Networks"].as_object_mut().into_iter().flat_map(|n| n.values_mut());
        networks.for_each(|n| drop(n.as_object_mut().unwrap().remove(key)));
        inspect["NetworkSettings"].as_object_mut().unwrap().remove(key);
    }
    if let Some(links) = inspect["HostConfig"]["Links"].as_array_mut() {
        links.sort_by_key(Value::to_string);
    }
    inspect
}

/// Networks that were connected later, and one that was left.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn further_networks_come_back() {
    let stage = Stage::set();
    stage.helpers();
    stage.run("two", &["--network", "fid-net"], "fid:v1", &[]);
    stage.bed.docker(&["network", "connect", "--alias", "second", "--ip", "10.99.0.5", "fid-net", "helper2"]);
    stage.bed.docker(&["network", "connect", "--alias", "b", "fid-net2", "two"]);
    stage.run("left", &["--network", "fid-net"], "fid:v1", &[]);
    stage.bed.docker(&["network", "connect", "fid-net2", "left"]);
    stage.bed.docker(&["network", "disconnect", "fid-net", "left"]);
    for (n, name) in ["two", "left"].into_iter().enumerate() {
        let before = stage.bed.inspect(name);
        let good = stage.record(name);
        stage.bed.docker(&["rm", "-f", name]);
        stage.run(name, &[], "fid:v2", &[]);
        let plan = stage.plan(&good, &format!("net-{n}"));
        let mut done = vec![None; plan.steps.len()];
        for index in 0..plan.steps.len() {
            done[index] = Some(stage.apply(&plan, index, &done));
        }
        let after = stage.bed.inspect(name);
        assert_eq!(differences(&comparable(&before), &comparable(&after)), Vec::<String>::new(), "{name}");
    }
}

/// For want of a right: what is recorded of it is created again all the same.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_may_not_start_is_created_as_it_was() {
    let stage = Stage::set();
    let name = "privileged";
    let _ = stage.try_run(name, &["--privileged"], "fid:v1", &[]);
    let (before, good) = (stage.bed.inspect(name), stage.record(name));
    stage.bed.docker(&["rm", "-f", name]);
    stage.run(name, &[], "fid:v2", &[]);
    let plan = stage.plan(&good, name);
    let mut done = vec![None; plan.steps.len()];
    for index in 0..plan.prepare {
        done[index] = Some(stage.apply(&plan, index, &done));
    }
    let mut after = stage.bed.inspect(&format!("{name}.rbnew-{name}"));
    after["Name"] = before["Name"].clone();
    assert_eq!(differences(&comparable(&before), &comparable(&after)), Vec::<String>::new());
}

/// Ways in which the bad container can be there when the rollback begins.
const BAD: [(&str, &[&str], &[&str]); 6] = [
    ("running", &["--restart", "always"], &[]),
    ("removed", &["--rm", "-v", "/data"], &[]),
    ("exited", &[], &["--exit-after", "0s"]),
    ("looping", &["--restart", "always"], &["--exit-after", "0s"]),
    ("unstartable", &["--restart", "always", "--entrypoint", "/nothing"], &[]),
    ("paused", &[], &[]),
];

fn deploy_bad(stage: &Stage, name: &str, kind: (&str, &[&str], &[&str])) -> String {
    let start = ["run", "-d", "--name", name, "-l", "backstop.enable=true"];
    let _ = stage.bed.try_docker(&[&start[..], kind.1, &["fid:v2"], kind.2].concat());
    let want = match kind.0 {
        "exited" => "exited",
        "looping" => "restarting",
        "unstartable" => "created",
        _ => "running",
    };
    eventually(seconds(60), &format!("{name} is {want}"), || {
        let inspect = stage.bed.try_inspect(name)?;
        let looping = want == "restarting" && inspect["RestartCount"].as_u64() > Some(1);
        if inspect["State"]["Status"] == want || looping { Ok(()) } else { Err(inspect["State"].to_string()) }
    });
    if kind.0 == "paused" {
        stage.bed.docker(&["pause", name]);
    }
    stage.bed.inspect(name)["Id"].as_str().unwrap().to_owned()
}

/// Each step done twice, its first output forgotten: as after a crash between doing and recording.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn every_step_may_be_repeated() {
    let stage = Stage::set();
    for (n, kind) in BAD.into_iter().enumerate() {
        let name = kind.0;
        stage.run(name, &["--restart", "unless-stopped", "-v", "/data"], "fid:v1", &[]);
        let before = stage.bed.inspect(name);
        let good = stage.record(name);
        stage.bed.docker(&["rm", "-f", name]);
        let old = deploy_bad(&stage, name, kind);
        let plan = stage.plan(&good, &format!("twice-{n}"));
        let mut done = vec![None; plan.steps.len()];
        for index in 0..plan.steps.len() {
            let first = stage.apply(&plan, index, &done);
            let again = stage.apply(&plan, index, &done);
            let same =
                matches!((&first, &again), (StepOutput::Stopped { .. }, _) | (StepOutput::Old { .. }, _))
                    || first == again;
            assert!(same, "{name}: {}: {first:?}, then {again:?}", plan.steps[index]);
            done[index] = Some(first);
        }
        let after = stage.bed.inspect(name);
        assert_eq!(differences(&comparable(&before), &comparable(&after)), Vec::<String>::new(), "{name}");
        assert!(stage.bed.try_inspect(&old).is_err(), "{name}: the bad container is still there");
        assert_eq!(stage.leftovers(), "", "{name}");
    }
}

/// From every point before the pivot, taken back twice: the bad container is there again, as it was.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn every_step_may_be_taken_back() {
    let stage = Stage::set();
    for (n, kind) in BAD.into_iter().enumerate() {
        let name = kind.0;
        stage.run(name, &["--restart", "unless-stopped", "-v", "/data"], "fid:v1", &[]);
        let good = stage.record(name);
        stage.bed.docker(&["rm", "-f", name]);
        deploy_bad(&stage, name, kind);
        let steps = stage.plan(&good, "count").pivot;
        for upto in 0..steps {
            for recorded in [true, false] {
                take_back(&stage, name, &good, upto, recorded, &format!("undo-{n}-{upto}-{recorded}"));
            }
        }
        stage.bed.docker(&["rm", "-f", name]);
    }
    assert_eq!(stage.leftovers(), "");
}

/// The same where the replacement is started before the old one stops.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn every_step_beside_the_old_one_may_be_taken_back() {
    let stage = Stage::set();
    let name = "beside";
    let good = beside(&stage, name);
    let plan = stage.plan(&good, "count");
    assert!(plan.order.as_ref().is_some_and(|order| order.starts_with("start-first")), "{:?}", plan.order);
    for upto in 0..plan.pivot {
        for recorded in [true, false] {
            take_back(&stage, name, &good, upto, recorded, &format!("beside-{upto}-{recorded}"));
        }
    }
    stage.bed.docker(&["rm", "-f", name]);
    assert_eq!(stage.leftovers(), "");
}

/// A good release is recorded, and a bad one runs that shares nothing with it.
fn beside(stage: &Stage, name: &str) -> (Observation, Vec<Snapshot>) {
    stage.bed.image("bare:v1", &Image::demo("v1"));
    stage.bed.image("bare:v2", &Image::demo("v2"));
    stage.run(name, &["--restart", "always"], "bare:v1", &[]);
    let good = stage.record(name);
    stage.bed.docker(&["rm", "-f", name]);
    stage.run(name, &["--restart", "always"], "bare:v2", &[]);
    good
}

/// By the time that the good release serves, the bad one has crashed and waits to be started again. Engines before 27 do not rename
/// it then, as if it were not there.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_waits_to_be_started_again_makes_way_and_is_put_back() {
    let stage = Stage::set();
    let name = "beside";
    let good = beside(&stage, name);
    let old = stage.bed.inspect(name)["Id"].clone();
    let plan = stage.plan(&good, "crashing");
    let mut done = vec![None; plan.steps.len()];
    let crashes = || {
        // Each time it waits for twice as long.
        eventually(seconds(120), "it waits to be started again", || {
            let now = stage.bed.inspect(old.as_str().unwrap());
            let (state, times) = (&now["State"], now["RestartCount"].as_u64().unwrap_or(0));
            if state["Status"] == "restarting" && times >= 6 {
                return Ok(());
            }
            if state["Status"] == "running" {
                let _ = std::process::Command::new("kill").args(["-9", &state["Pid"].to_string()]).status();
            }
            Err(state.to_string())
        });
    };
    let aside = plan.steps.iter().position(|step| matches!(step, Step::SetAsideOld { .. })).unwrap();
    let runs = |what: &str| {
        let back = stage.bed.inspect(name);
        assert_eq!(back["Id"], old, "{what}");
        assert_ne!(back["State"]["Status"], "exited", "{what}: {}", back["State"]);
    };
    for index in 0..aside {
        done[index] = Some(stage.apply(&plan, index, &done));
    }
    // It was stopped to be renamed, and nobody came to stop it: it is to run again.
    crashes();
    done[aside] = Some(stage.apply(&plan, aside, &done));
    stage.undo(&plan, aside, &done);
    runs("taken back at once");
    crashes();
    for index in aside..plan.pivot {
        done[index] = Some(stage.apply(&plan, index, &done));
    }
    assert_eq!(stage.bed.inspect(name)["Config"]["Image"], "bare:v1");
    for index in (0..plan.pivot).rev() {
        if matches!(plan.steps[index], Step::SetAsideOld { .. }) {
            crashes();
        }
        stage.undo(&plan, index, &done);
    }
    runs("taken back from the end");
    stage.bed.docker(&["rm", "-f", name]);
    assert_eq!(stage.leftovers(), "");
}

/// Does the first steps, forgets the last one's output if it was not recorded, and takes all back, each twice.
fn take_back(
    stage: &Stage,
    name: &str,
    good: &(Observation, Vec<Snapshot>),
    upto: usize,
    recorded: bool,
    tx: &str,
) {
    let before = stage.bed.inspect(name);
    let was = stage.observe(name).replicas[0].clone();
    let plan = stage.plan(good, tx);
    let mut done = vec![None; plan.steps.len()];
    for index in 0..=upto {
        done[index] = Some(stage.apply(&plan, index, &done));
    }
    if !recorded {
        done[upto] = None;
    }
    // The step after the last one never ran: taking it back must do no harm either.
    for index in (0..=(upto + 1).min(plan.pivot - 1)).rev() {
        stage.undo(&plan, index, &done);
        stage.undo(&plan, index, &done);
    }
    let what = format!("{name}: {} taken back (recorded: {recorded})", plan.steps[upto]);
    let after = stage.bed.inspect(name);
    // A paused container runs on when it was started again; nothing else of it may differ.
    assert_eq!(differences(&comparable(&before), &comparable(&after)), Vec::<String>::new(), "{what}");
    let gone = matches!(plan.steps[upto], Step::StopOld { .. }) || upto > plan.prepare + 1;
    assert!(before["Id"] == after["Id"] || (gone && name == "removed"), "{what}: it is another container");
    let is = stage.observe(name).replicas[0].clone();
    assert_eq!(is.release.id, was.release.id, "{what}");
    let ran = |phase| matches!(phase, Phase::Running | Phase::Restarting | Phase::Paused);
    assert_eq!(ran(is.phase), ran(was.phase), "{what}: {:?}, then {:?}", was.phase, is.phase);
    if name == "paused" && is.phase == Phase::Running {
        stage.bed.docker(&["pause", name]);
    }
}

/// What cannot be put back is said while the bad container still runs, and nothing is left behind.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_is_missing_is_refused_before_anything_is_touched() {
    let stage = Stage::set();
    stage.helpers();
    let gone: [(&str, &[&str], &[&str], &str); 3] = [
        ("volume", &["-v", "fid-vol:/data"], &["volume", "rm", "fid-vol"], "the volume fid-vol is gone"),
        (
            "network",
            &["--network", "fid-net2"],
            &["network", "rm", "fid-net2"],
            "docker network create fid-net2",
        ),
        (
            "address",
            &["--network", "fid-net", "--ip", "10.99.0.9"],
            &[],
            "10.99.0.9 in fid-net is taken by \"thief\"",
        ),
    ];
    for (n, (name, options, remove, said)) in gone.into_iter().enumerate() {
        stage.run(name, options, "fid:v1", &[]);
        let good = stage.record(name);
        stage.bed.docker(&["rm", "-f", name]);
        stage.run(name, &[], "fid:v2", &[]);
        if remove.is_empty() {
            stage.bed.docker(&[
                "run",
                "-d",
                "--name",
                "thief",
                "--network",
                "fid-net",
                "--ip",
                "10.99.0.9",
                "fid:v1",
            ]);
        } else {
            stage.bed.docker(remove);
        }
        let before = stage.bed.inspect(name);
        let error = stage.fails_to_prepare(&stage.plan(&good, &format!("missing-{n}")));
        assert!(error.contains(said), "{error}");
        assert_eq!(before["State"], stage.bed.inspect(name)["State"], "{name} was touched");
    }
    stage.run("image", &[], "fid:v1", &[]);
    let good = stage.record("image");
    for id in ["image", "helper", "helper2", "thief"] {
        stage.bed.docker(&["rm", "-f", "-v", id]);
    }
    stage.bed.docker(&["rmi", "-f", "fid:v1"]);
    stage.run("image", &[], "fid:v2", &[]);
    let error = stage.fails_to_prepare(&stage.plan(&good, "missing-image"));
    assert!(error.contains("fid:v1") && error.contains("no registry digest"), "{error}");
    assert_eq!(stage.leftovers(), "");
}

/// The name of the volume that a container has at `/kept`.
fn kept(stage: &Stage, name: &str) -> Value {
    let mounts = stage.bed.inspect(name)["Mounts"].as_array().unwrap().clone();
    mounts.into_iter().find(|mount| mount["Destination"] == "/kept").unwrap()["Name"].clone()
}

/// All of them live with the container of this id.
fn live(stage: &Stage, with: &str) {
    for (name, mode) in
        [("net", "NetworkMode"), ("pid", "PidMode"), ("ipc", "IpcMode"), ("asleep", "PidMode")]
    {
        let found = stage.bed.inspect(name);
        assert_eq!(found["HostConfig"][mode], format!("container:{with}"), "{name}");
        assert_eq!(found["State"]["Running"], name != "asleep", "{name}");
    }
    let linked = stage.bed.inspect("linked");
    assert_eq!(linked["HostConfig"]["Links"], json!(["/shop:/linked/store"]));
    let net = stage.bed.inspect("net");
    assert_eq!(
        stage.bed.inspect("deeper")["HostConfig"]["PidMode"],
        format!("container:{}", net["Id"].as_str().unwrap())
    );
    for up in ["linked", "deeper"] {
        assert_eq!(stage.bed.inspect(up)["State"]["Running"], true, "{up}");
    }
    let started = |of: &Value| of["State"]["StartedAt"].as_str().unwrap().to_owned();
    assert!(started(&net) > started(&stage.bed.inspect("shop")), "it is in the network of what runs");
}

/// What lives in a container's network, among its processes or in its memory, or is linked to it, refers to it by its id.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_lives_with_a_container_goes_over_to_its_replacement_or_stays_with_it() {
    let stage = Stage::set();
    let shareable = ["--ipc", "shareable"];
    stage.run("shop", &shareable, "fid:v1", &[]);
    let good = stage.record("shop");
    stage.bed.docker(&["rm", "-f", "shop"]);
    stage.run("shop", &shareable, "fid:v2", &[]);
    let with = |name: &str, options: &[&str]| {
        let start = ["run", "-d", "--name", name, "-e", "DEMO_LISTEN=0.0.0.0:8085"];
        stage.bed.docker(&[&start[..], options, &["fid:v1"]].concat());
    };
    with("net", &["--network", "container:shop", "--restart", "always", "-v", "/kept"]);
    with("pid", &["--pid", "container:shop"]);
    with("ipc", &["--ipc", "container:shop"]);
    with("deeper", &["--pid", "container:net"]);
    with("linked", &["--link", "shop:store"]);
    with("asleep", &["--pid", "container:shop", "--restart", "unless-stopped"]);
    stage.bed.docker(&["stop", "-t", "0", "asleep"]);
    let (before, volume) = (stage.bed.inspect("net"), kept(&stage, "net"));
    let id = |name: &str| stage.bed.inspect(name)["Id"].as_str().unwrap().to_owned();
    let old = id("shop");

    let plan = stage.plan(&good, "back");
    let mut done = vec![None; plan.steps.len()];
    for index in 0..plan.pivot {
        done[index] = Some(stage.apply(&plan, index, &done));
    }
    (0..plan.pivot).rev().for_each(|index| stage.undo(&plan, index, &done));
    assert_eq!(id("net"), before["Id"].as_str().unwrap(), "it is only restarted");
    live(&stage, &old);

    let plan = stage.plan(&good, "over");
    let said: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    let step = said.iter().position(|step| step.starts_with("make ")).unwrap();
    assert!(step == plan.pivot && said[step].contains("net") && said[step].contains("asleep"), "{said:?}");
    let mut done = vec![None; plan.steps.len()];
    for index in 0..plan.steps.len() {
        done[index] = Some(stage.apply(&plan, index, &done));
        if index == step {
            live(&stage, &id("shop"));
            assert_eq!(stage.apply(&plan, index, &done), StepOutput::Told { notes: Vec::new() });
        }
    }
    live(&stage, &id("shop"));
    assert_ne!(id("shop"), old);
    assert_eq!(kept(&stage, "net"), volume);
    let same =
        |inspect: &Value| (inspect["Config"]["Env"].clone(), inspect["HostConfig"]["RestartPolicy"].clone());
    assert_eq!(same(&stage.bed.inspect("net")), same(&before));
    assert_eq!(stage.leftovers(), "");
}

/// A `--rm` container that crashed has left nothing; two replicas that were recorded come back as two.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_left_nothing_and_what_were_several_come_back() {
    let stage = Stage::set();
    stage.run("lone", &["--rm"], "fid:v1", &[]);
    let good = stage.record("lone");
    stage.bed.docker(&["rm", "-f", "lone"]);
    stage.run("lone", &["--rm"], "fid:v2", &["--exit-after", "0s"]);
    eventually(seconds(60), "it is gone", || match stage.bed.try_inspect("lone") {
        Ok(found) => Err(found["State"].to_string()),
        Err(_) => Ok(()),
    });
    assert!(stage.observe("lone").replicas.is_empty());
    stage.carry_out(&stage.plan(&good, "lone"));
    assert_eq!(stage.bed.inspect("lone")["State"]["Running"], true);

    for name in ["pool-1", "pool-2"] {
        stage.run(name, &["-l", "backstop.service=pool"], "fid:v1", &[]);
    }
    let now = stage.observe("pool");
    let good = (now.clone(), stage.tokio.block_on(stage.runtime.snapshot(&now)).unwrap());
    for name in ["pool-1", "pool-2"] {
        stage.bed.docker(&["rm", "-f", name]);
        stage.run(name, &["-l", "backstop.service=pool"], "fid:v2", &[]);
    }
    stage.carry_out(&stage.plan(&good, "pool"));
    let now = stage.observe("pool");
    let release = &good.0.replicas[0].release.id;
    assert!(now.replicas.len() == 2 && now.replicas.iter().all(|r| r.release.id == *release), "{now:?}");
    assert_eq!(stage.leftovers(), "");
}

/// Pruning takes untagged images without a container: not the good ones.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_protected_image_survives_pruning() {
    let stage = Stage::set();
    stage.run("web", &[], "fid:v1", &[]);
    let release = stage.record("web").0.replicas[0].release.clone();
    stage.tokio.block_on(stage.runtime.protect(&ServiceName::new("shop"), &release, 1)).unwrap();
    stage.tokio.block_on(stage.runtime.protect(&ServiceName::new("shop"), &release, 2)).unwrap();
    stage.bed.docker(&["rm", "-f", "web"]);
    stage.bed.docker(&["tag", "fid:v2", "fid:v1"]);
    stage.bed.docker(&["image", "prune", "-f"]);
    let id = |tag: &str| stage.bed.try_docker(&["image", "inspect", "-f", "{{.Id}}", tag]);
    assert_eq!(id("fid:rollback").as_deref(), Ok(release.image.as_str()));
    assert_eq!(id("fid:rollback-2").as_deref(), Ok(release.image.as_str()));
    for _ in 0..2 {
        stage.tokio.block_on(stage.runtime.unprotect(&ServiceName::new("shop"), &release)).unwrap();
    }
    assert!(id(release.image.as_str()).is_err() && id("fid:rollback").is_err());
}

/// A program that cannot hear its stop signal is not waited for, whatever the grace.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn a_deaf_program_is_not_waited_for() {
    let stage = Stage::set();
    stage.run("deaf", &[], "fid:v1", &[]);
    let good = stage.record("deaf");
    stage.bed.docker(&["rm", "-f", "deaf"]);
    // The demo app's main process catches SIGTERM; SIGUSR2 it neither catches nor waits for.
    stage.run("deaf", &["--stop-signal", "SIGUSR2"], "fid:v2", &[]);
    let started = std::time::Instant::now();
    eventually(seconds(60), "it is up for long enough to tell", || {
        if started.elapsed() > seconds(6) { Ok(()) } else { Err("too young".into()) }
    });
    let done = stage.carry_out(&stage.plan(&good, "deaf"));
    let how = done.iter().find_map(|o| match o {
        StepOutput::Stopped { how } => Some(how.clone()),
        _ => None,
    });
    assert!(how.as_deref().is_some_and(|how| how.starts_with("killed at once")), "{how:?}");
}
