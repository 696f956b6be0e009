//! Readers of one endpoint's events that move between API instances and outlive them, by each of the three transports.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use support::{Chance, Http};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// How long a reader stays with an instance: it moves in the middle of what comes.
const STAY_MS: (u64, u64) = (200, 3_000);
/// Before the next try after a refusal or a broken connection.
const PAUSE: Duration = Duration::from_millis(50);
/// A stream that says nothing for this long is left; nothing that matters happens more rarely.
const SILENCE: Duration = Duration::from_secs(5);
/// WebSocket: events that one acknowledgement is for.
const ACKNOWLEDGED_TOGETHER: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Poll,
    Sse,
    WebSocket,
}

/// Whose events are read, and with what.
#[derive(Debug, Clone)]
pub struct Whose {
    /// `/v1/sessions/…/participants/…`
    pub path: String,
    pub endpoint_id: String,
    pub token: String,
}

/// What a reader got.
#[derive(Default)]
pub struct Seen {
    /// Each event once, as (id, type, participant), in the order of its first arrival.
    pub events: Vec<(String, String, String)>,
    ids: HashSet<String>,
    /// Deliveries, repeats included.
    pub deliveries: usize,
    /// Times that it opened a stream, or polled, on another instance than before.
    pub moves: usize,
    pub wrong: Vec<String>,
}

impl Seen {
    fn note(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&event["id"]);
        self.deliveries += 1;
        if self.ids.insert(id.clone()) {
            self.events.push((id, text(&event["type"]), text(&event["data"]["participant_id"])));
        }
    }
}

/// Reads until dropped.
pub struct Reader {
    pub transport: Transport,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    pub fn start(transport: Transport, whose: Whose, bases: &[String], chance: Chance) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let reading = Reading {
            whose,
            bases: bases.to_vec(),
            at: 0,
            chance,
            last: None,
            seen: Arc::clone(&seen),
            client: reqwest::Client::builder().no_proxy().build().expect("an HTTP client can be made"),
        };
        let task = tokio::spawn(reading.run(transport));
        Self { transport, seen, task }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it notes")
    }
}

struct Reading {
    whose: Whose,
    bases: Vec<String>,
    at: usize,
    chance: Chance,
    /// The id of the last event that came.
    last: Option<String>,
    seen: Arc<Mutex<Seen>>,
    client: reqwest::Client,
}

/// Why a stay with an instance is over.
type Left = Result<(), String>;

impl Reading {
    async fn run(mut self, transport: Transport) {
        // What is left is dropped only once the next instance is asked: that one has to take over.
        let mut old_socket = None;
        let mut old_stream = None;
        loop {
            let until = Instant::now() + self.chance.millis(STAY_MS.0, STAY_MS.1);
            let left = match transport {
                Transport::Poll => self.poll_until(until).await,
                Transport::Sse => self.stream_until(until, &mut old_stream).await,
                Transport::WebSocket => self.socket_until(until, &mut old_socket).await,
            };
            if left.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            self.at = self.chance.below(self.bases.len());
            self.seen.lock().expect("nothing panics while it notes").moves += 1;
        }
    }

    fn note(&mut self, event: &Value) {
        self.seen.lock().expect("nothing panics while it notes").note(event);
        self.last = event["id"].as_str().map(str::to_owned);
    }

    fn wrong(&self, what: String) {
        self.seen.lock().expect("nothing panics while it notes").wrong.push(what);
    }

    /// A refusal that is not "later" is not to be.
    fn refused(&self, status: u16, body: &str) -> String {
        let what = format!("{status}: {body}");
        if status != 503 {
            self.wrong(what.clone());
        }
        what
    }

    fn address(&self, rest: &str) -> String {
        format!("{}{}/events{rest}endpoint={}", self.bases[self.at], self.whose.path, self.whose.endpoint_id)
    }

    async fn poll_until(&mut self, until: Instant) -> Left {
        while Instant::now() < until {
            let cursor = self.last.as_ref().map_or_else(String::new, |id| format!("&cursor={id}"));
            let url = format!("{}&wait=5&limit=500{cursor}", self.address("?"));
            let request =
                self.client.get(url).bearer_auth(&self.whose.token).timeout(Duration::from_secs(20));
            let response = request.send().await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = response.text().await.map_err(|error| error.to_string())?;
            if status != 200 {
                return Err(self.refused(status, &body));
            }
            let page: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
            for event in page["events"].as_array().into_iter().flatten() {
                self.note(event);
            }
        }
        Ok(())
    }

    async fn stream_until(&mut self, until: Instant, old: &mut Option<reqwest::Response>) -> Left {
        let mut request = self.client.get(self.address("?")).bearer_auth(&self.whose.token);
        request = request.header("Accept", "text/event-stream");
        if let Some(id) = &self.last {
            request = request.header("Last-Event-ID", id);
        }
        let opened = timeout(SILENCE, request.send()).await;
        let mut response = opened.map_err(|_| "no stream".to_owned())?.map_err(|error| error.to_string())?;
        drop(old.take());
        let status = response.status().as_u16();
        if status != 200 {
            let body = response.text().await.unwrap_or_default();
            return Err(self.refused(status, &body));
        }
        let mut buffer = Vec::new();
        while Instant::now() < until {
            let chunk = match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                ended => return Err(format!("{ended:?}")),
            };
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                let frame = String::from_utf8(frame).map_err(|error| error.to_string())?;
                if let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) {
                    self.note(&serde_json::from_str(data).map_err(|error| error.to_string())?);
                }
            }
        }
        *old = Some(response);
        Ok(())
    }

    async fn socket_until(&mut self, until: Instant, old: &mut Option<Socket>) -> Left {
        let url = self.address("/ws?").replacen("http", "ws", 1);
        let url = format!("{url}&access_token={}", self.whose.token);
        let opened = timeout(SILENCE, connect_async(url)).await.map_err(|_| "no socket".to_owned())?;
        drop(old.take());
        let (mut socket, _) = match opened {
            Ok(opened) => opened,
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                return Err(self.refused(response.status().as_u16(), &body));
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut unacknowledged = 0;
        while Instant::now() < until {
            let message = match timeout(SILENCE, socket.next()).await {
                Ok(Some(Ok(message))) => message,
                ended => return Err(format!("{ended:?}")),
            };
            let Message::Text(text) = message else { continue };
            let event: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            self.note(&event);
            unacknowledged += 1;
            if unacknowledged >= ACKNOWLEDGED_TOGETHER {
                unacknowledged = 0;
                let ack = Message::text(json!({"ack": event["id"]}).to_string());
                socket.send(ack).await.map_err(|error| error.to_string())?;
            }
        }
        *old = Some(socket);
        Ok(())
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Joins only to read events: such a participant has no connection.
///
/// # Panics
/// When the join is refused.
pub async fn join_to_read(http: &Http, session_id: &str, token: &str, name: &str) -> Whose {
    let path = format!("/v1/sessions/{session_id}/participants");
    let joined = http.with_token(token).post(&path, &json!({"name": name})).await.expect(201);
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    Whose {
        path: format!("{path}/{}", text(&joined["participant"]["id"])),
        endpoint_id: text(&joined["endpoint_id"]),
        token: text(&joined["token"]),
    }
}
