//! Leave: a participant goes, by itself or removed by a moderator.

use common::message::{ErrorCode, EventBody, LeaveReason, ReplyBody};
use common::model::{EndpointState, Participant, ParticipantId, SessionId, SessionState, WorkerId};
use common::store::{Guarded, RemoveIf};

use super::{Done, Invocation, Outcome, forward_if_alive, refuse};
use crate::context::Context;
use crate::report::To;
use crate::sync::forget;

/// Times that the participant may rejoin under our hands before we give up.
const TRIES: usize = 5;

pub(super) async fn leave(
    context: &Context,
    invocation: &Invocation,
    session_id: SessionId,
    participant_id: ParticipantId,
    reason: LeaveReason,
) -> Outcome {
    for _ in 0..TRIES {
        let session = context.store.session(session_id).await?;
        let session = session.ok_or_else(|| refuse(ErrorCode::SessionNotFound, "no such session"))?;
        if session.state == SessionState::Closed {
            return Ok(Done::Reply(ReplyBody::Left));
        }
        let Some(participant) = session.participant(participant_id) else {
            return Ok(Done::Reply(ReplyBody::Left));
        };
        // The worker that hosts the endpoint keeps the session's events in order; without it, anyone may.
        if let Some(host) = host(participant)
            && host != context.worker_id
            && forward_if_alive(context, invocation, host).await?
        {
            return Ok(Done::Forwarded);
        }
        let endpoint_id = participant.endpoint.as_ref().map(|endpoint| endpoint.id);
        let live = endpoint_id.and_then(|id| context.registry.endpoint(id));
        let only_if = endpoint_id.map_or(RemoveIf::Present, RemoveIf::Endpoint);
        let mut memory = match &live {
            Some(live) => Some(live.memory.lock().await),
            None => None,
        };
        let removed = context.store.remove_participant(session_id, participant_id, only_if).await?;
        // Refused: it has rejoined or gone meanwhile; look again.
        if let Guarded::Applied(_) = removed {
            if let (Some(live), Some(memory)) = (&live, &mut memory) {
                forget(context, live, memory).await;
            }
            // Everyone includes the leaver: its streams end with it.
            context.reporter.send(
                session_id,
                To::Everyone,
                EventBody::ParticipantLeft { participant_id, reason },
            );
            return Ok(Done::Reply(ReplyBody::Left));
        }
    }
    Err(refuse(ErrorCode::Unavailable, "the participant keeps rejoining"))
}

fn host(participant: &Participant) -> Option<WorkerId> {
    participant
        .endpoint
        .as_ref()
        .filter(|endpoint| endpoint.state != EndpointState::Closed)
        .map(|endpoint| endpoint.worker_id)
}
