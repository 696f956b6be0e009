//! One stream that a client receives: what is missing, what to ask for again, what to report.

use std::time::{Duration, Instant};

use crate::rtp::Block;

/// The first request leaves reordering this much time …
const NACK_DELAY: Duration = Duration::from_millis(10);
/// … further ones wait this long for the repair …
const NACK_INTERVAL: Duration = Duration::from_millis(60);
/// … and after so many the packet is given up.
const NACK_TRIES: u8 = 8;
/// A missing packet that is not asked for (audio) may still come this late.
const FORGET: Duration = Duration::from_secs(1);
const MAX_MISSING: usize = 256;
/// A jump over more than this is a new start of the sender.
const MAX_GAP: i16 = 2_000;

/// Packets by sequence number; all grow, and what is lost is `expected - received`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    pub expected: u64,
    /// Each number once.
    pub received: u64,
    /// Of those, late ones: reordered or repaired.
    pub late: u64,
    pub duplicates: u64,
}

#[derive(Debug)]
struct Missing {
    sequence: u16,
    since: Instant,
    due: Instant,
    tries: u8,
}

/// Numbers of one received stream.
#[derive(Debug)]
pub struct Stream {
    pub ssrc: u32,
    clock_rate: u32,
    with_nack: bool,
    highest: Option<u16>,
    cycles: u16,
    missing: Vec<Missing>,
    totals: Arrivals,
    reported: Arrivals,
    jitter: f64,
    transit: Option<f64>,
    sender_report: Option<(u32, Instant)>,
    gave_up: bool,
}

impl Stream {
    pub fn new(ssrc: u32, clock_rate: u32, with_nack: bool) -> Self {
        Self {
            ssrc,
            clock_rate,
            with_nack,
            highest: None,
            cycles: 0,
            missing: Vec::new(),
            totals: Arrivals::default(),
            reported: Arrivals::default(),
            jitter: 0.0,
            transit: None,
            sender_report: None,
            gave_up: false,
        }
    }

