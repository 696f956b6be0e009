//! API keys in a file that may change while the process runs.
//!
//! ```text
//! # new secrets first: they sign
//! key1:the-new-secret-of-key-one
//! key1:the-old-secret-of-key-one
//! ```
//!
//! It is read every [`INTERVAL`] and on SIGHUP; when its bytes have changed and are good, all keys change at once. What is not
//! good is said once, and the keys stay as they are: a slip of the pen locks nobody out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::keyring::Keyring;
use common::token::{ApiKeys, KeysError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the file is looked at.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// The largest file, in bytes.
const MAX_LENGTH: u64 = 256 * 1024;

/// Why the file gives no keys. Repeats nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    #[error("{0} is over 256 KiB")]
    TooLarge(PathBuf),
    #[error("{0} is not UTF-8")]
    NotText(PathBuf),
    #[error("{0}: {1}")]
    Keys(PathBuf, KeysError),
}

/// Reads the keys.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<ApiKeys, KeyFileError> {
    parse(path, &bytes(path)?)
}

fn bytes(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    use std::io::Read as _;
    let unreadable = |error| KeyFileError::Unreadable(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_LENGTH + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_LENGTH {
        return Err(KeyFileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// A pair a line; empty lines and those that begin with `#` say nothing.
fn parse(path: &Path, bytes: &[u8]) -> Result<ApiKeys, KeyFileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyFileError::NotText(path.to_owned()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines
        .enumerate()
        .map(|(index, line)| line.split_once(':').ok_or(KeysError::NoColon(index + 1)))
        .collect::<Result<Vec<_>, _>>();
    pairs.and_then(ApiKeys::new).map_err(|error| KeyFileError::Keys(path.to_owned(), error))
}

/// Keeps the keyring as the file says, until `shutdown`.
pub async fn follow(path: PathBuf, keyring: Keyring, shutdown: CancellationToken) {
    let mut hangup = Hangup::listen();
    let mut known = None;
    loop {
        let at = path.clone();
        let read = tokio::task::spawn_blocking(move || bytes(&at)).await;
        // What fails is remembered as well, so that it is said once.
        let seen = match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if known.as_ref() != Some(&seen) {
            take(&path, &seen, &keyring);
            known = Some(seen);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            () = hangup.next() => {}
        }
    }
}

fn take(path: &Path, seen: &Result<Vec<u8>, String>, keyring: &Keyring) {
    let parsed = match seen {
        Ok(bytes) => parse(path, bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    metrics::gauge!("switchyard_api_keys_file_unusable").set(f64::from(u8::from(parsed.is_err())));
    match parsed {
        Ok(keys) => {
            info!(keys = ?keys, "the API keys of the file count from now on");
            keyring.replace(keys);
        }
        Err(error) => warn!(error, "the file of API keys is not usable: the keys stay as they are"),
    }
}

/// SIGHUP, where there is one.
struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangup {
    #[cfg(unix)]
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { signal: signal(SignalKind::hangup()).expect("the runtime handles signals") }
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn listen() -> Self {
        Self {}
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_say_nothing_and_errors_repeat_nothing() {
        let path = Path::new("keys");
        let keys =
            parse(path, b"# mine\n\n b:0123456789abcdef \r\na:a:secret:with:colons,and,commas\n").unwrap();
        assert_eq!(keys.first_id(), "b");
        assert!(keys.check("a", "a:secret:with:colons,and,commas") && keys.check("b", "0123456789abcdef"));
        for wrong in ["", "# nothing", "0123456789abcdef", "a:short-secret", "a b:0123456789abcdef"] {
            let refused = parse(path, wrong.as_bytes()).unwrap_err().to_string();
            assert!(!refused.contains("0123") && !refused.contains("short-secret"), "{refused}");
        }
        assert!(parse(path, b"a:\xff0123456789abcdef").is_err());
    }
}
