//! `/v1/admin`: what the admin page reads, for operators.

use axum::extract::State;
use axum::response::Response;
use common::model::{SessionId, WorkerId};
use http::StatusCode;
use serde::Deserialize;

use super::private;
use super::problems::{OperatorTokenProblems, SearchProblems, SessionProblems};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query};
use crate::origin::PublicUrl;
use crate::service::admin::{
    self as service, CreateOperatorToken, OperatorToken, SessionDetail, SummaryPage, Wanted,
};
use crate::state::ApiState;

/// Make a token for the admin page. Only for API keys that are operators; browsers get this token, never the key.
#[utoipa::path(
    post, path = "/v1/admin/tokens", tag = "admin",
    request_body = CreateOperatorToken,
    responses((status = 201, description = "Made", body = OperatorToken), OperatorTokenProblems),
)]
pub async fn create_token(
    State(state): State<ApiState>,
    caller: Caller,
    PublicUrl(public_url): PublicUrl,
    Json(body): Json<CreateOperatorToken>,
) -> ApiResult<Response> {
    let made = service::token(&state, &caller, &public_url, &body)?;
    Ok(private((StatusCode::CREATED, axum::Json(made))))
}

/// Whether closed sessions are listed too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    #[default]
    Open,
    Any,
}

/// Which sessions, where a page starts and how long it is.
#[derive(Debug, Deserialize)]
pub struct SessionsQuery {
    search: Option<String>,
    worker_id: Option<WorkerId>,
    #[serde(default)]
    state: Listed,
    after: Option<SessionId>,
    limit: Option<u32>,
}

/// List sessions of all API keys, by id (the oldest first). Only for operators.
#[utoipa::path(
    get, path = "/v1/admin/sessions", tag = "admin",
    params(
        ("search" = Option<String>, Query, max_length = 256,
            description = "Only with this text in the id or name, of the session or of somebody in it, in whatever case"),
        ("worker_id" = Option<WorkerId>, Query, description = "Only those of which this worker hosts something"),
        ("state" = Option<String>, Query, description = "`open` (default), or `any`: closed ones too, while their record is kept"),
        ("after" = Option<SessionId>, Query, description = "Only ids after this one: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 200, default 50", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "One page", body = SummaryPage), SearchProblems),
)]
pub async fn sessions(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> ApiResult<Response> {
    let limit = super::events::bounded("limit", query.limit.unwrap_or(50), 1, service::MAX_PAGE)?;
    let SessionsQuery { search, worker_id, after, .. } = query;
    let wanted = Wanted { search, worker_id, closed_too: query.state == Listed::Any, after, limit };
    Ok(private(axum::Json(service::sessions(&state, &caller, wanted).await?)))
}

/// Read a session with where each part of it lives. Only for operators.
#[utoipa::path(
    get, path = "/v1/admin/sessions/{session_id}", tag = "admin",
    params(("session_id" = SessionId, Path)),
    responses((status = 200, description = "The session", body = SessionDetail), SessionProblems),
)]
pub async fn session(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<SessionId>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::session(&state, &caller, id).await?)))
}
