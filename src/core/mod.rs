//! The pure core: decides, and does nothing else.
//!
//! It does no IO, reads no clock, spawns and logs nothing. [`Input`]s come in with their time, [`Effect`]s go out,
//! and the same inputs give the same effects: that is what makes decisions testable and replayable.
//!
//! In reading order: what things are ([`time`], [`release`], [`observation`], [`sample`], [`settings`]), what is
//! decided ([`decision`], [`announcement`], [`ledger`]), the two sides of the core ([`io`]), and the plan that the
//! executor carries out ([`plan`]).

pub mod announcement;
pub mod decision;
pub mod io;
pub mod ledger;
pub mod observation;
pub mod plan;
pub mod release;
pub mod sample;
pub mod settings;
pub mod snapshot;
pub mod time;

pub use io::{Command, Effect, EngineState, Executed, Input, RollbackRequest};
pub use time::Timestamp;
