//! One client's transport: ICE-lite, DTLS and SRTP over the worker's shared socket, without any I/O.
//!
//! ```text
//!   datagram ──▶ first byte (RFC 7983) ─┬─ 0..=3     STUN  ──▶ [`ice`]  checks answered, path selected
//!                                       ├─ 20..=63   DTLS  ──▶ [`dtls`] handshake, then keys; records for [`sctp`]
//!                                       └─ 128..=191 SRTP  ──▶ [`srtp`] opened in place, with the keys of the handshake
//! ```
//!
//! The server never sends a connectivity check (RFC 8445, section 2.5), so nobody can point it at an
//! address of their choice: every datagram it sends answers an authenticated check from that address.

pub mod dtls;
pub mod ice;
pub mod sctp;
pub mod srtp;
pub mod stun;

use std::net::{IpAddr, SocketAddr};

/// Where a datagram came from, and so where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub remote: SocketAddr,
    pub local: Local,
}

/// Our end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Local {
    /// The system does not tell at which address a datagram arrived.
    Unknown,
    /// The address it arrived at; answers leave from it.
    Address(IpAddr),
    /// A TCP connection (RFC 6544).
    Connection(ConnectionId),
}

/// A TCP connection of the media plane; no two of one process have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Datagrams to send, one behind the other in one buffer that is used again and again.
#[derive(Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    /// Where each goes and ends.
    ends: Vec<(Path, usize)>,
}

impl Datagrams {
    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push((path, self.bytes.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Path, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(path, end)| {
            let datagram = &self.bytes[start..*end];
            start = *end;
            (*path, datagram)
        })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
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
