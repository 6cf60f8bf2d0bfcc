//! The plan for a Swarm service: check what it needs, give it its good specification back, wait until it runs. Pure.

use std::time::Duration;

use serde_json::Value;

use super::release;
use crate::core::io::RollbackRequest;
use crate::core::observation::{Observation, Phase};
use crate::core::plan::{Plan, Specification, Step};
use crate::runtime::engine::permanent;
use crate::runtime::{RuntimeError, Snapshot};

/// Names the stack that a service was deployed with.
const STACK: &str = "com.docker.stack.namespace";
/// Tasks whose last words are kept: one tells nearly always what all would.
const EVIDENCE_MAX: usize = 3;
/// A task that is still being placed, fetched or started counts as late after this, unless its HEALTHCHECK takes longer.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Swarm waits a minute for a task that it could not place before it gives way, and then some.
const STUCK: Duration = Duration::from_secs(90);
/// What Swarm takes where nothing is set.
const STOP_GRACE: Duration = Duration::from_secs(10);
const MONITOR: Duration = Duration::from_secs(5);
/// Nobody waits longer for a rollback than for this.
const WITHIN_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Makes the plan.
pub(super) fn plan(
    now: &Observation,
    to: &[Snapshot],
    request: &RollbackRequest,
) -> Result<Plan, RuntimeError> {
    let [good] = to else {
        return Err(permanent(format!(
            "{} records of {} were kept, and there has to be one: choose another release (`backstop explain {}`)",
            to.len(),
            request.to,
            request.service
        )));
    };
    let spec = &good.inspect["Spec"];
    if release::release(spec).id != request.to.id {
        return Err(permanent(format!(
            "the record of {} is not that of {}: choose another release (`backstop explain {}`)",
            good.name, request.to, request.service
        )));
    }
    // The ledger goes by names, and one that was removed and made anew has another id. Swarm finds it by its name as well.
    let name = good.name.clone();
    let id = name.clone();
    let within = within(spec, now.replicas.len());
    let mut steps = vec![
        Step::CheckService {
            id: id.clone(),
            name: name.clone(),
            specification: Specification::new(spec.to_string()),
        },
        Step::UpdateService { checked: 0, id: id.clone(), name: name.clone() },
        Step::AwaitConverged { checked: 0, id, name, within },
    ];
    let pivot = steps.len();
    // Those that fail have the most to say.
    let mut witnesses: Vec<_> = now.replicas.iter().collect();
    witnesses.sort_by_key(|r| r.phase == Phase::Running);
    let evidence = witnesses.into_iter().take(EVIDENCE_MAX);
    steps.extend(evidence.map(|r| Step::SaveEvidence { container: r.id.clone(), name: r.name.clone() }));
    Ok(Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from: now.replicas.last().map(|r| r.release.clone()),
        to: request.to.clone(),
        steps,
        prepare: 1,
        pivot,
        close: pivot,
        notes: of_a_stack(spec, now, request).into_iter().collect(),
        order: None,
    })
}

/// The files of a stack are wherever somebody deploys it from, so nothing keeps them from bringing the bad release back. Of a
/// mitigation it is said anyway how long it lasts.
fn of_a_stack(spec: &Value, now: &Observation, request: &RollbackRequest) -> Option<String> {
    let stack = spec["Labels"][STACK].as_str().filter(|stack| !stack.is_empty() && !request.mitigation)?;
    let (bad, good) = (&now.replicas.last()?.release.reference, &request.to.reference);
    let first = if bad == good {
        format!("before that, put right what its file says, or what {good} shows in its registry")
    } else {
        format!("before that, make its image {good} there")
    };
    Some(format!(
        "it is of the stack {stack}, whose file Backstop does not change: the next `docker stack deploy` of it brings the bad \
         release back; {first}"
    ))
}

/// How long Swarm may take to replace all tasks, batch by batch.
pub(super) fn within(spec: &Value, replicas: usize) -> Duration {
    let update = &spec["UpdateConfig"];
    let of_record = spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(1);
    let replicas = u64::try_from(replicas).unwrap_or(u64::MAX).max(of_record).max(1);
    let batches = match update["Parallelism"].as_u64() {
        Some(0) => 1,
        at_once => replicas.div_ceil(at_once.unwrap_or(1)),
    };
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let grace = container["StopGracePeriod"].as_u64().map_or(STOP_GRACE, Duration::from_nanos);
    let delay = update["Delay"].as_u64().map_or(Duration::ZERO, Duration::from_nanos);
    let starts = STARTS_WITHIN.max(healthy_within(&container["Healthcheck"]));
    let batch = grace.saturating_add(starts).saturating_add(delay);
    let batches = u32::try_from(batches).unwrap_or(u32::MAX);
    (batch.saturating_mul(batches)).saturating_add(monitor(spec) + STUCK).min(WITHIN_MAX)
}

/// How long a task has to stay up before Swarm takes its update for well.
pub(super) fn monitor(spec: &Value) -> Duration {
    let set = spec["UpdateConfig"]["Monitor"].as_u64().filter(|nanos| *nanos > 0);
    set.map_or(MONITOR, Duration::from_nanos)
}

