//! A client that plays the API: sends commands, waits for replies, reads user queues.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use common::broker::{Broker, Destination, Inbox, InboxOptions, Message, topology};
use common::message::{
    Command, CommandBody, CommandError, ErrorCode, Event, EventBody, JoinReply, Offer, Reply, ReplyBody,
    VERSION,
};
use common::model::{
    Bitrates, CommandId, EndpointId, Grants, InstanceId, ParticipantId, Session, SessionId, SessionSettings,
    WorkerId,
};
use common::time::UnixMillis;
use tokio::sync::{Mutex, watch};

use super::{eventually, patience};

pub const KEY: &str = "key1";
pub const GRANTS: Grants =
    Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Bitrates::UNSET };

type Received = HashMap<CommandId, Vec<Reply>>;

/// One API instance.
pub struct Api {
    pub broker: Arc<dyn Broker>,
    reply_to: String,
    received: watch::Receiver<Received>,
}

impl Api {
    pub async fn start(broker: Arc<dyn Broker>) -> Self {
        let queue = topology::replies_queue(InstanceId::new());
        broker.declare_queue(&queue).await.unwrap();
        broker.declare_queue(&topology::workers_queue()).await.unwrap();
        broker.declare_queue(&topology::dead_letters_queue()).await.unwrap();
        let mut inbox = open(&*broker, &queue.name).await;
        let (replies, received) = watch::channel(Received::new());
        tokio::spawn(async move {
            while let Some(delivery) = inbox.next().await {
                let reply: Reply = serde_json::from_slice(&delivery.message.body).expect("a reply");
                replies.send_modify(|received| received.entry(reply.command_id).or_default().push(reply));
                let _ = delivery.acknowledge().await;
            }
        });
        Self { broker, reply_to: queue.name, received }
    }

