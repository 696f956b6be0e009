//! `…/{session_id}/messages`.

use axum::extract::State;
use common::model::SessionId;

use super::problems::MessageProblems;
use super::{ApiReply, Replied};
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::service::CommandContext;
use crate::service::messages::{self as service, SendMessage, SentMessage};
use crate::state::ApiState;

/// Send a message to everyone else in the session, or to some: they get it as the event `message`.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/messages", tag = "messages",
    params(("session_id" = SessionId, Path)),
    request_body = SendMessage,
    responses((status = 200, description = "On its way", body = SentMessage), MessageProblems),
)]
pub async fn send(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(session): Path<SessionId>,
    Json(body): Json<SendMessage>,
) -> ApiReply<SentMessage> {
    service::send(&state, &caller, &context, session, body).await.map(Replied)
}
