//! What this worker may take, and whether it has got there: endpoints, packets a second, tracks, memory.
//!
//! A worker that refuses in time keeps its promises to who is there already. All limits are asked when an endpoint is
//! opened, and the one on tracks again when one is published; never for a packet.

mod memory;
mod rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{MediaConfig, PACKETS_PER_THREAD};
use memory::Memory;
use rate::Rate;

/// See the module.
pub struct Limits {
    sent: Arc<AtomicU64>,
    rate: Rate,
    memory: Memory,
    max_packets_per_second: u64,
    max_tracks: usize,
}

impl Limits {
    pub fn new(config: &MediaConfig, threads: usize) -> Self {
        let max_packets_per_second = match config.max_packets_per_second {
            0 => PACKETS_PER_THREAD * threads as u64,
            limit => limit,
        };
        Self {
            sent: Arc::default(),
            rate: Rate::new(),
            memory: Memory::new(config.max_memory_bytes),
            max_packets_per_second,
            max_tracks: config.max_tracks,
        }
    }

    /// Where the media threads count the packets that they send, once for each batch.
    pub fn sent(&self) -> &Arc<AtomicU64> {
        &self.sent
    }

    /// How much is taken of the limit that is nearest, with so many tracks: 0 to 1, and above when it was overrun.
    pub fn share(&self, tracks: usize) -> f64 {
        let rate = self.rate.per_second(self.sent.load(Ordering::Relaxed)) as f64;
        let shares = [
            rate / self.max_packets_per_second as f64,
            tracks as f64 / self.max_tracks as f64,
            self.memory.share(),
        ];
        shares.into_iter().fold(0.0, f64::max)
    }

    /// The limit that was reached, if any, with so many tracks.
    pub fn reached(&self, tracks: usize) -> Option<&'static str> {
        if self.rate.per_second(self.sent.load(Ordering::Relaxed)) > self.max_packets_per_second {
            Some("packets per second")
        } else if tracks >= self.max_tracks {
            Some("tracks")
        } else if self.memory.is_exceeded() {
            Some("memory")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_and_memory_are_limits() {
        let config = MediaConfig { max_tracks: 5, ..MediaConfig::default() };
        let limits = Limits::new(&config, 1);
        assert_eq!((limits.reached(4), limits.reached(5)), (None, Some("tracks")));
        let limits = Limits::new(&MediaConfig { max_memory_bytes: 1, ..config }, 1);
        assert_eq!(limits.reached(0), Some("memory"));
    }

    #[test]
    fn the_share_is_that_of_the_nearest_limit() {
        let config = MediaConfig { max_tracks: 8, max_memory_bytes: u64::MAX, ..MediaConfig::default() };
        let limits = Limits::new(&config, 1);
        assert_eq!((limits.share(4), limits.share(8)), (0.5, 1.0));
        assert!(limits.share(0) < 0.01, "{}", limits.share(0));
    }

    #[test]
    fn more_threads_may_send_more() {
        let of = |threads| Limits::new(&MediaConfig::default(), threads).max_packets_per_second;
        assert_eq!((of(1), of(4)), (PACKETS_PER_THREAD, 4 * PACKETS_PER_THREAD));
    }
}
