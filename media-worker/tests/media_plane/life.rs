//! How endpoints live and end: lost, restarted, closed by either side, or ended by a fault of ours.

use std::time::{Duration, Instant};

use common::model::{EndpointId, ParticipantId, PipelineId};
use media_worker::media::{CloseCause, ConnectionState, MediaConfig, MediaError, OpenEndpoint};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::{World, config, spread};

fn flows(world: &mut World, from: usize, to: usize) {
    let count = |world: &World| -> usize {
        world.clients[to].incoming.values().map(|track| track.sequences.len()).sum()
    };
    let before = count(world);
    world.until("media flows", |world| {
        world.clients[from].send(0, true);
        count(world) > before + 10
    });
}

/// An endpoint in a room of its own.
fn stranger() -> OpenEndpoint {
    OpenEndpoint {
        endpoint_id: EndpointId::new(),
        pipeline_id: PipelineId::new(),
        participant_id: ParticipantId::new(),
        can_publish: true,
        can_subscribe: true,
        server_offers: false,
        treatment: Default::default(),
        fixed: None,
    }
}

#[test]
fn connecting_takes_little_more_than_the_handshake() {
    let mut world = World::new();
    // The first connection also warms up what is made once.
    world.join(&[Audio]);
    let client = world.open(false);
    world.clients[client].add_track(Audio);
    let start = Instant::now();
    world.negotiate(client, Vec::new()).unwrap();
    world.until("connected on both sides", |world| {
        world.clients[client].is_connected && !world.states(client).is_empty()
    });
    println!("offer to connected: {:?}", start.elapsed());
    assert_eq!(world.states(client), [ConnectionState::Connected]);
}

#[test]
fn a_panic_in_one_endpoint_ends_only_that_one() {
    let mut world = World::new();
    let (ada, ben, eve) = (world.join(&[Audio]), world.join(&[Audio]), world.join(&[Audio]));
    flows(&mut world, ada, ben);
    world.runtime.block_on(world.plane.inject_fault(world.clients[eve].endpoint)).unwrap();
    world.until("eve is closed", |world| {
        world.clients[eve].send(0, false);
        world.states(eve).last() == Some(&ConnectionState::Closed(CloseCause::Fault))
    });
    world.until("her track is gone for the others", |world| {
        [ada, ben]
            .iter()
            .all(|client| world.offers(*client).last().is_some_and(|(_, tracks)| tracks.len() == 1))
    });
    flows(&mut world, ada, ben);
    flows(&mut world, ben, ada);
    let stats = world.runtime.block_on(world.plane.stats()).unwrap();
    assert_eq!((stats.endpoints, stats.pipelines), (2, 1));
    let late = world.join(&[]);
    flows(&mut world, ada, late);
}

/// A fault in what the endpoints of a thread share ends them, and neither the thread nor the other one.
#[test]
fn a_panic_of_a_media_thread_ends_its_endpoints_and_the_thread_goes_on() {
    for (mut world, spans) in World::in_both_shapes().zip([false, true]) {
        let (ada, ben) = (world.join(&[Audio]), world.join(&[Audio]));
        flows(&mut world, ada, ben);
        let refused = world.runtime.block_on(world.plane.inject_thread_fault(world.clients[ada].endpoint));
        assert_eq!(refused, Err(MediaError::Unavailable));
        let closed = |world: &World, client: usize| {
            world.states(client).last() == Some(&ConnectionState::Closed(CloseCause::Fault))
        };
        world.until("who was on the thread is told", |world| closed(world, ada));
        assert_eq!(closed(&world, ben), !spans);
        if spans {
            world.until("her track is gone", |world| {
                world.offers(ben).last().is_some_and(|(_, tracks)| tracks.is_empty())
            });
        }
        let (eve, late) = (world.join(&[Audio]), world.join(&[Audio]));
        flows(&mut world, eve, late);
        flows(&mut world, late, eve);
        if spans {
            flows(&mut world, ben, eve);
            flows(&mut world, eve, ben);
        }
        let stats = world.runtime.block_on(world.plane.stats()).unwrap();
        assert_eq!(stats.endpoints, if spans { 3 } else { 2 });
    }
}

