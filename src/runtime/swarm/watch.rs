//! Noticing what happens in a Swarm. A deployment has an event, and it has to be noticed at once: Swarm stops the tasks
//! before it starts the new ones, and what fails because of that must not be held against the release before. The end of a
//! task has none, on this node or another. So the manager is asked every two seconds, and after each event, in two short
//! answers, and for more only about a service of which something changed.
//!
//! Whether the engine answers at all is not told here: whoever watches its containers does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::models::EventMessage;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::observe::{self, End};
use super::{Found, Role, SwarmRuntime};
use crate::core::io::Input;
use crate::core::observation::Look;
use crate::core::release::{ReplicaId, ServiceName};
use crate::core::time::Timestamp;
use crate::runtime::container::verbs;
use crate::runtime::{KILLED, RuntimeError};

/// How often a manager is asked whether anything changed.
const POLL: Duration = Duration::from_secs(2);
/// The same while something changes: of a deployment, the event comes before the first new task.
const POLL_BUSY: Duration = Duration::from_millis(250);
/// So many times after the last change.
const BUSY_ROUNDS: u32 = 12;
/// First wait after an answer that failed ...
const BACKOFF: Duration = Duration::from_millis(250);
/// ... doubled up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After a manager was not to be had, tasks end because of what was wrong with it or its node: no release is to blame.
const QUIET: Duration = Duration::from_secs(30);

/// Why watching stops, for good or for a moment.
enum Broken {
    Listener,
    Engine(RuntimeError),
}

impl From<RuntimeError> for Broken {
    fn from(error: RuntimeError) -> Self {
        Self::Engine(error)
    }
}

/// Watches until nobody listens.
pub(super) async fn watch(runtime: &SwarmRuntime, inputs: &mpsc::Sender<Input>) {
    let mut watcher =
        Watcher { runtime, inputs, told: BTreeMap::new(), ran: BTreeMap::new(), quiet_until: None, looks: 0 };
    let mut wait = BACKOFF;
    let mut said = false;
    loop {
        let worked = watcher.looks;
        let error = match watcher.follow(&mut wait).await {
            Err(Broken::Listener) => return,
            Err(Broken::Engine(error)) => error,
        };
        // Whoever looks after the containers of an engine that does not answer says so; this is about a manager that
        // does, and has no leader, or a socket proxy before it that does not let us ask.
        if runtime.standing.role() == Role::Manager && (!said || watcher.looks > worked) {
            tracing::warn!("Swarm services cannot be looked at, and are tried again: {error}");
            said = true;
        }
        if watcher.looks > 0 {
            watcher.quiet_until = Some(runtime.clock.now() + QUIET);
        } else if inputs.send(Input::Looked(Look::default())).await.is_err() {
            // Nothing is known of any: nobody who watches other services has to wait for it.
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACKOFF_MAX),
            () = inputs.closed() => return,
        }
    }
}

struct Watcher<'a> {
    runtime: &'a SwarmRuntime,
    inputs: &'a mpsc::Sender<Input>,
    /// Tasks whose end was told, by their service: as many as Swarm itself remembers.
    told: BTreeMap<String, BTreeSet<String>>,
    /// Tasks that ran when their service was looked at last.
    ran: BTreeMap<String, BTreeSet<String>>,
    /// Until then, ends are noted and not told.
    quiet_until: Option<Timestamp>,
    /// Looks that worked.
    looks: u64,
}

type Events = BoxStream<'static, Result<EventMessage, RuntimeError>>;

/// The next event; never, without a stream.
async fn next(events: &mut Option<Events>) -> Option<Result<EventMessage, RuntimeError>> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// What tells that something changed of a service: its version, and what its tasks are doing.
type Marks = BTreeMap<String, Vec<String>>;

