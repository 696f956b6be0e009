//! The embedded store's ratings: bounded in time and in all. At a bound the one that was given longest ago goes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::model::{ParticipantId, Rating, SessionId};
use crate::store::RATINGS_KEPT;

/// Ratings kept over all sessions; at about 500 bytes each some 30 MB.
const MOST: usize = 65_536;

type Key = (SessionId, ParticipantId);

#[derive(Default)]
pub(super) struct Ratings {
    all: BTreeMap<Key, Kept>,
    /// Every change in order; one that a later change of the same rating replaced is skipped.
    order: VecDeque<(Key, u64)>,
    changes: u64,
}

struct Kept {
    number: u64,
    stored_at: Instant,
    rating: Rating,
}

impl Ratings {
    /// See [`crate::store::Store::put_rating`].
    pub(super) fn put(&mut self, rating: &Rating, now: Instant) -> bool {
        self.expire(now);
        let key = (rating.session_id, rating.participant_id);
        let known = self.all.get(&key);
        if known.is_some_and(|known| known.rating.at > rating.at) {
            return false;
        }
        let network = rating.network.clone().or_else(|| known?.rating.network.clone());
        self.changes += 1;
        let number = self.changes;
        let rating = Rating { network, ..rating.clone() };
        self.all.insert(key, Kept { number, stored_at: now, rating });
        self.order.push_back((key, number));
        while self.all.len() > MOST {
            self.remove_oldest();
        }
        true
    }

    /// The session's ratings of participants after `after`, in the order of their ids.
    pub(super) fn of(
        &mut self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
        now: Instant,
    ) -> Vec<Rating> {
        self.expire(now);
        let of_session = self.all.iter().filter(|((of, _), _)| *of == session);
        let wanted =
            of_session.filter(|((_, participant), _)| after.is_none_or(|after| *participant > after));
        wanted.take(limit).map(|(_, kept)| kept.rating.clone()).collect()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((key, number)) = self.order.front() {
            let lives = self.all.get(key).is_some_and(|kept| {
                kept.number == *number && now.saturating_duration_since(kept.stored_at) < RATINGS_KEPT
            });
            if lives {
                return;
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let Some((key, number)) = self.order.pop_front() else { return };
        if self.all.get(&key).is_some_and(|kept| kept.number == number) {
            self.all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::conformance::rating;

    #[test]
    fn a_rating_expires_after_its_last_change_and_leaves_nothing_behind() {
        let (mut ratings, start) = (Ratings::default(), Instant::now());
        let first = rating();
        let session = first.session_id;
        assert!(ratings.put(&first, start));
        let later = start + Duration::from_secs(60);
        assert!(ratings.put(&Rating { stars: 1, ..first }, later));
        assert_eq!(ratings.of(session, None, 9, start + RATINGS_KEPT).len(), 1);
        assert_eq!(ratings.of(session, None, 9, later + RATINGS_KEPT), []);
        assert!(ratings.all.is_empty() && ratings.order.is_empty());
    }

    #[test]
    fn the_whole_is_bounded() {
        let (mut ratings, now) = (Ratings::default(), Instant::now());
        let all: Vec<Rating> = (0..MOST + 3).map(|_| rating()).collect();
        all.iter().for_each(|rating| assert!(ratings.put(rating, now)));
        assert_eq!(ratings.all.len(), MOST);
        assert_eq!(ratings.of(all[2].session_id, None, 9, now), []);
        assert_eq!(ratings.of(all[3].session_id, None, 9, now), all[3..4]);
    }
}
