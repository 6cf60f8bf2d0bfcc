//! What can be tried before a rollback, because it is less of a change. `config/` makes it; every value is valid.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Hook;

/// A rung of a row's ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mitigation {
    /// What is done.
    pub remedy: Remedy,
    /// What shows that it took effect: tried again and again until it succeeds, or the time for that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Box<Hook>>,
}

/// What is done to a service instead of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Its replicas are restarted, one after the other.
    Restart,
    /// Environment variables are set, as those that switch a feature off, and its replicas made anew with them.
    Set(BTreeMap<String, String>),
    /// It gets so many replicas.
    Scale(u32),
    /// Something of the operators' own.
    Hook(Box<Hook>),
}

impl Mitigation {
    /// Something that needs nothing to be confirmed by.
    pub const fn of(remedy: Remedy) -> Self {
        Self { remedy, confirm: None }
    }

    /// Whether the replicas are made anew, with another configuration.
    pub const fn replaces(&self) -> bool {
        matches!(self.remedy, Remedy::Set(_))
    }

    /// What is about to be done, for people.
    pub fn intent(&self) -> String {
        let what = match &self.remedy {
            Remedy::Restart => "restart it, one replica after the other".to_owned(),
            Remedy::Set(all) => format!("set {}, and make its replicas anew with that", assignments(all)),
            Remedy::Scale(replicas) => format!("scale it to {replicas} replicas"),
            Remedy::Hook(hook) => hook.to_string(),
        };
        match &self.confirm {
            Some(hook) => format!("{what}; then see that it took effect: {}", hook.name),
            None => what,
        }
    }
}

impl fmt::Display for Mitigation {
    /// What was done, for people: `restarted`, `EXPORT_MODE=off set`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            Remedy::Restart => f.write_str("restarted"),
            Remedy::Set(all) => write!(f, "{} set", assignments(all)),
            Remedy::Scale(replicas) => write!(f, "scaled to {replicas} replicas"),
            Remedy::Hook(hook) => write!(f, "the hook {} run", hook.name),
        }
    }
}

/// `A=1 B=2`. These are switches that stand in the configuration for everybody to read, and no secrets.
fn assignments(all: &BTreeMap<String, String>) -> String {
    all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
