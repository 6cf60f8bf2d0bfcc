//! Keeps every probe going that the settings of the running services ask for, in step with the fleet.
//!
//! It decides when to measure, never what a measurement means, and it never holds anybody up: a result that nobody
//! takes is counted and dropped, because the next one says more.
//!
//! A new kind of source is one more [`Spec`]: who asks for it ([`wanted`]), and what makes it (`Scheduler::start`).

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::Probe;
use super::check::{CheckProbe, CheckTools};
use super::logs::{LogProbe, LogStreams};
use super::promql::PromqlProbe;
use super::scrape::ScrapeProbe;
use super::stats::{StatsProbe, StatsSource, Wanted};
use crate::core::Input;
use crate::core::observation::{Phase, Replica};
use crate::core::release::{ReplicaId, ServiceName};
use crate::core::sample::Signal;
use crate::core::settings::{
    AccessLog, Action, Dependency, HealthCheck, LogSource, MetricsSource, PromqlSource, ServiceSettings,
    Target,
};

/// Probes that may run at the same time. One takes two seconds at worst by default, so that this many serve
/// some 300 replicas asked every ten seconds even if all of them hang, and it stays far below 1024 file handles.
const AT_ONCE: usize = 64;

/// Intervals differ by up to this share, so that probes of the same age do not march in step.
const JITTER: f64 = 0.1;

/// The shortest time between two probes of one target: settings are valid, but a zero would spin.
const SHORTEST: Duration = Duration::from_millis(100);

/// Runs the probes. Dropping it stops them all.
#[derive(Debug)]
pub struct Scheduler {
    tools: Tools,
    outlet: Outlet,
    services: HashMap<ServiceName, Probed>,
}

/// What probes are made with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// For checks of services and of what they depend on.
    pub checks: CheckTools,
    /// For memory and CPU.
    pub stats: Arc<dyn StatsSource>,
    /// For logs.
    pub logs: Arc<dyn LogStreams>,
}

/// The probes of one service, and what they follow from.
#[derive(Debug)]
struct Probed {
    settings: Arc<ServiceSettings>,
    running: Vec<Running>,
    tasks: HashMap<Key, Task>,
}

/// A replica that runs: what a probe needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    id: ReplicaId,
    address: Option<IpAddr>,
}

/// Which probe of a service it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    /// None if it is for the service as a whole.
    replica: Option<ReplicaId>,
    /// The check's or dependency's name; empty where a service has only one such source.
    name: String,
}

/// Where its measurements come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Check,
    Dependency,
    Stats,
    Metrics,
    Promql,
    Logs,
}

/// How it measures: a probe is made anew when this changes.
#[derive(Debug, Clone, PartialEq)]
enum Spec {
    Check { signal: Signal, check: Box<HealthCheck>, replica: Option<Running> },
    Stats { replica: ReplicaId, wanted: Wanted, interval: Duration },
    Metrics { source: Box<MetricsSource>, replica: Option<Running> },
    Promql(Box<PromqlSource>),
    Logs { source: Box<LogSource>, replica: ReplicaId },
}

#[derive(Debug)]
struct Task {
    spec: Spec,
    _running: AbortOnDropHandle<()>,
}

impl Scheduler {
    /// A scheduler without probes: [`Self::sync`] starts them. Results go to `inputs`.
    pub fn new(inputs: mpsc::Sender<Input>, tools: Tools) -> Self {
        let outlet = Outlet { inputs, permits: Arc::new(Semaphore::new(AT_ONCE)), dropped: Arc::default() };
        Self { tools, outlet, services: HashMap::new() }
    }

