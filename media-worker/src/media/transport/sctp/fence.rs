//! What of a peer's SCTP is let through to the association (RFC 9260).
//!
//! The association below is right about honest peers and trusts them with its time and its memory: it walks TSN by TSN
//! up to wherever a FORWARD TSN points, keeps every reset request that cannot be done yet, takes chunks into a full
//! window when they complete something, and panics over an error cause that is cut off. So each packet is looked at first, and what no honest peer sends is dropped or
//! ends the association. Everything here is one pass over the chunk headers; nothing is kept per chunk.
//!
//! Where the association stands is known only from its own acknowledgements, never from what the peer says: a packet that
//! the association does not take (a wrong tag or checksum) must not move the line either.

use super::{MAX_STREAMS, WINDOW};

/// How far a TSN may be ahead of what this side has acknowledged. A window of small messages is far below it.
const MAX_AHEAD: i32 = 16_384;
/// TSNs that one SACK may name in its gap blocks.
const MAX_GAPS: u32 = 8_192;
/// Chunks, and their bytes, that wait for others to be complete. Above it only those are taken that come next …
const MAX_HELD_CHUNKS: usize = 4_096;
const MAX_HELD_BYTES: usize = 2 * WINDOW as usize;
/// … so far from what was acknowledged last …
const NEXT: i32 = 64;
/// … and at this many times as much the peer is not honest.
const TOO_MUCH: usize = 2;
/// Resets that a peer may ask for in an association's life. Each leaves something behind until the peer confirms it.
const MAX_RESETS: u32 = 512;
/// How old a reset's last TSN may be: the numbers wrap.
const OLDEST: i32 = -(1 << 30);

const HEADER: usize = 12;
const DATA_HEADER: usize = 16;

const DATA: u8 = 0;
const INIT: u8 = 1;
#[cfg(test)]
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const RECONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
/// A RE-CONFIG parameter: outgoing SSN reset request (RFC 6525, section 4.1).
const OUTGOING_RESET: u16 = 13;

/// What is to become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// A peer that means it sends it again.
    Drop,
    /// The association is over.
    End,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Fence {
    /// The cumulative TSN that this side has acknowledged last.
    acknowledged: Option<u32>,
    is_established: bool,
    resets: u32,
    held_chunks: usize,
    held_bytes: usize,
}

impl Fence {
    pub fn set_established(&mut self) {
        self.is_established = true;
    }

    /// Looks at a packet from the peer. `is_backlogged`: messages wait that nobody has taken yet.
    pub fn inbound(&mut self, packet: &[u8], is_backlogged: bool) -> Verdict {
        let Some(body) = packet.get(HEADER..) else { return Verdict::Drop };
        let (mut chunks, mut bytes) = (0, 0);
        for (number, chunk) in Chunks(body).enumerate() {
            let Some(Chunk { kind, value, length, behind }) = chunk else { return Verdict::Drop };
            let verdict = match kind {
                // Never bundled (RFC 9260, section 4.3), and one that was sent again may be late.
                INIT if number > 0 || self.is_established => Verdict::Drop,
                DATA => {
                    chunks += 1;
                    bytes += length.saturating_sub(DATA_HEADER);
                    self.data(value)
                }
                SACK => sack(value),
                ABORT | ERROR => causes(value, behind),
                RECONFIG => self.reconfig(value, is_backlogged),
                FORWARD_TSN => self.forward(value),
                _ => Verdict::Pass,
            };
            if verdict != Verdict::Pass {
                return verdict;
            }
        }
        let (held_chunks, held_bytes) = (self.held_chunks + chunks, self.held_bytes + bytes);
        if held_chunks > TOO_MUCH * MAX_HELD_CHUNKS || held_bytes > TOO_MUCH * MAX_HELD_BYTES {
            return Verdict::End;
        }
        (self.held_chunks, self.held_bytes) = (held_chunks, held_bytes);
        Verdict::Pass
    }

