//! Memory and CPU of a replica: its working set against its limit, and how long the CPU limit held it back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Probe;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::release::ReplicaId;
use crate::core::sample::{Measurement, Signal};

/// How long the engine may take. Its own sampling takes up to two seconds; ten mean that it is in trouble.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whoever knows what a replica uses.
#[async_trait]
pub trait StatsSource: std::fmt::Debug + Send + Sync {
    /// What the replica uses now.
    ///
    /// # Errors
    /// Why it could not be measured, for people.
    async fn stats(&self, replica: &ReplicaId) -> Result<Stats, String>;
}

/// What a replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Its memory.
    pub memory: MemoryUse,
    /// What its CPU limit did to it; none if the engine does not tell.
    pub throttling: Option<Throttling>,
}

/// How much memory a replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Working set in bytes: what the kernel cannot give to others without swapping.
    pub used: u64,
    /// The most it may use, in bytes: its own limit, or the host's memory.
    pub limit: u64,
    /// Whether `limit` is its own.
    pub limited: bool,
}

/// Counters since the replica started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    /// Periods (100 ms each, by default) in which it ran under a CPU limit; 0 without one.
    pub periods: u64,
    /// Those in which it used its share up and had to wait.
    pub throttled: u64,
}

/// What is to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Memory.
    pub memory: bool,
    /// Measure a replica without a memory limit against the host's memory.
    pub host_memory: bool,
    /// CPU throttling.
    pub cpu: bool,
}

/// Measures one replica's memory and CPU.
#[derive(Debug)]
pub struct StatsProbe {
    source: Arc<dyn StatsSource>,
    replica: ReplicaId,
    wanted: Wanted,
    clock: Clock,
    /// The counters when they were last looked at.
    last: Mutex<Option<(Timestamp, Throttling)>>,
}

impl StatsProbe {
    /// A probe for `replica` that reports what is `wanted`.
    pub fn new(source: Arc<dyn StatsSource>, replica: ReplicaId, wanted: Wanted, clock: Clock) -> Self {
        Self { source, replica, wanted, clock, last: Mutex::default() }
    }

    fn memory(&self, memory: MemoryUse) -> Measurement {
        if !memory.limited && !self.wanted.host_memory {
            return Measurement::NotApplicable { why: "no memory limit set".into() };
        }
        if memory.limit == 0 {
            return unavailable("the engine does not say what its memory limit is");
        }
        Measurement::Level { used: memory.used, limit: memory.limit }
    }

    /// None if there is nothing to compare with yet: at the first look, and after a restart.
    fn cpu(&self, throttling: Option<Throttling>) -> Option<Measurement> {
        let not_applicable = |why: &str| Some(Measurement::NotApplicable { why: why.into() });
        let Some(now) = throttling else {
            return not_applicable("the engine does not tell of CPU throttling");
        };
        if now.periods == 0 {
            return not_applicable("no CPU limit set");
        }
        let at = self.clock.now();
        // Two numbers and a time, always written together: still good if somebody panicked meanwhile.
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace((at, now));
        let (since, before) = before?;
        let periods = now.periods.checked_sub(before.periods)?;
        let throttled = now.throttled.checked_sub(before.throttled)?.min(periods);
        // Nothing ran, so nothing was held back.
        let share = if periods == 0 { 0.0 } else { throttled as f64 / periods as f64 };
        Some(Measurement::Share { share, window: at.since(since) })
    }
}

#[async_trait]
impl Probe for StatsProbe {
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        let (memory, cpu) = match tokio::time::timeout(TIMEOUT, self.source.stats(&self.replica)).await {
            Ok(Ok(stats)) => (self.memory(stats.memory), self.cpu(stats.throttling)),
            Ok(Err(why)) => (unavailable(&why), Some(unavailable(&why))),
            Err(_) => {
                let why = "the engine did not say within 10s what it uses";
                (unavailable(why), Some(unavailable(why)))
            }
        };
        let memory = self.wanted.memory.then_some((Signal::Memory, memory));
        let cpu = cpu.filter(|_| self.wanted.cpu).map(|cpu| (Signal::Cpu, cpu));
        memory.into_iter().chain(cpu).collect()
    }
}

