//! A small WebRTC client for load: its own socket, ICE checks, webrtc-rs's DTLS and SRTP, and next to no
//! cost of its own, so that hundreds fit beside the server that is measured.
//!
//! It takes whatever the server offers, or publishes one VP8 and one Opus track.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use rtc::crypto::{HashAlgorithm, HmacAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::srtp::config::LABEL_EXTRACTOR_DTLS_SRTP;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// Certificate and DTLS settings, the same for all clients.
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    config: Arc<HandshakeConfig>,
    fingerprint: String,
}

impl Identity {
    /// `gcm`: offers AES-GCM before AES-CM, else AES-CM only.
    pub fn new(gcm: bool) -> Self {
        let provider = rtc::crypto::default_provider().expect("a crypto provider is compiled in");
        let certificate = Certificate::generate_self_signed(vec!["load".to_string()], provider.crypto())
            .expect("a certificate");
        let hash =
            provider.crypto().hash(HashAlgorithm::Sha256, &certificate.certificate[0]).expect("a hash");
        let fingerprint = hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        let cm = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
        let profiles = if gcm { vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, cm] } else { vec![cm] };
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&provider))
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(profiles)
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_insecure_skip_verify(true)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(true, None)
            .expect("a DTLS configuration");
        Self { provider, config: Arc::new(config), fingerprint }
    }
}

/// Transport-wide numbers that were not told yet, in a row, and when they came.
#[derive(Default)]
struct Noted {
    first: u16,
    /// In 64 ms.
    reference: u32,
    /// Of each after the one before, and when the last one came, in 250 µs.
    deltas: Vec<u8>,
    last: u64,
}

/// One connection.
pub struct Client {
    pub socket: UdpSocket,
    identity: Arc<Identity>,
    server: SocketAddr,
    local: (String, String),
    remote: (String, String),
    dtls: Endpoint,
    outbound: Option<Context>,
    inbound: Option<Context>,
    reporter: u32,
    next_check: Instant,
    next_report: Instant,
    next_feedback: Instant,
    began: Instant,
    noted: Noted,
    is_checked: bool,
    /// Media packets that arrived.
    pub received: u64,
    /// When the first one did.
    pub first_media: Option<Instant>,
    /// A sealed media packet, to be replayed by floods.
    pub last_sealed: Vec<u8>,
}

