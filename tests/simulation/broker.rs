//! The embedded broker as one process reaches it: over a link that takes time, breaks and is mended, with the topology
//! declared again and the inboxes opened again as the RabbitMQ implementation does it.
//!
//! Messages of different queues overtake each other by the time that sends and deliveries take; within a queue nothing
//! does. A confirmation may get lost after the message is in its queue, and a command may arrive a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use common::broker::embedded::EmbeddedBroker;
use common::broker::{
    Broker, BrokerError, BrokerErrorKind, BrokerResult, Delivery, Destination, Inbox, InboxOptions, Message,
    QueueKind, QueueSpec, Settle,
};
use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::process::Process;
use crate::world::{Sabotage, World};

/// As long as RabbitMQ's client looks for a queue that is missing after a loss.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// As long as it waits for a queue that another one has.
const CONFLICT_PATIENCE: Duration = Duration::from_secs(30);
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// How soon a call fails while there is no connection.
const REFUSED_AFTER: Duration = Duration::from_millis(5);

/// A process's connection to the broker, and what it declared on it.
pub struct Link {
    world: Weak<World>,
    state: Mutex<LinkState>,
    connected: watch::Sender<bool>,
    changed: Notify,
}

struct LinkState {
    connection: Option<EmbeddedBroker>,
    /// Counts connections.
    generation: u64,
    declared: BTreeMap<String, (QueueSpec, BTreeSet<String>)>,
    /// The process is dead: there will be no other connection.
    ended: bool,
    /// It cannot reach the broker although that runs.
    cut: bool,
    /// What a dead process had open, until the broker notices.
    limbo: Vec<Box<dyn Send>>,
}

impl Link {
    pub fn open(world: &Arc<World>) -> Arc<Self> {
        let link = Self {
            world: Arc::downgrade(world),
            state: Mutex::new(LinkState {
                connection: None,
                generation: 0,
                declared: BTreeMap::new(),
                ended: false,
                cut: false,
                limbo: Vec::new(),
            }),
            connected: watch::Sender::new(false),
            changed: Notify::new(),
        };
        link.mend();
        Arc::new(link)
    }

    fn live(&self) -> Option<(EmbeddedBroker, u64)> {
        let state = self.state.lock().unwrap();
        state.connection.clone().map(|connection| (connection, state.generation))
    }

    fn generation(&self) -> u64 {
        self.state.lock().unwrap().generation
    }

    /// The connection breaks; what is unsettled goes back, what is exclusive goes.
    pub fn break_off(&self) {
        let connection = {
            let mut state = self.state.lock().unwrap();
            state.generation += 1;
            state.connection.take()
        };
        if let Some(connection) = connection {
            at_once(connection.close());
        }
        self.connected.send_replace(false);
        self.changed.notify_waiters();
    }

    /// No new connection until it is mended, or one as soon as may be.
    pub fn set_cut(&self, cut: bool) {
        self.state.lock().unwrap().cut = cut;
        if cut {
            self.break_off();
        } else {
            self.mend();
        }
    }

    /// Connects again if that is possible, and declares again what was declared.
    pub fn mend(&self) {
        let Some(world) = self.world.upgrade() else { return };
        {
            let mut state = self.state.lock().unwrap();
            if state.ended || state.cut || state.connection.is_some() || world.broker_is_down() {
                return;
            }
            let connection = world.broker.another_connection();
            for (spec, exchanges) in state.declared.values() {
                // Refused when another process has taken the name: then it is that one's.
                if at_once(connection.declare_queue(spec)).is_err() {
                    continue;
                }
                world.ledger().queue_declared(&spec.name);
                for exchange in exchanges {
                    let _ = at_once(connection.declare_exchange(exchange));
                    let _ = at_once(connection.bind(&spec.name, exchange));
                    world.ledger().exchange_declared(exchange);
                    world.ledger().bound(&spec.name, exchange);
                }
            }
            state.generation += 1;
            state.connection = Some(connection);
        }
        self.connected.send_replace(true);
        self.changed.notify_waiters();
    }

    /// The process is no more, and the broker knows it.
    pub fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.break_off();
        let limbo = std::mem::take(&mut self.state.lock().unwrap().limbo);
        drop(limbo);
    }

    /// Drops what a process had open: at once while it lives, else when the broker notices its death.
    fn let_go(&self, process: &Process, open: impl Send + 'static) {
        let mut state = self.state.lock().unwrap();
        if !process.is_alive() && !state.ended {
            state.limbo.push(Box::new(open));
        }
    }
}

