//! `backstop explain SERVICE`: every row, every gate, every release, and what would happen next.

use clap::Args;

use super::Output;
use super::client::Client;
use super::table::{Screen, bold, release, release_or, span};
use crate::api::views::{
    CheckView, CommandView, DecisionView, LedgerView, RollbackView, RowView, ServiceView, SettingsView,
};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The service
    service: String,
    /// Show the rows that are off as well, each with its limit
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: ExplainArgs, client: &Client, out: &Output) -> anyhow::Result<()> {
    let path = ["api", "v1", "services", &args.service];
    let mut answer = client.get::<ServiceView>(&path, &[]).await?;
    // Which comes first follows from how the target was recorded, which only a plan looks at.
    if answer.view.summary.target.is_some()
        && answer.view.in_flight.is_none()
        && let Ok(plan) = super::plan::ask(client, &args.service, None).await
    {
        answer.view.outlook.extend(plan.view.order.map(|order| format!("A rollback would go {order}.")));
    }
    out.show(&answer.json, |screen| render(&answer.view, args.all, screen))
}

fn render(service: &ServiceView, all: bool, screen: &Screen) -> String {
    let mut text = head(service, screen);
    let mut part = |title: &str, body: String| {
        if !body.is_empty() {
            text.push_str(&format!("\n{}\n{body}", bold(title)));
        }
    };
    part("THE DECISION MATRIX", rows(service, all, screen));
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
    text + &asked(&service.settings, screen)
}

/// What is asked, and where.
fn asked(settings: &SettingsView, screen: &Screen) -> String {
    let every = |seconds: f64| format!(", every {}", span(seconds));
    let check = |check: &CheckView| {
        let advisory = if check.required { "" } else { " (advisory)" };
        // The others say themselves what they are.
        let kind = if matches!(check.kind.as_str(), "tcp" | "grpc") {
            format!("{} ", check.kind)
        } else {
            String::new()
        };
        format!("{}: {kind}{}{}{advisory}", check.name, check.place, every(check.interval_seconds))
    };
    let source = |kind: &str, place: &str, seconds: f64| format!("{kind}: {place}{}", every(seconds));
    let logs = settings.logs.then(|| "logs: error lines".to_owned());
    let depends = settings.dependencies.iter().map(|on| match (&on.service, &on.check) {
        (Some(service), _) => format!("{}: the service {service}", on.name),
        (None, Some(how)) => check(how),
        (None, None) => on.name.clone(),
    });
    let labels: Vec<String> =
        settings.alert_labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    let sources =
        settings.sources.iter().map(|s| source(&s.kind.replace('_', " "), &s.place, s.interval_seconds));
    let parts: [(&str, Vec<String>); 4] = [
        ("checks", settings.checks.iter().map(check).collect()),
        ("sources", sources.chain(logs).collect()),
        ("depends", depends.collect()),
        ("alerts", (!labels.is_empty()).then(|| format!("with {}", labels.join(", "))).into_iter().collect()),
    ];
    let mut text = String::new();
    for (name, lines) in parts {
        for (n, line) in lines.iter().enumerate() {
            let name = if n == 0 { name } else { "" };
            text.push_str(&screen.wrapped(line, &format!("{name:<8}"), "          "));
        }
    }
    text
}

fn rows(service: &ServiceView, all: bool, screen: &Screen) -> String {
    let (off, on): (Vec<&RowView>, Vec<&RowView>) =
        service.rows.iter().partition(|row| row.answer == "off" && !all);
    let text = if screen.is_wide() { wide_rows(&on, screen) } else { narrow_rows(&on, screen) };
    text + &off_rows(&off, &service.summary.name, screen)
}

