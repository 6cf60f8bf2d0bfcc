//! `backstop explain SERVICE`: every row, every gate, every release, and what would happen next.

use clap::Args;

use super::Output;
use super::client::Client;
use super::table::{Screen, bold, release, release_or, span};
use crate::api::views::{CommandView, DecisionView, RollbackView, RowView, ServiceView};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The service
    service: String,
}

pub(super) async fn run(args: ExplainArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let path = ["api", "v1", "services", &args.service];
    let answer = client.get::<ServiceView>(&path, &[]).await?;
    out.show(&answer.json, |screen| render(&answer.view, screen))
}

fn render(service: &ServiceView, screen: &Screen) -> String {
    let mut text = head(service, screen);
    let mut part = |title: &str, body: String| {
        if !body.is_empty() {
            text.push_str(&format!("\n{}\n{body}", bold(title)));
        }
    };
    part("THE DECISION MATRIX", rows(service, screen));
    part("THE GATES, were a rollback decided now", gates(service, screen));
    part("RELEASES, newest deployment first", releases(service, screen));
    part("REPLICAS", replicas(service, screen));
    part("ROLLBACK IN FLIGHT", service.in_flight.as_ref().map_or_else(String::new, |r| in_flight(r, screen)));
    part(
        "THE LAST DECISION",
        service.last_decision.as_ref().map_or_else(String::new, |d| decision(d, screen)),
    );
    part(
        "WHAT WOULD HAPPEN NEXT",
        service.outlook.iter().map(|line| screen.wrapped(line, "", "  ")).collect(),
    );
    part("COMMANDS", commands(&service.commands, screen));
    text
}

fn head(service: &ServiceView, screen: &Screen) -> String {
    let summary = &service.summary;
    let state = screen.painted(&screen.mark(&summary.state));
    let mut text = format!("{}  {state} for {}\n", bold(&summary.name), span(summary.for_seconds.trunc()));
    text.push_str(&screen.wrapped(&summary.sentence, "", ""));
    let deployed = summary
        .deployed
        .map_or_else(String::new, |at| format!(", deployed {} ({})", screen.moment(at), screen.ago(at)));
    let runs = release_or(summary.current.as_ref(), "nothing");
    let mut line =
        |name: &str, value: &str| text.push_str(&screen.wrapped(value, &format!("{name:<8}"), "        "));
    line("runs", &format!("{runs}{deployed}"));
    line(
        "target",
        &release_or(summary.target.as_ref(), "none: there is no other release that proved itself"),
    );
    line(
        "mode",
        match summary.mode.as_str() {
            "dry-run" => "dry-run: decides and announces, and never touches the service",
            mode => mode,
        },
    );
    if let Some(health) = &service.settings.health {
        let every = service
            .settings
            .health_interval_seconds
            .map_or_else(String::new, |s| format!(", every {}", span(s)));
        line("health", &format!("{health}{every}"));
    }
    text
}

fn rows(service: &ServiceView, screen: &Screen) -> String {
    let since = |row: &RowView| row.since.map(|at| screen.moment(at));
    if screen.is_wide() {
        let whole = |row: &RowView| {
            [
                row.rule.clone(),
                screen.mark(&row.answer),
                or_dash(&row.value),
                or_dash(&row.threshold),
                row.samples.to_string(),
                since(row).unwrap_or_else(|| "-".to_owned()),
                row.action.clone(),
            ]
        };
        let rows = service.rows.iter().map(whole).collect();
        return screen.table(
            ["ROW", "ANSWER", "NOW", "LIMIT", "SAMPLES", "SINCE", "LEADS TO"],
            &[2, 3],
            rows,
        );
    }
    // On a narrow screen the time goes with the value, and what a breach leads to with the limit, where it is not a
    // rollback.
    let narrow = |row: &RowView| {
        let (value, limit) = (or_dash(&row.value), or_dash(&row.threshold));
        [
            row.rule.clone(),
            screen.mark(&row.answer),
            since(row).map_or_else(|| value.clone(), |at| format!("{value}, since {at}")),
            if row.action == "evaluate" { format!("{limit}: a person is told") } else { limit },
            row.samples.to_string(),
        ]
    };
    let rows = service.rows.iter().map(narrow).collect();
    screen.table(["ROW", "ANSWER", "NOW", "LIMIT", "SAMPLES"], &[2, 3], rows)
}

