//! Where a keyframe starts: the packet at which a decoder that knows nothing can begin.

use crate::{Codec, descriptor};

/// Whether `payload` is the first packet of a keyframe. Audio can start anywhere; anything malformed is no keyframe.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    descriptor::read(codec, payload).starts_keyframe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIDEO: [Codec; 4] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1];

    #[test]
    fn each_codec_by_its_own_descriptor() {
        let keyframes: [&[u8]; 4] = [&[0x10, 0x00], &[0x88, 0x01], &[0x67, 0x42], &[0x18, 0x0a]];
        let others: [&[u8]; 4] = [&[0x10, 0x01], &[0xc8, 0x01], &[0x41, 0x9a], &[0x10, 0x32]];
        for (codec, (keyframe, other)) in VIDEO.into_iter().zip(keyframes.into_iter().zip(others)) {
            assert!(starts_keyframe(codec, keyframe) && !starts_keyframe(codec, other), "{codec:?}");
            assert!(!starts_keyframe(codec, &[]), "{codec:?}: out of nothing");
        }
        assert!(starts_keyframe(Codec::Opus, &[]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in VIDEO {
                starts_keyframe(codec, &payload);
            }
        }
    }
}
