//! What is too much: requests of an address, with a token, with a key; bodies; connections.

use std::time::Duration;

use common::token::VideoGrants;
use rest_api::limits::RequestRates;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::streams::open;
use crate::support::*;

/// Rates that nobody reaches.
const AMPLE: RequestRates = RequestRates { per_address: 1_000_000, per_token: 1_000_000, per_key: 1_000_000 };

async fn limited(rates: RequestRates) -> (System, Api, Worker, Client) {
    let system = System::new();
    let worker = system.worker().await;
    let api = system.api_with(|config| config.request_rates = rates).await;
    let client = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    (system, api, worker, client)
}

#[track_caller]
fn is_limited(refused: &Replied) {
    refused.is_problem(429, "too_many_requests");
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{refused:?}");
    // Pages of other origins may read it.
    assert_eq!(refused.headers["access-control-allow-origin"], "*");
}

/// Asks until it is refused; gives how often it was not.
async fn until_limited(client: &Client, path: &str) -> usize {
    for served in 0..1_000 {
        let replied = client.get(path).await;
        if replied.status == 429 {
            is_limited(&replied);
            return served;
        }
        assert_eq!(replied.status, 200, "{replied:?}");
    }
    panic!("nothing is too much");
}

#[tokio::test]
async fn one_token_asks_so_much_and_others_go_on() {
    let (_system, _api, _worker, backend) = limited(RequestRates { per_token: 2, ..AMPLE }).await;
    let session = create_session(&backend).await;
    let (greedy, modest) = (join(&backend, session).await, join(&backend, session).await);
    // Ten at once, and what the time that it takes gives.
    let served = until_limited(&greedy.client, &greedy.path("")).await;
    assert!((11..100).contains(&served), "{served}");
    let another = token(VideoGrants::join(session), Some(greedy.id));
    is_limited(&backend.with(Auth::Bearer(another)).get(&greedy.path("")).await);
    is_limited(&greedy.client.get(&greedy.events("wait=0")).await);
    assert_eq!(modest.client.get(&modest.path("")).await.status, 200);
    assert_eq!(backend.get(&greedy.path("")).await.status, 200);
}

#[tokio::test]
async fn one_key_asks_so_much_and_its_clients_and_others_go_on() {
    let (_system, _api, _worker, backend) = limited(RequestRates { per_key: 4, ..AMPLE }).await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let served = until_limited(&backend, "/v1/sessions").await;
    assert!((15..100).contains(&served), "{served}");
    assert_eq!(member.client.get(&member.path("")).await.status, 200);
    assert_eq!(backend.with(Auth::Basic(OTHER_KEY, OTHER_SECRET)).get("/v1/sessions").await.status, 200);
}

#[tokio::test]
async fn wrong_credentials_count_tenfold_for_their_address() {
    let (_system, _api, _worker, backend) = limited(RequestRates { per_address: 1, ..AMPLE }).await;
    // Five at once and one more: wrong credentials alone are more than that.
    let guessing = backend.with(Auth::Basic(KEY, "not-the-secret-of-key-one"));
    guessing.get("/v1/sessions").await.is_problem(401, "unauthorized");
    is_limited(&guessing.get("/v1/sessions").await);
    is_limited(&backend.get("/v1/sessions").await);
    // What is for operators and browsers is no request to the API.
    assert_eq!(backend.with(Auth::None).get("/healthz").await.status, 200);
}

#[tokio::test]
async fn bodies_are_as_long_as_their_route_needs() {
    let (_system, _api, _worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let padded = |length: usize| json!({"surprise": "x".repeat(length)});
    let (small, listed, described) = (32 << 10, 256 << 10, 512 << 10);
    let routes = [
        ("/v1/sessions".to_owned(), small),
        (format!("/v1/sessions/{session}/links"), small),
        (member.path("/token"), small),
        (member.path("/rating"), small),
        (member.path("/candidates"), listed),
        (format!("/v1/sessions/{session}/messages"), listed),
        (format!("/v1/sessions/{session}/participants"), described),
        (member.path("/offer"), described),
        (member.path("/answer"), described),
    ];
    for (path, most) in routes {
        backend.post(&path, padded(most)).await.is_problem(413, "body_too_large");
        // Read, and then found to be nonsense.
        backend.post(&path, padded(most - 64)).await.is_problem(400, "invalid_request");
    }
    // The longest that the documentation allows fits.
    let to: Vec<Value> = (0..256).map(|_| json!(common::model::ParticipantId::new())).collect();
    let message = json!({"to": to, "topic": "t".repeat(128), "data": "x".repeat(16 * 1024 - 2)});
    let sent = member.client.post(&format!("/v1/sessions/{session}/messages"), message).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let candidate = json!({"candidate": "c".repeat(1_024), "sdpMid": "0"});
    let candidates = json!({"candidates": vec![candidate; 100], "destination": member.destination});
    assert_eq!(member.client.post(&member.path("/candidates"), candidates).await.status, 204);
}

/// Waits for the server to close.
async fn is_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
}

#[tokio::test]
async fn connections_without_a_request_are_closed_whatever_they_began_with() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.timings.read_timeout = Duration::from_millis(300)).await;
    let address = api.url.trim_start_matches("http://").to_owned();
    for beginning in
        ["", "P", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n"]
    {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        is_closed(stream).await;
    }
    // One that has asked something is not closed under its answer.
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let mut socket = open(&api, &member).await;
    let polling = join(&backend, session).await;
    let page = polling.client.get(&polling.events("wait=1")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let id = system.send_number(&member, 1).await;
    while crate::streams::event(&mut socket).await["id"] != json!(id) {}
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_websockets_are_some() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.max_connections_per_address = 4).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    // Its connection is kept: one.
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let socket = open(&api, &member).await;
    let address = api.url.trim_start_matches("http://").to_owned();
    let idle = [TcpStream::connect(&address).await.unwrap(), TcpStream::connect(&address).await.unwrap()];
    is_closed(TcpStream::connect(&address).await.unwrap()).await;
    assert_eq!(backend.get("/v1/sessions").await.status, 200, "who is connected goes on");
    // A WebSocket gives its place back as any other does.
    drop(socket);
    eventually("a place is free", async || {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    drop(idle);
}
