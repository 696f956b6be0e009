//! `…/{participant_id}/events`: long poll, SSE and WebSocket.

use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use common::model::{EndpointId, EventId, ParticipantId, SessionId, SessionState};
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problems::EventsProblems;
use super::{LAST_EVENT_ID, private};
use crate::auth::{Caller, StreamCaller};
use crate::delivery::poll::{self, Poll};
use crate::delivery::{Acquired, Credentials, Lapse, Recipient, Refused, sse, websocket};
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{Path, Query};
use crate::server::Held;
use crate::service::why_gone;
use crate::state::ApiState;
use crate::view::EventView;

const MAX_WAIT_SECONDS: u32 = 30;
const MAX_EVENTS: u32 = 500;
const DEFAULT_EVENTS: u32 = 100;

/// The events of one poll.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    pub events: Vec<EventView>,
    /// For the next poll; confirms these events.
    pub cursor: Option<EventId>,
}

#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    endpoint: Option<EndpointId>,
    cursor: Option<EventId>,
    wait: Option<u32>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub struct StreamQuery {
    endpoint: Option<EndpointId>,
}

/// Read events by long poll, or as a stream with `Accept: text/event-stream`.
///
/// Events belong to an endpoint: who joins again reads those of the new one, while the stream of the old one ends. A
/// newer reader of the same endpoint, on any instance, takes over from an older one.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants/{participant_id}/events", tag = "events",
    params(
        ("session_id" = SessionId, Path),
        ("participant_id" = ParticipantId, Path),
        ("endpoint" = Option<EndpointId>, Query, description = "Of the join reply. Without it the participant's \
            current endpoint is looked up"),
        ("cursor" = Option<EventId>, Query, description = "Confirms everything up to and including this event"),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for an event: 0 to 30, default 0", maximum = 30),
        ("limit" = Option<u32>, Query, description = "Events at most: 1 to 500, default 100", minimum = 1,
            maximum = 500),
        ("access_token" = Option<String>, Query, description = "For clients that cannot send headers"),
        ("Last-Event-ID" = Option<EventId>, Header, description = "As `cursor`, for streams"),
    ),
    responses(
        (status = 200, description = "Events", content(
            (EventPage = "application/json"),
            (String = "text/event-stream"),
        )),
        EventsProblems,
    ),
)]
pub async fn read(
    State(state): State<ApiState>,
    opened_by: StreamCaller,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let wait = bounded("wait", query.wait.unwrap_or(0), 0, MAX_WAIT_SECONDS)?;
    let limit = bounded("limit", query.limit.unwrap_or(DEFAULT_EVENTS), 1, MAX_EVENTS)?;
    let caller = &opened_by.caller;
    may_read(&state, caller, session, participant).await?;
    let recipient = recipient(&state, caller, session, participant, query.endpoint).await?;
    let credentials = Credentials::new(&state.config.keys, &opened_by);
    if wants_stream(&headers) {
        let cursor = last_event_id(&headers)?.or(query.cursor);
        let reader = Box::pin(acquire(&state, caller, recipient, cursor)).await?;
        return Ok(stream(&state, credentials, reader));
    }
    // They keep the whole buffer that the head of the request was read into.
    drop(headers);
    let poll = Poll {
        recipient,
        cursor: query.cursor,
        wait: Duration::from_secs(wait.into()),
        limit: limit as usize,
    };
    let polled = tokio::select! {
        biased;
        page = poll::poll(&state.readers, poll) => page,
        lapse = credentials.lapse() => Err(lapsed(lapse)),
    };
    let page = why_gone(&state, caller, session, polled).await?;
    Ok(private(([(header::CONTENT_TYPE, "application/json")], page.into_json())))
}

