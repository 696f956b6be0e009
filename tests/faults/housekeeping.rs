//! What comes and goes leaves nothing behind: sessions that are empty end, and what belonged to them goes with them.

use std::collections::BTreeSet;

use common::store::SessionFilter;
use futures::future::join_all;
use support::media::Kind;
use support::process::Footprint;
use support::{Deployment, JoinOptions, Room, Shape, eventually};

use crate::room::still_there;
use crate::setting;

/// Before it is measured what the processes occupy: pools, caches and the allocator are as large as they get.
const WARM_UP: usize = 20;
/// Sessions at a time.
const AT_ONCE: usize = 5;
/// What a process may occupy more after all rounds; a leak of a session's worth per round is several times that.
const MORE_BYTES: u64 = 24 << 20;
const MORE_DESCRIPTORS: usize = 16;

fn names(sessions: &[String]) -> BTreeSet<String> {
    sessions.iter().map(|id| format!("session.{id}")).collect()
}

/// Neither queue nor exchange is left of these sessions: none with such a name.
async fn nothing_is_left(deployment: &Deployment, sessions: &[String], kind: &str) {
    let broker = deployment.broker();
    eventually("queues and exchanges of ended sessions go away", || async {
        let all = [broker.queues().await?, broker.exchanges().await?].concat();
        let left: Vec<_> = all
            .iter()
            .filter(|name| name.starts_with(kind) && sessions.iter().any(|id| name.contains(id)))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{} left, such as {:?}", left.len(), left[0])) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_empty_end_and_their_records_go() {
    let arguments = ["--empty-timeout", "2", "--closed-retention", "4"];
    let mut deployment = Deployment::start_with(Shape::Cluster { apis: 1, workers: 2 }, &arguments).await;
    let kept = deployment.room().await;
    let guest =
        kept.join_as(JoinOptions { publish: vec![Kind::Audio], ..JoinOptions::publishing("guest") }).await;
    let left = deployment.room().await;
    let other =
        left.join_as(JoinOptions { publish: vec![Kind::Audio], ..JoinOptions::publishing("other") }).await;
    let never = deployment.room().await;
    let broker = deployment.broker();
    let queues: BTreeSet<String> = broker.queues().await.expect("RabbitMQ answers").into_iter().collect();
    let of_sessions = names(&[kept.id.clone(), left.id.clone(), never.id.clone()]);
    assert!(of_sessions.is_subset(&queues), "{queues:?}");
    assert_eq!(other.leave().await.status, 204);
    for room in [&left, &never] {
        eventually("an empty session ends", || async {
            let session = room.backend.get(&format!("/v1/sessions/{}", room.id)).await;
            let ended = session.status == 404 || session.body["state"] == "closed";
            if ended { Ok(()) } else { Err(format!("{session:?}")) }
        })
        .await;
    }
    let ended = [left.id.clone(), never.id.clone()];
    // The queue of somebody who left and never fetched its last event has two minutes more.
    nothing_is_left(&deployment, &ended, "session.").await;
    for room in [&left, &never] {
        eventually("its record goes", || async {
            let session = room.backend.get(&format!("/v1/sessions/{}", room.id)).await;
            if session.status == 404 { Ok(()) } else { Err(format!("{session:?}")) }
        })
        .await;
    }
    assert_eq!(kept.session().await["state"], "open", "somebody is in it");
    assert!(guest.connected());
    still_there(&mut deployment);
}

/// Somebody comes with a camera and a microphone, somebody only watches, and then it is over.
async fn come_and_go(room: &Room) {
    let ada = room.join("Ada").await;
    let ben = room.join_as(JoinOptions::watching("Ben")).await;
    ben.receives(ada.participant_id(), Kind::Audio).await;
    room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
    // Their streams end with it, and with that their queues.
    for client in [&ada, &ben] {
        client.event("session.closed", |_| true).await;
        eventually("its events end", || async { client.ended().map(drop).ok_or("they go on".to_owned()) })
            .await;
    }
    ada.vanish().await;
    ben.vanish().await;
}

fn footprints(deployment: &Deployment) -> Vec<Footprint> {
    deployment.apis.iter().chain(&deployment.workers).map(|process| process.footprint()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_that_come_and_go_leave_nothing_behind() {
    let rounds = setting("SWITCHYARD_FAULTS_CHURN", 60);
    let mut deployment = Deployment::start(Shape::Cluster { apis: 1, workers: 2 }).await;
    let broker = deployment.broker();
    let queues = broker.queues().await.expect("RabbitMQ answers");
    let mut sessions = Vec::new();
    let mut before = Vec::new();
    while sessions.len() < WARM_UP + rounds {
        if sessions.len() == WARM_UP {
            before = footprints(&deployment);
        } else if sessions.len() % 100 == 0 && !sessions.is_empty() {
            println!("after {} sessions: {:?}", sessions.len(), footprints(&deployment));
        }
        let rooms = join_all((0..AT_ONCE).map(|_| deployment.room())).await;
        join_all(rooms.iter().map(come_and_go)).await;
        sessions.extend(rooms.into_iter().map(|room| room.id));
    }
    nothing_is_left(&deployment, &sessions, "").await;
    let mut now = broker.queues().await.expect("RabbitMQ answers");
    let mut at_first = queues;
    now.sort_unstable();
    at_first.sort_unstable();
    assert_eq!(now, at_first, "the queues of the start, and no more");
    eventually("nothing more is occupied than before", || async {
        let after = footprints(&deployment);
        let grown = before.iter().zip(&after).any(|(before, after)| {
            after.resident_bytes > before.resident_bytes + MORE_BYTES
                || after.descriptors > before.descriptors + MORE_DESCRIPTORS
        });
        if grown { Err(format!("{before:?} before, {after:?} after")) } else { Ok(()) }
    })
    .await;
    println!("{rounds} sessions: {before:?} before, {:?} after (API, workers)", footprints(&deployment));
    // The records stay until their time is over; none of them is open.
    let url = deployment.location().store.parse().expect("a store's URL");
    let store = common::connect::store(&url).await.expect("the store answers");
    let open = SessionFilter { open_only: true, limit: 10, ..SessionFilter::default() };
    assert!(store.sessions(&open).await.expect("the store answers").is_empty());
    let listed = deployment.backend().get("/v1/sessions").await.expect(200);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(0), "{listed}");
    still_there(&mut deployment);
}
