//! Mitigations carried out: what is done to a service instead of a rollback.
//!
//! A release that is made anew with something set goes the way of a rollback to itself: planned, journaled, taken back if
//! it fails, and finished after a crash. Nothing else here changes more than the engine does in one call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::executor::{Executor, Inner, judged};
use super::hooks::{Failed, HookCall, Ran, tag};
use super::saga::Saga;
use crate::core::plan::Plan;
use crate::core::release::{MitigationId, Release, ReplicaId, RollbackId, ServiceName};
use crate::core::settings::{Executor as ExecutorSetting, HOOK_VALUES, Hook, HookKind, Mitigation, Remedy};
use crate::core::time::human;
use crate::core::{Executed, RollbackRequest};

/// Between two attempts at confirming: as often as a person would press the key.
const AGAIN: Duration = Duration::from_secs(1);
/// A program that needs longer than this to start has a `grace` that says so.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

/// What is said of something that is set in no file.
const LASTS: &str = "it lasts until somebody deploys";

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Its identity.
    pub id: MitigationId,
    /// To which service.
    pub service: ServiceName,
    /// What was judged. If something else runs, nothing is done.
    pub from: Release,
    /// What.
    pub what: Mitigation,
    /// Why, for hooks.
    pub why: String,
}

impl Executor {
    /// Does something less than a rollback. What was prepared for one stays prepared where that is possible. Yields what is
    /// to be known about it, if anything.
    ///
    /// # Errors
    /// Why it could not be done, not for all replicas, or is not confirmed.
    pub async fn mitigate(&self, errand: &Errand) -> Result<String, String> {
        let inner = self.inner();
        let now = inner.runtime.observe(&errand.service).await.map_err(|e| e.message)?;
        judged(&now, Some(&errand.from.id))?;
        let done = match &errand.what.remedy {
            Remedy::Restart => {
                inner.runtime.restart(&errand.service).await.map_err(|e| e.message)?;
                String::new()
            }
            Remedy::Scale(replicas) => {
                inner.runtime.scale(&errand.service, *replicas).await.map_err(|e| e.message)?
            }
            Remedy::Hook(hook) => told(hook, inner.call(errand, hook).await)?,
            Remedy::Set(all) => inner.set(errand, all).await?,
        };
        let Some(hook) = &errand.what.confirm else { return Ok(done) };
        inner.confirm(errand, hook, now.settings.grace.max(CONFIRMED_WITHIN)).await?;
        Ok(done)
    }
}

impl Inner {
    /// Makes what runs anew with environment variables set.
    async fn set(&self, errand: &Errand, all: &BTreeMap<String, String>) -> Result<String, String> {
        let slot = self.slot(&errand.service);
        let mut slot = slot.lock().await;
        // What was prepared replaces what is about to be replaced itself.
        self.settle(&mut slot).await?;
        let mut now = self.runtime.observe(&errand.service).await.map_err(|e| e.message)?;
        judged(&now, Some(&errand.from.id))?;
        let varied = self.runtime.vary(&now, all).await.map_err(|e| e.message)?;
        let Some(to) = varied.release.filter(|to| to.id != errand.from.id) else {
            return Err("it is so already".into());
        };
        let request = RollbackRequest {
            id: RollbackId::new(errand.id.as_str()),
            service: errand.service.clone(),
            from: Some(errand.from.id.clone()),
            to,
            stop_grace: now.settings.stop_grace,
            decided: Some(self.clock.now()),
            vanished: false,
            why: errand.why.clone(),
            downgrade: None,
            mitigation: true,
        };
        // Compose makes containers by the project's files, which do not say it.
        Arc::make_mut(&mut now.settings).executor = ExecutorSetting::Api;
        let plan = self.runtime.plan(&now, &varied.snapshots, &request).map_err(|e| e.message)?;
        self.occupy(&mut slot, Saga::open(self.tools(), plan, &request).await?);
        let Some(saga) = slot.as_mut() else { return Err("the plan is gone".into()) };
        let executed = match saga.decide(self.clock.now(), Vec::new(), errand.why.clone()).await {
            Ok(()) => saga.act().await,
            Err(why) => saga.go_back(why, None).await,
        };
        saga.close(false).await;
        self.vacate(&mut slot);
        match executed {
            Executed::Applied { notes, .. } => {
                let kept = self.runtime.keep_set(&errand.service, all).await;
                let kept = match kept {
                    Ok(said) => said.unwrap_or_else(|| {
                        format!("{LASTS}: the fix has to come without it, or with it set there")
                    }),
                    Err(e) => format!("{LASTS}: {}", e.message),
                };
                Ok(notes.into_iter().chain([kept]).filter(|n| !n.is_empty()).collect::<Vec<_>>().join("; "))
            }
            Executed::Void { why } | Executed::Unwound { why } | Executed::Stuck { why } => Err(why),
        }
    }

    /// Asks until somebody says that it took effect.
    async fn confirm(&self, errand: &Errand, hook: &Hook, within: Duration) -> Result<(), String> {
        let began = self.clock.now();
        loop {
            let why = match self.call(errand, hook).await {
                Ok(_) => return Ok(()),
                Err(failed) => failed.why,
            };
            let waited = self.clock.now().since(began);
            if waited >= within {
                return Err(format!(
                    "{}, but {} does not confirm it within {}: {why}",
                    errand.what,
                    hook.name,
                    human(within)
                ));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn call(&self, errand: &Errand, hook: &Hook) -> Result<Ran, Failed> {
        let from = &errand.from;
        let plan = Plan {
            id: RollbackId::new(errand.id.as_str()),
            service: errand.service.clone(),
            from: Some(from.clone()),
            to: from.clone(),
            steps: Vec::new(),
            prepare: 0,
            pivot: 0,
            close: 0,
            notes: Vec::new(),
            order: None,
        };
        // Only a container of its own is made like those that run.
        let like: Vec<ReplicaId> = if matches!(hook.kind, HookKind::Run { .. }) {
            let runs =
                self.runtime.observe(&errand.service).await.map_err(|e| Failed::silently(e.message))?;
            runs.replicas.iter().map(|replica| replica.id.clone()).collect()
        } else {
            Vec::new()
        };
        let call = HookCall {
            hook,
            like: &like,
            specification: None,
            expected: None,
            plan: &plan,
            done: &[],
            values: values(errand, hook),
        };
        let ended = self.hooks.run(&call).await;
        self.hooks.forget(&call).await;
        ended
    }
}

/// What a hook is told: nothing is rolled back, so what runs stays.
fn values(errand: &Errand, hook: &Hook) -> Vec<(&'static str, String)> {
    let of = |name: &str| match name {
        "service" => errand.service.to_string(),
        "rollback" => errand.id.to_string(),
        "from" | "to" => errand.from.reference.clone(),
        "from_tag" | "to_tag" => tag(&errand.from.reference).to_owned(),
        "from_id" | "to_id" => errand.from.id.to_string(),
        "reason" => errand.why.clone(),
        "phase" => hook.phase.name().to_owned(),
        "hook" => hook.name.clone(),
        _ => String::new(),
    };
    HOOK_VALUES.into_iter().map(|name| (name, of(name))).collect()
}

fn told(hook: &Hook, ended: Result<Ran, Failed>) -> Result<String, String> {
    match ended {
        Ok(ran) => Ok(format!("{}: {}", hook.name, ran.how)),
        Err(failed) => Err(format!("could not {hook}: {}", failed.why)),
    }
}
