//! Settings from flags, environment and a TOML file, under one set of names.
//!
//! `--media-port`, `SWITCHYARD_MEDIA_PORT` and `media_port` in the file are one setting. A flag beats the
//! environment, which beats the file, which beats the default. Everything is checked here, before any port is bound.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use common::connect::{BrokerUrl, StoreUrl};
use common::model::WorkerId;
use common::token::ApiKeys;
use serde::Deserialize;
use uuid::{Uuid, uuid};

/// Settings as they come in: all text, all optional. The field names are the setting names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Broker: `embedded:` (inside this process) or `amqp://user:password@host:5672/vhost`
    #[arg(long, env = "SWITCHYARD_BROKER", global = true, value_name = "URL", hide_env_values = true)]
    broker: Option<String>,

    /// Store: `embedded:` (inside this process) or `mongodb://host:27017/switchyard?replicaSet=rs0`
    #[arg(long, env = "SWITCHYARD_STORE", global = true, value_name = "URL", hide_env_values = true)]
    store: Option<String>,

    /// Address of the REST API and the demo [default: 127.0.0.1:8080]
    #[arg(long, env = "SWITCHYARD_LISTEN", global = true, value_name = "IP:PORT")]
    listen: Option<String>,

    /// Address that the media socket binds [default: 0.0.0.0 with API keys, else 127.0.0.1]
    #[arg(long, env = "SWITCHYARD_MEDIA_ADDRESS", global = true, value_name = "IP")]
    media_address: Option<String>,

    /// The one UDP port for all media of a worker; 0 takes any free one [default: 0, all in one: 40000 or any]
    #[arg(long, env = "SWITCHYARD_MEDIA_PORT", global = true, value_name = "PORT")]
    #[serde(deserialize_with = "text_or_number")]
    media_port: Option<String>,

    /// Addresses, separated by commas, at which clients reach the media port when it is not the bound one (NAT)
    #[arg(long, env = "SWITCHYARD_PUBLIC_ADDRESS", global = true, value_name = "IP,…")]
    public_address: Option<String>,

    /// Address of the API as clients see it, for join links [default: http:// and the listen address]
    #[arg(long, env = "SWITCHYARD_PUBLIC_URL", global = true, value_name = "URL")]
    public_url: Option<String>,

    /// API keys, `id:secret,…`. Without any: loopback only, with a development key
    #[arg(
        long,
        env = "SWITCHYARD_API_KEYS",
        global = true,
        value_name = "ID:SECRET,…",
        hide_env_values = true
    )]
    api_keys: Option<String>,

    /// Whether anyone may open the demo's rooms without a link [default: true without API keys, else false]
    #[arg(long, env = "SWITCHYARD_DEMO", global = true, value_name = "true|false")]
    #[serde(deserialize_with = "text_or_bool")]
    demo: Option<String>,

    /// ICE servers for clients, separated by commas, such as `stun:stun.example.org:3478`
    #[arg(long, env = "SWITCHYARD_ICE_SERVERS", global = true, value_name = "URL,…")]
    ice_servers: Option<String>,

    /// Address of a worker's own `/healthz`, `/readyz` and `/metrics` [default: none]
    #[arg(long, env = "SWITCHYARD_ADMIN_LISTEN", global = true, value_name = "IP:PORT")]
    admin_listen: Option<String>,

    /// How long a worker that stops renewing its lease counts as alive, in seconds (3 to 300) [default: 6]
    #[arg(long, env = "SWITCHYARD_LEASE", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    lease: Option<String>,

    /// A worker's name that stays the same over restarts, such as its pod's, so that its sessions come back to it; or a
    /// `wrk_…` id. No two processes may run with one at a time [default: somebody new at every start]
    #[arg(long, env = "SWITCHYARD_WORKER_ID", global = true, value_name = "NAME")]
    worker_id: Option<String>,

    /// How long a client that lost its network may take to come back, in seconds (1 to 600) [default: 10]
    #[arg(long, env = "SWITCHYARD_GRACE", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    grace: Option<String>,

    /// How long the clients of a worker that drains (SIGTERM) have to move, in seconds (1 to 3600) [default: 60]
    #[arg(long, env = "SWITCHYARD_DRAIN_TIMEOUT", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    drain_timeout: Option<String>,

    /// How long a session may be without participants before it ends, in seconds; 0: as long as it likes (0 to 2592000)
    /// [default: 300]
    #[arg(long, env = "SWITCHYARD_EMPTY_TIMEOUT", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    empty_timeout: Option<String>,

    /// How long the record of a session that ended is kept, in seconds (1 to 2592000) [default: 3600]
    #[arg(long, env = "SWITCHYARD_CLOSED_RETENTION", global = true, value_name = "SECONDS")]
    #[serde(deserialize_with = "text_or_number")]
    closed_retention: Option<String>,

    /// Media threads of a worker; 0 is one for every two cores, at most 4 (0 to 64) [default: 0]
    #[arg(long, env = "SWITCHYARD_MEDIA_THREADS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    media_threads: Option<String>,

    /// Endpoints (client connections) that a worker takes; more are refused with 503 (1 to 1000000) [default: 10000]
    #[arg(long, env = "SWITCHYARD_MAX_ENDPOINTS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    max_endpoints: Option<String>,

    /// Packets sent in a second above which a worker takes no more endpoints; 0 is 200000 for each media thread [default: 0]
    #[arg(long, env = "SWITCHYARD_MAX_PACKETS_PER_SECOND", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    max_packets_per_second: Option<String>,

    /// Published and subscribed tracks from which on a worker takes no more endpoints and tracks [default: 200000]
    #[arg(long, env = "SWITCHYARD_MAX_TRACKS", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    max_tracks: Option<String>,

    /// Memory in MiB above which a worker takes no more endpoints; 0 is 90 % of the machine's or the container's [default: 0]
    #[arg(long, env = "SWITCHYARD_MAX_MEMORY_MIB", global = true, value_name = "NUMBER")]
    #[serde(deserialize_with = "text_or_number")]
    max_memory_mib: Option<String>,

    /// Ids of the API keys, separated by commas, that may list workers and drain them [default: none]
    #[arg(long, env = "SWITCHYARD_OPERATOR_KEYS", global = true, value_name = "ID,…")]
    operator_keys: Option<String>,

    /// What to log: a level, or a `tracing` filter such as `info,rest_api=debug` [default: info]
    #[arg(long, env = "SWITCHYARD_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,

    /// Log lines for people or for machines: `text` or `json` [default: text]
    #[arg(long, env = "SWITCHYARD_LOG_FORMAT", global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Number(i64),
    }
    Ok(Some(match Value::deserialize(deserializer)? {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
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

/// Which parts this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    AllInOne,
    Api,
    Worker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub broker: BrokerUrl,
    pub store: StoreUrl,
    pub listen: SocketAddr,
    pub media: SocketAddr,
    /// A busy default port is no reason not to start: take any.
    pub media_port_may_move: bool,
    pub public_addresses: Vec<IpAddr>,
    pub public_url: Option<String>,
    pub api_keys: Option<ApiKeys>,
    pub demo: bool,
    pub ice_servers: Vec<String>,
    pub admin_listen: Option<SocketAddr>,
    pub worker_id: Option<WorkerId>,
    pub lease: Duration,
    pub grace: Duration,
    pub drain_timeout: Duration,
    /// `None`: a session may be empty as long as it likes.
    pub empty_timeout: Option<Duration>,
    pub closed_retention: Duration,
    /// 0: one for every two cores, at most 4.
    pub media_threads: usize,
    pub max_endpoints: usize,
    /// 0: by the number of media threads.
    pub max_packets_per_second: u64,
    pub max_tracks: usize,
    /// 0: 90 % of what there is.
    pub max_memory_mib: u64,
    /// Each is one of `api_keys`.
    pub operator_keys: Vec<String>,
    pub log: String,
    pub log_format: LogFormat,
}

/// What is wrong with the configuration: the setting and the reason. Never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub setting: &'static str,
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{name}: {reason} (flag --{flag}, environment SWITCHYARD_{env}, file {name})",
            name = self.setting,
            reason = self.reason,
            flag = self.setting.replace('_', "-"),
            env = self.setting.to_uppercase(),
        )
    }
}

