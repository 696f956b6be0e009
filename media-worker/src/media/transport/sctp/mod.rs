//! SCTP over DTLS (RFC 8261): one association for each endpoint that has asked for data channels.
//!
//! ```text
//!   DTLS record ──▶ [`fence`] ──▶ `rtc-sctp` ──▶ whole messages of streams, streams that the peer reset
//!                                     └──▶ packets for the peer
//! ```
//!
//! The protocol is webrtc-rs' (`rtc-sctp`, without I/O and clock). Whatever a peer sends ends in a packet that is not
//! taken, or in the end of this association: a panic inside is caught here, and the endpoint's media goes on.

mod fence;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc::sctp::{
    self, AssociationError, AssociationHandle, ClientConfig, DatagramEvent, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Identifier, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use rtc::shared::TransportProtocol;

use super::dtls::Role;
use fence::{Fence, Verdict};

/// The longest message, both ways, in bytes: `a=max-message-size` (RFC 8841, section 6).
pub const MAX_MESSAGE: usize = 64 * 1024;
/// What a peer may send before it is taken, in bytes (a_rwnd).
pub const WINDOW: u32 = 256 * 1024;
/// Streams 0 to one less than this.
pub const MAX_STREAMS: u16 = 64;
/// `a=sctp-port`; nobody uses another one over DTLS.
pub const PORT: u16 = 5000;
/// Associations that a peer may begin until one of them stands: each INIT that it sends again begins one.
const MAX_BEGUN: u32 = 16;

/// The path is ICE's business: here both ends have made-up names.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
const HERE: SocketAddr = PEER;

/// What a message is (RFC 8831, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The Data Channel Establishment Protocol (RFC 8832).
    Control,
    Text,
    Binary,
}

/// A message that has arrived as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub stream: u16,
    pub kind: Kind,
    pub bytes: Bytes,
}

/// How a stream sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reliability {
    pub unordered: bool,
    /// At most so many retransmissions; `None`: as many as it takes.
    pub max_retransmits: Option<u32>,
    /// Milliseconds after which it is given up; `None`: never.
    pub max_lifetime: Option<u32>,
}

/// See the module.
pub struct Association {
    endpoint: sctp::Endpoint,
    current: Option<(AssociationHandle, sctp::Association)>,
    fence: Fence,
    is_client: bool,
    begun: u32,
    is_established: bool,
    is_over: bool,
    /// Streams with messages to take, the one that waits longest first.
    readable: VecDeque<u16>,
    reset: Vec<u16>,
    gathered: VecDeque<Bytes>,
    drops: u64,
}

impl Association {
    /// The DTLS client begins; where both do, that is what they settle on.
    pub fn new(now: Instant, role: Role) -> Self {
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(WINDOW)
            .with_max_message_size(MAX_MESSAGE as u32)
            .with_max_num_inbound_streams(MAX_STREAMS)
            .with_max_num_outbound_streams(MAX_STREAMS);
        let is_client = role == Role::Client;
        let server = (!is_client).then(|| Arc::new(ServerConfig::new(transport.clone())));
        let config = Arc::new(EndpointConfig::new());
        let mut endpoint = sctp::Endpoint::new(HERE, TransportProtocol::UDP, config, server);
        let current =
            is_client.then(|| endpoint.connect(now, ClientConfig::new(transport), PEER).ok()).flatten();
        Self {
            endpoint,
            current,
            fence: Fence::default(),
            is_client,
            begun: 0,
            is_established: false,
            is_over: false,
            readable: VecDeque::new(),
            reset: Vec::new(),
            gathered: VecDeque::new(),
            drops: 0,
        }
    }

    /// Nothing will come or go any more.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Packets and messages that were not taken, since this was asked last.
    pub fn take_drops(&mut self) -> u64 {
        std::mem::take(&mut self.drops)
    }

