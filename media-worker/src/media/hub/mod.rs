//! All endpoints and pipelines of one media thread ("shard"): carries requests, datagrams and timers to them and
//! what they want back to the socket and the control plane.
//!
//! Every call into an endpoint is fenced: a panic ends that endpoint and nothing else.

mod spanning;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use common::message::{Answer, Candidate, Offer};
use common::model::{EndpointId, PipelineId, Track, TrackId};
use sfu::PublicationId;
use tokio::sync::mpsc;

use super::demux::{Demux, Owner};
use super::directory::Directory;
use super::endpoint::offer::Host;
use super::endpoint::{Effects, Endpoint, Received, SourceTrack};
use super::exchange::{Exchange, Media, Origin, Told};
use super::pipeline::{Decision, EndpointKey, Pipeline, Publisher, Route, Source};
use super::plane::Request;
use super::socket::egress::Egress;
use super::transport::dtls::Identity;
use super::transport::{self, Kind, Path};
use super::{
    CloseCause, ConnectionState, MediaConfig, MediaError, MediaEvent, MediaStats, Negotiated, OpenEndpoint,
};

/// Events that the control plane has not taken; with more, no endpoint is opened.
const MAX_BACKLOG: usize = 65_536;
/// DTLS records that wait; what comes on top is lost and sent again by the client.
const MAX_HANDSHAKES: usize = 1024;

type PipelineKey = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Endpoint(EndpointKey),
    Pipeline(PipelineKey),
}

struct Member {
    endpoint: Endpoint,
    pipeline: PipelineKey,
    /// The earliest entry in the heap that is still to come.
    scheduled: Option<Instant>,
}

struct Hosted {
    pipeline: Pipeline,
    /// How many tracks the directory knows of.
    tracks: usize,
    scheduled: Option<Instant>,
}

pub struct Hub {
    config: Arc<MediaConfig>,
    directory: Arc<Directory>,
    exchange: Exchange,
    identity: Identity,
    announced: Vec<SocketAddr>,
    members: Vec<Option<Box<Member>>>,
    free_members: Vec<EndpointKey>,
    by_id: HashMap<EndpointId, EndpointKey>,
    pipelines: Vec<Option<Hosted>>,
    free_pipelines: Vec<PipelineKey>,
    pipeline_by_id: HashMap<PipelineId, PipelineKey>,
    demux: Demux,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    events: mpsc::Sender<MediaEvent>,
    backlog: VecDeque<MediaEvent>,
    egress: Egress,
    /// Endpoints with packets to send.
    dirty: Vec<EndpointKey>,
    /// DTLS records that wait for their slice of time.
    handshakes: VecDeque<(EndpointKey, Path, Vec<u8>)>,
    /// Empty; kept for its memory.
    spare_effects: Effects,
    /// The same for what is touched while those are in use.
    spare_touch: Effects,
    stats: MediaStats,
}

impl Hub {
    pub fn new(
        config: Arc<MediaConfig>,
        directory: Arc<Directory>,
        exchange: Exchange,
        identity: Identity,
        announced: Vec<SocketAddr>,
        egress: Egress,
        events: mpsc::Sender<MediaEvent>,
    ) -> Self {
        Self {
            config,
            directory,
            exchange,
            identity,
            announced,
            members: Vec::new(),
            free_members: Vec::new(),
            by_id: HashMap::new(),
            pipelines: Vec::new(),
            free_pipelines: Vec::new(),
            pipeline_by_id: HashMap::new(),
            demux: Demux::default(),
            timers: BinaryHeap::new(),
            events,
            backlog: VecDeque::new(),
            egress,
            dirty: Vec::new(),
            handshakes: VecDeque::new(),
            spare_effects: Effects::default(),
            spare_touch: Effects::default(),
            stats: MediaStats::default(),
        }
    }

