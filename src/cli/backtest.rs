//! `backstop backtest`: what would have been done last month, from a Prometheus server's history, and how near each
//! row was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::run::{SourceArgs, read};
use super::table::{Screen, bold};
use super::{Output, write_out};
use crate::clock::Clock;
use crate::core::Timestamp;
use crate::core::release::ServiceName;
use crate::core::settings::{PromqlSource, Tls};
use crate::core::time::human;
use crate::replay::backtest::{Backtest, Tested, Unanswered};
use crate::replay::history::{self, Deployment};
use crate::replay::near_miss::{Near, Unit};
use crate::signal::promql::PrometheusClient;
use crate::signal::promql::discover::{Found, Unknown, discover, key, scraped_every};
use crate::signal::scrape::queries::Queries;

/// A row that came within this part of its threshold was near.
const NEAR: f64 = 0.6;
/// The time between two points, unless somebody says another one or the server has none so close.
const STEP: Duration = Duration::from_secs(15);
/// A month of history may take the server a while.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct BacktestArgs {
    /// The Prometheus server [default: the one that is configured for the service]. Where no queries are configured, it is
    /// asked which metrics of the usual libraries and proxies it has of the service, and the queries made of them are shown
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// How far back
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Which service
    #[arg(long, value_name = "NAME")]
    service: String,
    /// When it was deployed: a file with a time a line (RFC 3339 or Unix), and the version if you like
    #[arg(long, value_name = "FILE", conflicts_with = "deploy_query")]
    deploys: Option<PathBuf>,
    /// When it was deployed: a query whose value rises at each deployment (a counter, a start time), or whose series
    /// is another one (an info metric with the version as a label) [default: Backstop's own count of deployments; without
    /// that and without configured queries, the starts of its process]
    #[arg(long, value_name = "PROMQL")]
    deploy_query: Option<String>,
    /// The time between two points; not below the server's scrape interval [default: 15s; where no queries are configured,
    /// the scrape interval, if that is longer]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    step: Option<Duration>,
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) async fn run(args: BacktestArgs, out: &Output) -> anyhow::Result<()> {
    let shortest = args.step.unwrap_or(STEP);
    if shortest < Duration::from_secs(1) || args.since < shortest {
        return Err(Failure::new(Code::Usage, "`--step` is at least 1s, and `--since` longer than it").into());
    }
    let mut sources = args.sources.sources();
    // No engine is asked here: where it is need not be right.
    sources.environment.retain(|(name, _)| name != "DOCKER_HOST");
    let settings = read(&sources)?;
    let service = ServiceName::new(&args.service);
    let of_service = settings.service(&service, &BTreeMap::new()).map_err(|problems| {
        Failure::new(Code::Config, format!("the settings of {service} do not hold: {}", problems.join("; ")))
    })?;
    let now = Clock::start().now();
    let range = (now.before(args.since), now);
    let Asked { source, client, step, found } =
        asked(&service, of_service.prometheus.clone(), args.prometheus, args.step, range).await?;
    let backtest =
        Backtest { service, settings: of_service, fleet: settings.fleet.clone(), source, client, step };
    let deployments = match (&args.deploys, args.deploy_query) {
        (Some(file), _) => from_file(file, range)?,
        (None, None) => by_itself(&backtest, found.as_ref(), range).await?,
        (None, query) => backtest.deployments(query, range).await.map_err(unanswered)?,
    };
    let tested = backtest.test(&deployments, now).await.map_err(unanswered)?;
    if out.json {
        let all: Vec<Value> = tested.iter().map(shown).collect();
        return write_out(&format!("{}\n", serde_json::to_string_pretty(&json!({ "deployments": all }))?));
    }
    write_out(&table(&tested, &out.screen, &backtest.service, args.since))
}

/// What is asked, and of whom.
struct Asked {
    source: PromqlSource,
    client: PrometheusClient,
    step: Duration,
    /// What was found, where no queries are configured.
    found: Option<Found>,
}

