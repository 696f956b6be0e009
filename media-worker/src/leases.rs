//! Whose lease has run out, as one observer may judge it. Pure.
//!
//! A row says until when, by the clock of the machine that wrote it. An observer whose own view of the store was
//! interrupted cannot know whether the others could renew meanwhile: after an outage of the store all leases are over
//! together, and nobody is dead. So a worker is dead only when its row stayed as it is for a whole lease during which
//! the observer looked again and again, by its own steady clock, without a failure and without a pause.

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{RunId, Worker, WorkerId};
use common::time::UnixMillis;
use tokio::time::Instant;

/// What the looks so far have shown.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    seen: BTreeMap<WorkerId, Seen>,
    looked_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    run: RunId,
    lease_until: UnixMillis,
    since: Instant,
}

impl LeaseBook {
    /// Takes what is stored at `now` (by the wall clock `wall`), and gives the rows of the dead. To be called several
    /// times a lease: two looks that are further apart than that count as an interruption.
    pub fn look(
        &mut self,
        rows: &[Worker],
        here: WorkerId,
        (now, wall): (Instant, UnixMillis),
        lease: Duration,
    ) -> Vec<Worker> {
        if self.looked_at.is_some_and(|last| now.duration_since(last) >= lease) {
            self.interrupted();
        }
        self.looked_at = Some(now);
        let before = std::mem::take(&mut self.seen);
        let mut dead = Vec::new();
        for row in rows.iter().filter(|row| row.id != here) {
            let known = before
                .get(&row.id)
                .filter(|seen| seen.run == row.run && seen.lease_until == row.lease_until)
                .copied();
            let seen = known.unwrap_or(Seen { run: row.run, lease_until: row.lease_until, since: now });
            self.seen.insert(row.id, seen);
            if now.duration_since(seen.since) >= lease && row.lease_until <= wall {
                dead.push(row.clone());
            }
        }
        dead
    }

    /// The store could not be read: everyone gets a whole lease again.
    pub fn interrupted(&mut self) {
        self.seen.clear();
        self.looked_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::worker;
    use common::model::WorkerState;
    use proptest::prelude::*;

    const LEASE: Duration = Duration::from_millis(6_000);

    /// A step of an observer's life, in milliseconds.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// It looks, after this long; the worker has renewed since, or not.
        Look { after: u64, renewed: bool },
        /// The store fails it.
        Fail,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u64..9_000, proptest::bool::weighted(0.3)).prop_map(|(after, renewed)| Step::Look { after, renewed }),
            1 => Just(Step::Fail),
        ]
    }

    proptest! {
        /// Against the definition: dead exactly when, over a whole lease, every look was close to the one before, none
        /// failed, and none saw a renewal.
        #[test]
        fn only_who_was_watched_for_a_whole_lease_is_dead(steps in proptest::collection::vec(step(), 0..60)) {
            let start = Instant::now();
            let (mut book, here) = (LeaseBook::default(), WorkerId::new());
            let mut row = worker(1, 0, WorkerState::Ready);
            let (mut elapsed, mut watched_since, mut last) = (0_u64, None, None);
            for step in steps {
                match step {
                    Step::Fail => {
                        book.interrupted();
                        (watched_since, last) = (None, None);
                    }
                    Step::Look { after, renewed } => {
                        elapsed += after;
                        if renewed {
                            row.lease_until = UnixMillis(elapsed as i64 + 6_000);
                            watched_since = None;
                        }
                        if last.is_some_and(|last| elapsed - last >= 6_000) {
                            watched_since = None;
                        }
                        last = Some(elapsed);
                        let since = *watched_since.get_or_insert(elapsed);
                        let now = (start + Duration::from_millis(elapsed), UnixMillis(elapsed as i64));
                        let dead = book.look(std::slice::from_ref(&row), here, now, LEASE);
                        let expected = elapsed - since >= 6_000 && row.lease_until.0 <= elapsed as i64;
                        prop_assert_eq!(!dead.is_empty(), expected, "at {} ms", elapsed);
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_judges_itself_and_a_new_run_starts_anew() {
        let start = Instant::now();
        let at = |seconds: u64| (start + Duration::from_secs(seconds), UnixMillis(i64::MAX));
        let mut row = worker(1, 0, WorkerState::Ready);
        let mut book = LeaseBook::default();
        for second in 0..20 {
            assert!(book.look(&[row.clone()], row.id, at(second), LEASE).is_empty());
        }
        let other = WorkerId::new();
        for second in 20..=25 {
            assert!(book.look(&[row.clone()], other, at(second), LEASE).is_empty());
        }
        row.run = RunId::new();
        assert!(book.look(&[row.clone()], other, at(26), LEASE).is_empty());
        for second in 27..32 {
            assert!(book.look(&[row.clone()], other, at(second), LEASE).is_empty());
        }
        assert_eq!(book.look(&[row.clone()], other, at(32), LEASE), [row]);
    }
}
