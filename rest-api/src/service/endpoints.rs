//! Commands to one endpoint: offer, answer, candidates, subscription, mute.
//!
//! With a valid `destination` they go straight to the worker's queue and no store is asked; without one the session's
//! document says where the endpoint lives.

use common::message::{
    Answer, Candidate, CommandBody, Offer, ReplyBody, Shown, Target, TrackDescription, Wish,
};
use common::model::{EndpointState, ParticipantId, SessionId, Track, TrackId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sessions::unexpected;
use super::{
    Audience, CommandContext, Completed, Nothing, Outcome, Route, moderates, open_session, run, why_gone,
};
use crate::auth::{Caller, Role};
use crate::delivery::Recipient;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// Candidates in one request at most.
pub const MAX_CANDIDATES: usize = 100;
/// Characters of one candidate at most.
pub const MAX_CANDIDATE_LENGTH: usize = 1_024;

/// The offer of a join.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JoinOffer)]
#[serde(deny_unknown_fields)]
pub struct OfferBody {
    pub sdp: String,
    /// m-lines that are sent on and not described here are published with a source by their kind.
    #[serde(default)]
    pub tracks: Vec<TrackDescription>,
}

impl From<OfferBody> for Offer {
    fn from(offer: OfferBody) -> Self {
        // The first negotiation of an endpoint has nothing to collide with.
        Self { sdp: offer.sdp, revision: None, tracks: offer.tracks }
    }
}

/// A client's offer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendOffer {
    /// Of the join reply.
    #[serde(default)]
    pub destination: Option<String>,
    pub sdp: String,
    /// The revision that this offer makes; absent skips the check.
    #[serde(default)]
    pub revision: Option<u64>,
    #[serde(default)]
    pub tracks: Vec<TrackDescription>,
}

/// The server's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfferAnswer {
    pub sdp: String,
    pub revision: u64,
    /// The participant's own tracks.
    pub tracks: Vec<Track>,
}

impl Completed for OfferAnswer {
    fn status(&self) -> u16 {
        200
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// A client's answer to the server's offer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendAnswer {
    /// Of the join reply.
    #[serde(default)]
    pub destination: Option<String>,
    pub sdp: String,
    /// Of the offer that it answers.
    pub revision: u64,
}

/// A client's candidates (trickle ICE, RFC 8838).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendCandidates {
    /// Of the join reply.
    #[serde(default)]
    pub destination: Option<String>,
    /// One with an empty `candidate` ends them.
    #[schema(min_items = 1, max_items = 100)]
    pub candidates: Vec<Candidate>,
}

/// A change of a track.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTrack {
    /// Of the track's publisher.
    #[serde(default)]
    pub destination: Option<String>,
    pub muted: bool,
}

/// What a client wants of a track that it subscribes to. What is absent is not limited, whatever was said before.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSubscription {
    /// Of the join reply.
    #[serde(default)]
    pub destination: Option<String>,
    /// Nothing is sent until it is false again.
    #[serde(default)]
    pub paused: bool,
    /// The best encoding (simulcast) to send, counted from 0, the lowest.
    #[serde(default)]
    pub max_encoding: Option<u8>,
    /// The highest spatial layer of that encoding, counted from 0.
    #[serde(default)]
    pub max_spatial: Option<u8>,
    /// The highest temporal layer of that encoding, counted from 0.
    #[serde(default)]
    pub max_temporal: Option<u8>,
    /// When not everything fits: 0 (as everything) to 3 (pinned: before everything else). Among equals screens come before
    /// cameras, and who speaks before who does not.
    #[serde(default)]
    #[schema(maximum = 3)]
    pub priority: u8,
    /// How large the picture is shown, in the screen's own pixels: nothing larger is sent.
    #[serde(default)]
    pub shown: Option<Shown>,
}

impl Completed for Track {
    fn status(&self) -> u16 {
        200
    }

    fn result(&self) -> serde_json::Value {
        super::commands::body_of(self)
    }
}

/// Whose endpoint a request is for, from its path.
#[derive(Debug, Clone, Copy)]
pub struct Whose {
    pub session: SessionId,
    pub participant: ParticipantId,
}

/// The endpoint that a command is for learns its result.
pub(super) fn audience(target: &Target) -> Audience {
    Audience::Endpoint(Recipient {
        session: target.session_id,
        participant: target.participant_id,
        endpoint: target.endpoint_id,
    })
}

/// Negotiates the client's offer.
pub async fn offer(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    body: SendOffer,
) -> ApiResult<Outcome<OfferAnswer>> {
    caller.acts_for(whose.session, whose.participant)?;
    let target = find(state, caller, whose, body.destination.as_deref()).await?;
    let offer = Offer { sdp: body.sdp, revision: body.revision, tracks: body.tracks };
    let command = CommandBody::Offer { target, offer };
    let asked = run(
        state,
        context,
        Route::Worker(target.worker_id),
        audience(&target),
        command,
        |reply| async move {
            match reply? {
                ReplyBody::Answered { answer, tracks } => {
                    Ok(OfferAnswer { sdp: answer.sdp, revision: answer.revision, tracks })
                }
                other => Err(unexpected(&other)),
            }
        },
    );
    why_gone(state, caller, whose.session, asked.await).await
}