    /// Notes a packet; `wall_ns` is when it arrived. Adds what that changed to `arrivals`.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        wall_ns: u64,
        sequence: u16,
        timestamp: u32,
        arrivals: &mut Arrivals,
    ) {
        let before = self.totals;
        self.number(now, sequence);
        let after = self.totals;
        arrivals.expected += after.expected - before.expected;
        arrivals.received += after.received - before.received;
        arrivals.late += after.late - before.late;
        arrivals.duplicates += after.duplicates - before.duplicates;
        // RFC 3550, section 6.4.1.
        let arrived = (wall_ns as f64 / 1e9 * f64::from(self.clock_rate)) % f64::from(u32::MAX);
        let transit = arrived - f64::from(timestamp);
        if let Some(last) = self.transit.replace(transit) {
            let difference = (transit - last).abs();
            if difference < f64::from(self.clock_rate) {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
    }

    /// A repair brought this packet (RTX).
    pub fn handle_repair(&mut self, sequence: u16, arrivals: &mut Arrivals) {
        if self.found(sequence) {
            self.totals.received += 1;
            self.totals.late += 1;
            arrivals.received += 1;
            arrivals.late += 1;
        } else {
            self.totals.duplicates += 1;
            arrivals.duplicates += 1;
        }
    }

    fn found(&mut self, sequence: u16) -> bool {
        match self.missing.iter().position(|missing| missing.sequence == sequence) {
            Some(index) => {
                self.missing.swap_remove(index);
                true
            }
            None => false,
        }
    }

    fn number(&mut self, now: Instant, sequence: u16) {
        let ahead = self.highest.map(|highest| sequence.wrapping_sub(highest) as i16);
        match ahead {
            Some(ahead @ 1..=MAX_GAP) => {
                for step in 1..ahead as u16 {
                    let missing = sequence.wrapping_sub(ahead as u16).wrapping_add(step);
                    if self.missing.len() < MAX_MISSING {
                        let due = now + NACK_DELAY;
                        self.missing.push(Missing { sequence: missing, since: now, due, tries: 0 });
                    }
                }
                self.cycles += u16::from(sequence < self.highest.unwrap_or(0));
                self.totals.expected += ahead as u64;
                self.totals.received += 1;
                self.highest = Some(sequence);
            }
            Some(behind) if (-MAX_GAP..=0).contains(&behind) => {
                if self.found(sequence) {
                    self.totals.received += 1;
                    self.totals.late += 1;
                } else {
                    self.totals.duplicates += 1;
                }
            }
            // The first packet, or a new start.
            _ => {
                self.missing.clear();
                self.totals.expected += 1;
                self.totals.received += 1;
                self.highest = Some(sequence);
            }
        }
    }

    /// When [`Self::poll_lost`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }

    /// The numbers to ask for now. Sets the flag of [`Self::take_gave_up`] when one is given up.
    pub fn poll_lost(&mut self, now: Instant) -> Vec<u16> {
        let (with_nack, mut lost) = (self.with_nack, Vec::new());
        let mut gave_up = false;
        self.missing.retain_mut(|missing| {
            if missing.due > now {
                return true;
            }
            if !with_nack {
                missing.due = missing.since + FORGET;
                return missing.due > now;
            }
            if missing.tries >= NACK_TRIES {
                gave_up = true;
                return false;
            }
            missing.tries += 1;
            missing.due = now + NACK_INTERVAL;
            lost.push(missing.sequence);
            true
        });
        self.gave_up |= gave_up;
        lost
    }

    /// Whether a packet of the picture is lost for good since the last call: a decoder would ask for a keyframe.
    pub fn take_gave_up(&mut self) -> bool {
        std::mem::take(&mut self.gave_up)
    }

    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some(((ntp >> 16) as u32, now));
    }

    /// The block for a receiver report.
    pub fn block(&mut self, now: Instant) -> Block {
        let (expected, received) = (self.totals.expected, self.totals.received);
        let expected_now = expected - self.reported.expected;
        let lost_now = expected_now.saturating_sub(received - self.reported.received);
        self.reported = self.totals;
        let (last_sender_report, since_last_sender_report) = match self.sender_report {
            Some((report, at)) => (report, (now.duration_since(at).as_secs_f64() * 65_536.0) as u32),
            None => (0, 0),
        };
        Block {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            total_lost: expected.saturating_sub(received) as u32,
            extended_highest: u32::from(self.cycles) << 16 | u32::from(self.highest.unwrap_or(0)),
            jitter: self.jitter as u32,
            last_sender_report,
            since_last_sender_report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(stream: &mut Stream, now: Instant, numbers: &[u16]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for number in numbers {
            stream.handle_packet(now, 0, *number, 0, &mut arrivals);
        }
        arrivals
    }

    #[test]
    fn losses_reordering_repairs_and_copies_are_told_apart() {
        let now = Instant::now();
        let mut stream = Stream::new(1, 90_000, true);
        let mut arrivals = take(&mut stream, now, &[65_534, 65_535, 1, 0, 1, 4]);
        assert_eq!(arrivals, Arrivals { expected: 7, received: 5, late: 1, duplicates: 1 });
        assert!(stream.poll_lost(now).is_empty(), "reordering has its time");
        let due = stream.poll_timeout().unwrap();
        assert_eq!(stream.poll_lost(due), [2, 3]);
        assert!(stream.poll_lost(due).is_empty(), "asked for just now");
        stream.handle_repair(2, &mut arrivals);
        stream.handle_repair(2, &mut arrivals);
        assert_eq!(arrivals, Arrivals { expected: 7, received: 6, late: 2, duplicates: 2 });
        let block = stream.block(due);
        assert_eq!((block.total_lost, block.fraction_lost, block.extended_highest), (1, 36, 0x1_0004));
    }

    #[test]
    fn what_never_comes_is_given_up() {
        let mut now = Instant::now();
        let mut stream = Stream::new(1, 90_000, true);
        take(&mut stream, now, &[1, 3]);
        let mut asked = 0;
        while let Some(due) = stream.poll_timeout() {
            now = due;
            asked += stream.poll_lost(now).len();
        }
        assert_eq!(asked, usize::from(NACK_TRIES));
        assert!(stream.take_gave_up() && !stream.take_gave_up());
    }

    #[test]
    fn audio_is_not_asked_for_and_a_new_start_is_no_loss() {
        let now = Instant::now();
        let mut stream = Stream::new(1, 48_000, false);
        take(&mut stream, now, &[1, 3]);
        assert!(stream.poll_lost(now + NACK_DELAY).is_empty());
        let arrivals = take(&mut stream, now, &[30_000, 30_001]);
        assert_eq!((arrivals.expected, arrivals.received), (2, 2));
    }
}
