//! The plan for a service of plain containers: from its replicas now to the recorded ones. Pure.

use std::time::Duration;

use super::enrol;
use super::fingerprint;
use super::verbs::is_tag;
use crate::core::io::RollbackRequest;
use crate::core::observation::{Observation, Phase, Replica};
use crate::core::plan::{Plan, Specification, Step};
use crate::core::release::RollbackId;
use crate::runtime::engine::permanent;
use crate::runtime::{RuntimeError, Snapshot};

/// Makes the plan: prepare all replicas, then replace them one after the other, then clean up.
pub(super) fn plan(
    now: &Observation,
    to: &[Snapshot],
    request: &RollbackRequest,
) -> Result<Plan, RuntimeError> {
    if to.is_empty() {
        return Err(permanent(format!(
            "no specification of {} was recorded: choose another release (`backstop explain {}`)",
            request.to, request.service
        )));
    }
    let (pairs, surplus) = pair(&now.replicas, to);
    let tx = transaction(&request.id);
    let mut steps = vec![Step::EnsureImage {
        image: request.to.image.clone(),
        reference: request.to.reference.clone(),
        digests: request.to.digests.clone(),
    }];
    for old in &now.replicas {
        steps.push(Step::ProbeOld { container: old.id.clone(), name: old.name.clone() });
    }
    let first = steps.len();
    for (old, good) in &pairs {
        steps.push(Step::CreateReplacement {
            name: good.name.clone(),
            temp_name: format!("{}.rbnew-{tx}", good.name),
            old: old.map(|o| o.id.clone()),
            specification: specification(good)?,
        });
    }
    let prepare = steps.len();
    for (n, (old, good)) in pairs.iter().enumerate() {
        steps.extend(old.iter().flat_map(|old| step_aside(old, &tx, request.stop_grace)));
        let (created, name) = (first + n, good.name.clone());
        steps.push(Step::TakeName { created, temp_name: format!("{name}.rbnew-{tx}"), name: name.clone() });
        steps.push(Step::StartNew { created, name: name.clone() });
        steps.push(Step::AwaitRunning { created, name });
    }
    for old in &surplus {
        steps.extend(step_aside(old, &tx, request.stop_grace));
    }
    let pivot = steps.len();
    for old in &now.replicas {
        let (container, aside) = (old.id.clone(), aside(&old.name, &tx));
        steps.push(Step::SaveEvidence { container: container.clone(), name: old.name.clone() });
        steps.push(Step::RemoveOld { container, name: aside });
    }
    steps.extend(point_tag(to, request));
    Ok(Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from: now.replicas.last().map(|r| r.release.clone()),
        to: request.to.clone(),
        steps,
        prepare,
        pivot,
        close: pivot,
        notes: notes(&surplus, pairs.len()),
    })
}

/// The part of a temporary name that belongs to the rollback.
pub(super) fn transaction(id: &RollbackId) -> String {
    id.as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' })
        .collect()
}

fn aside(name: &str, tx: &str) -> String {
    format!("{name}.rbold-{tx}")
}

/// Each recorded replica takes the place of the one with its name, else of one that is left over.
fn pair<'a>(
    now: &'a [Replica],
    to: &'a [Snapshot],
) -> (Vec<(Option<&'a Replica>, &'a Snapshot)>, Vec<&'a Replica>) {
    let mut left: Vec<&Replica> = now.iter().collect();
    let mut pairs: Vec<(Option<&Replica>, &Snapshot)> = Vec::new();
    for good in to {
        let same = left.iter().position(|old| old.name == good.name);
        pairs.push((same.map(|i| left.remove(i)), good));
    }
    for (old, _) in &mut pairs {
        if old.is_none() && !left.is_empty() {
            *old = Some(left.remove(0));
        }
    }
    (pairs, left)
}

fn step_aside(old: &Replica, tx: &str, grace: Duration) -> [Step; 3] {
    let (container, name) = (old.id.clone(), old.name.clone());
    let was_running = matches!(old.phase, Phase::Running | Phase::Restarting | Phase::Paused);
    [
        Step::DisarmOld { container: container.clone(), name: name.clone() },
        Step::StopOld { container: container.clone(), name: name.clone(), grace, was_running },
        Step::SetAsideOld { container, aside: aside(&name, tx), name },
    ]
}

/// `docker compose up` starts whatever the tag points at: after the proof, that has to be the good image. A plain
/// container's tag stays where its deployer pointed it.
fn point_tag(to: &[Snapshot], request: &RollbackRequest) -> Option<Step> {
    let compose = to.iter().any(|s| enrol::is_compose(&enrol::labels(&s.inspect["Config"])));
    (compose && is_tag(&request.to.reference))
        .then(|| Step::PointTag { reference: request.to.reference.clone(), image: request.to.image.clone() })
}

fn specification(good: &Snapshot) -> Result<Specification, RuntimeError> {
    let json =
        serde_json::to_string(good).map_err(|e| permanent(format!("the record of {}: {e}", good.name)))?;
    Ok(Specification::new(json))
}

fn notes(surplus: &[&Replica], replicas: usize) -> Vec<String> {
    if surplus.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = surplus.iter().map(|r| r.name.as_str()).collect();
    vec![format!("{replicas} replicas were recorded; beyond them, {} is removed", names.join(", "))]
}

/// Whether a recorded specification is that of the release: a record that does not fit must not be replayed.
pub(super) fn fits(good: &Snapshot, request: &RollbackRequest) -> Result<(), RuntimeError> {
    let image = good.inspect["Image"].as_str().unwrap_or_default();
    if image == request.to.image.as_str() && fingerprint::fingerprint(&good.inspect) == request.to.fingerprint
    {
        return Ok(());
    }
    Err(permanent(format!(
        "the record of {} is not that of {}: choose another release (`backstop explain {}`)",
        good.name, request.to, request.service
    )))
}
