//! One user queue held by this instance: its exclusive inbox, and what was read and not confirmed yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::broker::{Broker, BrokerError, Inbox, InboxOptions, topology};
use common::model::EventId;
use common::store::Store;
use futures::FutureExt as _;
use tokio::sync::watch;

use super::{Ends, Held, Recipient};
use crate::metrics::{self, Gauge};

/// Unconfirmed events of one endpoint that may be out at once; then its queue is not read further.
pub const WINDOW: u16 = 512;
/// Confirmed ids remembered, to recognise what the broker delivers again because an acknowledgement was lost.
const REMEMBERED: usize = 1_024;
/// After a take-over without the older reader's help, how long to look for the cursor among what comes again.
const CATCH_UP: Duration = Duration::from_millis(50);
/// Pause before the deletion of a queue is tried again, doubled each time; after the last try it stays until nobody
/// reads it any more.
const DELETE_AGAIN: Duration = Duration::from_secs(1);
const DELETE_TRIES: u32 = 7;

/// The queue is gone: nobody joined with this endpoint, or its last event is confirmed, or nobody read it for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What confirming an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It is not among what is held: confirmed before, or never given out by this queue.
    Unknown,
    Removed,
    /// The event that ends the stream is confirmed: the queue is gone with it.
    Over(Ends),
}

/// Deletes a queue whose stream has ended, a moment later. While it stays, whoever goes on polling never hears that it is over.
async fn delete_later(broker: Arc<dyn Broker>, queue: String) {
    for attempt in 0..DELETE_TRIES {
        tokio::time::sleep(DELETE_AGAIN * 2_u32.pow(attempt)).await;
        if broker.delete_queue(&queue).await.is_ok() {
            return;
        }
    }
    tracing::info!(queue, "a user queue that is not needed any more stays until nobody reads it");
}

/// See the module. Dropping it puts back what is not confirmed.
pub struct Lease {
    // Dropped first: what is unsettled then returns to the queue at once and in order, not to this inbox.
    inbox: Box<dyn Inbox>,
    backlog: VecDeque<Held>,
    confirmed: VecDeque<EventId>,
    /// The last event in the backlog ends the stream; that was checked.
    ended: bool,
    recipient: Recipient,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    /// Changes when the link is lost that the inbox was opened on.
    link: watch::Receiver<bool>,
    _gauge: Gauge,
}

impl Lease {
    /// Opens the queue for this instance alone.
    ///
    /// # Errors
    /// `Unroutable` without such a queue, `Conflict` while another instance has it.
    pub async fn open(
        recipient: Recipient,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
    ) -> Result<Self, BrokerError> {
        let mut link = broker.connected();
        link.mark_unchanged();
        let inbox = broker
            .open_inbox(&recipient.queue_name(), InboxOptions { prefetch: WINDOW, exclusive: true })
            .await?;
        metrics::lease_changed("opened");
        Ok(Self {
            inbox,
            backlog: VecDeque::new(),
            confirmed: VecDeque::new(),
            ended: false,
            recipient,
            broker,
            store,
            link,
            _gauge: Gauge::lease(),
        })
    }

    /// Puts back what is not confirmed and waits until another instance can open the queue.
    pub async fn let_go(self) {
        self.inbox.close().await;
    }

    /// Whether the link was lost since this queue was opened. Then everything unconfirmed is back in the queue, and another
    /// instance may have opened it.
    pub fn link_was_lost(&self) -> bool {
        self.link.has_changed().unwrap_or(true)
    }

