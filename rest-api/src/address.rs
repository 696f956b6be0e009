//! Who is at the other end: the connection's own address, or the one that a trusted proxy says.
//!
//! Anybody may write forwarding headers. They count only on connections from a trusted proxy, only in the one kind that
//! the proxy is configured to write (what it does not write it may pass on from a client), and from the right: every proxy
//! appends whom it saw, so the first address from the right that is not a trusted proxy is the client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Hops that are looked at; an honest chain has a handful.
const MAX_HOPS: usize = 32;

/// Which headers a trusted proxy writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardingHeaders {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`, as most proxies do.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Whose forwarding headers count, and which. Nobody's by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    pub headers: ForwardingHeaders,
}

impl TrustedProxies {
    /// Whether it is the address of a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address.to_canonical()))
    }
}

/// What is known of a connection; every request that came by it carries it as an extension.
#[derive(Debug, Clone)]
pub struct Connection {
    pub peer: IpAddr,
    /// TLS ends in this process.
    pub tls: bool,
    pub trusted: Arc<TrustedProxies>,
}

/// The address of the client that sent a request. `None` for a request that came by no connection (in tests).
pub fn client_address(headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
    let connection = extensions.get::<Connection>()?;
    Some(origin(headers, connection).0)
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, of which one subscriber has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

/// Of which network an address is.
pub fn network(address: IpAddr) -> Network {
    Network(match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    })
}

/// Whether the client sent the request by TLS, to us or to a trusted proxy.
pub fn is_secure(headers: &HeaderMap, extensions: &Extensions) -> bool {
    extensions
        .get::<Connection>()
        .is_some_and(|connection| connection.tls || origin(headers, connection).1.as_deref() == Some("https"))
}

/// The client's address and, if a proxy says it, its scheme.
fn origin(headers: &HeaderMap, connection: &Connection) -> (IpAddr, Option<String>) {
    let peer = connection.peer.to_canonical();
    if !connection.trusted.trusts(peer) {
        return (peer, None);
    }
    match connection.trusted.headers {
        ForwardingHeaders::XForwarded => {
            let hops = elements(headers, &X_FORWARDED_FOR).map(|text| node(&text));
            let (client, _) = walk(&connection.trusted, peer, hops.map(|address| (address, None)));
            // The nearest proxy's word is the last one.
            let scheme = elements(headers, &X_FORWARDED_PROTO).next();
            (client, scheme.map(|scheme| scheme.to_ascii_lowercase()))
        }
        ForwardingHeaders::Forwarded => {
            let hops = elements(headers, &header::FORWARDED).map(|element| forwarded(&element));
            walk(&connection.trusted, peer, hops)
        }
    }
}

/// Goes from the nearest hop outwards until an address is not trusted; each hop brings whom that proxy saw, and by which
/// scheme. A hop that cannot be read ends the way: whoever wrote it is the last that is known.
fn walk(
    trusted: &TrustedProxies,
    peer: IpAddr,
    hops: impl Iterator<Item = (Option<IpAddr>, Option<String>)>,
) -> (IpAddr, Option<String>) {
    let (mut client, mut scheme) = (peer, None);
    for (address, by) in hops.take(MAX_HOPS) {
        scheme = by;
        let Some(address) = address else { break };
        client = address;
        if !trusted.trusts(client) {
            break;
        }
    }
    (client, scheme)
}

/// The elements of a list header, from the right; several header lines are one list (RFC 9110, section 5.3).
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    let lines: Vec<&str> =
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(|element| element.trim().to_owned())
}

/// `for` and `proto` of one element (RFC 7239, section 4).
fn forwarded(element: &str) -> (Option<IpAddr>, Option<String>) {
    let (mut address, mut scheme) = (None, None);
    for pair in element.split(';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => address = node(value),
            "proto" => scheme = Some(value.to_ascii_lowercase()),
            _ => {}
        }
    }
    (address, scheme)
}

/// An address, perhaps with a port, perhaps in brackets (RFC 7239, section 6). Obfuscated names are nobody's address.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if text.matches(':').count() == 1 => text.split(':').next().unwrap_or_default(),
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn seen(kind: ForwardingHeaders, peer: &str, lines: &[(&'static str, &str)]) -> (String, bool) {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec();
        let trusted = Arc::new(TrustedProxies { networks, headers: kind });
        let mut extensions = Extensions::new();
        extensions.insert(Connection { peer: peer.parse().unwrap(), tls: false, trusted });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        (client_address(&headers, &extensions).unwrap().to_string(), is_secure(&headers, &extensions))
    }

    #[test]
    fn an_ipv4_address_is_one_client_however_it_is_written_and_a_64_is_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_from_the_right() {
        let x = |peer, lines: &[(&'static str, &str)]| seen(ForwardingHeaders::XForwarded, peer, lines);
        let said = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")];
        assert_eq!(x("192.0.2.1", &said), ("192.0.2.1".into(), false), "anybody's word is not taken");
        assert_eq!(x("10.0.0.1", &said), ("1.2.3.4".into(), true));
        assert_eq!(
            x("::ffff:10.0.0.1", &said),
            ("1.2.3.4".into(), true),
            "mapped addresses are the same ones"
        );
        for (chain, client) in [
            ("6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
            ("6.6.6.6,1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:443, fd00::2", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("1.2.3.4, nonsense", "10.0.0.1"),
            ("1.2.3.4, nonsense, 10.7.7.7", "10.7.7.7"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(x("10.0.0.1", &[("x-forwarded-for", chain)]).0, client, "{chain:?}");
        }
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(x("10.0.0.1", &lines).0, "1.2.3.4", "lines are one list");
        let schemes = [("x-forwarded-proto", "https, http")];
        assert!(!x("10.0.0.1", &schemes).1, "the nearest proxy decides");
        assert_eq!(x("10.0.0.1", &[("forwarded", "for=1.2.3.4;proto=https")]), ("10.0.0.1".into(), false));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let f = |lines: &[(&'static str, &str)]| seen(ForwardingHeaders::Forwarded, "10.0.0.1", lines);
        for (line, client, secure) in [
            ("for=192.0.2.60;proto=https;by=203.0.113.43", "192.0.2.60", true),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17", false),
            ("for=6.6.6.6;proto=https, for=192.0.2.43, for=10.3.3.3;proto=https", "192.0.2.43", false),
            ("for=_hidden;proto=https", "10.0.0.1", true),
            ("for=unknown, for=10.4.4.4", "10.4.4.4", false),
            (";;;=,", "10.0.0.1", false),
        ] {
            assert_eq!(f(&[("forwarded", line)]), (client.into(), secure), "{line}");
        }
        assert_eq!(f(&[("x-forwarded-for", "6.6.6.6")]).0, "10.0.0.1", "the other kind is anybody's");
    }
}