    /// Does one request and replies. A caller that no longer waits does not matter.
    pub fn handle_request(&mut self, now: Instant, request: Request) {
        match request {
            Request::Open(open, respond) => drop(respond.send(self.open(now, &open))),
            Request::Offer(id, offer, respond) => drop(respond.send(self.offer(now, id, &offer))),
            Request::Answer(id, answer, respond) => drop(respond.send(self.answer(now, id, &answer))),
            Request::Candidates(id, candidates, respond) => {
                drop(respond.send(self.candidates(now, id, &candidates)));
            }
            Request::SetMuted(id, track, muted, respond) => {
                drop(respond.send(self.set_muted(now, id, track, muted)));
            }
            Request::CloseEndpoint(id, respond) => drop(respond.send(self.close_endpoint(now, id))),
            Request::ClosePipeline(id, respond) => {
                self.close_pipeline(now, id);
                let _ = respond.send(());
            }
            Request::Stats(respond) => drop(respond.send(self.stats())),
            Request::InjectFault(id, respond) => {
                let result = self.fenced(now, id, |endpoint, _, _, _| {
                    endpoint.inject_fault();
                    Ok(())
                });
                drop(respond.send(result));
            }
            Request::Shutdown(_) => unreachable!("the thread keeps it for itself"),
        }
    }

    fn stats(&self) -> MediaStats {
        let forwarding: u64 = self.pipelines.iter().flatten().map(|hosted| hosted.pipeline.drops()).sum();
        let sent = self.egress.sent();
        MediaStats {
            endpoints: self.by_id.len() as u64,
            pipelines: self.pipeline_by_id.len() as u64,
            tracks: self
                .pipelines
                .iter()
                .flatten()
                .map(|hosted| hosted.pipeline.own_tracks().len() as u64)
                .sum(),
            packets_out: sent.packets,
            bytes_out: sent.bytes,
            send_calls: sent.calls,
            drops: self.stats.drops + sent.drops + self.exchange.drops() + forwarding,
            ..self.stats
        }
    }

    fn open(&mut self, now: Instant, open: &OpenEndpoint) -> Result<(), MediaError> {
        if self.by_id.contains_key(&open.endpoint_id) {
            return Ok(());
        }
        if self.backlog.len() >= MAX_BACKLOG {
            return Err(MediaError::Full("undelivered events"));
        }
        let pipeline = self.pipeline(open.pipeline_id);
        let endpoint = Endpoint::new(now, open, &self.config, self.exchange.shard());
        let key = self.free_members.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        for fragment in endpoint.fragments() {
            self.demux.bind_fragment(fragment, key);
        }
        self.members[key] = Some(Box::new(Member { endpoint, pipeline, scheduled: None }));
        self.by_id.insert(open.endpoint_id, key);
        if let Some(hosted) = &mut self.pipelines[pipeline] {
            hosted.pipeline.members.push(key);
        }
        self.want_offer(now, key);
        Ok(())
    }

    fn pipeline(&mut self, id: PipelineId) -> PipelineKey {
        if let Some(key) = self.pipeline_by_id.get(&id) {
            return *key;
        }
        let key = self.free_pipelines.pop().unwrap_or_else(|| {
            self.pipelines.push(None);
            self.pipelines.len() - 1
        });
        self.pipelines[key] = Some(Hosted { pipeline: Pipeline::new(id), tracks: 0, scheduled: None });
        self.pipeline_by_id.insert(id, key);
        let shard = self.exchange.shard();
        self.exchange.tell_all(&Told::Hosts { pipeline: id, shard, asks: true });
        key
    }

    fn offer(&mut self, now: Instant, id: EndpointId, offer: &Offer) -> Result<Negotiated, MediaError> {
        let is_full = self.directory.tracks() >= self.config.max_tracks;
        let negotiated = self.fenced(now, id, |endpoint, pipeline, host, effects| {
            let own: Vec<TrackId> = endpoint.tracks().map(|track| track.id).collect();
            let sources = &pipeline.sources;
            let may_publish = |id: TrackId| {
                let is_taken = sources.iter().any(|source| source.track.track_id == id);
                if is_taken && !own.contains(&id) {
                    Err(MediaError::InvalidSdp("a track id is taken".into()))
                } else if is_full {
                    Err(MediaError::Full("tracks"))
                } else {
                    Ok(())
                }
            };
            endpoint.handle_offer(now, offer, host, &mut pipeline.session, may_publish, effects)
        })?;
        self.after_description(now, id);
        Ok(negotiated)
    }

