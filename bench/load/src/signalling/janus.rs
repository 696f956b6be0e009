//! Janus' VideoRoom plugin over its WebSocket API: a connection to send, another one to receive everybody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{Clients, Failure, Joined, Role, failure};
use crate::socket::wall_ns;

/// Janus forgets a session that says nothing for 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(30);

const NO_SUCH_FEED: &str = "\"error_code\":428";

type Waiting = std::sync::Mutex<HashMap<String, oneshot::Sender<Value>>>;

/// One Janus session for all clients of the run, each with handles of its own.
pub struct Janus {
    send: mpsc::UnboundedSender<Message>,
    /// By transaction: who waits for the final reply.
    waiting: Arc<Waiting>,
    session: u64,
    /// The handle that makes and destroys rooms.
    rooms: u64,
}

/// A VideoRoom.
pub struct Room {
    id: u64,
    /// The feeds that are being published.
    feeds: watch::Sender<Vec<u64>>,
}

impl Janus {
    /// Connects to `url` (`ws://…`).
    ///
    /// # Errors
    /// What is wrong with the address, or what Janus answered.
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let mut request = url.into_client_request().map_err(|error| format!("{url}: {error}"))?;
        let protocol = "janus-protocol".parse().map_err(failure)?;
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, _) =
            tokio_tungstenite::connect_async(request).await.map_err(|error| format!("{url}: {error}"))?;
        let (mut sink, mut stream) = socket.split();
        let (send, mut outgoing) = mpsc::unbounded_channel::<Message>();
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                while let Some(Ok(message)) = stream.next().await {
                    let Ok(value) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
                    // An acknowledgement only says that the plugin will answer later.
                    let transaction = value["transaction"].as_str().filter(|_| value["janus"] != "ack");
                    let waiter = transaction.and_then(|it| waiting.lock().ok()?.remove(it));
                    if let Some(waiter) = waiter {
                        let _ = waiter.send(value);
                    }
                }
            }
        });
        let mut janus = Self { send, waiting, session: 0, rooms: 0 };
        janus.session = number(&janus.ask(json!({"janus": "create"})).await?["data"]["id"])?;
        janus.rooms = janus.attach().await?;
        let (send, session) = (janus.send.clone(), janus.session);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_ALIVE).await;
                let message =
                    json!({"janus": "keepalive", "session_id": session, "transaction": "keepalive"});
                if send.send(Message::text(message.to_string())).is_err() {
                    return;
                }
            }
        });
        Ok(janus)
    }

    /// Sends a request and waits for its final reply.
    async fn ask(&self, mut request: Value) -> Result<Value, Failure> {
        let transaction = uuid::Uuid::new_v4().to_string();
        request["transaction"] = json!(transaction);
        if self.session != 0 {
            request["session_id"] = json!(self.session);
        }
        let (reply, replied) = oneshot::channel();
        self.waiting.lock().map_err(failure)?.insert(transaction.clone(), reply);
        self.send.send(Message::text(request.to_string())).map_err(|_| "Janus has gone".to_owned())?;
        let reply = tokio::time::timeout(TIMEOUT, replied).await;
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.remove(&transaction);
        }
        let reply = reply.map_err(|_| format!("no reply from Janus to {request}"))?;
        let reply = reply.map_err(|_| "Janus has gone".to_owned())?;
        let refused = reply["janus"] == "error" || reply["plugindata"]["data"]["error"].is_string();
        if refused { Err(format!("Janus refused {request}: {reply}")) } else { Ok(reply) }
    }

    async fn attach(&self) -> Result<u64, Failure> {
        let reply = self.ask(json!({"janus": "attach", "plugin": "janus.plugin.videoroom"})).await?;
        number(&reply["data"]["id"])
    }

    async fn message(&self, handle: u64, body: Value, jsep: Option<Value>) -> Result<Value, Failure> {
        let mut request = json!({"janus": "message", "handle_id": handle, "body": body});
        if let Some(jsep) = jsep {
            request["jsep"] = jsep;
        }
        self.ask(request).await
    }

    pub(super) async fn create_room(&self, senders: u32) -> Result<Room, Failure> {
        let body = json!({
            "request": "create", "publishers": senders.max(1), "bitrate": 0, "audiocodec": "opus",
            "videocodec": "vp8,h264", "notify_joining": false,
        });
        let reply = self.message(self.rooms, body, None).await?;
        let id = number(&reply["plugindata"]["data"]["room"])?;
        Ok(Room { id, feeds: watch::Sender::new(Vec::new()) })
    }

    pub(super) async fn destroy_room(&self, room: &Room) {
        let body = json!({"request": "destroy", "room": room.id});
        // At the end of a run there is nobody left to tell.
        let _ = self.message(self.rooms, body, None).await;
    }

    pub(super) async fn join(
        &self,
        clients: &Clients,
        room: &super::Room,
        handle: &Room,
        role: Role,
        group: usize,
    ) -> Result<Joined, Failure> {
        let mut joined = Joined::new(wall_ns());
        let mut own = None;
        if role != Role::Subscriber {
            own = Some(self.publish(clients, room, handle, role, group, &mut joined).await?);
        }
        if role != Role::Publisher {
            // The protocol of the room tells of later feeds one by one; here everybody waits for all of them first.
            let mut feeds = handle.feeds.subscribe();
            let wanted = room.senders as usize;
            let feeds = tokio::time::timeout(TIMEOUT, feeds.wait_for(|feeds| feeds.len() >= wanted)).await;
            let feeds = feeds.map_err(|_| "not everybody published".to_owned())?.map_err(failure)?.clone();
            joined.started = wall_ns();
            let others: Vec<u64> = feeds.into_iter().filter(|feed| Some(*feed) != own).collect();
            self.subscribe(clients, room, handle, role, group, &others, &mut joined).await?;
        }
        Ok(joined)
    }

    /// Publishes; the feed's id.
    async fn publish(
        &self,
        clients: &Clients,
        room: &super::Room,
        handle: &Room,
        role: Role,
        group: usize,
        joined: &mut Joined,
    ) -> Result<u64, Failure> {
        let mut peer = clients.peer(room, role, group, 0)?;
        let plugin = self.attach().await?;
        let body = json!({"request": "joinandconfigure", "ptype": "publisher", "room": handle.id, "display": "load"});
        let offer = json!({"type": "offer", "sdp": peer.offer_to_send()});
        let reply = self.message(plugin, body, Some(offer)).await?;
        let answer = reply["jsep"]["sdp"].as_str().ok_or_else(|| format!("no answer from Janus: {reply}"))?;
        peer.accept_answer(answer)?;
        joined.sends = Some(Arc::clone(&peer.shared));
        joined.keep(peer);
        let feed = number(&reply["plugindata"]["data"]["id"])?;
        handle.feeds.send_modify(|feeds| feeds.push(feed));
        Ok(feed)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller")]
    async fn subscribe(
        &self,
        clients: &Clients,
        room: &super::Room,
        handle: &Room,
        role: Role,
        group: usize,
        feeds: &[u64],
        joined: &mut Joined,
    ) -> Result<(), Failure> {
        let mut peer = clients.peer(room, role, group, clients.expected_streams(room, role))?;
        let plugin = self.attach().await?;
        let streams: Vec<Value> = feeds.iter().map(|feed| json!({"feed": feed})).collect();
        let body = json!({"request": "join", "ptype": "subscriber", "room": handle.id, "streams": streams});
        let deadline = Instant::now() + TIMEOUT;
        let reply = loop {
            match self.message(plugin, body.clone(), None).await {
                // Janus knows a feed only once its publisher is connected.
                Err(refusal) if refusal.contains(NO_SUCH_FEED) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                reply => break reply?,
            }
        };
        let offer = reply["jsep"]["sdp"].as_str().ok_or_else(|| format!("no offer from Janus: {reply}"))?;
        let answer = json!({"type": "answer", "sdp": peer.answer(offer)?});
        self.message(plugin, json!({"request": "start"}), Some(answer)).await?;
        peer.answer_delivered();
        joined.receives.push(Arc::clone(&peer.shared));
        let _: Arc<Mutex<_>> = joined.keep(peer);
        Ok(())
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        let goodbye = json!({"janus": "destroy", "session_id": self.session, "transaction": "destroy"});
        let _ = self.send.send(Message::text(goodbye.to_string()));
    }
}

fn number(value: &Value) -> Result<u64, Failure> {
    value.as_u64().ok_or_else(|| "the reply is not Janus'".to_owned())
}
