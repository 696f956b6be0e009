//! RTP and RTCP of one endpoint: decrypts, finds the m-line, repairs, reports; and the way out.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sfu::extension::elements;
use sfu::{Extension, ExtensionIds, IdMap, Packet, PublicationId, Sequence, SubscriptionId};

use super::lines::{Line, Published};
use super::{Effects, Endpoint, Life};
use crate::media::codecs::Payload;
use crate::media::pipeline::{Outgoing, Pipeline};
use crate::media::rtp::arrival::Arrivals;
use crate::media::rtp::history::Kept;
use crate::media::rtp::packet;
use crate::media::rtp::receive::Receiver;
use crate::media::rtp::rtcp::{self, Message};
use crate::media::rtp::send::{Label, Sender};
use crate::media::sdp::Media;
use crate::media::socket::egress::Egress;
use crate::media::transport::Path;
use crate::media::transport::srtp::Outbound;

/// SSRCs that nothing announced and that are looked at all the same. SRTP keeps state for each, so a
/// peer must not be able to make up many.
const MAX_UNANNOUNCED: usize = 64;
/// How often receiver reports are sent.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Packets that a client can ask for again at once; further ones it asks for again.
const MAX_REPAIRS: usize = 1024;
/// Shortest RTP header and shortest RTCP header with a sender.
const MIN_RTP: usize = 12;
const MIN_RTCP: usize = 8;

/// What an endpoint's reports mean for its pipeline.
#[derive(Debug)]
pub enum Received {
    SenderReport { publication: PublicationId, ntp: u64, rtp: u32 },
    KeyframeRequest { subscription: SubscriptionId },
}

/// What is received on one m-line.
struct LineStream {
    mid: String,
    /// The encoding that is wanted of several.
    encoding: Option<String>,
    payload: Payload,
    extensions: ExtensionIds,
    publication: PublicationId,
    receiver: Option<Receiver>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StreamRef {
    line: usize,
    is_repair: bool,
}

/// The received streams of an endpoint.
pub struct Streams {
    lines: HashMap<usize, LineStream>,
    by_ssrc: HashMap<u32, StreamRef>,
    unannounced: HashSet<u32>,
    arrivals: Arrivals,
    transport_sequence_id: Option<u8>,
    report_due: Option<Instant>,
    /// Under which SSRC the server reports.
    reporter: u32,
    scratch: Vec<u8>,
}

impl Streams {
    pub fn new(now: Instant) -> Self {
        Self {
            lines: HashMap::new(),
            by_ssrc: HashMap::new(),
            unannounced: HashSet::new(),
            arrivals: Arrivals::new(now),
            transport_sequence_id: None,
            report_due: None,
            reporter: rand::random_range(1..u32::MAX),
            scratch: Vec::new(),
        }
    }

    /// Takes what a description says about an m-line.
    pub fn set_line(
        &mut self,
        line: usize,
        media: &Media,
        payload: &Payload,
        extensions: &ExtensionIds,
        published: Option<&Published>,
    ) {
        let Some(published) = published else {
            self.remove_line(line);
            return;
        };
        self.transport_sequence_id =
            extensions.id(Extension::TransportSequence).or(self.transport_sequence_id);
        let receiver = self.lines.remove(&line).and_then(|stream| stream.receiver);
        let stream = LineStream {
            mid: media.mid.clone(),
            encoding: media.encodings.first().cloned(),
            payload: payload.clone(),
            extensions: *extensions,
            publication: published.publication,
            receiver,
        };
        self.lines.insert(line, stream);
        let is_repair = |ssrc: &u32| media.repairs.iter().any(|(_, repair)| repair == ssrc);
        let Some(primary) = media.sources.iter().copied().find(|ssrc| !is_repair(ssrc)) else { return };
        self.by_ssrc.retain(|_, stream| stream.line != line);
        self.bind_primary(line, primary);
        if let Some((_, repair)) = media.repairs.iter().find(|(source, _)| *source == primary) {
            self.by_ssrc.insert(*repair, StreamRef { line, is_repair: true });
        }
    }

    pub fn remove_line(&mut self, line: usize) {
        self.lines.remove(&line);
        self.by_ssrc.retain(|_, stream| stream.line != line);
    }