    fn answer(&mut self, now: Instant, id: EndpointId, answer: &Answer) -> Result<(), MediaError> {
        let unpublished = self.fenced(now, id, |endpoint, pipeline, host, effects| {
            endpoint.handle_answer(now, answer, host, &mut pipeline.session, effects)
        })?;
        self.after_description(now, id);
        if !unpublished.is_empty() {
            self.emit(MediaEvent::Unpublished { endpoint_id: id, tracks: unpublished });
        }
        Ok(())
    }

    /// Brings the tables in line with what a description changed, and tells the others.
    fn after_description(&mut self, now: Instant, id: EndpointId) {
        let Some(key) = self.by_id.get(&id).copied() else { return };
        let Some(member) = &mut self.members[key] else { return };
        for fragment in member.endpoint.fragments() {
            self.demux.bind_fragment(fragment, key);
        }
        let candidates = member.endpoint.take_candidates(&self.announced);
        let pipeline = member.pipeline;
        let sources = member.endpoint.source_tracks();
        if let Some(candidates) = candidates {
            self.emit(MediaEvent::Candidates { endpoint_id: id, candidates });
        }
        self.set_sources(now, key, pipeline, sources);
        self.want_offer(now, key);
    }

    /// Replaces the tracks that `publisher` has in the pipeline. Whoever is affected is offered.
    fn set_sources(
        &mut self,
        now: Instant,
        publisher: EndpointKey,
        pipeline: PipelineKey,
        tracks: Vec<SourceTrack>,
    ) {
        let Some(hosted) = &mut self.pipelines[pipeline] else { return };
        let sources = &mut hosted.pipeline.sources;
        let publications = |tracks: &mut dyn Iterator<Item = &SourceTrack>| {
            tracks.map(|track| track.publication).collect::<Vec<_>>()
        };
        let own = |source: &&Source| source.publisher == Publisher::Here(publisher);
        let before = publications(&mut sources.iter().filter(own).map(|source| &source.track));
        let after = publications(&mut tracks.iter());
        sources.retain(|source| source.publisher != Publisher::Here(publisher));
        sources
            .extend(tracks.into_iter().map(|track| Source { publisher: Publisher::Here(publisher), track }));
        if before == after {
            return;
        }
        for gone in before.iter().filter(|publication| !after.contains(publication)) {
            hosted.pipeline.forget(*gone);
        }
        let others: Vec<_> =
            hosted.pipeline.members.iter().copied().filter(|key| *key != publisher).collect();
        self.tell_sources(pipeline);
        for key in others {
            self.want_offer(now, key);
        }
    }

    /// Notes that an endpoint may have something to be offered. The offer itself is made in its own slice of time:
    /// two hundred subscribers of a new track are two hundred descriptions.
    fn want_offer(&mut self, now: Instant, key: EndpointKey) {
        if let Some(member) = &mut self.members[key] {
            member.endpoint.negotiation().want_offer();
            self.schedule_endpoint(now, key);
        }
    }

    fn offer_if_due(&mut self, now: Instant, key: EndpointKey) {
        let Some(member) = &mut self.members[key] else { return };
        if member.endpoint.is_closed() || !member.endpoint.negotiation().is_offer_due(now) {
            return;
        }
        let id = member.endpoint.id;
        let made = self.fenced(now, id, |endpoint, pipeline, host, _| {
            let wanted = pipeline.wanted_by(key);
            let made = endpoint.make_offer(now, &wanted, host, &mut pipeline.session);
            for (subscription, line) in endpoint.subscriptions() {
                pipeline.set_route(Route { subscription, endpoint: key, line });
            }
            Ok(made)
        });
        let Ok(Some(made)) = made else { return };
        let (revision, sdp, tracks) = (made.revision, made.sdp, made.tracks);
        self.emit(MediaEvent::Offer { endpoint_id: id, revision, sdp, tracks });
        let announced = &self.announced;
        let candidates =
            self.members[key].as_mut().and_then(|member| member.endpoint.take_candidates(announced));
        if let Some(candidates) = candidates {
            self.emit(MediaEvent::Candidates { endpoint_id: id, candidates });
        }
    }

    fn candidates(
        &mut self,
        now: Instant,
        id: EndpointId,
        candidates: &[Candidate],
    ) -> Result<(), MediaError> {
        self.fenced(now, id, |endpoint, _, _, _| endpoint.add_candidates(candidates))
    }

