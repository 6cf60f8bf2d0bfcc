//! Everything that needs no engine, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod api;
mod cli;
mod config;
mod picture;
mod saga;
mod tidy;
mod timelines;
