//! ICE over TCP (RFC 6544) for clients whose network lets no UDP through: one port, connected to by clients only.
//!
//! ```text
//!   clients ─▶ listener ─▶ media-tcp: connections, frames ──Arrival (bounded)──▶ the shard that the first check names
//!                              ▲                                                     │
//!                              └── Departure (bounded), Told ◀── egress of any shard ┘
//! ```
//!
//! One thread owns all connections. A connection is a path like any other, under an id of its own
//! ([`Local::Connection`](super::transport::Local)); what frames it carries (RFC 4571) are datagrams, and nothing behind this
//! module knows the difference. A client of UDP costs nothing here.
//!
//! What a connection does not take is lost, as on a network: a reader that is slower than what it is sent loses datagrams
//! and holds nobody up. Until an endpoint has taken one of its checks as authentic a connection is a stranger's: it may send
//! checks only, for a short while.

mod connection;
mod framing;
mod table;
mod thread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

use mio::Waker;

use super::transport::{ConnectionId, Path};

pub use thread::{Listener, start};

/// Datagrams that wait for one shard.
const ARRIVALS: usize = 4096;
/// Runs of datagrams that wait for the thread, of each shard.
const DEPARTURES: usize = 4096;

/// Where the TCP port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TcpPort {
    /// Nowhere: UDP only.
    Off,
    /// Of the same number as the media port.
    #[default]
    Same,
    Port(u16),
}

/// One datagram that came over a connection.
pub struct Arrival {
    pub path: Path,
    pub bytes: Vec<u8>,
}

/// Datagrams to one connection, framed.
struct Departure {
    connection: ConnectionId,
    bytes: Vec<u8>,
    count: usize,
}

/// What shards decide about connections. None may be lost; there are as many as there are paths that change.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// An endpoint has taken it as its own.
    Bound(ConnectionId),
    /// Nobody needs it any more.
    Forgotten(ConnectionId),
}

/// What is counted here.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open.
    open: AtomicU64,
    /// Connections that were refused or closed because of a limit, a deadline or what they sent.
    refused: AtomicU64,
    /// Datagrams that found no room.
    drops: AtomicU64,
}

impl Counters {
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn note_drops(&self, count: usize) {
        self.drops.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// One shard's way to the connections.
pub struct Outlet {
    departures: SyncSender<Departure>,
    told: Sender<Told>,
    waker: Arc<Waker>,
    counters: Arc<Counters>,
    /// Something was handed over since the thread was woken.
    is_waiting: bool,
}

impl Outlet {
    /// Hands over a run of datagrams of `segment` bytes each, of which the last one may be shorter. Returns whether there
    /// was room.
    pub fn send(&mut self, connection: ConnectionId, run: &[u8], segment: usize) -> bool {
        let mut bytes = Vec::with_capacity(run.len() + 2 * run.len().div_ceil(segment.max(1)));
        let mut count = 0;
        for datagram in run.chunks(segment.max(1)) {
            framing::write(datagram, &mut bytes);
            count += 1;
        }
        match self.departures.try_send(Departure { connection, bytes, count }) {
            Ok(()) => {
                self.is_waiting = true;
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.note_drops(count);
                false
            }
        }
    }

    pub fn note_bound(&mut self, connection: ConnectionId) {
        self.tell(Told::Bound(connection));
    }

    pub fn forget(&mut self, connection: ConnectionId) {
        self.tell(Told::Forgotten(connection));
    }

    fn tell(&mut self, told: Told) {
        // A thread that has ended has closed everything.
        let _ = self.told.send(told);
        self.is_waiting = true;
    }

    /// Wakes the thread if there is something for it.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Outlet {
    /// The thread sees that nobody is left only when it looks.
    fn drop(&mut self) {
        let (nowhere, _) = sync_channel(0);
        drop(std::mem::replace(&mut self.departures, nowhere));
        let _ = self.waker.wake();
    }
}

/// A shard's ends: what arrives for it, and its way out.
pub struct Ends {
    pub arrivals: Receiver<Arrival>,
    pub outlet: Outlet,
}

/// The thread's ends.
struct Ways {
    /// To each shard, and what wakes it.
    shards: Vec<(SyncSender<Arrival>, Arc<Waker>)>,
    departures: Receiver<Departure>,
    told: Receiver<Told>,
    counters: Arc<Counters>,
}

/// Connects a thread that `waker` wakes with the shards that `shards` wake.
fn connect(waker: &Arc<Waker>, shards: &[Arc<Waker>], counters: &Arc<Counters>) -> (Ways, Vec<Ends>) {
    let ((departure, departures), (tell, told)) = (sync_channel(DEPARTURES), channel());
    let (mut ways, mut ends) = (Vec::new(), Vec::new());
    for shard in shards {
        let (arrival, arrivals) = sync_channel(ARRIVALS);
        ways.push((arrival, Arc::clone(shard)));
        let outlet = Outlet {
            departures: departure.clone(),
            told: tell.clone(),
            waker: Arc::clone(waker),
            counters: Arc::clone(counters),
            is_waiting: false,
        };
        ends.push(Ends { arrivals, outlet });
    }
    (Ways { shards: ways, departures, told, counters: Arc::clone(counters) }, ends)
}

/// The part of an address that one customer of a network has: the address, or the first half of an IPv6 one.
pub fn neighbourhood(address: SocketAddr) -> u128 {
    match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => u128::from(u32::from(ip)),
        std::net::IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
    }
}
