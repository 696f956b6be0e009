//! Who may use the relay: long-term credentials (RFC 8489, section 9.2) whose passwords are made of a shared secret
//! ([`common::turn`]), and nonces that the server need not remember.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;
use common::time::UnixMillis;
use common::turn::TurnSecret;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider};
use std::sync::Arc;

use super::message::{Message, attribute};

/// The realm in challenges. Clients only send it back.
pub const REALM: &str = "switchyard";
/// How long a nonce is good, in seconds; clients get a new one without asking anybody (438).
const NONCE_S: u32 = 3600;
/// Until when, and the first half of an HMAC, in hexadecimal.
const NONCE_LENGTH: usize = 8 + 16;
/// `{expiry}:{participant}` has some 60 bytes.
const LONGEST_USERNAME: usize = 256;

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Nothing was shown: the first request of every client is like this.
    Challenge,
    /// Something is missing that belongs to credentials.
    Incomplete,
    /// The nonce is old, or not ours, or another client's.
    StaleNonce,
    /// The credential's time is over.
    Expired,
    /// The password does not belong to the user name.
    Wrong,
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User<'a> {
    /// The part of the user name that stays the same from credential to credential: the participant.
    pub who: &'a str,
    /// What answers are signed with.
    pub key: [u8; 16],
}

/// Checks credentials.
pub struct Access {
    secret: TurnSecret,
    nonces: hmac::Key,
    crypto: Arc<dyn RTCCryptoProvider>,
}

