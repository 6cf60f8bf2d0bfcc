//! HTTP in: status, metrics, history, operator actions.
//!
//! It renders the published [`FleetSnapshot`] and hands operator commands on; it never decides anything, never
//! reads a clock of its own, and never lets a request hold up the core. Reading is open to whoever reaches the
//! address (loopback by default); whatever changes something, or says that a service is unwell, needs a token.

pub mod ack;
mod alerts;
pub mod auth;
mod body;
mod checklist;
mod deploys;
pub mod error;
mod health;
mod host;
mod incidents;
mod limit;
pub mod links;
mod listener;
mod operate;
mod outlook;
mod render;
mod reports;
mod rollbacks;
mod services;
mod settings;
mod status;
pub mod views;
mod windows;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::clock::Clock;
use crate::core::decision::Decision;
use crate::core::ledger::RollbackRecord;
use crate::core::observation::Refusal;
use crate::core::release::{Release, RollbackId, ServiceName};
use crate::core::snapshot::{FleetSnapshot, ServiceSnapshot};
use crate::core::{Command, Input, Timestamp};
use crate::metrics::Metrics;
use crate::report::Incident;
use crate::report::checklist::{Point, Tick};
use crate::rollback::drill::Drill;

pub use self::auth::Tokens;
use self::auth::{Door, Guard};
use self::error::ApiError;
pub use self::host::Hosts;
pub use self::links::Links;
pub(crate) use self::render::time;

/// Longest request body. The longest honest one is a rollback with a long reason: well below a KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Longest time for one answer. Only the plan asks the engine, which answers in milliseconds when it is well.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long requests in flight may still take once the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A full queue of the core is worked off in a second or two.
const BUSY_RETRY_SECONDS: u64 = 5;

/// A restart takes seconds, unless a rollback has to be finished first.
const STOPPING_RETRY_SECONDS: u64 = 15;

/// What has happened, as the store remembers it. Errors are sentences for people.
#[async_trait]
pub trait History: Send + Sync + std::fmt::Debug {
    /// Rollbacks, newest first: of one service or of all, older than the one with the id `before`, at most `limit`.
    async fn rollbacks(
        &self,
        service: Option<&ServiceName>,
        before: Option<&RollbackId>,
        limit: u32,
    ) -> Result<Vec<RollbackRecord>, String>;

    /// One rollback; none if there is no such.
    async fn rollback(&self, id: &RollbackId) -> Result<Option<RollbackRecord>, String>;

    /// A rollback's journal in words, oldest first.
    async fn journal(&self, id: &RollbackId) -> Result<Vec<JournalLine>, String>;

    /// The incident report of a rollback; none if there is no such.
    async fn incident(&self, id: &RollbackId) -> Result<Option<Incident>, String>;

    /// A service's decisions, newest first, at most `limit`.
    async fn decisions(&self, service: &ServiceName, limit: u32) -> Result<Vec<Decision>, String>;

    /// The last drill of each service that had one.
    async fn drills(&self) -> Result<Vec<Drill>, String>;
}

/// What people do before and after a rollback, and is kept. Errors are sentences for people.
#[async_trait]
pub trait Paperwork: Send + Sync + std::fmt::Debug {
    /// Keeps what somebody ticked off, besides what was ticked off before.
    async fn tick(&self, id: &RollbackId, point: Point, tick: Tick) -> Result<(), String>;

    /// Takes back whatever was ticked off of a point.
    async fn untick(&self, id: &RollbackId, point: Point, by: &str, now: Timestamp) -> Result<(), String>;

    /// Keeps what a drill found, in place of the service's last one.
    async fn drilled(&self, drill: &Drill) -> Result<(), String>;
}

/// One line of a rollback's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    /// When.
    pub at: Timestamp,
    /// What happened, in words.
    pub what: String,
}

