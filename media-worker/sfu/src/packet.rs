//! What the core knows of a packet: its codec, its numbers, and two byte ranges.

use crate::{EncodingId, Sequence, Timestamp};

/// The codecs that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    /// Ticks of the RTP clock per second.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => 90_000,
        }
    }

    /// As `RTCRtpCodec.mimeType` says it (W3C webrtc, section 5.2.9).
    pub const fn mime_type(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Vp8 => "video/VP8",
            Self::Vp9 => "video/VP9",
            Self::H264 => "video/H264",
            Self::Av1 => "video/AV1",
        }
    }

    /// Whether a decoder can only start at a keyframe.
    pub const fn is_video(self) -> bool {
        !matches!(self, Self::Opus)
    }
}

/// One received RTP packet, borrowed from wherever its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub encoding: EncodingId,
    pub ssrc: u32,
    pub sequence: Sequence,
    pub timestamp: Timestamp,
    pub marker: bool,
    /// The `defined by profile` field in front of the extensions (RFC 3550, section 5.3.1).
    pub extension_profile: u16,
    /// The extension block behind its profile and length fields; empty when there is none.
    pub extensions: &'a [u8],
    /// The payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A packet of the first encoding, without marker and extensions.
    pub fn new(ssrc: u32, sequence: u16, timestamp: u32, payload: &'a [u8]) -> Self {
        Self {
            encoding: EncodingId::default(),
            ssrc,
            sequence: Sequence(sequence),
            timestamp: Timestamp(timestamp),
            marker: false,
            extension_profile: 0,
            extensions: &[],
            payload,
        }
    }
}
