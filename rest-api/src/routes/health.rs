//! For operators: `/healthz`, `/readyz` and `/metrics`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::private;
use super::problems::MetricsProblems;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Live {
    /// Always `live`.
    status: &'static str,
}

/// Whether the process lives; knows nothing of broker and store, so that their outage restarts nobody.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "It lives", body = Live)),
)]
pub async fn live() -> Response {
    private(axum::Json(Live { status: "live" }))
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    Ok,
    Down,
}

impl From<bool> for Dependency {
    fn from(connected: bool) -> Self {
        if connected { Self::Ok } else { Self::Down }
    }
}

/// Whether requests can be served now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    ready: bool,
    broker: Dependency,
    store: Dependency,
}

/// Whether broker and store are reachable.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", security(()),
    responses(
        (status = 200, description = "Ready", body = Ready),
        (status = 503, description = "Not ready", body = Ready),
    ),
)]
pub async fn ready(State(state): State<ApiState>) -> Response {
    let broker = *state.broker.connected().borrow();
    let store = *state.store.connected().borrow();
    let ready = broker && store && !state.shutdown.is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Ready { ready, broker: broker.into(), store: store.into() };
    private((status, axum::Json(body)))
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", security(()),
    responses(
        (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
        MetricsProblems,
    ),
)]
pub async fn metrics(State(state): State<ApiState>) -> ApiResult<Response> {
    let render = state
        .config
        .metrics
        .as_ref()
        .ok_or_else(|| ApiError::new(Code::NotFound, "this process records no metrics"))?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, render()).into_response())
}
