//! Docker Swarm services, seen and changed through a manager.
//!
//! In reading order: what this engine is to a Swarm ([`role`]), who is watched ([`enrol`]), what a service is
//! ([`release`], [`images`], [`names`]), its tasks ([`observe`], [`places`]), noticing deployments and ends ([`watch`]), and going back
//! ([`plan`], [`apply`]); what the Swarm keeps for a Backstop elsewhere ([`memory`], [`words`]).
//!
//! It acts on services only, never on a task or its container: Swarm would replace whatever is done to them. A service's
//! version is a compare-and-swap: whoever deployed in between wins.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::container::enrol::{Labels, Ourselves};
use super::container::{protect, verbs};
use super::engine::{Engine, permanent};
use super::{
    Enrolment, ErrorClass, Recorded, Runtime, RuntimeError, Snapshot, Varied, Word, registry, set_environment,
};
use crate::clock::Clock;
use crate::core::availability::Availability;
use crate::core::io::{Input, RollbackRequest};
use crate::core::observation::{Look, Observation};
use crate::core::plan::{Pin, Plan, Step, StepOutput};
use crate::core::release::{ImageId, Release, ServiceName};
use crate::core::time::Timestamp;
use images::Images;
use names::Networks;
use places::{Map, Places};
use role::{Role, Standing};

mod apply;
mod enrol;
mod images;
mod memory;
mod mitigate;
mod names;
mod observe;
pub mod places;
mod plan;
mod release;
pub mod role;
mod watch;
mod words;

#[cfg(test)]
mod recorded;

/// Services whose being rolled back by Swarm is remembered between a look and a plan.
const BUSY_MAX: usize = 1024;

/// The runtime for Swarm services. On an engine that is no manager there are none, and hardly anything is asked of it.
#[derive(Debug)]
pub struct SwarmRuntime {
    engine: Arc<Engine>,
    enrolment: Arc<dyn Enrolment>,
    standing: Arc<Standing>,
    places: Arc<Places>,
    ourselves: Ourselves,
    look_interval: Duration,
    clock: Clock,
    networks: Networks,
    /// Services that Swarm was rolling back by itself when they were looked at last.
    busy: Mutex<HashMap<ServiceName, String>>,
}

/// A service that is watched, as the manager says it.
struct Found {
    service: Value,
    tasks: Vec<Value>,
    observation: Observation,
}

/// A look, with what it was made from.
#[derive(Default)]
struct Survey {
    look: Look,
    found: Vec<Found>,
    /// The engine's time when it began, as `since` takes it: `seconds.nanoseconds`.
    time: String,
}

impl SwarmRuntime {
    /// A runtime on `engine`, which need not answer yet, and need be no manager. `standing` and `places` are shared with
    /// whoever watches and measures containers of the same engine.
    pub fn new(
        engine: Arc<Engine>,
        enrolment: Arc<dyn Enrolment>,
        (standing, places): (Arc<Standing>, Arc<Places>),
        look_interval: Duration,
        clock: Clock,
    ) -> Self {
        let ourselves = Ourselves::find(engine.tcp_name().map(str::to_owned));
        let (networks, busy) = (Networks::default(), Mutex::default());
        Self { engine, enrolment, standing, places, ourselves, look_interval, clock, networks, busy }
    }

    /// The services that are watched, or one of them, with their tasks. Nothing unless this is a manager.
    async fn survey(&self, only: Option<&ServiceName>) -> Result<Survey, RuntimeError> {
        let asked = self.clock.now();
        let info = self.standing.ask(&self.engine).await?;
        let look = Look { asked, ..Look::default() };
        if self.standing.role() != Role::Manager {
            return Ok(Survey { look, ..Survey::default() });
        }
        self.engine.find_out_where(self.ourselves.id.as_deref()).await?;
        let time = seconds(&info["SystemTime"]);
        let own = self.own().await?;
        let listed = self.engine.json("/services").await?;
        let mut survey = Survey { time, look, ..Survey::default() };
        let mut enrolled: Vec<(&Value, ServiceName, Labels)> = Vec::new();
        for service in listed.as_array().into_iter().flatten() {
            match enrol::enrol(service, self.enrolment.as_ref(), &self.ourselves, own.as_ref()) {
                Some(Ok((name, labels))) if only.is_none_or(|only| *only == name) => {
                    enrolled.push((service, name, labels));
                }
                Some(Err(refusal)) if only.is_none_or(|only| *only == refusal.service) => {
                    survey.look.refused.push(refusal);
                }
                Some(_) | None => {}
            }
        }
        if enrolled.is_empty() {
            return Ok(survey);
        }
        let tasks = self.tasks(enrolled.iter().map(|(service, ..)| *service), false).await?;
        let node = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
        let map = Map::draw(&self.engine, node, own.as_ref(), &tasks).await?;
        let services = enrolled.iter().map(|(service, ..)| *service);
        let images = Images::ask(&self.engine, self.standing.is_alone(), services).await?;
        for (service, name, labels) in enrolled {
            let its = tasks.iter().filter(|task| task["ServiceID"] == service["ID"]);
            let (mut service, mut tasks) = (service.clone(), its.cloned().collect::<Vec<_>>());
            self.name_networks(&mut service).await?;
            images.name(&mut service, &mut tasks);
            match self.found((service, asked), &name, &labels, tasks, &map).await? {
                Ok(found) => {
                    survey.look.services.push(found.observation.clone());
                    survey.found.push(found);
                }
                Err(refusal) => survey.look.refused.push(refusal),
            }
        }
        Ok(survey)
    }

