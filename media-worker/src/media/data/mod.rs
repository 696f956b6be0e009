//! The data channels of one endpoint, without I/O and clock: messages from its client, and to it.
//!
//! ```text
//!   association ──▶ channel by its label ──▶ [`bucket`]: in time? ──▶ [`frame`] ──▶ Message ──▶ hub ──▶ everyone it is for
//!   association ◀── what waits for the receiver, bounded ◀─────────────────────────────────────────┘
//! ```
//!
//! The client opens one channel with the label `reliable` and one with the label `lossy` (RFC 8832); which of the two a
//! message came by says by which it goes out. Who sends faster than the bucket allows is not read: SCTP's window then
//! stops the sender. Who receives more slowly than the others send loses lossy messages, and its reliable channel is
//! closed behind what was queued: what arrives on one reliable channel is without gaps.

mod bucket;
mod counters;
pub mod frame;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::message::EventBody;
use common::model::ParticipantId;
use rtc::datachannel::data_channel::DataChannel;
use rtc::datachannel::message::Message as Control;
use rtc::datachannel::message::message_channel_ack::DataChannelAck;
use rtc::datachannel::message::message_channel_open::DataChannelOpen;
use rtc::sctp::ReliabilityType;
use rtc::shared::marshal::{Marshal, Unmarshal};

use bucket::Bucket;
pub use counters::DataStats;
use frame::Refused;

use super::transport::dtls::Role;
use super::transport::sctp::{self, Association, Kind, Reliability};

/// The labels of the channels.
pub const LABELS: [&str; 2] = ["reliable", "lossy"];
/// What a channel may name as its protocol, besides nothing.
pub const PROTOCOL: &str = "switchyard.v1";
/// What may wait for a receiver, in bytes: reliable, lossy. One message always may.
const MAX_BUFFERED: [usize; 2] = [512 * 1024, 64 * 1024];
/// What a message costs its sender: 100 a second …
const MESSAGE_COST: Duration = Duration::from_millis(10);
/// … for each byte, so 1 MB a second …
const BYTE_COST: Duration = Duration::from_micros(1);
/// … and 10 a second that become events.
const EVENT_COST: Duration = Duration::from_millis(100);
/// Packets that leave in one turn.
const BURST: usize = 16;
/// Messages that are taken in one turn.
const MAX_TAKEN: usize = 32;
/// Messages that are handed to the association in one turn, while it has less than this to send. Bytes.
const MAX_HANDED: usize = 8;
const LOW_MARK: usize = 64 * 1024;

const RELIABLE: usize = 0;
const LOSSY: usize = 1;

/// A message on its way; made once for all who get it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub from: ParticipantId,
    /// `None`: everyone else.
    pub to: Option<Vec<ParticipantId>>,
    pub is_lossy: bool,
    pub kind: Kind,
    /// As receivers get it.
    pub frame: Bytes,
    /// For those without a channel, if its sender wants that.
    pub event: Option<EventBody>,
    /// It was to be an event, and is too large for one.
    pub is_event_refused: bool,
}

impl Message {
    pub fn is_for(&self, participant: ParticipantId) -> bool {
        participant != self.from && self.to.as_ref().is_none_or(|to| to.contains(&participant))
    }
}

/// What became of a message at one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Queued,
    /// The channel is not open.
    NoChannel,
    /// Counted.
    Dropped,
}

/// A channel that the client has opened.
struct Channel {
    stream: u16,
    /// Not handed to the association yet: that costs time, which each receiver has in its own turn.
    waiting: VecDeque<Arc<Message>>,
    waiting_bytes: usize,
    /// Nothing more is taken; it is closed behind what waits.
    is_closing: bool,
}

impl Channel {
    fn new(stream: u16) -> Self {
        Self { stream, waiting: VecDeque::new(), waiting_bytes: 0, is_closing: false }
    }
}

/// See the module.
pub struct Data {
    association: Association,
    channels: [Option<Channel>; 2],
    bucket: Bucket,
    /// The longest message that the client takes, in bytes.
    max_message: usize,
    /// The association has ended, or its m-line has. Another one may begin.
    is_over: bool,
    /// Something waits to be sent.
    is_dirty: bool,
    stats: DataStats,
}

