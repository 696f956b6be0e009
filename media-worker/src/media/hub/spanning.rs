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
use sfu::PublicationId;

use super::{Hub, PipelineKey};
use crate::media::demux::Owner;
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
        count == MAX_MESSAGES
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
                }
                self.set_mirrors(now, pipeline, shard, &[]);
            }
            Told::Muted { origin, muted } => {
                if let Some((key, mirror)) = self.mirror(&origin)
                    && let Some(hosted) = &mut self.pipelines[key]
                {
                    hosted.pipeline.session.set_muted(now, mirror, muted);
                    self.carry_out_decisions(now, key);
                    self.schedule_pipeline(key);
                }
            }
            Told::Bound { path, shard } => self.demux.bind_path(path, Owner::There(shard)),
            Told::Forgotten { path, shard } => self.demux.forget_path(path, Owner::There(shard)),
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
                    self.stats.drops += 1;
                }
                self.exchange.give_back(origin.shard, packet.bytes);
            }
            Media::Report { origin, ntp, rtp } => {
                if let Some((key, mirror)) = self.mirror(&origin) {
                    self.send_reports(now, key, mirror, ntp, rtp);
                }
            }
            Media::RequestKeyframe { origin } => {
                if let Some(key) = self.pipeline_by_id.get(&origin.pipeline).copied() {
                    self.request_keyframe(now, key, origin.publication);
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
        for (origin, mirror) in gone {
            pipeline.mirrors.remove(&origin);
            pipeline.sources.retain(|source| source.track.publication != mirror);
            pipeline.session.unpublish(mirror);
            pipeline.forget(mirror);
        }
        for track in tracks {
            let origin = origin(track.publication);
            if pipeline.mirrors.contains_key(&origin) {
                continue;
            }
            let mirror = pipeline.session.publish(track.codec);
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
