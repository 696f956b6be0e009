//! Pictures that wait for their turn, so that a burst does not fill the queue of a narrow path, where the voice behind it
//! would wait. On a wide path nothing waits here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu::Sequence;
use sfu::bandwidth::Micros;
use sfu::bandwidth::budget::Budget;

use crate::media::pipeline::Outgoing;

/// Packets that wait at most; what comes on top goes out at once.
const MAX_WAITING: usize = 2048;

/// Between two looks at what waits, in µs.
const MIN_WAIT: Micros = 1_000;

/// What is to go out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A packet that the client asked for again: its m-line and number.
    Again(usize, Sequence),
    /// A picture's packet.
    First(Outgoing),
}

/// See the module.
pub struct Pacer {
    epoch: Instant,
    /// In bit/s; `None`: nothing waits.
    rate: Option<u64>,
    budget: Budget,
    again: VecDeque<(usize, Sequence)>,
    first: VecDeque<(Outgoing, usize)>,
    /// Of what waits to go out for the first time.
    bytes: usize,
}

impl Pacer {
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            rate: None,
            budget: Budget::default(),
            again: VecDeque::new(),
            first: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Sets at which rate in bit/s pictures may leave. `None`: at once.
    pub fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
    }

    /// Whether pictures are to pass through here: they must not overtake those that wait.
    pub fn is_needed(&self) -> bool {
        (self.rate.is_some() || !self.first.is_empty()) && self.first.len() < MAX_WAITING
    }

    pub fn push(&mut self, packet: Outgoing, bytes: usize) {
        self.bytes += bytes;
        self.first.push_back((packet, bytes));
    }

    /// Notes that a packet is to be sent again. What comes above `limit` waiting ones is left out: it is asked for once more.
    pub fn push_again(&mut self, line: usize, numbers: impl Iterator<Item = Sequence>, limit: usize) {
        let room = limit.saturating_sub(self.again.len());
        self.again.extend(numbers.take(room).map(|number| (line, number)));
    }

    /// Something of so many bytes that does not wait (a voice) went out.
    pub fn spend(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.budget.spend(bytes);
        }
    }

    /// The next packet that may leave now, what is asked for again first.
    pub fn pop(&mut self, now: Instant) -> Option<Next> {
        if self.again.is_empty() && self.first.is_empty() {
            return None;
        }
        if let Some(rate) = self.rate {
            let now = self.micros(now);
            self.budget.set(now, rate as f64, self.bytes);
            if !self.budget.may_send(now) {
                return None;
            }
        }
        if let Some((line, number)) = self.again.pop_front() {
            return Some(Next::Again(line, number));
        }
        let (packet, bytes) = self.first.pop_front()?;
        self.bytes -= bytes;
        self.spend(bytes);
        Some(Next::First(packet))
    }

    /// Drops everything; returns how many packets were to go out for the first time.
    pub fn clear(&mut self) -> usize {
        let dropped = self.first.len();
        self.first.clear();
        self.again.clear();
        self.bytes = 0;
        dropped
    }

    /// When the next packet may leave.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.again.is_empty() && self.first.is_empty() {
            return None;
        }
        let wait = self.budget.wait().max(MIN_WAIT);
        Some(now + Duration::from_micros(wait as u64))
    }

    fn micros(&self, at: Instant) -> Micros {
        at.saturating_duration_since(self.epoch).as_micros() as Micros
    }
}
