//! Whole VP8 pictures in simulcast with temporal layers, through arbitrary switches and losses: what a subscriber gets
//! goes on counting and decodes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{Input, epoch};
use crate::descriptor::vp8::Descriptor;
use crate::packet::{Codec, Packet};
use crate::session::{Output, PublicationId, Session, SubscriptionId};
use crate::{EncodingId, Sequence, Target, Timestamp};

const ENCODINGS: u8 = 3;
/// Pictures per run.
const MAX_STEPS: usize = 3_000;
/// Pictures after which a packet that was held back comes: short ids say no more than 63 apart.
const MAX_LATE: u64 = 16;
/// Temporal layers of eight pictures in a row, and whether they need the lowest layer only. Where the highest one can begin, the
/// middle one goes on with what it has: nobody may skip it on the way up.
const PATTERN: [(u8, bool); 8] =
    [(0, false), (2, true), (1, false), (2, false), (0, false), (2, false), (1, true), (2, false)];

/// Interprets the bytes as pictures, wishes and losses. Promises to each subscriber, of what it gets in order: numbers and
/// picture ids without gaps, times that go forward, and pictures whose references it has. Where packets are lost or come
/// late, every number and picture id still means one packet and one picture.
pub fn frames(data: &[u8]) {
    let mut input = Input(data);
    let mut room = Room::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        room.step(&mut input);
    }
}

/// One picture of one encoding.
#[derive(Clone, Copy)]
struct Picture {
    number: u64,
    /// The pictures that it needs.
    needs: [Option<u64>; 2],
    temporal: u8,
}

struct Source {
    ssrc: u32,
    sequence: u16,
    clock: u32,
    id: u16,
    base: u8,
    step: usize,
    /// The last picture of each temporal layer.
    last: [Option<u64>; 3],
    wants_key: bool,
}

struct Room {
    session: Session,
    camera: PublicationId,
    viewers: Vec<(SubscriptionId, Viewer)>,
    sources: Vec<Source>,
    has_long_ids: bool,
    is_lossy: bool,
    now: Instant,
    elapsed: u32,
    pictures: u64,
    /// Packets that are held back, to come late.
    held: Vec<(usize, Bytes)>,
}

/// A packet and what it belongs to.
#[derive(Clone)]
struct Bytes {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: [u8; 7],
    picture: Picture,
}

