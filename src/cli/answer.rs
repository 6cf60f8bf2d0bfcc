//! `backstop approve`, `backstop cancel` and `backstop extend`: answers to what the daemon asks.

use clap::Args;

use super::client::Client;
use super::pause::duration;
use super::{Output, whoami};
use crate::api::views::{AnswerRequestBody, AnswerView, ExtendRequestBody};

#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    /// The service that the question is about
    service: String,
    /// Why, for the rollback log and for the others
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExtendArgs {
    /// The service whose rollback is announced
    service: String,
    /// How much later, `30m` or `2h`
    #[arg(value_name = "DURATION", value_parser = duration)]
    span: String,
    /// Why, for the others
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(super) async fn approve(args: AnswerArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    say("approve", args, client, out).await
}

pub(super) async fn cancel(args: AnswerArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    say("cancel", args, client, out).await
}

async fn say(word: &str, args: AnswerArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = AnswerRequestBody { why: args.why, by: Some(whoami()) };
    let answer = client.post::<AnswerView>(&["api", "v1", "services", &args.service, word], &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}

pub(super) async fn extend(args: ExtendArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = ExtendRequestBody { span: args.span, why: args.why, by: Some(whoami()) };
    let path = ["api", "v1", "services", &args.service, "extend"];
    let answer = client.post::<AnswerView>(&path, &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}
