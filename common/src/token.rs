//! Access tokens (JWT with `video` grants) and the signed `destination`.
//!
//! # Keys
//!
//! [`ApiKeys`] holds the pairs of key id and secret that a deployment shares with its application's backend. The
//! first pair signs what the server makes on its own account; every pair is accepted. One id may have several secrets, of
//! which the first signs: that is how a key is rotated while its sessions go on, because they belong to the id
//! ([`crate::keyring`]). Secrets appear in no `Debug` output and in no error.
//!
//! # Access tokens
//!
//! HS256 JWTs (RFC 7519) whose `iss` names the key that signed them, with LiveKit's names for the grants:
//!
//! ```
//! use common::token::{ApiKeys, Claims, VideoGrants};
//! use common::model::SessionId;
//!
//! let keys: ApiKeys = "key1:a-secret-of-sixteen-or-more".parse().unwrap();
//! let session = SessionId::new();
//! let claims = Claims::expiring_in("key1", std::time::Duration::from_secs(60), VideoGrants::join(session));
//! let token = keys.mint(&claims).unwrap();
//! assert_eq!(keys.verify(&token).unwrap().video.room, Some(session));
//! ```
//!
//! # Destinations
//!
//! A [`Target`] sealed with HMAC-SHA256 under a key derived from the API secret (so that a destination can never
//! pass for a token or the other way round). It is bound to the API key that owns the session: opened on behalf of
//! another key it is as good as forged. Whoever can open it has proof, without a look-up, that the server handed out
//! exactly this routing for exactly this owner's session.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::message::Target;
use crate::model::{Bitrates, EndpointId, Grants, ParticipantId, PipelineId, SessionId, WorkerId};
use crate::time::UnixMillis;

/// How far the clocks of who mints and who verifies may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 10;
/// Shorter secrets can be guessed offline from one token.
pub const MIN_SECRET_LENGTH: usize = 16;
/// Longer tokens are refused before they are parsed, in bytes.
pub const MAX_TOKEN_LENGTH: usize = 8 * 1024;
const MAX_KEY_ID_LENGTH: usize = 128;
/// Secrets of one key id: a token is tried with each of them.
pub const MAX_SECRETS: usize = 4;

/// Why a set of keys is refused. Never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("at least one API key is needed")]
    Empty,
    #[error("an API key is written id:secret (entry {0} has no colon)")]
    NoColon(usize),
    #[error("an API key id has 1 to 128 characters of A-Z a-z 0-9 . _ - (entry {0} does not)")]
    BadId(usize),
    #[error("the secret of API key {0:?} is shorter than 16 characters")]
    ShortSecret(String),
    #[error("API key {0:?} is given twice with the same secret")]
    Twice(String),
    #[error("API key {0:?} has more than 4 secrets")]
    TooManySecrets(String),
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a JWT with the expected claims")]
    Malformed,
    #[error("the token is not signed with HS256")]
    Algorithm,
    #[error("the token names no known API key as its issuer")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// A destination that was not sealed by this deployment for this owner, or was changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the destination was not made by this server")]
pub struct DestinationError;

/// API key ids and their secrets; at least one. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Arc<Vec<ApiKey>>);

/// Which secret somebody showed or signed with; for [`ApiKeys::holds`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyMark([u8; 32]);

/// Nothing of the secret's digest.
impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMark")
    }
}

struct ApiKey {
    id: String,
    secret_digest: [u8; 32],
    encoding: EncodingKey,
    decoding: DecodingKey,
    destination: Hmac<Sha256>,
}

impl ApiKey {
    fn new(id: String, secret: &str) -> Self {
        let derived = mac(secret.as_bytes(), b"switchyard destination key, version 1");
        Self {
            id,
            secret_digest: Sha256::digest(secret.as_bytes()).into(),
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            destination: keyed(&derived),
        }
    }
}

