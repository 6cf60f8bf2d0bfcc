//! The settings as they are typed. These structs are the only list of keys there is: shapes, unknown keys and
//! suggestions are derived from them, and a test holds `config/backstop.toml` against them. Everything is
//! optional here; what is missing comes from a lower layer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::problem::Wrong;
use super::schema::{Key, Named, Setting, Shape, over};
use super::values::{
    Count, DAY, Directory, EngineHost, Enroll, HOUR, HttpUrl, Listen, LogLevel, MINUTE, Name, Number, SECOND,
    SecretFile, SecretUrl, Span, Statuses, Token, UrlPath,
};
use crate::core::settings::{Action, Against, Mode, Redeploy, Rule, Severity};
use crate::telemetry::LogFormat;

/// Declares a section: a struct of optional settings, its shape, and how one layer of it lies over another.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $key: Option<$type>,)*
        }

        impl Setting for $name {
            const SHAPE: &'static Shape = &Shape::Table(&[$(Key {
                name: stringify!($key),
                shape: <$type as Setting>::SHAPE,
            }),*]);

            fn under(self, higher: Self) -> Self {
                let lower = $name::yield_to(self, &higher);
                Self { $($key: over(lower.$key, higher.$key)),* }
            }
        }
    )*};
}

sections! {
    /// A whole file.
    File {
        environment: Name,
        mode: Mode,
        enroll: Enroll,
        state_dir: Directory,
        log: Log,
        engine: Engine,
        api: Api,
        fleet: Fleet,
        defaults: Service,
        services: BTreeMap<String, Service>,
        notify: Notify,
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
    }

    /// `[api]`
    Api {
        listen: Listen,
        token: Token,
        token_file: SecretFile,
    }

    /// `[fleet]`
    Fleet {
        engine_settle: Span<0, { HOUR }>,
        one_at_a_time: Span<0, { HOUR }>,
        breaker_rollbacks: Count<1, 1000>,
        breaker_window: Span<{ SECOND }, { 30 * DAY }>,
    }

    /// `[notify]`
    Notify {
        webhook: Webhook,
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
        cooldown: Span<0, { 30 * DAY }>,
        attempts: Count<1, 100>,
        attempts_window: Span<{ SECOND }, { 30 * DAY }>,
        verify: Span<{ SECOND }, { DAY }>,
        verify_timeout: Span<{ SECOND }, { DAY }>,
        keep: Count<1, 20>,
        redeploy: Redeploy,
        stop_grace: Span<0, { HOUR }>,
        prepare: bool,
        memory_interval: Span<{ SECOND }, { HOUR }>,
        host_memory: bool,
        health: Health,
        rules: BTreeMap<String, RuleRow>,
    }

    /// `[defaults.health]`
    Health {
        url: HttpUrl,
        port: Count<1, 65535>,
        path: UrlPath,
        interval: Span<100, { HOUR }>,
        timeout: Span<100, { 5 * MINUTE }>,
        status: Statuses,
    }

    /// `[defaults.rules.NAME]`
    RuleRow {
        threshold: Number,
        against: Against,
        floor: Number,
        within: Span<{ SECOND }, { 7 * DAY }>,
        sustained: Span<0, { DAY }>,
        min_samples: Count<1, 1000>,
        severity: Severity,
        action: Action,
    }
}

/// What a lower layer gives up because the higher one speaks of the same thing in other words.
trait YieldTo: Sized {
    fn yield_to(self, _higher: &Self) -> Self {
        self
    }
}

impl YieldTo for File {}
impl YieldTo for Log {}
impl YieldTo for Engine {}
impl YieldTo for Api {}
impl YieldTo for Fleet {}
impl YieldTo for Notify {}
impl YieldTo for Webhook {}
impl YieldTo for Service {}
impl YieldTo for RuleRow {}
impl YieldTo for Health {
    /// A URL of a higher layer stands in for port and path of a lower one, and the other way round.
    fn yield_to(self, higher: &Self) -> Self {
        if higher.url.is_some() {
            return Self { port: None, path: None, ..self };
        }
        if higher.port.is_some() || higher.path.is_some() {
            return Self { url: None, ..self };
        }
        self
    }
}

impl Named for Service {
    const NAME: &'static str = "NAME";

    fn check(name: &str) -> Result<(), Wrong> {
        // What the engine allows in a container's name; others could never be met.
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if (1..=255).contains(&name.len()) && name.chars().all(fits) {
            return Ok(());
        }
        Err(Wrong::new(
            "this cannot be the name of a service",
            "the container's name would be right, or PROJECT-SERVICE for Compose, or its label backstop.service",
        ))
    }
}

impl Named for RuleRow {
    const NAME: &'static str = "ROW";

    fn check(name: &str) -> Result<(), Wrong> {
        let rows: Vec<String> = Rule::matrix().into_iter().map(|row| row.name).collect();
        if rows.iter().any(|row| row == name) {
            return Ok(());
        }
        let near = super::nearest::nearest(name, rows.iter().map(String::as_str));
        let right = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the rows are {}", rows.join(", ")),
        };
        Err(Wrong::new("there is no such row in the decision matrix", right))
    }
}
