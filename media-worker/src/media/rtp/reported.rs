//! What a client reports of one stream that it receives: loss, jitter, and from it the round-trip time (RFC 3550, section 6.4.1).
//!
//! A report names the sender report that it last got by the middle of its NTP time, and how long ago that was. The NTP
//! times in our sender reports are the publishers', so the moment at which each was sent is noted beside it.

use std::time::{Duration, Instant};

use super::rtcp::ReportBlock;

/// Sender reports that can still be answered: those of some seconds.
const REPORTS: usize = 4;
/// Clocks and units are rounded: an answer may seem to come this much before the question.
const ROUNDING: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    /// Middle 32 bits of the NTP time, and when it was sent; a ring.
    sent: [Option<(u32, Instant)>; REPORTS],
    next: usize,
    last: Option<(ReportBlock, Instant)>,
    round_trip: Option<Duration>,
}

impl Reported {
    /// Notes a sender report of ours.
    pub fn note_sent(&mut self, now: Instant, ntp: u64) {
        self.sent[self.next] = Some((middle(ntp), now));
        self.next = (self.next + 1) % REPORTS;
    }

    /// Takes a report of the client.
    pub fn handle(&mut self, now: Instant, block: ReportBlock) {
        // 0: it has got no sender report yet.
        let named =
            self.sent.iter().flatten().filter(|(ntp, _)| *ntp != 0 && *ntp == block.last_sender_report);
        if let Some(sent) = named.map(|(_, sent)| sent).max() {
            let held = Duration::from_secs_f64(f64::from(block.since_last_sender_report) / 65_536.0);
            let elapsed = now.saturating_duration_since(*sent);
            // What claims to have held it for longer than it was away is wrong.
            if held <= elapsed + ROUNDING {
                self.round_trip = Some(elapsed.saturating_sub(held));
            }
        }
        self.last = Some((block, now));
    }

    /// The last report, and when it came.
    pub fn last(&self) -> Option<(&ReportBlock, Instant)> {
        self.last.as_ref().map(|(block, at)| (block, *at))
    }

    /// Of the last report that answered a sender report.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

fn middle(ntp: u64) -> u32 {
    // The middle is what is left when both ends are cut off.
    (ntp >> 16) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(last_sender_report: u32, since_last_sender_report: u32) -> ReportBlock {
        ReportBlock {
            ssrc: 1,
            fraction_lost: 0,
            total_lost: 0,
            extended_highest: 0,
            jitter: 0,
            last_sender_report,
            since_last_sender_report,
        }
    }

    fn round_trip_ms(reported: &Reported) -> Option<u128> {
        reported.round_trip().map(|it| it.as_millis())
    }

    #[test]
    fn the_round_trip_is_what_is_left_of_the_time_that_the_client_held_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut reported = Reported::default();
        reported.handle(at(0), block(0, 0));
        assert_eq!(round_trip_ms(&reported), None, "it has got none yet");
        // The middle of the NTP time wraps every 18 hours: these are the last before and the first after that.
        for (sent, ntp) in [(100, 0x0001_ffff_ffff_0000u64), (1100, 0x0002_0000_0001_0000)] {
            reported.note_sent(at(sent), ntp);
        }
        reported.handle(at(690), block(0xffff_ffff, 65_536 / 2));
        assert_eq!(round_trip_ms(&reported), Some(90));
        reported.handle(at(1620), block(0x0000_0001, 65_536 / 2));
        assert_eq!(round_trip_ms(&reported), Some(20));
        // Unknown, or held for longer than it was away: the last one stays.
        reported.handle(at(1700), block(0x1234, 0));
        reported.handle(at(1700), block(0x0000_0001, u32::MAX));
        assert_eq!(round_trip_ms(&reported), Some(20));
        assert!(reported.last().is_some_and(|(_, when)| when == at(1700)));
        // Rounded to below nothing.
        reported.handle(at(1700), block(0x0000_0001, 65_536 * 603 / 1000));
        assert_eq!(round_trip_ms(&reported), Some(0));
    }

    #[test]
    fn of_reports_with_one_time_the_newest_counts_and_old_ones_are_forgotten() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut reported = Reported::default();
        // A publisher whose clock stands still.
        reported.note_sent(at(0), 7 << 16);
        reported.note_sent(at(500), 7 << 16);
        reported.handle(at(530), block(7, 0));
        assert_eq!(round_trip_ms(&reported), Some(30));
        (0..REPORTS as u64).for_each(|it| reported.note_sent(at(1000 + it), (9 + it) << 16));
        reported.handle(at(5000), block(7, 0));
        assert_eq!(round_trip_ms(&reported), Some(30), "not 4500");
    }

    proptest! {
        #[test]
        fn no_report_panics_or_makes_up_time(ntp: u64, last: u32, since: u32, named: bool, after in 0u64..10_000) {
            let start = Instant::now();
            let mut reported = Reported::default();
            reported.note_sent(start, ntp);
            let last = if named { middle(ntp) } else { last };
            reported.handle(start + Duration::from_millis(after), block(last, since));
            prop_assert!(reported.round_trip().unwrap_or_default() <= Duration::from_millis(after));
        }
    }
}
