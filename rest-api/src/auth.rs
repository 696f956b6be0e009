//! Who is calling, and what that one may do.
//!
//! Credentials are checked without a look-up: a token carries its grants, signed. What a token cannot say is which
//! API key owns a session; [`Caller::owns`] compares that once it is known (from the document, or from the key that a
//! `destination` is bound to).

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use common::model::{ParticipantId, SessionId};
use common::time::UnixMillis;
use common::token::{ApiKeys, Claims, TokenError};
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// Somebody with good credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The application's backend, by key id and secret.
    Backend { key_id: String },
    /// A client with a token.
    Client { claims: Box<Claims> },
}

/// As what a caller acts on a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is that participant.
    Own,
    Backend,
    /// Another participant with `roomAdmin`.
    Admin,
}

impl Caller {
    /// The API key behind it.
    pub fn key_id(&self) -> &str {
        match self {
            Self::Backend { key_id } => key_id,
            Self::Client { claims } => &claims.iss,
        }
    }

    /// The claims of a token.
    pub fn claims(&self) -> Option<&Claims> {
        match self {
            Self::Backend { .. } => None,
            Self::Client { claims } => Some(claims),
        }
    }

    /// When a stream that was opened with these credentials must end.
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.claims().map(Claims::expires_at)
    }

    /// Only the application's backend.
    pub fn backend(&self) -> ApiResult<()> {
        match self {
            Self::Backend { .. } => Ok(()),
            Self::Client { .. } => Err(ApiError::forbidden("this needs an API key")),
        }
    }

    /// Only an operator: an API key that the configuration names as one.
    pub fn operator(&self, operators: &[String]) -> ApiResult<()> {
        match self {
            Self::Backend { key_id } if operators.contains(key_id) => Ok(()),
            _ => Err(ApiError::forbidden("this needs an API key that is one of operator_keys")),
        }
    }

    /// Whether it may look at this session.
    pub fn may_see(&self, session: SessionId) -> ApiResult<()> {
        let Self::Client { claims } = self else { return Ok(()) };
        in_room(claims, session)?;
        if claims.video.room_join || claims.video.room_admin {
            return Ok(());
        }
        Err(ApiError::forbidden("the token grants neither roomJoin nor roomAdmin"))
    }

    /// Whether it may join this session.
    pub fn may_join(&self, session: SessionId) -> ApiResult<()> {
        let Self::Client { claims } = self else { return Ok(()) };
        in_room(claims, session)?;
        if claims.video.room_join {
            return Ok(());
        }
        Err(ApiError::forbidden("the token does not grant roomJoin"))
    }

    /// Whether it may close this session and hand out links to it.
    pub fn may_administer(&self, session: SessionId) -> ApiResult<()> {
        let Self::Client { claims } = self else { return Ok(()) };
        in_room(claims, session)?;
        if claims.video.room_admin {
            return Ok(());
        }
        Err(ApiError::forbidden("the token does not grant roomAdmin"))
    }

    /// Whether it may create a session, and which: the one its token names, or any.
    pub fn may_create(&self, wanted: Option<SessionId>) -> ApiResult<Option<SessionId>> {
        let Self::Client { claims } = self else { return Ok(wanted) };
        if !claims.video.room_create {
            return Err(ApiError::forbidden("the token does not grant roomCreate"));
        }
        match (claims.video.room, wanted) {
            (Some(room), Some(id)) if room != id => {
                Err(ApiError::forbidden("the token is for another session"))
            }
            (room, wanted) => Ok(room.or(wanted)),
        }
    }

    /// Whether it may act on a participant as that participant or as the backend.
    pub fn acts_for(&self, session: SessionId, participant: ParticipantId) -> ApiResult<Role> {
        match self.acts_on(session, participant)? {
            Role::Admin => Err(ApiError::forbidden("the token is for another participant")),
            role => Ok(role),
        }
    }

    /// Whether it may act on a participant; a moderator may, too.
    pub fn acts_on(&self, session: SessionId, participant: ParticipantId) -> ApiResult<Role> {
        let Self::Client { claims } = self else { return Ok(Role::Backend) };
        in_room(claims, session)?;
        if claims.sub == Some(participant) && claims.video.room_join {
            return Ok(Role::Own);
        }
        if claims.video.room_admin {
            return Ok(Role::Admin);
        }
        Err(ApiError::forbidden("the token is for another participant"))
    }

    /// Whether the session with this owner is within its reach.
    ///
    /// # Errors
    /// A backend does not see other keys' sessions; a client with a token for one is told that it is not for it.
    pub fn owns(&self, owner: &str) -> ApiResult<()> {
        if self.key_id() == owner {
            return Ok(());
        }
        Err(match self {
            Self::Backend { .. } => ApiError::session_not_found(),
            Self::Client { .. } => ApiError::forbidden("the token is signed with another API key"),
        })
    }
}

