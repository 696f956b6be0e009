//! Who is declared dead and who is not: killed, paused, cut off, restarted workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::broker::topology;
use common::message::{CommandBody, ErrorCode, EventBody};
use common::model::{ParticipantId, RunId, Worker as WorkerRow, WorkerId};
use common::store::StoreErrorKind;
use common::time::UnixMillis;
use media_worker::WorkerConfig;

use crate::control::api::{join_body, joined};
use crate::control::faults::{Fault, FaultyBroker, FaultyStore};
use crate::control::pausable::Pausable;
use crate::control::{System, TestWorker, config, eventually, hasty, patience};

/// A worker, and how often it has sent something to each other worker's queue.
struct Watching {
    worker: TestWorker,
    pings: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Watching {
    async fn start(system: &System, config: WorkerConfig) -> Self {
        let broker = FaultyBroker::over(system.connection().await);
        let pings = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let seen = pings.clone();
        broker.plan(move |to| {
            seen.lock().unwrap().push(to.to_owned());
            None
        });
        Self { worker: system.worker_on(config, broker, system.store.clone()).await, pings }
    }

    fn pings_to(&self, other: WorkerId) -> usize {
        let queue = topology::worker_queue_name(other);
        self.pings.lock().unwrap().iter().filter(|to| **to == queue).count()
    }

    /// Waits for so many more pings.
    async fn pinged(&self, other: WorkerId, more: usize) {
        let enough = self.pings_to(other) + more;
        eventually("it pings", async || (self.pings_to(other) >= enough).then_some(())).await;
    }

    fn id(&self) -> WorkerId {
        self.worker.worker.id()
    }
}

/// Two workers that know each other, and of these the one that hosts is the first.
async fn host_and_observer(workers: [Watching; 2], host: WorkerId) -> (Watching, Watching) {
    let [first, second] = workers;
    first.pinged(second.id(), 1).await;
    second.pinged(first.id(), 1).await;
    if first.id() == host { (first, second) } else { (second, first) }
}

pub async fn a_killed_worker_is_declared_dead_long_before_its_lease_ends(system: System) {
    let workers = [Watching::start(&system, config()).await, Watching::start(&system, config()).await];
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let (host, observer) = host_and_observer(workers, target.worker_id).await;
    let killed = Instant::now();
    host.worker.crash().await;
    let seen = events.until_kind("session.interrupted").await;
    let noticed = killed.elapsed();
    println!("noticed after {} ms", noticed.as_millis());
    assert_eq!(seen.last(), Some(&EventBody::SessionInterrupted { epoch: target.epoch + 1 }));
    assert!(noticed < config().lease / 3, "{noticed:?}");
    assert_eq!(system.store.worker(target.worker_id).await.unwrap(), None);
    let again = api.join_as(session, participant, None).await.unwrap().joined.target;
    assert_eq!((again.worker_id, again.epoch), (observer.id(), target.epoch + 2));
    observer.worker.stop().await;
}

pub async fn a_worker_without_broker_keeps_its_sessions_until_somebody_wants_in(system: System) {
    let config = || WorkerConfig { lease: Duration::from_secs(6), ..config() };
    let workers = [Watching::start(&system, config()).await, Watching::start(&system, config()).await];
    let api = system.api().await;
    let session = api.create().await;
    let target = api.join(session).await.joined.target;
    let (host, observer) = host_and_observer(workers, target.worker_id).await;
    host.worker.broker.close().await;
    // A handful of pings in a row come back, and each time its row says why.
    let row = eventually("it says so in its row", async || {
        let row = system.store.worker(target.worker_id).await.unwrap()?;
        row.broker_away_since.is_some().then_some(row)
    })
    .await;
    observer.pinged(host.id(), 10).await;
    let stored = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((stored.epoch, host.worker.endpoints().await), (target.epoch, 1), "media goes on");
    let queue = topology::session_queue_name(session);
    assert_eq!(
        api.refusal(&queue, join_body(session, ParticipantId::new(), None)).await,
        ErrorCode::Unavailable
    );

    let moved = eventually("a join after long enough moves the session", async || {
        let long_ago = WorkerRow {
            lease_until: UnixMillis::now().plus(config().lease),
            broker_away_since: Some(UnixMillis(1)),
            ..row.clone()
        };
        system.store.renew_worker(&long_ago).await.unwrap();
        Some(api.join_as(session, ParticipantId::new(), None).await.ok()?.joined.target)
    })
    .await;
    assert_eq!(moved.worker_id, observer.id());
    eventually("the old host closes what is no longer its own", async || {
        (host.worker.endpoints().await == 0).then_some(())
    })
    .await;
    observer.worker.stop().await;
}

pub async fn leases_that_ran_out_together_interrupt_nobody(system: System) {
    let stores = [FaultyStore::over(system.store.clone()), FaultyStore::over(system.store.clone())];
    let workers = [
        system.worker_with(hasty(), stores[0].clone()).await,
        system.worker_with(hasty(), stores[1].clone()).await,
    ];
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    for store in &stores {
        store.plan(|_| Some(Fault::Fail(StoreErrorKind::Unavailable)));
    }
    let lease_until = |rows: Vec<WorkerRow>| rows.iter().map(|row| row.lease_until).max();
    eventually("all leases are over", async || {
        (lease_until(system.store.workers().await.unwrap())? < UnixMillis::now()).then_some(())
    })
    .await;
    // The one that does not host comes back first, and sees only rows that are long over.
    let (host, other) = if workers[0].worker.id() == target.worker_id { (0, 1) } else { (1, 0) };
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    stores[other].plan(move |operation| {
        counted.fetch_add(usize::from(operation == "workers"), Ordering::SeqCst);
        None
    });
    eventually("it has looked", async || (looks.load(Ordering::SeqCst) > 1).then_some(())).await;
    stores[host].heal();
    eventually("it has looked for more than a lease", async || {
        (looks.load(Ordering::SeqCst) > 8).then_some(())
    })
    .await;
    let again = api.join(session).await.joined.target;
    assert_eq!((again.pipeline_id, again.epoch), (target.pipeline_id, target.epoch));
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    assert!(seen.iter().all(|event| event.kind() != "session.interrupted"), "{seen:?}");
    for worker in workers {
        worker.stop().await;
    }
}

pub async fn a_paused_worker_finds_its_sessions_gone_before_it_acts(system: System) {
    let paused = Pausable::start(&system, hasty()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    assert_eq!(target.worker_id, paused.id());
    let survivor = system.worker_with(hasty(), system.store.clone()).await;
    paused.pause();
    // Read by the paused process's inbox, or waiting in its queue: it finds all of it when it wakes up.
    let candidates = api.command(CommandBody::Candidates { target, candidates: Vec::new() });
    let join = api.command(join_body(session, ParticipantId::new(), None));
    let own = topology::worker_queue_name(paused.id());
    api.send(&own, &candidates).await;
    events.until_kind("session.interrupted").await;
    // The broker goes on handing the paused process its share of the session's commands. Those come too late then.
    let again = eventually("a join that the survivor gets", async || {
        let mut join = api.command(join_body(session, participant, None));
        join.deadline = UnixMillis::now().plus(Duration::from_millis(800));
        let queue = topology::session_queue_name(session);
        let reply = api.call_with(&queue, &join);
        let reply = tokio::time::timeout(Duration::from_secs(1), reply).await.ok()?;
        Some(joined(reply.ok()?).joined.target)
    })
    .await;
    assert_eq!(again.worker_id, survivor.worker.id());
    api.send(&own, &join).await;
    let before = system.store.session(session).await.unwrap().unwrap();
    paused.resume();
    let refused = api.replies(candidates.command_id, 1).await.remove(0).result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EndpointGone);
    // The join is handed to who hosts the session now.
    let reply = api.replies(join.command_id, 1).await.remove(0).result.unwrap();
    assert_eq!(joined(reply).joined.target.worker_id, survivor.worker.id());
    eventually("it is a ready worker again", async || {
        let row = system.store.worker(paused.id()).await.unwrap()?;
        (row.lease_until > UnixMillis::now()).then_some(())
    })
    .await;
    assert_eq!(paused.endpoints().await, 0);
    let after = system.store.session(session).await.unwrap().unwrap();
    assert_eq!((after.epoch, &after.participants[0]), (before.epoch, &before.participants[0]));
    api.close(session).await.unwrap();
    let seen = events.until_kind("session.closed").await;
    let odd: Vec<_> = seen.iter().filter(|event| event.kind() == "session.interrupted").collect();
    assert!(odd.is_empty(), "it interrupted once: {odd:?}");
    survivor.stop().await;
}

pub async fn a_restarted_worker_keeps_its_id_and_gets_its_sessions_back(system: System) {
    let id = WorkerId::new();
    let named = || WorkerConfig { worker_id: Some(id), ..config() };
    let first = system.worker_with(named(), system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    let participant = ParticipantId::new();
    let mut events = api.events(session, participant).await;
    let target = api.join_as(session, participant, None).await.unwrap().joined.target;
    let run = system.store.worker(id).await.unwrap().unwrap().run;
    let other = system.worker().await;
    {
        // One at a time: the second waits for the first to be gone.
        let second = system.worker_with(named(), system.store.clone());
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(500), second.as_mut()).await;
        assert!(early.is_err(), "it started beside the first");
        assert_eq!(system.store.worker(id).await.unwrap().unwrap().run, run);
        first.crash().await;
        let second = tokio::time::timeout(patience(), second).await.expect("it starts now");
        assert_ne!(system.store.worker(id).await.unwrap().unwrap().run, run);
        events.until_kind("session.interrupted").await;
        let again = eventually("rejoined", async || api.join_as(session, participant, None).await.ok()).await;
        assert_eq!((again.joined.target.worker_id, again.joined.target.epoch), (id, target.epoch + 2));
        second.stop().await;
    }
    other.stop().await;
}

pub async fn a_worker_whose_id_went_to_another_process_ends(system: System) {
    let worker = system.worker_with(hasty(), system.store.clone()).await;
    let api = system.api().await;
    let session = api.create().await;
    api.join(session).await;
    let row = system.store.worker(worker.worker.id()).await.unwrap().unwrap();
    let successor = WorkerRow { run: RunId::new(), lease_until: UnixMillis(i64::MAX), ..row };
    system.store.put_worker(&successor).await.unwrap();
    tokio::time::timeout(patience(), worker.worker.ended()).await.expect("it says that it ended");
    assert_eq!(worker.endpoints().await, 0);
    worker.stop().await;
    assert_eq!(system.store.worker(successor.id).await.unwrap(), Some(successor), "the row is not its own");
}