/// Completes the server's offer.
pub async fn answer(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    body: SendAnswer,
) -> ApiResult<Outcome<Nothing>> {
    caller.acts_for(whose.session, whose.participant)?;
    let target = find(state, caller, whose, body.destination.as_deref()).await?;
    let answer = Answer { sdp: body.sdp, revision: body.revision };
    let command = CommandBody::Answer { target, answer };
    accepted(state, caller, context, target, command).await
}

/// Hands the client's candidates on.
pub async fn candidates(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    body: SendCandidates,
) -> ApiResult<Outcome<Nothing>> {
    caller.acts_for(whose.session, whose.participant)?;
    if body.candidates.is_empty() {
        return Err(ApiError::invalid("candidates is empty; end-of-candidates is one empty candidate"));
    }
    if body.candidates.len() > MAX_CANDIDATES {
        return Err(ApiError::new(Code::LimitExceeded, "at most 100 candidates in one request"));
    }
    if body.candidates.iter().any(|candidate| candidate.candidate.len() > MAX_CANDIDATE_LENGTH) {
        return Err(ApiError::new(Code::LimitExceeded, "a candidate has at most 1024 characters"));
    }
    let target = find(state, caller, whose, body.destination.as_deref()).await?;
    let command = CommandBody::Candidates { target, candidates: body.candidates };
    accepted(state, caller, context, target, command).await
}

/// Says what the participant wants of a track that it subscribes to.
pub async fn change_subscription(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    track_id: TrackId,
    body: ChangeSubscription,
) -> ApiResult<Outcome<Nothing>> {
    caller.acts_for(whose.session, whose.participant)?;
    let target = find(state, caller, whose, body.destination.as_deref()).await?;
    let ChangeSubscription { paused, max_encoding, max_spatial, max_temporal, priority, shown, .. } = body;
    if priority > Wish::MAX_PRIORITY {
        return Err(ApiError::invalid("priority is 0 to 3"));
    }
    if shown.is_some_and(|shown| shown.width == 0 || shown.height == 0) {
        return Err(ApiError::invalid("shown has no area; pause what is not shown"));
    }
    let wish = Wish { paused, max_encoding, max_spatial, max_temporal, priority, shown };
    accepted(state, caller, context, target, CommandBody::Subscription { target, track_id, wish }).await
}

/// Mutes or unmutes a track: one's own, or as a moderator.
pub async fn change_track(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    track_id: TrackId,
    body: ChangeTrack,
) -> ApiResult<Outcome<Track>> {
    let role = caller.acts_on(whose.session, whose.participant)?;
    moderates(state, caller, role, whose.session).await?;
    let target = find(state, caller, whose, body.destination.as_deref()).await?;
    let by_admin = role != Role::Own;
    let command = CommandBody::Mute { target, track_id, muted: body.muted, by_admin };
    let asked = run(
        state,
        context,
        Route::Worker(target.worker_id),
        audience(&target),
        command,
        |reply| async move {
            match reply? {
                ReplyBody::Muted { track } => Ok(track),
                other => Err(unexpected(&other)),
            }
        },
    );
    why_gone(state, caller, whose.session, asked.await).await
}

async fn accepted(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    target: Target,
    command: CommandBody,
) -> ApiResult<Outcome<Nothing>> {
    let asked = run(
        state,
        context,
        Route::Worker(target.worker_id),
        audience(&target),
        command,
        |reply| async move {
            match reply? {
                ReplyBody::Accepted => Ok(Nothing),
                other => Err(unexpected(&other)),
            }
        },
    );
    why_gone(state, caller, target.session_id, asked.await).await
}

/// Where the endpoint lives.
///
/// # Errors
/// `invalid_request` for a destination that this server did not make for the caller's API key, `forbidden` for one of
/// another participant; without one what the document says.
pub(super) async fn find(
    state: &ApiState,
    caller: &Caller,
    whose: Whose,
    destination: Option<&str>,
) -> ApiResult<Target> {
    let Some(destination) = destination else { return look_up(state, caller, whose).await };
    let target = state
        .config
        .keys
        .now()
        .open(destination, caller.key_id())
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    if target.session_id != whose.session || target.participant_id != whose.participant {
        return Err(ApiError::forbidden("the destination is for another participant"));
    }
    Ok(target)
}

async fn look_up(state: &ApiState, caller: &Caller, whose: Whose) -> ApiResult<Target> {
    let session = open_session(state, caller, whose.session).await?;
    let participant = session.participant(whose.participant).ok_or_else(ApiError::participant_not_found)?;
    match &participant.endpoint {
        Some(endpoint) if endpoint.state != EndpointState::Closed => Ok(Target {
            session_id: whose.session,
            participant_id: whose.participant,
            endpoint_id: endpoint.id,
            pipeline_id: endpoint.pipeline_id,
            worker_id: endpoint.worker_id,
            epoch: session.epoch,
        }),
        _ => Err(ApiError::endpoint_gone()),
    }
}
