//! SSE and WebSocket: resuming, acknowledging, hostile clients, ends.

use std::time::{Duration, Instant};

use common::model::{EventId, ParticipantId};
use common::token::VideoGrants;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest as _};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::*;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket as a browser opens it: the token in the address.
pub async fn open(api: &Api, member: &Member) -> Socket {
    try_open(api, &member.path(&format!("/events/ws?access_token={}", member.token))).await.unwrap()
}

async fn try_open(api: &Api, path: &str) -> Result<Socket, Error> {
    let url = format!("{}{path}", api.url.replace("http://", "ws://"));
    connect_async(url.into_client_request().unwrap()).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("nothing arrives")?;
        match message {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(message) => return Some(message),
            Err(_) => return None,
        }
    }
}

pub async fn event(socket: &mut Socket) -> Value {
    match next(socket).await {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("not an event: {other:?}"),
    }
}

pub async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match next(socket).await {
            Some(Message::Close(frame)) => return frame.expect("a close frame without a code").code.into(),
            Some(_) => {}
            None => panic!("the connection ended without a close frame"),
        }
    }
}

async fn ack(socket: &mut Socket, event: &Value) {
    socket.send(Message::text(json!({"ack": event["id"]}).to_string())).await.unwrap();
}

/// An SSE stream, read frame by frame.
pub struct Sse {
    response: reqwest::Response,
    buffer: String,
}

impl Sse {
    pub async fn open(client: &Client, path: &str) -> Self {
        let request = client.request(reqwest::Method::GET, path).header("accept", "text/event-stream");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, buffer: String::new() }
    }

    /// The next frame as it was sent; `None` at the end.
    pub async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let frame = frame.to_owned();
                self.buffer = rest.to_owned();
                return Some(frame);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("nothing arrives");
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// The next event: id, type, data.
    pub async fn event(&mut self) -> Option<(String, String, Value)> {
        loop {
            let frame = self.frame().await?;
            let field = |name: &str| {
                frame
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(|value| value.trim_start().to_owned())
            };
            if let Some(data) = field("data:") {
                let data = serde_json::from_str(&data).unwrap();
                return Some((field("id:").unwrap(), field("event:").unwrap(), data));
            }
        }
    }
}

async fn single_member() -> (System, Api, Worker, Client, Member) {
    let (system, api, worker, backend) = System::single().await;
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    (system, api, worker, backend, member)
}

