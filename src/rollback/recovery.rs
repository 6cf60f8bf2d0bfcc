//! Start-up: finishes what a crash interrupted, before any probe says anything.
//!
//! The journal says the most that can have been done, the engine says what runs. From the two follows the way:
//! on to the target, back to what ran before, or around a newer deployment. A journal that makes no sense is
//! reported and its service left alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::SagaStore;
use super::executor::Executor;
use super::journal::{self, JournalError, JournalEvent, Phase};
use super::saga::{Saga, Unwound};
use super::together;
use crate::core::observation::Observation;
use crate::core::release::{ReleaseId, RollbackId, ServiceName};
use crate::core::time::human;
use crate::core::{Executed, RollbackRequest};
use crate::runtime::{ErrorClass, Snapshot};

/// A decision older than this that had not touched anything when the daemon stopped is judged anew: what was bad
/// then may be well by now. As long as a trial.
const STALE: Duration = Duration::from_secs(15 * 60);

/// What a crash left of rollbacks that are carried out together, by all of their ids.
type Groups = BTreeMap<Vec<RollbackId>, Vec<Saga>>;

/// A rollback that a crash interrupted, and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Which.
    pub rollback: RollbackId,
    /// What had been asked for; none if the journal does not say so legibly.
    pub request: Option<RollbackRequest>,
    /// How it ended; an application is to be verified afresh.
    pub result: Executed,
}

impl Executor {
    /// Finishes or takes back whatever a crash interrupted. Rollbacks that were only prepared are taken back without
    /// a word. What was reported is reported again after the next crash, until [`Executor::close`].
    ///
    /// # Errors
    /// If the store or the engine do not answer: call it again later. What was finished until then stays finished.
    pub async fn recover(&self) -> Result<Vec<Recovered>, String> {
        self.recover_those(&|_| true).await
    }

    /// The same for the services of one engine, so that none waits for an engine that is away. What is not legible counts
    /// as the default engine's.
    ///
    /// # Errors
    /// As [`Self::recover`].
    pub async fn recover_on(&self, engine: &str) -> Result<Vec<Recovered>, String> {
        self.recover_those(&|service| service.map_or("", ServiceName::engine) == engine).await
    }

    async fn recover_those(
        &self,
        wanted: &(dyn Fn(Option<&ServiceName>) -> bool + Sync),
    ) -> Result<Vec<Recovered>, String> {
        let mut journals = self.inner().store.unfinished().await?;
        // Newest first, so that the older ones of a service know that they are not the last word. Ids sort by time.
        journals.sort_by(|a, b| b.0.cmp(&a.0));
        let mut seen = HashSet::new();
        let mut recovered = Vec::new();
        let mut groups: Groups = BTreeMap::new();
        for (rollback, records) in journals {
            let service = journal::read(&records).ok().map(|state| state.request.service);
            if !wanted(service.as_ref()) {
                continue;
            }
            recovered.extend(self.recover_one(&rollback, &records, &mut seen, &mut groups).await?);
        }
        for (all, sagas) in groups {
            recovered.extend(self.recover_together(&all, sagas).await?);
        }
        recovered.reverse();
        Ok(recovered)
    }

    /// Those that were to be carried out together, all or none.
    async fn recover_together(
        &self,
        all: &[RollbackId],
        mut sagas: Vec<Saga>,
    ) -> Result<Vec<Recovered>, String> {
        let inner = self.inner();
        let mut newer = None;
        for saga in &sagas {
            let service = &saga.state().request.service;
            let now = match inner.runtime.observe(service).await {
                Ok(now) => now,
                Err(e) if e.class == ErrorClass::NotFound => continue,
                Err(e) => return Err(format!("{service} cannot be looked at: {e}")),
            };
            if saga.foreign(&now).is_some() {
                newer = Some(format!("a newer deployment of {service} came first"));
            }
        }
        let ended = together::go_on(all, sagas.iter_mut().collect(), newer).await;
        for saga in sagas.into_iter().filter(|saga| !saga.is_closed()) {
            let slot = inner.slot(&saga.state().request.service);
            inner.occupy(&mut *slot.lock().await, saga);
        }
        Ok(ended)
    }

    async fn recover_one(
        &self,
        rollback: &RollbackId,
        records: &[Value],
        seen: &mut HashSet<ServiceName>,
        groups: &mut Groups,
    ) -> Result<Option<Recovered>, String> {
        let inner = self.inner();
        let state = match journal::read(records) {
            Ok(state) => state,
            Err(e) => {
                inner.note_unreadable(rollback);
                return Ok(Some(unreadable(rollback, records, &e)));
            }
        };
        let request = state.request.clone();
        let newest = seen.insert(request.service.clone());
        let slot = inner.slot(&request.service);
        let mut slot = slot.lock().await;
        // Called again after an error: what is there already knows more than its journal does.
        let known = slot.take_if(|saga| saga.state().id() == rollback);
        let mut saga = known.unwrap_or_else(|| Saga::resume(inner.tools(), state));
        if newest && saga.state().is_unsettled_together() {
            groups.entry(saga.state().together.clone()).or_default().push(saga);
            return Ok(None);
        }
        let result = self.finish(&mut saga, newest).await;
        if newest && !saga.is_closed() {
            inner.occupy(&mut slot, saga);
        }
        Ok(result?.map(|result| Recovered { rollback: rollback.clone(), request: Some(request), result }))
    }

