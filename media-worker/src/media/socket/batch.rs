//! `sendmmsg` with segmentation offload: many datagrams to many addresses in one system call.
//!
//! The only unsafe code of the media plane. It hands the kernel pointers into `bytes` and into arrays on
//! its own stack; both outlive the call, and the kernel keeps none of them.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, cmsghdr, iovec, mmsghdr, sockaddr_in, sockaddr_in6};

use super::message::Message;
use crate::media::transport::Local;

/// Messages in one system call.
pub const MESSAGES: usize = 32;

#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

/// Room for a packet-info and a segment-size control message, aligned as `cmsghdr` wants.
type Control = [u64; 8];

/// Hands at most [`MESSAGES`] of `messages` to the kernel; returns how many it took, at least one.
///
/// # Errors
/// What the kernel answered for the first message; none was sent.
pub fn send(socket: BorrowedFd<'_>, bytes: &mut [u8], messages: &[Message]) -> io::Result<usize> {
    let messages = &messages[..messages.len().min(MESSAGES)];
    // SAFETY: all-zero is a valid value of these C structs: null pointers, zero lengths.
    let (mut headers, mut vectors, mut names): ([mmsghdr; MESSAGES], [iovec; MESSAGES], [Name; MESSAGES]) =
        unsafe { (zeroed(), zeroed(), zeroed()) };
    let mut controls: [Control; MESSAGES] = [[0; 8]; MESSAGES];
    for (index, message) in messages.iter().enumerate() {
        let contents = &mut bytes[message.bytes.clone()];
        vectors[index] = iovec { iov_base: contents.as_mut_ptr().cast(), iov_len: contents.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_iov = &mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_namelen = put_name(&mut names[index], message.path.remote);
        header.msg_name = (&raw mut names[index]).cast();
        let segment = (message.count > 1).then_some(message.segment);
        let length = put_control(&mut controls[index], message.path.local, segment);
        if length > 0 {
            header.msg_control = controls[index].as_mut_ptr().cast();
            // The field's type differs between C libraries.
            header.msg_controllen = length as _;
        }
    }
    // SAFETY: the first `messages.len()` headers point to initialised names, vectors and controls on this
    // stack and into `bytes`, which is borrowed for the call; MSG_DONTWAIT makes it return at once.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), messages.len() as _, libc::MSG_DONTWAIT as _)
    };
    // -1 is an error; the kernel never answers 0 for at least one message.
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes a socket address; returns its length.
fn put_name(name: &mut Name, address: SocketAddr) -> libc::socklen_t {
    // SAFETY: all-zero is a valid value of both address structs; every field that matters is set.
    match address {
        SocketAddr::V4(address) => {
            let mut v4: sockaddr_in = unsafe { zeroed() };
            v4.sin_family = libc::AF_INET as _;
            v4.sin_port = address.port().to_be();
            v4.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            name.v4 = v4;
            size_of::<sockaddr_in>() as _
        }
        SocketAddr::V6(address) => {
            let mut v6: sockaddr_in6 = unsafe { zeroed() };
            v6.sin6_family = libc::AF_INET6 as _;
            v6.sin6_port = address.port().to_be();
            v6.sin6_addr.s6_addr = address.ip().octets();
            v6.sin6_flowinfo = address.flowinfo();
            v6.sin6_scope_id = address.scope_id();
            name.v6 = v6;
            size_of::<sockaddr_in6>() as _
        }
    }
}

/// Writes the control messages: from which address, and how to cut the message; returns their length.
fn put_control(control: &mut Control, local: Local, segment: Option<usize>) -> usize {
    let mut at = 0;
    match local {
        // What goes over a connection never comes here.
        Local::Unknown | Local::Connection(_) => {}
        Local::Address(IpAddr::V4(ip)) => {
            // SAFETY: all-zero is a valid value.
            let mut info: libc::in_pktinfo = unsafe { zeroed() };
            info.ipi_spec_dst.s_addr = u32::from_ne_bytes(ip.octets());
            at += put_one(control, at, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Local::Address(IpAddr::V6(ip)) => {
            // SAFETY: all-zero is a valid value.
            let mut info: libc::in6_pktinfo = unsafe { zeroed() };
            info.ipi6_addr.s6_addr = ip.octets();
            at += put_one(control, at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
    if let Some(segment) = segment {
        // A segment is a datagram, so below 2^16.
        at += put_one(control, at, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
    }
    at
}

/// Writes one control message at byte `at`; returns the room it takes.
fn put_one<T: Copy>(control: &mut Control, at: usize, level: c_int, kind: c_int, value: T) -> usize {
    // SAFETY: CMSG_SPACE and CMSG_LEN only calculate.
    let (space, length) =
        unsafe { (libc::CMSG_SPACE(size_of::<T>() as _), libc::CMSG_LEN(size_of::<T>() as _)) };
    let space = space as usize;
    assert!(at.is_multiple_of(8) && at + space <= size_of::<Control>(), "the control buffer is too small");
    // SAFETY: by the assertion the header and its data lie within `control`, the header aligned; CMSG_DATA
    // is the header's end. The data is written unaligned, as it may be.
    unsafe {
        let header: *mut cmsghdr = control.as_mut_ptr().cast::<u8>().add(at).cast();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = length as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    space
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::media::transport::Path;

    fn receiver(address: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        (buffer[..length].to_vec(), from)
    }

    #[test]
    fn datagrams_arrive_whole_in_order_at_whom_they_are_for() {
        let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
        let (first, to_first) = receiver("127.0.0.1:0");
        let (second, to_second) = receiver("127.0.0.1:0");
        let path = |remote, local| Path { remote, local };
        let mut bytes: Vec<u8> = (0..250).collect();
        let messages = [
            Message { path: path(to_first, Local::Unknown), bytes: 0..100, segment: 100, count: 1 },
            // From another address of loopback than the system would choose, and cut in three.
            Message {
                path: path(to_second, Local::Address([127, 0, 0, 9].into())),
                bytes: 100..220,
                segment: 50,
                count: 3,
            },
            Message { path: path(to_first, Local::Unknown), bytes: 220..250, segment: 30, count: 1 },
        ];
        let mut left = &messages[..];
        while !left.is_empty() {
            left = &left[send(sender.as_fd(), &mut bytes, left).unwrap()..];
        }
        let expected: Vec<u8> = (0..250).collect();
        assert_eq!(next(&first).0, expected[..100]);
        assert_eq!(next(&first).0, expected[220..]);
        for part in [100..150, 150..200, 200..220] {
            let (datagram, from) = next(&second);
            assert_eq!(datagram, expected[part]);
            assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 9]));
        }
    }

    #[test]
    fn an_ipv6_path_works_too() {
        let Ok(sender) = UdpSocket::bind("[::]:0") else {
            panic!("this machine has no IPv6 at all; the media plane needs a dual-stack socket here");
        };
        let (receiver, to) = receiver("[::1]:0");
        let path = Path { remote: to, local: Local::Address(to.ip()) };
        let message = Message { path, bytes: 0..6, segment: 2, count: 3 };
        assert_eq!(send(sender.as_fd(), &mut [1, 2, 3, 4, 5, 6], &[message]).unwrap(), 1);
        assert_eq!([next(&receiver).0, next(&receiver).0, next(&receiver).0], [[1, 2], [3, 4], [5, 6]]);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = Path { remote: ([127, 0, 0, 1], 9).into(), local: Local::Unknown };
        let mut bytes = vec![0; 70_000];
        let message = Message { path, bytes: 0..70_000, segment: 70_000, count: 1 };
        assert!(send(sender.as_fd(), &mut bytes, &[message]).is_err(), "no datagram is that large");
    }
}
