//! Bad input is refused with its reason, changes nothing and harms nobody.

use std::net::UdpSocket;

use common::message::{Candidate, TrackDescription};
use common::model::{EndpointId, TrackId, TrackSource};
use media_worker::media::MediaError;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::World;

fn candidate(text: &str) -> Candidate {
    Candidate {
        candidate: text.into(),
        sdp_mid: Some("0".into()),
        sdp_m_line_index: Some(0),
        username_fragment: None,
    }
}

#[test]
fn bad_descriptions_are_refused_and_the_endpoint_goes_on() {
    let mut world = World::new();
    let ben = world.join(&[]);
    let ada = world.open(false);
    world.clients[ada].add_track(Audio);
    world.clients[ada].add_track(Video);
    let good = world.clients[ada].create_offer();
    let session = &good[..good.find("m=audio").unwrap()];
    let audio = &good[good.find("m=audio").unwrap()..good.find("m=video").unwrap()];
    let line = |start: &str| {
        let line = good.lines().find(|line| line.starts_with(start)).unwrap();
        format!("{line}\r\n")
    };
    let short =
        |at| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{at}\r\na=rtpmap:111 opus/48000/2\r\n");
    let many = session.to_string() + &(0..1000).map(short).collect::<String>();
    let invalid = |why: &str| Err(why.to_string());
    let limit = |what: &'static str| Ok(MediaError::LimitExceeded(what));
    let cases = [
        (String::new(), invalid("v=0")),
        ("this is not sdp".to_string(), invalid("v=0")),
        ("v=0\r\n\u{0}\u{1}\r\n".to_string(), invalid("x=value")),
        (session.to_string(), invalid("no m-line")),
        (many, limit("m-lines")),
        (good.clone() + &"a=x\r\n".repeat(60_000), limit("sdp size")),
        (good.replace(&line("a=ice-ufrag"), ""), invalid("ice-ufrag")),
        (good.replace(&line("a=ice-pwd"), ""), invalid("ice-pwd")),
        (good.replace(&line("a=fingerprint"), ""), invalid("fingerprint")),
        (good.replace("a=mid:1", "a=mid:0"), invalid("same mid")),
        (good.replace("a=mid:1\r\n", ""), invalid("mid")),
        (good.replace("m=video 9", "m=video x"), invalid("port")),
    ];
    for (sdp, expected) in cases {
        let refused = world.offer(ada, sdp.clone(), Vec::new()).unwrap_err();
        match expected {
            Ok(error) => assert_eq!(refused, error),
            Err(reason) => {
                let MediaError::InvalidSdp(why) = &refused else {
                    panic!("{refused}, not invalid: {reason}")
                };
                assert!(why.contains(&reason), "{why:?} should say {reason:?}");
            }
        }
    }
    let describe = |mid: &str, id| TrackDescription {
        mid: mid.into(),
        source: TrackSource::Other,
        track_id: id,
        muted: false,
    };
    let id = Some(TrackId::new());
    for tracks in [
        vec![describe("7", None)],
        vec![describe("0", None), describe("0", None)],
        vec![describe("0", id), describe("1", id)],
    ] {
        assert!(matches!(world.offer(ada, good.clone(), tracks), Err(MediaError::InvalidSdp(_))));
    }
    let crowd: String = (2..19).map(|at| audio.replace("a=mid:0", &format!("a=mid:{at}"))).collect();
    let mids: String = (2..19).map(|at| format!(" {at}")).collect();
    let group = line("a=group:BUNDLE");
    let crowded = good.replace(&group, &format!("{}{mids}\r\n", group.trim_end())) + &crowd;
    assert_eq!(world.offer(ada, crowded, Vec::new()), Err(MediaError::LimitExceeded("published tracks")));

    // After all that the endpoint is as it was: its first offer makes revision 1, and media flows.
    let answer = world.offer(ada, good, Vec::new()).unwrap().answer;
    assert_eq!(answer.revision, 1);
    world.clients[ada].set_answer(&answer.sdp);
    world.until("media flows", |world| {
        world.clients[ada].send(0, false);
        world.clients[ada].send(1, true);
        world.clients[ben].incoming.len() == 2
    });

    // Between m-lines that were negotiated nothing may be missing, swapped or renamed.
    let next = world.clients[ada].create_offer();
    let (head, video) = next.split_at(next.find("m=video").unwrap());
    for (sdp, reason) in [
        (head.to_string(), "missing"),
        (next.replace("a=mid:1", "a=mid:9").replace("BUNDLE 0 1", "BUNDLE 0 9"), "order"),
        (format!("{head}{}", video.replace("m=video", "m=audio")), "kind"),
    ] {
        let refused = world.offer(ada, sdp, Vec::new()).unwrap_err();
        assert!(
            matches!(&refused, MediaError::InvalidSdp(why) if why.contains(reason)),
            "{refused} for {reason}"
        );
    }
    assert_eq!(world.offer(ada, next, Vec::new()).unwrap().answer.revision, 2);
}

