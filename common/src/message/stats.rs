//! What `GET …/stats` answers: one endpoint and its tracks as their media worker sees them.
//!
//! Where W3C webrtc-stats has a name for a figure, it is that name in snake case, seen from the server: what it receives is
//! an `inbound-rtp` there, what it sends an `outbound-rtp`, and what the client reports of that a `remote-inbound-rtp`.
//! Times that are seconds there are milliseconds here and say so (`_ms`), bit rates say `_bps`. Counters count from the
//! beginning of the RTP stream (its SSRC); rates and fractions without one are of the last two seconds or so.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{
    EndpointId, EndpointState, NetworkSummary, ParticipantId, Quality, TrackId, TrackKind, TrackSource,
};
use crate::time::UnixMillis;

/// One endpoint, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointStats {
    pub endpoint_id: EndpointId,
    /// When these figures were taken.
    pub timestamp: UnixMillis,
    pub state: EndpointState,
    /// As the others are told.
    pub quality: Quality,
    /// What that comes from, 0 to 100 (`docs/QUALITY.md`); `null` before the first look.
    pub score: Option<f64>,
    pub transport: TransportStats,
    /// What the client sends.
    pub published: Vec<PublishedStats>,
    /// What is sent to the client.
    pub subscribed: Vec<SubscribedStats>,
    /// The whole connection until now.
    pub summary: NetworkSummary,
}

/// The way between client and media worker.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct TransportStats {
    /// Absent (`null`) before the client has selected one.
    pub path: Option<PathStats>,
    /// Of media that is sent to the client, from its RTCP reports (RFC 3550, section 6.4.1); `null` while there are none,
    /// as for a client that receives nothing.
    pub round_trip_time_ms: Option<f64>,
    /// What the way to the client carries, estimated; `null` while the client's feedback has told nothing.
    pub available_outgoing_bitrate_bps: Option<u64>,
}

/// The selected path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathStats {
    pub protocol: PathProtocol,
    pub address_family: AddressFamily,
    pub remote_candidate_type: CandidateType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathProtocol {
    Udp,
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    Ipv4,
    Ipv6,
}

/// As the client named the address in a candidate that it sent (RFC 8445, section 5.1.1); `prflx` when it named none
/// like that, because its address was hidden (mDNS) or translated on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CandidateType {
    Host,
    Srflx,
    Prflx,
    Relay,
}

/// A published track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PublishedStats {
    pub track_id: TrackId,
    pub kind: TrackKind,
    pub source: TrackSource,
    /// Of the publisher's m-line.
    pub mid: String,
    pub muted: bool,
    #[schema(example = "video/VP8")]
    pub mime_type: String,
    /// In ascending quality; one for a track without simulcast.
    pub encodings: Vec<EncodingStats>,
}

/// One encoding of a published track, as it arrives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct EncodingStats {
    /// Its place in ascending quality, counted from 0.
    pub encoding: u8,
    /// Its name in the client's description (RFC 8851), if it has one.
    pub rid: Option<String>,
    /// `null` while nothing of it has arrived.
    pub ssrc: Option<u32>,
    /// It is being sent now: something of it came within the last two seconds or so.
    pub alive: bool,
    /// Payloads, without headers.
    pub bitrate_bps: u64,
    pub packets_received: u64,
    /// Payloads, without headers.
    pub bytes_received: u64,
    /// What did not arrive, not even repaired; negative when more came than was expected (RFC 3550, section 6.4.1).
    pub packets_lost: i64,
    /// Of the last two seconds or so, 0 to 1.
    pub fraction_lost: f64,
    /// Interarrival jitter (RFC 3550, section 6.4.1).
    pub jitter_ms: f64,
    /// NACK packets sent to the publisher.
    pub nack_count: u32,
    /// Keyframes asked for (PLI).
    pub pli_count: u32,
}

/// A subscribed track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubscribedStats {
    pub track_id: TrackId,
    /// Whose track it is.
    pub participant_id: ParticipantId,
    pub kind: TrackKind,
    pub source: TrackSource,
    /// Of the server's m-line that carries it.
    pub mid: String,
    #[schema(example = "video/VP8")]
    pub mime_type: String,
    pub ssrc: u32,
    pub state: SubscriptionState,
    /// What is sent of a video track now; `null` for audio and while nothing is.
    pub current: Option<LayerStats>,
    /// The best that is to be sent, by the client's wish; `null` when nothing is.
    pub target: Option<TargetStats>,
    /// Payloads, without headers and retransmissions.
    pub bitrate_bps: u64,
    /// Without retransmissions.
    pub packets_sent: u64,
    /// Payloads, without headers and retransmissions.
    pub bytes_sent: u64,
    pub retransmitted_packets_sent: u64,
    /// NACK packets received from the client.
    pub nack_count: u32,
    /// Keyframes that the client asked for (PLI and FIR).
    pub pli_count: u32,
    /// What the client last reported of it; `null` while it has not.
    pub remote_inbound: Option<RemoteInboundStats>,
}

/// Why a track is sent, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Not negotiated yet, or the client is not connected.
    Inactive,
    /// Its publisher or a moderator has muted it.
    Muted,
    /// Nothing of it is to be sent now, by the client's wish.
    Paused,
    /// The client's path carries too little for it.
    Suspended,
    /// Left out of a large room: a camera that is not among the last that spoke (`last_n`), or a microphone that is not among
    /// the loudest (`loudest_n`).
    Held,
    /// Video that begins with the next keyframe, which was asked for.
    AwaitingKeyframe,
    /// What comes of it is sent.
    Flowing,
}

/// What is sent of a video track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerStats {
    /// Encoding and layers count from 0, the lowest.
    pub encoding: u8,
    pub spatial: u8,
    pub temporal: u8,
}

/// The best that is to be sent; what is `null` is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetStats {
    pub encoding: Option<u8>,
    pub spatial: Option<u8>,
    pub temporal: Option<u8>,
}

/// A client's reception report (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RemoteInboundStats {
    pub packets_lost: i64,
    /// Between its last two reports, 0 to 1.
    pub fraction_lost: f64,
    pub jitter_ms: f64,
    /// `null` while none of its reports answered one of ours.
    pub round_trip_time_ms: Option<f64>,
    /// How long ago it came.
    pub age_ms: u64,
}
