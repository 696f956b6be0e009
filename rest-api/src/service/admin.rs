//! For operators: their short-lived token, and every key's sessions with where they live.

use std::time::Duration;

use common::model::{
    EndpointId, EndpointState, Participant, ParticipantId, ParticipantState, PipelineId, PipelineState,
    Session, SessionId, SessionState, Track, WorkerId,
};
use common::store::SessionFilter;
use common::time::UnixMillis;
use common::token::{Claims, VideoGrants};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check_name;
use super::links::mint;
use super::settings::Settings;
use crate::auth::{Caller, MAX_OPERATOR_TTL};
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;

/// How long an operator's token works when nobody says.
pub const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);

/// Sessions in one page at most.
pub const MAX_PAGE: u32 = 200;

/// How long the token shall work.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOperatorToken {
    /// 60 seconds to 12 hours; an hour when absent.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 43_200)]
    pub ttl_seconds: Option<u64>,
}

/// A token that looks after the whole deployment, and the address of the admin page with it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorToken {
    pub admin_link: String,
    pub token: String,
    pub expires_at: UnixMillis,
}

/// A session in a list: no one in it by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionSummary {
    pub id: SessionId,
    pub name: Option<String>,
    pub state: SessionState,
    /// The API key that created it.
    pub key_id: String,
    pub created_at: UnixMillis,
    pub closed_at: Option<UnixMillis>,
    /// Counts its placements.
    pub epoch: i64,
    /// Where it lives; `null` while nobody is in it.
    pub worker_id: Option<WorkerId>,
    /// Whether some of it is still on a worker before that one.
    pub is_moving: bool,
    pub participants: u32,
    /// Of these, with a connection that carries media.
    pub connected: u32,
    pub tracks: u32,
}

/// One page of sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryPage {
    pub sessions: Vec<SessionSummary>,
    /// Where the next page starts; `null` on the last one.
    pub next: Option<SessionId>,
}

/// A session with where each part of it lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionDetail {
    #[serde(flatten)]
    pub summary: SessionSummary,
    pub settings: Settings,
    /// The current one first; those behind it drain.
    pub pipelines: Vec<PipelineView>,
    /// Everyone in it.
    pub members: Vec<MemberView>,
}

/// What one worker hosts of a session.
#[derive(Debug, Serialize, ToSchema)]
pub struct PipelineView {
    pub id: PipelineId,
    pub worker_id: WorkerId,
    pub state: PipelineState,
}

/// Somebody in a session, with the connection.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberView {
    pub id: ParticipantId,
    pub name: String,
    pub state: ParticipantState,
    pub joined_at: UnixMillis,
    /// `null` when it has none.
    pub endpoint: Option<MemberEndpoint>,
    pub tracks: Vec<Track>,
}

/// One WebRTC connection.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberEndpoint {
    pub id: EndpointId,
    pub worker_id: WorkerId,
    pub state: EndpointState,
}

impl From<&Session> for SessionSummary {
    fn from(session: &Session) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let connected = |one: &&Participant| one.state == ParticipantState::Connected;
        Self {
            id: session.id,
            name: session.name.clone(),
            state: session.state,
            key_id: session.key_id.clone(),
            created_at: session.created_at,
            closed_at: session.closed_at,
            epoch: session.epoch,
            worker_id: session.pipeline().map(|pipeline| pipeline.worker_id),
            is_moving: session.pipelines.len() > 1,
            participants: count(session.participants.len()),
            connected: count(session.participants.iter().filter(connected).count()),
            tracks: count(session.participants.iter().map(|one| one.tracks.len()).sum()),
        }
    }
}

impl From<Session> for SessionDetail {
    fn from(session: Session) -> Self {
        let pipeline = |found: &common::model::Pipeline| PipelineView {
            id: found.id,
            worker_id: found.worker_id,
            state: found.state,
        };
        Self {
            summary: (&session).into(),
            pipelines: session.pipelines.iter().map(pipeline).collect(),
            settings: session.settings.into(),
            members: session.participants.into_iter().map(MemberView::from).collect(),
        }
    }
}

impl From<Participant> for MemberView {
    fn from(participant: Participant) -> Self {
        let endpoint = participant.endpoint.map(|endpoint| MemberEndpoint {
            id: endpoint.id,
            worker_id: endpoint.worker_id,
            state: endpoint.state,
        });
        Self {
            id: participant.id,
            name: participant.name,
            state: participant.state,
            joined_at: participant.joined_at,
            endpoint,
            tracks: participant.tracks,
        }
    }
}

/// Signs a token for the admin page. Only for an operator's API key: a token makes no other one that outlives it.
pub fn token(
    state: &ApiState,
    caller: &Caller,
    public_url: &str,
    wanted: &CreateOperatorToken,
) -> ApiResult<OperatorToken> {
    caller.backend()?;
    caller.operator(&state.config.operator_keys)?;
    let ttl = wanted.ttl_seconds.map_or(DEFAULT_TTL, Duration::from_secs);
    if !(Duration::from_secs(60)..=MAX_OPERATOR_TTL).contains(&ttl) {
        return Err(ApiError::invalid("ttl_seconds is from 60 to 43200 (12 hours)"));
    }
    let grants = VideoGrants { operator: true, ..VideoGrants::default() };
    let claims = Claims::expiring_in(caller.key_id(), ttl, grants);
    let token = mint(state, &claims)?;
    let admin_link = format!("{public_url}/admin/#token={token}");
    Ok(OperatorToken { admin_link, token, expires_at: claims.expires_at() })
}

/// Which sessions to list.
#[derive(Debug, Default)]
pub struct Wanted {
    /// A text in the id or name, of the session or of somebody in it.
    pub search: Option<String>,
    pub worker_id: Option<WorkerId>,
    /// Closed ones too, as long as their record is kept.
    pub closed_too: bool,
    pub after: Option<SessionId>,
    pub limit: u32,
}

/// One page of the sessions of all keys, by id, which is by age.
pub async fn sessions(state: &ApiState, caller: &Caller, wanted: Wanted) -> ApiResult<SummaryPage> {
    caller.operator(&state.config.operator_keys)?;
    let search = wanted.search.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some(text) = &search {
        check_name(text)?;
    }
    let limit = wanted.limit.clamp(1, MAX_PAGE);
    let filter = SessionFilter {
        key_id: None,
        open_only: !wanted.closed_too,
        worker_id: wanted.worker_id,
        search,
        after: wanted.after,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let mut found = state.store.sessions(&filter).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = if more { found.last().map(|session| session.id) } else { None };
    Ok(SummaryPage { sessions: found.iter().map(SessionSummary::from).collect(), next })
}

/// One session, whoever's it is, also when it is closed.
pub async fn session(state: &ApiState, caller: &Caller, id: SessionId) -> ApiResult<SessionDetail> {
    caller.operator(&state.config.operator_keys)?;
    match state.store.session(id).await? {
        Some(session) => Ok(session.into()),
        None => Err(ApiError::session_not_found()),
    }
}
