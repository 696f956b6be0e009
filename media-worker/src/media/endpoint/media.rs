//! RTP and RTCP of one endpoint: decrypts, hands in, answers feedback; and the way out.

use std::time::{Duration, Instant};

use sfu::{EncodingId, IdMap, PublicationId, Sequence, SubscriptionId};

use common::model::TrackKind;

use super::allocation::{Attention, Divided};
use super::bandwidth::Bandwidth;
use super::lines::{Carried, Line};
use super::pacer::Next;
use super::steps::Step;
use super::{Effects, Endpoint, Life};
use crate::media::drops::Reason;
use crate::media::pipeline::{Outgoing, Pipeline, Scene};
use crate::media::rtp::history::Kept;
use crate::media::rtp::packet;
use crate::media::rtp::rtcp::{self, Message};
use crate::media::rtp::send::{Label, Sender};
use crate::media::socket::egress::Egress;
use crate::media::transport::Path;
use crate::media::transport::srtp::Outbound;

/// Packets that a client can ask for again at once; further ones it asks for again.
const MAX_REPAIRS: usize = 1024;
/// Packets of a probe that leave at once.
const MAX_PADDING: usize = 64;
/// Shortest RTP header and shortest RTCP header with a sender.
const MIN_RTP: usize = 12;
const MIN_RTCP: usize = 8;

/// What an endpoint's reports mean for its pipeline.
#[derive(Debug)]
pub enum Received {
    SenderReport { publication: PublicationId, encoding: EncodingId, ntp: u64, rtp: u32 },
    KeyframeRequest { subscription: SubscriptionId },
}

/// What came of sending.
pub struct Flushed {
    /// Packets that could not be sent.
    pub drops: u64,
    /// The first media ever has gone to this client.
    pub first: Option<(Step, Duration)>,
}

