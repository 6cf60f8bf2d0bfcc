//! Several runtimes as one: each looks after services of its kind, and the rest of the program need not know which.
//!
//! A look says that whatever is not in it is gone. So what one runtime sees is never passed on by itself: it is put
//! together with what each of the others said last, and nothing is passed on before all have looked once. One that cannot
//! look for a while keeps its services as they were: not knowing is not gone.
//!
//! A service belongs to the first runtime, in their order, that knows its name. The last one is asked about whatever
//! nobody knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::engine::permanent;
use super::{ErrorClass, OnceEnded, OneOff, Recorded, Runtime, RuntimeError, Snapshot, Varied, Word};
use crate::core::availability::Availability;
use crate::core::io::{Input, RollbackRequest};
use crate::core::observation::{Look, Observation, Refusal};
use crate::core::plan::{Pin, Plan, Step, StepOutput};
use crate::core::release::{Release, ServiceName};
use crate::core::time::Timestamp;

/// Services whose runtime is remembered; a host with more of them is not one that we are made for.
const OWNERS_MAX: usize = 8192;
/// What a part may have to say before it is passed on.
const WAITING_MAX: usize = 64;

/// Several runtimes, as one.
#[derive(Debug)]
pub struct Several {
    parts: Vec<Box<dyn Runtime>>,
    /// What each of them said last. Held while something is passed on, so that nothing older overtakes it.
    said: tokio::sync::Mutex<Vec<Said>>,
    /// The runtime of each service that was asked about.
    owners: Mutex<HashMap<ServiceName, usize>>,
}

/// What one runtime said last.
#[derive(Debug, Default)]
struct Said {
    /// None before its first look.
    services: Option<BTreeMap<ServiceName, Observation>>,
    refused: Vec<Refusal>,
    /// Events may have been lost before its last look, and that was not passed on yet.
    after_gap: bool,
}

impl Several {
    /// These, in the order in which they are asked whose a service is. There has to be one.
    pub fn new(parts: Vec<Box<dyn Runtime>>) -> Self {
        let said = parts.iter().map(|_| Said::default()).collect();
        Self { parts, said: tokio::sync::Mutex::new(said), owners: Mutex::default() }
    }

    /// Passes on what a part says. False if nobody listens.
    async fn pass(&self, part: usize, input: Input, inputs: &mpsc::Sender<Input>) -> bool {
        let mut said = self.said.lock().await;
        let input = match input {
            Input::Looked(look) => {
                let asked = look.asked;
                if let Some(mine) = said.get_mut(part) {
                    mine.looked(look);
                }
                match merged(&mut said, asked) {
                    Some(look) => Input::Looked(look),
                    None => return true,
                }
            }
            Input::Observed(seen) => {
                if is_anothers(&said, part, &seen.service) {
                    return true;
                }
                if let Some(mine) = said.get_mut(part) {
                    mine.observed(&seen);
                }
                Input::Observed(seen)
            }
            Input::Exited { ref service, .. } if is_anothers(&said, part, service) => return true,
            other => other,
        };
        inputs.send(input).await.is_ok()
    }

    /// Whose a service is: as it was last, else whoever finds replicas of it.
    async fn owner(&self, service: &ServiceName) -> Result<usize, RuntimeError> {
        if let Some(known) = self.owners().get(service) {
            return Ok(*known);
        }
        self.find(service).await.map(|(part, _)| part)
    }

