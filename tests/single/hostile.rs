//! Clients that want no good, against the real binary: slow ones, silent ones, too many, too much. Each is served or refused,
//! and afterwards the server answers everybody else promptly and has not grown much.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use support::{Deployment, Http, Room, Shape, patience};
use tokio_tungstenite::tungstenite::Message;

/// How long a normal client waits for anything, whatever the others do.
const PROMPTLY: f64 = 5.0;
/// What the server may have grown by, in bytes.
const GROWTH: u64 = 400 << 20;

struct Target {
    deployment: Deployment,
    room: Room,
    address: SocketAddr,
    before: u64,
}

impl Target {
    async fn start(arguments: &[&str]) -> Self {
        let deployment = Deployment::start_with(Shape::Embedded, arguments).await;
        let room = deployment.room().await;
        let address = deployment.urls()[0].trim_start_matches("http://").parse().unwrap();
        let before = deployment.apis[0].footprint().resident_bytes;
        Self { deployment, room, address, before }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(patience(PROMPTLY))).unwrap();
        stream
    }

    /// A client that never was here before joins, is told so by its events, and leaves.
    async fn serves_others(&self, while_what: &str) {
        let http = Http::new(self.deployment.urls()).with_token(&self.room.token);
        let started = Instant::now();
        let path = format!("/v1/sessions/{}/participants", self.room.id);
        let joined = http.post(&path, &json!({})).await.expect(201);
        let own = http.with_token(joined["token"].as_str().unwrap());
        let path = format!("{path}/{}", joined["participant"]["id"].as_str().unwrap());
        let events = own.get(&format!("{path}/events?wait=5")).await.expect(200);
        assert_eq!(events["events"][0]["type"], "participant.joined", "{events}");
        own.delete(&path).await.expect(204);
        let took = started.elapsed();
        assert!(took < patience(PROMPTLY), "{while_what}: somebody else waited {took:?}");
    }

    fn has_not_grown(&self) {
        let now = self.deployment.apis[0].footprint().resident_bytes;
        assert!(now < self.before + GROWTH, "from {} to {now} bytes", self.before);
    }

    /// The participant whose credentials an attacker has.
    async fn insider(&self) -> (Http, String) {
        let http = self.deployment.http().with_token(&self.room.token);
        let path = format!("/v1/sessions/{}/participants", self.room.id);
        let joined: Value = http.post(&path, &json!({})).await.expect(201);
        let token = joined["token"].as_str().unwrap();
        (http.with_token(token), format!("{path}/{}", joined["participant"]["id"].as_str().unwrap()))
    }
}

/// The status of the answer; `None` when the connection was just closed.
fn answer(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
    }
    String::from_utf8_lossy(&answer).split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_drip_hold_nobody_up() {
    let target = Target::start(&[]).await;
    let head = format!(
        "POST /v1/sessions/{}/participants HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n",
        target.room.id, target.room.token
    );
    let whole = format!("{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n");
    let mut dripping: Vec<(TcpStream, &[u8])> = (0..1_000)
        .map(|number| {
            let mut stream = target.connect();
            if number % 2 == 0 {
                return (stream, head.as_bytes());
            }
            // The head is good; the body never comes to its end.
            stream.write_all(whole.as_bytes()).unwrap();
            (stream, &b"{                                                                "[..])
        })
        .collect();
    for round in 0..40 {
        for (stream, text) in &mut dripping {
            // Refused already, which is fine.
            let _ = stream.write_all(&text[round..=round]);
        }
        if round % 20 == 0 {
            target.serves_others("slow clients drip").await;
        }
    }
    drop(dripping);
    target.serves_others("slow clients have gone").await;
    target.has_not_grown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_too_long_are_refused() {
    let target = Target::start(&[]).await;
    let head = "GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n";
    let one_long = format!("{head}X-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("{head}{}\r\n", "X-Many: x\r\n".repeat(10_000));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "p".repeat(1 << 20));
    for text in [one_long, many, long_path] {
        for _ in 0..20 {
            let mut stream = target.connect();
            // It may answer, and close, before it has read everything.
            let _ = stream.write_all(text.as_bytes());
            let status = answer(&mut stream);
            assert!(matches!(status, None | Some(400 | 414 | 431)), "{status:?} for {:.40}", text);
        }
    }
    // What fits is looked at.
    let mut stream = target.connect();
    write!(stream, "{head}X-Long: {}\r\n\r\n", "x".repeat(16 << 10)).unwrap();
    assert_eq!(answer(&mut stream), Some(401));
    target.serves_others("heads are long").await;
    target.has_not_grown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_hold_nobody_up() {
    switchyard::descriptors::limit();
    let target = Target::start(&["--max-connections-per-address", "0"]).await;
    let idle: Vec<_> = (0..10_000)
        .map(|number| {
            let mut stream = target.connect();
            match number % 3 {
                0 => {}
                1 => stream.write_all(b"P").unwrap(),
                _ => stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap(),
            }
            stream
        })
        .collect();
    target.serves_others("10,000 connections are idle").await;
    target.has_not_grown();
    drop(idle);
    target.serves_others("they have gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_websocket_messages_and_frames_end_their_own_connection() {
    let target = Target::start(&[]).await;
    let (own, path) = target.insider().await;
    let token = own_token(&own);
    let url = format!("ws://{}{path}/events/ws?access_token={token}", target.address);
    let ack = json!({"ack": format!("evt_{}", uuid::Uuid::now_v7())}).to_string();
    let flood = |message: Message, times: usize| {
        let url = url.clone();
        async move {
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            let mut sent = 0;
            // Refused as soon as the server has closed.
            while sent < times && socket.feed(message.clone()).await.is_ok() {
                sent += 1;
            }
            let _ = socket.flush().await;
            loop {
                match tokio::time::timeout(patience(PROMPTLY), socket.next()).await.expect("it ends") {
                    Some(Ok(Message::Close(Some(frame)))) => break Some(u16::from(frame.code)),
                    Some(Ok(_)) => {}
                    // Reset, with the rest of the flood on its way.
                    Some(Err(_)) | None => break None,
                }
            }
        }
    };
    for (message, code) in [
        (Message::text(ack), 1008),
        (Message::Ping(vec![0; 100].into()), 1008),
        (Message::text("x".repeat(1 << 20)), 1009),
        (Message::binary(vec![0; 100]), 1003),
    ] {
        let ended = flood(message.clone(), 20_000).await;
        assert!(ended.is_none_or(|ended| ended == code), "{ended:?} for {} bytes", message.len());
        target.serves_others("a WebSocket is flooded").await;
    }
    target.has_not_grown();
}

/// The token that a client of ours sends.
fn own_token(http: &Http) -> String {
    let request = http.request(reqwest::Method::GET, "/").build().unwrap();
    request.headers()["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_polls_is_slowed_down_and_nobody_else_is() {
    let target = Target::start(&["--max-requests-per-token", "50"]).await;
    let (own, path) = target.insider().await;
    let storm: Vec<_> = (0..50)
        .map(|_| {
            let (own, path) = (own.clone(), path.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..40 {
                    let polled = own.get(&format!("{path}/events?wait=0")).await;
                    assert!(polled.status != 429 || polled.retry_after.is_some(), "{polled:?}");
                    statuses.push(polled.status);
                }
                statuses
            })
        })
        .collect();
    target.serves_others("polls storm").await;
    let mut statuses = Vec::new();
    for task in storm {
        statuses.extend(task.await.unwrap());
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert!(refused > 0 && refused < statuses.len(), "{refused} of {}", statuses.len());
    target.serves_others("the storm is over").await;
    target.has_not_grown();
}
