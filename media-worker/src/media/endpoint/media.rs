//! RTP and RTCP of one endpoint: decrypts, finds the m-line, repairs, reports; and the way out.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sfu::extension::elements;
use sfu::{Extension, ExtensionIds, Packet, PublicationId, Sequence, SubscriptionId, Timestamp};

use super::lines::Published;
use super::{Effects, Endpoint, Life};
use crate::media::codecs::Payload;
use crate::media::rtp::arrival::Arrivals;
use crate::media::rtp::packet::{self, Label};
use crate::media::rtp::receive::Receiver;
use crate::media::rtp::rtcp::{self, Message};
use crate::media::sdp::Media;
use crate::media::transport::Transmit;

/// SSRCs that nothing announced and that are looked at all the same. SRTP keeps state for each, so a
/// peer must not be able to make up many.
const MAX_UNANNOUNCED: usize = 64;
/// How often receiver reports are sent.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest RTP header and shortest RTCP header with a sender.
const MIN_RTP: usize = 12;
const MIN_RTCP: usize = 8;

/// What an endpoint's packets mean for its pipeline.
#[derive(Debug)]
pub enum Received {
    Packet { publication: PublicationId, packet: Packet },
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
    fn learn(&mut self, payload_type: u8, packet: &Packet) -> Option<StreamRef> {
        let value_of = |stream: &LineStream, extension| {
            let id = stream.extensions.id(extension)?;
            elements(packet.extension_profile, &packet.extensions)
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
    fn handle_packet(&mut self, now: Instant, datagram: Bytes) -> Result<Option<Received>, ()> {
        let (payload_type, mut packet) = packet::parse(datagram).ok_or(())?;
        if let Some(id) = self.transport_sequence_id
            && let Some((_, value)) =
                elements(packet.extension_profile, &packet.extensions).find(|(other, _)| *other == id)
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
            packet.payload = packet.payload.slice(2..);
            if !receiver.is_missing(packet.sequence) {
                return Ok(None);
            }
        } else if payload_type != stream.payload.payload_type {
            return Err(());
        }
        receiver.handle_packet(now, packet.sequence, packet.timestamp);
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        Ok(Some(Received::Packet { publication: stream.publication, packet }))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let nack = self.lines.values().filter_map(|stream| stream.receiver.as_ref()?.poll_timeout()).min();
        [nack, self.report_due, self.arrivals.poll_timeout()].into_iter().flatten().min()
    }

    /// Calls `send` with each RTCP packet that is due.
    fn handle_timeout(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let mut out = std::mem::take(&mut self.scratch);
        for stream in self.lines.values_mut() {
            let Some(receiver) = &mut stream.receiver else { continue };
            out.clear();
            rtcp::write_nack(self.reporter, receiver.ssrc(), &receiver.take_due_nacks(now), &mut out);
            if !out.is_empty() {
                send(&out);
            }
        }
        out.clear();
        let any = self.by_ssrc.keys().next().copied().unwrap_or_default();
        self.arrivals.handle_timeout(now, self.reporter, any, &mut out);
        if !out.is_empty() {
            send(&out);
        }
        if self.report_due.is_some_and(|due| due <= now) {
            let blocks: Vec<_> =
                self.lines.values_mut().filter_map(|stream| stream.receiver.as_mut()?.report(now)).collect();
            self.report_due = (!blocks.is_empty()).then_some(now + REPORT_INTERVAL);
            if !blocks.is_empty() {
                out.clear();
                rtcp::write_receiver_report(self.reporter, &blocks, &mut out);
                send(&out);
            }
        }
        self.scratch = out;
    }
}

impl Endpoint {
    pub(super) fn handle_rtp(&mut self, now: Instant, datagram: &[u8], effects: &mut Effects) {
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
                if is_rtcp { srtp.inbound.decrypt_rtcp(datagram) } else { srtp.inbound.decrypt_rtp(datagram) }
                    .ok()
            }
            _ => None,
        };
        let Some(opened) = opened else {
            effects.drops += 1;
            return;
        };
        self.seen(now, effects);
        let opened = opened.freeze();
        if is_rtcp {
            self.handle_rtcp(now, &opened, effects);
            return;
        }
        match self.streams.handle_packet(now, opened) {
            Ok(received) => effects.received.extend(received),
            Err(()) => effects.drops += 1,
        }
    }

    fn handle_rtcp(&mut self, now: Instant, compound: &[u8], effects: &mut Effects) {
        let mut lost: Vec<(usize, Sequence)> = Vec::new();
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
                    lost.extend(numbers.sequences().map(|sequence| (*line, sequence)));
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
        for (line, sequence) in lost {
            self.resend(now, line, sequence, effects);
        }
    }

    fn resend(&mut self, now: Instant, line: usize, sequence: Sequence, effects: &mut Effects) {
        let sender =
            self.lines.get_mut(line).and_then(|line| line.sending_mut()?.carried.as_mut()?.sender.as_mut());
        let Some(sender) = sender else { return };
        let Some((label, packet)) = sender.resend(now, sequence) else { return };
        let ids = *sender.ids();
        self.seal(label, &packet, &ids, effects);
    }

    /// Sends a packet of a subscription. `original` is the timestamp that the publisher gave it.
    pub fn send(&mut self, line: usize, packet: &Packet, original: Timestamp, effects: &mut Effects) {
        let sender =
            self.lines.get_mut(line).and_then(|line| line.sending_mut()?.carried.as_mut()?.sender.as_mut());
        let Some(sender) = sender else {
            effects.drops += 1;
            return;
        };
        let label = sender.send(packet, original);
        let ids = *sender.ids();
        self.seal(label, packet, &ids, effects);
    }

    fn seal(&mut self, label: Label, packet: &Packet, ids: &sfu::IdMap, effects: &mut Effects) {
        let path = self.ice.selected();
        let srtp = self.dtls.as_mut().and_then(|dtls| dtls.srtp());
        let (Some(path), Some(srtp)) = (path, srtp) else {
            effects.drops += 1;
            return;
        };
        packet::write(label, packet, ids, &mut self.streams.scratch);
        match srtp.outbound.encrypt_rtp(&self.streams.scratch) {
            Ok(datagram) => effects.transmits.push(Transmit { path, datagram }),
            Err(_) => effects.drops += 1,
        }
    }

    /// Passes a publisher's report on for a subscription: both streams of a participant refer to the
    /// publisher's clock, so their lips and voice stay together.
    pub fn send_report(&mut self, line: usize, ntp: u64, rtp: u32, effects: &mut Effects) {
        let sender = self.lines.get(line).and_then(|line| line.sending()?.carried.as_ref()?.sender.as_ref());
        let Some(sender) = sender else { return };
        let Some((rtp, packets, bytes)) = sender.report(rtp) else { return };
        let mut out = Vec::with_capacity(28);
        rtcp::write_sender_report(sender.ssrc(), ntp, rtp, packets, bytes, &mut out);
        self.send_rtcp(&out, effects);
    }

    /// Asks this endpoint for a keyframe of one of its tracks.
    pub fn request_keyframe(&mut self, publication: PublicationId, effects: &mut Effects) {
        let stream = self.streams.lines.values().find(|stream| stream.publication == publication);
        let Some(ssrc) = stream.and_then(|stream| Some(stream.receiver.as_ref()?.ssrc())) else { return };
        let mut out = Vec::with_capacity(12);
        rtcp::write_pli(self.streams.reporter, ssrc, &mut out);
        self.send_rtcp(&out, effects);
    }

    fn send_rtcp(&mut self, compound: &[u8], effects: &mut Effects) {
        let path = self.ice.selected();
        if let (Some(path), Some(srtp)) = (path, self.dtls.as_mut().and_then(|dtls| dtls.srtp())) {
            match srtp.outbound.encrypt_rtcp(compound) {
                Ok(datagram) => effects.transmits.push(Transmit { path, datagram }),
                Err(_) => effects.drops += 1,
            }
        }
    }

    pub(super) fn handle_media_timeout(&mut self, now: Instant, effects: &mut Effects) {
        let path = self.ice.selected();
        let Some(srtp) = self.dtls.as_mut().and_then(|dtls| dtls.srtp()) else { return };
        self.streams.handle_timeout(now, |compound| {
            if let (Some(path), Ok(datagram)) = (path, srtp.outbound.encrypt_rtcp(compound)) {
                effects.transmits.push(Transmit { path, datagram });
            }
        });
    }

    pub(super) fn poll_media_timeout(&self) -> Option<Instant> {
        if self.life == Life::Closed { None } else { self.streams.poll_timeout() }
    }
}
