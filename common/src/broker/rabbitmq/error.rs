//! lapin's errors as ours. Reply texts of RabbitMQ name queues and virtual hosts, never credentials.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

use crate::broker::{BrokerError, BrokerErrorKind};

pub(super) fn unavailable(message: impl Into<String>) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, message)
}

/// `doing` completes "could not …".
pub(super) fn from_lapin(doing: &str, error: lapin::Error) -> BrokerError {
    let kind = match error.kind() {
        ErrorKind::ProtocolError(refusal) => match refusal.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::NOROUTE) => {
                BrokerErrorKind::Unroutable
            }
            AMQPErrorKind::Soft(
                AMQPSoftError::ACCESSREFUSED
                | AMQPSoftError::RESOURCELOCKED
                | AMQPSoftError::PRECONDITIONFAILED,
            ) => BrokerErrorKind::Conflict,
            // The connection as a whole was refused or closed: shutdown, missing rights on the virtual host, …
            AMQPErrorKind::Hard(_) => BrokerErrorKind::Unavailable,
            AMQPErrorKind::Soft(_) => BrokerErrorKind::Internal,
        },
        ErrorKind::SerialisationError(_) | ErrorKind::ParsingError(_) | ErrorKind::NoDefaultRuntime => {
            BrokerErrorKind::Internal
        }
        _ => BrokerErrorKind::Unavailable,
    };
    BrokerError::new(kind, format!("could not {doing}: {error}")).with_source(error)
}
