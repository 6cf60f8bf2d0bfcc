//! Operator actions: parsed and bounded here, decided by the core. And the plan, which changes nothing.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::body::{object, text};
use super::error::ApiError;
use super::views::{
    AnswerView, PauseRequestBody, PlanView, ResumeRequestBody, RollbackRequestBody, UnpinRequestBody,
};
use super::{ApiState, find};
use crate::core::Command;
use crate::core::release::ServiceName;

/// Longest reason: it goes into announcements, which chats cut off.
pub(super) const WHY_CHARS_MAX: usize = 500;

/// Longest name of a person.
pub(super) const BY_CHARS_MAX: usize = 100;

/// Longest name of a release: an image reference with a digest.
const RELEASE_CHARS_MAX: usize = 512;

/// Longest pause. What should not be watched for longer than a month should not be enrolled.
const PAUSE_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    to: Option<String>,
}

pub(super) async fn plan(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    to: Result<Query<To>, QueryRejection>,
) -> Result<Json<PlanView>, ApiError> {
    let Query(To { to }) = to?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let to = release(to)?;
    let planned =
        state.operate.plan(&service, to.as_deref()).await.map_err(|why| refused(&why, Some(&service)))?;
    Ok(Json(PlanView {
        service: service.to_string(),
        from: planned.from.as_ref().map(Into::into),
        to: (&planned.to).into(),
        steps: planned.steps,
        notes: planned.notes,
        order: planned.order,
    }))
}

pub(super) async fn rollback(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: RollbackRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let command = Command::Rollback {
        to: release(body.to)?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        service: service.clone(),
    };
    carry_out(&state, command, body.by, Some(&service)).await
}

pub(super) async fn pause(
    State(state): State<ApiState>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: PauseRequestBody = object(body)?;
    let service = known(&state, body.service)?;
    let command = Command::Pause {
        duration: body.duration.as_deref().map(duration).transpose()?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        service: service.clone(),
    };
    carry_out(&state, command, body.by, service.as_ref()).await
}

pub(super) async fn resume(
    State(state): State<ApiState>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: ResumeRequestBody = object(body)?;
    let service = known(&state, body.service)?;
    let command = Command::Resume { service: service.clone() };
    carry_out(&state, command, body.by, service.as_ref()).await
}

pub(super) async fn unpin(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: UnpinRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    carry_out(&state, Command::Unpin { service: service.clone() }, body.by, Some(&service)).await
}

async fn carry_out(
    state: &ApiState,
    command: Command,
    by: Option<String>,
    service: Option<&ServiceName>,
) -> Result<Json<AnswerView>, ApiError> {
    let by = text("by", by, BY_CHARS_MAX)?;
    let by = if by.is_empty() { "operator".to_owned() } else { by };
    tracing::info!(by, ?command, "an operator asked");
    // On a task of its own: a client that hangs up, or our own time limit, must not leave the core's answer
    // without a reader, nor a command half handed over.
    let operate = state.operate.clone();
    let answer = tokio::spawn(async move { operate.command(command, by).await }).await.map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the command met a fault in Backstop")
    })?;
    match answer {
        Ok(answer) => Ok(Json(AnswerView { answer })),
        Err(why) => Err(refused(&why, service)),
    }
}

/// The core's refusal. Where its sentence ends with the next command, that command gets its own field.
pub(super) fn refused(why: &str, service: Option<&ServiceName>) -> ApiError {
    let (why, next) = match why.rsplit_once("; next: ") {
        Some((why, next)) => (why, next.to_owned()),
        None => (
            why,
            service.map_or_else(|| "backstop status".to_owned(), |name| format!("backstop explain {name}")),
        ),
    };
    ApiError::new(StatusCode::CONFLICT, why).next(next)
}

fn known(state: &ApiState, name: Option<String>) -> Result<Option<ServiceName>, ApiError> {
    name.map(|name| Ok(find(&state.fleet(), &name)?.name.clone())).transpose()
}

fn release(to: Option<String>) -> Result<Option<String>, ApiError> {
    let to = text("to", to, RELEASE_CHARS_MAX)?;
    Ok((!to.is_empty()).then_some(to))
}

fn duration(given: &str) -> Result<Duration, ApiError> {
    let wrong = |what: String| {
        ApiError::new(StatusCode::BAD_REQUEST, what)
            .next("right would be `30m`, `2h` or `1day`; leave it out to pause until resumed")
    };
    let span = humantime::parse_duration(given.trim())
        .map_err(|why| wrong(format!("`duration` is not a duration: `{given}`: {why}")))?;
    if span.is_zero() || span > PAUSE_MAX {
        return Err(wrong(format!("`duration` is not between 1s and 31days: `{given}`")));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_people_write_them() {
        assert_eq!(duration("30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(duration(" 2h ").unwrap(), Duration::from_secs(7200));
        for bad in ["", "30", "soon", "0s", "32days", "-1h"] {
            let error = duration(bad).unwrap_err();
            assert!(error.error.contains("`duration`"), "{bad}: {error:?}");
            assert!(error.next.unwrap().contains("30m"));
        }
    }
}
