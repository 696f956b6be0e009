//! Offer, answer, candidates, mute; destinations and their look-ups.

use common::message::{CommandBody, ErrorCode, Wish};
use common::model::{RunId, TrackId, WorkerLoad, WorkerState};
use common::store::Store as _;
use common::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::*;

/// One of each endpoint request, with or without a destination.
async fn requests(member: &Member, destination: Option<&str>) -> Vec<Replied> {
    let with = |mut body: Value| {
        if let Some(destination) = destination {
            body["destination"] = json!(destination);
        }
        body
    };
    let client = &member.client;
    let candidates = json!({"candidates": [{"candidate": "candidate:1 1 UDP 1 192.0.2.1 9 typ host", "sdpMid": "0",
        "sdpMLineIndex": 0, "usernameFragment": "u"}, {"candidate": ""}]});
    vec![
        client.post(&member.path("/offer"), with(json!({"sdp": "mine", "revision": 1}))).await,
        client.post(&member.path("/answer"), with(json!({"sdp": "x", "revision": 1}))).await,
        client.post(&member.path("/candidates"), with(candidates)).await,
        client
            .patch(&member.path(&format!("/tracks/{}", TrackId::new())), with(json!({"muted": true})))
            .await,
    ]
}

#[tokio::test]
async fn with_a_destination_no_store_is_asked() {
    let (system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let before = system.store.calls();
    let replies = requests(&member, Some(&member.destination)).await;
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 204, 204, 200]);
    assert_eq!(system.store.calls(), before);
    // And therefore they work while the database is down.
    system.store.set_down(true);
    let replies = requests(&member, Some(&member.destination)).await;
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 204, 204, 200]);
    for refused in requests(&member, None).await {
        refused.is_problem(503, "unavailable");
        assert_eq!(refused.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn without_a_destination_there_is_one_look_up() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let target = keys().open(&member.destination, KEY).unwrap();
    let before = system.store.calls();
    let replies = requests(&member, None).await;
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 204, 204, 200]);
    assert_eq!(system.store.calls(), before + 4);
    let targets: Vec<_> = worker
        .seen()
        .into_iter()
        .filter_map(|command| match command.body {
            CommandBody::Offer { target, .. }
            | CommandBody::Answer { target, .. }
            | CommandBody::Candidates { target, .. }
            | CommandBody::Mute { target, .. } => Some(target),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [target; 4], "the look-up finds what the destination says");
}

#[tokio::test]
async fn the_offer_reply_is_the_answer() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let track = TrackId::new();
    let body = json!({"sdp": "my offer", "revision": 3, "destination": member.destination,
        "tracks": [{"mid": "0", "source": "screen", "track_id": track, "muted": true}]});
    let answered = member.client.post(&member.path("/offer"), body).await;
    assert_eq!(answered.json, json!({"sdp": "answer to my offer", "revision": 1, "tracks": []}));
    match worker.seen().pop().unwrap().body {
        CommandBody::Offer { offer, .. } => {
            assert_eq!((offer.sdp.as_str(), offer.revision), ("my offer", Some(3)));
            assert_eq!((offer.tracks[0].track_id, offer.tracks[0].muted), (Some(track), true));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subscription_is_changed_by_its_own_participant_only() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (member, neighbour) = (join(&backend, session).await, join(&backend, session).await);
    let track = TrackId::new();
    let path = member.path(&format!("/subscriptions/{track}"));
    let body = json!({"max_encoding": 0, "max_temporal": 1, "destination": member.destination});
    assert_eq!(member.client.patch(&path, body).await.status, 204);
    match worker.seen().pop().unwrap().body {
        CommandBody::Subscription { track_id, wish, .. } => {
            let expected = Wish { max_encoding: Some(0), max_temporal: Some(1), ..Wish::default() };
            assert_eq!((track_id, wish), (track, expected));
        }
        other => panic!("{other:?}"),
    }
    neighbour.client.patch(&path, json!({"paused": true})).await.is_problem(403, "forbidden");
    member.client.patch(&path, json!({"max_encoding": -1})).await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn figures_are_for_the_participant_and_the_backend_and_come_from_its_worker() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (member, neighbour) = (join(&backend, session).await, join(&backend, session).await);
    let target = keys().open(&member.destination, KEY).unwrap();
    let with_destination = format!("{}?destination={}", member.path("/stats"), member.destination);
    let before = system.store.calls();
    let read = member.client.get(&with_destination).await;
    assert_eq!((read.status, &read.headers["cache-control"]), (200, &"no-store".parse().unwrap()));
    assert_eq!(read.json["endpoint_id"], json!(target.endpoint_id));
    assert_eq!((&read.json["state"], &read.json["quality"]), (&json!("connected"), &json!("good")));
    let transport = json!({"path": null, "round_trip_time_ms": null, "available_outgoing_bitrate_bps": 7});
    assert_eq!(read.json["transport"], transport);
    assert_eq!(system.store.calls(), before, "no store is asked");
    assert_eq!(member.client.get(&member.path("/stats")).await.status, 200);
    assert_eq!(backend.get(&member.path("/stats")).await.status, 200);
    assert!(
        matches!(worker.seen().pop().unwrap().body, CommandBody::Stats { target: asked } if asked == target)
    );

    neighbour.client.get(&member.path("/stats")).await.is_problem(403, "forbidden");
    member
        .client
        .get(&format!("{}?destination=x", member.path("/stats")))
        .await
        .is_problem(400, "invalid_request");
    let other = format!("{}?destination={}", member.path("/stats"), neighbour.destination);
    member.client.get(&other).await.is_problem(403, "forbidden");
    for (refusal, status, code) in
        [(ErrorCode::EndpointGone, 410, "endpoint_gone"), (ErrorCode::Unavailable, 503, "unavailable")]
    {
        worker.refuse(refusal);
        member.client.get(&with_destination).await.is_problem(status, code);
    }
    // A worker that does not answer: the figures would be of another time.
    worker.script(Action::Ignore);
    member.client.header("prefer", "wait=0").get(&with_destination).await.is_problem(503, "unavailable");
    worker.die().await;
    member.client.get(&with_destination).await.is_problem(410, "endpoint_gone");
}

#[tokio::test]
async fn destinations_that_are_forged_or_somebody_elses_are_refused() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (member, neighbour) = (join(&backend, session).await, join(&backend, session).await);
    let elsewhere = join(&backend, create_session(&backend).await).await;
    let before = worker.seen().len();
    let mut changed = member.destination.clone();
    let flipped = if changed.starts_with("AX") { "AY" } else { "AX" };
    changed.replace_range(..2, flipped);
    for forged in ["", "x", "!!!", &changed, &"A".repeat(162), &"A".repeat(30_000), &member.token] {
        for refused in requests(&member, Some(forged)).await {
            refused.is_problem(400, "invalid_request");
        }
    }
    for other in [&neighbour, &elsewhere] {
        for refused in requests(&member, Some(&other.destination)).await {
            refused.is_problem(403, "forbidden");
        }
    }
    assert_eq!(worker.seen().len(), before, "a refused request reached a worker");
}

