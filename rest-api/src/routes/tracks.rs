//! `…/{participant_id}/tracks/{track_id}`.

use axum::extract::State;
use common::model::{ParticipantId, SessionId, Track, TrackId};

use super::problems::TrackProblems;
use super::{ApiReply, Later, Replied};
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::service::CommandContext;
use crate::service::endpoints::{self as service, ChangeTrack, Whose};
use crate::state::ApiState;

/// Mute or unmute a track: one's own, or any with an API key or `roomAdmin`.
#[utoipa::path(
    patch, path = "/v1/sessions/{session_id}/participants/{participant_id}/tracks/{track_id}", tag = "tracks",
    params(
        ("session_id" = SessionId, Path),
        ("participant_id" = ParticipantId, Path),
        ("track_id" = TrackId, Path),
    ),
    request_body = ChangeTrack,
    responses(
        (status = 200, description = "The track as it is now", body = Track),
        (status = 202, description = "Not known yet", body = Later),
        TrackProblems,
    ),
)]
pub async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant, track)): Path<(SessionId, ParticipantId, TrackId)>,
    Json(body): Json<ChangeTrack>,
) -> ApiReply<Track> {
    service::change_track(&state, &caller, &context, Whose { session, participant }, track, body)
        .await
        .map(Replied)
}
