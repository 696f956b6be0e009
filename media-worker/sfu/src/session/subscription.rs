//! One subscription: what it gets of a packet, and under which numbers.

use std::time::Instant;

use super::PublicationId;
use crate::descriptor::{Frame, Patch, dependency};
use crate::encoding::{Arrival, Encoding};
use crate::layers::{EncodingId, MAX_ENCODINGS, Target};
use crate::packet::{Codec, Packet};
use crate::pictures::{Names, Pictures};
use crate::rewrite::Rewriter;
use crate::select::{Selector, Verdict};
use crate::wrapping::{Sequence, Timestamp};

/// See [`super::SubscriptionId`].
#[derive(Debug)]
pub struct Subscription {
    pub(super) publication: PublicationId,
    /// What it gets instead, from where that can be decoded.
    pub(super) next: Option<PublicationId>,
    /// It stays when its publication goes.
    pub(super) outlives: bool,
    pub(super) active: bool,
    pub(super) target: Option<Target>,
    /// How many encodings it could use soon.
    pub(super) reach: u8,
    /// What it is on; `None` while it waits for a first keyframe.
    pub(super) current: Option<EncodingId>,
    /// Whose numbers the rewriter continues.
    pub(super) numbered: EncodingId,
    pub(super) rewriter: Rewriter,
    pictures: Pictures,
    pub(super) selector: Selector,
}

/// The best encoding that is sent, up to the one that is wanted.
pub(super) fn best(alive: u8, wanted: EncodingId) -> Option<EncodingId> {
    // Of eight encodings that fit into the bits.
    let up_to = u8::MAX >> 7u8.saturating_sub(wanted.0);
    (alive & up_to).checked_ilog2().map(|index| EncodingId(index as u8))
}

/// A packet with all that is known about it.
pub(super) struct Arrived<'a> {
    pub now: Instant,
    pub packet: &'a Packet<'a>,
    pub frame: Frame,
    pub dependencies: Option<dependency::Descriptor>,
    pub names: Names,
    pub arrival: Arrival,
    pub codec: Codec,
}

/// Why a subscription does not get a packet.
pub(super) enum Reason {
    Inactive,
    Paused,
    AwaitingKeyframe,
    OtherEncoding,
    Withheld,
    BeforeStart,
}

impl Subscription {
    /// One to the best there is, that does not flow yet.
    pub(super) fn new(publication: PublicationId) -> Self {
        Self {
            publication,
            next: None,
            outlives: false,
            active: false,
            target: Some(Target::BEST),
            reach: MAX_ENCODINGS,
            current: None,
            numbered: EncodingId::default(),
            rewriter: Rewriter::default(),
            pictures: Pictures::default(),
            selector: Selector::default(),
        }
    }

    pub(super) fn pause(&mut self) {
        self.rewriter.pause();
        self.current = None;
    }

    /// It gets nothing; its numbers go on with whatever comes next.
    pub(super) fn leave(&mut self) {
        self.publication = PublicationId::NOTHING;
        self.pause();
        self.rewriter.forget_source();
    }

    /// Whether it can go over to another publication with this packet of it.
    pub(super) fn can_come_over(&self, arrived: &Arrived<'_>, alive: u8) -> bool {
        let Some(target) = self.target.filter(|_| self.active && arrived.arrival != Arrival::Late) else {
            return false;
        };
        !arrived.codec.is_video()
            || arrived.frame.starts_keyframe && best(alive, target.encoding) == Some(arrived.packet.encoding)
    }

    /// Goes over to another publication; the packet that made that possible is the first one it gets.
    pub(super) fn come_over(&mut self, publication: PublicationId) {
        self.leave();
        (self.publication, self.next) = (publication, None);
    }

    /// The numbers, marker and changes with which the packet goes out.
    pub(super) fn handle(
        &mut self,
        arrived: &Arrived<'_>,
        encodings: &[Encoding],
        alive: u8,
    ) -> Result<(Sequence, Timestamp, bool, Option<Patch>), Reason> {
        let Arrived { now, packet, frame, codec, .. } = arrived;
        if !self.active {
            return Err(Reason::Inactive);
        }
        let target = self.target.ok_or(Reason::Paused)?;
        let is_late = arrived.arrival == Arrival::Late;
        let mut marker = packet.marker;
        if codec.is_video() {
            if arrived.arrival == (Arrival::Next { is_first: true }) && self.current == Some(packet.encoding)
            {
                // Whatever it needs of the old source is gone.
                self.pause();
            }
            if self.current != Some(packet.encoding) {
                self.change_over(arrived, target, alive)?;
            }
            let level = target.level(packet.encoding);
            let structure = encodings.get(packet.encoding.index()).and_then(Encoding::structure);
            let verdict = match (&arrived.dependencies, structure) {
                (Some(read), Some(structure)) => {
                    self.selector.select_by_dependencies(packet, read, structure, level, is_late)
                }
                _ => self.selector.select(packet, frame, level, is_late),
            };
            match verdict {
                Verdict::Forward { marker: is_last } => marker = is_last,
                Verdict::Withhold => {
                    if !self.rewriter.starts(packet.ssrc) {
                        self.rewriter.withhold(packet.sequence);
                        if *codec == Codec::Vp8 {
                            self.pictures.withhold(&frame.picture);
                        }
                    }
                    return Err(Reason::Withheld);
                }
            }
        } else if is_late && self.rewriter.is_starting() {
            return Err(Reason::BeforeStart);
        }
        if self.rewriter.starts(packet.ssrc) {
            self.start(arrived, encodings);
        }
        let numbers = self.rewriter.rewrite(*now, packet.sequence, packet.timestamp);
        let (sequence, timestamp) = numbers.ok_or(Reason::BeforeStart)?;
        let patch = match codec {
            Codec::Opus => None,
            _ => self.pictures.forward(packet.payload, &arrived.names).map_err(|_| Reason::Withheld)?,
        };
        Ok((sequence, timestamp, marker, patch))
    }

    /// Goes over to the packet's encoding, if it should and can.
    fn change_over(&mut self, arrived: &Arrived<'_>, target: Target, alive: u8) -> Result<(), Reason> {
        let encoding = arrived.packet.encoding;
        if best(alive, target.encoding) != Some(encoding) {
            return Err(Reason::OtherEncoding);
        }
        if !arrived.frame.starts_keyframe {
            let waits = self.current.is_none();
            return Err(if waits { Reason::AwaitingKeyframe } else { Reason::OtherEncoding });
        }
        // Between a late packet and the newest one lie some that this subscription never gets: had it started
        // there, it would see a loss that nobody can repair.
        if arrived.arrival == Arrival::Late {
            return Err(Reason::BeforeStart);
        }
        self.current = Some(encoding);
        self.selector.start(target.level(encoding));
        self.rewriter.pause();
        Ok(())
    }

    /// Lines the packet's numbers up behind what was sent before.
    fn start(&mut self, arrived: &Arrived<'_>, encodings: &[Encoding]) {
        let packet = arrived.packet;
        let clock_rate = arrived.codec.clock_rate();
        let clock = |encoding: EncodingId, ssrc| encodings.get(encoding.index())?.clock_of(ssrc);
        let before = clock(self.numbered, self.rewriter.source());
        let ahead = before
            .zip(clock(packet.encoding, Some(packet.ssrc)))
            .map(|(before, after)| before.ahead_of(after, clock_rate));
        self.numbered = packet.encoding;
        self.rewriter.start(arrived.now, packet.ssrc, packet.sequence, packet.timestamp, clock_rate, ahead);
        self.pictures.start(&arrived.names);
    }
}
