//! Rooms that span media threads: every shard keeps its own table of the room, in which the tracks that other
//! shards publish appear as publications of its own ("mirrors").
//!
//! ```text
//!   publisher ─▶ shard 0: publication ─┬─▶ its subscribers here
//!                                      └─ Media::Packet ─▶ shard 1: mirror ─▶ its subscribers there
//!                 keyframe request ◀── Media::RequestKeyframe ──┘
//! ```
//!
//! Numbering, keyframe waiting and retransmission of a mirror are the subscribers' shard's own business, as
//! if the publisher were there.

use std::time::Instant;

use common::model::PipelineId;
use sfu::{Extension, MAX_ENCODINGS, PublicationId};

use super::{Hub, PipelineKey};
use crate::media::demux::Owner;
use crate::media::drops::Reason;
use crate::media::endpoint::SourceTrack;
use crate::media::exchange::{Carried, Media, Origin, Told};
use crate::media::pipeline::{Publisher, Source};
use crate::media::transport::Path;

/// Messages that are carried out before datagrams get their turn.
const MAX_MESSAGES: usize = 256;

impl Hub {
    /// Brings this shard's tables in line with the others'. A shard tells of a path before it answers the
    /// check that bound it; so whoever does this after receiving knows where what it received belongs.
    pub fn handle_tables(&mut self, now: Instant) {
        while let Some(told) = self.exchange.next_told() {
            self.handle_told(now, told);
        }
    }

    /// Carries out what other shards sent. Returns whether there may be more.
    pub fn handle_exchange(&mut self, now: Instant) -> bool {
        self.handle_tables(now);
        let mut count = 0;
        while count < MAX_MESSAGES
            && let Some(media) = self.exchange.next_media()
        {
            self.handle_media(now, media);
            count += 1;
        }
        while let Some(media) = self.exchange.next_stranger() {
            self.handle_media(now, media);
        }
        self.handle_messages(now) || count == MAX_MESSAGES
    }

    fn handle_told(&mut self, now: Instant, told: Told) {
        match told {
            Told::Hosts { pipeline, shard, asks } => {
                let Some(key) = self.pipeline_by_id.get(&pipeline).copied() else { return };
                let Some(hosted) = &mut self.pipelines[key] else { return };
                hosted.pipeline.peers.insert(shard);
                let (own, tracks) = (self.exchange.shard(), hosted.pipeline.own_tracks());
                self.exchange.tell(shard, Told::Sources { pipeline, shard: own, tracks });
                if asks {
                    self.exchange.tell(shard, Told::Hosts { pipeline, shard: own, asks: false });
                }
            }
            Told::Sources { pipeline, shard, tracks } => self.set_mirrors(now, pipeline, shard, &tracks),
            Told::Left { pipeline, shard } => {
                if let Some(key) = self.pipeline_by_id.get(&pipeline).copied()
                    && let Some(hosted) = &mut self.pipelines[key]
                {
                    hosted.pipeline.peers.remove(&shard);
                    let own = self.exchange.shard();
                    for track in hosted.pipeline.own_tracks() {
                        let origin = Origin { pipeline, shard: own, publication: track.publication };
                        self.set_peer_demand(now, origin, shard, None);
                    }
                }
                self.set_mirrors(now, pipeline, shard, &[]);
            }
            Told::Muted { origin, muted } => {
                if let Some((key, mirror)) = self.mirror(&origin)
                    && let Some(hosted) = &mut self.pipelines[key]
                {
                    hosted.pipeline.set_muted(now, mirror, muted);
                    let sources = hosted.pipeline.sources.iter_mut();
                    for source in sources.filter(|source| source.track.publication == mirror) {
                        source.track.muted = muted;
                    }
                    self.restage(now, key);
                    self.want_fill(now, key);
                    self.carry_out_decisions(now, key);
                    self.schedule_pipeline(key);
                }
            }
            Told::Demand { origin, shard, encodings } => {
                self.set_peer_demand(now, origin, shard, Some(encodings));
            }
            Told::Missed { pipeline } => self.miss(now, pipeline),
            Told::Bound { path, shard } => self.demux.bind_path(path, Owner::There(shard)),
            Told::Forgotten { path, shard } => {
                self.demux.forget_path(path, Owner::There(shard));
            }
        }
    }

    fn handle_media(&mut self, now: Instant, media: Media) {
        match media {
            Media::Packet { origin, packet } => {
                if let Some((key, mirror)) = self.mirror(&origin)
                    && let Some(hosted) = &mut self.pipelines[key]
                {
                    hosted.pipeline.handle_packet(now, mirror, &packet.packet());
                    self.carry_out_decisions(now, key);
                    self.schedule_pipeline(key);
                } else {
                    self.stats.drops.note(Reason::Unknown);
                }
                self.exchange.give_back(origin.shard, packet.bytes);
            }
            Media::Report { origin, encoding, ntp, rtp } => {
                if let Some((key, mirror)) = self.mirror(&origin) {
                    self.send_reports(now, key, mirror, encoding, (ntp, rtp));
                }
            }
            Media::RequestKeyframe { origin, encoding } => {
                if let Some(key) = self.pipeline_by_id.get(&origin.pipeline).copied() {
                    self.request_keyframe(now, key, origin.publication, encoding);
                }
            }
            Media::Datagram { from, path, mut bytes } => {
                self.take_datagram(now, path, &mut bytes, true);
                self.exchange.give_back(from, bytes);
            }
        }
    }

