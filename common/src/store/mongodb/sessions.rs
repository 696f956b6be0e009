//! The `sessions` collection: every change one `findOneAndUpdate` whose filter is its guard.
//!
//! Enum values and ids are written through the same `serde` as whole documents, so a name cannot differ between the two.

use ::mongodb::Collection;
use ::mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use ::mongodb::options::{ReturnDocument, UpdateModifications};
use futures::TryStreamExt;
use serde::Serialize;

use super::{
    OPERATION_LIMIT, decode, decode_readable, encode, failure, not_newer, stamp, unstorable, within,
};
use crate::model::{
    CommandId, DONE_COMMANDS_KEPT, EndpointId, EndpointState, Participant, ParticipantId, ParticipantState,
    Pipeline, PipelineId, PipelineState, REVOCATIONS_KEPT, Revocation, Session, SessionId, SessionSettings,
    SessionState, Track, TrackId,
};
use crate::store::{
    Guarded, Inserted, RemoveIf, SessionFilter, StoreError, StoreErrorKind, StoreResult, is_placed,
    participant_state_for,
};
use crate::time::UnixMillis;

/// Tries of an insert whose rival was deleted before it could be read.
const INSERT_TRIES: usize = 3;

type Sessions = Collection<RawDocumentBuf>;

pub(super) async fn insert(sessions: &Sessions, session: &Session) -> StoreResult<Inserted> {
    let mut document = encode(session)?;
    stamp(&mut document);
    let document = RawDocumentBuf::try_from(&document).map_err(unstorable)?;
    for _ in 0..INSERT_TRIES {
        let is_new = within(OPERATION_LIMIT, "insert session", async {
            match sessions.insert_one(&document).await {
                Err(error) if failure::is_duplicate_key(&error) => Ok(false),
                other => other.map(|_| true),
            }
        });
        if is_new.await? {
            return Ok(Inserted::New);
        }
        if let Some(existing) = find(sessions, session.id).await? {
            return Ok(Inserted::Existing(Box::new(existing)));
        }
    }
    Err(StoreError::new(
        StoreErrorKind::Unavailable,
        "insert session: the id is taken and deleted again and again",
    ))
}

pub(super) async fn find(sessions: &Sessions, id: SessionId) -> StoreResult<Option<Session>> {
    let found = within(OPERATION_LIMIT, "find session", async {
        sessions.find_one(doc! { "_id": id.to_string() }).await
    });
    found.await?.as_deref().map(decode).transpose()
}

pub(super) async fn list(sessions: &Sessions, filter: &SessionFilter) -> StoreResult<Vec<Session>> {
    let mut query = Document::new();
    if let Some(key_id) = &filter.key_id {
        query.insert("key_id", key_id);
    }
    if filter.open_only {
        query.insert("state", text(&SessionState::Open)?);
    }
    if let Some(worker) = filter.worker_id {
        query.insert("pipelines.worker_id", worker.to_string());
    }
    if let Some(after) = filter.after {
        query.insert("_id", doc! { "$gt": after.to_string() });
    }
    if let Some(text) = &filter.search {
        let occurs = |field: &str| doc! { field: { "$regex": literal(text), "$options": "i" } };
        let fields = ["_id", "name", "participants._id", "participants.name"].map(occurs);
        query.insert("$or", fields.to_vec());
    }
    let limit = i64::try_from(filter.effective_limit()).unwrap_or(i64::MAX);
    let listed = within(OPERATION_LIMIT, "list sessions", async {
        sessions.find(query).sort(doc! { "_id": 1 }).limit(limit).await?.try_collect::<Vec<_>>().await
    });
    Ok(decode_readable("sessions", listed.await?))
}

/// A regular expression that matches this text and nothing else.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

pub(super) async fn place_pipeline(
    sessions: &Sessions,
    session: SessionId,
    expected_epoch: i64,
    pipeline: &Pipeline,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(), "state": text(&SessionState::Open)?, "epoch": expected_epoch,
        "pipelines": { "$size": 0 },
    };
    let update = doc! {
        "$push": { "pipelines": encode(pipeline)? },
        "$inc": { "epoch": 1_i64 },
        "$set": { "previous_worker_id": pipeline.worker_id.to_string() },
    };
    let placed = guarded(sessions, "place pipeline", session, guard, update, vec![]).await?;
    Ok(match placed {
        Guarded::Refused(Some(stored)) if is_placed(&stored, expected_epoch, pipeline.id) => {
            Guarded::Applied(stored)
        }
        other => other,
    })
}