impl ApiKeys {
    /// Checks and keeps the pairs in their order.
    ///
    /// # Errors
    /// None given, an id that is empty, too long or has other characters than `A-Z a-z 0-9 . _ -`, a secret below
    /// [`MIN_SECRET_LENGTH`], one pair twice, or more than [`MAX_SECRETS`] of one id.
    pub fn new<I, S, T>(pairs: I) -> Result<Self, KeysError>
    where
        I: IntoIterator<Item = (S, T)>,
        S: Into<String>,
        T: AsRef<str>,
    {
        let mut keys: Vec<ApiKey> = Vec::new();
        for (index, (id, secret)) in pairs.into_iter().enumerate() {
            let id = id.into();
            if !is_key_id(&id) {
                return Err(KeysError::BadId(index + 1));
            }
            if secret.as_ref().chars().count() < MIN_SECRET_LENGTH {
                return Err(KeysError::ShortSecret(id));
            }
            let key = ApiKey::new(id, secret.as_ref());
            let others = || keys.iter().filter(|other| other.id == key.id);
            if others().any(|other| other.secret_digest == key.secret_digest) {
                return Err(KeysError::Twice(key.id));
            }
            if others().count() >= MAX_SECRETS {
                return Err(KeysError::TooManySecrets(key.id));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self(Arc::new(keys)))
    }

    /// The id of the key that the server uses on its own account (demo links).
    pub fn first_id(&self) -> &str {
        &self.0[0].id
    }

    /// Whether there is a key with this id.
    pub fn has(&self, id: &str) -> bool {
        self.key(id).is_some()
    }

    /// Whether `secret` is a secret of key `id`. Takes the same time for every wrong secret.
    pub fn check(&self, id: &str, secret: &str) -> bool {
        self.identify(id, secret).is_some()
    }

    /// The same, with which of its secrets it is.
    pub fn identify(&self, id: &str, secret: &str) -> Option<KeyMark> {
        let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        // Ids are no secret, secrets are: all of them are compared in constant time.
        let mut known = subtle::Choice::from(0);
        for key in self.0.iter() {
            let same_id = subtle::Choice::from(u8::from(key.id == id));
            known |= same_id & key.secret_digest.ct_eq(&digest);
        }
        bool::from(known).then_some(KeyMark(digest))
    }

    /// Whether key `id` still has that secret.
    pub fn holds(&self, id: &str, mark: KeyMark) -> bool {
        self.0.iter().any(|key| key.id == id && bool::from(key.secret_digest.ct_eq(&mark.0)))
    }

    /// Signs the claims with the first secret of the key that `claims.iss` names.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] when there is no such key.
    pub fn mint(&self, claims: &Claims) -> Result<String, TokenError> {
        let key = self.key(&claims.iss).ok_or(TokenError::UnknownKey)?;
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key.encoding)
            .map_err(|_| TokenError::Malformed)
    }

