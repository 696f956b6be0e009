//! The WebRTC side of a test client: generated tracks out, received packets counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
pub use rtc::peer_connection::configuration::RTCIceServer;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8,
};
use rtc::peer_connection::configuration::{RTCConfigurationBuilder, RTCIceTransportPolicy, RTCOfferOptions};
use rtc::rtp::header::{EXTENSION_PROFILE_ONE_BYTE, Extension};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};
use webrtc::rtp_transceiver::RtpTransceiver;

use crate::channels::Channels;
use crate::flow::Flow;
use crate::media::{Generator, H264_PAYLOAD_TYPE, Kind, OPUS_PAYLOAD_TYPE, VP8_PAYLOAD_TYPE};
use crate::sdp::{MediaSection, extension_id, media_sections};

const RTX_PAYLOAD_TYPE: u8 = 97;
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// Why something could not be done, in words; a test only ever prints it.
pub type Failure = String;

fn failure(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// Packets received, by (track id of the `msid`, SSRC).
type Counts = Arc<Mutex<HashMap<(String, u32), u64>>>;

struct Handler {
    counts: Counts,
    flow: Arc<Flow>,
    candidates: mpsc::UnboundedSender<RTCIceCandidateInit>,
    state: watch::Sender<RTCPeerConnectionState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(candidate) = event.candidate.to_json() {
            let _ = self.candidates.send(candidate);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let (counts, flow) = (Arc::clone(&self.counts), Arc::clone(&self.flow));
        // Ends with the connection, which ends the stream of events.
        tokio::spawn(async move {
            let id = track.track_id().await;
            // The server's `msid` has the participant as the stream.
            let participant_id = track.stream_id().await;
            let kind = match track.kind().await {
                RtpCodecKind::Video => Kind::Video,
                _ => Kind::Audio,
            };
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    flow.note(&participant_id, kind);
                    let mut counts = counts.lock().expect("counting never panics");
                    *counts.entry((id.clone(), packet.header.ssrc)).or_default() += 1;
                }
            }
        });
    }
}

/// A generated track that is being sent.
struct Sending {
    kind: Kind,
    /// The track's part of our `msid`: finds its m-line in our offers.
    label: String,
    transceiver: Arc<dyn RtpTransceiver>,
    writer: JoinHandle<()>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// One peer connection.
pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    counts: Counts,
    state: watch::Receiver<RTCPeerConnectionState>,
    sending: Mutex<Vec<Sending>>,
    voice: Arc<Voice>,
    /// What it sends of pictures, and what it knows besides VP8.
    knows_h264: bool,
}

/// How loud the generated voice says it is (RFC 6464).
struct Voice {
    /// Under which id; 0 before it is offered.
    id: AtomicU8,
    /// dB below full scale.
    level: AtomicU8,
}

fn codec(kind: Kind) -> RTCRtpCodec {
    match kind {
        Kind::Audio => RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
            rtcp_feedback: vec![],
        },
        Kind::Video => RTCRtpCodec {
            mime_type: MIME_TYPE_VP8.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![],
        },
    }
}

/// H.264 as browsers call it (RFC 6184): constrained baseline, several NAL units in a packet.
fn h264() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
        rtcp_feedback: vec![],
    }
}

fn codec_kind(kind: Kind) -> RtpCodecKind {
    match kind {
        Kind::Audio => RtpCodecKind::Audio,
        Kind::Video => RtpCodecKind::Video,
    }
}

