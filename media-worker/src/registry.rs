//! What lives in this worker: endpoints and pipelines by id. Documents name them; only this resolves them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::message::{CommandError, EventBody, LeaveReason, ReplyBody, Target};
use common::model::{
    CommandId, EndpointId, EndpointState, ParticipantId, PipelineId, Quality, SessionId, Track, WorkerId,
};

use crate::metrics;
use crate::report::To;
use crate::spans::Traced;

/// Replies kept for each endpoint, so that a command that comes twice gets the same reply.
const REPLIES_KEPT: usize = 64;
/// Events of one endpoint that wait for its join to be stored; more than a fresh endpoint ever has to say.
const HELD_BACK: usize = 64;
/// Joins whose endpoint has ended; the same join delivered again must not bring a ghost in.
const ENDED_JOINS_KEPT: usize = 4096;

pub(crate) type CommandResult = Result<ReplyBody, CommandError>;

/// One endpoint that this worker hosts.
pub(crate) struct LiveEndpoint {
    pub id: EndpointId,
    pub session_id: SessionId,
    pub participant_id: ParticipantId,
    pub pipeline_id: PipelineId,
    pub epoch: i64,
    /// The join that opened it.
    pub joined_by: CommandId,
    /// Held for the length of one command or report, so that these take effect one after the other.
    pub memory: tokio::sync::Mutex<Memory>,
    /// Events for its own client, kept back until its join is stored; `None` from then on.
    pub held_back: Mutex<Option<Vec<EventBody>>>,
    /// Its connection was up at some time.
    pub connected_once: AtomicBool,
    /// How good its connection was when that was last told.
    pub quality: Mutex<Quality>,
    /// The trace of its join, when that is recorded.
    pub traced: Option<Traced>,
}

impl LiveEndpoint {
    pub fn was_connected(&self) -> bool {
        self.connected_once.load(Ordering::Relaxed)
    }

    /// Where events for its client go.
    pub fn own_queue(&self) -> To {
        To::Participant(self.participant_id, self.id)
    }

    pub fn quality(&self) -> Quality {
        *self.quality.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_quality(&self, quality: Quality) {
        *self.quality.lock().unwrap_or_else(PoisonError::into_inner) = quality;
    }

    /// The event itself when it may be sent now, `None` when it waits for the join to be stored.
    ///
    /// A try of a join that fails and is done again opens an endpoint of the same id: what the first one offered must
    /// never reach the client.
    pub fn hold_back(&self, event: EventBody) -> Option<EventBody> {
        match &mut *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) {
            // Its join takes no longer than a command; an endpoint that nobody has connected to says little.
            Some(held) if held.len() < HELD_BACK => {
                held.push(event);
                None
            }
            Some(_) => {
                metrics::event(event.kind(), "dropped");
                None
            }
            None => Some(event),
        }
    }

    /// The join is stored: sends what was kept back, and nothing is kept back any more.
    pub fn release(&self, mut send: impl FnMut(EventBody)) {
        // Under the lock, so that what the connection reports meanwhile comes after.
        let mut held = self.held_back.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().unwrap_or_default().into_iter().for_each(&mut send);
    }
}

/// What the worker knows about an endpoint beyond its ids, and how much of that is stored.
#[derive(Default)]
pub(crate) struct Memory {
    /// The reply to the join; kept as long as the endpoint.
    pub join_reply: Option<ReplyBody>,
    replies: VecDeque<(CommandId, CommandResult)>,
    pub tracks: Vec<Track>,
    /// The store does not have `tracks` yet.
    pub tracks_unstored: bool,
    /// What to tell the session once `tracks` is stored.
    pub unreported: Vec<EventBody>,
    /// The state to be stored, when it is not yet.
    pub state_unstored: Option<EndpointState>,
    /// A leave has begun to remove the participant; whether that was stored is not known until it is over.
    pub leaving: Option<LeaveReason>,
    /// The connection is over; the participant is to be removed and these events sent.
    pub closing: Option<Vec<EventBody>>,
    /// Its participant has moved to another worker: this endpoint goes on until its client closes it, but what happens
    /// to it is stored and told no more.
    pub superseded: bool,
    /// It is out of the registry and no longer speaks for its participant.
    pub gone: bool,
}

impl Memory {
    pub fn reply_to(&self, command_id: CommandId) -> Option<CommandResult> {
        self.replies.iter().find(|(id, _)| *id == command_id).map(|(_, reply)| reply.clone())
    }

    pub fn remember(&mut self, command_id: CommandId, reply: CommandResult) {
        if self.replies.len() == REPLIES_KEPT {
            self.replies.pop_front();
        }
        self.replies.push_back((command_id, reply));
    }

