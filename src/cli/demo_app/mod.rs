//! `backstop demo-app`: a small web service that misbehaves on demand.
//!
//! The demo and the end-to-end tests need images that are good or bad in a known way, on machines without a registry.
//! Backstop's own static binary is the only thing such an image holds, and every flag has an environment twin, so that
//! `ENV DEMO_BAD_AFTER=5s` is all that tells a bad image from a good one. What is turned by a dial can also be turned
//! while it runs: `POST /demo/error_rate/0.2`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

mod args;
mod dials;
mod door;
mod traffic;
mod figures;
mod memory;

pub(crate) use args::DemoAppArgs;

use args::{Exports, Health, Login, Metrics};
use dials::Dials;
use door::{Door, Guests};
use figures::Figures;
use traffic::Fates;

/// What a probe may take; a Docker HEALTHCHECK has its own limit on top.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// After its stop signal: whoever had connected by then gets an answer. So long they have at least: the kernel may have
/// connected some of whom we do not know yet.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// And so long at most: less than what engines wait by themselves before they kill.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(8);
/// More than any sane reader of a health endpoint takes in.
const HUGE_BODY_BYTES: usize = 10 * 1024 * 1024;

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
    let app = Arc::new(App::new(&args));
    spawn_life(&app, &args);
    let closing = CancellationToken::new();
    let guests = Guests::default();
    let serving = serve(app, &args, closing.clone(), guests.clone());
    tokio::pin!(serving);
    tokio::select! {
        _ = stopped => say("SIGTERM, bye"),
        _ = interrupt.recv() => say("interrupted, bye"),
        served = &mut serving => return served,
    }
    closing.cancel();
    let answered = async {
        tokio::time::sleep(LAST_ANSWERS).await;
        let _ = tokio::time::timeout(LAST_ANSWERS_MAX, guests.all_answered()).await;
        Ok(())
    };
    tokio::select! {
        served = serving => served,
        answered = answered => answered,
    }
}

/// What goes on beside the HTTP answers: traffic, complaints, memory that is taken, and an exit.
fn spawn_life(app: &Arc<App>, args: &DemoAppArgs) {
    if let Some(after) = args.exit_after {
        tokio::spawn(exit_after(after, args.exit_code));
    }
    tokio::spawn(memory::keep(Arc::clone(app), args.memory_after, args.leak));
    tokio::spawn(traffic::make(Arc::clone(app)));
    tokio::spawn(traffic::complain(Arc::clone(app)));
    tokio::spawn(keep_busy(Arc::clone(app)));
}

/// Keeps as much of a core busy as the dial says, for ever.
async fn keep_busy(app: Arc<App>) {
    const STEP: Duration = Duration::from_millis(100);
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        let busy = STEP.mul_f64(app.dials().cpu);
        if busy.is_zero() {
            continue;
        }
        let app = Arc::clone(&app);
        // On a thread of its own: answers do not wait for it.
        let work = tokio::task::spawn_blocking(move || {
            let until = app.clock.now() + busy;
            while app.clock.now() < until {
                std::hint::spin_loop();
            }
        });
        let _ = work.await;
    }
}

async fn exit_after(after: Duration, code: i32) {
    tokio::time::sleep(after).await;
    exit(code);
}

#[expect(clippy::exit, reason = "an app that crashes does not unwind its main function either")]
fn exit(code: i32) -> ! {
    say(&format!("exiting with code {code}"));
    std::process::exit(code);
}

/// The app: what it is, what it was told to be, and what it has served.
#[derive(Debug)]
struct App {
    version: String,
    hostname: String,
    environment: BTreeMap<String, String>,
    exports: Exports,
    metrics_token: Option<String>,
    clock: Clock,
    dials: Mutex<Dials>,
    fates: Fates,
    figures: Figures,
    /// How often its health was asked for while it was good and bad by turns.
    asked: AtomicU64,
}

async fn serve(
    app: Arc<App>,
    args: &DemoAppArgs,
    closing: CancellationToken,
    guests: Guests,
) -> anyhow::Result<()> {
    if let Some(wait) = args.slow_start {
        tokio::time::sleep(wait).await;
    }
    if let Some(after) = args.bad_after {
        let (app, mode) = (app.clone(), args.bad_health().unwrap_or(Health::Error));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            app.turn(|dials| dials.health = mode);
            say(&format!("health is now {mode:?}"));
        });
    }
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    say(&format!("version {} serves on {}", args.version, args.listen));
    axum::serve(Door::new(listener, closing, guests), router(app)).await.context("serving ended")
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/api/search", get(search))
        .route("/api/checkout", get(checkout))
        .route("/version", get(version))
        .route("/exports", get(exports))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/metrics", get(metrics))
        .route("/demo/exit/{code}", post(crash))
        .route("/demo/{dial}/{value}", post(turn))
        .with_state(app)
}

