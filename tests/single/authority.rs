//! A private certificate authority, as a company has one.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

pub type Issuer = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a new certificate for this machine's loopback names, and its key.
pub fn issue(authority: &Issuer, certificate: &Path, key: &Path) -> Vec<u8> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let pair = KeyPair::generate().unwrap();
    let made = CertificateParams::new(names).unwrap().signed_by(&pair, authority).unwrap();
    std::fs::write(certificate, made.pem()).unwrap();
    std::fs::write(key, pair.serialize_pem()).unwrap();
    made.der().to_vec()
}
