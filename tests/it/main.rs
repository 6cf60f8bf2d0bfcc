#![allow(clippy::unwrap_used)]

mod api;
mod cli;
mod picture;
