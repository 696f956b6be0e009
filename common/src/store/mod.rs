//! The store's promises, and two implementations of them: MongoDB and embedded.
//!
//! # Promises (an implementation may be stronger, never weaker; the conformance suite checks them)
//!
//! - **Partial updates:** every change is one guarded partial update of one document (`$set`, `$push`, `$pull`, array
//!   filters); a document is never read, changed and written back whole. Two changes of different parts of a document at
//!   the same time both survive.
//! - **Guards:** a change names the part of the document that it assumes (session open, epoch, endpoint id, absence).
//!   When the guard fails nothing is written, and the outcome says so with what is stored now.
//! - **Acknowledged means stored** (majority), read back by every process from then on.
//! - **Unique ids:** two inserts of one id have one winner; the other gets what the winner stored.
//! - **Retried writes** that already took effect are successes, not conflicts.
//! - **Joins and leaves once:** a session remembers the last [`DONE_COMMANDS_KEPT`](crate::model::DONE_COMMANDS_KEPT) of
//!   them that took effect, written with their effect; that one of them is not done yet is part of its guard.
//! - **Watching:** see [`SessionWatch`].
//!
//! Cancellation: dropping a write future may or may not have written.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{
    CommandId, Endpoint, EndpointId, EndpointState, EventId, InstanceId, Participant, ParticipantId,
    ParticipantState, Pipeline, PipelineId, Rating, RunId, Session, SessionId, SessionSettings,
    TimelineEntry, Track, TrackId, Worker, WorkerId,
};
use crate::time::UnixMillis;

#[cfg(any(test, feature = "testsuite"))]
pub mod conformance;
pub mod embedded;
pub mod metered;
#[cfg(feature = "servers")]
pub mod mongodb;

/// How long a timeline entry is kept after it was appended.
pub const TIMELINE_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a rating is kept after it was last changed: longer than the session that it is about.
pub const RATINGS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Most entries that [`Store::timeline`] gives.
pub const TIMELINE_LIMIT: usize = 1_000;

/// What [`SessionFilter::limit`] 0 means.
const DEFAULT_LIST_LIMIT: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// Not reachable now; retry later.
    Unavailable,
    /// The change stream cannot resume from this token: list again.
    HistoryLost,
    Internal,
}

#[derive(Debug, thiserror::Error)]
#[error("store {kind:?}: {message}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
}

pub type StoreResult<T> = Result<T, StoreError>;

/// Whether an insert was the first of its id.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    New,
    /// Somebody (perhaps an earlier try of the same command) was first.
    Existing(Box<Session>),
}

/// The outcome of a guarded update.
#[derive(Debug, Clone, PartialEq)]
pub enum Guarded {
    /// Applied; the session as it is right after this change.
    Applied(Box<Session>),
    /// The guard did not hold; the session as it is, or `None` when there is no such session.
    Refused(Option<Box<Session>>),
}

/// Which sessions to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Only those of this API key.
    pub key_id: Option<String>,
    pub open_only: bool,
    /// Only those that have a pipeline on this worker, the current one or one that drains.
    pub worker_id: Option<WorkerId>,
    /// Only those that have this text in their id or name, or in the id or name of somebody in them, in whatever case
    /// (of letters beyond ASCII as the store has it). No index helps: every session that is left by the rest is looked at.
    pub search: Option<String>,
    /// Only ids after this one; results are in id order.
    pub after: Option<SessionId>,
    /// At most this many; 0 means 1,000.
    pub limit: u32,
}

impl SessionFilter {
    fn effective_limit(&self) -> usize {
        (if self.limit == 0 { DEFAULT_LIST_LIMIT } else { self.limit }) as usize
    }
}

/// Which entry of a participant [`Store::remove_participant`] may remove; any other one is a guard that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveIf {
    /// Whatever entry is there.
    Present,
    /// The one with this endpoint: a late report about an old endpoint cannot remove who has rejoined.
    Endpoint(EndpointId),
    /// The same, when that endpoint is not closed: who lost the session to another worker cannot either.
    OpenEndpoint(EndpointId),
}

