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
/// The namespaces of which a container may share those of another one.
pub(super) const MODES: [&str; 3] = ["NetworkMode", "IpcMode", "PidMode"];
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
    /// It is Podman.
    pub(super) podman: bool,
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
    let own = own_destinations(&snapshot.inspect);
    let binds = strings(&host["Binds"]).into_iter().filter(|bind| !is_carried(bind, &own));
    let binds = binds.map(|bind| source(&bind).to_owned());
    let mounts = host["Mounts"].as_array().into_iter().flatten();
    let mounts = mounts.filter(|m| m["Type"] == "volume").map(|m| string(&m["Source"]).to_owned());
    let mounts = mounts.filter(|name| !is_id(name));
    needs.volumes.extend(binds.chain(mounts).filter(|name| !name.is_empty() && !name.starts_with('/')));
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
    let modes = MODES.iter().filter_map(|key| host[*key].as_str()?.strip_prefix("container:"));
    let from = strings(&host["VolumesFrom"]);
    let from = from.iter().map(|entry| entry.split(':').next().unwrap_or(entry));
    modes.chain(from).map(str::to_owned).collect()
}

/// Destinations of the recorded container that hold an anonymous volume: (destination, recorded volume, writable).
pub(super) fn anonymous(inspect: &Value) -> Vec<Carried> {
    let own = own_destinations(inspect);
    volume_mounts(inspect).filter(|m| is_id(&m.name) && own.contains(&m.destination)).collect()
}

