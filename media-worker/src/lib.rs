//! The media worker: one process that hosts sessions' media and does the commands about them.
//!
//! ```text
//!   workers, session.<id>, worker.<id> ──▶ inbox ──▶ commands ──▶ media plane (own thread)
//!          change stream ──▶ listeners        │          │              │ offers, candidates, states
//!                                             ▼          ▼              ▼
//!                                         registry     store ◀─ sync ── media_events
//!                                                                  │
//!                                        user queues, exchange ◀─ report
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`media`] | the media plane: sockets, connections, forwarding |
//! | `worker` | start and stop of everything below |
//! | `listeners` | change stream to session inboxes |
//! | `inbox` | delivery to command done once; acknowledge, put back or dead-letter |
//! | `commands` | one file per command |
//! | `placement`, `reconcile`, `ring`, `leases` | the decisions, pure |
//! | `registry` | what lives here, by id |
//! | `sync`, `report` | what happened: to the store, to clients |
//! | `timeline` | what happened, for the session's timeline |
//! | `media_events` | what the media plane reports |
//! | `drain` | moves everything to other workers, without a gap |
//! | `lease`, `standing`, `load` | heartbeat, whether this worker may act, its figures |
//! | `peers` | the death of other workers |
//! | `sweep` | what nobody else ends |
//! | `serial` | ordered work per key |
//! | [`relay`] | a TURN and STUN server of its own, to its media port only |
//! | `metrics` | the table of metrics |
//! | `spans` | what the worker adds to a command's trace |

pub mod media;
pub mod public_address;
pub mod relay;

mod commands;
mod config;
mod context;
mod drain;
mod ended;
mod inbox;
mod lease;
mod leases;
mod listeners;
mod load;
mod media_events;
pub mod metrics;
mod peers;
mod placement;
mod quality;
mod reconcile;
mod registry;
mod report;
mod ring;
mod serial;
mod spans;
mod standing;
mod sweep;
mod sync;
mod timeline;
mod worker;

pub use config::WorkerConfig;
pub use load::MeasureLoad;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use media::fuzzing;
pub use placement::choose as choose_worker;
pub use worker::{Parts, StartError, Worker};
