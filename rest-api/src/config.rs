//! What the API is told by whoever starts it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::token::ApiKeys;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One entry of `RTCConfiguration.iceServers` (W3C webrtc, section 4.2.2), passed to clients as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` URLs.
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Without the credential.
impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Gives the text of `/metrics` (the Prometheus exposition format).
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The API's configuration.
#[derive(Clone)]
pub struct ApiConfig {
    /// Who may call; at least one.
    pub keys: ApiKeys,
    /// Where clients reach this API, without a slash at the end; join links start with it. `None` takes the
    /// request's own `Host`.
    pub public_url: Option<String>,
    /// Ids of the keys that may list workers and drain them.
    pub operator_keys: Vec<String>,
    /// A development key is in use: only requests for a loopback name are answered (DNS rebinding would otherwise let
    /// any web page talk to it).
    pub dev: bool,
    /// `POST /v1/demo/links` gives join links to anybody.
    pub demo: bool,
    /// Sent to clients with every join.
    pub ice_servers: Vec<IceServer>,
    /// How long a request waits for its result when it does not say (`Prefer: wait`). At most 30 s.
    pub request_wait: Duration,
    /// How long a participant token lives; every join makes a new one.
    pub participant_token_ttl: Duration,
    /// Text of `/metrics`; `None` when nothing records metrics in this process.
    pub metrics: Option<RenderMetrics>,
    /// Open connections of this process; beyond it new ones wait in the listen backlog.
    pub max_connections: usize,
    pub timings: Timings,
}

impl ApiConfig {
    /// The defaults, for these keys.
    pub fn new(keys: ApiKeys) -> Self {
        Self {
            keys,
            public_url: None,
            operator_keys: Vec::new(),
            dev: false,
            demo: false,
            ice_servers: Vec::new(),
            request_wait: Duration::from_secs(5),
            participant_token_ttl: Duration::from_secs(6 * 60 * 60),
            metrics: None,
            max_connections: 20_000,
            timings: Timings::default(),
        }
    }
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig")
            .field("keys", &self.keys)
            .field("public_url", &self.public_url)
            .field("dev", &self.dev)
            .field("demo", &self.demo)
            .field("ice_servers", &self.ice_servers)
            .field("request_wait", &self.request_wait)
            .field("max_connections", &self.max_connections)
            .field("timings", &self.timings)
            .finish_non_exhaustive()
    }
}

/// Times that nobody needs to change in production; tests shorten them.
#[derive(Debug, Clone)]
pub struct Timings {
    /// A worker that gets a command later than this refuses it, and its message is dropped.
    pub command_deadline: Duration,
    /// SSE comments and WebSocket pings. A WebSocket that is silent for two and a half of these is closed.
    pub keep_alive: Duration,
    /// A user queue that was polled is held this long for the next poll before other instances may have it without
    /// asking. Longer than the longest poll, shorter than the queue's own expiry.
    pub lease_idle: Duration,
    /// How long taking a user queue over from another reader may take before the answer is 503.
    pub take_over: Duration,
    /// A stream whose client takes no bytes for this long is closed.
    pub write_timeout: Duration,
    /// Request head and body must be there within this time.
    pub read_timeout: Duration,
    /// How long open requests may go on after the shutdown began.
    pub shutdown_grace: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            command_deadline: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            lease_idle: Duration::from_secs(35),
            take_over: Duration::from_secs(2),
            write_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
