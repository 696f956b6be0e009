//! The server's side of one subscriber: controller, allocation, pacer, repair.

use std::collections::VecDeque;
use std::time::Instant;

use sfu::Sequence;
use sfu::bandwidth::allocate::{Allocator, Item, Memory, Request, Span};
use sfu::bandwidth::budget::Budget;
use sfu::bandwidth::{Config, Estimator, Feedback};

use super::receiver::Report;
use super::source::Source;
use super::{MS, Micros, Packet, Random};

const VOICE: u64 = 32_000;
const VOICE_INTERVAL: Micros = 20 * MS;
const VOICE_SIZE: usize = 80;
const ALLOCATE: Micros = 100 * MS;
/// Picture packets that can be sent again.
const MEMORY: usize = 512;

/// What decides how much is sent; so that others can be compared with ours. Bit/s.
pub trait Controller {
    /// Returns the number of a packet that is sent.
    fn handle_sent(&mut self, now: Instant, size: usize) -> u16;
    fn handle_feedback(&mut self, now: Instant, reference: u32, arrivals: &[(u16, Option<Micros>)]);
    fn handle_timeout(&mut self, now: Instant);
    fn set_wanted(&mut self, wanted: u64);
    fn padding(&mut self, now: Instant) -> Option<usize>;
    fn estimate(&self, now: Instant) -> u64;
    fn target(&self, now: Instant) -> u64;
    fn stats(&self, _now: Instant) -> Option<sfu::bandwidth::Stats> {
        None
    }
}

/// The product's own.
pub struct Ours(pub Estimator);

impl Ours {
    pub fn new(now: Instant) -> Self {
        Self(Estimator::new(now, Config::default()))
    }
}

impl Controller for Ours {
    fn handle_sent(&mut self, now: Instant, size: usize) -> u16 {
        self.0.handle_sent(now, size).0
    }

    fn handle_feedback(&mut self, now: Instant, reference: u32, arrivals: &[(u16, Option<Micros>)]) {
        let arrivals = arrivals.iter().map(|(number, at)| (Sequence(*number), *at));
        self.0.handle_feedback(now, Feedback { reference, arrivals });
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn set_wanted(&mut self, wanted: u64) {
        self.0.set_wanted(wanted);
    }

    fn padding(&mut self, now: Instant) -> Option<usize> {
        self.0.poll_padding(now)
    }

    fn estimate(&self, now: Instant) -> u64 {
        self.0.estimate(now).unwrap_or(Config::default().start)
    }

    fn target(&self, now: Instant) -> u64 {
        self.0.target(now).unwrap_or(Config::default().start)
    }

    fn stats(&self, now: Instant) -> Option<sfu::bandwidth::Stats> {
        Some(self.0.stats(now))
    }
}

pub struct Server {
    pub source: Source,
    pub controller: Box<dyn Controller>,
    allocator: Allocator,
    voice: Memory,
    picture: Memory,
    budget: Budget,
    queue: VecDeque<Packet>,
    sent: VecDeque<(u64, Packet)>,
    next_voice: Micros,
    next_allocation: Micros,
    number: i64,
    pub bytes: u64,
    fresh: Vec<Packet>,
}

impl Server {
    pub fn new(starts: Micros, source: Source, controller: Box<dyn Controller>) -> Self {
        Self {
            source,
            controller,
            allocator: Allocator::default(),
            voice: Memory::default(),
            picture: Memory::default(),
            budget: Budget::default(),
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            next_voice: starts,
            next_allocation: starts,
            number: 0,
            bytes: 0,
            fresh: Vec::new(),
        }
    }

    pub fn is_suspended(&self) -> bool {
        self.picture.grant().is_suspended
    }

    pub fn handle_report(&mut self, at: Micros, now: Instant, report: Report) {
        match report {
            Report::Feedback { reference, arrivals } => {
                self.controller.handle_feedback(now, reference, &arrivals);
                self.allocate(now);
            }
            Report::Missing(all) => {
                for missing in all {
                    let found = self.sent.iter().find(|(sequence, _)| *sequence == missing);
                    if let Some((_, packet)) = found {
                        self.queue.push_front(*packet);
                    }
                }
            }
            Report::Keyframe => self.source.request_keyframe(at),
        }
    }

    fn allocate(&mut self, now: Instant) {
        let costs = &self.source.ladder.layers;
        let layers = Span { first: 0, count: costs.len() };
        let mut items = [
            Item::new(Request::Voice { bitrate: VOICE }, self.voice),
            Item::new(Request::Picture { layers, priority: 0 }, self.picture),
        ];
        self.controller.set_wanted(Allocator::wanted(costs, &items));
        self.allocator.allocate(now, self.controller.target(now), costs, &mut items);
        (self.voice, self.picture) = (items[0].memory(), items[1].memory());
        self.source.target = self.picture.grant().layer;
    }

    /// Appends what is sent now: transport-wide number, size, content.
    pub fn poll(
        &mut self,
        at: Micros,
        now: Instant,
        random: &mut Random,
        out: &mut Vec<(i64, usize, Packet)>,
    ) {
        self.controller.handle_timeout(now);
        if at >= self.next_allocation {
            self.next_allocation = at + ALLOCATE;
            self.allocate(now);
        }
        while at >= self.next_voice {
            self.next_voice += VOICE_INTERVAL;
            self.budget.spend(VOICE_SIZE);
            self.send(now, VOICE_SIZE, Packet::Voice, out);
        }
        self.source.poll(at, random, &mut self.fresh);
        for packet in self.fresh.drain(..) {
            if let Packet::Picture { sequence, .. } = packet {
                if self.sent.len() == MEMORY {
                    self.sent.pop_front();
                }
                self.sent.push_back((sequence, packet));
            }
            self.queue.push_back(packet);
        }
        let waiting = self.queue.iter().map(size).sum();
        let granted = self.source.layer.map_or(0, |layer| self.source.ladder.layers[layer]) + VOICE;
        self.budget.set(at, granted as f64, waiting);
        while !self.queue.is_empty() && self.budget.may_send(at) {
            let Some(packet) = self.queue.pop_front() else { break };
            self.budget.spend(size(&packet));
            self.send(now, size(&packet), packet, out);
        }
        while let Some(padding) = self.controller.padding(now) {
            self.send(now, padding, Packet::Padding, out);
        }
    }

    fn send(&mut self, now: Instant, size: usize, packet: Packet, out: &mut Vec<(i64, usize, Packet)>) {
        let number = self.controller.handle_sent(now, size);
        assert_eq!(number, self.number as u16, "numbers count up by one");
        out.push((self.number, size, packet));
        self.number += 1;
        self.bytes += size as u64;
    }
}

fn size(packet: &Packet) -> usize {
    if let Packet::Picture { size, .. } = packet { *size } else { VOICE_SIZE }
}
