//! The daemon: builds every part, runs them, and brings them to an orderly end.
//!
//! The program lives as long as it is not told to stop. Within it, a *life* goes from opening the store to closing
//! it: a store that cannot be opened makes for a life that only watches and announces, and once it can be opened
//! again, a new life begins with what it remembers.

mod bridges;
mod driver;
mod evidence;
pub mod follow_up;
mod hands;
mod succession;
mod windows;

use std::collections::BTreeSet;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::bridges::{AllProbed, EngineProbed, Enrolled, Operators, Records, outlook, tokens};
use self::driver::{Books, CHECKS_AT_ONCE, Driver, Ended};
use self::follow_up::FollowUp;
use self::hands::{Hands, Job};
use self::succession::Words;
use crate::api::{ApiState, ConfigState, History as _, Hosts, Links};
use crate::clock::Clock;
use crate::config::{EngineTls, Settings, Sources};
use crate::core::ledger::{FAR_BEHIND, Remembered, RollbackOutcome};
use crate::core::release::{MitigationId, RollbackId, ServiceName};
use crate::core::time::human;
use crate::core::{Executed, Fleet, Input};
use crate::flight::{self, Recorder};
use crate::metrics::Metrics;
use crate::notify::{Notifier, NotifierHandle};
use crate::rollback::{CrashingStore, Executor};
use crate::runtime::container::ContainerRuntime;
use crate::runtime::engine::{Engine, TlsFiles};
use crate::runtime::engines::{Engines, EnrolmentOn, Part, Whereabouts};
use crate::runtime::logs::EngineLogs;
use crate::runtime::registry::Credentials;
use crate::runtime::several::Several;
use crate::runtime::swarm::SwarmRuntime;
use crate::runtime::swarm::places::Places;
use crate::runtime::{Enrolment, Runtime};
use crate::signal::check::CheckTools;
use crate::signal::host::HostProbe;
use crate::signal::scheduler::{Scheduler, Tools};
use crate::store::{Store, StoreError};
use crate::systemd::Systemd;

/// Inputs that may wait: a thousand services sampled at once, four times over.
const INBOX_MAX: usize = 4096;
/// Operator commands that may wait; people are slow.
const ORDERS_MAX: usize = 16;
/// How long a rollback in flight may take to end once the daemon is told to stop. Cut off, it is resumed at the next
/// start. The unit's `TimeoutStopSec` leaves room for it.
const DRAIN: Duration = Duration::from_secs(50);
/// How long announcements that are under way may take then.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Pause before recovery is tried again while the engine does not answer.
const RECOVERY_RETRY: Duration = Duration::from_secs(2);

/// What does not change while the program lives.
#[derive(Debug)]
struct Program {
    sources: Sources,
    clock: Clock,
    systemd: Systemd,
    metrics: Metrics,
    settings: watch::Sender<Arc<Settings>>,
    config: watch::Sender<ConfigState>,
    listener: StdListener,
    crash_at: Option<u64>,
}

/// Runs the daemon until `stop`. `crash_at` makes the process abort right after so many journal events became
/// durable: end-to-end tests prove recovery with it.
///
/// # Errors
/// If the API's address cannot be bound, the engine's address makes no sense, or another daemon uses the state
/// directory. All else is survived, announced and shown in the status.
pub async fn run(
    sources: Sources,
    settings: Settings,
    crash_at: Option<u64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let clock = Clock::start();
    let metrics = Metrics::new();
    metrics.config_loaded(true, clock.now());
    let address = settings.api.listen;
    let listener = StdListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is another backstop running? (`api.listen`)")
    })?;
    listener.set_nonblocking(true).context("cannot make the API's socket non-blocking")?;
    info!(%address, engine = %settings.engine.host, state_dir = %settings.state_dir.display(), "backstop {} starts", env!("CARGO_PKG_VERSION"));
    tell_warnings(&settings);
    let config = ConfigState { last_reload_ok: true, error: None, loaded_at: clock.now() };
    let program = Arc::new(Program {
        sources,
        clock,
        systemd: Systemd::from_environment(clock),
        metrics,
        settings: watch::Sender::new(Arc::new(settings)),
        config: watch::Sender::new(config),
        listener,
        crash_at,
    });
    while program.live(&stop).await? == Ended::StoreIsBack {
        info!("the store can be opened again: starting over with what it remembers");
    }
    info!("backstop stopped");
    Ok(())
}

