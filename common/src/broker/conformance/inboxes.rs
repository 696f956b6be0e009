//! Competing and exclusive inboxes, prefetch, deleted and exclusive queues.

use super::*;

pub async fn competing_inboxes_get_each_message_once(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    for kind in [QueueKind::Durable, QueueKind::Quorum] {
        let queue = declared(&*first, QueueSpec { kind, ..plain_queue() }).await;
        let (found, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let mut readers = Vec::new();
        for broker in [&first, &first, &second] {
            let mut inbox = open(&**broker, &queue, 3).await;
            let found = found.clone();
            readers.push(tokio::spawn(async move {
                while let Some(delivery) = inbox.next().await {
                    found.send(text(&delivery).parse::<usize>().unwrap()).unwrap();
                    delivery.acknowledge().await.unwrap();
                }
            }));
        }
        drop(found);
        let mut arrived = Vec::new();
        for index in 0..200 {
            send(&*second, &queue, &index.to_string()).await;
        }
        while arrived.len() < 200 {
            arrived.push(soon(arrivals.recv()).await.unwrap());
        }
        first.delete_queue(&queue).await.unwrap();
        for reader in readers {
            soon(reader).await.unwrap();
        }
        assert_eq!(arrivals.recv().await, None, "one message arrived twice");
        arrived.sort_unstable();
        assert_eq!(arrived, (0..200).collect::<Vec<_>>());
    }
}

pub async fn prefetch_bounds_what_is_out(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let mut bounded = open(&*broker, &queue, 2).await;
    send_all(&*broker, &queue, &["1", "2", "3", "4", "5"]).await;
    let (first, second) = (next(&mut bounded).await, next(&mut bounded).await);
    // What the first inbox may not have goes to the second, all of it.
    let mut other = open(&*broker, &queue, 10).await;
    expect_in_order(&mut other, &["3", "4", "5"]).await;
    other.close().await;
    // With one settled there is room for one.
    let waiting = tokio::spawn(async move { (next(&mut bounded).await, bounded) });
    second.acknowledge().await.unwrap();
    send(&*broker, &queue, "6").await;
    let (sixth, bounded) = soon(waiting).await.unwrap();
    assert_eq!(text(&sixth), "6");
    sixth.acknowledge().await.unwrap();
    first.acknowledge().await.unwrap();
    expect_drained(&*broker, &queue, bounded).await;
}

pub async fn an_exclusive_inbox_keeps_others_out_until_it_is_closed(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*first, plain_queue()).await;
    let mut inbox = open_exclusive(&*first, &queue, 1).await.unwrap();
    for broker in [&first, &second] {
        for exclusive in [true, false] {
            let other = broker.open_inbox(&queue, InboxOptions { prefetch: 1, exclusive }).await;
            assert_eq!(refused(other), BrokerErrorKind::Conflict);
        }
    }
    send_all(&*second, &queue, &["1", "2"]).await;
    expect_in_order(&mut inbox, &["1"]).await;
    inbox.close().await;
    // Handed over at once after `close`, in either direction.
    let mut inbox = open_exclusive(&*second, &queue, 1).await.unwrap();
    expect_in_order(&mut inbox, &["2"]).await;
    assert_eq!(refused(open_exclusive(&*first, &queue, 1).await), BrokerErrorKind::Conflict);
    inbox.close().await;
    let inbox = open(&*first, &queue, 1).await;
    expect_drained(&*first, &queue, inbox).await;
}

pub async fn an_opening_that_is_dropped_leaves_nothing_behind(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    send_all(&*broker, &queue, &["1", "2", "3"]).await;
    for step in 0..100 {
        // Dropped at whatever point it has come to.
        let opening = open_exclusive(&*broker, &queue, 10);
        let _ = tokio::time::timeout(Duration::from_micros(step * 30), opening).await;
    }
    let inbox = std::cell::RefCell::new(None);
    eventually("the queue is free", async || {
        inbox.replace(open_exclusive(&*broker, &queue, 10).await.ok());
        inbox.borrow().is_some()
    })
    .await;
    let mut inbox = inbox.take().unwrap();
    expect_in_order(&mut inbox, &["1", "2", "3"]).await;
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn an_inbox_keeps_an_exclusive_one_out(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*first, plain_queue()).await;
    let inbox = open(&*first, &queue, 1).await;
    assert_eq!(refused(open_exclusive(&*second, &queue, 1).await), BrokerErrorKind::Conflict);
    inbox.close().await;
    let inbox = open_exclusive(&*second, &queue, 1).await.unwrap();
    expect_drained(&*second, &queue, inbox).await;
}

pub async fn deleting_a_queue_ends_its_inboxes(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    let spec = plain_queue();
    let queue = declared(&*first, spec.clone()).await;
    let mut waiting = Vec::new();
    for broker in [&first, &second] {
        let mut inbox = open(&**broker, &queue, 1).await;
        waiting.push(tokio::spawn(async move {
            let ended = inbox.next().await.map(|delivery| text(&delivery));
            // And stays ended.
            (ended, inbox.next().await.map(|delivery| text(&delivery)))
        }));
    }
    second.delete_queue(&queue).await.unwrap();
    for waiting in waiting {
        assert_eq!(soon(waiting).await.unwrap(), (None, None));
    }
    // The name can be used again, and starts empty.
    first.declare_queue(&spec).await.unwrap();
    send(&*first, &queue, "new").await;
    let mut inbox = open(&*first, &queue, 1).await;
    expect_in_order(&mut inbox, &["new"]).await;
    expect_drained(&*first, &queue, inbox).await;
}

pub async fn an_exclusive_queue_belongs_to_its_connection(subject: Subject) {
    let (owner, other) = (subject.connection().await, subject.connection().await);
    let spec = QueueSpec { kind: QueueKind::Exclusive, expires: None, ..plain_queue() };
    let queue = declared(&*owner, spec.clone()).await;
    let exchange = declared_exchange(&*owner).await;
    owner.bind(&queue, &exchange).await.unwrap();
    assert_eq!(refused(other.declare_queue(&spec).await), BrokerErrorKind::Conflict);
    assert_eq!(refused(open_exclusive(&*other, &queue, 1).await), BrokerErrorKind::Conflict);
    assert_eq!(refused(other.bind(&queue, &exchange).await), BrokerErrorKind::Conflict);
    assert_eq!(refused(other.delete_queue(&queue).await), BrokerErrorKind::Conflict);
    // Others can send to it, straight and through an exchange.
    send(&*other, &queue, "1").await;
    other.send(Destination::Exchange(&exchange), message("2")).await.unwrap();
    let mut inbox = open_exclusive(&*owner, &queue, 1).await.unwrap();
    expect_in_order(&mut inbox, &["1", "2"]).await;
    // It goes with its connection.
    owner.close().await;
    eventually("the exclusive queue is gone", async || {
        let sent = other.send(Destination::Queue(&queue), message("3")).await;
        matches!(sent, Err(error) if error.kind == BrokerErrorKind::Unroutable)
    })
    .await;
    other.send(Destination::Exchange(&exchange), message("4")).await.unwrap();
    other.delete_exchange(&exchange).await.unwrap();
}
