//! Carrying out the three steps of a Swarm rollback, and taking them back. Each may be repeated: whether a service is
//! ours is asked of the manager, by its specification and the mark that we left on it, and never remembered.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::images::{self, Images};
use super::names;
use super::{SwarmRuntime, conflict, not_found, observe, plan as planning, release};
use crate::core::plan::{Plan, Specification, Step, StepOutput};
use crate::core::time::human;
use crate::runtime::container::verbs;
use crate::runtime::engine::{CALL, permanent};
use crate::runtime::logs;
use crate::runtime::registry::{Login, registry};
use crate::runtime::{EVIDENCE_LINES, ErrorClass, RuntimeError, read};

/// How often is asked while Swarm replaces tasks.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// So often a service is read again because somebody, or Swarm itself, changed it before our change of it came.
pub(super) const ATTEMPTS: usize = 5;
/// A rollback does not wait longer for a credential helper: the nodes usually have the image.
const HELPED: Duration = Duration::from_secs(5);
/// Where a service of which something ran gets no task at all within this time, no node may run it: Swarm places at once.
const PLACED_WITHIN: Duration = Duration::from_secs(15);
/// A target of which so many tasks ended since it was asked for does not run.
const ENDS_MAX: usize = 3;

type Done<'a> = &'a [Option<StepOutput>];

impl SwarmRuntime {
    pub(super) async fn carry_out(
        &self,
        plan: &Plan,
        step: &Step,
        done: Done<'_>,
    ) -> Result<StepOutput, RuntimeError> {
        match step {
            Step::CheckService { id, name, specification } => {
                self.check(plan, id, name, &read(specification)?).await
            }
            Step::UpdateService { checked, id, name } => {
                let good = good_of(plan, *checked)?;
                self.update(plan, id, name, &good, &before_of(done, *checked)?).await
            }
            Step::AwaitConverged { checked, id, name, within } => {
                self.converge(plan, id, name, &good_of(plan, *checked)?, *within).await
            }
            Step::SaveEvidence { container, .. } => {
                Ok(StepOutput::Evidence { log: self.last_words(container.as_str()).await })
            }
            other => Err(permanent(format!("\"{other}\" is for a container, not for a Swarm service"))),
        }
    }

    pub(super) async fn take_back(
        &self,
        plan: &Plan,
        step: &Step,
        done: Done<'_>,
    ) -> Result<(), RuntimeError> {
        let Step::UpdateService { checked, id, name } = step else { return Ok(()) };
        // Without the record of what ran before, nothing was ever changed.
        let Ok(before) = before_of(done, *checked) else { return Ok(()) };
        let good = good_of(plan, *checked)?;
        for _ in 0..ATTEMPTS {
            let Some(service) = self.service(id).await? else { return Ok(()) };
            if !is_ours(&service, &good, plan) {
                // Somebody deployed, or Swarm went back by itself: theirs is the last word.
                return self.point_back(&before, &good, &service).await;
            }
            let (service, tasks) = self.with_images(service).await?;
            if is_of_another_image(&service, &good) {
                return Ok(());
            }
            let mut spec = release::restored(&before, &service["Spec"], None);
            release::keep_changes(&mut spec, &good, &service["Spec"]);
            replace_all(&mut spec, &service["Spec"], &tasks);
            if let Some(note) = self.give_image(&mut spec, &good, &service["ID"]).await? {
                tracing::info!(service = %plan.service, "{note}");
            }
            match self.put(id, &service, &spec).await {
                Err(error) if is_out_of_sequence(&error) => {}
                other => {
                    return other.map_err(|e| said(&format!("giving {name} back what it ran"), e));
                }
            }
        }
        Err(restless("giving back what it ran to", name))
    }

    /// The service as the manager says it; none if it is gone.
    async fn service(&self, id: &str) -> Result<Option<Value>, RuntimeError> {
        let mut service = verbs::look_up(&self.engine, &format!("/services/{id}")).await?;
        if let Some(service) = &mut service {
            self.name_networks(service).await?;
        }
        Ok(service)
    }

    async fn there(&self, id: &str, name: &str) -> Result<Value, RuntimeError> {
        let service = self.service(id).await?;
        service.ok_or_else(|| {
            not_found(format!("the service {name} ({id}) was removed: deploy it again if it is to run"))
        })
    }

