//! The command line: `run` is the daemon; the other commands ask one that runs, and hold no state.
//!
//! Data goes to standard output, everything else to standard error. Every failure says what to type next.

mod ack;
mod answer;
mod backtest;
mod check_config;
mod client;
mod demo;
mod drill;
mod demo_app;
mod explain;
mod failure;
mod history;
mod incident;
mod log;
mod notify;
mod pause;
mod plan;
mod quarantine;
mod replay;
mod report;
mod rollback;
mod run;
mod status;
mod table;
mod unpin;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use self::client::Client;
pub use self::failure::{Code, Failure};
use self::table::Screen;

/// Where the daemon listens unless told otherwise.
const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:9797";

/// Where the token is looked for unless told otherwise.
const TOKEN_FILE_DEFAULT: &str = "/etc/backstop/token";

const AFTER_HELP: &str = "\
Exit codes:
  0   it worked
  1   it did not work: refused, not found, or a rollback that was not verified
  2   the command line is wrong
  64  the configuration is wrong
  69  the daemon could not be reached

Colours are used in a terminal only; NO_COLOR=1 switches them off.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, about = "Rolls bad releases of Docker services back, proves it, and says why", after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// Where the daemon listens
    #[arg(long, global = true, value_name = "URL", env = "BACKSTOP_ENDPOINT", default_value = ENDPOINT_DEFAULT)]
    endpoint: String,
    /// File with the token for operator actions and reports [default: /etc/backstop/token if it is readable]
    #[arg(long, global = true, value_name = "FILE", env = "BACKSTOP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch services and roll bad releases back: the daemon
    Run(run::RunArgs),
    /// Say whether the configuration is right, and what would be in force
    CheckConfig(check_config::CheckConfigArgs),
    /// Show the fleet, and what needs a person first
    Status,
    /// Show everything about one service: matrix, gates, releases, what would happen next
    Explain(explain::ExplainArgs),
    /// Show what a rollback would do, step by step, and change nothing
    Plan(plan::PlanArgs),
    /// Roll a service back now
    Rollback(rollback::RollbackArgs),
    /// Say yes to a rollback that waits for it
    Approve(answer::AnswerArgs),
    /// Say no to a rollback that is announced, or waits for a yes
    Cancel(answer::AnswerArgs),
    /// Put the deadline of an announced rollback off
    Extend(answer::ExtendArgs),
    /// Try whether a rollback would work, without touching what serves
    Drill(drill::DrillArgs),
    /// Show what was rolled back and is not trusted, or let a release of it go
    Quarantine(quarantine::QuarantineArgs),
    /// Stop deciding, for one service or for all
    Pause(pause::PauseArgs),
    /// Go on: ends a pause, clears `stuck`, resets the breaker
    Resume(pause::ResumeArgs),
    /// Take back what a rollback changed in a Compose project's files: a variable in `.env`, or an override file
    Unpin(unpin::UnpinArgs),
    /// Take on what is the matter with a service: nobody else is called for it
    Ack(ack::AckArgs),
    /// Try the channels that announcements go to
    Notify(notify::NotifyArgs),
    /// Report a problem with a service, as a user who noticed it
    Report(report::ReportArgs),
    /// Write the incident report of a rollback
    Incident(incident::IncidentArgs),
    /// Wait until a release is known-good or rolled back: the gate of a deployment
    Wait(wait::WaitArgs),
    /// Show past rollbacks
    History(history::HistoryArgs),
    /// Say what would have been decided, from a trace of what happened
    Replay(replay::ReplayArgs),
    /// Say what would have been decided last month, from a Prometheus server's history
    Backtest(backtest::BacktestArgs),
    /// Show Backstop at work on this host's Docker Engine: a bad version is deployed, and the good one comes back
    Demo(demo::DemoArgs),
    /// A small web service that misbehaves on demand, for the demo and the tests
    #[command(hide = true)]
    DemoApp(Box<demo_app::DemoAppArgs>),
}

