//! Who may offer when, and how many offers a busy room costs.

use std::time::{Duration, Instant};

use common::message::{Answer, Offer};
use common::model::{TrackId, TrackKind};
use media_worker::media::{MediaError, MediaEvent};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};
use sfu::Codec;

use crate::world::World;

#[test]
fn twenty_joins_cost_everyone_a_handful_of_offers() {
    let mut world = World::new();
    let first = world.join(&[Audio]);
    let start = Instant::now();
    let mut others = Vec::new();
    for _ in 0..20 {
        let client = world.open(false);
        world.clients[client].add_track(Audio);
        world.negotiate(client, Vec::new()).unwrap();
        others.push(client);
    }
    let joining = start.elapsed();
    world.until("everyone is offered everyone", |world| {
        (0..world.clients.len())
            .all(|client| world.offers(client).last().is_some_and(|(_, tracks)| tracks.len() == 20))
    });
    // The first at once, then one for each begun interval, and one for the last joiners.
    let allowed = 3 + joining.as_millis() / 250;
    let offers = world.offers(first).len() as u128;
    assert!(offers <= allowed, "{offers} offers for 20 joins within {joining:?}");
    assert!(offers < 20);
    let mut last = 0;
    for (revision, _) in world.offers(first) {
        assert!(revision > last, "revisions grow");
        last = revision;
    }
    let everyone: Vec<_> = others.into_iter().chain([first]).collect();
    world.until("all hear all", |world| {
        for client in &everyone {
            world.clients[*client].send(0, false);
        }
        everyone.iter().all(|client| world.clients[*client].incoming.len() == 20)
    });
}

#[test]
fn an_offer_that_crosses_the_servers_collides() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    let ben = world.open(false);
    world.clients[ben].sulks = true;
    world.clients[ben].add_track(Audio);
    let sdp = world.clients[ben].create_offer();
    let answer = world.offer(ben, sdp.clone(), Vec::new()).unwrap().answer;
    world.clients[ben].set_answer(&answer.sdp);
    world.until("the server offers", |world| !world.clients[ben].pending.is_empty());
    let (revision, offered) = world.clients[ben].pending.pop_front().unwrap();
    assert_eq!((answer.revision, revision), (1, 2));

    let endpoint = world.clients[ben].endpoint;
    for claimed in [None, Some(2), Some(3)] {
        let offer = Offer { sdp: sdp.clone(), revision: claimed, tracks: Vec::new() };
        let refused = world.runtime.block_on(world.plane.offer(endpoint, offer)).unwrap_err();
        assert_eq!(refused, MediaError::OfferCollision);
    }
    // The polite side answers the server's offer, and then has its own turn.
    let answer = world.clients[ben].answer(&offered);
    assert_eq!(world.answer(ben, answer.clone(), 3), Err(MediaError::NoOfferPending), "another revision");
    world.answer(ben, answer.clone(), 2).unwrap();
    assert_eq!(world.answer(ben, answer, 2), Err(MediaError::NoOfferPending), "answered already");
    let sdp = world.clients[ben].create_offer();
    let offer = |revision| Offer { sdp: sdp.clone(), revision, tracks: Vec::new() };
    let stale = world.runtime.block_on(world.plane.offer(endpoint, offer(Some(2))));
    assert_eq!(stale, Err(MediaError::OfferCollision), "made before the server's was known");
    let next = world.runtime.block_on(world.plane.offer(endpoint, offer(Some(3)))).unwrap();
    assert_eq!(next.answer.revision, 3);
    world.clients[ben].set_answer(&next.answer.sdp);
    world.until("ben hears ada", |world| {
        world.clients[ada].send(0, false);
        world.clients[ben].incoming.values().any(|track| track.sequences.len() > 3)
    });
}

