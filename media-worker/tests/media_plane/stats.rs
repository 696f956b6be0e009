//! What is said of an endpoint is what its client went through.

use std::time::{Duration, Instant};

use common::message::{
    AddressFamily, CandidateType, EndpointStats, PathProtocol, SubscribedStats, SubscriptionState, Wish,
};
use common::model::{EndpointId, EndpointState, Quality, TrackKind};
use media_worker::media::{MediaConfig, MediaError};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::client::Loss;
use crate::world::{World, config};

/// Between two packets of a track.
const PACE: Duration = Duration::from_millis(5);

fn stats(world: &World, client: usize) -> EndpointStats {
    world.runtime.block_on(world.plane.endpoint_stats(world.clients[client].endpoint)).unwrap()
}

fn video(stats: &EndpointStats) -> Option<&SubscribedStats> {
    stats.subscribed.iter().find(|it| it.kind == TrackKind::Video)
}

/// Sends on all tracks of a client at a pace, and steps, until the figures of another say what is expected.
fn until_stats(
    world: &mut World,
    (sender, watched): (usize, usize),
    what: &str,
    mut is_so: impl FnMut(&EndpointStats) -> bool,
) -> EndpointStats {
    let mut looked = Instant::now();
    let mut found = None;
    pace(world, sender, what, |world| {
        if looked.elapsed() >= Duration::from_millis(50) {
            looked = Instant::now();
            found = Some(stats(world, watched)).filter(|stats| is_so(stats));
        }
        found.is_some()
    });
    found.unwrap()
}

/// Sends on all tracks of a client at a pace, and steps, until `done`.
fn pace(world: &mut World, sender: usize, what: &str, mut done: impl FnMut(&mut World) -> bool) {
    let mut sent = Instant::now();
    world.until(what, |world| {
        if sent.elapsed() >= PACE {
            sent = Instant::now();
            for index in 0..world.clients[sender].outgoing.len() {
                let is_keyframe = world.clients[sender].outgoing[index].sent.is_multiple_of(50);
                world.clients[sender].send(index, is_keyframe);
            }
        }
        done(world)
    });
}

#[test]
fn what_flows_is_counted_on_both_sides() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
        let received = until_stats(&mut world, (ada, ben), "both tracks flow and are reported", |stats| {
            stats.subscribed.len() == 2
                && stats
                    .subscribed
                    .iter()
                    .all(|it| it.packets_sent > 50 && it.bitrate_bps > 10_000 && it.remote_inbound.is_some())
        });
        assert_eq!(
            (received.endpoint_id, received.state),
            (world.clients[ben].endpoint, EndpointState::Connected)
        );
        let path = received.transport.path.unwrap();
        assert_eq!((path.protocol, path.address_family), (PathProtocol::Udp, AddressFamily::Ipv4));
        assert_eq!(path.remote_candidate_type, CandidateType::Prflx, "it has named none");
        assert!(received.published.is_empty());
        for track in &received.subscribed {
            assert_eq!(
                (track.state, track.participant_id),
                (SubscriptionState::Flowing, world.clients[ada].participant)
            );
            assert!(track.bytes_sent >= track.packets_sent * 100, "{track:?}");
            let reported = track.remote_inbound.unwrap();
            assert_eq!((reported.packets_lost, reported.fraction_lost), (0, 0.0));
        }
        let shown = video(&received).unwrap();
        assert_eq!((shown.mime_type.as_str(), shown.current.map(|it| it.encoding)), ("video/VP8", Some(0)));
        assert_eq!(
            received.subscribed.iter().filter(|it| it.current.is_none()).count(),
            1,
            "audio has no layers"
        );

        let sent = stats(&world, ada);
        assert_eq!(sent.published.len(), 2);
        assert!(sent.subscribed.is_empty() && sent.transport.round_trip_time_ms.is_none());
        for (index, track) in sent.published.iter().enumerate() {
            let [encoding] = &track.encodings[..] else { panic!("{track:?}") };
            let outgoing = &world.clients[ada].outgoing[index];
            assert_eq!((encoding.ssrc, encoding.alive), (Some(outgoing.ssrc), true));
            assert!(encoding.packets_received <= outgoing.sent && encoding.packets_received > 50);
            assert_eq!((encoding.packets_lost, encoding.nack_count), (0, 0));
        }
        // Who sends no more is not alive for long.
        world.until("nothing is alive", |world| {
            stats(world, ada)
                .published
                .iter()
                .flat_map(|it| &it.encodings)
                .all(|it| !it.alive && it.bitrate_bps == 0)
        });
        let unknown = world.runtime.block_on(world.plane.endpoint_stats(EndpointId::new()));
        assert_eq!(unknown, Err(MediaError::EndpointGone));
    }
}

