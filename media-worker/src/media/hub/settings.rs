//! A session's settings and the stage of a room: what changes with them for everybody in it.

use std::time::Instant;

use common::model::{PipelineId, SessionSettings};

use super::{Hub, PipelineKey};

impl Hub {
    /// Takes a session's settings, unless newer ones are known here.
    pub(super) fn set_settings(&mut self, now: Instant, id: PipelineId, settings: &SessionSettings) {
        if let Some(key) = self.pipeline_by_id.get(&id).copied() {
            self.adopt(now, key, settings);
        }
    }

    pub(super) fn adopt(&mut self, now: Instant, key: PipelineKey, settings: &SessionSettings) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        if !hosted.pipeline.adopt(now, settings) {
            return;
        }
        hosted.pipeline.restage();
        for member in hosted.pipeline.members.clone() {
            if let Some(found) = &mut self.members[member] {
                found.endpoint.set_settings(now, settings);
                self.schedule_endpoint(now, member);
            }
        }
    }

    /// Who spoke, or whose cameras are on, has changed: what everybody gets is divided anew, if it matters.
    pub(super) fn restage(&mut self, now: Instant, key: PipelineKey) {
        let Some(hosted) = &mut self.pipelines[key] else { return };
        if !hosted.pipeline.restage() {
            return;
        }
        for member in hosted.pipeline.members.clone() {
            if let Some(found) = &mut self.members[member] {
                found.endpoint.want_allocation(now);
                self.schedule_endpoint(now, member);
            }
        }
    }
}
