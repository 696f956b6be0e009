//! Brings the stored form of an endpoint in line with the running one.
//!
//! Whatever changes an endpoint (a command, its connection) first changes its [`Memory`] and then calls
//! [`sync`]. When the store is away the difference stays in the memory, media goes on, and the first heartbeat
//! that succeeds calls [`sync_all`].

use common::message::{EndpointEnd, EventBody, LeaveReason};
use common::model::{EndpointId, EndpointState, ParticipantId, Session, SessionId};
use common::store::{Guarded, RemoveIf, StoreResult};

use crate::context::Context;
use crate::registry::{LiveEndpoint, Memory};
use crate::report::To;

/// Whether the endpoint still speaks for its participant.
#[derive(Debug, PartialEq)]
pub(crate) enum Synced {
    /// Everything is stored; these events may now be told.
    Stored(Vec<EventBody>),
    /// The participant has another endpoint, or none, or the session is over. Closed here as well.
    Gone(Vec<EventBody>),
}

/// Writes what the store lacks, each part guarded by the endpoint's id.
///
/// # Errors
/// Those of the store; what was not written stays marked, and a later call writes it.
pub(crate) async fn sync(
    context: &Context,
    endpoint: &LiveEndpoint,
    memory: &mut Memory,
) -> StoreResult<Synced> {
    if memory.gone {
        return Ok(Synced::Gone(Vec::new()));
    }
    if memory.superseded && memory.closing.is_none() {
        return Ok(supersede(memory));
    }
    let (session, participant) = (endpoint.session_id, endpoint.participant_id);
    if memory.closing.is_some() {
        let removed = context
            .store
            .remove_participant(session, participant, RemoveIf::OpenEndpoint(endpoint.id), None)
            .await?;
        let events = memory.closing.take().unwrap_or_default();
        forget(context, endpoint, memory).await;
        if let Guarded::Refused(now) = removed {
            tell_if_replaced(context, endpoint, now.as_deref());
            return Ok(Synced::Gone(Vec::new()));
        }
        return Ok(Synced::Gone(events));
    }
    if memory.tracks_unstored {
        let stored = context.store.set_tracks(session, participant, endpoint.id, &memory.tracks).await?;
        if let Guarded::Refused(now) = stored {
            return Ok(refused(context, endpoint, memory, now.as_deref()).await);
        }
        memory.tracks_unstored = false;
    }
    if let Some(state) = memory.state_unstored {
        let stored = context.store.set_endpoint_state(session, participant, endpoint.id, state).await?;
        if let Guarded::Refused(now) = stored {
            return Ok(refused(context, endpoint, memory, now.as_deref()).await);
        }
        memory.state_unstored = None;
    }
    Ok(Synced::Stored(std::mem::take(&mut memory.unreported)))
}

/// The endpoint no longer speaks for its participant: closed, unless its pipeline drains and the participant has moved on.
async fn refused(
    context: &Context,
    endpoint: &LiveEndpoint,
    memory: &mut Memory,
    now: Option<&Session>,
) -> Synced {
    if now.is_some_and(|session| has_moved(session, endpoint)) {
        return supersede(memory);
    }
    forget(context, endpoint, memory).await;
    tell_if_replaced(context, endpoint, now);
    Synced::Gone(Vec::new())
}

/// Whether the participant has its endpoint elsewhere while this one's pipeline drains.
pub(crate) fn has_moved(session: &Session, endpoint: &LiveEndpoint) -> bool {
    let drains = session.pipelines.iter().skip(1).any(|old| old.id == endpoint.pipeline_id);
    let current = session.participant(endpoint.participant_id).and_then(|entry| entry.endpoint.as_ref());
    drains && current.is_some_and(|current| current.id != endpoint.id)
}

fn supersede(memory: &mut Memory) -> Synced {
    memory.superseded = true;
    memory.tracks_unstored = false;
    memory.state_unstored = None;
    memory.unreported.clear();
    Synced::Stored(Vec::new())
}

