//! Several rollbacks as one: all of them, or none.
//!
//! All are prepared before the first is decided, all are decided, durably, before the first touches anything, and all have
//! come to their pivot before any goes beyond it. Up to then, one that fails takes the others back with it; from then on,
//! only forward is right for all of them. Each keeps its own journal; what one has to know of the others after a crash is
//! in its `decided` event: which they are, in their order.

use super::executor::{Executor, Inner};
use super::journal::Phase;
use super::recovery::Recovered;
use super::saga::Saga;
use crate::core::release::{RollbackId, ServiceName};
use crate::core::{Executed, RollbackRequest};

impl Executor {
    /// Carries out all of `requests`, in their order, or none of them. Says of each how it ended.
    ///
    /// The journals stay open until [`Executor::close`], as for one alone.
    pub async fn execute_together(&self, requests: &[RollbackRequest]) -> Vec<Executed> {
        let inner = self.inner();
        let slots: Vec<_> = requests.iter().map(|request| inner.slot(&request.service)).collect();
        let mut held = Vec::new();
        // Whoever needs several of them takes them in the order of their group, and a service is in one group only.
        for slot in &slots {
            held.push(slot.lock().await);
        }
        for (i, request) in requests.iter().enumerate() {
            let Some(slot) = held.get_mut(i) else { continue };
            if let Err(why) = inner.make_ready(slot, request).await {
                return self.none(&mut held, requests, i, &why).await;
            }
        }
        let mut sagas: Vec<&mut Saga> = held.iter_mut().filter_map(|slot| slot.as_mut()).collect();
        if let Err((failed, why)) = decide(&mut sagas, requests, inner).await {
            return back(&mut sagas, failed, &why).await;
        }
        go(&mut sagas).await
    }

    /// Nothing was decided yet: what was prepared is taken back.
    async fn none<G>(
        &self,
        held: &mut [G],
        requests: &[RollbackRequest],
        failed: usize,
        why: &str,
    ) -> Vec<Executed>
    where
        G: std::ops::DerefMut<Target = Option<Saga>>,
    {
        let first = requests.get(failed).map(|request| request.service.clone());
        let mut results = Vec::new();
        for (i, slot) in held.iter_mut().enumerate() {
            let why = said(first.as_ref(), i == failed, why);
            results.push(self.inner().void(slot, why).await);
        }
        results
    }
}

impl Inner {
    /// Has the plan for it in the slot, with everything done that touches nothing.
    async fn make_ready(&self, slot: &mut Option<Saga>, request: &RollbackRequest) -> Result<(), String> {
        match self.ready(slot, request).await? {
            None => {}
            Some(Executed::Void { why } | Executed::Unwound { why } | Executed::Stuck { why }) => {
                return Err(why);
            }
            Some(Executed::Applied { .. }) => return Err("it was carried out already".into()),
        }
        let saga = slot.as_mut().ok_or("the plan is gone")?;
        saga.prepare().await
    }
}

/// Writes the decision into every journal. Which one did not take it, if one did not.
async fn decide(
    sagas: &mut [&mut Saga],
    requests: &[RollbackRequest],
    inner: &Inner,
) -> Result<(), (usize, String)> {
    let all: Vec<RollbackId> = requests.iter().map(|request| request.id.clone()).collect();
    for (i, (saga, request)) in sagas.iter_mut().zip(requests).enumerate() {
        let at = request.decided.unwrap_or_else(|| inner.clock.now());
        saga.decide(at, all.clone(), request.why.clone()).await.map_err(|why| (i, why))?;
    }
    Ok(())
}

/// Goes forward with all of them, or back with all of them.
async fn go(sagas: &mut [&mut Saga]) -> Vec<Executed> {
    for i in 0..sagas.len() {
        if let Err(why) = sagas[i].reach_pivot().await {
            return back(sagas, i, &why).await;
        }
    }
    let mut results = Vec::new();
    for saga in sagas {
        results.push(saga.act().await);
    }
    results
}

/// Takes all of them back, the last one first.
async fn back(sagas: &mut [&mut Saga], failed: usize, why: &str) -> Vec<Executed> {
    let first = sagas.get(failed).map(|saga| saga.state().request.service.clone());
    let mut results = Vec::new();
    for (i, saga) in sagas.iter_mut().enumerate().rev() {
        // One that a crash found taken back already has said how that ended.
        let result = match &saga.state().phase {
            Phase::Ended(result) => result.clone(),
            Phase::Preparing | Phase::Acting | Phase::Unwinding | Phase::Applied | Phase::Closed => {
                saga.give_up(said(first.as_ref(), i == failed, why)).await
            }
        };
        results.push(result);
    }
    results.reverse();
    results
}

fn said(failed: Option<&ServiceName>, itself: bool, why: &str) -> String {
    match failed {
        Some(first) if !itself => format!("all or none go back, and {first} cannot: {why}"),
        Some(_) | None => why.to_owned(),
    }
}

/// Goes on after a crash. `all` are the rollbacks that were to be carried out together; those of `sagas` are what is left
/// of them. They go on if every one was decided and none has failed, and back if not.
pub(super) async fn go_on(
    all: &[RollbackId],
    mut sagas: Vec<&mut Saga>,
    foreign: Option<String>,
) -> Vec<Recovered> {
    sagas.sort_by_key(|saga| all.iter().position(|id| id == saga.state().id()));
    let beyond = sagas.iter().any(|saga| saga.state().is_beyond_pivot());
    let failed = sagas.iter().position(|saga| saga.state().is_going_back());
    let whole = sagas.len() == all.len() && sagas.iter().all(|saga| saga.state().request.decided.is_some());
    let results = if beyond {
        let mut results = Vec::new();
        for saga in &mut sagas {
            results.push(match &saga.state().phase {
                Phase::Applied => saga.applied(),
                // It has said how it ended, and nothing of that changes because the others go on.
                Phase::Ended(result) => result.clone(),
                Phase::Preparing | Phase::Acting | Phase::Unwinding | Phase::Closed => saga.act().await,
            });
        }
        results
    } else if let Some(failed) = failed {
        let why = sagas[failed].state().failure.clone();
        let why = why.unwrap_or_else(|| "backstop stopped while taking it back".into());
        back(&mut sagas, failed, &why).await
    } else if let Some(why) = foreign {
        back(&mut sagas, usize::MAX, &why).await
    } else if whole {
        go(&mut sagas).await
    } else {
        back(&mut sagas, usize::MAX, "backstop stopped before all of the group were decided").await
    };
    let ended = sagas.iter().zip(results).map(|(saga, result)| Recovered {
        rollback: saga.state().id().clone(),
        request: Some(saga.state().request.clone()),
        result,
    });
    ended.collect()
}
