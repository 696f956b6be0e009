//! What media threads ("shards") tell each other: packets of rooms that span them, and datagrams that
//! arrived at another shard's socket.
//!
//! ```text
//!   shard 0 ── told (tables: bounded by what there is) ──▶ shard 1
//!           ── media (bounded; full: a counted drop)   ──▶
//!           ── strangers (bounded, small)              ──▶
//!           ── messages of data channels (bounded)     ──▶
//!           ◀── emptied buffers ──────────────────────────
//! ```
//!
//! A packet crosses once for each shard with subscribers, however many those are. Buffers travel back to where
//! they came from, so a steady flow allocates nothing. Nobody waits for anybody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use common::model::PipelineId;
use mio::Waker;
use sfu::{EncodingId, Packet, PublicationId, Sequence, Timestamp};

use super::data::Message;
use super::endpoint::SourceTrack;
use super::transport::Path;

/// Packets and datagrams that wait for one shard.
const MEDIA: usize = 4096;
/// First checks from strangers that wait for one shard: a flood of them must not fill the way of the others.
const STRANGERS: usize = 64;
/// Messages of data channels that wait for one shard, up to 64 KiB each.
const MESSAGES: usize = 256;

/// A published track, as other shards name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    pub pipeline: PipelineId,
    pub shard: usize,
    pub publication: PublicationId,
}

/// Changes of the tables that shards keep of each other. None may be lost; there are only as many as there
/// are endpoints, tracks and paths that change.
#[derive(Debug, Clone)]
pub enum Told {
    /// `shard` hosts members of the pipeline now. `asks`: who does too is to answer with its own tracks.
    Hosts {
        pipeline: PipelineId,
        shard: usize,
        asks: bool,
    },
    /// All tracks that `shard` publishes in the pipeline.
    Sources {
        pipeline: PipelineId,
        shard: usize,
        tracks: Vec<SourceTrack>,
    },
    /// `shard` hosts no member of the pipeline any more.
    Left {
        pipeline: PipelineId,
        shard: usize,
    },
    Muted {
        origin: Origin,
        muted: bool,
    },
    /// How many encodings of a track the subscribers of `shard` can use.
    Demand {
        origin: Origin,
        shard: usize,
        encodings: u8,
    },
    /// A reliable message for the pipeline's members did not fit.
    Missed {
        pipeline: PipelineId,
    },
    /// Datagrams on this path are for `shard`.
    Bound {
        path: Path,
        shard: usize,
    },
    Forgotten {
        path: Path,
        shard: usize,
    },
}

/// What flows. Losing one is like losing a packet on the network.
#[derive(Debug)]
pub enum Media {
    Packet { origin: Origin, packet: Carried },
    Report { origin: Origin, encoding: EncodingId, ntp: u64, rtp: u32 },
    RequestKeyframe { origin: Origin, encoding: EncodingId },
    Datagram { from: usize, path: Path, bytes: Vec<u8> },
}

/// A packet with its own bytes: the extension block and the payload behind it.
#[derive(Debug)]
pub struct Carried {
    encoding: EncodingId,
    ssrc: u32,
    sequence: Sequence,
    timestamp: Timestamp,
    marker: bool,
    extension_profile: u16,
    extensions: usize,
    pub bytes: Vec<u8>,
}

impl Carried {
    /// Copies a packet into a buffer.
    pub fn new(packet: &Packet<'_>, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.extend_from_slice(packet.extensions);
        bytes.extend_from_slice(packet.payload);
        Self {
            encoding: packet.encoding,
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            extension_profile: packet.extension_profile,
            extensions: packet.extensions.len(),
            bytes,
        }
    }

    pub fn packet(&self) -> Packet<'_> {
        let (extensions, payload) = self.bytes.split_at(self.extensions);
        Packet {
            encoding: self.encoding,
            ssrc: self.ssrc,
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: self.marker,
            extension_profile: self.extension_profile,
            extensions,
            payload,
        }
    }
}

/// The ways to one other shard.
struct Peer {
    told: Sender<Told>,
    media: SyncSender<Media>,
    strangers: SyncSender<Media>,
    messages: SyncSender<Said>,
    emptied: SyncSender<Vec<u8>>,
    waker: Arc<Waker>,
    /// Something was sent since it was woken.
    is_waiting: bool,
}

