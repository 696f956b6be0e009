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
