//! The estimator of one subscriber's path; see the module above.

use std::time::{Duration, Instant};

use super::Micros;
use super::delay::{DelayDetector, Usage};
use super::feedback::{Arrival, Feedback, History};
use super::loss::LossBound;
use super::passage::Passage;
use super::probe::{Probes, SLICE};
use super::rate::{RateControl, Rates};
use super::recent::RecentRate;
use crate::wrapping::Sequence;

/// How often there is something to do while nothing arrives.
const TICK: Micros = 200_000;
/// Between two probes of an application that could use more, the second also after one that filled the path.
const PROBE_INTERVAL: Micros = 3_000_000;
const PROBE_INTERVAL_FULL: Micros = 5_000_000;
/// After a decrease there is no probe for this long: the path's queue must empty first.
const PROBE_AFTER_DECREASE: Micros = 2_000_000;
/// A probe asks for at most this many times the estimate, and this much more than is wanted.
const PROBE_STEP: f64 = 2.0;
const PROBE_BEYOND: f64 = 1.25;
/// The first probes, in multiples of the first estimate.
const FIRST_PROBES: [f64; 2] = [3.0, 6.0];
/// No feedback for this long (or three round trips) while packets are sent is an outage; the target halves
/// with each further second.
const OUTAGE: Micros = 1_000_000;
/// What a client said in a REMB is forgotten after this long.
const REMB_VALID: Micros = 10_000_000;
/// Beyond this much waiting in the path's queue less is sent than estimated until it is empty, by at most
/// this part, at this much waiting.
const QUEUE_SMALL: f64 = 60_000.0;
const QUEUE_LARGE: f64 = 300_000.0;
const DRAIN: f64 = 0.35;
const DRAIN_TIME: Micros = 4_000_000;

/// Bounds of an estimate, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Before anything is known.
    pub start: u64,
    /// Never less: enough for one voice.
    pub min: u64,
    pub max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { start: 300_000, min: 30_000, max: 50_000_000 }
    }
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// In bit/s; `None` while the client has told nothing.
    pub estimate: Option<u64>,
    /// What may be sent now, in bit/s.
    pub target: Option<u64>,
    /// What arrives, in bit/s.
    pub delivered: Option<u64>,
    /// The part of packets lost lately, and that of them which is believed to be lost at any rate.
    pub loss: f64,
    pub inherent_loss: f64,
    pub round_trip: Option<Duration>,
    /// How long packets wait on the path.
    pub queue: Duration,
    /// Whether that is growing.
    pub is_overused: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Estimator {
    config: Config,
    epoch: Instant,
    history: History,
    delay: DelayDetector,
    rate: RateControl,
    loss: LossBound,
    delivered: RecentRate,
    passage: Passage,
    probes: Probes,
    /// First probes that have not begun.
    first_probes: usize,
    /// Whether the last probe filled the path.
    is_full: bool,
    /// What the tracks could use, in bit/s.
    wanted: f64,
    remb: Option<(Micros, f64)>,
    round_trip: Option<Micros>,
    last_feedback: Option<Micros>,
    /// The first packet that was sent after the last feedback.
    unanswered_since: Option<Micros>,
    next_tick: Option<Micros>,
    /// Of the feedback at hand, in the order of arrival; kept for its memory.
    arrivals: Vec<Arrival>,
}

impl Estimator {
    pub fn new(now: Instant, config: Config) -> Self {
        Self {
            config,
            epoch: now,
            history: History::default(),
            delay: DelayDetector::default(),
            rate: RateControl::new(config.start as f64),
            loss: LossBound::default(),
            delivered: RecentRate::default(),
            passage: Passage::default(),
            probes: Probes::default(),
            first_probes: 0,
            is_full: false,
            wanted: 0.0,
            remb: None,
            round_trip: None,
            last_feedback: None,
            unanswered_since: None,
            next_tick: None,
            arrivals: Vec::new(),
        }
    }

