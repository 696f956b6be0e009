//! Counts and times every call of a store; the wrapper that [`crate::connect`] puts around both back ends.
//!
//! A call that its caller dropped is not counted.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Guarded, Inserted, Outlined, RemoveIf, ResumeToken, SessionFilter, SessionOutline, SessionWatch, Store,
    StoreErrorKind, StoreResult,
};
use crate::catalogue::Metric;
use crate::catalogue::Values::{Listed, Named};
use crate::model::{
    CommandId, EndpointId, EndpointState, EventId, InstanceId, Participant, ParticipantId, Pipeline,
    PipelineId, Rating, RunId, Session, SessionId, SessionSettings, TimelineEntry, Track, TrackId, Worker,
    WorkerId,
};
use crate::spans::{KeyValue, Kind, Span};
use crate::time::UnixMillis;

/// What a process that talks to a store shows.
pub const METRICS: &[Metric] = &[
    Metric::gauge("switchyard_store_connected", &[], "1 while the store is reachable"),
    Metric::counter(
        "switchyard_store_operations_total",
        &[
            ("operation", Named("the call")),
            ("outcome", Listed(&["ok", "refused", "unavailable", "history_lost", "internal"])),
        ],
        "calls; `refused`: a guard did not hold, as when somebody else was first",
    ),
    Metric::histogram(
        "switchyard_store_operation_seconds",
        &[("operation", Named("the call"))],
        "from a call to its answer",
    ),
    Metric::counter(
        "switchyard_store_unreadable_documents_total",
        &[("collection", Listed(&["sessions", "workers", "events", "ratings"]))],
        "documents that are not as this version writes them",
    ),
    Metric::histogram(
        "switchyard_store_change_lag_seconds",
        &[],
        "from a change of a session at the store to its arrival here by the change stream; with the difference of both clocks",
    ),
];

/// A store whose calls are counted.
pub struct Metered<S>(S);

impl<S: Store> Metered<S> {
    /// Wraps the store and keeps the gauge of its connection for as long as the store lives.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(store: S) -> Self {
        let mut connected = store.connected();
        tokio::spawn(async move {
            loop {
                let reachable = *connected.borrow_and_update();
                metrics::gauge!("switchyard_store_connected").set(if reachable { 1.0 } else { 0.0 });
                if connected.changed().await.is_err() {
                    return;
                }
            }
        });
        Self(store)
    }
}

/// What a call came to, as the label says it.
trait Outcome {
    fn outcome(&self) -> &'static str {
        "ok"
    }
}

impl Outcome for Guarded {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Applied(_) => "ok",
            Self::Refused(_) => "refused",
        }
    }
}

impl Outcome for Inserted {}
impl Outcome for () {}
impl Outcome for bool {}
impl Outcome for u64 {}
impl<T> Outcome for Option<T> {}
impl<T> Outcome for Vec<T> {}
impl Outcome for Box<dyn SessionWatch> {}

impl<T: Outcome> Outcome for StoreResult<T> {
    fn outcome(&self) -> &'static str {
        match self {
            Ok(value) => value.outcome(),
            Err(error) => match error.kind {
                StoreErrorKind::Unavailable => "unavailable",
                StoreErrorKind::HistoryLost => "history_lost",
                StoreErrorKind::Internal => "internal",
            },
        }
    }
}

