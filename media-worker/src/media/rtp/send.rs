//! One sent stream: its label, what can be sent again, and the sender report.

use std::time::{Duration, Instant};

use sfu::{IdMap, Packet, Sequence, Timestamp};

use super::packet::Label;

/// Packets that can be sent again: about a second of 4 Mbit/s. The payloads are shared with the other
/// subscribers, so this costs about 120 bytes each.
pub const HISTORY: usize = 512;
/// A packet is not sent again twice within this time: both requests were for the same loss.
const MIN_RESEND: Duration = Duration::from_millis(10);

struct Sent {
    packet: Packet,
    resent_at: Option<Instant>,
}

/// How the packets of one subscription are sent.
pub struct Sender {
    ssrc: u32,
    payload_type: u8,
    /// SSRC and payload type of retransmissions (RFC 4588); without, the packet itself is repeated.
    repair: Option<(u32, u8)>,
    repair_sequence: Sequence,
    ids: IdMap,
    /// By the low bits of the sequence number; empty until the first packet.
    history: Vec<Option<Sent>>,
    keeps_history: bool,
    packets: u32,
    bytes: u32,
    /// What was added to the publisher's timestamps in the last packet.
    timestamp_offset: Option<u32>,
}

impl Sender {
    pub fn new(
        ssrc: u32,
        payload_type: u8,
        repair: Option<(u32, u8)>,
        ids: IdMap,
        keeps_history: bool,
    ) -> Self {
        Self {
            ssrc,
            payload_type,
            repair,
            repair_sequence: Sequence(1),
            ids,
            history: Vec::new(),
            keeps_history,
            packets: 0,
            bytes: 0,
            timestamp_offset: None,
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn ids(&self) -> &IdMap {
        &self.ids
    }

    /// The label of a packet that goes out; keeps the packet. `original` is the publisher's timestamp.
    pub fn send(&mut self, packet: &Packet, original: Timestamp) -> Label {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(packet.payload.len() as u32);
        self.timestamp_offset = Some(packet.timestamp.offset_from(original));
        if self.keeps_history {
            if self.history.is_empty() {
                self.history.resize_with(HISTORY, || None);
            }
            self.history[place(packet.sequence)] = Some(Sent { packet: packet.clone(), resent_at: None });
        }
        Label { payload_type: self.payload_type, ssrc: self.ssrc, sequence: packet.sequence, original: None }
    }

    /// A packet to send again, with its label. `None` when it is too old, or was repeated just now.
    pub fn resend(&mut self, now: Instant, sequence: Sequence) -> Option<(Label, Packet)> {
        let sent = self.history.get_mut(place(sequence))?.as_mut()?;
        if sent.packet.sequence != sequence
            || sent.resent_at.is_some_and(|at| now.saturating_duration_since(at) < MIN_RESEND)
        {
            return None;
        }
        sent.resent_at = Some(now);
        let packet = sent.packet.clone();
        let label = match self.repair {
            Some((ssrc, payload_type)) => {
                let label =
                    Label { payload_type, ssrc, sequence: self.repair_sequence, original: Some(sequence) };
                self.repair_sequence = self.repair_sequence.plus(1);
                label
            }
            None => Label { payload_type: self.payload_type, ssrc: self.ssrc, sequence, original: None },
        };
        Some((label, packet))
    }

    /// What to report for an instant that the publisher's clocks call `rtp`: RTP time, packets and
    /// bytes. `None` before the first packet.
    pub fn report(&self, rtp: u32) -> Option<(u32, u32, u32)> {
        Some((rtp.wrapping_add(self.timestamp_offset?), self.packets, self.bytes))
    }
}

fn place(sequence: Sequence) -> usize {
    usize::from(sequence.0) % HISTORY
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn packet(sequence: u16) -> Packet {
        Packet::new(1, sequence, 500, Bytes::from_static(b"abc"))
    }

    #[test]
    fn sends_again_what_it_still_has_with_numbers_of_its_own() {
        let (mut sender, now) = (Sender::new(7, 96, Some((8, 97)), IdMap::default(), true), Instant::now());
        for sequence in 0..600 {
            sender.send(&packet(sequence), Timestamp(0));
        }
        assert!(sender.resend(now, Sequence(50)).is_none(), "too old");
        assert!(sender.resend(now, Sequence(700)).is_none(), "never sent");
        let (label, again) = sender.resend(now, Sequence(599)).unwrap();
        assert_eq!((label.ssrc, label.payload_type, label.sequence), (8, 97, Sequence(1)));
        assert_eq!((label.original, again.sequence), (Some(Sequence(599)), Sequence(599)));
        assert!(sender.resend(now, Sequence(599)).is_none(), "asked twice for the same loss");
        let later = now + MIN_RESEND;
        assert_eq!(sender.resend(later, Sequence(599)).unwrap().0.sequence, Sequence(2));
    }

    #[test]
    fn without_rtx_the_packet_itself_is_repeated() {
        let (mut sender, now) = (Sender::new(7, 96, None, IdMap::default(), true), Instant::now());
        sender.send(&packet(5), Timestamp(0));
        let (label, _) = sender.resend(now, Sequence(5)).unwrap();
        assert_eq!(
            (label.ssrc, label.payload_type, label.sequence, label.original),
            (7, 96, Sequence(5), None)
        );
    }

    #[test]
    fn reports_the_publishers_clock_in_the_subscribers_time() {
        let mut sender = Sender::new(7, 96, None, IdMap::default(), false);
        assert_eq!(sender.report(1000), None);
        sender.send(&packet(5), Timestamp(200));
        assert_eq!(sender.report(1000), Some((1300, 1, 3)));
    }
}
