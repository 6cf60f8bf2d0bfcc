//! `backstop unpin`.

use clap::Args;

use super::client::Client;
use super::{Output, whoami};
use crate::api::views::{AnswerView, UnpinRequestBody};

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The service
    service: String,
}

pub(super) async fn run(args: UnpinArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = UnpinRequestBody { by: Some(whoami()) };
    let path = ["api", "v1", "services", &args.service, "unpin"];
    let answer = client.post::<AnswerView>(&path, &body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}
