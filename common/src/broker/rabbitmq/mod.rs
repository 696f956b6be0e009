//! The broker over RabbitMQ (AMQP 0-9-1), with the promises of [`super`].
//!
//! ```text
//!  RabbitBroker ─┬─ sending link ──▶ connection ─┬ pool of confirming channels ── send
//!                │  (renewed when worn)          └ pool of control channels ───── declare, bind, delete
//!                ├─ receiving link ─▶ connection ── the same for exclusive queues, and their inboxes
//!                └─ more links ────▶ connections ── one channel per other inbox ── deliver, settle
//! ```
//!
//! | file | is |
//! |---|---|
//! | `link.rs` | one supervised connection: opens it, notices its loss, reconnects with back-off |
//! | `channels.rs` | the channels of one connection, past the ids that are spoilt |
//! | `lease.rs` | channels that are lent to one call at a time |
//! | `sender.rs` | one message out, confirmed |
//! | `declared.rs` | what this process declared, to declare it again; arguments of queues |
//! | `inbox.rs` | a standing reader that outlives connections |
//! | `messages.rs` | one copy of what comes from several queues |
//! | `settle.rs` | what happens to a delivery, and how deliveries are counted |
//! | `error.rs` | lapin's errors as ours |
//!
//! Decisions, with their reasons:
//! - **Reconnecting is ours, not lapin's.** What is re-declared, which errors are final, and what an inbox does
//!   when its queue is gone are promises of this module, and recovery inside the library hides them.
//! - **Several connections.** RabbitMQ stops reading from connections that send while it is short of memory
//!   or disk: deliveries and acknowledgements go on then. And whatever RabbitMQ refuses by closing a channel spoils a
//!   channel of the connection (`channels.rs`): all that may be refused runs on connections that can be replaced, exclusive
//!   queues, which end with their connection, on one where nothing is.
//! - **One message at a time per channel.** A returned message and its confirm carry nothing that ties them to
//!   each other; with one in flight there is nothing to tie. Concurrent senders use different channels of the
//!   pool, so they do not wait for each other's round trip.
//! - **Deliveries are counted** by RabbitMQ for quorum queues. Classic queues do not count: there, a message that
//!   comes back is sent again with one more attempt in a header, behind a confirm, before the old one is
//!   acknowledged. Nothing is lost by that, but it comes back at the end of the queue (and its `ttl` starts
//!   again). Exclusive inboxes keep what is put back and hand it out again themselves, in its old order; so does
//!   any inbox with what it cannot give back now, because the queue is full or sending is down.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use lapin::types::FieldTable;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::declared::Declared;
use self::error::unavailable;
use self::inbox::RabbitInbox;
use self::link::{Link, Live, Place};
use self::messages::Messages;
use super::metrics::Back;
use super::topology::{DEAD_LETTERS, dead_letters_queue};
use super::{
    Broker, BrokerErrorKind, BrokerResult, Destination, Inbox, InboxOptions, Message, QueueKind, QueueSpec,
    check_message, check_name,
};

mod channels;
mod declared;
mod error;
pub mod examine;
mod inbox;
mod lease;
mod link;
mod messages;
mod sender;
mod settle;
#[cfg(test)]
mod tests;

/// No call waits longer than this for RabbitMQ; then it is `Unavailable`.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Inboxes on one connection. RabbitMQ allows 2,047 channels, of which some may be spoilt; beyond this the next inbox opens
/// another connection.
const INBOXES_PER_CONNECTION: usize = 1_400;

/// A process's connections to RabbitMQ. Dropping it closes them.
pub struct RabbitBroker {
    shared: Arc<Shared>,
}

