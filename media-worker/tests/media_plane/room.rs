//! Media between members of a room: both ways, late, muted, unpublished and published again.

use std::time::Duration;

use common::message::TrackDescription;
use common::model::{TrackId, TrackKind, TrackSource};
use media_worker::media::MediaEvent;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::World;

/// Sends a packet on every track of a client; `keyframe` for its video.
fn talk(world: &mut World, client: usize, keyframe: bool) {
    for index in 0..world.clients[client].outgoing.len() {
        world.clients[client].send(index, keyframe);
    }
}

fn received(world: &World, client: usize, track: TrackId) -> Vec<u16> {
    world.clients[client].incoming.get(&track.to_string()).map(|it| it.sequences.clone()).unwrap_or_default()
}

#[test]
fn two_members_see_and_hear_each_other() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[Audio, Video]));
        world.until("media flows both ways", |world| {
            talk(world, ada, true);
            talk(world, ben, true);
            [ada, ben].iter().all(|client| {
                let incoming = &world.clients[*client].incoming;
                incoming.len() == 2 && incoming.values().all(|track| track.sequences.len() >= 20)
            })
        });
        for client in [ada, ben] {
            for (track, incoming) in &world.clients[client].incoming {
                let expected: Vec<u16> = (1..=incoming.sequences.len() as u16).collect();
                assert_eq!(incoming.sequences, expected, "{track}: numbered from 1 without gaps or repeats");
            }
            let (_, tracks) = world.offers(client).pop().unwrap();
            assert_eq!(tracks.len(), 2);
            let other = world.clients[if client == ada { ben } else { ada }].participant;
            assert!(tracks.iter().all(|track| track.participant_id == other));
            let mut kinds: Vec<_> = tracks.iter().map(|track| (track.kind, track.source)).collect();
            kinds.sort_by_key(|(kind, _)| *kind == TrackKind::Video);
            assert_eq!(
                kinds,
                [(TrackKind::Audio, TrackSource::Microphone), (TrackKind::Video, TrackSource::Camera)]
            );
            let sdp = world.clients[client].remote_sdp();
            for track in &tracks {
                assert!(sdp.contains(&format!("a=msid:{} {}", track.participant_id, track.track_id)));
            }
        }
    }
}

#[test]
fn who_speaks_is_told_once_and_again_when_it_is_somebody_else() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio]), world.join(&[Audio]));
        let talking = |world: &mut World, levels: [u8; 2], expected: &[usize]| {
            world.clients[ada].level = levels[0];
            world.clients[ben].level = levels[1];
            let expected: Vec<_> = expected.iter().map(|client| world.clients[*client].participant).collect();
            let mut last = std::time::Instant::now();
            world.until("the speakers are told", |world| {
                if last.elapsed() >= Duration::from_millis(20) {
                    last = std::time::Instant::now();
                    talk(world, ada, false);
                    talk(world, ben, false);
                }
                let told = world.speakers.last();
                told.is_some_and(|told| told.iter().map(|it| it.participant_id).eq(expected.iter().copied()))
            });
        };
        // The first bit of a level says that the client takes it for speech.
        talking(&mut world, [0x80 | 20, 127], &[ada]);
        assert!(world.speakers[0][0].level > 0.0);
        talking(&mut world, [90, 15], &[ben]);
        talking(&mut world, [127, 127], &[]);
        // One list for each change, whichever media threads hear it. Between two speakers both or neither may be named.
        assert!(world.speakers.len() <= 4, "{:?}", world.speakers);
        // A muted track says nothing, whatever its client sends.
        let track = world.offers(ben).pop().unwrap().1[0].track_id;
        let muted = world.plane.set_muted(world.clients[ada].endpoint, track, true);
        world.runtime.block_on(muted).unwrap();
        talking(&mut world, [10, 20], &[ben]);
    }
}

