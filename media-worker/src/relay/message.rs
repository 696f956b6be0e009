//! STUN and TURN messages (RFC 8489, section 5; RFC 8656, sections 17 and 18), read from what strangers send and written.
//!
//! A [`Message`] borrows the bytes. Nothing is trusted before [`Message::is_authentic`] says so, and what follows the
//! integrity attribute is never read. FINGERPRINT is neither asked for nor given: the ports carry nothing else that it
//! would tell STUN from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

pub const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
/// Length of an HMAC-SHA1.
const INTEGRITY: usize = 20;
/// Kind and length in front of an attribute; channel number and length in front of channel data.
pub const HEAD: usize = 4;

/// Types of messages: method and class in one (RFC 8489, section 5).
pub mod kind {
    pub const BINDING: u16 = 0x0001;
    pub const ALLOCATE: u16 = 0x0003;
    pub const REFRESH: u16 = 0x0004;
    pub const SEND: u16 = 0x0016;
    pub const DATA: u16 = 0x0017;
    pub const CREATE_PERMISSION: u16 = 0x0008;
    pub const CHANNEL_BIND: u16 = 0x0009;

    pub const SUCCESS: u16 = 0x0100;
    pub const ERROR: u16 = 0x0110;
}

/// Types of attributes.
pub mod attribute {
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    pub const LIFETIME: u16 = 0x000d;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;

    /// What a request may hold; others below 0x8000 must be understood (RFC 8489, section 14), and are not.
    pub const UNDERSTOOD: &[u16] = &[
        USERNAME,
        CHANNEL_NUMBER,
        LIFETIME,
        XOR_PEER_ADDRESS,
        REALM,
        NONCE,
        REQUESTED_ADDRESS_FAMILY,
        REQUESTED_TRANSPORT,
    ];
}

/// A well-formed message, not yet believed.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Header and attributes up to the integrity attribute, without it.
    bytes: &'a [u8],
    /// What [`kind`] has.
    pub kind: u16,
    pub transaction: [u8; 12],
    integrity: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// Reads a message that fills `bytes`; `None` for everything else.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if kind >= 0x4000
            || header[4..8] != MAGIC_COOKIE
            || HEADER + length != bytes.len()
            || !length.is_multiple_of(4)
        {
            return None;
        }
        let transaction = header[8..].try_into().ok()?;
        let mut read = Self { bytes, kind, transaction, integrity: None };
        let mut at = HEADER;
        while at < bytes.len() {
            let (kind, value) = attribute_at(bytes, at)?;
            if kind == attribute::MESSAGE_INTEGRITY {
                read.integrity = Some(value).filter(|value| value.len() == INTEGRITY);
                read.integrity?;
                read.bytes = &bytes[..at];
                break;
            }
            at += HEAD + value.len().next_multiple_of(4);
        }
        Some(read)
    }

    /// The attributes before the integrity, in their order.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let (bytes, mut at) = (self.bytes, HEADER);
        std::iter::from_fn(move || {
            let (kind, value) = attribute_at(bytes, at)?;
            at += HEAD + value.len().next_multiple_of(4);
            Some((kind, value))
        })
    }

    /// The first attribute of a type: others are to be ignored (RFC 8489, section 14).
    pub fn get(&self, wanted: u16) -> Option<&'a [u8]> {
        self.attributes().find_map(|(kind, value)| (kind == wanted).then_some(value))
    }

    pub fn text(&self, wanted: u16) -> Option<&'a str> {
        std::str::from_utf8(self.get(wanted)?).ok()
    }

    pub fn number(&self, wanted: u16) -> Option<u32> {
        self.get(wanted)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn address(&self, wanted: u16) -> Option<SocketAddr> {
        unmasked(self.get(wanted)?, &self.transaction)
    }

    /// The code in an error response.
    pub fn error(&self) -> Option<u16> {
        let value = self.get(attribute::ERROR_CODE)?;
        Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }

    /// Whether it says that somebody vouches for it.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether whoever sent it has this key (RFC 8489, section 14.5).
    pub fn is_authentic(&self, key: &[u8]) -> bool {
        let Some(expected) = self.integrity else { return false };
        // The length counts up to and including the integrity attribute.
        let Ok(length) = u16::try_from(self.bytes.len() - HEADER + HEAD + INTEGRITY) else { return false };
        let mut hmac = hmac::Context::with_key(&sha1(key));
        hmac.update(&self.bytes[..2]);
        hmac.update(&length.to_be_bytes());
        hmac.update(&self.bytes[4..]);
        aws_lc_rs::constant_time::verify_slices_are_equal(hmac.sign().as_ref(), expected).is_ok()
    }
}

