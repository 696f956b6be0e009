//! What this process declared, to declare it again after a loss; and how our queues read in AMQP.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::Instant;

use super::error::from_lapin;
use super::link::Live;
use super::lock;
use super::sender::milliseconds;
use crate::broker::topology::{DEAD_LETTERS, known_delivery_limit};
use crate::broker::{BrokerErrorKind, BrokerResult, QueueKind, QueueSpec, WhenFull};

/// Declarations under way at once after a loss.
const DECLARATIONS_AT_ONCE: usize = 16;
/// Below this many queues nothing is looked through for what can be forgotten.
const FEW_QUEUES: usize = 1_024;

/// The queues of this process and their bindings. A queue that expires is forgotten when RabbitMQ has forgotten
/// it too (not declared and without inbox of ours for that long), so this does not grow with every session there
/// ever was. Exchanges are remembered through what is bound to them.
#[derive(Default)]
pub(super) struct Declared {
    queues: HashMap<String, Known>,
    /// Number of queues at which to look for what can be forgotten.
    crowded: usize,
}

struct Known {
    spec: QueueSpec,
    bound_to: BTreeSet<String>,
    inboxes: usize,
    used_at: Instant,
}

impl Known {
    fn expired(&self, now: Instant) -> bool {
        let Some(expires) = self.spec.expires else { return false };
        self.inboxes == 0 && self.used_at.checked_add(expires).is_some_and(|at| at <= now)
    }
}

impl Declared {
    pub(super) fn remember_queue(&mut self, spec: &QueueSpec, now: Instant) {
        if self.queues.len() >= self.crowded.max(FEW_QUEUES) {
            self.queues.retain(|_, known| !known.expired(now));
            self.crowded = self.queues.len() * 2;
        }
        self.queues.entry(spec.name.clone()).and_modify(|known| known.used_at = now).or_insert_with(|| {
            Known { spec: spec.clone(), bound_to: BTreeSet::new(), inboxes: 0, used_at: now }
        });
    }

    pub(super) fn remember_binding(&mut self, queue: &str, exchange: &str) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.bound_to.insert(exchange.to_owned());
        }
    }

    pub(super) fn forget_queue(&mut self, queue: &str) {
        self.queues.remove(queue);
    }

    pub(super) fn forget_exchange(&mut self, exchange: &str) {
        for known in self.queues.values_mut() {
            known.bound_to.remove(exchange);
        }
    }

    pub(super) fn inbox_opened(&mut self, queue: &str) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.inboxes += 1;
        }
    }

    pub(super) fn inbox_closed(&mut self, queue: &str, now: Instant) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.inboxes = known.inboxes.saturating_sub(1);
            known.used_at = now;
        }
    }

    /// The kind and delivery limit of a queue, when it has a limit.
    pub(super) fn delivery_limit(&self, queue: &str) -> Option<(QueueKind, u32)> {
        match self.queues.get(queue) {
            Some(known) => known.spec.delivery_limit.map(|limit| (known.spec.kind, limit)),
            None => known_delivery_limit(queue),
        }
    }

    pub(super) fn is_exclusive(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|known| known.spec.kind == QueueKind::Exclusive)
    }

    fn living(&self, now: Instant) -> Vec<(QueueSpec, Vec<String>)> {
        self.queues
            .values()
            .filter(|known| !known.expired(now))
            .map(|known| (known.spec.clone(), known.bound_to.iter().cloned().collect()))
            .collect()
    }
}

/// Declares on a new connection what this process declared on the one before.
///
/// # Errors
/// `Unavailable` when the connection does not carry it through, or when RabbitMQ has not yet noticed that the
/// old connection, which holds an exclusive queue, is dead. What is refused for good (somebody
/// declared the queue otherwise meanwhile) is logged and left out, so that it does not keep the rest down.
pub(super) async fn declare_again(declared: &Arc<Mutex<Declared>>, live: &Arc<Live>) -> BrokerResult<()> {
    let mut living = lock(declared).living(Instant::now());
    // What is missing of a process that lives is what others take for a sign of its death: that first.
    living.sort_by_key(|(spec, _)| spec.kind != QueueKind::Exclusive);
    let mut results = futures::stream::iter(living)
        .map(|(spec, exchanges)| async move { declare_one_again(live, &spec, &exchanges).await })
        .buffer_unordered(DECLARATIONS_AT_ONCE);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(())
}

async fn declare_one_again(live: &Live, spec: &QueueSpec, exchanges: &[String]) -> BrokerResult<()> {
    let result: BrokerResult<()> = async {
        declare_queue(live, spec).await?;
        for exchange in exchanges {
            declare_exchange(live, exchange).await?;
            bind(live, &spec.name, exchange).await?;
        }
        Ok(())
    }
    .await;
    match result {
        Err(error) if error.kind == BrokerErrorKind::Conflict && spec.kind != QueueKind::Exclusive => {
            tracing::error!(queue = spec.name, %error, "a queue was declared otherwise while RabbitMQ was away");
            Ok(())
        }
        result => result,
    }
}

pub(super) async fn declare_queue(live: &Live, spec: &QueueSpec) -> BrokerResult<()> {
    let (options, arguments) = queue_arguments(spec);
    let channel = live.control.lease(live).await?;
    channel
        .queue_declare(spec.name.as_str().into(), options, arguments)
        .await
        .map_err(|error| from_lapin("declare a queue", error))?;
    channel.give_back();
    Ok(())
}

