//! Plans: what the executor will do, step by step, as data. A plan is persisted before its first step.
//!
//! A plan knows nothing of how its steps are carried out: that is the runtime's business. What it must never do is
//! lose something that recovery needs: whatever a step has to know after a crash is in the plan or in an output.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::release::{ImageId, Release, ReplicaId, RollbackId, ServiceName};
use super::settings::Hook;
use super::time::human;

mod insertion;

pub use insertion::Part;

/// The way from what runs now to a known-good release.
///
/// Steps run in order. `prepare <= pivot <= close <= steps.len()` always holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The rollback it belongs to; part of every temporary name.
    pub id: RollbackId,
    /// The service.
    pub service: ServiceName,
    /// What runs now; none if nothing is left of the service.
    pub from: Option<Release>,
    /// What runs afterwards.
    pub to: Release,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The first so many steps touch nothing that runs: they may be done on suspicion.
    pub prepare: usize,
    /// Once this many steps are done, the target runs everywhere and only forward is right. Before, a failure is undone.
    pub pivot: usize,
    /// Steps from this index on wait for verification.
    pub close: usize,
    /// What this plan cannot restore faithfully, for people; usually nothing.
    pub notes: Vec<String>,
    /// Which of the two is stopped or started first, and why; none where nothing runs, or an orchestrator decides it.
    #[serde(default)]
    pub order: Option<String>,
}

