//! One pipeline: what the worker hosts for one session, as the media thread keeps it.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use common::model::PipelineId;
use sfu::{Output, Packet, PublicationId, Sequence, Session, SubscriptionId, Timestamp};

use super::endpoint::SourceTrack;
use super::exchange::{Carried, Origin};
use super::rtp::history::{History, Kept, PacketNumber};

/// An endpoint's place in the media thread's table.
pub type EndpointKey = usize;

/// Where a subscription's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub subscription: SubscriptionId,
    pub endpoint: EndpointKey,
    pub line: usize,
}

/// Who publishes a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    Here(EndpointKey),
    /// An endpoint of another shard; the track is a mirror.
    There(Origin),
}

/// A published track and its publisher.
pub struct Source {
    pub publisher: Publisher,
    pub track: SourceTrack,
}

/// A packet on its way to one subscriber: where it is kept, and the numbers it goes out under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    pub line: usize,
    pub publication: PublicationId,
    pub number: PacketNumber,
    pub sequence: Sequence,
    pub timestamp: Timestamp,
    /// The publisher's timestamp.
    pub original: Timestamp,
}

/// What the forwarding core decided, for the media thread to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Send { endpoint: EndpointKey, packet: Outgoing },
    RequestKeyframe { publication: PublicationId },
}

pub struct Pipeline {
    pub id: PipelineId,
    pub session: Session,
    pub members: Vec<EndpointKey>,
    pub sources: Vec<Source>,
    /// The other shards with members of this room.
    pub peers: BTreeSet<usize>,
    /// What stands here for the tracks of other shards.
    pub mirrors: HashMap<Origin, PublicationId>,
    /// Packets for the other shards, and emptied buffers for the next ones.
    pub crossing: Vec<(PublicationId, Carried)>,
    pub emptied: Vec<Vec<u8>>,
    /// By the subscription's index; entries of ended subscriptions stay until their place is reused.
    routes: Vec<Option<Route>>,
    /// By the publication's index, with whose packets they are.
    histories: Vec<(PublicationId, History)>,
    /// To be carried out, in order; kept for its memory.
    pub decisions: Vec<Decision>,
    /// Packets for subscriptions that lead nowhere.
    drops: u64,
}

impl Pipeline {
    pub fn new(id: PipelineId) -> Self {
        Self {
            id,
            session: Session::new(),
            members: Vec::new(),
            sources: Vec::new(),
            peers: BTreeSet::new(),
            mirrors: HashMap::new(),
            crossing: Vec::new(),
            emptied: Vec::new(),
            routes: Vec::new(),
            histories: Vec::new(),
            decisions: Vec::new(),
            drops: 0,
        }
    }

    /// The tracks that an endpoint can subscribe to: everyone else's.
    pub fn wanted_by(&self, endpoint: EndpointKey) -> Vec<SourceTrack> {
        self.sources
            .iter()
            .filter(|source| source.publisher != Publisher::Here(endpoint))
            .map(|source| source.track.clone())
            .collect()
    }

    pub fn set_route(&mut self, route: Route) {
        let index = route.subscription.index();
        if self.routes.len() <= index {
            self.routes.resize(index + 1, None);
        }
        self.routes[index] = Some(route);
    }

    pub fn route(&self, subscription: SubscriptionId) -> Option<Route> {
        self.routes
            .get(subscription.index())
            .copied()
            .flatten()
            .filter(|route| route.subscription == subscription)
    }

    /// All routes of one publication's live subscriptions are found through the session; this is who
    /// publishes it.
    pub fn publisher(&self, publication: PublicationId) -> Option<Publisher> {
        self.sources
            .iter()
            .find(|source| source.track.publication == publication)
            .map(|source| source.publisher)
    }

    /// Takes a publisher's packet: what is to be done is in `decisions`, the packet itself in the history.
    pub fn handle_packet(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        self.decide(None);
        self.session.handle_packet(now, publication, packet);
        self.decide(Some((now, publication, packet)));
    }

    /// Takes a packet of an endpoint of this shard, for this shard and the others of the room.
    pub fn handle_own_packet(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        let accepted = self.session.counters().accepted;
        self.handle_packet(now, publication, packet);
        if !self.peers.is_empty() && self.session.counters().accepted != accepted {
            let buffer = self.emptied.pop().unwrap_or_default();
            self.crossing.push((publication, Carried::new(packet, buffer)));
        }
    }

    /// The tracks that endpoints of this shard publish.
    pub fn own_tracks(&self) -> Vec<SourceTrack> {
        let own = |source: &&Source| matches!(source.publisher, Publisher::Here(_));
        self.sources.iter().filter(own).map(|source| source.track.clone()).collect()
    }

    /// Collects what the core decided. Only a packet that someone gets is kept.
    pub fn decide(&mut self, handled: Option<(Instant, PublicationId, &Packet<'_>)>) {
        let mut number = None;
        while let Some(output) = self.session.poll_output() {
            match (output, handled) {
                (Output::RequestKeyframe { publication }, _) => {
                    self.decisions.push(Decision::RequestKeyframe { publication });
                }
                (Output::Forward { subscription, sequence, timestamp }, Some((now, publication, packet))) => {
                    let kept = number.or_else(|| self.keep(now, publication, packet));
                    let (Some(route), Some(kept)) = (self.route(subscription), kept) else {
                        self.drops += 1;
                        continue;
                    };
                    number = Some(kept);
                    let packet = Outgoing {
                        line: route.line,
                        publication,
                        number: kept,
                        sequence,
                        timestamp,
                        original: packet.timestamp,
                    };
                    self.decisions.push(Decision::Send { endpoint: route.endpoint, packet });
                }
                // The core forwards only what was just handled.
                (Output::Forward { .. }, None) => self.drops += 1,
            }
        }
    }

    fn keep(
        &mut self,
        now: Instant,
        publication: PublicationId,
        packet: &Packet<'_>,
    ) -> Option<PacketNumber> {
        let index = publication.index();
        while self.histories.len() <= index {
            self.histories.push((publication, History::default()));
        }
        let (of, history) = &mut self.histories[index];
        if *of != publication {
            (*of, *history) = (publication, History::default());
        }
        history.push(now, packet)
    }

    /// A packet that was received not long ago.
    pub fn kept(&self, publication: PublicationId, number: PacketNumber) -> Option<Kept<'_>> {
        let (of, history) = self.histories.get(publication.index())?;
        if *of == publication { history.get(number) } else { None }
    }

    /// Everything that was not forwarded, since the pipeline began.
    pub fn drops(&self) -> u64 {
        self.session.counters().drops() + self.drops
    }

    /// Gives the memory of a publication's packets back.
    pub fn forget(&mut self, publication: PublicationId) {
        if let Some((of, history)) = self.histories.get_mut(publication.index())
            && *of == publication
        {
            *history = History::default();
        }
    }

    /// The routes whose m-lines carry a publication, by number from 0 up to how many there are; `None` inside for
    /// one that leads nowhere yet.
    pub fn route_of(&self, publication: PublicationId, number: usize) -> Option<Option<Route>> {
        let subscription = self.session.subscriptions_of(publication).get(number)?;
        Some(self.route(*subscription))
    }
}
