//! One connection as the signalling sees it: descriptions in and out; what they agree on goes to the engine.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::{Configuration, Remote, Shared};
use crate::engine::{Engine, Key};
use crate::media::{Codec, Profile};
use crate::sdp::{Description, Local, Offered, Section};
use crate::socket::Socket;
use crate::source::SourceConfig;
use crate::stun::Credentials;

/// Simulcast encodings with their share of the bitrate, best first.
const ENCODINGS: [(&str, f64); 3] = [("f", 1.0), ("h", 0.3), ("q", 0.1)];

/// What publishers send.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    pub audio: Option<Profile>,
    pub video: Option<Profile>,
    pub with_simulcast: bool,
}

impl Media {
    pub fn tracks(&self) -> u32 {
        u32::from(self.audio.is_some()) + u32::from(self.video.is_some())
    }

    fn profiles(&self) -> impl Iterator<Item = Profile> {
        self.audio.into_iter().chain(self.video)
    }
}

/// Which room a connection is for.
#[derive(Debug, Clone)]
pub struct Place {
    pub room: u32,
    /// 0, or 1 for the clients of a join storm.
    pub group: usize,
    /// How many clients get what this one sends.
    pub receivers: Arc<AtomicU32>,
    /// Streams that this one will get.
    pub expected_streams: u32,
}

/// Numbers the sources of the process.
static SOURCES: AtomicU32 = AtomicU32::new(0);

pub struct Peer {
    engine: Arc<Engine>,
    key: Key,
    place: Place,
    media: Media,
    local: Local,
    offered: Vec<Offered>,
    /// Whether the first offer was ours: then ICE is ours to control (RFC 8445, section 6.1.1).
    offered_first: Option<bool>,
    /// Who sends the ClientHello does not change any more.
    is_dtls_client: Option<bool>,
    /// What the first answer agreed on; see [`Self::answer_delivered`].
    undelivered: Option<Configuration>,
    pub shared: Arc<Shared>,
}

impl Peer {
    /// # Errors
    /// When no socket can be had.
    pub fn open(engine: &Arc<Engine>, address: Ipv4Addr, place: Place, media: Media) -> io::Result<Self> {
        let socket = Socket::bind(address)?;
        let local = Local {
            credentials: Credentials::generate(),
            fingerprint: engine.identity().fingerprint().to_owned(),
            address: socket.local(),
            version: 0,
        };
        let shared = Arc::new(Shared::default());
        shared.expected_streams.store(place.expected_streams, Ordering::Relaxed);
        let credentials = local.credentials.clone();
        let key = engine.open(socket, credentials, place.room, place.group, Arc::clone(&shared));
        Ok(Self {
            engine: Arc::clone(engine),
            key,
            place,
            media,
            local,
            offered: Vec::new(),
            offered_first: None,
            is_dtls_client: None,
            undelivered: None,
            shared,
        })
    }

    /// An offer to send this client's media.
    pub fn offer_to_send(&mut self) -> String {
        let with_simulcast = self.media.with_simulcast;
        let lines = self.media.profiles().enumerate().map(|(index, profile)| Offered {
            mid: index.to_string(),
            codec: profile.codec,
            ssrc: rand::random(),
            repair_ssrc: rand::random(),
            rids: if with_simulcast && profile.codec != Codec::Opus {
                ENCODINGS.iter().map(|(rid, _)| *rid).collect()
            } else {
                Vec::new()
            },
            sends: true,
        });
        self.offered = lines.collect();
        self.offer()
    }

    /// An offer to receive what one publisher sends (WHEP).
    pub fn offer_to_receive(&mut self) -> String {
        let lines = self.media.profiles().enumerate().map(|(index, profile)| Offered {
            mid: index.to_string(),
            codec: profile.codec,
            ssrc: 0,
            repair_ssrc: 0,
            rids: Vec::new(),
            sends: false,
        });
        self.offered = lines.collect();
        self.offer()
    }