/// What inboxes and deliveries keep of the broker.
struct Shared {
    sending: Arc<Link>,
    /// Holds this process's exclusive queues and their inboxes.
    receiving: Arc<Link>,
    /// The links of the other inboxes: another one is opened when those that there are have no room, or are worn.
    more: Mutex<Vec<Arc<Link>>>,
    /// One is being opened.
    opening: tokio::sync::Mutex<()>,
    /// One of them was lost, or is back, or there is one more or less.
    more_changed: Notify,
    inboxes_per_connection: usize,
    declared: Arc<Mutex<Declared>>,
    /// What exclusive inboxes have out.
    messages: Messages,
    connected: watch::Sender<bool>,
    closed: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl RabbitBroker {
    /// Connects to `amqp://user:password@host:port/vhost` (or `amqps://`). No path and `/` both mean the default
    /// virtual host. Must be called on a tokio runtime, which then carries the connection.
    ///
    /// # Errors
    /// `Unavailable` when RabbitMQ cannot be reached or refuses the credentials, `Internal` when the URL is not
    /// one. No error text contains the password or the URL.
    pub async fn connect(url: &str) -> BrokerResult<Self> {
        Self::connect_with(url, INBOXES_PER_CONNECTION).await
    }

    async fn connect_with(url: &str, inboxes_per_connection: usize) -> BrokerResult<Self> {
        let uri = link::parse(url)?;
        let closed = CancellationToken::new();
        let ((sending, first_sending), (receiving, first_receiving)) = tokio::try_join!(
            Link::open("sending", uri.clone(), true, closed.clone()),
            Link::open("receiving", uri, false, closed.clone()),
        )?;
        let shared = Arc::new(Shared {
            sending,
            receiving,
            more: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            more_changed: Notify::new(),
            inboxes_per_connection,
            declared: Arc::new(Mutex::new(Declared::default())),
            messages: Messages::default(),
            connected: watch::Sender::new(true),
            closed,
            runtime: tokio::runtime::Handle::current(),
        });
        Back::Rabbit.connected(true);
        shared.supervise(first_sending, first_receiving);
        let broker = Self { shared };
        broker.shared.declare_queue(&dead_letters_queue()).await?;
        Ok(broker)
    }

    /// A place for one more inbox: on the connection that holds the queue when it is exclusive, else on the first
    /// with room, else on a new one.
    async fn place_for_inbox(&self, queue: &str) -> BrokerResult<Place> {
        let shared = &self.shared;
        let no_room = || unavailable("no room for another inbox");
        if lock(&shared.declared).is_exclusive(queue) {
            return shared.receiving.reserve(usize::MAX).ok_or_else(no_room);
        }
        if let Some(place) = shared.reserve_more() {
            return Ok(place);
        }
        let _opening = shared.opening.lock().await;
        // Somebody else may have opened one meanwhile.
        if let Some(place) = shared.reserve_more() {
            return Ok(place);
        }
        let (uri, closed) = (shared.receiving.uri(), shared.closed.child_token());
        let (link, first) = Link::open("inboxes", uri, false, closed).await?;
        let place = link.reserve(shared.inboxes_per_connection).ok_or_else(no_room)?;
        shared.runtime.spawn(link.clone().supervise(first, |_| async { Ok(()) }));
        let (watched, told) = (link.clone(), shared.clone());
        shared.runtime.spawn(async move {
            let mut live = watched.watch();
            tokio::select! {
                () = async { while live.changed().await.is_ok() { told.more_changed.notify_one() } } => {}
                () = watched.ended() => {}
            }
        });
        lock(&shared.more).push(link);
        Ok(place)
    }
}

impl Shared {
    fn supervise(self: &Arc<Self>, sending: Arc<Live>, receiving: Arc<Live>) {
        let declared = self.declared.clone();
        self.runtime.spawn(self.sending.clone().supervise(sending, |_| async { Ok(()) }));
        self.runtime.spawn(self.receiving.clone().supervise(receiving, move |live| {
            let declared = declared.clone();
            async move { declared::declare_again(&declared, &live).await }
        }));
        self.runtime.spawn(watch_links(self.clone()));
    }

    /// A place for an inbox on one of the links that are there for those. Ends what nobody needs any more.
    fn reserve_more(&self) -> Option<Place> {
        let mut more = lock(&self.more);
        let before = more.len();
        more.retain(|link| !link.retire());
        if more.len() != before {
            self.more_changed.notify_one();
        }
        let mut fresh = more.iter().filter(|link| !link.is_worn());
        fresh.find_map(|link| link.reserve(self.inboxes_per_connection))
    }

    /// The connection for calls about a queue: an exclusive one belongs to its own.
    fn live_for(&self, is_exclusive: bool) -> BrokerResult<Arc<Live>> {
        if is_exclusive { self.receiving.live() } else { self.sending.live() }
    }

    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        let live = self.live_for(queue.kind == QueueKind::Exclusive)?;
        bounded(declared::declare_queue(&live, queue)).await?;
        lock(&self.declared).remember_queue(queue, Instant::now());
        Ok(())
    }

