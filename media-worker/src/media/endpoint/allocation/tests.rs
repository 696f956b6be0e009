use common::message::Shown;
use common::time::UnixMillis;
use sfu::{Codec, Extension, ExtensionIds, IdMap, Packet};

use super::super::lines::{Sending, Use};
use super::*;
use crate::media::codecs::Numbering;
use crate::media::rtp::send::Sender;

/// What the encodings of every camera cost, about, in kbit/s.
const COSTS: [u64; 3] = [120, 400, 1600];

/// A subscriber of some tracks, which are sent to it or would be.
struct Room {
    session: Session,
    allocation: Allocation,
    lines: Vec<Line>,
    now: Instant,
    told: Suspensions,
    /// What publishers were told last.
    demand: Option<u8>,
    /// Whose cameras are sent.
    cameras: Option<Vec<ParticipantId>>,
}

/// A published track: its encodings are those of a camera, from the lowest.
fn track(kind: TrackKind, source: TrackSource, encodings: u8, session: &mut Session) -> SourceTrack {
    let codec = if kind == TrackKind::Audio { Codec::Opus } else { Codec::Vp8 };
    let publication = session.publish(codec);
    session.describe(publication, encodings, None);
    SourceTrack {
        track_id: TrackId::new(),
        participant_id: ParticipantId::new(),
        kind,
        source,
        codec,
        extensions: ExtensionIds::default(),
        encodings,
        publication,
        muted: false,
        joined_at: UnixMillis(0),
    }
}

impl Room {
    /// One microphone, and cameras of so many encodings.
    fn new(cameras: &[u8]) -> Self {
        let (mut session, now) = (Session::new(), Instant::now());
        let mut tracks = vec![track(TrackKind::Audio, TrackSource::Microphone, 1, &mut session)];
        tracks
            .extend(cameras.iter().map(|it| track(TrackKind::Video, TrackSource::Camera, *it, &mut session)));
        let mut extensions = ExtensionIds::default();
        extensions.set(Extension::TransportSequence, 4);
        let line = |track: SourceTrack, session: &mut Session| {
            let payload = Numbering::default().payload(track.codec).unwrap();
            let subscription = session.subscribe(track.publication).unwrap();
            session.activate(now, subscription);
            let mut sending = Sending::new(track.kind, payload, extensions);
            let sender = Sender::new(now, sending.ssrc, 96, None, IdMap::default(), 64);
            sending.carried =
                Some(Carried { track, subscription, sender: Some(sender), share: Box::default() });
            Line { mid: "s0".into(), use_: Use::Sending(sending) }
        };
        let lines = tracks.into_iter().map(|track| line(track, &mut session)).collect();
        let allocation = Allocation::new(Policy::default());
        Self { session, allocation, lines, now, told: Suspensions::default(), demand: None, cameras: None }
    }

    fn carried(&mut self, line: usize) -> &mut Carried {
        carried(&mut self.lines, line).unwrap()
    }

    /// Everything is published for two seconds, 50 packets in each.
    fn publish(&mut self) {
        self.publish_up_to(u8::MAX);
    }

    /// The same with so many encodings of each track.
    fn publish_up_to(&mut self, most: u8) {
        for step in 0..100u32 {
            self.now += Duration::from_millis(20);
            for line in 0..self.lines.len() {
                let track = self.carried(line).track.clone();
                for encoding in 0..track.encodings.min(most) {
                    let is_voice = track.kind == TrackKind::Audio;
                    let kbps = if is_voice { 32 } else { COSTS[usize::from(encoding)] };
                    let mut payload = vec![0; kbps as usize * 1000 / 8 / 50 - 12];
                    if !is_voice {
                        // VP8 (RFC 6386, section 9.1): a keyframe now and then, and how large it is.
                        payload[..7].copy_from_slice(&[
                            0x10,
                            u8::from(!step.is_multiple_of(25)),
                            0,
                            0,
                            0x9d,
                            0x01,
                            0x2a,
                        ]);
                        payload[7..9].copy_from_slice(&(320u16 << encoding).to_le_bytes());
                        payload[9..11].copy_from_slice(&(180u16 << encoding).to_le_bytes());
                    }
                    let ssrc = 100 * line as u32 + u32::from(encoding);
                    let packet = Packet {
                        encoding: EncodingId(encoding),
                        marker: true,
                        ..Packet::new(ssrc, step as u16, step * 1800, &payload)
                    };
                    self.session.handle_packet(self.now, track.publication, &packet);
                }
            }
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            if let sfu::Output::Demand { encodings, .. } = output {
                self.demand = Some(encodings);
            }
        }
    }

    /// What each camera may get at most after a while with this much, by the place of the encoding.
    fn divide(&mut self, available: Available, speaking: &[ParticipantId]) -> (Vec<Option<u8>>, Divided) {
        let mut divided = None;
        for _ in 0..30 {
            self.now += INTERVAL;
            let (lines, session) = (&mut self.lines, &mut self.session);
            let attention = Attention { speaking, cameras: self.cameras.as_deref() };
            let told = &mut self.told;
            divided = Some(self.allocation.divide(self.now, available, &attention, lines, session, told));
        }
        self.carry_out();
        let targets = (1..self.lines.len()).map(|line| {
            let Carried { subscription, track, .. } = self.carried(line);
            let (subscription, highest) = (*subscription, track.encodings - 1);
            self.session.target(subscription).map(|target| target.encoding.0.min(highest))
        });
        (targets.collect(), divided.unwrap())
    }

