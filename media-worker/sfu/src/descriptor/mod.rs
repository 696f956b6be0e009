//! What packets say about frames and layers: the descriptors that stand in front of, or beside, the coded picture.
//!
//! Only these descriptors are read, and where a codec has none that says "keyframe", the first bytes behind them. So
//! media whose frames are encrypted end to end is forwarded like any other. Bytes that are no descriptor are a frame
//! of the lowest layer that is no keyframe.
//!
//! | module | reads |
//! |---|---|
//! | [`vp8`] | VP8 payload descriptor (RFC 7741, section 4.2) |
//! | [`vp9`] | VP9 payload descriptor (RFC 9628, section 4.2) |
//! | [`h264`] | H.264 NAL unit headers (RFC 6184, section 5) |
//! | [`av1`] | AV1 aggregation header (RTP payload format for AV1, section 4.4) |
//! | [`dependency`] | dependency descriptor extension (the same document, appendix A) |

pub mod av1;
mod bits;
pub mod dependency;
pub mod h264;
pub mod picture;
pub mod vp8;
pub mod vp9;

use crate::Codec;
pub use picture::{Patch, PictureId, PictureNumbers};

/// What a packet says about the frame that it is a part of, whatever the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frame {
    /// The first packet of a frame that decodes without anything before it.
    pub starts_keyframe: bool,
    /// The last packet of its layer's frame, where the descriptor says so.
    pub ends: bool,
    pub spatial: u8,
    pub temporal: u8,
    pub switch: Switch,
    /// The size of a spatial layer, where it is said.
    pub resolution: Option<(u8, Resolution)>,
    /// The numbers of the picture in the payload descriptor (VP8 and VP9).
    pub picture: PictureNumbers,
}

/// Where more temporal layers can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    #[default]
    No,
    /// This frame needs nothing but the lowest temporal layer (VP8, Y).
    ToThis,
    /// What comes in higher temporal layers needs nothing of them from before this frame (VP9, U).
    Above,
}

/// Width and height of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Resolution {
    pub width: u16,
    pub height: u16,
}

/// Reads what stands in front of the coded picture. Audio can start anywhere.
pub fn read(codec: Codec, payload: &[u8]) -> Frame {
    let frame = match codec {
        Codec::Opus => Some(Frame { starts_keyframe: true, ..Frame::default() }),
        Codec::Vp8 => vp8::Descriptor::parse(payload).map(|it| it.frame()),
        Codec::Vp9 => vp9::Descriptor::parse(payload).map(|it| it.frame()),
        Codec::H264 => Some(key(h264::starts_keyframe(payload))),
        Codec::Av1 => Some(key(av1::starts_sequence(payload))),
    };
    frame.unwrap_or_default()
}

fn key(starts_keyframe: bool) -> Frame {
    Frame { starts_keyframe, ..Frame::default() }
}
