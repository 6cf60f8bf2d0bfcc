//! `backstop drill SERVICE`: would a rollback work? Tried without touching what serves, or, away from production, for real.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::client::{Answer, Client};
use super::failure::{Code, Failure};
use super::rollback::{can_ask, confirm, follow, newest};
use super::table::{Screen, release, span};
use super::{Output, whoami};
use crate::api::views::{
    AnswerRequestBody, AnswerView, DrillPointView, DrillView, ReleaseView, RollbackRequestBody, RollbackView,
    ServiceView,
};
use crate::rollback::drill::{EXECUTED_WITHIN, PROVED_WITHIN};

/// What a person types to go ahead.
const CONFIRMATION: &str = "DRILL";

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// The service
    service: String,
    /// Roll back for real and forward again, away from production, and compare the times with the runbooks' budgets
    #[arg(long)]
    for_real: bool,
    /// Do not ask
    #[arg(long, short, requires = "for_real")]
    yes: bool,
}

pub(super) async fn run(args: DrillArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let path = ["api", "v1", "services", &args.service, "drill"];
    let body = AnswerRequestBody { why: None, by: Some(whoami()) };
    let answer = client.post::<DrillView>(&path, &body).await?;
    if !(args.for_real && out.json) {
        out.show(&answer.json, |screen| render(&answer.view, screen))?;
    }
    if !answer.view.ready {
        return Err(Failure::new(
            Code::Failure,
            format!("a rollback of {} would not go as it should", args.service),
        )
        .hint("the lines marked `missing` say what to do")
        .into());
    }
    if args.for_real { for_real(&args, client, out).await } else { Ok(()) }
}

/// Back, and forward again.
async fn for_real(args: &DrillArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    if !args.yes {
        if !can_ask() {
            return Err(Failure::new(Code::Usage, "this is no terminal, so nobody can be asked")
                .hint("add `--yes`")
                .into());
        }
        confirm(CONFIRMATION).await?;
    }
    let service: Answer<ServiceView> = client.get(&["api", "v1", "services", &args.service], &[]).await?;
    let (runs, target) = (service.view.summary.current, service.view.summary.target);
    let (Some(runs), Some(target)) = (runs, target) else {
        return Err(Failure::new(Code::Failure, format!("{} has nothing to go back to", args.service)).into());
    };
    let back = go(args, client, &target.id).await?;
    let failed = (!is_in_time(&back, &target.id)).then(|| failure(args, "back", &back, &target));
    let mut legs = vec![("back", back, target.id)];
    // Whatever came of that, what ran is wanted again, unless it still runs.
    if failed.is_none() || !runs_now(client, &args.service, &runs.id).await? {
        match go(args, client, &runs.id).await {
            Ok(forward) => legs.push(("forward", forward, runs.id.clone())),
            // What failed first is what has to be known.
            Err(error) if failed.is_some() => anstream::eprintln!("it could not go forward again: {error}"),
            Err(error) => return Err(error),
        }
    }
    let took: Vec<_> = legs.iter().map(|(what, leg, _)| json!({"leg": what, "rollback": leg})).collect();
    out.show(&json!({"service": args.service, "legs": took}), |screen| times(&legs, screen))?;
    let forward = legs.get(1).filter(|(_, leg, to)| !is_in_time(leg, to));
    let failed = failed.or_else(|| forward.map(|(what, leg, _)| failure(args, what, leg, &runs)));
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}

/// What is said of a way that did not go as it should.
fn failure(args: &DrillArgs, what: &str, leg: &RollbackView, to: &ReleaseView) -> Failure {
    let why = if leg.outcome == "verified" && leg.to.id == to.id {
        format!("going {what} worked, and took longer than the runbooks allow")
    } else if leg.to.id == to.id {
        format!("going {what} ended as `{}`: {}", leg.outcome, leg.detail)
    } else {
        format!(
            "going {what} did not end with {}, but with {} (`{}`): {}",
            release(to),
            release(&leg.to),
            leg.outcome,
            leg.detail
        )
    };
    Failure::new(Code::Failure, why).hint(format!("backstop explain {}", args.service))
}

async fn runs_now(client: &Client, service: &str, id: &str) -> anyhow::Result<bool> {
    let seen: Answer<ServiceView> = client.get(&["api", "v1", "services", service], &[]).await?;
    Ok(seen.view.summary.current.is_some_and(|current| current.id == id))
}

/// One way, until it is proved or not.
async fn go(args: &DrillArgs, client: &Client, to: &str) -> anyhow::Result<RollbackView> {
    let before = newest(client, &args.service).await?.map(|(rollback, _)| rollback.id);
    let body = RollbackRequestBody {
        to: Some(to.to_owned()),
        by: Some(whoami()),
        drill: true,
        ..RollbackRequestBody::default()
    };
    let path = ["api", "v1", "services", &args.service, "rollback"];
    let answer: Answer<AnswerView> = client.post(&path, &body).await?;
    anstream::eprintln!("{}", answer.view.answer);
    Ok(follow(client, &args.service, before.as_deref()).await?.0)
}

/// Whether a way ended with the release that it was for, within the runbooks' budgets. If its target does not pass, an older one
/// has its turn: that is well for whoever is served, and no drill that went as it should.
fn is_in_time(leg: &RollbackView, to: &str) -> bool {
    let within =
        |took: Option<f64>, most: Duration| took.is_some_and(|seconds| seconds <= most.as_secs_f64());
    leg.outcome == "verified"
        && leg.to.id == to
        && within(leg.decision_to_applied_seconds, EXECUTED_WITHIN)
        && within(leg.duration_seconds, PROVED_WITHIN)
}

fn times(legs: &[(&str, RollbackView, String)], screen: &Screen) -> String {
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), span);
    let row = |(what, leg, to): &(&str, RollbackView, String)| {
        let (served, proved) = (time(leg.decision_to_applied_seconds), time(leg.duration_seconds));
        let verdict = if is_in_time(leg, to) { "ready" } else { "missing" };
        [screen.mark(verdict), (*what).to_owned(), served, proved, leg.outcome.clone()]
    };
    let rows = legs.iter().map(row).collect();
    let table = screen.table(["", "WAY", "STARTED AFTER", "PROVED AFTER", "OUTCOME"], &[], rows);
    format!("{table}\nThe runbooks allow 5 minutes until it is started, and 10 until it is proved.\n")
}

fn render(view: &DrillView, screen: &Screen) -> String {
    let row =
        |point: &DrillPointView| [screen.mark(&point.verdict), point.what.clone(), point.detail.clone()];
    let rows = view.points.iter().map(row).collect();
    let table = screen.table(["", "WHAT", "FOUND"], &[2], rows);
    let time = view.estimate_seconds.map_or_else(String::new, |seconds| format!(", about {}", span(seconds)));
    format!("{table}\nReady to {}{time}. Nothing that serves was touched.\n", ready_to(view.score))
}

/// A score in words.
pub(super) fn ready_to(score: f64) -> String {
    format!("{:.0} %", (score * 100.0).round())
}
