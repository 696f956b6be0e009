//! Ratings: who may give and read them, what is refused, and which worker is asked.

use common::message::{CommandBody, ErrorCode, RateCall};
use common::model::{ParticipantId, SessionId};
use common::store::Store as _;
use common::time::UnixMillis;
use serde_json::{Value, json};

use crate::support::*;

/// What the worker was last asked to keep.
fn last_rated(worker: &Worker) -> RateCall {
    match worker.seen().pop().unwrap().body {
        CommandBody::Rate(rated) => rated,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rating_goes_to_the_worker_that_had_the_connection_or_to_any() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let target = keys().open(&member.destination, KEY).unwrap();
    let body = json!({"stars": 3, "comment": "so so", "destination": member.destination});
    assert_eq!(member.client.post(&member.path("/rating"), body.clone()).await.status, 204);
    let rated = last_rated(&worker);
    assert_eq!((rated.endpoint_id, rated.key_id.as_str(), rated.stars), (Some(target.endpoint_id), KEY, 3));
    // Of who is still there it is known without.
    assert_eq!(member.client.post(&member.path("/rating"), json!({"stars": 4})).await.status, 204);
    assert_eq!(last_rated(&worker).endpoint_id, Some(target.endpoint_id));
    assert_eq!(member.client.delete(&member.path("")).await.status, 204);
    assert_eq!(
        member.client.post(&member.path("/rating"), json!({"stars": 4, "comment": "  "})).await.status,
        204
    );
    let rated = last_rated(&worker);
    assert_eq!((rated.endpoint_id, rated.comment), (None, None));
    // The worker that had it does not answer for it any more: another one keeps what was said.
    worker.refuse(ErrorCode::Unavailable);
    let before = worker.seen().len();
    assert_eq!(member.client.post(&member.path("/rating"), body).await.status, 204);
    assert_eq!(worker.seen().len(), before + 2);

    let read = backend.get(&format!("/v1/sessions/{session}/ratings")).await;
    assert_eq!(read.json["ratings"].as_array().unwrap().len(), 1);
    assert_eq!((&read.json["ratings"][0]["stars"], &read.json["next"]), (&json!(3), &Value::Null));
}

#[tokio::test]
async fn only_oneself_rates_and_only_the_owner_reads() {
    let (system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let (member, neighbour) = (join(&backend, session).await, join(&backend, session).await);
    let before = worker.seen().len();
    let rating = member.path("/rating");
    neighbour.client.post(&rating, json!({"stars": 5})).await.is_problem(403, "forbidden");
    for wrong in [
        json!({}),
        json!({"stars": 0}),
        json!({"stars": 6}),
        json!({"stars": -1}),
        json!({"stars": 1.5}),
        json!({"stars": 300}),
        json!({"stars": null}),
        json!({"stars": 5, "why": "?"}),
        json!({"stars": 5, "comment": 7}),
        json!({"stars": 5, "destination": "x"}),
    ] {
        member.client.post(&rating, wrong).await.is_problem(400, "invalid_request");
    }
    let long = json!({"stars": 5, "comment": "x".repeat(1_001)});
    member.client.post(&rating, long).await.is_problem(422, "limit_exceeded");
    let other = json!({"stars": 5, "destination": neighbour.destination});
    member.client.post(&rating, other).await.is_problem(403, "forbidden");
    assert_eq!(worker.seen().len(), before, "a refused request reached a worker");
    assert_eq!(
        member.client.post(&rating, json!({"stars": 5, "comment": "ü".repeat(1_000)})).await.status,
        204
    );
    // The application may pass on what it was told elsewhere.
    let of_neighbour = neighbour.path("/rating");
    assert_eq!(backend.post(&of_neighbour, json!({"stars": 1})).await.status, 204);

    let path = format!("/v1/sessions/{session}/ratings");
    member.client.get(&path).await.is_problem(403, "forbidden");
    let first = backend.get(&format!("{path}?limit=1")).await.json;
    let second = backend.get(&format!("{path}?limit=1&after={}", first["next"].as_str().unwrap())).await.json;
    let mut stars = [&first, &second].map(|page| page["ratings"][0]["stars"].as_i64().unwrap());
    stars.sort_unstable();
    assert_eq!((stars, &second["next"]), ([1, 5], &Value::Null));
    backend.get(&format!("{path}?limit=0")).await.is_problem(400, "invalid_request");

    // They outlive the session's record, which the routes of the session do not.
    system.store.close_session(session, UnixMillis(1)).await.unwrap();
    assert_eq!(member.client.post(&rating, json!({"stars": 2})).await.status, 204);
    system.store.delete_closed_sessions(UnixMillis(2)).await.unwrap();
    assert_eq!(backend.get(&path).await.json["ratings"].as_array().unwrap().len(), 2);
    member.client.post(&rating, json!({"stars": 2})).await.is_problem(404, "session_not_found");
    let unknown = format!("/v1/sessions/{}/ratings?after={}", SessionId::new(), ParticipantId::new());
    assert_eq!(backend.get(&unknown).await.json["ratings"], json!([]));
    let unknown = format!("/v1/sessions/{}/ratings", SessionId::new());
    backend.get(&unknown).await.is_problem(404, "session_not_found");
}
