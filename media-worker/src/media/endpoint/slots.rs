//! Slots: the m-lines of a client that describes itself once and cannot be offered others (WHEP). Each carries one track
//! after another, under one SSRC, as if they were one stream.
//!
//! ```text
//!   tracks that the client may get ──choose──▶ a track for each slot ──sfu: switch──▶ at its keyframe: its packets
//!                                                                                                │
//!                             payload type, extensions, what can be sent again ◀──── carry ──────┘
//! ```
//!
//! The slot follows its packets: what goes out before the keyframe is of the track before. Where there are more tracks
//! than slots, those are on that a person would want to see and hear: screens, then who speaks, then who was on already.

use std::time::Instant;

use common::model::{ParticipantId, TrackKind, TrackSource};
use sfu::{Codec, Extension, ExtensionIds, IdMap, PublicationId, Session, SubscriptionId};

use super::Endpoint;
use super::lines::{Carried, Line, Sending, SourceTrack};
use crate::media::codecs::{self, Payload};
use crate::media::rtp::send::{AUDIO_MEMORY, Sender, VIDEO_MEMORY};
use crate::media::sdp::Media;

/// See the module.
pub struct Slot {
    pub subscription: SubscriptionId,
    /// What descriptions call the stream: the same for all slots of a client, which plays them together.
    pub stream_id: String,
    /// What it can carry: each codec once, as its client calls it, with the extensions that are sent with it.
    payloads: Vec<(Payload, ExtensionIds)>,
    /// What it carries, or will from that track's next keyframe on.
    chosen: Option<PublicationId>,
    /// While it carries nothing.
    parked: Option<Sender>,
}

/// The codecs of an m-line that a slot on it can carry.
pub fn payloads(media: &Media) -> Vec<(Payload, ExtensionIds)> {
    let mut payloads: Vec<(Payload, ExtensionIds)> = Vec::new();
    for payload in codecs::known(media) {
        if payloads.iter().all(|(known, _)| known.codec != payload.codec) {
            let ids = codecs::sent_extension_ids(media, payload.codec);
            payloads.push((payload, ids));
        }
    }
    payloads
}

impl Sending {
    /// An m-line with a slot for one or more codecs.
    pub fn with_slot(
        now: Instant,
        kind: TrackKind,
        payloads: Vec<(Payload, ExtensionIds)>,
        stream_id: String,
        subscription: SubscriptionId,
    ) -> Option<Self> {
        let mut extensions = ExtensionIds::default();
        for extension in Extension::ALL {
            if let Some(id) = payloads.iter().find_map(|(_, ids)| ids.id(extension)) {
                extensions.set(extension, id);
            }
        }
        // The one that has retransmissions makes their SSRC.
        let (first, _) = payloads.iter().find(|(it, _)| it.repair_type.is_some()).or(payloads.first())?;
        let mut sending = Self::new(kind, first.clone(), extensions);
        sending.formats = payloads.iter().flat_map(|(payload, _)| payload.formats()).collect();
        let memory = if kind == TrackKind::Video { VIDEO_MEMORY } else { AUDIO_MEMORY };
        let sender = Sender::new(now, sending.ssrc, 0, None, IdMap::default(), memory);
        let slot = Slot { subscription, stream_id, payloads, chosen: None, parked: Some(sender) };
        sending.slot = Some(Box::new(slot));
        Some(sending)
    }

    /// Goes on with another track on a slot. `None` when this is none, or cannot carry that.
    pub fn carry(&mut self, track: &SourceTrack) -> Option<()> {
        let slot = self.slot.as_mut()?;
        let (payload, ids) = slot.payloads.iter().find(|(payload, _)| payload.codec == track.codec)?;
        let (mut sender, mut share) = match self.carried.take() {
            Some(before) => (before.sender?, before.share),
            None => (slot.parked.take()?, Box::default()),
        };
        // What was learnt of the track before does not hold for this one; what the client wants does.
        let wish = std::mem::take(&mut *share).wish;
        share.wish = wish;
        let repair = self.repair_ssrc.zip(payload.repair_type);
        sender.carry_on(payload.payload_type, repair, IdMap::between(&track.extensions, ids));
        self.payload = payload.clone();
        let subscription = slot.subscription;
        self.carried = Some(Carried { track: track.clone(), subscription, sender: Some(sender), share });
        Some(())
    }