/// What `backstop check-config` would have said: allowed, and likely not meant.
fn tell_warnings(settings: &Settings) {
    for warning in settings.warnings() {
        warn!("{warning}");
    }
}

/// Each engine is recovered and watched by a task of its own, so that none waits for another.
fn recover(
    driver: &Driver,
    executor: &Executor,
    proved: &BTreeSet<RollbackId>,
    (tasks, life): (&TaskTracker, &CancellationToken),
) {
    let awaited: Vec<_> =
        driver.fleet.executing().iter().map(|r| (r.id.clone(), r.service.clone())).collect();
    let mitigating = driver.fleet.mitigating();
    for engine in driver.runtime.engines() {
        let (executor, runtime) = (executor.clone(), Arc::clone(&driver.runtime));
        let old = Old {
            awaited: on(&engine, &awaited),
            mitigating: on(&engine, &mitigating),
            proved: proved.clone(),
        };
        let watching = recover_and_watch(executor, runtime, driver.inputs.clone(), engine, old);
        tasks.spawn(life.clone().run_until_cancelled_owned(watching));
    }
}

/// What is about services on this engine.
fn on<T: Clone>(engine: &str, all: &[(T, ServiceName)]) -> Vec<(T, ServiceName)> {
    all.iter().filter(|(_, service)| service.engine() == engine).cloned().collect()
}

/// What makes links to answer questions with. Without it, they are answered in every other way.
fn links(settings: &Settings) -> Option<Links> {
    let opened = Links::open(&settings.state_dir);
    opened.inspect_err(|e| warn!("there are no links to answer with in messages: {e}")).ok()
}

/// An engine that is watched.
#[derive(Debug)]
struct Reached {
    /// Empty for the default one.
    name: String,
    engine: Arc<Engine>,
    /// Which replicas are tasks of its Swarm, and where.
    places: Arc<Places>,
}

impl Reached {
    fn new(name: &str, engine: Arc<Engine>) -> Self {
        Self { name: name.to_owned(), engine, places: Arc::default() }
    }
}

/// All engines that the settings name, the default one first.
fn connect(settings: &Settings) -> anyhow::Result<Vec<Reached>> {
    let registry = &settings.registry;
    let credentials = Credentials::new(registry.docker_config.as_deref(), registry.usual.as_deref());
    let connect = |host: &str, tls: Option<&EngineTls>, key: String| {
        let tls = tls.cloned().map(|EngineTls { ca, cert, key }| TlsFiles { ca, cert, key });
        let engine = Engine::connect_by(host, tls).context(key)?;
        Ok::<_, anyhow::Error>(Arc::new(engine.with_credentials(credentials.clone())))
    };
    let default = connect(&settings.engine.host, settings.engine.tls.as_ref(), "`engine.host`".into())?;
    let mut engines = vec![Reached::new("", default)];
    for named in &settings.engines {
        let key = format!("`engines.{}.host`", named.name);
        engines.push(Reached::new(&named.name, connect(&named.host, named.tls.as_ref(), key)?));
    }
    Ok(engines)
}