pub(super) async fn drop_pipeline(
    sessions: &Sessions,
    session: SessionId,
    expected_epoch: i64,
    pipeline: PipelineId,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(), "epoch": expected_epoch, "pipelines._id": pipeline.to_string(),
    };
    let (mut update, dead) = end_of_pipeline(pipeline)?;
    update.insert("$inc", doc! { "epoch": 1_i64 });
    guarded(sessions, "drop pipeline", session, guard, update, vec![dead]).await
}

/// An update by aggregation: no array operator can change the entries and add one before them at once.
pub(super) async fn move_pipeline(
    sessions: &Sessions,
    session: SessionId,
    expected_epoch: i64,
    from: PipelineId,
    to: &Pipeline,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(), "state": text(&SessionState::Open)?, "epoch": expected_epoch,
        "pipelines.0._id": from.to_string(),
    };
    let draining = doc! { "$map": { "input": "$pipelines", "as": "each", "in": {
        "$mergeObjects": ["$$each", { "state": text(&PipelineState::Draining)? }],
    } } };
    let update = vec![doc! { "$set": {
        "pipelines": { "$concatArrays": [[encode(to)?], draining] },
        "epoch": { "$add": ["$epoch", 1_i64] },
        "previous_worker_id": to.worker_id.to_string(),
    } }];
    let moved = guarded(sessions, "move pipeline", session, guard, update, vec![]).await?;
    Ok(match moved {
        Guarded::Refused(Some(stored)) if is_placed(&stored, expected_epoch, to.id) => {
            Guarded::Applied(stored)
        }
        other => other,
    })
}

pub(super) async fn retire_pipeline(
    sessions: &Sessions,
    session: SessionId,
    pipeline: PipelineId,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(),
        "pipelines": { "$elemMatch": { "_id": pipeline.to_string(), "state": text(&PipelineState::Draining)? } },
        "pipelines.0._id": { "$ne": pipeline.to_string() },
    };
    let (update, dead) = end_of_pipeline(pipeline)?;
    guarded(sessions, "retire pipeline", session, guard, update, vec![dead]).await
}

/// The update that takes a pipeline out and ends what was on it, and its array filter.
fn end_of_pipeline(pipeline: PipelineId) -> StoreResult<(Document, Document)> {
    let update = doc! {
        "$pull": { "pipelines": { "_id": pipeline.to_string() } },
        "$set": {
            "participants.$[dead].endpoint.state": text(&EndpointState::Closed)?,
            "participants.$[dead].state": text(&ParticipantState::Disconnected)?,
            "participants.$[dead].tracks": [],
        },
    };
    Ok((update, doc! { "dead.endpoint.pipeline_id": pipeline.to_string() }))
}

/// Add or replace in one atomic update: an update by aggregation, as no array operator can do either.
///
/// A replaced entry keeps its place, and fields of it that this version does not know (`$mergeObjects`).
pub(super) async fn put_participant(
    sessions: &Sessions,
    session: SessionId,
    epoch: i64,
    participant: &Participant,
) -> StoreResult<Guarded> {
    let id = participant.id.to_string();
    let join = participant.command_id.to_string();
    let closed = text(&EndpointState::Closed)?;
    let pipeline = participant.endpoint.as_ref().map(|endpoint| endpoint.pipeline_id.to_string());
    let stands = doc! {
        "_id": &id, "command_id": &join, "endpoint.pipeline_id": pipeline, "endpoint.state": { "$ne": closed },
    };
    let mut guard = doc! {
        "_id": session.to_string(), "state": text(&SessionState::Open)?, "epoch": epoch,
        "$or": [{ "done_commands": { "$ne": &join } }, { "participants": { "$elemMatch": stands } }],
    };
    if let Some(issued_at) = participant.token_issued_at {
        let revoked = doc! { "_id": &id, "at": { "$gte": issued_at.0 } };
        guard.insert("revocations", doc! { "$not": { "$elemMatch": revoked } });
    }
    // `$literal`: a participant's name is anyone's text, and may begin with `$`.
    let entry = doc! { "$literal": encode(participant)? };
    let each = |result: Bson| doc! { "$map": { "input": "$participants", "as": "each", "in": result } };
    let replaced = each(
        doc! { "$cond": [
            { "$eq": ["$$each._id", &id] },
            { "$mergeObjects": ["$$each", entry.clone()] },
            "$$each",
        ] }
        .into(),
    );
    let added = doc! { "$concatArrays": ["$participants", [entry]] };
    let is_there = doc! { "$in": [&id, each("$$each._id".into())] };
    // Not there in documents of earlier versions.
    let done = doc! { "$ifNull": ["$done_commands", []] };
    let with_join = doc! { "$slice": [{ "$concatArrays": [done.clone(), [&join]] }, -kept()] };
    let update = vec![doc! { "$set": {
        "participants": { "$cond": [is_there, replaced, added] },
        "done_commands": { "$cond": [{ "$in": [&join, done.clone()] }, done, with_join] },
    } }];
    guarded(sessions, "put participant", session, guard, update, vec![]).await
}

