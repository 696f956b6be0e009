//! A client's connectivity checks (RFC 8489, RFC 8445): requests, and answers to the server's.

use std::net::{IpAddr, SocketAddr};

use rand::RngExt;
use rtc::crypto::{HmacAlgorithm, RTCCrypto};

const HEADER: usize = 20;
const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

/// A peer-reflexive candidate's type preference, component 1 (RFC 8445, section 5.1.2).
const PEER_REFLEXIVE: u32 = 110 << 24 | 65_535 << 8 | 255;

pub type Transaction = [u8; 12];

/// ICE credentials of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub fragment: String,
    pub password: String,
}

impl Credentials {
    pub fn generate() -> Self {
        Self { fragment: token(8), password: token(32) }
    }
}

/// Random ICE characters (RFC 8839, section 5.4).
pub fn token(length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..64)])).collect()
}

/// What a STUN datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Request(Transaction),
    Success(Transaction),
    Other,
}

/// Sorts a STUN datagram. Its integrity is not checked: a load generator has nothing to protect.
pub fn read(datagram: &[u8]) -> Message {
    let Some(header) = datagram.first_chunk::<HEADER>() else { return Message::Other };
    if header[4..8] != MAGIC_COOKIE.to_be_bytes() {
        return Message::Other;
    }
    let mut transaction = [0; 12];
    transaction.copy_from_slice(&header[8..]);
    match u16::from_be_bytes([header[0], header[1]]) {
        BINDING_REQUEST => Message::Request(transaction),
        BINDING_SUCCESS => Message::Success(transaction),
        _ => Message::Other,
    }
}

/// A check from `local` to `remote`. The controlling side nominates with every check.
pub fn request(
    local: &Credentials,
    remote: &Credentials,
    is_controlling: bool,
    transaction: Transaction,
    crypto: &dyn RTCCrypto,
) -> Vec<u8> {
    let mut out = start(BINDING_REQUEST, transaction);
    attribute(&mut out, USERNAME, format!("{}:{}", remote.fragment, local.fragment).as_bytes());
    attribute(&mut out, PRIORITY, &PEER_REFLEXIVE.to_be_bytes());
    let role = if is_controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
    attribute(&mut out, role, &transaction[..8]);
    if is_controlling {
        attribute(&mut out, USE_CANDIDATE, &[]);
    }
    finish(&mut out, &remote.password, crypto);
    out
}

/// The answer to a check that was seen from `from`.
pub fn success(
    transaction: Transaction,
    from: SocketAddr,
    local: &Credentials,
    crypto: &dyn RTCCrypto,
) -> Vec<u8> {
    let mut out = start(BINDING_SUCCESS, transaction);
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction);
    let (family, octets) = match from.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend_from_slice(&(from.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes());
    value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    attribute(&mut out, XOR_MAPPED_ADDRESS, &value);
    finish(&mut out, &local.password, crypto);
    out
}

fn start(kind: u16, transaction: Transaction) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
    out.extend_from_slice(&transaction);
    out
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    // Everything written here is far below 64 KiB.
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489, sections 14.5 and 14.7).
fn finish(out: &mut Vec<u8>, password: &str, crypto: &dyn RTCCrypto) {
    set_length(out, 24);
    let mut integrity = [0; 20];
    // SHA-1 with a short key is something that every provider does.
    if let Ok(mut hmac) = crypto.new_hmac(HmacAlgorithm::Sha1, password.as_bytes()) {
        let _ = hmac.sign(&[&out[..]], &mut integrity);
    }
    attribute(out, MESSAGE_INTEGRITY, &integrity);
    set_length(out, 8);
    let fingerprint = crc32(out) ^ 0x5354_554e;
    attribute(out, FINGERPRINT, &fingerprint.to_be_bytes());
}

fn set_length(out: &mut [u8], more: usize) {
    let length = (out.len() - HEADER + more) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |value, _| {
            if value & 1 != 0 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use rtc::stun::message::{Getter, Message as Stun};
    use rtc::stun::xoraddr::XorMappedAddress;

    use super::*;

    fn credentials() -> (Credentials, Credentials) {
        (Credentials::generate(), Credentials::generate())
    }

    #[test]
    fn another_implementation_reads_checks_and_answers() {
        let provider = rtc::crypto::default_provider().unwrap();
        let (local, remote) = credentials();
        let bytes = request(&local, &remote, true, [7; 12], provider.crypto());
        let mut message = Stun::new();
        message.unmarshal_binary(&bytes).unwrap();
        let password = remote.password.as_bytes();
        rtc::stun::integrity::MessageIntegrity::check(&mut message, password, provider.crypto()).unwrap();
        rtc::stun::fingerprint::FINGERPRINT.check(&message).unwrap();
        assert_eq!(read(&bytes), Message::Request([7; 12]));

        let from: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        let bytes = success([7; 12], from, &local, provider.crypto());
        assert_eq!(read(&bytes), Message::Success([7; 12]));
        let mut message = Stun::new();
        message.unmarshal_binary(&bytes).unwrap();
        let mut address = XorMappedAddress::default();
        address.get_from(&message).unwrap();
        assert_eq!((address.ip, address.port), (from.ip(), from.port()));
    }

    #[test]
    fn what_is_no_stun_is_nothing() {
        assert_eq!(read(&[]), Message::Other);
        assert_eq!(read(&[0; 40]), Message::Other, "no cookie");
    }
}
