//! One received stream: which packets are missing, and the receiver report.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu::{Sequence, Timestamp};

use super::meter::Meter;
use super::rtcp::ReportBlock;

/// A missing packet is asked for again after this long …
const NACK_INTERVAL: Duration = Duration::from_millis(50);
/// … and this often, then given up: a picture waits for what it lacks, a voice does not.
const VIDEO_TRIES: u8 = 10;
const AUDIO_TRIES: u8 = 3;
/// Missing packets that are tracked for one stream; with more, the stream is broken anyway and only a
/// keyframe helps.
const MAX_MISSING: usize = 256;
/// A jump over more than this is a restart of the sender, not a loss.
const MAX_GAP: i16 = 1000;

#[derive(Debug)]
struct Missing {
    sequence: Sequence,
    /// When to ask (again); `None` when given up. A late repair is still taken.
    due: Option<Instant>,
    tries: u8,
}

/// Numbers of one received stream (RFC 3550, appendix A).
#[derive(Debug)]
pub struct Receiver {
    ssrc: u32,
    clock_rate: u32,
    /// How often a missing packet is asked for.
    tries: u8,
    highest: Option<Sequence>,
    cycles: u32,
    first_extended: u32,
    received: u32,
    missing: VecDeque<Missing>,
    jitter: f64,
    last_transit: Option<(Timestamp, Instant)>,
    reported_expected: u32,
    reported_received: u32,
    sender_report: Option<(u32, Instant)>,
    pub meter: Meter,
    /// NACKs and PLIs sent.
    nacks: u32,
    keyframe_requests: u32,
    /// Expected and lost at the last two looks.
    looks: [(u32, i64); 2],
}

