//! Who is served when: for one receiver, all sessions that owe it something.
//!
//! Sessions are told beside each other, a bounded number at a time. One that fails waits for its time, and those that
//! fail together never take more than half of the places: whoever is well is served at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::model::{InstanceId, SessionId, TimelineEntry};
use common::store::{Store, StoreResult};
use common::time::UnixMillis;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::client::{PATIENCE, Sender};
use super::{Receiver, WebhookConfig};
use crate::metrics;

/// How long a process has a receiver to itself, and how often it says that it still is there.
const LEASE: Duration = Duration::from_secs(20);
const RENEWAL: Duration = Duration::from_secs(4);
/// Between two looks for what is owed; longer when looking takes long.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// Sessions of one receiver that are told at once, and how many of those may be failing ones.
const AT_ONCE: usize = 32;
const FAILING_AT_ONCE: usize = AT_ONCE / 2;
/// Sessions in one page of what is owed, entries in one of a session.
const PAGE: usize = 500;
const BATCH: usize = 32;
/// Batches until a busy session makes room for another.
const BATCHES: usize = 8;

/// Tells all receivers, until `stop`.
pub async fn serve(config: WebhookConfig, sender: Sender, store: Arc<dyn Store>, stop: CancellationToken) {
    let holder = InstanceId::new();
    let mut receivers = JoinSet::new();
    for receiver in config.receivers {
        let (store, stop) = (store.clone(), stop.clone());
        let (until, valid) = watch::channel(None);
        let name = format!("webhooks/{}", receiver.id);
        receivers.spawn(hold(name, holder, store.clone(), until, stop.clone()));
        let told = Told { receiver, sender: sender.clone(), store, valid, retry: config.retry };
        receivers.spawn(async move {
            let _ = stop.run_until_cancelled(tell(Arc::new(told))).await;
        });
    }
    receivers.join_all().await;
}

/// Takes the lease whenever it is free, and keeps it. `until` is the moment to which this process has it, by its own clock
/// and counted from before it asked.
async fn hold(
    name: String,
    holder: InstanceId,
    store: Arc<dyn Store>,
    until: watch::Sender<Option<Instant>>,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(RENEWAL);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (asked, now) = (Instant::now(), UnixMillis::now());
        match store.take_lease(&name, holder, now, later(now, LEASE)).await {
            Ok(true) => _ = until.send_replace(Some(asked + LEASE)),
            Ok(false) => _ = until.send_replace(None),
            // What it has it keeps until it runs out.
            Err(error) => tracing::debug!(%error, "a lease waits for the store"),
        }
    }
    // Another instance need not wait for it to run out.
    if until.borrow().is_some() {
        let now = UnixMillis::now();
        let given_back = store.take_lease(&name, holder, now, UnixMillis(now.0 - 1));
        let _ = tokio::time::timeout(Duration::from_secs(1), given_back).await;
    }
}

fn later(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

/// What telling one receiver needs.
struct Told {
    receiver: Receiver,
    sender: Sender,
    store: Arc<dyn Store>,
    valid: watch::Receiver<Option<Instant>>,
    retry: Duration,
}

/// How far telling one session got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is owed any more, or others have their turn.
    Well,
    /// A try failed; before it something was told, or not.
    Failed { told: bool },
    /// The lease is another's.
    Lost,
}

/// The sessions that are being told.
type Busy = HashMap<SessionId, task::Id>;

/// Looks for what is owed, again and again.
async fn tell(told: Arc<Told>) {
    let mut backoff = Backoff::default();
    let mut busy = Busy::new();
    let mut running: JoinSet<(SessionId, Progress)> = JoinSet::new();
    loop {
        let started = Instant::now();
        if told.is_valid() {
            match look(&told, &mut backoff, &mut busy, &mut running).await {
                // What is not owed any more needs no memory.
                Ok(owed) => backoff.retain(|session| owed.contains(&session)),
                Err(error) => tracing::debug!(%error, "webhooks wait for the store"),
            }
            metrics::webhook_sessions_failing(&told.receiver.id, backoff.len());
        }
        let pause = LOOK_INTERVAL.max(started.elapsed() * 4).min(Duration::from_secs(10));
        let wake = tokio::time::sleep(pause);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => break,
                Some(ended) = running.join_next() => note(ended, &mut backoff, &mut busy),
            }
        }
    }
}

