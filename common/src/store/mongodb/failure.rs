//! The driver's errors in our words.
//!
//! A [`StoreError`] keeps the driver's message but not the driver's error: its debug form may hold whole server replies.

use ::mongodb::error::{Error, ErrorKind, RETRYABLE_WRITE_ERROR, WriteFailure};

use crate::store::{StoreError, StoreErrorKind};

/// Another document has this `_id`.
const DUPLICATE_KEY: i32 = 11_000;

/// `IndexOptionsConflict` and `IndexKeySpecsConflict`.
const INDEX_CONFLICTS: [i32; 2] = [85, 86];

/// Server codes of a server that is stepping down, shutting down, starting, not primary, without majority or out of time:
/// the same call may succeed later.
const TRANSIENT: [i32; 19] =
    [6, 7, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 262, 9_001, 10_058, 10_107, 11_600, 11_602, 13_435];
const NOT_PRIMARY_OR_SECONDARY: i32 = 13_436;

/// Server codes that say "you may not", which no other token or later try changes.
const REFUSED: [i32; 3] = [13, 18, 8_000];

/// The server's code in whatever shape the driver gives it.
pub(super) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        // An ordered insert of several ends with the first that fails.
        ErrorKind::InsertMany(many) => many.write_errors.as_ref()?.first().map(|write| write.code),
        _ => None,
    }
}

pub(super) fn is_duplicate_key(error: &Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

pub(super) fn is_index_conflict(error: &Error) -> bool {
    code(error).is_some_and(|code| INDEX_CONFLICTS.contains(&code))
}

/// Whether the same call may succeed later.
fn is_transient(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        _ => {
            error.contains_label(RETRYABLE_WRITE_ERROR)
                || code(error)
                    .is_some_and(|code| TRANSIENT.contains(&code) || code == NOT_PRIMARY_OR_SECONDARY)
        }
    }
}

pub(super) fn store_error(operation: &'static str, error: &Error) -> StoreError {
    let kind = if is_transient(error) { StoreErrorKind::Unavailable } else { StoreErrorKind::Internal };
    StoreError::new(kind, format!("{operation}: {}", error.kind))
}

/// What ended a change stream. `resuming`: it was opened with a token, so a refusal is about the token (servers have many
/// codes for a token they do not understand or no longer have: 9, 260, 280, 286, 50811 …), and listing again is the cure.
pub(super) fn watch_error(error: &Error, resuming: bool) -> StoreError {
    let refused = code(error).is_some_and(|code| REFUSED.contains(&code));
    let lost = is_history_lost(error) || (resuming && code(error).is_some() && !refused);
    if lost && !is_transient(error) {
        return StoreError::new(StoreErrorKind::HistoryLost, format!("watch sessions: {}", error.kind));
    }
    store_error("watch sessions", error)
}

/// `ChangeStreamHistoryLost`, `ChangeStreamFatalError`, or an error that the server labels as final.
fn is_history_lost(error: &Error) -> bool {
    code(error).is_some_and(|code| [280, 286].contains(&code))
        || error.contains_label("NonResumableChangeStreamError")
}

/// A failure to connect, whose message may quote the URL: when it holds any part of the credentials it is withheld whole,
/// as blanking parts of it would show where they were.
pub(super) fn without_credentials(url: &str, failed: StoreError) -> StoreError {
    match credentials(url).iter().any(|secret| failed.message.contains(secret)) {
        true => StoreError::new(
            failed.kind,
            "connect: refused (the reason is withheld, it repeats credentials of the URL)",
        ),
        false => failed,
    }
}

/// Every part of the URL that is, or in a mistyped URL may be, a name or a password.
fn credentials(url: &str) -> Vec<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut secrets: Vec<&str> = match rest.rsplit_once('@') {
        Some((user_information, _)) => {
            user_information.split([':', '/', '@', '?', '&', '=', '%', ',']).collect()
        }
        // Without `@` the driver takes `name:password` for `host:port`.
        None => rest.split([',', '/', '?']).filter_map(|host| Some(host.split_once(':')?.1)).collect(),
    };
    secrets.retain(|secret| !secret.is_empty() && secret.parse::<u16>().is_err());
    secrets
}
