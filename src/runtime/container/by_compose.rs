//! Rollbacks that `docker compose up` carries out, by files that were pinned before it: for containers that share their
//! network with others, which only Compose makes anew together, and for whoever wants it so.
//!
//! Compose replaces containers without asking, so everything that can be wrong is found out before: it must make of the
//! files exactly what ran when the release was good, and must find nothing to do about what the service depends on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::apply::{identity, image_of, removed};
use super::plan::{ensure_image, point_tag, restart};
use super::projects::needs;
use super::{ContainerRuntime, enrol, observe, verbs};
use crate::core::io::RollbackRequest;
use crate::core::observation::Observation;
use crate::core::plan::{ComposeProject, Pin, Plan, Step, StepOutput};
use crate::core::release::{ImageId, ServiceName};
use crate::core::settings::{Executor, Mode};
use crate::runtime::compose::{self, Running, command};
use crate::runtime::engine::permanent;
use crate::runtime::{Runtime, RuntimeError, Snapshot};

/// What Compose made of the files when it made a container.
const HASH: &str = "com.docker.compose.config-hash";
/// What Compose itself needs at most, beside the time that containers take to stop.
const UP: Duration = Duration::from_secs(120);
/// What a replica that is one too many gets to stop, unless its deployer says: what Docker gives it.
const STOPS: Duration = Duration::from_secs(10);
/// How long the new containers have to stay up to count as running, and how often they are looked at.
const MOMENT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(200);

/// Programs are installed and removed by people: what was found is believed for so long ...
const STILL_THERE: Duration = Duration::from_secs(10 * 60);
/// ... and what was missed, since somebody may be about to install it.
const STILL_MISSING: Duration = Duration::from_secs(60);

fn cannot_compose(why: &str) -> String {
    format!("`executor = \"compose\"` cannot be: {why}; `executor = \"api\"` or `\"auto\"` can")
}

type Done<'a> = &'a [Option<StepOutput>];

/// How a container of a project stands.
struct Container {
    id: String,
    image: String,
    running: bool,
    inspect: Value,
}

/// What is around the containers of a service.
pub(super) struct Around {
    /// Services that share a namespace with them.
    pub(super) sharing: Vec<String>,
    /// Containers that are to be restarted with them.
    pub(super) restarted: Vec<String>,
    /// How long all of it may take to stop.
    pub(super) stops: Duration,
}

/// The plan: everything is checked, the files are pinned, then Compose is let do it.
pub(super) fn plan(
    now: &Observation,
    to: &[Snapshot],
    request: &RollbackRequest,
    around: Around,
) -> Result<Plan, RuntimeError> {
    let Around { sharing, restarted, stops } = around;
    let (project, hash) = project(to).ok_or_else(|| permanent(format!("no record of {}", request.to)))?;
    let from = now.replicas.last().map(|replica| replica.release.clone());
    let mut steps = vec![ensure_image(request), Step::CheckCompose { project: project.clone() }];
    let (checked, prepare) = (1, steps.len());
    let evidence = now.replicas.iter();
    steps.extend(evidence.map(|r| Step::SaveEvidence { container: r.id.clone(), name: r.name.clone() }));
    steps.extend(point_tag(request));
    if let Some(from) = &from {
        let (bad, good) = (from.reference.clone(), request.to.reference.clone());
        steps.push(Step::PinProject { project: project.clone(), bad, good });
    }
    let replicas = if now.replicas.is_empty() { to.len() } else { now.replicas.len() };
    let grace = request.stop_grace;
    let needs = to.first().map(|good| needs(&enrol::labels(&good.inspect["Config"]))).unwrap_or_default();
    steps.push(Step::UpProject { checked, project, hash, replicas, sharing, needs, grace, stops });
    let pivot = steps.len();
    steps.extend(restart(to, restarted));
    Ok(Plan {
        id: request.id.clone(),
        service: request.service.clone(),
        from,
        to: request.to.clone(),
        prepare,
        pivot,
        close: steps.len(),
        steps,
        notes: Vec::new(),
        order: None,
    })
}