/// Goes through all sessions that owe something and starts those whose time it is. Gives all of them.
async fn look(
    told: &Arc<Told>,
    backoff: &mut Backoff,
    busy: &mut Busy,
    running: &mut JoinSet<(SessionId, Progress)>,
) -> StoreResult<HashSet<SessionId>> {
    let mut owed = HashSet::new();
    let mut after = None;
    loop {
        let page = told.store.sessions_owed(&told.receiver.id, after, PAGE).await?;
        for &session in &page {
            owed.insert(session);
            while let Some(ended) = running.try_join_next() {
                note(ended, backoff, busy);
            }
            if busy.contains_key(&session) || backoff.waits(session, Instant::now()) {
                continue;
            }
            let failing = busy.keys().filter(|busy| backoff.is_failing(**busy)).count();
            if backoff.is_failing(session) && failing >= FAILING_AT_ONCE {
                continue;
            }
            while running.len() >= AT_ONCE {
                match running.join_next().await {
                    Some(ended) => note(ended, backoff, busy),
                    None => break,
                }
            }
            let told = told.clone();
            let task = running.spawn(async move { (session, told.tell_session(session).await) });
            busy.insert(session, task.id());
        }
        match page.last() {
            Some(last) if page.len() == PAGE && told.is_valid() => after = Some(*last),
            _ => return Ok(owed),
        }
    }
}

fn note(ended: Result<(SessionId, Progress), JoinError>, backoff: &mut Backoff, busy: &mut Busy) {
    let (session, progress) = match ended {
        Ok(ended) => ended,
        Err(panicked) => return busy.retain(|_, task| *task != panicked.id()),
    };
    busy.remove(&session);
    match progress {
        Progress::Well | Progress::Lost => backoff.succeeded(session),
        Progress::Failed { told } => {
            if told {
                backoff.succeeded(session);
            }
            // From a third of the pause to all of it.
            backoff.failed(session, Instant::now(), common::ambient::jitter() / 1.5);
        }
    }
}

impl Told {
    /// Whether this process has the receiver to itself for as long as one try may take: no try of two processes overlap.
    fn is_valid(&self) -> bool {
        self.valid.borrow().is_some_and(|until| Instant::now() + PATIENCE < until)
    }

    /// Tells what a session owes, in order, until something fails.
    async fn tell_session(&self, session: SessionId) -> Progress {
        let mut told = false;
        for _ in 0..BATCHES {
            let entries = match self.store.owed(&self.receiver.id, session, BATCH).await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::debug!(%error, "webhooks wait for the store");
                    return Progress::Failed { told };
                }
            };
            if entries.is_empty() {
                return Progress::Well;
            }
            for entry in &entries {
                if !self.is_valid() {
                    return Progress::Lost;
                }
                if !self.tell_entry(entry).await {
                    return Progress::Failed { told };
                }
                told = true;
            }
        }
        Progress::Well
    }

    /// Whether the next one may be told.
    async fn tell_entry(&self, entry: &TimelineEntry) -> bool {
        let given_up = match self.sender.send(&self.receiver, entry).await {
            Ok(()) => false,
            Err(failure) => {
                metrics::webhook("failed");
                let since = entry.webhooks.since.unwrap_or(entry.at);
                let over = UnixMillis::now() > later(since, self.retry);
                let receiver = self.receiver.place();
                let session_id = entry.session_id;
                if !over {
                    tracing::debug!(%session_id, receiver, %failure, "a webhook failed and will be tried again");
                    return false;
                }
                tracing::warn!(%session_id, receiver, %failure, event_id = %entry.id, "a webhook is given up");
                true
            }
        };
        // Not noted is told again: at least once.
        match self.store.settle_owed(&self.receiver.id, entry.id, given_up).await {
            Ok(_) => {
                metrics::webhook(if given_up { "given_up" } else { "delivered" });
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a webhook that was told is not noted: it will come again");
                false
            }
        }
    }
}
