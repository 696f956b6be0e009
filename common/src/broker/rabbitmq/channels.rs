//! Opening channels on one connection, past the ids that are spoilt.
//!
//! RabbitMQ closes a channel to refuse something: an inbox on a queue that is gone, a message for an exchange that is gone.
//! lapin (4.12) keeps that refusal for ever with the channel's id, and ids are used again, after 2,047 channels. A channel
//! under such an id fails at once with what was refused long ago: a queue that is there seems to be missing. No channel is
//! ever refused like that by RabbitMQ itself, so an id is known to be spoilt by it, and the next one is tried. A
//! connection on which many are spoilt is [worn](Channels::is_worn) and is replaced.

use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::{Channel, Connection, ErrorKind};
use tokio::sync::Notify;

use super::error::from_lapin;
use crate::broker::BrokerResult;

/// With so many spoilt ids of 2,047 a connection is worn.
const WORN: usize = 500;
/// Tries to find an id that is not spoilt.
const TRIES: usize = 2_048;

/// The channels of one connection.
#[derive(Default)]
pub(super) struct Channels {
    spoilt: AtomicUsize,
    worn: Notify,
}

impl Channels {
    /// Opens a channel.
    pub(super) async fn open(&self, connection: &Connection) -> BrokerResult<Channel> {
        for _ in 0..TRIES {
            match connection.create_channel().await {
                Ok(channel) => return Ok(channel),
                Err(error) if is_stale(&error) && connection.status().connected() => {}
                Err(error) => {
                    if matches!(error.kind(), ErrorKind::ChannelsLimitReached) {
                        self.wear(WORN);
                    }
                    return Err(from_lapin("open a channel", error));
                }
            }
        }
        self.wear(WORN);
        Err(super::unavailable("every channel of the connection is spoilt"))
    }

    /// Notes that RabbitMQ has closed a channel: its id is spoilt.
    pub(super) fn spoil(&self) {
        self.wear(1);
    }

    /// Whether the connection should be replaced.
    pub(super) fn is_worn(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed) >= WORN
    }

    /// Waits until it should be.
    pub(super) async fn worn(&self) {
        loop {
            let mut told = std::pin::pin!(self.worn.notified());
            told.as_mut().enable();
            if self.is_worn() {
                return;
            }
            told.await;
        }
    }

    fn wear(&self, count: usize) {
        if self.spoilt.fetch_add(count, Ordering::Relaxed) + count >= WORN {
            self.worn.notify_waiters();
        }
    }
}

/// What lapin gives for an id whose last channel was closed by RabbitMQ.
fn is_stale(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(_) | ErrorKind::InvalidChannelState(..))
}
