//! DTLS-SRTP (RFC 5764): one handshake for each endpoint, one certificate for the whole worker.

pub mod hello;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc::dtls::config::{
    ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig, VerifyPeerCertificateFn,
};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::TransportProtocol;
use rtc::shared::error::{Error, Result};
use rtc::srtp::config::LABEL_EXTRACTOR_DTLS_SRTP;
use rtc::srtp::protection_profile::ProtectionProfile;

use super::srtp::{Inbound, Outbound, Profile};

/// The worker's identity: made once, shared by all endpoints.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    /// Makes an ECDSA P-256 key and a self-signed certificate for it.
    ///
    /// # Errors
    /// What the crypto provider answered.
    pub fn generate() -> Result<Self> {
        let provider = rtc::crypto::default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
        let certificate =
            Certificate::generate_self_signed(vec!["switchyard".to_string()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrNonCertificate)?;
        let fingerprint = sha256(provider.as_ref(), der)?;
        Ok(Self { provider, certificate, fingerprint })
    }

    /// The certificate's SHA-256 as `a=fingerprint` has it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn sha256(provider: &dyn RTCCryptoProvider, der: &[u8]) -> Result<String> {
    let hash = provider
        .crypto()
        .hash(HashAlgorithm::Sha256, der)
        .map_err(|error| Error::Crypto(error.to_string()))?;
    Ok(hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// The SHA-256 that the client's SDP announces for its certificate (RFC 8122), as upper-case hex bytes
/// with colons. Browsers and SDKs use SHA-256; the crypto provider has no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub String);

/// Which side starts the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends the ClientHello (`setup:active`).
    Client,
    /// Waits for it (`setup:passive`).
    Server,
}

/// What a datagram or timer brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Nothing,
    /// The handshake is complete; [`Dtls::srtp`] has the keys.
    Connected,
    /// The peer sent close_notify.
    PeerClosed,
    /// The handshake failed and will not recover.
    Failed,
}

/// The packet protection of one connection.
pub struct Srtp {
    pub outbound: Outbound,
    pub inbound: Inbound,
}

/// One endpoint's DTLS association. The path is ICE's business: here it has a fixed made-up name.
pub struct Dtls {
    endpoint: Endpoint,
    role: Role,
    connecting: Option<Arc<HandshakeConfig>>,
    /// For a client that can do AES-GCM; until the first datagram shows whether it can.
    gcm_only: Option<Arc<HandshakeConfig>>,
    srtp: Option<Box<Srtp>>,
    is_connected: bool,
    /// Records with application data, until they are taken.
    received: Vec<BytesMut>,
}

const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Dtls {
    /// Prepares the handshake with a peer whose certificate must match `fingerprint`.
    ///
    /// # Errors
    /// What the DTLS configuration answered.
    pub fn new(identity: &Identity, role: Role, fingerprint: Fingerprint) -> Result<Self> {
        let config = |profiles: &[SrtpProtectionProfile]| -> Result<_> {
            let config = ConfigBuilder::default()
                .with_crypto_provider(identity.provider.clone())
                .with_certificates(vec![identity.certificate.clone()])
                .with_srtp_protection_profiles(profiles.to_vec())
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                // There is no certificate authority to ask: the fingerprint from the signalling is
                // what authenticates the peer (RFC 5763, section 5).
                .with_insecure_skip_verify(true)
                .with_verify_peer_certificate(Some(verifier(identity.provider.clone(), fingerprint.clone())))
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .build(role == Role::Client, None)?;
            Ok(Arc::new(config))
        };
        let any = config(&[GCM, SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])?;
        let (server, connecting, gcm_only) = match role {
            Role::Server => (Some(any), None, Some(config(&[GCM])?)),
            Role::Client => (None, Some(any), None),
        };
        Ok(Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, server),
            role,
            connecting,
            gcm_only,
            srtp: None,
            is_connected: false,
            received: Vec::new(),
        })
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub fn srtp(&mut self) -> Option<&mut Srtp> {
        self.srtp.as_deref_mut()
    }

    /// A path exists: as client, starts the handshake (once).
    pub fn start(&mut self, now: Instant) -> Progress {
        let Some(config) = self.connecting.take() else { return Progress::Nothing };
        match self.endpoint.connect(now, PEER, config, None) {
            Ok(()) => Progress::Nothing,
            Err(_) => Progress::Failed,
        }
    }

    /// Takes a datagram from the peer.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Progress {
        // The client's order would win, and browsers name AES-CM first; AES-GCM costs a third of it.
        if let Some(config) = self.gcm_only.take()
            && hello::offers_gcm(datagram)
        {
            self.endpoint.set_server_config(Some(config));
        }
        let events = match self.endpoint.read(now, PEER, None, BytesMut::from(datagram)) {
            Ok(events) => events,
            // An established association ignores what it cannot read (RFC 6347, section 4.1.2.7).
            Err(_) if self.is_connected => return Progress::Nothing,
            Err(Error::ErrAlertFatalOrClose | Error::ErrNoMatchingCertificateFingerprint) => {
                return Progress::Failed;
            }
            Err(_) => return Progress::Nothing,
        };
        let mut progress = Progress::Nothing;
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let keys = self.endpoint.get_connection_state(PEER).map(derive);
                    match keys {
                        Some(Ok(srtp)) => {
                            self.srtp = Some(Box::new(srtp));
                            self.is_connected = true;
                            progress = Progress::Connected;
                        }
                        _ => return Progress::Failed,
                    }
                }
                EndpointEvent::ApplicationData(record) => self.received.push(record),
                EndpointEvent::PeerClosed => return Progress::PeerClosed,
                _ => {}
            }
        }
        progress
    }

    /// The application data of the last datagram.
    pub fn take_received(&mut self) -> Vec<BytesMut> {
        std::mem::take(&mut self.received)
    }

    /// Queues a record of application data. Before the handshake is complete there is none.
    pub fn send(&mut self, now: Instant, data: &[u8]) {
        if self.is_connected {
            // What an association on its way down does not take is lost, as on the network.
            let _ = self.endpoint.write(now, PEER, data);
        }
    }

    /// Repeats what was not answered.
    pub fn handle_timeout(&mut self, now: Instant) -> Progress {
        if self.poll_timeout().is_some_and(|due| due <= now)
            && self.endpoint.handle_timeout(PEER, now).is_err()
            && !self.is_connected
        {
            return Progress::Failed;
        }
        Progress::Nothing
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&PEER)
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// Queues close_notify (RFC 5246, section 7.2.1).
    pub fn close(&mut self, now: Instant) {
        // Nothing can be done about a farewell that cannot be said.
        let _ = self.endpoint.close(now);
    }
}