/// What operators can ask for. Errors are sentences for people, with the next command to type.
#[async_trait]
pub trait Operate: Send + Sync + std::fmt::Debug {
    /// Hands a command to the core and waits for its answer.
    async fn command(&self, command: Command, by: String) -> Result<String, String>;

    /// What a rollback would do now. Asks the engine and changes nothing.
    async fn plan(&self, service: &ServiceName, to: Option<&str>) -> Result<PlannedRollback, String>;

    /// Tries what of a rollback touches nothing that serves.
    async fn drill(&self, service: &ServiceName) -> Result<Drill, String>;

    /// A person takes on what is the matter with a service. The answer is a sentence.
    async fn acknowledge(&self, service: &ServiceName, by: String, why: String) -> Result<String, String>;

    /// Hands samples to the core, without waiting: all of them or none.
    ///
    /// # Errors
    /// There is no room for them, or nobody takes them any more.
    fn sampled(&self, samples: Vec<Input>) -> Result<(), NotTaken>;
}

/// Why the core did not take samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Too many inputs wait already.
    Full,
    /// The daemon is stopping.
    Stopping,
}

/// What a rollback would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRollback {
    /// What runs now.
    pub from: Option<Release>,
    /// Where it would go.
    pub to: Release,
    /// The steps in order, as sentences.
    pub steps: Vec<String>,
    /// What would differ from a faithful restore, or should be known before; usually empty.
    pub notes: Vec<String>,
    /// Which of the two is stopped or started first, and why.
    pub order: Option<String>,
}

/// How the configuration in force came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigState {
    /// Whether the last load or reload was good. If not, the settings before it are still in force.
    pub last_reload_ok: bool,
    /// What was wrong with it, for people.
    pub error: Option<String>,
    /// When the settings in force were loaded.
    pub loaded_at: Timestamp,
}

/// Everything the routes need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// The picture to render, published after each turn of the core.
    pub snapshot: watch::Receiver<Arc<FleetSnapshot>>,
    /// What has happened.
    pub history: Arc<dyn History>,
    /// Where what people do on checklists and in drills is kept.
    pub paperwork: Arc<dyn Paperwork>,
    /// Where operator commands go.
    pub operate: Arc<dyn Operate>,
    /// Answered by `/metrics`.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// Links that answer questions; none if no key could be had for them.
    pub links: Option<Links>,
    /// The tokens that open what is not open to everybody.
    pub tokens: watch::Receiver<Tokens>,
    /// How the configuration in force came about.
    pub config: watch::Receiver<ConfigState>,
    /// Which `Host` headers are answered: see [`Hosts::of_listener`].
    pub hosts: Hosts,
}

impl ApiState {
    fn fleet(&self) -> Arc<FleetSnapshot> {
        self.snapshot.borrow().clone()
    }
}

/// What the routes need that take alerts and reports in.
#[derive(Debug, Clone)]
struct Intake {
    api: ApiState,
    /// How often reports are taken.
    limits: Arc<Mutex<reports::Limits>>,
    /// Alerts without a service that were logged already.
    told: Arc<Mutex<BTreeSet<String>>>,
}

/// The answer when the core takes no samples now: whoever sent them should send them again.
fn not_taken(why: NotTaken) -> ApiError {
    let (what, seconds) = match why {
        NotTaken::Full => ("the daemon is too busy to take it in", BUSY_RETRY_SECONDS),
        NotTaken::Stopping => ("the daemon is stopping", STOPPING_RETRY_SECONDS),
    };
    let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what)
        .next(format!("send it again in {seconds} s; `backstop status` shows how the daemon fares"));
    error.retry_after = Some(seconds);
    error
}

/// The service called `name`, or the error that names the nearest ones.
fn find<'a>(fleet: &'a FleetSnapshot, name: &str) -> Result<&'a ServiceSnapshot, ApiError> {
    fleet.services.iter().find(|service| service.name.as_str() == name).ok_or_else(|| {
        let refused = fleet.refused.iter().find(|refusal| refusal.service.as_str() == name);
        refused.map_or_else(
            || ApiError::unknown_service(name, fleet.services.iter().map(|s| s.name.as_str())),
            |refusal| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!("the service `{name}` is refused: {}", refusal.problems.join("; ")),
                )
                .next(remedy(refusal))
            },
        )
    })
}

