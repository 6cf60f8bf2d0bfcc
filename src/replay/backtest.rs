//! Backtest: a Prometheus server's history, asked for around each deployment, and played to the core.

use std::time::Duration;

use super::history::{self, Answers, DEPLOYMENTS_MAX, Deployment};
use super::near_miss::{Near, near_misses};
use super::{Line, watch_trace};
use crate::core::decision::Verdict;
use crate::core::release::ServiceName;
use crate::core::settings::{FleetSettings, PromqlSource, ServiceSettings};
use crate::core::snapshot::RowAnswer;
use crate::core::{Fleet, Timestamp};
use crate::signal::promql::{PrometheusClient, Series, unit_of};

/// How often deployments are looked for.
const DEPLOYMENTS_STEP: Duration = Duration::from_secs(60);

/// One deployment and what would have come of it.
#[derive(Debug)]
pub struct Tested {
    /// The deployment.
    pub deployment: Deployment,
    /// What the core decides, in Unix time.
    pub lines: Vec<Line>,
    /// How near the rows of errors and latency were.
    pub rows: Vec<Near>,
}

/// What is asked, and of whom.
#[derive(Debug)]
pub struct Backtest {
    /// The service.
    pub service: ServiceName,
    /// Its settings.
    pub settings: ServiceSettings,
    /// The fleet's.
    pub fleet: FleetSettings,
    /// Its queries.
    pub source: PromqlSource,
    /// Who answers them.
    pub client: PrometheusClient,
    /// The time between two points.
    pub step: Duration,
}

/// Why it cannot be said, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// What is wrong.
    pub what: String,
    /// What helps.
    pub hint: Option<String>,
}

impl From<String> for Unanswered {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

impl Backtest {
    /// When the service was deployed, by `query`, or by Backstop's own count.
    ///
    /// # Errors
    /// If the server does not answer, or its answer tells of no deployment, or of too many.
    pub async fn deployments(
        &self,
        query: Option<String>,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<Vec<Deployment>, Unanswered> {
        let own = query.is_none();
        let query = query
            .unwrap_or_else(|| format!("max(backstop_deployments_total{{service=\"{}\"}})", self.service));
        let step = DEPLOYMENTS_STEP.max(self.step);
        let series = self.client.query_range(&query, from, until, step).await?;
        let found = history::deployments(&series, from, step);
        if found.len() > DEPLOYMENTS_MAX {
            let hint =
                "a query is needed whose value rises at deployments only; or list them: --deploys FILE";
            return Err(Unanswered {
                what: format!(
                    "`{query}` tells of {} deployments; {DEPLOYMENTS_MAX} are the most",
                    found.len()
                ),
                hint: Some(hint.into()),
            });
        }
        if found.is_empty() {
            let (server, service) = (self.client.server(), &self.service);
            let what = if own {
                format!(
                    "{server} does not know when {service} was deployed: `{query}` tells of no deployment"
                )
            } else {
                format!("`{query}` tells of no deployment: no value rises, and no other series takes over")
            };
            let hint = format!(
                "say it with --deploys FILE (a time a line), or with --deploy-query, as in \
                 'max(process_start_time_seconds{{job=\"{service}\"}})' or 'count by (version) (app_info{{job=\"{service}\"}})'"
            );
            return Err(Unanswered { what, hint: Some(hint) });
        }
        Ok(found)
    }

    /// What would have been done at each of `deployments`, which are in order of time.
    ///
    /// # Errors
    /// If the server does not answer a query.
    pub async fn test(&self, deployments: &[Deployment], now: Timestamp) -> Result<Vec<Tested>, Unanswered> {
        // Deployments whose watches overlap are one story.
        let reach = self.settings.watch + self.settings.baseline;
        let mut tested = Vec::new();
        for group in deployments.chunk_by(|a, b| b.at.since(a.at) <= reach) {
            tested.extend(self.story(group, now).await?);
        }
        Ok(tested)
    }

    /// The time around some deployments.
    async fn story(&self, group: &[Deployment], now: Timestamp) -> Result<Vec<Tested>, Unanswered> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(Vec::new()) };
        let from = first.at.before(self.settings.baseline);
        let until = (last.at + self.settings.watch).min(now);
        let answers = Answers {
            requests: self.ask(&self.source.requests, from, until).await?,
            errors: self.ask(&self.source.errors, from, until).await?,
            latency: match &self.source.latency {
                Some(query) => self.ask(query, from, until).await?,
                None => Vec::new(),
            },
            unit: self.source.latency.as_deref().map_or(1.0, unit_of),
            step: self.step,
            window: self.window(),
        };
        let trace = history::trace(&self.service, &answers, group);
        let ends = group.iter().skip(1).map(|d| d.unix()).chain([f64::INFINITY]);
        let mut tested: Vec<Tested> = group
            .iter()
            .zip(ends)
            .map(|(deployment, end)| {
                let rows = near_misses(&trace, &self.service, &self.settings, deployment.unix(), end);
                Tested { deployment: deployment.clone(), lines: Vec::new(), rows }
            })
            .collect();
        let lines =
            watch_trace(&trace, &|_| self.settings.clone(), self.fleet.clone(), &mut |t, fleet, now| {
                for one in &mut tested {
                    one.look(t, &self.service, fleet, now);
                }
            });
        let mut of = tested.iter_mut().rev().peekable();
        for line in lines.into_iter().rev() {
            while of.next_if(|one| one.deployment.unix() > line.t).is_some() {}
            if let Some(one) = of.peek_mut() {
                one.lines.insert(0, line);
            }
        }
        tested.iter_mut().for_each(Tested::settle);
        Ok(tested)
    }

    /// Twice the step, of which half is new: what lies between two windows would be seen by nobody.
    fn window(&self) -> Duration {
        self.step * 2
    }

    async fn ask(&self, query: &str, from: Timestamp, until: Timestamp) -> Result<Vec<Series>, String> {
        let query = query.replace("$window", &format!("{}s", self.window().as_secs().max(1)));
        self.client.query_range(&query, from, until, self.step).await
    }
}

impl Tested {
    /// What the core says of the rows that are at their worst now, and would be crossed.
    fn look(&mut self, t: f64, service: &ServiceName, fleet: &Fleet, now: Timestamp) {
        let at = self.deployment.unix();
        let due = |row: &&mut Near| row.worst > row.threshold && (at + row.after - t).abs() < 1e-3;
        let mut due = self.rows.iter_mut().filter(due).peekable();
        if due.peek().is_none() {
            return;
        }
        let snapshot = fleet.snapshot(now);
        let judged = snapshot.services.iter().find(|one| one.name == *service).map(|one| &one.rows);
        for near in due {
            let row = judged.and_then(|rows| rows.iter().find(|row| row.rule == near.rule));
            near.held = row.map(|row| match row.answer {
                RowAnswer::Ok => row.value.clone(),
                RowAnswer::Pending | RowAnswer::Breached => String::new(),
                other => format!("{}: {}", other.name(), row.value),
            });
        }
    }

    /// What came of a row, in the end, has the word: nothing held what led to a decision, and what a gate held was not
    /// held by the row.
    fn settle(&mut self) {
        for near in &mut self.rows {
            let Some(line) = self.lines.iter().find(|line| line.signal == near.rule) else { continue };
            near.held = (line.decision == Verdict::Hold.name()).then(|| line.reason.clone());
        }
        // Breached, and another row was the one that was decided by.
        for near in &mut self.rows {
            near.held.take_if(|held| held.is_empty());
        }
    }
}
