//! What the API is told by whoever starts it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::keyring::Keyring;
use common::model::ParticipantId;
use common::time::UnixMillis;
use common::turn::TurnSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::address::TrustedProxies;
use crate::limits::RequestRates;
use crate::tls::Tls;
use crate::webhooks::WebhookConfig;

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

/// TURN servers that share a secret with this deployment.
#[derive(Debug, Clone)]
pub struct Turn {
    /// `turn:` or `turns:` URLs.
    pub urls: Vec<String>,
    pub secret: TurnSecret,
    /// How long a credential is good.
    pub ttl: Duration,
}

/// Gives the text of `/metrics` (the Prometheus exposition format).
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The API's configuration.
#[derive(Clone)]
pub struct ApiConfig {
    /// Who may call; they may change at any time.
    pub keys: Keyring,
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
    /// Sent with these, with credentials that are made for the participant.
    pub turn: Option<Turn>,
    /// Where WHIP and WHEP clients are sent (307) while nothing here takes them: the address of another deployment that
    /// accepts the same tokens, without a slash at the end.
    pub overflow_url: Option<String>,
    /// How long a request waits for its result when it does not say (`Prefer: wait`). At most 30 s.
    pub request_wait: Duration,
    /// How long a participant token lives; every join makes a new one.
    pub participant_token_ttl: Duration,
    /// Text of `/metrics`; `None` when nothing records metrics in this process.
    pub metrics: Option<RenderMetrics>,
    /// Open connections of this process; beyond it new ones wait in the listen backlog.
    pub max_connections: usize,
    /// Of these, those of one client address (IPv6: one /64); more are closed at once. 0: as many as there may be at all.
    pub max_connections_per_address: usize,
    pub request_rates: RequestRates,
    /// Serve HTTPS with this; plain HTTP when absent.
    pub tls: Option<Tls>,
    /// Who is told what happens in sessions.
    pub webhooks: Option<WebhookConfig>,
    /// Whose forwarding headers count.
    pub trusted_proxies: Arc<TrustedProxies>,
    pub timings: Timings,
}

impl ApiConfig {
    /// The defaults, for these keys.
    pub fn new(keys: impl Into<Keyring>) -> Self {
        Self {
            keys: keys.into(),
            public_url: None,
            operator_keys: Vec::new(),
            dev: false,
            demo: false,
            ice_servers: Vec::new(),
            turn: None,
            overflow_url: None,
            request_wait: Duration::from_secs(5),
            participant_token_ttl: Duration::from_secs(6 * 60 * 60),
            metrics: None,
            max_connections: 20_000,
            max_connections_per_address: 10_000,
            request_rates: RequestRates::default(),
            tls: None,
            webhooks: None,
            trusted_proxies: Arc::default(),
            timings: Timings::default(),
        }
    }

    /// The ICE servers for a participant, with credentials that begin to age now.
    pub fn ice_servers_for(&self, participant: ParticipantId) -> Vec<IceServer> {
        let mut servers = self.ice_servers.clone();
        if let Some(Turn { urls, secret, ttl }) = &self.turn {
            let made = secret.credential(participant, UnixMillis::now(), *ttl);
            let (username, credential) = (Some(made.username), Some(made.password));
            servers.push(IceServer { urls: urls.clone(), username, credential });
        }
        servers
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
            .field("turn", &self.turn)
            .field("request_wait", &self.request_wait)
            .field("max_connections", &self.max_connections)
            .field("tls", &self.tls)
            .field("webhooks", &self.webhooks)
            .field("trusted_proxies", &self.trusted_proxies)
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
    /// A connection's first byte, a request's head behind it, and its body must each be there within this time.
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
