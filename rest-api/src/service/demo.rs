//! Join links to named rooms for everybody: the demo, without a backend of its own.
//!
//! A room's session id follows from its name, so any number of API instances and tabs meet in one session without
//! asking each other. A closed session's id is never used again: the room then moves to its next generation.

use common::model::{CommandId, SessionId, SessionState};
use common::store::SessionFilter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::links::join_link;
use super::sessions::{self, CreateSession};
use super::{CommandContext, Outcome};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// The name space of room names (UUID version 5, RFC 9562, section 5.5).
const ROOMS: Uuid = Uuid::from_u128(0x6f1d_9c52_3b0e_4b7a_9a51_5a1e_c0de_0001);
const DEFAULT_ROOM: &str = "lobby";
/// The longest room name, in characters.
const MAX_ROOM: usize = 64;
/// Rooms that close while their link is made, one after the other, before giving up.
const TRIES: usize = 4;
/// How often a room may be closed before the store forgets its first generations.
const MAX_GENERATION: u64 = 1_000;
const PAGE: u32 = 500;

/// Which room.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDemoLink {
    /// `lobby` when absent.
    #[serde(default)]
    #[schema(max_length = 64)]
    pub room: Option<String>,
}

/// A link into the room.
#[derive(Debug, Serialize, ToSchema)]
pub struct DemoLink {
    pub join_link: String,
    pub token: String,
    pub session_id: SessionId,
}

/// Gives a link into the room and creates its session when needed.
pub async fn link(
    state: &ApiState,
    context: &CommandContext,
    public_url: &str,
    wanted: CreateDemoLink,
) -> ApiResult<DemoLink> {
    let room = wanted.room.unwrap_or_else(|| DEFAULT_ROOM.to_owned());
    if room.is_empty() || room.chars().count() > MAX_ROOM || room.chars().any(char::is_control) {
        return Err(ApiError::invalid("a room name has 1 to 64 characters and no control characters"));
    }
    for _ in 0..TRIES {
        let id = match open_room(state, &room).await? {
            Some(id) => id,
            None => match create(state, context, public_url, &room).await {
                Ok(id) => id,
                Err(error) if error.code == Code::SessionClosed => continue,
                Err(error) => return Err(error),
            },
        };
        let link = join_link(state, state.config.keys.now().first_id(), public_url, id)?;
        return Ok(DemoLink { join_link: link.join_link, token: link.token, session_id: id });
    }
    Err(ApiError::new(Code::Unavailable, "the room closes as fast as it opens: try again"))
}

/// The room's open session: almost always its first generation, else whichever is open.
async fn open_room(state: &ApiState, room: &str) -> ApiResult<Option<SessionId>> {
    let keys = state.config.keys.now();
    let key_id = keys.first_id();
    match state.store.session(generation(room, 0)).await? {
        Some(session) if session.state == SessionState::Open && session.key_id == key_id => {
            return Ok(Some(session.id));
        }
        _ => {}
    }
    let mut filter = SessionFilter {
        key_id: Some(key_id.to_owned()),
        open_only: true,
        limit: PAGE,
        ..SessionFilter::default()
    };
    loop {
        let page = state.store.sessions(&filter).await?;
        let found = page
            .iter()
            .find(|session| session.name.as_deref() == Some(room) && is_generation(room, session.id));
        if let Some(session) = found {
            return Ok(Some(session.id));
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => filter.after = Some(last.id),
            _ => return Ok(None),
        }
    }
}

async fn create(
    state: &ApiState,
    context: &CommandContext,
    public_url: &str,
    room: &str,
) -> ApiResult<SessionId> {
    let mut number = 0;
    while state.store.session(generation(room, number)).await?.is_some() {
        number += 1;
        if number == MAX_GENERATION {
            return Err(ApiError::new(Code::Unavailable, "the room was closed too often: try again later"));
        }
    }
    let caller = Caller::Backend { key_id: state.config.keys.now().first_id().to_owned() };
    let (id, name) = (Some(generation(room, number)), Some(room.to_owned()));
    let wanted = CreateSession { id, name, ..CreateSession::default() };
    let context = CommandContext { command_id: CommandId::new(), ..context.clone() };
    match sessions::create(state, &caller, &context, public_url.to_owned(), wanted).await? {
        Outcome::Done(created) => Ok(created.session.id),
        Outcome::Later(_) => Err(ApiError::new(Code::Unavailable, "the room is still being made: try again")),
    }
}

/// Others may have given a session the same name.
fn is_generation(room: &str, id: SessionId) -> bool {
    (0..MAX_GENERATION).any(|number| generation(room, number) == id)
}

fn generation(room: &str, number: u64) -> SessionId {
    SessionId::from_uuid(Uuid::new_v5(&ROOMS, format!("{number} {room}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_one_id_per_generation_everywhere() {
        assert_eq!(generation("lobby", 0), generation("lobby", 0));
        assert_ne!(generation("lobby", 0), generation("lobby", 1));
        assert_ne!(generation("lobby", 0), generation("attic", 0));
        assert_eq!(generation("lobby", 0).uuid().get_version_num(), 5);
    }
}