/// The project of recorded containers, and what Compose made of its files then.
pub(super) fn project(to: &[Snapshot]) -> Option<(ComposeProject, String)> {
    let labels = &to.first()?.inspect["Config"]["Labels"];
    Some((compose::project_of(labels)?, labels[HASH].as_str()?.to_owned()))
}

impl ContainerRuntime {
    /// Whether Compose is to do it: then the services that share a network with its containers.
    pub(super) fn by_compose(
        &self,
        now: &Observation,
        to: &[Snapshot],
    ) -> Result<Option<Vec<String>>, RuntimeError> {
        let known = project(to);
        let sharing = known.as_ref().map_or_else(Vec::new, |(project, _)| self.sharing(now, project));
        let asked = now.settings.executor == Executor::Compose;
        if now.settings.executor == Executor::Api || (!asked && sharing.is_empty()) {
            return Ok(None);
        }
        let why_not = if known.is_none() {
            "Compose did not make its containers from files"
        } else if self.engine.is_remote() {
            "its project is on another machine"
        } else if !now.settings.pin {
            "`pin = false` keeps its files from being changed"
        } else if let Some(why) = self.compose_missing() {
            return if asked { Err(permanent(cannot_compose(&why))) } else { Ok(None) };
        } else {
            return Ok(Some(sharing));
        };
        if asked {
            let problem = format!("`executor = \"compose\"` cannot be: {why_not}; `executor = \"api\"` can");
            return Err(permanent(problem));
        }
        Ok(None)
    }

    /// The services of its Compose project that share a network with its containers.
    pub(super) fn sharing(&self, now: &Observation, project: &ComposeProject) -> Vec<String> {
        let ids = now.replicas.iter().map(|replica| replica.id.as_str());
        self.known().projects.sharing(&project.name, ids)
    }

    /// Lets Compose make more containers of a service, or fewer. Those that there are, and what they depend on, stay as they
    /// are. `--no-deps` would make replicas that say that they need nobody, which is another configuration.
    pub(super) async fn scale_by_compose(
        &self,
        service: &ServiceName,
        replicas: u32,
    ) -> Result<String, RuntimeError> {
        let project = self.known().composed.get(service).cloned().ok_or_else(|| {
            permanent(format!("{service} is of no Compose project here, so there is nothing to scale it by"))
        })?;
        let command = command::find(&self.engine.host()).await.map_err(permanent)?;
        let containers = self.containers(&project.name, &project.service).await?;
        self.would_make_the_same(&command, &project, &containers).await?;
        let around = self.around(&project, &containers, &[], &[]).await?;
        let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
        let mut how = scales(&project, wanted, &around);
        how.push("--no-recreate".to_owned());
        self.run_up(&command, &project, &how, &[], STOPS, &containers).await?;
        let scale = format!("{}={replicas}", project.service);
        Ok(format!(
            "the next `docker compose up` without `--scale {scale}` makes it what the files say again"
        ))
    }

    /// Another replica would be of the release that runs: Compose makes it by the files, whatever they say by now.
    async fn would_make_the_same(
        &self,
        command: &[String],
        project: &ComposeProject,
        containers: &[Container],
    ) -> Result<(), RuntimeError> {
        let service = &project.service;
        let host = self.engine.host();
        let made = command::hashes(command, &host, project, std::slice::from_ref(service)).await;
        let made = made.map_err(permanent)?;
        let hash = |c: &Container| c.inspect["Config"]["Labels"][HASH].as_str().map(str::to_owned);
        let same = |c: &Container| made.iter().any(|(s, h)| s == service && Some(h) == hash(c).as_ref());
        if containers.is_empty() || !containers.iter().all(same) {
            return Err(permanent(format!(
                "the project's files say something else than what runs as {service} (or it was started with `--no-deps`, \
                 or with variables of a shell), so another replica would be of another release"
            )));
        }
        for container in containers {
            let reference = container.inspect["Config"]["Image"].as_str().unwrap_or_default();
            let shows = verbs::image_id(&self.engine, reference).await?;
            if shows.as_ref().map(ImageId::as_str) != Some(container.image.as_str()) {
                return Err(permanent(format!(
                    "{reference} shows another image by now, so another replica of {service} would be of another release"
                )));
            }
        }
        Ok(())
    }

