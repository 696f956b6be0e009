//! VP9 payload descriptor (RFC 9628, section 4.2).

use super::{Frame, PictureId, PictureNumbers, Resolution, Switch};

/// Reference indices of one picture in flexible mode.
const MAX_REFERENCES: usize = 3;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// P: predicted from earlier pictures.
    pub is_predicted: bool,
    /// F: references stand in the descriptor.
    pub is_flexible: bool,
    /// B and E: the packet begins, or ends, the frame of its spatial layer.
    pub begins: bool,
    pub ends: bool,
    /// SID, 0 to 7.
    pub spatial: u8,
    /// TID, 0 to 7.
    pub temporal: u8,
    /// U: higher temporal layers can begin behind this picture.
    pub switch_up: bool,
    /// D: needs the next lower spatial layer of this picture.
    pub needs_lower: bool,
    pub picture: PictureNumbers,
    /// The highest spatial layer and its size, from the scalability structure.
    pub resolution: Option<(u8, Resolution)>,
}

impl Descriptor {
    /// Reads the descriptor. `None` when the payload ends inside it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let has = |bit: u8| first & bit != 0;
        let (is_predicted, is_flexible) = (has(0x40), has(0x10));
        let mut read = Self {
            is_predicted,
            is_flexible,
            begins: has(0x08),
            ends: has(0x04),
            spatial: 0,
            temporal: 0,
            switch_up: false,
            needs_lower: false,
            picture: PictureNumbers::default(),
            resolution: None,
        };
        let mut at = 1;
        if has(0x80) {
            let (id, length) = PictureId::parse(payload, at)?;
            (read.picture.id, read.picture.id_at) = (Some(id), at as u8);
            at += length;
        }
        if has(0x20) {
            let layer = *payload.get(at)?;
            (read.temporal, read.switch_up) = (layer >> 5, layer & 0x10 != 0);
            (read.spatial, read.needs_lower) = (layer >> 1 & 0x07, layer & 0x01 != 0);
            at += 1;
            if !is_flexible {
                (read.picture.base, read.picture.base_at) = (Some(*payload.get(at)?), at as u8);
                at += 1;
            }
        }
        if is_flexible && is_predicted {
            for reference in 1.. {
                let is_last = *payload.get(at)? & 0x01 == 0;
                at += 1;
                if is_last {
                    break;
                }
                if reference == MAX_REFERENCES {
                    return None;
                }
            }
        }
        if has(0x02) {
            read.resolution = structure(payload.get(at..)?)?;
        }
        Some(read)
    }

    pub fn frame(&self) -> Frame {
        Frame {
            starts_keyframe: !self.is_predicted && self.begins && self.spatial == 0,
            ends: self.ends,
            spatial: self.spatial,
            temporal: self.temporal,
            switch: if self.switch_up { Switch::Above } else { Switch::No },
            resolution: self.resolution,
            picture: self.picture,
        }
    }
}

/// The size of the highest layer in a scalability structure (section 4.2.1). `None` when it is cut off.
fn structure(bytes: &[u8]) -> Option<Option<(u8, Resolution)>> {
    let head = *bytes.first()?;
    let highest = head >> 5;
    if head & 0x10 == 0 {
        return Some(None);
    }
    let last = bytes.get(1 + 4 * usize::from(highest)..)?.first_chunk::<4>()?;
    let resolution = Resolution {
        width: u16::from_be_bytes([last[0], last[1]]),
        height: u16::from_be_bytes([last[2], last[3]]),
    };
    Some(Some((highest, resolution)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_key(payload: &[u8]) -> bool {
        Descriptor::parse(payload).is_some_and(|it| it.frame().starts_keyframe)
    }

    #[test]
    fn keyframes() {
        assert!(is_key(&[0x88, 0x01]));
        assert!(!is_key(&[0xc8, 0x01]), "P: predicted");
        assert!(!is_key(&[0x80, 0x01]), "not the beginning of a frame");
        assert!(is_key(&[0xa8, 0x81, 0x01, 0x00, 0x00]), "spatial layer 0");
        assert!(!is_key(&[0xa8, 0x81, 0x01, 0x02, 0x00]), "spatial layer 1");
    }

    #[test]
    fn numbers_layers_and_size() {
        // I, P, L, B, E, non-flexible: picture 0x234, T 2 with U, S 1 with D, TL0PICIDX 9.
        let read = Descriptor::parse(&[0xec, 0x82, 0x34, 0x53, 9, 0xff]).unwrap();
        assert_eq!(read.picture.id, Some(PictureId { value: 0x234, is_long: true }));
        assert_eq!((read.temporal, read.spatial, read.picture.base), (2, 1, Some(9)));
        assert!(read.switch_up && read.needs_lower && read.begins && read.ends && read.is_predicted);
        // L, B and V: two layers of 320x180 and 640x360.
        let keyframe = [0x2a, 0x00, 0x00, 0x30, 1, 64, 0, 180, 2, 128, 1, 104];
        let read = Descriptor::parse(&keyframe).unwrap();
        assert_eq!(read.resolution, Some((1, Resolution { width: 640, height: 360 })));
        // Flexible: the references are passed over, and there are no more than three.
        assert!(Descriptor::parse(&[0x50, 0x03, 0x05, 0x02, 0xff]).is_some());
        assert!(Descriptor::parse(&[0x50, 0x03, 0x05, 0x03, 0x02]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_longer_payload_says_the_same(
            payload in proptest::collection::vec(any::<u8>(), 0..24), more in proptest::collection::vec(any::<u8>(), 16),
        ) {
            if let Some(read) = Descriptor::parse(&payload) {
                prop_assert_eq!(Descriptor::parse(&[&payload[..], &more[..]].concat()), Some(read));
            }
        }
    }
}
