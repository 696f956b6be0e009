//! Who is calling, and what that one may do.
//!
//! Credentials are checked without a look-up: a token carries its grants, signed. What a token cannot say is which
//! API key owns a session; [`Caller::owns`] compares that once it is known (from the document, or from the key that a
//! `destination` is bound to). Nor can it say that it was revoked since: that is in the session's document
//! ([`Caller::check_revoked`]), which is read for everything but commands to an endpoint; and who was removed has none.

use std::time::Duration;

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use common::keyring::Keyring;
use common::model::{ParticipantId, Session, SessionId};
use common::time::UnixMillis;
use common::token::{Claims, KeyMark, LEEWAY_SECONDS, TokenError};
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde::Deserialize;

use crate::address::client_address;
use crate::error::{ApiError, ApiResult, Code};
use crate::limits::COST_OF_WRONG_CREDENTIALS;
use crate::state::ApiState;

/// How far the clock of who signed may be ahead.
const OPERATOR_LEEWAY: Duration = Duration::from_secs(LEEWAY_SECONDS);

/// Somebody with good credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The application's backend, by key id and secret.
    Backend { key_id: String },
    /// A client with a token.
    Client { claims: Box<Claims> },
    /// Somebody who looks after the deployment, with a token for that: sees every key's sessions, ends them and removes
    /// who is in them, drains workers. Joins nothing and hands out nothing.
    Operator { claims: Box<Claims> },
}

/// The longest that an operator's token may be valid: browsers hold it, and nothing takes it back.
pub const MAX_OPERATOR_TTL: Duration = Duration::from_secs(12 * 60 * 60);

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
            Self::Client { claims } | Self::Operator { claims } => &claims.iss,
        }
    }

    /// The claims of a token.
    pub fn claims(&self) -> Option<&Claims> {
        match self {
            Self::Backend { .. } => None,
            Self::Client { claims } | Self::Operator { claims } => Some(claims),
        }
    }

    /// When a stream that was opened with these credentials must end.
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.claims().map(Claims::expires_at)
    }

    /// When its token was issued; a backend has none.
    pub fn token_issued_at(&self) -> Option<UnixMillis> {
        self.claims().map(Claims::issued_at)
    }

    /// That the token's participant was not removed since the token was issued. A link for everybody names none: what it
    /// made of somebody who joined with it is refused, the link is not.
    pub fn check_revoked(&self, session: &Session) -> ApiResult<()> {
        match self.claims().and_then(|claims| claims.sub.map(|sub| (sub, claims.issued_at()))) {
            Some((sub, issued_at)) if session.has_revoked(sub, issued_at) => Err(ApiError::token_revoked()),
            _ => Ok(()),
        }
    }

    /// Only the application's backend.
    pub fn backend(&self) -> ApiResult<()> {
        match self {
            Self::Backend { .. } => Ok(()),
            _ => Err(ApiError::forbidden("this needs an API key")),
        }
    }

    /// Only the application's backend, or an operator's token: what is read of a session and is for no client.
    pub fn inspects(&self) -> ApiResult<()> {
        match self {
            Self::Operator { .. } => Ok(()),
            _ => self.backend(),
        }
    }

    /// Only an operator: an API key that the configuration names as one, or a token that such a key has signed for that.
    pub fn operator(&self, operators: &[String]) -> ApiResult<()> {
        match self {
            Self::Operator { .. } => Ok(()),
            Self::Backend { key_id } if operators.contains(key_id) => Ok(()),
            _ => Err(ApiError::forbidden("this needs an API key that is one of operator_keys, or its token")),
        }
    }

    /// The same caller as an operator, when its token says so and an operator's key has signed it.
    ///
    /// # Errors
    /// `unauthorized` when that token is valid for longer than [`MAX_OPERATOR_TTL`].
    fn perhaps_operator(self, operators: &[String]) -> ApiResult<Self> {
        match self {
            Self::Client { claims } if claims.video.operator && operators.contains(&claims.iss) => {
                let latest = UnixMillis::now().plus(MAX_OPERATOR_TTL + OPERATOR_LEEWAY);
                if claims.expires_at() > latest {
                    return Err(unauthorized("an operator's token is valid for 12 hours at most"));
                }
                Ok(Self::Operator { claims })
            }
            other => Ok(other),
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
        let Some(claims) = self.client_claims()? else { return Ok(()) };
        in_room(claims, session)?;
        if claims.video.room_join {
            return Ok(());
        }
        Err(ApiError::forbidden("the token does not grant roomJoin"))
    }

    /// Whether it may hand out links to this session.
    pub fn may_invite(&self, session: SessionId) -> ApiResult<()> {
        self.client_claims()?;
        self.may_administer(session)
    }

    /// Whether it may close this session.
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
        let Some(claims) = self.client_claims()? else { return Ok(wanted) };
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
        let claims = match self {
            Self::Backend { .. } => return Ok(Role::Backend),
            Self::Operator { .. } => return Ok(Role::Admin),
            Self::Client { claims } => claims,
        };
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
        match self {
            Self::Operator { .. } => Ok(()),
            Self::Backend { .. } => Err(ApiError::session_not_found()),
            Self::Client { .. } => Err(ApiError::forbidden("the token is signed with another API key")),
        }
    }

    /// The claims that decide, `None` for the backend, which may everything. Refuses operators: it is not for them.
    fn client_claims(&self) -> ApiResult<Option<&Claims>> {
        match self {
            Self::Backend { .. } => Ok(None),
            Self::Client { claims } => Ok(Some(claims)),
            Self::Operator { .. } => Err(ApiError::forbidden("an operator's token is not for this")),
        }
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
        let checked = match authorization(parts) {
            Ok(Some(header)) => check(&state.config.keys, header)
                .and_then(|(caller, key)| Ok((caller.perhaps_operator(&state.config.operator_keys)?, key))),
            Ok(None) => Err(no_credentials()),
            Err(error) => Err(error),
        };
        counted(parts, state, checked).map(|(caller, _)| caller)
    }
}

