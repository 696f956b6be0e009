//! A client on the sans-IO `rtc` peer connection, an implementation of WebRTC that is not ours: its own
//! socket, its own SDP, and a link that can lose packets on purpose.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use common::model::{EndpointId, ParticipantId};
use media_worker::media::MediaEvent;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::interceptor::{Attribute, Interceptor, Packet, Registry, Slot, StreamInfo, TaggedPacket};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtp::header::{EXTENSION_PROFILE_ONE_BYTE, Extension};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

/// Which packets the link loses; every third is a loss of 33 %, and none is lost by chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss {
    /// Loses one of so many media packets that the client sends, and RTX packets never.
    pub every_sent: Option<u64>,
    /// The same for what it receives.
    pub every_received: Option<u64>,
}

pub struct Outgoing {
    pub sender: RTCRtpSenderId,
    pub ssrc: u32,
    pub kind: RtpCodecKind,
    payload_type: Option<u8>,
    /// Under which id the audio level goes (RFC 6464).
    level_id: Option<u8>,
    sequence: u16,
    timestamp: u32,
    pub sent: u64,
}

/// What arrived for one subscribed track.
#[derive(Debug, Default, Clone)]
pub struct Incoming {
    pub sequences: Vec<u16>,
    pub payloads: Vec<Bytes>,
}

