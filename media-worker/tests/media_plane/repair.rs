//! Packets that the network loses are asked for and sent again, in both directions.

use std::time::{Duration, Instant};

use common::model::TrackId;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::Video;

use crate::client::Loss;
use crate::world::World;

/// Packets sent; one in ten of them is lost.
const PACKETS: u64 = 400;
/// A busy video: histories are made for about a second of it.
const PACE: Duration = Duration::from_millis(2);

/// Sends and waits until the subscriber has everything, in whatever order.
fn run(world: &mut World, ada: usize, ben: usize, track: TrackId) {
    let track = track.to_string();
    world.until("video starts", |world| {
        world.clients[ada].send(0, true);
        world.clients[ben].incoming.contains_key(&track)
    });
    let target = world.clients[ada].outgoing[0].sent + PACKETS;
    let mut last = Instant::now();
    while world.clients[ada].outgoing[0].sent < target {
        if last.elapsed() >= PACE {
            last = Instant::now();
            world.clients[ada].send(0, false);
        }
        world.step();
    }
    let whole = |world: &World| {
        let mut sequences = world.clients[ben].incoming[&track].sequences.clone();
        sequences.sort_unstable();
        sequences.dedup();
        let complete = sequences.windows(2).all(|pair| pair[1] == pair[0] + 1);
        complete && sequences.len() as u64 >= PACKETS && sequences[0] == 1
    };
    // A loss at the very end shows only when something follows.
    world.until("everything has arrived", |world| {
        if last.elapsed() >= 10 * PACE {
            last = Instant::now();
            world.clients[ada].send(0, false);
        }
        whole(world)
    });
}

fn room(world: &mut World) -> (usize, usize, TrackId) {
    let ada = world.open(false);
    world.clients[ada].add_track(Video);
    let negotiated = world.negotiate(ada, Vec::new()).unwrap();
    world.until("ada is connected", |world| world.clients[ada].is_connected);
    let ben = world.join(&[]);
    (ada, ben, negotiated.tracks[0].id)
}

#[test]
fn losses_on_the_way_in_are_repaired_for_every_subscriber() {
    for mut world in World::in_both_shapes() {
        let (ada, ben, track) = room(&mut world);
        world.clients[ada].loss = Loss { every_sent: Some(10), every_received: None };
        run(&mut world, ada, ben, track);
        assert!(world.clients[ada].lost >= PACKETS / 10, "the link lost {}", world.clients[ada].lost);
        let mut copies = world.clients[ben].first_copies.clone();
        copies.sort_unstable();
        assert!(
            copies.windows(2).all(|pair| pair[0] != pair[1]),
            "each packet is forwarded once, however often it is repaired"
        );
    }
}

#[test]
fn losses_on_the_way_out_are_repaired_from_the_history() {
    for mut world in World::in_both_shapes() {
        let (ada, ben, track) = room(&mut world);
        world.clients[ben].loss = Loss { every_sent: None, every_received: Some(10) };
        run(&mut world, ada, ben, track);
        assert!(world.clients[ben].lost >= PACKETS / 10, "the link lost {}", world.clients[ben].lost);
        assert_eq!(world.clients[ada].lost, 0);
    }
}