/// Asks by a declaration that makes nothing. One that finds no queue costs its channel, which then is not given back.
pub(super) async fn waiting(live: &Live, name: &str) -> BrokerResult<u64> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let channel = live.control.lease(live).await?;
    let queue = channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await
        .map_err(|error| from_lapin("look at a queue", error))?;
    channel.give_back();
    Ok(queue.message_count().into())
}

pub(super) async fn declare_exchange(live: &Live, name: &str) -> BrokerResult<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let channel = live.control.lease(live).await?;
    channel
        .exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default())
        .await
        .map_err(|error| from_lapin("declare an exchange", error))?;
    channel.give_back();
    Ok(())
}

pub(super) async fn bind(live: &Live, queue: &str, exchange: &str) -> BrokerResult<()> {
    let channel = live.control.lease(live).await?;
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|error| from_lapin("bind a queue", error))?;
    channel.give_back();
    Ok(())
}

pub(super) async fn delete_queue(live: &Live, name: &str) -> BrokerResult<()> {
    let channel = live.control.lease(live).await?;
    channel
        .queue_delete(name.into(), QueueDeleteOptions::default())
        .await
        .map_err(|error| from_lapin("delete a queue", error))?;
    channel.give_back();
    Ok(())
}

pub(super) async fn delete_exchange(live: &Live, name: &str) -> BrokerResult<()> {
    let channel = live.control.lease(live).await?;
    channel
        .exchange_delete(name.into(), ExchangeDeleteOptions::default())
        .await
        .map_err(|error| from_lapin("delete an exchange", error))?;
    channel.give_back();
    Ok(())
}

/// A queue in RabbitMQ's terms. Every process must come to the same, or RabbitMQ refuses the second.
fn queue_arguments(spec: &QueueSpec) -> (QueueDeclareOptions, FieldTable) {
    let options = QueueDeclareOptions {
        durable: spec.kind != QueueKind::Exclusive,
        exclusive: spec.kind == QueueKind::Exclusive,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    let mut set = |name: &str, value: AMQPValue| {
        arguments.insert(name.into(), value);
    };
    set("x-max-length", AMQPValue::LongLongInt(i64::from(spec.max_length.max(1))));
    let overflow = match spec.when_full {
        WhenFull::Refuse => "reject-publish",
        WhenFull::DropOldest => "drop-head",
    };
    set("x-overflow", AMQPValue::LongString(overflow.into()));
    if let Some(expires) = spec.expires {
        set("x-expires", AMQPValue::LongLongInt(i64::from(milliseconds(expires))));
    }
    if spec.kind == QueueKind::Quorum {
        set("x-queue-type", AMQPValue::LongString("quorum".into()));
        if let Some(limit) = spec.delivery_limit {
            // RabbitMQ moves a message when it came back more often than the limit, we when as often. With a
            // dead-letter exchange, what expires goes to the dead letters too.
            set("x-delivery-limit", AMQPValue::LongLongInt(i64::from(limit.saturating_sub(1))));
            set("x-dead-letter-exchange", AMQPValue::LongString("".into()));
            set("x-dead-letter-routing-key", AMQPValue::LongString(DEAD_LETTERS.into()));
        }
    }
    (options, arguments)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spec(name: &str, expires: Option<Duration>) -> QueueSpec {
        QueueSpec {
            name: name.to_owned(),
            kind: QueueKind::Durable,
            expires,
            max_length: 10,
            delivery_limit: None,
            when_full: WhenFull::DropOldest,
        }
    }

    fn names(declared: &Declared, now: Instant) -> Vec<String> {
        let mut names: Vec<_> = declared.living(now).into_iter().map(|(spec, _)| spec.name).collect();
        names.sort();
        names
    }

    #[test]
    fn an_expired_queue_is_not_declared_again_unless_its_inbox_kept_it() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut declared = Declared::default();
        declared.remember_queue(&spec("idle", Some(minute)), start);
        declared.remember_queue(&spec("read", Some(minute)), start);
        declared.remember_queue(&spec("stays", None), start);
        declared.inbox_opened("read");
        assert_eq!(names(&declared, start + minute / 2), ["idle", "read", "stays"]);
        assert_eq!(names(&declared, start + 2 * minute), ["read", "stays"]);
        declared.inbox_closed("read", start + 2 * minute);
        assert_eq!(names(&declared, start + 2 * minute), ["read", "stays"]);
        assert_eq!(names(&declared, start + 3 * minute), ["stays"]);
    }

    #[test]
    fn memory_is_bounded_by_what_lives_at_the_same_time() {
        let start = Instant::now();
        let mut declared = Declared::default();
        for second in 0..50_000_u64 {
            let now = start + Duration::from_secs(second);
            declared.remember_queue(&spec(&second.to_string(), Some(Duration::from_secs(100))), now);
            assert!(declared.queues.len() <= FEW_QUEUES, "{}", declared.queues.len());
        }
    }

    #[test]
    fn bindings_are_declared_again_until_either_side_is_deleted() {
        let now = Instant::now();
        let mut declared = Declared::default();
        declared.remember_queue(&spec("a", None), now);
        declared.remember_binding("a", "x");
        declared.remember_binding("a", "y");
        declared.remember_binding("unknown", "x");
        assert_eq!(declared.living(now)[0].1, ["x", "y"]);
        declared.forget_exchange("x");
        assert_eq!(declared.living(now)[0].1, ["y"]);
        declared.forget_queue("a");
        assert!(declared.living(now).is_empty());
    }
}
