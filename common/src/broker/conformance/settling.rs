//! Settled, put back, cancellation, closing.

use super::*;

pub async fn an_acknowledged_message_is_gone(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    send_all(&*broker, &queue, &["1", "2"]).await;
    let mut inbox = open(&*broker, &queue, 1).await;
    expect_in_order(&mut inbox, &["1"]).await;
    inbox.close().await;
    let mut inbox = open(&*broker, &queue, 10).await;
    expect_in_order(&mut inbox, &["2"]).await;
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn a_message_put_back_comes_before_those_behind_it(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    send_all(&*broker, &queue, &["1", "2", "3"]).await;
    let mut inbox = open(&*broker, &queue, 1).await;
    let first = next(&mut inbox).await;
    assert!(!first.redelivered);
    first.put_back().await.unwrap();
    let again = next(&mut inbox).await;
    assert_eq!((text(&again).as_str(), again.redelivered, again.attempt), ("1", true, 2));
    again.acknowledge().await.unwrap();
    let second = next(&mut inbox).await;
    assert_eq!((text(&second).as_str(), second.redelivered, second.attempt), ("2", false, 1));
    second.acknowledge().await.unwrap();
    expect_in_order(&mut inbox, &["3"]).await;
    expect_drained(&*broker, &queue, inbox).await;
}

/// Even when the messages behind it are already on their way to the inbox, and several go back in any order.
pub async fn an_exclusive_inbox_gets_back_what_it_put_back_in_order(subject: Subject) {
    let broker = subject.connection().await;
    let spec =
        QueueSpec { kind: QueueKind::Exclusive, delivery_limit: Some(3), expires: None, ..plain_queue() };
    for queue in [declared(&*broker, plain_queue()).await, declared(&*broker, spec).await] {
        send_all(&*broker, &queue, &["1", "2", "3", "4"]).await;
        let mut inbox = open_exclusive(&*broker, &queue, 10).await.unwrap();
        let (first, second, third) = (next(&mut inbox).await, next(&mut inbox).await, next(&mut inbox).await);
        third.put_back().await.unwrap();
        second.acknowledge().await.unwrap();
        drop(first);
        for (expected, attempt) in [("1", 2), ("3", 2), ("4", 1)] {
            let delivery = next(&mut inbox).await;
            assert_eq!((text(&delivery).as_str(), delivery.attempt), (expected, attempt));
            assert_eq!(delivery.redelivered, attempt > 1);
            delivery.acknowledge().await.unwrap();
        }
        expect_drained(&*broker, &queue, inbox).await;
    }
}

pub async fn a_dropped_delivery_comes_again(subject: Subject) {
    let broker = subject.connection().await;
    for delivery_limit in [None, Some(5)] {
        let queue = declared(&*broker, QueueSpec { delivery_limit, ..plain_queue() }).await;
        send(&*broker, &queue, "1").await;
        let mut inbox = open(&*broker, &queue, 1).await;
        drop(next(&mut inbox).await);
        let again = next(&mut inbox).await;
        assert_eq!((text(&again).as_str(), again.redelivered, again.attempt), ("1", true, 2));
        again.acknowledge().await.unwrap();
        expect_drained(&*broker, &queue, inbox).await;
    }
}

async fn expect_taken_up_in_order(broker: &dyn Broker, queue: &str) {
    let mut inbox = open(broker, queue, 10).await;
    for (expected, redelivered) in [("1", Some(true)), ("3", Some(true)), ("4", None), ("5", None)] {
        let delivery = next(&mut inbox).await;
        assert_eq!(text(&delivery), expected);
        if let Some(redelivered) = redelivered {
            assert_eq!(delivery.redelivered, redelivered, "of {expected}");
        }
        delivery.acknowledge().await.unwrap();
    }
    expect_drained(broker, queue, inbox).await;
}

/// Takes 1, 2 and 3 of five messages and acknowledges the second.
async fn take_three(broker: &dyn Broker, queue: &str, inbox: &mut Box<dyn Inbox>) -> [Delivery; 2] {
    send_all(broker, queue, &["1", "2", "3", "4", "5"]).await;
    let (first, second, third) = (next(inbox).await, next(inbox).await, next(inbox).await);
    second.acknowledge().await.unwrap();
    [first, third]
}

pub async fn a_dropped_inbox_puts_back_in_order(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let mut inbox = open_exclusive(&*broker, &queue, 4).await.unwrap();
    let unsettled = take_three(&*broker, &queue, &mut inbox).await;
    drop(inbox);
    eventually("the queue is free again", async || match open_exclusive(&*broker, &queue, 1).await {
        Ok(inbox) => {
            inbox.close().await;
            true
        }
        Err(error) => {
            assert_eq!(error.kind, BrokerErrorKind::Conflict);
            false
        }
    })
    .await;
    expect_taken_up_in_order(&*broker, &queue).await;
    drop(unsettled);
}

pub async fn a_closed_connection_puts_back(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*first, plain_queue()).await;
    let mut inbox = open(&*first, &queue, 4).await;
    let unsettled = take_three(&*second, &queue, &mut inbox).await;
    first.close().await;
    expect_taken_up_in_order(&*second, &queue).await;
    drop((unsettled, inbox));
}

