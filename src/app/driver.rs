//! The driver: owns the core, hands it inputs one at a time, and sees to it that its effects are carried out.
//!
//! It decides nothing. What must be durable is written before anything that depends on it is begun; if that fails,
//! nothing is done to any service, and watching and announcing go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::evidence::{Keeper, Place};
use super::hands::{Hands, Job};
use super::succession::Words;
use crate::api::Links;
use crate::clock::Clock;
use crate::config::Settings;
use crate::core::announcement::{Announcement, AnnouncementKind};
use crate::core::ledger::LedgerChange;
use crate::core::observation::{Phase, Refusal};
use crate::core::plan::Pin;
use crate::core::release::{Release, ReleaseId, ServiceName};
use crate::core::settings::SchemaQuery;
use crate::core::snapshot::{FleetSnapshot, State};
use crate::core::{Command, Effect, EngineState, Executed, Fleet, Input, RollbackRequest, Timestamp};
use crate::flight::Recorder;
use crate::metrics::Metrics;
use crate::notify::NotifierHandle;
use crate::rollback::mitigation::Errand;
use crate::runtime::{ErrorClass, Runtime, RuntimeError};
use crate::signal::scheduler::Scheduler;
use crate::store::Store;
use crate::systemd::Systemd;

/// Changes kept while the store does not take them; more than that many are lost, and that is logged.
const UNSAVED_MAX: usize = 1024;
/// How often a store that failed is tried again.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// The picture is published at once when something was done, and else not more often than this: at a thousand
/// services, a picture a sample would cost more than the judging.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
/// A look that fails is repeated this often; after that the periodic look has to do.
const LOOK_TRIES: u32 = 5;
/// Targets that are checked or fetched at a time: enough that a slow registry does not hold up the others, and few enough
/// that fetching leaves the line to the services.
pub(super) const CHECKS_AT_ONCE: usize = 4;
/// Pause between two tries of a look.
const LOOK_RETRY: Duration = Duration::from_millis(500);

/// An operator's command on its way to the core, with where the answer goes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) by: String,
    pub(super) answer: oneshot::Sender<Result<String, String>>,
}

/// Why the driver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The store can be opened now: start over with what it remembers.
    StoreIsBack,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) fleet: Fleet,
    /// Takes everything down that the core is told; none if that is switched off.
    pub(super) flight: Option<Recorder>,
    pub(super) clock: Clock,
    /// None while it cannot be opened.
    pub(super) store: Option<Store>,
    pub(super) state_dir: std::path::PathBuf,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) hands: Hands,
    pub(super) notifier: NotifierHandle,
    pub(super) metrics: Metrics,
    pub(super) systemd: Systemd,
    pub(super) scheduler: Scheduler,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) inbox: mpsc::Receiver<Input>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) published: watch::Sender<Arc<FleetSnapshot>>,
    pub(super) tasks: TaskTracker,
    /// Checks of targets that may go on at a time.
    pub(super) checks: Arc<Semaphore>,
    /// What makes links to answer questions, and where people reach them.
    pub(super) links: Option<Links>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) books: Books,
    /// Puts aside what incident reports are made of.
    pub(super) keeper: Keeper,
    /// Tells the next Backstop what people say to this one.
    pub(super) words: Words,
}

/// What the driver keeps in mind between two turns.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Who waits for the answer to which command.
    waiting: HashMap<u64, oneshot::Sender<Result<String, String>>>,
    requests: u64,
    /// Changes that the store did not take yet.
    unsaved: Vec<LedgerChange>,
    /// The store failed, and was last tried at this time.
    store_failed: Option<Timestamp>,
    last_published: Option<Timestamp>,
    /// Dropped samples that were counted already.
    dropped: u64,
    /// What was logged of the engine, of each service, and of those that are refused.
    engines: HashMap<String, String>,
    told: HashMap<ServiceName, (State, Option<ReleaseId>)>,
    refused: Vec<Refusal>,
}

