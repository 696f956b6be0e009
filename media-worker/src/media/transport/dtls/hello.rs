//! Looks into a ClientHello for the one thing that must be known before it is answered.

/// `use_srtp` (RFC 5764, section 4.1.1) and its profile AEAD_AES_128_GCM (RFC 7714, section 14.2).
const USE_SRTP: u16 = 14;
const AEAD_AES_128_GCM: u16 = 7;

/// Whether a datagram is a ClientHello that offers AES-GCM for SRTP. `false` for everything else, also
/// for a ClientHello in several fragments: then the client's own order decides.
pub fn offers_gcm(datagram: &[u8]) -> bool {
    profiles(datagram).is_some_and(|profiles| {
        profiles.chunks_exact(2).any(|profile| profile == AEAD_AES_128_GCM.to_be_bytes())
    })
}

/// The profile list. RFC 6347, section 4.2; RFC 5246, section 7.4.1.2.
fn profiles(datagram: &[u8]) -> Option<&[u8]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let mut input = Input(datagram);
    let record = input.take(13)?;
    let handshake = input.take(12)?;
    if record[0] != HANDSHAKE || handshake[0] != CLIENT_HELLO {
        return None;
    }
    // Client version and random; then session id, cookie, cipher suites and compression methods.
    input.take(2 + 32)?;
    input.block(1)?;
    input.block(1)?;
    input.block(2)?;
    input.block(1)?;
    let mut extensions = Input(input.block(2)?);
    loop {
        let kind = extensions.number(2)?;
        let value = extensions.block(2)?;
        if kind == usize::from(USE_SRTP) {
            return Input(value).block(2);
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of one or two bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)))
    }

    /// Bytes behind their own length.
    fn block(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(profiles: &[u16]) -> Vec<u8> {
        let mut srtp = vec![0, 2 * profiles.len() as u8];
        srtp.extend(profiles.iter().flat_map(|profile| profile.to_be_bytes()));
        srtp.push(0);
        let mut extensions = vec![0, 23, 0, 0, 0, 14, 0, srtp.len() as u8];
        extensions.extend(srtp);
        let mut out = vec![22; 13];
        out.extend([1; 12]);
        out.extend([0; 34]);
        out.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0, 0, extensions.len() as u8]);
        out.extend(extensions);
        out
    }

    #[test]
    fn finds_the_profile_wherever_it_stands() {
        assert!(offers_gcm(&hello(&[7])));
        assert!(offers_gcm(&hello(&[1, 2, 8, 7])));
        assert!(!offers_gcm(&hello(&[1, 0x0700])));
        assert!(!offers_gcm(&hello(&[])));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..120) {
            offers_gcm(&bytes);
            let hello = hello(&[1, 7]);
            offers_gcm(&hello[..cut.min(hello.len())]);
        }
    }
}
