//! Reading what a manager says of a service and its tasks: its replicas, and the tasks that ended by themselves.
//!
//! A service runs what it was *told* to run. In the middle of an update, and for good after one that Swarm paused, tasks
//! of the release before it run beside the new ones: they are what is left of it and no replicas, or a release that fails
//! on its first node would never be judged.
//!
//! A task is one attempt. When it ends, Swarm makes another one in its slot: what an engine calls a restart is here a
//! newer task of the same slot.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{images, release};
use crate::core::observation::{Phase, Replica};
use crate::core::release::{Release, ReplicaId};
use crate::core::time::Timestamp;
use crate::runtime::container::enrol::Labels;

/// What `docker run` ends with when there was no process that could end: the code of a task that was rejected.
const NEVER_STARTED: i64 = 125;

/// A task that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) task: ReplicaId,
    pub(super) code: i64,
    /// Its container, to ask whether it was for want of memory.
    pub(super) container: Option<String>,
}

/// Why a service cannot be watched at all.
pub(super) fn refused(service: &Value) -> Option<&'static str> {
    let mode = &service["Spec"]["Mode"];
    if mode["ReplicatedJob"].is_object() || mode["GlobalJob"].is_object() {
        return Some(
            "it is a job: its tasks are meant to end, and what they did cannot be rolled back: take `backstop.enable` \
             away from it",
        );
    }
    if !service["Spec"]["TaskTemplate"]["ContainerSpec"].is_object() {
        return Some(
            "its tasks are no containers (a plugin or a network attachment): only containers are watched",
        );
    }
    None
}

/// The labels that speak for a service: its own before those of its containers.
pub(super) fn labels(service: &Value) -> Labels {
    let mut labels = text_map(&service["Spec"]["TaskTemplate"]["ContainerSpec"]["Labels"]);
    labels.extend(text_map(&service["Spec"]["Labels"]));
    // It says what was done, and is no setting.
    labels.remove(release::MARK);
    labels
}

/// The name that Swarm knows it by.
pub(super) fn name(service: &Value) -> &str {
    name_of(&service["Spec"])
}

/// The same, from its specification.
pub(super) fn name_of(spec: &Value) -> &str {
    spec["Name"].as_str().unwrap_or_default()
}

/// The replicas of a service, oldest first, without addresses.
pub(super) fn replicas(service: &Value, tasks: &[Value]) -> Vec<Replica> {
    let own = release::release(&service["Spec"]);
    let current = of_current(service, tasks);
    let mut found = if current.is_empty() && tasks.iter().any(is_wanted) {
        // It was told this moment: what it was told before runs yet.
        slots(service, tasks.iter().collect(), &|task| earlier(service, task))
    } else {
        slots(service, current, &|_| own.clone())
    };
    // A port or memory that a task holds which is being stopped is free in a moment: that is no error yet.
    if tasks.iter().any(|task| is_running(task) && !is_wanted(task)) {
        found.iter_mut().for_each(|replica| replica.start_error = None);
    }
    found
}

/// Tasks of the current release that ended by themselves, oldest first. What an update, a scale or a drained node shuts
/// down is not among them.
pub(super) fn ends(service: &Value, tasks: &[Value]) -> Vec<End> {
    let mut ended: Vec<&Value> =
        of_current(service, tasks).into_iter().filter(|task| has_ended(task)).collect();
    ended.sort_by_key(|task| created(task));
    ended
        .into_iter()
        .map(|task| End { task: id(task), code: code(task), container: container(task) })
        .collect()
}

/// Whether Swarm has done what it was told: else why not, for people.
pub(super) fn settled(service: &Value) -> Result<(), String> {
    let status = &service["UpdateStatus"];
    let message = status["Message"].as_str().unwrap_or_default();
    match status["State"].as_str().unwrap_or_default() {
        "" | "completed" | "rollback_completed" => Ok(()),
        "paused" | "rollback_paused" => Err(format!("Swarm paused its update: {message}")),
        state => Err(format!("Swarm is at it ({state}): {message}")),
    }
}

/// Whether Swarm is rolling it back by itself.
pub(super) fn is_rolling_back(service: &Value) -> bool {
    service["UpdateStatus"]["State"] == "rollback_started"
}

