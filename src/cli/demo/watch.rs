//! What a person sees: one line whenever something really changed, with the time since the deployment. Two witnesses:
//! somebody who uses the shop and knows nothing of Backstop, and Backstop's own API.

use std::time::Duration;

use anyhow::Context;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::shop::NAME;
use crate::api::views::{DecisionView, RollbackDetailView, RollbackView, ServiceView, Time};
use crate::cli::client::Client;
use crate::cli::table::{Screen, release_or};
use crate::cli::write_out;
use crate::clock::Clock;
use crate::core::Timestamp;

/// How often the shop is used: what is measured is not finer than this.
const USE: Duration = Duration::from_millis(50);
/// How often Backstop is asked.
const LOOK: Duration = Duration::from_millis(100);
/// An answer later than this is none to a person.
const PATIENCE: Duration = Duration::from_secs(1);
/// While nothing answers, the first tries are given up after this already, each one later than the one before: a
/// connection begun just before the app listens may hang for a second, while the next user is served at once.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// Changes that may wait to be shown; there are a handful in the whole demo.
const CHANGES_MAX: usize = 256;

/// What a user of the shop gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serving {
    /// No answer.
    Nothing,
    /// This version, and it is well.
    Well(String),
    /// This version, which answers with an error.
    Badly(String, String),
}

/// Somebody who uses the shop all the time.
#[derive(Debug)]
pub(super) struct User {
    changes: mpsc::Receiver<(Timestamp, Serving)>,
    task: JoinHandle<()>,
}

/// Tells the story of one deployment.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    client: &'a Client,
    screen: &'a Screen,
    user: &'a mut User,
    clock: Clock,
    deployed: Timestamp,
    /// Everything that users got since then.
    pub(super) served: Vec<(Timestamp, Serving)>,
    /// The newest rollback since then.
    pub(super) rollback: Option<RollbackView>,
    told: Told,
}

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    state: String,
    decision: Option<Time>,
    journal: usize,
}

#[derive(Debug)]
struct Line {
    at: Timestamp,
    who: Who,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    User {
        well: bool,
    },
    Sees,
    Decides,
    /// Before the decision.
    Prepares,
    Does,
}

