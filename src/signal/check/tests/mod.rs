//! Checks against real servers on this machine: well-behaved ones, and all the others.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::core::settings::{HttpStep, Target, Text, Tls};

mod http;
mod steps;
mod secure;
mod others;

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

/// A server that answers 200 with such a body.
async fn serves(body: impl Into<Vec<u8>>) -> u16 {
    let body: Vec<u8> = body.into();
    server(move |mut connection| {
        let answer = ok(&body);
        async move {
            let _ = connection.write_all(&answer).await;
        }
    })
    .await
}

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// One request as it came in: head and body.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    body.len() >= length
}

/// A server whose answer follows from the whole request, and what it was asked.
async fn answers<F>(answer: F) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>)
where
    F: Fn(&str) -> String + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !whole(&request) && connection.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
            let request = String::from_utf8_lossy(&request).into_owned();
            let _ = connection.write_all(answer(&request).as_bytes()).await;
            let _ = asked.send(request);
        }
    });
    (port, requests)
}

/// Commands that are not asked for.
#[derive(Debug)]
struct NoCommands;

#[async_trait]
impl CommandRunner for NoCommands {
    async fn prepare(&self, _: &ReplicaId, _: &[String]) -> Result<String, String> {
        Err("nobody runs commands here".into())
    }

    async fn run(&self, _: &str) -> Result<Ran, String> {
        Err("nobody runs commands here".into())
    }

    async fn runs(&self, _: &str) -> Result<bool, String> {
        Err("nobody runs commands here".into())
    }
}

fn tools() -> CheckTools {
    CheckTools { commands: Arc::new(NoCommands), clock: Clock::start() }
}

fn probe_with(tools: &CheckTools, kind: CheckKind, timeout: Duration, address: Option<&str>) -> CheckProbe {
    let check = HealthCheck { kind, interval: Duration::from_secs(10), timeout, required: true };
    let replica = ReplicaId::new("r");
    let address = address.map(|a| a.parse().unwrap());
    CheckProbe::new(tools, Signal::Health, &check, Some((&replica, address)))
}

/// Makes a check once.
async fn make(kind: CheckKind, timeout: Duration, address: Option<&str>) -> Measurement {
    probe_with(&tools(), kind, timeout, address).check().await
}

/// One step against this machine.
fn local(port: u16) -> HttpStep {
    get(port, "/health")
}

fn get(port: u16, path: &str) -> HttpStep {
    let target = Target::Replica { port, path: path.into() };
    HttpStep { status: vec![(200, 299)], ..HttpStep::get(target) }
}

async fn one(step: HttpStep) -> Measurement {
    all(vec![step]).await
}

async fn all(steps: Vec<HttpStep>) -> Measurement {
    make(CheckKind::Http(steps), PATIENT, Some("127.0.0.1")).await
}

async fn ask(port: u16, timeout: Duration) -> Measurement {
    make(CheckKind::Http(vec![local(port)]), timeout, Some("127.0.0.1")).await
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
fn unmeasured(measurement: &Measurement, with: &str) {
    match measurement {
        Measurement::Unavailable { why } => assert!(why.contains(with), "{why}"),
        other => panic!("expected no measurement with {with:?}: {other:?}"),
    }
}