/// One shard's end of all ways.
pub struct Exchange {
    shard: usize,
    /// By shard; `None` for itself.
    peers: Vec<Option<Peer>>,
    told: Receiver<Told>,
    media: Receiver<Media>,
    strangers: Receiver<Media>,
    messages: Receiver<Said>,
    emptied: Receiver<Vec<u8>>,
    drops: u64,
}

impl Exchange {
    /// Connects as many shards as there are wakers, each with all others.
    pub fn connect(wakers: &[Arc<Waker>]) -> Vec<Self> {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        for _ in wakers {
            let ((told, for_told), (media, for_media)) = (channel(), sync_channel(MEDIA));
            let ((strangers, for_strangers), (emptied, for_emptied)) =
                (sync_channel(STRANGERS), sync_channel(MEDIA));
            let (messages, for_messages) = sync_channel(MESSAGES);
            senders.push((told, media, strangers, messages, emptied));
            receivers.push((for_told, for_media, for_strangers, for_messages, for_emptied));
        }
        let ends = receivers.into_iter().enumerate().map(|(shard, ends)| {
            let (told, media, strangers, messages, emptied) = ends;
            let peer = |(other, (told, media, strangers, messages, emptied)): (usize, &Ways)| {
                (other != shard).then(|| Peer {
                    told: told.clone(),
                    media: media.clone(),
                    strangers: strangers.clone(),
                    messages: messages.clone(),
                    emptied: emptied.clone(),
                    waker: Arc::clone(&wakers[other]),
                    is_waiting: false,
                })
            };
            let peers = senders.iter().enumerate().map(peer).collect();
            Self { shard, peers, told, media, strangers, messages, emptied, drops: 0 }
        });
        ends.collect()
    }

    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Whether there is such a shard besides this one.
    pub fn knows(&self, shard: usize) -> bool {
        self.peers.get(shard).is_some_and(Option::is_some)
    }

    /// What did not get through because a way was full.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    fn peer(&mut self, shard: usize) -> Option<&mut Peer> {
        self.peers.get_mut(shard)?.as_mut()
    }

    pub fn tell(&mut self, shard: usize, told: Told) {
        if let Some(peer) = self.peer(shard) {
            peer.is_waiting = true;
            // A shard that has ended needs to know nothing.
            let _ = peer.told.send(told);
        }
    }

    pub fn tell_all(&mut self, told: &Told) {
        for shard in 0..self.peers.len() {
            if shard != self.shard {
                self.tell(shard, told.clone());
            }
        }
    }

    pub fn send(&mut self, shard: usize, media: Media) {
        if let Some(peer) = self.peer(shard) {
            peer.is_waiting = true;
            if peer.media.try_send(media).is_err() {
                self.drops += 1;
            }
        }
    }

    /// Hands a datagram over to the shard that it is for. `is_known`: its path belongs to that shard.
    pub fn hand_over(&mut self, shard: usize, path: Path, datagram: &[u8], is_known: bool) {
        let mut bytes = self.buffer();
        bytes.clear();
        bytes.extend_from_slice(datagram);
        let media = Media::Datagram { from: self.shard, path, bytes };
        if is_known {
            self.send(shard, media);
        } else if let Some(peer) = self.peer(shard) {
            peer.is_waiting = true;
            if peer.strangers.try_send(media).is_err() {
                self.drops += 1;
            }
        }
    }

    /// Passes a message on. `false`: it does not fit.
    pub fn pass(&mut self, shard: usize, pipeline: PipelineId, message: Arc<Message>) -> bool {
        let Some(peer) = self.peer(shard) else { return true };
        peer.is_waiting = true;
        peer.messages.try_send((pipeline, message)).is_ok()
    }

    /// A buffer to send something in.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.emptied.try_recv().unwrap_or_default()
    }

    /// Returns a buffer to the shard that it came from.
    pub fn give_back(&mut self, shard: usize, buffer: Vec<u8>) {
        if let Some(peer) = self.peer(shard) {
            // When there are enough already, it is freed.
            let _ = peer.emptied.try_send(buffer);
        }
    }

    /// Wakes every shard that something was sent to.
    pub fn wake(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            if std::mem::take(&mut peer.is_waiting) {
                // A thread that cannot be woken has ended.
                let _ = peer.waker.wake();
            }
        }
    }

    pub fn next_told(&self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    pub fn next_media(&self) -> Option<Media> {
        self.media.try_recv().ok()
    }

    pub fn next_stranger(&self) -> Option<Media> {
        self.strangers.try_recv().ok()
    }

    pub fn next_message(&self) -> Option<Said> {
        self.messages.try_recv().ok()
    }
}

