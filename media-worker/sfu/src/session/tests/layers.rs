//! Subscriptions that change between encodings and layers, against a publisher that is modelled down to what its frames
//! depend on, and a subscriber that checks that it can decode what it gets.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::descriptor::vp8;

const FRAME: Duration = Duration::from_millis(33);
const TICKS: u32 = 2970;
/// Temporal layers of the frames of an encoding, and whether they need the lowest layer only.
const PATTERN: [(u8, bool); 8] =
    [(0, false), (2, true), (1, true), (2, false), (0, false), (2, true), (1, false), (2, false)];

/// A frame of one encoding: its number since the beginning.
type FrameName = (u8, u32);

/// A camera in three encodings with three temporal layers (VP8).
struct Camera {
    publication: PublicationId,
    encodings: [Stream; 3],
    at: Instant,
    ticks: u32,
    /// What each frame needs.
    needs: HashMap<FrameName, Vec<FrameName>>,
}

struct Stream {
    sequence: u16,
    origin: u32,
    picture: u16,
    base: u8,
    frame: u32,
    step: usize,
    wants_key: bool,
    is_sent: bool,
    /// The last frames by temporal layer.
    last: [Option<FrameName>; 3],
}

#[derive(Clone)]
struct Sent {
    encoding: u8,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

impl Sent {
    fn packet(&self) -> Packet<'_> {
        Packet {
            encoding: EncodingId(self.encoding),
            marker: self.marker,
            ..Packet::new(100 + u32::from(self.encoding), self.sequence, self.timestamp, &self.payload)
        }
    }
}

impl Camera {
    fn new(session: &mut Session, at: Instant, start: u16) -> Self {
        let publication = session.publish(Codec::Vp8);
        session.describe(publication, 3, None);
        let encodings = [0u16, 1, 2].map(|index| Stream {
            sequence: start.wrapping_mul(index + 1),
            origin: u32::from(start).wrapping_mul(77_777 * (u32::from(index) + 1)),
            picture: start.rotate_left(u32::from(index)),
            base: start as u8 ^ index as u8,
            frame: 0,
            step: 0,
            wants_key: true,
            is_sent: true,
            last: [None; 3],
        });
        Self { publication, encodings, at, ticks: 0, needs: HashMap::new() }
    }

    fn request(&mut self, encoding: EncodingId) {
        self.encodings[encoding.index()].wants_key = true;
    }

    /// Sends as many encodings as it was told to.
    fn send_only(&mut self, encodings: u8) {
        for (index, stream) in (0..).zip(&mut self.encodings) {
            stream.is_sent = index < encodings;
        }
    }

    /// Tells the session how the clocks of the encodings relate.
    fn report(&self, session: &mut Session) {
        for (index, stream) in (0..).zip(&self.encodings) {
            let rtp = Timestamp(stream.origin.wrapping_add(self.ticks));
            let ntp = (u64::from(self.ticks) << 32) / 90_000;
            session.handle_sender_report(self.publication, EncodingId(index), ntp, rtp);
        }
    }

    /// The packets of the next picture, in all encodings that are sent; higher ones have more.
    fn picture(&mut self) -> Vec<Sent> {
        self.at += FRAME;
        self.ticks += TICKS;
        let mut packets = Vec::new();
        for (encoding, stream) in (0u8..).zip(&mut self.encodings) {
            if !stream.is_sent {
                stream.wants_key = true;
                continue;
            }
            let is_key = std::mem::take(&mut stream.wants_key);
            if is_key {
                (stream.step, stream.last) = (0, [None; 3]);
            }
            let (temporal, synced) = PATTERN[stream.step % PATTERN.len()];
            stream.step += 1;
            let name = (encoding, stream.frame);
            stream.frame += 1;
            let reach = if synced { 0 } else { usize::from(temporal) };
            self.needs.insert(name, stream.last[..=reach].iter().flatten().copied().collect());
            stream.last[usize::from(temporal)] = Some(name);
            stream.base = stream.base.wrapping_add(u8::from(temporal == 0));
            stream.picture = stream.picture.wrapping_add(1) & 0x7fff;
            let count = encoding + 1;
            for part in 0..count {
                let [high, low] = (stream.picture | 0x8000).to_be_bytes();
                let first = if part == 0 { 0x90 } else { 0x80 };
                let layer = temporal << 6 | u8::from(synced) << 5;
                let mut payload = vec![first, 0xe0, high, low, stream.base, layer, u8::from(!is_key)];
                payload.push(encoding);
                payload.extend(name.1.to_be_bytes());
                payload.extend([part, count]);
                packets.push(Sent {
                    encoding,
                    sequence: stream.sequence,
                    timestamp: stream.origin.wrapping_add(self.ticks),
                    marker: part + 1 == count,
                    payload,
                });
                stream.sequence = stream.sequence.wrapping_add(1);
            }
        }
        packets
    }
}