/// One step of a plan: a closed set. [`fmt::Display`] says it in an operator's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Check that the target's image is here; fetch it by digest if it is not. Yields [`StepOutput::Image`].
    EnsureImage {
        /// Its id.
        image: ImageId,
        /// Its reference, as the deployer typed it.
        reference: String,
        /// Registry digests to fetch it by.
        digests: Vec<String>,
    },
    /// Read what must be known of the old container to stop it quickly and to bring it back. Yields [`StepOutput::Old`].
    ProbeOld {
        /// Which.
        container: ReplicaId,
        /// Its name.
        name: String,
    },
    /// Create the replacement under a temporary name, without starting it. Yields [`StepOutput::Created`].
    CreateReplacement {
        /// The name it will have.
        name: String,
        /// The name it is created under: how a retry after a crash finds its own work.
        temp_name: String,
        /// The container it replaces; its anonymous volumes are carried over.
        old: Option<ReplicaId>,
        /// Everything the good container was, as recorded.
        specification: Specification,
    },
    /// Set the old container's restart policy to `no`, so that no engine restart brings it back. Yields [`StepOutput::Disarmed`].
    DisarmOld {
        /// Which.
        container: ReplicaId,
        /// Its name.
        name: String,
    },
    /// Stop the old container: the outage begins. Yields [`StepOutput::Stopped`].
    StopOld {
        /// Which.
        container: ReplicaId,
        /// Its name.
        name: String,
        /// The most it gets between its stop signal and SIGKILL, unless its deployer set a stop timeout.
        grace: Duration,
        /// It was running (or about to be restarted) when the plan was made: undoing starts it again.
        was_running: bool,
        /// Its replacement runs already.
        #[serde(default)]
        replaced: bool,
    },
    /// Rename the old container out of the way. Yields [`StepOutput::Done`].
    SetAsideOld {
        /// Which.
        container: ReplicaId,
        /// Its name.
        name: String,
        /// The name it gets.
        aside: String,
    },
    /// Give the replacement its name. Yields [`StepOutput::Done`].
    TakeName {
        /// Index of the step that created it.
        created: usize,
        /// The name it was created under.
        temp_name: String,
        /// The name it gets.
        name: String,
    },
    /// Start the replacement: the outage ends. Yields [`StepOutput::Done`].
    StartNew {
        /// Index of the step that created it.
        created: usize,
        /// Its name.
        name: String,
        /// The old one still runs.
        #[serde(default)]
        beside: bool,
    },
    /// Check that the replacement runs, stays up for a moment, and is what was asked for. Yields [`StepOutput::Running`].
    AwaitRunning {
        /// Index of the step that created it.
        created: usize,
        /// Its name.
        name: String,
        /// The old one still runs: it is worth waiting until the replacement serves.
        #[serde(default)]
        beside: bool,
    },
    /// Keep the old container's last log lines for the incident report. Yields [`StepOutput::Evidence`].
    SaveEvidence {
        /// Which.
        container: ReplicaId,
        /// Its name.
        name: String,
    },
    /// Point a tag at the good image, so that the next deployment by tag does not bring the bad one back.
    /// Yields [`StepOutput::Done`].
    PointTag {
        /// The tag.
        reference: String,
        /// The good image.
        image: ImageId,
    },
    /// Make the files of a Compose project say the release that runs now, so that the next `docker compose up` does not
    /// bring the bad one back. Yields [`StepOutput::Pinned`].
    PinProject {
        /// Whose files.
        project: ComposeProject,
        /// The reference that they say now, as the bad release was deployed by it.
        bad: String,
        /// The one that they are to say.
        good: String,
    },
    /// Check that there is a `docker compose` to let do the work. Yields [`StepOutput::Compose`].
    CheckCompose {
        /// The project that it is for.
        project: ComposeProject,
    },
    /// Let `docker compose up` make the containers of a service anew, by the project's files, which say the good release by
    /// now. Yields [`StepOutput::Done`].
    UpProject {
        /// Index of the step that found the command.
        checked: usize,
        /// Whose files.
        project: ComposeProject,
        /// What Compose made of the files when the release was good: what it makes of them now has to be the same.
        hash: String,
        /// How many containers there are to be.
        replicas: usize,
        /// Services that share a network with its containers, and are made anew with them.
        sharing: Vec<String>,
        /// Services that the good release depends on.
        #[serde(default)]
        needs: Vec<String>,
        /// The most that the old ones get between their stop signal and SIGKILL, unless they have a stop timeout.
        grace: Duration,
        /// How long all of them may take to stop.
        #[serde(default)]
        stops: Duration,
    },
    /// Restart what says that it is to be restarted with the service (`depends_on`, `restart: true`). Yields
    /// [`StepOutput::Told`].
    RestartDependants {
        /// The project.
        project: ComposeProject,
        /// The names of the containers.
        names: Vec<String>,
    },
    /// Make anew what lives with the replaced containers: in their network, among their processes, in their shared memory, or
    /// linked to them. It refers to them by id, and would stay with what is gone. Yields [`StepOutput::Told`].
    RemakeDependants {
        /// What was replaced, and the name by which what took its place is found.
        replaced: BTreeMap<ReplicaId, String>,
        /// What lives with it, in the order in which it is made anew.
        dependants: Vec<Dependant>,
        /// How long all of it may take to stop.
        stops: Duration,
    },
    /// Remove the old container; never its volumes. Yields [`StepOutput::Done`].
    RemoveOld {
        /// Which.
        container: ReplicaId,
        /// The name it was set aside under.
        name: String,
    },
    /// Check that an orchestrated service is there, and everything that its good specification refers to: an orchestrator
    /// takes a specification that it cannot carry out, and stops what runs for it. Yields [`StepOutput::Service`].
    CheckService {
        /// The orchestrator's id of the service.
        id: String,
        /// Its name.
        name: String,
        /// The good specification, as recorded.
        specification: Specification,
    },
    /// Give an orchestrated service its good specification: the orchestrator replaces the replicas. Yields
    /// [`StepOutput::Done`].
    UpdateService {
        /// Index of the step that holds the specification.
        checked: usize,
        /// The orchestrator's id of the service.
        id: String,
        /// Its name.
        name: String,
    },
    /// Wait until every replica of an orchestrated service is of the good specification, and stays up for a while. Yields
    /// [`StepOutput::Done`].
    AwaitConverged {
        /// Index of the step that holds the specification.
        checked: usize,
        /// The orchestrator's id of the service.
        id: String,
        /// Its name.
        name: String,
        /// The most that it may take.
        within: Duration,
    },
    /// Do what a person configured for this moment. Never taken back. Yields [`StepOutput::Hook`].
    RunHook {
        /// What.
        hook: Box<Hook>,
        /// The containers of the bad release, newest last: a one-off container is made like one of them.
        like: Vec<ReplicaId>,
        /// The good release's specification, for a one-off container, if it needs one.
        specification: Option<Specification>,
        /// The version that the schema has to have, where that is what is asked.
        expected: Option<String>,
    },
}

