//! Plain HTTP, as a client without our SDK would speak it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::eventually::patience;

/// Longer than the longest long poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a request is repeated until it has a result. Longer than any outage that tests make. Seconds.
const INSISTENCE: f64 = 150.0;
const INSIST_PAUSE: Duration = Duration::from_millis(200);

/// A client of the API. Consecutive requests go to the API instances in turn, also across its clones.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    bases: Arc<[String]>,
    next: Arc<AtomicUsize>,
    authorization: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub command_id: Option<String>,
    pub retry_after: Option<String>,
    /// `Null` when there is none, or when it is not JSON.
    pub body: Value,
}

impl Response {
    /// The problem's `code`, or nothing when this is no problem.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The body of a response that has this status.
    ///
    /// # Panics
    /// With the whole response when it has another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "unexpected response: {self:?}");
        self.body
    }

    /// Asserts status and stable code, and that the body is a problem that says so (RFC 9457).
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "unexpected response: {self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert!(self.body["title"].is_string() && self.body["type"].is_string(), "{self:?}");
    }
}

impl Http {
    pub fn new(bases: &[String]) -> Self {
        assert!(!bases.is_empty(), "an API to ask");
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .expect("an HTTP client can be made");
        Self { client, bases: bases.into(), next: Arc::default(), authorization: None }
    }

    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// The same client with a participant's or a join link's token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self.clone() }
    }

    /// The same client with an API key.
    pub fn with_key(&self, id: &str, secret: &str) -> Self {
        Self {
            authorization: Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))),
            ..self.clone()
        }
    }

    pub fn without_credentials(&self) -> Self {
        Self { authorization: None, ..self.clone() }
    }

    /// A request to the next API instance.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let request = self.client.request(method, format!("{}{path}", self.bases[turn % self.bases.len()]));
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// The same request, with the same key, until it has a result: for who must bear that an API instance dies, or that
    /// broker or store are away. Gives up after a while, with what came last.
    ///
    /// # Errors
    /// In words, when there never was a result.
    pub async fn insist(&self, method: Method, path: &str, body: &Value) -> Result<Response, String> {
        let key = format!("cmd_{}", Uuid::now_v7());
        let started = Instant::now();
        loop {
            let request = self.request(method.clone(), path).header("Idempotency-Key", &key).json(body);
            let last = match try_send(request).await {
                Ok(reply) if ![202, 503, 504].contains(&reply.status) => return Ok(reply),
                Ok(reply) => format!("{reply:?}"),
                Err(error) => format!("{error:?}"),
            };
            if started.elapsed() >= patience(INSISTENCE) {
                return Err(format!("no result of {method} {path}: {last}"));
            }
            tokio::time::sleep(INSIST_PAUSE).await;
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Response {
        send(self.request(Method::PATCH, path).json(body)).await
    }
}

/// Sends it and reads all that comes back.
///
/// # Panics
/// When there is no response at all.
pub async fn send(request: reqwest::RequestBuilder) -> Response {
    try_send(request).await.unwrap_or_else(|error| panic!("no response: {error:?}"))
}

/// What comes back as text, when that is no JSON.
pub async fn try_text(request: reqwest::RequestBuilder) -> Result<String, reqwest::Error> {
    request.send().await?.error_for_status()?.text().await
}

/// The same for who can do without a response.
pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
    let response = request.send().await?;
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (status, content_type) = (response.status().as_u16(), header("content-type").unwrap_or_default());
    let (command_id, retry_after) = (header("command-id"), header("retry-after"));
    let bytes = response.bytes().await?;
    Ok(Response {
        status,
        content_type,
        command_id,
        retry_after,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    })
}
