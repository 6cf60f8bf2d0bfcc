//! What the API answers: its own structs, so that the format stays while the inside changes.
//!
//! Times are RFC 3339 in UTC; durations are seconds and end in `_seconds`; a field that may be absent is `null`.
//! Fields are only ever added. The command line reads these very structs. Nothing here may hold a secret.

use std::collections::BTreeMap;

mod people;
mod settings;

use serde::{Deserialize, Serialize};

pub use self::people::*;
pub use self::settings::*;

/// A moment, in JSON as RFC 3339 in UTC: `2026-11-20T21:00:00Z`.
pub type Time = jiff::Timestamp;

/// Answer to `GET /api/v1/status`: the whole fleet at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The daemon's version.
    pub version: String,
    /// The environment's name, as in announcements.
    pub environment: String,
    /// When this picture was taken.
    pub at: Time,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub not_ready: Vec<String>,
    /// The default engine.
    pub engine: EngineView,
    /// The engines that are watched besides it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, EngineView>,
    /// The store.
    pub store: StoreView,
    /// The configuration in force.
    pub config: ConfigView,
    /// Pause and breaker of the whole fleet.
    pub fleet: FlagsView,
    /// Every watched service, by name.
    pub services: Vec<ServiceSummary>,
    /// Services that asked to be watched and cannot be, with the reasons.
    pub refused: Vec<RefusedView>,
    /// What needs a person, the most urgent first.
    pub attention: Vec<AttentionView>,
}

/// The engine, as last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineView {
    /// Whether it answers; `null` before the first answer.
    pub reachable: Option<bool>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Whether it takes writes. While it does not, Backstop watches and announces but changes no service.
    pub writable: bool,
    /// Why it does not.
    pub error: Option<String>,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Whether the last load or reload was good. If not, the settings before it are still in force.
    pub last_reload_ok: bool,
    /// What was wrong with it.
    pub error: Option<String>,
    /// When the settings in force were loaded.
    pub loaded_at: Time,
}

/// What an operator or a failure set, on the fleet or on a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsView {
    /// The pause, if there is one.
    pub paused: Option<PauseView>,
    /// Why a person is needed. For the fleet: the breaker stopped all automatic rollbacks.
    pub stuck: Option<String>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// Who paused.
    pub by: String,
    /// Why; may be empty.
    pub why: String,
    /// Since when.
    pub since: Time,
    /// Until when; `null` is until somebody resumes.
    pub until: Option<Time>,
}

/// One thing that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionView {
    /// The service; `null` if it is about the whole daemon.
    pub service: Option<String>,
    /// What is wrong.
    pub what: String,
    /// The next command to type, if there is one.
    pub next: Option<String>,
}

/// A service that asked to be watched and cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedView {
    /// The name it would have had.
    pub service: String,
    /// The container that carries the mistake.
    pub container: String,
    /// What is wrong, each with what would be right.
    pub problems: Vec<String>,
}

/// Answer to `GET /api/v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesView {
    /// Every watched service, by name.
    pub services: Vec<ServiceSummary>,
}

/// One service in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Its name.
    pub name: String,
    /// `act` or `dry-run`.
    pub mode: String,
    /// Its state: `trial`, `steady`, `suspect`, `awaiting_approval`, `rolling_back`, `verifying`, `cooling_down`, `blind`, `paused` or
    /// `stuck`.
    pub state: String,
    /// Since when it is in that state.
    pub since: Time,
    /// For how long it has been.
    pub for_seconds: f64,
    /// What runs now; `null` if nothing does.
    pub current: Option<ReleaseView>,
    /// When that was deployed.
    pub deployed: Option<Time>,
    /// Where a rollback would go now; `null` if there is no release that proved itself.
    pub target: Option<ReleaseView>,
    /// The rollback in flight.
    pub rollback: Option<String>,
    /// What its last drill found; `null` before the first.
    pub drill: Option<DrilledView>,
    /// One sentence: what is going on.
    pub sentence: String,
    /// The next command to type, where one helps.
    pub next: Option<String>,
}

