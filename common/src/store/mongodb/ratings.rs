//! The `ratings` collection: one document for each participant of a session, changed in one guarded update.
//!
//! `stored_at` is a BSON date for the TTL index.

use ::mongodb::Collection;
use ::mongodb::bson::{DateTime, RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::{OPERATION_LIMIT, decode_readable, encode, failure, stamp, within};
use crate::model::{ParticipantId, Rating, SessionId};
use crate::store::StoreResult;

type Ratings = Collection<RawDocumentBuf>;

pub(super) async fn put(ratings: &Ratings, rating: &Rating) -> StoreResult<bool> {
    let mut fields = encode(rating)?;
    if rating.network.is_none() {
        // What is known of the network stays, whatever else is said.
        fields.remove("network");
    }
    fields.insert("stored_at", DateTime::now());
    stamp(&mut fields);
    let id = format!("{}/{}", rating.session_id, rating.participant_id);
    let guard = doc! { "_id": id, "at": { "$lte": rating.at.0 } };
    let update = doc! { "$set": fields };
    let inserted = within(OPERATION_LIMIT, "put rating", async {
        match ratings.update_one(guard.clone(), update.clone()).upsert(true).await {
            // A later one is there, or another one was inserted at the same time.
            Err(error) if failure::is_duplicate_key(&error) => Ok(None),
            other => other.map(Some),
        }
    });
    if inserted.await?.is_some() {
        return Ok(true);
    }
    let updated = within(OPERATION_LIMIT, "put rating", async { ratings.update_one(guard, update).await });
    Ok(updated.await?.matched_count > 0)
}

pub(super) async fn of(
    ratings: &Ratings,
    session: SessionId,
    after: Option<ParticipantId>,
    limit: usize,
) -> StoreResult<Vec<Rating>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if limit == 0 {
        // To the server it would mean all of them.
        return Ok(Vec::new());
    }
    let mut query = doc! { "session_id": session.to_string() };
    if let Some(after) = after {
        query.insert("participant_id", doc! { "$gt": after.to_string() });
    }
    let found = within(OPERATION_LIMIT, "list ratings", async {
        ratings
            .find(query)
            .sort(doc! { "participant_id": 1 })
            .limit(limit)
            .await?
            .try_collect::<Vec<_>>()
            .await
    });
    Ok(decode_readable("ratings", found.await?))
}
