//! The embedded store as one process reaches it: every call takes time both ways, may find the store away, and may lose
//! its reply. Every write is looked at as it takes effect ([`crate::ledger`]).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
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
use futures::FutureExt;
use tokio::sync::watch;

use crate::broker::at_once;
use crate::process::{Process, StreamFault};
use crate::world::{Sabotage, World};

/// How soon a call fails while the store is away.
const REFUSED_AFTER: Duration = Duration::from_millis(20);

pub struct SimStore {
    process: Arc<Process>,
    connected: watch::Sender<bool>,
}

/// What a write came to, for the trace and the ledger.
trait Written {
    fn session(&self) -> Option<&Session> {
        None
    }
    fn outcome(&self) -> &'static str {
        "ok"
    }
}

impl Written for Guarded {
    fn session(&self) -> Option<&Session> {
        match self {
            Self::Applied(session) => Some(session),
            Self::Refused(_) => None,
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Refused(_) => "refused",
        }
    }
}

impl Written for Inserted {
    fn outcome(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing(_) => "existing",
        }
    }
}

impl Written for () {}
impl Written for u64 {}

impl Written for bool {
    fn outcome(&self) -> &'static str {
        if *self { "applied" } else { "refused" }
    }
}

fn unavailable() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the simulated store is away")
}

impl SimStore {
    pub fn of(process: &Arc<Process>) -> Self {
        Self { process: process.clone(), connected: watch::Sender::new(true) }
    }

    fn is_away(&self) -> bool {
        self.process.world().store_is_down() || *self.process.store_cut.lock().unwrap()
    }

    async fn read<T>(&self, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.process.before().await;
        if self.is_away() {
            tokio::time::sleep(REFUSED_AFTER).await;
            return Err(unavailable());
        }
        let result = at_once(call);
        self.process.after().await;
        result
    }

    async fn write<T: Written>(
        &self,
        call: impl Future<Output = StoreResult<T>>,
        what: impl FnOnce() -> String,
    ) -> StoreResult<T> {
        self.process.before().await;
        if self.is_away() {
            tokio::time::sleep(REFUSED_AFTER).await;
            return Err(unavailable());
        }
        let world = self.process.world();
        let result = at_once(call);
        if let Ok(written) = &result {
            self.process.note(|| format!("store: {} {}", what(), written.outcome()));
            if let Some(session) = written.session() {
                let violations = world.ledger().session_written(session);
                violations.into_iter().for_each(|violation| world.violated(violation));
            }
            world.stored.notify_waiters();
        }
        self.process.after().await;
        if result.is_ok() && world.befalls(world.weather.lost_replies) {
            self.process.note(|| "the store's reply is lost".to_owned());
            return Err(unavailable());
        }
        result
    }

    fn store(&self) -> common::store::embedded::EmbeddedStore {
        self.process.world().store.clone()
    }
}

#[async_trait]
impl Store for SimStore {
    async fn insert_session(&self, session: &Session) -> StoreResult<Inserted> {
        let store = self.store();
        self.write(store.insert_session(session), || format!("insert {}", session.id)).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        let store = self.store();
        self.read(store.session(id)).await
    }

    async fn sessions(&self, filter: &SessionFilter) -> StoreResult<Vec<Session>> {
        let store = self.store();
        self.read(store.sessions(filter)).await
    }

    async fn outlines(
        &self,
        which: Outlined<'_>,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionOutline>> {
        let store = self.store();
        self.read(store.outlines(which, after, limit)).await
    }

    async fn open_sessions(&self, after: Option<SessionId>, limit: u32) -> StoreResult<Vec<SessionId>> {
        let store = self.store();
        self.read(store.open_sessions(after, limit)).await
    }