    /// Starts, stops and restarts probes, so that exactly the running replicas of `services` are probed as their
    /// settings say. A probe that need not change is left alone. Must be called on a tokio runtime.
    pub fn sync(&mut self, services: &[(ServiceName, Arc<ServiceSettings>, Vec<Replica>)]) {
        let names: HashSet<&ServiceName> = services.iter().map(|(name, ..)| name).collect();
        self.services.retain(|name, _| names.contains(name));
        for (service, settings, replicas) in services {
            let running: Vec<Running> = replicas
                .iter()
                .filter(|replica| replica.phase == Phase::Running)
                .map(|replica| Running { id: replica.id.clone(), address: replica.address })
                .collect();
            // This is called after every turn of the core, and mostly nothing changed.
            if self.services.get(service).is_some_and(|known| known.follows_from(settings, &running)) {
                continue;
            }
            let mut tasks = self.services.remove(service).map(|known| known.tasks).unwrap_or_default();
            let mut wanted = wanted(settings, &running);
            tasks.retain(|key, task| wanted.get(key) == Some(&task.spec));
            wanted.retain(|key, _| !tasks.contains_key(key));
            for (key, spec) in wanted {
                let started = AbortOnDropHandle::new(self.start(service, &key, &spec));
                tasks.insert(key, Task { spec, _running: started });
            }
            let settings = Arc::clone(settings);
            self.services.insert(service.clone(), Probed { settings, running, tasks });
        }
    }

    /// How many probes are kept going.
    pub fn len(&self) -> usize {
        self.services.values().map(|probed| probed.tasks.len()).sum()
    }

    /// Whether no probe is kept going.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many results were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.outlet.dropped.load(Ordering::Relaxed)
    }

    fn start(&self, service: &ServiceName, key: &Key, spec: &Spec) -> tokio::task::JoinHandle<()> {
        let clock = self.tools.checks.clock;
        let (probe, interval): (Box<dyn Probe>, _) = match spec {
            Spec::Check { signal, check, replica } => {
                let replica = replica.as_ref().map(|replica| (&replica.id, replica.address));
                (Box::new(CheckProbe::new(&self.tools.checks, *signal, check, replica)), check.interval)
            }
            Spec::Stats { replica, wanted, interval } => {
                let source = Arc::clone(&self.tools.stats);
                (Box::new(StatsProbe::new(source, replica.clone(), *wanted, clock)), *interval)
            }
            Spec::Metrics { source, replica } => {
                let address = replica.as_ref().and_then(|replica| replica.address);
                (Box::new(ScrapeProbe::new(source, address, clock)), source.interval)
            }
            Spec::Promql(source) => (Box::new(PromqlProbe::new(source, clock)), source.interval),
            Spec::Logs { source, replica } => {
                let streams = Arc::clone(&self.tools.logs);
                (Box::new(LogProbe::new(streams, replica.clone(), source, clock)), source.interval)
            }
        };
        let interval = jittered(interval, service, key);
        tokio::spawn(keep_probing(service.clone(), key.clone(), probe, interval, self.outlet.clone()))
    }
}

impl Probed {
    fn follows_from(&self, settings: &Arc<ServiceSettings>, running: &[Running]) -> bool {
        self.running == running && (Arc::ptr_eq(&self.settings, settings) || self.settings == *settings)
    }
}

/// The probes that one service asks for.
fn wanted(settings: &ServiceSettings, running: &[Running]) -> HashMap<Key, Spec> {
    let key = |source, replica: Option<&Running>, name: &str| Key {
        source,
        replica: replica.map(|replica| replica.id.clone()),
        name: name.to_owned(),
    };
    let mut wanted = HashMap::new();
    for (name, check) in &settings.checks {
        let spec = |replica: Option<&Running>| Spec::Check {
            signal: Signal::Health,
            check: Box::new(check.clone()),
            replica: replica.cloned(),
        };
        if check.kind.is_of_replicas() {
            wanted.extend(running.iter().map(|r| (key(Source::Check, Some(r), name), spec(Some(r)))));
        } else if !running.is_empty() {
            // One question for the whole service, asked while there is anybody to answer it.
            wanted.insert(key(Source::Check, None, name), spec(None));
        }
    }
    for (name, dependency) in &settings.dependencies {
        // Another service is watched as such. What is checked is checked even while nothing of the service runs: that
        // may be why.
        if let Dependency::Check(check) = dependency {
            let spec =
                Spec::Check { signal: Signal::Dependencies, check: Box::new(check.clone()), replica: None };
            wanted.insert(key(Source::Dependency, None, name), spec);
        }
    }
    wanted.extend(sources(settings, running));
    let stats = Wanted {
        memory: judged(settings, Signal::Memory),
        host_memory: settings.host_memory,
        cpu: judged(settings, Signal::Cpu),
    };
    if stats.memory || stats.cpu {
        wanted.extend(running.iter().map(|r| {
            let interval = settings.memory_interval;
            (key(Source::Stats, Some(r), ""), Spec::Stats { replica: r.id.clone(), wanted: stats, interval })
        }));
    }
    wanted
}

