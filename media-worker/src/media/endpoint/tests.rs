use common::message::{Answer, Candidate, Offer};
use common::model::{PipelineId, TrackSource};
use proptest::prelude::*;

use super::ice::check_candidate;
use super::offer::Host;
use super::*;
use crate::media::Negotiated;
use crate::media::transport::Local;

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\na=setup:actpass\r\na=fingerprint:sha-256 \
    00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:5 cname:x\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\n";

struct Bench {
    endpoint: Endpoint,
    pipeline: Pipeline,
    identity: Identity,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let open = OpenEndpoint {
            endpoint_id: EndpointId::new(),
            pipeline_id: PipelineId::new(),
            participant_id: ParticipantId::new(),
            can_publish: true,
            can_subscribe: true,
            server_offers: false,
            treatment: Treatment::default(),
            fixed: None,
        };
        let config = MediaConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            public_addresses: Vec::new(),
            offer_interval: Duration::from_millis(250),
            disconnected_after: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            ..MediaConfig::default()
        };
        let identity = Identity::generate().unwrap();
        Self {
            endpoint: Endpoint::new(now, &open, &config, 0),
            pipeline: Pipeline::new(PipelineId::new()),
            identity,
            now,
        }
    }

    fn offer(&mut self, sdp: &str) -> Result<Negotiated, MediaError> {
        let offer = Offer { sdp: sdp.into(), revision: None, tracks: Vec::new() };
        let host = Host { identity: &self.identity, candidates: &[] };
        let mut effects = Effects::default();
        self.endpoint.handle_offer(
            self.now,
            &offer,
            &host,
            &mut self.pipeline.session,
            |_| Ok(()),
            &mut effects,
        )
    }

    /// Offers a track of someone else.
    fn serve(&mut self) -> serve::Made {
        let track = SourceTrack {
            track_id: TrackId::new(),
            participant_id: ParticipantId::new(),
            kind: common::model::TrackKind::Video,
            source: TrackSource::Camera,
            codec: sfu::Codec::Vp8,
            extensions: sfu::ExtensionIds::default(),
            encodings: 1,
            publication: self.pipeline.session.publish(sfu::Codec::Vp8),
            muted: false,
            joined_at: common::time::UnixMillis(0),
        };
        self.endpoint.negotiation.want_offer();
        let host = Host { identity: &self.identity, candidates: &[] };
        self.endpoint.make_offer(self.now, &[track], &host, &mut self.pipeline.session).unwrap()
    }

    fn answer(&mut self, sdp: &str, revision: u64) -> Result<Vec<TrackId>, MediaError> {
        let answer = Answer { sdp: sdp.into(), revision };
        let host = Host { identity: &self.identity, candidates: &[] };
        let mut effects = Effects::default();
        self.endpoint.handle_answer(self.now, &answer, &host, &mut self.pipeline.session, &mut effects)
    }

    /// Everything that a description could change.
    fn state(&self) -> String {
        let lines: Vec<_> = self
            .endpoint
            .lines
            .iter()
            .map(|line| {
                let sending = line.sending().map(|it| (it.ssrc, it.carried.is_some(), it.is_free));
                (line.mid.clone(), line.is_rejected(), sending)
            })
            .collect();
        let tracks: Vec<_> = self.endpoint.tracks().cloned().collect();
        format!(
            "{lines:?} {tracks:?} {:?} {:?} {:?} {:?}",
            self.endpoint.negotiation, self.endpoint.ice, self.endpoint.fingerprint, self.endpoint.life
        )
    }
}

/// A valid answer to the server's offer of one video track on `mid`, after [`OFFER`].
fn answer_for(mid: &str) -> String {
    let video = OFFER[OFFER.find("m=video").unwrap()..].replace("a=mid:1", &format!("a=mid:{mid}"));
    OFFER.replace("BUNDLE 0 1", &format!("BUNDLE 0 1 {mid}")).replace("actpass", "active")
        + &video.replace("sendonly", "recvonly")
}

#[test]
fn a_rejected_m_line_may_be_replaced_by_another() {
    let mut bench = Bench::new();
    let published = bench.offer(OFFER).unwrap().tracks;
    let stopped = OFFER.replace("m=video 9", "m=video 0").replace("BUNDLE 0 1", "BUNDLE 0");
    let gone = bench.offer(&stopped).unwrap();
    assert_eq!(gone.unpublished, [published[1].id]);
    assert!(gone.answer.sdp.contains("m=video 0 "));
    let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:7\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n";
    let replaced = OFFER[..OFFER.find("m=video").unwrap()].replace("BUNDLE 0 1", "BUNDLE 0 7") + audio;
    let new = bench.offer(&replaced).unwrap();
    assert_eq!((new.published.len(), new.published[0].mid.as_str()), (1, "7"));
}

