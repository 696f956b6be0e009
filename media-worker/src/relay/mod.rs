//! A TURN and STUN server of the worker's own (RFC 8656, RFC 8489), so that one machine needs nothing else.
//!
//! ```text
//!   client ──UDP or TCP──▶ the relay's port ─▶ Client ─▶ Allocation: a socket of its own ──UDP──▶ media port
//!          ◀── channel data, data indications ──────────────── its task ◀────────────────────────────┘
//! ```
//!
//! It leads to this worker's media port and nowhere else ([`peers`]), takes the time-limited credentials that joins come with
//! ([`access`]), and has a bound for everything: allocations of a user and of all ([`quota`]), connections that are being
//! tried, what waits for a slow client. Whoever has no allocation leaves nothing behind here. It runs on the control
//! plane's runtime, beside the media threads, to which a relayed client is like any other.
//!
//! | module | is |
//! |---|---|
//! | [`message`] | STUN messages and channel data, read and written |
//! | [`access`] | credentials and nonces |
//! | [`server`] | requests and answers; no sockets |
//! | [`allocation`], [`peers`], [`quota`] | relayed sockets, where they lead, how many there may be |
//! | [`datagrams`], [`streams`] | the port over UDP, and over TCP |
//! | [`probe`] | a client that tries whether a TURN server, this or another, gives an allocation |
//! | [`counters`] | what is counted |

mod access;
mod allocation;
mod counters;
mod datagrams;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod message;
mod peers;
pub mod probe;
mod quota;
mod server;
mod streams;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use common::turn::TurnSecret;
use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::MissedTickBehavior;

pub(crate) use counters::{Dropped, Refused};
use peers::Peers;
use server::Server;

/// How often allocations are looked at that have expired, and counters passed on.
const TICK: Duration = Duration::from_secs(1);
/// Kernel buffers of the port over UDP, in bytes.
const BUFFER: usize = 4 * 1024 * 1024;
/// Ports that are tried until one is free over both UDP and TCP, when any will do.
const MAX_TRIES: usize = 16;

/// The relay's settings.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// One port over UDP and TCP; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What credentials are made with.
    pub secret: TurnSecret,
    /// Ports of relayed sockets; `None`: any that the system gives. Only this machine sends to them.
    pub ports: Option<RangeInclusive<u16>>,
    pub max_allocations: usize,
    pub max_allocations_per_user: usize,
    /// How long an allocation lasts without being refreshed.
    pub lifetime: Duration,
}

/// The bound port of a relay; it works while [`Relay::run`] does.
pub struct Relay {
    socket: Arc<UdpSocket>,
    listener: TcpListener,
    server: Arc<Server>,
}

impl Relay {
    /// Binds the port of a relay to the media port that is bound to `media` and announced as `announced`. Within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// What the system answered.
    pub async fn bind(config: RelayConfig, media: SocketAddr, announced: &[SocketAddr]) -> io::Result<Self> {
        let (socket, listener) = bind(config.listen).await?;
        let server = Arc::new(Server::new(config, Peers::of(media, announced))?);
        Ok(Self { socket: Arc::new(socket), listener, server })
    }

    /// The address that the relay listens on.
    ///
    /// # Errors
    /// What the system answered.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped, which ends all allocations.
    pub async fn run(self) {
        let Self { socket, listener, server } = self;
        let passing_on = async {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                server.counters.pass_on(server.quota.taken());
            }
        };
        tokio::join!(datagrams::serve(socket, &server), streams::serve(listener, &server), passing_on);
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let socket = UdpSocket::bind(listen).await?;
        // Best effort, as for the media socket: all clients send and are sent to by this one.
        let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER);
        let _ = SockRef::from(&socket).set_send_buffer_size(BUFFER);
        tries += 1;
        match TcpListener::bind(socket.local_addr()?).await {
            Ok(listener) => return Ok((socket, listener)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && listen.port() == 0 && tries < MAX_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}
