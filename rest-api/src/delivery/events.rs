//! One delivery of a user queue as an event for its client.

use common::broker::Delivery;
use common::message::{EndpointEnd, Event, EventBody};
use common::model::EventId;

use super::Recipient;
use crate::view::EventView;

/// Whether a stream goes on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    No,
    /// The participant itself left or was removed; unless that was before it joined with this endpoint.
    Left,
    /// The participant has joined again: another endpoint has its events.
    Replaced,
    /// The session is over for good.
    Closed,
}

/// An event that was read from the queue and is not confirmed yet.
pub struct Held {
    pub id: EventId,
    pub kind: &'static str,
    pub ends: Ends,
    pub redelivered: bool,
    /// What its reader said to everyone else.
    pub is_own: bool,
    pub delivery: Delivery,
}

impl Held {
    /// Reads a delivery; gives it back when it is no event.
    pub fn read(delivery: Delivery, reader: &Recipient) -> Result<Self, Delivery> {
        let Ok(event) = serde_json::from_slice::<Event>(&delivery.message.body) else { return Err(delivery) };
        let ends = match &event.body {
            EventBody::SessionClosed {} => Ends::Closed,
            EventBody::ParticipantLeft { participant_id, .. } if *participant_id == reader.participant => {
                Ends::Left
            }
            EventBody::EndpointState { endpoint_id, reason: Some(EndpointEnd::Replaced), .. }
                if *endpoint_id == reader.endpoint =>
            {
                Ends::Replaced
            }
            _ => Ends::No,
        };
        let is_own = matches!(
            &event.body,
            EventBody::Message { from: Some(from), .. } if *from == reader.participant
        );
        let (kind, redelivered) = (event.body.kind(), delivery.redelivered);
        Ok(Self { id: event.id, kind, ends, redelivered, is_own, delivery })
    }

    /// What the client gets. Made when it is sent, and not kept: what waits for confirmation, hundreds of events of each
    /// client that has a stream, then costs only the message, which all queues of a session share where the broker is
    /// embedded.
    pub fn json(&self) -> String {
        let event = serde_json::from_slice::<Event>(&self.delivery.message.body);
        let json = event.and_then(|event| serde_json::to_string(&EventView::from(event)));
        json.expect("an event is held only if it could be read, and what was read can be written")
    }
}