fn hasty() -> MediaConfig {
    MediaConfig {
        disconnected_after: Duration::from_millis(1500),
        grace: Duration::from_millis(1500),
        ..config()
    }
}

#[test]
fn a_lost_client_is_disconnected_then_closed() {
    let mut world = World::with(hasty());
    let (ada, ben) = (world.join(&[Audio]), world.join(&[]));
    flows(&mut world, ada, ben);
    world.clients[ada].unplugged = true;
    world.until("the silence is noticed", |world| {
        world.states(ada).last() == Some(&ConnectionState::Disconnected)
    });
    let noticed = Instant::now();
    world.until("the grace time runs out", |world| {
        world.states(ada).last() == Some(&ConnectionState::Closed(CloseCause::GraceExpired))
    });
    assert!(noticed.elapsed() >= Duration::from_millis(1000), "not before its time");
    world.until("its track is gone", |world| {
        world.offers(ben).last().is_some_and(|(_, tracks)| tracks.is_empty())
    });
    let states = world.states(ada);
    assert_eq!(
        states,
        [
            ConnectionState::Connected,
            ConnectionState::Disconnected,
            ConnectionState::Closed(CloseCause::GraceExpired)
        ]
    );
}

#[test]
fn a_client_that_comes_back_in_time_is_connected_again() {
    let mut world = World::with(MediaConfig { grace: Duration::from_secs(60), ..hasty() });
    let (ada, ben) = (world.join(&[Audio]), world.join(&[]));
    flows(&mut world, ada, ben);
    world.clients[ada].unplugged = true;
    world.until("the silence is noticed", |world| {
        world.states(ada).last() == Some(&ConnectionState::Disconnected)
    });
    world.clients[ada].unplugged = false;
    world.until("it is back", |world| {
        world.clients[ada].send(0, false);
        world.states(ada).last() == Some(&ConnectionState::Connected)
    });
    flows(&mut world, ada, ben);
}

#[test]
fn an_ice_restart_keeps_the_endpoint_and_the_media() {
    let mut world = World::new();
    let (ada, ben) = (world.join(&[Audio]), world.join(&[]));
    flows(&mut world, ada, ben);
    let fragment = |sdp: &str| sdp.lines().find(|line| line.starts_with("a=ice-ufrag")).unwrap().to_string();
    let before = fragment(world.clients[ada].remote_sdp());
    let newest = |world: &World| -> u16 {
        let tracks = world.clients[ben].incoming.values();
        tracks.filter_map(|track| track.sequences.iter().max().copied()).max().unwrap()
    };
    for _ in 0..3 {
        world.clients[ada].restart_ice();
        let answer = world.negotiate(ada, Vec::new()).unwrap().answer;
        assert_ne!(fragment(&answer.sdp), before, "the server's credentials change too");
        // Not any ten more: what was lost on the way to the new path is asked for again, and comes late.
        let before = newest(&world);
        world.until("the numbers go on where they were", |world| {
            world.clients[ada].send(0, true);
            newest(world) > before + 10
        });
        assert!(u64::from(newest(&world)) <= world.clients[ada].outgoing[0].sent, "no number was left out");
    }
    assert!(world.states(ada).iter().all(|state| *state == ConnectionState::Connected));
    assert_eq!(world.clients[ben].incoming.len(), 1, "it is still the same track");
}

#[test]
fn a_client_that_says_goodbye_is_gone_at_once() {
    let mut world = World::new();
    let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
    flows(&mut world, ada, ben);
    world.clients[ada].close();
    world.until("it is told", |world| {
        world.states(ada).last() == Some(&ConnectionState::Closed(CloseCause::PeerClosed))
    });
    world.until("its tracks are gone", |world| {
        world.offers(ben).last().is_some_and(|(_, tracks)| tracks.is_empty())
    });
}