    async fn found(
        &self,
        (service, asked): (Value, Timestamp),
        name: &ServiceName,
        labels: &Labels,
        tasks: Vec<Value>,
        map: &Map,
    ) -> Result<Result<Found, crate::core::observation::Refusal>, RuntimeError> {
        let settings = match self.enrolment.settings(name, labels) {
            Ok(settings) => Arc::new(settings),
            Err(problems) => return Ok(Err(enrol::refusal(name, problems))),
        };
        let mut replicas = observe::replicas(&service, &tasks);
        for replica in &mut replicas {
            if let Some(task) = tasks.iter().find(|task| observe::id(task) == replica.id) {
                let address = self.places.find(&self.engine, map, task).await?;
                replica.address = address.filter(|_| !self.engine.is_remote());
            }
        }
        self.note_busy(name, &service);
        let observation = Observation { service: name.clone(), settings, asked, replicas };
        Ok(Ok(Found { service, tasks, observation }))
    }

    /// The tasks of these services: all that Swarm remembers, or those that it wants to run.
    async fn tasks(
        &self,
        services: impl Iterator<Item = &Value>,
        wanted: bool,
    ) -> Result<Vec<Value>, RuntimeError> {
        let ids: Vec<&Value> = services.map(|service| &service["ID"]).collect();
        let filters = if wanted {
            json!({"service": ids, "desired-state": ["running", "ready"]})
        } else {
            json!({ "service": ids })
        };
        let tasks = self.engine.json(&format!("/tasks?filters={filters}")).await?;
        let mut tasks = tasks.as_array().cloned().unwrap_or_default();
        for task in &mut tasks {
            self.name_networks_of_task(task).await?;
        }
        Ok(tasks)
    }

    /// What the engine says of our own container, if we are in one.
    async fn own(&self) -> Result<Option<Value>, RuntimeError> {
        match &self.ourselves.id {
            Some(id) => verbs::inspect(&self.engine, id).await,
            None => Ok(None),
        }
    }

    /// Whether a manager can be asked now.
    async fn is_manager(&self) -> Result<bool, RuntimeError> {
        self.standing.ask(&self.engine).await?;
        Ok(self.standing.role() == Role::Manager)
    }

