//! Bounded, expiry, poison.

use super::*;
use crate::broker::topology::{COMMAND_DELIVERY_LIMIT, DEAD_LETTERS, session_queue};
use crate::model::SessionId;

pub async fn a_full_queue_refuses(subject: Subject) {
    let broker = subject.connection().await;
    for kind in [QueueKind::Durable, QueueKind::Exclusive] {
        let queue =
            declared(&*broker, QueueSpec { kind, max_length: 3, expires: None, ..plain_queue() }).await;
        send_all(&*broker, &queue, &["1", "2", "3"]).await;
        for _ in 0..3 {
            let result = broker.send(Destination::Queue(&queue), message("4")).await;
            assert_eq!(refused(result), BrokerErrorKind::Full);
        }
        let mut inbox = open(&*broker, &queue, 1).await;
        expect_in_order(&mut inbox, &["1", "2"]).await;
        send(&*broker, &queue, "5").await;
        expect_in_order(&mut inbox, &["3", "5"]).await;
        expect_drained(&*broker, &queue, inbox).await;
    }
}

pub async fn a_message_put_back_into_a_full_queue_is_not_lost(subject: Subject) {
    let broker = subject.connection().await;
    for delivery_limit in [None, Some(10)] {
        let queue = declared(&*broker, QueueSpec { max_length: 1, delivery_limit, ..plain_queue() }).await;
        send(&*broker, &queue, "1").await;
        let mut inbox = open(&*broker, &queue, 1).await;
        let first = next(&mut inbox).await;
        send(&*broker, &queue, "2").await;
        assert_eq!(
            refused(broker.send(Destination::Queue(&queue), message("3")).await),
            BrokerErrorKind::Full
        );
        first.put_back().await.unwrap();
        let mut found = Vec::new();
        for _ in 0..2 {
            let delivery = next(&mut inbox).await;
            found.push((text(&delivery), delivery.redelivered));
            delivery.acknowledge().await.unwrap();
        }
        found.sort();
        assert_eq!(found, [("1".to_owned(), true), ("2".to_owned(), false)]);
        expect_drained(&*broker, &queue, inbox).await;
    }
}

fn oldest_lost() -> QueueSpec {
    QueueSpec { max_length: 3, when_full: WhenFull::DropOldest, ..plain_queue() }
}

pub async fn a_full_queue_loses_its_oldest(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, oldest_lost()).await;
    send_all(&*broker, &queue, &["1", "2", "3", "4", "5"]).await;
    let mut inbox = open(&*broker, &queue, 10).await;
    expect_in_order(&mut inbox, &["3", "4", "5"]).await;
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn one_full_queue_does_not_stop_a_fanout(subject: Subject) {
    let broker = subject.connection().await;
    let exchange = declared_exchange(&*broker).await;
    let idle = declared(&*broker, oldest_lost()).await;
    let roomy = declared(&*broker, QueueSpec { max_length: 100, ..oldest_lost() }).await;
    for queue in [&idle, &roomy] {
        broker.bind(queue, &exchange).await.unwrap();
    }
    for text in ["1", "2", "3", "4", "5"] {
        broker.send(Destination::Exchange(&exchange), message(text)).await.unwrap();
    }
    for (queue, expected) in
        [(&idle, ["3", "4", "5"].as_slice()), (&roomy, ["1", "2", "3", "4", "5"].as_slice())]
    {
        let mut inbox = open(&*broker, queue, 10).await;
        expect_in_order(&mut inbox, expected).await;
        expect_drained(&*broker, queue, inbox).await;
    }
    broker.delete_exchange(&exchange).await.unwrap();
}

pub async fn a_message_expires(subject: Subject) {
    let broker = subject.connection().await;
    for kind in [QueueKind::Durable, QueueKind::Quorum] {
        let queue = declared(&*broker, QueueSpec { kind, ..plain_queue() }).await;
        let ttl = Duration::from_millis(100);
        let long = Duration::from_secs(50);
        for (text, ttl) in [("short", Some(ttl)), ("long", Some(long)), ("for ever", None)] {
            broker.send(Destination::Queue(&queue), Message { ttl, ..message(text) }).await.unwrap();
        }
        // The time itself is what is tested here.
        tokio::time::sleep(ttl * 3).await;
        let mut inbox = open(&*broker, &queue, 10).await;
        expect_in_order(&mut inbox, &["long", "for ever"]).await;
        expect_drained(&*broker, &queue, inbox).await;
    }
}

pub async fn a_queue_expires_without_inbox(subject: Subject) {
    let broker = subject.connection().await;
    let expires = Duration::from_millis(500);
    let read = declared(&*broker, QueueSpec { expires: Some(expires), ..plain_queue() }).await;
    let exchange = declared_exchange(&*broker).await;
    broker.bind(&read, &exchange).await.unwrap();
    let mut inbox = open(&*broker, &read, 1).await;
    let idle = declared(&*broker, QueueSpec { expires: Some(expires), ..plain_queue() }).await;
    let gone = async |queue: &str| {
        let sent = broker.send(Destination::Queue(queue), message("1")).await;
        matches!(sent, Err(error) if error.kind == BrokerErrorKind::Unroutable)
    };
    assert!(!gone(&idle).await, "it must not expire at once");
    eventually("the idle queue expires", async || gone(&idle).await).await;
    // Older than the other one, but read.
    tokio::time::sleep(expires).await;
    send(&*broker, &read, "2").await;
    expect_in_order(&mut inbox, &["2"]).await;
    inbox.close().await;
    eventually("the queue expires after its inbox", async || gone(&read).await).await;
    // The exchange has forgotten it.
    broker.send(Destination::Exchange(&exchange), message("3")).await.unwrap();
    broker.delete_exchange(&exchange).await.unwrap();
}