/// The packet keys that a finished handshake agreed on (RFC 5764, section 4.2).
fn derive(state: &State) -> Result<Srtp> {
    let (profile, named) = match state.srtp_protection_profile() {
        GCM => (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
            (Profile::Aes128CmHmacSha1_80, ProtectionProfile::Aes128CmHmacSha1_80)
        }
        _ => return Err(Error::ErrNoSuchSrtpProfile),
    };
    let mut config = rtc::srtp::config::Config { profile: named, ..Default::default() };
    let material =
        state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
    config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
    let keys = &config.keys;
    let refused = |_| Error::Crypto("the srtp keys are unusable".to_string());
    Ok(Srtp {
        outbound: Outbound::new(profile, &keys.local_master_key, &keys.local_master_salt).map_err(refused)?,
        inbound: Inbound::new(profile, &keys.remote_master_key, &keys.remote_master_salt).map_err(refused)?,
    })
}

fn verifier(provider: Arc<dyn RTCCryptoProvider>, expected: Fingerprint) -> VerifyPeerCertificateFn {
    Arc::new(move |certificates, _| {
        let der = certificates.first().ok_or(Error::ErrNonCertificate)?;
        if sha256(provider.as_ref(), der)? == expected.0 {
            Ok(())
        } else {
            Err(Error::ErrNoMatchingCertificateFingerprint)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(expected: impl Fn(&Identity) -> String) -> (Dtls, Dtls) {
        let (client, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let print = |of: &Identity| Fingerprint(expected(of));
        (
            Dtls::new(&client, Role::Client, print(&server)).unwrap(),
            Dtls::new(&server, Role::Server, print(&client)).unwrap(),
        )
    }

    /// Carries datagrams until nobody has any or one has failed; what either side saw last.
    fn run(now: Instant, client: &mut Dtls, server: &mut Dtls) -> (Progress, Progress) {
        let mut seen = (Progress::Nothing, Progress::Nothing);
        loop {
            let mut moved = false;
            while let Some(datagram) = client.poll_transmit() {
                moved = true;
                let progress = server.handle_datagram(now, &datagram);
                if progress != Progress::Nothing {
                    seen.1 = progress;
                }
            }
            while let Some(datagram) = server.poll_transmit() {
                moved = true;
                let progress = client.handle_datagram(now, &datagram);
                if progress != Progress::Nothing {
                    seen.0 = progress;
                }
            }
            if !moved || seen.0 == Progress::Failed || seen.1 == Progress::Failed {
                return seen;
            }
        }
    }

    #[test]
    fn connects_protects_packets_and_says_goodbye() {
        let now = Instant::now();
        let (mut client, mut server) = pair(|of| of.fingerprint().to_string());
        assert_eq!(client.start(now), Progress::Nothing);
        assert_eq!(run(now, &mut client, &mut server), (Progress::Connected, Progress::Connected));
        let profile = server.endpoint.get_connection_state(PEER).unwrap().srtp_protection_profile();
        assert_eq!(profile, GCM);
        let plain = [0x80, 96, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 1, 2, 3];
        let outbound = &client.srtp().unwrap().outbound;
        let mut sealed = plain.to_vec();
        sealed.resize(plain.len() + outbound.overhead(), 0);
        outbound.seal_rtp(&mut sealed, 12, 7, 1).unwrap();
        let inbound = &mut server.srtp().unwrap().inbound;
        let mut opened = sealed.clone();
        assert_eq!(inbound.open_rtp(&mut opened), Some(plain.len()));
        assert_eq!(opened[..plain.len()], plain);
        assert_eq!(inbound.open_rtp(&mut sealed), None, "a replay is refused");
        client.close(now);
        assert_eq!(run(now, &mut client, &mut server).1, Progress::PeerClosed);
    }

    #[test]
    fn another_certificate_than_the_signalled_one_fails() {
        let now = Instant::now();
        let (mut client, mut server) = pair(|_| "00:".repeat(31) + "00");
        client.start(now);
        let seen = run(now, &mut client, &mut server);
        assert!(seen.0 == Progress::Failed || seen.1 == Progress::Failed, "{seen:?}");
        assert!(!client.is_connected() && !server.is_connected());
    }

    #[test]
    fn junk_neither_connects_nor_disturbs() {
        let now = Instant::now();
        let (mut client, mut server) = pair(|of| of.fingerprint().to_string());
        for length in 0..80u8 {
            assert_eq!(server.handle_datagram(now, &vec![22; usize::from(length)]), Progress::Nothing);
        }
        client.start(now);
        assert_eq!(run(now, &mut client, &mut server), (Progress::Connected, Progress::Connected));
    }
}
