//! How the demo app is told to behave: flags, each with an environment twin.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::Uri;
use clap::ValueEnum;
use clap::builder::FalseyValueParser;

use super::dials::{Dials, share};
use super::environment;

/// How the demo app behaves. Without any of this it is a healthy service.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoAppArgs {
    /// Version that the app reports
    #[arg(long, env = "DEMO_VERSION", default_value = "v1")]
    pub(super) version: String,

    /// Address to serve on
    #[arg(long, env = "DEMO_LISTEN", default_value = "0.0.0.0:8080")]
    pub(super) listen: SocketAddr,

    /// How /healthz answers when it is bad: ok, error, flapping (two good answers, two bad ones, and so on), hiccup
    /// (three good ones, a bad one), hang, redirect-loop, endless, huge, drop
    #[arg(long, env = "DEMO_HEALTH", value_name = "MODE")]
    pub(super) health: Option<Health>,

    /// /healthz answers 500 (short for --health error)
    #[arg(long, env = "DEMO_BAD", value_parser = FalseyValueParser::new())]
    pub(super) bad: bool,

    /// /healthz never answers (short for --health hang)
    #[arg(long, env = "DEMO_HANG", value_parser = FalseyValueParser::new())]
    pub(super) hang: bool,

    /// Be healthy for this long first; alone it means that /healthz answers 500 from then on
    #[arg(long, env = "DEMO_BAD_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) bad_after: Option<Duration>,

    /// /healthz answers 500 unless this variable has this value
    #[arg(long, env = "DEMO_REQUIRE", value_name = "NAME=VALUE")]
    pub(super) require: Option<Requirement>,

    /// /readyz answers 200 and says migrations_current = false
    #[arg(long, env = "DEMO_MIGRATIONS_PENDING", value_parser = FalseyValueParser::new())]
    pub(super) migrations_pending: bool,

    /// How POST /login and GET /me behave: error means that nobody can log in, refuse that no token is accepted
    #[arg(long, env = "DEMO_LOGIN", value_name = "MODE", default_value = "ok")]
    pub(super) login: Login,

    /// Whether /exports answers; without exports no memory is taken by --memory-percent
    #[arg(long, env = "EXPORT_MODE", value_name = "MODE", default_value = "on")]
    pub(super) export_mode: Exports,

    /// The share of the requests to /, /api/checkout and /api/search that fail with 500: 0 to 1
    #[arg(long, env = "DEMO_ERROR_RATE", value_name = "SHARE", value_parser = share, default_value = "0")]
    pub(super) error_rate: f64,

    /// The median time that these requests take, in milliseconds; one in a hundred takes twice as long
    #[arg(long, env = "DEMO_LATENCY_MS", value_name = "MILLISECONDS", value_parser = amount, default_value = "0")]
    pub(super) latency_ms: f64,

    /// So many times as slow as that
    #[arg(long, env = "DEMO_LATENCY_FACTOR", value_name = "FACTOR", value_parser = amount, default_value = "1")]
    pub(super) latency_factor: f64,

    /// Lines that begin with ERROR in the log, per minute
    #[arg(long, env = "DEMO_LOG_ERRORS", value_name = "NUMBER", value_parser = amount, default_value = "0")]
    pub(super) log_errors: f64,

    /// A line in the log for each of these requests, in this format
    #[arg(long, env = "DEMO_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    pub(super) access_log: AccessLog,

    /// What /metrics answers: off means 404, garbage no metrics, html a page for people
    #[arg(long, env = "DEMO_METRICS", value_name = "MODE", default_value = "on")]
    pub(super) metrics: Metrics,

    /// /metrics is shown only to whoever has this bearer token
    #[arg(long, env = "DEMO_METRICS_TOKEN", value_name = "TOKEN")]
    pub(super) metrics_token: Option<String>,

    /// Requests per second that the app makes to itself, without a network; they count, and are logged, as any other
    #[arg(long, env = "DEMO_SELF_TRAFFIC", value_name = "NUMBER", value_parser = amount, default_value = "0")]
    pub(super) self_traffic: f64,

    /// Where the sequence of errors and latencies begins; the same seed gives the same sequence
    #[arg(long, env = "DEMO_SEED", default_value_t = 1)]
    pub(super) seed: u32,

    /// Exit by itself after this long
    #[arg(long, env = "DEMO_EXIT_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) exit_after: Option<Duration>,

    /// Exit code of --exit-after
    #[arg(long, env = "DEMO_EXIT_CODE", default_value_t = 1)]
    pub(super) exit_code: i32,

    /// Take and keep this much memory at start, for example 58MiB
    #[arg(long, env = "DEMO_USE_MEMORY", value_name = "SIZE")]
    pub(super) use_memory: Option<Size>,

    /// Take memory until the container uses this share of its limit, in percent
    #[arg(long, env = "DEMO_MEMORY_PERCENT", value_name = "PERCENT", value_parser = amount, default_value = "0")]
    pub(super) memory_percent: f64,

    /// Take this much more memory every second
    #[arg(long, env = "DEMO_LEAK", value_name = "SIZE")]
    pub(super) leak: Option<Size>,

    /// Wait this long before memory is taken
    #[arg(long, env = "DEMO_MEMORY_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration,
          default_value = "0s")]
    pub(super) memory_after: Duration,

    /// Keep so much of one core busy: 0 to 1
    #[arg(long, env = "DEMO_CPU", value_name = "SHARE", value_parser = share, default_value = "0")]
    pub(super) cpu: f64,

    /// As PID 1, go on running when SIGTERM comes
    #[arg(long, env = "DEMO_IGNORE_SIGTERM", value_parser = FalseyValueParser::new())]
    pub(super) ignore_sigterm: bool,

    /// Listen only after this long
    #[arg(long, env = "DEMO_SLOW_START", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) slow_start: Option<Duration>,

    /// Serve nothing; ask this URL once and exit 0 if the answer is 2xx, else 1 (for a HEALTHCHECK without a shell)
    #[arg(long, value_name = "URL")]
    pub(super) probe: Option<Uri>,
}

