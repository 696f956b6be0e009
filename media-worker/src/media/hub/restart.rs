//! What a media thread does after a panic outside any endpoint: its rooms end, it goes on.
//!
//! Panics of endpoints end endpoints ([`Hub::fenced_at`]). One in what they share, tables or a room, leaves that in an
//! unknown state. So nothing of it is used again: every endpoint of the thread is told as ended by a fault, which costs its
//! client a reconnect, and the thread begins with empty tables on the same socket. Other threads do not notice but for
//! the tracks that are gone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Effects, Hub};
use crate::media::exchange::Told;
use crate::media::{CloseCause, ConnectionState, MediaEvent};

impl Hub {
    /// Ends everything without running any code of endpoints and rooms.
    pub fn start_anew(&mut self) {
        let shard = self.exchange.shard();
        tracing::error!(
            endpoints = self.by_id.len(),
            "a media thread panicked: its endpoints end, it goes on"
        );
        for path in self.demux.own_paths() {
            self.tell_forgotten(path);
        }
        self.demux.forget_own();
        for (pipeline, _) in self.pipeline_by_id.drain() {
            self.directory.set_tracks(pipeline, shard, 0);
            self.exchange.tell_all(&Told::Left { pipeline, shard });
        }
        for (endpoint_id, _) in self.by_id.drain() {
            self.directory.remove(endpoint_id);
            let state = ConnectionState::Closed(CloseCause::Fault);
            self.backlog.push_back(MediaEvent::State { endpoint_id, state });
        }
        let old = (std::mem::take(&mut self.members), std::mem::take(&mut self.pipelines));
        // What is broken may break once more as it goes.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        self.free_members.clear();
        self.free_pipelines.clear();
        self.timers.clear();
        self.dirty.clear();
        self.handshakes.clear();
        self.egress.discard();
        self.spare_effects = Effects::default();
        self.spare_touch = Effects::default();
    }
}
