//! The two protection profiles, in place: AEAD_AES_128_GCM (RFC 7714) and AES_CM_128_HMAC_SHA1_80 (RFC 3711).
//!
//! A [`Cipher`] holds the session keys of one direction for either RTP or RTCP. Nothing here allocates
//! once it is made.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

/// Which protection was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    AeadAes128Gcm,
    Aes128CmHmacSha1_80,
}

impl Profile {
    /// Bytes that protection adds to a packet's tag; an SRTCP index comes on top.
    pub const fn tag(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 16,
            Self::Aes128CmHmacSha1_80 => 10,
        }
    }
}

/// What a cipher protects: the labels of its keys (RFC 3711, section 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Rtp,
    Rtcp,
}

impl Stream {
    /// Labels of the encryption key, the authentication key and the salt.
    const fn labels(self) -> [u8; 3] {
        match self {
            Self::Rtp => [0, 1, 2],
            Self::Rtcp => [3, 4, 5],
        }
    }
}

/// The session keys of one direction, for RTP or for RTCP.
pub struct Cipher(Keys);

enum Keys {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Sha1(Box<Sha1>),
}

struct Sha1 {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

/// RFC 3711, section 4.3.1: `length` bytes of key stream under the master key.
fn derive(
    master: &EncryptingKey,
    master_salt: &[u8; 14],
    label: u8,
    out: &mut [u8],
) -> Result<(), Unspecified> {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(master_salt);
    iv[7] ^= label;
    out.fill(0);
    master.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    Ok(())
}

impl Cipher {
    /// Derives the session keys from a master key and its salt.
    ///
    /// # Errors
    /// A key or salt of the wrong length.
    pub fn new(
        profile: Profile,
        stream: Stream,
        master_key: &[u8],
        salt: &[u8],
    ) -> Result<Self, Unspecified> {
        let master = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, master_key)?)?;
        // RFC 7714, section 11: the shorter salt of AES-GCM is continued with zeros.
        let mut master_salt = [0; 14];
        master_salt.get_mut(..salt.len()).ok_or(Unspecified)?.copy_from_slice(salt);
        let [encryption, authentication, salting] = stream.labels();
        let (mut key, mut session_salt) = ([0; 16], [0; 14]);
        derive(&master, &master_salt, encryption, &mut key)?;
        derive(&master, &master_salt, salting, &mut session_salt)?;
        Ok(Self(match profile {
            Profile::AeadAes128Gcm => {
                let mut salt = [0; 12];
                salt.copy_from_slice(&session_salt[..12]);
                Keys::Gcm { key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?), salt }
            }
            Profile::Aes128CmHmacSha1_80 => {
                let mut secret = [0; 20];
                derive(&master, &master_salt, authentication, &mut secret)?;
                Keys::Sha1(Box::new(Sha1 {
                    key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &key)?)?,
                    salt: session_salt,
                    authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret),
                }))
            }
        }))
    }

    /// Protects `packet`: its first `header` bytes stay readable, its last [`Profile::tag`] bytes are
    /// room for the tag. `index` is the 48-bit packet index (section 3.3.1).
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unspecified> {
        match &self.0 {
            Keys::Gcm { key, salt } => {
                let (head, body) = packet.split_at_mut_checked(header).ok_or(Unspecified)?;
                seal_gcm(key, gcm_iv(salt, ssrc, index), head, body)
            }
            Keys::Sha1(keys) => {
                let Sha1 { key, salt, authentication } = &**keys;
                let end = packet.len().checked_sub(10).ok_or(Unspecified)?;
                let (clear, tag) = packet.split_at_mut(end);
                let body = clear.get_mut(header..).ok_or(Unspecified)?;
                key.less_safe_encrypt(body, cm_iv(salt, ssrc, index))?;
                let roc = ((index >> 16) as u32).to_be_bytes();
                tag.copy_from_slice(&sign(authentication, clear, &roc));
                Ok(())
            }
        }
    }

    /// Opens what [`Cipher::seal_rtp`] makes; returns the length without the tag.
    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, Unspecified> {
        match &self.0 {
            Keys::Gcm { key, salt } => {
                let (head, body) = packet.split_at_mut_checked(header).ok_or(Unspecified)?;
                let clear =
                    key.open_in_place(nonce(gcm_iv(salt, ssrc, index)), Aad::from(&*head), body)?.len();
                Ok(header + clear)
            }
            Keys::Sha1(keys) => {
                let Sha1 { key, salt, authentication } = &**keys;
                let end = packet.len().checked_sub(10).ok_or(Unspecified)?;
                let (clear, tag) = packet.split_at_mut(end);
                let roc = ((index >> 16) as u32).to_be_bytes();
                verify(&sign(authentication, clear, &roc), tag)?;
                let body = clear.get_mut(header..).ok_or(Unspecified)?;
                key.less_safe_encrypt(body, cm_iv(salt, ssrc, index))?;
                Ok(end)
            }
        }
    }

    /// Protects an RTCP compound in place and appends tag and index (RFC 3711, section 3.4; RFC 7714,
    /// section 9). `index` has 31 bits.
    pub fn seal_rtcp(&self, compound: &mut Vec<u8>, ssrc: u32, index: u32) -> Result<(), Unspecified> {
        let word = (1 << 31 | index).to_be_bytes();
        match &self.0 {
            Keys::Gcm { key, salt } => {
                let (head, body) = compound.split_at_mut_checked(8).ok_or(Unspecified)?;
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(head);
                aad[8..].copy_from_slice(&word);
                let iv = nonce(gcm_iv(salt, ssrc, u64::from(index)));
                let tag = key.seal_in_place_separate_tag(iv, Aad::from(aad), body)?;
                compound.extend_from_slice(tag.as_ref());
                compound.extend_from_slice(&word);
            }
            Keys::Sha1(keys) => {
                let Sha1 { key, salt, authentication } = &**keys;
                let body = compound.get_mut(8..).ok_or(Unspecified)?;
                key.less_safe_encrypt(body, cm_iv(salt, ssrc, u64::from(index)))?;
                compound.extend_from_slice(&word);
                let tag = sign(authentication, compound, &[]);
                compound.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// The index that a protected compound names; it is not authentic before [`Cipher::open_rtcp`].
    /// `None` when the compound is too short, or not encrypted.
    pub fn rtcp_index(&self, compound: &[u8]) -> Option<u32> {
        let behind = match &self.0 {
            Keys::Gcm { .. } => 0,
            Keys::Sha1(_) => 10,
        };
        let word = compound.len().checked_sub(behind + 4)?;
        let word = u32::from_be_bytes(*compound.get(word..)?.first_chunk::<4>()?);
        (word >> 31 == 1).then_some(word & !(1 << 31))
    }

    /// Opens what [`Cipher::seal_rtcp`] makes; returns the length of the compound.
    pub fn open_rtcp(&self, compound: &mut [u8], ssrc: u32, index: u32) -> Result<usize, Unspecified> {
        match &self.0 {
            Keys::Gcm { key, salt } => {
                let end = compound.len().checked_sub(4).ok_or(Unspecified)?;
                let (clear, word) = compound.split_at_mut(end);
                let (head, body) = clear.split_at_mut_checked(8).ok_or(Unspecified)?;
                let mut aad = [0; 12];
                aad[..8].copy_from_slice(head);
                aad[8..].copy_from_slice(word);
                let iv = nonce(gcm_iv(salt, ssrc, u64::from(index)));
                Ok(8 + key.open_in_place(iv, Aad::from(aad), body)?.len())
            }
            Keys::Sha1(keys) => {
                let Sha1 { key, salt, authentication } = &**keys;
                let end = compound.len().checked_sub(10).ok_or(Unspecified)?;
                let (clear, tag) = compound.split_at_mut(end);
                verify(&sign(authentication, clear, &[]), tag)?;
                let end = end.checked_sub(4).ok_or(Unspecified)?;
                let body = clear.get_mut(8..end).ok_or(Unspecified)?;
                key.less_safe_encrypt(body, cm_iv(salt, ssrc, u64::from(index)))?;
                Ok(end)
            }
        }
    }
}

fn seal_gcm(key: &LessSafeKey, iv: [u8; 12], head: &[u8], body: &mut [u8]) -> Result<(), Unspecified> {
    let end = body.len().checked_sub(16).ok_or(Unspecified)?;
    let (body, room) = body.split_at_mut(end);
    let tag = key.seal_in_place_separate_tag(nonce(iv), Aad::from(head), body)?;
    room.copy_from_slice(tag.as_ref());
    Ok(())
}

fn nonce(iv: [u8; 12]) -> Nonce {
    Nonce::assume_unique_for_key(iv)
}

/// RFC 7714, sections 8.1 and 9.1: two zero bytes, SSRC and the 48-bit index (for RTCP the 31-bit one,
/// behind zeros), XORed with the salt.
fn gcm_iv(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[6..], &index.to_be_bytes()[2..]);
    iv
}

/// RFC 3711, section 4.1.1.
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> EncryptionContext {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    EncryptionContext::Iv128(FixedLength::from(iv))
}

fn xor(out: &mut [u8], with: &[u8]) {
    for (out, with) in out.iter_mut().zip(with) {
        *out ^= with;
    }
}

/// HMAC-SHA1, cut off after 80 bits.
fn sign(key: &hmac::Key, clear: &[u8], behind: &[u8]) -> [u8; 10] {
    let mut context = hmac::Context::with_key(key);
    context.update(clear);
    context.update(behind);
    let mut tag = [0; 10];
    tag.copy_from_slice(&context.sign().as_ref()[..10]);
    tag
}

fn verify(expected: &[u8; 10], tag: &[u8]) -> Result<(), Unspecified> {
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag)
}
