//! The delay-based estimate: up while the path's queue stays empty, down to what it delivers when it
//! grows (draft-ietf-rmcat-gcc-02, section 5.5).

use super::Micros;
use super::delay::Usage;

/// What is left of the delivered rate after a decrease. Closer to it than the draft's 0.85: how much less is
/// sent until the queue is empty is decided by the queue itself (`Estimator::target`).
const DECREASE: f64 = 0.92;
/// A path that lets this part of what is sent through carries it: then what looks like a queue may be packets that were held up (by a
/// radio link, or a receiver that had no time), and what arrives says nothing about what would.
const PASSES: f64 = 0.85;
/// When the path stood still for more than the rest of the last half second, what arrived in its last fifth is no measure.
const AWAKE: f64 = 0.9;
/// What is left of the estimate after a decrease on such a path, once in a response time: if the queue is real, this empties it too.
const GENTLE: f64 = 0.85;
/// Growth per second while the capacity is not known.
const GROWTH: f64 = 0.08;
/// The estimate is at most this many times what arrives: an application that sends little proves little.
const HEADROOM: f64 = 1.5;
/// Bits that are added per response time near the known capacity: one packet.
const PACKET: f64 = 9600.0;
/// What a response takes beyond a round trip: detecting, and the feedback's own interval.
const REACTION: Micros = 100_000;
/// Weight of a new sample of the capacity.
const CAPACITY_WEIGHT: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
}

/// The path's capacity, as decreases found it: mean and normalized variance, in kbit/s.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    mean: f64,
    variance: f64,
}

impl Capacity {
    /// Three standard deviations.
    fn spread(&self) -> f64 {
        3.0 * (self.variance * self.mean).sqrt()
    }

    fn sample(capacity: Option<Self>, kbps: f64) -> Self {
        let Some(Self { mean, variance }) = capacity else {
            return Self { mean: kbps, variance: 0.4 };
        };
        let mean = mean + CAPACITY_WEIGHT * (kbps - mean);
        let error = mean - kbps;
        let variance = (1.0 - CAPACITY_WEIGHT) * variance + CAPACITY_WEIGHT * error * error / mean.max(1.0);
        Self { mean, variance: variance.clamp(0.4, 2.5) }
    }
}

/// What goes over the path, in bit/s; `None` while it is not known.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// What arrives, over half a second and over a fifth of one.
    pub delivered: Option<f64>,
    pub quick: Option<f64>,
    /// The part of the half second in which the path did not stand still.
    pub awake: f64,
    /// The part of what is sent that gets through, more than 1 while a queue empties.
    pub through: Option<f64>,
}

impl Rates {
    fn passes(&self) -> bool {
        self.through.is_some_and(|through| through > PASSES)
    }

    /// What the path carries while a queue stands in it.
    fn carried(&self) -> Option<f64> {
        if self.awake < AWAKE {
            return self.delivered.map(|rate| rate / self.awake);
        }
        self.quick.or(self.delivered)
    }
}

/// See the module.
#[derive(Debug)]
pub struct RateControl {
    estimate: f64,
    state: State,
    capacity: Option<Capacity>,
    changed: Option<Micros>,
    decreased: Option<Micros>,
}

impl RateControl {
    pub fn new(estimate: f64) -> Self {
        Self { estimate, state: State::Hold, capacity: None, changed: None, decreased: None }
    }

    /// In bit/s.
    pub fn estimate(&self) -> f64 {
        self.estimate
    }

    /// When the estimate last went down.
    pub fn decreased(&self) -> Option<Micros> {
        self.decreased
    }

    /// A probe found that the path carries this much.
    pub fn set(&mut self, now: Micros, estimate: f64) {
        self.estimate = estimate;
        self.changed = Some(now);
    }

    /// Takes what the path's queue does, and what goes over the path.
    pub fn update(&mut self, now: Micros, usage: Usage, rates: Rates, round_trip: Micros) {
        let elapsed = (now - self.changed.unwrap_or(now)).clamp(0, 1_000_000) as f64 / 1e6;
        match usage {
            Usage::Over => self.decrease(now, rates, round_trip),
            Usage::Under => {
                self.state = State::Hold;
                self.changed = Some(now);
            }
            Usage::Normal if self.state == State::Hold => {
                self.state = State::Increase;
                self.changed = Some(now);
            }
            Usage::Normal => {
                self.increase(elapsed, rates.delivered, round_trip);
                self.changed = Some(now);
            }
        }
    }

