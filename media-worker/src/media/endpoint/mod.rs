//! One endpoint: a client's connection with everything that belongs to it.
//!
//! Without I/O and clock: the media thread brings datagrams, requests and `now`, and carries out what
//! comes back. Endpoints know nothing of each other; the pipeline's [`sfu::Session`] is between them.
//!
//! | module | does |
//! |---|---|
//! | [`lines`] | the m-lines: which one receives or sends what |
//! | [`offer`] | a client's offer: validate, plan, apply, answer |
//! | [`serve`] | the server's offer and the client's answer to it |
//! | [`media`] | RTP and RTCP of those m-lines |

pub mod lines;
mod media;
pub mod offer;
mod serve;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::message::Candidate;
use common::model::{EndpointId, ParticipantId, Track, TrackId};
use sfu::{Session, SubscriptionId};

use super::codecs::Numbering;
use super::negotiation::{Negotiation, Refusal};
use super::pipeline::{Outgoing, Pipeline};
use super::sdp::{Setup, write};
use super::transport::dtls::{Dtls, Fingerprint, Identity, Progress, Role};
use super::transport::ice::{Agent, Credentials, Restart};
use super::transport::{self, Datagrams, Kind, Path, stun};
use super::{CloseCause, ConnectionState, MediaConfig, MediaError, OpenEndpoint};
use lines::Line;
pub use lines::SourceTrack;
pub use media::Received;

/// From the first complete exchange of descriptions to a finished DTLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Candidates that one endpoint may bring in its life.
const MAX_CANDIDATES: usize = 1000;
/// The longest candidate that is looked at, in bytes.
const MAX_CANDIDATE: usize = 1024;

/// What the datagrams and timers of an endpoint bring about, collected for the media thread.
#[derive(Default)]
pub struct Effects {
    pub transmits: Datagrams,
    pub received: Vec<Received>,
    pub states: Vec<ConnectionState>,
    pub bound: Vec<Path>,
    pub forgotten: Vec<Path>,
    /// Packets were asked for again: the endpoint is to be flushed.
    pub repairs: bool,
    /// Fragments under which this endpoint is no longer reached.
    pub retired: Vec<String>,
    /// Datagrams or packets that could not be used.
    pub drops: u64,
}

/// How the connection stands, beyond what DTLS says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// No complete exchange of descriptions yet.
    New,
    Connecting {
        deadline: Instant,
    },
    Connected,
    /// Silent; closed at `deadline`.
    Disconnected {
        deadline: Instant,
    },
    Closed,
}

pub struct Endpoint {
    pub id: EndpointId,
    pub participant_id: ParticipantId,
    can_publish: bool,
    can_subscribe: bool,
    disconnected_after: Duration,
    grace: Duration,
    negotiation: Negotiation,
    sdp_id: u64,
    sdp_version: u64,
    ice: Agent,
    dtls: Option<Dtls>,
    fingerprint: Option<Fingerprint>,
    life: Life,
    last_received: Instant,
    lines: Vec<Line>,
    next_mid: u32,
    numbering: Numbering,
    /// Tracks that this client does not want: it rejected or stopped their m-lines.
    declined: HashSet<TrackId>,
    streams: media::Streams,
    /// Sent SSRC to m-line, for feedback.
    senders: HashMap<u32, usize>,
    /// Packets that go out when the batch that brought them is complete; kept for its memory.
    outbox: Vec<Outgoing>,
    /// Packets that the client asked for again: m-line and number.
    repairs: Vec<(usize, sfu::Sequence)>,
    candidates: usize,
    candidates_sent: bool,
    fault: bool,
}

impl Endpoint {
    /// `shard`: the media thread that it lives on.
    pub fn new(now: Instant, open: &OpenEndpoint, config: &MediaConfig, shard: usize) -> Self {
        Self {
            id: open.endpoint_id,
            participant_id: open.participant_id,
            can_publish: open.can_publish,
            can_subscribe: open.can_subscribe,
            disconnected_after: config.disconnected_after,
            grace: config.grace,
            negotiation: Negotiation::new(config.offer_interval, open.server_offers),
            // RFC 8829, section 5.2.1: below 2^62.
            sdp_id: rand::random::<u64>() >> 2,
            sdp_version: 0,
            ice: Agent::new(shard),
            dtls: None,
            fingerprint: None,
            life: Life::New,
            last_received: now,
            lines: Vec::new(),
            next_mid: 0,
            numbering: Numbering::default(),
            declined: HashSet::new(),
            streams: media::Streams::new(now),
            senders: HashMap::new(),
            outbox: Vec::new(),
            repairs: Vec::new(),
            candidates: 0,
            candidates_sent: false,
            fault: false,
        }
    }

    /// The fragments under which this endpoint's checks arrive.
    pub fn fragments(&self) -> impl Iterator<Item = &str> {
        self.ice.fragments()
    }

    /// The paths that are bound to this endpoint.
    pub fn paths(&self) -> &[Path] {
        self.ice.paths()
    }

    pub fn is_closed(&self) -> bool {
        self.life == Life::Closed
    }

