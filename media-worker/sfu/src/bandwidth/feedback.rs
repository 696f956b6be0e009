//! What was sent under which transport-wide number, and what a feedback says became of it
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::collections::VecDeque;

use super::Micros;
use crate::wrapping::Sequence;

/// Packets that wait for feedback; with more, the oldest are given up. 16 bytes each.
pub const MAX_WAITING: usize = 4096;
/// How long a packet's fate is of interest.
const KEEP: Micros = 3_000_000;
/// The arrival clock's reference time has 24 bits of 64 ms (section 3.1 of the draft).
const REFERENCE: Micros = 64_000;
const REFERENCE_BITS: u32 = 24;
/// Packets that one feedback can speak of; what claims more is not believed. One second of 40 Mbit/s.
const MAX_STATUSES: usize = 4096;

/// One decoded transport-wide feedback.
pub struct Feedback<A> {
    /// In units of 64 ms of the receiver's clock; 24 bits that wrap.
    pub reference: u32,
    /// Each number with its arrival in µs after the reference, or `None` when it has not arrived; in
    /// the order of numbers.
    pub arrivals: A,
}

/// A packet that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub sent: Micros,
    /// By the receiver's clock; only differences mean something.
    pub arrived: Micros,
    /// In bytes.
    pub size: u16,
    /// The probe that it was part of.
    pub cluster: Option<u8>,
}

/// What a feedback told that was not known before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub received: u32,
    /// Without those that are found to have arrived after all.
    pub lost: i32,
    /// When the newest of the packets that arrived was sent.
    pub newest_sent: Option<Micros>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Lost,
    Arrived,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Micros,
    size: u16,
    cluster: Option<u8>,
    fate: Fate,
}

/// The sent packets whose fate is open, and those whose fate may still be corrected.
#[derive(Debug, Default)]
pub struct History {
    sent: VecDeque<Sent>,
    /// The number of the next packet; the low 16 bits are on the wire.
    next: i64,
    /// Unwrapped, in units of 64 ms.
    reference: Option<i64>,
}