pub struct Client {
    pub endpoint: EndpointId,
    pub participant: ParticipantId,
    pc: RTCPeerConnection,
    socket: UdpSocket,
    local: SocketAddr,
    pub outgoing: Vec<Outgoing>,
    /// By the track id in the SDP's msid.
    pub incoming: HashMap<String, Incoming>,
    pub is_connected: bool,
    pub loss: Loss,
    /// Nothing comes in or goes out.
    pub unplugged: bool,
    pub keyframe_requests: u64,
    pub lost: u64,
    /// How loud its audio is: dB below full scale.
    pub level: u8,
    alerts: u64,
    sent_media: u64,
    received_media: u64,
    pub events: Vec<MediaEvent>,
    pub answers: u64,
    /// Sequence numbers of video packets as they came over the wire, without retransmissions.
    pub first_copies: Vec<u16>,
    /// Server offers stay unanswered.
    pub sulks: bool,
    pub pending: VecDeque<(u64, String)>,
    channels: Vec<(RTCDataChannelId, &'static str)>,
    pub open_channels: usize,
    /// Messages of data channels: label, whether it is text, content.
    pub heard: Vec<(String, bool, Vec<u8>)>,
}

impl Client {
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let local = socket.local_addr().unwrap();
        let mut engine = media_engine();
        let registry = register_default_interceptors(Registry::new(), &mut engine).unwrap();
        let registry = registry.with(Slot::IntervalPli, KeyframeTap::default());
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(true).build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(Instant::now())
            .unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".into(),
                address: local.ip().to_string(),
                port: local.port(),
                component: 1,
                ..Default::default()
            },
            ..Default::default()
        };
        let candidate = candidate.new_candidate_host().unwrap();
        pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap()).unwrap();
        Self {
            endpoint: EndpointId::new(),
            participant: ParticipantId::new(),
            pc,
            socket,
            local,
            outgoing: Vec::new(),
            incoming: HashMap::new(),
            is_connected: false,
            loss: Loss::default(),
            unplugged: false,
            keyframe_requests: 0,
            lost: 0,
            level: 127,
            alerts: 0,
            sent_media: 0,
            received_media: 0,
            events: Vec::new(),
            answers: 0,
            first_copies: Vec::new(),
            sulks: false,
            pending: VecDeque::new(),
            channels: Vec::new(),
            open_channels: 0,
            heard: Vec::new(),
        }
    }

    /// Adds a track to send; it is published by the next offer.
    pub fn add_track(&mut self, kind: RtpCodecKind) {
        let ssrc: u32 = rand::random_range(1..u32::MAX);
        let codec = if kind == RtpCodecKind::Audio { opus() } else { vp8() };
        let rtx = (kind == RtpCodecKind::Video).then_some(RTCRtpRtxParameters { ssrc: ssrc ^ 1 });
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), rtx, ..Default::default() },
            codec: codec.rtp_codec,
            ..Default::default()
        };
        let name = format!("{kind:?}{ssrc}");
        let track = MediaStreamTrack::new("stream".into(), name, "label".into(), kind, vec![encoding]);
        let init =
            RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, ..Default::default() };
        let id = self.pc.add_transceiver_from_track(track, Some(init)).unwrap();
        self.outgoing.push(Outgoing {
            sender: id.into(),
            ssrc,
            kind,
            payload_type: None,
            level_id: None,
            sequence: rand::random(),
            timestamp: rand::random(),
            sent: 0,
        });
    }

    /// Adds an m-line that only receives to the next offer.
    pub fn receive(&mut self, kind: RtpCodecKind) {
        let init =
            RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        self.pc.add_transceiver_from_kind(kind, Some(init)).unwrap();
    }

    /// Opens both data channels with the next offer.
    pub fn open_channels(&mut self) {
        let lossy = RTCDataChannelInit { ordered: false, max_retransmits: Some(0), ..Default::default() };
        for (label, init) in [("reliable", None), ("lossy", Some(lossy))] {
            let id = self.pc.create_data_channel(label, init).unwrap().id();
            self.channels.push((id, label));
        }
    }

    /// Sends a text message.
    pub fn say(&mut self, label: &str, text: &str) {
        let id = self.channel(label);
        self.pc.data_channel(id).unwrap().send_text(Instant::now(), text).unwrap();
    }

    /// Sends a binary message.
    pub fn say_bytes(&mut self, label: &str, bytes: &[u8]) {
        let id = self.channel(label);
        self.pc.data_channel(id).unwrap().send(Instant::now(), BytesMut::from(bytes)).unwrap();
    }

    fn channel(&self, label: &str) -> RTCDataChannelId {
        self.channels.iter().find(|(_, known)| *known == label).expect("it was opened").0
    }

    pub fn create_offer(&mut self) -> String {
        let offer = self.pc.create_offer(None).unwrap();
        self.pc.set_local_description(Instant::now(), offer).unwrap();
        self.pc.local_description().unwrap().sdp
    }

    pub fn restart_ice(&mut self) {
        self.pc.restart_ice();
    }

    pub fn set_answer(&mut self, sdp: &str) {
        let answer = RTCSessionDescription::answer(sdp.to_string()).unwrap();
        self.pc.set_remote_description(Instant::now(), answer).unwrap();
    }

    /// The client's answer to an offer of the server.
    pub fn answer(&mut self, sdp: &str) -> String {
        let now = Instant::now();
        let offer = RTCSessionDescription::offer(sdp.to_string()).unwrap();
        self.pc.set_remote_description(now, offer).unwrap();
        let answer = self.pc.create_answer(None).unwrap();
        self.pc.set_local_description(now, answer).unwrap();
        self.answers += 1;
        self.pc.local_description().unwrap().sdp
    }

    pub fn remote_sdp(&self) -> &str {
        &self.pc.remote_description().unwrap().sdp
    }

    /// Sends one packet of a track: a VP8 frame in one packet, or a bit of Opus.
    pub fn send(&mut self, index: usize, keyframe: bool) {
        let outgoing = &mut self.outgoing[index];
        let Some(mut sender) = self.pc.rtp_sender(outgoing.sender) else { return };
        let mime = if outgoing.kind == RtpCodecKind::Audio { "audio/opus" } else { "video/VP8" };
        if outgoing.payload_type.is_none() {
            let parameters = &sender.get_parameters().rtp_parameters;
            outgoing.level_id = parameters
                .header_extensions
                .iter()
                .find(|extension| extension.uri == AUDIO_LEVEL)
                .map(|extension| extension.id as u8);
            outgoing.payload_type = parameters
                .codecs
                .iter()
                .find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case(mime))
                .map(|codec| codec.payload_type);
        }
        let Some(payload_type) = outgoing.payload_type else { return };
        let mut payload = vec![0x10, u8::from(!keyframe), 0, 0];
        payload.extend_from_slice(&outgoing.sent.to_be_bytes());
        payload.resize(200, 7);
        let level = outgoing.level_id.map(|id| Extension { id, payload: Bytes::from(vec![self.level]) });
        let packet = rtc::rtp::Packet {
            header: rtc::rtp::Header {
                version: 2,
                marker: true,
                payload_type,
                sequence_number: outgoing.sequence,
                timestamp: outgoing.timestamp,
                ssrc: outgoing.ssrc,
                extension: level.is_some(),
                extension_profile: EXTENSION_PROFILE_ONE_BYTE,
                extensions: level.into_iter().collect(),
                ..Default::default()
            },
            payload: Bytes::from(payload),
        };
        sender.write_rtp(Instant::now(), packet).unwrap();
        outgoing.sequence = outgoing.sequence.wrapping_add(1);
        outgoing.timestamp = outgoing.timestamp.wrapping_add(3000);
        outgoing.sent += 1;
    }

    /// Asks for a keyframe of a subscribed track, as a decoder that lost its picture does.
    pub fn request_keyframe(&mut self, track_id: &str) {
        let ids: Vec<_> = self.pc.get_receivers().collect();
        for id in ids {
            let Some(mut receiver) = self.pc.rtp_receiver(id) else { continue };
            if receiver.track().track_id() != track_id {
                continue;
            }
            let ssrc = receiver.track().ssrcs().next().unwrap();
            let request = PictureLossIndication { sender_ssrc: 1, media_ssrc: ssrc };
            receiver.write_rtcp(Instant::now(), vec![Box::new(request)]).unwrap();
            return;
        }
        panic!("no such track: {track_id}");
    }

    /// Says how much it can receive, in bit/s (draft-alvestrand-rmcat-remb).
    pub fn report_maximum_bitrate(&mut self, bitrate: f32) {
        let Some(id) = self.pc.get_receivers().next() else { return };
        let Some(mut receiver) = self.pc.rtp_receiver(id) else { return };
        let ssrcs = receiver.track().ssrcs().collect();
        let report = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate, ssrcs };
        receiver.write_rtcp(Instant::now(), vec![Box::new(report)]).unwrap();
    }

    /// Says goodbye (close_notify).
    pub fn close(&mut self) {
        self.pc.close().unwrap();
        self.flush();
    }

    /// Moves what can be moved now.
    pub fn drive(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            if self.unplugged || self.loses_received(&buffer[..length]) {
                continue;
            }
            if is_first_copy(&buffer[..length]) {
                self.first_copies.push(u16::from_be_bytes([buffer[2], buffer[3]]));
            }
            const ALERT: u8 = 21;
            self.alerts += u64::from(buffer[..length].first() == Some(&ALERT));
            let tagged = TaggedBytesMut {
                now: Instant::now(),
                transport: TransportContext {
                    local_addr: self.local,
                    peer_addr: from,
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                },
                message: BytesMut::from(&buffer[..length]),
            };
            self.pc.handle_read(tagged).unwrap();
        }
        let now = Instant::now();
        if self.pc.poll_timeout().is_some_and(|due| due <= now) {
            self.pc.handle_timeout(now).unwrap();
        }
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    self.is_connected = state == RTCPeerConnectionState::Connected;
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(_)) => {
                    self.open_channels += 1;
                }
                _ => {}
            }
        }
        while let Some(message) = self.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(track, packet) => {
                    let incoming = self.incoming.entry(track).or_default();
                    // What a probe repeats is no news to a decoder.
                    if incoming.sequences.contains(&packet.header.sequence_number) {
                        continue;
                    }
                    incoming.sequences.push(packet.header.sequence_number);
                    incoming.payloads.push(packet.payload);
                }
                RTCMessage::RtcpPacket(_, packets) => {
                    self.keyframe_requests += packets
                        .iter()
                        .filter(|packet| packet.as_any().downcast_ref::<PictureLossIndication>().is_some())
                        .count() as u64;
                }
                RTCMessage::DataChannelMessage(id, message) => {
                    let label = self.channels.iter().find(|(known, _)| *known == id).map(|(_, label)| *label);
                    let label = label.unwrap_or_default().to_string();
                    self.heard.push((label, message.is_string, message.data.to_vec()));
                }
                _ => {}
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.pc.poll_write() {
            if self.unplugged || self.loses_sent(&transmit.message) {
                continue;
            }
            // A full buffer is a loss like any other.
            let _ = self.socket.send_to(&transmit.message, transmit.transport.peer_addr);
        }
    }

    fn loses_sent(&mut self, datagram: &[u8]) -> bool {
        let lost = loses(self.loss.every_sent, &mut self.sent_media, datagram);
        self.lost += u64::from(lost);
        lost
    }

    fn loses_received(&mut self, datagram: &[u8]) -> bool {
        let lost = loses(self.loss.every_received, &mut self.received_media, datagram);
        self.lost += u64::from(lost);
        lost
    }

    /// Whether the server said goodbye: a DTLS record of type alert arrived, encrypted.
    pub fn has_heard_goodbye(&self) -> bool {
        self.alerts > 0
    }

    pub fn raw_socket(&self) -> &UdpSocket {
        &self.socket
    }
}

