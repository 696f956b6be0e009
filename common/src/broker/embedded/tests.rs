//! The conformance suite, and what only the embedded broker has: clones, and its own waking.

use std::time::Duration;

use super::*;
use crate::broker::conformance::{Subject, message, open, send, text, unique};
use crate::broker::topology::session_queue;
use crate::broker::{QueueKind, WhenFull};
use crate::model::SessionId;

mod conformance {
    use std::sync::Arc;

    use super::*;

    fn subject() -> Subject {
        let broker = EmbeddedBroker::new();
        Subject::new(move || {
            let broker: Arc<dyn Broker> = Arc::new(broker.another_connection());
            async move { broker }
        })
    }

    crate::broker_conformance!(subject());
}

#[tokio::test]
async fn a_clone_is_the_same_connection_and_the_last_one_closes_it() {
    let broker = EmbeddedBroker::new();
    let other = broker.another_connection();
    let clone = broker.clone();
    let queue = unique("test");
    let spec = QueueSpec {
        name: queue.clone(),
        kind: QueueKind::Exclusive,
        expires: None,
        max_length: 10,
        delivery_limit: None,
        when_full: WhenFull::Refuse,
    };
    broker.declare_queue(&spec).await.unwrap();
    clone.declare_queue(&spec).await.unwrap();
    drop(broker);
    send(&other, &queue, "1").await;
    drop(clone);
    let sent = other.send(Destination::Queue(&queue), message("2")).await;
    assert_eq!(sent.unwrap_err().kind, BrokerErrorKind::Unroutable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_when_inboxes_come_and_go() {
    let broker = EmbeddedBroker::new();
    let spec = QueueSpec { delivery_limit: None, ..session_queue(SessionId::new()) };
    broker.declare_queue(&spec).await.unwrap();
    let (found, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let (broker, queue, found) = (broker.another_connection(), spec.name.clone(), found.clone());
            tokio::spawn(async move {
                loop {
                    let mut inbox = open(&broker, &queue, 1 + reader % 3).await;
                    for _ in 0..5 {
                        let next =
                            tokio::time::timeout(Duration::from_micros(50 * u64::from(reader)), inbox.next());
                        if let Ok(Some(delivery)) = next.await {
                            let id = text(&delivery);
                            if delivery.acknowledge().await.is_ok() && found.send(id).is_err() {
                                return;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    // One that only waits: whatever the others leave behind must wake it.
    let steady = tokio::spawn({
        let (broker, queue, found) = (broker.another_connection(), spec.name.clone(), found);
        async move {
            let mut inbox = open(&broker, &queue, 1).await;
            while let Some(delivery) = inbox.next().await {
                let id = text(&delivery);
                delivery.acknowledge().await.unwrap();
                if found.send(id).is_err() {
                    return;
                }
            }
        }
    });
    for index in 0..2_000 {
        send(&broker, &spec.name, &index.to_string()).await;
        let arrived = tokio::time::timeout(Duration::from_secs(20), arrivals.recv()).await;
        assert_eq!(arrived.expect("a message nobody took").as_deref(), Some(index.to_string().as_str()));
    }
    for reader in readers {
        reader.abort();
    }
    steady.abort();
}
