//! What one endpoint receives: finds the m-line and encoding of each packet, repairs and reports.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sfu::extension::elements;
use sfu::{EncodingId, Extension, ExtensionIds, Packet, PublicationId, Sequence};

use super::lines::Receiving;
use crate::media::codecs::Payload;
use crate::media::rtp::arrival::Arrivals;
use crate::media::rtp::packet;
use crate::media::rtp::receive::Receiver;
use crate::media::rtp::rtcp;
use crate::media::sdp::Media;

/// SSRCs that nothing announced and that are looked at all the same. SRTP keeps state for each, so a
/// peer must not be able to make up many.
const MAX_UNANNOUNCED: usize = 64;
/// How often receiver reports are sent.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What is received on one m-line.
struct LineStream {
    mid: String,
    payload: Payload,
    extensions: ExtensionIds,
    publication: PublicationId,
    /// In ascending quality; a single one without a name when the client does not send several.
    encodings: Vec<EncodingStream>,
}

#[derive(Default)]
struct EncodingStream {
    /// The RID (RFC 8851).
    name: Option<String>,
    receiver: Option<Receiver>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StreamRef {
    line: usize,
    encoding: EncodingId,
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
    pub fn set_line(&mut self, now: Instant, line: usize, media: &Media, receiving: &Receiving) {
        let Some(published) = &receiving.published else {
            self.remove_line(line);
            return;
        };
        self.transport_sequence_id =
            receiving.extensions.id(Extension::TransportSequence).or(self.transport_sequence_id);
        let known = self.lines.remove(&line).map(|stream| stream.encodings).unwrap_or_default();
        let mut encodings: Vec<EncodingStream> = receiving
            .encodings
            .ascending()
            .map(|name| EncodingStream { name: name.map(str::to_string), receiver: None })
            .collect();
        for (encoding, known) in encodings.iter_mut().zip(known) {
            if encoding.name == known.name {
                encoding.receiver = known.receiver;
            }
        }
        let stream = LineStream {
            mid: media.mid.clone(),
            payload: receiving.payload.clone(),
            extensions: receiving.extensions,
            publication: published.publication,
            encodings,
        };
        let count = stream.encodings.len();
        self.lines.insert(line, stream);
        self.announce(now, line, media, count);
    }

    /// Binds the SSRCs that a description names.
    fn announce(&mut self, now: Instant, line: usize, media: &Media, count: usize) {
        let is_repair = |ssrc: &u32| media.repairs.iter().any(|(_, repair)| repair == ssrc);
        let primaries: Vec<u32> = match &media.simulcast_sources[..] {
            [] if count == 1 => {
                media.sources.iter().copied().filter(|ssrc| !is_repair(ssrc)).take(1).collect()
            }
            group => group.iter().copied().take(count).collect(),
        };
        if primaries.is_empty() {
            return;
        }
        self.by_ssrc.retain(|_, stream| stream.line != line);
        for (encoding, primary) in (0..).map(EncodingId).zip(primaries) {
            self.bind_primary(now, line, encoding, primary);
            if let Some((_, repair)) = media.repairs.iter().find(|(source, _)| *source == primary) {
                self.by_ssrc.insert(*repair, StreamRef { line, encoding, is_repair: true });
            }
        }
    }

    pub fn remove_line(&mut self, line: usize) {
        self.lines.remove(&line);
        self.by_ssrc.retain(|_, stream| stream.line != line);
    }

    fn bind_primary(&mut self, now: Instant, line: usize, encoding: EncodingId, ssrc: u32) {
        self.by_ssrc.insert(ssrc, StreamRef { line, encoding, is_repair: false });
        let Some(stream) = self.lines.get_mut(&line) else { return };
        let codec = stream.payload.codec;
        if let Some(stream) = stream.encodings.get_mut(encoding.index())
            && stream.receiver.as_ref().is_none_or(|receiver| receiver.ssrc() != ssrc)
        {
            stream.receiver = Some(Receiver::new(now, ssrc, codec.clock_rate(), codec.is_video()));
        }
    }

    /// The m-line and encoding of a stream that no description announced: by the MID extension (RFC 9143, section
    /// 9.2), else by a payload type that only one m-line has; and by the RID extensions (RFC 8852).
    fn learn(&mut self, now: Instant, payload_type: u8, packet: &Packet<'_>) -> Option<StreamRef> {
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
        let name = if is_repair { Extension::RepairedStreamId } else { Extension::StreamId };
        let encoding = match (value_of(stream, name), &stream.encodings[..]) {
            (None, [_]) | (Some(_), [EncodingStream { name: None, .. }]) => 0,
            (None, _) => return None,
            (Some(name), encodings) => encodings
                .iter()
                .position(|encoding| encoding.name.as_ref().is_some_and(|it| it.as_bytes() == name))?,
        };
        let encoding = EncodingId(encoding as u8);
        if is_repair {
            let stream = StreamRef { line, encoding, is_repair };
            self.by_ssrc.insert(packet.ssrc, stream);
            return Some(stream);
        }
        // The encoding goes on under this SSRC; what it had before is history.
        self.by_ssrc.retain(|_, other| other.line != line || other.encoding != encoding || other.is_repair);
        self.bind_primary(now, line, encoding, packet.ssrc);
        self.by_ssrc.get(&packet.ssrc).copied()
    }

    pub fn may_look_at(&mut self, ssrc: u32) -> bool {
        self.by_ssrc.contains_key(&ssrc)
            || self.unannounced.contains(&ssrc)
            || self.unannounced.len() < MAX_UNANNOUNCED && self.unannounced.insert(ssrc)
    }

    /// What a decrypted packet is for its publication, if anything. `Err` is a drop.
    pub fn handle_packet<'a>(
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
            None => self.learn(now, payload_type, &packet).ok_or(())?,
        };
        let stream = self.lines.get_mut(&found.line).ok_or(())?;
        let encoding = stream.encodings.get_mut(found.encoding.index()).ok_or(())?;
        let receiver = encoding.receiver.as_mut().ok_or(())?;
        packet.encoding = found.encoding;
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
        receiver.handle_packet(now, packet.sequence, packet.timestamp, packet.payload.len());
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        Ok(Some((stream.publication, packet)))
    }

    /// Notes a sender report; returns whose it is.
    pub fn handle_sender_report(
        &mut self,
        now: Instant,
        ssrc: u32,
        ntp: u64,
    ) -> Option<(PublicationId, EncodingId)> {
        let found = self.by_ssrc.get(&ssrc).filter(|stream| !stream.is_repair)?;
        let stream = self.lines.get_mut(&found.line)?;
        if let Some(receiver) = &mut stream.encodings.get_mut(found.encoding.index())?.receiver {
            receiver.handle_sender_report(now, ntp);
        }
        Some((stream.publication, found.encoding))
    }

    /// The stream of an encoding, to note what is asked of it. `None` while it does not arrive.
    pub fn receiver_of(&mut self, publication: PublicationId, encoding: EncodingId) -> Option<&mut Receiver> {
        let stream = self.lines.values_mut().find(|stream| stream.publication == publication)?;
        stream.encodings.get_mut(encoding.index())?.receiver.as_mut()
    }

    /// The encodings on an m-line, in ascending quality: the name and the stream of each, as far as there are any.
    pub fn encodings_of(&self, line: usize) -> impl Iterator<Item = (Option<&str>, Option<&Receiver>)> {
        let encodings = self.lines.get(&line).map(|stream| &stream.encodings[..]).unwrap_or_default();
        encodings.iter().map(|encoding| (encoding.name.as_deref(), encoding.receiver.as_ref()))
    }

    pub fn receivers(&mut self) -> impl Iterator<Item = &mut Receiver> {
        self.lines
            .values_mut()
            .flat_map(|stream| &mut stream.encodings)
            .filter_map(|encoding| encoding.receiver.as_mut())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let encodings = self.lines.values().flat_map(|stream| &stream.encodings);
        let nack = encodings.filter_map(|encoding| encoding.receiver.as_ref()?.poll_timeout()).min();
        [nack, self.report_due, self.arrivals.poll_timeout()].into_iter().flatten().min()
    }

    /// Calls `send` with each RTCP compound that is due; it may change it. Returns how many NACK messages those were.
    pub fn handle_timeout(&mut self, now: Instant, mut send: impl FnMut(&mut Vec<u8>)) -> u64 {
        let (mut out, mut nacks) = (std::mem::take(&mut self.scratch), 0);
        let reporter = self.reporter;
        for receiver in self.receivers() {
            out.clear();
            rtcp::write_nack(reporter, receiver.ssrc(), &receiver.take_due_nacks(now), &mut out);
            if !out.is_empty() {
                nacks += 1;
                send(&mut out);
            }
        }
        out.clear();
        let any = self.by_ssrc.keys().next().copied().unwrap_or_default();
        self.arrivals.handle_timeout(now, reporter, any, &mut out);
        if !out.is_empty() {
            send(&mut out);
        }
        if self.report_due.is_some_and(|due| due <= now) {
            out.clear();
            let blocks = self.receivers().filter_map(|receiver| receiver.report(now));
            rtcp::write_receiver_report(reporter, blocks, &mut out);
            self.report_due = (!out.is_empty()).then_some(now + REPORT_INTERVAL);
            if !out.is_empty() {
                send(&mut out);
            }
        }
        self.scratch = out;
        nacks
    }

    /// Lets `write` write a compound, under the SSRC of the server's reports, and `send` send it.
    pub fn compound(&mut self, write: impl FnOnce(u32, &mut Vec<u8>), send: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(self.reporter, &mut self.scratch);
        send(&mut self.scratch);
    }
}

