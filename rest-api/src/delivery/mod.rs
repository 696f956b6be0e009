//! User queues to clients: long poll, SSE and WebSocket, whichever instance the client reaches.
//!
//! ```text
//! user.<session>.<participant>.<endpoint> ──inbox (exclusive)──▶ Lease ──▶ one reader: poll | SSE | WebSocket
//!                                                                  │ unsettled deliveries, in order
//!                    confirmed by cursor, Last-Event-ID or ack ────┘ acknowledge up to and including it
//! ```
//!
//! | part | does |
//! |---|---|
//! | [`recipient`] | whose events: one endpoint of one participant |
//! | [`lease`] | one user queue held by this instance: what was read and not confirmed yet |
//! | [`readers`] | at most one reader per user queue: newer ones supersede, other instances let go |
//! | [`events`] | stored events to what clients see; which of them end a stream |
//! | [`credentials`] | for how long those of a stream count |
//! | [`poll`], [`sse`], [`websocket`] | the three transports |
//!
//! # Promises
//! - At least once and in order. A delivery is acknowledged only when the client confirmed it (SSE: see [`sse`]).
//! - Unconfirmed deliveries stay with the lease between two polls. When the lease goes (idle for 35 s, taken over, this
//!   process dies) they return to their place in the queue.
//! - A newer reader of the same endpoint wins, on whichever instance; the older one ends. Readers of different endpoints
//!   of one participant have nothing to do with each other.

mod credentials;
mod events;
mod lease;
mod readers;
mod recipient;

pub mod poll;
pub mod sse;
pub mod websocket;

pub use credentials::{Credentials, Lapse};
pub use events::{Ends, Held};
pub use lease::Lease;
pub use readers::{Acquired, LetGo, PeerMessage, Reader, Readers, Refused};
pub use recipient::Recipient;
