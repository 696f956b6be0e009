//! For operators: the webhooks that were given up.

use common::model::{EventId, TimelineEntry};
use common::time::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::state::ApiState;
use crate::webhooks::Receiver;
use crate::webhooks::body::WebhookEvent;

/// Dead letters in one page, and that one request may name.
pub const MAX_PAGE: u32 = 500;
/// What one request may send again when it names none.
const MAX_AT_ONCE: usize = 10_000;

/// A webhook that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// As its receivers would have got it.
    pub event: WebhookEvent,
    /// Those that did not get it; without path and query, which may hold secrets.
    #[schema(example = json!(["https://example.org"]))]
    pub receivers: Vec<String>,
}

/// One page of dead letters, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterPage {
    pub dead_letters: Vec<DeadLetter>,
    /// The `after` of the next page; `null` when this one reaches the end.
    pub next: Option<EventId>,
}

/// What to send again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redeliver {
    /// The ids of their events; all when absent.
    #[serde(default)]
    #[schema(max_items = 500)]
    pub ids: Option<Vec<EventId>>,
}

/// What is sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Redelivered {
    /// One for each event and receiver.
    pub redelivered: usize,
}

/// The webhooks that were given up for one of the receivers that are configured now.
pub async fn list(
    state: &ApiState,
    caller: &Caller,
    after: Option<EventId>,
    limit: u32,
) -> ApiResult<DeadLetterPage> {
    caller.operator(&state.config.operator_keys)?;
    let receivers = receivers(state);
    let limit = limit.clamp(1, MAX_PAGE) as usize;
    // One more tells whether there is a next page.
    let mut entries = state.store.given_up(&ids(receivers), after, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = if more { entries.last().map(|entry| entry.id) } else { None };
    let letter = |entry: &TimelineEntry| DeadLetter {
        event: WebhookEvent::from(entry),
        receivers: given_up_by(entry, receivers).map(Receiver::place).collect(),
    };
    Ok(DeadLetterPage { dead_letters: entries.iter().map(letter).collect(), next })
}

/// Owes what was given up again, with all the time that a new one has.
pub async fn redeliver(state: &ApiState, caller: &Caller, wanted: Redeliver) -> ApiResult<Redelivered> {
    caller.operator(&state.config.operator_keys)?;
    let receivers = receivers(state);
    let mut redelivered = 0;
    if let Some(named) = wanted.ids {
        if named.len() > MAX_PAGE as usize {
            return Err(ApiError::invalid("ids are at most 500"));
        }
        for id in named {
            for receiver in receivers {
                let again = state.store.owe_again(&receiver.id, id, UnixMillis::now()).await?;
                redelivered += usize::from(again);
            }
        }
        return Ok(Redelivered { redelivered });
    }
    let mut after = None;
    while redelivered < MAX_AT_ONCE {
        let page = state.store.given_up(&ids(receivers), after, MAX_PAGE as usize).await?;
        for entry in &page {
            for receiver in given_up_by(entry, receivers) {
                let again = state.store.owe_again(&receiver.id, entry.id, UnixMillis::now()).await?;
                redelivered += usize::from(again);
            }
        }
        match page.last() {
            Some(last) if page.len() == MAX_PAGE as usize => after = Some(last.id),
            _ => break,
        }
    }
    Ok(Redelivered { redelivered })
}

fn receivers(state: &ApiState) -> &[Receiver] {
    state.config.webhooks.as_ref().map_or(&[], |webhooks| &webhooks.receivers)
}

fn ids(receivers: &[Receiver]) -> Vec<String> {
    receivers.iter().map(|receiver| receiver.id.clone()).collect()
}

fn given_up_by<'a>(
    entry: &'a TimelineEntry,
    receivers: &'a [Receiver],
) -> impl Iterator<Item = &'a Receiver> + 'a {
    receivers.iter().filter(|receiver| entry.webhooks.given_up.contains(&receiver.id))
}
