//! Who watches whom, and what a missing queue means. Pure.
//!
//! The living workers form a ring in the order of their ids; each pings the queue of the next one. RabbitMQ removes the
//! queue of a process the moment its socket closes, so a ping that comes back unroutable is the earliest sign of a death.
//! It is no proof: the queue is missing too while RabbitMQ has just restarted, and while a worker that lives has lost its
//! own link. The first is told apart by the observer's own link, the second by the worker's row, where it says so itself.

use std::time::Duration;

use common::broker::RECONNECT_BOUND;
use common::model::{Worker, WorkerId};

/// The next one after `here` in the ring. `None`: `here` is alone.
pub(crate) fn neighbour(workers: impl IntoIterator<Item = WorkerId>, here: WorkerId) -> Option<WorkerId> {
    let others = workers.into_iter().filter(|id| *id != here);
    // Those after `here` come first, each half in order.
    others.min_by_key(|id| (*id < here, *id))
}

/// What an observer knows about a worker whose queue is missing, and stayed missing when looked for again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MissingQueue<'a> {
    pub row: &'a Worker,
    /// How long the observer's own link has been unbroken.
    pub link_unbroken: Duration,
    /// The queue was there before, on the same unbroken link; or the row was renewed since then by a worker that had
    /// its queue. Then RabbitMQ has not restarted in between: the queue went with its owner's connection.
    pub was_there: bool,
}

/// Whether the worker may be declared dead at once. If not, its lease decides.
pub(crate) fn is_dead(missing: &MissingQueue<'_>) -> bool {
    missing.row.broker_away_since.is_none() && (missing.was_there || missing.link_unbroken >= RECONNECT_BOUND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::worker;
    use common::model::WorkerState;
    use common::time::UnixMillis;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn id(number: u128) -> WorkerId {
        WorkerId::from_uuid(Uuid::from_u128(number))
    }

    proptest! {
        #[test]
        fn everyone_is_watched_by_exactly_one_other(numbers in proptest::collection::btree_set(0_u128..100, 2..20)) {
            let workers: Vec<WorkerId> = numbers.iter().copied().map(id).collect();
            let watched: BTreeSet<WorkerId> =
                workers.iter().filter_map(|here| neighbour(workers.iter().copied(), *here)).collect();
            prop_assert_eq!(watched, workers.iter().copied().collect::<BTreeSet<_>>());
            for here in &workers {
                prop_assert_ne!(neighbour(workers.iter().copied(), *here), Some(*here));
            }
        }

        #[test]
        fn going_from_neighbour_to_neighbour_visits_all(numbers in proptest::collection::btree_set(0_u128..100, 1..20)) {
            let workers: Vec<WorkerId> = numbers.iter().copied().map(id).collect();
            let mut at = workers[0];
            let mut visited = BTreeSet::from([at]);
            while let Some(next) = neighbour(workers.iter().copied(), at).filter(|next| visited.insert(*next)) {
                at = next;
            }
            prop_assert_eq!(visited.len(), workers.len());
        }

        #[test]
        fn nobody_is_dead_who_says_that_it_lives_nor_on_the_word_of_a_young_link_alone(
            unbroken_ms in 0_u64..60_000, was_there: bool, away: bool,
        ) {
            let mut row = worker(1, 1, WorkerState::Ready);
            row.broker_away_since = away.then_some(UnixMillis(1));
            let link_unbroken = Duration::from_millis(unbroken_ms);
            let dead = is_dead(&MissingQueue { row: &row, link_unbroken, was_there });
            prop_assert!(!(dead && away));
            prop_assert!(!(dead && !was_there && link_unbroken < RECONNECT_BOUND));
            prop_assert!(away || dead || !was_there, "seen to vanish, and it did not say that it lives");
        }
    }

    #[test]
    fn one_alone_has_no_neighbour() {
        assert_eq!(neighbour([id(1)], id(1)), None);
        assert_eq!(neighbour([], id(1)), None);
        assert_eq!(neighbour([id(2)], id(1)), Some(id(2)), "its own row may not be in the listing yet");
    }
}
