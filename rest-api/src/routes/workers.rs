//! `/v1/workers`, for operators.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::model::WorkerId;
use http::StatusCode;

use super::problems::{DrainProblems, ListProblems};
use super::{Later, private};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::Path;
use crate::service::CommandContext;
use crate::service::workers::{self as service, WorkerList};
use crate::state::ApiState;

/// List the media workers. Only for API keys that are operators.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers",
    responses((status = 200, description = "All of them, by id", body = WorkerList), ListProblems),
)]
pub async fn list(State(state): State<ApiState>, caller: Caller) -> ApiResult<Response> {
    Ok(private(axum::Json(service::list(&state, &caller).await?)))
}

/// Drain a worker: it moves its sessions to others, and then its process ends. Only for API keys that are operators.
#[utoipa::path(
    post, path = "/v1/workers/{worker_id}/drain", tag = "workers",
    params(("worker_id" = WorkerId, Path)),
    responses((status = 202, description = "It has begun, or had before", body = Later), DrainProblems),
)]
pub async fn drain(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(id): Path<WorkerId>,
) -> ApiResult<Response> {
    let command_id = context.command_id;
    // Begun or not known yet: the end of a drain is seen in the list.
    service::drain(&state, &caller, &context, id).await?;
    Ok(private((StatusCode::ACCEPTED, axum::Json(Later { command_id }))).into_response())
}
