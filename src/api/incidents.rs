//! `GET /api/v1/rollbacks/ID/report`, `.../report.html` and `.../report.md`: the incident report of a rollback.
//!
//! With the operators' token: it holds log lines of the service, and what looks like a secret in them is only found as far
//! as it can be told.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use crate::core::release::RollbackId;
use crate::report::{Incident, html, markdown};

pub(super) async fn found(state: &ApiState, id: String) -> Result<Incident, ApiError> {
    let incident = state.history.incident(&RollbackId::new(id.clone())).await;
    incident.map_err(|why| ApiError::store(&why))?.ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, format!("there is no rollback `{id}`"))
            .next("`backstop history` lists the rollbacks")
    })
}

pub(super) async fn as_json(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Incident>, ApiError> {
    found(&state, id).await.map(Json)
}

pub(super) async fn as_html(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let page = html::write(&found(&state, id).await?);
    let page = page.map_err(|why| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the report cannot be written: {why}"))
    })?;
    let policy = format!("{}; frame-ancestors 'none'", *html::POLICY);
    let headers: [(HeaderName, String); 2] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    Ok((headers, page).into_response())
}

pub(super) async fn as_markdown(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let text = markdown::write(&found(&state, id).await?);
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], text).into_response())
}
