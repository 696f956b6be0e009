//! What only several processes can show.

use serde_json::Value;
use support::deployment::text;
use support::media::Kind;
use support::{Deployment, JoinOptions, PollingClient, Shape, eventually};

const SHAPE: Shape = Shape::Cluster { apis: 2, workers: 2 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_of_one_api_meets_one_of_the_other() {
    let deployment = Deployment::start(SHAPE).await;
    let room = deployment.room().await;
    let mut clients = Vec::new();
    for (name, url) in ["first", "second"].into_iter().zip(deployment.urls()) {
        let http = support::Http::new(std::slice::from_ref(url));
        let joined = PollingClient::join(&http, &room.id, &room.token, JoinOptions::publishing(name)).await;
        clients.push(joined.unwrap());
    }
    clients[0].hears(&clients[1], &[Kind::Audio, Kind::Video]).await;
    clients[1].hears(&clients[0], &[Kind::Audio, Kind::Video]).await;
}

/// Whichever worker hosts a session: commands that the other one takes are handed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_has_one_home_whichever_worker_takes_the_command() {
    let deployment = Deployment::start(SHAPE).await;
    for _ in 0..6 {
        let room = deployment.room().await;
        let first = room.join("first").await;
        let second = room.join("second").await;
        first.hears(&second, &[Kind::Audio]).await;
        second.hears(&first, &[Kind::Audio]).await;
        first.leave().await.expect(204);
        second.leave().await.expect(204);
    }
}

/// A worker whose clients do not follow it says good-bye when its drain is over: its sessions go on at the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_worker_ends_its_sessions_can_be_joined_again_at_the_other() {
    let mut deployment = Deployment::start_with(SHAPE, &["--drain-timeout", "1"]).await;
    let room = deployment.room().await;
    let first = room.join("first").await;
    let second = room.join("second").await;
    first.hears(&second, &[Kind::Audio]).await;

    // Whichever it was: afterwards the other one is left.
    let worker = deployment.workers.remove(0);
    let hosted = worker.log().contains(first.endpoint_id());
    assert!(worker.stop().success());
    if hosted {
        first.event("session.interrupted", |_| true).await;
        let again = JoinOptions {
            participant_id: Some(first.participant_id().to_owned()),
            ..JoinOptions::publishing("first")
        };
        let first = PollingClient::join(&room.http, &room.id, &first.token, again).await.unwrap();
        let again = JoinOptions {
            participant_id: Some(second.participant_id().to_owned()),
            ..JoinOptions::publishing("second")
        };
        let second = PollingClient::join(&room.http, &room.id, &second.token, again).await.unwrap();
        first.hears(&second, &[Kind::Audio, Kind::Video]).await;
        second.hears(&first, &[Kind::Audio, Kind::Video]).await;
    } else {
        first.hears(&second, &[Kind::Audio, Kind::Video]).await;
        second.hears(&first, &[Kind::Audio, Kind::Video]).await;
    }
}

/// Any API instance answers for sessions that the other one created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_api_creates_the_other_shows() {
    let deployment = Deployment::start(SHAPE).await;
    let room = deployment.room().await;
    for url in deployment.urls() {
        let backend = support::Http::new(std::slice::from_ref(url))
            .with_key(support::deployment::KEY_ID, support::deployment::KEY_SECRET);
        let session = backend.get(&format!("/v1/sessions/{}", room.id)).await.expect(200);
        assert_eq!(session["id"], room.id.as_str());
        let ready: Value = backend.get("/readyz").await.expect(200);
        assert_eq!((text(&ready["broker"]), text(&ready["store"])), ("ok".to_owned(), "ok".to_owned()));
    }
    eventually("a closed session is closed at both", || async {
        room.backend.delete(&format!("/v1/sessions/{}", room.id)).await.expect(204);
        let states: Vec<Value> =
            vec![room.session().await["state"].clone(), room.session().await["state"].clone()];
        if states.iter().all(|state| state == "closed") { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
}