    async fn check(
        &self,
        plan: &Plan,
        id: &str,
        name: &str,
        good: &Value,
    ) -> Result<StepOutput, RuntimeError> {
        let (service, _) = self.with_images(self.there(id, name).await?).await?;
        let now = release::release(&service["Spec"]);
        if plan.from.as_ref().is_some_and(|from| from.id != now.id) {
            return Err(deployed(name, &service));
        }
        if observe::is_rolling_back(&service) {
            return Err(conflict(format!("Swarm is rolling {name} back by itself")));
        }
        if let Some(image) = images::of(&good["TaskTemplate"])
            && verbs::image_id(&self.engine, image).await?.is_none()
        {
            let why = "and without a digest no registry can be asked for it: load it again";
            return Err(permanent(format!("the image of {} ({image}) is gone, {why}", plan.to)));
        }
        let mut wanted = good.clone();
        self.refer_anew(&mut wanted).await?;
        for need in needs(&wanted) {
            if verbs::look_up(&self.engine, &need.path).await?.is_none() {
                return Err(permanent(format!(
                    "the {} {} of {} is gone, and Swarm would stop what runs before it noticed: make another one \
                     and deploy {name} with it; nothing was changed",
                    need.what, need.name, plan.to
                )));
            }
        }
        let before = release::restored(&service["Spec"], &service["Spec"], None);
        Ok(StepOutput::Service { before: Specification::new(before.to_string()) })
    }

