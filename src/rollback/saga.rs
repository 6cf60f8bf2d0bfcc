//! One rollback being carried out: forward, backward, closing.
//!
//! Every step is announced durably before it is begun. If the journal stops taking writes, nothing new is begun:
//! what was begun is finished by the safest way, and the events that could not be written are kept and written
//! as soon as that is possible again, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::SagaStore;
use super::hooks::HookRunner;
use super::journal::{JOURNAL_VERSION, JournalEvent, Phase, SagaState, StepStatus};
use crate::core::observation::{self, Observation, Replica};
use crate::core::plan::{Plan, Step, StepOutput};
use crate::core::release::{ReplicaId, RollbackId};
use crate::core::{Executed, RollbackRequest, Timestamp};
use crate::runtime::{ErrorClass, Runtime, RuntimeError};

mod hooked;

/// How long an engine that does not answer is waited for, one step forward: longer than a restart of the engine takes.
const FORWARD_PATIENCE: Duration = Duration::from_secs(60);

/// The same for a step back: nothing better is left to do, and a person needs that long to bring an engine back.
const UNDO_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The same on suspicion: a decision may be waiting, and will try for itself.
const PREPARE_PATIENCE: Duration = Duration::from_secs(5);

/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Taking back is tried this often even if the engine refuses: a lock held for a moment, a removal under way.
const UNDO_ATTEMPTS: u32 = 4;

/// An append is tried this often: a busy store is not a broken one.
const APPEND_ATTEMPTS: u32 = 3;
const APPEND_PAUSE: Duration = Duration::from_millis(50);

/// Fetching an image over a slow line, and whatever stops containers: longer yet if their deployer allowed them more.
const LONG_STEP: Duration = Duration::from_secs(10 * 60);

/// A look at one service takes milliseconds; what goes on in an engine that takes longer is not worth waiting for.
const OBSERVE: Duration = Duration::from_secs(10);

/// Any other step takes milliseconds, on a struggling disk seconds.
const SHORT_STEP: Duration = Duration::from_secs(2 * 60);

/// What came of going backward.
#[derive(Debug)]
pub(super) enum Unwound {
    /// Nothing of the plan is left.
    Clean,
    /// What was left alone because a newer deployment runs; perhaps nothing.
    Superseded(Vec<String>),
    /// What could not be taken back, for people.
    Incomplete(String),
}

/// Who does what a rollback needs.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) store: Arc<dyn SagaStore>,
    pub(super) hooks: Arc<dyn HookRunner>,
}

/// A rollback with everything that it takes to carry it out.
#[derive(Debug)]
pub(super) struct Saga {
    tools: Tools,
    state: SagaState,
    /// Events that are not durable yet, oldest first. Bounded: a saga has a few events a step.
    backlog: VecDeque<JournalEvent>,
    /// Why the journal could not be written, the first time.
    unwritten: Option<String>,
    /// Something was done, or may have been, that a user of the service could notice.
    touched: bool,
    /// The target cannot be had, whoever asks: its image, or something that it needs, is not here.
    hopeless: bool,
}

impl Saga {
    /// Makes a new plan durable.
    pub(super) async fn open(tools: Tools, plan: Plan, request: &RollbackRequest) -> Result<Self, String> {
        let planned = planned(plan, request);
        let state = SagaState::begin(&planned).map_err(|e| e.to_string())?;
        append(tools.store.as_ref(), &state, &planned).await?;
        Ok(Self::resume(tools, state))
    }

    /// Goes on where a journal ends.
    pub(super) fn resume(tools: Tools, state: SagaState) -> Self {
        let touched = state.has_touched();
        Self { touched, hopeless: false, tools, state, backlog: VecDeque::new(), unwritten: None }
    }

    pub(super) const fn state(&self) -> &SagaState {
        &self.state
    }

    /// Puts another plan into the journal of this one, of which nothing may be left.
    pub(super) async fn replan(&mut self, plan: Plan, request: &RollbackRequest) -> Result<(), String> {
        self.record(planned(plan, request)).await
    }

