//! Transport-wide feedback: when which packet of a publisher arrived, on all its streams together.
//!
//! The publisher's bandwidth estimate lives on it (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu::Sequence;

use super::rtcp;

/// How often feedback is sent while packets arrive.
const INTERVAL: Duration = Duration::from_millis(50);
/// Arrivals in one feedback packet; keeps it below the path MTU.
const MAX_STATUSES: u16 = 400;
/// Arrivals that wait; with more, the oldest are given up.
const MAX_WAITING: usize = 2048;
/// Units of the deltas and of the reference time.
const DELTA: i64 = 250;
const REFERENCE: i64 = 64_000;

/// Arrivals that were not reported yet.
#[derive(Debug)]
pub struct Arrivals {
    epoch: Instant,
    /// Unwrapped numbers with arrival times in µs since the epoch; in order of numbers.
    waiting: VecDeque<(i64, i64)>,
    newest: Option<(i64, Sequence)>,
    /// Everything below was reported.
    next: Option<i64>,
    due: Option<Instant>,
    count: u8,
    /// Of the feedback that is being written; kept for their memory.
    statuses: Vec<u8>,
    deltas: Vec<u8>,
}

impl Arrivals {
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            waiting: VecDeque::new(),
            newest: None,
            next: None,
            due: None,
            count: 0,
            statuses: Vec::new(),
            deltas: Vec::new(),
        }
    }

    /// Notes the arrival of a packet with this transport-wide number.
    pub fn handle_packet(&mut self, now: Instant, sequence: Sequence) {
        let number = match self.newest {
            Some((number, newest)) => number + i64::from(sequence.since(newest)),
            None => i64::from(sequence.0),
        };
        if self.newest.is_none_or(|(newest, _)| number > newest) {
            self.newest = Some((number, sequence));
        }
        if self.next.is_some_and(|next| number < next) {
            return;
        }
        let at = now.saturating_duration_since(self.epoch).as_micros() as i64;
        let place = self.waiting.partition_point(|(other, _)| *other < number);
        if self.waiting.get(place).is_some_and(|(other, _)| *other == number) {
            return;
        }
        self.waiting.insert(place, (number, at));
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
        }
        self.due.get_or_insert(now + INTERVAL);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Appends the feedback that is due.
    pub fn handle_timeout(&mut self, now: Instant, sender: u32, ssrc: u32, out: &mut Vec<u8>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        while !self.waiting.is_empty() {
            rtcp::write_transport_feedback(sender, ssrc, out, |out| self.write_feedback(out));
        }
    }

    /// Appends one feedback packet's content behind the SSRCs (section 3.1 of the draft).
    fn write_feedback(&mut self, out: &mut Vec<u8>) {
        let first = self.waiting[0];
        // From the first that was not reported, so that losses are told too.
        let base = self
            .next
            .filter(|next| (0..i64::from(MAX_STATUSES)).contains(&(first.0 - next)))
            .unwrap_or(first.0);
        let reference = first.1.div_euclid(REFERENCE);
        let mut last = reference * REFERENCE;
        self.statuses.clear();
        self.deltas.clear();
        while let Some((number, at)) = self.waiting.front().copied() {
            let index = number - base;
            if index >= i64::from(MAX_STATUSES) {
                break;
            }
            let delta = (at - last).div_euclid(DELTA);
            let Ok(large) = i16::try_from(delta) else { break };
            self.statuses.resize(index as usize, 0);
            if let Ok(small) = u8::try_from(large) {
                self.statuses.push(1);
                self.deltas.push(small);
            } else {
                self.statuses.push(2);
                self.deltas.extend_from_slice(&large.to_be_bytes());
            }
            last += delta * DELTA;
            self.waiting.pop_front();
        }
        self.next = Some(base + self.statuses.len() as i64);
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(self.statuses.len() as u16).to_be_bytes());
        out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
        out.push(self.count);
        self.count = self.count.wrapping_add(1);
        for seven in self.statuses.chunks(7) {
            // A status vector of two-bit symbols (section 3.1.4).
            let symbols =
                (0..7).fold(0u16, |all, at| all << 2 | u16::from(seven.get(at).copied().unwrap_or(0)));
            out.extend_from_slice(&(0xc000 | symbols).to_be_bytes());
        }
        out.extend_from_slice(&self.deltas);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
    use rtc::shared::marshal::Unmarshal;

    use super::*;

    /// What another implementation reads: each number, and its arrival in µs when it arrived.
    fn read(mut bytes: &[u8]) -> Vec<(u16, Option<i64>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = 4 + 4 * usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let (mut packet, rest) = bytes.split_at(length);
            bytes = rest;
            let feedback = TransportLayerCc::unmarshal(&mut packet).unwrap();
            let mut at = i64::from(feedback.reference_time) * REFERENCE;
            let mut deltas = feedback.recv_deltas.iter();
            let symbols = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
                rtc::rtcp::transport_feedbacks::transport_layer_cc::PacketStatusChunk::StatusVectorChunk(
                    it,
                ) => it.symbol_list.clone(),
                other => panic!("only vectors are written, not {other:?}"),
            });
            for (index, symbol) in symbols.take(usize::from(feedback.packet_status_count)).enumerate() {
                let number = feedback.base_sequence_number.wrapping_add(index as u16);
                if symbol as u16 == 0 {
                    all.push((number, None));
                } else {
                    at += deltas.next().unwrap().delta;
                    all.push((number, Some(at)));
                }
            }
            assert!(deltas.next().is_none());
        }
        all
    }

    #[test]
    fn tells_arrivals_and_losses_across_the_wrap_and_across_feedbacks() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        let at = |millis| epoch + Duration::from_millis(millis);
        arrivals.handle_packet(at(1000), Sequence(65_534));
        arrivals.handle_packet(at(1002), Sequence(0));
        let mut out = Vec::new();
        arrivals.handle_timeout(at(1049), 1, 2, &mut out);
        assert!(out.is_empty(), "not due yet");
        arrivals.handle_timeout(at(1050), 1, 2, &mut out);
        assert_eq!(read(&out), [(65_534, Some(1_000_000)), (65_535, None), (0, Some(1_002_000))]);
        out.clear();
        arrivals.handle_packet(at(2000), Sequence(2));
        arrivals.handle_timeout(at(2050), 1, 2, &mut out);
        assert_eq!(read(&out), [(1, None), (2, Some(2_000_000))], "the loss between the two is told");
    }

    proptest! {
        #[test]
        fn every_arrival_is_told_once_and_to_a_quarter_millisecond(
            start: u16,
            steps in proptest::collection::vec((1u16..5, 0u64..3000), 1..600),
        ) {
            let epoch = Instant::now();
            let mut arrivals = Arrivals::new(epoch);
            let (mut sequence, mut micros, mut expected, mut out) = (Sequence(start), 0u64, Vec::new(), Vec::new());
            for (gap, wait) in steps {
                sequence = sequence.plus(gap);
                micros += wait * 50;
                let now = epoch + Duration::from_micros(micros);
                arrivals.handle_packet(now, sequence);
                expected.push((sequence.0, micros as i64));
                arrivals.handle_timeout(now, 1, 2, &mut out);
            }
            arrivals.handle_timeout(epoch + Duration::from_secs(3600), 1, 2, &mut out);
            let told: Vec<_> = read(&out).into_iter().filter_map(|(number, at)| Some((number, at?))).collect();
            prop_assert_eq!(told.len(), expected.len());
            for ((number, at), (sequence, micros)) in told.into_iter().zip(expected) {
                prop_assert_eq!(number, sequence);
                prop_assert!((0..DELTA).contains(&(micros - at)));
            }
        }

        #[test]
        fn any_numbers_stay_within_bounds(numbers in proptest::collection::vec((any::<u16>(), 0u64..100), 0..300)) {
            let epoch = Instant::now();
            let (mut arrivals, mut now, mut out) = (Arrivals::new(epoch), epoch, Vec::new());
            for (number, wait) in numbers {
                now += Duration::from_millis(wait);
                arrivals.handle_packet(now, Sequence(number));
                arrivals.handle_timeout(now, 1, 2, &mut out);
                out.clear();
            }
        }
    }
}
