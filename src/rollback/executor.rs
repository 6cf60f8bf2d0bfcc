//! What the rest of the program calls to prepare, carry out and close rollbacks.
//!
//! One rollback at a time and service: whoever comes second waits. Nothing is acted upon that was not observed
//! again just before, and a rollback never begins if what runs is not what was judged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::SagaStore;
use super::hooks::{self, HookRunner, NoHooks};
use super::journal::{JournalEvent, Phase};
use super::saga::{Saga, Tools, Unwound};
use crate::clock::Clock;
use crate::core::observation::Observation;
use crate::core::plan::Plan;
use crate::core::release::{ReleaseId, RollbackId, ServiceName};
use crate::core::{Executed, RollbackRequest};
use crate::runtime::{ErrorClass, Runtime, RuntimeError};

/// How long an engine that does not answer is waited for when a rollback is to begin: longer than a hiccup of it;
/// after a restart of it the core judges afresh.
const OBSERVE_PATIENCE: Duration = Duration::from_secs(10);
const OBSERVE_PAUSE: Duration = Duration::from_millis(250);

/// Carries rollbacks out. Clones share everything.
///
/// Its futures are to be run to their end: one that is dropped half way leaves a rollback that only a restarted
/// process, with [`Self::recover`], finishes.
#[derive(Debug, Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) store: Arc<dyn SagaStore>,
    pub(super) hooks: Arc<dyn HookRunner>,
    pub(super) clock: Clock,
    /// The rollback of each service that is not closed: prepared, being carried out, or waiting for its verdict.
    slots: Mutex<HashMap<ServiceName, Slot>>,
    /// Whose each of them is.
    owners: Mutex<HashMap<RollbackId, ServiceName>>,
    /// Journals that made no sense at start-up; closing one only says that a person has seen it.
    unreadable: Mutex<Vec<RollbackId>>,
}

pub(super) type Slot = Arc<AsyncMutex<Option<Saga>>>;

impl Executor {
    /// An executor that acts on `runtime` and remembers in `store`. Call [`Self::recover`] before anything else.
    /// No hook can be run by it.
    pub fn new(runtime: Arc<dyn Runtime>, store: Arc<dyn SagaStore>, clock: Clock) -> Self {
        Self::with_hooks(runtime, store, clock, Arc::new(NoHooks))
    }