#[tokio::test]
async fn a_dead_workers_endpoint_is_gone() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    worker.die().await;
    for destination in [Some(member.destination.as_str()), None] {
        for gone in requests(&member, destination).await {
            gone.is_problem(410, "endpoint_gone");
        }
    }
}

/// After an outage of the broker, workers and API instances find their way back one by one.
#[tokio::test]
async fn an_endpoint_is_not_gone_while_its_worker_may_come_back() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let row = common::model::Worker {
        id: worker.id,
        run: RunId::new(),
        address: String::new(),
        lease_until: UnixMillis::now(),
        state: WorkerState::Ready,
        load: WorkerLoad::default(),
        broker_away_since: None,
    };
    system.store.put_worker(&row).await.unwrap();
    let id = worker.id;
    worker.die().await;
    for later in requests(&member, Some(&member.destination)).await {
        assert!(later.headers.contains_key("retry-after"), "{later:?}");
        later.is_problem(503, "unavailable");
    }
    system.store.remove_worker(id, row.run).await.unwrap();
    for gone in requests(&member, Some(&member.destination)).await {
        gone.is_problem(410, "endpoint_gone");
    }
}

#[tokio::test]
async fn refusals_of_the_worker_are_passed_on() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let cases = [
        ("/offer", ErrorCode::InvalidSdp, 400, "invalid_sdp"),
        ("/offer", ErrorCode::OfferCollision, 409, "offer_collision"),
        ("/offer", ErrorCode::LimitExceeded, 422, "limit_exceeded"),
        ("/offer", ErrorCode::Forbidden, 403, "forbidden"),
        ("/offer", ErrorCode::EndpointGone, 410, "endpoint_gone"),
        ("/offer", ErrorCode::SessionClosed, 410, "session_closed"),
        ("/offer", ErrorCode::Expired, 504, "expired"),
        ("/offer", ErrorCode::Unavailable, 503, "unavailable"),
        ("/offer", ErrorCode::UnsupportedVersion, 503, "unavailable"),
        ("/offer", ErrorCode::Internal, 500, "internal"),
        ("/answer", ErrorCode::NoOfferPending, 409, "no_offer_pending"),
        ("/answer", ErrorCode::InvalidSdp, 400, "invalid_sdp"),
        ("/candidates", ErrorCode::InvalidCandidate, 400, "invalid_candidate"),
        ("/candidates", ErrorCode::EndpointGone, 410, "endpoint_gone"),
        ("/tracks", ErrorCode::TrackNotFound, 404, "track_not_found"),
        ("/subscriptions", ErrorCode::TrackNotFound, 404, "track_not_found"),
    ];
    for (path, refusal, status, code) in cases {
        worker.refuse(refusal);
        let refused = match path {
            "/offer" => member.client.post(&member.path(path), json!({"sdp": "x"})).await,
            "/answer" => member.client.post(&member.path(path), json!({"sdp": "x", "revision": 1})).await,
            "/candidates" => {
                member.client.post(&member.path(path), json!({"candidates": [{"candidate": "x"}]})).await
            }
            "/subscriptions" => {
                let track = member.path(&format!("/subscriptions/{}", TrackId::new()));
                member.client.patch(&track, json!({"paused": true})).await
            }
            _ => {
                let track = member.path(&format!("/tracks/{}", TrackId::new()));
                member.client.patch(&track, json!({"muted": true})).await
            }
        };
        refused.is_problem(status, code);
        let told = refused.json["detail"].as_str().unwrap().contains("refused by the test");
        assert_eq!(told, code != "internal", "{refused:?}");
    }
    let join = format!("/v1/sessions/{session}/participants");
    for (refusal, status, code) in [
        (ErrorCode::InvalidSdp, 400, "invalid_sdp"),
        (ErrorCode::LimitExceeded, 422, "limit_exceeded"),
        (ErrorCode::ParticipantConflict, 409, "participant_conflict"),
        (ErrorCode::SessionClosed, 410, "session_closed"),
        (ErrorCode::Unavailable, 503, "unavailable"),
    ] {
        worker.refuse(refusal);
        backend.post(&join, json!({})).await.is_problem(status, code);
    }
}
