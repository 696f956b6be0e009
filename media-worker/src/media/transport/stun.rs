//! Just enough STUN (RFC 8489) for ICE-lite: binding requests in, success responses out.
//!
//! A [`Request`] borrows the datagram; nothing is trusted before [`Request::is_authentic`] says so.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

const HEADER: usize = 20;
const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;

/// Length of an HMAC-SHA1.
const INTEGRITY: usize = 20;
/// RFC 8489, section 14.7: the CRC is XORed with this ("STUN").
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Header, XOR-MAPPED-ADDRESS of an IPv6 address, MESSAGE-INTEGRITY and FINGERPRINT.
const LONGEST_RESPONSE: usize = HEADER + 24 + 24 + 8;

/// A binding request, well formed but not yet believed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    datagram: &'a [u8],
    transaction: [u8; 12],
    /// The user name's two halves: the server's fragment and the client's.
    pub server_fragment: &'a str,
    pub client_fragment: &'a str,
    /// The client nominates the pair (RFC 8445, section 7.2.5.4).
    pub nominates: bool,
    /// Where the MESSAGE-INTEGRITY attribute starts, and its value.
    integrity: (usize, &'a [u8]),
}

impl<'a> Request<'a> {
    /// Reads a binding request with USERNAME and MESSAGE-INTEGRITY; `None` for everything else.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let header = datagram.first_chunk::<HEADER>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let length = usize::from(word(2));
        if word(0) != BINDING_REQUEST
            || header[4..8] != MAGIC_COOKIE.to_be_bytes()
            || HEADER + length != datagram.len()
            || !length.is_multiple_of(4)
        {
            return None;
        }
        let transaction: [u8; 12] = header[8..20].try_into().ok()?;
        let (mut username, mut nominates) = (None, false);
        let mut at = HEADER;
        while let Some(head) = datagram.get(at..)?.first_chunk::<4>() {
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = datagram.get(at + 4..at + 4 + length)?;
            match kind {
                USERNAME => username = Some(value),
                USE_CANDIDATE => nominates = true,
                MESSAGE_INTEGRITY if length == INTEGRITY => {
                    let (server_fragment, client_fragment) =
                        std::str::from_utf8(username?).ok()?.split_once(':')?;
                    let integrity = (at, value);
                    // What follows the integrity is not protected by it, so it is not read.
                    return Some(Self {
                        datagram,
                        transaction,
                        server_fragment,
                        client_fragment,
                        nominates,
                        integrity,
                    });
                }
                _ => {}
            }
            at += 4 + length.next_multiple_of(4);
        }
        None
    }

    /// Whether whoever sent it knows `password` (RFC 8489, section 14.5).
    pub fn is_authentic(&self, password: &str) -> bool {
        let (at, expected) = self.integrity;
        // The length field counts up to and including the integrity attribute.
        let Ok(length) = u16::try_from(at - HEADER + 4 + INTEGRITY) else { return false };
        let mut hmac = hmac::Context::with_key(&key(password));
        hmac.update(&self.datagram[..2]);
        hmac.update(&length.to_be_bytes());
        hmac.update(&self.datagram[4..at]);
        aws_lc_rs::constant_time::verify_slices_are_equal(hmac.sign().as_ref(), expected).is_ok()
    }

    /// The success response: the address the request was seen from, authenticated with `password`.
    pub fn success(&self, seen_from: SocketAddr, password: &str) -> Response {
        let mut out = Response { bytes: [0; LONGEST_RESPONSE], length: 0 };
        out.put_words(&[BINDING_SUCCESS, 0]);
        out.put(&MAGIC_COOKIE.to_be_bytes());
        out.put(&self.transaction);
        put_xor_mapped_address(&mut out, seen_from, &self.transaction);

        out.set_length(4 + INTEGRITY);
        let integrity = hmac::sign(&key(password), out.as_bytes());
        out.put_words(&[MESSAGE_INTEGRITY, INTEGRITY as u16]);
        out.put(integrity.as_ref());

        out.set_length(8);
        let fingerprint = crc32(out.as_bytes()) ^ FINGERPRINT_XOR;
        out.put_words(&[FINGERPRINT, 4]);
        out.put(&fingerprint.to_be_bytes());
        out
    }
}

fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A response, without memory of its own: clients check every few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    bytes: [u8; LONGEST_RESPONSE],
    length: usize,
}

