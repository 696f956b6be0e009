//! What every part of one worker shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::broker::Broker;
use common::message::{CommandError, ErrorCode, EventBody};
use common::model::{Cause, ParticipantId, Pipeline, PipelineId, RunId, Session, SessionId, WorkerId};
use common::store::{Guarded, Store, StoreResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::drain::Drain;
use crate::ended::Ended;
use crate::media::MediaControl;
use crate::media_events::MediaEvents;
use crate::metrics;
use crate::peers::Peers;
use crate::registry::Registry;
use crate::report::{Reporter, To};
use crate::serial::Serial;
use crate::standing::Standing;
use crate::sync::tell_if_replaced;
use crate::timeline::{self, Timeline};

/// What must happen one after the other: everything about one participant, or about a session as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Session(SessionId),
    Participant(SessionId, ParticipantId),
    /// About the worker itself.
    Worker,
}

pub(crate) struct Context {
    pub worker_id: WorkerId,
    /// This process, of all that have had the worker's id.
    pub run: RunId,
    pub config: WorkerConfig,
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
    pub media: Arc<dyn MediaControl>,
    pub media_events: MediaEvents,
    pub registry: Registry,
    pub ended: Ended,
    pub reporter: Reporter,
    pub peers: Peers,
    pub standing: Arc<Standing>,
    pub timeline: Timeline,
    /// Session inboxes that are open.
    pub inboxes: AtomicUsize,
    pub lanes: Serial<Lane, BoxFuture<'static, ()>>,
    pub drain: Drain,
    /// Ends everything that runs for this worker.
    pub stop: CancellationToken,
    /// Ends the taking of commands; comes before `stop` in a graceful end.
    pub stop_intake: CancellationToken,
    stopping: AtomicBool,
}

impl Context {
    pub fn new(
        worker_id: WorkerId,
        config: WorkerConfig,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        media: Arc<dyn MediaControl>,
        media_events: MediaEvents,
    ) -> Self {
        let stop = CancellationToken::new();
        let standing = Arc::new(Standing::new(config.lease()));
        let timeline = Timeline::start(store.clone(), config.webhooks.as_slice().into(), stop.clone());
        Self {
            worker_id,
            run: RunId::new(),
            config,
            reporter: Reporter::new(broker.clone(), standing.clone(), stop.clone()).noting(timeline.clone()),
            timeline,
            broker,
            store,
            media,
            media_events,
            registry: Registry::default(),
            ended: Ended::default(),
            peers: Peers::default(),
            inboxes: AtomicUsize::new(0),
            standing,
            // Bounded by the prefetch of the inboxes that feed it, and by one state report per endpoint.
            lanes: Serial::new(usize::MAX, |job: BoxFuture<'static, ()>| job),
            drain: Drain::default(),
            stop_intake: stop.child_token(),
            stop,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on this worker hosts nothing new.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        self.standing.release();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Runs `job` after everything pushed to the same lane before.
    pub fn run_in_lane(&self, lane: Lane, job: impl Future<Output = ()> + Send + 'static) {
        let dropped = self.lanes.push(lane, job.boxed());
        debug_assert!(dropped.is_none(), "lanes have no bound of their own");
    }

    /// Takes a dead pipeline out of the session; of all who notice its death one wins and tells everyone. When the session
    /// had moved away from it already, only those who are still on it are told.
    ///
    /// Gives the session as it then is, or `None` when there is no such session.
    pub async fn drop_pipeline(
        &self,
        session: &Session,
        pipeline: &Pipeline,
    ) -> StoreResult<Option<Session>> {
        if session.pipeline().is_some_and(|current| current.id != pipeline.id) {
            return self.retire_pipeline(session.id, pipeline).await;
        }
        match self.store.drop_pipeline(session.id, session.epoch, pipeline.id).await? {
            Guarded::Applied(after) => {
                tracing::info!(
                    session_id = %session.id, worker_id = %pipeline.worker_id, epoch = after.epoch,
                    "the session's pipeline is gone; its participants rejoin"
                );
                metrics::takeover();
                self.timeline.note_because(session.id, "session.interrupted", None, lost(pipeline));
                self.reporter.send(
                    session.id,
                    To::Everyone,
                    EventBody::SessionInterrupted { epoch: after.epoch },
                );
                Ok(Some(*after))
            }
            Guarded::Refused(now) => Ok(now.map(|now| *now)),
        }
    }

    async fn retire_pipeline(
        &self,
        session_id: SessionId,
        pipeline: &Pipeline,
    ) -> StoreResult<Option<Session>> {
        let after = match self.store.retire_pipeline(session_id, pipeline.id).await? {
            Guarded::Applied(after) => after,
            Guarded::Refused(now) => return Ok(now.map(|now| *now)),
        };
        for left in &after.participants {
            if let Some(endpoint) =
                left.endpoint.as_ref().filter(|endpoint| endpoint.pipeline_id == pipeline.id)
            {
                tracing::info!(%session_id, participant_id = %left.id, "did not move in time");
                let body = EventBody::SessionInterrupted { epoch: after.epoch };
                self.reporter.send(session_id, To::Participant(left.id, endpoint.id), body);
                self.timeline.note_because(session_id, "session.interrupted", Some(left.id), lost(pipeline));
            }
        }
        Ok(Some(*after))
    }

    /// Ends everything that this worker hosts for a session, without a word to the store.
    pub async fn close_session_here(&self, session_id: SessionId) {
        for pipeline in self.registry.pipelines_of(session_id) {
            self.close_pipeline_here(session_id, pipeline).await;
        }
    }

    /// Ends one pipeline here, and changes nothing in the store. Waits for what its endpoints are doing.
    pub async fn close_pipeline_here(&self, session_id: SessionId, pipeline: PipelineId) {
        self.registry.remove_pipeline(session_id, pipeline);
        self.media.close_pipeline(pipeline).await;
        let mut joined = Vec::new();
        for endpoint in self.registry.endpoints_of(pipeline) {
            let mut memory = endpoint.memory.lock().await;
            memory.gone = true;
            // A join that is still under way goes on elsewhere, so it has not ended.
            self.registry.remove(&endpoint, memory.join_reply.is_some());
            if memory.join_reply.is_some() {
                drop(memory);
                joined.push(endpoint);
            }
        }
        // Old endpoints of those who have moved on: nobody else knows of them to say that they are over. When the store
        // cannot tell, their streams go when nobody reads them any more.
        if !joined.is_empty()
            && let Ok(Some(session)) = self.store.session(session_id).await
        {
            joined.iter().for_each(|endpoint| tell_if_replaced(self, endpoint, Some(&session)));
        }
    }
}

/// Why a session lost this pipeline.
fn lost(pipeline: &Pipeline) -> Cause {
    let cause = timeline::cause();
    let reason = cause.reason.unwrap_or_else(|| "worker_lost".to_owned());
    Cause { reason: Some(reason), worker_id: Some(pipeline.worker_id), ..cause }
}

/// The refusal of a command whose endpoint is not (any more) here.
pub(crate) fn endpoint_gone() -> CommandError {
    CommandError::new(ErrorCode::EndpointGone, "the endpoint is not there any more: join again")
}
