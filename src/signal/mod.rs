//! Measuring: asks services and engines how they are, and reports it as [`Measurement`]s.
//!
//! Nothing here ever fails: that something could not be measured is a result too, and it is neither good nor bad.
//! Nothing here ever judges, and no answer of a service, however long or strange, may cost more than a bounded
//! amount of time and memory.

use async_trait::async_trait;

use crate::core::sample::{Measurement, Signal};

pub mod check;
pub mod alerts;
pub mod texts;
pub mod tls;
mod fetch;
pub mod scrape;
pub mod promql;
pub mod logs;
pub mod stats;
pub mod host;
pub mod scheduler;

/// Something that can be measured again and again.
#[async_trait]
pub trait Probe: std::fmt::Debug + Send + Sync {
    /// Measures once, and tells everything that this one look shows. Bounded in time by itself: it holds one of the
    /// scheduler's few places meanwhile. Whoever follows a stream does so in a task of its own, and here only tells
    /// what came in since it was last asked.
    async fn measure(&self) -> Vec<(Signal, Measurement)>;
}
