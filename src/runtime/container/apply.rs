//! Carrying a plan's steps out, and taking them back. Each of them may be repeated, and may be taken back although it
//! never ran: what is so already is asked of the engine, never remembered.
//!
//! Between stopping the old container and starting its replacement lies the outage: nothing is asked there that could
//! have been known before.

use std::time::Duration;

use serde_json::{Value, json};

use super::create::{Creation, settle_tag};
use super::readiness::Started;
use super::{ContainerRuntime, changed, fingerprint, observe, stop, verbs};
use crate::core::plan::{Plan, Specification, Step, StepOutput};
use crate::core::release::{ImageId, ReplicaId};
use crate::runtime::engine::permanent;
use crate::runtime::{EVIDENCE_LINES, ErrorClass, RuntimeError, Snapshot, compose, read, registry};

/// A log that takes longer to read is not waited for.
pub(super) const EVIDENCE: Duration = Duration::from_secs(5);
/// The engine removes a `--rm` container some time after it stopped.
const REMOVAL: Duration = Duration::from_secs(20);
/// How often is asked while waiting for the engine: there is no event for it that could not be missed.
const POLL: Duration = Duration::from_millis(50);

/// Whoever looked a service up while its new container took its name found the old one alone, and comes in within this.
const COMES_IN: Duration = Duration::from_millis(500);
/// Attempts to change the restart policy of a container that is crashing: between its runs it succeeds.
const UPDATES: u32 = 10;

type Done<'a> = &'a [Option<StepOutput>];

impl ContainerRuntime {
    pub(super) async fn carry_out(
        &self,
        plan: &Plan,
        step: &Step,
        done: Done<'_>,
    ) -> Result<StepOutput, RuntimeError> {
        match step {
            Step::EnsureImage { image, reference, digests } => {
                self.ensure_image(image, reference, digests).await
            }
            Step::ProbeOld { container, name } => self.probe(container, name).await,
            Step::CreateReplacement { name, temp_name, old, specification } => {
                let snapshot = read(specification)?;
                let image = image_of(plan, done).unwrap_or(&plan.to.image);
                let old = old.as_ref().map(ReplicaId::as_str);
                let creation = Creation { snapshot: &snapshot, image, name, temp_name, old, plan };
                creation.create(self).await
            }
            Step::DisarmOld { container, .. } => self.disarm(container, old_of(plan, done, container)).await,
            Step::StopOld { container, name, grace, replaced, .. } => {
                if *replaced {
                    tokio::time::sleep(COMES_IN).await;
                }
                self.stop(container, name, *grace, old_of(plan, done, container)).await
            }
            Step::SetAsideOld { container, aside, name } => {
                self.make_way(container, name, aside, old_of(plan, done, container)).await
            }
            Step::TakeName { created, name, .. } => {
                let new = new_of(plan, done, *created)?;
                let taken = self.take_name(new, name).await.map(|()| StepOutput::Done);
                self.unless_removed(plan, *created, new, name, taken).await
            }
            Step::StartNew { created, name, .. } => {
                let new = new_of(plan, done, *created)?;
                self.ours.mark(new.as_str());
                let started = verbs::start(&self.engine, new.as_str()).await.map(|()| StepOutput::Done);
                let started = started.map_err(|e| said(&format!("starting {name}"), e));
                self.unless_removed(plan, *created, new, name, started).await
            }
            Step::AwaitRunning { created, name, beside } => {
                self.await_started((plan, done), *created, name, *beside).await
            }
            Step::SaveEvidence { container, .. } => {
                Ok(StepOutput::Evidence { log: self.evidence(container).await? })
            }
            Step::PointTag { reference, image } => self.point_tag(plan, reference, image).await,
            Step::PinProject { project, bad, good } => {
                let (project, bad, good) = (project.clone(), bad.clone(), good.clone());
                let owner = plan.service.clone();
                let running = self.running(&project).await?;
                let good_environment = changed::environment(plan);
                let pinning = move || {
                    compose::pin(&project, owner.as_str(), &bad, &good, &running, good_environment.as_ref())
                };
                let pinned = tokio::task::spawn_blocking(pinning).await;
                pinned.map_err(|e| permanent(format!("pinning broke off: {e}")))
            }
            Step::CheckCompose { .. } => self.check_compose().await,
            Step::UpProject { .. } => self.up(plan, step, done).await,
            Step::RestartDependants { project, names } => self.restart_dependants(project, names).await,
            Step::RemakeDependants { .. } => self.remake_dependants(plan).await,
            Step::RemoveOld { container, .. } => {
                self.remove(container.as_str()).await?;
                self.ours.unmark(container.as_str());
                Ok(StepOutput::Done)
            }
            Step::CheckService { .. } | Step::UpdateService { .. } | Step::AwaitConverged { .. } => {
                Err(permanent(format!("\"{step}\" is for an orchestrated service, not for a container")))
            }
            Step::RunHook { .. } => Err(permanent(format!("\"{step}\" is not the engine's to carry out"))),
        }
    }

