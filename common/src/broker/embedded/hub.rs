//! The queues and exchanges of the embedded broker as a plain state machine: no clock, no task, no waiting.
//!
//! Every method is called under one lock, does work in proportion to what it touches, and gets `now` passed in.
//! Expiry needs no timer: a queue that has expired is removed before the next call looks at anything, and a
//! message that has expired is skipped when it comes to the head, so neither can be observed.
//!
//! Waking: `arrival` wakes one inbox of a queue that waits for a message; who takes one while more wait passes
//! the wake-up on. `wake` is for one inbox alone: room under its prefetch bound, or its end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::metrics::Back;
use crate::broker::topology::{DEAD_LETTERS, dead_letters_queue};
use crate::broker::{
    BrokerError, BrokerErrorKind, BrokerResult, Destination, InboxOptions, Message, QueueKind, QueueSpec,
    WhenFull,
};

/// One incarnation of a queue: deleting and declaring it again makes another one.
#[derive(Debug, Clone)]
pub(super) struct QueueRef {
    name: Arc<str>,
    id: u64,
}

/// What an inbox needs to wait and take.
pub(super) struct OpenedInbox {
    pub(super) queue: QueueRef,
    pub(super) inbox: u64,
    pub(super) arrival: Arc<Notify>,
    pub(super) wake: Arc<Notify>,
}

/// A look into the queue by one inbox.
pub(super) enum Taken {
    Message {
        message: Arc<Message>,
        /// Earlier deliveries that did not end in an acknowledgement.
        attempts: u32,
        sequence: u64,
    },
    /// Nothing waits: `arrival` tells when to look again.
    Empty,
    /// As much is out as may be: `wake` tells when to look again.
    AtPrefetch,
    /// The queue was deleted or the inbox closed.
    Ended,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Acknowledge,
    PutBack,
    DeadLetter,
}

struct Entry {
    message: Arc<Message>,
    expires_at: Option<Instant>,
    /// Deliveries that did not end in an acknowledgement.
    attempts: u32,
}

impl Entry {
    fn new(now: Instant, message: Arc<Message>) -> Self {
        let expires_at = message.ttl.and_then(|ttl| now.checked_add(ttl));
        Self { message, expires_at, attempts: 0 }
    }

    fn expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

struct OpenInbox {
    connection: u64,
    exclusive: bool,
    prefetch: usize,
    out: usize,
    wake: Arc<Notify>,
}

struct Queue {
    id: u64,
    spec: QueueSpec,
    /// The connection an exclusive queue belongs to.
    owner: Option<u64>,
    next_sequence: u64,
    /// By sequence number, which is what puts a message back at its old place.
    ready: BTreeMap<u64, Entry>,
    /// Out for settling, and with which inbox.
    unsettled: BTreeMap<u64, (u64, Entry)>,
    inboxes: BTreeMap<u64, OpenInbox>,
    arrival: Arc<Notify>,
    bound_to: BTreeSet<String>,
    /// Key in `Hub::expiries` while no inbox is open.
    expires_at: Option<Instant>,
}

impl Queue {
    fn max_length(&self) -> usize {
        // A queue that can hold nothing could never deliver anything.
        self.spec.max_length.max(1) as usize
    }

