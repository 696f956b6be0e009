//! The store in MongoDB: a replica set (change streams and majority writes need one).
//!
//! | collection | holds | indexes beside `_id` |
//! |---|---|---|
//! | `sessions` | [`Session`] documents | `key_id, _id` (listing) · `state, closed_at` (open ones; deleting closed ones) · `pipelines.worker_id` |
//! | `workers` | [`Worker`] rows | |
//! | `events` | timeline entries | `session_id, number` (unique) · `webhooks.to, session_id, number` and `webhooks.given_up` (where there are any) · `stored_at` (TTL) |
//! | `leases` | who does what only one should | |
//! | `ratings` | [`Rating`]s | `session_id, participant_id` · `stored_at` (TTL) |
//!
//! | part | does |
//! |---|---|
//! | `sessions` | every guarded change as one `findOneAndUpdate` |
//! | `outlines` | many sessions at once, only as much of each as is needed |
//! | `workers`, `timeline`, `ratings` | those collections |
//! | `webhooks` | what entries of the timeline owe, and leases |
//! | `watch` | the change stream |
//! | `examine` | a look from outside, for `switchyard doctor` |
//! | `failure` | the driver's errors in our words, without credentials |
//!
//! Whatever the URL says, writes wait for the majority and reads go to the primary: a read that follows an acknowledged
//! write sees it. Documents may carry fields that this version does not know; every update leaves them alone. One whose
//! `version` is later than this process's is neither read nor changed: it is left out of lists, and an error where it is meant.
//!
//! Every call ends within [`OPERATION_LIMIT`]; with no server in reach it ends within [`SELECTION_LIMIT`].

use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use ::mongodb::options::{
    Acknowledgment, ClientOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use ::mongodb::{Client, Collection, Database, IndexModel};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::watch as watch_channel;
use tokio::task::AbortHandle;

use super::{
    Guarded, Inserted, Outlined, RATINGS_KEPT, RemoveIf, ResumeToken, SessionFilter, SessionOutline,
    SessionWatch, Store, StoreError, StoreErrorKind, StoreResult, TIMELINE_KEPT, TIMELINE_LIMIT,
};
use crate::model::{
    CommandId, EndpointId, EndpointState, EventId, InstanceId, Participant, ParticipantId, Pipeline,
    PipelineId, Rating, RunId, Session, SessionId, SessionSettings, TimelineEntry, Track, TrackId, Worker,
    WorkerId,
};
use crate::time::UnixMillis;

pub mod examine;
mod failure;
mod outlines;
mod ratings;
mod sessions;
mod timeline;
mod watch;
mod webhooks;
mod workers;

#[cfg(test)]
mod tests;

/// The database when the URL names none.
pub const DEFAULT_DATABASE: &str = "switchyard";

/// How long a call waits for a server to be there, unless the URL says `serverSelectionTimeoutMS`.
pub const SELECTION_LIMIT: Duration = Duration::from_millis(2_500);

/// How long connecting to one server may take, unless the URL says `connectTimeoutMS`. The driver's health checks have this
/// patience too, and interrupt what runs when it ends: shorter, and a server that is only busy looks dead.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The most a call takes: a server that is there but does not answer is `Unavailable` too.
pub const OPERATION_LIMIT: Duration = Duration::from_secs(10);

/// How long a write waits for the majority. Past it the call fails, and the write may or may not survive.
const MAJORITY_LIMIT: Duration = Duration::from_secs(8);

/// Pause between the pings behind [`Store::connected`], and the patience of each.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The MongoDB store. Clones share one connection pool.
#[derive(Clone)]
pub struct MongoStore {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    sessions: Collection<RawDocumentBuf>,
    workers: Collection<RawDocumentBuf>,
    timeline: Collection<RawDocumentBuf>,
    ratings: Collection<RawDocumentBuf>,
    leases: Collection<RawDocumentBuf>,
    connected: watch_channel::Receiver<bool>,
    pinger: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pinger.abort();
    }
}