    /// Makes the project's environment file say what was set, so that the next `docker compose up` keeps it.
    pub(super) async fn set_in_project(
        &self,
        service: &ServiceName,
        set: &BTreeMap<String, String>,
    ) -> Result<Option<String>, RuntimeError> {
        let Some(project) = self.known().composed.get(service).cloned() else {
            return Ok(None);
        };
        let set = set.clone();
        let written = tokio::task::spawn_blocking(move || compose::set_variables(&project, &set)).await;
        written.map(Some).map_err(|e| permanent(e.to_string()))
    }

    /// Why `docker compose` cannot be run here, if somebody needed it and it cannot.
    fn compose_missing(&self) -> Option<String> {
        self.known().compose.as_ref().and_then(|(_, found)| found.as_ref().err().cloned())
    }

    /// Finds out ahead of need whether `docker compose` is there for a service that it has to roll back.
    pub(super) async fn with_hindrance(&self, mut seen: Observation) -> Observation {
        if let Some(why) = self.lives_with_us(&seen) {
            Arc::make_mut(&mut seen.settings).hindrance = Some(why);
            return seen;
        }
        if seen.settings.executor == Executor::Api || seen.settings.mode == Mode::DryRun {
            return seen;
        }
        let asked = seen.settings.executor == Executor::Compose;
        let (project, known) = {
            let known = self.known();
            (known.composed.get(&seen.service).cloned(), known.compose.clone())
        };
        let Some(project) = project else { return seen };
        if !asked && self.sharing(&seen, &project).is_empty() {
            return seen;
        }
        let now = self.clock.now();
        let fresh = known
            .filter(|(at, found)| now.since(*at) < if found.is_ok() { STILL_THERE } else { STILL_MISSING });
        let found = match fresh {
            Some((_, found)) => found,
            None => {
                let found = command::find(&self.engine.host()).await.map(drop);
                if let Err(why) = &found
                    && self.compose_missing().as_ref() != Some(why)
                {
                    tracing::warn!(service = %seen.service, "{why}");
                }
                self.known().compose = Some((now, found.clone()));
                found
            }
        };
        if let (true, Err(why)) = (asked, found) {
            let settings = Arc::make_mut(&mut seen.settings);
            settings.hindrance = Some(cannot_compose(&why));
        }
        seen
    }

    /// Containers that say that they are to be restarted with the service.
    pub(super) fn restarted(&self, to: &[Snapshot]) -> Vec<String> {
        let project = to.first().and_then(|good| compose::project_of(&good.inspect["Config"]["Labels"]));
        project.map_or_else(Vec::new, |p| self.known().projects.restarted_with(&p.name, &p.service))
    }

    pub(super) async fn check_compose(&self) -> Result<StepOutput, RuntimeError> {
        let command = command::find(&self.engine.host()).await.map_err(permanent)?;
        Ok(StepOutput::Compose { command })
    }

    /// Lets Compose replace the containers, if what it would make of the files is what ran when the release was good.
    pub(super) async fn up(
        &self,
        plan: &Plan,
        step: &Step,
        done: Done<'_>,
    ) -> Result<StepOutput, RuntimeError> {
        let Step::UpProject { checked, project, hash, replicas, sharing, needs, grace, .. } = step else {
            return Err(permanent(format!("\"{step}\" is not for Compose")));
        };
        let Some(StepOutput::Compose { command }) = done.get(*checked).and_then(Option::as_ref) else {
            return Err(permanent(format!("rollback {}: `docker compose` was not looked for", plan.id)));
        };
        let image = good_image(plan, done);
        let containers = self.containers(&project.name, &project.service).await?;
        let there_were = plan.steps.iter().any(|step| matches!(step, Step::SaveEvidence { .. }));
        if containers.is_empty() && there_were {
            return Err(removed(&project.service));
        }
        if !are(&containers, image, *replicas) {
            let around = self.around(project, &containers, sharing, needs).await?;
            self.makes(command, project, hash, &around).await?;
            let scales = scales(project, *replicas, &around);
            self.run_up(command, project, &scales, sharing, *grace, &containers).await?;
        }
        self.stay_up(plan, project, image, *replicas).await?;
        Ok(StepOutput::Done)
    }