    fn accept(&mut self, entry: Entry, now: Instant) -> BrokerResult<()> {
        if self.ready.len() >= self.max_length() {
            self.drop_expired(now);
        }
        while self.ready.len() >= self.max_length() {
            match self.spec.when_full {
                WhenFull::Refuse => {
                    return Err(BrokerError::new(BrokerErrorKind::Full, "the queue is at its limit"));
                }
                WhenFull::DropOldest => {
                    self.ready.pop_first();
                    Back::Embedded.dropped_oldest();
                }
            }
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.ready.insert(sequence, entry);
        self.arrival.notify_one();
        Ok(())
    }

    /// Only from the head, so that a full queue costs each refused sender a constant.
    fn drop_expired(&mut self, now: Instant) {
        while let Some(head) = self.ready.first_entry()
            && head.get().expired(now)
        {
            head.remove();
            Back::Embedded.dropped_expired();
        }
    }

    fn accessible_to(&self, connection: u64) -> BrokerResult<()> {
        if self.owner.is_some_and(|owner| owner != connection) {
            return Err(BrokerError::new(
                BrokerErrorKind::Conflict,
                "the queue belongs to another connection",
            ));
        }
        Ok(())
    }
}

/// All queues, exchanges and inboxes of one embedded broker.
pub(super) struct Hub {
    queues: HashMap<Arc<str>, Queue>,
    exchanges: HashMap<String, BTreeSet<Arc<str>>>,
    expiries: BTreeSet<(Instant, Arc<str>)>,
    last_id: u64,
}

impl Hub {
    pub(super) fn new(now: Instant) -> Self {
        let mut hub =
            Self { queues: HashMap::new(), exchanges: HashMap::new(), expiries: BTreeSet::new(), last_id: 0 };
        hub.insert_queue(now, None, dead_letters_queue());
        hub
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn declare_queue(
        &mut self,
        now: Instant,
        connection: u64,
        spec: &QueueSpec,
    ) -> BrokerResult<()> {
        self.remove_expired(now);
        match self.queues.get(spec.name.as_str()) {
            Some(queue) => {
                queue.accessible_to(connection)?;
                if queue.spec != *spec {
                    return Err(BrokerError::new(
                        BrokerErrorKind::Conflict,
                        "the queue was declared otherwise",
                    ));
                }
                let name = Arc::from(spec.name.as_str());
                self.set_expiry(now, &name);
            }
            None => {
                let owner = (spec.kind == QueueKind::Exclusive).then_some(connection);
                self.insert_queue(now, owner, spec.clone());
            }
        }
        Ok(())
    }

    pub(super) fn declare_exchange(&mut self, name: &str) {
        self.exchanges.entry(name.to_owned()).or_default();
    }

    pub(super) fn bind(
        &mut self,
        now: Instant,
        connection: u64,
        name: &str,
        exchange: &str,
    ) -> BrokerResult<()> {
        self.remove_expired(now);
        let key = self.key(name)?;
        let queue = self.queues.get_mut(&key).ok_or_else(no_such_queue)?;
        let bound = self.exchanges.get_mut(exchange).ok_or_else(no_such_exchange)?;
        queue.accessible_to(connection)?;
        bound.insert(key);
        queue.bound_to.insert(exchange.to_owned());
        Ok(())
    }

    pub(super) fn delete_queue(&mut self, connection: u64, name: &str) -> BrokerResult<()> {
        if let Some(queue) = self.queues.get(name) {
            queue.accessible_to(connection)?;
            self.remove_queue(name);
        }
        Ok(())
    }

    pub(super) fn delete_exchange(&mut self, name: &str) {
        for queue in self.exchanges.remove(name).into_iter().flatten() {
            if let Some(queue) = self.queues.get_mut(&queue) {
                queue.bound_to.remove(name);
            }
        }
    }

    pub(super) fn send(&mut self, now: Instant, to: Destination<'_>, message: Message) -> BrokerResult<()> {
        self.remove_expired(now);
        let message = Arc::new(message);
        match to {
            Destination::Queue(name) => {
                let queue = self.queues.get_mut(name).ok_or_else(no_such_queue)?;
                queue.accept(Entry::new(now, message), now)
            }
            Destination::Exchange(name) => {
                let bound = self.exchanges.get(name).ok_or_else(no_such_exchange)?;
                let mut result = Ok(());
                for queue in bound {
                    if let Some(queue) = self.queues.get_mut(queue)
                        && let Err(refused) = queue.accept(Entry::new(now, message.clone()), now)
                    {
                        result = Err(refused);
                    }
                }
                result
            }
        }
    }

    pub(super) fn waiting(&mut self, now: Instant, name: &str) -> BrokerResult<u64> {
        self.remove_expired(now);
        let queue = self.queues.get_mut(name).ok_or_else(no_such_queue)?;
        queue.drop_expired(now);
        Ok(queue.ready.len() as u64)
    }

    pub(super) fn open_inbox(
        &mut self,
        now: Instant,
        connection: u64,
        name: &str,
        options: InboxOptions,
    ) -> BrokerResult<OpenedInbox> {
        self.remove_expired(now);
        let inbox = self.next_id();
        let name = self.key(name)?;
        let queue = self.queues.get_mut(&name).ok_or_else(no_such_queue)?;
        queue.accessible_to(connection)?;
        let taken = queue.inboxes.values().any(|other| other.exclusive);
        if taken || (options.exclusive && !queue.inboxes.is_empty()) {
            return Err(BrokerError::new(
                BrokerErrorKind::Conflict,
                "the queue has an inbox that excludes this one",
            ));
        }
        let wake = Arc::new(Notify::new());
        queue.inboxes.insert(
            inbox,
            OpenInbox {
                connection,
                exclusive: options.exclusive,
                prefetch: options.prefetch.max(1) as usize,
                out: 0,
                wake: wake.clone(),
            },
        );
        let opened = OpenedInbox {
            queue: QueueRef { name: name.clone(), id: queue.id },
            inbox,
            arrival: queue.arrival.clone(),
            wake,
        };
        self.set_expiry(now, &name);
        Ok(opened)
    }

    pub(super) fn take(&mut self, now: Instant, queue: &QueueRef, inbox: u64) -> Taken {
        let Some(queue) = self.incarnation(queue) else { return Taken::Ended };
        let Some(reader) = queue.inboxes.get_mut(&inbox) else { return Taken::Ended };
        if reader.out >= reader.prefetch {
            return Taken::AtPrefetch;
        }
        while let Some((sequence, entry)) = queue.ready.pop_first() {
            if entry.expired(now) {
                Back::Embedded.dropped_expired();
                continue;
            }
            reader.out += 1;
            let taken = Taken::Message { message: entry.message.clone(), attempts: entry.attempts, sequence };
            queue.unsettled.insert(sequence, (inbox, entry));
            if !queue.ready.is_empty() {
                queue.arrival.notify_one();
            }
            return taken;
        }
        Taken::Empty
    }

    /// Ends a delivery. With its queue gone there is nothing left to do, which is success; when it is no longer
    /// out with this inbox it is somebody else's, which is `Unavailable`.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        name: &QueueRef,
        inbox: u64,
        sequence: u64,
        outcome: Outcome,
    ) -> BrokerResult<()> {
        let Some(queue) = self.incarnation(name) else { return Ok(()) };
        if queue.unsettled.get(&sequence).is_none_or(|(holder, _)| *holder != inbox) {
            return Err(BrokerError::new(
                BrokerErrorKind::Unavailable,
                "the delivery was settled or put back before this",
            ));
        }
        let Some((_, entry)) = queue.unsettled.remove(&sequence) else { return Ok(()) };
        if let Some(reader) = queue.inboxes.get_mut(&inbox) {
            reader.out = reader.out.saturating_sub(1);
            reader.wake.notify_one();
        }
        match outcome {
            Outcome::Acknowledge => {}
            Outcome::PutBack => self.put_back(now, name, sequence, entry),
            Outcome::DeadLetter => self.dead_letter(now, entry),
        }
        Ok(())
    }

