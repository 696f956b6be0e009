//! A media plane that only keeps the books: who is connected where, what is published, whose offer is outstanding.
//!
//! No packet moves. Whether a client is at the other end is looked up in [`Peers`], which the clients write; silence and
//! its grace pass in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use common::message::{Answer, Candidate, EndpointStats, Offer, SubscribedTrack, TransportStats, Wish};
use common::model::{
    EndpointId, EndpointState, NetworkSummary, ParticipantId, PipelineId, Quality, SessionSettings, Track,
    TrackId, TrackKind, WorkerLoad,
};
use common::time::UnixMillis;
use media_worker::MeasureLoad;
use media_worker::media::{
    CloseCause, ConnectionState, MediaControl, MediaError, MediaEvent, MediaStats, Negotiated, OpenEndpoint,
};
use tokio::sync::mpsc;

use crate::process::Process;

/// Silence after which an endpoint counts as disconnected, and the grace that follows.
const DISCONNECTED_AFTER: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_millis(1_000);
/// A client that never connects.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Between two looks at the clients.
const LOOK: Duration = Duration::from_millis(250);

/// How the client's end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    There,
    /// It says nothing any more.
    Silent,
    /// It has said that it ends.
    Closed,
}

/// The clients' ends of all connections.
#[derive(Default)]
pub struct Peers(BTreeMap<EndpointId, Peer>);

impl Peers {
    pub fn set(&mut self, endpoint: EndpointId, peer: Peer) {
        self.0.insert(endpoint, peer);
    }

    fn of(&self, endpoint: EndpointId) -> Peer {
        self.0.get(&endpoint).copied().unwrap_or(Peer::Silent)
    }
}

struct Endpoint {
    open: OpenEndpoint,
    revision: u64,
    /// The server's offer that is not answered.
    outstanding: Option<u64>,
    /// Something changed since the last offer.
    changed: bool,
    tracks: Vec<Track>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New { for_ms: u64 },
    Connected,
    Silent { for_ms: u64 },
    Disconnected { for_ms: u64 },
}

#[derive(Default)]
struct Books {
    endpoints: BTreeMap<EndpointId, Endpoint>,
    ended: bool,
}

/// See the module.
pub struct SimMedia {
    process: Arc<Process>,
    books: Mutex<Books>,
    events: mpsc::Sender<MediaEvent>,
    announced: [SocketAddr; 1],
}

impl SimMedia {
    pub fn start(process: &Arc<Process>) -> (Arc<Self>, mpsc::Receiver<MediaEvent>) {
        let (events, receiver) = mpsc::channel(4_096);
        let media = Arc::new(Self {
            process: process.clone(),
            books: Mutex::default(),
            events,
            announced: [SocketAddr::from(([192, 0, 2, 1], 9))],
        });
        let looking = media.clone();
        process.run(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                looking.look();
            }
        });
        (media, receiver)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Whose endpoints are open here.
    pub fn endpoints(&self) -> Vec<(EndpointId, ParticipantId, PipelineId)> {
        let books = self.books();
        let open = books.endpoints.values().map(|endpoint| &endpoint.open);
        open.map(|open| (open.endpoint_id, open.participant_id, open.pipeline_id)).collect()
    }

    fn report(&self, event: MediaEvent) {
        // The queue holds more than a schedule reports; its end is the worker's.
        let _ = self.events.try_send(event);
    }

    /// Looks at the clients' ends.
    fn look(&self) {
        let step = LOOK.as_millis() as u64;
        let mut reports = Vec::new();
        {
            let world = self.process.world();
            let peers = world.peers();
            let mut books = self.books();
            for (id, endpoint) in &mut books.endpoints {
                let peer = peers.of(*id);
                let before = endpoint.state;
                let (state, report) = next_state(endpoint.state, peer, step);
                endpoint.state = state;
                if report.is_some() || before != state {
                    reports.extend(report.map(|report| (*id, report)));
                }
            }
        }
        for (endpoint_id, state) in reports {
            if let ConnectionState::Closed(_) = state {
                self.remove(endpoint_id);
            }
            self.process.note(|| format!("media: {endpoint_id} {state:?}"));
            self.report(MediaEvent::State { endpoint_id, state });
        }
    }

    fn remove(&self, id: EndpointId) -> bool {
        let mut books = self.books();
        let Some(gone) = books.endpoints.remove(&id) else { return false };
        if !gone.tracks.is_empty() {
            self.offer_to_others(&mut books, &gone.open);
        }
        true
    }

    /// Something was published, or no longer is: everyone else in the pipeline is offered it.
    fn offer_to_others(&self, books: &mut Books, publisher: &OpenEndpoint) {
        let others: Vec<EndpointId> = books
            .endpoints
            .values()
            .filter(|other| {
                other.open.pipeline_id == publisher.pipeline_id
                    && other.open.endpoint_id != publisher.endpoint_id
                    && other.open.can_subscribe
            })
            .map(|other| other.open.endpoint_id)
            .collect();
        for id in others {
            if let Some(other) = books.endpoints.get_mut(&id) {
                other.changed = true;
            }
            self.offer_to(books, id);
        }
    }

    /// Makes the server's offer, when there is something to say and nothing outstanding.
    fn offer_to(&self, books: &mut Books, id: EndpointId) {
        let Some(endpoint) = books.endpoints.get_mut(&id) else { return };
        // The client makes the first offer.
        if endpoint.outstanding.is_some() || !endpoint.changed || endpoint.revision == 0 {
            return;
        }
        let revision = endpoint.revision + 1;
        endpoint.outstanding = Some(revision);
        endpoint.changed = false;
        let pipeline = endpoint.open.pipeline_id;
        let others = books
            .endpoints
            .values()
            .filter(|other| other.open.pipeline_id == pipeline && other.open.endpoint_id != id);
        let tracks = others
            .flat_map(|other| other.tracks.iter().map(|track| (other.open.participant_id, track)))
            .map(|(participant_id, track)| SubscribedTrack {
                mid: track.mid.clone(),
                track_id: track.id,
                participant_id,
                kind: track.kind,
                source: track.source,
            })
            .collect();
        self.report(MediaEvent::Offer { endpoint_id: id, revision, sdp: String::new(), tracks });
    }

    /// The thread of the media plane takes its time too.
    async fn hop(&self) -> Result<(), MediaError> {
        let delay = self.process.world().delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.books().ended { Err(MediaError::Unavailable) } else { Ok(()) }
    }

    fn with<T>(
        &self,
        id: EndpointId,
        change: impl FnOnce(&mut Endpoint) -> Result<T, MediaError>,
    ) -> Result<T, MediaError> {
        change(self.books().endpoints.get_mut(&id).ok_or(MediaError::EndpointGone)?)
    }
}

