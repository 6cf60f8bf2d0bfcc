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
    looked: Timestamp,
    /// Everything that users got since then.
    pub(super) served: Vec<(Timestamp, Serving)>,
    /// The newest rollback since then.
    pub(super) rollback: Option<RollbackView>,
    told: Told,
}

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    /// Name and sentence of the state.
    state: String,
    /// Its name alone.
    name: String,
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
            .timeout(PATIENCE)
            .build()
            .context("the HTTP client could not be made")?;
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let task = tokio::spawn(async move {
            let mut last = None;
            loop {
                let serving = serving(&http, port).await;
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
        Self { client, screen, user, clock, deployed, looked: deployed, served, rollback: None, told }
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
        let now = self.clock.now();
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
            lines = self.told.news(view, detail.as_ref(), self.looked, now);
            if let Some(detail) = detail {
                self.rollback = Some(detail.rollback);
            }
        }
        while let Ok((at, serving)) = self.user.changes.try_recv() {
            let well = matches!(serving, Serving::Well(_));
            lines.push(Line { at, who: Who::User { well }, text: format!("get {serving}") });
            self.served.push((at, serving));
        }
        self.looked = now;
        lines.sort_by_key(|line| line.at);
        for line in lines {
            write_out(&line.render(self.deployed, self.screen))?;
        }
        Ok(view)
    }
}

impl Told {
    /// What is new in Backstop's answers; nothing is older than the last look, `since`.
    fn news(
        &mut self,
        view: &ServiceView,
        detail: Option<&RollbackDetailView>,
        since: Timestamp,
        now: Timestamp,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        let summary = &view.summary;
        let state = in_words(&summary.state, &summary.sentence);
        if state != self.state {
            // A state began when it says; another sentence in the same state is as old as this look.
            let is_same = self.name == summary.state;
            let at = if is_same { now } else { moment(summary.since).clamp(since, now) };
            self.state.clone_from(&state);
            self.name.clone_from(&summary.state);
            lines.push(Line { at, who: Who::Sees, text: state });
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

/// A state with its sentence. What only counts down is no change, and left out.
fn in_words(state: &str, sentence: &str) -> String {
    let sentence = sentence.split(" for another ").next().unwrap_or(sentence);
    match state {
        // The sentence begins with it.
        "rolling_back" => sentence.to_owned(),
        state => format!("{}: {sentence}", state.replace('_', " ")),
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

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_countdown_is_no_news() {
        let words = |left: &str| in_words("trial", &format!("shop:v1 [3fa9] is on trial for another {left}"));
        assert_eq!(words("2.3s"), "trial: shop:v1 [3fa9] is on trial");
        assert_eq!(words("2.3s"), words("295ms"));
        assert_eq!(in_words("cooling_down", "shop:v1 was put back"), "cooling down: shop:v1 was put back");
        assert_eq!(in_words("rolling_back", "rolling back from shop:v2"), "rolling back from shop:v2");
    }

    #[test]
    fn every_step_is_told_once_and_what_went_wrong_always() {
        assert_eq!(step("begun: start shop: the outage ends").unwrap(), "start shop: the outage ends");
        assert_eq!(step("done: start shop: the outage ends"), None);
        assert_eq!(step("failed: start shop: no").unwrap(), "failed: start shop: no");
    }

    #[test]
    fn a_line_fits_the_screen_and_says_in_words_what_its_colour_says() {
        let screen =
            Screen { columns: Some(80), zone: TimeZone::UTC, now: crate::api::time(Timestamp::from_secs(1)) };
        let text = "health check failed 2 times in a row over 1s ".repeat(5);
        let line = Line { at: Timestamp::from_millis(13_400), who: Who::Decides, text };
        let plain = anstream::adapter::strip_str(&line.render(Timestamp::from_secs(1), &screen)).to_string();
        assert!(plain.starts_with(" 12.4s  decides  health check failed"), "{plain}");
        assert!(plain.lines().count() > 2 && plain.lines().all(|line| line.len() <= 80), "{plain}");
    }
}