impl RemoveIf {
    /// Whether a participant with this endpoint may be removed.
    pub fn allows(self, current: Option<&Endpoint>) -> bool {
        let is = |id| current.filter(|current| current.id == id);
        match self {
            Self::Present => true,
            Self::Endpoint(id) => is(id).is_some(),
            Self::OpenEndpoint(id) => is(id).is_some_and(|current| current.state != EndpointState::Closed),
        }
    }
}

/// Which open sessions to outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlined<'a> {
    /// Those with a pipeline on this worker.
    On(WorkerId),
    /// Those that somebody must look after: without participants, with a participant that has no endpoint or a closed
    /// one, or with a pipeline on a worker that is none of these.
    Unattended { living: &'a [WorkerId] },
}

/// As much of a session as looking after it takes; thousands are read at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOutline {
    #[serde(rename = "_id")]
    pub id: SessionId,
    pub epoch: i64,
    pub pipelines: Vec<Pipeline>,
    pub participants: Vec<Member>,
}

/// A participant in a [`SessionOutline`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(rename = "_id")]
    pub id: ParticipantId,
    pub endpoint: Option<Endpoint>,
}

impl From<&Session> for SessionOutline {
    fn from(session: &Session) -> Self {
        let member =
            |participant: &Participant| Member { id: participant.id, endpoint: participant.endpoint.clone() };
        Self {
            id: session.id,
            epoch: session.epoch,
            pipelines: session.pipelines.clone(),
            participants: session.participants.iter().map(member).collect(),
        }
    }
}

/// The participant's state that follows from its endpoint's.
fn participant_state_for(endpoint: EndpointState) -> ParticipantState {
    match endpoint {
        EndpointState::New => ParticipantState::Joined,
        EndpointState::Connected => ParticipantState::Connected,
        EndpointState::Disconnected | EndpointState::Closed => ParticipantState::Disconnected,
    }
}

/// Whether what a done join put there still stands: then it may be put there again, by a try that does not know that the one
/// before it got so far.
fn still_stands(session: &Session, participant: &Participant) -> bool {
    let pipeline = |of: &Participant| of.endpoint.as_ref().map(|endpoint| endpoint.pipeline_id);
    let is_closed = |endpoint: &Endpoint| endpoint.state == EndpointState::Closed;
    session.participant(participant.id).is_some_and(|entry| {
        entry.command_id == participant.command_id
            && pipeline(entry) == pipeline(participant)
            && !entry.endpoint.as_ref().is_some_and(is_closed)
    })
}

/// Whether the session is as a placement of this pipeline (or a move to it) at this epoch left it: then a repeated one
/// succeeded.
fn is_placed(session: &Session, expected_epoch: i64, pipeline: PipelineId) -> bool {
    session.epoch == expected_epoch.saturating_add(1)
        && session.pipeline().is_some_and(|current| current.id == pipeline)
}

/// Where to resume a change stream; opaque, made by one implementation for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken(pub Vec<u8>);

/// One change of the `sessions` collection.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionChange {
    pub session_id: SessionId,
    pub kind: SessionChangeKind,
    /// Resuming after this token gives the changes that follow this one.
    pub token: ResumeToken,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SessionChangeKind {
    Inserted(Box<Session>),
    /// Some part changed; the session is open.
    Updated,
    Closed,
    Deleted,
}