fn wide_rows(rows: &[&RowView], screen: &Screen) -> String {
    if screen.columns.is_none() {
        // Programs get every column, always.
        let cells = |row: &&RowView| {
            let since = row.since.map_or_else(|| "-".to_owned(), |at| screen.moment(at));
            let baseline = or_dash(row.baseline.as_deref().unwrap_or_default());
            let (answer, samples) = (screen.mark(&row.answer), row.samples.to_string());
            let (now, limit) = (or_dash(&row.value), or_dash(&row.threshold));
            [row.rule.clone(), answer, now, limit, baseline, samples, since, row.action.clone()]
        };
        let heads = ["ROW", "ANSWER", "NOW", "LIMIT", "BASELINE", "SAMPLES", "SINCE", "LEADS TO"];
        return screen.table(heads, &[], rows.iter().map(cells).collect());
    }
    // A column of its own for the baseline would make ribbons of all three.
    let cells = |row: &&RowView| {
        let now = or_dash(&row.value);
        let now = match &row.baseline {
            Some(baseline) => format!("{now}; baseline: {baseline}"),
            None => now,
        };
        let (answer, samples) = (screen.mark(&row.answer), row.samples.to_string());
        [
            row.rule.clone(),
            answer,
            now,
            or_dash(&row.threshold),
            samples,
            crossed_for(row),
            row.action.clone(),
        ]
    };
    let heads = ["ROW", "ANSWER", "NOW", "LIMIT", "SAMPLES", "FOR", "LEADS TO"];
    screen.table(heads, &[2, 3], rows.iter().map(cells).collect())
}

/// For how long the line has been crossed.
fn crossed_for(row: &RowView) -> String {
    row.for_seconds.map_or_else(|| "-".to_owned(), |seconds| span(seconds.trunc()))
}