    /// Carries out what touches nothing that runs. Takes it back if a part of it fails.
    pub(super) async fn prepare(&mut self) -> Result<(), String> {
        for step in 0..self.state.plan.prepare {
            if let Err(e) = self.forward(step, PREPARE_PATIENCE).await {
                let left = self.unwind(false).await;
                return Err(match left {
                    Unwound::Clean | Unwound::Superseded(_) => e,
                    Unwound::Incomplete(left) => format!("{e}; {left}"),
                });
            }
        }
        Ok(())
    }

    /// Notes that the decision fell.
    pub(super) async fn decide(
        &mut self,
        at: Timestamp,
        together: Vec<RollbackId>,
        why: String,
    ) -> Result<(), String> {
        self.record(JournalEvent::Decided { at, together, why }).await
    }

    /// Goes forward as long as it can still be taken back. Whether that is right is for others to say as well.
    pub(super) async fn reach_pivot(&mut self) -> Result<(), String> {
        for step in 0..self.state.plan.pivot {
            self.forward(step, FORWARD_PATIENCE).await?;
        }
        Ok(())
    }

    /// Goes forward until the target runs, or back.
    pub(super) async fn act(&mut self) -> Executed {
        for step in 0..self.state.plan.close {
            let failed = match self.state.failed_hook(step) {
                None if self.state.is_settled(step) => continue,
                None => self.forward(step, FORWARD_PATIENCE).await,
                // It failed before a crash, and that is not forgotten: it was not to go on without it.
                Some(why) => Err(why),
            };
            let Err(why) = failed else { continue };
            if !self.state.is_past_pivot() {
                return self.give_up(why).await;
            }
            if self.state.plan.hook(step).is_some() {
                // Going back would be wrong, and going on was not to be without it.
                let told = self.state.told_of_hooks() + &self.state.told_of_leftovers();
                let why = format!("{why}; {} runs{told}", self.state.plan.to);
                return self.end(Executed::Stuck { why }).await;
            }
        }
        self.record_anyway(JournalEvent::Applied).await;
        self.applied()
    }

    /// Goes back after a failure, and says how that ended.
    pub(super) async fn give_up(&mut self, why: String) -> Executed {
        // Somebody may have deployed meanwhile, and that may be why it failed.
        let foreign = self.observe().await.and_then(|now| self.foreign(&now).cloned());
        self.go_back(why, foreign.as_ref()).await
    }

    /// Goes back, around the newer deployment if there is one, and says how that ended.
    pub(super) async fn go_back(&mut self, why: String, foreign: Option<&Replica>) -> Executed {
        let why = why + &self.state.told_of_hooks();
        let withdrawn = foreign.is_none() && self.is_withdrawn().await;
        let result = match self.unwind(foreign.is_some() || withdrawn).await {
            // What this target lacks it will lack each time: it counts as tried, so that an older one has its turn.
            Unwound::Clean if self.touched || self.hopeless => Executed::Unwound { why },
            Unwound::Clean => Executed::Void { why },
            Unwound::Superseded(left) => Executed::Void { why: superseded(&why, foreign, &left) },
            Unwound::Incomplete(left) => Executed::Stuck { why: format!("{why}; {left}") },
        };
        self.end(result).await
    }

    /// Writes down how it ended, if it can be written.
    pub(super) async fn end(&mut self, result: Executed) -> Executed {
        self.record_anyway(JournalEvent::Ended { result: result.clone() }).await;
        result
    }

    /// Whether somebody removed the service in the middle of it, all of it: then they want nothing to run.
    async fn is_withdrawn(&self) -> bool {
        self.state.removed && self.observe().await.is_some_and(|now| !now.replicas.iter().any(is_up))
    }