    /// The dead-letter queue was declared on connecting; somebody may have deleted it since.
    async fn send_dead_letter(&self, message: &Message) -> BrokerResult<()> {
        // It stays for operators although its sender wanted it dropped after a while.
        let message = Message { ttl: None, ..message.clone() };
        let sent = self.send(Destination::Queue(DEAD_LETTERS), &message, FieldTable::default()).await;
        match sent {
            Err(error) if error.kind == BrokerErrorKind::Unroutable => {
                self.declare_queue(&dead_letters_queue()).await?;
                self.send(Destination::Queue(DEAD_LETTERS), &message, FieldTable::default()).await
            }
            sent => sent,
        }
    }

    async fn send(&self, to: Destination<'_>, message: &Message, headers: FieldTable) -> BrokerResult<()> {
        let (Destination::Queue(name) | Destination::Exchange(name)) = to;
        check_name(name)?;
        let live = self.sending.live()?;
        bounded(sender::send(&live, to, message, headers)).await
    }
}

/// Keeps `connected` true while all links are up.
async fn watch_links(shared: Arc<Shared>) {
    let (connected, closed) = (&shared.connected, &shared.closed);
    let (mut sending, mut receiving) = (shared.sending.watch(), shared.receiving.watch());
    loop {
        let more_are_up = lock(&shared.more).iter().all(|link| link.watch().borrow().is_some());
        let up =
            sending.borrow_and_update().is_some() && receiving.borrow_and_update().is_some() && more_are_up;
        if connected.send_if_modified(|was| std::mem::replace(was, up) != up) {
            Back::Rabbit.connected(up);
        }
        tokio::select! {
            Ok(()) = sending.changed() => {}
            Ok(()) = receiving.changed() => {}
            () = shared.more_changed.notified() => {}
            () = closed.cancelled() => break,
        }
    }
    connected.send_replace(false);
    Back::Rabbit.connected(false);
}

/// Gives up after [`CALL_TIMEOUT`].
async fn bounded<T>(call: impl Future<Output = BrokerResult<T>>) -> BrokerResult<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err(unavailable("RabbitMQ did not answer in time")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half-way by a panic.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        check_name(&queue.name)?;
        self.shared.declare_queue(queue).await
    }

    async fn declare_exchange(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        let live = self.shared.live_for(false)?;
        bounded(declared::declare_exchange(&live, name)).await
    }

    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()> {
        check_name(queue)?;
        check_name(exchange)?;
        let is_exclusive = lock(&self.shared.declared).is_exclusive(queue);
        let live = self.shared.live_for(is_exclusive)?;
        bounded(declared::bind(&live, queue, exchange)).await?;
        lock(&self.shared.declared).remember_binding(queue, exchange);
        Ok(())
    }

    async fn delete_queue(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        let is_exclusive = lock(&self.shared.declared).is_exclusive(name);
        let live = self.shared.live_for(is_exclusive)?;
        bounded(declared::delete_queue(&live, name)).await?;
        lock(&self.shared.declared).forget_queue(name);
        Ok(())
    }

    async fn delete_exchange(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        let live = self.shared.live_for(false)?;
        bounded(declared::delete_exchange(&live, name)).await?;
        lock(&self.shared.declared).forget_exchange(name);
        Ok(())
    }

    async fn send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        let result = match check_message(&message) {
            Ok(()) => self.shared.send(to, &message, FieldTable::default()).await,
            Err(refused) => Err(refused),
        };
        Back::Rabbit.sent(&result);
        result
    }

    async fn waiting(&self, queue: &str) -> BrokerResult<u64> {
        check_name(queue)?;
        let is_exclusive = lock(&self.shared.declared).is_exclusive(queue);
        let live = self.shared.live_for(is_exclusive)?;
        bounded(declared::waiting(&live, queue)).await
    }

    async fn open_inbox(&self, queue: &str, options: InboxOptions) -> BrokerResult<Box<dyn Inbox>> {
        check_name(queue)?;
        let place = bounded(self.place_for_inbox(queue)).await?;
        let inbox = RabbitInbox::open(self.shared.clone(), place, queue, options).await?;
        Ok(Box::new(inbox))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.shared.sending.ended().await;
        self.shared.receiving.ended().await;
        let more = std::mem::take(&mut *lock(&self.shared.more));
        for link in more {
            link.ended().await;
        }
        self.shared.connected.send_replace(false);
    }
}

impl Drop for RabbitBroker {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