impl Receiver {
    pub fn new(now: Instant, ssrc: u32, clock_rate: u32, is_video: bool) -> Self {
        Self {
            ssrc,
            clock_rate,
            tries: if is_video { VIDEO_TRIES } else { AUDIO_TRIES },
            highest: None,
            cycles: 0,
            first_extended: 0,
            received: 0,
            missing: VecDeque::new(),
            jitter: 0.0,
            last_transit: None,
            reported_expected: 0,
            reported_received: 0,
            sender_report: None,
            meter: Meter::new(now),
            nacks: 0,
            keyframe_requests: 0,
            looks: [(0, 0); 2],
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Whether a repaired packet is one that is missing. Others are duplicates: senders also probe the
    /// bandwidth by repeating packets that arrived.
    pub fn is_missing(&self, sequence: Sequence) -> bool {
        self.missing.iter().any(|missing| missing.sequence == sequence)
    }

    /// Notes a packet, also a repaired one, with so many bytes of payload.
    pub fn handle_packet(&mut self, now: Instant, sequence: Sequence, timestamp: Timestamp, payload: usize) {
        self.meter.note(payload);
        self.received = self.received.wrapping_add(1);
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            self.first_extended = u32::from(sequence.0);
            self.last_transit = Some((timestamp, now));
            return;
        };
        let ahead = sequence.since(highest);
        if ahead > 0 {
            self.note_jitter(now, timestamp);
            if sequence.0 < highest.0 {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            if ahead > MAX_GAP {
                self.missing.clear();
            } else {
                for step in 1..ahead {
                    self.note_missing(now, highest.plus(step as u16));
                }
            }
            self.highest = Some(sequence);
        } else if let Some(at) = self.missing.iter().position(|it| it.sequence == sequence) {
            self.missing.remove(at);
        }
    }

    fn note_missing(&mut self, now: Instant, sequence: Sequence) {
        let is_old = |missing: &Missing| sequence.since(missing.sequence) > MAX_GAP;
        while self.missing.len() >= MAX_MISSING || self.missing.front().is_some_and(is_old) {
            self.missing.pop_front();
        }
        self.missing.push_back(Missing { sequence, due: Some(now), tries: 0 });
    }

    /// RFC 3550, section 6.4.1: interarrival jitter in ticks.
    fn note_jitter(&mut self, now: Instant, timestamp: Timestamp) {
        if let Some((last_timestamp, last_at)) = self.last_transit.replace((timestamp, now)) {
            let elapsed = now.saturating_duration_since(last_at).as_secs_f64() * f64::from(self.clock_rate);
            let difference = (elapsed - f64::from(timestamp.since(last_timestamp))).abs();
            // A jump in the sender's clock is not jitter.
            if difference < f64::from(self.clock_rate) {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
    }

    /// Notes the sender's report, for the round-trip time that the sender computes from ours.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some(((ntp >> 16) as u32, now));
    }

    /// The numbers to ask for now, in ascending order.
    pub fn take_due_nacks(&mut self, now: Instant) -> Vec<Sequence> {
        let mut asked = Vec::new();
        for missing in &mut self.missing {
            if missing.due.is_some_and(|due| due <= now) {
                missing.tries += 1;
                missing.due = (missing.tries < self.tries).then_some(now + NACK_INTERVAL);
                asked.push(missing.sequence);
            }
        }
        self.nacks += u32::from(!asked.is_empty());
        asked
    }

    /// When [`Receiver::take_due_nacks`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().filter_map(|missing| missing.due).min()
    }

    /// A keyframe was asked for.
    pub fn note_keyframe_request(&mut self) {
        self.keyframe_requests += 1;
    }

    /// NACK packets and keyframe requests sent so far.
    pub fn requests(&self) -> (u32, u32) {
        (self.nacks, self.keyframe_requests)
    }

    /// Ends one window of the rates and begins the next.
    pub fn look(&mut self, now: Instant) {
        self.meter.look(now);
        self.looks = [self.looks[1], (self.expected(), self.lost())];
    }

    /// Packets that did not arrive, not even repaired; negative when some came more than once.
    pub fn lost(&self) -> i64 {
        // Both count modulo 2^32.
        i64::from(self.expected().wrapping_sub(self.received) as i32)
    }

    /// Of the packets between the last two looks, how many were expected and how many are lost. A repair that comes
    /// after a look counts in the next window.
    pub fn window(&self) -> (u32, u32) {
        let [(expected, lost), (expected_now, lost_now)] = self.looks;
        let expected = expected_now.wrapping_sub(expected);
        (expected, u32::try_from(lost_now - lost).unwrap_or(0).min(expected))
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter / f64::from(self.clock_rate))
    }

    fn expected(&self) -> u32 {
        let extended = |highest: Sequence| self.cycles.wrapping_add(u32::from(highest.0));
        self.highest.map_or(0, |highest| extended(highest).wrapping_sub(self.first_extended).wrapping_add(1))
    }

    /// The block for the next receiver report; `None` before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.highest?;
        let extended_highest = self.cycles.wrapping_add(u32::from(highest.0));
        let expected = self.expected();
        let expected_interval = expected.wrapping_sub(self.reported_expected);
        let received_interval = self.received.wrapping_sub(self.reported_received);
        self.reported_expected = expected;
        self.reported_received = self.received;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction_lost = (u64::from(lost_interval) << 8)
            .checked_div(u64::from(expected_interval))
            .map_or(0, |fraction| fraction.min(255) as u8);
        let (last_sender_report, since_last_sender_report) =
            self.sender_report.map_or((0, 0), |(middle, at)| {
                let since = now.saturating_duration_since(at).as_secs_f64() * 65_536.0;
                (middle, since as u32)
            });
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost,
            total_lost: expected.wrapping_sub(self.received) as i32,
            extended_highest,
            jitter: self.jitter as u32,
            last_sender_report,
            since_last_sender_report,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receiver() -> (Receiver, Instant) {
        let now = Instant::now();
        (Receiver::new(now, 1, 90_000, true), now)
    }

    fn numbers(due: Vec<Sequence>) -> Vec<u16> {
        due.into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn asks_for_what_is_missing_until_it_arrives() {
        let (mut receiver, now) = receiver();
        receiver.handle_packet(now, Sequence(65_534), Timestamp(0), 100);
        receiver.handle_packet(now, Sequence(1), Timestamp(0), 100);
        assert_eq!(numbers(receiver.take_due_nacks(now)), [65_535, 0]);
        assert_eq!(numbers(receiver.take_due_nacks(now)), [0u16; 0], "not again at once");
        receiver.handle_packet(now, Sequence(65_535), Timestamp(0), 100);
        let later = receiver.poll_timeout().unwrap();
        assert_eq!(later, now + NACK_INTERVAL);
        assert_eq!(numbers(receiver.take_due_nacks(later)), [0]);
        receiver.handle_packet(later, Sequence(0), Timestamp(0), 100);
        assert_eq!(receiver.poll_timeout(), None);
    }

    #[test]
    fn gives_up_after_a_number_of_tries() {
        for (is_video, tries) in [(true, VIDEO_TRIES), (false, AUDIO_TRIES)] {
            let mut now = Instant::now();
            let mut receiver = Receiver::new(now, 1, 90_000, is_video);
            receiver.handle_packet(now, Sequence(1), Timestamp(0), 100);
            receiver.handle_packet(now, Sequence(3), Timestamp(0), 100);
            let mut asked = 0;
            while let Some(due) = receiver.poll_timeout() {
                now = due;
                asked += receiver.take_due_nacks(now).len();
            }
            assert_eq!(asked, usize::from(tries));
            assert!(receiver.is_missing(Sequence(2)), "a late repair is still taken");
        }
    }

    #[test]
    fn reports_loss_across_the_wrap() {
        let (mut receiver, now) = receiver();
        for sequence in [65_534, 65_535, 1, 2] {
            receiver.handle_packet(now, Sequence(sequence), Timestamp(0), 100);
        }
        receiver.handle_sender_report(now, 0x1111_2222_3333_4444);
        let block = receiver.report(now + Duration::from_secs(1)).unwrap();
        assert_eq!((block.total_lost, block.fraction_lost), (1, 51), "one of five");
        assert_eq!(block.extended_highest, 0x1_0002);
        assert_eq!((block.last_sender_report, block.since_last_sender_report), (0x2222_3333, 65_536));
        assert_eq!(receiver.report(now).unwrap().fraction_lost, 0, "nothing since");
    }

    #[test]
    fn what_is_lost_and_asked_for_between_two_looks_is_counted() {
        let (mut receiver, start) = receiver();
        let at = |ms| start + Duration::from_millis(ms);
        for sequence in (65_500u16..=65_535).chain(0..64).filter(|it| it % 10 != 5) {
            receiver.handle_packet(at(0), Sequence(sequence), Timestamp(0), 100);
        }
        // 65 505 to 65 535 and 5 to 55: four and six.
        assert_eq!(receiver.lost(), 10);
        receiver.look(at(2000));
        assert_eq!(receiver.window(), (100, 10));
        assert!(!receiver.take_due_nacks(at(2000)).is_empty());
        receiver.note_keyframe_request();
        assert_eq!(receiver.requests(), (1, 1));
        // Half of them are repaired, and all of the next ten arrive.
        for sequence in [5u16, 15, 25, 35, 45] {
            receiver.handle_packet(at(2010), Sequence(sequence), Timestamp(0), 100);
        }
        (64..74).for_each(|it| receiver.handle_packet(at(2020), Sequence(it), Timestamp(0), 100));
        receiver.look(at(4000));
        assert_eq!((receiver.lost(), receiver.window()), (5, (10, 0)));
        assert_eq!(receiver.meter.packets, 105);
    }

    proptest! {
        #[test]
        fn any_numbers_stay_within_bounds(
            packets in proptest::collection::vec((any::<u16>(), any::<u32>(), 0u64..100), 0..300)
        ) {
            let (mut receiver, mut now) = receiver();
            for (sequence, timestamp, wait) in packets {
                now += Duration::from_millis(wait);
                receiver.handle_packet(now, Sequence(sequence), Timestamp(timestamp), 100);
                prop_assert!(receiver.missing.len() <= MAX_MISSING);
                prop_assert!(receiver.take_due_nacks(now).len() <= MAX_MISSING);
                receiver.report(now);
            }
        }
    }
}