/// Sessions, workers, the timeline and ratings.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // -- sessions

    async fn insert_session(&self, session: &Session) -> StoreResult<Inserted>;
    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>>;
    async fn sessions(&self, filter: &SessionFilter) -> StoreResult<Vec<Session>>;
    /// Open sessions in id order: at most `limit`, of the ids after `after`.
    async fn outlines(
        &self,
        which: Outlined<'_>,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionOutline>>;
    /// The ids of open sessions, in order: at most `limit`, of those after `after`.
    async fn open_sessions(&self, after: Option<SessionId>, limit: u32) -> StoreResult<Vec<SessionId>>;

    /// Compare-and-set of the session's only pipeline: guard = open, `epoch == expected_epoch`, no pipeline. Sets it,
    /// `epoch + 1` and `previous_worker_id`. The same placement again is `Applied` as long as it stands.
    async fn place_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: &Pipeline,
    ) -> StoreResult<Guarded>;

    /// Drops a dead pipeline: guard = `epoch == expected_epoch` and this pipeline. Bumps `epoch`; the endpoints on
    /// that pipeline become `closed` and their participants `disconnected`, their tracks are removed.
    async fn drop_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: PipelineId,
    ) -> StoreResult<Guarded>;

    /// Moves the session to another worker (its worker drains): guard = open, `epoch == expected_epoch`, and `from` is
    /// the current pipeline. Puts `to` before all others, which become `draining`; `epoch + 1` and `previous_worker_id`.
    /// Participants stay as they are: their endpoints go on until they have joined again. The same move again is
    /// `Applied` as long as it stands.
    async fn move_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        from: PipelineId,
        to: &Pipeline,
    ) -> StoreResult<Guarded>;

    /// Removes a pipeline that drains behind the current one: guard = it is `draining` and not the current one. What is
    /// still on it ends as in [`Store::drop_pipeline`]; the epoch stays, because the session's place does not change.
    async fn retire_pipeline(&self, session: SessionId, pipeline: PipelineId) -> StoreResult<Guarded>;

    /// Adds the participant, or replaces the entry of the same id (a rejoin), and notes its join as done. Guard = open,
    /// `epoch == epoch`, and its join is not done yet, or what it put there still stands: the participant's entry is by
    /// that join, its endpoint on the same pipeline and not closed; and the token it joined with is not revoked.
    async fn put_participant(
        &self,
        session: SessionId,
        epoch: i64,
        participant: &Participant,
    ) -> StoreResult<Guarded>;

    /// Sets the endpoint's state and the participant's state that follows from it (`New` → joined; `Connected` →
    /// connected; `Disconnected`, `Closed` → disconnected). Guard = the participant has exactly this endpoint, and it
    /// is not closed (closing it again is fine): who lost the session to another worker writes nothing more.
    async fn set_endpoint_state(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        state: EndpointState,
    ) -> StoreResult<Guarded>;

    /// Replaces the participant's tracks by these. Guard = the participant has exactly this endpoint, not closed.
    async fn set_tracks(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        tracks: &[Track],
    ) -> StoreResult<Guarded>;

    /// Guard = the participant has this track.
    async fn set_track_muted(
        &self,
        session: SessionId,
        participant: ParticipantId,
        track: TrackId,
        muted: bool,
    ) -> StoreResult<Guarded>;

    /// Removes the participant, and notes the leave that does it (if it is one) as done. Guard = the participant is there,
    /// as `only_if` says, and that leave is not done yet.
    async fn remove_participant(
        &self,
        session: SessionId,
        participant: ParticipantId,
        only_if: RemoveIf,
        by: Option<CommandId>,
    ) -> StoreResult<Guarded>;

    /// Revokes the participant's tokens that were issued up to `at`, or up to the later time that is noted already; of the
    /// session's oldest revocations those above [`REVOCATIONS_KEPT`](crate::model::REVOCATIONS_KEPT) are forgotten. Whether
    /// the participant is there does not matter. Guard = open. The same once more changes nothing.
    async fn revoke(
        &self,
        session: SessionId,
        participant: ParticipantId,
        at: UnixMillis,
    ) -> StoreResult<Guarded>;

    /// Notes a join or leave as done: one that found nothing to do. Guard = open, not done yet.
    async fn note_done(&self, session: SessionId, command: CommandId) -> StoreResult<Guarded>;

    /// Puts these settings in place of the session's own, with the revision after its own, and notes the change as done.
    /// Guard = open, not done yet.
    async fn set_settings(
        &self,
        session: SessionId,
        settings: &SessionSettings,
        by: CommandId,
    ) -> StoreResult<Guarded>;

    /// Closes it: `state`, `closed_at`, no participants, no pipelines. Guard = open.
    async fn close_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded>;

    /// The same, when nobody is in it. Guard = open, no participants.
    async fn close_empty_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded>;

    /// The ids of sessions that closed before `before`, in order: at most `limit`, of those after `after`.
    async fn closed_sessions(
        &self,
        before: UnixMillis,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>>;

    /// Removes closed sessions that closed before `before`; returns how many.
    async fn delete_closed_sessions(&self, before: UnixMillis) -> StoreResult<u64>;

    /// Opens the change stream, from now or after `resume`. `HistoryLost` when that is too long ago.
    async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>>;

    // -- workers

    /// Inserts or replaces the worker's row (at its start): from now on no earlier run of it writes there.
    async fn put_worker(&self, worker: &Worker) -> StoreResult<()>;
    /// Writes lease, state, load and the state of its broker link. Guard = the row is there and of this run; `false`:
    /// it was declared dead, or a later process has its id.
    async fn renew_worker(&self, worker: &Worker) -> StoreResult<bool>;
    async fn worker(&self, id: WorkerId) -> StoreResult<Option<Worker>>;
    async fn workers(&self) -> StoreResult<Vec<Worker>>;
    /// Removes the row of this run, when it still is there.
    async fn remove_worker(&self, id: WorkerId, run: RunId) -> StoreResult<()>;
    /// Removes the row of a worker that was found dead. Guard = the row is of the same run and was not renewed since
    /// it was read (same `lease_until`); of all who try, one gets `true`.
    async fn bury_worker(&self, seen: &Worker) -> StoreResult<bool>;

    // -- timeline

    /// Appends to a session's timeline, in this order: each entry gets the number that follows the last one there (what
    /// `number` says is not looked at). An entry whose id is there already is not appended again, so a call whose outcome
    /// is not known may be repeated. Many may append at once; the numbers have no gaps.
    async fn append_timeline(&self, session: SessionId, entries: &[TimelineEntry]) -> StoreResult<()>;
    /// The entries with numbers above `after`, in order; at most `limit`, and never more than [`TIMELINE_LIMIT`]. Entries
    /// are kept for [`TIMELINE_KEPT`]; a timeline that has lost all of them begins at 1 again.
    async fn timeline(&self, session: SessionId, after: i64, limit: usize)
    -> StoreResult<Vec<TimelineEntry>>;

    // -- webhooks

    /// The sessions with timeline entries that are owed to this receiver of webhooks ([`Owed`](crate::model::Owed)), in
    /// id order: at most `limit`, of those after `after`.
    async fn sessions_owed(
        &self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> StoreResult<Vec<SessionId>>;
    /// The entries of a session that are owed to this receiver, by number, at most `limit`.
    async fn owed(&self, to: &str, session: SessionId, limit: usize) -> StoreResult<Vec<TimelineEntry>>;
    /// Notes that an entry is not owed to this receiver any more: it was told, or that was given up. Guard = it is owed.
    async fn settle_owed(&self, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool>;
    /// The entries that were given up for one of these receivers, by id: at most `limit`, of those after `after`.
    async fn given_up(
        &self,
        to: &[String],
        after: Option<EventId>,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>>;
    /// Owes an entry again, from `since` on. Guard = it was given up for this receiver.
    async fn owe_again(&self, to: &str, entry: EventId, since: UnixMillis) -> StoreResult<bool>;

    // -- leases

    /// Takes or prolongs the lease of this name: guard = nobody has it, or this holder, or it ran out (`until` before
    /// `now`). Of several who try at once one gets `true`.
    async fn take_lease(
        &self,
        name: &str,
        holder: InstanceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> StoreResult<bool>;

    // -- ratings

    /// Puts a participant's rating of its call in place of its earlier one, if there is one. What is known of the network
    /// stays when this brings nothing newer. Guard = no later rating of it is stored (`at`); `false`: one is. Whether the
    /// session is (still) there does not matter. The same once more changes nothing.
    async fn put_rating(&self, rating: &Rating) -> StoreResult<bool>;
    /// A session's ratings in the order of participants' ids: at most `limit`, of those after `after`. They are kept for
    /// [`RATINGS_KEPT`].
    async fn ratings(
        &self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
    ) -> StoreResult<Vec<Rating>>;

    // -- health

    /// Whether the store is reachable now, and its changes (checked every few seconds).
    fn connected(&self) -> watch::Receiver<bool>;
    /// One round trip.
    async fn ping(&self, timeout: Duration) -> StoreResult<()>;
}

/// A change stream on `sessions`.
///
/// Gives every change made after it was opened (or after its resume token), each once and in the order in which they took
/// effect on each session. An insert followed by further changes may show the document newer than the insert.
#[async_trait]
pub trait SessionWatch: Send {
    /// Waits for the next change. Reconnects and resumes by itself; an error is final for this watch:
    /// `HistoryLost` (list again and open a new one) or any other kind (open a new one with the last token). Dropping the
    /// future loses nothing.
    async fn next(&mut self) -> StoreResult<SessionChange>;
}
