//! Podman, which speaks Docker's API in its own way: what it says otherwise is put into Docker's words as it comes in,
//! so that the rest need not know; and what it does not say at all is asked of its own API, or said to be lost.
//!
//! Measured with Podman 4.3. It must never make two containers look alike that were started differently: what is taken
//! out here is what Podman adds by itself.

use serde_json::{Map, Value, json};

use super::fingerprint::{is_id, source};
use crate::runtime::RuntimeError;
use crate::runtime::engine::{Engine, permanent};

/// What is different with Podman, for the log at start-up.
pub(super) const LIMITS: &str = "the engine is Podman: containers of pods and of systemd units are left alone; what \
    Podman's Docker-compatible API does not carry (umask, sd-notify, a fixed MAC address, an address fixed through \
    that API) is not put back; its HEALTHCHECKs need systemd; a container that cannot start at all looks like one that \
    was only created";
/// What its Docker-compatible API gives every container.
const API_UMASK: &str = "0000";

/// Puts an inspect answer into the words that Docker would use.
pub(super) fn in_docker_words(inspect: &mut Value) {
    let own: String = inspect["Id"].as_str().unwrap_or_default().chars().take(12).collect();
    if let Some(status) = inspect["State"]["Status"].as_str() {
        let status = match status {
            "configured" | "initialized" => "created",
            "stopped" | "stopping" => "exited",
            other => other,
        };
        inspect["State"]["Status"] = Value::from(status);
    }
    let networks = networks(inspect);
    let anonymous = anonymous(inspect);
    if let Some(config) = inspect["Config"].as_object_mut() {
        environment(config, &own);
        no_health_check(config);
        volumes(config, anonymous);
    }
    if let Some(host) = inspect["HostConfig"].as_object_mut() {
        resources(host);
        // Its word for every network of its own making, whichever it is.
        if host.get("NetworkMode").is_some_and(|mode| mode == "bridge")
            && let Some(first) = networks.first()
        {
            host.insert("NetworkMode".into(), first.as_str().into());
        }
    }
}

/// Takes the addresses of network cards out, which are drawn anew for each container and told apart from chosen ones by
/// nothing. Yields the networks' names.
fn networks(inspect: &mut Value) -> Vec<String> {
    let Some(networks) = inspect["NetworkSettings"]["Networks"].as_object_mut() else { return Vec::new() };
    for endpoint in networks.values_mut().filter_map(Value::as_object_mut) {
        endpoint.remove("MacAddress");
    }
    let mut names: Vec<String> = networks.keys().cloned().collect();
    names.sort();
    names
}

/// Its variables are a set in no order, to which it adds the name that it gave the container.
fn environment(config: &mut Map<String, Value>, own: &str) {
    let Some(all) = config.get_mut("Env").and_then(Value::as_array_mut) else { return };
    let given = format!("HOSTNAME={own}");
    all.retain(|variable| *variable != given.as_str());
    all.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
}

/// `NONE` comes back with intervals that nobody chose.
fn no_health_check(config: &mut Map<String, Value>) {
    let Some(check) = config.get_mut("Healthcheck").and_then(Value::as_object_mut) else { return };
    if check.get("Test").is_some_and(|test| test[0] == "NONE") {
        check.retain(|key, _| key == "Test");
    }
}

