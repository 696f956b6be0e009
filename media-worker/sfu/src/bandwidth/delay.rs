//! Whether a queue grows on the way: from the spacing of packets as sent and as they arrived.
//!
//! Packets that were sent together are one group. From group to group the one-way delay changes; a line
//! through the last twenty of these (smoothed) delays has a slope, and a slope beyond a threshold that
//! adapts to the path's own noise is a queue that grows (draft-ietf-rmcat-gcc-02, section 5, with a
//! trendline in the place of the Kalman filter, as browsers have it).

use super::Micros;
use super::feedback::Arrival;

/// Packets sent within this time are one group.
const BURST: Micros = 5_000;
/// Packets that a queue or a radio link releases together belong together up to this long.
const MAX_BURST: Micros = 100_000;
/// A gap in the arrivals after which the past says nothing.
const STALE: Micros = 3_000_000;
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Turns the slope into something to hold against a threshold in ms.
const GAIN: f64 = 4.0;
/// The slope counts fully from this many groups on.
const MAX_GROUPS: f64 = 60.0;
/// How fast the threshold follows what it is compared with, per ms: slowly up, more slowly down.
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
const THRESHOLD_FIRST: f64 = 12.5;
const THRESHOLD_BOUNDS: (f64, f64) = (6.0, 600.0);
/// What is farther from the threshold than this is a jump of the path and moves nothing.
const THRESHOLD_JUMP: f64 = 15.0;
/// The slope must have been too steep this long, in ms.
const OVERUSE_TIME: f64 = 10.0;
/// The delay of the empty path is the least of this long.
const BASE_WINDOW: Micros = 10_000_000;

/// What the path's queue does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// It empties.
    Under,
    #[default]
    Normal,
    /// It grows.
    Over,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: Micros,
    last_sent: Micros,
    first_arrived: Micros,
    last_arrived: Micros,
}

/// See the module.
#[derive(Debug)]
pub struct DelayDetector {
    current: Option<Group>,
    previous: Option<Group>,
    /// Arrival and smoothed delay in ms, a ring.
    points: [(f64, f64); WINDOW],
    groups: usize,
    accumulated: f64,
    smoothed: f64,
    began: Micros,
    last_slope: f64,
    threshold: f64,
    threshold_at: Option<Micros>,
    /// For how long the slope has been too steep, in ms.
    over_for: Option<f64>,
    usage: Usage,
    /// The least one-way delay (of clocks that differ) in this window and in the one before.
    base: [Option<Micros>; 2],
    base_since: Micros,
    queue: Micros,
}

impl Default for DelayDetector {
    fn default() -> Self {
        Self {
            current: None,
            previous: None,
            points: [(0.0, 0.0); WINDOW],
            groups: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            began: 0,
            last_slope: 0.0,
            threshold: THRESHOLD_FIRST,
            threshold_at: None,
            over_for: None,
            usage: Usage::Normal,
            base: [None; 2],
            base_since: 0,
            queue: 0,
        }
    }
}

impl DelayDetector {
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How long the newest packet waited in queues on its way, against the emptiest path of the last
    /// ten to twenty seconds.
    pub fn queue(&self) -> Micros {
        self.queue
    }

    pub fn handle_arrival(&mut self, packet: &Arrival) {
        self.measure_queue(packet);
        let fresh = Group {
            first_sent: packet.sent,
            last_sent: packet.sent,
            first_arrived: packet.arrived,
            last_arrived: packet.arrived,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(fresh);
            return;
        };
        if packet.arrived - current.last_arrived > STALE || current.first_arrived - packet.arrived > STALE {
            (self.current, self.previous) = (Some(fresh), None);
            (self.groups, self.accumulated, self.smoothed) = (0, 0.0, 0.0);
            (self.over_for, self.usage) = (None, Usage::Normal);
            return;
        }
        if packet.sent < current.first_sent {
            // Overtaken on its way; its group is done.
            return;
        }
        if current.takes(packet) {
            current.last_sent = current.last_sent.max(packet.sent);
            current.last_arrived = current.last_arrived.max(packet.arrived);
            return;
        }
        let done = std::mem::replace(current, fresh);
        if let Some(previous) = self.previous.replace(done) {
            let arrived = (done.last_arrived - previous.last_arrived) as f64 / 1000.0;
            let sent = (done.last_sent - previous.last_sent) as f64 / 1000.0;
            if arrived >= 0.0 {
                self.add(done.last_arrived, sent, arrived - sent);
            }
        }
    }

    /// Takes a packet for [`DelayDetector::queue`] only.
    pub fn measure_queue(&mut self, packet: &Arrival) {
        let delay = packet.arrived - packet.sent;
        if self.base[0].is_none() || packet.sent - self.base_since > BASE_WINDOW {
            self.base = [Some(delay), self.base[0]];
            self.base_since = packet.sent;
        }
        self.base[0] = Some(self.base[0].map_or(delay, |least| least.min(delay)));
        let base = self.base.iter().flatten().min().copied().unwrap_or(delay);
        self.queue = delay - base;
    }