impl App {
    fn new(args: &DemoAppArgs) -> Self {
        let wanted = args.require.as_ref().map(|r| r.name.clone());
        let of_interest =
            |name: &str| name.starts_with("DEMO_") || name == "GREETING" || Some(name) == wanted.as_deref();
        let mut dials = args.dials();
        if args.export_mode == Exports::Off {
            // It is exports that need it.
            dials.memory_percent = 0.0;
        }
        Self {
            version: args.version.clone(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            environment: environment().filter(|(name, _)| of_interest(name)).collect(),
            clock: Clock::start(),
            exports: args.export_mode,
            metrics_token: args.metrics_token.clone(),
            dials: Mutex::new(dials),
            fates: Fates::new(args.seed),
            figures: Figures::default(),
            asked: AtomicU64::new(0),
        }
    }

    fn dials(&self) -> Dials {
        *self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn<T>(&self, change: impl FnOnce(&mut Dials) -> T) -> T {
        change(&mut self.dials.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A line of the access log. Nobody is told when it cannot be written: that would be written to the same place.
    fn print(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// What /login gives and /me wants: another one in each version, so that none is valid for long.
    fn token(&self) -> String {
        format!("token-of-{}-{}", self.hostname, self.version)
    }
}

async fn index(State(app): State<Arc<App>>) -> Response {
    if !traffic::serve(&app, Some(0)).await {
        return failed();
    }
    Json(serde_json::json!({
        "app": "backstop demo",
        "version": app.version,
        "hostname": app.hostname,
        "env": app.environment,
    }))
    .into_response()
}

async fn search(State(app): State<Arc<App>>) -> Response {
    if traffic::serve(&app, Some(1)).await { Json(["tea", "cup"]).into_response() } else { failed() }
}

async fn checkout(State(app): State<Arc<App>>) -> Response {
    if traffic::serve(&app, Some(2)).await { "thank you\n".into_response() } else { failed() }
}

fn failed() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong\n").into_response()
}

/// A feature that can be switched off by the environment.
async fn exports(State(app): State<Arc<App>>) -> Response {
    match app.exports {
        Exports::On => "id,name\n1,one\n".into_response(),
        Exports::Off => (StatusCode::NOT_FOUND, "exports are switched off\n").into_response(),
    }
}

async fn version(State(app): State<Arc<App>>) -> String {
    format!("{}\n", app.version)
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.dials().health {
        Health::Ok => "ok\n".into_response(),
        Health::Flapping if app.asked.fetch_add(1, Ordering::Relaxed) % 4 < 2 => "ok\n".into_response(),
        Health::Hiccup if app.asked.fetch_add(1, Ordering::Relaxed) % 4 < 3 => "ok\n".into_response(),
        Health::Error | Health::Flapping | Health::Hiccup => {
            (StatusCode::INTERNAL_SERVER_ERROR, "this version is bad\n").into_response()
        }
        Health::Hang => std::future::pending().await,
        Health::RedirectLoop => (StatusCode::FOUND, [(header::LOCATION, "/healthz")]).into_response(),
        Health::Endless => Body::from_stream(stream::unfold((), drip)).into_response(),
        Health::Huge => vec![b'.'; HUGE_BODY_BYTES].into_response(),
        Health::Drop => Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("dropped"))]))
            .into_response(),
    }
}

/// One piece of an answer that never ends.
async fn drip((): ()) -> Option<(Result<Bytes, std::convert::Infallible>, ())> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Some((Ok(Bytes::from_static(b"still healthy, wait for it\n")), ()))
}

/// Always 200: that migrations are missing is told by the body alone.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    Json(serde_json::json!({
        "status": "ok",
        "version": app.version,
        "migrations_current": app.dials().migrations_current,
        "checks": [{"name": "db", "status": "ok"}, {"name": "jobs", "status": "ok"}],
    }))
    .into_response()
}

async fn login(State(app): State<Arc<App>>, Json(who): Json<serde_json::Value>) -> Response {
    if app.dials().login == Login::Error {
        return failed();
    }
    if who["user"] != "demo" || who["password"] != "demo" {
        return (StatusCode::UNAUTHORIZED, "user and password are both `demo`\n").into_response();
    }
    Json(serde_json::json!({"token": app.token()})).into_response()
}

