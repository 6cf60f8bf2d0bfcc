//! Several engines as one runtime: each service is looked after on its own engine, and no engine waits for another.
//!
//! What runs on an engine knows nothing of its name: here it is put before the names of services on their way out
//! (`east/shop`), and taken away again on their way in. The default engine has no name, so nothing changes for it.
//!
//! One engine that is configured under two names would be acted on twice. Engines have an identity of their own, which is
//! asked for before anything is looked at: the second to say it is refused, with the reason where a lost engine's is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::engine::{Engine, permanent};
use super::{Enrolment, OnceEnded, OneOff, Recorded, Runtime, RuntimeError, Snapshot, Varied, Word};
use crate::core::availability::Availability;
use crate::core::io::{EngineState, Input, RollbackRequest};
use crate::core::observation::{Look, Observation, Refusal};
use crate::core::plan::{Pin, Plan, Step, StepOutput};
use crate::core::release::{Release, ReplicaId, ServiceName};
use crate::core::settings::ServiceSettings;

/// Replicas whose engine is remembered; fleets with more of them are not what we are made for.
const KNOWN_MAX: usize = 16_384;
/// What an engine may have to say before it is passed on.
const WAITING_MAX: usize = 64;
/// Pause before an engine is asked again who it is.
const AGAIN: Duration = Duration::from_secs(2);

/// Where each replica runs: probes know them by their ids alone.
#[derive(Debug, Default)]
pub struct Whereabouts(Mutex<HashMap<ReplicaId, String>>);

impl Whereabouts {
    /// The name of the engine that a replica runs on; empty for the default one.
    pub fn of(&self, replica: &ReplicaId) -> String {
        self.known().get(replica).cloned().unwrap_or_default()
    }