/// Read events over a WebSocket; confirm with `{"ack": "evt_…"}`.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/participants/{participant_id}/events/ws", tag = "events",
    params(
        ("session_id" = SessionId, Path),
        ("participant_id" = ParticipantId, Path),
        ("endpoint" = Option<EndpointId>, Query, description = "Of the join reply. Without it the participant's \
            current endpoint is looked up"),
        ("access_token" = Option<String>, Query, description = "For clients that cannot send headers"),
    ),
    responses(
        (status = 101, description = "Text frames with one event each. Close code 4000: another reader took over, \
            4001: left, removed or session closed, 4002: token expired, 4003: the endpoint is gone, 4004: the API key was removed, 1008: not an acknowledgement, or too many"),
        EventsProblems,
    ),
)]
pub async fn websocket(
    State(state): State<ApiState>,
    opened_by: StreamCaller,
    Path((session, participant)): Path<(SessionId, ParticipantId)>,
    Query(query): Query<StreamQuery>,
    Upgrade { upgrade, held }: Upgrade,
) -> ApiResult<Response> {
    let caller = &opened_by.caller;
    may_read(&state, caller, session, participant).await?;
    let recipient = recipient(&state, caller, session, participant, query.endpoint).await?;
    let reader = acquire(&state, caller, recipient, None).await?;
    let credentials = Credentials::new(&state.config.keys, &opened_by);
    let upgrade = upgrade.max_message_size(websocket::MAX_MESSAGE).max_frame_size(websocket::MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        websocket::serve(socket, reader, &state.readers, credentials, &state.config.timings).await;
    }))
}

/// An upgrade request, or a problem.
pub struct Upgrade {
    upgrade: WebSocketUpgrade,
    /// Of the connection, which counts on.
    held: Option<Held>,
}

impl FromRequestParts<ApiState> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        let held = parts.extensions.get::<Held>().cloned();
        WebSocketUpgrade::from_request_parts(parts, state)
            .await
            .map(|upgrade| Self { upgrade, held })
            .map_err(|rejection: WebSocketUpgradeRejection| ApiError::invalid(rejection.body_text()))
    }
}

/// Checks a number of the query.
pub fn bounded(name: &str, value: u32, least: u32, most: u32) -> ApiResult<u32> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::invalid(format!("{name} is from {least} to {most}")))
}

async fn may_read(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    participant: ParticipantId,
) -> ApiResult<()> {
    caller.acts_for(session, participant)?;
    caller.owns(&state.owner(session).await?)
}

/// Whose events are wanted: those of the endpoint that the request names, else of the participant's current one.
async fn recipient(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    participant: ParticipantId,
    endpoint: Option<EndpointId>,
) -> ApiResult<Recipient> {
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => current_endpoint(state, caller, session, participant).await?,
    };
    Ok(Recipient { session, participant, endpoint })
}

async fn current_endpoint(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    participant: ParticipantId,
) -> ApiResult<EndpointId> {
    let session = state.store.session(session).await?.ok_or_else(ApiError::session_not_found)?;
    caller.check_revoked(&session)?;
    if session.state == SessionState::Closed {
        return Err(ApiError::session_closed());
    }
    let present = session.participant(participant).ok_or_else(ApiError::participant_not_found)?;
    present.endpoint.as_ref().map(|endpoint| endpoint.id).ok_or_else(ApiError::endpoint_gone)
}

/// Like [`crate::delivery::Readers::acquire`], with what has a status of its own as errors.
async fn acquire(
    state: &ApiState,
    caller: &Caller,
    recipient: Recipient,
    cursor: Option<EventId>,
) -> ApiResult<Acquired> {
    match state.readers.acquire(recipient, cursor).await {
        Err(Refused::Gone) => {
            why_gone(state, caller, recipient.session, Err(ApiError::endpoint_gone())).await
        }
        Err(Refused::Failed(error)) => Err(error),
        acquired => Ok(acquired),
    }
}

fn lapsed(lapse: Lapse) -> ApiError {
    ApiError::new(
        Code::Unauthorized,
        match lapse {
            Lapse::Expired => "the token has expired",
            Lapse::KeyRemoved => "the API key was removed",
        },
    )
}

fn stream(state: &ApiState, credentials: Credentials, reader: Acquired) -> Response {
    let body = match reader {
        Ok(reader) if !reader.over => {
            let frames = sse::stream(reader, credentials, &state.config.timings);
            Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>))
        }
        // Superseded before it began, or the confirmed event was the last one.
        _ => Body::empty(),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer would hold events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> ApiResult<Option<EventId>> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|error| ApiError::invalid(format!("Last-Event-ID: {error}")))
}
