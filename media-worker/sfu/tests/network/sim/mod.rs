//! A subscriber's link in virtual time: a server that sends what its controller lets it, a link with a seed,
//! a client that reports. The same seed gives the same run.

// What one of its users does not need, another does.
#![allow(dead_code)]

mod link;
mod receiver;
mod server;
mod source;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

pub use link::{Link, Plan};
pub use receiver::{Receiver, Report};
pub use server::{Controller, Ours, Server};
pub use source::{Ladder, Source};

pub type Micros = i64;
pub const MS: Micros = 1000;
pub const SECOND: Micros = 1_000_000;
const STEP: Micros = MS;
/// How often the figures of a run are noted.
pub const SAMPLE: Micros = 100 * MS;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Packet {
    Voice,
    Picture {
        sequence: u64,
        frame: u64,
        captured: Micros,
        is_key: bool,
        is_last: bool,
        index: u32,
        size: usize,
    },
    Padding,
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, of: f64) -> bool {
        self.unit() < of
    }
}

/// The figures of a tenth of a second, in bit/s.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub at: Micros,
    pub capacity: f64,
    pub estimate: f64,
    pub target: f64,
    pub sent: f64,
    pub received: f64,
    /// Without padding and repetitions.
    pub goodput: f64,
    pub layer: Option<usize>,
}

/// One subscriber: server side, client side, and what was noted.
pub struct Subscriber {
    pub server: Server,
    pub receiver: Receiver,
    pub samples: Vec<Sample>,
    /// When it comes.
    starts: Micros,
    last: (u64, u64, u64),
}

enum Event {
    Arrive { subscriber: usize, number: i64, size: usize, packet: Packet },
    Report { subscriber: usize, report: Report },
}

/// Subscribers that share a link down and a link up.
pub struct World {
    pub subscribers: Vec<Subscriber>,
    down: Link,
    up: Link,
    random: Random,
    events: BinaryHeap<Reverse<(Micros, u64)>>,
    pending: std::collections::HashMap<u64, Event>,
    count: u64,
    now: Micros,
    epoch: Instant,
}

// The simulation's time begins at some instant; nothing in it reads a clock.
#[allow(clippy::disallowed_methods)]
fn epoch() -> Instant {
    Instant::now()
}

impl World {
    pub fn new(seed: u64, down: Plan, up: Plan) -> Self {
        Self {
            subscribers: Vec::new(),
            down: Link::new(down),
            up: Link::new(up),
            random: Random::new(seed),
            events: BinaryHeap::new(),
            pending: std::collections::HashMap::new(),
            count: 0,
            now: 0,
            epoch: epoch(),
        }
    }

    /// A world with one subscriber, whose controller is ours.
    pub fn one(seed: u64, down: Plan, ladder: Ladder) -> Self {
        let up = Plan { jitter: 0, ..Plan::new(1e7) };
        let mut world = Self::new(seed, Plan { delay: down.delay, ..down }, up);
        world.up.plan.delay = world.down.plan.delay;
        let controller = Box::new(Ours::new(world.epoch));
        world.join(0, ladder, controller);
        world
    }

    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    pub fn uplink(&mut self) -> &mut Plan {
        &mut self.up.plan
    }

    pub fn join(&mut self, starts: Micros, ladder: Ladder, controller: Box<dyn Controller>) {
        let round_trip = self.down.plan.delay + self.up.plan.delay;
        self.subscribers.push(Subscriber {
            server: Server::new(starts, Source::new(ladder, starts), controller),
            receiver: Receiver::new(round_trip),
            samples: Vec::new(),
            starts,
            last: (0, 0, 0),
        });
    }

    pub fn run(&mut self, until: Micros) -> &mut Self {
        while self.now < until {
            self.now += STEP;
            self.deliver();
            for subscriber in 0..self.subscribers.len() {
                if self.now >= self.subscribers[subscriber].starts {
                    self.step(subscriber);
                }
            }
            if self.now % SAMPLE == 0 {
                self.sample();
            }
        }
        self
    }

