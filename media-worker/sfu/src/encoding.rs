//! One encoding of a publication, as it arrives.

use std::time::{Duration, Instant};

use crate::descriptor::{self, Frame, dependency};
use crate::extension::elements;
use crate::layers::Meter;
use crate::packet::{Codec, Packet};
use crate::request::KeyframeRequests;
use crate::wrapping::{Sequence, Timestamp};

/// An encoding has ended when it brings nothing for so long …
const SILENCE: Duration = Duration::from_millis(500);
/// … while the others bring so many pictures: a shared screen may have one picture a second in all of them.
const SILENT_PICTURES: u8 = 12;

/// The publisher's two clocks at one instant, from a sender report (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// 32.32 fixed point seconds.
    pub ntp: u64,
    pub rtp: Timestamp,
}

impl Clock {
    /// By how much this clock's RTP time is ahead of the other's, at any one instant.
    pub fn ahead_of(self, other: Self, clock_rate: u32) -> u32 {
        let later = self.ntp.wrapping_sub(other.ntp) as i64;
        let ticks = (i128::from(later) * i128::from(clock_rate)) >> 32;
        // Truncation to 32 bits is the wrap that timestamps have anyway.
        self.rtp.offset_from(other.rtp).wrapping_sub(ticks as u32)
    }
}

/// What a packet is to its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Next {
        /// The first one of a new SSRC.
        is_first: bool,
    },
    /// A newer one came before.
    Late,
    /// From the SSRC that another one has replaced.
    Replaced,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Encoding {
    ssrc: Option<u32>,
    previous_ssrc: Option<u32>,
    /// The newest number of the current source.
    newest: Option<Sequence>,
    pub requests: KeyframeRequests,
    pub meter: Meter,
    clock: Option<Clock>,
    dependencies: Option<Box<dependency::Reader>>,
    /// The highest spatial layer of the current source.
    highest_spatial: u8,
    last_at: Option<Instant>,
    /// Pictures of other encodings since its last packet.
    others: u8,
}

impl Encoding {
    /// Takes a packet in.
    pub fn take(&mut self, now: Instant, packet: &Packet<'_>) -> Arrival {
        let mut is_first = false;
        if self.ssrc != Some(packet.ssrc) {
            if self.previous_ssrc == Some(packet.ssrc) {
                return Arrival::Replaced;
            }
            self.previous_ssrc = self.ssrc.replace(packet.ssrc);
            (self.newest, self.clock, self.dependencies, self.highest_spatial) = (None, None, None, 0);
            is_first = true;
        }
        (self.last_at, self.others) = (Some(now), 0);
        if self.note_number(packet) { Arrival::Late } else { Arrival::Next { is_first } }
    }

    /// Notes a packet of the current source; returns whether a newer one came before it.
    pub fn note_number(&mut self, packet: &Packet<'_>) -> bool {
        if self.ssrc.is_some_and(|ssrc| ssrc != packet.ssrc) {
            return false;
        }
        let is_late = self.newest.is_some_and(|newest| newest.is_newer_than(packet.sequence));
        if !is_late {
            self.newest = Some(packet.sequence);
        }
        is_late
    }

    /// Another encoding brought a picture. Returns whether this one has fallen silent.
    pub fn note_other(&mut self, now: Instant) -> bool {
        self.others = self.others.saturating_add(1);
        self.others >= SILENT_PICTURES
            && self.last_at.is_none_or(|at| now.saturating_duration_since(at) >= SILENCE)
    }

    pub fn note_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// The clock of the source, if that is its current one.
    pub fn clock_of(&self, ssrc: Option<u32>) -> Option<Clock> {
        self.clock.filter(|_| ssrc.is_some() && ssrc == self.ssrc)
    }

    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Reads what a packet says about its frame. `descriptor`: the publisher's id for the dependency descriptor.
    pub fn read(
        &mut self,
        codec: Codec,
        packet: &Packet<'_>,
        descriptor: Option<u8>,
    ) -> (Frame, Option<dependency::Descriptor>) {
        let frame = descriptor::read(codec, packet.payload);
        self.highest_spatial = self.highest_spatial.max(frame.spatial);
        let Some(id) = descriptor else { return (frame, None) };
        let found = elements(packet.extension_profile, packet.extensions).find(|(other, _)| *other == id);
        let Some((_, bytes)) = found else { return (frame, None) };
        let Some(read) = self.dependencies.get_or_insert_default().read(bytes) else { return (frame, None) };
        (Frame { picture: frame.picture, ..read.frame() }, Some(read))
    }

    pub fn highest_spatial(&self) -> u8 {
        self.highest_spatial
    }

    pub fn structure(&self) -> Option<&dependency::Structure> {
        self.dependencies.as_ref()?.structure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_reports_say_how_two_clocks_relate() {
        let second = 1u64 << 32;
        let first = Clock { ntp: 10 * second, rtp: Timestamp(1_000) };
        let other = Clock { ntp: 12 * second, rtp: Timestamp(90_000 - 1) };
        // At second 12 the first one says 181,000.
        assert_eq!(first.ahead_of(other, 90_000), 181_000 - 89_999);
        assert_eq!(other.ahead_of(first, 90_000), (89_999u32).wrapping_sub(181_000));
    }
}