    fn set_muted(
        &mut self,
        now: Instant,
        id: EndpointId,
        track: TrackId,
        muted: bool,
    ) -> Result<Track, MediaError> {
        let result = self.fenced(now, id, |endpoint, pipeline, _, _| {
            let changed = endpoint.set_muted(now, track, muted, &mut pipeline.session)?;
            let source = pipeline.sources.iter_mut().find(|source| source.track.track_id == track);
            let publication = source.map(|source| {
                source.track.muted = muted;
                source.track.publication
            });
            Ok((changed, pipeline.id, publication))
        });
        let (changed, pipeline, publication) = result?;
        if let Some(publication) = publication {
            let origin = Origin { pipeline, shard: self.exchange.shard(), publication };
            self.exchange.tell_all(&Told::Muted { origin, muted });
        }
        Ok(changed)
    }

    fn close_endpoint(&mut self, now: Instant, id: EndpointId) -> Result<(), MediaError> {
        let key = self.by_id.get(&id).copied().ok_or(MediaError::EndpointGone)?;
        self.remove(now, key, true);
        Ok(())
    }

    fn close_pipeline(&mut self, now: Instant, id: PipelineId) {
        let Some(hosted) = self.pipeline_by_id.get(&id).and_then(|key| self.pipelines[*key].as_ref()) else {
            return;
        };
        for key in hosted.pipeline.members.clone() {
            self.remove(now, key, true);
        }
    }

    /// Ends everything.
    pub fn close(&mut self, now: Instant) {
        for key in 0..self.members.len() {
            self.remove(now, key, true);
        }
    }

    /// Takes an endpoint out of all tables.
    fn remove(&mut self, now: Instant, key: EndpointKey, farewell: bool) {
        let Some(mut member) = self.members.get_mut(key).and_then(Option::take) else { return };
        self.free_members.push(key);
        let endpoint = &mut member.endpoint;
        self.by_id.remove(&endpoint.id);
        for fragment in endpoint.fragments() {
            self.demux.forget_fragment(fragment);
        }
        for path in endpoint.paths().to_vec() {
            self.demux.forget_path(path, Owner::Here(key));
            self.tell_forgotten(path);
        }
        let endpoint = &mut member.endpoint;
        self.directory.remove(endpoint.id);
        if farewell {
            let mut effects = Effects::default();
            let closed = catch_unwind(AssertUnwindSafe(|| endpoint.close(now, &mut effects)));
            if closed.is_ok() {
                self.egress_all(&mut effects);
            }
        }
        let pipeline = member.pipeline;
        let Some(hosted) = &mut self.pipelines[pipeline] else { return };
        for (subscription, _) in endpoint.subscriptions() {
            hosted.pipeline.session.unsubscribe(subscription);
        }
        let own = Publisher::Here(key);
        let sources = hosted.pipeline.sources.iter().filter(|source| source.publisher == own);
        for publication in sources.map(|source| source.track.publication).collect::<Vec<_>>() {
            hosted.pipeline.session.unpublish(publication);
            hosted.pipeline.forget(publication);
        }
        hosted.pipeline.members.retain(|other| *other != key);
        if hosted.pipeline.members.is_empty() {
            let id = hosted.pipeline.id;
            // Its drops stay in the totals.
            self.stats.drops += hosted.pipeline.drops();
            self.directory.set_tracks(id, self.exchange.shard(), 0);
            self.pipeline_by_id.remove(&id);
            self.pipelines[pipeline] = None;
            self.free_pipelines.push(pipeline);
            let shard = self.exchange.shard();
            self.exchange.tell_all(&Told::Left { pipeline: id, shard });
        } else {
            self.count_tracks(pipeline);
            self.set_sources(now, key, pipeline, Vec::new());
        }
    }