/// Answer to `GET /api/v1/services/NAME`: everything known of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// It in short.
    #[serde(flatten)]
    pub summary: ServiceSummary,
    /// What would happen next, were nothing to change, in sentences.
    pub outlook: Vec<String>,
    /// The commands that make sense now, the likeliest first.
    pub commands: Vec<CommandView>,
    /// The decision matrix, row by row.
    pub rows: Vec<RowView>,
    /// Every gate's answer, were a rollback decided now, in the order in which they are asked.
    pub gates: Vec<GateView>,
    /// Its releases, newest deployment first.
    pub releases: Vec<LedgerView>,
    /// Its replicas, oldest first.
    pub replicas: Vec<ReplicaView>,
    /// Samples since the daemon started, by signal.
    pub samples: Vec<SampleView>,
    /// The last decision.
    pub last_decision: Option<DecisionView>,
    /// The newest decisions in the store, newest first.
    pub decisions: Vec<DecisionView>,
    /// Why the store could not be asked for decisions.
    pub decisions_error: Option<String>,
    /// The rollback in flight, in full.
    pub in_flight: Option<RollbackView>,
    /// Pause and stuck.
    pub flags: FlagsView,
    /// What people are asked about it, or said.
    #[serde(default)]
    pub approval: Option<ApprovalView>,
    /// The window that it is in.
    #[serde(default)]
    pub window: Option<WindowView>,
    /// Its settings in force.
    pub settings: SettingsView,
}

/// A command that makes sense now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// What to type.
    pub command: String,
    /// What it does.
    pub does: String,
}

/// What runs: an image under a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its identity, twelve hexadecimal digits: commands accept it.
    pub id: String,
    /// The image reference as the deployer typed it. It may point elsewhere by now.
    pub reference: String,
    /// The image's id on this engine.
    pub image: String,
    /// Registry digests of the image, `repo@sha256:...`.
    pub digests: Vec<String>,
    /// SHA-256 over the configuration that the deployer chose, in hexadecimal.
    pub fingerprint: String,
    /// The image's own version label, if it has one.
    pub version: Option<String>,
}

/// A release in a service's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerView {
    /// The release.
    #[serde(flatten)]
    pub release: ReleaseView,
    /// When it was first seen running.
    pub first_seen: Time,
    /// When its newest deployment was seen.
    pub deployed: Time,
    /// `trial`, `known_good` or `quarantined`.
    pub standing: String,
    /// Since when it is known-good or quarantined.
    pub standing_since: Option<Time>,
    /// Why it is quarantined.
    pub why: Option<String>,
    /// What whoever deployed it said of it: commit, author, pipeline.
    #[serde(default)]
    pub origin: Option<String>,
    /// What it was before Backstop made it anew with something set, as a mitigation: the same image under other ids.
    #[serde(default)]
    pub earlier: Vec<String>,
    /// Whether it runs now.
    pub current: bool,
    /// Whether a rollback would go there now.
    pub target: bool,
    /// Whether its image can be had: `here`, `registry` (there, and not here), `missing` (not here, and it cannot be fetched
    /// now), `gone` (in neither) or `unknown`. Of targets only; `null` before the first check.
    #[serde(default)]
    pub availability: Option<String>,
    /// Why it is missing, gone or unknown.
    #[serde(default)]
    pub availability_why: Option<String>,
    /// When that was found out.
    #[serde(default)]
    pub availability_at: Option<Time>,
}

/// One row of the decision matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowView {
    /// The row's name, as in the configuration.
    pub rule: String,
    /// What is measured for it: `health`, `container_health`, `exits`, `oom_kills`, `memory`, `cpu`, `requests`,
    /// `logs`, `reports` or `alerts`.
    pub signal: String,
    /// What it judges, and how: `health`, `error_rate`, `latency`, ... as `condition` in the configuration.
    #[serde(default)]
    pub condition: String,
    /// Its value now, in words; why it is off, if it is.
    pub value: String,
    /// The line that must be crossed, in words.
    pub threshold: String,
    /// What the value is compared with, in words; `null` if it is compared with nothing, or nothing is known.
    #[serde(default)]
    pub baseline: Option<String>,
    /// How many samples it judged by.
    pub samples: u32,
    /// Since when the line is crossed.
    pub since: Option<Time>,
    /// For how long it has been.
    pub for_seconds: Option<f64>,
    /// How long it must stay crossed. For errors and latency: at most; the worse it is, the shorter.
    pub sustained_seconds: Option<f64>,
    /// `ok`, `pending`, `breached`, `no data`, `cannot measure` or `off`.
    pub answer: String,
    /// What a breach leads to: `rollback`, `evaluate` (a person is told), `monitor` (it is shown) or `off`.
    pub action: String,
    /// How urgent a breach is: `critical`, `high`, `medium` or `low`.
    pub severity: String,
}