pub async fn a_dropped_connection_puts_back(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*second, plain_queue()).await;
    let mut inbox = open_exclusive(&*first, &queue, 4).await.unwrap();
    let unsettled = take_three(&*second, &queue, &mut inbox).await;
    drop(first);
    eventually("the queue is free again", async || match open_exclusive(&*second, &queue, 1).await {
        Ok(inbox) => {
            inbox.close().await;
            true
        }
        Err(_) => false,
    })
    .await;
    expect_taken_up_in_order(&*second, &queue).await;
    drop((unsettled, inbox));
}

pub async fn a_late_settlement_is_refused_and_changes_nothing(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    send_all(&*broker, &queue, &["1", "2", "3"]).await;
    let mut inbox = open(&*broker, &queue, 10).await;
    let (first, second, third) = (next(&mut inbox).await, next(&mut inbox).await, next(&mut inbox).await);
    inbox.close().await;
    assert_eq!(refused(first.acknowledge().await), BrokerErrorKind::Unavailable);
    assert_eq!(refused(second.put_back().await), BrokerErrorKind::Unavailable);
    assert_eq!(refused(third.dead_letter().await), BrokerErrorKind::Unavailable);
    let mut inbox = open(&*broker, &queue, 10).await;
    expect_in_order(&mut inbox, &["1", "2", "3"]).await;
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn dropping_next_loses_nothing(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let mut inbox = open(&*broker, &queue, 3).await;
    let sender = tokio::spawn({
        let (broker, queue) = (broker.clone(), queue.clone());
        async move {
            for index in 0..200 {
                send(&*broker, &queue, &index.to_string()).await;
            }
        }
    });
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut expected = 0;
    while expected < 200 {
        assert!(tokio::time::Instant::now() < deadline, "stuck at {expected}");
        // Polled once or twice and dropped.
        let polled = tokio::time::timeout(Duration::from_micros(100), inbox.next()).await;
        if let Ok(delivery) = polled {
            let delivery = delivery.expect("the inbox ended");
            assert_eq!(text(&delivery), expected.to_string());
            assert!(!delivery.redelivered);
            delivery.acknowledge().await.unwrap();
            expected += 1;
        }
    }
    sender.await.unwrap();
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn closing_ends_inboxes_and_refuses_calls(subject: Subject) {
    let (broker, other) = (subject.connection().await, subject.connection().await);
    let spec = plain_queue();
    let queue = declared(&*broker, spec.clone()).await;
    let exchange = declared_exchange(&*broker).await;
    let mut inbox = open(&*broker, &queue, 1).await;
    let waiting = tokio::spawn(async move { inbox.next().await.map(|delivery| text(&delivery)) });
    let connected = broker.connected();
    assert!(*connected.borrow());
    soon(broker.close()).await;
    assert!(!*connected.borrow());
    assert_eq!(soon(waiting).await.unwrap(), None);
    let results = [
        broker.declare_queue(&spec).await,
        broker.declare_exchange(&exchange).await,
        broker.bind(&queue, &exchange).await,
        broker.send(Destination::Queue(&queue), message("1")).await,
        broker.send(Destination::Exchange(&exchange), message("1")).await,
        broker.open_inbox(&queue, InboxOptions { prefetch: 1, exclusive: false }).await.map(drop),
        broker.delete_queue(&queue).await,
        broker.delete_exchange(&exchange).await,
    ];
    for (call, result) in results.into_iter().enumerate() {
        assert_eq!(refused(result), BrokerErrorKind::Unavailable, "call {call}");
    }
    soon(broker.close()).await;
    // Nobody else noticed.
    assert!(*other.connected().borrow());
    send(&*other, &queue, "1").await;
    other.delete_queue(&queue).await.unwrap();
    other.delete_exchange(&exchange).await.unwrap();
}