impl Program {
    /// One life.
    async fn live(self: &Arc<Self>, stop: &CancellationToken) -> anyhow::Result<Ended> {
        let settings = self.settings.borrow().clone();
        let (store, remembered, store_error) = self.open_store(&settings).await?;
        let life = stop.child_token();
        let (jobs, background) = (TaskTracker::new(), TaskTracker::new());
        let (inputs, inbox) = mpsc::channel(INBOX_MAX);
        let (orders_sent, orders) = mpsc::channel(ORDERS_MAX);

        let engines = connect(&settings)?;
        let whereabouts = Arc::default();
        let runtime = self.runtime(&engines, &whereabouts, settings.engine.look_interval);
        let remembered = succession::take_over(runtime.as_ref(), store.as_ref(), remembered).await;
        let proved = proved(&remembered);
        let words = Words::after(&remembered);
        background.spawn(life.clone().run_until_cancelled_owned(words.clone().pass_on(Arc::clone(&runtime))));
        let records = Records(store.clone());
        records.drills().await.unwrap_or_default().iter().for_each(|drill| self.metrics.drilled(drill));
        let executor = self.executor(&runtime, &records);

        let fleet = Fleet::restore(self.clock.now(), settings.fleet.clone(), remembered);
        let links = links(&settings);
        let published = watch::Sender::new(Arc::new(fleet.snapshot(self.clock.now())));
        let notifier = self.start_notifier(store.clone(), &published, &background, &life);
        self.start_follow_up(store.clone(), &notifier, &background, &life);
        let probes = self.start_probes(&inputs, (engines, whereabouts), &background, &life);
        let mut driver = Driver {
            hands: Hands::new(executor.clone(), inputs.clone(), jobs.clone()),
            scheduler: probes,
            store,
            state_dir: settings.state_dir.clone(),
            runtime: Arc::clone(&runtime),
            notifier: notifier.clone(),
            inputs: inputs.clone(),
            inbox,
            orders,
            published: published.clone(),
            tasks: background.clone(),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            links: links.clone(),
            settings: self.settings.subscribe(),
            books: Books::new(store_error.as_ref().map(|_| self.clock.now())),
            clock: self.clock,
            metrics: self.metrics.clone(),
            systemd: self.systemd.clone(),
            flight: self.start_record(&settings, &fleet),
            keeper: evidence::Keeper::default(),
            words,
            fleet,
        };
        for record in driver.fleet.executing() {
            driver.hands.owns(record.id.clone(), record.service.clone());
        }
        self.start_windows(&inputs, &background, &life).await;
        if let Some(why) = store_error {
            let _ = inputs.send(Input::Store(Err(why))).await;
        }
        self.start_api(
            &published,
            records,
            Operators::new(orders_sent, &inputs, &executor, &published, self.settings.subscribe(), &notifier),
            links,
            &background,
            &life,
        )?;
        let tasks = (&background, &life);
        recover(&driver, &executor, &proved, tasks);
        background.spawn(Reloader { program: Arc::clone(self), inputs: inputs.clone() }.run_on(life.clone()));
        self.systemd.ready();

        let ended = driver.run(&life).await;
        self.end(driver, &life, &jobs, &background, &notifier).await;
        Ok(ended)
    }

    /// Whatever runs services, on one engine or on several.
    fn runtime(
        &self,
        engines: &[Reached],
        whereabouts: &Arc<Whereabouts>,
        look_interval: Duration,
    ) -> Arc<dyn Runtime> {
        let enrolled: Arc<dyn Enrolment> = Arc::new(Enrolled(self.settings.subscribe()));
        if let [only] = engines {
            return self.runtime_on(only, enrolled, look_interval);
        }
        let part = |reached: &Reached| {
            let enrolled = Arc::new(EnrolmentOn::new(&reached.name, Arc::clone(&enrolled)));
            let runtime = self.runtime_on(reached, enrolled, look_interval);
            Part { name: reached.name.clone(), engine: Arc::clone(&reached.engine), runtime }
        };
        Arc::new(Engines::new(engines.iter().map(part).collect(), Arc::clone(whereabouts)))
    }

    /// Whatever runs services on one engine. Plain containers come last: whoever nobody else knows is one.
    fn runtime_on(
        &self,
        Reached { engine, places, .. }: &Reached,
        enrolled: Arc<dyn Enrolment>,
        look_interval: Duration,
    ) -> Arc<dyn Runtime> {
        let standing = Arc::default();
        let shared = (Arc::clone(&standing), Arc::clone(places));
        let swarm =
            SwarmRuntime::new(Arc::clone(engine), Arc::clone(&enrolled), shared, look_interval, self.clock);
        let commands = Arc::new(EngineProbed { engine: Arc::clone(engine), places: Arc::clone(places) });
        let asked = Arc::new(CheckTools { commands, clock: self.clock });
        let containers =
            ContainerRuntime::new(Arc::clone(engine), (enrolled, asked), standing, look_interval, self.clock);
        Arc::new(Several::new(vec![Box::new(swarm), Box::new(containers)]))
    }

