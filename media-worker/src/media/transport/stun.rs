//! Just enough STUN (RFC 8489) for ICE-lite: binding requests in, success responses out.
//!
//! A [`Request`] borrows the datagram; nothing is trusted before [`Request::is_authentic`] says so.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, BytesMut};
use rtc::crypto::{HmacAlgorithm, RTCCrypto};

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
    pub fn is_authentic(&self, password: &str, crypto: &dyn RTCCrypto) -> bool {
        let (at, expected) = self.integrity;
        // The length field counts up to and including the integrity attribute.
        let Ok(length) = u16::try_from(at - HEADER + 4 + INTEGRITY) else { return false };
        let protected = [&self.datagram[..2], &length.to_be_bytes(), &self.datagram[4..at]];
        let Ok(mut hmac) = crypto.new_hmac(HmacAlgorithm::Sha1, password.as_bytes()) else { return false };
        hmac.verify(&protected, expected).is_ok()
    }

    /// The success response: the address the request was seen from, authenticated with `password`.
    /// `None` when the crypto provider fails.
    pub fn success(&self, seen_from: SocketAddr, password: &str, crypto: &dyn RTCCrypto) -> Option<BytesMut> {
        let mut out = BytesMut::with_capacity(96);
        out.put_u16(BINDING_SUCCESS);
        out.put_u16(0);
        out.put_u32(MAGIC_COOKIE);
        out.put_slice(&self.transaction);
        put_xor_mapped_address(&mut out, seen_from, &self.transaction);

        set_length(&mut out, 4 + INTEGRITY);
        let mut hmac = crypto.new_hmac(HmacAlgorithm::Sha1, password.as_bytes()).ok()?;
        let mut integrity = [0; INTEGRITY];
        hmac.sign(&[&out], &mut integrity).ok()?;
        out.put_u16(MESSAGE_INTEGRITY);
        out.put_u16(INTEGRITY as u16);
        out.put_slice(&integrity);

        set_length(&mut out, 8);
        let fingerprint = crc32(&out) ^ FINGERPRINT_XOR;
        out.put_u16(FINGERPRINT);
        out.put_u16(4);
        out.put_u32(fingerprint);
        Some(out)
    }
}

/// Sets the length field as if `more` bytes followed what is written already.
fn set_length(message: &mut BytesMut, more: usize) {
    // The messages written here are below 100 bytes.
    let length = (message.len() - HEADER + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// RFC 8489, section 14.2.
fn put_xor_mapped_address(out: &mut BytesMut, address: SocketAddr, transaction: &[u8; 12]) {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let mut put = |family: u8, octets: &[u8]| {
        out.put_u16(XOR_MAPPED_ADDRESS);
        out.put_u16(4 + octets.len() as u16);
        out.put_u8(0);
        out.put_u8(family);
        out.put_u16(port);
        for (octet, mask) in octets.iter().zip(mask) {
            out.put_u8(octet ^ mask);
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
pub fn request(user: &str, password: &str, nominates: bool, crypto: &dyn RTCCrypto) -> Vec<u8> {
    let mut out = BytesMut::new();
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
    set_length(&mut out, 4 + INTEGRITY);
    let mut integrity = [0; INTEGRITY];
    crypto.new_hmac(HmacAlgorithm::Sha1, password.as_bytes()).unwrap().sign(&[&out], &mut integrity).unwrap();
    out.put_u16(MESSAGE_INTEGRITY);
    out.put_u16(INTEGRITY as u16);
    out.put_slice(&integrity);
    out.to_vec()
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
        let provider = default_provider().unwrap();
        let datagram = request("server:client", "secret", true, provider.crypto());
        let request = Request::parse(&datagram).unwrap();
        assert_eq!((request.server_fragment, request.client_fragment), ("server", "client"));
        assert!(request.nominates);
        assert!(request.is_authentic("secret", provider.crypto()));
        assert!(!request.is_authentic("guess", provider.crypto()));
    }

    #[test]
    fn a_changed_request_is_not_authentic() {
        let provider = default_provider().unwrap();
        let datagram = request("server:client", "secret", false, provider.crypto());
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            let believed =
                Request::parse(&changed).is_some_and(|it| it.is_authentic("secret", provider.crypto()));
            assert!(!believed, "byte {at} is not protected");
        }
    }

    #[test]
    fn another_implementation_reads_the_response() {
        let provider = default_provider().unwrap();
        let datagram = request("server:client", "secret", false, provider.crypto());
        for address in ["192.0.2.7:4711", "[2001:db8::7]:4711"] {
            let address: SocketAddr = address.parse().unwrap();
            let response =
                Request::parse(&datagram).unwrap().success(address, "secret", provider.crypto()).unwrap();
            let mut message = Message::new();
            message.unmarshal_binary(&response).unwrap();
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
                let provider = default_provider().unwrap();
                prop_assert!(!request.is_authentic("secret", provider.crypto()));
            }
        }
    }
}