    fn note(&self, engine: &str, seen: &Observation) {
        let mut known = self.known();
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        for replica in &seen.replicas {
            known.insert(replica.id.clone(), engine.to_owned());
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ReplicaId, String>> {
        // Nothing that panics is done under this lock; what it holds comes again with the next look.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The enrolment of one engine's services: whoever is asked knows them by their full names.
#[derive(Debug)]
pub struct EnrolmentOn {
    engine: String,
    all: Arc<dyn Enrolment>,
}

impl EnrolmentOn {
    /// Of the services on the engine of this name.
    pub fn new(engine: &str, all: Arc<dyn Enrolment>) -> Self {
        Self { engine: engine.to_owned(), all }
    }
}

impl Enrolment for EnrolmentOn {
    fn enrolled(&self, service: &ServiceName, labels: &BTreeMap<String, String>) -> bool {
        self.all.enrolled(&service.on(&self.engine), labels)
    }

    fn settings(
        &self,
        service: &ServiceName,
        labels: &BTreeMap<String, String>,
    ) -> Result<ServiceSettings, Vec<String>> {
        self.all.settings(&service.on(&self.engine), labels)
    }
}

/// One engine, and what looks after its services.
#[derive(Debug)]
pub struct Part {
    /// Its name; empty for the default one.
    pub name: String,
    /// The engine itself.
    pub engine: Arc<Engine>,
    /// Knows services by their names on this engine. Its enrolment is an [`EnrolmentOn`].
    pub runtime: Arc<dyn Runtime>,
}

/// See the module.
#[derive(Debug)]
pub struct Engines {
    parts: Vec<Part>,
    whereabouts: Arc<Whereabouts>,
    /// Which engine said first that it is who.
    identities: Mutex<BTreeMap<String, String>>,
}

impl Engines {
    /// All engines. What is seen of replicas is noted in `whereabouts`.
    pub fn new(parts: Vec<Part>, whereabouts: Arc<Whereabouts>) -> Self {
        Self { parts, whereabouts, identities: Mutex::default() }
    }

    fn part(&self, engine: &str) -> Result<&Part, RuntimeError> {
        let part = self.parts.iter().find(|part| part.name == engine);
        part.ok_or_else(|| {
            permanent(format!("no engine is called {engine} any more: see [engines] in the configuration"))
        })
    }

    /// The engine of a service, and the service's name there.
    fn of(&self, service: &ServiceName) -> Result<(&dyn Runtime, ServiceName), RuntimeError> {
        let part = self.part(service.engine())?;
        if let Some(why) = self.is_another(&part.name) {
            return Err(permanent(why));
        }
        Ok((part.runtime.as_ref(), service.on_its_engine()))
    }

    /// Asks an engine who it is, until it says so.
    async fn identify(&self, part: &Part, inputs: &mpsc::Sender<Input>) -> Option<()> {
        let mut told = None;
        loop {
            let why = match part.engine.identity().await {
                Ok(None) => return Some(()),
                Ok(Some(_)) => return Some(()),
                Err(error) => error.message,
            };
            if told.as_ref() != Some(&why) {
                told = Some(why.clone());
                let state = EngineState::Unreachable { why };
                inputs.send(named(&part.name, Input::Engine(state))).await.ok()?;
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = inputs.closed() => return None,
            }
        }
    }

    /// Of two names for one engine the first in the configuration counts, so those before it are waited for, a moment long.
    async fn let_those_before(&self, part: &Part) {
        let before = || self.parts.iter().take_while(|before| before.name != part.name);
        let known = async {
            while before().any(|before| !before.engine.is_identified()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(AGAIN, known).await;
        let Some(identity) = part.engine.known_identity() else { return };
        self.identities().entry(identity).or_insert_with(|| part.name.clone());
    }

    fn identities(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an engine is not watched that another name stands for already.
    fn is_another(&self, name: &str) -> Option<String> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        let identity = part.engine.known_identity()?;
        let first = self.identities().get(&identity).filter(|first| *first != name)?.clone();
        let first = if first.is_empty() { "[engine]".to_owned() } else { format!("[engines.{first}]") };
        Some(format!(
            "[engines.{name}] is the same engine as {first} (both say that their ID is {identity}), which is watched \
             already: take one of the two out of the configuration. If they are two machines made from one image, \
             remove /var/lib/docker/engine-id on one of them and restart its Docker"
        ))
    }

    /// Passes on what is said on an engine, under full names.
    async fn pass(&self, part: &Part, inputs: &mpsc::Sender<Input>) {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let passing = async {
            while let Some(input) = receiver.recv().await {
                let input = named(&part.name, input);
                match &input {
                    Input::Looked(look) => {
                        look.services.iter().for_each(|seen| self.whereabouts.note(&part.name, seen));
                    }
                    Input::Observed(seen) => self.whereabouts.note(&part.name, seen),
                    _ => {}
                }
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = futures_util::future::join(part.runtime.watch(sender), passing) => {}
            () = inputs.closed() => {}
        }
    }

    fn noted(&self, engine: &str, seen: Observation) -> Observation {
        let seen = observed(engine, seen);
        self.whereabouts.note(engine, &seen);
        seen
    }
}

/// What is said on an engine, as the rest of the program hears it.
fn named(engine: &str, input: Input) -> Input {
    match input {
        Input::Engine(state) if !engine.is_empty() => Input::EngineOf { engine: engine.to_owned(), state },
        Input::Looked(look) => Input::Looked(looked(engine, look)),
        Input::Observed(seen) => Input::Observed(observed(engine, seen)),
        Input::Exited { service, replica, code, oom, requested } => {
            Input::Exited { service: service.on(engine), replica, code, oom, requested }
        }
        Input::Respecified { service } => Input::Respecified { service: service.on(engine) },
        Input::Unpinned { request, service, result } => {
            Input::Unpinned { request, service: service.on(engine), result }
        }
        other => other,
    }
}

fn looked(engine: &str, look: Look) -> Look {
    let refused = |refusal: Refusal| Refusal { service: refusal.service.on(engine), ..refusal };
    Look {
        engine: engine.to_owned(),
        services: look.services.into_iter().map(|seen| observed(engine, seen)).collect(),
        refused: look.refused.into_iter().map(refused).collect(),
        ..look
    }
}

fn observed(engine: &str, seen: Observation) -> Observation {
    Observation { service: seen.service.on(engine), ..seen }
}

/// A plan as the engine's own runtime made it.
fn plain(plan: &Plan) -> Plan {
    Plan { service: plan.service.on_its_engine(), ..plan.clone() }
}

#[async_trait]
impl Runtime for Engines {
    async fn watch(&self, inputs: mpsc::Sender<Input>) {
        join_all(self.parts.iter().map(|part| self.watch_at(&part.name, inputs.clone()))).await;
    }

    async fn look(&self) -> Result<Look, RuntimeError> {
        self.look_at("").await
    }

    fn engines(&self) -> Vec<String> {
        self.parts.iter().map(|part| part.name.clone()).collect()
    }

    async fn watch_at(&self, engine: &str, inputs: mpsc::Sender<Input>) {
        let Ok(part) = self.part(engine) else { return };
        if self.identify(part, &inputs).await.is_none() {
            return;
        }
        self.let_those_before(part).await;
        if let Some(why) = self.is_another(engine) {
            tracing::error!("{why}");
            let state = EngineState::Unreachable { why };
            let _ = inputs.send(named(engine, Input::Engine(state))).await;
            return inputs.closed().await;
        }
        self.pass(part, &inputs).await;
    }

    async fn look_at(&self, engine: &str) -> Result<Look, RuntimeError> {
        if let Some(why) = self.is_another(engine) {
            return Err(permanent(why));
        }
        let look = looked(engine, self.part(engine)?.runtime.look().await?);
        look.services.iter().for_each(|seen| self.whereabouts.note(engine, seen));
        Ok(look)
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        Ok(self.noted(service.engine(), runtime.observe(&plain).await?))
    }

    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        let (runtime, service) = self.of(&now.service)?;
        runtime.snapshot(&Observation { service, ..now.clone() }).await
    }

    async fn recorded(&self) -> Result<Vec<Recorded>, RuntimeError> {
        let all = join_all(self.parts.iter().map(|part| part.runtime.recorded())).await;
        let mut found = Vec::new();
        for (part, recorded) in self.parts.iter().zip(all) {
            match recorded {
                Ok(recorded) => found.extend(
                    recorded.into_iter().map(|one| Recorded { service: one.service.on(&part.name), ..one }),
                ),
                Err(error) => tracing::info!("what others recorded of good releases is not known: {error}"),
            }
        }
        Ok(found)
    }

    async fn keep_quarantine(
        &self,
        service: &ServiceName,
        release: &Release,
        why: Option<&str>,
    ) -> Result<(), RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.keep_quarantine(&plain, release, why).await
    }

    async fn keep_word(&self, service: Option<&ServiceName>, word: &Word) -> Result<(), RuntimeError> {
        if let Some(name) = service {
            let (runtime, plain) = self.of(name)?;
            return runtime.keep_word(Some(&plain), word).await;
        }
        let all = join_all(self.parts.iter().map(|part| part.runtime.keep_word(None, word))).await;
        all.into_iter().collect()
    }

    async fn words(&self) -> Result<Vec<(Option<ServiceName>, Word)>, RuntimeError> {
        let all = join_all(self.parts.iter().map(|part| part.runtime.words())).await;
        let mut found = Vec::new();
        for (part, words) in self.parts.iter().zip(all) {
            match words {
                Ok(words) => found.extend(
                    words.into_iter().map(|(service, word)| (service.map(|one| one.on(&part.name)), word)),
                ),
                Err(error) => tracing::info!("what people told others is not known: {error}"),
            }
        }
        Ok(found)
    }

    async fn protect(&self, service: &ServiceName, release: &Release, nth: u32) -> Result<(), RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.protect(&plain, release, nth).await
    }

    async fn unprotect(&self, service: &ServiceName, release: &Release) -> Result<(), RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.unprotect(&plain, release).await
    }

    async fn availability(&self, service: &ServiceName, release: &Release, fetch: bool) -> Availability {
        match self.of(service) {
            Ok((runtime, plain)) => runtime.availability(&plain, release, fetch).await,
            Err(error) => Availability::Unknown { why: error.message },
        }
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.restart(&plain).await
    }

    async fn scale(&self, service: &ServiceName, replicas: u32) -> Result<String, RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.scale(&plain, replicas).await
    }

    async fn vary(&self, now: &Observation, set: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        let (runtime, plain) = self.of(&now.service)?;
        runtime.vary(&Observation { service: plain, ..now.clone() }, set).await
    }

    async fn keep_set(
        &self,
        service: &ServiceName,
        set: &BTreeMap<String, String>,
    ) -> Result<Option<String>, RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.keep_set(&plain, set).await
    }

    async fn unpin(&self, service: &ServiceName, pin: &Pin) -> Result<String, RuntimeError> {
        let (runtime, plain) = self.of(service)?;
        runtime.unpin(&plain, pin).await
    }

    fn is_mine(&self, plan: &Plan) -> bool {
        self.of(&plan.service).is_ok_and(|(runtime, _)| runtime.is_mine(&plain(plan)))
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        let (runtime, service) = self.of(&now.service)?;
        let now = Observation { service: service.clone(), ..now.clone() };
        let plan = runtime.plan(&now, to, &RollbackRequest { service, ..request.clone() })?;
        Ok(Plan { service: request.service.clone(), ..plan })
    }

    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError> {
        self.of(&plan.service)?.0.apply(&plain(plan), step, done).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        self.of(&plan.service)?.0.undo(&plain(plan), step, output, done).await
    }

    async fn run_once(
        &self,
        plan: &Plan,
        once: &OneOff,
        done: &[Option<StepOutput>],
        begun: bool,
    ) -> Result<Option<OnceEnded>, RuntimeError> {
        self.of(&plan.service)?.0.run_once(&plain(plan), once, done, begun).await
    }

    async fn drop_once(&self, plan: &Plan, name: &str) -> Result<(), RuntimeError> {
        self.of(&plan.service)?.0.drop_once(&plain(plan), name).await
    }
}
