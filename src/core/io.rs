//! The two sides of the core: what comes in, and what it asks to be done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::announcement::Announcement;
use super::approval::{Via, Word};
use super::availability::Availability;
use super::decision::Decision;
use super::ledger::{DeployNote, LedgerChange};
use super::migration::SchemaMove;
use super::observation::{Look, Observation};
use super::plan::Pin;
use super::release::{ApprovalId, MitigationId, Release, ReleaseId, ReplicaId, RollbackId, ServiceName};
use super::sample::{Measurement, Signal};
use super::settings::{FleetSettings, Mitigation, OpenWindow, SchemaQuery};
use super::time::Timestamp;

/// Everything the core learns. Each is handled with the time at which it happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Time passed: `poll_timeout` came.
    Tick,
    /// New settings of the fleet; a service's own settings come with its observation.
    Configured(FleetSettings),
    /// The default engine answers, or does not.
    Engine(EngineState),
    /// An engine with a name (`[engines.NAME]`) answers, or does not.
    EngineOf {
        /// Its name.
        engine: String,
        /// Whether it answers.
        state: EngineState,
    },
    /// The store takes writes, or does not, with the reason.
    Store(Result<(), String>),
    /// A full look at one engine: services of that engine that are not in it are gone.
    Looked(Look),
    /// A look at one service. An empty list of replicas: nothing runs.
    Observed(Observation),
    /// The main process of a replica ended.
    Exited {
        /// The service.
        service: ServiceName,
        /// The replica.
        replica: ReplicaId,
        /// Its exit code.
        code: i64,
        /// The kernel killed it for want of memory.
        oom: bool,
        /// Somebody asked for it: `docker stop`, `docker restart`, or ourselves.
        requested: bool,
    },
    /// Somebody changed containers of it in place, which is no deployment: `docker update`, `docker rename`, `docker network
    /// connect`.
    Respecified {
        /// The service.
        service: ServiceName,
    },
    /// A probe's result.
    Sampled {
        /// The service.
        service: ServiceName,
        /// The replica; none if the probe is for the service as a whole.
        replica: Option<ReplicaId>,
        /// What was measured.
        signal: Signal,
        /// Which of the service's checks, dependencies or alerts it is about; empty where there is only one source.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// The result.
        measurement: Measurement,
    },
    /// The windows that are open now; those that were are over.
    Windows(Vec<OpenWindow>),
    /// How the machine that we run on is: what no release is to blame for.
    Host(HostState),
    /// An [`Effect::Protect`] ended: the specification is durable and the image protected, or why not.
    Protected {
        /// The service.
        service: ServiceName,
        /// The release.
        release: ReleaseId,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// An [`Effect::CheckTarget`] ended.
    TargetChecked {
        /// The service.
        service: ServiceName,
        /// The release.
        release: ReleaseId,
        /// Whether its image can be had.
        availability: Availability,
    },
    /// An [`Effect::AskSchema`] ended.
    SchemaAnswered {
        /// The service.
        service: ServiceName,
        /// The release that ran when it was asked.
        release: ReleaseId,
        /// The version of the schema, or why it is not known.
        answer: Result<String, String>,
    },
    /// An [`Effect::Prepare`] ended: the target is ready, or why not.
    Prepared {
        /// Which.
        rollback: RollbackId,
        /// The service.
        service: ServiceName,
        /// Ready, or why not.
        result: Result<(), String>,
    },
    /// An [`Effect::RollBack`] ended.
    Executed {
        /// Which.
        rollback: RollbackId,
        /// The service.
        service: ServiceName,
        /// How.
        result: Executed,
    },
    /// An [`Effect::Mitigate`] ended.
    Mitigated {
        /// Which.
        id: MitigationId,
        /// The service.
        service: ServiceName,
        /// Done, with what is to be known about it, if anything; or why not.
        result: Result<String, String>,
    },
    /// What a rollback changed in a project's files was taken back.
    Unpinned {
        /// Number of the request of an [`Effect::Unpin`]; none if nobody asked for it, because a person wrote another
        /// release into the files.
        request: Option<u64>,
        /// Whose project.
        service: ServiceName,
        /// What was done, or why not.
        result: Result<String, String>,
    },
    /// Somebody asked for something; answered by [`Effect::Reply`] with the same number.
    Operator {
        /// Number of the request.
        request: u64,
        /// What.
        command: Command,
        /// Who.
        by: String,
    },
}