    /// Signs any claims (HS256) with the secret of this key.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] when there is no such key.
    pub fn sign<T: Serialize>(&self, id: &str, claims: &T) -> Result<String, TokenError> {
        let key = self.key(id).ok_or(TokenError::UnknownKey)?;
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key.encoding)
            .map_err(|_| TokenError::Malformed)
    }

    /// Checks signature and times and gives the claims. Claims it does not know are ignored.
    ///
    /// # Errors
    /// See [`TokenError`]; `exp` is required, `nbf` is honoured, both with [`LEEWAY_SECONDS`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verify_marked(token).map(|(claims, _)| claims)
    }

    /// The same, with the secret that signed it.
    pub fn verify_marked(&self, token: &str) -> Result<(Claims, KeyMark), TokenError> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg != Algorithm::HS256 {
            return Err(TokenError::Algorithm);
        }
        let issuer = issuer(token)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss"]);
        let mut refused = TokenError::UnknownKey;
        for key in self.0.iter().filter(|key| key.id == issuer) {
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                Ok(decoded) => return Ok((decoded.claims, KeyMark(key.secret_digest))),
                Err(error) => refused = TokenError::from_jwt(&error),
            }
            // Only the signature is another one with another secret.
            if refused != TokenError::Signature {
                break;
            }
        }
        Err(refused)
    }

    /// Seals a target for the sessions of `owner` (the API key id in the session document): URL-safe text without
    /// padding, 162 characters.
    pub fn seal(&self, target: &Target, owner: &str) -> String {
        let mut bytes = encode_target(target).to_vec();
        let tag = authenticate(&self.0[0].destination, &bytes, owner).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens what [`ApiKeys::seal`] made, with any of the keys. The comparison takes constant time.
    ///
    /// # Errors
    /// [`DestinationError`] for everything else, without saying which part was wrong.
    pub fn open(&self, destination: &str, owner: &str) -> Result<Target, DestinationError> {
        if destination.len() > 2 * (TARGET_LENGTH + TAG_LENGTH) {
            return Err(DestinationError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(destination).map_err(|_| DestinationError)?;
        if bytes.len() != TARGET_LENGTH + TAG_LENGTH {
            return Err(DestinationError);
        }
        let (target, tag) = bytes.split_at(TARGET_LENGTH);
        let sealed =
            self.0.iter().any(|key| authenticate(&key.destination, target, owner).verify_slice(tag).is_ok());
        if sealed { decode_target(target).ok_or(DestinationError) } else { Err(DestinationError) }
    }

    fn key(&self, id: &str) -> Option<&ApiKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

/// `id:secret,id:secret`, as in `SWITCHYARD_API_KEYS`. A secret may contain colons, not commas.
impl FromStr for ApiKeys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let pairs = entries
            .enumerate()
            .map(|(index, entry)| entry.split_once(':').ok_or(KeysError::NoColon(index + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(pairs)
    }
}

/// The ids only.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The id of the API key that signed it.
    pub iss: String,
    /// The participant it stands for; absent in a join link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<ParticipantId>,
    /// Seconds since the Unix epoch; fractions (RFC 7519, section 2, NumericDate) are cut off.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_numeric_date")]
    pub nbf: Option<i64>,
    /// When it was issued, in seconds with fractions (a NumericDate, too). What the server makes of a token (by a join, or in
    /// place of one that is about to expire) keeps the token's own, so that revoking it revokes what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<IssuedAt>,
    /// The name others see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub video: VideoGrants,
}

impl Claims {
    /// Claims without `sub`, `nbf` and `name` that are issued now and expire `after` from now.
    pub fn expiring_in(key_id: impl Into<String>, after: Duration, video: VideoGrants) -> Self {
        let now = UnixMillis::now();
        let exp = now.plus(after).0 / 1000;
        Self { iss: key_id.into(), sub: None, exp, nbf: None, iat: Some(IssuedAt(now)), name: None, video }
    }

    /// When it was issued; one that does not say counts as issued before everything.
    pub fn issued_at(&self) -> UnixMillis {
        self.iat.map_or(UnixMillis(0), |IssuedAt(at)| at)
    }

    /// When it expires, for replies.
    pub fn expires_at(&self) -> UnixMillis {
        UnixMillis(self.exp.saturating_mul(1000))
    }
}

/// A NumericDate (RFC 7519, section 2) that keeps milliseconds: a token that is issued right after a revocation must not
/// look as if it came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuedAt(pub UnixMillis);

impl Serialize for IssuedAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Exact: milliseconds of any date in this millennium have fewer digits than a double.
        serializer.serialize_f64(self.0.0 as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for IssuedAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `as` saturates, and makes 0 of what is no number.
        f64::deserialize(deserializer).map(|seconds| Self(UnixMillis((seconds * 1000.0).round() as i64)))
    }
}

/// The `video` grants, with LiveKit's names. Grants it does not know are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrants {
    /// The one session it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<SessionId>,
    pub room_join: bool,
    pub room_admin: bool,
    pub room_create: bool,
    /// Looks after the whole deployment (the admin page), and does nothing else. Counts only when the configuration names the
    /// key that signed it as an operator's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub operator: bool,
    /// Follows `room_join` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Follows `room_join` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// What counts for this participant in place of the session's own.
    #[serde(skip_serializing_if = "Bitrates::is_unset")]
    pub bitrates: Bitrates,
}

impl VideoGrants {
    /// Joining one session, publishing and subscribing.
    pub fn join(session: SessionId) -> Self {
        Self { room: Some(session), room_join: true, ..Self::default() }
    }

    /// The grants of who joins with them.
    pub fn participant(&self) -> Grants {
        Grants {
            can_publish: self.can_publish.unwrap_or(self.room_join),
            can_subscribe: self.can_subscribe.unwrap_or(self.room_join),
            admin: self.room_admin,
            bitrates: self.bitrates,
        }
    }
}

impl TokenError {
    fn from_jwt(error: &jsonwebtoken::errors::Error) -> Self {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm => Self::Algorithm,
            _ => Self::Malformed,
        }
    }
}

