//! What an endpoint's path carries towards its client: numbers on what is sent, and what the client's feedback
//! makes of them.

use std::time::{Duration, Instant};

use sfu::bandwidth::Estimator;
use sfu::{Extension, ExtensionIds, Sequence};

use super::allocation::Available;
use crate::media::rtp::feedback::TransportFeedback;
use crate::media::treatment::Bounds;

/// How long after the first packet a client that wants numbers on packets may take to tell something of them. One that
/// does not is limited no longer: it never will.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long after the first packet an estimate is still finding its feet: it begins low, and the probes that raise it take
/// some round trips.
const SETTLE: Duration = Duration::from_secs(2);

/// See the module.
pub struct Bandwidth {
    estimator: Estimator,
    start: u64,
    /// The most that somebody set, in bit/s.
    limit: Option<u64>,
    /// The id under which the client wants transport-wide numbers.
    number_id: Option<u8>,
    first_sent: Option<Instant>,
}

impl Bandwidth {
    pub fn new(now: Instant, bounds: Bounds) -> Self {
        let Bounds { config, limit } = bounds;
        let estimator = Estimator::new(now, config);
        Self { estimator, start: config.start, limit, number_id: None, first_sent: None }
    }

    /// Sets other bounds. What is known of the path stays known.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.estimator.set_config(bounds.config);
        (self.start, self.limit) = (bounds.config.start, bounds.limit);
    }

    /// The most that somebody set for this client, in bit/s.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Takes the extensions that a client accepted on an m-line. An id means the same on all (RFC 8285, section 5).
    pub fn learn(&mut self, extensions: &ExtensionIds) {
        self.number_id = extensions.id(Extension::TransportSequence).or(self.number_id);
    }

    /// The transport-wide number of the next packet, with its extension's id. `None` when the client wants none.
    pub fn number(&self) -> Option<(u8, [u8; 2])> {
        Some((self.number_id?, self.estimator.next_sequence().0.to_be_bytes()))
    }

    /// A packet of so many bytes went out under that number.
    pub fn handle_sent(&mut self, now: Instant, bytes: usize) {
        self.first_sent.get_or_insert(now);
        let _: Sequence = self.estimator.handle_sent(now, bytes);
    }

    pub fn handle_feedback(&mut self, now: Instant, feedback: TransportFeedback<'_>) {
        self.estimator.handle_feedback(now, feedback.decode());
    }

    pub fn handle_maximum_bitrate(&mut self, now: Instant, bitrate: u64) {
        self.estimator.handle_remb(now, bitrate);
    }

    /// Sets what could be used if the path carried it, in bit/s: it is not probed beyond that.
    pub fn set_wanted(&mut self, wanted: u64) {
        self.estimator.set_wanted(wanted);
    }

    /// The size in bytes of a packet that is to go out now to find out whether the path carries more; to be asked until there
    /// is none.
    pub fn padding(&self, now: Instant) -> Option<usize> {
        self.number_id?;
        self.estimator.poll_padding(now)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.estimator.handle_timeout(now);
    }

    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.estimator.poll_timeout(now)
    }

    /// What the path carries, in bit/s; `None` while the client has told nothing.
    pub fn estimate(&self, now: Instant) -> Option<u64> {
        self.estimator.estimate(now)
    }

    /// What may be sent.
    pub fn available(&self, now: Instant) -> Available {
        let is_within =
            |time| self.first_sent.is_none_or(|at: Instant| now.saturating_duration_since(at) < time);
        let found = match self.estimator.target(now) {
            Some(target) if self.number_id.is_some() && is_within(SETTLE) => Available::Start(target),
            Some(target) => Available::Known(target),
            None if self.number_id.is_some() && is_within(PATIENCE) => Available::Start(self.start),
            None => Available::Unlimited,
        };
        match (found, self.limit) {
            (Available::Unlimited, Some(limit)) => Available::Known(limit),
            // There is nothing more to find out, so not even the first picture passes the limit.
            (Available::Start(target), Some(limit)) if target >= limit => Available::Known(limit),
            (found, _) => found,
        }
    }
}
