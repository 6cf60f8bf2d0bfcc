//! Everything that needs no engine, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

<<<<<<< HEAD
mod api;
mod cli;
mod config;
mod picture;
=======
>>>>>>> rollback
mod saga;
mod tidy;
mod timelines;