/// What a subscriber got of one packet.
#[derive(Clone)]
struct Got {
    name: FrameName,
    part: u8,
    count: u8,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    read: vp8::Descriptor,
}

/// Hands a packet in; returns what the subscriber gets, and notes what the publisher is asked for.
fn hand_in(session: &mut Session, camera: &mut Camera, sent: &Sent) -> Option<Got> {
    session.handle_packet(camera.at, camera.publication, &sent.packet());
    let mut got = None;
    while let Some(output) = session.poll_output() {
        match output {
            Output::RequestKeyframe { encoding, .. } => camera.request(encoding),
            Output::Demand { encodings, .. } => camera.send_only(encodings),
            Output::Forward { sequence, timestamp, marker, patch, .. } => {
                let mut payload = sent.payload.clone();
                if let Some(patch) = patch {
                    patch.apply(&mut payload);
                }
                let frame = u32::from_be_bytes(*payload[8..].first_chunk().unwrap());
                got = Some(Got {
                    name: (payload[7], frame),
                    part: payload[12],
                    count: payload[13],
                    sequence: sequence.0,
                    timestamp: timestamp.0,
                    marker,
                    read: vp8::Descriptor::parse(&payload).unwrap(),
                });
            }
        }
    }
    got
}

fn timeouts(session: &mut Session, camera: &mut Camera) {
    session.handle_timeout(camera.at);
    carry_out(session, camera);
}

/// Does what the publisher is asked for.
fn carry_out(session: &mut Session, camera: &mut Camera) {
    while let Some(output) = session.poll_output() {
        match output {
            Output::RequestKeyframe { encoding, .. } => camera.request(encoding),
            Output::Demand { encodings, .. } => camera.send_only(encodings),
            Output::Forward { .. } => {}
        }
    }
}

/// A decoder that got everything it was sent.
#[derive(Default)]
struct Decoder {
    decoded: HashSet<FrameName>,
    last: Option<Got>,
}

impl Decoder {
    /// Checks that the packet continues what came before, and that its frame can be decoded.
    fn take(&mut self, camera: &Camera, got: &Got) -> Result<(), TestCaseError> {
        let is_key = camera.needs[&got.name].is_empty();
        let Some(last) = self.last.replace(got.clone()) else {
            prop_assert!(is_key && got.part == 0);
            self.decoded.insert(got.name);
            return Ok(());
        };
        prop_assert_eq!(got.sequence, last.sequence.wrapping_add(1), "no gap");
        prop_assert_eq!(got.marker, got.part + 1 == got.count);
        let number = |read: &vp8::Descriptor| (read.picture.id.unwrap().value, read.picture.base.unwrap());
        let ((id, base), (last_id, last_base)) = (number(&got.read), number(&last.read));
        if got.name == last.name {
            prop_assert_eq!((got.part, got.timestamp), (last.part + 1, last.timestamp));
            prop_assert_eq!((id, base), (last_id, last_base));
            return Ok(());
        }
        let other_encoding = got.name.0 != last.name.0;
        prop_assert!(got.part == 0 && (last.part + 1 == last.count || other_encoding), "whole frames");
        prop_assert_eq!(id, (last_id + 1) & 0x7fff);
        let counts = u8::from(got.read.temporal == 0);
        prop_assert_eq!(base, last_base.wrapping_add(counts));
        let ahead = Timestamp(got.timestamp).since(Timestamp(last.timestamp));
        prop_assert!((1..90_000 * 3).contains(&ahead), "time goes on: {}", ahead);
        prop_assert!(!other_encoding || is_key, "another encoding starts with a keyframe");
        for need in &camera.needs[&got.name] {
            prop_assert!(self.decoded.contains(need), "{:?} needs {:?}", got.name, need);
        }
        self.decoded.insert(got.name);
        Ok(())
    }
}

