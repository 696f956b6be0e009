//! One sent stream: its labels, what can be sent again, and the sender report.

use std::time::{Duration, Instant};

use sfu::{IdMap, Patch, Sequence, Timestamp};

use crate::media::pipeline::Outgoing;

use super::history::PacketNumber;
use super::meter::Meter;
use super::reported::Reported;

/// Packets of a picture that can be asked for again: about a second of 4 Mbit/s. The packets themselves are in the
/// track's history; this costs 32 bytes each.
pub const VIDEO_MEMORY: u16 = 512;
/// The same for a voice: more than a second.
pub const AUDIO_MEMORY: u16 = 64;
/// How many of the newest packets a probe repeats in turn.
const REPEATED: u32 = 16;
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
    pub marker: bool,
    /// What is different from the packet that was received.
    pub patch: Option<Patch>,
    /// The transport-wide number, when it is that of an earlier packet: the same one, byte for byte.
    pub transport: Option<u16>,
}

#[derive(Clone, Copy)]
struct Sent {
    index: u32,
    number: PacketNumber,
    timestamp: Timestamp,
    marker: bool,
    patch: Option<Patch>,
    transport: u16,
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
    /// How far behind the newest packet the last one was that a probe repeated.
    repeated: u32,
    /// Packets below this index were of another track: their content cannot be had under their number any more.
    floor: u32,
    ids: IdMap,
    /// By the low bits of the sequence number; empty until the first packet.
    memory: Vec<Option<Sent>>,
    /// How many packets are remembered.
    size: u16,
    began: Instant,
    /// The newest index.
    highest: Option<u32>,
    /// What was sent, without retransmissions.
    pub meter: Meter,
    /// Packets that were sent again.
    pub resent: u64,
    /// NACK packets of the client, and keyframes that it asked for.
    pub nacks: u32,
    pub keyframe_requests: u32,
    /// Boxed: touched by reports only, and larger than all that packets touch.
    pub reported: Box<Reported>,
}

impl Sender {
    /// `memory`: how many packets can be asked for again.
    pub fn new(
        now: Instant,
        ssrc: u32,
        payload_type: u8,
        repair: Option<(u32, u8)>,
        ids: IdMap,
        memory: u16,
    ) -> Self {
        Self {
            ssrc,
            payload_type,
            repair,
            repair_index: 1,
            repeated: 0,
            floor: 0,
            ids,
            memory: Vec::new(),
            size: memory,
            began: now,
            highest: None,
            meter: Meter::new(now),
            resent: 0,
            nacks: 0,
            keyframe_requests: 0,
            reported: Box::default(),
        }
    }

    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Goes on with another track, under the same SSRC and numbers. What was sent before is not sent again.
    pub fn carry_on(&mut self, payload_type: u8, repair: Option<(u32, u8)>, ids: IdMap) {
        (self.payload_type, self.repair, self.ids) = (payload_type, repair, ids);
        self.floor = self.highest.map_or(0, |highest| highest.saturating_add(1));
    }

    pub fn ids(&self) -> &IdMap {
        &self.ids
    }

    /// The label of a packet that goes out under these numbers, and this transport-wide one. `None` when one went out under that
    /// sequence number already: the same number with other content would break the encryption.
    pub fn send(&mut self, packet: &Outgoing, payload: usize, transport: u16) -> Option<Label> {
        let Outgoing { number, sequence, timestamp, marker, patch, .. } = *packet;
        let index = match self.highest {
            None => u32::from(sequence.0),
            Some(highest) => {
                highest.checked_add_signed(i32::from(sequence.since(Sequence(highest as u16))))?
            }
        };
        if self.size > 0 {
            if self.memory.is_empty() {
                self.memory.resize(usize::from(self.size), None);
            }
            let place = &mut self.memory[usize::from(sequence.0 % self.size)];
            if place.is_some_and(|sent| sent.index >= index) {
                return None;
            }
            *place = Some(Sent { index, number, timestamp, marker, patch, transport, resent_at: 0 });
        }
        self.highest = self.highest.max(Some(index));
        self.meter.note(payload);
        let (payload_type, ssrc) = (self.payload_type, self.ssrc);
        Some(Label { payload_type, ssrc, index, timestamp, original: None, marker, patch, transport: None })
    }

    fn sent(&mut self, sequence: Sequence) -> Option<&mut Sent> {
        let floor = self.floor;
        let sent = self.memory.get_mut(usize::from(sequence.0.checked_rem(self.size)?))?.as_mut()?;
        (sent.index as u16 == sequence.0 && sent.index >= floor).then_some(sent)
    }