impl Books {
    /// Empty books; `store_failed` if the store could not be opened.
    pub(super) fn new(store_failed: Option<Timestamp>) -> Self {
        Self { store_failed, ..Self::default() }
    }
}

impl Driver {
    /// Turns until told to stop.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Ended {
        self.publish(true);
        loop {
            let now = self.clock.now();
            let due = self.fleet.poll_timeout().since(now);
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                Some(order) = self.orders.recv() => self.order(order).await,
                Some(input) = self.inbox.recv() => self.turn(input).await,
                () = tokio::time::sleep(due) => self.turn(Input::Tick).await,
            }
            if self.try_store().await == Some(Ended::StoreIsBack) {
                return Ended::StoreIsBack;
            }
        }
    }

    async fn order(&mut self, order: Order) {
        self.books.requests += 1;
        self.books.waiting.insert(self.books.requests, order.answer);
        self.turn(Input::Operator { request: self.books.requests, command: order.command, by: order.by })
            .await;
    }

    /// One turn of the core, and everything that follows from it.
    async fn turn(&mut self, input: Input) {
        let now = self.clock.now();
        let turning = self.clock.stopwatch();
        let copy = self.flight.is_some().then(|| input.clone());
        self.keeper.note(now, &input);
        let effects = self.fleet.handle(now, input);
        if let Some((flight, copy)) = self.flight.as_mut().zip(copy) {
            flight.turned(now, copy, &effects, &self.fleet);
            self.metrics.unrecorded(flight.lost());
        }
        self.metrics.turned(turning.elapsed());
        let busy = !effects.is_empty();
        self.perform(effects).await;
        if let Some(store) = &self.store {
            self.keeper.look_after(now, &Place { store, tasks: &self.tasks });
        }
        self.systemd.alive();
        self.publish(busy);
    }

    /// Carries effects out: first everything that is to be remembered, and what is said of it, in one durable step; then
    /// the rest in order.
    async fn perform(&mut self, effects: Vec<Effect>) {
        let mut changes = Vec::new();
        let mut said = Vec::new();
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Remember(change) => changes.push(change),
                Effect::Announce(announcement) => {
                    said.push(self.with_link(&announcement));
                    rest.push(Effect::Announce(announcement));
                }
                other => rest.push(other),
            }
        }
        let remembered =
            (changes.is_empty() && said.is_empty()) || self.remember(changes, said.clone()).await;
        for effect in rest {
            self.carry_out(effect, remembered).await;
        }
        match (said.is_empty(), remembered) {
            (true, _) => {}
            (false, true) => self.notifier.wake(),
            // Better said and forgotten than not said.
            (false, false) => said.into_iter().for_each(|announcement| self.notifier.send_now(announcement)),
        }
    }

    async fn carry_out(&mut self, effect: Effect, remembered: bool) {
        match effect {
            Effect::Remember(_) => {}
            Effect::Decided(decision) => {
                let (service, verdict, reason) =
                    (&decision.service, decision.verdict.name(), &decision.reason);
                info!(%service, verdict, severity = %decision.severity, dry_run = decision.dry_run, "{reason}");
                self.metrics.decided(&decision);
            }
            Effect::Announce(announcement) => log(&announcement),
            Effect::Reply { request, answer } => {
                let answer = if remembered { answer } else { answer.and_then(unrecorded) };
                if let Some(waiting) = self.books.waiting.remove(&request) {
                    // Whoever asked may have gone away meanwhile.
                    let _ = waiting.send(answer);
                }
            }
            Effect::Look => {
                for engine in self.runtime.engines() {
                    self.look(Wanted::All { engine });
                }
            }
            Effect::Observe { service } => self.look(Wanted::One(service)),
            Effect::RollBack(request) if !remembered => self.not_recorded(request),
            Effect::RollBackTogether(requests) if !remembered => {
                for request in requests {
                    self.not_recorded(request);
                }
            }
            // Without a record, no service and no image is touched.
            Effect::Protect { .. } | Effect::Unprotect { .. } | Effect::Prepare(_) | Effect::Close { .. }
                if !remembered => {}
            Effect::Unpin { request, service, pin } => self.unpin(request, service, pin),
            Effect::Protect { service, release, older } => self.protect(service, release, older),
            Effect::Unprotect { service, release } => self.unprotect(service, release),
            Effect::CheckTarget { service, release, fetch } => self.check_target(service, release, fetch),
            Effect::Mitigate { id, service, .. } if !remembered => {
                let why = "it could not be recorded, and nothing is done that could not be".to_owned();
                self.send(Input::Mitigated { id, service, result: Err(why) });
            }
            Effect::Mitigate { id, service, from, what, why } => {
                self.hands.give(service.clone(), Job::Mitigate(Errand { id, service, from, what, why }));
            }
            Effect::AskSchema { service, release, query } => self.ask_schema(service, release, query),
            Effect::Prepare(request) => self.hands.give(request.service.clone(), Job::Prepare(request)),
            Effect::Discard { rollback } => self.hands.give_owner(&rollback, Job::Discard(rollback.clone())),
            Effect::RollBack(request) => {
                self.put_aside(&request);
                self.hands.give(request.service.clone(), Job::RollBack(request));
            }
            Effect::RollBackTogether(requests) => {
                requests.iter().for_each(|request| self.put_aside(request));
                self.hands.give_together(requests);
            }
            Effect::Close { rollback, proved } => {
                self.hands.give_owner(&rollback, Job::Close(rollback.clone(), proved));
            }
        }
    }

    /// Keeps what is known at the decision, before anything is touched.
    fn put_aside(&self, request: &RollbackRequest) {
        let now = self.clock.now();
        let seen = self.fleet.service_snapshot(now, &request.service);
        if let (Some(store), Some(seen)) = (&self.store, seen) {
            let owners = self.settings.borrow().report.owners.clone();
            let place = Place { store, tasks: &self.tasks };
            self.keeper.decided(now, (request, owners), &seen, &self.runtime, &place);
        }
    }

    fn not_recorded(&self, request: RollbackRequest) {
        let why = "the decision could not be recorded, and nothing is done that could not be".to_owned();
        let (rollback, service) = (request.id, request.service);
        self.send(Input::Executed { rollback, service, result: Executed::Void { why } });
    }

    /// Whether the changes are durable now, and the announcements in the outbox. If not, the changes are kept and tried again.
    async fn remember(&mut self, changes: Vec<LedgerChange>, said: Vec<Announcement>) -> bool {
        for change in &changes {
            if let LedgerChange::RollbackUpdated(record) = change
                && record.outcome.is_over()
            {
                let (service, rollback, outcome) = (&record.service, &record.id, record.outcome.name());
                info!(%service, %rollback, outcome, "{}", record.outcome.detail());
                self.metrics.rollback_ended(record);
            }
        }
        if let Some(store) = &self.store {
            self.keeper.follow(self.clock.now(), &changes, &Place { store, tasks: &self.tasks });
        }
        self.books.unsaved.extend(changes);
        let Some(store) = &self.store else { return self.keep_unsaved() };
        match store.commit(self.books.unsaved.clone(), said).await {
            Ok(()) => {
                self.words.tell(self.clock.now(), &self.books.unsaved);
                self.books.unsaved.clear();
                true
            }
            Err(e) => {
                self.store_broke(&e.to_string());
                self.keep_unsaved()
            }
        }
    }

    fn keep_unsaved(&mut self) -> bool {
        if self.books.unsaved.len() > UNSAVED_MAX {
            let lost = self.books.unsaved.len() - UNSAVED_MAX;
            warn!(lost, "the store has failed for so long that its oldest changes are dropped");
            self.books.unsaved.drain(..lost);
        }
        false
    }

    fn store_broke(&mut self, why: &str) {
        self.metrics.store_error();
        if self.books.store_failed.is_none() {
            error!("the store failed: {why}");
            self.send(Input::Store(Err(why.to_owned())));
        }
        self.books.store_failed = Some(self.clock.now());
    }

    /// Tries a failed store again now and then.
    async fn try_store(&mut self) -> Option<Ended> {
        let now = self.clock.now();
        if self.books.store_failed.is_none_or(|at| now.since(at) < STORE_RETRY) {
            return None;
        }
        self.books.store_failed = Some(now);
        let Some(store) = &self.store else {
            // It could not be opened at the start: what it remembers has to be read before anything else.
            return Store::open(&self.state_dir).await.is_ok().then_some(Ended::StoreIsBack);
        };
        // Kept until they are durable: a disk may have room for the probe and not for them.
        if store.probe().await.is_ok() && store.remember(self.books.unsaved.clone()).await.is_ok() {
            info!("the store works again");
            self.words.tell(now, &self.books.unsaved);
            self.books.unsaved.clear();
            self.books.store_failed = None;
            self.send(Input::Store(Ok(())));
        }
        None
    }

    /// Whoever is asked something gets a link to answer it, where we know under which address people reach us. The log does
    /// not show it: whoever reads that need not be one who may answer.
    fn with_link(&self, announcement: &Announcement) -> Announcement {
        let mut announcement = announcement.clone();
        let asked = announcement.service.as_ref().zip(announcement.approval.as_ref());
        let settings = self.settings.borrow();
        let public = settings.api.public_url.as_deref();
        if let (Some((service, question)), Some(links), Some(public)) = (asked, &self.links, public) {
            announcement.fields.push(("Answer".into(), links.url(public, service, question)));
        }
        announcement
    }

    /// Looks at the engine in the background, at all services or at one; the result comes back as an input.
    fn look(&self, wanted: Wanted) {
        let (runtime, inputs) = (Arc::clone(&self.runtime), self.inputs.clone());
        self.tasks.spawn(async move {
            for _ in 0..LOOK_TRIES {
                match look(runtime.as_ref(), &wanted).await {
                    Ok(input) => {
                        let _ = inputs.send(input).await;
                        return;
                    }
                    Err(e) => debug!("a look failed: {e}"),
                }
                tokio::time::sleep(LOOK_RETRY).await;
            }
        });
    }

    /// Keeps the specification of a release that passed its trial, and protects its image.
    fn protect(&self, service: ServiceName, release: Release, older: Vec<Release>) {
        let (runtime, inputs, store) = (Arc::clone(&self.runtime), self.inputs.clone(), self.store.clone());
        self.tasks.spawn(async move {
            let result = keep(runtime.as_ref(), store.as_ref(), &service, &release, &older).await;
            if let Err(why) = &result {
                warn!(%service, %release, "its specification could not be recorded now, and it is tried again: {why}");
            }
            let release = release.id;
            let _ = inputs.send(Input::Protected { service, release, result }).await;
        });
    }

    fn unprotect(&self, service: ServiceName, release: Release) {
        let (runtime, store) = (Arc::clone(&self.runtime), self.store.clone());
        self.tasks.spawn(async move {
            if let Err(e) = runtime.unprotect(&service, &release).await {
                warn!(%service, %release, "its protecting tag could not be removed: {e}");
            }
            if let Some(Err(e)) = match store {
                Some(store) => Some(store.drop_snapshots(&service, &release.id).await),
                None => None,
            } {
                warn!(%service, %release, "its specification could not be dropped: {e}");
            }
        });
    }

    /// Finds out whether a target can be had, in the background: neither the core nor a rollback waits for a registry.
    fn check_target(&self, service: ServiceName, release: Release, fetch: bool) {
        let (runtime, inputs) = (Arc::clone(&self.runtime), self.inputs.clone());
        let turns = Arc::clone(&self.checks);
        self.tasks.spawn(async move {
            let Ok(_turn) = turns.acquire_owned().await else { return };
            let availability = runtime.availability(&service, &release, fetch).await;
            debug!(%service, %release, ?availability, "whether a target can be had");
            let release = release.id;
            let _ = inputs.send(Input::TargetChecked { service, release, availability }).await;
        });
    }

    /// Asks the database for the version of its schema, in the background: nobody waits for a database.
    fn ask_schema(&self, service: ServiceName, release: ReleaseId, query: SchemaQuery) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let answer = crate::hooks::schema(&query).await;
            if let Err(why) = &answer {
                debug!(%service, "the version of the schema is not known: {why}");
            }
            let _ = inputs.send(Input::SchemaAnswered { service, release, answer }).await;
        });
    }

    fn unpin(&self, request: u64, service: ServiceName, pin: Pin) {
        let (runtime, inputs) = (Arc::clone(&self.runtime), self.inputs.clone());
        self.tasks.spawn(async move {
            let result = runtime.unpin(&service, &pin).await.map_err(|e| e.message);
            let _ = inputs.send(Input::Unpinned { request: Some(request), service, result }).await;
        });
    }

    /// Sends an input to ourselves without waiting: the inbox is ours, waiting for room in it would be for ever.
    fn send(&self, input: Input) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let _ = inputs.send(input).await;
        });
    }

    /// Logs what changed since the last picture: whoever follows the log sees that a service was noticed, and how it
    /// fares.
    fn tell_changes(&mut self, fleet: &FleetSnapshot) {
        for (name, words) in engine_words(fleet) {
            if self.books.engines.get(&name) != Some(&words) {
                info!("{words}");
                self.books.engines.insert(name, words);
            }
        }
        for s in &fleet.services {
            let now = (s.state, s.current.as_ref().map(|c| c.id.clone()));
            if self.books.told.get(&s.name) != Some(&now) {
                info!(service = %s.name, "{}: {}", s.state.name().replace('_', " "), s.sentence);
                self.books.told.insert(s.name.clone(), now);
            }
        }
        self.books.told.retain(|name, _| fleet.services.iter().any(|s| s.name == *name));
        for refusal in fleet.refused.iter().filter(|r| !self.books.refused.contains(r)) {
            let problems = refusal.problems.join("; ");
            warn!(service = %refusal.service, container = refusal.container, "not watched: {problems}");
        }
        self.books.refused.clone_from(&fleet.refused);
    }

    /// Publishes the picture for API, metrics and probes.
    fn publish(&mut self, at_once: bool) {
        let now = self.clock.now();
        if !at_once && self.books.last_published.is_some_and(|at| now.since(at) < PUBLISH_PAUSE) {
            return;
        }
        self.books.last_published = Some(now);
        let snapshot = Arc::new(self.fleet.snapshot(now));
        let probed: Vec<_> = snapshot
            .services
            .iter()
            .map(|s| (s.name.clone(), Arc::clone(&s.settings), s.replicas.clone()))
            .collect();
        self.scheduler.sync(&probed);
        self.metrics.observe(&snapshot);
        let dropped = self.scheduler.dropped();
        for _ in self.books.dropped..dropped {
            self.metrics.input_dropped();
        }
        self.books.dropped = dropped;
        self.systemd.status(&snapshot);
        self.tell_changes(&snapshot);
        self.published.send_replace(snapshot);
    }
}