fn in_room(claims: &Claims, session: SessionId) -> ApiResult<()> {
    if claims.video.room == Some(session) {
        return Ok(());
    }
    Err(ApiError::forbidden("the token is for another session"))
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        match authorization(parts)? {
            Some(header) => check(&state.config.keys, header),
            None => Err(no_credentials()),
        }
    }
}

/// A caller of an event stream: the token may also be in `?access_token=`, since neither `EventSource` nor
/// `WebSocket` can send headers.
pub struct StreamCaller(pub Caller);

impl FromRequestParts<ApiState> for StreamCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        #[derive(Deserialize)]
        struct AccessToken {
            access_token: Option<String>,
        }
        if let Some(header) = authorization(parts)? {
            return check(&state.config.keys, header).map(Self);
        }
        let query = axum::extract::Query::<AccessToken>::try_from_uri(&parts.uri);
        match query.ok().and_then(|query| query.0.access_token) {
            Some(token) => bearer(&state.config.keys, &token).map(Self),
            None => Err(no_credentials()),
        }
    }
}

fn authorization(parts: &Parts) -> ApiResult<Option<&str>> {
    parts
        .headers
        .get(AUTHORIZATION)
        .map(|value| value.to_str().map_err(|_| unauthorized("the Authorization header is not text")))
        .transpose()
}

fn check(keys: &ApiKeys, header: &str) -> ApiResult<Caller> {
    let (scheme, credentials) = header.trim().split_once(' ').unwrap_or((header, ""));
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        bearer(keys, credentials)
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic(keys, credentials)
    } else {
        Err(unauthorized("the Authorization header is neither Basic nor Bearer"))
    }
}

fn bearer(keys: &ApiKeys, token: &str) -> ApiResult<Caller> {
    keys.verify(token)
        .map(|claims| Caller::Client { claims: Box::new(claims) })
        .map_err(|error: TokenError| unauthorized(error.to_string()))
}

