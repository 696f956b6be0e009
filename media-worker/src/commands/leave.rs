//! Leave: a participant goes, by itself or removed by a moderator.
//!
//! It is noted as done with the removal, or when there is nobody to remove: a copy of it that comes later does not mean
//! who has joined again since.
//!
//! Who is removed has its tokens revoked first: then no join with them can be stored any more, and what is removed stays
//! away. Who is not there can be removed too, for the tokens' sake.

use common::message::{ErrorCode, LeaveReason, ReplyBody};
use common::model::{
    EndpointId, EndpointState, Participant, ParticipantId, Session, SessionId, SessionState, WorkerId,
};
use common::store::{Guarded, RemoveIf};
use common::time::UnixMillis;

use super::{Done, Invocation, Outcome, forward_if_alive, refuse};
use crate::context::{Context, endpoint_gone};
use crate::sync::{end_stray, forget, tell_left};

/// Times that the participant may rejoin under our hands before we give up.
const TRIES: usize = 5;

/// Who leaves, and how.
#[derive(Clone, Copy)]
pub(super) struct Leave {
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    pub reason: LeaveReason,
    /// Only while the participant has this endpoint.
    pub only: Option<EndpointId>,
    /// Its tokens that were issued up to then are revoked.
    pub revoked_at: Option<UnixMillis>,
}

pub(super) async fn leave(context: &Context, invocation: &Invocation, leave: Leave) -> Outcome {
    let Leave { session_id, participant_id, reason, only, revoked_at } = leave;
    let command_id = invocation.command.command_id;
    // Our own removal was stored, or not.
    let mut unsure = false;
    for _ in 0..TRIES {
        let session = context.store.session(session_id).await?;
        let session = session.ok_or_else(|| refuse(ErrorCode::SessionNotFound, "no such session"))?;
        if session.state == SessionState::Closed {
            return Ok(Done::Reply(ReplyBody::Left));
        }
        if let Some(at) = revoked_at {
            // Refused: the session has ended meanwhile, which the removal finds out as well.
            context.store.revoke(session_id, participant_id, at).await?;
        }
        if session.has_done(command_id) {
            return finish(context, invocation, &session, participant_id, unsure.then_some(reason)).await;
        }
        let Some(participant) = session.participant(participant_id) else {
            // Refused: another copy was done meanwhile, or the session is over.
            context.store.note_done(session_id, command_id).await?;
            return Ok(Done::Reply(ReplyBody::Left));
        };
        if only.is_some() && participant.endpoint.as_ref().map(|endpoint| endpoint.id) != only {
            return Err(endpoint_gone().into());
        }
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
        if let Some(memory) = &mut memory {
            memory.leaving = Some(reason);
        }
        let removed =
            context.store.remove_participant(session_id, participant_id, only_if, Some(command_id)).await;
        match removed {
            Ok(Guarded::Applied(_)) => {
                if let (Some(live), Some(memory)) = (&live, &mut memory) {
                    forget(context, live, memory).await;
                }
                tell_left(context, session_id, participant_id, reason);
                return Ok(Done::Reply(ReplyBody::Left));
            }
            // It has rejoined or gone meanwhile, or a copy of this command was quicker; look again.
            Ok(Guarded::Refused(_)) => {
                if let Some(memory) = &mut memory {
                    memory.leaving = None;
                }
            }
            Err(_) if !unsure => unsure = true,
            Err(error) => return Err(error.into()),
        }
    }
    Err(refuse(ErrorCode::Unavailable, "the participant keeps rejoining"))
}

/// The removal is stored. An earlier try may have ended between that and the rest, at the worker that has the session.
/// `untold`: that was this try.
async fn finish(
    context: &Context,
    invocation: &Invocation,
    session: &Session,
    participant_id: ParticipantId,
    untold: Option<LeaveReason>,
) -> Outcome {
    let live = context.registry.current(session.id, participant_id);
    match (live, untold) {
        (Some(live), _) => end_stray(context, &live).await?,
        (None, Some(reason)) => tell_left(context, session.id, participant_id, reason),
        (None, None) => {
            if let Some(host) = session.pipeline().map(|pipeline| pipeline.worker_id)
                && host != context.worker_id
                && forward_if_alive(context, invocation, host).await?
            {
                return Ok(Done::Forwarded);
            }
        }
    }
    Ok(Done::Reply(ReplyBody::Left))
}

fn host(participant: &Participant) -> Option<WorkerId> {
    participant
        .endpoint
        .as_ref()
        .filter(|endpoint| endpoint.state != EndpointState::Closed)
        .map(|endpoint| endpoint.worker_id)
}