    /// Looks at a packet to the peer: what it acknowledges is where this side stands.
    pub fn outbound(&mut self, packet: &[u8]) {
        for chunk in Chunks(packet.get(HEADER..).unwrap_or_default()).flatten() {
            if chunk.kind == SACK
                && let (Some(acknowledged), Some(window)) = (word(chunk.value, 0), word(chunk.value, 4))
            {
                self.acknowledged = Some(acknowledged);
                if window == WINDOW {
                    // Nothing waits: whatever was counted twice is forgotten.
                    (self.held_chunks, self.held_bytes) = (0, 0);
                }
            }
        }
    }

    /// A message was taken out.
    pub fn delivered(&mut self, chunks: usize, bytes: usize) {
        self.held_chunks = self.held_chunks.saturating_sub(chunks);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// How far a TSN is ahead; `None` while nothing was acknowledged.
    fn ahead(&self, tsn: u32) -> Option<i32> {
        Some(tsn.wrapping_sub(self.acknowledged?).cast_signed())
    }

    fn data(&self, value: &[u8]) -> Verdict {
        let (Some(tsn), Some(streams)) = (word(value, 0), word(value, 4)) else { return Verdict::Drop };
        let is_full = self.held_chunks > MAX_HELD_CHUNKS || self.held_bytes > MAX_HELD_BYTES;
        let fits = match self.ahead(tsn) {
            Some(ahead) => ahead <= if is_full { NEXT } else { MAX_AHEAD },
            // Whatever comes first is acknowledged before long.
            None => !is_full,
        };
        if fits && streams >> 16 < u32::from(MAX_STREAMS) { Verdict::Pass } else { Verdict::Drop }
    }

    fn forward(&self, value: &[u8]) -> Verdict {
        match word(value, 0).and_then(|tsn| self.ahead(tsn)) {
            Some(ahead) if ahead <= MAX_AHEAD => Verdict::Pass,
            Some(_) => Verdict::End,
            None => Verdict::Drop,
        }
    }

    /// A reset that cannot be done at once is kept until it can, and there may be any number of them. So it waits with
    /// the peer, who sends it again.
    fn reconfig(&mut self, value: &[u8], is_backlogged: bool) -> Verdict {
        let mut rest = value;
        while let (Some(kind), Some(length)) = (half(rest, 0), half(rest, 2)) {
            // Request and response numbers, the sender's last TSN, streams (RFC 6525, section 4.1).
            if kind == OUTGOING_RESET {
                let ahead = word(rest, 12).and_then(|tsn| self.ahead(tsn));
                let is_due = ahead.is_some_and(|ahead| (OLDEST..=0).contains(&ahead));
                if !is_due || is_backlogged || length > 16 + 2 * MAX_STREAMS {
                    return Verdict::Drop;
                }
                self.resets += 1;
                if self.resets > MAX_RESETS {
                    return Verdict::End;
                }
            }
            let Some(next) = rest.get(usize::from(length.max(4)).next_multiple_of(4)..) else { break };
            rest = next;
        }
        Verdict::Pass
    }
}

/// RFC 9260, section 3.3.4: acknowledged, window, counts, gap blocks as offsets from and to.
fn sack(value: &[u8]) -> Verdict {
    let Some(counts) = word(value, 8) else { return Verdict::Drop };
    let blocks = value.get(12..).unwrap_or_default().chunks_exact(4).take((counts >> 16) as usize);
    let named = blocks.map(|block| {
        let (from, to) = (half(block, 0).unwrap_or_default(), half(block, 2).unwrap_or_default());
        u32::from(to.saturating_sub(from)) + 1
    });
    if named.sum::<u32>() <= MAX_GAPS { Verdict::Pass } else { Verdict::End }
}

/// RFC 9260, section 3.3.10. The association reads causes as long as there are bytes in the packet, also `behind` the chunk.
fn causes(mut value: &[u8], behind: usize) -> Verdict {
    while value.len() + behind >= 4 {
        let length = half(value, 2).map(usize::from).filter(|length| *length >= 4);
        let Some(rest) = length.and_then(|length| value.get(length..)) else { return Verdict::Drop };
        value = rest;
    }
    Verdict::Pass
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|it| u16::from_be_bytes(*it))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|it| u32::from_be_bytes(*it))
}

