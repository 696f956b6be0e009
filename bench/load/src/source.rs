//! One stream that a client sends: frames in time, packets paced as browsers pace them, repairs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::media::{self, Codec, FrameSizes, Piece, Profile};
use crate::rtp::{self, Write};
use crate::stamp::Stamp;

/// libwebrtc sends at up to 2.5 times its target, in bursts of at most 40 ms: an ordinary frame leaves at
/// once, a keyframe in portions.
const PACING_FACTOR: f64 = 2.5;
const BURST: Duration = Duration::from_millis(40);
/// Packets that can be repaired.
const HISTORY: usize = 256;
/// Keyframes that are asked for come at most this often, as encoders have it.
const MIN_KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);
/// A client that was held up does not make up for more than this.
const MAX_BEHIND: Duration = Duration::from_millis(200);

/// Ids of the header extensions that were negotiated for the m-line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    pub mid: Option<u8>,
    pub rid: Option<u8>,
    pub absolute_send_time: Option<u8>,
    pub transport_sequence: Option<u8>,
}

/// What is negotiated about one stream.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Unique in the run: stands in the stamps.
    pub source: u32,
    pub room: u32,
    pub profile: Profile,
    pub ssrc: u32,
    pub payload_type: u8,
    /// SSRC and payload type of retransmissions (RFC 4588).
    pub repair: Option<(u32, u8)>,
    pub extensions: ExtensionIds,
    pub mid: String,
    /// The simulcast encoding.
    pub rid: Option<String>,
    /// How many clients get this stream now.
    pub receivers: Arc<AtomicU32>,
}

/// What one call of [`Source::poll_packet`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub is_key_start: bool,
    /// Clients that should get this packet.
    pub receivers: u32,
}

pub struct Source {
    config: SourceConfig,
    sizes: FrameSizes,
    started: Instant,
    next_frame: Instant,
    pending: VecDeque<(Piece, u32, u16)>,
    /// When the pacer owes nothing.
    free_at: Instant,
    keyframe_wanted: bool,
    last_keyframe: Option<Instant>,
    first_timestamp: u32,
    picture: u16,
    sequence: u16,
    repair_sequence: u16,
    number: u32,
    packets: u32,
    bytes: u32,
    history: Vec<Vec<u8>>,
    resend: VecDeque<u16>,
}

impl Source {
    pub fn new(config: SourceConfig, now: Instant) -> Self {
        // Sources do not march in step: they start somewhere within their first frame.
        let phase = config.profile.frame.mul_f64(rand::random::<f64>());
        Self {
            sizes: FrameSizes::new(config.profile, rand::random()),
            started: now + phase,
            next_frame: now + phase,
            pending: VecDeque::new(),
            free_at: now,
            keyframe_wanted: false,
            last_keyframe: None,
            first_timestamp: rand::random(),
            picture: rand::random(),
            // Well below the end: an SRTP receiver that joins late cannot tell a wrapped number.
            sequence: rand::random::<u16>() & 0x3fff,
            repair_sequence: rand::random::<u16>() & 0x3fff,
            number: 0,
            packets: 0,
            bytes: 0,
            history: Vec::new(),
            resend: VecDeque::new(),
            config,
        }
    }

    pub fn config(&self) -> &SourceConfig {
        &self.config
    }

    pub fn request_keyframe(&mut self) {
        self.keyframe_wanted |= matches!(self.config.profile.codec, Codec::Video(_));
    }

    /// Asks to send packets again.
    pub fn request_repair(&mut self, lost: &[u16]) {
        self.resend.extend(lost.iter().take(HISTORY - self.resend.len().min(HISTORY)));
    }

    pub fn poll_timeout(&self) -> Instant {
        if !self.resend.is_empty() {
            return self.started;
        }
        match self.pending.front() {
            Some(_) => self.free_at.checked_sub(BURST).unwrap_or(self.free_at),
            None => self.next_frame,
        }
    }

    /// Writes the next packet that is due into `packet`, in the clear, stamped with `wall_ns`.
    pub fn poll_packet(
        &mut self,
        now: Instant,
        wall_ns: u64,
        transport_sequence: &mut u16,
        packet: &mut Vec<u8>,
    ) -> Option<Sent> {
        if self.pending.is_empty() && now >= self.next_frame {
            self.start_frame(now);
        }
        if now < self.free_at.checked_sub(BURST).unwrap_or(self.free_at) {
            return None;
        }
        let (piece, timestamp, picture) = self.pending.pop_front()?;
        let stamp =
            Stamp { room: self.config.room, source: self.config.source, number: self.number, sent: wall_ns };
        packet.clear();
        self.write_header(
            piece.is_last,
            self.config.payload_type,
            self.config.ssrc,
            self.sequence,
            timestamp,
            wall_ns,
            transport_sequence,
            packet,
        );
        let start = packet.len();
        media::write_payload(&piece, picture, &stamp.to_bytes(), packet);
        let pacing = f64::from(self.config.profile.bitrate_bps) * PACING_FACTOR;
        if matches!(self.config.profile.codec, Codec::Video(_)) {
            self.free_at =
                self.free_at.max(now) + Duration::from_secs_f64(packet.len() as f64 * 8.0 / pacing);
            self.remember(start, packet);
        }
        self.number = self.number.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add((packet.len() - start) as u32);
        let receivers = self.config.receivers.load(Ordering::Relaxed);
        Some(Sent { is_key_start: piece.is_key && piece.is_first, receivers })
    }

