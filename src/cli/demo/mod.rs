//! `backstop demo`: Backstop at work in a minute, for anybody with this binary and a Docker Engine.
//!
//! A good version of a small service is deployed, then a bad one, and a person sees what users get and what Backstop
//! sees, decides and does, until the good version serves again and that is proved. It must never touch what it did
//! not make: neither containers and images of this host, nor a Backstop that guards it; and whatever way it ends, what
//! it made is gone afterwards.

mod daemon;
mod image;
mod shop;
mod watch;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::daemon::{Daemon, free_port};
use self::shop::{BAD, GOOD, NAME, Shop};
use self::watch::{Serving, User, Watch, moment};
use super::client::Client;
use super::table::{Screen, bold};
use super::write_out;
use crate::api::views::RollbackView;
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::runtime::engine::Engine;

/// Where the engine is unless told otherwise.
const ENGINE_DEFAULT: &str = "unix:///var/run/docker.sock";
/// Where the demo's daemon listens if nobody else does.
const API_PORT: u16 = 9797;
/// Where the shop is reached if nobody else listens there.
const SHOP_PORT: u16 = 18080;
/// The bad version is healthy for so long: shorter than its trial, long enough to look like a success.
const BAD_AFTER: &str = "3s";
/// A trial takes 5 s, on a busy machine a few more.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// From the deployment of the bad version to the proof takes about 12 s.
const ROLLBACK_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The Docker Engine
    #[arg(long, value_name = "HOST", env = "DOCKER_HOST", default_value = ENGINE_DEFAULT)]
    engine: String,
    /// End when all was shown, instead of leaving the status page up until Ctrl-C
    #[arg(long)]
    exit: bool,
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut told = Signals::listen()?;
    let mut stage = Stage::new(&args)?;
    let mut played = tokio::select! {
        biased;
        name = told.next() => Err(interrupted(name)),
        played = stage.play() => played,
    };
    let is_shown = played.is_ok();
    if is_shown && !args.exit {
        played = tokio::select! {
            _ = told.next() => Ok(()),
            ended = stage.stay() => ended,
        };
    }
    let broke = played.as_ref().is_err_and(|error| !is_interruption(error));
    let cleaned = tokio::select! {
        cleaned = stage.clean_up(broke) => cleaned,
        name = told.next() => Err(interrupted(name).context(format!(
            "what the demo made was left behind; `backstop demo --exit` takes it away, or `docker rm -f {NAME}`"
        ))),
    };
    match (played, cleaned) {
        (Ok(()), cleaned) => cleaned,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(also)) => {
            anstream::eprintln!("\x1b[33mwarning:\x1b[0m cleaning up failed, too: {also:#}");
            Err(error)
        }
    }
}

/// Everything that has to be taken down again.
#[derive(Debug)]
struct Stage {
    screen: Screen,
    clock: Clock,
    engine: String,
    shop: Shop,
    /// Something may be in the engine that the demo has made.
    touched: bool,
    daemon: Option<Daemon>,
}

impl Stage {
    fn new(args: &DemoArgs) -> anyhow::Result<Self> {
        let host = if args.engine.is_empty() { ENGINE_DEFAULT } else { &args.engine };
        let engine = Engine::connect(host)?;
        Ok(Self {
            screen: Screen::detect(),
            clock: Clock::start(),
            engine: engine.host(),
            shop: Shop::new(engine),
            touched: false,
            daemon: None,
        })
    }

    /// The whole demo but its end.
    async fn play(&mut self) -> anyhow::Result<()> {
        let root = image::root_file_system()?;
        self.shop.check().await?;
        self.touched = true;
        // What a demo left that was killed.
        self.shop.remove().await?;
        self.title("Making two images of Backstop's own binary: v1 is good, v2 goes bad.")?;
        self.shop.make_images(root, BAD_AFTER).await?;
        self.start_daemon().await?;
        let url = self.daemon.as_ref().map(Daemon::url).context("the daemon was started")?.to_owned();
        let client = Client::new(&url, None)?;
        // As late as can be: it is only taken when the container starts.
        self.shop.port = free_port(SHOP_PORT)?;
        let mut user = User::of(self.shop.port, self.clock)?;

        self.show(&format!(
            "\n{}\n",
            bold("A good version is deployed, as any CI job would; nobody tells Backstop.")
        ))?;
        self.show(&format!("$ {}\n", self.shop.command(GOOD)))?;
        let mut good = Watch::new(&client, &self.screen, &mut user, self.clock);
        self.shop.deploy(GOOD).await?;
        let well = Serving::Well("v1".to_owned());
        let proved = |watch: &Watch<'_>, state: &str| {
            watch.served.last().is_some_and(|(_, serving)| *serving == well) && state == "steady"
        };
        good.until(TRIAL_MAX, "the trial of the good version", |watch, view| {
            proved(watch, &view.summary.state)
        })
        .await?;
        let known = good.known();