impl Room {
    fn new(input: &mut Input<'_>) -> Self {
        let [flags, start] = input.array();
        let now = epoch();
        let mut session = Session::new();
        let camera = session.publish(Codec::Vp8);
        session.describe(camera, ENCODINGS, None);
        let viewers = (0..2)
            .map(|_| {
                let viewer = session.subscribe(camera).expect("it was just published");
                session.activate(now, viewer);
                (viewer, Viewer::default())
            })
            .collect();
        let source = |index: u8| Source {
            ssrc: 1 + u32::from(index),
            sequence: u16::from(start).wrapping_mul(0x101).wrapping_add(u16::from(index) * 0x5000),
            clock: u32::from(start).wrapping_mul(0x0101_0101).rotate_left(u32::from(index) * 7),
            id: u16::from(start).wrapping_mul(0x81).wrapping_add(u16::from(index) * 999),
            base: start.wrapping_add(index * 50),
            step: 0,
            last: [None; 3],
            wants_key: true,
        };
        Self {
            session,
            camera,
            viewers,
            sources: (0..ENCODINGS).map(source).collect(),
            has_long_ids: flags & 1 != 0,
            is_lossy: flags & 2 != 0,
            now,
            elapsed: 0,
            pictures: 0,
            held: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let viewer = self.viewers[usize::from(what >> 7)].0;
        match what & 0x1f {
            0 => {
                let [encoding, temporal] = input.array();
                let target =
                    Target { encoding: EncodingId(encoding & 3), spatial: 0, temporal: temporal & 3 };
                self.session.set_target(self.now, viewer, (encoding & 0x80 == 0).then_some(target));
            }
            1 => self.session.set_muted(self.now, self.camera, what & 0x20 != 0),
            2 => self.session.deactivate(viewer),
            3 => self.session.activate(self.now, viewer),
            4 => self.session.handle_keyframe_request(self.now, viewer),
            5 => self.session.handle_timeout(self.now),
            6 => self.wait(u32::from(input.byte()) * 20),
            7 => {
                let source = &self.sources[usize::from(what >> 5 & 3) % self.sources.len()];
                let ntp = (u64::from(self.elapsed) << 32) / 1_000;
                let rtp = Timestamp(source.clock.wrapping_add(self.elapsed * 90));
                let encoding = EncodingId((source.ssrc - 1) as u8);
                self.session.handle_sender_report(self.camera, encoding, ntp, rtp);
            }
            8 => self.release(),
            // A key that nobody asked for.
            9 => self.sources[usize::from(what >> 5 & 3) % usize::from(ENCODINGS)].wants_key = true,
            10..14 => {
                for encoding in 0..usize::from(ENCODINGS) {
                    self.picture(encoding, input);
                }
            }
            other => self.picture(usize::from(other) % usize::from(ENCODINGS), input),
        }
        self.take_outputs(None);
    }

    fn wait(&mut self, milliseconds: u32) {
        self.now += Duration::from_millis(milliseconds.into());
        self.elapsed += milliseconds;
    }

    /// The next picture of an encoding, in up to four packets.
    fn picture(&mut self, encoding: usize, input: &mut Input<'_>) {
        if self.held.first().is_some_and(|(_, packet)| packet.picture.number + MAX_LATE < self.pictures) {
            self.release();
        }
        let shape = input.byte();
        self.wait(1 + u32::from(shape >> 2 & 0x1f));
        let fate = if self.is_lossy { input.byte() } else { 0 };
        self.pictures += 1;
        let (number, elapsed, has_long_ids) = (self.pictures, self.elapsed, self.has_long_ids);
        let source = &mut self.sources[encoding];
        let is_key = std::mem::take(&mut source.wants_key);
        if is_key {
            source.step = 0;
            source.last = [None; 3];
        }
        let (temporal, is_sync) = PATTERN[source.step % PATTERN.len()];
        source.step += 1;
        let below = if is_sync { 0 } else { temporal };
        let needs = [source.last[0], if below > 0 { source.last[1] } else { None }];
        source.last[usize::from(temporal)] = Some(number);
        source.id = source.id.wrapping_add(1);
        source.base = source.base.wrapping_add(u8::from(temporal == 0));
        let picture = Picture { number, needs: if is_key { [None; 2] } else { needs }, temporal };
        let count = 1 + (shape & 3);
        let packets: Vec<Bytes> = (1..=count)
            .map(|index| {
                source.sequence = source.sequence.wrapping_add(1);
                let start = if index == 1 { 0x90 } else { 0x80 };
                let tail = [source.base, temporal << 6 | u8::from(is_sync) << 5, u8::from(!is_key)];
                let [high, low] = (source.id & 0x7fff | 0x8000).to_be_bytes();
                let payload = if has_long_ids {
                    [start, 0xe0, high, low, tail[0], tail[1], tail[2]]
                } else {
                    [start, 0xe0, low & 0x7f, tail[0], tail[1], tail[2], 0]
                };
                Bytes {
                    sequence: source.sequence,
                    timestamp: source.clock.wrapping_add(elapsed * 90),
                    marker: index == count,
                    payload,
                    picture,
                }
            })
            .collect();
        for (index, packet) in packets.into_iter().enumerate() {
            match fate >> (2 * index) & 3 {
                0 => self.send(encoding, &packet),
                1 => {}
                2 if self.held.len() < 64 => self.held.push((encoding, packet)),
                _ => {
                    self.send(encoding, &packet);
                    self.send(encoding, &packet);
                }
            }
        }
    }

    fn release(&mut self) {
        for (encoding, packet) in std::mem::take(&mut self.held) {
            self.send(encoding, &packet);
        }
    }

    fn send(&mut self, encoding: usize, bytes: &Bytes) {
        let packet = Packet {
            encoding: EncodingId(encoding as u8),
            marker: bytes.marker,
            ..Packet::new(self.sources[encoding].ssrc, bytes.sequence, bytes.timestamp, &bytes.payload)
        };
        self.session.handle_packet(self.now, self.camera, &packet);
        self.take_outputs(Some((packet.ssrc, bytes)));
    }

    fn take_outputs(&mut self, packet: Option<(u32, &Bytes)>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Forward { subscription, sequence, timestamp, marker, patch } => {
                    let (ssrc, bytes) = packet.expect("only packets are forwarded");
                    let mut payload = bytes.payload;
                    if let Some(patch) = patch {
                        patch.apply(&mut payload);
                    }
                    let viewer = self.viewers.iter_mut().find(|(id, _)| *id == subscription);
                    let (_, viewer) = viewer.expect("somebody's subscription");
                    assert_eq!(marker, bytes.marker, "VP8 has no spatial layers");
                    let read = Descriptor::parse(&payload).expect("it stays a descriptor");
                    let got = Got {
                        ssrc,
                        sequence,
                        timestamp,
                        id: read.picture.id.expect("it has one").value,
                        base: read.picture.base.expect("it has one"),
                        picture: bytes.picture,
                        received: bytes.sequence,
                    };
                    viewer.take(&got, self.has_long_ids, self.is_lossy);
                }
                Output::RequestKeyframe { encoding, .. } => self.sources[encoding.index()].wants_key = true,
                Output::Demand { .. } => {}
            }
        }
    }
}