    pub(super) fn close_inbox(&mut self, now: Instant, name: &QueueRef, inbox: u64) {
        let Some(queue) = self.incarnation(name) else { return };
        if queue.inboxes.remove(&inbox).is_none() {
            return;
        }
        let returning: Vec<u64> =
            queue.unsettled.iter().filter(|(_, (holder, _))| *holder == inbox).map(|(seq, _)| *seq).collect();
        for sequence in returning {
            let entry = self.incarnation(name).and_then(|queue| queue.unsettled.remove(&sequence));
            if let Some((_, entry)) = entry {
                self.put_back(now, name, sequence, entry);
            }
        }
        if let Some(queue) = self.incarnation(name) {
            // A wake-up this inbox had swallowed belongs to the next one.
            queue.arrival.notify_one();
        }
        self.set_expiry(now, &name.name);
    }

    /// Ends the connection's inboxes and removes its exclusive queues.
    pub(super) fn close_connection(&mut self, now: Instant, connection: u64) {
        let mut owned: Vec<Arc<str>> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.owner == Some(connection))
            .map(|(name, _)| name.clone())
            .collect();
        // In the same order every time, whatever the order of the table is: simulations replay.
        owned.sort_unstable();
        for name in owned {
            self.remove_queue(&name);
        }
        let mut inboxes = Vec::new();
        for (name, queue) in &self.queues {
            for (inbox, open) in queue.inboxes.iter().filter(|(_, open)| open.connection == connection) {
                inboxes.push((QueueRef { name: name.clone(), id: queue.id }, *inbox, open.wake.clone()));
            }
        }
        inboxes.sort_unstable_by_key(|(_, inbox, _)| *inbox);
        for (queue, inbox, wake) in inboxes {
            self.close_inbox(now, &queue, inbox);
            wake.notify_one();
        }
    }