/// Ends an endpoint that its participant is stored without: the write that removed it had its effect, and whoever made it
/// never learned that. Called in the participant's lane, so no join is under way. Everyone is told when it was removed from
/// here; another worker that removed it has told.
///
/// # Errors
/// Those of the store; then nothing has changed.
pub(crate) async fn end_stray(context: &Context, endpoint: &LiveEndpoint) -> StoreResult<()> {
    let mut memory = endpoint.memory.lock().await;
    if memory.gone || memory.superseded {
        return Ok(());
    }
    let session = context.store.session(endpoint.session_id).await?;
    let Some(session) = session.filter(|session| session.has_pipeline(endpoint.pipeline_id)) else {
        // Over, or somebody else's: that ends in one piece.
        return Ok(());
    };
    let participant_id = endpoint.participant_id;
    let entry = session.participant(participant_id);
    let stored = entry.and_then(|entry| entry.endpoint.as_ref());
    if stored.is_some_and(|stored| stored.id == endpoint.id) || has_moved(&session, endpoint) {
        return Ok(());
    }
    tracing::info!(session_id = %session.id, %participant_id, endpoint_id = %endpoint.id, "removed without notice: closed");
    forget(context, endpoint, &mut memory).await;
    tell_if_replaced(context, endpoint, Some(&session));
    if let Some(reason) = memory.leaving.take()
        && entry.is_none()
    {
        tell_left(context, session.id, participant_id, reason);
    }
    Ok(())
}

/// Closes the endpoint here; the store is not asked.
pub(crate) async fn forget(context: &Context, endpoint: &LiveEndpoint, memory: &mut Memory) {
    memory.gone = true;
    context.registry.remove(endpoint, true);
    // Gone already when its connection ended by itself.
    let _ = context.media.close_endpoint(endpoint.id).await;
}

/// An endpoint that the store has no more is over here too. Only when its participant has another one is that news to its
/// client: whose participant is gone, or is to join again, has been told already.
pub(crate) fn tell_if_replaced(context: &Context, endpoint: &LiveEndpoint, now: Option<&Session>) {
    let participant = now.and_then(|session| session.participant(endpoint.participant_id));
    let current = participant.and_then(|participant| participant.endpoint.as_ref());
    if current.is_some_and(|current| current.id != endpoint.id) {
        tell_replaced(context, endpoint.session_id, endpoint.participant_id, endpoint.id);
    }
}

/// Everyone includes the leaver: its streams end with it.
pub(crate) fn tell_left(
    context: &Context,
    session_id: SessionId,
    participant_id: ParticipantId,
    reason: LeaveReason,
) {
    let left = EventBody::ParticipantLeft { participant_id, reason };
    context.reporter.send(session_id, To::Everyone, left);
}

/// The last event of an endpoint whose participant goes on with another one.
pub(crate) fn tell_replaced(
    context: &Context,
    session_id: SessionId,
    participant_id: ParticipantId,
    endpoint_id: EndpointId,
) {
    let reason = Some(EndpointEnd::Replaced);
    let body = EventBody::EndpointState { endpoint_id, state: EndpointState::Closed, reason };
    context.reporter.send(session_id, To::Participant(participant_id, endpoint_id), body);
}

/// Catches up with everything that could not be stored while the store was away.
pub(crate) async fn sync_all(context: &Context) {
    for endpoint in context.registry.endpoints() {
        // Whoever holds it is storing it right now.
        let Ok(mut memory) = endpoint.memory.try_lock() else { continue };
        if !memory.is_unstored() {
            continue;
        }
        match sync(context, &endpoint, &mut memory).await {
            Ok(Synced::Stored(events) | Synced::Gone(events)) => {
                for event in events {
                    context.reporter.send(endpoint.session_id, To::Everyone, event);
                }
            }
            Err(error) => {
                tracing::warn!(session_id = %endpoint.session_id, endpoint_id = %endpoint.id, %error,
                    "still not stored");
                return;
            }
        }
    }
}
