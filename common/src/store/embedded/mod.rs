//! The store inside this process: what one machine without MongoDB runs on.
//!
//! It keeps the same promises as the MongoDB store, except that everything ends with the process. All documents sit behind
//! one mutex that is held for the copy or the change of one document, never across an `await`.
//!
//! | part | bound |
//! |---|---|
//! | sessions, workers | what their owners keep; [`Store::delete_closed_sessions`] removes closed sessions |
//! | `feed` (changes) | the last 16,384 changes |
//! | `timeline` | entries in all, entries per session and time, see there |
//! | `ratings` | in all, and time, see there |

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use self::feed::{EmbeddedWatch, Feed};
use self::ratings::Ratings;
use self::timeline::Timeline;
use super::{
    Guarded, Inserted, Outlined, RemoveIf, ResumeToken, SessionChangeKind, SessionFilter, SessionOutline,
    SessionWatch, Store, StoreResult, is_placed, participant_state_for, still_stands,
};
use crate::model::{
    CommandId, DONE_COMMANDS_KEPT, EndpointId, EndpointState, EventId, InstanceId, Participant,
    ParticipantId, ParticipantState, Pipeline, PipelineId, PipelineState, REVOCATIONS_KEPT, Rating,
    Revocation, RunId, Session, SessionId, SessionSettings, SessionState, TimelineEntry, Track, TrackId,
    Worker, WorkerId,
};
use crate::time::UnixMillis;

mod feed;
mod ratings;
#[cfg(test)]
mod tests;
mod timeline;

/// The in-process store. Clones share one state.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The sequence number of the newest change: what watches wait on.
    newest: watch::Sender<u64>,
    connected: watch::Sender<bool>,
}

struct State {
    sessions: BTreeMap<SessionId, Session>,
    workers: BTreeMap<WorkerId, Worker>,
    timeline: Timeline,
    ratings: Ratings,
    /// Who has each, and until when.
    leases: BTreeMap<String, (InstanceId, UnixMillis)>,
    feed: Feed,
}

impl Default for EmbeddedStore {
    fn default() -> Self {
        Self::new()
    }
}

impl EmbeddedStore {
    pub fn new() -> Self {
        Self::with_history(feed::CHANGES_KEPT)
    }

    /// A store that keeps only this many changes (at least 1) for watches that resume.
    pub(crate) fn with_history(changes_kept: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    sessions: BTreeMap::new(),
                    workers: BTreeMap::new(),
                    timeline: Timeline::default(),
                    ratings: Ratings::default(),
                    leases: BTreeMap::new(),
                    feed: Feed::new(changes_kept),
                }),
                newest: watch::Sender::new(0),
                connected: watch::Sender::new(true),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// One guarded change: `apply` says whether its guard held, and changes the document only then. A change that
    /// leaves the document as it was is applied, but is no change to watches (as in MongoDB).
    fn change(&self, id: SessionId, apply: impl FnOnce(&mut Session) -> bool) -> Guarded {
        let mut state = self.lock();
        let Some(stored) = state.sessions.get_mut(&id) else { return Guarded::Refused(None) };
        let mut changed = stored.clone();
        if !apply(&mut changed) {
            return Guarded::Refused(Some(Box::new(changed)));
        }
        if changed != *stored {
            let closed = changed.state == SessionState::Closed;
            *stored = changed.clone();
            let kind = if closed { SessionChangeKind::Closed } else { SessionChangeKind::Updated };
            self.tell(&mut state, id, kind);
        }
        Guarded::Applied(Box::new(changed))
    }

    /// [`Self::change`] of one participant of the session; no such participant is a guard that does not hold.
    fn change_participant(
        &self,
        id: SessionId,
        participant: ParticipantId,
        apply: impl FnOnce(&mut Participant) -> bool,
    ) -> Guarded {
        self.change(id, |session| {
            session.participants.iter_mut().find(|entry| entry.id == participant).is_some_and(apply)
        })
    }

    /// Adds the change to the feed and wakes the watches.
    fn tell(&self, state: &mut State, id: SessionId, kind: SessionChangeKind) {
        let sequence = state.feed.push(id, kind);
        self.shared.newest.send_replace(sequence);
    }
}

impl Shared {
    /// Changes are made whole before anything can panic, so a poisoned state is a good state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_open_endpoint(participant: &Participant, endpoint: EndpointId) -> bool {
    RemoveIf::OpenEndpoint(endpoint).allows(participant.endpoint.as_ref())
}

