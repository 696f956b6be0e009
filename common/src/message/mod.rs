//! What travels through the broker: commands and their replies, events, and the envelope around them.

mod command;
mod event;
mod signal;
mod stats;

pub use command::{
    Command, CommandBody, CommandError, ErrorCode, JoinReply, Joined, RateCall, Reply, ReplyBody, Target,
    VERSION, trace_id,
};
pub use event::{EndpointEnd, Event, EventBody, LeaveReason, ParticipantQuality, Speaking};
pub use signal::{
    Answer, Candidate, Fixed, IceCredentials, IceFragment, IfMatch, Offer, Shown, SubscribedTrack,
    TrackDescription, Wish,
};
pub use stats::{
    AddressFamily, CandidateType, EncodingStats, EndpointStats, LayerStats, PathProtocol, PathStats,
    PublishedStats, RemoteInboundStats, SubscribedStats, SubscriptionState, TargetStats, TransportStats,
};