    /// Starts looking at the machine, and gives what looks at the services.
    fn start_probes(
        &self,
        inputs: &mpsc::Sender<Input>,
        (engines, whereabouts): (Vec<Reached>, Arc<Whereabouts>),
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) -> Scheduler {
        let settings = self.settings.subscribe();
        let places = move || settings.borrow().fleet.self_check.clone();
        let host = HostProbe::new("/proc", self.clock).watch(inputs.clone(), places);
        tasks.spawn(life.clone().run_until_cancelled_owned(host));
        let probed = |Reached { name, engine, places }: Reached| {
            let logs = EngineLogs::new(Arc::clone(&engine), Arc::clone(&places));
            (name, (EngineProbed { engine, places }, logs))
        };
        let probed = Arc::new(AllProbed::new(engines.into_iter().map(probed), whereabouts));
        let (commands, stats, logs) = (Arc::clone(&probed) as _, Arc::clone(&probed) as _, probed);
        let checks = CheckTools { commands, clock: self.clock };
        Scheduler::new(inputs.clone(), Tools { checks, stats, logs })
    }

    fn executor(&self, runtime: &Arc<dyn Runtime>, records: &Records) -> Executor {
        let store = CrashingStore::new(Arc::new(records.clone()), self.crash_at);
        let hooks = Arc::new(crate::hooks::Runner::new(Arc::clone(runtime), self.clock));
        Executor::with_hooks(Arc::clone(runtime), Arc::new(store), self.clock, hooks)
    }

    /// Opens the store and reads what it remembers. One that fails leaves us with a life that only watches.
    async fn open_store(
        &self,
        settings: &Settings,
    ) -> anyhow::Result<(Option<Store>, Remembered, Option<String>)> {
        let opened = match Store::open(&settings.state_dir).await {
            Ok(store) => self.recall(&store).await.map(|remembered| (store, remembered)),
            Err(e) => Err(e),
        };
        match opened {
            Ok((store, remembered)) => Ok((Some(store), remembered, None)),
            // Two daemons on one state directory would act on the same services.
            Err(e @ StoreError::Locked { .. }) => Err(e.into()),
            Err(e) => {
                error!("the store cannot be used, so nothing will be rolled back: {e}");
                self.metrics.store_error();
                Ok((None, Remembered::default(), Some(e.to_string())))
            }
        }
    }

    /// What the store remembers, put right if the clock of an earlier run was ahead.
    async fn recall(&self, store: &Store) -> Result<Remembered, StoreError> {
        let now = self.clock.now();
        let mut remembered = store.load(now).await?;
        if let Some((ahead, changes)) = remembered.put_back(now) {
            let far = ahead > FAR_BEHIND;
            let ahead = human(ahead);
            if far {
                warn!(
                    "the clock is behind what the store remembers, by {ahead}: it was not set yet; until it is, no release is \
                     old enough to be judged; next: check that this machine's clock is right"
                );
                return Ok(remembered);
            }
            warn!(
                "the clock is behind what the store remembers, by {ahead} at most; that is taken for now; next: check that \
                 this machine's clock is right"
            );
            store.remember(changes).await?;
        }
        Ok(remembered)
    }

    /// Tells the core which windows are open, now and whenever that changes. Before any engine is looked at, so that what is
    /// in a window is not judged for a moment first.
    async fn start_windows(
        &self,
        inputs: &mpsc::Sender<Input>,
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) {
        let settings = self.settings.subscribe();
        let open = windows::open(&settings.borrow(), self.clock);
        let _ = inputs.send(Input::Windows(open.clone())).await;
        let watching = windows::watch(inputs.clone(), settings, self.clock, open);
        tasks.spawn(life.clone().run_until_cancelled_owned(watching));
    }

    /// The flight record. The daemon's work does not depend on it.
    fn start_record(&self, settings: &Settings, fleet: &Fleet) -> Option<Recorder> {
        let wanted = settings.flight.enabled.then_some(&settings.flight)?;
        let limits = flight::Limits { max_bytes: wanted.max_bytes, max_age: wanted.max_age };
        Recorder::start(wanted.directory.clone(), limits, self.clock.now(), fleet)
            .inspect_err(|e| error!("there is no flight record: {e}"))
            .ok()
    }