fn next_state(state: State, peer: Peer, step: u64) -> (State, Option<ConnectionState>) {
    let over = |for_ms: u64, limit: Duration| for_ms + step >= limit.as_millis() as u64;
    match (state, peer) {
        (_, Peer::Closed) => (state, Some(ConnectionState::Closed(CloseCause::PeerClosed))),
        (State::New { .. } | State::Disconnected { .. }, Peer::There) => {
            (State::Connected, Some(ConnectionState::Connected))
        }
        (State::Connected | State::Silent { .. }, Peer::There) => (State::Connected, None),
        (State::New { for_ms }, _) if over(for_ms, CONNECT_TIMEOUT) => {
            (state, Some(ConnectionState::Closed(CloseCause::ConnectFailed)))
        }
        (State::New { for_ms }, _) => (State::New { for_ms: for_ms + step }, None),
        (State::Connected, _) => (State::Silent { for_ms: 0 }, None),
        (State::Silent { for_ms }, _) if over(for_ms, DISCONNECTED_AFTER) => {
            (State::Disconnected { for_ms: 0 }, Some(ConnectionState::Disconnected))
        }
        (State::Silent { for_ms }, _) => (State::Silent { for_ms: for_ms + step }, None),
        (State::Disconnected { for_ms }, _) if over(for_ms, GRACE) => {
            (state, Some(ConnectionState::Closed(CloseCause::GraceExpired)))
        }
        (State::Disconnected { for_ms }, _) => (State::Disconnected { for_ms: for_ms + step }, None),
    }
}

#[async_trait]
impl MediaControl for SimMedia {
    fn announced(&self) -> &[SocketAddr] {
        &self.announced
    }

    async fn open_endpoint(&self, open: OpenEndpoint) -> Result<(), MediaError> {
        self.hop().await?;
        // A media thread under load does this in its turn, and the session may be placed anew meanwhile.
        let world = self.process.world();
        if world.befalls(2 * world.weather.slow) {
            let turn = world.random().millis(1, 1_500);
            tokio::time::sleep(turn).await;
        }
        let endpoint = Endpoint {
            open,
            revision: 0,
            outstanding: None,
            changed: true,
            tracks: Vec::new(),
            state: State::New { for_ms: 0 },
        };
        self.books().endpoints.entry(endpoint.open.endpoint_id).or_insert(endpoint);
        Ok(())
    }

