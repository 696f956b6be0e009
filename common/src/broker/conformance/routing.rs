//! Confirmed, ordered, fanout, unroutable; sizes and names.

use std::collections::HashMap;

use super::*;
use crate::broker::{MAX_BODY_BYTES, MAX_NAME_BYTES};

pub async fn a_message_arrives_as_it_was_sent(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let sent = [
        Message {
            body: vec![0, 159, 146, 150, 255],
            message_id: "evt_ü".to_owned(),
            ttl: Some(Duration::from_secs(40)),
        },
        Message::default(),
    ];
    for message in &sent {
        broker.send(Destination::Queue(&queue), message.clone()).await.unwrap();
    }
    let mut inbox = open(&*broker, &queue, 10).await;
    for message in sent {
        let delivery = next(&mut inbox).await;
        assert_eq!(*delivery.message, message);
        assert!(!delivery.redelivered);
        assert_eq!(delivery.attempt, 1);
        delivery.acknowledge().await.unwrap();
    }
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn a_confirmed_message_is_there_for_another_connection(subject: Subject) {
    let (sender, reader) = (subject.connection().await, subject.connection().await);
    let queue = declared(&*sender, plain_queue()).await;
    send(&*sender, &queue, "1").await;
    sender.close().await;
    let mut inbox = open(&*reader, &queue, 1).await;
    expect_in_order(&mut inbox, &["1"]).await;
    expect_drained(&*reader, &queue, inbox).await;
}

pub async fn a_large_body_arrives_whole(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let body: Vec<u8> = (0..1024 * 1024_u32).map(|index| (index % 251) as u8).collect();
    let large = Message { body, message_id: "large".to_owned(), ttl: None };
    broker.send(Destination::Queue(&queue), large.clone()).await.unwrap();
    let mut inbox = open(&*broker, &queue, 1).await;
    let delivery = next(&mut inbox).await;
    assert!(*delivery.message == large, "the body changed on the way");
    delivery.acknowledge().await.unwrap();
    broker.delete_queue(&queue).await.unwrap();
}

pub async fn oversized_messages_and_impossible_names_are_refused(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let too_large = Message { body: vec![0; MAX_BODY_BYTES + 1], ..Message::default() };
    let too_long = Message { message_id: "x".repeat(MAX_NAME_BYTES + 1), ..Message::default() };
    for message in [too_large, too_long] {
        let result = broker.send(Destination::Queue(&queue), message).await;
        assert_eq!(refused(result), BrokerErrorKind::Internal);
    }
    for name in
        [String::new(), "x".repeat(MAX_NAME_BYTES + 1), "ü".repeat(MAX_NAME_BYTES), "amq.x".to_owned()]
    {
        let spec = QueueSpec { name: name.clone(), ..plain_queue() };
        let results = [
            broker.declare_queue(&spec).await,
            broker.declare_exchange(&name).await,
            broker.bind(&name, "x").await,
            broker.bind(&queue, &name).await,
            broker.delete_queue(&name).await,
            broker.delete_exchange(&name).await,
            broker.send(Destination::Queue(&name), message("1")).await,
            broker.send(Destination::Exchange(&name), message("1")).await,
            broker.open_inbox(&name, InboxOptions { prefetch: 1, exclusive: false }).await.map(drop),
        ];
        for (call, result) in results.into_iter().enumerate() {
            assert_eq!(refused(result), BrokerErrorKind::Internal, "call {call}");
        }
    }
    // All that left the connection as it was.
    send(&*broker, &queue, "still here").await;
    broker.delete_queue(&queue).await.unwrap();
}

pub async fn a_thousand_messages_keep_their_order_among_other_senders(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let sender = |name: &'static str, count: usize| {
        let (broker, queue) = (broker.clone(), queue.clone());
        tokio::spawn(async move {
            for index in 0..count {
                send(&*broker, &queue, &format!("{name} {index}")).await;
            }
        })
    };
    let senders = [sender("main", 1_000), sender("a", 300), sender("b", 300), sender("c", 300)];
    let mut inbox = open(&*broker, &queue, 50).await;
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for _ in 0..1_900 {
        let delivery = next(&mut inbox).await;
        let text = text(&delivery);
        let (name, index) = text.split_once(' ').unwrap();
        let expected = arrived.entry(name.to_owned()).or_default();
        assert_eq!(index.parse(), Ok(*expected), "of sender {name}");
        *expected += 1;
        delivery.acknowledge().await.unwrap();
    }
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(arrived["main"], 1_000);
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn a_fanout_reaches_every_bound_queue_and_no_other(subject: Subject) {
    let broker = subject.connection().await;
    let exchange = declared_exchange(&*broker).await;
    // Nothing is bound yet: it goes nowhere, which is no error.
    broker.send(Destination::Exchange(&exchange), message("before")).await.unwrap();
    let mut queues = Vec::new();
    for _ in 0..3 {
        let queue = declared(&*broker, QueueSpec { when_full: WhenFull::DropOldest, ..plain_queue() }).await;
        broker.bind(&queue, &exchange).await.unwrap();
        queues.push(queue);
    }
    let other = declared(&*broker, plain_queue()).await;
    broker.send(Destination::Exchange(&exchange), message("all")).await.unwrap();
    send(&*broker, &queues[1], "one").await;
    broker.delete_queue(&queues[2]).await.unwrap();
    broker.send(Destination::Exchange(&exchange), message("rest")).await.unwrap();
    for (queue, expected) in [
        (&queues[0], ["all", "rest"].as_slice()),
        (&queues[1], ["all", "one", "rest"].as_slice()),
        (&other, [].as_slice()),
    ] {
        let mut inbox = open(&*broker, queue, 10).await;
        expect_in_order(&mut inbox, expected).await;
        expect_drained(&*broker, queue, inbox).await;
    }
    broker.delete_exchange(&exchange).await.unwrap();
    broker.delete_exchange(&exchange).await.unwrap();
}

pub async fn binding_twice_delivers_once(subject: Subject) {
    let broker = subject.connection().await;
    let exchange = declared_exchange(&*broker).await;
    let queue = declared(&*broker, QueueSpec { when_full: WhenFull::DropOldest, ..plain_queue() }).await;
    broker.bind(&queue, &exchange).await.unwrap();
    broker.declare_exchange(&exchange).await.unwrap();
    broker.bind(&queue, &exchange).await.unwrap();
    broker.send(Destination::Exchange(&exchange), message("1")).await.unwrap();
    let mut inbox = open(&*broker, &queue, 10).await;
    expect_in_order(&mut inbox, &["1"]).await;
    expect_drained(&*broker, &queue, inbox).await;
    broker.delete_exchange(&exchange).await.unwrap();
}

pub async fn a_queue_or_exchange_that_does_not_exist_is_unroutable(subject: Subject) {
    let broker = subject.connection().await;
    let (missing, queue) = (unique("test"), declared(&*broker, plain_queue()).await);
    let exchange = declared_exchange(&*broker).await;
    let results = [
        broker.send(Destination::Queue(&missing), message("1")).await,
        broker.send(Destination::Exchange(&missing), message("1")).await,
        broker.bind(&missing, &exchange).await,
        broker.bind(&queue, &missing).await,
        broker.open_inbox(&missing, InboxOptions { prefetch: 1, exclusive: false }).await.map(drop),
    ];
    for (call, result) in results.into_iter().enumerate() {
        assert_eq!(refused(result), BrokerErrorKind::Unroutable, "call {call}");
    }
    // None of it harmed what exists.
    send(&*broker, &queue, "1").await;
    broker.delete_queue(&queue).await.unwrap();
    broker.delete_queue(&queue).await.unwrap();
    assert_eq!(
        refused(broker.send(Destination::Queue(&queue), message("1")).await),
        BrokerErrorKind::Unroutable
    );
    broker.delete_exchange(&exchange).await.unwrap();
}

pub async fn concurrent_senders_each_get_their_own_answer(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    let missing = unique("test");
    let sends = (0..200).map(|index| {
        let (broker, to) = (broker.clone(), if index % 2 == 0 { queue.clone() } else { missing.clone() });
        async move {
            let result = broker.send(Destination::Queue(&to), message(&index.to_string())).await;
            (index, result.map_err(|error| error.kind))
        }
    });
    for (index, result) in futures::future::join_all(sends).await {
        let expected = if index % 2 == 0 { Ok(()) } else { Err(BrokerErrorKind::Unroutable) };
        assert_eq!(result, expected, "message {index}");
    }
    let mut inbox = open(&*broker, &queue, 100).await;
    let mut arrived = Vec::new();
    for _ in 0..100 {
        let delivery = next(&mut inbox).await;
        arrived.push(text(&delivery).parse::<usize>().unwrap());
        delivery.acknowledge().await.unwrap();
    }
    arrived.sort_unstable();
    assert_eq!(arrived, (0..200).step_by(2).collect::<Vec<_>>());
    expect_drained(&*broker, &queue, inbox).await;
}

pub async fn declaring_again_does_nothing_and_otherwise_is_a_conflict(subject: Subject) {
    let (first, second) = (subject.connection().await, subject.connection().await);
    for kind in [QueueKind::Durable, QueueKind::Quorum] {
        let spec = QueueSpec { kind, delivery_limit: Some(3), ..plain_queue() };
        first.declare_queue(&spec).await.unwrap();
        send(&*first, &spec.name, "1").await;
        first.declare_queue(&spec).await.unwrap();
        second.declare_queue(&spec).await.unwrap();
        let otherwise = QueueSpec { max_length: spec.max_length + 1, ..spec.clone() };
        assert_eq!(refused(second.declare_queue(&otherwise).await), BrokerErrorKind::Conflict);
        let mut inbox = open(&*second, &spec.name, 1).await;
        expect_in_order(&mut inbox, &["1"]).await;
        expect_drained(&*second, &spec.name, inbox).await;
    }
}

pub async fn what_waits_can_be_counted(subject: Subject) {
    let broker = subject.connection().await;
    let queue = declared(&*broker, plain_queue()).await;
    assert_eq!(broker.waiting(&queue).await.unwrap(), 0);
    send_all(&*broker, &queue, &["1", "2", "3"]).await;
    eventually("three wait", async || broker.waiting(&queue).await.unwrap() == 3).await;
    let mut inbox = open(&*broker, &queue, 1).await;
    let first = next(&mut inbox).await;
    eventually("one is out", async || broker.waiting(&queue).await.unwrap() == 2).await;
    first.acknowledge().await.unwrap();
    assert_eq!(refused(broker.waiting(&unique("nothing")).await), BrokerErrorKind::Unroutable);
    // A look at what is not there costs nothing else.
    broker.delete_queue(&queue).await.unwrap();
}
