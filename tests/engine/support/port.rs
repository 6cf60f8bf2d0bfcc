//! Ports for those who cannot be asked which one they took.

use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the kernel gives to whoever connects (from 32768), which could take one between asking and listening.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// Where `backstop demo` looks for ports of its own: one that it has found free is not to be taken before it listens.
const OF_THE_DEMO: RangeInclusive<u16> = 18_080..=18_280;

static GIVEN: AtomicU32 = AtomicU32::new(0);

/// Where nobody listens, at 127.0.0.1.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port_of("127.0.0.1"))
}

/// A port of this host's `address` that nobody listens at, and that no other test is given.
pub(crate) fn free_port_of(address: &str) -> u16 {
    // Other runs on this machine begin elsewhere.
    let start = std::process::id().wrapping_mul(97);
    loop {
        let next = start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + next % COUNT).unwrap();
        if !OF_THE_DEMO.contains(&port) && TcpListener::bind((address, port)).is_ok() {
            return port;
        }
    }
}
