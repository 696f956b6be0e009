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
//! | [`slots`] | m-lines of clients that describe themselves once: which track is on which |
//! | [`ice`] | candidates, and ICE restarts without a description |
//! | [`streams`] | what is received on them: whose it is, repair, reports |
//! | [`media`] | RTP and RTCP, in and out |
//! | [`bandwidth`] | what the client's path carries |
//! | [`allocation`] | that, divided among the tracks it subscribes to |
//! | [`pacer`] | pictures that wait for their turn |
//! | [`data`] | data channels, in and out |
//! | [`settings`] | the session's settings, and what changes with them |
//! | [`stats`] | what can be said of all that: figures and rates |
//! | [`steps`] | how long each step of connecting took |
//! | [`totals`] | what it comes to from beginning to end |

mod allocation;
mod bandwidth;
mod data;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ice;
pub mod lines;
mod media;
pub mod offer;
mod pacer;
mod serve;
mod settings;
mod slots;
mod stats;
mod steps;
mod streams;
mod totals;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::message::{Fixed, Wish};
use common::model::{EndpointId, ParticipantId, Quality, Track, TrackId};
use sfu::bandwidth::allocate::Policy;
use sfu::{Session, SubscriptionId};

use super::codecs::Numbering;
use super::data::{Data, DataStats, Message};
use super::drops::Reason;
use super::negotiation::{Negotiation, Refusal};
use super::pipeline::{Outgoing, Pipeline};
use super::repairs::Repairs;
use super::sdp::Setup;
use super::transport::dtls::{Dtls, Fingerprint, Identity, Progress, Role};
use super::transport::ice::{Agent, Credentials, Restart};
use super::transport::{self, Datagrams, Kind, Path, stun};
use super::{CloseCause, ConnectionState, MediaConfig, MediaError, OpenEndpoint, Treatment};
use allocation::Allocation;
pub use allocation::Suspensions;
use bandwidth::Bandwidth;
use lines::Line;
pub use lines::SourceTrack;
pub use media::{Flushed, Received};
use pacer::Pacer;
pub use steps::{Step, Steps, Unconnected};

/// From the first complete exchange of descriptions to a finished DTLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// What the datagrams and timers of an endpoint bring about, collected for the media thread.
#[derive(Default)]
pub struct Effects {
    pub transmits: Datagrams,
    pub received: Vec<Received>,
    pub states: Vec<ConnectionState>,
    pub bound: Vec<Path>,
    pub forgotten: Vec<Path>,
    /// The endpoint has something to send by itself: it is to be flushed.
    pub flush: bool,
    /// What the client is to be told of its pictures.
    pub suspensions: Suspensions,
    /// Tracks that the client refused in its answer.
    pub refused: Vec<TrackId>,
    /// Its connection has become better or worse.
    pub quality: Option<Quality>,
    /// Fragments under which this endpoint is no longer reached.
    pub retired: Vec<String>,
    /// Datagrams or packets that could not be used, by why.
    pub drops: Vec<Reason>,
    /// Steps that its connection has made, and how long they took.
    pub steps: Vec<(Step, Duration)>,
    /// What the client said on its data channels.
    pub messages: Vec<Message>,
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
    /// Its client describes itself once.
    fixed: Option<Fixed>,
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
    streams: streams::Streams,
    /// What the session's settings and its join say of it, between the worker's own bounds.
    treatment: Treatment,
    worker: sfu::bandwidth::Config,
    bandwidth: Bandwidth,
    allocation: Allocation,
    /// Whose cameras it gets, where they are limited; kept for its memory.
    cameras: Vec<ParticipantId>,
    pacer: Pacer,
    /// Once its client has negotiated data channels and is connected.
    data: Option<Box<Data>>,
    /// When there is something to do about them.
    data_due: Option<Instant>,
    /// Of associations that are over.
    data_past: DataStats,
    watch: stats::Watch,
    pub steps: Steps,
    pub repairs: Repairs,
    /// Sent SSRC to m-line, for feedback.
    senders: HashMap<u32, usize>,
    /// Packets that go out when the batch that brought them is complete; kept for its memory.
    outbox: Vec<Outgoing>,
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
            fixed: open.fixed,
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
            streams: streams::Streams::new(now),
            bandwidth: Bandwidth::new(now, open.treatment.bounds(config.bandwidth)),
            treatment: open.treatment.clone(),
            worker: config.bandwidth,
            cameras: Vec::new(),
            allocation: Allocation::new(Policy {
                suspend_below: config.suspend_video_below,
                ..Policy::default()
            }),
            pacer: Pacer::new(now),
            data: None,
            data_due: None,
            data_past: DataStats::default(),
            watch: stats::Watch::new(now),
            steps: Steps::new(now),
            repairs: Repairs::default(),
            senders: HashMap::new(),
            outbox: Vec::new(),
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