/// Anonymous volumes are shown as binds of a volume only.
fn anonymous(inspect: &Value) -> Vec<String> {
    let binds = inspect["HostConfig"]["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = binds.filter(|bind| is_id(source(bind)));
    own.filter_map(|bind| bind.split(':').nth(1).map(str::to_owned)).collect()
}

fn volumes(config: &mut Map<String, Value>, anonymous: Vec<String>) {
    if anonymous.is_empty() {
        return;
    }
    let all: Map<String, Value> = anonymous.into_iter().map(|path| (path, json!({}))).collect();
    config.insert("Volumes".into(), Value::Object(all));
}

fn resources(host: &mut Map<String, Value>) {
    // Not chosen is 0 or -1; sent back, it is taken for a choice, and refused on cgroup v2.
    if host.get("MemorySwappiness").and_then(Value::as_i64).is_some_and(|n| n <= 0) {
        host.insert("MemorySwappiness".into(), Value::Null);
    }
    // It states a share of CPUs in two ways, and takes only one of them.
    if host.get("CpuQuota").and_then(Value::as_i64).is_some_and(|n| n > 0) {
        host.insert("NanoCpus".into(), 0.into());
    }
    for key in ["PidMode", "UTSMode", "CgroupnsMode"] {
        if host.get(key).is_some_and(|mode| mode == "private") {
            host.insert(key.into(), "".into());
        }
    }
    // A name for whatever its configuration says.
    if host.get("Runtime").is_some_and(|runtime| runtime == "oci") {
        host.insert("Runtime".into(), "".into());
    }
    for limit in host.get_mut("Ulimits").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = limit["Name"].as_str().and_then(|name| name.strip_prefix("RLIMIT_")) {
            limit["Name"] = name.to_lowercase().into();
        }
    }
    for device in host.get_mut("Devices").and_then(Value::as_array_mut).into_iter().flatten() {
        if device["CgroupPermissions"].as_str().is_some_and(str::is_empty) {
            device["CgroupPermissions"] = "rwm".into();
        }
    }
}

