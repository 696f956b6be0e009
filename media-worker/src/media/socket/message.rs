//! What is handed to the kernel at once, on any system.

use std::ops::Range;

use crate::media::transport::Path;

/// One or several datagrams along one path, one behind the other in the sender's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub path: Path,
    pub bytes: Range<usize>,
    /// The length of each datagram; the last one may be shorter.
    pub segment: usize,
    pub count: usize,
}
