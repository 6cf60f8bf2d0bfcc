//! `GET /api/v1/status`: the whole fleet, and what needs a person first.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::health::{engine_is_down, not_ready};
use super::render::time;
use super::services::{drills, summary};
use super::views::{AttentionView, ConfigView, EngineView, StatusView, StoreView};
use super::{ApiState, ConfigState, is_about_a_label};
use crate::config::DEFAULT_FILE;
use crate::core::approval::time_of_day;
use crate::core::ledger::Standing;
use crate::core::observation::{Phase, Refusal};
use crate::core::settings::{Action, Mode, Severity};
use crate::core::snapshot::{FleetSnapshot, RowAnswer, RowSnapshot, ServiceSnapshot, State as ServiceState};
use crate::core::time::human;
use crate::core::{EngineState, Timestamp};
use crate::rollback::drill::Drill;

/// A trial that is over and proved nothing for so long is spoken of, as in the announcement.
const UNPROVED_SAID: Duration = Duration::from_secs(5 * 60);

pub(super) async fn status(State(state): State<ApiState>) -> Json<StatusView> {
    let fleet = state.fleet();
    let drills = drills(&state).await;
    let config = state.config.borrow().clone();
    Json(render(&fleet, &config, &drills, state.clock.now()))
}

fn render(fleet: &FleetSnapshot, config: &ConfigState, drills: &[Drill], now: Timestamp) -> StatusView {
    let not_ready = not_ready(fleet, now);
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: fleet.settings.environment.clone(),
        at: time(fleet.at),
        ready: not_ready.is_empty(),
        not_ready,
        engine: engine(fleet.engine.as_ref()),
        engines: fleet.engines.iter().map(|e| (e.name.clone(), engine(e.state.as_ref()))).collect(),
        store: StoreView { writable: fleet.store_error.is_none(), error: fleet.store_error.clone() },
        config: ConfigView {
            last_reload_ok: config.last_reload_ok,
            error: config.error.clone(),
            loaded_at: time(config.loaded_at),
        },
        fleet: (&fleet.flags).into(),
        services: fleet.services.iter().map(|service| summary(service, fleet, drills)).collect(),
        refused: fleet.refused.iter().map(Into::into).collect(),
        attention: attention(fleet, config, drills),
    }
}

fn engine(state: Option<&EngineState>) -> EngineView {
    match state {
        None => EngineView { reachable: None, error: None },
        Some(EngineState::Reachable { .. }) => EngineView { reachable: Some(true), error: None },
        Some(EngineState::Unreachable { why }) => {
            EngineView { reachable: Some(false), error: Some(why.clone()) }
        }
    }
}

/// What needs a person, the most urgent first: what is down, what keeps Backstop from acting at all, what is wrong and
/// is not acted on, what a person is asked about, and then what is wanting before it is needed. A service is told of
/// once, by what is worst about it.
fn attention(fleet: &FleetSnapshot, config: &ConfigState, drills: &[Drill]) -> Vec<AttentionView> {
    let stuck = fleet.services.iter().filter(|s| s.state == ServiceState::Stuck).map(|s| {
        let what = s.flags.stuck.clone().unwrap_or_else(|| s.sentence.clone());
        about(s, what)
    });
    let blind = fleet
        .services
        .iter()
        .filter(|s| s.state == ServiceState::Blind)
        .map(|s| about(s, s.sentence.clone()));
    let services = || fleet.services.iter();
    let mut told = BTreeSet::new();
    stuck
        .chain(services().filter_map(waits))
        .chain(daemon(fleet, config))
        .chain(by_severity(services().filter_map(held)))
        .chain(by_severity(services().filter_map(asked)))
        .chain(blind)
        .chain(services().filter_map(|service| unproved(service, fleet.at)))
        .chain(fleet.refused.iter().map(refused))
        .chain(services().filter_map(quarantined_runs))
        .chain(services().filter_map(paused_for_good))
        .chain(services().filter_map(|service| wanting(service, drills, fleet.at)))
        .filter(|item| item.service.as_ref().is_none_or(|service| told.insert(service.clone())))
        .collect()
}

/// Whoever looks at one service next sees everything about it, with the commands that help.
fn about(service: &ServiceSnapshot, what: String) -> AttentionView {
    let next = Some(format!("backstop explain {}", service.name));
    AttentionView { service: Some(service.name.to_string()), what, next }
}

