//! What would happen next, and what a person can do about it. It only puts into words what the rows and gates of
//! the snapshot say; it decides nothing.

use super::views::CommandView;
use super::windows;
use crate::core::approval::Approval;
use crate::core::decision::GateAnswer;
use crate::core::plan::Pin;
use crate::core::settings::{Action, Condition, Mode, Rule};
use crate::core::snapshot::{FleetSnapshot, RowAnswer, RowSnapshot, ServiceSnapshot, State};
use crate::core::time::human;

/// What would happen next, were nothing to change.
pub(super) fn outlook(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Vec<String> {
    let pinned = service.pin.as_ref().map(|pin| pinned(service, pin));
    next(service, fleet).into_iter().chain(pinned).collect()
}

/// What the last rollback left in the project's files.
fn pinned(service: &ServiceSnapshot, pin: &Pin) -> String {
    match pin {
        Pin::Variable { file, variable, was, is } => {
            let was = was.as_deref().map_or_else(String::new, |was| format!(", which was {was}"));
            format!("The last rollback set {variable}={is} in {}{was}.", file.display())
        }
        Pin::Override { file, image, .. } => format!(
            "The last rollback wrote {}, which keeps {image}. Once the project's other files say a release that is neither of \
             the two, it is taken back within half a minute; then run `docker compose up -d` again (at once: `backstop unpin {}`).",
            file.display(),
            service.name
        ),
    }
}

fn next(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Vec<String> {
    let settings = &service.settings;
    match service.state {
        State::Stuck => vec!["Nothing, until a person has repaired it and typed `resume`.".to_owned()],
        State::Paused => vec![paused(service, fleet)],
        State::RollingBack => vec![format!(
            "Once the target has been started it must pass every rule for {}; only then is the rollback complete.",
            human(settings.verify)
        )],
        State::Verifying => vec![format!(
            "If it passes every rule for {} the rollback is complete; if not within {}, the next older known-good \
             release is tried, or a person is called.",
            human(settings.verify),
            human(settings.verify_timeout)
        )],
        State::AwaitingApproval => {
            vec![match service.flags.approval.as_deref().and_then(Approval::deadline) {
                Some(until) if until > fleet.at => format!(
                    "In {} it is rolled back, unless somebody says no or it is well again by then.",
                    human(until.since(fleet.at))
                ),
                _ => "It is rolled back when people say yes; nothing is done until then.".to_owned(),
            }]
        }
        State::Blind => {
            vec!["No verdict while it cannot be measured: not knowing is not failing.".to_owned()]
        }
        State::Trial | State::Steady | State::Suspect | State::CoolingDown => watching(service, fleet),
    }
}

/// The one command to type now, where one helps.
pub(super) fn next_command(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Option<String> {
    let name = &service.name;
    match service.state {
        State::Trial | State::Steady | State::CoolingDown => None,
        State::AwaitingApproval => Some(format!("backstop approve {name}, or backstop cancel {name}")),
        State::Suspect | State::RollingBack | State::Verifying | State::Blind | State::Stuck => {
            Some(format!("backstop explain {name}"))
        }
        State::Paused if is_paused(service, fleet) => Some(resume(service, fleet)),
        State::Paused => None,
    }
}

/// The commands that make sense now, the likeliest first.
pub(super) fn commands(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Vec<CommandView> {
    let unpin = service.pin.as_ref().map(|pin| CommandView {
        command: format!("backstop unpin {}", service.name),
        does: match pin {
            Pin::Variable { variable, .. } => {
                format!("gives {variable} the value that it had before the rollback")
            }
            Pin::Override { file, .. } => {
                format!("takes it out of {}, so that a fix can be deployed", file.display())
            }
        },
    });
    for_state(service, fleet).into_iter().chain(unpin).collect()
}

fn for_state(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Vec<CommandView> {
    let name = &service.name;
    let command = |command: String, does: &str| CommandView { command, does: does.to_owned() };
    let history = || command(format!("backstop history {name}"), "what was rolled back before, and why");
    let back = || {
        service.target.as_ref().map(|target| {
            command(
                format!("backstop rollback {name}"),
                &format!("shows the plan to {target}, asks, and goes"),
            )
        })
    };
    let look =
        || command(format!("backstop pause {name} --for 30m"), "keeps Backstop from acting while you look");
    match service.state {
        State::Stuck => vec![
            history(),
            command(
                format!("backstop resume {name}"),
                "once you have repaired it: Backstop judges and acts again",
            ),
        ],
        State::Paused if is_paused(service, fleet) => {
            vec![command(resume(service, fleet), "Backstop judges and acts again")]
        }
        State::Paused => vec![history()],
        State::AwaitingApproval => vec![
            command(format!("backstop approve {name}"), "rolls back at once"),
            command(format!("backstop cancel {name}"), "leaves it as it is until something else is deployed"),
            command(format!("backstop extend {name} 30m"), "puts the deadline off, where there is one"),
        ],
        State::Suspect => back().into_iter().chain([look()]).collect(),
        State::RollingBack | State::Verifying => vec![history()],
        State::Blind => back().into_iter().chain([look(), history()]).collect(),
        State::Trial | State::Steady | State::CoolingDown => {
            let plan = service
                .target
                .as_ref()
                .map(|_| command(format!("backstop plan {name}"), "what a rollback would do, step by step"));
            plan.into_iter().chain(back()).collect()
        }
    }
}

/// Somebody paused it, or all: it is not only in a window.
const fn is_paused(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> bool {
    service.flags.paused.is_some() || fleet.flags.paused.is_some()
}

fn resume(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> String {
    // Its own pause first: resuming the fleet would wake up the others too.
    if service.flags.paused.is_none() && fleet.flags.paused.is_some() {
        "backstop resume".to_owned()
    } else {
        format!("backstop resume {}", service.name)
    }
}

fn paused(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> String {
    let pause = service.flags.paused.as_ref().or(fleet.flags.paused.as_ref());
    if let (None, Some(window)) = (pause, &service.window) {
        return format!("Nothing while it is in {window}.");
    }
    match pause.and_then(|pause| pause.until) {
        Some(until) => {
            format!("Nothing for another {}, or until somebody resumes it.", human(until.since(fleet.at)))
        }
        None => "Nothing, until somebody resumes it.".to_owned(),
    }
}

fn watching(service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Vec<String> {
    let crossed: Vec<(&RowSnapshot, String)> =
        service.rows.iter().filter_map(|row| Some((row, crossed(row, service, fleet)?))).collect();
    let leads_to = |action| crossed.iter().any(|(row, _)| row.action == action);
    let on = |row: &&RowSnapshot| row.action == Action::Rollback && row.answer != RowAnswer::Off;
    let mut lines: Vec<String> = crossed.iter().map(|(_, line)| line.clone()).collect();
    if leads_to(Action::Rollback) {
        let rows: Vec<&RowSnapshot> = crossed.iter().map(|(row, _)| *row).filter(on).collect();
        lines.push(format!("Then {}.", consequence(service, &rows)));
        return lines;
    }
    if leads_to(Action::Evaluate) {
        lines.push("Then a person is told, with the numbers; nothing is rolled back by that.".to_owned());
    }
    let rows: Vec<&RowSnapshot> = service.rows.iter().filter(on).collect();
    lines.push(if rows.is_empty() {
        "No row leads to a rollback: all of them are off, or only tell a person.".to_owned()
    } else {
        format!("If a row with the action `rollback` is breached, {}.", consequence(service, &rows))
    });
    lines
}

/// What is tried before a rollback for one of these rows: the next rung of each ladder that is not at its end.
fn tried_first(service: &ServiceSnapshot, rows: &[&RowSnapshot]) -> Vec<String> {
    let current = service.current.as_ref().map(|current| &current.id);
    let next = |row: &&RowSnapshot| {
        let ladder = &service.settings.rules.iter().find(|rule| rule.name == row.rule)?.mitigations;
        let taken = service.flags.mitigated.iter();
        let taken = taken.filter(|taken| taken.rule == row.rule && Some(&taken.release) == current).count();
        Some(format!("`{}`: {}", row.rule, ladder.get(taken)?.intent()))
    };
    rows.iter().filter_map(next).collect()
}

/// What a breach of one of these rows would lead to now: the first gate that denies decides.
fn consequence(service: &ServiceSnapshot, rows: &[&RowSnapshot]) -> String {
    let denied: Option<&GateAnswer> = service.gates.iter().find(|answer| !answer.allow);
    match (denied, &service.target, service.settings.mode) {
        (Some(answer), _, _) => {
            format!("it is held by the gate `{}`: {}", answer.gate, answer.why.trim_end_matches('.'))
        }
        (None, None, _) => "it is held: there is no release to roll back to".to_owned(),
        (None, Some(target), Mode::DryRun) => {
            format!("a rollback to {target} is announced and not carried out: dry-run mode")
        }
        (None, Some(target), Mode::Act) => match tried_first(service, rows).as_slice() {
            [] => format!("it is rolled back to {target}"),
            first => format!(
                "something else is tried first ({}); if that does not help, it is rolled back to {target}",
                first.join("; ")
            ),
        },
    }
}

/// What a crossed row still wants before it is breached.
fn crossed(row: &RowSnapshot, service: &ServiceSnapshot, fleet: &FleetSnapshot) -> Option<String> {
    let leads = match row.action {
        Action::Rollback => "",
        Action::Evaluate => " (its action is `evaluate`)",
        Action::Monitor | Action::Off => return None,
    };
    match row.answer {
        RowAnswer::Breached => Some(format!("`{}` is breached{leads}.", row.rule)),
        RowAnswer::Pending => {
            let rule = service.settings.rules.iter().find(|rule| rule.name == row.rule);
            let wants = rule.map_or_else(
                || "with the next bad samples".to_owned(),
                |rule| wants(rule, row, service, fleet),
            );
            Some(format!("`{}` is breached {wants}{leads}.", row.rule))
        }
        RowAnswer::Ok | RowAnswer::NoData | RowAnswer::CannotMeasure | RowAnswer::Off => None,
    }
}

/// When a row that is pending would be breached.
fn wants(rule: &Rule, row: &RowSnapshot, service: &ServiceSnapshot, fleet: &FleetSnapshot) -> String {
    let left = row.since.map(|since| rule.sustained.saturating_sub(fleet.at.since(since)));
    let left = left.filter(|left| !left.is_zero()).map(human);
    match (rule.condition, left) {
        // Several windows side by side: the row's own time is but the longest of them.
        (Condition::ErrorRate | Condition::Latency, _) => row
            .since
            .and_then(|since| windows::due(rule, &service.settings, since, service.deployed, fleet.at))
            .unwrap_or_else(|| "with the next bad samples".to_owned()),
        (Condition::Exits, _) => "with further exits".to_owned(),
        (Condition::OomKills, _) => "with another kill".to_owned(),
        (Condition::HealthFlapping, _) => "with further failures".to_owned(),
        (Condition::UserReports, _) => "when more people report a problem".to_owned(),
        (Condition::Alerts, None) => "when further alerts fire".to_owned(),
        (_, Some(left)) => format!("if it stays crossed for another {left}"),
        (_, None) => "with the next bad samples".to_owned(),
    }
}
