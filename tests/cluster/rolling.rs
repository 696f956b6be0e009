//! A rolling restart: every worker is replaced under a live room whose clients connect to the new one before they let go of
//! the old one.

use std::time::{Duration, Instant};

use support::deployment::text;
use support::mover::{Mover, all_hear_each_other, follow_all, longest_silence};
use support::{Deployment, Shape, eventually, patience};

/// The longest silence in anybody's audio that counts as none.
const GAP: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_workers_leaves_no_gap_in_anybodys_audio() {
    let mut deployment = Deployment::start(Shape::Cluster { apis: 2, workers: 2 }).await;
    let room = deployment.room().await;
    let mut movers = Vec::new();
    for name in ["Ada", "Ben", "Cleo"] {
        movers.push(Mover::join(&room, name).await);
    }
    all_hear_each_other(&movers).await;
    movers.iter().for_each(|mover| mover.flow.reset());
    let mut moves = 0;
    // Both workers that were there, and then whichever has the room now: that one moves it in any case.
    for round in 0..3 {
        deployment = tokio::task::spawn_blocking(move || {
            deployment.start_worker();
            deployment
        })
        .await
        .expect("the new worker starts");
        let endpoint = movers[0].now.endpoint_id();
        let host = deployment.workers.iter().position(|worker| worker.log().contains(endpoint));
        let old = deployment.workers.remove(if round < 2 { 0 } else { host.expect("one hosts the room") });
        let hosts = old.log().contains(movers[0].now.endpoint_id());
        let started = Instant::now();
        let ending = tokio::task::spawn_blocking(move || {
            let status = old.stop();
            (status, started.elapsed())
        });
        if hosts {
            follow_all(&room, &mut movers).await;
            moves += 1;
        }
        let (status, took) = ending.await.expect("it is waited for");
        assert_eq!(status.code(), Some(0));
        assert!(took < patience(30.0), "it ended before its deadline, when everyone had moved: {took:?}");
    }
    assert!(moves >= 2, "the room moved {moves} time(s)");
    all_hear_each_other(&movers).await;
    let silence = longest_silence(&movers);
    println!("rolling restart: {moves} moves, longest silence in anybody's audio {silence:?}");
    assert!(silence <= GAP, "longest silence {silence:?}");
    for mover in &movers {
        assert_eq!(mover.now.errors(), Vec::<String>::new());
        assert_eq!(mover.interruptions(), 0, "nobody was interrupted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_draining_worker_at_once() {
    let mut deployment = Deployment::start(Shape::Cluster { apis: 1, workers: 1 }).await;
    let room = deployment.room().await;
    let client = room.join("someone").await;
    let mut worker = deployment.workers.remove(0);
    worker.terminate();
    eventually("it says that it drains", || async {
        if worker.log().contains("once more stops at once") { Ok(()) } else { Err(worker.log()) }
    })
    .await;
    // Nobody could take the session: it would wait for a minute.
    assert!(worker.running());
    let status = tokio::task::spawn_blocking(move || worker.stop()).await.expect("it is waited for");
    assert_eq!(status.code(), Some(0));
    client.event("session.interrupted", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_drains_a_worker_by_request_and_its_process_ends() {
    // The old connection vanishes without a word: a short grace time, so that its worker need not wait long for it.
    let operator = ["--operator-keys", support::deployment::KEY_ID, "--grace", "1"];
    let mut deployment = Deployment::start_with(Shape::Cluster { apis: 1, workers: 2 }, &operator).await;
    let room = deployment.room().await;
    let mut mover = Mover::join(&room, "someone").await;
    let operator = deployment.backend();
    let host = deployment.workers.iter().position(|worker| worker.log().contains(mover.now.endpoint_id()));
    let mut worker = deployment.workers.remove(host.expect("one of the two hosts it"));
    let id = worker.worker();
    let listed = operator.get("/v1/workers").await.expect(200);
    let states = |listed: &serde_json::Value| -> Vec<(String, String)> {
        let workers = listed["workers"].as_array().expect("a list").iter();
        workers.map(|worker| (text(&worker["id"]), text(&worker["state"]))).collect()
    };
    assert_eq!(states(&listed).iter().filter(|(_, state)| state == "ready").count(), 2, "{listed}");
    operator.post(&format!("/v1/workers/{id}/drain"), &serde_json::Value::Null).await.expect(202);
    let old = mover.follow(&room).await;
    let listed = operator.get("/v1/workers").await.expect(200);
    assert!(states(&listed).contains(&(id.clone(), "draining".to_owned())), "{listed}");
    old.vanish().await;
    eventually("the process ends by itself", || async {
        let listed = operator.get("/v1/workers").await.expect(200);
        if states(&listed).iter().all(|(other, _)| *other != id) { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    let status = tokio::task::spawn_blocking(move || worker.wait()).await.expect("it is waited for");
    assert_eq!(status.code(), Some(0));
    assert!(mover.now.connected() || mover.now.events_of("session.interrupted").is_empty());

    // What happened is in the timeline, numbered, with causes.
    let path = format!("/v1/sessions/{}/timeline", room.id);
    let entries = eventually("the timeline tells of the move", || async {
        let page = operator.get(&path).await.expect(200);
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        let joins = entries.iter().filter(|entry| entry["what"] == "participant.joined").count();
        if joins == 2 { Ok(entries) } else { Err(page.to_string()) }
    })
    .await;
    let numbers: Vec<i64> = entries.iter().filter_map(|entry| entry["number"].as_i64()).collect();
    assert_eq!(numbers, (1..=entries.len() as i64).collect::<Vec<_>>());
    let what = |entry: &serde_json::Value| text(&entry["what"]);
    let mut steps: Vec<String> = entries
        .iter()
        .map(what)
        .filter(|what| !what.starts_with("endpoint.") && !what.starts_with("track."))
        .collect();
    let expected = [
        "session.created",
        "session.placed",
        "participant.joined",
        "session.placed",
        "session.moving",
        "participant.joined",
    ];
    // Two workers write: the new one may be the first to write about the move.
    steps.sort();
    let mut sorted = expected.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(steps, sorted);
    let moving = entries.iter().find(|entry| entry["what"] == "session.moving").expect("just seen");
    assert_eq!(
        (&moving["cause"]["reason"], &moving["cause"]["worker_id"]),
        (&"drain".into(), &id.as_str().into())
    );
    let created = entries.iter().find(|entry| entry["what"] == "session.created").expect("just seen");
    assert!(
        created["cause"]["command_id"].is_string() && created["cause"]["trace_id"].is_string(),
        "{created}"
    );
}