impl MongoStore {
    /// Connects, makes the indexes, and starts the pings behind [`Store::connected`].
    ///
    /// # Errors
    /// `Internal` when the URL is not one or the credentials are refused, `Unavailable` when no server answers within
    /// [`SELECTION_LIMIT`]. No message repeats the URL's credentials.
    pub async fn connect(url: &str) -> StoreResult<Self> {
        Self::open(url).await.map_err(|failed| failure::without_credentials(url, failed))
    }

    /// How we talk to the server of a URL, and about which database.
    async fn options(url: &str) -> StoreResult<(ClientOptions, String)> {
        let failed = |error| failure::store_error("connect", &error);
        let mut options = ClientOptions::parse(url).await.map_err(failed)?;
        options.app_name.get_or_insert_with(|| "switchyard".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION_LIMIT);
        options.connect_timeout.get_or_insert(CONNECT_LIMIT);
        options.retry_writes = Some(true);
        options.retry_reads = Some(true);
        options.write_concern =
            Some(WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(MAJORITY_LIMIT).build());
        options.read_concern = Some(ReadConcern::local());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let name = options.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        Ok((options, name))
    }

    async fn open(url: &str) -> StoreResult<Self> {
        let (options, name) = Self::options(url).await?;
        let failed = |error| failure::store_error("connect", &error);
        let client = Client::with_options(options).map_err(failed)?;

        let database = client.database(&name);
        ping(&database, OPERATION_LIMIT).await?;
        make_indexes(&database).await?;
        let (sender, connected) = watch_channel::channel(true);
        let pinger = tokio::spawn(keep_pinging(database.clone(), sender)).abort_handle();
        let shared = Shared {
            sessions: database.collection("sessions"),
            workers: database.collection("workers"),
            timeline: database.collection("events"),
            ratings: database.collection("ratings"),
            leases: database.collection("leases"),
            database,
            connected,
            pinger,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

async fn ping(database: &Database, limit: Duration) -> StoreResult<()> {
    within(limit, "ping", async { database.run_command(doc! { "ping": 1 }).await }).await.map(drop)
}

/// Tells `connected` what each ping found, until it is aborted.
async fn keep_pinging(database: Database, connected: watch_channel::Sender<bool>) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        let result = ping(&database, PING_INTERVAL).await;
        let reachable = result.is_ok();
        let changed =
            connected.send_if_modified(|current| std::mem::replace(current, reachable) != reachable);
        match result {
            Ok(()) if changed => tracing::info!("store reachable again"),
            Err(error) if changed => tracing::warn!(%error, "store not reachable"),
            _ => {}
        }
    }
}

async fn make_indexes(database: &Database) -> StoreResult<()> {
    let index = |keys: Document| IndexModel::builder().keys(keys).build();
    let expiring = |after: Duration| {
        IndexModel::builder()
            .keys(doc! { "stored_at": 1 })
            .options(IndexOptions::builder().expire_after(after).build())
            .build()
    };
    let sessions = vec![
        index(doc! { "key_id": 1, "_id": 1 }),
        index(doc! { "state": 1, "closed_at": 1 }),
        index(doc! { "pipelines.worker_id": 1 }),
    ];
    let numbered = IndexModel::builder()
        .keys(doc! { "session_id": 1, "number": 1 })
        .options(
            IndexOptions::builder()
                .unique(true)
                // Entries of earlier versions have none.
                .partial_filter_expression(doc! { "number": { "$exists": true } })
                .build(),
        )
        .build();
    let where_there_are = |field: &str, keys: Document| {
        let filter = doc! { field: { "$exists": true } };
        IndexModel::builder()
            .keys(keys)
            .options(IndexOptions::builder().partial_filter_expression(filter).build())
            .build()
    };
    let owed = where_there_are("webhooks.to", doc! { "webhooks.to": 1, "session_id": 1, "number": 1 });
    let given_up = where_there_are("webhooks.given_up", doc! { "webhooks.given_up": 1, "_id": 1 });
    let events = vec![numbered, owed, given_up, expiring(TIMELINE_KEPT)];
    let ratings = vec![index(doc! { "session_id": 1, "participant_id": 1 }), expiring(RATINGS_KEPT)];
    for (name, indexes) in [("sessions", sessions), ("events", events), ("ratings", ratings)] {
        let collection = database.collection::<Document>(name);
        let made = within(OPERATION_LIMIT, "create indexes", async {
            match collection.create_indexes(indexes).await {
                // Another version made one of them with other options: ours to use, not to fight over.
                Err(error) if failure::is_index_conflict(&error) => {
                    tracing::warn!(collection = name, %error, "an index exists with other options");
                    Ok(())
                }
                other => other.map(drop),
            }
        });
        made.await?;
    }
    Ok(())
}

/// Runs one driver call within `limit` and puts its failure into our words.
async fn within<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = ::mongodb::error::Result<T>> + Send,
) -> StoreResult<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| failure::store_error(operation, &error)),
        Err(_) => Err(StoreError::new(
            StoreErrorKind::Unavailable,
            format!("{operation}: no answer within {} ms", limit.as_millis()),
        )),
    }
}

