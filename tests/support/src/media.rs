//! Generated media: RTP as a camera and a microphone would send it, decodable by any browser.

use bytes::{BufMut, Bytes, BytesMut};
use rtc::rtp;

pub const OPUS_PAYLOAD_TYPE: u8 = 111;
pub const VP8_PAYLOAD_TYPE: u8 = 96;
pub const H264_PAYLOAD_TYPE: u8 = 108;

/// RTP clock ticks between two video frames: 25 a second at 90 kHz.
const VIDEO_TICKS: u32 = 90_000 / 25;
/// RTP clock ticks of one Opus frame: 20 ms at 48 kHz.
const AUDIO_TICKS: u32 = 48_000 / 50;

/// Key frames of 320x180, each small enough for one packet; `tests/data/README.md` says where they are from.
const FRAMES: [&[u8]; 4] = [
    include_bytes!("../../data/vp8-keyframe-0.bin"),
    include_bytes!("../../data/vp8-keyframe-1.bin"),
    include_bytes!("../../data/vp8-keyframe-2.bin"),
    include_bytes!("../../data/vp8-keyframe-3.bin"),
];

/// A frame of 20 ms of silence: configuration 31 (CELT, full band), one frame (RFC 6716, section 3.1).
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// Parameter sets and the beginning of an IDR picture in one packet (RFC 6184, section 5.7.1): enough for who forwards it.
const H264_KEYFRAME: [u8; 21] =
    [0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 6, 0x65, 0x88, 0x84, 0, 0x10, 0xff];

/// What a generated track sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Audio,
    Video,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// The `source` that the API knows for it.
    pub fn source(self) -> &'static str {
        match self {
            Self::Audio => "microphone",
            Self::Video => "camera",
        }
    }

    /// Between two packets.
    pub fn interval(self) -> std::time::Duration {
        match self {
            Self::Audio => std::time::Duration::from_millis(20),
            Self::Video => std::time::Duration::from_millis(40),
        }
    }
}

/// One RTP stream: every video frame is a key frame of one packet, every audio packet 20 ms of silence.
#[derive(Debug, Clone)]
pub struct Generator {
    kind: Kind,
    ssrc: u32,
    sequence_number: u16,
    timestamp: u32,
    frame: u16,
    is_h264: bool,
}

impl Generator {
    pub fn new(kind: Kind, ssrc: u32) -> Self {
        // Near the end, so that every test sees both wrap around.
        let (sequence_number, timestamp) = (u16::MAX - 50, u32::MAX - 90_000);
        Self { kind, ssrc, sequence_number, timestamp, frame: 0, is_h264: false }
    }

    /// A camera that sends H.264.
    pub fn h264(ssrc: u32) -> Self {
        Self { is_h264: true, ..Self::new(Kind::Video, ssrc) }
    }

    pub fn next_packet(&mut self) -> rtp::Packet {
        let (payload_type, payload, ticks) = match self.kind {
            Kind::Audio => (OPUS_PAYLOAD_TYPE, Bytes::from_static(&SILENCE), AUDIO_TICKS),
            Kind::Video if self.is_h264 => {
                (H264_PAYLOAD_TYPE, Bytes::from_static(&H264_KEYFRAME), VIDEO_TICKS)
            }
            Kind::Video => (VP8_PAYLOAD_TYPE, self.video_payload(), VIDEO_TICKS),
        };
        let header = rtp::Header {
            version: 2,
            marker: self.kind == Kind::Video,
            payload_type,
            sequence_number: self.sequence_number,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..Default::default()
        };
        self.sequence_number = self.sequence_number.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(ticks);
        rtp::Packet { header, payload }
    }

    /// Payload descriptor with a 15-bit picture id (RFC 7741, section 4.2), and the frame.
    fn video_payload(&mut self) -> Bytes {
        let picture_id = self.frame & 0x7fff;
        // The picture changes twice a second.
        let frame = FRAMES[usize::from(self.frame / 12) % FRAMES.len()];
        self.frame = self.frame.wrapping_add(1);
        let mut payload = BytesMut::with_capacity(4 + frame.len());
        payload.put_slice(&[0x90, 0x80]);
        payload.put_u16(0x8000 | picture_id);
        payload.put_slice(frame);
        payload.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_up_and_wrap_around() {
        let mut generator = Generator::new(Kind::Video, 7);
        let first = generator.next_packet();
        let last = (0..100).map(|_| generator.next_packet()).last().unwrap();
        assert_eq!(last.header.sequence_number, first.header.sequence_number.wrapping_add(100));
        assert_eq!(last.header.timestamp, first.header.timestamp.wrapping_add(100 * VIDEO_TICKS));
        assert!(last.header.sequence_number < first.header.sequence_number);
    }

    #[test]
    fn every_video_packet_is_a_whole_key_frame() {
        let mut generator = Generator::new(Kind::Video, 7);
        for _ in 0..50 {
            let payload = generator.next_packet().payload;
            assert!(payload.len() < 1_100, "fits a packet");
            assert_eq!(payload[4] & 1, 0, "the frame tag says key frame (RFC 6386, section 9.1)");
            assert_eq!(&payload[7..10], &[0x9d, 0x01, 0x2a], "its start code");
        }
    }
}