    fn start_notifier(
        &self,
        store: Option<Store>,
        published: &watch::Sender<Arc<crate::core::snapshot::FleetSnapshot>>,
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) -> NotifierHandle {
        let metrics = self.metrics.clone();
        let outcomes = move |channel: &str, outcome| metrics.announcement(channel, outcome);
        let (notifier, handle) = Notifier::new(store, self.clock, Arc::new(outcomes));
        let plan = |settings: &Settings, metrics: &Metrics| {
            let plan = Arc::clone(&settings.notify.plan);
            metrics.channels(plan.channels.iter().map(|channel| channel.name.as_str()));
            plan
        };
        let (changed, plans) = watch::channel(plan(&self.settings.borrow(), &self.metrics));
        let (mut settings, metrics) = (self.settings.subscribe(), self.metrics.clone());
        tasks.spawn(life.clone().run_until_cancelled_owned(async move {
            while settings.changed().await.is_ok() {
                changed.send_replace(plan(&settings.borrow_and_update(), &metrics));
            }
        }));
        let environment = self.settings.borrow().fleet.environment.clone();
        let notifier = notifier.of_fleet(&environment, outlook(published.subscribe()));
        tasks.spawn(notifier.run(plans, life.clone()));
        handle
    }

    /// Reminders and tickets. Without a store nobody knows what they would be about.
    fn start_follow_up(
        &self,
        store: Option<Store>,
        notifier: &NotifierHandle,
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) {
        let Some(store) = store else { return };
        let metrics = self.metrics.clone();
        let outcomes = Arc::new(move |tracker: &str, outcome| metrics.announcement(tracker, outcome));
        let follow_up = FollowUp::new(store, notifier.clone(), outcomes);
        let following = follow_up.run(self.settings.subscribe(), self.clock);
        tasks.spawn(life.clone().run_until_cancelled_owned(following));
    }

    fn start_api(
        &self,
        published: &watch::Sender<Arc<crate::core::snapshot::FleetSnapshot>>,
        records: Records,
        operators: Operators,
        links: Option<Links>,
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) -> anyhow::Result<()> {
        let listener = self.listener.try_clone().context("cannot share the API's socket")?;
        let listener = TcpListener::from_std(listener).context("cannot use the API's socket")?;
        let (shown, seen) = watch::channel(tokens(&self.settings.borrow()));
        let mut settings = self.settings.subscribe();
        tasks.spawn(life.clone().run_until_cancelled_owned(async move {
            while settings.changed().await.is_ok() {
                shown.send_replace(tokens(&settings.borrow_and_update()));
            }
        }));
        let state = ApiState {
            snapshot: published.subscribe(),
            history: Arc::new(records.clone()),
            paperwork: Arc::new(records),
            operate: Arc::new(operators),
            metrics: self.metrics.clone(),
            clock: self.clock,
            tokens: seen,
            config: self.config.subscribe(),
            links,
            hosts: {
                let api = &self.settings.borrow().api;
                Hosts::of_listener(api.listen).also(api.public_url.as_deref())
            },
        };
        let stop = life.clone();
        tasks.spawn(async move {
            if let Err(e) = crate::api::serve(listener, state, stop).await {
                error!("the API stopped: {e}");
            }
        });
        Ok(())
    }

    /// The orderly end: a rollback in flight is finished, or left to be resumed; announcements are sent.
    async fn end(
        &self,
        mut driver: Driver,
        life: &CancellationToken,
        jobs: &TaskTracker,
        background: &TaskTracker,
        notifier: &NotifierHandle,
    ) {
        self.systemd.stopping(DRAIN + LAST_WORDS);
        for rollback in driver.fleet.prepared() {
            driver.hands.give_owner(&rollback, Job::Discard(rollback.clone()));
        }
        driver.hands.close();
        jobs.close();
        if tokio::time::timeout(DRAIN, jobs.wait()).await.is_err() {
            warn!("a rollback is still in flight; it is resumed at the next start");
        }
        notifier.drain(LAST_WORDS).await;
        life.cancel();
        if let Some(record) = driver.flight.take() {
            record.close();
        }
        drop(driver);
        background.close();
        if tokio::time::timeout(LAST_WORDS, background.wait()).await.is_err() {
            warn!("not everything ended in time");
        }
    }
}