    async fn offer(&self, endpoint_id: EndpointId, offer: Offer) -> Result<Negotiated, MediaError> {
        self.hop().await?;
        let mut books = self.books();
        let endpoint = books.endpoints.get_mut(&endpoint_id).ok_or(MediaError::EndpointGone)?;
        let next = endpoint.revision + 1;
        if endpoint.outstanding.is_some() || offer.revision.is_some_and(|revision| revision != next) {
            return Err(MediaError::OfferCollision);
        }
        let before = std::mem::take(&mut endpoint.tracks);
        for described in offer.tracks {
            let known = before.iter().find(|track| track.mid == described.mid);
            endpoint.tracks.push(known.cloned().unwrap_or_else(|| Track {
                id: described.track_id.unwrap_or_else(TrackId::new),
                kind: TrackKind::Audio,
                source: described.source,
                muted: described.muted,
                mid: described.mid,
            }));
        }
        endpoint.revision = next;
        let is_in = |tracks: &[Track], id: TrackId| tracks.iter().any(|track| track.id == id);
        let tracks = endpoint.tracks.clone();
        let published = tracks.iter().filter(|track| !is_in(&before, track.id)).cloned().collect();
        let unpublished: Vec<TrackId> =
            before.iter().map(|track| track.id).filter(|id| !is_in(&tracks, *id)).collect();
        let open = endpoint.open.clone();
        self.offer_to_others(&mut books, &open);
        self.offer_to(&mut books, endpoint_id);
        let answer = Answer { sdp: String::new(), revision: next };
        Ok(Negotiated { answer, tracks, published, unpublished })
    }

    async fn answer(&self, endpoint_id: EndpointId, answer: Answer) -> Result<(), MediaError> {
        self.hop().await?;
        self.with(endpoint_id, |endpoint| {
            if endpoint.outstanding != Some(answer.revision) {
                return Err(MediaError::NoOfferPending);
            }
            endpoint.outstanding = None;
            endpoint.revision = answer.revision;
            Ok(())
        })?;
        self.offer_to(&mut self.books(), endpoint_id);
        Ok(())
    }

    async fn candidates(
        &self,
        endpoint_id: EndpointId,
        _candidates: Vec<Candidate>,
    ) -> Result<(), MediaError> {
        self.hop().await?;
        self.with(endpoint_id, |_| Ok(()))
    }

    async fn set_muted(
        &self,
        endpoint_id: EndpointId,
        track_id: TrackId,
        muted: bool,
    ) -> Result<Track, MediaError> {
        self.hop().await?;
        self.with(endpoint_id, |endpoint| {
            let track = endpoint.tracks.iter_mut().find(|track| track.id == track_id);
            let track = track.ok_or(MediaError::TrackNotFound)?;
            track.muted = muted;
            Ok(track.clone())
        })
    }

    async fn set_wish(
        &self,
        endpoint_id: EndpointId,
        _track_id: TrackId,
        _wish: Wish,
    ) -> Result<(), MediaError> {
        self.hop().await?;
        self.with(endpoint_id, |_| Ok(()))
    }

    async fn set_settings(&self, _: PipelineId, _: &SessionSettings) {}

    async fn endpoint_stats(&self, endpoint_id: EndpointId) -> Result<EndpointStats, MediaError> {
        self.hop().await?;
        self.with(endpoint_id, |endpoint| {
            Ok(EndpointStats {
                endpoint_id,
                timestamp: UnixMillis::now(),
                state: match endpoint.state {
                    State::New { .. } => EndpointState::New,
                    State::Connected | State::Silent { .. } => EndpointState::Connected,
                    State::Disconnected { .. } => EndpointState::Disconnected,
                },
                quality: Quality::default(),
                score: None,
                transport: TransportStats::default(),
                published: Vec::new(),
                subscribed: Vec::new(),
                summary: NetworkSummary::new(endpoint_id),
            })
        })
    }

    async fn close_endpoint(&self, endpoint_id: EndpointId) -> Result<(), MediaError> {
        self.hop().await?;
        if self.remove(endpoint_id) { Ok(()) } else { Err(MediaError::EndpointGone) }
    }

    async fn close_pipeline(&self, pipeline_id: PipelineId) {
        if self.hop().await.is_ok() {
            self.books().endpoints.retain(|_, endpoint| endpoint.open.pipeline_id != pipeline_id);
        }
    }

    async fn stats(&self) -> Result<MediaStats, MediaError> {
        self.hop().await?;
        let endpoints = self.books().endpoints.len() as u64;
        Ok(MediaStats { endpoints, ..MediaStats::default() })
    }

    async fn shutdown(&self) {
        let mut books = self.books();
        books.endpoints.clear();
        books.ended = true;
    }
}

/// A load that says how many endpoints there are, and memory by that.
pub struct SimLoad;

impl MeasureLoad for SimLoad {
    fn measure(&mut self, stats: &MediaStats) -> WorkerLoad {
        let endpoints = stats.endpoints as i64;
        WorkerLoad { memory_bytes: endpoints << 20, endpoints, ..WorkerLoad::default() }
    }
}
