//! The HTTP health check.
//!
//! What the service does wrong is a failed check: it refuses, resets, hangs, redirects for ever, fails the TLS
//! handshake, or answers with another status. What we cannot do is not: no address to ask, a name that our resolver
//! does not know, no file handles left, a client that cannot be built.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url, redirect};

use super::Probe;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::sample::Measurement;
use crate::core::settings::{HealthCheck, HealthTarget};
use crate::core::time::human;

/// What is read of an answer's body before it is dropped: a health page is far smaller, and an endless one ends here.
const BODY_LIMIT: usize = 64 * 1024;

/// Redirects followed: login pages need two or three, more is a loop.
const REDIRECT_LIMIT: usize = 5;

/// The HTTP clients of all health checks, built once. Clones share them.
#[derive(Debug, Clone)]
pub struct HealthClients {
    /// For replicas' own addresses.
    direct: Result<Client, String>,
    /// For URLs.
    public: Result<Client, String>,
}

impl HealthClients {
    /// Builds the clients. One that cannot be built makes its checks `Unavailable`, with what to do.
    ///
    /// The process must have installed a rustls crypto provider before.
    pub fn new() -> Self {
        // An address inside the engine's network is never behind a proxy, and no certificate is made out for it:
        // the question is whether it answers, as with Kubernetes' probes.
        let direct = base().no_proxy().tls_danger_accept_invalid_certs(true);
        Self { direct: build(direct), public: build(base()) }
    }
}

impl Default for HealthClients {
    fn default() -> Self {
        Self::new()
    }
}

fn base() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::limited(REDIRECT_LIMIT))
        // A kept connection would hide that the service takes no new ones, and may break just when it is used.
        .pool_max_idle_per_host(0)
}

fn build(builder: ClientBuilder) -> Result<Client, String> {
    builder.build().map_err(|e| {
        format!(
            "the HTTP client cannot be built: {}; install the CA certificates (package ca-certificates), or point \
             SSL_CERT_FILE at a bundle, and restart backstop",
            innermost(&e)
        )
    })
}

/// Asks one health endpoint.
#[derive(Debug)]
pub struct HttpProbe {
    /// Where to ask and with what, or why that is impossible.
    ask: Result<(Client, Url), String>,
    timeout: Duration,
    status: Vec<(u16, u16)>,
    clock: Clock,
}

impl HttpProbe {
    /// A probe for `check`; `address` is the replica's own one, which only [`HealthTarget::Replica`] needs.
    pub fn new(clients: &HealthClients, check: &HealthCheck, address: Option<IpAddr>, clock: Clock) -> Self {
        Self {
            ask: target(clients, &check.target, address),
            timeout: check.timeout,
            status: check.status.clone(),
            clock,
        }
    }

    async fn ask(&self, client: &Client, url: &Url) -> Measurement {
        let started = self.clock.now();
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        let late = || self.check(started, false, format!("no answer within {}", human(self.timeout)));
        tokio::select! {
            biased;
            () = &mut deadline => return unresolved(url, "did not answer in time"),
            resolved = resolve(url) => if let Err(why) = resolved {
                return unresolved(url, &why);
            },
        }
        let response = tokio::select! {
            biased;
            () = &mut deadline => return late(),
            response = client.get(url.clone()).send() => response,
        };
        let mut response = match response {
            Ok(response) => response,
            Err(e) => return self.failed(started, &e),
        };
        let status = response.status();
        let answer = after(&status_line(status), self.elapsed(started));
        if !self.passes(status) {
            return self.check(started, false, answer);
        }
        tokio::select! {
            biased;
            () = &mut deadline => self.check(
                started,
                false,
                format!("{answer}, but its body did not end within {}", human(self.timeout)),
            ),
            read = drain(&mut response) => match read {
                Ok(()) => self.check(started, true, answer),
                Err(e) => self.check(
                    started,
                    false,
                    format!("{answer}, but its body broke off: {}", innermost(&e)),
                ),
            },
        }
    }