/// What the last drill of what runs found missing.
fn wanting(service: &ServiceSnapshot, drills: &[Drill], now: Timestamp) -> Option<AttentionView> {
    let of =
        |drill: &&Drill| drill.service == service.name && service.deployed.is_none_or(|at| drill.at >= at);
    let drill = drills.iter().find(of).filter(|drill| !drill.is_ready())?;
    let missing: Vec<String> = drill.missing().map(ToString::to_string).collect();
    Some(AttentionView {
        service: Some(service.name.to_string()),
        what: format!("its drill {} ago found missing: {}", human(now.since(drill.at)), missing.join("; ")),
        next: Some(format!("backstop drill {}", service.name)),
    })
}

/// People are asked about it.
fn waits(service: &ServiceSnapshot) -> Option<AttentionView> {
    let approval = service.flags.approval.as_deref().filter(|approval| approval.is_open())?;
    let until = approval.deadline().map_or_else(
        || "waits for an answer".to_owned(),
        |until| format!("is rolled back at {} unless somebody says no", time_of_day(until)),
    );
    let name = &service.name;
    Some(AttentionView {
        service: Some(name.to_string()),
        what: format!("{until}: {}", approval.decision.reason),
        next: Some(format!("backstop approve {name}, or backstop cancel {name}")),
    })
}

/// The most severe first; services of one severity by name, as they are.
fn by_severity(
    found: impl Iterator<Item = (Severity, AttentionView)>,
) -> impl Iterator<Item = AttentionView> {
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(severity, _)| Reverse(*severity));
    found.into_iter().map(|(_, item)| item)
}

/// The worst of the breached rows with this action.
fn breached(service: &ServiceSnapshot, action: Action) -> Option<&RowSnapshot> {
    let rows = service.rows.iter().filter(|row| row.action == action && row.answer == RowAnswer::Breached);
    rows.min_by_key(|row| Reverse(row.severity))
}

fn refused(refusal: &Refusal) -> AttentionView {
    let labels = format!("docker inspect --format '{{{{json .Config.Labels}}}}' {}", refusal.container);
    let is_label = refusal.problems.iter().any(|problem| is_about_a_label(problem));
    AttentionView {
        service: Some(refusal.service.to_string()),
        what: format!("not watched: {}", refusal.problems.join("; ")),
        next: Some(if is_label { labels } else { format!("backstop explain {}", refusal.service) }),
    }
}

/// What keeps the whole daemon from acting.
fn daemon(fleet: &FleetSnapshot, config: &ConfigState) -> impl Iterator<Item = AttentionView> {
    let item = |what: String, next: &str| AttentionView { service: None, what, next: Some(next.to_owned()) };
    let breaker = fleet.flags.stuck.as_ref().map(|why| item(why.clone(), "backstop resume"));
    let store = fleet.store_error.as_ref().map(|why| {
        item(format!("the store takes no writes, so no service is changed: {why}"), "df -h /var/lib/backstop")
    });
    let engine = match &fleet.engine {
        Some(EngineState::Unreachable { why }) => Some(item(engine_is_down(why), "systemctl status docker")),
        Some(EngineState::Reachable { .. }) | None => None,
    };
    let config = (!config.last_reload_ok).then(|| {
        let why = config.error.as_deref().unwrap_or("no reason was given");
        let what = format!("the new configuration is not in force, the one before it is: {why}");
        item(what, &check_config(why))
    });
    let paused = fleet.flags.paused.as_ref().filter(|pause| pause.until.is_none()).map(|pause| {
        item(format!("everything is paused until somebody resumes it (by {})", pause.by), "backstop resume")
    });
    let named = fleet.engines.iter().filter_map(|engine| match &engine.state {
        Some(EngineState::Unreachable { why }) => {
            let what =
                format!("the engine {} does not answer, none of its services is seen: {why}", engine.name);
            Some(AttentionView { service: None, what, next: None })
        }
        Some(EngineState::Reachable { .. }) | None => None,
    });
    [breaker, store, engine].into_iter().flatten().chain(named).chain([config, paused].into_iter().flatten())
}