    /// Brings one rollback to its end. None if nobody needs to know.
    async fn finish(&self, saga: &mut Saga, newest: bool) -> Result<Option<Executed>, String> {
        if saga.state().request.mitigation {
            return self.finish_mitigation(saga).await;
        }
        let decided = saga.state().request.decided;
        match saga.state().phase.clone() {
            Phase::Preparing | Phase::Unwinding if decided.is_none() => {
                if let Unwound::Incomplete(why) = saga.unwind(false).await {
                    tracing::warn!(rollback = %saga.state().id(), %why, "what was prepared could not be removed; it is tried again");
                } else {
                    saga.close(false).await;
                }
                Ok(None)
            }
            Phase::Applied if newest && !saga.state().is_closing() => Ok(Some(saga.applied())),
            Phase::Applied => {
                saga.close(false).await;
                Ok(None)
            }
            Phase::Ended(result) if newest => Ok(Some(result)),
            Phase::Ended(_) => {
                saga.close(false).await;
                Ok(None)
            }
            Phase::Closed => Ok(None),
            Phase::Preparing | Phase::Acting | Phase::Unwinding => self.go_on(saga).await.map(Some),
        }
    }

    /// What runs afterwards is looked at like anything else; only if nothing may run, somebody has to know.
    async fn finish_mitigation(&self, saga: &mut Saga) -> Result<Option<Executed>, String> {
        let result = match saga.state().phase.clone() {
            Phase::Preparing | Phase::Acting | Phase::Unwinding => self.go_on(saga).await?,
            Phase::Applied | Phase::Ended(_) | Phase::Closed => saga.applied(),
        };
        saga.close(false).await;
        Ok(Some(result).filter(|result| matches!(result, Executed::Stuck { .. })))
    }

    /// Goes on with a decided rollback, forward if that is still right.
    async fn go_on(&self, saga: &mut Saga) -> Result<Executed, String> {
        let inner = self.inner();
        let service = saga.state().request.service.clone();
        let now = match inner.runtime.observe(&service).await {
            Ok(now) => Some(now),
            Err(e) if e.class == ErrorClass::NotFound => None,
            Err(e) => return Err(format!("{service} cannot be looked at: {e}")),
        };
        let foreign = now.as_ref().and_then(|now: &Observation| saga.foreign(now).cloned());
        if foreign.is_some() && !saga.state().is_past_pivot() {
            return Ok(saga.go_back("a newer deployment came first".into(), foreign.as_ref()).await);
        }
        if let Some(why) = saga.state().failure.clone()
            && !saga.state().is_past_pivot()
        {
            return Ok(saga.go_back(why, None).await);
        }
        if saga.state().phase == Phase::Unwinding {
            return Ok(saga.go_back("backstop stopped while taking it back".into(), None).await);
        }
        let age = saga.state().request.decided.map(|at| inner.clock.now().since(at));
        if let Some(age) = age.filter(|age| *age > STALE)
            && !saga.state().has_touched()
        {
            let why = format!("it was decided {} ago, before backstop stopped: judged anew", human(age));
            return Ok(saga.go_back(why, None).await);
        }
        Ok(saga.act().await)
    }
}

fn unreadable(rollback: &RollbackId, records: &[Value], e: &JournalError) -> Recovered {
    // The first record is usually whole, and says what it was about.
    let first = records.first().and_then(|first| JournalEvent::deserialize(first).ok());
    let request = if let Some(JournalEvent::Planned { request, .. }) = first { Some(*request) } else { None };
    let whose = request.as_ref().map_or_else(String::new, |r| format!(" of {}", r.service));
    let next = request.as_ref().map_or_else(
        || format!("look with `docker ps -a --filter name={rollback}`"),
        |r| {
            format!(
                "look with `docker ps -a --filter name={0}`, put it right, then `backstop resume {0}`",
                r.service
            )
        },
    );
    Recovered {
        rollback: rollback.clone(),
        request,
        result: Executed::Stuck {
            why: format!(
                "the journal of rollback {rollback}{whose} makes no sense: {e}; nothing was touched; {next}"
            ),
        },
    }
}

/// Aborts the process right after the n-th append became durable: how the tests kill the daemon between any two steps.
#[derive(Debug)]
pub struct CrashingStore {
    inner: Arc<dyn SagaStore>,
    crash_at: Option<u64>,
    appended: AtomicU64,
}

impl CrashingStore {
    /// Hands everything on to `inner`; aborts after append number `crash_at`, counted from 1 in this process.
    pub fn new(inner: Arc<dyn SagaStore>, crash_at: Option<u64>) -> Self {
        Self { inner, crash_at, appended: AtomicU64::new(0) }
    }
}

#[async_trait]
impl SagaStore for CrashingStore {
    async fn append(&self, rollback: &RollbackId, event: &JournalEvent) -> Result<(), String> {
        self.inner.append(rollback, event).await?;
        let appended = self.appended.fetch_add(1, Ordering::SeqCst) + 1;
        if self.crash_at == Some(appended) {
            tracing::error!(%rollback, event = event.name(), appended, "aborting, as asked for");
            std::process::abort();
        }
        Ok(())
    }

    async fn unfinished(&self) -> Result<Vec<(RollbackId, Vec<Value>)>, String> {
        self.inner.unfinished().await
    }

    async fn snapshots(&self, service: &ServiceName, release: &ReleaseId) -> Result<Vec<Snapshot>, String> {
        self.inner.snapshots(service, release).await
    }
}
