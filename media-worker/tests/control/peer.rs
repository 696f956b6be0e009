//! A WebRTC client on the sans-IO core: real SDP, and a real connection when it is driven.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::message::{Answer, Offer};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;

use super::patience;

pub struct Peer {
    connection: RTCPeerConnection,
    socket: UdpSocket,
    local: SocketAddr,
    state: RTCPeerConnectionState,
}

impl Peer {
    /// Publishes one Opus track as soon as its offer is accepted.
    pub async fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let local = socket.local_addr().unwrap();
        let mut codecs = MediaEngine::default();
        codecs.register_default_codecs().unwrap();
        let mut connection =
            RTCPeerConnectionBuilder::new().with_media_engine(codecs).build(Instant::now()).unwrap();
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: local.ip().to_string(),
            port: local.port(),
            component: 1,
            ..CandidateConfig::default()
        };
        let candidate = CandidateHostConfig { base_config, ..CandidateHostConfig::default() };
        let candidate = RTCIceCandidate::from(&candidate.new_candidate_host().unwrap());
        connection.add_local_candidate(candidate.to_json().unwrap()).unwrap();
        let mut peer = Self { connection, socket, local, state: RTCPeerConnectionState::New };
        peer.publish("microphone");
        peer
    }

    pub fn publish(&mut self, name: &str) {
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
            ..RTCRtpCodec::default()
        };
        let rtp_coding_parameters =
            RTCRtpCodingParameters { ssrc: Some(rand::random()), ..Default::default() };
        let encoding = RTCRtpEncodingParameters { rtp_coding_parameters, codec, ..Default::default() };
        let track = MediaStreamTrack::new(
            "stream".to_owned(),
            name.to_owned(),
            name.to_owned(),
            RtpCodecKind::Audio,
            vec![encoding],
        );
        self.connection.add_track(track).unwrap();
    }

    pub fn offer(&mut self) -> Offer {
        let offer = self.connection.create_offer(None).unwrap();
        self.connection.set_local_description(Instant::now(), offer).unwrap();
        let sdp = self.connection.local_description().unwrap().sdp;
        Offer { sdp, revision: None, tracks: Vec::new() }
    }

    pub fn accept(&mut self, answer: &Answer) {
        let answer = RTCSessionDescription::answer(answer.sdp.clone()).expect("the server's answer is SDP");
        self.connection.set_remote_description(Instant::now(), answer).expect("the server's answer fits");
    }

    /// Drives the connection until it carries media.
    pub async fn connect(&mut self) {
        let connected = async {
            while self.state != RTCPeerConnectionState::Connected {
                self.step().await;
            }
        };
        tokio::time::timeout(patience(), connected).await.expect("connected in time");
    }

    /// Ends the connection as a browser does: DTLS close_notify.
    pub async fn close(mut self) {
        self.connection.close().unwrap();
        self.send().await;
    }

    async fn step(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.state = state;
            }
        }
        self.send().await;
        let now = Instant::now();
        let wait = self
            .connection
            .poll_timeout()
            .map_or(Duration::from_millis(100), |at| at.saturating_duration_since(now));
        let mut packet = [0; 2048];
        match tokio::time::timeout(wait.min(Duration::from_millis(100)), self.socket.recv_from(&mut packet))
            .await
        {
            Ok(received) => {
                let (length, from) = received.unwrap();
                let packet = TaggedBytesMut {
                    now: Instant::now(),
                    transport: TransportContext {
                        local_addr: self.local,
                        peer_addr: from,
                        ecn: None,
                        transport_protocol: TransportProtocol::UDP,
                    },
                    message: BytesMut::from(&packet[..length]),
                };
                self.connection.handle_read(packet).unwrap();
            }
            Err(_) => self.connection.handle_timeout(Instant::now()).unwrap(),
        }
    }

    async fn send(&mut self) {
        while let Some(packet) = self.connection.poll_write() {
            self.socket.send_to(&packet.message, packet.transport.peer_addr).await.unwrap();
        }
    }
}