/// Reads the command line. On a mistake, or `--help`, everything is printed already and the exit code comes back.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // If standard error is gone there is nobody to tell.
        let _ = error.print();
        let usage = if is_for(wait::NAME, std::env::args().skip(1)) { wait::WRONG } else { Code::Usage };
        if error.use_stderr() { usage.into() } else { ExitCode::SUCCESS }
    })
}

/// Whether the command line, which is wrong, is for this command.
fn is_for(name: &str, mut words: impl Iterator<Item = String>) -> bool {
    let all = Cli::command();
    // The value of an option may be called like a command, as a host is in `--endpoint wait`.
    let takes_value = |word: &str| {
        let mut options = all.get_arguments().filter(|option| option.get_action().takes_values());
        options.any(|option| {
            option.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
                || option.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&short.to_string()))
        })
    };
    while let Some(word) = words.next() {
        if takes_value(&word) {
            words.next();
        } else if all.find_subcommand(&word).is_some() {
            return word == name;
        }
    }
    false
}

/// Carries the command out and reports a failure.
pub async fn execute(cli: Cli) -> ExitCode {
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Prints a failure with its causes and what to do about it, and says which exit code it has.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // `backstop history | head` is no failure worth a word.
        return Code::Failure.into();
    }
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {error}");
    for cause in error.chain().skip(1) {
        anstream::eprintln!("  because: {cause}");
    }
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    if let Some(hint) = failure.and_then(|failure| failure.hint.as_ref()) {
        anstream::eprintln!("\x1b[1mhint:\x1b[0m {hint}");
    }
    failure.map_or(Code::Failure, |failure| failure.code).into()
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let asking = || Client::new(&global.endpoint, global.token_file.clone());
    let out = Output { json: global.json, screen: Screen::detect() };
    match command {
        Command::Run(args) => run::run(args).await,
        Command::CheckConfig(args) => check_config::run(args, &out),
        Command::Status => status::run(&asking()?, &out).await,
        Command::Explain(args) => explain::run(args, &asking()?, &out).await,
        Command::Plan(args) => plan::run(args, &asking()?, &out).await,
        Command::Rollback(args) => rollback::run(args, &asking()?, &out).await,
        Command::Approve(args) => answer::approve(args, &asking()?, &out).await,
        Command::Cancel(args) => answer::cancel(args, &asking()?, &out).await,
        Command::Extend(args) => answer::extend(args, &asking()?, &out).await,
        Command::Drill(args) => drill::run(args, &asking()?, &out).await,
        Command::Quarantine(args) => quarantine::run(args, &asking()?, &out).await,
        Command::Pause(args) => pause::pause(args, &asking()?, &out).await,
        Command::Resume(args) => pause::resume(args, &asking()?, &out).await,
        Command::Unpin(args) => unpin::run(args, &asking()?, &out).await,
        Command::Ack(args) => ack::run(args, &asking()?, &out).await,
        Command::Notify(args) => notify::run(args, &out).await,
        Command::Report(args) => report::run(args, &asking()?, &out).await,
        Command::Incident(args) => incident::run(args, &asking()?, &out).await,
        Command::Wait(args) => wait::run(args, &asking().map_err(wait::wrong)?, &out).await,
        Command::History(args) => history::run(args, &asking()?, &out).await,
        Command::Replay(args) => replay::run(args, &out),
        Command::Backtest(args) => backtest::run(args, &out).await,
        Command::Demo(args) => demo::run(args).await,
        Command::DemoApp(args) => demo_app::run(*args).await,
    }
}

/// Where and how results are printed.
#[derive(Debug)]
struct Output {
    json: bool,
    screen: Screen,
}

impl Output {
    /// Prints text for people, unless JSON was asked for.
    fn show(&self, value: &serde_json::Value, text: impl FnOnce(&Screen) -> String) -> anyhow::Result<()> {
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(value)?)
        } else {
            text(&self.screen)
        };
        write_out(&text)
    }
}

/// Writes to standard output; colours are taken out where nobody sees them.
fn write_out(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Who sits at this command line, for the rollback log: `anna@web1`.
#[allow(clippy::disallowed_methods, reason = "the command line may read the environment")]
fn whoami() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "operator".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => user,
        host => format!("{user}@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