/// The probes of what counts its requests and reads its logs.
fn sources(settings: &ServiceSettings, running: &[Running]) -> HashMap<Key, Spec> {
    let key = |source, replica: Option<&Running>| Key {
        source,
        replica: replica.map(|replica| replica.id.clone()),
        name: String::new(),
    };
    let mut wanted = HashMap::new();
    if let Some(source) = &settings.metrics {
        let spec = |replica: Option<&Running>| Spec::Metrics {
            source: Box::new(source.clone()),
            replica: replica.cloned(),
        };
        if matches!(source.target, Target::Replica { .. }) {
            wanted.extend(running.iter().map(|r| (key(Source::Metrics, Some(r)), spec(Some(r)))));
        } else if !running.is_empty() {
            wanted.insert(key(Source::Metrics, None), spec(None));
        }
    }
    if let Some(source) = settings.prometheus.as_ref().filter(|_| !running.is_empty()) {
        wanted.insert(key(Source::Promql, None), Spec::Promql(Box::new(source.clone())));
    }
    let logs = &settings.logs;
    if logs.enabled && (judged(settings, Signal::Logs) || logs.access != AccessLog::Off) {
        wanted.extend(running.iter().map(|r| {
            (key(Source::Logs, Some(r)), Spec::Logs { source: Box::new(logs.clone()), replica: r.id.clone() })
        }));
    }
    wanted
}

/// Whether any row of the matrix looks at it.
fn judged(settings: &ServiceSettings, signal: Signal) -> bool {
    settings.rules.iter().any(|rule| rule.signal() == signal && rule.action != Action::Off)
}

/// Where results go, and how many may be on their way.
#[derive(Debug, Clone)]
struct Outlet {
    inputs: mpsc::Sender<Input>,
    permits: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

/// Measures at once and then at every interval, one at a time, until nobody listens any more.
async fn keep_probing(
    service: ServiceName,
    key: Key,
    probe: Box<dyn Probe>,
    interval: Duration,
    outlet: Outlet,
) {
    let mut due = tokio::time::interval(interval);
    // A probe that took longer than the interval is not made up for.
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let measured = {
            let Ok(_permit) = outlet.permits.acquire().await else {
                return;
            };
            probe.measure().await
        };
        for (signal, measurement) in measured {
            let sampled = Input::Sampled {
                service: service.clone(),
                replica: key.replica.clone(),
                signal,
                name: key.name.clone(),
                measurement,
            };
            match outlet.inputs.try_send(sampled) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    outlet.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }
}

/// `interval`, longer or shorter by up to [`JITTER`], the same for the same probe.
fn jittered(interval: Duration, service: &ServiceName, key: &Key) -> Duration {
    let mut hasher = DefaultHasher::new();
    (service, key).hash(&mut hasher);
    let share = (hasher.finish() % 2001) as f64 / 1000.0 - 1.0;
    interval.mul_f64(JITTER.mul_add(share, 1.0)).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::clock::Clock;
    use crate::core::Timestamp;
    use crate::core::release::{ImageId, Release, ReleaseId};
    use crate::core::sample::Measurement;
    use crate::core::settings::CheckKind;
    use crate::signal::check::{CommandRunner, Ran};
    use crate::signal::logs::{EngineTime, Following, Unfollowed};
    use crate::signal::stats::{MemoryUse, Stats};

    /// Memory that is always the same, and whoever asks for it.
    #[derive(Debug, Default)]
    struct Memory {
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
        /// If set, nobody gets an answer before it is notified.
        gate: Option<Notify>,
    }

    #[async_trait]
    impl StatsSource for Memory {
        async fn stats(&self, _: &ReplicaId) -> Result<Stats, String> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(Stats { memory: MemoryUse { used: 1, limit: 2, limited: true }, throttling: None })
        }
    }

