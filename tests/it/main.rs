//! Everything that needs no engine, in one binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod tidy;
mod timelines;
mod properties;
mod replay;
mod saga;
mod config;
mod sources;
mod store;
mod restart;
mod clock;
mod notify;
mod answers;
mod notify_channels;
mod notify_config;
mod notify_mail;
mod notify_matters;
mod receiver;
mod api;
mod hooks;
mod incident;
mod follow_up;
mod cli;
mod picture;
mod side_by_side;
mod logs;
mod corpus;
