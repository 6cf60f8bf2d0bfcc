//! Bridges: each part says what it needs in words of its own; here one part's answer is put into the other's words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Order;
use super::evidence;
use crate::api::{History, JournalLine, NotTaken, Operate, Paperwork, PlannedRollback, Tokens};
use crate::config::{ApiSettings, Settings};
use crate::core::approval::Approval;
use crate::core::decision::{Decision, Gate};
use crate::core::io::RollbackRequest;
use crate::core::ledger::{RollbackRecord, pick};
use crate::core::release::{Release, ReleaseId, ReplicaId, RollbackId, ServiceName};
use crate::core::sample::{Measurement, Signal};
use crate::core::settings::{HealthCheck, Hook, Mode, ServiceSettings, WindowKind};
use crate::core::snapshot::{FleetSnapshot, ServiceSnapshot};
use crate::core::state::State;
use crate::core::{Command, Input, Timestamp};
use crate::hooks::{image_of, looks_runnable};
use crate::notify::{NotifierHandle, Outlook};
use crate::report::checklist::{Point, Tick, Ticket};
use crate::report::{self, Incident, Reached, Told};
use crate::rollback::drill::{self, Drill, Readiness};
use crate::rollback::hooks::foreseen;
use crate::rollback::{Executor, JournalEvent, SagaStore};
use crate::runtime::engine::Engine;
use crate::runtime::engines::Whereabouts;
use crate::runtime::logs::EngineLogs;
use crate::runtime::swarm::places::{Place, Places};
use crate::runtime::{Check, Checks, Enrolment, Snapshot};
use crate::signal::Probe;
use crate::signal::check::{CheckProbe, CheckTools, CommandRunner, Ran};
use crate::signal::logs::{EngineTime, Following, LogStreams, Unfollowed};
use crate::signal::stats::{MemoryUse, Stats, StatsSource, Throttling};
use crate::store::{Announced, DeliveryState, Store, Ticked, TicketState};

/// Said wherever the store is needed and could not be opened.
const NOT_OPEN: &str = "the store could not be opened; next: backstop status";

/// The store in the words of API and executor; none while it cannot be opened.
#[derive(Debug, Clone)]
pub(super) struct Records(pub(super) Option<Store>);

impl Records {
    fn store(&self) -> Result<&Store, String> {
        self.0.as_ref().ok_or_else(|| NOT_OPEN.to_owned())
    }
}

#[async_trait]
impl SagaStore for Records {
    async fn append(&self, rollback: &RollbackId, event: &JournalEvent) -> Result<(), String> {
        let value = serde_json::to_value(event).map_err(|e| e.to_string())?;
        self.store()?.append_journal(rollback, &value, event.closes()).await.map_err(|e| e.to_string())
    }

    async fn unfinished(&self) -> Result<Vec<(RollbackId, Vec<Value>)>, String> {
        match &self.0 {
            Some(store) => store.unfinished_journals().await.map_err(|e| e.to_string()),
            // Nothing is acted on without a store, so there is nothing to recover.
            None => Ok(Vec::new()),
        }
    }

    async fn snapshots(&self, service: &ServiceName, release: &ReleaseId) -> Result<Vec<Snapshot>, String> {
        self.store()?.snapshots(service, release).await.map_err(|e| e.to_string())
    }
}

impl Records {
    /// What no line of a report may show: what either release has in its environment. Most of it is the same in both, and
    /// what is new or was changed in the bad one may be what it complained of.
    async fn secrets(&self, record: &RollbackRecord, bad: &Value) -> Result<Vec<String>, String> {
        let mut secrets: Vec<String> = serde_json::from_value(bad.clone()).unwrap_or_default();
        let releases = [Some(&record.to), record.from.as_ref()];
        for release in releases.into_iter().flatten() {
            let known = self.store()?.snapshots(&record.service, &release.id).await;
            let known = known.map_err(|e| e.to_string())?;
            secrets.extend(known.iter().flat_map(|known| report::redact::values(&known.inspect)));
        }
        // The longest first: one may be the beginning of another.
        secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
        secrets.dedup();
        Ok(secrets)
    }
}

