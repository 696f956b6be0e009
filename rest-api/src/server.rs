//! The HTTP server around the router: connections, their limits, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use common::broker::{Broker, BrokerError};
use common::store::Store;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use crate::metrics::Gauge;
use crate::state::ApiState;

/// After a failed accept (usually out of file descriptors) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the API cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the reply queue cannot be opened")]
    Broker(#[from] BrokerError),
}

/// Serves until `shutdown`, then lets open requests end, at most `timings.shutdown_grace` long.
///
/// # Errors
/// When the broker is not there at the start. Later failures of broker and store are answered with 503.
pub async fn serve(
    config: ApiConfig,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let timings = config.timings.clone();
    let connections = Arc::new(Semaphore::new(config.max_connections));
    let state = ApiState::start(config, broker, store, shutdown.clone()).await?;
    let router = crate::router(state);
    let mut http = Builder::new(TokioExecutor::new());
    // Slow heads (and idle keep-alive connections) end after this time.
    http.http1().timer(TokioTimer::new()).header_read_timeout(timings.read_timeout);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(256).keep_alive_interval(timings.keep_alive);
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connect(&http, stream, router.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            let _gauge = Gauge::connection();
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(timings.shutdown_grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

fn connect(
    http: &Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
) -> hyper_util::server::conn::auto::UpgradeableConnection<
    'static,
    TokioIo<TcpStream>,
    TowerToHyperService<Router>,
    TokioExecutor,
> {
    // Events are small and must not wait for more of them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "small packets are delayed on a connection");
    }
    http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned()
}
