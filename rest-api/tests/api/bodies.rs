//! Malformed, unknown, oversized, slow and misplaced input.

use std::time::Duration;

use common::model::{ParticipantId, SessionId};
use reqwest::{Body, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn bodies_that_are_not_what_the_route_takes_get_their_own_error() {
    let (_system, _api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let before = worker.seen().len();
    let routes = [
        (Method::POST, "/v1/sessions".to_owned()),
        (Method::POST, format!("/v1/sessions/{session}/links")),
        (Method::POST, format!("/v1/sessions/{session}/participants")),
        (Method::POST, member.path("/offer")),
        (Method::POST, member.path("/answer")),
        (Method::POST, member.path("/candidates")),
        (Method::PATCH, member.path("/tracks/trk_0192d3c4-7a5b-7c3e-8f21-0a1b2c3d4e5f")),
        (Method::PATCH, member.path("/subscriptions/trk_0192d3c4-7a5b-7c3e-8f21-0a1b2c3d4e5f")),
    ];
    let deep = format!("{}{}", "[".repeat(16_000), "]".repeat(16_000));
    for (method, path) in routes {
        for text in
            ["", "{", "nonsense", "[]", "null", "\"text\"", "{\"surprise\": 1}", "{}}", "\u{0}", &deep]
        {
            let request = backend.request(method.clone(), &path).header("content-type", "application/json");
            let refused = backend.send(method.clone(), &path, request.body(text.to_owned())).await;
            refused.is_problem(400, "invalid_request");
        }
        let request = backend.request(method.clone(), &path).header("content-type", "application/json");
        let invalid_utf8 =
            backend.send(method.clone(), &path, request.body(&b"{\"name\": \"\xff\"}"[..])).await;
        invalid_utf8.is_problem(400, "invalid_request");
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            let request = backend.request(method.clone(), &path).header("content-type", content_type);
            let refused = backend.send(method.clone(), &path, request.body("{}")).await;
            refused.is_problem(415, "unsupported_media_type");
        }
        let refused =
            backend.send(method.clone(), &path, backend.request(method.clone(), &path).body("{}")).await;
        refused.is_problem(415, "unsupported_media_type");
        // With its length announced, and without.
        let large = format!("{{\"name\": \"{}\"}}", "x".repeat(512 * 1024));
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(large.clone())]);
        for body in [Body::from(large), Body::wrap_stream(chunks)] {
            let request = backend.request(method.clone(), &path).header("content-type", "application/json");
            backend.send(method.clone(), &path, request.body(body)).await.is_problem(413, "body_too_large");
        }
    }
    assert_eq!(worker.seen().len(), before, "a refused request reached a worker");
}

#[tokio::test]
async fn fields_out_of_range_are_named() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let long = "n".repeat(257);
    let participants = format!("/v1/sessions/{session}/participants");
    backend.post("/v1/sessions", json!({"name": long})).await.is_problem(422, "limit_exceeded");
    backend.post(&participants, json!({"name": long})).await.is_problem(422, "limit_exceeded");
    backend.post(&participants, json!({"name": "a\u{7}b"})).await.is_problem(400, "invalid_request");
    backend.post("/v1/sessions", json!({"id": "ses_1"})).await.is_problem(400, "invalid_request");
    backend
        .post("/v1/sessions", json!({"id": ParticipantId::new()}))
        .await
        .is_problem(400, "invalid_request");
    backend.post(&participants, json!({"participant_id": "par_*"})).await.is_problem(400, "invalid_request");
    let links = format!("/v1/sessions/{session}/links");
    for ttl in [json!(0), json!(-1), json!(1.5), json!(2_592_001), json!("1")] {
        backend.post(&links, json!({"ttl_seconds": ttl})).await.is_problem(400, "invalid_request");
    }
    let many: Vec<_> = (0..101).map(|_| json!({"candidate": "x"})).collect();
    let candidates = member.path("/candidates");
    backend.post(&candidates, json!({"candidates": many})).await.is_problem(422, "limit_exceeded");
    backend.post(&candidates, json!({"candidates": []})).await.is_problem(400, "invalid_request");
    let long = "c".repeat(1_025);
    backend
        .post(&candidates, json!({"candidates": [{"candidate": long}]}))
        .await
        .is_problem(422, "limit_exceeded");
    backend
        .post(&member.path("/answer"), json!({"sdp": "v=0", "revision": -1}))
        .await
        .is_problem(400, "invalid_request");
    backend
        .post(&member.path("/offer"), json!({"sdp": "v=0", "tracks": [{"mid": "0", "source": "oven"}]}))
        .await
        .is_problem(400, "invalid_request");
}

#[tokio::test]
async fn ids_and_parameters_in_the_address_are_checked() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    for id in ["x", "ses_", "ses_%2e%2e", "par_0192d3c4-7a5b-7c3e-8f21-0a1b2c3d4e5f", "%ff", "ses_*"] {
        backend.get(&format!("/v1/sessions/{id}")).await.is_problem(400, "invalid_request");
    }
    for query in
        ["wait=31", "wait=-1", "wait=x", "limit=0", "limit=501", "cursor=evt_1", "cursor=", "wait=1&wait=2"]
    {
        let refused = backend.get(&member.events(query)).await;
        refused.is_problem(400, "invalid_request");
    }
    for query in ["limit=0", "limit=501", "after=x", "limit=99999999999"] {
        backend.get(&format!("/v1/sessions?{query}")).await.is_problem(400, "invalid_request");
    }
    let stream = backend.header("accept", "text/event-stream").header("last-event-id", "17");
    stream.get(&member.events("")).await.is_problem(400, "invalid_request");
    let keyed = backend.header("idempotency-key", "seventeen");
    keyed.post("/v1/sessions", json!({})).await.is_problem(400, "invalid_request");
    // Not an upgrade request.
    backend.get(&member.path("/events/ws")).await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let (_system, _api, _worker, backend) = System::single().await;
    for path in [
        "/v1",
        "/v1/",
        "/v2/sessions",
        "/v1/sessions/",
        "/nothing",
        "/v1/rooms",
        "//",
        "/v1/sessions/a/b/c/d/e",
    ] {
        backend.get(path).await.is_problem(404, "not_found");
    }
    let session = SessionId::new();
    for (method, path) in [
        (Method::PUT, "/v1/sessions".to_owned()),
        (Method::DELETE, "/v1/sessions".to_owned()),
        (Method::PUT, format!("/v1/sessions/{session}")),
        (Method::GET, format!("/v1/sessions/{session}/links")),
        (Method::POST, "/healthz".to_owned()),
        (Method::GET, "/v1/demo/links".to_owned()),
    ] {
        let refused = backend.send(method.clone(), &path, backend.request(method, &path)).await;
        refused.is_problem(405, "method_not_allowed");
        assert!(refused.headers.contains_key("allow"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let system = System::new();
    let api = system.api_with(|config| config.timings.read_timeout = Duration::from_millis(200)).await;
    let address = api.url.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic a2V5MTp0aGUtc2VjcmV0LW9mLWtleS1vbmU=\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"name\":"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, slow.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_request"), "{answer}");
    // A head that never ends is cut off without an answer being due.
    let mut slower = TcpStream::connect(&address).await.unwrap();
    slower.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, slower.read_to_end(&mut rest)).await.unwrap().unwrap();
}