/// A row is breached that leads to a rollback, and there is none: what stands against it.
fn held(service: &ServiceSnapshot) -> Option<(Severity, AttentionView)> {
    if service.rollback.is_some() {
        return None;
    }
    let row = breached(service, Action::Rollback)?;
    // The gates are asked about the first row that is breached; what was decided may speak of another one.
    let first = service.rows.iter().find(|row| row.answer == RowAnswer::Breached);
    let decided = service.last_decision.as_ref().filter(|last| last.rule.as_ref() == Some(&row.rule));
    let decided = decided.filter(|_| first.is_some_and(|first| first.rule != row.rule));
    let gates = decided.map_or(&service.gates, |last| &last.gates);
    let denied = gates.iter().find(|answer| !answer.allow);
    let why = match (denied, service.settings.mode) {
        (Some(denied), _) => format!("{} (gate `{}`)", denied.why, denied.gate),
        (None, Mode::DryRun) => "dry-run mode, so a rollback is only announced".to_owned(),
        // It is rolled back in the next turn.
        (None, Mode::Act) => return None,
    };
    let what = format!("`{}` is breached: {}; not rolled back: {why}", row.rule, row.value);
    Some((row.severity, about(service, what)))
}

/// A row is breached that leaves it to a person to judge.
fn asked(service: &ServiceSnapshot) -> Option<(Severity, AttentionView)> {
    let row = breached(service, Action::Evaluate)?;
    let what = format!("a person should judge it, `{}` is breached: {}", row.rule, row.value);
    Some((row.severity, about(service, what)))
}

/// A trial that does not end, because something vouches for nothing: by then a rollback may be needed that has no
/// target. While a trial lasts, having none is nothing to be told of.
fn unproved(service: &ServiceSnapshot, now: Timestamp) -> Option<AttentionView> {
    let runs = !service.replicas.is_empty() && service.replicas.iter().all(|r| r.phase == Phase::Running);
    let ends = service.deployed? + service.settings.trial + UNPROVED_SAID;
    let waits = service.state == ServiceState::Trial && runs && now > ends;
    waits.then(|| about(service, service.sentence.clone()))
}

/// A release that was rolled back before runs again.
fn quarantined_runs(service: &ServiceSnapshot) -> Option<AttentionView> {
    let current = service.current.as_ref()?;
    let entry = service.ledger.iter().find(|entry| entry.release.id == current.id)?;
    match &entry.standing {
        Standing::Quarantined { why, .. } => {
            Some(about(service, format!("{current} runs, which was rolled back before: {why}")))
        }
        Standing::Trial | Standing::KnownGood { .. } => None,
    }
}

/// A pause without an end is forgotten easily.
fn paused_for_good(service: &ServiceSnapshot) -> Option<AttentionView> {
    let pause = service.flags.paused.as_ref().filter(|pause| pause.until.is_none())?;
    let why = if pause.why.is_empty() { String::new() } else { format!(": {}", pause.why) };
    Some(AttentionView {
        next: Some(format!("backstop resume {}", service.name)),
        ..about(service, format!("paused until somebody resumes it (by {}{why})", pause.by))
    })
}

/// How the configuration is checked that a daemon with other files was given: they are named in what is wrong with it.
fn check_config(error: &str) -> String {
    let named = error.lines().filter_map(|line| line.split_once(':')).map(|(place, _)| Path::new(place));
    let mut files = named.filter(|place| place.is_absolute() && place.extension().is_some());
    let in_drop_in = |file: &Path| file.parent().is_some_and(|folder| folder.ends_with("conf.d"));
    let file = files.find(|file| !in_drop_in(file) && *file != Path::new(DEFAULT_FILE));
    file.map_or_else(
        || "backstop check-config".to_owned(),
        |file| format!("backstop check-config --config {}", file.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_was_given_is_checked() {
        let said = |error: &str| check_config(error);
        assert_eq!(
            said("/srv/b.toml:2:1: defaults.trail: there is no such setting"),
            "backstop check-config --config /srv/b.toml"
        );
        assert_eq!(said("/srv/b.yaml: cannot be read"), "backstop check-config --config /srv/b.yaml");
        assert_eq!(said("/etc/backstop/backstop.toml:2:1: defaults.trail: no"), "backstop check-config");
        assert_eq!(said("/etc/backstop/conf.d/a.toml:2:1: defaults.trail: no"), "backstop check-config");
        assert_eq!(said("environment variable BACKSTOP_MODE: mode: no"), "backstop check-config");
    }
}
