//! `backstop drill SERVICE`: would a rollback work? Tried without touching what serves.

use clap::Args;

use super::Output;
use super::client::Client;
use super::failure::{Code, Failure};
use super::table::{Screen, span};
use crate::api::views::{AnswerRequestBody, DrillPointView, DrillView};

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// The service
    service: String,
}

pub(super) async fn run(args: DrillArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let path = ["api", "v1", "services", &args.service, "drill"];
    let body = AnswerRequestBody { why: None, by: Some(super::whoami()) };
    let answer = client.post::<DrillView>(&path, &body).await?;
    out.show(&answer.json, |screen| render(&answer.view, screen))?;
    if answer.view.ready {
        return Ok(());
    }
    Err(Failure::new(Code::Failure, format!("a rollback of {} would not go as it should", args.service))
        .hint("the lines marked `missing` say what to do")
        .into())
}

fn render(view: &DrillView, screen: &Screen) -> String {
    let row =
        |point: &DrillPointView| [screen.mark(&point.verdict), point.what.clone(), point.detail.clone()];
    let rows = view.points.iter().map(row).collect();
    let table = screen.table(["", "WHAT", "FOUND"], &[2], rows);
    let time = view.estimate_seconds.map_or_else(String::new, |seconds| format!(", about {}", span(seconds)));
    let percent = (view.score * 100.0).round();
    format!("{table}\nReady to {percent:.0} %{time}. Nothing that serves was touched.\n")
}
