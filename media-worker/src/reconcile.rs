//! Stored against running: what to do about the difference. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::model::{EndpointId, EndpointState, ParticipantId, Pipeline, PipelineId, SessionId, WorkerId};
use common::store::SessionOutline;
use tokio::time::Instant;

use crate::registry::LivePipeline;

/// Which session inboxes to open and which to close.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxDiff {
    pub attach: Vec<SessionId>,
    pub detach: Vec<SessionId>,
}

/// Compares the inboxes that are open with the sessions that are.
pub(crate) fn inboxes(attached: &BTreeSet<SessionId>, open: &BTreeSet<SessionId>) -> InboxDiff {
    InboxDiff {
        attach: open.difference(attached).copied().collect(),
        detach: attached.difference(open).copied().collect(),
    }
}

/// The pipelines that run here although the store has the session elsewhere, or closed.
pub(crate) fn stale_pipelines(
    running: &[(SessionId, LivePipeline)],
    open: &BTreeMap<SessionId, &SessionOutline>,
    here: WorkerId,
) -> Vec<(SessionId, PipelineId)> {
    let is_stored = |session_id: &SessionId, id: PipelineId| {
        let stored = open.get(session_id).map_or(&[][..], |session| &session.pipelines);
        stored.iter().any(|stored| stored.id == id && stored.worker_id == here)
    };
    running
        .iter()
        .filter(|(session_id, pipeline)| !is_stored(session_id, pipeline.id))
        .map(|(session_id, pipeline)| (*session_id, pipeline.id))
        .collect()
}

/// The pipelines of open sessions that are on none of these workers, current ones and those that drain.
pub(crate) fn orphaned<'a>(
    open: &'a [SessionOutline],
    alive: &[WorkerId],
) -> Vec<(&'a SessionOutline, &'a Pipeline)> {
    let pipelines =
        open.iter().flat_map(|session| session.pipelines.iter().map(move |pipeline| (session, pipeline)));
    pipelines.filter(|(_, pipeline)| !alive.contains(&pipeline.worker_id)).collect()
}

/// The participants of a session that nobody hosts: their worker died and they have not rejoined, or (when the session
/// is hosted here) this worker does not know their endpoint.
pub(crate) fn left_behind(
    session: &SessionOutline,
    here: WorkerId,
    is_live: impl Fn(EndpointId) -> bool,
) -> Vec<(ParticipantId, Option<EndpointId>)> {
    let hosted_here = session.pipelines.iter().any(|pipeline| pipeline.worker_id == here);
    let participants = session.participants.iter();
    let lost = participants.filter(|participant| match &participant.endpoint {
        None => true,
        Some(endpoint) if endpoint.state == EndpointState::Closed => true,
        Some(endpoint) => hosted_here && endpoint.worker_id == here && !is_live(endpoint.id),
    });
    lost.map(|participant| (participant.id, participant.endpoint.as_ref().map(|endpoint| endpoint.id)))
        .collect()
}

/// The endpoints that run in a session's current pipeline here although no participant is stored with them: their join is
/// under way, or what removed them never learned that it did.
pub(crate) fn strays(
    session: &SessionOutline,
    here: WorkerId,
    running: impl Fn(PipelineId) -> Vec<EndpointId>,
) -> Vec<EndpointId> {
    let Some(pipeline) = session.pipelines.first().filter(|pipeline| pipeline.worker_id == here) else {
        return Vec::new();
    };
    let is_stored = |id: &EndpointId| {
        let mut stored = session.participants.iter().filter_map(|participant| participant.endpoint.as_ref());
        stored.any(|endpoint| endpoint.id == *id)
    };
    running(pipeline.id).into_iter().filter(|id| !is_stored(id)).collect()
}

/// The endpoints of a session that live here and that nobody has ever connected to.
pub(crate) fn never_connected(session: &SessionOutline, here: WorkerId) -> Vec<EndpointId> {
    let endpoints = session.participants.iter().filter_map(|participant| participant.endpoint.as_ref());
    let waiting =
        endpoints.filter(|endpoint| endpoint.worker_id == here && endpoint.state == EndpointState::New);
    waiting.map(|endpoint| endpoint.id).collect()
}

/// How long something has been so without interruption, as seen by repeated looks.
pub(crate) struct Patience<K> {
    since: BTreeMap<K, Instant>,
}

