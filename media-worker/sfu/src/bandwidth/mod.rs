//! How much a subscriber's path carries, and what that is used for.
//!
//! ```text
//!   handle_sent ──▶ history ◀── handle_feedback            estimate()  what the path carries
//!                     │ arrivals                             target()  what may be sent now
//!        ┌────────────┼──────────┬─────────┐                    ▲
//!        ▼            ▼          ▼         ▼                    │
//!      delay ──▶ rate control ◀── recent,   probe ──▶ min(delay-based, loss-based, REMB) ──▶ allocate
//!                                 passage                       ▲
//!                                 │                             │
//!                                loss ──────────────────────────┘
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`feedback`] | what was sent, and what became of it |
//! | [`delay`] | does a queue grow on the path? |
//! | [`rate`] | up and down with that |
//! | [`loss`] | what loss says, and which loss says nothing |
//! | [`recent`] | how fast packets arrive |
//! | [`passage`] | do they get through as they are sent? |
//! | [`probe`] | bursts that find out more |
//! | [`budget`] | the pacer's decision |
//! | [`allocate`] | an estimate divided among tracks and layers |
//!
//! [`Estimator`] holds the first seven together. Like all of this crate it is told the time, and per packet it
//! allocates nothing once its history has its size. `docs/BANDWIDTH.md` has its figures.

pub mod allocate;
pub mod budget;
pub mod delay;
mod estimator;
pub mod feedback;
pub mod loss;
pub mod passage;
pub mod probe;
pub mod rate;
pub mod recent;

pub use estimator::{Config, Estimator, Stats};
pub use feedback::Feedback;

/// Time in µs since an epoch of its owner.
pub type Micros = i64;
