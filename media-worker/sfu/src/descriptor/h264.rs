//! H.264 (RFC 6184): there is no descriptor; the NAL units' own headers say where a keyframe starts.

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether a packet holds an SPS or the beginning of an IDR slice: alone, in an aggregate, or as the start of a
/// fragment.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    opens(payload).unwrap_or(false)
}

fn opens(payload: &[u8]) -> Option<bool> {
    let is_key = |unit: u8| matches!(unit & 0x1f, IDR | SPS);
    match payload.first()? & 0x1f {
        STAP_A => {
            let mut rest = payload.get(1..)?;
            while let Some((size, units)) = rest.split_first_chunk::<2>() {
                if is_key(*units.first()?) {
                    return Some(true);
                }
                rest = units.get(usize::from(u16::from_be_bytes(*size))..)?;
            }
            Some(false)
        }
        FU_A => {
            let header = *payload.get(1)?;
            Some(header & 0x80 != 0 && is_key(header))
        }
        _ => Some(is_key(*payload.first()?)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyframes_alone_aggregated_and_fragmented() {
        assert!(starts_keyframe(&[0x67, 0x42]), "SPS");
        assert!(starts_keyframe(&[0x65, 0x88]), "IDR");
        assert!(!starts_keyframe(&[0x41, 0x9a]), "non-IDR slice");
        assert!(starts_keyframe(&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68]), "STAP-A with SPS");
        assert!(starts_keyframe(&[0x78, 0, 1, 0x06, 0, 1, 0x65]), "STAP-A with IDR second");
        assert!(!starts_keyframe(&[0x78, 0, 1, 0x06, 0, 1, 0x41]));
        assert!(starts_keyframe(&[0x7c, 0x85, 0x88]), "FU-A, start of IDR");
        assert!(!starts_keyframe(&[0x7c, 0x05, 0x88]), "FU-A, middle of IDR");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            starts_keyframe(&payload);
        }
    }
}