impl Endpoint {
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        pipeline: &mut Pipeline,
        effects: &mut Effects,
    ) {
        let Some(srtp) = self.dtls.as_mut().and_then(|dtls| dtls.srtp()) else {
            effects.drops.push(Reason::Unprotected);
            return;
        };
        // RFC 5761, section 4: RTCP by its packet type.
        let is_rtcp = matches!(datagram.get(1), Some(192..=223));
        let (least, at) = if is_rtcp { (MIN_RTCP, 4) } else { (MIN_RTP, 8) };
        let ssrc =
            datagram.get(at..at + 4).and_then(|it| it.first_chunk::<4>()).map(|it| u32::from_be_bytes(*it));
        let opened = match ssrc {
            Some(ssrc) if datagram.len() >= least && self.streams.may_look_at(ssrc) => {
                if is_rtcp {
                    srtp.inbound.open_rtcp(datagram)
                } else {
                    srtp.inbound.open_rtp(datagram)
                }
            }
            _ => None,
        };
        let Some(length) = opened else {
            effects.drops.push(Reason::Unprotected);
            return;
        };
        self.seen(now, effects);
        let clear = &datagram[..length];
        if is_rtcp {
            self.handle_rtcp(now, clear, effects);
            return;
        }
        match self.streams.handle_packet(now, clear) {
            Ok(Some((publication, packet))) => {
                effects.steps.extend(self.steps.receive(now));
                pipeline.handle_own_packet(now, publication, &packet);
            }
            Ok(None) => {}
            Err(()) => effects.drops.push(Reason::Malformed),
        }
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8], effects: &mut Effects) {
        let well_formed = rtcp::read(compound, |message| match message {
            Message::SenderReport { ssrc, ntp, rtp } => {
                if let Some((publication, encoding)) = self.streams.handle_sender_report(now, ssrc, ntp) {
                    effects.received.push(Received::SenderReport { publication, encoding, ntp, rtp });
                }
            }
            Message::Reception(block) => {
                if let Some(line) = self.senders.get(&block.ssrc)
                    && let Some((sender, _)) = sender(&mut self.lines, *line)
                {
                    sender.reported.handle(now, block);
                }
            }
            Message::Nack { ssrc, lost: numbers } => {
                if let Some(line) = self.senders.get(&ssrc) {
                    self.repairs.nacks_in += 1;
                    if let Some((sender, _)) = sender(&mut self.lines, *line) {
                        sender.nacks += 1;
                    }
                    self.pacer.push_again(*line, numbers.sequences(), MAX_REPAIRS);
                    effects.flush = true;
                }
            }
            Message::TransportFeedback(feedback) => {
                self.bandwidth.handle_feedback(now, feedback);
                self.allocation.want(now);
            }
            Message::MaximumBitrate(bitrate) => {
                self.bandwidth.handle_maximum_bitrate(now, bitrate);
                self.allocation.want(now);
            }
            Message::KeyframeRequest { ssrc } => {
                let carried = self
                    .senders
                    .get(&ssrc)
                    .and_then(|line| self.lines.get_mut(*line)?.sending_mut()?.carried.as_mut());
                effects.received.extend(carried.map(|carried| {
                    self.repairs.keyframe_requests_in += 1;
                    carried.sender.iter_mut().for_each(|sender| sender.keyframe_requests += 1);
                    Received::KeyframeRequest { subscription: carried.subscription }
                }));
            }
        });
        effects.drops.extend((!well_formed).then_some(Reason::Malformed));
    }

    /// Notes a packet for the next [`Endpoint::flush`]; returns whether it is the first.
    pub fn queue(&mut self, packet: Outgoing) -> bool {
        self.outbox.push(packet);
        self.outbox.len() == 1
    }

    /// Writes everything that waits: one subscriber's packets one behind the other, so that the socket can
    /// send them together.
    pub fn flush(&mut self, now: Instant, pipeline: &Pipeline, egress: &mut Egress) -> Flushed {
        let path = self.ice.selected();
        let srtp = self.dtls.as_mut().and_then(|dtls| dtls.srtp());
        let (Some(path), Some(srtp)) = (path, srtp) else {
            let drops = self.outbox.len() + self.pacer.clear();
            self.outbox.clear();
            return Flushed { drops: drops as u64, first: None };
        };
        let (bandwidth, lines) = (&mut self.bandwidth, &mut self.lines);
        let mut way = Way { now, path, outbound: &srtp.outbound, pipeline, bandwidth, egress };
        let (mut drops, mut any) = (0, false);
        for packet in self.outbox.drain(..) {
            let is_picture =
                || lines.get(packet.line).and_then(Line::sending).map(|it| it.kind) == Some(TrackKind::Video);
            if self.pacer.is_needed() && is_picture() {
                let bytes =
                    pipeline.kept(packet.publication, packet.number).map_or(0, |kept| kept.payload.len());
                self.pacer.push(packet, bytes);
                continue;
            }
            let sent = sender_of(lines, &packet, pipeline).and_then(|sender| way.send(sender, &packet));
            self.pacer.spend(sent.unwrap_or(0));
            drops += u64::from(sent.is_none());
            any |= sent.is_some();
        }
        while let Some(next) = self.pacer.pop(now) {
            match next {
                Next::First(packet) => {
                    let sent =
                        sender_of(lines, &packet, pipeline).and_then(|sender| way.send(sender, &packet));
                    drops += u64::from(sent.is_none());
                    any |= sent.is_some();
                }
                // What cannot be repeated is no drop: it was sent once.
                Next::Again(line, sequence) => {
                    let sent = sender(lines, line)
                        .and_then(|(sender, publication)| way.resend(sender, publication, sequence));
                    self.repairs.resent += u64::from(sent.is_some());
                    self.pacer.spend(sent.unwrap_or(0));
                }
            }
        }
        way.pad(lines);
        let first = if any { self.steps.send(now) } else { None };
        Flushed { drops, first }
    }

    /// Divides what the path carries among the subscriptions, when that is due.
    pub(super) fn allocate(
        &mut self,
        now: Instant,
        scene: &Scene<'_>,
        session: &mut sfu::Session,
        effects: &mut Effects,
    ) {
        if !self.allocation.is_due(now) {
            return;
        }
        let available = self.bandwidth.available(now);
        let is_limited = scene.stage.admitted(self.participant_id, self.treatment.last_n, &mut self.cameras);
        let cameras = is_limited.then_some(&self.cameras[..]);
        let attention = Attention { speaking: scene.speaking, cameras };
        let (lines, told) = (&mut self.lines, &mut effects.suspensions);
        let Divided { wanted, pace } =
            self.allocation.divide(now, available, &attention, lines, session, told);
        self.bandwidth.set_wanted(wanted);
        self.pacer.set_rate(pace);
    }

    /// Whether something waits to go out by itself: pictures behind others, or a probe.
    pub(super) fn is_flush_due(&self, now: Instant) -> bool {
        self.pacer.poll_timeout(now).is_some() || self.bandwidth.padding(now).is_some()
    }

    /// When pictures that wait are to be flushed next.
    pub fn poll_waiting(&self, now: Instant) -> Option<Instant> {
        self.pacer.poll_timeout(now)
    }

    /// Passes a publisher's report on for a subscription, whose clock says `rtp`: both streams of a participant refer
    /// to the publisher's clock, so their lips and voice stay together.
    pub fn send_report(&mut self, now: Instant, line: usize, ntp: u64, rtp: u32, effects: &mut Effects) {
        let Some((sender, _)) = sender(&mut self.lines, line) else { return };
        let Some((packets, bytes)) = sender.report(now, ntp) else { return };
        let ssrc = sender.ssrc();
        self.send_rtcp(effects, |_, out| rtcp::write_sender_report(ssrc, ntp, rtp, packets, bytes, out));
    }

    /// Asks this endpoint for a keyframe of one encoding of its tracks.
    pub fn request_keyframe(
        &mut self,
        publication: PublicationId,
        encoding: EncodingId,
        effects: &mut Effects,
    ) {
        let Some(receiver) = self.streams.receiver_of(publication, encoding) else { return };
        receiver.note_keyframe_request();
        self.repairs.keyframe_requests_out += 1;
        let ssrc = receiver.ssrc();
        self.send_rtcp(effects, |reporter, out| rtcp::write_pli(reporter, ssrc, out));
    }

    fn send_rtcp(&mut self, effects: &mut Effects, write: impl FnOnce(u32, &mut Vec<u8>)) {
        let path = self.ice.selected();
        if let (Some(path), Some(srtp)) = (path, self.dtls.as_mut().and_then(|dtls| dtls.srtp())) {
            self.streams.compound(write, |compound| seal_rtcp(path, &mut srtp.outbound, compound, effects));
        }
    }

    pub(super) fn handle_media_timeout(&mut self, now: Instant, effects: &mut Effects) {
        let Some(path) = self.ice.selected() else { return };
        let Some(srtp) = self.dtls.as_mut().and_then(|dtls| dtls.srtp()) else { return };
        self.repairs.nacks_out += self
            .streams
            .handle_timeout(now, |compound| seal_rtcp(path, &mut srtp.outbound, compound, effects));
    }

    pub(super) fn poll_media_timeout(&self) -> Option<Instant> {
        if self.life == Life::Closed { None } else { self.streams.poll_timeout() }
    }
}