#[async_trait]
impl History for Records {
    async fn rollbacks(
        &self,
        service: Option<&ServiceName>,
        before: Option<&RollbackId>,
        limit: u32,
    ) -> Result<Vec<RollbackRecord>, String> {
        self.store()?.rollbacks(service, before, limit).await.map_err(|e| e.to_string())
    }

    async fn rollback(&self, id: &RollbackId) -> Result<Option<RollbackRecord>, String> {
        self.store()?.rollback(id).await.map_err(|e| e.to_string())
    }

    async fn journal(&self, id: &RollbackId) -> Result<Vec<JournalLine>, String> {
        let lines = self.store()?.journal(id).await.map_err(|e| e.to_string())?;
        let events: Vec<Value> = lines.iter().map(|(_, event)| event.clone()).collect();
        let told = crate::rollback::journal::tell(&events);
        Ok(lines.into_iter().zip(told).map(|((at, _), what)| JournalLine { at, what }).collect())
    }

    async fn incident(&self, id: &RollbackId) -> Result<Option<Incident>, String> {
        let store = self.store()?;
        let wrong = |e: crate::store::StoreError| e.to_string();
        let Some(record) = store.rollback(id).await.map_err(wrong)? else { return Ok(None) };
        let mut kept = BTreeMap::from_iter(store.evidence(id).await.map_err(wrong)?);
        let mut part = |name: &str| kept.remove(name).unwrap_or(Value::Null);
        let told = store.announced(id).await.map_err(wrong)?.into_iter().map(told);
        let lines = store.journal(id).await.map_err(wrong)?;
        let events: Vec<Value> = lines.iter().map(|(_, event)| event.clone()).collect();
        let words = crate::rollback::journal::tell(&events).into_iter();
        let secrets = self.secrets(&record, &part(evidence::SECRETS)).await?;
        // What a hook printed is in the journal's words.
        let hidden = |line: String| report::redact::line(&line, &secrets);
        // What is of no use any more, or was written by another version, is missing and no error.
        Ok(Some(report::incident(report::Sources {
            record,
            journal: lines.into_iter().map(|(at, _)| at).zip(words.map(hidden)).collect(),
            smoke: report::smoke_of(&events),
            log: report::log_of(&events, &secrets),
            told: told.collect(),
            scene: serde_json::from_value(part(evidence::SCENE)).ok(),
            after: serde_json::from_value(part(evidence::AFTER)).unwrap_or_default(),
            releases: serde_json::from_value(part(evidence::RELEASES)).ok(),
            ticks: store.ticks(id).await.map_err(wrong)?.into_iter().filter_map(tick).collect(),
            ticket: store.ticket(id).await.map_err(wrong)?.map(ticket),
        })))
    }

    async fn decisions(&self, service: &ServiceName, limit: u32) -> Result<Vec<Decision>, String> {
        self.store()?.decisions(Some(service), limit).await.map_err(|e| e.to_string())
    }

    async fn drills(&self) -> Result<Vec<Drill>, String> {
        self.store()?.drills().await.map_err(|e| e.to_string())
    }
}

#[async_trait]
impl Paperwork for Records {
    async fn tick(&self, id: &RollbackId, point: Point, tick: Tick) -> Result<(), String> {
        let Tick { at, by, note } = tick;
        let ticked = Ticked { item: point.name().to_owned(), at, by, note };
        match self.store()?.tick(id, &ticked).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{point} has so many notes already that no more are kept")),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn untick(&self, id: &RollbackId, point: Point, by: &str, now: Timestamp) -> Result<(), String> {
        let undone = self.store()?.untick(id, point.name(), by, now).await;
        undone.map(drop).map_err(|e| e.to_string())
    }