    /// Sets where the estimate begins, when nothing is known yet, and its bounds.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        if self.last_feedback.is_none() {
            self.rate = RateControl::new(config.start as f64);
        }
    }

    /// Sets what could be used if the path carried it, in bit/s: there is no probe beyond it.
    pub fn set_wanted(&mut self, wanted: u64) {
        self.wanted = wanted as f64;
    }

    /// The transport-wide number of the next packet.
    pub fn next_sequence(&self) -> Sequence {
        self.history.next_sequence()
    }

    /// Notes a packet that goes out now with `size` bytes, and returns its transport-wide number.
    pub fn handle_sent(&mut self, now: Instant, size: usize) -> Sequence {
        let now = self.micros(now);
        self.unanswered_since.get_or_insert(now);
        let cluster = self.probes.handle_sent(now, size);
        self.history.push(now, size, cluster)
    }

    /// Takes a transport-wide feedback.
    pub fn handle_feedback(
        &mut self,
        now: Instant,
        feedback: Feedback<impl Iterator<Item = (Sequence, Option<Micros>)>>,
    ) {
        let now = self.micros(now);
        let arrivals = &mut self.arrivals;
        let outcome = self.history.handle_feedback(feedback, |arrival| arrivals.push(arrival));
        arrivals.sort_unstable_by_key(|arrival| (arrival.arrived, arrival.sent));
        let mut is_over = false;
        for arrival in arrivals.drain(..) {
            if self.probes.shadows(arrival.sent) {
                // The queue that a probe fills says nothing about the rest.
                self.delay.measure_queue(&arrival);
            } else {
                self.delay.handle_arrival(&arrival);
                is_over |= self.delay.usage() == Usage::Over;
            }
            self.delivered.add(arrival.arrived, arrival.size);
            self.passage.add(&arrival);
            self.probes.handle_arrival(&arrival);
        }
        if outcome.received == 0 && outcome.lost <= 0 {
            return;
        }
        let is_first = self.last_feedback.replace(now).is_none();
        self.unanswered_since = None;
        if is_first {
            self.next_tick = Some(now + TICK);
        }
        if let Some(sent) = outcome.newest_sent {
            // The least, slowly forgotten: feedback waits at the receiver for its turn.
            let sample = now - sent;
            let round_trip = self.round_trip.unwrap_or(sample);
            self.round_trip = Some(sample.min(round_trip + (sample - round_trip) / 20));
        }
        let round_trip = self.round_trip.unwrap_or(TICK);
        let (rate, quick) = (self.delivered.rate(), self.delivered.quick_rate());
        self.loss.update(now, outcome.received, outcome.lost, rate, round_trip);
        let usage = if is_over { Usage::Over } else { self.delay.usage() };
        // Of what is lost anyway, a sender that sends it must get its share too.
        let whole = 1.0 - self.loss.inherent();
        let share = |arrives: Option<f64>| arrives.map(|rate| rate / whole);
        let found = self.passage.look();
        let kept = (1.0 - self.loss.ratio()) / whole;
        let rates = Rates {
            delivered: share(rate),
            quick: share(quick),
            awake: found.map_or(1.0, |it| it.awake),
            through: found.map(|it| it.through * kept),
        };
        self.rate.update(now, usage, rates, round_trip);
        self.take_found(now, usage);
        if is_first {
            self.begin_first_probe(now);
        }
    }

    /// Takes a receiver's own estimate in bit/s (draft-alvestrand-rmcat-remb). It bounds ours, and is all
    /// there is of clients without transport-wide feedback.
    pub fn handle_remb(&mut self, now: Instant, bitrate: u64) {
        let now = self.micros(now);
        self.remb = Some((now, bitrate as f64));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.micros(now);
        if self.next_tick.is_none_or(|at| at > now) {
            return;
        }
        self.next_tick = Some(now + TICK);
        self.take_found(now, self.delay.usage());
        self.begin_probe(now);
    }

    /// When [`Estimator::handle_timeout`] has something to do, or padding is due.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let probe = self.probes.is_active().then(|| self.micros(now) + SLICE);
        let next = probe.into_iter().chain(self.next_tick).min()?;
        Some(self.epoch + Duration::from_micros(next.max(0) as u64))
    }

    /// The size of a packet that is to be sent now as padding, in bytes; to be asked until there is none.
    pub fn poll_padding(&self, now: Instant) -> Option<usize> {
        self.probes.padding(self.micros(now))
    }

    /// What the path carries, in bit/s. `None` while the client has told nothing.
    pub fn estimate(&self, now: Instant) -> Option<u64> {
        let now = self.micros(now);
        let remb = self.remb.filter(|(at, _)| now - at < REMB_VALID).map(|(_, bitrate)| bitrate);
        let own = self.last_feedback.map(|_| self.own_estimate());
        let estimate = own.into_iter().chain(remb).reduce(f64::min)?;
        Some((estimate as u64).clamp(self.config.min, self.config.max))
    }

    /// What may be sent now for the first time, in bit/s: the estimate without what repairs will need, and
    /// less while queues on the path are to be emptied or feedback stays away.
    pub fn target(&self, now: Instant) -> Option<u64> {
        let estimate = self.estimate(now)? as f64;
        let now = self.micros(now);
        let target = estimate * (1.0 - self.loss.ratio()) * self.drain(now) * self.patience(now);
        Some((target as u64).max(self.config.min))
    }

    pub fn stats(&self, now: Instant) -> Stats {
        Stats {
            estimate: self.estimate(now),
            target: self.target(now),
            delivered: self.delivered.rate().map(|rate| rate as u64),
            loss: self.loss.ratio(),
            inherent_loss: self.loss.inherent(),
            round_trip: self.round_trip.map(duration),
            queue: duration(self.delay.queue()),
            is_overused: self.delay.usage() == Usage::Over,
        }
    }

    fn own_estimate(&self) -> f64 {
        self.rate.estimate().min(self.loss.bound().unwrap_or(f64::MAX))
    }

    fn drain(&self, now: Micros) -> f64 {
        if self.rate.decreased().is_none_or(|at| now - at > DRAIN_TIME) {
            return 1.0;
        }
        let queue = self.delay.queue() as f64;
        1.0 - DRAIN * ((queue - QUEUE_SMALL) / (QUEUE_LARGE - QUEUE_SMALL)).clamp(0.0, 1.0)
    }

    fn patience(&self, now: Micros) -> f64 {
        let Some(since) = self.last_feedback.and(self.unanswered_since) else { return 1.0 };
        let beyond = now - since - OUTAGE.max(3 * self.round_trip.unwrap_or(0));
        0.5_f64.powf(beyond.max(0) as f64 / 1e6)
    }

    fn take_found(&mut self, now: Micros, usage: Usage) {
        while let Some(found) = self.probes.poll_found(now, self.loss.inherent()) {
            let before = self.own_estimate();
            self.is_full = found.is_full;
            if found.rate <= before || usage == Usage::Over {
                continue;
            }
            self.rate.set(now, found.rate.min(self.config.max as f64));
            if !found.is_full {
                self.loss.raise(found.rate);
                // There may be more.
                self.begin(now);
            }
        }
    }

    fn begin_first_probe(&mut self, now: Micros) {
        let factor = FIRST_PROBES[self.first_probes];
        self.first_probes += 1;
        let rate = (factor * self.config.start as f64).min(self.useful());
        if rate > self.own_estimate() {
            self.probes.begin(now, rate);
        }
    }

    fn begin_probe(&mut self, now: Micros) {
        let is_soon = |at: Option<Micros>, least| at.is_some_and(|at| now - at < least);
        if (1..FIRST_PROBES.len()).contains(&self.first_probes) && !self.probes.is_active() {
            self.begin_first_probe(now);
            return;
        }
        let is_quiet = self.delay.usage() != Usage::Over && self.patience(now) == 1.0;
        if is_quiet
            && !is_soon(self.probes.last(), if self.is_full { PROBE_INTERVAL_FULL } else { PROBE_INTERVAL })
            && !is_soon(self.rate.decreased(), PROBE_AFTER_DECREASE)
            && self.drain(now) == 1.0
        {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Micros) {
        let estimate = self.own_estimate();
        let rate = (PROBE_STEP * estimate).min(self.useful());
        if rate > 1.05 * estimate && !self.probes.is_busy() {
            self.probes.begin(now, rate);
        }
    }

    /// The most that a probe is to find: more than is wanted, within the bounds.
    fn useful(&self) -> f64 {
        (PROBE_BEYOND * self.wanted).min(self.config.max as f64)
    }

    fn micros(&self, at: Instant) -> Micros {
        at.saturating_duration_since(self.epoch).as_micros() as Micros
    }
}

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0) as u64)
}
