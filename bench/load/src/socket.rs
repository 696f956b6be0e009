//! A client's UDP socket on Linux: datagrams in batches, each with the instant at which the kernel took it in.
//!
//! That instant, not the one at which a thread of ours got round to reading, ends a latency: the generator shares the
//! machine with the server, and its own wake-ups are not the server's delay. Receive offload (GRO) stays off, as in a
//! browser, so that a server pays in full for every datagram that it sends.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

/// Datagrams of one system call.
const BATCH: usize = 32;
/// Larger than any datagram of a WebRTC connection.
const DATAGRAM: usize = 2_048;
const CONTROL: usize = 128;
/// Kernel buffer in bytes: what arrives while the generator does something else.
const BUFFER: usize = 2 * 1024 * 1024;

/// Nanoseconds since the Unix epoch.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Memory for a batch; shared by all sockets of a thread.
pub struct Batch {
    data: Box<[[u8; DATAGRAM]]>,
    control: Box<[[u64; CONTROL / 8]]>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            data: vec![[0; DATAGRAM]; BATCH].into_boxed_slice(),
            control: vec![[0; CONTROL / 8]; BATCH].into_boxed_slice(),
        }
    }
}

/// Datagrams that the kernel threw away on this socket so far, because nobody read them in time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overflow(pub u32);

#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    local: SocketAddrV4,
}

impl Socket {
    /// Binds any port of `address`.
    pub fn bind(address: Ipv4Addr) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // More than the system's limit takes a privilege; what it grants has to do.
        set_option(raw.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER as i32)
            .or_else(|_| raw.set_recv_buffer_size(BUFFER))?;
        set_option(raw.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        set_option(raw.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        raw.set_nonblocking(true)?;
        raw.bind(&SocketAddr::from((address, 0)).into())?;
        let socket: UdpSocket = raw.into();
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Err(io::Error::other("an IPv4 socket has an IPv4 address"));
        };
        Ok(Self { socket, local })
    }

    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Sends one datagram. A full buffer loses it, as a network would; `false` then.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.socket.send_to(datagram, to).is_ok()
    }

    /// Reads a batch; `each` gets every datagram with its source and the nanoseconds since the Unix epoch at which the
    /// kernel took it in. Returns whether there may be more.
    pub fn receive(
        &self,
        batch: &mut Batch,
        overflow: &mut Overflow,
        mut each: impl FnMut(SocketAddr, u64, &[u8]),
    ) -> bool {
        let mut names: [MaybeUninit<libc::sockaddr_in>; BATCH] = [const { MaybeUninit::zeroed() }; BATCH];
        let mut parts: [MaybeUninit<libc::iovec>; BATCH] = [const { MaybeUninit::zeroed() }; BATCH];
        let mut messages: [MaybeUninit<libc::mmsghdr>; BATCH] = [const { MaybeUninit::zeroed() }; BATCH];
        for index in 0..BATCH {
            parts[index]
                .write(libc::iovec { iov_base: batch.data[index].as_mut_ptr().cast(), iov_len: DATAGRAM });
            // SAFETY: zeroed is a valid mmsghdr.
            let header = unsafe { &mut messages[index].assume_init_mut().msg_hdr };
            header.msg_name = names[index].as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_iov = parts[index].as_mut_ptr();
            header.msg_iovlen = 1;
            header.msg_control = batch.control[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: BATCH headers, each with memory that lives until the end of this function.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return false };
        for index in 0..count {
            // SAFETY: the kernel filled the first `count` headers, and the names and control messages behind them.
            let (message, name) =
                unsafe { (messages[index].assume_init_ref(), names[index].assume_init_ref()) };
            let from = SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            );
            let at = control(&message.msg_hdr, overflow).unwrap_or_else(wall_ns);
            each(from.into(), at, &batch.data[index][..(message.msg_len as usize).min(DATAGRAM)]);
        }
        count == BATCH
    }
}

/// Reads the time stamp and the overflow count that came with a datagram.
fn control(header: &libc::msghdr, overflow: &mut Overflow) -> Option<u64> {
    let mut at = None;
    // SAFETY: the header is the kernel's; the macros stay within its control buffer, and each payload is read as the
    // type that the kernel wrote for its kind.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    at = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => overflow.0 = data.cast::<u32>().read_unaligned(),
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    at
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value outlives the call and its size is right.
    let result =
        unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which of many sockets have something to read.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Watches a socket, as `key`, until it is closed.
    pub fn add(&self, socket: &Socket, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: key };
        // SAFETY: both descriptors are open and the event outlives the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The keys of sockets that can be read now. Does not wait.
    pub fn ready(&mut self, keys: &mut Vec<u64>) {
        keys.clear();
        loop {
            // SAFETY: the kernel writes at most as many events as the buffer has room for.
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    self.events.as_mut_ptr(),
                    self.events.len() as i32,
                    0,
                )
            };
            let count = usize::try_from(count).unwrap_or(0);
            keys.extend(self.events[..count].iter().map(|event| event.u64));
            if count < self.events.len() {
                return;
            }
            // Level triggered: with more sockets than room the same ones would come again.
            let double = self.events.len() * 2;
            self.events.resize(double, libc::epoll_event { events: 0, u64: 0 });
            keys.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_with_source_and_time() {
        let (from, to) =
            (Socket::bind(Ipv4Addr::LOCALHOST).unwrap(), Socket::bind(Ipv4Addr::LOCALHOST).unwrap());
        let mut poller = Poller::new().unwrap();
        poller.add(&to, 7).unwrap();
        let before = wall_ns();
        for number in 0..40u8 {
            assert!(from.send(to.local().into(), &[number]));
        }
        let after = wall_ns();
        let (mut keys, mut seen) = (Vec::new(), Vec::new());
        poller.ready(&mut keys);
        assert_eq!(keys, [7]);
        let (mut batch, mut overflow) = (Batch::default(), Overflow::default());
        while to.receive(&mut batch, &mut overflow, |source, at, datagram| {
            assert_eq!(source, SocketAddr::from(from.local()));
            assert!((before..=after).contains(&at), "{before} <= {at} <= {after}");
            seen.push(datagram[0]);
        }) {}
        assert_eq!(seen, (0..40).collect::<Vec<u8>>());
        assert_eq!(overflow.0, 0);
    }
}