    /// Takes the change of delay from one group to the next, both in ms; `sent` is their distance.
    fn add(&mut self, arrived: Micros, sent: f64, change: f64) {
        if self.groups == 0 {
            self.began = arrived;
        }
        self.accumulated += change;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let at = (arrived - self.began) as f64 / 1000.0;
        self.points[self.groups % WINDOW] = (at, self.smoothed);
        self.groups += 1;
        let slope = if self.groups >= WINDOW { slope(&self.points) } else { self.last_slope };
        self.detect(arrived, sent, slope);
    }

    fn detect(&mut self, arrived: Micros, sent: f64, slope: f64) {
        if self.groups < 2 {
            return;
        }
        let steepness = (self.groups as f64).min(MAX_GROUPS) * slope * GAIN;
        if steepness > self.threshold {
            let over_for = self.over_for.map_or(sent / 2.0, |over_for| over_for + sent);
            let is_first = self.over_for.is_none();
            self.over_for = Some(over_for);
            if over_for > OVERUSE_TIME && !is_first && slope >= self.last_slope {
                self.over_for = Some(0.0);
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = None;
            self.usage = if steepness < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.last_slope = slope;
        self.adapt(arrived, steepness.abs());
    }

    fn adapt(&mut self, arrived: Micros, steepness: f64) {
        let elapsed = (arrived - self.threshold_at.replace(arrived).unwrap_or(arrived)) as f64 / 1000.0;
        if steepness > self.threshold + THRESHOLD_JUMP {
            return;
        }
        let speed = if steepness < self.threshold { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let step = speed * (steepness - self.threshold) * elapsed.clamp(0.0, 100.0);
        self.threshold = (self.threshold + step).clamp(THRESHOLD_BOUNDS.0, THRESHOLD_BOUNDS.1);
    }
}

impl Group {
    fn takes(&self, packet: &Arrival) -> bool {
        if packet.sent - self.first_sent <= BURST {
            return true;
        }
        // Released together although sent apart: a queue that empties in one go.
        let gap = packet.arrived - self.last_arrived;
        let change = gap - (packet.sent - self.last_sent);
        change < 0 && gap <= BURST && packet.arrived - self.first_arrived < MAX_BURST
    }
}

/// The slope of the line of least squares; 0 when the points stand above each other.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x_mean, y_mean) =
        points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - x_mean) * (y - y_mean);
        below += (x - x_mean) * (x - x_mean);
    }
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets 10 ms apart of which each arrives `growth` µs later than the one before; what is said
    /// first that is not normal, and after how many.
    fn first_verdict(growth: Micros, jitter: Micros) -> Option<(Usage, Micros)> {
        let mut detector = DelayDetector::default();
        for index in 0..500 {
            let growth = if index < 100 { 0 } else { (index - 100) * growth };
            let jitter = index * 7919 % 11 * jitter / 10;
            let (sent, arrived) = (index * 10_000, index * 10_000 + 50_000 + growth + jitter);
            detector.handle_arrival(&Arrival { sent, arrived, size: 1000, cluster: None });
            if detector.usage() != Usage::Normal {
                return Some((detector.usage(), index - 100));
            }
        }
        None
    }

    #[test]
    fn a_growing_queue_is_noticed_soon_and_jitter_is_not_one() {
        assert_eq!(first_verdict(0, 0), None);
        assert_eq!(first_verdict(0, 8000), None);
        let (usage, after) = first_verdict(5000, 0).unwrap();
        assert_eq!(usage, Usage::Over);
        assert!(after < 20, "after {after} packets of 10 ms");
        assert_eq!(first_verdict(3000, 4000).unwrap().0, Usage::Over);
    }

    #[test]
    fn the_queue_is_measured_against_the_empty_path_however_the_clocks_differ() {
        let mut detector = DelayDetector::default();
        for (sent, delay) in [(0, -4_000_000), (1000, -3_900_000), (2000, -4_000_000)] {
            let arrived = sent + delay;
            detector.handle_arrival(&Arrival { sent, arrived, size: 1000, cluster: None });
            assert_eq!(detector.queue(), delay + 4_000_000);
        }
    }

    #[test]
    fn times_that_make_no_sense_do_no_harm() {
        let mut detector = DelayDetector::default();
        let times = [0, i64::MAX / 4, -(1 << 60), 5, 5, 5, 1 << 59];
        for (index, arrived) in times.into_iter().cycle().take(200).enumerate() {
            let sent = index as i64 * 6000;
            detector.handle_arrival(&Arrival { sent, arrived, size: 1, cluster: None });
        }
        assert!(detector.threshold.is_finite() && detector.last_slope.is_finite());
    }
}