    /// Whether the store lacks something.
    pub fn is_unstored(&self) -> bool {
        self.tracks_unstored || self.state_unstored.is_some() || self.closing.is_some()
    }
}

/// A session's pipeline here, and the epoch in which it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LivePipeline {
    pub id: PipelineId,
    pub epoch: i64,
}

#[derive(Default)]
struct Tables {
    /// In the order of their ids, so that what is done to all of them is done in the same order every time.
    endpoints: BTreeMap<EndpointId, Arc<LiveEndpoint>>,
    /// The endpoint that speaks for a participant; an endpoint whose join is under way does not yet.
    current: HashMap<(SessionId, ParticipantId), EndpointId>,
    pipelines: BTreeMap<SessionId, LivePipeline>,
    ended_joins: HashSet<CommandId>,
    ended_joins_order: VecDeque<CommandId>,
}

/// The tables above behind one lock that is held for single look-ups only.
#[derive(Default)]
pub(crate) struct Registry {
    tables: Mutex<Tables>,
}

impl Registry {
    /// Makes an endpoint known before its media exists, so that its first media event finds it. `false`: another one
    /// has its id, and nothing is changed.
    #[must_use]
    pub fn insert(&self, endpoint: Arc<LiveEndpoint>) -> bool {
        match self.lock().endpoints.entry(endpoint.id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(endpoint);
                true
            }
        }
    }

    /// The endpoint now speaks for its participant, and its pipeline for the session; gives the endpoint that
    /// spoke for the participant before.
    pub fn make_current(&self, endpoint: &LiveEndpoint) -> Option<Arc<LiveEndpoint>> {
        let mut tables = self.lock();
        let pipeline = LivePipeline { id: endpoint.pipeline_id, epoch: endpoint.epoch };
        let known = tables.pipelines.entry(endpoint.session_id).or_insert(pipeline);
        if known.epoch < pipeline.epoch {
            *known = pipeline;
        }
        let key = (endpoint.session_id, endpoint.participant_id);
        let before = tables.current.insert(key, endpoint.id)?;
        tables.endpoints.get(&before).filter(|before| before.id != endpoint.id).cloned()
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<Arc<LiveEndpoint>> {
        self.lock().endpoints.get(&id).cloned()
    }

    /// The endpoint that speaks for a participant here.
    pub fn current(&self, session_id: SessionId, participant_id: ParticipantId) -> Option<Arc<LiveEndpoint>> {
        let tables = self.lock();
        tables.current.get(&(session_id, participant_id)).and_then(|id| tables.endpoints.get(id)).cloned()
    }

    /// The endpoint a command is for, if it is exactly the one that lives here.
    pub fn resolve(&self, target: &Target, worker_id: WorkerId) -> Option<Arc<LiveEndpoint>> {
        self.endpoint(target.endpoint_id).filter(|endpoint| {
            target.worker_id == worker_id
                && target.session_id == endpoint.session_id
                && target.participant_id == endpoint.participant_id
                && target.pipeline_id == endpoint.pipeline_id
                // The session's epoch goes on when it moves away from a draining worker; the endpoint's does not.
                && target.epoch >= endpoint.epoch
        })
    }

    /// Forgets an endpoint. `ended`: its join had taken effect, so that join must never be done again.
    pub fn remove(&self, endpoint: &LiveEndpoint, ended: bool) {
        let mut tables = self.lock();
        // A join that is done again has an endpoint of the same id, which stays.
        if tables.endpoints.get(&endpoint.id).is_some_and(|here| std::ptr::eq(&**here, endpoint)) {
            tables.endpoints.remove(&endpoint.id);
        }
        let key = (endpoint.session_id, endpoint.participant_id);
        if tables.current.get(&key) == Some(&endpoint.id) {
            tables.current.remove(&key);
        }
        if ended && tables.ended_joins.insert(endpoint.joined_by) {
            tables.ended_joins_order.push_back(endpoint.joined_by);
            if tables.ended_joins_order.len() > ENDED_JOINS_KEPT
                && let Some(oldest) = tables.ended_joins_order.pop_front()
            {
                tables.ended_joins.remove(&oldest);
            }
        }
    }

    /// Whether the endpoint that this join opened has come and gone.
    pub fn join_has_ended(&self, command_id: CommandId) -> bool {
        self.lock().ended_joins.contains(&command_id)
    }

    pub fn pipelines(&self) -> Vec<(SessionId, LivePipeline)> {
        self.lock().pipelines.iter().map(|(session, pipeline)| (*session, *pipeline)).collect()
    }

    /// The session that this pipeline is hosted for.
    pub fn session_of(&self, pipeline: PipelineId) -> Option<SessionId> {
        let tables = self.lock();
        tables.pipelines.iter().find(|(_, here)| here.id == pipeline).map(|(session, _)| *session)
    }

    /// Forgets a session's pipeline, when it still is this one.
    pub fn remove_pipeline(&self, session_id: SessionId, pipeline: PipelineId) {
        let mut tables = self.lock();
        if tables.pipelines.get(&session_id).is_some_and(|here| here.id == pipeline) {
            tables.pipelines.remove(&session_id);
        }
    }

    /// The pipelines that a session has here: one, or two while an old one goes.
    pub fn pipelines_of(&self, session_id: SessionId) -> BTreeSet<PipelineId> {
        let tables = self.lock();
        let in_use = tables.endpoints.values().filter(|endpoint| endpoint.session_id == session_id);
        let known = tables.pipelines.get(&session_id).map(|pipeline| pipeline.id);
        in_use.map(|endpoint| endpoint.pipeline_id).chain(known).collect()
    }

    pub fn endpoints_of(&self, pipeline: PipelineId) -> Vec<Arc<LiveEndpoint>> {
        self.lock().endpoints.values().filter(|endpoint| endpoint.pipeline_id == pipeline).cloned().collect()
    }

    pub fn endpoints(&self) -> Vec<Arc<LiveEndpoint>> {
        self.lock().endpoints.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Nothing that can panic runs under this lock.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(session_id: SessionId, participant_id: ParticipantId) -> Arc<LiveEndpoint> {
        Arc::new(LiveEndpoint {
            id: EndpointId::new(),
            session_id,
            participant_id,
            pipeline_id: PipelineId::new(),
            epoch: 3,
            joined_by: CommandId::new(),
            memory: tokio::sync::Mutex::default(),
            held_back: Mutex::default(),
            connected_once: AtomicBool::default(),
            quality: Mutex::default(),
            traced: None,
        })
    }

    #[test]
    fn a_target_resolves_only_when_every_part_of_it_is_right() {
        let registry = Registry::default();
        let worker_id = WorkerId::new();
        let here = endpoint(SessionId::new(), ParticipantId::new());
        assert!(registry.insert(here.clone()));
        let right = Target {
            session_id: here.session_id,
            participant_id: here.participant_id,
            endpoint_id: here.id,
            pipeline_id: here.pipeline_id,
            worker_id,
            epoch: here.epoch,
        };
        assert!(registry.resolve(&right, worker_id).is_some());
        let wrong = [
            Target { session_id: SessionId::new(), ..right },
            Target { participant_id: ParticipantId::new(), ..right },
            Target { endpoint_id: EndpointId::new(), ..right },
            Target { pipeline_id: PipelineId::new(), ..right },
            Target { worker_id: WorkerId::new(), ..right },
            Target { epoch: right.epoch - 1, ..right },
        ];
        for target in wrong {
            assert!(registry.resolve(&target, worker_id).is_none(), "{target:?}");
        }
        let after_a_move = Target { epoch: right.epoch + 1, ..right };
        assert!(registry.resolve(&after_a_move, worker_id).is_some());
    }

    #[test]
    fn a_rejoin_takes_over_and_the_late_end_of_the_old_endpoint_changes_nothing() {
        let registry = Registry::default();
        let (session_id, participant_id) = (SessionId::new(), ParticipantId::new());
        let old = endpoint(session_id, participant_id);
        let new = endpoint(session_id, participant_id);
        assert!(registry.insert(old.clone()));
        assert!(registry.make_current(&old).is_none());
        assert!(registry.insert(new.clone()));
        assert_eq!(registry.make_current(&new).map(|before| before.id), Some(old.id));
        registry.remove(&old, true);
        assert!(registry.endpoint(new.id).is_some() && registry.endpoint(old.id).is_none());
        assert!(registry.join_has_ended(old.joined_by) && !registry.join_has_ended(new.joined_by));
        let third = endpoint(session_id, participant_id);
        assert!(registry.insert(third.clone()));
        assert_eq!(registry.make_current(&third).map(|before| before.id), Some(new.id));
    }

    #[test]
    fn replies_are_kept_up_to_a_bound_and_the_oldest_goes_first() {
        let mut memory = Memory::default();
        let ids: Vec<CommandId> = (0..=REPLIES_KEPT).map(|_| CommandId::new()).collect();
        for id in &ids {
            memory.remember(*id, Ok(ReplyBody::Accepted));
        }
        assert_eq!(memory.reply_to(ids[0]), None);
        assert_eq!(memory.reply_to(ids[1]), Some(Ok(ReplyBody::Accepted)));
        assert_eq!(memory.reply_to(ids[REPLIES_KEPT]), Some(Ok(ReplyBody::Accepted)));
    }
}
