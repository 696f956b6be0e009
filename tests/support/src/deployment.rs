//! The real binary as a deployment: one process, or several over RabbitMQ and MongoDB.

use serde_json::{Value, json};

use crate::http::Http;
use crate::polling::{JoinOptions, PollingClient};
use crate::process::Process;
use crate::services::Services;

/// The API key of every deployment, long enough for HS256.
pub const KEY_ID: &str = "test-key";
pub const KEY_SECRET: &str = "a-secret-for-tests-that-is-longer-than-32-bytes";

/// How a deployment is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Everything in one process, on the embedded broker and store.
    Embedded,
    /// So many API and worker processes over RabbitMQ and MongoDB.
    Cluster { apis: usize, workers: usize },
}

/// Running processes; they end when this is dropped.
pub struct Deployment {
    /// Empty when everything is in the one API process.
    pub workers: Vec<Process>,
    pub apis: Vec<Process>,
    urls: Vec<String>,
    arguments: Vec<String>,
    // Dropped last, after the processes that use them.
    _services: Option<Services>,
}

impl Deployment {
    /// # Panics
    /// With the log of the process that did not start.
    pub async fn start(shape: Shape) -> Self {
        Self::start_with(shape, &[]).await
    }

    /// The same with more arguments for every process.
    pub async fn start_with(shape: Shape, arguments: &[&str]) -> Self {
        let key = format!("{KEY_ID}:{KEY_SECRET}");
        let mut common = vec!["--api-keys", &key, "--media-address", "127.0.0.1", "--media-port", "0"];
        common.extend(arguments);
        let mut environment = vec![("SWITCHYARD_LISTEN", "127.0.0.1:0"), ("SWITCHYARD_DEMO", "true")];
        environment.push(("SWITCHYARD_LOG", "info,rest_api=debug,media_worker=debug"));
        let (services, mut workers, mut apis) = match shape {
            Shape::Embedded => (None, Vec::new(), vec![Process::start("all", &common, &environment)]),
            Shape::Cluster { apis, workers } => {
                let services = Services::claim().await;
                environment.push(("SWITCHYARD_BROKER", &services.broker));
                environment.push(("SWITCHYARD_STORE", &services.store));
                let part = |name: &str| {
                    let arguments: Vec<&str> = [name].into_iter().chain(common.iter().copied()).collect();
                    Process::start(name, &arguments, &environment)
                };
                let workers: Vec<Process> = (0..workers).map(|_| part("worker")).collect();
                let apis: Vec<Process> = (0..apis).map(|_| part("api")).collect();
                drop(environment);
                (Some(services), workers, apis)
            }
        };
        for worker in &mut workers {
            worker.worker();
        }
        let urls = apis.iter_mut().map(Process::url).collect();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { workers, apis, urls, arguments, _services: services }
    }

    /// One more worker of a cluster, with the arguments of the others.
    ///
    /// # Panics
    /// With its log when it does not start, and when everything is in one process.
    pub fn start_worker(&mut self) -> String {
        let services = self._services.as_ref().expect("a cluster");
        let key = format!("{KEY_ID}:{KEY_SECRET}");
        let environment = [
            ("SWITCHYARD_BROKER", services.broker.as_str()),
            ("SWITCHYARD_STORE", services.store.as_str()),
            ("SWITCHYARD_LOG", "info,rest_api=debug,media_worker=debug"),
        ];
        let mut arguments =
            vec!["worker", "--api-keys", &key, "--media-address", "127.0.0.1", "--media-port", "0"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let mut worker = Process::start("worker", &arguments, &environment);
        let id = worker.worker();
        self.workers.push(worker);
        id
    }

    /// The base URLs of the API instances.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// A client without credentials, alternating between the API instances.
    pub fn http(&self) -> Http {
        Http::new(&self.urls)
    }

    /// A client as the application's backend has it.
    pub fn backend(&self) -> Http {
        self.http().with_key(KEY_ID, KEY_SECRET)
    }

    /// Creates a session.
    pub async fn room(&self) -> Room {
        let created = self.backend().post("/v1/sessions", &json!({"name": "test room"})).await.expect(201);
        Room {
            id: text(&created["session"]["id"]),
            token: text(&created["token"]),
            link: text(&created["join_link"]),
            http: self.http(),
            backend: self.backend(),
        }
    }

    /// Everything the processes logged.
    pub fn logs(&self) -> String {
        self.apis.iter().chain(&self.workers).map(Process::log).collect()
    }
}

/// A string of a JSON document.
///
/// # Panics
/// When it is none.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("expected a string, got {value}")).to_owned()
}

/// A session and what its creator got.
pub struct Room {
    pub id: String,
    /// The join token.
    pub token: String,
    pub link: String,
    pub http: Http,
    pub backend: Http,
}

impl Room {
    /// A participant that publishes audio and video.
    pub async fn join(&self, name: &str) -> PollingClient {
        self.join_as(JoinOptions::publishing(name)).await
    }

    /// # Panics
    /// When the join is refused.
    pub async fn join_as(&self, options: JoinOptions) -> PollingClient {
        let name = options.name.clone();
        PollingClient::join(&self.http, &self.id, &self.token, options)
            .await
            .unwrap_or_else(|error| panic!("{name} could not join: {error}"))
    }

    /// The path of a participant.
    pub fn participant_path(&self, participant_id: &str) -> String {
        format!("/v1/sessions/{}/participants/{participant_id}", self.id)
    }

    /// The session as the backend sees it.
    pub async fn session(&self) -> Value {
        self.backend.get(&format!("/v1/sessions/{}", self.id)).await.expect(200)
    }
}