#[test]
fn candidates_are_announced_once_and_end() {
    for mut world in World::in_both_shapes() {
        let ada = world.join(&[Audio]);
        let candidates: Vec<_> = world.clients[ada]
            .events
            .iter()
            .filter_map(|event| match event {
                MediaEvent::Candidates { candidates, .. } => Some(candidates.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(candidates.len(), 1);
        let announced = world.plane.announced();
        assert_eq!(candidates[0].len(), 2 * announced.len() + 1, "each over UDP and over TCP, and the end");
        let tcp = format!("127.0.0.1 {} typ host tcptype passive", world.plane.tcp_port().unwrap());
        assert!(candidates[0][announced.len()].candidate.ends_with(&tcp), "{candidates:?}");
        assert!(
            candidates[0][0]
                .candidate
                .contains(&format!("127.0.0.1 {} typ host", world.plane.local_addr().port()))
        );
        assert_eq!(candidates[0].last().unwrap().candidate, "");
    }
}

#[test]
fn who_comes_late_gets_what_is_there_starting_with_a_keyframe() {
    for mut world in World::in_both_shapes() {
        let ada = world.join(&[Video]);
        for _ in 0..50 {
            talk(&mut world, ada, false);
            world.step();
        }
        let before = world.clients[ada].keyframe_requests;
        let eve = world.join(&[]);
        world.until("a keyframe is asked for", |world| {
            talk(world, ada, false);
            world.clients[ada].keyframe_requests > before
        });
        assert!(world.clients[eve].incoming.is_empty(), "nothing before the keyframe");
        talk(&mut world, ada, true);
        world.until("video flows", |world| {
            talk(world, ada, false);
            world.clients[eve].incoming.values().any(|track| track.sequences.len() > 5)
        });
        let incoming = world.clients[eve].incoming.values().next().unwrap();
        assert_eq!(incoming.payloads[0][1] & 1, 0, "the first packet is the keyframe");
        assert!(incoming.payloads[1..].iter().all(|payload| payload[1] & 1 == 1));
    }
}

#[test]
fn a_subscriber_that_lost_its_picture_makes_the_publisher_send_a_keyframe() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Video]), world.join(&[]));
        world.until("video flows", |world| {
            talk(world, ada, true);
            world.clients[ben].incoming.values().any(|track| track.sequences.len() > 5)
        });
        let before = world.clients[ada].keyframe_requests;
        let track = world.clients[ben].incoming.keys().next().unwrap().clone();
        // Keyframes that were on their way answer the first requests; a decoder goes on asking.
        world.until("the request arrives", |world| {
            world.clients[ben].request_keyframe(&track);
            world.clients[ada].keyframe_requests > before
        });
    }
}

#[test]
fn a_muted_track_stops_and_resumes_without_a_gap() {
    for mut world in World::in_both_shapes() {
        let ada = world.open(false);
        world.clients[ada].add_track(Audio);
        world.clients[ada].add_track(Video);
        let negotiated = world.negotiate(ada, Vec::new()).unwrap();
        let ben = world.join(&[]);
        let tracks: Vec<TrackId> = negotiated.tracks.iter().map(|track| track.id).collect();
        world.until("media flows", |world| {
            talk(world, ada, true);
            tracks.iter().all(|track| received(world, ben, *track).len() > 5)
        });
        let endpoint = world.clients[ada].endpoint;
        for track in &tracks {
            let muted = world.runtime.block_on(world.plane.set_muted(endpoint, *track, true)).unwrap();
            assert!(muted.muted);
        }
        // What was on its way before the mute still arrives; after a moment of quiet nothing is.
        world.for_a_while(Duration::from_millis(100), |_| {});
        let before: Vec<usize> = tracks.iter().map(|track| received(&world, ben, *track).len()).collect();
        for _ in 0..100 {
            talk(&mut world, ada, true);
            world.step();
        }
        world.for_a_while(Duration::from_millis(200), |_| {});
        let after: Vec<usize> = tracks.iter().map(|track| received(&world, ben, *track).len()).collect();
        assert_eq!(before, after, "nothing is forwarded while muted");

        let requests = world.clients[ada].keyframe_requests;
        for track in &tracks {
            world.runtime.block_on(world.plane.set_muted(endpoint, *track, false)).unwrap();
        }
        world.until("a keyframe is asked for", |world| world.clients[ada].keyframe_requests > requests);
        world.until("media flows again", |world| {
            talk(world, ada, true);
            tracks.iter().zip(&after).all(|(track, before)| received(world, ben, *track).len() > before + 5)
        });
        for track in &tracks {
            let sequences = received(&world, ben, *track);
            assert_eq!(sequences, (1..=sequences.len() as u16).collect::<Vec<_>>());
        }
        let unknown = world.runtime.block_on(world.plane.set_muted(endpoint, TrackId::new(), true));
        assert_eq!(unknown, Err(media_worker::media::MediaError::TrackNotFound));
    }
}