    /// What the way to this client carries, in bit/s; `None` while it has told nothing.
    pub fn estimate(&self, now: Instant) -> Option<u64> {
        self.bandwidth.estimate(now)
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
                encodings: receiving.encodings.count(),
                publication: published.publication,
                muted: published.track.muted,
                joined_at: self.treatment.joined_at,
            })
        };
        self.lines.iter().filter_map(source).collect()
    }

    /// The subscriptions of this endpoint, with the m-line that carries each.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, usize)> {
        self.lines
            .iter()
            .enumerate()
            .filter_map(|(index, line)| Some((line.sending()?.subscription()?, index)))
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

    /// Says what the client wants of a subscribed track.
    pub fn set_wish(
        &mut self,
        now: Instant,
        track_id: TrackId,
        wish: Wish,
        pipeline: &mut Pipeline,
        effects: &mut Effects,
    ) -> Result<(), MediaError> {
        let mut carried = self.lines.iter_mut().filter_map(|line| line.sending_mut()?.carried.as_mut());
        let carried =
            carried.find(|carried| carried.track.track_id == track_id).ok_or(MediaError::TrackNotFound)?;
        carried.share.wish = wish;
        self.allocation.want(now);
        let (session, scene) = pipeline.split();
        self.allocate(now, &scene, session, effects);
        Ok(())
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
                    effects.drops.push(Reason::Unprotected);
                    return;
                };
                let progress = dtls.handle_datagram(now, datagram);
                self.handle_progress(now, progress, &mut pipeline.session, effects);
                self.handle_records(now, effects);
            }
            Kind::Rtp => self.handle_rtp(now, datagram, pipeline, effects),
            Kind::Other => effects.drops.push(Reason::Malformed),
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8], effects: &mut Effects) {
        let checked =
            stun::Request::parse(datagram).and_then(|request| self.ice.handle_check(path, &request));
        let Some(checked) = checked else {
            effects.drops.push(Reason::Check);
            return;
        };
        self.seen(now, effects);
        effects.transmits.push(path, checked.response.as_bytes());
        effects.bound.extend(checked.bound.then_some(path));
        effects.forgotten.extend(checked.forgotten);
        effects.retired.extend(checked.retired);
        if checked.selected {
            effects.steps.extend(self.steps.find_path(now));
        }
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
            self.resume_looking(now);
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
                effects.steps.extend(self.steps.connect(now));
                effects.states.push(ConnectionState::Connected);
                self.resume_looking(now);
                self.activate(now, session);
            }
            Progress::PeerClosed => self.end(CloseCause::PeerClosed, effects),
            Progress::Failed => self.end(CloseCause::ConnectFailed, effects),
        }
    }

    fn end(&mut self, cause: CloseCause, effects: &mut Effects) {
        if self.life != Life::Closed {
            if cause == CloseCause::ConnectFailed {
                self.steps.fail();
            }
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

    pub fn handle_timeout(&mut self, now: Instant, pipeline: &mut Pipeline, effects: &mut Effects) {
        let (session, scene) = pipeline.split();
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
            self.bandwidth.handle_timeout(now);
            self.allocate(now, &scene, session, effects);
            effects.flush |= self.is_flush_due(now);
            self.look(now, session, effects);
            self.handle_media_timeout(now, effects);
            if self.data_due.is_some_and(|due| due <= now) {
                self.handle_data_timeout(now, effects);
            }
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
        let sending =
            [self.bandwidth.poll_timeout(now), self.allocation.poll_timeout(), self.pacer.poll_timeout(now)];
        let others = [self.data_due, self.watch.poll_timeout()];
        let open = sending.into_iter().chain(others).flatten().min().filter(|_| !self.is_closed());
        [life, dtls, self.negotiation.poll_timeout(now), self.poll_media_timeout(), open]
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
            effects.steps.extend(self.steps.describe(now));
            self.flush_dtls(effects);
        }
        if let Restart::Yes { retired } = self.restart(now, credentials) {
            effects.retired.extend(retired);
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

#[cfg(test)]
mod tests;
