//! Continuity: what one subscription sees has no gaps and no jumps that the network did not make.
//!
//! Numbers are shifted by offsets that change only when the stream (re)starts: at its first packet, after
//! a pause (mute, waiting for a keyframe) and when the publisher's SSRC changes. Between starts a lost
//! packet stays a gap, so that the subscriber can ask for it and its late arrival fits in.

use std::time::{Duration, Instant};

use crate::{Sequence, Timestamp};

/// The first number sent: low, so that the roll-over counter is certain (RFC 3711, section 3.3.1).
const FIRST_SEQUENCE: Sequence = Sequence(1);

/// One subscription's numbering.
#[derive(Debug, Clone, Default)]
pub struct Rewriter {
    source: Option<Source>,
    last: Option<Last>,
    /// Packets were withheld: the next one continues the numbering instead of showing a gap.
    restart: bool,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    ssrc: u32,
    /// The source's number at the (re)start; older packets belong to what was withheld.
    first: Sequence,
    /// The newest seen; moves `first` along, so that it stays comparable when numbers wrap.
    newest: Sequence,
    sequence_offset: u16,
    timestamp_offset: u32,
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

    /// Whether the next packet (re)starts the numbering.
    pub fn is_starting(&self) -> bool {
        self.restart || self.source.is_none()
    }

    /// The numbers under which a packet goes out, or `None` when it is older than the last (re)start.
    pub fn rewrite(
        &mut self,
        now: Instant,
        ssrc: u32,
        sequence: Sequence,
        timestamp: Timestamp,
        clock_rate: u32,
    ) -> Option<(Sequence, Timestamp)> {
        let same_source = self.source.filter(|source| source.ssrc == ssrc);
        let source = match same_source {
            Some(source) if !self.restart => source,
            _ => self.start(now, same_source, ssrc, sequence, timestamp, clock_rate),
        };
        if source.first.is_newer_than(sequence) {
            return None;
        }
        let out = (sequence.plus(source.sequence_offset), timestamp.plus(source.timestamp_offset));
        self.advance(source, sequence);
        if self.last.is_none_or(|last| out.0.is_newer_than(last.sequence)) {
            self.last = Some(Last { sequence: out.0, timestamp: out.1, at: now });
        }
        Some(out)
    }

    fn start(
        &mut self,
        now: Instant,
        same_source: Option<Source>,
        ssrc: u32,
        sequence: Sequence,
        timestamp: Timestamp,
        clock_rate: u32,
    ) -> Source {
        self.restart = false;
        let next = self.last.map_or(FIRST_SEQUENCE, |last| last.sequence.plus(1));
        let timestamp_offset = match (same_source, self.last) {
            // The source's own clock ran on through the pause.
            (Some(source), _) => source.timestamp_offset,
            (None, Some(last)) => {
                let elapsed = ticks(now.saturating_duration_since(last.at), clock_rate).max(1);
                last.timestamp.plus(elapsed).offset_from(timestamp)
            }
            (None, None) => 0,
        };
        let source = Source {
            ssrc,
            first: sequence,
            newest: sequence,
            sequence_offset: next.offset_from(sequence),
            timestamp_offset,
        };
        self.source = Some(source);
        source
    }

    fn advance(&mut self, mut source: Source, sequence: Sequence) {
        /// How far `first` may fall behind before it is pulled along; far more than any late packet.
        const WINDOW: i16 = 0x2000;
        if sequence.is_newer_than(source.newest) {
            source.newest = sequence;
            if source.newest.since(source.first) > WINDOW {
                source.first = Sequence(source.newest.0.wrapping_sub(WINDOW as u16));
            }
            self.source = Some(source);
        }
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

    #[test]
    fn a_lost_packet_stays_a_gap_and_its_late_copy_fits_in() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        let mut out = |sequence| {
            rewriter.rewrite(now, 1, Sequence(sequence), Timestamp(0), CLOCK).map(|(sequence, _)| sequence.0)
        };
        assert_eq!([out(100), out(102), out(101), out(103)], [Some(1), Some(3), Some(2), Some(4)]);
    }

    #[test]
    fn a_pause_leaves_no_gap_in_numbers_but_keeps_the_clock() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        assert_eq!(
            rewriter.rewrite(now, 1, Sequence(10), Timestamp(1000), CLOCK),
            Some((Sequence(1), Timestamp(1000)))
        );
        rewriter.pause();
        assert_eq!(
            rewriter.rewrite(now, 1, Sequence(500), Timestamp(91_000), CLOCK),
            Some((Sequence(2), Timestamp(91_000)))
        );
        assert_eq!(
            rewriter.rewrite(now, 1, Sequence(499), Timestamp(90_000), CLOCK),
            None,
            "from the time of the pause"
        );
    }

    #[test]
    fn another_source_continues_in_numbers_and_in_time() {
        let (mut rewriter, now) = (Rewriter::default(), epoch());
        rewriter.rewrite(now, 1, Sequence(10), Timestamp(1000), CLOCK);
        let later = now + Duration::from_millis(100);
        assert_eq!(
            rewriter.rewrite(later, 2, Sequence(60_000), Timestamp(7), CLOCK),
            Some((Sequence(2), Timestamp(10_000)))
        );
    }

    proptest! {
        #[test]
        fn in_order_packets_leave_in_order_without_gaps_through_any_pauses_and_sources(
            start: u16,
            steps in proptest::collection::vec((0u8..8, any::<u32>(), 0u64..50), 1..200),
        ) {
            let (mut rewriter, mut now) = (Rewriter::default(), epoch());
            let (mut ssrc, mut sequence, mut expected) = (1u32, Sequence(start), 1u16);
            for (what, timestamp, wait) in steps {
                now += Duration::from_millis(wait);
                match what {
                    0 => { rewriter.pause(); sequence = sequence.plus(timestamp as u16 & 0x0fff); }
                    1 => { ssrc += 1; sequence = Sequence(timestamp as u16); }
                    _ => {}
                }
                let (out, _) = rewriter.rewrite(now, ssrc, sequence, Timestamp(timestamp), CLOCK).unwrap();
                prop_assert_eq!(out, Sequence(expected));
                sequence = sequence.plus(1);
                expected = expected.wrapping_add(1);
            }
        }

        #[test]
        fn runs_through_many_wraps_without_dropping(start: u16) {
            let (mut rewriter, now) = (Rewriter::default(), epoch());
            let mut expected = Sequence(1);
            for step in 0..140_000u32 {
                let sequence = Sequence(start.wrapping_add(step as u16));
                let out = rewriter.rewrite(now, 9, sequence, Timestamp(step), CLOCK);
                prop_assert_eq!(out.map(|out| out.0), Some(expected));
                expected = expected.plus(1);
            }
        }

        #[test]
        fn never_panics(
            packets in proptest::collection::vec((0u32..3, any::<u16>(), any::<u32>(), any::<bool>()), 0..100)
        ) {
            let (mut rewriter, now) = (Rewriter::default(), epoch());
            for (ssrc, sequence, timestamp, pause) in packets {
                if pause { rewriter.pause(); }
                rewriter.rewrite(now, ssrc, Sequence(sequence), Timestamp(timestamp), CLOCK);
            }
        }
    }
}