pub(super) async fn set_endpoint_state(
    sessions: &Sessions,
    session: SessionId,
    participant: ParticipantId,
    endpoint: EndpointId,
    state: EndpointState,
) -> StoreResult<Guarded> {
    let update = doc! { "$set": {
        "participants.$[each].endpoint.state": text(&state)?,
        "participants.$[each].state": text(&participant_state_for(state))?,
    } };
    let endpoint = match state {
        EndpointState::Closed => with_endpoint(endpoint),
        _ => with_open_endpoint(endpoint)?,
    };
    let guard = has_participant(session, participant, endpoint);
    let each = doc! { "each._id": participant.to_string() };
    guarded(sessions, "set endpoint state", session, guard, update, vec![each]).await
}

pub(super) async fn set_tracks(
    sessions: &Sessions,
    session: SessionId,
    participant: ParticipantId,
    endpoint: EndpointId,
    tracks: &[Track],
) -> StoreResult<Guarded> {
    let tracks = tracks.iter().map(encode).collect::<StoreResult<Vec<_>>>()?;
    let update = doc! { "$set": { "participants.$[each].tracks": tracks } };
    let guard = has_participant(session, participant, with_open_endpoint(endpoint)?);
    let each = doc! { "each._id": participant.to_string() };
    guarded(sessions, "set tracks", session, guard, update, vec![each]).await
}

pub(super) async fn set_track_muted(
    sessions: &Sessions,
    session: SessionId,
    participant: ParticipantId,
    track: TrackId,
    muted: bool,
) -> StoreResult<Guarded> {
    let update = doc! { "$set": { "participants.$[each].tracks.$[track].muted": muted } };
    let guard = has_participant(session, participant, doc! { "tracks.id": track.to_string() });
    let filters = vec![doc! { "each._id": participant.to_string() }, doc! { "track.id": track.to_string() }];
    guarded(sessions, "set track muted", session, guard, update, filters).await
}

pub(super) async fn remove_participant(
    sessions: &Sessions,
    session: SessionId,
    participant: ParticipantId,
    only_if: RemoveIf,
    by: Option<CommandId>,
) -> StoreResult<Guarded> {
    let also = match only_if {
        RemoveIf::Present => Document::new(),
        RemoveIf::Endpoint(endpoint) => with_endpoint(endpoint),
        RemoveIf::OpenEndpoint(endpoint) => with_open_endpoint(endpoint)?,
    };
    let mut guard = has_participant(session, participant, also);
    let mut update = doc! { "$pull": { "participants": { "_id": participant.to_string() } } };
    if let Some(leave) = by {
        guard.insert("done_commands", doc! { "$ne": leave.to_string() });
        update.insert("$push", noted_as_done(leave));
    }
    guarded(sessions, "remove participant", session, guard, update, vec![]).await
}

/// An update by aggregation: it replaces the entry there is, and leaves one that says as much where it is.
pub(super) async fn revoke(
    sessions: &Sessions,
    session: SessionId,
    participant: ParticipantId,
    at: UnixMillis,
) -> StoreResult<Guarded> {
    let guard = doc! { "_id": session.to_string(), "state": text(&SessionState::Open)? };
    let id = participant.to_string();
    let is_own = |also: Bson| doc! { "$and": [{ "$eq": ["$$each._id", &id] }, also] };
    // Not there in most documents.
    let noted = doc! { "$ifNull": ["$revocations", []] };
    let filtered =
        |condition: Document| doc! { "$filter": { "input": noted.clone(), "as": "each", "cond": condition } };
    let as_late = filtered(is_own(doc! { "$gte": ["$$each.at", at.0] }.into()));
    let others = filtered(doc! { "$ne": ["$$each._id", &id] });
    let with_it = doc! { "$slice": [
        { "$concatArrays": [others, [encode(&Revocation { participant_id: participant, at })?]] },
        -(REVOCATIONS_KEPT as i32),
    ] };
    let update = vec![doc! { "$set": {
        "revocations": { "$cond": [{ "$gt": [{ "$size": as_late }, 0] }, noted.clone(), with_it] },
    } }];
    guarded(sessions, "revoke", session, guard, update, vec![]).await
}