fn media_engine(knows_h264: bool) -> Result<MediaEngine, Failure> {
    let mut engine = MediaEngine::default();
    let level = RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL.to_owned() };
    engine.register_header_extension(level, RtpCodecKind::Audio, None).map_err(failure)?;
    let rtx = RTCRtpCodec {
        mime_type: MIME_TYPE_RTX.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("apt={VP8_PAYLOAD_TYPE}"),
        rtcp_feedback: vec![],
    };
    for (rtp_codec, payload_type, kind) in [
        (codec(Kind::Audio), OPUS_PAYLOAD_TYPE, RtpCodecKind::Audio),
        (codec(Kind::Video), VP8_PAYLOAD_TYPE, RtpCodecKind::Video),
        (rtx, RTX_PAYLOAD_TYPE, RtpCodecKind::Video),
    ] {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind).map_err(failure)?;
    }
    if knows_h264 {
        let parameters = RTCRtpCodecParameters { rtp_codec: h264(), payload_type: H264_PAYLOAD_TYPE };
        engine.register_codec(parameters, RtpCodecKind::Video).map_err(failure)?;
    }
    Ok(engine)
}

impl Peer {
    /// A connection on the loopback interface, and its candidates as they are found.
    pub async fn new() -> Result<(Self, mpsc::UnboundedReceiver<RTCIceCandidateInit>), Failure> {
        Self::noting(Ipv4Addr::LOCALHOST.into(), Arc::default(), false, None).await
    }

    /// The same at another address of this machine, noting every packet in `flow` too. `knows_h264`: it offers H.264 after
    /// VP8, and H.264 is what its cameras send. `turn`: it takes no other path than by this server.
    pub async fn noting(
        address: IpAddr,
        flow: Arc<Flow>,
        knows_h264: bool,
        turn: Option<RTCIceServer>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<RTCIceCandidateInit>), Failure> {
        let mut engine = media_engine(knows_h264)?;
        let registry = register_default_interceptors(Registry::new(), &mut engine).map_err(failure)?;
        let (candidates, found) = mpsc::unbounded_channel();
        let (state, state_watch) = watch::channel(RTCPeerConnectionState::New);
        let counts = Counts::default();
        let configuration = match turn {
            Some(server) => RTCConfigurationBuilder::new()
                .with_ice_servers(vec![server])
                .with_ice_transport_policy(RTCIceTransportPolicy::Relay),
            None => RTCConfigurationBuilder::new(),
        };
        let connection = PeerConnectionBuilder::new()
            .with_configuration(configuration.build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(true).build())
            .with_handler(Arc::new(Handler { counts: Arc::clone(&counts), flow, candidates, state }))
            .with_udp_addrs(vec![SocketAddr::new(address, 0)])
            .build()
            .await
            .map_err(failure)?;
        let peer = Self {
            connection: Arc::new(connection),
            counts,
            state: state_watch,
            sending: Mutex::default(),
            voice: Arc::new(Voice { id: AtomicU8::new(0), level: AtomicU8::new(127) }),
            knows_h264,
        };
        Ok((peer, found))
    }

