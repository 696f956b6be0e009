//! How many of a publication's encodings anybody watches or may soon watch, so that its publisher can stop sending the
//! others ("dynacast").
//!
//! More is told at once: a picture must not wait for it. Less is told once it has been less for [`HOLD`], so that
//! somebody who looks away for a moment stops nothing.

use std::time::{Duration, Instant};

use crate::layers::{EncodingId, MAX_ENCODINGS};

/// For how long less must be wanted before a publisher is told so.
pub const HOLD: Duration = Duration::from_secs(5);
/// How long an encoding that is wanted again may take to come back; until then its absence says nothing.
const RETURN: Duration = Duration::from_secs(5);

/// See the module. Counts are of encodings from the lowest up; 0: nobody watches anything.
#[derive(Debug)]
pub struct Demand {
    /// What the publisher was told last. It begins by sending everything.
    told: u8,
    lower_since: Option<Instant>,
    /// When more was told, and what had been told before.
    raised: Option<(Instant, u8)>,
    /// What the subscribers of other media threads want, by thread.
    peers: Vec<(usize, u8)>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { told: MAX_ENCODINGS, lower_since: None, raised: None, peers: Vec::new() }
    }
}

impl Demand {
    /// What the publisher was told last.
    pub fn told(&self) -> u8 {
        self.told
    }

    /// Notes what subscribers of another thread want. `None`: there are none any more.
    pub fn set_peer(&mut self, peer: usize, encodings: Option<u8>) {
        self.peers.retain(|(other, _)| *other != peer);
        self.peers.extend(encodings.map(|encodings| (peer, encodings)));
    }

    /// Takes what this thread's subscribers want now, of so many encodings that there are. Returns what the publisher is to
    /// be told, if it is something else than before. To be called again after a while as long as anything arrives.
    pub fn update(&mut self, now: Instant, own: u8, count: u8) -> Option<u8> {
        let wanted = self.peers.iter().map(|(_, encodings)| *encodings).fold(own, u8::max).min(count);
        self.told = self.told.min(count);
        if wanted > self.told {
            self.raised = Some((now, self.told));
        } else if wanted == self.told
            || now.saturating_duration_since(*self.lower_since.get_or_insert(now)) < HOLD
        {
            if wanted == self.told {
                self.lower_since = None;
            }
            return None;
        }
        self.lower_since = None;
        self.told = wanted;
        Some(wanted)
    }

    /// Whether it is no wonder that an encoding does not arrive: its publisher was asked not to send it, or to begin
    /// again only just now.
    pub fn excuses(&self, now: Instant, encoding: EncodingId) -> bool {
        let is_returning =
            |(at, before): (Instant, u8)| encoding.0 >= before && now.saturating_duration_since(at) < RETURN;
        encoding.0 >= self.told || self.raised.is_some_and(is_returning)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    const STEP: Duration = Duration::from_millis(500);

    #[test]
    fn more_is_told_at_once_and_less_after_a_while() {
        let (mut demand, start) = (Demand::default(), epoch());
        assert_eq!(demand.update(start, 3, 3), None, "it sends everything anyway");
        assert_eq!(demand.update(start + STEP, 1, 3), None);
        assert_eq!(demand.update(start + STEP + HOLD - STEP, 1, 3), None);
        assert_eq!(demand.update(start + STEP + HOLD, 1, 3), Some(1));
        assert_eq!(demand.update(start + 2 * HOLD, 2, 3), Some(2));
        assert_eq!(demand.update(start + 2 * HOLD, 2, 3), None, "once");
    }

    #[test]
    fn who_looks_away_for_a_moment_stops_nothing() {
        let (mut demand, start) = (Demand::default(), epoch());
        for round in 0..20 {
            let at = start + HOLD * round;
            assert_eq!(demand.update(at, 0, 3), None);
            assert_eq!(demand.update(at + HOLD - STEP, 3, 3), None);
        }
    }

    #[test]
    fn other_threads_count_until_they_are_gone() {
        let (mut demand, start) = (Demand::default(), epoch());
        demand.set_peer(1, Some(2));
        demand.update(start, 0, 3);
        assert_eq!(demand.update(start + HOLD, 0, 3), Some(2));
        demand.set_peer(1, None);
        demand.update(start + HOLD, 0, 3);
        assert_eq!(demand.update(start + 2 * HOLD, 0, 3), Some(0));
    }

    #[test]
    fn what_was_stopped_may_be_missing_and_for_a_while_what_begins_again() {
        let (mut demand, start) = (Demand::default(), epoch());
        assert!(!demand.excuses(start, EncodingId(2)));
        demand.update(start, 1, 3);
        demand.update(start + HOLD, 1, 3);
        assert!(demand.excuses(start + HOLD, EncodingId(1)) && !demand.excuses(start + HOLD, EncodingId(0)));
        let again = start + 3 * HOLD;
        demand.update(again, 3, 3);
        assert!(demand.excuses(again + STEP, EncodingId(2)));
        assert!(!demand.excuses(again + STEP, EncodingId(0)));
        assert!(!demand.excuses(again + RETURN, EncodingId(2)));
    }

    proptest! {
        #[test]
        fn the_publisher_always_sends_what_is_wanted(steps in proptest::collection::vec((0u64..3000, 0u8..5), 1..200)) {
            let (mut demand, mut now) = (Demand::default(), epoch());
            let mut told = MAX_ENCODINGS;
            for (wait, wanted) in steps {
                now += Duration::from_millis(wait);
                if let Some(change) = demand.update(now, wanted, 3) {
                    prop_assert_ne!(change, told);
                    told = change;
                }
                prop_assert!(told >= wanted.min(MAX_ENCODINGS));
            }
        }
    }
}