    /// Takes back whatever may be in effect, last step first. If somebody deployed or removed it meanwhile (`newer`), takes
    /// back only what we made, and leaves alone what was theirs to replace or to remove.
    pub(super) async fn unwind(&mut self, newer: bool) -> Unwound {
        let mut left_alone = Vec::new();
        while let Some(step) = self.state.next_undo() {
            if newer && self.is_replaced(step) {
                if self.state.steps[step] == StepStatus::Succeeded || !self.state.removed {
                    left_alone.extend(describe_left_alone(&self.state.plan.steps[step]));
                }
                self.record_anyway(JournalEvent::LeftAlone { step }).await;
                continue;
            }
            if self.state.steps[step] != StepStatus::Undoing {
                self.record_anyway(JournalEvent::UndoStarted { step }).await;
            }
            match self.undo(step).await {
                Ok(()) => self.record_anyway(JournalEvent::UndoFinished { step }).await,
                // One of several replicas that somebody removed does not come back.
                Err(RuntimeError { class: ErrorClass::NotFound, .. }) if self.state.removed => {
                    self.record_anyway(JournalEvent::UndoFinished { step }).await;
                }
                // A leftover that nobody notices is not worth a person's night: it is tried again later.
                Err(RuntimeError { message, .. }) if self.state.request.decided.is_none() => {
                    return Unwound::Incomplete(message);
                }
                Err(RuntimeError { message, .. }) => {
                    self.record_anyway(JournalEvent::UndoFailed { step, message }).await;
                    // Something that serves beats nothing: as long as nothing does, the rest is tried all the same.
                    if self.something_runs().await {
                        break;
                    }
                }
            }
        }
        if self.state.undo_failures().next().is_some() {
            return Unwound::Incomplete(self.what_is_left());
        }
        if newer {
            return Unwound::Superseded(left_alone);
        }
        Unwound::Clean
    }

    /// Carries out the closing steps, and closes the journal if they all succeeded. Yields the last log lines of
    /// what was replaced.
    pub(super) async fn close(&mut self, proved: bool) -> Vec<String> {
        let over = matches!(self.state.phase, Phase::Applied | Phase::Ended(_));
        if over && self.state.awaits_conclusion() {
            self.record_anyway(JournalEvent::Concluded { proved }).await;
        }
        let failed = matches!(self.state.phase, Phase::Ended(_));
        if self.state.phase == Phase::Applied || (failed && self.touched) {
            for step in self.state.plan.close..self.state.plan.steps.len() {
                let of_success = failed && self.state.plan.hook(step).is_none();
                if of_success || self.state.is_over(step) {
                    continue;
                }
                if let Err(why) = self.forward(step, FORWARD_PATIENCE).await {
                    tracing::warn!(rollback = %self.state.id(), %why, "a closing step failed; it is tried again when backstop starts");
                }
            }
        }
        let how = match &self.state.phase {
            Phase::Applied if self.state.is_closed_up() => "applied".to_owned(),
            Phase::Applied => return self.log(),
            Phase::Ended(result) => ended(result).to_owned(),
            Phase::Preparing | Phase::Unwinding | Phase::Acting => "discarded".to_owned(),
            Phase::Closed => return self.log(),
        };
        self.forget_hooks().await;
        if self.state.check(&JournalEvent::Closed { how: how.clone() }).is_ok() {
            self.record_anyway(JournalEvent::Closed { how }).await;
        }
        self.log()
    }

    /// Whether nothing is left to do or to write.
    pub(super) fn is_closed(&self) -> bool {
        self.state.phase == Phase::Closed && self.backlog.is_empty()
    }

