//! The real binary as a deployment: one process, or several over RabbitMQ and MongoDB.

use std::path::Path;

use serde_json::{Value, json};

use crate::http::Http;
use crate::inspect::BrokerView;
use crate::polling::{JoinOptions, PollingClient};
use crate::process::{Process, binary};
use crate::services::{Location, Services};

/// The API key of every deployment, long enough for HS256.
pub const KEY_ID: &str = "test-key";
pub const KEY_SECRET: &str = "a-secret-for-tests-that-is-longer-than-32-bytes";

/// Whichever port is free.
const ANYWHERE: &str = "127.0.0.1:0";

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
    /// None when everything is in one process.
    location: Option<Location>,
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
        match shape {
            Shape::Embedded => Self::start_parts(None, None, 1, 0, arguments),
            Shape::Cluster { apis, workers } => {
                let services = Services::claim().await;
                Self::start_parts(Some(services.location()), Some(services), apis, workers, arguments)
            }
        }
    }

    /// So many API and worker processes over servers that the caller keeps alive (or not).
    ///
    /// # Panics
    /// With the log of the process that did not start.
    pub fn start_at(location: Location, apis: usize, workers: usize, arguments: &[&str]) -> Self {
        Self::start_parts(Some(location), None, apis, workers, arguments)
    }

    fn start_parts(
        location: Option<Location>,
        services: Option<Services>,
        apis: usize,
        workers: usize,
        arguments: &[&str],
    ) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let (urls, none) = (Vec::new(), Vec::new());
        let mut deployment =
            Self { workers: none, apis: Vec::new(), urls, arguments, location, _services: services };
        deployment.workers = (0..workers).map(|_| deployment.part("worker", ANYWHERE, &[])).collect();
        deployment.apis = (0..apis).map(|_| deployment.part("api", ANYWHERE, &[])).collect();
        for worker in &mut deployment.workers {
            worker.worker();
        }
        deployment.urls = deployment.apis.iter_mut().map(Process::url).collect();
        deployment
    }

    /// A cluster of several versions: one API and one worker of each of these programs.
    ///
    /// # Panics
    /// With the log of the process that did not start.
    pub async fn start_programs(apis: &[&Path], workers: &[&Path], arguments: &[&str]) -> Self {
        let services = Services::claim().await;
        let mut deployment = Self::start_parts(Some(services.location()), Some(services), 0, 0, arguments);
        for program in workers {
            deployment.start_worker_of(program);
        }
        for program in apis {
            let mut api = deployment.part_of(program, "api", ANYWHERE, &[]);
            deployment.urls.push(api.url());
            deployment.apis.push(api);
        }
        deployment
    }

    /// One more worker, of this program.
    ///
    /// # Panics
    /// With its log when it does not start.
    pub fn start_worker_of(&mut self, program: &Path) -> String {
        let mut worker = self.part_of(program, "worker", ANYWHERE, &[]);
        let id = worker.worker();
        self.workers.push(worker);
        id
    }

    /// Starts a process. Without a location it is all parts in one.
    fn part(&self, name: &str, listen: &str, more: &[&str]) -> Process {
        self.part_of(&binary(), name, listen, more)
    }

    fn part_of(&self, program: &Path, name: &str, listen: &str, more: &[&str]) -> Process {
        let key = format!("{KEY_ID}:{KEY_SECRET}");
        let log = std::env::var("SWITCHYARD_TEST_LOG");
        let log = log.as_deref().unwrap_or("info,rest_api=debug,media_worker=debug");
        let mut environment =
            vec![("SWITCHYARD_LISTEN", listen), ("SWITCHYARD_DEMO", "true"), ("SWITCHYARD_LOG", log)];
        let mut arguments = Vec::new();
        if let Some(location) = &self.location {
            arguments.push(name);
            environment.push(("SWITCHYARD_BROKER", &location.broker));
            environment.push(("SWITCHYARD_STORE", &location.store));
        }
        arguments.extend(["--api-keys", &key, "--media-address", "127.0.0.1", "--media-port", "0"]);
        arguments.extend(self.arguments.iter().map(String::as_str).chain(more.iter().copied()));
        let name = if self.location.is_some() { name } else { "all" };
        Process::start_program(program, name, &arguments, &environment)
    }

    /// One more worker of a cluster, with the arguments of the others.
    ///
    /// # Panics
    /// With its log when it does not start, and when everything is in one process.
    pub fn start_worker(&mut self) -> String {
        self.start_worker_with(&[])
    }

    /// The same with arguments of its own.
    pub fn start_worker_with(&mut self, more: &[&str]) -> String {
        assert!(self.location.is_some(), "a cluster");
        let mut worker = self.part("worker", ANYWHERE, more);
        let id = worker.worker();
        self.workers.push(worker);
        id
    }

    /// Kills an API instance (SIGKILL).
    pub fn kill_api(&mut self, index: usize) {
        self.apis.remove(index).kill();
    }

    /// Starts the successor of the API instance that was killed, at the same address and index.
    ///
    /// # Panics
    /// With its log when it does not start.
    pub fn start_api_again(&mut self, index: usize) {
        let listen = self.urls[index].trim_start_matches("http://").to_owned();
        let mut api = self.part("api", &listen, &[]);
        assert_eq!(api.url(), self.urls[index]);
        self.apis.insert(index, api);
    }

    /// What this cluster's broker holds.
    ///
    /// # Panics
    /// When everything is in one process.
    pub fn broker(&self) -> BrokerView {
        BrokerView::new(self.location.as_ref().expect("a cluster"))
    }

    /// Where this cluster's broker and store are.
    ///
    /// # Panics
    /// When everything is in one process.
    pub fn location(&self) -> &Location {
        self.location.as_ref().expect("a cluster")
    }

    /// The base URLs of all ports for operators: each API's, then each worker's. Only with `--admin-listen`.
    pub fn admins(&mut self) -> Vec<String> {
        self.apis.iter_mut().chain(&mut self.workers).map(Process::admin).collect()
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
        self.room_with(&json!({})).await
    }

    /// Creates a session with these settings.
    pub async fn room_with(&self, settings: &Value) -> Room {
        let body = json!({"name": "test room", "settings": settings});
        let created = self.backend().post("/v1/sessions", &body).await.expect(201);
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