    /// Chooses the track of a slot. `is_there`: whether what it carries is still published.
    fn choose(
        &mut self,
        now: Instant,
        track: Option<&SourceTrack>,
        is_there: impl Fn(PublicationId) -> bool,
        session: &mut Session,
    ) {
        let Some(slot) = &mut self.slot else { return };
        let subscription = slot.subscription;
        slot.chosen = track.map(|track| track.publication);
        let Some(track) = track else {
            session.leave_publication(now, subscription);
            if let Some(carried) = self.carried.take() {
                slot.parked = carried.sender;
            }
            return;
        };
        if !self.carried.as_ref().is_some_and(|carried| is_there(carried.track.publication)) {
            // There is nothing to wait with.
            let _ = self.carry(track);
        }
        session.switch(now, subscription, track.publication);
    }
}

impl Endpoint {
    /// Whether its client describes itself once.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Chooses the tracks of all slots. `wanted` are the tracks of everyone else, `speaking` who speaks, the one who leads
    /// first.
    pub fn fill(
        &mut self,
        now: Instant,
        wanted: &[SourceTrack],
        speaking: &[ParticipantId],
        session: &mut Session,
    ) {
        let Some(fixed) = self.fixed.filter(|_| self.can_subscribe) else { return };
        for kind in [TrackKind::Audio, TrackKind::Video] {
            let tracks: Vec<&SourceTrack> = wanted
                .iter()
                .filter(|track| track.kind == kind)
                .filter(|track| fixed.participant_id.is_none_or(|id| id == track.participant_id))
                .filter(|track| fixed.track_id.is_none_or(|id| id == track.track_id))
                .collect();
            let (indexes, places): (Vec<usize>, Vec<Place>) = self
                .lines
                .iter()
                .enumerate()
                .filter_map(|(index, line)| Some((index, place(line, kind)?)))
                .unzip();
            for (index, track) in indexes.into_iter().zip(choose(&places, &tracks, speaking)) {
                if let Some(sending) = self.lines[index].sending_mut() {
                    let is_there = |publication| wanted.iter().any(|it| it.publication == publication);
                    sending.choose(now, track.map(|track| tracks[track]), is_there, session);
                }
            }
        }
        self.allocation.want(now);
    }
}

/// A slot as the choice sees it.
#[derive(Debug, Clone)]
struct Place {
    codecs: Vec<Codec>,
    chosen: Option<PublicationId>,
}

fn place(line: &Line, kind: TrackKind) -> Option<Place> {
    let sending = line.sending().filter(|sending| sending.kind == kind)?;
    let slot = sending.slot.as_ref()?;
    Some(Place { codecs: slot.payloads.iter().map(|(it, _)| it.codec).collect(), chosen: slot.chosen })
}

/// Which track is on which place, by their indexes. Who stays on stays where it is.
fn choose(places: &[Place], tracks: &[&SourceTrack], speaking: &[ParticipantId]) -> Vec<Option<usize>> {
    let is_on = |track: &SourceTrack| places.iter().any(|place| place.chosen == Some(track.publication));
    let rank = |track: &SourceTrack| {
        let turn = speaking.iter().position(|id| *id == track.participant_id).unwrap_or(usize::MAX);
        let is_screen = track.kind == TrackKind::Video && track.source == TrackSource::Screen;
        (track.muted, !is_screen, turn, !is_on(track))
    };
    let mut ranked: Vec<usize> = (0..tracks.len()).collect();
    // Stable: among equals who came first.
    ranked.sort_by_key(|index| rank(tracks[*index]));
    let mut given: Vec<Option<usize>> = vec![None; places.len()];
    seat(&ranked, places, tracks, &mut given);
    settle(places, tracks, &mut given);
    // Whoever moved back may have left a place that carries more.
    seat(&ranked, places, tracks, &mut given);
    given
}

