//! `/v1/whip` (RFC 9725) and `/v1/whep` (draft-ietf-wish-whep).

use axum::extract::{OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::model::{ParticipantId, SessionId, TrackId};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::private;
use super::problems::{EndProblems, IceProblems, OneOfferProblems};
use crate::auth::Caller;
use crate::config::IceServer;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{MAX_WAIT, Path, Query, SDP, SDP_FRAGMENT, Sdp, SdpFragment};
use crate::service::CommandContext;
use crate::service::participants::ByOneOffer;
use crate::service::whip::{self as service, Ice, Made, WatchQuery};
use crate::state::ApiState;

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Publish by WHIP: OBS, GStreamer, FFmpeg and the like.
///
/// The session is created when it is not there and the token grants `roomCreate`.
#[utoipa::path(
    post, path = "/v1/whip/{session_id}", tag = "whip",
    params(("session_id" = SessionId, Path)),
    request_body(content = String, content_type = "application/sdp", description = "The offer, with sendonly m-lines"),
    responses(
        (status = 201, description = "The answer, with all candidates", body = String, content_type = "application/sdp",
            headers(
                ("Location" = String, description = "The resource to PATCH and DELETE"),
                ("ETag" = String, description = "Names the ICE session"),
                ("Link" = String, description = "rel=\"ice-server\", one for each configured ICE server"),
            )),
        (status = 307, description = "Nothing here takes it: the same at another deployment"),
        OneOfferProblems,
    ),
)]
pub async fn publish(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(session): Path<SessionId>,
    OriginalUri(uri): OriginalUri,
    Sdp(offer): Sdp,
) -> ApiResult<Response> {
    let how = ByOneOffer::Publishes;
    made(&state, &uri, service::join(&state, &caller, &patient(context), session, how, offer).await)
}

/// Watch by WHEP: the whole room, one participant or one track.
///
/// Each m-line carries one track at a time. Where there are more tracks than m-lines, those are on that matter most:
/// screens, then who speaks. Tracks that come later come on the m-lines that there are.
#[utoipa::path(
    post, path = "/v1/whep/{session_id}", tag = "whip",
    params(
        ("session_id" = SessionId, Path),
        ("participant" = Option<ParticipantId>, Query, description = "Only this participant's tracks"),
        ("track" = Option<TrackId>, Query, description = "Only this track"),
    ),
    request_body(content = String, content_type = "application/sdp", description = "The offer, with recvonly m-lines"),
    responses(
        (status = 201, description = "The answer, with all candidates", body = String, content_type = "application/sdp",
            headers(
                ("Location" = String, description = "The resource to PATCH and DELETE"),
                ("ETag" = String, description = "Names the ICE session"),
                ("Link" = String, description = "rel=\"ice-server\", one for each configured ICE server"),
            )),
        (status = 307, description = "Nothing here takes it: the same at another deployment"),
        OneOfferProblems,
    ),
)]
pub async fn watch(
    State(state): State<ApiState>,
    caller: Caller,
    context: CommandContext,
    Path(session): Path<SessionId>,
    Query(which): Query<WatchQuery>,
    OriginalUri(uri): OriginalUri,
    Sdp(offer): Sdp,
) -> ApiResult<Response> {
    let how = which.into();
    made(&state, &uri, service::join(&state, &caller, &patient(context), session, how, offer).await)
}

macro_rules! resource_routes {
    ($path:tt, $change:ident, $end:ident) => {
        /// Trickle candidates, or restart ICE (RFC 9725, section 4.3).
        #[utoipa::path(
            patch, path = $path, tag = "whip",
            params(
                ("session_id" = SessionId, Path),
                ("resource" = String, Path, description = "Of the Location"),
                ("If-Match" = String, Header, description = "The ETag for candidates, `*` for an ICE restart"),
            ),
            request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
            responses(
                (status = 204, description = "The candidates were taken"),
                (status = 200, description = "ICE was restarted: the server's side of it", body = String,
                    content_type = "application/trickle-ice-sdpfrag",
                    headers(("ETag" = String, description = "Names the new ICE session"))),
                IceProblems,
            ),
        )]
        pub async fn $change(
            State(state): State<ApiState>,
            caller: Caller,
            context: CommandContext,
            Path((session, resource)): Path<(SessionId, String)>,
            headers: HeaderMap,
            SdpFragment(fragment): SdpFragment,
        ) -> ApiResult<Response> {
            change(&state, &caller, context, (session, &resource), &headers, &fragment).await
        }

        /// End it.
        #[utoipa::path(
            delete, path = $path, tag = "whip",
            params(
                ("session_id" = SessionId, Path),
                ("resource" = String, Path, description = "Of the Location"),
            ),
            responses((status = 200, description = "It has ended, also when it had before"), EndProblems),
        )]
        pub async fn $end(
            State(state): State<ApiState>,
            caller: Caller,
            context: CommandContext,
            Path((session, resource)): Path<(SessionId, String)>,
        ) -> ApiResult<Response> {
            service::end(&state, &caller, &patient(context), session, &resource).await?;
            Ok(StatusCode::OK.into_response())
        }
    };
}

