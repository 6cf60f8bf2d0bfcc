//! The settings that the core decides by. `config/` makes them; every value here is already valid.

mod hooks;
mod matrix;
mod mitigation;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::approval::time_of_day;
use super::migration::SchemaChange;
use super::release::ServiceName;
use super::time::Timestamp;

pub use hooks::{HOOK_VALUES, Hook, HookKind, HookPhase, Migrations, OnFailure, RunImage, SchemaQuery};
pub use matrix::{Action, Against, Condition, Rule, Severity};
pub use mitigation::{Mitigation, Remedy};

/// Settings of the whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSettings {
    /// Named in announcements and in the rollback log: `production`.
    pub environment: String,
    /// After the engine came back, verdicts wait this long: its restart stops and starts containers.
    pub engine_settle: Duration,
    /// After another service's rollback ended, a verdict that it may have caused or cured waits this long.
    pub one_at_a_time: Duration,
    /// The breaker: this many automatic rollbacks ...
    pub breaker_rollbacks: u32,
    /// ... within this time stop all automatic rollbacks until somebody resumes them.
    pub breaker_window: Duration,
    /// Where to knock to tell whether anything can be reached from here: URLs (`https://example.com`,
    /// `tcp://10.0.0.1:53`). If none of them answers, we are cut off and blame nobody.
    #[serde(default)]
    pub self_check: Vec<String>,
    /// Services that are one release.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// How often it is made sure that the images of known-good releases are still to be had.
    #[serde(default = "check_interval")]
    pub check_interval: Duration,
    /// The names of the engines that are watched besides the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<String>,
}

/// As often as specifications and tags are renewed: images are pruned by nightly jobs and by deployments, and the latter
/// are followed by a check anyway. It costs the engine a millisecond.
const fn check_interval() -> Duration {
    mins(10)
}

/// Services that are one release: judged together, and rolled back together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// Its members, in the order in which they go back.
    pub services: Vec<ServiceName>,
}

/// A time in which Backstop leaves services alone, or asks before it acts, that has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWindow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: WindowKind,
    /// Which services it is about; all if none.
    pub services: Vec<ServiceName>,
    /// When it is over.
    pub until: Timestamp,
    /// Why it is there; may be empty.
    pub why: String,
}

/// What a window is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// People work on it: nothing is judged, as during a pause.
    Maintenance,
    /// Nothing is to change by itself: what is judged bad is asked about, however urgent.
    Freeze,
}

impl WindowKind {
    /// The name used in configuration and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Freeze => "freeze",
        }
    }
}

impl OpenWindow {
    /// Whether it is about `service`.
    pub fn covers(&self, service: &ServiceName) -> bool {
        self.services.is_empty() || self.services.contains(service)
    }
}

impl fmt::Display for OpenWindow {
    /// `the freeze black_friday until 06:00 UTC: the busiest day`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {} until {}", self.kind.name(), self.name, time_of_day(self.until))?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

/// Whether decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Decide, announce and act.
    Act,
    /// Decide and announce; never touch the service.
    DryRun,
}

/// What happens when a rolled-back release is deployed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redeploy {
    /// It is judged again: perhaps what it needed is there now.
    Watch,
    /// It is rolled back at once.
    Refuse,
}

