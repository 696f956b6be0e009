//! Under which addresses the world sees this machine, for workers behind NAT that are not told: asked of a STUN server
//! (RFC 8489), or of a DNS server whose answer to one name is the address of whoever asks.
//!
//! Asked once, at the start, and in the order in which the ways are trusted: addresses that are configured need no question;
//! STUN sees what media will be seen from; DNS often passes where nothing else does.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::net::UdpSocket;

/// Times after which a STUN request is repeated (RFC 8489, section 6.2.1, cut short), and how long the last one waits.
const RETRANSMISSIONS: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(1200),
];
/// How long one way of asking may take, name look-ups included.
pub const PATIENCE: Duration = Duration::from_secs(5);
const STUN_PORT: u16 = 3478;
const DNS_PORT: u16 = 53;

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// One way to find the public address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `stun:host[:port]`.
    Stun { host: String, port: u16 },
    /// `dns:name@server[:port]`: the server's answer is the address that it was asked from.
    Dns { name: String, server: String, port: u16 },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stun { host, port } => write!(f, "stun:{}", with_port(host, *port)),
            Self::Dns { name, server, port } => write!(f, "dns:{name}@{}", with_port(server, *port)),
        }
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is neither an IP address nor stun:host:port nor dns:name@server:port");
        if let Some(server) = text.strip_prefix("stun:") {
            let (host, port) = host_and_port(server, STUN_PORT).ok_or_else(wrong)?;
            return Ok(Self::Stun { host, port });
        }
        let (name, server) = text.strip_prefix("dns:").and_then(|it| it.split_once('@')).ok_or_else(wrong)?;
        let (server, port) = host_and_port(server, DNS_PORT).ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Dns { name: name.to_owned(), server, port })
    }
}

/// `host`, `host:port`, an IPv4 address with or without a port, `[IPv6]:port` or an IPv6 address.
fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some((ip.to_string(), default));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default),
    };
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '.' || it == '-' || it == '_';
    (!host.is_empty() && host.chars().all(is_name)).then(|| (host.to_owned(), port))
}

/// No way led to an address: what each said.
#[derive(Debug, thiserror::Error)]
#[error("the public address is not known: {}", .0.join("; "))]
pub struct NotFound(pub Vec<String>);

/// Asks one source after the other, STUN servers first, until one tells an address; with each at most [`PATIENCE`].
///
/// # Errors
/// [`NotFound`].
pub async fn find(sources: &[Source]) -> Result<Vec<IpAddr>, NotFound> {
    let mut reasons = Vec::new();
    let (stun, dns): (Vec<_>, Vec<_>) = sources.iter().partition(|it| matches!(it, Source::Stun { .. }));
    for source in stun.into_iter().chain(dns) {
        let asked = async {
            match source {
                Source::Stun { host, port } => by_stun(host, *port).await,
                Source::Dns { name, server, port } => by_dns(name, server, *port).await,
            }
        };
        let found = tokio::time::timeout(PATIENCE, asked).await;
        match found.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(addresses) => {
                tracing::info!(%source, ?addresses, "public address found");
                return Ok(addresses);
            }
            Err(reason) => {
                tracing::warn!(%source, reason, "the public address could not be found here");
                reasons.push(format!("{source}: {reason}"));
            }
        }
    }
    Err(NotFound(reasons))
}

/// The server by IPv4 and by IPv6, as far as it has such addresses.
async fn by_stun(host: &str, port: u16) -> Result<Vec<IpAddr>, String> {
    let servers: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?.collect();
    let first = |is_v4: bool| servers.iter().copied().find(|it| it.is_ipv4() == is_v4);
    let ask = async |server: Option<SocketAddr>| match server {
        Some(server) => Some(ask_stun(server).await),
        None => None,
    };
    let (v4, v6) = tokio::join!(ask(first(true)), ask(first(false)));
    usable([v4, v6].into_iter().flatten())
}

async fn by_dns(name: &str, server: &str, port: u16) -> Result<Vec<IpAddr>, String> {
    let servers = tokio::net::lookup_host((server, port)).await.map_err(|error| error.to_string())?;
    let servers = servers.map(|server| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        config
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let resolver = resolver.build().map_err(|error| error.to_string())?;
    // With a dot at its end it is looked up as it is.
    let found = resolver.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await;
    usable(found.map_err(|error| error.to_string())?.iter().map(Ok))
}

/// The addresses that somebody else could reach; else why there is none.
fn usable(answers: impl Iterator<Item = Result<IpAddr, String>>) -> Result<Vec<IpAddr>, String> {
    let (mut addresses, mut known, mut reason) =
        (Vec::new(), HashSet::new(), "it knows no address".to_owned());
    for answer in answers {
        match answer {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                reason = format!("{ip} is nobody's address")
            }
            Ok(ip) => addresses.extend(known.insert(ip).then_some(ip)),
            Err(why) => reason = why,
        }
    }
    if addresses.is_empty() { Err(reason) } else { Ok(addresses) }
}

