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
use crate::core::sample::{Measurement, Signal};
use crate::core::settings::{HttpStep, Target};
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
    /// A probe for `step`; `address` is the replica's own one, which only [`Target::Replica`] needs.
    pub fn new(
        clients: &HealthClients,
        step: &HttpStep,
        timeout: Duration,
        address: Option<IpAddr>,
        clock: Clock,
    ) -> Self {
        Self { ask: target(clients, &step.target, address), timeout, status: step.status.clone(), clock }
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
    async fn measure(&self) -> Vec<(Signal, Measurement)> {
        let measurement = match &self.ask {
            Ok((client, url)) => self.ask(client, url).await,
            Err(why) => Measurement::Unavailable { why: why.clone() },
        };
        vec![(Signal::Health, measurement)]
    }
}

fn target(
    clients: &HealthClients,
    target: &Target,
    address: Option<IpAddr>,
) -> Result<(Client, Url), String> {
    let (client, url) = match target {
        Target::Url(url) => (&clients.public, url.clone()),
        Target::Replica { port, path } => {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;

    /// Long enough for a loaded machine to answer, short enough to wait for what never comes.
    const PATIENT: Duration = Duration::from_secs(10);
    const IMPATIENT: Duration = Duration::from_millis(300);

    /// A server that treats every connection alike, once it has read the request.
    async fn server<F, Fut>(answer: F) -> u16
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).await;
                tokio::spawn(answer(connection));
            }
        });
        port
    }

    /// A server that says always the same.
    async fn says(answer: &'static str) -> u16 {
        server(move |mut connection| async move {
            let _ = connection.write_all(answer.as_bytes()).await;
        })
        .await
    }

    fn check(target: Target, timeout: Duration) -> (HttpStep, Duration) {
        (HttpStep { status: vec![(200, 299)], ..HttpStep::get(target) }, timeout)
    }

    fn probe((step, timeout): &(HttpStep, Duration), address: Option<&str>) -> HttpProbe {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = address.map(|a| a.parse().unwrap());
        HttpProbe::new(&HealthClients::new(), step, *timeout, address, Clock::start())
    }

    impl HttpProbe {
        async fn one(&self) -> Measurement {
            self.measure().await.remove(0).1
        }
    }

    async fn ask(port: u16, timeout: Duration) -> Measurement {
        let check = check(Target::Replica { port, path: "/health".into() }, timeout);
        probe(&check, Some("127.0.0.1")).one().await
    }

    #[track_caller]
    fn failed(measurement: &Measurement, with: &str) {
        match measurement {
            Measurement::Check { ok: false, detail, .. } => assert!(detail.contains(with), "{detail}"),
            other => panic!("expected a failed check with {with:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn passed(measurement: &Measurement, with: &str) {
        match measurement {
            Measurement::Check { ok: true, detail, .. } => assert!(detail.starts_with(with), "{detail}"),
            other => panic!("expected a passed check with {with:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn unavailable(measurement: &Measurement, with: &str) {
        match measurement {
            Measurement::Unavailable { why } => assert!(why.contains(with), "{why}"),
            other => panic!("expected no measurement with {with:?}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_status_decides() {
        let ok = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        passed(&ask(ok, PATIENT).await, "200 OK after ");
        let down = says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        failed(&ask(down, PATIENT).await, "503 Service Unavailable after ");
        let own = says("HTTP/1.1 599 Whatever\r\ncontent-length: 0\r\n\r\n").await;
        failed(&ask(own, PATIENT).await, "599 after ");
    }

    #[tokio::test]
    async fn a_404_passes_where_that_is_wanted() {
        let port = says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let mut check = check(Target::Replica { port, path: "/".into() }, PATIENT);
        failed(&probe(&check, Some("127.0.0.1")).one().await, "404 Not Found");
        check.0.status = vec![(200, 299), (401, 401), (404, 404)];
        passed(&probe(&check, Some("127.0.0.1")).one().await, "404 Not Found");
        check.0.status = vec![(200, 403), (405, 499)];
        failed(&probe(&check, Some("127.0.0.1")).one().await, "404 Not Found");
    }

    #[tokio::test]
    async fn who_refuses_is_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        failed(&ask(port, PATIENT).await, "connection refused after 1ms");
    }

    #[tokio::test]
    async fn who_hangs_is_down() {
        let port = server(|open| async move {
            std::future::pending::<()>().await;
            drop(open);
        })
        .await;
        failed(&ask(port, IMPATIENT).await, "no answer within 300ms");
    }

    #[tokio::test]
    async fn who_drips_headers_is_down() {
        let port = server(|mut connection| async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while connection.write_all(b"x-more: and more\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        failed(&ask(port, IMPATIENT).await, "no answer within 300ms");
    }

    #[tokio::test]
    async fn who_resets_in_the_middle_is_down() {
        let port = server(|mut connection| async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
            let _ = connection.set_zero_linger();
        })
        .await;
        failed(&ask(port, PATIENT).await, "after ");
        let port = server(|mut connection| async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
        })
        .await;
        failed(&ask(port, PATIENT).await, "its body broke off");
        let port = says("SSH-2.0-OpenSSH_9.2\r\n").await;
        failed(&ask(port, PATIENT).await, "after ");
    }

    #[tokio::test]
    async fn who_streams_for_ever_costs_nothing() {
        let (done, ended) = oneshot::channel();
        let done = std::sync::Mutex::new(Some(done));
        let port = server(move |mut connection| {
            let done = done.lock().unwrap().take();
            async move {
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let mut sent = 0_usize;
                while connection.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
                    sent += 16 * 1024;
                }
                let _ = done.unwrap().send(sent);
            }
        })
        .await;
        passed(&ask(port, PATIENT).await, "200 OK after ");
        // We hang up: the server's writes fail after what the sockets can hold.
        let sent = ended.await.unwrap();
        assert!(sent < 32 * 1024 * 1024, "{sent} bytes were sent");
    }

    #[tokio::test]
    async fn who_answers_ten_megabytes_costs_64_kib() {
        let port = server(|mut connection| async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n").await;
            let _ = connection.write_all(&vec![b'x'; 10_485_760]).await;
        })
        .await;
        passed(&ask(port, PATIENT).await, "200 OK after ");
    }

    #[tokio::test]
    async fn who_drips_a_body_for_ever_is_down() {
        let port = server(|mut connection| async move {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while connection.write_all(b".").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        failed(&ask(port, IMPATIENT).await, "its body did not end within 300ms");
    }

    #[tokio::test]
    async fn redirects_are_followed_but_not_for_ever() {
        let port = says("HTTP/1.1 302 Found\r\nlocation: /health\r\ncontent-length: 0\r\n\r\n").await;
        failed(&ask(port, PATIENT).await, "redirected more than 5 times after ");
        let there = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let here = server(move |mut connection| async move {
            let answer = format!(
                "HTTP/1.1 301 Moved Permanently\r\nlocation: http://127.0.0.1:{there}/\r\ncontent-length: 0\r\n\r\n"
            );
            let _ = connection.write_all(answer.as_bytes()).await;
        })
        .await;
        passed(&ask(here, PATIENT).await, "200 OK after ");
        let lost =
            says("HTTP/1.1 302 Found\r\nlocation: http://nobody.invalid/\r\ncontent-length: 0\r\n\r\n").await;
        unavailable(&ask(lost, PATIENT).await, "where it redirects to");
    }

    #[tokio::test]
    async fn who_speaks_no_tls_is_down() {
        let port = says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let check = check(Target::Url(format!("https://127.0.0.1:{port}/")), PATIENT);
        failed(&probe(&check, None).one().await, "after ");
    }

    #[tokio::test]
    async fn what_we_cannot_do_is_not_the_services_fault() {
        let replica = Target::Replica { port: 80, path: "/health".into() };
        unavailable(&probe(&check(replica, PATIENT), None).one().await, "no address of its own");
        for (url, why) in [
            ("http://nobody.invalid/health", "our resolver, asked for nobody.invalid,"),
            ("ftp://127.0.0.1/", "must begin with http:// or https://"),
            ("http://:80", "cannot be used"),
            ("127.0.0.1/health", "cannot be used"),
        ] {
            let check = check(Target::Url(url.into()), PATIENT);
            unavailable(&probe(&check, None).one().await, why);
        }
        let broken = HealthClients { direct: Err("no bundle".into()), public: Err("no bundle".into()) };
        let check = check(Target::Url("https://127.0.0.1/".into()), PATIENT);
        unavailable(
            &HttpProbe::new(&broken, &check.0, check.1, None, Clock::start()).one().await,
            "no bundle",
        );
    }

    #[tokio::test]
    async fn every_question_comes_over_a_fresh_connection() {
        let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
        let port = server(move |mut connection| {
            let _ = count.send(());
            async move {
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                std::future::pending().await
            }
        })
        .await;
        let check = check(Target::Replica { port, path: "/".into() }, PATIENT);
        let probe = probe(&check, Some("127.0.0.1"));
        for _ in 0..3 {
            passed(&probe.one().await, "200 OK");
            counted.recv().await.unwrap();
        }
    }

    #[test]
    fn an_address_of_either_kind_makes_a_url() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let replica = Target::Replica { port: 8080, path: "/a?b=c".into() };
        let url = |address: &str| {
            target(&HealthClients::new(), &replica, address.parse().ok()).unwrap().1.to_string()
        };
        assert_eq!(url("172.17.0.2"), "http://172.17.0.2:8080/a?b=c");
        assert_eq!(url("fd00::2"), "http://[fd00::2]:8080/a?b=c");
    }
}
