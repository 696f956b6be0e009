//! Settings as they come in: from flags and the environment, or from a TOML file, which the first two beat.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::{ConfigError, refuse};

/// Settings as they come in: all text, all optional. The field names are the setting names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Broker: `embedded:` (inside this process) or `amqp://user:password@host:5672/vhost`
    #[arg(long, env = "SWITCHYARD_BROKER", global = true, value_name = "URL", hide_env_values = true)]
    pub(super) broker: Option<String>,

    /// Store: `embedded:` (inside this process) or `mongodb://host:27017/switchyard?replicaSet=rs0`
    #[arg(long, env = "SWITCHYARD_STORE", global = true, value_name = "URL", hide_env_values = true)]
    pub(super) store: Option<String>,

    /// Address of the REST API and the demo [default: 127.0.0.1:8080]
    #[arg(long, env = "SWITCHYARD_LISTEN", global = true, value_name = "IP:PORT")]
    pub(super) listen: Option<String>,

    /// Address that the media socket binds [default: 0.0.0.0 with API keys, else 127.0.0.1]
    #[arg(long, env = "SWITCHYARD_MEDIA_ADDRESS", global = true, value_name = "IP")]
    pub(super) media_address: Option<String>,

    /// The one UDP port for all media of a worker; 0 takes any free one [default: 0, all in one: 40000 or any]
    #[arg(long, env = "SWITCHYARD_MEDIA_PORT", global = true, value_name = "PORT")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) media_port: Option<String>,

    /// The TCP port for media of clients whose network lets no UDP through: `same` (the number of the media port), `off`
    /// or another port [default: same]
    #[arg(long, env = "SWITCHYARD_MEDIA_TCP_PORT", global = true, value_name = "PORT")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) media_tcp_port: Option<String>,

    /// Addresses, separated by commas, at which clients reach the media port when it is not the bound one (NAT); or where
    /// to ask for them at the start: `stun:host:port`, `dns:name@server` (one that answers with the asker's address)
    #[arg(long, env = "SWITCHYARD_PUBLIC_ADDRESS", global = true, value_name = "IP,…|SOURCE,…")]
    pub(super) public_address: Option<String>,

    /// Address of the API as clients see it, for join links [default: http:// (https:// with a certificate) and the name that the client used]
    #[arg(long, env = "SWITCHYARD_PUBLIC_URL", global = true, value_name = "URL")]
    pub(super) public_url: Option<String>,

    /// Certificate chain (PEM file) to serve HTTPS with; looked at every few seconds, replaced without a restart
    #[arg(long, env = "SWITCHYARD_TLS_CERTIFICATE", global = true, value_name = "FILE")]
    pub(super) tls_certificate: Option<String>,

    /// Private key of that certificate (PEM file)
    #[arg(long, env = "SWITCHYARD_TLS_KEY", global = true, value_name = "FILE")]
    pub(super) tls_key: Option<String>,

    /// Networks of proxies, separated by commas, whose word on who the client is counts [default: none]
    #[arg(long, env = "SWITCHYARD_TRUSTED_PROXIES", global = true, value_name = "CIDR,…")]
    pub(super) trusted_proxies: Option<String>,

    /// Which headers those proxies write: `x-forwarded` (-For and -Proto) or `forwarded` (RFC 7239) [default: x-forwarded]
    #[arg(long, env = "SWITCHYARD_PROXY_HEADERS", global = true, value_name = "KIND")]
    pub(super) proxy_headers: Option<String>,

    /// API keys, `id:secret,…`. Without any: loopback only, with a development key
    #[arg(
        long,
        env = "SWITCHYARD_API_KEYS",
        global = true,
        value_name = "ID:SECRET,…",
        hide_env_values = true
    )]
    pub(super) api_keys: Option<String>,

    /// File with the API keys in place of `api_keys`, an `id:secret` a line; looked at every few seconds and on SIGHUP, so that
    /// keys change without a restart [default: none]
    #[arg(long, env = "SWITCHYARD_API_KEYS_FILE", global = true, value_name = "FILE")]
    pub(super) api_keys_file: Option<String>,

    /// Requests a second of one client address (IPv6: one /64) that an API instance takes; 0: as many as come [default: 5000]
    #[arg(long, env = "SWITCHYARD_MAX_REQUESTS_PER_ADDRESS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_requests_per_address: Option<String>,

    /// The same for one token [default: 500]
    #[arg(long, env = "SWITCHYARD_MAX_REQUESTS_PER_TOKEN", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_requests_per_token: Option<String>,

    /// The same for one API key [default: 2000]
    #[arg(long, env = "SWITCHYARD_MAX_REQUESTS_PER_KEY", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_requests_per_key: Option<String>,

    /// Connections that an API instance has open; more wait (10 to 1000000) [default: 20000, and never more than nine tenths
    /// of the descriptors that the process may have]
    #[arg(long, env = "SWITCHYARD_MAX_CONNECTIONS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_connections: Option<String>,

    /// Of these, those of one client address; more are closed at once. 0: all [default: 10000]
    #[arg(long, env = "SWITCHYARD_MAX_CONNECTIONS_PER_ADDRESS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_connections_per_address: Option<String>,

    /// Whether anyone may open the demo's rooms without a link [default: true without API keys, else false]
    #[arg(long, env = "SWITCHYARD_DEMO", global = true, value_name = "true|false")]
    #[serde(deserialize_with = "text_or_bool")]
    pub(super) demo: Option<String>,

    /// ICE servers for clients, separated by commas, such as `stun:stun.example.org:3478`
    #[arg(long, env = "SWITCHYARD_ICE_SERVERS", global = true, value_name = "URL,…")]
    pub(super) ice_servers: Option<String>,

    /// TURN servers that share `turn_secret` with this deployment, separated by commas, such as `turn:turn.example.org:3478`
    #[arg(long, env = "SWITCHYARD_TURN_URLS", global = true, value_name = "URL,…")]
    pub(super) turn_urls: Option<String>,

    /// What time-limited TURN credentials are made with (coturn: `use-auth-secret` and `static-auth-secret`), or
    /// `file:` and the path of the file that holds it
    #[arg(
        long,
        env = "SWITCHYARD_TURN_SECRET",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) turn_secret: Option<String>,

    /// How long a TURN credential is good, in seconds (60 to 604800) [default: 86400]
    #[arg(long, env = "SWITCHYARD_TURN_TTL", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) turn_ttl: Option<String>,

    /// Address of the worker's own TURN and STUN server, over UDP and TCP, such as `0.0.0.0:3478`. It relays to this worker's
    /// media port and nowhere else. All in one: clients are told of it by themselves; else name it in `turn_urls`
    /// [default: none]
    #[arg(long, env = "SWITCHYARD_TURN_LISTEN", global = true, value_name = "IP:PORT")]
    pub(super) turn_listen: Option<String>,

    /// Ports of its relayed sockets, which only this machine sends to [default: any that the system gives]
    #[arg(long, env = "SWITCHYARD_TURN_RELAY_PORTS", global = true, value_name = "FIRST-LAST")]
    pub(super) turn_relay_ports: Option<String>,

    /// Allocations that it has at a time (1 to 60000) [default: 1000]
    #[arg(long, env = "SWITCHYARD_TURN_MAX_ALLOCATIONS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) turn_max_allocations: Option<String>,

    /// Of these, those of one participant; a browser makes several, for each of its interfaces (1 to 60000) [default: 20]
    #[arg(long, env = "SWITCHYARD_TURN_MAX_ALLOCATIONS_PER_USER", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) turn_max_allocations_per_user: Option<String>,

    /// How long an allocation lasts that its client does not refresh, in seconds (60 to 3600) [default: 600]
    #[arg(long, env = "SWITCHYARD_TURN_LIFETIME", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) turn_lifetime: Option<String>,

    /// Another deployment with the same API keys, to which WHIP and WHEP clients are sent (307) while nothing here takes
    /// them [default: none, they get 503]
    #[arg(long, env = "SWITCHYARD_OVERFLOW_URL", global = true, value_name = "URL")]
    pub(super) overflow_url: Option<String>,

    /// Address of a port for operators: `/healthz`, `/readyz`, `/metrics` and `/log` [default: none]
    #[arg(long, env = "SWITCHYARD_ADMIN_LISTEN", global = true, value_name = "IP:PORT")]
    pub(super) admin_listen: Option<String>,

    /// How long a worker that stops renewing its lease counts as alive, in seconds (3 to 300) [default: 6]
    #[arg(long, env = "SWITCHYARD_LEASE", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) lease: Option<String>,

    /// A worker's name that stays the same over restarts, such as its pod's, so that its sessions come back to it; or a
    /// `wrk_…` id. No two processes may run with one at a time [default: somebody new at every start]
    #[arg(long, env = "SWITCHYARD_WORKER_ID", global = true, value_name = "NAME")]
    pub(super) worker_id: Option<String>,

    /// How long a client that lost its network may take to come back, in seconds (1 to 600) [default: 10]
    #[arg(long, env = "SWITCHYARD_GRACE", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) grace: Option<String>,

    /// How long the clients of a worker that drains (SIGTERM) have to move, in seconds (1 to 3600) [default: 60]
    #[arg(long, env = "SWITCHYARD_DRAIN_TIMEOUT", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) drain_timeout: Option<String>,

    /// How long a session may be without participants before it ends, in seconds; 0: as long as it likes (0 to 2592000)
    /// [default: 300]
    #[arg(long, env = "SWITCHYARD_EMPTY_TIMEOUT", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) empty_timeout: Option<String>,

    /// How long the record of a session that ended is kept, in seconds (1 to 2592000) [default: 3600]
    #[arg(long, env = "SWITCHYARD_CLOSED_RETENTION", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) closed_retention: Option<String>,

    /// Media threads of a worker; 0 is one for every two cores, at most 4 (0 to 64) [default: 0]
    #[arg(long, env = "SWITCHYARD_MEDIA_THREADS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) media_threads: Option<String>,

    /// Endpoints (client connections) that a worker takes; more are refused with 503 (1 to 1000000) [default: 10000]
    #[arg(long, env = "SWITCHYARD_MAX_ENDPOINTS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_endpoints: Option<String>,

    /// Packets sent in a second above which a worker takes no more endpoints; 0 is 200000 for each media thread [default: 0]
    #[arg(long, env = "SWITCHYARD_MAX_PACKETS_PER_SECOND", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_packets_per_second: Option<String>,

    /// Published and subscribed tracks from which on a worker takes no more endpoints and tracks [default: 200000]
    #[arg(long, env = "SWITCHYARD_MAX_TRACKS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_tracks: Option<String>,

    /// Bit/s from which on a client's path is used, before anything is known of it [default: 300000]
    #[arg(long, env = "SWITCHYARD_START_BITRATE", global = true, value_name = "BITS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) start_bitrate: Option<String>,

    /// Bit/s that are sent to a client at most, however much its path carries [default: 50000000]
    #[arg(long, env = "SWITCHYARD_MAX_BITRATE", global = true, value_name = "BITS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_bitrate: Option<String>,

    /// Bit/s below which a client's path is kept for voices: no video is sent to it [default: 40000]
    #[arg(long, env = "SWITCHYARD_SUSPEND_VIDEO_BELOW", global = true, value_name = "BITS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) suspend_video_below: Option<String>,

    /// Memory in MiB above which a worker takes no more endpoints; 0 is 90 % of the machine's or the container's [default: 0]
    #[arg(long, env = "SWITCHYARD_MAX_MEMORY_MIB", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) max_memory_mib: Option<String>,

    /// Ids of the API keys, separated by commas, that may list workers and drain them [default: none]
    #[arg(long, env = "SWITCHYARD_OPERATOR_KEYS", global = true, value_name = "ID,…")]
    pub(super) operator_keys: Option<String>,

    /// Addresses, separated by commas, that are told what happens in sessions; API and workers need the same [default: none]
    #[arg(
        long,
        env = "SWITCHYARD_WEBHOOK_URLS",
        global = true,
        value_name = "URL,…",
        hide_env_values = true
    )]
    pub(super) webhook_urls: Option<String>,

    /// Id of the API key whose secret signs webhooks [default: the first]
    #[arg(long, env = "SWITCHYARD_WEBHOOK_KEY", global = true, value_name = "ID")]
    pub(super) webhook_key: Option<String>,

    /// How long a webhook that fails is tried again before it is given up, in seconds (1 to 259200) [default: 86400]
    #[arg(long, env = "SWITCHYARD_WEBHOOK_RETRY", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) webhook_retry: Option<String>,

    /// Where traces go, over OTLP (HTTP, protobuf): a collector such as `http://collector:4318`, or `off`. Also by the name that
    /// OpenTelemetry has for it, `OTEL_EXPORTER_OTLP_ENDPOINT` [default: off]
    #[arg(long, env = "SWITCHYARD_OTLP_ENDPOINT", global = true, value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,

    /// Share of the requests whose traces are recorded, when the client does not say (`traceparent`) that its own is or is not
    /// (0 to 1) [default: 1]
    #[arg(long, env = "SWITCHYARD_OTLP_SAMPLE_RATIO", global = true, value_name = "SHARE")]
    #[serde(deserialize_with = "text_or_number")]
    pub(super) otlp_sample_ratio: Option<String>,

    /// What to log: a level, or a `tracing` filter such as `info,rest_api=debug` [default: info]
    #[arg(long, env = "SWITCHYARD_LOG", global = true, value_name = "FILTER")]
    pub(super) log: Option<String>,

    /// Log lines for people or for machines: `text` or `json` [default: text]
    #[arg(long, env = "SWITCHYARD_LOG_FORMAT", global = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Number(i64),
        Share(f64),
    }
    Ok(Some(match Value::deserialize(deserializer)? {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Share(share) => share.to_string(),
    }))
}

