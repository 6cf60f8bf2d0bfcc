//! `backstop plan SERVICE`: what a rollback would do, and nothing else.

use clap::Args;

use super::Output;
use super::client::{Answer, Client};
use super::table::{Screen, bold, release, release_or};
use crate::api::views::PlanView;

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The service
    service: String,
    /// To which release: its id or its reference [default: the newest one that proved itself]
    #[arg(long, value_name = "RELEASE")]
    to: Option<String>,
}

pub(super) async fn run(args: PlanArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let answer = ask(client, &args.service, args.to.as_deref()).await?;
    out.show(&answer.json, |screen| {
        let next = match &args.to {
            Some(to) => format!("backstop rollback {} --to {to}", args.service),
            None => format!("backstop rollback {}", args.service),
        };
        format!("{}\nNothing was changed. To carry it out: {next}\n", render(&answer.view, screen))
    })
}

pub(super) async fn ask(
    client: &Client,
    service: &str,
    to: Option<&str>,
) -> anyhow::Result<Answer<PlanView>> {
    let query: Vec<(&str, &str)> = to.map(|to| ("to", to)).into_iter().collect();
    client.get(&["api", "v1", "services", service, "plan"], &query).await
}

pub(super) fn render(plan: &PlanView, screen: &Screen) -> String {
    let mut text = format!("{}\n", bold(&format!("A rollback of {} would do this:", plan.service)));
    text.push_str(&screen.wrapped(&release_or(plan.from.as_ref(), "nothing"), "from  ", "      "));
    text.push_str(&screen.wrapped(&release(&plan.to), "to    ", "      "));
    if let Some(order) = &plan.order {
        text.push_str(&screen.wrapped(order, "order ", "      "));
    }
    for (index, step) in plan.steps.iter().enumerate() {
        text.push_str(&screen.wrapped(step, &format!("{:>3}. ", index + 1), "     "));
    }
    for note in &plan.notes {
        text.push_str(&screen.wrapped(note, "note: ", "      "));
    }
    text
}
