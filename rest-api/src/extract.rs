//! Extractors whose refusals are problems, and the headers of commands.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::model::CommandId;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{ApiError, ApiResult, Code};
use crate::service::CommandContext;
use crate::state::ApiState;
use crate::trace::Trace;

/// The longest a request may ask to wait for its result.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const SDP: &str = "application/sdp";
pub const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
pub const COMMAND_ID: HeaderName = HeaderName::from_static("command-id");

/// A JSON body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> ApiResult<Self> {
        let body = axum::Json::<Object<T>>::from_request(request, state);
        match tokio::time::timeout(state.config.timings.read_timeout, body).await {
            Ok(Ok(axum::Json(Object(value)))) => Ok(Self(value)),
            Ok(Err(rejection)) => Err(json_refused(&rejection)),
            Err(_) => Err(ApiError::invalid("the body did not arrive in time")),
        }
    }
}

/// A JSON object: serde by itself would also fill a struct from an array, in the order of its fields.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

fn json_refused(rejection: &JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            ApiError::new(Code::UnsupportedMediaType, "the body must be application/json")
        }
        JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(error)) if error.status() == 413 => {
            ApiError::new(Code::BodyTooLarge, "the body is longer than this route takes")
        }
        other => ApiError::invalid(other.body_text()),
    }
}

/// A session description (RFC 8866).
pub struct Sdp(pub String);

impl FromRequest<ApiState> for Sdp {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> ApiResult<Self> {
        text(request, state, SDP).await.map(Self)
    }
}

/// A part of one that is about ICE (RFC 8840).
pub struct SdpFragment(pub String);

impl FromRequest<ApiState> for SdpFragment {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> ApiResult<Self> {
        text(request, state, SDP_FRAGMENT).await.map(Self)
    }
}

/// A body of this media type, whatever its parameters.
async fn text(request: Request, state: &ApiState, media_type: &str) -> ApiResult<String> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if !given.eq_ignore_ascii_case(media_type) {
        return Err(ApiError::new(Code::UnsupportedMediaType, format!("the body must be {media_type}")));
    }
    let body = axum::body::Bytes::from_request(request, state);
    let bytes = match tokio::time::timeout(state.config.timings.read_timeout, body).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(BytesRejection::FailedToBufferBody(error))) if error.status() == 413 => {
            return Err(ApiError::new(Code::BodyTooLarge, "the body is longer than this route takes"));
        }
        Ok(Err(rejection)) => return Err(ApiError::invalid(rejection.body_text())),
        Err(_) => return Err(ApiError::invalid("the body did not arrive in time")),
    };
    String::from_utf8(bytes.into()).map_err(|_| ApiError::invalid("the body is not UTF-8"))
}

/// Parameters of the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection: PathRejection| ApiError::invalid(rejection.body_text()))
    }
}

/// Parameters of the query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| ApiError::invalid(rejection.body_text()))
    }
}

/// Gives every changing request its command id and names it in the reply.
pub async fn identify_command(mut request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let command_id = match idempotency_key(request.headers()) {
        Ok(given) => given.unwrap_or_else(CommandId::new),
        Err(refused) => return refused.into_response(),
    };
    request.extensions_mut().insert(command_id);
    let mut response = next.run(request).await;
    let value = HeaderValue::try_from(command_id.to_string()).expect("an id is plain ASCII");
    response.headers_mut().insert(COMMAND_ID, value);
    response
}

fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<CommandId>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // The header's draft writes it as a quoted string; both forms are taken.
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    text.parse().map(Some).map_err(|error| ApiError::invalid(format!("Idempotency-Key: {error}")))
}

impl FromRequestParts<ApiState> for CommandContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        let command_id = parts.extensions.get().copied().unwrap_or_else(CommandId::new);
        let trace = parts.extensions.get().cloned().unwrap_or_else(|| Trace::of(&parts.headers));
        let wait = preferred_wait(&parts.headers).unwrap_or(state.config.request_wait).min(MAX_WAIT);
        Ok(Self { command_id, traceparent: trace.traceparent().to_owned(), wait })
    }
}

/// `Prefer: wait=<seconds>` (RFC 7240, section 4.3). What cannot be read is ignored, as section 2 asks.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn prefer_wait_is_read_among_other_preferences() {
        for (text, expected) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=0", Some(0)),
            ("Wait=\"7\"; x=y", Some(7)),
            ("wait=soon", None),
            ("wait", None),
            ("waiting=3", None),
            ("wait=-1", None),
        ] {
            let wait = preferred_wait(&headers(PREFER, text));
            assert_eq!(wait, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn an_idempotency_key_is_a_command_id_or_refused() {
        let id = CommandId::new();
        assert_eq!(idempotency_key(&headers(IDEMPOTENCY_KEY, &id.to_string())), Ok(Some(id)));
        assert_eq!(idempotency_key(&headers(IDEMPOTENCY_KEY, &format!("\"{id}\""))), Ok(Some(id)));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        assert!(idempotency_key(&headers(IDEMPOTENCY_KEY, "once")).is_err());
    }
}
