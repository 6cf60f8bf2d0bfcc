//! `GET /api/v1/rollbacks` and `GET /api/v1/rollbacks/ID`: the rollback log, page by page.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::ApiError;
use super::render::time;
use super::views::{JournalLineView, RollbackDetailView, RollbacksView};
use crate::core::release::{RollbackId, ServiceName};

/// Rollbacks on a page unless asked otherwise: one screen.
const LIMIT_DEFAULT: u32 = 20;

/// Most rollbacks on a page: each is a few kilobytes with its gates.
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    service: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(state): State<ApiState>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<RollbacksView>, ApiError> {
    let Query(page) = page?;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let error = format!("`limit={limit}` is not between 1 and {LIMIT_MAX}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error)
            .next("ask for further pages with `before=`, the `next_before` of the page before"));
    }
    // An empty `service=` is what a form sends for "all"; a service that is gone still has its history.
    let service = page.service.filter(|name| !name.is_empty()).map(ServiceName::new);
    let before = page.before.filter(|id| !id.is_empty()).map(RollbackId::new);
    let records = state
        .history
        .rollbacks(service.as_ref(), before.as_ref(), limit)
        .await
        .map_err(|why| ApiError::store(&why))?;
    let full = u32::try_from(records.len()).is_ok_and(|found| found >= limit);
    Ok(Json(RollbacksView {
        next_before: records.last().filter(|_| full).map(|record| record.id.to_string()),
        rollbacks: records.iter().map(Into::into).collect(),
    }))
}

pub(super) async fn one(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<RollbackDetailView>, ApiError> {
    let id = RollbackId::new(id);
    let record = state.history.rollback(&id).await.map_err(|why| ApiError::store(&why))?;
    let Some(record) = record else {
        let error = format!("there is no rollback `{id}`");
        return Err(
            ApiError::new(StatusCode::NOT_FOUND, error).next("`backstop history` lists the rollbacks")
        );
    };
    let (journal, journal_error) = match state.history.journal(&id).await {
        Ok(lines) => (lines, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Ok(Json(RollbackDetailView {
        rollback: (&record).into(),
        journal: journal
            .into_iter()
            .map(|line| JournalLineView { at: time(line.at), what: line.what })
            .collect(),
        journal_error,
    }))
}