impl Data {
    pub fn new(now: Instant, role: Role, max_message: usize) -> Self {
        Self {
            association: Association::new(now, role),
            channels: [None, None],
            bucket: Bucket::new(now),
            max_message,
            is_over: false,
            is_dirty: true,
            stats: DataStats::default(),
        }
    }

    /// Nothing more will come of it.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    pub fn set_max_message(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    pub fn stats(&self) -> DataStats {
        let open =
            [RELIABLE, LOSSY].map(|channel| u64::from(self.channels[channel].as_ref().is_some_and(is_open)));
        DataStats { open, ..self.stats }
    }

    /// Takes the content of a DTLS record.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.association.handle_packet(now, packet);
        self.is_dirty = true;
        self.look();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.is_dirty = true;
        self.look();
    }

    /// The client has given the m-line up.
    pub fn reject(&mut self, now: Instant) {
        self.is_over = true;
        if !self.association.is_over() {
            self.association.end(now);
        }
        self.channels = [None, None];
        self.is_dirty = true;
    }

    /// Takes note of what the association noticed.
    fn look(&mut self) {
        self.stats.dropped_packets += self.association.take_drops();
        while let Some(stream) = self.association.next_reset() {
            for channel in &mut self.channels {
                channel.take_if(|channel| channel.stream == stream);
            }
        }
        if self.association.is_over() && !std::mem::replace(&mut self.is_over, true) {
            self.stats.ended += 1;
            self.channels = [None, None];
        }
    }

    /// Messages of this client, as many as may be taken now.
    pub fn take_messages(&mut self, now: Instant, from: ParticipantId, mut each: impl FnMut(Message)) {
        for _ in 0..MAX_TAKEN {
            if !self.bucket.is_ready(now) {
                break;
            }
            let Some(message) = self.association.next_message() else { break };
            let length = message.bytes.len();
            let cost = BYTE_COST * u32::try_from(length).unwrap_or(u32::MAX);
            self.bucket.take(now, MESSAGE_COST + cost);
            if message.kind == Kind::Control {
                self.handle_control(now, message.stream, &message.bytes);
                continue;
            }
            let of = |channel: &Option<Channel>| channel.as_ref().map(|channel| channel.stream);
            let Some(channel) = self.channels.iter().position(|it| of(it) == Some(message.stream)) else {
                self.stats.dropped_malformed += 1;
                continue;
            };
            match frame::read(from, channel == LOSSY, message.kind, &message.bytes) {
                Ok(message) => {
                    self.stats.messages_in[channel] += 1;
                    self.stats.bytes_in[channel] += length as u64;
                    self.stats.dropped_too_large += u64::from(message.is_event_refused);
                    if message.event.is_some() {
                        self.bucket.take(now, EVENT_COST);
                    }
                    each(message);
                }
                Err(Refused::Malformed) => self.stats.dropped_malformed += 1,
                Err(Refused::TooLarge) => self.stats.dropped_too_large += 1,
            }
        }
        self.look();
    }

    /// RFC 8832, sections 5.1 and 5.2.
    fn handle_control(&mut self, now: Instant, stream: u16, bytes: &[u8]) {
        let Some(open) = read_open(bytes) else {
            self.stats.dropped_malformed += 1;
            return;
        };
        let known = LABELS.iter().position(|label| label.as_bytes() == open.label);
        let channel = known.filter(|_| open.protocol.is_empty() || open.protocol == PROTOCOL.as_bytes());
        let Some(channel) = channel else {
            self.stats.dropped_malformed += 1;
            self.association.close_stream(now, stream);
            return;
        };
        self.association.set_reliability(stream, reliability(&open));
        let acknowledgement = Control::DataChannelAck(DataChannelAck {}).marshal().map(BytesMut::freeze);
        if !acknowledgement.is_ok_and(|bytes| self.association.write(now, stream, Kind::Control, &bytes)) {
            return;
        }
        if self.channels[channel].as_ref().is_none_or(|before| before.stream != stream)
            && let Some(before) = self.channels[channel].replace(Channel::new(stream))
        {
            self.association.close_stream(now, before.stream);
        }
        // One stream is one channel.
        self.channels[1 - channel].take_if(|other| other.stream == stream);
    }

    /// Queues a message for this client.
    pub fn send(&mut self, now: Instant, message: &Arc<Message>) -> Delivery {
        let number = if message.is_lossy { LOSSY } else { RELIABLE };
        let Some(channel) = self.channels[number].as_mut().filter(|channel| is_open(channel)) else {
            return Delivery::NoChannel;
        };
        let length = message.frame.len();
        if length > self.max_message {
            self.stats.dropped_too_large += 1;
            return Delivery::Dropped;
        }
        let buffered = channel.waiting_bytes + self.association.buffered(channel.stream);
        if buffered > 0 && buffered + length > MAX_BUFFERED[number] {
            if number == LOSSY {
                self.stats.dropped_slow += 1;
            } else {
                self.close_reliable(now);
            }
            return Delivery::Dropped;
        }
        channel.waiting.push_back(Arc::clone(message));
        channel.waiting_bytes += length;
        self.is_dirty = true;
        Delivery::Queued
    }

    /// Closes the reliable channel behind what waits: its client misses something from here on, and knows it.
    pub fn close_reliable(&mut self, now: Instant) {
        let Some(channel) = self.channels[RELIABLE].as_mut().filter(|channel| is_open(channel)) else {
            return;
        };
        channel.is_closing = true;
        self.stats.closed_slow += 1;
        self.hand_over(now);
    }

    /// Hands messages that wait to the association, a few for each turn. Returns whether some are left that it has
    /// room for.
    fn hand_over(&mut self, now: Instant) -> bool {
        self.is_dirty = true;
        let mut handed = 0;
        for number in [RELIABLE, LOSSY] {
            let Some(channel) = &mut self.channels[number] else { continue };
            while let Some(message) = channel.waiting.front()
                && self.association.buffered(channel.stream) < LOW_MARK
            {
                if handed == MAX_HANDED {
                    return true;
                }
                handed += 1;
                let length = message.frame.len();
                // A stream that takes nothing is about to be noticed as gone.
                if self.association.write(now, channel.stream, message.kind, &message.frame) {
                    self.stats.messages_out[number] += 1;
                    self.stats.bytes_out[number] += length as u64;
                }
                channel.waiting.pop_front();
                channel.waiting_bytes -= length;
            }
            if channel.is_closing && channel.waiting.is_empty() {
                let stream = channel.stream;
                self.channels[number] = None;
                self.association.close_stream(now, stream);
            }
        }
        false
    }

    /// Gives packets for the client, some for each turn; the rest is due at once.
    pub fn transmit(&mut self, now: Instant, mut each: impl FnMut(&[u8])) {
        let is_left = self.hand_over(now);
        for _ in 0..BURST {
            let Some(packet) = self.association.poll_transmit(now) else {
                self.is_dirty = is_left;
                break;
            };
            each(&packet);
        }
        self.look();
    }

    /// When there is something to do.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.is_dirty {
            return Some(now);
        }
        let taken = self.association.has_messages().then(|| self.bucket.ready_at());
        self.association.poll_timeout().into_iter().chain(taken).min()
    }
}

