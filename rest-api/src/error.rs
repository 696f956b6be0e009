//! One error for the whole API: a stable code, its status, and a problem body (RFC 9457).
//!
//! Every refusal that a client can see goes through [`ApiError`]; what is ours alone (the text of a broker or store
//! error) is logged here and never sent.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use common::broker::{BrokerError, BrokerErrorKind};
use common::message::{CommandError, ErrorCode};
use common::store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// How long a client should wait before it tries again what was unavailable.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The stable codes of `docs/API.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidRequest,
    InvalidSdp,
    InvalidCandidate,
    Unauthorized,
    TokenRevoked,
    Forbidden,
    NotFound,
    SessionNotFound,
    ParticipantNotFound,
    TrackNotFound,
    WorkerNotFound,
    MethodNotAllowed,
    OfferCollision,
    NoOfferPending,
    SessionConflict,
    ParticipantConflict,
    CannotDrain,
    EndpointConflict,
    SessionClosed,
    EndpointGone,
    PreconditionFailed,
    BodyTooLarge,
    UnsupportedMediaType,
    LimitExceeded,
    InvalidFragment,
    PreconditionRequired,
    TooManyRequests,
    Internal,
    Unavailable,
    Expired,
}

impl Code {
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidSdp | Self::InvalidCandidate => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::TokenRevoked => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::SessionNotFound
            | Self::ParticipantNotFound
            | Self::TrackNotFound
            | Self::WorkerNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OfferCollision
            | Self::NoOfferPending
            | Self::SessionConflict
            | Self::ParticipantConflict
            | Self::CannotDrain
            | Self::EndpointConflict => StatusCode::CONFLICT,
            Self::SessionClosed | Self::EndpointGone => StatusCode::GONE,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::LimitExceeded | Self::InvalidFragment => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Expired => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The code as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidSdp => "invalid_sdp",
            Self::InvalidCandidate => "invalid_candidate",
            Self::Unauthorized => "unauthorized",
            Self::TokenRevoked => "token_revoked",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::SessionNotFound => "session_not_found",
            Self::ParticipantNotFound => "participant_not_found",
            Self::TrackNotFound => "track_not_found",
            Self::WorkerNotFound => "worker_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OfferCollision => "offer_collision",
            Self::NoOfferPending => "no_offer_pending",
            Self::SessionConflict => "session_conflict",
            Self::ParticipantConflict => "participant_conflict",
            Self::CannotDrain => "cannot_drain",
            Self::EndpointConflict => "endpoint_conflict",
            Self::SessionClosed => "session_closed",
            Self::EndpointGone => "endpoint_gone",
            Self::PreconditionFailed => "precondition_failed",
            Self::PreconditionRequired => "precondition_required",
            Self::InvalidFragment => "invalid_fragment",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::LimitExceeded => "limit_exceeded",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
        }
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::SessionNotFound => Self::SessionNotFound,
            ErrorCode::SessionClosed => Self::SessionClosed,
            ErrorCode::SessionConflict => Self::SessionConflict,
            ErrorCode::ParticipantNotFound => Self::ParticipantNotFound,
            ErrorCode::ParticipantConflict => Self::ParticipantConflict,
            ErrorCode::EndpointConflict => Self::EndpointConflict,
            ErrorCode::TokenRevoked => Self::TokenRevoked,
            ErrorCode::TrackNotFound => Self::TrackNotFound,
            ErrorCode::EndpointGone => Self::EndpointGone,
            ErrorCode::OfferCollision => Self::OfferCollision,
            ErrorCode::NoOfferPending => Self::NoOfferPending,
            ErrorCode::InvalidSdp => Self::InvalidSdp,
            ErrorCode::InvalidCandidate => Self::InvalidCandidate,
            ErrorCode::PreconditionFailed => Self::PreconditionFailed,
            ErrorCode::LimitExceeded => Self::LimitExceeded,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::CannotDrain => Self::CannotDrain,
            ErrorCode::Expired => Self::Expired,
            // A worker older than this API, during an update: another worker will do.
            ErrorCode::UnsupportedVersion | ErrorCode::Unavailable => Self::Unavailable,
            // One later than this API: whoever asks again may be answered by an instance that knows the word.
            ErrorCode::Unknown => Self::Unavailable,
            ErrorCode::Internal => Self::Internal,
        }
    }
}

