//! The rollback log in the forms in which runbooks keep it: a Markdown table to paste, and CSV for a spreadsheet.

use anyhow::Context;
use clap::ValueEnum;

use super::table::{Screen, span};
use crate::api::views::RollbackView;

/// A runbook's columns, and who decided and how it ended.
const COLUMNS: [&str; 9] =
    ["Date", "Service", "Environment", "From", "To", "Reason", "Decided by", "Duration", "Resolution"];

/// How the log is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a terminal.
    Table,
    /// A Markdown table.
    Markdown,
    /// Comma-separated values, as in RFC 4180.
    Csv,
    /// As the API gives it.
    Json,
}

pub(super) fn markdown(rollbacks: &[RollbackView], screen: &Screen) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&COLUMNS.map(str::to_owned));
    text.push_str(&line(&COLUMNS.map(|_| "---".to_owned())));
    for rollback in rollbacks {
        // A bar or the end of a line would begin another cell or row.
        text.push_str(&line(
            &cells(rollback, screen).map(|cell| cell.replace('|', "\\|").replace('\n', " ")),
        ));
    }
    if rollbacks.is_empty() {
        let none =
            COLUMNS.map(|column| if column == "Date" { "(none yet)".to_owned() } else { String::new() });
        text.push_str(&line(&none));
    }
    text
}

pub(super) fn csv(rollbacks: &[RollbackView], screen: &Screen) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for rollback in rollbacks {
        writer.write_record(cells(rollback, screen))?;
    }
    let bytes = writer.into_inner().context("the log could not be written")?;
    Ok(String::from_utf8(bytes)?)
}

fn cells(rollback: &RollbackView, screen: &Screen) -> [String; 9] {
    let resolution = rollback.outcome.replace('_', " ");
    [
        screen.moment(rollback.started),
        rollback.service.clone(),
        rollback.environment.clone(),
        rollback.from.as_ref().map_or_else(|| "nothing".to_owned(), |from| from.reference.clone()),
        rollback.to.reference.clone(),
        rollback.text.clone(),
        rollback.decided_by.clone(),
        rollback.duration_seconds.map_or_else(String::new, span),
        if rollback.detail.is_empty() { resolution } else { format!("{resolution}: {}", rollback.detail) },
    ]
}