/// What helps against a refusal.
fn remedy(refusal: &Refusal) -> String {
    let container = &refusal.container;
    let any = |what: fn(&str) -> bool| refusal.problems.iter().any(|problem| what(problem));
    if any(is_about_a_label) {
        format!("correct the labels of the container `{container}` and deploy it again")
    } else if any(|problem| problem.contains("`docker run -d`")) {
        format!("remove the container `{container}` and start it again with `docker run -d`")
    } else if any(|problem| problem.contains(".toml:") || problem.contains(".yaml:")) {
        "correct the configuration, try it with `backstop check-config`, and reload".to_owned()
    } else {
        format!("deploy `{container}` again with the label `backstop.enable=false`: it cannot be watched")
    }
}

/// What is wrong with a label is told with its name.
fn is_about_a_label(problem: &str) -> bool {
    problem.starts_with("label ")
}

/// All routes with their guards.
pub fn router(state: ApiState) -> Router {
    let guard = |door| middleware::from_fn_with_state(Guard::new(state.clone(), door), auth::require_token);
    let operator = Router::new()
        .route("/api/v1/services/{name}/rollback", post(operate::rollback))
        .route("/api/v1/services/{name}/unpin", post(operate::unpin))
        .route("/api/v1/services/{name}/drill", post(operate::drill))
        .route("/api/v1/services/{name}/unquarantine", post(deploys::unquarantine))
        .route("/api/v1/services/{name}/approve", post(operate::approve))
        .route("/api/v1/services/{name}/cancel", post(operate::cancel))
        .route("/api/v1/services/{name}/extend", post(operate::extend))
        .route("/api/v1/services/{name}/ack", post(ack::ack))
        .route("/api/v1/pause", post(operate::pause))
        .route("/api/v1/resume", post(operate::resume))
        .route("/api/v1/rollbacks/{id}/report", get(incidents::as_json))
        .route("/api/v1/rollbacks/{id}/report.html", get(incidents::as_html))
        .route("/api/v1/rollbacks/{id}/report.md", get(incidents::as_markdown))
        .route("/api/v1/rollbacks/{id}/checklist/{item}", post(checklist::tick))
        .route("/api/v1/rollbacks/{id}/checklist/{item}/untick", post(checklist::untick))
        // Before the body is read: nobody without the token makes us parse anything.
        .route_layer(guard(Door::Operators));
    let intake = Intake { api: state.clone(), limits: Arc::default(), told: Arc::default() };
    let hooks = Router::new()
        .route(
            "/hooks/alertmanager",
            post(alerts::alertmanager).layer(DefaultBodyLimit::max(alerts::BODY_BYTES_MAX)),
        )
        .route(
            "/api/v1/services/{name}/reports",
            post(reports::report).layer(DefaultBodyLimit::max(reports::BODY_BYTES_MAX)),
        )
        .route("/hooks/deploy", post(deploys::deploy))
        .route_layer(guard(Door::Hooks))
        .with_state(intake);
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        // Whoever has the link may answer: it is signed.
        .route("/answer/{token}", get(links::show).post(links::answer))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/services", get(services::list))
        .route("/api/v1/services/{name}", get(services::one))
        .route("/api/v1/services/{name}/plan", get(operate::plan))
        .route("/api/v1/quarantine", get(deploys::quarantine))
        .route("/api/v1/rollbacks", get(rollbacks::list))
        .route("/api/v1/rollbacks/{id}", get(rollbacks::one))
        .merge(operator)
        .merge(hooks)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(bound_time))
        .layer(middleware::from_fn_with_state(state.hosts.clone(), host::check))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(fixed("x-content-type-options", "nosniff"))
        .layer(fixed("referrer-policy", "no-referrer"))
        .layer(fixed("content-security-policy", "default-src 'none'; frame-ancestors 'none'"))
        .layer(fixed("cache-control", "no-store"))
        .with_state(state)
}