    /// This shard's own publication for a track of another one.
    fn mirror(&self, origin: &Origin) -> Option<(PipelineKey, PublicationId)> {
        let key = *self.pipeline_by_id.get(&origin.pipeline)?;
        let mirror = self.pipelines[key].as_ref()?.pipeline.mirrors.get(origin).copied()?;
        Some((key, mirror))
    }

    /// Brings the mirrors of one shard's tracks in line with what it publishes.
    fn set_mirrors(&mut self, now: Instant, id: PipelineId, shard: usize, tracks: &[SourceTrack]) {
        let Some(key) = self.pipeline_by_id.get(&id).copied() else { return };
        let Some(hosted) = &mut self.pipelines[key] else { return };
        let pipeline = &mut hosted.pipeline;
        let origin = |publication| Origin { pipeline: id, shard, publication };
        let gone: Vec<(Origin, PublicationId)> = pipeline
            .mirrors
            .iter()
            .filter(|(known, _)| {
                known.shard == shard && !tracks.iter().any(|track| track.publication == known.publication)
            })
            .map(|(origin, mirror)| (*origin, *mirror))
            .collect();
        let mut changed = !gone.is_empty();
        let mut demanded = Vec::new();
        for (origin, mirror) in gone {
            pipeline.mirrors.remove(&origin);
            pipeline.sources.retain(|source| source.track.publication != mirror);
            pipeline.session.unpublish(mirror);
            pipeline.forget(mirror);
        }
        for track in tracks {
            let origin = origin(track.publication);
            let descriptor = track.extensions.id(Extension::DependencyDescriptor);
            // As a mirror's own demand begins.
            demanded.push(origin);
            if let Some(mirror) = pipeline.mirrors.get(&origin) {
                if !pipeline.session.describe(*mirror, track.encodings, descriptor) {
                    demanded.pop();
                }
                continue;
            }
            let mirror = pipeline.session.publish(track.codec);
            pipeline.session.describe(mirror, track.encodings, descriptor);
            pipeline.session.set_muted(now, mirror, track.muted);
            pipeline.mirrors.insert(origin, mirror);
            let track = SourceTrack { publication: mirror, ..track.clone() };
            pipeline.sources.push(Source { publisher: Publisher::There(origin), track });
            changed = true;
        }
        if changed {
            for member in pipeline.members.clone() {
                self.want_offer(now, member);
            }
            self.count_tracks(key);
        }
        self.restage(now, key);
        for origin in demanded {
            self.tell_demand(origin, MAX_ENCODINGS);
        }
    }

    /// Tells the other shards of the room what this one publishes.
    pub(super) fn tell_sources(&mut self, key: PipelineKey) {
        let Some(hosted) = &self.pipelines[key] else { return };
        let shard = self.exchange.shard();
        let told =
            Told::Sources { pipeline: hosted.pipeline.id, shard, tracks: hosted.pipeline.own_tracks() };
        for peer in &hosted.pipeline.peers {
            self.exchange.tell(*peer, told.clone());
        }
    }

    /// Notes what the subscribers of another shard can use of a track that is published here.
    fn set_peer_demand(&mut self, now: Instant, origin: Origin, shard: usize, encodings: Option<u8>) {
        let Some(key) = self.pipeline_by_id.get(&origin.pipeline).copied() else { return };
        let Some(hosted) = &mut self.pipelines[key] else { return };
        hosted.pipeline.session.set_peer_demand(now, origin.publication, shard, encodings);
        self.carry_out_decisions(now, key);
    }

    pub(super) fn tell_demand(&mut self, origin: Origin, encodings: u8) {
        let shard = self.exchange.shard();
        self.exchange.tell(origin.shard, Told::Demand { origin, shard, encodings });
    }

    /// Passes the packets that were just received on to the other shards of the room.
    pub(super) fn cross(&mut self, key: PipelineKey) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        let pipeline = &mut hosted.pipeline;
        let shard = self.exchange.shard();
        for (publication, carried) in pipeline.crossing.drain(..) {
            let origin = Origin { pipeline: pipeline.id, shard, publication };
            for peer in &pipeline.peers {
                let packet = Carried::new(&carried.packet(), self.exchange.buffer());
                self.exchange.send(*peer, Media::Packet { origin, packet });
            }
            pipeline.emptied.push(carried.bytes);
        }
    }

    pub(super) fn tell_bound(&mut self, path: Path) {
        let shard = self.exchange.shard();
        self.exchange.tell_all(&Told::Bound { path, shard });
    }

    pub(super) fn tell_forgotten(&mut self, path: Path) {
        let shard = self.exchange.shard();
        self.exchange.tell_all(&Told::Forgotten { path, shard });
    }
}
