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
    /// Endpoints of one room that share a shard before the room spreads to another one.
    together: usize,
}

struct State {
    endpoints: HashMap<EndpointId, (usize, PipelineId)>,
    /// Members of each pipeline, by shard.
    pipelines: HashMap<PipelineId, Vec<usize>>,
    /// Endpoints of each shard.
    loads: Vec<usize>,
}

impl Directory {
    pub fn new(shards: usize, max_endpoints: usize, together: usize) -> Self {
        let state =
            State { endpoints: HashMap::new(), pipelines: HashMap::new(), loads: vec![0; shards.max(1)] };
        Self { state: Mutex::new(state), max_endpoints, together: together.max(1) }
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
        let State { endpoints, pipelines, loads } = &mut *state;
        let members = pipelines.entry(pipeline).or_insert_with(|| vec![0; loads.len()]);
        let open = (0..loads.len()).filter(|shard| (1..self.together).contains(&members[*shard]));
        let shard = open
            .max_by_key(|shard| members[*shard])
            .or_else(|| (0..loads.len()).min_by_key(|shard| loads[*shard]))
            .unwrap_or(0);
        members[shard] += 1;
        loads[shard] += 1;
        endpoints.insert(endpoint, (shard, pipeline));
        Some(shard)
    }

    pub fn shard_of(&self, endpoint: EndpointId) -> Option<usize> {
        self.state().endpoints.get(&endpoint).map(|(shard, _)| *shard)
    }

    /// Forgets an endpoint that has ended. Twice does nothing.
    pub fn remove(&self, endpoint: EndpointId) {
        let mut state = self.state();
        let Some((shard, pipeline)) = state.endpoints.remove(&endpoint) else { return };
        state.loads[shard] -= 1;
        if let Some(members) = state.pipelines.get_mut(&pipeline) {
            members[shard] -= 1;
            if members.iter().all(|count| *count == 0) {
                state.pipelines.remove(&pipeline);
            }
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

    #[test]
    fn small_rooms_stay_together_and_large_ones_spread() {
        let directory = Directory::new(2, 100, 3);
        let (small, large) = (PipelineId::new(), PipelineId::new());
        let place = |pipeline| directory.place(EndpointId::new(), pipeline).unwrap();
        assert_eq!([place(small), place(small)], [0, 0]);
        assert_eq!([place(large), place(large), place(large)], [1, 1, 1], "the emptier shard");
        assert_eq!(place(large), 0, "the room is too large for one shard");
        assert_eq!(directory.pipelines(), 2);
    }

    #[test]
    fn an_endpoint_stays_where_it_is_and_its_place_is_given_back() {
        let directory = Directory::new(2, 1, 3);
        let (endpoint, pipeline) = (EndpointId::new(), PipelineId::new());
        let shard = directory.place(endpoint, pipeline);
        assert_eq!(directory.place(endpoint, pipeline), shard);
        assert_eq!(directory.shard_of(endpoint), shard);
        assert_eq!(directory.place(EndpointId::new(), pipeline), None, "full");
        directory.remove(endpoint);
        directory.remove(endpoint);
        assert_eq!((directory.shard_of(endpoint), directory.pipelines()), (None, 0));
        assert!(directory.place(EndpointId::new(), pipeline).is_some());
    }
}