fn target() -> impl Strategy<Value = Option<Target>> {
    prop_oneof![
        1 => Just(None),
        8 => (0..3u8, 0..3u8).prop_map(|(encoding, temporal)| {
            Some(Target { encoding: EncodingId(encoding), spatial: 0, temporal })
        }),
    ]
}

proptest! {
    /// Whatever a subscription is told to get, and whatever the publisher stops sending: what it gets decodes, without
    /// gaps, and in the end it gets what it should.
    #[test]
    fn every_change_decodes_and_arrives(
        start: u16, with_reports: bool,
        steps in proptest::collection::vec((target(), 1usize..30, any::<Option<u8>>()), 1..12),
    ) {
        let mut session = Session::new();
        let mut camera = Camera::new(&mut session, epoch(), start);
        let viewer = session.subscribe(camera.publication).unwrap();
        session.activate(camera.at, viewer);
        let mut decoder = Decoder::default();
        for (target, pictures, switched) in steps {
            if with_reports {
                camera.report(&mut session);
            }
            session.set_target(camera.at, viewer, target);
            if let Some(switched) = switched {
                let stream = &mut camera.encodings[1 + usize::from(switched % 2)];
                stream.is_sent = !stream.is_sent;
            }
            timeouts(&mut session, &mut camera);
            for _ in 0..pictures {
                for sent in camera.picture() {
                    if let Some(got) = hand_in(&mut session, &mut camera, &sent) {
                        prop_assert!(target.is_some());
                        decoder.take(&camera, &got)?;
                    }
                }
                timeouts(&mut session, &mut camera);
            }
        }
        let wanted = Target { encoding: EncodingId(2), spatial: 0, temporal: 1 };
        session.set_target(camera.at, viewer, Some(wanted));
        for stream in &mut camera.encodings {
            stream.is_sent = true;
        }
        let mut seen = Vec::new();
        for _ in 0..60 {
            timeouts(&mut session, &mut camera);
            for sent in camera.picture() {
                if let Some(got) = hand_in(&mut session, &mut camera, &sent) {
                    decoder.take(&camera, &got)?;
                    seen.push((got.name.0, got.read.temporal));
                }
            }
        }
        let settled: HashSet<_> = seen[seen.len() - 12..].iter().copied().collect();
        prop_assert_eq!(settled, HashSet::from([(2, 0), (2, 1)]));
        prop_assert_eq!(session.current(viewer), Some(EncodingId(2)));
    }

    /// With losses, repairs and disorder on the way to the server, what is sent keeps the publisher's order under
    /// numbers of its own, and a packet that comes twice goes out under the same one.
    #[test]
    fn lost_and_late_packets_keep_their_place(
        start: u16,
        fates in proptest::collection::vec(0u8..12, 60..400),
        targets in proptest::collection::vec(target(), 8),
    ) {
        let mut session = Session::new();
        let mut camera = Camera::new(&mut session, epoch(), start);
        let viewer = session.subscribe(camera.publication).unwrap();
        session.activate(camera.at, viewer);
        let mut fates = fates.into_iter();
        let mut late: Vec<Sent> = Vec::new();
        // Since the encoding last changed: what place a number of the publisher has in its stream, and what it went out as.
        let mut given: HashMap<u64, u64> = HashMap::new();
        let (mut stretch, mut out_of) = (None, HashMap::<u64, u64>::new());
        let mut newest = 0u64;
        let mut picture = 0;
        while fates.len() > 8 {
            if picture % 12 == 0 {
                session.set_target(camera.at, viewer, targets[picture / 12 % targets.len()]);
            }
            picture += 1;
            timeouts(&mut session, &mut camera);
            let mut arriving = Vec::new();
            for sent in camera.picture() {
                match fates.next() {
                    Some(0) => {}
                    Some(1) => late.push(sent),
                    Some(2) => arriving.extend([sent.clone(), sent]),
                    Some(3) => {
                        arriving.push(sent);
                        arriving.extend(late.pop());
                    }
                    _ => arriving.push(sent),
                }
            }
            for sent in arriving {
                let Some(got) = hand_in(&mut session, &mut camera, &sent) else { continue };
                // Sent numbers start at 1 and grow by less than half their range.
                let ahead = Sequence(got.sequence).since(Sequence(newest as u16));
                let out = newest.checked_add_signed(i64::from(ahead)).unwrap();
                newest = newest.max(out);
                let mut place = [0; 8];
                place[4..].copy_from_slice(&got.name.1.to_be_bytes());
                let place = u64::from_be_bytes(place) * 16 + u64::from(got.part);
                if stretch != Some(got.name.0) {
                    prop_assert!(got.read.is_keyframe);
                    stretch = Some(got.name.0);
                    given.clear();
                }
                if let Some(before) = given.insert(place, out) {
                    prop_assert_eq!(before, out);
                }
                if let Some(place_before) = out_of.insert(out, place) {
                    prop_assert_eq!(place_before, place, "a number is used for one packet only");
                }
                for (other, number) in &given {
                    prop_assert_eq!(other.cmp(&place), number.cmp(&out));
                }
            }
        }
    }
}

