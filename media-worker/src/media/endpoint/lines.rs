//! The m-lines of an endpoint, in SDP order, and how they are written.
//!
//! A client's m-lines only receive (it publishes on them), the server's only send (they carry
//! subscriptions); neither is ever used for the other, so the two sides cannot contend for one.

use common::message::SubscribedTrack;
use common::model::{ParticipantId, Track, TrackId, TrackKind, TrackSource};
use common::time::UnixMillis;
use sfu::{Codec, ExtensionIds, PublicationId, SubscriptionId};

use super::allocation::Share;
use super::slots::Slot;
use crate::media::codecs::{self, Payload};
use crate::media::encodings::Encodings;
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
    /// How many there are at once.
    pub encodings: u8,
    pub publication: PublicationId,
    pub muted: bool,
    /// Since when its participant is there.
    pub joined_at: UnixMillis,
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
    /// The client's data channels, and the longest message that it takes, in bytes.
    Data { max_message: usize },
}

/// See [`Use::Receiving`].
pub struct Receiving {
    pub kind: TrackKind,
    pub payload: Payload,
    pub formats: Vec<Format>,
    pub extensions: ExtensionIds,
    pub encodings: Encodings,
    pub published: Option<Published>,
    /// What the client is told to send at most, in bit/s.
    pub max_bitrate: Option<u64>,
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
    /// It is an m-line of the client's own that carries one track after another.
    pub slot: Option<Box<Slot>>,
}

pub struct Carried {
    pub track: SourceTrack,
    pub subscription: SubscriptionId,
    /// Set once the client accepted.
    pub sender: Option<Sender>,
    /// What the client wants of it, and what it gets. Boxed: packets do not touch it.
    pub share: Box<Share>,
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

    /// The longest message for the client, on the m-line of its data channels.
    pub fn data(&self) -> Option<usize> {
        if let Use::Data { max_message } = self.use_ { Some(max_message) } else { None }
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self.use_, Use::Rejected { .. })
    }

    /// How the m-line is written, when nothing but its own state decides (offers).
    pub fn section(&self) -> Section<'_> {
        match &self.use_ {
            Use::Rejected { .. } | Use::Data { .. } => self.section_with(Direction::Inactive),
            Use::Receiving(receiving) => self.section_with(if receiving.published.is_some() {
                Direction::RecvOnly
            } else {
                Direction::Inactive
            }),
            Use::Sending(sending) => {
                self.section_with(if sending.carried.is_some() || sending.slot.is_some() {
                    Direction::SendOnly
                } else {
                    Direction::Inactive
                })
            }
        }
    }

    fn section_with(&self, direction: Direction) -> Section<'_> {
        let body = match &self.use_ {
            Use::Rejected { kind, protocol, formats } => Body::Rejected { kind, protocol, formats },
            Use::Data { .. } => Body::Data,
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
                max_bitrate: receiving.max_bitrate,
                encodings: receiving.encodings.names(),
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
                source: sending.names(&self.mid).map(|(stream_id, track_id)| Source {
                    stream_id,
                    track_id,
                    ssrc: sending.ssrc,
                    repair_ssrc: sending.repair_ssrc,
                }),
                max_bitrate: None,
                encodings: &[],
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
    /// The stream and the track as they are called in descriptions.
    fn names(&self, mid: &str) -> Option<(String, String)> {
        if let Some(slot) = &self.slot {
            return Some((slot.stream_id.clone(), format!("{}-{mid}", kind_name(self.kind))));
        }
        let track = &self.carried.as_ref()?.track;
        // Plain clients map by these: the participant is the stream, the track the track.
        Some((track.participant_id.to_string(), track.track_id.to_string()))
    }

    /// What feeds the m-line, as far as something does or may.
    pub fn subscription(&self) -> Option<SubscriptionId> {
        let slot = self.slot.as_ref().map(|slot| slot.subscription);
        slot.or_else(|| Some(self.carried.as_ref()?.subscription))
    }

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
            slot: None,
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
