//! From a recorded container to the request that creates it again.
//!
//! Record, do not reconstruct: what was inspected is sent back byte for byte, but for the few fields that the engine
//! states in one form and takes in another. All of it is pure: whatever must be asked of the engine is in [`Facts`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fingerprint::{is_id, link, source};
use crate::runtime::Snapshot;

/// From this API version on, all networks and MAC addresses of further networks are given at create.
const ALL_NETWORKS: u32 = 44;
/// The keys of an endpoint that somebody chose; everything else in it is the engine's.
const ENDPOINT: [&str; 5] = ["IPAMConfig", "Aliases", "Links", "DriverOpts", "GwPriority"];
/// From this API version on, sysctls of interfaces are the endpoint's.
const ENDPOINT_SYSCTLS: u32 = 48;

/// What the engine says now, as far as a replay depends on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The negotiated API version is 1.`minor`.
    pub(super) minor: u32,
    /// `GET /info`.Name: a host-network container without a chosen name has it. Empty if it was not asked for.
    pub(super) host_name: String,
    /// The engine's architecture.
    pub(super) arch: String,
    /// Names of containers that the recorded one refers to, and their ids now.
    pub(super) containers: BTreeMap<String, String>,
    /// Networks by their recorded id that are still there.
    pub(super) networks: Vec<String>,
    /// Anonymous volumes to attach: destination, name, writable.
    pub(super) volumes: Vec<Carried>,
}

/// An anonymous volume that is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) destination: String,
    pub(super) name: String,
    pub(super) writable: bool,
}

/// What to send.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// The body of `POST /containers/create`.
    pub(super) body: Value,
    /// `os/arch[/variant]`, if the image is not the host's kind.
    pub(super) platform: Option<String>,
    /// Networks to connect before the start, with their endpoint.
    pub(super) connect: Vec<(String, Value)>,
    /// A network that create attaches although the container had left it.
    pub(super) disconnect: Option<String>,
    /// What differs from a faithful restore.
    pub(super) notes: Vec<String>,
}

/// What a recorded container refers to and that must be there before it is created: the engine checks little of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Networks, by name.
    pub(super) networks: Vec<String>,
    /// Static addresses: network, address.
    pub(super) addresses: Vec<(String, String)>,
    /// Named volumes.
    pub(super) volumes: Vec<String>,
    /// Containers, by name.
    pub(super) containers: Vec<String>,
}

/// What must be there.
pub(super) fn needs(snapshot: &Snapshot) -> Needs {
    let host = &snapshot.inspect["HostConfig"];
    let mut needs = Needs::default();
    if !shares_network(host) {
        for (name, endpoint) in endpoints(snapshot) {
            for key in ["IPv4Address", "IPv6Address"] {
                if let Some(address) = endpoint["IPAMConfig"][key].as_str().filter(|a| !a.is_empty()) {
                    needs.addresses.push((name.clone(), address.to_owned()));
                }
            }
            needs.networks.push(name);
        }
    }
    let binds = strings(&host["Binds"]).into_iter().map(|bind| source(&bind).to_owned());
    let mounts = host["Mounts"].as_array().into_iter().flatten();
    let mounts = mounts.filter(|m| m["Type"] == "volume").map(|m| string(&m["Source"]).to_owned());
    needs.volumes.extend(
        binds.chain(mounts).filter(|name| !name.is_empty() && !name.starts_with('/') && !is_id(name)),
    );
    needs.containers.extend(references(snapshot).into_values());
    let linked = strings(&host["Links"]).into_iter().map(|l| link(&l));
    needs.containers.extend(linked.filter_map(|l| l.split(':').next().map(str::to_owned)));
    needs.containers.sort();
    needs.containers.dedup();
    needs
}

/// Containers that the recorded one shares something with: recorded reference (id or name) and name.
pub(super) fn references(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let names = &snapshot.context["containers"];
    referred(&snapshot.inspect)
        .into_iter()
        .map(|reference| {
            let name = names[&reference].as_str().unwrap_or(&reference).to_owned();
            (reference, name)
        })
        .collect()
}

/// The references themselves, as an inspect answer states them.
pub(super) fn referred(inspect: &Value) -> Vec<String> {
    let host = &inspect["HostConfig"];
    let modes = ["NetworkMode", "IpcMode", "PidMode"]
        .iter()
        .filter_map(|key| host[*key].as_str()?.strip_prefix("container:"));
    let from = strings(&host["VolumesFrom"]);
    let from = from.iter().map(|entry| entry.split(':').next().unwrap_or(entry));
    modes.chain(from).map(str::to_owned).collect()
}

