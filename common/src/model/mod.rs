//! Ids and stored documents. Live objects (connections, forwarding tables) appear here as ids only.

mod ids;
mod quality;
mod rating;
mod session;
mod settings;
mod track;
mod worker;

pub use ids::{
    CommandId, EndpointId, EventId, IdError, InstanceId, ParticipantId, PipelineId, RunId, SessionId,
    TrackId, WorkerId,
};
pub use quality::Quality;
pub use rating::{NetworkSummary, QualityShares, Rating};
pub use session::{
    Cause, DONE_COMMANDS_KEPT, Endpoint, EndpointState, Grants, Owed, Participant, ParticipantState,
    Pipeline, PipelineState, REVOCATIONS_KEPT, Revocation, Session, SessionState, TimelineEntry, TrackNote,
};
pub use settings::{Bitrates, CodecName, SessionSettings};
pub use track::{Track, TrackKind, TrackSource};
pub use worker::{Worker, WorkerLoad, WorkerState};
