//! Whether media gets through: to the own announced address, and as a STUN server sees us from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::{UdpSocket as AsyncUdpSocket, lookup_host};
use tokio::time::timeout;

use super::Finding;
use crate::config::Settings;

/// Of one answer over the network; a packet may be lost, so there are three tries.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
const DEFAULT_STUN_PORT: u16 = 3478;
/// RFC 8489, sections 5 and 14.2.
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const MAGIC_COOKIE: u32 = 0x2112_A442;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const STUN_HEAD: usize = 20;

pub async fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![public_address(settings)];
    findings.extend(hairpin(settings).await);
    for server in settings.ice_servers.iter().filter_map(|url| url.strip_prefix("stun:")) {
        findings.push(stun(settings, server).await);
    }
    findings
}

/// The address with which this machine would go out.
fn outgoing() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Chooses a route and sends nothing. RFC 5737: nobody has this address.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // RFC 6598: shared address space, behind a carrier's NAT.
            let is_shared = first == 100 && (64..128).contains(&second);
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// What a worker will tell clients to send to.
fn announced(settings: &Settings) -> Vec<IpAddr> {
    if !settings.public_addresses.is_empty() {
        settings.public_addresses.clone()
    } else if settings.media.ip().is_unspecified() {
        outgoing().into_iter().collect()
    } else {
        vec![settings.media.ip()]
    }
}

fn public_address(settings: &Settings) -> Finding {
    const CHECK: &str = "public_address";
    let addresses = announced(settings);
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let list = list.join(", ");
    if addresses.is_empty() {
        return Finding::fail(
            CHECK,
            "no interface has a usable address",
            "connect the machine, or set public_address",
        );
    }
    let is_set = !settings.public_addresses.is_empty();
    if addresses.iter().all(|ip| ip.is_loopback()) {
        return Finding::warn(
            CHECK,
            format!("{list}: for this machine only"),
            "set media_address to 0.0.0.0 (which needs api_keys), and public_address where that is not the machine's own",
        );
    }
    if addresses.iter().all(|ip| is_private(*ip)) {
        return Finding::warn(
            CHECK,
            format!("{list}: not reachable from the internet"),
            "right for a network of one's own; else set public_address to the address that leads here",
        );
    }
    Finding::ok(CHECK, if is_set { format!("{list}, as set") } else { list })
}

/// Sends a datagram to each announced address and sees whether it arrives at the media port.
async fn hairpin(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "udp";
    let mut findings = Vec::new();
    // With the port in use another one tells as much about the way there, if not about a firewall's rule for that port.
    let free = AsyncUdpSocket::bind(settings.media).await;
    let socket = match free {
        Ok(socket) => socket,
        Err(_) => match AsyncUdpSocket::bind((settings.media.ip(), 0)).await {
            Ok(socket) => socket,
            Err(error) => {
                let advice = "see media_port";
                return vec![Finding::fail(CHECK, format!("no UDP socket could be opened: {error}"), advice)];
            }
        },
    };
    let Ok(port) = socket.local_addr().map(|address| address.port()) else { return findings };
    for ip in announced(settings) {
        let to = SocketAddr::new(ip, port);
        findings.push(if arrives(&socket, to).await {
            Finding::ok(CHECK, format!("a datagram to {to} arrives"))
        } else {
            Finding::warn(
                CHECK,
                format!("a datagram that this machine sends to {to} does not arrive here"),
                format!(
                    "let UDP {port} in. Behind NAT this may be so all the same, as many do not lead back inside: try from outside"
                ),
            )
        });
    }
    findings
}

async fn arrives(socket: &AsyncUdpSocket, to: SocketAddr) -> bool {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let Ok(sender) = AsyncUdpSocket::bind(any).await else { return false };
    let token = uuid::Uuid::new_v4();
    for _ in 0..TRIES {
        if sender.send_to(token.as_bytes(), to).await.is_err() {
            return false;
        }
        let mut buffer = [0; 64];
        let received = async {
            // Others may be sending to this port, too.
            while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
                if &buffer[..length] == token.as_bytes() {
                    return true;
                }
            }
            false
        };
        if timeout(PATIENCE, received).await == Ok(true) {
            return true;
        }
    }
    false
}

