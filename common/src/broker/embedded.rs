//! The broker inside this process: the product on one machine, with the promises of [`super`].
//!
//! Everything happens under one short lock in `hub`; there is no task and no timer. What "durable" and "quorum"
//! promise beyond the life of the process is not given: the process is the broker. A clone is the same
//! connection; [`EmbeddedBroker::another_connection`] is what a second process would be.
//!
//! ```
//! # use common::broker::{embedded::EmbeddedBroker, topology, Broker, Destination, InboxOptions, Message};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let broker = EmbeddedBroker::new();
//! broker.declare_queue(&topology::workers_queue()).await.unwrap();
//! let message = Message { body: b"{}".to_vec(), ..Message::default() };
//! broker.send(Destination::Queue(topology::WORKERS), message).await.unwrap();
//! let mut inbox = broker.open_inbox(topology::WORKERS, InboxOptions { prefetch: 1, exclusive: false }).await.unwrap();
//! inbox.next().await.unwrap().acknowledge().await.unwrap();
//! # });
//! ```

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use self::hub::{Hub, OpenedInbox, Outcome, QueueRef, Taken};
use super::metrics::Back;
use super::{
    Broker, BrokerError, BrokerErrorKind, BrokerResult, Delivery, Destination, Inbox, InboxOptions, Message,
    QueueSpec, Settle, check_message, check_name,
};

mod hub;

/// See the module.
#[derive(Clone)]
pub struct EmbeddedBroker {
    connection: Arc<Connection>,
}

/// What exclusive queues and inboxes belong to. Closed by the last handle.
struct Connection {
    id: u64,
    hub: SharedHub,
    connected: watch::Sender<bool>,
}

#[derive(Clone)]
struct SharedHub(Arc<Mutex<Hub>>);

impl SharedHub {
    fn lock(&self) -> MutexGuard<'_, Hub> {
        // The hub's methods do not panic half-way through a change; if one ever did, going on with the
        // other queues is better than failing them all.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Connection {
    fn open(hub: SharedHub) -> Arc<Self> {
        let id = hub.lock().next_id();
        Back::Embedded.connected(true);
        Arc::new(Self { id, hub, connected: watch::Sender::new(true) })
    }

    fn close(&self) {
        if self.connected.send_replace(false) {
            self.hub.lock().close_connection(Instant::now(), self.id);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Default for EmbeddedBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl EmbeddedBroker {
    /// A broker with nothing in it but the dead-letter queue.
    pub fn new() -> Self {
        Self { connection: Connection::open(SharedHub(Arc::new(Mutex::new(Hub::new(Instant::now()))))) }
    }

    /// Another connection to the same queues, with exclusive queues and inboxes of its own and its own `close`.
    pub fn another_connection(&self) -> Self {
        Self { connection: Connection::open(self.connection.hub.clone()) }
    }

    /// The hub, as long as this connection is open.
    fn hub(&self) -> BrokerResult<MutexGuard<'_, Hub>> {
        if *self.connection.connected.borrow() {
            Ok(self.connection.hub.lock())
        } else {
            Err(BrokerError::new(BrokerErrorKind::Unavailable, "the broker was closed"))
        }
    }

    fn try_send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        let (Destination::Queue(name) | Destination::Exchange(name)) = to;
        check_name(name)?;
        check_message(&message)?;
        self.hub()?.send(Instant::now(), to, message)
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        check_name(&queue.name)?;
        self.hub()?.declare_queue(Instant::now(), self.connection.id, queue)
    }

    async fn declare_exchange(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        self.hub()?.declare_exchange(name);
        Ok(())
    }

    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()> {
        check_name(queue)?;
        check_name(exchange)?;
        self.hub()?.bind(Instant::now(), self.connection.id, queue, exchange)
    }

    async fn delete_queue(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        self.hub()?.delete_queue(self.connection.id, name)
    }

    async fn delete_exchange(&self, name: &str) -> BrokerResult<()> {
        check_name(name)?;
        self.hub()?.delete_exchange(name);
        Ok(())
    }

    async fn send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        let result = self.try_send(to, message);
        Back::Embedded.sent(&result);
        result
    }

    async fn waiting(&self, queue: &str) -> BrokerResult<u64> {
        check_name(queue)?;
        self.hub()?.waiting(Instant::now(), queue)
    }

    async fn open_inbox(&self, queue: &str, options: InboxOptions) -> BrokerResult<Box<dyn Inbox>> {
        check_name(queue)?;
        let opened = self.hub()?.open_inbox(Instant::now(), self.connection.id, queue, options)?;
        Ok(Box::new(EmbeddedInbox { hub: self.connection.hub.clone(), opened }))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.connection.connected.subscribe()
    }

    async fn close(&self) {
        self.connection.close();
    }
}

struct EmbeddedInbox {
    hub: SharedHub,
    opened: OpenedInbox,
}

#[async_trait]
impl Inbox for EmbeddedInbox {
    async fn next(&mut self) -> Option<Delivery> {
        let OpenedInbox { queue, inbox, arrival, wake } = &self.opened;
        loop {
            let taken = self.hub.lock().take(Instant::now(), queue, *inbox);
            match taken {
                Taken::Message { message, attempts, sequence } => {
                    let redelivered = attempts > 0;
                    Back::Embedded.delivered(redelivered);
                    let settle = EmbeddedSettle {
                        hub: self.hub.clone(),
                        queue: queue.clone(),
                        inbox: *inbox,
                        sequence,
                        settled: false,
                    };
                    return Some(Delivery {
                        message,
                        redelivered,
                        attempt: attempts.saturating_add(1),
                        settle: Box::new(settle),
                    });
                }
                Taken::Empty => {
                    tokio::select! {
                        biased;
                        () = arrival.notified() => {}
                        () = wake.notified() => {}
                    }
                }
                Taken::AtPrefetch => wake.notified().await,
                Taken::Ended => {
                    // Whatever woke this inbox may have been meant for the next one.
                    arrival.notify_one();
                    return None;
                }
            }
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for EmbeddedInbox {
    fn drop(&mut self) {
        self.hub.lock().close_inbox(Instant::now(), &self.opened.queue, self.opened.inbox);
    }
}

struct EmbeddedSettle {
    hub: SharedHub,
    queue: QueueRef,
    inbox: u64,
    sequence: u64,
    settled: bool,
}

impl EmbeddedSettle {
    fn settle(&mut self, outcome: Outcome) -> BrokerResult<()> {
        self.settled = true;
        self.hub.lock().settle(Instant::now(), &self.queue, self.inbox, self.sequence, outcome)
    }
}

#[async_trait]
impl Settle for EmbeddedSettle {
    async fn acknowledge(&mut self) -> BrokerResult<()> {
        self.settle(Outcome::Acknowledge)
    }

    async fn put_back(&mut self) -> BrokerResult<()> {
        self.settle(Outcome::PutBack)
    }

    async fn dead_letter(&mut self) -> BrokerResult<()> {
        self.settle(Outcome::DeadLetter)
    }
}

impl Drop for EmbeddedSettle {
    fn drop(&mut self) {
        if !self.settled {
            // Fails only when it went back already, with its inbox.
            let _ = self.settle(Outcome::PutBack);
        }
    }
}

#[cfg(test)]
mod tests;
