//! The `events` collection: each session's timeline.
//!
//! `at` is what the caller says (milliseconds, for order); `stored_at` is a BSON date for the TTL index.

use ::mongodb::Collection;
use ::mongodb::bson::{DateTime, RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::{OPERATION_LIMIT, decode_readable, encode, failure, unstorable, within};
use crate::model::{EventId, SessionId, TimelineEntry};
use crate::store::StoreResult;

pub(super) async fn append(events: &Collection<RawDocumentBuf>, entry: &TimelineEntry) -> StoreResult<()> {
    let mut document = encode(entry)?;
    document.insert("_id", EventId::new().to_string());
    document.insert("stored_at", DateTime::now());
    let document = RawDocumentBuf::try_from(&document).map_err(unstorable)?;
    within(OPERATION_LIMIT, "append to timeline", async {
        match events.insert_one(document).await {
            // The id is ours alone: an earlier try of the driver took effect before a crash hid it.
            Err(error) if failure::is_duplicate_key(&error) => Ok(()),
            other => other.map(drop),
        }
    })
    .await
}

/// The session's last `limit` entries.
pub(super) async fn of(
    events: &Collection<RawDocumentBuf>,
    session: SessionId,
    limit: usize,
) -> StoreResult<Vec<TimelineEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let newest = within(OPERATION_LIMIT, "read timeline", async {
        events
            .find(doc! { "session_id": session.to_string() })
            .sort(doc! { "at": -1, "_id": -1 })
            .limit(limit)
            .await?
            .try_collect::<Vec<_>>()
            .await
    });
    Ok(decode_readable("events", newest.await?.into_iter().rev()))
}