#[test]
fn a_silent_encoding_is_left_for_the_best_one_below() {
    let mut session = Session::new();
    let mut camera = Camera::new(&mut session, epoch(), 7);
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(camera.at, viewer);
    let mut run = |camera: &mut Camera, pictures: usize| {
        for _ in 0..pictures {
            timeouts(&mut session, camera);
            for sent in camera.picture() {
                hand_in(&mut session, camera, &sent);
            }
        }
        session.current(viewer)
    };
    assert_eq!(run(&mut camera, 20), Some(EncodingId(2)), "the best there is");
    camera.encodings[2].is_sent = false;
    assert_eq!(run(&mut camera, 3), Some(EncodingId(2)), "it may only be late");
    assert_eq!(run(&mut camera, 40), Some(EncodingId(1)));
    camera.encodings[2].is_sent = true;
    assert_eq!(run(&mut camera, 3), Some(EncodingId(2)), "back with its first keyframe");
}

#[test]
fn layers_are_measured_and_each_can_be_asked_for() {
    let mut session = Session::new();
    let mut camera = Camera::new(&mut session, epoch(), 7);
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(camera.at, viewer);
    for _ in 0..100 {
        for sent in camera.picture() {
            hand_in(&mut session, &mut camera, &sent);
        }
    }
    let layers = session.layers(camera.publication).to_vec();
    let names: Vec<_> = layers.iter().map(|it| (it.encoding.0, it.temporal)).collect();
    assert_eq!(names, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    // 26 bytes thirty times a second are 6.3 kbit/s; three packets of a picture three times as much.
    assert!((6_000..6_600).contains(&layers[2].bitrate) && (18_000..20_000).contains(&layers[8].bitrate));
    for layer in layers {
        session.set_target(camera.at, viewer, Some(layer.target()));
        let mut got = Vec::new();
        for _ in 0..60 {
            timeouts(&mut session, &mut camera);
            for sent in camera.picture() {
                got.extend(hand_in(&mut session, &mut camera, &sent));
            }
        }
        let last = &got[got.len() - 8..];
        assert!(last.iter().all(|it| it.name.0 == layer.encoding.0 && it.read.temporal <= layer.temporal));
        assert!(last.iter().any(|it| it.read.temporal == layer.temporal));
    }
}

#[test]
fn reports_are_of_the_encoding_that_is_sent_and_keep_the_same_instant() {
    let mut session = Session::new();
    let mut camera = Camera::new(&mut session, epoch(), 999);
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(camera.at, viewer);
    let mut offsets = Vec::new();
    for encoding in [2, 0, 1] {
        let target = Target { encoding: EncodingId(encoding), ..Target::BEST };
        session.set_target(camera.at, viewer, Some(target));
        for _ in 0..20 {
            timeouts(&mut session, &mut camera);
            for sent in camera.picture() {
                hand_in(&mut session, &mut camera, &sent);
            }
            camera.report(&mut session);
        }
        for other in 0..3u8 {
            let stream = &camera.encodings[usize::from(other)];
            let now = Timestamp(stream.origin.wrapping_add(camera.ticks));
            let sent = session.sent_time(viewer, EncodingId(other), now);
            assert_eq!(sent.is_some(), other == encoding);
            offsets.extend(sent.map(|sent| sent.0.wrapping_sub(camera.ticks)));
        }
    }
    // A tick at most for each change: two pictures never have the same time.
    assert!(offsets.iter().all(|it| it.wrapping_sub(offsets[0]) <= 2), "{offsets:?}");
}

#[test]
fn a_keyframe_is_asked_for_of_the_encoding_that_is_wanted_and_seldom() {
    let (mut session, now) = (Session::new(), epoch());
    let camera = session.publish(Codec::Vp8);
    session.describe(camera, 3, None);
    let viewers: Vec<_> = (0..10).map(|_| session.subscribe(camera).unwrap()).collect();
    let mut asked = Vec::new();
    for viewer in &viewers {
        session.activate(now, *viewer);
        session.set_target(now, *viewer, Some(Target { encoding: EncodingId(0), ..Target::BEST }));
    }
    while let Some(output) = session.poll_output() {
        let Output::RequestKeyframe { encoding, .. } = output else { panic!("nothing to forward") };
        asked.push(encoding.0);
    }
    assert_eq!(asked, [2, 0], "the best first, then what they were told to get; each once");
    let mut unknown = key(1);
    unknown.encoding = EncodingId(3);
    session.handle_packet(now, camera, &unknown);
    assert_eq!((session.poll_output(), session.counters().unknown_encoding), (None, 1));
}

#[test]
fn an_encoding_that_is_taken_away_is_replaced_by_what_is_left() {
    let mut session = Session::new();
    let mut camera = Camera::new(&mut session, epoch(), 3);
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(camera.at, viewer);
    let run = |session: &mut Session, camera: &mut Camera| {
        for _ in 0..20 {
            timeouts(session, camera);
            for sent in camera.picture() {
                hand_in(session, camera, &sent);
            }
        }
        session.current(viewer)
    };
    assert_eq!(run(&mut session, &mut camera), Some(EncodingId(2)));
    session.describe(camera.publication, 1, None);
    assert_eq!(run(&mut session, &mut camera), Some(EncodingId(0)), "with a keyframe that was asked for");
    assert!(session.counters().unknown_encoding > 0);
}

/// Lets this many pictures pass; returns the encodings that the subscriber got, and the number of packets that were sent.
fn run(session: &mut Session, camera: &mut Camera, pictures: usize) -> (Vec<u8>, usize) {
    let (mut got, mut count) = (Vec::new(), 0);
    for _ in 0..pictures {
        for sent in camera.picture() {
            count += 1;
            got.extend(hand_in(session, camera, &sent).map(|got| got.name.0));
        }
        timeouts(session, camera);
    }
    got.dedup();
    (got, count)
}

#[test]
fn what_nobody_can_use_is_not_sent_and_is_back_soon_after_somebody_can() {
    let (mut session, start) = (Session::new(), epoch());
    let mut camera = Camera::new(&mut session, start, 7);
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(start, viewer);
    assert_eq!(run(&mut session, &mut camera, 60).0.last(), Some(&2));
    let costs: Vec<_> = session.layers(camera.publication).to_vec();

    let lowest = Target { encoding: EncodingId(0), ..Target::BEST };
    session.set_target(camera.at, viewer, Some(lowest));
    session.set_reach(camera.at, viewer, 1);
    carry_out(&mut session, &mut camera);
    run(&mut session, &mut camera, 200);
    let (got, packets) = run(&mut session, &mut camera, 60);
    assert_eq!((&got[..], packets), (&[0][..], 60), "one packet for each picture: only the lowest is sent");
    let known: Vec<_> = session.layers(camera.publication).to_vec();
    let names = |layers: &[Layer]| layers.iter().map(Layer::target).collect::<Vec<_>>();
    assert_eq!(names(&known), names(&costs), "what the others cost is remembered");

    session.set_target(camera.at, viewer, Some(Target::BEST));
    session.set_reach(camera.at, viewer, 3);
    carry_out(&mut session, &mut camera);
    assert_eq!(run(&mut session, &mut camera, 15).0.last(), Some(&2), "half a second later it is back");

    session.unsubscribe(viewer);
    run(&mut session, &mut camera, 200);
    assert_eq!(run(&mut session, &mut camera, 60), (vec![], 0), "nobody is there");
    let viewer = session.subscribe(camera.publication).unwrap();
    session.activate(camera.at, viewer);
    carry_out(&mut session, &mut camera);
    assert_eq!(run(&mut session, &mut camera, 1).0, [2], "with the next picture");
}

#[test]
fn subscribers_of_other_threads_keep_encodings_alive() {
    let (mut session, start) = (Session::new(), epoch());
    let mut camera = Camera::new(&mut session, start, 9);
    session.set_peer_demand(start, camera.publication, 1, Some(2));
    run(&mut session, &mut camera, 250);
    assert_eq!(run(&mut session, &mut camera, 1).1, 3, "the lower two");
    session.set_peer_demand(camera.at, camera.publication, 1, None);
    run(&mut session, &mut camera, 250);
    assert_eq!(run(&mut session, &mut camera, 10).1, 0);
}

/// What is said of a subscription is what its subscriber gets.
#[test]
fn a_subscription_says_which_layers_it_gets_and_how_much_of_what_it_could() {
    let mut session = Session::new();
    let mut camera = Camera::new(&mut session, epoch(), 7);
    let viewer = session.subscribe(camera.publication).unwrap();
    let target = |encoding, temporal| Target { encoding: EncodingId(encoding), spatial: 0, temporal };
    let run = |session: &mut Session, camera: &mut Camera, pictures: u32| {
        let mut highest = None;
        for _ in 0..pictures {
            timeouts(session, camera);
            for sent in camera.picture() {
                let got = hand_in(session, camera, &sent).map(|got| (got.name.0, got.read.temporal));
                highest = highest.max(got);
            }
        }
        highest
    };
    let current =
        |session: &Session| session.current_layer(viewer).map(|it| (it.encoding.0, it.spatial, it.temporal));
    assert_eq!(
        (session.standing(viewer), session.share(viewer, Target::BEST)),
        (Some(Standing::Inactive), None)
    );
    session.activate(camera.at, viewer);
    assert_eq!(session.standing(viewer), Some(Standing::AwaitingKeyframe));
    run(&mut session, &mut camera, 60);
    assert_eq!((session.standing(viewer), current(&session)), (Some(Standing::Flowing), Some((2, 0, 2))));
    assert_eq!(session.share(viewer, Target::BEST), Some(1.0));
    // Three encodings of three layers each; it gets two of the nine.
    session.set_target(camera.at, viewer, Some(target(0, 1)));
    run(&mut session, &mut camera, 60);
    assert_eq!(run(&mut session, &mut camera, 8), Some((0, 1)));
    assert_eq!((current(&session), session.share(viewer, Target::BEST)), (Some((0, 0, 1)), Some(2.0 / 9.0)));
    assert_eq!(session.share(viewer, target(0, 1)), Some(1.0), "which is all that was asked for");
    // What stops is no longer there to be got.
    assert!(session.is_alive(camera.publication, EncodingId(2)));
    for encoding in 1..=2 {
        camera.encodings[encoding].is_sent = false;
    }
    run(&mut session, &mut camera, 60);
    assert!([0, 1, 2].map(|it| session.is_alive(camera.publication, EncodingId(it))) == [true, false, false]);
    assert_eq!(session.share(viewer, Target::BEST), Some(2.0 / 3.0));
    session.set_target(camera.at, viewer, None);
    assert_eq!((session.standing(viewer), current(&session)), (Some(Standing::Paused), None));
    session.set_target(camera.at, viewer, Some(Target::BEST));
    session.set_muted(camera.at, camera.publication, true);
    assert_eq!(session.standing(viewer), Some(Standing::Muted));
    session.unpublish(camera.publication);
    assert_eq!(session.standing(viewer), None);
}
