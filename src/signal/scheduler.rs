//! Keeps one probe a signal and replica going, in step with the fleet.
//!
//! It decides when to measure, never what a measurement means, and it never holds anybody up: a result that nobody
//! takes is counted and dropped, because the next one says more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::Probe;
use super::http::{HealthClients, HttpProbe};
use super::memory::{MemoryProbe, MemorySource};
use crate::clock::Clock;
use crate::core::Input;
use crate::core::observation::{Phase, Replica};
use crate::core::release::{ReplicaId, ServiceName};
use crate::core::sample::Signal;
use crate::core::settings::{Action, CheckKind, HealthCheck, HttpStep, ServiceSettings, Target};

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
    inputs: mpsc::Sender<Input>,
    clients: HealthClients,
    memory: Arc<dyn MemorySource>,
    clock: Clock,
    permits: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
    tasks: HashMap<Key, Task>,
}

/// Who is probed for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    service: ServiceName,
    replica: Option<ReplicaId>,
    signal: Signal,
    name: String,
}

/// How: a probe is made anew when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spec {
    Health { check: HealthCheck, step: Box<HttpStep>, address: Option<IpAddr> },
    Memory { replica: ReplicaId, interval: Duration, host_memory: bool },
}

#[derive(Debug)]
struct Task {
    spec: Spec,
    _running: AbortOnDropHandle<()>,
}

impl Scheduler {
    /// A scheduler without probes: [`Self::sync`] starts them. Results go to `inputs`.
    pub fn new(
        inputs: mpsc::Sender<Input>,
        clients: HealthClients,
        memory: Arc<dyn MemorySource>,
        clock: Clock,
    ) -> Self {
        Self {
            inputs,
            clients,
            memory,
            clock,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            dropped: Arc::default(),
            tasks: HashMap::new(),
        }
    }

    /// Starts, stops and restarts probes, so that exactly the running replicas of `services` are probed as their
    /// settings say. A probe that need not change is left alone. Must be called on a tokio runtime.
    pub fn sync(&mut self, services: &[(ServiceName, Arc<ServiceSettings>, Vec<Replica>)]) {
        let mut wanted = HashMap::new();
        for (service, settings, replicas) in services {
            want(&mut wanted, service, settings, replicas);
        }
        self.tasks.retain(|key, task| wanted.get(key) == Some(&task.spec));
        for (key, spec) in wanted {
            if !self.tasks.contains_key(&key) {
                let running = self.start(&key, &spec);
                self.tasks.insert(key, Task { spec, _running: AbortOnDropHandle::new(running) });
            }
        }
    }

    /// How many probes are kept going.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether no probe is kept going.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many results were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn start(&self, key: &Key, spec: &Spec) -> tokio::task::JoinHandle<()> {
        let (probe, interval): (Box<dyn Probe>, _) = match spec {
            Spec::Health { check, step, address } => (
                Box::new(HttpProbe::new(&self.clients, step, check.timeout, *address, self.clock)),
                check.interval,
            ),
            Spec::Memory { replica, interval, host_memory } => (
                Box::new(MemoryProbe::new(Arc::clone(&self.memory), replica.clone(), *host_memory)),
                *interval,
            ),
        };
        tokio::spawn(keep_probing(
            key.clone(),
            probe,
            jittered(interval, key),
            Outlet {
                inputs: self.inputs.clone(),
                permits: Arc::clone(&self.permits),
                dropped: Arc::clone(&self.dropped),
            },
        ))
    }
}