#[cfg(test)]
mod tests {
    use common::model::{Track, TrackId, TrackKind, TrackSource};
    use sfu::Codec;

    use super::super::lines::Published;
    use super::*;
    use crate::media::encodings::Encodings;
    use crate::media::sdp::Direction;

    const VP8: u8 = 96;
    const RTX: u8 = 97;
    const RID: u8 = 5;
    const REPAIRED: u8 = 6;

    /// An m-line with these encodings, or with a group of SSRCs.
    fn streams(names: &[&str], group: &[u32], repairs: &[(u32, u32)]) -> (Streams, Instant) {
        let media = Media {
            kind: "video".into(),
            protocol: String::new(),
            formats_text: String::new(),
            is_rejected: false,
            mid: "1".into(),
            direction: Direction::SendOnly,
            formats: Vec::new(),
            extensions: Vec::new(),
            sources: Vec::new(),
            repairs: repairs.to_vec(),
            simulcast_sources: group.to_vec(),
            encodings: names.iter().map(|name| name.to_string()).collect(),
            sctp_port: None,
            max_message_size: None,
        };
        let mut extensions = ExtensionIds::default();
        extensions.set(Extension::StreamId, RID);
        extensions.set(Extension::RepairedStreamId, REPAIRED);
        let payload = Payload {
            codec: Codec::Vp8,
            payload_type: VP8,
            repair_type: Some(RTX),
            parameters: String::new(),
        };
        let track = Track {
            id: TrackId::new(),
            kind: TrackKind::Video,
            source: TrackSource::Camera,
            muted: false,
            mid: "1".into(),
        };
        let receiving = Receiving {
            kind: TrackKind::Video,
            formats: payload.formats(),
            payload,
            extensions,
            encodings: Encodings::of(&media, &extensions),
            published: Some(Published { track, publication: sfu::Session::new().publish(Codec::Vp8) }),
            max_bitrate: None,
        };
        let now = Instant::now();
        let mut streams = Streams::new(now);
        streams.set_line(now, 0, &media, &receiving);
        (streams, now)
    }

