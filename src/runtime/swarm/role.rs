//! What this engine is to a Swarm: only a manager can be asked about services, and told to change them.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde_json::Value;

use crate::runtime::engine::Engine;
use crate::runtime::{ErrorClass, RuntimeError};

/// What an engine is to a Swarm, as it said last. Shared by those who watch the same engine: task containers are left
/// to whoever watches the services, if anybody does.
#[derive(Debug, Default)]
pub struct Standing {
    role: AtomicU8,
    alone: AtomicBool,
}

/// What an engine is to a Swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It was not asked yet.
    Unknown,
    /// It belongs to no Swarm.
    Apart,
    /// It runs tasks and knows nothing of services.
    Worker,
    /// It can be asked and told.
    Manager,
}

impl Standing {
    /// What it was last.
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Relaxed) {
            1 => Role::Apart,
            2 => Role::Worker,
            3 => Role::Manager,
            _ => Role::Unknown,
        }
    }

    /// Asks the engine. Yields what it answers to `GET /info`.
    pub(super) async fn ask(&self, engine: &Engine) -> Result<Value, RuntimeError> {
        let info = engine.json("/info").await?;
        self.role.store(role(&info["Swarm"]) as u8, Ordering::Relaxed);
        let swarm = &info["Swarm"];
        if swarm["ControlAvailable"] == true && swarm["Nodes"].as_u64().unwrap_or(0) == 0 {
            // It counted none: it has no leader just now, and what it says of the Swarm is not all.
            let message =
                format!("the Swarm cannot be asked now: {}", swarm["Error"].as_str().unwrap_or("no nodes"));
            return Err(RuntimeError { class: ErrorClass::Transient, message });
        }
        self.alone.store(info["Swarm"]["Nodes"] == 1, Ordering::Relaxed);
        Ok(info)
    }

    /// Whether the Swarm had no other node when it was asked last.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }
}

fn role(swarm: &Value) -> Role {
    match swarm["LocalNodeState"].as_str().unwrap_or_default() {
        _ if swarm["ControlAvailable"] == true => Role::Manager,
        // "pending", "error" and "locked" too: its tasks are a Swarm's, and it cannot be asked about them.
        "" | "inactive" => Role::Apart,
        _ => Role::Worker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_engine_tells_what_it_is() {
        let said = |state: &str, control: bool| {
            role(&json!({"LocalNodeState": state, "ControlAvailable": control, "NodeID": "n"}))
        };
        assert_eq!(said("active", true), Role::Manager);
        assert_eq!(said("active", false), Role::Worker);
        assert_eq!(said("locked", false), Role::Worker);
        assert_eq!(said("inactive", false), Role::Apart);
        assert_eq!(role(&Value::Null), Role::Apart, "Podman has no Swarm");
    }

    #[test]
    fn roles_are_remembered() {
        let standing = Standing::default();
        assert_eq!(standing.role(), Role::Unknown);
        for role in [Role::Apart, Role::Worker, Role::Manager] {
            standing.role.store(role as u8, Ordering::Relaxed);
            assert_eq!(standing.role(), role);
        }
    }
}