/// The configured queries, or else those that the server's own metrics give.
async fn asked(
    service: &ServiceName,
    configured: Option<PromqlSource>,
    url: Option<String>,
    step: Option<Duration>,
    range: (Timestamp, Timestamp),
) -> Result<Asked, Failure> {
    let wrong = |why| Failure::new(Code::Config, why);
    if let Some(mut source) = configured {
        source.url = url.unwrap_or(source.url);
        source.timeout = source.timeout.max(TIMEOUT);
        let client = PrometheusClient::of(&source).map_err(wrong)?;
        return Ok(Asked { source, client, step: step.unwrap_or(STEP), found: None });
    }
    let Some(url) = url else {
        let what = format!("no queries are configured for {service}, so nobody knows what to ask Prometheus");
        let hint = format!(
            "name the server: `--prometheus URL` finds out what to ask; or add `[services.{}.prometheus]` with `requests` and \
             `errors` (and `latency`, if it is to be judged) to the configuration",
            key(service)
        );
        return Err(wrong(what).hint(hint));
    };
    let client = PrometheusClient::new(&url, &Tls::default(), None, TIMEOUT).map_err(wrong)?;
    let found = discover(&client, service, range).await.map_err(|Unknown { what, hint }| match hint {
        Some(hint) => wrong(what).hint(hint),
        None => Failure::new(Code::Failure, what),
    })?;
    let step = match step {
        Some(step) => step,
        None => scraped_every(&client, &found.queries, range.1).await.unwrap_or(STEP).max(STEP),
    };
    let Queries { requests, errors, latency, .. } = found.queries.clone();
    let (token_file, tls) = (None, Tls::default());
    let source =
        PromqlSource { url, interval: step, timeout: TIMEOUT, token_file, tls, requests, errors, latency };
    say_found(&client.server(), service, &found, step);
    Ok(Asked { source, client, step, found: Some(found) })
}

/// Says what was chosen, as it would stand in the configuration.
fn say_found(server: &str, service: &ServiceName, found: &Found, step: Duration) {
    let line = |key: &str, text: &str| {
        // As a text without escapes, unless it has a quote of that kind in it.
        let text = if text.contains('\'') { format!("{text:?}") } else { format!("'{text}'") };
        format!("{key} = {text}\n")
    };
    let queries = &found.queries;
    let mut text =
        line("url", server) + &line("requests", &queries.requests) + &line("errors", &queries.errors);
    text.extend(queries.latency.as_ref().map(|latency| line("latency", latency)));
    if step > STEP {
        // Asked more often, the server says the same again.
        text.push_str(&line("interval", &format!("{}s", step.as_secs())));
    }
    anstream::eprintln!(
        "no queries are configured for {service}: these were chosen, a point every {}; to keep them, put them into the \
         configuration\n[services.{}.prometheus]\n{text}",
        human(step),
        key(service)
    );
    if queries.latency.is_none() {
        let Found { matcher, .. } = found;
        anstream::eprintln!(
            "\x1b[1;33mwarning:\x1b[0m no histogram of latencies was found with {matcher}: latency is not judged"
        );
    }
}

/// Deployments by Backstop's own count, or by the starts of a service whose metrics were found.
async fn by_itself(
    backtest: &Backtest,
    found: Option<&Found>,
    range: (Timestamp, Timestamp),
) -> Result<Vec<Deployment>, Failure> {
    let uncounted = match backtest.deployments(None, range).await {
        Ok(known) => return Ok(known),
        Err(why) => why,
    };
    for query in found.iter().flat_map(|found| found.deployments()) {
        if let Ok(known) = backtest.deployments(Some(query.clone()), range).await {
            anstream::eprintln!(
                "\x1b[1;33mwarning:\x1b[0m no count of deployments was found: every start of its process counts as one, by \
                 --deploy-query '{query}'"
            );
            return Ok(known);
        }
    }
    Err(unanswered(uncounted))
}

