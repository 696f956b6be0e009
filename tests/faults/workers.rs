//! Workers killed, paused past their lease, and back under their old id, under a room with real media.

use std::time::{Duration, Instant};

use common::model::{Session, SessionId, WorkerId};
use common::store::Store;
use futures::future::join_all;
use serde_json::{Value, json};
use support::deployment::{KEY_ID, text};
use support::media::Kind;
use support::{Chance, Deployment, Room, Shape, eventually, patience};

use crate::room::{Member, all_hear_each_other, has_exactly, has_listeners, longest_silence, still_there};
use crate::setting;

const SHAPE: Shape = Shape::Cluster { apis: 2, workers: 2 };
/// How long a room lives between two deaths: none falls on the same moment of anything that happens regularly.
const LIFE_MS: (u64, u64) = (0, 2_500);
/// The longest that anybody may hear nothing of somebody after a death, on a busy machine. Seconds.
const RECOVERY: f64 = 15.0;
/// The shortest lease there is, in seconds.
const LEASE: &str = "3";

/// The store beside the API, for what the API does not show.
async fn store(deployment: &Deployment) -> std::sync::Arc<dyn Store> {
    let url = deployment.location().store.parse().expect("a store's URL");
    common::connect::store(&url).await.expect("the store answers")
}

async fn stored(store: &dyn Store, room: &Room) -> Session {
    let id: SessionId = room.id.parse().expect("a session's id");
    store.session(id).await.expect("the store answers").expect("the session is stored")
}

/// Which of the deployment's workers hosts the session.
async fn host(store: &dyn Store, room: &Room, deployment: &mut Deployment) -> (usize, WorkerId) {
    let id = stored(store, room).await.pipeline().expect("it is placed").worker_id;
    let named = |worker: &mut support::process::Process| worker.worker() == id.to_string();
    let index = deployment.workers.iter_mut().position(named).expect("it is placed on a living worker");
    (index, id)
}

/// The session is in one place, and everybody in it is there.
fn in_one_place(session: &Session, members: &[Member]) {
    let [pipeline] = session.pipelines.as_slice() else { panic!("one pipeline: {session:?}") };
    assert_eq!(session.participants.len(), members.len(), "{session:?}");
    for participant in &session.participants {
        let endpoint = participant.endpoint.as_ref().expect("everybody has an endpoint");
        assert_eq!((endpoint.pipeline_id, endpoint.worker_id), (pipeline.id, pipeline.worker_id));
        let member = members.iter().find(|member| member.id() == participant.id.to_string());
        assert_eq!(member.expect("no ghost").now.endpoint_id(), endpoint.id.to_string());
    }
}

/// The session's timeline: numbered without gaps, each death told once and with its worker.
async fn timeline_tells(room: &Room, deaths: &[WorkerId]) {
    let expected: Vec<String> = deaths.iter().map(ToString::to_string).collect();
    let entries = eventually("the timeline tells of every death", || async {
        let entries = timeline(room).await;
        let interruptions = entries.iter().filter(|entry| entry["what"] == "session.interrupted").count();
        if interruptions >= deaths.len() { Ok(entries) } else { Err(format!("{entries:?}")) }
    })
    .await;
    let numbers: Vec<u64> = entries.iter().filter_map(|entry| entry["number"].as_u64()).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
    let told: Vec<String> = entries
        .iter()
        .filter(|entry| entry["what"] == "session.interrupted")
        .map(|entry| text(&entry["cause"]["worker_id"]))
        .collect();
    assert_eq!(told, expected, "{entries:#?}");
}