    fn put_back(&mut self, now: Instant, name: &QueueRef, sequence: u64, mut entry: Entry) {
        let Some(queue) = self.incarnation(name) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        if queue.spec.delivery_limit.is_some_and(|limit| entry.attempts >= limit) {
            self.dead_letter(now, entry);
        } else {
            queue.ready.insert(sequence, entry);
            queue.arrival.notify_one();
        }
    }

    fn dead_letter(&mut self, now: Instant, entry: Entry) {
        Back::Embedded.dead_lettered();
        if !self.queues.contains_key(DEAD_LETTERS) {
            self.insert_queue(now, None, dead_letters_queue());
        }
        if let Some(queue) = self.queues.get_mut(DEAD_LETTERS) {
            // It keeps for operators what its sender wanted dropped after a while.
            let entry = Entry { message: entry.message, expires_at: None, attempts: 0 };
            // Drops its oldest when full, so it cannot refuse.
            let _ = queue.accept(entry, now);
        }
    }

    fn key(&self, name: &str) -> BrokerResult<Arc<str>> {
        self.queues.get_key_value(name).map(|(key, _)| key.clone()).ok_or_else(no_such_queue)
    }

    fn incarnation(&mut self, queue: &QueueRef) -> Option<&mut Queue> {
        self.queues.get_mut(&queue.name).filter(|found| found.id == queue.id)
    }

    fn insert_queue(&mut self, now: Instant, owner: Option<u64>, spec: QueueSpec) {
        let name: Arc<str> = Arc::from(spec.name.as_str());
        let queue = Queue {
            id: self.next_id(),
            spec,
            owner,
            next_sequence: 0,
            ready: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            arrival: Arc::new(Notify::new()),
            bound_to: BTreeSet::new(),
            expires_at: None,
        };
        self.queues.insert(name.clone(), queue);
        self.set_expiry(now, &name);
    }

    /// Restarts or stops the time to live of a queue, by whether it has an inbox now.
    fn set_expiry(&mut self, now: Instant, name: &Arc<str>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        if let Some(old) = queue.expires_at.take() {
            self.expiries.remove(&(old, name.clone()));
        }
        let expires: Option<Duration> = queue.spec.expires.filter(|_| queue.inboxes.is_empty());
        if let Some(at) = expires.and_then(|after| now.checked_add(after)) {
            queue.expires_at = Some(at);
            self.expiries.insert((at, name.clone()));
        }
    }

    fn remove_expired(&mut self, now: Instant) {
        while let Some((at, name)) = self.expiries.first()
            && *at <= now
        {
            let name = name.clone();
            self.remove_queue(&name);
        }
    }

    fn remove_queue(&mut self, name: &str) {
        let Some((name, queue)) = self.queues.remove_entry(name) else { return };
        if let Some(at) = queue.expires_at {
            self.expiries.remove(&(at, name.clone()));
        }
        for exchange in &queue.bound_to {
            if let Some(bound) = self.exchanges.get_mut(exchange) {
                bound.remove(&name);
            }
        }
        for inbox in queue.inboxes.values() {
            inbox.wake.notify_one();
        }
    }
}

fn no_such_queue() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unroutable, "no such queue")
}

fn no_such_exchange() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unroutable, "no such exchange")
}

#[cfg(test)]
mod tests;