    /// What may be given to the client, oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.backlog.iter().take(self.ready())
    }

    /// How many events may be given to the client.
    pub fn ready(&self) -> usize {
        self.backlog.len() - usize::from(self.is_doubtful())
    }

    /// How many events are unconfirmed.
    pub fn held(&self) -> usize {
        self.backlog.len()
    }

    /// How the stream ends with the last event, when it does: nothing follows it.
    pub fn end(&self) -> Option<Ends> {
        self.backlog.back().filter(|_| self.ended).map(|last| last.ends)
    }

    /// Removes everything up to and including this event from the queue.
    pub async fn confirm(&mut self, cursor: EventId) -> Confirmed {
        let Some(position) = self.backlog.iter().position(|held| held.id == cursor) else {
            return Confirmed::Unknown;
        };
        for _ in 0..=position {
            if let Some(over) = self.confirm_oldest().await {
                return over;
            }
        }
        Confirmed::Removed
    }

    /// Removes the oldest event from the queue; tells when that was the end.
    pub async fn confirm_oldest(&mut self) -> Option<Confirmed> {
        let held = self.backlog.pop_front()?;
        if self.confirmed.len() == REMEMBERED {
            self.confirmed.pop_front();
        }
        self.confirmed.push_back(held.id);
        if let Err(error) = held.delivery.acknowledge().await {
            // It comes again, and is recognised by its id.
            tracing::debug!(error = %error, event_id = %held.id, "an acknowledgement was lost");
        }
        if held.ends == Ends::No {
            return None;
        }
        // Unchecked when the client was given it by another instance.
        if !self.ended && !self.is_over(held.ends).await {
            return None;
        }
        let deleted = self.broker.delete_queue(&self.recipient.queue_name()).await;
        if let Err(error) = &deleted {
            tracing::debug!(error = %error, "a user queue that is not needed any more stays for now");
        }
        // RabbitMQ (3.10) says that it deleted a queue, and starts it again, when the exchange that the queue is bound to goes in the
        // same moment: the worker deletes that when the session closes.
        if deleted.is_err() || held.ends == Ends::Closed {
            common::ambient::spawn(delete_later(self.broker.clone(), self.recipient.queue_name()));
        }
        Some(Confirmed::Over(held.ends))
    }

    /// After a take-over without the older reader's help: confirms `cursor` should it come again.
    ///
    /// What the older reader had read and not confirmed comes first, marked as redelivered; the cursor can only be
    /// among that.
    pub async fn catch_up(&mut self, cursor: EventId) -> Result<Confirmed, Gone> {
        let until = tokio::time::Instant::now() + CATCH_UP;
        loop {
            match self.confirm(cursor).await {
                Confirmed::Unknown => {}
                found => return Ok(found),
            }
            let comes_again = self.backlog.back().is_none_or(|held| held.redelivered);
            if !comes_again || self.backlog.len() >= usize::from(WINDOW) {
                return Ok(Confirmed::Unknown);
            }
            match tokio::time::timeout_at(until, self.fill()).await {
                Ok(filled) => filled?,
                Err(_) => return Ok(Confirmed::Unknown),
            }
        }
    }

    /// Waits until there is one more event for the client. Dropping the future loses nothing.
    ///
    /// Never ends while [`WINDOW`] events are unconfirmed, or after the event that ends the stream.
    pub async fn fill(&mut self) -> Result<(), Gone> {
        loop {
            if self.ended {
                return std::future::pending().await;
            }
            if self.is_doubtful() {
                if self.settle_doubt().await {
                    return Ok(());
                }
                continue;
            }
            let delivery = self.inbox.next().await.ok_or(Gone)?;
            // A worker wanted to know whether the queue is there.
            if delivery.message.body.is_empty() && delivery.message.message_id == topology::PING {
                let _ = delivery.acknowledge().await;
                continue;
            }
            // From the queue to the backlog there is no await for an event that is kept: it cannot get lost.
            if let Some(refused) = self.keep(delivery) {
                let _ = refused.acknowledge().await;
            } else if !self.is_doubtful() {
                return Ok(());
            }
        }
    }

    /// Takes what has arrived already, without waiting, up to `limit` held.
    pub fn fill_ready(&mut self, limit: usize) -> Result<(), Gone> {
        while self.backlog.len() < limit {
            match self.fill().now_or_never() {
                Some(filled) => filled?,
                None => break,
            }
        }
        Ok(())
    }

    /// The last event says that the stream ends, and nobody has checked yet.
    fn is_doubtful(&self) -> bool {
        !self.ended && self.backlog.back().is_some_and(|held| held.ends != Ends::No)
    }

    /// Finds out whether the last event really ends the stream. A left-over of an earlier stay (the participant left, and
    /// then joined with this endpoint) is dropped.
    async fn settle_doubt(&mut self) -> bool {
        let Some(last) = self.backlog.back() else { return false };
        if self.is_over(last.ends).await {
            self.ended = true;
            return true;
        }
        if let Some(stale) = self.backlog.pop_back() {
            metrics::dropped("stale");
            let _ = stale.delivery.acknowledge().await;
        }
        false
    }

    /// Keeps an event in the backlog; gives back what is to be acknowledged at once.
    fn keep(&mut self, delivery: common::broker::Delivery) -> Option<common::broker::Delivery> {
        let held = match Held::read(delivery, &self.recipient) {
            Ok(held) => held,
            Err(delivery) => {
                metrics::dropped("undecodable");
                tracing::warn!(message_id = %delivery.message.message_id, "not an event");
                return Some(delivery);
            }
        };
        // The session's exchange knows nobody, so it reaches its sender, too.
        if held.is_own {
            return Some(held.delivery);
        }
        // Confirmed, and its acknowledgement was lost; or the same event sent once more.
        if self.confirmed.contains(&held.id) {
            return Some(held.delivery);
        }
        // The same event sent once more; or the broker has lost the connection and delivers again what is held: then only the
        // newest delivery can be settled. Put back, the older one would come again at once, for ever.
        if let Some(place) = self.backlog.iter_mut().find(|other| other.id == held.id) {
            return Some(std::mem::replace(place, held).delivery);
        }
        self.backlog.push_back(held);
        None
    }

    /// A participant that is there with this endpoint has not left: the event is about an earlier stay, which ended
    /// while this endpoint's queue was bound already. When the store cannot tell, the event is believed: a client that
    /// is still there is told that its endpoint is gone, and joins again.
    async fn is_over(&mut self, ends: Ends) -> bool {
        match ends {
            Ends::No => false,
            Ends::Closed | Ends::Replaced => true,
            Ends::Left => match self.store.session(self.recipient.session).await {
                Ok(Some(session)) => {
                    let present = session.participant(self.recipient.participant);
                    let endpoint = present.and_then(|present| present.endpoint.as_ref());
                    endpoint.is_none_or(|endpoint| endpoint.id != self.recipient.endpoint)
                }
                Ok(None) | Err(_) => true,
            },
        }
    }
}
