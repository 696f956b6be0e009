//! The negotiation vocabulary: SDP offers and answers (RFC 8829) and ICE candidates (RFC 8838).
//!
//! Every accepted offer, from either side, moves an endpoint to its next `revision`. An offer says
//! which revision it makes; so a client that gets a server offer through its event channel before the
//! answer to its own offer through HTTP can tell a collision from mere reordering.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{ParticipantId, TrackId, TrackKind, TrackSource};

/// What a client says about one m-line that it sends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrackDescription {
    /// The m-line's `mid` in the offer.
    pub mid: String,
    pub source: TrackSource,
    /// Brought by the client, or made by the server when absent.
    #[serde(default)]
    pub track_id: Option<TrackId>,
    #[serde(default)]
    pub muted: bool,
}

/// Which published track a server offer's m-line carries to this client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscribedTrack {
    pub mid: String,
    pub track_id: TrackId,
    pub participant_id: ParticipantId,
    pub kind: TrackKind,
    pub source: TrackSource,
}

/// What a client wants of a track that it subscribes to: everything that it does not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Wish {
    /// Nothing is to be sent for now.
    pub paused: bool,
    /// The best encoding (simulcast) to send, counted from 0, the lowest.
    pub max_encoding: Option<u8>,
    /// The highest spatial and temporal layers of that encoding, counted from 0.
    pub max_spatial: Option<u8>,
    pub max_temporal: Option<u8>,
    /// What is served first when not everything fits: 0 (as everything) to [`Wish::MAX_PRIORITY`] (pinned).
    #[serde(default)]
    pub priority: u8,
    /// How large the picture is shown: nothing larger is sent.
    #[serde(default)]
    pub shown: Option<Shown>,
}

impl Wish {
    pub const MAX_PRIORITY: u8 = 3;
}

/// A size on a screen, in its own pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    #[schema(minimum = 1)]
    pub width: u16,
    #[schema(minimum = 1)]
    pub height: u16,
}

/// An SDP offer from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub sdp: String,
    /// The revision this offer makes: one more than the last completed one. `None` skips the check.
    pub revision: Option<u64>,
    /// m-lines that are sent on and not described here are published with a source by their kind.
    pub tracks: Vec<TrackDescription>,
}

/// An SDP answer, from either side, and the revision that it completes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub sdp: String,
    pub revision: u64,
}

/// One ICE candidate as `RTCIceCandidate.toJSON()` gives it (W3C webrtc, section 5.7.2).
///
/// An empty `candidate` is the end-of-candidates indication (RFC 8838, section 13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    pub candidate: String,
    #[serde(rename = "sdpMid", default, skip_serializing_if = "Option::is_none")]
    pub sdp_mid: Option<String>,
    #[serde(rename = "sdpMLineIndex", default, skip_serializing_if = "Option::is_none")]
    pub sdp_m_line_index: Option<u16>,
    #[serde(rename = "usernameFragment", default, skip_serializing_if = "Option::is_none")]
    pub username_fragment: Option<String>,
}

/// What a client gets that describes itself once and for all (WHIP, WHEP): the tracks on the m-lines that its offer
/// receives on are chosen among these, and change without another description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fixed {
    /// Only this participant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<ParticipantId>,
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_id: Option<TrackId>,
}

/// Name and password of one side of an ICE session (RFC 8839, section 5.4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    pub username_fragment: String,
    pub password: String,
}

/// Without the password.
impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials")
            .field("username_fragment", &self.username_fragment)
            .finish_non_exhaustive()
    }
}

/// The part of a description that is about ICE (RFC 8840, section 9).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IceFragment {
    /// Others than before restart ICE.
    pub credentials: Option<IceCredentials>,
    pub candidates: Vec<Candidate>,
}

/// Which ICE session a request is for (RFC 9110, section 13.1.1; RFC 9725, section 4.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfMatch {
    Any,
    /// One that has one of these entity-tags: the server's username fragment is the tag.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Whether the ICE session with this tag is meant.
    pub fn matches(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|it| it == tag),
        }
    }
}
