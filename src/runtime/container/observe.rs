//! Reading what the engine says of a container, and telling which containers make up a service now.

use std::net::IpAddr;

use serde_json::Value;

use super::fingerprint;
use crate::core::observation::{ContainerHealth, Phase, Replica};
use crate::core::release::ReplicaId;
use crate::core::time::Timestamp;

/// What the engine says instead of "never".
const NEVER: &str = "0001-01-01T00:00:00Z";
/// A health check's output is shown to people; its beginning says it.
const OUTPUT_MAX: usize = 500;

/// One container, from its inspect answer.
pub(super) fn replica(inspect: &Value, digests: Vec<String>) -> Replica {
    let state = &inspect["State"];
    let phase = phase(state);
    let start_error = state["Error"].as_str().filter(|e| !e.is_empty()).map(str::to_owned);
    let ended = matches!(phase, Phase::Exited | Phase::Restarting | Phase::Gone) || start_error.is_some();
    Replica {
        id: ReplicaId::new(inspect["Id"].as_str().unwrap_or_default()),
        name: name(inspect).to_owned(),
        release: fingerprint::release(inspect, digests),
        created: moment(&inspect["Created"]).unwrap_or_default(),
        started: moment(&state["StartedAt"]),
        phase,
        restart_count: inspect["RestartCount"].as_u64().unwrap_or(0),
        restarts: restarts(inspect),
        health: health(state),
        exit_code: state["ExitCode"].as_i64().filter(|_| ended),
        start_error,
        address: address(inspect),
    }
}

/// The container's name, without the engine's slash.
pub(super) fn name(inspect: &Value) -> &str {
    inspect["Name"].as_str().unwrap_or_default().trim_start_matches('/')
}

/// A moment in RFC 3339; none if it is the engine's "never".
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    let text = value.as_str().filter(|t| *t != NEVER)?;
    let parsed: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(parsed.as_millisecond()).ok().map(Timestamp::from_millis)
}

/// Which of a service's containers are its replicas, oldest first. The newest one that was ever started decides the
/// generation; what still runs of others is mixed with it; what does not is a leftover.
pub(super) fn generation(mut all: Vec<Replica>) -> Vec<Replica> {
    all.retain(|r| {
        !is_temporary(&r.name)
            && (r.phase != Phase::Created || r.start_error.is_some())
            && r.phase != Phase::Gone
    });
    all.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
    let Some(newest) = all.last().map(|r| r.release.id.clone()) else { return all };
    all.retain(|r| {
        r.release.id == newest || matches!(r.phase, Phase::Running | Phase::Restarting | Phase::Paused)
    });
    all
}

/// Whether a name is one of ours: a replacement that has not taken its place, a container set aside, or a one-off.
pub(super) fn is_temporary(name: &str) -> bool {
    name.contains(".rbnew-") || name.contains(".rbold-") || name.contains(super::one_off::NAMED)
}

fn phase(state: &Value) -> Phase {
    match state["Status"].as_str().unwrap_or_default() {
        "created" | "initialized" | "configured" => Phase::Created,
        "running" => Phase::Running,
        // `State.Running` is true here as well.
        "restarting" => Phase::Restarting,
        "paused" => Phase::Paused,
        // Podman says "stopped".
        "exited" | "stopped" | "stopping" => Phase::Exited,
        "removing" | "dead" => Phase::Gone,
        // An unknown word of a newer engine: what it says in its oldest field holds.
        _ if state["Running"] == true => Phase::Running,
        _ => Phase::Exited,
    }
}

fn restarts(inspect: &Value) -> bool {
    let policy = &inspect["HostConfig"]["RestartPolicy"];
    match policy["Name"].as_str().unwrap_or_default() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let most = policy["MaximumRetryCount"].as_u64().unwrap_or(0);
            most == 0 || inspect["RestartCount"].as_u64().unwrap_or(0) < most
        }
        _ => false,
    }
}

fn health(state: &Value) -> Option<ContainerHealth> {
    let health = &state["Health"];
    match health["Status"].as_str()? {
        "starting" => Some(ContainerHealth::Starting),
        "healthy" => Some(ContainerHealth::Healthy),
        "unhealthy" => {
            let last = health["Log"].as_array().and_then(|log| log.last());
            let output = last.and_then(|l| l["Output"].as_str()).unwrap_or_default().trim();
            Some(ContainerHealth::Unhealthy(output.chars().take(OUTPUT_MAX).collect()))
        }
        _ => None,
    }
}

