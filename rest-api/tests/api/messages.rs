//! Messages by request: ids, who gets them, who does not.

use common::model::{CommandId, ParticipantId};
use serde_json::{Value, json};

use crate::support::*;

/// The events `message` that wait for a member, whole.
async fn told(member: &Member) -> Vec<Value> {
    let page = member.client.get(&member.events("")).await;
    let events = page.json["events"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["type"] == "message").collect()
}

#[tokio::test]
async fn a_message_reaches_everyone_else_or_whom_it_names() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let [ada, ben, eve] =
        [join(&backend, session).await, join(&backend, session).await, join(&backend, session).await];
    let path = format!("/v1/sessions/{session}/messages");
    let all = ada.client.post(&path, json!({"topic": "t", "id": "1", "data": [null, 1]})).await;
    assert_eq!((all.status, &all.json), (200, &json!({"id": "1", "missing": []})));
    let nobody = ParticipantId::new();
    let one = ada.client.post(&path, json!({"to": [ben.id, nobody, ben.id, ada.id], "data": "psst"})).await;
    assert_eq!(one.json["missing"], json!([nobody]));
    let app = backend.post(&path, json!({"to": [ada.id], "data": "hello"})).await;
    assert_eq!(app.json["missing"], json!([]));
    let data = |events: Vec<Value>| events.into_iter().map(|event| event["data"].clone()).collect::<Vec<_>>();
    let to_all = json!({"from": ada.id, "topic": "t", "id": "1", "data": [null, 1]});
    let to_ben = json!({"from": ada.id, "id": one.json["id"], "direct": true, "data": "psst"});
    assert_eq!(data(told(&ben).await), [to_all.clone(), to_ben]);
    assert_eq!(data(told(&eve).await), [to_all]);
    let to_ada = json!({"id": app.json["id"], "direct": true, "data": "hello"});
    assert_eq!(data(told(&ada).await), [to_ada], "not what it said itself");
}

#[tokio::test]
async fn the_same_key_says_it_once() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let [ada, ben] = [join(&backend, session).await, join(&backend, session).await];
    let path = format!("/v1/sessions/{session}/messages");
    let key = CommandId::new().to_string();
    let again = ada.client.header("idempotency-key", &key);
    let first = again.post(&path, json!({"data": 1})).await;
    let second = again.post(&path, json!({"data": 1})).await;
    assert_eq!((first.status, &first.json), (second.status, &second.json));
    ada.client.post(&path, json!({"data": 2})).await;
    let events = told(&ben).await;
    let [one, other] = &events[..] else { panic!("{events:?}") };
    assert_ne!(one["id"], other["id"]);
    assert_eq!(one["data"]["id"], one["id"], "named after the event");
    assert!(!one["id"].to_string().contains(&key[4..]), "the key is not told");
}

#[tokio::test]
async fn who_is_not_there_says_nothing() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let ada = join(&backend, session).await;
    let path = format!("/v1/sessions/{session}/messages");
    let body = || json!({"data": 1});
    backend.with(Auth::None).post(&path, body()).await.is_problem(401, "unauthorized");
    backend
        .with(Auth::Basic(OTHER_KEY, OTHER_SECRET))
        .post(&path, body())
        .await
        .is_problem(404, "session_not_found");
    let link = backend.with(Auth::Bearer(token(common::token::VideoGrants::join(session), None)));
    link.post(&path, body()).await.is_problem(403, "forbidden");
    let stranger = token(common::token::VideoGrants::join(session), Some(ParticipantId::new()));
    let stranger = backend.with(Auth::Bearer(stranger));
    stranger.post(&path, body()).await.is_problem(404, "participant_not_found");
    backend.delete(&format!("/v1/sessions/{session}")).await;
    ada.client.post(&path, body()).await.is_problem(410, "session_closed");
}

#[tokio::test]
async fn too_many_are_refused_for_a_while() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let [ada, ben] = [join(&backend, session).await, join(&backend, session).await];
    let path = format!("/v1/sessions/{session}/messages");
    let mut refused = None;
    for _ in 0..100 {
        let sent = ada.client.post(&path, json!({"data": 1})).await;
        if sent.status != 200 {
            refused = Some(sent);
            break;
        }
    }
    let refused = refused.expect("a hundred at once are too many");
    refused.is_problem(429, "too_many_requests");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(ben.client.post(&path, json!({"data": 1})).await.status, 200, "another one may");
    eventually("it may again", async || {
        (ada.client.post(&path, json!({"data": 1})).await.status == 200).then_some(())
    })
    .await;
}