resource_routes!("/v1/whip/{session_id}/{resource}", change_publisher, unpublish);
resource_routes!("/v1/whep/{session_id}/{resource}", change_watcher, unwatch);

async fn change(
    state: &ApiState,
    caller: &Caller,
    context: CommandContext,
    resource: (SessionId, &str),
    headers: &HeaderMap,
    fragment: &str,
) -> ApiResult<Response> {
    let mut if_match = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        if_match.push(value.to_str().map_err(|_| ApiError::invalid("If-Match is not text"))?);
    }
    Ok(match service::ice(state, caller, &patient(context), resource, &if_match, fragment).await? {
        Ice::Taken => StatusCode::NO_CONTENT.into_response(),
        Ice::Restarted { fragment, entity_tag, ice_servers } => {
            let mut response = private((StatusCode::OK, [(header::CONTENT_TYPE, SDP_FRAGMENT)], fragment));
            set(&mut response, header::ETAG, &format!("\"{entity_tag}\""));
            link(&mut response, &ice_servers);
            response
        }
    })
}

fn made(state: &ApiState, uri: &Uri, made: ApiResult<Made>) -> ApiResult<Response> {
    let Made { resource, answer, entity_tag, ice_servers } = match (made, &state.config.overflow_url) {
        (Ok(made), _) => made,
        (Err(error), Some(elsewhere)) if error.code == Code::Unavailable => {
            let path = uri.path_and_query().map_or(uri.path(), |it| it.as_str());
            let mut response = private(StatusCode::TEMPORARY_REDIRECT);
            set(&mut response, header::LOCATION, &format!("{elsewhere}{path}"));
            return Ok(response);
        }
        (Err(error), _) => return Err(error),
    };
    let mut response = private((StatusCode::CREATED, [(header::CONTENT_TYPE, SDP)], answer));
    let base = state.config.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
    set(&mut response, header::LOCATION, &format!("{base}{}/{resource}", uri.path().trim_end_matches('/')));
    set(&mut response, header::ETAG, &format!("\"{entity_tag}\""));
    link(&mut response, &ice_servers);
    Ok(response)
}

/// Names the ICE servers (RFC 9725, section 4.6).
fn link(response: &mut Response, servers: &[IceServer]) {
    for link in service::ice_server_links(servers) {
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().append(header::LINK, link);
        }
    }
}

/// These clients have no events in which a later result could come.
fn patient(context: CommandContext) -> CommandContext {
    CommandContext { wait: MAX_WAIT, ..context }
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    // What is no header value came from a path that no route matches.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Says in the answer to OPTIONS what the route takes (RFC 9725, section 4.2; RFC 5789, section 3.1).
pub async fn describe_options(request: Request, next: Next) -> Response {
    let takes = (request.method() == Method::OPTIONS).then(|| takes(request.uri().path())).flatten();
    let mut response = next.run(request).await;
    if let Some((name, media_type, methods)) = takes {
        response.headers_mut().insert(name, HeaderValue::from_static(media_type));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    response
}

fn takes(path: &str) -> Option<(HeaderName, &'static str, &'static str)> {
    let rest = path.strip_prefix("/v1/whip/").or_else(|| path.strip_prefix("/v1/whep/"))?;
    Some(match rest.trim_end_matches('/').contains('/') {
        false => (ACCEPT_POST, SDP, "POST, OPTIONS"),
        true => (ACCEPT_PATCH, SDP_FRAGMENT, "PATCH, DELETE, OPTIONS"),
    })
}