#[test]
fn closing_tells_the_client_and_nobody_else() {
    let mut world = World::new();
    let (ada, ben) = (world.join(&[Audio]), world.join(&[]));
    flows(&mut world, ada, ben);
    let told = world.states(ada).len();
    world.runtime.block_on(world.plane.close_endpoint(world.clients[ada].endpoint)).unwrap();
    world.until("the client hears the goodbye", |world| world.clients[ada].has_heard_goodbye());
    world.for_a_while(Duration::from_millis(100), |_| {});
    assert_eq!(world.states(ada).len(), told, "who closes knows it already");
    let pipeline = world.pipeline;
    world.runtime.block_on(world.plane.close_pipeline(pipeline));
    let stats = world.runtime.block_on(world.plane.stats()).unwrap();
    assert_eq!((stats.endpoints, stats.pipelines), (0, 0));
}

#[test]
fn a_full_worker_refuses_and_has_room_again_when_someone_leaves() {
    let mut world = World::with(MediaConfig { max_endpoints: 2, ..config() });
    let (ada, _) = (world.open(false), world.open(false));
    let refused = world.runtime.block_on(world.plane.open_endpoint(stranger()));
    assert_eq!(refused, Err(MediaError::Full("endpoints")));
    let stats = world.runtime.block_on(world.plane.stats()).unwrap();
    assert_eq!((stats.endpoints, stats.pipelines, stats.tracks), (2, 1, 0));
    let endpoint = world.clients[ada].endpoint;
    world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
    assert_eq!(world.runtime.block_on(world.plane.open_endpoint(stranger())), Ok(()));
}

#[test]
fn above_its_packets_per_second_a_worker_takes_nobody_more_and_goes_on_with_who_is_there() {
    let mut world = World::with(MediaConfig { max_packets_per_second: 100, ..config() });
    let (ada, ben) = (world.join(&[Video]), world.join(&[]));
    let heard =
        |world: &World| world.clients[ben].incoming.values().map(|it| it.sequences.len()).sum::<usize>();
    world.until("the worker is full", |world| {
        world.clients[ada].send(0, true);
        let opened = world.runtime.block_on(world.plane.open_endpoint(stranger()));
        opened == Err(MediaError::Full("packets per second"))
    });
    let before = heard(&world);
    world.until("media goes on", |world| {
        world.clients[ada].send(0, true);
        heard(world) > before + 10
    });
}

#[test]
fn with_as_many_tracks_as_it_may_have_a_worker_takes_neither_endpoints_nor_tracks() {
    for shape in [config(), spread()] {
        // Ada publishes one, Ben subscribes to it; where they are on two threads, it is published to the second as well.
        let tracks = if shape.threads == 1 { 2 } else { 3 };
        let mut world = World::with(MediaConfig { max_tracks: tracks, ..shape });
        let (ada, ben) = (world.join(&[Video]), world.open(true));
        flows(&mut world, ada, ben);
        let stats = |world: &World| world.runtime.block_on(world.plane.stats()).unwrap();
        assert_eq!((stats(&world).all_tracks, stats(&world).is_full), (tracks as u64, true));
        let refused = world.runtime.block_on(world.plane.open_endpoint(stranger()));
        assert_eq!(refused, Err(MediaError::Full("tracks")));
        world.clients[ada].add_track(Audio);
        let sdp = world.clients[ada].create_offer();
        assert_eq!(world.offer(ada, sdp, Vec::new()), Err(MediaError::Full("tracks")));
        flows(&mut world, ada, ben);

        let endpoint = world.clients[ben].endpoint;
        world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
        world.until("there is room again", |world| !stats(world).is_full);
        assert_eq!(world.runtime.block_on(world.plane.open_endpoint(stranger())), Ok(()));
    }
}

#[test]
fn above_its_memory_a_worker_takes_nobody() {
    let world = World::with(MediaConfig { max_memory_bytes: 1, ..config() });
    let opened = world.runtime.block_on(world.plane.open_endpoint(stranger()));
    assert_eq!(opened, Err(MediaError::Full("memory")));
}
