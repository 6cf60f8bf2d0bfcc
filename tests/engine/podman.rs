//! Podman's socket in place of Docker's: releases that `podman run` deployed are judged and rolled back as any other, and
//! come back as Podman's own inspect says they were, but for what its Docker-compatible API cannot carry.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::bed::Own;
use crate::support::story::{WATCHED, nothing_is_left, rollback_over};
use crate::support::{Bed, Daemon, Image, Webhook, eventually, seconds};

const PODMAN: Own = Own::Version("podman-4.3");

/// Name and arguments of `podman run`; `=` before a word gives it to the app, after the image.
const CASES: [(&str, &[&str]); 28] = [
    ("plain", &[]),
    ("env", &["-e", "A=1", "-e", "EMPTY=", "-e", "SPACES=a  b"]),
    ("labels", &["--label", "team=shop", "--label", "only.v2=b", "--label", "empty="]),
    ("command", &["=--version", "=v1-by-command"]),
    ("entrypoint", &["--entrypoint", "/backstop", "=demo-app", "=--version=v1"]),
    ("workdir", &["-w", "/tmp"]),
    ("user", &["-u", "1234:5678", "--group-add", "99"]),
    ("hostname", &["-h", "shop-host"]),
    ("port", &["-p", "28080:8080"]),
    ("ports", &["-p", "28081-28083:9001-9003/udp", "-p", "127.0.0.1:28084:8080", "--expose", "7000"]),
    ("static-address", &["--network", "fixed", "--ip", "10.99.0.77", "--network-alias", "shop"]),
    ("two-networks", &["--network", "other", "--network", "fixed"]),
    ("host-network", &["--network", "host", "-e", "DEMO_LISTEN=127.0.0.1:28999"]),
    ("no-network", &["--network", "none"]),
    ("dns", &["--dns", "192.0.2.1", "--dns-search", "example.test", "--add-host", "db:192.0.2.9"]),
    ("anonymous-volume", &["-v", "/data", "-v", "/more"]),
    ("named-volume", &["-v", "shop-data:/data", "-v", "shop-logs:/logs:ro"]),
    ("bind", &["-v", "/etc/hostname:/etc/host-name:ro"]),
    ("tmpfs", &["--tmpfs", "/scratch:size=1m,mode=1770"]),
    ("memory", &["-m", "256m", "--memory-reservation", "64m", "--memory-swap", "512m"]),
    ("cpu", &["--cpus", "0.5", "--cpu-shares", "512"]),
    (
        "limits",
        &[
            "--pids-limit",
            "100",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4000:4000",
            "--shm-size",
            "32m",
        ],
    ),
    ("capabilities", &["--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD"]),
    ("security", &["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"]),
    ("read-only", &["--read-only", "--init"]),
    ("restart", &["--restart", "on-failure:3"]),
    ("stop", &["--stop-signal", "SIGINT", "--stop-timeout", "7"]),
    ("no-healthcheck", &["--no-healthcheck"]),
];

fn images(bed: &Bed, bad: &Image) {
    bed.image("web:v1", &Image::demo("v1"));
    bed.image("web:v2", bad);
}

/// As a person deploys with `podman run --replace`.
#[track_caller]
fn run(bed: &Bed, name: &str, image: &str, arguments: &[&str]) {
    let (of_the_app, of_podman): (Vec<&str>, Vec<&str>) =
        arguments.iter().copied().partition(|word: &&str| word.starts_with('='));
    let mut words = vec!["run", "-d", "--replace", "--name", name, "--label", "backstop.enable=true"];
    words.extend(of_podman);
    words.push(image);
    words.extend(of_the_app.iter().map(|word| word.trim_start_matches('=')));
    bed.podman(&words);
}

