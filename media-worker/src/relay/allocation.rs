//! One allocation: a relayed socket, what its client may send through it, and the task that carries what comes back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::counters::{Counters, Dropped};
use super::message::{BACK, FRONT, put_channel_data, put_data_indication};
use super::peers::Way;
use super::quota::Place;

/// How long a permission and a channel last without being renewed (RFC 8656, sections 9 and 12).
const PERMISSION: Duration = Duration::from_secs(5 * 60);
const CHANNEL: Duration = Duration::from_secs(10 * 60);
/// The longest payload. The media port sends no datagram that is longer than an Ethernet frame carries.
pub const MAX_PAYLOAD: usize = 2048;
/// Ports of a range that are tried before there counts as none.
const MAX_TRIES: u32 = 64;
/// After an error of the relayed socket, so that one that lasts costs nothing.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The way back to a client.
#[derive(Clone)]
pub enum Back {
    Datagrams(Arc<UdpSocket>, SocketAddr),
    /// Bounded: what does not fit is dropped, as a network would.
    Stream(mpsc::Sender<Vec<u8>>),
}

impl Back {
    /// Sends without waiting; says whether it could.
    pub fn send(&self, bytes: &[u8]) -> bool {
        match self {
            // Straight to the system: Tokio would first have to hear from it that there is room.
            Self::Datagrams(socket, to) => SockRef::from(&**socket).send_to(bytes, &(*to).into()).is_ok(),
            Self::Stream(queue) => match queue.try_reserve() {
                Ok(place) => {
                    place.send(bytes.to_vec());
                    true
                }
                Err(_) => false,
            },
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// What a client has asked for.
#[derive(Default)]
struct Paths {
    /// Bounded by the addresses that the media port is announced with.
    permissions: Vec<(IpAddr, Instant)>,
    /// One for each of these at most.
    channels: Vec<(u16, SocketAddr, Instant)>,
    /// What the client has sent to last. All announced addresses lead to one port, so what comes from there is an answer
    /// to that.
    last: Option<SocketAddr>,
}

impl Paths {
    fn permit(&mut self, ip: IpAddr, now: Instant) {
        let until = now + PERMISSION;
        match self.permissions.iter_mut().find(|(permitted, _)| *permitted == ip) {
            Some(known) => known.1 = until,
            None => self.permissions.push((ip, until)),
        }
    }

    fn is_permitted(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.iter().any(|(permitted, until)| *permitted == ip && now < *until)
    }

    /// What is received is from there, by that channel if there is one.
    fn back(&self, now: Instant) -> Option<(SocketAddr, Option<u16>)> {
        let peer = self.last?;
        let bound = self.channels.iter().find(|(_, bound, until)| *bound == peer && now < *until);
        self.is_permitted(peer.ip(), now).then_some((peer, bound.map(|(channel, ..)| *channel)))
    }
}

pub struct Allocation {
    socket: Arc<UdpSocket>,
    relayed: SocketAddr,
    way: Arc<Way>,
    paths: Arc<Mutex<Paths>>,
    counters: Arc<Counters>,
    reader: JoinHandle<()>,
    /// Whose it is: see [`super::access::User::who`].
    pub who: String,
    /// Of the request that made it, which may come again.
    pub transaction: [u8; 12],
    pub expires: Instant,
    _place: Place,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Who an allocation is for.
pub struct Holder {
    pub who: String,
    pub transaction: [u8; 12],
    pub expires: Instant,
    pub place: Place,
    pub back: Back,
}

impl Allocation {
    /// Opens a relayed socket on one of `ports`, or on any, and begins to carry back what comes from the media port.
    ///
    /// # Errors
    /// No port is free, or what the system answered.
    pub fn open(
        way: &Arc<Way>,
        ports: Option<&RangeInclusive<u16>>,
        holder: Holder,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let socket = bind(way.media.ip(), ports)?;
        socket.set_nonblocking(true)?;
        socket.connect(way.media)?;
        let relayed = socket.local_addr()?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let paths = Arc::new(Mutex::new(Paths::default()));
        let Holder { who, transaction, expires, place, back } = holder;
        let reader = tokio::spawn(carry_back(socket.clone(), paths.clone(), back, counters.clone()));
        let (way, counters) = (way.clone(), counters.clone());
        counters.allocated();
        let _place = place;
        Ok(Self { socket, relayed, way, paths, counters, reader, who, transaction, expires, _place })
    }

    pub fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    pub fn way(&self) -> &Way {
        &self.way
    }

    fn paths(&self) -> MutexGuard<'_, Paths> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the client exchange data with an address, which must be a peer's.
    pub fn permit(&self, ip: IpAddr, now: Instant) {
        debug_assert!(self.way.has_peer_at(ip), "the caller has looked");
        self.paths().permit(ip, now);
    }

    /// Binds a channel to a peer, or does so again; says whether that can be (RFC 8656, section 12.2).
    pub fn bind_channel(&self, channel: u16, peer: SocketAddr, now: Instant) -> bool {
        debug_assert!(self.way.is_peer(peer), "the caller has looked");
        let mut paths = self.paths();
        paths.channels.retain(|(.., until)| now < *until);
        if paths.channels.iter().any(|(other, bound, _)| (*other == channel) != (*bound == peer)) {
            return false;
        }
        paths.channels.retain(|(other, ..)| *other != channel);
        paths.channels.push((channel, peer, now + CHANNEL));
        paths.permit(peer.ip(), now);
        true
    }

    /// Sends a payload to a peer, if the client may. Everything else is dropped and counted.
    pub fn send(&self, peer: SocketAddr, payload: &[u8], now: Instant) {
        let may = self.way.is_peer(peer) && {
            let mut paths = self.paths();
            let may = paths.is_permitted(peer.ip(), now);
            if may {
                paths.last = Some(peer);
            }
            may
        };
        self.put(may, payload);
    }

    /// The same to the peer that a channel is bound to.
    pub fn send_by_channel(&self, channel: u16, payload: &[u8], now: Instant) {
        let may = {
            let mut paths = self.paths();
            let bound = paths.channels.iter().find(|(bound, _, until)| *bound == channel && now < *until);
            let peer = bound.map(|(_, peer, _)| *peer).filter(|peer| paths.is_permitted(peer.ip(), now));
            paths.last = peer.or(paths.last);
            peer.is_some()
        };
        self.put(may, payload);
    }

    fn put(&self, may: bool, payload: &[u8]) {
        if !may {
            self.counters.dropped(Dropped::Peer);
        } else if payload.len() <= MAX_PAYLOAD && SockRef::from(&*self.socket).send(payload).is_ok() {
            self.counters.relayed_in(payload.len());
        } else {
            self.counters.dropped(Dropped::Slow);
        }
    }
}

/// A socket on one of these ports.
fn bind(ip: IpAddr, ports: Option<&RangeInclusive<u16>>) -> io::Result<std::net::UdpSocket> {
    let Some(ports) = ports else { return std::net::UdpSocket::bind((ip, 0)) };
    let count = u32::from(ports.end().saturating_sub(*ports.start())) + 1;
    // Ports that cannot be guessed keep others from sending to them what looks like an answer (RFC 6056).
    let first = rand::random_range(0..count);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..count.min(MAX_TRIES) {
        let port = ports.start() + ((first + step) % count) as u16;
        match std::net::UdpSocket::bind((ip, port)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Carries what comes from the media port to the client, until it is aborted.
async fn carry_back(socket: Arc<UdpSocket>, paths: Arc<Mutex<Paths>>, back: Back, counters: Arc<Counters>) {
    let mut buffer = vec![0; FRONT + MAX_PAYLOAD + BACK];
    loop {
        let length = match socket.recv(&mut buffer[FRONT..FRONT + MAX_PAYLOAD]).await {
            Ok(length) => length,
            // The media port is gone, or goes.
            Err(_) => {
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let path = paths.lock().unwrap_or_else(PoisonError::into_inner).back(Instant::now());
        let range = match path {
            Some((_, Some(channel))) => put_channel_data(&mut buffer, length, channel, back.is_stream()),
            Some((peer, None)) => put_data_indication(&mut buffer, length, peer, rand::random()),
            None => {
                counters.dropped(Dropped::Peer);
                continue;
            }
        };
        if back.send(&buffer[range]) {
            counters.relayed_out(length);
        } else {
            counters.dropped(Dropped::Slow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_from_whom_was_sent_to_last_while_that_is_permitted() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        let peer: SocketAddr = "203.0.113.7:40000".parse().unwrap();
        assert_eq!(paths.back(now), None);
        paths.last = Some(peer);
        assert_eq!(paths.back(now), None);
        paths.permit(peer.ip(), now);
        assert_eq!(paths.back(now), Some((peer, None)));
        paths.channels.push((0x4000, peer, now + CHANNEL));
        assert_eq!(paths.back(now), Some((peer, Some(0x4000))));
        assert_eq!(paths.back(now + PERMISSION), None, "not renewed");
        paths.permit(peer.ip(), now + PERMISSION);
        assert_eq!(paths.permissions.len(), 1);
        assert_eq!(paths.back(now + PERMISSION), Some((peer, Some(0x4000))));
    }

    #[test]
    fn ports_are_of_the_range_and_its_end_is_an_error() {
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        let any = bind(ip, None).unwrap();
        let taken = any.local_addr().unwrap().port();
        assert!(bind(ip, Some(&(taken..=taken))).is_err());
        let range = taken - 30..=taken;
        let socket = bind(ip, Some(&range)).unwrap();
        assert!(range.contains(&socket.local_addr().unwrap().port()));
    }
}
