//! A receiver of webhooks, as an application's server is one: it notes what comes and answers as a test wants it to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::eventually::eventually_within;
use crate::patience;

/// How a session's webhooks are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Take,
    Status(u16),
    /// Never.
    Hang,
}

/// What came, whatever it was answered.
#[derive(Debug, Clone)]
pub struct Came {
    pub authorization: String,
    pub content_type: String,
    pub body: Bytes,
    pub json: Value,
    pub taken: bool,
}

#[derive(Default)]
struct Notes {
    came: Vec<Came>,
    answers: HashMap<String, Answer>,
    otherwise: Option<Answer>,
}

/// A real HTTP server on the loopback interface.
pub struct Receiver {
    address: std::net::SocketAddr,
    notes: Arc<Mutex<Notes>>,
    server: Option<JoinHandle<()>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let notes = Arc::new(Mutex::new(Notes::default()));
        let server = Some(serve(listener, notes.clone()));
        Self { address, notes, server }
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?secret=in-the-url", self.address)
    }

    /// Nobody listens any more, and open connections end.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Listens again where it did.
    pub async fn start_again(&mut self) {
        let address = self.address;
        let listener = eventually_within(patience(20.0), "the port is free again", || async move {
            TcpListener::bind(address).await.map_err(|error| error.to_string())
        })
        .await;
        self.server = Some(serve(listener, self.notes.clone()));
    }

    /// How webhooks of this session are answered from now on.
    pub fn answer(&self, session: &str, answer: Answer) {
        self.lock().answers.insert(session.to_owned(), answer);
    }

    /// How all others are.
    pub fn answer_all(&self, answer: Answer) {
        let mut notes = self.lock();
        notes.answers.clear();
        notes.otherwise = Some(answer);
    }

    /// All that came of a session.
    pub fn came(&self, session: &str) -> Vec<Came> {
        let notes = self.lock();
        notes.came.iter().filter(|came| came.json["session"]["id"] == session).cloned().collect()
    }

    /// What it took of a session, as (number, event).
    pub fn taken(&self, session: &str) -> Vec<(i64, String)> {
        let taken = self.came(session).into_iter().filter(|came| came.taken);
        taken
            .map(|came| (number(&came.json), came.json["event"].as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// Waits until it took this event of a session.
    pub async fn takes(&self, session: &str, event: &str) {
        self.takes_within(patience(20.0), session, event).await;
    }

    pub async fn takes_within(&self, bound: Duration, session: &str, event: &str) {
        eventually_within(bound, &format!("{event} is taken"), || async {
            let taken = self.taken(session);
            if taken.iter().any(|(_, name)| name == event) { Ok(()) } else { Err(format!("{taken:?}")) }
        })
        .await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("no test panics in here")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn number(json: &Value) -> i64 {
    json["number"].as_i64().unwrap_or_default()
}

/// The connections end with the task: each is served in it.
fn serve(listener: TcpListener, notes: Arc<Mutex<Notes>>) -> JoinHandle<()> {
    let router = Router::new().route("/hook", post(take)).with_state(notes);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections.spawn(async move {
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn take(State(notes): State<Arc<Mutex<Notes>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let session = json["session"]["id"].as_str().unwrap_or_default().to_owned();
    let answer = {
        let mut notes = notes.lock().expect("no test panics in here");
        let answer = notes.answers.get(&session).copied().or(notes.otherwise).unwrap_or(Answer::Take);
        notes.came.push(Came {
            authorization: text(header::AUTHORIZATION),
            content_type: text(header::CONTENT_TYPE),
            body,
            json,
            taken: answer == Answer::Take,
        });
        answer
    };
    match answer {
        Answer::Take => StatusCode::NO_CONTENT,
        Answer::Status(status) => StatusCode::from_u16(status).expect("tests give real ones"),
        Answer::Hang => std::future::pending().await,
    }
}
