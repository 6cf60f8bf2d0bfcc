//! The plan for a service of plain containers: from its replicas now to the recorded ones. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::enrol;
use super::exclusive;
use super::fingerprint;
use super::replay;
use super::verbs::is_tag;
use crate::core::io::RollbackRequest;
use crate::core::observation::{Observation, Phase, Replica};
use crate::core::plan::{Plan, Specification, Step};
use crate::core::release::{ReplicaId, RollbackId};
use crate::core::settings::Order;
use crate::runtime::engine::permanent;
use crate::runtime::{RuntimeError, Snapshot, compose};

/// Where Compose says which of a service's replicas a container is ...
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
/// ... and which one it replaced.
const REPLACES: &str = "com.docker.compose.replace";
/// In the context of a snapshot that is a copy: the replica that it was recorded of. Its data is that one's, too.
pub(super) const ANOTHER_OF: &str = "another_of";

/// The recorded replicas, but as many as run now: how many there are is nobody's release. Further ones are made like the last
/// recorded one, where nothing forbids it. `numbers`: the containers that Compose counts.
pub(super) fn as_many(
    now: &Observation,
    to: &[Snapshot],
    numbers: &BTreeMap<ReplicaId, String>,
) -> Vec<Snapshot> {
    let to = &without_those_scaled_away(now, to, numbers);
    let (_, surplus) = pair(&now.replicas, to);
    let mut all = to.clone();
    if let Some(last) = to.last().filter(|_| exclusive::of_another(to).is_none()) {
        let counted = surplus.iter().filter_map(|old| Some((old, numbers.get(&old.id)?)));
        all.extend(counted.map(|(old, number)| another(last, &old.name, number)));
    }
    all
}

/// Compose takes those with the highest numbers away when it is told to run fewer. Whatever else may be missing comes back: in
/// the middle of a deployment there are fewer for a moment, and they are of two releases then.
fn without_those_scaled_away(
    now: &Observation,
    to: &[Snapshot],
    numbers: &BTreeMap<ReplicaId, String>,
) -> Vec<Snapshot> {
    let number = |text: &str| text.parse::<u64>().ok();
    let run: Option<Vec<u64>> =
        now.replicas.iter().map(|replica| number(numbers.get(&replica.id)?.as_str())).collect();
    let one_release = now.replicas.iter().all(|replica| replica.release.id == now.replicas[0].release.id);
    let Some(highest) = run.filter(|_| one_release).and_then(|run| run.into_iter().max()) else {
        return to.to_vec();
    };
    let of = |good: &Snapshot| number(good.inspect["Config"]["Labels"][NUMBER].as_str()?);
    let runs = |good: &Snapshot| now.replicas.iter().any(|replica| replica.name == good.name);
    let (stay, away): (Vec<&Snapshot>, Vec<&Snapshot>) =
        to.iter().partition(|good| runs(good) || of(good).is_none_or(|number| number < highest));
    let scaled = away.len() + now.replicas.len() == to.len();
    if scaled { stay.into_iter().cloned().collect() } else { to.to_vec() }
}

/// What is said of recorded replicas that do not come back.
pub(super) fn fewer(recorded: &[Snapshot], to: &[Snapshot]) -> Option<String> {
    let away: Vec<&str> = recorded
        .iter()
        .filter(|good| to.iter().all(|one| one.name != good.name))
        .map(|good| good.name.as_str())
        .collect();
    (!away.is_empty()).then(|| {
        format!(
            "{} were recorded too and are there no more: as many come back as there were (`docker compose up -d --scale` makes more)",
            away.join(", ")
        )
    })
}

