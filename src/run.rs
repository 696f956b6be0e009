//! Starts the parts that this process is, waits for a signal or a failure, and stops them in order.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::connect;
use common::keyring::Keyring;
use common::store::Store;
use common::token::{ApiKeys, Claims, VideoGrants};
use common::turn::TurnSecret;
use media_worker::relay::RelayConfig;
use media_worker::{Worker, WorkerConfig};
use rest_api::webhooks::WebhookConfig;
use rest_api::{ApiConfig, IceServer, RenderMetrics, Turn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin;
use crate::config::{ConfigError, Role, Settings};
use crate::otlp::{self, Exporting};
use crate::telemetry::{self, Telemetry};
use crate::{descriptors, key_file};

/// Why the process ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the broker is not reachable: {0}")]
    Broker(#[from] common::broker::BrokerError),
    #[error("the store is not reachable: {0}")]
    Store(#[from] common::store::StoreError),
    #[error(transparent)]
    PublicAddress(#[from] media_worker::public_address::NotFound),
    #[error("the worker did not start: {0}")]
    Worker(#[from] media_worker::StartError),
    #[error("no traces can be sent: {0}")]
    Traces(#[from] otlp::OtlpError),
    #[error("the API failed: {0}")]
    Api(#[from] rest_api::ServeError),
    #[error("a vital part of the worker ended")]
    WorkerEnded,
    #[error("the runtime did not start: {0}")]
    Runtime(std::io::Error),
}

impl RunError {
    /// The process exit code (sysexits.h).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::Broker(_) | Self::Store(_) | Self::PublicAddress(_) => 69,
            Self::Traces(_) => 78,
            Self::Worker(_) | Self::Api(_) | Self::WorkerEnded | Self::Runtime(_) => 70,
        }
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long a part waits at its start for a broker or store that is not there yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// Runs until SIGINT or SIGTERM (then `Ok`) or until a part fails.
pub fn run(role: Role, settings: Settings, telemetry: Telemetry) -> Result<(), RunError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(serve(role, settings, telemetry))
}

async fn serve(role: Role, settings: Settings, telemetry: Telemetry) -> Result<(), RunError> {
    // Listening comes first: a taken port is the likelier mistake and the quicker answer.
    let listener = match role {
        Role::AllInOne | Role::Api => Some(listen(settings.listen).await?),
        Role::Worker => None,
    };
    let exporting = settings.otlp.as_ref().map(|to| Exporting::start(role, &settings, to)).transpose()?;
    let broker = patiently("broker", || connect::broker(&settings.broker)).await?;
    let store = patiently("store", || connect::store(&settings.store)).await?;
    // Ends with the runtime.
    tokio::spawn(telemetry::keep_up(telemetry.clone()));
    telemetry::register(role, &settings.broker);
    if role != Role::Api {
        tokio::spawn(telemetry::watch_queues(broker.clone()));
    }
    let shutdown = CancellationToken::new();
    let keyring = settings.api_keys.clone().map(Keyring::new);
    if let (Some(path), Some(keyring)) = (settings.api_keys_file.clone(), keyring.clone()) {
        tokio::spawn(key_file::follow(path, keyring, shutdown.clone()));
    }
    let (started, draining) = (CancellationToken::new(), CancellationToken::new());
    let admin = match settings.admin_listen {
        Some(address) => {
            let listener = listen(address).await?;
            if let Ok(address) = listener.local_addr() {
                println!("switchyard: admin on http://{address}");
            }
            let state = admin::Admin {
                broker: broker.clone(),
                store: store.clone(),
                started: started.clone(),
                draining: draining.clone(),
                telemetry: telemetry.clone(),
                api_keys: keyring.clone(),
                operator_keys: settings.operator_keys.clone().into(),
            };
            Some(tokio::spawn(admin::serve(state, listener, shutdown.clone())))
        }
        None => None,
    };
    // Before anything says that it is ready: whoever reads that may ask it to stop at once.
    let mut signals = Signals::listen();
    // Whoever makes the credentials and checks them, too, need not be told the secret.
    let turn_secret =
        settings.turn_secret.clone().or_else(|| settings.turn_server.is_some().then(TurnSecret::random));
    let worker = match role {
        Role::AllInOne | Role::Worker => {
            Some(start_worker(role, &settings, turn_secret.as_ref(), broker.clone(), store.clone()).await?)
        }
        Role::Api => None,
    };
    let mut api = match listener {
        Some(listener) => {
            let mut config = api_config(&settings, keyring, &listener, telemetry)?;
            let own_turn = worker.as_ref().map(|worker| own_turn(&settings, worker)).unwrap_or_default();
            config.ice_servers.extend(own_turn.stun);
            let urls = [settings.turn_urls.clone(), own_turn.urls].concat();
            let ttl = settings.turn_ttl;
            config.turn = turn_secret.filter(|_| !urls.is_empty()).map(|secret| Turn { urls, secret, ttl });
            Some(tokio::spawn(rest_api::serve(
                config,
                broker.clone(),
                store.clone(),
                listener,
                shutdown.clone(),
            )))
        }
        None => None,
    };
    started.cancel();

    let outcome = tokio::select! {
        () = until_stop(role, &mut signals, worker.as_ref(), &draining) => Ok(()),
        ended = async { api.as_mut().expect("guarded by the condition").await }, if api.is_some() => {
            api = None;
            match ended {
                Ok(result) => result.map_err(RunError::from),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        () = async { worker.as_ref().expect("guarded by the condition").ended().await }, if worker.is_some() => {
            Err(RunError::WorkerEnded)
        }
    };
    // The worker first: its participants still hear through the API that it goes.
    if let Some(worker) = worker {
        worker.stop().await;
    }
    shutdown.cancel();
    if let Some(api) = api {
        let _ = api.await;
    }
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    broker.close().await;
    if let Some(exporting) = exporting {
        exporting.finish().await;
    }
    outcome
}

/// Waits for the signal to stop. A worker of its own drains first: until it is done, or another signal comes.
async fn until_stop(
    role: Role,
    signals: &mut Signals,
    worker: Option<&Worker>,
    draining: &CancellationToken,
) {
    let Some(worker) = worker.filter(|_| role == Role::Worker) else {
        let signal = signals.next().await;
        info!(signal, "stopping");
        return;
    };
    tokio::select! {
        signal = signals.next() => info!(signal, "draining; once more stops at once"),
        () = worker.drain_asked() => info!("draining, as an operator asked"),
    }
    worker.drain();
    draining.cancel();
    tokio::select! {
        signal = signals.next() => info!(signal, "stopping at once"),
        () = worker.drained() => {}
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

/// Tries for a while: on a cluster the parts start in any order.
async fn patiently<T, E, F>(what: &'static str, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        match attempt().await {
            Ok(connected) => return Ok(connected),
            Err(error) if started.elapsed() + pause > CONNECT_PATIENCE => return Err(error),
            Err(error) => warn!(what, %error, "not reachable yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn start_worker(
    role: Role,
    settings: &Settings,
    turn_secret: Option<&TurnSecret>,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
) -> Result<Worker, RunError> {
    let mut config = WorkerConfig {
        worker_id: settings.worker_id,
        lease: settings.lease,
        drain_timeout: settings.drain_timeout,
        can_drain: role == Role::Worker,
        empty_timeout: settings.empty_timeout,
        closed_retention: settings.closed_retention,
        webhooks: settings.webhooks.iter().map(|receiver| receiver.id.clone()).collect(),
        ..WorkerConfig::default()
    };
    config.media.listen = settings.media;
    config.media.tcp = settings.media_tcp_port;
    config.media.public_addresses = match settings.public_addresses.as_slice() {
        [] if !settings.public_sources.is_empty() => {
            media_worker::public_address::find(&settings.public_sources).await?
        }
        configured => configured.to_vec(),
    };
    config.media.grace = settings.grace;
    config.media.threads = settings.media_threads;
    config.media.max_endpoints = settings.max_endpoints;
    config.media.max_packets_per_second = settings.max_packets_per_second;
    config.media.max_tracks = settings.max_tracks;
    config.media.bandwidth.start = settings.start_bitrate.min(settings.max_bitrate);
    config.media.bandwidth.max = settings.max_bitrate;
    config.media.suspend_video_below = settings.suspend_video_below;
    config.media.max_memory_bytes = settings.max_memory_mib << 20;
    config.relay =
        settings.turn_server.clone().zip(turn_secret.cloned()).map(|(server, secret)| RelayConfig {
            listen: server.listen,
            secret,
            ports: server.relay_ports,
            max_allocations: server.max_allocations,
            max_allocations_per_user: server.max_allocations_per_user,
            lifetime: server.lifetime,
        });
    let worker = match Worker::start(config.clone(), broker.clone(), store.clone()).await {
        Err(media_worker::StartError::Media(error))
            if settings.media_port_may_move && error.kind() == std::io::ErrorKind::AddrInUse =>
        {
            config.media.listen.set_port(0);
            Worker::start(config, broker, store).await?
        }
        started => started?,
    };
    let addresses: Vec<String> = worker.media_addresses().iter().map(SocketAddr::to_string).collect();
    println!("switchyard: worker {} media on udp {}", worker.id(), addresses.join(", "));
    if let Some(address) = worker.relay_address() {
        println!("switchyard: TURN and STUN on udp and tcp {address}");
    }
    Ok(worker)
}

/// What clients are told of the worker's own TURN server.
#[derive(Default)]
struct OwnTurn {
    urls: Vec<String>,
    stun: Option<IceServer>,
}

/// The addresses that media is announced with are what clients reach this machine by. One of each family: a browser asks
/// all of them, and gives each an allocation.
fn own_turn(settings: &Settings, worker: &Worker) -> OwnTurn {
    let Some(listen) = worker.relay_address() else { return OwnTurn::default() };
    let is_public = !settings.public_addresses.is_empty() || !settings.public_sources.is_empty();
    let ips: Vec<IpAddr> = if is_public || listen.ip().is_unspecified() {
        let all: Vec<IpAddr> = worker.media_addresses().iter().map(SocketAddr::ip).collect();
        let first = |is_ipv6: bool| all.iter().copied().find(|ip| ip.is_ipv6() == is_ipv6);
        // What listens for IPv6 on every interface takes IPv4 too.
        let takes = |ip: &IpAddr| ip.is_ipv4() || listen.is_ipv6();
        [first(false), first(true)].into_iter().flatten().filter(takes).collect()
    } else {
        vec![listen.ip()]
    };
    let addresses: Vec<SocketAddr> = ips.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect();
    let url = |address, transport| format!("turn:{address}?transport={transport}");
    let urls = addresses.iter().flat_map(|address| [url(address, "udp"), url(address, "tcp")]).collect();
    let stun: Vec<String> = addresses.iter().map(|address| format!("stun:{address}")).collect();
    let stun = (!stun.is_empty()).then_some(IceServer { urls: stun, username: None, credential: None });
    OwnTurn { urls, stun }
}

fn api_config(
    settings: &Settings,
    keyring: Option<Keyring>,
    listener: &TcpListener,
    telemetry: Telemetry,
) -> Result<ApiConfig, RunError> {
    let address =
        listener.local_addr().map_err(|source| RunError::Listen { address: settings.listen, source })?;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let own_url = format!("{scheme}://{}", reachable(address));
    println!("switchyard: listening on {own_url}");
    let dev = keyring.is_none();
    let keyring = keyring.unwrap_or_else(|| Keyring::new(development_keys()));
    let keys = keyring.now();
    if settings.demo {
        println!(
            "switchyard: open {}/ in two browser tabs",
            settings.public_url.as_ref().unwrap_or(&own_url)
        );
    }
    if dev {
        let url = settings.public_url.as_ref().unwrap_or(&own_url);
        println!(
            "switchyard: admin page, for an hour: {}",
            signed_admin_link(&keys, keys.first_id(), url, HOUR)
        );
    }
    let webhooks = (!settings.webhooks.is_empty()).then(|| WebhookConfig {
        receivers: settings.webhooks.clone(),
        key_id: settings.webhook_key.clone().unwrap_or_else(|| keys.first_id().to_owned()),
        retry: settings.webhook_retry,
    });
    let operator_keys = if dev { vec![keys.first_id().to_owned()] } else { settings.operator_keys.clone() };
    let ice_servers = settings
        .ice_servers
        .iter()
        .map(|url| IceServer { urls: vec![url.clone()], username: None, credential: None })
        .collect();
    Ok(ApiConfig {
        public_url: settings.public_url.clone(),
        tls: settings.tls.clone(),
        trusted_proxies: Arc::new(settings.trusted_proxies.clone()),
        operator_keys,
        webhooks,
        dev,
        demo: settings.demo,
        ice_servers,
        request_rates: settings.request_rates,
        max_connections: settings.max_connections.min(descriptors::limit() / 10 * 9),
        max_connections_per_address: settings.max_connections_per_address,
        overflow_url: settings.overflow_url.clone(),
        // With a port for operators they are there, and not at the address that clients have.
        metrics: settings
            .admin_listen
            .is_none()
            .then(|| -> RenderMetrics { Arc::new(move || telemetry.scrape()) }),
        ..ApiConfig::new(keyring)
    })
}

/// The admin page with a token for it, signed here with the first of the operators' keys.
///
/// # Errors
/// When the settings name no such key.
pub fn admin_link(settings: &Settings, ttl: Duration) -> Result<String, ConfigError> {
    let (Some(keys), Some(operator)) = (&settings.api_keys, settings.operator_keys.first()) else {
        return Err(ConfigError {
            setting: "operator_keys",
            reason: "set it to the id of one of api_keys".to_owned(),
        });
    };
    let own_url = format!("http://{}", reachable(settings.listen));
    let url = settings.public_url.as_ref().unwrap_or(&own_url);
    Ok(signed_admin_link(keys, operator, url, ttl))
}

fn signed_admin_link(keys: &ApiKeys, key_id: &str, url: &str, ttl: Duration) -> String {
    let grants = VideoGrants { operator: true, ..VideoGrants::default() };
    let token = keys.mint(&Claims::expiring_in(key_id, ttl, grants)).expect("the key is one of these");
    format!("{url}/admin/#token={token}")
}

/// A key for this run only, printed so that a developer can call the API with it.
fn development_keys() -> ApiKeys {
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    println!("switchyard: no API keys are set: serving on loopback only");
    println!("switchyard: development key for this run: devkey:{secret}");
    ApiKeys::new([("devkey", secret)]).expect("one key with a long secret is valid")
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}

/// The signals that ask the process to stop. They count from [`Signals::listen`] on, not from the first look.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).expect("the runtime handles signals"),
            interrupt: signal(SignalKind::interrupt()).expect("the runtime handles signals"),
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Self {
        Self
    }

    async fn next(&mut self) -> &'static str {
        let _ = tokio::signal::ctrl_c().await;
        "interrupt"
    }
}