/// Serves until `stop`; then requests in flight get three seconds.
pub async fn serve(listener: TcpListener, state: ApiState, stop: CancellationToken) -> std::io::Result<()> {
    let app = router(state).into_make_service_with_connect_info::<listener::Peer>();
    let listener = listener::Bounded::new(listener);
    let stopped = stop.clone();
    let serving = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served,
        () = overdue => Ok(()),
    }
}

fn fixed(name: &'static str, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(HeaderName::from_static(name), HeaderValue::from_static(value))
}

async fn index() -> impl IntoResponse {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "Backstop {version}\n\n\
         GET  /healthz                           is the daemon alive\n\
         GET  /readyz                            can it do its work, and if not, why\n\
         GET  /metrics                           for Prometheus\n\
         GET  /api/v1/status                     the whole fleet\n\
         GET  /api/v1/services                   the services\n\
         GET  /api/v1/services/NAME              one service: matrix, gates, releases\n\
         GET  /api/v1/services/NAME/plan?to=     what a rollback would do\n\
         GET  /api/v1/quarantine                 what was rolled back and is not trusted\n\
         GET  /api/v1/rollbacks?service=&before=&limit=\n\
         GET  /api/v1/rollbacks/ID               one rollback with its journal\n\n\
         With `Authorization: Bearer TOKEN`:\n\
         GET  /api/v1/rollbacks/ID/report        its incident report; also report.html and report.md\n\
         POST /api/v1/rollbacks/ID/checklist/ITEM         {{\"note\": ..., \"by\": ...}}\n\
         POST /api/v1/rollbacks/ID/checklist/ITEM/untick  {{\"by\": ...}}\n\
         POST /api/v1/services/NAME/rollback     {{\"to\": ..., \"why\": ...}}\n\
         POST /api/v1/services/NAME/unpin        {{}}\n\
         POST /api/v1/services/NAME/approve      {{\"why\": ...}}\n\
         POST /api/v1/services/NAME/cancel       {{\"why\": ...}}\n\
         POST /api/v1/services/NAME/extend       {{\"for\": \"30m\", \"why\": ...}}\n\
         POST /api/v1/services/NAME/drill        {{}}\n\
         POST /api/v1/services/NAME/unquarantine {{\"release\": ..., \"why\": ...}}\n\
         POST /api/v1/services/NAME/ack          {{\"by\": ..., \"why\": ...}}\n\
         POST /api/v1/pause                      {{\"service\": ..., \"duration\": \"30m\", \"why\": ...}}\n\
         POST /api/v1/resume                     {{\"service\": ...}}\n\n\
         With that token, or the one of `api.hook_token_file`:\n\
         POST /api/v1/services/NAME/reports      {{\"reporter\": ..., \"text\": ...}}\n\
         POST /hooks/deploy                      {{\"service\": ..., \"release\": ..., \"commit\": ..., \"author\": ...}}\n\
         POST /hooks/alertmanager                for `webhook_configs` of Alertmanager\n"
    )
}

async fn metrics(State(state): State<ApiState>) -> impl IntoResponse {
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at `{}`", uri.path()))
        .next("`GET /` lists what there is")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{}` does not take {method}", uri.path()))
        .next("`GET /` lists what there is")
}

/// A time limit around everything, answered in JSON like every other error.
async fn bound_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("no answer within {} s; what was asked for may still happen", REQUEST_TIMEOUT.as_secs()),
        )
        .next("`backstop status` shows what goes on")
        .into_response(),
    }
}

/// A fault in one handler stays in it: the watchdog goes on.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = what, "a request handler panicked; the daemon goes on");
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this request met a fault in Backstop; the watch goes on",
    )
    .next("the log of the daemon has the details: please report them")
    .into_response()
}
