//! `…/{participant_id}/stats`.

use axum::extract::State;
use axum::response::Response;
use common::message::EndpointStats;
use common::model::{ParticipantId, SessionId};
use serde::Deserialize;

use super::private;
use super::problems::StatsProblems;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::service::CommandContext;
use crate::service::endpoints::Whose;
use crate::service::stats as service;
use crate::state::ApiState;

#[derive(Debug, Deserialize)]
pub struct StatsQuery {
    destination: Option<String>,
}

/// Read how a participant's connection and tracks stand now, as its media worker sees them: oneself, or any with an API key.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants/{participant_id}/stats", tag = "participants",
    params(
        ("session_id" = SessionId, Path),
        ("participant_id" = ParticipantId, Path),
        ("destination" = Option<String>, Query, description = "Of the join reply: the request then asks no database"),
    ),
    responses((status = 200, description = "The figures of this moment", body = EndpointStats), StatsProblems),
)]
pub async fn read(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Query(query): Query<StatsQuery>,
) -> ApiResult<Response> {
    let whose = Whose { session, participant };
    let stats = service::read(&state, &caller, &context, whose, query.destination.as_deref()).await?;
    Ok(private(axum::Json(stats)))
}
