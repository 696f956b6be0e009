//! What the fuzz targets in `fuzz/` call: each function takes any bytes and panics only where a promise is broken.
//!
//! Built for tests and with the feature `fuzzing`. The seeds and past findings in `fuzz/corpus` also run as ordinary
//! tests.

use std::fmt::Debug;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use uuid::Uuid;

use crate::message::{Command, Event, Reply, Target};
use crate::model::{EndpointId, ParticipantId, PipelineId, SessionId, WorkerId};
use crate::token::ApiKeys;

/// The key of every target.
pub const KEY: &str = "key1";
pub const SECRET: &str = "a-secret-of-the-fuzz-targets";

fn keys() -> &'static ApiKeys {
    static KEYS: OnceLock<ApiKeys> = OnceLock::new();
    KEYS.get_or_init(|| ApiKeys::new([(KEY, SECRET)]).expect("one good key"))
}

/// An access token: as it is, and as the claims of one that is signed as it should be.
pub fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check(&text);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(data));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(signed.as_bytes());
    check(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())));
}

fn check(token: &str) {
    let Ok(claims) = keys().verify(token) else { return };
    assert_eq!(claims.iss, KEY, "nobody else has signed it");
    claims.expires_at();
    claims.video.participant();
    let again = keys().mint(&claims).expect("its key is known");
    assert_eq!(keys().verify(&again), Ok(claims));
}

/// A destination: as it is, and as the content of one that is sealed.
pub fn destination(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // A seed may be a good one.
    let _ = keys().open(&text, KEY);
    let id = |index: usize| {
        let mut bytes = [0; 16];
        let from = data.get(16 * index..).unwrap_or_default();
        let count = from.len().min(16);
        bytes[..count].copy_from_slice(&from[..count]);
        Uuid::from_bytes(bytes)
    };
    let target = Target {
        session_id: SessionId::from_uuid(id(0)),
        participant_id: ParticipantId::from_uuid(id(1)),
        endpoint_id: EndpointId::from_uuid(id(2)),
        pipeline_id: PipelineId::from_uuid(id(3)),
        worker_id: WorkerId::from_uuid(id(4)),
        epoch: i64::from(data.last().copied().unwrap_or_default()) - 7,
    };
    let sealed = keys().seal(&target, KEY);
    assert_eq!(keys().open(&sealed, KEY), Ok(target));
    assert!(keys().open(&sealed, "another owner").is_err());
    let mut changed = sealed.into_bytes();
    let at = usize::from(data.first().copied().unwrap_or_default()) % changed.len();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("it was ASCII");
    assert!(keys().open(&changed, KEY).is_err());
}

/// A command, reply or event as the broker brings it: what is understood is written as it was read.
pub fn broker_message(data: &[u8]) {
    same::<Command>(data);
    same::<Reply>(data);
    same::<Event>(data);
}

fn same<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again = serde_json::from_slice::<T>(&written).expect("what was written can be read");
    assert_eq!(again, read);
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    super::replay::replayed!(token, destination, broker_message);
}