    fn passes(&self, status: StatusCode) -> bool {
        self.status.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()))
    }

    /// Whose fault an error is, and in which words.
    fn failed(&self, started: Timestamp, e: &reqwest::Error) -> Measurement {
        if e.is_dns() {
            // The first name resolved, so this is one that the service redirected to.
            return Measurement::Unavailable {
                why: format!("our resolver does not know where it redirects to: {}", innermost(e)),
            };
        }
        let said = if e.is_redirect() {
            format!("redirected more than {REDIRECT_LIMIT} times")
        } else {
            match io_kind(e) {
                Some(kind) if is_ours(kind) => {
                    return Measurement::Unavailable {
                        why: format!("cannot connect from here: {}", innermost(e)),
                    };
                }
                Some(io::ErrorKind::ConnectionRefused) => "connection refused".into(),
                Some(
                    io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe,
                ) => "connection reset".into(),
                Some(io::ErrorKind::HostUnreachable) => "no route to it".into(),
                Some(_) | None => innermost(e),
            }
        };
        self.check(started, false, after(&said, self.elapsed(started)))
    }

    fn check(&self, started: Timestamp, ok: bool, detail: String) -> Measurement {
        Measurement::Check { ok, detail, latency: self.elapsed(started) }
    }

    fn elapsed(&self, started: Timestamp) -> Duration {
        self.clock.now().since(started)
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn measure(&self) -> Measurement {
        match &self.ask {
            Ok((client, url)) => self.ask(client, url).await,
            Err(why) => Measurement::Unavailable { why: why.clone() },
        }
    }
}

fn target(
    clients: &HealthClients,
    target: &HealthTarget,
    address: Option<IpAddr>,
) -> Result<(Client, Url), String> {
    let (client, url) = match target {
        HealthTarget::Url(url) => (&clients.public, url.clone()),
        HealthTarget::Replica { port, path } => {
            let address = address.ok_or(
                "the container has no address of its own (network mode host or none, or a network that is gone): \
                 configure a health URL instead of a port",
            )?;
            let host = SocketAddr::new(address, *port);
            (&clients.direct, format!("http://{host}{path}"))
        }
    };
    let parsed = Url::parse(&url).map_err(|e| format!("the health URL {url:?} cannot be used: {e}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("the health URL {url:?} cannot be used: it must begin with http:// or https://"));
    }
    Ok((client.clone()?, parsed))
}

/// Asks our resolver on its own first: what it does not know, or does not answer in time, is not the service's fault.
async fn resolve(url: &Url) -> Result<(), String> {
    let Some(host) = url.domain() else {
        return Ok(());
    };
    let port = url.port_or_known_default().unwrap_or(80);
    match tokio::net::lookup_host((host, port)).await {
        Ok(mut found) => match found.next() {
            Some(_) => Ok(()),
            None => Err("knows no address for it".into()),
        },
        Err(e) => Err(format!("said: {e}")),
    }
}

fn unresolved(url: &Url, why: &str) -> Measurement {
    let host = url.host_str().unwrap_or_default();
    Measurement::Unavailable { why: format!("our resolver, asked for {host}, {why}") }
}

async fn drain(response: &mut Response) -> Result<(), reqwest::Error> {
    let mut read = 0;
    while read < BODY_LIMIT
        && let Some(chunk) = response.chunk().await?
    {
        read += chunk.len();
    }
    Ok(())
}

fn status_line(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_u16().to_string(), |reason| format!("{} {reason}", status.as_u16()))
}

fn after(what: &str, elapsed: Duration) -> String {
    // Nothing takes no time: "after 0s" reads like a fault of ours.
    format!("{what} after {}", human(elapsed.max(Duration::from_millis(1))))
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

fn innermost(e: &reqwest::Error) -> String {
    chain(e).last().map_or_else(|| e.to_string(), ToString::to_string)
}

fn chain(e: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(e.source(), |e: &&(dyn Error + 'static)| (*e).source())
}