fn gates(service: &ServiceView, screen: &Screen) -> String {
    let rows = service
        .gates
        .iter()
        .map(|gate| {
            let answer = if gate.allow { "allow" } else { "deny" };
            [gate.gate.clone(), screen.mark(answer), gate.why.clone()]
        })
        .collect();
    screen.table(["GATE", "ANSWER", "WHY"], &[2], rows)
}

fn releases(service: &ServiceView, screen: &Screen) -> String {
    if service.releases.is_empty() {
        return String::new();
    }
    let rows = service
        .releases
        .iter()
        .map(|entry| {
            let role = match (entry.current, entry.target) {
                (true, _) => "runs now",
                (false, true) => "the target",
                (false, false) => "",
            };
            let why = entry.why.clone().unwrap_or_default();
            let note =
                [role, &why].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
            [release(&entry.release), screen.mark(&entry.standing), screen.moment(entry.deployed), note]
        })
        .collect();
    screen.table(["RELEASE", "STANDING", "DEPLOYED", ""], &[0, 3], rows)
}

fn replicas(service: &ServiceView, screen: &Screen) -> String {
    if service.replicas.is_empty() {
        return "none\n".to_owned();
    }
    let rows = service
        .replicas
        .iter()
        .map(|replica| {
            let exit = replica.exit_code.map(|code| format!("exit code {code}"));
            let note = [replica.start_error.clone(), exit, replica.health_output.clone()];
            let note: Vec<String> = note.into_iter().flatten().collect();
            [
                replica.name.clone(),
                replica.phase.clone(),
                replica.health.clone().unwrap_or_else(|| "-".to_owned()),
                replica.restart_count.to_string(),
                replica.release.clone(),
                note.join("; "),
            ]
        })
        .collect();
    screen.table(["CONTAINER", "PHASE", "HEALTHCHECK", "RESTARTS", "RELEASE", ""], &[5], rows)
}

fn in_flight(rollback: &RollbackView, screen: &Screen) -> String {
    let from = release_or(rollback.from.as_ref(), "nothing");
    let text = format!(
        "{}: {}, from {from} to {}, decided {} by {}",
        rollback.id,
        rollback.outcome,
        release(&rollback.to),
        screen.moment(rollback.started),
        rollback.decided_by
    );
    screen.wrapped(&text, "", "  ")
}

fn decision(decision: &DecisionView, screen: &Screen) -> String {
    let dry = if decision.dry_run { " (dry-run)" } else { "" };
    let what = format!(
        "{} ({}): {}{dry}, {}: {}",
        screen.moment(decision.at),
        screen.ago(decision.at),
        decision.verdict,
        decision.severity,
        decision.text
    );
    let mut text = screen.wrapped(&what, "", "  ");
    for gate in decision.gates.iter().filter(|gate| !gate.allow) {
        text.push_str(&screen.wrapped(
            &format!("held by the gate `{}`: {}", gate.gate, gate.why),
            "  ",
            "    ",
        ));
    }
    text
}

fn commands(commands: &[CommandView], screen: &Screen) -> String {
    let widest = commands.iter().map(|command| command.command.chars().count()).max().unwrap_or(0);
    let indent = " ".repeat(widest + 4);
    let line = |command: &CommandView| {
        screen.wrapped(&command.does, &format!("  {:<widest$}  ", command.command), &indent)
    };
    commands.iter().map(line).collect()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
