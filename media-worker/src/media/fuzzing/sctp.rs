//! Data channels: SCTP, its establishment protocol, and the messages on it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::model::ParticipantId;

use super::pieces;
use crate::media::data::{Data, Delivery, frame, read_open};
use crate::media::transport::dtls::Role;
use crate::media::transport::sctp::{Association, Kind, MAX_MESSAGE, PORT};

/// Packets per run.
const MAX_PACKETS: usize = 200;

/// A message on a channel, as text and as bytes, and as one of the establishment protocol.
pub fn data_message(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let from = ParticipantId::new();
    for (kind, is_lossy) in [(Kind::Text, false), (Kind::Binary, true), (Kind::Binary, false)] {
        let Ok(message) = frame::read(from, is_lossy, kind, &bytes) else { continue };
        assert!(message.frame.len() <= MAX_MESSAGE);
        assert!(!message.is_for(from), "its sender gets it back");
        assert!(!is_lossy || message.event.is_none());
        let header = match kind {
            Kind::Binary => {
                let length = usize::from(u16::from_be_bytes([message.frame[0], message.frame[1]]));
                &message.frame[2..2 + length]
            }
            _ => &message.frame[..],
        };
        let header: serde_json::Value = serde_json::from_slice(header).expect("a header is JSON");
        assert_eq!(header["from"], from.to_string(), "the server says who it was");
    }
    // Whatever it makes of them.
    let _ = read_open(data);
}

/// SCTP packets of an association that stands. The bytes are their chunks, each packet behind two bytes that say how
/// long it is; header and checksum are right, and numbers of chunks count from where the association is.
pub fn sctp(data: &[u8]) {
    let Some(mut peer) = Peer::new() else { return };
    for (head, chunks) in pieces(data, 0x0fff).take(MAX_PACKETS) {
        if peer.server.is_over() {
            break;
        }
        // Now and then the server has something to say.
        if head & 0x8000 != 0 {
            peer.speak(head & 0x4000 != 0);
        }
        peer.hand_in(chunks);
    }
}

/// A server that has shaken hands with a client; from then on the packets are made here.
struct Peer {
    now: Instant,
    server: Data,
    /// What the server's packets from the client carry in front.
    tag: [u8; 4],
    /// The client's next number.
    next: u32,
    /// The server's last number as far as the client has it.
    seen: u32,
}

impl Peer {
    fn new() -> Option<Self> {
        let now = Instant::now();
        let mut client = Association::new(now, Role::Client);
        let mut server = Data::new(now, Role::Server, MAX_MESSAGE);
        let (mut tag, mut next, mut seen) = ([0; 4], 0, 0);
        // INIT, INIT ACK, COOKIE ECHO, COOKIE ACK.
        for _ in 0..3 {
            while let Some(packet) = client.poll_transmit(now) {
                match packet.get(12) {
                    Some(1) => next = u32::from_be_bytes(packet.get(28..32)?.try_into().ok()?),
                    _ => tag = packet.get(4..8)?.try_into().ok()?,
                }
                server.handle_packet(now, &packet);
            }
            server.transmit(now, |packet| {
                if packet.get(12) == Some(&2) {
                    seen =
                        u32::from_be_bytes([packet[28], packet[29], packet[30], packet[31]]).wrapping_sub(1);
                }
                client.handle_packet(now, packet);
            });
        }
        (tag != [0; 4]).then_some(Self { now, server, tag, next, seen })
    }

    fn hand_in(&mut self, chunks: &[u8]) {
        let mut packet = vec![0; 12];
        packet[..2].copy_from_slice(&PORT.to_be_bytes());
        packet[2..4].copy_from_slice(&PORT.to_be_bytes());
        packet[4..8].copy_from_slice(&self.tag);
        packet.extend_from_slice(chunks);
        self.rebase(&mut packet[12..]);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.server.handle_packet(self.now, &packet);
        self.turn();
    }

    /// Makes the numbers in chunks count from where the association is.
    fn rebase(&self, mut chunks: &mut [u8]) {
        while chunks.len() >= 8 {
            let length = usize::from(u16::from_be_bytes([chunks[2], chunks[3]])).max(4).next_multiple_of(4);
            let base = match chunks[0] {
                // DATA, FORWARD TSN: the client's own numbers.
                0 | 192 => self.next,
                // SACK: the server's.
                3 => self.seen,
                _ => 0,
            };
            let number = u32::from_be_bytes([chunks[4], chunks[5], chunks[6], chunks[7]]);
            chunks[4..8].copy_from_slice(&number.wrapping_add(base).to_be_bytes());
            let at = length.min(chunks.len());
            chunks = &mut chunks[at..];
        }
    }

    /// What a media thread does after a packet.
    fn turn(&mut self) {
        let mut messages = Vec::new();
        self.server.take_messages(self.now, ParticipantId::new(), |message| messages.push(message));
        assert!(messages.iter().all(|message| message.frame.len() <= MAX_MESSAGE));
        self.server.transmit(self.now, |_| {});
        self.now += Duration::from_millis(20);
        self.server.handle_timeout(self.now);
    }

    fn speak(&mut self, is_lossy: bool) {
        let text = Bytes::from_static(b"{\"data\":1}");
        let message = frame::read(ParticipantId::new(), is_lossy, Kind::Text, &text);
        let message = message.expect("it is well formed").into();
        let delivery = self.server.send(self.now, &message);
        assert!(delivery == Delivery::NoChannel || !self.server.is_over());
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}
