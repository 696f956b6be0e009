//! The loss-based bound, and which loss is no sign of congestion.
//!
//! A radio link loses packets at any rate; a full queue loses what is too much. The two are told apart by
//! trying: when more is lost than usual, the bound falls to what arrives. If the path was full, the loss
//! is gone then, and the bound rises again slowly. If as much is lost as before, it is the path's own
//! ([`LossBound::inherent`]), and sending less would only be less.

use super::Micros;

/// What a judgement needs: packets with a known fate, over at least this long.
const MIN_PACKETS: u32 = 25;
const MIN_LENGTH: Micros = 300_000;
/// What is doubtful is watched up to this long.
const MAX_LENGTH: Micros = 2_000_000;
/// How many standard deviations of chance are not believed, and what must be left then.
const CHANCE: f64 = 2.5;
const SIGNIFICANT: f64 = 0.05;
/// Loss beyond the inherent one that is congestion until proved otherwise (draft-ietf-rmcat-gcc-02, 6).
const CONGESTED: f64 = 0.10;
/// Below this much beyond it the bound rises.
const CLEAR: f64 = 0.02;
/// No path is believed to lose more than this by itself.
const MAX_INHERENT: f64 = 0.30;
/// At least this part of the loss must remain after a decrease for being the path's own.
const REMAINS: f64 = 0.6;
/// Growth of the bound per second once the loss is gone.
const GROWTH: f64 = 0.3;

/// A decrease whose effect is awaited.
#[derive(Debug, Clone, Copy)]
struct Trial {
    since: Micros,
    before: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LossBound {
    bound: Option<f64>,
    inherent: f64,
    trial: Option<Trial>,
    /// The window that is being filled.
    since: Option<Micros>,
    received: u32,
    lost: i64,
    /// The ratio of the last full window, and smoothed.
    last: f64,
    ratio: f64,
}

impl LossBound {
    /// In bit/s; `None` while loss limits nothing.
    pub fn bound(&self) -> Option<f64> {
        self.bound
    }

    /// The ratio of packets lost in the last seconds, 0 to 1.
    pub fn ratio(&self) -> f64 {
        self.ratio
    }

    /// A probe of this rate in bit/s came through.
    pub fn raise(&mut self, rate: f64) {
        if let Some(bound) = &mut self.bound {
            *bound = bound.max(rate);
        }
    }

    /// The ratio that the path loses at any rate.
    pub fn inherent(&self) -> f64 {
        self.inherent
    }

    /// Takes the fate of packets, and what is delivered in bit/s.
    pub fn update(
        &mut self,
        now: Micros,
        received: u32,
        lost: i32,
        delivered: Option<f64>,
        round_trip: Micros,
    ) {
        let since = *self.since.get_or_insert(now);
        self.received = self.received.saturating_add(received);
        self.lost += i64::from(lost);
        let packets = i64::from(self.received) + self.lost.max(0);
        if now - since < MIN_LENGTH || packets < i64::from(MIN_PACKETS) {
            return;
        }
        let last = self.lost.max(0) as f64 / packets as f64;
        let is_doubtful = last - self.inherent > CONGESTED && !self.is_significant(last, packets as f64);
        if self.trial.is_none() && is_doubtful && now - since < MAX_LENGTH {
            // Much, but of few packets: more of them will tell.
            return;
        }
        self.last = last;
        self.ratio += 0.2 * (self.last - self.ratio);
        (self.since, self.received, self.lost) = (Some(now), 0, 0);
        self.judge(now, packets as f64, (now - since) as f64 / 1e6, delivered, round_trip);
    }

    /// Whether more is lost than usual even with the luck of few packets taken off.
    fn is_significant(&self, lost: f64, packets: f64) -> bool {
        let chance = CHANCE * (lost * (1.0 - lost) / packets).sqrt();
        lost - self.inherent - chance > SIGNIFICANT
    }

