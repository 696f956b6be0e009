//! The reply queue of this instance: replies to commands, and messages of other API instances.
//!
//! ```text
//! service ── expect(command_id) ──▶ Waiting ◀── deliver ── inbox task ◀── replies.<instance> ◀── workers
//!                                                             └── peer messages ──▶ delivery::Readers
//! ```
//!
//! Several requests may wait for one command (a client that repeats itself); all of them get the first reply. A
//! reply that nobody waits for is counted and dropped: it belongs to a request of an earlier life of this process, and
//! the client learns the result by repeating the request with the same `Idempotency-Key`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::broker::{Broker, BrokerResult, Delivery, Inbox, InboxOptions, topology};
use common::message::Reply;
use common::model::{CommandId, InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::delivery::PeerMessage;
use crate::error::{ApiError, ApiResult, Code};
use crate::metrics::{self, Gauge};

/// Commands of one instance without a reply yet; beyond it requests are refused with 503.
pub const MAX_WAITING: usize = 10_000;
const PREFETCH: u16 = 1_000;
const REOPEN_DELAY: Duration = Duration::from_millis(200);

/// What arrives in a reply queue.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Incoming {
    Peer { peer: PeerMessage },
    Reply(Box<Reply>),
}

/// Who waits for which reply.
pub struct Replies {
    instance: InstanceId,
    waiting: Mutex<HashMap<CommandId, Vec<oneshot::Sender<Reply>>>>,
}

/// A place in the line for one command's reply; dropping it gives the place up.
pub struct Waiting {
    replies: Arc<Replies>,
    command_id: CommandId,
    receiver: oneshot::Receiver<Reply>,
    /// What [`Self::within`] got.
    early: Option<Result<Reply, oneshot::error::RecvError>>,
    _gauge: Gauge,
}

impl Replies {
    pub fn new(instance: InstanceId) -> Self {
        Self { instance, waiting: Mutex::default() }
    }

    /// The name that goes into `reply_to`.
    pub fn queue(&self) -> String {
        topology::replies_queue_name(self.instance)
    }

    /// Starts waiting; call it before sending the command.
    ///
    /// # Errors
    /// `unavailable` when [`MAX_WAITING`] commands wait already.
    pub fn expect(self: &Arc<Self>, command_id: CommandId) -> ApiResult<Waiting> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            return Err(ApiError::new(
                Code::Unavailable,
                "too many commands are without an answer: try again",
            ));
        }
        waiting.entry(command_id).or_default().push(sender);
        drop(waiting);
        let replies = self.clone();
        Ok(Waiting { replies, command_id, receiver, early: None, _gauge: Gauge::waiting_command() })
    }

    fn deliver(&self, reply: Reply) {
        let senders = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&reply.command_id)
            .unwrap_or_default();
        let mut taken = false;
        for sender in senders {
            taken |= sender.send(reply.clone()).is_ok();
        }
        if !taken {
            metrics::reply("unmatched");
            tracing::debug!(command_id = %reply.command_id, "a reply that nobody waits for");
        }
    }

    /// Declares the reply queue and the exchange between instances and opens the queue.
    pub async fn open(&self, broker: &dyn Broker) -> BrokerResult<Box<dyn Inbox>> {
        let queue = topology::replies_queue(self.instance);
        broker.declare_queue(&queue).await?;
        broker.declare_exchange(topology::API).await?;
        broker.bind(&queue.name, topology::API).await?;
        broker.open_inbox(&queue.name, InboxOptions { prefetch: PREFETCH, exclusive: false }).await
    }

    /// Reads the queue until `shutdown`. Opens it again should it end.
    pub async fn read(
        self: Arc<Self>,
        broker: Arc<dyn Broker>,
        mut inbox: Box<dyn Inbox>,
        shutdown: CancellationToken,
        on_peer: impl Fn(PeerMessage) + Send,
    ) {
        loop {
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                delivery = inbox.next() => delivery,
            };
            match delivery {
                Some(delivery) => self.handle(delivery, &on_peer).await,
                None => {
                    tracing::warn!("the reply queue is gone: opening it again");
                    let Some(opened) = self.reopen(&*broker, &shutdown).await else { return };
                    inbox = opened;
                }
            }
        }
    }

    async fn handle(&self, delivery: Delivery, on_peer: &impl Fn(PeerMessage)) {
        match serde_json::from_slice(&delivery.message.body) {
            Ok(Incoming::Reply(reply)) => self.deliver(*reply),
            Ok(Incoming::Peer { peer }) => on_peer(peer),
            Err(error) => {
                metrics::reply("undecodable");
                tracing::warn!(error = %error, message_id = %delivery.message.message_id, "not a reply");
            }
        }
        // When this fails the message comes again, and finds nobody waiting.
        let _ = delivery.acknowledge().await;
    }

    async fn reopen(&self, broker: &dyn Broker, shutdown: &CancellationToken) -> Option<Box<dyn Inbox>> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(REOPEN_DELAY) => {}
            }
            match self.open(broker).await {
                Ok(inbox) => return Some(inbox),
                Err(error) => tracing::warn!(error = %error, "the reply queue cannot be opened"),
            }
        }
    }
}

