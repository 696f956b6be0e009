//! The RTCP packets that matter here (RFC 3550, section 6; RFC 4585; RFC 5104).

use sfu::Sequence;

use super::feedback::TransportFeedback;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
/// Bytes of one report block, and of what comes before the blocks in a sender report's body.
const BLOCK: usize = 24;
const SENDER_INFO: usize = 24;
const FORMAT_NACK: u8 = 1;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
pub const FORMAT_TRANSPORT_WIDE: u8 = 15;
const FORMAT_APPLICATION: u8 = 15;

/// One thing that a client reports or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The sender's clocks: NTP time and RTP time of the same instant.
    SenderReport { ssrc: u32, ntp: u64, rtp: u32 },
    /// How a stream of ours arrives, from a sender or a receiver report.
    Reception(ReportBlock),
    /// Packets of a stream that did not arrive.
    Nack { ssrc: u32, lost: Nacks<'a> },
    /// PLI or FIR for a stream.
    KeyframeRequest { ssrc: u32 },
    /// When which of all packets arrived.
    TransportFeedback(TransportFeedback<'a>),
    /// A receiver's own estimate of what reaches it, in bit/s (draft-alvestrand-rmcat-remb-03).
    MaximumBitrate(u64),
}

/// The numbers in a NACK (RFC 4585, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nacks<'a>(&'a [u8]);

impl Nacks<'_> {
    pub fn sequences(self) -> impl Iterator<Item = Sequence> {
        self.0.chunks_exact(4).flat_map(|entry| {
            let first = Sequence(u16::from_be_bytes([entry[0], entry[1]]));
            let following = u16::from_be_bytes([entry[2], entry[3]]);
            let following =
                (0..16u16).filter(move |bit| following & (1 << bit) != 0).map(move |bit| first.plus(bit + 1));
            std::iter::once(first).chain(following)
        })
    }
}

