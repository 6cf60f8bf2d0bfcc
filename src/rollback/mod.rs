//! Rolling back: carries a plan out so that a crash at any moment leaves the service in exactly one of three states:
//! what ran before still runs, the target runs, or a person is called.
//!
//! The [`journal`] says what was intended, durably, before anything is done; [`executor`] is what the rest of the
//! program calls; `saga` carries one plan out, forward or backward; [`recovery`] finishes at start-up what a crash
//! interrupted. Nothing here decides whether to roll back, and nothing is touched that the plan does not name.

use async_trait::async_trait;
use serde_json::Value;

use crate::core::release::{ReleaseId, RollbackId, ServiceName};
use crate::runtime::Snapshot;

pub mod journal;
mod tell;
pub mod hooks;
mod saga;
mod together;
pub mod mitigation;
pub mod drill;
pub mod executor;
pub mod recovery;

pub use executor::Executor;
pub use journal::{JournalError, JournalEvent};
pub use recovery::{CrashingStore, Recovered};

/// What the executor needs to be remembered. Errors are sentences for people.
#[async_trait]
pub trait SagaStore: std::fmt::Debug + Send + Sync {
    /// Appends to a rollback's journal. When this returns, the event survives a power cut. An event that
    /// [closes](JournalEvent::closes) its journal ends it: it is no longer among [`Self::unfinished`].
    ///
    /// # Errors
    /// If it may not be durable. It may be all the same: the caller may append it again.
    async fn append(&self, rollback: &RollbackId, event: &JournalEvent) -> Result<(), String>;

    /// Every journal that was not closed, oldest rollback first, each with its events as they were serialized,
    /// in the order in which they were appended. One that makes no sense must not hide the others.
    ///
    /// # Errors
    /// If the journals cannot be read at all.
    async fn unfinished(&self) -> Result<Vec<(RollbackId, Vec<Value>)>, String>;

    /// The recorded specifications of a known-good release, one a replica; empty if there are none.
    ///
    /// # Errors
    /// If they cannot be read.
    async fn snapshots(&self, service: &ServiceName, release: &ReleaseId) -> Result<Vec<Snapshot>, String>;
}