/// What its own API says of a container that the compatible one does not; none if the engine is Docker. Addresses that
/// somebody fixed are put where Docker tells them.
///
/// # Errors
/// Permanent: the container cannot be put back by way of the compatible API.
pub(super) async fn of(engine: &Engine, inspect: &mut Value) -> Result<Option<Value>, RuntimeError> {
    if !engine.is_podman().await? {
        return Ok(None);
    }
    let id = inspect["Id"].as_str().unwrap_or_default();
    let told = engine.json(&format!("/libpod/containers/{id}/json")).await?;
    if let Some(pod) = told["Pod"].as_str().filter(|pod| !pod.is_empty()) {
        return Err(permanent(format!(
            "it is in the pod {}, and Podman's Docker-compatible API can put nothing into a pod: run it outside one",
            pod.get(..12).unwrap_or(pod)
        )));
    }
    let command: Vec<&str> =
        told["Config"]["CreateCommand"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if command.iter().any(|word| fixes_address(word)) {
        fix_addresses(inspect);
    }
    let mac = command.iter().any(|word| word.contains("--mac-address") || word.contains("mac="));
    Ok(Some(json!({
        "umask": told["Config"]["Umask"],
        "notifies": told["Config"]["sdNotifyMode"],
        "mac": mac,
    })))
}

/// A word of `podman run` by which an address is chosen.
fn fixes_address(word: &str) -> bool {
    let option = word == "--ip" || word == "--ip6" || word.starts_with("--ip=") || word.starts_with("--ip6=");
    option
        || word.contains(":ip=")
        || word.contains(",ip=")
        || word.contains(":ip6=")
        || word.contains(",ip6=")
}

fn fix_addresses(inspect: &mut Value) {
    let networks = inspect["NetworkSettings"]["Networks"].as_object_mut();
    for endpoint in networks.into_iter().flat_map(|all| all.values_mut()) {
        let mut fixed = Map::new();
        for (told, taken) in [("IPAddress", "IPv4Address"), ("GlobalIPv6Address", "IPv6Address")] {
            if let Some(address) = endpoint[told].as_str().filter(|address| !address.is_empty()) {
                fixed.insert(taken.into(), address.into());
            }
        }
        endpoint["IPAMConfig"] = Value::Object(fixed);
    }
}

/// What differs from a faithful restore, of a container recorded on Podman.
pub(super) fn notes(context: &Value) -> Vec<String> {
    let told = &context["podman"];
    let mut notes = Vec::new();
    if let Some(umask) = told["umask"].as_str().filter(|umask| !umask.is_empty() && *umask != API_UMASK) {
        notes.push(format!(
            "its umask is {API_UMASK} and was {umask}: Podman's Docker-compatible API can set no other"
        ));
    }
    if told["mac"] == true {
        notes.push("its MAC address was fixed and is another now: Podman does not tell it".into());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "cb5ee1b6243ccce45c635e935596165b5a652fcf5b54aa3f39733593c475997d";

    /// As Podman 4.3 inspects, shortened to what is said otherwise.
    fn inspect() -> Value {
        json!({
            "Id": ID, "State": {"Status": "initialized"},
            "Config": {"Env": ["PATH=/bin", "A=1", "HOSTNAME=cb5ee1b6243c"], "Volumes": null,
                       "Healthcheck": {"Test": ["NONE"], "Interval": 30_000_000_000u64, "Retries": 3}},
            "HostConfig": {"Binds": [format!("{ID}:/data:rw,rprivate,nosuid,nodev,rbind"), "shop:/shop:rw"],
                           "NetworkMode": "bridge", "PidMode": "private", "UTSMode": "private", "Runtime": "oci",
                           "MemorySwappiness": -1, "NanoCpus": 500_000_000u64, "CpuQuota": 50_000, "CpuPeriod": 100_000,
                           "Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}],
                           "Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": ""}]},
            "NetworkSettings": {"Networks": {"podman": {"MacAddress": "d2:ad:36:fe:9e:99", "IPAddress": "10.88.0.7"}}},
        })
    }

    #[test]
    fn what_podman_adds_is_taken_out_and_the_rest_is_said_as_docker_would() {
        let mut inspect = inspect();
        in_docker_words(&mut inspect);
        let expected = json!({
            "Id": ID, "State": {"Status": "created"},
            "Config": {"Env": ["A=1", "PATH=/bin"], "Volumes": {"/data": {}}, "Healthcheck": {"Test": ["NONE"]}},
            "HostConfig": {"Binds": [format!("{ID}:/data:rw,rprivate,nosuid,nodev,rbind"), "shop:/shop:rw"],
                           "NetworkMode": "podman", "PidMode": "", "UTSMode": "", "Runtime": "",
                           "MemorySwappiness": null, "NanoCpus": 0, "CpuQuota": 50_000, "CpuPeriod": 100_000,
                           "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                           "Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "rwm"}]},
            "NetworkSettings": {"Networks": {"podman": {"IPAddress": "10.88.0.7"}}},
        });
        assert_eq!(inspect, expected);
        in_docker_words(&mut inspect);
        assert_eq!(inspect, expected, "twice is once");
    }

    #[test]
    fn what_somebody_chose_stays() {
        let mut inspect = json!({
            "Id": ID, "State": {"Status": "running"},
            "Config": {"Env": ["HOSTNAME=shop"], "Healthcheck": {"Test": ["CMD", "true"], "Interval": 7}},
            "HostConfig": {"NetworkMode": "host", "PidMode": "host", "UTSMode": "host", "Runtime": "kata",
                           "MemorySwappiness": 60, "NanoCpus": 5, "CpuQuota": 0,
                           "Devices": [{"CgroupPermissions": "r"}]},
            "NetworkSettings": {"Networks": null},
        });
        let before = inspect.clone();
        in_docker_words(&mut inspect);
        assert_eq!(inspect, before);
    }

    #[test]
    fn fixed_addresses_are_known_by_the_command_and_kept() {
        for word in ["--ip", "--ip6=fd00::7", "shop:ip=10.0.0.7", "shop:alias=x,ip=10.0.0.7"] {
            assert!(fixes_address(word), "{word}");
        }
        for word in ["--ipc", "--network", "zip=1", "--ipc=host"] {
            assert!(!fixes_address(word), "{word}");
        }
        let mut inspect = inspect();
        fix_addresses(&mut inspect);
        let endpoint = &inspect["NetworkSettings"]["Networks"]["podman"];
        assert_eq!(endpoint["IPAMConfig"], json!({"IPv4Address": "10.88.0.7"}));
    }

    #[test]
    fn what_is_lost_is_said() {
        assert!(notes(&json!({"engine": "26.1.5"})).is_empty());
        assert!(notes(&json!({"podman": {"umask": "0000", "mac": false}})).is_empty());
        let notes = notes(&json!({"podman": {"umask": "0022", "mac": true}})).join("; ");
        assert!(notes.contains("was 0022") && notes.contains("MAC"), "{notes}");
    }
}
