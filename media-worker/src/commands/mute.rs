//! Mute: stops or resumes one published track, by its publisher or by a moderator.

use common::message::{ErrorCode, EventBody, ReplyBody, Target};
use common::model::TrackId;
use common::store::{Guarded, RemoveIf};

use super::{Invocation, Outcome, endpoint, refuse};
use crate::context::{Context, endpoint_gone};
use crate::sync::{Synced, has_moved, sync};

pub(super) async fn mute(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    track_id: TrackId,
    muted: bool,
    by_admin: bool,
) -> Outcome {
    endpoint::once(context, invocation, target, None, async |endpoint, memory| {
        let not_found = || refuse(ErrorCode::TrackNotFound, "no such track");
        let before = memory.tracks.iter().find(|track| track.id == track_id).ok_or_else(not_found)?.clone();
        // The participant has moved: its tracks are stored with the new endpoint, which may have the same ids. Only what
        // is still heard through this endpoint changes.
        if !memory.superseded && context.drain.is_asked() {
            let session = context.store.session(endpoint.session_id).await?;
            memory.superseded = session.is_some_and(|session| has_moved(&session, endpoint));
        }
        if memory.superseded {
            let track = context.media.set_muted(endpoint.id, track_id, muted).await?;
            return Ok(ReplyBody::Muted { track });
        }
        if before.muted == muted {
            return Ok(ReplyBody::Muted { track: before });
        }
        // The store must have the track before it can have it muted; its events go out with those of this command.
        if memory.tracks_unstored {
            match sync(context, endpoint, memory).await? {
                Synced::Stored(events) => memory.unreported = events,
                Synced::Gone(_) => return Err(endpoint_gone().into()),
            }
        }
        let (session_id, participant_id) = (endpoint.session_id, endpoint.participant_id);
        if let Guarded::Refused(now) =
            context.store.set_track_muted(session_id, participant_id, track_id, muted).await?
        {
            // Without its tracks because this worker lost the session, or because somebody has joined again.
            let current = now.as_ref().and_then(|session| session.participant(participant_id));
            let is_current = RemoveIf::OpenEndpoint(endpoint.id)
                .allows(current.and_then(|participant| participant.endpoint.as_ref()));
            return Err(if is_current { not_found() } else { endpoint_gone().into() });
        }
        let track = context.media.set_muted(endpoint.id, track_id, muted).await?;
        for stored in memory.tracks.iter_mut().filter(|stored| stored.id == track_id) {
            *stored = track.clone();
        }
        memory.unreported.push(match muted {
            true => EventBody::TrackMuted { participant_id, track_id, by_admin },
            false => EventBody::TrackUnmuted { participant_id, track_id, by_admin },
        });
        Ok(ReplyBody::Muted { track })
    })
    .await
}
