//! The routes, each declared once for the server and for `/openapi.json`.

mod admin;
mod demo;
mod endpoints;
mod events;
mod health;
mod messages;
mod openapi;
mod participants;
mod problems;
mod ratings;
mod sessions;
mod stats;
mod subscriptions;
mod timeline;
mod tokens;
mod tracks;
mod web;
mod webhooks;
mod whip;
mod workers;

use std::any::Any;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use common::model::CommandId;
use http::{HeaderName, Method, StatusCode, header};
use serde::Serialize;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any as AnyOrigin, CorsLayer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{COMMAND_ID, IDEMPOTENCY_KEY, PREFER, identify_command};
use crate::limits::limit_address;
use crate::observe::observe;
use crate::origin::loopback_only;
use crate::service::{Completed, Outcome};
use crate::state::ApiState;
use crate::trace::TRACEPARENT;

pub use openapi::openapi;

/// The largest body with a description, in bytes.
pub const MAX_BODY: usize = 512 * 1024;
/// The same for candidates, of which there may be 100, and messages, which may name 256 participants.
pub const MAX_LISTED: usize = 256 * 1024;
/// The same for everything else.
pub const MAX_SMALL: usize = 32 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Everything that is served.
pub fn router(state: ApiState) -> Router {
    // Layers see only what their router has at that time: fallbacks come first, so that CORS covers them. Those of one router are
    // added together, the outermost first: one by one, each would cost every waiting request some boxes of its own.
    let admit = middleware::from_fn_with_state(state.clone(), admit);
    let v1 =
        Router::from(v1()).method_not_allowed_fallback(method_not_allowed).layer((cors(), admit.clone()));
    let whip = Router::from(whip()).method_not_allowed_fallback(method_not_allowed).layer((
        middleware::from_fn(whip::describe_options),
        cors(),
        admit.clone(),
    ));
    let same_origin = Router::from(demo()).method_not_allowed_fallback(method_not_allowed).layer(admit);
    let operations =
        Router::from(operations()).merge(web::router()).method_not_allowed_fallback(method_not_allowed);
    v1.merge(whip)
        .merge(same_origin)
        .merge(operations)
        .fallback(not_found)
        .layer((
            middleware::from_fn(observe),
            CatchPanicLayer::custom(panicked),
            option_layer(state.config.dev.then(|| middleware::from_fn(loopback_only))),
            DefaultBodyLimit::max(MAX_BODY),
        ))
        .with_state(state)
}

/// What every call of a client passes.
async fn admit(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match limit_address(&state, &request) {
        Ok(()) => identify_command(request, next).await,
        Err(refused) => refused.into_response(),
    }
}

/// The routes of the OpenAPI document.
fn documented() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::frame()).merge(v1()).merge(whip()).merge(demo()).merge(operations())
}

fn v1() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(with_small_bodies().layer(DefaultBodyLimit::max(MAX_SMALL)))
        .merge(with_lists().layer(DefaultBodyLimit::max(MAX_LISTED)))
        .routes(routes!(participants::join, participants::list))
        .routes(routes!(endpoints::offer))
        .routes(routes!(endpoints::answer))
}

/// WHIP and WHEP, whose answers to OPTIONS say more than others' do.
fn whip() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(whip::publish))
        .routes(routes!(whip::change_publisher, whip::unpublish))
        .routes(routes!(whip::watch))
        .routes(routes!(whip::change_watcher, whip::unwatch))
}

fn with_small_bodies() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(sessions::create, sessions::list))
        .routes(routes!(sessions::read, sessions::change, sessions::close))
        .routes(routes!(sessions::create_link))
        .routes(routes!(participants::read, participants::leave))
        .routes(routes!(tokens::refresh))
        .routes(routes!(participants::ice_servers))
        .routes(routes!(tracks::change))
        .routes(routes!(subscriptions::change))
        .routes(routes!(stats::read))
        .routes(routes!(events::read))
        .routes(routes!(events::websocket))
        .routes(routes!(timeline::read))
        .routes(routes!(ratings::rate))
        .routes(routes!(ratings::list))
        .routes(routes!(workers::list))
        .routes(routes!(workers::drain))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(admin::create_token))
        .routes(routes!(admin::sessions))
        .routes(routes!(admin::session))
}

fn with_lists() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(endpoints::candidates)).routes(routes!(messages::send))
}

fn demo() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(demo::create_link))
}

fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::document))
}

/// Web pages of any origin may call `/v1`: tokens are in headers, never in cookies.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AnyOrigin)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            IDEMPOTENCY_KEY,
            PREFER,
            LAST_EVENT_ID,
            TRACEPARENT,
        ])
        .expose_headers([
            COMMAND_ID,
            TRACEPARENT,
            header::RETRY_AFTER,
            header::LOCATION,
            header::ETAG,
            header::LINK,
        ])
        .max_age(std::time::Duration::from_secs(60 * 60))
}

async fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "there is no such route")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this route does not have that method")
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a request handler panicked");
    ApiError::new(Code::Internal, "something went wrong on the server").into_response()
}

/// A result that is not known yet: it will arrive as the event `command.completed`.
#[derive(Debug, Serialize, ToSchema)]
struct Later {
    command_id: CommandId,
}

/// A command's outcome as a response.
struct Replied<T>(Outcome<T>);

impl<T: Completed> IntoResponse for Replied<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Outcome::Done(value) => {
                let status = StatusCode::from_u16(value.status()).unwrap_or(StatusCode::OK);
                match value.result() {
                    serde_json::Value::Null => status.into_response(),
                    body => private((status, axum::Json(body))),
                }
            }
            Outcome::Later(command_id) => private((StatusCode::ACCEPTED, axum::Json(Later { command_id }))),
        }
    }
}

type ApiReply<T> = ApiResult<Replied<T>>;

/// Replies hold tokens and change all the time: no cache keeps them.
fn private(response: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], response).into_response()
}
