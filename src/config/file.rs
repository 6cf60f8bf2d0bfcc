//! The settings as they are typed. These structs are the only list of keys there is: shapes, unknown keys and
//! suggestions are derived from them, and a test holds `config/backstop.toml` against them. Everything is
//! optional here; what is missing comes from a lower layer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::announce::{
    BearerToken, ChannelWord, KindWord, Listed, MailAddress, MediumWord, Password, RoutingKey,
    ServicePattern, SigningSecret, TemplateText,
};
use super::groups::Members;
use super::hooks::{ImageWord, Sql};
use super::mitigations::Mitigations;
use super::numbers::{Count, Floor, Size, Threshold};
use super::problem::Wrong;
use super::report::{LabelWord, RepositoryWord};
use super::requests::{
    Addresses, Body, CommandLine, Content, GrpcAddress, GrpcService, HeaderText, HostFile, HostPort,
    JsonPath, JsonValue, KeptFile, Method, Statuses,
};
use super::schema::{Key, Named, Setting, Shape, Way, given_up, over};
use super::series::{AlertLabel, LabelValue, MetricName, Pattern, Preset, Query};
use super::values::{
    DAY, Directory, EngineHost, HOUR, HttpUrl, Listen, LogLevel, MINUTE, Name, Parse, SECOND, SecretFile,
    SecretUrl, ServiceWord, Span, Token, UrlPath,
};
use super::windows::{Days, Moment, ServiceNames, Zone};
use super::words::Enroll;
use crate::core::migration::SchemaChange;
use crate::core::settings::{
    AccessLog, Action, Against, CheckLatency, Condition, Executor, HookPhase, LatencyUnit, Mode, OnFailure,
    Order, Profile, Redeploy, Severity, WindowKind,
};
use crate::notify::MailTls;
use crate::notify::plan::Audience;
use crate::telemetry::LogFormat;

macro_rules! choices {
    () => {
        &[]
    };
    ($choices:expr) => {
        $choices
    };
}

/// A key as it is typed: one that is a word of Rust too is written `r#type` here.
const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => match std::str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => name,
        },
        _ => name,
    }
}

/// Declares a section: a struct of optional settings, its shape, and how one layer of it lies over another. In
/// brackets: where the same thing can be said in several ways.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident $([$choices:expr])? { $($key:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $key: Option<$type>,)*
        }

        impl Setting for $name {
            const SHAPE: &'static Shape = &Shape::Table {
                keys: &[$(Key { name: plain(stringify!($key)), shape: <$type as Setting>::SHAPE }),*],
                choices: choices!($($choices)?),
            };

            fn under(self, higher: Self) -> Self {
                let mut lower = self;
                for key in given_up(choices!($($choices)?), |key| higher.has(key)) {
                    lower.clear(key);
                }
                Self { $($key: over(lower.$key, higher.$key)),* }
            }
        }

        #[allow(dead_code, reason = "what only some sections need is made for all")]
        impl $name {
            /// Whether a key is set.
            pub(super) fn has(&self, key: &str) -> bool {
                $(if key == plain(stringify!($key)) {
                    return self.$key.is_some();
                })*
                false
            }

            /// Whether nothing is set.
            pub(super) fn is_empty(&self) -> bool {
                true $(&& self.$key.is_none())*
            }

            fn clear(&mut self, key: &str) {
                $(if key == plain(stringify!($key)) {
                    self.$key = None;
                })*
            }
        }
    )*};
}

/// What belongs to an HTTP request.
const REQUEST: &[&str] = &[
    "method",
    "headers",
    "body",
    "body_file",
    "status",
    "contains",
    "json",
    "redirects",
    "ca_file",
    "insecure",
];
const GRPC: &[&str] = &["grpc_service", "ca_file", "insecure"];

