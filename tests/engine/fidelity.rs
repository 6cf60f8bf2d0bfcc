//! Whatever way a container was started, a rollback brings it back as it was: `docker inspect` before the bad
//! deployment and after the rollback differs in nothing but what belongs to one container's life.

use serde_json::Value;

use crate::support::bed::Own;
use crate::support::inspect::differences;
use crate::support::story::{nothing_is_left, rollback_over};
use crate::support::{Bed, Daemon, Image, eventually, seconds};

/// A way to start a container: name and arguments.
type Way = (&'static str, &'static [&'static str]);

/// Name and arguments of `docker run`; `HERE` is a loopback address of this run's own, and `=` before a word gives it to the app, after the image.
const CASES: [Way; 57] = [
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
    surroundings(bed);
    let more = "[defaults.rules.health]\naction = \"off\"\n[defaults.rules.container_health]\naction = \"off\"\n\
                [defaults.rules.down]\naction = \"off\"\n[defaults.rules.memory]\naction = \"off\"\n";
    let daemon = Daemon::start(bed, None, more);
    let ways = || CASES.iter().chain(newer).chain(&OTHERWISE).copied();
    for (name, arguments) in ways() {
        deploy(bed, nth, name, "web:v1", arguments);
        if name == "two-networks" {
            bed.docker(&["network", "connect", "--alias", "second", "fixed", name]);
        }
    }
    for (name, _) in ways() {
        // So many at once keep a small machine busy.
        daemon.in_state(seconds(120), name, &["steady"]);
    }
    let good: Vec<(&str, Value)> = ways().map(|(name, _)| (name, bed.inspect(name))).collect();

    for (name, arguments) in ways() {
        let otherwise = OTHERWISE.iter().any(|(other, _)| *other == name);
        deploy(bed, nth, name, "web:v2", if otherwise { &["-v", "/data"] } else { arguments });
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

fn deploy(bed: &Bed, nth: u8, name: &str, image: &str, arguments: &[&str]) {
    let _ = bed.try_docker(&["rm", "-f", name]);
    let (of_the_app, of_docker): (Vec<&str>, Vec<&str>) =
        arguments.iter().copied().partition(|word: &&str| word.starts_with('='));
    let mut words = vec!["run", "-d", "--name", name, "--label", "backstop.enable=true"];
    words.extend(of_docker);
    words.push(image);
    words.extend(of_the_app.iter().map(|word| word.trim_start_matches('=')));
    let [.., b, c] = std::process::id().to_be_bytes();
    let here = format!("127.{nth}.{b}.{c}");
    let words: Vec<String> = words.iter().map(|word| word.replace("HERE", &here)).collect();
    bed.docker(&words.iter().map(String::as_str).collect::<Vec<_>>());
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
