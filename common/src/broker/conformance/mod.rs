//! One suite that every broker must pass: [`super`]'s promises as tests.
//!
//! An implementation runs it with [`broker_conformance!`](crate::broker_conformance) and an expression that gives
//! a [`Subject`]. Every test makes its own queues and exchanges with unique names, so that tests run next to each
//! other on one broker, which may be in use by others.
//!
//! | file | promises |
//! |---|---|
//! | `routing.rs` | confirmed, ordered, fanout, unroutable, sizes and names |
//! | `settling.rs` | settled, put back, cancellation, closing |
//! | `inboxes.rs` | competing, exclusive, prefetch, deleted queues |
//! | `limits.rs` | bounded, expiry, poison |

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{
    Broker, BrokerError, BrokerErrorKind, BrokerResult, Delivery, Destination, Inbox, InboxOptions, Message,
    QueueKind, QueueSpec, WhenFull,
};

pub mod inboxes;
pub mod limits;
pub mod routing;
pub mod settling;

/// How long a test waits for what must happen. Never waited out by a broker that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker under test: opens connections to the same one.
#[derive(Clone)]
pub struct Subject {
    connect: Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn Broker>> + Send + Sync>,
}

impl Subject {
    /// `connect` opens one more connection each time.
    pub fn new<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Arc<dyn Broker>> + Send + 'static,
    {
        Self { connect: Arc::new(move || connect().boxed()) }
    }

    pub async fn connection(&self) -> Arc<dyn Broker> {
        (self.connect)().await
    }
}

/// Makes a `#[tokio::test]` of every test of the suite.
#[macro_export]
macro_rules! broker_conformance {
    ($subject:expr) => {
        $crate::broker_conformance!(@in routing: $subject;
            a_message_arrives_as_it_was_sent
            a_confirmed_message_is_there_for_another_connection
            a_large_body_arrives_whole
            oversized_messages_and_impossible_names_are_refused
            a_thousand_messages_keep_their_order_among_other_senders
            a_fanout_reaches_every_bound_queue_and_no_other
            binding_twice_delivers_once
            a_queue_or_exchange_that_does_not_exist_is_unroutable
            concurrent_senders_each_get_their_own_answer
            declaring_again_does_nothing_and_otherwise_is_a_conflict
            what_waits_can_be_counted
        );
        $crate::broker_conformance!(@in settling: $subject;
            an_acknowledged_message_is_gone
            a_message_put_back_comes_before_those_behind_it
            an_exclusive_inbox_gets_back_what_it_put_back_in_order
            a_dropped_delivery_comes_again
            a_dropped_inbox_puts_back_in_order
            a_closed_connection_puts_back
            a_dropped_connection_puts_back
            a_late_settlement_is_refused_and_changes_nothing
            dropping_next_loses_nothing
            closing_ends_inboxes_and_refuses_calls
        );
        $crate::broker_conformance!(@in inboxes: $subject;
            competing_inboxes_get_each_message_once
            prefetch_bounds_what_is_out
            an_exclusive_inbox_keeps_others_out_until_it_is_closed
            an_opening_that_is_dropped_leaves_nothing_behind
            an_inbox_keeps_an_exclusive_one_out
            deleting_a_queue_ends_its_inboxes
            an_exclusive_queue_belongs_to_its_connection
        );
        $crate::broker_conformance!(@in limits: $subject;
            a_full_queue_refuses
            a_message_put_back_into_a_full_queue_is_not_lost
            a_full_queue_loses_its_oldest
            one_full_queue_does_not_stop_a_fanout
            a_message_expires
            a_queue_expires_without_inbox
            a_message_put_back_too_often_is_dead_lettered
            a_reader_that_did_not_declare_the_queue_counts_too
            lost_inboxes_count_as_deliveries
            a_message_can_be_dead_lettered_at_once
        );
    };
    (@in $file:ident: $subject:expr; $($test:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::broker::conformance::$file::$test($subject).await;
            }
        )+
    };
}

/// A name nobody else has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}.{}", Uuid::new_v4())
}

/// A durable queue without limits that matter, and expiring so that a failed test leaves nothing behind.
fn plain_queue() -> QueueSpec {
    QueueSpec {
        name: unique("test"),
        kind: QueueKind::Durable,
        expires: Some(Duration::from_secs(60)),
        max_length: 10_000,
        delivery_limit: None,
        when_full: WhenFull::Refuse,
    }
}

async fn declared(broker: &dyn Broker, spec: QueueSpec) -> String {
    broker.declare_queue(&spec).await.unwrap();
    spec.name
}

async fn declared_exchange(broker: &dyn Broker) -> String {
    let name = unique("test");
    broker.declare_exchange(&name).await.unwrap();
    name
}

pub fn message(text: &str) -> Message {
    Message { body: text.as_bytes().to_vec(), message_id: text.to_owned(), ttl: None }
}

pub async fn send(broker: &dyn Broker, queue: &str, text: &str) {
    broker.send(Destination::Queue(queue), message(text)).await.unwrap();
}

async fn send_all(broker: &dyn Broker, queue: &str, texts: &[&str]) {
    for text in texts {
        send(broker, queue, text).await;
    }
}

pub async fn open(broker: &dyn Broker, queue: &str, prefetch: u16) -> Box<dyn Inbox> {
    broker.open_inbox(queue, InboxOptions { prefetch, exclusive: false }).await.unwrap()
}

pub async fn open_exclusive(broker: &dyn Broker, queue: &str, prefetch: u16) -> BrokerResult<Box<dyn Inbox>> {
    broker.open_inbox(queue, InboxOptions { prefetch, exclusive: true }).await
}

/// What must happen soon.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes too long")
}

pub async fn next(inbox: &mut Box<dyn Inbox>) -> Delivery {
    soon(inbox.next()).await.expect("the inbox ended")
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.clone()).unwrap()
}

/// Takes and acknowledges as many as are expected, in order.
async fn expect_in_order(inbox: &mut Box<dyn Inbox>, expected: &[&str]) {
    for expected in expected {
        let delivery = next(inbox).await;
        assert_eq!(text(&delivery), *expected);
        delivery.acknowledge().await.unwrap();
    }
}

/// Nothing more waits for this inbox: with the queue deleted, it ends at once.
async fn expect_drained(broker: &dyn Broker, queue: &str, mut inbox: Box<dyn Inbox>) {
    broker.delete_queue(queue).await.unwrap();
    let more = soon(inbox.next()).await.map(|delivery| text(&delivery));
    assert_eq!(more, None, "there was one message too many");
}

/// Tries again until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn refused<T>(result: Result<T, BrokerError>) -> BrokerErrorKind {
    match result {
        Ok(_) => panic!("should have been refused"),
        Err(error) => error.kind,
    }
}
