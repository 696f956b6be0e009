//! SRTP and SRTCP (RFC 3711, RFC 7714), sealed and opened in place: the per-packet cost of a connection.
//!
//! webrtc-rs's own contexts allocate a buffer for each packet and look their state up by SSRC; here a packet
//! is written once, where it leaves from. The tests hold both against each other.

mod cipher;
mod replay;

use aws_lc_rs::error::Unspecified;
use sfu::Sequence;

pub use cipher::Profile;
use cipher::{Cipher, Stream};
use replay::Window;

/// Received SSRCs that have state. Only authentic packets make any.
const MAX_STREAMS: usize = 256;
/// RTP's fixed header.
const HEADER: usize = 12;

/// Protects what is sent.
pub struct Outbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// One for all SSRCs: each sees it grow.
    rtcp_index: u32,
}

impl Outbound {
    /// # Errors
    /// A key or salt of the wrong length.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Unspecified> {
        Ok(Self {
            profile,
            rtp: Cipher::new(profile, Stream::Rtp, key, salt)?,
            rtcp: Cipher::new(profile, Stream::Rtcp, key, salt)?,
            rtcp_index: 0,
        })
    }

    /// Bytes that [`Outbound::seal_rtp`] needs behind a packet.
    pub fn overhead(&self) -> usize {
        self.profile.tag()
    }

    /// Protects a packet whose last [`Outbound::overhead`] bytes are room for the tag. `header` is the
    /// length of its header with extensions, `index` its extended number: roll-over counter and sequence
    /// number. The same SSRC and index must never protect two different packets.
    ///
    /// # Errors
    /// A packet shorter than header and tag.
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<(), Unspecified> {
        self.rtp.seal_rtp(packet, header, ssrc, u64::from(index))
    }

    /// Protects an RTCP compound; it grows by tag and index.
    ///
    /// # Errors
    /// A compound without an SSRC; all 2³¹ indexes used (RFC 3711, section 9.2).
    pub fn seal_rtcp(&mut self, compound: &mut Vec<u8>) -> Result<(), Unspecified> {
        let ssrc = word(compound, 4).ok_or(Unspecified)?;
        if self.rtcp_index >= 1 << 31 {
            return Err(Unspecified);
        }
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        self.rtcp.seal_rtcp(compound, ssrc, index)
    }
}

/// Opens what is received.
pub struct Inbound {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Vec<Source>,
    rtcp_streams: Vec<Source>,
}

struct Source {
    ssrc: u32,
    window: Window,
}

impl Inbound {
    /// # Errors
    /// A key or salt of the wrong length.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Cipher::new(profile, Stream::Rtp, key, salt)?,
            rtcp: Cipher::new(profile, Stream::Rtcp, key, salt)?,
            rtp_streams: Vec::new(),
            rtcp_streams: Vec::new(),
        })
    }

    /// Opens an RTP packet in place; returns its length. `None`: not authentic, a replay, or malformed.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Option<usize> {
        let header = header_length(packet)?;
        let sequence = Sequence(u16::from_be_bytes([packet[2], packet[3]]));
        let ssrc = word(packet, 8)?;
        let known = self.rtp_streams.iter().position(|source| source.ssrc == ssrc);
        // RFC 3711, section 3.3.1: the index nearest to the highest so far. A stream starts below 2^16.
        let index = match known {
            Some(at) => nearest(self.rtp_streams[at].window.highest(), sequence)?,
            None => u64::from(sequence.0),
        };
        if !may_come(&self.rtp_streams, known, index) {
            return None;
        }
        let length = self.rtp.open_rtp(packet, header, ssrc, index).ok()?;
        note(&mut self.rtp_streams, known, ssrc, index);
        Some(length)
    }

    /// Opens an RTCP compound in place; returns its length. `None` as for [`Inbound::open_rtp`].
    pub fn open_rtcp(&mut self, compound: &mut [u8]) -> Option<usize> {
        let ssrc = word(compound, 4)?;
        let index = self.rtcp.rtcp_index(compound)?;
        let known = self.rtcp_streams.iter().position(|source| source.ssrc == ssrc);
        if !may_come(&self.rtcp_streams, known, u64::from(index)) {
            return None;
        }
        let length = self.rtcp.open_rtcp(compound, ssrc, index).ok()?;
        note(&mut self.rtcp_streams, known, ssrc, u64::from(index));
        Some(length)
    }
}

/// Whether a packet is worth opening: no replay, and not one SSRC too many.
fn may_come(streams: &[Source], known: Option<usize>, index: u64) -> bool {
    known.map_or(streams.len() < MAX_STREAMS, |at| streams[at].window.is_new(index))
}

/// Notes an authentic packet.
fn note(streams: &mut Vec<Source>, known: Option<usize>, ssrc: u32, index: u64) {
    match known {
        Some(at) => streams[at].window.accept(index),
        None => streams.push(Source { ssrc, window: Window::starting(index) }),
    }
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk::<4>()?))
}

/// The length of the header with CSRCs and extensions, which is not encrypted.
fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first_chunk::<HEADER>()?.first()?;
    let mut length = HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let head = packet.get(length..)?.first_chunk::<4>()?;
        length += 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
    }
    (length <= packet.len()).then_some(length)
}

/// The index with this sequence number that is nearest to `highest`; `None` below zero.
fn nearest(highest: u64, sequence: Sequence) -> Option<u64> {
    let distance = sequence.since(Sequence(highest as u16));
    highest.checked_add_signed(i64::from(distance))
}

#[cfg(test)]
mod tests;
