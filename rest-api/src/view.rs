//! The documents as clients see them: no worker ids, no pipelines, no command ids.

use common::message::{
    Candidate, EndpointEnd, Event, EventBody, LeaveReason, ParticipantQuality, Speaking, SubscribedTrack,
};
use common::model::{
    CommandId, EndpointId, EndpointState, EventId, Participant, ParticipantId, ParticipantState, Session,
    SessionId, SessionState, Track, TrackId,
};
use common::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::settings::Settings;

/// A session and everyone in it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    pub id: SessionId,
    pub name: Option<String>,
    pub state: SessionState,
    pub created_at: UnixMillis,
    pub settings: Settings,
    pub participants: Vec<ParticipantView>,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            id: session.id,
            name: session.name,
            state: session.state,
            created_at: session.created_at,
            settings: session.settings.into(),
            participants: session.participants.into_iter().map(ParticipantView::from).collect(),
        }
    }
}

/// One member of a session.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Participant)]
pub struct ParticipantView {
    pub id: ParticipantId,
    pub name: String,
    pub state: ParticipantState,
    pub joined_at: UnixMillis,
    pub tracks: Vec<Track>,
}

impl From<Participant> for ParticipantView {
    fn from(participant: Participant) -> Self {
        Self {
            id: participant.id,
            name: participant.name,
            state: participant.state,
            joined_at: participant.joined_at,
            tracks: participant.tracks,
        }
    }
}

/// One event. Delivered at least once and in order; repeats carry the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    pub id: EventId,
    pub session_id: SessionId,
    pub time: UnixMillis,
    #[serde(flatten)]
    pub body: EventBodyView,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self { id: event.id, session_id: event.session_id, time: event.time, body: event.body.into() }
    }
}

/// What happened, as `{"type": …, "data": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = EventBody)]
#[serde(tag = "type", content = "data")]
pub enum EventBodyView {
    #[serde(rename = "participant.joined")]
    ParticipantJoined { participant: ParticipantView },
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
    #[serde(rename = "speakers.changed")]
    SpeakersChanged { speakers: Vec<Speaking> },
    #[serde(rename = "video.suspended")]
    VideoSuspended { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    #[serde(rename = "video.resumed")]
    VideoResumed { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    #[serde(rename = "video.held")]
    VideoHeld { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    #[serde(rename = "video.released")]
    VideoReleased { endpoint_id: EndpointId, tracks: Vec<TrackId> },
    #[serde(rename = "track.refused")]
    TrackRefused { endpoint_id: EndpointId, track_id: TrackId, mime_type: String },
    #[serde(rename = "track.demand")]
    TrackDemand { endpoint_id: EndpointId, track_id: TrackId, encodings: u8 },
    #[serde(rename = "message")]
    Message {
        /// Absent: the application.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<ParticipantId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// It names its receivers; otherwise it is for everyone else.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        direct: bool,
        /// `data` is base64 of bytes.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        binary: bool,
        data: serde_json::Value,
    },
    #[serde(rename = "quality.changed")]
    QualityChanged { participants: Vec<ParticipantQuality> },
    #[serde(rename = "offer")]
    Offer { endpoint_id: EndpointId, revision: u64, sdp: String, tracks: Vec<SubscribedTrack> },
    #[serde(rename = "candidates")]
    Candidates { endpoint_id: EndpointId, candidates: Vec<Candidate> },
    #[serde(rename = "endpoint.state")]
    EndpointState {
        endpoint_id: EndpointId,
        state: EndpointState,
        /// `replaced`: the participant has joined again, and this is the endpoint's last event.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<EndpointEnd>,
    },
    #[serde(rename = "session.interrupted")]
    SessionInterrupted { epoch: i64 },
    #[serde(rename = "session.moving")]
    SessionMoving { epoch: i64, deadline: UnixMillis },
    #[serde(rename = "session.closed")]
    SessionClosed {},
    #[serde(rename = "command.completed")]
    CommandCompleted { command_id: CommandId, status: u16, result: serde_json::Value },
}

impl From<EventBody> for EventBodyView {
    fn from(body: EventBody) -> Self {
        match body {
            EventBody::ParticipantJoined { participant } => {
                Self::ParticipantJoined { participant: participant.into() }
            }
            EventBody::ParticipantLeft { participant_id, reason } => {
                Self::ParticipantLeft { participant_id, reason }
            }
            EventBody::ParticipantDisconnected { participant_id } => {
                Self::ParticipantDisconnected { participant_id }
            }
            EventBody::TrackPublished { participant_id, track } => {
                Self::TrackPublished { participant_id, track }
            }
            EventBody::TrackUnpublished { participant_id, track_id } => {
                Self::TrackUnpublished { participant_id, track_id }
            }
            EventBody::TrackMuted { participant_id, track_id, by_admin } => {
                Self::TrackMuted { participant_id, track_id, by_admin }
            }
            EventBody::TrackUnmuted { participant_id, track_id, by_admin } => {
                Self::TrackUnmuted { participant_id, track_id, by_admin }
            }
            EventBody::SpeakersChanged { speakers } => Self::SpeakersChanged { speakers },
            EventBody::VideoSuspended { endpoint_id, tracks } => Self::VideoSuspended { endpoint_id, tracks },
            EventBody::VideoResumed { endpoint_id, tracks } => Self::VideoResumed { endpoint_id, tracks },
            EventBody::VideoHeld { endpoint_id, tracks } => Self::VideoHeld { endpoint_id, tracks },
            EventBody::VideoReleased { endpoint_id, tracks } => Self::VideoReleased { endpoint_id, tracks },
            EventBody::TrackRefused { endpoint_id, track_id, mime_type } => {
                Self::TrackRefused { endpoint_id, track_id, mime_type }
            }
            EventBody::TrackDemand { endpoint_id, track_id, encodings } => {
                Self::TrackDemand { endpoint_id, track_id, encodings }
            }
            EventBody::Message { from, topic, id, direct, binary, data } => {
                Self::Message { from, topic, id, direct, binary, data }
            }
            EventBody::QualityChanged { participants } => Self::QualityChanged { participants },
            EventBody::Offer { endpoint_id, revision, sdp, tracks } => {
                Self::Offer { endpoint_id, revision, sdp, tracks }
            }
            EventBody::Candidates { endpoint_id, candidates } => Self::Candidates { endpoint_id, candidates },
            EventBody::EndpointState { endpoint_id, state, reason } => {
                Self::EndpointState { endpoint_id, state, reason }
            }
            EventBody::SessionInterrupted { epoch } => Self::SessionInterrupted { epoch },
            EventBody::SessionMoving { epoch, deadline } => Self::SessionMoving { epoch, deadline },
            EventBody::SessionClosed {} => Self::SessionClosed {},
            EventBody::CommandCompleted { command_id, status, result } => {
                Self::CommandCompleted { command_id, status, result }
            }
        }
    }
}