    async fn drilled(&self, drill: &Drill) -> Result<(), String> {
        self.store()?.keep_drill(drill).await.map_err(|e| e.to_string())
    }
}

/// A tick in the words of the report; none of an item that only another version knows.
fn tick(Ticked { item, at, by, note }: Ticked) -> Option<(Point, Tick)> {
    Some((Point::named(&item)?, Tick { at, by, note }))
}

/// What became of an announcement in the words of the report.
fn told(a: Announced) -> Told {
    let channels = a.deliveries.into_iter().map(|d| Reached {
        by: d.medium(),
        channel: d.channel,
        delivered: match d.state {
            DeliveryState::Delivered(at) => Some(at),
            DeliveryState::Waiting | DeliveryState::Abandoned(_) => None,
        },
        given_up: matches!(d.state, DeliveryState::Abandoned(_)),
        attempts: d.attempts,
        error: d.last_error,
    });
    let channels: Vec<Reached> = channels.collect();
    let delivered = channels.iter().filter_map(|one| one.delivered).min();
    Told { at: a.at, kind: a.kind, title: a.title, delivered, routed: a.routed, channels }
}

/// A ticket in the words of the report.
fn ticket(state: TicketState) -> Ticket {
    Ticket { url: state.url, attempts: state.attempts, error: state.last_error }
}

/// Operators in the words of the core.
#[derive(Debug)]
pub(super) struct Operators {
    orders: mpsc::Sender<Order>,
    /// Where samples go: the same queue as the probes'.
    inputs: mpsc::Sender<Input>,
    executor: Executor,
    settings: watch::Receiver<Arc<Settings>>,
    snapshot: watch::Receiver<Arc<FleetSnapshot>>,
    notifier: NotifierHandle,
}

impl Operators {
    pub(super) fn new(
        orders: mpsc::Sender<Order>,
        inputs: &mpsc::Sender<Input>,
        executor: &Executor,
        published: &watch::Sender<Arc<FleetSnapshot>>,
        settings: watch::Receiver<Arc<Settings>>,
        notifier: &NotifierHandle,
    ) -> Self {
        let (inputs, executor, snapshot) = (inputs.clone(), executor.clone(), published.subscribe());
        Self { orders, inputs, executor, settings, snapshot, notifier: notifier.clone() }
    }

    /// Whether the service's hooks could be begun, if it has any; they are not run.
    async fn hooks(&self, seen: &ServiceSnapshot) -> Option<drill::Point> {
        let migrations = &seen.settings.migrations;
        let all: Vec<&Hook> =
            seen.settings.hooks.iter().chain(&migrations.backup).chain(&migrations.downgrade).collect();
        let request = target(seen, None).ok().map(|to| self.request(seen, to));
        let mut missing = Vec::new();
        for hook in &all {
            let request = request.as_ref();
            let values = request.map_or_else(Vec::new, |r| foreseen(r, seen.current.as_ref(), hook));
            missing.extend(looks_runnable(hook, &values).await.err());
            if let Some(image) = image_of(hook, &values) {
                let there = self.executor.has_image(&seen.name, &image).await;
                missing
                    .extend(there.err().map(|why| format!("{} ({}): {why}", hook.name, hook.phase.name())));
            }
        }
        let names = || all.iter().map(|hook| hook.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = if missing.is_empty() {
            Ok(format!("what they need is there; they were not run: {}", names()))
        } else {
            Err(missing.join("; "))
        };
        (!all.is_empty()).then(|| drill::Point::of("the hooks", found))
    }

    /// A rollback that is not decided.
    fn request(&self, seen: &ServiceSnapshot, to: Release) -> RollbackRequest {
        let downgrade = seen.downgrade.clone().filter(|_| seen.target.as_ref() == Some(&to));
        RollbackRequest {
            id: RollbackId::new("preview"),
            service: seen.name.clone(),
            from: seen.current.as_ref().map(|c| c.id.clone()),
            to,
            stop_grace: seen.settings.stop_grace,
            decided: None,
            vanished: seen.replicas.is_empty(),
            why: String::new(),
            downgrade,
            mitigation: false,
        }
    }
}

#[async_trait]
impl Operate for Operators {
    async fn command(&self, command: Command, by: String) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let stopping = |_| "the daemon is stopping; ask again when it runs".to_owned();
        self.orders.send(Order { command, by, answer }).await.map_err(|e| stopping(e.to_string()))?;
        answered.await.map_err(|e| stopping(e.to_string()))?
    }

