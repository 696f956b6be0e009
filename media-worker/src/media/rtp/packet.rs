//! Reading and writing RTP packets (RFC 3550, section 5.1).

use sfu::{IdMap, Packet, Sequence, Timestamp};

use super::history::Kept;
use super::send::Label;

const HEADER: usize = 12;

/// Reads a decrypted packet: its payload type and the rest, borrowing the bytes. `None` when malformed.
pub fn parse(datagram: &[u8]) -> Option<(u8, Packet<'_>)> {
    let header = *datagram.first_chunk::<HEADER>()?;
    if header[0] >> 6 != 2 {
        return None;
    }
    let (has_padding, has_extension) = (header[0] & 0x20 != 0, header[0] & 0x10 != 0);
    let mut at = HEADER + 4 * usize::from(header[0] & 0x0f);
    let (mut extension_profile, mut extensions) = (0, &[][..]);
    if has_extension {
        let head = datagram.get(at..)?.first_chunk::<4>()?;
        extension_profile = u16::from_be_bytes([head[0], head[1]]);
        let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        at += 4;
        extensions = datagram.get(at..at + length)?;
        at += length;
    }
    let mut payload = datagram.get(at..)?;
    if has_padding {
        let padding = usize::from(*payload.last()?);
        payload = payload.get(..payload.len().checked_sub(padding)?).filter(|_| padding > 0)?;
    }
    let packet = Packet {
        ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        sequence: Sequence(u16::from_be_bytes([header[2], header[3]])),
        timestamp: Timestamp(u32::from_be_bytes([header[4], header[5], header[6], header[7]])),
        marker: header[1] & 0x80 != 0,
        extension_profile,
        extensions,
        payload,
    };
    Some((header[1] & 0x7f, packet))
}

/// Appends a packet to `out`; returns the length of its header with extensions.
pub fn write(label: Label, kept: &Kept<'_>, ids: &IdMap, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let mut header = [0; HEADER];
    header[0] = 0x80;
    header[1] = u8::from(kept.marker) << 7 | label.payload_type;
    header[2..4].copy_from_slice(&(label.index as u16).to_be_bytes());
    header[4..8].copy_from_slice(&label.timestamp.0.to_be_bytes());
    header[8..].copy_from_slice(&label.ssrc.to_be_bytes());
    out.extend_from_slice(&header);
    if ids.write(kept.extension_profile, kept.extensions, out) {
        out[start] |= 0x10;
    }
    let length = out.len() - start;
    if let Some(original) = label.original {
        out.extend_from_slice(&original.0.to_be_bytes());
    }
    out.extend_from_slice(kept.payload);
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfu::{Extension, ExtensionIds};

    use super::*;

    #[test]
    fn reads_csrcs_extensions_and_padding() {
        let datagram = [
            0xb1,
            0x80 | 96,
            0,
            7,
            0,
            0,
            0,
            9,
            0,
            0,
            0,
            5, // fixed header: padding, extension, one CSRC
            1,
            2,
            3,
            4, // CSRC
            0xbe,
            0xde,
            0,
            1,
            0x10,
            0x7f,
            0,
            0, // one extension
            0xaa,
            0xbb,
            0,
            2, // payload and padding
        ];
        let (payload_type, packet) = parse(&datagram).unwrap();
        assert_eq!((payload_type, packet.ssrc, packet.sequence.0, packet.timestamp.0), (96, 5, 7, 9));
        assert!(packet.marker);
        assert_eq!(packet.extensions[..], [0x10, 0x7f, 0, 0]);
        assert_eq!(packet.payload[..], [0xaa, 0xbb]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut ids = ExtensionIds::default();
        ids.set(Extension::AudioLevel, 3);
        let kept = Kept {
            marker: true,
            extension_profile: 0xbede,
            extensions: &[0x30, 0x11, 0, 0],
            payload: b"payload",
        };
        let label = Label {
            payload_type: 97,
            ssrc: 9,
            index: 0x3_0008,
            timestamp: Timestamp(3),
            original: Some(Sequence(2)),
        };
        let mut out = vec![0xff];
        assert_eq!(write(label, &kept, &IdMap::between(&ids, &ids), &mut out), 20);
        let (payload_type, read) = parse(&out[1..]).unwrap();
        assert_eq!((payload_type, read.ssrc, read.sequence, read.timestamp.0), (97, 9, Sequence(8), 3));
        assert!(read.marker);
        assert_eq!(read.payload[..], *b"\0\x02payload");
        assert_eq!(read.extensions, kept.extensions);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut datagram in proptest::collection::vec(any::<u8>(), 0..80), plausible: bool) {
            if plausible && !datagram.is_empty() {
                datagram[0] = 0x80 | datagram[0] & 0x3f;
            }
            let length = datagram.len();
            if let Some((_, packet)) = parse(&datagram) {
                prop_assert!(packet.payload.len() + packet.extensions.len() + HEADER <= length);
            }
        }
    }
}
