//! `backstop demo-app`: a small web service that misbehaves on demand.
//!
//! The demo and the end-to-end tests need images that are good or bad in a known way, on machines without a registry.
//! Backstop's own static binary is the only thing such an image holds, and every flag has an environment twin, so that
//! `ENV DEMO_BAD_AFTER=5s` is all that tells a bad image from a good one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::builder::FalseyValueParser;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// What a probe may take; a Docker HEALTHCHECK has its own limit on top.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// More than any sane reader of a health endpoint takes in.
const HUGE_BODY_BYTES: usize = 10 * 1024 * 1024;
/// A leak grows in steps this far apart.
const LEAK_STEP: Duration = Duration::from_millis(100);

/// How the demo app behaves. Without any of this it is a healthy service.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoAppArgs {
    /// Version that the app reports
    #[arg(long, env = "DEMO_VERSION", default_value = "v1")]
    version: String,

    /// Address to serve on
    #[arg(long, env = "DEMO_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// How /healthz answers when it is bad: ok, error, hang, redirect-loop, endless, huge, drop
    #[arg(long, env = "DEMO_HEALTH", value_name = "MODE")]
    health: Option<Health>,

    /// /healthz answers 500 (short for --health error)
    #[arg(long, env = "DEMO_BAD", value_parser = FalseyValueParser::new())]
    bad: bool,

    /// /healthz never answers (short for --health hang)
    #[arg(long, env = "DEMO_HANG", value_parser = FalseyValueParser::new())]
    hang: bool,

    /// Be healthy for this long first; alone it means that /healthz answers 500 from then on
    #[arg(long, env = "DEMO_BAD_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    bad_after: Option<Duration>,

    /// /healthz answers 500 unless this variable has this value
    #[arg(long, env = "DEMO_REQUIRE", value_name = "NAME=VALUE")]
    require: Option<Requirement>,

    /// Exit by itself after this long
    #[arg(long, env = "DEMO_EXIT_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    exit_after: Option<Duration>,

    /// Exit code of --exit-after
    #[arg(long, env = "DEMO_EXIT_CODE", default_value_t = 1)]
    exit_code: i32,

    /// Take and keep this much memory at start, for example 58MiB
    #[arg(long, env = "DEMO_USE_MEMORY", value_name = "SIZE")]
    use_memory: Option<Size>,

    /// Take this much more memory every second
    #[arg(long, env = "DEMO_LEAK", value_name = "SIZE")]
    leak: Option<Size>,

    /// Wait this long before memory is taken by --use-memory or --leak
    #[arg(long, env = "DEMO_MEMORY_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration,
          default_value = "0s")]
    memory_after: Duration,

    /// As PID 1, go on running when SIGTERM comes
    #[arg(long, env = "DEMO_IGNORE_SIGTERM", value_parser = FalseyValueParser::new())]
    ignore_sigterm: bool,

    /// Listen only after this long
    #[arg(long, env = "DEMO_SLOW_START", value_name = "DURATION", value_parser = humantime::parse_duration)]
    slow_start: Option<Duration>,

    /// Serve nothing; ask this URL once and exit 0 if the answer is 2xx, else 1 (for a HEALTHCHECK without a shell)
    #[arg(long, value_name = "URL")]
    probe: Option<Uri>,
}

/// Run the app until SIGTERM or SIGINT, or ask another one with `--probe`.
pub(crate) async fn run(args: DemoAppArgs) -> anyhow::Result<()> {
    if let Some(url) = &args.probe {
        return probe(url).await;
    }
    // A process that runs as PID 1 has no default handlers: without this, SIGTERM would be ignored.
    // And that is how most programs in containers that ignore it do: nobody told them that they are PID 1.
    let mut terminate = if args.ignore_sigterm { None } else { Some(signal(SignalKind::terminate())?) };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async {
        match &mut terminate {
            Some(terminate) => terminate.recv().await,
            None => std::future::pending().await,
        }
    };
    spawn_misbehaviour(&args);
    tokio::select! {
        _ = stopped => say("SIGTERM, bye"),
        _ = interrupt.recv() => say("interrupted, bye"),
        served = serve(&args) => return served,
    }
    Ok(())
}

/// What goes wrong beside the HTTP answers: memory that is taken, and an exit.
fn spawn_misbehaviour(args: &DemoAppArgs) {
    if let Some(after) = args.exit_after {
        tokio::spawn(exit_after(after, args.exit_code));
    }
    if args.use_memory.is_some() || args.leak.is_some() {
        tokio::spawn(take_memory(args.memory_after, args.use_memory, args.leak));
    }
}

