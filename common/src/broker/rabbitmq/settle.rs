//! What happens to a delivery, and how deliveries are counted where RabbitMQ does not (classic queues).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::Notify;

use super::error::{from_lapin, unavailable};
use super::{Shared, bounded, lock};
use crate::broker::metrics::Back;
use crate::broker::{BrokerErrorKind, BrokerResult, Delivery, Destination, Message, QueueKind, Settle};

/// Our count of deliveries that came back, on messages of classic queues.
const ATTEMPTS: &str = "x-switchyard-attempts";
/// RabbitMQ's own, on messages of quorum queues.
const QUORUM_ATTEMPTS: &str = "x-delivery-count";
/// Pause before a message that could not be given back (its queue is full, or sending is down) comes again.
const PAUSE: Duration = Duration::from_millis(250);

/// What the deliveries of one inbox on one connection share.
pub(super) struct Reader {
    shared: Arc<Shared>,
    queue: String,
    limit: Option<u32>,
    /// The queue has a limit and RabbitMQ does not count for it.
    counts: bool,
    /// An exclusive inbox keeps what is put back and hands it out again.
    keeps: bool,
    /// To be handed out again by this inbox, by delivery tag, which is the order of the queue. RabbitMQ holds
    /// these as unsettled, so nothing is lost with this process.
    kept: Mutex<BTreeMap<u64, Box<Received>>>,
    changed: Notify,
}

/// A message as it came, until it is settled.
struct Received {
    tag: u64,
    message: Arc<Message>,
    attempts: u32,
    acker: Acker,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, queue: &str, exclusive: bool) -> Arc<Self> {
        let limit = lock(&shared.declared).delivery_limit(queue);
        Arc::new(Self {
            shared,
            queue: queue.to_owned(),
            limit: limit.map(|(_, limit)| limit),
            counts: limit.is_some_and(|(kind, _)| kind != QueueKind::Quorum),
            keeps: exclusive,
            kept: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
        })
    }

    /// Waits until something was kept.
    pub(super) async fn kept(&self) {
        self.changed.notified().await;
    }

    pub(super) fn hand_out_kept(self: &Arc<Self>) -> Option<Delivery> {
        let (_, received) = lock(&self.kept).pop_first()?;
        Some(self.hand_out(received, true))
    }

    /// `None` when the message first has to be counted: it comes again.
    pub(super) fn receive(self: &Arc<Self>, delivery: lapin::message::Delivery) -> Option<Delivery> {
        let redelivered = delivery.redelivered;
        let properties = &delivery.properties;
        let expiration = properties.expiration().as_ref();
        let message = Message {
            message_id: properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
            ttl: expiration.and_then(|text| text.as_str().parse().ok()).map(Duration::from_millis),
            body: delivery.data,
        };
        // Events have exclusive readers, and come once for each of them.
        let message = if self.keeps { self.shared.messages.share(message) } else { Arc::new(message) };
        let received = Box::new(Received {
            tag: delivery.delivery_tag,
            attempts: attempts(delivery.properties.headers().as_ref()),
            message,
            acker: delivery.acker,
        });
        if self.counts && redelivered {
            self.shared.runtime.spawn(count(self.clone(), received));
            return None;
        }
        Some(self.hand_out(received, redelivered))
    }

    fn hand_out(self: &Arc<Self>, received: Box<Received>, redelivered: bool) -> Delivery {
        let redelivered = redelivered || received.attempts > 0;
        Back::Rabbit.delivered(redelivered);
        Delivery {
            message: received.message.clone(),
            redelivered,
            attempt: received.attempts.max(u32::from(redelivered)).saturating_add(1),
            settle: Box::new(RabbitSettle { reader: self.clone(), received: Some(received) }),
        }
    }

    fn exhausted(&self, attempts: u32) -> bool {
        self.limit.is_some_and(|limit| attempts >= limit)
    }

    /// Keeps the message for this inbox. Gives it back when it may not come again.
    fn keep(&self, mut received: Box<Received>) -> Result<(), Box<Received>> {
        if self.exhausted(received.attempts.saturating_add(1)) {
            return Err(received);
        }
        received.attempts = received.attempts.saturating_add(1);
        self.keep_as_it_is(received);
        Ok(())
    }

    fn keep_as_it_is(&self, received: Box<Received>) {
        lock(&self.kept).insert(received.tag, received);
        self.changed.notify_one();
    }

    /// Keeps, after a pause, a message that could not be given back. Giving it back uncounted would let it come
    /// for ever; and in a full queue, before all others, so that the queue would stay full.
    fn keep_later(self: Arc<Self>, received: Box<Received>) {
        if received.acker.poisoned() {
            return;
        }
        let runtime = self.shared.runtime.clone();
        runtime.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            if let Err(exhausted) = self.keep(received) {
                // Its move to the dead letters is tried again when it is put back again.
                self.keep_as_it_is(exhausted);
            }
        });
    }

    /// Lets RabbitMQ have the message back, counting the delivery where RabbitMQ does not; or moves it to the dead
    /// letters when it may not come again. On an error nothing has changed.
    async fn give_back(&self, received: &Received) -> BrokerResult<()> {
        if self.counts || self.keeps {
            self.raise_count(received).await
        } else {
            requeue(&received.acker).await
        }
    }

    /// Sends the message again with one more attempt, or to the dead letters, and then removes this one.
    async fn raise_count(&self, received: &Received) -> BrokerResult<()> {
        let attempts = received.attempts.saturating_add(1);
        if self.exhausted(attempts) {
            return self.dead_letter(received).await;
        }
        let mut headers = FieldTable::default();
        headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(i64::from(attempts)));
        match self.shared.send(Destination::Queue(&self.queue), &received.message, headers).await {
            Ok(()) => acknowledge(&received.acker).await,
            // With its queue, the message was deleted.
            Err(error) if error.kind == BrokerErrorKind::Unroutable => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn dead_letter(&self, received: &Received) -> BrokerResult<()> {
        if received.acker.poisoned() {
            return Err(lost());
        }
        self.shared.send_dead_letter(&received.message).await?;
        Back::Rabbit.dead_lettered();
        acknowledge(&received.acker).await
    }
}

