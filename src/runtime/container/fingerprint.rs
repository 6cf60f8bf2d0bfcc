//! What a container is: its image and the configuration that its deployer chose, as one identity.
//!
//! The fingerprint must not change by a restart, a rename or a reconnect, must be the same for a faithful replay on
//! every engine from 20.10 on, and must change when the deployer changes anything. So it leaves out what the engine or
//! we ourselves add, and takes empty and absent for the same: engines differ in which of the two they say.
//!
//! Of its networks only the one that it was created in counts (`NetworkMode`). Aliases, static addresses and further networks
//! come and go by `docker network connect` while a container runs, which is no deployment, and inspect does not tell those from
//! what was chosen at its creation; replicas of one release differ in them, and engines in how they list them. They are recorded and
//! replayed all the same. Where Compose deploys a change of them, its config hash, which is a label, tells.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::projects::DEPENDS_ON;
use crate::core::release::{ImageId, Release, ReleaseId};

/// Fields of `Config` that say how a container came to be and not what it is. `Image` is a string that may point
/// elsewhere by now; the image's id stands beside the fingerprint.
const CONFIG_OUT: [&str; 5] = ["Image", "OnBuild", "AttachStdin", "AttachStdout", "AttachStderr"];
/// The same of `HostConfig`. The restart policy is taken from a container before it is stopped, and `docker update`
/// changes it at will: it is restored with the snapshot, but it is no release.
const HOST_OUT: [&str; 6] =
    ["ContainerIDFile", "ConsoleSize", "RestartPolicy", "KernelMemory", "KernelMemoryTCP", "Links"];
/// Labels of Compose that tell replicas, checkouts and Compose versions apart, but not what runs.
const LABELS_OUT: [&str; 7] = [
    "com.docker.compose.container-number",
    "com.docker.compose.replace",
    "com.docker.compose.image",
    "com.docker.compose.version",
    "com.docker.compose.project.working_dir",
    "com.docker.compose.project.config_files",
    "com.docker.compose.project.environment_file",
];
/// Of these, `[]` is a choice (`systempaths=unconfined`) and absent is the default.
const EMPTY_MATTERS: [&str; 2] = ["MaskedPaths", "ReadonlyPaths"];

/// The release that an inspected container is.
pub(super) fn release(inspect: &Value, digests: Vec<String>) -> Release {
    let image = text(&inspect["Image"]);
    let fingerprint = fingerprint(inspect);
    let label =
        |key: &str| inspect["Config"]["Labels"][key].as_str().filter(|v| !v.is_empty()).map(str::to_owned);
    Release {
        id: release_id(image, &fingerprint),
        image: ImageId::new(image),
        reference: text(&inspect["Config"]["Image"]).to_owned(),
        digests,
        version: label("org.opencontainers.image.version")
            .or_else(|| label("org.opencontainers.image.revision")),
        fingerprint,
    }
}

/// SHA-256, in hexadecimal, over what the deployer chose.
pub(super) fn fingerprint(inspect: &Value) -> String {
    let mut out = String::new();
    write(&chosen(inspect), &mut out);
    hex(&Sha256::digest(out.as_bytes()))
}

/// Where two containers differ in what was chosen, as paths; never values, which may be secrets.
pub(super) fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &chosen(one), &chosen(other), &mut found);
    found
}

/// Eight hexadecimal digits that stand for a text where only letters and digits may stand.
pub(in crate::runtime) fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())).chars().take(8).collect()
}

pub(in crate::runtime) fn release_id(image: &str, fingerprint: &str) -> ReleaseId {
    let digest = hex(&Sha256::digest(format!("{image}\n{fingerprint}").as_bytes()));
    ReleaseId::new(digest.get(..12).unwrap_or(&digest))
}

/// The part of an inspect answer that the deployer chose.
fn chosen(inspect: &Value) -> Value {
    let mut config = inspect["Config"].as_object().cloned().unwrap_or_default();
    let mut host = inspect["HostConfig"].as_object().cloned().unwrap_or_default();
    for key in CONFIG_OUT {
        config.remove(key);
    }
    for key in HOST_OUT {
        host.remove(key);
    }
    hostname(inspect, &mut config);
    if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !LABELS_OUT.contains(&key.as_str()));
        if let Some(depends_on) = labels.get_mut(DEPENDS_ON) {
            *depends_on = in_order(text(depends_on)).into();
        }
    }
    host.insert("Links".into(), links(&inspect["HostConfig"]["Links"]));
    for key in ["NetworkMode", "IpcMode", "PidMode"] {
        if let Some(mode) = host.get_mut(key) {
            *mode = namespace(text(mode)).into();
        }
    }
    volumes(&mut host);
    // Engines from 28 on refuse interface names here: a replay moves them to the endpoint.
    if let Some(sysctls) = host.get_mut("Sysctls").and_then(Value::as_object_mut) {
        sysctls.retain(|key, _| !key.contains(".eth"));
    }
    let mut all = Map::new();
    all.insert("Config".into(), prune(Value::Object(config)));
    all.insert("HostConfig".into(), prune(Value::Object(host)));
    Value::Object(all)
}

