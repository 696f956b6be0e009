//! The HTTP server around the router: connections, their limits, and an orderly end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use common::broker::{Broker, BrokerError};
use common::store::Store;
use http::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::address::{Connection, Network, network};
use crate::config::ApiConfig;
use crate::metrics::{self, Gauge};
use crate::protocols::{Protocol, Protocols, Served};
use crate::state::ApiState;
use crate::tls::Tls;
use crate::webhooks;

/// After a failed accept (usually out of file descriptors) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the API cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the reply queue cannot be opened")]
    Broker(#[from] BrokerError),
    #[error("webhooks cannot be sent: {0}")]
    Webhooks(#[from] crate::outgoing::ClientError),
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
    let max_per_address = match config.max_connections_per_address {
        0 => config.max_connections,
        most => most,
    };
    let tls = config.tls.clone();
    let trusted = config.trusted_proxies.clone();
    let state = ApiState::start(config, broker, store, shutdown.clone()).await?;
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.keep_fresh(shutdown.clone()));
    }
    let webhooks = match state.config.webhooks.clone() {
        Some(config) => {
            let sender =
                webhooks::Sender::new(state.config.keys.clone(), config.key_id.clone(), &config.receivers)?;
            let stop = shutdown.clone();
            Some(tokio::spawn(webhooks::serve(config, sender, state.store.clone(), stop)))
        }
        None => None,
    };
    let router = crate::router(state);
    let protocols = Arc::new(Protocols::new(&timings));
    let per_address = PerAddress::new(max_per_address);
    let tasks = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit.expect("nobody closes it"),
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(error = %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A trusted proxy brings everybody's connections.
        let is_counted = !trusted.trusts(peer);
        let place = if is_counted { per_address.take(peer) } else { None };
        if is_counted && place.is_none() {
            metrics::connection_refused();
            continue;
        }
        // Events are small and must not wait for more of them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "small packets are delayed on a connection");
        }
        let service = Connected {
            router: router.clone(),
            connection: Connection { peer, tls: tls.is_some(), trusted: trusted.clone() },
            held: Held { _place: Arc::new((permit, place)) },
            asked: Arc::default(),
        };
        let (protocols, tls, stop) = (protocols.clone(), tls.clone(), shutdown.clone());
        let patience = timings.read_timeout;
        tasks.spawn(async move {
            let _gauge = Gauge::connection();
            match tls {
                None => {
                    let begun = tokio::time::timeout(patience, Protocol::begun(&stream));
                    if let Some(Ok(protocol)) = stop.run_until_cancelled(begun).await {
                        let asked = service.asked.clone();
                        carry(protocols.serve(protocol, stream, service, stop), &asked, patience).await;
                    }
                }
                // In a place of its own: connections without it, of which there are many, are smaller for it.
                Some(tls) => {
                    Box::pin(carry_encrypted(tls, &protocols, stream, service, patience, stop)).await;
                }
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(timings.shutdown_grace, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    if let Some(webhooks) = webhooks {
        // It gives its leases back, for about a second.
        let _ = webhooks.await;
    }
    Ok(())
}

/// The same as [`carry`], after a handshake.
async fn carry_encrypted(
    tls: Tls,
    protocols: &Protocols,
    stream: TcpStream,
    service: Connected,
    patience: Duration,
    stop: CancellationToken,
) {
    let handshake = tokio::time::timeout(patience, tls.accept(stream));
    match stop.run_until_cancelled(handshake).await {
        Some(Ok(Some(stream))) => {
            let protocol = Protocol::negotiated(stream.get_ref().1.alpn_protocol());
            let asked = service.asked.clone();
            carry(protocols.serve(protocol, stream, service, stop), &asked, patience).await;
        }
        Some(Err(_)) => metrics::handshake_failed("timed_out"),
        Some(Ok(None)) | None => {}
    }
}

/// Answers the requests of one connection until it ends; `asked` says whether it has brought one.
async fn carry(mut served: Served, asked: &AtomicBool, patience: Duration) {
    // The time-out of heads begins when it is known which HTTP it is, which a client can put off for ever (with half a preface).
    let ended = match tokio::time::timeout(patience, &mut served).await {
        Ok(ended) => ended,
        Err(_) if !asked.load(Ordering::Relaxed) => return,
        Err(_) => served.await,
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended badly");
    }
}

/// A connection's part of what there may be; an extension of every request. What becomes another protocol keeps it, because
/// the HTTP connection ends there.
#[derive(Clone)]
pub struct Held {
    _place: Arc<(OwnedSemaphorePermit, Option<Place>)>,
}

/// The router for one connection.
#[derive(Clone)]
pub(crate) struct Connected {
    router: Router,
    connection: Connection,
    held: Held,
    /// Whether it has brought a request.
    asked: Arc<AtomicBool>,
}

impl<B> Service<Request<B>> for Connected
where
    Router: Service<Request<B>, Error = Infallible>,
{
    type Response = <Router as Service<Request<B>>>::Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(self.connection.clone());
        request.extensions_mut().insert(self.held.clone());
        self.router.call(request)
    }
}

/// How many connections each client address has.
#[derive(Clone)]
struct PerAddress {
    most: usize,
    open: Arc<Mutex<HashMap<Network, usize>>>,
}

impl PerAddress {
    fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// `None`: it has as many as it may.
    fn take(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), network })
    }
}

/// One connection of an address, while it lives.
struct Place {
    of: PerAddress,
    network: Network,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_gives_them_back() {
        let places = PerAddress::new(2);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let held = [places.take(one).unwrap(), places.take(one).unwrap()];
        assert!(places.take(one).is_none() && places.take(other).is_some());
        drop(held);
        assert!(places.take(one).is_some());
        assert!(places.open.lock().unwrap().is_empty(), "nobody is remembered");
    }
}
