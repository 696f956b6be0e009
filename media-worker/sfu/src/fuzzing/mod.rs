//! What the fuzz targets in `fuzz/` call: each function takes any bytes and panics only where a promise is broken.
//!
//! Built for tests and with the feature `fuzzing`. The seeds and past findings in `fuzz/corpus` also run as ordinary
//! tests, so a finding cannot come back unnoticed where nobody fuzzes.

mod frames;
mod parsers;
mod session;

pub use frames::frames;
pub use parsers::{av1, dependency_descriptor, h264, header_extensions, vp8, vp9};
pub use session::session;

/// Takes numbers from the front of the bytes; zeros when there are none left.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.bytes(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    /// At most `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

// Targets count time from some instant; which one does not matter.
#[allow(clippy::disallowed_methods)]
fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    super::replay::replayed!(vp8, vp9, h264, av1, dependency_descriptor, header_extensions, session, frames);
}
