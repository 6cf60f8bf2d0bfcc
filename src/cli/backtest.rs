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
use crate::core::time::human;
use crate::replay::backtest::{Backtest, Tested, Unanswered};
use crate::replay::history::{self, Deployment};
use crate::replay::near_miss::{Near, Unit};
use crate::signal::promql::PrometheusClient;

/// A row that came within this part of its threshold was near.
const NEAR: f64 = 0.6;
/// A month of history may take the server a while.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct BacktestArgs {
    /// The Prometheus server [default: the one that is configured for the service]
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
    /// is another one (an info metric with the version as a label) [default: Backstop's own count of deployments]
    #[arg(long, value_name = "PROMQL")]
    deploy_query: Option<String>,
    /// The time between two points; not below the server's scrape interval
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = humantime::parse_duration)]
    step: Duration,
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) async fn run(args: BacktestArgs, out: &Output) -> anyhow::Result<()> {
    if args.step < Duration::from_secs(1) || args.since < args.step {
        return Err(Failure::new(Code::Usage, "`--step` is at least 1s, and `--since` longer than it").into());
    }
    let settings = read(&args.sources.sources())?;
    let service = ServiceName::new(&args.service);
    let of_service = settings.service(&service, &BTreeMap::new()).map_err(|problems| {
        Failure::new(Code::Config, format!("the settings of {service} do not hold: {}", problems.join("; ")))
    })?;
    let Some(mut source) = of_service.prometheus.clone() else {
        let what = format!("no queries are configured for {service}, so nobody knows what to ask Prometheus");
        let hint = format!(
            "add `[services.{service}.prometheus]` with `requests` and `errors` (and `latency`, if it is to be judged) to \
             the configuration"
        );
        return Err(Failure::new(Code::Config, what).hint(hint).into());
    };
    if let Some(url) = args.prometheus {
        source.url = url;
    }
    source.timeout = source.timeout.max(TIMEOUT);
    let client = PrometheusClient::of(&source).map_err(|why| Failure::new(Code::Config, why))?;
    let (fleet, step) = (settings.fleet.clone(), args.step);
    let backtest = Backtest { service, settings: of_service, fleet, source, client, step };
    let now = Clock::start().now();
    let range = (now.before(args.since), now);
    let deployments = match (&args.deploys, args.deploy_query) {
        (Some(file), _) => from_file(file, range)?,
        (None, query) => backtest.deployments(query, range).await.map_err(unanswered)?,
    };
    let tested = backtest.test(&deployments, now).await.map_err(unanswered)?;
    if out.json {
        let all: Vec<Value> = tested.iter().map(shown).collect();
        return write_out(&format!("{}\n", serde_json::to_string_pretty(&json!({ "deployments": all }))?));
    }
    write_out(&table(&tested, &out.screen, &backtest.service, args.since))
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