        self.show(&format!(
            "\n{}\n",
            bold(&format!("A bad one takes its place. It fails after {BAD_AFTER}."))
        ))?;
        self.show(&format!("$ docker rm -f {NAME}\n$ {}\n", self.shop.command(BAD)))?;
        let mut bad = Watch::new(&client, &self.screen, &mut user, self.clock).knowing(known);
        self.shop.deploy(BAD).await?;
        let is_over = |watch: &Watch<'_>, state: &str| {
            let serves = watch.served.last().is_some_and(|(_, serving)| *serving == well);
            // The record is closed a moment before the state moves on, and that is to be seen.
            serves && watch.rollback.as_ref().is_some_and(|r| r.over) && state != "verifying"
        };
        bad.until(ROLLBACK_MAX, "the rollback", |watch, view| is_over(watch, &view.summary.state)).await?;
        let record = bad.rollback.as_ref().context("a rollback that is over has a record")?;
        anyhow::ensure!(record.outcome == "verified", "the rollback was not proved: {}", record.detail);
        self.show(&summary(record, answered(&bad.served, record, &well), &self.screen))?;
        self.show(&commands(&url, self.shop.port))
    }

    async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let daemon = self.daemon.insert(Daemon::start(&self.engine, free_port(API_PORT)?)?);
        let client = Client::new(daemon.url(), None)?;
        daemon.ready(&client).await?;
        let configuration = daemon.configuration();
        self.title(&format!("Backstop watches {NAME} and no other container."))?;
        self.show(&format!("its configuration: {}\n", configuration.display()))
    }

    /// Leaves everything up until the daemon ends, which it does not by itself.
    async fn stay(&mut self) -> anyhow::Result<()> {
        self.show("Ctrl-C ends the demo and takes everything away.\n")?;
        match &mut self.daemon {
            Some(daemon) => Err(daemon.ended().await),
            None => Ok(()),
        }
    }

    /// Takes down what was put up. Goes on where a part of it fails, and tells the first failure.
    async fn clean_up(&mut self, broke: bool) -> anyhow::Result<()> {
        if !self.touched {
            return Ok(());
        }
        // Whoever read this may be gone; what was made has to go all the same.
        let _ = self.show("\nCleaning up.\n");
        let log = self.daemon.as_ref().map(Daemon::log);
        let stopped = match self.daemon.take() {
            Some(daemon) => daemon.stop(broke).await,
            None => Ok(()),
        };
        let removed = self.shop.remove().await.with_context(|| {
            format!("not everything could be taken away; `docker rm -f {NAME}; docker rmi {GOOD} {BAD}`")
        });
        if let Some(log) = log.filter(|_| broke) {
            anstream::eprintln!("the daemon's log: {}", log.display());
        }
        stopped.and(removed)
    }

    fn title(&self, text: &str) -> anyhow::Result<()> {
        self.show(&format!("{}\n", bold(self.screen.wrapped(text, "", "").trim_end())))
    }

    fn show(&self, text: &str) -> anyhow::Result<()> {
        write_out(text)
    }
}

/// When users got the good version again, after the decision.
fn answered(served: &[(Timestamp, Serving)], record: &RollbackView, well: &Serving) -> Option<Timestamp> {
    let decided = moment(record.started);
    served.iter().find(|(at, serving)| *at >= decided && serving == well).map(|(at, _)| *at)
}

fn summary(record: &RollbackView, answered: Option<Timestamp>, screen: &Screen) -> String {
    let mut text = format!("\n{}\n", bold("Rolled back, and proved."));
    text.push_str(&screen.wrapped(&record.text, "     why  ", "          "));
    let mut took = |from: Timestamp, to: Option<Timestamp>, what: &str| {
        if let Some(to) = to {
            let seconds = to.since(from).as_secs_f64();
            text.push_str(&screen.wrapped(what, &format!("{seconds:>7.1}s  "), "          "));
        }
    };
    let decided = moment(record.started);
    let onset = record.onset.map_or(decided, moment);
    took(onset, answered, "from the first failed sample until the good version answered");
    took(decided, answered, "from the decision until the good version answered");
    took(decided, record.ended.map(moment), "from the decision until that was proved");
    text
}

/// What a person can try now.
fn commands(url: &str, shop: u16) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "backstop".to_owned());
    let mut text = format!("\n{}\n", bold("Look for yourself:"));
    for words in ["status".to_owned(), format!("explain {NAME}"), "history".to_owned()] {
        // A command is never wrapped: it is there to be copied.
        text.push_str(&format!("  {program} {words} --endpoint {url}\n"));
    }
    text + &format!("  {url}/api/v1/status   the shop: http://127.0.0.1:{shop}/\n")
}

/// Ctrl-C, a request to end, and a terminal that was closed.
#[derive(Debug)]
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) -> &'static str {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    }
}

/// Told to stop before the end.
#[derive(Debug, thiserror::Error)]
#[error("{0}: ended before everything was shown")]
struct Interrupted(&'static str);

fn interrupted(name: &'static str) -> anyhow::Error {
    Interrupted(name).into()
}

/// A reader that went away is one, too: `backstop demo | head`.
fn is_interruption(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>() || super::is_broken_pipe(error)
}
