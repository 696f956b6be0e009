//! Ordered work per key: what is pushed under one key is handled one after the other in push order, and
//! different keys run in parallel.
//!
//! Commands of one participant go through it (an answer never overtakes its offer), and so do the events of
//! one session. A key costs nothing while it has no work: its task ends with its last item.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

type Handler<T> = dyn Fn(T) -> BoxFuture<'static, ()> + Send + Sync;

struct Inner<K, T> {
    /// A key is present exactly while its task runs; the queue holds what waits behind the running item.
    queues: Mutex<HashMap<K, VecDeque<T>>>,
    handler: Box<Handler<T>>,
    /// Told whenever a key's task ends.
    ended: Notify,
    bound: usize,
}

/// Keyed queues with one task for each key that has work.
pub(crate) struct Serial<K, T> {
    inner: Arc<Inner<K, T>>,
}

impl<K, T> Clone for Serial<K, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K, T> Serial<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Send + 'static,
{
    /// `bound`: items that may wait under one key; at the bound the oldest waiting item makes room.
    pub fn new(bound: usize, handler: impl Fn(T) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        let inner =
            Inner { queues: Mutex::default(), handler: Box::new(handler), ended: Notify::new(), bound };
        Self { inner: Arc::new(inner) }
    }

    /// Appends an item, and gives back the one that had to make room for it, if any.
    #[must_use = "the caller decides what a dropped item means"]
    pub fn push(&self, key: K, item: T) -> Option<T> {
        let mut queues = self.inner.lock();
        if let Some(queue) = queues.get_mut(&key) {
            let dropped = if queue.len() >= self.inner.bound { queue.pop_front() } else { None };
            queue.push_back(item);
            return dropped;
        }
        queues.insert(key.clone(), VecDeque::new());
        drop(queues);
        common::ambient::spawn(self.inner.clone().run(key, item));
        None
    }

    /// Whether anything is under way or waiting under this key.
    pub fn has_work(&self, key: &K) -> bool {
        self.inner.lock().contains_key(key)
    }

    /// Waits until no key has work. Work pushed meanwhile is waited for too.
    pub async fn drained(&self) {
        loop {
            let ended = self.inner.ended.notified();
            if self.inner.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }
}

impl<K: Eq + Hash + Clone, T> Inner<K, T> {
    async fn run(self: Arc<Self>, key: K, first: T) {
        let mut item = first;
        loop {
            // A panic ends the item that caused it; what waits behind it is another matter.
            if AssertUnwindSafe((self.handler)(item)).catch_unwind().await.is_err() {
                tracing::error!("a task panicked; the next one goes on");
            }
            let mut queues = self.lock();
            match queues.get_mut(&key).and_then(VecDeque::pop_front) {
                Some(next) => item = next,
                None => {
                    queues.remove(&key);
                    break;
                }
            }
        }
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, VecDeque<T>>> {
        // Nothing that can panic runs under this lock.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    /// Items that wait for a signal, say their number, or panic.
    enum Item {
        Wait(oneshot::Receiver<()>),
        Say(u32),
        Panic,
    }

    fn serial(bound: usize) -> (Serial<&'static str, Item>, mpsc::UnboundedReceiver<u32>) {
        let (say, said) = mpsc::unbounded_channel();
        let serial = Serial::new(bound, move |item| {
            let say = say.clone();
            async move {
                match item {
                    Item::Wait(signal) => drop(signal.await),
                    Item::Say(number) => say.send(number).unwrap(),
                    Item::Panic => panic!("as the test wants it"),
                }
            }
            .boxed()
        });
        (serial, said)
    }

    fn push(serial: &Serial<&'static str, Item>, key: &'static str, item: Item) {
        assert!(serial.push(key, item).is_none(), "nothing had to make room");
    }

    #[tokio::test]
    async fn one_key_keeps_its_order_while_another_key_waits() {
        let (serial, mut said) = serial(100);
        let (go, signal) = oneshot::channel();
        push(&serial, "a", Item::Wait(signal));
        for number in 1..=3 {
            push(&serial, "a", Item::Say(number));
        }
        push(&serial, "b", Item::Say(10));
        assert_eq!(said.recv().await, Some(10));
        go.send(()).unwrap();
        serial.drained().await;
        assert_eq!([said.try_recv(), said.try_recv(), said.try_recv()], [Ok(1), Ok(2), Ok(3)]);
    }

    #[tokio::test]
    async fn a_panic_ends_only_the_item_that_caused_it() {
        let (serial, mut said) = serial(100);
        push(&serial, "a", Item::Panic);
        push(&serial, "a", Item::Say(1));
        assert_eq!(said.recv().await, Some(1));
        serial.drained().await;
    }

    #[tokio::test]
    async fn at_the_bound_the_oldest_waiting_item_makes_room() {
        let (serial, mut said) = serial(2);
        let (go, signal) = oneshot::channel();
        push(&serial, "a", Item::Wait(signal));
        push(&serial, "a", Item::Say(1));
        push(&serial, "a", Item::Say(2));
        assert!(matches!(serial.push("a", Item::Say(3)), Some(Item::Say(1))));
        go.send(()).unwrap();
        serial.drained().await;
        assert_eq!([said.try_recv(), said.try_recv()], [Ok(2), Ok(3)]);
    }
}
