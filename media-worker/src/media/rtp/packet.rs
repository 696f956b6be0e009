//! Reading and writing RTP packets (RFC 3550, section 5.1).

use bytes::Bytes;
use sfu::{IdMap, Packet, Sequence, Timestamp};

const HEADER: usize = 12;

/// Reads a decrypted packet: its payload type and the rest, sharing the bytes. `None` when malformed.
pub fn parse(mut datagram: Bytes) -> Option<(u8, Packet)> {
    let header = *datagram.first_chunk::<HEADER>()?;
    if header[0] >> 6 != 2 {
        return None;
    }
    let (has_padding, has_extension) = (header[0] & 0x20 != 0, header[0] & 0x10 != 0);
    let mut at = HEADER + 4 * usize::from(header[0] & 0x0f);
    let (mut extension_profile, mut extensions) = (0, Bytes::new());
    if has_extension {
        let head = datagram.get(at..)?.first_chunk::<4>()?;
        extension_profile = u16::from_be_bytes([head[0], head[1]]);
        let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        at += 4;
        datagram.get(at..at + length)?;
        extensions = datagram.slice(at..at + length);
        at += length;
    }
    if at > datagram.len() {
        return None;
    }
    if has_padding {
        let padding = usize::from(*datagram.last()?);
        if padding == 0 || at + padding > datagram.len() {
            return None;
        }
        datagram.truncate(datagram.len() - padding);
    }
    let packet = Packet {
        ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        sequence: Sequence(u16::from_be_bytes([header[2], header[3]])),
        timestamp: Timestamp(u32::from_be_bytes([header[4], header[5], header[6], header[7]])),
        marker: header[1] & 0x80 != 0,
        extension_profile,
        extensions,
        payload: datagram.slice(at..),
    };
    Some((header[1] & 0x7f, packet))
}

/// Under which name a packet goes out.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    pub payload_type: u8,
    pub ssrc: u32,
    pub sequence: Sequence,
    /// Set for a retransmission (RFC 4588): the original number goes in front of the payload.
    pub original: Option<Sequence>,
}

/// Writes a packet into `out`, which is cleared first.
pub fn write(label: Label, packet: &Packet, ids: &IdMap, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0x80, u8::from(packet.marker) << 7 | label.payload_type]);
    out.extend_from_slice(&label.sequence.0.to_be_bytes());
    out.extend_from_slice(&packet.timestamp.0.to_be_bytes());
    out.extend_from_slice(&label.ssrc.to_be_bytes());
    if ids.write(packet.extension_profile, &packet.extensions, out) {
        out[0] |= 0x10;
    }
    if let Some(original) = label.original {
        out.extend_from_slice(&original.0.to_be_bytes());
    }
    out.extend_from_slice(&packet.payload);
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
        let (payload_type, packet) = parse(Bytes::copy_from_slice(&datagram)).unwrap();
        assert_eq!((payload_type, packet.ssrc, packet.sequence.0, packet.timestamp.0), (96, 5, 7, 9));
        assert!(packet.marker);
        assert_eq!(packet.extensions[..], [0x10, 0x7f, 0, 0]);
        assert_eq!(packet.payload[..], [0xaa, 0xbb]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut ids = ExtensionIds::default();
        ids.set(Extension::AudioLevel, 3);
        let mut packet = Packet::new(1, 2, 3, Bytes::from_static(b"payload"));
        packet.extension_profile = 0xbede;
        packet.extensions = Bytes::from_static(&[0x30, 0x11, 0, 0]);
        let label = Label { payload_type: 97, ssrc: 9, sequence: Sequence(8), original: Some(Sequence(2)) };
        let mut out = Vec::new();
        write(label, &packet, &IdMap::between(&ids, &ids), &mut out);
        let (payload_type, read) = parse(Bytes::from(out)).unwrap();
        assert_eq!((payload_type, read.ssrc, read.sequence, read.timestamp.0), (97, 9, Sequence(8), 3));
        assert_eq!(read.payload[..], *b"\0\x02payload");
        assert_eq!(read.extensions, packet.extensions);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut datagram in proptest::collection::vec(any::<u8>(), 0..80), plausible: bool) {
            if plausible && !datagram.is_empty() {
                datagram[0] = 0x80 | datagram[0] & 0x3f;
            }
            let length = datagram.len();
            if let Some((_, packet)) = parse(Bytes::from(datagram)) {
                prop_assert!(packet.payload.len() + packet.extensions.len() + HEADER <= length);
            }
        }
    }
}
