//! Change stream to session inboxes: a session appears, every worker attaches; it ends, they detach.
//!
//! The stream is opened before the open sessions are listed, so nothing falls between the two; what shows up in both
//! is attached once. When the stream has lost its place, the listing is compared with what is attached.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::broker::{BrokerResult, Inbox, InboxOptions, topology};
use common::model::{SessionId, SessionState};
use common::store::{
    ResumeToken, SessionChange, SessionChangeKind, SessionWatch, Store, StoreErrorKind, StoreResult,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::commands::close::LINGER;
use crate::context::Context;
use crate::inbox::{self, Ended};
use crate::{metrics, reconcile};

/// Commands of one session that may be out at once.
const PREFETCH: u16 = 16;
/// Between two tries while broker or store are away.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Inboxes that are being opened at once: a start with thousands of sessions must not time itself out.
const OPENING_AT_ONCE: usize = 32;
/// How many sessions one listing call reads.
const PAGE: u32 = 5_000;

/// The session inboxes of one worker.
pub(crate) struct Listener {
    context: Arc<Context>,
    attached: HashMap<SessionId, CancellationToken>,
    watch: Option<Box<dyn SessionWatch>>,
    last: Option<ResumeToken>,
    opening: Arc<Semaphore>,
}

impl Listener {
    /// Opens the change stream and attaches to every open session.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn start(context: Arc<Context>) -> StoreResult<Self> {
        let opening = Arc::new(Semaphore::new(OPENING_AT_ONCE));
        let mut listener = Self { context, attached: HashMap::new(), watch: None, last: None, opening };
        listener.relist("start").await?;
        Ok(listener)
    }

    /// Follows the change stream until the worker takes no more commands.
    pub async fn run(mut self) {
        let stop = self.context.stop_intake.clone();
        let mut pause = PAUSE;
        loop {
            let step = stop.run_until_cancelled(self.step());
            match step.await {
                None => return,
                Some(Ok(())) => pause = PAUSE,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the change stream is interrupted");
                    if error.kind == StoreErrorKind::HistoryLost {
                        self.last = None;
                    }
                    self.watch = None;
                    let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Takes one change, after opening the stream anew if need be.
    async fn step(&mut self) -> StoreResult<()> {
        let Some(watch) = &mut self.watch else {
            return match &self.last {
                Some(token) => {
                    self.watch = Some(self.context.store.watch_sessions(Some(token)).await?);
                    Ok(())
                }
                None => self.relist("stream_lost").await,
            };
        };
        let change = watch.next().await?;
        self.apply(change);
        Ok(())
    }

    async fn relist(&mut self, cause: &'static str) -> StoreResult<()> {
        metrics::relist(cause);
        let watch = self.context.store.watch_sessions(None).await?;
        let open = open_sessions(&*self.context.store).await?;
        let attached = self.attached.keys().copied().collect();
        let diff = reconcile::inboxes(&attached, &open);
        tracing::debug!(
            cause,
            open = open.len(),
            attach = diff.attach.len(),
            detach = diff.detach.len(),
            "listed"
        );
        diff.attach.into_iter().for_each(|id| self.attach(id));
        diff.detach.into_iter().for_each(|id| self.detach(id));
        self.watch = Some(watch);
        Ok(())
    }

    fn apply(&mut self, change: SessionChange) {
        self.last = Some(change.token);
        match change.kind {
            SessionChangeKind::Inserted(session) if session.state == SessionState::Open => {
                self.attach(change.session_id);
            }
            SessionChangeKind::Inserted(_) => {}
            // An open session that was not known: attaching twice does nothing.
            SessionChangeKind::Updated => self.attach(change.session_id),
            SessionChangeKind::Closed | SessionChangeKind::Deleted => self.detach(change.session_id),
        }
    }

    fn attach(&mut self, session_id: SessionId) {
        if self.attached.contains_key(&session_id) {
            return;
        }
        let stop = self.context.stop_intake.child_token();
        self.attached.insert(session_id, stop.clone());
        common::ambient::spawn(session_inbox(self.context.clone(), self.opening.clone(), session_id, stop));
    }

    fn detach(&mut self, session_id: SessionId) {
        let Some(stop) = self.attached.remove(&session_id) else { return };
        let context = self.context.clone();
        common::ambient::spawn(async move {
            context.close_session_here(session_id).await;
            // Until its queue is deleted, commands that were on their way get their answer.
            let _ = stop.run_until_cancelled(tokio::time::sleep(2 * LINGER)).await;
            stop.cancel();
        });
    }
}

/// The ids of all open sessions, read in pages.
async fn open_sessions(store: &dyn Store) -> StoreResult<BTreeSet<SessionId>> {
    let mut all = BTreeSet::new();
    loop {
        let page = store.open_sessions(all.last().copied(), PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Reads the session's queue until the session ends or `stop`.
async fn session_inbox(
    context: Arc<Context>,
    opening: Arc<Semaphore>,
    session_id: SessionId,
    stop: CancellationToken,
) {
    loop {
        let open = async || {
            let queue = topology::session_queue(session_id);
            let _permit = opening.acquire().await;
            context.broker.declare_queue(&queue).await?;
            context.broker.declare_exchange(&topology::session_exchange_name(session_id)).await?;
            open(&context, &queue.name, PREFETCH, false).await
        };
        let Some(inbox) = stop.run_until_cancelled(until_ok("session inbox", open)).await else { return };
        metrics::inboxes(1.0);
        context.inboxes.fetch_add(1, Ordering::Relaxed);
        let ended = inbox::run(&context, inbox, stop.clone()).await;
        metrics::inboxes(-1.0);
        context.inboxes.fetch_sub(1, Ordering::Relaxed);
        // Deleted because the session ended (its change is on the way), or expired while the broker was away.
        let is_open = async || {
            let session = context.store.session(session_id).await?;
            StoreResult::Ok(session.is_some_and(|session| session.state == SessionState::Open))
        };
        let is_open = stop.run_until_cancelled(until_ok("session", is_open)).await;
        if ended == Ended::Stopped || is_open != Some(true) {
            return;
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

pub(crate) async fn open(
    context: &Context,
    queue: &str,
    prefetch: u16,
    exclusive: bool,
) -> BrokerResult<Box<dyn Inbox>> {
    context.broker.open_inbox(queue, InboxOptions { prefetch, exclusive }).await
}

/// Tries until it works, with growing pauses.
pub(crate) async fn until_ok<T, E, F>(what: &'static str, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = PAUSE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(what, %error, "trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
