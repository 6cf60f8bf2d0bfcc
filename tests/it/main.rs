//! One binary for all tests that need no engine.

mod config;
