//! Messages of data channels, from one endpoint to others of its pipeline, here and on other shards.
//!
//! Nothing is sent here: a message is queued with each receiver, which sends in a slice of time of its own.

use std::sync::Arc;
use std::time::Instant;

use common::model::PipelineId;

use super::{Hub, PipelineKey};
use crate::media::MediaEvent;
use crate::media::data::{DataStats, Delivery, Message};
use crate::media::exchange::Told;

/// Messages of other shards that are delivered before datagrams get their turn.
const MAX_MESSAGES: usize = 16;
/// Events that the control plane has not taken, above which messages make no further ones.
const MAX_WAITING: usize = 1024;

impl Hub {
    /// Delivers what an endpoint of this shard said.
    pub(super) fn say(&mut self, now: Instant, key: PipelineKey, messages: Vec<Message>) {
        for message in messages {
            let message = Arc::new(message);
            let Some(hosted) = &self.pipelines[key] else { return };
            let pipeline = hosted.pipeline.id;
            for peer in hosted.pipeline.peers.clone() {
                if self.exchange.pass(peer, pipeline, Arc::clone(&message)) {
                    continue;
                }
                self.stats.data.dropped_crossing += 1;
                if !message.is_lossy {
                    self.exchange.tell(peer, Told::Missed { pipeline });
                }
            }
            self.deliver(now, key, &message);
        }
    }

    /// Delivers what endpoints of other shards said. Returns whether there may be more.
    pub(super) fn handle_messages(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_MESSAGES {
            let Some((pipeline, message)) = self.exchange.next_message() else { return false };
            if let Some(key) = self.pipeline_by_id.get(&pipeline).copied() {
                self.deliver(now, key, &message);
            }
        }
        true
    }

    fn deliver(&mut self, now: Instant, key: PipelineKey, message: &Arc<Message>) {
        let Some(hosted) = &self.pipelines[key] else { return };
        let mut without = Vec::new();
        // A receiver that panics is taken out of the list.
        for receiver in hosted.pipeline.members.clone() {
            let Some(member) = self.members.get(receiver).and_then(Option::as_ref) else { continue };
            if !message.is_for(member.endpoint.participant_id) {
                continue;
            }
            let id = member.endpoint.id;
            let mut delivery = Delivery::Dropped;
            self.touch(now, receiver, |endpoint, _| delivery = endpoint.send_message(now, message));
            match delivery {
                Delivery::Queued | Delivery::Dropped => self.schedule_endpoint(now, receiver),
                Delivery::NoChannel => without.push(id),
            }
        }
        let Some(body) = message.event.clone().filter(|_| !without.is_empty()) else { return };
        if self.backlog.len() >= MAX_WAITING {
            self.stats.data.dropped_event += 1;
            return;
        }
        self.stats.data.events += without.len() as u64;
        self.emit(MediaEvent::Message { endpoints: without, body });
    }

    /// Another shard could not pass a reliable message on: whoever has a reliable channel here misses something.
    pub(super) fn miss(&mut self, now: Instant, pipeline: PipelineId) {
        let Some(key) = self.pipeline_by_id.get(&pipeline).copied() else { return };
        let Some(hosted) = &self.pipelines[key] else { return };
        for receiver in hosted.pipeline.members.clone() {
            self.touch(now, receiver, |endpoint, _| endpoint.miss_message(now));
            self.schedule_endpoint(now, receiver);
        }
    }

    pub(super) fn data_stats(&self) -> DataStats {
        let mut stats = self.stats.data;
        for member in self.members.iter().flatten() {
            stats += member.endpoint.data_stats();
        }
        stats
    }
}