/// Compose writes what a service depends on in an order that differs from container to container.
fn in_order(depends_on: &str) -> String {
    let mut all: Vec<&str> = depends_on.split(',').collect();
    all.sort_unstable();
    all.join(",")
}

/// A host name that the engine made up, or takes from elsewhere at each start, is nobody's choice.
fn hostname(inspect: &Value, config: &mut Map<String, Value>) {
    let mode = text(&inspect["HostConfig"]["NetworkMode"]);
    let shared =
        mode == "host" || mode.starts_with("container:") || inspect["HostConfig"]["UTSMode"] == "host";
    let own = text(&inspect["Id"]).get(..12).unwrap_or_default();
    if shared || config.get("Hostname").is_some_and(|name| name == own) {
        config.remove("Hostname");
    }
    if mode.starts_with("container:") {
        config.remove("Domainname");
    }
}

/// `default` and `bridge` are one; ids of containers and networks change when those are replaced.
fn namespace(mode: &str) -> &str {
    match mode {
        "default" => "bridge",
        _ if mode.starts_with("container:") => "container:",
        _ if is_id(mode) => "network:",
        _ => mode,
    }
}

/// Inspect says `/target:/self/alias`, in any order; the own name is no choice.
fn links(links: &Value) -> Value {
    let mut all: Vec<String> =
        links.as_array().into_iter().flatten().filter_map(Value::as_str).map(link).collect();
    all.sort();
    all.into()
}

/// `/target:/self/alias` as create takes it: `target:alias`.
pub(super) fn link(inspected: &str) -> String {
    let (target, alias) = inspected.split_once(':').unwrap_or((inspected, inspected));
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    format!("{}:{alias}", target.trim_start_matches('/'))
}

/// Anonymous volumes are carried over by name, which the deployer did not choose.
fn volumes(host: &mut Map<String, Value>) {
    if let Some(binds) = host.get_mut("Binds").and_then(Value::as_array_mut) {
        binds.retain(|bind| !is_id(source(text(bind))));
    }
    for mount in host.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        if is_id(text(&mount["Source"]))
            && let Some(mount) = mount.as_object_mut()
        {
            mount.remove("Source");
        }
    }
    for from in host.get_mut("VolumesFrom").and_then(Value::as_array_mut).into_iter().flatten() {
        let (name, mode) = text(from).split_once(':').unwrap_or((text(from), ""));
        if is_id(name) {
            *from = format!("container:{mode}").into();
        }
    }
}

/// The left side of a bind.
pub(super) fn source(bind: &str) -> &str {
    bind.split(':').next().unwrap_or(bind)
}

/// Whether a text is a whole id or the name of an anonymous volume: 64 hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Takes out fields that say nothing. Elements of lists stay: an empty argument is an argument. So do members that
/// somebody named (a path, a port, a label): there it is the name that speaks, and only the engine's own fields begin
/// with a capital letter.
pub(in crate::runtime) fn prune(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().map(|(key, value)| (key, prune(value))).filter(|(key, value)| {
                let field = key.starts_with(|c: char| c.is_ascii_uppercase());
                let chosen_empty = EMPTY_MATTERS.contains(&key.as_str()) && value.is_array();
                !field || chosen_empty || !says_nothing(value)
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
        other => other,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Canonical JSON: members in the order of their names, no spaces.
pub(in crate::runtime) fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            out.push('{');
            let sorted: BTreeMap<_, _> = members.iter().collect();
            for (key, value) in sorted {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string())
        }
    }
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    if let (Some(a), Some(b)) = (one.as_object(), other.as_object()) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
        }
    } else if one != other {
        found.push(path.to_owned());
    }
}