    /// Asks one after the other; whoever knows of replicas has it, else the last who knows the name at all.
    async fn find(&self, service: &ServiceName) -> Result<(usize, Observation), RuntimeError> {
        let known = self.owners().get(service).copied();
        let order = known.into_iter().chain((0..self.parts.len()).filter(|part| Some(*part) != known));
        let (mut found, mut failed) = (None, None);
        for part in order {
            let Some(runtime) = self.parts.get(part) else { continue };
            match runtime.observe(service).await {
                Ok(seen) if !seen.replicas.is_empty() => return Ok(self.own(part, seen)),
                // Whose it was last has the say about a service of which nothing is left.
                Ok(seen) if known == Some(part) => found = Some((part, seen)),
                Ok(seen) => found = found.or(Some((part, seen))),
                Err(error) if known == Some(part) && error.class != ErrorClass::NotFound => {
                    return Err(error);
                }
                Err(error) if error.class == ErrorClass::NotFound => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (found, failed) {
            // It may be the one's that cannot be asked.
            (_, Some(error)) => Err(error),
            (Some((part, seen)), None) => Ok(self.own(part, seen)),
            (None, None) => Err(RuntimeError {
                class: ErrorClass::NotFound,
                message: format!("nothing is called {service} here (`backstop status`)"),
            }),
        }
    }

    fn own(&self, part: usize, seen: Observation) -> (usize, Observation) {
        let mut owners = self.owners();
        if owners.len() > OWNERS_MAX {
            owners.clear();
        }
        owners.insert(seen.service.clone(), part);
        (part, seen)
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<ServiceName, usize>> {
        // Nothing that panics is done under this lock; what it holds can be asked for again anyway.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, part: usize) -> Result<&dyn Runtime, RuntimeError> {
        let runtime = self.parts.get(part).or(self.parts.last());
        runtime.map(AsRef::as_ref).ok_or_else(|| permanent("there is no runtime".to_owned()))
    }

    /// Who made a plan.
    fn of_plan(&self, plan: &Plan) -> Result<&dyn Runtime, RuntimeError> {
        let part = self.parts.iter().position(|runtime| runtime.is_mine(plan));
        let part = part.ok_or_else(|| permanent(format!("nobody here carries the plan {} out", plan.id)))?;
        self.part(part)
    }
}

impl Said {
    fn looked(&mut self, look: Look) {
        let mut services: BTreeMap<_, _> =
            look.services.into_iter().map(|seen| (seen.service.clone(), seen)).collect();
        // What was looked at by itself meanwhile is known better.
        for (name, known) in self.services.take().unwrap_or_default() {
            if known.asked > look.asked {
                services.insert(name, known);
            }
        }
        self.services = Some(services);
        self.refused = look.refused;
        self.after_gap |= look.after_gap;
    }

    fn observed(&mut self, seen: &Observation) {
        if let Some(services) = self.services.as_mut() {
            services.insert(seen.service.clone(), seen.clone());
        }
    }

    fn knows(&self, service: &ServiceName) -> bool {
        let seen = self.services.as_ref().and_then(|services| services.get(service));
        seen.is_some_and(|seen| !seen.replicas.is_empty())
    }
}

/// Whether a runtime that comes first has a service of that name.
fn is_anothers(said: &[Said], part: usize, service: &ServiceName) -> bool {
    said.iter().take(part).any(|before| before.knows(service))
}

/// What all of them said last, as one look; none before the first look of each. A gap is told once. What is missing in
/// it is missing since the look that was `asked` for last: the other parts said theirs before.
fn merged(said: &mut [Said], asked: Timestamp) -> Option<Look> {
    let mut look = Look { asked, ..Look::default() };
    let mut found: BTreeMap<ServiceName, Observation> = BTreeMap::new();
    for part in said.iter() {
        for (name, seen) in part.services.as_ref()? {
            if seen.replicas.is_empty() {
                continue;
            }
            if found.contains_key(name) {
                look.refused.push(namesake(seen));
            } else {
                found.insert(name.clone(), seen.clone());
            }
        }
        look.refused.extend(part.refused.iter().cloned());
    }
    look.services = found.into_values().collect();
    for part in said {
        look.after_gap |= std::mem::take(&mut part.after_gap);
    }
    Some(look)
}

/// Two services of one name cannot be told apart.
fn namesake(seen: &Observation) -> Refusal {
    let container = seen.replicas.first().map_or_else(String::new, |replica| replica.name.clone());
    let problem = format!(
        "a Swarm service is called {0} too, and that one is watched: give this one a name of its own with the label \
         `backstop.service`",
        seen.service
    );
    Refusal { service: seen.service.clone(), container, problems: vec![problem] }
}

#[async_trait]
impl Runtime for Several {
    async fn watch(&self, inputs: mpsc::Sender<Input>) {
        let (watches, passing): (Vec<_>, Vec<_>) = self
            .parts
            .iter()
            .enumerate()
            .map(|(part, runtime)| {
                let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
                let inputs = &inputs;
                let pass = async move {
                    while let Some(input) = receiver.recv().await {
                        if !self.pass(part, input, inputs).await {
                            break;
                        }
                    }
                };
                (runtime.watch(sender), pass)
            })
            .unzip();
        // Whoever waits for something to happen notices only here that nobody listens any more.
        tokio::select! {
            _ = futures_util::future::join(join_all(watches), join_all(passing)) => {}
            () = inputs.closed() => {}
        }
    }

    async fn look(&self) -> Result<Look, RuntimeError> {
        let looks = join_all(self.parts.iter().map(|runtime| runtime.look())).await;
        let mut said = self.said.lock().await;
        let mut failed = None;
        let mut worked = None;
        for (mine, look) in said.iter_mut().zip(looks) {
            match look {
                Ok(look) => {
                    worked = Some(worked.map_or(look.asked, |asked: Timestamp| asked.min(look.asked)));
                    mine.looked(look);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (worked.and_then(|asked| merged(&mut said, asked)), failed) {
            (Some(look), None) => Ok(look),
            (Some(look), Some(error)) => {
                tracing::debug!("a part of a look failed: {error}");
                Ok(look)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(permanent("there is no runtime".to_owned())),
        }
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
        let (part, seen) = self.find(service).await?;
        if let Some(mine) = self.said.lock().await.get_mut(part) {
            mine.observed(&seen);
        }
        Ok(seen)
    }

    async fn snapshot(&self, now: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
        self.part(self.owner(&now.service).await?)?.snapshot(now).await
    }

    async fn recorded(&self) -> Result<Vec<Recorded>, RuntimeError> {
        let mut all = Vec::new();
        for runtime in &self.parts {
            all.extend(runtime.recorded().await?);
        }
        Ok(all)
    }

    async fn keep_quarantine(
        &self,
        service: &ServiceName,
        release: &Release,
        why: Option<&str>,
    ) -> Result<(), RuntimeError> {
        match self.owner(service).await {
            Ok(part) => self.part(part)?.keep_quarantine(service, release, why).await,
            // What is not there is not deployed.
            Err(error) if error.class == ErrorClass::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn keep_word(&self, service: Option<&ServiceName>, word: &Word) -> Result<(), RuntimeError> {
        if let Some(name) = service {
            match self.owner(name).await {
                Ok(part) => return self.part(part)?.keep_word(service, word).await,
                // It is not there now; what was said of it may be.
                Err(error) if error.class == ErrorClass::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for runtime in &self.parts {
            runtime.keep_word(service, word).await?;
        }
        Ok(())
    }

    async fn words(&self) -> Result<Vec<(Option<ServiceName>, Word)>, RuntimeError> {
        let mut all = Vec::new();
        for runtime in &self.parts {
            all.extend(runtime.words().await?);
        }
        Ok(all)
    }

    async fn protect(
        &self,
        service: &ServiceName,
        release: &Release,
        generation: u32,
    ) -> Result<(), RuntimeError> {
        self.part(self.owner(service).await?)?.protect(service, release, generation).await
    }

    async fn unprotect(&self, service: &ServiceName, release: &Release) -> Result<(), RuntimeError> {
        self.part(self.owner(service).await?)?.unprotect(service, release).await
    }

    async fn availability(&self, service: &ServiceName, release: &Release, fetch: bool) -> Availability {
        match self.owner(service).await.and_then(|owner| self.part(owner)) {
            Ok(part) => part.availability(service, release, fetch).await,
            Err(error) => Availability::Unknown { why: error.message },
        }
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        self.part(self.owner(service).await?)?.restart(service).await
    }

    async fn scale(&self, service: &ServiceName, replicas: u32) -> Result<String, RuntimeError> {
        self.part(self.owner(service).await?)?.scale(service, replicas).await
    }

    async fn vary(&self, now: &Observation, set: &BTreeMap<String, String>) -> Result<Varied, RuntimeError> {
        self.part(self.owner(&now.service).await?)?.vary(now, set).await
    }

    async fn keep_set(
        &self,
        service: &ServiceName,
        set: &BTreeMap<String, String>,
    ) -> Result<Option<String>, RuntimeError> {
        self.part(self.owner(service).await?)?.keep_set(service, set).await
    }

    async fn unpin(&self, service: &ServiceName, pin: &Pin) -> Result<String, RuntimeError> {
        self.part(self.owner(service).await?)?.unpin(service, pin).await
    }

    fn is_mine(&self, plan: &Plan) -> bool {
        self.parts.iter().any(|runtime| runtime.is_mine(plan))
    }

    fn plan(
        &self,
        now: &Observation,
        to: &[Snapshot],
        request: &RollbackRequest,
    ) -> Result<Plan, RuntimeError> {
        // Whoever plans has observed just before.
        let owner = self.owners().get(&now.service).copied();
        self.part(owner.unwrap_or(usize::MAX))?.plan(now, to, request)
    }

    async fn apply(
        &self,
        plan: &Plan,
        step: &Step,
        done: &[Option<StepOutput>],
    ) -> Result<StepOutput, RuntimeError> {
        self.of_plan(plan)?.apply(plan, step, done).await
    }

    async fn undo(
        &self,
        plan: &Plan,
        step: &Step,
        output: Option<&StepOutput>,
        done: &[Option<StepOutput>],
    ) -> Result<(), RuntimeError> {
        self.of_plan(plan)?.undo(plan, step, output, done).await
    }

    async fn run_once(
        &self,
        plan: &Plan,
        once: &OneOff,
        done: &[Option<StepOutput>],
        begun: bool,
    ) -> Result<Option<OnceEnded>, RuntimeError> {
        self.of_plan(plan)?.run_once(plan, once, done, begun).await
    }

    async fn drop_once(&self, plan: &Plan, name: &str) -> Result<(), RuntimeError> {
        self.of_plan(plan)?.drop_once(plan, name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::EngineState;
    use crate::core::observation::{Phase, Replica};
    use crate::core::release::{ImageId, ReleaseId, ReplicaId};
    use std::sync::Arc;

    /// A runtime that knows some services, or cannot say.
    #[derive(Debug)]
    struct Part(Result<Vec<&'static str>, ErrorClass>);

    fn seen(service: &str, replicas: &[&str]) -> Observation {
        let release = Release {
            id: ReleaseId::new("r"),
            image: ImageId::new("i"),
            reference: "web:v1".into(),
            digests: Vec::new(),
            fingerprint: String::new(),
            version: None,
        };
        let replica = |name: &&str| Replica {
            id: ReplicaId::new(*name),
            name: (*name).to_owned(),
            release: release.clone(),
            created: Default::default(),
            started: None,
            phase: Phase::Running,
            restart_count: 0,
            restarts: true,
            health: None,
            exit_code: None,
            start_error: None,
            address: None,
        };
        let replicas = replicas.iter().map(replica).collect();
        Observation {
            service: ServiceName::new(service),
            settings: Arc::default(),
            asked: Timestamp::MAX,
            replicas,
        }
    }

    fn look(services: &[&str]) -> Look {
        let services = services.iter().map(|name| seen(name, &[&format!("{name}-1")])).collect();
        Look { services, asked: Timestamp::MAX, ..Look::default() }
    }

    impl Part {
        fn known(&self) -> Result<&[&'static str], RuntimeError> {
            let error = |class: &ErrorClass| RuntimeError { class: *class, message: "away".into() };
            self.0.as_deref().map_err(error)
        }
    }

    #[async_trait]
    impl Runtime for Part {
        async fn watch(&self, _: mpsc::Sender<Input>) {}

        async fn look(&self) -> Result<Look, RuntimeError> {
            self.known().map(look)
        }

        async fn observe(&self, service: &ServiceName) -> Result<Observation, RuntimeError> {
            if self.known()?.contains(&service.as_str()) {
                return Ok(seen(service.as_str(), &["1"]));
            }
            Err(RuntimeError { class: ErrorClass::NotFound, message: "no".into() })
        }

        async fn snapshot(&self, _: &Observation) -> Result<Vec<Snapshot>, RuntimeError> {
            Ok(Vec::new())
        }

        async fn protect(&self, _: &ServiceName, _: &Release, _: u32) -> Result<(), RuntimeError> {
            Ok(())
        }

        async fn unprotect(&self, _: &ServiceName, _: &Release) -> Result<(), RuntimeError> {
            Ok(())
        }

        async fn availability(&self, _: &ServiceName, _: &Release, _: bool) -> Availability {
            Availability::Here
        }

        async fn unpin(&self, _: &ServiceName, _: &Pin) -> Result<String, RuntimeError> {
            self.known().map(|known| known.join(","))
        }

        fn is_mine(&self, _: &Plan) -> bool {
            false
        }

        fn plan(&self, _: &Observation, _: &[Snapshot], _: &RollbackRequest) -> Result<Plan, RuntimeError> {
            Err(permanent("none".into()))
        }

        async fn apply(
            &self,
            _: &Plan,
            _: &Step,
            _: &[Option<StepOutput>],
        ) -> Result<StepOutput, RuntimeError> {
            Ok(StepOutput::Done)
        }

        async fn undo(
            &self,
            _: &Plan,
            _: &Step,
            _: Option<&StepOutput>,
            _: &[Option<StepOutput>],
        ) -> Result<(), RuntimeError> {
            Ok(())
        }
    }

    fn several(parts: Vec<Result<Vec<&'static str>, ErrorClass>>) -> Several {
        Several::new(parts.into_iter().map(|part| Box::new(Part(part)) as Box<dyn Runtime>).collect())
    }

    fn names(input: Input) -> Vec<String> {
        let Input::Looked(look) = input else { panic!("{input:?}") };
        look.services.iter().map(|o| format!("{}={}", o.service, o.replicas[0].name)).collect()
    }

    #[tokio::test]
    async fn looks_are_passed_on_whole() {
        let both = several(vec![Ok(vec![]), Ok(vec![])]);
        let (inputs, mut inbox) = mpsc::channel(8);
        let looked = |names: &[&str]| Input::Looked(look(names));
        both.pass(1, Input::Looked(Look { after_gap: true, ..look(&["plain"]) }), &inputs).await;
        assert!(inbox.try_recv().is_err(), "the other one has not looked yet");
        both.pass(0, looked(&["web"]), &inputs).await;
        let first = inbox.try_recv().unwrap();
        assert!(matches!(&first, Input::Looked(look) if look.after_gap));
        assert_eq!(names(first), ["plain=plain-1", "web=web-1"]);
        // What was observed since belongs to the next look of whomever.
        both.pass(1, Input::Observed(seen("plain", &["plain-2"])), &inputs).await;
        assert!(matches!(inbox.try_recv(), Ok(Input::Observed(_))));
        both.pass(0, looked(&[]), &inputs).await;
        let second = inbox.try_recv().unwrap();
        assert!(matches!(&second, Input::Looked(look) if !look.after_gap), "told once");
        assert_eq!(names(second), ["plain=plain-2"]);
        both.pass(1, Input::Observed(seen("plain", &[])), &inputs).await;
        inbox.try_recv().unwrap();
        both.pass(0, looked(&["web"]), &inputs).await;
        assert_eq!(names(inbox.try_recv().unwrap()), ["web=web-1"]);
        both.pass(1, Input::Engine(EngineState::Reachable { restarted: false }), &inputs).await;
        assert!(matches!(inbox.try_recv(), Ok(Input::Engine(_))));
    }

    #[tokio::test]
    async fn of_two_services_of_one_name_the_second_is_refused() {
        let both = several(vec![Ok(vec![]), Ok(vec![])]);
        let (inputs, mut inbox) = mpsc::channel(8);
        both.pass(0, Input::Looked(look(&["web"])), &inputs).await;
        both.pass(1, Input::Looked(look(&["web", "db"])), &inputs).await;
        let Ok(Input::Looked(merged)) = inbox.try_recv() else { panic!() };
        assert_eq!(merged.services.len(), 2);
        assert!(merged.refused[0].problems[0].contains("backstop.service"), "{:?}", merged.refused);
        both.pass(1, Input::Observed(seen("web", &["other"])), &inputs).await;
        let exited = |replica: &str| Input::Exited {
            service: ServiceName::new("web"),
            replica: ReplicaId::new(replica),
            code: 1,
            oom: false,
            requested: false,
        };
        both.pass(1, exited("other"), &inputs).await;
        assert!(inbox.try_recv().is_err(), "nobody hears of the namesake");
        both.pass(0, exited("web.1"), &inputs).await;
        assert!(inbox.try_recv().is_ok());
    }

    #[tokio::test]
    async fn whoever_has_replicas_has_the_service() {
        let both = several(vec![Ok(vec!["web"]), Ok(vec!["plain"])]);
        let pin = Pin::Variable { file: "/x".into(), variable: "TAG".into(), was: None, is: "v1".into() };
        for name in ["web", "plain"] {
            assert_eq!(both.unpin(&ServiceName::new(name), &pin).await.unwrap(), name);
        }
        let gone = both.observe(&ServiceName::new("gone")).await.unwrap_err();
        assert_eq!(gone.class, ErrorClass::NotFound);
    }

    #[tokio::test]
    async fn one_that_cannot_be_asked_hides_only_its_own() {
        let half = several(vec![Err(ErrorClass::Transient), Ok(vec!["plain"])]);
        assert!(half.observe(&ServiceName::new("plain")).await.is_ok());
        let unknown = half.observe(&ServiceName::new("web")).await.unwrap_err();
        assert_eq!(unknown.class, ErrorClass::Transient, "it may be there");
        assert!(half.look().await.is_err(), "nobody knows yet what it has");
        half.said.lock().await[0].looked(look(&["web"]));
        assert_eq!(half.look().await.unwrap().services.len(), 2, "what it had is not gone");
    }
}
