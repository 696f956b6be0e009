//! Joining, reading and leaving.

use std::time::Duration;

use common::broker::{BrokerErrorKind, topology};
use common::message::{Answer, CommandBody, Fixed, JoinReply, LeaveReason, Offer, ReplyBody};
use common::model::{
    Bitrates, CommandId, EndpointId, Grants, Participant, ParticipantId, Session, SessionId, Track,
};
use common::time::UnixMillis;
use common::token::{Claims, IssuedAt, VideoGrants};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::endpoints::OfferBody;
use super::links::mint;
use super::sessions::{ParticipantList, unexpected};
use super::settings::{BitratesBody, MAX_N, check_bitrates};
use super::{
    Audience, CommandContext, Completed, Nothing, Outcome, Route, check_name, made_from, moderates,
    open_session, owned_session, run,
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
    /// Of the backend: what counts for this participant in place of the session's own. Of a client: to what it lowers its
    /// own; what is higher does not count.
    #[serde(default)]
    pub bitrates: BitratesBody,
    /// Cameras that it wants at most, fewer than the session's.
    #[serde(default)]
    #[schema(maximum = 1000)]
    pub last_n: Option<u16>,
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

/// How somebody takes part with one offer and without events (WHIP, WHEP).
#[derive(Debug, Clone, Copy)]
pub enum ByOneOffer {
    Publishes,
    /// Gets these tracks.
    Watches(Fixed),
}

impl ByOneOffer {
    /// Of what the token grants, what this needs; nothing else.
    fn restrict(self, grants: Grants) -> ApiResult<Grants> {
        let (publishes, is_granted, what) = match self {
            Self::Publishes => (true, grants.can_publish, "canPublish"),
            Self::Watches(_) => (false, grants.can_subscribe, "canSubscribe"),
        };
        if !is_granted {
            return Err(ApiError::forbidden(format!("the token does not grant {what}")));
        }
        Ok(Grants { can_publish: publishes, can_subscribe: !publishes, ..grants })
    }

    fn fixed(self) -> Fixed {
        match self {
            Self::Publishes => Fixed::default(),
            Self::Watches(fixed) => fixed,
        }
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
    join_how(state, caller, context, session_id, wanted, None).await
}

/// The same. `how`: without a queue for events, which nobody would read.
pub(super) async fn join_how(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    session_id: SessionId,
    wanted: JoinSession,
    how: Option<ByOneOffer>,
) -> ApiResult<Outcome<JoinedSession>> {
    caller.may_join(session_id)?;
    let session = open_session(state, caller, session_id).await?;
    let participant_id = identify(caller, &session, wanted.participant_id, context.command_id)?;
    // A link for everybody may not bring back who was removed, either.
    let token_issued_at = caller.token_issued_at();
    if token_issued_at.is_some_and(|at| session.has_revoked(participant_id, at)) {
        return Err(ApiError::token_revoked());
    }
    let endpoint_id = identify_endpoint(&session, wanted.endpoint_id, participant_id, context.command_id)?;
    let recipient = Recipient { session: session_id, participant: participant_id, endpoint: endpoint_id };
    let present = session.participant(participant_id);
    let name = name(caller, present, wanted.name)?;
    let own = wanted.bitrates.checked()?;
    if wanted.last_n.is_some_and(|it| it > MAX_N) {
        return Err(ApiError::invalid("last_n is at most 1000"));
    }
    let mut grants = grants(caller, present);
    check_bitrates(&grants.bitrates)?;
    let is_backend = caller.claims().is_none();
    if is_backend && !own.is_unset() {
        grants.bitrates = own;
    }
    match how {
        Some(how) => grants = how.restrict(grants)?,
        None => declare(state, recipient).await?,
    }

    let body = CommandBody::Join {
        session_id,
        participant_id,
        endpoint_id,
        name,
        grants,
        server_offers: wanted.server_offers,
        offer: wanted.offer.map(Offer::from),
        bitrates: if is_backend { Bitrates::UNSET } else { own },
        last_n: wanted.last_n,
        fixed: how.map(ByOneOffer::fixed),
        token_issued_at,
    };
    let joined = Joining {
        state: state.clone(),
        owner: session.key_id,
        given_name: caller.claims().and_then(|claims| claims.name.clone()),
        // Taken before the join is on its way: a removal that comes after it revokes the token, too.
        issued_at: caller.claims().map_or_else(|| Some(IssuedAt(UnixMillis::now())), |claims| claims.iat),
        recipient,
        has_queue: how.is_none(),
    };
    let who = if how.is_none() { Audience::Endpoint(recipient) } else { Audience::Nobody };
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
        (None, None) => {
            Grants { can_publish: true, can_subscribe: true, admin: false, bitrates: Bitrates::UNSET }
        }
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
    /// Of the token that it joins with: what the join makes of it is revoked with it.
    issued_at: Option<IssuedAt>,
    recipient: Recipient,
    has_queue: bool,
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
                let may_be_used =
                    matches!(error.code, Code::Expired | Code::Unavailable | Code::EndpointConflict);
                if self.has_queue && !may_be_used {
                    discard(state, self.recipient).await;
                }
                Err(error)
            }
        }
    }

    fn joined(self, reply: JoinReply) -> ApiResult<JoinedSession> {
        let joined = reply.joined;
        let config = &self.state.config;
        let claims = claims_of(
            &self.state,
            (&self.owner, self.recipient.session),
            &joined.participant,
            (self.given_name, self.issued_at),
        );
        Ok(JoinedSession {
            session_id: self.recipient.session,
            endpoint_id: joined.target.endpoint_id,
            epoch: joined.target.epoch,
            destination: config.keys.now().seal(&joined.target, &self.owner),
            token: mint(&self.state, &claims)?,
            token_expires_at: claims.expires_at(),
            ice_servers: config.ice_servers_for(joined.participant.id),
            participants: joined.others.into_iter().map(ParticipantView::from).collect(),
            answer: reply.answer.map(JoinAnswer::from),
            tracks: joined.participant.tracks.clone(),
            participant: joined.participant.into(),
        })
    }
}

