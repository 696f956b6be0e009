//! A subscriber's client: feedback, requests for what is missing, frames on a screen, a voice in an ear.

use std::collections::BTreeMap;

use super::{MS, Micros, Packet, SECOND};

const FEEDBACK: Micros = 50 * MS;
/// The jitter buffer holds this much, beyond a round trip for repairs.
const BUFFER: Micros = 20 * MS;
/// How long a missing packet may only be late, and how often it is asked for.
const PATIENCE: Micros = 10 * MS;
const MAX_REQUESTS: u32 = 8;
/// With a frame missing this long, a keyframe is asked for.
const GIVE_UP: Micros = 600 * MS;

/// What goes back to the server.
pub enum Report {
    Feedback { reference: u32, arrivals: Vec<(u16, Option<Micros>)> },
    Missing(Vec<u64>),
    Keyframe,
}

#[derive(Default)]
struct Frame {
    packets: u32,
    count: Option<u32>,
    is_key: bool,
    captured: Micros,
}

pub struct Receiver {
    round_trip: Micros,
    /// Arrivals that were not reported, by unwrapped number.
    waiting: BTreeMap<i64, Micros>,
    reported: i64,
    next_feedback: Micros,
    /// Picture packets: the next expected, and the missing with when they are asked for next and how often.
    expected: u64,
    missing: BTreeMap<u64, (Micros, u32)>,
    frames: BTreeMap<u64, Frame>,
    next_frame: u64,
    stuck_since: Option<Micros>,
    /// The shortest that a frame was on its way.
    way: Micros,
    shown: Option<Micros>,
    /// The usual time between frames.
    usual: f64,
    heard: Option<Micros>,
    pub bytes: u64,
    pub media_bytes: u64,
    /// Gaps in the voice: when they ended, how long they were.
    pub gaps: Vec<(Micros, Micros)>,
    /// Frozen pictures: when they went on, how long they stood.
    pub freezes: Vec<(Micros, Micros)>,
    pub frames_shown: u64,
}

impl Receiver {
    pub fn new(round_trip: Micros) -> Self {
        Self {
            round_trip,
            waiting: BTreeMap::new(),
            reported: 0,
            next_feedback: 0,
            expected: 0,
            missing: BTreeMap::new(),
            frames: BTreeMap::new(),
            next_frame: 0,
            stuck_since: None,
            way: Micros::MAX / 4,
            shown: None,
            usual: 33_333.0,
            heard: None,
            bytes: 0,
            media_bytes: 0,
            gaps: Vec::new(),
            freezes: Vec::new(),
            frames_shown: 0,
        }
    }

    pub fn handle_packet(&mut self, at: Micros, number: i64, size: usize, packet: &Packet) {
        self.waiting.insert(number, at);
        self.bytes += size as u64;
        match packet {
            Packet::Padding => {}
            Packet::Voice => {
                self.media_bytes += size as u64;
                if let Some(heard) = self.heard.replace(at) {
                    self.gaps.push((at, at - heard));
                }
            }
            Packet::Picture { sequence, frame, captured, is_key, is_last, index, .. } => {
                for missing in self.expected..*sequence {
                    self.missing.insert(missing, (at + PATIENCE, 0));
                }
                let is_new = *sequence >= self.expected || self.missing.remove(sequence).is_some();
                self.expected = self.expected.max(sequence + 1);
                if !is_new || *frame < self.next_frame {
                    return;
                }
                self.media_bytes += size as u64;
                let entry = self.frames.entry(*frame).or_default();
                entry.packets += 1;
                entry.is_key |= is_key;
                entry.captured = *captured;
                if *is_last {
                    entry.count = Some(index + 1);
                }
                self.show(at);
            }
        }
    }

    fn show(&mut self, at: Micros) {
        loop {
            let is_whole = |frame: &Frame| frame.count == Some(frame.packets);
            let next = self.frames.get(&self.next_frame).is_some_and(is_whole).then_some(self.next_frame);
            let key = || self.frames.iter().rev().find(|(_, frame)| frame.is_key && is_whole(frame));
            let Some(frame) = next.or_else(|| key().map(|(frame, _)| *frame)) else { break };
            // On a screen when it is whole, not before its turn in the jitter buffer.
            let captured = self.frames[&frame].captured;
            self.way = self.way.min(at - captured);
            let at = at.max(captured + self.way + self.round_trip + BUFFER);
            self.next_frame = frame + 1;
            self.frames = self.frames.split_off(&self.next_frame);
            self.stuck_since = None;
            self.frames_shown += 1;
            if let Some(shown) = self.shown.replace(at) {
                let length = (at - shown) as f64;
                // As browsers count freezes (webrtc-stats, freezeCount).
                if length > (3.0 * self.usual).max(self.usual + 150_000.0) {
                    self.freezes.push((at, at - shown));
                }
                self.usual += (length.min(SECOND as f64) - self.usual) / 30.0;
            }
        }
        if !self.frames.is_empty() {
            self.stuck_since.get_or_insert(at);
        }
    }

    /// The picture was suspended: what stands still then is no freeze.
    pub fn suspended(&mut self) {
        self.shown = None;
    }

    pub fn poll(&mut self, now: Micros, out: &mut Vec<Report>) {
        if now >= self.next_feedback && !self.waiting.is_empty() {
            self.next_feedback = now + FEEDBACK;
            let first = self.waiting.keys().next().copied().unwrap_or(0).min(self.reported);
            let last = self.waiting.keys().next_back().copied().unwrap_or(0);
            let reference = self.waiting.values().min().copied().unwrap_or(0) / 64_000;
            let arrivals = (first..=last).map(|number| {
                // Arrival times have a resolution of 250 µs.
                let at = self.waiting.get(&number).map(|at| at / 250 * 250 - reference * 64_000);
                (number as u16, at)
            });
            out.push(Report::Feedback { reference: reference as u32, arrivals: arrivals.collect() });
            self.reported = last + 1;
            self.waiting.clear();
        }
        let mut asked = Vec::new();
        self.missing.retain(|sequence, (next, requests)| {
            if *next <= now {
                asked.push(*sequence);
                *next = now + self.round_trip + 10 * MS;
                *requests += 1;
            }
            *requests <= MAX_REQUESTS
        });
        if !asked.is_empty() {
            out.push(Report::Missing(asked));
        }
        if self.stuck_since.is_some_and(|since| now - since > GIVE_UP) {
            self.stuck_since = Some(now);
            out.push(Report::Keyframe);
        }
    }
}
