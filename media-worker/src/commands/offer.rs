//! Offer: the client's offer; publishing and unpublishing is offering.

use common::message::{EventBody, Offer, ReplyBody, Target};
use common::model::ParticipantId;

use super::{Invocation, Outcome, endpoint};
use crate::context::Context;
use crate::media::Negotiated;
use crate::registry::Memory;
use crate::spans;

pub(super) async fn offer(
    context: &Context,
    invocation: &Invocation,
    target: &Target,
    offer: &Offer,
) -> Outcome {
    // The media plane offers new tracks to everyone else at once; `track.published` goes first.
    let slot = context.reporter.reserve(target.session_id);
    endpoint::once(context, invocation, target, Some(slot), async |endpoint, memory| {
        let negotiating = context.media.offer(endpoint.id, offer.clone());
        let negotiated = spans::media("negotiate", "offer", negotiating).await?;
        let reply =
            ReplyBody::Answered { answer: negotiated.answer.clone(), tracks: negotiated.tracks.clone() };
        take_over(endpoint.participant_id, memory, negotiated);
        Ok(reply)
    })
    .await
}

/// Takes what an accepted offer changed into the endpoint's memory, to be stored and told.
///
/// A track may have ended before, with an answer that did not carry it any more: then this offer says nothing of it, and the
/// media plane's own word comes behind this command and finds nothing left. Whatever was there and is not any more is told here.
pub(super) fn take_over(participant_id: ParticipantId, memory: &mut Memory, negotiated: Negotiated) {
    let Negotiated { tracks, published, mut unpublished, .. } = negotiated;
    let ended = memory.tracks.iter().map(|track| track.id);
    let ended = ended.filter(|id| !tracks.iter().any(|track| track.id == *id) && !unpublished.contains(id));
    unpublished.extend(ended.collect::<Vec<_>>());
    let unpublished = unpublished.into_iter();
    memory
        .unreported
        .extend(unpublished.map(|track_id| EventBody::TrackUnpublished { participant_id, track_id }));
    let published = published.into_iter();
    memory.unreported.extend(published.map(|track| EventBody::TrackPublished { participant_id, track }));
    if memory.tracks != tracks {
        memory.tracks = tracks;
        memory.tracks_unstored = true;
    }
}

#[cfg(test)]
mod tests {
    use common::message::Answer;
    use common::model::{Track, TrackId, TrackKind, TrackSource};

    use super::*;

    fn track(mid: &str) -> Track {
        Track {
            id: TrackId::new(),
            kind: TrackKind::Video,
            source: TrackSource::Camera,
            muted: false,
            mid: mid.into(),
        }
    }

    #[test]
    fn what_ended_with_an_answer_is_told_with_the_next_offer() {
        let participant_id = ParticipantId::new();
        let [stays, ended, dropped, new] = ["0", "1", "2", "3"].map(track);
        let mut memory = Memory::default();
        memory.tracks.extend([&stays, &ended, &dropped].map(Clone::clone));
        let negotiated = Negotiated {
            answer: Answer { sdp: String::new(), revision: 7 },
            tracks: vec![stays.clone(), new.clone()],
            published: vec![new.clone()],
            unpublished: vec![dropped.id],
        };
        take_over(participant_id, &mut memory, negotiated);
        let unpublished = |track: &Track| EventBody::TrackUnpublished { participant_id, track_id: track.id };
        let told = [
            unpublished(&dropped),
            unpublished(&ended),
            EventBody::TrackPublished { participant_id, track: new.clone() },
        ];
        assert_eq!(memory.unreported, told);
        assert_eq!((memory.tracks, memory.tracks_unstored), (vec![stays, new], true));
    }
}