#[test]
fn who_never_answers_harms_nobody_else() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    let sulking = world.open(false);
    world.clients[sulking].sulks = true;
    world.clients[sulking].add_track(Video);
    world.negotiate(sulking, Vec::new()).unwrap();
    world.until("it is offered ada", |world| world.offers(sulking).len() == 1);
    let ben = world.join(&[Audio]);
    world.until("ada and ben hear each other", |world| {
        world.clients[ada].send(0, false);
        world.clients[ben].send(0, false);
        [ada, ben]
            .iter()
            .all(|client| world.clients[*client].incoming.values().any(|it| it.sequences.len() > 5))
    });
    world.for_a_while(Duration::from_millis(600), |_| {});
    assert_eq!(world.offers(sulking).len(), 1, "one offer is outstanding, however much changes");
}

#[test]
fn a_watching_client_is_offered_first() {
    let mut world = World::new();
    let watcher = world.open(true);
    world.for_a_while(Duration::from_millis(100), |_| {});
    assert!(world.offers(watcher).is_empty(), "there is nothing to offer yet");
    let ada = world.join(&[Audio, Video]);
    world.until("it watches", |world| {
        world.clients[ada].send(0, false);
        world.clients[ada].send(1, true);
        let incoming = &world.clients[watcher].incoming;
        incoming.len() == 2 && incoming.values().all(|track| track.sequences.len() > 5)
    });
    assert_eq!(world.offers(watcher)[0].0, 1);
    assert_eq!(world.clients[watcher].answers, world.offers(watcher).len() as u64);
}

#[test]
fn an_answer_that_stops_a_published_track_is_told() {
    let mut world = World::new();
    let ada = world.open(false);
    world.clients[ada].add_track(Audio);
    let negotiated = world.negotiate(ada, Vec::new()).unwrap();
    world.clients[ada].sulks = true;
    let ben = world.join(&[Audio]);
    world.until("ada is offered ben", |world| !world.clients[ada].pending.is_empty());
    let (revision, sdp) = world.clients[ada].pending.pop_front().unwrap();
    let answer = world.clients[ada].answer(&sdp).replace("a=sendonly", "a=inactive");
    world.answer(ada, answer, revision).unwrap();
    let gone = negotiated.tracks[0].id;
    world.until("it is told", |world| {
        world.clients[ada].events.iter().any(|event| {
            matches!(event, media_worker::media::MediaEvent::Unpublished { tracks, .. } if tracks == &[gone])
        })
    });
    world.until("ben is told", |world| world.offers(ben).last().is_some_and(|(_, tracks)| tracks.is_empty()));
}

#[test]
fn who_refuses_a_track_is_told_so_once() {
    let mut world = World::new();
    let (ada, ben) = (world.join(&[Audio, Video]), world.open(true));
    world.clients[ben].sulks = true;
    world.until("the tracks are offered", |world| !world.clients[ben].pending.is_empty());
    let (revision, sdp) = world.clients[ben].pending.pop_front().unwrap();
    // As a client answers that knows no VP8.
    let answer = world.clients[ben].answer(&sdp);
    let (head, video) = answer.split_once("m=video 9 ").expect("an answer for the video");
    let refused = format!("{head}m=video 0 {video}");
    world.answer(ben, refused, revision).unwrap();
    let refusals = |world: &World| -> Vec<(TrackId, Codec)> {
        let refusal = |event: &MediaEvent| match event {
            MediaEvent::Refused { track_id, codec, .. } => Some((*track_id, *codec)),
            _ => None,
        };
        world.clients[ben].events.iter().filter_map(refusal).collect()
    };
    let video = world.offers(ben)[0].1.iter().find(|it| it.kind == TrackKind::Video).unwrap().track_id;
    world.until("the refusal is told", |world| !refusals(world).is_empty());
    world.until("the voice flows all the same", |world| {
        world.clients[ada].send(0, true);
        !world.clients[ben].incoming.is_empty()
    });
    assert_eq!(refusals(&world), [(video, Codec::Vp8)]);
}

#[test]
fn an_answer_needs_an_offer() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    let answer = Answer { sdp: world.clients[ada].remote_sdp().to_string(), revision: 2 };
    let refused = world.runtime.block_on(world.plane.answer(world.clients[ada].endpoint, answer));
    assert_eq!(refused, Err(MediaError::NoOfferPending));
}