#[expect(clippy::exit, reason = "an app that crashes does not unwind its main function either")]
async fn exit_after(after: Duration, code: i32) {
    tokio::time::sleep(after).await;
    say(&format!("exiting with code {code}"));
    std::process::exit(code);
}

/// Never returns what it took.
async fn take_memory(after: Duration, at_once: Option<Size>, per_second: Option<Size>) {
    tokio::time::sleep(after).await;
    let mut kept = Vec::new();
    if let Some(Size(bytes)) = at_once {
        kept.push(touched(bytes));
    }
    if let Some(Size(bytes)) = per_second {
        loop {
            kept.push(touched(bytes / 10));
            tokio::time::sleep(LEAK_STEP).await;
        }
    }
    std::future::pending::<()>().await;
    drop(kept);
}

/// Ones, not zeroes: zeroed memory is not resident before somebody writes to it.
fn touched(bytes: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; bytes])
}

#[derive(Debug)]
struct App {
    version: String,
    hostname: String,
    environment: BTreeMap<String, String>,
    health: AtomicU8,
}

async fn serve(args: &DemoAppArgs) -> anyhow::Result<()> {
    if let Some(wait) = args.slow_start {
        tokio::time::sleep(wait).await;
    }
    let app = Arc::new(App::new(args));
    if let Some(after) = args.bad_after {
        let (app, mode) = (app.clone(), args.bad_health().unwrap_or(Health::Error));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            app.set_health(mode);
            say(&format!("health is now {mode:?}"));
        });
    }
    let router = Router::new()
        .route("/", get(index))
        .route("/version", get(version))
        .route("/healthz", get(healthz))
        .route("/demo/health/{mode}", post(switch_health))
        .with_state(app);
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    say(&format!("version {} serves on {}", args.version, args.listen));
    axum::serve(listener, router).await.context("serving ended")
}

impl DemoAppArgs {
    /// The way in which it is bad, now or after `bad_after`.
    fn bad_health(&self) -> Option<Health> {
        match (self.health, self.bad, self.hang) {
            (Some(mode), ..) => Some(mode),
            (None, true, _) => Some(Health::Error),
            (None, false, true) => Some(Health::Hang),
            (None, false, false) => None,
        }
    }

    fn first_health(&self) -> Health {
        let unmet = self.require.as_ref().is_some_and(|wanted| !wanted.is_met());
        match (unmet, self.bad_after) {
            (true, _) => Health::Error,
            (false, Some(_)) => Health::Ok,
            (false, None) => self.bad_health().unwrap_or(Health::Ok),
        }
    }
}

impl App {
    fn new(args: &DemoAppArgs) -> Self {
        let wanted = args.require.as_ref().map(|r| r.name.clone());
        let of_interest =
            |name: &str| name.starts_with("DEMO_") || name == "GREETING" || Some(name) == wanted.as_deref();
        Self {
            version: args.version.clone(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            environment: environment().filter(|(name, _)| of_interest(name)).collect(),
            health: AtomicU8::new(args.first_health() as u8),
        }
    }

    fn health(&self) -> Health {
        let now = self.health.load(Ordering::Relaxed);
        Health::ALL.into_iter().find(|mode| *mode as u8 == now).unwrap_or(Health::Ok)
    }

    fn set_health(&self, mode: Health) {
        self.health.store(mode as u8, Ordering::Relaxed);
    }
}

async fn index(State(app): State<Arc<App>>) -> Response {
    Json(serde_json::json!({
        "app": "backstop demo",
        "version": app.version,
        "hostname": app.hostname,
        "env": app.environment,
    }))
    .into_response()
}

async fn version(State(app): State<Arc<App>>) -> String {
    format!("{}\n", app.version)
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.health() {
        Health::Ok => "ok\n".into_response(),
        Health::Error => (StatusCode::INTERNAL_SERVER_ERROR, "this version is bad\n").into_response(),
        Health::Hang => std::future::pending().await,
        Health::RedirectLoop => (StatusCode::FOUND, [(header::LOCATION, "/healthz")]).into_response(),
        Health::Endless => Body::from_stream(stream::unfold((), drip)).into_response(),
        Health::Huge => vec![b'.'; HUGE_BODY_BYTES].into_response(),
        Health::Drop => Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("dropped"))]))
            .into_response(),
    }
}

