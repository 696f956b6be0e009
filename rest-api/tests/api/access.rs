//! Who may do what.

use std::time::Duration;

use common::model::{ParticipantId, SessionId, TrackId, WorkerId};
use common::token::VideoGrants;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Every route with credentials: method, path, and a body that is well-formed.
fn guarded(session: SessionId, participant: ParticipantId) -> Vec<(Method, String, Value)> {
    let own = |rest: &str| format!("/v1/sessions/{session}/participants/{participant}{rest}");
    vec![
        (Method::POST, "/v1/sessions".to_owned(), json!({})),
        (Method::GET, "/v1/webhooks/dead-letters".to_owned(), Value::Null),
        (Method::POST, "/v1/webhooks/dead-letters/redeliver".to_owned(), json!({})),
        (Method::GET, "/v1/sessions".to_owned(), Value::Null),
        (Method::GET, format!("/v1/sessions/{session}"), Value::Null),
        (Method::DELETE, format!("/v1/sessions/{session}"), Value::Null),
        (Method::POST, format!("/v1/sessions/{session}/links"), json!({})),
        (Method::POST, format!("/v1/sessions/{session}/participants"), json!({})),
        (Method::GET, format!("/v1/sessions/{session}/participants"), Value::Null),
        (Method::GET, own(""), Value::Null),
        (Method::DELETE, own(""), Value::Null),
        (Method::POST, own("/offer"), json!({"sdp": "v=0"})),
        (Method::POST, own("/answer"), json!({"sdp": "v=0", "revision": 1})),
        (Method::POST, own("/candidates"), json!({"candidates": [{"candidate": ""}]})),
        (Method::PATCH, own(&format!("/tracks/{}", TrackId::new())), json!({"muted": true})),
        (Method::PATCH, own(&format!("/subscriptions/{}", TrackId::new())), json!({"paused": true})),
        (Method::GET, format!("/v1/sessions/{session}/timeline"), Value::Null),
        (Method::GET, "/v1/workers".to_owned(), Value::Null),
        (Method::POST, format!("/v1/workers/{}/drain", WorkerId::new()), Value::Null),
        (Method::GET, own("/events"), Value::Null),
        (Method::GET, own("/events/ws"), Value::Null),
    ]
}

async fn ask(client: &Client, (method, path, body): &(Method, String, Value)) -> Replied {
    let mut request = client.request(method.clone(), path);
    if !body.is_null() {
        request = request.json(body);
    }
    if path.ends_with("/ws") {
        request = request
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    client.send(method.clone(), path, request).await
}

#[tokio::test]
async fn nothing_answers_without_good_credentials() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let before = worker.seen().len();
    let expired = token_of(KEY, Duration::ZERO, VideoGrants::join(session), Some(member.id));
    tokio::time::sleep(Duration::ZERO).await;
    let mut forged = member.token.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", member.token.split('.').nth(1).unwrap());
    for route in guarded(session, member.id) {
        for auth in [
            Auth::None,
            Auth::Basic(KEY, "not-the-secret-of-key-one"),
            Auth::Basic("key3", SECRET),
            Auth::Basic(KEY, OTHER_SECRET),
            Auth::Bearer("garbage".to_owned()),
            Auth::Bearer(forged.clone()),
            Auth::Bearer(unsigned.clone()),
        ] {
            let refused = ask(&backend.with(auth), &route).await;
            refused.is_problem(401, "unauthorized");
            assert!(refused.headers.contains_key("www-authenticate"));
        }
    }
    // Within the leeway an expired token still counts; beyond it, it does not.
    assert_eq!(backend.with(Auth::Bearer(expired)).get(&member.path("")).await.status, 200);
    let long_expired = long_expired(session, member.id);
    for route in guarded(session, member.id) {
        ask(&backend.with(Auth::Bearer(long_expired.clone())), &route).await.is_problem(401, "unauthorized");
    }
    assert_eq!(worker.seen().len(), before, "a refused request reached a worker");
}

fn long_expired(session: SessionId, participant: ParticipantId) -> String {
    let mut claims = common::token::Claims::expiring_in(KEY, Duration::ZERO, VideoGrants::join(session));
    claims.exp -= 60;
    claims.sub = Some(participant);
    keys().mint(&claims).unwrap()
}