    /// Whether it may go on with what was prepared: what runs is what was planned for.
    pub(super) fn still_fits(&self, now: &Observation, request: &RollbackRequest) -> bool {
        let (state, mut olds) = (&self.state, olds(&self.state.plan));
        let mut asked = state.request.clone();
        asked.decided = request.decided;
        asked.why.clone_from(&request.why);
        let mut runs: Vec<_> = now.replicas.iter().map(|r| &r.id).collect();
        runs.sort_unstable();
        olds.sort_unstable();
        olds.dedup();
        let from = state.plan.from.as_ref().map(|from| &from.id);
        let same = if state.plan.is_orchestrated() {
            now.replicas.iter().all(|r| Some(&r.release.id) == from)
        } else {
            olds == runs
        };
        // Undoing would not start what was down when the plan was made.
        let came_up = state.plan.steps.iter().any(|step| {
            matches!(step, Step::StopOld { container, was_running: false, .. }
                if now.replicas.iter().any(|r| r.id == *container && is_up(r)))
        });
        state.phase == Phase::Preparing
            && state.next_step().is_none_or(|step| step >= state.plan.prepare)
            && asked == *request
            && same
            && !came_up
    }

    /// A replica that neither the plan nor we made: somebody deployed.
    pub(super) fn foreign<'a>(&self, now: &'a Observation) -> Option<&'a Replica> {
        let state = &self.state;
        if state.plan.is_orchestrated() {
            let from = state.plan.from.as_ref().map(|from| &from.id);
            let ours = |r: &Replica| r.release.id == state.plan.to.id || Some(&r.release.id) == from;
            return now.replicas.iter().find(|replica| !ours(replica));
        }
        let mut known = olds(&state.plan);
        let mut recreates = false;
        for output in state.outputs.iter().flatten() {
            match output {
                StepOutput::Created { container, .. } | StepOutput::Running { container } => {
                    known.push(container);
                }
                // Taking back creates it anew, under another id.
                StepOutput::Old { auto_remove, .. } => recreates |= auto_remove,
                StepOutput::Done
                | StepOutput::Image { .. }
                | StepOutput::Disarmed { .. }
                | StepOutput::Stopped { .. }
                | StepOutput::Evidence { .. }
                | StepOutput::Service { .. }
                | StepOutput::Compose { .. }
                | StepOutput::Hook { .. }
                | StepOutput::Told { .. }
                | StepOutput::Pinned { .. } => {}
            }
        }
        now.replicas.iter().find(|replica| {
            if known.contains(&&replica.id) {
                return false;
            }
            if replica.release.id == state.plan.to.id {
                // Ours too if a crash came between its creation and the record of it; but then it does not run.
                return is_up(replica);
            }
            !recreates || state.plan.from.as_ref().map(|r| &r.id) != Some(&replica.release.id)
        })
    }

    /// What is said of a rollback whose target runs.
    pub(super) fn applied(&self) -> Executed {
        let mut notes = self.state.notes();
        if let (Some(why), false) = (&self.unwritten, self.backlog.is_empty()) {
            notes.push(format!("the journal could not be written: {why}"));
        }
        Executed::Applied { notes, pin: self.state.pin(), order: self.state.plan.order.clone() }
    }

    async fn forward(&mut self, step: usize, patience: Duration) -> Result<(), String> {
        if self.state.steps[step] == StepStatus::Succeeded {
            return Ok(());
        }
        if self.state.plan.hook(step).is_some() {
            return self.run_hook(step).await;
        }
        let name = self.state.plan.steps[step].to_string();
        let begun = match self.state.steps[step] {
            StepStatus::Started => Ok(()),
            _ => self.record(JournalEvent::Started { step }).await,
        };
        let applied = match begun {
            Ok(()) => {
                self.touched |= step >= self.state.plan.prepare;
                self.apply(step, patience).await
            }
            // Not durable, so not done.
            Err(message) => Err(RuntimeError { class: ErrorClass::Transient, message }),
        };
        match applied {
            Ok(output) => {
                let durable = self.record(JournalEvent::Succeeded { step, output }).await;
                match durable {
                    // The target runs: going back would undo what is right.
                    Err(_) if self.state.is_past_pivot() => Ok(()),
                    Err(why) => Err(format!("went no further than to {name}: {why}")),
                    Ok(()) => Ok(()),
                }
            }
            Err(RuntimeError { class, message }) => {
                self.hopeless |=
                    is_of_the_target(&self.state.plan.steps[step]) && class == ErrorClass::Permanent;
                let why = format!("could not {name}: {message}");
                let output = String::new();
                self.record_anyway(JournalEvent::Failed { step, class, message, output }).await;
                Err(why)
            }
        }
    }

    async fn apply(&self, step: usize, patience: Duration) -> Result<StepOutput, RuntimeError> {
        let (state, mut waited, mut pause) = (&self.state, Duration::ZERO, PAUSE.0);
        let plan_step = &state.plan.steps[step];
        let deadline = deadline(state, plan_step);
        loop {
            let applying = self.tools.runtime.apply(&state.plan, plan_step, &state.outputs);
            let e = match tokio::time::timeout(deadline, applying).await {
                Ok(Ok(output)) => return Ok(output),
                Ok(Err(e)) => e,
                Err(_) => {
                    waited += deadline;
                    too_late(deadline)
                }
            };
            if e.class != ErrorClass::Transient || waited >= patience {
                return Err(e);
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn undo(&self, step: usize) -> Result<(), RuntimeError> {
        if self.state.plan.hook(step).is_some() {
            self.forget_hook(step).await;
            return Ok(());
        }
        let (state, mut waited, mut pause) = (&self.state, Duration::ZERO, PAUSE.0);
        let (plan_step, output) = (&state.plan.steps[step], state.outputs[step].as_ref());
        let deadline = deadline(state, plan_step);
        let patience = if state.request.decided.is_some() { UNDO_PATIENCE } else { PREPARE_PATIENCE };
        let mut attempts = 0;
        loop {
            let undoing = self.tools.runtime.undo(&state.plan, plan_step, output, &state.outputs);
            let e = match tokio::time::timeout(deadline, undoing).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => e,
                Err(_) => {
                    waited += deadline;
                    too_late(deadline)
                }
            };
            attempts += 1;
            let go_on = match e.class {
                ErrorClass::Transient => waited < patience,
                ErrorClass::Permanent | ErrorClass::NotFound | ErrorClass::Conflict | ErrorClass::Removed => {
                    attempts < UNDO_ATTEMPTS
                }
            };
            if !go_on {
                let message = format!("could not take back \"{plan_step}\": {}", e.message);
                return Err(RuntimeError { message, ..e });
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Whether a newer deployment makes it wrong to take this step back: what it did was to the container that
    /// the deployment replaced.
    fn is_replaced(&self, step: usize) -> bool {
        let stopped = |id: &ReplicaId| {
            self.state.plan.steps.iter().zip(&self.state.steps).any(|(step, status)| {
                matches!(step, Step::StopOld { container, .. } if container == id)
                    && !matches!(status, StepStatus::Pending | StepStatus::Undone)
            })
        };
        match &self.state.plan.steps[step] {
            Step::StopOld { .. } | Step::SetAsideOld { .. } => true,
            Step::DisarmOld { container, .. } => stopped(container),
            // Whoever takes it back looks first whether it is still ours; what is not there at all, it would start.
            Step::UpProject { .. } => self.state.removed,
            Step::EnsureImage { .. }
            | Step::ProbeOld { .. }
            | Step::CreateReplacement { .. }
            | Step::TakeName { .. }
            | Step::StartNew { .. }
            | Step::AwaitRunning { .. }
            | Step::SaveEvidence { .. }
            | Step::PointTag { .. }
            | Step::PinProject { .. }
            | Step::RemoveOld { .. }
            | Step::CheckCompose { .. }
            | Step::RestartDependants { .. }
            | Step::RemakeDependants { .. }
            | Step::CheckService { .. }
            // Whoever takes it back looks first whether it is still ours.
            | Step::UpdateService { .. }
            | Step::AwaitConverged { .. }
            | Step::RunHook { .. } => false,
        }
    }

    async fn something_runs(&self) -> bool {
        let now = self.observe().await;
        now.is_some_and(|now| now.replicas.iter().any(is_up))
    }

    /// What runs, if the engine says so soon.
    async fn observe(&self) -> Option<Observation> {
        let observing = self.tools.runtime.observe(&self.state.plan.service);
        tokio::time::timeout(OBSERVE, observing).await.ok()?.ok()
    }

    /// What could not be taken back, and the command to look at it with.
    fn what_is_left(&self) -> String {
        let steps = &self.state.plan.steps;
        let failures: Vec<_> = self.state.undo_failures().map(|(_, why)| why).collect();
        let rest: Vec<_> = (0..steps.len())
            .rev()
            .filter(|i| {
                matches!(
                    self.state.steps[*i],
                    StepStatus::Started | StepStatus::Succeeded | StepStatus::Failed(_) | StepStatus::Undoing
                )
            })
            .map(|i| format!("\"{}\"", steps[i]))
            .collect();
        let service = &self.state.plan.service;
        let mut text = failures.join("; ");
        if !rest.is_empty() {
            text += &format!("; not taken back, because something runs: {}", rest.join(", "));
        }
        let look = if self.state.plan.is_of_swarm() {
            format!("docker service ps {service}")
        } else {
            format!("docker ps -a --filter name={service}")
        };
        text + &format!("; look with `{look}`, put it right, then `backstop resume {service}`")
    }

    fn log(&self) -> Vec<String> {
        let outputs = self.state.outputs.iter().flatten();
        outputs.flat_map(StepOutput::log).cloned().collect()
    }

    /// Makes an event part of the state, durably; without error it may be acted upon.
    async fn record(&mut self, event: JournalEvent) -> Result<(), String> {
        self.state.check(&event).map_err(|e| e.to_string())?;
        self.state.apply(&event);
        self.backlog.push_back(event);
        self.flush().await
    }

    /// The same where it has to go on in any case.
    async fn record_anyway(&mut self, event: JournalEvent) {
        let name = event.name();
        if let Err(why) = self.record(event).await {
            tracing::error!(rollback = %self.state.id(), event = name, %why, "the journal could not be written");
        }
    }

    async fn flush(&mut self) -> Result<(), String> {
        while let Some(event) = self.backlog.front() {
            if let Err(why) = append(self.tools.store.as_ref(), &self.state, event).await {
                self.unwritten.get_or_insert_with(|| why.clone());
                return Err(format!("the journal could not be written: {why}"));
            }
            self.backlog.pop_front();
        }
        Ok(())
    }
}

fn planned(plan: Plan, request: &RollbackRequest) -> JournalEvent {
    JournalEvent::Planned {
        version: JOURNAL_VERSION,
        plan: Box::new(plan),
        // That it was decided is an event of its own: until it is durable, nothing was decided.
        request: Box::new(RollbackRequest { decided: None, ..request.clone() }),
    }
}

async fn append(store: &dyn SagaStore, state: &SagaState, event: &JournalEvent) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        match store.append(state.id(), event).await {
            Ok(()) => return Ok(()),
            Err(why) if attempt == APPEND_ATTEMPTS => return Err(why),
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(APPEND_PAUSE).await;
            }
        }
    }
}

/// Whether a step asks for what the target needs, so that it fails for good where that is not there.
const fn is_of_the_target(step: &Step) -> bool {
    matches!(step, Step::EnsureImage { .. } | Step::CreateReplacement { .. } | Step::CheckService { .. })
}

/// The most that a step may take. One that is cut off while the engine goes on with it would be taken back in vain.
fn deadline(state: &SagaState, step: &Step) -> Duration {
    match step {
        Step::EnsureImage { .. } | Step::RestartDependants { .. } => LONG_STEP,
        Step::StopOld { container, .. } => {
            LONG_STEP.max(stops_within(state, container).saturating_add(SHORT_STEP))
        }
        Step::UpProject { stops, .. } | Step::RemakeDependants { stops, .. } => {
            LONG_STEP.max(stops.saturating_add(2 * SHORT_STEP))
        }
        // It ends by itself then, and says how far it came.
        Step::AwaitConverged { within, .. } => within.saturating_add(SHORT_STEP),
        Step::RunHook { hook, .. } => hook.timeout.saturating_add(SHORT_STEP),
        Step::ProbeOld { .. }
        | Step::CreateReplacement { .. }
        | Step::DisarmOld { .. }
        | Step::SetAsideOld { .. }
        | Step::TakeName { .. }
        | Step::StartNew { .. }
        | Step::AwaitRunning { .. }
        | Step::SaveEvidence { .. }
        | Step::PointTag { .. }
        | Step::PinProject { .. }
        | Step::RemoveOld { .. }
        | Step::CheckCompose { .. }
        | Step::CheckService { .. }
        | Step::UpdateService { .. } => SHORT_STEP,
    }
}

/// The stop timeout that a container's deployer set, as it was found when the plan was begun.
fn stops_within(state: &SagaState, container: &ReplicaId) -> Duration {
    let steps = state.plan.steps.iter().zip(&state.outputs);
    let set = steps.filter_map(|(step, output)| match (step, output) {
        (Step::ProbeOld { container: old, .. }, Some(StepOutput::Old { stop_timeout, .. }))
            if old == container =>
        {
            *stop_timeout
        }
        _ => None,
    });
    set.map(Duration::from_secs).max().unwrap_or_default()
}

fn too_late(deadline: Duration) -> RuntimeError {
    RuntimeError {
        class: ErrorClass::Transient,
        message: format!("the engine took longer than {}", crate::core::time::human(deadline)),
    }
}

/// The containers that a plan replaces.
fn olds(plan: &Plan) -> Vec<&ReplicaId> {
    let containers = plan.steps.iter().filter_map(|step| match step {
        Step::ProbeOld { container, .. }
        | Step::DisarmOld { container, .. }
        | Step::StopOld { container, .. }
        | Step::SetAsideOld { container, .. }
        | Step::SaveEvidence { container, .. }
        | Step::RemoveOld { container, .. } => Some(container),
        Step::CreateReplacement { old, .. } => old.as_ref(),
        Step::EnsureImage { .. }
        | Step::TakeName { .. }
        | Step::StartNew { .. }
        | Step::AwaitRunning { .. }
        | Step::PointTag { .. }
        | Step::PinProject { .. }
        | Step::CheckCompose { .. }
        | Step::UpProject { .. }
        | Step::RestartDependants { .. }
        | Step::RemakeDependants { .. }
        | Step::CheckService { .. }
        | Step::UpdateService { .. }
        | Step::AwaitConverged { .. }
        | Step::RunHook { .. } => None,
    });
    containers.collect()
}

fn is_up(replica: &Replica) -> bool {
    use observation::Phase as P;
    match replica.phase {
        P::Running | P::Restarting | P::Paused => true,
        P::Created | P::Exited | P::Gone => false,
    }
}

fn describe_left_alone(step: &Step) -> Option<String> {
    if let Step::SetAsideOld { name, aside, .. } = step {
        return Some(format!(
            "{name} was left stopped, perhaps as {aside}: remove it with `docker rm {aside}`"
        ));
    }
    None
}

fn superseded(why: &str, foreign: Option<&Replica>, left: &[String]) -> String {
    let newer = foreign.map_or_else(
        || "; nothing is started again, for that was somebody's decision".to_owned(),
        |r| format!("; {} was deployed meanwhile as {}", r.release, r.name),
    );
    let left = left.iter().map(|l| format!("; {l}")).collect::<String>();
    format!("{why}{newer}{left}")
}

const fn ended(result: &Executed) -> &'static str {
    match result {
        Executed::Applied { .. } => "applied",
        Executed::Void { .. } => "void",
        Executed::Unwound { .. } => "unwound",
        Executed::Stuck { .. } => "stuck",
    }
}
