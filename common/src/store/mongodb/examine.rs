//! A look at a MongoDB server from outside, for `switchyard doctor`: what it is, what its clock says, and what we may do
//! there. Leaves nothing behind.

use std::time::{Duration, Instant};

use ::mongodb::bson::{Document, doc};
use ::mongodb::options::ReadConcern;
use ::mongodb::{Client, Collection, Database};
use uuid::Uuid;

use super::{MongoStore, OPERATION_LIMIT, failure};
use crate::store::{StoreError, StoreErrorKind, StoreResult};
use crate::time::UnixMillis;

/// Where it is tried whether we may write. Nothing of ours is in there.
const SCRATCH: &str = "doctor";

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// As the server says it, such as `8.0.13`.
    pub version: String,
    /// `None`: it belongs to none, and has no change streams.
    pub replica_set: Option<String>,
    /// Members that the server knows of.
    pub members: usize,
    pub round_trip: Duration,
    /// How far the server's clock is ahead of this machine's, in milliseconds; exact to half a round trip.
    pub clock_ahead_ms: Option<i64>,
    pub may_write: StoreResult<()>,
    pub may_watch: StoreResult<()>,
}

/// Connects and looks.
///
/// # Errors
/// Those of [`MongoStore::connect`]. No message repeats the URL's credentials.
pub async fn examine(url: &str) -> StoreResult<Facts> {
    look(url).await.map_err(|failed| failure::without_credentials(url, failed))
}

async fn look(url: &str) -> StoreResult<Facts> {
    let (options, name) = MongoStore::options(url).await?;
    let client = Client::with_options(options).map_err(|error| failure::store_error("connect", &error))?;
    let database = client.database(&name);
    // The first call finds the server and signs in; it times nothing.
    command(&client.database("admin"), doc! { "ping": 1 }).await?;
    let (asked, sent) = (UnixMillis::now(), Instant::now());
    let hello = command(&client.database("admin"), doc! { "hello": 1 }).await?;
    let round_trip = sent.elapsed();
    let half_ms = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
    let local_time = hello.get_datetime("localTime").ok().map(|time| time.timestamp_millis());
    let build = command(&client.database("admin"), doc! { "buildInfo": 1 }).await;
    let facts = Facts {
        version: build
            .ok()
            .and_then(|build| build.get_str("version").ok().map(str::to_owned))
            .unwrap_or_default(),
        replica_set: hello.get_str("setName").ok().map(str::to_owned),
        members: hello.get_array("hosts").map_or(0, Vec::len),
        round_trip,
        clock_ahead_ms: local_time.map(|time| time - asked.0 - half_ms),
        may_write: within("write", write(&database)).await,
        may_watch: within("watch", watch(&database)).await,
    };
    client.shutdown().await;
    Ok(facts)
}

async fn command(database: &Database, command: Document) -> StoreResult<Document> {
    within("ask the server", async {
        database.run_command(command).await.map_err(|error| failure::store_error("ask the server", &error))
    })
    .await
}

async fn within<T>(what: &'static str, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    tokio::time::timeout(OPERATION_LIMIT, call).await.unwrap_or_else(|_| {
        Err(StoreError::new(StoreErrorKind::Unavailable, format!("{what}: no answer in time")))
    })
}

/// As the store does it: inserts, updates a part under a guard, deletes.
async fn write(database: &Database) -> StoreResult<()> {
    let scratch: Collection<Document> = database.collection(SCRATCH);
    let id = format!("doctor-{}", Uuid::now_v7());
    let done: Result<bool, ::mongodb::error::Error> = async {
        scratch.insert_one(doc! { "_id": &id, "state": 1 }).await?;
        let guard = doc! { "_id": &id, "state": 1 };
        let changed = scratch.update_one(guard, doc! { "$set": { "state": 2 } }).await?;
        scratch.delete_one(doc! { "_id": &id }).await?;
        Ok(changed.modified_count == 1)
    }
    .await;
    // Where we may not, an empty collection stays.
    let _ = scratch.drop().await;
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::new(StoreErrorKind::Internal, "write: what was written was not there")),
        Err(error) => Err(failure::store_error("write", &error)),
    }
}

async fn watch(database: &Database) -> StoreResult<()> {
    let sessions: Collection<Document> = database.collection("sessions");
    // Change streams accept no other; it is not the collection's.
    let majority = ReadConcern::majority();
    sessions
        .watch()
        .read_concern(majority)
        .await
        .map(drop)
        .map_err(|error| failure::watch_error(&error, false))
}