    /// A datagram that names its encoding in a header extension.
    fn datagram(
        payload_type: u8,
        sequence: u16,
        ssrc: u32,
        name: Option<(u8, &str)>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut out = vec![0x80, payload_type];
        out.extend(sequence.to_be_bytes());
        out.extend([0, 0, 0, 9]);
        out.extend(ssrc.to_be_bytes());
        if let Some((id, name)) = name {
            out[0] |= 0x10;
            out.extend([0xbe, 0xde, 0, 1, id << 4 | (name.len() as u8 - 1)]);
            out.extend(name.bytes().chain([0, 0, 0]).take(3));
        }
        out.extend(payload);
        out
    }

    #[test]
    fn encodings_are_told_apart_by_their_names_and_repaired_each_for_itself() {
        let (mut streams, now) = streams(&["f", "q"], &[], &[]);
        let mut handle = |datagram: &[u8]| {
            let handled = streams.handle_packet(now, datagram)?;
            Ok::<_, ()>(handled.map(|(_, packet)| (packet.encoding.0, packet.ssrc, packet.sequence.0)))
        };
        assert_eq!(handle(&datagram(VP8, 10, 100, Some((RID, "q")), &[1])), Ok(Some((0, 100, 10))));
        assert_eq!(handle(&datagram(VP8, 10, 200, Some((RID, "f")), &[1])), Ok(Some((1, 200, 10))));
        assert_eq!(handle(&datagram(VP8, 10, 300, Some((RID, "x")), &[1])), Err(()), "not taken");
        assert_eq!(handle(&datagram(VP8, 10, 300, None, &[1])), Err(()), "any of them");
        // From now on by SSRC; 11 is lost in both.
        assert_eq!(handle(&datagram(VP8, 12, 100, None, &[1])), Ok(Some((0, 100, 12))));
        assert_eq!(handle(&datagram(VP8, 12, 200, None, &[1])), Ok(Some((1, 200, 12))));
        let repair = datagram(RTX, 1, 201, Some((REPAIRED, "f")), &[0, 11, 1]);
        assert_eq!(handle(&repair), Ok(Some((1, 200, 11))));
        assert_eq!(handle(&repair), Ok(None), "it was not missing any more");
        assert_eq!(
            handle(&datagram(RTX, 1, 101, Some((REPAIRED, "q")), &[0, 11, 1])),
            Ok(Some((0, 100, 11)))
        );
        let publication = streams.lines[&0].publication;
        let ssrc_of = |streams: &mut Streams, encoding| {
            streams.receiver_of(publication, EncodingId(encoding)).map(|receiver| receiver.ssrc())
        };
        assert_eq!(ssrc_of(&mut streams, 1), Some(200));
        let report = streams.handle_sender_report(now, 200, 1);
        assert_eq!(report, Some((publication, EncodingId(1))));
        assert_eq!(streams.handle_sender_report(now, 201, 1), None, "repairs have no clock");
        // A new SSRC for one of them leaves the other alone.
        let next = datagram(VP8, 50, 400, Some((RID, "f")), &[1]);
        assert_eq!(streams.handle_packet(now, &next).unwrap().map(|it| it.1.ssrc), Some(400));
        assert_eq!(ssrc_of(&mut streams, 1), Some(400));
        assert_eq!(ssrc_of(&mut streams, 0), Some(100));
    }

    #[test]
    fn a_group_of_ssrcs_is_known_before_its_first_packet() {
        let (mut streams, now) = streams(&[], &[11, 13, 15], &[(11, 12), (13, 14)]);
        let publication = streams.lines[&0].publication;
        assert_eq!(
            [0, 1, 2]
                .map(|it| streams.receiver_of(publication, EncodingId(it)).map(|receiver| receiver.ssrc())),
            [11, 13, 15].map(Some)
        );
        let packet = datagram(VP8, 1, 13, None, &[1]);
        let handled = streams.handle_packet(now, &packet).unwrap().unwrap();
        assert_eq!(handled.1.encoding, EncodingId(1));
        assert!(streams.handle_packet(now, &datagram(RTX, 1, 14, None, &[0, 7, 1])).unwrap().is_none());
    }
}
