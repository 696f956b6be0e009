//! What code takes from its surroundings without being handed it: the wall clock, random numbers and new ids.
//!
//! They are the system's, unless a simulation runs on this thread: [`steer`] puts its own source in their place there,
//! so that a whole schedule of several simulated processes replays from one seed. Nothing else may ask the system for
//! them where a decision follows from it; monotonic time is tokio's (`tokio::time::Instant`), which a paused runtime
//! steers by itself. Nonces and keys do not come from here.
//!
//! Tasks are the third thing: who starts one with [`spawn`] starts it as part of its own simulated [`Process`], which can
//! stand still and die as a whole, as a process does.
//!
//! The price outside a simulation is one look at a thread-local.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::task::{AbortHandle, JoinHandle};
use uuid::{Builder, Uuid};

use crate::time::UnixMillis;

/// Stands in for the system on one thread.
pub trait Source {
    /// The wall clock.
    fn now(&mut self) -> UnixMillis;
    /// 64 random bits.
    fn random(&mut self) -> u64;
    /// One more than the last time.
    fn count(&mut self) -> u64;
}

/// One of several simulated processes on a thread: what its tasks start belongs to it.
pub trait Process: Send + Sync {
    /// Whether its tasks run now. If not, `waker` is woken when they do again.
    fn runs(&self, waker: &Waker) -> bool;
    /// A task has become part of it; to be aborted when the process dies, or at once when it has.
    fn started(&self, task: AbortHandle);
    /// What the clock of its machine shows when it is really `now`.
    fn clock(&self, now: UnixMillis) -> UnixMillis;
}

thread_local! {
    static SOURCE: RefCell<Option<Box<dyn Source>>> = const { RefCell::new(None) };
    static PROCESS: RefCell<Option<Arc<dyn Process>>> = const { RefCell::new(None) };
}

/// While it lives, its thread is steered.
#[must_use = "dropping it gives the thread back to the system at once"]
pub struct Steered {
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Steered {
    fn drop(&mut self) {
        SOURCE.with_borrow_mut(|source| *source = None);
    }
}

/// Takes clock, randomness and ids on this thread from `source`.
pub fn steer(source: Box<dyn Source>) -> Steered {
    SOURCE.with_borrow_mut(|current| *current = Some(source));
    Steered { _not_send: PhantomData }
}

fn steered<T>(ask: impl FnOnce(&mut dyn Source) -> T) -> Option<T> {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|source| ask(&mut **source)))
}

/// The wall clock of the simulation that runs on this thread, if there is one.
pub(crate) fn wall_clock() -> Option<UnixMillis> {
    let now = steered(|source| source.now())?;
    Some(PROCESS.with_borrow(|process| process.as_ref().map_or(now, |process| process.clock(now))))
}

/// [`tokio::spawn`]; in a simulation the task belongs to the process that starts it.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match PROCESS.with_borrow(Clone::clone) {
        None => tokio::spawn(task),
        Some(process) => spawn_in(process, task),
    }
}

/// Starts a task of a simulated process.
pub fn spawn_in<F>(process: Arc<dyn Process>, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let started = tokio::spawn(Part { process: process.clone(), task: Some(Box::pin(task)) });
    process.started(started.abort_handle());
    started
}

/// A task as part of a process: it runs when that does, and what it starts belongs there too.
struct Part<F> {
    process: Arc<dyn Process>,
    /// There until it is dropped.
    task: Option<Pin<Box<F>>>,
}

impl<F> Part<F> {
    /// Runs something of the task as the process that it belongs to.
    fn within<T>(&mut self, run: impl FnOnce(&mut Option<Pin<Box<F>>>) -> T) -> T {
        let outer = PROCESS.replace(Some(self.process.clone()));
        let result = run(&mut self.task);
        PROCESS.set(outer);
        result
    }
}

impl<F: Future> Future for Part<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.process.runs(cx.waker()) {
            return Poll::Pending;
        }
        self.within(|task| task.as_mut().map_or(Poll::Pending, |task| task.as_mut().poll(cx)))
    }
}

impl<F> Drop for Part<F> {
    fn drop(&mut self) {
        // What its values do when they go is still done by the process.
        self.within(|task| *task = None);
    }
}

/// A random factor from 0.5 up to 1.5: spreads what several processes would otherwise do at the same moment.
pub fn jitter() -> f64 {
    let bits = steered(|source| source.random()).unwrap_or_else(rand::random);
    // The upper 53 bits are all that a double holds.
    0.5 + (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A new UUID (version 7), later than those made before it here.
pub fn uuid() -> Uuid {
    match steered(|source| (source.now(), source.count())) {
        None => Uuid::now_v7(),
        Some((now, count)) => {
            let mut rest = [0; 10];
            rest[2..].copy_from_slice(&count.to_be_bytes());
            Builder::from_unix_timestamp_millis(now.0.unsigned_abs(), &rest).into_uuid()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::model::EventId;

    struct Fixed(u64);

    impl Source for Fixed {
        fn now(&mut self) -> UnixMillis {
            UnixMillis(1_000)
        }

        fn random(&mut self) -> u64 {
            u64::MAX
        }

        fn count(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn a_steered_thread_is_the_same_every_time_and_another_is_the_system() {
        let ids = || {
            let _steered = steer(Box::new(Fixed(0)));
            assert_eq!(UnixMillis::now(), UnixMillis(1_000));
            assert!((1.49..=1.5).contains(&jitter()));
            [EventId::new(), EventId::new()]
        };
        let first = ids();
        assert_eq!(first, ids());
        assert!(first[0] < first[1]);
        assert!(UnixMillis::now() > UnixMillis(1_000_000));
        assert_ne!(first[0], EventId::new());
    }

    /// A process that stands still until it is let go on, with a clock that is 7 ms ahead.
    #[derive(Default)]
    struct Still {
        runs: AtomicBool,
        stalled: Mutex<Vec<Waker>>,
        tasks: Mutex<Vec<AbortHandle>>,
    }

    impl Process for Still {
        fn runs(&self, waker: &Waker) -> bool {
            let runs = self.runs.load(Ordering::Relaxed);
            if !runs {
                self.stalled.lock().unwrap().push(waker.clone());
            }
            runs
        }

        fn started(&self, task: AbortHandle) {
            self.tasks.lock().unwrap().push(task);
        }

        fn clock(&self, now: UnixMillis) -> UnixMillis {
            UnixMillis(now.0 + 7)
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_task_starts_belongs_to_its_process_and_stands_still_and_ends_with_it() {
        let _steered = steer(Box::new(Fixed(0)));
        let process = Arc::new(Still::default());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let outer = spawn_in(process.clone(), async move {
            let inner = spawn(async move {
                tell.send(UnixMillis::now()).unwrap();
                std::future::pending::<()>().await;
            });
            inner.await
        });
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "it stands still");
        process.runs.store(true, Ordering::Relaxed);
        process.stalled.lock().unwrap().drain(..).for_each(Waker::wake);
        assert_eq!(told.recv().await, Some(UnixMillis(1_007)));
        assert_eq!(UnixMillis::now(), UnixMillis(1_000), "others have their own clock");
        let tasks = std::mem::take(&mut *process.tasks.lock().unwrap());
        assert_eq!(tasks.len(), 2);
        tasks.iter().for_each(AbortHandle::abort);
        assert!(outer.await.unwrap_err().is_cancelled());
        assert_eq!(told.recv().await, None, "the inner task has ended too");
    }

    #[test]
    fn jitter_spreads_around_one() {
        for _ in 0..1_000 {
            assert!((0.5..=1.5).contains(&jitter()));
        }
    }
}
