//! RTP headers (RFC 3550, section 5.1; RFC 8285) and the RTCP that a client sends and acts on.

/// Where a packet belongs, read from its header without decrypting anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Bytes in front of the payload.
    pub length: usize,
}

impl Header {
    /// `None` when this is no RTP packet.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<12>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let mut length = 12 + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let extension = packet.get(length..)?.first_chunk::<4>()?;
            length += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        (length <= packet.len()).then(|| Self {
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: word(4),
            ssrc: word(8),
            length,
        })
    }
}

/// What is written in front of a payload.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Ids (1 to 14) with values of 1 to 16 bytes; one-byte form.
    pub extensions: &'a [(u8, &'a [u8])],
}

impl Write<'_> {
    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.extensions.is_empty() { 0x80 } else { 0x90 });
        out.push(u8::from(self.marker) << 7 | self.payload_type);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        if self.extensions.is_empty() {
            return;
        }
        let length: usize = self.extensions.iter().map(|(_, value)| 1 + value.len()).sum();
        let padded = length.next_multiple_of(4);
        out.extend_from_slice(&[0xbe, 0xde]);
        out.extend_from_slice(&((padded / 4) as u16).to_be_bytes());
        for (id, value) in self.extensions {
            out.push(id << 4 | (value.len() as u8 - 1));
            out.extend_from_slice(value);
        }
        out.resize(out.len() + padded - length, 0);
    }
}

/// One thing that a server reports or asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Nack {
        ssrc: u32,
        lost: Vec<u16>,
    },
    KeyframeRequest {
        ssrc: u32,
    },
    /// A sender report's NTP time.
    Clock {
        ssrc: u32,
        ntp: u64,
    },
}

/// Reads a decrypted compound packet up to its first malformed part.
pub fn read_reports(mut compound: &[u8]) -> Vec<Report> {
    let mut found = Vec::new();
    while let Some(head) = compound.first_chunk::<4>() {
        let length = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        if head[0] >> 6 != 2 || compound.len() < length {
            break;
        }
        let (packet, rest) = compound.split_at(length);
        let word =
            |at: usize| packet.get(at..at + 4).map(|it| u32::from_be_bytes([it[0], it[1], it[2], it[3]]));
        match (head[1], head[0] & 0x1f) {
            (200, _) => {
                if let (Some(ssrc), Some(high), Some(low)) = (word(4), word(8), word(12)) {
                    found.push(Report::Clock { ssrc, ntp: u64::from(high) << 32 | u64::from(low) });
                }
            }
            (205, 1) => {
                if let Some(ssrc) = word(8) {
                    let entries = packet.get(12..).unwrap_or_default().chunks_exact(4);
                    let lost = entries.flat_map(|entry| {
                        let first = u16::from_be_bytes([entry[0], entry[1]]);
                        let mask = u16::from_be_bytes([entry[2], entry[3]]);
                        let following = (0..16u16).filter(move |bit| mask & (1 << bit) != 0);
                        std::iter::once(first).chain(following.map(move |bit| first.wrapping_add(bit + 1)))
                    });
                    found.push(Report::Nack { ssrc, lost: lost.collect() });
                }
            }
            (206, 1) => found.extend(word(8).map(|ssrc| Report::KeyframeRequest { ssrc })),
            (206, 4) => {
                let entries = packet.get(12..).unwrap_or_default().chunks_exact(8);
                found.extend(entries.map(|entry| Report::KeyframeRequest {
                    ssrc: u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]),
                }));
            }
            _ => {}
        }
        compound = rest;
    }
    found
}

fn head(out: &mut Vec<u8>, format: u8, kind: u8, words: usize) {
    out.extend_from_slice(&[0x80 | format, kind]);
    // Everything written here is far below 2^16 words.
    out.extend_from_slice(&(words as u16).to_be_bytes());
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
}

/// Appends a sender report without blocks (RFC 3550, section 6.4.1).
pub fn write_sender_report(out: &mut Vec<u8>, ssrc: u32, ntp: u64, rtp: u32, packets: u32, bytes: u32) {
    head(out, 0, 200, 6);
    put(out, &[ssrc, (ntp >> 32) as u32, ntp as u32, rtp, packets, bytes]);
}