    /// A packet to send again, with its label. `None` when it is too old, or was repeated just now.
    pub fn resend(&mut self, now: Instant, sequence: Sequence) -> Option<(Label, PacketNumber)> {
        // Never 0, which stands for never.
        let at = now.saturating_duration_since(self.began).as_millis() as u32 | 1;
        let sent = self.sent(sequence)?;
        let is_recent =
            sent.resent_at != 0 && at.wrapping_sub(sent.resent_at) < MIN_RESEND.as_millis() as u32;
        if is_recent {
            return None;
        }
        sent.resent_at = at;
        let Sent { index: own_index, number, timestamp, marker, patch, transport, .. } = *sent;
        self.resent += 1;
        let label = match self.repair {
            Some((ssrc, payload_type)) => {
                let index = self.repair_index;
                self.repair_index += 1;
                let original = Some(sequence);
                Label { payload_type, ssrc, index, timestamp, original, marker, patch, transport: None }
            }
            // Another content under the same index would break the encryption.
            None => Label {
                payload_type: self.payload_type,
                ssrc: self.ssrc,
                index: own_index,
                timestamp,
                original: None,
                marker,
                patch,
                transport: Some(transport),
            },
        };
        Some((label, number))
    }

    /// A packet that went out lately, to be sent once more as the payload of a probe; another one with each call. `None`
    /// without retransmissions on an SSRC of their own, where a repetition would be taken for the packet itself.
    pub fn repeat(&mut self) -> Option<(Label, PacketNumber)> {
        let (ssrc, payload_type) = self.repair?;
        self.repeated = (self.repeated + 1) % REPEATED;
        let sequence = Sequence(self.highest?.checked_sub(self.repeated)? as u16);
        let Sent { number, timestamp, marker, patch, .. } = *self.sent(sequence)?;
        let index = self.repair_index;
        self.repair_index += 1;
        let original = Some(sequence);
        let label = Label { payload_type, ssrc, index, timestamp, original, marker, patch, transport: None };
        Some((label, number))
    }

    /// The label of a packet without payload. `None` without retransmissions: their numbers are the only ones in
    /// which a gap or an addition means nothing to a decoder.
    pub fn pad(&mut self) -> Option<Label> {
        let (ssrc, payload_type) = self.repair?;
        let index = self.repair_index;
        self.repair_index += 1;
        Some(Label {
            payload_type,
            ssrc,
            index,
            timestamp: Timestamp(0),
            original: None,
            marker: false,
            patch: None,
            transport: None,
        })
    }

    /// Packets and bytes so far, for a report that goes out now with this NTP time. `None` before the first packet.
    pub fn report(&mut self, now: Instant, ntp: u64) -> Option<(u32, u32)> {
        self.highest?;
        self.reported.note_sent(now, ntp);
        // Both counts of a report are modulo 2^32 (RFC 3550, section 6.4.1).
        Some((self.meter.packets as u32, self.meter.bytes as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(repair: Option<(u32, u8)>) -> (Sender, Instant) {
        let now = Instant::now();
        (Sender::new(now, 7, 96, repair, IdMap::default(), VIDEO_MEMORY), now)
    }

    fn outgoing(number: u32) -> Outgoing {
        Outgoing {
            line: 0,
            publication: sfu::Session::new().publish(sfu::Codec::Vp8),
            number,
            sequence: Sequence(number as u16),
            timestamp: Timestamp(500),
            marker: true,
            patch: Some(Patch::FrameNumber(number as u16)),
        }
    }

    fn send(sender: &mut Sender, number: u32) -> Option<u32> {
        let label = sender.send(&outgoing(number), 3, number as u16 ^ 1)?;
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
        assert_eq!((label.marker, label.patch), (true, Some(Patch::FrameNumber(599))), "as it was sent");
        assert!(sender.resend(now, Sequence(599)).is_none(), "asked twice for the same loss");
        let later = now + 2 * MIN_RESEND;
        assert_eq!(sender.resend(later, Sequence(599)).unwrap().0.index, 2);
    }

    #[test]
    fn a_probe_repeats_what_went_out_lately_or_sends_nothing_but_padding() {
        let (mut padded, _) = sender(Some((8, 97)));
        assert!(padded.repeat().is_none(), "nothing went out");
        assert_eq!(padded.pad().map(|label| (label.ssrc, label.index, label.original)), Some((8, 1, None)));
        for number in 0..40 {
            send(&mut padded, number);
        }
        let repeated: Vec<_> = (0..3).filter_map(|_| padded.repeat()).collect();
        let numbers: Vec<_> = repeated.iter().map(|(label, number)| (label.index, *number)).collect();
        assert_eq!(numbers, [(2, 37), (3, 36), (4, 35)]);
        assert!(repeated.iter().all(|(label, number)| label.original == Some(Sequence(*number as u16))));
        let (mut plain, _) = sender(None);
        send(&mut plain, 1);
        assert!(plain.repeat().is_none() && plain.pad().is_none());
    }

    #[test]
    fn without_rtx_the_packet_itself_is_repeated() {
        let (mut sender, now) = sender(None);
        send(&mut sender, 5);
        let (label, _) = sender.resend(now, Sequence(5)).unwrap();
        assert_eq!((label.ssrc, label.payload_type, label.index, label.original), (7, 96, 5, None));
        assert_eq!(label.transport, Some(4), "with the same header: it is the same packet to the encryption");
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
    fn reports_what_it_sent() {
        let (mut sender, now) = sender(None);
        assert_eq!(sender.report(now, 1 << 16), None);
        send(&mut sender, 5);
        assert_eq!(sender.report(now, 1 << 16), Some((1, 3)));
    }
}
