//! Negotiation: `…/{participant_id}/offer`, `answer` and `candidates`.

use axum::extract::State;
use common::model::{ParticipantId, SessionId};

use super::problems::{AnswerProblems, CandidatesProblems, OfferProblems};
use super::{ApiReply, Later, Replied};
use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::service::endpoints::{self as service, OfferAnswer, SendAnswer, SendCandidates, SendOffer, Whose};
use crate::service::{CommandContext, Nothing};
use crate::state::ApiState;

/// Send an offer; the reply is the server's answer.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants/{participant_id}/offer", tag = "negotiation",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    request_body = SendOffer,
    responses(
        (status = 200, description = "The answer", body = OfferAnswer),
        (status = 202, description = "Not known yet", body = Later),
        OfferProblems,
    ),
)]
pub async fn offer(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Json(body): Json<SendOffer>,
) -> ApiReply<OfferAnswer> {
    service::offer(&state, &caller, &context, Whose { session, participant }, body).await.map(Replied)
}

/// Answer the server's offer.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants/{participant_id}/answer", tag = "negotiation",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    request_body = SendAnswer,
    responses(
        (status = 204, description = "Negotiated"),
        (status = 202, description = "Not known yet", body = Later),
        AnswerProblems,
    ),
)]
pub async fn answer(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Json(body): Json<SendAnswer>,
) -> ApiReply<Nothing> {
    service::answer(&state, &caller, &context, Whose { session, participant }, body).await.map(Replied)
}

/// Send ICE candidates as they are found.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/participants/{participant_id}/candidates", tag = "negotiation",
    params(("session_id" = SessionId, Path), ("participant_id" = ParticipantId, Path)),
    request_body = SendCandidates,
    responses(
        (status = 204, description = "Taken"),
        (status = 202, description = "Not known yet", body = Later),
        CandidatesProblems,
    ),
)]
pub async fn candidates(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Json(body): Json<SendCandidates>,
) -> ApiReply<Nothing> {
    service::candidates(&state, &caller, &context, Whose { session, participant }, body).await.map(Replied)
}