fn is_outlined(session: &Session, which: Outlined<'_>) -> bool {
    let is_left = |participant: &Participant| {
        participant.endpoint.as_ref().is_none_or(|endpoint| endpoint.state == EndpointState::Closed)
    };
    session.state == SessionState::Open
        && match which {
            Outlined::On(worker) => session.pipelines.iter().any(|pipeline| pipeline.worker_id == worker),
            Outlined::Unattended { living } => {
                session.participants.is_empty()
                    || session.participants.iter().any(is_left)
                    || session.pipelines.iter().any(|pipeline| !living.contains(&pipeline.worker_id))
            }
        }
}

fn closed_before(session: &Session, before: UnixMillis) -> bool {
    session.state == SessionState::Closed && session.closed_at.is_some_and(|at| at < before)
}

/// `false`: it is closed already.
fn close(session: &mut Session, at: UnixMillis) -> bool {
    let open = session.state == SessionState::Open;
    if open {
        session.state = SessionState::Closed;
        session.closed_at = Some(at);
        session.participants.clear();
        session.pipelines.clear();
        session.done_commands.clear();
    }
    open
}

fn note_done(session: &mut Session, command: CommandId) {
    let too_many = (session.done_commands.len() + 1).saturating_sub(DONE_COMMANDS_KEPT);
    session.done_commands.drain(..too_many);
    session.done_commands.push(command);
}

/// The entry stays where it is when it says as much already: then nothing changes.
fn revoke(session: &mut Session, participant_id: ParticipantId, at: UnixMillis) {
    if session.has_revoked(participant_id, at) {
        return;
    }
    session.revocations.retain(|it| it.participant_id != participant_id);
    session.revocations.push(Revocation { participant_id, at });
    let too_many = session.revocations.len().saturating_sub(REVOCATIONS_KEPT);
    session.revocations.drain(..too_many);
}

/// Takes the pipeline out, and ends what was on it.
fn end_pipeline(session: &mut Session, pipeline: PipelineId) {
    session.pipelines.retain(|current| current.id != pipeline);
    for participant in &mut session.participants {
        let Some(endpoint) = &mut participant.endpoint else { continue };
        if endpoint.pipeline_id == pipeline {
            endpoint.state = EndpointState::Closed;
            participant.state = ParticipantState::Disconnected;
            participant.tracks.clear();
        }
    }
}

