//! `/v1/sessions/{session_id}/timeline`.

use axum::extract::State;
use axum::response::Response;
use common::model::SessionId;
use serde::Deserialize;

use super::private;
use super::problems::SessionProblems;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::service::timeline::{self as service, TimelinePage};
use crate::state::ApiState;

/// Where a page starts and how long it is.
#[derive(Debug, Deserialize)]
pub struct TimelineQuery {
    after: Option<u32>,
    limit: Option<u32>,
}

/// Read what happened in a session, numbered, with causes. Only for the API key that owns it.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/timeline", tag = "sessions",
    params(
        ("session_id" = SessionId, Path),
        ("after" = Option<u32>, Query, description = "Only entries behind this number: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500, default 100", minimum = 1, maximum = 500),
    ),
    responses((status = 200, description = "One page", body = TimelinePage), SessionProblems),
)]
pub async fn read(
    State(state): State<ApiState>,
    caller: Caller,
    Path(session): Path<SessionId>,
    Query(page): Query<TimelineQuery>,
) -> ApiResult<Response> {
    let limit = super::events::bounded("limit", page.limit.unwrap_or(100), 1, service::MAX_PAGE)?;
    let after = i64::from(page.after.unwrap_or(0));
    Ok(private(axum::Json(service::read(&state, &caller, session, after, limit).await?)))
}