    fn increase(&mut self, elapsed: f64, rate: Option<f64>, round_trip: Micros) {
        let Some(rate) = rate else { return };
        if self.capacity.is_some_and(|it| rate / 1e3 > it.mean + it.spread()) {
            self.capacity = None;
        }
        let step = if self.capacity.is_some() {
            let response = 2.0 * (round_trip + REACTION) as f64 / 1e6;
            (PACKET / response).max(4000.0) * elapsed
        } else {
            (self.estimate * GROWTH).max(1000.0) * elapsed
        };
        let most = HEADROOM * rate + 10_000.0;
        if self.estimate < most {
            self.estimate = (self.estimate + step).min(most);
        }
    }

    fn decrease(&mut self, now: Micros, rates: Rates, round_trip: Micros) {
        self.state = State::Hold;
        self.changed = Some(now);
        let is_answered = self.decreased.is_none_or(|at| now - at > round_trip + REACTION);
        let Some(carried) = rates.carried() else {
            // Nothing is known of what arrives: half, once in a response time.
            if is_answered {
                self.estimate *= 0.5;
                self.decreased = Some(now);
            }
            return;
        };
        let mut reduced = DECREASE * carried;
        if rates.passes() {
            if !is_answered {
                return;
            }
            reduced = reduced.max(GENTLE * self.estimate);
        }
        if reduced < self.estimate {
            self.estimate = reduced;
            self.decreased = Some(now);
        }
        if self.capacity.is_some_and(|it| carried / 1e3 < it.mean - it.spread()) {
            self.capacity = None;
        }
        self.capacity = Some(Capacity::sample(self.capacity, carried / 1e3));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(delivered: f64, sent: f64) -> Rates {
        Rates {
            delivered: Some(delivered),
            quick: Some(delivered),
            awake: 1.0,
            through: Some(delivered / sent),
        }
    }

    #[test]
    fn what_passes_is_no_measure_of_what_would() {
        let over = |rates| {
            let mut control = RateControl::new(1e6);
            for step in 0..10 {
                control.update(step * 20_000, Usage::Over, rates, 50_000);
            }
            control.estimate()
        };
        assert_eq!(over(rates(5e4, 3e5)), DECREASE * 5e4, "it carries a sixth of what is sent");
        assert_eq!(
            over(rates(5e4, 5e4)),
            GENTLE * (GENTLE * 1e6),
            "all of it arrives: twice, in two response times"
        );
        assert_eq!(over(rates(1e6, 1e6)), DECREASE * 1e6, "down to what arrives, which is most of it");
        let paused = Rates { delivered: Some(2e5), quick: Some(3e4), awake: 0.7, through: Some(0.8) };
        assert_eq!(
            over(paused),
            DECREASE * 2e5 / 0.7,
            "down to what it carries when it does not stand still"
        );
    }

    #[test]
    fn grows_by_its_share_until_a_queue_does_and_then_carefully() {
        let mut control = RateControl::new(1e6);
        let mut now = 0;
        let mut run = |control: &mut RateControl, usage, rate, seconds: i64| {
            for _ in 0..seconds * 10 {
                now += 100_000;
                control.update(now, usage, rates(rate, 2.0 * rate), 50_000);
            }
        };
        run(&mut control, Usage::Normal, 2e6, 1);
        let free = control.estimate();
        assert!((1.06e6..1.09e6).contains(&free), "{free}");
        run(&mut control, Usage::Over, 5e5, 1);
        assert_eq!(control.estimate(), DECREASE * 5e5);
        assert!(control.decreased().is_some());
        run(&mut control, Usage::Normal, 4.9e5, 1);
        let careful = control.estimate() - DECREASE * 5e5;
        assert!((20e3..40e3).contains(&careful), "{careful}");
        run(&mut control, Usage::Under, 4.9e5, 1);
        assert_eq!(control.estimate() - DECREASE * 5e5, careful, "held while the queue empties");
    }

    #[test]
    fn little_traffic_proves_little() {
        let mut control = RateControl::new(1e6);
        for step in 0..600 {
            control.update(step * 100_000, Usage::Normal, rates(1e5, 1e5), 50_000);
        }
        assert_eq!(control.estimate(), 1e6, "neither up nor down");
    }
}
