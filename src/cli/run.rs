//! `backstop run`: the daemon. Reads the configuration, sets the log up, turns signals into an orderly stop, and
//! hands over to [`crate::app`].

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::failure::{Code, Failure};
use crate::config::{LogSettings, Problems, Settings, Sources};
use crate::telemetry::{self, LogEnvironment};

/// Names the configuration file, as `--config` does.
const CONFIG_VARIABLE: &str = "BACKSTOP_CONFIG";

/// Where settings come from; the same for all commands that read them.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The configuration file, TOML or YAML [default: /etc/backstop/backstop.toml if it exists]
    #[arg(long, value_name = "FILE", env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
    /// Set one key over everything else, `--set defaults.trial=5m`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Decide and announce for every service, and never touch any
    #[arg(long)]
    dry_run: bool,
    /// Abort right after so many journal events became durable: tests prove recovery with it
    #[arg(long, hide = true, value_name = "EVENTS", env = "BACKSTOP_CRASH_AT", hide_env = true)]
    crash_at: Option<u64>,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut sources = args.sources.sources();
    if args.dry_run {
        // As an override, so that a reload keeps it.
        sources.overrides.push(("mode".to_owned(), "dry-run".to_owned()));
    }
    let settings = read(&sources)?;
    start_log(&settings.log)?;
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let daemon = crate::app::run(sources, settings, args.crash_at, stop.clone());
    tokio::pin!(daemon);
    tokio::select! {
        ended = &mut daemon => return ended,
        name = told(&mut terminate, &mut interrupt) => {
            tracing::info!(signal = name, "told to stop; a rollback in flight is finished first, a second signal ends at once");
            stop.cancel();
        }
    }
    tokio::select! {
        ended = daemon => ended,
        name = told(&mut terminate, &mut interrupt) => {
            let what = format!("a second {name}: ended at once; what was in flight is taken up at the next start");
            Err(Failure::new(Code::Failure, what).into())
        }
    }
}

/// Reads the configuration; everything that is wrong with it is one failure.
pub(super) fn read(sources: &Sources) -> anyhow::Result<Settings> {
    crate::config::load(sources).map_err(|problems| wrong(&problems).into())
}

/// The failure that tells every problem.
pub(super) fn wrong(problems: &Problems) -> Failure {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let what = match problems.as_slice() {
        [problem] => format!("the configuration is wrong:\n  {}", indented(problem)),
        problems => {
            let lines: String = problems.iter().map(|problem| format!("\n  {}", indented(problem))).collect();
            format!("the configuration is wrong in {} places:{lines}", problems.len())
        }
    };
    Failure::new(Code::Config, what).hint("correct it, then try it with `backstop check-config`")
}

impl SourceArgs {
    pub(super) fn sources(self) -> Sources {
        Sources::of_process(self.config, self.overrides)
    }

    /// What `--set` alone says.
    pub(super) fn set_alone(&self) -> Sources {
        Sources { overrides: self.overrides.clone(), only_named: true, ..Sources::default() }
    }

    /// What this very command line says, if it says anything: not the files and variables that a daemon on this machine
    /// has besides.
    pub(super) fn given(&self) -> Option<Sources> {
        let process = Sources::of_process(self.config.clone(), self.overrides.clone());
        let by_variable = |file: &PathBuf| {
            process
                .environment
                .iter()
                .any(|(name, value)| name == CONFIG_VARIABLE && file.as_os_str() == value.as_str())
        };
        let file = process.file.clone().filter(|file| !by_variable(file));
        let environment: Vec<_> =
            process.environment.into_iter().filter(|(name, _)| name == "CREDENTIALS_DIRECTORY").collect();
        let said = file.is_some() || !process.overrides.is_empty();
        said.then_some(Sources { file, environment, overrides: process.overrides, only_named: true })
    }
}

#[allow(clippy::disallowed_methods, reason = "the command line may read the environment")]
fn start_log(settings: &LogSettings) -> anyhow::Result<()> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let environment = LogEnvironment {
        filter: set("RUST_LOG"),
        journal_stream: set("JOURNAL_STREAM"),
        no_color: set("NO_COLOR").is_some() || !std::io::stderr().is_terminal(),
    };
    telemetry::init(settings.format, &settings.level, &environment).map_err(|why| {
        Failure::new(Code::Config, why.to_string()).hint("`log.level`, or the variable RUST_LOG").into()
    })
}

/// Waits for a signal to stop.
async fn told(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("right would be KEY=VALUE, as in `defaults.trial=5m`".to_owned()),
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}
