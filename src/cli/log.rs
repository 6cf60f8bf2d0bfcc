//! The rollback log in the forms in which runbooks keep it: a Markdown table to paste, and CSV for a spreadsheet.

use anyhow::Context;
use clap::ValueEnum;

use super::table::{release, span};
use crate::api::views::RollbackView;

/// A runbook's columns, and who decided, how it ended, and by which name more can be had.
const COLUMNS: [&str; 10] =
    ["Date", "Service", "Environment", "From", "To", "Reason", "Decided by", "Duration", "Resolution", "ID"];

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

pub(super) fn markdown(rollbacks: &[RollbackView]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&COLUMNS.map(str::to_owned));
    text.push_str(&line(&COLUMNS.map(|_| "---".to_owned())));
    for rollback in rollbacks {
        // A bar or the end of a line would begin another cell or row.
        text.push_str(&line(&cells(rollback).map(|cell| cell.replace('|', "\\|").replace('\n', " "))));
    }
    if rollbacks.is_empty() {
        let none =
            COLUMNS.map(|column| if column == "Date" { "(none yet)".to_owned() } else { String::new() });
        text.push_str(&line(&none));
    }
    text
}

pub(super) fn csv(rollbacks: &[RollbackView]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for rollback in rollbacks {
        writer.write_record(cells(rollback))?;
    }
    let bytes = writer.into_inner().context("the log could not be written")?;
    Ok(String::from_utf8(bytes)?)
}

fn cells(rollback: &RollbackView) -> [String; 10] {
    let resolution = rollback.outcome.replace('_', " ");
    [
        // Whoever reads it later, elsewhere, knows neither the day nor the zone.
        rollback.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        rollback.service.clone(),
        rollback.environment.clone(),
        rollback.from.as_ref().map_or_else(|| "nothing".to_owned(), release),
        release(&rollback.to),
        rollback.text.clone(),
        rollback.decided_by.clone(),
        rollback.duration_seconds.map_or_else(String::new, span),
        if rollback.detail.is_empty() { resolution } else { format!("{resolution}: {}", rollback.detail) },
        rollback.id.clone(),
    ]
}
