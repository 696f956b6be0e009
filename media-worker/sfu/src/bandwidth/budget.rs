//! The pacer's budget: how much may leave now, so that a burst (a keyframe, retransmissions) does not fill
//! the path's queue, where the voice behind it would wait.

use super::Micros;

/// What voice and large packets may run up at most, in bytes: they are not held back, and nobody pays long for it.
const MAX_DEBT: f64 = 3000.0;
/// How many times what is to be sent leaves at most. Little: where the path has just become a quarter as wide,
/// the voice between the packets of a frame that left at once would come in gaps.
pub const FACTOR: f64 = 1.05;
/// Nothing waits longer than about this: the rate rises so that what waits leaves in time.
const MAX_WAIT: f64 = 0.2;

/// See the module. What must not wait (voice) is sent without asking and only counted with [`Budget::spend`].
#[derive(Debug, Default)]
pub struct Budget {
    /// In bytes per second; 0: no limit.
    rate: f64,
    /// Bytes that may leave; negative while sent ahead of time.
    left: f64,
    at: Micros,
}

impl Budget {
    /// Sets what is to be sent in bit/s, and how many bytes wait.
    pub fn set(&mut self, now: Micros, rate: f64, waiting: usize) {
        self.refill(now);
        self.rate = (FACTOR * rate / 8.0).max(waiting as f64 / MAX_WAIT);
    }

    /// Whether another packet may leave.
    pub fn may_send(&mut self, now: Micros) -> bool {
        self.refill(now);
        self.rate == 0.0 || self.left > 0.0
    }

    pub fn spend(&mut self, bytes: usize) {
        self.left = (self.left - bytes as f64).max(-MAX_DEBT);
    }

    /// How long until another packet may leave, if that is not now.
    pub fn wait(&self) -> Micros {
        if self.rate == 0.0 || self.left > 0.0 { 0 } else { (-self.left / self.rate * 1e6) as Micros + 1 }
    }

    fn refill(&mut self, now: Micros) {
        let passed = (now - self.at).max(0) as f64 / 1e6;
        self.at = self.at.max(now);
        // Nothing is saved up: a packet leaves as soon as the one before is paid for.
        self.left = (self.left + self.rate * passed).min(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `packets` of 1000 bytes take that come together, in ms.
    fn drain(target: f64, packets: usize) -> Micros {
        let mut budget = Budget::default();
        let mut now = 1_000_000;
        budget.set(now, target, 1000 * packets);
        now += 1_000_000;
        let start = now;
        for left in (1..=packets).rev() {
            budget.set(now, target, 1000 * left);
            while !budget.may_send(now) {
                now += budget.wait();
            }
            budget.spend(1000);
        }
        (now - start) / 1000
    }

    #[test]
    fn a_burst_is_spread_and_nothing_waits_long() {
        assert!((2..=5).contains(&drain(8e6, 5)), "at a rate that hardly shows");
        let keyframe = drain(1e6, 20);
        assert!((120..=155).contains(&keyframe), "20 kB at 1.05 Mbit/s take {keyframe} ms");
        let large = drain(1e5, 100);
        assert!((200..1500).contains(&large), "what waits leaves in time: {large} ms");
    }

    #[test]
    fn without_a_target_nothing_is_held_back() {
        let mut budget = Budget::default();
        budget.spend(1 << 20);
        assert!(budget.may_send(0));
        assert_eq!(budget.wait(), 0);
    }
}
