//! All endpoints and pipelines of one media thread ("shard"): carries requests, datagrams and timers to them and
//! what they want back to the socket and the control plane.
//!
//! Every call into an endpoint is fenced: a panic ends that endpoint and nothing else.

mod data;
mod descriptions;
mod restart;
mod settings;
mod spanning;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::message::Speaking;
use common::model::{EndpointId, PipelineId, Track, TrackId};
use sfu::speaker::Speaker;
use sfu::{EncodingId, PublicationId, Timestamp};
use tokio::sync::mpsc;

use super::data::DataStats;
use super::demux::{Demux, Owner};
use super::directory::Directory;
use super::drops::Reason;
use super::endpoint::offer::Host;
use super::endpoint::{Effects, Endpoint, Flushed, Received};
use super::exchange::{Exchange, Media, Origin, Told};
use super::pipeline::{Decision, EndpointKey, Pipeline, Publisher};
use super::plane::Request;
use super::socket::egress::Egress;
use super::transport::dtls::Identity;
use super::transport::{self, Kind, Path};
use super::{
    CloseCause, ConnectionState, MediaConfig, MediaError, MediaEvent, MediaStats, OpenEndpoint, Step,
};
use crate::metrics;

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
    /// What descriptions say of where this server is.
    candidates: Arc<[String]>,
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
        candidates: Arc<[String]>,
        egress: Egress,
        events: mpsc::Sender<MediaEvent>,
    ) -> Self {
        Self {
            config,
            directory,
            exchange,
            identity,
            candidates,
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
            Request::Ice(id, fragment, if_match, respond) => {
                drop(respond.send(self.ice(now, id, &fragment, &if_match)));
            }
            Request::SetMuted(id, track, muted, respond) => {
                drop(respond.send(self.set_muted(now, id, track, muted)));
            }
            Request::SetWish(id, track, wish, respond) => {
                let result = self.fenced(now, id, |endpoint, pipeline, _, effects| {
                    endpoint.set_wish(now, track, wish, pipeline, effects)
                });
                drop(respond.send(result));
            }
            Request::SetSettings(id, settings, respond) => {
                self.set_settings(now, id, &settings);
                let _ = respond.send(());
            }
            Request::CloseEndpoint(id, respond) => {
                let closed = self.close_endpoint(now, id);
                // Who is told that it is over finds that it is known what it was like.
                self.flush_events();
                drop(respond.send(closed));
            }
            Request::ClosePipeline(id, respond) => {
                self.close_pipeline(now, id);
                let _ = respond.send(());
            }
            Request::EndpointStats(id, respond) => {
                let result = self
                    .fenced(now, id, |endpoint, pipeline, _, _| Ok(endpoint.stats(now, &pipeline.session)));
                drop(respond.send(result));
            }
            Request::Stats(respond) => drop(respond.send(self.stats(now))),
            Request::InjectFault(id, respond) => {
                let result = self.fenced(now, id, |endpoint, _, _, _| {
                    endpoint.inject_fault();
                    Ok(())
                });
                drop(respond.send(result));
            }
            Request::InjectThreadFault(respond) => {
                drop(respond);
                panic!("a fault of the thread, as the test wants it");
            }
            Request::Shutdown(_) => unreachable!("the thread keeps it for itself"),
        }
    }

    fn stats(&self, now: Instant) -> MediaStats {
        let estimates = || self.members.iter().flatten().filter_map(|it| it.endpoint.estimate(now));
        let sent = self.egress.sent();
        let (mut drops, mut repairs, mut qualities) = (self.stats.drops, self.stats.repairs, [0; 4]);
        drops.add(Reason::Socket, sent.drops);
        drops.add(Reason::Crossing, self.exchange.drops());
        for hosted in self.pipelines.iter().flatten() {
            drops += hosted.pipeline.drops();
        }
        for member in self.members.iter().flatten() {
            repairs += member.endpoint.repairs;
            if let Some(quality) = member.endpoint.quality() {
                qualities[quality as usize] += 1;
            }
        }
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
            drops,
            repairs,
            qualities,
            waiting_events: self.backlog.len() as u64,
            estimated: estimates().count() as u64,
            estimated_bitrate: estimates().sum(),
            data: self.data_stats(),
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
        self.adopt(now, pipeline, &open.treatment.settings);
        if let (Some(hosted), Some(member)) = (&mut self.pipelines[pipeline], &mut self.members[key]) {
            hosted.pipeline.members.push(key);
            if let Some(settings) = &hosted.pipeline.settings {
                member.endpoint.set_settings(now, settings);
            }
            if member.endpoint.has_own_limit() {
                hosted.pipeline.note_own_limit();
                hosted.pipeline.restage();
            }
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
            publication.into_iter().for_each(|it| pipeline.note_muted(it, muted));
            Ok((changed, pipeline.id, publication))
        });
        let (changed, pipeline, publication) = result?;
        if let Some(key) = self.pipeline_by_id.get(&pipeline).copied() {
            self.want_fill(now, key);
        }
        if let Some(publication) = publication {
            let origin = Origin { pipeline, shard: self.exchange.shard(), publication };
            self.exchange.tell_all(&Told::Muted { origin, muted });
            if let Some(key) = self.pipeline_by_id.get(&pipeline).copied() {
                self.restage(now, key);
            }
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
            self.forget_path(path, key);
        }
        if let Some(summary) = member.endpoint.last_summary(now) {
            self.emit(MediaEvent::Ended(Box::new(summary)));
        }
        let endpoint = &mut member.endpoint;
        self.stats.repairs += endpoint.repairs;
        endpoint.steps.unconnected().into_iter().for_each(metrics::unconnected);
        self.stats.data += DataStats { open: [0; 2], ..endpoint.data_stats() };
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

    fn forget_path(&mut self, path: Path, key: EndpointKey) {
        if self.demux.forget_path(path, Owner::Here(key)) {
            self.egress.forget(path);
        }
        self.tell_forgotten(path);
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
                self.stats.drops.note(Reason::Stranger);
                return;
            }
        };
        if transport::kind(datagram) != Kind::Dtls {
            self.hand_in(now, key, path, datagram);
        } else if self.handshakes.len() < MAX_HANDSHAKES {
            // A flight of a handshake costs as much as hundreds of packets.
            self.handshakes.push_back((key, path, datagram.to_vec()));
        } else {
            self.stats.drops.note(Reason::Handshake);
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
        let host = Host { identity: &self.identity, candidates: &self.candidates };
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
        metrics::closed(CloseCause::Fault);
        self.emit(MediaEvent::State { endpoint_id, state: ConnectionState::Closed(CloseCause::Fault) });
    }

    /// An endpoint has got that far: a few times in its life. Told where traces are recorded only.
    fn note_step(&mut self, key: EndpointKey, step: Step, took: Duration) {
        metrics::step(step, took);
        if common::spans::is_on()
            && let Some(endpoint_id) = self.members[key].as_ref().map(|member| member.endpoint.id)
        {
            self.emit(MediaEvent::Step { endpoint_id, step, at: SystemTime::now(), took });
        }
    }

    /// Does what an endpoint wants done and leaves `effects` empty.
    fn carry_out(&mut self, now: Instant, key: EndpointKey, pipeline: PipelineKey, effects: &mut Effects) {
        self.note_drops(effects);
        for (step, took) in effects.steps.drain(..) {
            self.note_step(key, step, took);
        }
        self.egress_all(effects);
        if std::mem::take(&mut effects.flush) {
            self.dirty.push(key);
        }
        if !effects.suspensions.is_empty()
            && let Some(member) = &self.members[key]
        {
            let suspensions = std::mem::take(&mut effects.suspensions);
            self.emit(MediaEvent::Suspensions { endpoint_id: member.endpoint.id, suspensions });
        }
        for path in effects.forgotten.drain(..) {
            self.forget_path(path, key);
        }
        for path in effects.bound.drain(..) {
            self.demux.bind_path(path, Owner::Here(key));
            self.egress.note_bound(path);
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
        if !effects.messages.is_empty() {
            self.say(now, pipeline, std::mem::take(&mut effects.messages));
        }
        for track_id in effects.refused.drain(..) {
            let (Some(member), Some(hosted)) = (&self.members[key], &self.pipelines[pipeline]) else { break };
            let source = hosted.pipeline.sources.iter().find(|source| source.track.track_id == track_id);
            if let Some(codec) = source.map(|source| source.track.codec) {
                let endpoint_id = member.endpoint.id;
                self.emit(MediaEvent::Refused { endpoint_id, track_id, codec });
            }
        }
        if let Some(quality) = effects.quality.take()
            && let (Some(member), Some(hosted)) = (&self.members[key], &mut self.pipelines[pipeline])
        {
            hosted.pipeline.news.note(now, member.endpoint.participant_id, quality);
        }
        for state in effects.states.drain(..) {
            let Some(member) = &self.members[key] else { break };
            let endpoint_id = member.endpoint.id;
            if let ConnectionState::Closed(cause) = state {
                metrics::closed(cause);
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
            Received::SenderReport { publication, encoding, ntp, rtp } => {
                let origin =
                    Origin { pipeline: hosted.pipeline.id, shard: self.exchange.shard(), publication };
                for peer in &hosted.pipeline.peers {
                    self.exchange.send(*peer, Media::Report { origin, encoding, ntp, rtp });
                }
                self.send_reports(now, key, publication, encoding, (ntp, rtp));
            }
        }
    }

    /// Passes a publisher's report on to the subscribers of this shard that get its encoding.
    fn send_reports(
        &mut self,
        now: Instant,
        key: PipelineKey,
        publication: PublicationId,
        encoding: EncodingId,
        (ntp, rtp): (u64, u32),
    ) {
        if let Some(hosted) = &mut self.pipelines[key] {
            hosted.pipeline.session.handle_sender_report(publication, encoding, ntp, Timestamp(rtp));
        }
        let mut number = 0;
        while let Some(hosted) = &self.pipelines[key]
            && let Some(route) = hosted.pipeline.route_of(publication, number)
        {
            number += 1;
            let Some(route) = route else { continue };
            let sent = hosted.pipeline.session.sent_time(route.subscription, encoding, Timestamp(rtp));
            let Some(Timestamp(rtp)) = sent else { continue };
            self.touch(now, route.endpoint, |endpoint, effects| {
                endpoint.send_report(now, route.line, ntp, rtp, effects);
            });
        }
    }

    /// Asks whoever publishes a track for a keyframe of one encoding.
    fn request_keyframe(
        &mut self,
        now: Instant,
        key: PipelineKey,
        publication: PublicationId,
        encoding: EncodingId,
    ) {
        let Some(hosted) = &self.pipelines[key] else { return };
        match hosted.pipeline.publisher(publication) {
            Some(Publisher::Here(publisher)) => self.touch(now, publisher, |endpoint, effects| {
                endpoint.request_keyframe(publication, encoding, effects);
            }),
            Some(Publisher::There(origin)) => {
                self.exchange.send(origin.shard, Media::RequestKeyframe { origin, encoding });
            }
            None => {}
        }
    }

    /// Tells whoever publishes a track how many of its encodings are watched.
    fn demand(&mut self, key: PipelineKey, publication: PublicationId, encodings: u8) {
        let Some(hosted) = &self.pipelines[key] else { return };
        let source = hosted.pipeline.sources.iter().find(|source| source.track.publication == publication);
        let Some(source) = source else { return };
        let track_id = source.track.track_id;
        match source.publisher {
            Publisher::Here(publisher) => {
                if let Some(member) = &self.members[publisher] {
                    self.emit(MediaEvent::Demand { endpoint_id: member.endpoint.id, track_id, encodings });
                }
            }
            Publisher::There(origin) => self.tell_demand(origin, encodings),
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
                Decision::RequestKeyframe { publication, encoding } => {
                    self.request_keyframe(now, key, publication, encoding);
                }
                Decision::Demand { publication, encodings } => self.demand(key, publication, encodings),
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
                Ok(Flushed { drops, first }) => {
                    self.stats.drops.add(Reason::Unsendable, drops);
                    let due = member.endpoint.poll_waiting(now);
                    schedule(&mut self.timers, &mut member.scheduled, due, Timer::Endpoint(key));
                    if let Some((step, took)) = first {
                        self.note_step(key, step, took);
                    }
                }
                Err(_) => self.fault(now, key),
            }
        }
        self.dirty = dirty;
        self.egress.flush();
        self.egress.wake();
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
        self.note_drops(&mut effects);
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
                        endpoint.handle_timeout(now, pipeline, effects);
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
                    let (pipeline_id, news) = (hosted.pipeline.id, hosted.pipeline.news.take(now));
                    if let Some(list) = hosted.pipeline.handle_speakers(now) {
                        self.tell_speakers(key, &list);
                        self.restage(now, key);
                        self.want_fill(now, key);
                    }
                    if let Some(participants) = news {
                        self.emit(MediaEvent::Quality { pipeline_id, participants });
                    }
                    self.carry_out_decisions(now, key);
                    self.schedule_pipeline(key);
                }
            }
        }
        false
    }

    fn note_drops(&mut self, effects: &mut Effects) {
        for reason in effects.drops.drain(..) {
            self.stats.drops.note(reason);
        }
    }

    /// A packet's way through took so long, and stands for so many.
    pub fn note_forwarding(&mut self, took: Duration, count: u64) {
        self.stats.forwarding.note(took, count);
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
        let due = hosted.pipeline.poll_timeout();
        schedule(&mut self.timers, &mut hosted.scheduled, due, Timer::Pipeline(key));
    }

    /// Every shard of a room that spans hears everybody; the first of them tells.
    fn tell_speakers(&mut self, key: PipelineKey, list: &[Speaker<PublicationId>]) {
        let Some(hosted) = &self.pipelines[key] else { return };
        let shard = self.exchange.shard();
        if hosted.pipeline.peers.first().is_some_and(|first| *first < shard) {
            return;
        }
        let track = |publication| {
            hosted
                .pipeline
                .sources
                .iter()
                .map(|source| &source.track)
                .find(|it| it.publication == publication)
        };
        let speakers = list.iter().filter_map(|speaker| {
            let track = track(speaker.key)?;
            Some(Speaking {
                participant_id: track.participant_id,
                track_id: track.track_id,
                level: speaker.level,
            })
        });
        let pipeline_id = hosted.pipeline.id;
        let speakers = speakers.collect();
        self.emit(MediaEvent::Speakers { pipeline_id, speakers });
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