pub(super) async fn note_done(
    sessions: &Sessions,
    session: SessionId,
    command: CommandId,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(), "state": text(&SessionState::Open)?,
        "done_commands": { "$ne": command.to_string() },
    };
    let update = doc! { "$push": noted_as_done(command) };
    guarded(sessions, "note done", session, guard, update, vec![]).await
}

/// Each setting by itself: fields that this version does not know stay, and the database counts the revisions.
pub(super) async fn set_settings(
    sessions: &Sessions,
    session: SessionId,
    settings: &SessionSettings,
    by: CommandId,
) -> StoreResult<Guarded> {
    let guard = doc! {
        "_id": session.to_string(), "state": text(&SessionState::Open)?, "done_commands": { "$ne": by.to_string() },
    };
    let encoded = encode(settings)?;
    let (mut set, mut unset) = (Document::new(), Document::new());
    for name in ["last_n", "loudest_n", "codecs", "bitrates"] {
        match encoded.get(name) {
            Some(value) => set.insert(format!("settings.{name}"), value.clone()),
            None => unset.insert(format!("settings.{name}"), ""),
        };
    }
    let mut update = doc! { "$inc": { "settings.revision": 1_i64 }, "$push": noted_as_done(by) };
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    guarded(sessions, "set settings", session, guard, update, vec![]).await
}

fn noted_as_done(command: CommandId) -> Document {
    doc! { "done_commands": { "$each": [command.to_string()], "$slice": -kept() } }
}

const fn kept() -> i32 {
    DONE_COMMANDS_KEPT as i32
}

/// Closes the session if it is open and `also` holds.
pub(super) async fn close(
    sessions: &Sessions,
    session: SessionId,
    at: UnixMillis,
    also: Document,
) -> StoreResult<Guarded> {
    let mut guard = doc! { "_id": session.to_string(), "state": text(&SessionState::Open)? };
    guard.extend(also);
    let update = doc! { "$set": {
        "state": text(&SessionState::Closed)?, "closed_at": at.0, "participants": [], "pipelines": [],
        "done_commands": [],
    } };
    guarded(sessions, "close session", session, guard, update, vec![]).await
}

pub(super) fn closed_before(before: UnixMillis) -> StoreResult<Document> {
    Ok(doc! { "state": text(&SessionState::Closed)?, "closed_at": { "$lt": before.0 } })
}

pub(super) async fn delete_closed(sessions: &Sessions, before: UnixMillis) -> StoreResult<u64> {
    let filter = closed_before(before)?;
    let deleted =
        within(OPERATION_LIMIT, "delete closed sessions", async { sessions.delete_many(filter).await });
    Ok(deleted.await?.deleted_count)
}

/// One guarded update: the filter is the guard. When it does not hold, what is stored is read for the caller.
async fn guarded(
    sessions: &Sessions,
    operation: &'static str,
    session: SessionId,
    mut guard: Document,
    update: impl Into<UpdateModifications>,
    array_filters: Vec<Document>,
) -> StoreResult<Guarded> {
    guard.insert("version", not_newer());
    let update = sessions.find_one_and_update(guard, update).return_document(ReturnDocument::After);
    let update = match array_filters.is_empty() {
        true => update,
        false => update.array_filters(array_filters),
    };
    match within(OPERATION_LIMIT, operation, async { update.await }).await? {
        Some(stored) => Ok(Guarded::Applied(Box::new(decode(&stored)?))),
        None => Ok(Guarded::Refused(find(sessions, session).await?.map(Box::new))),
    }
}

/// The guard "this session has this participant, and of it this too".
fn has_participant(session: SessionId, participant: ParticipantId, mut also: Document) -> Document {
    also.insert("_id", participant.to_string());
    doc! { "_id": session.to_string(), "participants": { "$elemMatch": also } }
}

fn with_endpoint(endpoint: EndpointId) -> Document {
    doc! { "endpoint._id": endpoint.to_string() }
}

fn with_open_endpoint(endpoint: EndpointId) -> StoreResult<Document> {
    let closed = text(&EndpointState::Closed)?;
    Ok(doc! { "endpoint._id": endpoint.to_string(), "endpoint.state": { "$ne": closed } })
}

/// How `serde` writes a value that is one word.
pub(super) fn text<T: Serialize>(value: &T) -> StoreResult<Bson> {
    ::mongodb::bson::serialize_to_bson(value).map_err(unstorable)
}
