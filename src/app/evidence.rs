//! Evidence: what an incident report needs is put aside at the decision, before anything is touched, and once more when
//! the rollback is over. None of it delays a rollback, and what cannot be kept is only missing from the report.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::core::io::Input;
use crate::core::ledger::LedgerChange;
use crate::core::observation::Observation;
use crate::core::release::{ReleaseId, RollbackId, ServiceName};
use crate::core::snapshot::ServiceSnapshot;
use crate::core::{RollbackRequest, Timestamp};
use crate::report::Scene;
use crate::report::checklist::Owners;
use crate::report::difference::Releases;
use crate::report::redact;
use crate::report::strip::Strips;
use crate::runtime::{Runtime, Snapshot};
use crate::store::Store;

/// What a report is made of, by name.
pub(super) const SCENE: &str = "scene";
pub(super) const AFTER: &str = "after";
pub(super) const RELEASES: &str = "releases";
/// What the bad release has in its environment that no log line may show. It is never a part of a report.
pub(super) const SECRETS: &str = "secrets";
/// The signals are put aside once more so long after the end: whether it stayed well is half of the report.
const LATER: Duration = Duration::from_secs(10 * 60);
/// Rollbacks whose end is followed at a time.
const FOLLOWED_MAX: usize = 64;

/// Puts evidence aside.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    strips: Strips,
    /// Rollbacks that ended, and when their signals are put aside for the last time.
    due: Vec<(RollbackId, ServiceName, Timestamp)>,
}

/// Where evidence goes.
pub(super) struct Place<'a> {
    pub(super) store: &'a Store,
    pub(super) tasks: &'a TaskTracker,
}

impl Keeper {
    /// Takes in what the core is told.
    pub(super) fn note(&mut self, now: Timestamp, input: &Input) {
        self.strips.note(now, input);
    }

    /// A rollback was decided: keeps the matrix, the signals, how the two releases differ, and whose the checklist is.
    pub(super) fn decided(
        &self,
        now: Timestamp,
        (request, owners): (&RollbackRequest, Owners),
        seen: &ServiceSnapshot,
        runtime: &Arc<dyn Runtime>,
        place: &Place<'_>,
    ) {
        let scene = Scene::of(seen, self.strips.of(&request.service), owners);
        if let Ok(detail) = serde_json::to_value(&scene) {
            save(place, request.id.clone(), SCENE, now, detail);
        }
        let bad = Observation {
            service: seen.name.clone(),
            settings: Arc::clone(&seen.settings),
            asked: now,
            replicas: seen.replicas.iter().take(1).cloned().collect(),
        };
        let (store, runtime) = (place.store.clone(), Arc::clone(runtime));
        let (rollback, good) = (request.id.clone(), request.to.id.clone());
        place.tasks.spawn(async move {
            let seen = match runtime.snapshot(&bad).await {
                Ok(seen) => seen.into_iter().next(),
                Err(why) => {
                    debug!(%rollback, "how the releases differ is not known: {}", why.message);
                    return;
                }
            };
            let Some(seen) = seen else { return };
            // First, because the lines of its log are kept whatever becomes of the rest.
            let secrets = Value::from(redact::values(&seen.inspect));
            keep(&store, &rollback, SECRETS, now, &secrets).await;
            match compare(&store, &bad.service, &seen, &good).await {
                Ok(found) => {
                    if let Ok(detail) = serde_json::to_value(&found) {
                        keep(&store, &rollback, RELEASES, now, &detail).await;
                    }
                }
                Err(why) => debug!(%rollback, "how the releases differ is not known: {why}"),
            }
        });
    }

    /// Takes note of rollbacks that are over, and puts aside what is due.
    pub(super) fn follow(&mut self, now: Timestamp, changes: &[LedgerChange], place: &Place<'_>) {
        for change in changes {
            if let LedgerChange::RollbackUpdated(record) = change
                && record.outcome.is_over()
            {
                self.after(now, &record.id, &record.service, place);
                if self.due.len() < FOLLOWED_MAX {
                    self.due.push((record.id.clone(), record.service.clone(), now + LATER));
                }
            }
        }
    }

    /// Puts aside what is due by now.
    pub(super) fn look_after(&mut self, now: Timestamp, place: &Place<'_>) {
        if self.due.iter().all(|(.., at)| *at > now) {
            return;
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.due).into_iter().partition(|(.., at)| *at <= now);
        self.due = rest;
        for (rollback, service, _) in due {
            self.after(now, &rollback, &service, place);
        }
    }

    fn after(&self, now: Timestamp, rollback: &RollbackId, service: &ServiceName, place: &Place<'_>) {
        if let Ok(detail) = serde_json::to_value(self.strips.of(service)) {
            save(place, rollback.clone(), AFTER, now, detail);
        }
    }
}

fn save(place: &Place<'_>, rollback: RollbackId, part: &'static str, now: Timestamp, detail: Value) {
    let store = place.store.clone();
    place.tasks.spawn(async move { keep(&store, &rollback, part, now, &detail).await });
}

async fn keep(store: &Store, rollback: &RollbackId, part: &'static str, now: Timestamp, detail: &Value) {
    if let Err(why) = store.save_evidence(rollback, part, now, detail).await {
        debug!(%rollback, part, "evidence could not be kept: {why}");
    }
}

/// How the container that is about to be replaced differs from the recorded one.
async fn compare(
    store: &Store,
    service: &ServiceName,
    seen: &Snapshot,
    good: &ReleaseId,
) -> Result<Releases, String> {
    let recorded = store.snapshots(service, good).await.map_err(|e| e.to_string())?;
    let recorded = recorded.first().ok_or("nothing was recorded of the good one")?;
    Ok(Releases::compare((&recorded.inspect, &recorded.image), (&seen.inspect, &seen.image)))
}
