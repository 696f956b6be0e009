//! Deadlines, 202 and `command.completed`, idempotency, outages.

use std::time::Duration;

use common::broker::topology;
use common::model::{CommandId, SessionId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::*;

#[tokio::test]
async fn a_result_that_takes_longer_arrives_as_an_event() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let go = CancellationToken::new();
    worker.script(Action::Wait(go.clone()));
    let command = CommandId::new();
    let hurried = member.client.header("prefer", "wait=0").header("idempotency-key", &command.to_string());
    let later = hurried.post(&member.path("/offer"), json!({"sdp": "slow"})).await;
    assert_eq!(later.status, 202, "{later:?}");
    assert_eq!(later.json, json!({"command_id": command}));
    assert_eq!(later.headers["command-id"], command.to_string());
    go.cancel();
    let page = member.client.get(&member.events("wait=20")).await;
    let event = &page.json["events"][0];
    assert_eq!(event["type"], "command.completed");
    assert_eq!(event["session_id"], session.to_string());
    let result = json!({"sdp": "answer to slow", "revision": 1, "tracks": []});
    assert_eq!(event["data"], json!({"command_id": command, "status": 200, "result": result}));
}

#[tokio::test]
async fn a_refusal_that_takes_longer_arrives_as_a_problem() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    worker.script(Action::Ignore);
    let system_deadline = member.client.header("prefer", "wait=0");
    assert_eq!(system_deadline.delete(&member.path("/")).await.status, 404);
    let later = system_deadline.post(&member.path("/answer"), json!({"sdp": "x", "revision": 9})).await;
    assert_eq!(later.status, 202);
    // The same command again is answered; whoever still waited for the first gets the same result.
    let command = later.json["command_id"].as_str().unwrap();
    let again = member.client.header("idempotency-key", command);
    worker.refuse(common::message::ErrorCode::NoOfferPending);
    again
        .post(&member.path("/answer"), json!({"sdp": "x", "revision": 9}))
        .await
        .is_problem(409, "no_offer_pending");
    let page = member.client.get(&member.events("wait=20")).await;
    let data = &page.json["events"][0]["data"];
    assert_eq!((&data["status"], &data["result"]["code"]), (&json!(409), &json!("no_offer_pending")));
}