fn seal_rtcp(path: Path, outbound: &mut Outbound, compound: &mut Vec<u8>, effects: &mut Effects) {
    match outbound.seal_rtcp(compound) {
        Ok(()) => effects.transmits.push(path, compound),
        Err(_) => effects.drops.push(Reason::Unsendable),
    }
}

/// The sender of an m-line, if it carries an accepted subscription, and whose packets it sends.
fn sender(lines: &mut [Line], line: usize) -> Option<(&mut Sender, PublicationId)> {
    let carried = lines.get_mut(line)?.sending_mut()?.carried.as_mut()?;
    Some((carried.sender.as_mut()?, carried.track.publication))
}

/// The sender for a packet. On a slot that is where its track changes.
fn sender_of<'a>(lines: &'a mut [Line], packet: &Outgoing, pipeline: &Pipeline) -> Option<&'a mut Sender> {
    let sending = lines.get_mut(packet.line)?.sending_mut()?;
    if sending.carried.as_ref()?.track.publication != packet.publication {
        sending.carry(pipeline.track(packet.publication)?)?;
    }
    sending.carried.as_mut()?.sender.as_mut()
}

/// Everything between a decision to send and the socket's buffer.
struct Way<'a> {
    now: Instant,
    path: Path,
    outbound: &'a Outbound,
    pipeline: &'a Pipeline,
    bandwidth: &'a mut Bandwidth,
    egress: &'a mut Egress,
}

