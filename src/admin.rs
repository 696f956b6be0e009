//! A worker's own small HTTP server: `/healthz`, `/readyz` and `/metrics`, on a port of its own.
//!
//! Liveness knows nothing of broker and store: media flows without them, and a restart would end it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use common::broker::Broker;
use common::store::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What the routes read.
#[derive(Clone)]
pub struct Admin {
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
    /// Cancelled when the worker begins to drain: it wants no more work, and still has some.
    pub draining: CancellationToken,
    pub metrics: PrometheusHandle,
}

/// Serves until `shutdown`.
pub async fn serve(state: Admin, listener: TcpListener, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(admin): State<Admin>| async move { admin.metrics.render() }))
        .with_state(state);
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        warn!(%error, "the admin server ended");
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, Json<serde_json::Value>) {
    let broker = *admin.broker.connected().borrow();
    let store = *admin.store.connected().borrow();
    let word = |up: bool| if up { "ok" } else { "down" };
    let draining = admin.draining.is_cancelled();
    let ready = broker && store && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(serde_json::json!({
            "ready": ready, "broker": word(broker), "store": word(store), "draining": draining,
        })),
    )
}