fn from_file(file: &std::path::Path, range: (Timestamp, Timestamp)) -> anyhow::Result<Vec<Deployment>> {
    let failed = |what: String| Failure::new(Code::Failure, format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| failed(format!("it cannot be read: {e}")))?;
    let listed = history::listed(&text).map_err(|wrong| failed(wrong.join("\n  ")))?;
    let within: Vec<Deployment> = listed.into_iter().filter(|d| d.at >= range.0 && d.at <= range.1).collect();
    if within.is_empty() {
        return Err(failed("none of its deployments is within `--since`".into()).into());
    }
    Ok(within)
}

fn unanswered(why: Unanswered) -> Failure {
    let failure = Failure::new(Code::Failure, why.what);
    match why.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn shown(tested: &Tested) -> Value {
    let rows: Vec<Value> = tested
        .rows
        .iter()
        .map(|row| {
            json!({
                "row": row.rule,
                "worst": row.worst,
                "threshold": row.threshold,
                "after_s": row.after,
                "held": row.held,
            })
        })
        .collect();
    json!({
        "t": tested.deployment.unix(),
        "version": tested.deployment.version,
        "decisions": tested.lines,
        "rows": rows,
    })
}

fn table(tested: &[Tested], screen: &Screen, service: &ServiceName, since: Duration) -> String {
    let count =
        |verdict: &str| tested.iter().filter(|t| t.lines.iter().any(|l| l.decision == verdict)).count();
    let near = tested.iter().filter(|t| t.lines.is_empty() && t.rows.iter().any(is_near)).count();
    let mut text = format!(
        "{} deployments of {} in {}: {} would have been rolled back, {} asked about, {} held; {near} near misses.\n",
        tested.len(),
        service,
        human(since),
        count("rollback"),
        count("evaluate"),
        count("hold"),
    );
    let mut decided = Vec::new();
    let mut rows = Vec::new();
    for one in tested {
        let at = screen.moment(crate::api::time(one.deployment.at));
        let version = one.deployment.version.clone().unwrap_or_else(|| "-".into());
        for line in &one.lines {
            let after = Duration::try_from_secs_f64(line.t - one.deployment.unix()).unwrap_or_default();
            let cells = [
                at.clone(),
                version.clone(),
                line.decision.into(),
                line.signal.clone(),
                human(after).to_string(),
            ];
            decided.push((cells, line.reason.clone()));
        }
        for row in &one.rows {
            rows.push([
                at.clone(),
                version.clone(),
                row.rule.clone(),
                value(row.worst, row.unit),
                value(row.threshold, row.unit),
                nearness(row),
            ]);
        }
    }
    if !decided.is_empty() {
        text.push_str(&format!("\n{}\n", bold("DECISIONS")));
        text.push_str(&screen.noted(["DEPLOYED", "VERSION", "DECISION", "SIGNAL", "AFTER"], decided));
    }
    if rows.is_empty() {
        text.push_str(
            "\nNo row could be measured: there were too few requests, or no baseline to compare with.\n",
        );
    } else {
        text.push_str(&format!("\n{}\n", bold("ROWS")));
        text.push_str(&screen.table(["DEPLOYED", "VERSION", "ROW", "WORST", "LIMIT", "SO"], &[5], rows));
    }
    text
}

fn is_near(row: &Near) -> bool {
    row.worst >= row.threshold * NEAR
}

/// What the threshold would have had to be.
fn nearness(row: &Near) -> String {
    let after = human(Duration::try_from_secs_f64(row.after).unwrap_or_default());
    let worst = value(row.worst, row.unit);
    if row.worst > row.threshold {
        let held = row.held.as_ref().map_or(String::new(), |held| format!(" and held ({held})"));
        format!("crossed, worst {after} after{held}; only a limit above {worst} would not have been")
    } else if is_near(row) {
        format!("near, worst {after} after; a limit below {worst} would have been crossed")
    } else {
        "far".to_owned()
    }
}

fn value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => format!("{:.1} %", value * 100.0),
        Unit::Times => format!("{value:.2}x"),
        Unit::Seconds => format!("{value:.3} s"),
    }
}