/// Whether Swarm wants a task to run, now or as soon as it may.
pub(super) fn is_wanted(task: &Value) -> bool {
    matches!(task["DesiredState"].as_str(), Some("running" | "ready" | "accepted"))
}

/// Whether its process runs, and passes its HEALTHCHECK if it has one.
pub(super) fn is_running(task: &Value) -> bool {
    task["Status"]["State"] == "running"
}

/// Whether it ended by itself, or could not begin.
pub(super) fn has_ended(task: &Value) -> bool {
    matches!(task["Status"]["State"].as_str(), Some("failed" | "rejected" | "complete"))
}

/// Its container, if it has one.
pub(super) fn container(task: &Value) -> Option<String> {
    let id = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
    id.filter(|id| !id.is_empty()).map(str::to_owned)
}

/// When a task was made, in nanoseconds.
pub(super) fn created(task: &Value) -> i128 {
    nanos(&task["CreatedAt"]).unwrap_or_default()
}

/// The engine's error with a task, if there is one.
pub(super) fn error(task: &Value) -> Option<&str> {
    task["Status"]["Err"].as_str().filter(|e| !e.is_empty())
}

pub(super) fn id(task: &Value) -> ReplicaId {
    ReplicaId::new(task["ID"].as_str().unwrap_or_default())
}

fn text_map(of: &Value) -> Labels {
    let all = of.as_object().into_iter().flatten();
    all.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn of_current<'a>(service: &Value, tasks: &'a [Value]) -> Vec<&'a Value> {
    let template = release::template(&service["Spec"]["TaskTemplate"]);
    tasks.iter().filter(|task| release::template(&task["Spec"]) == template).collect()
}

/// What a task of an earlier specification is: a task does not tell its ports, the specification before does.
fn earlier(service: &Value, task: &Value) -> Release {
    let mut before = service["PreviousSpec"].clone();
    if let Some(template) = before.get_mut("TaskTemplate") {
        images::write(template, images::of(&task["Spec"]).map(str::to_owned));
    }
    if release::template(&before["TaskTemplate"]) == release::template(&task["Spec"]) {
        return release::release(&before);
    }
    let mut spec = service["Spec"].clone();
    spec["TaskTemplate"] = task["Spec"].clone();
    release::release(&spec)
}

/// One replica for each slot: its newest task.
fn slots(service: &Value, tasks: Vec<&Value>, release: &dyn Fn(&Value) -> Release) -> Vec<Replica> {
    let mut slots: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for task in tasks {
        slots.entry(slot(task)).or_default().push(task);
    }
    let restarts = service["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] != "none";
    let mut found: Vec<Replica> = Vec::new();
    for (slot, mut tasks) in slots {
        tasks.sort_by_key(|task| created(task));
        let Some(newest) = tasks.pop() else { continue };
        let Some((phase, ended)) = phase(newest, tasks.last().copied(), restarts) else { continue };
        found.push(Replica {
            id: id(newest),
            name: format!("{}.{slot}", name(service)),
            release: release(newest),
            created: moment(&newest["CreatedAt"]).unwrap_or_default(),
            started: is_running(newest).then(|| moment(&newest["Status"]["Timestamp"])).flatten(),
            phase,
            restart_count: 0,
            restarts,
            health: None,
            exit_code: ended.map(code),
            start_error: (phase == Phase::Created).then(|| error(newest).map(str::to_owned)).flatten(),
            address: None,
        });
    }
    // Slots that a scale took away keep what failed in them for a while.
    if let Some(most) = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64() {
        let live = found.iter().filter(|r| r.phase != Phase::Exited).count();
        let mut room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(live);
        found.retain(|r| {
            let counts = r.phase != Phase::Exited || room > 0;
            room = room.saturating_sub(usize::from(counts && r.phase == Phase::Exited));
            counts
        });
    }
    found.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
    found
}

/// What a slot is doing, and the task that ended in it last, if it does not run. None if it is being given up.
fn phase<'a>(
    newest: &'a Value,
    before: Option<&'a Value>,
    restarts: bool,
) -> Option<(Phase, Option<&'a Value>)> {
    match (newest["Status"]["State"].as_str().unwrap_or_default(), is_wanted(newest)) {
        // It is to make way, or has, and nothing comes after it.
        ("shutdown" | "remove" | "orphaned", _) => None,
        ("failed" | "rejected" | "complete", true) if restarts => Some((Phase::Restarting, Some(newest))),
        ("failed" | "rejected" | "complete", _) => Some((Phase::Exited, Some(newest))),
        (_, false) => None,
        ("running", true) => Some((Phase::Running, None)),
        // On its way: for the first time, or again.
        (_, true) => match before.filter(|task| has_ended(task) && error(newest).is_none()) {
            Some(ended) => Some((Phase::Restarting, Some(ended))),
            None => Some((Phase::Created, None)),
        },
    }
}

