//! What happened, told to clients: one ordered stream of events for each session.
//!
//! ```text
//!   command, media event ──send──▶ queue of the session ──one task──▶ exchange or user queue
//! ```
//!
//! Nobody waits for a broker here: events queue up to a bound while it is away (then the oldest go, counted),
//! and the media thread never waits for this queue.
//!
//! A [`Slot`] keeps a place in the order for events that are not certain yet. A join takes one before it
//! touches the media plane, so that the offers which the media plane then makes to everyone else follow
//! `participant.joined` instead of preceding it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::broker::{Broker, BrokerErrorKind, Destination, Message, topology};
use common::message::{Event, EventBody};
use common::model::{EndpointId, ParticipantId, SessionId};
use futures::FutureExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::serial::Serial;
use crate::standing::Standing;
use crate::timeline::Timeline;

/// Events of one session that may wait for the broker.
const QUEUE: usize = 2_048;
/// How long a slot holds up what follows it. Past that its events go to the end of the queue.
const SLOT_PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries of an event while the broker is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whom an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Everyone,
    /// One endpoint of the participant: its user queue.
    Participant(ParticipantId, EndpointId),
}

pub(crate) type Report = (To, EventBody);

enum Item {
    Event(To, Box<Event>),
    Reserved(oneshot::Receiver<Vec<(To, Event)>>),
    /// Everything before it has been delivered: the exchange may go.
    DeleteExchange,
}

/// An item and its number among all that were ever queued.
type Numbered = (u64, SessionId, Item);

/// The sender of all events of one worker.
#[derive(Clone)]
pub(crate) struct Reporter {
    queues: Serial<SessionId, Numbered>,
    shared: Arc<Shared>,
    timeline: Option<Timeline>,
}

struct Shared {
    broker: Arc<dyn Broker>,
    standing: Arc<Standing>,
    next: AtomicU64,
    /// Sessions that this worker lost: what was queued before this number is not sent.
    fences: Mutex<HashMap<SessionId, u64>>,
}

impl Shared {
    /// Waits until this worker may act. `false`: it lost the session after the event was queued.
    async fn may_send(&self, session_id: SessionId, number: u64) -> bool {
        self.standing.good().await;
        let fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        fences.get(&session_id).is_none_or(|fence| number >= *fence)
    }
}

impl Reporter {
    /// Until `stop` is cancelled, events are retried as long as the broker is away.
    pub fn new(broker: Arc<dyn Broker>, standing: Arc<Standing>, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared { broker, standing, next: AtomicU64::new(0), fences: Mutex::default() });
        let for_delivery = shared.clone();
        let queues = Serial::new(QUEUE, move |item| {
            let (shared, stop) = (for_delivery.clone(), stop.clone());
            async move {
                // Cancelled: the process ends, and what could not be sent by then is lost with it.
                let _ = stop.run_until_cancelled(deliver(&shared, item)).await;
            }
            .boxed()
        });
        Self { queues, shared, timeline: None }
    }

    /// The same, and what it tells is noted in the sessions' timelines.
    pub fn noting(self, timeline: Timeline) -> Self {
        Self { timeline: Some(timeline), ..self }
    }

    /// Drops what is queued for a session that this worker lost: others speak for it now, and whoever joins again learns
    /// its present state.
    pub fn fence(&self, session_id: SessionId) {
        let next = self.shared.next.load(Ordering::Acquire);
        let mut fences = self.shared.fences.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nothing waits any more, a fence holds nothing back.
        fences.retain(|session_id, _| self.queues.has_work(session_id));
        fences.insert(session_id, next);
    }

    /// Queues an event; never waits.
    pub fn send(&self, session_id: SessionId, to: To, body: EventBody) {
        self.note(session_id, &body);
        self.push(session_id, Item::Event(to, Box::new(Event::new(session_id, body))));
    }

    /// Keeps a place in the session's order.
    pub fn reserve(&self, session_id: SessionId) -> Slot {
        let (fill, filled) = oneshot::channel();
        self.push(session_id, Item::Reserved(filled));
        Slot { reporter: self.clone(), session_id, fill }
    }

    /// Removes the session's exchange once everything queued before has been sent.
    pub fn delete_exchange(&self, session_id: SessionId) {
        self.push(session_id, Item::DeleteExchange);
    }

    /// Waits until everything queued has been sent (or dropped).
    pub async fn drained(&self) {
        self.queues.drained().await;
    }

    fn note(&self, session_id: SessionId, body: &EventBody) {
        if let Some(timeline) = &self.timeline {
            timeline.note_event(session_id, body);
        }
    }

    fn push(&self, session_id: SessionId, item: Item) {
        let number = self.shared.next.fetch_add(1, Ordering::AcqRel);
        if let Some((_, _, Item::Event(_, event))) = self.queues.push(session_id, (number, session_id, item))
        {
            metrics::event(event.body.kind(), "dropped");
            tracing::warn!(%session_id, kind = event.body.kind(), "event queue is full: the oldest event is dropped");
        }
    }
}