    async fn update(
        &self,
        plan: &Plan,
        id: &str,
        name: &str,
        good: &Value,
        before: &Value,
    ) -> Result<StepOutput, RuntimeError> {
        let mut notes = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            let service = self.there(id, name).await?;
            if is_ours(&service, good, plan) {
                return Ok(told(notes));
            }
            let (service, tasks) = self.with_images(service).await?;
            let another = is_of_another_image(&service, before);
            if !release::runs(&service, before) || observe::is_rolling_back(&service) || another {
                return Err(deployed(name, &service));
            }
            let mut spec = release::restored(good, &service["Spec"], Some(plan.id.as_str()));
            release::keep_changes(&mut spec, before, &service["Spec"]);
            notes.extend(self.refer_anew(&mut spec).await?);
            replace_all(&mut spec, &service["Spec"], &tasks);
            notes.extend(self.give_image(&mut spec, before, &service["ID"]).await?);
            match self.put(id, &service, &spec).await {
                Err(error) if is_out_of_sequence(&error) => {}
                other => {
                    return other.map(|()| told(notes)).map_err(|e| said(&format!("updating {name}"), e));
                }
            }
        }
        Err(restless("updating", name))
    }

    /// The service with its tasks, and what is known of their images.
    async fn with_images(&self, mut service: Value) -> Result<(Value, Vec<Value>), RuntimeError> {
        let mut tasks = self.tasks(std::iter::once(&service), false).await?;
        let alone = self.standing.is_alone();
        let images = Images::ask(&self.engine, alone, std::iter::once(&service)).await?;
        images.name(&mut service, &mut tasks);
        Ok((service, tasks))
    }

    /// Has a specification give the image that it was recorded with. Where its name shows another one by now, it is pointed back, as
    /// people do it, if what it shows is only what is to go (`leaves`). Else it is somebody's: that of other services, a build that
    /// is not deployed yet, or a registry's; then the specification says the image by its id. Yields what there is to say about it.
    async fn give_image(
        &self,
        spec: &mut Value,
        leaves: &Value,
        id: &Value,
    ) -> Result<Option<String>, RuntimeError> {
        let template = &spec["TaskTemplate"];
        let (Some(name), Some(image)) = (images::name(template), images::of(template)) else {
            return Ok(None);
        };
        if name == image || !self.standing.is_alone() {
            return Ok(None);
        }
        let inspect = |name: &str| format!("/images/{name}/json");
        let shown = verbs::look_up(&self.engine, &inspect(name)).await?;
        let good = verbs::look_up(&self.engine, &inspect(image)).await?.unwrap_or_default();
        if shown.as_ref().is_some_and(|shown| shown["Id"] == image && is_built_here(shown)) {
            return Ok(None);
        }
        let goes = images::of(&leaves["TaskTemplate"]);
        let free = shown.as_ref().is_none_or(|shown| shown["Id"].as_str() == goes && is_built_here(shown));
        if free && is_built_here(&good) && !self.is_used_by_others(name, id).await? {
            verbs::tag(&self.engine, image, name).await?;
            return Ok(shown.map(|_| format!("{name} is pointed at {image} again on this node")));
        }
        let called = observe::name_of(spec);
        let said = format!(
            "{called} is told to run the image {image} by its id, because {name} means another one to others: deploy the next release \
             with `docker service update --image {name} {called}` or the stack's file; `--force` alone starts this one again"
        );
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = image.into();
        Ok(Some(said))
    }

    /// A name that was pointed at the good image for an update that never came shows what runs again.
    async fn point_back(&self, before: &Value, good: &Value, service: &Value) -> Result<(), RuntimeError> {
        let (ran, good) = (&before["TaskTemplate"], &good["TaskTemplate"]);
        let (Some(name), Some(image)) = (images::name(ran), images::of(ran)) else { return Ok(()) };
        let same = release::forced(&service["Spec"]) == release::forced(before);
        if images::name(good) != Some(name) || name == image || !same || !release::runs(service, before) {
            return Ok(());
        }
        let shown = verbs::image_id(&self.engine, name).await?;
        match shown.is_some_and(|shown| shown.as_str() != image && images::of(good) == Some(shown.as_str())) {
            true => verbs::tag(&self.engine, image, name).await,
            false => Ok(()),
        }
    }

    /// Whether a service besides this one is told to run what the name shows.
    async fn is_used_by_others(&self, name: &str, id: &Value) -> Result<bool, RuntimeError> {
        let services = self.engine.json("/services").await?;
        let mut others = services.as_array().into_iter().flatten().filter(|one| one["ID"] != *id);
        Ok(others.any(|one| images::name(&one["Spec"]["TaskTemplate"]) == Some(name)))
    }

    /// Whether tasks that are made now would be of another image than those that run: somebody built it, and did not deploy it.
    pub(super) async fn would_deploy(&self, spec: &Value) -> Result<Option<String>, RuntimeError> {
        let template = &spec["TaskTemplate"];
        let (Some(name), Some(image)) = (images::name(template), images::of(template)) else {
            return Ok(None);
        };
        let shown = verbs::image_id(&self.engine, name).await?;
        let other = shown.filter(|shown| shown.as_str() != image);
        Ok(other.map(|shown| {
            format!("{name} shows {shown} by now, which is not what runs: that would deploy it")
        }))
    }

    /// Changes a service, unless somebody changed it since it was looked at.
    pub(super) async fn put(&self, id: &str, seen: &Value, spec: &Value) -> Result<(), RuntimeError> {
        let version = &seen["Version"]["Index"];
        let path = format!("/services/{id}/update?version={version}");
        let login = self.login(&seen["Spec"], spec).await;
        let mut spec = images::without(spec);
        names::forget_names(&mut spec);
        self.engine.call_as(reqwest::Method::POST, &path, Some(&spec), login.as_ref(), CALL).await.map(drop)
    }

    /// What the nodes are to show the registry. Swarm keeps what it was given with the specification before, and that is
    /// right as long as it is the same registry; but what a helper has just made is newer.
    async fn login(&self, before: &Value, spec: &Value) -> Option<Login> {
        let server = |spec: &Value| {
            let image = &spec["TaskTemplate"]["ContainerSpec"]["Image"];
            registry(image.as_str().unwrap_or_default()).to_owned()
        };
        let template = &spec["TaskTemplate"];
        if images::name(template).is_some() && images::name(template) == images::of(template) {
            // It is said by its id: nobody is asked for it.
            return None;
        }
        let (from, to) = (server(before), server(spec));
        let login = tokio::time::timeout(HELPED, self.engine.credentials().login(&to)).await.ok()?;
        // The nodes may have the image: then nobody asks for credentials.
        let login =
            login.inspect_err(|why| tracing::warn!("nothing can be shown to {to}: {why}")).ok().flatten()?;
        (from != to || login.is_fresh()).then_some(login)
    }

    /// Waits until the replicas that are wanted run the good release, and none of another, for as long as Swarm itself
    /// would watch them.
    async fn converge(
        &self,
        plan: &Plan,
        id: &str,
        name: &str,
        good: &Value,
        within: Duration,
    ) -> Result<StepOutput, RuntimeError> {
        let began = self.clock.now();
        let monitor = planning::monitor(good);
        // What ran is put aside for the report: if there was anything, there is to be something.
        let ran = plan.steps.iter().any(|step| matches!(step, Step::SaveEvidence { .. }));
        let mut stable: Option<(BTreeSet<String>, crate::core::Timestamp)> = None;
        loop {
            let service = self.there(id, name).await?;
            still_ours(plan, name, good, &service)?;
            let (service, tasks) = self.with_images(service).await?;
            if is_of_another_image(&service, good) {
                return Err(deployed(name, &service));
            }
            let (tasks, lost) = self.without_lost(&service, tasks).await?;
            let progress = Progress::of(&service, &tasks, ran);
            let now = self.clock.now();
            if progress.homeless && now.since(began) >= PLACED_WITHIN {
                return Err(homeless(plan, name));
            }
            match (&progress.converged, &stable) {
                (Some(runs), Some((before, since))) if runs == before => {
                    if now.since(*since) >= monitor {
                        return Ok(converged(name, &lost));
                    }
                }
                (Some(runs), _) => stable = Some((runs.clone(), now)),
                (None, _) => stable = None,
            }
            if let Some(why) = progress.hopeless {
                return Err(permanent(format!("{} does not run: {why}", plan.to)));
            }
            if now.since(began) >= within {
                return Err(permanent(format!(
                    "after {} {} (`docker service ps {name}`)",
                    human(within),
                    progress.sentence
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The tasks without those of another release that are lost with their node, and the names of such nodes.
    async fn without_lost(
        &self,
        service: &Value,
        tasks: Vec<Value>,
    ) -> Result<(Vec<Value>, BTreeSet<String>), RuntimeError> {
        if !tasks.iter().any(|task| is_left_over(service, task)) {
            return Ok((tasks, BTreeSet::new()));
        }
        let nodes = self.engine.json("/nodes").await?;
        Ok(apart_from_lost(service, tasks, &nodes))
    }

    /// The end of a task's log, from whichever node it ran on. None of it is no reason to fail.
    async fn last_words(&self, task: &str) -> Vec<String> {
        let tty = match verbs::look_up(&self.engine, &format!("/tasks/{task}")).await {
            Ok(Some(task)) => task["Spec"]["ContainerSpec"]["TTY"] == true,
            Ok(None) | Err(_) => return Vec::new(),
        };
        logs::tail(&self.engine, &format!("/tasks/{task}"), tty, EVIDENCE_LINES).await
    }
}

/// Whether a task of another release runs that Swarm wants to be gone.
fn is_left_over(service: &Value, task: &Value) -> bool {
    let good = release::template(&task["Spec"]) == release::template(&service["Spec"]["TaskTemplate"]);
    !good && observe::is_running(task) && !observe::is_wanted(task)
}

/// A node that is down goes on being said to run what it ran when it was heard of last, until it is back and told to stop
/// it. Swarm waits for none of that, and neither do we: going back to the bad release would be the alternative.
fn apart_from_lost(service: &Value, tasks: Vec<Value>, nodes: &Value) -> (Vec<Value>, BTreeSet<String>) {
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    let down = |task: &Value| {
        let node = nodes.iter().find(|node| node["ID"] == task["NodeID"]);
        node.filter(|node| node["Status"]["State"] == "down")
    };
    let name = |node: &Value| node["Description"]["Hostname"].as_str().unwrap_or_default().to_owned();
    let mut names = BTreeSet::new();
    let rest = tasks.into_iter().filter(|task| {
        let lost = down(task).filter(|_| is_left_over(service, task)).map(name);
        let stays = lost.is_none();
        names.extend(lost);
        stays
    });
    (rest.collect(), names)
}

fn converged(name: &str, lost: &BTreeSet<String>) -> StepOutput {
    let note = |node: &String| {
        format!(
            "the node {node} is down: what ran of {name} there may still serve whoever reaches it; Swarm stops it when the \
             node is back (`docker node ls`)"
        )
    };
    told(lost.iter().map(note).collect())
}

fn told(notes: BTreeSet<String>) -> StepOutput {
    if notes.is_empty() { StepOutput::Done } else { StepOutput::Told { notes: notes.into_iter().collect() } }
}

/// How far Swarm has come.
struct Progress {
    /// The tasks that run, if they are all that are wanted.
    converged: Option<BTreeSet<String>>,
    /// No node has, or is to have, a task of it, though something ran before.
    homeless: bool,
    /// Why it will not come further.
    hopeless: Option<String>,
    sentence: String,
}

impl Progress {
    fn of(service: &Value, tasks: &[Value], ran: bool) -> Self {
        let template = release::template(&service["Spec"]["TaskTemplate"]);
        let good = |task: &&Value| release::template(&task["Spec"]) == template;
        let wanted: Vec<&Value> = tasks.iter().filter(|task| observe::is_wanted(task)).collect();
        let running: BTreeSet<String> = wanted
            .iter()
            .filter(|task| good(task) && observe::is_running(task))
            .map(|task| observe::id(task).as_str().to_owned())
            .collect();
        let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64();
        let most = replicas.map_or(wanted.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
        // A task of the bad release that still serves is one too many, and so is one that starts beside it.
        let leaving = tasks.iter().any(|task| !good(&task) && observe::is_running(task));
        // A service that is on every node that may run it: on none, that is not all of them.
        let homeless = ran && replicas.is_none() && wanted.is_empty();
        let all = running.len() == most && wanted.len() == most && !leaving && !homeless;
        let since = service["UpdatedAt"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let since = since.map_or(i128::MAX, jiff::Timestamp::as_nanosecond);
        let recent = tasks.iter().filter(|task| good(task) && observe::created(task) >= since);
        let ended: Vec<&Value> = recent.filter(|task| observe::has_ended(task)).collect();
        let last =
            ended.iter().max_by_key(|task| observe::created(task)).and_then(|task| observe::error(task));
        let why = last.or_else(|| wanted.iter().find_map(|task| observe::error(task))).unwrap_or_default();
        let hopeless = observe::settled(service).err().filter(|why| why.contains("paused"));
        let crashes = (ended.len() >= ENDS_MAX).then(|| format!("{} of its tasks ended, {why}", ended.len()));
        Self {
            converged: all.then(|| running.clone()),
            homeless,
            hopeless: hopeless.or(crashes),
            sentence: format!("{} of {most} replicas run the good release: {why}", running.len())
                .trim_end_matches([' ', ':'])
                .to_owned(),
        }
    }
}

fn homeless(plan: &Plan, name: &str) -> RuntimeError {
    permanent(format!(
        "no node may run {} by its placement constraints, so nothing of {name} would run: `docker node ls`, and the \
         labels of the nodes",
        plan.to
    ))
}

/// A thing that a specification refers to, and that can be gone.
struct Need {
    what: &'static str,
    name: String,
    path: String,
}

fn needs(spec: &Value) -> Vec<Need> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let need = |what, folder: &str, name: &Value, id: &Value| Need {
        what,
        name: text(if name.is_string() { name } else { id }),
        path: format!("/{folder}/{}", text(id)),
    };
    let secrets = list(&container["Secrets"]);
    let configs = list(&container["Configs"]);
    // The member at the top is that of older clients.
    let networks = [list(&spec["TaskTemplate"]["Networks"]), list(&spec["Networks"])].concat();
    let secrets = secrets.iter().map(|s| need("secret", "secrets", &s["SecretName"], &s["SecretID"]));
    let configs = configs.iter().map(|c| need("config", "configs", &c["ConfigName"], &c["ConfigID"]));
    let networks = networks.iter().map(|n| need("network", "networks", &Value::Null, &n["Target"]));
    secrets.chain(configs).chain(networks).collect()
}

/// Whether no registry has it, as far as the engine knows: a name that is in one is asked for there each time that a task is made.
fn is_built_here(image: &Value) -> bool {
    image["RepoDigests"].as_array().is_none_or(Vec::is_empty)
}

/// Whether its name shows another image by now, and its tasks are made of that one.
fn is_of_another_image(service: &Value, good: &Value) -> bool {
    let of = |spec: &Value| images::of(&spec["TaskTemplate"]).map(str::to_owned);
    of(good).is_some_and(|good| of(&service["Spec"]).is_some_and(|now| now != good))
}

/// Whether a service runs the good specification because this rollback told it to.
fn is_ours(service: &Value, good: &Value, plan: &Plan) -> bool {
    service["Spec"]["Labels"][release::MARK] == plan.id.as_str()
        && (release::runs(service, good) || release::runs(service, &images::by_id(good)))
}

/// Images that are known by their ids differ in nothing that Swarm would replace tasks for: it is told to, where what runs, or ran,
/// has the same specification and another image.
fn replace_all(spec: &mut Value, now: &Value, tasks: &[Value]) {
    let text = |template: &Value| {
        let bare = json!({ "TaskTemplate": template });
        release::template(&images::without(&bare)["TaskTemplate"])
    };
    let template = &spec["TaskTemplate"];
    let Some(image) = images::of(template) else { return };
    let own = text(template);
    let another = |task: &Value| images::of(&task["Spec"]) != Some(image) && text(&task["Spec"]) == own;
    if text(&now["TaskTemplate"]) == own || tasks.iter().any(another) {
        spec["TaskTemplate"]["ForceUpdate"] = release::forced(now).saturating_add(1).into();
    }
}

fn still_ours(plan: &Plan, name: &str, good: &Value, service: &Value) -> Result<(), RuntimeError> {
    if is_ours(service, good, plan) {
        return Ok(());
    }
    let status = &service["UpdateStatus"];
    if status["State"].as_str().is_some_and(|state| state.starts_with("rollback_")) {
        let message = status["Message"].as_str().unwrap_or_default();
        return Err(permanent(format!("{} did not run, and Swarm took {name} back: {message}", plan.to)));
    }
    Err(deployed(name, service))
}

pub(super) fn deployed(name: &str, service: &Value) -> RuntimeError {
    let now = release::release(&service["Spec"]);
    conflict(format!("somebody deployed {now} as {name} meanwhile, and that decision is newer"))
}

pub(super) fn is_out_of_sequence(error: &RuntimeError) -> bool {
    error.class == ErrorClass::Permanent && error.message.contains("out of sequence")
}

/// Nobody deployed, and still it was another one each time that it was to be changed.
pub(super) fn restless(what: &str, name: &str) -> RuntimeError {
    let message =
        format!("{what} {name}: somebody else changed it each of {ATTEMPTS} times (`docker events`)");
    RuntimeError { class: ErrorClass::Transient, message }
}

fn good_of(plan: &Plan, checked: usize) -> Result<Value, RuntimeError> {
    match plan.steps.get(checked) {
        Some(Step::CheckService { specification, .. }) => read(specification),
        Some(_) | None => Err(permanent(format!("step {checked} of the plan holds no specification"))),
    }
}

fn before_of(done: Done<'_>, checked: usize) -> Result<Value, RuntimeError> {
    match done.get(checked) {
        Some(Some(StepOutput::Service { before })) => read(before),
        Some(_) | None => Err(permanent("what ran before was not recorded".to_owned())),
    }
}

pub(super) fn said(what: &str, error: RuntimeError) -> RuntimeError {
    RuntimeError { message: format!("{what}: {}", error.message), ..error }
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn task(id: &str, template: &Value, desired: &str, state: &str) -> Value {
        json!({"ID": id, "Slot": 1, "DesiredState": desired, "Spec": template, "CreatedAt": "2026-11-21T22:50:55Z",
            "Status": {"State": state, "Err": if state == "failed" { "task: non-zero exit (3)" } else { "" }}})
    }

    #[test]
    fn it_has_converged_when_all_that_are_wanted_run_and_nothing_else_does() {
        let service = recorded::service();
        let template = &service["Spec"]["TaskTemplate"];
        let mut bad = template.clone();
        bad["ContainerSpec"]["Image"] = json!("web:v2");
        let converged = |tasks: &[Value]| Progress::of(&service, tasks, true).converged.is_some();
        let (one, two) =
            (task("1", template, "running", "running"), task("2", template, "running", "running"));
        assert!(converged(&[one.clone(), two.clone()]));
        assert!(!converged(std::slice::from_ref(&one)));
        assert!(!converged(&[one.clone(), task("2", template, "running", "starting")]));
        assert!(!converged(&[one.clone(), task("2", &bad, "running", "running")]));
        assert!(!converged(&[one, two, task("3", &bad, "shutdown", "running")]), "it still serves");
    }

    #[test]
    fn a_service_that_no_node_may_run_has_not_converged() {
        let mut service = recorded::service();
        service["Spec"]["Mode"] = json!({"Global": {}});
        let nowhere = Progress::of(&service, &[], true);
        assert!(nowhere.converged.is_none() && nowhere.homeless);
        let never = Progress::of(&service, &[], false);
        assert!(never.converged.is_some() && !never.homeless, "nothing of it ran before");
        let task = task("1", &service["Spec"]["TaskTemplate"], "running", "running");
        assert!(Progress::of(&service, &[task], true).converged.is_some());
        service["Spec"]["Mode"] = json!({"Replicated": {"Replicas": 0}});
        assert!(Progress::of(&service, &[], true).converged.is_some(), "somebody wants none");
    }

    #[test]
    fn what_is_lost_with_its_node_is_not_waited_for() {
        let service = recorded::service();
        let template = &service["Spec"]["TaskTemplate"];
        let mut bad = template.clone();
        bad["ContainerSpec"]["Image"] = json!("web:v2");
        let at = |node: &str, mut task: Value| {
            task["NodeID"] = json!(node);
            task
        };
        let tasks = [
            at("n1", task("1", template, "running", "running")),
            at("n2", task("2", template, "running", "running")),
            at("n3", task("3", &bad, "shutdown", "running")),
        ];
        let nodes = |third: &str| {
            let node = |id: &str, state: &str| json!({"ID": id, "Description": {"Hostname": id}, "Status": {"State": state}});
            json!([node("n1", "ready"), node("n2", "ready"), node("n3", third)])
        };
        let (rest, lost) = apart_from_lost(&service, tasks.to_vec(), &nodes("down"));
        assert!(Progress::of(&service, &rest, true).converged.is_some());
        assert!(
            matches!(converged("web", &lost), StepOutput::Told { notes } if notes[0].contains("n3 is down"))
        );
        let (rest, lost) = apart_from_lost(&service, tasks.to_vec(), &nodes("ready"));
        assert!(Progress::of(&service, &rest, true).converged.is_none(), "it still serves");
        assert_eq!((rest.len(), lost.len()), (3, 0));
    }

    #[test]
    fn a_paused_update_and_a_target_that_ends_again_and_again_are_hopeless() {
        let paused = Progress::of(&recorded::paused_service(), &recorded::paused_tasks(), true);
        assert!(paused.hopeless.unwrap().contains("paused"));
        let mut service = recorded::service();
        let template = service["Spec"]["TaskTemplate"].clone();
        let tasks: Vec<Value> =
            (0..3).map(|n| task(&n.to_string(), &template, "shutdown", "failed")).collect();
        let crashing = Progress::of(&service, &tasks, true);
        assert_eq!(crashing.hopeless.as_deref(), Some("3 of its tasks ended, task: non-zero exit (3)"));
        assert_eq!(crashing.sentence, "0 of 2 replicas run the good release: task: non-zero exit (3)");
        service["UpdatedAt"] = json!("2026-11-21T22:51:00Z");
        assert_eq!(Progress::of(&service, &tasks, true).hopeless, None, "that was before");
    }

    #[test]
    fn whatever_a_specification_refers_to_is_looked_up_under_its_id() {
        let spec = json!({"TaskTemplate": {
            "ContainerSpec": {"Secrets": [{"SecretID": "s1", "SecretName": "password"}],
                "Configs": [{"ConfigID": "c1", "ConfigName": "nginx"}]},
            "Networks": [{"Target": "n1"}]}});
        let needs: Vec<String> =
            needs(&spec).iter().map(|need| format!("{} {} {}", need.what, need.name, need.path)).collect();
        assert_eq!(
            needs,
            ["secret password /secrets/s1", "config nginx /configs/c1", "network n1 /networks/n1"]
        );
    }
}