/// The reports of another implementation answer ours, so the way there and back is known.
#[test]
fn the_round_trip_comes_from_the_reports_of_the_client() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
        let answered = until_stats(&mut world, (ada, ben), "a round trip is known", |stats| {
            stats.transport.round_trip_time_ms.is_some()
        });
        // On loopback; the client answers when it is driven, and says for how long it held the report.
        let round_trip = answered.transport.round_trip_time_ms.unwrap();
        assert!((0.0..500.0).contains(&round_trip), "{round_trip} ms");
    }
}

#[test]
fn loss_shows_where_it_happened() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Video]), world.join(&[]));
        world.clients[ben].loss = Loss { every_sent: None, every_received: Some(5) };
        let lossy =
            until_stats(&mut world, (ada, ben), "the client's loss is reported and repaired", |stats| {
                video(stats).is_some_and(|track| {
                    track.nack_count > 0
                        && track.retransmitted_packets_sent > 0
                        && track
                            .remote_inbound
                            .is_some_and(|it| it.packets_lost > 0 && it.fraction_lost > 0.02)
                })
            });
        assert!(video(&lossy).unwrap().remote_inbound.unwrap().age_ms < 20_000);
        let clean = stats(&world, ada);
        assert_eq!(
            (clean.published[0].encodings[0].nack_count, clean.published[0].encodings[0].packets_lost),
            (0, 0)
        );
        // And on the way in.
        world.clients[ben].loss = Loss::default();
        world.clients[ada].loss = Loss { every_sent: Some(5), every_received: None };
        until_stats(&mut world, (ada, ada), "what is missing was asked for", |stats| {
            let encoding = &stats.published[0].encodings[0];
            encoding.nack_count > 0 && encoding.pli_count > 0
        });
    }
}

#[test]
fn a_wish_a_mute_and_a_lost_picture_show() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Video]), world.join(&[]));
        let flowing = until_stats(&mut world, (ada, ben), "video flows", |stats| {
            video(stats).is_some_and(|it| it.state == SubscriptionState::Flowing && it.packets_sent > 10)
        });
        let track = video(&flowing).unwrap().track_id;
        assert_eq!(video(&flowing).unwrap().target.map(|it| it.encoding), Some(None), "nothing is limited");
        let [publisher, subscriber] = [ada, ben].map(|it| world.clients[it].endpoint);
        let wish = |world: &mut World, wish| {
            world.runtime.block_on(world.plane.set_wish(subscriber, track, wish)).unwrap();
        };
        wish(&mut world, Wish { max_temporal: Some(0), ..Wish::default() });
        let target = video(&stats(&world, ben)).unwrap().target.unwrap();
        assert_eq!((target.encoding, target.spatial, target.temporal), (Some(0), None, Some(0)));
        wish(&mut world, Wish { paused: true, ..Wish::default() });
        let paused = stats(&world, ben);
        let paused = video(&paused).unwrap();
        assert_eq!((paused.state, paused.target, paused.current), (SubscriptionState::Paused, None, None));
        wish(&mut world, Wish::default());
        assert_eq!(video(&stats(&world, ben)).unwrap().state, SubscriptionState::AwaitingKeyframe);
        until_stats(&mut world, (ada, ben), "it flows again", |stats| {
            video(stats).is_some_and(|it| it.state == SubscriptionState::Flowing)
        });
        let before = video(&stats(&world, ben)).unwrap().pli_count;
        world.clients[ben].request_keyframe(&track.to_string());
        until_stats(&mut world, (ada, ben), "its request is counted", |stats| {
            video(stats).is_some_and(|it| it.pli_count > before)
        });
        world.runtime.block_on(world.plane.set_muted(publisher, track, true)).unwrap();
        world.until("the mute shows", |world| {
            video(&stats(world, ben)).is_some_and(|it| it.state == SubscriptionState::Muted)
        });
        assert!(stats(&world, ada).published[0].muted);
    }
}

