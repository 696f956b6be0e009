//! What the way to a subscriber carries is estimated from its client's own feedback.

use common::message::Wish;
use common::model::TrackId;
use media_worker::media::{MediaEvent, Suspensions};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::World;

/// Until `done`, with a picture sent in every step and the subscriber's report of what it can receive now and then.
fn show(
    world: &mut World,
    (from, to): (usize, usize),
    bitrate: Option<f32>,
    what: &str,
    mut done: impl FnMut(&World) -> bool,
) {
    let mut step = 0;
    world.until(what, |world| {
        let is_key = world.clients[from].keyframe_requests > world.clients[from].outgoing[0].sent / 10_000;
        world.clients[from].send(0, is_key || step % 100 == 0);
        if let Some(bitrate) = bitrate.filter(|_| step % 50 == 0) {
            world.clients[to].report_maximum_bitrate(bitrate);
        }
        step += 1;
        done(world)
    });
}

/// A room of a publisher and a subscriber that receives its picture: both, and the track.
fn room(world: &mut World) -> (usize, usize, TrackId) {
    let (ada, ben) = (world.join(&[Video]), world.join(&[]));
    world.until("the track is offered", |world| !world.offers(ben).is_empty());
    let track = world.offers(ben)[0].1[0].track_id;
    show(world, (ada, ben), None, "the picture arrives", |world| received(world, ben, track) > 100);
    (ada, ben, track)
}

fn received(world: &World, client: usize, track: TrackId) -> usize {
    world.clients[client].incoming.get(&track.to_string()).map_or(0, |it| it.sequences.len())
}

/// What the client was told of its pictures.
fn told(world: &World, client: usize) -> Vec<Suspensions> {
    let told = |event: &MediaEvent| match event {
        MediaEvent::Suspensions { suspensions, .. } => Some(suspensions.clone()),
        _ => None,
    };
    world.clients[client].events.iter().filter_map(told).collect()
}

/// What the publisher was told of how many of its encodings are watched.
fn demanded(world: &World, client: usize) -> Vec<u8> {
    let demanded = |event: &MediaEvent| match event {
        MediaEvent::Demand { encodings, .. } => Some(*encodings),
        _ => None,
    };
    world.clients[client].events.iter().filter_map(demanded).collect()
}

#[test]
fn where_it_is_too_narrow_for_any_picture_the_client_is_told_and_when_it_is_not_any_more() {
    for mut world in World::in_both_shapes() {
        let (ada, ben, track) = room(&mut world);
        let pair = (ada, ben);
        show(&mut world, pair, Some(20_000.0), "the suspension is told", |world| {
            !told(world, ben).is_empty()
        });
        // What was sent before is still read: this test is not always quicker than the worker.
        let more = |world: &mut World, what: &str| {
            let sent = world.clients[ada].outgoing[0].sent;
            show(world, pair, Some(20_000.0), what, |world| world.clients[ada].outgoing[0].sent > sent + 300);
        };
        more(&mut world, "what is on its way arrives");
        let before = received(&world, ben, track);
        more(&mut world, "more is sent");
        assert_eq!(received(&world, ben, track), before, "nothing is forwarded");
        show(&mut world, pair, Some(9e6), "the picture is back", |world| {
            received(world, ben, track) > before + 100
        });
        let suspended = Suspensions { suspended: vec![track], ..Suspensions::default() };
        let resumed = Suspensions { resumed: vec![track], ..Suspensions::default() };
        assert_eq!(told(&world, ben), [suspended, resumed]);
        assert_eq!(told(&world, ada), []);
    }
}

#[test]
fn a_publisher_is_told_when_nobody_watches_and_at_once_when_somebody_does() {
    for mut world in World::in_both_shapes() {
        let (ada, ben, track) = room(&mut world);
        let wish = |world: &World, paused| {
            let wish = Wish { paused, ..Wish::default() };
            world.runtime.block_on(world.plane.set_wish(world.clients[ben].endpoint, track, wish)).unwrap();
        };
        wish(&world, true);
        let pair = (ada, ben);
        show(&mut world, pair, None, "nobody watches", |world| demanded(world, ada) == [0]);
        let before = received(&world, ben, track);
        wish(&world, false);
        world.until("somebody watches", |world| demanded(world, ada) == [0, 1]);
        show(&mut world, pair, None, "it goes on", |world| received(world, ben, track) > before + 100);
    }
}

#[test]
fn the_way_to_a_subscriber_is_estimated_from_its_feedback() {
    for mut world in World::in_both_shapes() {
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
        world.until("the subscriber's feedback has made an estimate", |world| {
            for index in 0..world.clients[ada].outgoing.len() {
                world.clients[ada].send(index, true);
            }
            let stats = world.runtime.block_on(world.plane.stats()).unwrap();
            assert!(stats.estimated <= 1, "nothing is sent to the publisher");
            stats.estimated == 1 && stats.estimated_bitrate >= 30_000
        });
        let sdp = world.clients[ben].remote_sdp();
        assert!(sdp.contains("transport-wide-cc-extensions-01") && sdp.contains("transport-cc"));
    }
}
