//! The session document: the multi-party room and everyone in it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Bitrates, CommandId, EndpointId, EventId, ParticipantId, PipelineId, SessionId, SessionSettings, Track,
    TrackId, TrackKind, TrackSource, WorkerId,
};
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
    /// What counts for it in place of the session's own.
    #[serde(default, skip_serializing_if = "Bitrates::is_unset")]
    pub bitrates: Bitrates,
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
    /// When the token was issued that it joined with (`iat`; 0 for one that does not say). Absent: the backend joined it.
    #[serde(default)]
    pub token_issued_at: Option<UnixMillis>,
}

/// Somebody whose tokens were revoked, by being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    #[serde(rename = "_id", alias = "id")]
    pub participant_id: ParticipantId,
    /// What was issued up to then counts for nothing.
    pub at: UnixMillis,
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
    /// The joins, leaves and changes of settings that took effect, the oldest first; at most [`DONE_COMMANDS_KEPT`]. One of them that comes
    /// again (from a client, or from the broker when a worker died before it acknowledged) is recognised by it.
    #[serde(default)]
    pub done_commands: Vec<CommandId>,
    /// How its media is treated.
    #[serde(default, skip_serializing_if = "SessionSettings::is_default")]
    pub settings: SessionSettings,
    /// Whose tokens were revoked, the latest last; at most [`REVOCATIONS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
}

/// How many done joins, leaves and changes of settings a session remembers: more than come in while one of them can still come again, which
/// is until its deadline, a minute.
pub const DONE_COMMANDS_KEPT: usize = 256;

/// Of how many participants a session remembers that their tokens were revoked. Only who may remove others can push somebody
/// out of this list.
pub const REVOCATIONS_KEPT: usize = 512;

impl Session {
    /// Whether a token of this participant that was issued then has been revoked since.
    pub fn has_revoked(&self, participant: ParticipantId, issued_at: UnixMillis) -> bool {
        self.revocations.iter().any(|it| it.participant_id == participant && issued_at <= it.at)
    }

    pub fn participant(&self, id: ParticipantId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.id == id)
    }

    /// Whether this pipeline is the session's, as the current one or as one that drains behind it.
    pub fn has_pipeline(&self, id: PipelineId) -> bool {
        self.pipelines.iter().any(|pipeline| pipeline.id == id)
    }

    /// Whether this join, leave or change of settings took effect already.
    pub fn has_done(&self, command: CommandId) -> bool {
        self.done_commands.contains(&command)
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
    /// The track that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackNote>,
    #[serde(default, skip_serializing_if = "Owed::is_nothing")]
    pub webhooks: Owed,
}

/// A track in a timeline: what it is, where that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrackNote {
    pub id: TrackId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TrackKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<TrackSource>,
}

/// Which receivers of webhooks have yet to be told of a timeline entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Owed {
    /// By [`crate::webhook::receiver_id`].
    pub to: Vec<String>,
    /// Those that were not told in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<String>,
    /// When it was owed again after it had been given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
}

impl Owed {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
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
