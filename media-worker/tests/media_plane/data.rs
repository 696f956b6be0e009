//! Data channels between clients on another implementation of WebRTC, over UDP, on one media thread and across two.

use std::time::Duration;

use common::message::EventBody;
use common::model::ParticipantId;
use media_worker::media::{DataStats, MediaEvent};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::Audio;
use serde_json::{Value, json};

use crate::world::World;

/// Joins with both channels, beside `audio` or alone.
fn join(world: &mut World, audio: bool) -> usize {
    let client = world.open(false);
    if audio {
        world.clients[client].add_track(Audio);
    }
    world.clients[client].open_channels();
    world.negotiate(client, Vec::new()).unwrap();
    world.until("both channels are open", |world| {
        world.clients[client].open_channels == 2 && world.clients[client].is_connected
    });
    let expected = world.clients.iter().filter(|client| client.open_channels == 2).count() as u64;
    world.until("the server knows it", |world| stats(world).open == [expected; 2]);
    client
}

fn stats(world: &World) -> DataStats {
    world.runtime.block_on(world.plane.stats()).unwrap().data
}

fn id(world: &World, client: usize) -> ParticipantId {
    world.clients[client].participant
}

/// What a client has heard on one of its channels.
fn heard(world: &World, client: usize, label: &str) -> Vec<Value> {
    let of = |(from, _, bytes): &(String, bool, Vec<u8>)| {
        (from == label).then(|| serde_json::from_slice(bytes).unwrap())
    };
    world.clients[client].heard.iter().filter_map(of).collect()
}

#[test]
fn everyone_else_hears_a_message_and_the_server_says_who_sent_it() {
    for mut world in World::in_both_shapes() {
        let [ada, bob, eve] = [join(&mut world, true), join(&mut world, false), join(&mut world, true)];
        let said = json!({"from": id(&world, eve), "topic": "chat", "id": "1", "data": {"text": "hello"}});
        world.clients[ada].say("reliable", &said.to_string());
        let told = json!({"from": id(&world, ada), "topic": "chat", "id": "1", "data": {"text": "hello"}});
        world.until("both of the others hear it", |world| {
            [bob, eve].iter().all(|client| heard(world, *client, "reliable") == [told.clone()])
        });
        assert!(world.clients[ada].heard.is_empty(), "not who said it");
        let stats = stats(&world);
        assert_eq!((stats.messages_in, stats.messages_out), ([1, 0], [2, 0]));
    }
}

#[test]
fn a_message_to_one_is_heard_by_one() {
    for mut world in World::in_both_shapes() {
        let [ada, bob, eve] = [join(&mut world, true), join(&mut world, false), join(&mut world, true)];
        let psst = json!({"to": [id(&world, bob)], "data": "psst"});
        world.clients[ada].say("lossy", &psst.to_string());
        world.clients[ada].say("lossy", &json!({"data": "everyone"}).to_string());
        let to_bob = json!({"from": id(&world, ada), "direct": true, "data": "psst"});
        let to_all = json!({"from": id(&world, ada), "data": "everyone"});
        world.until("both are heard", |world| {
            heard(world, bob, "lossy").len() == 2 && !heard(world, eve, "lossy").is_empty()
        });
        // Lossy messages come in any order.
        assert!(
            heard(&world, bob, "lossy").contains(&to_bob) && heard(&world, bob, "lossy").contains(&to_all)
        );
        assert_eq!(heard(&world, eve, "lossy"), [to_all]);
    }
}

#[test]
fn long_and_binary_messages_arrive_whole() {
    for mut world in World::in_both_shapes() {
        let [ada, bob] = [join(&mut world, true), join(&mut world, true)];
        let header = br#"{"topic":"file"}"#;
        let payload: Vec<u8> = (0..60_000_u32).map(|number| (number % 251) as u8).collect();
        let sent = [&(header.len() as u16).to_be_bytes(), &header[..], &payload[..]].concat();
        for _ in 0..5 {
            world.clients[ada].say_bytes("reliable", &sent);
        }
        world.until("five of them arrive", |world| world.clients[bob].heard.len() == 5);
        for (label, is_text, bytes) in &world.clients[bob].heard {
            assert_eq!((label.as_str(), *is_text), ("reliable", false));
            let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
            let header: Value = serde_json::from_slice(&bytes[2..2 + length]).unwrap();
            assert_eq!(header, json!({"from": id(&world, ada), "topic": "file"}));
            assert_eq!(bytes[2 + length..], payload);
        }
    }
}

