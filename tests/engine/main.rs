//! End to end, on a real Docker Engine: a container is deployed, Backstop runs as a program of its own, and what the
//! engine says afterwards is what counts.
//!
//! These tests are ignored in a plain `cargo test`, because they need private engines: `tests/run engine [FILTER]`
//! starts them, hands them over and takes them down again. Each test leases one for itself.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(clippy::print_stderr, reason = "what a failed test prints is read by a person")]
#![allow(
    clippy::disallowed_methods,
    reason = "a real engine runs in real time, and tests/run talks by environment"
)]

mod support;

mod bad_input;
mod baseline;
mod bed_itself;
mod checks;
mod compose;
mod compose_env;
mod crashes;
mod demo;
mod engines;
mod fidelity;
mod groups;
mod migrations;
mod mitigations;
mod order;
mod people;
mod podman;
mod prometheus;
mod registry;
mod registry_answers;
mod releases;
mod removed;
mod runbooks;
mod signals;
mod steps;
mod superseded;
mod surface;
mod swarm;
mod swarm_conflict;
mod swarm_nodes;
mod symptoms;
mod watching;
mod logs;
