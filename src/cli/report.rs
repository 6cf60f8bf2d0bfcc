//! `backstop report SERVICE`: says that something is wrong, as a user who noticed it.

use clap::Args;

use super::client::Client;
use super::{Output, whoami};
use crate::api::views::{ReportRequestBody, ReportView};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The service
    service: String,
    /// What is wrong, for whoever looks into it
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Who noticed it: several reports by one person count once [default: you, as USER@HOST]
    #[arg(long, value_name = "NAME")]
    reporter: Option<String>,
}

pub(super) async fn run(args: ReportArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let body = ReportRequestBody { reporter: args.reporter.unwrap_or_else(whoami), text: args.text };
    let path = ["api", "v1", "services", &args.service, "reports"];
    let answer = client.post::<ReportView>(&path, &body).await?;
    out.show(&answer.json, |_| format!("{} (reported by {})\n", answer.view.answer, answer.view.reporter))
}
