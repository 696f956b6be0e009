//! What every synthetic packet carries at the end of its payload: where it is from and when it left.
//!
//! At the end, because servers rewrite RTP headers and codec descriptors, but nothing behind them.

/// Bytes of a stamp.
pub const LENGTH: usize = 24;
const MAGIC: u32 = 0x5357_4c44;

/// A packet's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which room it was sent in: it must not turn up in another.
    pub room: u32,
    /// Which publisher and track.
    pub source: u32,
    pub number: u32,
    /// Nanoseconds since the Unix epoch, by this machine's clock.
    pub sent: u64,
}

impl Stamp {
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.room.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.source.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// Reads the stamp at the end of a decrypted packet; `None` when there is none.
    pub fn at_end_of(packet: &[u8]) -> Option<Self> {
        let bytes = packet.last_chunk::<LENGTH>()?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (word(0) == MAGIC).then(|| Self {
            room: word(4),
            source: word(8),
            number: word(12),
            sent: u64::from(word(16)) << 32 | u64::from(word(20)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_behind_anything_and_only_there() {
        let stamp = Stamp { room: 3, source: 7, number: 9, sent: 1_700_000_000_123_456_789 };
        let packet = [vec![1, 2, 3], stamp.to_bytes().to_vec()].concat();
        assert_eq!(Stamp::at_end_of(&packet), Some(stamp));
        assert_eq!(Stamp::at_end_of(&packet[..packet.len() - 1]), None);
        assert_eq!(Stamp::at_end_of(&packet[8..]), None, "too short");
    }
}
