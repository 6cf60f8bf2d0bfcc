//! `backstop incident [ROLLBACK|SERVICE]`: the incident report of a rollback, as a page, as Markdown or as JSON; and
//! `backstop incident tick` and `untick`, for what it leaves to people.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::client::Client;
use super::failure::{Code, Failure};
use super::{Output, whoami, write_out};
use crate::api::views::{AnswerView, RollbacksView, TickRequestBody, UntickRequestBody};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct IncidentArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// The rollback by its id, or a service, whose newest rollback is meant [default: the newest of all]
    #[arg(value_name = "ROLLBACK|SERVICE")]
    which: Option<String>,
    /// In which form
    #[arg(long, value_enum, value_name = "FORM", default_value = "markdown")]
    format: Form,
    /// Write it to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tick an item of its checklist off: nobody is reminded of it any more
    Tick(TickArgs),
    /// Take a tick back
    Untick(UntickArgs),
}

#[derive(Debug, Args)]
struct TickArgs {
    #[command(flatten)]
    item: ItemArgs,
    /// What there is to say about it: where the ticket is, what the cause was
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
struct UntickArgs {
    #[command(flatten)]
    item: ItemArgs,
}

#[derive(Debug, Args)]
struct ItemArgs {
    /// The rollback by its id, or a service, whose newest rollback is meant
    #[arg(value_name = "ROLLBACK|SERVICE")]
    which: String,
    /// The item, as the report calls it: root_cause, fix, post_mortem, ...
    #[arg(value_name = "ITEM")]
    item: String,
    /// Who did it [default: who types this]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One file that needs nothing else, for a browser
    Html,
    /// For a ticket
    Markdown,
    /// For other programs
    Json,
}

pub(super) async fn run(args: IncidentArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    match args.what {
        None => report(args.report, client, out).await,
        Some(What::Tick(TickArgs { item, note })) => {
            let by = Some(item.by.clone().unwrap_or_else(whoami));
            say(item, &[], &TickRequestBody { note, by }, client, out).await
        }
        Some(What::Untick(UntickArgs { item })) => {
            let by = Some(item.by.clone().unwrap_or_else(whoami));
            say(item, &["untick"], &UntickRequestBody { by }, client, out).await
        }
    }
}

async fn say(
    item: ItemArgs,
    below: &[&str],
    body: &impl serde::Serialize,
    client: &Client,
    out: &Output,
) -> anyhow::Result<()> {
    let id = rollback(Some(item.which), client).await?;
    let path = [&["api", "v1", "rollbacks", &id, "checklist", &item.item], below].concat();
    let answer = client.post::<AnswerView>(&path, body).await?;
    out.show(&answer.json, |_| format!("{}\n", answer.view.answer))
}

async fn report(args: ReportArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let form = if out.json { Form::Json } else { args.format };
    let id = rollback(args.which, client).await?;
    let file = match form {
        Form::Html => "report.html",
        Form::Markdown => "report.md",
        Form::Json => "report",
    };
    let mut text = client.text(&["api", "v1", "rollbacks", &id, file]).await?;
    if form == Form::Json {
        let json: serde_json::Value = serde_json::from_str(&text).context("the daemon answered no JSON")?;
        text = format!("{}\n", serde_json::to_string_pretty(&json)?);
    }
    match args.output {
        None => write_out(&text),
        Some(path) => {
            std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
        }
    }
}

/// The rollback that is meant.
async fn rollback(which: Option<String>, client: &Client) -> anyhow::Result<String> {
    match which.filter(|which| !which.is_empty()) {
        Some(which) if is_id(&which) => Ok(which),
        other => newest(client, other.as_deref()).await,
    }
}

/// Whether it looks like the id of a rollback: thirteen hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 13 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn newest(client: &Client, service: Option<&str>) -> anyhow::Result<String> {
    let mut query = vec![("limit", "1")];
    query.extend(service.map(|service| ("service", service)));
    let found = client.get::<RollbacksView>(&["api", "v1", "rollbacks"], &query).await?;
    let newest = found.view.rollbacks.first().map(|rollback| rollback.id.clone());
    newest.ok_or_else(|| {
        let of = service.map_or_else(String::new, |service| format!(" of `{service}`"));
        Failure::new(Code::Failure, format!("no rollback{of} is on record"))
            .hint("`backstop history` lists the rollbacks")
            .into()
    })
}