/// The embedded broker answers without waiting.
pub fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the embedded broker and store do not wait")
}

fn unavailable(what: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, what)
}

/// See the module. Clones are one connection.
#[derive(Clone)]
pub struct SimBroker {
    process: Arc<Process>,
}

impl SimBroker {
    pub fn of(process: &Arc<Process>) -> Self {
        Self { process: process.clone() }
    }

    /// One call: its way to the broker, its effect, and the way of its answer.
    async fn act<T>(
        &self,
        effect: impl FnOnce(&EmbeddedBroker, &World) -> BrokerResult<T>,
    ) -> BrokerResult<T> {
        self.process.before().await;
        let Some((connection, generation)) = self.process.link.live() else {
            tokio::time::sleep(REFUSED_AFTER).await;
            return Err(unavailable("no connection"));
        };
        let result = effect(&connection, &self.process.world());
        drop(connection);
        self.process.after().await;
        if self.process.link.generation() != generation {
            return Err(unavailable("the connection broke before the answer"));
        }
        result
    }

    fn declared<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, (QueueSpec, BTreeSet<String>)>) -> T,
    ) -> T {
        change(&mut self.process.link.state.lock().unwrap().declared)
    }
}

#[async_trait]
impl Broker for SimBroker {
    async fn declare_queue(&self, queue: &QueueSpec) -> BrokerResult<()> {
        self.act(|connection, world| {
            at_once(connection.declare_queue(queue))?;
            world.ledger().queue_declared(&queue.name);
            self.declared(|declared| {
                declared.entry(queue.name.clone()).or_insert_with(|| (queue.clone(), BTreeSet::new()));
            });
            Ok(())
        })
        .await
    }

    async fn declare_exchange(&self, name: &str) -> BrokerResult<()> {
        self.act(|connection, world| {
            at_once(connection.declare_exchange(name))?;
            world.ledger().exchange_declared(name);
            Ok(())
        })
        .await
    }

    async fn bind(&self, queue: &str, exchange: &str) -> BrokerResult<()> {
        self.act(|connection, world| {
            at_once(connection.bind(queue, exchange))?;
            world.ledger().bound(queue, exchange);
            self.declared(|declared| {
                if let Some((_, exchanges)) = declared.get_mut(queue) {
                    exchanges.insert(exchange.to_owned());
                }
            });
            Ok(())
        })
        .await
    }

    async fn delete_queue(&self, name: &str) -> BrokerResult<()> {
        self.act(|connection, world| {
            at_once(connection.delete_queue(name))?;
            self.process.note(|| format!("delete queue {name}"));
            world.ledger().queue_deleted(name);
            self.declared(|declared| drop(declared.remove(name)));
            Ok(())
        })
        .await
    }

    async fn delete_exchange(&self, name: &str) -> BrokerResult<()> {
        self.act(|connection, world| {
            at_once(connection.delete_exchange(name))?;
            self.process.note(|| format!("delete exchange {name}"));
            world.ledger().exchange_deleted(name);
            self.declared(|declared| {
                for (_, exchanges) in declared.values_mut() {
                    exchanges.remove(name);
                }
            });
            Ok(())
        })
        .await
    }

    async fn send(&self, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        let ping = message.body.is_empty();
        let result = self
            .act(|connection, world| {
                let sent = send(world, connection, to, &message);
                if !ping {
                    self.process.note(|| format!("send {to:?} {} {}", message.message_id, outcome(&sent)));
                }
                sent
            })
            .await;
        let world = self.process.world();
        if result.is_ok() && !ping && world.befalls(world.weather.lost_confirms) {
            self.process.note(|| format!("confirmation of {} lost", message.message_id));
            return Err(unavailable("the confirmation was lost"));
        }
        if let (Ok(()), Destination::Queue(queue)) = (&result, to)
            && is_command_queue(queue)
            && world.befalls(world.weather.repeats)
        {
            repeat_later(&world, queue.to_owned(), message);
        }
        result
    }

    async fn waiting(&self, queue: &str) -> BrokerResult<u64> {
        self.act(|connection, _| at_once(connection.waiting(queue))).await
    }

    async fn open_inbox(&self, queue: &str, options: InboxOptions) -> BrokerResult<Box<dyn Inbox>> {
        let inner = self.act(|connection, _| at_once(connection.open_inbox(queue, options))).await?;
        self.process.note(|| format!("inbox {queue} open"));
        Ok(Box::new(SimInbox {
            broker: self.clone(),
            queue: queue.to_owned(),
            options,
            generation: self.process.link.generation(),
            inner: Some(inner),
            on_its_way: None,
            lost_since: None,
        }))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.process.link.connected.subscribe()
    }

