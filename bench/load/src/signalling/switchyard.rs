//! Switchyard's own HTTP API: a join with an offer in it, then the server's offers by Server-Sent Events.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Clients, Failure, Joined, Role, failure};
use crate::peer::Peer;
use crate::socket::wall_ns;

/// A refusal with `Retry-After` is taken this often.
const TRIES: u32 = 20;

pub struct Switchyard {
    http: reqwest::Client,
    base: String,
    /// `Basic …`
    authorization: String,
}

/// A session with what lets clients in.
pub struct Session {
    id: String,
    /// For clients that receive.
    token: String,
    /// For clients that only send.
    publishers: String,
}

/// What a participant needs for its requests.
#[derive(Clone)]
struct Participant {
    http: reqwest::Client,
    /// `…/v1/sessions/{}/participants/{}`
    url: String,
    token: String,
    endpoint: Value,
    destination: Value,
}

impl Switchyard {
    /// `api_key` is `id:secret`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str, api_key: &str) -> Result<Self, Failure> {
        // Without proxies: what is measured is the server, not the way to it.
        let http = reqwest::Client::builder().no_proxy().build().map_err(failure)?;
        let authorization = format!("Basic {}", STANDARD.encode(api_key));
        Ok(Self { http, base: url.trim_end_matches('/').to_owned(), authorization })
    }

    async fn post(&self, path: &str, authorization: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        for _ in 0..TRIES {
            let request = self.http.post(&url).header(AUTHORIZATION, authorization).json(body);
            let response = request.send().await.map_err(|error| format!("POST {url}: {error}"))?;
            let status = response.status();
            if status.as_u16() == 429 || status.as_u16() == 503 {
                let after =
                    response.headers().get("retry-after").and_then(|it| it.to_str().ok()?.parse().ok());
                tokio::time::sleep(Duration::from_secs(after.unwrap_or(1))).await;
                continue;
            }
            let text = response.text().await.map_err(failure)?;
            if status.is_success() && status.as_u16() != 202 {
                return serde_json::from_str(&text).map_err(failure);
            }
            return Err(format!("POST {url}: {status}: {text}"));
        }
        Err(format!("POST {url}: refused {TRIES} times with Retry-After"))
    }

    pub(super) async fn create_session(&self) -> Result<Session, Failure> {
        let created = self.post("/v1/sessions", &self.authorization, &json!({"name": "load"})).await?;
        let id = text(&created["session"]["id"])?;
        let links = format!("/v1/sessions/{id}/links");
        let only_sending = json!({"can_subscribe": false});
        let link = self.post(&links, &self.authorization, &only_sending).await?;
        Ok(Session { id, token: text(&created["token"])?, publishers: text(&link["token"])? })
    }

    pub(super) async fn close_session(&self, session: &Session) {
        let url = format!("{}/v1/sessions/{}", self.base, session.id);
        // At the end of a run there is nobody left to tell.
        let _ = self.http.delete(url).header(AUTHORIZATION, &self.authorization).send().await;
    }

    pub(super) async fn join(
        &self,
        clients: &Clients,
        room: &super::Room,
        session: &Session,
        role: Role,
        group: usize,
    ) -> Result<Joined, Failure> {
        let mut joined = Joined::new(wall_ns());
        let mut peer = clients.peer(room, role, group, clients.expected_streams(room, role))?;
        let body = match role {
            Role::Subscriber => json!({"name": "load", "server_offers": true}),
            _ => json!({"name": "load", "offer": {"sdp": peer.offer_to_send()}}),
        };
        let token = if role == Role::Publisher { &session.publishers } else { &session.token };
        let path = format!("/v1/sessions/{}/participants", session.id);
        let reply = self.post(&path, &format!("Bearer {token}"), &body).await?;
        if let Some(answer) = reply["answer"]["sdp"].as_str() {
            peer.accept_answer(answer)?;
        }
        let participant = Participant {
            http: self.http.clone(),
            url: format!("{}{path}/{}", self.base, text(&reply["participant"]["id"])?),
            token: text(&reply["token"])?,
            endpoint: reply["endpoint_id"].clone(),
            destination: reply["destination"].clone(),
        };
        if role != Role::Subscriber {
            joined.sends = Some(Arc::clone(&peer.shared));
        }
        if role != Role::Publisher {
            joined.receives.push(Arc::clone(&peer.shared));
        }
        let peer = joined.keep(peer);
        if role != Role::Publisher {
            joined.tasks.push(tokio::spawn(participant.follow(peer)).abort_handle());
        }
        Ok(joined)
    }
}

impl Participant {
    /// Answers the server's offers for as long as the participant is there.
    async fn follow(self, peer: Arc<Mutex<Peer>>) {
        let mut last_id: Option<String> = None;
        loop {
            let mut request = self.http.get(format!("{}/events", self.url)).bearer_auth(&self.token);
            request = request.header(ACCEPT, "text/event-stream");
            if let Some(id) = &last_id {
                request = request.header("last-event-id", id);
            }
            let response = match request.send().await {
                Ok(response) if response.status().is_success() => response,
                // Over, or not reachable just now.
                Ok(response) if response.status().is_client_error() => return,
                _ => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let mut lines = Lines::default();
            let mut body = response.bytes_stream();
            while let Some(Ok(bytes)) = body.next().await {
                for event in lines.push(&bytes) {
                    last_id = event["id"].as_str().map(str::to_owned);
                    self.handle(&event, &peer).await;
                }
            }
        }
    }

    async fn handle(&self, event: &Value, peer: &Mutex<Peer>) {
        let data = &event["data"];
        let mut peer = peer.lock().await;
        match event["type"].as_str() {
            Some("offer") if data["endpoint_id"] == self.endpoint => {
                let answer = match peer.answer(data["sdp"].as_str().unwrap_or_default()) {
                    Ok(answer) => answer,
                    Err(_) => {
                        let _ = peer.shared.failed.set("the server's offer cannot be read");
                        return;
                    }
                };
                let body =
                    json!({"destination": self.destination, "sdp": answer, "revision": data["revision"]});
                let url = format!("{}/answer", self.url);
                let sent = self.http.post(url).bearer_auth(&self.token).json(&body).send().await;
                if sent.is_ok_and(|response| response.status().is_success()) {
                    peer.answer_delivered();
                } else {
                    let _ = peer.shared.failed.set("the server refused an answer");
                }
            }
            Some("session.interrupted") => _ = peer.shared.failed.set("the session was interrupted"),
            Some("session.closed") => _ = peer.shared.failed.set("the session was closed"),
            _ => {}
        }
    }
}

/// Finds the JSON of each event in a stream of Server-Sent Events.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<Value> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let complete = std::mem::replace(&mut self.0, rest);
        let lines = complete.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line.strip_prefix(b"data:")?).ok()).collect()
    }
}

fn text(value: &Value) -> Result<String, Failure> {
    value.as_str().map(str::to_owned).ok_or_else(|| "the server's reply is not Switchyard's".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream =
            b": hello\n\nid: evt_1\nevent: offer\ndata: {\"id\": \"evt_1\"}\n\ndata: {\"id\": 2}\n\n";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut found = lines.push(&stream[..cut]);
            found.extend(lines.push(&stream[cut..]));
            assert_eq!(found, [json!({"id": "evt_1"}), json!({"id": 2})], "cut at {cut}");
        }
    }
}