/// A caller of an event stream: the token may also be in `?access_token=`, since neither `EventSource` nor
/// `WebSocket` can send headers.
pub struct StreamCaller {
    pub caller: Caller,
    /// For as long as its key has this secret, the stream may go on.
    pub key: KeyMark,
}

impl StreamCaller {
    fn new((caller, key): (Caller, KeyMark)) -> Self {
        Self { caller, key }
    }
}

impl FromRequestParts<ApiState> for StreamCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        #[derive(Deserialize)]
        struct AccessToken {
            access_token: Option<String>,
        }
        let by_query = || {
            let query = axum::extract::Query::<AccessToken>::try_from_uri(&parts.uri);
            query.ok().and_then(|query| query.0.access_token)
        };
        let checked = match authorization(parts) {
            Ok(Some(header)) => check(&state.config.keys, header),
            Ok(None) => by_query().ok_or_else(no_credentials).and_then(|it| bearer(&state.config.keys, &it)),
            Err(error) => Err(error),
        };
        counted(parts, state, checked).map(Self::new)
    }
}

/// Counts the request for whom it is from; wrong credentials count for their address, and more than a request.
fn counted(parts: &Parts, state: &ApiState, checked: ApiResult<Checked>) -> ApiResult<Checked> {
    match &checked {
        Ok((caller, _)) => {
            // Only a link without a participant is told from others by its text.
            let text = parts.headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
            let text = text.or_else(|| parts.uri.query().map(str::as_bytes));
            state.limits.take_caller(caller, text.unwrap_or_default())?;
        }
        Err(_) => {
            if let Some(address) = client_address(&parts.headers, &parts.extensions) {
                state.limits.take_address(address, COST_OF_WRONG_CREDENTIALS)?;
            }
        }
    }
    checked
}

/// For what is not served by these routes: whether an `Authorization` header is that of an operator.
///
/// # Errors
/// `unauthorized` without good credentials, `forbidden` with another key's.
pub fn check_operator(keys: &Keyring, operators: &[String], header: Option<&str>) -> ApiResult<()> {
    check(keys, header.ok_or_else(no_credentials)?)?.0.operator(operators)
}

fn authorization(parts: &Parts) -> ApiResult<Option<&str>> {
    parts
        .headers
        .get(AUTHORIZATION)
        .map(|value| value.to_str().map_err(|_| unauthorized("the Authorization header is not text")))
        .transpose()
}

/// Good credentials, and which secret made them so.
type Checked = (Caller, KeyMark);

