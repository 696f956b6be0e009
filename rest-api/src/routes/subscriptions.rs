//! `…/{participant_id}/subscriptions/{track_id}`.

use axum::extract::State;
use common::model::{ParticipantId, SessionId, TrackId};

use super::problems::TrackProblems;
use super::{ApiReply, Later, Replied};
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::service::endpoints::{self as service, ChangeSubscription, Whose};
use crate::service::{CommandContext, Nothing};
use crate::state::ApiState;

/// Pause a subscribed track, or limit its quality. Each request says everything: what is absent is not limited.
#[utoipa::path(
    patch, path = "/v1/sessions/{session_id}/participants/{participant_id}/subscriptions/{track_id}",
    tag = "tracks",
    params(
        ("session_id" = SessionId, Path),
        ("participant_id" = ParticipantId, Path, description = "Who subscribes"),
        ("track_id" = TrackId, Path),
    ),
    request_body = ChangeSubscription,
    responses(
        (status = 204, description = "It is so, or will be from the next keyframe on"),
        (status = 202, description = "Not known yet", body = Later),
        TrackProblems,
    ),
)]
pub async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant, track)): Path<(SessionId, ParticipantId, TrackId)>,
    Json(body): Json<ChangeSubscription>,
) -> ApiReply<Nothing> {
    service::change_subscription(&state, &caller, &context, Whose { session, participant }, track, body)
        .await
        .map(Replied)
}
