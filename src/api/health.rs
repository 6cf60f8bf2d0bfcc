//! `/healthz`: does the core turn? `/readyz`: can Backstop do its work?
//!
//! Not the same question: without an engine Backstop is alive and not ready, and a restart would not help.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::ApiState;
use super::views::HealthView;
use crate::core::snapshot::FleetSnapshot;
use crate::core::time::human;
use crate::core::{EngineState, Timestamp};

/// Older than this, the picture says that the core no longer turns: it turns every few seconds.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn healthz(State(state): State<ApiState>) -> (StatusCode, Json<HealthView>) {
    answer(stalled(&state.fleet(), state.clock.now()).into_iter().collect())
}

pub(super) async fn readyz(State(state): State<ApiState>) -> (StatusCode, Json<HealthView>) {
    answer(not_ready(&state.fleet(), state.clock.now()))
}

/// Why Backstop cannot do its work; empty when it can.
pub(super) fn not_ready(fleet: &FleetSnapshot, now: Timestamp) -> Vec<String> {
    let engine = match &fleet.engine {
        Some(EngineState::Reachable { .. }) if fleet.looked => None,
        Some(EngineState::Unreachable { why }) => Some(engine_is_down(why)),
        Some(EngineState::Reachable { .. }) | None => {
            Some("the first look at the engine is not done".to_owned())
        }
    };
    let store = fleet
        .store_error
        .as_ref()
        .map(|why| format!("the store takes no writes, so no service is changed: {why}"));
    let named = fleet.engines.iter().filter_map(|engine| match &engine.state {
        Some(EngineState::Reachable { .. }) if engine.looked => None,
        Some(EngineState::Unreachable { why }) => {
            Some(format!("engine {}: {}", engine.name, engine_is_down(why)))
        }
        Some(EngineState::Reachable { .. }) | None => {
            Some(format!("the first look at the engine {} is not done", engine.name))
        }
    });
    stalled(fleet, now).into_iter().chain(engine).chain(named).chain(store).collect()
}

/// What keeps the engine from us. Reasons that name the engine themselves are whole sentences already.
pub(super) fn engine_is_down(why: &str) -> String {
    if why.starts_with("the engine") { why.to_owned() } else { format!("the engine does not answer: {why}") }
}

fn stalled(fleet: &FleetSnapshot, now: Timestamp) -> Option<String> {
    let age = now.since(fleet.at);
    (age > SNAPSHOT_AGE_MAX).then(|| format!("the core has not turned for {}", human(age)))
}

fn answer(reasons: Vec<String>) -> (StatusCode, Json<HealthView>) {
    let ok = reasons.is_empty();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(HealthView { ok, reasons }))
}