    async fn place_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: &Pipeline,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("place {session} epoch {expected_epoch} on {}", pipeline.worker_id);
        self.write(store.place_pipeline(session, expected_epoch, pipeline), what).await
    }

    async fn drop_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: PipelineId,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("drop {pipeline} of {session} epoch {expected_epoch}");
        self.write(store.drop_pipeline(session, expected_epoch, pipeline), what).await
    }

    async fn move_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        from: PipelineId,
        to: &Pipeline,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("move {session} epoch {expected_epoch} to {}", to.worker_id);
        self.write(store.move_pipeline(session, expected_epoch, from, to), what).await
    }

    async fn retire_pipeline(&self, session: SessionId, pipeline: PipelineId) -> StoreResult<Guarded> {
        let store = self.store();
        self.write(store.retire_pipeline(session, pipeline), || format!("retire {pipeline}")).await
    }

    async fn put_participant(
        &self,
        session: SessionId,
        epoch: i64,
        participant: &Participant,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || {
            let endpoint = participant.endpoint.as_ref().map(|endpoint| endpoint.id.to_string());
            format!("put {} {} epoch {epoch}", participant.id, endpoint.unwrap_or_default())
        };
        let sabotage = self.process.world().sabotage;
        let call = async {
            let epoch = match (sabotage, store.session(session).await?) {
                (Some(Sabotage::EpochIgnored), Some(now)) => now.epoch,
                _ => epoch,
            };
            let put = match sabotage {
                Some(Sabotage::JoinsForgotten) => {
                    let other = Participant { command_id: CommandId::new(), ..participant.clone() };
                    store.put_participant(session, epoch, &other).await
                }
                _ => store.put_participant(session, epoch, participant).await,
            };
            if let Ok(Guarded::Applied(_)) = &put {
                self.process.world().ledger().joined(participant.command_id);
            }
            put
        };
        self.write(call, what).await
    }

    async fn set_endpoint_state(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        state: EndpointState,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("endpoint {endpoint} {state:?}");
        self.write(store.set_endpoint_state(session, participant, endpoint, state), what).await
    }

    async fn set_tracks(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        tracks: &[Track],
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("tracks of {endpoint}: {}", tracks.len());
        self.write(store.set_tracks(session, participant, endpoint, tracks), what).await
    }

    async fn set_track_muted(
        &self,
        session: SessionId,
        participant: ParticipantId,
        track: TrackId,
        muted: bool,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("track {track} muted {muted}");
        self.write(store.set_track_muted(session, participant, track, muted), what).await
    }

    async fn remove_participant(
        &self,
        session: SessionId,
        participant: ParticipantId,
        only_if: RemoveIf,
        by: Option<CommandId>,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        let what = || format!("remove {participant} if {only_if:?} by {by:?}");
        let by = by.filter(|_| self.process.world().sabotage != Some(Sabotage::LeavesForgotten));
        self.write(store.remove_participant(session, participant, only_if, by), what).await
    }

    async fn revoke(
        &self,
        session: SessionId,
        participant: ParticipantId,
        at: UnixMillis,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        self.write(store.revoke(session, participant, at), || format!("revoke {participant}")).await
    }

    async fn note_done(&self, session: SessionId, command: CommandId) -> StoreResult<Guarded> {
        let store = self.store();
        self.write(store.note_done(session, command), || format!("done {command}")).await
    }

    async fn set_settings(
        &self,
        session: SessionId,
        settings: &SessionSettings,
        by: CommandId,
    ) -> StoreResult<Guarded> {
        let store = self.store();
        self.write(store.set_settings(session, settings, by), || format!("settings by {by}")).await
    }

    async fn close_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        let store = self.store();
        let call = async {
            let before = store.session(session).await?;
            let closed = store.close_session(session, at).await;
            if let (Ok(Guarded::Applied(_)), Some(before)) = (&closed, before) {
                let world = self.process.world();
                let violation = world.ledger().closed(&before);
                violation.into_iter().for_each(|violation| world.violated(violation));
            }
            closed
        };
        self.write(call, || format!("close {session}")).await
    }

    async fn close_empty_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        let store = self.store();
        let call = async {
            let closed = store.close_empty_session(session, at).await;
            if let Ok(Guarded::Applied(_)) = &closed {
                self.process.world().ledger().ended.insert(session);
            }
            closed
        };
        self.write(call, || format!("close {session} if empty")).await
    }

    async fn closed_sessions(
        &self,
        before: UnixMillis,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>> {
        let store = self.store();
        self.read(store.closed_sessions(before, after, limit)).await
    }

    async fn delete_closed_sessions(&self, before: UnixMillis) -> StoreResult<u64> {
        let store = self.store();
        self.write(store.delete_closed_sessions(before), || "delete closed sessions".to_owned()).await
    }

    async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>> {
        let lost =
            self.process.stream.fault.lock().unwrap().take_if(|fault| *fault == StreamFault::HistoryLost);
        let history_lost = lost.is_some() && resume.is_some();
        if history_lost {
            return Err(StoreError::new(StoreErrorKind::HistoryLost, "the history is gone"));
        }
        let store = self.store();
        let inner = self.read(store.watch_sessions(resume)).await?;
        Ok(Box::new(SimWatch { process: self.process.clone(), inner, on_its_way: None }))
    }

    async fn put_worker(&self, worker: &Worker) -> StoreResult<()> {
        let store = self.store();
        self.process.world().runs().insert(worker.run, self.process.clone());
        self.write(store.put_worker(worker), || format!("put {}", worker.id)).await
    }

    async fn renew_worker(&self, worker: &Worker) -> StoreResult<bool> {
        let store = self.store();
        let what = || format!("renew {:?} away {}", worker.state, worker.broker_away_since.is_some());
        self.write(store.renew_worker(worker), what).await
    }

    async fn worker(&self, id: WorkerId) -> StoreResult<Option<Worker>> {
        let store = self.store();
        self.read(store.worker(id)).await
    }

    async fn workers(&self) -> StoreResult<Vec<Worker>> {
        let store = self.store();
        self.read(store.workers()).await
    }

    async fn remove_worker(&self, id: WorkerId, run: RunId) -> StoreResult<()> {
        let store = self.store();
        self.write(store.remove_worker(id, run), || format!("remove {id}")).await
    }

    async fn bury_worker(&self, seen: &Worker) -> StoreResult<bool> {
        let store = self.store();
        let call = async {
            let buried = store.bury_worker(seen).await;
            let world = self.process.world();
            let process = world.runs().get(&seen.run).cloned();
            if let (Ok(true), Some(process)) = (&buried, process)
                && process.is_alive()
                && !process.is_troubled()
            {
                world.violated(format!(
                    "{} declared {} dead, which nothing had befallen",
                    self.process.name, process.name
                ));
            }
            buried
        };
        self.write(call, || format!("bury {}", seen.id)).await
    }

    async fn append_timeline(&self, session: SessionId, entries: &[TimelineEntry]) -> StoreResult<()> {
        let store = self.store();
        let world = self.process.world();
        let violations = world.ledger().noted(entries);
        violations.into_iter().for_each(|violation| world.violated(violation));
        self.write(store.append_timeline(session, entries), || format!("timeline {}", entries.len())).await
    }

    async fn timeline(
        &self,
        session: SessionId,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        let store = self.store();
        self.read(store.timeline(session, after, limit)).await
    }

    async fn sessions_owed(
        &self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> StoreResult<Vec<SessionId>> {
        let store = self.store();
        self.read(store.sessions_owed(to, after, limit)).await
    }

    async fn owed(&self, to: &str, session: SessionId, limit: usize) -> StoreResult<Vec<TimelineEntry>> {
        let store = self.store();
        self.read(store.owed(to, session, limit)).await
    }

    async fn settle_owed(&self, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool> {
        let store = self.store();
        self.write(store.settle_owed(to, entry, given_up), || format!("settle {entry}")).await
    }

    async fn given_up(
        &self,
        to: &[String],
        after: Option<EventId>,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        let store = self.store();
        self.read(store.given_up(to, after, limit)).await
    }

    async fn owe_again(&self, to: &str, entry: EventId, since: UnixMillis) -> StoreResult<bool> {
        let store = self.store();
        self.write(store.owe_again(to, entry, since), || format!("owe {entry}")).await
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: InstanceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> StoreResult<bool> {
        let store = self.store();
        self.write(store.take_lease(name, holder, now, until), || format!("lease {name}")).await
    }

    async fn put_rating(&self, rating: &Rating) -> StoreResult<bool> {
        let store = self.store();
        self.write(store.put_rating(rating), || format!("rating of {}", rating.participant_id)).await
    }

    async fn ratings(
        &self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
    ) -> StoreResult<Vec<Rating>> {
        let store = self.store();
        self.read(store.ratings(session, after, limit)).await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    async fn ping(&self, _timeout: Duration) -> StoreResult<()> {
        self.read(async { Ok(()) }).await
    }
}

struct SimWatch {
    process: Arc<Process>,
    inner: Box<dyn SessionWatch>,
    /// Taken from the stream, and when it arrives.
    on_its_way: Option<(SessionChange, tokio::time::Instant)>,
}

impl SimWatch {
    fn fault(&self, world: &World) -> Option<StoreError> {
        let mut fault = self.process.stream.fault.lock().unwrap();
        match *fault {
            // What follows is that resuming fails too.
            Some(StreamFault::HistoryLost) => Some(unavailable()),
            Some(StreamFault::Broken) => {
                *fault = None;
                Some(unavailable())
            }
            None => world.store_is_down().then(unavailable),
        }
    }
}

#[async_trait]
impl SessionWatch for SimWatch {
    async fn next(&mut self) -> StoreResult<SessionChange> {
        let world = self.process.world();
        loop {
            let stored = world.stored.notified();
            let broken = self.process.stream.changed.notified();
            if let Some(error) = self.fault(&world) {
                self.process.note(|| format!("change stream: {:?}", error.kind));
                return Err(error);
            }
            if let Some((_, arrives)) = &self.on_its_way {
                tokio::time::sleep_until(*arrives).await;
                if let Some((change, _)) = self.on_its_way.take() {
                    return Ok(change);
                }
            }
            match self.inner.next().now_or_never() {
                Some(change) => {
                    if world.sabotage == Some(Sabotage::ChangesForgotten) {
                        continue;
                    }
                    self.on_its_way = Some((change?, tokio::time::Instant::now() + world.delay()));
                }
                None => tokio::select! {
                    biased;
                    () = broken => {}
                    () = stored => {}
                },
            }
        }
    }
}
