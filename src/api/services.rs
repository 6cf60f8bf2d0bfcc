//! `GET /api/v1/services` and `GET /api/v1/services/NAME`.

use axum::Json;
use axum::extract::{Path, State};

use super::error::ApiError;
use super::outlook::{commands, next_command, outlook};
use super::render::{mode, seconds, time};
use super::views::{DecisionView, LedgerView, RowView, ServiceSummary, ServiceView, ServicesView};
use super::{ApiState, find};
use crate::core::snapshot::{FleetSnapshot, ServiceSnapshot};
use crate::rollback::drill::Drill;

/// Decisions shown with a service: enough to see what led to where it is, on one screen.
const DECISIONS_MAX: u32 = 10;

pub(super) async fn list(State(state): State<ApiState>) -> Json<ServicesView> {
    let (fleet, drills) = (state.fleet(), drills(&state).await);
    let services = fleet.services.iter().map(|service| summary(service, &fleet, &drills));
    Json(ServicesView { services: services.collect() })
}

/// The last drill of each service. A store that cannot be read must not hide what the core knows.
pub(super) async fn drills(state: &ApiState) -> Vec<Drill> {
    state.history.drills().await.unwrap_or_default()
}

pub(super) async fn one(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<ServiceView>, ApiError> {
    let fleet = state.fleet();
    let service = find(&fleet, &name)?;
    let drills = drills(&state).await;
    let (decisions, decisions_error) = match state.history.decisions(&service.name, DECISIONS_MAX).await {
        Ok(decisions) => (decisions.iter().map(Into::into).collect(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Ok(Json(ServiceView { decisions, decisions_error, ..whole(service, &fleet, &drills) }))
}

pub(super) fn summary(service: &ServiceSnapshot, fleet: &FleetSnapshot, drills: &[Drill]) -> ServiceSummary {
    ServiceSummary {
        name: service.name.to_string(),
        mode: mode(service.settings.mode).to_owned(),
        state: service.state.name().to_owned(),
        since: time(service.since),
        for_seconds: seconds(fleet.at.since(service.since)),
        current: service.current.as_ref().map(Into::into),
        deployed: service.deployed.map(time),
        target: service.target.as_ref().map(Into::into),
        rollback: service.rollback.as_ref().map(|rollback| rollback.id.to_string()),
        drill: drills.iter().find(|drill| drill.service == service.name).map(Into::into),
        sentence: service.sentence.clone(),
        next: next_command(service, fleet),
    }
}

fn whole(service: &ServiceSnapshot, fleet: &FleetSnapshot, drills: &[Drill]) -> ServiceView {
    ServiceView {
        summary: summary(service, fleet, drills),
        outlook: outlook(service, fleet),
        commands: commands(service, fleet),
        rows: service.rows.iter().map(|row| RowView::new(row, &service.settings, fleet.at)).collect(),
        gates: service.gates.iter().map(Into::into).collect(),
        releases: service.ledger.iter().map(|entry| LedgerView::new(entry, service)).collect(),
        replicas: service.replicas.iter().map(Into::into).collect(),
        samples: service.samples.iter().map(Into::into).collect(),
        last_decision: service.last_decision.as_ref().map(DecisionView::from),
        decisions: Vec::new(),
        decisions_error: None,
        in_flight: service.rollback.as_ref().map(Into::into),
        flags: (&service.flags).into(),
        approval: service.flags.approval.as_deref().map(Into::into),
        window: service.window.as_ref().map(Into::into),
        settings: service.settings.as_ref().into(),
    }
}