    /// Moves a tag from the image that was rolled back, or makes one that is missing. One that shows something else by
    /// now was moved by a person who builds or deploys the next release: that is not ours to undo.
    async fn point_tag(
        &self,
        plan: &Plan,
        reference: &str,
        image: &ImageId,
    ) -> Result<StepOutput, RuntimeError> {
        let _moving = self.tagging.lock().await;
        let bad = plan.from.as_ref().map(|from| &from.image);
        match verbs::image_id(&self.engine, reference).await? {
            Some(shown) if shown != *image && Some(&shown) != bad => {}
            Some(_) | None => verbs::tag(&self.engine, image.as_str(), reference).await?,
        }
        Ok(StepOutput::Done)
    }

    pub(super) async fn take_back(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: Done<'_>,
    ) -> Result<(), RuntimeError> {
        match step {
            Step::CreateReplacement { name, temp_name, old, specification } => {
                let image = image_of(plan, done).unwrap_or(&plan.to.image);
                settle_tag(self, plan, &read(specification)?, image).await?;
                self.drop_replacement(name, temp_name, old.as_ref(), output).await
            }
            Step::DisarmOld { container, .. } => {
                self.rearm(container, output, old_of(plan, done, container)).await
            }
            Step::StopOld { container, name, was_running, .. } => {
                self.start_again((plan, done), container, name, *was_running).await?;
                self.rejoin_the_old(plan).await;
                Ok(())
            }
            Step::SetAsideOld { container, name, .. } => self.set_back((plan, done), container, name).await,
            Step::TakeName { created, temp_name, .. } => match new_of(plan, done, *created) {
                Ok(new) => absent_is_fine(self.rename(new, temp_name).await),
                Err(_) => Ok(()),
            },
            Step::StartNew { created, .. } => match new_of(plan, done, *created) {
                // It is to be removed: nobody waits for what it would like to finish.
                Ok(new) => verbs::kill(&self.engine, new.as_str()).await,
                Err(_) => Ok(()),
            },
            Step::PinProject { .. } => self.unpin_again(plan, step, output).await,
            Step::PointTag { reference, image } => self.point_back(plan, reference, image).await,
            Step::UpProject { .. } => {
                self.down_again(plan, step, done).await?;
                self.rejoin_the_old(plan).await;
                Ok(())
            }
            // They change nothing, or only what is right to keep.
            Step::EnsureImage { .. }
            | Step::ProbeOld { .. }
            | Step::AwaitRunning { .. }
            | Step::SaveEvidence { .. }
            | Step::CheckCompose { .. }
            | Step::RestartDependants { .. }
            | Step::RemakeDependants { .. }
            | Step::RemoveOld { .. }
            | Step::CheckService { .. }
            | Step::UpdateService { .. }
            | Step::AwaitConverged { .. }
            | Step::RunHook { .. } => Ok(()),
        }
    }

    async fn ensure_image(
        &self,
        image: &ImageId,
        name: &str,
        digests: &[String],
    ) -> Result<StepOutput, RuntimeError> {
        if let Some(image) = verbs::image_id(&self.engine, image.as_str()).await? {
            return Ok(StepOutput::Image { pulled: false, image });
        }
        let mut why = format!(
            "no registry digest of it was recorded, so it cannot be fetched (was it built here? load it again under {name})"
        );
        for digest in digests {
            match self.fetch(digest).await {
                Ok(found) if found == *image => return Ok(StepOutput::Image { pulled: true, image: found }),
                Ok(found) => why = format!("{digest} is {found} on this engine: its image store was changed"),
                Err(error) if error.class == ErrorClass::Transient => return Err(error),
                Err(error) => why = error.message,
            }
        }
        Err(permanent(format!("the image {name} ({image}) is not here: {why}")))
    }

