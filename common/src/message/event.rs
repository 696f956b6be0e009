//! Events (workers to clients).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Candidate, SubscribedTrack};
use crate::model::{
    CommandId, EndpointId, EndpointState, EventId, Participant, ParticipantId, SessionId, Track, TrackId,
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

impl EventBody {
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
