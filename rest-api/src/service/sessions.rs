//! Creating, reading and closing sessions.

use std::time::Duration;

use common::broker::topology;
use common::message::{CommandBody, ReplyBody};
use common::model::{CommandId, Session, SessionId, SessionState};
use common::store::SessionFilter;
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::links::{Link, join_link};
use super::settings::Settings;
use super::{
    Audience, CommandContext, Completed, Nothing, Outcome, Route, check_name, made_from, owned_session, run,
};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;
use crate::view::{ParticipantView, SessionView};

/// Keeps the ids of sessions apart from others that are made from commands.
const SESSIONS: Uuid = Uuid::from_u128(0x1c7b_52f0_66d9_4e0b_b1a4_0e7b_5a1e_0003);

/// How long those who end a session may need to tell everybody and clear up, an outage of the broker included.
const JUST_NOW: Duration = Duration::from_secs(600);

/// Sessions in one page at most.
pub const MAX_PAGE: u32 = 500;

/// What to create.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Made by the client, or by the server when absent.
    #[serde(default)]
    pub id: Option<SessionId>,
    /// A label for people.
    #[serde(default)]
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// How its media is treated.
    #[serde(default)]
    pub settings: Settings,
}

/// The created session and a link that joins it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedSession {
    pub session: SessionView,
    pub join_link: String,
    pub token: String,
    /// Whether this very command created it.
    #[serde(skip)]
    pub new: bool,
}

impl Completed for CreatedSession {
    fn status(&self) -> u16 {
        if self.new { 201 } else { 200 }
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// One page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionPage {
    pub sessions: Vec<SessionView>,
    /// Where the next page starts; `null` on the last one.
    pub next: Option<SessionId>,
}

/// Everyone in a session.
#[derive(Debug, Serialize, ToSchema)]
pub struct ParticipantList {
    pub participants: Vec<ParticipantView>,
}

/// Creates a session, or gives the one that the same key created with this id before.
pub async fn create(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    public_url: String,
    wanted: CreateSession,
) -> ApiResult<Outcome<CreatedSession>> {
    let id = caller
        .may_create(wanted.id)?
        .unwrap_or_else(|| SessionId::from_uuid(made_from(context.command_id, &SESSIONS)));
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let settings = wanted.settings.checked()?;
    let command_id = context.command_id;
    let key_id = caller.key_id().to_owned();
    let (name, key) = (wanted.name, key_id.clone());
    let body = CommandBody::CreateSession { session_id: id, name, key_id: key, settings };
    declare(state, id).await?;
    let shared = state.clone();
    run(state, context, Route::Workers, Audience::Nobody, body, move |reply| async move {
        let session = match reply {
            Ok(ReplyBody::SessionCreated { session }) => *session,
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => {
                if error.code == Code::SessionClosed {
                    undeclare(&shared, id).await;
                }
                return Err(error);
            }
        };
        created(&shared, session, command_id, &key_id, &public_url)
    })
    .await
}

fn created(
    state: &ApiState,
    session: Session,
    command_id: CommandId,
    key_id: &str,
    public_url: &str,
) -> ApiResult<CreatedSession> {
    if session.key_id != key_id {
        return Err(ApiError::new(Code::SessionConflict, "the id is taken by another session"));
    }
    if session.state == SessionState::Closed {
        return Err(ApiError::session_closed());
    }
    state.remember_owner(session.id, &session.key_id);
    let Link { join_link, token, .. } = join_link(state, key_id, public_url, session.id)?;
    let new = session.command_id == command_id;
    Ok(CreatedSession { session: session.into(), join_link, token, new })
}

/// One page of the open sessions of the caller's key.
pub async fn list(
    state: &ApiState,
    caller: &Caller,
    after: Option<SessionId>,
    limit: u32,
) -> ApiResult<SessionPage> {
    caller.backend()?;
    let limit = limit.clamp(1, MAX_PAGE);
    let filter = SessionFilter {
        key_id: Some(caller.key_id().to_owned()),
        open_only: true,
        after,
        // One more tells whether there is a next page.
        limit: limit + 1,
        ..SessionFilter::default()
    };
    let mut sessions = state.store.sessions(&filter).await?;
    let more = sessions.len() > limit as usize;
    sessions.truncate(limit as usize);
    let next = if more { sessions.last().map(|session| session.id) } else { None };
    Ok(SessionPage { sessions: sessions.into_iter().map(SessionView::from).collect(), next })
}

/// The session as it is stored now, also when it is closed.
pub async fn read(state: &ApiState, caller: &Caller, id: SessionId) -> ApiResult<SessionView> {
    caller.may_see(id)?;
    owned_session(state, caller, id).await.map(SessionView::from)
}

/// Ends a session for everyone in it. One that is closed already stays so.
pub async fn close(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    id: SessionId,
) -> ApiResult<Outcome<Nothing>> {
    caller.may_administer(id)?;
    let session = owned_session(state, caller, id).await?;
    if session.state == SessionState::Closed {
        return Ok(Outcome::Done(Nothing));
    }
    let body = CommandBody::CloseSession { session_id: id };
    run(state, context, Route::Session(id), Audience::Nobody, body, |reply| async move {
        match reply {
            Ok(ReplyBody::SessionClosed) => Ok(Nothing),
            Err(error) if error.code == Code::SessionClosed => Ok(Nothing),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    })
    .await
}

/// A worker answered another question.
pub fn unexpected(reply: &ReplyBody) -> ApiError {
    tracing::error!(reply = ?std::mem::discriminant(reply), "a reply of the wrong kind");
    ApiError::new(Code::Internal, "something went wrong on the server")
}

/// The session's queue and exchange; they must be there before the first worker attaches.
async fn declare(state: &ApiState, id: SessionId) -> ApiResult<()> {
    state.broker.declare_queue(&topology::session_queue(id)).await?;
    state.broker.declare_exchange(&topology::session_exchange_name(id)).await?;
    Ok(())
}

/// Takes back what [`declare`] made anew for a session that had ended. Of one that has ended just now nothing was made anew: its
/// exchange is there because not everybody has been told yet, and who ended it clears up behind that.
async fn undeclare(state: &ApiState, id: SessionId) {
    let is_old = |closed_at: UnixMillis| closed_at.plus(JUST_NOW) < UnixMillis::now();
    match state.store.session(id).await {
        Ok(Some(session)) if session.closed_at.is_none_or(is_old) => {}
        // Workers clear up behind every session that ended, before its record goes.
        _ => return,
    }
    let queue = state.broker.delete_queue(&topology::session_queue_name(id)).await;
    let exchange = state.broker.delete_exchange(&topology::session_exchange_name(id)).await;
    for error in [queue.err(), exchange.err()].into_iter().flatten() {
        tracing::debug!(error = %error, session_id = %id, "the queue of an ended session stays");
    }
}
