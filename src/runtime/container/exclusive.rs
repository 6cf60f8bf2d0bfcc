//! What two containers cannot have at the same time: whether a replacement can run beside the one that it replaces.

use serde_json::Value;

use super::replay;
use crate::runtime::Snapshot;

/// Log drivers that put the container's name on every line, as it is when the container starts.
const NAMING: [&str; 4] = ["journald", "gelf", "fluentd", "gcplogs"];

/// Why two containers with this specification cannot, or should not, run at the same time; none if they can.
pub(super) fn of(good: &Snapshot) -> Option<String> {
    of_the_engine(good).or_else(|| written(&good.inspect)).or_else(|| named(&good.inspect))
}

/// Why the engine, or the kernel, would not let both run.
pub(super) fn of_the_engine(good: &Snapshot) -> Option<String> {
    let inspect = &good.inspect;
    let (config, host) = (&inspect["Config"], &inspect["HostConfig"]);
    let has = |value: &Value| match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(all) => !all.is_empty(),
        value => value.as_str().is_some_and(|text| !text.is_empty()),
    };
    let mode = host["NetworkMode"].as_str().unwrap_or_default();
    // The same network stack: the same ports.
    if mode == "host" || mode.starts_with("container:") {
        return Some(format!("its network is {mode}"));
    }
    if has(&host["PortBindings"]) || host["PublishAllPorts"] == true {
        return Some("it publishes ports".into());
    }
    let endpoints = inspect["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    for (network, endpoint) in endpoints {
        let fixed = &endpoint["IPAMConfig"];
        if has(&fixed["IPv4Address"]) || has(&fixed["IPv6Address"]) || has(&fixed["LinkLocalIPs"]) {
            return Some(format!("its address in {network} is fixed"));
        }
    }
    if has(&config["MacAddress"]) {
        return Some("its MAC address is fixed".into());
    }
    let endpoints = inspect["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    for (network, endpoint) in endpoints {
        let is_main = network == mode || endpoint["NetworkID"] == mode;
        if !is_main && replay::further_mac(good, endpoint).is_some() {
            return Some(format!("its MAC address in {network} is fixed"));
        }
    }
    if has(&host["Devices"]) || has(&host["DeviceRequests"]) {
        return Some("it has devices".into());
    }
    None
}

/// Why there cannot, or should not, be another replica beside all that are recorded; none if there can.
pub(super) fn of_another(recorded: &[Snapshot]) -> Option<String> {
    let mut one = recorded.last()?.clone();
    // A port that the engine chooses is each one's own.
    if let Some(ports) = one.inspect["HostConfig"]["PortBindings"].as_object_mut() {
        ports.retain(|_, bindings| {
            bindings
                .as_array()
                .into_iter()
                .flatten()
                .any(|b| !matches!(b["HostPort"].as_str(), Some("" | "0")))
        });
    }
    // So is a volume without a name. What several wrote to already, one more may.
    let own = replay::anonymous(&one.inspect);
    if let Some(mounts) = one.inspect["Mounts"].as_array_mut() {
        mounts.retain(|mount| recorded.len() == 1 && !own.iter().any(|v| mount["Name"] == v.name.as_str()));
    }
    of_the_engine(&one).or_else(|| written(&one.inspect))
}

/// What it writes to: a program that owns its files is not made for a second one beside it.
fn written(inspect: &Value) -> Option<String> {
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    let kept = |mount: &&Value| mount["RW"] == true && mount["Type"] != "tmpfs";
    let place = |mount: &Value| mount["Destination"].as_str().unwrap_or("a volume").to_owned();
    mounts.into_iter().find(kept).map(|mount| format!("it writes to {}", place(mount)))
}