impl DemoAppArgs {
    /// The way in which it is bad, now or after `bad_after`.
    pub(super) fn bad_health(&self) -> Option<Health> {
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

    /// What the dials stand at when the app starts.
    pub(super) fn dials(&self) -> Dials {
        Dials {
            health: self.first_health(),
            migrations_current: !self.migrations_pending,
            login: self.login,
            metrics: self.metrics,
            access_log: self.access_log,
            error_rate: self.error_rate,
            latency_ms: self.latency_ms,
            latency_factor: self.latency_factor,
            log_errors: self.log_errors,
            self_traffic: self.self_traffic,
            memory_mb: self.use_memory.map_or(0.0, |Size(bytes)| bytes as f64 / f64::from(1 << 20)),
            memory_percent: self.memory_percent,
            cpu: self.cpu,
        }
    }
}

/// A number that is not below zero.
fn amount(text: &str) -> Result<f64, String> {
    let wanted = || format!("`{text}` is no number from 0 upwards");
    text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0).ok_or_else(wanted)
}

/// How /healthz answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Ok,
    Error,
    /// Two good answers, two bad ones, and so on.
    Flapping,
    /// Three good answers, a bad one, and so on.
    Hiccup,
    Hang,
    RedirectLoop,
    Endless,
    Huge,
    /// The connection breaks in the middle of the answer.
    Drop,
}

impl FromStr for Health {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "ok" => Self::Ok,
            "error" => Self::Error,
            "flapping" => Self::Flapping,
            "hiccup" => Self::Hiccup,
            "hang" => Self::Hang,
            "redirect-loop" => Self::RedirectLoop,
            "endless" => Self::Endless,
            "huge" => Self::Huge,
            "drop" => Self::Drop,
            _ => bail!(
                "`{text}` is none of ok, error, flapping, hiccup, hang, redirect-loop, endless, huge, drop"
            ),
        })
    }
}

/// Whether a feature that can be switched off is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Exports {
    On,
    Off,
}

/// Whether one can log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Login {
    Ok,
    Error,
    Refuse,
}

/// What /metrics answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Metrics {
    On,
    Off,
    Garbage,
    Html,
}

/// How requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AccessLog {
    Off,
    Combined,
    Json,
    Logfmt,
}

/// A number of bytes, as in `58MiB`, `64m` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

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
pub(super) struct Requirement {
    pub(super) name: String,
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
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: DemoAppArgs,
    }

    pub(in crate::cli::demo_app) fn parse(words: &[&str]) -> DemoAppArgs {
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
        for word in ["ok", "error", "flapping", "hiccup", "hang", "redirect-loop", "endless", "huge", "drop"]
        {
            word.parse::<Health>().unwrap();
        }
        assert!("good".parse::<Health>().is_err());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for words in [["--error-rate", "1.1"], ["--error-rate", "NaN"], ["--latency-ms", "inf"]] {
            assert!(Command::try_parse_from(["demo-app"].iter().chain(&words)).is_err(), "{words:?}");
        }
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
}