/// Takes the names of its anonymous volumes out of the specification of a container, so that others made by it get their own.
/// Which they were is still in its mounts.
pub(super) fn forget_anonymous(inspect: &mut Value) {
    let own = own_destinations(inspect);
    if let Some(binds) = inspect["HostConfig"]["Binds"].as_array_mut() {
        binds.retain(|bind| !is_carried(string(bind), &own));
    }
    for mount in inspect["HostConfig"]["Mounts"].as_array_mut().into_iter().flatten() {
        if mount["Type"] == "volume"
            && is_id(string(&mount["Source"]))
            && let Some(mount) = mount.as_object_mut()
        {
            mount.remove("Source");
        }
    }
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
    let mut notes = super::podman::notes(&snapshot.context);
    notes.extend(super::copied::notes(&snapshot.context));
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
    for key in MODES {
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
    // What an earlier replay attached by name is anonymous all the same. One that somebody attached where the container
    // asks for none of its own is theirs, whatever it is called.
    let own = own_destinations(&snapshot.inspect);
    if let Some(binds) = host.get_mut("Binds").and_then(Value::as_array_mut) {
        binds.retain(|bind| !is_carried(string(bind), &own));
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
    // Podman has always taken them all, whatever version it says.
    let all_at_create = facts.minor >= ALL_NETWORKS || facts.podman;
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
pub(super) fn further_mac(snapshot: &Snapshot, recorded: &Value) -> Option<String> {
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

/// Whether a bind attaches an anonymous volume where the container itself asked for one.
fn is_carried(bind: &str, own: &[String]) -> bool {
    let destination = trimmed(bind.split(':').nth(1).unwrap_or_default());
    is_id(source(bind)) && own.iter().any(|known| known == destination)
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "cb5ee1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c475997d";
    const OTHER: &str = "6f965b7749e4857d50171b4bdf43c649c3ba14bc0a500cc10895277719fd76fd";
    const VOLUME: &str = "0000e1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c4750000";

    /// As Docker 26.1 (API 1.45) inspects it, shortened to what a replay looks at.
    fn snapshot() -> Snapshot {
        let inspect = json!({
            "Id": ID, "Name": "/shop", "Image": "sha256:6d0f",
            "Config": {"Hostname": "cb5ee1b6243c", "Env": ["A=1"], "Cmd": ["serve"], "Entrypoint": null,
                       "Image": "shop:v1", "Volumes": {"/data": {}}, "MacAddress": "92:d0:c6:0a:29:33",
                       "OnBuild": null, "SomethingNew": [1, null]},
            "HostConfig": {"Binds": ["named:/n:ro"], "NetworkMode": "front", "ContainerIDFile": "/x",
                           "MaskedPaths": [], "Links": ["/db:/shop/database"], "AutoRemove": false},
            "Mounts": [{"Type": "volume", "Name": VOLUME, "Destination": "/data", "RW": true},
                       {"Type": "volume", "Name": "named", "Destination": "/n", "RW": false}],
            "NetworkSettings": {"Networks": {
                "front": {"IPAMConfig": {"IPv4Address": "10.2.0.9"}, "Aliases": ["shop", "cb5ee1b6243c"],
                          "MacAddress": "92:d0:c6:0a:29:33", "IPAddress": "10.2.0.9", "NetworkID": OTHER,
                          "DNSNames": ["shop"], "Gateway": "10.2.0.1"},
                "back": {"IPAMConfig": null, "Aliases": ["b"], "MacAddress": "02:42:0a:01:00:02", "IPAddress": "10.1.0.2"},
            }},
        });
        let context = json!({"engine": "26.1.5", "api": 45, "containers": {}});
        let image = json!({"Config": {"Entrypoint": ["/run"]}, "Os": "linux", "Architecture": "arm64", "Variant": "v8"});
        Snapshot { name: "shop".into(), inspect, image, context }
    }

    fn facts(minor: u32) -> Facts {
        let carried = Carried { destination: "/data".into(), name: VOLUME.into(), writable: true };
        Facts { minor, arch: "arm64".into(), volumes: vec![carried], ..Facts::default() }
    }

    #[test]
    fn what_was_recorded_is_sent_but_for_what_the_engine_takes_in_another_form() {
        let body = request(&snapshot(), &facts(45)).body;
        assert_eq!(body["SomethingNew"], json!([1, null]), "unknown fields are replayed");
        assert_eq!(body["HostConfig"]["MaskedPaths"], json!([]), "an empty list is no null");
        assert_eq!(body["Entrypoint"], json!([""]), "cleared over the image's own");
        assert_eq!(body["HostConfig"]["Links"], json!(["db:database"]));
        assert_eq!(body["HostConfig"]["Binds"], json!(["named:/n:ro", format!("{VOLUME}:/data")]));
        for gone in ["Hostname", "OnBuild", "MacAddress"] {
            assert!(body.get(gone).is_none(), "{gone}");
        }
        assert!(body["HostConfig"].get("ContainerIDFile").is_none());
    }

    /// What is end to end in `tests/engine/fidelity.rs` and `steps.rs` for all other fields needs something of its machine here.
    #[test]
    fn fields_that_cannot_be_tried_on_any_machine_are_sent_as_they_were_inspected() {
        let gpus =
            json!({"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}});
        let cdi = json!({"Driver": "cdi", "Count": 0, "DeviceIDs": ["acme.com/gpu=0"], "Capabilities": null, "Options": null});
        let of_the_host = [
            // Without XFS with project quotas the engine refuses to create it.
            ("StorageOpt", json!({"size": "10G"})),
            // Engines from 25 on, with a driver.
            ("DeviceRequests", json!([gpus, cdi])),
            // A kernel that schedules groups in real time, else it is refused or does not start.
            ("CpuRealtimePeriod", json!(1_000_000)),
            ("CpuRealtimeRuntime", json!(950_000)),
            // What disks are called is the machine's, and the engine leaves out what its kernel cannot limit.
            ("BlkioDeviceReadBps", json!([{"Path": "/dev/sda", "Rate": 1_048_576}])),
            ("BlkioDeviceWriteIOps", json!([{"Path": "/dev/sda", "Rate": 100}])),
            ("BlkioWeightDevice", json!([{"Path": "/dev/sda", "Weight": 200}])),
            // There is no option of `docker` for it.
            ("KernelMemoryTCP", json!(67_108_864)),
            // It is that of whoever's terminal created it.
            ("ConsoleSize", json!([40, 120])),
            // An engine that maps users, or mounts that are shared with the host.
            ("UsernsMode", json!("host")),
            (
                "Mounts",
                json!([{"Type": "bind", "Source": "/srv", "Target": "/srv",
                               "BindOptions": {"Propagation": "rslave", "NonRecursive": true}}]),
            ),
        ];
        // With `docker create -i` somebody is attached; a variable without a value comes by the API alone.
        let of_the_program = [("StdinOnce", json!(true)), ("Env", json!(["A=1", "NO_VALUE"]))];
        let mut asked = snapshot();
        for (part, fields) in [("HostConfig", &of_the_host[..]), ("Config", &of_the_program[..])] {
            for (field, value) in fields {
                asked.inspect[part][*field] = value.clone();
            }
        }
        for minor in [41, 45, 51] {
            let body = request(&asked, &facts(minor)).body;
            for (field, value) in &of_the_host {
                assert_eq!(body["HostConfig"][*field], *value, "{field} at 1.{minor}");
            }
            for (field, value) in &of_the_program {
                assert_eq!(body[*field], *value, "{field} at 1.{minor}");
            }
        }
    }

    #[test]
    fn newer_engines_get_all_networks_at_create() {
        let request = request(&snapshot(), &facts(45));
        let endpoints = &request.body["NetworkingConfig"]["EndpointsConfig"];
        let front = json!({"IPAMConfig": {"IPv4Address": "10.2.0.9"}, "Aliases": ["shop"], "MacAddress": "92:d0:c6:0a:29:33"});
        assert_eq!(endpoints["front"], front);
        assert_eq!(endpoints["back"], json!({"Aliases": ["b"]}), "a derived MAC address is not replayed");
        assert!(request.connect.is_empty());
    }

    #[test]
    fn older_engines_get_one_network_and_are_connected_to_the_rest() {
        let request = request(&snapshot(), &facts(41));
        assert_eq!(request.body["MacAddress"], "92:d0:c6:0a:29:33");
        let endpoints = request.body["NetworkingConfig"]["EndpointsConfig"].as_object().unwrap();
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["front"]);
        assert_eq!(request.connect, [("back".to_owned(), json!({"Aliases": ["b"]}))]);
    }

    #[test]
    fn a_network_that_was_left_is_left_again() {
        let mut left = snapshot();
        left.inspect["NetworkSettings"]["Networks"].as_object_mut().unwrap().remove("front");
        assert_eq!(request(&left, &facts(41)).disconnect.as_deref(), Some("front"));
        assert_eq!(request(&left, &facts(45)).disconnect, None, "it is not attached in the first place");
    }

    #[test]
    fn mac_addresses_of_further_networks_are_kept_if_somebody_chose_them() {
        let mac = |engine: &str, mac: &str| {
            let mut snapshot = snapshot();
            snapshot.context["engine"] = engine.into();
            snapshot.inspect["NetworkSettings"]["Networks"]["back"]["MacAddress"] = mac.into();
            let endpoints =
                request(&snapshot, &facts(45)).body["NetworkingConfig"]["EndpointsConfig"].clone();
            endpoints["back"]["MacAddress"].as_str().map(str::to_owned)
        };
        assert_eq!(mac("26.1.5", "02:42:0a:01:00:02"), None, "made from the address");
        assert_eq!(mac("26.1.5", "02:42:ac:11:65:43").as_deref(), Some("02:42:ac:11:65:43"));
        assert_eq!(mac("28.5.2", "8a:00:11:22:33:44"), None, "drawn at random");
        assert_eq!(mac("28.5.2", "00:16:3e:22:33:44").as_deref(), Some("00:16:3e:22:33:44"));
    }

    #[test]
    fn shared_namespaces_follow_the_container_and_not_its_old_id() {
        let mut shared = snapshot();
        shared.inspect["HostConfig"]["NetworkMode"] = format!("container:{OTHER}").into();
        shared.inspect["HostConfig"]["VolumesFrom"] = json!(["store:ro"]);
        shared.inspect["HostConfig"]["PortBindings"] = json!({});
        shared.inspect["Config"]["ExposedPorts"] = json!({"80/tcp": {}});
        shared.context["containers"] = json!({ OTHER: "proxy" });
        let mut now = facts(45);
        now.containers = [("proxy".to_owned(), ID.to_owned())].into();
        let body = request(&shared, &now).body;
        assert_eq!(body["HostConfig"]["NetworkMode"], format!("container:{ID}"));
        assert_eq!(body["HostConfig"]["VolumesFrom"], json!(["store:ro"]), "a name stays a name");
        assert!(body.get("ExposedPorts").is_none() && body.get("NetworkingConfig").is_none());
        assert_eq!(needs(&shared).containers, ["db", "proxy", "store"]);
    }

    #[test]
    fn a_volume_that_is_gone_is_said() {
        let mut now = facts(45);
        now.volumes.clear();
        let request = request(&snapshot(), &now);
        assert_eq!(request.notes, ["the anonymous volume at /data is gone: it begins empty"]);
    }

    #[test]
    fn a_volume_with_an_anonymous_name_that_somebody_attached_stays_attached() {
        let mut reattached = snapshot();
        let theirs = format!("{OTHER}:/srv:ro");
        reattached.inspect["HostConfig"]["Binds"] = json!([theirs, format!("{OTHER}:/data")]);
        let body = request(&reattached, &facts(45)).body;
        assert_eq!(body["HostConfig"]["Binds"], json!([theirs, format!("{VOLUME}:/data")]));
        assert_eq!(needs(&reattached).volumes, [OTHER], "without it, an empty one would take its place");
    }

    #[test]
    fn an_anonymous_volume_of_a_mount_is_its_source() {
        let mut mounted = snapshot();
        mounted.inspect["HostConfig"]["Mounts"] = json!([{"Type": "volume", "Target": "/data/"}]);
        let body = request(&mounted, &facts(45)).body;
        assert_eq!(body["HostConfig"]["Mounts"][0]["Source"], VOLUME);
        assert_eq!(body["HostConfig"]["Binds"], json!(["named:/n:ro"]));
    }

    #[test]
    fn sysctls_of_an_interface_move_to_its_endpoint_where_the_engine_wants_them() {
        let mut tuned = snapshot();
        tuned.inspect["HostConfig"]["Sysctls"] =
            json!({"net.ipv4.conf.eth0.log_martians": "1", "net.core.somaxconn": "9"});
        let body = request(&tuned, &facts(51)).body;
        assert_eq!(body["HostConfig"]["Sysctls"], json!({"net.core.somaxconn": "9"}));
        let options = &body["NetworkingConfig"]["EndpointsConfig"]["front"]["DriverOpts"];
        assert_eq!(options["com.docker.network.endpoint.sysctls"], "net.ipv4.conf.IFNAME.log_martians=1");
    }

    #[test]
    fn a_foreign_platform_is_named() {
        assert_eq!(request(&snapshot(), &facts(45)).platform, None);
        let mut other = facts(45);
        other.arch = "amd64".into();
        assert_eq!(request(&snapshot(), &other).platform.as_deref(), Some("linux/arm64/v8"));
    }

    #[test]
    fn what_must_be_there_is_known_beforehand() {
        let needs = needs(&snapshot());
        assert_eq!(needs.networks, ["front", "back"]);
        assert_eq!(needs.volumes, ["named"]);
        assert_eq!(needs.addresses, [("front".to_owned(), "10.2.0.9".to_owned())]);
    }
}
