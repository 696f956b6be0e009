//! The broker's promises, and two implementations of them: RabbitMQ and embedded.
//!
//! # Promises (an implementation may be stronger, never weaker; the conformance suite checks them)
//!
//! - **Confirmed:** [`Broker::send`] returns `Ok` only once the message is in every queue it is routed to
//!   (publisher confirm). A queue that is durable keeps it over a broker restart.
//! - **Competing:** of several inboxes on one queue exactly one gets each message, at least once.
//! - **Settled:** a delivery is removed only by [`Delivery::acknowledge`]. Dropping it, its inbox or the
//!   connection puts it back at its old place, to be delivered again with `redelivered`.
//! - **Ordered:** messages from one sender task to one queue arrive in the order of its completed sends, and
//!   messages put back come before those behind them. Two relaxations: with competing inboxes, what another
//!   inbox (or this one's prefetch) already holds may overtake; and a message of a queue with a
//!   `delivery_limit` may come back behind the others, unless the inbox is exclusive.
//! - **Fanout:** a message to an exchange goes to every queue bound at that time; no queue is not an error.
//! - **Unroutable:** a message straight to a queue that does not exist, or to an exchange that does not exist,
//!   comes back as [`BrokerErrorKind::Unroutable`]: its owner is gone.
//! - **Expiry:** a queue with `expires` disappears after that time without inbox; a message with `ttl`
//!   disappears when it waited that long.
//! - **Bounded:** a queue at `max_length` refuses ([`BrokerErrorKind::Full`]), it never grows without end. For
//!   an exchange, a full queue loses its oldest message instead, so that one idle client cannot stop the others:
//!   queues to be bound are declared with [`WhenFull::DropOldest`]. (A [`WhenFull::Refuse`] queue that is bound
//!   loses the newcomer, and its sender gets `Full`, although the other queues have it.) What counts is what
//!   waits; deliveries that are out do not.
//! - **Poison:** a message put back `delivery_limit` times goes to the dead-letter queue, which always exists.
//!   Being put back by the loss of an inbox or connection counts too.
//! - **Exclusive inbox:** with [`InboxOptions::exclusive`], a second inbox on the queue is refused with
//!   [`BrokerErrorKind::Conflict`] as long as the first lives.
//! - **Recovery:** after a lost connection the implementation reconnects by itself, re-declares what this process
//!   declared and re-opens its inboxes; calls meanwhile fail with [`BrokerErrorKind::Unavailable`] within
//!   a bounded time.
//!
//! Cancellation: dropping a `send` future may or may not have sent. Dropping `Inbox::next` loses nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

#[cfg(any(test, feature = "testsuite"))]
pub mod conformance;
pub mod embedded;
pub mod metrics;
#[cfg(feature = "servers")]
pub mod rabbitmq;
pub mod topology;

/// Once the broker can be reached again, every process that lives is connected to it, with its exclusive queues
/// declared, within this: an implementation tries at least every 5 s, and gives each try as long at most.
pub const RECONNECT_BOUND: Duration = Duration::from_secs(15);

/// Longest name of a queue or exchange, in bytes (AMQP 0-9-1 short string).
pub const MAX_NAME_BYTES: usize = 255;
/// Largest message body. Far above any command or event, and what keeps `max_length` messages from being
/// any amount of memory.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Refuses names and bodies that no implementation could carry.
fn check_name(name: &str) -> BrokerResult<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with("amq.") {
        // The name itself is not repeated: it may be long, and may come from outside.
        return Err(BrokerError::new(
            BrokerErrorKind::Internal,
            "a queue or exchange name must have 1 to 255 bytes and not start with \"amq.\"",
        ));
    }
    Ok(())
}

fn check_message(message: &Message) -> BrokerResult<()> {
    if message.body.len() > MAX_BODY_BYTES {
        return Err(BrokerError::new(BrokerErrorKind::Internal, "message body is above 4 MiB"));
    }
    if message.message_id.len() > MAX_NAME_BYTES {
        return Err(BrokerError::new(BrokerErrorKind::Internal, "message id is above 255 bytes"));
    }
    Ok(())
}

/// What kind of queue; RabbitMQ needs to know, the embedded broker mostly does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// Replicated and durable.
    Quorum,
    /// Durable, on one node.
    Durable,
    /// Belongs to the declaring connection and goes with it.
    Exclusive,
}

