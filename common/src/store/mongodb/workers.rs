//! The `workers` collection: one row per living media process.
//!
//! Rows have no `version`: to a worker that left a later one out, that worker would be dead. They only ever gain fields.

use ::mongodb::Collection;
use ::mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;

use super::sessions::text;
use super::{OPERATION_LIMIT, decode, decode_readable, encode, failure, within};
use crate::model::{RunId, Worker, WorkerId};
use crate::store::StoreResult;

/// Tries of an upsert that raced with another of the same id; the second finds the row.
const UPSERT_TRIES: usize = 3;

type Rows = Collection<RawDocumentBuf>;

pub(super) async fn put(rows: &Rows, worker: &Worker) -> StoreResult<()> {
    let mut row = encode(worker)?;
    row.remove("_id");
    within(OPERATION_LIMIT, "put worker", async {
        let mut tries = 1;
        loop {
            let put = rows.update_one(by_id(worker.id), doc! { "$set": row.clone() }).upsert(true).await;
            match put {
                Err(error) if failure::is_duplicate_key(&error) && tries < UPSERT_TRIES => tries += 1,
                other => return other.map(drop),
            }
        }
    })
    .await
}

pub(super) async fn renew(rows: &Rows, worker: &Worker) -> StoreResult<bool> {
    let away_since = worker.broker_away_since.map_or(Bson::Null, |since| Bson::Int64(since.0));
    let mut fields = doc! {
        "lease_until": worker.lease_until.0, "state": text(&worker.state)?, "broker_away_since": away_since,
    };
    for (name, value) in encode(&worker.load)? {
        fields.insert(format!("load.{name}"), value);
    }
    let renewed = within(OPERATION_LIMIT, "renew worker", async {
        rows.update_one(of_run(worker.id, worker.run), doc! { "$set": fields }).await
    });
    Ok(renewed.await?.matched_count == 1)
}

pub(super) async fn find(rows: &Rows, id: WorkerId) -> StoreResult<Option<Worker>> {
    let found = within(OPERATION_LIMIT, "find worker", async { rows.find_one(by_id(id)).await }).await?;
    found.as_deref().map(decode).transpose()
}

pub(super) async fn list(rows: &Rows) -> StoreResult<Vec<Worker>> {
    let listed = within(OPERATION_LIMIT, "list workers", async {
        rows.find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect::<Vec<_>>().await
    });
    Ok(decode_readable("workers", listed.await?))
}

pub(super) async fn remove(rows: &Rows, id: WorkerId, run: RunId) -> StoreResult<()> {
    let row = of_run(id, run);
    within(OPERATION_LIMIT, "remove worker", async { rows.delete_one(row).await }).await.map(drop)
}

pub(super) async fn bury(rows: &Rows, seen: &Worker) -> StoreResult<bool> {
    let mut row = of_run(seen.id, seen.run);
    row.insert("lease_until", seen.lease_until.0);
    let buried = within(OPERATION_LIMIT, "bury worker", async { rows.delete_one(row).await });
    Ok(buried.await?.deleted_count == 1)
}

fn of_run(id: WorkerId, run: RunId) -> Document {
    doc! { "_id": id.to_string(), "run": run.to_string() }
}

fn by_id(id: WorkerId) -> Document {
    doc! { "_id": id.to_string() }
}
