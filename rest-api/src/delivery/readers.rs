//! At most one reader per user queue, on whichever instance: newer ones supersede older ones.
//!
//! ```text
//! new reader here ─ cancel the older one here ─ wait for its lease ─┬─ there is one: take it
//!                                                                  └─ none: open the queue ─┬─ ok
//!    another instance has it (Conflict): "let go" to all through exchange `api` ◀───────────┘
//!    holder: ends its reader, confirms up to the cursor, drops the lease, answers ─▶ open again
//! ```
//!
//! Who is newer is told by age, not by the clock: a request to let go says how long its reader has existed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::broker::{Broker, BrokerError, BrokerErrorKind, Destination, Message, topology};
use common::model::{EndpointId, EventId, InstanceId, ParticipantId, SessionId};
use common::store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::Confirmed;
use super::{Lease, Recipient};
use crate::config::Timings;
use crate::error::{ApiError, Code};
use crate::metrics;
use crate::replies::Incoming;

/// User queues that one instance holds at most; beyond it readers are refused with 503.
const MAX_SLOTS: usize = 50_000;
/// How long to wait for a holder's answer before opening the queue is tried again.
const ANSWER_WAIT: Duration = Duration::from_millis(100);
/// How long a broker may take to free a queue that was let go, before its holder is asked again.
const RELEASE_WAIT: Duration = Duration::from_millis(250);
/// Pauses between tries to open a queue that is being let go.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// What API instances say to each other; travels as JSON through the exchange `api` and the reply queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PeerMessage {
    /// To all: whoever holds this user queue, let go of it.
    LetGo {
        request_id: Uuid,
        session_id: SessionId,
        participant_id: ParticipantId,
        endpoint_id: EndpointId,
        /// Confirmed by the client on the way: the holder removes everything up to and including it.
        cursor: Option<EventId>,
        /// How long the asking reader has existed, in milliseconds: only older ones let go.
        age_ms: u64,
        from: InstanceId,
        reply_to: String,
    },
    /// From the holder.
    LetGoAnswer { request_id: Uuid, outcome: LetGo },
}

/// What the holder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetGo {
    /// The queue is free, and the cursor is confirmed (or was before).
    Released,
    /// The confirmed event was the last one: the queue is gone.
    Over,
    /// Its reader is newer than the one that asks.
    Newer,
}

/// Why there is no reader.
#[derive(Debug)]
pub enum Refused {
    /// A newer reader came meanwhile.
    Superseded,
    /// No such queue: never joined, over, or not read for too long.
    Gone,
    /// The server is shutting down.
    ShuttingDown,
    Failed(ApiError),
}

/// A reader that has its user queue.
pub struct Reader {
    // Dropped before the claim: who waits for the lease finds it free.
    lease: OwnedMutexGuard<Option<Lease>>,
    claim: Claim,
    /// The confirmed cursor was the end of the stream: there is nothing to read any more.
    pub over: bool,
}

pub type Acquired = Result<Reader, Refused>;

/// All readers of this instance; cheap to clone.
#[derive(Clone)]
pub struct Readers(Arc<Shared>);

struct Shared {
    instance: InstanceId,
    reply_to: String,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    timings: Timings,
    shutdown: CancellationToken,
    slots: Mutex<BTreeMap<Recipient, Arc<Slot>>>,
    asked: Mutex<HashMap<Uuid, oneshot::Sender<LetGo>>>,
}

/// The place of one user queue on this instance.
#[derive(Default)]
struct Slot {
    current: Mutex<Current>,
    lease: Arc<tokio::sync::Mutex<Option<Lease>>>,
}

#[derive(Default)]
struct Current {
    reader: Option<Turn>,
    /// When the last reader ended.
    idle_since: Option<Instant>,
}

/// The newest reader of a queue.
struct Turn {
    cancelled: CancellationToken,
    since: Instant,
}

/// One reader's claim to a queue, until it is dropped.
struct Claim {
    slot: Arc<Slot>,
    cancelled: CancellationToken,
    since: Instant,
}

impl Claim {
    /// Claims the queue and ends the reader there is.
    fn new(slot: Arc<Slot>, cancelled: CancellationToken) -> Self {
        let since = Instant::now();
        let turn = Turn { cancelled: cancelled.clone(), since };
        let older = slot.current.lock().unwrap_or_else(PoisonError::into_inner).reader.replace(turn);
        if let Some(older) = older {
            metrics::lease_changed("superseded");
            older.cancelled.cancel();
        }
        Self { slot, cancelled, since }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut current = self.slot.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.idle_since = Some(Instant::now());
        // Who cancelled this one has taken its place already.
        if !self.cancelled.is_cancelled() {
            current.reader = None;
        }
    }
}

impl Reader {
    /// The lease; a reader has one until the queue is gone.
    pub fn lease(&mut self) -> Option<&mut Lease> {
        self.lease.as_mut()
    }

    /// Cancelled when a newer reader comes, or the server shuts down.
    pub fn cancelled(&self) -> CancellationToken {
        self.claim.cancelled.clone()
    }

