//! Settings from flags, environment and a TOML file, under one set of names.
//!
//! `--media-port`, `SWITCHYARD_MEDIA_PORT` and `media_port` in the file are one setting. A flag beats the
//! environment, which beats the file, which beats the default. Everything is checked here, before any port is bound.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::connect::{BrokerUrl, StoreUrl};
use common::model::WorkerId;
use common::token::ApiKeys;
use common::turn::TurnSecret;
use ipnet::IpNet;
use media_worker::media::TcpPort;
use media_worker::public_address;
use rest_api::limits::RequestRates;
use rest_api::webhooks::{DEFAULT_RETRY, Receiver};
use rest_api::{ForwardingHeaders, Tls, TlsFiles, TrustedProxies};
use uuid::{Uuid, uuid};

pub use self::otlp::Otlp;
use self::source::read;
pub use self::source::{FileArg, Source};
pub use self::turn::TurnServer;
use crate::key_file;

mod otlp;
mod source;
mod turn;

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
    pub media_tcp_port: TcpPort,
    pub public_addresses: Vec<IpAddr>,
    /// Where to ask when there are none of these.
    pub public_sources: Vec<public_address::Source>,
    pub public_url: Option<String>,
    /// A certificate that could be loaded.
    pub tls: Option<Tls>,
    pub trusted_proxies: TrustedProxies,
    pub api_keys: Option<ApiKeys>,
    /// Where `api_keys` were read, to be read again.
    pub api_keys_file: Option<PathBuf>,
    /// A second, of one API instance; 0: as many as come.
    pub request_rates: RequestRates,
    pub max_connections: usize,
    /// 0: as many as there may be at all.
    pub max_connections_per_address: usize,
    pub demo: bool,
    pub ice_servers: Vec<String>,
    pub turn_urls: Vec<String>,
    /// There when `turn_urls` are.
    pub turn_secret: Option<TurnSecret>,
    pub turn_ttl: Duration,
    pub turn_server: Option<TurnServer>,
    pub overflow_url: Option<String>,
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
    /// In bit/s.
    pub start_bitrate: u64,
    pub max_bitrate: u64,
    pub suspend_video_below: u64,
    /// 0: 90 % of what there is.
    pub max_memory_mib: u64,
    /// Each is one of `api_keys`.
    pub operator_keys: Vec<String>,
    pub webhooks: Vec<Receiver>,
    /// One of `api_keys`; the first when absent.
    pub webhook_key: Option<String>,
    pub webhook_retry: Duration,
    /// Where traces go. `None`: none are recorded.
    pub otlp: Option<Otlp>,
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

/// An address without a slash at the end.
fn web_address(setting: &'static str, url: Option<&str>) -> Result<Option<String>, ConfigError> {
    match url.map(|url| url.trim_end_matches('/')) {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url.to_owned())),
        Some(_) => Err(refuse(setting, "expected http:// or https://")),
        None => Ok(None),
    }
}

/// What the names of workers are made into ids with.
const WORKER_NAMES: Uuid = uuid!("0ff2ad9c-9d1a-4a38-9a0c-5d1f4c3a7b52");
const LONGEST_WORKER_NAME: usize = 253;
/// Entries of the timeline live for a week; what is given up should be there for some days still.
const LONGEST_WEBHOOK_RETRY_S: u64 = 3 * 24 * 60 * 60;
const MONTH_S: u64 = 30 * 24 * 60 * 60;
/// The media port of the all-in-one process, unless it is taken or another is set.
const DEFAULT_MEDIA_PORT: u16 = 40_000;
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