fn sha1(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key)
}

fn attribute_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8])> {
    let &[a, b, c, d] = bytes.get(at..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([c, d]));
    Some((u16::from_be_bytes([a, b]), bytes.get(at + HEAD..at + HEAD + length)?))
}

/// An address as it stands in XOR-… attributes (RFC 8489, section 14.2).
pub fn unmasked(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([p0 ^ MAGIC_COOKIE[0], p1 ^ MAGIC_COOKIE[1]]);
    let masks = MAGIC_COOKIE.iter().chain(transaction);
    let ip = match family {
        1 => {
            let mut octets: [u8; 4] = address.try_into().ok()?;
            octets.iter_mut().zip(masks).for_each(|(octet, mask)| *octet ^= mask);
            IpAddr::from(Ipv4Addr::from(octets))
        }
        2 => {
            let mut octets: [u8; 16] = address.try_into().ok()?;
            octets.iter_mut().zip(masks).for_each(|(octet, mask)| *octet ^= mask);
            IpAddr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A message that is being written.
pub struct Writer {
    bytes: Vec<u8>,
    transaction: [u8; 12],
}

impl Writer {
    pub fn new(kind: u16, transaction: [u8; 12]) -> Self {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(transaction);
        Self { bytes, transaction }
    }

    /// An attribute; `value` has less than 64 KiB.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        debug_assert!(value.len() <= usize::from(u16::MAX), "attributes are short");
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Attributes as they are, their padding included.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn with_raw(mut self, attributes: &[u8]) -> Self {
        self.bytes.extend(attributes);
        self
    }

    pub fn with_number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_be_bytes())
    }

    pub fn with_address(self, kind: u16, address: SocketAddr) -> Self {
        let mut value = [0; 20];
        let length = masked(address, &self.transaction, &mut value);
        self.with(kind, &value[..length])
    }

    /// ERROR-CODE, without words: who reads them knows the numbers, and a stranger's forged request gets back little more
    /// than it sent.
    pub fn with_error(self, code: u16) -> Self {
        self.with(attribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8])
    }

    /// The message as it is, without integrity.
    pub fn finish(mut self) -> Vec<u8> {
        self.set_length(0);
        self.bytes
    }

    /// The message, vouched for with a key.
    pub fn sign(mut self, key: &[u8]) -> Vec<u8> {
        self.set_length(HEAD + INTEGRITY);
        let integrity = hmac::sign(&sha1(key), &self.bytes);
        self.with(attribute::MESSAGE_INTEGRITY, integrity.as_ref()).bytes
    }

    fn set_length(&mut self, further: usize) {
        let length = (self.bytes.len() - HEADER + further) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes an address as XOR-… attributes have it; returns its length, 8 or 20.
fn masked(address: SocketAddr, transaction: &[u8; 12], into: &mut [u8; 20]) -> usize {
    let port = address.port().to_be_bytes();
    into[2..4].copy_from_slice(&[port[0] ^ MAGIC_COOKIE[0], port[1] ^ MAGIC_COOKIE[1]]);
    let length = match address.ip() {
        IpAddr::V4(ip) => {
            into[1] = 1;
            into[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            into[1] = 2;
            into[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    let masks = MAGIC_COOKIE.iter().chain(transaction);
    into[4..length].iter_mut().zip(masks).for_each(|(octet, mask)| *octet ^= mask);
    length
}

/// Room in front of a payload for the longer of both heads that it may get: a data indication with an IPv6 address.
pub const FRONT: usize = HEADER + HEAD + 20 + HEAD;
/// Room behind it: padding.
pub const BACK: usize = 3;

/// Writes channel data (RFC 8656, section 12.4) around the payload at `buffer[FRONT..FRONT + length]`; `padded` for TCP.
/// Returns where it stands.
pub fn put_channel_data(
    buffer: &mut [u8],
    length: usize,
    channel: u16,
    padded: bool,
) -> std::ops::Range<usize> {
    let (start, mut end) = (FRONT - HEAD, FRONT + length);
    buffer[start..start + 2].copy_from_slice(&channel.to_be_bytes());
    buffer[start + 2..FRONT].copy_from_slice(&(length as u16).to_be_bytes());
    if padded {
        end = pad(buffer, end, length);
    }
    start..end
}

/// Writes a data indication (RFC 8656, section 11.4) around the payload at `buffer[FRONT..FRONT + length]`. Returns where it
/// stands.
pub fn put_data_indication(
    buffer: &mut [u8],
    length: usize,
    peer: SocketAddr,
    transaction: [u8; 12],
) -> std::ops::Range<usize> {
    let mut address = [0; 20];
    let address = {
        let length = masked(peer, &transaction, &mut address);
        &address[..length]
    };
    let end = pad(buffer, FRONT + length, length);
    let start = FRONT - HEAD - address.len() - HEAD - HEADER;
    let total = (end - start - HEADER) as u16;
    let mut at = start;
    let mut put = |bytes: &[u8]| {
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&kind::DATA.to_be_bytes());
    put(&total.to_be_bytes());
    put(&MAGIC_COOKIE);
    put(&transaction);
    put(&attribute::XOR_PEER_ADDRESS.to_be_bytes());
    put(&(address.len() as u16).to_be_bytes());
    put(address);
    put(&attribute::DATA.to_be_bytes());
    put(&(length as u16).to_be_bytes());
    start..end
}

fn pad(buffer: &mut [u8], end: usize, length: usize) -> usize {
    let padded = end + length.next_multiple_of(4) - length;
    buffer[end..padded].fill(0);
    padded
}

/// Numbers of channels (RFC 8656, section 12); others are reserved.
pub const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4fff;

/// Channel data: its channel and payload. `None` when it is not that, or cut off.
pub fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (&[a, b, c, d], payload) = bytes.split_first_chunk()?;
    let channel = u16::from_be_bytes([a, b]);
    CHANNELS.contains(&channel).then_some((channel, payload.get(..usize::from(u16::from_be_bytes([c, d])))?))
}

/// How long the message is that a stream goes on with (RFC 8656, section 12.5), with its padding; `None` while that cannot
/// be known.
///
/// # Errors
/// It is none of ours.
pub fn length_in_stream(bytes: &[u8]) -> Result<Option<usize>, NoMessage> {
    let Some(&[first, _, c, d]) = bytes.first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([c, d]));
    match first >> 6 {
        0 => Ok(Some(HEADER + length)),
        1 => Ok(Some(HEAD + length.next_multiple_of(4))),
        _ => Err(NoMessage),
    }
}

/// See [`length_in_stream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMessage;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::stun::message::{Getter, Message as Reference};
    use rtc::stun::xoraddr::XorMappedAddress;
    use rtc::turn::proto::data::Data;
    use rtc::turn::proto::peeraddr::PeerAddress;

    use super::*;

    fn reference(bytes: &[u8]) -> Reference {
        let mut message = Reference { raw: bytes.to_vec(), ..Reference::default() };
        message.decode().unwrap();
        message
    }

    #[test]
    fn what_is_written_is_read_by_others_and_by_us() {
        for address in ["192.0.2.1:40000", "[2001:db8::7]:9"] {
            let address: SocketAddr = address.parse().unwrap();
            let bytes = Writer::new(kind::ALLOCATE | kind::SUCCESS, [7; 12])
                .with_address(attribute::XOR_MAPPED_ADDRESS, address)
                .with(attribute::NONCE, b"odd")
                .sign(b"key");
            let mut theirs = XorMappedAddress::default();
            let mut message = reference(&bytes);
            theirs.get_from(&message).unwrap();
            assert_eq!((theirs.ip, theirs.port), (address.ip(), address.port()));
            let provider = rtc::crypto::default_provider().unwrap();
            rtc::stun::integrity::MessageIntegrity::check(&mut message, b"key", provider.crypto()).unwrap();

            let ours = Message::parse(&bytes).unwrap();
            assert_eq!(ours.address(attribute::XOR_MAPPED_ADDRESS), Some(address));
            assert_eq!(ours.text(attribute::NONCE), Some("odd"));
            assert!(ours.is_authentic(b"key") && !ours.is_authentic(b"guess"));
            let mut changed = bytes.clone();
            changed[HEADER + 9] ^= 1;
            assert!(!Message::parse(&changed).unwrap().is_authentic(b"key"));
        }
        let bytes = Writer::new(kind::REFRESH | kind::ERROR, [7; 12]).with_error(438).finish();
        assert_eq!(Message::parse(&bytes).unwrap().error(), Some(438));
    }

    #[test]
    fn what_follows_the_integrity_is_not_read() {
        let signed = Writer::new(kind::REFRESH, [1; 12]).sign(b"key");
        let mut smuggled = Writer { bytes: signed, transaction: [1; 12] };
        smuggled = smuggled.with_number(attribute::LIFETIME, 9);
        let bytes = smuggled.finish();
        let read = Message::parse(&bytes).unwrap();
        assert_eq!(read.number(attribute::LIFETIME), None);
        assert!(read.is_authentic(b"key"), "and does not break it");
    }

    #[test]
    fn payloads_get_their_heads_in_place() {
        let mut buffer = [0xee; FRONT + 5 + BACK];
        buffer[FRONT..FRONT + 5].copy_from_slice(b"hello");
        for peer in ["192.0.2.1:40000", "[2001:db8::7]:9"] {
            let peer: SocketAddr = peer.parse().unwrap();
            let range = put_data_indication(&mut buffer, 5, peer, [3; 12]);
            let message = reference(&buffer[range.clone()]);
            let (mut from, mut data) = (PeerAddress::default(), Data::default());
            from.get_from(&message).unwrap();
            data.get_from(&message).unwrap();
            assert_eq!((from.ip, from.port, &data.0[..]), (peer.ip(), peer.port(), &b"hello"[..]));
            assert_eq!(Message::parse(&buffer[range]).unwrap().kind, kind::DATA);
        }
        let range = put_channel_data(&mut buffer, 5, 0x4001, false);
        assert_eq!(channel_data(&buffer[range.clone()]), Some((0x4001, &b"hello"[..])));
        assert_eq!(range.len(), 9);
        let range = put_channel_data(&mut buffer, 5, 0x4001, true);
        assert_eq!(length_in_stream(&buffer[range.clone()]), Ok(Some(range.len())));
        assert_eq!(range.len(), 12);
    }

    #[test]
    fn cut_off_and_reserved_ones_are_none() {
        let whole = Writer::new(kind::ALLOCATE, [0; 12]).with_number(attribute::LIFETIME, 1).sign(b"k");
        for end in 0..whole.len() {
            assert!(Message::parse(&whole[..end]).is_none(), "{end}");
        }
        assert_eq!(channel_data(&[0x40, 0, 0, 2, 1]), None);
        assert_eq!(channel_data(&[0x50, 0, 0, 0]), None);
        assert_eq!(length_in_stream(&[0x16, 3, 1]), Ok(None));
        assert_eq!(length_in_stream(b"\x80\0\0\0"), Err(NoMessage));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            if whole && bytes.len() >= HEADER {
                let length = (bytes.len() - HEADER) & !3;
                bytes.truncate(HEADER + length);
                bytes[0] &= 0x3f;
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            if let Some(message) = Message::parse(&bytes) {
                message.is_authentic(b"key");
                message.error();
                message.attributes().for_each(|(kind, _)| { message.address(kind); message.text(kind); });
            }
            channel_data(&bytes);
            let _ = length_in_stream(&bytes);
        }
    }
}