/// What a check can ask.
pub(super) const ASKED: &[Way] = &[
    Way { leads: &["url"], with: REQUEST },
    Way { leads: &["port", "path"], with: REQUEST },
    Way { leads: &["tcp"], with: &[] },
    Way { leads: &["tcp_port"], with: &[] },
    Way { leads: &["grpc"], with: GRPC },
    Way { leads: &["grpc_port"], with: GRPC },
    Way { leads: &["command"], with: &[] },
    Way { leads: &["steps"], with: &[] },
    // Of a dependency only.
    Way { leads: &["service"], with: &[] },
];

/// One address for the whole service, or a port and a path on every replica.
const ADDRESS: &[Way] = &[Way { leads: &["url"], with: &[] }, Way { leads: &["port", "path"], with: &[] }];

/// What a hook does, and what takes a migration back.
pub(super) const DONE: &[Way] = &[
    Way { leads: &["command"], with: &[] },
    Way { leads: &["run"], with: &[] },
    Way { leads: &["http"], with: &[] },
    Way { leads: &["steps"], with: &[] },
    Way { leads: &["sql_file"], with: &[] },
];

/// A body in place, or in a file.
const BODY: &[Way] = &[Way { leads: &["body"], with: &[] }, Way { leads: &["body_file"], with: &[] }];