impl Client {
    pub fn new(identity: &Arc<Identity>, server: SocketAddr, number: u32) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            identity: Arc::clone(identity),
            server,
            local: (format!("load{number}"), format!("thepasswordofclient{number:08}")),
            remote: Default::default(),
            dtls: Endpoint::new(PEER, TransportProtocol::UDP, None),
            outbound: None,
            inbound: None,
            reporter: 0x1000_0000 | number,
            next_check: Instant::now(),
            next_report: Instant::now() + REPORT_INTERVAL,
            next_feedback: Instant::now() + FEEDBACK_INTERVAL,
            began: Instant::now(),
            noted: Noted::default(),
            is_checked: false,
            received: 0,
            first_media: None,
            last_sealed: Vec::new(),
        })
    }

    /// The offer of a publisher: Opus as SSRC 5, VP8 as SSRC 11.
    pub fn offer(&self) -> String {
        let (fragment, password) = &self.local;
        let fingerprint = &self.identity.fingerprint;
        format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:{fragment}\r\n\
             a=ice-pwd:{password}\r\na=setup:actpass\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n\
             a=rtpmap:111 opus/48000/2\r\na=ssrc:{AUDIO_SSRC} cname:x\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\n\
             a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
             a=ssrc-group:FID {VIDEO_SSRC} 12\r\na=ssrc:{VIDEO_SSRC} cname:x\r\n"
        )
    }

    /// The answer that takes everything a server's offer has.
    pub fn answer(&self, offer: &str) -> String {
        let mut answer = String::with_capacity(offer.len());
        for line in offer.lines() {
            let kept = match line.split_once(':').map_or(line, |it| it.0) {
                "a=candidate"
                | "a=end-of-candidates"
                | "a=ssrc"
                | "a=ssrc-group"
                | "a=msid"
                | "a=ice-lite" => {
                    continue;
                }
                "a=setup" => "a=setup:active".to_string(),
                "a=ice-ufrag" => format!("a=ice-ufrag:{}", self.local.0),
                "a=ice-pwd" => format!("a=ice-pwd:{}", self.local.1),
                "a=fingerprint" => format!("a=fingerprint:sha-256 {}", self.identity.fingerprint),
                "a=sendonly" => "a=recvonly".to_string(),
                _ => line.to_string(),
            };
            answer.push_str(&kept);
            answer.push_str("\r\n");
        }
        answer
    }

    /// Takes the server's credentials from its offer or answer.
    pub fn learn(&mut self, description: &str) {
        let value = |name: &str| {
            description.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_string()
        };
        self.remote = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        self.next_check = Instant::now();
    }

    pub fn is_connected(&self) -> bool {
        self.outbound.is_some()
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Takes a datagram. A media packet is opened only if `open`; then its payload is returned.
    pub fn handle(&mut self, now: Instant, datagram: &[u8], open: bool) -> Option<BytesMut> {
        match datagram.first() {
            Some(0..=3) if !self.is_checked => {
                self.is_checked = true;
                let config = Arc::clone(&self.identity.config);
                self.dtls.connect(now, PEER, config, None).expect("a handshake begins");
            }
            Some(20..=63) => self.handle_dtls(now, datagram),
            Some(128..=191) if !matches!(datagram.get(1), Some(192..=223)) => {
                self.received += 1;
                self.note_number(now, datagram);
                self.first_media.get_or_insert(now);
                if open {
                    let opened = self.inbound.as_mut()?.decrypt_rtp(datagram).ok()?;
                    self.flush();
                    return Some(opened);
                }
            }
            _ => {}
        }
        self.flush();
        None
    }

    /// Notes the transport-wide number of a packet, the only element of its only header extension, and when it came.
    fn note_number(&mut self, now: Instant, datagram: &[u8]) {
        let has_extension = datagram[0] & 0x10 != 0;
        let Some(number) = datagram.get(17..19).filter(|_| has_extension) else { return };
        let number = u16::from_be_bytes([number[0], number[1]]);
        let at = (now.duration_since(self.began).as_micros() / 250) as u64;
        let follows = |noted: &Noted| number.wrapping_sub(noted.first) == noted.deltas.len() as u16;
        let noted = &mut self.noted;
        if noted.deltas.is_empty() || !follows(noted) {
            // What was lost or overtaken is not told; that is enough to keep the server's estimate at work.
            noted.deltas.clear();
            (noted.first, noted.reference) = (number, (at / 256) as u32);
            noted.last = at / 256 * 256;
        }
        noted.deltas.push((at - noted.last).min(255) as u8);
        noted.last = at;
    }

    /// Tells of the numbered packets: all of them arrived, and when.
    fn send_feedback(&mut self) {
        let mut noted = std::mem::take(&mut self.noted);
        if noted.deltas.is_empty() {
            return;
        }
        let count = noted.deltas.len() as u16;
        let mut feedback = vec![0x8f, 205, 0, 0];
        feedback.extend(self.reporter.to_be_bytes());
        feedback.extend([0; 4]);
        feedback.extend(noted.first.to_be_bytes());
        feedback.extend(count.to_be_bytes());
        feedback.extend(&noted.reference.to_be_bytes()[1..]);
        feedback.push(0);
        // One run of small deltas, in units of 250 µs.
        feedback.extend((0x2000 | count).to_be_bytes());
        feedback.extend(&noted.deltas);
        feedback.resize(feedback.len().next_multiple_of(4), 0);
        let words = (feedback.len() / 4 - 1) as u16;
        feedback[2..4].copy_from_slice(&words.to_be_bytes());
        self.send_rtcp(&feedback);
        noted.deltas.clear();
        self.noted = noted;
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(events) = self.dtls.read(now, PEER, None, BytesMut::from(datagram)) else { return };
        if events.into_iter().any(|event| matches!(event, EndpointEvent::HandshakeComplete)) {
            let state = self.dtls.get_connection_state(PEER).expect("a finished handshake has a state");
            let profile = match state.srtp_protection_profile() {
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
                _ => ProtectionProfile::Aes128CmHmacSha1_80,
            };
            let mut config = rtc::srtp::config::Config { profile, ..Default::default() };
            let material = state
                .export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())
                .expect("keys");
            config
                .set_session_keys_from_keying_material(material.as_ref(), state.is_client())
                .expect("keys of the right length");
            let (keys, crypto) = (&config.keys, self.identity.provider.crypto());
            let context = |key: &[u8], salt: &[u8]| {
                Context::new(key, salt, profile, None, None, crypto).expect("an SRTP context")
            };
            self.outbound = Some(context(&keys.local_master_key, &keys.local_master_salt));
            self.inbound = Some(context(&keys.remote_master_key, &keys.remote_master_salt));
        }
    }

    /// Checks, repeats and reports what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.remote.0.is_empty() && self.next_check <= now {
            // Until the first answer more often, as browsers do.
            self.next_check = now + if self.is_checked { CHECK_INTERVAL } else { Duration::from_millis(50) };
            let user = format!("{}:{}", self.remote.0, self.local.0);
            let check = check(&user, &self.remote.1, self.identity.provider.as_ref());
            self.send(&check);
        }
        if self.dtls.poll_timeout(&PEER).is_some_and(|due| due <= now) {
            // A handshake that fails shows as media that never comes.
            let _ = self.dtls.handle_timeout(PEER, now);
        }
        if self.next_report <= now && self.outbound.is_some() {
            self.next_report = now + REPORT_INTERVAL;
            let mut report = vec![0x80, 201, 0, 1];
            report.extend(self.reporter.to_be_bytes());
            self.send_rtcp(&report);
        }
        if self.next_feedback <= now && self.outbound.is_some() {
            self.next_feedback = now + FEEDBACK_INTERVAL;
            self.send_feedback();
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.dtls.poll_transmit() {
            self.send(&transmit.message);
        }
    }

    fn send(&self, datagram: &[u8]) {
        // A full buffer is a loss like any other.
        let _ = self.socket.send_to(datagram, self.server);
    }

    fn send_rtcp(&mut self, compound: &[u8]) {
        if let Some(sealed) = self.outbound.as_mut().and_then(|srtp| srtp.encrypt_rtcp(compound).ok()) {
            self.send(&sealed);
        }
    }

    /// Seals and sends an RTP packet.
    pub fn send_rtp(&mut self, packet: &[u8]) {
        if let Some(sealed) = self.outbound.as_mut().and_then(|srtp| srtp.encrypt_rtp(packet).ok()) {
            self.send(&sealed);
            self.last_sealed.clear();
            self.last_sealed.extend_from_slice(&sealed);
        }
    }
}

