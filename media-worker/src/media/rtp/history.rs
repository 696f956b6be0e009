//! The recent packets of one published track, once for all its subscribers.
//!
//! Packets are copied into one ring of bytes when they arrive; what is sent, and what is sent again, is
//! written from there. The ring grows until it holds [`KEEP`] of the track, up to [`MAX_BYTES`]; then the
//! oldest packets make room. Once it has its size, nothing allocates.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sfu::Packet;

/// How long packets are kept for retransmission, as far as [`MAX_BYTES`] allows.
pub const KEEP: Duration = Duration::from_secs(1);
/// The ring's first size and its bound, in bytes: a second of 8 Mbit/s.
const MIN_BYTES: usize = 16 * 1024;
const MAX_BYTES: usize = 1024 * 1024;

/// A packet's name in its track's history: counted up with each packet.
pub type PacketNumber = u32;

struct Entry {
    at: Instant,
    start: usize,
    extensions: u16,
    payload: u16,
    extension_profile: u16,
}

impl Entry {
    fn length(&self) -> usize {
        usize::from(self.extensions) + usize::from(self.payload)
    }
}

/// A kept packet: what all subscribers share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept<'a> {
    pub extension_profile: u16,
    pub extensions: &'a [u8],
    pub payload: &'a [u8],
}

/// See the module.
#[derive(Default)]
pub struct History {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: PacketNumber,
    /// Where the next packet goes.
    end: usize,
}

impl History {
    /// Keeps a packet. `None` when it is larger than a datagram can be.
    pub fn push(&mut self, now: Instant, packet: &Packet<'_>) -> Option<PacketNumber> {
        let (extensions, payload) = (packet.extensions, packet.payload);
        let entry = Entry {
            at: now,
            start: 0,
            extensions: u16::try_from(extensions.len()).ok()?,
            payload: u16::try_from(payload.len()).ok()?,
            extension_profile: packet.extension_profile,
        };
        let start = self.room(now, entry.length())?;
        self.bytes[start..start + extensions.len()].copy_from_slice(extensions);
        self.bytes[start + extensions.len()..start + entry.length()].copy_from_slice(payload);
        self.end = start + entry.length();
        self.entries.push_back(Entry { start, ..entry });
        Some(self.first.wrapping_add(self.entries.len() as u32 - 1))
    }

    /// A kept packet; `None` when it is too old.
    pub fn get(&self, number: PacketNumber) -> Option<Kept<'_>> {
        let entry = self.entries.get(number.wrapping_sub(self.first) as usize)?;
        let (extensions, payload) =
            self.bytes[entry.start..entry.start + entry.length()].split_at(usize::from(entry.extensions));
        Some(Kept { extension_profile: entry.extension_profile, extensions, payload })
    }

    /// Makes room for `length` contiguous bytes and returns where.
    fn room(&mut self, now: Instant, length: usize) -> Option<usize> {
        if length > MAX_BYTES / 2 {
            return None;
        }
        loop {
            if let Some(start) = self.gap(length) {
                return Some(start);
            }
            let is_young = self.entries.front().is_some_and(|it| now.saturating_duration_since(it.at) < KEEP);
            if self.bytes.len() < MAX_BYTES && (is_young || self.entries.is_empty()) {
                self.grow(length);
            } else {
                self.entries.pop_front();
                self.first = self.first.wrapping_add(1);
            }
        }
    }

    /// A place behind the newest packet, or at the ring's beginning, that overlaps no entry.
    fn gap(&self, length: usize) -> Option<usize> {
        let Some(oldest) = self.entries.front().map(|entry| entry.start) else {
            return (length <= self.bytes.len()).then_some(0);
        };
        if self.end > oldest {
            if self.end + length <= self.bytes.len() {
                return Some(self.end);
            }
            return (length <= oldest).then_some(0);
        }
        // The newest lies before the oldest in the ring, or exactly up to it.
        (self.end + length <= oldest).then_some(self.end)
    }

    /// Doubles the ring, oldest packet first.
    fn grow(&mut self, length: usize) {
        let size = (2 * self.bytes.len()).max(MIN_BYTES).max(length.next_power_of_two()).min(MAX_BYTES);
        let mut bytes = vec![0; size];
        let mut end = 0;
        for entry in &mut self.entries {
            let length = entry.length();
            bytes[end..end + length].copy_from_slice(&self.bytes[entry.start..entry.start + length]);
            entry.start = end;
            end += length;
        }
        self.bytes = bytes;
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_makes_it_grow_and_age_makes_room() {
        let (mut history, start) = (History::default(), Instant::now());
        let payload = [7; 1000];
        let packet = Packet::new(1, 1, 1, &payload);
        for number in 0..100 {
            assert_eq!(history.push(start, &packet), Some(number));
        }
        assert!(history.get(0).is_some(), "all within a second are kept");
        let size = history.bytes.len();
        for step in 0..1000 {
            history.push(start + KEEP + Duration::from_millis(20 * step), &packet);
        }
        assert!(history.get(0).is_none());
        assert_eq!(history.bytes.len(), size, "50 packets a second fit into the ring of the burst");
    }

    #[test]
    fn is_bounded_whatever_arrives() {
        let (mut history, now) = (History::default(), Instant::now());
        let payload = [7; 60_000];
        for _ in 0..100 {
            history.push(now, &Packet::new(1, 1, 1, &payload)).unwrap();
        }
        assert_eq!(history.bytes.len(), MAX_BYTES);
        assert!(history.get(99).is_some() && history.get(70).is_none());
    }

    proptest! {
        #[test]
        fn what_is_there_is_what_was_pushed(
            packets in proptest::collection::vec((0usize..3000, 0usize..40, 0u64..300), 1..300),
        ) {
            let (mut history, mut now) = (History::default(), Instant::now());
            let mut pushed: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for (index, (payload, extensions, wait)) in packets.into_iter().enumerate() {
                now += Duration::from_millis(wait);
                let (payload, extensions) = (vec![index as u8; payload], vec![!(index as u8); extensions]);
                let packet = Packet { extensions: &extensions, ..Packet::new(1, 1, 1, &payload) };
                prop_assert_eq!(history.push(now, &packet), Some(index as u32));
                pushed.push((payload, extensions));
                for (number, (payload, extensions)) in pushed.iter().enumerate() {
                    if let Some(kept) = history.get(number as u32) {
                        prop_assert_eq!(kept.payload, &payload[..]);
                        prop_assert_eq!(kept.extensions, &extensions[..]);
                    }
                }
                prop_assert!(history.get(index as u32).is_some(), "the newest is always there");
                prop_assert!(history.get(index as u32 + 1).is_none());
            }
        }
    }
}
