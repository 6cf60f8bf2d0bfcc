//! Noticing what happens: the engine's events, and a full look every now and then, because events can be lost.
//!
//! A connection that breaks says nothing about the engine: a proxy in between may have tired of an idle stream. So the
//! engine is asked for the last event that was seen. It keeps the newest few hundred in its process's memory: if it
//! still has that one, it is the same process, and everything since is read without a gap. If it has not, it is taken
//! for restarted, and the look that follows is one after a gap.
//!
//! It must never return while somebody listens, and never wait for anything but the engine, time and the listener.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::enrol::{self, Labels};
use super::{ContainerRuntime, KNOWN_MAX, Seen, observe, podman, verbs};
use crate::core::io::{EngineState, Input};
use crate::core::release::{ReplicaId, ServiceName};
use crate::runtime::engine::permanent;
use crate::runtime::{ErrorClass, KILLED, RuntimeError, compose};

/// A deployment is a burst of events: what is observed in the middle of it is old at once.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// First wait before connecting again ...
const BACKOFF: Duration = Duration::from_millis(250);
/// ... doubled up to this: an engine restart takes seconds, and nobody should wait longer for us than for it.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A stop signal explains an end for this long, or as long as the container's own stop timeout.
const REQUEST_HOLDS: u64 = 60;
/// Signals that ask a process to end, whatever the container's own stop signal is: INT, QUIT, KILL, TERM.
const ENDING: [u32; 4] = [2, 3, 9, 15];
/// What connects a container in its first seconds is its start.
const STARTS: u64 = 2;
/// The listener is gone.
struct Gone;

/// Why a connection is over.
enum Broken {
    Listener,
    Engine(RuntimeError),
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Listener
    }
}

impl From<RuntimeError> for Broken {
    fn from(error: RuntimeError) -> Self {
        Self::Engine(error)
    }
}

/// Watches until nobody listens.
pub(super) async fn watch(runtime: &ContainerRuntime, inputs: &mpsc::Sender<Input>) {
    let mut watcher = Watcher {
        runtime,
        inputs,
        marks: HashMap::new(),
        last: None,
        quiet_until: 0,
        worked: false,
        told: BTreeSet::new(),
    };
    let mut wait = BACKOFF;
    let mut told: Option<String> = None;
    loop {
        let connected = watcher.connection(&mut told).await;
        let error = match connected {
            Err(Broken::Listener) => return,
            Err(Broken::Engine(error)) => error,
        };
        runtime.engine.forget().await;
        if watcher.worked && told.is_none() {
            // It worked until now: one more attempt before anybody is alarmed.
            told = Some(String::new());
            tokio::time::sleep(BACKOFF).await;
            continue;
        }
        wait = if told.as_deref().is_none_or(str::is_empty) { BACKOFF } else { (wait * 2).min(BACKOFF_MAX) };
        if told.as_deref() != Some(error.message.as_str()) {
            told = Some(error.message.clone());
            let state = EngineState::Unreachable { why: error.message };
            if watcher.send(Input::Engine(state)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = inputs.closed() => return,
        }
    }
}

struct Watcher<'a> {
    runtime: &'a ContainerRuntime,
    inputs: &'a mpsc::Sender<Input>,
    /// What preceded a container's end.
    marks: HashMap<String, Marks>,
    /// Engine time of the last event, in nanoseconds.
    last: Option<i64>,
    /// Ends before this engine time are known from the look.
    quiet_until: i64,
    /// There was a connection before.
    worked: bool,
    /// Override files that could not be taken back, and why.
    told: BTreeSet<(ServiceName, String)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    oom: bool,
    /// Engine time of the last signal that asked it to end, in nanoseconds.
    asked: Option<i64>,
}