pub const AUDIO_SSRC: u32 = 5;
pub const VIDEO_SSRC: u32 = 11;

/// A nominating ICE check (RFC 8445, section 7.2.5).
pub fn check(user: &str, password: &str, provider: &dyn RTCCryptoProvider) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u16(0x0001);
    out.put_u16(0);
    out.put_u32(0x2112_a442);
    let transaction =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_nanos());
    out.put_slice(&transaction.to_be_bytes()[4..]);
    let padded = user.len().next_multiple_of(4);
    out.put_u16(0x0006);
    out.put_u16(user.len() as u16);
    out.put_slice(user.as_bytes());
    out.resize(out.len() + padded - user.len(), 0);
    out.put_u16(0x0025);
    out.put_u16(0);
    let length = (out.len() - 20 + 24) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let mut integrity = [0; 20];
    provider
        .crypto()
        .new_hmac(HmacAlgorithm::Sha1, password.as_bytes())
        .and_then(|mut hmac| hmac.sign(&[&out], &mut integrity))
        .expect("an HMAC");
    out.put_u16(0x0008);
    out.put_u16(20);
    out.put_slice(&integrity);
    out
}

/// Datagrams of strangers and of peers that repeat themselves.
pub fn stranger_check(identity: &Identity, fragment: &str) -> Vec<u8> {
    check(&format!("{fragment}:stranger"), "not the password", identity.provider.as_ref())
}
