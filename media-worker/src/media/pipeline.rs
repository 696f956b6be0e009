//! One pipeline: what the worker hosts for one session, as the media thread keeps it.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use common::model::{ParticipantId, PipelineId, SessionSettings, TrackKind, TrackSource};
use sfu::extension::elements;
use sfu::loudest::{Change, Loudest};
use sfu::speaker::{self, Speaker, Speakers, Voice};
use sfu::{
    EncodingId, Extension, Output, Packet, Patch, PublicationId, Sequence, Session, SubscriptionId, Timestamp,
};

use super::drops::{Drops, Reason};
use super::endpoint::SourceTrack;
use super::exchange::{Carried, Origin};
use super::news::News;
use super::rtp::history::{History, Kept, PacketNumber};
use super::stage::Stage;

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
    pub marker: bool,
    /// What is different in the subscriber's copy.
    pub patch: Option<Patch>,
}

/// What the forwarding core decided, for the media thread to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Send {
        endpoint: EndpointKey,
        packet: Outgoing,
    },
    RequestKeyframe {
        publication: PublicationId,
        encoding: EncodingId,
    },
    /// Tell who publishes it how many of its encodings are watched.
    Demand {
        publication: PublicationId,
        encodings: u8,
    },
}

/// A published voice, and where its packets say how loud it is.
struct Heard {
    publication: PublicationId,
    level_id: Option<u8>,
    voice: Voice,
    /// It counts among the loudest; what a screen plays does not.
    is_microphone: bool,
}

