//! Replay: plain traces, and the daemon's own record.

mod record;
mod traces;