/// Calls `found` for everything in a decrypted compound packet that matters. Ends at the first
/// malformed packet; returns whether all was well formed.
pub fn read(mut compound: &[u8], mut found: impl FnMut(Message<'_>)) -> bool {
    while let Some(head) = compound.first_chunk::<4>() {
        let length = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        if head[0] >> 6 != 2 || compound.len() < length {
            return false;
        }
        let (packet, rest) = compound.split_at(length);
        read_one(head[0] & 0x1f, head[1], &packet[4..], &mut found);
        compound = rest;
    }
    compound.is_empty()
}

fn read_one(format: u8, kind: u8, body: &[u8], found: &mut impl FnMut(Message<'_>)) {
    let word = |at: usize| body.get(at..at + 4).map(|it| u32::from_be_bytes([it[0], it[1], it[2], it[3]]));
    match (kind, format) {
        (SENDER_REPORT, _) => {
            if let (Some(ssrc), Some(high), Some(low), Some(rtp)) = (word(0), word(4), word(8), word(12)) {
                found(Message::SenderReport { ssrc, ntp: u64::from(high) << 32 | u64::from(low), rtp });
                read_blocks(format, body.get(SENDER_INFO..).unwrap_or_default(), found);
            }
        }
        (RECEIVER_REPORT, _) => read_blocks(format, body.get(4..).unwrap_or_default(), found),
        (TRANSPORT_FEEDBACK, FORMAT_NACK) => {
            if let (Some(ssrc), Some(entries)) = (word(4), body.get(8..)) {
                found(Message::Nack { ssrc, lost: Nacks(entries) });
            }
        }
        (TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_WIDE) => {
            if let Some(feedback) = TransportFeedback::read(body) {
                found(Message::TransportFeedback(feedback));
            }
        }
        (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) => {
            if let (Some(b"REMB"), Some(bitrate)) = (body.get(8..12), word(12)) {
                // Eight bits count the SSRCs, then come exponent and mantissa.
                let (exponent, mantissa) = (bitrate >> 18 & 0x3f, u64::from(bitrate & 0x3_ffff));
                found(Message::MaximumBitrate(mantissa.saturating_mul(1u64 << exponent)));
            }
        }
        (PAYLOAD_FEEDBACK, FORMAT_PLI) => {
            if let Some(ssrc) = word(4) {
                found(Message::KeyframeRequest { ssrc });
            }
        }
        (PAYLOAD_FEEDBACK, FORMAT_FIR) => {
            for entry in body.get(8..).unwrap_or_default().chunks_exact(8) {
                let ssrc = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
                found(Message::KeyframeRequest { ssrc });
            }
        }
        _ => {}
    }
}

/// Report blocks, as many as there should be and are (RFC 3550, section 6.4.1).
fn read_blocks(count: u8, blocks: &[u8], found: &mut impl FnMut(Message<'_>)) {
    for block in blocks.chunks_exact(BLOCK).take(count.into()) {
        let word =
            |index: usize| block[4 * index..].first_chunk::<4>().map_or(0, |it| u32::from_be_bytes(*it));
        let lost = word(1);
        found(Message::Reception(ReportBlock {
            ssrc: word(0),
            fraction_lost: (lost >> 24) as u8,
            // 24 bits with a sign.
            total_lost: (lost << 8) as i32 >> 8,
            extended_highest: word(2),
            jitter: word(3),
            last_sender_report: word(4),
            since_last_sender_report: word(5),
        }));
    }
}

fn head(format: u8, kind: u8, words: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80 | format, kind]);
    // Everything written here is far below 2^16 words.
    out.extend_from_slice(&(words as u16).to_be_bytes());
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Appends a PLI (RFC 4585, section 6.3.1).
pub fn write_pli(sender: u32, ssrc: u32, out: &mut Vec<u8>) {
    head(FORMAT_PLI, PAYLOAD_FEEDBACK, 2, out);
    put(out, &[sender, ssrc]);
}

/// Appends a NACK for numbers in ascending order (RFC 4585, section 6.2.1). Nothing for none.
pub fn write_nack(sender: u32, ssrc: u32, lost: &[Sequence], out: &mut Vec<u8>) {
    let mut entries: Vec<(Sequence, u16)> = Vec::new();
    for sequence in lost {
        match entries.last_mut() {
            Some((first, following)) if (1..=16).contains(&sequence.since(*first)) => {
                *following |= 1 << (sequence.since(*first) - 1);
            }
            _ => entries.push((*sequence, 0)),
        }
    }
    if entries.is_empty() {
        return;
    }
    head(FORMAT_NACK, TRANSPORT_FEEDBACK, 2 + entries.len(), out);
    put(out, &[sender, ssrc]);
    for (first, following) in entries {
        put(out, &[u32::from(first.0) << 16 | u32::from(following)]);
    }
}

/// Appends a transport-wide feedback packet around what `body` appends, which starts with the base sequence
/// number and is padded to whole words.
pub fn write_transport_feedback(sender: u32, ssrc: u32, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    head(FORMAT_TRANSPORT_WIDE, TRANSPORT_FEEDBACK, 0, out);
    put(out, &[sender, ssrc]);
    let before = out.len();
    body(out);
    out.resize(before + (out.len() - before).next_multiple_of(4), 0);
    set_length(out, start);
}

/// Writes how long the packet from `start` to the end has become into its header.
fn set_length(out: &mut [u8], start: usize) {
    // Everything written here is far below 2^16 words.
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// Appends a sender report without report blocks (RFC 3550, section 6.4.1).
pub fn write_sender_report(ssrc: u32, ntp: u64, rtp: u32, packets: u32, bytes: u32, out: &mut Vec<u8>) {
    head(0, SENDER_REPORT, 6, out);
    put(out, &[ssrc, (ntp >> 32) as u32, ntp as u32, rtp, packets, bytes]);
}

/// One stream in a receiver report (RFC 3550, section 6.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Since the last report, of 256.
    pub fraction_lost: u8,
    /// 24 bits, signed.
    pub total_lost: i32,
    pub extended_highest: u32,
    /// In ticks of the stream's clock.
    pub jitter: u32,
    pub last_sender_report: u32,
    /// In units of 1/65536 s.
    pub since_last_sender_report: u32,
}

/// Appends a receiver report with at most 31 blocks; nothing for none.
pub fn write_receiver_report(sender: u32, blocks: impl Iterator<Item = ReportBlock>, out: &mut Vec<u8>) {
    let (start, mut count) = (out.len(), 0);
    head(0, RECEIVER_REPORT, 0, out);
    put(out, &[sender]);
    for block in blocks.take(31) {
        count += 1;
        let lost = block.total_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        put(
            out,
            &[
                block.ssrc,
                u32::from(block.fraction_lost) << 24 | lost,
                block.extended_highest,
                block.jitter,
                block.last_sender_report,
                block.since_last_sender_report,
            ],
        );
    }
    if count == 0 {
        out.truncate(start);
        return;
    }
    out[start] |= count;
    set_length(out, start);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
    use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtc::rtcp::receiver_report::ReceiverReport;
    use rtc::rtcp::reception_report::ReceptionReport;
    use rtc::rtcp::sender_report::SenderReport;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
    use rtc::shared::marshal::{Marshal, Unmarshal};

    use super::*;

    fn nacked(bytes: &[u8]) -> Vec<u16> {
        let mut all = Vec::new();
        assert!(read(bytes, |message| {
            let Message::Nack { ssrc: 2, lost } = message else { panic!("{message:?}") };
            all.extend(lost.sequences().map(|it| it.0));
        }));
        all
    }

    #[test]
    fn reads_a_compound_of_another_implementation() {
        let fir = FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![FirEntry { ssrc: 7, sequence_number: 1 }, FirEntry { ssrc: 8, sequence_number: 1 }],
        };
        let report =
            SenderReport { ssrc: 3, ntp_time: 0x0102_0304_0506_0708, rtp_time: 9, ..Default::default() };
        let mut bytes = report.marshal().unwrap().to_vec();
        bytes.extend(fir.marshal().unwrap());
        let mut all = Vec::new();
        assert!(read(&bytes, |message| match message {
            Message::SenderReport { ssrc, ntp, rtp } => all.push(format!("{ssrc} {ntp:x} {rtp}")),
            Message::KeyframeRequest { ssrc } => all.push(format!("key {ssrc}")),
            other => panic!("{other:?}"),
        }));
        assert_eq!(all, ["3 102030405060708 9", "key 7", "key 8"]);
    }

    #[test]
    fn reads_how_streams_arrive_from_either_kind_of_report() {
        let report = |ssrc, total_lost| ReceptionReport {
            ssrc,
            fraction_lost: 64,
            total_lost,
            last_sequence_number: 0x1_0007,
            jitter: 11,
            last_sender_report: 12,
            delay: 13,
        };
        let of_sender =
            SenderReport { ssrc: 3, reports: vec![report(7, 5), report(8, 0)], ..Default::default() };
        let of_receiver =
            ReceiverReport { ssrc: 3, reports: vec![report(9, 0xff_ffff)], ..Default::default() };
        let mut bytes = of_sender.marshal().unwrap().to_vec();
        bytes.extend(of_receiver.marshal().unwrap());
        let mut all = Vec::new();
        assert!(read(&bytes, |message| {
            if let Message::Reception(block) = message {
                all.push(block);
            }
        }));
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 64,
            total_lost: 5,
            extended_highest: 0x1_0007,
            jitter: 11,
            last_sender_report: 12,
            since_last_sender_report: 13,
        };
        let expected = [
            block,
            ReportBlock { ssrc: 8, total_lost: 0, ..block },
            ReportBlock { ssrc: 9, total_lost: -1, ..block },
        ];
        assert_eq!(all, expected);
        // Fewer than it says.
        bytes.truncate(28 + 24);
        (bytes[2], bytes[3]) = (0, 12);
        let mut count = 0;
        read(&bytes, |message| count += usize::from(matches!(message, Message::Reception(_))));
        assert_eq!(count, 1);
    }

    #[test]
    fn reads_the_estimate_of_a_receiver() {
        let remb =
            ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 8_927_168.0, ssrcs: vec![7, 8] };
        let mut all = Vec::new();
        assert!(read(&remb.marshal().unwrap(), |message| match message {
            Message::MaximumBitrate(bitrate) => all.push(bitrate),
            other => panic!("{other:?}"),
        }));
        assert_eq!(all, [8_927_168]);
    }

    #[test]
    fn another_implementation_reads_what_is_written() {
        let block = ReportBlock {
            ssrc: 2,
            fraction_lost: 64,
            total_lost: 5,
            extended_highest: 0x1_0007,
            jitter: 11,
            last_sender_report: 12,
            since_last_sender_report: 13,
        };
        let mut out = Vec::new();
        write_receiver_report(1, std::iter::once(block), &mut out);
        let report = ReceiverReport::unmarshal(&mut &out[..]).unwrap();
        assert_eq!(report.ssrc, 1);
        let read = &report.reports[0];
        assert_eq!((read.ssrc, read.fraction_lost, read.total_lost, read.jitter), (2, 64, 5, 11));
        assert_eq!((read.last_sequence_number, read.delay), (0x1_0007, 13));

        out.clear();
        write_nack(1, 2, &[Sequence(65_535), Sequence(0), Sequence(40)], &mut out);
        let nack = TransportLayerNack::unmarshal(&mut &out[..]).unwrap();
        assert_eq!((nack.sender_ssrc, nack.media_ssrc, nack.nacks.len()), (1, 2, 2));
    }

    proptest! {
        #[test]
        fn a_nack_names_exactly_what_is_lost(start: u16, gaps in proptest::collection::vec(1u16..40, 1..60)) {
            let mut lost = vec![Sequence(start)];
            for gap in gaps {
                lost.push(lost[lost.len() - 1].plus(gap));
            }
            let mut out = Vec::new();
            write_nack(1, 2, &lost, &mut out);
            prop_assert_eq!(nacked(&out), lost.into_iter().map(|it| it.0).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 200u8..=206) {
            if bytes.len() >= 4 {
                bytes[0] = 0x80 | bytes[0] & 0x1f;
                bytes[1] = kind;
                bytes[2] = 0;
            }
            read(&bytes, |message| {
                if let Message::Nack { lost, .. } = message {
                    assert!(lost.sequences().count() <= 100 / 4 * 17);
                }
            });
        }
    }
}
