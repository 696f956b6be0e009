//! The API keys that count now.
//!
//! A rotation needs no restart: [`Keyring::replace`] changes all keys at once, for every holder. From that moment on nothing
//! that a key which is gone has signed is accepted; who has an open stream by such a token watches [`Keyring::watch`] and
//! ends it.
//!
//! ```
//! use common::keyring::Keyring;
//!
//! let keyring = Keyring::new("key1:the-first-secret-of-it".parse().unwrap());
//! let holder = keyring.clone();
//! keyring.replace("key1:the-second-secret-of-it,key1:the-first-secret-of-it".parse().unwrap());
//! assert!(holder.now().check("key1", "the-second-secret-of-it"));
//! ```

use std::fmt;

use tokio::sync::watch;

use crate::token::{ApiKeys, KeyMark};

/// Cheap to clone; all clones have the same keys at all times.
#[derive(Clone)]
pub struct Keyring(watch::Sender<ApiKeys>);

impl Keyring {
    pub fn new(keys: ApiKeys) -> Self {
        Self(watch::Sender::new(keys))
    }

    /// The keys at this moment. Not to be kept: a key that is removed later would count on.
    pub fn now(&self) -> ApiKeys {
        self.0.borrow().clone()
    }

    /// Puts these keys in place of all there were.
    pub fn replace(&self, keys: ApiKeys) {
        self.0.send_replace(keys);
    }

    pub fn watch(&self) -> watch::Receiver<ApiKeys> {
        self.0.subscribe()
    }

    /// Ends when that secret of key `id` counts no more; at once when it does not now.
    pub async fn removed(&self, id: &str, mark: KeyMark) {
        let mut keys = self.watch();
        // An error would say that nobody can change the keys any more, which `self` can.
        let _ = keys.wait_for(|keys| !keys.holds(id, mark)).await;
    }
}

impl From<ApiKeys> for Keyring {
    fn from(keys: ApiKeys) -> Self {
        Self::new(keys)
    }
}

/// The ids only.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_key_to_go_is_woken_when_that_one_goes() {
        let keyring = Keyring::new("a:0123456789abcdef,b:0123456789abcdef".parse().unwrap());
        let mark = keyring.now().identify("a", "0123456789abcdef").unwrap();
        let waiting = keyring.clone();
        let removed = tokio::spawn(async move { waiting.removed("a", mark).await });
        keyring.replace("a:0123456789abcdef".parse().unwrap());
        tokio::task::yield_now().await;
        assert!(!removed.is_finished(), "only another key went");
        keyring.replace("a:another-secret-of-it".parse().unwrap());
        tokio::time::timeout(Duration::from_secs(20), removed).await.unwrap().unwrap();
        assert!(!keyring.now().check("a", "0123456789abcdef"));
    }
}
