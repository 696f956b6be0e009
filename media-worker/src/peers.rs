//! Watches the other workers, and takes the sessions of the dead from them.
//!
//! ```text
//!   every 250 ms ─▶ ping ─▶ worker.<next in the ring> ── unroutable, three times ─▶ row? ─▶ dead? ─▶ bury ─▶ take over
//!   every third of a lease ─▶ all rows ── unchanged for a whole lease ──────────────────────────▶ bury ─▶ take over
//!                                   └──── gone since the last look: somebody buried it ────────────────▶ take over
//! ```
//!
//! The row goes first, so that nothing is placed on the dead any more; of all who try to bury it one wins, and all who
//! see it gone help to take over, so that the death of the winner leaves nothing behind. Each session taken over is a
//! compare-and-set, and its winner tells.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::broker::{BrokerError, BrokerErrorKind, Destination, Message, RECONNECT_BOUND, topology};
use common::model::{Session, Worker, WorkerId};
use common::store::{SessionFilter, StoreResult};
use common::time::UnixMillis;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::context::Context;
use crate::leases::LeaseBook;
use crate::metrics;
use crate::ring::{self, MissingQueue};

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(250);
/// A ping that nobody took for this long is worth nothing.
const PING_TTL: Duration = Duration::from_millis(500);
/// A missing queue is looked for again this often before it counts: its owner, alive, is back by then, or has written
/// that it is without broker.
const LOOKED_AGAIN: u32 = 3;
const LOOK_AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// Longest time between two looks at the rows.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Sessions that are taken over at once.
const AT_ONCE: usize = 16;
/// How many sessions one listing call reads.
const PAGE: u32 = 500;

/// What this worker knows about the others and about its own link to the broker.
pub(crate) struct Peers {
    state: Mutex<State>,
    /// Since when this worker has been without broker.
    away_since: watch::Sender<Option<UnixMillis>>,
}

struct State {
    rows: Vec<Worker>,
    /// Whose row is gone, but perhaps not yet all that they hosted.
    buried: BTreeSet<WorkerId>,
    /// Whose queue was there since the link was last broken.
    seen: BTreeSet<WorkerId>,
    link_since: (Instant, UnixMillis),
}

/// What became of a worker whose queue was missing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The queue is there (again).
    Back,
    /// Declared dead, by this worker or another; or stopped.
    Dead,
    /// It says that it lives without the broker, for so long that a session somebody wants to join may be taken from it.
    CutOff,
    /// Nobody can know yet: a moment later.
    Unclear,
}

impl Default for Peers {
    fn default() -> Self {
        let state = State {
            rows: Vec::new(),
            buried: BTreeSet::new(),
            seen: BTreeSet::new(),
            link_since: (Instant::now(), UnixMillis::now()),
        };
        Self { state: Mutex::new(state), away_since: watch::Sender::new(None) }
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue of this worker was there just now.
    pub fn seen(&self, worker_id: WorkerId) {
        self.lock().seen.insert(worker_id);
    }

    /// Since when this worker has been without broker, and its changes.
    pub fn away_since(&self) -> watch::Receiver<Option<UnixMillis>> {
        self.away_since.subscribe()
    }

    /// Takes a new listing; gives those whose row is gone and who may still be stored as hosts.
    fn replace_rows(&self, rows: Vec<Worker>, here: WorkerId) -> Vec<WorkerId> {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.rows, rows);
        let State { rows, buried, .. } = &mut *state;
        buried.extend(before.iter().map(|row| row.id).filter(|id| *id != here));
        buried.retain(|id| rows.iter().all(|row| row.id != *id));
        buried.iter().copied().collect()
    }

    /// What is known so far is of another link.
    fn link_broken(&self) {
        let mut state = self.lock();
        state.seen.clear();
        state.link_since = (Instant::now(), UnixMillis::now());
    }

    pub fn is_away(&self) -> bool {
        self.away_since.borrow().is_some()
    }

    fn link_is(&self, up: bool) {
        self.away_since.send_if_modified(|since| {
            let changed = since.is_none() != up;
            if changed {
                *since = (!up).then(UnixMillis::now);
            }
            changed
        });
    }

    /// What the link and the row say about a missing queue.
    fn is_dead(&self, row: &Worker, lease: Duration) -> bool {
        let state = self.lock();
        let (since, since_wall) = state.link_since;
        // Its row is renewed with a word about its link. Clocks that differ matter only in the first seconds of a link.
        let vouched_at = UnixMillis(row.lease_until.0.saturating_sub(millis(lease)));
        let was_there = state.seen.contains(&row.id) || vouched_at > since_wall;
        ring::is_dead(&MissingQueue { row, link_unbroken: since.elapsed(), was_there })
    }
}

/// Pings the next worker in the ring, and keeps an eye on the own link to the broker.
pub(crate) async fn ping(context: Arc<Context>) {
    let peers = &context.peers;
    let mut connected = context.broker.connected();
    connected.mark_unchanged();
    let mut tick = tokio::time::interval(PING_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let closed = tokio::select! {
            biased;
            changed = connected.changed() => {
                // Down, or down and up again.
                peers.link_broken();
                changed.is_err()
            }
            _ = tick.tick() => false,
        };
        if closed {
            // The broker is gone for good, and this worker with it.
            peers.link_is(false);
            return context.stop.cancelled().await;
        }
        let mut up = *connected.borrow();
        if up
            && let Some(next) =
                { ring::neighbour(peers.lock().rows.iter().map(|row| row.id), context.worker_id) }
        {
            let sent = send_ping(&context, next).await;
            metrics::ping(&sent);
            match sent {
                Ok(()) => peers.seen(next),
                Err(error) if error.kind == BrokerErrorKind::Unroutable => {
                    if let Err(error) = queue_missing(&context, next).await {
                        tracing::warn!(worker = %next, %error, "its queue is missing, and the store cannot be asked");
                    }
                }
                // A queue that is full is there.
                Err(error) if error.kind == BrokerErrorKind::Full => peers.seen(next),
                Err(error) => {
                    tracing::debug!(%error, "ping");
                    up = false;
                }
            }
        }
        peers.link_is(up);
    }
}

