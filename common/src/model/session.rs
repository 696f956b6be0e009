//! The session document: the multi-party room and everyone in it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CommandId, EndpointId, EventId, ParticipantId, PipelineId, SessionId, Track, WorkerId};
use crate::time::UnixMillis;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Open,
    /// Ended; kept for a while so that late callers learn that it ended rather than never was.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PipelineState {
    Ready,
    Draining,
}

/// What one worker hosts for one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pipeline {
    #[serde(rename = "_id", alias = "id")]
    pub id: PipelineId,
    pub worker_id: WorkerId,
    pub state: PipelineState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantState {
    /// Joined; its endpoint has not connected yet, or is reconnecting.
    Joined,
    /// Its endpoint carries media.
    Connected,
    /// Its endpoint is lost; it may rejoin.
    Disconnected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    New,
    Connected,
    Disconnected,
    Closed,
}

/// One WebRTC connection, as an id that only its worker can resolve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    #[serde(rename = "_id", alias = "id")]
    pub id: EndpointId,
    pub pipeline_id: PipelineId,
    pub worker_id: WorkerId,
    pub state: EndpointState,
}

/// What a participant may do, from its token's `video` grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grants {
    pub can_publish: bool,
    pub can_subscribe: bool,
    /// May mute and remove others and close the session.
    pub admin: bool,
}

/// One member of one session. The same id with a new endpoint is a rejoin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Participant {
    #[serde(rename = "_id", alias = "id")]
    pub id: ParticipantId,
    /// Shown to others; at most 256 characters.
    pub name: String,
    pub state: ParticipantState,
    pub grants: Grants,
    pub joined_at: UnixMillis,
    /// The join that put it here; the same command again changes nothing.
    pub command_id: CommandId,
    pub endpoint: Option<Endpoint>,
    pub tracks: Vec<Track>,
}

/// The session document (collection `sessions`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    #[serde(rename = "_id", alias = "id")]
    pub id: SessionId,
    pub state: SessionState,
    /// A label for people; at most 256 characters.
    pub name: Option<String>,
    pub created_at: UnixMillis,
    pub closed_at: Option<UnixMillis>,
    /// The API key that created it. Other keys do not see it.
    pub key_id: String,
    /// The create command; the same command again changes nothing.
    pub command_id: CommandId,
    /// Counts placements: everything a pipeline writes is guarded by the epoch it was placed in.
    pub epoch: i64,
    pub pipelines: Vec<Pipeline>,
    pub participants: Vec<Participant>,
    /// The worker that hosted the last pipeline; preferred when it is back.
    pub previous_worker_id: Option<WorkerId>,
}

impl Session {
    pub fn participant(&self, id: ParticipantId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.id == id)
    }

    /// Whether this pipeline is the session's, as the current one or as one that drains behind it.
    pub fn has_pipeline(&self, id: PipelineId) -> bool {
        self.pipelines.iter().any(|pipeline| pipeline.id == id)
    }

    /// The pipeline that hosts the session now, when there is one. Those behind it drain.
    pub fn pipeline(&self) -> Option<&Pipeline> {
        self.pipelines.first()
    }
}

/// One line of a session's timeline (collection `events`, removed after a time).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    /// Made by who appends it, so that appending it again adds nothing.
    #[serde(rename = "_id", alias = "id")]
    pub id: EventId,
    pub session_id: SessionId,
    /// Its place in the session's timeline: 1, 2, 3 and so on, without gaps. Given by the store.
    pub number: i64,
    pub at: UnixMillis,
    /// What happened, in the words of the event types.
    pub what: String,
    pub cause: Cause,
    pub participant_id: Option<ParticipantId>,
}

/// Why something happened, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// The command that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// The trace of the request behind that command (W3C Trace Context), found in all logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// One word, such as `removed`, `drain` or `grace_expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The worker that it is about: that died, drains, or was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
}