impl Access {
    /// # Errors
    /// The system has no random numbers, or the build no cryptography.
    pub fn new(secret: TurnSecret) -> std::io::Result<Self> {
        let nonces = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new());
        let nonces = nonces.map_err(|_| std::io::Error::other("no random numbers"))?;
        let crypto = rtc::crypto::default_provider().map_err(std::io::Error::other)?;
        Ok(Self { secret, nonces, crypto })
    }

    /// Whose request this is.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check<'a>(
        &self,
        request: &Message<'a>,
        from: SocketAddr,
        now: UnixMillis,
    ) -> Result<User<'a>, Denied> {
        if !request.has_integrity() {
            return Err(Denied::Challenge);
        }
        let username = request.text(attribute::USERNAME).filter(|name| name.len() <= LONGEST_USERNAME);
        let (Some(username), Some(realm), Some(nonce)) =
            (username, request.get(attribute::REALM), request.get(attribute::NONCE))
        else {
            return Err(Denied::Incomplete);
        };
        // First, because it costs least.
        if !self.is_good(nonce, from, now) {
            return Err(Denied::StaleNonce);
        }
        let (until, who) = username.split_once(':').unwrap_or((username, username));
        let key = self.key(username);
        let (true, Ok(until)) =
            (realm == REALM.as_bytes() && request.is_authentic(&key), until.parse::<i64>())
        else {
            return Err(Denied::Wrong);
        };
        if until <= now.0 / 1000 {
            return Err(Denied::Expired);
        }
        Ok(User { who, key })
    }

    /// RFC 8489, section 9.2.2.
    fn key(&self, username: &str) -> [u8; 16] {
        key(&*self.crypto, username, REALM, &self.secret.password(username))
    }

    /// A nonce for this client.
    pub fn nonce(&self, from: SocketAddr, now: UnixMillis) -> String {
        let until = seconds(now).saturating_add(NONCE_S);
        format!("{until:08x}{:016x}", self.seal(until, from))
    }

    fn is_good(&self, nonce: &[u8], from: SocketAddr, now: UnixMillis) -> bool {
        let Some(nonce) = std::str::from_utf8(nonce).ok().filter(|nonce| nonce.len() == NONCE_LENGTH) else {
            return false;
        };
        let Some((until, seal)) = nonce.split_at_checked(8) else { return false };
        let (Ok(until), Ok(seal)) = (u32::from_str_radix(until, 16), u64::from_str_radix(seal, 16)) else {
            return false;
        };
        let expected = self.seal(until, from).to_be_bytes();
        seconds(now) < until
            && aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &seal.to_be_bytes()).is_ok()
    }

    fn seal(&self, until: u32, from: SocketAddr) -> u64 {
        let mut hmac = hmac::Context::with_key(&self.nonces);
        hmac.update(&until.to_be_bytes());
        match from.ip() {
            IpAddr::V4(ip) => hmac.update(&ip.octets()),
            IpAddr::V6(ip) => hmac.update(&ip.octets()),
        }
        hmac.update(&from.port().to_be_bytes());
        let tag = hmac.sign();
        tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

/// The key of a long-term credential.
pub fn key(crypto: &dyn RTCCryptoProvider, username: &str, realm: &str, password: &str) -> [u8; 16] {
    let text = format!("{username}:{realm}:{password}");
    let hash = crypto.crypto().hash(HashAlgorithm::Md5, text.as_bytes());
    hash.ok().and_then(|hash| hash.try_into().ok()).expect("an MD5 has 16 bytes, in every provider")
}

fn seconds(now: UnixMillis) -> u32 {
    u32::try_from(now.0 / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::model::ParticipantId;
    use common::turn::Credential;

    use super::super::message::{Writer, kind};
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn access() -> Access {
        Access::new("north-wind-and-sun".parse().unwrap()).unwrap()
    }

    fn request(access: &Access, credential: &Credential, realm: &str, nonce: &str) -> Vec<u8> {
        let key = key(&*access.crypto, &credential.username, realm, &credential.password);
        Writer::new(kind::ALLOCATE, [1; 12])
            .with(attribute::USERNAME, credential.username.as_bytes())
            .with(attribute::REALM, realm.as_bytes())
            .with(attribute::NONCE, nonce.as_bytes())
            .sign(&key)
    }

    fn check(access: &Access, request: &[u8], from: &str, now: UnixMillis) -> Result<String, Denied> {
        let request = Message::parse(request).unwrap();
        access.check(&request, from.parse().unwrap(), now).map(|user| user.who.to_owned())
    }

    #[test]
    fn credentials_of_a_join_are_good_until_their_time_is_over() {
        let (access, from) = (access(), "192.0.2.1:5000");
        let participant = ParticipantId::new();
        let nonce = access.nonce(from.parse().unwrap(), NOW);
        let good = access.secret.credential(participant, NOW, Duration::from_secs(60));
        let bytes = request(&access, &good, REALM, &nonce);
        assert_eq!(check(&access, &bytes, from, NOW), Ok(participant.to_string()));
        let later = NOW.plus(Duration::from_secs(60));
        assert_eq!(check(&access, &bytes, from, later), Err(Denied::Expired));

        let other: TurnSecret = "another-long-secret".parse().unwrap();
        let wrong = other.credential(participant, NOW, Duration::from_secs(60));
        assert_eq!(check(&access, &request(&access, &wrong, REALM, &nonce), from, NOW), Err(Denied::Wrong));
        let forged = Credential { username: "9999999999:me".into(), password: good.password.clone() };
        assert_eq!(check(&access, &request(&access, &forged, REALM, &nonce), from, NOW), Err(Denied::Wrong));
        let elsewhere = request(&access, &good, "elsewhere", &nonce);
        assert_eq!(check(&access, &elsewhere, from, NOW), Err(Denied::Wrong));
        let timeless = Credential { username: "soon:me".into(), password: access.secret.password("soon:me") };
        assert_eq!(
            check(&access, &request(&access, &timeless, REALM, &nonce), from, NOW),
            Err(Denied::Wrong)
        );
    }

    #[test]
    fn nonces_are_for_one_client_and_an_hour() {
        let (access, from) = (access(), "192.0.2.1:5000");
        let nonce = access.nonce(from.parse().unwrap(), NOW);
        let day = Duration::from_secs(86_400);
        let credential = access.secret.credential(ParticipantId::new(), NOW, day);
        let bytes = request(&access, &credential, REALM, &nonce);
        assert!(check(&access, &bytes, from, NOW).is_ok());
        let stale = Err(Denied::StaleNonce);
        assert_eq!(check(&access, &bytes, "192.0.2.1:5001", NOW), stale);
        assert_eq!(check(&access, &bytes, from, NOW.plus(Duration::from_secs(3600))), stale);
        for forged in ["", "ffffffff0000000000000000", "ffffffff000000000000000é", &nonce[1..]] {
            assert_eq!(
                check(&access, &request(&access, &credential, REALM, forged), from, NOW),
                stale,
                "{forged}"
            );
        }
    }

    #[test]
    fn who_shows_nothing_is_asked_and_who_shows_half_is_told() {
        let access = access();
        let bare = Writer::new(kind::ALLOCATE, [1; 12]).finish();
        assert_eq!(check(&access, &bare, "192.0.2.1:1", NOW), Err(Denied::Challenge));
        let half = Writer::new(kind::ALLOCATE, [1; 12]).with(attribute::USERNAME, b"9:me").sign(b"k");
        assert_eq!(check(&access, &half, "192.0.2.1:1", NOW), Err(Denied::Incomplete));
    }
}