    fn judge(&mut self, now: Micros, packets: f64, length: f64, delivered: Option<f64>, round_trip: Micros) {
        // What is lost less than before was never the path's own.
        if self.last < self.inherent {
            self.inherent += 0.3 * (self.last - self.inherent);
        }
        if let Some(trial) = self.trial {
            // The window must have begun after the decrease took effect at the other end.
            if now - trial.since < round_trip + 2 * MIN_LENGTH {
                return;
            }
            self.trial = None;
            // What is lost of what surely fits is lost at any rate.
            self.inherent = self.inherent.max(self.last.min(MAX_INHERENT));
            if self.last > REMAINS * trial.before && self.last <= MAX_INHERENT {
                self.bound = None;
                return;
            }
        }
        let excess = self.last - self.inherent;
        if excess > CONGESTED && self.is_significant(self.last, packets) {
            let Some(delivered) = delivered else { return };
            self.bound = Some(delivered.min(self.bound.unwrap_or(f64::MAX)));
            self.trial = Some(Trial { since: now, before: self.last });
        } else if excess < CLEAR
            && let Some(bound) = &mut self.bound
        {
            *bound *= 1.0 + GROWTH * length.min(1.0);
            // Far above what arrives it bounds nothing.
            if delivered.is_some_and(|delivered| *bound > 2.0 * delivered + 50_000.0) {
                self.bound = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Path {
        bound: LossBound,
        now: Micros,
        /// What the source would send, in bit/s.
        wanted: f64,
    }

    impl Path {
        fn new() -> Self {
            Self { bound: LossBound::default(), now: 0, wanted: 1e6 }
        }

        /// Sends what the bound allows over a path with this capacity and loss; what was sent on average.
        fn run(&mut self, seconds: i64, capacity: f64, loss: f64) -> f64 {
            let mut total = 0.0;
            for _ in 0..seconds * 20 {
                self.now += 50_000;
                let sent = self.bound.bound().unwrap_or(f64::MAX).min(self.wanted);
                total += sent / (seconds * 20) as f64;
                let delivered = sent.min(capacity) * (1.0 - loss);
                let packets = (sent / 8.0 / 1000.0 / 20.0).max(1.0);
                let lost = (packets * (1.0 - delivered / sent)).round();
                self.bound.update(self.now, (packets - lost) as u32, lost as i32, Some(delivered), 100_000);
            }
            total
        }
    }

    #[test]
    fn a_path_that_is_too_narrow_bounds_and_lets_go() {
        let mut path = Path::new();
        path.run(3, 2e6, 0.0);
        assert_eq!(path.bound.bound(), None);
        path.run(2, 5e5, 0.0);
        let sent = path.run(3, 5e5, 0.0);
        assert!((4e5..6.5e5).contains(&sent), "{sent}");
        path.run(20, 2e6, 0.0);
        assert_eq!(path.bound.bound(), None);
        assert!(path.bound.inherent() < 0.02);
    }

    #[test]
    fn a_path_that_loses_at_any_rate_is_not_sent_less() {
        let mut path = Path::new();
        path.run(5, 2e6, 0.2);
        let sent = path.run(10, 2e6, 0.2);
        assert!(sent > 9.5e5, "{sent}");
        assert!((0.15..0.26).contains(&path.bound.inherent()));
        // And on top of it, congestion is still seen.
        path.run(3, 5e5, 0.2);
        let sent = path.run(5, 5e5, 0.2);
        assert!(sent < 7.5e5, "{sent}");
        // Once the path is clean, its past is forgotten.
        path.run(10, 2e6, 0.0);
        assert!(path.bound.inherent() < 0.01);
    }

    #[test]
    fn little_loss_changes_nothing() {
        let mut path = Path::new();
        assert_eq!(path.run(20, 2e6, 0.05), 1e6);
    }

    #[test]
    fn few_packets_prove_little() {
        let mut bound = LossBound::default();
        for step in 1..200 {
            // Of 26 packets in each window four are lost now and then.
            let lost = if step % 13 == 0 { 4 } else { 0 };
            bound.update(step * 300_000, 26 - lost as u32, lost, Some(1e5), 100_000);
            assert_eq!(bound.bound(), None);
        }
    }

    #[test]
    fn hardly_anything_gets_through() {
        let mut path = Path::new();
        path.run(10, 1e5, 0.0);
        let sent = path.run(5, 1e5, 0.0);
        assert!(sent < 2e5, "{sent}");
    }
}