impl std::error::Error for ConfigError {}

fn refuse(setting: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting, reason: reason.into() }
}

/// What the names of workers are made into ids with.
const WORKER_NAMES: Uuid = uuid!("0ff2ad9c-9d1a-4a38-9a0c-5d1f4c3a7b52");
const LONGEST_WORKER_NAME: usize = 253;
const MONTH_S: u64 = 30 * 24 * 60 * 60;
/// The media port of the all-in-one process, unless it is taken or another is set.
const DEFAULT_MEDIA_PORT: u16 = 40_000;
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl Settings {
    /// Reads the file if one is named, lays flags and environment over it and checks the result.
    pub fn load(role: Role, over: Source, file: Option<&Path>) -> Result<Self, ConfigError> {
        let source = match file {
            Some(path) => over.over(read(path)?),
            None => over,
        };
        Self::check(role, source)
    }

    fn check(role: Role, source: Source) -> Result<Self, ConfigError> {
        let broker: BrokerUrl = match &source.broker {
            Some(url) => url.parse().map_err(|error| refuse("broker", format!("{error}")))?,
            None => BrokerUrl::Embedded,
        };
        let store: StoreUrl = match &source.store {
            Some(url) => url.parse().map_err(|error| refuse("store", format!("{error}")))?,
            None => StoreUrl::Embedded,
        };
        if role != Role::AllInOne {
            let why = "`switchyard api` and `switchyard worker` meet outside their processes; an embedded one is out of reach";
            if broker == BrokerUrl::Embedded {
                return Err(refuse("broker", format!("set an amqp:// URL: {why}")));
            }
            if store == StoreUrl::Embedded {
                return Err(refuse("store", format!("set a mongodb:// URL: {why}")));
            }
        }
        let api_keys = match &source.api_keys {
            Some(text) => {
                Some(text.parse::<ApiKeys>().map_err(|error| refuse("api_keys", error.to_string()))?)
            }
            None => None,
        };
        let listen =
            parse_or("listen", source.listen.as_deref(), "an address like 127.0.0.1:8080", DEFAULT_LISTEN)?;
        if role != Role::Worker && api_keys.is_none() {
            if !listen.ip().is_loopback() {
                return Err(refuse(
                    "listen",
                    format!(
                        "{listen} is reachable from outside, which needs api_keys; without keys only loopback is served"
                    ),
                ));
            }
            if role == Role::Api {
                return Err(refuse(
                    "api_keys",
                    "several API processes need the same keys; a development key is made for the all-in-one process only",
                ));
            }
        }
        let open_to_others = role == Role::Worker || api_keys.is_some();
        let default_address =
            IpAddr::V4(if open_to_others { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST });
        let media_address =
            parse_or("media_address", source.media_address.as_deref(), "an IP address", default_address)?;
        if !open_to_others && !media_address.is_loopback() {
            return Err(refuse("media_address", "without api_keys only loopback is served"));
        }
        let default_port = if role == Role::AllInOne { DEFAULT_MEDIA_PORT } else { 0 };
        let media_port =
            parse_or("media_port", source.media_port.as_deref(), "a port, 0 to 65535", default_port)?;
        let media_port_may_move = source.media_port.is_none();

        let mut public_addresses = Vec::new();
        for text in list(source.public_address.as_deref()) {
            let address: IpAddr = text
                .parse()
                .map_err(|_| refuse("public_address", format!("{text:?} is not an IP address")))?;
            if address.is_unspecified() {
                return Err(refuse("public_address", format!("{address} cannot be reached by anyone")));
            }
            public_addresses.push(address);
        }
        let public_url = match source.public_url.as_deref().map(|url| url.trim_end_matches('/')) {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => Some(url.to_owned()),
            Some(_) => return Err(refuse("public_url", "expected http:// or https://")),
            None => None,
        };
        let ice_servers: Vec<String> = list(source.ice_servers.as_deref()).map(str::to_owned).collect();
        for url in &ice_servers {
            if !["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)) {
                return Err(refuse("ice_servers", format!("{url:?} is not a stun: or turn: URL")));
            }
        }
        let demo = parse_or("demo", source.demo.as_deref(), "true or false", api_keys.is_none())?;
        let admin_listen = match source.admin_listen.as_deref() {
            Some(text) => Some(text.parse().map_err(|_| {
                refuse("admin_listen", format!("{text:?} is not an address like 127.0.0.1:9090"))
            })?),
            None => None,
        };
        let operator_keys: Vec<String> = list(source.operator_keys.as_deref()).map(str::to_owned).collect();
        for id in &operator_keys {
            // A worker serves no requests, but one file may configure all parts.
            if role != Role::Worker && !api_keys.as_ref().is_some_and(|keys| keys.has(id)) {
                return Err(refuse("operator_keys", format!("{id:?} is not the id of one of api_keys")));
            }
        }
        let log = source.log.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = log.parse::<tracing_subscriber::EnvFilter>() {
            return Err(refuse("log", error.to_string()));
        }
        let log_format = match source.log_format.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => return Err(refuse("log_format", format!("{other:?} is neither text nor json"))),
        };
        Ok(Self {
            broker,
            store,
            listen,
            media: SocketAddr::new(media_address, media_port),
            media_port_may_move,
            public_addresses,
            public_url,
            api_keys,
            demo,
            ice_servers,
            admin_listen,
            worker_id: source.worker_id.as_deref().map(worker_id).transpose()?,
            lease: seconds("lease", source.lease.as_deref(), 3..=300, 6)?,
            grace: seconds("grace", source.grace.as_deref(), 1..=600, 10)?,
            drain_timeout: seconds("drain_timeout", source.drain_timeout.as_deref(), 1..=3600, 60)?,
            empty_timeout: Some(seconds("empty_timeout", source.empty_timeout.as_deref(), 0..=MONTH_S, 300)?)
                .filter(|limit| !limit.is_zero()),
            closed_retention: seconds(
                "closed_retention",
                source.closed_retention.as_deref(),
                1..=MONTH_S,
                3_600,
            )?,
            media_threads: number("media_threads", source.media_threads.as_deref(), 0..=64, 0)?,
            max_endpoints: number("max_endpoints", source.max_endpoints.as_deref(), 1..=1_000_000, 10_000)?,
            max_packets_per_second: number(
                "max_packets_per_second",
                source.max_packets_per_second.as_deref(),
                0..=1_000_000_000,
                0,
            )?,
            max_tracks: number("max_tracks", source.max_tracks.as_deref(), 1..=100_000_000, 200_000)?,
            max_memory_mib: number("max_memory_mib", source.max_memory_mib.as_deref(), 0..=1 << 24, 0)?,
            operator_keys,
            log,
            log_format,
        })
    }
}