    /// Adds a generated track; the next offer publishes it. Packets flow once that is negotiated.
    pub async fn add(&self, kind: Kind) -> Result<(), Failure> {
        let ssrc = Uuid::new_v4().as_fields().0;
        let label = Uuid::new_v4().to_string();
        let is_h264 = self.knows_h264 && kind == Kind::Video;
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "generated".to_owned(),
            label.clone(),
            label.clone(),
            codec_kind(kind),
            vec![RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                codec: if is_h264 { h264() } else { codec(kind) },
                ..Default::default()
            }],
        )));
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            streams: vec![],
            send_encodings: vec![],
        };
        let transceiver = self
            .connection
            .add_transceiver_from_track(Arc::clone(&track) as Arc<dyn TrackLocal>, Some(init))
            .await
            .map_err(failure)?;
        let generator = if is_h264 { Generator::h264(ssrc) } else { Generator::new(kind, ssrc) };
        let voice = Arc::clone(&self.voice);
        let writer = tokio::spawn(write(track, generator, kind, voice, self.state.clone()));
        self.sending().push(Sending { kind, label, transceiver, writer });
        Ok(())
    }

    /// How loud its generated voices say they are from now on: dB below full scale, 127 is silence, as in the beginning.
    pub fn set_level(&self, level: u8) {
        self.voice.level.store(level, Ordering::Relaxed);
    }

    /// Adds an m-line that only receives to the next offer.
    pub async fn receive(&self, kind: Kind) -> Result<(), Failure> {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            streams: vec![],
            send_encodings: vec![],
        };
        self.connection.add_transceiver_from_kind(codec_kind(kind), Some(init)).await.map_err(failure)?;
        Ok(())
    }

    /// Opens both data channels; they are in the next offer.
    pub async fn open_channels(&self) -> Result<Channels, Failure> {
        Channels::open(&*self.connection).await
    }

    /// Stops sending tracks of this kind; the next offer unpublishes them.
    pub async fn remove(&self, kind: Kind) -> Result<(), Failure> {
        let removed: Vec<Sending> = {
            let mut sending = self.sending();
            let (removed, kept) = sending.drain(..).partition(|sending| sending.kind == kind);
            *sending = kept;
            removed
        };
        for sending in removed {
            sending.transceiver.set_direction(RTCRtpTransceiverDirection::Inactive).await.map_err(failure)?;
        }
        Ok(())
    }

    fn sending(&self) -> std::sync::MutexGuard<'_, Vec<Sending>> {
        self.sending.lock().expect("the list is only pushed to and drained")
    }

    /// An offer and what the API wants to know about its m-lines. Nothing changes until [`Self::accepted`]: an
    /// offer that the server refuses needs no rollback. Two exceptions, which the API's clients do not run into: the
    /// engine restarts ICE with the next description, whichever that is, and it keeps the names that it gave to new
    /// m-lines (numbers; the server's own m-lines have other names).
    pub async fn offer(&self, ice_restart: bool) -> Result<(RTCSessionDescription, Value), Failure> {
        let options = ice_restart.then_some(RTCOfferOptions { ice_restart: true });
        let offer = self.connection.create_offer(options).await.map_err(failure)?;
        if let Some(id) = extension_id(&offer.sdp, AUDIO_LEVEL) {
            self.voice.id.store(id, Ordering::Relaxed);
        }
        let tracks: Vec<Value> = media_sections(&offer.sdp)
            .iter()
            .filter(|section| section.direction.starts_with("send"))
            .filter_map(|section| {
                let (_, label) = section.msid.as_ref()?;
                let sending = self.sending();
                let sending = sending.iter().find(|sending| &sending.label == label)?;
                Some(json!({"mid": section.mid, "source": sending.kind.source()}))
            })
            .collect();
        Ok((offer, Value::Array(tracks)))
    }

    /// The server accepted our offer with this answer.
    pub async fn accepted(&self, offer: RTCSessionDescription, answer: &str) -> Result<(), Failure> {
        self.connection.set_local_description(offer).await.map_err(failure)?;
        let answer = RTCSessionDescription::answer(answer.to_owned()).map_err(failure)?;
        self.connection.set_remote_description(answer).await.map_err(failure)
    }

    /// Takes the server's offer; gives our answer.
    pub async fn answer(&self, offer: &str) -> Result<String, Failure> {
        let offer = RTCSessionDescription::offer(offer.to_owned()).map_err(failure)?;
        self.connection.set_remote_description(offer).await.map_err(failure)?;
        let answer = self.connection.create_answer(None).await.map_err(failure)?;
        let sdp = answer.sdp.clone();
        self.connection.set_local_description(answer).await.map_err(failure)?;
        Ok(sdp)
    }

    pub async fn add_candidate(&self, candidate: RTCIceCandidateInit) -> Result<(), Failure> {
        self.connection.add_ice_candidate(candidate).await.map_err(failure)
    }

    pub fn state(&self) -> RTCPeerConnectionState {
        *self.state.borrow()
    }

    /// The m-lines as the server last described them.
    pub async fn remote_sections(&self) -> Vec<MediaSection> {
        match self.connection.current_remote_description().await {
            Some(description) => media_sections(&description.sdp),
            None => Vec::new(),
        }
    }

    /// Packets received for a track: by its id in the `msid`, or by the SSRCs of the m-line that carries it.
    pub async fn received(&self, track_id: &str, mid: Option<&str>) -> u64 {
        let sections = self.remote_sections().await;
        let ssrcs = sections
            .iter()
            .find(|section| Some(section.mid.as_str()) == mid)
            .map(|section| section.ssrcs.clone())
            .unwrap_or_default();
        let counts = self.counts.lock().expect("counting never panics");
        counts
            .iter()
            .filter(|((id, ssrc), _)| id == track_id || ssrcs.contains(ssrc))
            .map(|(_, count)| count)
            .sum()
    }

    /// Everything received, for messages of failed tests.
    pub fn counts(&self) -> HashMap<(String, u32), u64> {
        self.counts.lock().expect("counting never panics").clone()
    }

    /// Ends the connection without a word to the server's HTTP side.
    pub async fn close(&self) {
        self.sending().clear();
        let _ = self.connection.close().await;
    }
}

