//! Whether this worker may act: it has held its lease all the time, as far as it can know.
//!
//! A process that was paused for longer than its lease (stopped, swapped out, its machine suspended) wakes up with
//! commands in hand and events on their way, for sessions that others host by now. So everything that acts asks here first,
//! and waits until the heartbeat has found out: renewed (go on), declared dead (its pipelines are closed by then, and
//! what it had queued for them is dropped), or the store is away (go on: media and its signalling do not need it, and
//! every write is guarded).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the last renewal that succeeded was begun.
    renewed_at: Instant,
    /// When the store last failed one.
    failed_at: Option<Instant>,
    /// The worker ends in an orderly way and renews nothing any more.
    released: bool,
}

impl Known {
    fn allows(&self, now: Instant, lease: Duration) -> bool {
        let within = |since: Instant| now.duration_since(since) < lease;
        self.released || within(self.renewed_at) || self.failed_at.is_some_and(within)
    }
}

/// The standing of this worker, written by the heartbeat.
pub(crate) struct Standing {
    known: Mutex<Known>,
    /// Wakes those who wait in the order in which they came (a `watch` channel picks by chance, and a simulation would
    /// not replay).
    changed: Notify,
    lease: Duration,
}

impl Standing {
    /// Good for one lease from now: that long the row put at the start is good.
    pub fn new(lease: Duration) -> Self {
        let known = Known { renewed_at: Instant::now(), failed_at: None, released: false };
        Self { known: Mutex::new(known), changed: Notify::new(), lease }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// The lease was renewed by a call that began at `begun`.
    pub fn renewed(&self, begun: Instant) {
        self.change(|known| {
            known.renewed_at = begun;
            known.failed_at = None;
        });
    }

    /// Since the last renewal that succeeded.
    pub fn age(&self) -> Duration {
        self.lock().renewed_at.elapsed()
    }

    /// The store did not answer.
    pub fn failed(&self) {
        self.change(|known| known.failed_at = Some(Instant::now()));
    }

    /// From now on nothing waits.
    pub fn release(&self) {
        self.change(|known| known.released = true);
    }

    /// Returns when the worker may act: nearly always at once.
    ///
    /// Cancel safe.
    pub async fn good(&self) {
        loop {
            // From here on a change is not missed.
            let changed = self.changed.notified();
            if self.lock().allows(Instant::now(), self.lease) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const LEASE: Duration = Duration::from_secs(6);

    fn known(renewed_at: Instant) -> Known {
        Known { renewed_at, failed_at: None, released: false }
    }

    #[test]
    fn who_slept_past_its_lease_may_not_act() {
        let start = Instant::now();
        let before = LEASE - Duration::from_millis(1);
        assert!(known(start).allows(start + before, LEASE));
        assert!(!known(start).allows(start + LEASE, LEASE));
        assert!(Known { released: true, ..known(start) }.allows(start + 2 * LEASE, LEASE));
    }

    #[test]
    fn an_outage_of_the_store_holds_nothing_up_but_a_pause_during_it_does() {
        let start = Instant::now();
        let failed_at = start + 10 * LEASE;
        let during = Known { failed_at: Some(failed_at), ..known(start) };
        assert!(during.allows(failed_at + LEASE / 2, LEASE));
        assert!(!during.allows(failed_at + LEASE, LEASE));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_heartbeats_answer_or_with_the_worker() {
        let renewed: fn(&Standing) = |standing| standing.renewed(Instant::now());
        for answer in [renewed, Standing::failed, Standing::release] {
            let standing = Standing::new(LEASE);
            assert!(standing.good().now_or_never().is_some());
            // Begun before a pause, answered after it: that proves nothing.
            let long_ago = Instant::now().checked_sub(LEASE).expect("the machine runs for longer than that");
            standing.renewed(long_ago);
            let waiting = standing.good();
            tokio::pin!(waiting);
            assert!(waiting.as_mut().now_or_never().is_none());
            answer(&standing);
            assert!(waiting.now_or_never().is_some());
        }
    }
}