pub(in crate::runtime) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "cb5ee1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c475997d";
    const VOLUME: &str = "0000e1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c4750000";

    fn inspect() -> Value {
        json!({
            "Id": ID, "Name": "/shop", "Image": "sha256:6d0f",
            "Config": {"Hostname": "cb5ee1b6243c", "Env": ["A=1", "B="], "Cmd": ["serve", ""], "Image": "shop:v1",
                       "Volumes": {"/data": {}}, "Labels": {"a": "b"}, "OnBuild": null, "AttachStdout": false},
            "HostConfig": {"Binds": null, "NetworkMode": "default", "Memory": 0, "PortBindings": {}, "Ulimits": [],
                           "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0],
                           "MaskedPaths": ["/proc/kcore"], "Links": ["/db:/shop/database", "/mq:/shop/mq"]},
        })
    }

    #[test]
    fn the_order_in_which_compose_names_dependencies_is_nobodys_choice() {
        let with = |depends_on: &str| json!({"Config": {"Labels": {DEPENDS_ON: depends_on}}});
        let (a, b) = (
            with("db:service_healthy:false,mq:service_started:true"),
            with("mq:service_started:true,db:service_healthy:false"),
        );
        assert_eq!(fingerprint(&a), fingerprint(&b));
        assert!(differences(&a, &b).is_empty());
        assert_ne!(fingerprint(&a), fingerprint(&with("db:service_healthy:false")));
    }

    #[test]
    fn what_engines_and_we_add_changes_nothing() {
        let first = inspect();
        let mut replay = inspect();
        replay["Id"] = json!("aaaaaaaaaaaa");
        replay["Name"] = json!("/shop.rbnew-1");
        replay["Config"]["Hostname"] = json!("aaaaaaaaaaaa");
        replay["Config"]["Image"] = json!("sha256:6d0f");
        replay["HostConfig"]["Binds"] = json!([format!("{VOLUME}:/data")]);
        replay["HostConfig"]["NetworkMode"] = json!("bridge");
        replay["HostConfig"]["Memory"] = json!(null);
        replay["HostConfig"]["Annotations"] = json!(null);
        replay["HostConfig"]["ConsoleSize"] = json!([30, 120]);
        replay["HostConfig"]["RestartPolicy"]["Name"] = json!("no");
        replay["HostConfig"]["Links"] = json!(["/mq:/shop.rbnew-1/mq", "/db:/shop.rbnew-1/database"]);
        assert_eq!(differences(&first, &replay), Vec::<String>::new());
        assert_eq!(fingerprint(&first), fingerprint(&replay));
    }

    #[test]
    fn every_choice_changes_it_and_is_named() {
        let changes: [(&str, &str, Value); 7] = [
            ("Config", "Env", json!(["A=2", "B="])),
            ("Config", "Env", json!(["B=", "A=1"])),
            ("Config", "Cmd", json!(["serve"])),
            ("Config", "Hostname", json!("shop")),
            ("HostConfig", "Memory", json!(1024)),
            ("HostConfig", "MaskedPaths", json!([])),
            ("HostConfig", "Binds", json!(["/srv:/data:ro"])),
        ];
        for (part, key, value) in changes {
            let mut changed = inspect();
            changed[part][key] = value;
            assert_ne!(fingerprint(&inspect()), fingerprint(&changed), "{key}");
            assert_eq!(differences(&inspect(), &changed), vec![format!("{part}.{key}")]);
        }
        let mut volumes = inspect();
        volumes["Config"]["Volumes"] = json!({"/data": {}, "/more": {}});
        assert_ne!(fingerprint(&inspect()), fingerprint(&volumes));
    }

    #[test]
    fn what_a_container_is_connected_to_is_no_release_unless_compose_deployed_it() {
        let mut connected = inspect();
        connected["NetworkSettings"] = json!({"Networks": {"back": {
            "Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.0.0.9"},
        }}});
        assert_eq!(fingerprint(&inspect()), fingerprint(&connected));
        connected["Config"]["Labels"]["com.docker.compose.config-hash"] = json!("another");
        assert_ne!(fingerprint(&inspect()), fingerprint(&connected));
    }

    #[test]
    fn differences_never_show_values() {
        let mut changed = inspect();
        changed["Config"]["Env"] = json!(["PASSWORD=hunter2"]);
        assert_eq!(differences(&inspect(), &changed).join(" "), "Config.Env");
    }

    #[test]
    fn the_identity_is_image_and_fingerprint() {
        let one = release(&inspect(), Vec::new());
        let mut other = inspect();
        other["Image"] = json!("sha256:0000");
        let other = release(&other, Vec::new());
        assert_eq!(one.fingerprint, other.fingerprint);
        assert_ne!(one.id, other.id);
        assert_eq!(one.id.as_str().len(), 12);
        assert_eq!(one.reference, "shop:v1");
    }

    #[test]
    fn replicas_of_one_compose_service_are_one_release() {
        let replica = |n: u32| {
            let mut inspect = inspect();
            inspect["Config"]["Labels"] =
                json!({"com.docker.compose.container-number": n.to_string(), "a": "b"});
            fingerprint(&inspect)
        };
        assert_eq!(replica(1), replica(2));
    }
}
