//! What happened in a session, for its owner.

use common::model::{Cause, ParticipantId, SessionId, TimelineEntry, TrackNote};
use common::time::UnixMillis;
use serde::Serialize;
use utoipa::ToSchema;

use super::owned_session;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::state::ApiState;

/// Entries in one page at most.
pub const MAX_PAGE: u32 = 500;

/// One line of a timeline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelineEntry)]
pub struct EntryView {
    /// 1, 2, 3 and so on, without gaps.
    pub number: i64,
    pub time: UnixMillis,
    /// What happened, such as `participant.joined`.
    #[schema(example = "participant.joined")]
    pub what: String,
    pub cause: Cause,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<ParticipantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackNote>,
}

impl From<TimelineEntry> for EntryView {
    fn from(entry: TimelineEntry) -> Self {
        let TimelineEntry { number, at, what, cause, participant_id, track, .. } = entry;
        Self { number, time: at, what, cause, participant_id, track }
    }
}

/// One page of a timeline.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelinePage {
    pub entries: Vec<EntryView>,
    /// The `after` of the next page; `null` when this one reaches the end.
    pub next: Option<i64>,
}

/// The entries behind number `after`. Only for the backend and operators: entries name the commands of everyone.
pub async fn read(
    state: &ApiState,
    caller: &Caller,
    session: SessionId,
    after: i64,
    limit: u32,
) -> ApiResult<TimelinePage> {
    caller.inspects()?;
    owned_session(state, caller, session).await?;
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    // One more tells whether there is a next page.
    let mut entries = state.store.timeline(session, after, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = if more { entries.last().map(|entry| entry.number) } else { None };
    Ok(TimelinePage { entries: entries.into_iter().map(EntryView::from).collect(), next })
}
