//! Operator actions: parsed and bounded here, decided by the core. And the plan, which changes nothing.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;

use super::auth::Caller;
use super::body::{object, text};
use super::error::ApiError;
use super::views::{
    AnswerRequestBody, AnswerView, DrillView, ExtendRequestBody, PauseRequestBody, PlanView,
    ResumeRequestBody, RollbackRequestBody, UnpinRequestBody,
};
use super::{ApiState, find};
use crate::core::Command;
use crate::core::approval::{Via, Word};
use crate::core::release::ServiceName;

/// Longest reason: it goes into announcements, which chats cut off.
pub(super) const WHY_CHARS_MAX: usize = 500;

/// Longest name of a person.
pub(super) const BY_CHARS_MAX: usize = 100;

/// Longest name of a release: an image reference with a digest.
pub(super) const RELEASE_CHARS_MAX: usize = 512;

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
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: RollbackRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let command = Command::Rollback {
        to: release(body.to)?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        service: service.clone(),
        via: via(&caller),
        accept_schema: body.accept_schema,
        drill: body.drill,
    };
    carry_out(&state, command, (caller, body.by), Some(&service)).await
}

pub(super) async fn drill(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<DrillView>, ApiError> {
    let _: AnswerRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    tracing::info!(%service, "a drill was asked for");
    // On a task of its own: what it creates is removed again, whether anybody waits for it or not.
    let operate = state.operate.clone();
    let about = service.clone();
    let drilled = tokio::spawn(async move { operate.drill(&about).await }).await;
    let drilled = drilled.unwrap_or_else(|_| Err("the drill met a fault in Backstop".into()));
    let drill = drilled.map_err(|why| refused(&why, Some(&service)))?;
    state.metrics.drilled(&drill);
    if let Err(why) = state.paperwork.drilled(&drill).await {
        tracing::warn!(%service, %why, "what the drill found is not kept: `backstop status` does not tell of it");
    }
    Ok(Json((&drill).into()))
}

pub(super) async fn pause(
    State(state): State<ApiState>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: PauseRequestBody = object(body)?;
    let service = known(&state, body.service)?;
    let command = Command::Pause {
        duration: body.duration.as_deref().map(duration).transpose()?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        service: service.clone(),
    };
    carry_out(&state, command, (caller, body.by), service.as_ref()).await
}

pub(super) async fn resume(
    State(state): State<ApiState>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: ResumeRequestBody = object(body)?;
    let service = known(&state, body.service)?;
    let command = Command::Resume { service: service.clone() };
    carry_out(&state, command, (caller, body.by), service.as_ref()).await
}

pub(super) async fn unpin(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: UnpinRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    carry_out(&state, Command::Unpin { service: service.clone() }, (caller, body.by), Some(&service)).await
}

pub(super) async fn approve(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    say(&state, &name, Word::Approved, caller, body).await
}

pub(super) async fn cancel(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    say(&state, &name, Word::Refused, caller, body).await
}

async fn say(
    state: &ApiState,
    name: &str,
    word: Word,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: AnswerRequestBody = object(body)?;
    let service = find(&state.fleet(), name)?.name.clone();
    let command = Command::Answer {
        service: service.clone(),
        question: None,
        word,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        via: via(&caller),
    };
    carry_out(state, command, (caller, body.by), Some(&service)).await
}

pub(super) async fn extend(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: ExtendRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let command = Command::Extend {
        service: service.clone(),
        question: None,
        span: duration(&body.span)?,
        why: text("why", body.why, WHY_CHARS_MAX)?,
        via: via(&caller),
    };
    carry_out(&state, command, (caller, body.by), Some(&service)).await
}

pub(super) async fn carry_out(
    state: &ApiState,
    command: Command,
    (caller, by): (Option<Extension<Caller>>, Option<String>),
    service: Option<&ServiceName>,
) -> Result<Json<AnswerView>, ApiError> {
    let by = who(caller, by)?;
    match run(state, command, by).await {
        Ok(answer) => Ok(Json(AnswerView { answer })),
        Err(why) => Err(refused(&why, service)),
    }
}

/// Who it is that asks.
pub(super) fn who(caller: Option<Extension<Caller>>, by: Option<String>) -> Result<String, ApiError> {
    let by = text("by", by, BY_CHARS_MAX)?;
    Ok(match caller.and_then(|Extension(caller)| caller.person) {
        // Nobody acts in the name of somebody else with a token of their own.
        Some(person) => person,
        None if by.is_empty() => "operator".to_owned(),
        None => by,
    })
}

/// How we know who it is.
fn via(caller: &Option<Extension<Caller>>) -> Via {
    let own = caller.as_ref().is_some_and(|Extension(caller)| caller.person.is_some());
    if own { Via::Person } else { Via::Token }
}

/// Hands a command to the core and waits for its answer.
pub(super) async fn run(state: &ApiState, command: Command, by: String) -> Result<String, String> {
    tracing::info!(by, ?command, "an operator asked");
    // On a task of its own: a client that hangs up, or our own time limit, must not leave the core's answer
    // without a reader, nor a command half handed over.
    let operate = state.operate.clone();
    let asked = tokio::spawn(async move { operate.command(command, by).await });
    asked.await.unwrap_or_else(|_| Err("the command met a fault in Backstop; next: backstop status".into()))
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

pub(super) fn duration(given: &str) -> Result<Duration, ApiError> {
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