/// What a participant's own token says.
pub(super) fn claims_of(
    state: &ApiState,
    (owner, session): (&str, SessionId),
    participant: &Participant,
    (name, issued_at): (Option<String>, Option<IssuedAt>),
) -> Claims {
    let grants = participant.grants;
    let video = VideoGrants {
        room_admin: grants.admin,
        can_publish: Some(grants.can_publish),
        can_subscribe: Some(grants.can_subscribe),
        bitrates: grants.bitrates,
        ..VideoGrants::join(session)
    };
    let claims = Claims::expiring_in(owner, state.config.participant_token_ttl, video);
    Claims { sub: Some(participant.id), name, iat: issued_at, ..claims }
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

/// The ICE servers, with credentials that begin to age now: only for somebody who is in the session.
#[derive(Debug, Serialize, ToSchema)]
pub struct IceServers {
    pub ice_servers: Vec<IceServer>,
}

/// See [`IceServers`]. For the participant itself and the backend.
pub async fn ice_servers(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    participant: ParticipantId,
) -> ApiResult<IceServers> {
    caller.acts_for(session, participant)?;
    let present = read(state, caller, session, participant).await?;
    Ok(IceServers { ice_servers: state.config.ice_servers_for(present.id) })
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
    moderates(state, caller, role, session_id).await?;
    let (reason, revoked_at) = match role {
        Role::Own => (LeaveReason::Left, None),
        Role::Backend | Role::Admin => (LeaveReason::Removed, Some(UnixMillis::now())),
    };
    let body = CommandBody::Leave { session_id, participant_id, reason, endpoint_id: None, revoked_at };
    // Who has left is told by `participant.left`; only a refusal finds somebody to tell.
    let who = Audience::Participant(session_id, participant_id);
    run(state, context, Route::Session(session_id), who, body, move |reply| async move {
        match reply {
            Ok(ReplyBody::Left) => {
                if let Some(at) = revoked_at {
                    pass(at).await;
                }
                Ok(Nothing)
            }
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Waits for the next millisecond: a token that is issued after the reply must not look as if it came before the removal.
async fn pass(at: UnixMillis) {
    // A clock that was set back is not waited for.
    for _ in 0..5 {
        if UnixMillis::now() > at {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
