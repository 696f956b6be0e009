//! The numbers that VP8 and VP9 give to pictures in their payload descriptors, and how they are overwritten in a
//! copy of the payload.

/// A picture's number: 7 or 15 bits that wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits instead of 7.
    pub is_long: bool,
}

impl PictureId {
    /// Reads an id at `at`; returns it with the number of its bytes.
    pub(super) fn parse(payload: &[u8], at: usize) -> Option<(Self, usize)> {
        let first = *payload.get(at)?;
        if first & 0x80 == 0 {
            return Some((Self { value: u16::from(first), is_long: false }, 1));
        }
        let second = *payload.get(at + 1)?;
        Some((Self { value: u16::from_be_bytes([first & 0x7f, second]), is_long: true }, 2))
    }

    /// The id that is `value` as far as its bits go.
    pub const fn with(self, value: u16) -> Self {
        Self { value: value & if self.is_long { 0x7fff } else { 0x7f }, is_long: self.is_long }
    }

    /// How far `self` is ahead of the number `other`, which may have more bits; negative when it is behind.
    pub const fn since(self, other: u16) -> i16 {
        let unused = if self.is_long { 1 } else { 9 };
        ((self.value.wrapping_sub(other) << unused) as i16) >> unused
    }
}

/// Where the numbers stand in a payload, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureNumbers {
    pub id: Option<PictureId>,
    /// TL0PICIDX: counts pictures of the lowest temporal layer.
    pub base: Option<u8>,
    /// Offset of the id in the payload.
    pub(super) id_at: u8,
    /// Offset of TL0PICIDX in the payload; behind the id, at most one byte lies between.
    pub(super) base_at: u8,
}

/// What to overwrite in a copy of a packet, for one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// The first `length` bytes, at `at` in the payload.
    Payload { at: u8, length: u8, bytes: [u8; 4] },
    /// The frame number of the dependency descriptor, in its second and third byte.
    FrameNumber(u16),
}

impl Patch {
    /// Overwrites the bytes in a copy of the payload that the patch was made for; nothing for another kind of patch.
    pub fn apply(&self, payload: &mut [u8]) {
        if let Self::Payload { at, length, bytes } = self
            && let Some(old) = payload.get_mut(usize::from(*at)..usize::from(*at) + usize::from(*length))
            && let Some(new) = bytes.get(..old.len())
        {
            old.copy_from_slice(new);
        }
    }

    /// The frame number, if it is one.
    pub const fn frame_number(&self) -> Option<u16> {
        if let Self::FrameNumber(number) = self { Some(*number) } else { None }
    }
}

impl PictureNumbers {
    /// What makes the numbers of `payload` these. A number that the payload does not have is left out.
    pub fn patch(&self, payload: &[u8], id: u16, base: u8) -> Option<Patch> {
        let (first, end) = match (self.id, self.base) {
            (Some(id), None) => (self.id_at, self.id_at + 1 + u8::from(id.is_long)),
            (Some(_), Some(_)) => (self.id_at, self.base_at + 1),
            (None, Some(_)) => (self.base_at, self.base_at + 1),
            (None, None) => return None,
        };
        let length = end.checked_sub(first).filter(|length| *length <= 4)?;
        let mut bytes = [0; 4];
        let now = payload.get(usize::from(first)..usize::from(end))?;
        bytes[..now.len()].copy_from_slice(now);
        if let Some(known) = self.id {
            let value = known.with(id).value;
            if known.is_long {
                bytes[..2].copy_from_slice(&(value | 0x8000).to_be_bytes());
            } else {
                bytes[0] = value as u8;
            }
        }
        if self.base.is_some() {
            bytes[usize::from(self.base_at - first)] = base;
        }
        Some(Patch::Payload { at: first, length, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::descriptor::{vp8, vp9};

    proptest! {
        #[test]
        fn a_patched_payload_says_the_new_numbers_and_everything_else_as_before(
            payload in proptest::collection::vec(any::<u8>(), 0..24), id: u16, base: u8,
        ) {
            type Read = fn(&[u8]) -> Option<PictureNumbers>;
            let readers: [Read; 2] = [
                |payload| Some(vp8::Descriptor::parse(payload)?.picture),
                |payload| Some(vp9::Descriptor::parse(payload)?.picture),
            ];
            for read in readers {
                let Some(numbers) = read(&payload) else { continue };
                let Some(patch) = numbers.patch(&payload, id, base) else {
                    prop_assert!(numbers.id.is_none() && numbers.base.is_none());
                    continue;
                };
                let mut patched = payload.clone();
                patch.apply(&mut patched);
                let expected = PictureNumbers {
                    id: numbers.id.map(|known| known.with(id)),
                    base: numbers.base.map(|_| base),
                    ..numbers
                };
                prop_assert_eq!(read(&patched), Some(expected));
                let back = numbers.patch(&patched, numbers.id.map_or(0, |it| it.value), numbers.base.unwrap_or(0));
                back.unwrap().apply(&mut patched);
                prop_assert_eq!(&patched, &payload);
            }
        }

        #[test]
        fn an_id_is_as_far_ahead_as_it_was_moved(start: u16, is_long: bool, ahead in -63i16..=63) {
            let id = PictureId { value: 0, is_long }.with(start.wrapping_add_signed(ahead));
            prop_assert_eq!(id.since(start), ahead);
        }
    }
}
