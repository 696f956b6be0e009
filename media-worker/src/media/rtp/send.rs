//! One sent stream: its labels, what can be sent again, and the sender report.

use std::time::{Duration, Instant};

use sfu::{IdMap, Sequence, Timestamp};

use super::history::PacketNumber;

/// Packets that can be asked for again: about a second of 4 Mbit/s. The packets themselves are in the
/// track's history; this costs 16 bytes each.
pub const MEMORY: usize = 512;
/// A packet is not sent again twice within this time: both requests were for the same loss.
const MIN_RESEND: Duration = Duration::from_millis(10);

/// Under which name a packet goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub payload_type: u8,
    pub ssrc: u32,
    /// Roll-over counter and sequence number.
    pub index: u32,
    pub timestamp: Timestamp,
    /// Set for a retransmission (RFC 4588): the original number goes in front of the payload.
    pub original: Option<Sequence>,
}

#[derive(Clone, Copy)]
struct Sent {
    index: u32,
    number: PacketNumber,
    timestamp: Timestamp,
    /// Milliseconds since the sender began; 0: never.
    resent_at: u32,
}

/// How the packets of one subscription are sent.
pub struct Sender {
    ssrc: u32,
    payload_type: u8,
    /// SSRC and payload type of retransmissions (RFC 4588); without, the packet itself is repeated.
    repair: Option<(u32, u8)>,
    repair_index: u32,
    ids: IdMap,
    /// By the low bits of the sequence number; empty until the first packet.
    memory: Vec<Option<Sent>>,
    keeps_memory: bool,
    began: Instant,
    /// The newest index.
    highest: Option<u32>,
    packets: u32,
    bytes: u32,
    /// What was added to the publisher's timestamps in the last packet.
    timestamp_offset: Option<u32>,
}

impl Sender {
    pub fn new(
        now: Instant,
        ssrc: u32,
        payload_type: u8,
        repair: Option<(u32, u8)>,
        ids: IdMap,
        keeps_memory: bool,
    ) -> Self {
        Self {
            ssrc,
            payload_type,
            repair,
            repair_index: 1,
            ids,
            memory: Vec::new(),
            keeps_memory,
            began: now,
            highest: None,
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

    /// The label of a packet that goes out under these numbers. `None` when one went out under that
    /// sequence number already: the same number with other content would break the encryption.
    pub fn send(
        &mut self,
        number: PacketNumber,
        sequence: Sequence,
        timestamp: Timestamp,
        payload: usize,
    ) -> Option<Label> {
        let index = match self.highest {
            None => u32::from(sequence.0),
            Some(highest) => {
                highest.checked_add_signed(i32::from(sequence.since(Sequence(highest as u16))))?
            }
        };
        if self.keeps_memory {
            if self.memory.is_empty() {
                self.memory.resize(MEMORY, None);
            }
            let place = &mut self.memory[place(sequence)];
            if place.is_some_and(|sent| sent.index >= index) {
                return None;
            }
            *place = Some(Sent { index, number, timestamp, resent_at: 0 });
        }
        self.highest = self.highest.max(Some(index));
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(payload as u32);
        Some(Label { payload_type: self.payload_type, ssrc: self.ssrc, index, timestamp, original: None })
    }

    /// Notes what turns the publisher's timestamps into this stream's.
    pub fn note_offset(&mut self, sent: Timestamp, original: Timestamp) {
        self.timestamp_offset = Some(sent.offset_from(original));
    }

    /// A packet to send again, with its label. `None` when it is too old, or was repeated just now.
    pub fn resend(&mut self, now: Instant, sequence: Sequence) -> Option<(Label, PacketNumber)> {
        // Never 0, which stands for never.
        let at = now.saturating_duration_since(self.began).as_millis() as u32 | 1;
        let sent = self.memory.get_mut(place(sequence))?.as_mut()?;
        let is_recent =
            sent.resent_at != 0 && at.wrapping_sub(sent.resent_at) < MIN_RESEND.as_millis() as u32;
        if sent.index as u16 != sequence.0 || is_recent {
            return None;
        }
        sent.resent_at = at;
        let (timestamp, number) = (sent.timestamp, sent.number);
        let label = match self.repair {
            Some((ssrc, payload_type)) => {
                let index = self.repair_index;
                self.repair_index += 1;
                Label { payload_type, ssrc, index, timestamp, original: Some(sequence) }
            }
            None => Label {
                payload_type: self.payload_type,
                ssrc: self.ssrc,
                index: sent.index,
                timestamp,
                original: None,
            },
        };
        Some((label, number))
    }

    /// What to report for an instant that the publisher's clocks call `rtp`: RTP time, packets and
    /// bytes. `None` before the first packet.
    pub fn report(&self, rtp: u32) -> Option<(u32, u32, u32)> {
        Some((rtp.wrapping_add(self.timestamp_offset?), self.packets, self.bytes))
    }
}

fn place(sequence: Sequence) -> usize {
    usize::from(sequence.0) % MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(repair: Option<(u32, u8)>) -> (Sender, Instant) {
        let now = Instant::now();
        (Sender::new(now, 7, 96, repair, IdMap::default(), true), now)
    }

    fn send(sender: &mut Sender, number: u32) -> Option<u32> {
        let label = sender.send(number, Sequence(number as u16), Timestamp(500), 3)?;
        Some(label.index)
    }

    #[test]
    fn sends_again_what_it_still_has_with_numbers_of_its_own() {
        let (mut sender, now) = sender(Some((8, 97)));
        for number in 0..600 {
            send(&mut sender, number);
        }
        assert!(sender.resend(now, Sequence(50)).is_none(), "too old");
        assert!(sender.resend(now, Sequence(700)).is_none(), "never sent");
        let (label, number) = sender.resend(now, Sequence(599)).unwrap();
        assert_eq!((label.ssrc, label.payload_type, label.index), (8, 97, 1));
        assert_eq!((label.original, number), (Some(Sequence(599)), 599));
        assert!(sender.resend(now, Sequence(599)).is_none(), "asked twice for the same loss");
        let later = now + 2 * MIN_RESEND;
        assert_eq!(sender.resend(later, Sequence(599)).unwrap().0.index, 2);
    }

    #[test]
    fn without_rtx_the_packet_itself_is_repeated() {
        let (mut sender, now) = sender(None);
        send(&mut sender, 5);
        let (label, _) = sender.resend(now, Sequence(5)).unwrap();
        assert_eq!((label.ssrc, label.payload_type, label.index, label.original), (7, 96, 5, None));
    }

    #[test]
    fn counts_roll_overs_and_never_uses_a_number_twice() {
        let (mut sender, _) = sender(None);
        for number in [1, 30_000, 60_000, 65_535, 65_537, 65_536] {
            assert_eq!(send(&mut sender, number), Some(number));
        }
        assert_eq!(send(&mut sender, 65_537), None, "sent already");
    }

    #[test]
    fn reports_the_publishers_clock_in_the_subscribers_time() {
        let (mut sender, _) = sender(None);
        assert_eq!(sender.report(1000), None);
        send(&mut sender, 5);
        sender.note_offset(Timestamp(500), Timestamp(200));
        assert_eq!(sender.report(1000), Some((1300, 1, 3)));
    }
}
