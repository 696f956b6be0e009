//! Which media thread an endpoint lives on, and whether there is room for another one.
//!
//! Asked when an endpoint is opened, addressed or closed; never for a packet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use common::model::{EndpointId, PipelineId};

/// The endpoints of a worker by media thread ("shard").
pub struct Directory {
    state: Mutex<State>,
    max_endpoints: usize,
    together: Together,
}

/// How much of one room shares a shard before the room spreads to another one.
#[derive(Debug, Clone, Copy)]
pub struct Together {
    pub endpoints: usize,
    /// Published and subscribed tracks.
    pub tracks: usize,
}

struct State {
    endpoints: HashMap<EndpointId, (usize, PipelineId)>,
    /// What each pipeline has on each shard.
    pipelines: HashMap<PipelineId, Vec<Load>>,
    /// What each shard has.
    shards: Vec<Load>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    endpoints: usize,
    tracks: usize,
}

impl Directory {
    pub fn new(shards: usize, max_endpoints: usize, together: Together) -> Self {
        let state = State {
            endpoints: HashMap::new(),
            pipelines: HashMap::new(),
            shards: vec![Load::default(); shards.max(1)],
        };
        Self { state: Mutex::new(state), max_endpoints, together }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing here panics while it holds the lock")
    }

    /// The shard for a new endpoint; for a known one, its own. `None` when the worker is full. Packets that stay
    /// on one shard are cheapest, so a room fills one before it takes the next.
    pub fn place(&self, endpoint: EndpointId, pipeline: PipelineId) -> Option<usize> {
        let mut state = self.state();
        if let Some((shard, _)) = state.endpoints.get(&endpoint) {
            return Some(*shard);
        }
        if state.endpoints.len() >= self.max_endpoints {
            return None;
        }
        let State { endpoints, pipelines, shards } = &mut *state;
        let room = pipelines.entry(pipeline).or_insert_with(|| vec![Load::default(); shards.len()]);
        let has_room = |load: &Load| {
            (1..self.together.endpoints.max(1)).contains(&load.endpoints)
                && load.tracks < self.together.tracks
        };
        let shard = (0..shards.len())
            .filter(|shard| has_room(&room[*shard]))
            .max_by_key(|shard| room[*shard].endpoints)
            .or_else(|| {
                (0..shards.len()).min_by_key(|shard| shards[*shard].tracks + shards[*shard].endpoints)
            })
            .unwrap_or(0);
        room[shard].endpoints += 1;
        shards[shard].endpoints += 1;
        endpoints.insert(endpoint, (shard, pipeline));
        Some(shard)
    }

    /// Notes how many tracks a pipeline has on a shard now.
    pub fn set_tracks(&self, pipeline: PipelineId, shard: usize, tracks: usize) {
        let mut state = self.state();
        let State { pipelines, shards, .. } = &mut *state;
        let Some(load) = pipelines.get_mut(&pipeline).and_then(|room| room.get_mut(shard)) else { return };
        let before = std::mem::replace(&mut load.tracks, tracks);
        shards[shard].tracks = shards[shard].tracks + tracks - before;
    }

    /// Published and subscribed tracks of all shards.
    pub fn tracks(&self) -> usize {
        self.state().shards.iter().map(|load| load.tracks).sum()
    }

    /// Whether there is no room for another endpoint.
    pub fn is_full(&self) -> bool {
        self.state().endpoints.len() >= self.max_endpoints
    }

    /// How many of the endpoints that may be are there, 0 to 1.
    pub fn share(&self) -> f64 {
        self.state().endpoints.len() as f64 / self.max_endpoints as f64
    }

    pub fn shard_of(&self, endpoint: EndpointId) -> Option<usize> {
        self.state().endpoints.get(&endpoint).map(|(shard, _)| *shard)
    }

    /// Forgets an endpoint that has ended. Twice does nothing.
    pub fn remove(&self, endpoint: EndpointId) {
        let mut state = self.state();
        let State { endpoints, pipelines, shards } = &mut *state;
        let Some((shard, pipeline)) = endpoints.remove(&endpoint) else { return };
        shards[shard].endpoints -= 1;
        let Some(room) = pipelines.get_mut(&pipeline) else { return };
        room[shard].endpoints -= 1;
        if room.iter().all(|load| load.endpoints == 0) {
            for (shard, load) in shards.iter_mut().zip(room.iter()) {
                shard.tracks -= load.tracks;
            }
            pipelines.remove(&pipeline);
        }
    }

    /// Pipelines with members, on whichever shards.
    pub fn pipelines(&self) -> usize {
        self.state().pipelines.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOGETHER: Together = Together { endpoints: 3, tracks: 100 };

    #[test]
    fn small_rooms_stay_together_and_large_ones_spread() {
        let directory = Directory::new(2, 100, TOGETHER);
        let (small, large) = (PipelineId::new(), PipelineId::new());
        let place = |pipeline| directory.place(EndpointId::new(), pipeline).unwrap();
        assert_eq!([place(small), place(small)], [0, 0]);
        assert_eq!([place(large), place(large), place(large)], [1, 1, 1], "the emptier shard");
        assert_eq!(place(large), 0, "the room is too large for one shard");
        assert_eq!(directory.pipelines(), 2);
    }

    #[test]
    fn a_room_with_many_tracks_spreads_and_a_busy_shard_gets_no_new_rooms() {
        let directory = Directory::new(2, 100, TOGETHER);
        let (busy, quiet) = (PipelineId::new(), PipelineId::new());
        let place = |pipeline| directory.place(EndpointId::new(), pipeline).unwrap();
        assert_eq!(place(busy), 0);
        directory.set_tracks(busy, 0, 99);
        assert_eq!(place(busy), 0);
        directory.set_tracks(busy, 0, 100);
        assert_eq!(place(busy), 1, "there are enough tracks on the first shard");
        assert_eq!(
            [place(quiet), place(quiet)],
            [1, 1],
            "the shard with fewer tracks, not with fewer endpoints"
        );
    }

    #[test]
    fn tracks_are_counted_over_all_rooms_and_end_with_them() {
        let directory = Directory::new(2, 100, TOGETHER);
        let (first, second) = (PipelineId::new(), PipelineId::new());
        let (one, other) = (EndpointId::new(), EndpointId::new());
        directory.place(one, first);
        directory.place(other, second);
        directory.set_tracks(first, 0, 5);
        directory.set_tracks(second, 1, 7);
        directory.set_tracks(second, 1, 6);
        assert_eq!(directory.tracks(), 11);
        directory.remove(one);
        directory.set_tracks(first, 0, 3);
        assert_eq!(directory.tracks(), 6, "a room that has ended has none, whoever says so late");
    }

    #[test]
    fn an_endpoint_stays_where_it_is_and_its_place_is_given_back() {
        let directory = Directory::new(2, 1, TOGETHER);
        let (endpoint, pipeline) = (EndpointId::new(), PipelineId::new());
        let shard = directory.place(endpoint, pipeline);
        assert_eq!(directory.place(endpoint, pipeline), shard);
        assert_eq!(directory.shard_of(endpoint), shard);
        assert_eq!(directory.place(EndpointId::new(), pipeline), None, "full");
        assert!(directory.is_full() && directory.share() == 1.0);
        directory.remove(endpoint);
        directory.remove(endpoint);
        assert_eq!((directory.shard_of(endpoint), directory.pipelines()), (None, 0));
        assert!(!directory.is_full() && directory.place(EndpointId::new(), pipeline).is_some());
    }
}
