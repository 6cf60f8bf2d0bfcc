//! Taking a matter on: whoever does it is written down, pagers are told, and nobody else is called.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{object, text};
use super::error::ApiError;
use super::operate::{BY_CHARS_MAX, WHY_CHARS_MAX, refused};
use super::views::AnswerView;
use super::{ApiState, find};

/// Body of `POST /api/v1/services/NAME/ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequestBody {
    /// Who takes it on; `operator` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What they are going to do, for whoever reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

pub(super) async fn ack(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<AnswerView>, ApiError> {
    let body: AckRequestBody = object(body)?;
    let service = find(&state.fleet(), &name)?.name.clone();
    let by = text("by", body.by, BY_CHARS_MAX)?;
    let by = if by.is_empty() { "operator".to_owned() } else { by };
    let why = text("why", body.why, WHY_CHARS_MAX)?;
    // On a task of its own: a client that hangs up must not leave it half said.
    let (operate, taken) = (state.operate.clone(), service.clone());
    let answer =
        tokio::spawn(async move { operate.acknowledge(&taken, by, why).await }).await.map_err(|_| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "this request met a fault in Backstop")
        })?;
    answer.map(|answer| Json(AnswerView { answer })).map_err(|why| refused(&why, Some(&service)))
}