/// Whether the engine answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// It answers; `restarted` if its process is another one than before, or the event stream broke.
    Reachable {
        /// Containers may have been stopped and started by the engine itself.
        restarted: bool,
    },
    /// It does not answer.
    Unreachable {
        /// Why, for people.
        why: String,
    },
}

/// How the machine that we run on is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Why nothing can be reached from here, if it cannot: our own connectivity is gone.
    pub cut_off: Option<String>,
    /// What the machine itself is short of, if it is: memory, CPU or disk.
    pub pressure: Option<String>,
}

/// How the execution of a rollback ended. Success is not among these: that takes verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Executed {
    /// The target was started and its image and configuration are those of the known-good release.
    Applied {
        /// What differs from a faithful restore, for the announcement; usually nothing.
        notes: Vec<String>,
        /// What was changed in a project's files so that it lasts.
        #[serde(default)]
        pin: Option<Pin>,
        /// Which of the two was stopped or started first, and why, where that was ours to choose.
        #[serde(default)]
        order: Option<String>,
    },
    /// It did not begin: what runs is no longer what was judged, or the journal could not be written.
    Void {
        /// Why.
        why: String,
    },
    /// It failed and was undone: what ran before runs again.
    Unwound {
        /// What failed.
        why: String,
    },
    /// It failed and could not be undone: a person is needed.
    Stuck {
        /// What was and was not done.
        why: String,
    },
}

/// What an operator can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// Stop deciding, for one service or for all.
    Pause {
        /// Which; all if none.
        service: Option<ServiceName>,
        /// For how long; until resumed if none.
        duration: Option<Duration>,
        /// Why.
        why: String,
    },
    /// Go on: ends a pause, clears `Stuck`, resets the breaker.
    Resume {
        /// Which; the fleet if none.
        service: Option<ServiceName>,
    },
    /// Roll back now.
    Rollback {
        /// Which.
        service: ServiceName,
        /// To which release: its id or its reference; the newest eligible one if none.
        to: Option<String>,
        /// Why.
        why: String,
        /// How we know who asks.
        #[serde(default)]
        via: Via,
        /// Go back although the target does not fit the schema of the database.
        #[serde(default)]
        accept_schema: bool,
        /// Only to see whether it works: what runs now is not condemned, and is gone forward to again.
        #[serde(default)]
        drill: bool,
    },
    /// Say yes or no to what is asked about a service.
    Answer {
        /// Which service.
        service: ServiceName,
        /// Which question; whichever is open if none.
        question: Option<ApprovalId>,
        /// Yes or no.
        word: Word,
        /// Why.
        why: String,
        /// How we know who it is.
        via: Via,
    },
    /// A release that was rolled back may be judged like any other when it is deployed again.
    Unquarantine {
        /// Which service.
        service: ServiceName,
        /// Which release: its id or its reference.
        release: String,
        /// Why.
        why: String,
    },
    /// Whoever deploys says what is deployed, before or after it is seen.
    Deploying {
        /// What of.
        service: ServiceName,
        /// What they say.
        note: DeployNote,
    },
    /// Put the deadline off after which a rollback goes ahead.
    Extend {
        /// Which service.
        service: ServiceName,
        /// Which question; whichever is open if none.
        question: Option<ApprovalId>,
        /// By so much.
        span: Duration,
        /// Why.
        why: String,
        /// How we know who it is.
        via: Via,
    },
    /// Take back what a rollback changed in a project's files.
    Unpin {
        /// Whose.
        service: ServiceName,
    },
}

