//! The one UDP socket of a media thread, and the addresses that are announced for it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit as Send, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::MediaConfig;
use super::transport::{Path, Transmit};

/// Kernel buffers, in bytes: keyframes of many publishers arrive at once. The system may grant less.
const BUFFER: usize = 4 * 1024 * 1024;
/// One receive buffer: a whole run of coalesced datagrams (GRO) fits.
const RECEIVE: usize = 64 * 1024;

pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Box<[u8]>>,
    metas: Vec<RecvMeta>,
}

impl Socket {
    /// Binds where `config` says.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        // Best effort: a container's limits may forbid it, and the default works, with less slack.
        let _ = raw.set_recv_buffer_size(BUFFER);
        let _ = raw.set_send_buffer_size(BUFFER);
        if listen.is_ipv6() {
            raw.set_only_v6(false)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&listen.into())?;
        let socket = UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            socket,
            state,
            buffers: (0..BATCH_SIZE).map(|_| vec![0; RECEIVE].into_boxed_slice()).collect(),
            metas: vec![RecvMeta::default(); BATCH_SIZE],
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What the poller registers.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Receives one batch and hands each datagram out with its path. Returns whether there may be more.
    pub fn receive(&mut self, mut each: impl FnMut(Path, &[u8])) -> bool {
        let mut slices: Vec<IoSliceMut<'_>> =
            self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut self.metas) {
            Ok(count) => count,
            // Anything but an empty socket is about one datagram; what follows it must not wait, because
            // the poller speaks up only once for what is there.
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        };
        drop(slices);
        for (meta, buffer) in self.metas[..count].iter().zip(&self.buffers) {
            let path = Path { remote: meta.addr, local: meta.dst_ip };
            let received = &buffer[..meta.len.min(buffer.len())];
            for datagram in received.chunks(meta.stride.max(1)) {
                each(path, datagram);
            }
        }
        true
    }

    /// Sends a datagram back along its path. A full socket buffer loses it, as a network would.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let send = Send {
            destination: transmit.path.remote,
            ecn: None,
            contents: &transmit.datagram,
            segment_size: None,
            src_ip: transmit.path.local,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &send)
    }
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