/// Reads `iss` before the signature is checked, only to know with which key to check it.
fn issuer(token: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let payload = token.split('.').nth(1).ok_or(TokenError::Malformed)?;
    let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice::<Issuer>(&json).map(|issuer| issuer.iss).map_err(|_| TokenError::Malformed)
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_KEY_ID_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Whole(i64),
        Fractional(f64),
    }
    Ok(match Seconds::deserialize(deserializer)? {
        Seconds::Whole(seconds) => seconds,
        // `as` saturates, which is what a date beyond the range should do.
        Seconds::Fractional(seconds) => seconds as i64,
    })
}

fn optional_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    numeric_date(deserializer).map(Some)
}

// The layout of a sealed target: version, five UUIDs, epoch (big endian), tag.
const TARGET_VERSION: u8 = 1;
const TARGET_LENGTH: usize = 1 + 5 * 16 + 8;
const TAG_LENGTH: usize = 32;

fn encode_target(target: &Target) -> [u8; TARGET_LENGTH] {
    let mut bytes = [0; TARGET_LENGTH];
    bytes[0] = TARGET_VERSION;
    let ids = [
        target.session_id.uuid(),
        target.participant_id.uuid(),
        target.endpoint_id.uuid(),
        target.pipeline_id.uuid(),
        target.worker_id.uuid(),
    ];
    for (index, id) in ids.iter().enumerate() {
        bytes[1 + 16 * index..17 + 16 * index].copy_from_slice(id.as_bytes());
    }
    bytes[81..].copy_from_slice(&target.epoch.to_be_bytes());
    bytes
}

fn decode_target(bytes: &[u8]) -> Option<Target> {
    let (version, rest) = bytes.split_first()?;
    if *version != TARGET_VERSION {
        return None;
    }
    let id = |index: usize| Uuid::from_slice(rest.get(16 * index..16 * (index + 1))?).ok();
    Some(Target {
        session_id: SessionId::from_uuid(id(0)?),
        participant_id: ParticipantId::from_uuid(id(1)?),
        endpoint_id: EndpointId::from_uuid(id(2)?),
        pipeline_id: PipelineId::from_uuid(id(3)?),
        worker_id: WorkerId::from_uuid(id(4)?),
        epoch: i64::from_be_bytes(rest.get(80..)?.try_into().ok()?),
    })
}