/// Destinations of the recorded container that hold an anonymous volume: (destination, recorded volume, writable).
pub(super) fn anonymous(inspect: &Value) -> Vec<Carried> {
    let own = own_destinations(inspect);
    volume_mounts(inspect).filter(|m| is_id(&m.name) && own.contains(&m.destination)).collect()
}

/// All volumes that an inspected container has mounted.
pub(super) fn volume_mounts(inspect: &Value) -> impl Iterator<Item = Carried> + '_ {
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    mounts.filter(|m| m["Type"] == "volume").map(|m| Carried {
        destination: trimmed(string(&m["Destination"])).to_owned(),
        name: string(&m["Name"]).to_owned(),
        writable: m["RW"] != false,
    })
}

/// The request that creates the container again.
pub(super) fn request(snapshot: &Snapshot, facts: &Facts) -> Request {
    let mut config = snapshot.inspect["Config"].as_object().cloned().unwrap_or_default();
    let mut host = snapshot.inspect["HostConfig"].as_object().cloned().unwrap_or_default();
    let mut notes = Vec::new();
    config.remove("OnBuild");
    host.remove("ContainerIDFile");
    hostname(snapshot, facts, &mut config);
    entrypoint(snapshot, &mut config);
    let recorded = &snapshot.inspect["HostConfig"];
    if string(&recorded["NetworkMode"]).starts_with("container:") {
        // Refused there, even when they only came with the image; `{}` may stay what it is.
        config.remove("ExposedPorts");
        host.remove("PublishAllPorts");
        if host.get("PortBindings").is_some_and(|p| p.as_object().is_some_and(|p| !p.is_empty())) {
            host.remove("PortBindings");
        }
    }
    let links: Vec<String> = strings(&recorded["Links"]).iter().map(|l| link(l)).collect();
    if !links.is_empty() {
        host.insert("Links".into(), links.into());
    }
    refer(snapshot, facts, &mut host);
    carry(facts, &mut host, &mut notes, snapshot);
    let sysctls = interface_sysctls(facts, &mut host);
    let networks = networks(snapshot, facts, &mut config, &mut host, sysctls.as_deref());
    let mut body = config;
    body.insert("HostConfig".into(), Value::Object(host));
    if !networks.at_create.is_empty() {
        body.insert("NetworkingConfig".into(), json!({ "EndpointsConfig": networks.at_create }));
    }
    Request {
        body: Value::Object(body),
        platform: platform(snapshot, facts),
        connect: networks.later,
        disconnect: networks.left,
        notes,
    }
}

/// A name that the engine made up must not be pinned: it would be that of a container that is gone.
fn hostname(snapshot: &Snapshot, facts: &Facts, config: &mut Map<String, Value>) {
    let host = &snapshot.inspect["HostConfig"];
    let own = string(&snapshot.inspect["Id"]).get(..12).unwrap_or_default();
    let name = config.get("Hostname").and_then(Value::as_str).unwrap_or_default();
    let mode = string(&host["NetworkMode"]);
    let refused = host["UTSMode"] == "host" || mode.starts_with("container:");
    if refused || name == own || (mode == "host" && name == facts.host_name) {
        config.remove("Hostname");
    }
}

/// An entrypoint that was cleared over the image's own is said by `[""]`: nothing would bring the image's back.
fn entrypoint(snapshot: &Snapshot, config: &mut Map<String, Value>) {
    let image_has = snapshot.image["Config"]["Entrypoint"].as_array().is_some_and(|e| !e.is_empty());
    let cleared = config.get("Entrypoint").is_none_or(|e| e.as_array().is_none_or(Vec::is_empty));
    if cleared && image_has {
        config.insert("Entrypoint".into(), json!([""]));
    }
}

/// Puts today's ids in place of those of containers that were replaced since.
fn refer(snapshot: &Snapshot, facts: &Facts, host: &mut Map<String, Value>) {
    let names = references(snapshot);
    let now = |reference: &str| {
        let name = names.get(reference).map_or(reference, String::as_str);
        facts.containers.get(name).cloned().unwrap_or_else(|| reference.to_owned())
    };
    for key in ["NetworkMode", "IpcMode", "PidMode"] {
        if let Some(reference) =
            host.get(key).and_then(Value::as_str).and_then(|m| m.strip_prefix("container:"))
        {
            let mode = format!("container:{}", now(reference));
            host.insert(key.into(), mode.into());
        }
    }
    if let Some(all) = host.get_mut("VolumesFrom").and_then(Value::as_array_mut) {
        for entry in all {
            let (name, mode) =
                entry.as_str().unwrap_or_default().split_once(':').unwrap_or((string(entry), ""));
            // A name stays a name: it is what its deployer wrote.
            if is_id(name) {
                let name = now(name);
                *entry = if mode.is_empty() { name.into() } else { format!("{name}:{mode}").into() };
            }
        }
    }
}

