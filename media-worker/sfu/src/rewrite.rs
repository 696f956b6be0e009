//! Continuity: what one subscription sees has no gaps and no jumps that the network did not make.
//!
//! Numbers and times are shifted by offsets that change when the stream (re)starts: at its first packet, after a pause
//! (mute, waiting for a keyframe), when the publisher's SSRC changes and when the subscription changes to another
//! encoding. Between starts, what is withheld leaves no gap, and a lost packet stays one, so that the subscriber can ask
//! for it and its late arrival fits in ([`Numbering`]).
//!
//! Two encodings of one track have clocks with different origins. Their sender reports say how they relate; where they
//! have not come yet, the time of arrival does.

use std::time::{Duration, Instant};

use crate::numbering::Numbering;
use crate::{Sequence, Timestamp};

/// The first number sent: low, so that the roll-over counter is certain (RFC 3711, section 3.3.1).
const FIRST_SEQUENCE: Sequence = Sequence(1);
/// Sender reports that put a frame farther from its time of arrival than this are not believed.
const MAX_SHIFT: Duration = Duration::from_secs(1);

/// One subscription's numbering.
#[derive(Debug, Clone, Default)]
pub struct Rewriter {
    /// The SSRC of what is being sent.
    source: Option<u32>,
    numbering: Numbering,
    timestamp_offset: u32,
    last: Option<Last>,
    /// Packets were withheld: the next one continues the numbering instead of showing a gap.
    restart: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: Sequence,
    timestamp: Timestamp,
    at: Instant,
}

impl Rewriter {
    /// Says that packets are being withheld from now on.
    pub fn pause(&mut self) {
        self.restart = true;
    }

    /// What comes next is of another publication, even if its SSRC is by chance the same.
    pub fn forget_source(&mut self) {
        self.source = None;
    }

    /// Whether the next packet (re)starts the numbering, whatever its source.
    pub fn is_starting(&self) -> bool {
        self.restart || self.source.is_none()
    }

    /// Whether a packet of this source (re)starts the numbering.
    pub fn starts(&self, ssrc: u32) -> bool {
        self.restart || self.source != Some(ssrc)
    }

    /// The SSRC of what is being sent.
    pub fn source(&self) -> Option<u32> {
        self.source
    }

    /// (Re)starts with a packet. `ahead`: by how much the clock of the source before it is ahead of this one's, where
    /// their sender reports say so.
    pub fn start(
        &mut self,
        now: Instant,
        ssrc: u32,
        sequence: Sequence,
        timestamp: Timestamp,
        clock_rate: u32,
        ahead: Option<u32>,
    ) {
        let next = self.last.map_or(FIRST_SEQUENCE, |last| last.sequence.plus(1));
        self.numbering.start(sequence, next);
        self.restart = false;
        // A source's own clock runs on through a pause.
        if self.source.replace(ssrc) == Some(ssrc) {
            return;
        }
        let Some(last) = self.last else { return };
        let arrived = last.timestamp.plus(ticks(now.saturating_duration_since(last.at), clock_rate));
        let reported = ahead
            .map(|ahead| timestamp.plus(self.timestamp_offset).plus(ahead))
            .filter(|at| at.since(arrived).unsigned_abs() <= ticks(MAX_SHIFT, clock_rate));
        let sent = reported.unwrap_or(arrived);
        // Two pictures never have the same time, not even when they are of the same instant in two encodings.
        let sent = if sent.is_newer_than(last.timestamp) { sent } else { last.timestamp.plus(1) };
        self.timestamp_offset = sent.offset_from(timestamp);
    }

    /// The numbers under which a packet of the current source goes out. `None` when it is older than the last
    /// (re)start, or was withheld.
    pub fn rewrite(
        &mut self,
        now: Instant,
        sequence: Sequence,
        timestamp: Timestamp,
    ) -> Option<(Sequence, Timestamp)> {
        let out = (self.numbering.number(sequence)?, self.sent_time(timestamp));
        if self.last.is_none_or(|last| out.0.is_newer_than(last.sequence)) {
            self.last = Some(Last { sequence: out.0, timestamp: out.1, at: now });
        }
        Some(out)
    }

    /// Leaves a packet of the current source out.
    pub fn withhold(&mut self, sequence: Sequence) {
        self.numbering.withhold(sequence);
    }

    /// A time of the current source, as it is sent.
    pub fn sent_time(&self, timestamp: Timestamp) -> Timestamp {
        timestamp.plus(self.timestamp_offset)
    }
}