    async fn fetch(&self, digest: &str) -> Result<ImageId, RuntimeError> {
        if let Some(found) = verbs::image_id(&self.engine, digest).await? {
            return Ok(found);
        }
        registry::pull(&self.engine, digest).await?;
        verbs::image_id(&self.engine, digest)
            .await?
            .ok_or_else(|| permanent(format!("{digest} was fetched, and is not there")))
    }

    async fn probe(&self, container: &ReplicaId, name: &str) -> Result<StepOutput, RuntimeError> {
        let id = container.as_str();
        let inspect = verbs::inspect(&self.engine, id).await?.ok_or_else(|| RuntimeError {
            class: ErrorClass::NotFound,
            message: format!("{name} ({id}) is gone: look again (`backstop status`)"),
        })?;
        let auto_remove = inspect["HostConfig"]["AutoRemove"] == true;
        let reacts = stop::will_react(&self.engine, &inspect, self.clock.now()).await;
        let (mut specification, mut log) = (None, Vec::new());
        if auto_remove {
            let snapshot = super::snapshot::of(&self.engine, inspect.clone(), &self.version().await?).await?;
            let json = serde_json::to_string(&snapshot)
                .map_err(|e| permanent(format!("the record of {name}: {e}")))?;
            specification = Some(Specification::new(json));
            log = self.evidence(container).await?;
        }
        Ok(StepOutput::Old {
            restart_policy: inspect["HostConfig"]["RestartPolicy"].to_string(),
            auto_remove,
            stop_timeout: inspect["Config"]["StopTimeout"].as_u64(),
            reacts,
            specification,
            log,
        })
    }

    async fn disarm(
        &self,
        container: &ReplicaId,
        old: Option<&StepOutput>,
    ) -> Result<StepOutput, RuntimeError> {
        self.ours.mark(container.as_str());
        let Some(StepOutput::Old { restart_policy, auto_remove: false, .. }) = old else {
            // The engine refuses it for `--rm` containers, which it does not restart anyway.
            return Ok(StepOutput::Disarmed { restart_policy: None });
        };
        let policy: Value = serde_json::from_str(restart_policy).unwrap_or(Value::Null);
        if matches!(policy["Name"].as_str(), None | Some("" | "no")) {
            return Ok(StepOutput::Disarmed { restart_policy: None });
        }
        self.set_policy(container, &json!({"Name": "no"})).await?;
        Ok(StepOutput::Disarmed { restart_policy: Some(restart_policy.clone()) })
    }

    async fn rearm(
        &self,
        container: &ReplicaId,
        output: Option<&StepOutput>,
        old: Option<&StepOutput>,
    ) -> Result<(), RuntimeError> {
        let before = match (output, old) {
            (Some(StepOutput::Disarmed { restart_policy }), _) => restart_policy.as_ref(),
            // It may have run without its output being recorded; what was there before is known from the probe.
            (_, Some(StepOutput::Old { restart_policy, auto_remove: false, .. })) => Some(restart_policy),
            _ => None,
        };
        if let Some(policy) =
            before.and_then(|p| serde_json::from_str::<Value>(p).ok()).filter(Value::is_object)
        {
            self.set_policy(container, &policy).await?;
        }
        self.ours.unmark(container.as_str());
        Ok(())
    }