    async fn close(&self) {
        self.process.link.end();
    }
}

fn outcome(result: &BrokerResult<()>) -> String {
    result.as_ref().map_or_else(|error| format!("{:?}", error.kind), |()| "ok".to_owned())
}

fn is_command_queue(queue: &str) -> bool {
    ["workers", "session.", "worker."].iter().any(|prefix| queue.starts_with(prefix))
}

/// The message is in its queues from here on, and in the ledger.
fn send(
    world: &World,
    connection: &EmbeddedBroker,
    to: Destination<'_>,
    message: &Message,
) -> BrokerResult<()> {
    if let (Destination::Exchange(exchange), Some(Sabotage::FanoutIncomplete)) = (to, world.sabotage) {
        let queues = world.ledger().queues_of(exchange);
        if queues.len() > 1 && world.random().per_mille(100) {
            for queue in &queues[1..] {
                let _ = at_once(connection.send(Destination::Queue(queue), message.clone()));
            }
            world.ledger().sent(to, message);
            return Ok(());
        }
    }
    at_once(connection.send(to, message.clone()))?;
    world.ledger().sent(to, message);
    Ok(())
}

fn repeat_later(world: &Arc<World>, queue: String, message: Message) {
    let (world, delay) = (world.clone(), world.random().millis(1, 1_500));
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let repeated = send(&world, &world.broker, Destination::Queue(&queue), &message);
        world.note("world", || format!("repeats {} to {queue}: {}", message.message_id, outcome(&repeated)));
    });
}

struct SimInbox {
    broker: SimBroker,
    queue: String,
    options: InboxOptions,
    /// Of the connection that `inner` is on.
    generation: u64,
    inner: Option<Box<dyn Inbox>>,
    /// Taken from the queue, and when it arrives.
    on_its_way: Option<(Delivery, Instant)>,
    /// The connection was lost then, and the inbox is not open again.
    lost_since: Option<Instant>,
}

impl SimInbox {
    fn lost(&mut self) {
        self.inner = None;
        self.on_its_way = None;
        self.lost_since.get_or_insert_with(Instant::now);
    }

    /// Opens it anew. `false`: it has ended for good.
    async fn reopen(&mut self) -> bool {
        let link = &self.broker.process.link;
        let changed = link.changed.notified();
        let Some((connection, generation)) = link.live() else {
            changed.await;
            return true;
        };
        self.broker.process.before().await;
        let waited = self.lost_since.map_or(Duration::ZERO, |since| since.elapsed());
        match at_once(connection.open_inbox(&self.queue, self.options)) {
            Ok(inner) => {
                (self.inner, self.generation, self.lost_since) = (Some(inner), generation, None);
                self.broker.process.note(|| format!("inbox {} open again", self.queue));
                return true;
            }
            Err(error) if error.kind == BrokerErrorKind::Unroutable && waited >= QUEUE_PATIENCE => {
                return false;
            }
            Err(error) if error.kind == BrokerErrorKind::Conflict && waited >= CONFLICT_PATIENCE => {
                return false;
            }
            Err(_) => {}
        }
        drop(connection);
        tokio::time::sleep(REOPEN_PAUSE).await;
        true
    }

    /// With the order of a queue sabotaged, the second of two comes first.
    fn swapped(&mut self, delivery: Delivery) -> Delivery {
        let world = self.broker.process.world();
        if world.sabotage != Some(Sabotage::Reordered) || !self.queue.starts_with("user.") {
            return delivery;
        }
        let next = self.inner.as_mut().and_then(|inner| inner.next().now_or_never()).flatten();
        match next {
            Some(next) => {
                self.on_its_way = Some((delivery, Instant::now()));
                next
            }
            None => delivery,
        }
    }

    fn hand_out(&self, delivery: Delivery) -> Delivery {
        if !delivery.message.body.is_empty() {
            self.broker.process.note(|| {
                let again = if delivery.redelivered { " again" } else { "" };
                format!("deliver {} {}{again}", self.queue, delivery.message.message_id)
            });
        }
        let Delivery { message, redelivered, attempt, mut settle } = delivery;
        if self.broker.process.world().sabotage == Some(Sabotage::AcknowledgedEarly) {
            let _ = at_once(settle.acknowledge());
        }
        let settle =
            SimSettle { broker: self.broker.clone(), generation: self.generation, inner: Some(settle) };
        Delivery { message, redelivered, attempt, settle: Box::new(settle) }
    }
}