/// What runs of everything, or of one service. One that the engine does not know is missing in a look at everything.
async fn look(runtime: &dyn Runtime, wanted: &Wanted) -> Result<Input, RuntimeError> {
    let engine = match wanted {
        Wanted::All { engine } => engine,
        Wanted::One(service) => {
            match runtime.observe(service).await {
                Ok(seen) => return Ok(Input::Observed(seen)),
                Err(e) if e.class == ErrorClass::Transient => return Err(e),
                Err(e) => debug!("{service} by itself: {e}"),
            }
            service.engine()
        }
    };
    runtime.look_at(engine).await.map(Input::Looked)
}

/// What is looked at.
#[derive(Debug)]
enum Wanted {
    /// Everything on the engine of this name; on the default one, if it is empty.
    All { engine: String },
    /// One service.
    One(ServiceName),
}

/// What an operator is told whose command could not be recorded: no success may be claimed that a restart forgets.
fn unrecorded(answer: String) -> Result<String, String> {
    Err(format!(
        "it could not be recorded yet, so a rollback does not begin, and a pause or its end holds only until \
         backstop restarts, unless the store is back by then; without that: {answer}; next: backstop status"
    ))
}

/// Whether the engine answers, in words for the log.
fn engine_words(fleet: &FleetSnapshot) -> Vec<(String, String)> {
    let named = fleet.engines.iter().map(|engine| (engine.name.as_str(), &engine.state));
    let all = std::iter::once(("", &fleet.engine)).chain(named);
    let words = all.filter_map(|(name, state)| {
        let who = if name.is_empty() { "the engine".to_owned() } else { format!("the engine {name}") };
        let words = match state.as_ref()? {
            EngineState::Reachable { .. } => format!("{who} answers"),
            EngineState::Unreachable { why } => format!("{who} does not answer, it is tried again: {why}"),
        };
        Some((name.to_owned(), words))
    });
    words.collect()
}

