//! The TCP check: a connection is accepted, and not closed at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::fault::{own_address, resolve, told};
use super::{Course, Late};
use crate::core::sample::Measurement;
use crate::core::settings::Target;

/// How long a new connection must last. The engine's own proxy for published ports accepts for a dead container too,
/// and hangs up as soon as it finds nobody behind.
const LASTS: Duration = Duration::from_millis(100);

/// Knocks at one address.
#[derive(Debug)]
pub(super) struct Knock(At);

#[derive(Debug)]
enum At {
    Address(SocketAddr),
    Name(String, u16),
}

impl Knock {
    pub(super) fn new(target: &Target, address: Option<IpAddr>) -> Result<Self, String> {
        Ok(Self(match target {
            Target::Replica { port, .. } => At::Address(own_address(address, *port)?),
            Target::Url(url) => {
                let (host, port) = host_and_port(url)?;
                At::Name(host, port)
            }
        }))
    }

    pub(super) async fn make(&self, course: &Course) -> Measurement {
        let addresses = match &self.0 {
            At::Address(address) => vec![*address],
            At::Name(host, port) => match resolve(course, host, *port).await {
                Ok(addresses) => addresses,
                Err(unresolved) => return unresolved,
            },
        };
        course.late(Late::Theirs(Some("no connection".into())));
        let connection = match TcpStream::connect(&*addresses).await {
            Ok(connection) => connection,
            Err(e) => return failed(course, &e),
        };
        let passed = course.passed(course.after("connected"));
        // A connection that came late was not slow to be closed: half of the time left is enough to see it.
        match tokio::time::timeout(LASTS.min(course.left() / 2), lasts(&connection)).await {
            Ok(Err(e)) => failed(course, &e),
            Ok(Ok(false)) => course.failed(&course.after("accepted, but closed at once")),
            Ok(Ok(true)) | Err(_) => passed,
        }
    }
}

/// Whether the other side says something, or hangs up.
async fn lasts(connection: &TcpStream) -> io::Result<bool> {
    Ok(connection.peek(&mut [0]).await? > 0)
}

fn failed(course: &Course, e: &io::Error) -> Measurement {
    match told(e.kind(), e.to_string()) {
        Ok(said) => course.failed(&course.after(&said)),
        Err(why) => course.unable(&why),
    }
}

/// Host and port of `tcp://host:port`, or of a URL whose scheme has a port of its own.
///
/// # Errors
/// What would be right.
pub fn host_and_port(url: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{url:?} cannot be knocked at: write it like tcp://db.example.com:5432");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let usual = match scheme {
        "tcp" => None,
        "http" => Some(80),
        "https" => Some(443),
        _ => return Err(wrong()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong())?,
        None => usual.ok_or_else(wrong)?,
    };
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_knock_is_read_or_refused_with_what_would_be_right() {
        for (url, host, port) in [
            ("tcp://db:5432", "db", 5432),
            ("tcp://[fd00::2]:6379/", "fd00::2", 6379),
            ("https://example.com/health?x=1", "example.com", 443),
            ("http://me:secret@example.com:8080", "example.com", 8080),
            ("https://[::1]", "::1", 443),
        ] {
            assert_eq!(host_and_port(url).unwrap(), (host.to_owned(), port), "{url}");
        }
        for bad in ["db:5432", "tcp://db", "tcp://:5432", "tcp://db:0", "tcp://db:99999", "udp://db:53", ""] {
            let why = host_and_port(bad).unwrap_err();
            assert!(why.contains("write it like tcp://db.example.com:5432"), "{why}");
        }
    }
}
