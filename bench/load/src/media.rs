//! Synthetic media: how large the frames are, and payloads that servers take for what they say they are.
//!
//! The bytes decode to nothing; what servers look at is right: VP8 descriptors with picture ids and the keyframe
//! bit (RFC 7741), H264 parameter sets, IDR and other slices in FU-A (RFC 6184), Opus' first byte (RFC 6716).

use std::time::Duration;

use crate::stamp;

/// Payload bytes of a full video packet, as browsers cut them.
pub const MAX_PAYLOAD: usize = 1_160;
/// A keyframe is so many times as large as the mean frame.
const KEYFRAME_FACTOR: f64 = 6.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    #[default]
    Vp8,
    H264,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Opus,
    Video(VideoCodec),
}

impl Codec {
    pub fn clock_rate(self) -> u32 {
        if self == Self::Opus { 48_000 } else { 90_000 }
    }
}

/// How one stream's frames come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub codec: Codec,
    pub bitrate_bps: u32,
    pub frame: Duration,
    /// Frames from one keyframe to the next; 0: there are none.
    pub keyframe_every: u32,
}

/// Sizes of successive frames whose mean is the bitrate.
#[derive(Debug, Clone)]
pub struct FrameSizes {
    profile: Profile,
    number: u32,
    random: u64,
}

impl FrameSizes {
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self { profile, number: 0, random: seed | 1 }
    }

    /// Bytes of the next frame and whether it is a keyframe. A `forced` one starts a new interval.
    pub fn next_frame(&mut self, forced: bool) -> (usize, bool) {
        let Profile { codec, bitrate_bps, frame, keyframe_every } = self.profile;
        let mean = f64::from(bitrate_bps) / 8.0 * frame.as_secs_f64();
        if codec == Codec::Opus {
            return ((mean as usize).max(stamp::LENGTH + 1), false);
        }
        let is_key = forced || (keyframe_every > 0 && self.number.is_multiple_of(keyframe_every));
        self.number = if is_key { 1 } else { self.number.wrapping_add(1) };
        if is_key {
            return ((mean * KEYFRAME_FACTOR) as usize, true);
        }
        let every = f64::from(keyframe_every);
        let share = if keyframe_every > 1 { (every - KEYFRAME_FACTOR).max(1.0) / (every - 1.0) } else { 1.0 };
        // Frames differ by up to a quarter either way.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let wobble = 0.75 + (self.random % 1_000) as f64 / 2_000.0;
        ((mean * share * wobble) as usize, false)
    }
}

/// What a packet is in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Payload bytes, stamp included.
    pub length: usize,
    pub is_first: bool,
    pub is_last: bool,
    pub is_key: bool,
    pub shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Opus,
    Vp8,
    /// One NAL unit (parameter sets), by its type.
    Nal(u8),
    /// A fragment of a slice.
    FragmentA,
}

const SEQUENCE_PARAMETERS: u8 = 7;
const PICTURE_PARAMETERS: u8 = 8;
/// Room for a descriptor and a stamp.
const SMALLEST: usize = stamp::LENGTH + 20;

/// Cuts a frame into packets of nearly the same size.
pub fn cut(codec: Codec, bytes: usize, is_key: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let shape = match codec {
        Codec::Opus => {
            return vec![Piece {
                length: bytes,
                is_first: true,
                is_last: true,
                is_key: false,
                shape: Shape::Opus,
            }];
        }
        Codec::Video(VideoCodec::Vp8) => Shape::Vp8,
        Codec::Video(VideoCodec::H264) => {
            let sets = if is_key { &[SEQUENCE_PARAMETERS, PICTURE_PARAMETERS][..] } else { &[] };
            pieces.extend(sets.iter().map(|kind| Piece {
                length: SMALLEST,
                is_first: false,
                is_last: false,
                is_key,
                shape: Shape::Nal(*kind),
            }));
            Shape::FragmentA
        }
    };
    // A slice in fragments has at least two: start and end may not be in one (RFC 6184, section 5.8).
    let least = if shape == Shape::FragmentA { 2 } else { 1 };
    let count = bytes.div_ceil(MAX_PAYLOAD).max(least);
    let length = bytes.div_ceil(count).max(SMALLEST);
    pieces.extend((0..count).map(|index| Piece {
        length,
        is_first: index == 0,
        is_last: index == count - 1,
        is_key,
        shape,
    }));
    pieces
}