    async fn plan(&self, service: &ServiceName, to: Option<&str>) -> Result<PlannedRollback, String> {
        let fleet = self.snapshot.borrow().clone();
        let seen = fleet.services.iter().find(|s| s.name == *service);
        let seen = seen.ok_or_else(|| format!("no service {service} is watched; next: backstop status"))?;
        let request = self.request(seen, target(seen, to)?);
        // A plan changes nothing, so it is shown even where a rollback would be refused; but that is said.
        let denied = seen.gates.iter().find(|answer| answer.gate == Gate::Migrations && !answer.allow);
        let schema = denied.filter(|_| seen.target.as_ref() == Some(&request.to));
        let schema = schema.map(|answer| format!("{}: it takes --accept-schema", answer.why));
        let plan = self.executor.preview(&request).await.map_err(|e| e.to_string())?;
        Ok(PlannedRollback {
            from: seen.current.clone(),
            to: request.to,
            steps: plan.steps.iter().map(ToString::to_string).collect(),
            notes: plan.notes.iter().cloned().chain(schema).collect(),
            order: plan.order.clone(),
        })
    }

    async fn drill(&self, service: &ServiceName) -> Result<Drill, String> {
        let fleet = self.snapshot.borrow().clone();
        let seen = fleet.services.iter().find(|s| s.name == *service);
        let seen = seen.ok_or_else(|| format!("no service {service} is watched; next: backstop status"))?;
        if seen.state.in_flight() {
            return Err(format!("a rollback of {service} is in flight; next: backstop explain {service}"));
        }
        let mut points = standing(seen, &fleet, !self.settings.borrow().notify.plan.channels.is_empty());
        let target = target(seen, None);
        points.push(drill::Point::of("the target", target.clone().map(|to| format!("{to} is known-good"))));
        let mut estimate = None;
        if let Ok(to) = target {
            let request = RollbackRequest {
                id: RollbackId::new(format!("drill-{}", fleet.at.as_millis())),
                ..self.request(seen, to)
            };
            let (found, takes) = self.executor.rehearse(&request).await;
            points.extend(found);
            estimate = takes;
        }
        points.extend(in_the_way(seen, fleet.at));
        points.extend(self.hooks(seen).await);
        Ok(Drill { service: service.clone(), at: fleet.at, points, estimate })
    }

    async fn acknowledge(&self, service: &ServiceName, by: String, why: String) -> Result<String, String> {
        self.notifier.acknowledge(service, by, why).await
    }

    fn sampled(&self, samples: Vec<Input>) -> Result<(), NotTaken> {
        hand_over(&self.inputs, samples)
    }
}

/// What else a rollback would be held up by, as `explain` says it: the schema, the group, a window that is open.
fn in_the_way(seen: &ServiceSnapshot, now: Timestamp) -> Vec<drill::Point> {
    let migrates = seen.settings.migrations.downgrade.is_some() || seen.settings.migrations.query.is_some();
    let gate = |gate: Gate, what: &str, always: bool| {
        let answer = seen.gates.iter().find(|answer| answer.gate == gate)?;
        let said = if answer.allow { Ok(answer.why.clone()) } else { Err(answer.why.clone()) };
        // Without a target there is nothing to go with it.
        (seen.target.is_some() && (always || !answer.allow)).then(|| drill::Point::of(what, said))
    };
    let window = seen.window.as_ref().filter(|window| window.until > now).map(|window| {
        let (verdict, meaning) = match window.kind {
            WindowKind::Maintenance => (Readiness::Missing, "nothing is judged until it is over"),
            WindowKind::Freeze => (Readiness::Weak, "nothing is rolled back unless somebody says yes"),
        };
        drill::Point::new("the window", verdict, format!("it is in {window}: {meaning}"))
    });
    let gates = [gate(Gate::Migrations, "the schema", migrates), gate(Gate::Group, "the group", false)];
    gates.into_iter().flatten().chain(window).collect()
}