/// A container's specification, as Podman's own API tells it: without what belongs to one container's life, and without
/// what the other API cannot carry, which is tested by what is said of it.
#[track_caller]
fn specification(bed: &Bed, name: &str) -> Value {
    let mut told = bed.api("GET", &format!("/v4.3.0/libpod/containers/{name}/json"), "").unwrap().json();
    let id: String = told["Id"].as_str().unwrap().chars().take(12).collect();
    let own = [
        "Id",
        "Created",
        "State",
        "OCIConfigPath",
        "ConmonPidFile",
        "PidFile",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "StaticDir",
        "LogPath",
        "GraphDriver",
        "LockNumber",
        "RestartCount",
    ];
    told.as_object_mut().unwrap().retain(|key, _| !own.contains(&key.as_str()));
    let config = told["Config"].as_object_mut().unwrap();
    config
        .retain(|key, _| !["CreateCommand", "Annotations", "Umask", "sdNotifyMode"].contains(&key.as_str()));
    if config["Hostname"] == id {
        config.remove("Hostname");
    }
    sorted(&mut config["Env"], |variable| variable != format!("HOSTNAME={id}"));
    // One that is switched off has no intervals, whatever is told of them.
    if let Some(check) = config.get_mut("Healthcheck").filter(|check| check["Test"][0] == "NONE") {
        *check = serde_json::json!({"Test": ["NONE"]});
    }
    let host = told["HostConfig"].as_object_mut().unwrap();
    host.remove("ContainerIDFile");
    let log = host["LogConfig"].as_object_mut().unwrap();
    log.remove("Path");
    // Two names for one driver.
    if log["Type"] == "k8s-file" {
        log["Type"] = "json-file".into();
    }
    if let Some(binds) = host["Binds"].as_array_mut() {
        binds.sort_by_key(|bind| {
            bind.as_str().and_then(|bind| bind.split_once(':')).map(|(_, place)| place.to_owned())
        });
    }
    let networks = told["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let static_address = name == "static-address";
    let networks = networks.into_iter().map(|(network, endpoint)| {
        let mut aliases = endpoint["Aliases"].clone();
        sorted(&mut aliases, |alias| *alias != id);
        let address = if static_address { endpoint["IPAddress"].clone() } else { Value::Null };
        (network, serde_json::json!([aliases, address]))
    });
    told["NetworkSettings"] = Value::Object(networks.collect());
    if let Some(mounts) = told["Mounts"].as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    nameless(told, &anonymous(bed, name))
}

/// The names of the volumes that nobody named: they go with a container that `podman run --replace` removes.
#[track_caller]
fn anonymous(bed: &Bed, name: &str) -> Vec<String> {
    let inspect = bed.inspect(name);
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    let names = mounts.filter_map(|mount| mount["Name"].as_str());
    names.filter(|name| name.len() == 64).map(str::to_owned).collect()
}

/// The same, wherever it tells such a name: which one it is, is compared by itself.
fn nameless(told: Value, names: &[String]) -> Value {
    let mut text = told.to_string();
    for name in names {
        text = text.replace(name, "anonymous");
    }
    serde_json::from_str(&text).unwrap()
}

/// What is kept of a list of words, in order: Podman keeps them in none.
fn sorted(list: &mut Value, keep: impl Fn(&str) -> bool) {
    let words: BTreeSet<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|w| keep(w))
        .map(Into::into)
        .collect();
    *list = words.into_iter().collect();
}

fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before.as_object(), after.as_object()) {
        (Some(left), Some(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                let (left, right) =
                    (left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null));
                differences(&format!("{path}/{key}"), left, right, found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {before} -> {after}")),
    }
}

/// The good release runs and is as it was.
fn is_back(bed: &Bed, daemon: &Daemon, name: &str, good: &Value) -> Result<Value, String> {
    let record = rollback_over(daemon, name);
    if record["outcome"] != "verified" {
        return Err(format!("{name}: {}: {}", record["outcome"], record["detail"]));
    }
    let mut found = Vec::new();
    differences("", good, &specification(bed, name), &mut found);
    if found.is_empty() { Ok(record) } else { Err(format!("{name}:\n    {}", found.join("\n    "))) }
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn podman_release_that_fails_its_health_check() {
    let bed = Bed::start(PODMAN);
    images(&bed, &Image::demo("v2").env("DEMO_BAD_AFTER", "4s"));
    let webhook = Webhook::start();
    let daemon = Daemon::start(&bed, Some(&webhook.url()), "");
    let arguments =
        [&WATCHED[..], &["-v", "data:/data", "-e", "A=1", "-m", "256m", "--restart", "always"]].concat();
    run(&bed, "web", "web:v1", &arguments);
    bed.serves(seconds(60), "web", "v1");
    daemon.proved("web");
    let good = specification(&bed, "web");
    eventually(seconds(60), "its memory is measured", || {
        let row = daemon.row("web", "memory")?;
        if row["answer"] == "ok" { Ok(()) } else { Err(row.to_string()) }
    });

    run(&bed, "web", "web:v2", &[&arguments[..], &["-e", "A=2", "--cap-add", "NET_ADMIN"]].concat());

    let record = is_back(&bed, &daemon, "web", &good).unwrap();
    assert_eq!(record["from"]["reference"], "docker.io/library/web:v2", "{record:#}");
    assert!(record.to_string().contains("health"), "{record:#}");
    bed.serves(seconds(60), "web", "v1");
    nothing_is_left(&bed);
    // What the API cannot carry is not passed over in silence.
    webhook.announced(seconds(60), &["its umask is 0000 and was 0022"]);
    assert!(daemon.log().contains("the engine is Podman"), "said at start-up");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn podman_release_that_crashes() {
    let bed = Bed::start(PODMAN);
    images(&bed, &Image::demo("v2").env("DEMO_REQUIRE", "THE_KEY"));
    let daemon = Daemon::start(&bed, None, "");
    let arguments = ["--restart", "always"];
    run(&bed, "web", "web:v1", &arguments);
    daemon.proved("web");
    let good = specification(&bed, "web");

    run(&bed, "web", "web:v2", &arguments);

    is_back(&bed, &daemon, "web", &good).unwrap();
    bed.serves(seconds(60), "web", "v1");
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn podman_containers_come_back_as_they_were() {
    let bed = Bed::start(PODMAN);
    let bad = Image::demo("v2").line("LABEL only.v2=b").line("WORKDIR /somewhere").line("EXPOSE 9999");
    images(&bed, &bad);
    bed.docker(&["network", "create", "--subnet", "10.99.0.0/24", "fixed"]);
    bed.docker(&["network", "create", "other"]);
    let more = "[defaults.rules.health]\naction = \"off\"\n[defaults.rules.container_health]\naction = \"off\"\n\
                [defaults.rules.down]\naction = \"off\"\n[defaults.rules.memory]\naction = \"off\"\n";
    let daemon = Daemon::start(&bed, None, more);
    for (name, arguments) in CASES {
        run(&bed, name, "web:v1", arguments);
    }
    for (name, _) in CASES {
        daemon.proved(name);
    }
    let good: Vec<Value> = CASES.iter().map(|(name, _)| specification(&bed, name)).collect();

    let mut wrong = Vec::new();
    for ((name, arguments), good) in CASES.iter().zip(&good) {
        run(&bed, name, "web:v2", arguments);
        eventually(seconds(60), &format!("the bad release of {name} is seen"), || {
            let current = daemon.service(name)?["current"]["reference"].clone();
            if current == "docker.io/library/web:v2" { Ok(()) } else { Err(current.to_string()) }
        });
        let mut volumes = anonymous(&bed, name);
        volumes.sort();
        let answer = daemon.post(&format!("/api/v1/services/{name}/rollback"), "{}").unwrap();
        assert!(answer.status < 300, "{name}: {}", answer.body);
        wrong.extend(is_back(&bed, &daemon, name, good).err());
        let mut carried = anonymous(&bed, name);
        carried.sort();
        if carried != volumes {
            wrong.push(format!("{name}: what is in its anonymous volumes was not carried over"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} came back otherwise:\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n")
    );
    nothing_is_left(&bed);
}

#[test]
#[ignore = "needs private engines: tests/run engine"]
fn what_podman_cannot_put_back_is_left_alone() {
    let bed = Bed::start(PODMAN);
    images(&bed, &Image::demo("v2"));
    let daemon = Daemon::start(&bed, None, "");
    run(&bed, "unit", "web:v1", &["--label", "PODMAN_SYSTEMD_UNIT=web.service"]);
    bed.podman(&["pod", "create", "--infra=false", "shop"]);
    run(&bed, "podded", "web:v1", &["--pod", "shop"]);

    eventually(seconds(60), "the container of a unit is refused", || {
        let status = daemon.api("/api/v1/status")?;
        let refused = status["refused"].to_string();
        if refused.contains("systemd unit") { Ok(()) } else { Err(status.to_string()) }
    });
    eventually(seconds(60), "the container in a pod is not known-good", || {
        let log = daemon.log();
        if log.contains("it is in the pod") { Ok(()) } else { Err(daemon.service("podded")?.to_string()) }
    });
    assert!(daemon.service("podded").unwrap()["target"].is_null());
}
