//! [`Worker`]: starts the parts in the right order, and stops them.
//!
//! ```text
//!   media plane ─▶ row with lease ─▶ worker.<id> inbox ─▶ session inboxes (change stream) ─▶ workers inbox
//! ```
//!
//! Whoever can be chosen must already listen, so the row and the own queue come before everything through which work
//! arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::broker::{Broker, BrokerError, BrokerErrorKind, Inbox, QueueKind, QueueSpec, topology};
use common::model::WorkerId;
use common::store::{Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use crate::config::WorkerConfig;
use crate::context::Context;
use crate::inbox::{self, Ended};
use crate::listeners::{self, Listener};
use crate::load::{LoadMeter, MeasureLoad};
use crate::media::{MediaControl, MediaEvent, MediaPlane, MediaStats};
use crate::media_events::MediaEvents;
use crate::relay::Relay;
use crate::{drain, lease, media_events, peers, sweep, timeline};

/// Commands that may be out at once from the worker's own queue, over all its endpoints.
const OWN_PREFETCH: u16 = 512;
/// The same from the queue that all workers share; small, so that a busy worker leaves work to others.
const SHARED_PREFETCH: u16 = 32;

/// How long a start waits for an earlier process of the same id to lose its queue: longer than RabbitMQ takes to notice
/// that a machine has vanished (two heartbeats of 5 s, and the time until the next is due), also when its URL says 10 s.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(40);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(250);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the media socket could not be opened: {0}")]
    Media(#[source] std::io::Error),
    #[error("the TURN server's port could not be opened: {0}")]
    Relay(#[source] std::io::Error),
    #[error("the broker refused: {0}")]
    Broker(#[from] BrokerError),
    #[error("the store refused: {0}")]
    Store(#[from] StoreError),
}

/// What a worker is made of, besides its broker and store.
pub struct Parts {
    /// New for every worker, or the same again for one that is to get its sessions back after a restart.
    pub id: WorkerId,
    pub media: Arc<dyn MediaControl>,
    /// What that media plane reports; its end is the worker's end.
    pub media_events: mpsc::Receiver<MediaEvent>,
    pub load: Box<dyn MeasureLoad>,
}

/// A running media worker. Dropping it ends it at once, like a crash: nothing is told to anyone.
pub struct Worker {
    context: Arc<Context>,
    tasks: TaskTracker,
    ended: Arc<Death>,
    relay: Option<SocketAddr>,
}

/// Set when a task ends that must not.
#[derive(Default)]
struct Death {
    happened: AtomicBool,
    notify: Notify,
}

impl Worker {
    /// Starts a worker, under a new id unless the configuration names one. Returns once it takes commands.
    ///
    /// # Errors
    /// The media socket or the TURN server's could not be bound, broker or store are not reachable, or another process runs under the
    /// configured id (found out within 40 s). Nothing keeps running then.
    pub async fn start(
        config: WorkerConfig,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StartError> {
        let (media, media_events) = MediaPlane::start(config.media.clone()).map_err(StartError::Media)?;
        let relay = match config.relay.clone() {
            Some(relay) => {
                let relay = Relay::bind(relay, media.local_addr(), media.announced()).await;
                let relay = relay.and_then(|relay| Ok((relay.local_addr()?, relay)));
                Some(relay.map_err(StartError::Relay)?)
            }
            None => None,
        };
        let load = Box::new(LoadMeter::new());
        let id = config.worker_id.unwrap_or_else(WorkerId::new);
        let parts = Parts { id, media: Arc::new(media), media_events, load };
        let mut worker = Self::start_with(config, broker, store, parts).await?;
        if let Some((address, relay)) = relay {
            worker.relay = Some(address);
            worker.aside("relay", relay.run());
        }
        Ok(worker)
    }

    /// Starts a worker whose media plane and load are the caller's. `config.media` and `config.relay` are not looked at.
    ///
    /// # Errors
    /// Broker or store are not reachable. Nothing keeps running then but what the caller brought.
    pub async fn start_with(
        config: WorkerConfig,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        parts: Parts,
    ) -> Result<Self, StartError> {
        let Parts { id, media, media_events, load: mut meter } = parts;
        let (reported, barriers) = MediaEvents::new();
        let context = Arc::new(Context::new(id, config, broker, store, media, reported));
        // From here on an early return drops the worker, which ends what has been started.
        let worker =
            Self { context: context.clone(), tasks: TaskTracker::new(), ended: Arc::default(), relay: None };
        worker.vital("media events", media_events::run(context.clone(), media_events, barriers));

        let load = meter.measure(&MediaStats::default());
        // Its own queue first: whoever finds the row may hand it work at once.
        let own = topology::worker_queue(context.worker_id);
        declare_own(&context, &own).await?;
        // What an earlier process of this id hosted ended with it.
        peers::take_over(&context, context.worker_id).await?;
        let inbox = listeners::open(&context, &own.name, OWN_PREFETCH, true).await?;
        worker.vital("own inbox", queue_inbox(context.clone(), inbox, own, OWN_PREFETCH));
        context.store.put_worker(&lease::row(&context, load)).await?;
        worker.vital("heartbeat", lease::run(context.clone(), meter));

        context.broker.declare_queue(&topology::dead_letters_queue()).await?;
        let listener = Listener::start(context.clone()).await?;
        worker.vital("session listener", listener.run());
        let shared = topology::workers_queue();
        let open = async || {
            context.broker.declare_queue(&shared).await?;
            listeners::open(&context, &shared.name, SHARED_PREFETCH, false).await
        };
        // RabbitMQ ends a connection that reads a quorum queue whose first leader is not elected yet, as happens when
        // the first workers of a new cluster start together.
        let patiently = listeners::until_ok("shared inbox", open);
        let inbox = match tokio::time::timeout(context.config.lease(), patiently).await {
            Ok(inbox) => inbox,
            Err(_) => open().await?,
        };
        worker.vital("shared inbox", queue_inbox(context.clone(), inbox, shared, SHARED_PREFETCH));
        worker.vital("pings", peers::ping(context.clone()));
        worker.vital("peers", peers::look(context.clone()));
        worker.vital("sweep", sweep::run(context.clone()));
        worker.vital("drain", drain::run(context.clone()));
        tracing::info!(worker_id = %context.worker_id, media = ?context.media.announced(), "worker ready");
        Ok(worker)
    }

    pub fn id(&self) -> WorkerId {
        self.context.worker_id
    }

    /// The addresses that clients send media to.
    pub fn media_addresses(&self) -> Vec<SocketAddr> {
        self.context.media.announced().to_vec()
    }

    /// Where the worker's own TURN server listens, over UDP and TCP, if it has one.
    pub fn relay_address(&self) -> Option<SocketAddr> {
        self.relay
    }

    /// How many sessions' inboxes this worker reads now: all open ones, once it has caught up.
    pub fn session_inboxes(&self) -> usize {
        self.context.inboxes.load(Ordering::Relaxed)
    }

    /// The media plane, for its counters.
    pub fn media(&self) -> &dyn MediaControl {
        &*self.context.media
    }

    /// Resolves when the worker can no longer do its work by itself: its media thread or one of its tasks ended.
    pub async fn ended(&self) {
        let told = self.ended.notify.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if !self.ended.happened.load(Ordering::Acquire) {
            told.await;
        }
    }

    /// Begins to move everything to other workers; a second call changes nothing. The row says `draining` from now on.
    pub fn drain(&self) {
        self.context.drain.ask(self.context.config.drain_timeout);
    }

    /// Resolves when a drain has begun, by [`Worker::drain`] or by a command.
    pub async fn drain_asked(&self) {
        self.context.drain.asked().await;
    }

    /// Resolves when a drain is over: nobody is left here, or its time is. [`Worker::stop`] is what comes next.
    pub async fn drained(&self) {
        self.context.drain.finished().await;
    }

    /// Ends the worker in an orderly way: others are told to take over, its participants to rejoin. Bounded by
    /// `stop_timeout`; what is not done by then is left to the lease running out.
    pub async fn stop(self) {
        let worker_id = self.context.worker_id;
        tracing::info!(%worker_id, "worker stops");
        self.context.begin_stopping();
        let reason = if self.context.drain.is_asked() { "drain_deadline" } else { "worker_stopped" };
        let cause = timeline::reason(reason);
        if tokio::time::timeout(self.context.config.stop_timeout, timeline::because(cause, self.hand_over()))
            .await
            .is_err()
        {
            tracing::warn!(%worker_id, "not everything was handed over in time");
        }
        self.context.stop.cancel();
        self.tasks.close();
        let rest = async {
            self.context.media.shutdown().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(Duration::from_secs(1), rest).await.is_err() {
            tracing::warn!(%worker_id, "the worker's tasks are left behind");
        }
        tracing::info!(%worker_id, "worker stopped");
    }

    async fn hand_over(&self) {
        let context = &self.context;
        // Nobody places here any more. Commands still arrive, and find that their endpoint is gone or go elsewhere.
        if let Err(error) = context.store.remove_worker(context.worker_id, context.run).await {
            tracing::warn!(%error, "the worker's row stays until its lease runs out");
        }
        if let Err(error) = peers::take_over(context, context.worker_id).await {
            tracing::warn!(%error, "the sessions are left to the others");
        }
        for (session_id, _) in context.registry.pipelines() {
            context.close_session_here(session_id).await;
        }
        context.stop_intake.cancel();
        self.tasks.close();
        context.lanes.drained().await;
        let own = topology::worker_queue_name(context.worker_id);
        if let Err(error) = context.broker.delete_queue(&own).await {
            tracing::warn!(%error, "the worker's queue stays until its connection closes");
        }
        context.reporter.drained().await;
        context.timeline.flushed().await;
    }

    /// Runs a task without which the worker goes on.
    fn aside(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let context = self.context.clone();
        let task = async move { context.stop.run_until_cancelled(task).await };
        let task = common::ambient::spawn(self.tasks.track_future(task));
        let worker_id = self.context.worker_id;
        common::ambient::spawn(self.tasks.track_future(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(%worker_id, what, "a task that should not have ended did");
            }
        }));
    }

    /// Runs a task without which the worker is not one.
    fn vital(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let context = self.context.clone();
        let ended = self.ended.clone();
        let task = async move { context.stop.run_until_cancelled(task).await };
        let task = common::ambient::spawn(self.tasks.track_future(task));
        let context = self.context.clone();
        let watched = async move {
            let outcome = task.await;
            if context.stop_intake.is_cancelled() || context.is_stopping() {
                return;
            }
            let panicked = outcome.is_err();
            tracing::error!(worker_id = %context.worker_id, what, panicked, "a vital task ended");
            ended.happened.store(true, Ordering::Release);
            ended.notify.notify_waiters();
        };
        common::ambient::spawn(self.tasks.track_future(watched));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.context.stop.cancel();
    }
}

/// A process that died without closing its connection keeps the queue until the broker has noticed.
async fn declare_own(context: &Context, own: &QueueSpec) -> Result<(), BrokerError> {
    let deadline = tokio::time::Instant::now() + PREDECESSOR_PATIENCE;
    loop {
        match context.broker.declare_queue(own).await {
            Err(error)
                if error.kind == BrokerErrorKind::Conflict && tokio::time::Instant::now() < deadline =>
            {
                tracing::warn!(worker_id = %context.worker_id, "another process has this worker's queue; waiting");
            }
            declared => return declared,
        }
        tokio::time::sleep(PREDECESSOR_PAUSE).await;
    }
}

/// Reads one of the worker's two standing queues; opens it anew when it vanishes under it.
async fn queue_inbox(context: Arc<Context>, mut inbox: Box<dyn Inbox>, queue: QueueSpec, prefetch: u16) {
    loop {
        let ended = inbox::run(&context, inbox, context.stop_intake.clone()).await;
        if ended == Ended::Stopped {
            return;
        }
        tracing::warn!(queue = queue.name, "the queue is gone; declared anew");
        let exclusive = queue.kind == QueueKind::Exclusive;
        let open = async || {
            context.broker.declare_queue(&queue).await?;
            listeners::open(&context, &queue.name, prefetch, exclusive).await
        };
        let reopened = tokio::time::timeout(context.config.lease(), listeners::until_ok("inbox", open));
        match context.stop_intake.run_until_cancelled(reopened).await {
            Some(Ok(reopened)) => inbox = reopened,
            // Closed for good.
            Some(Err(_)) | None => return,
        }
    }
}
