//! The `events` collection: each session's timeline.
//!
//! Numbers come from a unique index: who appends takes the number after the last one and tries again when somebody else
//! was first. So there are no gaps whoever dies where, and no document that all appends would contend for. `stored_at` is a
//! BSON date for the TTL index.

use std::time::Duration;

use ::mongodb::Collection;
use ::mongodb::bson::{DateTime, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::{OPERATION_LIMIT, decode_readable, encode, failure, stamp, unstorable, within};
use crate::ambient;
use crate::model::{SessionId, TimelineEntry};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Tries to append while others take the numbers.
const TRIES: u32 = 30;
/// Before a try after a lost one, times the number of tries, at most; by chance, so that rivals part.
const PAUSE: Duration = Duration::from_millis(3);

type Events = Collection<RawDocumentBuf>;

pub(super) async fn append(
    events: &Events,
    session: SessionId,
    entries: &[TimelineEntry],
) -> StoreResult<()> {
    let mut missing: Vec<&TimelineEntry> = entries.iter().collect();
    for tried in 0..TRIES {
        if missing.is_empty() {
            return Ok(());
        }
        if tried > 0 {
            tokio::time::sleep(PAUSE.mul_f64(f64::from(tried) * ambient::jitter())).await;
        }
        let last = last_number(events, session).await?;
        let documents =
            missing.iter().zip(last + 1..).map(|(entry, number)| document(session, entry, number));
        let documents = documents.collect::<StoreResult<Vec<_>>>()?;
        // In order: what comes before the first number that is taken is in, nothing behind it is.
        let is_in = within(OPERATION_LIMIT, "append to timeline", async {
            match events.insert_many(documents).ordered(true).await {
                Err(error) if failure::is_duplicate_key(&error) => Ok(false),
                other => other.map(|_| true),
            }
        });
        if is_in.await? {
            return Ok(());
        }
        let stored = stored_ids(events, &missing).await?;
        missing.retain(|entry| !stored.contains(&entry.id.to_string()));
    }
    Err(StoreError::new(
        StoreErrorKind::Unavailable,
        "append to timeline: its numbers are taken again and again",
    ))
}

fn document(session: SessionId, entry: &TimelineEntry, number: i64) -> StoreResult<RawDocumentBuf> {
    let mut document = encode(entry)?;
    document.insert("session_id", session.to_string());
    document.insert("number", number);
    document.insert("stored_at", DateTime::now());
    stamp(&mut document);
    RawDocumentBuf::try_from(&document).map_err(unstorable)
}

async fn last_number(events: &Events, session: SessionId) -> StoreResult<i64> {
    let last = within(OPERATION_LIMIT, "end of timeline", async {
        events
            .find_one(doc! { "session_id": session.to_string(), "number": { "$exists": true } })
            .sort(doc! { "number": -1 })
            .projection(doc! { "number": 1 })
            .await
    });
    Ok(last.await?.and_then(|last| last.get_i64("number").ok()).unwrap_or(0))
}

/// Those of the entries that are stored: by an earlier try whose outcome was not known, or by this one before it lost.
async fn stored_ids(events: &Events, entries: &[&TimelineEntry]) -> StoreResult<Vec<String>> {
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
    let stored = within(OPERATION_LIMIT, "look for timeline entries", async {
        events
            .clone_with_type::<Document>()
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "_id": 1 })
            .await?
            .try_collect::<Vec<_>>()
            .await
    });
    let stored = stored.await?;
    Ok(stored.iter().filter_map(|document| Some(document.get_str("_id").ok()?.to_owned())).collect())
}

pub(super) async fn of(
    events: &Events,
    session: SessionId,
    after: i64,
    limit: usize,
) -> StoreResult<Vec<TimelineEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if limit == 0 {
        // To the server it would mean all of them.
        return Ok(Vec::new());
    }
    let found = within(OPERATION_LIMIT, "read timeline", async {
        events
            .find(doc! { "session_id": session.to_string(), "number": { "$gt": after } })
            .sort(doc! { "number": 1 })
            .limit(limit)
            .await?
            .try_collect::<Vec<_>>()
            .await
    });
    Ok(decode_readable("events", found.await?))
}
