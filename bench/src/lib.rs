//! What it costs: helpers of the benchmark programs in `src/bin`.
//!
//! | program | measures |
//! |---|---|
//! | `forward-core` | nanoseconds and allocations per forwarded packet in `sfu` |
//! | `forward-adapter` | CPU time, allocations, latency and memory of the media threads, on real sockets; join storms and floods |
//! | `placement` | how evenly sessions are placed on many workers, in virtual time, and what a decision costs |
//! | `whole-process` | bytes in use for each subscriber in the all-in-one process, API, broker and store included |
//!
//! Run them in release: `cargo run --release -p bench --bin forward-core`.

pub mod allocations;
pub mod client;
pub mod clock;
pub mod flood;
pub mod placement;
pub mod room;
pub mod whole;
