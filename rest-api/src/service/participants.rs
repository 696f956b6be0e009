//! Joining, reading and leaving.

use common::broker::{BrokerErrorKind, topology};
use common::message::{Answer, CommandBody, JoinReply, LeaveReason, Offer, ReplyBody};
use common::model::{CommandId, EndpointId, Grants, Participant, ParticipantId, Session, SessionId, Track};
use common::time::UnixMillis;
use common::token::{Claims, VideoGrants};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::endpoints::OfferBody;
use super::links::mint;
use super::sessions::{ParticipantList, unexpected};
use super::{
    Audience, CommandContext, Completed, Nothing, Outcome, Route, check_name, made_from, open_session,
    owned_session, run,
};
use crate::auth::{Caller, Role};
use crate::config::IceServer;
use crate::delivery::Recipient;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;
use crate::view::ParticipantView;

/// Keeps the ids of participants apart from others that are made from commands.
const PARTICIPANTS: Uuid = Uuid::from_u128(0x8a4e_21d7_90c3_4f16_8d35_0e7b_5a1e_0002);

/// Keeps the ids of endpoints apart from others that are made from commands.
const ENDPOINTS: Uuid = Uuid::from_u128(0x8a4e_21d7_90c3_4f16_8d35_0e7b_5a1e_0003);

/// Who joins, and how.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinSession {
    /// Brought by the client, taken from the token, or made by the server. One that is in the session rejoins.
    #[serde(default)]
    pub participant_id: Option<ParticipantId>,
    /// Brought by the client, or made by the server: a new one for every join. The queue of events has its name.
    #[serde(default)]
    pub endpoint_id: Option<EndpointId>,
    /// What others see; a name in the token wins.
    #[serde(default)]
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The server makes the first offer: for clients that only watch.
    #[serde(default)]
    pub server_offers: bool,
    /// Saves a round trip: negotiated as part of the join.
    #[serde(default)]
    pub offer: Option<OfferBody>,
}

/// Everything a client needs after it joined.
#[derive(Debug, Serialize, ToSchema)]
pub struct JoinedSession {
    pub session_id: SessionId,
    pub participant: ParticipantView,
    pub endpoint_id: EndpointId,
    /// Of the session when it was joined: `session.interrupted` and `session.moving` with a higher one concern this
    /// endpoint, others are from before.
    pub epoch: i64,
    /// Send it back with every request about this endpoint.
    pub destination: String,
    /// For everything below this participant's path.
    pub token: String,
    pub token_expires_at: UnixMillis,
    pub ice_servers: Vec<IceServer>,
    /// Everyone else in the session.
    pub participants: Vec<ParticipantView>,
    /// Present when the join brought an offer.
    pub answer: Option<JoinAnswer>,
    /// The participant's own tracks.
    pub tracks: Vec<Track>,
}

/// The answer to the join's offer.
#[derive(Debug, Serialize, ToSchema)]
pub struct JoinAnswer {
    pub sdp: String,
    pub revision: u64,
}

impl From<Answer> for JoinAnswer {
    fn from(answer: Answer) -> Self {
        Self { sdp: answer.sdp, revision: answer.revision }
    }
}