#[tokio::test]
async fn a_slow_join_arrives_in_the_new_participants_own_events() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let go = CancellationToken::new();
    worker.script(Action::Wait(go.clone()));
    let id = common::model::ParticipantId::new();
    let hurried = backend.header("prefer", "respond-async, wait=0");
    let path = format!("/v1/sessions/{session}/participants");
    assert_eq!(hurried.post(&path, json!({"participant_id": id})).await.status, 202);
    go.cancel();
    let page = backend.get(&format!("{path}/{id}/events?wait=20")).await;
    let data = &page.json["events"][0]["data"];
    assert_eq!(data["status"], 201);
    let result = &data["result"];
    assert_eq!(result["participant"]["id"], id.to_string());
    let client = backend.with(Auth::Bearer(result["token"].as_str().unwrap().to_owned()));
    assert_eq!(client.get(&format!("{path}/{id}")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cut_a_join_in_half() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let go = CancellationToken::new();
    worker.script(Action::Wait(go.clone()));
    let id = common::model::ParticipantId::new();
    let path = format!("/v1/sessions/{session}/participants");
    let request = backend
        .request(reqwest::Method::POST, &path)
        .json(&json!({"participant_id": id}))
        .timeout(Duration::from_millis(200));
    assert!(request.send().await.unwrap_err().is_timeout());
    go.cancel();
    // Whether its result went to the closed connection or into its events depends on when the server noticed.
    eventually("the participant to be in the session", async || {
        let page = backend.get(&format!("{path}/{id}")).await;
        (page.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_command_that_nobody_takes_expires() {
    let system = System::new();
    let worker = system.worker().await;
    let api = system
        .api_with(|config| {
            config.timings.command_deadline = Duration::from_millis(100);
            config.request_wait = Duration::from_secs(30);
        })
        .await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    worker.script(Action::Ignore);
    // The reply may travel five seconds longer than the deadline.
    backend.post("/v1/sessions", json!({})).await.is_problem(504, "expired");
}

#[tokio::test]
async fn a_command_that_a_hanging_worker_has_taken_is_sent_again_with_the_same_id() {
    let (_system, _api, worker, backend) = System::single().await;
    worker.script(Action::Ignore);
    let created = backend.post("/v1/sessions", json!({})).await;
    assert_eq!(created.status, 201, "by whoever took the copy");
    let seen = worker.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
    // What is for one worker only helps nobody else.
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let before = worker.seen().len();
    worker.script(Action::Ignore);
    let patient = member.client.header("prefer", "wait=3");
    assert_eq!(patient.post(&member.path("/answer"), json!({"sdp": "x", "revision": 9})).await.status, 202);
    assert_eq!(worker.seen().len(), before + 1);
}

#[tokio::test]
async fn commands_carry_deadline_trace_and_reply_queue() {
    let (_system, _api, worker, backend) = System::single().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    backend.header("traceparent", trace).post("/v1/sessions", json!({})).await;
    let command = worker.seen().pop().unwrap();
    assert_eq!(command.traceparent, trace);
    assert!(command.reply_to.starts_with("replies.api_"));
    let left = common::time::UnixMillis::now().until(command.deadline);
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
    assert_eq!(command.version, common::message::VERSION);
}

#[tokio::test]
async fn without_any_worker_creating_is_unavailable() {
    let system = System::new();
    let api = system.api().await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let refused = backend.post("/v1/sessions", json!({})).await;
    refused.is_problem(503, "unavailable");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_session_whose_queue_is_gone_answers_what_the_store_says() {
    let (system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    system.broker.delete_queue(&topology::session_queue_name(session)).await.unwrap();
    let path = format!("/v1/sessions/{session}");
    backend.post(&format!("{path}/participants"), json!({})).await.is_problem(503, "unavailable");
    backend.delete(&path).await.is_problem(503, "unavailable");
    system.broker.delete_exchange(&topology::session_exchange_name(session)).await.unwrap();
    backend.post(&format!("{path}/participants"), json!({})).await.is_problem(503, "unavailable");
}

#[tokio::test]
async fn when_the_store_is_down_requests_that_need_it_are_unavailable() {
    let (system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    system.store.set_down(true);
    let path = format!("/v1/sessions/{session}");
    backend.get("/v1/sessions").await.is_problem(503, "unavailable");
    backend.get(&path).await.is_problem(503, "unavailable");
    backend.delete(&path).await.is_problem(503, "unavailable");
    backend.post(&format!("{path}/links"), json!({})).await.is_problem(503, "unavailable");
    backend.post(&format!("{path}/participants"), json!({})).await.is_problem(503, "unavailable");
    backend.get(&format!("/v1/sessions/{}", SessionId::new())).await.is_problem(503, "unavailable");
    // Events go on: whose session it is was known before.
    system.send_number(&member, 7).await;
    let page = member.client.get(&member.events("wait=20")).await;
    assert_eq!(page.json["events"][0]["data"]["epoch"], 7);
    system.store.set_down(false);
    assert_eq!(backend.get(&path).await.status, 200);
}

#[tokio::test]
async fn when_the_broker_is_closed_requests_are_unavailable_and_readiness_says_so() {
    let (system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    system.broker.close().await;
    backend.post("/v1/sessions", json!({})).await.is_problem(503, "unavailable");
    backend
        .post(&format!("/v1/sessions/{session}/participants"), json!({}))
        .await
        .is_problem(503, "unavailable");
    let ready = backend.get("/readyz").await;
    assert_eq!((ready.status, &ready.json), (503, &json!({"ready": false, "broker": "down", "store": "ok"})));
    assert_eq!(backend.get("/healthz").await.status, 200);
    assert_eq!(backend.get(&format!("/v1/sessions/{session}")).await.status, 200);
}