    pub fn command(&self, body: CommandBody) -> Command {
        Command {
            version: VERSION,
            command_id: CommandId::new(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            sent_at: None,
            deadline: UnixMillis::now().plus(Duration::from_secs(60)),
            reply_to: self.reply_to.clone(),
            body,
        }
    }

    pub async fn send(&self, queue: &str, command: &Command) {
        self.send_raw(queue, &command.command_id.to_string(), serde_json::to_vec(command).unwrap()).await;
    }

    pub async fn send_raw(&self, queue: &str, message_id: &str, body: Vec<u8>) {
        let message = Message { body, message_id: message_id.to_owned(), ttl: None };
        self.broker.send(Destination::Queue(queue), message).await.unwrap();
    }

    /// Waits until this many replies to a command have come, and gives all.
    pub async fn replies(&self, command_id: CommandId, count: usize) -> Vec<Reply> {
        let mut received = self.received.clone();
        let enough =
            |received: &Received| received.get(&command_id).is_some_and(|replies| replies.len() >= count);
        let received = tokio::time::timeout(patience(), received.wait_for(enough)).await;
        received.expect("a reply in time").expect("the API runs")[&command_id].clone()
    }

    pub fn replies_so_far(&self, command_id: CommandId) -> usize {
        self.received.borrow().get(&command_id).map_or(0, Vec::len)
    }

    pub async fn call(&self, queue: &str, body: CommandBody) -> Result<ReplyBody, CommandError> {
        self.call_with(queue, &self.command(body)).await
    }

    pub async fn call_with(&self, queue: &str, command: &Command) -> Result<ReplyBody, CommandError> {
        self.send(queue, command).await;
        self.replies(command.command_id, 1).await.remove(0).result
    }

    pub async fn refusal(&self, queue: &str, body: CommandBody) -> ErrorCode {
        self.call(queue, body).await.expect_err("to be refused").code
    }

    /// To the worker's own queue.
    pub async fn tell(&self, worker: WorkerId, body: CommandBody) -> Result<ReplyBody, CommandError> {
        self.call(&topology::worker_queue_name(worker), body).await
    }

    pub async fn create(&self) -> SessionId {
        let session_id = SessionId::new();
        self.declare(session_id).await;
        let body = CommandBody::CreateSession {
            session_id,
            name: Some("test".to_owned()),
            key_id: KEY.to_owned(),
            settings: SessionSettings::default(),
        };
        let session = created(self.call(topology::WORKERS, body).await);
        assert_eq!(session.id, session_id);
        session_id
    }

    pub async fn declare(&self, session_id: SessionId) {
        self.broker.declare_queue(&topology::session_queue(session_id)).await.unwrap();
        self.broker.declare_exchange(&topology::session_exchange_name(session_id)).await.unwrap();
    }

    pub async fn join(&self, session: SessionId) -> JoinReply {
        self.join_as(session, ParticipantId::new(), None).await.expect("to join")
    }

    pub async fn join_as(
        &self,
        session: SessionId,
        participant: ParticipantId,
        offer: Option<Offer>,
    ) -> Result<JoinReply, CommandError> {
        let body = join_body(session, participant, offer);
        self.call(&topology::session_queue_name(session), body).await.map(joined)
    }

    /// As clients do that are told to come back in a moment: nobody can know yet whether the session's worker lives.
    pub async fn join_patiently(&self, session: SessionId, participant: ParticipantId) -> JoinReply {
        eventually("joined", async || match self.join_as(session, participant, None).await {
            Ok(reply) => Some(reply),
            Err(error) if error.code == ErrorCode::Unavailable && error.retry_after.is_some() => None,
            Err(error) => panic!("join refused: {error:?}"),
        })
        .await
    }

    pub async fn close(&self, session_id: SessionId) -> Result<ReplyBody, CommandError> {
        self.call(&topology::session_queue_name(session_id), CommandBody::CloseSession { session_id }).await
    }

    /// Declares, binds and reads the queue of the endpoint that the participant's next join makes.
    pub async fn events(&self, session: SessionId, participant: ParticipantId) -> Events {
        let endpoint = EndpointId::new();
        PREPARED.lock().unwrap().insert(participant, endpoint);
        let queue = topology::user_queue(session, participant, endpoint);
        self.broker.declare_queue(&queue).await.unwrap();
        self.broker.bind(&queue.name, &topology::session_exchange_name(session)).await.unwrap();
        Events { inbox: open(&*self.broker, &queue.name).await }
    }
}

/// Endpoints whose queue is there already, by the participant that joins with it next.
static PREPARED: LazyLock<std::sync::Mutex<HashMap<ParticipantId, EndpointId>>> =
    LazyLock::new(std::sync::Mutex::default);

pub fn join_body(session: SessionId, participant: ParticipantId, offer: Option<Offer>) -> CommandBody {
    CommandBody::Join {
        session_id: session,
        participant_id: participant,
        endpoint_id: PREPARED.lock().unwrap().remove(&participant).unwrap_or_else(EndpointId::new),
        name: "Ada".to_owned(),
        grants: GRANTS,
        server_offers: false,
        offer,
        bitrates: Bitrates::UNSET,
        last_n: None,
        fixed: None,
        token_issued_at: None,
    }
}

pub fn joined(reply: ReplyBody) -> JoinReply {
    match reply {
        ReplyBody::Joined(joined) => *joined,
        other => panic!("not a join reply: {other:?}"),
    }
}

pub fn created(reply: Result<ReplyBody, CommandError>) -> Session {
    match reply {
        Ok(ReplyBody::SessionCreated { session }) => *session,
        other => panic!("not created: {other:?}"),
    }
}

pub async fn open(broker: &dyn Broker, queue: &str) -> Box<dyn Inbox> {
    broker.open_inbox(queue, InboxOptions { prefetch: 100, exclusive: false }).await.unwrap()
}

/// One participant's events.
pub struct Events {
    inbox: Box<dyn Inbox>,
}

impl Events {
    pub async fn next(&mut self) -> Event {
        let delivery = loop {
            let delivery =
                tokio::time::timeout(patience(), self.inbox.next()).await.expect("an event in time");
            let delivery = delivery.expect("the user queue is there");
            // As the API does.
            if delivery.message.message_id != topology::PING {
                break delivery;
            }
            delivery.acknowledge().await.unwrap();
        };
        let event: Event = serde_json::from_slice(&delivery.message.body).expect("an event");
        assert_eq!(delivery.message.message_id, event.id.to_string());
        delivery.acknowledge().await.unwrap();
        event
    }

    /// Everything up to and including the first event that is wanted.
    pub async fn until(&mut self, wanted: impl Fn(&EventBody) -> bool) -> Vec<EventBody> {
        let mut seen = Vec::new();
        loop {
            let body = self.next().await.body;
            let is_last = wanted(&body);
            seen.push(body);
            if is_last {
                return seen;
            }
        }
    }

    pub async fn until_kind(&mut self, kind: &str) -> Vec<EventBody> {
        self.until(|body| body.kind() == kind).await
    }
}

/// The shared lock of a dead-letter reader: tests of one broker take turns.
pub static DEAD_LETTERS: Mutex<()> = Mutex::const_new(());

/// Waits for the dead letter with this id and removes it; others are put back by dropping the inbox.
pub async fn dead_letter(broker: &dyn Broker, message_id: &str) -> Message {
    let _turn = DEAD_LETTERS.lock().await;
    let options = InboxOptions { prefetch: 1_000, exclusive: false };
    let mut inbox = broker.open_inbox(topology::DEAD_LETTERS, options).await.unwrap();
    let mut others = Vec::new();
    let search = async {
        loop {
            let delivery = inbox.next().await.expect("the dead-letter queue is there");
            if delivery.message.message_id == message_id {
                let message = Message::clone(&delivery.message);
                delivery.acknowledge().await.unwrap();
                return message;
            }
            others.push(delivery);
        }
    };
    tokio::time::timeout(patience(), search).await.expect("the dead letter in time")
}
