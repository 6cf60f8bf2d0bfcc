//! A service's settings in force, as the API shows them.

use serde::{Deserialize, Serialize};

/// A service's settings in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsView {
    /// `act` or `dry-run`.
    pub mode: String,
    /// Where the health check called `health` asks; `null` if there is none of that name. All are in `checks`.
    pub health: Option<String>,
    /// How often it asks.
    pub health_interval_seconds: Option<f64>,
    /// The health checks, by name.
    #[serde(default)]
    pub checks: Vec<CheckView>,
    /// What the service cannot do without, by name.
    #[serde(default)]
    pub dependencies: Vec<DependencyView>,
    /// Where requests, errors and latency come from; empty if nothing tells of them.
    #[serde(default)]
    pub sources: Vec<SourceView>,
    /// Whether the containers' logs are read for error lines.
    #[serde(default)]
    pub logs: bool,
    /// The labels, as name and value, that an alert of somebody else's monitoring must have to be about this service;
    /// empty if the one that names it is enough.
    #[serde(default)]
    pub alert_labels: Vec<(String, String)>,
    /// How quick the rows of errors and latency are: `fast` or `cautious`.
    #[serde(default)]
    pub profile: String,
    /// How much of the time before a deployment the new release is compared with.
    #[serde(default)]
    pub baseline_seconds: f64,
    /// How often memory and CPU are measured.
    pub memory_interval_seconds: f64,
    /// How long a new release is on trial.
    pub trial_seconds: f64,
    /// How long after a deployment it can be rolled back without asking.
    pub watch_seconds: f64,
    /// The same for memory, kills and exits.
    pub watch_slow_seconds: f64,
    /// How long failures before the first success after a deployment do not count.
    pub grace_seconds: f64,
    /// How long after a rollback until the next automatic one.
    pub cooldown_seconds: f64,
    /// At most this many automatic rollbacks ...
    pub attempts: u32,
    /// ... within this time.
    pub attempts_window_seconds: f64,
    /// How long the target must pass every rule.
    pub verify_seconds: f64,
    /// When proof has not come by then, a person is called.
    pub verify_timeout_seconds: f64,
    /// How long people have to say no to a rollback of severity `high`.
    #[serde(default)]
    pub deadline_seconds: f64,
    /// How many people must approve what is asked.
    #[serde(default)]
    pub approvals: u32,
    /// How many known-good releases are kept.
    pub keep: u32,
    /// What happens when a rolled-back release is deployed again: `watch` or `refuse`.
    pub redeploy: String,
    /// The most that a bad container gets to stop, unless its deployer set a stop timeout.
    pub stop_grace_seconds: f64,
    /// Whether the replacement is created as soon as a row is pending.
    pub prepare: bool,
    /// Which is first where both are possible: `auto`, `stop-first` or `start-first`.
    #[serde(default)]
    pub order: String,
    /// Whether the rollback is written where Compose's next `up` reads it.
    #[serde(default)]
    pub pin: bool,
    /// How containers of Compose are replaced: `auto`, `api` or `compose`.
    #[serde(default)]
    pub executor: String,
    /// What is run around a rollback, in the order in which it has its turn.
    #[serde(default)]
    pub hooks: Vec<HookView>,
    /// How the schema of its database is guarded.
    #[serde(default)]
    pub migrations: MigrationsView,
    /// What is tried before a rollback, row by row; rows that try nothing are left out.
    #[serde(default)]
    pub mitigations: Vec<LadderView>,
}

/// A hook. Arguments, headers and bodies are not shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookView {
    /// Its name.
    pub name: String,
    /// When it has its turn: `before_rollback`, `after_stop`, `before_verify`, `after_rollback`, `on_failure` or
    /// `mitigation`.
    pub phase: String,
    /// What it does, in words.
    pub does: String,
    /// How long it may take.
    pub timeout_seconds: f64,
}

/// What is known of the schema of a service's database, and the way back. Nothing of it opens the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationsView {
    /// What every release does to it, if that is configured: `none`, `additive` or `breaking`.
    pub schema: Option<String>,
    /// Whether the database is asked for its version.
    pub asked: bool,
    /// The backup before a downgrade, in words.
    pub backup: Option<String>,
    /// The downgrade, in words.
    pub downgrade: Option<String>,
    /// The prepared way for a person.
    pub manual: Option<String>,
}

/// What a row tries before a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderView {
    /// The row.
    pub rule: String,
    /// Each rung in words, in order.
    pub tries: Vec<String>,
}

/// A health check. Neither credentials nor headers, bodies or arguments are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckView {
    /// Its name.
    pub name: String,
    /// `http`, `tcp`, `grpc` or `command`.
    pub kind: String,
    /// Where it asks, or what it runs; of several steps all, in order.
    pub place: String,
    /// How often.
    pub interval_seconds: f64,
    /// How long it may take.
    pub timeout_seconds: f64,
    /// Whether its failing is the service's failing; others are advisory.
    pub required: bool,
}

/// Something that a service cannot do without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DependencyView {
    /// Its name.
    pub name: String,
    /// The watched service that it is, if it is one.
    pub service: Option<String>,
    /// How it is checked, if it is something else.
    pub check: Option<CheckView>,
}

/// A source of requests, errors and latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceView {
    /// `metrics` (the service's own), `prometheus` (a server) or `access_log`.
    pub kind: String,
    /// Where it is, without credentials; for a log its format.
    pub place: String,
    /// How often it is read.
    pub interval_seconds: f64,
}