/// What the division of a path needs to know of the room.
pub struct Scene<'a> {
    /// Who speaks, the one who leads first.
    pub speaking: &'a [ParticipantId],
    pub stage: &'a Stage,
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
    /// By the publication's index, with whose voice it is.
    voices: Vec<Option<Heard>>,
    speakers: Speakers<PublicationId>,
    /// Which voices are forwarded, by the publication's index.
    loudest: Loudest,
    /// The session's; `None` before anybody has brought them.
    pub settings: Option<SessionSettings>,
    stage: Stage,
    /// Somebody wants fewer cameras than everybody gets.
    has_own_limits: bool,
    /// Who speaks, the one who leads first.
    pub speaking: Vec<ParticipantId>,
    /// When it is decided next who speaks.
    speakers_due: Option<Instant>,
    pub news: News,
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
            voices: Vec::new(),
            speakers: Speakers::default(),
            loudest: Loudest::default(),
            settings: None,
            stage: Stage::default(),
            has_own_limits: false,
            speaking: Vec::new(),
            speakers_due: None,
            news: News::default(),
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

    /// A published track as its subscribers need to know it.
    pub fn track(&self, publication: PublicationId) -> Option<&SourceTrack> {
        self.sources.iter().map(|source| &source.track).find(|track| track.publication == publication)
    }

    /// Takes a publisher's packet: what is to be done is in `decisions`, the packet itself in the history.
    pub fn handle_packet(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        self.decide(None);
        self.listen(now, publication, packet);
        self.session.handle_packet(now, publication, packet);
        self.decide(Some((now, publication, packet)));
    }

    /// Notes how loud a packet says it is (RFC 6464).
    fn listen(&mut self, now: Instant, publication: PublicationId, packet: &Packet<'_>) {
        if packet.extensions.is_empty() {
            return;
        }
        let index = publication.index();
        if self.voices.len() <= index {
            self.voices.resize_with(index + 1, || None);
        }
        if self.voices[index].as_ref().is_none_or(|heard| heard.publication != publication) {
            let source = self.sources.iter().find(|source| source.track.publication == publication);
            // A packet may be quicker than the table; the next one finds it.
            let Some(source) = source else { return };
            let level_id = source.track.extensions.id(Extension::AudioLevel);
            let is_microphone = source.track.source == TrackSource::Microphone;
            // Whoever had this index has ended.
            self.loudest.forget(index);
            self.voices[index] =
                Some(Heard { publication, level_id, voice: Voice::default(), is_microphone });
        }
        let Some(heard) = &mut self.voices[index] else { return };
        let Some(id) = heard.level_id else { return };
        let mut found =
            elements(packet.extension_profile, packet.extensions).filter(|(other, _)| *other == id);
        if let Some((_, [level, ..])) = found.next() {
            let level = level & 0x7f;
            heard.voice.note(now, level);
            self.speakers_due.get_or_insert(now + speaker::INTERVAL);
            if heard.is_microphone && self.loudest.limit().is_some() && !self.session.is_muted(publication) {
                let Change { admitted, held } = self.loudest.note(now, index, level);
                for (index, is_held) in
                    held.map(|it| (it, true)).into_iter().chain(admitted.map(|it| (it, false)))
                {
                    self.hold(index, is_held);
                }
            }
        }
    }

    /// Holds the voice with this index back, or releases it.
    fn hold(&mut self, index: usize, is_held: bool) {
        if let Some(Some(heard)) = self.voices.get(index) {
            self.session.set_held(heard.publication, is_held);
        }
    }

    /// The forwarding table, and what is known of the room beside it.
    pub fn split(&mut self) -> (&mut Session, Scene<'_>) {
        (&mut self.session, Scene { speaking: &self.speaking, stage: &self.stage })
    }

    /// Takes the session's settings, unless newer ones are known. Returns whether they were taken.
    pub fn adopt(&mut self, now: Instant, settings: &SessionSettings) -> bool {
        if self.settings.as_ref().is_some_and(|known| known.revision >= settings.revision) {
            return false;
        }
        self.settings = Some(settings.clone());
        self.stage.set_limit(settings.last_n);
        let limit = settings.loudest_n.map(usize::from);
        if self.loudest.limit() != limit {
            self.loudest.set_limit(now, limit);
            for index in 0..self.voices.len() {
                self.hold(index, !self.loudest.is_forwarded(index));
            }
        }
        true
    }

    /// Somebody wants fewer cameras than everybody gets.
    pub fn note_own_limit(&mut self) {
        self.has_own_limits = true;
    }

    /// Finds out anew whose cameras are sent, where they are limited. Returns whether that has changed.
    pub fn restage(&mut self) -> bool {
        if !self.has_own_limits && !self.stage.is_limited() {
            return false;
        }
        let (session, sources) = (&self.session, &self.sources);
        let cameras = sources.iter().map(|source| &source.track).filter(|track| {
            let is_limited = track.kind == TrackKind::Video && track.source != TrackSource::Screen;
            is_limited && !session.is_muted(track.publication)
        });
        self.stage.set_cameras(cameras.map(|track| (track.joined_at, track.participant_id)))
    }

    /// Stops or resumes the forwarding of a track that another shard publishes.
    pub fn set_muted(&mut self, now: Instant, publication: PublicationId, muted: bool) {
        self.session.set_muted(now, publication, muted);
        self.note_muted(publication, muted);
    }

    /// A track was muted, or is not any more: a voice that says nothing takes nobody's place.
    pub fn note_muted(&mut self, publication: PublicationId, muted: bool) {
        let index = publication.index();
        let is_it = |heard: &Heard| heard.publication == publication;
        if muted && self.voices.get(index).is_some_and(|heard| heard.as_ref().is_some_and(is_it)) {
            self.loudest.forget(index);
            self.session.set_held(publication, false);
        }
    }

    /// Decides who speaks, when that is due; gives the list when it is another one.
    pub fn handle_speakers(&mut self, now: Instant) -> Option<Vec<Speaker<PublicationId>>> {
        self.speakers_due.take_if(|due| *due <= now)?;
        let is_heard = |publication| {
            self.sources.iter().any(|source| source.track.publication == publication && !source.track.muted)
        };
        let measured: Vec<_> = self
            .voices
            .iter_mut()
            .flatten()
            .map(|heard| (heard.publication, heard.voice.measure()))
            .filter(|(publication, level)| *level > 0.0 && is_heard(*publication))
            .collect();
        let list = self.speakers.update(measured.into_iter());
        if let Some(list) = &list {
            let participant = |speaker: &Speaker<PublicationId>| {
                let source = self.sources.iter().find(|it| it.track.publication == speaker.key)?;
                Some(source.track.participant_id)
            };
            self.speaking.clear();
            self.speaking.extend(list.iter().filter_map(participant));
            self.stage.note_speakers(&self.speaking);
        }
        if !self.speakers.is_idle() {
            self.speakers_due = Some(now + speaker::INTERVAL);
        }
        list
    }

    /// When [`Pipeline::handle_speakers`], the news or the core have something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout().into_iter().chain(self.speakers_due).chain(self.news.poll_timeout()).min()
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
                (Output::RequestKeyframe { publication, encoding }, _) => {
                    self.decisions.push(Decision::RequestKeyframe { publication, encoding });
                }
                (Output::Demand { publication, encodings }, _) => {
                    self.decisions.push(Decision::Demand { publication, encodings });
                }
                (Output::Forward { subscription, sequence, timestamp, marker, patch }, Some(handled)) => {
                    let (now, publication, packet) = handled;
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
                        marker,
                        patch,
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
    pub fn drops(&self) -> Drops {
        let mut drops = Drops::default();
        drops.add_forwarding(&self.session.counters());
        drops.add(Reason::Unsendable, self.drops);
        drops
    }

    /// Gives the memory of a publication's packets back, and its place among the voices.
    pub fn forget(&mut self, publication: PublicationId) {
        let index = publication.index();
        if let Some(heard) = self.voices.get_mut(index)
            && heard.take_if(|heard| heard.publication == publication).is_some()
        {
            self.loudest.forget(index);
        }
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
