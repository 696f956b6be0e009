//! Expiry to the moment, with time passed in.

use super::*;
use crate::broker::topology::{SESSION_QUEUE_EXPIRES, session_queue, user_queue};
use crate::model::{EndpointId, ParticipantId, SessionId};

const CONNECTION: u64 = 0;
const MOMENT: Duration = Duration::from_millis(1);

fn options() -> InboxOptions {
    InboxOptions { prefetch: 1, exclusive: false }
}

fn message(id: &str, ttl: Duration) -> Message {
    Message { message_id: id.to_owned(), ttl: Some(ttl), ..Message::default() }
}

/// The id and sequence of the message taken.
fn take(hub: &mut Hub, now: Instant, opened: &OpenedInbox) -> Option<(String, u64)> {
    match hub.take(now, &opened.queue, opened.inbox) {
        Taken::Message { message, sequence, .. } => Some((message.message_id.clone(), sequence)),
        Taken::Empty | Taken::AtPrefetch | Taken::Ended => None,
    }
}

#[test]
fn a_queue_expires_to_the_moment_and_a_new_declaration_or_inbox_starts_again() {
    let start = Instant::now();
    let mut hub = Hub::new(start);
    let spec = session_queue(SessionId::new());
    let exists = |hub: &mut Hub, now| {
        hub.declare_exchange("probe");
        hub.bind(now, CONNECTION, &spec.name, "probe").is_ok()
    };
    hub.declare_queue(start, CONNECTION, &spec).unwrap();
    let mut now = start + SESSION_QUEUE_EXPIRES - MOMENT;
    hub.declare_queue(now, CONNECTION, &spec).unwrap();
    now += SESSION_QUEUE_EXPIRES - MOMENT;
    assert!(exists(&mut hub, now));
    let opened = hub.open_inbox(now, CONNECTION, &spec.name, options()).unwrap();
    now += 2 * SESSION_QUEUE_EXPIRES;
    assert!(exists(&mut hub, now));
    hub.close_inbox(now, &opened.queue, opened.inbox);
    now += SESSION_QUEUE_EXPIRES - MOMENT;
    assert!(exists(&mut hub, now));
    assert!(!exists(&mut hub, now + MOMENT));
}

#[test]
fn expired_queues_leave_nothing_behind() {
    let start = Instant::now();
    let mut hub = Hub::new(start);
    hub.declare_exchange("session");
    for _ in 0..1_000 {
        let spec = user_queue(SessionId::new(), ParticipantId::new(), EndpointId::new());
        hub.declare_queue(start, CONNECTION, &spec).unwrap();
        hub.bind(start, CONNECTION, &spec.name, "session").unwrap();
    }
    assert_eq!((hub.queues.len(), hub.exchanges["session"].len()), (1_001, 1_000));
    let later = start + Duration::from_secs(3_600);
    hub.send(later, Destination::Exchange("session"), Message::default()).unwrap();
    // The dead-letter queue stays.
    assert_eq!((hub.queues.len(), hub.exchanges["session"].len(), hub.expiries.len()), (1, 0, 0));
}

#[test]
fn a_message_expires_to_the_moment_also_when_it_was_put_back() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut hub = Hub::new(start);
    let spec = session_queue(SessionId::new());
    hub.declare_queue(start, CONNECTION, &spec).unwrap();
    for (id, seconds) in [("a", 10), ("b", 20), ("c", 30)] {
        hub.send(start, Destination::Queue(&spec.name), message(id, second * seconds)).unwrap();
    }
    let opened = hub.open_inbox(start, CONNECTION, &spec.name, options()).unwrap();
    let put_back = |hub: &mut Hub, now, sequence| {
        hub.settle(now, &opened.queue, opened.inbox, sequence, Outcome::PutBack).unwrap();
    };
    let (id, sequence) = take(&mut hub, start, &opened).unwrap();
    assert_eq!(id, "a");
    let now = start + second * 15;
    put_back(&mut hub, now, sequence);
    let (id, sequence) = take(&mut hub, now, &opened).unwrap();
    assert_eq!(id, "b");
    let now = start + second * 20 - MOMENT;
    put_back(&mut hub, now, sequence);
    let (id, sequence) = take(&mut hub, now, &opened).unwrap();
    assert_eq!(id, "b");
    put_back(&mut hub, now, sequence);
    assert_eq!(take(&mut hub, now + MOMENT, &opened).unwrap().0, "c");
}

#[test]
fn what_expired_makes_room_in_a_full_queue() {
    let start = Instant::now();
    let mut hub = Hub::new(start);
    let spec = QueueSpec { max_length: 2, ..session_queue(SessionId::new()) };
    hub.declare_queue(start, CONNECTION, &spec).unwrap();
    let mut send = |now| hub.send(now, Destination::Queue(&spec.name), message("", Duration::from_secs(1)));
    send(start).unwrap();
    send(start).unwrap();
    assert_eq!(send(start).unwrap_err().kind, BrokerErrorKind::Full);
    send(start + Duration::from_secs(1)).unwrap();
}
