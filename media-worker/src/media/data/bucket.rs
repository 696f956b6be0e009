//! How fast one endpoint may send messages. Pure: the time comes in.

use std::time::{Duration, Instant};

/// What may be used up at once before the rest has to wait for its time.
const BURST: Duration = Duration::from_secs(1);

/// A leaky bucket: every message costs some time, and there may be at most [`BURST`] of it ahead of the clock.
#[derive(Debug)]
pub struct Bucket {
    /// When nothing is owed any more.
    even_at: Instant,
}

impl Bucket {
    pub fn new(now: Instant) -> Self {
        Self { even_at: now }
    }

    /// When the next message may be taken.
    pub fn ready_at(&self) -> Instant {
        self.even_at.checked_sub(BURST).unwrap_or(self.even_at)
    }

    pub fn is_ready(&self, now: Instant) -> bool {
        self.ready_at() <= now
    }

    pub fn take(&mut self, now: Instant, cost: Duration) {
        self.even_at = self.even_at.max(now) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_and_then_one_by_one() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(start);
        let mut taken = 0;
        while bucket.is_ready(start) {
            bucket.take(start, Duration::from_millis(10));
            taken += 1;
        }
        assert_eq!(taken, 101, "the last one may go over");
        assert_eq!(bucket.ready_at(), start + Duration::from_millis(10));
        assert!(bucket.is_ready(start + Duration::from_millis(10)));
        bucket.take(start + Duration::from_secs(60), Duration::from_millis(10));
        assert_eq!(bucket.ready_at(), start + Duration::from_millis(59_010), "what was not used is not kept");
    }
}