    fn targets(&mut self, kbps: u64) -> Vec<Option<u8>> {
        self.divide(Available::Known(kbps * 1000), &[]).0
    }
}

#[test]
fn voices_come_first_and_pictures_get_what_is_left() {
    let mut room = Room::new(&[3, 3]);
    room.publish();
    assert_eq!(room.targets(5000), [Some(2), Some(2)]);
    assert_eq!(room.targets(2400), [Some(2), Some(1)]);
    assert_eq!(room.targets(1000), [Some(1), Some(1)]);
    assert_eq!(room.targets(280), [Some(0), Some(0)]);
    assert_eq!(room.targets(170), [Some(0), None]);
    assert_eq!(room.targets(60), [None, None]);
}

#[test]
fn a_path_that_nothing_is_known_of_is_not_limited() {
    let mut room = Room::new(&[3, 1]);
    assert_eq!(room.divide(Available::Unlimited, &[]).0, [Some(2), Some(0)]);
    room.publish();
    let (targets, divided) = room.divide(Available::Unlimited, &[]);
    assert_eq!((targets, divided.pace), (vec![Some(2), Some(0)], None));
}

#[test]
fn what_is_not_measured_yet_begins_with_the_least() {
    let mut room = Room::new(&[3, 1]);
    assert_eq!(room.divide(Available::Known(9_000_000), &[]).0, [Some(0), Some(0)]);
    assert!(room.told.is_empty(), "nothing is suspended: {:?}", room.told);
}

#[test]
fn something_is_sent_before_anything_is_known() {
    let mut room = Room::new(&[1, 1]);
    room.publish();
    assert_eq!(room.divide(Available::Start(50_000), &[]).0, [Some(0), None]);
}

#[test]
fn wishes_bound_what_is_sent() {
    let mut room = Room::new(&[3, 3, 3]);
    room.publish();
    room.carried(1).share.wish = Wish { max_encoding: Some(1), ..Wish::default() };
    room.carried(2).share.wish = Wish { paused: true, ..Wish::default() };
    for available in [Available::Unlimited, Available::Known(20_000_000)] {
        assert_eq!(room.divide(available, &[]).0, [Some(1), None, Some(2)]);
    }
    assert!(room.told.is_empty(), "who pauses is not told: {:?}", room.told);
    room.carried(1).share.wish = Wish { max_encoding: Some(9), ..Wish::default() };
    assert_eq!(room.targets(20_000)[0], Some(2), "the best there is");
    let wish = Wish { shown: Some(Shown { width: 1, height: 1 }), ..Wish::default() };
    room.carried(1).share.wish = wish;
    assert_eq!(room.targets(20_000)[0], Some(0), "VP8 keyframes say how large they are");
}

#[test]
fn pinned_then_screens_then_who_speaks() {
    let mut room = Room::new(&[3, 3, 3, 3]);
    room.publish();
    assert_eq!(room.targets(1000), [Some(1), Some(0), Some(0), Some(0)]);
    let speaking = [room.carried(4).track.participant_id];
    let known = Available::Known(1_000_000);
    assert_eq!(room.divide(known, &speaking).0, [Some(0), Some(0), Some(0), Some(1)]);
    room.carried(3).track.source = TrackSource::Screen;
    assert_eq!(room.divide(known, &speaking).0, [Some(0), Some(0), Some(1), Some(0)]);
    room.carried(2).share.wish.priority = 1;
    assert_eq!(room.divide(known, &speaking).0, [Some(0), Some(1), Some(0), Some(0)]);
}

#[test]
fn a_suspension_is_told_once_when_it_lasts_and_so_is_its_end() {
    let mut room = Room::new(&[3]);
    room.publish();
    room.targets(1000);
    assert!(room.told.is_empty());
    let track = room.carried(1).track.track_id;
    let suspended = Suspensions { suspended: vec![track], ..Suspensions::default() };
    assert_eq!((room.targets(35), std::mem::take(&mut room.told)), (vec![None], suspended));
    room.targets(35);
    assert!(room.told.is_empty(), "once");
    let resumed = Suspensions { resumed: vec![track], ..Suspensions::default() };
    assert_eq!((room.targets(300), std::mem::take(&mut room.told)), (vec![Some(0)], resumed));
}

#[test]
fn what_the_client_pauses_comes_back_at_once() {
    let mut room = Room::new(&[3]);
    room.publish();
    assert_eq!(room.targets(5000), [Some(2)]);
    let divide = |room: &mut Room, paused| {
        room.carried(1).share.wish = Wish { paused, ..Wish::default() };
        let (lines, session) = (&mut room.lines, &mut room.session);
        room.now += Duration::from_millis(10);
        let known = Available::Known(5_000_000);
        room.allocation.divide(room.now, known, &Attention::default(), lines, session, &mut room.told);
        let subscription = room.carried(1).subscription;
        room.session.target(subscription)
    };
    assert_eq!(divide(&mut room, true), None);
    assert_eq!(divide(&mut room, false), Some(Target::BEST));
    assert!(room.told.is_empty(), "{:?}", room.told);
}