/// The version of stored documents, in their field `version`. New fields need no new one: whoever does not know them leaves
/// them alone. It is for what an earlier version would misread.
const DOCUMENT_VERSION: i64 = 1;

/// What goes into every new document beside its own fields. Those of before it was written have none, and are of version 1.
fn stamp(document: &mut Document) {
    document.insert("version", DOCUMENT_VERSION);
}

/// Of documents that this version may change: part of every guard.
fn not_newer() -> Document {
    doc! { "$not": { "$gt": DOCUMENT_VERSION } }
}

/// Reads a stored document; fields that this version does not know are ignored.
///
/// # Errors
/// `Internal` for one that is not readable, or of a later version.
fn decode<T: DeserializeOwned>(document: &RawDocument) -> StoreResult<T> {
    let version = match document.get("version") {
        Ok(Some(RawBsonRef::Int64(version))) => version,
        Ok(Some(RawBsonRef::Int32(version))) => i64::from(version),
        _ => DOCUMENT_VERSION,
    };
    if version > DOCUMENT_VERSION {
        let id = document.get_str("_id").unwrap_or("(no text _id)");
        return Err(StoreError::new(
            StoreErrorKind::Internal,
            format!(
                "stored document {id} is of version {version}; this process reads up to {DOCUMENT_VERSION}"
            ),
        ));
    }
    ::mongodb::bson::deserialize_from_slice(document.as_bytes()).map_err(|error| {
        let id = document.get_str("_id").unwrap_or("(no text _id)");
        StoreError::new(StoreErrorKind::Internal, format!("stored document {id} is not readable: {error}"))
    })
}

/// Reads many documents. One that is not readable must not hide all the others: it is counted, logged and left out.
fn decode_readable<T: DeserializeOwned>(
    collection: &'static str,
    documents: impl IntoIterator<Item = RawDocumentBuf>,
) -> Vec<T> {
    let decoded = documents.into_iter().map(|document| decode(&document));
    decoded
        .filter_map(|result| match result {
            Ok(value) => Some(value),
            Err(error) => {
                note_unreadable(collection, &error);
                None
            }
        })
        .collect()
}

fn note_unreadable(collection: &'static str, error: &StoreError) {
    metrics::counter!("switchyard_store_unreadable_documents_total", "collection" => collection).increment(1);
    tracing::warn!(collection, %error, "left out a stored document");
}

fn encode<T: serde::Serialize>(value: &T) -> StoreResult<Document> {
    ::mongodb::bson::serialize_to_document(value).map_err(unstorable)
}

fn unstorable(error: ::mongodb::bson::error::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Internal, format!("cannot be stored: {error}"))
}