impl Drop for SimInbox {
    fn drop(&mut self) {
        let process = &self.broker.process;
        let open = (self.inner.take(), self.on_its_way.take());
        process.link.let_go(process, open);
    }
}

#[async_trait]
impl Inbox for SimInbox {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let link = self.broker.process.link.clone();
            let changed = link.changed.notified();
            if self.inner.is_some() && self.generation != link.generation() {
                self.lost();
            }
            if let Some((_, arrives)) = &self.on_its_way {
                let arrives = *arrives;
                if arrives > Instant::now() {
                    tokio::select! {
                        biased;
                        () = changed => continue,
                        () = tokio::time::sleep_until(arrives) => {}
                    }
                }
                let (delivery, _) = self.on_its_way.take()?;
                return Some(self.hand_out(delivery));
            }
            let Some(inner) = &mut self.inner else {
                if !self.reopen().await {
                    return None;
                }
                continue;
            };
            let taken = tokio::select! {
                biased;
                () = changed => continue,
                taken = inner.next() => taken,
            };
            match taken {
                Some(delivery) => {
                    let arrives = Instant::now() + self.broker.process.world().delay();
                    let first = self.swapped(delivery);
                    if self.on_its_way.is_none() {
                        self.on_its_way = Some((first, arrives));
                    } else {
                        return Some(self.hand_out(first));
                    }
                }
                None if self.generation != link.generation() => self.lost(),
                None => return None,
            }
        }
    }

    async fn close(self: Box<Self>) {
        let process = self.broker.process.clone();
        process.before().await;
        drop(self);
        process.after().await;
    }
}

struct SimSettle {
    broker: SimBroker,
    generation: u64,
    inner: Option<Box<dyn Settle>>,
}

impl SimSettle {
    async fn settle(
        &mut self,
        how: &'static str,
        settle: impl AsyncFnOnce(&mut dyn Settle) -> BrokerResult<()>,
    ) -> BrokerResult<()> {
        let process = self.broker.process.clone();
        process.before().await;
        let Some(mut inner) = self.inner.take() else { return Err(unavailable("settled already")) };
        if process.link.generation() != self.generation {
            return Err(unavailable("the connection broke"));
        }
        // Its delivery was acknowledged early when that is sabotaged.
        let early = process.world().sabotage == Some(Sabotage::AcknowledgedEarly);
        let result = if early { Ok(()) } else { at_once(settle(&mut *inner)) };
        if how != "acknowledge" {
            process.note(|| format!("{how}: {}", outcome(&result)));
        }
        process.after().await;
        if process.link.generation() != self.generation {
            return Err(unavailable("the connection broke before the answer"));
        }
        result
    }
}

impl Drop for SimSettle {
    fn drop(&mut self) {
        let process = &self.broker.process;
        if let Some(unsettled) = self.inner.take() {
            process.link.let_go(process, unsettled);
        }
    }
}

#[async_trait]
impl Settle for SimSettle {
    async fn acknowledge(&mut self) -> BrokerResult<()> {
        self.settle("acknowledge", async |inner| inner.acknowledge().await).await
    }

    async fn put_back(&mut self) -> BrokerResult<()> {
        self.settle("put back", async |inner| inner.put_back().await).await
    }

    async fn dead_letter(&mut self) -> BrokerResult<()> {
        self.settle("dead-letter", async |inner| inner.dead_letter().await).await
    }
}

/// Whether there is such a queue.
pub fn queue_exists(world: &World, queue: &str) -> bool {
    let opened = at_once(world.broker.open_inbox(queue, InboxOptions { prefetch: 1, exclusive: false }));
    !matches!(opened, Err(error) if error.kind == BrokerErrorKind::Unroutable)
}

/// Whether there is such an exchange.
pub fn exchange_exists(world: &World, exchange: &str) -> bool {
    // Bound to a queue of nobody's, which goes at once.
    let spec = QueueSpec {
        name: "probe".to_owned(),
        kind: QueueKind::Exclusive,
        expires: None,
        max_length: 1,
        delivery_limit: None,
        when_full: common::broker::WhenFull::DropOldest,
    };
    let _ = at_once(world.broker.declare_queue(&spec));
    let bound = at_once(world.broker.bind("probe", exchange));
    let _ = at_once(world.broker.delete_queue("probe"));
    bound.is_ok()
}