impl History {
    /// The number that the next packet gets.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.next as u16)
    }

    /// Notes a packet that goes out now, and numbers it.
    pub fn push(&mut self, now: Micros, size: usize, cluster: Option<u8>) -> Sequence {
        while self.sent.len() >= MAX_WAITING || self.sent.front().is_some_and(|it| now - it.at > KEEP) {
            self.sent.pop_front();
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.sent.push_back(Sent { at: now, size, cluster, fate: Fate::Unknown });
        self.next += 1;
        Sequence((self.next - 1) as u16)
    }

    /// Bytes that were sent and of which nothing is known yet.
    #[cfg(test)]
    pub fn in_flight(&self) -> usize {
        self.sent.iter().filter(|it| it.fate == Fate::Unknown).map(|it| usize::from(it.size)).sum()
    }

    /// Calls `arrived` for every packet that a feedback tells about for the first time. Numbers that
    /// were never sent, or so long ago that they are forgotten, are passed over.
    pub fn handle_feedback(
        &mut self,
        feedback: Feedback<impl Iterator<Item = (Sequence, Option<Micros>)>>,
        mut arrived: impl FnMut(Arrival),
    ) -> Outcome {
        let base = self.unwrap_reference(feedback.reference) * REFERENCE;
        let mut outcome = Outcome::default();
        for (sequence, arrival) in feedback.arrivals.take(MAX_STATUSES) {
            let newest = self.next - 1;
            let number = newest + i64::from(sequence.since(Sequence(newest as u16)));
            let first = self.next - self.sent.len() as i64;
            let Ok(place) = usize::try_from(number - first) else { continue };
            let Some(sent) = self.sent.get_mut(place) else { continue };
            match (sent.fate, arrival) {
                (Fate::Arrived, _) | (Fate::Lost, None) => {}
                (Fate::Unknown, None) => {
                    sent.fate = Fate::Lost;
                    outcome.lost += 1;
                }
                (before, Some(after)) => {
                    outcome.lost -= i32::from(before == Fate::Lost);
                    outcome.received += 1;
                    sent.fate = Fate::Arrived;
                    outcome.newest_sent = outcome.newest_sent.max(Some(sent.at));
                    let arrived_at = base.saturating_add(after);
                    let (sent, size, cluster) = (sent.at, sent.size, sent.cluster);
                    arrived(Arrival { sent, arrived: arrived_at, size, cluster });
                }
            }
        }
        outcome
    }

    fn unwrap_reference(&mut self, reference: u32) -> i64 {
        let shift = 32 - REFERENCE_BITS;
        let unwrapped = match self.reference {
            // The difference of 24-bit numbers, with its sign. Far out, where only made-up times lead, it
            // begins again.
            Some(last) if last.abs() < 1 << 40 => {
                last + i64::from((reference.wrapping_sub(last as u32) << shift) as i32 >> shift)
            }
            _ => i64::from(reference & 0xff_ffff),
        };
        self.reference = Some(unwrapped);
        unwrapped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(
        history: &mut History,
        reference: u32,
        arrivals: &[(u16, Option<Micros>)],
    ) -> (Outcome, Vec<Micros>) {
        let mut all = Vec::new();
        let arrivals = arrivals.iter().map(|(number, at)| (Sequence(*number), *at));
        let outcome = history.handle_feedback(Feedback { reference, arrivals }, |it| all.push(it.arrived));
        (outcome, all)
    }

    #[test]
    fn each_fate_is_told_once_and_a_late_arrival_takes_a_loss_back() {
        let mut history = History::default();
        for at in 0..4 {
            assert_eq!(history.push(at * 1000, 500, None).0, at as u16);
        }
        assert_eq!(history.in_flight(), 2000);
        let (outcome, arrivals) = told(&mut history, 1, &[(0, Some(5)), (1, None), (2, Some(900))]);
        assert_eq!(outcome, Outcome { received: 2, lost: 1, newest_sent: Some(2000) });
        assert_eq!(arrivals, [64_005, 64_900]);
        let (outcome, _) = told(&mut history, 1, &[(0, Some(5)), (1, Some(7)), (2, None)]);
        assert_eq!(outcome, Outcome { received: 1, lost: -1, newest_sent: Some(1000) });
        assert_eq!(history.in_flight(), 500);
    }

    #[test]
    fn numbers_and_reference_time_wrap() {
        let mut history = History::default();
        for _ in 0..65_540 {
            history.push(0, 100, None);
        }
        let (outcome, before) = told(&mut history, 0xff_ffff, &[(65_535, Some(0)), (0, Some(0))]);
        assert_eq!(outcome.received, 2);
        let (_, after) = told(&mut history, 0, &[(1, Some(0))]);
        assert_eq!(after[0] - before[1], REFERENCE);
        let (_, earlier) = told(&mut history, 0xff_ffff, &[(2, Some(0))]);
        assert_eq!(earlier[0], before[0], "a feedback that was overtaken");
    }

    #[test]
    fn is_bounded_and_forgets_what_is_old() {
        let mut history = History::default();
        for _ in 0..2 * MAX_WAITING {
            history.push(0, 100, None);
        }
        assert_eq!(history.sent.len(), MAX_WAITING);
        history.push(KEEP + 1, 100, None);
        assert_eq!(history.sent.len(), 1);
        let never_sent = told(&mut history, 0, &[(3, Some(0)), (9000, Some(0))]);
        assert_eq!(never_sent.0, Outcome::default());
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_counts_at_most_once(
            claims in proptest::collection::vec((any::<u16>(), any::<Option<i64>>(), any::<u32>()), 0..200),
        ) {
            let mut history = History::default();
            for _ in 0..100 {
                history.push(0, 100, None);
            }
            let (mut received, mut lost) = (0, 0);
            for (number, at, reference) in claims {
                let (outcome, _) = told(&mut history, reference, &[(number % 200, at)]);
                received += outcome.received;
                lost += outcome.lost;
            }
            prop_assert!(lost >= 0 && received + lost as u32 <= 100);
        }
    }
}