impl Settings {
    /// Reads the file if one is named, lays flags and environment over it and checks the result.
    pub fn load(role: Role, over: Source, file: Option<&Path>) -> Result<Self, ConfigError> {
        let over = otlp::with_standard_names(over, |name| std::env::var(name).ok())?;
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
        let api_keys_file = source.api_keys_file.as_deref().map(PathBuf::from);
        let api_keys = match (&source.api_keys, &api_keys_file) {
            (Some(_), Some(_)) => {
                return Err(refuse("api_keys_file", "api_keys is set as well: one of them says it all"));
            }
            (Some(text), None) => {
                Some(text.parse::<ApiKeys>().map_err(|error| refuse("api_keys", error.to_string()))?)
            }
            // A worker serves no requests, and need not be able to read the file.
            (None, Some(path)) if role != Role::Worker => {
                Some(key_file::read(path).map_err(|error| refuse("api_keys_file", error.to_string()))?)
            }
            (None, _) => None,
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
        let media_tcp_port = match source.media_tcp_port.as_deref() {
            None | Some("same") => TcpPort::Same,
            Some("off") => TcpPort::Off,
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => TcpPort::Port(port),
                _ => {
                    return Err(refuse("media_tcp_port", format!("{text:?} is not same, off or a port")));
                }
            },
        };

        let (mut public_addresses, mut public_sources) = (Vec::new(), Vec::new());
        for text in list(source.public_address.as_deref()) {
            let Ok(address) = text.parse::<IpAddr>() else {
                let source = text.parse::<public_address::Source>();
                public_sources.push(source.map_err(|reason| refuse("public_address", reason))?);
                continue;
            };
            if address.is_unspecified() {
                return Err(refuse("public_address", format!("{address} cannot be reached by anyone")));
            }
            public_addresses.push(address);
        }
        let turn_urls = turn::urls(&source)?;
        let turn_secret = turn::secret(&source)?;
        let turn_server = turn::server(role, &source, turn_secret.is_some(), open_to_others)?;
        let otlp = otlp::check(&source)?;
        let public_url = web_address("public_url", source.public_url.as_deref())?;
        let tls = match (source.tls_certificate, source.tls_key) {
            (None, None) => None,
            (Some(_), None) => return Err(refuse("tls_key", "a certificate needs its key")),
            (None, Some(_)) => return Err(refuse("tls_certificate", "a key needs its certificate")),
            // A worker serves no requests, but one file may configure all parts.
            _ if role == Role::Worker => None,
            (Some(certificate), Some(key)) => {
                let files = TlsFiles { certificate: certificate.into(), key: key.into() };
                Some(Tls::load(files).map_err(|error| refuse("tls_certificate", error.to_string()))?)
            }
        };
        let trusted_proxies = TrustedProxies {
            networks: list(source.trusted_proxies.as_deref()).map(network).collect::<Result<_, _>>()?,
            headers: match source.proxy_headers.as_deref() {
                None | Some("x-forwarded") => ForwardingHeaders::XForwarded,
                Some("forwarded") => ForwardingHeaders::Forwarded,
                Some(other) => {
                    return Err(refuse(
                        "proxy_headers",
                        format!("{other:?} is neither x-forwarded nor forwarded"),
                    ));
                }
            },
        };
        let overflow_url = web_address("overflow_url", source.overflow_url.as_deref())?;
        let ice_servers: Vec<String> = list(source.ice_servers.as_deref()).map(str::to_owned).collect();
        for url in &ice_servers {
            if !["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)) {
                return Err(refuse("ice_servers", format!("{url:?} is not a stun: or turn: URL")));
            }
        }
        if !turn_urls.is_empty() && turn_secret.is_none() {
            return Err(refuse("turn_secret", "turn_urls need the secret that is shared with these servers"));
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
        let rate = |setting, text: &Option<String>, default| {
            number(setting, text.as_deref(), 0..=1_000_000, default)
        };
        let usual = RequestRates::default();
        let request_rates = RequestRates {
            per_address: rate(
                "max_requests_per_address",
                &source.max_requests_per_address,
                usual.per_address,
            )?,
            per_token: rate("max_requests_per_token", &source.max_requests_per_token, usual.per_token)?,
            per_key: rate("max_requests_per_key", &source.max_requests_per_key, usual.per_key)?,
        };
        let webhooks = list(source.webhook_urls.as_deref()).map(receiver).collect::<Result<_, _>>()?;
        if let Some(id) = &source.webhook_key
            && role != Role::Worker
            && !api_keys.as_ref().is_some_and(|keys| keys.has(id))
        {
            return Err(refuse("webhook_key", format!("{id:?} is not the id of one of api_keys")));
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
            media_tcp_port,
            public_addresses,
            public_sources,
            public_url,
            tls,
            trusted_proxies,
            api_keys,
            api_keys_file,
            request_rates,
            max_connections: number(
                "max_connections",
                source.max_connections.as_deref(),
                10..=1_000_000,
                20_000,
            )?,
            max_connections_per_address: number(
                "max_connections_per_address",
                source.max_connections_per_address.as_deref(),
                0..=1_000_000,
                10_000,
            )?,
            demo,
            ice_servers,
            turn_urls,
            turn_secret,
            turn_server,
            turn_ttl: seconds("turn_ttl", source.turn_ttl.as_deref(), 60..=604_800, 86_400)?,
            overflow_url,
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
            start_bitrate: number("start_bitrate", source.start_bitrate.as_deref(), BITRATES, 300_000)?,
            max_bitrate: number("max_bitrate", source.max_bitrate.as_deref(), BITRATES, 50_000_000)?,
            suspend_video_below: number(
                "suspend_video_below",
                source.suspend_video_below.as_deref(),
                0..=*BITRATES.end(),
                40_000,
            )?,
            max_memory_mib: number("max_memory_mib", source.max_memory_mib.as_deref(), 0..=1 << 24, 0)?,
            operator_keys,
            webhooks,
            webhook_key: source.webhook_key,
            webhook_retry: seconds(
                "webhook_retry",
                source.webhook_retry.as_deref(),
                1..=LONGEST_WEBHOOK_RETRY_S,
                DEFAULT_RETRY.as_secs(),
            )?,
            otlp,
            log,
            log_format,
        })
    }
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

/// What a client's path can be set to carry, in bit/s: a voice at least, a gigabit at most.
const BITRATES: std::ops::RangeInclusive<u64> = 30_000..=1_000_000_000;

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

/// The URL is not repeated: it may hold a secret.
fn receiver(url: &str) -> Result<Receiver, ConfigError> {
    Receiver::parse(url).map_err(|reason| refuse("webhook_urls", format!("one of them: {reason}")))
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, ConfigError> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
    parsed.ok_or_else(|| refuse("trusted_proxies", format!("{text:?} is not a network like 10.0.0.0/8")))
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
        let cases: &[(&str, Change)] = &[
            ("broker", |s| s.broker = Some("redis://h".into())),
            ("store", |s| s.store = Some("postgres://h".into())),
            ("listen", |s| s.listen = Some("8080".into())),
            ("media_port", |s| s.media_port = Some("70000".into())),
            ("media_tcp_port", |s| s.media_tcp_port = Some("0".into())),
            ("public_address", |s| s.public_address = Some("example.org".into())),
            ("public_url", |s| s.public_url = Some("ftp://x".into())),
            ("tls_key", |s| s.tls_certificate = Some("cert.pem".into())),
            ("tls_certificate", |s| s.tls_key = Some("key.pem".into())),
            ("tls_certificate", |s| {
                (s.tls_certificate, s.tls_key) = (Some("/nowhere".into()), Some("/nowhere".into()));
            }),
            ("trusted_proxies", |s| s.trusted_proxies = Some("10.0.0.0/8, everyone".into())),
            ("proxy_headers", |s| s.proxy_headers = Some("via".into())),
            ("turn_urls", |s| s.turn_urls = Some("stun:h".into())),
            ("turn_secret", |s| s.turn_urls = Some("turn:h".into())),
            ("turn_secret", |s| s.turn_secret = Some("short".into())),
            ("turn_secret", |s| s.turn_secret = Some("file:/nowhere/at-all".into())),
            ("turn_ttl", |s| s.turn_ttl = Some("59".into())),
            ("overflow_url", |s| s.overflow_url = Some("other".into())),
            ("api_keys", |s| s.api_keys = Some("no-colon".into())),
            ("api_keys_file", |s| s.api_keys_file = Some("not/there".into())),
            ("api_keys_file", |s| {
                s.api_keys = Some("key:a-secret-of-sixteen-or-more".into());
                s.api_keys_file = Some("not/there".into());
            }),
            ("max_requests_per_address", |s| s.max_requests_per_address = Some("-1".into())),
            ("max_requests_per_token", |s| s.max_requests_per_token = Some("few".into())),
            ("max_requests_per_key", |s| s.max_requests_per_key = Some("1.5".into())),
            ("max_connections", |s| s.max_connections = Some("9".into())),
            ("max_connections_per_address", |s| s.max_connections_per_address = Some("all".into())),
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
            ("start_bitrate", |s| s.start_bitrate = Some("29999".into())),
            ("max_bitrate", |s| s.max_bitrate = Some("2 Mbit/s".into())),
            ("suspend_video_below", |s| s.suspend_video_below = Some("-1".into())),
            ("max_memory_mib", |s| s.max_memory_mib = Some("2 GiB".into())),
            ("operator_keys", |s| s.operator_keys = Some("nobody".into())),
            ("webhook_urls", |s| s.webhook_urls = Some("https://a.example, b.example".into())),
            ("webhook_key", |s| s.webhook_key = Some("nobody".into())),
            ("webhook_retry", |s| s.webhook_retry = Some("0".into())),
            ("otlp_endpoint", |s| s.otlp_endpoint = Some("collector:4318".into())),
            ("otlp_endpoint", |s| s.otlp_endpoint = Some("https://user:password@collector".into())),
            ("otlp_sample_ratio", |s| s.otlp_sample_ratio = Some("1.1".into())),
            ("otlp_sample_ratio", |s| s.otlp_sample_ratio = Some("NaN".into())),
            ("log_format", |s| s.log_format = Some("xml".into())),
        ];
        for (setting, change) in cases {
            assert_eq!(check(Role::AllInOne, change).unwrap_err().setting, *setting);
        }
    }

