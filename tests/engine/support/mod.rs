//! What the end-to-end tests stand on: engines, images, the daemon, a webhook's other end, a registry, and waiting.

pub(crate) mod bed;
pub(crate) mod between;
pub(crate) mod ca;
pub(crate) mod daemon;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod monitoring;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod registry;
pub(crate) mod sshd;
pub(crate) mod story;
pub(crate) mod stand_in;
pub(crate) mod wait;
pub(crate) mod webhook;

pub(crate) use bed::Bed;
pub(crate) use daemon::Daemon;
pub(crate) use image::Image;
pub(crate) use registry::Registry;
pub(crate) use stand_in::{Manner, StandIn};
pub(crate) use wait::{eventually, seconds};
pub(crate) use webhook::Webhook;

/// What tests/run hands over, or the reason to stop.
pub(crate) fn handed_over(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: these tests are run by `tests/run engine [FILTER]`")
    })
}
