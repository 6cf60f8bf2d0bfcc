//! The pure core: decides, and does nothing else.
//!
//! It does no IO, reads no clock, spawns and logs nothing. [`Input`]s come in with their time, [`Effect`]s go out,
//! and the same inputs give the same effects: that is what makes decisions testable and replayable.
//!
//! In reading order: what things are, what comes in and goes out ([`io`]), the entrance ([`fleet`]), one service
//! (`service`), what it notices (`sighting`), keeps (`window`, [`availability`]), concludes (`assess`, `gate`, `judgement`) and does
//! about a rollback in flight (`pursuit`), and what it shows of itself ([`snapshot`]).
#![deny(clippy::wildcard_enum_match_arm)]

pub mod time;

pub mod release;
pub mod observation;
pub mod sample;
pub mod settings;
pub mod decision;
pub mod announcement;
pub mod ledger;
pub mod availability;
pub mod migration;
pub mod plan;

pub mod io;
pub mod fleet;
mod agenda;
mod engines;
pub mod state;
mod service;
mod sighting;
mod surroundings;
mod window;
mod spells;
mod streak;
mod traffic;
mod latency;
mod pace;
pub mod baseline;
mod chance;
mod assess;
mod gate;
pub mod approval;
pub mod mitigation;
mod group;
mod judgement;
mod pursuit;
mod portrait;
pub mod snapshot;

pub use assess::{Window, windows};
pub use fleet::Fleet;
pub use io::{Command, Effect, EngineState, Executed, HostState, Input, RollbackRequest};
pub use latency::Sketch;
pub use time::Timestamp;