/// One gate's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Its name.
    pub gate: String,
    /// Whether it lets a rollback through.
    pub allow: bool,
    /// Why, or why not.
    pub why: String,
}

/// One copy of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// The container id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// The id of the release that it runs.
    pub release: String,
    /// When the container was created.
    pub created: Time,
    /// When its process was last started, if ever.
    pub started: Option<Time>,
    /// `created`, `running`, `restarting`, `paused`, `exited` or `gone`.
    pub phase: String,
    /// The engine's count of restarts since it was created.
    pub restart_count: u64,
    /// What its HEALTHCHECK says: `starting`, `healthy` or `unhealthy`; `null` without a HEALTHCHECK.
    pub health: Option<String>,
    /// The last output of an unhealthy HEALTHCHECK.
    pub health_output: Option<String>,
    /// Exit code of the last run, if it is not running.
    pub exit_code: Option<i64>,
    /// The engine's error when it could not be started.
    pub start_error: Option<String>,
    /// Its own address.
    pub address: Option<String>,
}

/// Samples of one signal since the daemon started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleView {
    /// What was measured.
    pub signal: String,
    /// On the good side of the line.
    pub healthy: u64,
    /// On the bad side.
    pub unhealthy: u64,
    /// Could not be measured: neither good nor bad.
    pub error: u64,
}

/// What was decided about a service at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// When.
    pub at: Time,
    /// About which service.
    pub service: String,
    /// `rollback`, `evaluate` or `hold`.
    pub verdict: String,
    /// The row of the matrix that was breached; `null` if no row was, but a person asked, say.
    #[serde(default)]
    pub rule: Option<String>,
    /// What kind of reason: `health_failing`, `crash_loop`, ...
    pub reason: String,
    /// The reason as a sentence with its numbers.
    pub text: String,
    /// How urgent.
    pub severity: String,
    /// The release that was judged.
    pub from: Option<ReleaseView>,
    /// The release to go to.
    pub to: Option<ReleaseView>,
    /// The gates that were asked, in order; a denial is the last one.
    pub gates: Vec<GateView>,
    /// Decided in dry-run mode: announced, not carried out.
    pub dry_run: bool,
}

/// Answer to `GET /api/v1/rollbacks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbacksView {
    /// The rollbacks, newest first.
    pub rollbacks: Vec<RollbackView>,
    /// There may be older ones: ask again with `before=` this. `null` at the end.
    pub next_before: Option<String>,
}

/// One rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackView {
    /// Its identity: sortable by time.
    pub id: String,
    /// The service.
    pub service: String,
    /// The environment's name.
    pub environment: String,
    /// What was rolled back; `null` if nothing ran.
    pub from: Option<ReleaseView>,
    /// To what.
    pub to: ReleaseView,
    /// `executing`, `verifying`, `verified`, `not_verified`, `unwound`, `void`, `superseded` or `stuck`.
    pub outcome: String,
    /// What there is to say about the outcome; may be empty.
    pub detail: String,
    /// Whether it is over.
    pub over: bool,
    /// `backstop`, or who asked.
    pub decided_by: String,
    /// The services of its group that go back with it, all or none; usually none.
    #[serde(default)]
    pub along: Vec<String>,
    /// Which of the two was stopped or started first, and why; `null` until the target was started, and where an
    /// orchestrator decides it.
    #[serde(default)]
    pub order: Option<String>,
    /// What kind of reason: `health_failing`, `operator`, ...
    pub reason: String,
    /// The reason as a sentence with its numbers.
    pub text: String,
    /// How urgent it was.
    pub severity: String,
    /// When the first sample of the breach failed.
    pub onset: Option<Time>,
    /// When it was decided.
    pub started: Time,
    /// When the target had been started.
    pub applied: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
    /// From the first failed sample until the target had been started: what users felt.
    pub onset_to_applied_seconds: Option<f64>,
    /// From the decision until the target had been started.
    pub decision_to_applied_seconds: Option<f64>,
    /// From the decision until it ended.
    pub duration_seconds: Option<f64>,
    /// The gates that were asked before it.
    pub gates: Vec<GateView>,
    /// What people were asked before it, and what they said; `null` if nobody was.
    #[serde(default)]
    pub approval: Option<ApprovalView>,
}

