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
//! | [`bandwidth`] | how much a subscriber's path carries, and which layers that is enough for |
//! | [`session`] | the table: publications, subscriptions, mute, who gets a packet |
//! | [`rewrite`] | sequence numbers and timestamps without gaps or jumps for each subscription |
//! | [`layers`] | what a publication consists of, measured; what a subscription should get |
//! | [`ladder`] | which of its layers are worth having, step by step |
//! | [`demand`] | how many encodings its publisher should send |
//! | [`encoding`] | one encoding as it arrives: its source, its clock, whether it is alive |
//! | [`select`] | which layers of an encoding a subscription gets, and where that changes |
//! | [`pictures`] | picture ids and frame numbers, continued across all of that |
//! | [`numbering`] | numbers without gaps for what is withheld |
//! | [`wrapping`] | comparison of numbers that wrap (RFC 1982, RFC 3550) |
//! | [`descriptor`] | what packets say about frames and layers: VP8, VP9, H.264, AV1, dependency descriptor |
//! | [`keyframe`] | where a keyframe starts |
//! | [`request`] | how often a publisher is asked for a keyframe |
//! | [`speaker`] | who speaks, smoothed from audio levels |
//! | [`loudest`] | which voices of a large room are forwarded |
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

pub mod bandwidth;
pub mod counters;
pub mod demand;
pub mod descriptor;
pub mod encoding;
pub mod extension;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod keyframe;
pub mod ladder;
pub mod layers;
pub mod loudest;
pub mod numbering;
pub mod packet;
pub mod pictures;
pub mod request;
pub mod rewrite;
pub mod select;
pub mod session;
mod slab;
pub mod speaker;
pub mod wrapping;

pub use counters::Counters;
pub use descriptor::{Patch, Resolution};
pub use extension::{Extension, ExtensionIds, IdMap};
pub use layers::{EncodingId, Layer, MAX_ENCODINGS, Target};
pub use packet::{Codec, Packet};
pub use session::{Current, Output, PublicationId, Session, Standing, SubscriptionId};
pub use wrapping::{Sequence, Timestamp};
