//! The forwarding core: decides which packet goes to whom, and under which number and time.
//!
//! It does no I/O, reads no clock, draws no random numbers and waits for nothing: packets and `now`
//! are arguments, decisions are polled. One [`Session`] is one pipeline's forwarding table.
//!
//! ```text
//!   handle_packet(now, publication, packet) ──▶ ┌─────────┐ ──▶ poll_output(): Forward, RequestKeyframe
//!   handle_keyframe_request(now, subscription)─▶│ Session │
//!   handle_timeout(now) ───────────────────────▶└─────────┘ ──▶ poll_timeout()
//! ```
//!
//! | module | decides |
//! |---|---|
//! | [`session`] | the table: publications, subscriptions, mute, who gets a packet |
//! | [`rewrite`] | sequence numbers and timestamps without gaps or jumps for each subscription |
//! | [`wrapping`] | comparison of numbers that wrap (RFC 1982, RFC 3550) |
//! | [`keyframe`] | where a keyframe starts, in VP8, VP9, H.264 and AV1 payloads |
//! | [`request`] | how often a publisher is asked for a keyframe |
//! | [`extension`] | which header extension goes out under which id (RFC 8285) |
//! | [`counters`] | what was forwarded, and every drop by its reason |
//!
//! Nothing here panics on any input; a packet that cannot be used is dropped and counted.
//!
//! ```
//! use std::time::Instant;
//! use sfu::{Codec, Output, Packet, Session};
//!
//! # fn example(now: Instant) {
//! let mut session = Session::new();
//! let microphone = session.publish(Codec::Opus);
//! let subscription = session.subscribe(microphone).unwrap();
//! session.activate(now, subscription);
//! session.handle_packet(now, microphone, &Packet::new(0xcafe, 7, 960, &[0xfc]));
//! assert!(matches!(session.poll_output(), Some(Output::Forward { sequence, .. }) if sequence.0 == 1));
//! # }
//! ```

pub mod counters;
pub mod extension;
pub mod keyframe;
pub mod packet;
pub mod request;
pub mod rewrite;
pub mod session;
mod slab;
pub mod wrapping;

pub use counters::Counters;
pub use extension::{Extension, ExtensionIds, IdMap};
pub use packet::{Codec, Packet};
pub use session::{Output, PublicationId, Session, SubscriptionId};
pub use wrapping::{Sequence, Timestamp};