sections! {
    /// A whole file.
    File {
        environment: Name,
        mode: Mode,
        enroll: Enroll,
        state_dir: Directory,
        log: Log,
        engine: Engine,
        engines: BTreeMap<String, EngineAt>,
        registry: Registry,
        api: Api,
        fleet: Fleet,
        groups: BTreeMap<String, Members>,
        windows: BTreeMap<String, Window>,
        flight: Flight,
        defaults: Service,
        services: BTreeMap<String, Service>,
        notify: Notify,
        report: Report,
    }

    /// `[report]`
    Report {
        owners: ReportOwners,
        reminders: ReportReminders,
        github: ReportGithub,
    }

    /// `[report.owners]`
    ReportOwners {
        incident: Name,
        cause: Name,
        fix: Name,
        review: Name,
    }

    /// `[report.reminders]`
    ReportReminders {
        enabled: bool,
        after: Span<0, { 30 * DAY }>,
        every: Span<{ HOUR }, { 30 * DAY }>,
        r#for: Span<0, { 90 * DAY }>,
    }

    /// `[report.github]`
    ReportGithub {
        repository: RepositoryWord,
        token: BearerToken,
        token_file: SecretFile,
        labels: Listed<LabelWord>,
        api: HttpUrl,
        ca_file: HostFile,
    }

    /// `[windows.NAME]`
    Window {
        kind: WindowKind,
        services: ServiceNames,
        from: Moment,
        to: Moment,
        days: Days,
        timezone: Zone,
        why: Name,
    }

    /// `[log]`
    Log {
        level: LogLevel,
        format: LogFormat,
    }

    /// `[engine]`
    Engine {
        host: EngineHost,
        look_interval: Span<{ SECOND }, { HOUR }>,
        timeout: Span<{ SECOND }, { 5 * MINUTE }>,
        tls_ca: HostFile,
        tls_cert: HostFile,
        tls_key: HostFile,
        cert_path: Directory,
        insecure: bool,
    }

    /// `[engines.NAME]`
    EngineAt {
        host: EngineHost,
        tls_ca: HostFile,
        tls_cert: HostFile,
        tls_key: HostFile,
        cert_path: Directory,
        insecure: bool,
    }

    /// `[registry]`
    Registry {
        docker_config: HostFile,
        check_interval: Span<{ SECOND }, { DAY }>,
    }

    /// `[api]`
    Api {
        listen: Listen,
        public_url: HttpUrl,
        operators: BTreeMap<String, Operator>,
        token: Token,
        token_file: SecretFile,
        hook_token: Token,
        hook_token_file: SecretFile,
    }

    /// `[api.operators.NAME]`
    Operator {
        token: Token,
        token_file: SecretFile,
    }

    /// `[fleet]`
    Fleet {
        engine_settle: Span<0, { HOUR }>,
        one_at_a_time: Span<0, { HOUR }>,
        breaker_rollbacks: Count<1, 1000>,
        breaker_window: Span<{ SECOND }, { 30 * DAY }>,
        self_check: Addresses,
    }

    /// `[flight]`
    Flight {
        enabled: bool,
        size: Size<1, { 1 << 20 }>,
        age: Span<{ MINUTE }, { 366 * DAY }>,
    }

    /// `[notify]`
    Notify {
        webhook: Webhook,
        channels: BTreeMap<String, NotifyChannel>,
        routes: BTreeMap<String, NotifyRoute>,
        escalation: NotifyEscalation,
    }

    /// `[notify.channels.NAME]`
    NotifyChannel {
        r#type: MediumWord,
        enabled: bool,
        audience: Audience,
        timeout: Span<{ SECOND }, { 2 * MINUTE }>,
        mention: bool,
        text: TemplateText,
        text_file: HostFile,
        url: SecretUrl,
        url_file: SecretFile,
        token: BearerToken,
        token_file: SecretFile,
        ca_file: HostFile,
        routing_key: RoutingKey,
        routing_key_file: SecretFile,
        secret: SigningSecret,
        secret_file: SecretFile,
        template: TemplateText,
        template_file: HostFile,
        smtp: HostPort,
        tls: MailTls,
        user: Name,
        password: Password,
        password_file: SecretFile,
        from: MailAddress,
        to: Listed<MailAddress>,
    }

    /// `[notify.routes.NAME]`
    NotifyRoute {
        services: Listed<ServicePattern>,
        severity: Severity,
        kinds: Listed<KindWord>,
        channels: Listed<ChannelWord>,
    }

    /// `[notify.escalation]`
    NotifyEscalation {
        kinds: Listed<KindWord>,
        after: Span<{ SECOND }, { 7 * DAY }>,
        channels: Listed<ChannelWord>,
        levels: BTreeMap<String, NotifyLevel>,
    }

    /// `[notify.escalation.levels.NAME]`
    NotifyLevel {
        after: Span<{ SECOND }, { 7 * DAY }>,
        channels: Listed<ChannelWord>,
    }

    /// `[notify.webhook]`
    Webhook {
        url: SecretUrl,
        url_file: SecretFile,
        timeout: Span<{ SECOND }, { 2 * MINUTE }>,
    }

    /// `[defaults]` and `[services.NAME]`, and what labels can set.
    Service {
        mode: Mode,
        trial: Span<{ SECOND }, { 30 * DAY }>,
        watch: Span<0, { 90 * DAY }>,
        watch_slow: Span<0, { 90 * DAY }>,
        grace: Span<0, { DAY }>,
        profile: Profile,
        baseline: Span<{ 4 * MINUTE }, { HOUR }>,
        deadline: Span<0, { DAY }>,
        approvals: Count<1, 5>,
        cooldown: Span<0, { 30 * DAY }>,
        attempts: Count<1, 100>,
        attempts_window: Span<{ SECOND }, { 30 * DAY }>,
        verify: Span<{ SECOND }, { DAY }>,
        verify_timeout: Span<{ SECOND }, { DAY }>,
        keep: Count<1, 20>,
        redeploy: Redeploy,
        stop_grace: Span<0, { HOUR }>,
        prepare: bool,
        order: Order,
        pin: bool,
        executor: Executor,
        check_latency: CheckLatency,
        memory_interval: Span<{ SECOND }, { HOUR }>,
        host_memory: bool,
        health: Check,
        checks: BTreeMap<String, Check>,
        dependencies: BTreeMap<String, Dependency>,
        metrics: Metrics,
        prometheus: Prometheus,
        logs: Logs,
        alert_labels: BTreeMap<String, AlertLabel>,
        schema: SchemaChange,
        migrations: Migrations,
        hooks: BTreeMap<String, Hook>,
        rules: BTreeMap<String, RuleRow>,
    }

    /// `[defaults.health]` and `[defaults.checks.NAME]`
    Check [&[ASKED, BODY]] {
        url: HttpUrl,
        port: Count<1, 65535>,
        path: UrlPath,
        method: Method,
        headers: BTreeMap<String, HeaderText>,
        body: Body,
        body_file: KeptFile,
        status: Statuses,
        contains: Content,
        json: BTreeMap<String, JsonValue>,
        redirects: Count<0, 10>,
        ca_file: HostFile,
        insecure: bool,
        tcp: HostPort,
        tcp_port: Count<1, 65535>,
        grpc: GrpcAddress,
        grpc_port: Count<1, 65535>,
        grpc_service: GrpcService,
        command: CommandLine,
        steps: Vec<Step>,
        interval: Span<100, { HOUR }>,
        timeout: Span<100, { 5 * MINUTE }>,
        required: bool,
        enabled: bool,
    }

    /// One of `steps = [{...}, {...}]`
    Step [&[ADDRESS, BODY]] {
        url: HttpUrl,
        port: Count<1, 65535>,
        path: UrlPath,
        method: Method,
        headers: BTreeMap<String, HeaderText>,
        body: Body,
        body_file: KeptFile,
        status: Statuses,
        contains: Content,
        json: BTreeMap<String, JsonValue>,
        capture: BTreeMap<String, JsonPath>,
        redirects: Count<0, 10>,
        ca_file: HostFile,
        insecure: bool,
    }

    /// `[defaults.dependencies.NAME]`
    Dependency [&[ASKED, BODY]] {
        service: ServiceWord,
        url: HttpUrl,
        port: Count<1, 65535>,
        path: UrlPath,
        method: Method,
        headers: BTreeMap<String, HeaderText>,
        body: Body,
        body_file: KeptFile,
        status: Statuses,
        contains: Content,
        json: BTreeMap<String, JsonValue>,
        redirects: Count<0, 10>,
        ca_file: HostFile,
        insecure: bool,
        tcp: HostPort,
        tcp_port: Count<1, 65535>,
        grpc: GrpcAddress,
        grpc_port: Count<1, 65535>,
        grpc_service: GrpcService,
        command: CommandLine,
        steps: Vec<Step>,
        interval: Span<100, { HOUR }>,
        timeout: Span<100, { 5 * MINUTE }>,
        enabled: bool,
    }

    /// `[defaults.metrics]`
    Metrics [&[ADDRESS]] {
        url: HttpUrl,
        port: Count<1, 65535>,
        path: UrlPath,
        interval: Span<{ SECOND }, { 5 * MINUTE }>,
        timeout: Span<100, { MINUTE }>,
        token_file: KeptFile,
        ca_file: HostFile,
        insecure: bool,
        preset: Preset,
        requests: MetricName,
        errors: MetricName,
        latency: MetricName,
        labels: BTreeMap<String, LabelValue>,
        enabled: bool,
    }

    /// `[defaults.prometheus]`
    Prometheus {
        url: HttpUrl,
        interval: Span<{ SECOND }, { 5 * MINUTE }>,
        timeout: Span<100, { MINUTE }>,
        token_file: KeptFile,
        ca_file: HostFile,
        insecure: bool,
        requests: Query,
        errors: Query,
        latency: Query,
        enabled: bool,
    }

    /// `[defaults.logs]`
    Logs {
        enabled: bool,
        error: Pattern,
        access: AccessLog,
        latency_unit: LatencyUnit,
        interval: Span<{ SECOND }, { 5 * MINUTE }>,
    }

    /// `[defaults.hooks.HOOK]`
    Hook [&[DONE]] {
        phase: HookPhase,
        command: CommandLine,
        run: RunOnce,
        http: Step,
        steps: Vec<Step>,
        timeout: Span<{ SECOND }, { DAY }>,
        on_failure: OnFailure,
        repeatable: bool,
        enabled: bool,
    }

    /// `run = { ... }` of a hook
    RunOnce {
        image: ImageWord,
        command: CommandLine,
    }

    /// `[defaults.migrations]`
    Migrations {
        query: Sql,
        url_file: KeptFile,
        interval: Span<{ 10 * SECOND }, { HOUR }>,
        changed: SchemaChange,
        manual: Content,
        backup: Work,
        downgrade: Work,
    }

    /// `backup` and `downgrade` of `[defaults.migrations]`
    Work [&[DONE]] {
        command: CommandLine,
        run: RunOnce,
        http: Step,
        steps: Vec<Step>,
        sql_file: HostFile,
        timeout: Span<{ SECOND }, { DAY }>,
        repeatable: bool,
        enabled: bool,
    }

    /// `[defaults.rules.NAME]`
    RuleRow {
        condition: Condition,
        threshold: Threshold,
        against: Against,
        floor: Floor,
        only: Name,
        within: Span<{ SECOND }, { 7 * DAY }>,
        sustained: Span<0, { DAY }>,
        min_samples: Count<1, 1000>,
        severity: Severity,
        mitigations: Mitigations,
        action: Action,
    }
}