    /// The services that Compose takes along: what this one, and those that share its network, depend on.
    async fn around(
        &self,
        project: &ComposeProject,
        containers: &[Container],
        sharing: &[String],
        needs: &[String],
    ) -> Result<BTreeMap<String, Vec<Container>>, RuntimeError> {
        let mut waiting: Vec<String> = containers.first().map(needed).unwrap_or_default();
        // What runs may have been deployed with `--no-deps`, and then says that it needs nobody.
        waiting.extend(needs.iter().cloned());
        for service in sharing {
            waiting.extend(
                self.containers(&project.name, service).await?.first().map(needed).unwrap_or_default(),
            );
        }
        let mut found = BTreeMap::new();
        while let Some(service) = waiting.pop() {
            if service == project.service || sharing.contains(&service) || found.contains_key(&service) {
                continue;
            }
            let its = self.containers(&project.name, &service).await?;
            waiting.extend(its.first().map(needed).unwrap_or_default());
            found.insert(service, its);
        }
        Ok(found)
    }

    /// What Compose makes of the files now is what it made of them then, and nothing else of the project would change.
    async fn makes(
        &self,
        command: &[String],
        project: &ComposeProject,
        hash: &str,
        around: &BTreeMap<String, Vec<Container>>,
    ) -> Result<(), RuntimeError> {
        let mut expected = vec![(project.service.clone(), hash.to_owned())];
        for (service, containers) in around {
            let hash =
                |c: &Container| c.inspect["Config"]["Labels"][HASH].as_str().unwrap_or_default().to_owned();
            expected.extend(containers.first().map(|one| (service.clone(), hash(one))));
        }
        let services: Vec<String> = expected.iter().map(|(service, _)| service.clone()).collect();
        let made =
            command::hashes(command, &self.engine.host(), project, &services).await.map_err(permanent)?;
        let differs =
            |(service, hash): &&(String, String)| !made.iter().any(|(s, h)| s == service && h == hash);
        let Some((service, _)) = expected.iter().find(differs) else { return Ok(()) };
        Err(permanent(if *service == project.service {
            format!(
                "the project's files say more than another image for {service}: Compose would not bring back what ran \
                 when the release was good. Bring back the files of that release, or set `executor = \"api\"`"
            )
        } else {
            format!(
                "`docker compose up` would replace {service} too, which {} depends on: its files changed since it \
                 was started. Deploy {service} first, or set `executor = \"api\"`",
                project.service
            )
        }))
    }

    /// Compose makes the containers, and we start them: it would first wait for what they depend on, while nothing serves,
    /// and run again what ran once.
    async fn run_up(
        &self,
        command: &[String],
        project: &ComposeProject,
        how: &[String],
        sharing: &[String],
        grace: Duration,
        old: &[Container],
    ) -> Result<(), RuntimeError> {
        for container in old {
            self.ours.mark(&container.id);
        }
        let seconds = grace.as_secs().to_string();
        let mut words = vec!["up", "--no-start", "--no-build", "--pull", "never"];
        words.extend(how.iter().map(String::as_str));
        // Whoever set a stop timeout knows why; Compose takes it from the container.
        let set = |c: &Container| c.inspect["Config"]["StopTimeout"].as_u64().map(Duration::from_secs);
        if old.iter().all(|c| set(c).is_none()) {
            words.extend(["--timeout", &seconds]);
        }
        words.push(&project.service);
        words.extend(sharing.iter().map(String::as_str));
        let mut within = UP + old.iter().map(|c| set(c).unwrap_or(grace)).sum::<Duration>();
        for service in sharing {
            let its = self.containers(&project.name, service).await?;
            within += its.iter().map(|c| set(c).unwrap_or(STOPS.max(grace))).sum::<Duration>();
        }
        let ran = command::run(command, &self.engine.host(), project, &words, within).await;
        for container in old {
            self.ours.unmark(&container.id);
        }
        // However it ended: what is there is better started than not.
        let mut started = Ok(());
        for service in [&project.service].into_iter().chain(sharing) {
            for container in self.containers(&project.name, service).await? {
                if !container.running {
                    started = started.and(verbs::start(&self.engine, &container.id).await);
                }
            }
        }
        ran.map_err(permanent)?;
        started
    }