/// What of the daemon's own state a rollback depends on.
fn standing(service: &ServiceSnapshot, fleet: &FleetSnapshot, notified: bool) -> Vec<drill::Point> {
    let store = fleet.store_error.clone().map_or_else(|| Ok("it takes writes".into()), Err);
    let mode = match service.settings.mode {
        Mode::Act => drill::Point::new("the mode", Readiness::Ready, "decisions are carried out"),
        Mode::DryRun => drill::Point::new(
            "the mode",
            Readiness::Missing,
            "dry-run: decisions are announced only (`mode`)",
        ),
    };
    let paused = service.flags.paused.as_ref().or(fleet.flags.paused.as_ref());
    let stuck = service.flags.stuck.as_ref().or(fleet.flags.stuck.as_ref());
    let free = match (paused, stuck) {
        (Some(pause), _) => Err(format!("it is {pause}; next: backstop resume {}", service.name)),
        (None, Some(why)) => {
            Err(format!("a person is needed first: {why}; next: backstop resume {}", service.name))
        }
        (None, None) => Ok("neither paused nor stuck".to_owned()),
    };
    let proved = service.settings.checks.values().any(|check| check.required)
        || service.replicas.iter().any(|replica| replica.health.is_some());
    let proof = if proved {
        drill::Point::new("the proof", Readiness::Ready, "a health check vouches for what is put back")
    } else {
        let detail =
            "no required check and no HEALTHCHECK: that it runs is all that would prove it (`health`)";
        drill::Point::new("the proof", Readiness::Weak, detail)
    };
    let heard = if notified {
        drill::Point::new(
            "announcements",
            Readiness::Ready,
            "a channel is configured; to try it: backstop notify test",
        )
    } else {
        drill::Point::new(
            "announcements",
            Readiness::Missing,
            "no channel is configured: nobody would hear of it (`notify`)",
        )
    };
    vec![drill::Point::of("the store", store), mode, drill::Point::of("free to act", free), proof, heard]
}

/// Puts samples into the core's queue, all or none, without waiting.
fn hand_over(inputs: &mpsc::Sender<Input>, samples: Vec<Input>) -> Result<(), NotTaken> {
    if inputs.is_closed() {
        return Err(NotTaken::Stopping);
    }
    // Half of the room is for our own probes and the engine: nobody who sends us alerts makes us blind.
    if inputs.capacity() < inputs.max_capacity() / 2 + samples.len() {
        return Err(NotTaken::Full);
    }
    let room = inputs.try_reserve_many(samples.len()).map_err(|e| match e {
        TrySendError::Full(()) => NotTaken::Full,
        TrySendError::Closed(()) => NotTaken::Stopping,
    })?;
    room.zip(samples).for_each(|(place, sample)| place.send(sample));
    Ok(())
}

