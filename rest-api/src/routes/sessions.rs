//! `/v1/sessions`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::model::SessionId;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::problems::{
    ChangeSessionProblems, CloseProblems, CreateSessionProblems, LinkProblems, ListProblems, SessionProblems,
};
use super::{ApiReply, Later, Replied, private};
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path, Query};
use crate::origin::PublicUrl;
use crate::service::links::{self, CreateLink, Link};
use crate::service::sessions::{self as service, CreateSession, CreatedSession, SessionPage};
use crate::service::settings::{self, ChangeSession};
use crate::service::{CommandContext, Nothing, Outcome};
use crate::state::ApiState;
use crate::view::SessionView;

/// Create a session.
///
/// With an id that the same key created before, that session is the answer.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions",
    request_body = CreateSession,
    responses(
        (status = 201, description = "Created", body = CreatedSession,
            headers(("Location" = String, description = "The session's path"))),
        (status = 200, description = "The same key had created it before", body = CreatedSession),
        (status = 202, description = "Not known yet", body = Later),
        CreateSessionProblems,
    ),
)]
pub async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    PublicUrl(public_url): PublicUrl,
    Json(body): Json<CreateSession>,
) -> ApiResult<Response> {
    let outcome = service::create(&state, &caller, &context, public_url, body).await?;
    let location = match &outcome {
        Outcome::Done(created) if created.new => Some(format!("/v1/sessions/{}", created.session.id)),
        _ => None,
    };
    let mut response = Replied(outcome).into_response();
    if let Some(location) = location.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Where a page starts and how long it is.
#[derive(Debug, Deserialize)]
pub struct PageQuery {
    after: Option<SessionId>,
    limit: Option<u32>,
}

/// List the open sessions of the calling API key, by id.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(
        ("after" = Option<SessionId>, Query, description = "Only ids after this one: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500, default 100", minimum = 1, maximum = 500),
    ),
    responses((status = 200, description = "One page", body = SessionPage), ListProblems),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(page): Query<PageQuery>,
) -> ApiResult<Response> {
    let limit = super::events::bounded("limit", page.limit.unwrap_or(100), 1, service::MAX_PAGE)?;
    let page = service::list(&state, &caller, page.after, limit).await?;
    Ok(private(axum::Json(page)))
}

/// Read a session, also a closed one.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = SessionId, Path)),
    responses((status = 200, description = "The session", body = SessionView), SessionProblems),
)]
pub async fn read(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<SessionId>,
) -> ApiResult<Response> {
    Ok(private(axum::Json(service::read(&state, &caller, id).await?)))
}

/// Change how a session treats its media.
///
/// The settings take the place of all that were set before, also for who is in it already; codecs count for what is
/// published from then on. Basic only.
#[utoipa::path(
    patch, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = SessionId, Path)),
    request_body = ChangeSession,
    responses(
        (status = 200, description = "The session as it is now", body = SessionView),
        (status = 202, description = "Not known yet", body = Later),
        ChangeSessionProblems,
    ),
)]
pub async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(id): Path<SessionId>,
    Json(body): Json<ChangeSession>,
) -> ApiReply<SessionView> {
    settings::change(&state, &caller, &context, id, body).await.map(Replied)
}

/// Close a session; also when it is closed already.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = SessionId, Path)),
    responses(
        (status = 204, description = "Closed"),
        (status = 202, description = "Not known yet", body = Later),
        CloseProblems,
    ),
)]
pub async fn close(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(id): Path<SessionId>,
) -> ApiReply<Nothing> {
    service::close(&state, &caller, &context, id).await.map(Replied)
}

/// Make a join link.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/links", tag = "sessions",
    params(("session_id" = SessionId, Path)),
    request_body = CreateLink,
    responses((status = 201, description = "Made", body = Link), LinkProblems),
)]
pub async fn create_link(
    State(state): State<ApiState>,
    caller: Caller,
    PublicUrl(public_url): PublicUrl,
    Path(id): Path<SessionId>,
    Json(body): Json<CreateLink>,
) -> ApiResult<Response> {
    let link = links::create(&state, &caller, &public_url, id, body).await?;
    Ok(private((StatusCode::CREATED, axum::Json(link))))
}
