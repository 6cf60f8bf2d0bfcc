//! Tests from outside: one binary.
#![allow(clippy::unwrap_used)]

mod saga;
