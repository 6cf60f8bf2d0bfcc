//! `GET /api/v1/status`: the whole fleet, and what needs a person first.

use axum::Json;
use axum::extract::State;

use super::health::{engine_is_down, not_ready};
use super::render::time;
use super::services::summary;
use super::views::{AttentionView, ConfigView, EngineView, StatusView, StoreView};
use super::{ApiState, ConfigState};
use crate::core::ledger::Standing;
use crate::core::settings::Action;
use crate::core::snapshot::{FleetSnapshot, RowAnswer, RowSnapshot, ServiceSnapshot, State as ServiceState};
use crate::core::{EngineState, Timestamp};

pub(super) async fn status(State(state): State<ApiState>) -> Json<StatusView> {
    let fleet = state.fleet();
    let config = state.config.borrow().clone();
    Json(render(&fleet, &config, state.clock.now()))
}

fn render(fleet: &FleetSnapshot, config: &ConfigState, now: Timestamp) -> StatusView {
    let not_ready = not_ready(fleet, now);
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        environment: fleet.settings.environment.clone(),
        at: time(fleet.at),
        ready: not_ready.is_empty(),
        not_ready,
        engine: match &fleet.engine {
            None => EngineView { reachable: None, error: None },
            Some(EngineState::Reachable { .. }) => EngineView { reachable: Some(true), error: None },
            Some(EngineState::Unreachable { why }) => {
                EngineView { reachable: Some(false), error: Some(why.clone()) }
            }
        },
        store: StoreView { writable: fleet.store_error.is_none(), error: fleet.store_error.clone() },
        config: ConfigView {
            last_reload_ok: config.last_reload_ok,
            error: config.error.clone(),
            loaded_at: time(config.loaded_at),
        },
        fleet: (&fleet.flags).into(),
        services: fleet.services.iter().map(|service| summary(service, fleet)).collect(),
        refused: fleet.refused.iter().map(Into::into).collect(),
        attention: attention(fleet, config),
    }
}

/// What needs a person, the most urgent first: what is down, then what keeps Backstop from acting, then what is
/// wanting before it is needed.
fn attention(fleet: &FleetSnapshot, config: &ConfigState) -> Vec<AttentionView> {
    let stuck = fleet.services.iter().filter(|s| s.state == ServiceState::Stuck).map(|s| {
        let what = s.flags.stuck.clone().unwrap_or_else(|| s.sentence.clone());
        about(s, what, Some(format!("backstop explain {}", s.name)))
    });
    let blind = fleet
        .services
        .iter()
        .filter(|s| s.state == ServiceState::Blind)
        .map(|s| about(s, s.sentence.clone(), Some(format!("backstop explain {}", s.name))));
    let refused = fleet.refused.iter().map(|refusal| AttentionView {
        service: Some(refusal.service.to_string()),
        what: format!("not watched: {}", refusal.problems.join("; ")),
        next: Some(format!("docker inspect --format '{{{{json .Config.Labels}}}}' {}", refusal.container)),
    });
    stuck
        .chain(daemon(fleet, config))
        .chain(fleet.services.iter().filter_map(asked))
        .chain(blind)
        .chain(refused)
        .chain(fleet.services.iter().filter_map(quarantined_runs))
        .chain(fleet.services.iter().filter_map(paused_for_good))
        .chain(fleet.services.iter().filter_map(no_target))
        .collect()
}

fn about(service: &ServiceSnapshot, what: String, next: Option<String>) -> AttentionView {
    AttentionView { service: Some(service.name.to_string()), what, next }
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
        item(
            format!("the new configuration is not in force, the one before it is: {why}"),
            "backstop check-config",
        )
    });
    let paused = fleet.flags.paused.as_ref().filter(|pause| pause.until.is_none()).map(|pause| {
        item(format!("everything is paused until somebody resumes it (by {})", pause.by), "backstop resume")
    });
    [breaker, store, engine, config, paused].into_iter().flatten()
}

/// A row is breached that leaves it to a person to judge.
fn asked(service: &ServiceSnapshot) -> Option<AttentionView> {
    let asks = |row: &&RowSnapshot| row.action == Action::Evaluate && row.answer == RowAnswer::Breached;
    let row = service.rows.iter().find(asks)?;
    let what = format!("a person should judge it, `{}` is breached: {}", row.rule, row.value);
    Some(about(service, what, Some(format!("backstop explain {}", service.name))))
}

/// A release that was rolled back before runs again.
fn quarantined_runs(service: &ServiceSnapshot) -> Option<AttentionView> {
    let current = service.current.as_ref()?;
    let entry = service.ledger.iter().find(|entry| entry.release.id == current.id)?;
    match &entry.standing {
        Standing::Quarantined { why, .. } => Some(about(
            service,
            format!("{current} runs, which was rolled back before: {why}"),
            Some(format!("backstop explain {}", service.name)),
        )),
        Standing::Trial | Standing::KnownGood { .. } => None,
    }
}

/// A pause without an end is forgotten easily.
fn paused_for_good(service: &ServiceSnapshot) -> Option<AttentionView> {
    let pause = service.flags.paused.as_ref().filter(|pause| pause.until.is_none())?;
    let why = if pause.why.is_empty() { String::new() } else { format!(": {}", pause.why) };
    Some(about(
        service,
        format!("paused until somebody resumes it (by {}{why})", pause.by),
        Some(format!("backstop resume {}", service.name)),
    ))
}

/// Nothing to roll back to: said before it is needed. A known-good release running alone needs none yet.
fn no_target(service: &ServiceSnapshot) -> Option<AttentionView> {
    if service.target.is_some() || service.rollback.is_some() {
        return None;
    }
    let current = service.current.as_ref()?;
    let proved = service
        .ledger
        .iter()
        .any(|entry| entry.release.id == current.id && matches!(entry.standing, Standing::KnownGood { .. }));
    (!proved).then(|| {
        about(service, "there is no release to roll back to: none has proved itself yet".to_owned(), None)
    })
}
