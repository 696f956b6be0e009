//! Numbers that wrap: RTP sequence numbers (16 bits) and timestamps (32 bits).
//!
//! They are compared by serial number arithmetic (RFC 1982, section 3.2): of two numbers, the newer is
//! the one that is reached from the other by less than half the range. Never compare them as integers.

/// An RTP sequence number (RFC 3550, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(pub u16);

/// An RTP timestamp in units of the codec's clock (RFC 3550, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timestamp(pub u32);

impl Sequence {
    /// How far `self` is ahead of `earlier`, in -32768..=32767; negative when it is behind.
    pub const fn since(self, earlier: Self) -> i16 {
        self.0.wrapping_sub(earlier.0) as i16
    }

    /// Whether `self` comes after `other`. At exactly half the range neither is newer.
    pub const fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 0x8000
    }

    /// The number `count` later.
    pub const fn plus(self, count: u16) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// What must be added to `from` to get `self`.
    pub const fn offset_from(self, from: Self) -> u16 {
        self.0.wrapping_sub(from.0)
    }
}

impl Timestamp {
    /// How far `self` is ahead of `earlier`; negative when it is behind.
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether `self` comes after `other`. At exactly half the range neither is newer.
    pub const fn is_newer_than(self, other: Self) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 0x8000_0000
    }

    /// The time `ticks` later.
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// What must be added to `from` to get `self`.
    pub const fn offset_from(self, from: Self) -> u32 {
        self.0.wrapping_sub(from.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newer_across_the_wrap() {
        assert!(Sequence(0).is_newer_than(Sequence(u16::MAX)));
        assert!(!Sequence(u16::MAX).is_newer_than(Sequence(0)));
        assert!(Timestamp(3).is_newer_than(Timestamp(u32::MAX - 3)));
        assert_eq!(Sequence(2).since(Sequence(65_534)), 4);
        assert_eq!(Timestamp(u32::MAX).since(Timestamp(0)), -1);
    }

    proptest! {
        #[test]
        fn a_number_is_newer_exactly_when_it_is_less_than_half_the_range_ahead(a: u16, ahead in 1u16..0x8000) {
            let later = Sequence(a).plus(ahead);
            prop_assert!(later.is_newer_than(Sequence(a)));
            prop_assert!(!Sequence(a).is_newer_than(later));
            prop_assert_eq!(later.since(Sequence(a)), ahead as i16);
        }

        #[test]
        fn timestamps_likewise(a: u32, ahead in 1u32..0x8000_0000) {
            let later = Timestamp(a).plus(ahead);
            prop_assert!(later.is_newer_than(Timestamp(a)));
            prop_assert!(!Timestamp(a).is_newer_than(later));
        }

        #[test]
        fn an_offset_leads_from_one_to_the_other(a: u16, b: u16, c: u32, d: u32) {
            prop_assert_eq!(Sequence(a).plus(Sequence(b).offset_from(Sequence(a))), Sequence(b));
            prop_assert_eq!(Timestamp(c).plus(Timestamp(d).offset_from(Timestamp(c))), Timestamp(d));
        }
    }
}
