//! What is left out of large rooms: cameras of who has not spoken for longest (`last_n`), and voices that are not among the
//! loudest (`loudest_n`).

use std::time::{Duration, Instant};

use common::message::{SubscriptionState, Wish};
use common::model::{SessionSettings, TrackId, TrackKind};
use media_worker::media::MediaEvent;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::World;

const SILENT: u8 = 127;
const SPEECH: u8 = 20;

/// Members that publish a voice and a camera, silent so far, and one who watches.
struct Room {
    members: Vec<usize>,
    viewer: usize,
    /// By member.
    voices: Vec<TrackId>,
    cameras: Vec<TrackId>,
}

impl Room {
    fn new(world: &mut World, count: usize) -> Self {
        let members: Vec<usize> = (0..count).map(|_| world.join(&[Audio, Video])).collect();
        let viewer = world.join(&[]);
        world.until("everything is offered", |world| {
            world.offers(viewer).last().is_some_and(|(_, tracks)| tracks.len() == 2 * count)
                && world.clients[viewer].pending.is_empty()
        });
        let tracks = world.offers(viewer).pop().unwrap().1;
        let of = |kind: TrackKind| {
            let of = |member: &usize| {
                let participant_id = world.clients[*member].participant;
                let is_it = |it: &&common::message::SubscribedTrack| {
                    it.kind == kind && it.participant_id == participant_id
                };
                tracks.iter().find(is_it).expect("it is offered").track_id
            };
            members.iter().map(of).collect()
        };
        let (voices, cameras) = (of(TrackKind::Audio), of(TrackKind::Video));
        Self { members, viewer, voices, cameras }
    }

    /// Until `done`, with everybody sending a voice and a keyframe every 20 ms.
    fn until(&self, world: &mut World, what: &str, mut done: impl FnMut(&World) -> bool) {
        let mut last = Instant::now();
        world.until(what, |world| {
            if last.elapsed() >= Duration::from_millis(20) {
                last = Instant::now();
                for member in &self.members {
                    world.clients[*member].send(0, false);
                    world.clients[*member].send(1, true);
                }
            }
            done(world)
        });
    }

    fn counts(&self, world: &World, tracks: &[TrackId]) -> Vec<usize> {
        let incoming = &world.clients[self.viewer].incoming;
        tracks.iter().map(|it| incoming.get(&it.to_string()).map_or(0, |it| it.sequences.len())).collect()
    }

    /// Whose of these tracks still come, once those of `expected` do and no others do.
    fn until_only(&self, world: &mut World, what: &str, tracks: &[TrackId], expected: &[usize]) {
        let mut before = self.counts(world, tracks);
        self.until(world, what, |world| {
            let now = self.counts(world, tracks);
            let comes = |member: &usize| now[*member] >= before[*member] + 20;
            if !expected.iter().all(comes) {
                return false;
            }
            let is_only = (0..now.len()).all(|it| expected.contains(&it) || now[it] == before[it]);
            before = now;
            is_only
        });
    }

    /// What the viewer was told to be held: everything that was held and not released.
    fn held(&self, world: &World) -> Vec<TrackId> {
        let mut held: Vec<TrackId> = Vec::new();
        for event in &world.clients[self.viewer].events {
            let MediaEvent::Suspensions { suspensions, .. } = event else { continue };
            held.retain(|track| !suspensions.released.contains(track));
            held.extend(&suspensions.held);
        }
        held
    }

    fn not_of(&self, members: &[usize]) -> Vec<TrackId> {
        let others = self.cameras.iter().enumerate().filter(|(member, _)| !members.contains(member));
        others.map(|(_, track)| *track).collect()
    }

    fn state(&self, world: &World, track: TrackId) -> SubscriptionState {
        let stats = world.plane.endpoint_stats(world.clients[self.viewer].endpoint);
        let stats = world.runtime.block_on(stats).unwrap();
        stats.subscribed.iter().find(|it| it.track_id == track).expect("it is subscribed to").state
    }

    fn set(&self, world: &World, settings: &SessionSettings) {
        world.runtime.block_on(world.plane.set_settings(world.pipeline, settings));
    }

    fn assert_numbered_without_gaps(&self, world: &World) {
        for (track, incoming) in &world.clients[self.viewer].incoming {
            let mut sequences = incoming.sequences.clone();
            sequences.sort_unstable();
            let expected: Vec<u16> = (1..=sequences.len() as u16).collect();
            assert_eq!(sequences, expected, "{track}: no gap is seen where it was left out");
        }
    }
}

fn same(mut one: Vec<TrackId>, mut other: Vec<TrackId>) -> bool {
    one.sort_unstable();
    other.sort_unstable();
    one == other
}