/// Attaches anonymous volumes by name: a plain replay would create new, empty ones.
fn carry(facts: &Facts, host: &mut Map<String, Value>, notes: &mut Vec<String>, snapshot: &Snapshot) {
    // What an earlier replay attached by name is anonymous all the same.
    if let Some(binds) = host.get_mut("Binds").and_then(Value::as_array_mut) {
        binds.retain(|bind| !is_id(source(string(bind))));
    }
    for volume in &facts.volumes {
        let mounts = host.get_mut("Mounts").and_then(Value::as_array_mut);
        let entry = mounts
            .into_iter()
            .flatten()
            .find(|m| m["Type"] == "volume" && trimmed(string(&m["Target"])) == volume.destination);
        if let Some(entry) = entry.and_then(Value::as_object_mut) {
            entry.insert("Source".into(), volume.name.as_str().into());
            continue;
        }
        let mode = if volume.writable { "" } else { ":ro" };
        let bind = Value::from(format!("{}:{}{mode}", volume.name, volume.destination));
        match host.get_mut("Binds").and_then(Value::as_array_mut) {
            Some(binds) => binds.push(bind),
            None => {
                host.insert("Binds".into(), json!([bind]));
            }
        }
    }
    let auto_remove = host.get("AutoRemove").is_some_and(|v| v == true);
    if auto_remove && !facts.volumes.is_empty() {
        notes.push("its anonymous volumes are kept when it is removed, until `docker volume prune`".into());
    }
    for lost in anonymous(&snapshot.inspect) {
        if !facts.volumes.iter().any(|v| v.destination == lost.destination) {
            notes.push(format!("the anonymous volume at {} is gone: it begins empty", lost.destination));
        }
    }
}

/// Takes sysctls of `eth0` out of a recorded container, for engines that take them only from the endpoint.
fn interface_sysctls(facts: &Facts, host: &mut Map<String, Value>) -> Option<String> {
    if facts.minor < ENDPOINT_SYSCTLS {
        return None;
    }
    let sysctls = host.get_mut("Sysctls").and_then(Value::as_object_mut)?;
    let keys: Vec<String> = sysctls.keys().filter(|k| k.contains(".eth0.")).cloned().collect();
    let moved: Vec<String> = keys
        .into_iter()
        .filter_map(|key| {
            let value = sysctls.remove(&key)?;
            Some(format!("{}={}", key.replace(".eth0.", ".IFNAME."), string(&value)))
        })
        .collect();
    (!moved.is_empty()).then(|| moved.join(","))
}

#[derive(Default)]
struct Networks {
    at_create: Map<String, Value>,
    later: Vec<(String, Value)>,
    left: Option<String>,
}

fn networks(
    snapshot: &Snapshot,
    facts: &Facts,
    config: &mut Map<String, Value>,
    host: &mut Map<String, Value>,
    sysctls: Option<&str>,
) -> Networks {
    let mut out = Networks::default();
    let mac = config.get("MacAddress").and_then(Value::as_str).unwrap_or_default().to_owned();
    if shares_network(&snapshot.inspect["HostConfig"]) {
        return out;
    }
    let all_at_create = facts.minor >= ALL_NETWORKS;
    if all_at_create {
        config.remove("MacAddress");
    }
    let main = main_network(snapshot, facts, host);
    let mut attached = false;
    for (name, recorded) in endpoints(snapshot) {
        let is_main = name == main.name;
        attached |= is_main;
        let mut endpoint = endpoint(snapshot, &name, &recorded, is_main);
        if all_at_create {
            let own = further_mac(snapshot, &recorded).filter(|_| !is_main);
            if let Some(mac) = own.or_else(|| (is_main && !mac.is_empty()).then(|| mac.clone())) {
                endpoint.insert("MacAddress".into(), mac.into());
            }
        }
        if let Some(sysctls) = sysctls.filter(|_| is_main) {
            let options = endpoint.entry("DriverOpts").or_insert_with(|| json!({}));
            if options.is_null() {
                *options = json!({});
            }
            options["com.docker.network.endpoint.sysctls"] = sysctls.into();
        }
        let key = if is_main { main.key.clone() } else { name };
        if all_at_create || is_main {
            out.at_create.insert(key, Value::Object(endpoint));
        } else {
            out.later.push((key, Value::Object(endpoint)));
        }
    }
    // It was created in a network that it has left since: older engines attach it there all the same.
    if !attached && !all_at_create {
        out.left = Some(main.key);
    }
    out
}

struct Main {
    /// The name under which its endpoint is recorded.
    name: String,
    /// The key that create takes for it: what `NetworkMode` says.
    key: String,
}

