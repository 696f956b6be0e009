//! What the API's tests stand on: real API servers on loopback sockets over the embedded broker and store, a client that
//! holds every response against the OpenAPI document, and the worker's side of the protocol.

mod client;
mod counting;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use common::broker::embedded::EmbeddedBroker;
use common::broker::rabbitmq::RabbitBroker;
use common::broker::{Broker, Destination, Message, topology};
use common::message::{Event, EventBody};
use common::model::{EndpointId, EventId, ParticipantId, SessionId};
use common::store::Store;
use common::store::embedded::EmbeddedStore;
use common::token::{ApiKeys, Claims, VideoGrants};
use rest_api::ApiConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use client::{Auth, Client, Replied};
pub use counting::CountingStore;
pub use worker::{Action, Worker};

pub const KEY: &str = "key1";
pub const SECRET: &str = "the-secret-of-key-one";
pub const OTHER_KEY: &str = "key2";
pub const OTHER_SECRET: &str = "the-secret-of-key-two";

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn keys() -> ApiKeys {
    ApiKeys::new([(KEY, SECRET), (OTHER_KEY, OTHER_SECRET)]).unwrap()
}

/// Broker, store and any number of API instances and workers.
pub struct System {
    pub broker: Arc<dyn Broker>,
    pub store: Arc<CountingStore>,
    /// Each instance and worker then has a connection of its own, as separate processes have.
    rabbitmq: Option<String>,
    shutdown: CancellationToken,
}

/// One API instance; ends with the test.
pub struct Api {
    pub url: String,
    pub shutdown: CancellationToken,
    pub ended: tokio::task::JoinHandle<Result<(), rest_api::ServeError>>,
}

impl System {
    pub fn new() -> Self {
        Self::over(Arc::new(EmbeddedBroker::new()), None)
    }

    /// Over the RabbitMQ that `SWITCHYARD_TEST_BROKER` names.
    pub async fn over_rabbitmq() -> Self {
        let url = std::env::var("SWITCHYARD_TEST_BROKER").expect(
            "SWITCHYARD_TEST_BROKER must hold the amqp:// URL of a RabbitMQ: run tests/run, which starts one",
        );
        let broker = connect(&url).await;
        Self::over(broker, Some(url))
    }

    fn over(broker: Arc<dyn Broker>, rabbitmq: Option<String>) -> Self {
        let store = Arc::new(CountingStore::new(Arc::new(EmbeddedStore::new())));
        Self { broker, store, rabbitmq, shutdown: CancellationToken::new() }
    }

    async fn own_broker(&self) -> Arc<dyn Broker> {
        match &self.rabbitmq {
            Some(url) => connect(url).await,
            None => self.broker.clone(),
        }
    }

    pub async fn api(&self) -> Api {
        self.api_with(|_| {}).await
    }

    /// An instance with its own configuration.
    pub async fn api_with(&self, change: impl FnOnce(&mut ApiConfig)) -> Api {
        let mut config = ApiConfig::new(keys());
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = self.shutdown.child_token();
        let store: Arc<dyn Store> = self.store.clone();
        let ended =
            tokio::spawn(rest_api::serve(config, self.own_broker().await, store, listener, shutdown.clone()));
        Api { url, shutdown, ended }
    }

    pub async fn worker(&self) -> Worker {
        let store: Arc<dyn Store> = self.store.clone();
        Worker::start(self.own_broker().await, store).await
    }

    /// An API, a worker, and a client with the first key.
    pub async fn single() -> (Self, Api, Worker, Client) {
        let system = Self::new();
        let worker = system.worker().await;
        let api = system.api().await;
        let client = Client::new(&api.url, Auth::Basic(KEY, SECRET));
        (system, api, worker, client)
    }

    /// A participant without any worker: its documents and queues made here. Tests that share a RabbitMQ cannot each
    /// have workers, which would take each other's commands.
    pub async fn member(&self, api: &Api) -> Member {
        let (session, id) = (SessionId::new(), ParticipantId::new());
        self.store.insert_session(&worker::session(session, KEY)).await.unwrap();
        let endpoint = EndpointId::new();
        self.store.put_participant(session, 0, &worker::participant_at(id, endpoint)).await.unwrap();
        let exchange = topology::session_exchange_name(session);
        let queue = topology::user_queue(session, id, endpoint);
        self.broker.declare_exchange(&exchange).await.unwrap();
        self.broker.declare_queue(&queue).await.unwrap();
        self.broker.bind(&queue.name, &exchange).await.unwrap();
        let token = token(VideoGrants::join(session), Some(id));
        let client = Client::new(&api.url, Auth::Bearer(token.clone()));
        Member { session, id, endpoint, token, destination: String::new(), client }
    }