/// A refusal: its code, a sentence for people, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct ApiError {
    pub code: Code,
    pub detail: String,
    pub retry_after: Option<Duration>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after = match code {
            Code::Unavailable | Code::TooManyRequests => Some(RETRY_AFTER),
            _ => None,
        };
        Self { code, detail: detail.into(), retry_after }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    pub fn token_revoked() -> Self {
        Self::new(Code::TokenRevoked, "the participant was removed after the token was issued")
    }

    pub fn session_not_found() -> Self {
        Self::new(Code::SessionNotFound, "there is no such session")
    }

    pub fn session_closed() -> Self {
        Self::new(Code::SessionClosed, "the session has ended")
    }

    pub fn participant_not_found() -> Self {
        Self::new(Code::ParticipantNotFound, "there is no such participant in this session")
    }

    pub fn endpoint_gone() -> Self {
        Self::new(Code::EndpointGone, "the endpoint is not there any more: join again")
    }

    /// The problem body.
    pub fn problem(&self) -> Problem {
        let status = self.code.status();
        Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
        }
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        match error.kind {
            BrokerErrorKind::Full => {
                Self::new(Code::TooManyRequests, "too many commands are waiting: try again later")
            }
            BrokerErrorKind::Internal => {
                tracing::error!(error = %error, "the broker refused");
                Self::new(Code::Internal, "something went wrong on the server")
            }
            BrokerErrorKind::Unavailable | BrokerErrorKind::Unroutable | BrokerErrorKind::Conflict => {
                tracing::warn!(error = %error, "the broker is not available");
                Self::new(Code::Unavailable, "the message broker is out of reach: try again")
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = %error, "the store is not available");
        Self::new(Code::Unavailable, "the store is out of reach: try again")
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let mut api = Self::new(error.code.into(), error.message);
        if api.code == Code::Internal {
            tracing::error!(error = %api.detail, "a worker failed");
            "something went wrong on the server".clone_into(&mut api.detail);
        }
        if error.retry_after.is_some() {
            api.retry_after = error.retry_after;
        }
        api
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).expect("a problem has only text and a number");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: 0 would mean "at once".
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer, Basic realm=\"switchyard\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A problem body (RFC 9457, section 3).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` says what it is.
    #[schema(value_type = String, example = "about:blank")]
    pub r#type: &'static str,
    /// The name of the status.
    #[schema(value_type = String, example = "Not Found")]
    pub title: &'static str,
    #[schema(example = 404)]
    pub status: u16,
    pub code: Code,
    /// A sentence for people.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sent_code_is_the_serialised_one() {
        for code in [
            Code::InvalidRequest,
            Code::TokenRevoked,
            Code::OfferCollision,
            Code::BodyTooLarge,
            Code::Expired,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn internal_text_of_a_worker_does_not_reach_the_client() {
        let error = ApiError::from(CommandError::new(ErrorCode::Internal, "panicked at secret.rs"));
        assert!(!error.detail.contains("secret"), "{error}");
        let refused = ApiError::from(CommandError::new(ErrorCode::InvalidSdp, "no m-line"));
        assert_eq!((refused.code, refused.detail.as_str()), (Code::InvalidSdp, "no m-line"));
    }

    #[test]
    fn a_refusal_of_a_later_version_is_passed_on_as_something_to_try_again() {
        let later = r#"{"code": "moon_is_full", "message": "not tonight", "retry_after": null}"#;
        let error = ApiError::from(serde_json::from_str::<CommandError>(later).unwrap());
        assert_eq!((error.code, error.detail.as_str()), (Code::Unavailable, "not tonight"));
        assert!(error.retry_after.is_some());
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let mut error = ApiError::new(Code::Unavailable, "later");
        for (wait, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            error.retry_after = Some(Duration::from_millis(wait));
            let response = error.clone().into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], expected);
        }
    }
}