/// The network that `NetworkMode` names: by name, by an id that may be gone, or as the default.
fn main_network(snapshot: &Snapshot, facts: &Facts, host: &mut Map<String, Value>) -> Main {
    let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default().to_owned();
    if matches!(mode.as_str(), "" | "default" | "bridge") {
        if facts.minor >= ALL_NETWORKS {
            host.insert("NetworkMode".into(), "bridge".into());
        }
        return Main { name: "bridge".into(), key: "bridge".into() };
    }
    let recorded =
        endpoints(snapshot).into_iter().find(|(name, e)| *name == mode || e["NetworkID"] == mode.as_str());
    let name = recorded.map_or_else(|| mode.clone(), |(name, _)| name);
    if is_id(&mode) && !facts.networks.contains(&mode) {
        host.insert("NetworkMode".into(), name.as_str().into());
        return Main { key: name.clone(), name };
    }
    Main { name, key: mode }
}

/// What was chosen of an endpoint.
fn endpoint(snapshot: &Snapshot, name: &str, recorded: &Value, is_main: bool) -> Map<String, Value> {
    let mut kept = Map::new();
    for key in ENDPOINT {
        if let Some(value) = recorded.get(key).filter(|v| !v.is_null()) {
            kept.insert(key.into(), value.clone());
        }
    }
    if is_main && name == "bridge" {
        // Refused at create by some engines, at start by others.
        kept.remove("Aliases");
    }
    let own = string(&snapshot.inspect["Id"]).get(..12).unwrap_or_default();
    // Docker 25 speaks at most 1.44 and lists the host name, which newer and older engines do not.
    let twenty_five = snapshot.context["api"].as_u64() == Some(44);
    let hostname = if twenty_five { string(&snapshot.inspect["Config"]["Hostname"]) } else { own };
    let aliases: Vec<String> = kept
        .get("Aliases")
        .map(strings)
        .unwrap_or_default()
        .into_iter()
        .filter(|a| a != own && a != hostname)
        .collect();
    let none = kept.remove("Aliases").is_some_and(|a| a.as_array().is_some_and(Vec::is_empty));
    if none || !aliases.is_empty() {
        kept.insert("Aliases".into(), aliases.into());
    }
    kept
}

/// The MAC address of a further network, if somebody chose it. Engines below 28 derive theirs from the address, newer
/// ones draw them at random with the bit for "locally administered" set; replaying a generated one collides later.
fn further_mac(snapshot: &Snapshot, recorded: &Value) -> Option<String> {
    let mac = recorded["MacAddress"].as_str().filter(|m| !m.is_empty())?;
    let major = snapshot.context["engine"].as_str()?.split('.').next()?.parse::<u32>().ok()?;
    let first = u8::from_str_radix(mac.get(..2)?, 16).ok()?;
    let chosen = if major >= 28 { first & 2 == 0 } else { Some(mac.to_lowercase()) != derived(recorded) };
    chosen.then(|| mac.to_owned())
}

fn derived(recorded: &Value) -> Option<String> {
    let address: std::net::Ipv4Addr = recorded["IPAddress"].as_str()?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
}

fn platform(snapshot: &Snapshot, facts: &Facts) -> Option<String> {
    let arch = snapshot.image["Architecture"].as_str().filter(|a| !a.is_empty() && *a != facts.arch)?;
    let os = snapshot.image["Os"].as_str().filter(|os| !os.is_empty()).unwrap_or("linux");
    let variant = snapshot.image["Variant"].as_str().filter(|v| !v.is_empty());
    Some(variant.map_or_else(|| format!("{os}/{arch}"), |variant| format!("{os}/{arch}/{variant}")))
}

fn shares_network(host: &Value) -> bool {
    let mode = string(&host["NetworkMode"]);
    matches!(mode, "host" | "none") || mode.starts_with("container:")
}

fn endpoints(snapshot: &Snapshot) -> Vec<(String, Value)> {
    let all = snapshot.inspect["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    all.map(|(name, endpoint)| (name.clone(), endpoint.clone())).collect()
}

/// Destinations at which the container itself asked for a volume: what comes by `volumes_from` is not its own.
fn own_destinations(inspect: &Value) -> Vec<String> {
    let volumes = inspect["Config"]["Volumes"].as_object().into_iter().flat_map(|v| v.keys().cloned());
    let mounts = inspect["HostConfig"]["Mounts"].as_array().into_iter().flatten();
    let mounts = mounts.map(|m| string(&m["Target"]).to_owned());
    volumes.chain(mounts).map(|d| trimmed(&d).to_owned()).collect()
}

fn trimmed(path: &str) -> &str {
    if path.len() > 1 { path.trim_end_matches('/') } else { path }
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
