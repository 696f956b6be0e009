//! How participants found their calls.

use common::message::{CommandBody, RateCall, ReplyBody};
use common::model::{NetworkSummary, ParticipantId, Rating, SessionId};
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoints::{Whose, find};
use super::sessions::unexpected;
use super::{Audience, CommandContext, Nothing, Outcome, Route, owned_session, run};
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult, Code};
use crate::state::ApiState;

/// Characters of a comment at most.
pub const MAX_COMMENT: usize = 1_000;
/// Ratings in one page at most.
pub const MAX_PAGE: u32 = 500;

/// A participant's rating of its call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateBody {
    /// Of the join reply: which connection is rated, and who knows what it was like.
    #[serde(default)]
    pub destination: Option<String>,
    #[schema(minimum = 1, maximum = 5)]
    pub stars: u8,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub comment: Option<String>,
}

/// One rating.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rating)]
pub struct RatingView {
    pub participant_id: ParticipantId,
    /// 1 to 5.
    pub stars: u8,
    pub comment: Option<String>,
    pub time: UnixMillis,
    /// What is known of the connection that was rated; `null` when the worker that had it could not be asked.
    pub network: Option<NetworkSummary>,
}

impl From<Rating> for RatingView {
    fn from(rating: Rating) -> Self {
        let Rating { participant_id, stars, comment, at, network, .. } = rating;
        Self { participant_id, stars, comment, time: at, network }
    }
}

/// One page of ratings.
#[derive(Debug, Serialize, ToSchema)]
pub struct RatingPage {
    pub ratings: Vec<RatingView>,
    /// The `after` of the next page; `null` when this one reaches the end.
    pub next: Option<ParticipantId>,
}

/// Keeps how a participant found its call, in place of what it said before. The session may be over: as long as its record
/// is there, it can be rated.
pub async fn rate(
    state: &ApiState,
    caller: &Caller,
    context: &CommandContext,
    whose: Whose,
    body: RateBody,
) -> ApiResult<Outcome<Nothing>> {
    caller.acts_for(whose.session, whose.participant)?;
    if !(1..=5).contains(&body.stars) {
        return Err(ApiError::invalid("stars: 1 to 5"));
    }
    let comment = body.comment.filter(|comment| !comment.trim().is_empty());
    if comment.as_ref().is_some_and(|comment| comment.chars().count() > MAX_COMMENT) {
        return Err(ApiError::new(Code::LimitExceeded, "a comment has at most 1000 characters"));
    }
    let session = owned_session(state, caller, whose.session).await?;
    let target = match body.destination.as_deref() {
        Some(destination) => Some(find(state, caller, whose, Some(destination)).await?),
        None => None,
    };
    let here = session.participant(whose.participant).and_then(|participant| participant.endpoint.as_ref());
    let endpoint = target.map(|target| (target.endpoint_id, target.worker_id));
    let endpoint = endpoint.or_else(|| here.map(|endpoint| (endpoint.id, endpoint.worker_id)));
    let rated = RateCall {
        session_id: whose.session,
        participant_id: whose.participant,
        endpoint_id: endpoint.map(|(id, _)| id),
        key_id: session.key_id,
        stars: body.stars,
        comment,
        at: UnixMillis::now(),
    };
    if let Some((_, worker)) = endpoint {
        let asked = send(state, context, Route::Worker(worker), rated.clone()).await;
        // Without the worker that knows more, what was said is kept all the same.
        if !asked.as_ref().is_err_and(|error| matches!(error.code, Code::EndpointGone | Code::Unavailable)) {
            return asked;
        }
    }
    send(state, context, Route::Workers, rated).await
}

async fn send(
    state: &ApiState,
    context: &CommandContext,
    route: Route,
    rated: RateCall,
) -> ApiResult<Outcome<Nothing>> {
    // Who rates has mostly left: there is no stream of events that a late result could go to.
    run(state, context, route, Audience::Nobody, CommandBody::Rate(rated), |reply| async move {
        match reply? {
            ReplyBody::Accepted => Ok(Nothing),
            other => Err(unexpected(&other)),
        }
    })
    .await
}

/// The ratings of participants after `after`. Only for the backend and operators; also when the session's record is gone.
pub async fn read(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    after: Option<ParticipantId>,
    limit: u32,
) -> ApiResult<RatingPage> {
    caller.inspects()?;
    let record = state.store.session(session).await?;
    if let Some(record) = &record {
        caller.owns(&record.key_id)?;
    }
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    // One more tells whether there is a next page.
    let mut ratings = state.store.ratings(session, after, limit + 1).await?;
    ratings.retain(|rating| caller.owns(&rating.key_id).is_ok());
    if record.is_none() && ratings.is_empty() && after.is_none() {
        return Err(ApiError::session_not_found());
    }
    let more = ratings.len() > limit;
    ratings.truncate(limit);
    let next = if more { ratings.last().map(|rating| rating.participant_id) } else { None };
    Ok(RatingPage { ratings: ratings.into_iter().map(RatingView::from).collect(), next })
}
