//! Replay: plain traces, and the daemon's own record.

mod backtest;
mod record;
mod traces;
