//! Events (workers to clients).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Candidate, SubscribedTrack};
use crate::model::{
    CommandId, EndpointId, EndpointState, EventId, Participant, ParticipantId, Quality, SessionId, Track,
    TrackId,
};
use crate::time::UnixMillis;

/// One event. Delivered at least once and in order; repeats carry the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    pub id: EventId,
    pub session_id: SessionId,
    pub time: UnixMillis,
    #[serde(flatten)]
    pub body: EventBody,
}

impl Event {
    pub fn new(session_id: SessionId, body: EventBody) -> Self {
        Self { id: EventId::new(), session_id, time: UnixMillis::now(), body }
    }
}

/// Why a participant is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    Left,
    /// By a moderator or the application's backend.
    Removed,
    /// Its endpoint was lost and the grace time ran out.
    ConnectionLost,
    SessionClosed,
}

/// Why an endpoint is closed, when its participant goes on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointEnd {
    /// The participant has joined again and has another endpoint now. The last event of this one.
    Replaced,
}

/// One who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Speaking {
    pub participant_id: ParticipantId,
    pub track_id: TrackId,
    /// How loud: above 0.0 (hardly) up to 1.0 (full scale), in steps of 1/8, by the levels that its client sends
    /// (RFC 6464), smoothed.
    pub level: f32,
}

/// How good somebody's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantQuality {
    pub participant_id: ParticipantId,
    pub quality: Quality,
}

/// What happened, as `{"type": …, "data": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum EventBody {
    #[serde(rename = "participant.joined")]
    ParticipantJoined { participant: Participant },
    #[serde(rename = "participant.left")]
    ParticipantLeft { participant_id: ParticipantId, reason: LeaveReason },
    #[serde(rename = "participant.disconnected")]
    ParticipantDisconnected { participant_id: ParticipantId },
    #[serde(rename = "track.published")]
    TrackPublished { participant_id: ParticipantId, track: Track },
    #[serde(rename = "track.unpublished")]
    TrackUnpublished { participant_id: ParticipantId, track_id: TrackId },
    #[serde(rename = "track.muted")]
    TrackMuted { participant_id: ParticipantId, track_id: TrackId, by_admin: bool },
    #[serde(rename = "track.unmuted")]
    TrackUnmuted { participant_id: ParticipantId, track_id: TrackId, by_admin: bool },
    /// Who speaks, the one who leads first; empty when nobody does. Told when others speak than before, or another one
    /// leads.
    #[serde(rename = "speakers.changed")]
    SpeakersChanged { speakers: Vec<Speaking> },
    /// To one participant: its path carries too little for these tracks. Nothing of them is sent until they are resumed.
    #[serde(rename = "video.suspended")]
    VideoSuspended { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    /// To one participant: these tracks are sent again.
    #[serde(rename = "video.resumed")]
    VideoResumed { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    /// To one participant: these cameras are not among the last that spoke (`last_n`), and nothing of them is sent until they
    /// are released.
    #[serde(rename = "video.held")]
    VideoHeld { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    /// To one participant: these cameras are sent again, as far as the path carries them.
    #[serde(rename = "video.released")]
    VideoReleased { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    /// To one participant: its client refused the m-line of this track. Most often it cannot decode that codec
    /// (`mime_type`, as in RTCRtpCodec); nothing of the track is sent.
    #[serde(rename = "track.refused")]
    TrackRefused { endpoint_id: EndpointId, track_id: TrackId, mime_type: String },
    /// To the publisher of a video: how many of its encodings, from the lowest up, anybody watches or soon may. It need not
    /// send the others; told when that changes, and all of them are wanted in the beginning.
    #[serde(rename = "track.demand")]
    TrackDemand { endpoint_id: EndpointId, track_id: TrackId, encodings: u8 },
    /// What a participant, or the application, says: by a request, or on a data channel to those who have none.
    #[serde(rename = "message")]
    Message {
        /// Absent: the application.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ParticipantId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        /// The sender's, or made of its command's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// It names its receivers; otherwise it is for everyone else.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        direct: bool,
        /// `data` is base64 of bytes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        binary: bool,
        data: serde_json::Value,
    },
    /// Whose connection has become better or worse (`docs/QUALITY.md`). Everyone is `excellent` until told otherwise.
    #[serde(rename = "quality.changed")]
    QualityChanged { participants: Vec<ParticipantQuality> },
    /// To one participant: the server's offer, to be answered.
    #[serde(rename = "offer")]
    Offer { endpoint_id: EndpointId, revision: u64, sdp: String, tracks: Vec<SubscribedTrack> },
    /// To one participant: the server's candidates (trickle).
    #[serde(rename = "candidates")]
    Candidates { endpoint_id: EndpointId, candidates: Vec<Candidate> },
    /// To one participant: its own connection as the server sees it.
    #[serde(rename = "endpoint.state")]
    EndpointState {
        endpoint_id: EndpointId,
        state: EndpointState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<EndpointEnd>,
    },
    /// The pipeline is gone (its worker died, or its drain is over): rejoin.
    #[serde(rename = "session.interrupted")]
    SessionInterrupted { epoch: i64 },
    /// The pipeline's worker drains, and the session has a new one elsewhere: join again with the same participant id,
    /// and keep the old endpoint until the new one carries the media. Past `deadline` the old endpoints end.
    #[serde(rename = "session.moving")]
    SessionMoving { epoch: i64, deadline: UnixMillis },
    #[serde(rename = "session.closed")]
    SessionClosed {},
    /// To one participant: the result of a request that was answered 202. `status` is the HTTP status
    /// that the request would have had, `result` its body.
    #[serde(rename = "command.completed")]
    CommandCompleted { command_id: CommandId, status: u16, result: serde_json::Value },
}

/// How long a list of speakers or of qualities that nobody has fetched is worth anything.
const MOMENT_KEPT: Duration = Duration::from_secs(10);

impl EventBody {
    /// How long the event may wait for its reader; `None`: as long as it takes.
    pub fn kept_for(&self) -> Option<Duration> {
        match self {
            Self::SpeakersChanged { .. } | Self::QualityChanged { .. } => Some(MOMENT_KEPT),
            _ => None,
        }
    }

    /// The `type` of the event, for metrics and Server-Sent Events.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ParticipantJoined { .. } => "participant.joined",
            Self::ParticipantLeft { .. } => "participant.left",
            Self::ParticipantDisconnected { .. } => "participant.disconnected",
            Self::TrackPublished { .. } => "track.published",
            Self::TrackUnpublished { .. } => "track.unpublished",
            Self::TrackMuted { .. } => "track.muted",
            Self::TrackUnmuted { .. } => "track.unmuted",
            Self::SpeakersChanged { .. } => "speakers.changed",
            Self::VideoSuspended { .. } => "video.suspended",
            Self::VideoResumed { .. } => "video.resumed",
            Self::VideoHeld { .. } => "video.held",
            Self::VideoReleased { .. } => "video.released",
            Self::TrackRefused { .. } => "track.refused",
            Self::TrackDemand { .. } => "track.demand",
            Self::Message { .. } => "message",
            Self::QualityChanged { .. } => "quality.changed",
            Self::Offer { .. } => "offer",
            Self::Candidates { .. } => "candidates",
            Self::EndpointState { .. } => "endpoint.state",
            Self::SessionInterrupted { .. } => "session.interrupted",
            Self::SessionMoving { .. } => "session.moving",
            Self::SessionClosed {} => "session.closed",
            Self::CommandCompleted { .. } => "command.completed",
        }
    }
}