    fn bind_primary(&mut self, line: usize, ssrc: u32) {
        self.by_ssrc.insert(ssrc, StreamRef { line, is_repair: false });
        if let Some(stream) = self.lines.get_mut(&line)
            && stream.receiver.as_ref().is_none_or(|receiver| receiver.ssrc() != ssrc)
        {
            let codec = stream.payload.codec;
            stream.receiver = Some(Receiver::new(ssrc, codec.clock_rate(), codec.is_video()));
        }
    }

    /// The m-line of a stream that no description announced: by the MID extension (RFC 9143, section
    /// 9.2), else by a payload type that only one m-line has.
    fn learn(&mut self, payload_type: u8, packet: &Packet<'_>) -> Option<StreamRef> {
        let value_of = |stream: &LineStream, extension| {
            let id = stream.extensions.id(extension)?;
            elements(packet.extension_profile, packet.extensions)
                .find(|(other, _)| *other == id)
                .map(|it| it.1)
        };
        let mid_of = |stream: &LineStream| value_of(stream, Extension::Mid);
        let says = |stream: &LineStream| mid_of(stream).is_some_and(|mid| mid == stream.mid.as_bytes());
        let has = |stream: &LineStream| {
            stream.payload.payload_type == payload_type || stream.payload.repair_type == Some(payload_type)
        };
        let named = self.lines.iter().find(|(_, stream)| says(stream) && has(stream));
        let mut fitting = self.lines.iter().filter(|(_, stream)| has(stream));
        let (line, stream) = match (named, fitting.next(), fitting.next()) {
            (Some(named), ..) => named,
            (None, Some(only), None) if mid_of(only.1).is_none() => only,
            _ => return None,
        };
        let (line, is_repair) = (*line, stream.payload.payload_type != payload_type);
        let named_encoding = if is_repair { Extension::RepairedStreamId } else { Extension::StreamId };
        if let (Some(wanted), Some(encoding)) = (&stream.encoding, value_of(stream, named_encoding))
            && wanted.as_bytes() != encoding
        {
            return None;
        }
        if is_repair {
            let stream = StreamRef { line, is_repair };
            self.by_ssrc.insert(packet.ssrc, stream);
            return Some(stream);
        }
        // The m-line's stream goes on under this SSRC; what it had before is history.
        self.by_ssrc.retain(|_, other| other.line != line || other.is_repair);
        self.bind_primary(line, packet.ssrc);
        self.by_ssrc.get(&packet.ssrc).copied()
    }

    fn may_look_at(&mut self, ssrc: u32) -> bool {
        self.by_ssrc.contains_key(&ssrc)
            || self.unannounced.contains(&ssrc)
            || self.unannounced.len() < MAX_UNANNOUNCED && self.unannounced.insert(ssrc)
    }

    /// What a decrypted packet is for its publication, if anything. `Err` is a drop.
    fn handle_packet<'a>(
        &mut self,
        now: Instant,
        datagram: &'a [u8],
    ) -> Result<Option<(PublicationId, Packet<'a>)>, ()> {
        let (payload_type, mut packet) = packet::parse(datagram).ok_or(())?;
        if let Some(id) = self.transport_sequence_id
            && let Some((_, value)) =
                elements(packet.extension_profile, packet.extensions).find(|(other, _)| *other == id)
            && let Some(number) = value.first_chunk::<2>()
        {
            self.arrivals.handle_packet(now, Sequence(u16::from_be_bytes(*number)));
        }
        let found = match self.by_ssrc.get(&packet.ssrc) {
            Some(found) => *found,
            None => self.learn(payload_type, &packet).ok_or(())?,
        };
        let stream = self.lines.get_mut(&found.line).ok_or(())?;
        let receiver = stream.receiver.as_mut().ok_or(())?;
        if found.is_repair {
            if Some(payload_type) != stream.payload.repair_type {
                return Err(());
            }
            // Without an original number it is padding that probes the bandwidth (RFC 4588, section 4).
            let Some(original) = packet.payload.first_chunk::<2>() else { return Ok(None) };
            packet.sequence = Sequence(u16::from_be_bytes(*original));
            packet.ssrc = receiver.ssrc();
            packet.payload = &packet.payload[2..];
            if !receiver.is_missing(packet.sequence) {
                return Ok(None);
            }
        } else if payload_type != stream.payload.payload_type {
            return Err(());
        }
        receiver.handle_packet(now, packet.sequence, packet.timestamp);
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        Ok(Some((stream.publication, packet)))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let nack = self.lines.values().filter_map(|stream| stream.receiver.as_ref()?.poll_timeout()).min();
        [nack, self.report_due, self.arrivals.poll_timeout()].into_iter().flatten().min()
    }