/// Raises the count of a message that came back without us having seen it go: with an inbox or a connection.
async fn count(reader: Arc<Reader>, received: Box<Received>) {
    if reader.raise_count(&received).await.is_err() {
        reader.keep_later(received);
    }
}

struct RabbitSettle {
    reader: Arc<Reader>,
    /// Taken when settled. Stays while a call waits, so that dropping the call puts the message back.
    received: Option<Box<Received>>,
}

impl RabbitSettle {
    fn received(&self) -> BrokerResult<&Received> {
        self.received.as_deref().filter(|received| !received.acker.poisoned()).ok_or_else(lost)
    }

    /// Keeps the message, when this inbox does that and it may come again.
    fn keep(&mut self) -> bool {
        if !self.reader.keeps {
            return false;
        }
        match self.received.take().map(|received| self.reader.keep(received)) {
            Some(Err(exhausted)) => {
                self.received = Some(exhausted);
                false
            }
            Some(Ok(())) | None => true,
        }
    }
}

#[async_trait]
impl Settle for RabbitSettle {
    async fn acknowledge(&mut self) -> BrokerResult<()> {
        let result = acknowledge(&self.received()?.acker).await;
        self.received = None;
        result
    }

    async fn put_back(&mut self) -> BrokerResult<()> {
        self.received()?;
        if self.keep() {
            return Ok(());
        }
        let result = self.reader.give_back(self.received()?).await;
        match (self.received.take(), result) {
            (Some(received), Err(_)) if !received.acker.poisoned() => {
                self.reader.clone().keep_later(received);
                Ok(())
            }
            (_, result) => result,
        }
    }

    async fn dead_letter(&mut self) -> BrokerResult<()> {
        let received = self.received()?;
        let result = self.reader.dead_letter(received).await;
        if result.is_ok() {
            self.received = None;
        }
        result
    }
}

impl Drop for RabbitSettle {
    fn drop(&mut self) {
        if self.received().is_err() || self.keep() {
            return;
        }
        if let Some(received) = self.received.take() {
            let reader = self.reader.clone();
            self.reader.shared.runtime.spawn(async move {
                if reader.give_back(&received).await.is_err() {
                    reader.keep_later(received);
                }
            });
        }
    }
}

async fn acknowledge(acker: &Acker) -> BrokerResult<()> {
    settled(acker.ack(BasicAckOptions::default())).await
}

async fn requeue(acker: &Acker) -> BrokerResult<()> {
    settled(acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })).await
}

async fn settled(call: impl Future<Output = lapin::Result<bool>>) -> BrokerResult<()> {
    bounded(async {
        match call.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost()),
            Err(error) => Err(from_lapin("settle a delivery", error)),
        }
    })
    .await
}

fn lost() -> crate::broker::BrokerError {
    unavailable("the delivery was settled before, or went back with its inbox or connection")
}

/// Deliveries that ended without acknowledgement, by whoever counts. What is no such number counts as none.
fn attempts(headers: Option<&FieldTable>) -> u32 {
    let Some(headers) = headers.map(FieldTable::inner) else { return 0 };
    let number = headers.get(ATTEMPTS).or_else(|| headers.get(QUORUM_ATTEMPTS));
    let number = match number {
        Some(AMQPValue::LongLongInt(number)) => *number,
        Some(AMQPValue::LongInt(number)) => i64::from(*number),
        Some(AMQPValue::LongUInt(number)) => i64::from(*number),
        Some(AMQPValue::ShortInt(number)) => i64::from(*number),
        Some(AMQPValue::ShortUInt(number)) => i64::from(*number),
        Some(AMQPValue::ShortShortInt(number)) => i64::from(*number),
        Some(AMQPValue::ShortShortUInt(number)) => i64::from(*number),
        _ => 0,
    };
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, value: AMQPValue) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        table
    }

    #[test]
    fn attempts_are_read_from_either_header_and_nonsense_is_none() {
        assert_eq!(attempts(None), 0);
        assert_eq!(attempts(Some(&table(ATTEMPTS, AMQPValue::LongLongInt(2)))), 2);
        assert_eq!(attempts(Some(&table(QUORUM_ATTEMPTS, AMQPValue::ShortShortUInt(1)))), 1);
        assert_eq!(attempts(Some(&table(ATTEMPTS, AMQPValue::LongLongInt(-1)))), 0);
        assert_eq!(attempts(Some(&table(ATTEMPTS, AMQPValue::LongLongInt(i64::MAX)))), 0);
        assert_eq!(attempts(Some(&table(ATTEMPTS, AMQPValue::LongString("2".into())))), 0);
    }
}