    pub fn negotiation(&mut self) -> &mut Negotiation {
        &mut self.negotiation
    }

    /// All published tracks.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.lines.iter().filter_map(|line| Some(&line.receiving()?.published.as_ref()?.track))
    }

    /// All published tracks as their subscribers need to know them.
    pub fn source_tracks(&self) -> Vec<SourceTrack> {
        let source = |line: &Line| {
            let receiving = line.receiving()?;
            let published = receiving.published.as_ref()?;
            Some(SourceTrack {
                track_id: published.track.id,
                participant_id: self.participant_id,
                kind: published.track.kind,
                source: published.track.source,
                codec: receiving.payload.codec,
                extensions: receiving.extensions,
                publication: published.publication,
                muted: published.track.muted,
            })
        };
        self.lines.iter().filter_map(source).collect()
    }

    /// The subscriptions of this endpoint, with the m-line that carries each.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, usize)> {
        self.lines
            .iter()
            .enumerate()
            .filter_map(|(index, line)| Some((line.sending()?.carried.as_ref()?.subscription, index)))
    }

    /// Stops or resumes the forwarding of a published track.
    pub fn set_muted(
        &mut self,
        now: Instant,
        track_id: TrackId,
        muted: bool,
        session: &mut Session,
    ) -> Result<Track, MediaError> {
        let published = self
            .lines
            .iter_mut()
            .filter_map(|line| line.receiving_mut()?.published.as_mut())
            .find(|published| published.track.id == track_id)
            .ok_or(MediaError::TrackNotFound)?;
        published.track.muted = muted;
        session.set_muted(now, published.publication, muted);
        Ok(published.track.clone())
    }

    /// Checks trickled candidates. None is needed: an ICE-lite agent answers checks and sends none, so
    /// the client's addresses show themselves (RFC 8445, section 7.3.1.3).
    pub fn add_candidates(&mut self, candidates: &[Candidate]) -> Result<(), MediaError> {
        if self.candidates.saturating_add(candidates.len()) > MAX_CANDIDATES {
            return Err(MediaError::LimitExceeded("candidates"));
        }
        candidates.iter().try_for_each(check_candidate)?;
        self.candidates += candidates.len();
        Ok(())
    }

    /// The server's candidates for the client, once, after the first description went out.
    pub fn take_candidates(&mut self, announced: &[SocketAddr]) -> Option<Vec<Candidate>> {
        let first = self.lines.first()?;
        if std::mem::replace(&mut self.candidates_sent, true) {
            return None;
        }
        let wrap = |candidate: String| Candidate {
            candidate,
            sdp_mid: Some(first.mid.clone()),
            sdp_m_line_index: Some(0),
            username_fragment: Some(self.ice.local().fragment.clone()),
        };
        let mut candidates: Vec<_> = announced
            .iter()
            .enumerate()
            .map(|(index, address)| wrap(write::candidate(index, *address)))
            .collect();
        candidates.push(wrap(String::new()));
        Some(candidates)
    }

    /// Takes a datagram from a bound path, or a STUN request under one of this endpoint's fragments.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &mut [u8],
        pipeline: &mut Pipeline,
        effects: &mut Effects,
    ) {
        assert!(!self.fault, "injected fault");
        match transport::kind(datagram) {
            Kind::Stun => self.handle_stun(now, path, datagram, effects),
            Kind::Dtls => {
                let Some(dtls) = &mut self.dtls else {
                    effects.drops += 1;
                    return;
                };
                let progress = dtls.handle_datagram(now, datagram);
                self.handle_progress(now, progress, &mut pipeline.session, effects);
            }
            Kind::Rtp => self.handle_rtp(now, datagram, pipeline, effects),
            Kind::Other => effects.drops += 1,
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8], effects: &mut Effects) {
        let checked =
            stun::Request::parse(datagram).and_then(|request| self.ice.handle_check(path, &request));
        let Some(checked) = checked else {
            effects.drops += 1;
            return;
        };
        self.seen(now, effects);
        effects.transmits.push(path, checked.response.as_bytes());
        effects.bound.extend(checked.bound.then_some(path));
        effects.forgotten.extend(checked.forgotten);
        effects.retired.extend(checked.retired);
        if checked.selected
            && let Some(dtls) = &mut self.dtls
        {
            dtls.start(now);
            self.flush_dtls(effects);
        }
    }

    /// Something authentic arrived.
    fn seen(&mut self, now: Instant, effects: &mut Effects) {
        self.last_received = now;
        if matches!(self.life, Life::Disconnected { .. }) {
            self.life = Life::Connected;
            effects.states.push(ConnectionState::Connected);
        }
    }

    fn handle_progress(
        &mut self,
        now: Instant,
        progress: Progress,
        session: &mut Session,
        effects: &mut Effects,
    ) {
        self.flush_dtls(effects);
        match progress {
            Progress::Nothing => {}
            Progress::Connected => {
                self.last_received = now;
                self.life = Life::Connected;
                effects.states.push(ConnectionState::Connected);
                self.activate(now, session);
            }
            Progress::PeerClosed => self.end(CloseCause::PeerClosed, effects),
            Progress::Failed => self.end(CloseCause::ConnectFailed, effects),
        }
    }

    fn end(&mut self, cause: CloseCause, effects: &mut Effects) {
        if self.life != Life::Closed {
            self.life = Life::Closed;
            effects.states.push(ConnectionState::Closed(cause));
        }
    }

    fn flush_dtls(&mut self, effects: &mut Effects) {
        let (Some(dtls), Some(path)) = (&mut self.dtls, self.ice.selected()) else { return };
        while let Some(datagram) = dtls.poll_transmit() {
            effects.transmits.push(path, &datagram);
        }
    }

    /// Says goodbye. The endpoint is dropped afterwards.
    pub fn close(&mut self, now: Instant, effects: &mut Effects) {
        self.life = Life::Closed;
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.flush_dtls(effects);
    }

    pub fn handle_timeout(&mut self, now: Instant, session: &mut Session, effects: &mut Effects) {
        if let Some(dtls) = &mut self.dtls {
            let progress = dtls.handle_timeout(now);
            self.handle_progress(now, progress, session, effects);
        }
        match self.life {
            Life::Connecting { deadline } if deadline <= now => self.end(CloseCause::ConnectFailed, effects),
            Life::Connected if self.last_received + self.disconnected_after <= now => {
                self.life = Life::Disconnected { deadline: now + self.grace };
                effects.states.push(ConnectionState::Disconnected);
            }
            Life::Disconnected { deadline } if deadline <= now => self.end(CloseCause::GraceExpired, effects),
            _ => {}
        }
        if !self.is_closed() {
            self.handle_media_timeout(now, effects);
        }
    }

    /// When [`Endpoint::handle_timeout`] has something to do, or an offer is due.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let life = match self.life {
            Life::New | Life::Closed => None,
            Life::Connecting { deadline } | Life::Disconnected { deadline } => Some(deadline),
            Life::Connected => Some(self.last_received + self.disconnected_after),
        };
        let dtls = self.dtls.as_ref().and_then(Dtls::poll_timeout);
        [life, dtls, self.negotiation.poll_timeout(now), self.poll_media_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Test hook: the next datagram panics.
    pub fn inject_fault(&mut self) {
        self.fault = true;
    }

    /// Takes the transport part of an accepted description. `dtls` is given for the first one.
    fn set_transport(
        &mut self,
        now: Instant,
        credentials: Credentials,
        fingerprint: Fingerprint,
        dtls: Option<Dtls>,
        effects: &mut Effects,
    ) {
        self.fingerprint = Some(fingerprint);
        if let Some(mut dtls) = dtls {
            if self.ice.selected().is_some() {
                dtls.start(now);
            }
            self.dtls = Some(dtls);
            self.life = Life::Connecting { deadline: now + CONNECT_TIMEOUT };
            self.flush_dtls(effects);
        }
        if let Restart::Yes { retired } = self.ice.set_remote(credentials) {
            effects.retired.extend(retired);
            if let Life::Disconnected { deadline } = &mut self.life {
                *deadline = now + self.grace;
            }
        }
    }

    /// Prepares the handshake for the first description; `None` when it is running already.
    fn prepare_dtls(
        &self,
        fingerprint: &Fingerprint,
        role: Role,
        identity: &Identity,
    ) -> Result<Option<Dtls>, MediaError> {
        match &self.fingerprint {
            Some(known) if known != fingerprint => {
                Err(MediaError::InvalidSdp("the fingerprint changed; a new connection must rejoin".into()))
            }
            Some(_) => Ok(None),
            None => Dtls::new(identity, role, fingerprint.clone())
                .map(Some)
                .map_err(|error| MediaError::InvalidSdp(format!("dtls: {error}"))),
        }
    }

    fn answer_setup(&self) -> Setup {
        match self.dtls.as_ref().map(Dtls::role) {
            Some(Role::Client) => Setup::Active,
            _ => Setup::Passive,
        }
    }
}

impl From<Refusal> for MediaError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Collision => Self::OfferCollision,
            Refusal::NoOfferPending => Self::NoOfferPending,
        }
    }
}

/// RFC 8839, section 5.1: `candidate:` foundation component transport priority address port `typ` type.
/// The address may be a name (mDNS) and is not looked at; an empty text is the end of candidates.
fn check_candidate(candidate: &Candidate) -> Result<(), MediaError> {
    let invalid = |why: &str| Err(MediaError::InvalidCandidate(why.to_string()));
    let text = candidate.candidate.trim();
    let text = text.strip_prefix("a=").unwrap_or(text);
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > MAX_CANDIDATE {
        return invalid("it is too long");
    }
    let Some(text) = text.strip_prefix("candidate:") else {
        return invalid("it does not start with candidate:");
    };
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, component, _, priority, _, port, "typ", kind, ..] = words[..] else {
        return invalid("it is incomplete");
    };
    if component.parse::<u16>().is_err() || priority.parse::<u32>().is_err() || port.parse::<u16>().is_err() {
        return invalid("component, priority or port is not a number");
    }
    if !["host", "srflx", "prflx", "relay"].contains(&kind) {
        return invalid("its type is unknown");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
