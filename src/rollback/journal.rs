//! The journal of one rollback: what was intended and what came of it, as events, and the state they add up to.
//!
//! This is an intent log, not a debug log: every event is durable before what it announces is done, so that a
//! restarted daemon knows the most that can have happened. The state is a fold over the events; [`SagaState::check`]
//! holds every legal move. An illegal event is an error, never a panic: the daemon must be able to say
//! "this journal makes no sense" and leave the containers alone.
//!
//! It does no IO.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::plan::{Pin, Plan, StepOutput};
use crate::core::release::RollbackId;
use crate::core::{Executed, RollbackRequest, Timestamp};
use crate::runtime::ErrorClass;

pub use super::tell::tell;

/// The format that this program writes and understands.
pub const JOURNAL_VERSION: u32 = 1;

/// One event in the life of a rollback, in the past tense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum JournalEvent {
    /// A plan was made. The first event; again, if nothing of the plan before it is left.
    Planned {
        /// [`JOURNAL_VERSION`].
        version: u32,
        /// What will be done. Self-contained: recovery needs nothing else.
        plan: Box<Plan>,
        /// What was asked for.
        request: Box<RollbackRequest>,
    },
    /// The decision fell: from here on it is carried out, not only prepared.
    Decided {
        /// When it was decided.
        at: Timestamp,
        /// The rollbacks that are carried out together with it, all or none, in their order; empty if it is alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        together: Vec<RollbackId>,
        /// Why, for hooks.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// A step is about to be carried out.
    Started {
        /// Its index in the plan.
        step: usize,
    },
    /// A step was carried out.
    Succeeded {
        /// Its index in the plan.
        step: usize,
        /// What it yielded.
        output: StepOutput,
    },
    /// A step was given up. It may have taken effect all the same.
    Failed {
        /// Its index in the plan.
        step: usize,
        /// What kind of failure.
        class: ErrorClass,
        /// For people.
        message: String,
        /// The end of what it printed, if it was a hook.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        output: String,
    },
    /// A step is about to be taken back.
    UndoStarted {
        /// Its index in the plan.
        step: usize,
    },
    /// A step was taken back.
    UndoFinished {
        /// Its index in the plan.
        step: usize,
    },
    /// Taking a step back was given up.
    UndoFailed {
        /// Its index in the plan.
        step: usize,
        /// For people.
        message: String,
    },
    /// A step is not taken back, because a newer deployment replaced what it was done to.
    LeftAlone {
        /// Its index in the plan.
        step: usize,
    },
    /// The target was started: everything but the closing steps is done.
    Applied,
    /// It ended in another way.
    Ended {
        /// How; never [`Executed::Applied`].
        result: Executed,
    },
    /// It is known how the rollback ends: hooks that depend on that have their turn.
    Concluded {
        /// It is proved.
        proved: bool,
    },
    /// Nothing is left to do: the journal will not be read again.
    Closed {
        /// How it ended, for people who read the journal.
        how: String,
    },
}

impl JournalEvent {
    /// Whether it is the last event of its journal.
    pub const fn closes(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// The name under which it is stored.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned",
            Self::Decided { .. } => "decided",
            Self::Started { .. } => "started",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::UndoStarted { .. } => "undo_started",
            Self::UndoFinished { .. } => "undo_finished",
            Self::UndoFailed { .. } => "undo_failed",
            Self::LeftAlone { .. } => "left_alone",
            Self::Applied => "applied",
            Self::Ended { .. } => "ended",
            Self::Concluded { .. } => "concluded",
            Self::Closed { .. } => "closed",
        }
    }

    const fn step(&self) -> Option<usize> {
        match self {
            Self::Started { step }
            | Self::Succeeded { step, .. }
            | Self::Failed { step, .. }
            | Self::UndoStarted { step }
            | Self::UndoFinished { step }
            | Self::UndoFailed { step, .. }
            | Self::LeftAlone { step } => Some(*step),
            Self::Planned { .. }
            | Self::Decided { .. }
            | Self::Applied
            | Self::Ended { .. }
            | Self::Concluded { .. }
            | Self::Closed { .. } => None,
        }
    }
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq)]
pub enum StepStatus {
    /// Not touched.
    Pending,
    /// Begun: it may have taken effect.
    Started,
    /// Done.
    Succeeded,
    /// Given up: it may have taken effect.
    Failed(String),
    /// Being taken back: it may still be in effect.
    Undoing,
    /// Taken back.
    Undone,
    /// Could not be taken back.
    UndoFailed(String),
    /// Not taken back, because a newer deployment replaced what it was done to.
    LeftAlone,
}