    /// Settings that ask for memory only.
    fn quiet() -> ServiceSettings {
        let logs = LogSource { enabled: false, ..LogSource::default() };
        ServiceSettings { logs, ..ServiceSettings::default() }
    }

    /// Nobody writes a log.
    #[derive(Debug)]
    struct NoLogs;

    #[async_trait]
    impl LogStreams for NoLogs {
        async fn follow(&self, _: &ReplicaId, _: Option<EngineTime>) -> Result<Following, Unfollowed> {
            Err(Unfollowed::Never("no log".into()))
        }
    }

    /// Every command ends well.
    #[derive(Debug)]
    struct Commands;

    #[async_trait]
    impl CommandRunner for Commands {
        async fn prepare(&self, replica: &ReplicaId, _: &[String]) -> Result<String, String> {
            Ok(replica.as_str().to_owned())
        }

        async fn run(&self, _: &str) -> Result<Ran, String> {
            Ok(Ran { code: 0, output: String::new() })
        }

        async fn runs(&self, _: &str) -> Result<bool, String> {
            Ok(false)
        }
    }

    /// The shipped settings with nothing but memory to look at.
    fn only_memory() -> ServiceSettings {
        let mut settings = quiet();
        settings.rules.retain(|rule| rule.signal() == Signal::Memory);
        settings
    }

    fn replica(id: &str, phase: Phase) -> Replica {
        Replica {
            id: ReplicaId::new(id),
            name: id.into(),
            release: Release {
                id: ReleaseId::new("r"),
                image: ImageId::new("sha256:r"),
                reference: "shop:1".into(),
                digests: Vec::new(),
                fingerprint: String::new(),
                version: None,
            },
            created: Timestamp::default(),
            started: None,
            phase,
            restart_count: 0,
            restarts: true,
            health: None,
            exit_code: None,
            start_error: None,
            address: None,
        }
    }

    fn scheduler(source: &Arc<Memory>, room: usize) -> (Scheduler, mpsc::Receiver<Input>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (inputs, outputs) = mpsc::channel(room);
        let checks = CheckTools { commands: Arc::new(Commands), clock: Clock::start() };
        (Scheduler::new(inputs, Tools { checks, stats: source.clone(), logs: Arc::new(NoLogs) }), outputs)
    }

    fn shop(
        settings: &ServiceSettings,
        replicas: &[Replica],
    ) -> [(ServiceName, Arc<ServiceSettings>, Vec<Replica>); 1] {
        [(ServiceName::new("shop"), Arc::new(settings.clone()), replicas.to_vec())]
    }