/// Its address in the network it was created in, else in any.
fn address(inspect: &Value) -> Option<IpAddr> {
    let networks = inspect["NetworkSettings"]["Networks"].as_object()?;
    let mode = inspect["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    let of = |endpoint: &Value| {
        ["IPAddress", "GlobalIPv6Address"]
            .iter()
            .find_map(|key| endpoint[*key].as_str()?.parse::<IpAddr>().ok())
    };
    networks.get(mode).and_then(of).or_else(|| networks.values().find_map(of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(name: &str, created: u32, image: &str, state: Value) -> Replica {
        let inspect = json!({
            "Id": name, "Name": format!("/{name}"), "Image": image, "RestartCount": 0,
            "Created": format!("2026-11-20T21:20:{created:02}.352879275Z"), "State": state,
            "Config": {"Image": "shop:v1"}, "HostConfig": {"RestartPolicy": {"Name": "no"}},
        });
        replica(&inspect, Vec::new())
    }

    fn running() -> Value {
        json!({"Status": "running", "Running": true, "StartedAt": "2026-11-20T21:20:11.658356418Z", "ExitCode": 0, "Error": ""})
    }

    fn exited() -> Value {
        json!({"Status": "exited", "Running": false, "StartedAt": "2026-11-20T21:20:11Z", "ExitCode": 3, "Error": ""})
    }

    fn names(all: Vec<Replica>) -> Vec<String> {
        generation(all).into_iter().map(|r| r.name).collect()
    }

    #[test]
    fn a_restarting_container_does_not_run() {
        let state =
            json!({"Status": "restarting", "Running": true, "Restarting": true, "ExitCode": 1, "Error": ""});
        let replica = container("shop", 1, "i", state);
        assert_eq!(replica.phase, Phase::Restarting);
        assert_eq!(replica.exit_code, Some(1));
    }

    #[test]
    fn a_failed_start_is_told_from_one_that_was_never_tried() {
        let failed =
            json!({"Status": "created", "ExitCode": 127, "Error": "exec: no such file", "StartedAt": NEVER});
        let failed = container("shop", 1, "i", failed);
        assert_eq!(
            (failed.exit_code, failed.start_error.as_deref()),
            (Some(127), Some("exec: no such file"))
        );
        assert_eq!(failed.started, None);
        let never = container(
            "new",
            2,
            "i",
            json!({"Status": "created", "ExitCode": 0, "Error": "", "StartedAt": NEVER}),
        );
        assert_eq!(never.exit_code, None);
        assert_eq!(names(vec![failed, never]), ["shop"]);
    }

    #[test]
    fn leftovers_and_our_own_temporaries_are_no_replicas() {
        let all = vec![
            container("shop-old", 1, "v1", exited()),
            container("shop.rbold-7", 2, "v1", running()),
            container("shop.rbnew-7", 4, "v1", running()),
            container("shop", 3, "v2", running()),
        ];
        assert_eq!(names(all), ["shop"]);
    }

    #[test]
    fn what_still_runs_of_an_older_release_is_mixed_in() {
        let all = vec![container("b", 2, "v2", exited()), container("a", 1, "v1", running())];
        assert_eq!(names(all), ["a", "b"]);
    }

    #[test]
    fn health_comes_with_its_last_words() {
        let state = json!({"Status": "running", "Health": {"Status": "unhealthy", "Log": [{"Output": "first"}, {"Output": "refused\n"}]}});
        assert_eq!(health(&state), Some(ContainerHealth::Unhealthy("refused".into())));
        assert_eq!(health(&json!({"Health": {"Status": "none"}})), None);
        assert_eq!(health(&json!({})), None);
    }

    #[test]
    fn the_address_is_that_of_the_first_network() {
        let inspect = json!({"HostConfig": {"NetworkMode": "front"}, "NetworkSettings": {"Networks": {
            "back": {"IPAddress": "10.1.0.2"}, "front": {"IPAddress": "10.2.0.2"}}}});
        assert_eq!(address(&inspect), "10.2.0.2".parse().ok());
    }

    #[test]
    fn a_retry_limit_that_is_used_up_restarts_nothing() {
        let inspect = |count: u32| json!({"RestartCount": count, "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}});
        assert!(restarts(&inspect(2)));
        assert!(!restarts(&inspect(3)));
    }
}
