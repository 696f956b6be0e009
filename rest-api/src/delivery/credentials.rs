//! For how long the credentials of a stream count.

use common::keyring::Keyring;
use common::time::UnixMillis;
use common::token::KeyMark;
use tokio::time::Instant;

use crate::auth::StreamCaller;

/// Why the credentials of an open stream count no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    Expired,
    /// The secret that signed them, or is them, is no key any more.
    KeyRemoved,
}

/// What a stream was opened with.
pub struct Credentials {
    expires: Instant,
    keys: Keyring,
    key_id: String,
    key: KeyMark,
}

impl Credentials {
    pub fn new(keys: &Keyring, opened_by: &StreamCaller) -> Self {
        let StreamCaller { caller, key } = opened_by;
        let expires = deadline(caller.expires_at());
        Self { expires, keys: keys.clone(), key_id: caller.key_id().to_owned(), key: *key }
    }

    /// Waits until they count no more.
    pub async fn lapse(&self) -> Lapse {
        tokio::select! {
            () = self.keys.removed(&self.key_id, self.key) => Lapse::KeyRemoved,
            () = tokio::time::sleep_until(self.expires) => Lapse::Expired,
        }
    }
}

/// When credentials run out, on the clock that can be slept on.
fn deadline(expires_at: Option<UnixMillis>) -> Instant {
    // Far enough for every connection, and representable.
    const NEVER: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 60 * 60);
    let left = expires_at.map_or(NEVER, |at| UnixMillis::now().until(at).min(NEVER));
    Instant::now() + left
}