/// Everything the core wants done, in order. What is to be remembered comes before what depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Make this durable. If that fails, nothing after it in the same turn is done, but announcements.
    Remember(LedgerChange),
    /// Log and count a decision. It has been remembered already.
    Decided(Box<Decision>),
    /// Keep the specification of what runs now as the release's snapshot, and protect its image by a tag.
    /// Answered by [`Input::Protected`]: only then is the release known-good.
    Protect {
        /// The service.
        service: ServiceName,
        /// The release that passed its trial.
        release: Release,
        /// The known-good releases before it, newest first: their tags move down by one.
        older: Vec<Release>,
    },
    /// Drop the snapshot and the protecting tag of a release that is no longer kept.
    Unprotect {
        /// The service.
        service: ServiceName,
        /// The release.
        release: Release,
    },
    /// Find out whether the image of a known-good release can be had. Answered by [`Input::TargetChecked`].
    CheckTarget {
        /// The service.
        service: ServiceName,
        /// The release.
        release: Release,
        /// Fetch it if only the registry has it.
        fetch: bool,
    },
    /// Ask the database for the version of its schema. Answered by [`Input::SchemaAnswered`].
    AskSchema {
        /// The service.
        service: ServiceName,
        /// The release that runs.
        release: ReleaseId,
        /// How to ask.
        query: SchemaQuery,
    },
    /// Check or fetch the target's image and create the replacement without starting it.
    Prepare(RollbackRequest),
    /// The suspicion passed: remove what [`Effect::Prepare`] made.
    Discard {
        /// Which.
        rollback: RollbackId,
    },
    /// Do something less than a rollback. Answered by [`Input::Mitigated`].
    Mitigate {
        /// Which.
        id: MitigationId,
        /// The service.
        service: ServiceName,
        /// The release that runs. If something else runs when it begins, nothing is done.
        from: Release,
        /// What.
        what: Mitigation,
        /// Why, for hooks.
        why: String,
    },
    /// Carry the rollback out.
    RollBack(RollbackRequest),
    /// The rollback is over: remove what was set aside, close the journal.
    Close {
        /// Which.
        rollback: RollbackId,
        /// It is proved.
        #[serde(default)]
        proved: bool,
    },
    /// Take back what a rollback changed in a project's files. Answered by [`Input::Unpinned`].
    Unpin {
        /// Number of the request.
        request: u64,
        /// Whose.
        service: ServiceName,
        /// What was changed.
        pin: Pin,
    },
    /// Carry these out together, in this order, or none of them. Each is answered by [`Input::Executed`].
    RollBackTogether(Vec<RollbackRequest>),
    /// Look at everything now. Answered by [`Input::Looked`].
    Look,
    /// Look at one service now. Answered by [`Input::Observed`], or by [`Input::Looked`] if the engine knows nothing of
    /// it.
    Observe {
        /// Which.
        service: ServiceName,
    },
    /// Tell people.
    Announce(Announcement),
    /// Answer an operator.
    Reply {
        /// Number of the request.
        request: u64,
        /// What was done, or why not with the next command to type.
        answer: Result<String, String>,
    },
}

/// What the executor needs to know of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// Its identity: the same for preparation and execution.
    pub id: RollbackId,
    /// The service.
    pub service: ServiceName,
    /// What was judged. If something else runs when it begins, the request is void.
    pub from: Option<ReleaseId>,
    /// Where to go.
    pub to: Release,
    /// The most that the bad container gets to stop, unless its deployer set a stop timeout.
    pub stop_grace: Duration,
    /// When it was decided; none while it is only prepared.
    pub decided: Option<Timestamp>,
    /// Nothing was left of it when it was asked for: its containers ended, and went with that. If they went later, somebody
    /// removed them, and the request is void.
    #[serde(default)]
    pub vanished: bool,
    /// Why, for hooks; empty while it is only prepared.
    #[serde(default)]
    pub why: String,
    /// The database is downgraded as well: from which schema to which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downgrade: Option<SchemaMove>,
    /// It is no rollback: what runs is made anew with something set. Nobody is told of it by what comes of this request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mitigation: bool,
}
