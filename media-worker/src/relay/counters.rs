//! What the relay counts, and passes on once a second.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, gauge};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The password does not belong to the user name.
    Credentials,
    Expired,
    /// The user has as many allocations as one may have.
    UserQuota,
    /// There are as many allocations as there may be.
    Full,
    /// No relay port is free.
    Port,
    /// Another peer than this worker's media port.
    Peer,
    /// A TCP connection beyond those that may be tried at a time.
    Connection,
}

impl Refused {
    pub const NAMES: &[&str] =
        &["credentials", "expired", "user_quota", "full", "port", "peer", "connection"];
}

/// Why something is dropped without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// No STUN, no channel data, or nothing that belongs here.
    Malformed,
    /// Data of somebody without an allocation, or for another peer than this worker's media port, or without permission.
    Peer,
    /// The other side does not take it as fast as it comes.
    Slow,
}

impl Dropped {
    pub const NAMES: &[&str] = &["malformed", "peer", "slow"];
}

#[derive(Debug, Default)]
pub struct Counters {
    allocations: AtomicU64,
    refused: [AtomicU64; Refused::NAMES.len()],
    dropped: [AtomicU64; Dropped::NAMES.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Counters {
    pub fn allocated(&self) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn dropped(&self, why: Dropped) {
        self.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A payload went from a client to the media port.
    pub fn relayed_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// … and back.
    pub fn relayed_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn drops(&self, why: Dropped) -> u64 {
        self.dropped[why as usize].load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub fn refusals(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// To the metrics.
    pub fn pass_on(&self, allocations: usize) {
        gauge!("switchyard_worker_turn_allocations").set(allocations as f64);
        let total = self.allocations.load(Ordering::Relaxed);
        counter!("switchyard_worker_turn_allocations_total").absolute(total);
        for (reason, count) in Refused::NAMES.iter().zip(&self.refused) {
            let count = count.load(Ordering::Relaxed);
            counter!("switchyard_worker_turn_refused_total", "reason" => *reason).absolute(count);
        }
        for (reason, count) in Dropped::NAMES.iter().zip(&self.dropped) {
            let count = count.load(Ordering::Relaxed);
            counter!("switchyard_worker_turn_drops_total", "reason" => *reason).absolute(count);
        }
        for (direction, bytes) in [("in", &self.bytes_in), ("out", &self.bytes_out)] {
            let bytes = bytes.load(Ordering::Relaxed);
            counter!("switchyard_worker_turn_bytes_total", "direction" => direction).absolute(bytes);
        }
    }
}
