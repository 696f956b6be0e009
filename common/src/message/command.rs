//! Commands (API to worker) and their replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Answer, Candidate, LeaveReason, Offer};
use crate::model::{
    CommandId, EndpointId, Grants, Participant, ParticipantId, PipelineId, Session, SessionId, Track,
    TrackId, WorkerId,
};
use crate::time::UnixMillis;

/// The version of this wire format. A worker refuses what is newer than itself.
pub const VERSION: u16 = 1;

/// One command and what every command carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub version: u16,
    /// Twice the same id takes effect once and gives the same reply.
    pub command_id: CommandId,
    /// W3C `traceparent` of the HTTP request behind it.
    pub traceparent: String,
    /// A worker that gets it later than this refuses it (`expired`) instead of doing it.
    pub deadline: UnixMillis,
    /// The queue that waits for the reply.
    pub reply_to: String,
    pub body: CommandBody,
}

/// The trace id in a W3C `traceparent`: what is common to all logs about one request. Empty when there is none.
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CommandBody {
    /// Queue `workers`.
    CreateSession {
        session_id: SessionId,
        name: Option<String>,
        key_id: String,
    },
    /// Queue `session.<id>`.
    CloseSession {
        session_id: SessionId,
    },
    /// Queue `session.<id>`, or `worker.<id>` when handed on after placement.
    Join {
        session_id: SessionId,
        participant_id: ParticipantId,
        /// Made before the join is sent, because the queue of the endpoint's events must be there first.
        endpoint_id: EndpointId,
        name: String,
        grants: Grants,
        /// The server makes the first offer, for clients that only watch.
        server_offers: bool,
        /// Saves a round trip: negotiated as part of the join.
        offer: Option<Offer>,
    },
    /// Queue `session.<id>` or `worker.<id>`. Leaving and being removed differ in `reason` only.
    Leave {
        session_id: SessionId,
        participant_id: ParticipantId,
        reason: LeaveReason,
    },
    /// Queue `worker.<id>`, like all that follow.
    Offer {
        target: Target,
        offer: Offer,
    },
    Answer {
        target: Target,
        answer: Answer,
    },
    Candidates {
        target: Target,
        candidates: Vec<Candidate>,
    },
    /// The worker takes no new pipelines, moves its sessions to others, and its process ends.
    Drain {
        worker_id: WorkerId,
    },
    /// `by_admin`: a moderator mutes another participant's track.
    Mute {
        target: Target,
        track_id: TrackId,
        muted: bool,
        by_admin: bool,
    },
}

/// Exactly which endpoint an endpoint command is for; what a `destination` unfolds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    pub endpoint_id: EndpointId,
    pub pipeline_id: PipelineId,
    pub worker_id: WorkerId,
    pub epoch: i64,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub command_id: CommandId,
    /// Whom the command was about.
    pub session_id: Option<SessionId>,
    pub participant_id: Option<ParticipantId>,
    pub result: Result<ReplyBody, CommandError>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReplyBody {
    SessionCreated { session: Session },
    SessionClosed,
    Joined(Box<JoinReply>),
    Left,
    Answered { answer: Answer, tracks: Vec<Track> },
    Accepted,
    Muted { track: Track },
    Draining,
}

/// The reply to a join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinReply {
    pub joined: Joined,
    /// Present when the join brought an offer.
    pub answer: Option<Answer>,
}

/// Where the participant now lives and whom it finds there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub target: Target,
    pub participant: Participant,
    /// Everyone else in the session.
    pub others: Vec<Participant>,
}

/// A refusal, in words that the API passes on: a stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct CommandError {
    pub code: ErrorCode,
    pub message: String,
    /// When trying again makes sense, and after how long.
    pub retry_after: Option<Duration>,
}

impl CommandError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }
}

/// The stable codes of `docs/API.md`; the API adds those that never reach a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    SessionNotFound,
    SessionClosed,
    SessionConflict,
    ParticipantNotFound,
    ParticipantConflict,
    /// Another join has brought the same endpoint id.
    EndpointConflict,
    TrackNotFound,
    /// The endpoint is not there any more: rejoin.
    EndpointGone,
    /// The server's own offer is outstanding: answer that first (the server is impolite).
    OfferCollision,
    /// An answer for which there is no offer, or for another revision.
    NoOfferPending,
    /// Not SDP, or SDP that cannot be accepted; the message says why.
    InvalidSdp,
    InvalidCandidate,
    /// More m-lines, tracks or candidates than the limits allow.
    LimitExceeded,
    Forbidden,
    /// A process that is all in one has nobody to move its sessions to.
    CannotDrain,
    /// The deadline passed before a worker got to it.
    Expired,
    UnsupportedVersion,
    /// No worker, or none with room; try again.
    Unavailable,
    Internal,
}