/// A container that lives with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependant {
    /// Which.
    pub container: ReplicaId,
    /// Its name.
    pub name: String,
    /// It ran when the plan was made.
    pub runs: bool,
}

/// Where the files of a Compose project are, as the labels of its containers tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComposeProject {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The service, as the files call it.
    pub service: String,
    /// The project's folder.
    pub directory: PathBuf,
    /// Its Compose files, in the order in which they are laid over each other.
    pub files: Vec<PathBuf>,
    /// The files of `--env-file`; none without it, which means `.env`.
    pub environment: Vec<PathBuf>,
}

/// What was changed in a project's files so that a rollback lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pin {
    /// A variable was set.
    Variable {
        /// The file.
        file: PathBuf,
        /// The variable.
        variable: String,
        /// Its value before; none if it was not set.
        was: Option<String>,
        /// Its value since.
        is: String,
    },
    /// An override file says the image: Compose reads it by itself, beside the file that it was started with.
    Override {
        /// The override file.
        file: PathBuf,
        /// The service, as the files call it.
        service: String,
        /// The image that it says.
        image: String,
    },
}

/// What a step yielded: recorded durably before the next step begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "output")]
pub enum StepOutput {
    /// Nothing that anybody needs to know later.
    Done,
    /// The target's image is here.
    Image {
        /// It had to be fetched.
        pulled: bool,
        /// Its id here; differs from the recorded one only if the image store was changed meanwhile.
        image: ImageId,
    },
    /// What the old container was like before it was touched.
    Old {
        /// Its restart policy, as JSON text.
        restart_policy: String,
        /// The engine removes it when it stops (`--rm`).
        auto_remove: bool,
        /// The stop timeout that its deployer set, in seconds: then it is waited for as long.
        stop_timeout: Option<u64>,
        /// Whether its main process can react to its stop signal; none if that could not be found out.
        reacts: Option<bool>,
        /// Its whole specification, if the engine will remove it: undoing creates it anew.
        specification: Option<Specification>,
        /// Its last log lines, if the engine will remove it.
        log: Vec<String>,
    },
    /// The replacement exists.
    Created {
        /// Its id.
        container: ReplicaId,
        /// What differs from a faithful restore; usually nothing.
        notes: Vec<String>,
    },
    /// The old container has no restart policy any more.
    Disarmed {
        /// The one it had, as JSON text; none if it was left as it is.
        restart_policy: Option<String>,
    },
    /// The old container is stopped.
    Stopped {
        /// How, for people: `killed at once: its main process does not react to SIGTERM`.
        how: String,
    },
    /// The replacement runs.
    Running {
        /// Its id.
        container: ReplicaId,
    },
    /// The old container's last words.
    Evidence {
        /// Its last log lines, oldest first.
        log: Vec<String>,
    },
    /// An orchestrated service is there, with everything that its good specification refers to.
    Service {
        /// What it was told to run before; undoing tells it so again.
        before: Specification,
    },
    /// There is a `docker compose`.
    Compose {
        /// The words that it is called by.
        command: Vec<String>,
    },
    /// A hook was run.
    Hook {
        /// How it ended, for people: `exit code 0 after 1.2s`.
        how: String,
        /// The end of what it printed.
        printed: String,
    },
    /// Nothing but words.
    Told {
        /// What was done, for the announcement.
        notes: Vec<String>,
    },
    /// A project's files say what runs, or cannot be made to.
    Pinned {
        /// What was changed, if anything.
        pin: Option<Pin>,
        /// What was done, or what a person has to do, for the announcement.
        notes: Vec<String>,
    },
}

