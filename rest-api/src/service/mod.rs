//! The use cases, without HTTP types: permission, command, reply.

pub mod admin;
mod commands;
pub mod demo;
pub mod endpoints;
pub mod links;
pub mod messages;
pub mod participants;
pub mod ratings;
pub mod sessions;
pub mod settings;
pub mod stats;
pub mod timeline;
pub mod tokens;
pub mod webhooks;
pub mod whip;
pub mod workers;

pub use commands::{Audience, CommandContext, Completed, Nothing, Outcome, Route, run};

use common::model::{CommandId, Session, SessionId, SessionState};
use uuid::{Builder, Uuid, Variant, Version};

use crate::auth::{Caller, Role};
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// The longest name of a session or participant, in characters.
pub const MAX_NAME: usize = 256;

/// The session's document, when this caller's key owns it and its token was not revoked.
async fn owned_session(state: &ApiState, caller: &Caller, id: SessionId) -> ApiResult<Session> {
    let session = state.store.session(id).await?.ok_or_else(ApiError::session_not_found)?;
    state.remember_owner(id, &session.key_id);
    caller.owns(&session.key_id)?;
    caller.check_revoked(&session)?;
    Ok(session)
}

/// Whether a client may act on others by its `roomAdmin`: that is looked up, so that it ends at once with its removal.
async fn moderates(state: &ApiState, caller: &Caller, role: Role, id: SessionId) -> ApiResult<()> {
    match role {
        Role::Admin => owned_session(state, caller, id).await.map(drop),
        Role::Own | Role::Backend => Ok(()),
    }
}

/// Whose endpoint is gone may have been removed: then that is what it is told. When the store is away the endpoint is just
/// gone.
pub async fn why_gone<T>(
    state: &ApiState,
    caller: &Caller,
    id: SessionId,
    result: ApiResult<T>,
) -> ApiResult<T> {
    let gone = matches!(&result, Err(error) if error.code == Code::EndpointGone);
    if gone
        && caller.claims().is_some_and(|claims| claims.sub.is_some())
        && let Ok(Some(session)) = state.store.session(id).await
    {
        caller.check_revoked(&session)?;
    }
    result
}

/// As [`owned_session`], and it must be open.
async fn open_session(state: &ApiState, caller: &Caller, id: SessionId) -> ApiResult<Session> {
    let session = owned_session(state, caller, id).await?;
    match session.state {
        SessionState::Open => Ok(session),
        SessionState::Closed => Err(ApiError::session_closed()),
    }
}

/// The id of what a command creates without naming it: the same command once more must name the same.
///
/// Others see the id, and must not be able to tell the command's id from it (with that they could repeat the request
/// and get its result): so only the time is taken over, which keeps such ids in order, and the rest is hashed.
fn made_from(command_id: CommandId, name_space: &Uuid) -> Uuid {
    let command = command_id.uuid();
    let mut bytes = *Uuid::new_v5(name_space, command.as_bytes()).as_bytes();
    bytes[..6].copy_from_slice(&command.as_bytes()[..6]);
    Builder::from_bytes(bytes).with_version(Version::SortRand).with_variant(Variant::RFC4122).into_uuid()
}

fn check_name(name: &str) -> ApiResult<()> {
    if name.chars().count() > MAX_NAME {
        return Err(ApiError::new(Code::LimitExceeded, "a name has at most 256 characters"));
    }
    if name.chars().any(char::is_control) {
        return Err(ApiError::invalid("a name has no control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_from_a_command_is_always_the_same_and_does_not_tell_the_command() {
        let command = CommandId::new();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let made = made_from(command, &first);
        assert_eq!(made, made_from(command, &first));
        assert_ne!(made, made_from(command, &second));
        assert_eq!(made.as_bytes()[..6], command.uuid().as_bytes()[..6]);
        assert_ne!(made.as_bytes()[6..], command.uuid().as_bytes()[6..]);
        assert_eq!(made.get_version(), Some(Version::SortRand));
    }
}
