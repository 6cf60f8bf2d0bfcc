//! `POST /api/v1/rollbacks/ID/checklist/ITEM` and `.../untick`: people tick off what a rollback left to them.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::Value;

use super::ApiState;
use super::auth::Caller;
use super::body::{object, text};
use super::error::ApiError;
use super::incidents::found;
use super::operate::{WHY_CHARS_MAX, who};
use super::views::{AnswerView, TickRequestBody, UntickRequestBody};
use crate::core::release::RollbackId;
use crate::core::time::human;
use crate::report::Incident;
use crate::report::checklist::{Item, Point, Tick};

pub(super) async fn tick(
    State(state): State<ApiState>,
    Path((id, name)): Path<(String, String)>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: TickRequestBody = object(body)?;
    let incident = found(&state, id.clone()).await?;
    let item = for_people(&incident, &name)?;
    let by = who(caller, body.by)?;
    let note = text("note", body.note, WHY_CHARS_MAX)?;
    let (now, point) = (state.clock.now(), item.id);
    let before = item.ticks.first().map(|first| {
        let ago = human(now.since(first.at)).to_string();
        format!("{} ticked {point} {ago} ago already", first.by)
    });
    if let (Some(before), true) = (&before, note.is_empty()) {
        return Ok(Json(AnswerView { answer: format!("{before}; nothing was changed") }));
    }
    tracing::info!(by, rollback = id, %point, note, "ticked");
    let tick = Tick { at: now, by, note };
    state.paperwork.tick(&RollbackId::new(id.clone()), point, tick).await.map_err(|why| not_kept(&why))?;
    let answer = match before {
        Some(before) => format!("{before}; what you noted is kept with it"),
        None => format!("ticked: {}; {}", item.what, left(&found(&state, id).await?)),
    };
    Ok(Json(AnswerView { answer }))
}

pub(super) async fn untick(
    State(state): State<ApiState>,
    Path((id, name)): Path<(String, String)>,
    caller: Option<Extension<Caller>>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: UntickRequestBody = object(body)?;
    let incident = found(&state, id.clone()).await?;
    let item = for_people(&incident, &name)?;
    let by = who(caller, body.by)?;
    let point = item.id;
    if item.ticks.is_empty() {
        return Ok(Json(AnswerView { answer: format!("{point} is open; nothing was changed") }));
    }
    tracing::info!(by, rollback = id, %point, "a tick was taken back");
    let now = state.clock.now();
    let undone = state.paperwork.untick(&RollbackId::new(id.clone()), point, &by, now).await;
    undone.map_err(|why| not_kept(&why))?;
    let answer = format!("open again: {}; {}", item.what, left(&found(&state, id).await?));
    Ok(Json(AnswerView { answer }))
}

/// The item of this name, if it is one that people tick.
fn for_people<'a>(incident: &'a Incident, name: &str) -> Result<&'a Item, ApiError> {
    let id = &incident.id;
    let known = Point::named(name).and_then(|point| incident.checklist.iter().find(|item| item.id == point));
    let Some(item) = known else {
        let names: Vec<&str> = incident
            .checklist
            .iter()
            .filter(|item| item.is_for_people())
            .map(|item| item.id.name())
            .collect();
        let what = format!("there is no item `{name}` on the checklist of {id}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, what).next(format!("one of: {}", names.join(", "))));
    };
    if item.is_for_people() {
        return Ok(item);
    }
    let what =
        format!("{} is done by Backstop, which nobody has to tick or can take back: {}", item.id, item.proof);
    Err(ApiError::new(StatusCode::CONFLICT, what).next(format!("backstop incident {id}")))
}

/// What is still open.
fn left(incident: &Incident) -> String {
    let open: Vec<&str> =
        incident.checklist.iter().filter(|item| !item.done).map(|item| item.id.name()).collect();
    match open.as_slice() {
        [] => "nothing is open any more".to_owned(),
        open => format!("still open: {}", open.join(", ")),
    }
}

fn not_kept(why: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("it could not be kept: {why}"))
        .next("`backstop status` shows the state of the store")
}