/// The target has a fixed length, so appending the owner cannot be confused with another pair.
fn authenticate(key: &Hmac<Sha256>, target: &[u8], owner: &str) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(target);
    mac.update(owner.as_bytes());
    mac
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length (RFC 2104, section 2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "the-secret-of-key-one";
    const OTHER_SECRET: &str = "the-secret-of-key-two";

    fn keys() -> ApiKeys {
        ApiKeys::new([("key1", SECRET), ("key2", OTHER_SECRET)]).unwrap()
    }

    fn claims() -> Claims {
        Claims::expiring_in("key1", Duration::from_secs(60), VideoGrants::join(SessionId::new()))
    }

    fn signed(secret: &str, claims: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    }

    fn target() -> Target {
        Target {
            session_id: SessionId::new(),
            participant_id: ParticipantId::new(),
            endpoint_id: EndpointId::new(),
            pipeline_id: PipelineId::new(),
            worker_id: WorkerId::new(),
            epoch: -3,
        }
    }

    #[test]
    fn what_one_key_minted_every_holder_of_the_keys_verifies() {
        let mut minted = claims();
        minted.iss = "key2".to_owned();
        minted.sub = Some(ParticipantId::new());
        minted.name = Some("Zoë".to_owned());
        let token = keys().mint(&minted).unwrap();
        assert_eq!(keys().verify(&token), Ok(minted));
    }

    #[test]
    fn a_token_is_refused_when_its_issuer_did_not_sign_it() {
        let now = UnixMillis::now().0 / 1000;
        let claims = serde_json::json!({"iss": "key1", "exp": now + 60});
        assert!(keys().verify(&signed(SECRET, &claims)).is_ok());
        assert_eq!(keys().verify(&signed(OTHER_SECRET, &claims)), Err(TokenError::Signature));
        let unknown = serde_json::json!({"iss": "key3", "exp": now + 60});
        assert_eq!(keys().verify(&signed(SECRET, &unknown)), Err(TokenError::UnknownKey));
    }

    #[test]
    fn every_secret_of_a_key_is_accepted_and_the_first_one_signs() {
        let (old, new) = ("key1:the-secret-of-key-one", "key1:a-completely-new-secret");
        let [before, both, after] = [old.to_owned(), format!("{new},{old}"), new.to_owned()]
            .map(|text| text.parse::<ApiKeys>().unwrap());
        let (first, second) = (before.mint(&claims()).unwrap(), both.mint(&claims()).unwrap());
        assert!(both.verify(&first).is_ok() && after.verify(&second).is_ok());
        assert_eq!(before.verify(&second), Err(TokenError::Signature));
        assert_eq!(after.verify(&first), Err(TokenError::Signature));
        assert!(both.check("key1", SECRET) && both.check("key1", "a-completely-new-secret"));
        // What is expired is called so, whichever of the secrets signed it.
        let expired = serde_json::json!({"iss": "key1", "exp": 1});
        assert_eq!(both.verify(&signed(SECRET, &expired)), Err(TokenError::Expired));
        assert_eq!(both.verify(&signed("a-completely-new-secret", &expired)), Err(TokenError::Expired));
        let (_, mark) = both.verify_marked(&first).unwrap();
        assert!(before.holds("key1", mark) && both.holds("key1", mark));
        assert!(!after.holds("key1", mark) && !both.holds("key2", mark));
        assert_eq!(both.identify("key1", SECRET), Some(mark));
        let many: Vec<_> = (0..=MAX_SECRETS).map(|n| ("a", format!("0123456789abcdef{n}"))).collect();
        assert_eq!(ApiKeys::new(many).unwrap_err(), KeysError::TooManySecrets("a".to_owned()));
    }

    #[test]
    fn the_time_of_issue_keeps_its_milliseconds_and_is_long_ago_when_it_is_missing() {
        let issued = Claims { iat: Some(IssuedAt(UnixMillis(1_799_999_999_123))), ..claims() };
        let read = keys().verify(&keys().mint(&issued).unwrap()).unwrap();
        assert_eq!(read.issued_at(), UnixMillis(1_799_999_999_123));
        let exp = issued.exp;
        for (claims, expected) in [
            (serde_json::json!({"iss": "key1", "exp": exp, "iat": 1_799_999_999}), 1_799_999_999_000),
            (serde_json::json!({"iss": "key1", "exp": exp}), 0),
        ] {
            assert_eq!(keys().verify(&signed(SECRET, &claims)).unwrap().issued_at(), UnixMillis(expected));
        }
        let text = serde_json::json!({"iss": "key1", "exp": exp, "iat": "yesterday"});
        assert_eq!(keys().verify(&signed(SECRET, &text)), Err(TokenError::Malformed));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let token = keys().mint(&claims()).unwrap();
        let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        let mut changed = claims();
        changed.video.room_admin = true;
        parts[1] = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&changed).unwrap());
        assert_eq!(keys().verify(&parts.join(".")), Err(TokenError::Signature));
    }

    #[test]
    fn times_are_checked_with_ten_seconds_of_leeway() {
        let now = UnixMillis::now().0 / 1000;
        let verify = |claims| keys().verify(&signed(SECRET, &claims)).map(|_| ());
        assert_eq!(verify(serde_json::json!({"iss": "key1", "exp": now - 5})), Ok(()));
        assert_eq!(verify(serde_json::json!({"iss": "key1", "exp": now - 15})), Err(TokenError::Expired));
        assert_eq!(verify(serde_json::json!({"iss": "key1", "exp": now + 60, "nbf": now + 5})), Ok(()));
        let early = serde_json::json!({"iss": "key1", "exp": now + 60, "nbf": now + 30});
        assert_eq!(verify(early), Err(TokenError::NotYetValid));
        assert_eq!(verify(serde_json::json!({"iss": "key1"})), Err(TokenError::Malformed));
        assert_eq!(verify(serde_json::json!({"iss": "key1", "exp": (now as f64) + 60.5})), Ok(()));
    }

    #[test]
    fn algorithm_none_and_rs256_headers_are_refused() {
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
        for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"RS256","typ":"JWT"}"#] {
            let token = format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header));
            assert!(keys().verify(&token).is_err(), "{header}");
        }
    }

    #[test]
    fn livekit_claims_that_mean_nothing_here_are_ignored() {
        let session = SessionId::new();
        let now = UnixMillis::now().0 / 1000;
        let token = signed(
            SECRET,
            &serde_json::json!({
                "iss": "key1", "exp": now + 60, "aud": "somebody", "jti": "x", "metadata": "{}",
                "video": {"room": session, "roomJoin": true, "canPublishData": true, "hidden": false},
            }),
        );
        let grants = keys().verify(&token).unwrap().video;
        assert_eq!(grants, VideoGrants::join(session));
        assert_eq!(
            grants.participant(),
            Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Bitrates::UNSET }
        );
    }

    #[test]
    fn garbage_is_malformed_and_never_a_panic() {
        let long = "a".repeat(MAX_TOKEN_LENGTH + 1);
        for garbage in ["", ".", "..", "a.b.c", "\u{0}.\u{1f4a9}.", "eyJhbGciOiJIUzI1NiJ9..", &long] {
            assert_eq!(keys().verify(garbage), Err(TokenError::Malformed), "{garbage:.20}");
        }
    }

    #[test]
    fn basic_credentials_need_the_right_secret_for_the_right_id() {
        assert!(keys().check("key1", SECRET) && keys().check("key2", OTHER_SECRET));
        for (id, secret) in [("key1", OTHER_SECRET), ("key3", SECRET), ("", ""), ("key1", "")] {
            assert!(!keys().check(id, secret), "{id}");
        }
    }

    #[test]
    fn keys_are_parsed_and_refused_without_repeating_a_secret() {
        assert_eq!("a:colons:are:fine:here, b:0123456789abcdef".parse::<ApiKeys>().unwrap().first_id(), "a");
        for (text, expected) in [
            ("", KeysError::Empty),
            ("onlyasecretwithoutid", KeysError::NoColon(1)),
            (":0123456789abcdef", KeysError::BadId(1)),
            ("a b:0123456789abcdef", KeysError::BadId(1)),
            ("a:short", KeysError::ShortSecret("a".to_owned())),
            ("a:0123456789abcdef,a:0123456789abcdef", KeysError::Twice("a".to_owned())),
        ] {
            let refused = text.parse::<ApiKeys>().unwrap_err();
            assert_eq!(refused, expected);
            assert!(!refused.to_string().contains("0123456789abcdef"));
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", keys());
        assert!(shown.contains("key1") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_destination_opens_to_what_was_sealed_also_after_a_key_rotation() {
        let sealed = keys().seal(&target_fixed(), "key1");
        assert_eq!(sealed.len(), 162);
        assert_eq!(keys().open(&sealed, "key1"), Ok(target_fixed()));
        let rotated = ApiKeys::new([("key9", "a-completely-new-secret"), ("key1", SECRET)]).unwrap();
        assert_eq!(rotated.open(&sealed, "key1"), Ok(target_fixed()));
        let replaced = ApiKeys::new([("key9", "a-completely-new-secret")]).unwrap();
        assert_eq!(replaced.open(&sealed, "key1"), Err(DestinationError));
    }

    #[test]
    fn a_destination_with_any_changed_bit_or_another_owner_does_not_open() {
        let sealed = keys().seal(&target(), "key1");
        assert_eq!(keys().open(&sealed, "key2"), Err(DestinationError));
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys().open(&URL_SAFE_NO_PAD.encode(&changed), "key1"), Err(DestinationError));
        }
        for garbage in
            ["", "AAAA", "not base64 !", &sealed[1..], &format!("{sealed}AAAA"), &"A".repeat(1 << 16)]
        {
            assert_eq!(keys().open(garbage, "key1"), Err(DestinationError));
        }
    }

    fn target_fixed() -> Target {
        let uuid = |last| Uuid::from_u128(last);
        Target {
            session_id: SessionId::from_uuid(uuid(1)),
            participant_id: ParticipantId::from_uuid(uuid(2)),
            endpoint_id: EndpointId::from_uuid(uuid(3)),
            pipeline_id: PipelineId::from_uuid(uuid(4)),
            worker_id: WorkerId::from_uuid(uuid(5)),
            epoch: 7,
        }
    }
}
