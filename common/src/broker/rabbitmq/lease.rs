//! Channels that are lent to one call at a time.
//!
//! A channel that met an error, or whose call was dropped half-way, is not lent again: it may be closed, or a
//! late answer may be under way on it. Only [`Lease::give_back`] returns it to the pool.

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{from_lapin, unavailable};
use super::link::Live;
use super::lock;
use crate::broker::BrokerResult;

/// Calls of one kind that may wait for RabbitMQ at the same time; the others wait for a channel. With confirms
/// after half a millisecond this allows some 100,000 messages per second.
const MAX_CHANNELS: usize = 64;
/// Calls after which a channel is replaced: lapin remembers on each channel what was declared there.
const CALLS_PER_CONTROL_CHANNEL: u32 = 1_000;

/// The channels of one connection for one kind of call.
pub(super) struct Pool {
    confirming: bool,
    idle: Mutex<Vec<(Channel, u32)>>,
    permits: Semaphore,
    opened: AtomicU32,
}

impl Pool {
    pub(super) fn new(confirming: bool) -> Self {
        Self {
            confirming,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(MAX_CHANNELS),
            opened: AtomicU32::new(0),
        }
    }

    /// `live`: the connection whose pool this is.
    pub(super) async fn lease<'a>(&'a self, live: &'a Live) -> BrokerResult<Lease<'a>> {
        let permit = self.permits.acquire().await.map_err(|_| unavailable("the connection was closed"))?;
        while let Some((channel, calls)) = { lock(&self.idle).pop() } {
            if channel.status().connected() {
                return Ok(Lease { pool: self, live, channel, calls, _permit: permit });
            }
        }
        let channel = live.open_channel().await?;
        if self.confirming {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await
                .map_err(|error| from_lapin("ask for confirms", error))?;
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { pool: self, live, channel, calls: 0, _permit: permit })
    }

    /// Channels opened so far; tests look at whether they are used again.
    #[cfg(test)]
    pub(super) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// The use of one channel by one call.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    live: &'a Live,
    channel: Channel,
    calls: u32,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// The call is over and nothing is under way on the channel.
    pub(super) fn give_back(self) {
        let calls = self.calls + 1;
        if self.pool.confirming || calls < CALLS_PER_CONTROL_CHANNEL {
            lock(&self.pool.idle).push((self.channel.clone(), calls));
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            self.live.channels.spoil();
        }
    }
}

impl Deref for Lease<'_> {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}