#[test]
fn a_declined_track_is_not_offered_again_and_its_m_line_stays_dead() {
    let mut bench = Bench::new();
    bench.offer(OFFER).unwrap();
    let made = bench.serve();
    let mid = made.tracks[0].mid.clone();
    let declined =
        answer_for(&mid).replacen("m=video 9", "m=video 0", 2).replacen("m=video 0", "m=video 9", 1);
    bench.answer(&declined.replace(&format!(" {mid}\r\n"), "\r\n"), made.revision).unwrap();
    assert!(bench.endpoint.lines[2].is_rejected());
    assert_eq!(bench.endpoint.subscriptions().count(), 0);
    let track = made.tracks[0].track_id;
    assert!(bench.endpoint.declined.contains(&track));
    bench.now += Duration::from_secs(1);
    let next = bench.serve();
    assert!(next.sdp.contains("m=video 0 "), "the dead m-line keeps its place");
    assert_ne!(next.tracks[0].mid, mid);
}

#[test]
fn an_answer_that_does_not_fit_leaves_the_offer_outstanding() {
    let mut bench = Bench::new();
    bench.offer(OFFER).unwrap();
    let made = bench.serve();
    let before = bench.state();
    let good = answer_for(&made.tracks[0].mid);
    for bad in
        ["not sdp".to_string(), OFFER.to_string(), good.replace("a=mid:s0", "a=mid:s9").replace(" s0", " s9")]
    {
        assert!(matches!(bench.answer(&bad, made.revision), Err(MediaError::InvalidSdp(_))));
        assert_eq!(bench.state(), before);
    }
    assert_eq!(bench.answer(&good, made.revision), Ok(Vec::new()));
    assert_eq!(bench.endpoint.subscriptions().count(), 1);
}

#[test]
fn another_certificate_needs_another_endpoint() {
    let mut bench = Bench::new();
    bench.offer(OFFER).unwrap();
    let refused = bench.offer(&OFFER.replace("00:11:22", "FF:11:22")).unwrap_err();
    assert!(matches!(refused, MediaError::InvalidSdp(why) if why.contains("fingerprint")));
}

fn check(text: &str) -> Result<(), MediaError> {
    check_candidate(&Candidate {
        candidate: text.into(),
        sdp_mid: None,
        sdp_m_line_index: None,
        username_fragment: None,
    })
}

#[test]
fn candidates_of_browsers_are_accepted() {
    for text in [
        "",
        "candidate:2 1 UDP 2122252543 4f1d5b0e-0f4e-4f93-8c0b-7c1d2f3a4b5c.local 51234 typ host",
        "candidate:842163049 1 udp 1677729535 203.0.113.7 3478 typ srflx raddr 0.0.0.0 rport 0 generation 0",
        "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag abcd",
        "candidate:1 1 udp 1 2001:db8::1 9 typ relay raddr :: rport 9",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn junk_is_refused() {
    for text in [
        "junk",
        "candidate:",
        "candidate:1 1 udp x 192.0.2.1 9 typ host",
        "candidate:1 1 udp 1 192.0.2.1 99999 typ host",
        "candidate:1 1 udp 1 192.0.2.1 9 typ alien",
        "candidate:1 1 udp 1 192.0.2.1 9",
        &format!("candidate:{}", "1 ".repeat(1000)),
    ] {
        assert!(matches!(check(text), Err(MediaError::InvalidCandidate(_))), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is done to an offer: it is refused and nothing changed, or it is applied; never a panic.
    #[test]
    fn a_refused_offer_leaves_the_endpoint_as_it_was(
        edits in proptest::collection::vec((0usize..40, 0u8..4, "\\PC{0,6}"), 1..6),
        negotiated: bool,
    ) {
        let mut bench = Bench::new();
        if negotiated {
            bench.offer(OFFER).unwrap();
        }
        let mut lines: Vec<String> = OFFER.split("\r\n").map(String::from).collect();
        for (at, what, text) in edits {
            let at = at % lines.len();
            match what {
                0 => { lines.remove(at); }
                1 => { let line = lines[at].clone(); lines.insert(at, line); }
                2 => lines[at].push_str(&text),
                _ => { let other = (at * 7) % lines.len(); lines.swap(at, other); }
            }
            if lines.is_empty() { lines.push(String::new()); }
        }
        let before = bench.state();
        if bench.offer(&lines.join("\r\n")).is_err() {
            prop_assert_eq!(bench.state(), before);
        }
    }

    #[test]
    fn no_datagram_panics(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20)) {
        let mut bench = Bench::new();
        bench.offer(OFFER).unwrap();
        let path = Path { remote: ([127, 0, 0, 1], 9).into(), local: Local::Unknown };
        let mut effects = Effects::default();
        for mut datagram in datagrams {
            let (endpoint, pipeline) = (&mut bench.endpoint, &mut bench.pipeline);
            endpoint.handle_datagram(bench.now, path, &mut datagram, pipeline, &mut effects);
        }
        prop_assert_eq!(effects.bound, []);
    }
}
