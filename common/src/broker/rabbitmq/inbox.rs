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
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::error::{from_lapin, unavailable};
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
    /// An attempt to go on is under way, in a task of its own.
    Opening(Interruption, JoinHandle<BrokerResult<Box<Open>>>),
    Ended,
}

struct Open {
    /// Which connection it is on.
    generation: u64,
    live: Arc<Live>,
    channel: Channel,
    consumer: Consumer,
    reader: Arc<Reader>,
    runtime: Handle,
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
        let open = opened(start_consuming(&shared, live, queue, options).await)?;
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

    /// Starts an attempt to go on. Keeps its place when dropped half-way.
    async fn try_again(&mut self, mut interruption: Interruption) {
        let Some(live) = self.link.wait_live().await else {
            self.state = State::Ended;
            return;
        };
        interruption.lost |= live.generation != interruption.generation;
        let opening = start_consuming(&self.shared, live, &self.queue, self.options);
        self.state = State::Opening(interruption, opening);
    }

    async fn attempted(&mut self, mut interruption: Interruption, attempt: BrokerResult<Box<Open>>) {
        let error = match attempt {
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

/// Opens a reader in a task of its own: an opening that is dropped half-way would leave a reader at RabbitMQ that
/// takes messages, and the queue when exclusive, and that nobody reads. What the task opened for nobody is dropped,
/// which closes it.
fn start_consuming(
    shared: &Arc<Shared>,
    live: Arc<Live>,
    queue: &str,
    options: InboxOptions,
) -> JoinHandle<BrokerResult<Box<Open>>> {
    let (shared, queue) = (shared.clone(), queue.to_owned());
    shared.runtime.clone().spawn(async move { consume(&shared, &live, &queue, options).await })
}

fn opened<T>(task: Result<BrokerResult<T>, JoinError>) -> BrokerResult<T> {
    task.unwrap_or_else(|_| Err(unavailable("the runtime is shutting down")))
}

async fn consume(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    queue: &str,
    options: InboxOptions,
) -> BrokerResult<Box<Open>> {
    let channel = bounded(live.open_channel()).await?;
    let consumer = bounded(async {
        channel
            .basic_qos(options.prefetch.max(1), BasicQosOptions::default())
            .await
            .map_err(|error| from_lapin("bound what may be unsettled", error))?;
        let consume = BasicConsumeOptions { exclusive: options.exclusive, ..BasicConsumeOptions::default() };
        channel
            .basic_consume(queue.into(), "".into(), consume, FieldTable::default())
            .await
            .map_err(|error| from_lapin("open an inbox", error))
    })
    .await;
    let consumer = match consumer {
        Ok(consumer) => consumer,
        Err(error) => {
            // The answer may still be on its way.
            close(&channel).await;
            live.channels.spoil();
            return Err(error);
        }
    };
    let reader = Reader::new(shared.clone(), queue, options.exclusive);
    Ok(Box::new(Open {
        generation: live.generation,
        live: live.clone(),
        channel,
        consumer,
        reader,
        runtime: shared.runtime.clone(),
    }))
}

/// Closes a channel and with it its reader. When this fails the channel is closed already.
async fn close(channel: &Channel) {
    if channel.status().connected() {
        let closing = channel.close(200, "closed".into());
        let _ = bounded(async { closing.await.map_err(|error| from_lapin("close an inbox", error)) }).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            self.live.channels.spoil();
        } else {
            let (channel, consumer) = (self.channel.clone(), self.consumer.clone());
            self.runtime.spawn(async move {
                close(&channel).await;
                // Dropping the consumer cancels it. Before the channel is closed, that would free an exclusive queue
                // while what is unsettled is not back in it: the next reader would get later messages first.
                drop(consumer);
            });
        }
    }
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
                State::Opening(interruption, opening) => {
                    let interruption = *interruption;
                    let attempt = opened(opening.await);
                    self.attempted(interruption, attempt).await;
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
            close(&open.channel).await;
        }
    }
}

impl Drop for RabbitInbox {
    fn drop(&mut self) {
        lock(&self.shared.declared).inbox_closed(&self.queue, Instant::now());
    }
}