/// Asks a STUN server with which address our datagrams arrive there: whether UDP gets out and back, and whether what we
/// announce is what the world sees.
async fn stun(settings: &Settings, server: &str) -> Finding {
    const CHECK: &str = "stun";
    let host = server.split('?').next().unwrap_or(server);
    let with_port = if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:{DEFAULT_STUN_PORT}")
    };
    let addresses = timeout(PATIENCE * 3, lookup_host(&with_port)).await;
    let Some(address) =
        addresses.ok().and_then(Result::ok).and_then(|mut found| found.find(SocketAddr::is_ipv4))
    else {
        return Finding::fail(
            CHECK,
            format!("{server}: the name leads nowhere"),
            "correct ice_servers, or the resolver",
        );
    };
    let Some(seen) = binding(address).await else {
        return Finding::fail(
            CHECK,
            format!("{server}: no answer over UDP"),
            "let UDP out and back in, or name another server in ice_servers",
        );
    };
    let announced = announced(settings);
    if announced.contains(&seen.ip()) {
        return Finding::ok(CHECK, format!("{server} sees us as {}, which is announced", seen.ip()));
    }
    Finding::warn(
        CHECK,
        format!("{server} sees us as {}, which is not announced", seen.ip()),
        format!(
            "behind NAT: set public_address to {} and lead UDP {} here",
            seen.ip(),
            settings.media.port()
        ),
    )
}

/// RFC 8489: a binding request, and the address in its answer.
async fn binding(server: SocketAddr) -> Option<SocketAddr> {
    let socket = AsyncUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    let transaction: [u8; 12] = uuid::Uuid::new_v4().as_bytes()[..12].try_into().ok()?;
    let mut request = Vec::with_capacity(STUN_HEAD);
    request.extend(BINDING_REQUEST.to_be_bytes());
    request.extend(0u16.to_be_bytes());
    request.extend(MAGIC_COOKIE.to_be_bytes());
    request.extend(transaction);
    for _ in 0..TRIES {
        socket.send(&request).await.ok()?;
        let mut buffer = [0; 1500];
        let answer = async {
            while let Ok(length) = socket.recv(&mut buffer).await {
                if let Some(seen) = mapped(&buffer[..length], &transaction) {
                    return Some(seen);
                }
            }
            None
        };
        if let Ok(Some(seen)) = timeout(PATIENCE, answer).await {
            return Some(seen);
        }
    }
    None
}

/// The IPv4 address in an answer to this request.
fn mapped(answer: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let (head, mut attributes) = answer.split_at_checked(STUN_HEAD)?;
    if head[..2] != BINDING_SUCCESS.to_be_bytes() || head[8..] != transaction[..] {
        return None;
    }
    loop {
        let (&[a, b, c, d], rest) = attributes.split_first_chunk()?;
        let (kind, length) = (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])));
        let value = rest.get(..length)?;
        if kind == XOR_MAPPED_ADDRESS
            && let [_, 1, p0, p1, a0, a1, a2, a3] = *value
        {
            let port = u16::from_be_bytes([p0, p1]) ^ (MAGIC_COOKIE >> 16) as u16;
            let ip = Ipv4Addr::from(u32::from_be_bytes([a0, a1, a2, a3]) ^ MAGIC_COOKIE);
            return Some(SocketAddr::from((ip, port)));
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769, section 2.2: the sample response, with its software attribute before the address.
    const RESPONSE: &[u8] =
        b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";

    #[test]
    fn the_address_is_read_and_whatever_is_cut_off_is_none() {
        let transaction: [u8; 12] = RESPONSE[8..20].try_into().unwrap();
        assert_eq!(mapped(RESPONSE, &transaction), Some("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(mapped(RESPONSE, &[0; 12]), None, "of another request");
        for end in 0..RESPONSE.len() {
            assert_eq!(mapped(&RESPONSE[..end], &transaction), None);
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_from_outside() {
        let all = ["10.1.2.3", "100.64.0.1", "172.16.0.1", "127.0.0.1", "169.254.1.1", "fd00::1", "fe80::1"];
        assert!(all.iter().all(|ip| is_private(ip.parse().unwrap())));
        assert!(["8.8.8.8", "100.128.0.1", "2001:db8::1"].iter().all(|ip| !is_private(ip.parse().unwrap())));
    }

    #[tokio::test]
    async fn a_datagram_arrives_on_loopback_and_not_at_another_port() {
        let socket = AsyncUdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = AsyncUdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert!(arrives(&socket, socket.local_addr().unwrap()).await);
        assert!(!arrives(&socket, other.local_addr().unwrap()).await);
    }
}
