//! A store that counts what is asked of it, and can be switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::model::*;
use common::store::*;
use common::time::UnixMillis;
use tokio::sync::watch;

pub struct CountingStore {
    inner: Arc<dyn Store>,
    calls: AtomicU64,
    down: AtomicBool,
}

impl CountingStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, calls: AtomicU64::new(0), down: AtomicBool::new(false) }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// While down, every call fails as it does when the database is out of reach.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn count(&self) -> StoreResult<&dyn Store> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "switched off by the test"));
        }
        Ok(&*self.inner)
    }
}

macro_rules! counted {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Store for CountingStore {
            $(
                async fn $name(&self, $($argument: $kind),*) -> StoreResult<$result> {
                    self.count()?.$name($($argument),*).await
                }
            )*

            fn connected(&self) -> watch::Receiver<bool> {
                self.inner.connected()
            }
        }
    };
}

counted! {
    insert_session(session: &Session) -> Inserted;
    session(id: SessionId) -> Option<Session>;
    sessions(filter: &SessionFilter) -> Vec<Session>;
    outlines(which: Outlined<'_>, after: Option<SessionId>, limit: u32) -> Vec<SessionOutline>;
    open_sessions(after: Option<SessionId>, limit: u32) -> Vec<SessionId>;
    place_pipeline(session: SessionId, expected_epoch: i64, pipeline: &Pipeline) -> Guarded;
    drop_pipeline(session: SessionId, expected_epoch: i64, pipeline: PipelineId) -> Guarded;
    move_pipeline(session: SessionId, expected_epoch: i64, from: PipelineId, to: &Pipeline) -> Guarded;
    retire_pipeline(session: SessionId, pipeline: PipelineId) -> Guarded;
    put_participant(session: SessionId, epoch: i64, participant: &Participant) -> Guarded;
    set_endpoint_state(
        session: SessionId, participant: ParticipantId, endpoint: EndpointId, state: EndpointState
    ) -> Guarded;
    set_tracks(
        session: SessionId, participant: ParticipantId, endpoint: EndpointId, tracks: &[Track]
    ) -> Guarded;
    set_track_muted(session: SessionId, participant: ParticipantId, track: TrackId, muted: bool) -> Guarded;
    remove_participant(
        session: SessionId, participant: ParticipantId, only_if: RemoveIf, by: Option<CommandId>
    ) -> Guarded;
    revoke(session: SessionId, participant: ParticipantId, at: UnixMillis) -> Guarded;
    note_done(session: SessionId, command: CommandId) -> Guarded;
    set_settings(session: SessionId, settings: &SessionSettings, by: CommandId) -> Guarded;
    close_session(session: SessionId, at: UnixMillis) -> Guarded;
    close_empty_session(session: SessionId, at: UnixMillis) -> Guarded;
    closed_sessions(before: UnixMillis, after: Option<SessionId>, limit: u32) -> Vec<SessionId>;
    delete_closed_sessions(before: UnixMillis) -> u64;
    watch_sessions(resume: Option<&ResumeToken>) -> Box<dyn SessionWatch>;
    put_worker(worker: &Worker) -> ();
    renew_worker(worker: &Worker) -> bool;
    worker(id: WorkerId) -> Option<Worker>;
    workers() -> Vec<Worker>;
    remove_worker(id: WorkerId, run: RunId) -> ();
    bury_worker(seen: &Worker) -> bool;
    append_timeline(session: SessionId, entries: &[TimelineEntry]) -> ();
    timeline(session: SessionId, after: i64, limit: usize) -> Vec<TimelineEntry>;
    sessions_owed(to: &str, after: Option<SessionId>, limit: usize) -> Vec<SessionId>;
    owed(to: &str, session: SessionId, limit: usize) -> Vec<TimelineEntry>;
    settle_owed(to: &str, entry: EventId, given_up: bool) -> bool;
    given_up(to: &[String], after: Option<EventId>, limit: usize) -> Vec<TimelineEntry>;
    owe_again(to: &str, entry: EventId, since: UnixMillis) -> bool;
    take_lease(name: &str, holder: InstanceId, now: UnixMillis, until: UnixMillis) -> bool;
    put_rating(rating: &Rating) -> bool;
    ratings(session: SessionId, after: Option<ParticipantId>, limit: usize) -> Vec<Rating>;
    ping(timeout: Duration) -> ();
}