/// A queue and its limits. Declaring it again with the same values does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueSpec {
    pub name: String,
    pub kind: QueueKind,
    /// Removed after this long without an inbox.
    pub expires: Option<Duration>,
    pub max_length: u32,
    /// Deliveries after which a message goes to [`topology::DEAD_LETTERS`].
    pub delivery_limit: Option<u32>,
    /// At `max_length`: refuse the newcomer, or lose the oldest (user queues, fed by fanout).
    pub when_full: WhenFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenFull {
    Refuse,
    DropOldest,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Straight into a queue; unroutable when it does not exist.
    Queue(&'a str),
    /// To every queue bound to the exchange.
    Exchange(&'a str),
}

/// A message as bytes (JSON by our convention) with its transport properties.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    pub body: Vec<u8>,
    /// Names the message in logs and replies: a command or event id.
    pub message_id: String,
    /// Dropped after waiting this long.
    pub ttl: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxOptions {
    /// Unsettled deliveries that may be out at once; at least 1.
    pub prefetch: u16,
    pub exclusive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokerErrorKind {
    /// Not reachable now; retry later.
    Unavailable,
    /// No such queue.
    Unroutable,
    /// Another inbox has it exclusively, or it was declared otherwise.
    Conflict,
    /// The queue is at its limit.
    Full,
    Internal,
}

#[derive(Debug, thiserror::Error)]
#[error("broker {kind:?}: {message}")]
pub struct BrokerError {
    pub kind: BrokerErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BrokerErrorKind {
    /// Whether the same call may succeed later without anything else being done.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Full)
    }
}

impl BrokerError {
    pub fn new(kind: BrokerErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// With the error below it, for logs.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

pub type BrokerResult<T> = Result<T, BrokerError>;

/// A connection to the broker, shared by everything in one process.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()>;
    async fn declare_exchange(&self, name: &str) -> BrokerResult<()>;
    /// `Unroutable` when either side does not exist.
    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()>;
    /// Removes it with all its messages; its inboxes end. No such queue is not an error.
    async fn delete_queue(&self, name: &str) -> BrokerResult<()>;
    async fn delete_exchange(&self, name: &str) -> BrokerResult<()>;
    async fn send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()>;
    /// How many messages wait in a queue, without those that are out at readers; for people, a moment later it is
    /// another number. `Unroutable` when the queue does not exist.
    async fn waiting(&self, queue: &str) -> BrokerResult<u64>;
    /// `Unroutable` when the queue does not exist.
    async fn open_inbox(&self, queue: &str, options: InboxOptions) -> BrokerResult<Box<dyn Inbox>>;
    /// Whether the broker is reachable now, and its changes.
    fn connected(&self) -> watch::Receiver<bool>;
    /// Closes the connection; everything unsettled goes back.
    async fn close(&self);
}

/// A standing reader of one queue. Dropping it ends it and puts back what is unsettled.
#[async_trait]
pub trait Inbox: Send {
    /// Waits for the next delivery. `None` when the queue was deleted or the broker closed for good.
    async fn next(&mut self) -> Option<Delivery>;
    /// Ends it like dropping does, and waits until the broker knows: an exclusive inbox opened after that,
    /// here or in another process, is not refused. Bounded in time.
    async fn close(self: Box<Self>);
}

/// One message to be settled. Dropping it puts it back.
pub struct Delivery {
    /// Shared with whatever else holds it: a fanned-out event may be out in hundreds of queues at once.
    pub message: Arc<Message>,
    /// It was (perhaps) delivered before.
    pub redelivered: bool,
    /// Which try this is: 1, and one more for every [`Delivery::put_back`] before it. On a queue with a
    /// `delivery_limit`, putting back the delivery whose attempt equals the limit sends it to the dead-letter
    /// queue. Exact on such queues; elsewhere an implementation may answer 1 or 2 by `redelivered`.
    pub attempt: u32,
    pub settle: Box<dyn Settle>,
}

impl Delivery {
    /// Removes it from the queue. An acknowledgement under way when the connection breaks may be lost although
    /// it succeeded: the message then comes again, with `redelivered`.
    ///
    /// # Errors
    /// `Unavailable` when the delivery went back meanwhile (its inbox or connection is gone): it comes again.
    pub async fn acknowledge(mut self) -> BrokerResult<()> {
        self.settle.acknowledge().await
    }

    /// Puts it back at its old place, counting one delivery.
    ///
    /// # Errors
    /// `Unavailable` when it is back already.
    pub async fn put_back(mut self) -> BrokerResult<()> {
        self.settle.put_back().await
    }

    /// Sends it to the dead-letter queue. On an error it is put back.
    ///
    /// # Errors
    /// `Unavailable` when it is back already or the dead-letter queue cannot be reached now.
    pub async fn dead_letter(mut self) -> BrokerResult<()> {
        self.settle.dead_letter().await
    }
}

/// How an implementation settles a delivery; dropping it unsettled puts the message back.
#[async_trait]
pub trait Settle: Send + Sync {
    async fn acknowledge(&mut self) -> BrokerResult<()>;
    async fn put_back(&mut self) -> BrokerResult<()>;
    async fn dead_letter(&mut self) -> BrokerResult<()>;
}