/// Finds one message among the dead letters, which other tests and runs use as well, and removes it.
async fn expect_dead_letter(broker: &dyn Broker, id: &str) {
    eventually("the dead letter", async || {
        let mut inbox = open(broker, DEAD_LETTERS, 1_000).await;
        let mut others = Vec::new();
        let found = loop {
            match tokio::time::timeout(Duration::from_millis(200), inbox.next()).await {
                Ok(Some(delivery)) if delivery.message.message_id == id => {
                    delivery.acknowledge().await.unwrap();
                    break true;
                }
                Ok(Some(delivery)) => others.push(delivery),
                Ok(None) | Err(_) => break false,
            }
        };
        inbox.close().await;
        found
    })
    .await;
}

fn limited(kind: QueueKind) -> QueueSpec {
    let expires = (kind != QueueKind::Exclusive).then_some(Duration::from_secs(60));
    QueueSpec { kind, expires, delivery_limit: Some(3), ..plain_queue() }
}

const KINDS: [QueueKind; 3] = [QueueKind::Quorum, QueueKind::Durable, QueueKind::Exclusive];

pub async fn a_message_put_back_too_often_is_dead_lettered(subject: Subject) {
    let broker = subject.connection().await;
    for kind in KINDS {
        for exclusive in [false, true] {
            let queue = declared(&*broker, limited(kind)).await;
            let poison = unique("poison");
            send(&*broker, &queue, &poison).await;
            let options = InboxOptions { prefetch: 1, exclusive };
            let mut inbox = broker.open_inbox(&queue, options).await.unwrap();
            for attempt in 1..=3 {
                let delivery = next(&mut inbox).await;
                assert_eq!(text(&delivery), poison);
                assert_eq!(
                    (delivery.attempt, delivery.redelivered),
                    (attempt, attempt > 1),
                    "{kind:?} {exclusive}"
                );
                // Both ways of putting back count.
                if attempt == 2 {
                    drop(delivery);
                } else {
                    delivery.put_back().await.unwrap();
                }
            }
            send(&*broker, &queue, "good").await;
            expect_in_order(&mut inbox, &["good"]).await;
            expect_drained(&*broker, &queue, inbox).await;
            expect_dead_letter(&*broker, &poison).await;
        }
    }
}

pub async fn a_reader_that_did_not_declare_the_queue_counts_too(subject: Subject) {
    let (owner, reader) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*owner, session_queue(SessionId::new())).await;
    let poison = unique("poison");
    send(&*owner, &queue, &poison).await;
    let mut inbox = open(&*reader, &queue, 10).await;
    for attempt in 1..=COMMAND_DELIVERY_LIMIT {
        let delivery = next(&mut inbox).await;
        assert_eq!((text(&delivery), delivery.attempt), (poison.clone(), attempt));
        delivery.put_back().await.unwrap();
    }
    expect_dead_letter(&*reader, &poison).await;
    expect_drained(&*owner, &queue, inbox).await;
}

pub async fn lost_inboxes_count_as_deliveries(subject: Subject) {
    let broker = subject.connection().await;
    for kind in KINDS {
        let queue = declared(&*broker, limited(kind)).await;
        let poison = unique("poison");
        send(&*broker, &queue, &poison).await;
        for attempt in 1..=3 {
            let mut inbox = open(&*broker, &queue, 1).await;
            let delivery = next(&mut inbox).await;
            assert_eq!((text(&delivery), delivery.attempt), (poison.clone(), attempt), "{kind:?}");
            // As a crash would: the delivery is not put back but goes with its inbox.
            inbox.close().await;
            drop(delivery);
        }
        send(&*broker, &queue, "good").await;
        let mut inbox = open(&*broker, &queue, 1).await;
        expect_in_order(&mut inbox, &["good"]).await;
        expect_dead_letter(&*broker, &poison).await;
        expect_drained(&*broker, &queue, inbox).await;
    }
}

pub async fn a_message_can_be_dead_lettered_at_once(subject: Subject) {
    let broker = subject.connection().await;
    for delivery_limit in [None, Some(3)] {
        let queue = declared(&*broker, QueueSpec { delivery_limit, ..plain_queue() }).await;
        let poison = unique("poison");
        let short_lived = Message { ttl: Some(Duration::from_secs(30)), ..message(&poison) };
        broker.send(Destination::Queue(&queue), short_lived).await.unwrap();
        let mut inbox = open(&*broker, &queue, 1).await;
        next(&mut inbox).await.dead_letter().await.unwrap();
        expect_drained(&*broker, &queue, inbox).await;
        expect_dead_letter(&*broker, &poison).await;
    }
}