/// RFC 7617; the padding may be missing.
fn basic(keys: &ApiKeys, credentials: &str) -> ApiResult<Caller> {
    let wrong = || unauthorized("the API key or its secret is wrong");
    let bytes = STANDARD
        .decode(credentials)
        .or_else(|_| STANDARD_NO_PAD.decode(credentials))
        .map_err(|_| unauthorized("the Basic credentials are not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (id, secret) = text.split_once(':').ok_or_else(wrong)?;
    if keys.check(id, secret) { Ok(Caller::Backend { key_id: id.to_owned() }) } else { Err(wrong()) }
}

fn no_credentials() -> ApiError {
    unauthorized("credentials are missing")
}

fn unauthorized(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::Unauthorized, detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::token::VideoGrants;

    use super::*;

    fn client(sub: Option<ParticipantId>, video: VideoGrants) -> Caller {
        let mut claims = Claims::expiring_in("key1", Duration::from_secs(60), video);
        claims.sub = sub;
        Caller::Client { claims: Box::new(claims) }
    }

    fn code<T>(result: ApiResult<T>) -> Option<Code> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn a_participant_acts_for_itself_only() {
        let (session, own, other) = (SessionId::new(), ParticipantId::new(), ParticipantId::new());
        let caller = client(Some(own), VideoGrants::join(session));
        assert_eq!(caller.acts_for(session, own), Ok(Role::Own));
        assert_eq!(code(caller.acts_for(session, other)), Some(Code::Forbidden));
        assert_eq!(code(caller.acts_on(session, other)), Some(Code::Forbidden));
        assert_eq!(code(caller.acts_for(SessionId::new(), own)), Some(Code::Forbidden));
    }

    #[test]
    fn a_moderator_acts_on_others_but_not_for_them() {
        let (session, other) = (SessionId::new(), ParticipantId::new());
        let grants = VideoGrants { room_admin: true, ..VideoGrants::join(session) };
        let caller = client(Some(ParticipantId::new()), grants);
        assert_eq!(caller.acts_on(session, other), Ok(Role::Admin));
        assert_eq!(code(caller.acts_for(session, other)), Some(Code::Forbidden));
        assert_eq!(code(caller.acts_on(SessionId::new(), other)), Some(Code::Forbidden));
    }

    #[test]
    fn each_grant_opens_its_own_door() {
        let session = SessionId::new();
        let nothing = client(None, VideoGrants { room: Some(session), ..VideoGrants::default() });
        assert_eq!(code(nothing.may_see(session)), Some(Code::Forbidden));
        assert_eq!(code(nothing.may_join(session)), Some(Code::Forbidden));
        assert_eq!(code(nothing.may_administer(session)), Some(Code::Forbidden));
        assert_eq!(code(nothing.may_create(None)), Some(Code::Forbidden));
        let joins = client(None, VideoGrants::join(session));
        assert!(joins.may_see(session).is_ok() && joins.may_join(session).is_ok());
        assert_eq!(code(joins.may_administer(session)), Some(Code::Forbidden));
        assert_eq!(code(joins.backend()), Some(Code::Forbidden));
    }

    #[test]
    fn a_create_token_with_a_room_creates_only_that_one() {
        let session = SessionId::new();
        let grants = VideoGrants { room: Some(session), room_create: true, ..VideoGrants::default() };
        let bound = client(None, grants);
        assert_eq!(bound.may_create(None), Ok(Some(session)));
        assert_eq!(code(bound.may_create(Some(SessionId::new()))), Some(Code::Forbidden));
        let free = client(None, VideoGrants { room: None, ..grants });
        assert_eq!(free.may_create(None), Ok(None));
        assert_eq!(free.may_create(Some(session)), Ok(Some(session)));
    }

    #[test]
    fn an_operator_is_a_key_that_is_named_as_one_and_never_a_token() {
        let operators = ["key1".to_owned()];
        let backend = |key_id: &str| Caller::Backend { key_id: key_id.to_owned() };
        assert!(backend("key1").operator(&operators).is_ok());
        assert_eq!(code(backend("key2").operator(&operators)), Some(Code::Forbidden));
        assert_eq!(code(backend("key1").operator(&[])), Some(Code::Forbidden));
        let signed_by_it = client(None, VideoGrants { room_admin: true, ..VideoGrants::default() });
        assert_eq!(code(signed_by_it.operator(&[signed_by_it.key_id().to_owned()])), Some(Code::Forbidden));
    }

    #[test]
    fn another_keys_session_is_hidden_from_backends_and_forbidden_to_clients() {
        let backend = Caller::Backend { key_id: "key1".to_owned() };
        assert!(backend.owns("key1").is_ok());
        assert_eq!(code(backend.owns("key2")), Some(Code::SessionNotFound));
        let joins = client(None, VideoGrants::join(SessionId::new()));
        assert_eq!(code(joins.owns("key2")), Some(Code::Forbidden));
    }
}
