//! How many packets a second this worker sends.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The rate is that of the last completed interval of at least this length.
const INTERVAL: Duration = Duration::from_millis(500);

/// Measures when it is asked; the media threads only count, once for each batch.
pub struct Rate {
    last: Mutex<Measured>,
}

struct Measured {
    at: Instant,
    sent: u64,
    per_second: u64,
}

impl Rate {
    pub fn new() -> Self {
        Self { last: Mutex::new(Measured { at: Instant::now(), sent: 0, per_second: 0 }) }
    }

    /// The rate, with `sent` packets sent until now.
    pub fn per_second(&self, sent: u64) -> u64 {
        self.per_second_at(Instant::now(), sent)
    }

    fn per_second_at(&self, now: Instant, sent: u64) -> u64 {
        let mut last = self.last.lock().expect("nothing here panics while it holds the lock");
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed >= INTERVAL {
            let per_second = sent.saturating_sub(last.sent) as f64 / elapsed.as_secs_f64();
            *last = Measured { at: now, sent, per_second: per_second as u64 };
        }
        last.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_that_of_the_last_interval() {
        let (rate, start) = (Rate::new(), Instant::now());
        assert_eq!(rate.per_second_at(start, 1000), 0, "nothing is known before an interval has passed");
        let later = start + Duration::from_secs(2);
        assert!((490..=500).contains(&rate.per_second_at(later, 1000)));
        assert_eq!(rate.per_second_at(later + INTERVAL, 1000), 0, "nothing was sent since");
    }
}
