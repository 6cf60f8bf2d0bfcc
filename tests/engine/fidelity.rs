//! Whatever way a container was started, a rollback brings it back as it was: `docker inspect` before the bad
//! deployment and after the rollback differs in nothing but what belongs to one container's life.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bed::Own;
use crate::support::inspect::differences;
use crate::support::story::{nothing_is_left, rollback_over};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

/// A way to start a container: name and arguments of `docker run`. `HERE` is a loopback address of this run's own, `SHARED` a
/// mount that is shared, `DISK` a disk, and `=` before a word gives it to the app, after the image. What `docker` has no option
/// for is JSON for its API instead.
type Way = (&'static str, &'static [&'static str]);

const CASES: [Way; 68] = [
    ("plain", &[]),
    ("env", &["-e", "A=1", "-e", "EMPTY=", "-e", "SPACES=a  b", "-e", "LINES=a\nb"]),
    ("env-equal-to-the-bad-image", &["-e", "APP_VERSION=2"]),
    ("labels", &["--label", "team=shop", "--label", "only.v2=b", "--label", "empty="]),
    ("command", &["=--version", "=v1-by-command"]),
    ("entrypoint", &["--entrypoint", "/backstop", "=demo-app", "=--version=v1"]),
    ("workdir", &["-w", "/tmp"]),
    ("user", &["-u", "1234:5678", "--group-add", "99"]),
    ("hostname", &["-h", "shop-host", "--domainname", "example.test"]),
    (
        "static-address",
        &["--network", "fixed", "--ip", "10.99.0.77", "--network-alias", "shop", "--network-alias", "store"],
    ),
    ("mac-address", &["--mac-address", "02:11:22:33:44:55"]),
    ("network-driver-options", &["--network", "name=other,alias=x,driver-opt=com.example.key=value"]),
    ("two-networks", &["--network", "other"]),
    ("port", &["-p", "HERE:28080:8080"]),
    ("ports", &["-p", "HERE:28081-28083:9001-9003/udp", "-p", "HERE:28084:8080", "--expose", "7000"]),
    ("random-port", &["-p", "HERE::8080"]),
    ("all-ports", &["-P"]),
    ("host-network", &["--network", "host", "-e", "DEMO_LISTEN=HERE:28999"]),
    ("no-network", &["--network", "none"]),
    ("other-containers-network", &["--network", "container:neighbour", "-e", "DEMO_LISTEN=0.0.0.0:8081"]),
    (
        "dns",
        &[
            "--dns",
            "192.0.2.1",
            "--dns-search",
            "example.test",
            "--dns-option",
            "ndots:3",
            "--add-host",
            "db:192.0.2.9",
        ],
    ),
    ("link", &["--link", "neighbour:db"]),
    ("anonymous-volume", &["-v", "/data", "-v", "/more"]),
    ("named-volume", &["-v", "shop-data:/data", "-v", "shop-logs:/logs:ro,nocopy"]),
    ("bind", &["-v", "/etc/hostname:/etc/host-name:ro", "-v", "/tmp:/host-tmp:rprivate"]),
    (
        "mounts",
        &[
            "--mount",
            "type=volume,src=m1,dst=/m1",
            "--mount",
            "type=bind,src=/etc,dst=/host-etc,readonly",
            "--mount",
            "type=tmpfs,dst=/t,tmpfs-size=1048576",
        ],
    ),
    ("anonymous-mount", &["--mount", "type=volume,dst=/anonymous"]),
    ("tmpfs", &["--tmpfs", "/scratch:size=1m,mode=1770"]),
    ("volumes-from", &["--volumes-from", "neighbour:ro"]),
    (
        "memory",
        &["-m", "256m", "--memory-reservation", "64m", "--memory-swap", "512m", "--oom-score-adj", "100"],
    ),
    ("cpu", &["--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"]),
    ("limits", &["--pids-limit", "100", "--ulimit", "nofile=1024:2048", "--shm-size", "32m"]),
    ("sysctl", &["--sysctl", "net.core.somaxconn=256"]),
    ("capabilities", &["--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD"]),
    ("no-capabilities", &["--cap-drop", "ALL"]),
    ("security", &["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"]),
    ("unmasked", &["--security-opt", "systempaths=unconfined"]),
    ("read-only", &["--read-only"]),
    ("init", &["--init"]),
    ("on-failure", &["--restart", "on-failure:3"]),
    ("unless-stopped", &["--restart", "unless-stopped"]),
    ("logs", &["--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2"]),
    ("terminal", &["-t", "-i"]),
    ("stop", &["--stop-signal", "SIGINT", "--stop-timeout", "7"]),
    ("healthcheck", &["--health-interval", "7s", "--health-retries", "4"]),
    ("no-healthcheck", &["--no-healthcheck"]),
    ("namespaces", &["--ipc", "shareable", "--pid", "host", "--uts", "host"]),
    ("device", &["--device", "/dev/null:/dev/nothing:r", "--device-cgroup-rule", "c 1:3 r"]),
    ("volume-driver", &["--volume-driver", "local", "-v", "driven:/driven:z"]),
    (
        "volume-options",
        &[
            "--mount",
            "type=volume,src=options,dst=/o,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
        ],
    ),
    // What the kernel cannot do, the engine leaves out.
    (
        "memory-corners",
        &["-m", "256m", "--oom-kill-disable", "--memory-swappiness", "10", "--kernel-memory", "128m"],
    ),
    ("cpu-quota", &["--cpu-period", "50000", "--cpu-quota", "25000", "--cpuset-mems", "0"]),
    ("runtime", &["--runtime", "io.containerd.runc.v2", "--isolation", "default"]),
    (
        "security-profile",
        &[
            "--security-opt",
            SECCOMP,
            "--security-opt",
            "label=disable",
            "--security-opt",
            "apparmor=unconfined",
        ],
    ),
    ("no-init", &["--init=false"]),
    ("no-ipc", &["--ipc", "none", "--cgroupns", "host"]),
    ("host-ipc", &["--ipc", "host"]),
    ("Odd.name_1-x", &[]),
    (
        "mount-options",
        &[
            "--mount",
            "type=bind,src=SHARED,dst=/slave,bind-propagation=rslave,bind-nonrecursive",
            "--mount",
            "type=tmpfs,dst=/t,tmpfs-mode=1770",
            "--mount",
            "type=volume,src=labelled,dst=/l,volume-label=team=shop",
            "-v",
            "SHARED:/shared:shared",
        ],
    ),
    ("unlimited-swap", &["-m", "64m", "--memory-swap", "-1"]),
    ("gpus", &["--gpus", "all"]),
    ("some-gpus", &["--gpus", r#""device=0,1","capabilities=compute,utility""#]),
    ("attached", &[r#"{"AttachStdin": true, "AttachStderr": true, "OpenStdin": true, "StdinOnce": true}"#]),
    ("console-size", &[r#"{"Tty": true, "HostConfig": {"ConsoleSize": [40, 120]}}"#]),
    ("variable-without-value", &[r#"{"Env": ["NO_VALUE", "EMPTY="]}"#]),
    ("empty-entrypoint", &[r#"{"Entrypoint": [""], "Cmd": ["/backstop", "demo-app"]}"#]),
    ("entrypoint-of-the-image", &[r#"{"Entrypoint": ["/backstop", "demo-app"]}"#]),
    ("cpu-count", &[r#"{"HostConfig": {"CpuCount": 1}}"#]),
];

/// Its text becomes part of the specification.
const SECCOMP: &str = concat!("seccomp=", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/seccomp.json");

/// The same, while the bad release was deployed with nothing of it: only what was recorded can bring it back.
const OTHERWISE: [Way; 15] = [
    ("removes-itself", &["--rm"]),
    ("removes-itself-with-its-volume", &["--rm", "-v", "/data"]),
    ("always", &["--restart", "always", "--label", "traefik.http.routers.x.rule=Host(`a.b`)"]),
    ("hostname-like-an-id", &["--hostname", "cb5ee1b6243c"]),
    ("port-ranges", &["-P", "-p", "HERE::8080", "-p", "HERE:28090-28095:83"]),
    ("mac-address-on-a-network", &["--network", "fixed", "--mac-address", "92:d0:c6:0a:29:33"]),
    ("other-containers-processes", &["--pid", "container:neighbour", "--ipc", "container:neighbour"]),
    ("volume-read-only", &["-v", "/data", "-v", "/more:/more2:ro"]),
    ("mount-without-copy", &["--mount", "type=volume,target=/data,volume-nocopy"]),
    ("host-gateway", &["--add-host", "gw:host-gateway"]),
    ("no-logs", &["--log-driver", "none"]),
    ("cgroup", &["--cgroup-parent", "/fid-parent", "--cgroupns", "private", "--userns", "host"]),
    ("io", &["--blkio-weight", "300", "--ulimit", "core=0"]),
    ("command-with-spaces", &["=--version", "=x y", "=--listen", "=0.0.0.0:9090"]),
    ("no-entrypoint", &["--entrypoint", "", "=/backstop", "=demo-app"]),
];

/// What only newer engines know, or can start on a kernel this new.
const NEWER: [Way; 4] = [
    ("privileged", &["--privileged"]),
    ("part-of-a-volume", &["--mount", "type=volume,src=parts,dst=/part,volume-subpath=part"]),
    ("annotation", &["--annotation", "com.example.owner=shop"]),
    ("health-start-interval", &["--health-start-interval", "2s", "--health-start-period", "9s"]),
];

/// What a machine may not be able to start: without all capabilities, without a disk of its own, where groups are not scheduled
/// in real time, where its file system has no quotas, by the second version of control groups. It is tried, and left out if it fails.
const WHERE_POSSIBLE: [Way; 5] = [
    ("privileged", &["--privileged"]),
    (
        "disk",
        &[
            "--device-read-bps",
            "DISK:1gb",
            "--device-write-bps",
            "DISK:1gb",
            "--device-read-iops",
            "DISK:100000",
            "--device-write-iops",
            "DISK:100000",
        ],
    ),
    ("real-time", &["--cpu-rt-runtime", "1000", "--cpu-rt-period", "500000"]),
    ("storage-options", &["--storage-opt", "size=1G"]),
    ("kernel-memory-tcp", &[r#"{"HostConfig": {"KernelMemoryTCP": 33554432}}"#]),
];

/// Fields that no container here differs in, and why. What depends on the kernel may be there elsewhere.
const WITHOUT_A_CASE: [(&str, &str); 21] = [
    ("Config/AttachStdout", "refused, since somebody waits for it; Compose's own have it"),
    ("Config/OnBuild", "left out on purpose: it is the image's, for those who build on it"),
    ("HostConfig/ContainerIDFile", "left out on purpose: it is of the command that was run once"),
    ("Config/Image", "it is what a deployment changes"),
    ("HostConfig/Cgroup", "no engine that there is can do anything with it"),
    ("HostConfig/BlkioWeight", "left out where the kernel has no such scheduler"),
    ("HostConfig/BlkioWeightDevice", "left out where the kernel has no such scheduler"),
    ("HostConfig/BlkioDeviceReadBps", "needs a disk, and an engine that sees that its kernel can do it"),
    ("HostConfig/BlkioDeviceWriteBps", "needs a disk, and an engine that sees that its kernel can do it"),
    ("HostConfig/BlkioDeviceReadIOps", "needs a disk, and an engine that sees that its kernel can do it"),
    ("HostConfig/BlkioDeviceWriteIOps", "needs a disk, and an engine that sees that its kernel can do it"),
    ("HostConfig/CpuRealtimePeriod", "needs a kernel that schedules groups in real time"),
    ("HostConfig/CpuRealtimeRuntime", "needs a kernel that schedules groups in real time"),
    ("HostConfig/CpuPercent", "Windows"),
    ("HostConfig/IOMaximumIOps", "Windows"),
    ("HostConfig/IOMaximumBandwidth", "Windows"),
    ("HostConfig/KernelMemory", "control groups of the first version"),
    ("HostConfig/KernelMemoryTCP", "control groups of the first version"),
    ("HostConfig/MemorySwappiness", "control groups of the first version"),
    ("HostConfig/OomKillDisable", "control groups of the first version"),
    ("HostConfig/Privileged", "needs all capabilities on the older engine"),
];

/// So many are rolled back side by side: the proof of each takes its time, and the engine has enough to do.
const AT_ONCE: usize = 8;

/// Differs from the good image in all that an image can bring along; a copy of its settings would show. Its health check
/// is there to be seen, not to run: in dozens of containers at once that would be most of what the machine does.
fn bad_image() -> Image {
    Image::demo("v2")
        .env("APP_VERSION", "2")
        .line("LABEL only.v2=b")
        .line("WORKDIR /somewhere")
        .line("VOLUME /cache")
        .line("EXPOSE 9999")
        .line(r#"CMD ["--bad"]"#)
        .line(r#"HEALTHCHECK --interval=1h CMD ["/backstop","demo-app","--probe","http://127.0.0.1:8080/"]"#)
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn containers_come_back_as_they_were() {
    come_back_as_they_were(&Bed::lease(), 1, &[]);
}

/// It shows more, takes more, and remembers more than the oldest that there may be.
#[test]
#[ignore = "needs private engines: tests/run engine"]
fn containers_come_back_as_they_were_on_a_newer_engine() {
    come_back_as_they_were(&Bed::start(Own::Version("26.1")), 2, &NEWER);
}

/// `nth` tells the ports of one test from those of another.
fn come_back_as_they_were(bed: &Bed, nth: u8, newer: &[Way]) {
    let machine = Machine::new(nth);
    surroundings(bed);
    let more = "[defaults.rules.health]\naction = \"off\"\n[defaults.rules.container_health]\naction = \"off\"\n\
                [defaults.rules.down]\naction = \"off\"\n[defaults.rules.memory]\naction = \"off\"\n";
    let daemon = Daemon::start(bed, None, more);
    let possible = possible(bed, &machine, newer);
    let ways = || CASES.iter().chain(newer).chain(&possible).chain(&OTHERWISE).copied();
    for (name, arguments) in ways() {
        machine.deploy(bed, name, "web:v1", arguments).unwrap();
        if name == "two-networks" {
            bed.docker(&["network", "connect", "--alias", "second", "fixed", name]);
        }
    }
    for (name, _) in ways() {
        // So many at once keep a small machine busy.
        daemon.in_state(seconds(120), name, &["steady"]);
    }
    let good: Vec<(&str, Value)> = ways().map(|(name, _)| (name, bed.inspect(name))).collect();
    every_field_has_a_case(&good);

    for (name, arguments) in ways() {
        let otherwise = OTHERWISE.iter().any(|(other, _)| *other == name);
        let arguments = if otherwise { &["-v", "/data"] } else { arguments };
        machine.deploy(bed, name, "web:v2", arguments).unwrap();
    }
    for (name, _) in ways() {
        eventually(seconds(60), &format!("the bad release of {name} is seen"), || {
            let current = daemon.service(name)?["current"]["reference"].clone();
            if current == "web:v2" { Ok(()) } else { Err(current.to_string()) }
        });
    }
    let mut wrong = Vec::new();
    for some in good.chunks(AT_ONCE) {
        let data: Vec<_> = some.iter().map(|(name, _)| data_of(&bed.inspect(name))).collect();
        let ordered: Vec<_> = some.iter().map(|(name, _)| order(&daemon, name)).collect();
        for (((name, good), data), ordered) in some.iter().zip(data).zip(ordered) {
            wrong.extend(ordered.and_then(|()| is_back(bed, &daemon, name, good)).err());
            // What users wrote while the bad release ran is theirs.
            if data_of(good).is_some() && data_of(&bed.inspect(name)) != data {
                wrong.push(format!("{name}: the data at /data was left behind"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} came back otherwise:\n{}", wrong.len(), good.len(), wrong.join("\n"));
    nothing_is_left(bed);
}

/// The anonymous volume at /data.
fn data_of(inspect: &Value) -> Option<String> {
    let mounts = inspect["Mounts"].as_array()?;
    let name = mounts.iter().find(|mount| mount["Destination"] == "/data")?["Name"].as_str()?;
    (name.len() == 64).then(|| name.to_owned())
}

fn surroundings(bed: &Bed) {
    bed.image("web:v1", &Image::demo("v1"));
    bed.image("bad:base", &bad_image());
    bed.build("web:v2", "bad:base", "STOPSIGNAL SIGUSR1");
    bed.docker(&["network", "create", "--subnet", "10.99.0.0/24", "fixed"]);
    bed.docker(&["network", "create", "other"]);
    bed.deploy("neighbour", "web:v1", &["-v", "/shared", "--ipc", "shareable", "-v", "parts:/parts"]);
    let folder = tempfile::tempdir().unwrap();
    bed.docker(&["cp", folder.path().to_str().unwrap(), "neighbour:/parts/part"]);
}

/// Those that this machine can start.
fn possible(bed: &Bed, machine: &Machine, newer: &[Way]) -> Vec<Way> {
    // Whoever is to be scheduled in real time gets it from the group of all containers of the engine.
    let all = format!("/sys/fs/cgroup/cpu/backstop-bed-{}/cpu.rt_runtime_us", bed.engine());
    let _ = fs::write(all, "100000");
    let further = |(name, _): &&Way| newer.iter().all(|(newer, _)| newer != name);
    let starts = |(name, arguments): &&Way| {
        let tried = machine.deploy(bed, name, "web:v1", arguments);
        let _ = tried.as_ref().inspect_err(|error| eprintln!("left out: {name}: {error}"));
        let _ = bed.try_docker(&["rm", "-f", name]);
        tried.is_ok()
    };
    WHERE_POSSIBLE.iter().filter(further).filter(starts).copied().collect()
}

/// Some way leads to something else in each field than the plainest does.
#[track_caller]
fn every_field_has_a_case(good: &[(&str, Value)]) {
    let (_, plain) = good.first().unwrap();
    let mut without = Vec::new();
    for part in ["Config", "HostConfig"] {
        for (field, value) in plain[part].as_object().unwrap() {
            let path = format!("{part}/{field}");
            let said = WITHOUT_A_CASE.iter().any(|(one, _)| *one == path);
            if !said && good.iter().all(|(_, one)| one[part][field] == *value) {
                without.push(path);
            }
        }
    }
    assert!(without.is_empty(), "no way to start a container differs in {without:?}");
}

/// What of this machine ways to start a container refer to.
struct Machine {
    here: String,
    disk: String,
    shared: TempDir,
}

impl Machine {
    #[track_caller]
    fn new(nth: u8) -> Self {
        let [.., b, c] = std::process::id().to_be_bytes();
        let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let disks =
            disks.filter(|disk| fs::read_to_string(disk.path().join("size")).is_ok_and(|n| n != "0\n"));
        let disks = disks.map(|disk| Path::new("/dev").join(disk.file_name()));
        let disk = disks.filter(|disk| disk.exists()).map(|disk| disk.display().to_string()).max();
        let shared = tempfile::Builder::new().prefix("backstop-shared-").tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "--make-shared", "shared"])
            .arg(shared.path())
            .status();
        assert!(mount.unwrap().success(), "mounting {}", shared.path().display());
        Self { here: format!("127.{nth}.{b}.{c}"), disk: disk.unwrap_or_default(), shared }
    }

    fn deploy(&self, bed: &Bed, name: &str, image: &str, arguments: &[&str]) -> Result<(), String> {
        let _ = bed.try_docker(&["rm", "-f", name]);
        if let [json] = arguments
            && json.starts_with('{')
        {
            return by_the_api(bed, name, image, json);
        }
        let (of_the_app, of_docker): (Vec<&str>, Vec<&str>) =
            arguments.iter().copied().partition(|word: &&str| word.starts_with('='));
        let mut words = vec!["run", "-d", "--name", name, "--label", "backstop.enable=true"];
        words.extend(of_docker);
        words.push(image);
        words.extend(of_the_app.iter().map(|word| word.trim_start_matches('=')));
        let shared = self.shared.path().to_str().unwrap();
        let of_here = |word: &&str| {
            word.replace("HERE", &self.here).replace("SHARED", shared).replace("DISK", &self.disk)
        };
        let words: Vec<String> = words.iter().map(of_here).collect();
        bed.try_docker(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Containers may have it until the engine is cleared.
        let _ = Command::new("umount").arg("--lazy").arg(self.shared.path()).status();
    }
}

fn by_the_api(bed: &Bed, name: &str, image: &str, json: &str) -> Result<(), String> {
    let mut body: Value = serde_json::from_str(json).unwrap();
    body["Image"] = image.into();
    body["Labels"] = json!({"backstop.enable": "true"});
    for (path, body) in
        [(format!("create?name={name}"), body.to_string()), (format!("{name}/start"), String::new())]
    {
        let answer = bed.api("POST", &format!("/containers/{path}"), &body)?;
        if answer.status >= 300 {
            return Err(format!("{name}: {}", answer.body));
        }
    }
    Ok(())
}

/// By an operator's command: what is looked at here is the way back, not the judgement.
fn order(daemon: &Daemon, name: &str) -> Result<(), String> {
    let answer = daemon.post(&format!("/api/v1/services/{name}/rollback"), "{}")?;
    if answer.status < 300 { Ok(()) } else { Err(format!("{name}: {}", answer.body)) }
}

fn is_back(bed: &Bed, daemon: &Daemon, name: &str, good: &Value) -> Result<(), String> {
    let record = rollback_over(daemon, name);
    if record["outcome"] != "verified" {
        return Err(format!("{name}: {}: {}", record["outcome"], record["detail"]));
    }
    let found = differences(good, &bed.inspect(name));
    if found.is_empty() { Ok(()) } else { Err(format!("{name}:\n    {}", found.join("\n    "))) }
}
