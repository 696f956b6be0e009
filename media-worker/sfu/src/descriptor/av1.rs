//! AV1 aggregation header (RTP payload format for AV1, section 4.4): one byte in front of the OBUs.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregation {
    /// Z: the first OBU element continues one of the previous packet.
    pub continues: bool,
    /// Y: the last OBU element is continued in the next packet.
    pub is_continued: bool,
    /// W: how many OBU elements there are; 0 when each has its length in front.
    pub count: u8,
    /// N: the packet is the first of a coded video sequence.
    pub new_sequence: bool,
}

impl Aggregation {
    /// Reads the header. `None` for an empty payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let byte = *payload.first()?;
        Some(Self {
            continues: byte & 0x80 != 0,
            is_continued: byte & 0x40 != 0,
            count: byte >> 4 & 0x03,
            new_sequence: byte & 0x08 != 0,
        })
    }
}

/// Whether a packet is the first of a coded video sequence, which starts with a keyframe.
pub fn starts_sequence(payload: &[u8]) -> bool {
    payload.len() > 1 && Aggregation::parse(payload).is_some_and(|it| it.new_sequence && !it.continues)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sequence_starts_by_the_header() {
        assert!(starts_sequence(&[0x18, 0x0a]));
        assert!(!starts_sequence(&[0x10, 0x32]), "not a new coded video sequence");
        assert!(!starts_sequence(&[0x98, 0x0a]), "continues an OBU");
        assert!(!starts_sequence(&[0x18]), "nothing in it");
    }

    proptest! {
        #[test]
        fn any_byte_is_read_as_its_bits(byte: u8) {
            let read = Aggregation::parse(&[byte]).unwrap();
            let bits = u8::from(read.continues) << 7
                | u8::from(read.is_continued) << 6
                | read.count << 4
                | u8::from(read.new_sequence) << 3;
            prop_assert_eq!(bits, byte & 0xf8, "the rest is reserved");
        }
    }
}
