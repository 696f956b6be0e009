//! `/v1/demo`: join links for everybody, where the operator allows it.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::private;
use super::problems::DemoProblems;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::Json;
use crate::origin::PublicUrl;
use crate::service::CommandContext;
use crate::service::demo::{self as service, CreateDemoLink, DemoLink};
use crate::state::ApiState;

/// Make a join link to a named room, and the room when needed. Only with the demo switched on.
#[utoipa::path(
    post, path = "/v1/demo/links", tag = "demo", security(()),
    request_body = CreateDemoLink,
    responses((status = 201, description = "Made", body = DemoLink), DemoProblems),
)]
pub async fn create_link(
    State(state): State<ApiState>,
    context: CommandContext,
    PublicUrl(public_url): PublicUrl,
    body: Result<Json<CreateDemoLink>, ApiError>,
) -> ApiResult<Response> {
    if !state.config.demo {
        return Err(ApiError::new(Code::NotFound, "the demo is switched off"));
    }
    let Json(body) = body?;
    let link = service::link(&state, &context, &public_url, body).await?;
    Ok(private((StatusCode::CREATED, axum::Json(link))))
}
