//! The conformance suite against a real RabbitMQ, and what only a broker behind a network has to do: survive
//! losing it. The network is a proxy on loopback that can be cut and silenced.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::broker::conformance::{
    PATIENCE, Subject, eventually, message, next, open, open_exclusive, send, soon, text, unique,
};
use crate::broker::{QueueKind, WhenFull};

/// The RabbitMQ under test.
fn url() -> String {
    std::env::var("SWITCHYARD_TEST_BROKER").expect(
        "SWITCHYARD_TEST_BROKER must hold the amqp:// URL of a RabbitMQ: run tests/run, which starts one",
    )
}

async fn connect(url: &str) -> RabbitBroker {
    RabbitBroker::connect(url).await.expect("SWITCHYARD_TEST_BROKER must name a reachable RabbitMQ")
}

mod conformance {
    use super::*;

    fn subject() -> Subject {
        Subject::new(|| async {
            let broker: Arc<dyn Broker> = Arc::new(connect(&url()).await);
            broker
        })
    }

    crate::broker_conformance!(subject());
}

/// A way to RabbitMQ that can be made to fail.
struct Proxy {
    address: SocketAddr,
    /// Replaced by every cut; connections end with the one they began with.
    cable: watch::Sender<CancellationToken>,
    unplugged: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    /// Milliseconds that every read is held back, each way.
    delay: Arc<AtomicU64>,
}

impl Proxy {
    async fn start() -> Self {
        let target = link::parse(&url()).unwrap().authority;
        let target = format!("{}:{}", target.host, target.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cable, plug) = watch::channel(CancellationToken::new());
        let (unplugged, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let delay = Arc::new(AtomicU64::new(0));
        let flags = (unplugged.clone(), silent.clone(), delay.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, target, flags) = (plug.borrow().clone(), target.clone(), flags.clone());
                tokio::spawn(async move {
                    if flags.0.load(Ordering::SeqCst) {
                        return;
                    }
                    let server = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = carry(client, server, &flags.1, &flags.2) => {}
                    }
                });
            }
        });
        Self { address, cable, unplugged, silent, delay }
    }

    fn url(&self, query: &str) -> String {
        let uri = link::parse(&url()).unwrap();
        let user = uri.authority.userinfo;
        format!("amqp://{}:{}@{}/%2f?{query}", user.username, user.password, self.address)
    }

    /// Ends all connections. New ones work.
    fn cut(&self) {
        self.cable.send_replace(CancellationToken::new()).cancel();
    }

    /// Ends all connections, and new ones, until told otherwise. Does not cut what is made once it is told.
    fn unplug(&self, unplugged: bool) {
        self.unplugged.store(unplugged, Ordering::SeqCst);
        if unplugged {
            self.cut();
        }
    }
}

/// Carries bytes both ways. While silent, swallows them: the connections stay open.
async fn carry(mut client: TcpStream, mut server: TcpStream, silent: &AtomicBool, delay: &AtomicU64) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        () = carry_one_way(from_client, to_server, silent, delay) => {}
        () = carry_one_way(from_server, to_client, silent, delay) => {}
    }
}

async fn carry_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silent: &AtomicBool,
    delay: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
        if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn queue(kind: QueueKind) -> QueueSpec {
    QueueSpec {
        name: unique("test"),
        kind,
        expires: (kind != QueueKind::Exclusive).then_some(Duration::from_secs(60)),
        max_length: 10_000,
        delivery_limit: None,
        when_full: WhenFull::Refuse,
    }
}