    /// Takes one datagram.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += datagram.len() as u64;
        self.take_datagram(now, path, datagram, false);
    }

    /// `is_handed_over`: another shard found that it is for this one.
    fn take_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8], is_handed_over: bool) {
        let key = match self.demux.owner(path, datagram) {
            Some(Owner::Here(key)) => key,
            Some(Owner::There(shard)) if !is_handed_over && self.exchange.knows(shard) => {
                let is_known = self.demux.is_bound(path, shard);
                self.exchange.hand_over(shard, path, datagram, is_known);
                return;
            }
            _ => {
                self.stats.drops += 1;
                return;
            }
        };
        if transport::kind(datagram) != Kind::Dtls {
            self.hand_in(now, key, path, datagram);
        } else if self.handshakes.len() < MAX_HANDSHAKES {
            // A flight of a handshake costs as much as hundreds of packets.
            self.handshakes.push_back((key, path, datagram.to_vec()));
        } else {
            self.stats.drops += 1;
        }
    }

    /// Handles DTLS records that wait, one at least and then as many as fit before `until`. Returns whether
    /// some are left.
    pub fn handle_handshakes(&mut self, now: Instant, until: Instant) -> bool {
        while let Some((key, path, mut datagram)) = self.handshakes.pop_front() {
            // The endpoint may have ended, and its place may be another's by now.
            if self.demux.owner(path, &datagram) == Some(Owner::Here(key)) {
                self.hand_in(now, key, path, &mut datagram);
            }
            if Instant::now() >= until {
                break;
            }
        }
        !self.handshakes.is_empty()
    }

    fn hand_in(&mut self, now: Instant, key: EndpointKey, path: Path, datagram: &mut [u8]) {
        let _: Result<(), _> = self.fenced_at(now, key, |endpoint, pipeline, _, effects| {
            endpoint.handle_datagram(now, path, datagram, pipeline, effects);
            Ok(())
        });
    }

    /// As [`Hub::fenced_at`], for an endpoint by its id.
    fn fenced<T>(
        &mut self,
        now: Instant,
        id: EndpointId,
        call: impl FnOnce(&mut Endpoint, &mut Pipeline, &Host<'_>, &mut Effects) -> Result<T, MediaError>,
    ) -> Result<T, MediaError> {
        let key = self.by_id.get(&id).copied().ok_or(MediaError::EndpointGone)?;
        self.fenced_at(now, key, call)
    }

    /// Runs `call` on an endpoint and carries out its effects. A panic closes the endpoint.
    fn fenced_at<T>(
        &mut self,
        now: Instant,
        key: EndpointKey,
        call: impl FnOnce(&mut Endpoint, &mut Pipeline, &Host<'_>, &mut Effects) -> Result<T, MediaError>,
    ) -> Result<T, MediaError> {
        let member = self.members[key].as_mut().ok_or(MediaError::EndpointGone)?;
        let pipeline_key = member.pipeline;
        let hosted = self.pipelines[pipeline_key].as_mut().ok_or(MediaError::EndpointGone)?;
        let host = Host { identity: &self.identity, announced: &self.announced };
        let mut effects = std::mem::take(&mut self.spare_effects);
        let result = catch_unwind(AssertUnwindSafe(|| {
            call(&mut member.endpoint, &mut hosted.pipeline, &host, &mut effects)
        }));
        let result = result.unwrap_or_else(|_| {
            // What it wanted before it panicked is not to be trusted.
            effects = Effects::default();
            self.fault(now, key);
            Err(MediaError::EndpointGone)
        });
        self.carry_out(now, key, pipeline_key, &mut effects);
        self.spare_effects = effects;
        result
    }

    fn fault(&mut self, now: Instant, key: EndpointKey) {
        let Some(member) = &self.members[key] else { return };
        let endpoint_id = member.endpoint.id;
        tracing::error!(%endpoint_id, "an endpoint panicked and is closed");
        self.remove(now, key, false);
        self.emit(MediaEvent::State { endpoint_id, state: ConnectionState::Closed(CloseCause::Fault) });
    }

    /// Does what an endpoint wants done and leaves `effects` empty.
    fn carry_out(&mut self, now: Instant, key: EndpointKey, pipeline: PipelineKey, effects: &mut Effects) {
        self.stats.drops += std::mem::take(&mut effects.drops);
        self.egress_all(effects);
        if std::mem::take(&mut effects.repairs) {
            self.dirty.push(key);
        }
        for path in effects.forgotten.drain(..) {
            self.demux.forget_path(path, Owner::Here(key));
            self.tell_forgotten(path);
        }
        for path in effects.bound.drain(..) {
            self.demux.bind_path(path, Owner::Here(key));
            self.tell_bound(path);
        }
        for fragment in effects.retired.drain(..) {
            self.demux.forget_fragment(&fragment);
        }
        for received in effects.received.drain(..) {
            self.forward(now, pipeline, received);
        }
        self.cross(pipeline);
        self.carry_out_decisions(now, pipeline);
        for state in effects.states.drain(..) {
            let Some(member) = &self.members[key] else { break };
            let endpoint_id = member.endpoint.id;
            if matches!(state, ConnectionState::Closed(_)) {
                self.remove(now, key, true);
            }
            self.emit(MediaEvent::State { endpoint_id, state });
        }
        self.count_tracks(pipeline);
        self.schedule_endpoint(now, key);
        self.schedule_pipeline(pipeline);
    }

    /// Tells the directory how many tracks a pipeline has here, when that has changed.
    fn count_tracks(&mut self, key: PipelineKey) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        let tracks = hosted.pipeline.session.tracks();
        if std::mem::replace(&mut hosted.tracks, tracks) != tracks {
            self.directory.set_tracks(hosted.pipeline.id, self.exchange.shard(), tracks);
        }
    }

    fn forward(&mut self, now: Instant, key: PipelineKey, received: Received) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        match received {
            Received::KeyframeRequest { subscription } => {
                hosted.pipeline.session.handle_keyframe_request(now, subscription);
            }
            Received::SenderReport { publication, ntp, rtp } => {
                let origin =
                    Origin { pipeline: hosted.pipeline.id, shard: self.exchange.shard(), publication };
                for peer in &hosted.pipeline.peers {
                    self.exchange.send(*peer, Media::Report { origin, ntp, rtp });
                }
                self.send_reports(now, key, publication, ntp, rtp);
            }
        }
    }

    /// Passes a publisher's report on to the subscribers of this shard.
    fn send_reports(
        &mut self,
        now: Instant,
        key: PipelineKey,
        publication: PublicationId,
        ntp: u64,
        rtp: u32,
    ) {
        let mut number = 0;
        while let Some(hosted) = &self.pipelines[key]
            && let Some(route) = hosted.pipeline.route_of(publication, number)
        {
            number += 1;
            let Some(route) = route else { continue };
            self.touch(now, route.endpoint, |endpoint, effects| {
                endpoint.send_report(route.line, ntp, rtp, effects);
            });
        }
    }

    /// Asks whoever publishes a track for a keyframe.
    fn request_keyframe(&mut self, now: Instant, key: PipelineKey, publication: PublicationId) {
        let Some(hosted) = &self.pipelines[key] else { return };
        match hosted.pipeline.publisher(publication) {
            Some(Publisher::Here(publisher)) => self.touch(now, publisher, |endpoint, effects| {
                endpoint.request_keyframe(publication, effects);
            }),
            Some(Publisher::There(origin)) => {
                self.exchange.send(origin.shard, Media::RequestKeyframe { origin });
            }
            None => {}
        }
    }

    /// Carries out what the forwarding core decided: packets are collected for their subscribers.
    fn carry_out_decisions(&mut self, now: Instant, key: PipelineKey) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        hosted.pipeline.decide(None);
        let mut decisions = std::mem::take(&mut hosted.pipeline.decisions);
        for decision in decisions.drain(..) {
            match decision {
                Decision::Send { endpoint, packet } => {
                    let Some(member) = self.members.get_mut(endpoint).and_then(Option::as_mut) else {
                        continue;
                    };
                    if member.endpoint.queue(packet) {
                        self.dirty.push(endpoint);
                    }
                }
                Decision::RequestKeyframe { publication } => self.request_keyframe(now, key, publication),
            }
        }
        if let Some(hosted) = &mut self.pipelines[key] {
            hosted.pipeline.decisions = decisions;
        }
    }

    /// Sends everything that waits, one subscriber after the other.
    pub fn flush(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(member) = self.members.get_mut(key).and_then(Option::as_mut) else { continue };
            let Some(hosted) = &self.pipelines[member.pipeline] else { continue };
            let flushed = catch_unwind(AssertUnwindSafe(|| {
                member.endpoint.flush(now, &hosted.pipeline, &mut self.egress)
            }));
            match flushed {
                Ok(drops) => self.stats.drops += drops,
                Err(_) => self.fault(now, key),
            }
        }
        self.dirty = dirty;
        self.egress.flush();
        self.exchange.wake();
    }

    fn egress_all(&mut self, effects: &mut Effects) {
        for (path, datagram) in effects.transmits.iter() {
            self.egress.push(path, datagram);
        }
        effects.transmits.clear();
    }

    /// Lets an endpoint send something; it can have no other effect than transmits and drops.
    fn touch(&mut self, now: Instant, key: EndpointKey, call: impl FnOnce(&mut Endpoint, &mut Effects)) {
        let Some(member) = self.members.get_mut(key).and_then(Option::as_mut) else { return };
        let mut effects = std::mem::take(&mut self.spare_touch);
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut member.endpoint, &mut effects)));
        self.stats.drops += std::mem::take(&mut effects.drops);
        self.egress_all(&mut effects);
        self.spare_touch = effects;
        if result.is_err() {
            self.fault(now, key);
        }
    }

    /// Does what is due, one thing at least and then as much as fits before `until`. Returns whether
    /// something is left.
    pub fn handle_timeouts(&mut self, now: Instant, until: Instant) -> bool {
        let mut is_first = true;
        while let Some(Reverse((due, timer))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            if !std::mem::replace(&mut is_first, false) && Instant::now() >= until {
                return true;
            }
            self.timers.pop();
            match timer {
                Timer::Endpoint(key) => {
                    let Some(member) = self.members.get_mut(key).and_then(Option::as_mut) else { continue };
                    if member.scheduled != Some(due) {
                        continue;
                    }
                    member.scheduled = None;
                    let _: Result<(), _> = self.fenced_at(now, key, |endpoint, pipeline, _, effects| {
                        endpoint.handle_timeout(now, &mut pipeline.session, effects);
                        Ok(())
                    });
                    self.offer_if_due(now, key);
                    self.schedule_endpoint(now, key);
                }
                Timer::Pipeline(key) => {
                    let Some(hosted) = self.pipelines.get_mut(key).and_then(Option::as_mut) else { continue };
                    if hosted.scheduled != Some(due) {
                        continue;
                    }
                    hosted.scheduled = None;
                    hosted.pipeline.session.handle_timeout(now);
                    self.carry_out_decisions(now, key);
                    self.schedule_pipeline(key);
                }
            }
        }
        false
    }

    /// Datagrams received since the beginning.
    #[cfg(test)]
    pub fn packets_in(&self) -> u64 {
        self.stats.packets_in
    }

    /// Packets sent since the beginning.
    pub fn packets_out(&self) -> u64 {
        self.egress.sent().packets
    }

    /// When there is something to do without being asked.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    fn schedule_endpoint(&mut self, now: Instant, key: EndpointKey) {
        let Some(member) = self.members.get_mut(key).and_then(Option::as_mut) else { return };
        schedule(
            &mut self.timers,
            &mut member.scheduled,
            member.endpoint.poll_timeout(now),
            Timer::Endpoint(key),
        );
    }

    fn schedule_pipeline(&mut self, key: PipelineKey) {
        let Some(hosted) = self.pipelines.get_mut(key).and_then(Option::as_mut) else { return };
        let due = hosted.pipeline.session.poll_timeout();
        schedule(&mut self.timers, &mut hosted.scheduled, due, Timer::Pipeline(key));
    }

    fn emit(&mut self, event: MediaEvent) {
        self.backlog.push_back(event);
    }

    /// Hands events to the control plane, as many as it has room for. Returns whether some are left.
    pub fn flush_events(&mut self) -> bool {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return true;
                }
                // Nobody listens any more.
                Err(mpsc::error::TrySendError::Closed(_)) => self.backlog.clear(),
            }
        }
        false
    }
}

/// Enters a timer if it is earlier than what is entered already; a later one is entered when that fires.
fn schedule(
    timers: &mut BinaryHeap<Reverse<(Instant, Timer)>>,
    scheduled: &mut Option<Instant>,
    due: Option<Instant>,
    timer: Timer,
) {
    if let Some(due) = due
        && scheduled.is_none_or(|entered| due < entered)
    {
        *scheduled = Some(due);
        timers.push(Reverse((due, timer)));
    }
}