/// The slot of a replicated service's task, else its node.
fn slot(task: &Value) -> String {
    match task["Slot"].as_u64().unwrap_or(0) {
        0 => task["NodeID"].as_str().unwrap_or("unassigned").to_owned(),
        slot => slot.to_string(),
    }
}

fn code(task: &Value) -> i64 {
    let code = task["Status"]["ContainerStatus"]["ExitCode"].as_i64().unwrap_or(0);
    // No process, no code of it. One that ended well is told from that by its state.
    if code == 0 && task["Status"]["State"] != "complete" { NEVER_STARTED } else { code }
}

/// A moment as the manager tells it.
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    u64::try_from(nanos(value)? / 1_000_000).ok().map(Timestamp::from_millis)
}

fn nanos(value: &Value) -> Option<i128> {
    value.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond)
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;
    use serde_json::json;

    fn told(replicas: &[Replica]) -> Vec<(&str, Phase, Option<i64>)> {
        replicas.iter().map(|r| (r.name.as_str(), r.phase, r.exit_code)).collect()
    }

    #[test]
    fn running_tasks_are_replicas_of_the_services_release() {
        let service = recorded::service();
        let replicas = replicas(&service, &recorded::tasks());
        assert_eq!(told(&replicas), [("web.1", Phase::Running, None), ("web.2", Phase::Running, None)]);
        assert!(replicas.iter().all(|r| r.release == release::release(&service["Spec"])));
        assert!(replicas.iter().all(|r| r.started.is_some() && r.started >= Some(r.created)));
        assert_eq!(ends(&service, &recorded::tasks()), []);
        assert_eq!(settled(&service), Ok(()));
    }

    #[test]
    fn an_update_that_swarm_paused_is_judged_by_its_new_tasks() {
        let (service, tasks) = (recorded::paused_service(), recorded::paused_tasks());
        let replicas = replicas(&service, &tasks);
        assert_eq!(told(&replicas), [("web.2", Phase::Restarting, Some(127))]);
        assert_eq!(replicas[0].release.reference, "web:crash");
        let ends = ends(&service, &tasks);
        assert_eq!(ends.len(), 3, "{ends:?}");
        assert!(ends.iter().all(|end| end.code == 127 && end.container.is_some()));
        assert!(settled(&service).unwrap_err().contains("paused"));
    }

    #[test]
    fn before_the_first_new_task_what_ran_before_is_seen() {
        let mut service = recorded::paused_service();
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = json!("web:v3");
        let replicas = replicas(&service, &recorded::tasks());
        let before = release::release(&recorded::service()["Spec"]);
        assert!(replicas.len() == 2 && replicas.iter().all(|r| r.release == before), "{replicas:?}");
    }

    #[test]
    fn a_global_service_has_one_replica_a_node() {
        let tasks = recorded::global_tasks();
        let mut service = recorded::service();
        service["Spec"]["Name"] = json!("glob");
        service["Spec"]["Mode"] = json!({"Global": {}});
        service["Spec"]["TaskTemplate"] = tasks[0]["Spec"].clone();
        assert_eq!(
            told(&replicas(&service, &tasks)),
            [("glob.yfixeacsrfkplwuxeqrfzph7n", Phase::Running, None)]
        );
    }

    fn task(slot: u32, created: &str, desired: &str, state: Value) -> Value {
        json!({"ID": format!("t{slot}{created}"), "Slot": slot, "DesiredState": desired, "Status": state,
            "CreatedAt": format!("2026-11-21T22:50:{created}Z"), "Spec": recorded::service()["Spec"]["TaskTemplate"]})
    }

    #[test]
    fn a_task_that_cannot_be_placed_says_why() {
        let why = "no suitable node (scheduling constraints not satisfied on 1 node)";
        let pending = task(1, "10", "running", json!({"State": "pending", "Err": why}));
        let replicas = replicas(&recorded::service(), &[pending]);
        assert_eq!(told(&replicas), [("web.1", Phase::Created, None)]);
        assert_eq!(replicas[0].start_error.as_deref(), Some(why));
    }

    #[test]
    fn a_task_that_waits_for_another_one_to_end_is_not_in_trouble() {
        let why = "no suitable node (host-mode port already in use on 1 node)";
        let pending = task(1, "11", "running", json!({"State": "pending", "Err": why}));
        let error = |leaving: &str| {
            let old = task(1, "10", leaving, json!({"State": "running"}));
            replicas(&recorded::service(), &[pending.clone(), old])[0].start_error.clone()
        };
        assert_eq!(error("shutdown"), None);
        assert_eq!(error("running").as_deref(), Some(why), "started first, it would wait for ever");
    }

    #[test]
    fn what_was_asked_to_make_way_is_neither_a_replica_nor_an_end() {
        let tasks = [
            task(1, "10", "shutdown", json!({"State": "shutdown", "ContainerStatus": {"ExitCode": 143}})),
            task(2, "10", "shutdown", json!({"State": "running"})),
            task(3, "10.5", "running", json!({"State": "running"})),
        ];
        assert_eq!(told(&replicas(&recorded::service(), &tasks)), [("web.3", Phase::Running, None)]);
        assert_eq!(ends(&recorded::service(), &tasks), []);
    }

    #[test]
    fn a_slot_that_is_given_up_is_down_unless_a_scale_took_it_away() {
        let failed = |slot| {
            let state = json!({"State": "failed", "Err": "task: non-zero exit (3)", "ContainerStatus": {"ExitCode": 3}});
            task(slot, "10", "shutdown", state)
        };
        let all = [failed(1), failed(2), failed(3)];
        let down = [("web.1", Phase::Exited, Some(3)), ("web.2", Phase::Exited, Some(3))];
        assert_eq!(told(&replicas(&recorded::service(), &all)), down);
        let running = [task(2, "11", "running", json!({"State": "running"})), failed(1), failed(3)];
        let seen = replicas(&recorded::service(), &running);
        assert_eq!(told(&seen), [("web.1", Phase::Exited, Some(3)), ("web.2", Phase::Running, None)]);
    }

    #[test]
    fn a_task_without_a_process_has_the_code_of_one_that_could_not_be_started() {
        let state =
            json!({"State": "rejected", "Err": "No such image: web:v9", "ContainerStatus": {"ExitCode": 0}});
        let tasks = [
            task(1, "10", "shutdown", state),
            task(1, "15", "ready", json!({"State": "ready"})),
            task(2, "10", "shutdown", json!({"State": "complete", "ContainerStatus": {"ExitCode": 0}})),
        ];
        let codes: Vec<i64> = ends(&recorded::service(), &tasks).iter().map(|end| end.code).collect();
        assert_eq!(codes, [125, 0]);
        assert_eq!(replicas(&recorded::service(), &tasks)[1].exit_code, Some(125));
    }

    #[test]
    fn jobs_are_refused_with_what_to_do() {
        let mut service = recorded::service();
        assert_eq!(refused(&service), None);
        for mode in ["ReplicatedJob", "GlobalJob"] {
            service["Spec"]["Mode"] = json!({mode: {}});
            assert!(refused(&service).unwrap().contains("backstop.enable"));
        }
    }

    #[test]
    fn a_services_labels_come_before_those_of_its_containers() {
        let mut service = recorded::service();
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Labels"] =
            json!({"backstop.enable": "false", "backstop.trial": "1m"});
        service["Spec"]["Labels"]["backstop.rollback"] = json!("rb1");
        let labels: Vec<(String, String)> = labels(&service).into_iter().collect();
        let expected = [("backstop.enable", "true"), ("backstop.trial", "1m")];
        assert_eq!(labels, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