#[test]
fn a_muted_picture_takes_nothing_from_the_others() {
    let mut room = Room::new(&[3, 3]);
    room.publish();
    assert_eq!(room.targets(700), [Some(1), Some(0)]);
    let muted = room.carried(1).track.publication;
    room.session.set_muted(room.now, muted, true);
    assert_eq!(room.targets(700)[1], Some(1));
}

#[test]
fn publishers_go_on_with_what_fits_soon() {
    let mut room = Room::new(&[3]);
    room.publish();
    assert_eq!((room.targets(5000), room.demand), (vec![Some(2)], None));
    room.targets(300);
    assert_eq!(room.demand, None, "less must be wanted for a while");
    room.publish();
    assert_eq!(room.demand, Some(2), "of 120, 400 and 1600, the second could fit soon");
    room.targets(1000);
    assert_eq!(room.demand, Some(3));
}

#[test]
fn an_encoding_that_never_came_is_asked_for_and_priced_first() {
    let mut room = Room::new(&[3]);
    room.publish_up_to(2);
    assert_eq!(room.targets(300), [Some(0)]);
    room.publish_up_to(2);
    room.targets(150);
    room.publish_up_to(2);
    assert_eq!(room.demand, Some(1), "nothing better fits soon");
    // The second fits, and the third may.
    let (targets, divided) = room.divide(Available::Known(700_000), &[]);
    assert_eq!((targets, room.demand), (vec![Some(1)], Some(3)));
    assert!(divided.wanted > UNMEASURED, "there is a reason to probe: {}", divided.wanted);
    room.publish();
    assert_eq!(room.targets(700), [Some(1)], "it is known now, and does not fit");
    assert_eq!(room.targets(2000), [Some(2)]);
}

#[test]
fn what_may_be_there_does_not_slow_down_what_is() {
    let mut room = Room::new(&[3]);
    room.publish_up_to(2);
    let (targets, divided) = room.divide(Available::Known(5_000_000), &[]);
    assert_eq!((targets, divided.pace), (vec![Some(2)], None), "whatever comes is taken at once");
}

#[test]
fn pictures_are_paced_where_it_is_narrow() {
    let mut room = Room::new(&[3]);
    room.publish();
    let pace = |room: &mut Room, kbps: u64| room.divide(Available::Known(kbps * 1000), &[]).1.pace;
    assert_eq!(pace(&mut room, 5000), None);
    let granted = pace(&mut room, 600).unwrap() / 1000;
    assert!((400..=480).contains(&granted), "voice and the second encoding: {granted}");
}

#[test]
fn cameras_that_are_left_out_get_nothing_and_are_told_at_once_and_pins_and_screens_are_exempt() {
    let mut room = Room::new(&[3, 3, 3]);
    room.carried(3).track.source = TrackSource::Screen;
    room.publish();
    let id = |room: &mut Room, line| room.carried(line).track.participant_id;
    let track = |room: &mut Room, line| room.carried(line).track.track_id;
    let (ada, first) = (id(&mut room, 1), track(&mut room, 1));
    let (ben, second) = (id(&mut room, 2), track(&mut room, 2));
    for available in [Available::Unlimited, Available::Known(9_000_000)] {
        room.cameras = Some(vec![ada]);
        assert_eq!(room.divide(available, &[]).0, [Some(2), None, Some(2)]);
        let held = Suspensions { held: vec![second], ..Suspensions::default() };
        assert_eq!(std::mem::take(&mut room.told), held, "once");
        room.cameras = Some(vec![ben]);
        assert_eq!(room.divide(available, &[]).0, [None, Some(2), Some(2)]);
        let told = Suspensions { held: vec![first], released: vec![second], ..Suspensions::default() };
        assert_eq!(std::mem::take(&mut room.told), told);
        room.carried(1).share.wish.priority = Wish::MAX_PRIORITY;
        assert_eq!(room.divide(available, &[]).0, [Some(2), Some(2), Some(2)], "pinned");
        room.carried(1).share.wish.priority = 0;
        room.cameras = None;
        assert_eq!(room.divide(available, &[]).0, [Some(2), Some(2), Some(2)]);
        assert_eq!(room.told.released, [first], "and nothing more");
        room.told = Suspensions::default();
    }
    // Nobody is to send what nobody gets.
    room.cameras = Some(Vec::new());
    room.publish();
    for _ in 0..4 {
        room.divide(Available::Known(9_000_000), &[]);
        room.publish();
    }
    let demanded = |room: &mut Room, line| {
        let publication = room.carried(line).track.publication;
        room.session.demanded(publication)
    };
    assert_eq!([1, 2, 3].map(|line| demanded(&mut room, line)), [0, 0, 3]);
}
