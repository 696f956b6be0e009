//! Where a session lives: pure decisions over what is stored.

use common::model::{Pipeline, Session, Worker, WorkerId};
use common::time::UnixMillis;

/// Where a session's media is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Home {
    /// On a worker that is alive.
    At(Pipeline),
    /// On a worker whose lease has run out, which may only mean that the store was away: nobody has declared it dead.
    Uncertain,
    /// On a worker that is dead: drop it before placing anew.
    Lost(Pipeline),
    Nowhere,
}

/// Reads the home from the session and the row of the worker that hosts it, if there is one.
///
/// A draining worker still hosts what it hosts; it only takes nothing new.
pub(crate) fn home(session: &Session, host: Option<&Worker>, now: UnixMillis) -> Home {
    match session.pipeline() {
        None => Home::Nowhere,
        Some(pipeline) => match host {
            Some(row) if row.id != pipeline.worker_id => Home::Lost(pipeline.clone()),
            Some(row) if row.lease_until > now => Home::At(pipeline.clone()),
            Some(_) => Home::Uncertain,
            None => Home::Lost(pipeline.clone()),
        },
    }
}

/// Chooses a worker for a session that has no pipeline: the previous one if it takes pipelines, else the one
/// with the lowest memory use (ties: fewer endpoints, then the lower id, so that everyone decides alike).
pub(crate) fn choose(workers: &[Worker], previous: Option<WorkerId>, now: UnixMillis) -> Option<WorkerId> {
    let takers = || workers.iter().filter(|worker| worker.takes_pipelines(now));
    if let Some(back) = takers().find(|worker| Some(worker.id) == previous) {
        return Some(back.id);
    }
    takers()
        .min_by_key(|worker| (worker.load.memory_bytes, worker.load.endpoints, worker.id))
        .map(|worker| worker.id)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::model::{
        CommandId, PipelineId, PipelineState, RunId, SessionId, SessionState, WorkerLoad, WorkerState,
    };
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    pub fn worker(memory_bytes: i64, lease_until: i64, state: WorkerState) -> Worker {
        Worker {
            id: WorkerId::new(),
            address: "127.0.0.1:1".to_owned(),
            lease_until: UnixMillis(lease_until),
            state,
            load: WorkerLoad { memory_bytes, ..WorkerLoad::default() },
            run: RunId::new(),
            broker_away_since: None,
        }
    }

    pub fn session(pipeline_on: Option<WorkerId>) -> Session {
        let pipeline = |worker_id| Pipeline { id: PipelineId::new(), worker_id, state: PipelineState::Ready };
        Session {
            id: SessionId::new(),
            state: SessionState::Open,
            name: None,
            created_at: NOW,
            closed_at: None,
            key_id: "key".to_owned(),
            command_id: CommandId::new(),
            epoch: 1,
            pipelines: pipeline_on.map(pipeline).into_iter().collect(),
            participants: Vec::new(),
            previous_worker_id: None,
        }
    }

    #[test]
    fn a_session_stays_with_a_living_worker_even_when_that_drains() {
        for state in [WorkerState::Ready, WorkerState::Draining] {
            let host = worker(1, NOW.0 + 1, state);
            let session = session(Some(host.id));
            assert_eq!(home(&session, Some(&host), NOW), Home::At(session.pipelines[0].clone()));
        }
    }

    #[test]
    fn a_session_on_a_worker_without_row_is_lost_and_one_without_lease_uncertain() {
        let host = worker(1, NOW.0, WorkerState::Ready);
        let session = session(Some(host.id));
        let lost = Home::Lost(session.pipelines[0].clone());
        assert_eq!(home(&session, Some(&host), NOW), Home::Uncertain);
        assert_eq!(home(&session, None, NOW), lost);
        assert_eq!(home(&session, Some(&worker(1, NOW.0 + 1, WorkerState::Ready)), NOW), lost);
    }

    #[test]
    fn the_previous_worker_is_preferred_when_it_is_back() {
        let light = worker(1, NOW.0 + 1, WorkerState::Ready);
        let heavy = worker(100, NOW.0 + 1, WorkerState::Ready);
        let workers = [light.clone(), heavy.clone()];
        assert_eq!(choose(&workers, Some(heavy.id), NOW), Some(heavy.id));
        assert_eq!(choose(&workers, Some(WorkerId::new()), NOW), Some(light.id));
        assert_eq!(choose(&workers, None, NOW), Some(light.id));
    }

    #[test]
    fn who_is_full_is_not_chosen_not_even_as_the_previous_one() {
        let mut full = worker(1, NOW.0 + 1, WorkerState::Ready);
        full.load.full = true;
        let heavy = worker(100, NOW.0 + 1, WorkerState::Ready);
        assert_eq!(choose(&[full.clone(), heavy.clone()], Some(full.id), NOW), Some(heavy.id));
        assert_eq!(choose(&[full], None, NOW), None);
    }

    #[test]
    fn nobody_is_chosen_when_nobody_takes_pipelines() {
        let workers = [worker(1, NOW.0 - 1, WorkerState::Ready), worker(1, NOW.0 + 1, WorkerState::Draining)];
        assert_eq!(choose(&workers, Some(workers[1].id), NOW), None);
        assert_eq!(choose(&[], None, NOW), None);
    }

    proptest! {
        #[test]
        fn the_chosen_worker_takes_pipelines_and_none_that_does_uses_less_memory(
            rows in proptest::collection::vec((0_i64..50, -5_i64..5, any::<bool>()), 0..12),
            previous in proptest::option::of(0_usize..12),
            turn in 0_usize..12,
        ) {
            let mut workers: Vec<Worker> = rows.iter().map(|&(memory, lease, ready)| {
                worker(memory, NOW.0 + lease, if ready { WorkerState::Ready } else { WorkerState::Draining })
            }).collect();
            let previous = previous.and_then(|index| workers.get(index)).map(|worker| worker.id);
            let chosen = choose(&workers, previous, NOW);
            match chosen {
                None => prop_assert!(workers.iter().all(|worker| !worker.takes_pipelines(NOW))),
                Some(id) => {
                    let row = workers.iter().find(|worker| worker.id == id).unwrap();
                    prop_assert!(row.takes_pipelines(NOW));
                    if previous != Some(id) {
                        let mut takers = workers.iter().filter(|other| other.takes_pipelines(NOW));
                        let is_best = takers.all(|other| {
                            other.load.memory_bytes >= row.load.memory_bytes && previous != Some(other.id)
                        });
                        prop_assert!(is_best);
                    }
                }
            }
            // Everyone decides alike, whatever order the rows come in.
            let len = workers.len();
            if len > 0 {
                workers.rotate_left(turn % len);
            }
            prop_assert_eq!(choose(&workers, previous, NOW), chosen);
        }
    }
}
