//! Numbers of one source, shifted so that what is withheld on purpose leaves no gap.
//!
//! ```text
//!   received   10  11  12* 13* 14  16  17      * withheld
//!   sent        1   2           3   5   6      15 is lost: it stays a gap, and fits in when it comes late
//! ```
//!
//! Numbers that come late are given what their place had, as far back as [`MEMORY`] runs of withheld numbers; what is
//! older, and what was withheld, gets none.

use std::collections::VecDeque;

use crate::Sequence;

/// Runs of withheld numbers that are remembered: about a second, when every second picture is withheld.
pub const MEMORY: usize = 32;
/// How far behind the newest number a late one may be; far more than any late packet is.
const WINDOW: i16 = 0x2000;

/// See the module.
#[derive(Debug, Clone)]
pub struct Numbering {
    /// Older numbers are given none.
    first: Sequence,
    /// The newest that was given a number or withheld.
    newest: Sequence,
    /// What is added to `first` and those behind it, up to the first step.
    base: u16,
    steps: VecDeque<Step>,
}

/// A run of withheld numbers ends.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The number behind the run.
    from: Sequence,
    /// How many were withheld, right in front of it.
    withheld: u16,
    /// What is added from here on.
    offset: u16,
}

impl Default for Numbering {
    fn default() -> Self {
        Self { first: Sequence(0), newest: Sequence(0), base: 0, steps: VecDeque::new() }
    }
}

impl Numbering {
    /// Starts at `first`, which will be sent as `sent`.
    pub fn start(&mut self, first: Sequence, sent: Sequence) {
        self.first = first;
        self.newest = first.plus(u16::MAX);
        self.base = sent.offset_from(first);
        self.steps.clear();
    }

    pub fn newest(&self) -> Sequence {
        self.newest
    }

    /// What a number is sent as. `None` when it was withheld or is too old.
    pub fn number(&mut self, received: Sequence) -> Option<Sequence> {
        if received.is_newer_than(self.newest) {
            self.advance(received);
            return Some(received.plus(self.offset()));
        }
        if self.first.is_newer_than(received) {
            return None;
        }
        for step in self.steps.iter().rev() {
            if !step.from.is_newer_than(received) {
                return Some(received.plus(step.offset));
            }
            if step.from.since(received) as u16 <= step.withheld {
                return None;
            }
        }
        Some(received.plus(self.base))
    }

    /// Leaves a number out. One that comes late has its place already, which stays a gap.
    pub fn withhold(&mut self, received: Sequence) {
        if !received.is_newer_than(self.newest) {
            return;
        }
        let offset = self.offset().wrapping_sub(1);
        self.advance(received);
        let from = received.plus(1);
        if let Some(last) = self.steps.back_mut()
            && last.from == received
        {
            *last = Step { from, withheld: last.withheld.saturating_add(1), offset };
            return;
        }
        if self.steps.len() == MEMORY {
            self.forget_oldest();
        } else if self.steps.capacity() == 0 {
            self.steps.reserve_exact(MEMORY);
        }
        self.steps.push_back(Step { from, withheld: 1, offset });
    }

    fn offset(&self) -> u16 {
        self.steps.back().map_or(self.base, |step| step.offset)
    }

    fn advance(&mut self, newest: Sequence) {
        self.newest = newest;
        if newest.since(self.first) > WINDOW {
            self.first = Sequence(newest.0.wrapping_sub(WINDOW as u16));
            while self.steps.front().is_some_and(|step| !step.from.is_newer_than(self.first)) {
                let first = self.first;
                self.forget_oldest();
                self.first = first;
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            (self.first, self.base) = (step.from, step.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn withheld_numbers_leave_no_gap_and_lost_ones_do() {
        let mut numbering = Numbering::default();
        numbering.start(Sequence(10), Sequence(1));
        let mut sent = |received: u16, withheld: bool| {
            if withheld {
                numbering.withhold(Sequence(received));
                return None;
            }
            numbering.number(Sequence(received)).map(|it| it.0)
        };
        assert_eq!([sent(10, false), sent(11, false)], [Some(1), Some(2)]);
        assert_eq!(
            [sent(12, true), sent(13, true), sent(14, false), sent(16, false)],
            [None, None, Some(3), Some(5)]
        );
        assert_eq!([sent(15, false), sent(17, false)], [Some(4), Some(6)], "late, it fits in");
        assert_eq!([sent(13, false), sent(9, false)], [None, None], "withheld, and before the start");
        assert_eq!([sent(11, false), sent(14, false)], [Some(2), Some(3)], "again, as before");
    }

    proptest! {
        /// Whatever is lost, late, repeated or withheld: each received number keeps one sent number, different numbers have
        /// different ones in the same order, and in order without losses there is no gap.
        #[test]
        fn sent_numbers_are_unique_ordered_and_stable(
            start: u16, sent: u16,
            steps in proptest::collection::vec((0u8..10, any::<bool>(), 1u16..40), 1..600),
        ) {
            let mut numbering = Numbering::default();
            numbering.start(Sequence(start), Sequence(sent));
            let (mut next, mut given) = (0u64, HashMap::<u64, u64>::new());
            let mut withheld = std::collections::HashSet::new();
            let wrapped = |number: u64| Sequence(start).plus(number as u16);
            let ahead = |number: Sequence| u64::from(number.offset_from(Sequence(sent)));
            let (mut expected, mut lossless) = (0u64, true);
            for (what, withhold, distance) in steps {
                let number = match what {
                    0 => { lossless = false; next += u64::from(distance); next }
                    1 if next > u64::from(distance) => next - u64::from(distance),
                    _ => next,
                };
                let is_new = number >= next;
                next = next.max(number + 1);
                if withhold {
                    if is_new { withheld.insert(number); }
                    numbering.withhold(wrapped(number));
                    continue;
                }
                match numbering.number(wrapped(number)).map(ahead) {
                    Some(out) => {
                        prop_assert!(!withheld.contains(&number));
                        prop_assert_eq!(*given.entry(number).or_insert(out), out);
                        if lossless && is_new {
                            prop_assert_eq!(out, expected);
                        }
                        if is_new { expected = out + 1; }
                    }
                    None => prop_assert!(!is_new),
                }
            }
            let mut all: Vec<_> = given.into_iter().collect();
            all.sort_unstable();
            prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1));
        }

        #[test]
        fn memory_is_bounded(numbers in proptest::collection::vec((any::<u16>(), any::<bool>()), 0..500)) {
            let mut numbering = Numbering::default();
            numbering.start(Sequence(0), Sequence(1));
            for (number, withhold) in numbers {
                if withhold { numbering.withhold(Sequence(number)) } else { numbering.number(Sequence(number)); }
                prop_assert!(numbering.steps.len() <= MEMORY && numbering.steps.capacity() <= MEMORY);
            }
        }
    }
}
