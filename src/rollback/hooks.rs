//! Hooks on the way of a rollback: where each stands in the plan, what it is told, and what is known of it afterwards.
//!
//! Nothing that a hook did is ever taken back, and none is begun twice unless it may be. After a crash in the middle of
//! one, whoever ran it is asked what became of it; if that cannot be told, it counts as failed, and a person hears of it.
//!
//! The downgrade of a database runs after every container of the bad release has stopped and before the first of the
//! target starts. Under a running release it would wait for locks that the release holds, and whatever that writes
//! meanwhile would be of the new shape; one that crashes and is restarted would even migrate forward again on its way up.
//! The target, on the other hand, would start on a schema that it does not know. The price is an outage as long as the
//! downgrade takes. The backup before it is made while the bad release still serves: it is consistent by itself, and is
//! there for the case that a downgrade fails in a way that no transaction takes back.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::journal::{SagaState, StepStatus};
use crate::core::io::RollbackRequest;
use crate::core::observation::Observation;
use crate::core::plan::{Part, Plan, Specification, Step, StepOutput};
use crate::core::release::{self, Release, ReplicaId};
use crate::core::settings::{
    Executor, HOOK_VALUES, Hook, HookKind, HookPhase, OnFailure, Order, ServiceSettings,
};
use crate::runtime::engine::permanent;
use crate::runtime::{RuntimeError, Snapshot};

/// Runs hooks.
#[async_trait]
pub trait HookRunner: fmt::Debug + Send + Sync {
    /// Runs it to its end, and ends what is left of it when its time is over.
    ///
    /// # Errors
    /// How it failed.
    async fn run(&self, call: &HookCall<'_>) -> Result<Ran, Failed>;

    /// What became of one that an earlier process began and that must not be begun twice. Waits for its end if it still
    /// runs; none if it cannot be told. What is left of it is ended.
    async fn take_up(&self, call: &HookCall<'_>) -> Option<Result<Ran, Failed>>;

    /// Ends and removes what is left of it: called once its result is recorded, and again at the end of the rollback.
    async fn forget(&self, call: &HookCall<'_>);
}

/// One hook of one rollback.
#[derive(Debug)]
pub struct HookCall<'a> {
    /// The hook.
    pub hook: &'a Hook,
    /// The containers of the bad release, newest last.
    pub like: &'a [ReplicaId],
    /// The good release's specification, if it needs one.
    pub specification: Option<&'a Specification>,
    /// The version that the schema has to have, where that is what is asked.
    pub expected: Option<&'a str>,
    /// The plan that it belongs to.
    pub plan: &'a Plan,
    /// What steps before it yielded.
    pub done: &'a [Option<StepOutput>],
    /// What it is told: `service`, `from`, `to`, `reason`, ...; in upper case with `BACKSTOP_` before it as environment
    /// variables, in double braces in its words.
    pub values: Vec<(&'static str, String)>,
}

impl HookCall<'_> {
    /// A text of the hook with values in the places that are named in it.
    pub fn fill(&self, text: &str) -> String {
        fill(text, &self.values)
    }

    /// What sets this run apart from all others.
    pub fn mark(&self) -> String {
        format!("{}/{}/{}", self.plan.id, self.hook.phase.name(), self.hook.name)
    }
}

/// A hook that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended, for people.
    pub how: String,
    /// The end of what it printed.
    pub output: String,
}

/// A hook that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// How, for people.
    pub why: String,
    /// The end of what it printed.
    pub output: String,
}

impl Failed {
    /// One that printed nothing.
    pub fn silently(why: impl Into<String>) -> Self {
        Self { why: why.into(), output: String::new() }
    }
}

/// Runs none: for whoever has none.
#[derive(Debug)]
pub(super) struct NoHooks;

#[async_trait]
impl HookRunner for NoHooks {
    async fn run(&self, _: &HookCall<'_>) -> Result<Ran, Failed> {
        Err(Failed::silently("hooks cannot be run here"))
    }

    async fn take_up(&self, _: &HookCall<'_>) -> Option<Result<Ran, Failed>> {
        None
    }

