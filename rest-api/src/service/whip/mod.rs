//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one offer by HTTP, one answer, and that is all.
//!
//! ```text
//!   POST /v1/whip/{session} offer ──▶ join, without a queue for events ──▶ 201 answer, Location, ETag
//!   PATCH {Location} fragment ──────▶ ice, to the worker that has the endpoint
//!   DELETE {Location} ──────────────▶ leave, that endpoint only
//! ```
//!
//! The last part of the Location is the sealed destination of the endpoint: any API instance knows from it where the
//! endpoint lives, and nobody can make one up. It is used with the token that made it, or another for its session.

pub(crate) mod fragment;
pub(crate) mod if_match;
mod links;

use common::message::{CommandBody, Fixed, IceFragment, LeaveReason, ReplyBody, Target};
use common::model::{CommandId, ParticipantId, SessionId, TrackId};
use serde::Deserialize;
use uuid::Uuid;

use self::fragment::Fragment;
use super::endpoints::OfferBody;
use super::participants::{ByOneOffer, JoinSession, join_how};
use super::sessions::{self, CreateSession, unexpected};
use super::{
    Audience, CommandContext, Completed, Nothing, Outcome, Route, made_from, open_session, run, why_gone,
};
use crate::auth::Caller;
use crate::config::IceServer;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

pub use if_match::read as read_if_match;
pub use links::ice_server_links;

/// Keeps the command that creates a session apart from the one that joins it.
const CREATIONS: Uuid = Uuid::from_u128(0x3f0d_9c1e_7a52_4b0a_9b6e_0e7b_5a1e_0004);

/// Which of the session's tracks a player gets.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchQuery {
    /// Only this participant's.
    pub participant: Option<ParticipantId>,
    /// Only this one.
    pub track: Option<TrackId>,
}

impl From<WatchQuery> for ByOneOffer {
    fn from(query: WatchQuery) -> Self {
        Self::Watches(Fixed { participant_id: query.participant, track_id: query.track })
    }
}

/// An endpoint that was made by one offer.
#[derive(Debug)]
pub struct Made {
    /// The last part of its resource's path.
    pub resource: String,
    pub answer: String,
    /// Of its ICE session.
    pub entity_tag: String,
    pub ice_servers: Vec<IceServer>,
}

/// Joins with an offer. The session is created when it is not there and the caller may do that.
pub async fn join(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    session_id: SessionId,
    how: ByOneOffer,
    offer: String,
) -> ApiResult<Made> {
    caller.may_join(session_id)?;
    ensure_session(state, caller, context, session_id).await?;
    let offer = OfferBody { sdp: offer, tracks: Vec::new() };
    let wanted = JoinSession { offer: Some(offer), ..JoinSession::default() };
    let joined = done(join_how(state, caller, context, session_id, wanted, Some(how)).await?)?;
    let answer =
        joined.answer.ok_or_else(|| ApiError::new(Code::Internal, "something went wrong on the server"))?;
    let entity_tag = fragment::username_fragment(&answer.sdp).unwrap_or_default().to_owned();
    let ice_servers = joined.ice_servers;
    Ok(Made { resource: joined.destination, answer: answer.sdp, entity_tag, ice_servers })
}