impl Way<'_> {
    /// Returns how many bytes went out; so do the others.
    fn send(&mut self, sender: &mut Sender, packet: &Outgoing) -> Option<usize> {
        let kept = self.pipeline.kept(packet.publication, packet.number)?;
        let number = self.bandwidth.number().map_or(0, |(_, number)| u16::from_be_bytes(number));
        let label = sender.send(packet, kept.payload.len(), number)?;
        self.seal(label, &kept, sender.ids())
    }

    fn resend(
        &mut self,
        sender: &mut Sender,
        publication: PublicationId,
        sequence: Sequence,
    ) -> Option<usize> {
        let (label, number) = sender.resend(self.now, sequence)?;
        let kept = self.pipeline.kept(publication, number)?;
        self.seal(label, &kept, sender.ids())
    }

    /// Sends what a probe needs beside what is sent anyway: packets of pictures that went out lately once more, which may be
    /// worth something, or else padding.
    fn pad(&mut self, lines: &mut [Line]) {
        for _ in 0..MAX_PADDING {
            let Some(size) = self.bandwidth.padding(self.now) else { return };
            let mut carried = lines.iter_mut().filter_map(|line| line.sending_mut()?.carried.as_mut());
            let repeated = carried.any(|carried| self.repeat(carried).is_some());
            let mut carried = lines.iter_mut().filter_map(|line| line.sending_mut()?.carried.as_mut());
            if !repeated && !carried.any(|carried| self.fill(carried, size).is_some()) {
                return;
            }
        }
    }

    /// A decoder that is sent nothing any more would take a repetition for a picture that it cannot complete.
    fn repeat(&mut self, carried: &mut Carried) -> Option<usize> {
        let sender = carried.sender.as_mut().filter(|_| carried.share.is_sent)?;
        let (label, number) = sender.repeat()?;
        let kept = self.pipeline.kept(carried.track.publication, number)?;
        self.seal(label, &kept, sender.ids())
    }

    fn fill(&mut self, carried: &mut Carried, size: usize) -> Option<usize> {
        let label = carried.sender.as_mut()?.pad()?;
        self.write(label, |own, arena| packet::write_padding(label, size, own, arena))
    }

    /// Header, payload and protection, each written once, where the packet leaves from.
    fn seal(&mut self, label: Label, kept: &Kept<'_>, ids: &IdMap) -> Option<usize> {
        self.write(label, |own, arena| packet::write(label, kept, ids, own, arena))
    }

    /// `content` writes the packet and returns the length of its header; it is given this hop's own header extension.
    fn write(
        &mut self,
        label: Label,
        content: impl FnOnce(Option<(u8, &[u8])>, &mut Vec<u8>) -> usize,
    ) -> Option<usize> {
        let (outbound, mut number) = (self.outbound, self.bandwidth.number());
        if let (Some((_, number)), Some(earlier)) = (&mut number, label.transport) {
            *number = earlier.to_be_bytes();
        }
        let own = number.as_ref().map(|(id, value)| (*id, &value[..]));
        let mut bytes = 0;
        let written = self.egress.write(self.path, |arena| {
            let start = arena.len();
            let header = content(own, arena);
            arena.resize(arena.len() + outbound.overhead(), 0);
            bytes = arena.len() - start;
            outbound.seal_rtp(&mut arena[start..], header, label.ssrc, label.index).ok()
        });
        if !written {
            return None;
        }
        if own.is_some() && label.transport.is_none() {
            self.bandwidth.handle_sent(self.now, bytes);
        }
        Some(bytes)
    }
}