    #[test]
    fn public_addresses_are_configured_or_asked_for() {
        let settings = check(Role::AllInOne, |s| {
            s.public_address = Some("203.0.113.7, 2001:db8::7, stun:h, dns:me@r:5353".into());
        })
        .unwrap();
        assert_eq!(settings.public_addresses.len(), 2);
        let sources: Vec<_> = settings.public_sources.iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["stun:h:3478", "dns:me@r:5353"]);
    }

    #[test]
    fn a_turn_secret_may_stand_in_a_file_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a-secret-in-a-file\n").unwrap();
        let settings = check(Role::AllInOne, |s| {
            s.turn_urls = Some("turn:h, turns:h:5349?transport=tcp".into());
            s.turn_secret = Some(format!("file:{}", file.path().display()));
        })
        .unwrap();
        assert_eq!(settings.turn_secret, Some("a-secret-in-a-file".parse().unwrap()));
        assert_eq!(settings.turn_urls.len(), 2);
        assert_eq!(settings.turn_ttl, Duration::from_secs(86_400));
        assert!(!format!("{settings:?}").contains("a-secret-in"));
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
        let sample = include_str!("../../switchyard.sample.toml");
        let set: String = sample
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with([' ', '#']))
            .collect::<Vec<_>>()
            .join("\n");
        let mut source: Source = toml::from_str(&set).unwrap();
        // In place of `api_keys`, and not there.
        source.api_keys_file = None;
        // Files that are not there.
        assert!(source.tls_certificate.take().is_some() && source.tls_key.take().is_some());
        Settings::check(Role::AllInOne, source).unwrap();
        let command = <Source as clap::Args>::augment_args(clap::Command::new("switchyard"));
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
