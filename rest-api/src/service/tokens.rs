//! A participant's token in place of one that is about to expire.

use common::time::UnixMillis;
use common::token::IssuedAt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoints::{Whose, find};
use super::links::mint;
use super::open_session;
use super::participants::claims_of;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;

/// What else is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    /// Of the join reply: it is sealed anew, by the key that signs now.
    #[serde(default)]
    pub destination: Option<String>,
}

/// A token that lives as long as that of a join.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefreshedToken {
    pub token: String,
    pub token_expires_at: UnixMillis,
    /// In place of the one that the request brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// Gives somebody who is in the session another token, with what it was granted when it joined. It keeps the time of issue of
/// the one that it replaces: what revokes that one revokes it, too.
///
/// # Errors
/// `participant_not_found` for who is not there (any more).
pub async fn refresh(
    state: &ApiState,
    caller: &Caller,
    whose: Whose,
    wanted: RefreshToken,
) -> ApiResult<RefreshedToken> {
    caller.acts_for(whose.session, whose.participant)?;
    let session = open_session(state, caller, whose.session).await?;
    let participant = session.participant(whose.participant).ok_or_else(ApiError::participant_not_found)?;
    let destination = match wanted.destination.as_deref() {
        Some(destination) => {
            let target = find(state, caller, whose, Some(destination)).await?;
            Some(state.config.keys.now().seal(&target, &session.key_id))
        }
        None => None,
    };
    let (name, issued_at) = match caller.claims() {
        Some(claims) => (claims.name.clone(), claims.iat),
        None => (None, Some(IssuedAt(UnixMillis::now()))),
    };
    let claims = claims_of(state, (&session.key_id, session.id), participant, (name, issued_at));
    let token = mint(state, &claims)?;
    Ok(RefreshedToken { token, token_expires_at: claims.expires_at(), destination })
}