    /// Takes a packet: the content of one DTLS record.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        if self.is_over {
            self.drops += 1;
            return;
        }
        match self.fence.inbound(packet, !self.readable.is_empty()) {
            Verdict::Pass => {
                self.guarded(|this| this.take(now, packet));
            }
            Verdict::Drop => self.drops += 1,
            Verdict::End => {
                self.drops += 1;
                self.end(now);
            }
        }
    }

    fn take(&mut self, now: Instant, packet: &[u8]) {
        match self.endpoint.handle(now, PEER, None, Bytes::copy_from_slice(packet)) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.begun += 1;
                if self.is_established || self.begun > MAX_BEGUN {
                    self.endpoint.reject_new_associations();
                    self.drops += 1;
                    return;
                }
                self.current = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.current {
                Some((current, association)) if *current == handle => association.handle_event(event),
                _ => self.drops += 1,
            },
            _ => self.drops += 1,
        }
        self.poll_events();
    }

    fn poll_events(&mut self) {
        let Some((_, association)) = &mut self.current else { return };
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => {
                    self.is_established = true;
                    self.fence.set_established();
                }
                Event::HandshakeFailed { .. } => self.is_over = true,
                Event::AssociationLost { reason: AssociationError::Reset, id } => {
                    self.readable.retain(|readable| *readable != id);
                    self.reset.push(id);
                }
                Event::Stream(StreamEvent::Readable { id }) if !self.readable.contains(&id) => {
                    self.readable.push_back(id);
                }
                _ => {}
            }
        }
        // One that was not begun by this side is closed until it stands.
        self.is_over |= (self.is_established || self.is_client) && association.is_closed();
        if self.is_over {
            // Its buffers go with it.
            self.current = None;
            self.readable.clear();
        }
    }

    /// Ends it and lets the peer know (ABORT).
    pub fn end(&mut self, now: Instant) {
        self.guarded(|this| {
            if let Some((_, association)) = &mut this.current {
                // One that is closed has nothing to say.
                let _ = association.abort();
            }
            this.gather(now);
        });
        self.is_over = true;
        self.current = None;
        self.readable.clear();
    }

    /// The next message that has arrived.
    pub fn next_message(&mut self) -> Option<Message> {
        if !self.is_established {
            return None;
        }
        self.guarded(Self::read).flatten()
    }

    fn read(&mut self) -> Option<Message> {
        let (_, association) = self.current.as_mut()?;
        while let Some(stream) = self.readable.pop_front() {
            let read = association.stream(stream).and_then(|mut stream| stream.read_sctp());
            let Ok(Some(chunks)) = read else { continue };
            // There may be more.
            self.readable.push_back(stream);
            self.fence.delivered(chunks.chunks.len(), chunks.len());
            let kind = match chunks.ppi {
                Identifier::Dcep => Some(Kind::Control),
                Identifier::String | Identifier::StringEmpty => Some(Kind::Text),
                Identifier::Binary | Identifier::BinaryEmpty => Some(Kind::Binary),
                _ => None,
            };
            let is_empty = matches!(chunks.ppi, Identifier::StringEmpty | Identifier::BinaryEmpty);
            match (kind, chunks.to_payload(MAX_MESSAGE)) {
                (Some(kind), Ok(payload)) => {
                    let bytes = if is_empty { Bytes::new() } else { payload.freeze() };
                    return Some(Message { stream, kind, bytes });
                }
                _ => self.drops += 1,
            }
        }
        None
    }

    /// Whether messages wait to be taken.
    pub fn has_messages(&self) -> bool {
        self.is_established && !self.readable.is_empty()
    }

    /// A stream that the peer has reset: it is not there any more.
    pub fn next_reset(&mut self) -> Option<u16> {
        self.reset.pop()
    }

    /// Says how a stream of the peer's sends from now on.
    pub fn set_reliability(&mut self, stream: u16, reliability: Reliability) {
        let Reliability { unordered, max_retransmits, max_lifetime } = reliability;
        let (kind, value) = match (max_retransmits, max_lifetime) {
            (Some(retransmits), _) => (ReliabilityType::Rexmit, retransmits),
            (None, Some(lifetime)) => (ReliabilityType::Timed, lifetime),
            (None, None) => (ReliabilityType::Reliable, 0),
        };
        if let Some((_, association)) = &mut self.current
            && let Ok(mut stream) = association.stream(stream)
        {
            // It is there.
            let _ = stream.set_reliability_params(unordered, kind, value);
        }
    }

    /// Bytes of a stream that the peer has not acknowledged; 0 for one that is not there.
    pub fn buffered(&mut self, stream: u16) -> usize {
        let (_, association) = match &mut self.current {
            Some(current) => current,
            None => return 0,
        };
        association.stream(stream).and_then(|stream| stream.buffered_amount()).unwrap_or(0)
    }

    /// Queues a message. `false`: the stream does not take it, because one of both is closed.
    pub fn write(&mut self, now: Instant, stream: u16, kind: Kind, message: &Bytes) -> bool {
        const EMPTY: Bytes = Bytes::from_static(&[0]);
        let identifier = match (kind, message.is_empty()) {
            (Kind::Control, _) => Identifier::Dcep,
            (Kind::Text, false) => Identifier::String,
            (Kind::Text, true) => Identifier::StringEmpty,
            (Kind::Binary, false) => Identifier::Binary,
            (Kind::Binary, true) => Identifier::BinaryEmpty,
        };
        // SCTP has no empty messages (RFC 8831, section 6.6).
        let message = if message.is_empty() { &EMPTY } else { message };
        let written = self.guarded(|this| {
            let (_, association) = this.current.as_mut()?;
            association.stream(stream).ok()?.write_chunk_with_ppi(now, message, identifier).ok()
        });
        written.flatten().is_some()
    }

    /// Closes a stream behind what is queued on it (RFC 8831, section 6.7).
    pub fn close_stream(&mut self, now: Instant, stream: u16) {
        self.readable.retain(|readable| *readable != stream);
        self.guarded(|this| {
            if let Some((_, association)) = &mut this.current
                && let Ok(mut stream) = association.stream(stream)
            {
                // An association that is on its way down needs no reset.
                let _ = stream.close(now);
            }
        });
    }

    /// The next packet for the peer.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.gathered.is_empty() && !self.is_over {
            self.guarded(|this| this.gather(now));
        }
        self.gathered.pop_front()
    }

    fn gather(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.current else { return };
        while let Some(transmit) = association.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.message else { continue };
            for packet in packets {
                self.fence.outbound(&packet);
                self.gathered.push_back(packet);
            }
        }
        self.poll_events();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.guarded(|this| {
            if let Some((_, association)) = &mut this.current {
                association.handle_timeout(now);
            }
            this.poll_events();
        });
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let (_, association) = self.current.as_ref().filter(|_| !self.is_over)?;
        association.poll_timeout()
    }

    /// Runs `call`; a panic inside is the end of the association and of nothing else.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(|| call(self))).ok();
        if result.is_none() {
            tracing::error!("an sctp association panicked and is over");
            self.is_over = true;
            self.current = None;
            self.readable.clear();
            self.gathered.clear();
        }
        result
    }
}

#[cfg(test)]
mod tests;