/// Sends packets at the pace of real media for as long as the track lives.
async fn write(
    track: Arc<TrackLocalStaticRTP>,
    mut generator: Generator,
    kind: Kind,
    voice: Arc<Voice>,
    mut state: watch::Receiver<RTCPeerConnectionState>,
) {
    if state.wait_for(|state| *state == RTCPeerConnectionState::Connected).await.is_err() {
        return;
    }
    let mut pace = tokio::time::interval(kind.interval());
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        pace.tick().await;
        // Refused while the m-line is not negotiated: the packet is lost, as a real one would be.
        let mut packet = generator.next_packet();
        let id = voice.id.load(Ordering::Relaxed);
        if kind == Kind::Audio && id > 0 {
            let level = voice.level.load(Ordering::Relaxed);
            packet.header.extension = true;
            packet.header.extension_profile = EXTENSION_PROFILE_ONE_BYTE;
            packet.header.extensions = vec![Extension { id, payload: Bytes::from(vec![level]) }];
        }
        let _ = track.write_rtp(packet).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::eventually;

    /// Two peers, each other's "server".
    async fn pair() -> (Peer, Peer) {
        let (a, mut a_found) = Peer::new().await.unwrap();
        let (b, mut b_found) = Peer::new().await.unwrap();
        a.add(Kind::Audio).await.unwrap();
        a.add(Kind::Video).await.unwrap();
        negotiate(&a, &b).await;
        a.add_candidate(b_found.recv().await.unwrap()).await.unwrap();
        b.add_candidate(a_found.recv().await.unwrap()).await.unwrap();
        (a, b)
    }

    async fn negotiate(from: &Peer, to: &Peer) {
        let (offer, _) = from.offer(false).await.unwrap();
        let answer = to.answer(&offer.sdp).await.unwrap();
        from.accepted(offer, &answer).await.unwrap();
    }

    async fn rises(peer: &Peer, mid: &str) {
        let before = peer.received("", Some(mid)).await;
        eventually(&format!("packets on m-line {mid}"), || async {
            let now = peer.received("", Some(mid)).await;
            if now >= before + 10 { Ok(()) } else { Err(format!("{before} to {now}: {:?}", peer.counts())) }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn generated_media_arrives_and_is_counted_by_track() {
        let (a, b) = pair().await;
        rises(&b, "0").await;
        rises(&b, "1").await;
        assert_eq!(a.counts().len(), 0, "nobody sends to the first");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_offer_that_is_thrown_away_changes_nothing() {
        let (a, b) = pair().await;
        rises(&b, "1").await;
        a.add(Kind::Video).await.unwrap();
        let _refused = a.offer(false).await.unwrap();
        a.add(Kind::Audio).await.unwrap();
        negotiate(&a, &b).await;
        rises(&b, "3").await;
        rises(&b, "2").await;
        rises(&b, "1").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_track_that_was_removed_stops() {
        let (a, b) = pair().await;
        rises(&b, "1").await;
        a.remove(Kind::Video).await.unwrap();
        negotiate(&a, &b).await;
        let directions: Vec<String> =
            b.remote_sections().await.into_iter().map(|line| line.direction).collect();
        assert_eq!(directions, ["sendonly", "inactive"]);
        rises(&b, "0").await;
    }
}