async fn timeline(room: &Room) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let path = format!("/v1/sessions/{}/timeline?limit=500&after={}", room.id, entries.len());
        let page = room.backend.get(&path).await.expect(200);
        entries.extend(page["entries"].as_array().cloned().unwrap_or_default());
        if page["next"].is_null() {
            return entries;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_outlives_its_workers() {
    let rounds = setting("SWITCHYARD_FAULTS_KILLS", 6);
    let mut chance = Chance::from_environment("workers");
    let mut deployment = Deployment::start_with(SHAPE, &["--operator-keys", KEY_ID]).await;
    let store = store(&deployment).await;
    let room = deployment.room().await;
    let mut members = Vec::new();
    for name in ["Ada", "Ben", "Cleo"] {
        members.push(Member::join(&room, name).await);
    }
    let (mut silences, mut deaths) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        all_hear_each_other(&members).await;
        tokio::time::sleep(chance.millis(LIFE_MS.0, LIFE_MS.1)).await;
        members.iter().for_each(|member| member.flow.reset());
        let before = stored(&*store, &room).await;
        let (index, id) = host(&*store, &room, &mut deployment).await;
        deployment.workers.remove(index).kill();
        deaths.push(id);
        // All at once: whoever is first places the session, and all others agree.
        join_all(members.iter_mut().map(|member| member.rejoin(&room))).await;
        all_hear_each_other(&members).await;
        silences.push(longest_silence(&members));

        let after = stored(&*store, &room).await;
        in_one_place(&after, &members);
        assert!(after.epoch > before.epoch);
        assert_ne!(after.pipeline().map(|pipeline| pipeline.worker_id), Some(id));
        has_exactly(&room, &members).await;
        let listed = deployment.backend().get("/v1/workers").await.expect(200);
        let ids = listed["workers"].as_array().expect("a list").iter().map(|worker| text(&worker["id"]));
        assert!(ids.into_iter().all(|listed| listed != id.to_string()), "{listed}");
        tokio::task::block_in_place(|| deployment.start_worker());
        has_listeners(&deployment, &[&room.id]).await;
        members.iter().for_each(Member::is_content);
    }
    timeline_tells(&room, &deaths).await;
    silences.sort_unstable();
    let (median, worst) = (silences[silences.len() / 2], silences[silences.len() - 1]);
    println!(
        "{rounds} workers killed: longest silence of each round: median {median:.1?}, worst {worst:.1?} ({silences:.1?})"
    );
    assert!(worst <= patience(RECOVERY), "{silences:?}");
    still_there(&mut deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_back_gets_its_room_back() {
    let mut deployment = Deployment::start(Shape::Cluster { apis: 1, workers: 0 }).await;
    let named = ["--worker-id", "alpha"];
    let alpha = deployment.start_worker_with(&named);
    let room = deployment.room().await;
    let mut ada = Member::join(&room, "Ada").await;
    deployment.start_worker_with(&["--worker-id", "beta"]);
    deployment.workers.remove(0).kill();
    ada.now.event("session.interrupted", |_| true).await;
    // Ada takes her time: the one that had the room is there again, and preferred to the one that has nothing to do.
    assert_eq!(tokio::task::block_in_place(|| deployment.start_worker_with(&named)), alpha);
    ada.rejoin(&room).await;
    let session = stored(&*store(&deployment).await, &room).await;
    assert_eq!(session.pipeline().map(|pipeline| pipeline.worker_id.to_string()), Some(alpha));
    let mut members = vec![ada, Member::join(&room, "Ben").await];
    all_hear_each_other(&members).await;
    in_one_place(&stored(&*store(&deployment).await, &room).await, &members);

    // Not back in time: the other one takes it.
    deployment.workers.remove(1).kill();
    join_all(members.iter_mut().map(|member| member.rejoin(&room))).await;
    all_hear_each_other(&members).await;
    in_one_place(&stored(&*store(&deployment).await, &room).await, &members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_paused_past_its_lease_has_lost_its_rooms_when_it_goes_on() {
    let arguments = ["--lease", LEASE, "--operator-keys", KEY_ID];
    let mut deployment = Deployment::start_with(SHAPE, &arguments).await;
    let store = store(&deployment).await;
    let room = deployment.room().await;
    let ada = Member::join(&room, "Ada").await;
    let ben = Member::join(&room, "Ben").await;
    let mut members = vec![ada, ben];
    all_hear_each_other(&members).await;
    members.iter().for_each(|member| member.flow.reset());
    let (index, id) = host(&*store, &room, &mut deployment).await;
    deployment.workers[index].pause();
    let paused = Instant::now();
    // Sent while nobody reads, in the name of the old endpoint: it must not take effect later.
    let track = members[0].now.own_track(Kind::Audio);
    let path = format!("{}/tracks/{track}", members[0].now.path());
    let body = json!({"destination": members[0].now.destination(), "muted": true});
    let (http, destination) = (members[0].now.http().clone(), members[0].now.destination().to_owned());
    let late = tokio::spawn({
        let (http, path) = (http.clone(), path.clone());
        async move { http.insist(reqwest::Method::PATCH, &path, &body).await }
    });
    join_all(members.iter_mut().map(|member| member.rejoin(&room))).await;
    all_hear_each_other(&members).await;
    println!("paused worker: longest silence {:.1?}", longest_silence(&members));
    let before = stored(&*store, &room).await;
    in_one_place(&before, &members);
    assert_ne!(before.pipeline().map(|pipeline| pipeline.worker_id), Some(id));

    // Well past its lease it goes on.
    tokio::time::sleep(Duration::from_secs(8).saturating_sub(paused.elapsed())).await;
    deployment.workers[index].resume();
    late.await.expect("it is waited for").expect("a result").expect_problem(410, "endpoint_gone");
    let body = json!({"destination": destination, "muted": true});
    let refused = http.insist(reqwest::Method::PATCH, &path, &body).await.expect("a result");
    refused.expect_problem(410, "endpoint_gone");
    // It is a new, empty worker now.
    eventually("the paused worker is listed again, with nothing on it", || async {
        let listed = deployment.backend().get("/v1/workers").await.expect(200);
        let mut workers = listed["workers"].as_array().cloned().unwrap_or_default().into_iter();
        let row = workers.find(|row| row["id"] == id.to_string().as_str());
        let empty = row.is_some_and(|row| row["alive"] == true && row["load"]["endpoints"] == 0);
        if empty { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
    let after = stored(&*store, &room).await;
    in_one_place(&after, &members);
    assert_eq!((after.epoch, &after.pipelines), (before.epoch, &before.pipelines), "it stored nothing");
    all_hear_each_other(&members).await;
    for member in &members {
        assert!(member.now.events_of("track.muted").is_empty(), "the late command took no effect");
        member.is_content();
    }
    has_listeners(&deployment, &[&room.id]).await;
    still_there(&mut deployment);
}
