//! The UDP socket of a media thread: receiving in batches here, sending in batches in [`egress`], and the
//! addresses that are announced for it.

#[cfg(target_os = "linux")]
mod batch;
pub mod egress;
mod message;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::MediaConfig;
use super::transport::{Local, Path};
use message::Message;

/// Kernel buffers, in bytes: keyframes of many publishers arrive at once. The system may grant less.
const BUFFER: usize = 4 * 1024 * 1024;
/// One receive buffer: a whole run of coalesced datagrams (GRO) fits.
const RECEIVE: usize = 64 * 1024;

/// The socket itself, shared by the side that receives and the side that sends.
pub struct Shared {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Shared {
    /// Whether the system can cut one message into several datagrams (GSO).
    pub fn can_segment(&self) -> bool {
        self.state.max_gso_segments() > 1
    }

    /// Hands messages to the kernel without waiting; returns how many it took.
    ///
    /// # Errors
    /// What the kernel answered for the first message; none was sent.
    #[cfg(target_os = "linux")]
    pub fn send(&self, bytes: &mut [u8], messages: &[Message]) -> io::Result<usize> {
        use std::os::fd::AsFd;
        batch::send(self.socket.as_fd(), bytes, messages)
    }

    /// Hands one message to the system without waiting.
    ///
    /// # Errors
    /// What the system answered.
    #[cfg(not(target_os = "linux"))]
    pub fn send(&self, bytes: &mut [u8], messages: &[Message]) -> io::Result<usize> {
        let Some(message) = messages.first() else { return Ok(0) };
        let transmit = quinn_udp::Transmit {
            destination: message.path.remote,
            ecn: None,
            contents: &bytes[message.bytes.clone()],
            segment_size: (message.count > 1).then_some(message.segment),
            src_ip: match message.path.local {
                Local::Address(ip) => Some(ip),
                Local::Unknown | Local::Connection(_) => None,
            },
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit).map(|()| 1)
    }
}

/// The receiving side.
pub struct Socket {
    shared: Arc<Shared>,
    buffers: Vec<Box<[u8]>>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Socket {
    /// Binds where `listen` says. `shares`: with other sockets of this process.
    ///
    /// # Errors
    /// What the system answered.
    fn bind(listen: SocketAddr, shares: bool) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        // Best effort: a container's limits may forbid it, and the default works, with less slack.
        let _ = raw.set_recv_buffer_size(BUFFER);
        let _ = raw.set_send_buffer_size(BUFFER);
        if listen.is_ipv6() {
            raw.set_only_v6(false)?;
        }
        raw.set_nonblocking(true)?;
        #[cfg(unix)]
        raw.set_reuse_port(shares)?;
        raw.bind(&listen.into())?;
        let socket = UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            shared: Arc::new(Shared { socket, state }),
            buffers: (0..BATCH_SIZE).map(|_| vec![0; RECEIVE].into_boxed_slice()).collect(),
            metas: [RecvMeta::default(); BATCH_SIZE],
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket.local_addr()
    }

    /// Lets `poll` tell when there is something to receive. Before the socket is shared.
    ///
    /// # Errors
    /// What the system answered.
    pub fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        let shared = Arc::get_mut(&mut self.shared)
            .ok_or_else(|| io::Error::other("the socket is registered before it is shared"))?;
        registry.register(&mut shared.socket, token, mio::Interest::READABLE)
    }

    /// The socket, for whoever sends.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Receives one batch and hands each datagram out with its path, to be changed in place. Returns
    /// whether there may be more.
    pub fn receive(&mut self, mut each: impl FnMut(Path, &mut [u8])) -> bool {
        let socket = UdpSockRef::from(&self.shared.socket);
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
            IoSliceMut::new(buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..]))
        });
        let count = match self.shared.state.recv(socket, &mut slices, &mut self.metas) {
            Ok(count) => count,
            // Anything but an empty socket is about one datagram; what follows it must not wait, because
            // the poller speaks up only once for what is there.
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        };
        for (meta, buffer) in self.metas[..count].iter().zip(&mut self.buffers) {
            let local = meta.dst_ip.map_or(Local::Unknown, Local::Address);
            let path = Path { remote: meta.addr, local };
            let length = meta.len.min(buffer.len());
            for datagram in buffer[..length].chunks_mut(meta.stride.max(1)) {
                each(path, datagram);
            }
        }
        true
    }
}

/// Binds `count` sockets to one port; the system spreads what arrives over them, by the client's address.
///
/// # Errors
/// What the system answered, also when anybody else has the port.
pub fn bind_all(listen: SocketAddr, count: usize) -> io::Result<Vec<Socket>> {
    let alone = Socket::bind(listen, false)?;
    if count < 2 {
        return Ok(vec![alone]);
    }
    // Sockets that share a port would silently share it with another worker too; the one that does not has
    // just shown that nobody else is there.
    let listen = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| Socket::bind(listen, true)).collect()
}

/// The addresses to announce: the configured ones, else the listen address, else those of the
/// interfaces. Loopback is announced last, for a browser on the same machine.
pub fn announced(config: &MediaConfig, bound: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    let ips: Vec<IpAddr> = if !config.public_addresses.is_empty() {
        config.public_addresses.clone()
    } else if !bound.ip().is_unspecified() {
        vec![bound.ip()]
    } else {
        interfaces(bound.is_ipv6())?
    };
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, bound.port())).collect())
}

/// At most this many addresses are announced; each costs every client connectivity checks.
const MAX_INTERFACES: usize = 8;

fn interfaces(with_ipv6: bool) -> io::Result<Vec<IpAddr>> {
    let networks = sysinfo::Networks::new_with_refreshed_list();
    let mut ips: Vec<IpAddr> = networks
        .values()
        .flat_map(|network| network.ip_networks())
        .map(|network| network.addr)
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
            // A link-local IPv6 address means nothing without its zone, which candidates cannot carry.
            IpAddr::V6(ip) => with_ipv6 && !ip.is_unicast_link_local() && !ip.is_unspecified(),
        })
        .collect();
    ips.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    ips.dedup();
    ips.truncate(MAX_INTERFACES);
    if ips.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no interface has a usable address"));
    }
    Ok(ips)
}
