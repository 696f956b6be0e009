//! The broker over RabbitMQ (AMQP 0-9-1), with the promises of [`super`].
//!
//! ```text
//!  RabbitBroker ── sending link ──▶ connection ── pool of confirming channels ── send
//!        │
//!        └──────── receiving link ─▶ connection ── pool of control channels ──── declare, bind, delete
//!                  (one or more)                └─ one channel per inbox ─────── deliver, settle
//! ```
//!
//! | file | is |
//! |---|---|
//! | `link.rs` | one supervised connection: opens it, notices its loss, reconnects with back-off |
//! | `lease.rs` | channels that are lent to one call at a time |
//! | `sender.rs` | one message out, confirmed |
//! | `declared.rs` | what this process declared, to declare it again; arguments of queues |
//! | `inbox.rs` | a standing reader that outlives connections |
//! | `settle.rs` | what happens to a delivery, and how deliveries are counted |
//! | `error.rs` | lapin's errors as ours |
//!
//! Decisions, with their reasons:
//! - **Reconnecting is ours, not lapin's.** What is re-declared, which errors are final, and what an inbox does
//!   when its queue is gone are promises of this module, and recovery inside the library hides them.
//! - **Two connections**, because RabbitMQ stops reading from connections that send while it is short of memory
//!   or disk: deliveries and acknowledgements go on then.
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
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::declared::Declared;
use self::error::unavailable;
use self::inbox::RabbitInbox;
use self::link::{Link, Live, Place};
use super::metrics::Back;
use super::topology::{DEAD_LETTERS, dead_letters_queue};
use super::{
    Broker, BrokerErrorKind, BrokerResult, Destination, Inbox, InboxOptions, Message, QueueSpec,
    check_message, check_name,
};

mod declared;
mod error;
mod inbox;
mod lease;
mod link;
mod sender;
mod settle;
#[cfg(test)]
mod tests;

/// No call waits longer than this for RabbitMQ; then it is `Unavailable`.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Inboxes on one connection. RabbitMQ allows 2,047 channels; beyond this the next inbox opens another connection.
const INBOXES_PER_CONNECTION: usize = 1_500;

/// A process's connections to RabbitMQ. Dropping it closes them.
pub struct RabbitBroker {
    shared: Arc<Shared>,
}

/// What inboxes and deliveries keep of the broker.
struct Shared {
    sending: Arc<Link>,
    /// Holds this process's exclusive queues; the first of the receiving links.
    receiving: Arc<Link>,
    /// Further receiving links, opened when there are too many inboxes for one connection.
    more: tokio::sync::Mutex<Vec<Arc<Link>>>,
    inboxes_per_connection: usize,
    declared: Arc<Mutex<Declared>>,
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
            Link::open("sending", uri.clone(), closed.clone()),
            Link::open("receiving", uri, closed.clone()),
        )?;
        let shared = Arc::new(Shared {
            sending,
            receiving,
            more: tokio::sync::Mutex::new(Vec::new()),
            inboxes_per_connection,
            declared: Arc::new(Mutex::new(Declared::default())),
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
        let limit = if lock(&shared.declared).is_exclusive(queue) {
            usize::MAX
        } else {
            shared.inboxes_per_connection
        };
        if let Some(place) = shared.receiving.reserve(limit) {
            return Ok(place);
        }
        let mut more = shared.more.lock().await;
        if let Some(place) = more.iter().find_map(|link| link.reserve(limit)) {
            return Ok(place);
        }
        let (link, first) = Link::open("receiving", shared.receiving.uri(), shared.closed.clone()).await?;
        shared.runtime.spawn(link.clone().supervise(first, |_| async { Ok(()) }));
        more.push(link.clone());
        link.reserve(limit).ok_or_else(|| unavailable("no room for another inbox"))
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
        self.runtime.spawn(watch_links(
            self.sending.clone(),
            self.receiving.clone(),
            self.connected.clone(),
            self.closed.clone(),
        ));
    }

    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        let live = self.receiving.live()?;
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

/// Keeps `connected` true while both links are up.
async fn watch_links(
    sending: Arc<Link>,
    receiving: Arc<Link>,
    connected: watch::Sender<bool>,
    closed: CancellationToken,
) {
    let (mut sending, mut receiving) = (sending.watch(), receiving.watch());
    loop {
        let up = sending.borrow_and_update().is_some() && receiving.borrow_and_update().is_some();
        if connected.send_if_modified(|was| std::mem::replace(was, up) != up) {
            Back::Rabbit.connected(up);
        }
        tokio::select! {
            Ok(()) = sending.changed() => {}
            Ok(()) = receiving.changed() => {}
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
        let live = self.shared.receiving.live()?;
        bounded(declared::declare_exchange(&live, name)).await
    }

    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()> {
        check_name(queue)?;
        check_name(exchange)?;
        let live = self.shared.receiving.live()?;
        bounded(declared::bind(&live, queue, exchange)).await?;
        lock(&self.shared.declared).remember_binding(queue, exchange);
        Ok(())
    }

    async fn delete_queue(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        let live = self.shared.receiving.live()?;
        bounded(declared::delete_queue(&live, name)).await?;
        lock(&self.shared.declared).forget_queue(name);
        Ok(())
    }

    async fn delete_exchange(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        let live = self.shared.receiving.live()?;
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
        for link in self.shared.more.lock().await.iter() {
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