/// Gives free places to who has none, in that order.
fn seat(ranked: &[usize], places: &[Place], tracks: &[&SourceTrack], given: &mut [Option<usize>]) {
    for &index in ranked {
        if given.contains(&Some(index)) {
            continue;
        }
        let fits =
            |place: usize| given[place].is_none() && places[place].codecs.contains(&tracks[index].codec);
        let own = |place: &usize| places[*place].chosen == Some(tracks[index].publication);
        let mut free = (0..places.len()).filter(|place| fits(*place));
        // A place that can carry much is kept for who needs that.
        let least = free.clone().min_by_key(|place| places[*place].codecs.len());
        if let Some(place) = free.find(own).or(least) {
            given[place] = Some(index);
        }
    }
}

/// Puts those who stay on back to where they were: somebody of a higher rank may have been put there.
fn settle(places: &[Place], tracks: &[&SourceTrack], given: &mut [Option<usize>]) {
    for place in 0..places.len() {
        let Some(chosen) = places[place].chosen else { continue };
        let now = given.iter().position(|it| it.is_some_and(|it| tracks[it].publication == chosen));
        let Some(now) = now.filter(|now| *now != place) else { continue };
        let fits = |place: &Place, track: Option<usize>| {
            track.is_none_or(|track| place.codecs.contains(&tracks[track].codec))
        };
        if fits(&places[place], given[now]) && fits(&places[now], given[place]) {
            given.swap(place, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use common::model::TrackId;
    use proptest::prelude::*;

    use super::*;

    fn track(session: &mut Session, who: ParticipantId, source: TrackSource, codec: Codec) -> SourceTrack {
        SourceTrack {
            track_id: TrackId::new(),
            participant_id: who,
            kind: if codec.is_video() { TrackKind::Video } else { TrackKind::Audio },
            source,
            codec,
            extensions: ExtensionIds::default(),
            encodings: 1,
            publication: session.publish(codec),
            muted: false,
            joined_at: common::time::UnixMillis(0),
        }
    }

    fn empty(count: usize) -> Vec<Place> {
        vec![Place { codecs: vec![Codec::Vp8, Codec::H264, Codec::Opus], chosen: None }; count]
    }

    /// Chooses, and notes what was chosen.
    fn on(places: &mut [Place], tracks: &[&SourceTrack], speaking: &[ParticipantId]) -> Vec<Option<usize>> {
        let chosen = choose(places, tracks, speaking);
        for (place, track) in places.iter_mut().zip(&chosen) {
            place.chosen = track.map(|track| tracks[track].publication);
        }
        chosen
    }

    #[test]
    fn one_place_shows_who_speaks_and_stays_there_until_another_does() {
        let mut session = Session::new();
        let people = [(); 3].map(|()| ParticipantId::new());
        let cameras = people.map(|who| track(&mut session, who, TrackSource::Camera, Codec::Vp8));
        let cameras: Vec<&SourceTrack> = cameras.iter().collect();
        let mut places = empty(1);
        assert_eq!(on(&mut places, &cameras, &[]), [Some(0)], "who came first");
        assert_eq!(on(&mut places, &cameras, &[people[2], people[0]]), [Some(2)], "who leads");
        assert_eq!(on(&mut places, &cameras, &[]), [Some(2)], "silence changes nothing");
        assert_eq!(on(&mut places, &cameras[..2], &[]), [Some(0)], "whoever is left");
        assert_eq!(on(&mut places, &[], &[]), [None]);
    }

    #[test]
    fn screens_come_first_and_what_is_muted_last() {
        let mut session = Session::new();
        let (ada, ben) = (ParticipantId::new(), ParticipantId::new());
        let mut camera = track(&mut session, ada, TrackSource::Camera, Codec::Vp8);
        let screen = track(&mut session, ben, TrackSource::Screen, Codec::Vp8);
        assert_eq!(choose(&empty(1), &[&camera, &screen], &[ada]), [Some(1)]);
        assert_eq!(choose(&empty(2), &[&camera, &screen], &[ada]), [Some(1), Some(0)]);
        camera.muted = true;
        let other = track(&mut session, ben, TrackSource::Camera, Codec::Vp8);
        assert_eq!(choose(&empty(1), &[&camera, &other], &[ada]), [Some(1)]);
        assert_eq!(choose(&empty(1), &[&camera], &[]), [Some(0)], "better than nothing");
    }

    #[test]
    fn who_stays_on_stays_where_it_is() {
        let mut session = Session::new();
        let people = [(); 4].map(|()| ParticipantId::new());
        let voices = people.map(|who| track(&mut session, who, TrackSource::Microphone, Codec::Opus));
        let voices: Vec<&SourceTrack> = voices.iter().collect();
        let mut places = empty(2);
        assert_eq!(on(&mut places, &voices, &people[..2]), [Some(0), Some(1)]);
        assert_eq!(on(&mut places, &voices, &[people[1], people[0]]), [Some(0), Some(1)]);
        assert_eq!(on(&mut places, &voices, &[people[3], people[1]]), [Some(3), Some(1)]);
        assert_eq!(on(&mut places, &voices, &[people[1], people[2]]), [Some(2), Some(1)]);
    }

    #[test]
    fn a_codec_that_the_client_does_not_know_is_on_no_place() {
        let mut session = Session::new();
        let who = ParticipantId::new();
        let vp9 = track(&mut session, who, TrackSource::Screen, Codec::Vp9);
        let h264 = track(&mut session, who, TrackSource::Camera, Codec::H264);
        assert_eq!(choose(&empty(1), &[&vp9, &h264], &[]), [Some(1)]);
        assert_eq!(choose(&empty(1), &[&vp9], &[]), [None]);
        let mut places = empty(2);
        places[0].codecs = vec![Codec::Vp8];
        assert_eq!(choose(&places, &[&h264], &[]), [None, Some(0)]);
    }

    #[test]
    fn a_place_that_is_left_for_the_own_one_is_given_on() {
        let mut session = Session::new();
        let who = [(); 3].map(|()| ParticipantId::new());
        let vp8 = [0, 1].map(|index| track(&mut session, who[index], TrackSource::Camera, Codec::Vp8));
        let h264 = track(&mut session, who[2], TrackSource::Camera, Codec::H264);
        let place = |codecs: &[Codec], chosen: &SourceTrack| Place {
            codecs: codecs.to_vec(),
            chosen: Some(chosen.publication),
        };
        let both = [Codec::Vp8, Codec::H264];
        let places = [place(&both, &vp8[0]), place(&both, &h264), place(&both[1..], &h264)];
        let given = choose(&places, &[&vp8[0], &vp8[1], &h264], &who[2..]);
        assert_eq!(given, [Some(0), Some(1), Some(2)]);
    }

    proptest! {
        #[test]
        fn every_place_that_can_have_a_track_has_one_and_none_is_on_twice(
            codecs in proptest::collection::vec(0usize..2, 0..6),
            places in proptest::collection::vec((0usize..3, 0usize..6), 0..6),
            speaks: u8,
        ) {
            const CODECS: [Codec; 2] = [Codec::Vp8, Codec::H264];
            let mut session = Session::new();
            let tracks: Vec<_> = codecs
                .iter()
                .map(|codec| track(&mut session, ParticipantId::new(), TrackSource::Camera, CODECS[*codec]))
                .collect();
            let tracks: Vec<&SourceTrack> = tracks.iter().collect();
            let speaking: Vec<_> =
                (0..8).filter(|bit| speaks & 1 << bit != 0).filter_map(|bit| Some(tracks.get(bit)?.participant_id)).collect();
            let places: Vec<Place> = places
                .into_iter()
                .map(|(codecs, chosen)| Place {
                    codecs: match codecs { 0 => vec![CODECS[0]], 1 => vec![CODECS[1]], _ => CODECS.to_vec() },
                    chosen: tracks.get(chosen).map(|track| track.publication),
                })
                .collect();
            let given = choose(&places, &tracks, &speaking);
            for (place, index) in given.iter().enumerate() {
                if let Some(index) = index {
                    prop_assert!(places[place].codecs.contains(&tracks[*index].codec));
                    prop_assert_eq!(given.iter().filter(|it| *it == &Some(*index)).count(), 1);
                } else {
                    let waits = |it: &usize| !given.contains(&Some(*it)) && places[place].codecs.contains(&tracks[*it].codec);
                    prop_assert_eq!((0..tracks.len()).find(waits), None);
                }
            }
        }
    }
}