fn is_open(channel: &Channel) -> bool {
    !channel.is_closing
}

/// Reads what opens a channel. Its lengths are looked at first: the reader of these messages panics over some that are cut off.
///
/// `None` for anything else. This side opens no channel, so there is nothing that could be acknowledged to it.
pub fn read_open(mut bytes: &[u8]) -> Option<DataChannelOpen> {
    const OPEN: u8 = 3;
    const HEADER: usize = 12;
    let header = bytes.first_chunk::<HEADER>().filter(|header| header[0] == OPEN)?;
    let length = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    if bytes.len() < HEADER + length(8) + length(10) {
        return None;
    }
    match Control::unmarshal(&mut bytes) {
        Ok(Control::DataChannelOpen(open)) => Some(open),
        _ => None,
    }
}

fn reliability(open: &DataChannelOpen) -> Reliability {
    let (unordered, kind) = DataChannel::get_reliability_params(open.channel_type);
    let value = open.reliability_parameter;
    Reliability {
        unordered,
        max_retransmits: (kind == ReliabilityType::Rexmit).then_some(value),
        max_lifetime: (kind == ReliabilityType::Timed).then_some(value),
    }
}

/// What a client's `a=max-message-size` comes to; absent 64 KiB, 0 no limit (RFC 8841, section 6).
pub fn max_message(announced: Option<u64>) -> usize {
    match announced {
        Some(0) | None => sctp::MAX_MESSAGE,
        Some(announced) => usize::try_from(announced).unwrap_or(usize::MAX).min(sctp::MAX_MESSAGE),
    }
}

#[cfg(test)]
mod tests;