    async fn forget(&self, _: &HookCall<'_>) {}
}

/// A text with values in the places that are named in it.
pub fn fill(text: &str, values: &[(&'static str, String)]) -> String {
    let put = |text: String, (name, value): &(&str, String)| text.replace(&format!("{{{{{name}}}}}"), value);
    values.iter().fold(text.to_owned(), put)
}

/// What a hook is told.
pub(super) fn values(state: &SagaState, hook: &Hook) -> Vec<(&'static str, String)> {
    told(&state.request, state.plan.from.as_ref(), &state.plan.to, hook)
}

/// What a hook would be told, as far as that is known before anything is decided.
pub fn foreseen(
    request: &RollbackRequest,
    from: Option<&Release>,
    hook: &Hook,
) -> Vec<(&'static str, String)> {
    let mut values = told(request, from, &request.to, hook);
    values.retain(|(name, value)| !value.is_empty() && !matches!(*name, "rollback" | "reason"));
    values
}

fn told(
    request: &RollbackRequest,
    from: Option<&Release>,
    to: &Release,
    hook: &Hook,
) -> Vec<(&'static str, String)> {
    let of = |release: Option<&Release>, what: fn(&Release) -> String| release.map(what).unwrap_or_default();
    let schema = request.downgrade.clone().unwrap_or_default();
    let values = [
        request.service.to_string(),
        request.id.to_string(),
        of(from, |r| r.reference.clone()),
        of(from, |r| r.id.to_string()),
        of(from, |r| tag(&r.reference).to_owned()),
        to.reference.clone(),
        to.id.to_string(),
        tag(&to.reference).to_owned(),
        request.why.clone(),
        hook.phase.name().to_owned(),
        hook.name.clone(),
        schema.from.unwrap_or_default(),
        schema.to.unwrap_or_default(),
    ];
    HOOK_VALUES.into_iter().zip(values).collect()
}

/// The tag of a reference: what most services answer as their version. Empty if it has none.
pub(super) fn tag(reference: &str) -> &str {
    release::split(reference).1.unwrap_or_default()
}

/// Hooks of a rollback, by phase, with what belongs to its downgrade.
fn hooks_of(settings: &ServiceSettings, request: &RollbackRequest) -> Vec<(Hook, Option<String>)> {
    let on_the_way = settings.hooks.iter().filter(|hook| hook.phase != HookPhase::Mitigation);
    let mut all: Vec<(Hook, Option<String>)> = on_the_way.map(|hook| (hook.clone(), None)).collect();
    if let Some(schema) = &request.downgrade {
        let migrations = &settings.migrations;
        let own = [&migrations.backup, &migrations.downgrade];
        all.extend(own.into_iter().flatten().map(|hook| (hook.clone(), None)));
        if let (Some(query), Some(to)) = (&migrations.query, &schema.to) {
            let current = Hook {
                name: "migrations_current".into(),
                phase: HookPhase::Current,
                kind: HookKind::Schema(query.clone()),
                timeout: query.interval,
                on_failure: OnFailure::Stop,
                repeatable: true,
            };
            all.push((current, Some(to.clone())));
        }
    }
    // Stable: within a phase, by name, as they came.
    all.sort_by_key(|(hook, _)| hook.phase);
    all
}

/// What the runtime is to plan for: if something is done while nothing runs, the bad release stops first, and we stop it.
pub(super) fn arranged(now: &Observation, request: &RollbackRequest) -> Observation {
    let stops = hooks_of(&now.settings, request).iter().any(|(hook, _)| hook.phase.needs_all_stopped());
    let mut now = now.clone();
    if stops {
        let settings = Arc::make_mut(&mut now.settings);
        settings.order = Order::StopFirst;
        if settings.executor == Executor::Compose {
            settings.executor = Executor::Api;
        }
    }
    now
}

/// Puts the hooks into a plan.
pub(super) fn weave(
    plan: &mut Plan,
    now: &Observation,
    good: &[Snapshot],
    request: &RollbackRequest,
) -> Result<(), RuntimeError> {
    let all = hooks_of(&now.settings, request);
    if all.is_empty() {
        return Ok(());
    }
    let stops = all.iter().any(|(hook, _)| hook.phase.needs_all_stopped());
    fitting(&all, plan)?;
    let mut at_rest = if stops { plan.stop_all_first() } else { plan.prepare };
    let mut before = plan.prepare;
    for (hook, expected) in all {
        let step = step(&hook, now, good, expected)?;
        match hook.phase {
            HookPhase::BeforeRollback | HookPhase::Backup => {
                plan.insert(before, Part::Acting, step);
                before += 1;
                at_rest += 1;
            }
            HookPhase::AfterStop | HookPhase::Downgrade | HookPhase::Current => {
                plan.insert(at_rest, Part::Acting, step);
                at_rest += 1;
            }
            HookPhase::BeforeVerify => plan.insert(plan.close, Part::Applied, step),
            HookPhase::Mitigation => {}
            HookPhase::AfterRollback | HookPhase::OnFailure => {
                plan.insert(plan.steps.len(), Part::Closing, step);
            }
        }
    }
    if stops && plan.order.is_some() {
        plan.order = Some("stop-first: something is done while nothing runs".into());
    }
    Ok(())
}

/// Whether there is a moment in the plan for each of them.
fn fitting(all: &[(Hook, Option<String>)], plan: &Plan) -> Result<(), RuntimeError> {
    let stops = all.iter().find(|(hook, _)| hook.phase.needs_all_stopped());
    let one_off = all.iter().find(|(hook, _)| matches!(hook.kind, HookKind::Run { .. }));
    if let (Some((hook, _)), true) = (stops, plan.is_orchestrated()) {
        return Err(permanent(format!(
            "cannot {hook}: it needs all containers stopped before the first of the target starts, and {} does both at once; \
             by hand, then `backstop rollback {} --accept-schema`",
            if plan.is_of_swarm() { "Swarm" } else { "`docker compose up`" },
            plan.service
        )));
    }
    if let (Some((hook, _)), true) = (one_off, plan.is_of_swarm()) {
        return Err(permanent(format!(
            "cannot {hook}: a Swarm service has no containers here to make one like"
        )));
    }
    Ok(())
}

fn step(
    hook: &Hook,
    now: &Observation,
    good: &[Snapshot],
    expected: Option<String>,
) -> Result<Step, RuntimeError> {
    let made = matches!(hook.kind, HookKind::Run { .. });
    let specification = match good.first().filter(|_| made) {
        Some(good) => {
            let json =
                serde_json::to_string(good).map_err(|e| permanent(format!("a record is damaged: {e}")))?;
            Some(Specification::new(json))
        }
        None => None,
    };
    let like = if made { now.replicas.iter().map(|r| r.id.clone()).collect() } else { Vec::new() };
    Ok(Step::RunHook { hook: Box::new(hook.clone()), like, specification, expected })
}

impl SagaState {
    /// Nothing is left to do about a closing step: it is done, or it is a hook that had its turn or has none.
    pub fn is_over(&self, step: usize) -> bool {
        let tried = match self.steps[step] {
            StepStatus::Succeeded => return true,
            StepStatus::Failed(_) => true,
            StepStatus::Pending
            | StepStatus::Started
            | StepStatus::Undoing
            | StepStatus::Undone
            | StepStatus::UndoFailed(_)
            | StepStatus::LeftAlone => false,
        };
        self.plan.hook(step).is_some_and(|hook| tried || !self.has_its_turn(hook))
    }

    /// Whether a closing hook is to be run, as the rollback ended.
    fn has_its_turn(&self, hook: &Hook) -> bool {
        match hook.phase {
            HookPhase::AfterRollback => self.proved == Some(true),
            HookPhase::OnFailure => self.proved == Some(false),
            HookPhase::BeforeRollback
            | HookPhase::Backup
            | HookPhase::AfterStop
            | HookPhase::Downgrade
            | HookPhase::Current
            | HookPhase::BeforeVerify
            | HookPhase::Mitigation => false,
        }
    }

    /// Whether any hook waits for how the rollback ends.
    pub fn awaits_conclusion(&self) -> bool {
        self.proved.is_none()
            && (self.plan.close..self.steps.len()).any(|step| self.plan.hook(step).is_some())
    }

    /// Whether a step that failed does not keep the rollback from going on: a hook that says so.
    pub(super) fn is_shrugged_off(&self, step: usize) -> bool {
        self.plan.hook(step).is_some_and(|hook| hook.on_failure == OnFailure::Continue)
    }

    /// What was set aside and is not removed any more, because nobody knows what it is still good for. Empty if nothing was.
    pub fn told_of_leftovers(&self) -> String {
        let aside = self.plan.steps.iter().zip(&self.steps).filter_map(|(step, status)| match step {
            Step::SetAsideOld { aside, .. } if *status == StepStatus::Succeeded => Some(aside.as_str()),
            _ => None,
        });
        let aside: Vec<&str> = aside.collect();
        if aside.is_empty() {
            return String::new();
        }
        let all = aside.join(" ");
        format!("; what was rolled back is kept, stopped, and is removed by hand: docker rm {all}")
    }

    /// What hooks did and did not do, for people: nothing of it is taken back. Empty if none was begun.
    pub fn told_of_hooks(&self) -> String {
        let (mut ran, mut partly, mut not) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..self.plan.close {
            let Some(hook) = self.plan.hook(step) else { continue };
            match (&self.steps[step], &self.outputs[step]) {
                (_, Some(_)) if hook.phase == HookPhase::Current => {}
                (_, Some(_)) => ran.push(hook.name.as_str()),
                (StepStatus::Pending, None) => not.push(hook.name.as_str()),
                (_, None) => partly.push(hook.name.as_str()),
            }
        }
        if ran.is_empty() && partly.is_empty() {
            return String::new();
        }
        let said = |words: &str, names: &[&str]| {
            if names.is_empty() { String::new() } else { format!("; {words}: {}", names.join(", ")) }
        };
        said("done, and stays done", &ran)
            + &said("begun, and perhaps done in part", &partly)
            + &said("not begun", &not)
    }
}
