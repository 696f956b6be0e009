//! Offer: the client's offer; publishing and unpublishing is offering.

use common::message::{EventBody, Offer, ReplyBody, Target};

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;
use crate::media::Negotiated;
use crate::registry::{LiveEndpoint, Memory};

pub(super) async fn offer(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    offer: &Offer,
) -> Outcome {
    // The media plane offers new tracks to everyone else at once; `track.published` goes first.
    let slot = context.reporter.reserve(target.session_id);
    endpoint::once(context, invocation, target, Some(slot), async |endpoint, memory| {
        let negotiated = context.media.offer(endpoint.id, offer.clone()).await?;
        let reply =
            ReplyBody::Answered { answer: negotiated.answer.clone(), tracks: negotiated.tracks.clone() };
        take_over(endpoint, memory, negotiated);
        Ok(reply)
    })
    .await
}

/// Takes what an accepted offer changed into the endpoint's memory, to be stored and told.
pub(super) fn take_over(endpoint: &LiveEndpoint, memory: &mut Memory, negotiated: Negotiated) {
    let participant_id = endpoint.participant_id;
    let unpublished = negotiated.unpublished.into_iter();
    memory
        .unreported
        .extend(unpublished.map(|track_id| EventBody::TrackUnpublished { participant_id, track_id }));
    let published = negotiated.published.into_iter();
    memory.unreported.extend(published.map(|track| EventBody::TrackPublished { participant_id, track }));
    if memory.tracks != negotiated.tracks {
        memory.tracks = negotiated.tracks;
        memory.tracks_unstored = true;
    }
}
