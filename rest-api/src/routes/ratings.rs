//! `…/{participant_id}/rating` and `/v1/sessions/{session_id}/ratings`.

use axum::extract::State;
use axum::response::Response;
use common::model::{ParticipantId, SessionId};
use serde::Deserialize;

use super::problems::{RatingProblems, SessionProblems};
use super::{ApiReply, Later, Replied, private};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query};
use crate::service::endpoints::Whose;
use crate::service::ratings::{self as service, RateBody, RatingPage};
use crate::service::{CommandContext, Nothing};
use crate::state::ApiState;

/// Rate one's call, also after leaving and after the session's end. A later rating takes the place of an earlier one.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants/{participant_id}/rating", tag = "participants",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    request_body = RateBody,
    responses(
        (status = 204, description = "Kept"),
        (status = 202, description = "Not known yet", body = Later),
        RatingProblems,
    ),
)]
pub async fn rate(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Json(body): Json<RateBody>,
) -> ApiReply<Nothing> {
    service::rate(&state, &caller, &context, Whose { session, participant }, body).await.map(Replied)
}

/// Where a page starts and how long it is.
#[derive(Debug, Deserialize)]
pub struct PageQuery {
    after: Option<ParticipantId>,
    limit: Option<u32>,
}

/// Read how participants rated a session, with what is known of their connections. Only for the API key that owns it.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/ratings", tag = "sessions",
    params(
        ("session_id" = SessionId, Path),
        ("after" = Option<ParticipantId>, Query, description = "Only participants after this one: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500, default 100", minimum = 1, maximum = 500),
    ),
    responses((status = 200, description = "One page", body = RatingPage), SessionProblems),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(session): Path<SessionId>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Response> {
    let limit = super::events::bounded("limit", page.limit.unwrap_or(100), 1, service::MAX_PAGE)?;
    Ok(private(axum::Json(service::read(&state, &caller, session, page.after, limit).await?)))
}
