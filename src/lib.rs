//! Backstop undoes bad deployments: it notices every new release of a service, judges it by the operators' decision
//! matrix, rolls it back to the last release that proved itself, proves that this worked, and says why.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
#[doc(inline)]
pub use backstop_core as core;
pub mod metrics;
pub mod notify;
pub mod hooks;
pub mod flight;
pub mod replay;
pub mod report;
pub mod rollback;
pub mod runtime;
pub mod signal;
pub mod store;
pub mod systemd;
pub mod telemetry;
