//! A process's own small HTTP server for its operators, on a port of its own.
//!
//! | route | is |
//! |---|---|
//! | `GET /healthz` | whether the process lives. Knows nothing of broker and store: media flows without them, and a restart would end it |
//! | `GET /readyz` | whether its parts have started, broker and store answer, and it does not drain |
//! | `GET /metrics` | what it counts, for Prometheus |
//! | `GET /log`, `PUT /log` | what it logs: a filter as in `log`, as text; changeable until it ends |
//!
//! `/log` is for operators: with API keys, one that is in `operator_keys`; without, who is on this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::StringRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use common::broker::Broker;
use common::keyring::Keyring;
use common::store::Store;
use rest_api::auth::check_operator;
use rest_api::error::{ApiError, ApiResult, Code};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::Telemetry;

/// More than any sensible filter.
const MAX_FILTER: usize = 4096;

/// What the routes read.
#[derive(Clone)]
pub struct Admin {
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
    /// Cancelled once all parts run: before that a worker is known to nobody, and nothing can be placed on it.
    pub started: CancellationToken,
    /// Cancelled when the worker begins to drain: it wants no more work, and still has some.
    pub draining: CancellationToken,
    pub telemetry: Telemetry,
    pub api_keys: Option<Keyring>,
    pub operator_keys: Arc<[String]>,
}

/// Serves until `shutdown`.
pub async fn serve(state: Admin, listener: TcpListener, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(admin): State<Admin>| async move { admin.telemetry.scrape() }))
        .route("/log", get(log).put(set_log).layer(DefaultBodyLimit::max(MAX_FILTER)))
        .with_state(state)
        .into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        warn!(%error, "the admin server ended");
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, Json<serde_json::Value>) {
    let broker = *admin.broker.connected().borrow();
    let store = *admin.store.connected().borrow();
    let word = |up: bool| if up { "ok" } else { "down" };
    let (starting, draining) = (!admin.started.is_cancelled(), admin.draining.is_cancelled());
    let ready = broker && store && !starting && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(serde_json::json!({
            "ready": ready, "broker": word(broker), "store": word(store), "starting": starting, "draining": draining,
        })),
    )
}

async fn log(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> ApiResult<String> {
    admin.check(from, &headers)?;
    Ok(admin.telemetry.log.current())
}

async fn set_log(
    State(admin): State<Admin>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    filter: Result<String, StringRejection>,
) -> ApiResult<impl IntoResponse> {
    admin.check(from, &headers)?;
    let filter = filter.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::BodyTooLarge, "no filter is as long"),
        _ => ApiError::new(Code::InvalidRequest, refused.body_text()),
    })?;
    let filter = filter.trim();
    let before = admin.telemetry.log.current();
    admin.telemetry.log.set(filter).map_err(|error| ApiError::new(Code::InvalidRequest, error))?;
    info!(before, now = filter, "what is logged was changed");
    Ok(StatusCode::NO_CONTENT)
}

impl Admin {
    fn check(&self, from: SocketAddr, headers: &HeaderMap) -> ApiResult<()> {
        match &self.api_keys {
            Some(keys) => {
                let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                check_operator(keys, &self.operator_keys, header)
            }
            None if from.ip().to_canonical().is_loopback() => Ok(()),
            None => Err(ApiError::forbidden("without api_keys only this machine may")),
        }
    }
}