/// Answer to `GET /api/v1/rollbacks/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackDetailView {
    /// The rollback.
    #[serde(flatten)]
    pub rollback: RollbackView,
    /// Its journal, oldest first: every step as it began and ended.
    pub journal: Vec<JournalLineView>,
    /// Why the journal could not be read.
    pub journal_error: Option<String>,
}

/// One line of a rollback's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLineView {
    /// When.
    pub at: Time,
    /// What happened, in words.
    pub what: String,
}

/// Answer to `GET /api/v1/services/NAME/plan`: what a rollback would do, were it decided now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The service.
    pub service: String,
    /// What runs now.
    pub from: Option<ReleaseView>,
    /// Where it would go.
    pub to: ReleaseView,
    /// The steps in order, as sentences.
    pub steps: Vec<String>,
    /// What would differ from a faithful restore, or should be known before; usually empty.
    pub notes: Vec<String>,
    /// Which of the two is stopped or started first, and why; `null` where nothing runs, or an orchestrator decides it.
    #[serde(default)]
    pub order: Option<String>,
}

/// Body of `POST /api/v1/services/NAME/reports`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRequestBody {
    /// Who noticed it. Upper and lower case, and white space around it, make no difference.
    pub reporter: String,
    /// What is wrong, for whoever looks into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Answer to a report that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportView {
    /// The service.
    pub service: String,
    /// The reporter, as they are told from others.
    pub reporter: String,
    /// What became of it, in one sentence.
    pub answer: String,
    /// How many reporters are counted now; `null` if that is not known, or no row asks.
    pub counted: Option<u32>,
    /// How many the row wants.
    pub needed: Option<f64>,
    /// Within which time.
    pub within_seconds: Option<f64>,
}

/// Answer to a notification of alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsView {
    /// Alerts that are about a watched service.
    pub accepted: usize,
    /// Those services.
    pub services: Vec<String>,
    /// Alerts that are about none.
    pub unmatched: Vec<UnmatchedAlertView>,
    /// Alerts that were not looked at because there were too many of them.
    pub left_out: usize,
    /// Alerts that the sender left out.
    pub truncated: u64,
}

/// An alert that is about no watched service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmatchedAlertView {
    /// The alert with its labels.
    pub alert: String,
    /// Why it fits no service.
    pub why: String,
}

/// Body of `POST /api/v1/services/NAME/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequestBody {
    /// To which release: its id or its reference; the newest eligible one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, for the rollback log and the announcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who asks; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Go back although the target does not fit the schema of the database, and leave that as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_schema: bool,
    /// Only to see whether it works, away from production: what runs now is not condemned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drill: bool,
}

/// Body of `POST /api/v1/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequestBody {
    /// Which service; the whole fleet if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// For how long, `30m` or `2h`; until resumed if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who asks; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequestBody {
    /// Which service; the whole fleet if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Who asks; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Body of `POST /api/v1/services/NAME/unpin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpinRequestBody {
    /// Who asks; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Answer to an operator action that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerView {
    /// What was done, in one sentence.
    pub answer: String,
}

/// Every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What went wrong.
    pub error: String,
    /// What to do about it: a command, or what would be right.
    pub next: Option<String>,
}

/// Answer to `GET /healthz` and `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// Whether all is well.
    pub ok: bool,
    /// Why not, in words; empty when all is well.
    pub reasons: Vec<String>,
}
