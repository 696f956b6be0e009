//! `/v1/webhooks`, for operators.

use axum::extract::State;
use axum::response::Response;
use common::model::EventId;
use serde::Deserialize;

use super::private;
use super::problems::{ListProblems, RedeliverProblems};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Query};
use crate::service::webhooks::{self as service, DeadLetterPage, Redeliver, Redelivered};
use crate::state::ApiState;

/// Where a page starts and how long it is.
#[derive(Debug, Deserialize)]
pub struct DeadLetterQuery {
    after: Option<EventId>,
    limit: Option<u32>,
}

/// List the webhooks that were given up, the oldest first. Only for API keys that are operators.
#[utoipa::path(
    get, path = "/v1/webhooks/dead-letters", tag = "webhooks",
    params(
        ("after" = Option<EventId>, Query, description = "Only those behind this one: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500, default 100", minimum = 1, maximum = 500),
    ),
    responses((status = 200, description = "One page", body = DeadLetterPage), ListProblems),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(page): Query<DeadLetterQuery>,
) -> ApiResult<Response> {
    let limit = super::events::bounded("limit", page.limit.unwrap_or(100), 1, service::MAX_PAGE)?;
    Ok(private(axum::Json(service::list(&state, &caller, page.after, limit).await?)))
}

/// Send given-up webhooks again: those that are named, or up to 10,000. Only for API keys that are operators.
#[utoipa::path(
    post, path = "/v1/webhooks/dead-letters/redeliver", tag = "webhooks",
    request_body = Redeliver,
    responses((status = 200, description = "They are under way", body = Redelivered), RedeliverProblems),
)]
pub async fn redeliver(
    State(state): State<ApiState>,
    caller: Caller,
    Json(wanted): Json<Redeliver>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::redeliver(&state, &caller, wanted).await?)))
}