/// The chunks of a packet behind its header; `None` inside for one that is cut off, which is the last.
struct Chunks<'a>(&'a [u8]);

struct Chunk<'a> {
    kind: u8,
    value: &'a [u8],
    /// With its header, without padding.
    length: usize,
    /// Bytes of the packet behind that.
    behind: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<Chunk<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let kind = *bytes.first()?;
        let length = usize::from(half(bytes, 2).unwrap_or_default());
        let Some(value) = bytes.get(4..length) else { return Some(None) };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Some(Chunk { kind, value, length, behind: bytes.len() - length }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet of one chunk for each kind and value.
    fn packet(chunks: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        for (kind, value) in chunks {
            packet.extend([*kind, 3]);
            packet.extend((value.len() as u16 + 4).to_be_bytes());
            packet.extend(value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn data(tsn: u32, stream: u16, length: usize) -> (u8, Vec<u8>) {
        let mut value = words(&[tsn, u32::from(stream) << 16, 51]);
        value.resize(12 + length, 7);
        (DATA, value)
    }

    /// After an association that stands has acknowledged TSN 1000.
    fn begun() -> Fence {
        let mut fence = Fence::default();
        fence.set_established();
        fence.outbound(&packet(&[(SACK, words(&[1_000, 5, 0]))]));
        fence
    }

    #[test]
    fn a_forward_to_nowhere_ends_the_association() {
        let mut fence = begun();
        assert_eq!(fence.inbound(&packet(&[(FORWARD_TSN, words(&[1010]))]), false), Verdict::Pass);
        for tsn in [1_000 + 20_000, 1_000 + (1 << 30)] {
            assert_eq!(fence.inbound(&packet(&[(FORWARD_TSN, words(&[tsn]))]), false), Verdict::End);
        }
        // What is acknowledged moves the line.
        fence.outbound(&packet(&[(SACK, words(&[20_000, 5, 0]))]));
        assert_eq!(fence.inbound(&packet(&[(FORWARD_TSN, words(&[21_000]))]), false), Verdict::Pass);
    }

    #[test]
    fn the_line_cannot_be_moved_by_the_peer() {
        let init = packet(&[(INIT, words(&[9, 1, 1, 1 << 30]))]);
        let mut fence = Fence::default();
        assert_eq!(fence.inbound(&init, false), Verdict::Pass);
        assert_eq!(fence.inbound(&packet(&[(INIT_ACK, words(&[9, 1, 1, 1 << 30]))]), false), Verdict::Pass);
        let forward = packet(&[(FORWARD_TSN, words(&[1 << 30]))]);
        assert_eq!(fence.inbound(&forward, false), Verdict::Drop, "nothing was acknowledged");
        assert_eq!(fence.inbound(&packet(&[data(7, 0, 4)]), false), Verdict::Pass, "what will be");
        let mut fence = begun();
        assert_eq!(fence.inbound(&init, false), Verdict::Drop);
        assert_eq!(fence.inbound(&forward, false), Verdict::End);
        let bundled = packet(&[data(1_001, 0, 4), (INIT, words(&[9, 1, 1, 1]))]);
        assert_eq!(Fence::default().inbound(&bundled, false), Verdict::Drop);
    }

    #[test]
    fn what_is_never_complete_fills_no_memory() {
        let mut fence = begun();
        let mut passed = 0;
        let end = (0..100_000_u32).find(|number| {
            let verdict = fence.inbound(&packet(&[data(1_001 + number % 60, 0, 1_000)]), false);
            passed += usize::from(verdict == Verdict::Pass);
            verdict == Verdict::End
        });
        assert!(end.is_some() && passed * 1_000 <= TOO_MUCH * MAX_HELD_BYTES, "{passed} chunks were taken");
        let mut fence = begun();
        let far = |number: u32| packet(&[data(1_100 + number, 0, 1)]);
        let taken =
            (0..10_000_u32).filter(|number| fence.inbound(&far(*number), false) == Verdict::Pass).count();
        assert_eq!(taken, MAX_HELD_CHUNKS + 1, "what is far away waits with the peer");
        assert_eq!(
            fence.inbound(&packet(&[data(1_001, 0, 1)]), false),
            Verdict::Pass,
            "what comes next is taken"
        );
    }

    #[test]
    fn an_open_window_starts_the_count_anew() {
        let mut fence = begun();
        for number in 0..3_000 {
            fence.inbound(&packet(&[data(1_001 + number, 0, 1)]), false);
        }
        fence.outbound(&packet(&[(SACK, words(&[4_000, WINDOW, 0]))]));
        assert_eq!((fence.held_chunks, fence.held_bytes), (0, 0));
    }

    #[test]
    fn resets_that_would_have_to_wait_are_not_kept() {
        let reset = |tsn| packet(&[(RECONFIG, [words(&[(13 << 16) | 18, 5, 4, tsn]), vec![0, 1]].concat())]);
        let mut fence = begun();
        assert_eq!(fence.inbound(&reset(1_000), false), Verdict::Pass);
        assert_eq!(fence.inbound(&reset(1_000), true), Verdict::Drop, "messages wait");
        assert_eq!(fence.inbound(&reset(1_001), false), Verdict::Drop, "data is missing");
        assert_eq!(fence.inbound(&reset(1_000 + (1 << 31) + 1), false), Verdict::Drop, "neither old nor new");
        let ends = (0..1_000).find(|_| fence.inbound(&reset(1_000), false) == Verdict::End);
        assert_eq!(ends, Some(MAX_RESETS as usize - 1), "one was asked for above");
    }

    #[test]
    fn streams_and_gaps_are_bounded() {
        let mut fence = begun();
        assert_eq!(fence.inbound(&packet(&[data(1_001, MAX_STREAMS, 1)]), false), Verdict::Drop);
        let gaps = |blocks: &[u32]| {
            packet(&[(SACK, [words(&[1, 1, (blocks.len() as u32) << 16]), words(blocks)].concat())])
        };
        assert_eq!(fence.inbound(&gaps(&[(2 << 16) | 90, (95 << 16) | 99]), false), Verdict::Pass);
        assert_eq!(fence.inbound(&gaps(&[0xffff; 1]), false), Verdict::End);
    }

    #[test]
    fn causes_that_are_cut_off_do_not_come_through() {
        let mut fence = begun();
        let cause = words(&[(12 << 16) | 8, 7]);
        for kind in [ABORT, ERROR] {
            let mut verdict = |value: Vec<u8>, more: &[(u8, Vec<u8>)]| {
                fence.inbound(&packet(&[&[(kind, value)], more].concat()), false)
            };
            assert_eq!(verdict(Vec::new(), &[]), Verdict::Pass);
            assert_eq!(verdict(cause.clone(), &[]), Verdict::Pass);
            assert_eq!(verdict([cause.clone(), cause.clone()].concat(), &[]), Verdict::Pass);
            assert_eq!(verdict(words(&[(12 << 16) | 0xffff, 7]), &[]), Verdict::Drop);
            assert_eq!(verdict(words(&[12 << 16, 7]), &[]), Verdict::Drop);
            assert_eq!(verdict(cause[..6].to_vec(), &[]), Verdict::Drop);
            assert_eq!(
                verdict(cause.clone(), &[data(1_001, 0, 4)]),
                Verdict::Drop,
                "it would be read as a cause"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_verdict(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut fence = begun();
            for bytes in packets {
                fence.outbound(&bytes);
                fence.inbound(&bytes, false);
            }
        }
    }
}