    fn instant(&self, at: Micros) -> Instant {
        self.epoch + Duration::from_micros(at as u64)
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, id))) = self.events.peek().copied().filter(|it| it.0.0 <= self.now) {
            self.events.pop();
            match self.pending.remove(&id) {
                Some(Event::Arrive { subscriber, number, size, packet }) => {
                    self.subscribers[subscriber].receiver.handle_packet(at, number, size, &packet);
                }
                Some(Event::Report { subscriber, report }) => {
                    let instant = self.instant(at);
                    self.subscribers[subscriber].server.handle_report(at, instant, report);
                }
                None => {}
            }
        }
    }

    fn step(&mut self, index: usize) {
        let now = self.now;
        let instant = self.instant(now);
        let subscriber = &mut self.subscribers[index];
        let mut out = Vec::new();
        subscriber.server.poll(now, instant, &mut self.random, &mut out);
        if subscriber.server.is_suspended() {
            subscriber.receiver.suspended();
        }
        let mut reports = Vec::new();
        subscriber.receiver.poll(now, &mut reports);
        for (number, size, packet) in out {
            if let Some(at) = self.down.send(now, size, &mut self.random) {
                self.schedule(at, Event::Arrive { subscriber: index, number, size, packet });
            }
        }
        for report in reports {
            if let Some(at) = self.up.send(now, 100, &mut self.random) {
                self.schedule(at, Event::Report { subscriber: index, report });
            }
        }
    }

    fn schedule(&mut self, at: Micros, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count)));
        self.pending.insert(self.count, event);
    }

    fn sample(&mut self) {
        let (now, instant, capacity) = (self.now, self.instant(self.now), self.down.plan.rate(self.now));
        for subscriber in &mut self.subscribers {
            let totals =
                (subscriber.server.bytes, subscriber.receiver.bytes, subscriber.receiver.media_bytes);
            let last = std::mem::replace(&mut subscriber.last, totals);
            let rate = |total: u64, last: u64| (total - last) as f64 * 8e6 / SAMPLE as f64;
            subscriber.samples.push(Sample {
                at: now,
                capacity,
                estimate: subscriber.server.controller.estimate(instant) as f64,
                target: subscriber.server.controller.target(instant) as f64,
                sent: rate(totals.0, last.0),
                received: rate(totals.1, last.1),
                goodput: rate(totals.2, last.2),
                layer: subscriber.server.source.layer,
            });
        }
    }
}

impl Subscriber {
    /// The mean of a figure over a time.
    pub fn mean(&self, from: Micros, until: Micros, of: impl Fn(&Sample) -> f64) -> f64 {
        let within: Vec<f64> =
            self.samples.iter().filter(|it| it.at > from && it.at <= until).map(of).collect();
        within.iter().sum::<f64>() / within.len().max(1) as f64
    }

    /// How long after `from` no more than `limit` is sent, over a second.
    pub fn within(&self, from: Micros, until: Micros, limit: f64) -> Option<Micros> {
        let is_within = |at: Micros| self.mean(at, at + SECOND, |sample| sample.sent) <= limit;
        (0..(until - from) / SAMPLE).map(|step| step * SAMPLE).find(|after| is_within(from + after))
    }

    /// The longest gap in the voice, by when it ended.
    pub fn longest_gap(&self, from: Micros, until: Micros) -> Micros {
        let within = self.receiver.gaps.iter().filter(|(at, _)| (from..until).contains(at));
        within.map(|(_, length)| *length).max().unwrap_or(0)
    }

    /// The part of the time in which the picture stood.
    pub fn frozen(&self, from: Micros, until: Micros) -> f64 {
        let within = self.receiver.freezes.iter().filter(|(at, _)| (from..until).contains(at));
        within.map(|(_, length)| *length).sum::<Micros>() as f64 / (until - from) as f64
    }

    /// How long after `from` a layer is first forwarded.
    pub fn reaches(&self, from: Micros, layer: usize) -> Option<Micros> {
        let reached = self.samples.iter().find(|it| it.at > from && it.layer >= Some(layer))?;
        Some(reached.at - from)
    }
}
