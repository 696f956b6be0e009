//! Where a keyframe starts: the packet at which a decoder that knows nothing can begin.
//!
//! Only the payload is looked at, no more than its first bytes. Anything malformed is not a keyframe.

use crate::Codec;

/// Whether `payload` is the first packet of a keyframe. Audio can start anywhere.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => vp8(payload).unwrap_or(false),
        Codec::Vp9 => vp9(payload).unwrap_or(false),
        Codec::H264 => h264(payload).unwrap_or(false),
        Codec::Av1 => av1(payload).unwrap_or(false),
    }
}

/// RFC 7741, sections 4.2 and 4.3: start of the first partition, and P = 0 in the frame header.
fn vp8(payload: &[u8]) -> Option<bool> {
    let descriptor = *payload.first()?;
    let starts_frame = descriptor & 0x10 != 0 && descriptor & 0x07 == 0;
    if !starts_frame {
        return Some(false);
    }
    let mut header = 1;
    if descriptor & 0x80 != 0 {
        let present = *payload.get(1)?;
        header = 2;
        if present & 0x80 != 0 {
            header += if payload.get(2)? & 0x80 != 0 { 2 } else { 1 };
        }
        header += usize::from(present & 0x40 != 0);
        header += usize::from(present & 0x30 != 0);
    }
    Some(payload.get(header)? & 0x01 == 0)
}

/// RFC 9628, section 4.2: not inter-picture predicted, beginning of a frame, lowest spatial layer.
fn vp9(payload: &[u8]) -> Option<bool> {
    let descriptor = *payload.first()?;
    let (picture_id, predicted) = (descriptor & 0x80 != 0, descriptor & 0x40 != 0);
    let (layers, begins) = (descriptor & 0x20 != 0, descriptor & 0x08 != 0);
    if predicted || !begins {
        return Some(false);
    }
    if !layers {
        return Some(true);
    }
    let mut at = 1;
    if picture_id {
        at += if payload.get(1)? & 0x80 != 0 { 2 } else { 1 };
    }
    Some(payload.get(at)? & 0x0e == 0)
}

/// RFC 6184, section 5: an SPS or IDR slice, alone, in an aggregate, or as the start of a fragment.
fn h264(payload: &[u8]) -> Option<bool> {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let opens = |unit: u8| matches!(unit & 0x1f, IDR | SPS);
    match payload.first()? & 0x1f {
        STAP_A => {
            let mut rest = payload.get(1..)?;
            while let Some((size, units)) = rest.split_first_chunk::<2>() {
                if opens(*units.first()?) {
                    return Some(true);
                }
                rest = units.get(usize::from(u16::from_be_bytes(*size))..)?;
            }
            Some(false)
        }
        FU_A => {
            let header = *payload.get(1)?;
            Some(header & 0x80 != 0 && opens(header))
        }
        _ => Some(opens(*payload.first()?)),
    }
}

/// RTP payload format for AV1, section 4.4: N marks the first packet of a coded video sequence.
fn av1(payload: &[u8]) -> Option<bool> {
    let aggregation = *payload.first()?;
    let (continues, new_sequence) = (aggregation & 0x80 != 0, aggregation & 0x08 != 0);
    Some(payload.len() > 1 && new_sequence && !continues)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vp8_keyframes_by_the_frame_header_behind_any_descriptor() {
        assert!(starts_keyframe(Codec::Vp8, &[0x10, 0x00]));
        assert!(!starts_keyframe(Codec::Vp8, &[0x10, 0x01]), "P = 1: an inter frame");
        assert!(!starts_keyframe(Codec::Vp8, &[0x00, 0x00]), "not the start of a partition");
        assert!(!starts_keyframe(Codec::Vp8, &[0x11, 0x00]), "not the first partition");
        // X, then I with a 15-bit picture id, L and T: what Chromium sends.
        assert!(starts_keyframe(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x23, 0x05, 0x20, 0x50]));
        assert!(!starts_keyframe(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x23, 0x05, 0x20, 0x51]));
    }

    #[test]
    fn vp9_keyframes_by_the_descriptor() {
        assert!(starts_keyframe(Codec::Vp9, &[0x88, 0x01]));
        assert!(!starts_keyframe(Codec::Vp9, &[0xc8, 0x01]), "P: predicted");
        assert!(!starts_keyframe(Codec::Vp9, &[0x80, 0x01]), "not the beginning of a frame");
        assert!(starts_keyframe(Codec::Vp9, &[0xa8, 0x81, 0x01, 0x00]), "spatial layer 0");
        assert!(!starts_keyframe(Codec::Vp9, &[0xa8, 0x81, 0x01, 0x02]), "spatial layer 1");
    }

    #[test]
    fn h264_keyframes_alone_aggregated_and_fragmented() {
        assert!(starts_keyframe(Codec::H264, &[0x67, 0x42]), "SPS");
        assert!(starts_keyframe(Codec::H264, &[0x65, 0x88]), "IDR");
        assert!(!starts_keyframe(Codec::H264, &[0x41, 0x9a]), "non-IDR slice");
        assert!(starts_keyframe(Codec::H264, &[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68]), "STAP-A with SPS");
        assert!(starts_keyframe(Codec::H264, &[0x78, 0, 1, 0x06, 0, 1, 0x65]), "STAP-A with IDR second");
        assert!(!starts_keyframe(Codec::H264, &[0x78, 0, 1, 0x06, 0, 1, 0x41]));
        assert!(starts_keyframe(Codec::H264, &[0x7c, 0x85, 0x88]), "FU-A, start of IDR");
        assert!(!starts_keyframe(Codec::H264, &[0x7c, 0x05, 0x88]), "FU-A, middle of IDR");
    }

    #[test]
    fn av1_keyframes_by_the_aggregation_header() {
        assert!(starts_keyframe(Codec::Av1, &[0x18, 0x0a]));
        assert!(!starts_keyframe(Codec::Av1, &[0x10, 0x32]), "not a new coded video sequence");
        assert!(!starts_keyframe(Codec::Av1, &[0x98, 0x0a]), "continues an OBU");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                starts_keyframe(codec, &payload);
            }
        }

        #[test]
        fn truncation_never_makes_a_video_keyframe_out_of_nothing(codec in 0..4usize) {
            let codec = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1][codec];
            prop_assert!(!starts_keyframe(codec, &[]));
        }
    }
}