#[test]
fn a_connection_that_gets_worse_is_told_and_so_is_its_return() {
    let config = MediaConfig { disconnected_after: Duration::from_secs(3), ..config() };
    let mut world = World::with(config);
    let (ada, ben) = (world.join(&[Video]), world.join(&[]));
    let told = |world: &World, client: usize| {
        let all = world.quality.iter().filter(|it| it.participant_id == world.clients[client].participant);
        all.map(|it| it.quality).collect::<Vec<_>>()
    };
    // A third of what the client is sent is lost: it says so, and so it is told.
    world.clients[ben].loss = Loss { every_sent: None, every_received: Some(3) };
    let worse = until_stats(&mut world, (ada, ben), "it is poor", |stats| stats.quality == Quality::Poor);
    assert!(worse.score.is_some_and(|score| score < 60.0), "{:?}", worse.score);
    world.until("everyone is told", |world| told(world, ben).contains(&Quality::Poor));
    assert_eq!(told(&world, ada), [], "nothing is wrong with the publisher");
    assert_eq!(stats(&world, ada).quality, Quality::Excellent);
    // Nothing comes any more, and then it does again.
    world.clients[ben].loss = Loss::default();
    world.clients[ben].unplugged = true;
    world.until("it is lost", |world| told(world, ben).last() == Some(&Quality::Lost));
    world.clients[ben].unplugged = false;
    until_stats(&mut world, (ada, ben), "it is back", |stats| stats.quality == Quality::Excellent);
    world.until("that is told too", |world| told(world, ben).last() == Some(&Quality::Excellent));
    // Who publishes through a gap has lost what it sent into it, and is as good as before all the same.
    let before = told(&world, ada).len();
    world.clients[ada].unplugged = true;
    let (since, first) = (Instant::now(), world.clients[ada].outgoing[0].sent);
    until_stats(&mut world, (ada, ada), "the publisher is lost", |stats| stats.quality == Quality::Lost);
    // More than can be asked for again, however slowly a busy machine sends.
    pace(&mut world, ada, "a long gap", |world| world.clients[ada].outgoing[0].sent > first + 600);
    world.for_a_while(since.elapsed() / 4, |_| {});
    world.clients[ada].unplugged = false;
    let back = until_stats(&mut world, (ada, ada), "the publisher is back and seen", |stats| {
        let video = &stats.published[0].encodings[0];
        stats.quality != Quality::Lost && video.packets_lost > 100 && video.fraction_lost == 0.0
    });
    assert!(back.summary.inbound_loss.is_some_and(|loss| loss < 0.02), "{:?}", back.summary);
    world.until("that is told", |world| told(world, ada).len() >= before + 2);
    assert_eq!(told(&world, ada)[before..], [Quality::Lost, Quality::Excellent]);
}

/// Whoever ends it: what the connection was like is told once, at its end.
#[test]
fn at_its_end_it_is_told_what_a_connection_was_like() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
        let never = world.open(false);
        world.clients[ben].loss = Loss { every_sent: None, every_received: Some(4) };
        let summary = until_stats(&mut world, (ada, ben), "loss and round trip are summed up", |stats| {
            stats.summary.outbound_loss.is_some_and(|loss| loss > 0.02)
                && stats.summary.round_trip_time_ms.is_some()
        });
        let running = summary.summary;
        assert_eq!((running.endpoint_id, running.inbound_loss), (world.clients[ben].endpoint, None));
        assert_eq!(running.protocol.as_deref(), Some("udp"));
        let parts = running.quality;
        assert!((parts.excellent + parts.good + parts.poor + parts.lost - 1.0).abs() < 0.01, "{parts:?}");
        assert!(world.ended.is_empty());
        for client in [ben, never] {
            let endpoint = world.clients[client].endpoint;
            world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
        }
        world.clients[ada].close();
        world.until("both that were connected are summed up", |world| world.ended.len() == 2);
        assert_eq!(world.ended[0].endpoint_id, world.clients[ben].endpoint);
        assert!(world.ended[0].duration_ms >= running.duration_ms && running.duration_ms > 0);
        let published = &world.ended[1];
        assert_eq!((published.endpoint_id, published.inbound_loss), (world.clients[ada].endpoint, Some(0.0)));
        assert_eq!(published.outbound_loss, None, "it was sent nothing");
    }
}