fn unavailable(why: &str) -> Measurement {
    Measurement::Unavailable { why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted { memory: true, host_memory: false, cpu: true };

    /// Answers one after the other; the last one stays.
    #[derive(Debug)]
    struct Says(Mutex<Vec<Result<Stats, String>>>);

    #[async_trait]
    impl StatsSource for Says {
        async fn stats(&self, _: &ReplicaId) -> Result<Stats, String> {
            let mut answers = self.0.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        }
    }

    #[derive(Debug)]
    struct Hangs;

    #[async_trait]
    impl StatsSource for Hangs {
        async fn stats(&self, _: &ReplicaId) -> Result<Stats, String> {
            std::future::pending().await
        }
    }

    fn probe(source: impl StatsSource + 'static, wanted: Wanted) -> StatsProbe {
        StatsProbe::new(Arc::new(source), ReplicaId::new("r"), wanted, Clock::start())
    }

    async fn memory(source: impl StatsSource + 'static, host_memory: bool) -> Measurement {
        let mut measured = probe(source, Wanted { host_memory, cpu: false, ..ALL }).measure().await;
        assert_eq!(measured.len(), 1);
        assert_eq!(measured[0].0, Signal::Memory);
        measured.remove(0).1
    }

    fn says(used: u64, limit: u64, limited: bool) -> Says {
        let memory = MemoryUse { used, limit, limited };
        Says(Mutex::new(vec![Ok(Stats { memory, throttling: None })]))
    }

    fn counts(pairs: &[(u64, u64)]) -> Says {
        let memory = MemoryUse { used: 1, limit: 2, limited: true };
        let stats = |&(periods, throttled): &(u64, u64)| {
            Ok(Stats { memory, throttling: Some(Throttling { periods, throttled }) })
        };
        Says(Mutex::new(pairs.iter().map(stats).collect()))
    }

    #[tokio::test]
    async fn a_limit_of_its_own_is_always_measured() {
        let level = Measurement::Level { used: 90, limit: 100 };
        assert_eq!(memory(says(90, 100, true), false).await, level);
        assert_eq!(memory(says(90, 100, true), true).await, level);
    }

    #[tokio::test]
    async fn the_hosts_memory_counts_only_if_somebody_wants_that() {
        assert!(matches!(
            memory(says(90, 100, false), false).await,
            Measurement::NotApplicable { why } if why == "no memory limit set"
        ));
        assert!(matches!(memory(says(90, 100, false), true).await, Measurement::Level { .. }));
        assert!(matches!(memory(says(90, 0, true), true).await, Measurement::Unavailable { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn not_knowing_is_neither_good_nor_bad() {
        let broken = probe(Says(Mutex::new(vec![Err("no such container".into())])), ALL).measure().await;
        let none = Measurement::Unavailable { why: "no such container".into() };
        assert_eq!(broken, [(Signal::Memory, none.clone()), (Signal::Cpu, none)]);
        for (_, measurement) in probe(Hangs, ALL).measure().await {
            assert!(matches!(measurement, Measurement::Unavailable { .. }));
        }
    }

    #[tokio::test]
    async fn throttling_is_the_share_of_the_periods_since_the_last_look() {
        let probe = probe(
            counts(&[(100, 50), (200, 125), (200, 125), (300, 900), (10, 0), (20, 5)]),
            Wanted { memory: false, ..ALL },
        );
        let mut shares = Vec::new();
        for _ in 0..6 {
            shares.push(match probe.measure().await.as_slice() {
                [] => None,
                [(Signal::Cpu, Measurement::Share { share, window })] => {
                    assert!(*window < Duration::from_secs(10), "{window:?}");
                    Some(*share)
                }
                other => panic!("{other:?}"),
            });
        }
        // Nothing to compare with at first, nothing ran, nonsense, and a restart that set the counters back.
        assert_eq!(shares, [None, Some(0.75), Some(0.0), Some(1.0), None, Some(0.5)]);
    }

    #[tokio::test]
    async fn without_a_cpu_limit_there_is_nothing_to_measure() {
        let why = |measured: Vec<(Signal, Measurement)>| match measured.into_iter().nth(1) {
            Some((Signal::Cpu, Measurement::NotApplicable { why })) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(probe(counts(&[(0, 0)]), ALL).measure().await), "no CPU limit set");
        assert_eq!(
            why(probe(says(1, 2, true), ALL).measure().await),
            "the engine does not tell of CPU throttling"
        );
    }
}
