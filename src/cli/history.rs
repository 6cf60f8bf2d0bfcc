//! `backstop history`: past rollbacks, or one of them with its journal.

use clap::Args;

use super::client::Client;
use super::log::{self, Format};
use super::table::{Screen, bold, release, release_or, span};
use super::{Output, write_out};
use crate::api::views::{
    ApprovalView, ReleaseView, RollbackDetailView, RollbackView, RollbacksView, ServiceView,
};

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The service [default: all]
    service: Option<String>,
    /// At most this many, 1 to 200
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// Only older ones than the rollback with this id
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// One rollback with its journal, by its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["service", "limit", "before"])]
    rollback: Option<String>,
    /// In which form: a table for this terminal, or one to paste into a runbook or a spreadsheet
    #[arg(long, value_enum, value_name = "FORM", default_value = "table", conflicts_with = "rollback")]
    format: Format,
}

pub(super) async fn run(args: HistoryArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    if let Some(id) = &args.rollback {
        let answer = client.get::<RollbackDetailView>(&["api", "v1", "rollbacks", id], &[]).await?;
        return out.show(&answer.json, |screen| one(&answer.view, screen));
    }
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(args.service.as_deref().map(|service| ("service", service)));
    query.extend(args.before.as_deref().map(|id| ("before", id)));
    let answer = client.get::<RollbacksView>(&["api", "v1", "rollbacks"], &query).await?;
    // A service that is gone still has its history; one that has none may be a slip.
    if let Some(name) = args.service.as_deref().filter(|_| answer.view.rollbacks.is_empty()) {
        client.get::<ServiceView>(&["api", "v1", "services", name], &[]).await?;
    }
    match args.format {
        Format::Table => out.show(&answer.json, |screen| list(&answer.view, &args, screen)),
        Format::Markdown => write_out(&log::markdown(&answer.view.rollbacks)),
        Format::Csv => write_out(&log::csv(&answer.view.rollbacks)?),
        Format::Json => write_out(&format!("{}\n", serde_json::to_string_pretty(&answer.json)?)),
    }
}

fn list(view: &RollbacksView, args: &HistoryArgs, screen: &Screen) -> String {
    if view.rollbacks.is_empty() {
        return match &args.service {
            Some(service) => format!("No rollback of `{service}` is on record.\n"),
            None => "No rollback is on record.\n".to_owned(),
        };
    }
    let rows = view
        .rollbacks
        .iter()
        .map(|rollback| {
            // Identities where the references do not tell the two apart: another configuration, or a tag that moved.
            let alike = rollback.from.as_ref().is_some_and(|from| from.reference == rollback.to.reference);
            let short = |found: &ReleaseView| if alike { release(found) } else { found.reference.clone() };
            let from = rollback.from.as_ref().map_or_else(|| "nothing".to_owned(), short);
            let row = [
                screen.moment(rollback.started),
                rollback.service.clone(),
                format!("{from} -> {}", short(&rollback.to)),
                screen.mark(&rollback.outcome),
                rollback.decided_by.clone(),
                took_in_all(rollback),
                rollback.id.clone(),
            ];
            let with = match rollback.along.as_slice() {
                [] => String::new(),
                others => format!(" (all or none, with {})", others.join(", ")),
            };
            (row, format!("{}{with}", rollback.text))
        })
        .collect();
    let mut text = screen
        .noted(["DECIDED", "SERVICE", "ROLLBACK", "OUTCOME", "DECIDED BY", "APPLIED / OVER", "ID"], rows);
    text.push_str("\nOne of them with its journal: backstop history --rollback ID\n");
    if let Some(before) = &view.next_before {
        let service = args.service.as_ref().map_or_else(String::new, |service| format!(" {service}"));
        text.push_str(&format!(
            "Older ones: backstop history{service} --limit {} --before {before}\n",
            args.limit
        ));
    }
    text
}

/// How long after the decision the target was started, and how long after it all was over.
fn took_in_all(rollback: &RollbackView) -> String {
    let shown = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), span);
    match (rollback.decision_to_applied_seconds, rollback.duration_seconds) {
        (None, None) => shown(None),
        (applied, over) => format!("{} / {}", shown(applied), shown(over)),
    }
}

fn one(detail: &RollbackDetailView, screen: &Screen) -> String {
    let mut text = summary(&detail.rollback, screen);
    text.push_str(&format!("\n{}\n", bold("JOURNAL")));
    match &detail.journal_error {
        Some(why) => text.push_str(&screen.wrapped(why, "it could not be read: ", "  ")),
        None if detail.journal.is_empty() => text.push_str("nothing was written\n"),
        None => {
            for line in &detail.journal {
                let at = line.at.to_zoned(screen.zone.clone()).strftime("%H:%M:%S%.3f").to_string();
                text.push_str(&screen.wrapped(&line.what, &format!("{at}  "), "              "));
            }
        }
    }
    text
}

/// One rollback, name and value a line.
pub(super) fn summary(rollback: &RollbackView, screen: &Screen) -> String {
    let outcome = screen.painted(&screen.mark(&rollback.outcome));
    let mut text =
        format!("{}  {outcome}\n", bold(&format!("Rollback {} of {}", rollback.id, rollback.service)));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&screen.wrapped(value, &format!("{name:<12}"), "            "));
        }
    };
    line("outcome", &rollback.detail);
    line("environment", &rollback.environment);
    line("from", &release_or(rollback.from.as_ref(), "nothing"));
    line("to", &release(&rollback.to));
    line("with", &rollback.along.join(", "));
    line("order", rollback.order.as_deref().unwrap_or_default());
    line("why", &format!("{} ({})", rollback.text, rollback.severity));
    line("decided", &format!("{} by {}", screen.moment(rollback.started), rollback.decided_by));
    let asked = rollback.approval.iter().flat_map(|approval| approved(approval, screen));
    for (i, said) in asked.enumerate() {
        line(if i == 0 { "asked" } else { "answered" }, &said);
    }
    line("applied", &took(rollback.decision_to_applied_seconds, "after the decision"));
    line(
        "users felt",
        &took(rollback.onset_to_applied_seconds, "from the first bad sample until the target was started"),
    );
    line("ended", &took(rollback.duration_seconds, "after the decision"));
    text
}

/// What people were asked, and what they said, one line each.
fn approved(approval: &ApprovalView, screen: &Screen) -> Vec<String> {
    let needed = match approval.needed {
        1 => String::new(),
        needed => format!(", {needed} people have to say yes"),
    };
    let asked = format!("{} ({}{needed})", screen.moment(approval.asked), approval.ask);
    let said = approval.said.iter().map(|said| {
        let why = if said.why.is_empty() { String::new() } else { format!(": {}", said.why) };
        format!("{} {} by {}{why}", screen.moment(said.at), said.word, said.by)
    });
    std::iter::once(asked).chain(said).collect()
}

fn took(seconds: Option<f64>, what: &str) -> String {
    seconds.map_or_else(String::new, |seconds| format!("{} {what}", span(seconds)))
}
