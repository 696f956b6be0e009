//! The m-lines of an endpoint, in SDP order, and how they are written.
//!
//! A client's m-lines only receive (it publishes on them), the server's only send (they carry
//! subscriptions); neither is ever used for the other, so the two sides cannot contend for one.

use common::message::SubscribedTrack;
use common::model::{ParticipantId, Track, TrackId, TrackKind, TrackSource};
use sfu::{Codec, ExtensionIds, PublicationId, SubscriptionId};

use crate::media::codecs::{self, Payload};
use crate::media::rtp::send::Sender;
use crate::media::sdp::write::{Body, Media, Section, Source};
use crate::media::sdp::{Direction, Format};

/// A track as its subscribers need to know it.
#[derive(Debug, Clone)]
pub struct SourceTrack {
    pub track_id: TrackId,
    pub participant_id: ParticipantId,
    pub kind: TrackKind,
    pub source: TrackSource,
    pub codec: Codec,
    /// The publisher's extension ids.
    pub extensions: ExtensionIds,
    pub publication: PublicationId,
    pub muted: bool,
}

/// One m-line.
pub struct Line {
    pub mid: String,
    pub use_: Use,
}

pub enum Use {
    /// Port 0; the client may put another m-line in its place (RFC 8829, section 5.2.2).
    Rejected { kind: String, protocol: String, formats: String },
    /// The client's; it may publish on it.
    Receiving(Receiving),
    /// The server's; it may carry a subscription.
    Sending(Sending),
}

/// See [`Use::Receiving`].
pub struct Receiving {
    pub kind: TrackKind,
    pub payload: Payload,
    pub formats: Vec<Format>,
    pub extensions: ExtensionIds,
    /// The encoding that is wanted when the client offered several (simulcast).
    pub encoding: Option<String>,
    pub published: Option<Published>,
}

pub struct Published {
    pub track: Track,
    pub publication: PublicationId,
}

/// See [`Use::Sending`].
pub struct Sending {
    pub kind: TrackKind,
    pub payload: Payload,
    pub formats: Vec<Format>,
    pub extensions: ExtensionIds,
    pub ssrc: u32,
    pub repair_ssrc: Option<u32>,
    pub carried: Option<Carried>,
    /// The client knows that the m-line is unused, so it can be given another track.
    pub is_free: bool,
}

pub struct Carried {
    pub track: SourceTrack,
    pub subscription: SubscriptionId,
    /// Set once the client accepted.
    pub sender: Option<Sender>,
}

impl Line {
    pub fn receiving(&self) -> Option<&Receiving> {
        if let Use::Receiving(receiving) = &self.use_ { Some(receiving) } else { None }
    }

    pub fn receiving_mut(&mut self) -> Option<&mut Receiving> {
        if let Use::Receiving(receiving) = &mut self.use_ { Some(receiving) } else { None }
    }

    pub fn sending(&self) -> Option<&Sending> {
        if let Use::Sending(sending) = &self.use_ { Some(sending) } else { None }
    }

    pub fn sending_mut(&mut self) -> Option<&mut Sending> {
        if let Use::Sending(sending) = &mut self.use_ { Some(sending) } else { None }
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self.use_, Use::Rejected { .. })
    }

    /// How the m-line is written, when nothing but its own state decides (offers).
    pub fn section(&self) -> Section<'_> {
        match &self.use_ {
            Use::Rejected { .. } => self.section_with(Direction::Inactive),
            Use::Receiving(receiving) => self.section_with(if receiving.published.is_some() {
                Direction::RecvOnly
            } else {
                Direction::Inactive
            }),
            Use::Sending(sending) => self.section_with(if sending.carried.is_some() {
                Direction::SendOnly
            } else {
                Direction::Inactive
            }),
        }
    }

    fn section_with(&self, direction: Direction) -> Section<'_> {
        let body = match &self.use_ {
            Use::Rejected { kind, protocol, formats } => Body::Rejected { kind, protocol, formats },
            Use::Receiving(receiving) => Body::Media(Media {
                kind: kind_name(receiving.kind),
                direction,
                formats: &receiving.formats,
                feedback: match receiving.kind {
                    TrackKind::Audio => codecs::AUDIO_RECEIVE_FEEDBACK,
                    TrackKind::Video => codecs::VIDEO_RECEIVE_FEEDBACK,
                },
                extensions: codecs::extension_lines(&receiving.extensions),
                source: None,
                encoding: receiving.encoding.as_deref(),
            }),
            Use::Sending(sending) => Body::Media(Media {
                kind: kind_name(sending.kind),
                direction,
                formats: &sending.formats,
                feedback: match sending.kind {
                    TrackKind::Audio => codecs::AUDIO_SEND_FEEDBACK,
                    TrackKind::Video => codecs::VIDEO_SEND_FEEDBACK,
                },
                extensions: codecs::extension_lines(&sending.extensions),
                source: sending.carried.as_ref().map(|carried| Source {
                    // Plain clients map by these: the participant is the stream, the track the track.
                    stream_id: carried.track.participant_id.to_string(),
                    track_id: carried.track.track_id.to_string(),
                    ssrc: sending.ssrc,
                    repair_ssrc: sending.repair_ssrc,
                }),
                encoding: None,
            }),
        };
        Section { mid: &self.mid, body }
    }

    /// What the m-line carries to this client.
    pub fn subscribed(&self) -> Option<SubscribedTrack> {
        let track = &self.sending()?.carried.as_ref()?.track;
        Some(SubscribedTrack {
            mid: self.mid.clone(),
            track_id: track.track_id,
            participant_id: track.participant_id,
            kind: track.kind,
            source: track.source,
        })
    }
}

pub const fn kind_name(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Audio => "audio",
        TrackKind::Video => "video",
    }
}

impl Sending {
    /// An m-line for a codec, unused yet.
    pub fn new(kind: TrackKind, payload: Payload, extensions: ExtensionIds) -> Self {
        let mut sending = Self {
            kind,
            formats: payload.formats(),
            payload,
            extensions,
            ssrc: 0,
            repair_ssrc: None,
            carried: None,
            is_free: true,
        };
        sending.renumber();
        sending
    }

    /// New SSRCs, so that a receiver starts afresh.
    pub fn renumber(&mut self) {
        self.ssrc = rand::random_range(1..u32::MAX);
        self.repair_ssrc = self.payload.repair_type.map(|_| {
            loop {
                let ssrc = rand::random_range(1..u32::MAX);
                if ssrc != self.ssrc {
                    break ssrc;
                }
            }
        });
    }
}