impl Waiting {
    /// Whether the reply comes within `time`. Keeps it for [`Self::reply`].
    pub async fn within(&mut self, time: Duration) -> bool {
        if self.early.is_none() {
            self.early = tokio::time::timeout(time, &mut self.receiver).await.ok();
        }
        self.early.is_some()
    }

    /// Waits for the reply, at most `limit`.
    pub async fn reply(mut self, limit: Duration) -> Option<Reply> {
        if let Some(received) = self.early.take() {
            return received.ok();
        }
        tokio::time::timeout(limit, &mut self.receiver).await.ok()?.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiting = self.replies.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(senders) = waiting.get_mut(&self.command_id) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.command_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::message::ReplyBody;

    use super::*;

    fn reply(command_id: CommandId) -> Reply {
        Reply { command_id, session_id: None, participant_id: None, result: Ok(ReplyBody::Accepted) }
    }

    #[tokio::test]
    async fn everyone_who_waits_for_a_command_gets_its_first_reply() {
        let replies = Arc::new(Replies::new(InstanceId::new()));
        let command_id = CommandId::new();
        let first = replies.expect(command_id).unwrap();
        let second = replies.expect(command_id).unwrap();
        replies.deliver(reply(command_id));
        replies.deliver(reply(command_id));
        let patience = Duration::from_secs(5);
        assert_eq!(first.reply(patience).await, Some(reply(command_id)));
        assert_eq!(second.reply(patience).await, Some(reply(command_id)));
        assert!(replies.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind_and_disturbs_nobody() {
        let replies = Arc::new(Replies::new(InstanceId::new()));
        let command_id = CommandId::new();
        let stays = replies.expect(command_id).unwrap();
        drop(replies.expect(command_id).unwrap());
        replies.deliver(reply(command_id));
        assert!(stays.reply(Duration::from_secs(5)).await.is_some());
        drop(replies.expect(command_id).unwrap());
        assert!(replies.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_waiting_commands_is_bounded() {
        let replies = Arc::new(Replies::new(InstanceId::new()));
        let held: Vec<_> = (0..MAX_WAITING).map(|_| replies.expect(CommandId::new()).unwrap()).collect();
        assert_eq!(replies.expect(CommandId::new()).err().map(|error| error.code), Some(Code::Unavailable));
        drop(held);
        assert!(replies.expect(CommandId::new()).is_ok());
    }

    #[test]
    fn replies_and_peer_messages_are_told_apart() {
        let text = serde_json::to_vec(&reply(CommandId::new())).unwrap();
        assert!(matches!(serde_json::from_slice(&text), Ok(Incoming::Reply(_))));
        let peer = PeerMessage::LetGoAnswer {
            request_id: uuid::Uuid::nil(),
            outcome: crate::delivery::LetGo::Newer,
        };
        let text = serde_json::to_vec(&Incoming::Peer { peer }).unwrap();
        assert!(matches!(serde_json::from_slice(&text), Ok(Incoming::Peer { .. })));
    }
}