impl Watcher<'_> {
    /// One connection, from its greeting to its end.
    async fn connection(&mut self, told: &mut Option<String>) -> Result<std::convert::Infallible, Broken> {
        let engine = &self.runtime.engine;
        let began = self.engine_time().await?;
        let same = self.is_same_process().await?;
        let restarted = self.worked && !same;
        self.send(Input::Engine(EngineState::Reachable { restarted })).await?;
        *told = None;
        if !self.worked && engine.is_podman().await? {
            tracing::warn!("{}", podman::LIMITS);
        }
        let mut look = self.runtime.survey(None).await?;
        look.after_gap = !same;
        self.send(Input::Looked(look)).await?;
        let since = match self.last.filter(|_| same) {
            Some(last) => last + 1,
            None => {
                // What ended while we looked was seen by the look.
                self.quiet_until = self.engine_time().await?;
                self.marks.clear();
                began
            }
        };
        self.worked = true;
        // What connects a container to a network is none of its own events.
        let kinds: &[&str] =
            if engine.is_podman().await? { &["container"] } else { &["container", "network"] };
        let events = engine.events(kinds, &seconds(since)).await?;
        self.follow(std::pin::pin!(events)).await
    }

    async fn follow(
        &mut self,
        mut events: std::pin::Pin<&mut impl Stream<Item = Result<EventMessage, RuntimeError>>>,
    ) -> Result<std::convert::Infallible, Broken> {
        let mut looks = tokio::time::interval(self.runtime.look_interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        looks.reset();
        let mut changed: BTreeSet<ServiceName> = BTreeSet::new();
        let mut settled = std::pin::pin!(tokio::time::sleep(DEBOUNCE));
        loop {
            tokio::select! {
                event = events.next() => {
                    let event = event.ok_or_else(|| self.broke_off())??;
                    if let Some(service) = self.heard(&event).await? {
                        if changed.is_empty() {
                            settled.set(tokio::time::sleep(DEBOUNCE));
                        }
                        changed.insert(service);
                    }
                }
                () = &mut settled, if !changed.is_empty() => {
                    for service in std::mem::take(&mut changed) {
                        self.observe(&service).await?;
                    }
                }
                _ = looks.tick() => {
                    let look = self.runtime.survey(None).await?;
                    self.send(Input::Looked(look)).await?;
                    self.withdraw().await?;
                }
                () = self.inputs.closed() => return Err(Broken::Listener),
            }
        }
    }

    /// Whoever wrote a fix into a project's files is not to be kept from it by an override file of ours.
    async fn withdraw(&mut self) -> Result<(), Gone> {
        let composed = self.runtime.known().composed.clone();
        let look = move || {
            let taken = composed.into_iter().map(|(service, project)| (service, compose::withdraw(&project)));
            taken.filter_map(|(service, taken)| Some((service, taken?))).collect::<Vec<_>>()
        };
        for (service, result) in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
            // What cannot be done is said once.
            if result.is_ok() || self.told.insert((service.clone(), format!("{result:?}"))) {
                self.send(Input::Unpinned { request: None, service, result }).await?;
            }
        }
        Ok(())
    }

    /// Takes in one event; returns the service to observe.
    async fn heard(&mut self, event: &EventMessage) -> Result<Option<ServiceName>, Broken> {
        let Some(actor) = event.actor.as_ref() else { return Ok(None) };
        let (Some(id), Some(action)) = (actor.id.as_deref(), event.action.as_deref()) else {
            return Ok(None);
        };
        if event.typ == Some(EventMessageTypeEnum::NETWORK) {
            let container = actor.attributes.as_ref().and_then(|all| all.get("container"));
            if let Some(container) = container.filter(|_| matches!(action, "connect" | "disconnect"))
                && self.runs_already(container, event.time_nano).await?
            {
                self.respecified(container).await?;
            }
            return Ok(None);
        }
        let at = event.time_nano.unwrap_or_default();
        self.last = Some(self.last.unwrap_or_default().max(at));
        // Health checks run by `exec` all the time: most events are theirs.
        if action.starts_with("exec_") || action == "top" {
            return Ok(None);
        }
        let attributes: Labels = actor.attributes.clone().unwrap_or_default().into_iter().collect();
        let Some(service) = self.service_of(id, &attributes) else { return Ok(None) };
        let marks = self.marks.entry(id.to_owned()).or_default();
        match action {
            "start" => *marks = Marks::default(),
            "oom" => marks.oom = true,
            "kill" => {
                let signal = attributes.get("signal").and_then(|s| s.parse().ok());
                let own = self.seen(id).and_then(|seen| seen.stop_signal);
                // Podman does not say which signal it was.
                if signal.is_none_or(|s| ENDING.contains(&s) || own == Some(s)) {
                    self.marks.entry(id.to_owned()).or_default().asked = Some(at);
                }
                return Ok(None);
            }
            "die" => self.died(id, &service, at, &attributes).await?,
            // "remove" is Podman's word.
            "create" | "destroy" | "remove" | "rename" | "update" | "pause" | "unpause" | "stop" => {}
            _ if action.starts_with("health_status") => {}
            _ => return Ok(None),
        }
        if matches!(action, "rename" | "update") {
            self.respecified(id).await?;
        }
        if matches!(action, "destroy" | "remove") {
            self.marks.remove(id);
            self.runtime.known().containers.remove(id);
        }
        Ok(Some(service))
    }

    /// Whether a container had been running for a while by then: one that starts or ends is connected and disconnected as well.
    async fn runs_already(&self, id: &str, at: Option<i64>) -> Result<bool, Broken> {
        if self.seen(id).is_none() {
            return Ok(false);
        }
        let Some(inspect) = verbs::inspect(&self.runtime.engine, id).await? else { return Ok(false) };
        let started =
            inspect["State"]["StartedAt"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let since = started.map_or(i128::MAX, jiff::Timestamp::as_nanosecond);
        let at = i128::from(at.unwrap_or_default());
        Ok(inspect["State"]["Status"] == "running" && at.saturating_sub(since) > i128::from(nanos(STARTS)))
    }

    /// One of ours that is moved about by a rollback is no news.
    async fn respecified(&self, id: &str) -> Result<(), Gone> {
        match self.seen(id) {
            Some(Seen { service, .. }) if !self.runtime.ours.has(id) => {
                self.send(Input::Respecified { service }).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn died(
        &mut self,
        id: &str,
        service: &ServiceName,
        at: i64,
        attributes: &Labels,
    ) -> Result<(), Broken> {
        let marks = self.marks.remove(id).unwrap_or_default();
        if self.marks.len() > KNOWN_MAX {
            self.marks.clear();
        }
        if at <= self.quiet_until {
            return Ok(());
        }
        let code: i64 = attributes.get("exitCode").and_then(|c| c.parse().ok()).unwrap_or_default();
        let holds = self.seen(id).and_then(|seen| seen.stop_timeout).unwrap_or_default().max(REQUEST_HOLDS);
        let asked = marks.asked.is_some_and(|asked| at.saturating_sub(asked) <= nanos(holds));
        let requested = asked || self.runtime.ours.has(id);
        let oom = marks.oom
            || (!requested && code == KILLED && verbs::was_out_of_memory(&self.runtime.engine, id).await?);
        let (service, replica) = (service.clone(), ReplicaId::new(id));
        self.send(Input::Exited { service, replica, code, oom, requested }).await?;
        Ok(())
    }

    async fn observe(&self, service: &ServiceName) -> Result<(), Broken> {
        let look = self.runtime.survey(Some(service)).await?;
        if !look.refused.is_empty() {
            // Refusals are part of a full look only.
            let look = self.runtime.survey(None).await?;
            self.send(Input::Looked(look)).await?;
            return Ok(());
        }
        let observed = look.services.into_iter().next();
        let observed = match observed {
            Some(observed) => observed,
            None => match crate::runtime::Runtime::observe(self.runtime, service).await {
                Ok(nothing) => nothing,
                Err(error) if error.class == ErrorClass::Transient => return Err(error.into()),
                Err(_) => return Ok(()),
            },
        };
        self.send(Input::Observed(observed)).await?;
        Ok(())
    }

    /// The service of an event's container: remembered, else from the labels that come with the event.
    fn service_of(&self, id: &str, attributes: &Labels) -> Option<ServiceName> {
        if let Some(seen) = self.seen(id) {
            return Some(seen.service);
        }
        let name = attributes.get("name").map(String::as_str).unwrap_or_default();
        let listed = serde_json::json!({"Id": id, "Names": [name]});
        if observe::is_temporary(name)
            || self.runtime.ourselves.is(&listed, attributes)
            || self.runtime.is_of_a_watched_swarm(attributes)
        {
            return None;
        }
        let service = enrol::service(name, attributes).unwrap_or_else(|(service, _)| service);
        self.runtime.enrolment.enrolled(&service, attributes).then_some(service)
    }

    fn seen(&self, id: &str) -> Option<Seen> {
        self.runtime.known().containers.get(id).cloned()
    }

    /// Whether the engine still remembers the last event that was seen.
    async fn is_same_process(&self) -> Result<bool, Broken> {
        let Some(last) = self.last else { return Ok(false) };
        Ok(self.runtime.engine.has_event(&seconds(last)).await?)
    }

    async fn engine_time(&self) -> Result<i64, Broken> {
        let info = self.runtime.engine.json("/info").await?;
        let time: jiff::Timestamp = info["SystemTime"]
            .as_str()
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| permanent("GET /info answered without SystemTime".to_owned()))?;
        Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
    }

    fn broke_off(&self) -> RuntimeError {
        RuntimeError {
            class: ErrorClass::Transient,
            message: format!("the engine at {} ended the event stream", self.runtime.engine.host()),
        }
    }

    async fn send(&self, input: Input) -> Result<(), Gone> {
        self.inputs.send(input).await.map_err(|_| Gone)
    }
}

/// Engine time as `since` takes it: `seconds.nanoseconds`.
fn seconds(nanos: i64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn nanos(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
}
