//! Reading and writing RTP packets (RFC 3550, section 5.1).

use sfu::{EncodingId, IdMap, Packet, Patch, Sequence, Timestamp};

use super::history::Kept;
use super::send::Label;

const HEADER: usize = 12;

/// Reads a decrypted packet: its payload type and the rest, borrowing the bytes; of which encoding it is, is not known
/// yet. `None` when malformed.
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
        encoding: EncodingId::default(),
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

/// Appends a packet to `out`, with a header extension of this hop's own; returns the length of its header with
/// extensions.
pub fn write(
    label: Label,
    kept: &Kept<'_>,
    ids: &IdMap,
    own: Option<(u8, &[u8])>,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    let mut header = [0; HEADER];
    header[0] = 0x80;
    header[1] = u8::from(label.marker) << 7 | label.payload_type;
    header[2..4].copy_from_slice(&(label.index as u16).to_be_bytes());
    header[4..8].copy_from_slice(&label.timestamp.0.to_be_bytes());
    header[8..].copy_from_slice(&label.ssrc.to_be_bytes());
    out.extend_from_slice(&header);
    let frame_number = label.patch.as_ref().and_then(Patch::frame_number);
    if ids.write(kept.extension_profile, kept.extensions, frame_number, own, out) {
        out[start] |= 0x10;
    }
    let length = out.len() - start;
    if let Some(original) = label.original {
        out.extend_from_slice(&original.0.to_be_bytes());
    }
    let payload = out.len();
    out.extend_from_slice(kept.payload);
    if let Some(patch) = &label.patch {
        patch.apply(&mut out[payload..]);
    }
    length
}

/// Appends a packet of about `size` bytes that is nothing but padding (RFC 3550, section 5.1), with a header extension
/// of this hop's own; returns the length of its header with extensions.
pub fn write_padding(label: Label, size: usize, own: Option<(u8, &[u8])>, out: &mut Vec<u8>) -> usize {
    let nothing = Kept { extension_profile: 0, extensions: &[], payload: &[] };
    let start = out.len();
    let header = write(label, &nothing, &IdMap::default(), own, out);
    let padding = size.saturating_sub(out.len() - start).clamp(1, 255);
    out[start] |= 0x20;
    out.resize(out.len() + padding, 0);
    if let Some(last) = out.last_mut() {
        *last = padding as u8;
    }
    header
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
        let kept = Kept { extension_profile: 0xbede, extensions: &[0x30, 0x11, 0, 0], payload: b"payload" };
        let label = Label {
            payload_type: 97,
            ssrc: 9,
            index: 0x3_0008,
            timestamp: Timestamp(3),
            original: Some(Sequence(2)),
            marker: true,
            patch: Some(Patch::Payload { at: 1, length: 2, bytes: *b"AY.." }),
            transport: None,
        };
        let mut out = vec![0xff];
        assert_eq!(write(label, &kept, &IdMap::between(&ids, &ids), None, &mut out), 20);
        let (payload_type, read) = parse(&out[1..]).unwrap();
        assert_eq!((payload_type, read.ssrc, read.sequence, read.timestamp.0), (97, 9, Sequence(8), 3));
        assert!(read.marker);
        assert_eq!(read.payload[..], *b"\0\x02pAYload");
        assert_eq!(read.extensions, kept.extensions);
    }

    #[test]
    fn padding_is_a_packet_without_payload() {
        let label = Label {
            payload_type: 97,
            ssrc: 9,
            index: 8,
            timestamp: Timestamp(0),
            original: None,
            marker: false,
            patch: None,
            transport: None,
        };
        for size in [0, 40, 100, 1200] {
            let mut out = vec![0xff];
            let header = write_padding(label, size, Some((4, &[0, 7])), &mut out);
            let (_, read) = parse(&out[1..]).unwrap();
            assert_eq!((read.ssrc, read.sequence, read.payload.len()), (9, Sequence(8), 0));
            assert_eq!(read.extensions, [0x41, 0, 7, 0]);
            let length = out.len() - 1;
            assert_eq!(length, size.clamp(header + 1, header + 255), "{size}");
        }
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
