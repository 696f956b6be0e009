//! Counts what flows, and how fast: two additions for each packet, everything else at a look every now and then.

use std::time::{Duration, Instant};

/// Packets and payload bytes of one stream since it began, and their rate between the last two looks.
#[derive(Debug, Clone)]
pub struct Meter {
    pub packets: u64,
    pub bytes: u64,
    looked: Instant,
    packets_then: u64,
    bytes_then: u64,
    /// Between the last two looks; `None` before the second.
    bitrate_bps: Option<u64>,
    packets_between: u64,
}

/// A shorter window says nothing about a rate.
const LEAST: Duration = Duration::from_millis(100);

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self {
            packets: 0,
            bytes: 0,
            looked: now,
            packets_then: 0,
            bytes_then: 0,
            bitrate_bps: None,
            packets_between: 0,
        }
    }

    /// Takes a packet with so many bytes of payload.
    pub fn note(&mut self, payload: usize) {
        self.packets += 1;
        self.bytes += payload as u64;
    }

    /// Ends one window and begins the next.
    pub fn look(&mut self, now: Instant) {
        let bitrate_bps = self.running(now);
        self.bitrate_bps = bitrate_bps.or(self.bitrate_bps);
        self.packets_between = self.packets - self.packets_then;
        (self.looked, self.packets_then, self.bytes_then) = (now, self.packets, self.bytes);
    }

    /// Of the window before, or of the running one when there is none before it.
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        self.bitrate_bps.or_else(|| self.running(now)).unwrap_or_default()
    }

    /// Packets between the last two looks.
    pub fn packets_between(&self) -> u64 {
        self.packets_between
    }

    /// Whether anything came in this window or the one before.
    pub fn is_active(&self) -> bool {
        self.packets_between > 0 || self.packets > self.packets_then
    }

    fn running(&self, now: Instant) -> Option<u64> {
        let time = now.saturating_duration_since(self.looked);
        let bits = u128::from(self.bytes - self.bytes_then) * 8;
        (time >= LEAST).then(|| (bits * 1_000_000 / time.as_micros()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_window_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::new(start);
        assert!(!meter.is_active());
        (0..100).for_each(|_| meter.note(250));
        assert_eq!(meter.bitrate_bps(at(10)), 0, "too early to say");
        assert_eq!(meter.bitrate_bps(at(1000)), 200_000, "the running one, while there is no other");
        meter.look(at(2000));
        (0..10).for_each(|_| meter.note(250));
        assert_eq!((meter.bitrate_bps(at(2100)), meter.packets, meter.bytes), (100_000, 110, 27_500));
        meter.look(at(4000));
        assert_eq!(meter.bitrate_bps(at(4000)), 10_000);
        assert!(meter.is_active(), "something came in the window before");
        meter.look(at(6000));
        assert_eq!((meter.bitrate_bps(at(6000)), meter.is_active()), (0, false));
    }
}
