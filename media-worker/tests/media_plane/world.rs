//! A media plane with its clients, driven together by one thread of the test.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::message::{Answer, EventBody, Fixed, Offer, ParticipantQuality, Speaking, TrackDescription};
use common::model::{EndpointId, NetworkSummary, PipelineId};
use common::time::UnixMillis;
use media_worker::media::{
    ConnectionState, MediaConfig, MediaError, MediaEvent, MediaPlane, Negotiated, OpenEndpoint, Treatment,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::client::Client;

/// How long a test waits for what must happen. A slow machine may stretch it.
pub fn patience() -> Duration {
    let factor: u32 =
        std::env::var("SWITCHYARD_TEST_PATIENCE").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    Duration::from_secs(20) * factor
}

pub fn config() -> MediaConfig {
    MediaConfig {
        listen: "127.0.0.1:0".parse::<SocketAddr>().unwrap(),
        public_addresses: Vec::new(),
        offer_interval: Duration::from_millis(250),
        disconnected_after: Duration::from_secs(30),
        grace: Duration::from_secs(30),
        threads: 1,
        ..MediaConfig::default()
    }
}

/// Every endpoint on another of two media threads than the one before: all rooms span both.
pub fn spread() -> MediaConfig {
    MediaConfig { threads: 2, endpoints_together: 1, ..config() }
}

pub struct World {
    pub runtime: Runtime,
    pub plane: MediaPlane,
    events: mpsc::Receiver<MediaEvent>,
    pub pipeline: PipelineId,
    pub clients: Vec<Client>,
    /// Every list of speakers that was told.
    pub speakers: Vec<Vec<Speaking>>,
    /// Messages for endpoints without a data channel.
    pub messages: Vec<(Vec<EndpointId>, EventBody)>,
    /// Every change of a connection's quality that was told.
    pub quality: Vec<ParticipantQuality>,
    /// What was said of endpoints at their end.
    pub ended: Vec<NetworkSummary>,
    /// Of whoever is opened next.
    pub treatment: Treatment,
}

impl World {
    pub fn new() -> Self {
        Self::with(config())
    }

    /// A world where rooms live on one media thread, then one where they span two.
    pub fn in_both_shapes() -> impl Iterator<Item = Self> {
        [config(), spread()].into_iter().map(Self::with)
    }

    pub fn with(config: MediaConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (plane, events) = MediaPlane::start(config).unwrap();
        Self {
            runtime,
            plane,
            events,
            pipeline: PipelineId::new(),
            clients: Vec::new(),
            speakers: Vec::new(),
            messages: Vec::new(),
            quality: Vec::new(),
            ended: Vec::new(),
            treatment: Treatment::default(),
        }
    }

    /// A new client with an open endpoint and nothing negotiated.
    pub fn open(&mut self, server_offers: bool) -> usize {
        self.open_with(Client::new(), server_offers, true, true)
    }

    pub fn open_with(
        &mut self,
        client: Client,
        server_offers: bool,
        can_publish: bool,
        can_subscribe: bool,
    ) -> usize {
        self.open_how(client, server_offers, (can_publish, can_subscribe), None)
    }

    /// A client that describes itself once and receives these kinds, negotiated but not connected yet.
    pub fn watch(&mut self, kinds: &[rtc::rtp_transceiver::rtp_sender::RtpCodecKind], fixed: Fixed) -> usize {
        let mut client = Client::new();
        kinds.iter().for_each(|kind| client.receive(*kind));
        let client = self.open_how(client, false, (false, true), Some(fixed));
        self.negotiate(client, Vec::new()).unwrap();
        client
    }

    /// A client that describes itself once, whose m-lines are its own business.
    pub fn open_fixed(&mut self, client: Client) -> usize {
        self.open_how(client, false, (false, true), Some(Fixed::default()))
    }

    fn open_how(
        &mut self,
        client: Client,
        server_offers: bool,
        (can_publish, can_subscribe): (bool, bool),
        fixed: Option<Fixed>,
    ) -> usize {
        let open = OpenEndpoint {
            endpoint_id: client.endpoint,
            pipeline_id: self.pipeline,
            participant_id: client.participant,
            can_publish,
            can_subscribe,
            server_offers,
            treatment: Treatment {
                joined_at: UnixMillis(self.clients.len() as i64),
                ..self.treatment.clone()
            },
            fixed,
        };
        self.runtime.block_on(self.plane.open_endpoint(open)).unwrap();
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// A connected client that publishes one track of each given kind. With none it only watches: it
    /// connects when the server has something to offer.
    pub fn join(&mut self, kinds: &[rtc::rtp_transceiver::rtp_sender::RtpCodecKind]) -> usize {
        let client = self.open(kinds.is_empty());
        if kinds.is_empty() {
            return client;
        }
        for kind in kinds {
            self.clients[client].add_track(*kind);
        }
        self.negotiate(client, Vec::new()).unwrap();
        self.until("the client is connected", |world| world.clients[client].is_connected);
        client
    }

    /// The client's own offer, after it has answered what the server offers.
    pub fn negotiate(
        &mut self,
        client: usize,
        tracks: Vec<TrackDescription>,
    ) -> Result<Negotiated, MediaError> {
        let deadline = Instant::now() + patience();
        loop {
            self.route_events();
            if self.clients[client].pending.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "the server does not stop offering");
            self.step();
        }
        let sdp = self.clients[client].create_offer();
        let negotiated = self.offer(client, sdp, tracks)?;
        self.clients[client].set_answer(&negotiated.answer.sdp);
        Ok(negotiated)
    }

    pub fn offer(
        &self,
        client: usize,
        sdp: String,
        tracks: Vec<TrackDescription>,
    ) -> Result<Negotiated, MediaError> {
        let offer = Offer { sdp, revision: None, tracks };
        self.runtime.block_on(self.plane.offer(self.clients[client].endpoint, offer))
    }

    pub fn answer(&self, client: usize, sdp: String, revision: u64) -> Result<(), MediaError> {
        let answer = Answer { sdp, revision };
        self.runtime.block_on(self.plane.answer(self.clients[client].endpoint, answer))
    }

    /// Hands events to the clients they are for; a server offer waits in the client's queue.
    fn route_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            let id = match &event {
                MediaEvent::Offer { endpoint_id, .. }
                | MediaEvent::Candidates { endpoint_id, .. }
                | MediaEvent::State { endpoint_id, .. }
                | MediaEvent::Suspensions { endpoint_id, .. }
                | MediaEvent::Demand { endpoint_id, .. }
                | MediaEvent::Refused { endpoint_id, .. }
                | MediaEvent::Step { endpoint_id, .. }
                | MediaEvent::Unpublished { endpoint_id, .. } => *endpoint_id,
                MediaEvent::Speakers { pipeline_id, speakers } => {
                    assert_eq!(*pipeline_id, self.pipeline);
                    self.speakers.push(speakers.clone());
                    continue;
                }
                MediaEvent::Message { endpoints, body } => {
                    self.messages.push((endpoints.clone(), body.clone()));
                    continue;
                }
                MediaEvent::Ended(summary) => {
                    self.ended.push((**summary).clone());
                    continue;
                }
                MediaEvent::Quality { pipeline_id, participants } => {
                    assert_eq!(*pipeline_id, self.pipeline);
                    self.quality.extend(participants);
                    continue;
                }
            };
            let client =
                self.clients.iter_mut().find(|client| client.endpoint == id).expect("a known endpoint");
            if let MediaEvent::Offer { revision, sdp, .. } = &event {
                client.pending.push_back((*revision, sdp.clone()));
            }
            client.events.push(event);
        }
    }

    /// One round: events, answers, packets.
    pub fn step(&mut self) {
        self.route_events();
        for index in 0..self.clients.len() {
            if !self.clients[index].sulks
                && let Some((revision, sdp)) = self.clients[index].pending.pop_front()
            {
                let answer = self.clients[index].answer(&sdp);
                self.answer(index, answer, revision).unwrap();
            }
            self.clients[index].drive();
        }
        // The interval of polling; it also paces what tests send in a loop, so that no socket overflows.
        std::thread::sleep(Duration::from_millis(1));
    }

    /// Steps until `done`, or fails when patience is over.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + patience();
        while !done(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.step();
        }
    }

    /// Steps for a time in which something must *not* happen.
    pub fn for_a_while(&mut self, time: Duration, mut each: impl FnMut(&mut World)) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            each(self);
            self.step();
        }
    }

    pub fn states(&self, client: usize) -> Vec<ConnectionState> {
        let state = |event: &MediaEvent| match event {
            MediaEvent::State { state, .. } => Some(*state),
            _ => None,
        };
        self.clients[client].events.iter().filter_map(state).collect()
    }

    /// The server's offers so far.
    pub fn offers(&self, client: usize) -> Vec<(u64, Vec<common::message::SubscribedTrack>)> {
        let offer = |event: &MediaEvent| match event {
            MediaEvent::Offer { revision, tracks, .. } => Some((*revision, tracks.clone())),
            _ => None,
        };
        self.clients[client].events.iter().filter_map(offer).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.block_on(self.plane.shutdown());
    }
}
