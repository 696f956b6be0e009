//! Offers, answers and candidates of endpoints, what they change in the tables, and who is offered something because of it.

use std::time::Instant;

use common::message::{Answer, Candidate, IceFragment, IfMatch, Offer};
use common::model::{EndpointId, TrackId};

use super::{Hub, PipelineKey};
use crate::media::endpoint::SourceTrack;
use crate::media::pipeline::{EndpointKey, Publisher, Route, Source};
use crate::media::{IceOutcome, MediaError, MediaEvent, Negotiated};

impl Hub {
    pub(super) fn offer(
        &mut self,
        now: Instant,
        id: EndpointId,
        offer: &Offer,
    ) -> Result<Negotiated, MediaError> {
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

    pub(super) fn answer(&mut self, now: Instant, id: EndpointId, answer: &Answer) -> Result<(), MediaError> {
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
        let candidates = member.endpoint.take_candidates(&self.candidates);
        let pipeline = member.pipeline;
        let sources = member.endpoint.source_tracks();
        if let Some(candidates) = candidates {
            self.emit(MediaEvent::Candidates { endpoint_id: id, candidates });
        }
        self.set_sources(now, key, pipeline, sources);
        self.want_offer(now, key);
    }

    /// Replaces the tracks that `publisher` has in the pipeline. Whoever is affected is offered.
    pub(super) fn set_sources(
        &mut self,
        now: Instant,
        publisher: EndpointKey,
        pipeline: PipelineKey,
        tracks: Vec<SourceTrack>,
    ) {
        let Some(hosted) = &mut self.pipelines[pipeline] else { return };
        let sources = &mut hosted.pipeline.sources;
        let publications = |tracks: &mut dyn Iterator<Item = &SourceTrack>| {
            tracks.map(|track| (track.publication, track.encodings)).collect::<Vec<_>>()
        };
        let own = |source: &&Source| source.publisher == Publisher::Here(publisher);
        let before = publications(&mut sources.iter().filter(own).map(|source| &source.track));
        let after = publications(&mut tracks.iter());
        sources.retain(|source| source.publisher != Publisher::Here(publisher));
        sources
            .extend(tracks.into_iter().map(|track| Source { publisher: Publisher::Here(publisher), track }));
        if before == after {
            return self.restage(now, pipeline);
        }
        for (gone, _) in before.iter().filter(|(before, _)| after.iter().all(|(after, _)| before != after)) {
            hosted.pipeline.forget(*gone);
        }
        let others: Vec<_> =
            hosted.pipeline.members.iter().copied().filter(|key| *key != publisher).collect();
        self.restage(now, pipeline);
        self.tell_sources(pipeline);
        for key in others {
            self.want_offer(now, key);
        }
    }

    /// Notes that an endpoint may have something to be offered. The offer itself is made in its own slice of time:
    /// two hundred subscribers of a new track are two hundred descriptions.
    pub(super) fn want_offer(&mut self, now: Instant, key: EndpointKey) {
        if let Some(member) = &mut self.members[key] {
            member.endpoint.negotiation().want_offer();
            self.schedule_endpoint(now, key);
        }
    }

    pub(super) fn offer_if_due(&mut self, now: Instant, key: EndpointKey) {
        let Some(member) = &mut self.members[key] else { return };
        if member.endpoint.is_closed() || !member.endpoint.negotiation().is_offer_due(now) {
            return;
        }
        let id = member.endpoint.id;
        if member.endpoint.is_fixed() {
            return self.fill(now, key);
        }
        let made = self.fenced(now, id, |endpoint, pipeline, host, _| {
            let wanted = pipeline.wanted_by(key);
            let made = endpoint.make_offer(now, &wanted, host, &mut pipeline.session);
            endpoint.begin_held(now, pipeline);
            for (subscription, line) in endpoint.subscriptions() {
                pipeline.set_route(Route { subscription, endpoint: key, line });
            }
            Ok(made)
        });
        let Ok(Some(made)) = made else { return };
        let (revision, sdp, tracks) = (made.revision, made.sdp, made.tracks);
        self.emit(MediaEvent::Offer { endpoint_id: id, revision, sdp, tracks });
        let own = &self.candidates;
        let candidates = self.members[key].as_mut().and_then(|member| member.endpoint.take_candidates(own));
        if let Some(candidates) = candidates {
            self.emit(MediaEvent::Candidates { endpoint_id: id, candidates });
        }
    }

    /// Chooses anew what the m-lines of an endpoint carry whose client is never offered anything.
    fn fill(&mut self, now: Instant, key: EndpointKey) {
        let _: Result<(), _> = self.fenced_at(now, key, |endpoint, pipeline, _, _| {
            endpoint.negotiation().unwant_offer();
            let wanted = pipeline.wanted_by(key);
            endpoint.fill(now, &wanted, &pipeline.speaking, &mut pipeline.session);
            for (subscription, line) in endpoint.subscriptions() {
                pipeline.set_route(Route { subscription, endpoint: key, line });
            }
            Ok(())
        });
    }

    /// Others speak than before, or a track was muted or is back: whoever gets some of the tracks may get others.
    pub(super) fn want_fill(&mut self, now: Instant, pipeline: PipelineKey) {
        let Some(hosted) = &self.pipelines[pipeline] else { return };
        let is_fixed =
            |key: &EndpointKey| self.members[*key].as_ref().is_some_and(|member| member.endpoint.is_fixed());
        for key in hosted.pipeline.members.iter().copied().filter(is_fixed).collect::<Vec<_>>() {
            self.want_offer(now, key);
        }
    }

    /// Candidates, or an ICE restart without a description.
    pub(super) fn ice(
        &mut self,
        now: Instant,
        id: EndpointId,
        fragment: &IceFragment,
        if_match: &IfMatch,
    ) -> Result<IceOutcome, MediaError> {
        let outcome = self.fenced(now, id, |endpoint, _, host, effects| {
            endpoint.handle_fragment(now, fragment, if_match, host.candidates, effects)
        })?;
        if let Some(key) = self.by_id.get(&id).copied()
            && let Some(member) = &self.members[key]
        {
            for fragment in member.endpoint.fragments() {
                self.demux.bind_fragment(fragment, key);
            }
        }
        Ok(outcome)
    }

    pub(super) fn candidates(
        &mut self,
        now: Instant,
        id: EndpointId,
        candidates: &[Candidate],
    ) -> Result<(), MediaError> {
        self.fenced(now, id, |endpoint, _, _, _| endpoint.add_candidates(candidates))
    }
}
