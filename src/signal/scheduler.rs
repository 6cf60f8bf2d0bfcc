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
use crate::core::settings::{Action, HealthCheck, HealthTarget, ServiceSettings};

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
}

/// How: a probe is made anew when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spec {
    Health { check: HealthCheck, address: Option<IpAddr> },
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
            Spec::Health { check, address } => {
                (Box::new(HttpProbe::new(&self.clients, check, *address, self.clock)), check.interval)
            }
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
    let key = |replica: Option<&Replica>, signal| Key {
        service: service.clone(),
        replica: replica.map(|r| r.id.clone()),
        signal,
    };
    let running = || replicas.iter().filter(|r| r.phase == Phase::Running);
    if let Some(check) = &settings.health {
        match &check.target {
            // One question for the whole service, asked while there is anybody to answer it.
            HealthTarget::Url(_) if running().next().is_some() => {
                let spec = Spec::Health { check: check.clone(), address: None };
                wanted.insert(key(None, Signal::Health), spec);
            }
            HealthTarget::Url(_) => {}
            HealthTarget::Replica { .. } => wanted.extend(running().map(|replica| {
                let spec = Spec::Health { check: check.clone(), address: replica.address };
                (key(Some(replica), Signal::Health), spec)
            })),
        }
    }
    let memory_matters =
        settings.rules.iter().any(|rule| rule.signal == Signal::Memory && rule.action != Action::Off);
    if memory_matters {
        wanted.extend(running().map(|replica| {
            let spec = Spec::Memory {
                replica: replica.id.clone(),
                interval: settings.memory_interval,
                host_memory: settings.host_memory,
            };
            (key(Some(replica), Signal::Memory), spec)
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
        let measurement = {
            let Ok(_permit) = outlet.permits.acquire().await else {
                return;
            };
            probe.measure().await
        };
        let sampled = Input::Sampled {
            service: key.service.clone(),
            replica: key.replica.clone(),
            signal: key.signal,
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

/// `interval`, longer or shorter by up to [`JITTER`], the same for the same key.
fn jittered(interval: Duration, key: &Key) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let share = (hasher.finish() % 2001) as f64 / 1000.0 - 1.0;
    interval.mul_f64(JITTER.mul_add(share, 1.0)).max(SHORTEST)
}
