//! The way out: datagrams are written one behind the other into one buffer and leave in batches.
//!
//! Datagrams of one size to one destination become one message that the kernel cuts up (GSO); messages to
//! many destinations leave with one system call. Where segmentation is refused, for a destination or
//! altogether, the same datagrams go out one by one. Nothing ever waits: what a full socket buffer does
//! not take is lost and counted, as a network would lose it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use super::message::Message;
use crate::media::tcp::Outlet;
use crate::media::transport::{Local, Path};

/// Datagrams wait up to this many bytes together; it fits into a core's second-level cache.
const ARENA: usize = 512 * 1024;
/// The longest datagram (and so the reserve that makes a batch leave).
const MAX_DATAGRAM: usize = 64 * 1024;
/// Messages that wait before a batch leaves by itself.
const MAX_MESSAGES: usize = 64;
/// Bounds of one segmented message: the kernel's UDP_MAX_SEGMENTS of older versions, and a datagram's length.
const MAX_SEGMENTS: usize = 64;
const MAX_MESSAGE: usize = 65_000;
/// Destinations for which segmentation was refused are remembered up to here; beyond, it is not tried at all.
const MAX_REFUSED: usize = 256;

/// What went out and what did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub packets: u64,
    pub bytes: u64,
    /// System calls that sent them.
    pub calls: u64,
    /// Not taken by the kernel: a full buffer, no route, too long.
    pub drops: u64,
}

/// See the module.
pub struct Egress {
    socket: Arc<Shared>,
    arena: Vec<u8>,
    messages: Vec<Message>,
    segments: bool,
    refused: HashSet<SocketAddr>,
    sent: Sent,
    /// Where datagrams over TCP go; `None`: there are no such paths.
    outlet: Option<Outlet>,
    /// Some of the messages are for connections.
    has_connections: bool,
}

impl Egress {
    pub fn new(socket: Arc<Shared>, outlet: Option<Outlet>) -> Self {
        let segments = socket.can_segment();
        Self {
            socket,
            arena: Vec::with_capacity(ARENA),
            messages: Vec::with_capacity(MAX_MESSAGES),
            segments,
            refused: HashSet::new(),
            sent: Sent::default(),
            outlet,
            has_connections: false,
        }
    }

    /// An endpoint has taken a path as its own.
    pub fn note_bound(&mut self, path: Path) {
        if let (Some(outlet), Local::Connection(connection)) = (&mut self.outlet, path.local) {
            outlet.note_bound(connection);
        }
    }

    /// Nothing more goes along a path, once what waits is gone.
    pub fn forget(&mut self, path: Path) {
        if let (Some(outlet), Local::Connection(connection)) = (&mut self.outlet, path.local) {
            outlet.forget(connection);
        }
    }

    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Sends a datagram with the next batch.
    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        self.write(path, |arena| {
            arena.extend_from_slice(datagram);
            Some(())
        });
    }

    /// Sends what `write` appends with the next batch; returns whether it appended anything. On `None`
    /// whatever it left there is taken back.
    pub fn write(&mut self, path: Path, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> bool {
        if self.arena.len() + MAX_DATAGRAM > ARENA || self.messages.len() >= MAX_MESSAGES {
            self.flush();
        }
        let start = self.arena.len();
        if write(&mut self.arena).is_none() {
            self.arena.truncate(start);
            return false;
        }
        let end = self.arena.len();
        let length = end - start;
        if let Some(last) = self.messages.last_mut()
            && self.segments
            && last.path == path
            && is_run(last, length)
            && (self.refused.is_empty() || !self.refused.contains(&path.remote))
        {
            last.bytes.end = end;
            last.count += 1;
            return true;
        }
        self.has_connections |= matches!(path.local, Local::Connection(_));
        self.messages.push(Message { path, bytes: start..end, segment: length, count: 1 });
        true
    }

    /// Forgets everything that waits.
    pub fn discard(&mut self) {
        self.messages.clear();
        self.arena.clear();
    }

    /// Hands everything that waits to the kernel, and to the connections.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.has_connections) {
            self.flush_connections();
        }
        let mut at = 0;
        while at < self.messages.len() {
            match self.socket.send(&mut self.arena, &self.messages[at..]) {
                Ok(taken) => {
                    self.sent.calls += 1;
                    for message in &self.messages[at..at + taken] {
                        self.sent.packets += message.count as u64;
                        self.sent.bytes += message.bytes.len() as u64;
                    }
                    at += taken;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => {
                    // Nothing behind it would be taken either, and media that waits is worth nothing.
                    self.sent.drops +=
                        self.messages[at..].iter().map(|message| message.count as u64).sum::<u64>();
                    break;
                }
                Err(_) if self.messages[at].count > 1 => {
                    self.refuse_segments(at);
                    self.send_singly(at);
                    at += 1;
                }
                Err(_) => {
                    self.sent.drops += 1;
                    at += 1;
                }
            }
        }
        self.messages.clear();
        self.arena.clear();
    }

    /// Hands over what is for connections and leaves the rest.
    fn flush_connections(&mut self) {
        let Self { messages, arena, outlet, sent, .. } = self;
        messages.retain(|message| {
            let Local::Connection(connection) = message.path.local else { return true };
            let run = &arena[message.bytes.clone()];
            // What does not fit is counted there.
            if outlet.as_mut().is_some_and(|outlet| outlet.send(connection, run, message.segment)) {
                sent.packets += message.count as u64;
                sent.bytes += message.bytes.len() as u64;
            }
            false
        });
    }

    /// Wakes who has to carry out what was handed over.
    pub fn wake(&mut self) {
        if let Some(outlet) = &mut self.outlet {
            outlet.wake();
        }
    }

    /// A message could not be cut: its destination is behind an interface that does not segment, or its
    /// datagrams are too long for the path and must be fragmented.
    fn refuse_segments(&mut self, at: usize) {
        self.refused.insert(self.messages[at].path.remote);
        if self.refused.len() > MAX_REFUSED {
            tracing::warn!("segmentation offload is refused by many destinations and is not used any more");
            self.segments = false;
            self.refused.clear();
        }
    }

    fn send_singly(&mut self, at: usize) {
        let Message { path, bytes, segment, count } = self.messages[at].clone();
        for start in bytes.clone().step_by(segment).take(count) {
            let one = start..(start + segment).min(bytes.end);
            let length = one.len();
            let message = Message { path, bytes: one, segment, count: 1 };
            self.sent.calls += 1;
            if self.socket.send(&mut self.arena, &[message]).is_ok() {
                self.sent.packets += 1;
                self.sent.bytes += length as u64;
            } else {
                self.sent.drops += 1;
            }
        }
    }
}

/// Whether a datagram of `length` bytes continues a message: all of it has one length so far, and only
/// the last may be shorter.
fn is_run(message: &Message, length: usize) -> bool {
    message.count < MAX_SEGMENTS
        && message.bytes.len() == message.segment * message.count
        && length <= message.segment
        && length > 0
        && message.bytes.len() + length <= MAX_MESSAGE
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests;
