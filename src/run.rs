//! Starts the parts that this process is, waits for a signal or a failure, and stops them in order.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::connect;
use common::store::Store;
use common::token::ApiKeys;
use media_worker::{Worker, WorkerConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use rest_api::{ApiConfig, IceServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin;
use crate::config::{Role, Settings};

/// Why the process ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the broker is not reachable: {0}")]
    Broker(#[from] common::broker::BrokerError),
    #[error("the store is not reachable: {0}")]
    Store(#[from] common::store::StoreError),
    #[error("the worker did not start: {0}")]
    Worker(#[from] media_worker::StartError),
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
            Self::Listen { .. } | Self::Broker(_) | Self::Store(_) => 69,
            Self::Worker(_) | Self::Api(_) | Self::WorkerEnded | Self::Runtime(_) => 70,
        }
    }
}

/// How long a part waits at its start for a broker or store that is not there yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// Runs until SIGINT or SIGTERM (then `Ok`) or until a part fails.
pub fn run(role: Role, settings: Settings, metrics: PrometheusHandle) -> Result<(), RunError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(serve(role, settings, metrics))
}

async fn serve(role: Role, settings: Settings, metrics: PrometheusHandle) -> Result<(), RunError> {
    // Listening comes first: a taken port is the likelier mistake and the quicker answer.
    let listener = match role {
        Role::AllInOne | Role::Api => Some(listen(settings.listen).await?),
        Role::Worker => None,
    };
    let broker = patiently("broker", || connect::broker(&settings.broker)).await?;
    let store = patiently("store", || connect::store(&settings.store)).await?;
    let shutdown = CancellationToken::new();
    let draining = CancellationToken::new();
    let admin = match settings.admin_listen {
        Some(address) => {
            let listener = listen(address).await?;
            let state = admin::Admin {
                broker: broker.clone(),
                store: store.clone(),
                draining: draining.clone(),
                metrics: metrics.clone(),
            };
            Some(tokio::spawn(admin::serve(state, listener, shutdown.clone())))
        }
        None => None,
    };
    // Before anything says that it is ready: whoever reads that may ask it to stop at once.
    let mut signals = Signals::listen();
    let worker = match role {
        Role::AllInOne | Role::Worker => {
            Some(start_worker(role, &settings, broker.clone(), store.clone()).await?)
        }
        Role::Api => None,
    };
    let mut api = match listener {
        Some(listener) => {
            let config = api_config(&settings, &listener, metrics)?;
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
        ..WorkerConfig::default()
    };
    config.media.listen = settings.media;
    config.media.public_addresses = settings.public_addresses.clone();
    config.media.grace = settings.grace;
    config.media.threads = settings.media_threads;
    config.media.max_endpoints = settings.max_endpoints;
    config.media.max_packets_per_second = settings.max_packets_per_second;
    config.media.max_tracks = settings.max_tracks;
    config.media.max_memory_bytes = settings.max_memory_mib << 20;
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
    Ok(worker)
}

fn api_config(
    settings: &Settings,
    listener: &TcpListener,
    metrics: PrometheusHandle,
) -> Result<ApiConfig, RunError> {
    let address =
        listener.local_addr().map_err(|source| RunError::Listen { address: settings.listen, source })?;
    let own_url = format!("http://{}", reachable(address));
    println!("switchyard: listening on {own_url}");
    let dev = settings.api_keys.is_none();
    let keys = match &settings.api_keys {
        Some(keys) => keys.clone(),
        None => development_keys(),
    };
    if settings.demo {
        println!(
            "switchyard: open {}/ in two browser tabs",
            settings.public_url.as_ref().unwrap_or(&own_url)
        );
    }
    let operator_keys = if dev { vec![keys.first_id().to_owned()] } else { settings.operator_keys.clone() };
    let ice_servers = settings
        .ice_servers
        .iter()
        .map(|url| IceServer { urls: vec![url.clone()], username: None, credential: None })
        .collect();
    Ok(ApiConfig {
        public_url: settings.public_url.clone(),
        operator_keys,
        dev,
        demo: settings.demo,
        ice_servers,
        metrics: Some(Arc::new(move || metrics.render())),
        ..ApiConfig::new(keys)
    })
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