    fn offer(&mut self) -> String {
        self.local.version += 1;
        self.offered_first.get_or_insert(true);
        self.local.offer(&self.offered)
    }

    /// # Errors
    /// What is wrong with the answer.
    pub fn accept_answer(&mut self, answer: &str) -> Result<(), String> {
        let answer = Description::parse(answer)?;
        let is_client = *self.is_dtls_client.get_or_insert(answer.setup != "active");
        let mut sources = Vec::new();
        for line in self.offered.iter().filter(|line| line.sends) {
            let section = answer.sections.iter().find(|section| section.mid == line.mid);
            let Some(section) = section.filter(|it| !it.is_rejected && it.direction.starts_with("recv"))
            else {
                return Err(format!("the server does not take the {:?} track", line.codec));
            };
            sources.extend(self.sources(line, section)?);
        }
        self.engine.configure(self.key, self.configuration(&answer, is_client, sources));
        Ok(())
    }

    /// Accepts everything in the server's offer. [`Self::answer_delivered`] is to follow.
    ///
    /// # Errors
    /// What is wrong with the offer.
    pub fn answer(&mut self, offer: &str) -> Result<String, String> {
        let offer = Description::parse(offer)?;
        self.offered_first.get_or_insert(false);
        let is_first = self.is_dtls_client.is_none();
        // Our answers say `active`.
        let is_client = *self.is_dtls_client.get_or_insert(true);
        self.local.version += 1;
        let configuration = self.configuration(&offer, is_client, Vec::new());
        if is_first {
            self.undelivered = Some(configuration);
        } else {
            // New streams may arrive before the server has said that it has the answer.
            self.engine.configure(self.key, configuration);
        }
        Ok(self.local.answer(&offer, &self.offered))
    }

    /// The server has the answer: the first one starts the connection. A handshake that begins before the server knows
    /// our fingerprint would wait for its first retransmission.
    pub fn answer_delivered(&mut self) {
        if let Some(configuration) = self.undelivered.take() {
            self.engine.configure(self.key, configuration);
        }
    }

    fn sources(&self, line: &Offered, section: &Section) -> Result<Vec<SourceConfig>, String> {
        let (payload_type, repair) = section.payload().ok_or("the answer has no codec")?;
        let profile = self.media.profiles().find(|profile| profile.codec == line.codec);
        let profile = profile.ok_or("the answer is for a codec that was not offered")?;
        let source = |ssrc, repair_ssrc, rid: Option<String>, share: f64| SourceConfig {
            source: SOURCES.fetch_add(1, Ordering::Relaxed),
            room: self.place.room,
            profile: Profile { bitrate_bps: (f64::from(profile.bitrate_bps) * share) as u32, ..profile },
            ssrc,
            payload_type,
            repair: repair.map(|payload_type| (repair_ssrc, payload_type)),
            extensions: section.extensions(),
            mid: line.mid.clone(),
            rid,
            receivers: Arc::clone(&self.place.receivers),
        };
        let taken = section.encodings();
        if taken.is_empty() {
            return Ok(vec![source(line.ssrc, line.repair_ssrc, None, 1.0)]);
        }
        let shares = ENCODINGS.iter().filter(|(rid, _)| taken.iter().any(|taken| taken == rid));
        Ok(shares
            .map(|(rid, share)| source(rand::random(), rand::random(), Some((*rid).to_owned()), *share))
            .collect())
    }

    fn configuration(
        &self,
        remote: &Description,
        is_dtls_client: bool,
        sources: Vec<SourceConfig>,
    ) -> Configuration {
        Configuration {
            remote: Remote {
                credentials: remote.credentials.clone(),
                fingerprint: remote.fingerprint.clone(),
                candidates: remote.candidates.clone(),
                is_controlling: remote.is_lite || self.offered_first == Some(true),
                is_dtls_client,
            },
            sources,
            received: remote.received(),
            repairs: remote.repairs(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.engine.close(self.key);
    }
}