/// On a narrow screen the words of a row stand below it: in columns they would be broken into ribbons.
fn narrow_rows(rows: &[&RowView], screen: &Screen) -> String {
    let lines = rows.iter().map(|row| {
        let baseline = row.baseline.as_ref().map(|baseline| format!("baseline: {baseline}"));
        let samples = (row.samples > 0).then(|| format!("{} samples", row.samples));
        let words = [
            Some(or_dash(&row.value)),
            Some(format!("limit: {}", or_dash(&row.threshold))),
            baseline,
            samples,
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        ([row.rule.clone(), screen.mark(&row.answer), crossed_for(row), row.action.clone()], words.join("; "))
    });
    screen.noted(["ROW", "ANSWER", "FOR", "LEADS TO"], lines.collect())
}

/// Rows that judge nothing here, by what keeps them from it.
fn off_rows(rows: &[&RowView], service: &str, screen: &Screen) -> String {
    let mut whys: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        match whys.iter_mut().find(|(why, _)| *why == row.value) {
            Some((_, names)) => names.push(&row.rule),
            None => whys.push((&row.value, vec![&row.rule])),
        }
    }
    let mut text = String::new();
    for (n, (why, names)) in whys.iter().enumerate() {
        let first = if n == 0 { "off  " } else { "     " };
        text.push_str(&screen.wrapped(&format!("{why}: {}", names.join(", ")), first, "       "));
    }
    if !rows.is_empty() {
        text.push_str(&screen.wrapped(
            &format!("(`backstop explain {service} --all` shows their limits)"),
            "     ",
            "     ",
        ));
    }
    text
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
    let note = |entry: &LedgerView| {
        let role = match (entry.current, entry.target) {
            (true, _) => "runs now",
            (false, true) => "the target",
            (false, false) => "",
        };
        let why = entry.why.as_deref().unwrap_or_default();
        // That it is where it should be is not worth a word.
        let image = match entry.availability.as_deref() {
            None | Some("here") => String::new(),
            Some("registry") => "its image is in the registry only".to_owned(),
            Some(other) => format!("its image is {other}"),
        };
        let trouble = entry.availability_why.as_deref().unwrap_or_default();
        [role, why, &image, trouble]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    };
    let head = |entry: &LedgerView| (release(&entry.release), screen.mark(&entry.standing));
    if screen.is_wide() {
        let cells = |entry: &LedgerView| {
            let (name, standing) = head(entry);
            [name, standing, screen.moment(entry.deployed), note(entry)]
        };
        let rows = service.releases.iter().map(cells).collect();
        return screen.table(["RELEASE", "STANDING", "DEPLOYED", ""], &[3], rows);
    }
    let cells = |entry: &LedgerView| {
        let (name, standing) = head(entry);
        let deployed = format!("deployed {}", screen.moment(entry.deployed));
        let note = note(entry);
        let note = if note.is_empty() { deployed } else { format!("{deployed}; {note}") };
        ([name, standing], note)
    };
    screen.noted(["RELEASE", "STANDING"], service.releases.iter().map(cells).collect())
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
    // Beside a long command there is no room for words on a narrow screen: then they stand below it.
    let beside = screen.columns.is_none_or(|columns| widest + 4 + 24 <= usize::from(columns));
    let indent = " ".repeat(if beside { widest + 4 } else { 6 });
    let line = |command: &CommandView| {
        if beside {
            let first = format!("  {:<widest$}  ", command.command);
            return screen.wrapped(&command.does, &first, &indent);
        }
        format!("  {}\n{}", command.command, screen.wrapped(&command.does, &indent, &indent))
    };
    commands.iter().map(line).collect()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::api::views::DependencyView;

    /// What the API answers, as its own test keeps it.
    fn answer() -> ServiceView {
        let kept = include_str!("../../tests/it/snapshots/it__api__service.snap");
        serde_json::from_str(kept.splitn(3, "---\n").nth(2).unwrap()).unwrap()
    }

    fn shown(columns: Option<u16>, all: bool) -> String {
        let screen = Screen { columns, zone: TimeZone::UTC, now: "2030-01-01T00:00:00Z".parse().unwrap() };
        anstream::adapter::strip_str(&render(&answer(), all, &screen)).to_string()
    }

    #[test]
    fn the_whole_matrix_fits_a_terminal() {
        for columns in [60, 80, 100, 120, 200] {
            let text = shown(Some(columns), true);
            let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= usize::from(columns), "{columns}: {longest}\n{text}");
        }
        insta::assert_snapshot!("explain_80_columns", shown(Some(80), false));
        insta::assert_snapshot!("explain_120_columns", shown(Some(120), false));
    }

    #[test]
    fn rows_that_are_off_are_folded_unless_all_are_wanted() {
        let folded = shown(None, false);
        assert!(
            folded.contains("\noff  not configured: health_advisory, memory_leak, log_errors\n"),
            "{folded}"
        );
        assert!(!folded.contains("> 3x baseline"), "{folded}");
        let all = shown(None, true);
        assert!(all.contains("> 3x baseline") && !all.contains("--all"), "{all}");
    }

    #[test]
    fn what_is_asked_is_shown_each_on_its_line() {
        let mut view = answer();
        let check = view.settings.checks[0].clone();
        let advisory =
            CheckView { required: false, ..CheckView { name: "ready".to_owned(), ..check.clone() } };
        view.settings.checks.push(advisory);
        let tcp = CheckView { kind: "tcp".to_owned(), place: "port 5432".to_owned(), ..check };
        view.settings.dependencies = vec![
            DependencyView { name: "auth".to_owned(), service: Some("auth".to_owned()), check: None },
            DependencyView {
                name: "db".to_owned(),
                service: None,
                check: Some(CheckView { name: "db".to_owned(), ..tcp }),
            },
        ];
        view.settings.alert_labels = vec![("team".to_owned(), "shop".to_owned())];
        let screen =
            Screen { columns: None, zone: TimeZone::UTC, now: "2030-01-01T00:00:00Z".parse().unwrap() };
        assert_eq!(
            asked(&view.settings, &screen),
            "checks  health: port 8080, /healthz, every 5s\n        \
             ready: port 8080, /healthz, every 5s (advisory)\n\
             sources logs: error lines\n\
             depends auth: the service auth\n        \
             db: tcp port 5432, every 5s\n\
             alerts  with team=\"shop\"\n"
        );
    }
}
