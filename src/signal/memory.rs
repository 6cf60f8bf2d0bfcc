//! Memory of a replica: its working set against its limit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Probe;
use crate::core::release::ReplicaId;
use crate::core::sample::{Measurement, Signal};

/// How long the engine may take. Its own sampling takes up to two seconds; ten mean that it is in trouble.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whoever knows how much memory a replica uses.
#[async_trait]
pub trait MemorySource: std::fmt::Debug + Send + Sync {
    /// The replica's memory now.
    ///
    /// # Errors
    /// Why it could not be measured, for people.
    async fn memory(&self, replica: &ReplicaId) -> Result<MemoryUse, String>;
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

/// Measures one replica's memory.
#[derive(Debug)]
pub struct MemoryProbe {
    source: Arc<dyn MemorySource>,
    replica: ReplicaId,
    host_memory: bool,
}

impl MemoryProbe {
    /// A probe for `replica`. With `host_memory`, one without a limit is measured against the host's memory.
    pub const fn new(source: Arc<dyn MemorySource>, replica: ReplicaId, host_memory: bool) -> Self {
        Self { source, replica, host_memory }
    }
}

#[async_trait]
impl Probe for MemoryProbe {
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        let unavailable = |why: &str| Measurement::Unavailable { why: why.into() };
        let memory = match tokio::time::timeout(TIMEOUT, self.source.memory(&self.replica)).await {
            Err(_) => unavailable("the engine did not say within 10s how much memory it uses"),
            Ok(Err(why)) => unavailable(&why),
            Ok(Ok(memory)) if !memory.limited && !self.host_memory => {
                Measurement::NotApplicable { why: "no memory limit set".into() }
            }
            Ok(Ok(memory)) if memory.limit == 0 => {
                unavailable("the engine does not say what its memory limit is")
            }
            Ok(Ok(MemoryUse { used, limit, .. })) => Measurement::Level { used, limit },
        };
        vec![(Signal::Memory, memory)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Says(Result<MemoryUse, String>);

    #[async_trait]
    impl MemorySource for Says {
        async fn memory(&self, _: &ReplicaId) -> Result<MemoryUse, String> {
            self.0.clone()
        }
    }

    #[derive(Debug)]
    struct Hangs;

    #[async_trait]
    impl MemorySource for Hangs {
        async fn memory(&self, _: &ReplicaId) -> Result<MemoryUse, String> {
            std::future::pending().await
        }
    }

    async fn measure(source: impl MemorySource + 'static, host_memory: bool) -> Measurement {
        MemoryProbe::new(Arc::new(source), ReplicaId::new("r"), host_memory).measure().await.remove(0).1
    }

    fn says(used: u64, limit: u64, limited: bool) -> Says {
        Says(Ok(MemoryUse { used, limit, limited }))
    }

    #[tokio::test]
    async fn a_limit_of_its_own_is_always_measured() {
        let level = Measurement::Level { used: 90, limit: 100 };
        assert_eq!(measure(says(90, 100, true), false).await, level);
        assert_eq!(measure(says(90, 100, true), true).await, level);
    }

    #[tokio::test]
    async fn the_hosts_memory_counts_only_if_somebody_wants_that() {
        assert!(matches!(
            measure(says(90, 100, false), false).await,
            Measurement::NotApplicable { why } if why == "no memory limit set"
        ));
        assert!(matches!(measure(says(90, 100, false), true).await, Measurement::Level { .. }));
        assert!(matches!(measure(says(90, 0, true), true).await, Measurement::Unavailable { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn not_knowing_is_neither_good_nor_bad() {
        assert!(matches!(
            measure(Says(Err("no such container".into())), false).await,
            Measurement::Unavailable { why } if why == "no such container"
        ));
        assert!(matches!(measure(Hangs, false).await, Measurement::Unavailable { .. }));
    }
}