fn text_or_bool<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Bool(bool),
    }
    Ok(Some(match Value::deserialize(deserializer)? {
        Value::Text(text) => text,
        Value::Bool(yes) => yes.to_string(),
    }))
}

impl Source {
    /// These settings, and the file's where these are silent.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            broker: self.broker.or(file.broker),
            store: self.store.or(file.store),
            listen: self.listen.or(file.listen),
            media_address: self.media_address.or(file.media_address),
            media_port: self.media_port.or(file.media_port),
            media_tcp_port: self.media_tcp_port.or(file.media_tcp_port),
            public_address: self.public_address.or(file.public_address),
            public_url: self.public_url.or(file.public_url),
            tls_certificate: self.tls_certificate.or(file.tls_certificate),
            tls_key: self.tls_key.or(file.tls_key),
            trusted_proxies: self.trusted_proxies.or(file.trusted_proxies),
            proxy_headers: self.proxy_headers.or(file.proxy_headers),
            api_keys: self.api_keys.or(file.api_keys),
            api_keys_file: self.api_keys_file.or(file.api_keys_file),
            max_requests_per_address: self.max_requests_per_address.or(file.max_requests_per_address),
            max_requests_per_token: self.max_requests_per_token.or(file.max_requests_per_token),
            max_requests_per_key: self.max_requests_per_key.or(file.max_requests_per_key),
            max_connections: self.max_connections.or(file.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(file.max_connections_per_address),
            demo: self.demo.or(file.demo),
            ice_servers: self.ice_servers.or(file.ice_servers),
            turn_urls: self.turn_urls.or(file.turn_urls),
            turn_secret: self.turn_secret.or(file.turn_secret),
            turn_ttl: self.turn_ttl.or(file.turn_ttl),
            turn_listen: self.turn_listen.or(file.turn_listen),
            turn_relay_ports: self.turn_relay_ports.or(file.turn_relay_ports),
            turn_max_allocations: self.turn_max_allocations.or(file.turn_max_allocations),
            turn_max_allocations_per_user: self
                .turn_max_allocations_per_user
                .or(file.turn_max_allocations_per_user),
            turn_lifetime: self.turn_lifetime.or(file.turn_lifetime),
            overflow_url: self.overflow_url.or(file.overflow_url),
            admin_listen: self.admin_listen.or(file.admin_listen),
            worker_id: self.worker_id.or(file.worker_id),
            lease: self.lease.or(file.lease),
            grace: self.grace.or(file.grace),
            drain_timeout: self.drain_timeout.or(file.drain_timeout),
            empty_timeout: self.empty_timeout.or(file.empty_timeout),
            closed_retention: self.closed_retention.or(file.closed_retention),
            media_threads: self.media_threads.or(file.media_threads),
            max_endpoints: self.max_endpoints.or(file.max_endpoints),
            max_packets_per_second: self.max_packets_per_second.or(file.max_packets_per_second),
            max_tracks: self.max_tracks.or(file.max_tracks),
            start_bitrate: self.start_bitrate.or(file.start_bitrate),
            max_bitrate: self.max_bitrate.or(file.max_bitrate),
            suspend_video_below: self.suspend_video_below.or(file.suspend_video_below),
            max_memory_mib: self.max_memory_mib.or(file.max_memory_mib),
            operator_keys: self.operator_keys.or(file.operator_keys),
            webhook_urls: self.webhook_urls.or(file.webhook_urls),
            webhook_key: self.webhook_key.or(file.webhook_key),
            webhook_retry: self.webhook_retry.or(file.webhook_retry),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            otlp_sample_ratio: self.otlp_sample_ratio.or(file.otlp_sample_ratio),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

/// Where the file is: the flag, or `SWITCHYARD_CONFIG`.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArg {
    /// TOML file with the same settings (`media_port = 40000`); flags and environment beat it
    #[arg(long, env = "SWITCHYARD_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub(super) fn read(path: &Path) -> Result<Source, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| refuse("config", format!("cannot read {}: {error}", path.display())))?;
    // The parser's own rendering quotes the offending line, which may hold a secret: keep the message, drop the quote.
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        let line = before.matches('\n').count() + 1;
        refuse("config", format!("{}, line {line}: {}", path.display(), error.message()))
    })
}
