//! DTLS-SRTP of a client (RFC 5764), on webrtc-rs' parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;

/// What all clients of one run share: making a certificate for each would only cost time.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    /// # Errors
    /// What the crypto provider answered.
    pub fn generate() -> Result<Self> {
        let provider = rtc::crypto::default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["load".to_string()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrNonCertificate)?;
        let fingerprint = sha256(provider.as_ref(), der)?;
        Ok(Self { provider, certificate, fingerprint })
    }

    pub fn provider(&self) -> &dyn RTCCryptoProvider {
        self.provider.as_ref()
    }

    /// As `a=fingerprint:sha-256` has it.
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

/// Which SRTP profiles a client offers, in this order. With AES-GCM first both sides use their cheapest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ciphers {
    /// AEAD_AES_128_GCM, then AES128_CM_HMAC_SHA1_80
    #[default]
    GcmFirst,
    /// The other way round, as browsers have it
    CmFirst,
    /// Only AES128_CM_HMAC_SHA1_80
    Cm,
}

impl Ciphers {
    fn profiles(self) -> Vec<SrtpProtectionProfile> {
        match self {
            Self::GcmFirst => vec![GCM, CM],
            Self::CmFirst => vec![CM, GCM],
            Self::Cm => vec![CM],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Nothing,
    /// [`Dtls::take_srtp`] has the keys.
    Connected,
    Closed,
    Failed,
}

/// The packet protection of one connection.
pub struct Srtp {
    pub outbound: Context,
    pub inbound: Context,
    pub profile: &'static str,
}

/// One client's association. Which path its datagrams take is not its business.
pub struct Dtls {
    endpoint: Endpoint,
    connecting: Option<Arc<HandshakeConfig>>,
    provider: Arc<dyn RTCCryptoProvider>,
    srtp: Option<Box<Srtp>>,
    is_connected: bool,
}

/// A flight that is not answered is repeated after this long, seven times. Browsers begin at 50 ms and double it; webrtc-rs
/// has one interval, which must leave a server under load the time for its handshakes.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(400);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Dtls {
    /// `is_client`: sends the ClientHello (`setup:active`). `fingerprint` is the server's, by its SDP.
    ///
    /// # Errors
    /// What the DTLS configuration answered.
    pub fn new(identity: &Identity, is_client: bool, fingerprint: String, ciphers: Ciphers) -> Result<Self> {
        let config = ConfigBuilder::default()
            .with_crypto_provider(identity.provider.clone())
            .with_certificates(vec![identity.certificate.clone()])
            .with_srtp_protection_profiles(ciphers.profiles())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // The fingerprint from the signalling authenticates the peer (RFC 5763, section 5).
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(verifier(identity.provider.clone(), fingerprint)))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(FLIGHT_INTERVAL)
            .build(is_client, None)?;
        let config = Arc::new(config);
        let (server, connecting) = if is_client { (None, Some(config)) } else { (Some(config), None) };
        Ok(Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, server),
            connecting,
            provider: identity.provider.clone(),
            srtp: None,
            is_connected: false,
        })
    }

    /// As client: not started yet.
    pub fn is_starting(&self) -> bool {
        self.connecting.is_some()
    }

    /// A path exists: as client, starts the handshake, once.
    pub fn start(&mut self, now: Instant) -> Progress {
        let Some(config) = self.connecting.take() else { return Progress::Nothing };
        match self.endpoint.connect(now, PEER, config, None) {
            Ok(()) => Progress::Nothing,
            Err(_) => Progress::Failed,
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Progress {
        let events = match self.endpoint.read(now, PEER, None, BytesMut::from(datagram)) {
            Ok(events) => events,
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
                    let keys = self.endpoint.get_connection_state(PEER).map(|state| self.derive(state));
                    let Some(Ok(srtp)) = keys else { return Progress::Failed };
                    self.srtp = Some(Box::new(srtp));
                    self.is_connected = true;
                    progress = Progress::Connected;
                }
                EndpointEvent::PeerClosed => return Progress::Closed,
                _ => {}
            }
        }
        progress
    }

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

    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// Queues close_notify.
    pub fn close(&mut self, now: Instant) {
        let _ = self.endpoint.close(now);
    }

    pub fn take_srtp(&mut self) -> Option<Box<Srtp>> {
        self.srtp.take()
    }

    fn derive(&self, state: &State) -> Result<Srtp> {
        let (profile, name) = match state.srtp_protection_profile() {
            GCM => (ProtectionProfile::AeadAes128Gcm, "AEAD_AES_128_GCM"),
            CM => (ProtectionProfile::Aes128CmHmacSha1_80, "AES128_CM_HMAC_SHA1_80"),
            _ => return Err(Error::ErrNoSuchSrtpProfile),
        };
        let mut config = rtc::srtp::config::Config { profile, ..Default::default() };
        let material =
            state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
        let keys = &config.keys;
        let context = |key: &[u8], salt: &[u8]| {
            // No replay window: receivers count duplicates themselves.
            Context::new(key, salt, profile, None, None, self.provider.crypto())
        };
        Ok(Srtp {
            outbound: context(&keys.local_master_key, &keys.local_master_salt)?,
            inbound: context(&keys.remote_master_key, &keys.remote_master_salt)?,
            profile: name,
        })
    }
}

fn verifier(provider: Arc<dyn RTCCryptoProvider>, expected: String) -> VerifyPeerCertificateFn {
    Arc::new(move |certificates, _| {
        let der = certificates.first().ok_or(Error::ErrNonCertificate)?;
        if sha256(provider.as_ref(), der)?.eq_ignore_ascii_case(&expected) {
            Ok(())
        } else {
            Err(Error::ErrNoMatchingCertificateFingerprint)
        }
    })
}
