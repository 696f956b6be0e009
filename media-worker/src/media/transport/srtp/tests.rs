use proptest::prelude::*;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use super::*;

const KEY: [u8; 16] = *b"sixteen byte key";
const SALT: [u8; 14] = *b"fourteen salts";
const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80];

fn salt(profile: Profile) -> &'static [u8] {
    if profile == Profile::AeadAes128Gcm { &SALT[..12] } else { &SALT }
}

fn theirs(profile: Profile) -> Context {
    let named = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let provider = rtc::crypto::default_provider().unwrap();
    Context::new(&KEY, salt(profile), named, None, None, provider.crypto()).unwrap()
}

fn ours(profile: Profile) -> (Outbound, Inbound) {
    (
        Outbound::new(profile, &KEY, salt(profile)).unwrap(),
        Inbound::new(profile, &KEY, salt(profile)).unwrap(),
    )
}

fn rtp(sequence: u16, with_extension: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80 | u8::from(with_extension) << 4, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 9, 0xca, 0xfe, 0, 7]);
    if with_extension {
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0]);
    }
    packet.extend(payload);
    packet
}

const SSRC: u32 = 0xcafe_0007;

fn sealed(outbound: &Outbound, clear: &[u8], index: u32) -> Vec<u8> {
    let mut packet = clear.to_vec();
    packet.resize(clear.len() + outbound.overhead(), 0);
    outbound.seal_rtp(&mut packet, header_length(clear).unwrap(), SSRC, index).unwrap();
    packet
}

/// A receiver report, so that the compound has a body.
fn rtcp() -> Vec<u8> {
    let mut compound = vec![0x81, 201, 0, 7, 0xca, 0xfe, 0, 7];
    compound.extend([5; 24]);
    compound
}

#[test]
fn another_implementation_opens_what_is_sealed_across_the_wrap_of_numbers() {
    for profile in PROFILES {
        let (mut outbound, _) = ours(profile);
        let mut theirs = theirs(profile);
        for index in (65_000..66_200u32).step_by(7) {
            let clear = rtp(index as u16, index % 2 == 0, &[3; 200]);
            let packet = sealed(&outbound, &clear, index);
            assert_eq!(theirs.decrypt_rtp(&packet).unwrap()[..], clear, "{profile:?} {index}");
        }
        for _ in 0..3 {
            let mut compound = rtcp();
            outbound.seal_rtcp(&mut compound).unwrap();
            assert_eq!(theirs.decrypt_rtcp(&compound).unwrap()[..], rtcp(), "{profile:?}");
        }
    }
}

#[test]
fn opens_what_another_implementation_sealed_and_no_copy_of_it() {
    for profile in PROFILES {
        let (_, mut inbound) = ours(profile);
        let mut theirs = theirs(profile);
        for step in 0..3000u32 {
            let clear = rtp((65_000 + step) as u16, step % 2 == 0, &[3; 50]);
            let packet = theirs.encrypt_rtp(&clear).unwrap();
            let mut once = packet.to_vec();
            let length = inbound.open_rtp(&mut once).unwrap();
            assert_eq!(once[..length], clear, "{profile:?} {step}");
            assert!(inbound.open_rtp(&mut packet.to_vec()).is_none(), "a replay");
        }
        let compound = theirs.encrypt_rtcp(&rtcp()).unwrap();
        let mut once = compound.to_vec();
        let length = inbound.open_rtcp(&mut once).unwrap();
        assert_eq!(once[..length], rtcp());
        assert!(inbound.open_rtcp(&mut compound.to_vec()).is_none(), "a replay");
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    for profile in PROFILES {
        let (mut outbound, mut inbound) = ours(profile);
        let packet = sealed(&outbound, &rtp(1, true, &[3; 20]), 1);
        let mut compound = rtcp();
        outbound.seal_rtcp(&mut compound).unwrap();
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(inbound.open_rtp(&mut changed).is_none(), "{profile:?} byte {at} is not protected");
        }
        for at in 0..compound.len() {
            let mut changed = compound.clone();
            changed[at] ^= 1;
            assert!(inbound.open_rtcp(&mut changed).is_none(), "{profile:?} byte {at} is not protected");
        }
        assert!(inbound.open_rtp(&mut packet.clone()).is_some(), "none of that disturbed the stream");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), gcm: bool) {
        let (mut outbound, mut inbound) = ours(PROFILES[usize::from(gcm)]);
        inbound.open_rtp(&mut bytes.clone());
        inbound.open_rtcp(&mut bytes.clone());
        let _ = outbound.seal_rtcp(&mut bytes.clone());
        let _ = outbound.seal_rtp(&mut bytes.clone(), 12, 1, 1);
    }
}
