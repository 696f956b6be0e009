//! From one worker to four, all of them replaced, and back to one, under rooms with live media.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::model::SessionState;
use common::store::Store;
use futures::StreamExt as _;
use support::{eventually, patience};

use crate::cluster::{Cluster, Listed};
use crate::rooms::{LiveRoom, QuietSession, stored};

/// Workers at most, each on a node of its own.
const WORKERS: usize = 4;
/// Rooms with live media: those that begin on the only worker, and those that begin when there are all.
const LIVE: [usize; 2] = [3, 3];
/// Sessions that are made when all workers are there, to see where they go; and how many are made at once.
const QUIET: usize = 60;
const AT_ONCE: usize = 4;
/// What each new worker gets of these, at least and at most. They are drawn by lot, with a chance of a quarter for each, up
/// to a third for the new ones because the first is heavier: less than once in a hundred thousand runs it is beyond.
const SHARE: std::ops::RangeInclusive<usize> = 2..=40;
/// The longest silence in the audio of a room, from the first worker to the last: in most of them, and in any. Seconds. Twelve
/// people join again in one process beside four workers: on two cores with other things to do somebody may have to wait.
const GAP: f64 = 0.5;
const WORST_GAP: f64 = 1.5;

/// The worker that hosts a session now.
async fn host(store: &dyn Store, id: &str) -> Option<String> {
    stored(store, id).await.pipeline().map(|pipeline| pipeline.worker_id.to_string())
}

/// Says what was reached, and when.
fn reached(started: Instant, what: &str) {
    println!("{:5.1} s: {what}", started.elapsed().as_secs_f64());
}

pub async fn run() {
    let started = Instant::now();
    let mut cluster = Cluster::start(2, WORKERS).await;
    let store = cluster.store().await;
    cluster.start_workers(0..1).await;
    reached(started, "RabbitMQ, the store, two APIs and one worker");

    let mut live = Vec::new();
    for number in 0..LIVE[0] {
        live.push(LiveRoom::open(&cluster, &format!("live {number}")).await);
    }
    reached(started, "rooms on the only worker have media");
    cluster.start_workers(1..WORKERS).await;
    reached(started, "four workers");
    let quiet = spread(&cluster, &*store).await;
    for number in 0..LIVE[1] {
        live.push(LiveRoom::open(&cluster, &format!("late {number}")).await);
    }
    // Nobody of them would follow, and a worker waits for everyone.
    futures::stream::iter(&quiet).for_each_concurrent(AT_ONCE, QuietSession::empty).await;
    reached(started, "sessions are spread");

    for index in 0..WORKERS {
        let hosted = hosted_at(&cluster, &*store, &live, index).await;
        let began = Instant::now();
        cluster.end_workers(index..index + 1).await;
        let took = began.elapsed();
        cluster.start_workers(index..index + 1).await;
        assert!(live.iter().all(|room| !room.has_failed()), "everybody can follow");
        reached(started, &format!("worker {index} replaced; {hosted} live room(s) moved in {took:.1?}"));
    }
    for index in 0..2 {
        cluster.roll_api(index).await;
    }
    reached(started, "APIs replaced");
    cluster.end_workers(1..WORKERS).await;
    reached(started, "back to one worker");

    everything_is_there(&mut cluster, &*store, live, quiet).await;
    reached(started, "everything is there");
}

/// How many of the live rooms are on the worker of this node.
async fn hosted_at(cluster: &Cluster, store: &dyn Store, live: &[LiveRoom], index: usize) -> usize {
    let listed = cluster.listed().await;
    let here = format!("{}:", cluster.address(index));
    let worker = listed.iter().find(|row| row.address.starts_with(&here)).expect("it is listed");
    let mut count = 0;
    for room in live {
        count += usize::from(host(store, &room.id).await.as_deref() == Some(worker.id.as_str()));
    }
    count
}