#[test]
fn only_cameras_of_the_last_who_spoke_are_sent_and_what_is_pinned() {
    for mut world in World::in_both_shapes() {
        world.treatment.settings.last_n = Some(2);
        let room = Room::new(&mut world, 4);
        let cameras = room.cameras.clone();
        room.until_only(&mut world, "the first two, before anybody spoke", &cameras, &[0, 1]);
        assert!(same(room.held(&world), room.not_of(&[0, 1])), "{:?}", room.held(&world));
        assert_eq!(room.counts(&world, &cameras)[2..], [0, 0], "never a packet of the others");
        assert_eq!(room.state(&world, cameras[3]), SubscriptionState::Held);
        assert!(room.counts(&world, &room.voices).iter().all(|count| *count > 0), "voices are not cameras");

        world.clients[room.members[3]].level = SPEECH;
        room.until_only(&mut world, "who speaks, and the first", &cameras, &[0, 3]);
        assert!(same(room.held(&world), room.not_of(&[0, 3])));
        world.clients[room.members[3]].level = SILENT;
        world.clients[room.members[2]].level = SPEECH;
        room.until_only(&mut world, "the last two who spoke", &cameras, &[2, 3]);

        let pin = Wish { priority: Wish::MAX_PRIORITY, ..Wish::default() };
        let endpoint = world.clients[room.viewer].endpoint;
        world.runtime.block_on(world.plane.set_wish(endpoint, cameras[1], pin)).unwrap();
        room.until_only(&mut world, "and one that is pinned", &cameras, &[1, 2, 3]);
        assert!(same(room.held(&world), room.not_of(&[1, 2, 3])));

        // A camera that is off takes nobody's place.
        let muted = world.plane.set_muted(world.clients[room.members[2]].endpoint, cameras[2], true);
        world.runtime.block_on(muted).unwrap();
        room.until_only(&mut world, "the next one takes the place", &cameras, &[0, 1, 3]);

        room.set(&world, &SessionSettings { revision: 1, last_n: Some(0), ..SessionSettings::default() });
        room.until_only(&mut world, "only what is pinned", &cameras, &[1]);
        room.set(&world, &SessionSettings { revision: 2, ..SessionSettings::default() });
        room.until_only(&mut world, "everybody", &cameras, &[0, 1, 3]);
        room.set(&world, &SessionSettings { revision: 1, last_n: Some(0), ..SessionSettings::default() });
        room.until_only(&mut world, "an old change comes too late", &cameras, &[0, 1, 3]);
        room.assert_numbered_without_gaps(&world);
    }
}

#[test]
fn a_subscriber_may_want_fewer_cameras_than_the_others() {
    for mut world in World::in_both_shapes() {
        let room = Room::new(&mut world, 2);
        let cameras = room.cameras.clone();
        world.treatment.last_n = Some(1);
        let other = world.join(&[]);
        room.until_only(&mut world, "all of them", &cameras, &[0, 1]);
        let came =
            |world: &World, track: TrackId| world.clients[other].incoming.contains_key(&track.to_string());
        room.until(&mut world, "the first one", |world| came(world, cameras[0]));
        assert!(!came(&world, cameras[1]));
        assert_eq!(room.held(&world), []);
    }
}

#[test]
fn only_the_loudest_voices_are_forwarded_and_who_speaks_is_among_them() {
    for mut world in World::in_both_shapes() {
        world.treatment.settings.loudest_n = Some(2);
        let room = Room::new(&mut world, 4);
        let voices = room.voices.clone();
        for pair in [[0, 1], [2, 3], [1, 2]] {
            for member in 0..4 {
                let level = if pair.contains(&member) { SPEECH } else { SILENT };
                world.clients[room.members[member]].level = level;
            }
            room.until_only(&mut world, "who speaks", &voices, &pair);
        }
        assert_eq!(room.state(&world, voices[0]), SubscriptionState::Held);
        assert_eq!(room.state(&world, voices[1]), SubscriptionState::Flowing);
        assert_eq!(room.held(&world), [], "clients show no voices: they are not told");

        // Somebody whose voice is muted takes nobody's place.
        let muted = world.plane.set_muted(world.clients[room.members[1]].endpoint, voices[1], true);
        world.runtime.block_on(muted).unwrap();
        world.clients[room.members[0]].level = SPEECH;
        room.until_only(&mut world, "the next one", &voices, &[0, 2]);
        room.set(&world, &SessionSettings { revision: 1, loudest_n: Some(1), ..SessionSettings::default() });
        world.clients[room.members[0]].level = SILENT;
        room.until_only(&mut world, "one", &voices, &[2]);
        room.set(&world, &SessionSettings { revision: 2, ..SessionSettings::default() });
        room.until_only(&mut world, "all", &voices, &[0, 2, 3]);
        room.assert_numbered_without_gaps(&world);
    }
}
