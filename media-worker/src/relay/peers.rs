//! Where the relay leads: to this worker's own media port and nowhere else, whatever a client asks for.
//!
//! A relay that leads anywhere is a way into the network that it stands in: to services on loopback, to other machines
//! behind the firewall, to a cloud's metadata. Here there is no list of forbidden networks that could lack one. A relayed
//! socket is connected to the media port, so no other address can be sent to from it, and the system takes nothing
//! for it from anybody else. What clients name is the *announced* address, which may be that of a NAT in front; the socket
//! is connected to the *local* one, so the way never goes out and back in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// The way to the media port in one family of addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Way {
    /// What clients know it by: the addresses in the server's candidates.
    announced: Vec<SocketAddr>,
    /// Where it is on this machine.
    pub media: SocketAddr,
}

impl Way {
    pub fn is_peer(&self, address: SocketAddr) -> bool {
        self.announced.contains(&address)
    }

    /// Permissions are for an address without a port (RFC 8656, section 9).
    pub fn has_peer_at(&self, ip: IpAddr) -> bool {
        self.announced.iter().any(|peer| peer.ip() == ip)
    }
}

/// The ways in both families.
#[derive(Debug, PartialEq, Eq)]
pub struct Peers {
    v4: Option<Arc<Way>>,
    v6: Option<Arc<Way>>,
}

impl Peers {
    /// The ways to a media port that is bound to `bound` and announced as `announced`.
    pub fn of(bound: SocketAddr, announced: &[SocketAddr]) -> Self {
        let way = |is_ipv6: bool| {
            let announced: Vec<_> =
                announced.iter().copied().filter(|peer| peer.is_ipv6() == is_ipv6).collect();
            let first = announced.first()?;
            let ip = if !bound.ip().is_unspecified() {
                // Behind NAT another family may be announced than is bound: there is no way to that.
                Some(bound.ip()).filter(|ip| ip.is_ipv6() == is_ipv6)?
            } else if is_ipv6 && bound.is_ipv4() {
                return None;
            } else {
                let ours = announced.iter().map(SocketAddr::ip).find(|ip| is_here(*ip));
                ours.or_else(|| outgoing(first.ip())).unwrap_or(loopback(is_ipv6))
            };
            Some(Arc::new(Way { announced, media: SocketAddr::new(ip, bound.port()) }))
        };
        Self { v4: way(false), v6: way(true) }
    }

    /// The way for an allocation. `wanted`: in this family, else in any, IPv4 first.
    pub fn way(&self, wanted: Option<Family>) -> Option<&Arc<Way>> {
        match wanted {
            Some(Family::V4) => self.v4.as_ref(),
            Some(Family::V6) => self.v6.as_ref(),
            None => self.v4.as_ref().or(self.v6.as_ref()),
        }
    }
}

/// Of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Whether an address is one of this machine's.
fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The address with which this machine goes out. Chooses a route and sends nothing.
fn outgoing(towards: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if towards.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((towards, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn loopback(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(bound: &str, announced: &[&str]) -> Peers {
        let announced: Vec<SocketAddr> = announced.iter().map(|address| address.parse().unwrap()).collect();
        Peers::of(bound.parse().unwrap(), &announced)
    }

    #[test]
    fn only_what_is_announced_is_a_peer_and_the_way_there_is_on_this_machine() {
        let peers = peers("127.0.0.1:40000", &["203.0.113.7:40000", "[2001:db8::7]:40000"]);
        let way = peers.way(None).unwrap();
        assert_eq!(way.media.to_string(), "127.0.0.1:40000");
        assert!(way.is_peer("203.0.113.7:40000".parse().unwrap()));
        for other in ["203.0.113.7:40001", "127.0.0.1:40000", "169.254.169.254:40000", "203.0.113.8:40000"] {
            assert!(!way.is_peer(other.parse().unwrap()), "{other}");
        }
        assert!(way.has_peer_at("203.0.113.7".parse().unwrap()));
        assert!(!way.has_peer_at("127.0.0.1".parse().unwrap()));
        assert_eq!(peers.way(Some(Family::V6)), None, "nothing is bound there");
    }

    #[test]
    fn on_all_interfaces_it_is_an_address_that_this_machine_has() {
        let own = peers("0.0.0.0:40000", &["203.0.113.7:40000", "127.0.0.1:40000"]);
        assert_eq!(own.way(None).unwrap().media.to_string(), "127.0.0.1:40000");
        let translated = peers("0.0.0.0:40000", &["203.0.113.7:40000"]);
        let media = translated.way(Some(Family::V4)).unwrap().media;
        assert!(is_here(media.ip()), "{media}");
    }
}