    /// The queue is gone: nothing is left to hold.
    pub fn discard(&mut self) {
        *self.lease = None;
    }
}

impl Readers {
    /// Starts letting idle leases lapse until `shutdown`.
    pub fn new(
        instance: InstanceId,
        reply_to: String,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        timings: Timings,
        shutdown: CancellationToken,
    ) -> Self {
        let (slots, asked) = (Mutex::default(), Mutex::default());
        let readers =
            Self(Arc::new(Shared { instance, reply_to, broker, store, timings, shutdown, slots, asked }));
        common::ambient::spawn(readers.clone().sweep());
        readers
    }

    /// Becomes the reader of a user queue, taking it over from whoever reads it now.
    ///
    /// `cursor` confirms everything up to and including that event on the way.
    pub async fn acquire(&self, recipient: Recipient, cursor: Option<EventId>) -> Acquired {
        let slot = self.slot(recipient)?;
        let cancelled = self.0.shutdown.child_token();
        let claim = Claim::new(slot, cancelled.clone());
        let acquire = self.acquire_slot(claim, recipient, cursor);
        let limited = tokio::time::timeout(self.0.timings.take_over, acquire);
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(self.why_cancelled()),
            acquired = limited => acquired.unwrap_or_else(|_| {
                let error = ApiError::new(Code::Unavailable, "another reader does not let go of the events: try again");
                Err(Refused::Failed(error))
            }),
        }
    }

    /// Whether a cancelled reader was superseded or the server shuts down.
    pub fn why_cancelled(&self) -> Refused {
        if self.0.shutdown.is_cancelled() { Refused::ShuttingDown } else { Refused::Superseded }
    }

    /// Takes a message of another instance.
    pub fn handle_peer(&self, message: PeerMessage) {
        match message {
            PeerMessage::LetGo { from, .. } if from == self.0.instance => {}
            PeerMessage::LetGo {
                request_id,
                session_id,
                participant_id,
                endpoint_id,
                cursor,
                age_ms,
                reply_to,
                ..
            } => {
                let recipient =
                    Recipient { session: session_id, participant: participant_id, endpoint: endpoint_id };
                let slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
                let slot = slots.get(&recipient).cloned();
                drop(slots);
                let Some(slot) = slot else { return };
                let readers = self.clone();
                let age = Duration::from_millis(age_ms);
                common::ambient::spawn(async move {
                    if let Some(outcome) = let_go(&slot, cursor, age).await {
                        readers.answer(reply_to, request_id, outcome).await;
                    }
                });
            }
            PeerMessage::LetGoAnswer { request_id, outcome } => {
                let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&request_id);
                if let Some(sender) = asked {
                    let _ = sender.send(outcome);
                }
            }
        }
    }

    fn slot(&self, recipient: Recipient) -> Result<Arc<Slot>, Refused> {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_SLOTS && !slots.contains_key(&recipient) {
            let error =
                ApiError::new(Code::Unavailable, "too many endpoints read their events here: try again");
            return Err(Refused::Failed(error));
        }
        Ok(slots.entry(recipient).or_default().clone())
    }

    async fn acquire_slot(&self, claim: Claim, recipient: Recipient, cursor: Option<EventId>) -> Acquired {
        let mut lease = claim.slot.lease.clone().lock_owned().await;
        // Its inbox would try for long to get the queue back, while the instance that has it now is never asked for it.
        if lease.as_ref().is_some_and(Lease::link_was_lost)
            && let Some(old) = lease.take()
        {
            old.let_go().await;
        }
        let since = claim.since;
        let mut reader = Reader { lease, claim, over: false };
        if let Some(lease) = reader.lease() {
            if let Some(cursor) = cursor {
                reader.over = matches!(lease.confirm(cursor).await, Confirmed::Over(_));
            }
        } else {
            match self.open(recipient, cursor, since).await? {
                Some(lease) => *reader.lease = Some(lease),
                None => reader.over = true,
            }
        }
        if reader.over {
            reader.discard();
        }
        Ok(reader)
    }

    /// Opens the queue, asking other instances to let go of it. `None`: the confirmed event was the last one.
    async fn open(
        &self,
        recipient: Recipient,
        cursor: Option<EventId>,
        since: Instant,
    ) -> Result<Option<Lease>, Refused> {
        let mut pause = FIRST_PAUSE;
        let mut confirmed = cursor.is_none();
        let mut released: Option<Instant> = None;
        loop {
            match Lease::open(recipient, self.0.broker.clone(), self.0.store.clone()).await {
                Ok(mut lease) => {
                    if let (false, Some(cursor)) = (confirmed, cursor) {
                        match lease.catch_up(cursor).await {
                            Ok(Confirmed::Over(_)) => return Ok(None),
                            Ok(_) => {}
                            Err(_) => return Err(Refused::Gone),
                        }
                    }
                    return Ok(Some(lease));
                }
                Err(error) if error.kind == BrokerErrorKind::Unroutable => return Err(Refused::Gone),
                Err(error) if error.kind == BrokerErrorKind::Conflict => {}
                Err(error) => return Err(Refused::Failed(error.into())),
            }
            if released.is_some_and(|at| at.elapsed() < RELEASE_WAIT) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
                continue;
            }
            match self.ask_to_let_go(recipient, cursor, since).await {
                Ok(Some(LetGo::Released)) => {
                    confirmed = true;
                    released = Some(Instant::now());
                    pause = FIRST_PAUSE;
                    metrics::lease_changed("handed_over");
                    continue;
                }
                Ok(Some(LetGo::Over)) => return Ok(None),
                Ok(Some(LetGo::Newer)) => return Err(Refused::Superseded),
                // Nobody answers: a holder that has just let go, or has died; the broker notices the latter.
                Ok(None) => {}
                Err(error) => return Err(Refused::Failed(error.into())),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn ask_to_let_go(
        &self,
        recipient: Recipient,
        cursor: Option<EventId>,
        since: Instant,
    ) -> Result<Option<LetGo>, BrokerError> {
        let request_id = common::ambient::uuid();
        let message = PeerMessage::LetGo {
            request_id,
            session_id: recipient.session,
            participant_id: recipient.participant,
            endpoint_id: recipient.endpoint,
            cursor,
            age_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            from: self.0.instance,
            reply_to: self.0.reply_to.clone(),
        };
        let answer = Asked::new(&self.0, request_id);
        self.0.broker.send(Destination::Exchange(topology::API), envelope(message, request_id)).await?;
        Ok(answer.wait(ANSWER_WAIT).await)
    }

    async fn answer(&self, reply_to: String, request_id: Uuid, outcome: LetGo) {
        let message = envelope(PeerMessage::LetGoAnswer { request_id, outcome }, request_id);
        if let Err(error) = self.0.broker.send(Destination::Queue(&reply_to), message).await {
            // Who asked tries again to open the queue anyway.
            tracing::debug!(error = %error, "an answer between API instances got lost");
        }
    }

    /// Drops leases that nobody read for a while, and slots that hold nothing.
    async fn sweep(self) {
        let period = (self.0.timings.lease_idle / 8).max(Duration::from_millis(10));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.0.shutdown.cancelled() => return self.drop_all().await,
                _ = ticks.tick() => {}
            }
            let slots: Vec<_> =
                self.0.slots.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            for slot in slots {
                lapse(&slot, self.0.timings.lease_idle);
            }
            self.0
                .slots
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, slot| Arc::strong_count(slot) > 1 || !is_empty(slot));
        }
    }

    /// Gives all queues back, so that other instances have them at once.
    async fn drop_all(&self) {
        let slots = std::mem::take(&mut *self.0.slots.lock().unwrap_or_else(PoisonError::into_inner));
        for slot in slots.into_values() {
            if let Some(lease) = slot.lease.lock().await.take() {
                lease.let_go().await;
            }
        }
    }
}