impl Source {
    /// These settings, and the file's where these are silent.
    fn over(self, file: Self) -> Self {
        Self {
            broker: self.broker.or(file.broker),
            store: self.store.or(file.store),
            listen: self.listen.or(file.listen),
            media_address: self.media_address.or(file.media_address),
            media_port: self.media_port.or(file.media_port),
            public_address: self.public_address.or(file.public_address),
            public_url: self.public_url.or(file.public_url),
            api_keys: self.api_keys.or(file.api_keys),
            demo: self.demo.or(file.demo),
            ice_servers: self.ice_servers.or(file.ice_servers),
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
            max_memory_mib: self.max_memory_mib.or(file.max_memory_mib),
            operator_keys: self.operator_keys.or(file.operator_keys),
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

fn read(path: &Path) -> Result<Source, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| refuse("config", format!("cannot read {}: {error}", path.display())))?;
    // The parser's own rendering quotes the offending line, which may hold a secret: keep the message, drop the quote.
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        let line = before.matches('\n').count() + 1;
        refuse("config", format!("{}, line {line}: {}", path.display(), error.message()))
    })
}

fn parse_or<T: std::str::FromStr>(
    setting: &'static str,
    text: Option<&str>,
    expected: &str,
    default: T,
) -> Result<T, ConfigError> {
    match text {
        Some(text) => text.parse().map_err(|_| refuse(setting, format!("{text:?} is not {expected}"))),
        None => Ok(default),
    }
}