#[tokio::test]
async fn malformed_authorization_headers_are_refused() {
    let (_system, _api, _worker, backend) = System::single().await;
    let anonymous = backend.with(Auth::None);
    for header in
        ["", "Basic", "Basic !!!", "Basic a2V5MQ==", "Bearer", "Digest x", "Bearer a b c", "key1:secret"]
    {
        let request = anonymous.request(Method::GET, "/v1/sessions").header("authorization", header);
        anonymous.send(Method::GET, "/v1/sessions", request).await.is_problem(401, "unauthorized");
    }
    let request = anonymous.request(Method::GET, "/v1/sessions").header("authorization", &b"Basic \xff"[..]);
    anonymous.send(Method::GET, "/v1/sessions", request).await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_token_is_good_for_its_own_session_and_participant_only() {
    let (_system, _api, worker, backend) = System::single().await;
    let (session, other_session) = (create_session(&backend).await, create_session(&backend).await);
    let member = join(&backend, session).await;
    let neighbour = join(&backend, session).await;
    let before = worker.seen().len();
    // Somebody else in the same session, and somebody in another one.
    let stranger = join(&backend, other_session).await;
    for route in guarded(session, member.id) {
        let below_participant = route.1.contains("/participants/");
        if below_participant {
            ask(&neighbour.client, &route).await.is_problem(403, "forbidden");
        }
        ask(&stranger.client, &route).await.is_problem(403, "forbidden");
    }
    assert_eq!(worker.seen().len(), before + 1, "only the stranger's own join reached the worker");
}

#[tokio::test]
async fn a_token_without_the_grant_is_forbidden() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let nothing = VideoGrants { room: Some(session), ..VideoGrants::default() };
    let client = backend.with(Auth::Bearer(token(nothing, Some(member.id))));
    for route in guarded(session, member.id) {
        ask(&client, &route).await.is_problem(403, "forbidden");
    }
    // A participant is no moderator and no backend.
    member.client.delete(&format!("/v1/sessions/{session}")).await.is_problem(403, "forbidden");
    member
        .client
        .post(&format!("/v1/sessions/{session}/links"), json!({}))
        .await
        .is_problem(403, "forbidden");
    member.client.get("/v1/sessions").await.is_problem(403, "forbidden");
    member.client.post("/v1/sessions", json!({})).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn another_api_key_sees_nothing_of_a_session() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let before = worker.seen().len();
    let other = backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET));
    // The other key's backend may sign any token; the session is still not its own.
    let grants = VideoGrants { room_admin: true, ..VideoGrants::join(session) };
    let forged = token_of(OTHER_KEY, Duration::from_secs(60), grants, Some(member.id));
    let forger = backend.with(Auth::Bearer(forged));
    for route in guarded(session, member.id) {
        // Of no session: only for operators.
        let of_operators = ["/v1/workers", "/v1/webhooks", "/v1/admin"];
        if route.1 == "/v1/sessions" || of_operators.iter().any(|path| route.1.starts_with(path)) {
            continue;
        }
        ask(&other, &route).await.is_problem(404, "session_not_found");
        ask(&forger, &route).await.is_problem(403, "forbidden");
    }
    assert_eq!(other.get("/v1/sessions").await.json["sessions"], json!([]));
    // Not even with a destination that leaked.
    let body = json!({"sdp": "v=0", "destination": member.destination});
    other.post(&member.path("/offer"), body.clone()).await.is_problem(400, "invalid_request");
    forger.post(&member.path("/offer"), body).await.is_problem(400, "invalid_request");
    assert_eq!(worker.seen().len(), before, "a refused request reached a worker");
}

#[tokio::test]
async fn a_moderator_mutes_and_removes_others_and_closes_the_session() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let grants = VideoGrants { room_admin: true, ..VideoGrants::join(session) };
    let moderator = backend.with(Auth::Bearer(token(grants, Some(ParticipantId::new()))));
    let track = TrackId::new();
    let muted = moderator.patch(&member.path(&format!("/tracks/{track}")), json!({"muted": true})).await;
    assert_eq!((muted.status, &muted.json["muted"]), (200, &json!(true)));
    let by_admin = |worker: &Worker| match worker.seen().pop().unwrap().body {
        common::message::CommandBody::Mute { by_admin, .. } => by_admin,
        other => panic!("{other:?}"),
    };
    assert!(by_admin(&worker));
    // A moderator does not negotiate for others, nor read their events.
    moderator.post(&member.path("/offer"), json!({"sdp": "v=0"})).await.is_problem(403, "forbidden");
    moderator.get(&member.events("")).await.is_problem(403, "forbidden");
    assert_eq!(moderator.get(&member.path("")).await.status, 200);
    assert_eq!(moderator.delete(&member.path("")).await.status, 204);
    match worker.seen().pop().unwrap().body {
        common::message::CommandBody::Leave { reason, .. } => {
            assert_eq!(reason, common::message::LeaveReason::Removed);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(moderator.delete(&format!("/v1/sessions/{session}")).await.status, 204);
    let own = join_own_mute(&backend, &worker).await;
    assert!(!own, "muting one's own track is not moderation");
}

async fn join_own_mute(backend: &Client, worker: &Worker) -> bool {
    let session = create_session(backend).await;
    let member = join(backend, session).await;
    let path = member.path(&format!("/tracks/{}", TrackId::new()));
    let body = json!({"muted": false, "destination": member.destination});
    assert_eq!(member.client.patch(&path, body).await.status, 200);
    match worker.seen().pop().unwrap().body {
        common::message::CommandBody::Mute { by_admin, .. } => by_admin,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_backend_may_do_everything_in_its_sessions() {
    let (system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    assert_eq!(backend.get(&member.path("")).await.status, 200);
    assert_eq!(backend.post(&member.path("/offer"), json!({"sdp": "v=0"})).await.status, 200);
    assert_eq!(backend.post(&member.path("/answer"), json!({"sdp": "v=0", "revision": 1})).await.status, 204);
    system.send_number(&member, 1).await;
    let page = backend.get(&member.events("wait=20")).await;
    assert_eq!(page.json["events"][0]["data"]["epoch"], 1);
    assert_eq!(backend.delete(&member.path("")).await.status, 204);
}

#[tokio::test]
async fn the_signature_of_a_webhook_opens_nothing() {
    let (_system, _api, _worker, backend) = System::single().await;
    let created = backend.post("/v1/sessions", json!({})).await;
    let id: SessionId = created.json["session"]["id"].as_str().unwrap().parse().unwrap();
    let signature = common::webhook::sign(&keys(), KEY, b"{}").unwrap();
    let receiver = backend.with(Auth::Bearer(signature));
    for path in
        ["/v1/sessions".to_owned(), format!("/v1/sessions/{id}"), "/v1/webhooks/dead-letters".to_owned()]
    {
        receiver.get(&path).await.is_problem(403, "forbidden");
    }
    receiver.post("/v1/sessions", json!({})).await.is_problem(403, "forbidden");
    receiver.post(&format!("/v1/sessions/{id}/participants"), json!({})).await.is_problem(403, "forbidden");
}