    fn start_frame(&mut self, now: Instant) {
        let allowed = self.last_keyframe.is_none_or(|last| now.duration_since(last) >= MIN_KEYFRAME_INTERVAL);
        let (bytes, is_key) = self.sizes.next_frame(self.keyframe_wanted && allowed);
        if is_key {
            self.keyframe_wanted = false;
            self.last_keyframe = Some(now);
        }
        let timestamp = self.rtp_time(self.next_frame);
        let codec = self.config.profile.codec;
        self.pending.extend(
            media::cut(codec, bytes, is_key).into_iter().map(|piece| (piece, timestamp, self.picture)),
        );
        self.picture = self.picture.wrapping_add(1);
        self.next_frame += self.config.profile.frame;
        if now.saturating_duration_since(self.next_frame) > MAX_BEHIND {
            self.next_frame = now;
        }
    }

    fn rtp_time(&self, at: Instant) -> u32 {
        let elapsed = at.saturating_duration_since(self.started).as_secs_f64();
        let ticks = elapsed * f64::from(self.config.profile.codec.clock_rate());
        self.first_timestamp.wrapping_add(ticks.round() as u64 as u32)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one header")]
    fn write_header(
        &self,
        marker: bool,
        payload_type: u8,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        wall_ns: u64,
        transport_sequence: &mut u16,
        out: &mut Vec<u8>,
    ) {
        let ids = &self.config.extensions;
        // 24 bits of seconds in 6.18 fixed point (RFC-less: WebRTC's abs-send-time).
        let seconds = ((u128::from(wall_ns) << 18) / 1_000_000_000) as u32;
        let absolute = seconds.to_be_bytes();
        let number = transport_sequence.to_be_bytes();
        let mut extensions: [(u8, &[u8]); 4] = [(0, &[]); 4];
        let mut count = 0;
        let mut add = |id: Option<u8>, value| {
            if let Some(id) = id {
                extensions[count] = (id, value);
                count += 1;
            }
        };
        add(ids.mid, self.config.mid.as_bytes());
        if let Some(rid) = &self.config.rid {
            add(ids.rid, rid.as_bytes());
        }
        add(ids.absolute_send_time, &absolute[1..]);
        add(ids.transport_sequence, &number);
        if ids.transport_sequence.is_some() {
            *transport_sequence = transport_sequence.wrapping_add(1);
        }
        Write { payload_type, marker, sequence, timestamp, ssrc, extensions: &extensions[..count] }
            .write(out);
    }

    fn remember(&mut self, payload: usize, packet: &[u8]) {
        if self.history.is_empty() {
            self.history.resize_with(HISTORY, Vec::new);
        }
        let place = &mut self.history[usize::from(self.sequence) % HISTORY];
        place.clear();
        // Number, marker and timestamp, then the payload: what a repair is made of.
        place.extend_from_slice(&packet[..8]);
        place.extend_from_slice(&packet[payload..]);
    }

    /// Writes the next repair that was asked for; without RTX the packet itself again. `None` when there is none.
    pub fn poll_repair(&mut self, wall_ns: u64, transport_sequence: &mut u16, packet: &mut Vec<u8>) -> bool {
        while let Some(sequence) = self.resend.pop_front() {
            let place = usize::from(sequence) % HISTORY;
            let Some(kept) = self.history.get(place).filter(|kept| kept.len() > 8) else { continue };
            if kept[2..4] != sequence.to_be_bytes() {
                continue;
            }
            let (marker, timestamp) =
                (kept[1] >> 7 == 1, u32::from_be_bytes([kept[4], kept[5], kept[6], kept[7]]));
            packet.clear();
            let (ssrc, payload_type, number) = match self.config.repair {
                Some((ssrc, payload_type)) => (ssrc, payload_type, self.repair_sequence),
                None => (self.config.ssrc, self.config.payload_type, sequence),
            };
            self.write_header(
                marker,
                payload_type,
                ssrc,
                number,
                timestamp,
                wall_ns,
                transport_sequence,
                packet,
            );
            if self.config.repair.is_some() {
                packet.extend_from_slice(&sequence.to_be_bytes());
            }
            packet.extend_from_slice(&self.history[place][8..]);
            if self.config.repair.is_some() {
                self.repair_sequence = self.repair_sequence.wrapping_add(1);
            }
            return true;
        }
        false
    }

    /// Appends a sender report; nothing before the first packet.
    pub fn report(&self, now: Instant, wall_ns: u64, out: &mut Vec<u8>) {
        if self.packets > 0 {
            let ntp = ntp(wall_ns);
            rtp::write_sender_report(
                out,
                self.config.ssrc,
                ntp,
                self.rtp_time(now),
                self.packets,
                self.bytes,
            );
        }
    }
}

/// NTP time (RFC 5905, section 6) of nanoseconds since the Unix epoch.
fn ntp(wall_ns: u64) -> u64 {
    const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
    let fraction = (u128::from(wall_ns % 1_000_000_000) << 32) / 1_000_000_000;
    (wall_ns / 1_000_000_000 + SECONDS_1900_TO_1970) << 32 | fraction as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::VideoCodec;

    fn source(repair: Option<(u32, u8)>, now: Instant) -> Source {
        let profile = Profile {
            codec: Codec::Video(VideoCodec::Vp8),
            bitrate_bps: 1_500_000,
            frame: Duration::from_secs(1) / 30,
            keyframe_every: 300,
        };
        let config = SourceConfig {
            source: 1,
            room: 2,
            profile,
            ssrc: 3,
            payload_type: 96,
            repair,
            extensions: ExtensionIds { mid: Some(1), transport_sequence: Some(4), ..ExtensionIds::default() },
            mid: "1".into(),
            rid: None,
            receivers: Arc::new(AtomicU32::new(5)),
        };
        Source::new(config, now)
    }

    /// Packets sent up to `until`, with when.
    fn run(source: &mut Source, from: Instant, until: Duration) -> Vec<(Duration, Vec<u8>)> {
        let (mut all, mut packet, mut number) = (Vec::new(), Vec::new(), 0);
        for millisecond in 0..until.as_millis() as u64 {
            let now = from + Duration::from_millis(millisecond);
            while source.poll_packet(now, millisecond * 1_000_000, &mut number, &mut packet).is_some() {
                all.push((now - from, packet.clone()));
            }
        }
        all
    }

    #[test]
    fn sends_its_bitrate_and_spreads_a_keyframe() {
        let start = Instant::now();
        let mut source = source(None, start);
        let packets = run(&mut source, start, Duration::from_secs(10));
        let bits: usize = packets.iter().map(|(_, packet)| packet.len() * 8).sum();
        assert!((bits as f64 / 15_000_000.0 - 1.0).abs() < 0.06, "{bits}");
        let key = Header::read(&packets[0].1).unwrap().timestamp;
        let of_key: Vec<Duration> = packets
            .iter()
            .filter(|(_, packet)| Header::read(packet).unwrap().timestamp == key)
            .map(|(at, _)| *at)
            .collect();
        assert!(of_key.len() > 30);
        assert!(*of_key.last().unwrap() - of_key[0] > Duration::from_millis(30), "not all at once");
        let numbers: Vec<u16> =
            packets.iter().map(|(_, packet)| Header::read(packet).unwrap().sequence).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
    }
    use crate::rtp::Header;

    #[test]
    fn a_repair_carries_the_original_number_and_payload() {
        let start = Instant::now();
        let mut source = source(Some((9, 97)), start);
        let packets = run(&mut source, start, Duration::from_secs(1));
        let (_, original) = &packets[packets.len() - 3];
        let header = Header::read(original).unwrap();
        source.request_repair(&[header.sequence, header.sequence.wrapping_sub(5_000)]);
        let (mut packet, mut number) = (Vec::new(), 0);
        assert!(source.poll_repair(0, &mut number, &mut packet));
        let repair = Header::read(&packet).unwrap();
        assert_eq!((repair.ssrc, repair.payload_type, repair.timestamp), (9, 97, header.timestamp));
        assert_eq!(packet[repair.length..repair.length + 2], header.sequence.to_be_bytes());
        assert_eq!(packet[repair.length + 2..], original[header.length..]);
        assert!(!source.poll_repair(0, &mut number, &mut packet), "the other was never sent");
    }

    #[test]
    fn a_keyframe_comes_when_asked_for_but_not_at_any_rate() {
        let start = Instant::now();
        let mut source = source(None, start);
        run(&mut source, start, Duration::from_millis(1_000));
        let (mut packet, mut number, mut keys) = (Vec::new(), 0, 0);
        for millisecond in 1_000..2_000 {
            source.request_keyframe();
            let now = start + Duration::from_millis(millisecond);
            while let Some(sent) = source.poll_packet(now, 0, &mut number, &mut packet) {
                assert_eq!(sent.receivers, 5);
                keys += u32::from(sent.is_key_start);
            }
        }
        assert!((1..=4).contains(&keys), "{keys}");
    }

    #[test]
    fn ntp_time_of_a_known_second() {
        assert_eq!(ntp(500_000_000), 2_208_988_800 << 32 | 1 << 31);
    }
}