#[test]
fn an_unknown_media_kind_and_data_channels_of_another_kind_are_rejected_and_the_rest_goes_on() {
    let mut world = World::new();
    let ada = world.open(false);
    world.clients[ada].add_track(Audio);
    let offer = world.clients[ada].create_offer();
    let extra = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:d\r\na=sctp-port:5001\r\n\
        m=text 9 UDP/TLS/RTP/SAVPF 98\r\nc=IN IP4 0.0.0.0\r\na=mid:t\r\na=rtpmap:98 t140/1000\r\na=sendrecv\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 99\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=rtpmap:99 H263/90000\r\na=sendonly\r\n";
    let offer = offer.replace("a=group:BUNDLE 0", "a=group:BUNDLE 0 d t v") + extra;
    let negotiated = world.offer(ada, offer, Vec::new()).unwrap();
    let sdp = negotiated.answer.sdp;
    assert_eq!(negotiated.tracks.len(), 1);
    assert!(sdp.contains("a=group:BUNDLE 0\r\n"));
    assert!(sdp.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(
        sdp.contains("m=text 0 UDP/TLS/RTP/SAVPF 98\r\n")
            && sdp.contains("m=video 0 UDP/TLS/RTP/SAVPF 99\r\n")
    );
}

#[test]
fn simulcast_is_answered_with_all_encodings_up_to_three() {
    let mut world = World::new();
    let ada = world.open(false);
    world.clients[ada].add_track(Video);
    let offer = world.clients[ada].create_offer();
    let simulcast = offer
        .lines()
        .filter(|line| !line.starts_with("a=ssrc"))
        .map(|line| format!("{line}\r\n"))
        .collect::<String>()
        + "a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\na=rid:x send\r\na=simulcast:send f;h;q;x\r\n\
           a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n";
    let negotiated = world.offer(ada, simulcast.clone(), Vec::new()).unwrap();
    assert_eq!(negotiated.tracks.len(), 1);
    let answer = negotiated.answer.sdp;
    let taken = "a=rid:f recv\r\na=rid:h recv\r\na=rid:q recv\r\na=simulcast:recv f;h;q\r\n";
    assert!(answer.contains(taken), "{answer}");
    assert!(answer.contains("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"));

    // Without the extension that tells encodings apart there is nothing to choose.
    let plain = world.open(false);
    let unnamed = simulcast.lines().filter(|line| !line.contains("rtp-stream-id"));
    let unnamed: String = unnamed.map(|line| format!("{line}\r\n")).collect();
    let answer = world.offer(plain, unnamed, Vec::new()).unwrap().answer.sdp;
    assert!(!answer.contains("rid") && !answer.contains("simulcast"));
}

#[test]
fn candidates_of_every_sort() {
    let mut world = World::new();
    let ada = world.open(false);
    let endpoint = world.clients[ada].endpoint;
    let send = |world: &World, endpoint: EndpointId, candidates: Vec<Candidate>| {
        world.runtime.block_on(world.plane.candidates(endpoint, candidates))
    };
    let fine = vec![
        candidate("candidate:1 1 udp 2122252543 b7e4a9c2-1f0e-4c7a-9d5b-0c2f7e1a3b5d.local 50000 typ host"),
        candidate("candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active"),
        candidate(""),
    ];
    assert_eq!(send(&world, endpoint, fine), Ok(()), "also before any offer");
    let junk = send(&world, endpoint, vec![candidate(""), candidate("junk")]);
    assert!(matches!(junk, Err(MediaError::InvalidCandidate(_))));
    let flood = vec![candidate(""); 1001];
    assert_eq!(send(&world, endpoint, flood), Err(MediaError::LimitExceeded("candidates")));
    world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
    assert_eq!(send(&world, endpoint, vec![candidate("")]), Err(MediaError::EndpointGone));
}

#[test]
fn what_is_closed_is_gone_for_every_call() {
    let mut world = World::new();
    let ada = world.join(&[Audio]);
    let endpoint = world.clients[ada].endpoint;
    let sdp = world.clients[ada].create_offer();
    world.runtime.block_on(world.plane.close_endpoint(endpoint)).unwrap();
    assert_eq!(world.runtime.block_on(world.plane.close_endpoint(endpoint)), Err(MediaError::EndpointGone));
    assert_eq!(world.offer(ada, sdp.clone(), Vec::new()), Err(MediaError::EndpointGone));
    assert_eq!(world.answer(ada, sdp, 1), Err(MediaError::EndpointGone));
    let muted = world.runtime.block_on(world.plane.set_muted(endpoint, TrackId::new(), true));
    assert_eq!(muted, Err(MediaError::EndpointGone));
    world.runtime.block_on(world.plane.shutdown());
    assert_eq!(world.runtime.block_on(world.plane.stats()), Err(MediaError::Unavailable));
    assert_eq!(world.runtime.block_on(world.plane.close_endpoint(endpoint)), Err(MediaError::Unavailable));
}

#[test]
fn hostile_datagrams_are_counted_and_disturb_nobody() {
    let mut world = World::new();
    let (ada, ben) = (world.join(&[Audio]), world.join(&[]));
    world.until("media flows", |world| {
        world.clients[ada].send(0, false);
        world.clients[ben].incoming.values().any(|track| track.sequences.len() > 5)
    });
    let before = world.runtime.block_on(world.plane.stats()).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = world.plane.local_addr();
    let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    stun.resize(20, 9);
    let kinds: [&[u8]; 6] =
        [&[], &[255; 40], &[0x16, 0xfe, 0xfd, 0, 0, 0, 0], &[0x80; 100], &stun, &[0x80, 200, 0, 1]];
    let mut hostile = 0;
    for round in 0..50 {
        for kind in kinds {
            stranger.send_to(kind, target).unwrap();
            // The same from an address that belongs to an endpoint.
            world.clients[ada].raw_socket().send_to(kind, target).unwrap();
            hostile += 2;
        }
        world.clients[ada].send(0, false);
        if round % 5 == 0 {
            world.step();
        }
    }
    let count = world.clients[ben].incoming.values().next().unwrap().sequences.len();
    world.until("media still flows", |world| {
        world.clients[ada].send(0, false);
        world.clients[ben].incoming.values().next().unwrap().sequences.len() > count + 20
    });
    // Empty datagrams have nothing to count by, and what looks like DTLS on a known path is ignored by
    // the established association; all others are drops.
    let expected = hostile - 2 * 50 - 50;
    world.until("all are counted", |world| {
        let now = world.runtime.block_on(world.plane.stats()).unwrap();
        now.drops.all() - before.drops.all() >= expected
    });
    let states = world.states(ada);
    assert_eq!(states, [media_worker::media::ConnectionState::Connected], "the endpoint is unharmed");
}
