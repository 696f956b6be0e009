//! Where a session lives: pure decisions over what is stored.

use common::model::{Pipeline, Session, SessionId, Worker, WorkerId};
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

/// How much less a worker is chosen that uses twice the memory of another: 2 to the power of this.
const STEEPNESS: i32 = 4;

/// Chooses a worker for a session that has no pipeline: the previous one if it takes pipelines, else one by lot, the
/// lighter (by memory in use) the likelier.
///
/// Not simply the lightest: rows are up to a heartbeat old, and until the next one it would get every session that
/// begins, or all those of a worker that died. The lot is drawn from the ids, so everyone who sees the same rows
/// decides alike for one session (rendezvous hashing, weighted).
pub fn choose(
    workers: &[Worker],
    previous: Option<WorkerId>,
    session: SessionId,
    now: UnixMillis,
) -> Option<WorkerId> {
    let takers = || workers.iter().filter(|worker| worker.takes_pipelines(now));
    if let Some(back) = takers().find(|worker| Some(worker.id) == previous) {
        return Some(back.id);
    }
    let memory = |worker: &Worker| worker.load.memory_bytes.max(1) as f64;
    let lightest = takers().map(memory).fold(f64::INFINITY, f64::min);
    // Each waits for an exponentially distributed time, the heavier the longer; the first is chosen (ties: the lower id).
    let wait = |worker: &Worker| {
        let weight = (lightest / memory(worker)).powi(STEEPNESS);
        -lot(session, worker.id).ln() / weight
    };
    takers()
        .map(|worker| (wait(worker), worker.id))
        .min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)))
        .map(|(_, id)| id)
}

/// A number above 0 and at most 1 that only these two decide.
fn lot(session: SessionId, worker: WorkerId) -> f64 {
    let halves = |id: u128| ((id >> 64) as u64, id as u64);
    let (session, worker) = (halves(session.uuid().as_u128()), halves(worker.uuid().as_u128()));
    let mixed = [session.0, session.1, worker.0, worker.1].into_iter().fold(0, |sum, part| mix(sum ^ part));
    // The upper 53 bits, which is what a double holds.
    ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// Every bit of the result depends on every bit of the number (SplitMix64's finaliser).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use common::model::{
        CommandId, PipelineId, PipelineState, RunId, SessionSettings, SessionState, WorkerLoad, WorkerState,
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
            done_commands: Vec::new(),
            settings: SessionSettings::default(),
            revocations: Vec::new(),
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
        let (workers, session) = ([light.clone(), heavy.clone()], SessionId::new());
        assert_eq!(choose(&workers, Some(heavy.id), session, NOW), Some(heavy.id));
        assert_eq!(choose(&workers, Some(light.id), session, NOW), Some(light.id));
    }

    #[test]
    fn who_is_full_is_not_chosen_not_even_as_the_previous_one() {
        let mut full = worker(1, NOW.0 + 1, WorkerState::Ready);
        full.load.full = true;
        let heavy = worker(100, NOW.0 + 1, WorkerState::Ready);
        let session = SessionId::new();
        assert_eq!(choose(&[full.clone(), heavy.clone()], Some(full.id), session, NOW), Some(heavy.id));
        assert_eq!(choose(&[full], None, session, NOW), None);
    }

    #[test]
    fn nobody_is_chosen_when_nobody_takes_pipelines() {
        let workers = [worker(1, NOW.0 - 1, WorkerState::Ready), worker(1, NOW.0 + 1, WorkerState::Draining)];
        assert_eq!(choose(&workers, Some(workers[1].id), SessionId::new(), NOW), None);
        assert_eq!(choose(&[], None, SessionId::new(), NOW), None);
    }

    /// How many of 10,000 sessions each of the workers gets.
    fn shares(workers: &[Worker]) -> Vec<usize> {
        let mut shares = vec![0; workers.len()];
        for number in 0..10_000_u128 {
            let session = SessionId::from_uuid(uuid::Uuid::from_u128(number << 64 | 0x8000));
            let chosen = choose(workers, None, session, NOW);
            shares[workers.iter().position(|worker| Some(worker.id) == chosen).unwrap()] += 1;
        }
        shares
    }

    fn numbered(number: u128, memory_bytes: i64) -> Worker {
        let id = WorkerId::from_uuid(uuid::Uuid::from_u128(number));
        Worker { id, ..worker(memory_bytes, NOW.0 + 1, WorkerState::Ready) }
    }

    #[test]
    fn those_that_are_as_light_share_evenly_and_the_heavier_get_less() {
        let even = shares(&[numbered(1, 400), numbered(2, 400), numbered(3, 400), numbered(4, 400)]);
        assert!(even.iter().all(|share| (2_300..2_700).contains(share)), "{even:?}");
        // Twice the memory is a sixteenth of the chance, a tenth more is two thirds of it.
        let uneven = shares(&[numbered(1, 400), numbered(2, 800)]);
        assert!((400..800).contains(&uneven[1]), "{uneven:?}");
        let nearly = shares(&[numbered(1, 400), numbered(2, 440)]);
        assert!((3_700..4_400).contains(&nearly[1]), "{nearly:?}");
        let empty = shares(&[numbered(1, 0), numbered(2, 1 << 20)]);
        assert_eq!(empty, [10_000, 0]);
    }

    #[test]
    fn who_goes_takes_no_other_session_along() {
        let all: Vec<Worker> = (1..=5).map(|number| numbered(number, 400)).collect();
        for number in 0..1_000_u128 {
            let session = SessionId::from_uuid(uuid::Uuid::from_u128(number << 70));
            let before = choose(&all, None, session, NOW);
            let after = choose(&all[1..], None, session, NOW);
            assert!(before == after || before == Some(all[0].id));
        }
    }

    proptest! {
        #[test]
        fn the_chosen_worker_takes_pipelines_and_everyone_chooses_it(
            rows in proptest::collection::vec((0_i64..50, -5_i64..5, any::<bool>()), 0..12),
            previous in proptest::option::of(0_usize..12),
            turn in 0_usize..12,
        ) {
            let mut workers: Vec<Worker> = rows.iter().map(|&(memory, lease, ready)| {
                worker(memory, NOW.0 + lease, if ready { WorkerState::Ready } else { WorkerState::Draining })
            }).collect();
            let previous = previous.and_then(|index| workers.get(index)).map(|worker| worker.id);
            let session = SessionId::new();
            let chosen = choose(&workers, previous, session, NOW);
            match chosen {
                None => prop_assert!(workers.iter().all(|worker| !worker.takes_pipelines(NOW))),
                Some(id) => {
                    let row = workers.iter().find(|worker| worker.id == id).unwrap();
                    prop_assert!(row.takes_pipelines(NOW));
                    let mut takers = workers.iter().filter(|other| other.takes_pipelines(NOW));
                    prop_assert!(previous == Some(id) || takers.all(|other| previous != Some(other.id)));
                }
            }
            // Everyone decides alike, whatever order the rows come in.
            let len = workers.len();
            if len > 0 {
                workers.rotate_left(turn % len);
            }
            prop_assert_eq!(choose(&workers, previous, session, NOW), chosen);
        }
    }
}
