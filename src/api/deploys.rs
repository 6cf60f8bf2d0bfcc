//! `POST /hooks/deploy`: whoever deploys says what they deploy. And quarantine: what was rolled back, listed and released.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::Value;

use super::auth::Caller;
use super::body::{object, text};
use super::error::ApiError;
use super::operate::{RELEASE_CHARS_MAX, WHY_CHARS_MAX, carry_out};
use super::render::time;
use super::views::{AnswerView, DeployRequestBody, QuarantineView, QuarantinedView, ReleaseQuarantineBody};
use super::{ApiState, Intake, find};
use crate::core::Command;
use crate::core::ledger::{DeployNote, Standing};

/// Longest commit, name of an author, or address of a pipeline.
const ORIGIN_CHARS_MAX: usize = 300;

pub(super) async fn deploy(
    State(intake): State<Intake>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: DeployRequestBody = object(body)?;
    let state = &intake.api;
    let service = find(&state.fleet(), &body.service)?.name.clone();
    let release = text("release", Some(body.release), RELEASE_CHARS_MAX)?;
    if release.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "`release` is empty").next(
            "send what is deployed, as in `{\"service\": \"api\", \"release\": \"registry.example.com/api:v2\"}`",
        ));
    }
    let origin = |field, given: Option<String>| {
        text(field, given, ORIGIN_CHARS_MAX).map(|text| Some(text).filter(|text| !text.is_empty()))
    };
    let note = DeployNote {
        release,
        commit: origin("commit", body.commit)?,
        author: origin("author", body.author)?,
        url: origin("url", body.url)?,
        schema: body.schema,
        ..DeployNote::default()
    };
    let command = Command::Deploying { service: service.clone(), note };
    let by = Some("deploy hook".to_owned());
    carry_out(state, command, (caller, body.by.or(by)), Some(&service)).await
}

pub(super) async fn quarantine(State(state): State<ApiState>) -> Json<QuarantineView> {
    let fleet = state.fleet();
    let all = fleet.services.iter().flat_map(|service| {
        service.ledger.iter().filter_map(|entry| match &entry.standing {
            Standing::Quarantined { since, why } => Some(QuarantinedView {
                service: service.name.to_string(),
                release: (&entry.release).into(),
                since: time(*since),
                why: why.clone(),
                current: service.current.as_ref().is_some_and(|current| current.id == entry.release.id),
            }),
            Standing::Trial | Standing::KnownGood { .. } => None,
        })
    });
    Json(QuarantineView { releases: all.collect() })
}

pub(super) async fn unquarantine(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: ReleaseQuarantineBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let command = Command::Unquarantine {
        service: service.clone(),
        release: text("release", Some(body.release), RELEASE_CHARS_MAX)?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
    };
    carry_out(&state, command, (caller, body.by), Some(&service)).await
}