async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.dials().login == Login::Refuse || bearer(&headers) != Some(&app.token()) {
        return (StatusCode::UNAUTHORIZED, "who are you?\n").into_response();
    }
    Json(serde_json::json!({"user": "demo"})).into_response()
}

/// The bearer token that was shown.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.metrics_token.as_ref().is_some_and(|token| bearer(&headers) != Some(token)) {
        return (StatusCode::UNAUTHORIZED, "metrics need a token\n").into_response();
    }
    match app.dials().metrics {
        Metrics::On => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.figures.text()).into_response()
        }
        Metrics::Off => StatusCode::NOT_FOUND.into_response(),
        Metrics::Garbage => {
            "http_requests_total{method=\"GET\",status=\"200\nhttp_requests_total} NaN -7 x".into_response()
        }
        Metrics::Html => Html("<!doctype html><html><body><h1>Welcome</h1></body></html>").into_response(),
    }
}

async fn crash(Path(code): Path<i32>) -> Response {
    exit(code)
}

/// Lets a test make a running app bad, and good again.
async fn turn(State(app): State<Arc<App>>, Path((dial, value)): Path<(String, String)>) -> Response {
    match app.turn(|dials| dials.turn(&dial, &value)) {
        Ok(()) => format!("{:?}\n", app.dials()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use args::tests::parse;

    async fn start(words: &[&str]) -> (Arc<App>, String) {
        let app = Arc::new(App::new(&parse(words)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(axum::serve(listener, router(Arc::clone(&app))).into_future());
        (app, address)
    }

    /// The whole answer to one request.
    async fn ask(address: &str, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let length = body.len();
        let text = format!("{line} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probe_tells_good_from_bad() {
        let (app, address) = start(&[]).await;
        let url: Uri = format!("http://{address}/healthz").parse().unwrap();
        probe(&url).await.unwrap();
        app.turn(|dials| dials.health = Health::Error);
        assert!(probe(&url).await.unwrap_err().to_string().contains("500"));
    }

    #[tokio::test]
    async fn requests_fail_as_the_dial_says_and_are_counted() {
        let (_, address) = start(&["--error-rate", "1"]).await;
        assert!(ask(&address, "GET /api/checkout", "").await.starts_with("HTTP/1.0 500"));
        let turned = ask(&address, "POST /demo/error_rate/0", "").await;
        assert!(turned.contains("error_rate: 0.0"), "{turned}");
        assert!(ask(&address, "GET /api/checkout", "").await.starts_with("HTTP/1.0 200"));
        let metrics = ask(&address, "GET /metrics", "").await;
        for (status, count) in [(200, 1), (500, 1)] {
            let line = format!(
                r#"http_requests_total{{method="GET",handler="/api/checkout",status="{status}"}} {count}"#
            );
            assert!(metrics.contains(&line), "{metrics}");
        }
        assert!(ask(&address, "POST /demo/error_rate/2", "").await.starts_with("HTTP/1.0 400"));
    }

    #[tokio::test]
    async fn a_token_is_what_opens_me() {
        let (_, address) = start(&[]).await;
        let json = "Content-Type: application/json\r\n";
        let request = format!("POST /login\n{json}");
        let answer = ask(&address, &request, r#"{"user":"demo","password":"demo"}"#).await;
        let token = answer.split('"').nth(3).unwrap_or_else(|| panic!("{answer}"));
        let with_token = format!("GET /me\nAuthorization: Bearer {token}\r\n");
        assert!(ask(&address, &with_token, "").await.starts_with("HTTP/1.0 200"));
        assert!(ask(&address, "GET /me", "").await.starts_with("HTTP/1.0 401"));
        assert!(ask(&address, &request, r#"{"user":"eve"}"#).await.starts_with("HTTP/1.0 401"));
        ask(&address, "POST /demo/login/refuse", "").await;
        assert!(ask(&address, &with_token, "").await.starts_with("HTTP/1.0 401"));
        ask(&address, "POST /demo/login/error", "").await;
        assert!(
            ask(&address, &request, r#"{"user":"demo","password":"demo"}"#).await.starts_with("HTTP/1.0 500")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_makes_as_much_traffic_as_it_was_told_to() {
        let app = Arc::new(App::new(&parse(&["--self-traffic", "50", "--latency-ms", "10"])));
        tokio::spawn(traffic::make(Arc::clone(&app)));
        tokio::time::sleep(Duration::from_millis(10_050)).await;
        let text = app.figures.text();
        let counts = text.lines().filter(|line| line.starts_with("http_requests_total"));
        let sum: u32 = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum();
        assert!((499..=503).contains(&sum), "{sum} requests in ten seconds");
    }
}
