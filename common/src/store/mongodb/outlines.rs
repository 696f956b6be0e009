//! Many sessions of the `sessions` collection at once: the server chooses which, and sends only as much of each as is asked
//! for.

use ::mongodb::Collection;
use ::mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use serde::Deserialize;

use super::sessions::{closed_before, text};
use super::{OPERATION_LIMIT, decode_readable, within};
use crate::model::{EndpointState, SessionId, SessionState};
use crate::store::{Outlined, SessionOutline, StoreResult};
use crate::time::UnixMillis;

type Sessions = Collection<RawDocumentBuf>;

pub(super) async fn list(
    sessions: &Sessions,
    which: Outlined<'_>,
    after: Option<SessionId>,
    limit: u32,
) -> StoreResult<Vec<SessionOutline>> {
    let mut query = open_after(after)?;
    match which {
        Outlined::On(worker) => {
            query.insert("pipelines.worker_id", worker.to_string());
        }
        Outlined::Unattended { living } => {
            let living: Vec<String> = living.iter().map(ToString::to_string).collect();
            let unattended = vec![
                doc! { "participants": { "$size": 0 } },
                doc! { "participants": { "$elemMatch": { "endpoint": Bson::Null } } },
                doc! { "participants.endpoint.state": text(&EndpointState::Closed)? },
                doc! { "pipelines": { "$elemMatch": { "worker_id": { "$nin": living } } } },
            ];
            query.insert("$or", unattended);
        }
    }
    let parts =
        doc! { "version": 1, "epoch": 1, "pipelines": 1, "participants._id": 1, "participants.endpoint": 1 };
    Ok(decode_readable("sessions", find(sessions, "outline sessions", query, parts, limit).await?))
}

pub(super) async fn open_ids(
    sessions: &Sessions,
    after: Option<SessionId>,
    limit: u32,
) -> StoreResult<Vec<SessionId>> {
    ids(sessions, "list open sessions", open_after(after)?, limit).await
}

pub(super) async fn closed_ids(
    sessions: &Sessions,
    before: UnixMillis,
    after: Option<SessionId>,
    limit: u32,
) -> StoreResult<Vec<SessionId>> {
    ids(sessions, "list closed sessions", behind(closed_before(before)?, after), limit).await
}

async fn ids(
    sessions: &Sessions,
    operation: &'static str,
    query: Document,
    limit: u32,
) -> StoreResult<Vec<SessionId>> {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(rename = "_id")]
        id: SessionId,
    }
    let found = find(sessions, operation, query, doc! { "_id": 1, "version": 1 }, limit).await?;
    Ok(decode_readable::<OnlyId>("sessions", found).into_iter().map(|found| found.id).collect())
}

fn open_after(after: Option<SessionId>) -> StoreResult<Document> {
    Ok(behind(doc! { "state": text(&SessionState::Open)? }, after))
}

fn behind(mut query: Document, after: Option<SessionId>) -> Document {
    if let Some(after) = after {
        query.insert("_id", doc! { "$gt": after.to_string() });
    }
    query
}

async fn find(
    sessions: &Sessions,
    operation: &'static str,
    query: Document,
    parts: Document,
    limit: u32,
) -> StoreResult<Vec<RawDocumentBuf>> {
    // To the server, 0 is no limit.
    if limit == 0 {
        return Ok(Vec::new());
    }
    let found = sessions.find(query).projection(parts).sort(doc! { "_id": 1 }).limit(i64::from(limit));
    within(OPERATION_LIMIT, operation, async { found.await?.try_collect::<Vec<_>>().await }).await
}
