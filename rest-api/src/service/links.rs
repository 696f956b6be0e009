//! Join links: the demo's address with a signed token in its fragment.

use std::time::Duration;

use common::model::{ParticipantId, SessionId};
use common::time::UnixMillis;
use common::token::{Claims, VideoGrants};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::settings::BitratesBody;
use super::{check_name, open_session};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// How long a link works when nobody says.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest a link may work.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the link is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// The name of who joins with it; without it they choose.
    #[serde(default)]
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// Who joins with it; without it everyone who opens the link becomes a participant of its own.
    #[serde(default)]
    pub participant_id: Option<ParticipantId>,
    /// 1 second to 30 days; 24 hours when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub ttl_seconds: Option<u64>,
    #[serde(default)]
    pub can_publish: Option<bool>,
    #[serde(default)]
    pub can_subscribe: Option<bool>,
    /// May mute and remove others and close the session.
    #[serde(default)]
    pub admin: bool,
    /// What counts for who joins with it in place of the session's own.
    #[serde(default)]
    pub bitrates: BitratesBody,
}

/// A link and the token in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Link {
    pub join_link: String,
    pub token: String,
    pub expires_at: UnixMillis,
}

/// Signs a link to an open session.
pub async fn create(
    state: &ApiState,
    caller: &Caller,
    public_url: &str,
    id: SessionId,
    wanted: CreateLink,
) -> ApiResult<Link> {
    caller.may_invite(id)?;
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let bitrates = wanted.bitrates.checked()?;
    let ttl = match wanted.ttl_seconds {
        None => DEFAULT_TTL,
        Some(0) => return Err(ApiError::invalid("ttl_seconds is at least 1")),
        Some(seconds) if Duration::from_secs(seconds) > MAX_TTL => {
            return Err(ApiError::invalid("ttl_seconds is at most 2592000 (30 days)"));
        }
        Some(seconds) => Duration::from_secs(seconds),
    };
    open_session(state, caller, id).await?;
    let grants = VideoGrants {
        room_admin: wanted.admin,
        can_publish: wanted.can_publish,
        can_subscribe: wanted.can_subscribe,
        bitrates,
        ..VideoGrants::join(id)
    };
    let mut claims = Claims::expiring_in(caller.key_id(), ttl, grants);
    claims.name = wanted.name;
    claims.sub = wanted.participant_id;
    sign(state, public_url, id, &claims)
}

/// The link of a session for everyone who gets it.
pub fn join_link(state: &ApiState, key_id: &str, public_url: &str, id: SessionId) -> ApiResult<Link> {
    let claims = Claims::expiring_in(key_id, DEFAULT_TTL, VideoGrants::join(id));
    sign(state, public_url, id, &claims)
}

fn sign(state: &ApiState, public_url: &str, id: SessionId, claims: &Claims) -> ApiResult<Link> {
    let token = mint(state, claims)?;
    let join_link = format!("{public_url}/#session={id}&token={token}");
    Ok(Link { join_link, token, expires_at: claims.expires_at() })
}

/// Signs claims with the key that they name.
pub fn mint(state: &ApiState, claims: &Claims) -> ApiResult<String> {
    state.config.keys.now().mint(claims).map_err(|error| {
        tracing::error!(error = %error, key_id = %claims.iss, "a token cannot be signed");
        ApiError::new(Code::Internal, "something went wrong on the server")
    })
}