/// One stream in a receiver report (RFC 3550, section 6.4.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    pub ssrc: u32,
    pub fraction_lost: u8,
    pub total_lost: u32,
    pub extended_highest: u32,
    pub jitter: u32,
    pub last_sender_report: u32,
    pub since_last_sender_report: u32,
}

/// Appends receiver reports, 31 blocks in each; an empty one for none.
pub fn write_receiver_reports(out: &mut Vec<u8>, sender: u32, blocks: &[Block]) {
    let mut rest = blocks;
    loop {
        let (some, after) = rest.split_at(rest.len().min(31));
        head(out, some.len() as u8, 201, 1 + 6 * some.len());
        put(out, &[sender]);
        for block in some {
            let lost = u32::from(block.fraction_lost) << 24 | block.total_lost.min(0x7f_ffff);
            let Block { ssrc, extended_highest, jitter, .. } = *block;
            let Block { last_sender_report, since_last_sender_report, .. } = *block;
            put(out, &[ssrc, lost, extended_highest, jitter, last_sender_report, since_last_sender_report]);
        }
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Appends a PLI (RFC 4585, section 6.3.1).
pub fn write_keyframe_request(out: &mut Vec<u8>, sender: u32, ssrc: u32) {
    head(out, 1, 206, 2);
    put(out, &[sender, ssrc]);
}

/// Appends a NACK (RFC 4585, section 6.2.1), one entry for each number.
pub fn write_nack(out: &mut Vec<u8>, sender: u32, ssrc: u32, lost: &[u16]) {
    head(out, 1, 205, 2 + lost.len());
    put(out, &[sender, ssrc]);
    lost.iter().for_each(|sequence| put(out, &[u32::from(*sequence) << 16]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::shared::marshal::Unmarshal;

    use super::*;

    #[test]
    fn another_implementation_reads_the_header() {
        let mut packet = Vec::new();
        let extensions: &[(u8, &[u8])] = &[(1, b"0"), (3, &[1, 2, 3]), (5, &[9, 8])];
        Write { payload_type: 96, marker: true, sequence: 7, timestamp: 8, ssrc: 9, extensions }
            .write(&mut packet);
        packet.extend_from_slice(b"payload");
        let read = rtc::rtp::Packet::unmarshal(&mut &packet[..]).unwrap();
        assert_eq!(
            (read.header.payload_type, read.header.marker, read.header.sequence_number),
            (96, true, 7)
        );
        assert_eq!((read.header.timestamp, read.header.ssrc), (8, 9));
        assert_eq!(read.header.get_extension(3).unwrap()[..], [1, 2, 3]);
        assert_eq!(&read.payload[..], b"payload");
        let header = Header::read(&packet).unwrap();
        assert_eq!(&packet[header.length..], b"payload");
        assert_eq!((header.payload_type, header.sequence, header.timestamp, header.ssrc), (96, 7, 8, 9));
    }

    #[test]
    fn reports_are_read_back() {
        let mut out = Vec::new();
        write_sender_report(&mut out, 1, 0x0102_0304_0506_0708, 2, 3, 4);
        write_receiver_reports(&mut out, 5, &[Block { ssrc: 6, ..Block::default() }]);
        write_nack(&mut out, 5, 6, &[65_535, 0]);
        write_keyframe_request(&mut out, 5, 7);
        assert_eq!(
            read_reports(&out),
            [
                Report::Clock { ssrc: 1, ntp: 0x0102_0304_0506_0708 },
                Report::Nack { ssrc: 6, lost: vec![65_535, 0] },
                Report::KeyframeRequest { ssrc: 7 },
            ]
        );
        let packets = rtc::rtcp::packet::unmarshal(&mut &out[..]).unwrap();
        assert_eq!(packets.len(), 4, "another implementation reads them too");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Header::read(&bytes);
            let _ = read_reports(&bytes);
        }
    }
}
