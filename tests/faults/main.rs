//! What a room goes through when processes die, under real processes and real media: killed at moments that a seed decides.
//!
//! | file | breaks |
//! |---|---|
//! | `outages.rs` | RabbitMQ, MongoDB, and both: killed and restarted, stopped for a while |
//! | `events.rs` | API instances, under readers of all three transports |
//! | `webhooks.rs` | the API instance that tells receivers |
//! | `workers.rs` | workers: killed, paused past their lease, back under their old id |
//! | `attachment.rs` | the change stream, and the history behind it |
//! | `housekeeping.rs` | nothing: what comes and goes leaves nothing behind |
//!
//! A run prints its seed; `SWITCHYARD_FAULTS_SEED` replays one. How much is broken how often is in the environment too:
//!
//! | variable | default | |
//! |---|---|---|
//! | `SWITCHYARD_FAULTS_OUTAGE_SECONDS` | 20 | how long RabbitMQ and MongoDB are stopped |
//! | `SWITCHYARD_FAULTS_EVENTS` | 25,000 | events that are read while API instances die |
//! | `SWITCHYARD_FAULTS_KILLS` | 6 | workers that are killed under one room |
//! | `SWITCHYARD_FAULTS_CHURN` | 60 | sessions that are created, joined and closed |
//!
//! `tests/run faults` starts what it needs: `outages.rs` and `attachment.rs` have servers of their own, which they end.

mod attachment;
mod events;
mod housekeeping;
mod outages;
mod readers;
mod room;
mod webhooks;
mod workers;

/// A number from the environment, or the default.
fn setting(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => default,
    }
}
