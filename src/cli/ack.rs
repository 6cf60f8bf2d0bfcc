//! `backstop ack`: take a matter on, so that nobody else is called for it.

use clap::Args;

use super::client::Client;
use super::{Output, whoami};
use crate::api::ack::AckRequestBody;
use crate::api::views::AnswerView;

#[derive(Debug, Args)]
pub(super) struct AckArgs {
    /// The service
    service: String,
    /// What is going to be done, for whoever reads it
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(super) async fn run(args: AckArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = AckRequestBody { by: Some(whoami()), why: args.why };
    let path = ["api", "v1", "services", args.service.as_str(), "ack"];
    let answer = client.post::<AnswerView>(&path, &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}