    async fn set_policy(&self, container: &ReplicaId, policy: &Value) -> Result<(), RuntimeError> {
        let body = json!({ "RestartPolicy": policy });
        let path = format!("/containers/{container}/update");
        for attempt in 1.. {
            match self.engine.post(&path, Some(&body)).await {
                Err(error) if error.class == ErrorClass::NotFound => break,
                // The main process ended in the middle of it, as those of a crash loop do: it was not changed.
                Err(error) if error.class == ErrorClass::Permanent && attempt < UPDATES => {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        Ok(())
    }

    async fn stop(
        &self,
        container: &ReplicaId,
        name: &str,
        grace: Duration,
        old: Option<&StepOutput>,
    ) -> Result<StepOutput, RuntimeError> {
        self.ours.mark(container.as_str());
        let (timeout, reacts) = match old {
            Some(StepOutput::Old { stop_timeout, reacts, .. }) => (*stop_timeout, *reacts),
            _ => (None, None),
        };
        let reacts = match (timeout, reacts) {
            // When it was prepared, it had only just been started.
            (None, None) => match verbs::inspect(&self.engine, container.as_str()).await {
                Ok(Some(inspect)) => stop::reacts(&self.engine, &inspect).await,
                Ok(None) | Err(_) => None,
            },
            (_, known) => known,
        };
        let how = stop::stop(&self.engine, container.as_str(), timeout, grace, reacts).await;
        how.map(|how| StepOutput::Stopped { how }).map_err(|e| said(&format!("stopping {name}"), e))
    }

    /// The opposite of stopping: what ran before runs again, under its name.
    async fn start_again(
        &self,
        (plan, done): (&Plan, Done<'_>),
        container: &ReplicaId,
        name: &str,
        was_running: bool,
    ) -> Result<(), RuntimeError> {
        let old = old_of(plan, done, container);
        if !was_running {
            return Ok(());
        }
        // First its restart policy: one that crashes at once would stay down without it.
        self.rearm(container, None, old).await?;
        let removed = goes_by_itself(old);
        match verbs::start(&self.engine, container.as_str()).await {
            Err(error) if error.class == ErrorClass::NotFound => {}
            // It is being removed right now.
            Err(error) if error.class == ErrorClass::Conflict && removed => {}
            // It is paused, so it was never stopped: whoever paused it had a reason.
            Err(error) if error.class == ErrorClass::Conflict && self.runs(container).await? => return Ok(()),
            other => return other.map_err(|e| said(&format!("starting the old {name} again"), e)),
        }
        // The engine removed it, as `--rm` asks for: the same again is as near as it gets.
        let Some(StepOutput::Old { specification: Some(specification), .. }) = old else {
            return Err(RuntimeError {
                class: ErrorClass::NotFound,
                message: format!(
                    "the old {name} ({container}) was removed by somebody else: deploy it again"
                ),
            });
        };
        let snapshot: Snapshot = read(specification)?;
        self.remove(container.as_str()).await?;
        self.free(plan, done, name).await?;
        let image = ImageId::new(snapshot.inspect["Image"].as_str().unwrap_or_default());
        let creation =
            Creation { snapshot: &snapshot, image: &image, name, temp_name: name, old: None, plan };
        let StepOutput::Created { container, .. } = creation.create(self).await? else {
            return Err(permanent(format!("{name} was not created")));
        };
        verbs::start(&self.engine, container.as_str()).await
    }

    /// Takes a name from the replacement that has it.
    async fn free(&self, plan: &Plan, done: Done<'_>, name: &str) -> Result<(), RuntimeError> {
        for step in &plan.steps {
            if let Step::TakeName { created, temp_name, name: taken } = step
                && taken == name
                && let Ok(new) = new_of(plan, done, *created)
            {
                absent_is_fine(self.rename(new, temp_name).await)?;
            }
        }
        Ok(())
    }

    async fn runs(&self, container: &ReplicaId) -> Result<bool, RuntimeError> {
        let inspect = verbs::inspect(&self.engine, container.as_str()).await?;
        Ok(inspect.is_some_and(|i| i["State"]["Running"] == true))
    }

    /// It is ours to remove once the target runs, and not before. One that somebody is removing can still be renamed, and
    /// never goes then.
    async fn make_way(
        &self,
        container: &ReplicaId,
        name: &str,
        aside: &str,
        old: Option<&StepOutput>,
    ) -> Result<StepOutput, RuntimeError> {
        if !goes_by_itself(old) && self.is_removed(container).await? {
            return Err(removed(name));
        }
        let set_aside = self.set_aside(container, aside, old).await;
        set_aside.map_err(|e| if e.class == ErrorClass::NotFound { removed(name) } else { e })
    }

    async fn set_aside(
        &self,
        container: &ReplicaId,
        name: &str,
        old: Option<&StepOutput>,
    ) -> Result<StepOutput, RuntimeError> {
        if goes_by_itself(old) && !self.runs(container).await? {
            // The engine is removing it: renaming it now writes into a directory that is being deleted, which leaves
            // the container half removed for ever (seen on 20.10). It gives its name free by itself.
            return Ok(StepOutput::Done);
        }
        self.rename(container, name).await.map(|()| StepOutput::Done)
    }

    /// It has its name again, and runs if it did: a crash loop was stopped to be renamed.
    async fn set_back(
        &self,
        (plan, done): (&Plan, Done<'_>),
        container: &ReplicaId,
        name: &str,
    ) -> Result<(), RuntimeError> {
        if goes_by_itself(old_of(plan, done, container)) && !self.runs(container).await? {
            return Ok(());
        }
        absent_is_fine(self.rename(container, name).await)?;
        let ran = |step: &Step| matches!(step, Step::StopOld { container: c, was_running: true, replaced: true, .. } if c == container);
        if plan.steps.iter().any(ran) && !self.runs(container).await? {
            absent_is_fine(verbs::start(&self.engine, container.as_str()).await)?;
        }
        self.ours.unmark(container.as_str());
        Ok(())
    }

    /// Gives a container another name. Engines before 27 refuse it to one that waits to be started again after a crash, as if it
    /// were not there: that one is stopped for it, for it serves nobody.
    async fn rename(&self, container: &ReplicaId, name: &str) -> Result<(), RuntimeError> {
        let renamed = verbs::rename(&self.engine, container.as_str(), name).await;
        let Err(error) = renamed else { return Ok(()) };
        let inspect = verbs::inspect(&self.engine, container.as_str()).await?;
        if error.class != ErrorClass::NotFound || !inspect.is_some_and(|i| i["State"]["Restarting"] == true) {
            return Err(error);
        }
        self.ours.mark(container.as_str());
        verbs::stop_at_once(&self.engine, container.as_str()).await?;
        verbs::rename(&self.engine, container.as_str(), name).await
    }

    async fn await_started(
        &self,
        (plan, done): (&Plan, Done<'_>),
        created: usize,
        name: &str,
        beside: bool,
    ) -> Result<StepOutput, RuntimeError> {
        let new = new_of(plan, done, created)?;
        let started = Started { plan, image: image_of(plan, done).unwrap_or(&plan.to.image), new, name };
        let running = if beside {
            self.await_serving(started, old_beside(plan, created)).await
        } else {
            self.await_running(started).await
        };
        self.unless_removed(plan, created, new, name, running).await
    }

    /// Tells a replacement that failed from one that somebody removed. The engine itself removes only `--rm` containers.
    async fn unless_removed(
        &self,
        plan: &Plan,
        created: usize,
        new: &ReplicaId,
        name: &str,
        result: Result<StepOutput, RuntimeError>,
    ) -> Result<StepOutput, RuntimeError> {
        let failed = result.as_ref().is_err_and(|e| e.class != ErrorClass::Transient);
        if !failed || !self.is_removed(new).await? {
            return result;
        }
        let by_itself = match plan.steps.get(created) {
            Some(Step::CreateReplacement { specification, .. }) => {
                read::<Snapshot>(specification)?.inspect["HostConfig"]["AutoRemove"] == true
            }
            _ => false,
        };
        if by_itself { result } else { Err(removed(name)) }
    }

    /// Whether it is not there any more, or about to go.
    async fn is_removed(&self, container: &ReplicaId) -> Result<bool, RuntimeError> {
        let inspect = verbs::inspect(&self.engine, container.as_str()).await?;
        Ok(inspect.is_none_or(|inspect| is_going(&inspect)))
    }

    pub(super) async fn take_name(&self, new: &ReplicaId, name: &str) -> Result<(), RuntimeError> {
        let waited = tokio::time::timeout(REMOVAL, async {
            loop {
                match self.rename(new, name).await {
                    // A `--rm` container has its name until its removal is over.
                    Err(error) if error.class == ErrorClass::Conflict && self.is_leaving(name).await? => {
                        tokio::time::sleep(POLL / 5).await;
                    }
                    other => return other,
                }
            }
        });
        match waited.await {
            Ok(result) => result.map_err(|e| said(&format!("giving the replacement its name {name}"), e)),
            Err(_) => {
                Err(permanent(format!("the old {name} is still being removed after {} s", REMOVAL.as_secs())))
            }
        }
    }

    /// Whether whoever has a name is about to lose it.
    async fn is_leaving(&self, name: &str) -> Result<bool, RuntimeError> {
        let Some(holder) = verbs::inspect(&self.engine, name).await? else { return Ok(true) };
        let removed = holder["HostConfig"]["AutoRemove"] == true && holder["State"]["Running"] != true;
        Ok(removed || is_going(&holder))
    }

    /// The last log lines. A log that cannot be read is said, and is no reason to stop.
    async fn evidence(&self, container: &ReplicaId) -> Result<Vec<String>, RuntimeError> {
        match self.engine.logs(container.as_str(), EVIDENCE_LINES, EVIDENCE).await {
            Err(error) if error.class == ErrorClass::Transient => Err(error),
            Err(error) => Ok(vec![format!("(no log: {error})")]),
            Ok(lines) => Ok(lines),
        }
    }

    async fn remove(&self, container: &str) -> Result<(), RuntimeError> {
        verbs::remove(&self.engine, container).await?;
        self.await_removal(container).await
    }

    async fn await_removal(&self, container: &str) -> Result<(), RuntimeError> {
        let gone = tokio::time::timeout(REMOVAL, async {
            while verbs::inspect(&self.engine, container).await?.is_some() {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        });
        gone.await.unwrap_or_else(|_| {
            Err(permanent(format!(
                "{container} is still there {} s after its removal began",
                REMOVAL.as_secs()
            )))
        })
    }

    /// Removes the replacement; by name if its id was never recorded, and then only under its temporary name.
    async fn drop_replacement(
        &self,
        name: &str,
        temp_name: &str,
        old: Option<&ReplicaId>,
        output: Option<&StepOutput>,
    ) -> Result<(), RuntimeError> {
        let id = match output {
            Some(StepOutput::Created { container, .. }) => container.as_str().to_owned(),
            _ => temp_name.to_owned(),
        };
        if old.is_some_and(|old| old.as_str() == id) || id == name {
            return Err(permanent(format!("refusing to remove {id}: it is no replacement of ours")));
        }
        self.remove(&id).await?;
        self.ours.unmark(&id);
        Ok(())
    }
}

/// The output of the step that probed a container.
fn old_of<'a>(plan: &Plan, done: Done<'a>, container: &ReplicaId) -> Option<&'a StepOutput> {
    let index =
        plan.steps.iter().position(|s| matches!(s, Step::ProbeOld { container: c, .. } if c == container))?;
    done.get(index)?.as_ref()
}

pub(super) fn image_of<'a>(plan: &Plan, done: Done<'a>) -> Option<&'a ImageId> {
    let index = plan.steps.iter().position(|s| matches!(s, Step::EnsureImage { .. }))?;
    match done.get(index)?.as_ref()? {
        StepOutput::Image { image, .. } => Some(image),
        _ => None,
    }
}

/// The container whose place the replacement is to take.
fn old_beside(plan: &Plan, created: usize) -> Option<&ReplicaId> {
    match plan.steps.get(created) {
        Some(Step::CreateReplacement { old, .. }) => old.as_ref(),
        Some(_) | None => None,
    }
}

fn new_of<'a>(plan: &Plan, done: Done<'a>, created: usize) -> Result<&'a ReplicaId, RuntimeError> {
    match done.get(created).and_then(Option::as_ref) {
        Some(StepOutput::Created { container, .. }) => Ok(container),
        _ => Err(permanent(format!(
            "rollback {}: step {} has not created the replacement",
            plan.id,
            created + 1
        ))),
    }
}

/// A container runs the image and the configuration that were asked for.
pub(super) fn identity(
    plan: &Plan,
    image: &ImageId,
    inspect: &Value,
    name: &str,
) -> Result<(), RuntimeError> {
    let found = inspect["Image"].as_str().unwrap_or_default();
    if found != image.as_str() {
        return Err(permanent(format!("{name} runs the image {found}, and {image} was asked for")));
    }
    if fingerprint::fingerprint(inspect) != plan.to.fingerprint {
        return Err(permanent(format!(
            "{} runs with another configuration than {} had",
            observe::name(inspect),
            plan.to
        )));
    }
    Ok(())
}

fn absent_is_fine<T>(result: Result<T, RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.class != ErrorClass::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether the engine removes it as soon as it ends.
fn goes_by_itself(old: Option<&StepOutput>) -> bool {
    matches!(old, Some(StepOutput::Old { auto_remove: true, .. }))
}

fn is_going(inspect: &Value) -> bool {
    matches!(inspect["State"]["Status"].as_str(), Some("removing" | "dead"))
}

pub(super) fn removed(name: &str) -> RuntimeError {
    RuntimeError { class: ErrorClass::Removed, message: format!("somebody removed {name} meanwhile") }
}

fn said(what: &str, error: RuntimeError) -> RuntimeError {
    RuntimeError { message: format!("{what}: {}", error.message), ..error }
}