#[test]
fn the_m_lines_of_departed_tracks_are_used_again() {
    for mut world in World::in_both_shapes() {
        let viewer = world.join(&[]);
        let mut m_lines = Vec::new();
        for round in 0..3 {
            let guest = world.join(&[Audio, Video]);
            world.until("the guest is seen", |world| {
                talk(world, guest, true);
                let incoming = &world.clients[viewer].incoming;
                incoming.len() == 2 * (round + 1) && incoming.values().all(|track| track.sequences.len() >= 3)
            });
            m_lines.push(world.clients[viewer].remote_sdp().matches("\r\nm=").count());
            let endpoint = world.clients[guest].endpoint;
            world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
            world.until("the guest is gone", |world| {
                world.offers(viewer).last().is_some_and(|(_, tracks)| tracks.is_empty())
                    && world.clients[viewer].pending.is_empty()
            });
        }
        assert_eq!(m_lines, [m_lines[0]; 3], "no m-line was added for the later guests");
    }
}

#[test]
fn tracks_are_described_unpublished_and_published_again() {
    for mut world in World::in_both_shapes() {
        let ada = world.open(false);
        world.clients[ada].add_track(Audio);
        world.clients[ada].add_track(Video);
        let screen = TrackId::new();
        let describe = |mid: &str, id| TrackDescription {
            mid: mid.into(),
            source: TrackSource::Screen,
            track_id: id,
            muted: true,
        };
        let sdp = world.clients[ada].create_offer();
        let first = world.offer(ada, sdp.clone(), vec![describe("1", Some(screen))]).unwrap();
        assert_eq!(first.answer.revision, 1);
        assert_eq!(first.tracks, first.published);
        let [sound, picture] = &first.tracks[..] else { panic!("two tracks") };
        assert_eq!(
            (sound.kind, sound.source, sound.muted),
            (TrackKind::Audio, TrackSource::Microphone, false)
        );
        assert_eq!((picture.id, picture.source, picture.muted), (screen, TrackSource::Screen, true));
        assert_eq!((sound.mid.as_str(), picture.mid.as_str()), ("0", "1"));

        let again = world.offer(ada, sdp.clone(), Vec::new()).unwrap();
        assert_eq!((again.published.len(), again.unpublished.len(), again.answer.revision), (0, 0, 2));
        assert_eq!(again.tracks, first.tracks, "an unchanged offer changes nothing");

        // The video m-line turns inactive: the track is gone.
        let (head, video) = sdp.split_at(sdp.find("m=video").unwrap());
        let stopped = format!("{head}{}", video.replace("a=sendonly", "a=inactive"));
        let gone = world.offer(ada, stopped.clone(), Vec::new()).unwrap();
        assert_eq!((gone.tracks.len(), gone.published.len()), (1, 0));
        assert_eq!(gone.unpublished, [screen]);

        // Sending again is a new track, or the old one when it is described so.
        let back = world.offer(ada, sdp.clone(), Vec::new()).unwrap();
        assert_eq!(back.published.len(), 1);
        assert_ne!(back.published[0].id, screen);
        world.offer(ada, stopped, Vec::new()).unwrap();
        let same = world.offer(ada, sdp, vec![describe("1", Some(screen))]).unwrap();
        assert_eq!(same.published[0].id, screen);
    }
}

#[test]
fn who_may_not_subscribe_gets_nothing_and_who_may_not_publish_is_refused() {
    for mut world in World::in_both_shapes() {
        let ada = world.join(&[Audio]);
        let deaf = world.open_with(crate::client::Client::new(), false, true, false);
        world.clients[deaf].add_track(Audio);
        world.negotiate(deaf, Vec::new()).unwrap();
        world.until("it is connected and heard", |world| {
            talk(world, deaf, false);
            world.clients[ada].incoming.values().any(|track| track.sequences.len() > 5)
        });
        assert!(world.offers(deaf).is_empty());

        let mute = world.open_with(crate::client::Client::new(), true, false, true);
        world.until("the server offers what there is", |world| world.clients[mute].is_connected);
        world.clients[mute].add_track(Audio);
        let refused = world.negotiate(mute, Vec::new());
        assert_eq!(refused, Err(media_worker::media::MediaError::Forbidden));
    }
}
