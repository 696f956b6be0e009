//! A store that fails, or panics, where a test wants it to.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use common::model::{
    EndpointId, EndpointState, Participant, ParticipantId, Pipeline, PipelineId, Session, SessionId,
    TimelineEntry, Track, TrackId, Worker, WorkerId, WorkerLoad, WorkerState,
};
use common::store::{
    Guarded, Inserted, ResumeToken, SessionFilter, SessionWatch, Store, StoreError, StoreErrorKind,
    StoreResult,
};
use common::time::UnixMillis;
use tokio::sync::watch;

/// What an operation does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fail(StoreErrorKind),
    Panic,
}

type Plan = dyn FnMut(&'static str) -> Option<Fault> + Send;

/// Another store, but for the operations that the plan names.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Box<Plan>>,
}

impl FaultyStore {
    pub fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, plan: Mutex::new(Box::new(|_| None)) })
    }

    /// From now on the plan is asked before each operation, by name.
    pub fn plan(&self, plan: impl FnMut(&'static str) -> Option<Fault> + Send + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    pub fn heal(&self) {
        self.plan(|_| None);
    }

    fn check(&self, operation: &'static str) -> StoreResult<()> {
        let fault = (self.plan.lock().unwrap())(operation);
        match fault {
            None => Ok(()),
            Some(Fault::Fail(kind)) => Err(StoreError::new(kind, format!("{operation}: as planned"))),
            Some(Fault::Panic) => panic!("{operation}: as planned"),
        }
    }
}

macro_rules! checked {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            $(async fn $name(&self $(, $arg: $kind)*) -> StoreResult<$result> {
                self.check(stringify!($name))?;
                self.inner.$name($($arg),*).await
            })*

            fn connected(&self) -> watch::Receiver<bool> {
                self.inner.connected()
            }
        }
    };
}

checked! {
    insert_session(session: &Session) -> Inserted;
    session(id: SessionId) -> Option<Session>;
    sessions(filter: &SessionFilter) -> Vec<Session>;
    place_pipeline(session: SessionId, epoch: i64, pipeline: &Pipeline) -> Guarded;
    drop_pipeline(session: SessionId, epoch: i64, pipeline: PipelineId) -> Guarded;
    put_participant(session: SessionId, epoch: i64, participant: &Participant) -> Guarded;
    set_endpoint_state(
        session: SessionId, participant: ParticipantId, endpoint: EndpointId, state: EndpointState
    ) -> Guarded;
    set_tracks(session: SessionId, participant: ParticipantId, endpoint: EndpointId, tracks: &[Track]) -> Guarded;
    set_track_muted(session: SessionId, participant: ParticipantId, track: TrackId, muted: bool) -> Guarded;
    remove_participant(session: SessionId, participant: ParticipantId, endpoint: Option<EndpointId>) -> Guarded;
    close_session(session: SessionId, at: UnixMillis) -> Guarded;
    delete_closed_sessions(before: UnixMillis) -> u64;
    watch_sessions(resume: Option<&ResumeToken>) -> Box<dyn SessionWatch>;
    put_worker(worker: &Worker) -> ();
    renew_worker(id: WorkerId, lease_until: UnixMillis, state: WorkerState, load: WorkerLoad) -> bool;
    worker(id: WorkerId) -> Option<Worker>;
    workers() -> Vec<Worker>;
    remove_worker(id: WorkerId) -> ();
    append_timeline(entry: &TimelineEntry) -> ();
    timeline(session: SessionId) -> Vec<TimelineEntry>;
    ping(timeout: Duration) -> ();
}