/// The picture in the words of the notifier: when a service was seen to be well, or the fleet to act by itself.
pub(super) fn outlook(published: watch::Receiver<Arc<FleetSnapshot>>) -> Outlook {
    Outlook(Arc::new(move |subject| {
        let fleet = published.borrow();
        let well = if subject.is_empty() {
            fleet.flags.stuck.is_none()
        } else {
            let service = fleet.services.iter().find(|service| service.name.as_str() == subject);
            let refused = fleet.refused.iter().any(|refusal| refusal.service.as_str() == subject);
            // One that is gone is nobody's matter any more; before the first look, nobody knows which those are.
            !refused
                && fleet.looked
                && service.is_none_or(|service| match service.state {
                    State::Trial | State::Steady | State::CoolingDown => {
                        // What is asked of people is not over before they answered.
                        !service.flags.approval.as_deref().is_some_and(Approval::is_open)
                    }
                    State::Suspect
                    | State::AwaitingApproval
                    | State::RollingBack
                    | State::Verifying
                    | State::Blind
                    | State::Paused
                    | State::Stuck => false,
                })
        };
        well.then_some(fleet.at)
    }))
}

/// The tokens in the words of the API.
pub(super) fn tokens(settings: &Settings) -> Tokens {
    // Field by field: a token that is added must not be forgotten here.
    let ApiSettings { listen: _, public_url: _, token, people, hook_token } = &settings.api;
    Tokens { operators: token.clone(), people: people.clone(), hooks: hook_token.clone() }
}

/// The release that would be gone back to: the one named, if it is eligible, or the one that would be chosen.
fn target(service: &ServiceSnapshot, to: Option<&str>) -> Result<Release, String> {
    let name = &service.name;
    match to {
        Some(wanted) => pick(name, &service.ledger, service.current.as_ref().map(|c| &c.id), wanted).cloned(),
        None => service.target.clone().ok_or_else(|| {
            format!("{name} has no other known-good release to go back to; next: backstop explain {name}")
        }),
    }
}

/// The configuration in the words of the runtime; follows reloads.
#[derive(Debug)]
pub(super) struct Enrolled(pub(super) watch::Receiver<Arc<Settings>>);

impl Enrolment for Enrolled {
    fn enrolled(&self, service: &ServiceName, labels: &BTreeMap<String, String>) -> bool {
        self.0.borrow().enrolled(service, labels)
    }

    fn settings(
        &self,
        service: &ServiceName,
        labels: &BTreeMap<String, String>,
    ) -> Result<ServiceSettings, Vec<String>> {
        self.0.borrow().service(service, labels)
    }
}

/// The engine in the words of the probes.
#[derive(Debug)]
pub(super) struct EngineProbed {
    pub(super) engine: Arc<Engine>,
    /// Which replicas are tasks of a Swarm, and where.
    pub(super) places: Arc<Places>,
}

impl EngineProbed {
    /// The container of a replica on this engine.
    fn container(&self, replica: &ReplicaId) -> Result<String, String> {
        match self.places.of(replica.as_str()) {
            Place::Container(id) => Ok(id),
            Place::Elsewhere { why, .. } => Err(why),
        }
    }
}

#[async_trait]
impl StatsSource for EngineProbed {
    async fn stats(&self, replica: &ReplicaId) -> Result<Stats, String> {
        let container = self.container(replica)?;
        let usage = self.engine.usage(&container).await.map_err(|e| e.to_string())?;
        let memory = usage.memory;
        Ok(Stats {
            memory: MemoryUse { used: memory.used, limit: memory.limit, limited: memory.limited },
            throttling: usage.periods.map(|(periods, throttled)| Throttling { periods, throttled }),
        })
    }
}

#[async_trait]
impl CommandRunner for EngineProbed {
    async fn prepare(&self, replica: &ReplicaId, command: &[String]) -> Result<String, String> {
        let container = self.container(replica)?;
        self.engine.prepare_exec(&container, command).await.map_err(|e| e.to_string())
    }

    async fn run(&self, id: &str) -> Result<Ran, String> {
        let ended = self.engine.run_exec(id).await.map_err(|e| e.to_string())?;
        Ok(Ran { code: ended.code, output: ended.output })
    }

    async fn runs(&self, id: &str) -> Result<bool, String> {
        self.engine.exec_runs(id).await.map_err(|e| e.to_string())
    }
}

