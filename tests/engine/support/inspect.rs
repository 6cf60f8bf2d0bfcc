//! What of a container's specification changed between two looks, beside what has to change.

use serde_json::Value;

/// State, identity and addresses: they belong to one container and one run of it, not to its specification.
const OWN: [&str; 16] = [
    "/Id",
    "/Created",
    "/State",
    "/RestartCount",
    "/LogPath",
    "/ResolvConfPath",
    "/HostnamePath",
    "/HostsPath",
    "/GraphDriver",
    "/ExecIDs",
    "/NetworkSettings/SandboxID",
    "/NetworkSettings/SandboxKey",
    "/NetworkSettings/EndpointID",
    "/NetworkSettings/IPAddress",
    "/NetworkSettings/MacAddress",
    "/NetworkSettings/Ports",
];

/// The same of each network that it is in. A configured address stays in `IPAMConfig`, which is compared.
/// A network has a new id after each start of the engine; which one it is says its name.
const OWN_OF_A_NETWORK: [&str; 6] =
    ["NetworkID", "EndpointID", "IPAddress", "MacAddress", "DNSNames", "GlobalIPv6Address"];

/// One line for each difference; empty if the two are the same container but for what must differ.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &specification(before), &specification(after), &mut found);
    found
}

fn specification(inspect: &Value) -> Value {
    let mut inspect = inspect.clone();
    let id: String = inspect["Id"].as_str().unwrap_or_default().chars().take(12).collect();
    for path in OWN {
        let (parent, key) = path.rsplit_once('/').unwrap_or_default();
        if let Some(Value::Object(parent)) = inspect.pointer_mut(parent) {
            parent.remove(key);
        }
    }
    // The engine's own choice of a name is the container's own id.
    if inspect["Config"]["Hostname"] == id {
        inspect["Config"]["Hostname"] = Value::Null;
    }
    if let Some(Value::Object(networks)) = inspect.pointer_mut("/NetworkSettings/Networks") {
        for network in networks.values_mut().filter_map(Value::as_object_mut) {
            for key in OWN_OF_A_NETWORK {
                network.remove(key);
            }
            if let Some(Value::Array(aliases)) = network.get_mut("Aliases") {
                aliases.retain(|alias| *alias != id);
            }
        }
    }
    name_no_anonymous_volume(&mut inspect);
    inspect
}

/// An anonymous volume is carried over by its name: what was "a volume of its own" is told as a bind of that volume,
/// with the same contents at the same place. That there is such a volume, where, and whether writable, is compared.
fn name_no_anonymous_volume(inspect: &mut Value) {
    if let Some(Value::Array(binds)) = inspect.pointer_mut("/HostConfig/Binds") {
        binds.retain(|bind| {
            !bind.as_str().is_some_and(|bind| is_anonymous(bind.split(':').next().unwrap_or_default()))
        });
        if binds.is_empty() {
            inspect["HostConfig"]["Binds"] = Value::Null;
        }
    }
    if let Some(Value::Array(mounts)) = inspect.pointer_mut("/HostConfig/Mounts") {
        for mount in mounts.iter_mut().filter_map(Value::as_object_mut) {
            mount.retain(|key, value| key != "Source" || !value.as_str().is_some_and(is_anonymous));
        }
    }
    if let Some(Value::Array(mounts)) = inspect.get_mut("Mounts") {
        for mount in mounts.iter_mut().filter_map(Value::as_object_mut) {
            if mount.get("Name").and_then(Value::as_str).is_some_and(is_anonymous) {
                mount.retain(|key, _| !["Name", "Source", "Mode"].contains(&key.as_str()));
            }
        }
        // The engine lists them in no particular order.
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
}

fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.chars().all(|c| c.is_ascii_hexdigit())
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                let missing = &Value::String("(absent)".to_owned());
                let (left, right) = (left.get(key).unwrap_or(missing), right.get(key).unwrap_or(missing));
                compare(&format!("{path}/{key}"), left, right, found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {before} -> {after}")),
    }
}

mod tests {
    use super::differences;
    use serde_json::json;

    #[test]
    fn only_what_belongs_to_the_specification_is_compared() {
        let before = json!({"Id": "0123456789abcdef", "State": {"Pid": 1}, "Config": {"Hostname": "0123456789ab", "Env": ["A=1"]},
            "NetworkSettings": {"IPAddress": "10.0.0.2", "Networks": {"n": {"Aliases": ["web", "0123456789ab"], "IPAddress": "10.0.0.2"}}}});
        let mut after = json!({"Id": "fedcba9876543210", "State": {"Pid": 2}, "Config": {"Hostname": "fedcba987654", "Env": ["A=1"]},
            "NetworkSettings": {"IPAddress": "10.0.0.3", "Networks": {"n": {"Aliases": ["web", "fedcba987654"], "IPAddress": "10.0.0.3"}}}});
        assert_eq!(differences(&before, &after), Vec::<String>::new());
        after["Config"]["Env"] = json!(["A=2"]);
        after["HostConfig"] = json!({"Init": true});
        assert_eq!(differences(&before, &after).len(), 2);
    }
}