#[test]
fn who_has_no_channel_is_told_by_an_event_if_the_sender_wants_that() {
    for mut world in World::in_both_shapes() {
        let [ada, bob] = [join(&mut world, true), join(&mut world, false)];
        // One that has media and no data channels, and one that never negotiated.
        let old = world.join(&[Audio]);
        let polling = world.open(false);
        world.clients[ada].say("reliable", &json!({"data": "channels only"}).to_string());
        let said = json!({"topic": "chat", "id": "2", "events": true, "data": "all of you"});
        world.clients[ada].say("reliable", &said.to_string());
        world.until("it is told, and heard", |world| {
            world.messages.iter().map(|(endpoints, _)| endpoints.len()).sum::<usize>() == 2
                && heard(world, bob, "reliable").len() == 2
        });
        let told: Vec<_> = world.messages.iter().flat_map(|(endpoints, _)| endpoints.clone()).collect();
        for client in [old, polling] {
            assert!(told.contains(&world.clients[client].endpoint));
        }
        let body = EventBody::Message {
            from: Some(id(&world, ada)),
            topic: Some("chat".into()),
            id: Some("2".into()),
            direct: false,
            binary: false,
            data: json!("all of you"),
        };
        assert!(world.messages.iter().all(|(_, told)| *told == body));
    }
}

/// That the channels then open is for Chromium to show: this client begins SCTP only when it connects.
#[test]
fn the_line_can_be_added_later_and_media_goes_on() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    let bob = join(&mut world, true);
    world.clients[ada].open_channels();
    world.negotiate(ada, Vec::new()).unwrap();
    assert!(world.clients[ada].remote_sdp().contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    world.until("media arrives", |world| {
        world.clients[bob].send(0, false);
        world.clients[ada].incoming.values().any(|incoming| !incoming.sequences.is_empty())
    });
}

#[test]
fn a_server_offer_keeps_the_channels() {
    let mut world = World::new();
    let ada = join(&mut world, false);
    let bob = join(&mut world, true);
    world.until("ada is offered bob's track and answers", |world| world.clients[ada].answers > 0);
    world.for_a_while(Duration::from_millis(100), |_| {});
    world.clients[bob].say("reliable", &json!({"data": 1}).to_string());
    world.until("channels go on", |world| !world.clients[ada].heard.is_empty());
    assert!(world.clients[ada].remote_sdp().contains("a=sctp-port:5000\r\na=max-message-size:65536\r\n"));
}

#[test]
fn who_leaves_is_not_waited_for_and_who_comes_back_is_heard() {
    let mut world = World::new();
    let ada = join(&mut world, true);
    let bob = join(&mut world, true);
    let endpoint = world.clients[bob].endpoint;
    world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
    world.clients[ada].say("reliable", &json!({"data": "nobody"}).to_string());
    world.until("it is taken", |world| stats(world).messages_in == [1, 0]);
    assert_eq!(stats(&world).open, [1, 1]);
    world.clients[bob].open_channels = 0;
    let again = join(&mut world, true);
    world.clients[ada].say("reliable", &json!({"data": "somebody"}).to_string());
    world.until("it is heard", |world| heard(world, again, "reliable").len() == 1);
}

#[test]
fn a_client_that_floods_is_slowed_down_and_the_others_hear_everything() {
    let mut world = World::new();
    let [ada, bob, eve] = [join(&mut world, true), join(&mut world, false), join(&mut world, false)];
    for number in 0..250 {
        world.clients[ada].say("reliable", &json!({"data": number}).to_string());
    }
    world.clients[bob].say("reliable", &json!({"data": "not slowed down"}).to_string());
    world.until("bob is heard", |world| {
        heard(world, eve, "reliable").iter().any(|message| message["data"] == "not slowed down")
    });
    let before = heard(&world, eve, "reliable").len();
    assert!(before < 251, "while the flood waits: {before}");
    world.until("the flood is heard", |world| heard(world, eve, "reliable").len() == 251);
    let numbers = heard(&world, eve, "reliable").into_iter().filter_map(|message| message["data"].as_u64());
    assert!(numbers.eq(0..250), "in order");
}

#[test]
fn an_endpoint_without_the_line_is_answered_as_ever() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    assert!(!world.clients[ada].remote_sdp().contains("m=application"));
    let events = world.clients[ada].events.iter();
    assert!(events.clone().all(|event| !matches!(event, MediaEvent::Message { .. })));
    assert_eq!(stats(&world), DataStats::default());
}
