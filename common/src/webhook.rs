//! What API and workers agree on about webhooks: what a receiver is called in the store, and how bodies are signed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::time::UnixMillis;
use crate::token::{ApiKeys, TokenError};

/// How long a signature is good for; every try makes a new one.
pub const SIGNATURE_TTL: Duration = Duration::from_secs(5 * 60);

/// The name under which entries are owed to the receiver at this URL: the URL itself may hold a secret.
pub fn receiver_id(url: &str) -> String {
    let hash = Sha256::digest(url.as_bytes());
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("whr_{hex}")
}

/// The claims of a webhook's signature, as LiveKit's libraries check them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The id of the API key whose secret signs.
    pub iss: String,
    /// In seconds since 1970.
    pub nbf: i64,
    pub exp: i64,
    /// The SHA-256 of the body in Base64 (RFC 4648, section 4).
    pub sha256: String,
}

/// A JWT (HS256) that says that the holder of the key sent this body now.
///
/// # Errors
/// [`TokenError::UnknownKey`] when there is no such key.
pub fn sign(keys: &ApiKeys, key_id: &str, body: &[u8]) -> Result<String, TokenError> {
    let now = UnixMillis::now().0 / 1_000;
    let signature = Signature {
        iss: key_id.to_owned(),
        nbf: now,
        exp: now + i64::try_from(SIGNATURE_TTL.as_secs()).unwrap_or(i64::MAX),
        sha256: STANDARD.encode(Sha256::digest(body)),
    };
    keys.sign(key_id, &signature)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    #[test]
    fn a_signature_is_of_one_body_by_one_key_for_a_while() {
        let secret = "a-secret-of-sixteen-or-more";
        let keys: ApiKeys = format!("key1:{secret},key2:another-secret-of-sixteen").parse().unwrap();
        let token = sign(&keys, "key1", b"{}").unwrap();
        let validation = Validation::new(Algorithm::HS256);
        let open = |secret: &str| {
            jsonwebtoken::decode::<Signature>(
                &token,
                &DecodingKey::from_secret(secret.as_bytes()),
                &validation,
            )
        };
        let claims = open(secret).unwrap().claims;
        // `printf '{}' | openssl dgst -sha256 -binary | base64`
        assert_eq!(claims.sha256, "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=");
        assert_eq!((claims.iss.as_str(), claims.exp - claims.nbf), ("key1", 300));
        assert!(open("another-secret-of-sixteen").is_err());
        assert_eq!(sign(&keys, "key3", b"{}"), Err(TokenError::UnknownKey));
    }

    #[test]
    fn a_receiver_has_one_name_that_does_not_show_its_url() {
        let id = receiver_id("https://example.org/hook?secret=1");
        assert_eq!(id, receiver_id("https://example.org/hook?secret=1"));
        assert_ne!(id, receiver_id("https://example.org/hook?secret=2"));
        assert!(id.len() == 20 && !id.contains("example"));
    }
}
