//! A standing reader of one queue that outlives connections.
//!
//! Each inbox has a channel of its own: a refused exclusive inbox closes its channel, and closing the channel is
//! what puts everything unsettled back in order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::Instant;

use super::error::from_lapin;
use super::link::{Live, Place, jittered};
use super::settle::Reader;
use super::{Shared, bounded, lock};
use crate::broker::{BrokerError, BrokerErrorKind, BrokerResult, Delivery, Inbox, InboxOptions};

/// After a loss, how long an inbox looks for its queue, which another process may still have to declare again.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// After a loss, how long an exclusive inbox tries to get its queue back. Longer than RabbitMQ needs to notice
/// that the old connection, in whose name it is still taken, is dead.
const CONFLICT_PATIENCE: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

pub(super) struct RabbitInbox {
    shared: Arc<Shared>,
    link: Place,
    queue: String,
    options: InboxOptions,
    state: State,
}

enum State {
    Open(Box<Open>),
    /// Its consumer ended; to be opened again.
    Interrupted(Interruption),
    Ended,
}

struct Open {
    /// Which connection it is on.
    generation: u64,
    channel: Channel,
    consumer: Consumer,
    reader: Arc<Reader>,
}

#[derive(Clone, Copy)]
struct Interruption {
    generation: u64,
    since: Instant,
    /// The connection was lost, so that the queue may be missing only for a while.
    lost: bool,
    retry: Duration,
}

impl RabbitInbox {
    /// # Errors
    /// `Unroutable`: no such queue. `Conflict`: another inbox has it exclusively, or it is not this process's
    /// exclusive queue. `Unavailable`.
    pub(super) async fn open(
        shared: Arc<Shared>,
        link: Place,
        queue: &str,
        options: InboxOptions,
    ) -> BrokerResult<Self> {
        let live = link.live()?;
        let open = consume(&shared, &live, queue, options).await?;
        lock(&shared.declared).inbox_opened(queue);
        Ok(Self { shared, link, queue: queue.to_owned(), options, state: State::Open(open) })
    }

    fn interrupted(&mut self) {
        if let State::Open(open) = &self.state {
            let lost = !open.channel.status().connected() || self.link.live().is_err();
            self.state = State::Interrupted(Interruption {
                generation: open.generation,
                since: Instant::now(),
                lost,
                retry: FIRST_RETRY,
            });
        }
    }

    /// One attempt to go on. Keeps its place when dropped half-way.
    async fn try_again(&mut self, mut interruption: Interruption) {
        let Some(live) = self.link.wait_live().await else {
            self.state = State::Ended;
            return;
        };
        interruption.lost |= live.generation != interruption.generation;
        let error = match bounded(consume(&self.shared, &live, &self.queue, self.options)).await {
            Ok(open) => {
                self.state = State::Open(open);
                return;
            }
            Err(error) => error,
        };
        interruption.lost |= error.kind == BrokerErrorKind::Unavailable;
        if is_final(&error, &interruption) {
            tracing::debug!(queue = self.queue, %error, "inbox ended");
            self.state = State::Ended;
            return;
        }
        let delay = jittered(interruption.retry);
        interruption.retry = (interruption.retry * 2).min(LAST_RETRY);
        self.state = State::Interrupted(interruption);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.shared.closed.cancelled() => {}
        }
    }
}

fn is_final(error: &BrokerError, interruption: &Interruption) -> bool {
    let waited = interruption.since.elapsed();
    match error.kind {
        BrokerErrorKind::Unroutable => !interruption.lost || waited >= QUEUE_PATIENCE,
        BrokerErrorKind::Conflict => waited >= CONFLICT_PATIENCE,
        BrokerErrorKind::Unavailable | BrokerErrorKind::Full => false,
        BrokerErrorKind::Internal => waited >= CONFLICT_PATIENCE,
    }
}

async fn consume(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    queue: &str,
    options: InboxOptions,
) -> BrokerResult<Box<Open>> {
    let channel =
        live.connection.create_channel().await.map_err(|error| from_lapin("open a channel", error))?;
    channel
        .basic_qos(options.prefetch.max(1), BasicQosOptions::default())
        .await
        .map_err(|error| from_lapin("bound what may be unsettled", error))?;
    let consume = BasicConsumeOptions { exclusive: options.exclusive, ..BasicConsumeOptions::default() };
    let consumer = channel
        .basic_consume(queue.into(), "".into(), consume, FieldTable::default())
        .await
        .map_err(|error| from_lapin("open an inbox", error))?;
    let reader = Reader::new(shared.clone(), queue, options.exclusive);
    Ok(Box::new(Open { generation: live.generation, channel, consumer, reader }))
}

#[async_trait]
impl Inbox for RabbitInbox {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            match &mut self.state {
                State::Ended => return None,
                State::Interrupted(interruption) => {
                    let interruption = *interruption;
                    self.try_again(interruption).await;
                }
                State::Open(open) => {
                    if let Some(kept) = open.reader.hand_out_kept() {
                        return Some(kept);
                    }
                    tokio::select! {
                        biased;
                        () = self.shared.closed.cancelled() => self.state = State::Ended,
                        () = open.reader.kept() => {}
                        received = open.consumer.next() => match received {
                            Some(Ok(delivery)) => {
                                if let Some(delivery) = open.reader.receive(delivery) {
                                    return Some(delivery);
                                }
                            }
                            Some(Err(error)) => {
                                tracing::debug!(queue = self.queue, %error, "inbox interrupted");
                                self.interrupted();
                            }
                            None => self.interrupted(),
                        },
                    }
                }
            }
        }
    }

    async fn close(self: Box<Self>) {
        if let State::Open(open) = &self.state {
            // When this fails the channel is gone already, which closes the inbox as well.
            let _ = bounded(async {
                open.channel
                    .close(200, "closed".into())
                    .await
                    .map_err(|error| from_lapin("close an inbox", error))
            })
            .await;
        }
    }
}

impl Drop for RabbitInbox {
    fn drop(&mut self) {
        lock(&self.shared.declared).inbox_closed(&self.queue, Instant::now());
    }
}