/// A replica of the same release, under the name and the number of the container that it replaces.
fn another(last: &Snapshot, name: &str, number: &str) -> Snapshot {
    let mut more = last.clone();
    name.clone_into(&mut more.name);
    more.inspect["Name"] = format!("/{name}").into();
    let labels = &mut more.inspect["Config"]["Labels"];
    labels[NUMBER] = number.into();
    if let Some(labels) = labels.as_object_mut() {
        labels.remove(REPLACES);
    }
    let endpoints = more.inspect["NetworkSettings"]["Networks"].as_object_mut().into_iter().flatten();
    for alias in endpoints.flat_map(|(_, e)| e["Aliases"].as_array_mut()).flatten() {
        if *alias == last.name.as_str() {
            *alias = name.into();
        }
    }
    replay::forget_anonymous(&mut more.inspect);
    if !more.context.is_object() {
        more.context = Value::Object(serde_json::Map::new());
    }
    more.context[ANOTHER_OF] = last.name.as_str().into();
    more
}

/// Makes the plan: prepare all replicas, then replace them one after the other, then clean up.
pub(super) fn plan(
    now: &Observation,
    to: &[Snapshot],
    request: &RollbackRequest,
    restarted: Vec<String>,
) -> Result<Plan, RuntimeError> {
    if to.is_empty() {
        return Err(permanent(format!(
            "no specification of {} was recorded: choose another release (`backstop explain {}`)",
            request.to, request.service
        )));
    }
    let (pairs, surplus) = pair(&now.replicas, to);
    let tx = transaction(&request.id);
    let mut steps = vec![ensure_image(request)];
    for old in &now.replicas {
        steps.push(Step::ProbeOld { container: old.id.clone(), name: old.name.clone() });
    }
    // Compose counts what carries its labels, whatever it is called: it would take a replacement that waits for the
    // decision, or what was set aside, for one replica too many, and remove the one that serves.
    let composed = to.iter().any(|s| enrol::is_compose(&enrol::labels(&s.inspect["Config"])));
    let first = steps.len();
    for (old, good) in &pairs {
        steps.push(Step::CreateReplacement {
            name: good.name.clone(),
            temp_name: format!("{}.rbnew-{tx}", good.name),
            old: old.map(|o| o.id.clone()),
            specification: specification(good)?,
        });
    }
    let prepare = if composed { first } else { steps.len() };
    for (n, (old, good)) in pairs.iter().enumerate() {
        let (created, name) = (first + n, good.name.clone());
        let beside = old.is_some_and(|old| starts_first(now.settings.order, old, good));
        let leave = old.map(|old| step_aside(old, &tx, request.stop_grace, beside));
        let take = Step::TakeName { created, temp_name: format!("{name}.rbnew-{tx}"), name: name.clone() };
        let start = Step::StartNew { created, name: name.clone(), beside };
        let wait = Step::AwaitRunning { created, name, beside };
        match leave {
            // Who asks for it by its name finds the one or the other: it is without a name for a moment only.
            Some([disarm, stop, set_aside]) if beside => {
                steps.extend([start, wait, set_aside, take, disarm, stop]);
            }
            leave => steps.extend(leave.into_iter().flatten().chain([take, start, wait])),
        }
    }
    for old in &surplus {
        steps.extend(step_aside(old, &tx, request.stop_grace, true));
    }
    let pivot = steps.len();
    steps.extend(restart(to, restarted));
    let clear = now.replicas.iter().flat_map(|old| {
        let (container, aside) = (old.id.clone(), aside(&old.name, &tx));
        let evidence = Step::SaveEvidence { container: container.clone(), name: old.name.clone() };
        [evidence, Step::RemoveOld { container, name: aside }]
    });
    let close;
    if composed {
        steps.extend(clear);
        steps.extend(pin(now, to, request));
        close = steps.len();
        steps.extend(point_tag(request));
    } else {
        close = steps.len();
        steps.extend(clear);
    }
    Ok(Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from: now.replicas.last().map(|r| r.release.clone()),
        to: request.to.clone(),
        steps,
        prepare,
        pivot,
        close,
        notes: notes(&surplus, to),
        order: order_of(now.settings.order, &pairs),
    })
}

pub(super) fn ensure_image(request: &RollbackRequest) -> Step {
    Step::EnsureImage {
        image: request.to.image.clone(),
        reference: request.to.reference.clone(),
        digests: request.to.digests.clone(),
    }
}