/// A place in a session's order of events. Dropping it gives the place up.
pub(crate) struct Slot {
    reporter: Reporter,
    session_id: SessionId,
    fill: oneshot::Sender<Vec<(To, Event)>>,
}

impl Slot {
    pub fn fill(self, reports: impl IntoIterator<Item = Report>) {
        let session_id = self.session_id;
        let noted = reports.into_iter().inspect(|(_, body)| self.reporter.note(session_id, body));
        let events: Vec<_> = noted.map(|(to, body)| (to, Event::new(session_id, body))).collect();
        // The place has been passed over: late is better than never.
        if let Err(late) = self.fill.send(events) {
            for (to, event) in late {
                self.reporter.push(session_id, Item::Event(to, Box::new(event)));
            }
        }
    }
}

async fn deliver(shared: &Shared, (number, session_id, item): Numbered) {
    match item {
        Item::Event(to, event) => send(shared, number, to, &event).await,
        Item::Reserved(mut filled) => {
            let events = match tokio::time::timeout(SLOT_PATIENCE, &mut filled).await {
                Ok(events) => events.ok(),
                Err(_) => {
                    // From here on `fill` fails and queues its events anew; what it sent just before is taken.
                    filled.close();
                    filled.try_recv().ok()
                }
            };
            for (to, event) in events.unwrap_or_default() {
                send(shared, number, to, &event).await;
            }
        }
        Item::DeleteExchange => {
            if let Err(error) =
                shared.broker.delete_exchange(&topology::session_exchange_name(session_id)).await
            {
                tracing::warn!(%session_id, %error, "the exchange of a closed session stays");
            }
        }
    }
}