/// A packet as a subscriber gets it.
#[derive(Clone, Copy)]
struct Got {
    ssrc: u32,
    sequence: Sequence,
    timestamp: Timestamp,
    id: u16,
    base: u8,
    picture: Picture,
    /// Its number before it was rewritten.
    received: u16,
}

/// What a subscriber has.
#[derive(Default)]
struct Viewer {
    last: Option<Got>,
    pictures: HashSet<u64>,
    /// Which packet each of the last numbers was, and which picture each of the last ids.
    packets: HashMap<u16, (u32, u16)>,
    ids: HashMap<u16, (u64, Sequence)>,
}

impl Viewer {
    fn take(&mut self, got: &Got, has_long_ids: bool, is_lossy: bool) {
        let name = (got.ssrc, got.received);
        if let Some(before) = self.packets.insert(got.sequence.0, name) {
            assert_eq!(before, name, "two packets are number {}", got.sequence.0);
        }
        let newest = self.last.as_ref().map_or(got.sequence, |last| {
            if got.sequence.is_newer_than(last.sequence) { got.sequence } else { last.sequence }
        });
        // Ids of seven bits come again soon.
        let reach = if has_long_ids { 1_000 } else { 40 };
        self.packets.retain(|number, _| newest.since(Sequence(*number)).unsigned_abs() < 1_000);
        self.ids.retain(|_, (_, at)| newest.since(*at) < reach);
        let (number, _) = *self.ids.entry(got.id).or_insert((got.picture.number, got.sequence));
        assert_eq!(number, got.picture.number, "two pictures have id {}", got.id);
        if !is_lossy {
            self.check_in_order(got, has_long_ids);
        }
        self.pictures.insert(got.picture.number);
        if newest == got.sequence {
            self.last = Some(*got);
        }
    }

    /// What holds where nothing is lost and nothing comes late.
    fn check_in_order(&self, got: &Got, has_long_ids: bool) {
        for needed in got.picture.needs.into_iter().flatten() {
            assert!(self.pictures.contains(&needed), "picture {} lacks {needed}", got.picture.number);
        }
        let Some(last) = &self.last else { return };
        assert_eq!(got.sequence, last.sequence.plus(1), "a gap or a step back");
        if got.picture.number == last.picture.number {
            assert_eq!((got.id, got.base, got.timestamp), (last.id, last.base, last.timestamp));
            return;
        }
        let mask = if has_long_ids { 0x7fff } else { 0x7f };
        assert_eq!(got.id, last.id.wrapping_add(1) & mask, "picture ids have a gap");
        assert_eq!(got.base, last.base.wrapping_add(u8::from(got.picture.temporal == 0)), "TL0PICIDX");
        assert!(got.timestamp.is_newer_than(last.timestamp), "time stands still or goes back");
    }
}
