//! What a draining worker does next about each session that it still hosts: pure decisions.

use std::collections::BTreeMap;

use common::model::{EndpointId, ParticipantId, Pipeline, Session, Worker, WorkerId};
use common::time::UnixMillis;

/// One session with a pipeline on the draining worker, as it is stored and as it runs.
pub(crate) struct Hosted<'a> {
    pub session: &'a Session,
    /// The one on the draining worker.
    pub pipeline: &'a Pipeline,
    /// The endpoints that run on it.
    pub live: Vec<Live>,
    /// The clients have been asked to move since the session left.
    pub announced: bool,
}

/// One endpoint that runs on the draining worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    pub endpoint: EndpointId,
    pub participant: ParticipantId,
    /// It has carried media at some time.
    pub was_connected: bool,
}

/// What to do about one session now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nobody is in it: let go, and whoever joins next is placed anew.
    LetGo,
    /// Place it there, and ask its clients to follow.
    Move { to: WorkerId },
    /// No worker takes it now.
    Wait,
    /// It has moved, but its clients have not been told.
    Announce,
    /// It has moved; these endpoints belong to nobody in the session any more. The others go on.
    Keep { close: Vec<EndpointId> },
    /// It has moved, and nobody is left on the old pipeline.
    Retire,
}

/// Decides about one session. `choose` gives the worker that takes so many endpoints more, or none.
pub(crate) fn step(hosted: &Hosted<'_>, choose: impl FnOnce(usize) -> Option<WorkerId>) -> Step {
    let session = hosted.session;
    if session.pipeline().is_some_and(|current| current.id == hosted.pipeline.id) {
        if session.participants.is_empty() && hosted.live.is_empty() {
            return Step::LetGo;
        }
        return match choose(session.participants.len()) {
            Some(to) => Step::Move { to },
            None => Step::Wait,
        };
    }
    if hosted.live.is_empty() {
        return Step::Retire;
    }
    if !hosted.announced {
        return Step::Announce;
    }
    let gone = hosted.live.iter().filter(|live| is_nobodys(live, session));
    Step::Keep { close: gone.map(|live| live.endpoint).collect() }
}

/// Whether nobody uses the endpoint and nobody will: its participant has left, or has moved before this one ever carried
/// anything (a client that gives up a connection half-way has no way to say so).
fn is_nobodys(live: &Live, session: &Session) -> bool {
    match session.participant(live.participant) {
        None => true,
        Some(entry) => {
            let moved = entry.endpoint.as_ref().is_some_and(|current| current.id != live.endpoint);
            moved && !live.was_connected
        }
    }
}

/// Spreads sessions over the ready workers: each goes to the one with the lowest memory use, counting what this drain
/// has sent there already. Heartbeats tell of it only seconds later, when everything would be on one worker.
pub(crate) struct Spread {
    /// What one endpoint is taken to cost, in bytes: the draining worker's memory by its own endpoints.
    endpoint_bytes: i64,
    sent: BTreeMap<WorkerId, i64>,
}

/// An endpoint costs at least this much in the estimate, so that sessions are spread even by a worker whose
/// own figures say nothing.
const MIN_ENDPOINT_BYTES: i64 = 64 * 1024;

impl Spread {
    pub fn new(memory_bytes: i64, endpoints: i64) -> Self {
        let endpoint_bytes = (memory_bytes / endpoints.max(1)).max(MIN_ENDPOINT_BYTES);
        Self { endpoint_bytes, sent: BTreeMap::new() }
    }

