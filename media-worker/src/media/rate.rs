//! How many packets a second this worker sends, and whether that is as much as it may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The rate is that of the last completed interval of at least this length.
const INTERVAL: Duration = Duration::from_millis(500);

/// Measures when it is asked; the media threads only count, once for each batch.
pub struct Rate {
    sent: Arc<AtomicU64>,
    limit: u64,
    last: Mutex<Measured>,
}

struct Measured {
    at: Instant,
    sent: u64,
    per_second: u64,
}

impl Rate {
    pub fn new(limit: u64) -> Self {
        let last = Mutex::new(Measured { at: Instant::now(), sent: 0, per_second: 0 });
        Self { sent: Arc::default(), limit, last }
    }

    /// What the media threads count in.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Whether more is sent than allowed.
    pub fn is_exceeded(&self) -> bool {
        self.per_second(Instant::now()) > self.limit
    }

    fn per_second(&self, now: Instant) -> u64 {
        let mut last = self.last.lock().expect("nothing here panics while it holds the lock");
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed >= INTERVAL {
            let sent = self.sent.load(Ordering::Relaxed);
            let per_second = (sent - last.sent) as f64 / elapsed.as_secs_f64();
            *last = Measured { at: now, sent, per_second: per_second as u64 };
        }
        last.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_when_more_is_sent_than_allowed_and_when_no_more() {
        let rate = Rate::new(100);
        let start = Instant::now();
        rate.counter().fetch_add(1000, Ordering::Relaxed);
        assert_eq!(rate.per_second(start), 0, "nothing is known before an interval has passed");
        let later = start + Duration::from_secs(2);
        assert!((490..=500).contains(&rate.per_second(later)));
        assert!(rate.is_exceeded());
        assert_eq!(rate.per_second(later + INTERVAL), 0, "nothing was sent since");
        assert!(!rate.is_exceeded());
    }
}