    /// The same, with somebody who runs hooks.
    pub fn with_hooks(
        runtime: Arc<dyn Runtime>,
        store: Arc<dyn SagaStore>,
        clock: Clock,
        hooks: Arc<dyn HookRunner>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                runtime,
                store,
                hooks,
                clock,
                slots: Mutex::default(),
                owners: Mutex::default(),
                unreadable: Mutex::default(),
            }),
        }
    }

    /// Does what touches nothing that runs: fetches the image, creates the replacement. Done already is success too.
    ///
    /// # Errors
    /// Why the target is not ready. Nothing is left behind then; carrying the rollback out starts from nothing.
    pub async fn prepare(&self, request: &RollbackRequest) -> Result<(), String> {
        let slot = self.inner.slot(&request.service);
        let mut slot = slot.lock().await;
        if let Some(saga) = slot.as_ref() {
            let same = *saga.state().id() == request.id;
            match &saga.state().phase {
                Phase::Applied => {
                    return Err(format!("the rollback {} is still being verified", saga.state().id()));
                }
                Phase::Ended(_) if same => return Err(format!("the rollback {} is over", request.id)),
                Phase::Preparing if same => return Ok(()),
                // Its preparation failed before.
                Phase::Unwinding if same && saga.state().request.decided.is_none() => {}
                Phase::Preparing | Phase::Acting | Phase::Unwinding | Phase::Ended(_) | Phase::Closed => {
                    self.inner.settle(&mut slot).await?
                }
            }
        }
        let now = self.inner.runtime.observe(&request.service).await.map_err(|e| e.message)?;
        judged(&now, request.from.as_ref())?;
        let plan = self.inner.plan(&now, request).await.map_err(|e| e.message)?;
        let saga = self.inner.open(&mut slot, plan, request).await?;
        saga.prepare().await
    }

    /// Creates the replacement and removes it again. A rollback that is decided meanwhile waits for that: a moment, since
    /// the image is there.
    ///
    /// # Errors
    /// It cannot be created, or a rollback of the service is prepared or in flight.
    pub(super) async fn try_out(&self, request: &RollbackRequest) -> Result<(), String> {
        let slot = self.inner.slot(&request.service);
        let mut slot = slot.lock().await;
        if slot.is_some() {
            return Err("a rollback of it is prepared or in flight: try again when that is over".into());
        }
        let now = self.inner.runtime.observe(&request.service).await.map_err(|e| e.message)?;
        judged(&now, request.from.as_ref())?;
        let plan = self.inner.plan(&now, request).await.map_err(|e| e.message)?;
        let saga = self.inner.open(&mut slot, plan, request).await?;
        let created = saga.prepare().await;
        let removed = self.inner.settle(&mut slot).await;
        created.and(removed)
    }

    /// Takes back what [`Self::prepare`] did. A rollback that was decided meanwhile is left alone.
    pub async fn discard(&self, rollback: &RollbackId) {
        let Some(slot) = self.inner.slot_of(rollback) else {
            return;
        };
        let mut slot = slot.lock().await;
        let ours = slot
            .as_ref()
            .is_some_and(|saga| saga.state().id() == rollback && saga.state().request.decided.is_none());
        if ours && let Err(why) = self.inner.settle(&mut slot).await {
            tracing::warn!(%rollback, %why, "what was prepared could not be removed; it is tried again");
        }
    }

    /// Carries a rollback out, going on from what was prepared for it if that still fits.
    ///
    /// The journal stays open until [`Self::close`], whatever the result: a restarted daemon reports it again.
    pub async fn execute(&self, request: &RollbackRequest) -> Executed {
        let slot = self.inner.slot(&request.service);
        let mut slot = slot.lock().await;
        match self.inner.execute(&mut slot, request).await {
            Ok(executed) => executed,
            Err(why) => Executed::Void { why },
        }
    }

    /// [`Self::conclude`] of a rollback that is not proved.
    pub async fn close(&self, rollback: &RollbackId) -> Vec<String> {
        self.conclude(rollback, false).await
    }

    /// Ends a rollback that was verified (`proved`), given up, or never began: removes what was set aside, runs the hooks that
    /// waited for this, and closes the journal. Yields the last log lines of what was replaced. What fails is tried again at
    /// the next start, but for hooks.
    pub async fn conclude(&self, rollback: &RollbackId, proved: bool) -> Vec<String> {
        if self.inner.forget_unreadable(rollback) {
            let closed = JournalEvent::Closed { how: "unreadable".into() };
            if let Err(why) = self.inner.store.append(rollback, &closed).await {
                tracing::warn!(%rollback, %why, "a journal could not be closed");
            }
            return Vec::new();
        }
        let Some(slot) = self.inner.slot_of(rollback) else {
            return Vec::new();
        };
        let mut slot = slot.lock().await;
        let Some(saga) = slot.as_mut().filter(|saga| saga.state().id() == rollback) else {
            return Vec::new();
        };
        let log = saga.close(proved).await;
        if saga.is_closed() {
            self.inner.vacate(&mut slot);
        }
        log
    }

    /// What carrying `request` out would do now. Touches nothing.
    ///
    /// # Errors
    /// If there is nothing to go to, or the engine or the store do not answer.
    pub async fn preview(&self, request: &RollbackRequest) -> Result<Plan, RuntimeError> {
        let now = self.inner.runtime.observe(&request.service).await?;
        self.inner.plan(&now, request).await
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Inner {
    async fn execute(&self, slot: &mut Option<Saga>, request: &RollbackRequest) -> Result<Executed, String> {
        if let Some(ended) = self.ready(slot, request).await? {
            return Ok(ended);
        }
        let Some(saga) = slot.as_mut() else {
            return Err("the plan is gone".into());
        };
        let at = request.decided.unwrap_or_else(|| self.clock.now());
        if let Err(why) = saga.decide(at, Vec::new(), request.why.clone()).await {
            return Ok(saga.go_back(why, None).await);
        }
        Ok(saga.act().await)
    }

    /// Has a plan for what runs now in the slot. If there cannot be one, or it was carried out already: how it ended.
    pub(super) async fn ready(
        &self,
        slot: &mut Option<Saga>,
        request: &RollbackRequest,
    ) -> Result<Option<Executed>, String> {
        if let Some(saga) = slot.as_ref() {
            let same = *saga.state().id() == request.id;
            match &saga.state().phase {
                Phase::Applied if same => return Ok(Some(saga.applied())),
                Phase::Ended(result) if same => return Ok(Some(result.clone())),
                Phase::Preparing | Phase::Unwinding if same && saga.state().request.decided.is_none() => {}
                Phase::Preparing
                | Phase::Acting
                | Phase::Unwinding
                | Phase::Applied
                | Phase::Ended(_)
                | Phase::Closed => self.settle(slot).await?,
            }
        }
        let now = match self.observe(&request.service).await {
            Ok(now) => now,
            Err(e) => return Ok(Some(self.void(slot, e.message).await)),
        };
        if let Err(why) = judged(&now, request.from.as_ref()) {
            return Ok(Some(self.void(slot, why).await));
        }
        if !slot.as_ref().is_some_and(|saga| saga.still_fits(&now, request)) {
            let plan = match self.plan(&now, request).await {
                Ok(plan) => plan,
                Err(e) => return Ok(Some(self.void(slot, e.message).await)),
            };
            self.open(slot, plan, request).await?;
        }
        Ok(None)
    }

    /// What runs now. The decision has fallen: an engine that is away for a moment is waited for.
    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.runtime.observe(service).await {
                Err(e) if e.class == ErrorClass::Transient && waited < OBSERVE_PATIENCE => {
                    tokio::time::sleep(OBSERVE_PAUSE).await;
                    waited += OBSERVE_PAUSE;
                }
                observed => return observed,
            }
        }
    }

    async fn plan(&self, now: &Observation, request: &RollbackRequest) -> Result<Plan, RuntimeError> {
        let permanent = |message| RuntimeError { class: ErrorClass::Permanent, message };
        let snapshots =
            self.store.snapshots(&request.service, &request.to.id).await.map_err(|why| {
                permanent(format!("the specification of {} cannot be read: {why}", request.to))
            })?;
        if snapshots.is_empty() {
            return Err(permanent(format!(
                "no specification of {} was recorded; it is recorded once a release has proved itself",
                request.to
            )));
        }
        let mut plan = self.runtime.plan(&hooks::arranged(now, request), &snapshots, request)?;
        hooks::weave(&mut plan, now, &snapshots, request)?;
        if !plan.is_of_swarm() && is_removed(now, request) {
            let message = format!("somebody removed {} meanwhile: nothing of it is left", request.service);
            return Err(RuntimeError { class: ErrorClass::Removed, message });
        }
        Ok(plan)
    }

    /// Puts a new plan into the slot, durably. What was prepared under the same name is taken back first.
    async fn open<'a>(
        &self,
        slot: &'a mut Option<Saga>,
        plan: Plan,
        request: &RollbackRequest,
    ) -> Result<&'a mut Saga, String> {
        if let Some(saga) = slot.as_mut() {
            if let Unwound::Incomplete(why) = saga.unwind(false).await {
                return Err(format!("what was prepared could not be removed: {why}"));
            }
            saga.replan(plan, request).await?;
        } else {
            let saga = Saga::open(self.tools(), plan, request).await?;
            self.occupy(slot, saga);
        }
        slot.as_mut().ok_or_else(|| "the plan is gone".into())
    }

    pub(super) fn tools(&self) -> Tools {
        let (runtime, store) = (Arc::clone(&self.runtime), Arc::clone(&self.store));
        Tools { runtime, store, hooks: Arc::clone(&self.hooks) }
    }

    /// Takes back what was prepared, because it will not be carried out.
    pub(super) async fn void(&self, slot: &mut Option<Saga>, why: String) -> Executed {
        let Some(saga) = slot.as_mut() else {
            return Executed::Void { why };
        };
        match saga.unwind(false).await {
            Unwound::Clean | Unwound::Superseded(_) => saga.end(Executed::Void { why }).await,
            // Nobody notices it, and it is tried again: not worth waking a person.
            Unwound::Incomplete(left) => Executed::Void { why: format!("{why}; {left}") },
        }
    }

    /// Brings the rollback in the slot to its end, so that another one can begin.
    pub(super) async fn settle(&self, slot: &mut Option<Saga>) -> Result<(), String> {
        let Some(saga) = slot.as_mut() else {
            return Ok(());
        };
        match saga.state().phase {
            Phase::Preparing | Phase::Acting | Phase::Unwinding => {
                if saga.state().request.decided.is_some() {
                    return Err(format!(
                        "the rollback {} was interrupted: restart backstop to finish it",
                        saga.state().id()
                    ));
                }
                if let Unwound::Incomplete(why) = saga.unwind(false).await {
                    return Err(why);
                }
            }
            Phase::Applied | Phase::Ended(_) | Phase::Closed => {}
        }
        let id = saga.state().id().clone();
        saga.close(false).await;
        if !saga.is_closed() {
            tracing::warn!(rollback = %id, "a rollback could not be closed; it is tried again when backstop starts");
        }
        self.vacate(slot);
        Ok(())
    }

    pub(super) fn slot(&self, service: &ServiceName) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(service.clone()).or_default())
    }

    fn slot_of(&self, rollback: &RollbackId) -> Option<Slot> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(rollback).map(|service| self.slot(service))
    }

    pub(super) fn occupy(&self, slot: &mut Option<Saga>, saga: Saga) {
        self.vacate(slot);
        let (id, service) = (saga.state().id().clone(), saga.state().request.service.clone());
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.insert(id, service);
        *slot = Some(saga);
    }

    pub(super) fn vacate(&self, slot: &mut Option<Saga>) {
        if let Some(saga) = slot.take() {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.remove(saga.state().id());
        }
    }

    pub(super) fn note_unreadable(&self, rollback: &RollbackId) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if !unreadable.contains(rollback) {
            unreadable.push(rollback.clone());
        }
    }

    fn forget_unreadable(&self, rollback: &RollbackId) -> bool {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unreadable.len();
        unreadable.retain(|id| id != rollback);
        unreadable.len() < before
    }
}

/// Whether somebody removed all of it since it was judged, and so does not want it started. What had ended and vanished
/// before does no harm: whatever is started is better. Swarm may just be replacing the last one.
fn is_removed(now: &Observation, request: &RollbackRequest) -> bool {
    now.replicas.is_empty() && request.from.is_some() && !request.vanished
}

/// Whether what runs is what was judged. Nothing at all is for [`is_removed`] to say.
pub(super) fn judged(now: &Observation, from: Option<&ReleaseId>) -> Result<(), String> {
    let other = now.replicas.iter().find(|r| Some(&r.release.id) != from);
    other.map_or(Ok(()), |other| {
        let judged = from.map_or_else(|| "nothing ran".into(), |from| format!("it was {from}"));
        Err(format!(
            "{} runs {} now, and when the rollback was decided {judged}: somebody deployed meanwhile",
            other.name, other.release
        ))
    })
}