impl Check {
    /// Its one request, where it makes one.
    pub(super) fn as_step(&self) -> Step {
        let it = self.clone();
        Step {
            url: it.url,
            port: it.port,
            path: it.path,
            method: it.method,
            headers: it.headers,
            body: it.body,
            body_file: it.body_file,
            status: it.status,
            contains: it.contains,
            json: it.json,
            capture: None,
            redirects: it.redirects,
            ca_file: it.ca_file,
            insecure: it.insecure,
        }
    }
}

impl Dependency {
    /// The check that it is, unless it is a service.
    pub(super) fn as_check(&self) -> Check {
        let it = self.clone();
        Check {
            enabled: it.enabled,
            required: None,
            interval: it.interval,
            timeout: it.timeout,
            url: it.url,
            port: it.port,
            path: it.path,
            method: it.method,
            headers: it.headers,
            body: it.body,
            body_file: it.body_file,
            status: it.status,
            contains: it.contains,
            json: it.json,
            redirects: it.redirects,
            ca_file: it.ca_file,
            insecure: it.insecure,
            tcp: it.tcp,
            tcp_port: it.tcp_port,
            grpc: it.grpc,
            grpc_port: it.grpc_port,
            grpc_service: it.grpc_service,
            command: it.command,
            steps: it.steps,
        }
    }
}