impl User {
    pub(super) fn of(port: u16, clock: Clock) -> anyhow::Result<Self> {
        // Every use is a new connection, as with real users.
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .build()
            .context("the HTTP client could not be made")?;
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let task = tokio::spawn(async move {
            let mut last = None;
            let mut patience = PATIENCE;
            loop {
                let answer = tokio::time::timeout(patience, serving(&http, port)).await;
                patience = match &answer {
                    Ok(Serving::Well(_) | Serving::Badly(..)) => PATIENCE,
                    Ok(Serving::Nothing) => IMPATIENCE,
                    Err(_) => PATIENCE.min(patience * 2),
                };
                let serving = answer.unwrap_or(Serving::Nothing);
                if last.as_ref() != Some(&serving) {
                    last = Some(serving.clone());
                    if sender.send((clock.now(), serving)).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(USE).await;
            }
        });
        Ok(Self { changes, task })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serving(http: &reqwest::Client, port: u16) -> Serving {
    let ask = async |path: &str| {
        let answer = http.get(format!("http://127.0.0.1:{port}{path}")).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    };
    // The app's pages go on when its health does not; in a real shop they would fail with it.
    match (ask("/version").await, ask("/healthz").await) {
        (Ok((_, version)), Ok((StatusCode::OK, _))) => Serving::Well(version.trim().to_owned()),
        (Ok((_, version)), Ok((status, _))) => Serving::Badly(version.trim().to_owned(), status.to_string()),
        (Err(_), _) | (_, Err(_)) => Serving::Nothing,
    }
}

impl<'a> Watch<'a> {
    /// From now on: to be made just before the deployment.
    pub(super) fn new(client: &'a Client, screen: &'a Screen, user: &'a mut User, clock: Clock) -> Self {
        while user.changes.try_recv().is_ok() {}
        let deployed = clock.now();
        let (served, told) = (Vec::new(), Told::default());
        Self { client, screen, user, clock, deployed, served, rollback: None, told }
    }

    /// What was told of an earlier release's state is not told again.
    pub(super) fn knowing(mut self, state: String) -> Self {
        self.told.state = state;
        self
    }

    /// What was told last of Backstop's state.
    pub(super) fn known(&self) -> String {
        self.told.state.clone()
    }

    /// Tells what happens until `is_over`, at most for `limit`.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        is_over: impl Fn(&Self, &ServiceView) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = self.clock.now() + limit;
        let mut last = "it was not seen at all".to_owned();
        loop {
            let view = self.look().await?;
            if let Some(view) = &view {
                if is_over(self, view) {
                    return Ok(());
                }
                last.clone_from(&view.summary.sentence);
                anyhow::ensure!(view.summary.state != "stuck", "{what} did not happen: {last}");
            }
            if self.clock.now() > deadline {
                let users = self.served.last().map_or("nothing at all".to_owned(), |(_, s)| s.to_string());
                anyhow::bail!("{what} took too long; Backstop's last word: {last}; users got {users}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look at both witnesses; shows what is new.
    async fn look(&mut self) -> anyhow::Result<Option<ServiceView>> {
        // Unknown before Backstop has seen the container.
        let view = self.client.get::<ServiceView>(&["api", "v1", "services", NAME], &[]).await;
        let view = view.ok().map(|answer| answer.view);
        let mut lines = Vec::new();
        if let Some(view) = &view {
            let newest =
                view.summary.rollback.clone().or_else(|| self.rollback.as_ref().map(|r| r.id.clone()));
            let detail = match newest.filter(|_| self.rollback.as_ref().is_none_or(|r| !r.over)) {
                Some(id) => self
                    .client
                    .get::<RollbackDetailView>(&["api", "v1", "rollbacks", &id], &[])
                    .await
                    .ok()
                    .map(|answer| answer.view),
                None => None,
            };
            lines = self.told.news(view, detail.as_ref(), self.clock.now());
            if let Some(detail) = detail {
                self.rollback = Some(detail.rollback);
            }
        }
        while let Ok((at, serving)) = self.user.changes.try_recv() {
            let well = matches!(serving, Serving::Well(_));
            lines.push(Line { at, who: Who::User { well }, text: format!("get {serving}") });
            self.served.push((at, serving));
        }
        lines.sort_by_key(|line| line.at);
        for line in lines {
            write_out(&line.render(self.deployed, self.screen))?;
        }
        Ok(view)
    }
}

impl Told {
    /// What is new in Backstop's answers.
    fn news(&mut self, view: &ServiceView, detail: Option<&RollbackDetailView>, now: Timestamp) -> Vec<Line> {
        let mut lines = Vec::new();
        let summary = &view.summary;
        // What only counts down is no change.
        let sentence = summary.sentence.split(" for another ").next().unwrap_or(&summary.sentence);
        let state = match summary.state.as_str() {
            // The sentence begins with it.
            "rolling_back" => sentence.to_owned(),
            state => format!("{}: {sentence}", state.replace('_', " ")),
        };
        if state != self.state {
            self.state.clone_from(&state);
            lines.push(Line { at: now, who: Who::Sees, text: state });
        }
        let rollback = view.last_decision.as_ref().filter(|d| d.verdict == "rollback");
        if let Some(decision) = rollback.filter(|d| self.decision != Some(d.at)) {
            self.decision = Some(decision.at);
            lines.push(Line { at: moment(decision.at), who: Who::Decides, text: told(decision) });
        }
        if let Some(detail) = detail {
            for line in detail.journal.iter().skip(self.journal) {
                let who = if line.at < detail.rollback.started { Who::Prepares } else { Who::Does };
                lines.extend(step(&line.what).map(|text| Line { at: moment(line.at), who, text }));
            }
            self.journal = self.journal.max(detail.journal.len());
        }
        lines
    }
}

/// A line of the journal as the story tells it: every step once, as it begins. What the journal says of the whole
/// rollback is told by the decision and the state.
fn step(what: &str) -> Option<String> {
    match what.split_once(": ") {
        Some(("begun", step)) => Some(step.to_owned()),
        Some(("done" | "decided" | "applied" | "closed", _)) => None,
        _ => Some(what.to_owned()),
    }
}

fn told(decision: &DecisionView) -> String {
    let gates: Vec<&str> = decision.gates.iter().map(|gate| gate.gate.as_str()).collect();
    let to = release_or(decision.to.as_ref(), "nothing");
    format!("roll back to {to}: {}; every gate allows it: {}", decision.text, gates.join(", "))
}

impl Line {
    fn render(&self, zero: Timestamp, screen: &Screen) -> String {
        let (who, color) = match self.who {
            Who::User { well: true } => ("users", "32"),
            Who::User { well: false } => ("users", "31"),
            Who::Sees => ("sees", "36"),
            Who::Decides => ("decides", "1;33"),
            Who::Prepares => ("prepares", "33"),
            Who::Does => ("does", "33"),
        };
        let first = format!("{:>5.1}s  {who:<9}", self.at.since(zero).as_secs_f64());
        let text = screen.wrapped(&self.text, &first, &" ".repeat(first.len()));
        text.replacen(who, &format!("\x1b[{color}m{who}\x1b[0m"), 1)
    }
}

impl std::fmt::Display for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("no answer"),
            Self::Well(version) => f.write_str(version),
            Self::Badly(version, error) => write!(f, "{version}, and errors: {error}"),
        }
    }
}

/// The API's time as a moment.
pub(super) fn moment(at: Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(at.as_millisecond()).unwrap_or(0))
}
