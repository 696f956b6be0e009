//! One client's transport: ICE-lite, DTLS and SRTP over the worker's shared socket, without any I/O.
//!
//! ```text
//!   datagram ──▶ first byte (RFC 7983) ─┬─ 0..=3     STUN  ──▶ [`ice`]  checks answered, path selected
//!                                       ├─ 20..=63   DTLS  ──▶ [`dtls`] handshake, then keys
//!                                       └─ 128..=191 SRTP  ──▶ [`dtls::Srtp`] decrypted by the caller
//! ```
//!
//! The server never sends a connectivity check (RFC 8445, section 2.5), so nobody can point it at an
//! address of their choice: every datagram it sends answers an authenticated check from that address.

pub mod dtls;
pub mod ice;
pub mod stun;

use std::net::{IpAddr, SocketAddr};

/// Where a datagram came from, and so where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub remote: SocketAddr,
    /// The local address it arrived at; answers leave from it. `None` when the system does not tell.
    pub local: Option<IpAddr>,
}

/// A datagram to send.
#[derive(Debug)]
pub struct Transmit {
    pub path: Path,
    pub datagram: bytes::BytesMut,
}

/// What a datagram is, by its first byte (RFC 7983, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    /// SRTP or SRTCP.
    Rtp,
    Other,
}

/// Sorts a datagram.
pub fn kind(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(0..=3) => Kind::Stun,
        Some(20..=63) => Kind::Dtls,
        Some(128..=191) => Kind::Rtp,
        _ => Kind::Other,
    }
}