/// The most that a HEALTHCHECK takes to decide.
fn healthy_within(check: &Value) -> Duration {
    let span = |key: &str, default: u64| {
        let set = check[key].as_u64().filter(|nanos| *nanos > 0);
        set.map_or(Duration::from_secs(default), Duration::from_nanos)
    };
    let retries = check["Retries"].as_u64().filter(|n| *n > 0).unwrap_or(3);
    let tries = u32::try_from(retries + 1).unwrap_or(u32::MAX);
    if check.is_object() {
        let asked = span("Interval", 30).saturating_add(span("Timeout", 30)).saturating_mul(tries);
        span("StartPeriod", 0).saturating_add(asked)
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::super::{observe, recorded};
    use super::*;
    use crate::core::release::{RollbackId, ServiceName};
    use serde_json::json;

    fn good() -> Snapshot {
        let (name, image, context) = ("web".into(), Value::Null, Value::Null);
        Snapshot { name, inspect: recorded::service(), image, context }
    }

    fn request() -> RollbackRequest {
        RollbackRequest {
            id: RollbackId::new("rb1"),
            service: ServiceName::new("web"),
            from: None,
            to: release::release(&recorded::service()["Spec"]),
            stop_grace: Duration::from_secs(3),
            decided: None,
            vanished: false,
            why: String::new(),
            downgrade: None,
            mitigation: false,
        }
    }

    fn now() -> Observation {
        let replicas = observe::replicas(&recorded::paused_service(), &recorded::paused_tasks());
        Observation {
            service: ServiceName::new("web"),
            settings: std::sync::Arc::default(),
            asked: crate::core::Timestamp::MAX,
            replicas,
        }
    }

    #[test]
    fn a_service_is_checked_updated_and_waited_for() {
        let plan = plan(&now(), &[good()], &request()).unwrap();
        let names: Vec<&str> = plan.steps.iter().map(Step::name).collect();
        assert_eq!(names, ["check_service", "update_service", "await_converged", "save_evidence"]);
        assert_eq!((plan.prepare, plan.pivot, plan.close), (1, 3, 3));
        let named = |step: &Step| {
            matches!(step, Step::CheckService { id, .. } | Step::UpdateService { id, .. }
            | Step::AwaitConverged { id, .. } if id == "web")
        };
        assert!(plan.steps.iter().take(3).all(named), "its id may be another one by then");
        assert!(plan.is_orchestrated());
        assert_eq!(plan.from.map(|from| from.reference).as_deref(), Some("web:crash"));
        let said: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        assert!(said[1].contains("with as many replicas as it has now"), "{said:?}");
        assert!(said[2].contains("3m 55s at most"), "{said:?}");
    }

    #[test]
    fn that_the_file_of_a_stack_brings_the_bad_release_back_is_said() {
        assert_eq!(plan(&now(), &[good()], &request()).unwrap().notes, Vec::<String>::new(), "it has none");
        let mut stacked = good();
        stacked.inspect["Spec"]["Labels"][STACK] = json!("shop");
        let mut request = request();
        request.to = release::release(&stacked.inspect["Spec"]);
        let said = |request: &RollbackRequest, now: &Observation| {
            plan(now, std::slice::from_ref(&stacked), request).unwrap().notes.join("; ")
        };
        assert_eq!(
            said(&request, &now()),
            "it is of the stack shop, whose file Backstop does not change: the next `docker stack deploy` of it brings the \
             bad release back; before that, make its image web:v1 there"
        );
        let mut retagged = now();
        retagged.replicas.iter_mut().for_each(|r| r.release.reference = "web:v1".into());
        assert!(said(&request, &retagged).ends_with("or what web:v1 shows in its registry"));
    }

    #[test]
    fn a_record_of_something_else_is_refused() {
        let mut other = good();
        other.inspect["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=2"]);
        let refused = plan(&now(), &[other], &request()).unwrap_err();
        assert!(refused.message.contains("backstop explain web"), "{refused}");
        assert!(plan(&now(), &[], &request()).is_err());
        assert!(plan(&now(), &[good(), good()], &request()).is_err());
    }

    #[test]
    fn the_deadline_follows_batches_and_checks() {
        let second = 1_000_000_000u64;
        let mut spec = recorded::service()["Spec"].clone();
        spec["Mode"]["Replicated"]["Replicas"] = json!(10);
        spec["UpdateConfig"] = json!({"Parallelism": 4, "Delay": 30 * second, "Monitor": 20 * second});
        let seconds = |spec: &Value| within(spec, 2).as_secs();
        assert_eq!(seconds(&spec), 3 * (10 + 60 + 30) + 20 + 90);
        spec["UpdateConfig"]["Parallelism"] = json!(0);
        assert_eq!(seconds(&spec), (10 + 60 + 30) + 20 + 90, "all at once");
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] =
            json!({"StartPeriod": 60 * second, "Interval": 10 * second, "Timeout": 5 * second, "Retries": 2});
        assert_eq!(seconds(&spec), (10 + 105 + 30) + 20 + 90);
        spec["UpdateConfig"]["Delay"] = json!(u64::MAX);
        assert_eq!(within(&spec, 2), WITHIN_MAX);
    }
}