    fn note_busy(&self, name: &ServiceName, service: &Value) {
        let mut busy = self.busy();
        if busy.len() > BUSY_MAX {
            busy.clear();
        }
        if observe::is_rolling_back(service) {
            let message = service["UpdateStatus"]["Message"].as_str().unwrap_or_default();
            busy.insert(name.clone(), message.to_owned());
        } else {
            busy.remove(name);
        }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<ServiceName, String>> {
        // Nothing that panics is done under this lock; the next look fills it again anyway.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's clock as `since` takes it; from now on, if it cannot be read.
fn seconds(time: &Value) -> String {
    let parsed = time.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    parsed.map_or_else(String::new, |at| format!("{}.{:09}", at.as_second(), at.subsec_nanosecond()))
}

fn not_found(message: String) -> RuntimeError {
    RuntimeError { class: ErrorClass::NotFound, message }
}

fn conflict(message: String) -> RuntimeError {
    RuntimeError { class: ErrorClass::Conflict, message }
}

#[async_trait]
impl Runtime for SwarmRuntime {
    async fn watch(&self, inputs: mpsc::Sender<Input>) {
        watch::watch(self, &inputs).await;
    }

    async fn look(&self) -> Result<Look, RuntimeError> {
        Ok(self.survey(None).await?.look)
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        if self.standing.role() == Role::Apart {
            return Err(not_found(format!(
                "there is no Swarm service {service}: this engine is in no Swarm"
            )));
        }
        let survey = self.survey(Some(service)).await?;
        if let Some(found) = survey.found.into_iter().next() {
            return Ok(found.observation);
        }
        if let Some(refusal) = survey.look.refused.first() {
            return Err(permanent(format!("{service} is refused: {}", refusal.problems.join("; "))));
        }
        Err(not_found(format!("there is no Swarm service {service} that is watched (`docker service ls`)")))
    }

    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        let survey = self.survey(Some(&now.service)).await?;
        let found = survey.found.into_iter().next();
        let found = found.ok_or_else(|| not_found(format!("the service {} is gone", now.service)))?;
        // Known to be good is what runs everywhere, not what an update has brought to the first nodes.
        observe::settled(&found.service).map_err(|why| {
            conflict(format!("{} is not what all of {} runs: {why}", found.release(), now.service))
        })?;
        if let Some(task) = found.another() {
            let why = format!("{} is of another image", observe::id(task));
            return Err(conflict(format!(
                "{} is not what all of {} runs: {why}",
                found.release(),
                now.service
            )));
        }
        let version = self.engine.json("/version").await?;
        let context = json!({"engine": version["Version"], "api": self.engine.minor().await?});
        let name = observe::name(&found.service).to_owned();
        if let Err(error) = self.keep(&now.service, &found.service).await {
            // Our own record is what counts here.
            tracing::debug!(service = %now.service, "the Swarm does not keep its specification: {error}");
        }
        Ok(vec![Snapshot { name, inspect: found.service, image: Value::Null, context }])
    }

    async fn recorded(&self) -> Result<Vec<Recorded>, RuntimeError> {
        if self.is_manager().await? { self.kept().await } else { Ok(Vec::new()) }
    }

    async fn keep_quarantine(
        &self,
        service: &ServiceName,
        release: &Release,
        why: Option<&str>,
    ) -> Result<(), RuntimeError> {
        if self.is_manager().await? { self.keep_rolled_back(service, release, why).await } else { Ok(()) }
    }

    async fn keep_word(&self, service: Option<&ServiceName>, word: &Word) -> Result<(), RuntimeError> {
        if self.is_manager().await? { self.keep_said(service, word).await } else { Ok(()) }
    }

    async fn words(&self) -> Result<Vec<(Option<ServiceName>, Word)>, RuntimeError> {
        if self.is_manager().await? { self.said_last().await } else { Ok(Vec::new()) }
    }

    async fn protect(&self, _: &ServiceName, release: &Release, generation: u32) -> Result<(), RuntimeError> {
        match protect::protect(&self.engine, release, generation).await {
            // It is on another node, and nothing is pruned there from here.
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            other => other,
        }
    }

    async fn unprotect(&self, service: &ServiceName, release: &Release) -> Result<(), RuntimeError> {
        self.forget(service, &release.id).await?;
        // Tags are compared by the image's id on this node.
        let here = verbs::image_id(&self.engine, release.image.as_str()).await?;
        let image = here.unwrap_or_else(|| ImageId::new("none"));
        protect::unprotect(&self.engine, &Release { image, ..release.clone() }).await
    }

    async fn availability(&self, _: &ServiceName, release: &Release, _: bool) -> Availability {
        registry::of_swarm(&self.engine, release).await
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.force_update(service).await
    }

    async fn scale(&self, service: &ServiceName, replicas: u32) -> Result<String, RuntimeError> {
        self.set_replicas(service, replicas).await
    }

    async fn vary(&self, now: &Observation, set: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        let (mut service, name) = self.settled(&now.service).await?;
        set_environment(&mut service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"], set);
        let release = Some(release::release(&service["Spec"]));
        let snapshot = Snapshot { name, inspect: service, image: Value::Null, context: Value::Null };
        Ok(Varied { snapshots: vec![snapshot], release })
    }

    async fn unpin(&self, service: &ServiceName, _: &Pin) -> Result<String, RuntimeError> {
        Err(permanent(format!("{service} is a Swarm service: a rollback of it changes no file")))
    }

    fn is_mine(&self, plan: &Plan) -> bool {
        plan.is_of_swarm()
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        if let Some(message) = self.busy().get(&request.service) {
            return Err(conflict(format!(
                "Swarm is rolling {} back by itself: {message}; what comes of it is judged then",
                request.service
            )));
        }
        let by_image = to.iter().any(|good| images::of(&good.inspect["Spec"]["TaskTemplate"]).is_some());
        if by_image && !self.standing.is_alone() {
            return Err(permanent(format!(
                "{} is known by its image on the one node that the Swarm had, and now it has several: deploy it by hand \
                 (`docker service update --image`), by a name with a digest if it can be",
                request.to
            )));
        }
        plan::plan(now, to, request)
    }

    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError> {
        self.carry_out(plan, step, done).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        _: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        self.take_back(plan, step, done).await
    }
}

impl Found {
    fn release(&self) -> Release {
        release::release(&self.service["Spec"])
    }

    /// A task that is to run and is of another image: its name was moved, and Swarm started only some anew since.
    fn another(&self) -> Option<&Value> {
        let told = images::of(&self.service["Spec"]["TaskTemplate"])?;
        let mut wanted = self.tasks.iter().filter(|task| observe::is_wanted(task));
        wanted.find(|task| images::of(&task["Spec"]).is_some_and(|image| image != told))
    }
}
