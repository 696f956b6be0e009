//! VP8 payload descriptor (RFC 7741, section 4.2), and the first bytes of the frame behind it.

use super::{Frame, PictureId, PictureNumbers, Resolution, Switch};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// S and PID 0: the packet begins with the beginning of the frame.
    pub starts_frame: bool,
    pub picture: PictureNumbers,
    /// TID: the temporal layer, 0 to 3.
    pub temporal: u8,
    /// Y: the frame depends on the lowest temporal layer only.
    pub layer_sync: bool,
    /// P = 0 in the frame header (section 4.3); only where the frame starts.
    pub is_keyframe: bool,
    /// Of a keyframe (RFC 6386, section 9.1).
    pub resolution: Option<Resolution>,
}

impl Descriptor {
    /// Reads the descriptor. `None` when the payload ends inside it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
        let mut picture = PictureNumbers::default();
        let (mut temporal, mut layer_sync, mut at) = (0, false, 1);
        if first & 0x80 != 0 {
            let present = *payload.get(1)?;
            at = 2;
            if present & 0x80 != 0 {
                let (id, length) = PictureId::parse(payload, at)?;
                (picture.id, picture.id_at) = (Some(id), at as u8);
                at += length;
            }
            if present & 0x40 != 0 {
                (picture.base, picture.base_at) = (Some(*payload.get(at)?), at as u8);
                at += 1;
            }
            if present & 0x30 != 0 {
                let layer = *payload.get(at)?;
                if present & 0x20 != 0 {
                    (temporal, layer_sync) = (layer >> 6, layer & 0x20 != 0);
                }
                at += 1;
            }
        }
        let frame = payload.get(at..)?;
        let is_keyframe = starts_frame && frame.first().is_some_and(|byte| byte & 0x01 == 0);
        let resolution = is_keyframe.then(|| resolution(frame)).flatten();
        Some(Self { starts_frame, picture, temporal, layer_sync, is_keyframe, resolution })
    }

    pub fn frame(&self) -> Frame {
        Frame {
            starts_keyframe: self.is_keyframe,
            ends: false,
            spatial: 0,
            temporal: self.temporal,
            switch: if self.layer_sync { Switch::ToThis } else { Switch::No },
            resolution: self.resolution.map(|it| (0, it)),
            picture: self.picture,
        }
    }
}

/// From the start code of a keyframe; `None` where there is none, as in an encrypted frame.
fn resolution(frame: &[u8]) -> Option<Resolution> {
    let head = frame.get(3..)?.first_chunk::<7>()?;
    let length = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
    (head[..3] == [0x9d, 0x01, 0x2a])
        .then(|| Resolution { width: length(head[3], head[4]), height: length(head[5], head[6]) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_key(payload: &[u8]) -> bool {
        Descriptor::parse(payload).is_some_and(|it| it.is_keyframe)
    }

    #[test]
    fn keyframes_by_the_frame_header_behind_any_descriptor() {
        assert!(is_key(&[0x10, 0x00]));
        assert!(!is_key(&[0x10, 0x01]), "P = 1: an inter frame");
        assert!(!is_key(&[0x00, 0x00]), "not the start of a partition");
        assert!(!is_key(&[0x11, 0x00]), "not the first partition");
        // X, then I with a 15-bit picture id, L and T: what Chromium sends.
        assert!(is_key(&[0x90, 0xe0, 0x81, 0x23, 0x05, 0x20, 0x50]));
        assert!(!is_key(&[0x90, 0xe0, 0x81, 0x23, 0x05, 0x20, 0x51]));
    }

    #[test]
    fn numbers_layers_and_size() {
        let payload = [0x90, 0xe0, 0x81, 0x23, 0x05, 0xa0, 0x50, 0, 0, 0x9d, 1, 0x2a, 0x40, 0x01, 0xb4, 0x40];
        let read = Descriptor::parse(&payload).unwrap();
        assert_eq!(read.picture.id, Some(PictureId { value: 0x123, is_long: true }));
        assert_eq!((read.picture.base, read.temporal, read.layer_sync), (Some(5), 2, true));
        assert_eq!(read.resolution, Some(Resolution { width: 320, height: 180 }));
        let short = Descriptor::parse(&[0x90, 0x80, 0x23, 0x01]).unwrap();
        assert_eq!(short.picture.id, Some(PictureId { value: 0x23, is_long: false }));
        let only_key_index = Descriptor::parse(&[0x90, 0x10, 0xff, 0x01]).unwrap();
        assert_eq!((only_key_index.temporal, only_key_index.layer_sync), (0, false), "K without T");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_longer_payload_says_the_same(
            payload in proptest::collection::vec(any::<u8>(), 0..24), more in proptest::collection::vec(any::<u8>(), 16),
        ) {
            if let Some(read) = Descriptor::parse(&payload) {
                let longer = Descriptor::parse(&[&payload[..], &more[..]].concat()).unwrap();
                prop_assert_eq!((longer.picture, longer.temporal), (read.picture, read.temporal));
            }
        }
    }
}