async fn ensure_session(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    id: SessionId,
) -> ApiResult<()> {
    match open_session(state, caller, id).await {
        Err(error) if error.code == Code::SessionNotFound && caller.may_create(Some(id)).is_ok() => {}
        other => return other.map(drop),
    }
    let command_id = CommandId::from_uuid(made_from(context.command_id, &CREATIONS));
    let context = CommandContext { command_id, ..context.clone() };
    let wanted = CreateSession { id: Some(id), ..CreateSession::default() };
    // Its join link is for nobody.
    done(sessions::create(state, caller, &context, String::new(), wanted).await?).map(drop)
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Ice {
    /// Its candidates were taken.
    Taken,
    /// ICE was restarted: the server's side, the tag of the new session, and servers with credentials that are good again.
    Restarted { fragment: String, entity_tag: String, ice_servers: Vec<IceServer> },
}

/// A fragment's outcome on its way through [`run`].
struct Patched(Option<IceFragment>);

impl Completed for Patched {
    fn status(&self) -> u16 {
        if self.0.is_some() { 200 } else { 204 }
    }

    fn result(&self) -> serde_json::Value {
        // There is no queue into which a late one could be told.
        serde_json::Value::Null
    }
}

/// Trickles candidates, or restarts ICE. `if_match`: the header's values.
pub async fn ice(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    (session, resource): (SessionId, &str),
    if_match: &[&str],
    text: &str,
) -> ApiResult<Ice> {
    let target = open(state, caller, session, resource)?;
    let participant = target.participant_id;
    let if_match = read_if_match(if_match)?;
    let Fragment { ice: fragment, media } = fragment::read(text)?;
    let command = CommandBody::Ice { target, fragment, if_match };
    let route = Route::Worker(target.worker_id);
    let outcome = run(state, context, route, Audience::Nobody, command, |reply| async move {
        match reply {
            Ok(ReplyBody::Accepted) => Ok(Patched(None)),
            Ok(ReplyBody::IceRestarted { fragment }) => Ok(Patched(Some(fragment))),
            Ok(other) => Err(unexpected(&other)),
            Err(error) if matches!(error.code, Code::InvalidSdp | Code::InvalidCandidate) => {
                Err(ApiError::new(Code::InvalidFragment, error.detail))
            }
            Err(error) => Err(error),
        }
    });
    let outcome = why_gone(state, caller, session, outcome.await).await;
    Ok(match done(outcome?)?.0 {
        None => Ice::Taken,
        Some(own) => {
            let entity_tag =
                own.credentials.as_ref().map(|it| it.username_fragment.clone()).unwrap_or_default();
            let ice_servers = state.config.ice_servers_for(participant);
            Ice::Restarted { fragment: fragment::write(&own, media.as_deref()), entity_tag, ice_servers }
        }
    })
}

/// Ends the endpoint. One that has ended already stays so.
pub async fn end(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    session: SessionId,
    resource: &str,
) -> ApiResult<()> {
    let target = open(state, caller, session, resource)?;
    let body = CommandBody::Leave {
        session_id: session,
        participant_id: target.participant_id,
        reason: LeaveReason::Left,
        endpoint_id: Some(target.endpoint_id),
        revoked_at: None,
    };
    let outcome = run(state, context, Route::Session(session), Audience::Nobody, body, |reply| async move {
        match reply {
            Ok(ReplyBody::Left) => Ok(Nothing),
            // Gone with its session.
            Err(error) if error.code == Code::SessionClosed => Ok(Nothing),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    });
    done(outcome.await?).map(drop)
}

/// Where the endpoint lives, for who may act on it.
///
/// # Errors
/// `not_found` for a resource that this server did not make for the caller's API key and session, `forbidden` for one of
/// another participant.
fn open(state: &ApiState, caller: &Caller, session: SessionId, resource: &str) -> ApiResult<Target> {
    let missing = || ApiError::new(Code::NotFound, "there is no such resource");
    caller.may_see(session)?;
    let target = state.config.keys.now().open(resource, caller.key_id()).map_err(|_| missing())?;
    if target.session_id != session {
        return Err(missing());
    }
    // A link that several people publish or watch with names none of them; each has the address of its own resource.
    if caller.claims().is_some_and(|claims| claims.sub.is_some() || claims.video.room_admin) {
        caller.acts_on(session, target.participant_id)?;
    }
    Ok(target)
}

/// These clients cannot be told later.
fn done<T>(outcome: Outcome<T>) -> ApiResult<T> {
    match outcome {
        Outcome::Done(value) => Ok(value),
        Outcome::Later(_) => Err(ApiError::new(Code::Expired, "no worker has answered in time: try again")),
    }
}