    async fn stay_up(
        &self,
        plan: &Plan,
        project: &ComposeProject,
        image: &ImageId,
        replicas: usize,
    ) -> Result<(), RuntimeError> {
        let mut waited = Duration::ZERO;
        while waited <= MOMENT {
            let containers = self.containers(&project.name, &project.service).await?;
            if containers.is_empty() {
                return Err(removed(&project.service));
            }
            if !are(&containers, image, replicas) {
                let up = containers.iter().filter(|c| c.running && c.image == image.as_str()).count();
                return Err(permanent(format!(
                    "`docker compose up` left {up} of {replicas} containers of {} running the good image: \
                     `docker compose -p {} ps -a`",
                    project.service, project.name
                )));
            }
            for container in &containers {
                identity(plan, image, &container.inspect, &project.service)?;
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        Ok(())
    }

    /// What ran before runs again: the files as they were, and Compose once more, unless somebody deployed meanwhile.
    pub(super) async fn down_again(
        &self,
        plan: &Plan,
        step: &Step,
        done: Done<'_>,
    ) -> Result<(), RuntimeError> {
        let (Step::UpProject { checked, project, replicas, sharing, needs, grace, .. }, Some(from)) =
            (step, &plan.from)
        else {
            return Ok(());
        };
        let containers = self.containers(&project.name, &project.service).await?;
        let good = good_image(plan, done);
        let foreign = containers.iter().any(|c| c.image != good.as_str() && c.image != from.image.as_str());
        if foreign || are(&containers, &from.image, *replicas) {
            return Ok(());
        }
        let Some(StepOutput::Compose { command }) = done.get(*checked).and_then(Option::as_ref) else {
            return Ok(());
        };
        for (step, output) in plan.steps.iter().zip(done) {
            match step {
                Step::PinProject { .. } => self.unpin_again(plan, step, output.as_ref()).await?,
                Step::PointTag { reference, image } => self.point_back(plan, reference, image).await?,
                _ => {}
            }
        }
        let around = self.around(project, &containers, sharing, needs).await?;
        self.run_up(command, project, &scales(project, *replicas, &around), sharing, *grace, &containers)
            .await
    }

    /// Takes back a pin that was set before the containers were replaced.
    pub(super) async fn unpin_again(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
    ) -> Result<(), RuntimeError> {
        let Step::PinProject { project, bad, good } = step else { return Ok(()) };
        let known: Option<Pin> = match output {
            Some(output) => output.pin().cloned(),
            None => {
                let (project, owner) = (project.clone(), plan.service.clone());
                let (bad, good) = (bad.clone(), good.clone());
                let running = self.running(&project).await?;
                let look = move || compose::pinned_by(&project, owner.as_str(), &bad, &good, &running);
                tokio::task::spawn_blocking(look).await.map_err(|e| permanent(e.to_string()))?
            }
        };
        let Some(pin) = known else { return Ok(()) };
        self.unpin(&plan.service, &pin).await.map(drop)
    }

    /// Points the tag at the bad image again, if it was that release's and shows the good one.
    pub(super) async fn point_back(
        &self,
        plan: &Plan,
        reference: &str,
        good: &ImageId,
    ) -> Result<(), RuntimeError> {
        let Some(from) = plan.from.as_ref().filter(|from| from.reference == reference) else { return Ok(()) };
        let _moving = self.tagging.lock().await;
        if verbs::image_id(&self.engine, reference).await?.as_ref() == Some(good) {
            verbs::tag(&self.engine, from.image.as_str(), reference).await?;
        }
        Ok(())
    }

    /// Restarts what asks to be restarted with the service, unless it was started since. What cannot be is said: the
    /// rollback stands without it.
    pub(super) async fn restart_dependants(
        &self,
        project: &ComposeProject,
        names: &[String],
    ) -> Result<StepOutput, RuntimeError> {
        let started = |inspect: &Value| observe::moment(&inspect["State"]["StartedAt"]);
        let containers = self.containers(&project.name, &project.service).await?;
        let since = containers.iter().filter_map(|c| started(&c.inspect)).max();
        let mut notes = Vec::new();
        for name in names {
            let Some(inspect) = verbs::inspect(&self.engine, name).await? else { continue };
            if inspect["State"]["Running"] != true || started(&inspect) > since {
                continue;
            }
            let stops = inspect["Config"]["StopTimeout"].as_u64().map(Duration::from_secs);
            match verbs::restart(&self.engine, name, stops).await {
                Ok(()) => notes.push(format!("{name} was restarted, as its `depends_on` asks for")),
                Err(e) => notes.push(format!(
                    "{name} is to be restarted with {}, and could not be ({e}): `docker restart {name}`",
                    project.service
                )),
            }
        }
        Ok(StepOutput::Told { notes })
    }

    /// What a project runs; no reference of a service whose replicas differ.
    pub(super) async fn running(&self, project: &ComposeProject) -> Result<Running, RuntimeError> {
        let listed = self.engine.json("/containers/json?all=1").await?;
        let mut since = 0;
        let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
        for listed in listed.as_array().into_iter().flatten() {
            let labels = enrol::labels(listed);
            let (Some(service), true) = (
                labels.get(compose::SERVICE),
                labels.get(enrol::PROJECT).is_some_and(|name| *name == project.name),
            ) else {
                continue;
            };
            if *service == project.service {
                since = since.max(listed["Created"].as_u64().unwrap_or_default());
            }
            if matches!(listed["State"].as_str(), Some("created" | "exited" | "dead")) {
                continue;
            }
            let runs = listed["Image"].as_str().map(str::to_owned);
            all.entry(service.clone())
                .and_modify(|known| {
                    if *known != runs {
                        *known = None;
                    }
                })
                .or_insert(runs);
        }
        let references = all.into_iter().filter_map(|(service, runs)| Some((service, runs?))).collect();
        Ok(Running { references, since })
    }

    /// The containers of a project's service, without those that `docker compose run` made.
    async fn containers(&self, project: &str, service: &str) -> Result<Vec<Container>, RuntimeError> {
        let listed = self.engine.json("/containers/json?all=1").await?;
        let mut found = Vec::new();
        for listed in listed.as_array().into_iter().flatten() {
            let labels = enrol::labels(listed);
            let is = |name: &str, value: &str| labels.get(name).is_some_and(|label| label == value);
            if !is(enrol::PROJECT, project) || !is(compose::SERVICE, service) || is(enrol::ONEOFF, "True") {
                continue;
            }
            let id = listed["Id"].as_str().unwrap_or_default().to_owned();
            // Gone since it was listed.
            let Some(inspect) = verbs::inspect(&self.engine, &id).await? else { continue };
            let image = inspect["Image"].as_str().unwrap_or_default().to_owned();
            found.push(Container { id, image, running: inspect["State"]["Running"] == true, inspect });
        }
        Ok(found)
    }
}

/// Whether so many containers run, and all of them of this image.
fn are(containers: &[Container], image: &ImageId, replicas: usize) -> bool {
    containers.len() == replicas && containers.iter().all(|c| c.running && c.image == image.as_str())
}

/// Options for as many containers of each as there are: Compose would make as many as the files say.
fn scales(
    project: &ComposeProject,
    replicas: usize,
    around: &BTreeMap<String, Vec<Container>>,
) -> Vec<String> {
    let others =
        around.iter().filter(|(_, its)| !its.is_empty()).map(|(name, its)| format!("{name}={}", its.len()));
    let all = [format!("{}={replicas}", project.service)].into_iter().chain(others);
    all.flat_map(|scale| ["--scale".to_owned(), scale]).collect()
}

fn needed(container: &Container) -> Vec<String> {
    needs(&enrol::labels(&container.inspect["Config"]))
}

fn good_image<'a>(plan: &'a Plan, done: Done<'a>) -> &'a ImageId {
    image_of(plan, done).unwrap_or(&plan.to.image)
}