async fn send_ping(context: &Context, to: WorkerId) -> Result<(), BrokerError> {
    let message = Message { body: Vec::new(), message_id: topology::PING.to_owned(), ttl: Some(PING_TTL) };
    context.broker.send(Destination::Queue(&topology::worker_queue_name(to)), message).await
}

/// Finds out about a worker whose queue was not there, and declares it dead if that is what it means.
///
/// # Errors
/// Those of the store.
pub(crate) async fn queue_missing(context: &Context, worker_id: WorkerId) -> StoreResult<Finding> {
    // First its row, then its queue again, and it is buried only if the row is still the same after that: a worker that
    // has just come back, or has just said that it is without broker, has written its row meanwhile.
    let Some(row) = context.store.worker(worker_id).await? else {
        forget(context, worker_id);
        return Ok(Finding::Dead);
    };
    for _ in 0..LOOKED_AGAIN {
        tokio::time::sleep(LOOK_AGAIN_PAUSE).await;
        match send_ping(context, worker_id).await {
            Err(error) if error.kind == BrokerErrorKind::Unroutable => {}
            Ok(()) => return Ok(Finding::Back),
            Err(_) => return Ok(Finding::Unclear),
        }
    }
    if context.peers.is_dead(&row, context.config.lease()) {
        let buried = declare_dead(context, &row, "queue").await?;
        return Ok(if buried { Finding::Dead } else { Finding::Unclear });
    }
    let cut_off_for = row.broker_away_since.map(|since| UnixMillis::now().0.saturating_sub(since.0));
    Ok(match cut_off_for {
        Some(cut_off_for) if cut_off_for >= millis(RECONNECT_BOUND) => Finding::CutOff,
        _ => Finding::Unclear,
    })
}

/// Looks at all rows again and again: for leases that have run out, and for rows that are gone.
pub(crate) async fn look(context: Arc<Context>) {
    let lease = context.config.lease();
    let mut tick = tokio::time::interval((lease / 3).min(LOOK_INTERVAL_MAX));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = LeaseBook::default();
    loop {
        tick.tick().await;
        context.standing.good().await;
        // The time before the call: what it gives may be as old.
        let now = (Instant::now(), UnixMillis::now());
        let rows = match tokio::time::timeout(lease / 2, context.store.workers()).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                book.interrupted();
                tracing::debug!(%error, "the other workers' leases cannot be seen");
                continue;
            }
            Err(_) => {
                book.interrupted();
                continue;
            }
        };
        for dead in book.look(&rows, context.worker_id, now, lease) {
            if let Err(error) = declare_dead(&context, &dead, "lease").await {
                tracing::warn!(dead = %dead.id, %error, "declared dead at the next look");
            }
        }
        for dead in context.peers.replace_rows(rows, context.worker_id) {
            match take_over(&context, dead).await {
                Ok(()) => drop(context.peers.lock().buried.remove(&dead)),
                Err(error) => tracing::warn!(%dead, %error, "taken over at the next look"),
            }
        }
    }
}

/// Removes the row of a dead worker and takes its sessions from it. `false`: it lives after all.
async fn declare_dead(context: &Context, row: &Worker, sign: &'static str) -> StoreResult<bool> {
    context.standing.good().await;
    if !context.store.bury_worker(row).await? {
        // Renewed meanwhile, or buried by another worker.
        return Ok(context.store.worker(row.id).await?.is_none());
    }
    metrics::death(sign);
    tracing::warn!(dead = %row.id, sign, "a worker is dead; its sessions start anew elsewhere");
    forget(context, row.id);
    take_over(context, row.id).await?;
    Ok(true)
}

fn forget(context: &Context, worker_id: WorkerId) {
    let mut state = context.peers.lock();
    state.rows.retain(|row| row.id != worker_id);
    state.seen.remove(&worker_id);
    state.buried.insert(worker_id);
}

/// Drops every pipeline of a worker that is no more; whoever does it tells the participants.
///
/// # Errors
/// Those of the store.
pub(crate) async fn take_over(context: &Context, dead: WorkerId) -> StoreResult<()> {
    let mut filter =
        SessionFilter { open_only: true, worker_id: Some(dead), limit: PAGE, ..SessionFilter::default() };
    loop {
        let page = context.store.sessions(&filter).await?;
        filter.after = page.last().map(|session| session.id);
        let is_last = page.len() < PAGE as usize;
        let drops: Vec<_> =
            page.iter().map(|session| drop_pipelines_of(context, session, dead).boxed()).collect();
        let results: Vec<StoreResult<()>> = futures::stream::iter(drops).buffered(AT_ONCE).collect().await;
        results.into_iter().collect::<StoreResult<()>>()?;
        if is_last {
            return Ok(());
        }
    }
}

async fn drop_pipelines_of(context: &Context, session: &Session, dead: WorkerId) -> StoreResult<()> {
    for pipeline in session.pipelines.iter().filter(|pipeline| pipeline.worker_id == dead) {
        context.drop_pipeline(session, pipeline).await?;
    }
    Ok(())
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