/// The address that a request comes from.
async fn ask_stun(server: SocketAddr) -> Result<IpAddr, String> {
    let own: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind(own).await.map_err(text)?;
    socket.connect(server).await.map_err(text)?;
    let mut request = [0; HEADER];
    request[..2].copy_from_slice(&BINDING_REQUEST);
    request[4..8].copy_from_slice(&MAGIC_COOKIE);
    let transaction: [u8; 12] = rand::random();
    request[8..].copy_from_slice(&transaction);
    let mut buffer = [0; 1500];
    for wait in RETRANSMISSIONS {
        socket.send(&request).await.map_err(text)?;
        let answer = tokio::time::timeout(wait, async {
            loop {
                let length = socket.recv(&mut buffer).await.map_err(text)?;
                if let Some(mapped) = mapped_address(&buffer[..length], &transaction) {
                    return Ok(mapped);
                }
            }
        });
        if let Ok(answer) = answer.await {
            return answer;
        }
    }
    Err("no answer".to_owned())
}

/// XOR-MAPPED-ADDRESS of the success response to that request (RFC 8489, section 14.2); `None` for anything else.
fn mapped_address(datagram: &[u8], transaction: &[u8; 12]) -> Option<IpAddr> {
    let header = datagram.first_chunk::<HEADER>()?;
    if header[..2] != BINDING_SUCCESS || header[4..8] != MAGIC_COOKIE || header[8..] != transaction[..] {
        return None;
    }
    let mut rest = &datagram[HEADER..];
    while let Some(head) = rest.first_chunk::<4>() {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(4..4 + length)?;
        if kind == XOR_MAPPED_ADDRESS {
            let mask = || MAGIC_COOKIE.iter().chain(transaction);
            let unmasked: Vec<u8> = value.get(4..)?.iter().zip(mask()).map(|(a, b)| a ^ b).collect();
            return match value[1] {
                1 => <[u8; 4]>::try_from(unmasked).ok().map(IpAddr::from),
                2 => <[u8; 16]>::try_from(unmasked).ok().map(IpAddr::from),
                _ => None,
            };
        }
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_and_written() {
        for (text, written) in [
            ("stun:stun.example.org", "stun:stun.example.org:3478"),
            ("stun:192.0.2.1:19302", "stun:192.0.2.1:19302"),
            ("stun:[2001:db8::1]:1", "stun:[2001:db8::1]:1"),
            ("dns:myip.example@192.0.2.53", "dns:myip.example@192.0.2.53:53"),
            ("dns:myip.example@resolver.example:5353", "dns:myip.example@resolver.example:5353"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), written);
        }
        for wrong in
            ["stun:", "stun:h:0", "stun:h:x", "dns:name", "dns:@server", "dns:n@", "example.org", "stun:a b"]
        {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_answer_to_the_request_counts() {
        let transaction = [7; 12];
        let mut answer = [&BINDING_SUCCESS[..], &[0, 20], &MAGIC_COOKIE, &transaction].concat();
        // SOFTWARE, padded, and then the address 192.0.2.1.
        answer.extend_from_slice(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 0, 0, 192 ^ 0x21, 0x12, 2 ^ 0xa4, 1 ^ 0x42]);
        assert_eq!(mapped_address(&answer, &transaction), Some([192, 0, 2, 1].into()));
        assert_eq!(mapped_address(&answer, &[8; 12]), None);
        for length in 0..answer.len() {
            assert_eq!(mapped_address(&answer[..length], &transaction), None, "{length} bytes of it");
        }
    }

    /// A server that answers nothing, and one that answers at its second thought.
    #[tokio::test]
    async fn a_lost_request_is_repeated_and_a_silent_server_is_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let sources = [
            Source::Stun { host: "127.0.0.1".into(), port: port(&silent) },
            Source::Stun { host: "127.0.0.1".into(), port: port(&server) },
        ];
        tokio::spawn(async move {
            let mut buffer = [0; 100];
            server.recv_from(&mut buffer).await.unwrap();
            let (_, from) = server.recv_from(&mut buffer).await.unwrap();
            let mut answer = [&BINDING_SUCCESS[..], &[0, 12], &buffer[4..20]].concat();
            answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1, 0, 0, 203 ^ 0x21, 0x12, 113 ^ 0xa4, 9 ^ 0x42]);
            server.send_to(&answer, from).await.unwrap();
        });
        assert_eq!(find(&sources).await.unwrap(), [IpAddr::from([203, 0, 113, 9])]);
        let started = std::time::Instant::now();
        let NotFound(reasons) = find(&sources[..1]).await.unwrap_err();
        assert!(
            reasons[0].starts_with("stun:127.0.0.1:") && reasons[0].ends_with("no answer"),
            "{reasons:?}"
        );
        assert!(started.elapsed() < PATIENCE + Duration::from_secs(5));
    }
}