/// What one service asks for.
fn want(
    wanted: &mut HashMap<Key, Spec>,
    service: &ServiceName,
    settings: &ServiceSettings,
    replicas: &[Replica],
) {
    let key = |replica: Option<&Replica>, signal, name: &str| Key {
        service: service.clone(),
        replica: replica.map(|r| r.id.clone()),
        signal,
        name: name.to_owned(),
    };
    let running = || replicas.iter().filter(|r| r.phase == Phase::Running);
    for (name, check) in &settings.checks {
        let CheckKind::Http(steps) = &check.kind else { continue };
        let Some(step) = steps.first() else { continue };
        match &step.target {
            // One question for the whole service, asked while there is anybody to answer it.
            Target::Url(_) if running().next().is_some() => {
                let spec = Spec::Health { check: check.clone(), step: Box::new(step.clone()), address: None };
                wanted.insert(key(None, Signal::Health, name), spec);
            }
            Target::Url(_) => {}
            Target::Replica { .. } => wanted.extend(running().map(|replica| {
                let (step, address) = (Box::new(step.clone()), replica.address);
                (
                    key(Some(replica), Signal::Health, name),
                    Spec::Health { check: check.clone(), step, address },
                )
            })),
        }
    }
    let memory_matters =
        settings.rules.iter().any(|rule| rule.signal() == Signal::Memory && rule.action != Action::Off);
    if memory_matters {
        wanted.extend(running().map(|replica| {
            let spec = Spec::Memory {
                replica: replica.id.clone(),
                interval: settings.memory_interval,
                host_memory: settings.host_memory,
            };
            (key(Some(replica), Signal::Memory, ""), spec)
        }));
    }
}

/// Where results go.
#[derive(Debug)]
struct Outlet {
    inputs: mpsc::Sender<Input>,
    permits: Arc<Semaphore>,
    dropped: Arc<AtomicU64>,
}

/// Measures at once and then at every interval, one at a time, until nobody listens any more.
async fn keep_probing(key: Key, probe: Box<dyn Probe>, interval: Duration, outlet: Outlet) {
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
                service: key.service.clone(),
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

/// `interval`, longer or shorter by up to [`JITTER`], the same for the same key.
fn jittered(interval: Duration, key: &Key) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let share = (hasher.finish() % 2001) as f64 / 1000.0 - 1.0;
    interval.mul_f64(JITTER.mul_add(share, 1.0)).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::core::Timestamp;
    use crate::core::release::{ImageId, Release, ReleaseId};
    use crate::core::sample::Measurement;
    use crate::signal::memory::MemoryUse;

    /// Memory that is always the same, and whoever asks for it.
    #[derive(Debug, Default)]
    struct Source {
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
        /// If set, nobody gets an answer before it is notified.
        gate: Option<Notify>,
    }

    #[async_trait]
    impl MemorySource for Source {
        async fn memory(&self, _: &ReplicaId) -> Result<MemoryUse, String> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(now, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(MemoryUse { used: 1, limit: 2, limited: true })
        }
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

    fn scheduler(source: &Arc<Source>, room: usize) -> (Scheduler, mpsc::Receiver<Input>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (inputs, outputs) = mpsc::channel(room);
        let source: Arc<dyn MemorySource> = source.clone();
        (Scheduler::new(inputs, HealthClients::new(), source, Clock::start()), outputs)
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
        let source = Arc::new(Source::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        scheduler.sync(&shop(&ServiceSettings::default(), &[replica("a", Phase::Running)]));
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
        let source = Arc::new(Source::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        let settings = ServiceSettings::default();
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
        let source = Arc::new(Source::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 16);
        let mut settings = ServiceSettings::default();
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
        let source = Arc::new(Source::default());
        let (mut scheduler, mut outputs) = scheduler(&source, 1);
        scheduler.sync(&shop(&ServiceSettings::default(), &[replica("a", Phase::Running)]));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = source.asked.load(Ordering::SeqCst);
        assert!(asked >= 10, "{asked}");
        assert_eq!(scheduler.dropped(), asked as u64 - 1);
        who(&mut outputs).await;
        who(&mut outputs).await;
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_no_more() {
        let source = Arc::new(Source { gate: Some(Notify::new()), ..Source::default() });
        let (mut scheduler, _outputs) = scheduler(&source, 1024);
        let replicas: Vec<_> = (0..3 * AT_ONCE).map(|i| replica(&i.to_string(), Phase::Running)).collect();
        scheduler.sync(&shop(&ServiceSettings::default(), &replicas));
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
        let key = |n: u32| Key {
            service: ServiceName::new(format!("s{n}")),
            replica: None,
            signal: Signal::Health,
            name: String::new(),
        };
        let ten = Duration::from_secs(10);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..100 {
            let interval = jittered(ten, &key(n));
            assert_eq!(interval, jittered(ten, &key(n)));
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&interval), "{interval:?}");
            seen.insert(interval);
        }
        assert!(seen.len() > 50);
        assert_eq!(jittered(Duration::ZERO, &key(1)), SHORTEST);
    }
}
