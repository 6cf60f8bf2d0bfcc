//! Backstop undoes bad deployments: it notices every new release of a service, judges it by the operators' decision
//! matrix, rolls it back to the last release that proved itself, proves that this worked, and says why.
//!
//! Fuzzers see only what reads the words of others: what they run on is compiled with instruments, which takes its time.

#[cfg(not(fuzzing))]
pub mod api;
#[cfg(not(fuzzing))]
pub mod app;
#[cfg(not(fuzzing))]
pub mod cli;
pub mod clock;
#[cfg(not(fuzzing))]
pub mod config;
#[doc(inline)]
pub use backstop_core as core;
#[cfg(not(fuzzing))]
pub mod metrics;
#[cfg(not(fuzzing))]
pub mod notify;
#[cfg(not(fuzzing))]
pub mod hooks;
#[cfg(not(fuzzing))]
pub mod flight;
pub mod replay;
#[cfg(not(fuzzing))]
pub mod report;
#[cfg(not(fuzzing))]
pub mod rollback;
#[cfg(not(fuzzing))]
pub mod runtime;
pub mod signal;
#[cfg(not(fuzzing))]
pub mod store;
#[cfg(not(fuzzing))]
pub mod systemd;
#[cfg(not(fuzzing))]
pub mod telemetry;