/// Only first transmissions of video are lost: what repairs them has another payload type.
fn loses(every: Option<u64>, count: &mut u64, datagram: &[u8]) -> bool {
    let Some(every) = every.filter(|_| is_first_copy(datagram)) else { return false };
    *count += 1;
    count.is_multiple_of(every)
}

fn is_first_copy(datagram: &[u8]) -> bool {
    datagram.len() > 12 && datagram[0] & 0xc0 == 0x80 && datagram[1] & 0x7f == VP8
}

pub const VP8: u8 = 96;
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

fn opus() -> RTCRtpCodecParameters {
    codec("audio/opus", 48_000, 2, "minptime=10;useinbandfec=1", 111)
}

fn vp8() -> RTCRtpCodecParameters {
    codec("video/VP8", 90_000, 0, "", VP8)
}

fn codec(mime: &str, clock_rate: u32, channels: u16, fmtp: &str, payload_type: u8) -> RTCRtpCodecParameters {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
    let rtcp_feedback = if mime.starts_with("video/VP8") {
        vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")]
    } else {
        Vec::new()
    };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: mime.into(),
            clock_rate,
            channels,
            sdp_fmtp_line: fmtp.into(),
            rtcp_feedback,
        },
        payload_type,
    }
}

fn media_engine() -> MediaEngine {
    let mut engine = MediaEngine::default();
    let level = RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL.into() };
    engine.register_header_extension(level, RtpCodecKind::Audio, None).unwrap();
    engine.register_codec(opus(), RtpCodecKind::Audio).unwrap();
    engine.register_codec(vp8(), RtpCodecKind::Video).unwrap();
    engine.register_codec(codec("video/rtx", 90_000, 0, "apt=96", 97), RtpCodecKind::Video).unwrap();
    engine
}

/// Lets keyframe requests through to the application, which the stock interceptors keep.
#[derive(Default)]
struct KeyframeTap {
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for KeyframeTap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &message.message.packet
            && packets.iter().any(|packet| packet.as_any().downcast_ref::<PictureLossIndication>().is_some())
        {
            message.message.attributes.push(Attribute::DeliverToApplication);
        }
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Self::Error> {
        self.writes.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for KeyframeTap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