impl Plan {
    /// Whether an orchestrator replaces the replicas, under ids of its own choice and whenever it likes: then only their
    /// releases tell whose they are.
    pub fn is_orchestrated(&self) -> bool {
        self.is_of_swarm() || self.steps.iter().any(|step| matches!(step, Step::UpProject { .. }))
    }

    /// Whether Swarm is that orchestrator.
    pub fn is_of_swarm(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::UpdateService { .. }))
    }
}

impl StepOutput {
    /// What differs from a faithful restore, for the announcement.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Created { notes, .. } | Self::Pinned { notes, .. } | Self::Told { notes } => notes,
            Self::Done
            | Self::Image { .. }
            | Self::Old { .. }
            | Self::Disarmed { .. }
            | Self::Stopped { .. }
            | Self::Running { .. }
            | Self::Service { .. }
            | Self::Compose { .. }
            | Self::Hook { .. }
            | Self::Evidence { .. } => &[],
        }
    }

    /// What was changed in a project's files.
    pub const fn pin(&self) -> Option<&Pin> {
        match self {
            Self::Pinned { pin, .. } => pin.as_ref(),
            Self::Done
            | Self::Image { .. }
            | Self::Old { .. }
            | Self::Created { .. }
            | Self::Disarmed { .. }
            | Self::Stopped { .. }
            | Self::Running { .. }
            | Self::Service { .. }
            | Self::Compose { .. }
            | Self::Told { .. }
            | Self::Hook { .. }
            | Self::Evidence { .. } => None,
        }
    }

    /// Log lines of the old container, for the incident report.
    pub fn log(&self) -> &[String] {
        match self {
            Self::Old { log, .. } | Self::Evidence { log } => log,
            Self::Done
            | Self::Image { .. }
            | Self::Created { .. }
            | Self::Disarmed { .. }
            | Self::Stopped { .. }
            | Self::Running { .. }
            | Self::Service { .. }
            | Self::Compose { .. }
            | Self::Told { .. }
            | Self::Hook { .. }
            | Self::Pinned { .. } => &[],
        }
    }
}

/// A recorded specification, as JSON text that only the runtime reads. Environments hold secrets: it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Specification(String);

impl Specification {
    /// Wraps JSON text.
    pub fn new(json: impl Into<String>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Specification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Specification({} bytes)", self.0.len())
    }
}

