//! `backstop pause` and `backstop resume`.

use clap::Args;

use super::client::Client;
use super::{Output, whoami};
use crate::api::views::{AnswerView, PauseRequestBody, ResumeRequestBody};

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The service [default: the whole fleet]
    service: Option<String>,
    /// For how long, `30m` or `2h` [default: until resumed]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<String>,
    /// Why, for whoever finds it paused
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The service [default: the whole fleet, and the breaker]
    service: Option<String>,
}

pub(super) async fn pause(args: PauseArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = PauseRequestBody {
        service: args.service,
        duration: args.duration,
        why: args.why,
        by: Some(whoami()),
    };
    let answer = client.post::<AnswerView>(&["api", "v1", "pause"], &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}

pub(super) async fn resume(args: ResumeArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = ResumeRequestBody { service: args.service, by: Some(whoami()) };
    let answer = client.post::<AnswerView>(&["api", "v1", "resume"], &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}

/// Checks a duration here, so that a typing mistake is a usage error; it travels as it was typed.
pub(super) fn duration(given: &str) -> Result<String, String> {
    humantime::parse_duration(given)
        .map(|_| given.to_owned())
        .map_err(|why| format!("{why}; right would be `30m`, `2h` or `1day`"))
}
