//! The forwarding table under arbitrary calls: any packets, switches, mutes and timeouts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Input, epoch};
use crate::packet::{Codec, Packet};
use crate::session::{Output, PublicationId, Session, SubscriptionId};
use crate::{EncodingId, MAX_ENCODINGS, Sequence, Target, Timestamp};

const CODECS: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];
/// Calls per run.
const MAX_STEPS: usize = 2_000;
/// What is further behind may have wrapped.
const REMEMBERED: i16 = 0x2000;

/// Interprets the bytes as calls. Promises: an output names what is there, a number is never given to two packets,
/// what is due is done at once, and every packet is counted exactly once.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let mut table = Table::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        table.step(&mut input);
    }
    table.check_counters();
}

/// The packet that was handed in last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Name {
    ssrc: u32,
    sequence: Sequence,
}

#[derive(Default)]
struct Sent {
    newest: Option<Sequence>,
    names: HashMap<u16, Name>,
}

struct Table {
    session: Session,
    now: Instant,
    publications: Vec<PublicationId>,
    subscriptions: Vec<SubscriptionId>,
    sent: HashMap<SubscriptionId, Sent>,
    sequences: [u16; 4],
    packets: u64,
    wishes: u64,
}

impl Table {
    fn new(input: &mut Input<'_>) -> Self {
        let mut table = Self {
            session: Session::new(),
            now: epoch(),
            publications: Vec::new(),
            subscriptions: Vec::new(),
            sent: HashMap::new(),
            sequences: [0, 0x7ff0, 0xfff0, 0x1234],
            packets: 0,
            wishes: 0,
        };
        table.publish(input);
        table.publish(input);
        table
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let publication = self.session.publish(CODECS[usize::from(kind % 5)]);
        self.session.describe(publication, kind >> 4 & 3, (kind & 0x40 != 0).then_some(3));
        self.publications.push(publication);
        for _ in 0..2 {
            let subscription = self.session.subscribe(publication).expect("it was just published");
            if kind & 0x80 == 0 {
                self.session.activate(self.now, subscription);
            }
            self.subscriptions.push(subscription);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let [what, which] = input.array();
        // Also those that are gone.
        let publication = self.publications[usize::from(which) % self.publications.len()];
        let subscription = self.subscriptions[usize::from(which) % self.subscriptions.len()];
        self.now += Duration::from_millis(u64::from(what >> 5) * 40);
        let (now, session) = (self.now, &mut self.session);
        let mut packet = None;
        match what & 0x1f {
            0 => session.activate(now, subscription),
            1 => session.deactivate(subscription),
            2 => {
                let [encoding, layers] = input.array();
                let target = Target {
                    encoding: EncodingId(encoding & 3),
                    spatial: layers & 3,
                    temporal: layers >> 4 & 3,
                };
                session.set_target(now, subscription, (encoding & 0x80 == 0).then_some(target));
            }
            3 => session.set_muted(now, publication, input.byte() & 1 != 0),
            4 => session.handle_keyframe_request(now, subscription),
            5 => {
                session.handle_timeout(now);
                let due = session.poll_timeout();
                assert!(due.is_none_or(|due| due > now), "what is due stays due: a loop without rest");
            }
            6 => {
                let report = u64::from_be_bytes(input.array());
                let encoding = EncodingId(input.byte());
                session.handle_sender_report(publication, encoding, report, Timestamp(report as u32));
            }
            7 => {
                session.describe(publication, input.byte(), Some(3));
            }
            8 => session.set_reach(now, subscription, input.byte()),
            9 => {
                let [peer, encodings] = input.array();
                let encodings = (encodings < 0x80).then_some(encodings);
                session.set_peer_demand(now, publication, usize::from(peer & 7), encodings);
            }
            10 => session.unsubscribe(subscription),
            11 => self.subscriptions.extend(session.subscribe(publication)),
            12 => session.unpublish(publication),
            13 if self.publications.len() < 8 => self.publish(input),
            14 => self.now += Duration::from_secs(u64::from(which)),
            15 => {
                let encoding = EncodingId(which & 3);
                session.sent_time(subscription, encoding, Timestamp(9));
                session.current_layer(subscription);
                session.share(subscription, Target::BEST);
                session.standing(subscription);
                session.is_alive(publication, encoding);
                session.demanded(publication);
            }
            _ => packet = Some(self.packet(publication, input)),
        }
        self.check_outputs(packet);
    }

    /// Hands a packet in. Most follow the one before it, as packets do.
    fn packet(&mut self, publication: PublicationId, input: &mut Input<'_>) -> (PublicationId, Name) {
        let [flags, step, time, length] = input.array();
        let source = usize::from(flags & 3);
        let step = if step < 0xc0 {
            1
        } else {
            i16::from(step as i8).wrapping_mul(if step & 1 == 0 { 1 } else { 97 })
        };
        self.sequences[source] = self.sequences[source].wrapping_add_signed(step);
        let extensions = if flags & 0x40 != 0 { input.bytes(usize::from(length >> 5) * 4) } else { &[] };
        let packet = Packet {
            encoding: EncodingId(flags >> 2 & 3),
            ssrc: source as u32,
            sequence: Sequence(self.sequences[source]),
            timestamp: Timestamp(u32::from(time) << ((flags >> 4 & 3) * 8)),
            marker: flags & 0x80 != 0,
            extension_profile: if flags & 0x20 != 0 { 0x1000 } else { 0xbede },
            extensions,
            payload: input.bytes(usize::from(length & 0x1f)),
        };
        let before = self.session.counters().accepted;
        let wishes = self.session.subscriptions_of(publication).len() as u64;
        self.session.handle_packet(self.now, publication, &packet);
        self.packets += 1;
        self.wishes += wishes * (self.session.counters().accepted - before);
        (publication, Name { ssrc: packet.ssrc, sequence: packet.sequence })
    }

    fn check_outputs(&mut self, packet: Option<(PublicationId, Name)>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Forward { subscription, sequence, .. } => {
                    let (publication, name) = packet.expect("only packets are forwarded");
                    assert!(self.session.subscriptions_of(publication).contains(&subscription));
                    assert!(self.session.target(subscription).is_some(), "it should get nothing");
                    assert!(!self.session.is_muted(publication), "it is muted");
                    self.sent.entry(subscription).or_default().note(sequence, name);
                }
                Output::RequestKeyframe { publication, encoding } => {
                    assert!(self.publications.contains(&publication));
                    assert!(encoding.0 < MAX_ENCODINGS);
                }
                Output::Demand { publication, encodings } => {
                    assert!(self.publications.contains(&publication));
                    assert!(encodings <= MAX_ENCODINGS);
                }
            }
        }
    }

    fn check_counters(&self) {
        let all = self.session.counters();
        let received =
            all.accepted + all.unknown_publication + all.unknown_encoding + all.muted + all.replaced_source;
        assert_eq!(received, self.packets, "{all:?}");
        let decided = all.forwarded
            + all.inactive
            + all.awaiting_keyframe
            + all.paused
            + all.other_encoding
            + all.withheld
            + all.before_start;
        assert_eq!(decided, self.wishes, "{all:?}");
    }
}

impl Sent {
    fn note(&mut self, sequence: Sequence, name: Name) {
        if self.newest.is_none_or(|newest| sequence.is_newer_than(newest)) {
            self.newest = Some(sequence);
            self.names.retain(|sent, _| sequence.since(Sequence(*sent)) < REMEMBERED);
            // What is further behind than half the numbers looks newer.
            self.names.retain(|sent, _| !Sequence(*sent).is_newer_than(sequence));
        }
        if let Some(before) = self.names.insert(sequence.0, name) {
            assert_eq!(before, name, "both were sent as {sequence:?}");
        }
    }
}