async fn send(shared: &Shared, number: u64, to: To, event: &Event) {
    let name = match to {
        To::Everyone => topology::session_exchange_name(event.session_id),
        To::Participant(participant_id, endpoint_id) => {
            topology::user_queue_name(event.session_id, participant_id, endpoint_id)
        }
    };
    let destination = match to {
        To::Everyone => Destination::Exchange(&name),
        To::Participant(..) => Destination::Queue(&name),
    };
    let body = serde_json::to_vec(event).expect("an event is plain data");
    let message = Message { body, message_id: event.id.to_string(), ttl: event.body.kept_for() };
    let kind = event.body.kind();
    let mut pause = RETRY_PAUSE;
    loop {
        if !shared.may_send(event.session_id, number).await {
            tracing::debug!(session_id = %event.session_id, kind, "not sent: the session is another worker's now");
            return metrics::event(kind, "fenced");
        }
        match shared.broker.send(destination, message.clone()).await {
            Ok(()) => return metrics::event(kind, "sent"),
            // The same id again: a client that got the first try drops the second.
            Err(error) if error.kind == BrokerErrorKind::Unavailable => {
                tracing::debug!(event_id = %event.id, %error, "the event waits for the broker");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
            Err(error) if error.kind == BrokerErrorKind::Unroutable => {
                tracing::debug!(session_id = %event.session_id, kind, "nobody reads there any more");
                return metrics::event(kind, "unroutable");
            }
            Err(error) => {
                tracing::warn!(session_id = %event.session_id, event_id = %event.id, kind, %error, "event not sent");
                return metrics::event(kind, "failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::broker::embedded::EmbeddedBroker;
    use common::broker::{Inbox, InboxOptions};

    const EVERYONE: To = To::Everyone;

    struct Setup {
        reporter: Reporter,
        session_id: SessionId,
        inbox: Box<dyn Inbox>,
    }

    async fn setup() -> Setup {
        let broker = EmbeddedBroker::new();
        let session_id = SessionId::new();
        let queue = topology::user_queue(session_id, ParticipantId::new(), EndpointId::new());
        let exchange = topology::session_exchange_name(session_id);
        broker.declare_queue(&queue).await.unwrap();
        broker.declare_exchange(&exchange).await.unwrap();
        broker.bind(&queue.name, &exchange).await.unwrap();
        let options = InboxOptions { prefetch: 100, exclusive: false };
        let inbox = broker.open_inbox(&queue.name, options).await.unwrap();
        let standing = Arc::new(Standing::new(Duration::from_secs(60)));
        let reporter = Reporter::new(Arc::new(broker), standing, CancellationToken::new());
        Setup { reporter, session_id, inbox }
    }

    /// Events that are told apart by their number.
    fn numbered(epoch: i64) -> EventBody {
        EventBody::SessionInterrupted { epoch }
    }

    impl Setup {
        async fn next(&mut self) -> EventBody {
            let delivery = self.inbox.next().await.expect("the queue is there");
            let event: Event = serde_json::from_slice(&delivery.message.body).unwrap();
            delivery.acknowledge().await.unwrap();
            event.body
        }
    }

    #[tokio::test]
    async fn what_fills_a_slot_comes_before_what_was_sent_after_it() {
        let mut setup = setup().await;
        let slot = setup.reporter.reserve(setup.session_id);
        setup.reporter.send(setup.session_id, EVERYONE, numbered(3));
        slot.fill([(EVERYONE, numbered(1)), (EVERYONE, numbered(2))]);
        for epoch in 1..=3 {
            assert_eq!(setup.next().await, numbered(epoch));
        }
    }

    #[tokio::test]
    async fn a_slot_that_is_given_up_holds_nothing_up() {
        let mut setup = setup().await;
        drop(setup.reporter.reserve(setup.session_id));
        setup.reporter.send(setup.session_id, EVERYONE, numbered(1));
        assert_eq!(setup.next().await, numbered(1));
    }

    #[tokio::test]
    async fn a_slot_that_takes_too_long_is_passed_over_and_its_events_follow() {
        let mut setup = setup().await;
        let slot = setup.reporter.reserve(setup.session_id);
        setup.reporter.send(setup.session_id, EVERYONE, numbered(1));
        assert_eq!(setup.next().await, numbered(1));
        slot.fill([(EVERYONE, numbered(2))]);
        assert_eq!(setup.next().await, numbered(2));
    }

    #[tokio::test]
    async fn what_was_queued_for_a_lost_session_is_not_sent_and_what_comes_after_is() {
        let mut setup = setup().await;
        let other = SessionId::new();
        let slot = setup.reporter.reserve(setup.session_id);
        setup.reporter.send(setup.session_id, EVERYONE, numbered(1));
        setup.reporter.fence(setup.session_id);
        setup.reporter.fence(other);
        setup.reporter.send(setup.session_id, EVERYONE, numbered(2));
        slot.fill([(EVERYONE, numbered(0))]);
        assert_eq!(setup.next().await, numbered(2));
    }

    #[tokio::test]
    async fn one_session_does_not_wait_for_another() {
        let mut setup = setup().await;
        let other = setup.reporter.reserve(SessionId::new());
        setup.reporter.send(setup.session_id, EVERYONE, numbered(1));
        assert_eq!(setup.next().await, numbered(1));
        drop(other);
    }
}