/// Appends a payload of `piece.length` bytes that ends in `stamp`. `picture` numbers the frame.
pub fn write_payload(piece: &Piece, picture: u16, stamp: &[u8; stamp::LENGTH], out: &mut Vec<u8>) {
    let start = out.len();
    match piece.shape {
        Shape::Opus => out.push(0xf8),
        Shape::Vp8 => {
            // X and, in the first packet, S; then I with a picture id of 15 bits.
            out.push(0x80 | u8::from(piece.is_first) << 4);
            out.push(0x80);
            out.extend_from_slice(&(0x8000 | picture & 0x7fff).to_be_bytes());
            if piece.is_first {
                // Frame tag: the lowest bit is 0 in keyframes, which go on with start code and 1280×720.
                out.extend_from_slice(&[0x10 | u8::from(!piece.is_key), 0x02, 0x00]);
                if piece.is_key {
                    out.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
                }
            }
        }
        Shape::Nal(kind) => out.extend_from_slice(&[0x60 | kind, 0x42, 0xe0, 0x1f]),
        Shape::FragmentA => {
            let (importance, kind) = if piece.is_key { (0x60, 5) } else { (0x40, 1) };
            out.push(importance | 28);
            out.push(u8::from(piece.is_first) << 7 | u8::from(piece.is_last) << 6 | kind);
        }
    }
    out.resize((start + piece.length).saturating_sub(stamp::LENGTH).max(out.len()), 0xa5);
    out.extend_from_slice(stamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(keyframe_every: u32) -> Profile {
        Profile {
            codec: Codec::Video(VideoCodec::Vp8),
            bitrate_bps: 1_500_000,
            frame: Duration::from_secs(1) / 30,
            keyframe_every,
        }
    }

    #[test]
    fn the_mean_is_the_bitrate_and_keyframes_come_in_time() {
        for keyframe_every in [30, 300] {
            let mut sizes = FrameSizes::new(profile(keyframe_every), 42);
            let frames: Vec<(usize, bool)> = (0..3_000).map(|_| sizes.next_frame(false)).collect();
            let bits = frames.iter().map(|(bytes, _)| bytes * 8).sum::<usize>() as f64 / 100.0;
            assert!((bits / 1_500_000.0 - 1.0).abs() < 0.02, "{bits} bit/s");
            let keys: Vec<usize> = (0..3_000).filter(|index| frames[*index].1).collect();
            assert_eq!(keys, (0..3_000).step_by(keyframe_every as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_forced_keyframe_starts_a_new_interval() {
        let mut sizes = FrameSizes::new(profile(10), 42);
        let keys: Vec<bool> = (0..30).map(|index| sizes.next_frame(index == 4).1).collect();
        let at: Vec<usize> = (0..30).filter(|index| keys[*index]).collect();
        assert_eq!(at, [0, 4, 14, 24]);
    }

    #[test]
    fn pieces_make_up_the_frame_and_carry_the_keyframe_bit() {
        let pieces = cut(Codec::Video(VideoCodec::Vp8), 6_250, false);
        assert_eq!(pieces.len(), 6);
        assert!(pieces.iter().all(|piece| piece.length <= MAX_PAYLOAD));
        let mut out = Vec::new();
        let stamp = [7; stamp::LENGTH];
        write_payload(&pieces[0], 3, &stamp, &mut out);
        assert_eq!(out.len(), pieces[0].length);
        assert_eq!((out[0], out[4] & 1), (0x90, 1));
        assert!(out.ends_with(&stamp));
        out.clear();
        write_payload(&cut(Codec::Video(VideoCodec::Vp8), 900, true)[0], 3, &stamp, &mut out);
        assert_eq!(out[4] & 1, 0, "a keyframe");
    }

    #[test]
    fn an_h264_keyframe_starts_with_its_parameter_sets() {
        let pieces = cut(Codec::Video(VideoCodec::H264), 900, true);
        let kinds: Vec<u8> = pieces
            .iter()
            .map(|piece| {
                let mut out = Vec::new();
                write_payload(piece, 0, &[0; stamp::LENGTH], &mut out);
                if out[0] & 0x1f == 28 { out[1] } else { out[0] & 0x1f }
            })
            .collect();
        assert_eq!(kinds, [7, 8, 0x85, 0x45]);
    }
}