impl StepStatus {
    const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::UndoFailed(_) => "undo failed",
            Self::LeftAlone => "left alone",
        }
    }

    /// Why it was given up, if it was.
    fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Pending
            | Self::Started
            | Self::Succeeded
            | Self::Undoing
            | Self::Undone
            | Self::UndoFailed(_)
            | Self::LeftAlone => None,
        }
    }

    /// Nothing of it is in effect.
    const fn is_clean(&self) -> bool {
        matches!(self, Self::Pending | Self::Undone)
    }

    /// It may be in effect, and nobody has given up taking it back.
    const fn is_undoable(&self) -> bool {
        matches!(self, Self::Started | Self::Succeeded | Self::Failed(_) | Self::Undoing)
    }
}

/// Which way a rollback goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Only the preparing steps may run.
    Preparing,
    /// Forward.
    Acting,
    /// Backward.
    Unwinding,
    /// The target was started; only the closing steps may run.
    Applied,
    /// It ended in another way.
    Ended(Executed),
    /// Nothing is left to do.
    Closed,
}

impl Phase {
    const fn name(&self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Acting => "acting",
            Self::Unwinding => "unwinding",
            Self::Applied => "applied",
            Self::Ended(_) => "ended",
            Self::Closed => "closed",
        }
    }
}

/// What a journal adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct SagaState {
    /// The plan.
    pub plan: Plan,
    /// What was asked for; `decided` is set once it was decided.
    pub request: RollbackRequest,
    /// All that are carried out together with it, itself among them, in their order; empty if it is alone.
    pub together: Vec<RollbackId>,
    /// Which way it goes.
    pub phase: Phase,
    /// How far each step of the plan has come.
    pub steps: Vec<StepStatus>,
    /// What each step yielded, for those that were carried out.
    pub outputs: Vec<Option<StepOutput>>,
    /// What failed first, for people.
    pub failure: Option<String>,
    /// It failed because somebody removed what it was about.
    pub removed: bool,
    /// Whether it is proved, once that is known.
    pub proved: Option<bool>,
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It has no events.
    #[error("the journal is empty")]
    Empty,
    /// An event is not one that this program knows.
    #[error("record {record} cannot be read: {why}")]
    Unreadable {
        /// Which, from 1.
        record: usize,
        /// Why.
        why: String,
    },
    /// Another program wrote it.
    #[error("the journal has format {found}, this program understands format {JOURNAL_VERSION}")]
    Version {
        /// Its format.
        found: u32,
    },
    /// A plan whose parts do not fit together.
    #[error(
        "the plan has {steps} steps, of which prepare {prepare}, pivot {pivot}, close {close}: they must not decrease"
    )]
    Plan {
        /// Number of steps.
        steps: usize,
        /// Steps that may run before the decision.
        prepare: usize,
        /// The first step that is not undone.
        pivot: usize,
        /// The first closing step.
        close: usize,
    },
    /// A step that the plan does not have.
    #[error("`{event}` speaks of step {step}, the plan has {steps}")]
    NoSuchStep {
        /// The event.
        event: &'static str,
        /// The step.
        step: usize,
        /// Number of steps.
        steps: usize,
    },
    /// An event that cannot follow what came before.
    #[error("`{event}` cannot follow: the rollback is {phase}{detail}")]
    Illegal {
        /// The event.
        event: &'static str,
        /// The phase in which it came.
        phase: &'static str,
        /// What else speaks against it.
        detail: String,
    },
}