/// Settings of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// Act or only say so.
    pub mode: Mode,
    /// Health checks, by name. One that is configured as `[health]` is called `health`.
    pub checks: BTreeMap<String, HealthCheck>,
    /// What the service cannot do without, by name: a release is not blamed for its failures.
    pub dependencies: BTreeMap<String, Dependency>,
    /// The service's own metrics.
    pub metrics: Option<MetricsSource>,
    /// A Prometheus server that knows about it.
    pub prometheus: Option<PromqlSource>,
    /// Its containers' logs.
    pub logs: LogSource,
    /// An alert of somebody else's monitoring that has all of these labels, as name and value, is about this service.
    /// If there are none, one whose label for a service's name is this service's name is.
    #[serde(default)]
    pub alert_labels: Vec<(String, String)>,
    /// How often memory and CPU are measured.
    pub memory_interval: Duration,
    /// Judge containers without a memory limit against the host's memory.
    pub host_memory: bool,
    /// How long a new release is on trial before it is known-good.
    pub trial: Duration,
    /// How long after a deployment it can be rolled back without asking.
    pub watch: Duration,
    /// The same for memory, OOM kills and exits, which take longer to show.
    pub watch_slow: Duration,
    /// A new release is not judged by health, latency and memory for this long, and not by errors for half of it:
    /// cold caches and warm-up.
    pub grace: Duration,
    /// How quick the rows of errors and latency are.
    pub profile: Profile,
    /// How much of the time before a deployment the new release is compared with.
    pub baseline: Duration,
    /// After a rollback ended, how long until the next automatic one.
    pub cooldown: Duration,
    /// How long a rollback of severity `high` is announced before it goes ahead.
    pub deadline: Duration,
    /// How many different people have to approve what has to be approved, and to agree to an ordered rollback.
    pub approvals: u32,
    /// At most this many automatic rollbacks ...
    pub attempts: u32,
    /// ... within this time.
    pub attempts_window: Duration,
    /// How long the target must pass every rule before the rollback counts as proved.
    pub verify: Duration,
    /// When proof has not come by then, a person is called.
    pub verify_timeout: Duration,
    /// How many known-good releases are kept, with their images.
    pub keep: u32,
    /// Policy for a quarantined release that is deployed again.
    pub redeploy: Redeploy,
    /// The most that a bad container gets between SIGTERM and SIGKILL, unless its deployer set a stop timeout.
    pub stop_grace: Duration,
    /// Create the replacement as soon as a rule is pending.
    pub prepare: bool,
    /// Which of the two runs first while a replica is replaced.
    #[serde(default)]
    pub order: Order,
    /// Compose: set the variable of the image line back in the project's `.env`, so that a rollback lasts.
    #[serde(default)]
    pub pin: bool,
    /// Compose: who replaces the containers.
    #[serde(default)]
    pub executor: Executor,
    /// What a release did to the schema of its database, by its label; none if it does not say so.
    #[serde(default)]
    pub schema: Option<SchemaChange>,
    /// What is known of its migrations, and how they are taken back.
    #[serde(default)]
    pub migrations: Migrations,
    /// What else is done when it goes back, by phase and name.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// What keeps a rollback from being carried out, found out by looking and not by configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<String>,
    /// Whether our own checks are asked how long requests take, where nothing else tells.
    #[serde(default)]
    pub check_latency: CheckLatency,
    /// The decision matrix.
    pub rules: Vec<Rule>,
}

/// Whether our own checks are asked how long requests take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckLatency {
    /// Required HTTP checks are, where fewer than a handful of requests with latencies are known.
    #[default]
    Auto,
    /// They are not.
    Off,
}

/// Which of the two runs first while a replica is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The good one, where it shares nothing with the bad one that only one of them can have; else the bad one stops.
    #[default]
    Auto,
    /// The bad one stops before the good one starts: never two at a time, with an outage of seconds.
    StopFirst,
    /// The good one, wherever the engine allows it: even if both write to the same volume.
    StartFirst,
}

/// Who replaces the containers of a Compose service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Executor {
    /// We do, through the engine's API, except where only Compose can: containers that share a network with them.
    #[default]
    Auto,
    /// We do, keeping Compose's labels.
    Api,
    /// `docker compose up`, after its files were changed.
    Compose,
}

/// How quick the rows of errors and latency are (decision.md, 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The worse, the sooner: several windows side by side.
    Fast,
    /// One window of five minutes: slower, for services whose latency swings by itself.
    Cautious,
}

/// A health check: how it is made, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// How it is made.
    pub kind: CheckKind,
    /// How often.
    pub interval: Duration,
    /// How long it may take, all steps and bodies included.
    pub timeout: Duration,
    /// Whether its failing is the service's failing. Others are advisory: they are shown and announced.
    pub required: bool,
}

impl HealthCheck {
    /// Whether it asks by HTTP.
    pub const fn is_http(&self) -> bool {
        matches!(self.kind, CheckKind::Http(_))
    }