/// Lets a test make a running app bad, and good again.
async fn switch_health(State(app): State<Arc<App>>, Path(mode): Path<String>) -> Response {
    match mode.parse::<Health>() {
        Ok(mode) => {
            app.set_health(mode);
            format!("{mode:?}\n").into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// One piece of an answer that never ends.
async fn drip((): ()) -> Option<(Result<Bytes, std::convert::Infallible>, ())> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Some((Ok(Bytes::from_static(b"still healthy, wait for it\n")), ()))
}

/// Plain HTTP/1.0 over a socket: an image from scratch has no certificates, which a full client insists on.
async fn probe(url: &Uri) -> anyhow::Result<()> {
    let host = url.host().context("--probe needs a URL like http://127.0.0.1:8080/healthz")?;
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let ask = async {
        let mut stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        // "HTTP/1.1 200" is all that matters of the answer.
        let mut start = [0; 12];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&start).into_owned())
    };
    let start = tokio::time::timeout(PROBE_TIMEOUT, ask)
        .await
        .with_context(|| format!("{url}: no answer within {}", humantime::format_duration(PROBE_TIMEOUT)))?
        .with_context(|| format!("{url}: no answer"))?;
    if !start.get(9..).is_some_and(|code| code.starts_with('2')) {
        bail!("{url} answered {start}");
    }
    Ok(())
}

/// Names and values that are text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn say(line: &str) {
    anstream::eprintln!("demo-app: {line}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Ok,
    Error,
    Hang,
    RedirectLoop,
    Endless,
    Huge,
    /// The connection breaks in the middle of the answer.
    Drop,
}

impl Health {
    const ALL: [Self; 7] =
        [Self::Ok, Self::Error, Self::Hang, Self::RedirectLoop, Self::Endless, Self::Huge, Self::Drop];
}

impl FromStr for Health {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "ok" => Self::Ok,
            "error" => Self::Error,
            "hang" => Self::Hang,
            "redirect-loop" => Self::RedirectLoop,
            "endless" => Self::Endless,
            "huge" => Self::Huge,
            "drop" => Self::Drop,
            _ => bail!("`{text}` is none of ok, error, hang, redirect-loop, endless, huge, drop"),
        })
    }
}

/// A number of bytes, as in `58MiB`, `64m` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(usize);

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => bail!("`{text}` is no size; write it like 58MiB"),
        };
        let number: usize =
            number.parse().with_context(|| format!("`{text}` is no size; write it like 58MiB"))?;
        number.checked_mul(factor).map(Self).with_context(|| format!("`{text}` is too much"))
    }
}

/// A variable that must have a value for the app to be healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    name: String,
    value: String,
}

impl Requirement {
    fn is_met(&self) -> bool {
        environment().any(|(name, value)| name == self.name && value == self.value)
    }
}

impl FromStr for Requirement {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once('=').context("write it like GREETING=hello")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: DemoAppArgs,
    }

    fn parse(words: &[&str]) -> DemoAppArgs {
        Command::try_parse_from(["demo-app"].iter().chain(words)).unwrap().args
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("7", Some(7)),
            ("58MiB", Some(58 << 20)),
            ("64m", Some(64 << 20)),
            ("1 kB", Some(1024)),
            ("MiB", None),
            ("5 apples", None),
            ("99999999999999999999", None),
            ("99999999999g", None),
        ] {
            assert_eq!(text.parse::<Size>().ok().map(|s| s.0), bytes, "{text}");
        }
    }

    #[test]
    fn every_health_mode_has_a_word() {
        for word in ["ok", "error", "hang", "redirect-loop", "endless", "huge", "drop"] {
            assert!(Health::ALL.contains(&word.parse().unwrap()), "{word}");
        }
        assert!("good".parse::<Health>().is_err());
    }

    #[test]
    fn badness_starts_when_it_is_told_to() {
        assert_eq!(parse(&[]).first_health(), Health::Ok);
        assert_eq!(parse(&["--bad"]).first_health(), Health::Error);
        assert_eq!(parse(&["--hang"]).first_health(), Health::Hang);
        assert_eq!(parse(&["--health", "huge"]).first_health(), Health::Huge);
        let later = parse(&["--bad-after", "5s", "--hang"]);
        assert_eq!((later.first_health(), later.bad_health()), (Health::Ok, Some(Health::Hang)));
    }

    #[test]
    fn a_missing_variable_makes_it_bad_at_once() {
        let args = parse(&["--require", "BACKSTOP_DEMO_TEST_UNSET=hello", "--bad-after", "5s"]);
        assert_eq!(args.first_health(), Health::Error);
    }

    #[tokio::test]
    async fn probe_tells_good_from_bad() {
        let args = parse(&[]);
        let app = Arc::new(App::new(&args));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/healthz", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(
            axum::serve(listener, Router::new().route("/healthz", get(healthz)).with_state(app.clone()))
                .into_future(),
        );
        probe(&url).await.unwrap();
        app.set_health(Health::Error);
        assert!(probe(&url).await.unwrap_err().to_string().contains("500"));
    }
}