/// Adds up a journal as it is stored.
///
/// # Errors
/// If a record cannot be read, or cannot follow the ones before it.
pub fn read(records: &[Value]) -> Result<SagaState, JournalError> {
    let events = records
        .iter()
        .enumerate()
        .map(|(i, record)| {
            JournalEvent::deserialize(record)
                .map_err(|e| JournalError::Unreadable { record: i + 1, why: e.to_string() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    replay(&events)
}

/// Adds up a journal.
///
/// # Errors
/// If an event cannot follow the ones before it.
pub fn replay(events: &[JournalEvent]) -> Result<SagaState, JournalError> {
    let (first, rest) = events.split_first().ok_or(JournalError::Empty)?;
    let mut state = SagaState::begin(first)?;
    let mut last = first;
    for event in rest {
        // An append that was reported as failed may have become durable all the same, and was then repeated.
        if event != last {
            state.check(event)?;
            state.apply(event);
        }
        last = event;
    }
    Ok(state)
}

impl SagaState {
    /// The state after the first event of a journal.
    ///
    /// # Errors
    /// If that is not [`JournalEvent::Planned`], or its plan is none.
    pub fn begin(first: &JournalEvent) -> Result<Self, JournalError> {
        let JournalEvent::Planned { version, plan, request } = first else {
            return Err(JournalError::Illegal {
                event: first.name(),
                phase: "not planned",
                detail: String::new(),
            });
        };
        check_plan(*version, plan)?;
        Ok(Self {
            together: Vec::new(),
            phase: if request.decided.is_some() { Phase::Acting } else { Phase::Preparing },
            steps: vec![StepStatus::Pending; plan.steps.len()],
            outputs: vec![None; plan.steps.len()],
            plan: Plan::clone(plan),
            request: RollbackRequest::clone(request),
            failure: None,
            removed: false,
            proved: None,
        })
    }

    /// Which rollback.
    pub const fn id(&self) -> &RollbackId {
        &self.request.id
    }

    /// Whether nothing of the plan is in effect.
    pub fn is_clean(&self) -> bool {
        self.steps.iter().all(StepStatus::is_clean)
    }

    /// Whether the closing steps have begun: somebody said that the rollback is over.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Applied
            && (self.proved.is_some() || !self.steps[self.plan.close..].iter().all(StepStatus::is_clean))
    }

    /// Whether nothing is left to be done after an application.
    pub fn is_closed_up(&self) -> bool {
        (self.plan.close..self.steps.len()).all(|step| self.is_over(step))
    }

    /// The step to carry out next on the way forward, if one is left before the closing steps.
    pub fn next_step(&self) -> Option<usize> {
        (0..self.plan.close).find(|step| !self.is_settled(*step))
    }

    /// Whether the target runs everywhere: only forward is right.
    pub fn is_past_pivot(&self) -> bool {
        (0..self.plan.pivot).all(|step| self.is_settled(step))
    }

    /// Why a hook failed that the rollback, past its pivot, was not to go on without; none if the step is none such.
    pub fn failed_hook(&self, step: usize) -> Option<String> {
        let stops = (self.plan.pivot..self.plan.close).contains(&step)
            && self.plan.hook(step).is_some()
            && !self.is_shrugged_off(step);
        let why = self.steps[step].failure().filter(|_| stops)?;
        Some(format!("could not {}: {why}", self.plan.steps[step]))
    }

    /// Whether it has gone further than to the pivot: those that are carried out together with it have come to theirs.
    pub fn is_beyond_pivot(&self) -> bool {
        match self.phase {
            Phase::Applied => true,
            // One that ended there called a person, and its target runs: that is no way back for the others.
            Phase::Acting | Phase::Ended(_) => {
                self.is_past_pivot()
                    && self.steps[self.plan.pivot..].iter().any(|status| *status != StepStatus::Pending)
            }
            Phase::Preparing | Phase::Unwinding | Phase::Closed => false,
        }
    }

    /// Whether what becomes of it depends on those that are carried out together with it.
    pub fn is_unsettled_together(&self) -> bool {
        !self.together.is_empty()
            && matches!(self.phase, Phase::Acting | Phase::Unwinding | Phase::Applied | Phase::Ended(_))
            && !self.is_closing()
    }

    /// Whether it was given up.
    pub fn is_going_back(&self) -> bool {
        match self.phase {
            Phase::Unwinding | Phase::Ended(_) => true,
            Phase::Acting => self.failure.is_some() && !self.is_past_pivot(),
            Phase::Preparing | Phase::Applied | Phase::Closed => false,
        }
    }

    /// Whether anything was begun that a user of the service could notice.
    pub fn has_touched(&self) -> bool {
        self.steps[self.plan.prepare..].iter().any(|status| *status != StepStatus::Pending)
    }

    /// What was changed in a project's files.
    pub fn pin(&self) -> Option<Pin> {
        self.outputs.iter().flatten().find_map(StepOutput::pin).cloned()
    }

    /// What the announcement of the rollback should mention; usually nothing.
    pub fn notes(&self) -> Vec<String> {
        let failed = self.steps[..self.plan.close]
            .iter()
            .zip(&self.plan.steps)
            .enumerate()
            // Before the pivot, only what was let fail.
            .filter(|(i, _)| *i >= self.plan.pivot || self.is_shrugged_off(*i))
            .filter_map(|(_, (status, step))| Some(format!("could not {step}: {}", status.failure()?)));
        let yielded = self.outputs.iter().flatten().flat_map(StepOutput::notes).cloned();
        self.plan.notes.iter().cloned().chain(yielded).chain(failed).collect()
    }

    /// The step to take back next, if one is left.
    pub fn next_undo(&self) -> Option<usize> {
        self.steps.iter().rposition(StepStatus::is_undoable)
    }

    /// The steps that could not be taken back, with what was said about each.
    pub fn undo_failures(&self) -> impl Iterator<Item = (usize, &str)> {
        self.steps.iter().enumerate().filter_map(|(i, status)| match status {
            StepStatus::UndoFailed(message) => Some((i, message.as_str())),
            StepStatus::Pending
            | StepStatus::Started
            | StepStatus::Succeeded
            | StepStatus::Failed(_)
            | StepStatus::Undoing
            | StepStatus::Undone
            | StepStatus::LeftAlone => None,
        })
    }

    /// Whether `event` may follow: the table of legal moves.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(&self, event: &JournalEvent) -> Result<(), JournalError> {
        if let Some(step) = event.step()
            && step >= self.steps.len()
        {
            return Err(JournalError::NoSuchStep { event: event.name(), step, steps: self.steps.len() });
        }
        if let JournalEvent::Planned { version, plan, .. } = event {
            check_plan(*version, plan)?;
        }
        if self.allows(event) {
            return Ok(());
        }
        Err(JournalError::Illegal {
            event: event.name(),
            phase: self.phase.name(),
            detail: event
                .step()
                .map(|step| format!(", step {step} is {}", self.steps[step].name()))
                .unwrap_or_default(),
        })
    }

    /// Makes `event` part of the state. It must have passed [`Self::check`].
    pub fn apply(&mut self, event: &JournalEvent) {
        match event {
            JournalEvent::Planned { .. } => {
                // It passed `check`, which includes all that `begin` looks at.
                if let Ok(fresh) = Self::begin(event) {
                    *self = fresh;
                }
            }
            JournalEvent::Concluded { proved } => self.proved = Some(*proved),
            JournalEvent::Decided { at, together, why } => {
                self.request.decided = Some(*at);
                self.request.why.clone_from(why);
                self.together.clone_from(together);
                self.phase = Phase::Acting;
            }
            JournalEvent::Started { step } => self.steps[*step] = StepStatus::Started,
            JournalEvent::Succeeded { step, output } => {
                self.steps[*step] = StepStatus::Succeeded;
                self.outputs[*step] = Some(output.clone());
            }
            JournalEvent::Failed { step, class, message, .. } => {
                self.steps[*step] = StepStatus::Failed(message.clone());
                self.removed |= *class == ErrorClass::Removed;
                if !self.is_shrugged_off(*step) {
                    self.failure.get_or_insert_with(|| message.clone());
                }
            }
            JournalEvent::UndoStarted { step } => {
                self.steps[*step] = StepStatus::Undoing;
                self.phase = Phase::Unwinding;
            }
            JournalEvent::UndoFinished { step } => self.steps[*step] = StepStatus::Undone,
            JournalEvent::UndoFailed { step, message } => {
                self.steps[*step] = StepStatus::UndoFailed(message.clone());
            }
            JournalEvent::LeftAlone { step } => {
                self.steps[*step] = StepStatus::LeftAlone;
                self.phase = Phase::Unwinding;
            }
            JournalEvent::Applied => self.phase = Phase::Applied,
            JournalEvent::Ended { result } => self.phase = Phase::Ended(result.clone()),
            JournalEvent::Closed { .. } => self.phase = Phase::Closed,
        }
    }

    fn allows(&self, event: &JournalEvent) -> bool {
        use {Phase as P, StepStatus as S};
        let open = matches!(self.phase, P::Preparing | P::Acting | P::Unwinding);
        match event {
            // The prepared plan no longer fits or was discarded, and nothing of it is left.
            JournalEvent::Planned { request, .. } => {
                (open || self.phase == P::Closed)
                    && self.request.decided.is_none()
                    && self.is_clean()
                    && request.id == self.request.id
            }
            JournalEvent::Decided { .. } => self.phase == P::Preparing,
            JournalEvent::Started { step } => self.may_start(*step),
            JournalEvent::Succeeded { step, .. } | JournalEvent::Failed { step, .. } => {
                matches!(self.phase, P::Preparing | P::Acting | P::Applied | P::Ended(_))
                    && self.steps[*step] == S::Started
            }
            // Backwards: whatever came after it has been dealt with.
            JournalEvent::UndoStarted { step } => {
                open && *step < self.plan.pivot
                    && self.next_undo() == Some(*step)
                    && self.steps[*step] != S::Undoing
            }
            JournalEvent::LeftAlone { step } => {
                open && *step < self.plan.pivot && self.next_undo() == Some(*step)
            }
            JournalEvent::UndoFinished { step } | JournalEvent::UndoFailed { step, .. } => {
                self.phase == P::Unwinding && self.steps[*step] == S::Undoing
            }
            JournalEvent::Applied => self.phase == P::Acting && self.next_step().is_none(),
            JournalEvent::Ended { result } => open && !matches!(result, Executed::Applied { .. }),
            JournalEvent::Concluded { .. } => {
                matches!(self.phase, P::Applied | P::Ended(_)) && self.proved.is_none()
            }
            JournalEvent::Closed { .. } => match self.phase {
                P::Preparing | P::Unwinding => self.request.decided.is_none() && self.is_clean(),
                P::Applied | P::Ended(_) => true,
                P::Acting | P::Closed => false,
            },
        }
    }

    fn may_start(&self, step: usize) -> bool {
        use {Phase as P, StepStatus as S};
        match (&self.phase, &self.steps[step]) {
            (P::Preparing, S::Pending) => step < self.plan.prepare && self.next_step() == Some(step),
            (P::Acting, S::Pending) => self.next_step() == Some(step),
            // Closing steps stand alone: one that fails does not hold up the others.
            (P::Applied, S::Pending | S::Failed(_)) => step >= self.plan.close && !self.is_over(step),
            // Of a rollback that failed, only what was to be done then.
            (P::Ended(_), S::Pending) => {
                step >= self.plan.close && self.plan.hook(step).is_some() && !self.is_over(step)
            }
            (P::Preparing | P::Acting | P::Applied, _) => false,
            (P::Unwinding | P::Ended(_) | P::Closed, _) => false,
        }
    }

    /// Nothing of it is left to do on the way forward. From the pivot on, a step that fails is settled too: the
    /// target runs, and the failure becomes a note.
    pub fn is_settled(&self, step: usize) -> bool {
        match self.steps[step] {
            StepStatus::Succeeded => true,
            StepStatus::Failed(_) => step >= self.plan.pivot || self.is_shrugged_off(step),
            StepStatus::Pending
            | StepStatus::Started
            | StepStatus::Undoing
            | StepStatus::Undone
            | StepStatus::UndoFailed(_)
            | StepStatus::LeftAlone => false,
        }
    }
}

fn check_plan(version: u32, plan: &Plan) -> Result<(), JournalError> {
    if version != JOURNAL_VERSION {
        return Err(JournalError::Version { found: version });
    }
    let (steps, prepare, pivot, close) = (plan.steps.len(), plan.prepare, plan.pivot, plan.close);
    if prepare <= pivot && pivot <= close && close <= steps {
        Ok(())
    } else {
        Err(JournalError::Plan { steps, prepare, pivot, close })
    }
}