    /// A required check by one plain GET.
    pub fn get(target: Target, interval: Duration, timeout: Duration) -> Self {
        Self { kind: CheckKind::Http(vec![HttpStep::get(target)]), interval, timeout, required: true }
    }
}

/// How a check is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// HTTP requests, one after the other; values found in one answer can be used by those after it.
    Http(Vec<HttpStep>),
    /// A TCP connection is accepted.
    Tcp(Target),
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Where; the path is not used.
        target: Target,
        /// The service asked about; empty for the server as a whole.
        service: String,
        /// How TLS is done.
        tls: Tls,
    },
    /// A command run in every replica exits with 0.
    Command(Vec<String>),
}

impl CheckKind {
    /// Whether it is made of every replica, and not of the service as a whole.
    pub fn is_of_replicas(&self) -> bool {
        let own = |target: &Target| matches!(target, Target::Replica { .. });
        match self {
            Self::Http(steps) => steps.iter().any(|step| own(&step.target)),
            Self::Tcp(target) | Self::Grpc { target, .. } => own(target),
            Self::Command(_) => true,
        }
    }
}

/// One request of a check, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpStep {
    /// Where it goes.
    pub target: Target,
    /// The method.
    pub method: String,
    /// Headers to send.
    pub headers: Vec<(String, Text)>,
    /// The body to send.
    pub body: Option<Text>,
    /// The statuses that pass, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// Text that the body must have in it.
    pub contains: Option<String>,
    /// Values that the JSON body must have: path (`.checks[0].status`) and value as JSON text.
    pub json: Vec<(String, String)>,
    /// Values of the JSON body to carry along, as name and path: `{{name}}` in URL, headers and body of later steps.
    pub capture: Vec<(String, String)>,
    /// Redirects that are followed: login pages need two or three, more is a loop. With none, a redirect is judged by its
    /// status.
    pub redirects: u32,
    /// How TLS is done.
    pub tls: Tls,
}

impl HttpStep {
    /// A plain GET that any status from 200 to 399 satisfies: a redirect shows that the endpoint is there.
    pub fn get(target: Target) -> Self {
        Self {
            target,
            method: "GET".into(),
            headers: Vec::new(),
            body: None,
            status: vec![(200, 399)],
            contains: None,
            json: Vec::new(),
            capture: Vec::new(),
            redirects: 5,
            tls: Tls::default(),
        }
    }
}

/// A text that may be a secret: then it is read from its file whenever it is needed, and never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// The text itself.
    Plain(String),
    /// The file that holds it; white space around it is dropped.
    File(PathBuf),
}

/// How the other side of a TLS connection is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tls {
    /// Certificates to trust besides the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Trust anybody: for self-signed certificates on one's own network.
    pub insecure: bool,
}

/// Where something is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One URL for the whole service.
    Url(String),
    /// A path on every replica's own address.
    Replica {
        /// TCP port inside the container.
        port: u16,
        /// Path, beginning with `/`; empty where there is none.
        path: String,
    },
}

/// Something that a service cannot do without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// Another watched service.
    Service(ServiceName),
    /// Something that is checked like a service.
    Check(HealthCheck),
}

/// A service's own metrics endpoint, in the Prometheus or OpenMetrics text format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsSource {
    /// Where it is.
    pub target: Target,
    /// How often it is read.
    pub interval: Duration,
    /// How long an answer may take, its body included.
    pub timeout: Duration,
    /// The file of a bearer token.
    pub token_file: Option<PathBuf>,
    /// How TLS is done.
    pub tls: Tls,
    /// Which names to look for: the name of a preset, or `auto`.
    pub preset: String,
    /// The metric that counts requests, or whose `_count` does; instead of the preset's.
    pub requests: Option<String>,
    /// The metric that counts errors, where they are not told by a status label.
    pub errors: Option<String>,
    /// The histogram or summary of latencies; instead of the preset's.
    pub latency: Option<String>,
    /// Only series with these labels count, as name and value.
    pub labels: Vec<(String, String)>,
}

impl MetricsSource {
    /// Whatever any preset knows, of all series, without a token.
    pub fn auto(target: Target, interval: Duration, timeout: Duration) -> Self {
        Self {
            target,
            interval,
            timeout,
            token_file: None,
            tls: Tls::default(),
            preset: "auto".into(),
            requests: None,
            errors: None,
            latency: None,
            labels: Vec::new(),
        }
    }
}

