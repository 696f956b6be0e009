//! A client's transport-wide feedback as it is on the wire
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).

use sfu::Sequence;
use sfu::bandwidth::{Feedback, Micros};

/// Units of the deltas, in µs.
const DELTA: Micros = 250;
/// From the sender's SSRC to the first chunk.
const HEAD: usize = 16;

/// A feedback whose chunks are all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    base: Sequence,
    count: u16,
    reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    /// Reads what stands behind the packet's first four bytes. `None` when chunks are missing.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<HEAD>()?;
        let count = u16::from_be_bytes([head[10], head[11]]);
        let (mut told, mut chunks) = (0, 0);
        while told < usize::from(count) {
            told += usize::from(Chunk::read(rest.get(chunks..)?)?.len());
            chunks += 2;
        }
        let (chunks, deltas) = rest.split_at(chunks);
        Some(Self {
            base: Sequence(u16::from_be_bytes([head[8], head[9]])),
            count,
            reference: u32::from_be_bytes([0, head[12], head[13], head[14]]),
            chunks,
            deltas,
        })
    }

    /// What it tells; it ends early where deltas are missing.
    pub fn decode(self) -> Feedback<impl Iterator<Item = (Sequence, Option<Micros>)> + use<'a>> {
        let chunks = self.chunks.chunks_exact(2).filter_map(Chunk::read);
        let symbols = chunks.flat_map(|chunk| (0..chunk.len()).map(move |place| chunk.symbol(place)));
        let (mut deltas, mut at) = (self.deltas, 0);
        let arrivals = symbols.zip(0..self.count).map_while(move |(symbol, index)| {
            let delta = match symbol {
                0 => None,
                1 => {
                    let (delta, rest) = deltas.split_first()?;
                    deltas = rest;
                    Some(Micros::from(*delta))
                }
                2 => {
                    let (delta, rest) = deltas.split_first_chunk::<2>()?;
                    deltas = rest;
                    Some(Micros::from(i16::from_be_bytes(*delta)))
                }
                // Reserved: nobody knows how long its delta is.
                _ => return None,
            };
            let arrival = delta.map(|delta| {
                at += delta * DELTA;
                at
            });
            Some((self.base.plus(index), arrival))
        });
        Feedback { reference: self.reference, arrivals }
    }
}

/// A packet status chunk.
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<2>().map(|it| Self(u16::from_be_bytes(*it)))
    }

    /// How many packets it speaks of; of a vector all, also those behind the last.
    fn len(self) -> u16 {
        match self.0 >> 14 {
            0b11 => 7,
            0b10 => 14,
            _ => self.0 & 0x1fff,
        }
    }

    fn symbol(self, place: u16) -> u16 {
        match self.0 >> 14 {
            0b11 => self.0 >> (12 - 2 * place) & 3,
            0b10 => self.0 >> (13 - place) & 1,
            _ => self.0 >> 13 & 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::media::rtp::arrival::Arrivals;

    /// A sender's SSRC, and what it says of each number.
    type Told = (u32, Vec<(u16, Option<Micros>)>);

    fn read(packet: &[u8]) -> Option<Told> {
        let feedback = TransportFeedback::read(&packet[4..])?.decode();
        Some((feedback.reference, feedback.arrivals.map(|(number, at)| (number.0, at)).collect()))
    }

    /// Head, base 65 534, `count`, reference 7, then chunks and deltas.
    fn packet(count: u16, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe];
        packet.extend(count.to_be_bytes());
        packet.extend([0, 0, 7, 0]);
        packet.extend(rest);
        packet
    }

    #[test]
    fn reads_runs_and_vectors() {
        // A run of two small deltas, a vector of bits (not received, received), one of two-bit symbols.
        let rest = [0x20, 2, 0b1001_0000, 0, 0b1110_0000, 0, 4, 8, 1, 0xff, 0xff];
        let (reference, all) = read(&packet(2 + 14 + 1, &rest)).unwrap();
        assert_eq!(reference, 7);
        assert_eq!(all[..4], [(65_534, Some(1000)), (65_535, Some(3000)), (0, None), (1, Some(3250))]);
        assert_eq!(all[4..16], (2..14).map(|number| (number, None)).collect::<Vec<_>>()[..]);
        assert_eq!(all[16], (14, Some(3000)), "a delta may be negative");
    }

    #[test]
    fn missing_chunks_and_deltas_are_noticed() {
        assert_eq!(read(&packet(3, &[0x20, 2])), None);
        let (_, all) = read(&packet(3, &[0x20, 3, 4, 4])).unwrap();
        assert_eq!(all.len(), 2);
        let (_, all) = read(&packet(3, &[0x60, 3, 4, 4])).unwrap();
        assert_eq!(all, [], "a reserved symbol");
    }

    #[test]
    fn reads_what_is_written_for_publishers() {
        let epoch = Instant::now();
        let mut arrivals = Arrivals::new(epoch);
        let at = |ms| epoch + Duration::from_millis(ms);
        for (number, ms) in [(9, 100), (11, 103), (10, 104), (14, 300)] {
            arrivals.handle_packet(at(ms), Sequence(number));
        }
        let mut out = Vec::new();
        arrivals.handle_timeout(at(400), 1, 2, &mut out);
        let (reference, all) = read(&out).unwrap();
        let told: Vec<_> = all
            .into_iter()
            .map(|(number, after)| (number, after.map(|it| (it + Micros::from(reference) * 64_000) / 1000)))
            .collect();
        let wanted =
            [(9, Some(100)), (10, Some(104)), (11, Some(103)), (12, None), (13, None), (14, Some(300))];
        assert_eq!(told, wanted);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(count: u16, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some((_, all)) = read(&packet(count, &rest)) {
                prop_assert!(all.len() <= usize::from(count));
            }
        }
    }
}
