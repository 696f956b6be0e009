//! `/v1/sessions/{session_id}/participants`.

use axum::extract::State;
use axum::response::Response;
use common::model::{ParticipantId, SessionId};

use super::problems::{JoinProblems, LeaveProblems, ParticipantProblems, ParticipantsProblems};
use super::{ApiReply, Later, Replied, private};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path};
use crate::service::participants::{self as service, IceServers, JoinSession, JoinedSession};
use crate::service::sessions::ParticipantList;
use crate::service::{CommandContext, Nothing};
use crate::state::ApiState;
use crate::view::ParticipantView;

/// Join, or join again with the same `participant_id`.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants", tag = "participants",
    params(("session_id" = SessionId, Path)),
    request_body = JoinSession,
    responses(
        (status = 201, description = "Joined", body = JoinedSession),
        (status = 202, description = "Not known yet", body = Later),
        JoinProblems,
    ),
)]
pub async fn join(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(session): Path<SessionId>,
    Json(body): Json<JoinSession>,
) -> ApiReply<JoinedSession> {
    service::join(&state, &caller, &context, session, body).await.map(Replied)
}

/// List everyone in the session.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants", tag = "participants",
    params(("session_id" = SessionId, Path)),
    responses((status = 200, description = "Everyone", body = ParticipantList), ParticipantsProblems),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Path(session): Path<SessionId>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::list(&state, &caller, session).await?)))
}

/// Read one participant: oneself, or any with an API key or `roomAdmin`.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants/{participant_id}", tag = "participants",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    responses((status = 200, description = "The participant", body = ParticipantView), ParticipantProblems),
)]
pub async fn read(
    State(state): State<ApiState>,
    caller: Caller,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::read(&state, &caller, session, participant).await?)))
}

/// Get the ICE servers with fresh credentials, before an ICE restart late in a call: oneself, or any with an API key.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants/{participant_id}/ice-servers", tag = "participants",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    responses((status = 200, description = "As in the join reply", body = IceServers), ParticipantProblems),
)]
pub async fn ice_servers(
    State(state): State<ApiState>,
    caller: Caller,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::ice_servers(&state, &caller, session, participant).await?)))
}

/// Leave; or remove somebody, with an API key or `roomAdmin`.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/participants/{participant_id}", tag = "participants",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    responses(
        (status = 204, description = "Not in the session any more"),
        (status = 202, description = "Not known yet", body = Later),
        LeaveProblems,
    ),
)]
pub async fn leave(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
) -> ApiReply<Nothing> {
    service::leave(&state, &caller, &context, session, participant).await.map(Replied)
}