/// Queries to a Prometheus server. `$window` in a query stands for the time asked about, as in `30s`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromqlSource {
    /// The server, as in `http://prometheus:9090`.
    pub url: String,
    /// How often it is asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The file of a bearer token.
    pub token_file: Option<PathBuf>,
    /// How TLS is done.
    pub tls: Tls,
    /// How many requests ended within the window: `sum(increase(http_requests_total{job="api"}[$window]))`.
    pub requests: String,
    /// How many of them failed.
    pub errors: String,
    /// How many were not slower than each bound: `sum by (le) (increase(..._bucket{job="api"}[$window]))`.
    pub latency: Option<String>,
}

/// What is read from the containers' logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSource {
    /// Whether they are read at all.
    pub enabled: bool,
    /// A regular expression: a line that it matches tells of an error.
    pub error: String,
    /// How access logs are written, if requests are to be counted from them.
    pub access: AccessLog,
    /// The unit of the latencies in it, where the lines do not tell.
    pub latency_unit: LatencyUnit,
    /// Counts are reported this often.
    pub interval: Duration,
}

/// How an access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLog {
    /// Requests are not counted from the log.
    Off,
    /// Whatever of the following the lines turn out to be.
    Auto,
    /// Common and combined log format, with the time taken as the last number where it is there.
    Common,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// The unit of latencies in an access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyUnit {
    /// The one that the logger is known for.
    Auto,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanos,
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn mins(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

impl ServiceSettings {
    /// Whether the failing of the check called `name` is the service's failing. One that is no longer configured was.
    pub fn requires(&self, name: &str) -> bool {
        self.checks.get(name).is_none_or(|check| check.required)
    }

    /// Whether something counts its requests.
    pub fn counts_requests(&self) -> bool {
        self.metrics.is_some()
            || self.prometheus.is_some()
            || (self.logs.enabled && self.logs.access != AccessLog::Off)
    }
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            environment: "production".into(),
            // An engine restart stops every container: docker.md, section 5.
            engine_settle: mins(1),
            // decision.md, 4.3, rule 1.
            one_at_a_time: mins(3),
            // Five in an hour is a storm on any host that one person looks after.
            breaker_rollbacks: 5,
            breaker_window: mins(60),
            self_check: Vec::new(),
            groups: Vec::new(),
            check_interval: check_interval(),
            engines: Vec::new(),
        }
    }
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Act,
            checks: BTreeMap::new(),
            dependencies: BTreeMap::new(),
            metrics: None,
            prometheus: None,
            logs: LogSource::default(),
            alert_labels: Vec::new(),
            memory_interval: secs(5),
            host_memory: false,
            trial: mins(15),
            watch: mins(60),
            watch_slow: mins(120),
            grace: secs(60),
            profile: Profile::Fast,
            // decision.md, section 3.
            baseline: mins(30),
            cooldown: mins(5),
            // "High: < 15 minutes": one of the runbooks; the other one gives it an hour.
            deadline: mins(15),
            approvals: 1,
            // docker.md, section 6: after two in half an hour, stop and call somebody.
            attempts: 2,
            attempts_window: mins(30),
            verify: secs(30),
            verify_timeout: mins(5),
            keep: 3,
            redeploy: Redeploy::Watch,
            stop_grace: secs(3),
            prepare: true,
            executor: Executor::Auto,
            order: Order::Auto,
            pin: true,
            schema: None,
            migrations: Migrations::default(),
            hooks: Vec::new(),
            hindrance: None,
            check_latency: CheckLatency::Auto,
            rules: Rule::matrix(),
        }
    }
}

impl Default for LogSource {
    fn default() -> Self {
        Self {
            enabled: true,
            // What the runbooks count, and what the usual loggers write for it.
            error: r"\b(ERROR|FATAL|CRITICAL|PANIC)\b|\bpanic:|Traceback \(most recent call last\)".into(),
            access: AccessLog::Off,
            latency_unit: LatencyUnit::Auto,
            interval: secs(10),
        }
    }
}
