//! `…/{participant_id}/token`.

use axum::extract::State;
use axum::response::Response;
use common::model::{ParticipantId, SessionId};

use super::private;
use super::problems::TokenProblems;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path};
use crate::service::endpoints::Whose;
use crate::service::tokens::{self as service, RefreshToken, RefreshedToken};
use crate::state::ApiState;

/// Another participant token, before the one there is expires.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants/{participant_id}/token", tag = "participants",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    request_body = RefreshToken,
    responses((status = 200, description = "The token", body = RefreshedToken), TokenProblems),
)]
pub async fn refresh(
    State(state): State<ApiState>,
    caller: Caller,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Json(body): Json<RefreshToken>,
) -> ApiResult<Response> {
    let whose = Whose { session, participant };
    Ok(private(axum::Json(service::refresh(&state, &caller, whose, body).await?)))
}