    /// Calls `send` with each RTCP compound that is due; it may change it.
    fn handle_timeout(&mut self, now: Instant, mut send: impl FnMut(&mut Vec<u8>)) {
        let mut out = std::mem::take(&mut self.scratch);
        for stream in self.lines.values_mut() {
            let Some(receiver) = &mut stream.receiver else { continue };
            out.clear();
            rtcp::write_nack(self.reporter, receiver.ssrc(), &receiver.take_due_nacks(now), &mut out);
            if !out.is_empty() {
                send(&mut out);
            }
        }
        out.clear();
        let any = self.by_ssrc.keys().next().copied().unwrap_or_default();
        self.arrivals.handle_timeout(now, self.reporter, any, &mut out);
        if !out.is_empty() {
            send(&mut out);
        }
        if self.report_due.is_some_and(|due| due <= now) {
            out.clear();
            let blocks = self.lines.values_mut().filter_map(|stream| stream.receiver.as_mut()?.report(now));
            rtcp::write_receiver_report(self.reporter, blocks, &mut out);
            self.report_due = (!out.is_empty()).then_some(now + REPORT_INTERVAL);
            if !out.is_empty() {
                send(&mut out);
            }
        }
        self.scratch = out;
    }
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
            effects.drops += 1;
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
            effects.drops += 1;
            return;
        };
        self.seen(now, effects);
        let clear = &datagram[..length];
        if is_rtcp {
            self.handle_rtcp(now, clear, effects);
            return;
        }
        match self.streams.handle_packet(now, clear) {
            Ok(Some((publication, packet))) => pipeline.handle_own_packet(now, publication, &packet),
            Ok(None) => {}
            Err(()) => effects.drops += 1,
        }
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8], effects: &mut Effects) {
        let well_formed = rtcp::read(compound, |message| match message {
            Message::SenderReport { ssrc, ntp, rtp } => {
                let found = self.streams.by_ssrc.get(&ssrc).filter(|stream| !stream.is_repair);
                if let Some(stream) = found.and_then(|found| self.streams.lines.get_mut(&found.line)) {
                    if let Some(receiver) = &mut stream.receiver {
                        receiver.handle_sender_report(now, ntp);
                    }
                    effects.received.push(Received::SenderReport {
                        publication: stream.publication,
                        ntp,
                        rtp,
                    });
                }
            }
            Message::Nack { ssrc, lost: numbers } => {
                if let Some(line) = self.senders.get(&ssrc) {
                    let room = MAX_REPAIRS.saturating_sub(self.repairs.len());
                    self.repairs.extend(numbers.sequences().take(room).map(|sequence| (*line, sequence)));
                    effects.repairs = true;
                }
            }
            Message::KeyframeRequest { ssrc } => {
                let carried = self
                    .senders
                    .get(&ssrc)
                    .and_then(|line| self.lines.get(*line)?.sending()?.carried.as_ref());
                effects.received.extend(
                    carried.map(|carried| Received::KeyframeRequest { subscription: carried.subscription }),
                );
            }
        });
        effects.drops += u64::from(!well_formed);
    }

    /// Notes a packet for the next [`Endpoint::flush`]; returns whether it is the first.
    pub fn queue(&mut self, packet: Outgoing) -> bool {
        self.outbox.push(packet);
        self.outbox.len() == 1
    }

    /// Writes everything that waits: one subscriber's packets one behind the other, so that the socket can
    /// send them together. Returns how many could not be sent.
    pub fn flush(&mut self, now: Instant, pipeline: &Pipeline, egress: &mut Egress) -> u64 {
        let path = self.ice.selected();
        let srtp = self.dtls.as_mut().and_then(|dtls| dtls.srtp());
        let (Some(path), Some(srtp)) = (path, srtp) else {
            let drops = self.outbox.len() as u64;
            self.outbox.clear();
            self.repairs.clear();
            return drops;
        };
        let mut way = Way { path, outbound: &srtp.outbound, pipeline, egress };
        let mut drops = 0;
        for packet in self.outbox.drain(..) {
            let sent = sender(&mut self.lines, packet.line)
                .is_some_and(|(sender, _)| way.send(sender, &packet).is_some());
            drops += u64::from(!sent);
        }
        for (line, sequence) in self.repairs.drain(..) {
            // What cannot be repeated is no drop: it was sent once.
            if let Some((sender, publication)) = sender(&mut self.lines, line) {
                let _ = way.resend(now, sender, publication, sequence);
            }
        }
        drops
    }

    /// Passes a publisher's report on for a subscription: both streams of a participant refer to the
    /// publisher's clock, so their lips and voice stay together.
    pub fn send_report(&mut self, line: usize, ntp: u64, rtp: u32, effects: &mut Effects) {
        let sender = self.lines.get(line).and_then(|line| line.sending()?.carried.as_ref()?.sender.as_ref());
        let Some(sender) = sender else { return };
        let Some((rtp, packets, bytes)) = sender.report(rtp) else { return };
        let ssrc = sender.ssrc();
        self.send_rtcp(effects, |_, out| rtcp::write_sender_report(ssrc, ntp, rtp, packets, bytes, out));
    }

    /// Asks this endpoint for a keyframe of one of its tracks.
    pub fn request_keyframe(&mut self, publication: PublicationId, effects: &mut Effects) {
        let stream = self.streams.lines.values().find(|stream| stream.publication == publication);
        let Some(ssrc) = stream.and_then(|stream| Some(stream.receiver.as_ref()?.ssrc())) else { return };
        self.send_rtcp(effects, |reporter, out| rtcp::write_pli(reporter, ssrc, out));
    }

    fn send_rtcp(&mut self, effects: &mut Effects, write: impl FnOnce(u32, &mut Vec<u8>)) {
        let path = self.ice.selected();
        if let (Some(path), Some(srtp)) = (path, self.dtls.as_mut().and_then(|dtls| dtls.srtp())) {
            let out = &mut self.streams.scratch;
            out.clear();
            write(self.streams.reporter, out);
            seal_rtcp(path, &mut srtp.outbound, out, effects);
        }
    }

    pub(super) fn handle_media_timeout(&mut self, now: Instant, effects: &mut Effects) {
        let Some(path) = self.ice.selected() else { return };
        let Some(srtp) = self.dtls.as_mut().and_then(|dtls| dtls.srtp()) else { return };
        self.streams.handle_timeout(now, |compound| seal_rtcp(path, &mut srtp.outbound, compound, effects));
    }

    pub(super) fn poll_media_timeout(&self) -> Option<Instant> {
        if self.life == Life::Closed { None } else { self.streams.poll_timeout() }
    }
}

