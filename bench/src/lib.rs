//! What it costs: helpers of the benchmark programs in `src/bin`.
//!
//! | program | measures |
//! |---|---|
//! | `forward-core` | nanoseconds and allocations per forwarded packet in `sfu` |
//! | `forward-adapter` | CPU time and allocations per forwarded packet of the whole media thread, on real sockets |
//!
//! Run them in release: `cargo run --release -p bench --bin forward-core`.

pub mod allocations;