impl Watcher<'_> {
    /// Looks and asks, until something fails.
    async fn follow(&mut self, wait: &mut Duration) -> Result<std::convert::Infallible, Broken> {
        let mut events: Option<Events> = None;
        let (mut busy, mut marks) = (0u32, Marks::new());
        loop {
            let time = self.look().await?;
            *wait = BACKOFF;
            self.looks += 1;
            let mut since = Duration::ZERO;
            while since < self.runtime.look_interval {
                if events.is_none() && self.runtime.standing.role() == Role::Manager {
                    events = Some(self.runtime.engine.events(&["service"], &time).await?.boxed());
                }
                let pause = if busy > 0 { POLL_BUSY } else { POLL.min(self.runtime.look_interval) };
                busy = busy.saturating_sub(1);
                tokio::select! {
                    () = tokio::time::sleep(pause) => since += pause,
                    event = next(&mut events) => match event {
                        // What it says is asked for.
                        Some(Ok(_)) => {}
                        ended => {
                            tracing::debug!("the stream of service events ended: {ended:?}");
                            events = None;
                            // One that ends at once must not keep us busy.
                            tokio::time::sleep(pause).await;
                            since += pause;
                        }
                    },
                    () = self.inputs.closed() => return Err(Broken::Listener),
                }
                if self.runtime.standing.role() != Role::Manager {
                    continue;
                }
                let services = self.services().await?;
                let now = self.marks(&services).await?;
                if now != marks {
                    busy = BUSY_ROUNDS;
                    self.changed(&services, &marks, &now).await?;
                    marks = now;
                }
            }
        }
    }

    /// A full look. Yields the engine's time at its beginning.
    async fn look(&mut self) -> Result<String, Broken> {
        let survey = self.runtime.survey(None).await?;
        for found in &survey.found {
            self.tell_ends(found).await?;
        }
        let known: BTreeSet<&str> = survey.found.iter().filter_map(|f| f.service["ID"].as_str()).collect();
        self.told.retain(|service, _| known.contains(service.as_str()));
        self.ran.retain(|service, _| known.contains(service.as_str()));
        let mut look: Look = survey.look;
        look.services.retain(|seen| !seen.replicas.is_empty());
        self.send(Input::Looked(look)).await?;
        Ok(survey.time)
    }

    async fn services(&self) -> Result<Vec<Value>, Broken> {
        let listed = self.runtime.engine.json("/services").await?;
        Ok(listed.as_array().cloned().unwrap_or_default())
    }

    async fn marks(&self, services: &[Value]) -> Result<Marks, Broken> {
        let mut marks = Marks::new();
        if services.is_empty() {
            return Ok(marks);
        }
        for service in services {
            let version = format!("{} {}", service["Version"]["Index"], service["UpdateStatus"]["State"]);
            marks.insert(service["ID"].as_str().unwrap_or_default().to_owned(), vec![version]);
        }
        let watched =
            services.iter().filter(|s| self.told.contains_key(s["ID"].as_str().unwrap_or_default()));
        let watched: Vec<&Value> = watched.collect();
        if !watched.is_empty() {
            for task in self.runtime.tasks(watched.into_iter(), true).await? {
                let service = task["ServiceID"].as_str().unwrap_or_default().to_owned();
                let mark = format!("{} {}", task["ID"], task["Status"]["State"]);
                marks.entry(service).or_default().push(mark);
            }
        }
        marks.values_mut().for_each(|all| all.sort());
        Ok(marks)
    }

    /// Looks at what changed: a service that came or went means everything, else only those that did.
    async fn changed(&mut self, services: &[Value], before: &Marks, now: &Marks) -> Result<(), Broken> {
        if !before.keys().eq(now.keys()) {
            return self.look().await.map(drop);
        }
        let changed = services.iter().filter(|service| {
            let id = service["ID"].as_str().unwrap_or_default();
            before.get(id) != now.get(id)
        });
        for service in changed {
            let name = ServiceName::new(observe::name(service));
            let survey = self.runtime.survey(Some(&name)).await?;
            if !survey.look.refused.is_empty() {
                // Refusals are part of a full look only.
                return self.look().await.map(drop);
            }
            for found in survey.found {
                self.tell_ends(&found).await?;
                self.send(Input::Observed(found.observation)).await?;
            }
        }
        Ok(())
    }

    /// Tells ends before what they lead to: when Swarm goes back by itself, they are held against the release that failed.
    async fn tell_ends(&mut self, found: &Found) -> Result<(), Broken> {
        let service = found.service["ID"].as_str().unwrap_or_default().to_owned();
        let all: BTreeSet<String> = found
            .tasks
            .iter()
            .filter(|task| observe::has_ended(task))
            .map(|task| observe::id(task).as_str().to_owned())
            .collect();
        self.tell_requested(found, &service).await?;
        let before = self.told.insert(service, all);
        let quiet = self.quiet_until.is_some_and(|until| self.runtime.clock.now() < until);
        // What ended before we came is known from the look.
        let before = match before {
            Some(before) if !quiet => before,
            None if self.looks > 0 && !quiet => BTreeSet::new(),
            Some(_) | None => return Ok(()),
        };
        for end in observe::ends(&found.service, &found.tasks) {
            if !before.contains(end.task.as_str()) {
                self.tell_end(found, end).await?;
            }
        }
        Ok(())
    }

    /// Tells of tasks that make way because somebody deployed, scaled or drained: what failed because of that is forgiven.
    async fn tell_requested(&mut self, found: &Found, service: &str) -> Result<(), Broken> {
        let task = |id: &str| found.tasks.iter().find(|task| observe::id(task).as_str() == id);
        let runs = found.tasks.iter().filter(|task| observe::is_wanted(task) && observe::is_running(task));
        let runs = runs.map(|task| observe::id(task).as_str().to_owned()).collect();
        for id in self.ran.insert(service.to_owned(), runs).unwrap_or_default() {
            if task(&id).is_none_or(|task| !observe::is_wanted(task) && !observe::has_ended(task)) {
                let (service, replica) = (found.observation.service.clone(), ReplicaId::new(id));
                self.send(Input::Exited { service, replica, code: 0, oom: false, requested: true }).await?;
            }
        }
        Ok(())
    }

    async fn tell_end(&self, found: &Found, end: End) -> Result<(), Broken> {
        // Only the engine of the task's node knows, and a manager cannot ask it.
        let oom = match &end.container {
            Some(container) if end.code == KILLED => {
                verbs::was_out_of_memory(&self.runtime.engine, container).await?
            }
            Some(_) | None => false,
        };
        let service = found.observation.service.clone();
        self.send(Input::Exited { service, replica: end.task, code: end.code, oom, requested: false }).await
    }

    async fn send(&self, input: Input) -> Result<(), Broken> {
        self.inputs.send(input).await.map_err(|_| Broken::Listener)
    }
}