impl Response {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }

    fn put_words(&mut self, words: &[u16]) {
        for word in words {
            self.put(&word.to_be_bytes());
        }
    }

    /// Sets the length field as if `more` bytes followed what is written already.
    fn set_length(&mut self, more: usize) {
        let length = (self.length - HEADER + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// RFC 8489, section 14.2.
fn put_xor_mapped_address(out: &mut Response, address: SocketAddr, transaction: &[u8; 12]) {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let mut put = |family: u8, octets: &[u8]| {
        out.put_words(&[XOR_MAPPED_ADDRESS, 4 + octets.len() as u16]);
        out.put(&[0, family]);
        out.put_words(&[port]);
        for (octet, mask) in octets.iter().zip(mask) {
            out.put(&[octet ^ mask]);
        }
    };
    match address.ip() {
        IpAddr::V4(ip) => put(1, &ip.octets()),
        IpAddr::V6(ip) => put(2, &ip.octets()),
    }
}

/// CRC-32 as in ITU V.42 (RFC 8489, section 14.7).
fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 != 0 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !data.iter().fold(u32::MAX, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// Builds a binding request as a client would; for tests here and next door.
#[cfg(test)]
pub fn request(user: &str, password: &str, nominates: bool) -> Vec<u8> {
    use bytes::BufMut;
    let mut out = Vec::new();
    out.put_u16(BINDING_REQUEST);
    out.put_u16(0);
    out.put_u32(MAGIC_COOKIE);
    out.put_slice(b"twelve bytes");
    out.put_u16(USERNAME);
    out.put_u16(user.len() as u16);
    out.put_slice(user.as_bytes());
    out.put_bytes(0, user.len().next_multiple_of(4) - user.len());
    if nominates {
        out.put_u16(USE_CANDIDATE);
        out.put_u16(0);
    }
    let length = (out.len() - HEADER + 4 + INTEGRITY) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let integrity = hmac::sign(&key(password), &out);
    out.put_u16(MESSAGE_INTEGRITY);
    out.put_u16(INTEGRITY as u16);
    out.put_slice(integrity.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::crypto::default_provider;
    use rtc::stun::message::{Getter, Message};
    use rtc::stun::xoraddr::XorMappedAddress;

    use super::*;

    #[test]
    fn believes_the_password_and_nothing_else() {
        let datagram = request("server:client", "secret", true);
        let request = Request::parse(&datagram).unwrap();
        assert_eq!((request.server_fragment, request.client_fragment), ("server", "client"));
        assert!(request.nominates);
        assert!(request.is_authentic("secret"));
        assert!(!request.is_authentic("guess"));
    }

    #[test]
    fn a_changed_request_is_not_authentic() {
        let datagram = request("server:client", "secret", false);
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            let believed = Request::parse(&changed).is_some_and(|it| it.is_authentic("secret"));
            assert!(!believed, "byte {at} is not protected");
        }
    }

    #[test]
    fn another_implementation_reads_the_response() {
        let provider = default_provider().unwrap();
        let datagram = request("server:client", "secret", false);
        for address in ["192.0.2.7:4711", "[2001:db8::7]:4711"] {
            let address: SocketAddr = address.parse().unwrap();
            let response = Request::parse(&datagram).unwrap().success(address, "secret");
            let mut message = Message::new();
            message.unmarshal_binary(response.as_bytes()).unwrap();
            rtc::stun::fingerprint::FINGERPRINT.check(&message).unwrap();
            let mut seen = XorMappedAddress::default();
            seen.get_from(&message).unwrap();
            assert_eq!((seen.ip, seen.port), (address.ip(), address.port()));
            let mut changed = message.clone();
            rtc::stun::integrity::MessageIntegrity::check(&mut message, b"secret", provider.crypto())
                .unwrap();
            assert!(
                rtc::stun::integrity::MessageIntegrity::check(&mut changed, b"guess", provider.crypto())
                    .is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut datagram in proptest::collection::vec(any::<u8>(), 0..200), plausible: bool) {
            if plausible && datagram.len() >= HEADER {
                let length = (datagram.len() - HEADER) as u16;
                datagram[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
                datagram[2..4].copy_from_slice(&length.to_be_bytes());
                datagram[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            }
            if let Some(request) = Request::parse(&datagram) {
                prop_assert!(!request.is_authentic("secret"));
            }
        }
    }
}
