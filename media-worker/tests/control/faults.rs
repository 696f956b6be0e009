//! A store and a broker that fail, dawdle or panic where a test wants them to.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use common::broker::{
    Broker, BrokerError, BrokerErrorKind, BrokerResult, Destination, Inbox, InboxOptions, Message, QueueSpec,
};
use common::model::{
    CommandId, EndpointId, EndpointState, EventId, InstanceId, Participant, ParticipantId, Pipeline,
    PipelineId, Rating, RunId, Session, SessionId, SessionSettings, TimelineEntry, Track, TrackId, Worker,
    WorkerId,
};
use common::store::{
    Guarded, Inserted, Outlined, RemoveIf, ResumeToken, SessionChange, SessionFilter, SessionOutline,
    SessionWatch, Store, StoreError, StoreErrorKind, StoreResult,
};
use common::time::UnixMillis;
use tokio::sync::watch;

/// What an operation does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fail(StoreErrorKind),
    /// It fails, but later.
    FailAfter(Duration, StoreErrorKind),
    /// It does its work, but later.
    Dawdle(Duration),
    /// It does its work, and fails all the same: the answer is lost.
    LoseAnswer(StoreErrorKind),
    Panic,
}

type Plan = dyn FnMut(&str) -> Option<Fault> + Send;

/// What a test has in mind: asked before each operation, by name.
#[derive(Clone)]
struct Planned(Arc<Mutex<Box<Plan>>>);

impl Planned {
    fn nothing() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|_| None))))
    }

    fn set(&self, plan: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(plan);
    }

    /// `Ok` is how it fails when its work is done, if it does.
    async fn check(&self, operation: &str) -> Result<Option<StoreErrorKind>, StoreErrorKind> {
        let fault = (self.0.lock().unwrap())(operation);
        match fault {
            None => {}
            Some(Fault::Fail(kind)) => return Err(kind),
            Some(Fault::FailAfter(time, kind)) => {
                tokio::time::sleep(time).await;
                return Err(kind);
            }
            Some(Fault::Dawdle(time)) => tokio::time::sleep(time).await,
            Some(Fault::LoseAnswer(kind)) => return Ok(Some(kind)),
            Some(Fault::Panic) => panic!("{operation}: as planned"),
        }
        Ok(None)
    }
}

/// Another store, but for the operations that the plan names. `next_change` loses the change it stands for.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    planned: Planned,
}

impl FaultyStore {
    pub fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, planned: Planned::nothing() })
    }

    pub fn plan(&self, plan: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        self.planned.set(plan);
    }

    pub fn heal(&self) {
        self.plan(|_| None);
    }

    async fn check(&self, operation: &str) -> StoreResult<Option<StoreError>> {
        let planned = |kind| StoreError::new(kind, format!("{operation}: as planned"));
        self.planned.check(operation).await.map(|lost| lost.map(planned)).map_err(planned)
    }
}

struct FaultyWatch {
    inner: Box<dyn SessionWatch>,
    planned: Planned,
}

#[async_trait]
impl SessionWatch for FaultyWatch {
    async fn next(&mut self) -> StoreResult<SessionChange> {
        let change = self.inner.next().await?;
        self.planned.check("next_change").await.map_err(|kind| StoreError::new(kind, "as planned"))?;
        Ok(change)
    }
}

macro_rules! checked {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            $(async fn $name(&self $(, $arg: $kind)*) -> StoreResult<$result> {
                let lost = self.check(stringify!($name)).await?;
                let result = self.inner.$name($($arg),*).await?;
                lost.map_or(Ok(result), Err)
            })*

            async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>> {
                self.check("watch_sessions").await?;
                let inner = self.inner.watch_sessions(resume).await?;
                Ok(Box::new(FaultyWatch { inner, planned: self.planned.clone() }))
            }

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
    outlines(which: Outlined<'_>, after: Option<SessionId>, limit: u32) -> Vec<SessionOutline>;
    open_sessions(after: Option<SessionId>, limit: u32) -> Vec<SessionId>;
    place_pipeline(session: SessionId, epoch: i64, pipeline: &Pipeline) -> Guarded;
    drop_pipeline(session: SessionId, epoch: i64, pipeline: PipelineId) -> Guarded;
    move_pipeline(session: SessionId, epoch: i64, from: PipelineId, to: &Pipeline) -> Guarded;
    retire_pipeline(session: SessionId, pipeline: PipelineId) -> Guarded;
    put_participant(session: SessionId, epoch: i64, participant: &Participant) -> Guarded;
    set_endpoint_state(
        session: SessionId, participant: ParticipantId, endpoint: EndpointId, state: EndpointState
    ) -> Guarded;
    set_tracks(session: SessionId, participant: ParticipantId, endpoint: EndpointId, tracks: &[Track]) -> Guarded;
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

/// Another broker, but it may be away for some destinations: the plan is asked with the name of the queue or exchange
/// before each send.
pub struct FaultyBroker {
    inner: Arc<dyn Broker>,
    planned: Planned,
}

impl FaultyBroker {
    pub fn over(inner: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self { inner, planned: Planned::nothing() })
    }

    pub fn plan(&self, plan: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        self.planned.set(plan);
    }
}

#[async_trait]
impl Broker for FaultyBroker {
    async fn send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        let (Destination::Queue(name) | Destination::Exchange(name)) = to;
        let away = |_| BrokerError::new(BrokerErrorKind::Unavailable, "as planned");
        self.planned.check(name).await.map_err(away)?;
        self.inner.send(to, message).await
    }

    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        self.inner.declare_queue(queue).await
    }

    async fn declare_exchange(&self, name: &str) -> BrokerResult<()> {
        self.inner.declare_exchange(name).await
    }

    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()> {
        self.inner.bind(queue, exchange).await
    }

    async fn delete_queue(&self, name: &str) -> BrokerResult<()> {
        self.inner.delete_queue(name).await
    }

    async fn delete_exchange(&self, name: &str) -> BrokerResult<()> {
        self.inner.delete_exchange(name).await
    }

    async fn waiting(&self, queue: &str) -> BrokerResult<u64> {
        self.inner.waiting(queue).await
    }

    async fn open_inbox(&self, queue: &str, options: InboxOptions) -> BrokerResult<Box<dyn Inbox>> {
        self.inner.open_inbox(queue, options).await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