/// What is known of an earlier process's rollbacks.
struct Old {
    /// Their ends are awaited.
    awaited: Vec<(RollbackId, ServiceName)>,
    /// It was ended in the middle of these.
    mitigating: Vec<(MitigationId, ServiceName)>,
    /// These were proved.
    proved: BTreeSet<RollbackId>,
}

fn proved(remembered: &Remembered) -> BTreeSet<RollbackId> {
    let verified = remembered.rollbacks.iter().filter(|r| matches!(r.outcome, RollbackOutcome::Verified(_)));
    verified.map(|record| record.id.clone()).collect()
}

/// Finishes or unwinds what an earlier process left behind, before any probe decides anything; then watches. For
/// each engine by itself: one that is away holds nobody else up.
async fn recover_and_watch(
    executor: Executor,
    runtime: Arc<dyn Runtime>,
    inputs: mpsc::Sender<Input>,
    engine: String,
    Old { awaited, mitigating, proved }: Old,
) {
    let recovered = loop {
        match executor.recover_on(&engine).await {
            Ok(recovered) => break recovered,
            Err(e) => warn!("what an earlier run left behind cannot be looked at yet: {e}"),
        }
        tokio::time::sleep(RECOVERY_RETRY).await;
    };
    for other in recovered.iter().filter(|r| !awaited.iter().any(|(id, _)| *id == r.rollback)) {
        // Its end was recorded; only its journal was not closed.
        executor.conclude(&other.rollback, proved.contains(&other.rollback)).await;
    }
    for (rollback, service) in awaited {
        let result = recovered.iter().find(|r| r.rollback == rollback).map_or_else(
            || Executed::Void { why: "the daemon was stopped before the rollback began".into() },
            |r| r.result.clone(),
        );
        info!(%service, %rollback, ?result, "a rollback of an earlier run was taken up");
        let _ = inputs.send(Input::Executed { rollback, service, result }).await;
    }
    for (id, service) in mitigating {
        let result =
            Err("Backstop was ended in the middle of it; it is not tried again, for it may have been done"
                .into());
        let _ = inputs.send(Input::Mitigated { id, service, result }).await;
    }
    runtime.watch_at(&engine, inputs).await;
}

/// Reads the configuration again when told to by SIGHUP. A bad one leaves the old settings running, and says so.
#[derive(Debug)]
struct Reloader {
    program: Arc<Program>,
    inputs: mpsc::Sender<Input>,
}

impl Reloader {
    async fn run_on(self, life: CancellationToken) {
        let hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let Ok(mut hangups) = hangups.inspect_err(|e| warn!("SIGHUP cannot be listened to: {e}")) else {
            return;
        };
        while let Some(Some(())) = life.run_until_cancelled(hangups.recv()).await {
            self.program.systemd.reloading();
            self.reload().await;
            self.program.systemd.ready();
        }
    }

    async fn reload(&self) {
        let now = self.program.clock.now();
        match crate::config::load(&self.program.sources) {
            Ok(mut new) => {
                let old = self.program.settings.borrow().clone();
                if old.api.listen != new.api.listen
                    || old.engine != new.engine
                    || old.engines != new.engines
                    || old.registry.docker_config != new.registry.docker_config
                    || old.state_dir != new.state_dir
                {
                    warn!(
                        "`api.listen`, `engine`, `engines`, `registry.docker_config` and `state_dir` take effect at the next start"
                    );
                }
                // Those that are watched until then.
                new.fleet.engines.clone_from(&old.fleet.engines);
                let fleet = new.fleet.clone();
                self.program.settings.send_replace(Arc::new(new));
                self.program.config.send_replace(ConfigState {
                    last_reload_ok: true,
                    error: None,
                    loaded_at: now,
                });
                self.program.metrics.config_loaded(true, now);
                info!("the configuration was loaded again");
                tell_warnings(&self.program.settings.borrow());
                let _ = self.inputs.send(Input::Configured(fleet)).await;
            }
            Err(problems) => {
                error!("the configuration was not loaded, the old one stays in force: {problems}");
                self.program.config.send_modify(|state| {
                    state.last_reload_ok = false;
                    state.error = Some(problems.to_string());
                });
                self.program.metrics.config_loaded(false, now);
            }
        }
    }
}
