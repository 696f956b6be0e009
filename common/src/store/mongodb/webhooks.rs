//! What is owed to the receivers of webhooks: kept in the timeline's entries themselves (`events`), so that an entry and what
//! it owes are written at once. And leases, by which one process at a time does what only one should (`leases`).

use ::mongodb::Collection;
use ::mongodb::bson::{Document, RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::{OPERATION_LIMIT, decode_readable, failure, within};
use crate::model::{EventId, InstanceId, SessionId, TimelineEntry};
use crate::store::{StoreError, StoreErrorKind, StoreResult};
use crate::time::UnixMillis;

type Events = Collection<RawDocumentBuf>;

pub(super) async fn sessions_owed(
    events: &Events,
    to: &str,
    after: Option<SessionId>,
    limit: usize,
) -> StoreResult<Vec<SessionId>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut query = doc! { "webhooks.to": to };
    if let Some(after) = after {
        query.insert("session_id", doc! { "$gt": after.to_string() });
    }
    let steps = [
        doc! { "$match": query },
        doc! { "$group": { "_id": "$session_id" } },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$limit": i64::try_from(limit).unwrap_or(i64::MAX) },
    ];
    let found = within(OPERATION_LIMIT, "sessions owed webhooks", async {
        events.aggregate(steps).await?.try_collect::<Vec<Document>>().await
    });
    let ids = found.await?;
    let unreadable = || StoreError::new(StoreErrorKind::Internal, "a timeline entry names no session");
    ids.iter()
        .map(|found| found.get_str("_id").ok().and_then(|id| id.parse().ok()).ok_or_else(unreadable))
        .collect()
}

pub(super) async fn owed(
    events: &Events,
    to: &str,
    session: SessionId,
    limit: usize,
) -> StoreResult<Vec<TimelineEntry>> {
    let query = doc! { "webhooks.to": to, "session_id": session.to_string() };
    list(events, query, doc! { "number": 1 }, limit, "webhooks owed").await
}

pub(super) async fn settle(events: &Events, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool> {
    let mut update = doc! { "$pull": { "webhooks.to": to } };
    if given_up {
        update.insert("$addToSet", doc! { "webhooks.given_up": to });
    }
    let query = doc! { "_id": entry.to_string(), "webhooks.to": to };
    let updated = within(OPERATION_LIMIT, "settle webhook", async { events.update_one(query, update).await });
    Ok(updated.await?.matched_count > 0)
}

pub(super) async fn given_up(
    events: &Events,
    to: &[String],
    after: Option<EventId>,
    limit: usize,
) -> StoreResult<Vec<TimelineEntry>> {
    let mut query = doc! { "webhooks.given_up": { "$in": to } };
    if let Some(after) = after {
        query.insert("_id", doc! { "$gt": after.to_string() });
    }
    list(events, query, doc! { "_id": 1 }, limit, "webhooks given up").await
}

pub(super) async fn owe_again(
    events: &Events,
    to: &str,
    entry: EventId,
    since: UnixMillis,
) -> StoreResult<bool> {
    let query = doc! { "_id": entry.to_string(), "webhooks.given_up": to };
    let update = doc! {
        "$pull": { "webhooks.given_up": to },
        "$addToSet": { "webhooks.to": to },
        "$set": { "webhooks.since": since.0 },
    };
    let updated =
        within(OPERATION_LIMIT, "owe webhook again", async { events.update_one(query, update).await });
    Ok(updated.await?.matched_count > 0)
}

async fn list(
    events: &Events,
    query: Document,
    order: Document,
    limit: usize,
    operation: &'static str,
) -> StoreResult<Vec<TimelineEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if limit == 0 {
        // To the server it would mean all of them.
        return Ok(Vec::new());
    }
    let found = within(OPERATION_LIMIT, operation, async {
        events.find(query).sort(order).limit(limit).await?.try_collect::<Vec<_>>().await
    });
    Ok(decode_readable("events", found.await?))
}

pub(super) async fn take_lease(
    leases: &Collection<RawDocumentBuf>,
    name: &str,
    holder: InstanceId,
    now: UnixMillis,
    until: UnixMillis,
) -> StoreResult<bool> {
    let holder = holder.to_string();
    let free = [doc! { "holder": holder.as_str() }, doc! { "until": { "$lt": now.0 } }];
    let query = doc! { "_id": name, "$or": free.to_vec() };
    let update = doc! { "$set": { "holder": holder.as_str(), "until": until.0 } };
    let taken = within(OPERATION_LIMIT, "take lease", async {
        match leases.update_one(query, update).upsert(true).await {
            // It is there, and somebody else's.
            Err(error) if failure::is_duplicate_key(&error) => Ok(false),
            other => other.map(|_| true),
        }
    });
    taken.await
}
