//! A session's settings, while the endpoint lives, and who is on its stage.

use std::time::Instant;

use common::model::{SessionSettings, TrackKind, TrackSource};

use super::Endpoint;
use super::lines::Line;
use crate::media::pipeline::Pipeline;

impl Endpoint {
    /// Takes the session's settings. Bounds of what it is sent count at once; what it is told to send, and codecs, with the
    /// next description.
    pub fn set_settings(&mut self, now: Instant, settings: &SessionSettings) {
        if settings.revision < self.treatment.settings.revision {
            return;
        }
        self.treatment.settings.clone_from(settings);
        self.bandwidth.set_bounds(self.treatment.bounds(self.worker));
        self.allocation.want(now);
    }

    /// Whether its client wants fewer cameras than the session allows.
    pub fn has_own_limit(&self) -> bool {
        self.treatment.last_n.is_some()
    }

    /// Who speaks, or whose cameras are on, has changed.
    pub fn want_allocation(&mut self, now: Instant) {
        if !self.is_closed() {
            self.allocation.want(now);
        }
    }

    /// Lets subscriptions that are offered begin with nothing, where cameras are limited and theirs are not among those that
    /// are sent: the first division would come a packet too late, and ask for a keyframe that nobody gets.
    pub fn begin_held(&mut self, now: Instant, pipeline: &mut Pipeline) {
        let (session, scene) = pipeline.split();
        if !scene.stage.admitted(self.participant_id, self.treatment.last_n, &mut self.cameras) {
            return;
        }
        let offered = self.lines.iter().filter_map(|line: &Line| line.sending()?.carried.as_ref());
        for carried in offered.filter(|carried| carried.sender.is_none()) {
            let track = &carried.track;
            let is_limited = track.kind == TrackKind::Video && track.source != TrackSource::Screen;
            if is_limited && !self.cameras.contains(&track.participant_id) {
                session.set_target(now, carried.subscription, None);
            }
        }
    }
}