fn ticks(elapsed: Duration, clock_rate: u32) -> u32 {
    // Truncation to 32 bits is the wrap that timestamps have anyway.
    (elapsed.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The core itself never reads a clock; a test needs some instant to count from.
    #[allow(clippy::disallowed_methods)]
    fn epoch() -> Instant {
        Instant::now()
    }

    const CLOCK: u32 = 90_000;

    /// Starts where it must, without sender reports.
    fn rewrite(
        rewriter: &mut Rewriter,
        now: Instant,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
    ) -> Option<(u16, u32)> {
        let (sequence, timestamp) = (Sequence(sequence), Timestamp(timestamp));
        if rewriter.starts(ssrc) {
            rewriter.start(now, ssrc, sequence, timestamp, CLOCK, None);
        }
        rewriter.rewrite(now, sequence, timestamp).map(|(sequence, timestamp)| (sequence.0, timestamp.0))
    }

    #[test]
    fn a_lost_packet_stays_a_gap_and_its_late_copy_fits_in() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        let mut out = |sequence| rewrite(&mut rewriter, now, 1, sequence, 0).map(|(sequence, _)| sequence);
        assert_eq!([out(100), out(102), out(101), out(103)], [Some(1), Some(3), Some(2), Some(4)]);
    }

    #[test]
    fn a_pause_leaves_no_gap_in_numbers_but_keeps_the_clock() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        assert_eq!(rewrite(&mut rewriter, now, 1, 10, 1000), Some((1, 1000)));
        rewriter.pause();
        assert_eq!(rewrite(&mut rewriter, now, 1, 500, 91_000), Some((2, 91_000)));
        assert_eq!(rewrite(&mut rewriter, now, 1, 499, 90_000), None, "from the time of the pause");
    }

    #[test]
    fn another_source_continues_in_numbers_and_in_time() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        rewrite(&mut rewriter, now, 1, 10, 1000);
        let later = now + Duration::from_millis(100);
        assert_eq!(rewrite(&mut rewriter, later, 2, 60_000, 7), Some((2, 10_000)));
    }

    #[test]
    fn another_encoding_continues_in_the_time_that_sender_reports_say() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        rewrite(&mut rewriter, now, 1, 10, 1000);
        // A frame of 40 ms later that arrives after 100 ms; the first source's clock is 5000 ahead.
        let later = now + Duration::from_millis(100);
        rewriter.start(later, 2, Sequence(7), Timestamp(4600u32.wrapping_sub(5000)), CLOCK, Some(5000));
        let sent = rewriter.rewrite(later, Sequence(7), Timestamp(4600u32.wrapping_sub(5000)));
        assert_eq!(sent, Some((Sequence(2), Timestamp(4600))));
        // The same instant in a third one: time does not stand still.
        rewriter.start(later, 3, Sequence(7), Timestamp(4600), CLOCK, Some(0u32.wrapping_sub(5000)));
        let sent = rewriter.rewrite(later, Sequence(7), Timestamp(4600));
        assert_eq!(sent.map(|it| it.1), Some(Timestamp(4601)));
        // Reports that cannot be true are not believed.
        rewriter.start(later, 4, Sequence(7), Timestamp(0), CLOCK, Some(900_000));
        assert_eq!(rewriter.rewrite(later, Sequence(7), Timestamp(0)).map(|it| it.1), Some(Timestamp(4602)));
    }

    proptest! {
        #[test]
        fn in_order_packets_leave_in_order_without_gaps_through_any_pauses_sources_and_withheld_ones(
            start: u16,
            steps in proptest::collection::vec((0u8..8, any::<u32>(), 0u64..50, any::<Option<u32>>()), 1..200),
        ) {
            let (mut rewriter, mut now) = (Rewriter::default(), epoch());
            let (mut ssrc, mut sequence, mut expected) = (1u32, Sequence(start), 1u16);
            let mut last: Option<Timestamp> = None;
            for (what, timestamp, wait, ahead) in steps {
                now += Duration::from_millis(wait);
                match what {
                    0 => { rewriter.pause(); sequence = sequence.plus(timestamp as u16 & 0x0fff); }
                    1 => { ssrc += 1; sequence = Sequence(timestamp as u16); }
                    2 if !rewriter.starts(ssrc) => {
                        rewriter.withhold(sequence);
                        sequence = sequence.plus(1);
                        continue;
                    }
                    _ => {}
                }
                let is_other = rewriter.source() != Some(ssrc);
                if rewriter.starts(ssrc) {
                    rewriter.start(now, ssrc, sequence, Timestamp(timestamp), CLOCK, ahead);
                }
                let (out, at) = rewriter.rewrite(now, sequence, Timestamp(timestamp)).unwrap();
                prop_assert_eq!(out, Sequence(expected));
                if is_other && let Some(last) = last {
                    prop_assert!(at.is_newer_than(last), "another source goes on, however its clock stands");
                    prop_assert!(at.since(last) <= ticks(MAX_SHIFT, CLOCK) as i32 * 2);
                }
                last = Some(at);
                sequence = sequence.plus(1);
                expected = expected.wrapping_add(1);
            }
        }

        #[test]
        fn runs_through_many_wraps_without_dropping(start: u16) {
            let (mut rewriter, now) = (Rewriter::default(), epoch());
            let mut expected = 1u16;
            for step in 0..140_000u32 {
                let out = rewrite(&mut rewriter, now, 9, start.wrapping_add(step as u16), step);
                prop_assert_eq!(out.map(|out| out.0), Some(expected));
                expected = expected.wrapping_add(1);
            }
        }

        #[test]
        fn never_panics(
            packets in proptest::collection::vec((0u32..3, any::<u16>(), any::<u32>(), 0u8..4), 0..100)
        ) {
            let (mut rewriter, now) = (Rewriter::default(), epoch());
            for (ssrc, sequence, timestamp, what) in packets {
                match what {
                    0 => rewriter.pause(),
                    1 => rewriter.withhold(Sequence(sequence)),
                    _ => drop(rewrite(&mut rewriter, now, ssrc, sequence, timestamp)),
                }
            }
        }
    }
}