/// Makes many sessions, and looks where they went.
async fn spread(cluster: &Cluster, store: &dyn Store) -> Vec<QuietSession> {
    let before = cluster.listed().await;
    let quiet: Vec<QuietSession> = futures::stream::iter(0..QUIET)
        .map(|number| QuietSession::open(cluster, number))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut shares: BTreeMap<String, usize> = before.iter().map(|row| (row.id.clone(), 0)).collect();
    for session in &quiet {
        let host = host(store, &session.room.id).await.expect("somebody is in it, so it is placed");
        *shares.get_mut(&host).expect("on a worker that is there") += 1;
    }
    let first = cluster.address(0).to_string();
    let describe = |row: &Listed| {
        let new = if row.address.starts_with(&format!("{first}:")) { "first" } else { "new" };
        format!("{} ({new}, {} MiB)", shares[&row.id], row.memory_bytes >> 20)
    };
    println!("of {QUIET} sessions: {}", before.iter().map(describe).collect::<Vec<_>>().join(", "));
    for row in &before {
        let new = !row.address.starts_with(&format!("{first}:"));
        let share = shares[&row.id];
        assert!(share <= *SHARE.end() && (!new || share >= *SHARE.start()), "{shares:?} of {QUIET}");
    }
    quiet
}

/// No session and nobody in one is lost, nobody is there twice, and nothing has gone wrong on the way.
async fn everything_is_there(
    cluster: &mut Cluster,
    store: &dyn Store,
    live: Vec<LiveRoom>,
    mut quiet: Vec<QuietSession>,
) {
    let [last] = &cluster.listed().await[..] else { panic!("one worker is left") };
    assert_eq!(last.state, "ready");
    let (mut silences, mut moves) = (Vec::new(), Vec::new());
    for room in live {
        let calm = room.stop().await;
        calm.is_whole(store, &last.id).await;
        moves.push(calm.moves);
        silences.push(calm.longest_silence);
    }
    silences.sort_unstable();
    let (median, worst) = (silences[silences.len() / 2], silences[silences.len() - 1]);
    println!(
        "live rooms moved {moves:?} times; longest silence in anybody's audio {worst:.0?} ({silences:.0?})"
    );
    // All were on some worker, and all of these went.
    assert!(moves.iter().all(|moves| *moves >= 1), "{moves:?}");
    assert!(median <= patience(GAP) && worst <= patience(WORST_GAP), "{silences:?}");
    // Nobody is in them; where they were is gone, and they are open all the same.
    let ids: BTreeSet<&str> = quiet.iter().map(|session| session.room.id.as_str()).collect();
    assert_eq!(ids.len(), QUIET);
    for id in ids {
        let session = stored(store, id).await;
        assert!(session.state == SessionState::Open && session.participants.is_empty(), "{session:?}");
        let at = session.pipeline().map(|pipeline| pipeline.worker_id.to_string());
        assert!(at.is_none_or(|at| at == last.id), "on a worker that is gone: {session:?}");
    }
    for session in quiet.iter_mut().step_by(QUIET / AT_ONCE) {
        session.join_again().await;
        assert_eq!(host(store, &session.room.id).await.as_deref(), Some(last.id.as_str()));
    }
    let queue = common::broker::topology::DEAD_LETTERS;
    let found = cluster.broker().look_at([queue]).await.expect("RabbitMQ answers");
    assert!(found[0].is_some_and(|queue| queue.messages == 0), "{queue}: {found:?}");
    eventually("the last worker listens to every session", || async {
        let names: Vec<String> = quiet.iter().map(|session| format!("session.{}", session.room.id)).collect();
        let views = cluster.broker().look_at(names.iter().map(String::as_str)).await?;
        let lacking = views.iter().filter(|view| view.is_none_or(|view| view.readers != 1)).count();
        if lacking == 0 { Ok(()) } else { Err(format!("{lacking} of {QUIET} have not one reader")) }
    })
    .await;
    cluster.still_there();
}