/// What it is called in its log: what is started beside the old one would be called by its temporary name until it is
/// started again.
fn named(inspect: &Value) -> Option<String> {
    let log = &inspect["HostConfig"]["LogConfig"];
    let driver = log["Type"].as_str().unwrap_or_default();
    let tag = log["Config"]["tag"].as_str().unwrap_or_default();
    if NAMING.contains(&driver) {
        return Some(format!("its log driver {driver} goes by the name that it is started under"));
    }
    tag.contains(".Name").then(|| "its log is tagged with the name that it is started under".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn why(inspect: &Value) -> (Option<String>, Option<String>) {
        let context = json!({"engine": "26.1.5"});
        let good = Snapshot { name: "shop".into(), inspect: inspect.clone(), image: Value::Null, context };
        (of(&good), of_the_engine(&good))
    }

    #[test]
    fn what_shares_nothing_can_run_beside_itself() {
        let plain = json!({
            "Config": {"MacAddress": ""},
            "HostConfig": {"NetworkMode": "shop_default", "PortBindings": {}, "PublishAllPorts": false, "Devices": [],
                           "DeviceRequests": null},
            "NetworkSettings": {"Networks": {"shop_default": {"IPAMConfig": null, "Aliases": ["api"]}}},
            "Mounts": [{"Type": "bind", "Destination": "/etc/shop", "RW": false},
                       {"Type": "tmpfs", "Destination": "/tmp", "RW": true}],
        });
        assert_eq!(why(&plain), (None, None));
    }

    #[test]
    fn what_only_one_can_have_is_named() {
        let table = [
            (json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}}), "it publishes ports"),
            (json!({"HostConfig": {"PublishAllPorts": true}}), "it publishes ports"),
            (json!({"HostConfig": {"NetworkMode": "host"}}), "its network is host"),
            (json!({"HostConfig": {"NetworkMode": "container:vpn"}}), "its network is container:vpn"),
            (json!({"HostConfig": {"Devices": [{"PathOnHost": "/dev/ttyS0"}]}}), "it has devices"),
            (json!({"Config": {"MacAddress": "02:42:ac:11:00:02"}}), "its MAC address is fixed"),
            (
                json!({"NetworkSettings": {"Networks": {"lan": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}}}}}),
                "its address in lan is fixed",
            ),
            (
                json!({"HostConfig": {"NetworkMode": "front"}, "NetworkSettings": {"Networks": {
                    "front": {"MacAddress": "02:42:0a:01:00:02", "IPAddress": "10.1.0.2"},
                    "back": {"MacAddress": "02:42:ac:11:65:43", "IPAddress": "10.2.0.2"}}}}),
                "its MAC address in back is fixed",
            ),
        ];
        for (inspect, said) in table {
            assert_eq!(why(&inspect), (Some(said.to_owned()), Some(said.to_owned())));
        }
    }

    #[test]
    fn what_logs_under_the_name_that_it_is_started_under_is_started_under_its_own() {
        let log = |driver: &str, tag: &str| {
            why(&json!({"HostConfig": {"LogConfig": {"Type": driver, "Config": {"tag": tag}}}}))
        };
        let said = "its log driver journald goes by the name that it is started under";
        assert_eq!(log("journald", ""), (Some(said.into()), None), "if it is told to, it may all the same");
        let said = "its log is tagged with the name that it is started under";
        assert_eq!(log("json-file", "{{.Name}}/{{.ID}}"), (Some(said.into()), None));
        assert_eq!(log("syslog", "{{.ImageName}}"), (None, None));
        assert_eq!(log("json-file", ""), (None, None));
    }

    #[test]
    fn another_replica_has_ports_and_volumes_of_its_own_if_nobody_gave_them_a_name() {
        let another = |inspect: &Value, recorded: usize| {
            let context = json!({"engine": "26.1.5"});
            let one =
                Snapshot { name: "shop-1".into(), inspect: inspect.clone(), image: Value::Null, context };
            of_another(&vec![one; recorded])
        };
        let volume = "a".repeat(64);
        let own = json!({
            "Config": {"Volumes": {"/cache": {}}}, "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": ""}]}},
            "Mounts": [{"Type": "volume", "Name": volume, "Destination": "/cache", "RW": true}],
        });
        assert_eq!(another(&own, 1), None);
        let port = json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8000-8005"}]}}});
        assert_eq!(another(&port, 3).as_deref(), Some("it publishes ports"));
        let shared =
            json!({"Mounts": [{"Type": "volume", "Name": "uploads", "Destination": "/data", "RW": true}]});
        assert_eq!(another(&shared, 1).as_deref(), Some("it writes to /data"));
        assert_eq!(another(&shared, 2), None, "they do it together already");
        assert_eq!(another(&own, 0), None, "nothing is recorded");
    }

    #[test]
    fn two_may_write_to_one_volume_if_they_are_told_to() {
        let inspect = json!({"Mounts": [{"Type": "volume", "Destination": "/data", "RW": true}]});
        assert_eq!(why(&inspect), (Some("it writes to /data".into()), None));
    }
}