fn seal_rtcp(path: Path, outbound: &mut Outbound, compound: &mut Vec<u8>, effects: &mut Effects) {
    match outbound.seal_rtcp(compound) {
        Ok(()) => effects.transmits.push(path, compound),
        Err(_) => effects.drops += 1,
    }
}

/// The sender of an m-line, if it carries an accepted subscription, and whose packets it sends.
fn sender(lines: &mut [Line], line: usize) -> Option<(&mut Sender, PublicationId)> {
    let carried = lines.get_mut(line)?.sending_mut()?.carried.as_mut()?;
    Some((carried.sender.as_mut()?, carried.track.publication))
}

/// Everything between a decision to send and the socket's buffer.
struct Way<'a> {
    path: Path,
    outbound: &'a Outbound,
    pipeline: &'a Pipeline,
    egress: &'a mut Egress,
}

impl Way<'_> {
    fn send(&mut self, sender: &mut Sender, packet: &Outgoing) -> Option<()> {
        let kept = self.pipeline.kept(packet.publication, packet.number)?;
        let label = sender.send(packet.number, packet.sequence, packet.timestamp, kept.payload.len())?;
        sender.note_offset(packet.timestamp, packet.original);
        self.seal(label, &kept, sender.ids())
    }

    fn resend(
        &mut self,
        now: Instant,
        sender: &mut Sender,
        publication: PublicationId,
        sequence: Sequence,
    ) -> Option<()> {
        let (label, number) = sender.resend(now, sequence)?;
        let kept = self.pipeline.kept(publication, number)?;
        self.seal(label, &kept, sender.ids())
    }

    /// Header, payload and protection, each written once, where the packet leaves from.
    fn seal(&mut self, label: Label, kept: &Kept<'_>, ids: &IdMap) -> Option<()> {
        let outbound = self.outbound;
        let written = self.egress.write(self.path, |arena| {
            let start = arena.len();
            let header = packet::write(label, kept, ids, arena);
            arena.resize(arena.len() + outbound.overhead(), 0);
            outbound.seal_rtp(&mut arena[start..], header, label.ssrc, label.index).ok()
        });
        written.then_some(())
    }
}
