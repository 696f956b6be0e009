//! Negotiation of one endpoint under arbitrary descriptions, candidates and tracks of others.

use common::message::{Answer, Candidate, Offer};
use common::model::{PipelineId, TrackKind, TrackSource};
use common::time::UnixMillis;

use super::offer::Host;
use super::*;
use crate::media::fuzzing::identity;
use crate::media::sdp::{self, parse};

/// Steps per run.
const MAX_STEPS: usize = 40;

/// Steps, each a line that says what it is (`offer`, `answer`, `candidate`, `serve`, `unserve`, `wait`) and the lines behind
/// it up to one with a single dot. Promises: what is refused changes nothing, and the server's own descriptions can be
/// read and have an m-line for each of the client's.
pub fn negotiation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut bench = Bench::new();
    for step in text.split("\n.\n").take(MAX_STEPS) {
        let (what, body) = step.split_once('\n').unwrap_or((step, ""));
        match what.trim() {
            "offer" => bench.offer(body),
            "answer" => bench.answer(body),
            "candidate" => bench.candidates(body),
            "serve" => bench.serve(),
            "unserve" => {
                bench.others.pop();
                bench.endpoint.negotiation.want_offer();
            }
            "wait" => bench.now += Duration::from_secs(2),
            _ => {}
        }
        bench.settle();
    }
}

struct Bench {
    endpoint: Endpoint,
    pipeline: Pipeline,
    now: Instant,
    /// Tracks of others.
    others: Vec<SourceTrack>,
    revision: u64,
}

fn host() -> Host<'static> {
    Host { identity: identity(), candidates: &[] }
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
        Self {
            endpoint: Endpoint::new(now, &open, &MediaConfig::default(), 0),
            pipeline: Pipeline::new(open.pipeline_id),
            now,
            others: Vec::new(),
            revision: 0,
        }
    }

    fn offer(&mut self, text: &str) {
        let offer = Offer { sdp: text.into(), revision: None, tracks: Vec::new() };
        let before = self.state();
        let (session, mut effects) = (&mut self.pipeline.session, Effects::default());
        match self.endpoint.handle_offer(self.now, &offer, &host(), session, |_| Ok(()), &mut effects) {
            Ok(negotiated) => {
                let lines = parse::parse(text, usize::MAX).expect("it was accepted").media.len();
                assert_eq!(read(&negotiated.answer.sdp), lines);
            }
            Err(_) => assert_eq!(self.state(), before),
        }
    }

    fn answer(&mut self, text: &str) {
        let answer = Answer { sdp: text.into(), revision: self.revision };
        let before = self.state();
        let (session, mut effects) = (&mut self.pipeline.session, Effects::default());
        if self.endpoint.handle_answer(self.now, &answer, &host(), session, &mut effects).is_err() {
            assert_eq!(self.state(), before);
        }
    }

    fn candidates(&mut self, text: &str) {
        let candidate = |line: &str| Candidate {
            candidate: line.into(),
            sdp_mid: None,
            sdp_m_line_index: None,
            username_fragment: None,
        };
        let candidates: Vec<_> = text.lines().map(candidate).collect();
        // Refused ones are as good as none.
        let _ = self.endpoint.add_candidates(&candidates);
    }

    /// Somebody else publishes.
    fn serve(&mut self) {
        let codec = [sfu::Codec::Vp8, sfu::Codec::Opus, sfu::Codec::H264][self.others.len() % 3];
        self.others.push(SourceTrack {
            track_id: TrackId::new(),
            participant_id: ParticipantId::new(),
            kind: if codec.is_video() { TrackKind::Video } else { TrackKind::Audio },
            source: TrackSource::Camera,
            codec,
            extensions: sfu::ExtensionIds::default(),
            encodings: 1,
            publication: self.pipeline.session.publish(codec),
            muted: false,
            joined_at: UnixMillis(0),
        });
        self.endpoint.negotiation.want_offer();
    }

    /// Makes the server's offer when it is due, and does what else is.
    fn settle(&mut self) {
        self.now += Duration::from_millis(300);
        if self.endpoint.negotiation.is_offer_due(self.now)
            && let Some(made) =
                self.endpoint.make_offer(self.now, &self.others, &host(), &mut self.pipeline.session)
        {
            self.revision = made.revision;
            assert_eq!(read(&made.sdp), self.endpoint.lines.len());
        }
        let mut effects = Effects::default();
        self.endpoint.handle_timeout(self.now, &mut self.pipeline, &mut effects);
        assert!(effects.bound.is_empty(), "nobody was authentic");
    }

    /// Everything that a description could change.
    fn state(&self) -> String {
        let line = |line: &Line| {
            let sending = line.sending().map(|it| (it.ssrc, it.carried.is_some(), it.is_free));
            (line.mid.clone(), line.is_rejected(), sending)
        };
        let endpoint = &self.endpoint;
        let lines: Vec<_> = endpoint.lines.iter().map(line).collect();
        let tracks: Vec<_> = endpoint.tracks().map(|track| track.id).collect();
        let session = self.pipeline.session.tracks();
        let (ice, fingerprint, life) = (endpoint.ice.local(), &endpoint.fingerprint, &endpoint.life);
        format!("{lines:?} {tracks:?} {session} {ice:?} {fingerprint:?} {life:?}")
    }
}

/// How many m-lines a description of the server's has.
fn read(text: &str) -> usize {
    assert!(text.len() < sdp::MAX_SDP * 4);
    let lines = text.lines().filter(|line| line.starts_with("m="));
    // With every m-line rejected there is no transport that could be described.
    if lines.clone().all(|line| line.split(' ').nth(1) == Some("0")) {
        return lines.count();
    }
    parse::parse(text, usize::MAX).expect("what the server writes can be read").media.len()
}