impl Checks for CheckTools {
    fn of(&self, check: &HealthCheck, replica: &ReplicaId, address: Option<IpAddr>) -> Box<dyn Check> {
        Box::new(CheckProbe::new(self, Signal::Health, check, Some((replica, address))))
    }
}

#[async_trait]
impl Check for CheckProbe {
    async fn passes(&self) -> Option<bool> {
        self.measure().await.into_iter().find_map(|(_, measured)| match measured {
            Measurement::Check { ok, .. } => Some(ok),
            _ => None,
        })
    }
}

/// All engines in the words of the probes: each replica is asked for on its own.
#[derive(Debug)]
pub(super) struct AllProbed {
    engines: BTreeMap<String, (EngineProbed, EngineLogs)>,
    whereabouts: Arc<Whereabouts>,
}

impl AllProbed {
    pub(super) fn new(
        engines: impl Iterator<Item = (String, (EngineProbed, EngineLogs))>,
        whereabouts: Arc<Whereabouts>,
    ) -> Self {
        Self { engines: engines.collect(), whereabouts }
    }

    fn of(&self, replica: &ReplicaId) -> Result<&(EngineProbed, EngineLogs), String> {
        self.on(&self.whereabouts.of(replica))
    }

    fn on(&self, engine: &str) -> Result<&(EngineProbed, EngineLogs), String> {
        self.engines.get(engine).ok_or_else(|| format!("no engine is called {engine}"))
    }

    /// What an execution is called among those of all engines, taken apart.
    fn execution<'a>(&self, id: &'a str) -> Result<(&EngineProbed, &'a str), String> {
        let (engine, id) = id.split_once('/').unwrap_or(("", id));
        Ok((&self.on(engine)?.0, id))
    }
}

#[async_trait]
impl StatsSource for AllProbed {
    async fn stats(&self, replica: &ReplicaId) -> Result<Stats, String> {
        self.of(replica)?.0.stats(replica).await
    }
}

#[async_trait]
impl CommandRunner for AllProbed {
    async fn prepare(&self, replica: &ReplicaId, command: &[String]) -> Result<String, String> {
        let engine = self.whereabouts.of(replica);
        Ok(format!("{engine}/{}", self.on(&engine)?.0.prepare(replica, command).await?))
    }

    async fn run(&self, id: &str) -> Result<Ran, String> {
        let (engine, id) = self.execution(id)?;
        engine.run(id).await
    }

    async fn runs(&self, id: &str) -> Result<bool, String> {
        let (engine, id) = self.execution(id)?;
        engine.runs(id).await
    }
}

#[async_trait]
impl LogStreams for AllProbed {
    async fn follow(&self, replica: &ReplicaId, since: Option<EngineTime>) -> Result<Following, Unfollowed> {
        self.of(replica).map_err(Unfollowed::NotNow)?.1.follow(replica, since).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_from_outside_are_taken_whole_and_leave_room_for_our_own() {
        let (inputs, mut inbox) = mpsc::channel(8);
        let samples = |n| (0..n).map(|_| Input::Tick).collect::<Vec<_>>();
        assert_eq!(hand_over(&inputs, samples(5)), Err(NotTaken::Full), "none, because not all");
        assert_eq!(hand_over(&inputs, samples(3)), Ok(()));
        assert_eq!(inbox.len(), 3);
        assert_eq!(hand_over(&inputs, samples(2)), Err(NotTaken::Full));
        assert_eq!(hand_over(&inputs, samples(1)), Ok(()));
        assert_eq!(hand_over(&inputs, samples(1)), Err(NotTaken::Full));
        assert_eq!(inputs.capacity(), 4);
        inbox.try_recv().unwrap();
        assert_eq!(hand_over(&inputs, samples(1)), Ok(()), "there is room again");
        drop(inbox);
        assert_eq!(hand_over(&inputs, samples(1)), Err(NotTaken::Stopping));
    }
}
