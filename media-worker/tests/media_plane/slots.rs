//! Clients that describe themselves once: what their m-lines carry comes, goes and changes without another description.

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::message::{Fixed, IceCredentials, IceFragment, IfMatch};
use media_worker::media::{IceOutcome, MediaError, MediaEvent};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::client::{Client, Incoming};
use crate::world::World;

/// Between two packets of who speaks, as of a real voice.
const PACE: Duration = Duration::from_millis(20);

/// Marks what a client sends: the payload of its packets starts with this number.
fn mark(world: &mut World, client: usize, mark: u64) {
    for outgoing in &mut world.clients[client].outgoing {
        outgoing.sent = mark << 32;
    }
}

/// Whose packets these are.
fn marks(payloads: &[Bytes]) -> Vec<u32> {
    payloads.iter().filter_map(|it| it.get(4..8)?.try_into().ok().map(u32::from_be_bytes)).collect()
}

/// What a client received on its m-line of that kind (`audio` or `video`); there is one.
fn on(world: &World, client: usize, kind: &str) -> Incoming {
    let found = world.clients[client].incoming.iter().find(|(track, _)| track.starts_with(kind));
    found.map(|(_, incoming)| incoming.clone()).unwrap_or_default()
}

fn last_mark(world: &World, client: usize, kind: &str) -> Option<u32> {
    marks(&on(world, client, kind).payloads).last().copied()
}

/// Everyone of `talking` sends until `done`.
fn talk_until(
    world: &mut World,
    talking: &[usize],
    is_key: bool,
    what: &str,
    mut done: impl FnMut(&mut World) -> bool,
) {
    let mut last = Instant::now();
    world.until(what, |world| {
        if last.elapsed() >= PACE {
            last = Instant::now();
            for client in talking {
                for index in 0..world.clients[*client].outgoing.len() {
                    world.clients[*client].send(index, is_key);
                }
            }
        }
        done(world)
    });
}

/// Numbered from 1 without a gap, whoever's packets they are.
fn assert_one_stream(incoming: &Incoming, what: &str) {
    let expected: Vec<u16> = (1..=incoming.sequences.len() as u16).collect();
    assert_eq!(incoming.sequences, expected, "{what}");
}

#[test]
fn who_comes_later_appears_on_the_lines_that_there_are_and_takes_turns_on_them() {
    for mut world in World::in_both_shapes() {
        let player = world.watch(&[Audio, Video], Fixed::default());
        world.until("the player is connected", |world| world.clients[player].is_connected);
        let ada = world.join(&[Audio, Video]);
        mark(&mut world, ada, 1);
        talk_until(&mut world, &[ada], true, "the first publisher is played", |world| {
            ["audio", "video"].iter().all(|kind| last_mark(world, player, kind) == Some(1))
        });
        let ben = world.join(&[Audio, Video]);
        mark(&mut world, ben, 2);
        // Both send; the first one stays, as long as nobody speaks.
        let before = on(&world, player, "video").sequences.len();
        talk_until(&mut world, &[ada, ben], true, "the first goes on", |world| {
            on(world, player, "video").sequences.len() >= before + 20
        });
        assert_eq!(last_mark(&world, player, "video"), Some(1));
        // Its end hands the lines over.
        let gone = world.plane.close_endpoint(world.clients[ada].endpoint);
        world.runtime.block_on(gone).unwrap();
        talk_until(&mut world, &[ben], true, "the second publisher is played", |world| {
            ["audio", "video"].iter().all(|kind| last_mark(world, player, kind) == Some(2))
        });
        for kind in ["audio", "video"] {
            assert_one_stream(&on(&world, player, kind), kind);
        }
        let gone = world.plane.close_endpoint(world.clients[ben].endpoint);
        world.runtime.block_on(gone).unwrap();
        let cara = world.join(&[Video]);
        mark(&mut world, cara, 3);
        talk_until(&mut world, &[cara], true, "who comes after a pause is played", |world| {
            last_mark(world, player, "video") == Some(3)
        });
        assert_one_stream(&on(&world, player, "video"), "over the pause");
        let events = &world.clients[player].events;
        let is_told =
            |event: &MediaEvent| matches!(event, MediaEvent::Offer { .. } | MediaEvent::Candidates { .. });
        assert!(!events.iter().any(is_told), "it reads no events: {events:?}");
    }
}

#[test]
fn one_line_follows_who_speaks_and_changes_the_picture_at_a_keyframe() {
    for mut world in World::in_both_shapes() {
        let player = world.watch(&[Audio, Video], Fixed::default());
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[Audio, Video]));
        mark(&mut world, ada, 1);
        mark(&mut world, ben, 2);
        let says = |world: &mut World, who: usize, other: usize| {
            world.clients[who].level = 0x80 | 15;
            world.clients[other].level = 127;
        };
        says(&mut world, ben, ada);
        talk_until(&mut world, &[ada, ben], true, "who speaks is heard and seen", |world| {
            ["audio", "video"].iter().all(|kind| last_mark(world, player, kind) == Some(2))
        });
        says(&mut world, ada, ben);
        // Without a keyframe the picture cannot change; the voice does.
        let asked = world.clients[ada].keyframe_requests;
        talk_until(
            &mut world,
            &[ada, ben],
            false,
            "the other one is heard, and asked for a picture",
            |world| {
                last_mark(world, player, "audio") == Some(1) && world.clients[ada].keyframe_requests > asked
            },
        );
        assert_eq!(last_mark(&world, player, "video"), Some(2), "the picture before stays");
        talk_until(&mut world, &[ada, ben], true, "the other one is seen", |world| {
            last_mark(world, player, "video") == Some(1)
        });
        for kind in ["audio", "video"] {
            let incoming = on(&world, player, kind);
            assert_one_stream(&incoming, kind);
            let mut turns = marks(&incoming.payloads);
            turns.dedup();
            assert!(turns == [2, 1] || turns == [1, 2, 1], "{kind} changes when the speaker does: {turns:?}");
        }
    }
}