impl Step {
    /// The name used in the journal, metrics and the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::EnsureImage { .. } => "ensure_image",
            Self::ProbeOld { .. } => "probe_old",
            Self::CreateReplacement { .. } => "create_replacement",
            Self::DisarmOld { .. } => "disarm_old",
            Self::StopOld { .. } => "stop_old",
            Self::SetAsideOld { .. } => "set_aside_old",
            Self::TakeName { .. } => "take_name",
            Self::StartNew { .. } => "start_new",
            Self::AwaitRunning { .. } => "await_running",
            Self::SaveEvidence { .. } => "save_evidence",
            Self::PointTag { .. } => "point_tag",
            Self::PinProject { .. } => "pin_project",
            Self::CheckCompose { .. } => "check_compose",
            Self::UpProject { .. } => "up_project",
            Self::RestartDependants { .. } => "restart_dependants",
            Self::RemakeDependants { .. } => "remake_dependants",
            Self::RemoveOld { .. } => "remove_old",
            Self::CheckService { .. } => "check_service",
            Self::UpdateService { .. } => "update_service",
            Self::AwaitConverged { .. } => "await_converged",
            Self::RunHook { .. } => "run_hook",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureImage { image, reference, .. } => {
                write!(
                    f,
                    "check that the image {reference} ({}) is here, or fetch it by its digest",
                    short(image.as_str())
                )
            }
            Self::ProbeOld { container, name } => {
                write!(f, "find out how {name} ({}) takes its stop signal", short(container.as_str()))
            }
            Self::CreateReplacement { name, temp_name, .. } => {
                write!(f, "create the replacement of {name} as {temp_name}, without starting it")
            }
            Self::DisarmOld { container, name } => {
                write!(f, "set the restart policy of {name} ({}) to `no`", short(container.as_str()))
            }
            Self::StopOld { container, name, grace, replaced, .. } => write!(
                f,
                "stop {name} ({}), waiting {} at most unless it has a stop timeout of its own: {}",
                short(container.as_str()),
                human(*grace),
                if *replaced { "its replacement serves" } else { "the outage begins" }
            ),
            Self::SetAsideOld { name, aside, .. } => write!(f, "rename {name} to {aside}"),
            Self::TakeName { temp_name, name, .. } => write!(f, "rename {temp_name} to {name}"),
            Self::StartNew { name, beside: true, .. } => {
                write!(f, "start the replacement of {name} beside it")
            }
            Self::StartNew { name, .. } => write!(f, "start {name}: the outage ends"),
            Self::AwaitRunning { name, beside, .. } => {
                let serves = if *beside { " and serves" } else { "" };
                write!(f, "check that {name} stays up{serves}, with the good image and configuration")
            }
            Self::SaveEvidence { name, .. } => write!(f, "keep the last log lines of {name}"),
            Self::PointTag { reference, image } => {
                write!(f, "point the tag {reference} at {}", short(image.as_str()))
            }
            Self::PinProject { project, good, .. } => write!(
                f,
                "set the image of {} back to {good} in the project's files at {}",
                project.service,
                project.directory.display()
            ),
            Self::CheckCompose { project } => {
                write!(f, "check that `docker compose` can be run for the project {}", project.name)
            }
            Self::UpProject { project, sharing, replicas, .. } => {
                f.write_str(&up(&project.service, sharing, *replicas))
            }
            Self::RestartDependants { names, .. } => {
                write!(f, "restart {}, if it runs: its `depends_on` says so", names.join(", "))
            }
            Self::RemakeDependants { dependants, .. } => f.write_str(&remade(dependants)),
            Self::RemoveOld { name, .. } => write!(f, "remove {name}, keeping its volumes"),
            Self::CheckService { name, .. } => {
                write!(f, "check that the secrets, configs and networks of the good {name} are there")
            }
            Self::UpdateService { name, .. } => write!(
                f,
                "give the service {name} its good specification back, with as many replicas as it has now"
            ),
            Self::AwaitConverged { name, within, .. } => write!(
                f,
                "wait until every replica of {name} runs the good release and stays up, {} at most",
                human(*within)
            ),
            Self::RunHook { hook, .. } => hook.fmt(f),
        }
    }
}

fn up(service: &str, sharing: &[String], replicas: usize) -> String {
    let more: String = sharing.iter().map(|other| format!(" {other}")).collect();
    format!(
        "run `docker compose up --no-start {service}{more}`, start them, and check that {replicas} of {service} stay up with the good image and configuration"
    )
}

fn remade(dependants: &[Dependant]) -> String {
    let names: Vec<&str> = dependants.iter().map(|one| one.name.as_str()).collect();
    format!("make {} anew, which would stay tied to what was replaced", names.join(", "))
}

/// Ids as people read them: twelve digits, without the algorithm.
fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_read_as_an_operator_speaks() {
        let id = ReplicaId::new("3fa9c1d2e4b7aa00aa00");
        let stop = Step::StopOld {
            container: id,
            name: "shop".into(),
            grace: Duration::from_secs(3),
            was_running: true,
            replaced: false,
        };
        assert_eq!(
            stop.to_string(),
            "stop shop (3fa9c1d2e4b7), waiting 3s at most unless it has a stop timeout of its own: the outage begins"
        );
    }

    #[test]
    fn a_specification_is_never_printed() {
        let step = Step::CreateReplacement {
            name: "shop".into(),
            temp_name: "shop.rbnew-1".into(),
            old: None,
            specification: Specification::new(r#"{"Env":["PASSWORD=hunter2"]}"#),
        };
        assert!(!format!("{step:?} {step}").contains("hunter2"));
    }
}
