//! Whose cameras are sent in a room that limits them (`last_n`): those of whoever spoke last, and before anybody did, of
//! whoever was there first.
//!
//! Pure, and kept by each shard for itself: all of them hear everybody, so they agree within a moment. Screens are never
//! limited, nor is what a subscriber has pinned; a participant without a camera that is on takes nobody's place.

use std::collections::{HashMap, HashSet};

use common::model::ParticipantId;
use common::time::UnixMillis;

/// Who spoke longer ago than so many others is as good as never heard.
const MAX_REMEMBERED: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Stage {
    /// For everybody; `None`: all are sent.
    limit: Option<u16>,
    /// Who has spoken, the last one first.
    spoke: Vec<ParticipantId>,
    /// Whose cameras are on, in the order in which they are sent.
    order: Vec<ParticipantId>,
}

impl Stage {
    /// Sets how many cameras everybody gets at most. Returns whether that is another number than before.
    pub fn set_limit(&mut self, limit: Option<u16>) -> bool {
        std::mem::replace(&mut self.limit, limit) != limit
    }

    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Notes who speaks now, the one who leads first: they come before all others, and who spoke before them after.
    pub fn note_speakers(&mut self, speaking: &[ParticipantId]) {
        self.spoke.retain(|other| !speaking.contains(other));
        self.spoke.splice(0..0, speaking.iter().copied());
        self.spoke.truncate(MAX_REMEMBERED);
    }

    /// Takes whose cameras are on, and since when they are there. Returns whether the order is another one than before.
    pub fn set_cameras(&mut self, cameras: impl Iterator<Item = (UnixMillis, ParticipantId)>) -> bool {
        let spoke: HashMap<_, _> = self.spoke.iter().zip(0usize..).collect();
        let rank = |id: &ParticipantId| spoke.get(id).copied().unwrap_or(usize::MAX);
        let mut order: Vec<_> = cameras.map(|(since, id)| (rank(&id), since, id)).collect();
        order.sort_unstable();
        // Somebody with two cameras, or on the way from one endpoint to another, is in there twice.
        let mut seen = HashSet::with_capacity(order.len());
        let order: Vec<_> = order.into_iter().map(|(_, _, id)| id).filter(|id| seen.insert(*id)).collect();
        let is_changed = order != self.order;
        self.order = order;
        is_changed
    }

    /// Whose cameras a subscriber gets, who may want fewer than everybody. `false`: all of them.
    pub fn admitted(
        &self,
        subscriber: ParticipantId,
        own: Option<u16>,
        into: &mut Vec<ParticipantId>,
    ) -> bool {
        into.clear();
        let Some(limit) = self.limit.into_iter().chain(own).min() else { return false };
        let others = self.order.iter().filter(|id| **id != subscriber);
        into.extend(others.take(limit.into()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(count: usize) -> Vec<(UnixMillis, ParticipantId)> {
        (0..count).map(|number| (UnixMillis(number as i64), ParticipantId::new())).collect()
    }

    fn admitted(stage: &Stage, subscriber: ParticipantId, own: Option<u16>) -> Option<Vec<ParticipantId>> {
        let mut into = vec![subscriber];
        stage.admitted(subscriber, own, &mut into).then_some(into)
    }

    #[test]
    fn before_anybody_spoke_the_first_are_seen_and_then_who_spoke_last() {
        let cameras = room(6);
        let id = |number: usize| cameras[number].1;
        let mut stage = Stage::default();
        let set = |stage: &mut Stage| stage.set_cameras(cameras.iter().rev().copied());
        assert!(set(&mut stage));
        let viewer = ParticipantId::new();
        assert_eq!(admitted(&stage, viewer, None), None, "no limit");
        assert!(stage.set_limit(Some(2)) && !stage.set_limit(Some(2)));
        assert_eq!(admitted(&stage, viewer, None), Some(vec![id(0), id(1)]));
        assert_eq!(admitted(&stage, id(0), None), Some(vec![id(1), id(2)]), "nobody is shown to himself");

        stage.note_speakers(&[id(5)]);
        assert!(set(&mut stage));
        assert_eq!(admitted(&stage, viewer, None), Some(vec![id(5), id(0)]));
        stage.note_speakers(&[id(4), id(5)]);
        set(&mut stage);
        assert_eq!(admitted(&stage, viewer, None), Some(vec![id(4), id(5)]));
        stage.note_speakers(&[]);
        assert!(!set(&mut stage), "silence changes nothing");
        stage.note_speakers(&[id(2)]);
        set(&mut stage);
        assert_eq!(
            admitted(&stage, viewer, None),
            Some(vec![id(2), id(4)]),
            "who spoke longest ago gives way"
        );
    }

    #[test]
    fn a_subscriber_may_want_fewer_and_not_more() {
        let cameras = room(4);
        let mut stage = Stage::default();
        stage.set_cameras(cameras.iter().copied());
        let viewer = ParticipantId::new();
        let count = |stage: &Stage, own| admitted(stage, viewer, own).map(|it| it.len());
        assert_eq!(count(&stage, Some(1)), Some(1), "also where everybody else gets all");
        stage.set_limit(Some(2));
        assert_eq!([Some(0), Some(1), Some(3), None].map(|own| count(&stage, own)), [0, 1, 2, 2].map(Some));
    }

    #[test]
    fn who_has_two_cameras_takes_one_place() {
        let mut cameras = room(3);
        cameras.push((UnixMillis(9), cameras[0].1));
        let mut stage = Stage::default();
        stage.set_limit(Some(2));
        stage.set_cameras(cameras.iter().copied());
        let viewer = ParticipantId::new();
        assert_eq!(admitted(&stage, viewer, None), Some(vec![cameras[0].1, cameras[1].1]));
    }
}
