//! Time-limited credentials for TURN servers that share a secret with this deployment (draft-uberti-behave-turn-rest;
//! coturn's `use-auth-secret`).
//!
//! The user name says until when it is good and for whom it was made, the password is the HMAC-SHA1 of it under the secret.
//! A TURN server needs no list of users, and nobody has to be told when a participant leaves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::ParticipantId;
use crate::time::UnixMillis;

/// Shorter secrets can be guessed offline from one credential, in bytes.
pub const MIN_SECRET_LENGTH: usize = 16;

/// What this deployment shares with its TURN servers. In no `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret(Arc<str>);

/// A secret is too short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least {MIN_SECRET_LENGTH} bytes")]
pub struct TooShort;

impl FromStr for TurnSecret {
    type Err = TooShort;

    fn from_str(text: &str) -> Result<Self, TooShort> {
        if text.len() < MIN_SECRET_LENGTH { Err(TooShort) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnSecret(…)")
    }
}

/// What one participant shows to a TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `{seconds since 1970 at which it expires}:{participant id}`.
    pub username: String,
    pub password: String,
}

/// Without the password.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl TurnSecret {
    /// A new one, for a process that makes the credentials and checks them too.
    pub fn random() -> Self {
        Self(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()).into())
    }

    /// A credential for `participant` that is good for `ttl` from `now` on.
    pub fn credential(&self, participant: ParticipantId, now: UnixMillis, ttl: Duration) -> Credential {
        let username = format!("{}:{participant}", now.plus(ttl).0 / 1000);
        let password = self.password(&username);
        Credential { username, password }
    }

    /// The password that belongs to a user name, whether that has expired or not.
    pub fn password(&self, username: &str) -> String {
        // What TURN servers expect; for this use SHA-1 is as good as another hash (RFC 6151, section 2.3 on HMAC-MD5).
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.0.as_bytes());
        STANDARD.encode(hmac::sign(&key, username.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_what_coturn_makes_of_the_name() {
        let secret: TurnSecret = "north-wind-and-sun".parse().unwrap();
        // printf 1800000000:par_x | openssl dgst -sha1 -hmac north-wind-and-sun -binary | base64
        assert_eq!(secret.password("1800000000:par_x"), "9opVusLbwYHzEOkat61NHIUXEEo=");
        let participant = ParticipantId::new();
        let made = secret.credential(participant, UnixMillis(1_799_999_000_999), Duration::from_secs(1000));
        assert_eq!(made.username, format!("1800000000:{participant}"));
        assert_eq!(made.password, secret.password(&made.username));
        let other: TurnSecret = "another-long-secret".parse().unwrap();
        assert_ne!(other.password(&made.username), made.password);
    }

    #[test]
    fn secrets_are_long_enough_and_never_shown() {
        assert_eq!("too-short".parse::<TurnSecret>(), Err(TooShort));
        let secret: TurnSecret = "north-wind-and-sun".parse().unwrap();
        let made = secret.credential(ParticipantId::new(), UnixMillis(0), Duration::ZERO);
        let shown = format!("{secret:?} {made:?}");
        assert!(!shown.contains("north") && !shown.contains(&made.password), "{shown}");
    }
}
