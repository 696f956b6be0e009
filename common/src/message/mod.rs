//! What travels through the broker: commands and their replies, events, and the envelope around them.

mod command;
mod event;
mod signal;

pub use command::{
    Command, CommandBody, CommandError, ErrorCode, JoinReply, Joined, Reply, ReplyBody, Target, VERSION,
    trace_id,
};
pub use event::{EndpointEnd, Event, EventBody, LeaveReason};
pub use signal::{Answer, Candidate, Offer, SubscribedTrack, TrackDescription};