    /// Sends an event into the queue of a member's endpoint, as a worker does.
    pub async fn send_event(&self, member: &Member, body: EventBody) -> EventId {
        let event = Event::new(member.session, body);
        self.send_as_it_is(member, &event).await;
        event.id
    }

    pub async fn send_as_it_is(&self, member: &Member, event: &Event) {
        let message =
            Message { body: serde_json::to_vec(event).unwrap(), message_id: event.id.to_string(), ttl: None };
        self.broker.send(Destination::Queue(&member.queue()), message).await.unwrap();
    }

    /// A numbered event: easy to check for order and loss.
    pub async fn send_number(&self, member: &Member, number: i64) -> EventId {
        self.send_event(member, EventBody::SessionInterrupted { epoch: number }).await
    }
}

async fn connect(url: &str) -> Arc<dyn Broker> {
    let broker =
        RabbitBroker::connect(url).await.expect("SWITCHYARD_TEST_BROKER must name a reachable RabbitMQ");
    Arc::new(broker)
}

impl Drop for System {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A participant that joined, and its client.
#[derive(Clone)]
pub struct Member {
    pub session: SessionId,
    pub id: ParticipantId,
    pub endpoint: EndpointId,
    pub token: String,
    pub destination: String,
    pub client: Client,
}

impl Member {
    /// Below its own path.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/sessions/{}/participants/{}{rest}", self.session, self.id)
    }

    /// Where its endpoint's events are read.
    pub fn events(&self, query: &str) -> String {
        self.path(&format!("/events?endpoint={}&{query}", self.endpoint))
    }

    /// The queue of its endpoint's events.
    pub fn queue(&self) -> String {
        topology::user_queue_name(self.session, self.id, self.endpoint)
    }

    /// A client with its token for another instance.
    pub fn at(&self, api: &Api) -> Client {
        Client::new(&api.url, Auth::Bearer(self.token.clone()))
    }
}

/// Creates a session with the backend's client.
pub async fn create_session(backend: &Client) -> SessionId {
    let created = backend.post("/v1/sessions", json!({})).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.json["session"]["id"].as_str().unwrap().parse().unwrap()
}

/// Joins once more as the same participant, with a new endpoint.
pub async fn rejoin(backend: &Client, member: &Member) -> Member {
    let path = format!("/v1/sessions/{}/participants", member.session);
    let joined = member.client.post(&path, json!({})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    self::member(backend, member.session, &joined)
}

/// Joins a session with a fresh join token.
pub async fn join(backend: &Client, session: SessionId) -> Member {
    let client = backend.with(Auth::Bearer(token(VideoGrants::join(session), None)));
    let joined =
        client.post(&format!("/v1/sessions/{session}/participants"), json!({"name": "somebody"})).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    member(backend, session, &joined)
}

pub fn member(backend: &Client, session: SessionId, joined: &Replied) -> Member {
    let text = |pointer: &str| joined.json.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let token = text("/token");
    Member {
        session,
        id: text("/participant/id").parse().unwrap(),
        endpoint: text("/endpoint_id").parse().unwrap(),
        destination: text("/destination"),
        client: backend.with(Auth::Bearer(token.clone())),
        token,
    }
}

/// A token of the first key that lives a minute.
pub fn token(video: VideoGrants, sub: Option<ParticipantId>) -> String {
    token_of(KEY, Duration::from_secs(60), video, sub)
}

pub fn token_of(key: &str, ttl: Duration, video: VideoGrants, sub: Option<ParticipantId>) -> String {
    let mut claims = Claims::expiring_in(key, ttl, video);
    claims.sub = sub;
    keys().mint(&claims).unwrap()
}

/// Polls until `check` gives something; panics after [`PATIENCE`].
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut check: F) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