async fn measured<T: Outcome>(
    operation: &'static str,
    call: impl Future<Output = StoreResult<T>> + Send,
) -> StoreResult<T> {
    let span = Span::below(Kind::Store, "store", operation);
    let started = Instant::now();
    let result = span.around(call).await;
    let took = started.elapsed();
    metrics::histogram!("switchyard_store_operation_seconds", "operation" => operation)
        .record(took.as_secs_f64());
    let outcome = result.outcome();
    span.say(|| {
        [KeyValue::new("db.operation.name", operation), KeyValue::new("switchyard.outcome", outcome)]
    });
    if result.is_err() {
        span.fail(outcome);
    }
    // In the span of the command that it belongs to.
    tracing::debug!(
        operation,
        outcome,
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "store operation"
    );
    metrics::counter!("switchyard_store_operations_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
    result
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    async fn insert_session(&self, session: &Session) -> StoreResult<Inserted> {
        measured("insert_session", self.0.insert_session(session)).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        measured("session", self.0.session(id)).await
    }

    async fn sessions(&self, filter: &SessionFilter) -> StoreResult<Vec<Session>> {
        measured("sessions", self.0.sessions(filter)).await
    }

    async fn outlines(
        &self,
        which: Outlined<'_>,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionOutline>> {
        measured("outlines", self.0.outlines(which, after, limit)).await
    }

    async fn open_sessions(&self, after: Option<SessionId>, limit: u32) -> StoreResult<Vec<SessionId>> {
        measured("open_sessions", self.0.open_sessions(after, limit)).await
    }

    async fn place_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: &Pipeline,
    ) -> StoreResult<Guarded> {
        measured("place_pipeline", self.0.place_pipeline(session, expected_epoch, pipeline)).await
    }

    async fn drop_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: PipelineId,
    ) -> StoreResult<Guarded> {
        measured("drop_pipeline", self.0.drop_pipeline(session, expected_epoch, pipeline)).await
    }

    async fn move_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        from: PipelineId,
        to: &Pipeline,
    ) -> StoreResult<Guarded> {
        measured("move_pipeline", self.0.move_pipeline(session, expected_epoch, from, to)).await
    }

    async fn retire_pipeline(&self, session: SessionId, pipeline: PipelineId) -> StoreResult<Guarded> {
        measured("retire_pipeline", self.0.retire_pipeline(session, pipeline)).await
    }

    async fn put_participant(
        &self,
        session: SessionId,
        epoch: i64,
        participant: &Participant,
    ) -> StoreResult<Guarded> {
        measured("put_participant", self.0.put_participant(session, epoch, participant)).await
    }

    async fn set_endpoint_state(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        state: EndpointState,
    ) -> StoreResult<Guarded> {
        let call = self.0.set_endpoint_state(session, participant, endpoint, state);
        measured("set_endpoint_state", call).await
    }

    async fn set_tracks(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        tracks: &[Track],
    ) -> StoreResult<Guarded> {
        measured("set_tracks", self.0.set_tracks(session, participant, endpoint, tracks)).await
    }

    async fn set_track_muted(
        &self,
        session: SessionId,
        participant: ParticipantId,
        track: TrackId,
        muted: bool,
    ) -> StoreResult<Guarded> {
        measured("set_track_muted", self.0.set_track_muted(session, participant, track, muted)).await
    }

    async fn remove_participant(
        &self,
        session: SessionId,
        participant: ParticipantId,
        only_if: RemoveIf,
        by: Option<CommandId>,
    ) -> StoreResult<Guarded> {
        measured("remove_participant", self.0.remove_participant(session, participant, only_if, by)).await
    }

    async fn revoke(
        &self,
        session: SessionId,
        participant: ParticipantId,
        at: UnixMillis,
    ) -> StoreResult<Guarded> {
        measured("revoke", self.0.revoke(session, participant, at)).await
    }

    async fn note_done(&self, session: SessionId, command: CommandId) -> StoreResult<Guarded> {
        measured("note_done", self.0.note_done(session, command)).await
    }

    async fn set_settings(
        &self,
        session: SessionId,
        settings: &SessionSettings,
        by: CommandId,
    ) -> StoreResult<Guarded> {
        measured("set_settings", self.0.set_settings(session, settings, by)).await
    }

    async fn close_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        measured("close_session", self.0.close_session(session, at)).await
    }

    async fn close_empty_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        measured("close_empty_session", self.0.close_empty_session(session, at)).await
    }

    async fn closed_sessions(
        &self,
        before: UnixMillis,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>> {
        measured("closed_sessions", self.0.closed_sessions(before, after, limit)).await
    }

    async fn delete_closed_sessions(&self, before: UnixMillis) -> StoreResult<u64> {
        measured("delete_closed_sessions", self.0.delete_closed_sessions(before)).await
    }

    async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>> {
        measured("watch_sessions", self.0.watch_sessions(resume)).await
    }

    async fn put_worker(&self, worker: &Worker) -> StoreResult<()> {
        measured("put_worker", self.0.put_worker(worker)).await
    }

    async fn renew_worker(&self, worker: &Worker) -> StoreResult<bool> {
        measured("renew_worker", self.0.renew_worker(worker)).await
    }

    async fn worker(&self, id: WorkerId) -> StoreResult<Option<Worker>> {
        measured("worker", self.0.worker(id)).await
    }

    async fn workers(&self) -> StoreResult<Vec<Worker>> {
        measured("workers", self.0.workers()).await
    }

    async fn remove_worker(&self, id: WorkerId, run: RunId) -> StoreResult<()> {
        measured("remove_worker", self.0.remove_worker(id, run)).await
    }

    async fn bury_worker(&self, seen: &Worker) -> StoreResult<bool> {
        measured("bury_worker", self.0.bury_worker(seen)).await
    }

    async fn append_timeline(&self, session: SessionId, entries: &[TimelineEntry]) -> StoreResult<()> {
        measured("append_timeline", self.0.append_timeline(session, entries)).await
    }

    async fn timeline(
        &self,
        session: SessionId,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        measured("timeline", self.0.timeline(session, after, limit)).await
    }

    async fn sessions_owed(
        &self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> StoreResult<Vec<SessionId>> {
        measured("sessions_owed", self.0.sessions_owed(to, after, limit)).await
    }

    async fn owed(&self, to: &str, session: SessionId, limit: usize) -> StoreResult<Vec<TimelineEntry>> {
        measured("owed", self.0.owed(to, session, limit)).await
    }

    async fn settle_owed(&self, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool> {
        measured("settle_owed", self.0.settle_owed(to, entry, given_up)).await
    }

    async fn given_up(
        &self,
        to: &[String],
        after: Option<EventId>,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        measured("given_up", self.0.given_up(to, after, limit)).await
    }

    async fn owe_again(&self, to: &str, entry: EventId, since: UnixMillis) -> StoreResult<bool> {
        measured("owe_again", self.0.owe_again(to, entry, since)).await
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: InstanceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> StoreResult<bool> {
        measured("take_lease", self.0.take_lease(name, holder, now, until)).await
    }

    async fn put_rating(&self, rating: &Rating) -> StoreResult<bool> {
        measured("put_rating", self.0.put_rating(rating)).await
    }

    async fn ratings(
        &self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
    ) -> StoreResult<Vec<Rating>> {
        measured("ratings", self.0.ratings(session, after, limit)).await
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.0.connected()
    }

    async fn ping(&self, timeout: Duration) -> StoreResult<()> {
        measured("ping", self.0.ping(timeout)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::store::conformance::{pipeline, session};
    use crate::store::embedded::EmbeddedStore;

    pub(super) async fn run<F: Future<Output = ()>>(test: impl FnOnce(Arc<dyn Store>) -> F) {
        test(Arc::new(Metered::new(EmbeddedStore::new()))).await;
    }

    mod conforms {
        crate::store_conformance!(crate::store::metered::tests::run);
    }

    #[test]
    fn calls_are_counted_by_what_they_came_to() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let store = Metered::new(EmbeddedStore::new());
                let (session, pipeline) = (session(), pipeline());
                store.insert_session(&session).await.unwrap();
                for epoch in [7, 8, 0] {
                    store.place_pipeline(session.id, epoch, &pipeline).await.unwrap();
                }
                let garbage = ResumeToken(vec![1]);
                assert!(store.watch_sessions(Some(&garbage)).await.is_err());
                tokio::task::yield_now().await;
            });
        });
        let page = handle.render();
        for line in [
            r#"switchyard_store_operations_total{operation="insert_session",outcome="ok"} 1"#,
            r#"switchyard_store_operations_total{operation="place_pipeline",outcome="ok"} 1"#,
            r#"switchyard_store_operations_total{operation="place_pipeline",outcome="refused"} 2"#,
            r#"switchyard_store_operations_total{operation="watch_sessions",outcome="history_lost"} 1"#,
            r#"switchyard_store_operation_seconds_count{operation="place_pipeline"} 3"#,
            "switchyard_store_connected 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
