//! What the fuzz targets in `fuzz/` call: each function takes any bytes and panics only where a promise is broken.
//!
//! Built for tests and with the feature `fuzzing`. The seeds and past findings in `fuzz/corpus` also run as ordinary
//! tests.

mod datagrams;
mod descriptions;
mod sctp;

pub(in crate::media) use datagrams::identity;
pub use datagrams::{client_hello, dtls, rtcp, rtp, stun};
pub use descriptions::sdp;
pub use sctp::{data_message, sctp};

pub use super::endpoint::fuzzing::negotiation;

/// Pieces of at most `longest` bytes, each behind two bytes: how long it is, and in the bits above whatever else.
fn pieces(mut data: &[u8], longest: u16) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = data.split_first_chunk()?;
        let head = u16::from_be_bytes(*head);
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(head & longest)));
        data = rest;
        Some((head, piece))
    })
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    super::replay::replayed!(rtp, rtcp, stun, client_hello, dtls, sdp, negotiation, sctp, data_message);
}
