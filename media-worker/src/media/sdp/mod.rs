//! SDP (RFC 8866) as WebRTC uses it (RFC 8829): reading what clients send, writing what they get.
//!
//! [`parse`] keeps only what the media plane acts on and refuses what it could not honour, before
//! anything of the endpoint changes. [`write`] renders the endpoint's own view.

pub mod parse;
pub mod write;

use super::transport::dtls::Fingerprint;
use super::transport::ice::Credentials;
use super::transport::sctp;

/// The largest SDP that is read, in bytes.
pub const MAX_SDP: usize = 256 * 1024;
/// The most m-lines that a client may bring; those that the server added do not count.
pub const MAX_CLIENT_MEDIA: usize = 128;

/// The m-line of data channels.
pub const DATA_KIND: &str = "application";
const DATA_PROTOCOL: &str = "UDP/DTLS/SCTP";
const DATA_FORMAT: &str = "webrtc-datachannel";

/// Who sends on an m-line, from the view of whoever wrote the SDP (RFC 8866, section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// Who starts the DTLS handshake (RFC 4145, RFC 5763).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    ActPass,
    Active,
    Passive,
}

impl Setup {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// One `a=rtpmap` with its `a=fmtp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub payload_type: u8,
    pub name: String,
    pub clock_rate: u32,
    pub parameters: String,
}

/// One m-line of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `application` or whatever else the client made up.
    pub kind: String,
    pub protocol: String,
    /// The format list as it came, for the rejection to repeat.
    pub formats_text: String,
    /// Port 0 outside a bundle: the client has stopped this m-line (RFC 8829, section 5.8.1).
    pub is_rejected: bool,
    pub mid: String,
    pub direction: Direction,
    pub formats: Vec<Format>,
    pub extensions: Vec<(u8, String)>,
    /// SSRCs in order of appearance, repair streams included.
    pub sources: Vec<u32>,
    /// Flow identification groups (RFC 5576): a stream and the one that repairs it.
    pub repairs: Vec<(u32, u32)>,
    /// The SSRCs of a simulcast group, lowest encoding first; clients that do not name encodings write it.
    pub simulcast_sources: Vec<u32>,
    /// The encodings that the client would send at once (RFC 8853), in its order; empty without simulcast.
    pub encodings: Vec<String>,
    /// Of data channels (RFC 8841): the SCTP port, and the longest message that the client takes, in bytes.
    pub sctp_port: Option<u16>,
    pub max_message_size: Option<u64>,
}

impl Media {
    pub fn is_audio(&self) -> bool {
        self.kind == "audio"
    }

    pub fn is_video(&self) -> bool {
        self.kind == "video"
    }

    /// Data channels as this server speaks them (RFC 8841, section 4).
    pub fn is_data(&self) -> bool {
        self.kind == DATA_KIND
            && self.protocol == DATA_PROTOCOL
            && self.formats_text == DATA_FORMAT
            && self.sctp_port == Some(sctp::PORT)
    }
}

/// A client's whole description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub credentials: Credentials,
    pub fingerprint: Fingerprint,
    pub setup: Setup,
    pub media: Vec<Media>,
}