#[tokio::test]
async fn an_event_reaches_a_websocket_at_once() {
    let (system, api, _worker, _backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    let mut delays = Vec::new();
    for number in 0..200 {
        let sent = Instant::now();
        let id = system.send_number(&member, number).await;
        let event = event(&mut socket).await;
        delays.push(sent.elapsed());
        assert_eq!((&event["id"], &event["data"]["epoch"]), (&json!(id), &json!(number)));
        assert_eq!(event["session_id"], member.session.to_string());
        ack(&mut socket, &event).await;
    }
    delays.sort();
    let median = delays[delays.len() / 2];
    println!("send to WebSocket: median {median:?}, worst {:?}", delays[delays.len() - 1]);
    // Far above what it takes, far below what a timer or a poll interval would add.
    assert!(median < Duration::from_millis(30), "{median:?}");
}

#[tokio::test]
async fn a_websocket_confirms_with_acks_and_repeats_what_was_not() {
    let (system, api, _worker, _backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    let mut events = Vec::new();
    for number in 0..4 {
        system.send_number(&member, number).await;
        events.push(event(&mut socket).await);
    }
    ack(&mut socket, &events[1]).await;
    ack(&mut socket, &json!({"id": EventId::new()})).await;
    socket.close(None).await.unwrap();
    let page = eventually("the acknowledged ones to be gone", async || {
        let page = member.client.get(&member.events("wait=20")).await;
        (page.json["events"].as_array().unwrap().len() == 2).then_some(page)
    })
    .await;
    assert_eq!(page.json["events"][0], events[2]);
    assert_eq!(page.json["events"][1], events[3]);
    let mut socket = open(&api, &member).await;
    assert_eq!(event(&mut socket).await, events[2], "a new connection begins at the oldest unconfirmed");
}

#[tokio::test]
async fn an_idle_websocket_is_pinged_and_a_dead_one_is_closed() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.timings.keep_alive = Duration::from_millis(50)).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let mut socket = open(&api, &member).await;
    for _ in 0..10 {
        // Reading answers pings with pongs; so it stays.
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        socket.flush().await.unwrap();
    }
    // Not reading answers nothing: the server gives up, and the next reader has the queue without a take-over.
    let began = Instant::now();
    while !tokio::time::timeout(PATIENCE, read_raw(&mut socket)).await.unwrap() {}
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// Reads from the connection below the WebSocket, so that nobody answers pings; whether it ended.
async fn read_raw(socket: &mut Socket) -> bool {
    let MaybeTlsStream::Plain(stream) = socket.get_mut() else { panic!("TLS on loopback") };
    let mut buffer = [0; 1024];
    stream.read(&mut buffer).await.map_or(true, |read| read == 0)
}

#[tokio::test]
async fn messages_that_are_no_acknowledgement_close_the_websocket() {
    let (_system, api, _worker, _backend, member) = single_member().await;
    let long = format!("{{\"ack\": \"{}\"}}", "x".repeat(5_000));
    let cases = [
        (Message::text("hello"), 1008),
        (Message::text("{}"), 1008),
        (Message::text("{\"ack\": 17}"), 1008),
        (Message::text("{\"ack\": \"evt_1\"}"), 1008),
        (Message::text(format!("{{\"ack\": \"{}\", \"more\": 1}}", EventId::new())), 1008),
        (Message::binary(vec![0; 10]), 1003),
        (Message::text(long), 1009),
    ];
    for (message, code) in cases {
        let mut socket = open(&api, &member).await;
        socket.send(message.clone()).await.unwrap();
        assert_eq!(close_code(&mut socket).await, code, "{message:?}");
    }
}

#[tokio::test]
async fn a_flood_of_messages_closes_the_websocket() {
    let (_system, api, _worker, _backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    let text = Message::text(json!({"ack": EventId::new()}).to_string());
    let mut accepted = 0;
    while accepted < 100_000 && socket.send(text.clone()).await.is_ok() {
        accepted += 1;
        if let Some(Some(Ok(Message::Close(frame)))) = futures::FutureExt::now_or_never(socket.next()) {
            assert_eq!(u16::from(frame.unwrap().code), 1008);
            return;
        }
    }
    assert!(accepted < 100_000, "nobody stopped the flood");
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection_and_nobody_else_anything() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.timings.write_timeout = Duration::from_millis(300)).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let (slow, quick) = (join(&backend, session).await, join(&backend, session).await);
    let socket = open(&api, &slow).await;
    let body = |number: i64| common::message::EventBody::Offer {
        endpoint_id: common::model::EndpointId::from_uuid(uuid::Uuid::nil()),
        revision: number as u64,
        sdp: "x".repeat(200_000),
        tracks: Vec::new(),
    };
    for number in 0..60 {
        system.send_event(&slow, body(number)).await;
    }
    let mut other = open(&api, &quick).await;
    system.send_number(&quick, 1).await;
    assert_eq!(event(&mut other).await["data"]["epoch"], 1);
    // The stalled one is given up: with its window unconfirmed, everything is still there for a reader that reads.
    let mut revisions = Vec::new();
    let mut cursor = String::new();
    while revisions.len() < 60 {
        let page = slow.client.get(&slow.events(&format!("wait=20&limit=10{cursor}"))).await;
        for event in page.json["events"].as_array().unwrap() {
            revisions.push(event["data"]["revision"].as_i64().unwrap());
        }
        cursor = format!("&cursor={}", page.json["cursor"].as_str().unwrap());
    }
    assert_eq!(revisions, (0..60).collect::<Vec<_>>());
    drop(socket);
}

#[tokio::test]
async fn streams_end_when_the_participant_leaves_or_the_session_closes() {
    let (_system, api, _worker, backend, member) = single_member().await;
    let other = join(&backend, member.session).await;
    let mut socket = open(&api, &member).await;
    let mut sse = Sse::open(&other.client, &other.events("")).await;
    assert_eq!(member.client.delete(&member.path("")).await.status, 204);
    let left = event(&mut socket).await;
    assert_eq!(left["type"], "participant.left");
    ack(&mut socket, &left).await;
    assert_eq!(close_code(&mut socket).await, 4001);
    // Confirmed by the ack: the queue is gone.
    member.client.get(&member.events("")).await.is_problem(410, "endpoint_gone");
    let (_, kind, _) = sse.event().await.unwrap();
    assert_eq!(kind, "participant.left", "another's leaving is an event like any other");
    assert_eq!(backend.delete(&format!("/v1/sessions/{}", member.session)).await.status, 204);
    let (id, kind, data) = sse.event().await.unwrap();
    assert_eq!((kind.as_str(), &data["data"]), ("session.closed", &json!({})));
    assert!(sse.event().await.is_none());
    // `EventSource` reconnects with the last id: an empty stream once, then an error that stops it.
    let resumed = other.client.header("last-event-id", &id);
    assert!(Sse::open(&resumed, &other.events("")).await.frame().await.is_none());
    let stream = resumed.header("accept", "text/event-stream");
    stream.get(&other.events("")).await.is_problem(410, "endpoint_gone");
}

#[tokio::test]
async fn a_websocket_that_does_not_ack_its_end_is_closed_all_the_same() {
    let (_system, api, _worker, backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    assert_eq!(backend.delete(&format!("/v1/sessions/{}", member.session)).await.status, 204);
    assert_eq!(event(&mut socket).await["type"], "session.closed");
    assert_eq!(close_code(&mut socket).await, 4001);
}

#[tokio::test]
async fn streams_end_when_the_token_expires() {
    let (_system, api, _worker, backend, member) = single_member().await;
    let other = join(&backend, member.session).await;
    // Expired on arrival by the clock, and still within the leeway of the check.
    let brief = |participant: ParticipantId| {
        token_of(KEY, Duration::from_secs(1), VideoGrants::join(member.session), Some(participant))
    };
    let path = member.path(&format!("/events/ws?access_token={}", brief(member.id)));
    let mut socket = try_open(&api, &path).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4002);
    let client = backend.with(Auth::Bearer(brief(other.id)));
    let mut sse = Sse::open(&client, &other.events("")).await;
    assert!(sse.event().await.is_none());
}

#[tokio::test]
async fn a_websocket_is_refused_before_it_opens() {
    let (_system, api, _worker, _backend, member) = single_member().await;
    let stranger = ParticipantId::new();
    let strange = token(VideoGrants::join(member.session), Some(stranger));
    let strangers =
        format!("/v1/sessions/{}/participants/{stranger}/events/ws?access_token={strange}", member.session);
    for (path, status) in [
        (member.path("/events/ws"), 401),
        (member.path("/events/ws?access_token=x"), 401),
        (member.path(&format!("/events/ws?access_token={strange}")), 403),
        (strangers, 404),
    ] {
        match try_open(&api, &path).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), status, "{path}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn sse_carries_events_and_resumes_after_the_last_id() {
    let (system, _api, _worker, _backend, member) = single_member().await;
    let mut sse = Sse::open(&member.client, &member.events("")).await;
    assert_eq!(sse.frame().await.unwrap(), "retry: 1000\n: connected");
    let mut ids = Vec::new();
    for number in 0..5 {
        let id = system.send_number(&member, number).await;
        let (shown, kind, data) = sse.event().await.unwrap();
        assert_eq!((shown, kind.as_str()), (id.to_string(), "session.interrupted"));
        assert_eq!((&data["id"], &data["data"]["epoch"]), (&json!(id), &json!(number)));
        ids.push(id);
    }
    drop(sse);
    let resumed = member.client.header("last-event-id", &ids[2].to_string());
    let mut sse = Sse::open(&resumed, &member.events("")).await;
    assert_eq!(sse.event().await.unwrap().0, ids[3].to_string());
    assert_eq!(sse.event().await.unwrap().0, ids[4].to_string());
    // `EventSource` cannot send headers: the token in the address will do.
    let anonymous = member.client.with(Auth::None);
    let path = member.events(&format!("access_token={}&cursor={}", member.token, ids[3]));
    let mut sse = Sse::open(&anonymous, &path).await;
    assert_eq!(sse.event().await.unwrap().0, ids[4].to_string());
}

#[tokio::test]
async fn an_sse_stream_is_kept_alive_and_never_stalls() {
    let system = System::new();
    let _worker = system.worker().await;
    let api = system.api_with(|config| config.timings.keep_alive = Duration::from_millis(20)).await;
    let backend = Client::new(&api.url, Auth::Basic(KEY, SECRET));
    let session = create_session(&backend).await;
    let member = join(&backend, session).await;
    let mut sse = Sse::open(&member.client, &member.events("")).await;
    sse.frame().await.unwrap();
    for _ in 0..3 {
        assert_eq!(sse.frame().await.unwrap(), ": ");
    }
    // More than any window: nobody confirms, and still all arrive in order.
    for number in 0..1_500 {
        system.send_number(&member, number).await;
    }
    for number in 0..1_500 {
        assert_eq!(sse.event().await.unwrap().2["data"]["epoch"], number);
    }
    drop(sse);
    // What is within the window comes again.
    let mut again = Sse::open(&member.client, &member.events("")).await;
    let first = again.event().await.unwrap().2["data"]["epoch"].as_i64().unwrap();
    assert_eq!(first, 1_500 - rest_api::delivery::sse::WINDOW as i64);
}

#[tokio::test]
async fn a_websocket_waits_for_acks_at_its_window() {
    let (system, api, _worker, _backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    for number in 0..700 {
        system.send_number(&member, number).await;
    }
    let mut seen = Vec::new();
    for _ in 0..512 {
        seen.push(event(&mut socket).await);
    }
    let more = tokio::time::timeout(Duration::from_millis(100), socket.next()).await;
    assert!(more.is_err(), "{more:?}");
    ack(&mut socket, &seen[511]).await;
    for number in 512..700 {
        assert_eq!(event(&mut socket).await["data"]["epoch"], number);
    }
}

#[tokio::test]
async fn a_newer_reader_of_any_kind_ends_an_older_one() {
    let (system, api, _worker, _backend, member) = single_member().await;
    let mut first = open(&api, &member).await;
    let mut second = open(&api, &member).await;
    assert_eq!(close_code(&mut first).await, 4000);
    let mut sse = Sse::open(&member.client, &member.events("")).await;
    assert_eq!(close_code(&mut second).await, 4000);
    sse.frame().await.unwrap();
    let mut third = open(&api, &member).await;
    assert!(sse.event().await.is_none());
    let poll = member.client.get(&member.events("")).await;
    assert_eq!(poll.status, 200);
    assert_eq!(close_code(&mut third).await, 4000);
    system.send_number(&member, 1).await;
    let mut fourth = open(&api, &member).await;
    assert_eq!(event(&mut fourth).await["data"]["epoch"], 1);
}

#[tokio::test]
async fn shutting_down_ends_streams_and_polls_at_once() {
    let (_system, api, _worker, backend, member) = single_member().await;
    let (second, third) = (join(&backend, member.session).await, join(&backend, member.session).await);
    let mut socket = open(&api, &member).await;
    let mut sse = Sse::open(&second.client, &second.events("")).await;
    sse.frame().await.unwrap();
    let poll = tokio::spawn(async move { third.client.get(&third.events("wait=30")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    api.shutdown.cancel();
    assert_eq!(close_code(&mut socket).await, 1001);
    assert!(sse.event().await.is_none());
    assert_eq!(poll.await.unwrap().status, 200);
    api.ended.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn raw_garbage_on_an_open_websocket_ends_only_that_connection() {
    let (system, api, _worker, _backend, member) = single_member().await;
    let mut socket = open(&api, &member).await;
    let MaybeTlsStream::Plain(stream) = socket.get_mut() else { panic!("TLS on loopback") };
    stream.write_all(&[0xff; 64]).await.unwrap();
    while next(&mut socket).await.is_some() {}
    system.send_number(&member, 4).await;
    let mut socket = open(&api, &member).await;
    assert_eq!(event(&mut socket).await["data"]["epoch"], 4);
}