    async fn who(outputs: &mut mpsc::Receiver<Input>) -> (Option<String>, Signal, Measurement) {
        match outputs.recv().await.unwrap() {
            Input::Sampled { replica, signal, measurement, .. } => {
                (replica.map(|r| r.as_str().to_owned()), signal, measurement)
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_probe_comes_at_once_and_the_next_after_the_interval() {
        let source = Arc::new(Memory::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        scheduler.sync(&shop(&only_memory(), &[replica("a", Phase::Running)]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let sampled = outputs.try_recv().unwrap();
        assert!(
            matches!(&sampled, Input::Sampled { signal: Signal::Memory, measurement, .. }
                if *measurement == Measurement::Level { used: 1, limit: 2 }),
            "{sampled:?}"
        );
        // Every five seconds, a tenth more or less.
        tokio::time::sleep(Duration::from_millis(4_490)).await;
        assert!(outputs.try_recv().is_err());
        tokio::time::sleep(Duration::from_millis(1_020)).await;
        assert_eq!(who(&mut outputs).await.0.as_deref(), Some("a"));
        assert_eq!(source.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_runs_is_probed_and_nothing_is_started_twice() {
        let source = Arc::new(Memory::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        let settings = only_memory();
        let phases = [Phase::Created, Phase::Restarting, Phase::Paused, Phase::Exited, Phase::Gone];
        let mut replicas: Vec<_> =
            phases.iter().enumerate().map(|(i, p)| replica(&i.to_string(), *p)).collect();
        scheduler.sync(&shop(&settings, &replicas));
        assert!(scheduler.is_empty());
        replicas.push(replica("a", Phase::Running));
        for _ in 0..3 {
            scheduler.sync(&shop(&settings, &replicas));
        }
        assert_eq!(scheduler.len(), 1);
        assert_eq!(who(&mut outputs).await.0.as_deref(), Some("a"));
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        scheduler.sync(&shop(&settings, &[]));
        assert!(scheduler.is_empty());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(source.asked.load(Ordering::SeqCst), 1, "it stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_started_anew_and_nothing_else() {
        let source = Arc::new(Memory::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        let mut settings = only_memory();
        let mut replicas = vec![replica("a", Phase::Running), replica("b", Phase::Running)];
        let everybody = Target::Replica { port: 80, path: "/".into() };
        let check = |target| HealthCheck::get(target, Duration::from_secs(10), Duration::from_secs(2));
        settings.checks.insert("health".into(), check(everybody));
        scheduler.sync(&shop(&settings, &replicas));
        assert_eq!(scheduler.len(), 4);
        for _ in 0..4 {
            who(&mut outputs).await;
        }
        // An address appears: the health probe of that replica is another one, and asks at once.
        replicas[1].address = Some([127, 0, 0, 1].into());
        scheduler.sync(&shop(&settings, &replicas));
        let (asked, signal, _) = who(&mut outputs).await;
        assert_eq!((asked.as_deref(), signal), (Some("b"), Signal::Health));
        assert!(outputs.try_recv().is_err());
        // The matrix no longer asks for memory.
        for rule in &mut settings.rules {
            if rule.signal() == Signal::Memory {
                rule.action = Action::Off;
            }
        }
        scheduler.sync(&shop(&settings, &replicas));
        assert_eq!(scheduler.len(), 2);
        // One URL for all.
        settings.checks.insert("health".into(), check(Target::Url("ftp://nowhere/".into())));
        scheduler.sync(&shop(&settings, &replicas));
        assert_eq!(scheduler.len(), 1);
        let (asked, signal, _) = who(&mut outputs).await;
        assert_eq!((asked, signal), (None, Signal::Health));
        replicas.iter_mut().for_each(|r| r.phase = Phase::Exited);
        scheduler.sync(&shop(&settings, &replicas));
        assert!(scheduler.is_empty(), "nobody is there to answer");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_up_by_a_full_queue() {
        let source = Arc::new(Memory::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 1);
        scheduler.sync(&shop(&only_memory(), &[replica("a", Phase::Running)]));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = source.asked.load(Ordering::SeqCst);
        assert!(asked >= 10, "{asked}");
        assert_eq!(scheduler.dropped(), asked as u64 - 1);
        who(&mut outputs).await;
        who(&mut outputs).await;
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_no_more() {
        let source = Arc::new(Memory { gate: Some(Notify::new()), ..Memory::default() });
        let (mut scheduler, _outputs) = scheduler(&source, 1024);
        let replicas: Vec<_> = (0..3 * AT_ONCE).map(|i| replica(&i.to_string(), Phase::Running)).collect();
        scheduler.sync(&shop(&only_memory(), &replicas));
        // Ten seconds are the longest that one takes: then the next have their turn.
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(source.asked.load(Ordering::SeqCst), AT_ONCE);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(source.asked.load(Ordering::SeqCst), 2 * AT_ONCE);
        drop(scheduler);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(source.asked.load(Ordering::SeqCst), 2 * AT_ONCE, "dropping it stops all");
    }

    #[test]
    fn intervals_differ_by_a_tenth_and_are_always_the_same() {
        let key = Key { source: Source::Check, replica: None, name: String::new() };
        let jittered = |interval, n: u32| jittered(interval, &ServiceName::new(format!("s{n}")), &key);
        let ten = Duration::from_secs(10);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..100 {
            let interval = jittered(ten, n);
            assert_eq!(interval, jittered(ten, n));
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&interval), "{interval:?}");
            seen.insert(interval);
        }
        assert!(seen.len() > 50);
        assert_eq!(jittered(Duration::ZERO, 1), SHORTEST);
    }

    fn names(scheduler: &Scheduler) -> Vec<String> {
        let keys = scheduler.services.values().flat_map(|probed| probed.tasks.keys());
        let told = |key: &Key| {
            let replica = key.replica.as_ref().map_or("-", |replica| replica.as_str());
            format!("{:?} {replica} {}", key.source, key.name)
        };
        let mut all: Vec<String> = keys.map(told).collect();
        all.sort();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn every_source_that_is_asked_for_is_asked_and_no_other() {
        let (mut scheduler, mut outputs) = scheduler(&Arc::default(), 64);
        let mut settings = quiet();
        let every = |kind| HealthCheck {
            kind,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            required: true,
        };
        let url = |url: &str| Target::Url(url.into());
        let command = || every(CheckKind::Command(vec!["true".into()]));
        settings.checks.insert("exec".into(), command());
        settings.checks.insert("port".into(), every(CheckKind::Tcp(url("tcp://nobody.invalid:1"))));
        let db = every(CheckKind::Tcp(url("nonsense")));
        settings.dependencies.insert("db".into(), Dependency::Check(db));
        settings.dependencies.insert("auth".into(), Dependency::Service(ServiceName::new("auth")));
        settings.rules.retain(|rule| rule.signal() == Signal::Cpu);

        scheduler.sync(&shop(&settings, &[]));
        assert_eq!(names(&scheduler), ["Dependency - db"], "it may be why nothing runs");
        let Some(Input::Sampled { signal, name, replica: of, measurement, .. }) = outputs.recv().await else {
            panic!("nothing was sampled")
        };
        assert_eq!((signal, name.as_str(), of), (Signal::Dependencies, "db", None));
        assert!(matches!(measurement, Measurement::Unavailable { .. }), "{measurement:?}");

        let replicas = [replica("a", Phase::Running), replica("b", Phase::Running)];
        scheduler.sync(&shop(&settings, &replicas));
        let all = ["Check - port", "Check a exec", "Check b exec", "Dependency - db", "Stats a ", "Stats b "];
        assert_eq!(names(&scheduler), all);
        let mut cpu = 0;
        for _ in 0..5 {
            match outputs.recv().await.unwrap() {
                Input::Sampled { signal: Signal::Cpu, name, .. } if name.is_empty() => cpu += 1,
                Input::Sampled { signal: Signal::Health, name, measurement, .. } if name == "exec" => {
                    assert!(matches!(measurement, Measurement::Check { ok: true, .. }), "{measurement:?}");
                }
                Input::Sampled { signal: Signal::Health, name, .. } if name == "port" => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(cpu, 2, "memory is judged by no row, so it is not told");

        settings.rules.clear();
        settings.checks.clear();
        settings.dependencies.clear();
        scheduler.sync(&shop(&settings, &replicas));
        assert!(scheduler.is_empty(), "{:?}", names(&scheduler));
    }
}
