//! The queues and exchanges of DESIGN section 3: names, kinds and limits in one place.
//!
//! | name | kind | who | for |
//! |---|---|---|---|
//! | `workers` | quorum | every worker competes | commands with no home yet |
//! | `session.<id>` | durable, expires | every attached worker competes | commands no one endpoint owns yet |
//! | `worker.<id>` | exclusive | that worker | commands whose destination is known |
//! | `session.<id>` | fanout exchange | bound to each user queue | events for everyone |
//! | `user.<session>.<participant>.<endpoint>` | durable, expires | one API instance at a time | events for one endpoint |
//! | `replies.<instance>` | exclusive | that API instance | replies, and requests to let go of a user queue |
//! | `api` | fanout exchange | bound to every reply queue | "let go of this user queue" |
//! | `dead-letters` | durable | operators | what failed too often |

use std::time::Duration;

use super::{QueueKind, QueueSpec, WhenFull};
use crate::model::{EndpointId, InstanceId, ParticipantId, SessionId, WorkerId};

pub const WORKERS: &str = "workers";
pub const DEAD_LETTERS: &str = "dead-letters";
/// Fanout exchange to all API instances.
pub const API: &str = "api";

/// The message id of a ping: an empty message to a `worker.<id>` or `user.…` queue, sent to learn whether that queue is
/// there. Its reader acknowledges it and does nothing.
pub const PING: &str = "ping";

/// Deliveries of one command before it is dead-lettered.
pub const COMMAND_DELIVERY_LIMIT: u32 = 3;
/// A session queue that no worker reads for this long goes away.
pub const SESSION_QUEUE_EXPIRES: Duration = Duration::from_secs(30 * 60);
/// A user queue that no API instance reads for this long goes away with its events.
pub const USER_QUEUE_EXPIRES: Duration = Duration::from_secs(2 * 60);
/// Events kept for an endpoint whose client does not read them.
pub const USER_QUEUE_LENGTH: u32 = 2_000;
pub const COMMAND_QUEUE_LENGTH: u32 = 10_000;

pub fn session_queue_name(session: SessionId) -> String {
    format!("session.{session}")
}

/// The exchange has the same name as the queue; they live in different name spaces.
pub fn session_exchange_name(session: SessionId) -> String {
    format!("session.{session}")
}

pub fn worker_queue_name(worker: WorkerId) -> String {
    format!("worker.{worker}")
}

/// A queue belongs to one endpoint: whoever joins again reads a new one, and never what was meant for the old.
pub fn user_queue_name(session: SessionId, participant: ParticipantId, endpoint: EndpointId) -> String {
    format!("user.{session}.{participant}.{endpoint}")
}

pub fn replies_queue_name(instance: InstanceId) -> String {
    format!("replies.{instance}")
}

pub fn workers_queue() -> QueueSpec {
    QueueSpec {
        name: WORKERS.to_owned(),
        kind: QueueKind::Quorum,
        expires: None,
        max_length: COMMAND_QUEUE_LENGTH,
        delivery_limit: Some(COMMAND_DELIVERY_LIMIT),
        when_full: WhenFull::Refuse,
    }
}

pub fn session_queue(session: SessionId) -> QueueSpec {
    QueueSpec {
        name: session_queue_name(session),
        kind: QueueKind::Durable,
        expires: Some(SESSION_QUEUE_EXPIRES),
        max_length: COMMAND_QUEUE_LENGTH,
        delivery_limit: Some(COMMAND_DELIVERY_LIMIT),
        when_full: WhenFull::Refuse,
    }
}

pub fn worker_queue(worker: WorkerId) -> QueueSpec {
    QueueSpec {
        name: worker_queue_name(worker),
        kind: QueueKind::Exclusive,
        expires: None,
        max_length: COMMAND_QUEUE_LENGTH,
        delivery_limit: Some(COMMAND_DELIVERY_LIMIT),
        when_full: WhenFull::Refuse,
    }
}

pub fn user_queue(session: SessionId, participant: ParticipantId, endpoint: EndpointId) -> QueueSpec {
    QueueSpec {
        name: user_queue_name(session, participant, endpoint),
        kind: QueueKind::Durable,
        expires: Some(USER_QUEUE_EXPIRES),
        max_length: USER_QUEUE_LENGTH,
        delivery_limit: None,
        when_full: WhenFull::DropOldest,
    }
}

pub fn replies_queue(instance: InstanceId) -> QueueSpec {
    QueueSpec {
        name: replies_queue_name(instance),
        kind: QueueKind::Exclusive,
        expires: None,
        max_length: COMMAND_QUEUE_LENGTH,
        delivery_limit: None,
        when_full: WhenFull::DropOldest,
    }
}

pub fn dead_letters_queue() -> QueueSpec {
    QueueSpec {
        name: DEAD_LETTERS.to_owned(),
        kind: QueueKind::Durable,
        expires: None,
        max_length: COMMAND_QUEUE_LENGTH,
        delivery_limit: None,
        when_full: WhenFull::DropOldest,
    }
}

/// The delivery limit of a queue that another process declared, by its name; and whether RabbitMQ counts itself
/// (it does for quorum queues). A process may open an inbox without ever having declared the queue.
#[cfg_attr(not(feature = "servers"), allow(dead_code))]
pub(super) fn known_delivery_limit(queue: &str) -> Option<(QueueKind, u32)> {
    if queue == WORKERS {
        Some((QueueKind::Quorum, COMMAND_DELIVERY_LIMIT))
    } else if queue.starts_with("session.") {
        Some((QueueKind::Durable, COMMAND_DELIVERY_LIMIT))
    } else if queue.starts_with("worker.") {
        Some((QueueKind::Exclusive, COMMAND_DELIVERY_LIMIT))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_known_by_name_is_the_declared_one() {
        let (session, participant, endpoint) = (SessionId::new(), ParticipantId::new(), EndpointId::new());
        for spec in [
            workers_queue(),
            session_queue(session),
            worker_queue(WorkerId::new()),
            user_queue(session, participant, endpoint),
            replies_queue(InstanceId::new()),
            dead_letters_queue(),
        ] {
            let declared = spec.delivery_limit.map(|limit| (spec.kind, limit));
            assert_eq!(known_delivery_limit(&spec.name), declared, "{}", spec.name);
        }
    }
}
