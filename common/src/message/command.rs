//! Commands (API to worker) and their replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Answer, Candidate, EndpointStats, Fixed, IceFragment, IfMatch, LeaveReason, Offer, Wish};
use crate::model::{
    Bitrates, CommandId, EndpointId, Grants, Participant, ParticipantId, PipelineId, Session, SessionId,
    SessionSettings, Track, TrackId, WorkerId,
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
    /// W3C `traceparent` of the HTTP request behind it, or of its sending where spans are recorded.
    pub traceparent: String,
    /// When it was sent; there when its trace is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<UnixMillis>,
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
        #[serde(default, skip_serializing_if = "SessionSettings::is_default")]
        settings: SessionSettings,
    },
    /// Queue `session.<id>`. These settings instead of what was set before; their revision is not looked at.
    ChangeSession {
        session_id: SessionId,
        settings: SessionSettings,
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
        /// To what the client lowers its own.
        #[serde(default, skip_serializing_if = "Bitrates::is_unset")]
        bitrates: Bitrates,
        /// Cameras that it wants at most, fewer than the session's `last_n`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_n: Option<u16>,
        /// The client describes itself once, with this join's offer, and reads no events (WHIP, WHEP).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fixed: Option<Fixed>,
        /// When the token was issued that it joins with. Absent: the backend joins it, and nothing can be revoked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_issued_at: Option<UnixMillis>,
    },
    /// Queue `session.<id>` or `worker.<id>`. Leaving and being removed differ in `reason` only.
    Leave {
        session_id: SessionId,
        participant_id: ParticipantId,
        reason: LeaveReason,
        /// Only while the participant has this endpoint: who has joined again since is not meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint_id: Option<EndpointId>,
        /// The participant's tokens that were issued up to then are revoked; absent: it may come back with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoked_at: Option<UnixMillis>,
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
    /// Candidates or an ICE restart without a description (RFC 8840), for whoever does not renegotiate.
    Ice {
        target: Target,
        fragment: IceFragment,
        if_match: IfMatch,
    },
    /// The worker takes no new pipelines, moves its sessions to others, and its process ends.
    Drain {
        worker_id: WorkerId,
    },
    /// What the endpoint's client wants of a track that it subscribes to.
    Subscription {
        target: Target,
        track_id: TrackId,
        wish: Wish,
    },
    /// `by_admin`: a moderator mutes another participant's track.
    Mute {
        target: Target,
        track_id: TrackId,
        muted: bool,
        by_admin: bool,
    },
    /// What the worker sees of the endpoint now. Changes nothing.
    Stats {
        target: Target,
    },
    /// Queue `worker.<id>` of the worker that has or had the connection, or `workers`.
    Rate(RateCall),
}

impl CommandBody {
    /// The name of a command in metrics and spans.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateSession { .. } => "create_session",
            Self::CloseSession { .. } => "close_session",
            Self::ChangeSession { .. } => "change_session",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Offer { .. } => "offer",
            Self::Answer { .. } => "answer",
            Self::Candidates { .. } => "candidates",
            Self::Ice { .. } => "ice",
            Self::Drain { .. } => "drain",
            Self::Subscription { .. } => "subscription",
            Self::Mute { .. } => "mute",
            Self::Stats { .. } => "stats",
            Self::Rate(_) => "rate",
        }
    }

    /// Whether this is the `type` of one of these.
    pub fn knows(kind: &str) -> bool {
        // Asked of the reader itself, so that no second list can differ from it.
        let tried = Self::deserialize(serde_json::json!({ "type": kind }));
        !tried.is_err_and(|error| error.to_string().starts_with("unknown variant"))
    }
}

/// How a participant found its call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateCall {
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    /// The connection that is rated, as far as it is known.
    pub endpoint_id: Option<EndpointId>,
    /// The session's owner.
    pub key_id: String,
    /// 1 to 5.
    pub stars: u8,
    pub comment: Option<String>,
    /// When it was given.
    pub at: UnixMillis,
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
    SessionCreated {
        session: Box<Session>,
    },
    /// The session as it is after the change, or now when the change was made before.
    SessionChanged {
        session: Box<Session>,
    },
    SessionClosed,
    Joined(Box<JoinReply>),
    Left,
    Answered {
        answer: Answer,
        tracks: Vec<Track>,
    },
    Accepted,
    Muted {
        track: Track,
    },
    Draining,
    /// ICE was restarted: the server's new side of it.
    IceRestarted {
        fragment: IceFragment,
    },
    Stats {
        stats: Box<EndpointStats>,
    },
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
    /// The participant was removed after its token was issued.
    TokenRevoked,
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
    /// The ICE session is another one than the request is for.
    PreconditionFailed,
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
    /// A refusal that is not known here: the worker is of a later version.
    #[serde(other)]
    Unknown,
}
