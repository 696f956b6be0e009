//! Whose events: the endpoint that a user queue belongs to.

use common::broker::{QueueSpec, topology};
use common::model::{EndpointId, ParticipantId, SessionId};

/// One endpoint of one participant. An older endpoint of the same participant is another recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient {
    pub session: SessionId,
    pub participant: ParticipantId,
    pub endpoint: EndpointId,
}

impl Recipient {
    /// The name of its queue.
    pub fn queue_name(&self) -> String {
        topology::user_queue_name(self.session, self.participant, self.endpoint)
    }

    /// Its queue, to be declared.
    pub fn queue(&self) -> QueueSpec {
        topology::user_queue(self.session, self.participant, self.endpoint)
    }
}
