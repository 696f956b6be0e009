//! A session's codecs and bit rates, as its members negotiate them and get them.

use common::model::{Bitrates, CodecName, SessionSettings};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind::{Audio, Video};

use crate::world::World;

/// The client's offer as that of one that knows H.264 too, after VP8.
fn with_h264(offer: &str) -> String {
    let mut lines = Vec::new();
    let mut is_video = false;
    for line in offer.lines() {
        is_video = if line.starts_with("m=") { line.starts_with("m=video") } else { is_video };
        lines.push(if line.starts_with("m=video") { format!("{line} 108") } else { line.to_string() });
        if is_video && line.starts_with("a=rtpmap:96 ") {
            lines.push("a=rtpmap:108 H264/90000".to_string());
            let parameters = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
            lines.push(format!("a=fmtp:108 {parameters}"));
        }
    }
    lines.join("\r\n") + "\r\n"
}

fn codec_of(answer: &str) -> &str {
    let of = |line: &'static str| answer.contains(line).then_some(line);
    let found: Vec<_> = [" VP8/90000", " H264/90000"].into_iter().filter_map(of).collect();
    assert_eq!(found.len(), 1, "exactly one codec: {answer}");
    found[0].trim().trim_end_matches("/90000")
}

#[test]
fn publishers_are_answered_with_the_codec_that_the_session_names_first() {
    let answered = |codecs: &[CodecName]| {
        let mut world = World::new();
        world.treatment.settings.codecs = codecs.to_vec();
        let client = world.open(false);
        world.clients[client].add_track(Video);
        let offer = with_h264(&world.clients[client].create_offer());
        let first = world.offer(client, offer.clone(), Vec::new()).unwrap();
        // What was negotiated stays, whatever comes to be preferred.
        let settings =
            SessionSettings { revision: 1, codecs: vec![CodecName::Vp8], ..SessionSettings::default() };
        world.runtime.block_on(world.plane.set_settings(world.pipeline, &settings));
        let again = world.offer(client, offer, Vec::new()).unwrap();
        assert_eq!(codec_of(&again.answer.sdp), codec_of(&first.answer.sdp));
        assert_eq!(again.unpublished, []);
        codec_of(&first.answer.sdp).to_string()
    };
    assert_eq!(answered(&[]), "VP8", "the client's own order");
    assert_eq!(answered(&[CodecName::H264, CodecName::Vp8]), "H264");
    assert_eq!(
        answered(&[CodecName::Av1, CodecName::Opus]),
        "VP8",
        "none of them, so the client's own order"
    );
    assert_eq!(answered(&[CodecName::Av1, CodecName::H264]), "H264", "the first that both have");
}

fn most(bitrate: u64) -> Bitrates {
    Bitrates { max_bps: Some(bitrate), ..Bitrates::UNSET }
}

#[test]
fn a_publisher_is_told_the_most_that_it_may_send_on_a_video_m_line() {
    let mut world = World::new();
    world.treatment.settings.bitrates = most(2_000_000);
    let told = |world: &mut World| {
        let client = world.open(false);
        world.clients[client].add_track(Audio);
        world.clients[client].add_track(Video);
        let answer = world.negotiate(client, Vec::new()).unwrap().answer.sdp;
        let (audio, video) = answer.split_at(answer.find("m=video").unwrap());
        assert!(!audio.contains("b=AS"), "voices are not limited");
        let kbps = video.lines().find_map(|line| line.strip_prefix("b=AS:"))?;
        assert!(video.contains(&format!("b=TIAS:{kbps}000\r\n")));
        Some(kbps.parse::<u64>().unwrap())
    };
    assert_eq!(told(&mut world), Some(2_000));
    world.treatment.bitrates = most(3_000_000);
    assert_eq!(told(&mut world), Some(3_000), "this participant's own");
    world.treatment.lowered = most(500_000);
    assert_eq!(told(&mut world), Some(500), "what its client wants");
    world.treatment = Default::default();
    world.treatment.settings.revision = 1;
    assert_eq!(told(&mut world), None);
}

#[test]
fn a_client_is_sent_no_more_than_its_session_allows() {
    for mut world in World::in_both_shapes() {
        world.treatment.settings.bitrates = most(60_000);
        let (ada, ben) = (world.join(&[Audio, Video]), world.join(&[]));
        world.until("the track is offered", |world| {
            world.offers(ben).last().is_some_and(|(_, tracks)| tracks.len() == 2)
        });
        let endpoint = world.clients[ben].endpoint;
        // A picture of several hundred kbit/s, which does not fit once that is measured.
        let picture = |world: &mut World| {
            world.clients[ada].send(1, true);
            let stats = world.runtime.block_on(world.plane.endpoint_stats(endpoint)).unwrap();
            let video = stats.subscribed.into_iter().find(|it| it.mime_type == "video/VP8").unwrap();
            (video.state, stats.transport.available_outgoing_bitrate_bps)
        };
        use common::message::SubscriptionState::{Flowing, Suspended};
        world.until("the picture does not fit", |world| picture(world).0 == Suspended);
        let estimate = picture(&mut world).1;
        assert!(estimate.is_none_or(|it| it <= 60_000), "{estimate:?}");
        let wide = SessionSettings { revision: 1, ..SessionSettings::default() };
        world.runtime.block_on(world.plane.set_settings(world.pipeline, &wide));
        world.until("it fits without the limit", |world| {
            world.clients[ben].report_maximum_bitrate(9e6);
            picture(world).0 == Flowing
        });
    }
}