/// Whether the text occurs where [`SessionFilter::search`] looks.
fn mentions(session: &Session, text: &str) -> bool {
    let text = text.to_lowercase();
    let has = |field: &str| field.to_lowercase().contains(&text);
    has(&session.id.to_string())
        || session.name.as_deref().is_some_and(has)
        || session.participants.iter().any(|one| has(&one.id.to_string()) || has(&one.name))
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn insert_session(&self, session: &Session) -> StoreResult<Inserted> {
        let mut state = self.lock();
        if let Some(existing) = state.sessions.get(&session.id) {
            return Ok(Inserted::Existing(Box::new(existing.clone())));
        }
        state.sessions.insert(session.id, session.clone());
        self.tell(&mut state, session.id, SessionChangeKind::Inserted(Box::new(session.clone())));
        Ok(Inserted::New)
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        Ok(self.lock().sessions.get(&id).cloned())
    }

    async fn sessions(&self, filter: &SessionFilter) -> StoreResult<Vec<Session>> {
        let from = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let found = state.sessions.range((from, Bound::Unbounded)).map(|(_, session)| session);
        Ok(found
            .filter(|session| filter.key_id.as_ref().is_none_or(|key| *key == session.key_id))
            .filter(|session| !filter.open_only || session.state == SessionState::Open)
            .filter(|session| {
                filter.worker_id.is_none_or(|worker| {
                    session.pipelines.iter().any(|pipeline| pipeline.worker_id == worker)
                })
            })
            .filter(|session| filter.search.as_ref().is_none_or(|text| mentions(session, text)))
            .take(filter.effective_limit())
            .cloned()
            .collect())
    }

    async fn outlines(
        &self,
        which: Outlined<'_>,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionOutline>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let found = state.sessions.range((from, Bound::Unbounded)).map(|(_, session)| session);
        let outlined = found.filter(|session| is_outlined(session, which)).take(limit as usize);
        Ok(outlined.map(SessionOutline::from).collect())
    }

    async fn open_sessions(&self, after: Option<SessionId>, limit: u32) -> StoreResult<Vec<SessionId>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let found = state.sessions.range((from, Bound::Unbounded)).map(|(_, session)| session);
        let open = found.filter(|session| session.state == SessionState::Open).take(limit as usize);
        Ok(open.map(|session| session.id).collect())
    }

    async fn place_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: &Pipeline,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            if is_placed(session, expected_epoch, pipeline.id) {
                return true;
            }
            let free = session.state == SessionState::Open
                && session.epoch == expected_epoch
                && session.pipelines.is_empty();
            if free {
                session.pipelines.push(pipeline.clone());
                session.epoch += 1;
                session.previous_worker_id = Some(pipeline.worker_id);
            }
            free
        }))
    }

    async fn drop_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: PipelineId,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let placed = session.epoch == expected_epoch
                && session.pipelines.iter().any(|current| current.id == pipeline);
            if placed {
                session.epoch += 1;
                end_pipeline(session, pipeline);
            }
            placed
        }))
    }

    async fn move_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        from: PipelineId,
        to: &Pipeline,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            if is_placed(session, expected_epoch, to.id) {
                return true;
            }
            let here = session.state == SessionState::Open
                && session.epoch == expected_epoch
                && session.pipeline().is_some_and(|current| current.id == from);
            if here {
                for pipeline in &mut session.pipelines {
                    pipeline.state = PipelineState::Draining;
                }
                session.pipelines.insert(0, to.clone());
                session.epoch += 1;
                session.previous_worker_id = Some(to.worker_id);
            }
            here
        }))
    }

    async fn retire_pipeline(&self, session: SessionId, pipeline: PipelineId) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let is_current = session.pipeline().is_some_and(|current| current.id == pipeline);
            let drains = session
                .pipelines
                .iter()
                .any(|other| other.id == pipeline && other.state == PipelineState::Draining);
            if drains && !is_current {
                end_pipeline(session, pipeline);
            }
            drains && !is_current
        }))
    }

    async fn put_participant(
        &self,
        session: SessionId,
        epoch: i64,
        participant: &Participant,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let join = participant.command_id;
            let is_repeated = session.has_done(join);
            let current = session.state == SessionState::Open
                && session.epoch == epoch
                && (!is_repeated || still_stands(session, participant))
                && !participant.token_issued_at.is_some_and(|at| session.has_revoked(participant.id, at));
            if current {
                if !is_repeated {
                    note_done(session, join);
                }
                match session.participants.iter_mut().find(|entry| entry.id == participant.id) {
                    Some(entry) => entry.clone_from(participant),
                    None => session.participants.push(participant.clone()),
                }
            }
            current
        }))
    }

    async fn set_endpoint_state(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        state: EndpointState,
    ) -> StoreResult<Guarded> {
        Ok(self.change_participant(session, participant, |participant| {
            let Some(current) = participant.endpoint.as_mut().filter(|current| current.id == endpoint) else {
                return false;
            };
            if current.state == EndpointState::Closed && state != EndpointState::Closed {
                return false;
            }
            current.state = state;
            participant.state = participant_state_for(state);
            true
        }))
    }

    async fn set_tracks(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        tracks: &[Track],
    ) -> StoreResult<Guarded> {
        Ok(self.change_participant(session, participant, |participant| {
            let current = has_open_endpoint(participant, endpoint);
            if current {
                participant.tracks = tracks.to_vec();
            }
            current
        }))
    }

    async fn set_track_muted(
        &self,
        session: SessionId,
        participant: ParticipantId,
        track: TrackId,
        muted: bool,
    ) -> StoreResult<Guarded> {
        Ok(self.change_participant(session, participant, |participant| {
            let found = participant.tracks.iter_mut().find(|entry| entry.id == track);
            found.map(|entry| entry.muted = muted).is_some()
        }))
    }

    async fn remove_participant(
        &self,
        session: SessionId,
        participant: ParticipantId,
        only_if: RemoveIf,
        by: Option<CommandId>,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            if by.is_some_and(|leave| session.has_done(leave)) {
                return false;
            }
            let found = session
                .participants
                .iter()
                .position(|entry| entry.id == participant && only_if.allows(entry.endpoint.as_ref()));
            let Some(index) = found else { return false };
            session.participants.remove(index);
            if let Some(leave) = by {
                note_done(session, leave);
            }
            true
        }))
    }

    async fn revoke(
        &self,
        session: SessionId,
        participant: ParticipantId,
        at: UnixMillis,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let open = session.state == SessionState::Open;
            if open {
                revoke(session, participant, at);
            }
            open
        }))
    }

    async fn note_done(&self, session: SessionId, command: CommandId) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let is_new = session.state == SessionState::Open && !session.has_done(command);
            if is_new {
                note_done(session, command);
            }
            is_new
        }))
    }

    async fn set_settings(
        &self,
        session: SessionId,
        settings: &SessionSettings,
        by: CommandId,
    ) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| {
            let is_new = session.state == SessionState::Open && !session.has_done(by);
            if is_new {
                let revision = session.settings.revision + 1;
                session.settings = SessionSettings { revision, ..settings.clone() };
                note_done(session, by);
            }
            is_new
        }))
    }

    async fn close_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| close(session, at)))
    }

    async fn close_empty_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        Ok(self.change(session, |session| session.participants.is_empty() && close(session, at)))
    }

    async fn closed_sessions(
        &self,
        before: UnixMillis,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let found = state.sessions.range((from, Bound::Unbounded)).map(|(_, session)| session);
        let closed = found.filter(|session| closed_before(session, before)).take(limit as usize);
        Ok(closed.map(|session| session.id).collect())
    }

    async fn delete_closed_sessions(&self, before: UnixMillis) -> StoreResult<u64> {
        let mut state = self.lock();
        let gone: Vec<SessionId> = state
            .sessions
            .values()
            .filter(|session| closed_before(session, before))
            .map(|session| session.id)
            .collect();
        for id in &gone {
            state.sessions.remove(id);
            self.tell(&mut state, *id, SessionChangeKind::Deleted);
        }
        Ok(gone.len() as u64)
    }

    async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>> {
        Ok(Box::new(EmbeddedWatch::open(&self.shared, resume)?))
    }

    async fn put_worker(&self, worker: &Worker) -> StoreResult<()> {
        self.lock().workers.insert(worker.id, worker.clone());
        Ok(())
    }

    async fn renew_worker(&self, worker: &Worker) -> StoreResult<bool> {
        let mut state = self.lock();
        let stored = state.workers.get_mut(&worker.id).filter(|stored| stored.run == worker.run);
        let Some(stored) = stored else { return Ok(false) };
        *stored = Worker { address: std::mem::take(&mut stored.address), ..worker.clone() };
        Ok(true)
    }

    async fn worker(&self, id: WorkerId) -> StoreResult<Option<Worker>> {
        Ok(self.lock().workers.get(&id).cloned())
    }

    async fn workers(&self) -> StoreResult<Vec<Worker>> {
        Ok(self.lock().workers.values().cloned().collect())
    }

    async fn remove_worker(&self, id: WorkerId, run: RunId) -> StoreResult<()> {
        let mut state = self.lock();
        if state.workers.get(&id).is_some_and(|stored| stored.run == run) {
            state.workers.remove(&id);
        }
        Ok(())
    }

    async fn bury_worker(&self, seen: &Worker) -> StoreResult<bool> {
        let mut state = self.lock();
        let unchanged = state
            .workers
            .get(&seen.id)
            .is_some_and(|stored| stored.run == seen.run && stored.lease_until == seen.lease_until);
        if unchanged {
            state.workers.remove(&seen.id);
        }
        Ok(unchanged)
    }

    async fn append_timeline(&self, session: SessionId, entries: &[TimelineEntry]) -> StoreResult<()> {
        let mut state = self.lock();
        for entry in entries {
            state.timeline.append(TimelineEntry { session_id: session, ..entry.clone() }, Instant::now());
        }
        Ok(())
    }

    async fn timeline(
        &self,
        session: SessionId,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        Ok(self.lock().timeline.of(session, after, limit, Instant::now()))
    }

    async fn sessions_owed(
        &self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> StoreResult<Vec<SessionId>> {
        Ok(self.lock().timeline.sessions_owed(to, after, limit, Instant::now()))
    }

    async fn owed(&self, to: &str, session: SessionId, limit: usize) -> StoreResult<Vec<TimelineEntry>> {
        Ok(self.lock().timeline.owed(to, session, limit))
    }

    async fn settle_owed(&self, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool> {
        Ok(self.lock().timeline.settle_owed(to, entry, given_up))
    }

    async fn given_up(
        &self,
        to: &[String],
        after: Option<EventId>,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        Ok(self.lock().timeline.given_up(to, after, limit))
    }

    async fn owe_again(&self, to: &str, entry: EventId, since: UnixMillis) -> StoreResult<bool> {
        Ok(self.lock().timeline.owe_again(to, entry, since))
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: InstanceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> StoreResult<bool> {
        let mut state = self.lock();
        let free = state.leases.get(name).is_none_or(|(has, until)| *has == holder || *until < now);
        if free {
            state.leases.insert(name.to_owned(), (holder, until));
        }
        Ok(free)
    }

    async fn put_rating(&self, rating: &Rating) -> StoreResult<bool> {
        Ok(self.lock().ratings.put(rating, Instant::now()))
    }

    async fn ratings(
        &self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
    ) -> StoreResult<Vec<Rating>> {
        Ok(self.lock().ratings.of(session, after, limit, Instant::now()))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    async fn ping(&self, _timeout: Duration) -> StoreResult<()> {
        Ok(())
    }
}