/// What is to be restarted with the service, once it runs.
pub(super) fn restart(to: &[Snapshot], names: Vec<String>) -> Option<Step> {
    let project = compose::project_of(&to.first()?.inspect["Config"]["Labels"])?;
    (!names.is_empty()).then_some(Step::RestartDependants { project, names })
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

/// Whether the replacement is started while the old one runs.
fn starts_first(order: Order, old: &Replica, good: &Snapshot) -> bool {
    old.phase == Phase::Running && forbids(order, good).is_none()
}

/// Why the replacement must not be started while the old one runs.
fn forbids(order: Order, good: &Snapshot) -> Option<String> {
    match order {
        Order::Auto => exclusive::of(good),
        Order::StartFirst => exclusive::of_the_engine(good),
        Order::StopFirst => Some("`order` says so".to_owned()),
    }
}

/// Which comes first, for people. What does not run has nothing to be stopped for.
fn order_of(order: Order, pairs: &[(Option<&Replica>, &Snapshot)]) -> Option<String> {
    let mut serving = pairs.iter().filter(|(old, _)| old.is_some_and(|old| old.phase == Phase::Running));
    serving.clone().next()?;
    Some(match (serving.find_map(|(_, good)| forbids(order, good)), order) {
        (None, _) => "start-first: the good release serves before the bad one stops".to_owned(),
        (Some(why), Order::StartFirst) => format!("stop-first, although `order` says start-first: {why}"),
        (Some(why), Order::Auto | Order::StopFirst) => format!("stop-first: {why}"),
    })
}

fn step_aside(old: &Replica, tx: &str, grace: Duration, replaced: bool) -> [Step; 3] {
    let (container, name) = (old.id.clone(), old.name.clone());
    let was_running = matches!(old.phase, Phase::Running | Phase::Restarting | Phase::Paused);
    [
        Step::DisarmOld { container: container.clone(), name: name.clone() },
        Step::StopOld { container: container.clone(), name: name.clone(), grace, was_running, replaced },
        Step::SetAsideOld { container, aside: aside(&name, tx), name },
    ]
}

/// `docker compose up` starts whatever the tag points at: after the proof, that has to be the good image. A plain
/// container's tag stays where its deployer pointed it.
pub(super) fn point_tag(request: &RollbackRequest) -> Option<Step> {
    is_tag(&request.to.reference)
        .then(|| Step::PointTag { reference: request.to.reference.clone(), image: request.to.image.clone() })
}

/// The project's files are to say what runs.
fn pin(now: &Observation, to: &[Snapshot], request: &RollbackRequest) -> Option<Step> {
    let bad = now.replicas.last().filter(|_| now.settings.pin)?.release.reference.clone();
    let project = compose::project_of(&to.first()?.inspect["Config"]["Labels"])?;
    Some(Step::PinProject { project, bad, good: request.to.reference.clone() })
}

fn specification(good: &Snapshot) -> Result<Specification, RuntimeError> {
    let json =
        serde_json::to_string(good).map_err(|e| permanent(format!("the record of {}: {e}", good.name)))?;
    Ok(Specification::new(json))
}

fn notes(surplus: &[&Replica], to: &[Snapshot]) -> Vec<String> {
    if surplus.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = surplus.iter().map(|r| r.name.as_str()).collect();
    let recorded = to.iter().filter(|good| good.context[ANOTHER_OF].is_null()).count();
    let why = exclusive::of_another(to).unwrap_or_else(|| "Compose did not make it".to_owned());
    vec![format!(
        "beyond the {recorded} recorded, {} is removed, because no further replica can be made: {why}",
        names.join(", ")
    )]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::release::{ImageId, Release, ReleaseId, ServiceName};
    use crate::core::settings::ServiceSettings;
    use crate::runtime::container::observe;
    use serde_json::{Value, json};

    fn inspect(name: &str, image: &str) -> Value {
        json!({
            "Id": format!("id-{name}-{image}"), "Name": format!("/{name}"), "Image": image,
            "Created": "2026-11-20T21:20:11Z", "RestartCount": 0,
            "State": {"Status": "running", "Running": true, "StartedAt": "2026-11-20T21:20:11Z"},
            "Config": {"Image": "shop:v1", "Labels": {}}, "HostConfig": {
                "RestartPolicy": {"Name": "no"}, "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
            },
        })
    }

    fn good(names: &[&str]) -> Vec<Snapshot> {
        let one = |name: &&str| Snapshot {
            name: (*name).to_owned(),
            inspect: inspect(name, "sha256:v1"),
            image: Value::Null,
            context: Value::Null,
        };
        names.iter().map(one).collect()
    }

    fn now(names: &[&str]) -> Observation {
        let replicas = names.iter().map(|n| observe::replica(&inspect(n, "sha256:v2"), Vec::new())).collect();
        Observation {
            service: ServiceName::new("shop"),
            settings: std::sync::Arc::default(),
            asked: crate::core::Timestamp::MAX,
            replicas,
        }
    }

    fn request() -> RollbackRequest {
        let to = Release {
            id: ReleaseId::new("0123456789ab"),
            image: ImageId::new("sha256:v1"),
            reference: "shop:v1".into(),
            digests: Vec::new(),
            fingerprint: fingerprint::fingerprint(&inspect("shop", "sha256:v1")),
            version: None,
        };
        RollbackRequest {
            id: RollbackId::new("20261120T212011Z/7"),
            service: ServiceName::new("shop"),
            from: None,
            to,
            stop_grace: Duration::from_secs(3),
            decided: None,
            vanished: false,
            why: String::new(),
            downgrade: None,
            mitigation: false,
        }
    }

    fn names(steps: &[Step]) -> Vec<&'static str> {
        steps.iter().map(Step::name).collect()
    }

    #[test]
    fn one_replica_is_prepared_replaced_and_cleaned_up() {
        let plan = plan(&now(&["shop"]), &good(&["shop"]), &request(), Vec::new()).unwrap();
        let act = &plan.steps[plan.prepare..plan.pivot];
        assert_eq!(names(&plan.steps[..plan.prepare]), ["ensure_image", "probe_old", "create_replacement"]);
        let acts = ["disarm_old", "stop_old", "set_aside_old", "take_name", "start_new", "await_running"];
        assert_eq!(names(act), acts);
        assert_eq!(names(&plan.steps[plan.close..]), ["save_evidence", "remove_old"]);
        let temporary = plan.steps.iter().find_map(|s| match s {
            Step::CreateReplacement { temp_name, .. } => Some(temp_name.as_str()),
            _ => None,
        });
        assert_eq!(temporary, Some("shop.rbnew-20261120T212011Z-7"), "a name that engines take");
    }

    #[test]
    fn replicas_are_replaced_one_after_the_other_by_name() {
        let plan =
            plan(&now(&["shop-2", "shop-1"]), &good(&["shop-1", "shop-2"]), &request(), Vec::new()).unwrap();
        let starts: Vec<(usize, &str)> = plan
            .steps
            .iter()
            .filter_map(|s| match s {
                Step::StartNew { created, name, .. } => Some((*created, name.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(starts, [(3, "shop-1"), (4, "shop-2")]);
        let first_stop = names(&plan.steps).iter().position(|n| *n == "stop_old").unwrap();
        let first_wait = names(&plan.steps).iter().position(|n| *n == "await_running").unwrap();
        let stops_before = names(&plan.steps[..first_wait]).iter().filter(|n| **n == "stop_old").count();
        assert!(first_stop < first_wait && stops_before == 1, "the second is stopped when the first runs");
        for (created, name) in starts {
            assert!(matches!(&plan.steps[created], Step::CreateReplacement { name: n, .. } if n == name));
        }
    }

    #[test]
    fn where_nothing_is_exclusive_the_replacement_runs_before_the_old_one_stops() {
        let acts = |order: Order, ports: Value| {
            let mut good = good(&["shop"]);
            good[0].inspect["HostConfig"]["PortBindings"] = ports;
            let mut now = now(&["shop"]);
            now.settings = std::sync::Arc::new(ServiceSettings { order, ..ServiceSettings::default() });
            let plan = plan(&now, &good, &request(), Vec::new()).unwrap();
            plan.steps[plan.prepare..plan.pivot].to_vec()
        };
        let (free, taken) = (json!({}), json!({"80/tcp": [{"HostPort": "80"}]}));
        let beside = acts(Order::Auto, free.clone());
        let order = ["start_new", "await_running", "set_aside_old", "take_name", "disarm_old", "stop_old"];
        assert_eq!(names(&beside), order);
        assert!(matches!(&beside[1], Step::AwaitRunning { beside: true, .. }));
        assert!(beside[5].to_string().ends_with("its replacement serves"), "{}", beside[5]);
        assert_eq!(names(&acts(Order::StartFirst, free.clone())), order);
        for (order, ports) in
            [(Order::StopFirst, free), (Order::Auto, taken.clone()), (Order::StartFirst, taken)]
        {
            assert_eq!(names(&acts(order, ports))[..2], ["disarm_old", "stop_old"], "{order:?}");
        }
    }

    #[test]
    fn it_is_said_which_comes_first_and_why() {
        let said = |order: Order, ports: &Value, state: &str| {
            let mut now = now(&["shop"]);
            now.settings = std::sync::Arc::new(ServiceSettings { order, ..ServiceSettings::default() });
            if state == "exited" {
                now.replicas[0].phase = Phase::Exited;
            }
            let mut good = good(&["shop"]);
            good[0].inspect["HostConfig"]["PortBindings"] = ports.clone();
            order_of(order, &pair(&now.replicas, &good).0)
        };
        let (port, none) = (json!({"80/tcp": [{"HostPort": "80"}]}), json!({}));
        let told = |order, ports, state| said(order, ports, state).unwrap_or_default();
        assert_eq!(told(Order::Auto, &port, "running"), "stop-first: it publishes ports");
        assert_eq!(
            told(Order::StartFirst, &port, "running"),
            "stop-first, although `order` says start-first: it publishes ports"
        );
        assert_eq!(told(Order::StopFirst, &none, "running"), "stop-first: `order` says so");
        assert!(told(Order::Auto, &none, "running").starts_with("start-first: "));
        assert_eq!(said(Order::StartFirst, &port, "exited"), None, "nothing serves anyway");
    }

    #[test]
    fn a_service_of_which_nothing_is_left_is_only_created_and_started() {
        let plan = plan(&now(&[]), &good(&["shop"]), &request(), Vec::new()).unwrap();
        let all = ["ensure_image", "create_replacement", "take_name", "start_new", "await_running"];
        assert_eq!(names(&plan.steps), all);
        assert_eq!((plan.prepare, plan.pivot, plan.close), (2, 5, 5));
        assert_eq!(plan.from, None);
    }

    #[test]
    fn replicas_beyond_the_record_are_removed_and_that_is_said() {
        let plan = plan(&now(&["shop", "extra"]), &good(&["shop"]), &request(), Vec::new()).unwrap();
        assert_eq!(names(&plan.steps).iter().filter(|n| **n == "remove_old").count(), 2);
        assert_eq!(
            plan.notes,
            [
                "beyond the 1 recorded, extra is removed, because no further replica can be made: it publishes ports"
            ]
        );
    }

    /// A replica as Compose made it, with an anonymous volume at /data.
    fn composed(name: &str, image: &str, volume: char) -> Value {
        let mut inspect = inspect(name, image);
        let volume = volume.to_string().repeat(64);
        inspect["Config"]["Labels"] = json!({
            "com.docker.compose.project": "p", "com.docker.compose.service": "shop", REPLACES: "older",
            NUMBER: name.rsplit('-').next(),
        });
        inspect["Config"]["Volumes"] = json!({"/data": {}});
        inspect["HostConfig"] = json!({"Binds": [format!("{volume}:/data")], "NetworkMode": "p_default"});
        inspect["Mounts"] = json!([{"Type": "volume", "Name": volume, "Destination": "/data", "RW": true}]);
        inspect["NetworkSettings"] = json!({"Networks": {"p_default": {"Aliases": [name, "shop"]}}});
        inspect
    }

    /// What runs, with the numbers by which Compose counts it, and what is recorded.
    fn scaled(runs: &[&str], recorded: &[&str]) -> (Observation, BTreeMap<ReplicaId, String>, Vec<Snapshot>) {
        let mut now = now(&[]);
        let bad = |name: &&str| observe::replica(&composed(name, "sha256:v2", 'b'), Vec::new());
        now.replicas = runs.iter().map(bad).collect();
        let number = |r: &Replica| (r.id.clone(), r.name.rsplit('-').next().unwrap().to_owned());
        let numbers = now.replicas.iter().map(number).collect();
        let mut to = good(recorded);
        for one in &mut to {
            one.inspect = composed(&one.name, "sha256:v1", 'a');
        }
        (now, numbers, to)
    }

    #[test]
    fn as_many_of_compose_run_afterwards_as_before() {
        let (now, numbers, to) = scaled(&["shop-2", "shop-3", "shop-5", "shop-7"], &["shop-1", "shop-2"]);
        let all = as_many(&now, &to, &numbers);
        // One of those beyond the record makes way for the recorded one that does not run.
        let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["shop-1", "shop-2", "shop-5", "shop-7"]);
        let more = &all[2].inspect;
        assert_eq!(more["Config"]["Labels"][NUMBER], "5");
        assert_eq!(more["Config"]["Labels"].get(REPLACES), None);
        assert_eq!(more["NetworkSettings"]["Networks"]["p_default"]["Aliases"], json!(["shop-5", "shop"]));
        assert_eq!(more["HostConfig"]["Binds"], json!([]), "the data of shop-2 is its own");
        assert_eq!(fingerprint::fingerprint(more), fingerprint::fingerprint(&to[1].inspect));
        let planned = plan(&now, &all, &request(), Vec::new()).unwrap();
        assert_eq!(planned.notes, Vec::<String>::new());
        let replaced = |step: &Step| match step {
            Step::CreateReplacement { name, old, .. } => {
                Some((name.clone(), old.as_ref().map(ToString::to_string)))
            }
            _ => None,
        };
        let replaced: Vec<_> = planned.steps.iter().filter_map(replaced).collect();
        assert!(
            replaced.contains(&("shop-7".to_owned(), Some("id-shop-7-sha256:v2".to_owned()))),
            "{replaced:?}"
        );
        assert_eq!(replaced.len(), 4);
    }

    #[test]
    fn fewer_come_back_where_fewer_were_asked_for() {
        let names = |(now, numbers, to): (Observation, BTreeMap<ReplicaId, String>, Vec<Snapshot>)| {
            as_many(&now, &to, &numbers).into_iter().map(|s| s.name).collect::<Vec<_>>()
        };
        let recorded = ["shop-1", "shop-2", "shop-3"];
        assert_eq!(names(scaled(&["shop-1"], &recorded)), ["shop-1"]);
        assert_eq!(names(scaled(&["shop-2", "shop-1"], &recorded)), ["shop-1", "shop-2"]);
        assert_eq!(
            names(scaled(&["shop-1", "shop-3"], &recorded)),
            recorded,
            "one in between is lost, not unwanted"
        );
        assert_eq!(names(scaled(&[], &recorded)), recorded, "somebody removed it, or it never came up");
        let (mut now, numbers, to) = scaled(&["shop-1", "shop-2"], &recorded);
        now.replicas[0].release.id = ReleaseId::new("another");
        assert_eq!(names((now, numbers, to)), recorded, "a deployment is under way");
        let (now, numbers, to) = scaled(&["shop-1"], &recorded);
        let said = fewer(&to, &as_many(&now, &to, &numbers)).unwrap_or_default();
        assert!(said.starts_with("shop-2, shop-3 were recorded too"), "{said}");
        assert_eq!(fewer(&to, &to), None);
        let (now, _, to) = scaled(&["shop-1"], &recorded);
        assert_eq!(names((now, BTreeMap::new(), to)), recorded, "nobody counts them");
    }

    #[test]
    fn what_only_one_can_have_is_not_made_twice() {
        let (now, numbers, mut to) = scaled(&["shop-1", "shop-2"], &["shop-1"]);
        to[0].inspect["HostConfig"]["PortBindings"] = json!({"80/tcp": [{"HostPort": "80"}]});
        assert_eq!(as_many(&now, &to, &numbers), to);
        let (now, _, to) = scaled(&["shop-1", "shop-2"], &["shop-1"]);
        assert_eq!(as_many(&now, &to, &BTreeMap::new()), to, "nobody counts them");
    }

    #[test]
    fn a_tag_that_compose_deploys_by_is_pointed_at_the_good_image_after_the_proof() {
        let mut composed = good(&["shop"]);
        composed[0].inspect["Config"]["Labels"] =
            json!({"com.docker.compose.project": "p", "com.docker.compose.service": "shop"});
        let plan = plan(&now(&["shop"]), &composed, &request(), Vec::new()).unwrap();
        assert_eq!(names(&plan.steps[plan.close..]), ["point_tag"]);
        assert_eq!(
            names(&plan.steps[plan.pivot..plan.close]),
            ["save_evidence", "remove_old"],
            "no files, no pin"
        );
    }

    #[test]
    fn compose_sees_one_container_too_many_for_moments_only() {
        let mut composed = good(&["shop"]);
        composed[0].inspect["Config"]["Labels"] =
            json!({"com.docker.compose.project": "p", "com.docker.compose.service": "shop"});
        let plan = plan(&now(&["shop"]), &composed, &request(), Vec::new()).unwrap();
        assert_eq!(
            names(&plan.steps[..plan.prepare]),
            ["ensure_image", "probe_old"],
            "none while it is decided"
        );
        let last = names(&plan.steps).iter().position(|n| *n == "remove_old").unwrap();
        assert!(last < plan.close, "none while it is verified");
    }

    #[test]
    fn a_projects_files_are_pinned_as_soon_as_the_target_runs() {
        let mut composed = good(&["shop"]);
        composed[0].inspect["Config"]["Labels"] = json!({
            "com.docker.compose.project": "p", "com.docker.compose.service": "shop",
            "com.docker.compose.project.working_dir": "/srv/p",
            "com.docker.compose.project.config_files": "/srv/p/compose.yaml",
        });
        let planned = plan(&now(&["shop"]), &composed, &request(), Vec::new()).unwrap();
        let applied = names(&planned.steps[planned.pivot..planned.close]);
        assert_eq!(applied, ["save_evidence", "remove_old", "pin_project"]);
        let mut unwanted = now(&["shop"]);
        unwanted.settings = std::sync::Arc::new(ServiceSettings { pin: false, ..ServiceSettings::default() });
        let planned = plan(&unwanted, &composed, &request(), Vec::new()).unwrap();
        assert!(!names(&planned.steps).contains(&"pin_project"));
    }

    #[test]
    fn nothing_recorded_and_a_record_of_something_else_are_refused() {
        assert!(
            plan(&now(&["shop"]), &[], &request(), Vec::new())
                .unwrap_err()
                .message
                .contains("backstop explain shop")
        );
        let good = good(&["shop"]);
        assert!(fits(&good[0], &request()).is_ok());
        let mut other = good[0].clone();
        other.inspect["Config"]["Env"] = json!(["A=2"]);
        assert!(fits(&other, &request()).is_err());
    }
}