#[test]
fn a_player_of_one_participant_or_one_track_gets_nothing_else() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[Audio, Video]));
        mark(&mut world, ada, 1);
        mark(&mut world, ben, 2);
        let of_ben = Fixed { participant_id: Some(world.clients[ben].participant), track_id: None };
        world.until("the second is offered the first", |world| {
            world.offers(ben).last().is_some_and(|(_, tracks)| tracks.len() == 2)
        });
        let picture = world.offers(ben).pop().unwrap().1;
        let picture = picture.iter().find(|it| it.kind == common::model::TrackKind::Video).unwrap().track_id;
        let one = Fixed { participant_id: None, track_id: Some(picture) };
        let players = [world.watch(&[Audio, Video], of_ben), world.watch(&[Audio, Video], one)];
        world.clients[ada].level = 0x80 | 10;
        talk_until(&mut world, &[ada, ben], true, "each gets what it wants", |world| {
            let enough = |kind, player| on(world, player, kind).sequences.len() >= 30;
            enough("audio", players[0]) && enough("video", players[0]) && enough("video", players[1])
        });
        let heard = marks(&on(&world, players[0], "audio").payloads);
        assert!(heard.iter().all(|mark| *mark == 2), "only the participant that was named: {heard:?}");
        assert!(on(&world, players[1], "audio").payloads.is_empty(), "the track is no voice");
        // The picture that the second publisher is offered is the first one's.
        assert!(marks(&on(&world, players[1], "video").payloads).iter().all(|mark| *mark == 1));
    }
}

#[test]
fn more_lines_carry_more_tracks_at_once() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Video]), world.join(&[Video]));
        mark(&mut world, ada, 1);
        mark(&mut world, ben, 2);
        let player = world.watch(&[Video, Video, Video], Fixed::default());
        talk_until(&mut world, &[ada, ben], true, "both are seen", |world| {
            let incoming = &world.clients[player].incoming;
            incoming.len() == 2 && incoming.values().all(|track| track.sequences.len() >= 20)
        });
        let mut seen: Vec<Vec<u32>> =
            world.clients[player].incoming.values().map(|track| marks(&track.payloads)).collect();
        seen.iter_mut().for_each(|marks| marks.dedup());
        seen.sort();
        assert_eq!(seen, [[1], [2]], "each on a line of its own");
    }
}

#[test]
fn what_cannot_be_played_is_refused_and_nothing_is_described_twice() {
    let mut world = World::new();
    // Data channels are nothing to play.
    let mut publisher = Client::new();
    publisher.open_channels();
    let client = world.open_fixed(publisher);
    let described = world.negotiate(client, Vec::new());
    assert!(matches!(described, Err(MediaError::InvalidSdp(_))), "{described:?}");
    let player = world.watch(&[Audio], Fixed::default());
    let again = world.clients[player].create_offer();
    assert!(matches!(world.offer(player, again, Vec::new()), Err(MediaError::InvalidSdp(_))));
}

#[test]
fn ice_restarts_without_a_description_when_the_precondition_holds() {
    let mut world = World::new();
    let player = world.watch(&[Audio], Fixed::default());
    let fragment_of = |sdp: &str, name: &str| {
        let prefix = format!("a={name}:");
        sdp.lines().find_map(|line| line.strip_prefix(prefix.as_str())).unwrap().trim().to_owned()
    };
    let tag = fragment_of(world.clients[player].remote_sdp(), "ice-ufrag");
    let endpoint = world.clients[player].endpoint;
    let ice = |world: &World, fragment: IceFragment, if_match: IfMatch| {
        world.runtime.block_on(world.plane.ice(endpoint, fragment, if_match))
    };
    let credentials = |name: &str| {
        let (username_fragment, password) =
            (name.to_owned(), "a password of enough characters".replace(' ', "+"));
        Some(IceCredentials { username_fragment, password })
    };
    let empty = IceFragment::default();
    let tags = |tag: &str| IfMatch::Tags(vec![tag.to_owned()]);
    assert_eq!(ice(&world, empty.clone(), tags("other")), Err(MediaError::PreconditionFailed));
    assert_eq!(ice(&world, empty.clone(), tags(&tag)), Ok(IceOutcome::Taken));
    let bad = IceFragment { credentials: credentials("x"), ..empty.clone() };
    assert!(matches!(ice(&world, bad, IfMatch::Any), Err(MediaError::InvalidSdp(_))));
    let new = IceFragment { credentials: credentials("fresh"), ..empty.clone() };
    let Ok(IceOutcome::Restarted(own)) = ice(&world, new.clone(), IfMatch::Any) else {
        panic!("it restarts")
    };
    let own_tag = own.credentials.unwrap().username_fragment;
    assert_ne!(own_tag, tag, "a new session has a new tag");
    assert!(!own.candidates.is_empty());
    assert_eq!(ice(&world, new, IfMatch::Any), Ok(IceOutcome::Taken), "the same ones again restart nothing");
    assert_eq!(ice(&world, empty.clone(), tags(&tag)), Err(MediaError::PreconditionFailed));
    assert_eq!(ice(&world, empty, tags(&own_tag)), Ok(IceOutcome::Taken));
}
