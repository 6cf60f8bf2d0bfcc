//! `backstop rollback SERVICE`: shows the plan, asks, goes, and with `--wait` follows until it is proved.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Answer, Client};
use super::failure::{Code, Failure};
use super::{Output, history, plan, whoami, write_out};
use crate::api::views::{AnswerView, RollbackRequestBody, RollbackView, RollbacksView, ServiceView};

/// What a person types to go ahead. A single letter is typed too easily in the wrong window.
const CONFIRMATION: &str = "ROLLBACK";

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// After this long without a rollback on record, none has begun.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait in all: the daemon calls a person long before (`verify_timeout`, 5 min by default, for each of the
/// known-good releases that it tries).
const END_TIMEOUT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The service
    service: String,
    /// To which release: its id or its reference [default: the newest one that proved itself]
    #[arg(long, value_name = "RELEASE")]
    to: Option<String>,
    /// To the known-good release that is so many back: 1 is the newest one
    #[arg(long, value_name = "N", conflicts_with = "to", value_parser = clap::value_parser!(u32).range(1..=20))]
    back: Option<u32>,
    /// Why, for the rollback log and the announcement
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Go back although the target does not fit the schema of the database, which stays as it is
    #[arg(long)]
    accept_schema: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Wait until the rollback is proved; exit 1 if it is not
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(mut args: RollbackArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    args.to = args.to.or(args.back.map(|back| format!("~{back}")));
    if !args.yes && !can_ask() {
        return Err(Failure::new(Code::Usage, "this is no terminal, so nobody can be asked")
            .hint(format!("look at `backstop plan {}` first, then add `--yes`", args.service))
            .into());
    }
    let planned = plan::ask(client, &args.service, args.to.as_deref()).await?;
    let shown = plan::render(&planned.view, &out.screen);
    if out.json {
        // Standard output is for the result alone.
        anstream::eprint!("{shown}");
    } else {
        write_out(&shown)?;
    }
    if !args.yes {
        confirm(CONFIRMATION).await?;
    }
    let before = newest(client, &args.service).await?.map(|(rollback, _)| rollback.id);
    let (by, accept_schema) = (Some(whoami()), args.accept_schema);
    let body = RollbackRequestBody { to: args.to, why: args.why, by, accept_schema, drill: false };
    let answer: Answer<AnswerView> =
        client.post(&["api", "v1", "services", &args.service, "rollback"], &body).await?;
    if !args.wait {
        return out.show(&answer.json, |_| {
            format!("{}\nTo follow it: backstop explain {}\n", answer.view.answer, args.service)
        });
    }
    anstream::eprintln!("{}", answer.view.answer);
    let (rollback, json) = follow(client, &args.service, before.as_deref()).await?;
    out.show(&json, |screen| history::summary(&rollback, screen))?;
    if rollback.outcome == "verified" {
        return Ok(());
    }
    let what = format!("the rollback ended as `{}`: {}", rollback.outcome, rollback.detail);
    Err(Failure::new(Code::Failure, what).hint(format!("backstop explain {}", args.service)).into())
}

pub(super) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

pub(super) async fn confirm(word: &'static str) -> anyhow::Result<()> {
    anstream::eprint!("\nType {word} to go ahead: ");
    let typed = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    })
    .await??;
    if typed.trim() == word {
        return Ok(());
    }
    Err(Failure::new(Code::Failure, "not confirmed; nothing was changed").into())
}

/// Waits until the rollback that follows `before` is over, telling each change of its outcome. If its target did not
/// pass and the next older one is being tried, that is followed too.
pub(super) async fn follow(
    client: &Client,
    service: &str,
    before: Option<&str>,
) -> anyhow::Result<(RollbackView, Value)> {
    let mut told = (before.unwrap_or_default().to_owned(), String::new());
    let mut waited = Duration::ZERO;
    loop {
        let begun =
            newest(client, service).await?.filter(|(rollback, _)| Some(rollback.id.as_str()) != before);
        if let Some((rollback, json)) = begun {
            if rollback.over
                && (rollback.outcome == "verified" || !goes_on(client, service, &rollback.id).await?)
            {
                return Ok((rollback, json));
            }
            let now = (rollback.id, rollback.outcome);
            if now != told {
                anstream::eprintln!("{}: {} ...", now.0, now.1.replace('_', " "));
                told = now;
            }
        } else if waited >= BEGIN_TIMEOUT {
            return Err(Failure::new(Code::Failure, "the rollback was accepted, but none has begun")
                .hint(format!("backstop explain {service}"))
                .into());
        }
        if waited >= END_TIMEOUT {
            return Err(Failure::new(
                Code::Failure,
                "the rollback is still not over; it goes on without this command",
            )
            .hint(format!("backstop explain {service}"))
            .into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
    }
}

/// Whether another rollback than `ended` is in flight.
async fn goes_on(client: &Client, service: &str, ended: &str) -> anyhow::Result<bool> {
    let answer: Answer<ServiceView> = client.get(&["api", "v1", "services", service], &[]).await?;
    Ok(answer.view.summary.rollback.is_some_and(|rollback| rollback != ended))
}

pub(super) async fn newest(client: &Client, service: &str) -> anyhow::Result<Option<(RollbackView, Value)>> {
    let query = [("service", service), ("limit", "1")];
    let answer: Answer<RollbacksView> = client.get(&["api", "v1", "rollbacks"], &query).await?;
    let json = answer.json["rollbacks"][0].clone();
    Ok(answer.view.rollbacks.into_iter().next().map(|rollback| (rollback, json)))
}