impl<K> Default for Patience<K> {
    fn default() -> Self {
        Self { since: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Patience<K> {
    /// Takes what is so at `now`, forgets what no longer is, and gives what has been so for `limit` or longer.
    pub fn exhausted(
        &mut self,
        present: impl IntoIterator<Item = K>,
        now: Instant,
        limit: Duration,
    ) -> Vec<K> {
        let before = std::mem::take(&mut self.since);
        for key in present {
            let since = before.get(&key).copied().unwrap_or(now);
            self.since.insert(key, since);
        }
        let overdue = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= limit);
        overdue.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::session;
    use common::model::{Bitrates, CommandId, Endpoint, Grants, Participant, ParticipantState};
    use common::time::UnixMillis;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn applying_the_diff_gives_exactly_the_open_sessions(
            attached in proptest::collection::btree_set(0_u128..20, 0..20),
            open in proptest::collection::btree_set(0_u128..20, 0..20),
        ) {
            let ids = |set: BTreeSet<u128>| -> BTreeSet<SessionId> {
                set.into_iter().map(|n| SessionId::from_uuid(Uuid::from_u128(n))).collect()
            };
            let (mut attached, open) = (ids(attached), ids(open));
            let diff = inboxes(&attached, &open);
            for id in &diff.attach {
                prop_assert!(attached.insert(*id), "attached twice");
            }
            for id in &diff.detach {
                prop_assert!(attached.remove(id), "detached what was not attached");
            }
            prop_assert_eq!(&attached, &open);
            prop_assert_eq!(inboxes(&attached, &open), InboxDiff::default());
        }
    }

    #[test]
    fn a_pipeline_is_stale_when_the_store_has_the_session_elsewhere_or_not_at_all() {
        let here = WorkerId::new();
        let (mine, theirs, unplaced) = (session(Some(here)), session(Some(WorkerId::new())), session(None));
        let stored = [&mine, &theirs, &unplaced].map(SessionOutline::from);
        let open = stored.iter().map(|session| (session.id, session)).collect();
        let live = |id| LivePipeline { id, epoch: 1 };
        let old = PipelineId::new();
        let closed = SessionId::new();
        let running = [
            (mine.id, live(mine.pipelines[0].id)),
            (theirs.id, live(theirs.pipelines[0].id)),
            (unplaced.id, live(old)),
            (closed, live(old)),
        ];
        let stale = [(theirs.id, theirs.pipelines[0].id), (unplaced.id, old), (closed, old)];
        assert_eq!(stale_pipelines(&running, &open, here), stale);
    }

    #[test]
    fn a_session_is_orphaned_when_its_worker_is_not_alive() {
        let alive = WorkerId::new();
        let open = [session(Some(alive)), session(None), session(Some(WorkerId::new()))];
        let open = open.each_ref().map(SessionOutline::from);
        let orphans = orphaned(&open, &[alive]);
        assert_eq!(orphans, [(&open[2], &open[2].pipelines[0])]);
    }

    fn member(worker_id: WorkerId, state: EndpointState) -> Participant {
        Participant {
            id: ParticipantId::new(),
            name: String::new(),
            state: ParticipantState::Joined,
            grants: Grants {
                can_publish: true,
                can_subscribe: true,
                admin: false,
                bitrates: Bitrates::UNSET,
            },
            joined_at: UnixMillis(0),
            command_id: CommandId::new(),
            endpoint: Some(Endpoint {
                id: EndpointId::new(),
                pipeline_id: PipelineId::new(),
                worker_id,
                state,
            }),
            tracks: Vec::new(),
            token_issued_at: None,
        }
    }

    #[test]
    fn left_behind_are_those_with_a_closed_endpoint_or_one_that_is_not_really_here() {
        let (here, elsewhere) = (WorkerId::new(), WorkerId::new());
        let mut hosted = session(Some(here));
        hosted.participants = vec![
            member(here, EndpointState::Connected),
            member(here, EndpointState::Connected),
            member(elsewhere, EndpointState::Closed),
            member(elsewhere, EndpointState::Connected),
        ];
        let id = |index: usize| hosted.participants[index].endpoint.as_ref().map(|endpoint| endpoint.id);
        let known = id(0);
        let lost = left_behind(&SessionOutline::from(&hosted), here, |endpoint| Some(endpoint) == known);
        assert_eq!(lost, [1, 2].map(|index| (hosted.participants[index].id, id(index))));
        // From elsewhere only the closed one can be judged.
        let lost = left_behind(&SessionOutline::from(&hosted), elsewhere, |_| false);
        assert_eq!(lost, [(hosted.participants[2].id, id(2))]);
    }

    #[test]
    fn never_connected_are_those_that_are_new_and_here() {
        let (here, elsewhere) = (WorkerId::new(), WorkerId::new());
        let mut hosted = session(Some(here));
        hosted.participants = vec![
            member(here, EndpointState::New),
            member(here, EndpointState::Connected),
            member(here, EndpointState::Disconnected),
            member(elsewhere, EndpointState::New),
        ];
        let first = hosted.participants[0].endpoint.as_ref().map(|endpoint| endpoint.id);
        assert_eq!(never_connected(&SessionOutline::from(&hosted), here), Vec::from_iter(first));
    }

    #[test]
    fn patience_runs_out_only_for_what_stays_so() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let limit = Duration::from_secs(10);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(patience.exhausted(["a", "b"], at(0), limit).is_empty());
        assert!(patience.exhausted(["a"], at(9), limit).is_empty());
        let mut overdue = patience.exhausted(["a", "b"], at(10), limit);
        overdue.sort_unstable();
        assert_eq!(overdue, ["a"], "b was away in between and starts anew");
        assert_eq!(patience.exhausted(["b"], at(20), limit), ["b"]);
    }
}
