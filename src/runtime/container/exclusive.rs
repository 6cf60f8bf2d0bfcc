//! What two containers cannot have at the same time: whether a replacement can run beside the one that it replaces.

use serde_json::Value;

/// Why two containers with this specification cannot, or should not, run at the same time; none if they can.
pub(super) fn of(inspect: &Value) -> Option<String> {
    of_the_engine(inspect).or_else(|| written(inspect))
}

/// Why the engine, or the kernel, would not let both run.
pub(super) fn of_the_engine(inspect: &Value) -> Option<String> {
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
    if has(&host["Devices"]) || has(&host["DeviceRequests"]) {
        return Some("it has devices".into());
    }
    None
}

/// What it writes to: a program that owns its files is not made for a second one beside it.
fn written(inspect: &Value) -> Option<String> {
    let mounts = inspect["Mounts"].as_array().into_iter().flatten();
    let kept = |mount: &&Value| mount["RW"] == true && mount["Type"] != "tmpfs";
    let place = |mount: &Value| mount["Destination"].as_str().unwrap_or("a volume").to_owned();
    mounts.into_iter().find(kept).map(|mount| format!("it writes to {}", place(mount)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn why(inspect: &Value) -> (Option<String>, Option<String>) {
        (of(inspect), of_the_engine(inspect))
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
        ];
        for (inspect, said) in table {
            assert_eq!(why(&inspect), (Some(said.to_owned()), Some(said.to_owned())));
        }
    }

    #[test]
    fn two_may_write_to_one_volume_if_they_are_told_to() {
        let inspect = json!({"Mounts": [{"Type": "volume", "Destination": "/data", "RW": true}]});
        assert_eq!(why(&inspect), (Some("it writes to /data".into()), None));
    }
}