    /// The worker for a session with this many participants (ties: the lower id), which is counted as sent.
    pub fn choose(&mut self, workers: &[Worker], endpoints: usize, now: UnixMillis) -> Option<WorkerId> {
        let estimate = |worker: &Worker| {
            let sent = self.sent.get(&worker.id).copied().unwrap_or(0);
            worker.load.memory_bytes.saturating_add(sent.saturating_mul(self.endpoint_bytes))
        };
        let takers = workers.iter().filter(|worker| worker.takes_pipelines(now));
        let chosen = takers.min_by_key(|worker| (estimate(worker), worker.load.endpoints, worker.id))?.id;
        *self.sent.entry(chosen).or_default() += i64::try_from(endpoints).unwrap_or(i64::MAX);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::{session, worker};
    use common::model::{
        Bitrates, CommandId, Endpoint, EndpointState, Grants, Participant, ParticipantState, PipelineId,
        PipelineState, WorkerState,
    };
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn participant(on: &Pipeline) -> Participant {
        Participant {
            id: ParticipantId::new(),
            name: String::new(),
            state: ParticipantState::Connected,
            grants: Grants {
                can_publish: true,
                can_subscribe: true,
                admin: false,
                bitrates: Bitrates::UNSET,
            },
            joined_at: NOW,
            command_id: CommandId::new(),
            endpoint: Some(Endpoint {
                id: EndpointId::new(),
                pipeline_id: on.id,
                worker_id: on.worker_id,
                state: EndpointState::Connected,
            }),
            tracks: Vec::new(),
            token_issued_at: None,
        }
    }

    fn live_of(endpoint: EndpointId, participant: ParticipantId) -> Live {
        Live { endpoint, participant, was_connected: true }
    }

    /// A session on `here` with so many participants, each with a live endpoint.
    fn hosted_on(here: WorkerId, participants: usize) -> (Session, Vec<Live>) {
        let mut session = session(Some(here));
        let on = session.pipelines[0].clone();
        session.participants = (0..participants).map(|_| participant(&on)).collect();
        let live = session.participants.iter();
        let live = live.map(|entry| live_of(entry.endpoint.as_ref().unwrap().id, entry.id)).collect();
        (session, live)
    }

    /// The same after its move to another worker.
    fn moved(session: &mut Session) {
        session.pipelines[0].state = PipelineState::Draining;
        let to = Pipeline { id: PipelineId::new(), worker_id: WorkerId::new(), state: PipelineState::Ready };
        session.pipelines.insert(0, to);
        session.epoch += 1;
    }

    fn decide(
        session: &Session,
        pipeline: &Pipeline,
        live: &[Live],
        announced: bool,
        to: Option<WorkerId>,
    ) -> Step {
        step(&Hosted { session, pipeline, live: live.to_vec(), announced }, |_| to)
    }

    #[test]
    fn a_session_moves_when_somebody_takes_it_and_waits_otherwise() {
        let (session, live) = hosted_on(WorkerId::new(), 2);
        let (pipeline, to) = (&session.pipelines[0], WorkerId::new());
        assert_eq!(decide(&session, pipeline, &live, false, Some(to)), Step::Move { to });
        assert_eq!(decide(&session, pipeline, &live, false, None), Step::Wait);
        assert_eq!(
            decide(&session, pipeline, &[], false, Some(to)),
            Step::Move { to },
            "clients without endpoint too"
        );
    }

    #[test]
    fn an_empty_session_is_let_go_at_once() {
        let (session, _) = hosted_on(WorkerId::new(), 0);
        assert_eq!(decide(&session, &session.pipelines[0], &[], false, None), Step::LetGo);
        // Somebody's join is half-way: the media runs, the participant is not stored yet.
        let joining = [live_of(EndpointId::new(), ParticipantId::new())];
        assert_eq!(decide(&session, &session.pipelines[0], &joining, false, None), Step::Wait);
    }

    #[test]
    fn a_moved_session_is_announced_kept_while_somebody_is_left_and_then_retired() {
        let (mut session, live) = hosted_on(WorkerId::new(), 2);
        let old = session.pipelines[0].clone();
        moved(&mut session);
        let decide = |session: &Session, live: &[_], announced| decide(session, &old, live, announced, None);
        assert_eq!(decide(&session, &live, false), Step::Announce);
        assert_eq!(decide(&session, &live, true), Step::Keep { close: vec![] });
        // One has a new endpoint elsewhere; its old one goes on until the client closes it.
        session.participants[0] = participant(&session.pipelines[0]);
        session.participants[0].id = live[0].participant;
        assert_eq!(decide(&session, &live, true), Step::Keep { close: vec![] });
        assert_eq!(decide(&session, &live[1..], true), Step::Keep { close: vec![] });
        assert_eq!(decide(&session, &[], true), Step::Retire);
        assert_eq!(decide(&session, &[], false), Step::Retire, "nobody is left to be told");
    }

    #[test]
    fn who_is_no_longer_in_the_session_loses_the_old_endpoint_too() {
        let (mut session, live) = hosted_on(WorkerId::new(), 2);
        let old = session.pipelines[0].clone();
        moved(&mut session);
        session.participants.remove(0);
        assert_eq!(decide(&session, &old, &live, true, None), Step::Keep { close: vec![live[0].endpoint] });
    }

    #[test]
    fn who_has_moved_before_the_old_endpoint_ever_connected_loses_it() {
        let (mut session, mut live) = hosted_on(WorkerId::new(), 2);
        let old = session.pipelines[0].clone();
        moved(&mut session);
        live.iter_mut().for_each(|live| live.was_connected = false);
        let kept = decide(&session, &old, &live, true, None);
        assert_eq!(kept, Step::Keep { close: vec![] }, "who has not moved may still connect");
        session.participants[0] = participant(&session.pipelines[0]);
        session.participants[0].id = live[0].participant;
        let closed = decide(&session, &old, &live, true, None);
        assert_eq!(closed, Step::Keep { close: vec![live[0].endpoint] });
    }

    #[test]
    fn when_the_new_pipeline_is_dropped_the_session_moves_again() {
        let (mut session, live) = hosted_on(WorkerId::new(), 1);
        let old = session.pipelines[0].clone();
        moved(&mut session);
        session.pipelines.remove(0);
        let to = WorkerId::new();
        assert_eq!(decide(&session, &old, &live, true, Some(to)), Step::Move { to });
    }

    #[test]
    fn many_sessions_are_spread_although_no_heartbeat_tells_of_them_yet() {
        let workers = [
            worker(100 << 20, NOW.0 + 1, WorkerState::Ready),
            worker(101 << 20, NOW.0 + 1, WorkerState::Ready),
        ];
        let mut spread = Spread::new(100 << 20, 100);
        let mut counts = BTreeMap::new();
        for _ in 0..100 {
            *counts.entry(spread.choose(&workers, 4, NOW).unwrap()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (45..=55).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn only_ready_workers_with_a_lease_are_chosen(
            rows in proptest::collection::vec((0_i64..50, -5_i64..5, any::<bool>()), 0..8),
            sizes in proptest::collection::vec(0_usize..100, 1..20),
        ) {
            let workers: Vec<Worker> = rows.iter().map(|&(memory, lease, ready)| {
                worker(memory, NOW.0 + lease, if ready { WorkerState::Ready } else { WorkerState::Draining })
            }).collect();
            let mut spread = Spread::new(0, 0);
            for size in sizes {
                match spread.choose(&workers, size, NOW) {
                    Some(id) => {
                        let row = workers.iter().find(|row| row.id == id).unwrap();
                        prop_assert!(row.takes_pipelines(NOW));
                    }
                    None => prop_assert!(workers.iter().all(|row| !row.takes_pipelines(NOW))),
                }
            }
        }
    }
}
