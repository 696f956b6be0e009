//! Ids and stored documents. Live objects (connections, forwarding tables) appear here as ids only.

mod ids;
mod session;
mod track;
mod worker;

pub use ids::{
    CommandId, EndpointId, EventId, IdError, InstanceId, ParticipantId, PipelineId, RunId, SessionId,
    TrackId, WorkerId,
};
pub use session::{
    Cause, Endpoint, EndpointState, Grants, Participant, ParticipantState, Pipeline, PipelineState, Session,
    SessionState, TimelineEntry,
};
pub use track::{Track, TrackKind, TrackSource};
pub use worker::{Worker, WorkerLoad, WorkerState};