/// What was said, and in which pipeline.
pub type Said = (PipelineId, Arc<Message>);

type Ways = (Sender<Told>, SyncSender<Media>, SyncSender<Media>, SyncSender<Said>, SyncSender<Vec<u8>>);

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;
    use crate::media::transport::Local;

    fn pair() -> (Exchange, Exchange, Poll) {
        let poll = Poll::new().unwrap();
        let other = Poll::new().unwrap();
        let wakers = [
            Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()),
            Arc::new(Waker::new(other.registry(), Token(0)).unwrap()),
        ];
        let mut ends = Exchange::connect(&wakers).into_iter();
        (ends.next().unwrap(), ends.next().unwrap(), poll)
    }

    fn path() -> Path {
        Path { remote: ([127, 0, 0, 1], 9).into(), local: Local::Unknown }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_strangers_do_not_displace_known_peers() {
        let (mut first, second, _poll) = pair();
        for _ in 0..2 * STRANGERS {
            first.hand_over(1, path(), b"check", false);
        }
        assert_eq!(first.drops(), STRANGERS as u64);
        first.hand_over(1, path(), b"media", true);
        assert!(matches!(second.next_media(), Some(Media::Datagram { bytes, .. }) if bytes == b"media"));
        assert_eq!(std::iter::from_fn(|| second.next_stranger()).count(), STRANGERS);
        for _ in 0..MEDIA + 5 {
            first.hand_over(1, path(), b"media", true);
        }
        assert_eq!(first.drops(), STRANGERS as u64 + 5);
    }

    #[test]
    fn a_packet_arrives_as_it_was_and_its_buffer_comes_back() {
        let (mut first, mut second, _poll) = pair();
        let payload = [7; 100];
        let mut packet = Packet::new(1, 2, 3, &payload);
        (packet.extension_profile, packet.extensions, packet.marker) = (0xbede, &[0x10, 1, 0, 0], true);
        packet.encoding = EncodingId(2);
        let origin = Origin {
            pipeline: PipelineId::new(),
            shard: 0,
            publication: sfu::Session::new().publish(sfu::Codec::Opus),
        };
        let carried = Carried::new(&packet, first.buffer());
        first.send(1, Media::Packet { origin, packet: carried });
        let Some(Media::Packet { origin: from, packet: carried }) = second.next_media() else {
            panic!("the packet crosses");
        };
        assert_eq!((from, carried.packet()), (origin, packet));
        second.give_back(0, carried.bytes);
        assert!(first.buffer().capacity() >= 104, "used again");
        assert_eq!(first.buffer().capacity(), 0, "there was only one");
    }

    #[test]
    fn messages_have_a_bound_of_their_own_and_whoever_sends_learns_of_it() {
        let (mut first, second, _poll) = pair();
        let message = Arc::new(Message {
            from: common::model::ParticipantId::new(),
            to: None,
            is_lossy: false,
            kind: crate::media::transport::sctp::Kind::Text,
            frame: bytes::Bytes::from_static(b"{}"),
            event: None,
            is_event_refused: false,
        });
        let pipeline = PipelineId::new();
        for _ in 0..MESSAGES {
            assert!(first.pass(1, pipeline, Arc::clone(&message)));
        }
        assert!(!first.pass(1, pipeline, Arc::clone(&message)));
        first.hand_over(1, path(), b"media", true);
        assert!(second.next_media().is_some(), "packets have their own way");
        assert_eq!(second.next_message(), Some((pipeline, Arc::clone(&message))));
        assert!(first.pass(1, pipeline, message));
        assert_eq!(first.drops(), 0, "the sender counts them");
    }

    #[test]
    fn the_tables_of_all_others_are_told() {
        let (mut first, second, _poll) = pair();
        first.tell_all(&Told::Bound { path: path(), shard: 0 });
        assert!(matches!(second.next_told(), Some(Told::Bound { shard: 0, .. })));
        assert!(first.next_told().is_none() && second.next_told().is_none());
    }
}