/// Records the specification of what runs, if that is still the release meant, and protects its image and those of
/// the known-good releases before it.
async fn keep(
    runtime: &dyn Runtime,
    store: Option<&Store>,
    service: &ServiceName,
    release: &Release,
    older: &[Release],
) -> Result<(), String> {
    let store = store.ok_or("the store is not open")?;
    let seen = runtime.observe(service).await.map_err(|e| e.to_string())?;
    if seen.replicas.is_empty() || seen.replicas.iter().any(|r| r.release.id != release.id) {
        return Err("something else runs by now".into());
    }
    if let Some(still) = seen.replicas.iter().find(|r| r.phase != Phase::Running) {
        return Err(format!("{} does not run just now", still.name));
    }
    let snapshots = runtime.snapshot(&seen).await.map_err(|e| e.to_string())?;
    store.save_snapshots(service, &release.id, &snapshots).await.map_err(|e| e.to_string())?;
    for (release, generation) in std::iter::once(release).chain(older).zip(1..) {
        // A tag is a help against pruning, not a condition: the image is there now.
        if let Err(e) = runtime.protect(service, release, generation).await {
            debug!(%service, %release, "its image could not be protected by a tag: {e}");
        }
    }
    Ok(())
}

/// As urgently as it is meant.
fn log(announcement: &Announcement) {
    let text = announcement.to_string().replace('\n', "; ");
    match announcement.kind {
        AnnouncementKind::RollbackComplete
        | AnnouncementKind::RollbackInProgress
        | AnnouncementKind::Approval
        | AnnouncementKind::Mitigation
        | AnnouncementKind::Acknowledged
        | AnnouncementKind::Over
        | AnnouncementKind::Reminder
        | AnnouncementKind::Test => info!("{text}"),
        AnnouncementKind::Stuck | AnnouncementKind::BreakerTripped => error!("{text}"),
        AnnouncementKind::RollbackFailed
        | AnnouncementKind::WouldRollBack
        | AnnouncementKind::Evaluate
        | AnnouncementKind::ApprovalWanted
        | AnnouncementKind::Hold
        | AnnouncementKind::NoRollbackTarget
        | AnnouncementKind::Target
        | AnnouncementKind::Unpinned
        | AnnouncementKind::QuarantinedAgain
        | AnnouncementKind::Blind
        | AnnouncementKind::Escalated
        | AnnouncementKind::Daemon => warn!("{text}"),
    }
}
