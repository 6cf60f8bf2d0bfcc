//! `backstop incident [ROLLBACK|SERVICE]`: the incident report of a rollback, as a page, as Markdown or as JSON.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::client::Client;
use super::failure::{Code, Failure};
use super::{Output, write_out};
use crate::api::views::RollbacksView;

#[derive(Debug, Args)]
pub(super) struct IncidentArgs {
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
    let form = if out.json { Form::Json } else { args.format };
    let id = match args.which.filter(|which| !which.is_empty()) {
        Some(which) if is_id(&which) => which,
        other => newest(client, other.as_deref()).await?,
    };
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
