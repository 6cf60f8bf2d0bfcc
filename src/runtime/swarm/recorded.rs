//! What a real manager (Docker 20.10.24) answered: recorded in `tests/fixtures/swarm`.

use serde_json::Value;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn list(text: &str) -> Vec<Value> {
    read(text).as_array().cloned().unwrap_or_default()
}

/// Two replicas of `web:v1` with a port in host mode, running.
pub(super) fn service() -> Value {
    read(include_str!("../../../tests/fixtures/swarm/service.json"))
}

pub(super) fn tasks() -> Vec<Value> {
    list(include_str!("../../../tests/fixtures/swarm/tasks.json"))
}

/// The same after an update to an image that cannot start: Swarm paused it after the first failure, and goes on trying.
pub(super) fn paused_service() -> Value {
    read(include_str!("../../../tests/fixtures/swarm/service-paused.json"))
}

pub(super) fn paused_tasks() -> Vec<Value> {
    list(include_str!("../../../tests/fixtures/swarm/tasks-paused.json"))
}

/// The only task of a global service.
pub(super) fn global_tasks() -> Vec<Value> {
    list(include_str!("../../../tests/fixtures/swarm/tasks-global.json"))
}

/// A task with an overlay network.
pub(super) fn overlay_tasks() -> Vec<Value> {
    list(include_str!("../../../tests/fixtures/swarm/tasks-overlay.json"))
}