impl Named for Service {
    const NAME: &'static str = "NAME";

    fn check(name: &str) -> Result<(), Wrong> {
        ServiceWord::parse(name)
            .map(drop)
            .map_err(|what| Wrong::new("this cannot be the name of a service", what.right))
    }
}

/// A name that labels can say: no dots, which would end it there.
pub(super) fn short_name(name: &str, what: &str, example: &str) -> Result<(), Wrong> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Wrong::new(
        format!("this cannot be the name of {what}"),
        format!("1 to 64 letters, digits, _ and - would be right, as in {example}"),
    ))
}

/// How the check of the short form is called.
pub(super) const HEALTH: &str = "health";

impl Named for Operator {
    const NAME: &'static str = "OPERATOR";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "an operator", "alice")
    }
}

impl Named for Check {
    const NAME: &'static str = "CHECK";

    fn check(name: &str) -> Result<(), Wrong> {
        if name == HEALTH {
            return Err(Wrong::new(
                "the check called health has a section of its own",
                "[defaults.health] or [services.NAME.health] would be right, without `checks`",
            ));
        }
        short_name(name, "a check", "ready")
    }
}

impl Named for Dependency {
    const NAME: &'static str = "DEPENDENCY";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a dependency", "db")
    }
}

impl Named for Hook {
    const NAME: &'static str = "HOOK";

    fn check(name: &str) -> Result<(), Wrong> {
        short_name(name, "a hook", "maintenance")
    }
}

impl Named for RuleRow {
    const NAME: &'static str = "ROW";

    fn check(name: &str) -> Result<(), Wrong> {
        // Whether the matrix has such a row is judged where it is known whether this one adds it.
        short_name(name, "a row", "checkout_slow")
    }
}