/// A whole number within a range.
fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy>(
    setting: &'static str,
    text: Option<&str>,
    range: std::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        refuse(setting, format!("{text:?} is not a number from {} to {}", range.start(), range.end()))
    })
}

fn seconds(
    setting: &'static str,
    text: Option<&str>,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
) -> Result<Duration, ConfigError> {
    let value = parse_or(setting, text, "a whole number of seconds", default)?;
    if !range.contains(&value) {
        return Err(refuse(setting, format!("{value} is not within {} to {}", range.start(), range.end())));
    }
    Ok(Duration::from_secs(value))
}

/// An id as it is, or the id of a name.
fn worker_id(text: &str) -> Result<WorkerId, ConfigError> {
    if text.starts_with(WorkerId::PREFIX) {
        return text.parse().map_err(|error| refuse("worker_id", format!("{error}")));
    }
    if text.is_empty() || text.len() > LONGEST_WORKER_NAME {
        return Err(refuse("worker_id", format!("a name has 1 to {LONGEST_WORKER_NAME} bytes")));
    }
    Ok(WorkerId::from_uuid(Uuid::new_v5(&WORKER_NAMES, text.as_bytes())))
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: Role, change: impl FnOnce(&mut Source)) -> Result<Settings, ConfigError> {
        let mut source = Source::default();
        change(&mut source);
        Settings::check(role, source)
    }

    #[test]
    fn nothing_set_is_all_in_one_on_loopback() {
        let settings = check(Role::AllInOne, |_| {}).unwrap();
        assert!(settings.listen.ip().is_loopback() && settings.media.ip().is_loopback());
        assert_eq!((settings.broker, settings.store), (BrokerUrl::Embedded, StoreUrl::Embedded));
        assert!(settings.demo && settings.api_keys.is_none());
    }

    #[test]
    fn without_keys_nothing_but_loopback_is_served() {
        let refused = check(Role::AllInOne, |s| s.listen = Some("0.0.0.0:80".into())).unwrap_err();
        assert_eq!(refused.setting, "listen");
        let refused = check(Role::AllInOne, |s| s.media_address = Some("0.0.0.0".into())).unwrap_err();
        assert_eq!(refused.setting, "media_address");
    }

    #[test]
    fn with_keys_it_binds_where_told() {
        let settings = check(Role::AllInOne, |s| {
            s.listen = Some("0.0.0.0:80".into());
            s.api_keys = Some("key:a-long-enough-secret-of-32-bytes-or-more".into());
        })
        .unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:80");
        assert!(settings.media.ip().is_unspecified() && !settings.demo);
    }

    #[test]
    fn the_parts_refuse_an_embedded_broker_or_store() {
        assert_eq!(check(Role::Worker, |_| {}).unwrap_err().setting, "broker");
        let refused = check(Role::Worker, |s| s.broker = Some("amqp://h".into())).unwrap_err();
        assert_eq!(refused.setting, "store");
    }

    #[test]
    fn each_bad_value_names_its_setting() {
        type Change = fn(&mut Source);
        let cases: [(&str, Change); 21] = [
            ("broker", |s| s.broker = Some("redis://h".into())),
            ("store", |s| s.store = Some("postgres://h".into())),
            ("listen", |s| s.listen = Some("8080".into())),
            ("media_port", |s| s.media_port = Some("70000".into())),
            ("public_address", |s| s.public_address = Some("example.org".into())),
            ("public_url", |s| s.public_url = Some("ftp://x".into())),
            ("api_keys", |s| s.api_keys = Some("no-colon".into())),
            ("demo", |s| s.demo = Some("maybe".into())),
            ("grace", |s| s.grace = Some("0".into())),
            ("worker_id", |s| s.worker_id = Some("wrk_17".into())),
            ("worker_id", |s| s.worker_id = Some(String::new())),
            ("drain_timeout", |s| s.drain_timeout = Some("a while".into())),
            ("empty_timeout", |s| s.empty_timeout = Some("-1".into())),
            ("closed_retention", |s| s.closed_retention = Some("0".into())),
            ("media_threads", |s| s.media_threads = Some("65".into())),
            ("max_endpoints", |s| s.max_endpoints = Some("0".into())),
            ("max_packets_per_second", |s| s.max_packets_per_second = Some("many".into())),
            ("max_tracks", |s| s.max_tracks = Some("0".into())),
            ("max_memory_mib", |s| s.max_memory_mib = Some("2 GiB".into())),
            ("operator_keys", |s| s.operator_keys = Some("nobody".into())),
            ("log_format", |s| s.log_format = Some("xml".into())),
        ];
        for (setting, change) in cases {
            assert_eq!(check(Role::AllInOne, change).unwrap_err().setting, setting);
        }
    }

    #[test]
    fn an_empty_session_ends_after_a_while_or_never() {
        let limit = |text: &str| {
            check(Role::AllInOne, |s| s.empty_timeout = Some(text.into())).unwrap().empty_timeout
        };
        assert_eq!(limit("7"), Some(Duration::from_secs(7)));
        assert_eq!(limit("0"), None);
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switchyard.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1111\"\nmedia_port = 2222\ndemo = false\n").unwrap();
        let over = Source { listen: Some("127.0.0.1:3333".into()), ..Source::default() };
        let settings = Settings::load(Role::AllInOne, over, Some(&path)).unwrap();
        assert_eq!((settings.listen.port(), settings.media.port(), settings.demo), (3333, 2222, false));
    }

    #[test]
    fn the_sample_file_is_valid_and_shows_every_setting() {
        let sample = include_str!("../switchyard.sample.toml");
        let set: String = sample
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with([' ', '#']))
            .collect::<Vec<_>>()
            .join("\n");
        let source: Source = toml::from_str(&set).unwrap();
        Settings::check(Role::AllInOne, source).unwrap();
        let command = <Source as Args>::augment_args(clap::Command::new("switchyard"));
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            assert!(
                set.lines().any(|line| line.starts_with(&format!("{name} = "))),
                "{name} is not in the sample"
            );
        }
    }

    #[test]
    fn a_worker_keeps_the_id_of_its_name_and_an_id_is_itself() {
        let id = |text: &str| {
            check(Role::AllInOne, |s| s.worker_id = Some(text.into())).unwrap().worker_id.unwrap()
        };
        assert_eq!(id("worker-0"), id("worker-0"));
        assert_ne!(id("worker-0"), id("worker-1"));
        assert_eq!(id(&id("worker-0").to_string()), id("worker-0"));
        assert_eq!(check(Role::AllInOne, |_| {}).unwrap().worker_id, None);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line_and_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switchyard.toml");
        std::fs::write(&path, "demo = true\napi_key = \"id:hidden\"\n").unwrap();
        let refused = Settings::load(Role::AllInOne, Source::default(), Some(&path)).unwrap_err().to_string();
        assert!(refused.contains("line 2") && refused.contains("api_key"), "{refused}");
        assert!(!refused.contains("hidden"), "{refused}");
    }
}