fn check(keys: &Keyring, header: &str) -> ApiResult<Checked> {
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

fn bearer(keys: &Keyring, token: &str) -> ApiResult<Checked> {
    keys.now()
        .verify_marked(token)
        .map(|(claims, key)| (Caller::Client { claims: Box::new(claims) }, key))
        .map_err(|error: TokenError| unauthorized(error.to_string()))
}

/// RFC 7617; the padding may be missing.
fn basic(keys: &Keyring, credentials: &str) -> ApiResult<Checked> {
    let wrong = || unauthorized("the API key or its secret is wrong");
    let bytes = STANDARD
        .decode(credentials)
        .or_else(|_| STANDARD_NO_PAD.decode(credentials))
        .map_err(|_| unauthorized("the Basic credentials are not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (id, secret) = text.split_once(':').ok_or_else(wrong)?;
    let key = keys.now().identify(id, secret).ok_or_else(wrong)?;
    Ok((Caller::Backend { key_id: id.to_owned() }, key))
}

fn no_credentials() -> ApiError {
    unauthorized("credentials are missing")
}

fn unauthorized(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::Unauthorized, detail)
}

#[cfg(test)]
mod tests {
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
    fn a_revocation_concerns_what_was_issued_to_that_participant_before() {
        let (own, other) = (ParticipantId::new(), ParticipantId::new());
        let session = common::model::SessionId::new();
        let issued = |sub, at| {
            let mut claims = Claims::expiring_in("key1", Duration::from_secs(60), VideoGrants::join(session));
            (claims.sub, claims.iat) = (sub, at);
            Caller::Client { claims: Box::new(claims) }
        };
        let at = |at| Some(common::token::IssuedAt(UnixMillis(at)));
        let revocations = vec![common::model::Revocation { participant_id: own, at: UnixMillis(1_000) }];
        let document = Session { revocations, ..a_session(session) };
        for (sub, iat, expected) in [
            (Some(own), at(999), Some(Code::TokenRevoked)),
            (Some(own), at(1_000), Some(Code::TokenRevoked)),
            (Some(own), None, Some(Code::TokenRevoked)),
            (Some(own), at(1_001), None),
            (Some(other), at(1), None),
            (None, at(1), None),
        ] {
            assert_eq!(code(issued(sub, iat).check_revoked(&document)), expected, "{iat:?}");
        }
        let backend = Caller::Backend { key_id: "key1".to_owned() };
        assert!(backend.check_revoked(&document).is_ok());
    }

    fn a_session(id: SessionId) -> Session {
        Session {
            id,
            state: common::model::SessionState::Open,
            name: None,
            created_at: UnixMillis(0),
            closed_at: None,
            key_id: "key1".to_owned(),
            command_id: common::model::CommandId::new(),
            epoch: 0,
            pipelines: Vec::new(),
            participants: Vec::new(),
            previous_worker_id: None,
            done_commands: Vec::new(),
            settings: common::model::SessionSettings::default(),
            revocations: Vec::new(),
        }
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
    fn an_operators_token_looks_after_everything_and_takes_part_in_nothing() {
        let grants = VideoGrants { operator: true, ..VideoGrants::default() };
        let operators = ["key1".to_owned()];
        let operator = client(None, grants).perhaps_operator(&operators).unwrap();
        let (session, participant) = (SessionId::new(), ParticipantId::new());
        assert!(
            operator.operator(&[]).is_ok() && operator.inspects().is_ok() && operator.owns("key2").is_ok()
        );
        assert!(operator.may_see(session).is_ok() && operator.may_administer(session).is_ok());
        assert_eq!(operator.acts_on(session, participant), Ok(Role::Admin));
        for refused in [
            operator.backend(),
            operator.may_join(session),
            operator.may_invite(session),
            operator.may_create(None).map(drop),
            operator.acts_for(session, participant).map(drop),
        ] {
            assert_eq!(code(refused), Some(Code::Forbidden));
        }
        // Any key signs what it likes; it is no operator for that.
        let pretender = client(None, grants).perhaps_operator(&["key2".to_owned()]).unwrap();
        assert_eq!(code(pretender.operator(&operators)), Some(Code::Forbidden));
        assert_eq!(code(pretender.may_see(session)), Some(Code::Forbidden));
        let mut claims = Claims::expiring_in("key1", MAX_OPERATOR_TTL + Duration::from_secs(60), grants);
        claims.sub = Some(participant);
        let lasting = Caller::Client { claims: Box::new(claims) };
        assert_eq!(code(lasting.perhaps_operator(&operators)), Some(Code::Unauthorized));
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
