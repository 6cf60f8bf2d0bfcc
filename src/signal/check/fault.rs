//! Whose fault a failure is, and in which words it is told.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Course, Late};
use crate::core::sample::Measurement;

/// What stands in a detail of what a service said: enough to recognise it by.
const QUOTE_MAX: usize = 200;

/// The replica's own address, or why it has none.
pub(super) fn own_address(address: Option<IpAddr>, port: u16) -> Result<SocketAddr, String> {
    address.map(|address| SocketAddr::new(address, port)).ok_or_else(|| {
        "the container has no address of its own (network mode host or none, a network that is gone, or an engine on another machine): \
         configure a URL instead of a port"
            .into()
    })
}

/// Asks our resolver on its own: what it does not know, or does not answer in time, is not the service's fault.
pub(super) async fn resolve(course: &Course, host: &str, port: u16) -> Result<Vec<SocketAddr>, Measurement> {
    let unresolved = |why: &str| format!("our resolver, asked for {host}, {why}");
    course.late(Late::Ours(unresolved("did not answer in time")));
    let found = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect::<Vec<_>>(),
        Err(e) => return Err(course.unable(&unresolved(&format!("said: {e}")))),
    };
    if found.is_empty() {
        return Err(course.unable(&unresolved("knows no address for it")));
    }
    Ok(found)
}

/// An error of input or output, in words; `Err` if it is this machine's, not the service's.
pub(super) fn told(kind: io::ErrorKind, said: String) -> Result<String, String> {
    match kind {
        kind if is_ours(kind) => Err(format!("cannot connect from here: {said}")),
        io::ErrorKind::ConnectionRefused => Ok("connection refused".into()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Ok("connection reset".into())
        }
        io::ErrorKind::HostUnreachable => Ok("no route to it".into()),
        _ => Ok(said),
    }
}

/// A request that got no answer.
pub(super) fn unanswered(course: &Course, e: &reqwest::Error) -> Measurement {
    if e.is_builder() {
        return course.unable(&format!("the request cannot be made: {}", innermost(e)));
    }
    if e.is_dns() {
        // It was known a moment ago: our resolver is in trouble.
        return course.unable(&format!("our resolver failed: {}", innermost(e)));
    }
    let told = match io_kind(e) {
        Some(kind) => told(kind, innermost(e)),
        None => Ok(innermost(e)),
    };
    match told {
        Ok(said) => course.failed(&course.after(&said)),
        Err(why) => course.unable(&why),
    }
}

/// Failures of this machine, not of the one that was asked.
const fn is_ours(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::OutOfMemory
            // What the standard library makes of EMFILE and ENFILE: no file handles left.
            | io::ErrorKind::QuotaExceeded
    )
}

fn io_kind(e: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(e).find_map(|e| e.downcast_ref::<io::Error>().map(io::Error::kind))
}

/// The cause at the bottom: the layers above it only say that there is one.
pub(super) fn innermost(e: &reqwest::Error) -> String {
    chain(e).last().map_or_else(|| e.to_string(), ToString::to_string)
}

fn chain(e: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(e.source(), |e: &&(dyn Error + 'static)| (*e).source())
}

/// What somebody else said, on one line and cut to what a person reads.
pub(super) fn quoted(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_MAX + 1).collect();
    if line.chars().count() > QUOTE_MAX {
        line.pop();
        line.push_str("...");
    }
    line
}
