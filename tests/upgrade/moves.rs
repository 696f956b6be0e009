//! A room goes from a worker of one version to one of the other, and back: an update, and its undoing.

use std::path::Path;
use std::time::Duration;

use support::deployment::KEY_ID;
use support::mover::{Mover, all_hear_each_other, follow_all, longest_silence};
use support::{Deployment, Room, eventually, patience};

use crate::{no_dead_letters, still_there, versions};

/// The longest silence in anybody's audio over a move. Two cores run other tests beside it.
const GAP: f64 = 0.5;
/// The same when the old worker was killed: until everybody has joined again. Seconds.
const RECOVERY: f64 = 15.0;

async fn members(room: &Room) -> Vec<Mover> {
    let mut members = Vec::new();
    for name in ["Ada", "Ben", "Cleo"] {
        members.push(Mover::join(room, name).await);
    }
    all_hear_each_other(&members).await;
    members.iter().for_each(|member| member.flow.reset());
    members
}

fn start(deployment: &mut Deployment, program: &Path) {
    tokio::task::block_in_place(|| deployment.start_worker_of(program));
}

/// Waits until the first worker has renewed its row, so that the one that has just started has seen it alive: otherwise only
/// its lease could tell that it is dead.
async fn is_known(deployment: &mut Deployment) {
    let (id, backend) = (deployment.workers[0].worker(), deployment.backend());
    let lease = || async {
        let listed = backend.get("/v1/workers").await.expect(200);
        let mut rows = listed["workers"].as_array().expect("a list").iter();
        rows.find(|row| row["id"] == id.as_str()).expect("it is listed")["lease_until"].clone()
    };
    let before = lease().await;
    eventually("its row is renewed", || async {
        let now = lease().await;
        if now == before { Err(format!("it runs until {now}")) } else { Ok(()) }
    })
    .await;
}

/// Starts a worker of this version, ends the one that there was (SIGTERM), and everybody follows.
async fn replace(
    deployment: &mut Deployment,
    program: &Path,
    room: &Room,
    members: &mut [Mover],
) -> Duration {
    members.iter().for_each(|member| member.flow.reset());
    start(deployment, program);
    let old = deployment.workers.remove(0);
    old.terminate();
    follow_all(room, members).await;
    let status = tokio::task::spawn_blocking(move || old.wait()).await.expect("it is waited for");
    assert_eq!(status.code(), Some(0));
    all_hear_each_other(members).await;
    longest_silence(members)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_moves_to_the_new_version_and_back_without_a_gap() {
    let versions = versions();
    let mut deployment = versions.both_apis(&[]).await;
    start(&mut deployment, &versions.old);
    let room = deployment.room().await;
    let mut members = members(&room).await;
    let update = replace(&mut deployment, &versions.new, &room, &mut members).await;
    let undone = replace(&mut deployment, &versions.old, &room, &mut members).await;
    println!(
        "longest silence in anybody's audio: {update:.0?} over the update, {undone:.0?} over its undoing"
    );
    for member in &members {
        assert_eq!(member.now.errors(), Vec::<String>::new());
        assert_eq!(member.interruptions(), 0, "nobody was interrupted");
    }
    assert!(update.max(undone) <= patience(GAP), "{update:?}, {undone:?}");
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(members.len()));
    no_dead_letters(&deployment).await;
    still_there(&mut deployment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_takes_over_from_a_killed_one_of_the_other() {
    let versions = versions();
    let mut deployment = versions.both_apis(&["--operator-keys", KEY_ID]).await;
    start(&mut deployment, &versions.old);
    let room = deployment.room().await;
    let mut members = members(&room).await;
    for program in [&versions.new, &versions.old] {
        members.iter().for_each(|member| member.flow.reset());
        start(&mut deployment, program);
        is_known(&mut deployment).await;
        deployment.workers.remove(0).kill();
        futures::future::join_all(members.iter_mut().map(|member| member.recover(&room))).await;
        all_hear_each_other(&members).await;
        let silence = longest_silence(&members);
        println!("killed: longest silence in anybody's audio {silence:.1?}");
        assert!(silence <= patience(RECOVERY), "{silence:?}");
    }
    assert_eq!(room.session().await["participants"].as_array().map(Vec::len), Some(members.len()));
    no_dead_letters(&deployment).await;
    still_there(&mut deployment);
}