async fn until_connected(broker: &RabbitBroker, up: bool) {
    soon(broker.connected().wait_for(|connected| *connected == up)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_connection_that_cannot_be_made_fails_fast_and_tells_no_password() {
    let started = Instant::now();
    // A port that was free a moment ago, on which nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = RabbitBroker::connect(&format!("amqp://user:secret@{closed}")).await.err().unwrap();
    assert_eq!(error.kind, BrokerErrorKind::Unavailable);
    assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");

    let right = link::parse(&url()).unwrap().authority;
    let wrong = format!("amqp://nobody:secret@{}:{}", right.host, right.port);
    let error = RabbitBroker::connect(&wrong).await.err().unwrap();
    assert_eq!(error.kind, BrokerErrorKind::Unavailable);
    assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");

    let error = RabbitBroker::connect("nonsense:secret").await.err().unwrap();
    assert_eq!(error.kind, BrokerErrorKind::Internal);
    assert!(started.elapsed() < 2 * CALL_TIMEOUT, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_comes_back_with_queues_bindings_and_inboxes() {
    let (proxy, outside) = (Proxy::start().await, connect(&url()).await);
    let broker = connect(&proxy.url("")).await;
    let (mine, durable) = (queue(QueueKind::Exclusive), queue(QueueKind::Durable));
    let exchange = unique("test");
    broker.declare_exchange(&exchange).await.unwrap();
    for spec in [&mine, &durable] {
        broker.declare_queue(spec).await.unwrap();
        broker.bind(&spec.name, &exchange).await.unwrap();
    }
    let mut mine_inbox = open(&broker, &mine.name, 10).await;
    let mut durable_inbox = open_exclusive(&broker, &durable.name, 10).await.unwrap();
    send(&outside, &durable.name, "unsettled").await;
    let unsettled = next(&mut durable_inbox).await;

    proxy.unplug(true);
    until_connected(&broker, false).await;
    soon(broker.shared.sending.watch().wait_for(Option::is_none)).await.unwrap();
    let started = Instant::now();
    let refused = broker.send(Destination::Queue(&durable.name), message("x")).await.unwrap_err();
    assert_eq!(refused.kind, BrokerErrorKind::Unavailable);
    assert!(started.elapsed() < CALL_TIMEOUT);
    // Until the loss was noticed on the connection of its own inbox, an acknowledgement may seem to succeed.
    let inboxes = lock(&broker.shared.more).clone();
    assert_eq!(inboxes.len(), 1);
    soon(inboxes[0].watch().wait_for(Option::is_none)).await.unwrap();
    assert_eq!(unsettled.acknowledge().await.unwrap_err().kind, BrokerErrorKind::Unavailable);
    send(&outside, &durable.name, "meanwhile").await;
    // Not this process's any more, until it is back.
    eventually("the exclusive queue is gone", async || {
        outside.send(Destination::Queue(&mine.name), message("x")).await.is_err()
    })
    .await;

    proxy.unplug(false);
    until_connected(&broker, true).await;
    let again = next(&mut durable_inbox).await;
    assert_eq!((text(&again).as_str(), again.redelivered), ("unsettled", true));
    again.acknowledge().await.unwrap();
    let meanwhile = next(&mut durable_inbox).await;
    assert_eq!(text(&meanwhile), "meanwhile");
    meanwhile.acknowledge().await.unwrap();
    outside.send(Destination::Exchange(&exchange), message("bound again")).await.unwrap();
    for inbox in [&mut mine_inbox, &mut durable_inbox] {
        let delivery = next(inbox).await;
        assert_eq!(text(&delivery), "bound again");
        delivery.acknowledge().await.unwrap();
    }
    broker.send(Destination::Queue(&mine.name), message("straight")).await.unwrap();
    assert_eq!(text(&next(&mut mine_inbox).await), "straight");
    broker.delete_queue(&durable.name).await.unwrap();
    broker.delete_exchange(&exchange).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_and_nothing_acknowledged_comes_again_while_the_connection_breaks() {
    let proxy = Proxy::start().await;
    let (sender, reader) = (Arc::new(connect(&proxy.url("")).await), connect(&proxy.url("")).await);
    let outside = connect(&url()).await;
    let spec = queue(QueueKind::Durable);
    sender.declare_queue(&spec).await.unwrap();
    let mut inbox = open(&reader, &spec.name, 20).await;
    let started = Instant::now();
    let sending = tokio::spawn({
        let (sender, queue) = (sender.clone(), spec.name.clone());
        async move {
            let mut confirmed = Vec::new();
            for index in 0..1_500_u32 {
                match sender.send(Destination::Queue(&queue), message(&index.to_string())).await {
                    Ok(()) => confirmed.push(index),
                    Err(error) => {
                        assert_eq!(error.kind, BrokerErrorKind::Unavailable, "{error}");
                        until_connected(&sender, true).await;
                    }
                }
            }
            confirmed
        }
    });
    let mut sending = Some(sending);
    let mut confirmed = None;
    let mut arrived = HashMap::<u32, u32>::new();
    let mut cuts = 0;
    let complete = |confirmed: &Option<Vec<u32>>, arrived: &HashMap<u32, u32>| {
        confirmed.as_ref().is_some_and(|confirmed| confirmed.iter().all(|index| arrived.contains_key(index)))
    };
    // What was out when the connection broke comes again after RabbitMQ noticed, behind newer messages perhaps.
    while !complete(&confirmed, &arrived) {
        if let Some(finished) = sending.take_if(|sending| sending.is_finished()) {
            confirmed = Some(finished.await.unwrap());
        }
        let Ok(delivery) = tokio::time::timeout(Duration::from_millis(50), inbox.next()).await else {
            assert!(started.elapsed() < 3 * PATIENCE, "only {} arrived", arrived.len());
            continue;
        };
        let delivery = delivery.expect("the inbox ended");
        *arrived.entry(text(&delivery).parse().unwrap()).or_default() += 1;
        if arrived.len().is_multiple_of(300) && cuts < arrived.len() / 300 {
            cuts += 1;
            proxy.cut();
        }
        // May fail: then it comes again.
        let _ = delivery.acknowledge().await;
    }
    assert!(cuts >= 3, "only {cuts} cuts");
    // Only what was out while the connection broke may come twice.
    let repeated = arrived.values().filter(|times| **times > 1).count();
    assert!(repeated <= cuts * 21, "{repeated} messages came again after {cuts} cuts");
    outside.delete_queue(&spec.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_given_up() {
    let proxy = Proxy::start().await;
    let broker = connect(&proxy.url("heartbeat=1")).await;
    let spec = queue(QueueKind::Exclusive);
    broker.declare_queue(&spec).await.unwrap();
    let mut inbox = open(&broker, &spec.name, 1).await;
    proxy.silent.store(true, Ordering::SeqCst);
    until_connected(&broker, false).await;
    proxy.silent.store(false, Ordering::SeqCst);
    // RabbitMQ may still hold the exclusive queue for the silent connection: that is waited out.
    until_connected(&broker, true).await;
    send(&broker, &spec.name, "1").await;
    assert_eq!(text(&next(&mut inbox).await), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_gets_no_answer_ends_as_unavailable() {
    let proxy = Proxy::start().await;
    let broker = connect(&proxy.url("heartbeat=60")).await;
    let spec = queue(QueueKind::Exclusive);
    broker.declare_queue(&spec).await.unwrap();
    proxy.silent.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let error = soon(broker.send(Destination::Queue(&spec.name), message("1"))).await.unwrap_err();
    assert_eq!(error.kind, BrokerErrorKind::Unavailable);
    assert!(started.elapsed() < CALL_TIMEOUT + Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_whose_queue_was_deleted_during_the_loss_ends() {
    let (proxy, outside) = (Proxy::start().await, connect(&url()).await);
    let broker = connect(&proxy.url("")).await;
    let spec = queue(QueueKind::Durable);
    // Another process declares and deletes it.
    outside.declare_queue(&spec).await.unwrap();
    let mut inbox = open(&broker, &spec.name, 1).await;
    proxy.unplug(true);
    until_connected(&broker, false).await;
    outside.delete_queue(&spec.name).await.unwrap();
    proxy.unplug(false);
    assert!(soon(inbox.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_do_not_wait_for_each_others_confirms() {
    let proxy = Proxy::start().await;
    let broker = connect(&proxy.url("")).await;
    let spec = queue(QueueKind::Exclusive);
    broker.declare_queue(&spec).await.unwrap();
    let delay = Duration::from_millis(100);
    proxy.delay.store(100, Ordering::SeqCst);
    let started = Instant::now();
    futures::future::join_all((0..60).map(|index| {
        let (broker, queue) = (&broker, &spec.name);
        async move { send(broker, queue, &index.to_string()).await }
    }))
    .await;
    // One after the other: 60 round trips of two delays. At the same time: a few, most to open channels.
    assert!(started.elapsed() < 30 * delay, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_lent_again_and_never_after_an_error() {
    let broker = connect(&url()).await;
    let spec = queue(QueueKind::Exclusive);
    broker.declare_queue(&spec).await.unwrap();
    for index in 0..50 {
        send(&broker, &spec.name, &index.to_string()).await;
        assert!(broker.send(Destination::Queue("missing"), message("x")).await.is_err());
    }
    let live = broker.shared.sending.live().unwrap();
    assert_eq!(live.confirming.opened(), 1);
    // A missing exchange closes the channel; the next send has another one.
    assert!(broker.send(Destination::Exchange(&unique("missing")), message("x")).await.is_err());
    send(&broker, &spec.name, "after").await;
    assert_eq!(live.confirming.opened(), 2);
}

/// More than there are channels on a connection: all of their numbers are used again.
const MANY: usize = 2_200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_long_ago_is_not_refused_for_ever() {
    let broker = connect(&url()).await;
    let spec = queue(QueueKind::Durable);
    broker.declare_queue(&spec).await.unwrap();
    let kept = open(&broker, &spec.name, 1).await;
    let missing = unique("missing");
    for _ in 0..MANY {
        let options = InboxOptions { prefetch: 1, exclusive: false };
        let refused = broker.open_inbox(&missing, options).await.err().expect("no such queue");
        assert_eq!(refused.kind, BrokerErrorKind::Unroutable, "{refused}");
        let refused = broker.send(Destination::Exchange(&missing), message("x")).await.unwrap_err();
        assert_eq!(refused.kind, BrokerErrorKind::Unroutable, "{refused}");
        let refused = broker.bind(&spec.name, &missing).await.unwrap_err();
        assert_eq!(refused.kind, BrokerErrorKind::Unroutable, "{refused}");
    }
    // The old inbox, new ones, sending and declaring: all go on.
    let mut inboxes = vec![kept];
    for _ in 0..100 {
        inboxes.push(open(&broker, &spec.name, 1).await);
        broker.declare_exchange(&spec.name).await.unwrap();
    }
    for _ in 0..inboxes.len() {
        send(&broker, &spec.name, "x").await;
    }
    for inbox in &mut inboxes {
        next(inbox).await.acknowledge().await.unwrap();
    }
    // The connection of the first inbox stays for it; the worn ones that nobody is on have gone.
    eventually("worn connections end", || async { lock(&broker.shared.more).len() <= 2 }).await;
    assert!(*broker.connected().borrow());
    broker.delete_exchange(&spec.name).await.unwrap();
    broker.delete_queue(&spec.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_inboxes_for_one_connection_get_another_and_it_recovers_too() {
    let (proxy, outside) = (Proxy::start().await, connect(&url()).await);
    let broker = RabbitBroker::connect_with(&proxy.url(""), 3).await.unwrap();
    let mine = queue(QueueKind::Exclusive);
    broker.declare_queue(&mine).await.unwrap();
    let mut inboxes = Vec::new();
    for _ in 0..7 {
        let spec = queue(QueueKind::Durable);
        outside.declare_queue(&spec).await.unwrap();
        inboxes.push((open(&broker, &spec.name, 1).await, spec.name));
    }
    // An exclusive queue can only be read on the connection that declared it.
    inboxes.push((open(&broker, &mine.name, 1).await, mine.name));
    assert_eq!(lock(&broker.shared.more).len(), 3);
    for round in ["before", "after"] {
        for (inbox, queue) in &mut inboxes {
            send(&outside, queue, round).await;
            let mut delivery = next(inbox).await;
            if round == "after" && delivery.redelivered {
                // Its acknowledgement was still on its way when the connection broke.
                assert_eq!(text(&delivery), "before");
                delivery.acknowledge().await.unwrap();
                delivery = next(inbox).await;
            }
            assert_eq!(text(&delivery), round);
            delivery.acknowledge().await.unwrap();
        }
        if round == "before" {
            proxy.unplug(true);
            until_connected(&broker, false).await;
            proxy.unplug(false);
            until_connected(&broker, true).await;
        }
    }
    for (_, queue) in &inboxes {
        outside.delete_queue(queue).await.ok();
    }
}