#[async_trait]
impl Store for MongoStore {
    async fn insert_session(&self, session: &Session) -> StoreResult<Inserted> {
        sessions::insert(&self.shared.sessions, session).await
    }

    async fn session(&self, id: SessionId) -> StoreResult<Option<Session>> {
        sessions::find(&self.shared.sessions, id).await
    }

    async fn sessions(&self, filter: &SessionFilter) -> StoreResult<Vec<Session>> {
        sessions::list(&self.shared.sessions, filter).await
    }

    async fn outlines(
        &self,
        which: Outlined<'_>,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionOutline>> {
        outlines::list(&self.shared.sessions, which, after, limit).await
    }

    async fn open_sessions(&self, after: Option<SessionId>, limit: u32) -> StoreResult<Vec<SessionId>> {
        outlines::open_ids(&self.shared.sessions, after, limit).await
    }

    async fn place_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: &Pipeline,
    ) -> StoreResult<Guarded> {
        sessions::place_pipeline(&self.shared.sessions, session, expected_epoch, pipeline).await
    }

    async fn drop_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        pipeline: PipelineId,
    ) -> StoreResult<Guarded> {
        sessions::drop_pipeline(&self.shared.sessions, session, expected_epoch, pipeline).await
    }

    async fn move_pipeline(
        &self,
        session: SessionId,
        expected_epoch: i64,
        from: PipelineId,
        to: &Pipeline,
    ) -> StoreResult<Guarded> {
        sessions::move_pipeline(&self.shared.sessions, session, expected_epoch, from, to).await
    }

    async fn retire_pipeline(&self, session: SessionId, pipeline: PipelineId) -> StoreResult<Guarded> {
        sessions::retire_pipeline(&self.shared.sessions, session, pipeline).await
    }

    async fn put_participant(
        &self,
        session: SessionId,
        epoch: i64,
        participant: &Participant,
    ) -> StoreResult<Guarded> {
        sessions::put_participant(&self.shared.sessions, session, epoch, participant).await
    }

    async fn set_endpoint_state(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        state: EndpointState,
    ) -> StoreResult<Guarded> {
        sessions::set_endpoint_state(&self.shared.sessions, session, participant, endpoint, state).await
    }

    async fn set_tracks(
        &self,
        session: SessionId,
        participant: ParticipantId,
        endpoint: EndpointId,
        tracks: &[Track],
    ) -> StoreResult<Guarded> {
        sessions::set_tracks(&self.shared.sessions, session, participant, endpoint, tracks).await
    }

    async fn set_track_muted(
        &self,
        session: SessionId,
        participant: ParticipantId,
        track: TrackId,
        muted: bool,
    ) -> StoreResult<Guarded> {
        sessions::set_track_muted(&self.shared.sessions, session, participant, track, muted).await
    }

    async fn remove_participant(
        &self,
        session: SessionId,
        participant: ParticipantId,
        only_if: RemoveIf,
        by: Option<CommandId>,
    ) -> StoreResult<Guarded> {
        sessions::remove_participant(&self.shared.sessions, session, participant, only_if, by).await
    }

    async fn revoke(
        &self,
        session: SessionId,
        participant: ParticipantId,
        at: UnixMillis,
    ) -> StoreResult<Guarded> {
        sessions::revoke(&self.shared.sessions, session, participant, at).await
    }

    async fn note_done(&self, session: SessionId, command: CommandId) -> StoreResult<Guarded> {
        sessions::note_done(&self.shared.sessions, session, command).await
    }

    async fn set_settings(
        &self,
        session: SessionId,
        settings: &SessionSettings,
        by: CommandId,
    ) -> StoreResult<Guarded> {
        sessions::set_settings(&self.shared.sessions, session, settings, by).await
    }

    async fn close_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        sessions::close(&self.shared.sessions, session, at, doc! {}).await
    }

    async fn close_empty_session(&self, session: SessionId, at: UnixMillis) -> StoreResult<Guarded> {
        let empty = doc! { "participants": { "$size": 0 } };
        sessions::close(&self.shared.sessions, session, at, empty).await
    }

    async fn closed_sessions(
        &self,
        before: UnixMillis,
        after: Option<SessionId>,
        limit: u32,
    ) -> StoreResult<Vec<SessionId>> {
        outlines::closed_ids(&self.shared.sessions, before, after, limit).await
    }

    async fn delete_closed_sessions(&self, before: UnixMillis) -> StoreResult<u64> {
        sessions::delete_closed(&self.shared.sessions, before).await
    }

    async fn watch_sessions(&self, resume: Option<&ResumeToken>) -> StoreResult<Box<dyn SessionWatch>> {
        Ok(Box::new(watch::MongoWatch::open(self.shared.sessions.clone(), resume).await?))
    }

    async fn put_worker(&self, worker: &Worker) -> StoreResult<()> {
        workers::put(&self.shared.workers, worker).await
    }

    async fn renew_worker(&self, worker: &Worker) -> StoreResult<bool> {
        workers::renew(&self.shared.workers, worker).await
    }

    async fn worker(&self, id: WorkerId) -> StoreResult<Option<Worker>> {
        workers::find(&self.shared.workers, id).await
    }

    async fn workers(&self) -> StoreResult<Vec<Worker>> {
        workers::list(&self.shared.workers).await
    }

    async fn remove_worker(&self, id: WorkerId, run: RunId) -> StoreResult<()> {
        workers::remove(&self.shared.workers, id, run).await
    }

    async fn bury_worker(&self, seen: &Worker) -> StoreResult<bool> {
        workers::bury(&self.shared.workers, seen).await
    }

    async fn append_timeline(&self, session: SessionId, entries: &[TimelineEntry]) -> StoreResult<()> {
        timeline::append(&self.shared.timeline, session, entries).await
    }

    async fn timeline(
        &self,
        session: SessionId,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        timeline::of(&self.shared.timeline, session, after, limit.min(TIMELINE_LIMIT)).await
    }

    async fn sessions_owed(
        &self,
        to: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> StoreResult<Vec<SessionId>> {
        webhooks::sessions_owed(&self.shared.timeline, to, after, limit).await
    }

    async fn owed(&self, to: &str, session: SessionId, limit: usize) -> StoreResult<Vec<TimelineEntry>> {
        webhooks::owed(&self.shared.timeline, to, session, limit).await
    }

    async fn settle_owed(&self, to: &str, entry: EventId, given_up: bool) -> StoreResult<bool> {
        webhooks::settle(&self.shared.timeline, to, entry, given_up).await
    }

    async fn given_up(
        &self,
        to: &[String],
        after: Option<EventId>,
        limit: usize,
    ) -> StoreResult<Vec<TimelineEntry>> {
        webhooks::given_up(&self.shared.timeline, to, after, limit).await
    }

    async fn owe_again(&self, to: &str, entry: EventId, since: UnixMillis) -> StoreResult<bool> {
        webhooks::owe_again(&self.shared.timeline, to, entry, since).await
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: InstanceId,
        now: UnixMillis,
        until: UnixMillis,
    ) -> StoreResult<bool> {
        webhooks::take_lease(&self.shared.leases, name, holder, now, until).await
    }

    async fn put_rating(&self, rating: &Rating) -> StoreResult<bool> {
        ratings::put(&self.shared.ratings, rating).await
    }

    async fn ratings(
        &self,
        session: SessionId,
        after: Option<ParticipantId>,
        limit: usize,
    ) -> StoreResult<Vec<Rating>> {
        ratings::of(&self.shared.ratings, session, after, limit).await
    }

    fn connected(&self) -> watch_channel::Receiver<bool> {
        self.shared.connected.clone()
    }

    async fn ping(&self, timeout: Duration) -> StoreResult<()> {
        ping(&self.shared.database, timeout).await
    }
}