impl Completed for JoinedSession {
    fn status(&self) -> u16 {
        201
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// Joins or rejoins a session.
pub async fn join(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    session_id: SessionId,
    wanted: JoinSession,
) -> ApiResult<Outcome<JoinedSession>> {
    caller.may_join(session_id)?;
    let session = open_session(state, caller, session_id).await?;
    let participant_id = identify(caller, &session, wanted.participant_id, context.command_id)?;
    let endpoint_id = identify_endpoint(&session, wanted.endpoint_id, participant_id, context.command_id)?;
    let recipient = Recipient { session: session_id, participant: participant_id, endpoint: endpoint_id };
    let present = session.participant(participant_id);
    let name = name(caller, present, wanted.name)?;
    let grants = grants(caller, present);
    declare(state, recipient).await?;

    let body = CommandBody::Join {
        session_id,
        participant_id,
        endpoint_id,
        name,
        grants,
        server_offers: wanted.server_offers,
        offer: wanted.offer.map(Offer::from),
    };
    let joined = Joining {
        state: state.clone(),
        owner: session.key_id,
        given_name: caller.claims().and_then(|claims| claims.name.clone()),
        recipient,
    };
    let who = Audience::Endpoint(recipient);
    run(state, context, Route::Session(session_id), who, body, |reply| joined.finish(reply)).await
}

/// Which participant joins.
fn identify(
    caller: &Caller,
    session: &Session,
    wanted: Option<ParticipantId>,
    command_id: CommandId,
) -> ApiResult<ParticipantId> {
    let own = caller.claims().map(|claims| claims.sub);
    match (own, wanted) {
        // The backend may join as anybody.
        (None, Some(id)) => Ok(id),
        (Some(Some(own)), Some(id)) if own != id => {
            Err(ApiError::forbidden("the token is for another participant"))
        }
        (Some(Some(own)), _) => Ok(own),
        // A link that everybody may open: it must not take the place of somebody who is there. The same join once
        // more is no conflict.
        (Some(None), Some(id)) => match session.participant(id) {
            Some(present) if present.command_id != command_id => {
                Err(ApiError::new(Code::ParticipantConflict, "the participant is in the session already"))
            }
            _ => Ok(id),
        },
        (_, None) => Ok(ParticipantId::from_uuid(made_from(command_id, &PARTICIPANTS))),
    }
}

/// The id of the endpoint that the join makes. It must be new, unless this is the same join once more.
fn identify_endpoint(
    session: &Session,
    wanted: Option<EndpointId>,
    participant_id: ParticipantId,
    command_id: CommandId,
) -> ApiResult<EndpointId> {
    let Some(id) = wanted else {
        return Ok(EndpointId::from_uuid(made_from(command_id, &ENDPOINTS)));
    };
    let has_it = |present: &&Participant| present.endpoint.as_ref().is_some_and(|endpoint| endpoint.id == id);
    match session.participants.iter().find(has_it) {
        Some(owner) if owner.id != participant_id || owner.command_id != command_id => Err(ApiError::new(
            Code::EndpointConflict,
            "the endpoint id is taken: bring a new one for every join",
        )),
        _ => Ok(id),
    }
}

fn name(caller: &Caller, present: Option<&Participant>, wanted: Option<String>) -> ApiResult<String> {
    let given = caller.claims().and_then(|claims| claims.name.clone());
    let stored = || present.map(|participant| participant.name.clone());
    let name = given.or(wanted).or_else(stored).unwrap_or_default();
    check_name(&name)?;
    Ok(name)
}

/// A token says what its bearer may; the backend, joining for somebody, leaves it as it was.
fn grants(caller: &Caller, present: Option<&Participant>) -> Grants {
    match (caller.claims(), present) {
        (Some(claims), _) => claims.video.participant(),
        (None, Some(participant)) => participant.grants,
        (None, None) => Grants { can_publish: true, can_subscribe: true, admin: false },
    }
}

/// The user queue must be bound before the join takes effect: no event may fall between.
async fn declare(state: &ApiState, recipient: Recipient) -> ApiResult<()> {
    let session = recipient.session;
    let queue = recipient.queue();
    state.broker.declare_queue(&queue).await?;
    match state.broker.bind(&queue.name, &topology::session_exchange_name(session)).await {
        // Its exchange goes when a session closes.
        Err(error) if error.kind == BrokerErrorKind::Unroutable => {
            discard(state, recipient).await;
            Err(match state.store.session(session).await? {
                None => ApiError::session_not_found(),
                Some(found) if found.state == common::model::SessionState::Closed => {
                    ApiError::session_closed()
                }
                Some(_) => ApiError::new(Code::Unavailable, "the session's exchange is missing: try again"),
            })
        }
        other => Ok(other?),
    }
}

async fn discard(state: &ApiState, recipient: Recipient) {
    if let Err(error) = state.broker.delete_queue(&recipient.queue_name()).await {
        tracing::debug!(error = %error, "an unused user queue stays until it expires");
    }
}

/// What is left to do when the reply to a join is there.
struct Joining {
    state: ApiState,
    /// The API key that owns the session: it signs the participant's token.
    owner: String,
    given_name: Option<String>,
    recipient: Recipient,
}

impl Joining {
    async fn finish(self, reply: ApiResult<ReplyBody>) -> ApiResult<JoinedSession> {
        let state = &self.state;
        match reply {
            Ok(ReplyBody::Joined(reply)) => self.joined(*reply),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => {
                // The first two are no refusals: the join may still take effect. In a conflict the queue may be the one
                // of the endpoint that has the id.
                if !matches!(error.code, Code::Expired | Code::Unavailable | Code::EndpointConflict) {
                    discard(state, self.recipient).await;
                }
                Err(error)
            }
        }
    }

    fn joined(self, reply: JoinReply) -> ApiResult<JoinedSession> {
        let joined = reply.joined;
        let config = &self.state.config;
        let grants = joined.participant.grants;
        let video = VideoGrants {
            room_admin: grants.admin,
            can_publish: Some(grants.can_publish),
            can_subscribe: Some(grants.can_subscribe),
            ..VideoGrants::join(self.recipient.session)
        };
        let mut claims = Claims::expiring_in(&self.owner, config.participant_token_ttl, video);
        claims.sub = Some(joined.participant.id);
        claims.name = self.given_name;
        Ok(JoinedSession {
            session_id: self.recipient.session,
            endpoint_id: joined.target.endpoint_id,
            epoch: joined.target.epoch,
            destination: config.keys.seal(&joined.target, &self.owner),
            token: mint(&self.state, &claims)?,
            token_expires_at: claims.expires_at(),
            ice_servers: config.ice_servers.clone(),
            participants: joined.others.into_iter().map(ParticipantView::from).collect(),
            answer: reply.answer.map(JoinAnswer::from),
            tracks: joined.participant.tracks.clone(),
            participant: joined.participant.into(),
        })
    }
}

/// Everyone in the session.
pub async fn list(state: &ApiState, caller: &Caller, session: SessionId) -> ApiResult<ParticipantList> {
    caller.may_see(session)?;
    let session = open_session(state, caller, session).await?;
    let participants = session.participants.into_iter().map(ParticipantView::from).collect();
    Ok(ParticipantList { participants })
}

/// One participant.
pub async fn read(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    participant: ParticipantId,
) -> ApiResult<ParticipantView> {
    caller.acts_on(session, participant)?;
    let session = owned_session(state, caller, session).await?;
    session
        .participants
        .into_iter()
        .find(|present| present.id == participant)
        .map(ParticipantView::from)
        .ok_or_else(ApiError::participant_not_found)
}

/// Leaves, or removes somebody.
pub async fn leave(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    session_id: SessionId,
    participant_id: ParticipantId,
) -> ApiResult<Outcome<Nothing>> {
    let role = caller.acts_on(session_id, participant_id)?;
    caller.owns(&state.owner(session_id).await?)?;
    let reason = if role == Role::Own { LeaveReason::Left } else { LeaveReason::Removed };
    let body = CommandBody::Leave { session_id, participant_id, reason };
    // Who has left is told by `participant.left`; only a refusal finds somebody to tell.
    let who = Audience::Participant(session_id, participant_id);
    run(state, context, Route::Session(session_id), who, body, |reply| async move {
        match reply {
            Ok(ReplyBody::Left) => Ok(Nothing),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    })
    .await
}