/// Lets go of a queue in favour of a reader on another instance; `None` when nothing is held here.
async fn let_go(slot: &Slot, cursor: Option<EventId>, age: Duration) -> Option<LetGo> {
    {
        let mut current = slot.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &current.reader {
            if reader.since.elapsed() < age {
                return Some(LetGo::Newer);
            }
            metrics::lease_changed("superseded");
            reader.cancelled.cancel();
            current.reader = None;
        }
    }
    let mut held = slot.lease.lock().await;
    let mut lease = held.take()?;
    if let Some(cursor) = cursor
        && matches!(lease.confirm(cursor).await, Confirmed::Over(_))
    {
        return Some(LetGo::Over);
    }
    lease.let_go().await;
    Some(LetGo::Released)
}

fn lapse(slot: &Slot, after: Duration) {
    let idle = {
        let current = slot.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.reader.is_none() && current.idle_since.is_none_or(|since| since.elapsed() >= after)
    };
    if !idle {
        return;
    }
    if let Ok(mut lease) = slot.lease.try_lock()
        && lease.take().is_some()
    {
        metrics::lease_changed("lapsed");
    }
}

fn is_empty(slot: &Slot) -> bool {
    slot.lease.try_lock().is_ok_and(|lease| lease.is_none())
}

fn envelope(message: PeerMessage, request_id: Uuid) -> Message {
    Message {
        body: serde_json::to_vec(&Incoming::Peer { peer: message })
            .expect("a peer message has text keys only"),
        message_id: request_id.to_string(),
        ttl: Some(Duration::from_secs(5)),
    }
}

/// A question whose answer is awaited; forgotten when dropped.
struct Asked<'a> {
    shared: &'a Shared,
    request_id: Uuid,
    answer: oneshot::Receiver<LetGo>,
}

impl<'a> Asked<'a> {
    fn new(shared: &'a Shared, request_id: Uuid) -> Self {
        let (sender, answer) = oneshot::channel();
        shared.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id, sender);
        Self { shared, request_id, answer }
    }

    async fn wait(mut self, limit: Duration) -> Option<LetGo> {
        tokio::time::timeout(limit, &mut self.answer).await.ok()?.ok()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request_id);
    }
}
